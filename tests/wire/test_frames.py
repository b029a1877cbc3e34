"""A `FrameDecoder` turns length-prefixed bytes into frames; `encode_frame` does the reverse."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Iterator
from typing import Any

from hypothesis import given
from hypothesis.strategies import binary, booleans, integers, lists, sampled_from
from twisted.trial.unittest import SynchronousTestCase

from twsock.errors import LocalProtocolError
from twsock.wire import FrameDecoder, FrameTooLargeError, encode_frame, encode_header

KIB = 1024
MIB = 1024 * KIB


def pieces(stream: bytes, size: int) -> Iterator[bytes]:
    """Cut a stream into pieces of one size."""
    for start in range(0, len(stream), size):
        yield stream[start : start + size]


def pull_all(decoder: FrameDecoder) -> list[bytes]:
    """Return all whole frames."""
    frames = []
    while (frame := decoder.next_frame()) is not None:
        frames.append(frame)
    return frames


class EncodingTests(SynchronousTestCase):
    """`encode_frame` puts the length prefix before a payload."""

    def test_the_samples_hello_has_nine_bytes(self) -> None:
        """The nine bytes are those of the StreamSocket sample."""
        self.assertEqual(encode_frame(b"Hello"), bytes.fromhex("00 00 00 05 48 65 6c 6c 6f"))

    def test_an_empty_payload_is_four_zero_bytes(self) -> None:
        """Its frame is the length prefix alone."""
        self.assertEqual(encode_frame(b""), b"\x00\x00\x00\x00")

    def test_lengths_are_big_endian_and_unsigned(self) -> None:
        """From zero to the largest length that four bytes can hold."""
        self.assertEqual(encode_header(0x01020304), b"\x01\x02\x03\x04")
        self.assertEqual(encode_header(0xFFFFFFFF), b"\xff\xff\xff\xff")

    def test_a_payload_too_long_for_the_prefix_is_refused(self) -> None:
        """The call raises an error; a wrong length is never written."""
        for size in (-1, 0x1_0000_0000):
            self.assertRaises(LocalProtocolError, encode_header, size)


class DecodingTests(SynchronousTestCase):
    """A `FrameDecoder` returns the frames of the bytes it was fed."""

    def test_literal_frames_are_decoded(self) -> None:
        """Two frames and an empty one, without their headers."""
        decoder = FrameDecoder()
        decoder.feed(b"\x00\x00\x00\x05Hello\x00\x00\x00\x00\x00\x00\x00\x01!")
        self.assertEqual(pull_all(decoder), [b"Hello", b"", b"!"])
        self.assertEqual(decoder.delivered, 3)

    def test_a_partial_frame_is_not_returned(self) -> None:
        """The last byte of a frame completes it."""
        decoder = FrameDecoder()
        for byte in pieces(b"\x00\x00\x00\x02ab"[:-1], 1):
            decoder.feed(byte)
            self.assertIsNone(decoder.next_frame(), f"{byte=}")
        decoder.feed(b"b")
        self.assertEqual(decoder.next_frame(), b"ab")

    @given(lists(binary(max_size=32)), integers(min_value=1, max_value=50))
    def test_any_split_gives_the_same_frames(self, payloads: list[bytes], step: int) -> None:
        """However the stream is cut, the same frames come out in the same order."""
        decoder = FrameDecoder(max_payload=32)
        frames = []
        for piece in pieces(b"".join(map(encode_frame, payloads)), step):
            decoder.feed(piece)
            frames += pull_all(decoder)
        self.assertEqual(frames, payloads)
        self.assertEqual(decoder.buffered, 0)

    @given(lists(binary(max_size=9)), integers(1, 40), lists(integers(0, 3)))
    def test_runs_and_frames_can_be_pulled_in_turn(
        self, payloads: list[bytes], step: int, turns: list[int]
    ) -> None:
        """Pulled as frames, as runs or in turn, the bytes are those that were sent."""
        stream = b"".join(map(encode_frame, payloads))
        decoder = FrameDecoder()
        out = bytearray()
        for number, piece in enumerate(pieces(stream, step)):
            decoder.feed(piece)
            for _ in range(turns[number % len(turns)] if turns else 0):
                if (frame := decoder.next_frame()) is not None:
                    out += encode_frame(frame)
            out += decoder.take_run()
        self.assertEqual(bytes(out), stream)
        self.assertEqual(decoder.delivered, len(payloads))

    @given(lists(binary(max_size=40)))
    def test_any_garbage_gives_frames_or_the_documented_error(self, data: list[bytes]) -> None:
        """No other exception escapes, and every frame is within the limit."""
        one, run = FrameDecoder(max_payload=16), FrameDecoder(max_payload=16)
        for piece in data:
            one.feed(piece)
            run.feed(piece)
            try:
                self.assertTrue(all(len(frame) <= 16 for frame in pull_all(one)), f"{piece=}")
            except FrameTooLargeError:
                while True:
                    try:
                        if not run.take_run():
                            self.fail("a run went past a header that is refused")
                    except FrameTooLargeError:
                        return
            run.take_run()

    @given(binary(min_size=1, max_size=60), integers(0, 9))
    def test_the_rest_is_all_that_was_not_pulled(self, data: bytes, pulled: int) -> None:
        """`take_buffered` returns each byte behind the last frame, and empties the decoder."""
        decoder = FrameDecoder(max_payload=3)
        stream = encode_frame(b"abc") * 9 + data
        decoder.feed(stream)
        for _ in range(pulled):
            decoder.next_frame()
        self.assertEqual(decoder.take_buffered(), stream[pulled * 7 :])
        self.assertEqual((decoder.buffered, decoder.take_buffered()), (0, b""))
        decoder.feed(encode_frame(b"new"))
        self.assertEqual(decoder.next_frame(), b"new")

    def test_a_run_ends_with_its_last_whole_frame(self) -> None:
        """A partial frame stays, for the next read to complete."""
        decoder = FrameDecoder()
        whole = encode_frame(b"a") + encode_frame(b"")
        decoder.feed(whole + b"\x00\x00\x00\x02x")
        self.assertEqual(decoder.take_run(), whole)
        self.assertEqual(decoder.take_run(), b"")
        decoder.feed(b"y" + encode_frame(b"z"))
        self.assertEqual(decoder.take_run(), b"\x00\x00\x00\x02xy" + encode_frame(b"z"))

    def test_a_read_of_whole_frames_is_returned_uncopied(self) -> None:
        """One fed object of whole frames is returned as that object."""
        stream = encode_frame(b"a") * 3
        decoder = FrameDecoder()
        decoder.feed(stream)
        self.assertIs(decoder.take_run(), stream)

    @given(integers(0, 5), integers(1, 30), integers(0, 5), binary(max_size=6))
    def test_frames_of_one_size_form_a_run(
        self, size: int, count: int, other: int, tail: bytes
    ) -> None:
        """Frames of one size, whatever stands behind them, come out as other frames do."""
        alike = encode_frame(bytes(size)) * count
        decoder, single = FrameDecoder(max_payload=5), FrameDecoder(max_payload=5)
        decoder.feed(alike + encode_frame(b"x" * other) + tail)
        single.feed(alike + encode_frame(b"x" * other) + tail)
        expected = bytearray()
        try:
            for frame in single.frames():
                expected += encode_frame(frame)
        except FrameTooLargeError:
            pass
        self.assertEqual(decoder.take_run(), expected)
        self.assertEqual(decoder.delivered, single.delivered)

    def test_leaving_the_loop_keeps_the_rest(self) -> None:
        """A loop over frames can end anywhere; the next pull continues behind it."""
        decoder = FrameDecoder()
        decoder.feed(encode_frame(b"1") + encode_frame(b"2") + encode_frame(b"3"))
        for frame in decoder.frames():
            if frame == b"2":
                break
        self.assertEqual(decoder.buffered, 5)
        decoder.feed(encode_frame(b"4"))
        self.assertEqual(list(decoder.frames()), [b"3", b"4"])

    def test_the_only_frame_is_pulled_where_the_loop_begins(self) -> None:
        """In one piece or in two, it is ``bytes``, and nothing of it stays stored."""
        for pieces in ([b"\0\0\0\3one"], [b"\0\0\0\3o", b"ne"]):
            decoder = FrameDecoder(max_payload=3)
            for piece in pieces:
                decoder.feed(piece)
            found = list(decoder.take_frames())
            self.assertEqual((found, decoder.stored), ([b"one"], b""), f"{pieces=}")
            self.assertIs(type(found[0]), bytes, f"{pieces=}")

    def test_a_loop_that_does_not_begin_pulls_nothing(self) -> None:
        """A frame leaves the decoder when a loop takes it."""
        decoder = FrameDecoder()
        decoder.feed(encode_frame(b"one"))
        decoder.frames()
        self.assertEqual((decoder.delivered, decoder.next_frame()), (0, b"one"))

    @given(lists(binary(max_size=4), max_size=4), integers(0, 40), sampled_from([b"", b"1", b"go"]))
    def test_both_loops_give_the_same_frames(
        self, payloads: list[bytes], end: int, word: bytes
    ) -> None:
        """Whatever is stored, and whichever message stops them."""
        stream = b"".join(map(encode_frame, payloads))[:end]
        lazy, eager = FrameDecoder(), FrameDecoder()
        for decoder in (lazy, eager):
            decoder.feed(stream)
            if word:
                decoder.stop_before(word)
        self.assertEqual(list(eager.take_frames()), list(lazy.frames()))
        self.assertEqual(
            (eager.delivered, eager.take_buffered()), (lazy.delivered, lazy.take_buffered())
        )


class LimitTests(SynchronousTestCase):
    """A length above the limit is refused at its prefix."""

    def test_a_frame_of_exactly_the_limit_passes(self) -> None:
        """As one frame and in a run."""
        for pull in (FrameDecoder.next_frame, FrameDecoder.take_run):
            decoder = FrameDecoder(max_payload=5)
            decoder.feed(encode_frame(b"12345"))
            self.assertTrue(pull(decoder), f"{pull=}")

    def test_a_length_above_the_limit_is_refused_by_its_prefix(self) -> None:
        """
        One more, the sign bit, all bits: four bytes are enough, and the error has both numbers.
        """
        for announced in (6, 0x8000_0000, 0xFFFF_FFFF):
            for pull in (FrameDecoder.next_frame, FrameDecoder.take_run):
                decoder = FrameDecoder(max_payload=5)
                decoder.feed(encode_header(announced))
                error = self.assertRaises(FrameTooLargeError, pull, decoder)
                self.assertEqual(
                    (error.announced, error.limit), (announced, 5), f"{announced=}, {pull=}"
                )
                self.assertIn(
                    f"{announced} bytes, limit is 5", str(error), f"{announced=}, {pull=}: {error}"
                )

    def test_many_equal_frames_above_the_limit_are_refused(self) -> None:
        """Prefixes that are compared all at once are checked too."""
        decoder = FrameDecoder(max_payload=5)
        decoder.feed(encode_frame(b"123456") * 20)
        self.assertRaises(FrameTooLargeError, decoder.take_run)

    def test_a_limit_of_zero_allows_empty_frames_only(self) -> None:
        """It is the smallest limit."""
        decoder = FrameDecoder(max_payload=0)
        decoder.feed(encode_frame(b"") + b"\x00\x00\x00\x01")
        self.assertEqual(decoder.next_frame(), b"")
        self.assertRaises(FrameTooLargeError, decoder.next_frame)

    def test_limits_out_of_bounds_are_refused(self) -> None:
        """A limit that no length prefix can reach raises an error."""
        for limit in (-1, 0x1_0000_0000):
            self.assertRaises(ValueError, FrameDecoder, limit)

    @given(lists(binary(max_size=5), max_size=5), integers(min_value=1, max_value=30))
    def test_the_error_follows_the_frames_before_it(self, payloads: list[bytes], step: int) -> None:
        """At any cut, all frames before the bad prefix come out first."""
        stream = b"".join(map(encode_frame, payloads)) + b"\x00\x00\x00\x06garbage"
        for pull_runs in (False, True):
            decoder = FrameDecoder(max_payload=5)
            out = bytearray()
            with self.assertRaises(FrameTooLargeError):
                for piece in pieces(stream, step):
                    decoder.feed(piece)
                    if pull_runs:
                        while run := decoder.take_run():
                            out += run
                    else:
                        while (frame := decoder.next_frame()) is not None:
                            out += encode_frame(frame)
            self.assertEqual(bytes(out), b"".join(map(encode_frame, payloads)), f"{pull_runs=}")

    def test_a_failed_decoder_stays_failed(self) -> None:
        """Every later pull raises the same error, whatever is fed."""
        decoder = FrameDecoder(max_payload=5)
        decoder.feed(b"\xff\xff\xff\xff")
        for _ in range(2):
            self.assertRaises(FrameTooLargeError, decoder.next_frame)
            self.assertRaises(FrameTooLargeError, decoder.take_run)
            decoder.feed(encode_frame(b"a"))


class MemoryTests(SynchronousTestCase):
    """Memory and work grow with the number of bytes, not with the cuts."""

    def feed(self, decoder: FrameDecoder, stream: bytes, step: int) -> tuple[int, int]:
        """Feed and pull a stream; return the peak of memory and of undelivered bytes."""
        most = 0
        received = 0
        tracemalloc.start()
        try:
            for piece in pieces(stream, step):
                decoder.feed(piece)
                most = max(most, decoder.buffered)
                while (frame := decoder.next_frame()) is not None:
                    received += len(frame)
                    del frame
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        self.assertEqual(received, decoder.max_payload)
        return peak, most

    def test_the_peak_of_memory_is_within_two_and_a_half_limits(self) -> None:
        """For one frame of the limit's size, in large, small and tiny pieces."""
        for size, step in ((16 * MIB, 64 * KIB), (16 * MIB, KIB), (256 * KIB, 1)):
            peak, most = self.feed(FrameDecoder(max_payload=size), encode_frame(bytes(size)), step)
            self.assertLess(peak, 2.5 * size, f"{size=}, {step=}")
            # The four bytes of the prefix are stored with its frame.
            self.assertLessEqual(most, size + 4 + step, f"{size=}, {step=}")

    def test_a_partial_frame_does_not_keep_the_read_before_it(self) -> None:
        """A hundred connections with partial frames do not hold a hundred reads."""
        read = encode_frame(bytes(64 * KIB)) + b"\0\0"
        decoders = [FrameDecoder() for _ in range(100)]
        for pull in (pull_all, FrameDecoder.take_run):
            tracemalloc.start()
            try:
                for decoder in decoders:
                    decoder.feed(bytes(bytearray(read)))  # A read of its own for each.
                    pull(decoder)
                held = tracemalloc.get_traced_memory()[0]
            finally:
                tracemalloc.stop()
            self.assertLess(held, 100 * KIB, f"{pull=}")
            self.assertEqual(
                [decoder.take_buffered() for decoder in decoders], [b"\0\0"] * 100, f"{pull=}"
            )

    def test_a_run_takes_no_copy_of_a_large_frame(self) -> None:
        """The peak of memory is the frame and the room that its buffer grew into."""
        size = 8 * MIB
        decoder = FrameDecoder(max_payload=size)
        stream = encode_frame(bytes(size))
        run: bytes | bytearray = b""
        tracemalloc.start()
        try:
            for piece in pieces(stream, 64 * KIB):
                decoder.feed(piece)
                run = decoder.take_run() or run
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        self.assertEqual(len(run), len(stream))
        self.assertLess(peak, 1.5 * size)

    def test_the_work_per_piece_does_not_grow(self) -> None:
        """The first piece and the last cost the same number of calls."""
        decoder = FrameDecoder(max_payload=MIB)
        counts = []
        for piece in pieces(encode_frame(bytes(MIB))[:-1], KIB):
            calls = 0

            def count(_frame: object, _event: str, _arg: object) -> None:
                nonlocal calls
                calls += 1

            profile: Any = count
            sys.setprofile(profile)
            try:
                decoder.feed(piece)
                decoder.take_run()
            finally:
                sys.setprofile(None)
            counts.append(calls)
        self.assertEqual(len(set(counts[2:])), 1)

    def test_a_large_frame_is_moved_a_few_dozen_times(self) -> None:
        """Its memory is not moved once per piece."""
        decoder = FrameDecoder(max_payload=4 * MIB)
        capacities = set()
        for piece in pieces(encode_frame(bytes(4 * MIB))[:-1], KIB):
            decoder.feed(piece)
            decoder.next_frame()
            capacities.add(sys.getsizeof(decoder.stored))
        self.assertLess(len(capacities), 200)

    def test_a_delivered_frame_is_freed(self) -> None:
        """Between frames a decoder holds no bytes of the last one."""
        decoder = FrameDecoder(max_payload=MIB)
        for piece in pieces(encode_frame(bytes(MIB)), 64 * KIB):
            decoder.feed(piece)
        decoder.next_frame()
        self.assertLess(sys.getsizeof(decoder.stored), KIB)


class StopTests(SynchronousTestCase):
    """Runs and loops stop before one given message, and before bytes that begin none."""

    def make(self, stream: bytes) -> FrameDecoder:
        decoder = FrameDecoder(max_payload=1000)
        decoder.stop_before(b"STOP", b"\x16\x03")
        decoder.feed(stream)
        return decoder

    def test_the_message_is_left_and_then_pulled_alone(self) -> None:
        """In a loop as in runs."""
        stream = encode_frame(b"one") + encode_frame(b"STOP") + encode_frame(b"two")
        decoder = self.make(stream)
        self.assertEqual(list(decoder.frames()), [b"one"])
        self.assertTrue(decoder.stops_here())
        self.assertEqual(list(decoder.frames()), [])
        self.assertEqual(decoder.next_frame(), b"STOP")
        self.assertFalse(decoder.stops_here())
        self.assertEqual(decoder.take_run(), encode_frame(b"two"))
        decoder.feed(stream)
        self.assertEqual(decoder.take_run(), encode_frame(b"one"))
        self.assertEqual(decoder.take_run(), b"")
        self.assertEqual(decoder.next_frame(), b"STOP")
        self.assertEqual(decoder.take_buffered(), encode_frame(b"two"))

    def test_only_a_whole_message_stops_a_run(self) -> None:
        """The same bytes inside a message, before one, or in part of one do not."""
        alike = [b"STOP.", b".STOP", encode_frame(b"STOP"), b"STO", b"stop"]
        decoder = self.make(b"".join(map(encode_frame, alike)) + encode_frame(b"STOP")[:-1])
        self.assertEqual(list(decoder.frames()), alike)
        self.assertFalse(decoder.stops_here())
        decoder.feed(b"P")
        self.assertTrue(decoder.stops_here())

    def test_among_many_messages_of_its_size_the_message_stops_the_run(self) -> None:
        """Also where frames of one size are compared all at once."""
        decoder = self.make(encode_frame(b"GO!!") * 50 + encode_frame(b"STOP"))
        self.assertEqual(decoder.take_run(), encode_frame(b"GO!!") * 50)
        self.assertEqual(decoder.next_frame(), b"STOP")

    def test_bytes_that_begin_no_message_are_left(self) -> None:
        """They are an error only when they are pulled."""
        decoder = self.make(encode_frame(b"one") + b"\x16\x03\x01\x02")
        self.assertEqual(list(decoder.frames()), [b"one"])
        self.assertEqual(decoder.take_run(), b"")
        self.assertTrue(decoder.stops_here())
        self.assertRaises(FrameTooLargeError, decoder.next_frame)

    @given(lists(sampled_from([b"STOP", b"a", b"", b"b" * 30])), integers(1, 40), booleans())
    def test_with_a_stop_nothing_is_lost_at_any_cut(
        self, payloads: list[bytes], step: int, takes_runs: bool
    ) -> None:
        """All messages come out in order, and the one to stop before is always alone."""
        decoder = self.make(b"")
        got: list[bytes] = []
        for piece in pieces(b"".join(map(encode_frame, payloads)), step):
            decoder.feed(piece)
            while True:
                if takes_runs:
                    inner = FrameDecoder()
                    inner.feed(bytes(decoder.take_run()))
                    found = list(inner.frames())
                else:
                    found = list(decoder.frames())
                self.assertNotIn(b"STOP", found, f"{piece=}: {found}")
                got += found
                if not decoder.stops_here():
                    break
                got.append(decoder.next_frame() or b"")
        self.assertEqual(got, payloads)
