"""Received runs stay in one piece; further reads are tried when datagrams are likely to wait."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis.strategies import integers, lists
from twisted.trial.unittest import SynchronousTestCase

from tests.datagram.fake_udp import OTHER, PEER, FakeUdp
from twsock.datagram.network.membership import Memberships
from twsock.datagram.runs import MAX_READS, DatagramCounters, ReadBudget, Run, RunReceiver
from twsock.datagram.udp_socket import DatagramOptions

SOURCE = ("192.0.2.1", 7001)
LINK_LOCAL = ("fe80::1", 7001, 0, 3)


class RunTests(SynchronousTestCase):
    """Runs of received datagrams."""

    def test_all_counters_start_at_zero(self) -> None:
        """Each counter of a new port is 0."""
        counters = DatagramCounters()
        self.assertEqual({getattr(counters, name) for name in counters.__slots__}, {0})

    def test_the_length_is_the_number_of_datagrams(self) -> None:
        """The last datagram may be shorter."""
        self.assertEqual(len(Run(b"aabbc", 2, SOURCE)), 3)
        self.assertEqual(len(Run(b"aabb", 2, SOURCE)), 2)
        self.assertEqual(Run(b"aabbc", 2, SOURCE).datagrams(), [b"aa", b"bb", b"c"])

    def test_an_empty_datagram_is_a_run_of_one(self) -> None:
        """The run is true, and splits into one empty datagram."""
        run = Run(b"", 0, SOURCE)
        self.assertTrue(run)
        self.assertEqual((len(run), run.datagrams()), (1, [b""]))

    def test_defaults_mean_unknown(self) -> None:
        """No destination, no interface, not truncated."""
        run = Run(b"a", 1, SOURCE)
        self.assertEqual((run.destination, run.interface, run.local), ("", 0, ""))
        self.assertFalse(run.is_truncated)

    def test_a_part_has_the_same_addresses(self) -> None:
        """Its bytes and its truncation differ."""
        run = Run(b"aabb", 2, LINK_LOCAL, "fe80::2", 3, local="fe80::2")
        part = run.part(b"aa", 2, is_truncated=True)
        self.assertEqual((part.datagrams(), part.is_truncated), ([b"aa"], True))
        self.assertEqual(part.source, LINK_LOCAL)
        self.assertEqual((part.destination, part.interface, part.local), ("fe80::2", 3, "fe80::2"))

    def test_a_scope_id_is_kept(self) -> None:
        """An answer needs the whole IPv6 address."""
        self.assertEqual(Run(b"a", 1, LINK_LOCAL).source, LINK_LOCAL)

    def test_the_repr_has_no_payload(self) -> None:
        """It has the number, the size and the source."""
        shown = repr(Run(b"secret", 2, LINK_LOCAL))
        self.assertEqual(shown, "<3 datagrams of 2 bytes from fe80::1 port 7001>")


def wake_up(budget: ReadBudget, waiting: int) -> tuple[int, bool]:
    """
    Read as a port does; return the number of reads that found a datagram, and whether one did not.
    """
    found = min(waiting, budget.allowed)
    has_met_end = found < budget.allowed
    budget.wake_ups -= 1
    if has_met_end or budget.wake_ups <= 0:
        budget.note(found, has_met_end=has_met_end)
    return found, has_met_end


class ReadBudgetTests(SynchronousTestCase):
    """The number of reads of a wake-up."""

    def setUp(self) -> None:
        self.budget = ReadBudget()

    def test_the_first_wake_up_has_one_read(self) -> None:
        """The first wake-up has no earlier result to follow."""
        self.assertEqual(self.budget.allowed, 1)

    def test_one_datagram_in_flight_needs_one_read(self) -> None:
        """Over time, exactly one wake-up of 64 has a read that finds nothing."""
        for _ in range(20_000):
            wake_up(self.budget, 1)
        vain = sum(has_met_end for _, has_met_end in (wake_up(self.budget, 1) for _ in range(6400)))
        self.assertLessEqual(vain, 100)
        self.assertGreater(vain, 90)

    def test_tries_become_rarer(self) -> None:
        """The intervals between tries of a second read double up to the maximum."""
        vain = sum(has_met_end for _, has_met_end in (wake_up(self.budget, 1) for _ in range(128)))
        self.assertLessEqual(vain, 8)

    def test_waiting_datagrams_raise_the_number_of_reads(self) -> None:
        """The number reaches the maximum after a few wake-ups, and stays there."""
        allowed = []
        for _ in range(10):
            wake_up(self.budget, 1000)
            allowed.append(self.budget.allowed)
        self.assertEqual(allowed, sorted(allowed))
        self.assertEqual(allowed[-1], MAX_READS)

    def test_a_load_after_silence_is_found(self) -> None:
        """More reads begin within the longest interval between two tries."""
        for _ in range(1000):
            wake_up(self.budget, 1)
        for _ in range(64 + 6):
            wake_up(self.budget, 1000)
        self.assertEqual(self.budget.allowed, MAX_READS)

    def test_the_end_of_a_load_resets_to_one_read(self) -> None:
        """The first wake-up with a single datagram resets the number."""
        for _ in range(10):
            wake_up(self.budget, 1000)
        wake_up(self.budget, 1)
        self.assertEqual(self.budget.allowed, 1)

    def test_a_wake_up_without_datagrams_resets_to_one_read(self) -> None:
        """Other code may have read the datagrams."""
        for _ in range(10):
            wake_up(self.budget, 1000)
        wake_up(self.budget, 0)
        self.assertEqual(self.budget.allowed, 1)

    @given(lists(integers(min_value=0, max_value=100)))
    def test_the_number_of_reads_stays_within_its_bounds(self, loads: list[int]) -> None:
        """A wake-up has at least one read, and at most `MAX_READS`."""
        budget = ReadBudget()
        for waiting in loads:
            wake_up(budget, waiting)
            self.assertTrue(1 <= budget.allowed <= MAX_READS, waiting)


class Owner:
    """A protocol that records its runs; it calls a function with each."""

    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.when_received: Callable[[Run], object] = lambda run: None

    def run_received(self, run: Run) -> None:
        self.runs.append(run)
        self.when_received(run)


class ReceiverTests(SynchronousTestCase):
    """A receiver delivers the runs of a socket; `tests.datagram.test_port` has further tests."""

    def setUp(self) -> None:
        self.udp = FakeUdp()
        self.owner = Owner()
        self.counters = DatagramCounters()
        udp: Any = self.udp
        self.receiver = RunReceiver(
            udp, self.owner, DatagramOptions(), Memberships(udp), self.counters
        )
        self.receiver.is_reading = True

    def test_the_run_of_the_current_event_is_known(self) -> None:
        """The receiver has a run while the owner handles it, and then none."""
        during: list[Run | None] = []
        self.owner.when_received = lambda run: during.append(self.receiver.run)
        self.udp.arrive(b"aabb", segment_size=2)
        self.receiver.read()
        self.assertEqual(during, self.owner.runs)
        self.assertIsNone(self.receiver.run)
        self.assertEqual(self.counters.received, 2)

    def test_only_the_peer_of_a_connected_socket_is_heard(self) -> None:
        """Datagrams of others, received before the connect, are counted."""
        self.receiver.peer = PEER
        for source in (OTHER, PEER):
            self.udp.arrive(b"a", source)
            self.receiver.read()
        self.assertEqual([run.source for run in self.owner.runs], [PEER])
        self.assertEqual((self.counters.received, self.counters.unexpected_source), (1, 1))

    def test_an_error_of_the_socket_is_raised(self) -> None:
        """The runs behind the error are received at the next wake-up."""
        self.udp.pending = [errno.ECONNREFUSED]
        self.udp.arrive(b"a")
        self.assertRaises(ConnectionRefusedError, self.receiver.read)
        self.receiver.read()
        self.assertEqual([run.data for run in self.owner.runs], [b"a"])

    def test_a_closed_receiver_reads_nothing(self) -> None:
        """A close within an event ends the wake-up."""
        for _ in range(9):
            self.udp.arrive(b"a")
        self.owner.when_received = lambda run: self.receiver.close()
        for _ in range(9):
            self.receiver.read()
        self.assertEqual((len(self.owner.runs), self.udp.reads), (1, 1))
