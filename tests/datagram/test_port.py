"""A datagram port receives, sends, reports errors, and stays open."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IHalfCloseableDescriptor,
    IListeningPort,
    ILoggingContext,
    IReadDescriptor,
    IUDPTransport,
    IWriteDescriptor,
)
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.datagram.fake_udp import (
    HOST,
    IP_PKTINFO,
    OTHER,
    PEER,
    PORT,
    FakeUdp,
    refuse_address,
    refuse_runs,
)
from twsock.datagram.network.membership import MembershipChange
from twsock.datagram.owner import IDatagramOwner, IRunTransport
from twsock.datagram.port import DatagramPort, listen_datagrams
from twsock.datagram.runs import Run
from twsock.datagram.udp_socket import DatagramOptions, OpenedSocket
from twsock.errors import ClosedError, LocalProtocolError, SocketError, SocketErrorStatus

TOO_LONG = SocketErrorStatus.MESSAGE_TOO_LONG
RESET = SocketErrorStatus.CONNECTION_RESET_BY_PEER
LINK_LOCAL = ("fe80::1", 7001, 0, 3)


class FakeReactor(Clock):
    """A reactor that records watched descriptors and never polls them."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[Any] = set()
        self.writers: set[Any] = set()

    def addReader(self, reader: Any) -> None:
        self.readers.add(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.discard(reader)

    def addWriter(self, writer: Any) -> None:
        self.writers.add(writer)

    def removeWriter(self, writer: Any) -> None:
        self.writers.discard(writer)


@implementer(IDatagramOwner)
class Owner(DatagramProtocol):
    """
    A protocol that records its events.

    :ivar when_received: called with each run.
    """

    noisy = False

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.refusals: list[SocketErrorStatus] = []
        self.failures: list[tuple[SocketErrorStatus, Any, int]] = []
        self.drained = 0
        self.starts = 0
        self.stops = 0
        self.when_received: Callable[[Run], object] = lambda run: None
        self.when_refused: Callable[[], object] = lambda: None

    @override
    def startProtocol(self) -> None:
        self.starts += 1

    @override
    def stopProtocol(self) -> None:
        self.stops += 1

    def run_received(self, run: Run) -> None:
        self.runs.append(run)
        self.when_received(run)

    def refused(self, error: SocketError) -> None:
        self.refusals.append(error.status)
        self.when_refused()

    def send_failed(self, error: SocketError, address: Any, count: int) -> None:
        self.failures.append((error.status, address, count))

    def output_drained(self) -> None:
        self.drained += 1

    def membership_changed(self, change: MembershipChange) -> None:
        raise NotImplementedError

    @property
    def received(self) -> list[bytes]:
        """Return the received datagrams."""
        return [data for run in self.runs for data in run.datagrams()]


class Plain(DatagramProtocol):
    """
    A protocol written for Twisted's ports.

    :ivar when_received: called with each datagram.
    """

    noisy = False

    def __init__(self) -> None:
        self.received: list[tuple[bytes, Any]] = []
        self.refusals = 0
        self.when_received: Callable[[bytes], object] = lambda data: None

    @override
    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.received.append((datagram, addr))
        self.when_received(datagram)

    @override
    def connectionRefused(self) -> None:
        self.refusals += 1


class PortTestCase(SynchronousTestCase):
    """A port with a fake socket in a fake reactor."""

    def setUp(self) -> None:
        self.owner = Owner()
        self.open()

    def open(
        self,
        *judges: Any,
        host: str = HOST,
        protocol: Any = None,
        has_runs: bool = True,
        has_packet_info: bool = False,
        **options: Any,
    ) -> DatagramPort:
        """Replace the port by one with these options."""
        self.udp = FakeUdp(*judges, host=host)
        self.reactor = FakeReactor()
        udp: Any = self.udp
        opened = OpenedSocket(udp, has_runs, has_packet_info)
        if protocol is None:
            protocol = self.owner = Owner()
        self.port = DatagramPort(self.reactor, protocol, opened, DatagramOptions(**options))
        self.port.startListening()
        return self.port

    def read(self) -> None:
        """Let the port receive all waiting datagrams."""
        for _ in range(20):
            self.port.doRead()

    def read_much(self) -> None:
        """Let the port read often, so that its read budget grows, and leave some datagrams."""
        for _ in range(200):
            self.udp.arrive(b"a")
        for _ in range(6):
            self.port.doRead()

    def report_error_as_end(self, *, is_reading: bool) -> None:
        """Call the port as reactors on epoll and poll do for an error with nothing to read."""
        self.reactor.removeReader(self.port)
        if is_reading:
            self.port.readConnectionLost(Failure(ConnectionDone()))
        else:
            self.reactor.removeWriter(self.port)
            self.port.connectionLost(Failure(ConnectionLost()))


class InterfaceTests(PortTestCase):
    """The port provides Twisted's interfaces."""

    def test_the_port_provides_its_interfaces(self) -> None:
        """Port, transport, and descriptor with half-close."""
        for interface in (
            IListeningPort,
            IUDPTransport,
            IRunTransport,
            IReadDescriptor,
            IWriteDescriptor,
            IHalfCloseableDescriptor,
            ILoggingContext,
        ):
            self.assertTrue(verifyObject(interface, self.port), interface)
        self.assertTrue(verifyObject(IDatagramOwner, self.owner))

    def test_the_port_reports_its_address_and_family(self) -> None:
        """Also its name in the log and its descriptor."""
        self.assertEqual(self.port.getHost(), IPv4Address("UDP", HOST, PORT))
        self.assertEqual(self.port.socket_family, socket.AF_INET)
        self.assertEqual(self.port.logPrefix(), "Owner (UDP)")
        self.assertEqual(self.port.fileno(), self.udp.fileno())
        self.assertEqual(repr(self.port), f"<UDP port {PORT} of {HOST}>")
        self.open(host="fe80::2")
        self.assertEqual(self.port.getHost(), IPv6Address("UDP", "fe80::2", PORT, 0, 0))
        self.assertEqual(self.port.socket_family, socket.AF_INET6)


class ReceiveTests(PortTestCase):
    """Received datagrams are delivered unchanged."""

    def test_a_run_is_one_event(self) -> None:
        """With its segment size and its source."""
        self.udp.arrive(b"aabbc", segment_size=2)
        self.port.doRead()
        (run,) = self.owner.runs
        self.assertEqual((run.datagrams(), run.source), ([b"aa", b"bb", b"c"], PEER))
        self.assertEqual(self.port.counters.received, 3)

    def test_an_empty_datagram_is_delivered(self) -> None:
        """It does not end anything."""
        self.udp.arrive(b"")
        self.udp.arrive(b"a")
        self.read()
        self.assertEqual((self.owner.received, self.port.counters.received), ([b"", b"a"], 2))

    def test_the_destination_on_a_port_of_one_address_is_that_address(self) -> None:
        """The kernel need not report it."""
        self.udp.arrive(b"a")
        self.port.doRead()
        self.assertEqual((self.owner.runs[0].destination, self.owner.runs[0].interface), (HOST, 0))

    def test_the_destination_on_a_port_of_all_addresses_is_reported(self) -> None:
        """With the receiving interface."""
        self.open(host="0.0.0.0", has_packet_info=True)
        self.udp.arrive(b"a", destination="127.0.0.2", interface=4)
        self.udp.arrive(b"b")
        self.read()
        found = [(run.destination, run.interface) for run in self.owner.runs]
        self.assertEqual(found, [("127.0.0.2", 4), ("", 0)])

    def test_a_scope_id_is_kept(self) -> None:
        """The source has all four parts of an IPv6 address, and the answer uses them."""
        self.open(host="fe80::2")
        self.udp.arrive(b"a", LINK_LOCAL)
        self.owner.when_received = self.port.reply
        self.port.doRead()
        self.assertEqual(self.owner.runs[0].source, LINK_LOCAL)
        self.assertEqual(self.udp.sent, [(b"a", LINK_LOCAL)])

    def test_the_end_of_a_wake_up_is_reported_after_its_answers_have_left(self) -> None:
        """A wake-up without a datagram is reported, too; nothing is reported after a close."""
        sent: list[int] = []
        self.port.read_ended = lambda: sent.append(len(self.udp.sent))
        self.owner.when_received = self.port.reply
        self.udp.arrive(b"a")
        self.port.doRead()
        self.assertEqual(sent, [1])
        self.port.doRead()
        self.assertEqual(sent, [1, 1])
        self.owner.when_received = lambda _: self.port.stopListening()
        self.udp.arrive(b"b")
        self.read()
        self.assertEqual(sent, [1, 1])

    def test_one_datagram_in_flight_needs_one_read(self) -> None:
        """Hardly any read finds nothing."""
        for _ in range(1000):
            self.udp.arrive(b"a")
            self.port.doRead()
        self.assertEqual(len(self.owner.runs), 1000)
        self.assertLess(self.udp.reads, 1030)

    def test_many_waiting_datagrams_need_few_wake_ups(self) -> None:
        """Far fewer than there are datagrams."""
        for _ in range(200):
            self.udp.arrive(b"a")
        self.read()
        self.assertEqual(len(self.owner.runs), 200)

    def test_a_paused_port_receives_nothing(self) -> None:
        """Also if it is paused during a wake-up. The datagrams arrive after `resumeProducing`."""
        self.read_much()
        self.owner.when_received = lambda run: self.port.pauseProducing()
        before = len(self.owner.runs)
        self.port.doRead()
        self.assertEqual(len(self.owner.runs), before + 1)
        self.assertEqual(self.reactor.readers, set())
        self.port.pauseProducing()
        self.port.resumeProducing()
        self.assertEqual(self.reactor.readers, {self.port})

    def test_an_exception_of_the_protocol_is_logged(self) -> None:
        """The next run is delivered."""
        self.owner.when_received = lambda run: 1 / 0
        self.udp.arrive(b"a")
        self.udp.arrive(b"b")
        self.read()
        self.assertEqual(self.owner.received, [b"a", b"b"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        self.assertTrue(self.port.is_open)

    def test_a_socket_closed_by_other_code_closes_the_port(self) -> None:
        """Otherwise the port would read for ever. The reason is logged."""
        self.udp.close()
        self.port.doRead()
        self.assertFalse(self.port.is_open)
        self.assertEqual((self.owner.stops, self.reactor.readers), (1, set()))

    def test_datagrams_dropped_by_the_kernel_are_counted(self) -> None:
        """Also after the port was closed."""
        self.udp.dropped = 12
        self.assertEqual(self.port.dropped_by_kernel, 12)
        self.port.stopListening()
        self.assertEqual(self.port.dropped_by_kernel, 12)


class TruncationTests(PortTestCase):
    """A datagram that is too long is flagged, and does not count as received."""

    def flags(self) -> list[tuple[bytes, bool]]:
        return [(run.data, run.is_truncated) for run in self.owner.runs]

    def test_a_datagram_truncated_by_the_kernel_is_flagged(self) -> None:
        """The kernel sets the flag of udp(7)."""
        self.udp.arrive(b"abc", flags=socket.MSG_TRUNC)
        self.port.doRead()
        self.assertEqual(self.flags(), [(b"abc", True)])
        self.assertEqual((self.port.counters.truncated, self.port.counters.received), (1, 0))

    def test_a_receive_without_control_messages_is_flagged(self) -> None:
        """It may be several datagrams of unknown size."""
        self.udp.arrive(b"abc", flags=socket.MSG_CTRUNC)
        self.port.doRead()
        self.assertEqual(self.flags(), [(b"abc", True)])

    def test_only_the_last_datagram_of_a_truncated_run_is_flagged(self) -> None:
        """The datagrams before it are whole."""
        self.udp.arrive(b"aabbc", segment_size=2, flags=socket.MSG_TRUNC)
        self.port.doRead()
        self.assertEqual(self.flags(), [(b"aa", False), (b"bb", False), (b"c", True)])

    def test_max_datagram_applies_to_each_datagram_of_a_run(self) -> None:
        """Datagrams within the limit are delivered whole."""
        self.open(max_datagram=3)
        self.udp.arrive(b"aaabbbcc", segment_size=3)
        self.udp.arrive(b"aaaabbbbcc", segment_size=4)
        self.read()
        wanted = [(b"aaabbbcc", False), (b"aaa", True), (b"bbb", True), (b"cc", False)]
        self.assertEqual(self.flags(), wanted)
        self.assertEqual((self.port.counters.truncated, self.port.counters.received), (2, 4))

    def test_a_datagram_of_max_datagram_bytes_is_whole(self) -> None:
        """One byte more is flagged and cut off."""
        self.open(max_datagram=3)
        self.udp.arrive(b"abc")
        self.udp.arrive(b"abcd")
        self.read()
        self.assertEqual(self.flags(), [(b"abc", False), (b"abc", True)])

    def test_with_max_datagram_zero_empty_datagrams_are_whole(self) -> None:
        """All others are flagged."""
        self.open(max_datagram=0)
        self.udp.arrive(b"")
        self.udp.arrive(b"a")
        self.read()
        self.assertEqual(self.flags(), [(b"", False), (b"", True)])

    def test_a_close_at_the_first_datagram_ends_the_run(self) -> None:
        """A stopped protocol receives nothing."""
        self.open(max_datagram=1)
        self.owner.when_received = lambda run: self.port.stopListening()
        self.udp.arrive(b"aabbc", segment_size=2)
        self.port.doRead()
        self.assertEqual(len(self.owner.runs), 1)


class SendTests(PortTestCase):
    """Sent datagrams."""

    def test_datagrams_sent_during_an_event_leave_together(self) -> None:
        """64 answers are one call."""
        for _ in range(64):
            self.udp.arrive(bytes(100))
        self.owner.when_received = lambda run: self.port.send(run.data, run.source)
        with self.port.together():
            self.read()
            self.assertEqual(self.udp.calls, [])
        self.assertEqual(len(self.udp.calls), 1)
        self.assertEqual(self.udp.sent, [(bytes(100), PEER)] * 64)
        self.assertEqual(self.port.counters.sent, 64)

    def test_a_run_is_answered_in_one_call(self) -> None:
        """The port does not split it."""
        self.owner.when_received = self.port.reply
        self.udp.arrive(bytes(6400), segment_size=100)
        self.port.doRead()
        self.assertEqual((len(self.udp.calls), self.udp.sizes), (1, [100] * 64))

    def test_a_reply_may_go_to_another_port(self) -> None:
        """Of the same host."""
        self.port.reply(Run(b"a", 1, PEER), port=9)
        self.open(host="fe80::2")
        self.port.reply(Run(b"a", 1, LINK_LOCAL), port=9)
        self.assertEqual(self.udp.sent, [(b"a", ("fe80::1", 9, 0, 3))])

    def test_a_reply_leaves_from_the_destination_of_the_run(self) -> None:
        """
        On a socket of all addresses; for a group, from the local address that the kernel reports.
        """
        self.open(host="0.0.0.0", has_packet_info=True)
        self.owner.when_received = self.port.reply
        self.udp.arrive(b"a", destination="127.0.0.2", interface=1)
        self.udp.arrive(b"b", destination="224.3.0.5", local="127.0.0.9", interface=1)
        self.read()
        for call, last in zip(self.udp.calls, (2, 9), strict=True):
            ((level, kind, data),) = call.control
            self.assertEqual((level, kind), (socket.IPPROTO_IP, IP_PKTINFO), (call, last))
            self.assertEqual(data, bytes(4) + bytes([127, 0, 0, last]) + bytes(4), (call, last))

    def test_a_reply_on_ipv6_sets_the_interface_only_if_needed(self) -> None:
        """For a link-local address, and if only the interface is known."""
        self.open(host="::", has_packet_info=True)
        self.owner.when_received = self.port.reply
        for destination in ("fe80::2", "fd00::2", "ff15::5"):
            self.udp.arrive(b"a", LINK_LOCAL, destination=destination, interface=3)
        self.read()
        found = [data for call in self.udp.calls for _, _, data in call.control]
        wanted = [("fe80::2", 3), ("fd00::2", 0), ("::", 3)]
        packed = [socket.inet_pton(socket.AF_INET6, host) for host, _ in wanted]
        indices = [index.to_bytes(4, sys.byteorder) for _, index in wanted]
        self.assertEqual(found, [a + b for a, b in zip(packed, indices, strict=True)])

    def test_a_run_longer_than_one_call_is_split(self) -> None:
        """A kernel may receive more datagrams at once than it can send."""
        self.port.send_run(bytes(101), 1, PEER)
        self.assertEqual((self.udp.sizes, len(self.udp.calls)), ([1] * 101, 2))
        self.open()
        self.port.send_run(bytes(70_000), 30_000, PEER)
        self.assertEqual(self.udp.sizes, [30_000, 30_000, 10_000])

    def test_the_longest_run_of_ipv4_has_65507_bytes(self) -> None:
        """A run of IPv6 has 20 bytes more."""
        self.port.send_run(bytes(65_527), 1200, PEER)
        self.assertEqual(sum(self.udp.sizes), 65_527)
        self.assertEqual(set(self.udp.sizes[:-1]), {1200})
        self.assertEqual(self.port.counters.failed, 0)

    def test_a_run_of_datagrams_that_are_too_long_is_refused(self) -> None:
        """As a single datagram is."""
        for size in (65_508, 70_000, 140_000):
            error = self.assertRaises(SocketError, self.port.send_run, bytes(140_000), size, PEER)
            self.assertIs(error.status, TOO_LONG, size)
        self.assertEqual(self.udp.calls, [])

    def test_a_run_with_segment_size_zero_is_refused(self) -> None:
        """Its datagrams cannot be separated, and must not be lost silently."""
        for size in (0, -5):
            self.assertRaises(ValueError, self.port.send_run, b"abc", size, PEER)

    def test_an_empty_run_is_an_empty_datagram(self) -> None:
        """For any segment size."""
        for size in (0, 5):
            self.port.send_run(b"", size, PEER)
        self.assertEqual(self.udp.sent, [(b"", PEER)] * 2)
        self.assertEqual(self.port.counters.sent, 2)

    def test_a_datagram_that_is_too_long_is_refused_at_the_call(self) -> None:
        """Other datagrams are sent."""
        self.port.send(b"a", PEER)
        error = self.assertRaises(SocketError, self.port.send, bytes(65_508), PEER)
        self.assertIs(error.status, TOO_LONG)
        self.port.write(b"b", PEER)
        self.assertEqual(self.udp.sent, [(b"a", PEER), (b"b", PEER)])

    def test_a_failed_send_is_reported(self) -> None:
        """The protocol gets the event, it is counted, and the port stays open."""
        self.open(refuse_address(OTHER))
        self.port.send_run(b"abc", 1, OTHER)
        self.port.send(b"a", PEER)
        unreachable = SocketErrorStatus.NETWORK_IS_UNREACHABLE
        self.assertEqual(self.owner.failures, [(unreachable, OTHER, 3)])
        self.assertEqual((self.port.counters.failed, self.port.counters.sent), (3, 1))

    def test_a_name_or_a_missing_address_is_refused(self) -> None:
        """At the call; an address of the other family too."""
        self.assertRaises(ValueError, self.port.send, b"a", ("localhost", 9))
        self.assertRaises(LocalProtocolError, self.port.send, b"a")
        self.assertRaises(LocalProtocolError, self.port.send, b"a", ("::1", 9))
        self.assertRaises(LocalProtocolError, self.port.send, b"a", LINK_LOCAL)

    def test_without_room_the_reactor_watches_for_writing(self) -> None:
        """It stops when all datagrams have been sent."""
        self.udp.plan = [errno.EAGAIN]
        self.port.send(b"abc", PEER)
        self.assertEqual(self.reactor.writers, {self.port})
        self.assertEqual((self.port.is_full, self.port.unsent), (True, 3))
        self.port.doWrite()
        self.assertEqual((self.reactor.writers, self.owner.drained), (set(), 1))
        self.assertEqual((self.port.is_full, self.udp.sent), (False, [(b"abc", PEER)]))

    def test_datagrams_without_room_are_queued_without_a_call(self) -> None:
        """The kernel has reported that it has no room."""
        self.udp.plan = [errno.EAGAIN] * 1000
        for _ in range(100):
            self.port.send(b"a", PEER)
        self.assertLess(len(self.udp.calls), 10)

    def test_the_cache_of_addresses_is_bounded(self) -> None:
        """Addresses of a few peers are checked once."""
        address = ("127.0.0.1", 1)
        made = self.port.find_address(address)
        self.assertIs(self.port.find_address(address), made)
        for number in range(3000):
            self.port.find_address(("127.0.0.2", number + 1))
        again = self.port.find_address(address)
        self.assertEqual(again, made)
        self.assertIsNot(again, made)

    def test_invalid_data_is_refused_at_the_call(self) -> None:
        """The port stays usable."""
        text: Any = "text"
        self.assertRaises(TypeError, self.port.send, text, PEER)
        self.assertRaises(TypeError, self.port.send_run, text, 1, PEER)
        for address in ((HOST, 70_000), ("localhost", 9), (HOST, 9, 0), ("localhost", 9, 0, 0)):
            self.assertRaises(ValueError, self.port.send, b"a", address)
        self.assertRaises(SocketError, self.port.send, b"a", (HOST, 0))
        self.assertRaises(ValueError, self.port.reply, Run(b"a", 1, PEER), port=70_000)
        self.open(host="::1")
        self.assertRaises(ValueError, self.port.send, b"a", ("::1", 9, 0, 2**32))
        self.assertEqual((self.port.is_open, self.udp.sent, self.port.unsent), (True, [], 0))

    def test_an_address_that_python_cannot_use_fails_alone(self) -> None:
        """Other datagrams are sent."""

        def judge(call: Any) -> int:
            if call.address[1] > 65_535:
                raise OverflowError("port must be 0-65535.")
            return 0

        self.open(judge)
        with self.port.together():
            self.port.send(b"a", PEER)
            self.port.reply(Run(b"b", 1, (HOST, 70_000)))
            self.port.send(b"c", PEER)
        self.assertEqual([data for data, _ in self.udp.sent], [b"a", b"c"])
        self.assertEqual((len(self.owner.failures), self.port.unsent), (1, 0))

    def test_mutable_data_is_copied_at_the_call(self) -> None:
        """A later change has no effect."""
        data = bytearray(b"first")
        with self.port.together():
            self.port.send(data, PEER)
            data[:] = b"other"
        self.assertEqual(self.udp.sent, [(b"first", PEER)])

    def test_a_zone_is_looked_up_each_time(self) -> None:
        """Its interface may have another index now."""
        self.open(host="::1")
        made = self.port.find_address(("fe80::1%1", 9))
        self.assertEqual(made, ("fe80::1", 9, 0, 1))
        self.assertIsNot(self.port.find_address(("fe80::1%1", 9)), made)
        self.assertEqual(self.port.find_address(("fe80::1", 9, 0, 3)), ("fe80::1", 9, 0, 3))
        self.assertEqual(self.port.find_address(("fe80::1", 9)), ("fe80::1", 9, 0, 0))

    def test_an_address_with_a_scope_id_is_accepted(self) -> None:
        """As a part of the tuple, or as a zone."""
        self.open(host="fe80::2")
        self.port.send(b"a", LINK_LOCAL)
        self.port.send(b"b", ("fe80::1%4", 7001))
        self.assertEqual(self.udp.sent, [(b"a", LINK_LOCAL), (b"b", ("fe80::1", 7001, 0, 4))])

    def test_without_segmentation_the_same_datagrams_are_sent(self) -> None:
        """Protocol and peer notice no difference."""
        for judge in (refuse_runs(errno.EIO), refuse_runs(errno.EINVAL)):
            self.open(judge)
            self.port.send_run(b"aabbc", 2, PEER)
            self.assertEqual([data for data, _ in self.udp.sent], [b"aa", b"bb", b"c"], judge)
            self.assertEqual(self.port.counters.sent, 3, judge)


class ConnectedTests(PortTestCase):
    """A connected port."""

    def setUp(self) -> None:
        super().setUp()
        self.port.connect(*PEER)

    def test_a_connected_port_sends_to_its_peer_only(self) -> None:
        """Without an address, or with that of the peer."""
        self.port.send(b"a")
        self.port.write(b"b", PEER)
        self.assertRaises(LocalProtocolError, self.port.send, b"c", OTHER)
        self.assertEqual(self.udp.sent, [(b"a", None), (b"b", None)])
        self.assertEqual(self.port.get_peer(), PEER)

    def test_a_port_is_connected_at_most_once(self) -> None:
        """To a numeric address."""
        self.assertRaises(LocalProtocolError, self.port.connect, *OTHER)
        self.open()
        self.assertRaises(ValueError, self.port.connect, "localhost", 9)

    def test_datagrams_of_other_sources_are_dropped(self) -> None:
        """They may have arrived before the connect."""
        self.udp.arrive(b"a", OTHER)
        self.udp.arrive(b"b", PEER)
        self.read()
        self.assertEqual((self.owner.received, self.port.counters.unexpected_source), ([b"b"], 1))

    def test_an_icmp_error_at_a_read_is_an_event(self) -> None:
        """As with the select and asyncio reactors. Waiting datagrams are still read."""
        self.udp.pending = [errno.ECONNREFUSED]
        self.udp.arrive(b"a", PEER)
        self.read()
        self.assertEqual((self.owner.refusals, self.owner.received), ([RESET], [b"a"]))
        self.assertEqual((self.port.counters.refused, self.reactor.readers), (1, {self.port}))

    def test_an_icmp_error_reported_as_an_end_is_an_event(self) -> None:
        """As with epoll and poll: the error is cleared, and the port is watched again."""
        self.udp.pending = [errno.ECONNREFUSED]
        self.report_error_as_end(is_reading=True)
        self.assertEqual((self.owner.refusals, self.udp.pending), ([RESET], []))
        self.assertTrue(self.port.is_open)
        self.assertEqual(self.reactor.readers, {self.port})

    def test_an_icmp_error_on_a_paused_full_port_is_an_event(self) -> None:
        """The reactor removed the writer; the port adds the writer again, and no reader."""
        self.port.pauseProducing()
        self.udp.plan = [errno.EAGAIN]
        self.port.send(b"a")
        self.udp.pending = [errno.ECONNREFUSED]
        self.report_error_as_end(is_reading=False)
        self.assertEqual(self.owner.refusals, [RESET])
        self.assertEqual((self.reactor.writers, self.reactor.readers), ({self.port}, set()))
        self.port.doWrite()
        self.assertEqual(self.udp.sent, [(b"a", None)])

    def test_a_cleared_error_leaves_a_port_waiting_to_write(self) -> None:
        """The port is paused; it is not closed."""
        self.port.pauseProducing()
        self.udp.plan = [errno.EAGAIN]
        self.port.send(b"a")
        self.report_error_as_end(is_reading=False)
        self.assertEqual((self.port.is_open, self.reactor.writers), (True, {self.port}))

    def test_a_half_close_for_writing_reports_the_icmp_error(self) -> None:
        """For each method that a reactor may call."""
        self.udp.pending = [errno.EHOSTUNREACH]
        self.port.writeConnectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.owner.refusals, [SocketErrorStatus.UNREACHABLE_HOST])

    def test_an_error_cleared_by_a_send_leaves_the_port_reading(self) -> None:
        """The reactor saw the error earlier and removed the reader."""
        self.report_error_as_end(is_reading=True)
        self.assertTrue(self.port.is_open)
        self.assertEqual(self.reactor.readers, {self.port})

    def test_a_stopping_reactor_closes_a_full_port(self) -> None:
        """It makes the same call as for an error. Queued datagrams fail."""
        self.udp.plan = [errno.EAGAIN]
        self.port.send(b"a")
        self.port.pauseProducing()
        vars(self.reactor)["_stopped"] = True
        self.report_error_as_end(is_reading=False)
        self.assertEqual((self.port.is_open, self.owner.stops), (False, 1))
        self.assertEqual(len(self.owner.failures), 1)

    def test_a_close_in_the_refused_event_is_allowed(self) -> None:
        """For each way to get the error; nothing is watched afterwards."""
        for meet in (
            lambda: self.port.doRead(),
            lambda: self.report_error_as_end(is_reading=True),
            lambda: self.port.send(b"a"),
        ):
            self.open()
            self.port.connect(*PEER)
            self.owner.when_refused = self.port.stopListening
            self.udp.pending = [errno.ECONNREFUSED]
            meet()
            self.assertEqual((self.owner.stops, self.udp.is_closed), (1, True), meet)
            self.assertEqual((self.reactor.readers, self.reactor.writers), (set(), set()), meet)

    def test_a_reply_after_an_icmp_error_is_sent(self) -> None:
        """The error is an event, for `reply` as for `send`."""
        self.udp.pending = [errno.ECONNREFUSED]
        self.port.reply(Run(b"a", 1, PEER, HOST))
        self.assertEqual((self.owner.refusals, self.owner.failures), ([RESET], []))
        self.assertEqual([data for data, _ in self.udp.sent], [b"a"])

    def test_an_exception_in_the_refused_event_is_logged(self) -> None:
        """The datagram of that call is sent."""
        self.owner.when_refused = lambda: 1 / 0
        self.udp.pending = [errno.ECONNREFUSED]
        self.port.send(b"a")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.udp.sent, [(b"a", None)])


class EndTests(PortTestCase):
    """A port closes once."""

    def test_closing_twice_is_harmless(self) -> None:
        """The protocol is stopped once, the descriptor is closed, and nothing is watched."""
        for attempt in range(2):
            self.assertIsNone(self.successResultOf(self.port.stopListening()), f"{attempt=}")
        self.assertEqual((self.owner.starts, self.owner.stops), (1, 1))
        self.assertTrue(self.udp.is_closed)
        self.assertEqual((self.port.fileno(), self.port.is_open), (-1, False))
        self.assertEqual((self.reactor.readers, self.reactor.writers), (set(), set()))
        self.port.resumeProducing()
        self.assertEqual(self.reactor.readers, set())

    def test_datagrams_that_the_kernel_accepts_are_sent_before_the_close(self) -> None:
        """Those sent in the event that closes the port."""

        def answer_and_close(run: Run) -> None:
            self.port.reply(run)
            self.port.stopListening()

        self.owner.when_received = answer_and_close
        self.udp.arrive(b"a")
        self.port.doRead()
        self.assertEqual(self.udp.sent, [(b"a", PEER)])
        self.assertEqual(self.owner.failures, [])

    def test_datagrams_that_the_kernel_refuses_fail_at_the_close(self) -> None:
        """No delayed call remains."""
        for number in (errno.EAGAIN, errno.ENOBUFS):
            self.open()
            self.udp.plan = [number] * 9
            self.port.send(b"a", PEER)
            self.port.stopListening()
            self.assertEqual(
                self.owner.failures, [(SocketErrorStatus.OPERATION_ABORTED, PEER, 1)], number
            )
            self.assertEqual((self.port.unsent, self.reactor.getDelayedCalls()), (0, []), number)
            self.assertEqual(self.reactor.writers, set(), number)

    def test_calls_on_a_closed_port_raise_closed_error(self) -> None:
        """Every call that needs the socket."""
        self.port.stopListening()
        for ask in (
            lambda: self.port.send(b"a", PEER),
            lambda: self.port.reply(Run(b"a", 1, PEER)),
            lambda: self.port.connect(*PEER),
            lambda: self.port.getBroadcastAllowed(),
            lambda: self.port.join_group("224.3.0.5"),
            lambda: self.port.set_hop_limit(9),
        ):
            self.assertRaises(ClosedError, ask)

    def test_a_stopping_reactor_closes_the_port(self) -> None:
        """The socket has no error then."""
        self.report_error_as_end(is_reading=False)
        self.assertEqual((self.owner.stops, self.port.is_open), (1, False))
        self.assertEqual(self.owner.refusals, [])

    def test_closing_in_an_event_ends_the_wake_up(self) -> None:
        """Waiting datagrams are not read."""
        self.read_much()
        self.owner.when_received = lambda run: self.port.stopListening()
        before = len(self.owner.runs)
        self.port.doRead()
        self.assertEqual((len(self.owner.runs), self.udp.reads), (before + 1, before + 1))

    def test_an_exception_at_the_start_closes_the_port(self) -> None:
        """The caller gets the exception."""

        class Faulty(Owner):
            @override
            def startProtocol(self) -> None:
                raise ZeroDivisionError

        reactor = FakeReactor()
        self.assertRaises(ZeroDivisionError, listen_datagrams, reactor, Faulty(), 0, HOST)
        self.assertEqual(reactor.readers, set())

    def test_a_failed_start_does_not_affect_the_other_port_of_the_protocol(self) -> None:
        """The protocol keeps its port."""
        reactor = FakeReactor()
        self.assertRaises(AssertionError, listen_datagrams, reactor, self.owner, 0, HOST)
        self.assertEqual(self.owner.stops, 0)
        self.assertIs(self.owner.transport, self.port)


class PlainProtocolTests(PortTestCase):
    """A protocol written for Twisted's ports works on this port."""

    def setUp(self) -> None:
        self.plain = Plain()
        self.open(protocol=self.plain, max_datagram=3)

    def test_a_plain_protocol_gets_each_datagram(self) -> None:
        """With host and port."""
        self.udp.arrive(b"aabbc", segment_size=2)
        self.port.doRead()
        self.assertEqual(self.plain.received, [(b"aa", PEER), (b"bb", PEER), (b"c", PEER)])

    def test_a_plain_protocol_can_answer_to_the_address_it_got(self) -> None:
        """The host has a zone for the scope id, and the port accepts it."""
        self.plain = Plain()
        self.open(protocol=self.plain, host="fe80::2")
        source = ("fe80::1", 7001, 0, socket.if_nametoindex("lo"))
        self.udp.arrive(b"a", source)
        self.port.doRead()
        ((_, address),) = self.plain.received
        self.assertEqual(address, ("fe80::1%lo", 7001))
        transport: Any = self.plain.transport
        transport.write(b"b", address)
        self.assertEqual(self.udp.sent, [(b"b", source)])

    def test_a_plain_protocol_gets_no_truncated_datagram(self) -> None:
        """It could not detect the truncation. The log has a line."""
        self.udp.arrive(b"abcd")
        self.udp.arrive(b"abc")
        self.read()
        self.assertEqual(self.plain.received, [(b"abc", PEER)])

    def test_a_plain_protocol_gets_connection_refused(self) -> None:
        """For an ICMP error."""
        self.port.connect(*PEER)
        self.udp.pending = [errno.ECONNREFUSED]
        self.port.doRead()
        self.assertEqual(self.plain.refusals, 1)

    def test_an_exception_for_one_datagram_does_not_affect_the_others(self) -> None:
        """Each datagram of a run is a separate event."""
        self.plain.when_received = lambda data: 1 / 0 if data == b"aa" else None
        self.udp.arrive(b"aabbc", segment_size=2)
        self.port.doRead()
        self.assertEqual(len(self.plain.received), 3)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_stopped_plain_protocol_receives_nothing(self) -> None:
        """Not even the rest of a run."""
        self.plain.when_received = lambda data: self.port.stopListening()
        self.udp.arrive(b"aabbc", segment_size=2)
        self.port.doRead()
        self.assertEqual(self.plain.received, [(b"aa", PEER)])

    def test_a_failed_send_of_a_plain_protocol_is_logged(self) -> None:
        """The protocol has no event for it."""
        self.open(refuse_address(PEER), protocol=Plain())
        self.port.send(b"a", PEER)
        self.assertTrue(self.port.is_open)


class SharedPortTests(PortTestCase):
    """A port for multicast only neither sends nor receives unicast."""

    def setUp(self) -> None:
        self.open(host="0.0.0.0", has_packet_info=True, multicast_only=True)

    def test_a_shared_port_refuses_unicast_destinations(self) -> None:
        """For `send`, `reply` and `connect`."""
        for ask in (
            lambda: self.port.send(b"a", PEER),
            lambda: self.port.reply(Run(b"a", 1, PEER, "224.3.0.5")),
            lambda: self.port.connect(*PEER),
        ):
            self.assertRaises(LocalProtocolError, ask)
        self.port.send(b"a", ("224.3.0.5", 9))
        self.assertEqual(self.udp.sent, [(b"a", ("224.3.0.5", 9))])

    def test_datagrams_to_other_destinations_are_dropped(self) -> None:
        """They are counted as from an unexpected source."""
        self.udp.arrive(b"a", destination=HOST, interface=1)
        self.udp.arrive(b"a", destination="224.3.0.5", interface=1)
        self.read()
        self.assertEqual((self.owner.runs, self.port.counters.unexpected_source), ([], 2))
