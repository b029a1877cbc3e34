"""
Metrics and health of a process: services → measurements → **page** → HTTP.

`MetricsService` listens for ``--metrics`` or ``--health``. The process starts this service before
all others and stops it after them, so that a load balancer sees that the process drains. The page
is in `twsock.services.metrics_page`, which loads the HTTP server of Twisted, and is itself loaded
when the service listens. Holds the endpoints, and the waits for the end of a drain's delay.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.python.usage import Options, UsageError
from typing_extensions import override

from twsock.ip.address_errors import EndpointError
from twsock.log import TextLogger
from twsock.services.keeping_reactor import plain_reactor
from twsock.services.listening import ListeningService, describe_mistake
from twsock.services.measurements import Measurement
from twsock.services.stream_endpoints import parse_server_endpoint
from twsock.stream.listening.accept_gate import AcceptGate
from twsock.waiters import Waiters

if TYPE_CHECKING:
    from twsock.services.metrics_page import PageSite

__all__ = [
    "MetricsService",
    "check_metrics",
    "describe_ports",
    "listening_services",
    "metrics_service",
]


class MetricsService(ListeningService):
    """
    Serves the health of a process, and its metrics.

    :param reactor: measures the delay of a drain, and the timeouts of the pages.
    :param endpoints: pairs of an endpoint string and the endpoint made from it.
    :param services: returns the services of the process.
    :param has_metrics: whether ``/metrics`` is served; needs prometheus-client.
    """

    _log = TextLogger()

    def __init__(
        self,
        reactor: Any,
        endpoints: Iterable[tuple[str, IStreamServerEndpoint]],
        services: Callable[[], Iterable[ListeningService]],
        *,
        has_metrics: bool,
    ) -> None:
        super().__init__(reactor, list(endpoints))
        self._services = services
        self._has_metrics = has_metrics
        self.purpose = f"serve {'metrics and ' if has_metrics else ''}health checks"
        self._is_draining = False
        self._sites: list[PageSite] = []
        self._delay = Waiters()

    @property
    def is_ready(self) -> bool:
        """Whether every service listens, and the process does not stop."""
        return not self._is_draining and all(each.is_ready for each in self._services())

    def measure(self) -> Iterator[Measurement]:
        """Return the measurements of all services."""
        for service in self._services():
            yield from service.measure()

    @override
    def refresh(self) -> Deferred[None]:
        """Wait until the measurements of other processes have arrived, or are late."""
        refreshed: Deferred[Any] = DeferredList(each.refresh() for each in self._services())
        return refreshed.addCallback(_nothing)

    def drain(self, delay: float) -> Deferred[None]:
        """
        Report that the process is not ready.

        :param delay: seconds during which the services still accept connections; 0 or more.
        :returns: fires after the delay, or at a second SIGTERM during the delay.
        """
        self._is_draining = True
        if delay and not self.is_hurried:
            self._log.info("not ready: stops listening after {delay:g} s", delay=delay)
        return self._delay.wait_at_most(0 if self.is_hurried else delay, self._reactor)

    @override
    def hurry(self) -> None:
        super().hurry()
        self._delay.fire()

    @override
    def listen_on(self, endpoint: IStreamServerEndpoint) -> Deferred[IListeningPort]:
        from twsock.services.metrics_page import page_factory

        self._is_draining = False
        site = page_factory(self._reactor, self, has_metrics=self._has_metrics)
        self._sites.append(site)
        listening: Deferred[IListeningPort] = endpoint.listen(site)
        return listening.addCallback(self._serve_queue_at_end)

    @override
    async def stop(self) -> None:
        await self.close_ports()
        sites, self._sites = self._sites, []
        await DeferredList([site.drain() for site in sites])

    def _serve_queue_at_end(self, port: Any) -> Any:
        """Let a stopping port accept the clients that the kernel has queued."""
        if hasattr(port, "socket") and hasattr(port, "pauseProducing"):
            AcceptGate(port, self._reactor, _has_room)
        return port


def _has_room() -> bool:
    # The site limits its connections itself.
    return True


def check_metrics(options: Options) -> None:
    """
    Check the options ``--metrics``, ``--health`` and ``--drain-delay``.

    :raises UsageError: when an endpoint cannot be used, prometheus-client is not installed, or the
        delay has no page that reports it.
    """
    given: Any = options
    for option in ("metrics", "health"):
        if given[option] is not None:
            try:
                parse_server_endpoint(given.page_reactor, given[option])
            except EndpointError as error:
                raise UsageError(f"--{option}: {describe_mistake(error)}") from error
    if given["metrics"] is not None and importlib.util.find_spec("prometheus_client") is None:
        raise UsageError(
            "--metrics needs prometheus-client: run pip install 'twsock[metrics]', or use --health"
        )
    if given["drain-delay"] and given["metrics"] is None and given["health"] is None:
        raise UsageError("--drain-delay needs --metrics or --health, which report that it drains")


def metrics_service(
    reactor: Any, options: Options, services: Callable[[], Iterable[ListeningService]]
) -> MetricsService | None:
    """Make the service that the options ask for; None without ``--metrics`` and ``--health``."""
    given: Any = options
    strings = [given[option] for option in ("metrics", "health") if given[option] is not None]
    if not strings:
        return None
    endpoints = [(string, parse_server_endpoint(reactor, string)) for string in strings]
    has_metrics = given["metrics"] is not None
    return MetricsService(plain_reactor(reactor), endpoints, services, has_metrics=has_metrics)


def describe_ports(service: Any) -> str:
    """Return the addresses of the ports of all services inside a service, for people."""
    services = listening_services(service)
    return ", ".join(each.describe_opened(port) for each in services for port in each.ports)


def listening_services(service: Any) -> Iterator[ListeningService]:
    """Return the listening services inside a service, and the service itself if it listens."""
    if isinstance(service, ListeningService):
        yield service
        return
    for child in service:
        yield from listening_services(child)


def _nothing(_: object) -> None:
    pass
