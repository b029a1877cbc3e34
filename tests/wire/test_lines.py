"""Bytes become lines, however they are cut, within bounds."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

from hypothesis import given
from hypothesis.strategies import binary, booleans, integers, lists, sampled_from, tuples
from twisted.trial.unittest import SynchronousTestCase

from twsock.errors import LocalProtocolError, RemoteProtocolError
from twsock.wire import LineDecoder, LineTooLongError, decode_text, encode_line

KIB = 1024

#: A line without a LF, and without a CR at its end, which would be read as part of its ending.
LINES = binary(max_size=12).map(lambda line: line.replace(b"\n", b"").rstrip(b"\r"))
ENDED_LINES = lists(tuples(LINES, sampled_from([b"\n", b"\r\n"])))


def pieces(stream: bytes, size: int) -> Iterator[bytes]:
    """Cut a stream into pieces of one size."""
    for start in range(0, len(stream), size):
        yield stream[start : start + size]


def pull_all(decoder: LineDecoder) -> list[bytes]:
    """Pull every line that is whole."""
    lines = []
    while (line := decoder.next_line()) is not None:
        lines.append(line)
    return lines


class EncodingTests(SynchronousTestCase):
    """Lines get their ending."""

    def test_the_guides_greeting(self) -> None:
        """The fifteen bytes of the echo page."""
        self.assertEqual(encode_line("Hello, World!"), b"Hello, World!\r\n")
        self.assertEqual(len(encode_line("Hello, World!")), 15)

    def test_text_is_utf8_and_bytes_are_bytes(self) -> None:
        """Text is encoded; bytes go as they are, text or not."""
        self.assertEqual(encode_line("é"), b"\xc3\xa9\r\n")
        self.assertEqual(encode_line(b"\xff"), b"\xff\r\n")

    def test_a_line_feed_is_refused(self) -> None:
        """One line cannot be sent as two."""
        self.assertRaises(LocalProtocolError, encode_line, "a\nb")
        self.assertRaises(LocalProtocolError, encode_line, b"a\r\n")

    def test_text_without_a_utf8_form_is_refused(self) -> None:
        """A lone surrogate is no character."""
        self.assertRaises(LocalProtocolError, encode_line, "\ud800")

    def test_reading_text_is_strict(self) -> None:
        """Bytes that are not UTF-8 are the peer's mistake; nothing is replaced."""
        self.assertEqual(decode_text("☺".encode()), "☺")
        for line in (b"\xff", b"\xc3", b"\xed\xa0\x80"):
            self.assertRaises(RemoteProtocolError, decode_text, line)


class DecodingTests(SynchronousTestCase):
    """Lines are pulled from what was fed."""

    def test_crlf_and_bare_lf_end_a_line(self) -> None:
        """Neither ending is part of the line; an empty line is one."""
        decoder = LineDecoder()
        decoder.feed(b"one\r\ntwo\n\r\n\nlast")
        self.assertEqual(pull_all(decoder), [b"one", b"two", b"", b""])
        self.assertEqual(decoder.buffered, 4)

    def test_a_cr_that_ends_nothing_stays(self) -> None:
        """Only the CR right before the LF is taken away, and only one."""
        decoder = LineDecoder()
        decoder.feed(b"a\rb\r\r\n")
        self.assertEqual(decoder.next_line(), b"a\rb\r")

    def test_the_ending_may_be_cut(self) -> None:
        """CR in one read, LF in the next."""
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
    def test_runs_and_lines_mix(
        self, ended: list[tuple[bytes, bytes]], step: int, turns: list[int]
    ) -> None:
        """Taken by lines, by runs or in turn, every line comes once, ended by CRLF."""
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
        """Whoever takes over gets each byte behind the last line, and the decoder is empty."""
        decoder = LineDecoder()
        stream = b"ab\r\n" * 3 + data
        decoder.feed(stream)
        for _ in range(pulled):
            decoder.next_line()
        self.assertEqual(decoder.take_buffered(), stream[pulled * 4 :])
        decoder.feed(b"new\n")
        self.assertEqual(decoder.next_line(), b"new")


class LimitTests(SynchronousTestCase):
    """A line that is too long is refused before it ends."""

    def test_the_ending_does_not_count(self) -> None:
        """Exactly the limit passes with either ending, alone and in a run."""
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

    def test_one_more_is_refused_as_soon_as_it_came(self) -> None:
        """Without an ending in sight, the first byte above the limit is enough."""
        for pull in (LineDecoder.next_line, LineDecoder.take_run):
            decoder = LineDecoder(max_payload=4)
            decoder.feed(b"1234")
            self.assertFalse(pull(decoder), f"{pull=}")
            decoder.feed(b"5")
            error = self.assertRaises(LineTooLongError, pull, decoder)
            self.assertEqual((error.received, error.limit), (5, 4), f"{pull=}")

    def test_a_line_that_came_whole_is_measured_too(self) -> None:
        """A long line with its ending in the same read is no better."""
        for pull in (LineDecoder.next_line, LineDecoder.take_run):
            decoder = LineDecoder(max_payload=4)
            decoder.feed(b"12345\r\n")
            self.assertRaises(LineTooLongError, pull, decoder)
            self.assertRaises(LineTooLongError, pull, decoder)

    def test_a_run_ends_before_a_long_line(self) -> None:
        """What stood before it is given, then the error follows."""
        decoder = LineDecoder(max_payload=4)
        decoder.feed(b"1\n2\r\n12345\n3\n")
        self.assertEqual(decoder.take_run(), b"1\r\n2\r\n")
        self.assertRaises(LineTooLongError, decoder.take_run)

    def test_negative_limits_are_refused(self) -> None:
        """A limit below nothing makes no sense; zero allows empty lines."""
        self.assertRaises(ValueError, LineDecoder, -1)
        decoder = LineDecoder(max_payload=0)
        decoder.feed(b"\r\n")
        self.assertEqual(decoder.next_line(), b"")


class MemoryTests(SynchronousTestCase):
    """Memory and work grow with the bytes, not with how they were cut."""

    def test_the_peak_is_within_two_and_a_half_limits(self) -> None:
        """One line of the limit's size, in large and tiny pieces."""
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

    def test_what_was_pulled_is_not_kept_for_the_line_behind_it(self) -> None:
        """A hundred connections that await the rest of a line do not hold a hundred reads."""
        read = bytes(32 * KIB) + b"\r\nbe"
        decoders = [LineDecoder() for _ in range(100)]
        for pull in (LineDecoder.next_line, LineDecoder.take_run):
            tracemalloc.start()
            try:
                for decoder in decoders:
                    decoder.feed(bytes(bytearray(read)))  # Each has a read of its own.
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
        """The search for the ending goes on where the last one stopped."""
        decoder = LineDecoder(max_payload=1000)
        for number in range(1, 100):
            decoder.feed(b"x" * 10)
            self.assertIsNone(decoder.next_line(), f"{number=}")
            self.assertEqual(decoder._searched, number * 10, f"{number=}")


class StopTests(SynchronousTestCase):
    """Runs and loops end in front of one message, and of bytes that begin none."""

    def make(self, stream: bytes) -> LineDecoder:
        decoder = LineDecoder(max_payload=1000)
        decoder.stop_before(b"STOP", b"\x16\x03")
        decoder.feed(stream)
        return decoder

    def test_the_message_is_left_and_then_pulled_by_itself(self) -> None:
        """By a loop as by a run, whichever ending it has."""
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

    def test_only_a_whole_message_stops(self) -> None:
        """Not the same bytes within one, in front of one, or in a part of one."""
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

    def test_what_begins_no_message_is_left(self) -> None:
        """Also where there are line feeds in it."""
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
    def test_nothing_is_lost_however_it_is_cut(
        self, ended: list[bytes], step: int, takes_runs: bool
    ) -> None:
        """All messages come in order, the one to stop before always by itself."""
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
