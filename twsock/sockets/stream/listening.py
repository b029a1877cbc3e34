"""
What listeners have in common: port → accept gate → **listener** → handlers, or `accept`.

The base of `twsock.StreamSocketListener` and `twsock.WebSocketListener`. Its `ConnectionRegistry`
holds the accepted sockets until their connections are lost. Without a handler the listener also
queues up to `MAX_WAITING` accepted sockets for `accept`; further connections wait in the kernel's
backlog.
"""

from __future__ import annotations

import typing
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IAddress, IListeningPort, IStreamServerEndpoint
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.python.failure import Failure
from typing_extensions import Self, override

from twsock.errors import BusyError, ClosedError, LocalProtocolError, SocketError
from twsock.ip.address_errors import listening_error
from twsock.ip.addresses import host_of
from twsock.log import TextLogger, forget_frames
from twsock.names import HostName, HostNameType
from twsock.operation import Operation, fail, start_operation
from twsock.sockets.destination import as_host_name, find_local_port
from twsock.sockets.event import Event
from twsock.sockets.resolving import resolve
from twsock.sockets.stream.control import StreamSocketListenerControl
from twsock.sockets.stream.handlers import (
    RunningHandlers,
)
from twsock.sockets.stream.information import (
    StreamSocketInformation,
    StreamSocketListenerInformation,
)
from twsock.sockets.stream.listening_transfer import TransferableListener
from twsock.sockets.stream.ports import listen_on_address, listen_on_all_addresses
from twsock.sockets.waiting import (
    ClosesInBlock,
    check_timeout,
    limit,
    operation_cancelled,
    uncancellable,
)
from twsock.stream.counters import Counters
from twsock.stream.ending import DEFAULT_CLOSE_TIMEOUT
from twsock.stream.listening.accept_gate import AcceptGate
from twsock.stream.listening.buffer_limit import DEFAULT_MAX_BUFFERED
from twsock.stream.listening.server_transport import make_small_transports
from twsock.stream.registry import ConnectionRegistry
from twsock.tls.certificates import Certificate
from twsock.tls.handshake import DEFAULT_HANDSHAKE_TIMEOUT
from twsock.tls.server import ServerOptions, ServerTls

__all__ = ["MAX_WAITING", "AcceptingFactory", "SocketListener"]

#: How many accepted sockets are queued for `accept`, where there is no handler.
MAX_WAITING: Final = 16

#: Seconds that `close_all` waits for handlers that continue after they were cancelled. A handler
#: that aborts its socket needs one turn of the reactor.
_MOST_AFTER_CANCEL: Final = 0.5


class AcceptedSocket(typing.Protocol):
    """The socket of an accepted connection."""

    @property
    def was_lost(self) -> bool:
        """Whether the connection was reset or aborted."""

    @property
    def information(self) -> StreamSocketInformation:
        """The addresses of the connection."""

    def close(self) -> Deferred[None]:
        """Close in order."""

    def abort(self) -> Deferred[None]:
        """Abort the connection."""

    def secure_as_server(self, tls: ServerTls, timeout: float) -> Deferred[None]:
        """Start a handshake as its server."""

    def drain(self) -> None:
        """Let the application handle what has arrived, then end."""


S = TypeVar("S", bound=AcceptedSocket)


class SocketListener(TransferableListener, ClosesInBlock, Generic[S]):
    """
    Accepts connections, for sockets of one kind.

    The parameters are those of `twsock.StreamSocketListener`.
    """

    _log = TextLogger()

    connection_received: Event[Any]

    def __init__(
        self,
        reactor: Any,
        *,
        max_connections: int | None = None,
        max_connections_per_address: int | None = None,
        max_buffered: int = DEFAULT_MAX_BUFFERED,
        close_timeout: float = DEFAULT_CLOSE_TIMEOUT,
        tls: ServerOptions | None = None,
        handshake_timeout: float = DEFAULT_HANDSHAKE_TIMEOUT,
    ) -> None:
        if not close_timeout >= 0:
            raise ValueError(f"close_timeout is 0 seconds or more, not {close_timeout!r}")
        if not handshake_timeout > 0:
            raise ValueError(f"handshake_timeout is above 0 seconds, not {handshake_timeout!r}")
        self._tls = None if tls is None else ServerTls(tls)
        self._handshake_timeout = handshake_timeout
        self._reactor = reactor
        self._connections: ConnectionRegistry[S] = ConnectionRegistry(
            reactor,
            max_connections=max_connections,
            max_buffered=max_buffered,
            max_connections_per_address=max_connections_per_address,
        )
        self._connections.on_room = self._reopen
        self._close_timeout = close_timeout
        self._is_bound = False
        self._is_closed = False
        self._ports: list[IListeningPort] = []
        self._gates: list[AcceptGate] = []
        self._waiting: deque[S] = deque()
        # Accepted, and not yet with a handler or in `_waiting`: a handshake is under way.
        self._undelivered: set[S] = set()
        self._taker: Deferred[S] | None = None
        self._handlers: RunningHandlers[S] = self._make_handlers(reactor)
        self._handlers.counters = self._connections.counters
        self.connection_received = Event("connection_received", self._is_in_use)
        self.control = StreamSocketListenerControl(self._is_in_use)
        self.information = StreamSocketListenerInformation()

    def __len__(self) -> int:
        """How many accepted connections are open."""
        return len(self._connections)

    @property
    def sockets(self) -> tuple[S, ...]:
        """The accepted connections that are open, in no order."""
        return self._connections.members

    @property
    def counters(self) -> Counters:
        """
        The numbers of the accepted connections; the same object at each access.

        ``messages`` and ``messages_sent`` stay 0. ``handshake_seconds`` begins when the connection
        is accepted. A handler of ``connection_received`` may run as long as its connection.
        """
        return self._connections.counters

    # Binding.

    def bind_service_name(self, service: str | int) -> Deferred[None]:
        """
        Listen on all addresses of this machine, of both families.

        :param service: a port, or a name in the services file; ``""`` for a free port, whose number
            is then in ``information.local_port``.
        :returns: fires when it listens. It fails with status ``ADDRESS_ALREADY_IN_USE`` when the
            port is taken; then the listener can be bound again. It fails with `LocalProtocolError`
            when the listener is bound. Cancelling leaves the listener unbound.
        :raises ValueError: at once, when this machine does not know the service.
        """
        return self.bind_endpoint(None, service)

    def bind_endpoint(self, host: HostName | str | None, service: str | int) -> Deferred[None]:
        """
        Listen on one address.

        :param host: an address of this machine, or a name of one; None for all addresses.
        :param service: as in `bind_service_name`.
        :returns: as `bind_service_name`. It fails with status ``CANNOT_ASSIGN_REQUESTED_ADDRESS``
            when the address is not an address of this machine.
        :raises ValueError: at once, for a malformed name or an unknown service.
        """
        name = None if host is None else as_host_name(host)
        return self._bind(self._listen(name, find_local_port(service)))

    def listen(self, endpoint: IStreamServerEndpoint) -> Deferred[None]:
        """
        Listen on any stream endpoint of Twisted: a UNIX socket, one of systemd's.

        :returns: as `bind_service_name`.
        """
        return self._bind(self._listen_endpoint(endpoint))

    def replace_certificates(self, certificates: Sequence[Certificate]) -> None:
        """
        Use other certificates from the next handshake on; open connections do not change.

        :raises LocalProtocolError: when the listener has no TLS.
        :raises ValueError: when the list is empty, or a certificate has no key; then the listener
            keeps its certificates.
        """
        if self._tls is None:
            raise LocalProtocolError("this listener has no TLS")
        self._tls.replace_certificates(certificates)

    # Taking connections one by one.

    def accept(self, *, timeout: float | None = None) -> Deferred[S]:
        """
        Wait for the next connection. Only for a listener without a handler.

        :param timeout: seconds until it fails with status ``CONNECTION_TIMED_OUT``.
        :returns: fires with the socket, which the caller closes. It fails with
            `LocalProtocolError` if the listener is not bound or has a handler, with `BusyError`
            while another wait is pending, with `ClosedError` after `close`. Cancelling takes no
            connection.
        :raises ValueError: at once, when the timeout is negative.
        """
        check_timeout(timeout)
        if self._is_at_end():
            return fail(ClosedError("cannot accept: the listener was closed"))
        if not self._is_bound or self.connection_received:
            why = "handlers take the connections" if self._is_bound else "it is not bound"
            return fail(LocalProtocolError(f"cannot accept: {why}"))
        if self._taker is not None:
            return fail(BusyError("cannot accept: another wait is pending"))
        if self._waiting:
            taken = self._waiting.popleft()
            self._reopen()
            return succeed(taken)
        self._taker = Operation(self._forget_taker)
        return limit(self._taker, timeout, self._reactor, "the wait for a connection")

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> S:
        try:
            return await self.accept()
        except ClosedError:
            raise StopAsyncIteration from None

    def cancel_io(self) -> Deferred[None]:
        """
        Cancel a pending `accept`; the listener and the accepted sockets are not affected.

        The `accept` fails with `SocketError`, status ``OPERATION_ABORTED``, and takes no
        connection. ``async for`` raises that error.

        :returns: a Deferred that has already fired.
        """
        taker, self._taker = self._taker, None
        if taker is not None:
            taker.errback(operation_cancelled())
        return succeed(None)

    # Ending.

    def close(self) -> Deferred[None]:
        """
        Stop listening. Accepted sockets stay open; those still queued for `accept` are aborted.

        Connections that the kernel has queued are accepted and passed to the handlers, up to
        ``max_connections``. The rest of the queue is reset; without a handler, the whole queue is.
        Closing twice is harmless.

        :returns: fires when the port is free. It need not be awaited. Cancelling the wait does not
            cancel the close.
        """
        self._is_closed = True
        self._undelivered.clear()
        self._gates.clear()  # The gates accept the queued connections when their ports close.
        ports, self._ports = self._ports, []
        taker, self._taker = self._taker, None
        if taker is not None:
            taker.errback(ClosedError("the listener was closed"))
        while self._waiting:
            self._waiting.popleft().abort()
        stopped = uncancellable()
        stopping = start_operation(_stop(ports))
        stopping.addCallbacks(
            lambda _: None if stopped.called else stopped.callback(None), stopped.errback
        )
        return stopped

    def close_all(self, timeout: float) -> Deferred[int]:
        """
        Stop listening, and end every accepted socket and every handler.

        Handlers serve the bytes that have arrived, also on connections that the kernel has queued
        (see `close`). A handler that waits for further bytes reads the end of the stream, as if its
        peer had ended it. The handlers have to close their sockets and return. At the deadline the
        running handlers are cancelled, and the open sockets are aborted.

        :param timeout: seconds until the deadline; 0 cancels and aborts at once.
        :returns: fires with the number of sockets that were aborted, when no socket is left and all
            handlers have ended. It waits at most half a second for cancelled handlers that
            continue, and then logs one line. Cancelling it before the deadline aborts no socket and
            cancels no handler.
        :raises ValueError: at once, when the timeout is negative.
        """
        if timeout is None:
            raise ValueError("close_all needs a timeout in seconds, not None")
        check_timeout(timeout)
        return start_operation(self._close_all(timeout))

    # Binding.

    def _is_in_use(self) -> bool:
        return self._is_bound or self._is_closed

    def _bind(self, work: Any) -> Deferred[None]:
        if self._is_closed or self._is_bound:
            work.close()
            if self._is_closed:
                return fail(ClosedError("cannot bind: the listener was closed"))
            return fail(LocalProtocolError("cannot bind: the listener is bound"))
        self._is_bound = True
        return start_operation(self._guarded(work))

    async def _guarded(self, work: Any) -> None:
        """Restore the unbound state if binding fails."""
        try:
            ports: list[IListeningPort] = await work
        except CancelledError:
            self._is_bound = False
            raise
        except Exception as error:
            self._is_bound = False
            raise listening_error(error) from error
        if self._is_closed:
            await _stop(ports)
            raise ClosedError("the listener was closed while it was being bound")
        self._ports += ports
        for port in ports:
            # Other ports, such as those in memory, have no socket and so no accept gate.
            if hasattr(port, "socket") and hasattr(port, "pauseProducing"):
                make_small_transports(port)
                self._gates.append(AcceptGate(port, self._reactor, self._has_room, self.admits))
        self.information.local_port = str(getattr(ports[0].getHost(), "port", ""))

    async def _listen(self, host: HostName | None, number: int) -> list[IListeningPort]:
        reactor, factory = self._reactor, self._make_factory()
        if host is None:
            ports = await listen_on_all_addresses(reactor, number, factory)
        else:
            address = host.canonical_name
            if host.type not in (HostNameType.IPV4, HostNameType.IPV6):
                address = (await resolve(reactor, host, str(number)))[0].host
            ports = [listen_on_address(reactor, address, number, factory)]
        for port in ports:
            self.control.apply(port)  # This marks the packets of the TCP handshake too.
        return ports

    async def _listen_endpoint(self, endpoint: IStreamServerEndpoint) -> list[IListeningPort]:
        return [await endpoint.listen(self._make_factory())]

    # Accepted connections.

    def admits(self, host: str | None) -> bool:
        """Return whether an address may open one more connection; log refusals once a minute."""
        return self._connections.admits(host)

    def build_protocol(self, host: str | None) -> Protocol:
        """
        Make a socket for an accepted connection, and return its protocol.

        :param host: the address of its peer; None if it has none, as with a UNIX socket.
        """
        raise NotImplementedError

    def _make_factory(self) -> AcceptingFactory:
        """Make the factory of a port."""
        return AcceptingFactory(self)

    def _make_handlers(self, reactor: Any) -> RunningHandlers[S]:
        raise NotImplementedError

    def _make_args(self, accepted: S) -> Any:
        """Make the argument of handlers."""
        raise NotImplementedError

    def _joined(self, accepted: S, host: str | None) -> None:
        self._connections.join(accepted, host)
        self._undelivered.add(accepted)

    def _is_at_end(self) -> bool:
        """Return whether no connection will be returned any more."""
        return self._is_closed and not (self._waiting or self._undelivered)

    def _secure(self, accepted: S, tls: ServerTls, secured: Callable[[], object]) -> None:
        """Run the handshake of an accepted connection, and call back once it is done."""
        begun = self._reactor.seconds()

        def done(_nothing: object) -> None:
            self.counters.upgraded(self._reactor.seconds() - begun)
            secured()

        def failed(failure: Failure) -> None:
            # The failure was logged already, and the socket reaches no application.
            self.counters.upgrade_failed(SocketError.get_status(failure.value).documented_name)
            forget_frames(failure)

        accepted.secure_as_server(tls, self._handshake_timeout).addCallbacks(done, failed)

    def _lost(self, accepted: S) -> None:
        if accepted.was_lost:
            # In the next turn: first the read or handshake that a handler awaits fails with the
            # reason. A handler that called `abort` may also still be in that call.
            self._reactor.callLater(0, self._handlers.cancel, accepted)
        self._connections.leave(accepted)
        self._undelivered.discard(accepted)
        if self._taker is not None and self._is_at_end():
            taker, self._taker = self._taker, None
            taker.errback(ClosedError("the listener was closed"))

    def _deliver(self, accepted: S) -> None:
        self._undelivered.discard(accepted)
        if self.connection_received:
            args = self._make_args(accepted)
            for handler in self.connection_received:
                self._handlers.start(handler, self, args, accepted)
        elif self._taker is not None:
            taker, self._taker = self._taker, None  # cleared first: the callback may accept again
            taker.callback(accepted)
        else:
            self._waiting.append(accepted)

    def _has_room(self) -> bool:
        if len(self._waiting) >= MAX_WAITING:
            return False
        if self._is_closed and not self.connection_received:
            return False  # Neither a handler nor `accept` would take it.
        return self._connections.has_room

    def _reopen(self) -> None:
        for gate in self._gates:
            gate.reopen()

    def _forget_taker(self, _taker: Deferred[S]) -> None:
        self._taker = None

    async def _close_all(self, timeout: float) -> int:
        await self.close()
        # On the clock of the reactor: when running handlers are cancelled.
        deadline = self._reactor.seconds() + timeout
        await self._connections.drain_within(timeout)
        await self._handlers.wait(deadline - self._reactor.seconds())
        left = len(self._connections)
        # Before the abort: a handler ends with `CancelledError`, not with the error of its socket.
        self._handlers.cancel_all()
        await self._connections.abort_all()
        await self._handlers.wait(_MOST_AFTER_CANCEL)
        if self._handlers:
            self._log.warn(
                "{count} handlers have not ended though they were cancelled",
                count=len(self._handlers),
            )
        return left


class AcceptingFactory(ServerFactory):
    """Makes a socket for each accepted connection."""

    noisy = False

    def __init__(self, listener: SocketListener[Any]) -> None:
        self._listener = listener

    @override
    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        host = host_of(addr)
        if not self._listener.admits(host):
            return None
        return self._listener.build_protocol(host)


async def _stop(ports: list[IListeningPort]) -> None:
    for port in ports:
        stopping: Any = port.stopListening()
        if stopping is not None:
            await stopping
