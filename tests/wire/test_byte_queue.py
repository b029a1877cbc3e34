"""A `ByteQueue` returns bytes in the order they were fed, in pieces of any size."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis.strategies import binary, integers, lists, one_of
from twisted.trial.unittest import SynchronousTestCase

from twsock.wire.byte_queue import ByteQueue, as_bytes

KIB = 1024

#: Sizes of small reads, which are joined, and of large ones, which are not.
READS = lists(one_of(binary(max_size=4), binary(min_size=1500, max_size=3000)), max_size=8)


def filled(*chunks: bytes) -> ByteQueue:
    queue = ByteQueue()
    for chunk in chunks:
        queue.feed(chunk)
    return queue


class TakeTests(SynchronousTestCase):
    """Taking bytes."""

    @given(READS, lists(integers(0, 4000)))
    def test_any_cut_gives_the_same_bytes(self, reads: list[bytes], counts: list[int]) -> None:
        """However the bytes are fed and taken, the stream is the same."""
        queue = filled(*reads)
        taken = b"".join(queue.take(min(count, queue.size)) for count in counts)
        self.assertEqual(queue.size, sum(map(len, reads)) - len(taken))
        self.assertEqual(taken + queue.take(queue.size), b"".join(reads))
        self.assertEqual(queue.size, 0)

    def test_a_whole_read_is_not_copied(self) -> None:
        """A take of exactly one fed object returns that object."""
        read = bytes(range(256)) * 100
        self.assertIs(filled(read).take(len(read)), read)

    def test_taken_bytes_have_type_bytes(self) -> None:
        """Also if small reads were joined."""
        queue = filled(b"a", b"b", b"c")
        self.assertIs(type(queue.take(2)), bytes)
        self.assertIs(type(queue.take(1)), bytes)

    def test_taken_bytes_do_not_change(self) -> None:
        """Bytes that are fed later are not written into them."""
        queue = filled(b"a", b"b")
        taken = queue.take(2)
        queue.feed(b"c")
        self.assertEqual((taken, queue.take(1)), (b"ab", b"c"))

    def test_taking_more_than_there_is_is_refused(self) -> None:
        """Nothing is taken then."""
        queue = filled(b"abc")
        self.assertRaises(ValueError, queue.take, 4)
        self.assertRaises(ValueError, queue.take, -1)
        self.assertEqual(queue.take(3), b"abc")
        self.assertRaises(ValueError, queue.take, 1)

    def test_zero_bytes_can_be_taken_from_an_empty_queue(self) -> None:
        """The result is empty."""
        self.assertEqual(ByteQueue().take(0), b"")
        self.assertEqual(filled(b"").size, 0)


class FindTests(SynchronousTestCase):
    """Finding a delimiter."""

    @given(READS, integers(0, 5000), binary(min_size=1, max_size=3))
    def test_a_delimiter_is_found_across_reads(
        self, reads: list[bytes], taken: int, delimiter: bytes
    ) -> None:
        """Its place is counted in the bytes that were not taken."""
        queue = filled(*reads)
        taken = min(taken, queue.size)
        queue.take(taken)
        rest = b"".join(reads)[taken:]
        self.assertEqual(queue.find(delimiter, 0), rest.find(delimiter))
        queue.feed(delimiter)
        self.assertEqual(queue.find(delimiter, 0), (rest + delimiter).find(delimiter))
        self.assertEqual(queue.take(queue.size), rest + delimiter)

    def test_a_search_begins_where_it_is_told_to(self) -> None:
        """Bytes before the start are not searched again."""
        self.assertEqual(filled(b"a.b.c").find(b".", 2), 3)


class MemoryTests(SynchronousTestCase):
    """Memory of a queue."""

    def test_single_bytes_take_little_more_than_their_bytes(self) -> None:
        """A hundred thousand reads of one byte are not as many objects."""
        queue = ByteQueue()
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for number in range(100_000):
            queue.feed(bytes([number % 256]))
        self.assertLess(tracemalloc.get_traced_memory()[0], 300 * KIB)

    def test_a_queue_that_is_never_empty_does_not_grow(self) -> None:
        """Taken bytes are freed, although some are always left."""
        queue = filled(b"x")
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for number in range(400_000):
            queue.feed(bytes([number % 256]))
            queue.take(1)
        self.assertLess(tracemalloc.get_traced_memory()[0], 200 * KIB)


class AsBytesTests(SynchronousTestCase):
    """`as_bytes` turns any buffer into bytes."""

    def test_bytes_are_returned_and_other_buffers_copied(self) -> None:
        """Immutable bytes need no copy."""
        fixed, loose = b"abc", bytearray(b"abc")
        self.assertIs(as_bytes(fixed), fixed)
        copy = as_bytes(loose)
        loose[0] = 0
        self.assertEqual(copy, b"abc")
        self.assertEqual(as_bytes(memoryview(b"abcd")[1:3]), b"bc")

    def test_a_number_is_refused(self) -> None:
        """``bytes(5)`` would be five zeros."""
        self.assertRaises(TypeError, as_bytes, 5)
        self.assertRaises(TypeError, as_bytes, "text")
