"""Runs: they are split into datagrams, counted, and joined for one call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis.strategies import binary, composite, integers, lists, sampled_from
from twisted.trial.unittest import SynchronousTestCase

from twsock.wire.datagrams import (
    MAX_IPV4_DATAGRAM,
    MAX_IPV6_DATAGRAM,
    MAX_SEGMENTS,
    count_datagrams,
    count_fitting,
    split_run,
)

A, B = ("192.0.2.1", 1), ("192.0.2.2", 1)
CONTROL = (0, 8, b"from there")


@dataclass
class Item:
    """A datagram or run that waits to be sent."""

    data: bytes
    segment_size: int
    address: tuple[Any, ...] | None = A
    control: tuple[int, int, bytes] | None = None


def single(size: int, address: tuple[Any, ...] | None = A) -> Item:
    return Item(bytes(size), size, address)


def fitting(*items: Item, start: int = 0, max_size: int = MAX_IPV4_DATAGRAM) -> int:
    return count_fitting(items, start, max_size)


@composite
def items(draw: Any) -> Item:
    """Make a datagram or a run, of sizes that are often equal."""
    size = draw(sampled_from([0, 1, 2, 3, 6, 50, 100, 1400]))
    count = draw(sampled_from([1, 1, 1, 2, 3, 63, 64]))
    last = draw(integers(min_value=1, max_value=size)) if size else 0
    total = min((count - 1) * size + last, 65_507)
    return Item(
        bytes(total), min(size, total), draw(sampled_from([A, A, A, B, None])), draw(controls)
    )


controls = sampled_from([None, None, None, CONTROL])


def is_one_run(batch: list[Item], max_size: int) -> bool:
    """Return whether one call can carry the items, by the rules of udp(7)."""
    sizes = [len(data) for item in batch for data in split_run(item.data, item.segment_size)]
    peers = {(item.address, item.control) for item in batch}
    return (
        len(peers) == 1
        and len(sizes) <= MAX_SEGMENTS
        and sum(sizes) <= max_size
        and set(sizes[:-1]) <= {sizes[0]}
        and 0 < sizes[-1] <= sizes[0]
    )


class SplitTests(SynchronousTestCase):
    """A run is split into its datagrams."""

    def test_the_last_datagram_may_be_shorter(self) -> None:
        """All others have the size of the run."""
        self.assertEqual(split_run(b"aabbc", 2), [b"aa", b"bb", b"c"])
        self.assertEqual(split_run(b"aabb", 2), [b"aa", b"bb"])

    def test_a_single_datagram_is_not_split(self) -> None:
        """It is as long as the run's size, or shorter, or empty."""
        self.assertEqual(split_run(b"aa", 2), [b"aa"])
        self.assertEqual(split_run(b"a", 2), [b"a"])
        self.assertEqual(split_run(b"", 2), [b""])
        self.assertEqual(split_run(b"", 0), [b""])

    @given(binary(max_size=200), integers(min_value=1, max_value=50))
    def test_splitting_loses_nothing(self, data: bytes, size: int) -> None:
        """
        The joined datagrams are the run; each has the run's size but the last; their count is
        right.
        """
        pieces = split_run(data, size)
        self.assertEqual(b"".join(pieces), data)
        self.assertEqual({len(piece) for piece in pieces[:-1]} - {size}, set())
        self.assertLessEqual(len(pieces[-1]), size)
        self.assertEqual(len(pieces), count_datagrams(len(data), size))


class CountDatagramsTests(SynchronousTestCase):
    """The datagrams of a run are counted without splitting it."""

    def test_a_shorter_last_datagram_counts(self) -> None:
        """An empty run is one empty datagram."""
        counts = [count_datagrams(size, 4) for size in (0, 1, 4, 5, 8, 9)]
        self.assertEqual(counts, [1, 1, 1, 2, 2, 3])
        self.assertEqual(count_datagrams(0, 0), 1)


class CountFittingTests(SynchronousTestCase):
    """As many waiting items as possible are sent in one call."""

    def test_the_limits_are_those_of_the_headers(self) -> None:
        """65,535 less 8 for UDP, and on IPv4 less 20 for IP."""
        self.assertEqual((MAX_IPV4_DATAGRAM, MAX_IPV6_DATAGRAM), (65_507, 65_527))

    def test_equal_datagrams_to_one_peer_are_sent_together(self) -> None:
        """They are counted from the given index."""
        self.assertEqual(fitting(single(5), single(5), single(5)), 3)
        self.assertEqual(fitting(single(9), single(5), single(5), start=1), 2)

    def test_a_shorter_datagram_is_the_last_of_a_call(self) -> None:
        """Also if an equally short one follows."""
        self.assertEqual(fitting(single(5), single(5), single(3), single(3)), 3)

    def test_a_longer_datagram_begins_another_call(self) -> None:
        """The first datagram says the size."""
        self.assertEqual(fitting(single(5), single(6)), 1)

    def test_an_empty_datagram_is_sent_alone(self) -> None:
        """In a run it would be lost."""
        self.assertEqual(fitting(single(0), single(0)), 1)
        self.assertEqual(fitting(single(5), single(0)), 1)

    def test_another_peer_or_source_begins_another_call(self) -> None:
        """Both belong to the call."""
        self.assertEqual(fitting(single(5), single(5, B)), 1)
        self.assertEqual(fitting(single(5), single(5, None)), 1)
        self.assertEqual(fitting(single(5), Item(bytes(5), 5, A, CONTROL)), 1)

    def test_a_call_has_at_most_64_datagrams(self) -> None:
        """A run counts as its datagrams."""
        self.assertEqual(fitting(*[single(5)] * 70), 64)
        self.assertEqual(fitting(Item(bytes(300), 5), *[single(5)] * 70), 5)
        self.assertEqual(fitting(single(5), Item(bytes(320), 5)), 1)

    def test_a_call_has_at_most_the_bytes_of_one_datagram(self) -> None:
        """The limit itself is allowed."""
        self.assertEqual(fitting(*[single(100)] * 3, max_size=200), 2)
        self.assertEqual(fitting(*[single(100)] * 3, max_size=199), 1)

    def test_runs_of_one_size_are_joined(self) -> None:
        """Up to the first whose last datagram is shorter."""
        whole, cut = Item(bytes(10), 5), Item(bytes(8), 5)
        self.assertEqual(fitting(whole, single(5), whole, cut, whole), 4)
        self.assertEqual(fitting(cut, single(5)), 1)

    def test_a_run_of_shorter_datagrams_begins_another_call(self) -> None:
        """Also if it is as long as one of the datagrams before it."""
        self.assertEqual(fitting(single(100), Item(bytes(40), 20)), 1)
        self.assertEqual(fitting(single(100), Item(bytes(100), 50)), 1)

    @given(lists(items(), min_size=1, max_size=70), sampled_from([65_507, 65_527]))
    def test_a_call_is_always_valid_and_as_long_as_possible(
        self, queue: list[Item], most: int
    ) -> None:
        """Any queue is divided into calls that the kernel accepts."""
        start = 0
        while start < len(queue):
            count = count_fitting(queue, start, most)
            batch = queue[start : start + count]
            self.assertTrue(count == 1 or is_one_run(batch, most), batch)
            longer = queue[start : start + count + 1]
            self.assertFalse(len(longer) > count and is_one_run(longer, most), longer)
            start += count
