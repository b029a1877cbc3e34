"""A `DatagramProtocol` is told of datagrams, or of runs, on any UDP port."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis.strategies import binary, integers, lists
from twisted.internet.interfaces import IUDPTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.datagram.fake_ports import PlainPort, Recorder, RunPort, log_lines
from twsock.datagram.network.interfaces import Interface
from twsock.datagram.network.membership import Membership, MembershipChange
from twsock.datagram.owner import IDatagramOwner, IRunTransport
from twsock.datagram.runs import Run
from twsock.errors import LocalProtocolError, SocketError, SocketErrorStatus
from twsock.protocols import DatagramProtocol

SOURCE = ("192.0.2.1", 4000)


class RunRecorder(DatagramProtocol):
    """Takes runs; says which."""

    def __init__(self) -> None:
        self.runs: list[Run] = []

    def run_received(self, run: Run) -> None:
        self.runs.append(run)


class EventRecorder(Recorder):
    """Keeps also what is logged by others."""

    def __init__(self) -> None:
        super().__init__()
        self.truncated: list[tuple[bytes, Any]] = []
        self.refusals: list[SocketError] = []

    def truncated_received(self, data: bytes, source: Any) -> None:
        self.truncated.append((data, source))

    def refused(self, error: SocketError) -> None:
        self.refusals.append(error)


class Stumbling(Recorder):
    """Cannot cope with one of the datagrams."""

    def datagram_received(self, data: bytes, source: Any) -> None:
        if data == b"?":
            raise RuntimeError("what is that?")
        super().datagram_received(data, source)


class StoppingEarly(Recorder):
    """Has its port closed with the first datagram."""

    def datagram_received(self, data: bytes, source: Any) -> None:
        super().datagram_received(data, source)
        if self.transport is not None:
            self.doStop()


class ReceivingTests(SynchronousTestCase):
    """What comes in."""

    def setUp(self) -> None:
        self.protocol = Recorder()
        self.protocol.makeConnection(RunPort())

    def received(self) -> list[bytes]:
        return [data for data, _ in self.protocol.received]

    def test_each_datagram_of_a_run_is_an_event(self) -> None:
        """In order, the last may be shorter, and all have the source of the run."""
        self.protocol.run_received(Run(b"aabbc", 2, SOURCE))
        expected = [(data, SOURCE) for data in (b"aa", b"bb", b"c")]
        self.assertEqual(self.protocol.received, expected)

    def test_a_source_is_handed_over_as_the_kernel_gave_it(self) -> None:
        """With the scope id, without which a link-local peer could not be answered."""
        source = ("fe80::1", 4000, 0, 7)
        self.protocol.run_received(Run(b"x", 1, source))
        self.assertEqual(self.protocol.received, [(b"x", source)])

    @given(integers(1, 20), lists(binary(min_size=20, max_size=20), min_size=1, max_size=8))
    def test_any_run_comes_apart_as_it_was_put_together(
        self, last: int, whole: list[bytes]
    ) -> None:
        """Datagrams of one size, of which the last is as long or shorter."""
        protocol = Recorder()
        datagrams = [*whole[:-1], whole[-1][:last]]
        protocol.run_received(Run(b"".join(datagrams), len(datagrams[0]), SOURCE))
        self.assertEqual([data for data, _ in protocol.received], datagrams)

    def test_an_empty_datagram_is_a_datagram(self) -> None:
        """From a port that takes runs, and from one of Twisted."""
        self.protocol.run_received(Run(b"", 0, SOURCE))
        self.protocol.datagramReceived(b"", SOURCE)
        self.assertEqual(self.protocol.received, [(b"", SOURCE)] * 2)

    def test_whoever_takes_runs_gets_one_call_for_each(self) -> None:
        """Uncut."""
        protocol, run = RunRecorder(), Run(b"aabbc", 2, SOURCE)
        protocol.run_received(run)
        self.assertEqual(protocol.runs, [run])

    def test_a_datagram_of_twisteds_port_is_a_run_of_one(self) -> None:
        """So a protocol of runs works there too."""
        protocol = RunRecorder()
        protocol.makeConnection(PlainPort())
        protocol.datagramReceived(b"abc", SOURCE)
        (run,) = protocol.runs
        self.assertEqual((run.datagrams(), run.source, run.is_truncated), ([b"abc"], SOURCE, False))

    def test_a_mistake_with_one_datagram_does_not_cost_the_others(self) -> None:
        """As if each had come by itself; the mistake is logged."""
        protocol = Stumbling()
        protocol.makeConnection(RunPort())
        protocol.run_received(Run(b"a?b", 1, SOURCE))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(protocol.received, [(b"a", SOURCE), (b"b", SOURCE)])

    def test_a_truncated_datagram_never_counts_as_one(self) -> None:
        """It has an event of its own; what comes next is not touched."""
        protocol = EventRecorder()
        protocol.run_received(Run(b"begin", 5, SOURCE, is_truncated=True))
        protocol.run_received(Run(b"whole", 5, SOURCE))
        self.assertEqual(protocol.truncated, [(b"begin", SOURCE)])
        self.assertEqual(protocol.received, [(b"whole", SOURCE)])

    def test_a_truncated_datagram_is_logged_without_its_bytes(self) -> None:
        """Who sent it, and how much was taken."""
        with log_lines() as lines:
            self.protocol.run_received(Run(b"secret", 6, SOURCE, is_truncated=True))
        (line,) = lines
        self.assertIn("192.0.2.1 port 4000 has more than 6 bytes", line)
        self.assertNotIn("secret", line)
        self.assertEqual(self.received(), [])


class EventsTests(SynchronousTestCase):
    """What else happens to a port."""

    def setUp(self) -> None:
        self.protocol = Recorder()
        self.port = PlainPort()

    def test_it_starts_and_stops_with_its_port(self) -> None:
        """Which it has in between."""
        self.assertIsNone(self.protocol.transport)
        self.protocol.makeConnection(self.port)
        self.assertIs(self.protocol.transport, self.port)
        self.protocol.doStop()
        self.assertIsNone(self.protocol.transport)
        self.assertEqual(self.protocol.events, ["started", "stopped"])

    def test_nothing_is_received_after_the_end(self) -> None:
        """Neither what is left of the run during which the port was closed."""
        protocol = StoppingEarly()
        protocol.makeConnection(RunPort())
        protocol.run_received(Run(b"abc", 1, SOURCE))
        self.assertEqual(protocol.received, [(b"a", SOURCE)])

    def test_its_start_is_not_logged(self) -> None:
        """Its port says where it listens; that is enough."""
        with log_lines() as lines:
            self.protocol.makeConnection(self.port)
        self.assertEqual(lines, [])

    def test_a_refusal_of_twisteds_port_has_a_status(self) -> None:
        """The same as that of our own."""
        protocol = EventRecorder()
        protocol.connectionRefused()
        (error,) = protocol.refusals
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_RESET_BY_PEER)

    def test_a_refusal_is_harmless_where_nobody_cares(self) -> None:
        """The event may be left alone."""
        self.protocol.connectionRefused()
        self.protocol.output_drained()

    def test_a_failed_send_is_logged(self) -> None:
        """With its reason."""
        with log_lines() as lines:
            self.protocol.send_failed(SocketError("no way leads there"), SOURCE, 1)
        self.assertEqual(lines, ["no way leads there"])

    def test_what_a_peer_can_cause_is_logged_once_a_minute(self) -> None:
        """However many datagrams it sends that are too long."""
        with log_lines() as lines:
            for _ in range(1000):
                self.protocol.run_received(Run(b"begin", 5, SOURCE, is_truncated=True))
        self.assertEqual(len(lines), 1)

    def test_a_group_that_is_lost_or_heard_again_is_logged(self) -> None:
        """Each with its group."""
        membership = Membership("224.3.0.5", Interface("lo", 1))
        with log_lines() as lines:
            for error in (SocketError("lo is gone"), None):
                self.protocol.membership_changed(MembershipChange(membership, error))
        self.assertEqual(len(lines), 2)
        self.assertIn("lo is gone", lines[0])
        self.assertIn("joined group 224.3.0.5 on lo again", lines[1])


class SendingTests(SynchronousTestCase):
    """What goes out."""

    def test_a_datagram_goes_to_the_port(self) -> None:
        """With an address, or to the connected peer."""
        protocol, port = Recorder(), PlainPort()
        protocol.makeConnection(port)
        protocol.send(b"one", SOURCE)
        protocol.send(b"two")
        self.assertEqual(port.written, [(b"one", SOURCE), (b"two", None)])

    def test_without_a_port_there_is_no_sending(self) -> None:
        """Neither before it started nor after it stopped."""
        protocol = Recorder()
        self.assertRaises(LocalProtocolError, protocol.send, b"x", SOURCE)
        protocol.makeConnection(PlainPort())
        protocol.doStop()
        self.assertRaises(LocalProtocolError, protocol.send, b"x", SOURCE)


class InterfaceTests(SynchronousTestCase):
    """What is looked up at run time is there."""

    def test_a_protocol_owns_datagrams(self) -> None:
        """So a port tells it everything."""
        verifyObject(IDatagramOwner, DatagramProtocol())

    def test_the_ports_of_these_tests_are_what_they_say(self) -> None:
        """Else the tests would prove little."""
        for port in (PlainPort(), RunPort()):
            verifyObject(IUDPTransport, port)
        verifyObject(IRunTransport, RunPort())
        self.assertFalse(IRunTransport.providedBy(PlainPort()))
