"""
Datagrams to await: application → **datagram socket** → ports → kernel.

Made by applications. Holds its options, its output streams, and one port for each family of
addresses that it is bound in; what came and was not taken is with the message queue.

It is long for its docstrings: each operation says what it does at the wrong time, and what is left
when it fails or is called off.
"""

from __future__ import annotations

import enum
import inspect
import socket
import weakref
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, overload

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IResolver
from twisted.python.failure import Failure
from typing_extensions import override

from twsock.datagram.addresses import interface_control, refuse_port_0
from twsock.datagram.network.membership import MembershipChange
from twsock.datagram.network.packet_info import Control, is_multicast
from twsock.datagram.port import DatagramPort
from twsock.datagram.protocol import DatagramProtocol
from twsock.datagram.runs import Run
from twsock.datagram.udp_socket import numeric_address
from twsock.errors import (
    BusyError,
    ClosedError,
    LocalProtocolError,
    SocketError,
    SocketErrorStatus,
)
from twsock.ip.zones import with_zone
from twsock.log import TextLogger, forget_frames
from twsock.names import EndpointPair, HostName, HostNameSortOptions, HostNameType
from twsock.operation import fail, start_operation
from twsock.sockets.datagram.control import DatagramSocketControl
from twsock.sockets.datagram.information import DatagramSocketInformation, readable_address
from twsock.sockets.datagram.message import (
    DatagramSocketMessageReceivedEventArgs,
    SenderAddress,
    name_destination,
)
from twsock.sockets.datagram.message_queue import MessageQueue
from twsock.sockets.datagram.output import DatagramOutputStream, DatagramWrite
from twsock.sockets.datagram.ports import DatagramPorts
from twsock.sockets.destination import (
    as_host_name,
    find_endpoint_pairs,
    find_local_port,
    local_binding,
    make_pair,
)
from twsock.sockets.event import Event
from twsock.sockets.resolving import find_port, resolve
from twsock.sockets.waiting import check_timeout, limit, operation_cancelled
from twsock.sockets.weakly import ask_weakly, make_weakly, tell_weakly
from twsock.wire.byte_queue import Buffer

__all__ = ["DatagramSocket"]

_MessageHandler = Callable[["DatagramSocket", DatagramSocketMessageReceivedEventArgs], Any]
_GroupHandler = Callable[["DatagramSocket", MembershipChange], Any]

#: How many handlers may be under way; above, what comes waits in the kernel.
_MAX_HANDLING: Final = 1024


class _State(enum.Enum):
    UNBOUND = enum.auto()
    # Something is being looked up, bound or connected.
    OPENING = enum.auto()
    BOUND = enum.auto()
    CONNECTED = enum.auto()
    CLOSED = enum.auto()


class DatagramSocket:
    """
    UDP datagrams; ``Windows.Networking.Sockets.DatagramSocket``.

    What comes goes to the handlers of `message_received`, which are added before it is bound, or
    waits for `receive_from` and ``async for``. ``async with`` closes it.

    A port is this socket's alone, unless ``control.multicast_only`` is set.

    :param reactor: runs it.
    :param resolver: asked for SRV records (any ``IResolver``); None for the DNS servers that this
        machine is set up with.

    :ivar control: the options, to be set before it is bound or connected.
    :ivar information: what is known of it, at any time.
    :ivar message_received: handlers called with the socket and the message, one per datagram. May
        be coroutine functions. A refusal is a message too, whose ``data_reader`` raises.
    :ivar multicast_group_changed: handlers called with the socket and a `MembershipChange` when a
        group is not heard any more since its interface is gone, or is heard again.
    :ivar output_stream: datagrams to the connected peer.
    """

    _log = TextLogger()

    __slots__ = (
        "__weakref__",
        "_direct",
        "_handling",
        "_is_in_event",
        "_operations",
        "_pending",
        "_ports",
        "_queue",
        "_reactor",
        "_resolver",
        "_state",
        "_streams",
        "_turn",
        "control",
        "information",
        "message_received",
        "multicast_group_changed",
        "output_stream",
    )

    def __init__(self, reactor: Any, *, resolver: IResolver | None = None) -> None:
        self._reactor = reactor
        self._resolver = resolver
        self._state = _State.UNBOUND
        # What looks names up.
        self._operations: set[Deferred[Any]] = set()
        # What `send_to` writes to, by family.
        self._direct: dict[int, DatagramOutputStream] = {}
        self._handling = 0
        # Streams with something to send, the call that will send it, and whether an event will.
        self._pending: list[DatagramOutputStream] = []
        self._turn: IDelayedCall | None = None
        self._is_in_event = False
        self._streams: weakref.WeakSet[DatagramOutputStream] = weakref.WeakSet()
        # None of these keeps the socket in memory. The ports keep an open socket.
        is_in_use = ask_weakly(self._is_in_use, False)
        self._queue = MessageQueue(reactor, tell_weakly(self._room_changed))
        self.control = DatagramSocketControl(is_in_use, tell_weakly(self._set_hop_limit))
        ports = DatagramPorts(
            reactor, self.control, make_weakly(self._make_receiver, DatagramProtocol)
        )
        self._ports = ports
        self.information = DatagramSocketInformation(lambda: tuple(ports))
        self.message_received: Event[_MessageHandler] = Event("message_received", is_in_use)
        self.multicast_group_changed: Event[_GroupHandler] = Event(
            "multicast_group_changed", is_in_use
        )
        self.output_stream = self._make_stream(self._why_not_connected)

    @property
    def is_open(self) -> bool:
        """Whether it is bound or connected, and not closed."""
        return self._state in (_State.BOUND, _State.CONNECTED)

    # Binding and connecting.

    def bind_service_name(
        self, service: str | int, adapter: str | int | None = None
    ) -> Deferred[None]:
        """
        Bind a port of all addresses of this machine, of both families.

        :param service: a port, or a name in the services file; ``""`` for a free port, which
            ``information.local_port`` tells.
        :param adapter: name, index or address of the one interface to receive from and send by;
            None for all (another one needs Linux).
        :returns: fires when it is bound. It fails with status ``ADDRESS_ALREADY_IN_USE`` when the
            port is taken, ``UNREACHABLE_HOST`` when there is no such interface; then it can be
            bound again. `LocalProtocolError` when it is bound or connected.
        :raises ValueError: at once, when there is no such service here.
        """
        port = find_local_port(service, "udp")
        return self._open(self._bind_all(port, adapter))

    def bind_endpoint(self, host: HostName | str | None, service: str | int) -> Deferred[None]:
        """
        Bind a port of one address.

        :param host: an address of this machine, or a name of one; None for all addresses.
        :param service: as in `bind_service_name`.
        :returns: as `bind_service_name`. It fails with status ``CANNOT_ASSIGN_REQUESTED_ADDRESS``
            when the address is not this machine's.
        :raises ValueError: at once, for a malformed name or when there is no such service here.
        """
        name = None if host is None else as_host_name(host)
        port = find_local_port(service, "udp")
        if name is None:
            return self._open(self._bind_all(port, None))
        return self._open(self._bind_one(name, port))

    @overload
    def connect(
        self, remote: HostName | str, service: str | int, *, timeout: float | None = None
    ) -> Deferred[None]: ...

    @overload
    def connect(self, remote: EndpointPair, *, timeout: float | None = None) -> Deferred[None]: ...

    def connect(
        self,
        remote: HostName | str | EndpointPair,
        service: str | int | None = None,
        *,
        timeout: float | None = None,
    ) -> Deferred[None]:
        """
        Have one peer: `output_stream` leads to it, and only what it sends is received.

        The first address of the host to which there is a way is taken; whether anybody is there
        only datagrams tell. It is bound too, unless it was.

        :param remote: the host, or a pair that fixes the local end as well.
        :param service: a port; or a name in the services file of this machine; or else ``name`` of
            an SRV record ``_name._udp.host`` (:rfc:`2782`).
        :param timeout: seconds for all of it, until it fails with status ``CONNECTION_TIMED_OUT``.
        :returns: fires when connected. It fails with status ``HOST_NOT_FOUND`` for a group, and
            for a name that leads nowhere; with the status of what the system said. The socket is
            then as it was before. `LocalProtocolError` where it is connected.
        :raises ValueError: at once, for a malformed name, a missing service, a port that is none.
        """
        pair = make_pair(remote, service)
        local = local_binding(pair, "udp")
        find_port(pair.remote_service_name, "udp")  # What is no port is refused at once.
        check_timeout(timeout)
        connecting = self._open(self._connect(pair, local), is_connecting=True)
        return limit(connecting, timeout, self._reactor, "connecting")

    def get_output_stream(
        self,
        remote: HostName | str | EndpointPair,
        service: str | int | None = None,
        *,
        timeout: float | None = None,
    ) -> Deferred[DatagramOutputStream]:
        """
        Make a stream whose every write is a datagram to a host, a group or everybody.

        A socket that is not bound is bound to a free port. To 255.255.255.255 a copy leaves by each
        interface that can broadcast.

        :param remote: as in `connect`. An unbound socket is bound to the local end of the pair. A
            socket that is bound to all addresses sends from the local address of the pair. So a
            stream for `DatagramSocketMessageReceivedEventArgs.endpoint_pair` sends answers from the
            address that the message was sent to.
        :param service: as in `connect`.
        :param timeout: as in `connect`.
        :returns: fires with the stream, which sends from this socket's port. It fails as `connect`
            does; with `LocalProtocolError` on a connected socket, and, on one that is
            ``multicast_only``, for what is no group.
        :raises ValueError: at once, as `connect`.
        """
        pair = make_pair(remote, service)
        local = local_binding(pair, "udp")
        find_port(pair.remote_service_name, "udp")
        check_timeout(timeout)
        if self._state is _State.CONNECTED:
            return fail(LocalProtocolError("this socket is connected: use its output_stream"))
        if self._state is _State.BOUND:
            making = self._ended_by_close(start_operation(self._make_destination(pair, local)))
        else:
            making = self._open(self._bind_for(pair, local))
        return limit(making, timeout, self._reactor, "the lookup")

    @staticmethod
    def get_endpoint_pairs(
        reactor: Any,
        host: HostName | str,
        service: str | int,
        sort_options: HostNameSortOptions = HostNameSortOptions.NONE,
        *,
        resolver: IResolver | None = None,
    ) -> Deferred[list[EndpointPair]]:
        """
        Resolve a host and a UDP service; otherwise as ``StreamSocket.get_endpoint_pairs``.

        :returns: fires with pairs for `connect` and `get_output_stream`, the preferred first.
            Cancelling ends the lookup.
        :raises ValueError: at the call, for a malformed name, a missing service or a bad port.
        """
        return find_endpoint_pairs(reactor, host, service, sort_options, resolver, "udp")

    # Groups.

    def join_multicast_group(
        self,
        group: HostName | str,
        interface: str | int | None = None,
        *,
        source: str | None = None,
    ) -> None:
        """
        Receive what is sent to a group; at once, as in WinRT.

        :param group: an IPv6 group may have a zone (``ff15::9%eth1``), which names the interface.
        :param interface: name, index or address of the one to listen on; None for the one that the
            zone names, or else that the socket is bound to, or else the kernel's choice. Not in
            WinRT.
        :param source: the only sender to hear (:rfc:`4607`); None for all. Not in WinRT.
        :raises LocalProtocolError: before the socket is bound.
        :raises SocketError: with status ``ADDRESS_FAMILY_NOT_SUPPORTED`` for what is no group or
            of a family that the socket is not bound in, ``UNREACHABLE_HOST`` for an interface that
            does not exist.
        :raises ValueError: when the zone and ``interface`` name different interfaces.
        """
        self._ports.join(self._check_group(group), interface, source)

    def leave_multicast_group(
        self,
        group: HostName | str,
        interface: str | int | None = None,
        *,
        source: str | None = None,
    ) -> None:
        """
        Receive that no more. Not in WinRT, where only closing ends it.

        :raises LocalProtocolError: when it was not joined so.
        """
        self._ports.leave(self._check_group(group), interface, source)

    # Single datagrams.

    def send_to(self, data: Buffer, address: tuple[str, int]) -> Deferred[int]:
        """
        Send one datagram to an address.

        :param address: numeric host, and port; use `get_output_stream` for a name. With the address
            of a message, or the one that `receive_from` returned, the datagram leaves from the
            address that the message was sent to. Otherwise the kernel chooses the source.
        :returns: as ``DatagramOutputStream.write``; it has been sent when this returns, where
            there is room, unless it is one of more than 64 in one turn of the reactor. A socket
            that is not bound is bound to a free port. It fails with
            `LocalProtocolError` where it is connected.
        :raises ValueError: at once, when the host is a name or the port none.
        """
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        if self._state is _State.UNBOUND:
            numeric_address(*address)  # What is no address is refused before anything is bound.
        try:
            port = self._port_towards(address[0])
            found = port.find_address(address)
        except SocketError as error:
            return fail(error)
        stream = self._direct.get(family)
        if stream is None:
            stream = self._direct[family] = self._make_stream(self._why_not_bound)
            stream.opened(port)
        writing = stream.write(data)
        if isinstance(writing, DatagramWrite):
            writing.address = found
            writing.control = _control_towards(port, found, address)
            stream.send()
        return writing

    def receive_from(
        self, *, timeout: float | None = None
    ) -> Deferred[tuple[bytes, tuple[str, int]]]:
        """
        Wait for the next datagram. Only where there is no handler.

        :param timeout: seconds until it fails with status ``CONNECTION_TIMED_OUT``.
        :returns: fires with the datagram, and the host and port of its sender. It fails with
            status ``CONNECTION_RESET_BY_PEER`` when one that was sent before was refused, with
            ``MESSAGE_TOO_LONG`` in the place of one that was longer than ``control.max_datagram``;
            after both the next can be received. With `BusyError` while another wait is pending,
            with `ClosedError` after `close`. Cancelling takes no datagram.
        :raises ValueError: at once, when the timeout is negative.
        """
        return self.receive(timeout=timeout).addCallback(_take_apart)

    def receive(
        self, *, timeout: float | None = None
    ) -> Deferred[DatagramSocketMessageReceivedEventArgs]:
        """
        Wait for the next message, as a handler would be given it.

        :param timeout: as in `receive_from`.
        :returns: as in `receive_from`, but that errors of datagrams are in the message.
        :raises ValueError: at once, when the timeout is negative.
        """
        if self.message_received:
            return fail(LocalProtocolError("cannot receive: handlers take the messages"))
        if self._state is not _State.CLOSED and not self._ports:
            return fail(LocalProtocolError("cannot receive: the socket is not bound"))
        return self._queue.take(timeout=timeout)

    def __aiter__(self) -> DatagramSocket:
        return self

    async def __anext__(self) -> DatagramSocketMessageReceivedEventArgs:
        try:
            return await self.receive()
        except ClosedError:
            raise StopAsyncIteration from None

    # Ending.

    def close(self) -> Deferred[None]:
        """
        End: send what was written as far as the kernel has room, drop what is not taken.

        What is pending fails with `ClosedError`; ``async for`` ends. Closing twice is harmless.

        :returns: has fired.
        """
        if self._state is not _State.CLOSED:
            self._send_pending()
            self._state = _State.CLOSED
            for operation in list(self._operations):
                operation.cancel()
            self._ports.close()
            for stream in list(self._streams):
                stream.lost(_closed)
            self._queue.close(_closed)
            self.message_received.clear()
            self.multicast_group_changed.clear()
        return succeed(None)

    def cancel_io(self) -> Deferred[None]:
        """
        Cancel all pending operations; the socket stays bound or connected, and usable.

        Pending waits for a message, flushes, and writes that are not yet with the kernel fail with
        `SocketError`, status ``OPERATION_ABORTED``. No message is lost. Running handlers, `connect`
        and `get_output_stream` are not affected.

        :returns: a Deferred that has already fired.
        """
        self._queue.cancel(operation_cancelled)
        for stream in list(self._streams):
            stream.cancel_writes(operation_cancelled)
        return succeed(None)

    async def __aenter__(self) -> DatagramSocket:
        return self

    async def __aexit__(self, _type: object, exception: object, _traceback: object) -> None:
        closing = self.close()
        if not isinstance(exception, GeneratorExit):  # Then nothing can be awaited any more.
            await closing

    # Called by messages.

    def answer(self, data: Buffer, address: tuple[str, int]) -> Deferred[int]:
        """Send to the sender of a message; see ``reply`` of the message."""
        if self._state is not _State.CONNECTED:
            return self.send_to(data, address)
        if address != self._ports.peer:
            return fail(LocalProtocolError("this socket is connected to another peer"))
        return self.output_stream.send_all(data)

    def find_answering_pair(self, address: tuple[str, int]) -> EndpointPair:
        """Return both ends of an answer; see ``endpoint_pair`` of the message."""
        if self._state is _State.CLOSED:
            raise _closed()
        port = self._ports.require(address[0])
        local = port.answer_address(address.run) if isinstance(address, SenderAddress) else ""
        return EndpointPair(
            HostName(local) if local else None,
            str(port.getHost().port),
            HostName(address[0]),
            str(address[1]),
        )

    # How it is opened.

    def _is_in_use(self) -> bool:
        return self._state is not _State.UNBOUND

    def _open(
        self, work: Coroutine[Deferred[Any], Any, Any], *, is_connecting: bool = False
    ) -> Deferred[Any]:
        refusal = self._refusal_to_open(is_connecting=is_connecting)
        if refusal is not None:
            work.close()
            return fail(refusal)
        before, self._state = self._state, _State.OPENING

        def opened(result: Any) -> Any:
            if self._state is _State.OPENING:  # Neither done nor closed meanwhile: it failed.
                self._state = before
            return result

        return self._ended_by_close(start_operation(work).addBoth(opened))

    def _ended_by_close(self, operation: Deferred[Any]) -> Deferred[Any]:
        """Have an operation that takes its time fail when the socket is closed."""

        def ended(result: Any) -> Any:
            self._operations.discard(operation)
            if isinstance(result, Failure) and self._state is _State.CLOSED:
                forget_frames(result)
                return Failure(_closed())
            return result

        if not operation.called:
            self._operations.add(operation)
            operation.addBoth(ended)
        return operation

    def _refusal_to_open(self, *, is_connecting: bool) -> SocketError | None:
        state = self._state
        if state is _State.CLOSED:
            return _closed()
        if state is _State.OPENING:
            return BusyError("this socket is being bound or connected")
        if state is _State.CONNECTED or (state is _State.BOUND and not is_connecting):
            what = "connected" if state is _State.CONNECTED else "bound"
            return LocalProtocolError(f"this socket is {what} already")
        return None

    async def _bind_all(self, number: int, adapter: str | int | None) -> None:
        self._ports.bind_all(number, adapter)
        self._state = _State.BOUND

    async def _bind_one(self, host: HostName, number: int) -> None:
        address = host.canonical_name
        if host.type not in (HostNameType.IPV4, HostNameType.IPV6):
            found = await resolve(self._reactor, host, str(number), protocol="udp")
            address = found[0].host
        self._ports.bind_one(address, number)
        self._state = _State.BOUND

    async def _connect(self, pair: EndpointPair, local: tuple[str, int] | None) -> None:
        if self._ports and local is not None:
            raise LocalProtocolError("this socket is bound: its local end is fixed")
        addresses = await self._look_up(pair)
        if any(is_multicast(host) for host, _ in addresses):
            raise SocketError(
                f"{pair.remote_host_name} is a group, which nothing connects to: use "
                "get_output_stream()",
                status=SocketErrorStatus.HOST_NOT_FOUND,
            )
        failed: SocketError | None = None
        for host, number in addresses:
            self._ports.check_destination(host)
            try:
                port = self._ports.connect(host, number, local)
            except SocketError as error:
                failed = failed or error
            else:
                self._connected(port)
                return
        assert failed is not None  # There is at least one address.
        raise failed

    def _connected(self, port: DatagramPort) -> None:
        self._state = _State.CONNECTED
        for stream in list(self._streams):
            if stream is not self.output_stream:
                stream.next_turn()
                stream.lost(self._why_not_bound)
        # Datagrams that other hosts sent before are not from the peer.
        self._queue.keep_only(self._ports.peer or ("", 0))
        self.output_stream.opened(port)

    async def _bind_for(
        self, pair: EndpointPair, local: tuple[str, int] | None
    ) -> DatagramOutputStream:
        """Bind a free port of the family that a destination is in."""
        addresses = await self._look_up(pair)
        self._ports.check_destination(addresses[0][0])
        # Refused before a port is bound.
        refuse_port_0(*numeric_address(*addresses[0])[:2])
        self._ports.bind_family(addresses[0][0], local)
        self._state = _State.BOUND
        return self._stream_to(addresses)

    async def _make_destination(
        self, pair: EndpointPair, local: tuple[str, int] | None
    ) -> DatagramOutputStream:
        addresses = await self._look_up(pair)
        if self._state is not _State.BOUND:
            raise self._why_not_bound()
        return self._stream_to(addresses, local)

    async def _look_up(self, pair: EndpointPair) -> list[tuple[str, int]]:
        host, service = pair.remote_host_name, pair.remote_service_name
        found = await resolve(self._reactor, host, service, self._resolver, protocol="udp")
        return [(address.host, address.port) for address in found]

    def _stream_to(
        self, addresses: Sequence[tuple[str, int]], local: tuple[str, int] | None = None
    ) -> DatagramOutputStream:
        # The first that there is a port for, or else the first, which says what is wrong.
        usable = [address for address in addresses if self._ports.find(address[0]) is not None]
        address = (usable or addresses)[0]
        self._ports.check_destination(address[0])
        port = self._ports.require(address[0])
        source = None if local is None else self._ports.find_source(local, address[0])
        found = port.find_address(address)
        assert found is not None  # Only a connected port needs no address.
        stream = self._make_stream(self._why_not_bound)
        stream.opened(port, found, (source,) if source else self._ports.find_ways(found))
        return stream

    def _port_towards(self, host: str) -> DatagramPort:
        """Give the port that sends to a host; bind a free one where there is none at all."""
        if self._state is _State.UNBOUND:
            self._ports.check_destination(host)
            self._ports.bind_family(host)
            self._state = _State.BOUND
        if self._state is not _State.BOUND:
            raise self._why_not_bound()
        return self._ports.require(host)

    def _make_receiver(self) -> DatagramProtocol:
        return _Receiver(self)

    def _set_hop_limit(self, hops: int) -> None:
        self._ports.set_hop_limit(hops)

    def _check_group(self, group: HostName | str) -> str:
        if self._state is _State.CLOSED:
            raise _closed()
        if self._state is _State.OPENING:
            raise BusyError("this socket is being bound or connected")
        if self._state is not _State.BOUND:
            raise LocalProtocolError("a group is joined when the socket is bound, not connected")
        return group if isinstance(group, str) else group.canonical_name

    # Output.

    def _make_stream(self, refusal: Callable[[], SocketError]) -> DatagramOutputStream:
        stream = DatagramOutputStream(
            self._reactor,
            make_weakly(refusal, _closed),
            tell_weakly(self._note_pending),
            tell_weakly(self._note_unheard),
        )
        self._streams.add(stream)
        return stream

    def _why_not_connected(self) -> SocketError:
        if self._state is _State.CLOSED:
            return _closed()
        return LocalProtocolError("cannot write: this socket is not connected")

    def _why_not_bound(self) -> SocketError:
        if self._state is _State.CLOSED:
            return _closed()
        if self._state is _State.CONNECTED:
            return LocalProtocolError("this socket is connected: use its output_stream")
        return BusyError("this socket is being bound or connected")

    def _note_pending(self, stream: DatagramOutputStream) -> None:
        self._pending.append(stream)
        if not self._is_in_event and self._turn is None and self._state is not _State.CLOSED:
            self._turn = self._reactor.callLater(0, self._next_turn)

    def _next_turn(self) -> None:
        self._turn = None
        self._send_pending()

    def _send_pending(self) -> None:
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        pending, self._pending = self._pending, []
        for stream in pending:
            stream.next_turn()

    def _note_unheard(self, error: SocketError) -> None:
        self._log.info("a datagram that nobody awaits was not sent: {error}", error=error)

    # Called by the ports.

    def run_received(self, run: Run) -> None:
        """Datagrams came; what their handlers write leaves together."""
        address, destination = SenderAddress.of(run), name_destination(run)
        if run.is_truncated:
            error = SocketError(
                f"a datagram from {address[0]} has more than {len(run.data)} bytes",
                status=SocketErrorStatus.MESSAGE_TOO_LONG,
            )
            self._deliver([_Message(run.data, address, destination, error, self)])
        else:
            self._deliver(
                [_Message(data, address, destination, None, self) for data in run.datagrams()]
            )

    def refused(self, port: DatagramPort, error: SocketError) -> None:
        """What was sent to the connected peer was refused: a message tells of it."""
        peer = port.get_peer()
        host: Any = port.getHost()
        local = with_zone(host.host, getattr(host, "scopeID", 0))
        self._deliver([_Message(b"", readable_address(peer or ("", 0)), local, error)])

    def membership_changed(self, change: MembershipChange) -> None:
        """A group is not heard any more, or again."""
        for handler in self.multicast_group_changed:
            self._handle(handler, change)

    def _deliver(self, messages: Sequence[DatagramSocketMessageReceivedEventArgs]) -> None:
        was_in_event, self._is_in_event = self._is_in_event, True
        try:
            for message in messages:
                if self._state is _State.CLOSED:
                    break
                if not self.message_received:
                    self._queue.put(message)
                    continue
                for handler in self.message_received:
                    self._handle(handler, message)
        finally:
            self._is_in_event = was_in_event
            if not was_in_event:
                self._send_pending()

    def _handle(self, handler: Callable[..., Any], argument: object) -> None:
        try:
            handled = handler(self, argument)
        except Exception:  # noqa: BLE001 - logged; one bad datagram must not end the socket
            self._failed(Failure())
            return
        if inspect.iscoroutine(handled):
            handled = Deferred.fromCoroutine(handled)
        if isinstance(handled, Deferred):
            self._handling += 1
            if self._handling == _MAX_HANDLING:
                self._room_changed(False)
            handled.addErrback(self._failed).addBoth(self._handled)

    def _handled(self, _result: object) -> None:
        self._handling -= 1
        if self._handling == _MAX_HANDLING // 2:
            self._room_changed(True)

    def _failed(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, SocketError) and not isinstance(error, LocalProtocolError):
            # Peers fall silent and refuse: one line, without a traceback.
            self._log.info("a message came to nothing: {error}", error=error)
            forget_frames(failure)
        else:
            self._log.failure("a handler failed", failure)

    def _room_changed(self, has_room: bool) -> None:
        self._ports.set_reading(has_room)


class _Receiver(DatagramProtocol):
    """Where Twisted enters a datagram socket."""

    def __init__(self, datagram_socket: DatagramSocket) -> None:
        self._socket = datagram_socket

    @override
    def run_received(self, run: Run) -> None:
        self._socket.run_received(run)

    @override
    def refused(self, error: SocketError) -> None:
        self._socket.refused(self.transport, error)

    @override
    def membership_changed(self, change: MembershipChange) -> None:
        super().membership_changed(change)
        self._socket.membership_changed(change)


_Message = DatagramSocketMessageReceivedEventArgs


def _control_towards(port: DatagramPort, found: Any, address: tuple[str, int]) -> Control | None:
    """Return the control message that sets the source of a datagram; None if none is needed."""
    if isinstance(address, SenderAddress):
        return port.answer_control(address.run)
    return interface_control(found)


def _take_apart(
    message: DatagramSocketMessageReceivedEventArgs,
) -> Failure | tuple[bytes, tuple[str, int]]:
    if message.error is not None:
        # Not raised: a frame of Twisted's refers to the Deferred, and that to the error.
        return Failure(message.error.copy())
    return message.data, message.address


def _closed() -> ClosedError:
    return ClosedError("the socket was closed")
