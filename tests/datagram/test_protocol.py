"""A `DatagramProtocol` receives datagrams or runs on any UDP port."""

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
    """A protocol that records runs."""

    def __init__(self) -> None:
        self.runs: list[Run] = []

    def run_received(self, run: Run) -> None:
        self.runs.append(run)


class EventRecorder(Recorder):
    """A recorder that also records events which are logged by default."""

    def __init__(self) -> None:
        super().__init__()
        self.truncated: list[tuple[bytes, Any]] = []
        self.refusals: list[SocketError] = []

    def truncated_received(self, data: bytes, source: Any) -> None:
        self.truncated.append((data, source))

    def refused(self, error: SocketError) -> None:
        self.refusals.append(error)


class FailingOnce(Recorder):
    """A protocol that raises an exception for one datagram."""

    def datagram_received(self, data: bytes, source: Any) -> None:
        if data == b"?":
            raise RuntimeError("what is that?")
        super().datagram_received(data, source)


class StoppingEarly(Recorder):
    """A protocol that closes its port at the first datagram."""

    def datagram_received(self, data: bytes, source: Any) -> None:
        super().datagram_received(data, source)
        if self.transport is not None:
            self.doStop()


class ReceivingTests(SynchronousTestCase):
    """Received datagrams."""

    def setUp(self) -> None:
        self.protocol = Recorder()
        self.protocol.makeConnection(RunPort())

    def received(self) -> list[bytes]:
        return [data for data, _ in self.protocol.received]

    def test_each_datagram_of_a_run_is_an_event(self) -> None:
        """In order; all have the source of the run, and the last may be shorter."""
        self.protocol.run_received(Run(b"aabbc", 2, SOURCE))
        expected = [(data, SOURCE) for data in (b"aa", b"bb", b"c")]
        self.assertEqual(self.protocol.received, expected)

    def test_a_source_keeps_its_scope_id(self) -> None:
        """An answer to a link-local peer needs it."""
        source = ("fe80::1", 4000, 0, 7)
        self.protocol.run_received(Run(b"x", 1, source))
        self.assertEqual(self.protocol.received, [(b"x", source)])

    @given(integers(1, 20), lists(binary(min_size=20, max_size=20), min_size=1, max_size=8))
    def test_a_run_is_split_into_the_original_datagrams(
        self, last: int, whole: list[bytes]
    ) -> None:
        """Datagrams of one size; the last may be shorter."""
        protocol = Recorder()
        datagrams = [*whole[:-1], whole[-1][:last]]
        protocol.run_received(Run(b"".join(datagrams), len(datagrams[0]), SOURCE))
        self.assertEqual([data for data, _ in protocol.received], datagrams)

    def test_an_empty_datagram_is_delivered(self) -> None:
        """From a port of twsock, and from one of Twisted."""
        self.protocol.run_received(Run(b"", 0, SOURCE))
        self.protocol.datagramReceived(b"", SOURCE)
        self.assertEqual(self.protocol.received, [(b"", SOURCE)] * 2)

    def test_an_override_of_run_received_gets_whole_runs(self) -> None:
        """One call for each run."""
        protocol, run = RunRecorder(), Run(b"aabbc", 2, SOURCE)
        protocol.run_received(run)
        self.assertEqual(protocol.runs, [run])

    def test_a_datagram_of_twisteds_port_is_a_run_of_one(self) -> None:
        """So a protocol that handles runs works on Twisted's ports."""
        protocol = RunRecorder()
        protocol.makeConnection(PlainPort())
        protocol.datagramReceived(b"abc", SOURCE)
        (run,) = protocol.runs
        self.assertEqual((run.datagrams(), run.source, run.is_truncated), ([b"abc"], SOURCE, False))

    def test_an_exception_for_one_datagram_does_not_affect_the_others(self) -> None:
        """The exception is logged."""
        protocol = FailingOnce()
        protocol.makeConnection(RunPort())
        protocol.run_received(Run(b"a?b", 1, SOURCE))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(protocol.received, [(b"a", SOURCE), (b"b", SOURCE)])

    def test_a_truncated_datagram_has_its_own_event(self) -> None:
        """The next datagram is delivered as usual."""
        protocol = EventRecorder()
        protocol.run_received(Run(b"begin", 5, SOURCE, is_truncated=True))
        protocol.run_received(Run(b"whole", 5, SOURCE))
        self.assertEqual(protocol.truncated, [(b"begin", SOURCE)])
        self.assertEqual(protocol.received, [(b"whole", SOURCE)])

    def test_a_truncated_datagram_is_logged_without_its_bytes(self) -> None:
        """The line contains its source and the number of bytes."""
        with log_lines() as lines:
            self.protocol.run_received(Run(b"secret", 6, SOURCE, is_truncated=True))
        (line,) = lines
        self.assertIn("192.0.2.1 port 4000: it has more than 6 bytes", line)
        self.assertNotIn("secret", line)
        self.assertEqual(self.received(), [])


class EventsTests(SynchronousTestCase):
    """Other events of a port."""

    def setUp(self) -> None:
        self.protocol = Recorder()
        self.port = PlainPort()

    def test_it_starts_and_stops_with_its_port(self) -> None:
        """It has a transport in between."""
        self.assertIsNone(self.protocol.transport)
        self.protocol.makeConnection(self.port)
        self.assertIs(self.protocol.transport, self.port)
        self.protocol.doStop()
        self.assertIsNone(self.protocol.transport)
        self.assertEqual(self.protocol.events, ["started", "stopped"])

    def test_nothing_is_received_after_the_port_was_closed(self) -> None:
        """Not even the rest of the run that is being delivered."""
        protocol = StoppingEarly()
        protocol.makeConnection(RunPort())
        protocol.run_received(Run(b"abc", 1, SOURCE))
        self.assertEqual(protocol.received, [(b"a", SOURCE)])

    def test_the_start_is_not_logged_by_the_protocol(self) -> None:
        """The port logs its address."""
        with log_lines() as lines:
            self.protocol.makeConnection(self.port)
        self.assertEqual(lines, [])

    def test_an_icmp_error_on_a_port_of_twisted_has_a_status(self) -> None:
        """The status is the same as on a port of twsock."""
        protocol = EventRecorder()
        protocol.connectionRefused()
        (error,) = protocol.refusals
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_RESET_BY_PEER)

    def test_an_icmp_error_is_ignored_by_default(self) -> None:
        """A protocol need not override ``refused`` and ``output_drained``."""
        with log_lines() as lines:
            self.protocol.connectionRefused()
            self.protocol.output_drained()
        self.assertEqual((lines, self.protocol.events), ([], []))

    def test_a_failed_send_is_logged(self) -> None:
        """With its reason."""
        with log_lines() as lines:
            self.protocol.send_failed(SocketError("no way leads there"), SOURCE, 1)
        self.assertEqual(lines, ["no way leads there"])

    def test_warnings_that_a_peer_can_cause_are_logged_once_a_minute(self) -> None:
        """For any number of truncated datagrams."""
        with log_lines() as lines:
            for _ in range(1000):
                self.protocol.run_received(Run(b"begin", 5, SOURCE, is_truncated=True))
        self.assertEqual(len(lines), 1)

    def test_a_lost_or_restored_membership_is_logged(self) -> None:
        """Each line contains the group."""
        membership = Membership("224.3.0.5", Interface("lo", 1))
        with log_lines() as lines:
            for error in (SocketError("lo is gone"), None):
                self.protocol.membership_changed(MembershipChange(membership, error))
        self.assertEqual(len(lines), 2)
        self.assertIn("lo is gone", lines[0])
        self.assertIn("joined group 224.3.0.5 on lo again", lines[1])


class SendingTests(SynchronousTestCase):
    """Sent datagrams."""

    def test_a_datagram_goes_to_the_port(self) -> None:
        """With an address, or to the connected peer."""
        protocol, port = Recorder(), PlainPort()
        protocol.makeConnection(port)
        protocol.send(b"one", SOURCE)
        protocol.send(b"two")
        self.assertEqual(port.written, [(b"one", SOURCE), (b"two", None)])

    def test_a_send_without_a_port_raises_an_error(self) -> None:
        """Before the start and after the stop."""
        protocol = Recorder()
        self.assertRaises(LocalProtocolError, protocol.send, b"x", SOURCE)
        protocol.makeConnection(PlainPort())
        protocol.doStop()
        self.assertRaises(LocalProtocolError, protocol.send, b"x", SOURCE)


class InterfaceTests(SynchronousTestCase):
    """Interfaces that are looked up at run time."""

    def test_a_protocol_provides_the_owner_interface(self) -> None:
        """So a port reports every event to it."""
        verifyObject(IDatagramOwner, DatagramProtocol())

    def test_the_fake_ports_provide_their_interfaces(self) -> None:
        """The other tests depend on it."""
        for port in (PlainPort(), RunPort()):
            verifyObject(IUDPTransport, port)
        verifyObject(IRunTransport, RunPort())
        self.assertFalse(IRunTransport.providedBy(PlainPort()))
