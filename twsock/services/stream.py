"""
``twistd twsock-stream``: an echo over TCP, UNIX sockets and every other stream endpoint.

Options → `stream_service` → `StreamService` → `twsock.protocols.FrameEchoFactory` or
`LineEchoFactory`. The service owns the ports and the drain; the factory owns the connections.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final

from twisted.application.service import IService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.python import usage
from typing_extensions import override

from twsock.log import TextLogger
from twsock.protocols import Counters, FrameEchoFactory, LineEchoFactory, StreamServerFactory
from twsock.services.keeping_reactor import plain_reactor
from twsock.services.listening import ListeningService, default_endpoints
from twsock.services.measurements import Measurement, describe_counts, measure_streams
from twsock.services.options import count_option, seconds_option
from twsock.services.security import Security
from twsock.services.stream_endpoints import StreamEndpointSettings, parse_server_endpoints
from twsock.services.stream_options import (
    DEFAULT_DRAIN_TIMEOUT,
    MOST_CONNECTIONS,
    RESERVED_DESCRIPTORS,
    StreamServiceOptions,
)
from twsock.stream.connection_log import ConnectionLog
from twsock.stream.factory import DEFAULT_IDLE_TIMEOUT
from twsock.wire.frames import MAX_UINT32

__all__ = [
    "DEFAULT_PORT",
    "Options",
    "StreamService",
    "default_max_connections",
    "makeService",
    "stream_service",
]

#: The port of the echo pages in the Windows sockets guide.
DEFAULT_PORT: Final = 1337

#: Counts that the log has although they are 0.
_ALWAYS_LOGGED: Final = ("accepted", "messages_received")

#: Counts that the log names otherwise than `Counters`.
_LOGGED_AS: Final = {"messages": "messages_received"}

_FACTORIES: Final[dict[str, Callable[..., StreamServerFactory]]] = {
    "uint32": FrameEchoFactory,
    "line": LineEchoFactory,
}


class StreamService(ListeningService):
    """
    Listens on endpoints for a factory, and drains its connections when stopped.

    :param reactor: runs the service.
    :param factory: serves the connections.
    :param endpoints: pairs of an endpoint string and the endpoint made from it.
    :param security: TLS of the connections; its files are read again on SIGHUP.
    :param drain_timeout: seconds from the stop until the remaining connections are aborted.

    :ivar awaits_first_messages: whether the drain waits up to a second for the first message of
        each connection that has sent none. True in a worker, which may be replaced under load.
    """

    _log = TextLogger()
    awaits_first_messages = False

    factory: StreamServerFactory

    def __init__(
        self,
        reactor: Any,
        factory: StreamServerFactory,
        endpoints: Sequence[tuple[str, IStreamServerEndpoint]],
        *,
        security: Security | None = None,
        drain_timeout: float = DEFAULT_DRAIN_TIMEOUT,
    ) -> None:
        super().__init__(reactor, endpoints)
        self.factory = factory
        self.security = security
        self.drain_timeout = drain_timeout
        self._is_draining = False
        self._aborting: Deferred[int] | None = None

    def log_connections(self) -> None:
        """Log a line at the end of each connection that is accepted from now on."""
        self.factory.group.connection_log = ConnectionLog(self.factory.group.clock)

    @override
    def listen_on(self, endpoint: IStreamServerEndpoint) -> Deferred[IListeningPort]:
        return self.factory.listen(endpoint)

    @override
    def startService(self) -> None:
        super().startService()
        if self.security is not None:
            self.security.describe()

    @override
    def measure(self) -> Iterator[Measurement]:
        return measure_streams(self.factory)

    @override
    def reload(self) -> bool:
        if self.security is not None:
            self.security.reload()
        return self.security is not None

    @override
    def hurry(self) -> None:
        super().hurry()
        if self._is_draining:
            # This aborts the connections, so the drain that waits for them ends too.
            self._aborting = self.factory.drain(0)

    @override
    async def drain_rest(self) -> None:
        self._await_first_messages()
        # Not `StreamServerFactory.drain`: if the new process is killed, this one accepts again.
        await self.factory.group.drain_within(0 if self.is_hurried else self.drain_timeout)
        aborted = await self.factory.group.abort_all()
        if aborted:
            self._log.warn("{aborted} connections aborted at the deadline", aborted=aborted)

    @override
    async def stop(self) -> None:
        connections = len(self.factory.group)
        self._log.info(
            "stopping: {connections} connections to drain within {timeout:g} s",
            connections=connections,
            timeout=self.drain_timeout,
        )
        await self.close_ports()
        self._is_draining = True
        if self.awaits_first_messages:
            self._await_first_messages()
        aborted = await self.factory.drain(0 if self.is_hurried else self.drain_timeout)
        if self._aborting is not None:
            aborted += await self._aborting
        self._log.info(
            "stopped: {counts}, {aborted} aborted at the deadline",
            counts=describe_counts(_logged_counts(self.factory.counters), _ALWAYS_LOGGED),
            aborted=aborted,
        )

    def _await_first_messages(self) -> None:
        members: Sequence[Any] = self.factory.group.members
        for member in members:
            # As for connections that were queued: a request may be on its way.
            member.was_queued = not member.has_delivered


class Options(StreamServiceOptions):
    """The options of ``twistd twsock-stream``."""

    optParameters = [
        ["framing", "f", "uint32", "uint32 (4-byte big-endian length, then bytes) or line."],
        ["max-frame", None, None, "Largest frame or line accepted, in bytes."],
        [
            "idle-timeout",
            None,
            DEFAULT_IDLE_TIMEOUT,
            "Close after N seconds without a whole frame; 0: never.",
        ],
    ]

    def opt_endpoint(self, description: str) -> None:
        """
        Server endpoint string to listen on; repeatable. [default: port 1337 on 127.0.0.1 and ::1]
        """
        self["endpoints"].append(description)

    opt_e = opt_endpoint

    def postOptions(self) -> None:
        """
        Check the options, so that a mistake is reported in one line before anything starts.

        :raises UsageError: when an option is invalid; names the option and what it takes.
        """
        super().postOptions()
        if self["security"] is not None:
            self._check_max_frame(self["security"])

    @override
    def check_format(self) -> None:
        if self["framing"] not in _FACTORIES:
            raise usage.UsageError(
                f"--framing takes {' or '.join(_FACTORIES)}, not {self['framing']!r}"
            )
        self["max-frame"] = count_option(self, "max-frame", 0, MAX_UINT32)
        self["idle-timeout"] = seconds_option(self, "idle-timeout") or None

    def _check_max_frame(self, security: Security) -> None:
        is_counted = self["framing"] == "uint32"
        try:
            security.upgrade.check_limit(self["max-frame"] or 0, is_counted)
        except ValueError as error:
            raise usage.UsageError(f"--max-frame: {error}") from error


def stream_service(
    reactor: Any,
    endpoints: Sequence[str] = (),
    *,
    framing: str = "uint32",
    max_frame: int | None = None,
    max_connections: int | None = None,
    max_connections_per_address: int | None = None,
    max_buffered: int | None = None,
    idle_timeout: float | None = DEFAULT_IDLE_TIMEOUT,
    drain_timeout: float = DEFAULT_DRAIN_TIMEOUT,
    security: Security | None = None,
    endpoint_settings: StreamEndpointSettings | None = None,
) -> StreamService:
    """
    Make the stream echo service.

    :param endpoints: server endpoint strings; if empty, port 1337 on the loopback addresses.
    :param framing: ``uint32`` or ``line``.
    :param max_frame: largest frame or line, in bytes; None for the default of the format.
    :param max_connections: how many may be open at once; None for `default_max_connections`.
    :param max_connections_per_address: see `StreamServerFactory`, also for the next two.
    :param drain_timeout: see `StreamService`.
    :param security: TLS of the connections; None for none.
    :param endpoint_settings: defaults for arguments that the strings omit; None for our own.
    :raises ValueError: when an endpoint or a number cannot be used; the text is a line for users.
    """
    most = default_max_connections() if max_connections is None else max_connections
    plain = plain_reactor(reactor)
    factory = _FACTORIES[framing](
        plain,
        max_payload=max_frame,
        max_connections=most,
        max_connections_per_address=max_connections_per_address,
        max_buffered=max_buffered,
        idle_timeout=idle_timeout,
        upgrade=None if security is None else security.upgrade,
    )
    strings = list(endpoints) or default_endpoints(DEFAULT_PORT)
    parsed = parse_server_endpoints(reactor, strings, endpoint_settings)
    return StreamService(plain, factory, parsed, security=security, drain_timeout=drain_timeout)


def _logged_counts(counters: Counters) -> list[tuple[str, int]]:
    counts = ((name, n) for name, n in asdict(counters).items() if isinstance(n, int))
    # At the end no output is full, and all connections have ended.
    return [(_LOGGED_AS.get(name, name), n) for name, n in counts if name not in ("full", "ended")]


def default_max_connections() -> int:
    """
    Return the smaller of 10,000 and the limit on open files (``ulimit -n``) less a reserve.

    At the limit peers wait in the kernel's backlog. Without it the process would run out of file
    descriptors, and could then not open a certificate or a log file.

    The limit is read at each call. The reserve is 64, or an eighth of the limit if that is less.
    The result is 1 or more.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    reserve = min(RESERVED_DESCRIPTORS, limit // 8)
    return max(1, min(MOST_CONNECTIONS, limit - reserve))


def makeService(options: Options) -> IService:
    """Make the service that ``twistd twsock-stream`` runs."""
    return options.make_process(
        stream_service,
        framing=options["framing"],
        max_frame=options["max-frame"],
        idle_timeout=options["idle-timeout"],
    )
