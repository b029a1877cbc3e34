"""Messages are compressed as RFC 7692 says; no message becomes larger than the limit."""

from __future__ import annotations

import itertools
import random
import tracemalloc
import zlib
from typing import Any, cast

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twsock.errors import RemoteProtocolError
from twsock.websocket.close_frame import CloseCode, WebSocketViolation
from twsock.websocket.deflate import (
    EXTENSION,
    DeflateAgreement,
    Deflater,
    DeflateSettings,
    Inflater,
)
from twsock.websocket.header_fields import Extension, format_extension, parse_extensions

DEFAULTS = DeflateSettings()
#: As much as RFC 7692 allows, without any parameter.
LARGEST = DeflateSettings(context_takeover=True, max_window_bits=15, min_size=0)
LIMITED = DeflateSettings(context_takeover=True, max_window_bits=10)
MIB = 1 << 20
#: Text that compresses to about a half.
PROSE = b"".join(b"%d bottles of beer; " % number for number in range(400))
NOISE = random.Random(7692).randbytes(1000)

HELLO = b"\xf2\x48\xcd\xc9\xc9\x07\x00"


def parse(text: str) -> Extension:
    (extension,) = parse_extensions([f"{EXTENSION}{text}"])
    return extension


def answer_to(text: str, settings: DeflateSettings = DEFAULTS) -> str | None:
    """Return the parameters of a server's answer to the offers; None if it declines all."""
    agreement = settings.accept(parse_extensions([text]))
    if agreement is None:
        return None
    return format_extension(agreement.answer).removeprefix(EXTENSION)


def agree(settings: DeflateSettings = DEFAULTS, offer: str = "") -> DeflateAgreement:
    agreement = settings.accept([parse(offer)])
    assert agreement is not None
    return agreement


def make_inflater(*, keeps_context: bool = False, window_bits: int = 15) -> Inflater:
    return Inflater(window_bits=window_bits, keeps_context=keeps_context)


def final_message(size: int) -> bytes:
    """Return one block without compression that ends its stream, of so many bytes."""
    length = size - 5
    header = length.to_bytes(2, "little") + (length ^ 0xFFFF).to_bytes(2, "little")
    return b"\x01" + header + bytes(length)


def make_deflater(
    *, keeps_context: bool = False, window_bits: int = 15, min_size: int = 0
) -> Deflater:
    return Deflater(
        window_bits=window_bits,
        keeps_context=keeps_context,
        compression_level=6,
        memory_level=8,
        min_size=min_size,
    )


class ExampleTests(SynchronousTestCase):
    """The examples of RFC 7692 section 7.2.3, byte for byte."""

    def assert_inflates(self, data: bytes, message: bytes) -> None:
        for keeps_context in (False, True):
            inflater = make_inflater(keeps_context=keeps_context)
            for _ in range(2):
                found = inflater.inflate(data, 100)
                self.assertEqual(found, message, f"{data.hex()}, {keeps_context=}")

    def test_a_message_is_compressed(self) -> None:
        """Section 7.2.3.1."""
        self.assertEqual(make_deflater(keeps_context=True).compress(b"Hello"), HELLO)
        self.assert_inflates(HELLO, b"Hello")

    def test_the_second_message_refers_to_the_first(self) -> None:
        """Section 7.2.3.2, with context takeover and without."""
        deflater = make_deflater(keeps_context=True)
        deflater.compress(b"Hello")
        second = deflater.compress(b"Hello")
        self.assertEqual(second, b"\xf2\x00\x11\x00\x00")
        inflater = make_inflater(keeps_context=True)
        inflater.inflate(HELLO, 100)
        self.assertEqual(inflater.inflate(second or b"", 100), b"Hello")
        inflater = make_inflater(keeps_context=False)
        inflater.inflate(HELLO, 100)
        self.assertRaises(WebSocketViolation, inflater.inflate, second, 100)

    def test_a_block_without_compression(self) -> None:
        """Section 7.2.3.3."""
        self.assert_inflates(bytes.fromhex("000500faff48656c6c6f00"), b"Hello")

    def test_a_block_with_bfinal(self) -> None:
        """Section 7.2.3.4; with the empty block behind it, and without."""
        self.assert_inflates(bytes.fromhex("f348cdc9c9070000"), b"Hello")
        self.assert_inflates(bytes.fromhex("f348cdc9c90700"), b"Hello")

    def test_two_blocks(self) -> None:
        """Section 7.2.3.5."""
        self.assert_inflates(bytes.fromhex("f248050000 00ffffcac9c90700"), b"Hello")

    def test_an_empty_message(self) -> None:
        """Section 7.2.3.6; also if nothing is new since the last one."""
        deflater = make_deflater(keeps_context=True)
        self.assertEqual([deflater.compress(b"") for _ in range(3)], [b"\0"] * 3)
        self.assert_inflates(b"\0", b"")

    def test_an_empty_message_without_a_block(self) -> None:
        """Servers of Mojolicious send it; later messages still refer to those before it."""
        inflater = Inflater(window_bits=15, keeps_context=True)
        sent = zlib.compressobj(wbits=-15)
        for message in (b"", NOISE, b"", b"", NOISE):
            compressed = sent.compress(message) + sent.flush(zlib.Z_SYNC_FLUSH)
            # As Compress::Raw::Zlib does: no second block without data between two flushes.
            payload = compressed[:-4] if message else b""
            self.assertEqual(inflater.inflate(payload, MIB), message)


class AnswerTests(SynchronousTestCase):
    """A server answers the offers of clients (sections 5 and 7.1)."""

    def test_the_defaults_of_the_answer(self) -> None:
        """No context takeover, and windows of 12 bits where they can be limited."""
        takeover = "; server_no_context_takeover; client_no_context_takeover"
        self.assertEqual(answer_to("permessage-deflate"), takeover)
        self.assertEqual(
            answer_to("permessage-deflate; client_max_window_bits"),
            f"{takeover}; client_max_window_bits=12",
        )

    def test_the_window_of_the_server_is_named_only_if_the_client_names_it(self) -> None:
        """A client of nhooyr.io/websocket 1.8.7 fails with it; this end limits it all the same."""
        offer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
        self.assertEqual("permessage-deflate" + (answer_to(offer) or ""), offer)
        self.assertEqual(agree().server_window, 12)
        answer = answer_to("permessage-deflate; server_max_window_bits=13") or ""
        self.assertIn("; server_max_window_bits=12", answer)

    def test_offers_of_less_are_kept(self) -> None:
        """The answer has each parameter of the offer, with its value or a smaller one."""
        for offer, answer in (
            ("", ""),
            ("; server_no_context_takeover", "; server_no_context_takeover"),
            ("; client_no_context_takeover", "; client_no_context_takeover"),
            ("; server_max_window_bits=10", "; server_max_window_bits=10"),
            ("; server_max_window_bits=15", "; server_max_window_bits=15"),
            ("; server_max_window_bits=8", "; server_max_window_bits=8"),
            ('; server_max_window_bits="9"', "; server_max_window_bits=9"),
            ("; client_max_window_bits", ""),
            ("; client_max_window_bits=15", ""),
            ("; client_max_window_bits=9", "; client_max_window_bits=9"),
        ):
            self.assertEqual(answer_to(f"permessage-deflate{offer}", LARGEST), answer, offer)

    def test_the_window_of_the_client_is_limited_only_if_it_offers_that(self) -> None:
        """Section 7.1.2.2; otherwise this end decompresses with the largest one."""
        self.assertEqual(agree().client_window, 15)
        self.assertEqual(agree(offer="; client_max_window_bits").client_window, 12)
        self.assertEqual(agree(offer="; client_max_window_bits=10").client_window, 10)

    def test_the_first_valid_offer_is_accepted(self) -> None:
        """An offer that is invalid or of another extension is passed over."""
        offers = (
            "x-deflate, permessage-deflate; unknown, permessage-deflate; server_max_window_bits=10,"
            "permessage-deflate"
        )
        self.assertEqual(answer_to(offers, LARGEST), "; server_max_window_bits=10")
        self.assertIsNone(answer_to("x-deflate, permessage-deflat"))
        self.assertIsNone(DEFAULTS.accept([]))

    def test_an_invalid_offer_is_declined(self) -> None:
        """Section 7: unknown or double parameters, and wrong values."""
        for offer in (
            "; unknown",
            "; server_no_context_takeover=1",
            "; client_no_context_takeover=true",
            "; server_no_context_takeover; server_no_context_takeover",
            "; server_max_window_bits",
            "; server_max_window_bits=7",
            "; server_max_window_bits=16",
            "; server_max_window_bits=08",
            "; server_max_window_bits=+9",
            "; server_max_window_bits=12; server_max_window_bits=12",
            "; client_max_window_bits=7",
            "; client_max_window_bits=1",
            "; client_max_window_bits; client_max_window_bits=9",
            "; SERVER_MAX_WINDOW_BITS=9",
        ):
            self.assertIsNone(answer_to(f"permessage-deflate{offer}"), offer)


class OfferTests(SynchronousTestCase):
    """A client offers, and judges the answer of the server."""

    def judge(self, answer: str, settings: DeflateSettings = DEFAULTS) -> DeflateAgreement:
        return settings.judge(parse(answer))

    def assert_refused(self, answer: str, settings: DeflateSettings) -> None:
        with self.assertRaises(RemoteProtocolError, msg=f"{answer=}, {settings=}"):
            self.judge(answer, settings)

    def test_the_offer(self) -> None:
        """The client's window can always be limited, the server's only with context takeover."""
        self.assertEqual(
            format_extension(DEFAULTS.offer()),
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; "
            "client_max_window_bits=12",
        )
        self.assertEqual(
            format_extension(LIMITED.offer()),
            "permessage-deflate; server_max_window_bits=10; client_max_window_bits=10",
        )
        self.assertEqual(
            format_extension(LARGEST.offer()), "permessage-deflate; client_max_window_bits"
        )

    def test_an_answer_that_keeps_to_the_offer_is_accepted(self) -> None:
        """The answer may have less than was offered, in either direction."""
        agreement = self.judge(
            "; server_no_context_takeover; server_max_window_bits=10; client_max_window_bits=9"
        )
        self.assertEqual((agreement.server_window, agreement.client_window), (10, 9))
        self.assertTrue(agreement.server_no_takeover)
        # This end needs no takeover, whether or not the server asks for that.
        self.assertTrue(agreement.client_no_takeover)
        # The server knows no window of the client, which keeps to its own.
        answer = "; server_no_context_takeover; server_max_window_bits=12"
        self.assertEqual(self.judge(answer).client_window, 12)
        agreement = self.judge("", LARGEST)
        self.assertEqual((agreement.server_window, agreement.client_window), (15, 15))
        self.assertFalse(agreement.server_no_takeover or agreement.client_no_takeover)
        agreement = self.judge("; client_no_context_takeover; server_max_window_bits=8", LARGEST)
        self.assertEqual(agreement.server_window, 8)
        self.assertTrue(agreement.client_no_takeover)

    def test_an_answer_without_the_limits_of_the_server_is_accepted(self) -> None:
        """Servers of Tornado keep their context, those of gorilla/websocket a window of 32 KiB."""
        tornado = self.judge("; client_max_window_bits=12")
        self.assertFalse(tornado.server_no_takeover)
        self.assertTrue(tornado.client_no_takeover)
        gorilla = self.judge("; server_no_context_takeover; client_no_context_takeover", LIMITED)
        self.assertTrue(gorilla.server_no_takeover)
        self.assertEqual((gorilla.server_window, gorilla.client_window), (15, 10))
        # A server may name a window that was not offered (section 7.1.2.1).
        self.assertEqual(self.judge("; server_max_window_bits=13").server_window, 13)
        inflater = tornado.inflater(is_server=False)
        sent = zlib.compressobj(wbits=-15)
        for _ in range(3):
            compressed = sent.compress(NOISE) + sent.flush(zlib.Z_SYNC_FLUSH)
            self.assertEqual(inflater.inflate(compressed[:-4], MIB), NOISE)

    def test_an_answer_with_a_larger_window_than_offered_is_refused(self) -> None:
        """Sections 7.1.2.1 and 7.1.2.2."""
        self.assert_refused("; server_no_context_takeover; client_max_window_bits=13", DEFAULTS)
        self.assert_refused("; server_max_window_bits=11", LIMITED)

    def test_an_invalid_answer_is_refused(self) -> None:
        """Section 7: unknown or double parameters, and wrong values."""
        for answer in (
            "; unknown",
            "; server_no_context_takeover=1",
            "; client_no_context_takeover; client_no_context_takeover",
            "; server_max_window_bits",
            "; server_max_window_bits=16",
            "; client_max_window_bits",
            "; client_max_window_bits=08",
        ):
            self.assert_refused(answer, LARGEST)

    @given(st.booleans(), st.booleans(), st.integers(9, 15), st.integers(9, 15))
    def test_both_sides_agree_on_the_same(
        self, client_takeover: bool, server_takeover: bool, client_bits: int, server_bits: int
    ) -> None:
        """The answer to any offer is accepted, and both ends understand each other."""
        client = DeflateSettings(context_takeover=client_takeover, max_window_bits=client_bits)
        server = DeflateSettings(context_takeover=server_takeover, max_window_bits=server_bits)
        agreed = server.accept([client.offer()])
        assert agreed is not None
        judged = client.judge(agreed.answer)
        for fact in ("server_no_takeover", "client_no_takeover", "client_window"):
            self.assertEqual(getattr(judged, fact), getattr(agreed, fact), fact)
        self.assertGreaterEqual(judged.server_window, agreed.server_window)
        pairs = (
            (agreed.deflater(is_server=True), judged.inflater(is_server=False)),
            (judged.deflater(is_server=False), agreed.inflater(is_server=True)),
        )
        for deflater, inflater in pairs:
            for data in (PROSE, PROSE[:300], NOISE, PROSE):
                compressed = deflater.compress(data)
                if compressed is not None:
                    self.assertEqual(inflater.inflate(compressed, MIB), data)


class SettingsTests(SynchronousTestCase):
    """Settings are checked, and their defaults cost little memory."""

    def test_defaults(self) -> None:
        """No context takeover, window 12, levels 3 and 5, nothing below 256 bytes."""
        self.assertEqual(
            DEFAULTS,
            DeflateSettings(
                context_takeover=False,
                max_window_bits=12,
                compression_level=3,
                memory_level=5,
                min_size=256,
            ),
        )

    def test_numbers_outside_their_bounds_are_refused(self) -> None:
        """A window of 8 cannot be compressed with."""
        for name, value in (
            ("max_window_bits", 8),
            ("max_window_bits", 16),
            ("compression_level", 0),
            ("compression_level", 10),
            ("memory_level", 0),
            ("memory_level", 10),
            ("min_size", -1),
        ):
            with self.assertRaises(ValueError, msg=name):
                DeflateSettings(**{name: cast(Any, value)})
        for name in ("max_window_bits", "compression_level", "memory_level", "min_size"):
            with self.assertRaises(TypeError, msg=name):
                DeflateSettings(**{name: cast(Any, 9.5)})

    def test_without_context_takeover_nothing_is_kept(self) -> None:
        """An idle connection has the two objects, and no window."""
        for settings, is_kept in ((DEFAULTS, False), (LARGEST, True)):
            agreement = agree(settings)
            deflater, inflater = (
                agreement.deflater(is_server=True),
                agreement.inflater(is_server=True),
            )
            inflater.inflate(make_deflater(keeps_context=True).compress(PROSE) or b"", MIB)
            tracemalloc.start()
            self.addCleanup(tracemalloc.stop)
            before = tracemalloc.get_traced_memory()[0]
            deflater.compress(PROSE)
            grown = tracemalloc.get_traced_memory()[0] - before
            tracemalloc.stop()
            self.assertEqual(grown > 4096, is_kept, f"{settings=}, {grown=}")


class DeflaterTests(SynchronousTestCase):
    """Messages that this end sends."""

    def test_small_messages_are_sent_as_they_are(self) -> None:
        """Below 256 bytes by default."""
        deflater = agree().deflater(is_server=True)
        self.assertIsNone(deflater.compress(PROSE[:255]))
        self.assertIsNotNone(deflater.compress(PROSE[:256]))

    def test_what_does_not_become_smaller_is_sent_as_it_is(self) -> None:
        """Section 6 allows it for each message."""
        self.assertIsNone(agree().deflater(is_server=True).compress(NOISE))

    def test_with_context_takeover_the_peer_has_to_see_each_message(self) -> None:
        """What the compressor saw is in its window, so it is sent compressed."""
        deflater = make_deflater(keeps_context=True)
        inflater = make_inflater(keeps_context=True)
        for data in (NOISE, PROSE, NOISE):
            self.assertEqual(inflater.inflate(deflater.compress(data) or b"", MIB), data)

    def test_a_window_of_8_bits_is_kept_by_not_compressing(self) -> None:
        """The answer agrees to it; zlib cannot keep to it."""
        agreement = agree(DEFAULTS, "; server_max_window_bits=8")
        self.assertIn(("server_max_window_bits", "8"), agreement.answer[1])
        self.assertIsNone(agreement.deflater(is_server=True).compress(PROSE))

    def test_the_agreed_window_is_kept(self) -> None:
        """A repetition further back than the window is not referred to."""
        data = NOISE + bytes(600) + NOISE
        far = make_deflater(window_bits=15).compress(data)
        near = make_deflater(window_bits=10).compress(data)
        assert far is not None
        assert near is not None
        self.assertLess(len(far) + 500, len(near))

    def test_a_higher_level_compresses_better(self) -> None:
        """The level of the settings is that of the compressor."""
        sizes = [
            len(
                agree(DeflateSettings(compression_level=level))
                .deflater(is_server=True)
                .compress(bytes(range(200)) * 3 + PROSE)
                or b""
            )
            for level in (1, 9)
        ]
        self.assertGreater(sizes[0], sizes[1])

    def test_key_is_that_of_equal_results(self) -> None:
        """Each setting counts; with context takeover there is none."""
        usual = {
            "window_bits": 12,
            "keeps_context": False,
            "compression_level": 3,
            "memory_level": 5,
            "min_size": 256,
        }
        keys = {
            Deflater(**{**usual, **changed}).key  # type: ignore[arg-type]
            for changed in (
                {},
                {"window_bits": 9},
                {"compression_level": 6},
                {"memory_level": 1},
                {"min_size": 0},
            )
        }
        self.assertEqual(len(keys), 5)
        self.assertIn(Deflater(**usual).key, keys)  # type: ignore[arg-type]
        self.assertIsNone(Deflater(**{**usual, "keeps_context": True}).key)  # type: ignore[arg-type]

    def test_messages_stand_alone_without_context_takeover(self) -> None:
        """The same message gives the same bytes."""
        deflater = agree().deflater(is_server=True)
        self.assertEqual(deflater.compress(PROSE), deflater.compress(PROSE))


class InflaterTests(SynchronousTestCase):
    """Messages of the peer."""

    def assert_violation(self, code: CloseCode, data: bytes, limit: int = MIB) -> None:
        for keeps_context in (False, True):
            with self.assertRaises(WebSocketViolation, msg=f"{data[:99]!r}") as caught:
                make_inflater(keeps_context=keeps_context).inflate(data, limit)
            self.assertEqual(caught.exception.code, code, f"{data[:99]!r}")

    def test_the_limit_is_exact(self) -> None:
        """A message of the limit passes; one byte more is 1009."""
        data = make_deflater().compress(bytes(1000)) or b""
        self.assertEqual(make_inflater().inflate(data, 1000), bytes(1000))
        self.assert_violation(CloseCode.MESSAGE_TOO_BIG, data, 999)
        self.assert_violation(CloseCode.MESSAGE_TOO_BIG, data, 0)
        self.assertEqual(make_inflater().inflate(b"\0", 0), b"")

    def test_a_bomb_never_takes_more_than_its_limit(self) -> None:
        """64 MiB of zeros in 64 KiB, also in front of 1 MiB that is as large as it was."""
        compressor = zlib.compressobj(9, wbits=-15)
        zeros = compressor.compress(bytes(64 * MIB)) + compressor.flush(zlib.Z_SYNC_FLUSH)
        chance = random.Random(0).randbytes(MIB)
        large = zeros + compressor.compress(chance) + compressor.flush(zlib.Z_SYNC_FLUSH)
        for bomb, keeps_context in itertools.product((zeros[:-4], large[:-4]), (False, True)):
            inflater = make_inflater(keeps_context=keeps_context)
            tracemalloc.start()
            self.addCleanup(tracemalloc.stop)
            self.assertRaises(WebSocketViolation, inflater.inflate, bomb, MIB)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            self.assertLess(peak, 1.4 * MIB, f"{len(bomb)=} {keeps_context=}")

    def test_a_small_bomb_takes_twice_its_limit_at_most(self) -> None:
        """The largest message that is decompressed in one step."""
        compressor = zlib.compressobj(9, wbits=-15)
        bomb = (compressor.compress(bytes(MIB - 16384)) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
        self.assertLess(len(bomb), 1024)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        inflater = make_inflater(keeps_context=False)
        self.assertRaises(WebSocketViolation, inflater.inflate, bomb, MIB - 16385)
        self.assertLess(tracemalloc.get_traced_memory()[1], 2.1 * MIB)

    def test_messages_of_many_steps_are_whole(self) -> None:
        """Input and output end at any place of a step."""
        chance = random.Random(0)
        for size in (1, 65_535, 65_536, 65_537, 131_072, 200_000):
            for data in (bytes(size), chance.randbytes(size), chance.randbytes(97) * (size // 97)):
                compressor = zlib.compressobj(wbits=-15)
                message = compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)
                inflater = make_inflater(keeps_context=False)
                if data:
                    self.assertEqual(inflater.inflate(message[:-4], len(data)), data, f"{size=}")

    def test_a_bomb_in_many_blocks_is_stopped(self) -> None:
        """The limit is of the message, not of a block."""
        block = make_deflater().compress(bytes(10_000)) or b""
        bomb = (block + b"\0\0\xff\xff") * 200
        self.assert_violation(CloseCode.MESSAGE_TOO_BIG, bomb)

    def test_malformed_data_is_refused(self) -> None:
        """1007: the data does not fit the message."""
        for data in (b"\xff" * 10, b"\x07", b"Hello, World"):
            self.assert_violation(CloseCode.INVALID_PAYLOAD_DATA, data)

    def test_a_message_that_was_cut_is_refused(self) -> None:
        """Without context takeover each cut is found; zlib would take our tail for data."""
        data = make_deflater().compress(PROSE) or b""
        for end in range(len(data)):
            with self.assertRaises(WebSocketViolation, msg=f"{end=}") as caught:
                make_inflater().inflate(data[:end], MIB)
            self.assertEqual(caught.exception.code, CloseCode.INVALID_PAYLOAD_DATA, f"{end=}")

    def test_bytes_behind_the_last_block_are_refused(self) -> None:
        """Further streams in one message would cost much time."""
        final = zlib.compressobj(wbits=-15)
        stream = final.compress(b"Hello") + final.flush()
        for rest in (b"x", b"\0\0", stream, HELLO):
            self.assert_violation(CloseCode.INVALID_PAYLOAD_DATA, stream + rest)
        # One byte in front of the next step is the padding, and further bytes are behind it.
        padded = stream.ljust(65_536, b"\0")
        self.assert_violation(CloseCode.INVALID_PAYLOAD_DATA, padded)
        full = final_message(65_536 - 1)
        self.assertEqual(make_inflater().inflate(full + b"\0", MIB), bytes(65_530))
        self.assert_violation(CloseCode.INVALID_PAYLOAD_DATA, full + b"\0x")

    def test_the_padding_after_a_whole_step_is_accepted(self) -> None:
        """The stream fills the steps; the padding is the only byte of the next step."""
        for keeps_context in (False, True):
            inflater = make_inflater(keeps_context=keeps_context)
            full = final_message(65_536)
            self.assertEqual(inflater.inflate(full + b"\0", MIB), bytes(65_531))
            self.assert_violation(CloseCode.INVALID_PAYLOAD_DATA, full + b"\0\0")
            self.assert_violation(CloseCode.INVALID_PAYLOAD_DATA, full + b"x")

    def test_a_peer_may_end_its_stream_with_each_message(self) -> None:
        """With context takeover, the next message may still refer to the last one."""
        inflater = make_inflater(keeps_context=True, window_bits=12)
        history = b""
        for data in (PROSE, PROSE, NOISE, b"", PROSE + NOISE, PROSE):
            compressor = (
                zlib.compressobj(wbits=-12, zdict=history[-4096:])
                if history
                else zlib.compressobj(wbits=-12)
            )
            stream = compressor.compress(data) + compressor.flush()
            self.assertEqual(inflater.inflate(stream + b"\0", MIB), data, f"{data[:20]!r}")
            history = data

    @given(
        st.lists(st.binary(max_size=50) | st.sampled_from([PROSE, NOISE, b""]), max_size=6),
        st.booleans(),
        st.integers(9, 15),
        st.integers(1, 9),
        st.integers(1, 9),
    )
    def test_any_messages_make_the_round_trip(
        self,
        messages: list[bytes],
        keeps_context: bool,
        window_bits: int,
        compression_level: int,
        memory_level: int,
    ) -> None:
        """With each window and both levels."""
        deflater = Deflater(
            window_bits=window_bits,
            keeps_context=keeps_context,
            compression_level=compression_level,
            memory_level=memory_level,
            min_size=0,
        )
        inflater = make_inflater(keeps_context=keeps_context, window_bits=window_bits)
        for data in messages:
            compressed = deflater.compress(data)
            if compressed is not None:
                self.assertEqual(inflater.inflate(compressed, len(data)), data)

    @given(st.lists(st.binary(max_size=40), max_size=3), st.booleans(), st.integers(0, 100))
    @example([b"\x03\x00\x00", HELLO], True, 100)
    def test_garbage_raises_only_the_documented_error(
        self, messages: list[bytes], keeps_context: bool, limit: int
    ) -> None:
        """No message has more bytes than the limit."""
        inflater = make_inflater(keeps_context=keeps_context)
        try:
            for data in messages:
                self.assertLessEqual(len(inflater.inflate(data, limit)), limit)
        except WebSocketViolation as error:
            self.assertIn(error.code, (CloseCode.MESSAGE_TOO_BIG, CloseCode.INVALID_PAYLOAD_DATA))
