"""
The HTTP pages of metrics and health: request → **page** → text.

Served by Twisted's HTTP server for `twsock.services.metrics`. ``/metrics`` has the format that the
client accepts: OpenMetrics or the text format of Prometheus. At most `MAX_CONNECTIONS` connections
are open, and each request has to arrive within `REQUEST_TIME`. `QuietSite` drops the bodies of
requests.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from typing_extensions import override

from twsock.services.measurements import Kind, Measurement, group_by_name
from twsock.services.quiet_site import QuietChannel, QuietSite
from twsock.stream.connection import FIRST_MESSAGE_TIME
from twsock.waiters import Waiters

__all__ = ["IDLE_TIME", "MAX_CONNECTIONS", "REQUEST_TIME", "PageSite", "PageSource", "page_factory"]

#: How many connections one endpoint has at most. One more aborts the connection whose last answer
#: is the oldest, so that clients which hold connections cannot lock out a load balancer.
MAX_CONNECTIONS: Final = 64

#: Seconds from the first byte of a request, or from the start of a connection, within which the
#: whole request has to arrive.
REQUEST_TIME: Final = 30

#: Seconds between two requests of a connection: more than a minute, the default interval of
#: Prometheus, which then uses one connection.
IDLE_TIME: Final = 75


class PageSource(typing.Protocol):
    """The process whose health and metrics are served."""

    @property
    def is_ready(self) -> bool:
        """Whether every service listens, and the process does not stop."""

    def measure(self) -> Iterator[Measurement]:
        """Return the measurements of all services."""

    def refresh(self) -> Deferred[None]:
        """Wait until the measurements of other processes have arrived, or are late."""


def page_factory(reactor: Any, source: PageSource, *, has_metrics: bool) -> PageSite:
    """
    Make the factory of the pages.

    :param has_metrics: whether ``/metrics`` is served; needs prometheus-client.
    """
    return PageSite(_Page(source, has_metrics), reactor)


class PageSite(QuietSite):
    """
    The server of one endpoint; limits the number of connections, and the time of each request.

    :ivar is_draining: whether each answer is the last of its connection.
    """

    def __init__(self, page: _Page, reactor: Any) -> None:
        super().__init__(page, reactor)
        self.protocol = _Channel
        self.clock: IReactorTime = reactor
        # In the order of their last answers.
        self._channels: dict[_Channel, None] = {}
        self.is_draining = False
        self._emptied = Waiters()

    def drain(self) -> Deferred[None]:
        """
        Close the connections that await no answer; the others have a second for their request.

        Stop the ports first.

        :returns: fires when no connection is left, or after the second.
        """
        self.is_draining = True
        for channel in list(self._channels):
            channel.drain()
        return self._emptied.wait_at_most(FIRST_MESSAGE_TIME if self._channels else 0, self.clock)

    def join(self, channel: _Channel) -> None:
        """Add a connection; abort another one if there are too many."""
        if len(self._channels) >= MAX_CONNECTIONS:
            oldest = next(iter(self._channels))
            self.leave(oldest)
            oldest.abort()
        self._channels[channel] = None

    def answered(self, channel: _Channel) -> None:
        """Note that a connection was answered last."""
        if channel in self._channels:
            del self._channels[channel]
            self._channels[channel] = None

    def leave(self, channel: _Channel) -> None:
        """Forget a connection."""
        self._channels.pop(channel, None)
        if not self._channels:
            self._emptied.fire()


class _Channel(QuietChannel):
    """A connection that ends if a request takes too long to arrive."""

    site: PageSite
    _deadline: IDelayedCall | None = None
    # Whether a request is awaited: the first one, or one that has begun to arrive.
    _has_begun = True

    def drain(self) -> None:
        """Close, unless a request is awaited."""
        if not self._has_begun:
            self.loseConnection()

    def abort(self) -> None:
        """End the connection without waiting for the peer."""
        transport: Any = self.transport
        transport.abortConnection()

    # Called by Twisted.

    @override
    def connectionMade(self) -> None:
        super().connectionMade()
        self.site.join(self)
        self._wait(REQUEST_TIME)

    @override
    def dataReceived(self, data: bytes) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._wait(REQUEST_TIME)
        super().dataReceived(data)

    @override
    def checkPersistence(self, request: Any, version: bytes) -> bool:
        if self.site.is_draining:
            request.setHeader(b"Connection", b"close")
            return False
        return bool(super().checkPersistence(request, version))

    @override
    def requestDone(self, request: Any) -> None:
        self._has_begun = False
        self.site.answered(self)
        self._wait(IDLE_TIME)
        super().requestDone(request)

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.site.leave(self)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        super().connectionLost(reason)

    def _wait(self, seconds: float) -> None:
        if self._deadline is None:
            self._deadline = self.site.clock.callLater(seconds, self._end)
        else:
            self._deadline.reset(seconds)

    def _end(self) -> None:
        self._deadline = None
        if self._has_begun:
            self.abort()
        else:
            # In order, unless the client does not read the last answer.
            self._has_begun = True
            self._wait(REQUEST_TIME)
            self.loseConnection()


class _Page(Resource):
    """All pages."""

    isLeaf = True  # noqa: N815 - an attribute of Twisted's Resource

    def __init__(self, source: PageSource, has_metrics: bool) -> None:
        super().__init__()
        self._source = source
        self._has_metrics = has_metrics

    # Called by Twisted.

    @override
    def render(self, request: Any) -> bytes | int:
        """Return the text of a page."""
        request.setHeader("Content-Type", "text/plain; charset=utf-8")
        request.setHeader("Cache-Control", "no-store")
        if request.method not in (b"GET", b"HEAD"):
            request.setResponseCode(405)
            request.setHeader("Allow", "GET, HEAD")
            return b"method not allowed\n"
        if request.path == b"/health/live":
            return b"live\n"
        if request.path == b"/health/ready":
            return self._ready(request)
        if request.path == b"/metrics" and self._has_metrics:
            return self._measure(request)
        request.setResponseCode(404)
        return b"not found\n"

    def _measure(self, request: Any) -> bytes | int:
        refreshed = self._source.refresh()
        if refreshed.called:
            return _metrics(request, self._source)
        lost: list[Failure] = []
        request.notifyFinish().addErrback(lost.append)

        def finish(_: object) -> None:
            if not lost:
                text = _metrics(request, self._source)
                request.setHeader("Content-Length", str(len(text)))
                request.write(text)
                request.finish()

        refreshed.addCallback(finish)
        return NOT_DONE_YET

    def _ready(self, request: Any) -> bytes:
        if self._source.is_ready:
            return b"ready\n"
        request.setResponseCode(503)
        return b"not ready\n"


def _metrics(request: Any, source: PageSource) -> bytes:
    from prometheus_client.exposition import choose_encoder

    encode, content_type = choose_encoder(request.getHeader("Accept") or "")
    request.setHeader("Content-Type", content_type)
    text: bytes = encode(_Collector(source))
    return text


class _Collector:
    """Measurements in the form that prometheus-client encodes."""

    def __init__(self, source: PageSource) -> None:
        self._source = source

    def collect(self) -> Iterator[Any]:
        """Return the metrics of twsock, then those of the process."""
        from prometheus_client import ProcessCollector
        from prometheus_client.metrics_core import Metric

        for name, measurements in group_by_name(self._source.measure()).items():
            first = measurements[0]
            metric = Metric(name, first.meaning, first.kind.value)
            total = "_total" if first.kind is Kind.COUNTER else ""
            for each in measurements:
                metric.add_sample(name + (each.suffix or total), dict(each.labels), each.value)
            yield metric
        yield from ProcessCollector(registry=None).collect()
