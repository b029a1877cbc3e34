"""Messages come from the command line, or line by line from standard input."""

from __future__ import annotations

import os
import sys
import tracemalloc
from collections.abc import Iterable

from hypothesis import given
from hypothesis.strategies import booleans, integers
from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.trial.unittest import SynchronousTestCase, TestCase

from twsock.cli.output import CommandError
from twsock.cli.texts import (
    InputLines,
    ListedTexts,
    Texts,
    describe_generated,
    generate_texts,
    read_input,
)


class TextsTests(SynchronousTestCase):
    """Pulled one by one."""

    def read_all(self, texts: Texts) -> list[bytes]:
        result = []
        while (text := self.successResultOf(ensureDeferred(texts.next_text()))) is not None:
            result.append(text)
        return result

    def lines(self, pieces: Iterable[bytes], limit: int = 100) -> InputLines:
        iterator = iter(pieces)
        return InputLines(lambda: succeed(next(iterator, b"")), limit)

    def fails(self, texts: Texts) -> str:
        return str(self.failureResultOf(ensureDeferred(texts.next_text()), CommandError).value.line)

    def test_arguments_come_in_their_order(self) -> None:
        """And how many they are is known."""
        texts = ListedTexts(3, (b"one", b"", b"two"))
        self.assertEqual(texts.total, 3)
        self.assertEqual(self.read_all(texts), [b"one", b"", b"two"])

    def test_lines_lose_their_endings(self) -> None:
        """CRLF or LF, in whatever pieces they come; the last one may lack it."""
        pieces = [b"one\r", b"\ntwo\n", b"\n", b"th", b"ree"]
        self.assertEqual(self.read_all(self.lines(pieces)), [b"one", b"two", b"", b"three"])

    def test_an_empty_input_has_no_messages(self) -> None:
        """Not an empty one."""
        self.assertEqual(self.read_all(self.lines([])), [])

    def test_a_line_is_there_before_the_input_ends(self) -> None:
        """Nothing more is read than the next line needs."""
        waiting: Deferred[bytes] = Deferred()
        reads = iter([succeed(b"one\ntw"), waiting])
        texts = InputLines(lambda: next(reads), 100)
        self.assertEqual(self.successResultOf(ensureDeferred(texts.next_text())), b"one")
        following = ensureDeferred(texts.next_text())
        self.assertNoResult(following)
        waiting.callback(b"o\n")
        self.assertEqual(self.successResultOf(following), b"two")

    def test_bytes_that_are_not_utf8_are_refused(self) -> None:
        """The line says which one, after those before it were given."""
        texts = self.lines([b"ok\nab\xff\n"])
        self.assertEqual(self.successResultOf(ensureDeferred(texts.next_text())), b"ok")
        self.assertEqual(
            self.fails(texts), "line 2 of standard input is not UTF-8: invalid start byte at byte 3"
        )

    def test_a_line_that_never_ends_is_refused_at_the_limit(self) -> None:
        """An endless input is not read into memory."""
        zeros = bytes(64 * 1024)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        texts = self.lines((zeros for _ in range(10_000)), limit=1_000_000)
        self.assertEqual(
            self.fails(texts),
            "line 1 of standard input is longer than --max-frame, 1000000 bytes",
        )
        self.assertLess(tracemalloc.get_traced_memory()[1], 4_000_000)


class InputTests(TestCase):
    """Standard input."""

    async def test_an_input_that_cannot_be_read_is_an_error(self) -> None:
        """The line has the reason of the operating system."""
        read_end, write_end = os.pipe()
        os.close(read_end)
        unreadable = os.fdopen(write_end, "w")
        self.addCleanup(unreadable.close)
        self.patch(sys, "stdin", unreadable)
        with self.assertRaises(CommandError) as caught:
            await read_input(reactor)()
        self.assertEqual(caught.exception.line, "cannot read standard input: Bad file descriptor")


class GeneratedTextsTests(SynchronousTestCase):
    """Messages of a size, with numbers or without."""

    def read_all(self, size: int, total: int, *, is_numbered: bool) -> list[bytes]:
        texts = list(generate_texts(size, total, is_numbered=is_numbered))
        self.assertEqual(len(texts), total)
        return texts

    def test_numbered_ones_count(self) -> None:
        """From 0, each with the size asked for."""
        self.assertEqual(
            self.read_all(11, 2, is_numbered=True),
            [b"\0\0\0\0\0\0\0\0abc", b"\0\0\0\0\0\0\0\x01abc"],
        )

    def test_those_of_a_stream_are_text(self) -> None:
        """All the same, without a line end."""
        self.assertEqual(self.read_all(3, 2, is_numbered=False), [b"abc", b"abc"])
        self.assertEqual(self.read_all(28, 1, is_numbered=False), [b"abcdefghijklmnopqrstuvwxyzab"])

    def test_a_small_one_has_the_low_bytes(self) -> None:
        """As far as there is room."""
        for size, last in ((8, b"\0\0\0\0\0\0\1\2"), (2, b"\1\2"), (1, b"\2"), (0, b"")):
            self.assertEqual(self.read_all(size, 259, is_numbered=True)[-1], last, f"{size=}")

    @given(integers(0, 65_507), booleans())
    def test_every_one_has_its_size(self, size: int, is_numbered: bool) -> None:
        """Numbered or not."""
        sizes = {len(text) for text in self.read_all(size, 3, is_numbered=is_numbered)}
        self.assertEqual(sizes, {size})

    def test_they_are_described_in_a_few_words(self) -> None:
        """People count from 1, and nobody reads the filler."""
        describe = describe_generated(True)
        first, tenth = b"\0" * 1400, b"\0\0\0\0\0\0\0\x09"
        self.assertEqual(describe(first), "number 1, 1400 bytes")
        self.assertEqual(describe(tenth), "number 10, 8 bytes")
        self.assertEqual(describe(tenth[1:]), "7 bytes")
        self.assertEqual(describe_generated(False)(b"\0" * 9), "9 bytes")
