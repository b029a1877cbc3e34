"""The sums of the numbers of workers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twsock.services.measurements import Kind, Measurement
from twsock.services.workers.totals import WorkerTotals


def numbers(count: int, opened: int = 0, protocol: str = "FrameEcho") -> list[Measurement]:
    """Return the report of a worker: a counter, a histogram's bucket and a gauge."""
    labels = {"protocol": protocol}
    return [
        Measurement("connections", "Accepted.", Kind.COUNTER, labels, count),
        Measurement("seconds", "Handshakes.", Kind.HISTOGRAM, labels, count, "_count"),
        Measurement("open", "Open.", Kind.GAUGE, labels, opened),
    ]


class TotalsTests(SynchronousTestCase):
    """The numbers of one slot."""

    def setUp(self) -> None:
        self.totals = WorkerTotals("1")

    def values(self) -> dict[str, float]:
        """Return the sums by name and suffix."""
        return {each.name + each.suffix: each.value for each in self.totals.measure()}

    def test_numbers_have_the_label_of_their_worker(self) -> None:
        """Besides their own labels; name, meaning and kind stay."""
        self.totals.update(100, numbers(3)[:1])
        labels = {"protocol": "FrameEcho", "worker": "1"}
        expected = Measurement("connections", "Accepted.", Kind.COUNTER, labels, 3)
        self.assertEqual(list(self.totals.measure()), [expected])

    def test_two_workers_of_a_slot_are_added(self) -> None:
        """While one is replaced, both have connections."""
        self.totals.update(100, numbers(3, opened=2))
        self.totals.update(200, numbers(4, opened=1))
        self.assertEqual(self.values(), {"connections": 7, "seconds_count": 7, "open": 3})

    def test_counters_of_an_ended_worker_stay(self) -> None:
        """Its gauges do not."""
        self.totals.update(100, numbers(3, opened=2))
        self.totals.end(100)
        self.assertEqual(self.values(), {"connections": 3, "seconds_count": 3})
        self.totals.update(200, numbers(4, opened=1))
        self.assertEqual(self.values(), {"connections": 7, "seconds_count": 7, "open": 1})

    def test_a_report_replaces_the_last_one(self) -> None:
        """It is not added to it."""
        self.totals.update(100, numbers(3))
        self.totals.update(100, numbers(5))
        self.assertEqual(self.values()["connections"], 5)

    def test_numbers_with_different_labels_stay_apart(self) -> None:
        """In any order of their labels."""
        self.totals.update(100, [*numbers(3), *numbers(4, protocol="LineEcho")])
        found = [each.value for each in self.totals.measure() if each.name == "connections"]
        self.assertEqual(found, [3, 4])

    def test_a_worker_without_a_report_ends_without_numbers(self) -> None:
        """It died at its start."""
        self.totals.end(100)
        self.assertEqual(self.values(), {})

    @given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9), st.booleans()), max_size=20))
    def test_a_counter_never_falls(self, steps: list[tuple[int, int, bool]]) -> None:
        """Whatever workers report, and whenever they end."""
        totals = WorkerTotals("1")
        counts: dict[int, int] = {}
        last = 0.0
        for process, more, ends in steps:
            counts[process] = counts.get(process, 0) + more
            totals.update(process, numbers(counts[process]))
            if ends:
                totals.end(process)
                del counts[process]
            now = next(each.value for each in totals.measure() if each.name == "connections")
            self.assertGreaterEqual(now, last)
            last = now
