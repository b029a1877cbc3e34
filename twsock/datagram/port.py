"""
UDP port of a protocol: socket → **datagram port** → protocol → send queue → socket.

A `DatagramPort` replaces Twisted's UDP port, under any reactor that watches descriptors. The kernel
joins datagrams to runs (``UDP_GRO``), and the port delivers each run as one event. Datagrams that
the protocol sends during the event leave together after it. No error of the network ends the port:
an ICMP reply is reported as an event, a full send buffer makes datagrams wait, and a datagram that
is too long is flagged. The send queue holds unsent datagrams.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IListeningPort, IUDPTransport
from typing_extensions import override
from zope.interface import implementer

from twsock._integers import checked_integer
from twsock.datagram.addresses import Destinations, ReplySources, interface_control
from twsock.datagram.detaching import DetachableDatagramPort
from twsock.datagram.network.interfaces import Interface as NetworkInterface
from twsock.datagram.network.interfaces import LinkWatch
from twsock.datagram.network.membership import Memberships, find_group
from twsock.datagram.network.packet_info import Control
from twsock.datagram.owner import IDatagramOwner, IRunTransport, PlainProtocol
from twsock.datagram.runs import Address, DatagramCounters, Run, RunReceiver
from twsock.datagram.send_queue import CountedRun, DatagramOutput
from twsock.datagram.udp_socket import (
    DatagramOptions,
    OpenedSocket,
    count_dropped,
    open_udp_socket_of,
    set_hop_limit,
)
from twsock.errors import ClosedError, SocketError
from twsock.ip.zones import with_zone
from twsock.log import TextLogger
from twsock.wire.byte_queue import Buffer, as_bytes
from twsock.wire.datagrams import MAX_SEGMENTS

__all__ = ["DatagramPort", "listen_datagrams"]


@implementer(IListeningPort, IUDPTransport, IRunTransport)
class DatagramPort(DetachableDatagramPort):
    """
    One UDP socket in a reactor; `listen_datagrams` and datagram endpoints create it.

    Addresses are pairs of numeric host and port, or tuples as in `Run.source`. Names are refused,
    because a lookup would delay the send.

    :param reactor: watches descriptors (``IReactorFDSet``) and keeps time.
    :param protocol: connected to this port, as to a UDP port of Twisted.
    :param opened: the socket; the port closes it.
    :ivar counters: counts of datagrams.
    :ivar read_ended: called after each wake-up, when the datagrams that the protocol sent during it
        have left; None for no call.
    """

    _log = TextLogger()

    def __init__(
        self,
        reactor: Any,
        protocol: Any,
        opened: OpenedSocket,
        options: DatagramOptions,
    ) -> None:
        super().__init__(reactor, protocol, opened, options)
        self.counters = DatagramCounters()
        self._protocol = protocol
        self._owner: Any = (
            protocol if IDatagramOwner.providedBy(protocol) else PlainProtocol(protocol)
        )
        self._options = options
        self._output = DatagramOutput(opened.udp, self, reactor, has_runs=opened.has_runs)
        self._host = opened.udp.getsockname()
        is_wildcard = self._host[0] in ("0.0.0.0", "::")
        # The kernel sends from the only address of a socket of one address.
        self._answers = ReplySources(reactor) if is_wildcard else None
        self._is_started = False
        # Cached: the reactor calls `logPrefix` for each event.
        self._log_prefix = f"{type(protocol).__name__} (UDP)"
        self._memberships = Memberships(opened.udp)
        self._receiver = RunReceiver(
            opened.udp, self._owner, options, self._memberships, self.counters
        )
        self._watch: LinkWatch | None = None
        self._destinations = Destinations(self.socket_family, multicast_only=options.multicast_only)
        self.read_ended: Callable[[], None] | None = None
        # For senders that check an address once for many sends, and whose items are notified of
        # their result.
        self.find_address = self._destinations.find
        self.submit = self._output.push
        self.submit_all = self._output.push_all
        self.withdraw = self._output.withdraw

    # Called by applications.

    @property
    def is_open(self) -> bool:
        """Whether the port is open."""
        return self._udp is not None

    @property
    def is_full(self) -> bool:
        """
        Whether to stop sending until ``output_drained``: the kernel has no room, or 128 KiB wait.

        Datagrams sent while it is full are queued, up to 16 MiB.
        """
        return self._output.is_full

    @property
    def unsent(self) -> int:
        """Bytes in the send queue."""
        return self._output.unsent

    @property
    def dropped_by_kernel(self) -> int:
        """Datagrams dropped because the receive buffer was full; 0 if the system has no count."""
        if self._udp is None:
            return self._dropped
        return count_dropped(self._udp)

    _dropped = 0

    @property
    def socket_family(self) -> int:
        """``AF_INET`` or ``AF_INET6``."""
        return socket.AF_INET6 if len(self._host) == 4 else socket.AF_INET

    def send(self, data: Buffer, address: Address | None = None) -> None:
        """
        Send a datagram now, or queue it until the kernel has room.

        During an event the datagram leaves at the end of the event. While the protocol handles a
        run, a datagram to the source host of the run leaves from the destination address of the
        run; see `reply`.

        :param data: 0 to 65,507 bytes; 65,527 on IPv6.
        :param address: None for the connected peer.
        :raises SocketError: with status ``MESSAGE_TOO_LONG``, when it is longer.
        :raises BusyError: when 16 MiB wait already.
        :raises ClosedError: when the port was closed.
        :raises ValueError: when the address is a name.
        :raises LocalProtocolError: when no address is given on a port that is not connected, or the
            port cannot send to the address.
        """
        data = as_bytes(data)
        found = self._destinations.find(address)
        self._push(data, len(data), found, self._control_towards(found))

    def send_run(self, data: Buffer, segment_size: int, address: Address | None = None) -> None:
        """
        Send a run: datagrams of one size; the last may be shorter.

        :param data: the bytes of all datagrams, in order.
        :param segment_size: bytes of each datagram; 1 or more.
        :raises ValueError: when ``segment_size`` is below 1.
        :raises SocketError: and the other errors of `send`.
        """
        size = checked_integer(segment_size, "segment_size")
        found = self._destinations.find(address)
        self._send_run(as_bytes(data), size, found, self._control_towards(found))

    def reply(self, run: Run, *, port: int | None = None) -> None:
        """
        Send a run back to its source, from the address that it was sent to.

        The answer to a multicast or broadcast run leaves from an address of the receiving
        interface. If the system does not report the destination (see ``Run.destination``), the
        kernel chooses the address.

        :param port: send to this port of the source host instead; 1 to 65,535.
        :raises SocketError: and the other errors of `send`.
        """
        source = run.source
        if port is not None and not 1 <= checked_integer(port, "a port to answer") <= 65_535:
            raise ValueError(f"a port to answer is 1 to 65535, not {port}")
        address: Address | None = source if port is None else (source[0], port, *source[2:])
        if self._destinations.is_limited:
            address = self._destinations.find(address)
        control = None if self._answers is None else self._answers.make_control(run)
        self._send_run(run.data, run.segment_size, address, control)

    def answer_control(self, run: Run) -> Control | None:
        """Return the control message of `reply` for a run; None if the kernel chooses."""
        return None if self._answers is None else self._answers.make_control(run)

    def answer_address(self, run: Run) -> str:
        """Return the address that `reply` sends from, with zone; empty if the kernel chooses."""
        if self._answers is None:
            return with_zone(self._host[0], self._host[3] if len(self._host) == 4 else 0)
        return self._answers.find_zoned_address(run)

    def _control_towards(self, address: Address | None) -> Control | None:
        if address is None:
            return None
        run = self._receiver.run
        if run is not None and address[0] == run.source[0]:
            return self.answer_control(run)
        return interface_control(address)

    def send_awaited(self) -> None:
        """
        Send collected datagrams, since a coroutine waits for one of them.

        If further received datagrams may still be handled in this wake-up, nothing is sent yet: all
        answers then leave in one call.
        """
        if self._receiver.is_single:
            self._output.send_held()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Hold the datagrams sent inside the ``with`` block, and send them together at its end."""
        must_release = self._output.hold()
        try:
            yield
        finally:
            if must_release:
                self._output.release()

    def join_group(
        self,
        group: str,
        interface: str | int | NetworkInterface | None = None,
        source: str | None = None,
    ) -> None:
        """
        Join a multicast group.

        :param group: an IPv6 group may have a zone (``ff15::9%eth1``), which names the interface.
        :param interface: name, index or address of the interface to join on. With None it is the
            interface of the zone, otherwise that of the options; otherwise the kernel chooses.
        :param source: receive only from this sender (:rfc:`4607`); None for all senders.
        :raises SocketError: with status ``ADDRESS_FAMILY_NOT_SUPPORTED`` when the address is not a
            group of this port's family, ``UNREACHABLE_HOST`` when the interface does not exist.
        :raises ValueError: when the zone names another interface than ``interface``.
        """
        self._check_open()
        group, where = find_group(group, interface, self._options.interface)
        # Before the join: if no descriptor is left for it, nothing is joined.
        watch = self._watch or LinkWatch(self._reactor, self._links_changed)
        try:
            self._memberships.join(group, where, source)
        except BaseException:
            if watch is not self._watch:
                watch.stop()
            raise
        self._watch = watch

    def leave_group(
        self,
        group: str,
        interface: str | int | NetworkInterface | None = None,
        source: str | None = None,
    ) -> None:
        """
        Leave a multicast group.

        :raises LocalProtocolError: when it was not joined with these arguments.
        """
        self._check_open()
        group, where = find_group(group, interface, self._options.interface)
        self._memberships.leave(group, where, source)

    @property
    def memberships(self) -> Memberships:
        """The groups that the port has joined."""
        return self._memberships

    def set_hop_limit(self, hops: int) -> None:
        """
        Set the hop limit or TTL of unicast datagrams.

        :param hops: 1 to 255.
        :raises ValueError: when the number is out of bounds.
        :raises ClosedError: when the port was closed.
        """
        set_hop_limit(self._check_open(), hops)
        self._options = replace(self._options, hop_limit=hops)

    # Called by Twisted's applications.

    def connect(self, host: str, port: int) -> None:
        """
        Connect to one peer: send to it only, and receive from it only.

        :param host: numeric.
        :raises ValueError: when the host is a name.
        :raises LocalProtocolError: when the port is connected already.
        :raises SocketError: when no route leads to the host.
        """
        udp = self._check_open()
        self._receiver.peer = self._destinations.connect(udp, host, port)
        self._host = udp.getsockname()

    def write(self, packet: bytes, addr: tuple[str, int] | None = None) -> None:
        """Send a datagram; see `send`."""
        self.send(packet, addr)

    def getHost(self) -> IPv4Address | IPv6Address:
        """Return the address and port that the socket is bound to."""
        if len(self._host) == 4:
            return IPv6Address("UDP", *self._host)
        return IPv4Address("UDP", *self._host)

    def get_peer(self) -> Address | None:
        """Return the connected peer in the form of `Run.source`; None if there is none."""
        return self._destinations.peer

    def getBroadcastAllowed(self) -> bool:
        """Return whether the port may send to broadcast addresses."""
        return bool(self._check_open().getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST))

    def setBroadcastAllowed(self, enabled: bool) -> None:
        """Set whether the port may send to broadcast addresses."""
        self._check_open().setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, int(enabled))

    def startListening(self) -> None:
        """Connect the protocol and start to receive."""
        self._check_open()
        if not self._is_started:
            self._is_started = True
            try:
                self._protocol.makeConnection(self)
            except BaseException:
                # The protocol did not start, so `stopProtocol` is not called. It may be started
                # on another port.
                self._is_started = False
                if self._protocol.transport is self:
                    self._protocol.transport = None
                raise
            if self._udp is not None:
                self.resumeProducing()

    def stopListening(self) -> Deferred[None]:
        """
        Close the port: send the queued datagrams that the kernel accepts now, and drop the others.

        :returns: has fired already, because nothing is left to do.
        """
        if self._udp is not None:
            self._output.flush()
            self._close()
        return succeed(None)

    # Called by the reactor; `twsock.datagram.descriptor` has the rest.

    @override
    def logPrefix(self) -> str:
        return self._log_prefix

    @override
    def doRead(self) -> None:
        must_release = self._output.hold()
        try:
            self._receiver.read()
        except OSError as error:
            self._read_failed(error)
        if must_release:
            self._output.release()
        if self.read_ended is not None:
            self.read_ended()

    # Called by the output.

    def output_drained(self) -> None:
        """Report to the protocol that the port is no longer full."""
        self._report("output_drained")

    @override
    def refused(self, error: SocketError) -> None:
        self.counters.refused += 1
        self._report("refused", error)

    def output_ended(self) -> None:
        """Drop the reference to the protocol; nothing more is reported to it."""
        self._owner = self._protocol = None

    # Events.

    def _report(self, event: str, *arguments: object) -> None:
        """Call the protocol; an exception of it does not end the port, which serves many peers."""
        owner = self._owner
        if owner is None:
            return  # The protocol has closed the port in this call.
        try:
            getattr(owner, event)(*arguments)
        except Exception:  # noqa: BLE001 - logged; a port survives its protocol
            self._log.failure("{event} failed", event=event)

    def _links_changed(self) -> None:
        for change in self._memberships.refresh():
            self._report("membership_changed", change)

    # Sending.

    def _send_run(
        self, data: bytes, segment_size: int, address: Address | None, control: Control | None
    ) -> None:
        if segment_size == len(data):
            self._push(data, segment_size, address, control)
            return
        if segment_size < 1:
            raise ValueError(f"segment_size is 1 or more, not {segment_size}")
        most = segment_size * max(1, min(MAX_SEGMENTS, self._output.max_size // segment_size))
        if len(data) <= most or len(data) <= segment_size:
            self._push(data, min(segment_size, len(data)), address, control)
            return
        # The kernel received a longer run than it can send.
        for start in range(0, len(data), most):
            piece = data[start : start + most]
            self._push(piece, min(segment_size, len(piece)), address, control)

    def _push(
        self, data: bytes, segment_size: int, address: Address | None, control: Control | None
    ) -> None:
        self._output.push(
            CountedRun(self.counters, self.send_failed, data, segment_size, address, control)
        )

    def send_failed(self, error: SocketError, item: CountedRun) -> None:
        """Report to the protocol that datagrams could not be sent."""
        self.counters.failed += item.count
        self._report("send_failed", error, item.address, item.count)

    # The end.

    @override
    def _close(self) -> None:
        udp = self._udp
        if udp is None:
            return
        self.pauseProducing()
        self._receiver.close()
        self._reactor.removeWriter(self)
        if self._watch is not None:
            self._watch.stop()
            self._watch = None
        protocol, self._dropped = self._protocol, self.dropped_by_kernel
        self._udp = self.read_ended = None
        self._output.close(_closed)
        udp.close()
        if self._is_started:
            protocol.doStop()

    def _check_open(self) -> socket.socket:
        if self._udp is None:
            raise _closed()
        return self._udp

    def __repr__(self) -> str:
        host, port = self._host[:2]
        return f"<UDP port {port} of {host}>"


def listen_datagrams(
    reactor: Any,
    protocol: Any,
    port: int = 0,
    interface: str = "",
    options: DatagramOptions | None = None,
) -> DatagramPort:
    """
    Open a UDP port for a protocol.

    :param reactor: watches the socket, and opens it if it provides
        `twsock.datagram.IReactorUdpSockets`; otherwise the kernel opens it.
    :param protocol: a `twsock.protocols.DatagramProtocol`, or any datagram protocol of Twisted.
    :param port: 0 to 65,535; with 0 the system chooses.
    :param interface: numeric address to bind; empty for all IPv4 addresses, ``::`` for all IPv6
        addresses.
    :raises SocketError: when it cannot be opened; see `open_udp_socket`.
    """
    if options is None:
        options = DatagramOptions()
    opened = open_udp_socket_of(reactor, interface, port, options)
    listening = DatagramPort(reactor, protocol, opened, options)
    try:
        listening.startListening()
    except BaseException:
        listening.stopListening()
        raise
    return listening


def _closed() -> SocketError:
    return ClosedError("this port was closed")
