"""
A UDP port: socket → **datagram port** → protocol; protocol → output → socket.

Stands beside Twisted's own port, under any reactor that watches descriptors. It receives runs where
the kernel joins datagrams (``UDP_GRO``) and hands each over as one event; what the protocol sends
meanwhile leaves together afterwards. It survives what ends other ports: an ICMP reply is an event,
a full buffer is waited for, and a datagram that is too long is flagged.

It is long for its docstrings and for the interfaces of Twisted that it answers to.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IHalfCloseableDescriptor,
    IListeningPort,
    ILoggingContext,
    IReadDescriptor,
    IUDPTransport,
    IWriteDescriptor,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from twsock._integers import checked_integer
from twsock.datagram.addresses import Destinations, interface_control, refuse_port_0
from twsock.datagram.network.interfaces import Interface as NetworkInterface
from twsock.datagram.network.interfaces import LinkWatch, find_interface
from twsock.datagram.network.membership import Memberships, find_group
from twsock.datagram.network.packet_info import (
    CONTROL_SIZE,
    Control,
    read_control,
)
from twsock.datagram.owner import DatagramCounters, IDatagramOwner, IRunTransport
from twsock.datagram.plain_protocol import PlainProtocol
from twsock.datagram.read_budget import ReadBudget
from twsock.datagram.reply_sources import ReplySources
from twsock.datagram.runs import Address, Run
from twsock.datagram.send_queue import DatagramOutput, Sendable
from twsock.datagram.syscalls import describe_refusal
from twsock.datagram.udp_socket import (
    LARGEST,
    DatagramOptions,
    OpenedSocket,
    numeric_address,
    open_udp_socket_of,
)
from twsock.errors import ClosedError, LocalProtocolError, SocketError, SocketErrorStatus
from twsock.ip.zones import describe_missing_zone, needs_zone, with_zone
from twsock.log import TextLogger
from twsock.wire.byte_queue import Buffer, as_bytes
from twsock.wire.datagrams import MAX_SEGMENTS

__all__ = [
    "DatagramPort",
    "listen_datagrams",
]

#: <asm-generic/socket.h>: an array of 32-bit numbers, of which the ninth counts what was dropped.
_SO_MEMINFO: Final = 55
_MEMORY_INFO: Final = struct.Struct("=9I")

#: Flags of a receive that did not get all, or does not know where one datagram ends. As a plain
#: number, since to ask an enum costs as much as a function call.
_TRUNCATED: Final = int(socket.MSG_TRUNC | socket.MSG_CTRUNC)

#: The socket is gone, whoever closed it: nothing more will come.
_GONE: Final = frozenset({errno.EBADF, errno.ENOTSOCK})


@implementer(
    IListeningPort,
    IUDPTransport,
    IRunTransport,
    IReadDescriptor,
    IWriteDescriptor,
    IHalfCloseableDescriptor,
    ILoggingContext,
)
class DatagramPort:
    """
    One UDP socket in a reactor; made by `listen_datagrams`, or by an endpoint.

    Addresses are pairs of numeric host and port, or what `Run.source` has; never names, for which
    somebody would have to wait.

    :param reactor: watches descriptors (``IReactorFDSet``) and keeps time.
    :param protocol: is connected to this port, as to Twisted's own.
    :param opened: belongs to the port from now on.
    :ivar counters: what it has seen.
    """

    _log = TextLogger()

    def __init__(
        self,
        reactor: Any,
        protocol: Any,
        opened: OpenedSocket,
        options: DatagramOptions,
    ) -> None:
        self.counters = DatagramCounters()
        self._reactor = reactor
        self._protocol = protocol
        self._owner: Any = (
            protocol if IDatagramOwner.providedBy(protocol) else PlainProtocol(protocol)
        )
        self._options = options
        self._udp: socket.socket | None = opened.udp
        self._descriptor = opened.udp.fileno()
        self._output = DatagramOutput(opened.udp, self, reactor, has_runs=opened.has_runs)
        self._host = opened.udp.getsockname()
        # Where a socket of one address gets its datagrams; one of all addresses is told for each,
        # where the system tells at all.
        is_wildcard = self._host[0] in ("0.0.0.0", "::")
        self._destination = "" if is_wildcard else self._host[0]
        self._scope = 0 if len(self._host) == 2 else self._host[3]
        # A socket of one address sends from that by itself.
        self._answers = ReplySources(reactor) if is_wildcard else None
        # What the protocol is being told of: what it sends to the source meanwhile is the answer.
        self._run: Run | None = None
        self._peer: Address | None = None
        # Whether it has to look at where each datagram is from, or for whom.
        self._is_choosy = options.multicast_only
        self._budget = ReadBudget()
        self._is_reading = False
        self._is_started = False
        # Asked for each event.
        self._log_prefix = f"{type(protocol).__name__} (UDP)"
        self._memberships = Memberships(opened.udp)
        self._watch: LinkWatch | None = None
        self._destinations = Destinations(self.socket_family, multicast_only=options.multicast_only)

    # Called by applications.

    @property
    def is_open(self) -> bool:
        """Whether it was not closed."""
        return self._udp is not None

    @property
    def is_full(self) -> bool:
        """
        Whether to stop sending until ``output_drained``: the kernel has no room, or 128 KiB wait.

        What is sent all the same waits too, up to 16 MiB.
        """
        return self._output.is_full

    @property
    def unsent(self) -> int:
        """How many bytes wait for the kernel."""
        return self._output.unsent

    @property
    def dropped_by_kernel(self) -> int:
        """How many datagrams came while the receive buffer was full; 0 where none can tell."""
        if self._udp is None:
            return self._dropped
        try:
            raw = self._udp.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMORY_INFO.size)
        except OSError:
            return 0
        dropped: int = _MEMORY_INFO.unpack(raw)[8] if len(raw) == _MEMORY_INFO.size else 0
        return dropped

    _dropped = 0

    @property
    def socket_family(self) -> int:
        """``AF_INET`` or ``AF_INET6``."""
        return socket.AF_INET6 if len(self._host) == 4 else socket.AF_INET

    def send(self, data: Buffer, address: Address | None = None) -> None:
        """
        Send a datagram: now, or when there is room; from within an event, at its end.

        What is sent to the host of a run while the protocol is told of that run leaves from the
        address that the run came to; see `reply`.

        :param data: 0 to 65,507 bytes; 65,527 on IPv6.
        :param address: None for the connected peer.
        :raises SocketError: with status ``MESSAGE_TOO_LONG``, when it is longer.
        :raises BusyError: when 16 MiB wait already.
        :raises ClosedError: when the port was closed.
        :raises ValueError: when the address is a name.
        :raises LocalProtocolError: when there is no address, or not one that this port sends to.
        """
        data = as_bytes(data)
        found = self.find_address(address)
        self._push(data, len(data), found, self._control_towards(found))

    def send_run(self, data: Buffer, segment_size: int, address: Address | None = None) -> None:
        """
        Send a run: datagrams of one size, of which the last may be shorter.

        :param data: the datagrams one behind the other.
        :param segment_size: bytes of each.
        :raises SocketError: and the others that `send` raises.
        """
        size = checked_integer(segment_size, "segment_size")
        found = self.find_address(address)
        self._send_run(as_bytes(data), size, found, self._control_towards(found))

    def reply(self, run: Run, *, port: int | None = None) -> None:
        """
        Send a run back to where it came from, from the address that it was sent to.

        What was sent to a group or to everybody is answered from an address of the interface that
        it came by. Where the system does not tell (see ``Run.destination``), the kernel chooses.

        :param port: another port of the same host.
        :raises SocketError: and the others that `send` raises.
        """
        source = run.source
        if port is not None and not 1 <= checked_integer(port, "a port to answer") <= 65_535:
            raise ValueError(f"a port to answer is 1 to 65535, not {port}")
        address: Address | None = source if port is None else (source[0], port, *source[2:])
        if self._is_choosy:
            address = self.find_address(address)
        self._send_run(run.data, run.segment_size, address, self.answer_control(run))

    def submit(self, items: Sequence[Sendable]) -> None:
        """
        Send items that are each told what becomes of them, so nothing is raised.

        Their addresses are not looked at: they are for who makes them with `find_address`.
        """
        self._output.push_all(items)

    def find_address(self, address: Address | None) -> Address | None:
        """
        Make an address as the kernel takes it, once for many sends.

        :returns: None for the connected peer.
        :raises ValueError: and the others that `send` raises, where it cannot be sent to.
        """
        if self._peer is not None:
            if address is not None and address[:2] != self._peer[:2]:
                raise LocalProtocolError(f"this port is connected to {self._peer[0]} alone")
            return None
        if address is None:
            raise LocalProtocolError("where to? give an address, or connect the port")
        return self._destinations.find(address)

    def answer_control(self, run: Run) -> Control | None:
        """Return the control message of `reply` for a run; None if the kernel chooses."""
        return None if self._answers is None else self._answers.make_control(run)

    def answer_address(self, run: Run) -> str:
        """Return the address that `reply` sends from, with zone; empty if the kernel chooses."""
        if self._answers is None:
            return with_zone(self._host[0], self._scope)
        address = self._answers.find_address(run)
        return with_zone(address, run.interface if needs_zone(address) else 0)

    def _control_towards(self, address: Address | None) -> Control | None:
        if address is None:
            return None
        run = self._run
        if run is not None and address[0] == run.source[0]:
            return self.answer_control(run)
        return interface_control(address)

    def withdraw(self, item: Sendable) -> bool:
        """Take back an item that has not left; tell whether that was possible."""
        return self._output.withdraw(item)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Let what is sent within leave together at the end."""
        was_held = self._output.hold()
        try:
            yield
        finally:
            if not was_held:
                self._output.release()

    def join_group(
        self,
        group: str,
        interface: str | int | NetworkInterface | None = None,
        source: str | None = None,
    ) -> None:
        """
        Receive what is sent to a group.

        :param group: an IPv6 group may have a zone (``ff15::9%eth1``), which names the interface.
        :param interface: name, index or address of the one to listen on; None for that of the
            zone, or else of the options, or else for the kernel's choice.
        :param source: the only sender to hear (:rfc:`4607`); None for all.
        :raises SocketError: with status ``ADDRESS_FAMILY_NOT_SUPPORTED`` when that is no group of
            this port's family, ``UNREACHABLE_HOST`` when there is no such interface.
        :raises ValueError: when the zone names another interface than the one to listen on.
        """
        self._check_open()
        group, where = self._find_group(group, interface)
        # First, as there may be no descriptor for it; then nothing is joined.
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
        Receive that no more.

        :raises LocalProtocolError: when it was not joined so.
        """
        self._check_open()
        group, where = self._find_group(group, interface)
        self._memberships.leave(group, where, source)

    @property
    def memberships(self) -> Memberships:
        """The groups it has joined."""
        return self._memberships

    def set_hop_limit(self, hops: int) -> None:
        """
        Change how far what goes to one peer may go.

        :param hops: 1 to 255.
        """
        udp = self._check_open()
        if not 1 <= checked_integer(hops, "a hop limit") <= 255:
            raise ValueError(f"a hop limit is 1 to 255, not {hops}")
        if udp.family == socket.AF_INET6:
            udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hops)
        else:
            udp.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)

    # Called by Twisted's applications.

    def connect(self, host: str, port: int) -> None:
        """
        Have one peer: send to it alone, and receive from it alone.

        :param host: numeric.
        :raises ValueError: when it is a name.
        :raises LocalProtocolError: when it has one already.
        :raises SocketError: when no way leads there.
        """
        udp = self._check_open()
        if self._peer is not None:
            raise LocalProtocolError("this port is connected already")
        address = numeric_address(host, port)
        self._destinations.check_host(address[0])
        refuse_port_0(host, port)
        try:
            if interface_control(address) is not None:
                udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, address[-1])
            udp.connect(address)
            peer = udp.getpeername()
        except OSError as error:
            raise describe_missing_zone(
                host, error, SocketErrorStatus.UNREACHABLE_HOST
            ) or SocketError.from_exception(
                error, f"cannot connect to {host} port {port}: {error.strerror}"
            ) from error
        self._peer = peer
        self._is_choosy = True
        self._host = udp.getsockname()

    def write(self, packet: bytes, addr: tuple[str, int] | None = None) -> None:
        """Send a datagram; see `send`."""
        self.send(packet, addr)

    def getHost(self) -> IPv4Address | IPv6Address:
        """Give the address and port it is bound to."""
        if len(self._host) == 4:
            return IPv6Address("UDP", *self._host)
        return IPv4Address("UDP", *self._host)

    def get_peer(self) -> Address | None:
        """Give the connected peer, as `Run.source` would."""
        return self._peer

    def getBroadcastAllowed(self) -> bool:
        """Tell whether broadcast addresses may be sent to."""
        return bool(self._check_open().getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST))

    def setBroadcastAllowed(self, enabled: bool) -> None:
        """Set whether broadcast addresses may be sent to."""
        self._check_open().setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, int(enabled))

    def startListening(self) -> None:
        """Connect the protocol, and begin to receive."""
        self._check_open()
        if not self._is_started:
            self._is_started = True
            try:
                self._protocol.makeConnection(self)
            except BaseException:
                # What was not started is not stopped, and may be started on another port.
                self._is_started = False
                if self._protocol.transport is self:
                    self._protocol.transport = None
                raise
            if self._udp is not None:
                self.resumeProducing()

    def stopListening(self) -> Deferred[None]:
        """
        Close: send what the kernel takes now, drop what it does not.

        :returns: has fired: all is done at once.
        """
        if self._udp is not None:
            self._output.flush()
            self._close()
        return succeed(None)

    def pauseProducing(self) -> None:
        """Receive no more for now; what comes waits in the kernel, as far as there is room."""
        if self._is_reading:
            self._is_reading = False
            self._reactor.removeReader(self)

    def resumeProducing(self) -> None:
        """Receive again."""
        if not self._is_reading and self._udp is not None:
            self._is_reading = True
            self._reactor.addReader(self)

    # Called by the reactor.

    def fileno(self) -> int:
        """Give the descriptor; -1 once closed."""
        return self._descriptor

    def logPrefix(self) -> str:
        """Name the port in the log."""
        return self._log_prefix

    def doRead(self) -> None:
        """Receive what waits, and hand it over."""
        udp, budget, output = self._udp, self._budget, self._output
        found, has_met_end = 0, False
        was_held = output.hold()
        # Whoever is told of a datagram may pause the port, or close it.
        while found < budget.allowed and self._is_reading and udp is not None:
            try:
                data, messages, flags, source = udp.recvmsg(LARGEST, CONTROL_SIZE)
            except BlockingIOError:
                has_met_end = True
                break
            except OSError as error:
                self._receive_failed(error)
            else:
                self._received(data, messages, flags, source)
            found += 1
        budget.note(found, has_met_end=has_met_end)
        if not was_held:
            output.release()

    def doWrite(self) -> None:
        """Send what waited for room."""
        self._output.flush()

    def readConnectionLost(self, reason: Failure) -> None:
        """Take an error off the socket: epoll and poll tell of it as if it were an end."""
        self._take_error()
        self._be_watched()

    def writeConnectionLost(self, reason: Failure) -> None:
        """Take an error off the socket, as `readConnectionLost` does."""
        self._take_error()
        self._be_watched()

    def connectionLost(self, reason: Failure) -> None:
        """Go on after an error of the socket, which some reactors tell so; else close."""
        # Of a port that only waits for room, that is all that epoll and poll can tell. The error
        # may be gone by now, taken by a send. A reactor that ends tells the same, and there is no
        # other sign of it (private, as of 26.10).
        is_ending = getattr(self._reactor, "_stopped", False)
        if self._take_error() or not (self._is_reading or is_ending):
            self._be_watched()
        else:
            self._close()

    # Called by the output.

    def wait_until_writable(self, *, is_waiting: bool) -> None:
        """Have `doWrite` called, or not any more."""
        if self._udp is None:
            return
        if is_waiting:
            self._reactor.addWriter(self)
        else:
            self._reactor.removeWriter(self)

    def output_drained(self) -> None:
        """Pass on that there is room."""
        self._tell("output_drained")

    def refused(self, error: SocketError) -> None:
        """Pass on that an earlier datagram was refused."""
        self.counters.refused += 1
        self._tell("refused", error)

    def output_ended(self) -> None:
        """Drop the reference to the protocol; nothing more is reported to it."""
        self._owner = self._protocol = None

    # Receiving.

    def _received(self, data: bytes, messages: list[Control], flags: int, source: Address) -> None:
        size, destination, interface, local = len(data), self._destination, self._scope, ""
        if messages:
            segment_size, told, interface, local = read_control(messages)
            size = segment_size or size
            destination = told or destination
        if self._is_choosy and not self._is_welcome(source, destination, interface):
            self.counters.unexpected_source += 1
        elif size > self._options.max_datagram or flags & _TRUNCATED:
            self._received_truncated(
                Run(data, size, source, destination, interface, False, local), flags
            )
        else:
            run = Run(data, size, source, destination, interface, False, local)
            self.counters.received += 1 if size >= len(data) else len(run)
            self._hand_over(run)

    def _hand_over(self, run: Run) -> None:
        self._run = run
        try:
            self._owner.run_received(run)
        except Exception:  # noqa: BLE001 - logged, as in `_tell`
            self._log.failure("run_received failed")
        finally:
            self._run = None

    def _is_welcome(self, source: Address, destination: str, interface: int) -> bool:
        # What came before the port was connected may be from anybody.
        if self._peer is not None and source != self._peer:
            return False
        return not self._options.multicast_only or self._memberships.accepts(
            destination, interface, source[0]
        )

    def _received_truncated(self, run: Run, flags: int) -> None:
        """Hand over a run in which not every datagram is whole: each by itself."""
        limit = self._options.max_datagram
        datagrams = run.datagrams()
        last = len(datagrams) - 1
        for index, data in enumerate(datagrams):
            is_truncated = len(data) > limit or bool(flags & _TRUNCATED and index == last)
            if is_truncated:
                data = data[:limit]
                self.counters.truncated += 1
            else:
                self.counters.received += 1
            if self._udp is not None:
                piece = run.part(data, len(data), is_truncated=is_truncated)
                self._hand_over(piece)

    def _receive_failed(self, error: OSError) -> None:
        if error.errno in _GONE:
            self._log.error("{port} was closed by somebody else", port=repr(self))
            self._close()
        else:
            self.refused(describe_refusal(error.with_traceback(None)))

    def _take_error(self) -> bool:
        """Take the error off the socket; tell whether there was one."""
        if self._udp is None:
            return False
        number = self._udp.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            self.refused(describe_refusal(OSError(number, os.strerror(number))))
        return bool(number)

    def _be_watched(self) -> None:
        """Go on after a reactor has let go of the port."""
        if self._is_reading:
            self._reactor.addReader(self)
        if self._udp is not None and not self._output.is_empty:
            self._reactor.addWriter(self)

    def _tell(self, event: str, *arguments: object) -> None:
        """Call the owner, whose mistakes must not end a port that serves others."""
        owner = self._owner
        if owner is None:
            return  # The protocol has closed the port in this call.
        try:
            getattr(owner, event)(*arguments)
        except Exception:  # noqa: BLE001 - logged; a port survives its protocol
            self._log.failure("{event} failed", event=event)

    def _links_changed(self) -> None:
        for change in self._memberships.refresh():
            self._tell("membership_changed", change)

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
        # A kernel that gives longer runs than it takes.
        for start in range(0, len(data), most):
            piece = data[start : start + most]
            self._push(piece, min(segment_size, len(piece)), address, control)

    def _push(
        self, data: bytes, segment_size: int, address: Address | None, control: Control | None
    ) -> None:
        if self._udp is None:
            raise _closed()
        self._output.push(_Item(self, data, segment_size, address, control))

    def send_failed(self, error: SocketError, item: _Item) -> None:
        """Pass on that datagrams could not be sent."""
        self.counters.failed += item.count
        self._tell("send_failed", error, item.address, item.count)

    # The end.

    def _close(self) -> None:
        udp = self._udp
        if udp is None:
            return
        self.pauseProducing()
        self._reactor.removeWriter(self)
        if self._watch is not None:
            self._watch.stop()
            self._watch = None
        protocol, self._dropped = self._protocol, self.dropped_by_kernel
        self._udp = None
        self._descriptor = -1
        self._output.close(_closed)
        udp.close()
        if self._is_started:
            protocol.doStop()

    def _check_open(self) -> socket.socket:
        if self._udp is None:
            raise _closed()
        return self._udp

    def _find_group(
        self, group: str, interface: str | int | NetworkInterface | None
    ) -> tuple[str, NetworkInterface | None]:
        literal, where = find_group(group, interface)
        if where is None and self._options.interface:
            where = find_interface(self._options.interface)
        return literal, where

    def __repr__(self) -> str:
        host, port = self._host[:2]
        return f"<UDP port {port} of {host}>"


class _Item:
    """What the protocol sent, on its way."""

    __slots__ = ("_port", "address", "control", "count", "data", "segment_size")

    def __init__(
        self,
        port: DatagramPort,
        data: bytes,
        segment_size: int,
        address: Address | None,
        control: Control | None,
    ) -> None:
        self._port = port
        self.data = data
        self.segment_size = segment_size
        self.address = address
        self.control = control
        self.count = 1 if segment_size == len(data) else -(-len(data) // segment_size)

    def sent(self) -> None:
        self._port.counters.sent += self.count

    def failed(self, error: SocketError) -> None:
        self._port.send_failed(error, self)


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
        `twsock.datagram.IReactorUdpSockets`; otherwise the kernel does.
    :param protocol: a `twsock.protocols.DatagramProtocol`, or any datagram protocol of Twisted.
    :param port: 0 lets the system choose.
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
