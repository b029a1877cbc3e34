"""
Awaitable datagram sockets: application → **datagram socket** → ports → kernel.

Made by applications. Holds its options, its `DatagramSocketState`, the stream to a connected peer,
and one port for each address family that it is bound in. `twsock.sockets.datagram.delivery` passes
received messages to handlers or queues them; `twsock.sockets.datagram.streams` sends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, overload

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IResolver
from twisted.python.failure import Failure

from twsock.datagram.addresses import refuse_port_0
from twsock.datagram.network.membership import MembershipChange
from twsock.datagram.network.packet_info import is_multicast
from twsock.datagram.protocol import DatagramProtocol
from twsock.datagram.udp_socket import numeric_address
from twsock.errors import ClosedError, LocalProtocolError, SocketError, SocketErrorStatus
from twsock.names import EndpointPair, HostName, HostNameSortOptions, HostNameType
from twsock.operation import Fired, fail, start_operation
from twsock.sockets.datagram.control import DatagramSocketControl
from twsock.sockets.datagram.delivery import MessageDelivery, MessageReceiver
from twsock.sockets.datagram.information import DatagramSocketInformation
from twsock.sockets.datagram.message import DatagramSocketMessageReceivedEventArgs, SenderAddress
from twsock.sockets.datagram.output import DatagramOutputStream
from twsock.sockets.datagram.ports import DatagramPorts
from twsock.sockets.datagram.state import DatagramSocketState, Phase, socket_closed
from twsock.sockets.datagram.streams import OutputStreams
from twsock.sockets.datagram.transferring import TransferableDatagramSocket
from twsock.sockets.destination import (
    as_host_name,
    find_endpoint_pairs,
    find_local_port,
    local_binding,
    make_pair,
)
from twsock.sockets.event import Event
from twsock.sockets.resolving import resolve
from twsock.sockets.waiting import ClosesInBlock, check_timeout, limit, operation_cancelled
from twsock.sockets.weakly import weak_callback, weak_factory, weak_getter
from twsock.wire.byte_queue import Buffer

__all__ = ["DatagramSocket"]

_BOUND: Final = Phase.BOUND  # Cached: a global lookup costs less than an enum attribute.
_Message = DatagramSocketMessageReceivedEventArgs
_MessageHandler = Callable[["DatagramSocket", _Message], Any]
_GroupHandler = Callable[["DatagramSocket", MembershipChange], Any]


class DatagramSocket(TransferableDatagramSocket, ClosesInBlock):
    """
    A UDP socket; ``Windows.Networking.Sockets.DatagramSocket``.

    Received datagrams go to the handlers of `message_received`, which are added before the socket
    is bound. Without handlers they wait for `receive_from` and ``async for``. ``async with`` closes
    the socket. No other program can bind its port, unless ``control.multicast_only`` is set.

    :param reactor: runs the socket.
    :param resolver: looks up SRV records (any ``IResolver``); None for the DNS servers that this
        machine is configured with.

    :ivar control: the options, to be set before the socket is bound or connected.
    :ivar information: addresses and counters, at any time.
    :ivar message_received: handlers called with the socket and the message, one per datagram. They
        may be coroutine functions. A refusal is a message too, whose ``data_reader`` raises.
    :ivar multicast_group_changed: handlers called with the socket and a `MembershipChange` when a
        group is no longer received, as its interface disappeared, or is received again.
    :ivar output_stream: sends datagrams to the connected peer.
    """

    __slots__ = (
        "__weakref__",
        "_delivery",
        "_ports",
        "_reactor",
        "_resolver",
        "_state",
        "_streams",
        "control",
        "information",
        "message_received",
        "multicast_group_changed",
        "output_stream",
    )

    def __init__(self, reactor: Any, *, resolver: IResolver | None = None) -> None:
        self._reactor = reactor
        self._resolver = resolver
        self._state = DatagramSocketState()
        # No part keeps the socket in memory, except that open ports do.
        is_in_use = weak_getter(self._state.is_in_use, False)
        self.control = DatagramSocketControl(is_in_use, weak_callback(self._set_hop_limit))
        ports = DatagramPorts(
            reactor, self.control, weak_factory(self._make_receiver, DatagramProtocol)
        )
        self._ports = ports
        self._streams = OutputStreams(reactor, self._state, ports)
        self.information = DatagramSocketInformation(lambda: tuple(ports))
        self.message_received: Event[_MessageHandler] = Event("message_received", is_in_use)
        self.multicast_group_changed: Event[_GroupHandler] = Event(
            "multicast_group_changed", is_in_use
        )
        self._delivery = MessageDelivery(
            reactor,
            self.message_received,
            self.multicast_group_changed,
            self._streams,
            ports.set_reading,
        )
        self.output_stream = self._streams.make(self._state.not_connected)

    @property
    def is_open(self) -> bool:
        """Whether the socket is bound or connected, and not closed."""
        return self._state.is_open

    # Binding and connecting.

    def bind_service_name(
        self, service: str | int, adapter: str | int | None = None
    ) -> Deferred[None]:
        """
        Bind a port of all addresses of this machine, of both families.

        :param service: a port, or a name in the services file; ``""`` for a free port, whose number
            is then in ``information.local_port``.
        :param adapter: name, index or address of the one interface to receive from and send by,
            which needs Linux; None for all.
        :returns: fires when the socket is bound. It fails with status ``ADDRESS_ALREADY_IN_USE``
            when the port is taken, ``UNREACHABLE_HOST`` when the interface does not exist; then the
            socket can be bound again. `LocalProtocolError` when it is bound or connected.
        :raises ValueError: at once, when this machine does not know the service.
        """
        port = find_local_port(service, "udp")
        return self._state.open(self._bind_all(port, adapter))

    def bind_endpoint(self, host: HostName | str | None, service: str | int) -> Deferred[None]:
        """
        Bind a port of one address.

        :param host: an address of this machine, or a name of one; None for all addresses.
        :param service: as in `bind_service_name`.
        :returns: as `bind_service_name`. It fails with status ``CANNOT_ASSIGN_REQUESTED_ADDRESS``
            when the address is not an address of this machine.
        :raises ValueError: at once, for a malformed name or an unknown service.
        """
        name = None if host is None else as_host_name(host)
        port = find_local_port(service, "udp")
        if name is None:
            return self._state.open(self._bind_all(port, None))
        return self._state.open(self._bind_one(name, port))

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
        Set the one peer: `output_stream` sends to it, and only its datagrams are received.

        The socket uses the first address of the host that has a route. It sends nothing to find out
        whether the peer is there. It is bound to a free port, unless it is bound.

        :param remote: the host, or a pair that fixes the local end as well.
        :param service: a port; or a name in the services file of this machine; or else ``name`` of
            an SRV record ``_name._udp.host`` (:rfc:`2782`).
        :param timeout: seconds for all of it, until it fails with status ``CONNECTION_TIMED_OUT``.
        :returns: fires when connected. It fails with status ``HOST_NOT_FOUND`` for a group or an
            unknown name, or with the status of the system's error; the state of the socket is then
            what it was before. `LocalProtocolError` when it is connected.
        :raises ValueError: at once, for a malformed name, a missing service or an invalid port.
        """
        pair = make_pair(remote, service, "udp")
        local = local_binding(pair, "udp")
        check_timeout(timeout)
        connecting = self._state.open(self._connect(pair, local), is_connecting=True)
        return limit(connecting, timeout, self._reactor, "connecting")

    def get_output_stream(
        self,
        remote: HostName | str | EndpointPair,
        service: str | int | None = None,
        *,
        timeout: float | None = None,
    ) -> Deferred[DatagramOutputStream]:
        """
        Make a stream whose every write is a datagram to a host, a group or the broadcast address.

        A socket that is not bound is bound to a free port. A datagram to 255.255.255.255 leaves by
        each interface that can broadcast.

        :param remote: as in `connect`. An unbound socket is bound to the local end of the pair. A
            socket that is bound to all addresses sends from the local address of the pair. So a
            stream for `DatagramSocketMessageReceivedEventArgs.endpoint_pair` sends answers from the
            address that the message was sent to.
        :param service: as in `connect`.
        :param timeout: as in `connect`.
        :returns: fires with the stream, which sends from this socket's port. It fails as `connect`
            does; with `LocalProtocolError` on a connected socket, and for a host that is not a
            group if the socket is ``multicast_only``.
        :raises ValueError: at once, as `connect`.
        """
        pair = make_pair(remote, service, "udp")
        local = local_binding(pair, "udp")
        check_timeout(timeout)
        if self._state.phase is Phase.CONNECTED:
            return fail(LocalProtocolError("this socket is connected: use its output_stream"))
        if self._state.phase is Phase.BOUND:
            making = self._state.ended_by_close(
                start_operation(self._make_destination(pair, local))
            )
        else:
            making = self._state.open(self._bind_for(pair, local))
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
        Receive the datagrams of a group; at once, as in WinRT.

        :param group: an IPv6 group may have a zone (``ff15::9%eth1``), which names the interface.
        :param interface: name, index or address of the interface; None for the one that the zone
            names, or else that the socket is bound to, or else the kernel's choice. Not in WinRT.
        :param source: the only sender to receive from (:rfc:`4607`); None for all. Not in WinRT.
        :raises LocalProtocolError: before the socket is bound.
        :raises SocketError: with status ``ADDRESS_FAMILY_NOT_SUPPORTED`` for an address that is no
            group, or of a family that the socket is not bound in; ``UNREACHABLE_HOST`` for an
            interface that does not exist.
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
        Leave a group that was joined with the same arguments. Not in WinRT.

        :raises LocalProtocolError: when it was not joined.
        """
        self._ports.leave(self._check_group(group), interface, source)

    # Single datagrams.

    def send_to(self, data: Buffer, address: tuple[str, int]) -> Deferred[int]:
        """
        Send one datagram to an address.

        A socket that is not bound is bound to a free port.

        :param address: numeric host, and port; use `get_output_stream` for a name. With the address
            of a message, or the one that `receive_from` returned, the datagram leaves from the
            address that the message was sent to. Otherwise the kernel chooses the source.
        :returns: as ``DatagramOutputStream.write``. If the kernel has room, the datagram has been
            sent when this returns; after 64 in one turn of the reactor, the next turn sends it. It
            fails with `LocalProtocolError` when the socket is connected.
        :raises ValueError: at once, when the host is a name or the port is invalid.
        """
        stream = self._streams.direct.get(":" in address[0])
        try:
            if stream is None or self._state.phase is not _BOUND:
                stream = self._open_direct(address)
            return stream.write_to(data, address)
        except SocketError as error:
            return fail(error)

    def receive_from(
        self, *, timeout: float | None = None
    ) -> Deferred[tuple[bytes, tuple[str, int]]]:
        """
        Wait for the next datagram. Only for a socket without handlers.

        :param timeout: seconds until it fails with status ``CONNECTION_TIMED_OUT``.
        :returns: fires with the datagram, and the host and port of its sender. It fails with
            status ``CONNECTION_RESET_BY_PEER`` when the peer refused an earlier datagram, with
            ``MESSAGE_TOO_LONG`` in place of a datagram longer than ``control.max_datagram``; after
            both the next can be received. With `BusyError` while another wait is pending, with
            `ClosedError` after `close`. Cancelling takes no datagram.
        :raises ValueError: at once, when the timeout is negative.
        """
        message = self._delivery.queue.take_now() if timeout is None else None
        if message is None:
            return self.receive(timeout=timeout).addCallback(_take_apart)
        error = message.error
        return Fired((message.beginning, message.address)) if error is None else fail(error.copy())

    def receive(
        self, *, timeout: float | None = None
    ) -> Deferred[DatagramSocketMessageReceivedEventArgs]:
        """
        Wait for the next message, in the form that handlers get.

        :param timeout: as in `receive_from`.
        :returns: as in `receive_from`, but errors of datagrams are in the message.
        :raises ValueError: at once, when the timeout is negative.
        """
        if self.message_received:
            return fail(LocalProtocolError("cannot receive: handlers take the messages"))
        if self._state.phase is not Phase.CLOSED and not self._ports:
            return fail(LocalProtocolError("cannot receive: the socket is not bound"))
        return self._delivery.queue.take(timeout=timeout)

    def __aiter__(self) -> DatagramSocket:
        return self

    def __anext__(self) -> Awaitable[DatagramSocketMessageReceivedEventArgs]:
        message = self._delivery.queue.take_now()
        return self._receive_next() if message is None else Fired(message)

    async def _receive_next(self) -> DatagramSocketMessageReceivedEventArgs:
        try:
            return await self.receive()
        except ClosedError:
            raise StopAsyncIteration from None

    # Ending.

    def close(self) -> Deferred[None]:
        """
        Close the socket: send queued datagrams as far as the kernel has room, drop received ones.

        Pending operations fail with `ClosedError`; ``async for`` ends. Closing twice is harmless.

        :returns: a Deferred that has already fired.
        """
        if not self._state.is_closed:
            self._streams.send_pending()
            self._state.close()
            self._ports.close()
            self._streams.lost(socket_closed)
            self._delivery.close()
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
        self._delivery.queue.cancel(operation_cancelled)
        self._streams.cancel_writes(operation_cancelled)
        return succeed(None)

    # Called by messages.

    def answer(self, data: Buffer, address: tuple[str, int]) -> Deferred[int]:
        """Send to the sender of a message; see ``reply`` of the message."""
        if self._state.phase is not Phase.CONNECTED:
            return self.send_to(data, address)
        if address != self._ports.peer:
            return fail(LocalProtocolError("this socket is connected to another peer"))
        return self.output_stream.send_all(data)

    def find_answering_pair(self, address: tuple[str, int]) -> EndpointPair:
        """Return both ends of an answer; see ``endpoint_pair`` of the message."""
        if self._state.phase is Phase.CLOSED:
            raise socket_closed()
        port = self._ports.require(address[0])
        local = port.answer_address(address.run) if isinstance(address, SenderAddress) else ""
        return EndpointPair(
            HostName(local) if local else None,
            str(port.getHost().port),
            HostName(address[0]),
            str(address[1]),
        )

    # Binding and connecting.

    async def _bind_all(self, number: int, adapter: str | int | None) -> None:
        self._ports.bind_all(number, adapter)
        self._state.phase = Phase.BOUND

    async def _bind_one(self, host: HostName, number: int) -> None:
        address = host.canonical_name
        if host.type not in (HostNameType.IPV4, HostNameType.IPV6):
            found = await resolve(self._reactor, host, str(number), protocol="udp")
            address = found[0].host
        self._ports.bind_one(address, number)
        self._state.phase = Phase.BOUND

    async def _connect(self, pair: EndpointPair, local: tuple[str, int] | None) -> None:
        if self._ports and local is not None:
            raise LocalProtocolError("this socket is bound: its local end is fixed")
        addresses = await self._look_up(pair)
        if any(is_multicast(host) for host, _ in addresses):
            raise SocketError(
                f"{pair.remote_host_name} is a group, which a socket cannot connect to: use "
                "get_output_stream()",
                status=SocketErrorStatus.HOST_NOT_FOUND,
            )
        port = self._ports.connect_to_first(addresses, local)
        self._state.phase = Phase.CONNECTED
        self._streams.connected(port, self.output_stream)
        # Queued datagrams of other hosts are not from the peer.
        self._delivery.queue.keep_only(self._ports.peer or ("", 0))

    async def _bind_for(
        self, pair: EndpointPair, local: tuple[str, int] | None
    ) -> DatagramOutputStream:
        """Bind a free port of the address family of a destination."""
        addresses = await self._look_up(pair)
        self._ports.check_destination(addresses[0][0])
        # Refused before a port is bound.
        refuse_port_0(*numeric_address(*addresses[0])[:2])
        self._ports.bind_family(addresses[0][0], local)
        self._state.phase = Phase.BOUND
        return self._streams.make_for(addresses)

    async def _make_destination(
        self, pair: EndpointPair, local: tuple[str, int] | None
    ) -> DatagramOutputStream:
        addresses = await self._look_up(pair)
        if self._state.phase is not Phase.BOUND:
            raise self._state.not_bound()
        return self._streams.make_for(addresses, local)

    async def _look_up(self, pair: EndpointPair) -> list[tuple[str, int]]:
        host, service = pair.remote_host_name, pair.remote_service_name
        found = await resolve(self._reactor, host, service, self._resolver, protocol="udp")
        return [(address.host, address.port) for address in found]

    def _open_direct(self, address: tuple[str, int]) -> DatagramOutputStream:
        """Open the stream that `send_to` uses; bind a free port if the socket is not bound."""
        host = address[0]
        if self._state.phase is Phase.UNBOUND:
            numeric_address(*address)  # A malformed address is refused before anything is bound.
            self._ports.check_destination(host)
            self._ports.bind_family(host)
            self._state.phase = Phase.BOUND
        if self._state.phase is not Phase.BOUND:
            raise self._state.not_bound()
        return self._streams.open_direct(self._ports.require(host))

    def _make_receiver(self) -> DatagramProtocol:
        return MessageReceiver(self, self._delivery)

    def _set_hop_limit(self, hops: int) -> None:
        self._ports.set_hop_limit(hops)

    def _check_group(self, group: HostName | str) -> str:
        self._state.check_group_call()
        return group if isinstance(group, str) else group.canonical_name


def _take_apart(message: _Message) -> Failure | tuple[bytes, tuple[str, int]]:
    if message.error is not None:
        # Not raised: a frame of Twisted refers to the Deferred, and the Deferred to the error.
        return Failure(message.error.copy())
    return message.data, message.address
