"""
Listening services: endpoint strings → endpoints → **service** → ports.

Contains the base class of all services, and the one-line messages for endpoints that cannot be
used. Holds the ports.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, ensureDeferred, maybeDeferred, succeed
from twisted.internet.interfaces import IListeningPort
from twisted.python.failure import Failure
from typing_extensions import override

from twsock.errors import SocketError, SocketErrorStatus
from twsock.ip.address_errors import listening_error
from twsock.ip.addresses import describe_address
from twsock.log import TextLogger
from twsock.protocols import StreamServerFactory
from twsock.services.listening_sockets import ListeningSockets
from twsock.services.measurements import Measurement
from twsock.services.signals import process_signals
from twsock.services.start_error import StartError
from twsock.stream.listening.accept_gate import hold_port, release_port

__all__ = [
    "ListeningService",
    "default_endpoints",
    "describe_failure",
    "describe_mistake",
    "describe_port",
]


def default_endpoints(port: int, kind: str = "tcp") -> list[str]:
    """
    Return the loopback endpoints of a port: IPv4 always, IPv6 where this machine has it.

    :param port: 0 lets the system choose a port for each.
    :param kind: ``tcp`` or ``udp``.
    """
    endpoints = [f"{kind}:{port}:interface=127.0.0.1"]
    if _has_ipv6_loopback():
        endpoints.append(f"{kind}:{port}:interface=\\:\\:1")
    return endpoints


def describe_failure(description: str, error: BaseException) -> str:
    """Return the line that says why an endpoint cannot be listened on."""
    return f"cannot listen on {description}: {listening_error(error).summary}"


def describe_mistake(error: SocketError | ValueError) -> str:
    """Return the line that says what is wrong with an option, with the status if it has one."""
    has_status = isinstance(error, SocketError) and error.status is not SocketErrorStatus.UNKNOWN
    return error.summary if isinstance(error, SocketError) and has_status else str(error)


def describe_port(port: IListeningPort) -> str:
    """Return the address and port that clients connect to, as an endpoint string."""
    return describe_address(port.getHost())


class ListeningService(Service):
    """
    Listens on endpoints while it runs; the base class of all services.

    :param reactor: the ports are logged once it runs, when signals are handled as well; not a
        `KeepingReactor`.
    :param endpoints: pairs of an endpoint string and the endpoint made from it.

    :ivar is_hurried: whether the stop closes connections without waiting; a second SIGTERM sets it.
    :ivar drain_timeout: the most seconds that connections may take to end at the stop.
    :ivar opening: fires when each endpoint listens, or cannot; set by the start.
    :ivar purpose: what it does on its endpoints, as ``--check`` prints it.
    :ivar logs_ports: whether each port is logged; False for a worker, whose parent logs them.
    :ivar factory: has the connections; None for a service without any.
    """

    _log = TextLogger()

    drain_timeout: float = 0.0
    purpose = "listen"
    logs_ports = True
    opening: Deferred[Any]
    factory: StreamServerFactory | None = None

    def __init__(self, reactor: Any, endpoints: Sequence[tuple[str, Any]]) -> None:
        self._reactor = reactor
        self._endpoints = endpoints
        self._ports: list[Any] = []
        self._listening: list[tuple[str, Any]] = []
        self._is_listening = False
        self.is_hurried = False

    @property
    def descriptions(self) -> Sequence[str]:
        """The endpoint strings."""
        return tuple(description for description, _ in self._endpoints)

    @property
    def endpoints(self) -> Sequence[tuple[str, Any]]:
        """Pairs of an endpoint string and its endpoint."""
        return tuple(self._endpoints)

    @property
    def is_ready(self) -> bool:
        """Whether the service listens."""
        return bool(self.ports)

    @property
    def ports(self) -> Sequence[IListeningPort]:
        """The listening ports, in the order of the endpoints."""
        return tuple(self._ports) if self._is_listening else ()

    def unkept_endpoints(self, sockets: ListeningSockets) -> list[str]:
        """
        Return the endpoint strings whose sockets are not in a table.

        A plugin's endpoint may open its socket without the reactor that it was made with.
        """
        return [
            description
            for description, port in self._listening
            if self._is_listening and not sockets.is_bound(port.getHost())
        ]

    # To be overridden.

    def listen_on(self, endpoint: Any) -> Deferred[Any]:
        """Open the port of an endpoint."""
        raise NotImplementedError

    async def stop(self) -> None:
        """Close the ports; a subclass may also drain its connections. The ports are open before."""
        await self.close_ports()

    async def drain_rest(self) -> None:
        """End all connections within the drain timeout, and send all that is queued."""

    def describe_opened(self, port: Any) -> str:
        """Return the endpoint string of a port, as the log shows it to people who connect."""
        return describe_port(port)

    def measure(self) -> Iterable[Measurement]:
        """Return the numbers of this service."""
        return ()

    def refresh(self) -> Deferred[None]:
        """Get the numbers from other processes, within seconds, if they are counted there."""
        return succeed(None)

    def reload(self) -> bool:
        """Read files again, on SIGHUP; return whether this service has any."""
        return False

    def hurry(self) -> None:
        """End the stop at once, on a second SIGTERM."""
        self.is_hurried = True

    def kill(self) -> None:
        """End other processes, on a third SIGTERM, which ends this one."""

    # Called by restarts.

    def pause_ports(self) -> None:
        """Accept no connection and read no datagram; another process does, on the same sockets."""
        for port in self._ports:
            hold_port(port)

    def resume_ports(self) -> None:
        """Accept and read again."""
        for port in self._ports:
            release_port(port)

    # Called by subclasses.

    def close_ports(self) -> Deferred[Any]:
        """Stop listening on all ports."""
        self._is_listening = False
        return DeferredList([maybeDeferred(port.stopListening) for port in self._ports])

    def abandon_ports(self) -> None:
        """Close all ports of a process that cannot start, and remove their paths now."""
        self.pause_ports()  # Another process may serve the connections that are queued.
        self.close_ports()
        # The process ends before the reactor could close them.
        for port in self._ports:
            getattr(port, "remove_path", _nothing)()
        process_signals.discard(self)

    # Called by Twisted.

    @override
    def privilegedStartService(self) -> None:
        """
        Listen on all endpoints, while the process may still open low ports.

        :raises StartError: when an endpoint cannot be listened on; all ports are closed then. The
            text is the line for the user.
        """
        super().privilegedStartService()
        self._is_listening = True
        self.is_hurried = False
        process_signals.add(self._reactor, self)
        self._ports = []
        self._listening = []
        opening: list[Deferred[Any]] = []
        for description, endpoint in self._endpoints:
            problems: list[str] = []
            listening = self.listen_on(endpoint)
            listening.addCallback(self._listens, description)
            listening.addErrback(self._cannot_listen, description, problems)
            if problems:
                self.abandon_ports()
                raise StartError(f"twsock: {problems[0]}")
            # An endpoint that fails later does so in a process that already runs and logs.
            opening.append(listening.addCallback(self._log_problems, problems))
        self.opening = DeferredList(opening)

    @override
    def startService(self) -> None:
        super().startService()
        if not self._is_listening:
            self.privilegedStartService()

    @override
    def stopService(self) -> Deferred[None]:
        super().stopService()
        return ensureDeferred(self._stop())

    async def _stop(self) -> None:
        try:
            await self.stop()
        finally:
            process_signals.discard(self)

    def _listens(self, port: Any, description: str) -> Any:
        if not self._is_listening:
            # The service was stopped before the endpoint listened.
            return maybeDeferred(port.stopListening)
        self._ports.append(port)
        self._listening.append((description, port))
        if self.logs_ports:
            address = self.describe_opened(port)
            self._reactor.callWhenRunning(self._log_listening, address, description)
        return None

    def _log_listening(self, address: str, description: str) -> None:
        self._log.info(
            "listening on {address} ({description})", address=address, description=description
        )

    def _cannot_listen(self, failure: Failure, description: str, problems: list[str]) -> None:
        error = failure.value
        assert error is not None
        problems.append(describe_failure(description, error))

    def _log_problems(self, _result: object, problems: list[str]) -> None:
        for problem in problems:
            self._log.critical("{problem}", problem=problem)


def _nothing() -> None:
    pass


def _has_ipv6_loopback() -> bool:
    if not socket.has_ipv6:
        return False
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
