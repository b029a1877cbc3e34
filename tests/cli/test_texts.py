"""Messages come from the command line, or line by line from standard input."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable

from twisted.internet.defer import Deferred, ensureDeferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from twsock.cli.failure import CommandError
from twsock.cli.texts import GivenTexts, InputLines, Texts


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
        texts = GivenTexts((b"one", b"", b"two"))
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

    def test_an_input_that_cannot_be_read_is_told(self) -> None:
        """With the reason of the operating system."""
        texts = InputLines(lambda: fail(OSError(5, "Input/output error")), 100)
        self.assertEqual(self.fails(texts), "cannot read standard input: Input/output error")
