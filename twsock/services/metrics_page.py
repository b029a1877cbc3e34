"""
The HTTP pages of metrics and health: request → **page** → text.

Served by Twisted's HTTP server for `twsock.services.metrics`. ``/metrics`` has the format that the
client accepts: OpenMetrics or the text format of Prometheus. At most `MAX_CONNECTIONS` connections
are open. `QuietSite` drops the bodies of requests.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any, Final

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ServerFactory
from twisted.protocols.policies import WrappingFactory
from twisted.web.resource import Resource
from typing_extensions import override

from twsock.services.measurements import Kind, Measurement, group_by_name
from twsock.services.quiet_site import QuietSite

__all__ = ["MAX_CONNECTIONS", "PageSource", "page_factory"]

#: How many connections all pages have together at most; further ones are closed.
MAX_CONNECTIONS: Final = 64

#: Seconds without a byte from the client after which a connection is closed.
_TIMEOUT: Final = 30


class PageSource(typing.Protocol):
    """The process whose health and metrics are served."""

    @property
    def is_ready(self) -> bool:
        """Whether every service listens, and the process does not stop."""

    def measure(self) -> Iterator[Measurement]:
        """Return the measurements of all services."""


def page_factory(reactor: Any, source: PageSource, *, has_metrics: bool) -> ServerFactory:
    """
    Make the factory of the pages.

    :param has_metrics: whether ``/metrics`` is served; needs prometheus-client.
    """
    site = QuietSite(_Page(source, has_metrics), reactor, _TIMEOUT)
    factory: Any = _Limited(site)
    return typing.cast(ServerFactory, factory)


class _Limited(WrappingFactory):
    noisy = False

    @override
    def buildProtocol(self, addr: IAddress | None) -> Any:
        return None if len(self.protocols) >= MAX_CONNECTIONS else super().buildProtocol(addr)


class _Page(Resource):
    """All pages."""

    isLeaf = True  # noqa: N815 - an attribute of Twisted's Resource

    def __init__(self, source: PageSource, has_metrics: bool) -> None:
        super().__init__()
        self._source = source
        self._has_metrics = has_metrics

    # Called by Twisted.

    @override
    def render(self, request: Any) -> bytes:
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
            return _metrics(request, self._source)
        request.setResponseCode(404)
        return b"not found\n"

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
