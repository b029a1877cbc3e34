"""A `StoredBytes` holds the bytes that were fed and not pulled; its subclasses have more tests."""

from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import binary, lists
from twisted.trial.unittest import SynchronousTestCase

from twsock.wire.stored_bytes import StoppingBytes, StoredBytes


class StoredBytesTests(SynchronousTestCase):
    """Bytes go in at the end and out at the beginning."""

    @given(lists(binary(max_size=9), max_size=9))
    def test_what_is_fed_is_what_is_taken(self, data: list[bytes]) -> None:
        """The taken bytes do not depend on how they were cut."""
        stored = StoredBytes(0)
        for piece in data:
            stored.feed(piece)
        whole = b"".join(data)
        self.assertEqual(stored.buffered, len(whole))
        self.assertEqual((stored.peek(3), stored.take_buffered()), (whole[:3], whole))
        self.assertEqual((stored.buffered, stored.take_buffered()), (0, b""))

    def test_one_read_is_not_copied(self) -> None:
        """The stored bytes are the object of the receive."""
        data = bytes(9)
        stored = StoredBytes(0)
        stored.feed(data)
        self.assertIs(stored.stored, data)

    def test_cleared_bytes_are_gone(self) -> None:
        """What is fed afterwards is all there is."""
        stored = StoppingBytes(0)
        stored.feed(b"old")
        stored.clear()
        stored.feed(b"new")
        self.assertEqual(stored.take_buffered(), b"new")
