"""Messages of a size, with numbers or without."""

from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import integers
from twisted.internet.defer import ensureDeferred
from twisted.trial.unittest import SynchronousTestCase

from twsock.cli.made_texts import MadeTexts, describe_made, describe_numbered, make_numbered


class MadeTextsTests(SynchronousTestCase):
    """Pulled one by one, as those from the command line."""

    def read_all(self, texts: MadeTexts) -> list[bytes]:
        result = []
        while (text := self.successResultOf(ensureDeferred(texts.next_text()))) is not None:
            result.append(text)
        return result

    def test_numbered_ones_count(self) -> None:
        """From 0, each with the size asked for, and how many they are is known."""
        texts = MadeTexts(11, 2, is_numbered=True)
        self.assertEqual(texts.total, 2)
        self.assertEqual(self.read_all(texts), [b"\0\0\0\0\0\0\0\0abc", b"\0\0\0\0\0\0\0\x01abc"])

    def test_those_of_a_stream_are_text(self) -> None:
        """All the same, without a line end."""
        self.assertEqual(self.read_all(MadeTexts(3, 2, is_numbered=False)), [b"abc", b"abc"])
        self.assertEqual(
            self.read_all(MadeTexts(28, 1, is_numbered=False)), [b"abcdefghijklmnopqrstuvwxyzab"]
        )


class NumberedTests(SynchronousTestCase):
    """A counter and filler."""

    def test_a_small_one_has_the_low_bytes(self) -> None:
        """As far as there is room."""
        self.assertEqual(make_numbered(0x0102030405060708, 8), b"\1\2\3\4\5\6\7\x08")
        self.assertEqual(make_numbered(0x0102030405060708, 2), b"\7\x08")
        self.assertEqual(make_numbered(1, 0), b"")

    @given(integers(0, 2**64 - 1), integers(0, 65_507))
    def test_every_one_has_its_size(self, number: int, size: int) -> None:
        """Whatever its number."""
        self.assertEqual(len(make_numbered(number, size)), size)

    def test_they_are_described_in_a_few_words(self) -> None:
        """People count from 1, and nobody reads the filler."""
        self.assertEqual(describe_numbered(make_numbered(0, 1400)), "number 1, 1400 bytes")
        self.assertEqual(describe_numbered(make_numbered(9, 8)), "number 10, 8 bytes")
        self.assertEqual(describe_numbered(make_numbered(9, 7)), "7 bytes")
        self.assertEqual(describe_made(b"\0" * 9), "9 bytes")
