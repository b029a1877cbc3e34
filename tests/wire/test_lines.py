"""A `LineDecoder` turns bytes into lines; `encode_line` does the reverse."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

from hypothesis import given
from hypothesis.strategies import binary, booleans, integers, lists, sampled_from, tuples
from twisted.trial.unittest import SynchronousTestCase

from twsock.errors import LocalProtocolError, RemoteProtocolError
from twsock.wire import LineDecoder, LineTooLongError, decode_text, encode_line

KIB = 1024

#: A line without a LF, and without a CR at its end, which would be read as part of its line end.
LINES = binary(max_size=12).map(lambda line: line.replace(b"\n", b"").rstrip(b"\r"))
ENDED_LINES = lists(tuples(LINES, sampled_from([b"\n", b"\r\n"])))


def pieces(stream: bytes, size: int) -> Iterator[bytes]:
    """Cut a stream into pieces of one size."""
    for start in range(0, len(stream), size):
        yield stream[start : start + size]


def pull_all(decoder: LineDecoder) -> list[bytes]:
    """Return all whole lines."""
    lines = []
    while (line := decoder.next_line()) is not None:
        lines.append(line)
    return lines


class EncodingTests(SynchronousTestCase):
    """`encode_line` puts the line end behind a line."""

    def test_the_guides_greeting_has_fifteen_bytes(self) -> None:
        """The fifteen bytes are those of the echo page."""
        self.assertEqual(encode_line("Hello, World!"), b"Hello, World!\r\n")
        self.assertEqual(len(encode_line("Hello, World!")), 15)

    def test_text_is_sent_as_utf8_and_bytes_unchanged(self) -> None:
        """Bytes need not be text."""
        self.assertEqual(encode_line("é"), b"\xc3\xa9\r\n")
        self.assertEqual(encode_line(b"\xff"), b"\xff\r\n")

    def test_a_line_feed_in_a_line_is_refused(self) -> None:
        """One line can't be sent as two."""
        self.assertRaises(LocalProtocolError, encode_line, "a\nb")
        self.assertRaises(LocalProtocolError, encode_line, b"a\r\n")

    def test_text_without_a_utf8_form_is_refused(self) -> None:
        """A lone surrogate is no character."""
        self.assertRaises(LocalProtocolError, encode_line, "\ud800")

    def test_bytes_that_are_not_utf8_are_an_error_of_the_peer(self) -> None:
        """Decoding a line is strict: no byte is replaced."""
        self.assertEqual(decode_text("☺".encode()), "☺")
        for line in (b"\xff", b"\xc3", b"\xed\xa0\x80"):
            self.assertRaises(RemoteProtocolError, decode_text, line)


class DecodingTests(SynchronousTestCase):
    """A `LineDecoder` returns the lines of the bytes it was fed."""

    def test_crlf_and_bare_lf_end_a_line(self) -> None:
        """Neither is part of the line; an empty line is a line."""
        decoder = LineDecoder()
        decoder.feed(b"one\r\ntwo\n\r\n\nlast")
        self.assertEqual(pull_all(decoder), [b"one", b"two", b"", b""])
        self.assertEqual(decoder.buffered, 4)

    def test_a_cr_inside_a_line_stays(self) -> None:
        """Only one CR right before the LF is removed."""
        decoder = LineDecoder()
        decoder.feed(b"a\rb\r\r\n")
        self.assertEqual(decoder.next_line(), b"a\rb\r")

    def test_crlf_may_be_cut(self) -> None:
        """CR arrives in one read, LF in the next."""
        decoder = LineDecoder(max_payload=1)
        decoder.feed(b"a\r")
        self.assertIsNone(decoder.next_line())
        decoder.feed(b"\n")
        self.assertEqual(decoder.next_line(), b"a")

    @given(ENDED_LINES, integers(min_value=1, max_value=30))
    def test_any_split_gives_the_same_lines(
        self, ended: list[tuple[bytes, bytes]], step: int
    ) -> None:
        """However the stream is cut, the same lines come out in the same order."""
        decoder = LineDecoder(max_payload=12)
        lines = []
        for piece in pieces(b"".join(line + ending for line, ending in ended), step):
            decoder.feed(piece)
            lines += pull_all(decoder)
        self.assertEqual(lines, [line for line, _ in ended])
        self.assertEqual(decoder.delivered, len(ended))

    @given(ENDED_LINES, integers(1, 30), lists(integers(0, 3)))
    def test_runs_and_lines_can_be_pulled_in_turn(
        self, ended: list[tuple[bytes, bytes]], step: int, turns: list[int]
    ) -> None:
        """Pulled as lines, as runs or in turn, every line comes out once, ended by CRLF."""
        decoder = LineDecoder(max_payload=12)
        out = bytearray()
        stream = b"".join(line + ending for line, ending in ended)
        for number, piece in enumerate(pieces(stream, step)):
            decoder.feed(piece)
            for _ in range(turns[number % len(turns)] if turns else 0):
                if (line := decoder.next_line()) is not None:
                    out += line + b"\r\n"
            out += decoder.take_run()
        self.assertEqual(bytes(out), b"".join(line + b"\r\n" for line, _ in ended))
        self.assertEqual(decoder.delivered, len(ended))

    @given(lists(binary(max_size=20)))
    def test_any_garbage_gives_lines_or_the_documented_error(self, data: list[bytes]) -> None:
        """No other exception escapes, and every line is within the limit."""
        decoder = LineDecoder(max_payload=8)
        for piece in data:
            decoder.feed(piece)
            try:
                self.assertTrue(all(len(line) <= 8 for line in pull_all(decoder)), f"{piece=}")
            except LineTooLongError:
                return
            self.assertLessEqual(decoder.buffered, 9, f"{piece=}")

    @given(binary(max_size=30), integers(0, 3))
    def test_the_rest_is_all_that_was_not_pulled(self, data: bytes, pulled: int) -> None:
        """`take_buffered` returns each byte behind the last line, and empties the decoder."""
        decoder = LineDecoder()
        stream = b"ab\r\n" * 3 + data
        decoder.feed(stream)
        for _ in range(pulled):
            decoder.next_line()
        self.assertEqual(decoder.take_buffered(), stream[pulled * 4 :])
        decoder.feed(b"new\n")
        self.assertEqual(decoder.next_line(), b"new")


class LimitTests(SynchronousTestCase):
    """A line above the limit is refused before its end."""

    def test_a_line_of_exactly_the_limit_passes(self) -> None:
        """With either line end, which does not count, alone and in a run."""
        for stream in (b"1234\r\n", b"1234\n"):
            for step in (1, 5, 6):
                one, run = LineDecoder(max_payload=4), LineDecoder(max_payload=4)
                line, out = None, b""
                for piece in pieces(stream, step):
                    one.feed(piece)
                    run.feed(piece)
                    line = line or one.next_line()
                    out += run.take_run()
                self.assertEqual((line, out), (b"1234", b"1234\r\n"), f"{step=}")

    def test_one_byte_above_the_limit_is_refused_at_once(self) -> None:
        """The line end need not have arrived."""
        for pull in (LineDecoder.next_line, LineDecoder.take_run):
            decoder = LineDecoder(max_payload=4)
            decoder.feed(b"1234")
            self.assertFalse(pull(decoder), f"{pull=}")
            decoder.feed(b"5")
            error = self.assertRaises(LineTooLongError, pull, decoder)
            self.assertEqual((error.received, error.limit), (5, 4), f"{pull=}")

    def test_a_whole_line_above_the_limit_is_refused(self) -> None:
        """Its line end came in the same read."""
        for pull in (LineDecoder.next_line, LineDecoder.take_run):
            decoder = LineDecoder(max_payload=4)
            decoder.feed(b"12345\r\n")
            self.assertRaises(LineTooLongError, pull, decoder)
            self.assertRaises(LineTooLongError, pull, decoder)

    def test_a_run_ends_before_a_line_above_the_limit(self) -> None:
        """The lines before it come out, then the error follows."""
        decoder = LineDecoder(max_payload=4)
        decoder.feed(b"1\n2\r\n12345\n3\n")
        self.assertEqual(decoder.take_run(), b"1\r\n2\r\n")
        self.assertRaises(LineTooLongError, decoder.take_run)

    def test_negative_limits_are_refused(self) -> None:
        """Zero is allowed, for empty lines only."""
        self.assertRaises(ValueError, LineDecoder, -1)
        decoder = LineDecoder(max_payload=0)
        decoder.feed(b"\r\n")
        self.assertEqual(decoder.next_line(), b"")


class MemoryTests(SynchronousTestCase):
    """Memory and work grow with the number of bytes, not with the cuts."""

    def test_the_peak_of_memory_is_within_two_and_a_half_limits(self) -> None:
        """For one line of the limit's size, in large and tiny pieces."""
        size = 512 * KIB
        stream = bytes(size) + b"\r\n"
        for step in (16 * KIB, 3):
            decoder = LineDecoder(max_payload=size)
            tracemalloc.start()
            try:
                line = None
                for piece in pieces(stream, step):
                    decoder.feed(piece)
                    line = decoder.next_line()
                    self.assertLessEqual(decoder.buffered, size + step, f"{step=}")
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            assert line is not None
            self.assertEqual(len(line), size, f"{step=}")
            self.assertLess(peak, 2.5 * size, f"{step=}")

    def test_a_partial_line_does_not_keep_the_read_before_it(self) -> None:
        """A hundred connections with partial lines do not hold a hundred reads."""
        read = bytes(32 * KIB) + b"\r\nbe"
        decoders = [LineDecoder() for _ in range(100)]
        for pull in (LineDecoder.next_line, LineDecoder.take_run):
            tracemalloc.start()
            try:
                for decoder in decoders:
                    decoder.feed(bytes(bytearray(read)))  # A read of its own for each.
                    while pull(decoder):
                        pass
                held = tracemalloc.get_traced_memory()[0]
            finally:
                tracemalloc.stop()
            self.assertLess(held, 100 * KIB, f"{pull=}")
            self.assertEqual(
                [decoder.take_buffered() for decoder in decoders], [b"be"] * 100, f"{pull=}"
            )

    def test_no_byte_is_searched_twice(self) -> None:
        """The search for the line end continues where the last one stopped."""
        decoder = LineDecoder(max_payload=1000)
        for number in range(1, 100):
            decoder.feed(b"x" * 10)
            self.assertIsNone(decoder.next_line(), f"{number=}")
            self.assertEqual(decoder._searched, number * 10, f"{number=}")


class StopTests(SynchronousTestCase):
    """Runs and loops stop before one given message, and before bytes that begin none."""

    def make(self, stream: bytes) -> LineDecoder:
        decoder = LineDecoder(max_payload=1000)
        decoder.stop_before(b"STOP", b"\x16\x03")
        decoder.feed(stream)
        return decoder

    def test_the_message_is_left_and_then_pulled_alone(self) -> None:
        """In a loop as in runs, with either line end."""
        for ending in (b"\n", b"\r\n"):
            stream = b"one\r\nSTOP" + ending + b"two\r\n"
            decoder = self.make(stream)
            self.assertEqual(list(decoder.lines()), [b"one"], f"{ending=}")
            self.assertTrue(decoder.stops_here(), f"{ending=}")
            self.assertEqual(list(decoder.lines()), [], f"{ending=}")
            self.assertEqual(decoder.next_line(), b"STOP", f"{ending=}")
            self.assertEqual(decoder.take_run(), b"two\r\n", f"{ending=}")
            decoder.feed(stream)
            self.assertEqual(decoder.take_run(), b"one\r\n", f"{ending=}")
            self.assertEqual(decoder.take_run(), b"", f"{ending=}")
            self.assertEqual(decoder.next_line(), b"STOP", f"{ending=}")
            self.assertEqual(decoder.take_buffered(), b"two\r\n", f"{ending=}")

    def test_only_a_whole_message_stops_a_run(self) -> None:
        """The same bytes inside a message, before one, or in part of one do not."""
        alike = b".STOP\r\nSTOP.\r\nSTO\r\nstop\r\nSTOP\r.\r\n"
        for takes_runs in (False, True):
            decoder = self.make(alike + b"STOP\r")
            if takes_runs:
                self.assertEqual(decoder.take_run(), alike, f"{takes_runs=}")
            else:
                self.assertEqual(
                    b"".join(line + b"\r\n" for line in decoder.lines()), alike, f"{takes_runs=}"
                )
            self.assertFalse(decoder.stops_here(), f"{takes_runs=}")
            decoder.feed(b"\n")
            self.assertTrue(decoder.stops_here(), f"{takes_runs=}")

    def test_bytes_that_begin_no_message_are_left(self) -> None:
        """Also if there are line feeds in them."""
        decoder = self.make(b"one\ntwo\r\n\x16\x03\x01\nSTOP\n")
        self.assertEqual(decoder.take_run(), b"one\r\ntwo\r\n")
        self.assertEqual(decoder.take_run(), b"")
        self.assertEqual(list(decoder.lines()), [])
        self.assertTrue(decoder.stops_here())

    @given(
        lists(sampled_from([b"STOP\n", b"STOP\r\n", b"a\r\n", b"\n", b"b" * 30 + b"\n"])),
        integers(1, 40),
        booleans(),
    )
    def test_with_a_stop_nothing_is_lost_at_any_cut(
        self, ended: list[bytes], step: int, takes_runs: bool
    ) -> None:
        """All messages come out in order, and the one to stop before is always alone."""
        decoder = self.make(b"")
        got: list[bytes] = []
        for piece in pieces(b"".join(ended), step):
            decoder.feed(piece)
            while True:
                found = decoder.take_run().split(b"\r\n")[:-1] if takes_runs else [*decoder.lines()]
                self.assertNotIn(b"STOP", found, f"{piece=}: {found}")
                got += found
                if not decoder.stops_here():
                    break
                got.append(decoder.next_line() or b"")
        self.assertEqual(got, [line.rstrip(b"\r\n") for line in ended])
