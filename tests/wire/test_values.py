"""A `ValueWriter` writes the documented bytes, and a `ValueReader` reads them."""

from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any
from uuid import UUID
from zoneinfo import available_timezones

from hypothesis import given
from hypothesis.strategies import (
    DataObject,
    SearchStrategy,
    binary,
    booleans,
    builds,
    data,
    datetimes,
    floats,
    integers,
    just,
    lists,
    sampled_from,
    text,
    timedeltas,
    timezones,
    uuids,
)
from twisted.trial.unittest import SynchronousTestCase

from twsock.errors import LocalProtocolError, RemoteProtocolError
from twsock.wire.values import (
    ByteOrder,
    OutOfBoundsError,
    TextError,
    UnicodeEncoding,
    ValueReader,
    ValueWriter,
)

LITTLE, BIG = ByteOrder.LITTLE_ENDIAN, ByteOrder.BIG_ENDIAN
ORDERS = sampled_from(ByteOrder)
FIRST = datetime(1, 1, 1, tzinfo=timezone.utc)
LAST = datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=timezone.utc)

#: Time zones with rules, if this machine has any, and without.
ZONES: SearchStrategy[tzinfo] = builds(
    timezone, timedeltas(timedelta(hours=-23), timedelta(hours=23))
)
if available_timezones():
    ZONES |= timezones()
GUID = UUID("5592504a-161c-4b58-ae92-93f9b49de574")

#: The kind of a value, the value, its bytes in little-endian and in big-endian order.
VECTORS: list[tuple[str, Any, str, str]] = [
    ("int32", 1304, "18 05 00 00", "00 00 05 18"),
    ("int16", -14, "f2 ff", "ff f2"),
    ("uint64", 198736080, "d0 78 d8 0b 00 00 00 00", "00 00 00 00 0b d8 78 d0"),
    ("double", 1.7976931348623157e308, "ff ff ff ff ff ff ef 7f", "7f ef ff ff ff ff ff ff"),
    (
        "date_time",
        datetime(2020, 3, 14, 15, 26, 35, tzinfo=timezone.utc),
        "80 87 60 f2 14 fa d5 01",
        "01 d5 fa 14 f2 60 87 80",
    ),
    (
        "date_time",
        datetime(1, 1, 1, tzinfo=timezone.utc),
        "00 00 89 dd e8 31 fe f8",
        "f8 fe 31 e8 dd 89 00 00",
    ),
    ("time_span", timedelta(days=19), "00 40 d9 25 ee 0e 00 00", "00 00 0e ee 25 d9 40 00"),
    (
        "guid",
        GUID,
        "4a 50 92 55 1c 16 58 4b ae 92 93 f9 b4 9d e5 74",
        "55 92 50 4a 16 1c 4b 58 74 e5 9d b4 f9 93 92 ae",
    ),
    ("byte", 255, "ff", "ff"),
    ("boolean", True, "01", "01"),
    ("boolean", False, "00", "00"),
    ("uint16", 0x1337, "37 13", "13 37"),
    ("uint32", 13, "0d 00 00 00", "00 00 00 0d"),
    ("int64", -2, "fe ff ff ff ff ff ff ff", "ff ff ff ff ff ff ff fe"),
    ("single", -0.5, "00 00 00 bf", "bf 00 00 00"),
]

KINDS: dict[str, Any] = {
    "byte": integers(0, 2**8 - 1),
    "boolean": booleans(),
    "int16": integers(-(2**15), 2**15 - 1),
    "uint16": integers(0, 2**16 - 1),
    "int32": integers(-(2**31), 2**31 - 1),
    "uint32": integers(0, 2**32 - 1),
    "int64": integers(-(2**63), 2**63 - 1),
    "uint64": integers(0, 2**64 - 1),
    "single": floats(width=32),
    "double": floats(),
    "guid": uuids(),
    "date_time": datetimes(timezones=just(timezone.utc)),
    "time_span": timedeltas(timedelta(days=-10_675_199), timedelta(days=10_675_199)),
}


def write(kind: str, value: Any, order: ByteOrder = BIG) -> bytes:
    """Write one value."""
    writer = ValueWriter()
    writer.byte_order = order
    getattr(writer, f"write_{kind}")(value)
    return writer.detach_buffer()


def reader_of(data: bytes, order: ByteOrder = BIG) -> ValueReader:
    reader = ValueReader(data)
    reader.byte_order = order
    return reader


def read(kind: str, data: bytes, order: ByteOrder = BIG) -> Any:
    """Read one value, which takes all bytes."""
    reader = reader_of(data, order)
    value = getattr(reader, f"read_{kind}")()
    assert reader.unconsumed_buffer_length == 0
    return value


class VectorTests(SynchronousTestCase):
    """The rows of the table of values."""

    def test_values_are_written_as_in_the_table(self) -> None:
        """In either byte order."""
        for kind, value, little, big in VECTORS:
            self.assertEqual(write(kind, value, LITTLE), bytes.fromhex(little), kind)
            self.assertEqual(write(kind, value, BIG), bytes.fromhex(big), kind)

    def test_values_are_read_as_in_the_table(self) -> None:
        """In either byte order."""
        for kind, value, little, big in VECTORS:
            self.assertEqual(read(kind, bytes.fromhex(little), LITTLE), value, kind)
            self.assertEqual(read(kind, bytes.fromhex(big), BIG), value, kind)

    def test_a_new_reader_and_writer_are_big_endian_and_utf8(self) -> None:
        """Network order, although the other order is the zero of the enumeration."""
        for form in (ValueReader(), ValueWriter()):
            self.assertIs(form.byte_order, ByteOrder.BIG_ENDIAN, f"{form=}, {form.byte_order=}")
            self.assertIs(
                form.unicode_encoding, UnicodeEncoding.UTF8, f"{form=}, {form.unicode_encoding=}"
            )

    def test_the_enumerations_have_their_documented_numbers(self) -> None:
        """And their documented spelling."""
        self.assertEqual(
            [(int(o), o.documented_name) for o in ByteOrder],
            [(0, "LittleEndian"), (1, "BigEndian")],
        )
        self.assertEqual(
            [(int(e), e.documented_name) for e in UnicodeEncoding],
            [(0, "Utf8"), (1, "Utf16LE"), (2, "Utf16BE")],
        )

    def test_every_byte_but_zero_is_true(self) -> None:
        """Not only 01."""
        self.assertEqual([read("boolean", bytes([n])) for n in range(256)], [False] + [True] * 255)

    def test_the_byte_order_can_change_between_values(self) -> None:
        """It holds for the values that follow."""
        writer = ValueWriter()
        writer.write_uint16(1)
        writer.byte_order = LITTLE
        writer.write_uint16(1)
        data = writer.detach_buffer()
        self.assertEqual(data, b"\0\1\1\0")
        reader = ValueReader(data)
        first = reader.read_uint16()
        reader.byte_order = LITTLE
        self.assertEqual((first, reader.read_uint16()), (1, 1))

    def test_raw_bytes_are_never_swapped(self) -> None:
        """In either byte order."""
        self.assertEqual(write("bytes", b"abcd", LITTLE), b"abcd")
        self.assertEqual(write("buffer", b"abcd", LITTLE), b"abcd")
        self.assertEqual(reader_of(b"abcd", LITTLE).read_buffer(4), b"abcd")

    def test_the_samples_greeting_has_nine_bytes(self) -> None:
        """With its length prefix, as in the StreamSocket sample."""
        writer = ValueWriter()
        writer.write_uint32(writer.measure_string("Hello"))
        self.assertEqual(writer.write_string("Hello"), 5)
        self.assertEqual(writer.unstored_buffer_length, 9)
        self.assertEqual(writer.detach_buffer(), bytes.fromhex("00000005 48656c6c6f"))


class RoundTripTests(SynchronousTestCase):
    """Values that are written and read back."""

    def test_every_kind_of_value_comes_back(self) -> None:
        """In either order, over its whole range."""
        for kind, values in KINDS.items():
            given(just(kind), values, ORDERS)(self.assert_comes_back)()

    def assert_comes_back(self, kind: str, value: Any, order: ByteOrder) -> None:
        back = read(kind, write(kind, value, order), order)
        if isinstance(value, float) and math.isnan(value):
            self.assertTrue(math.isnan(back))
        else:
            self.assertEqual(back, value)

    @given(text(), sampled_from(UnicodeEncoding))
    def test_text_comes_back(self, value: str, encoding: UnicodeEncoding) -> None:
        """The size is returned in bytes, and the length to read is given in code units."""
        writer, reader = ValueWriter(), ValueReader()
        writer.unicode_encoding = reader.unicode_encoding = encoding
        measured = writer.measure_string(value)
        self.assertEqual(writer.write_string(value), measured)
        data = writer.detach_buffer()
        self.assertEqual(len(data), measured)
        reader.feed(data)
        unit = 1 if encoding is UnicodeEncoding.UTF8 else 2
        self.assertEqual(reader.read_string(measured // unit), value)

    @given(lists(binary(max_size=40)), integers(1, 7))
    def test_any_cut_gives_the_same_values(self, blobs: list[bytes], step: int) -> None:
        """However the bytes were fed."""
        writer = ValueWriter()
        for blob in blobs:
            writer.write_uint16(len(blob))
            writer.write_bytes(blob)
        data = writer.detach_buffer()
        reader = ValueReader()
        for start in range(0, len(data), step):
            reader.feed(data[start : start + step])
        self.assertEqual([reader.read_bytes(reader.read_uint16()) for _ in blobs], blobs)

    def test_a_time_of_another_zone_comes_back_in_utc(self) -> None:
        """It is the same moment."""
        there = datetime(2020, 3, 14, 16, 26, 35, tzinfo=timezone(timedelta(hours=1)))
        self.assertEqual(read("date_time", write("date_time", there)), there)

    def test_a_tenth_of_a_microsecond_is_rounded_down(self) -> None:
        """Python has no smaller unit than the microsecond."""
        self.assertEqual(read("time_span", write("int64", 19)), timedelta(microseconds=1))
        self.assertEqual(read("time_span", write("int64", -1)), timedelta(microseconds=-1))


RECORD = (0x1337, -2, True, b"ab", -0.5)
RECORD_FORMAT = "Hi?2sf"
LITTLE_RECORD = bytes.fromhex("37 13 fe ff ff ff 01 61 62 00 00 00 bf")
BIG_RECORD = bytes.fromhex("13 37 ff ff ff fe 01 61 62 bf 00 00 00")

#: The codes of numbers in `struct`, and the methods of the same values.
CODES = dict(zip("B?hHiIqQfd", list(KINDS)[:10], strict=True))


class RecordTests(SynchronousTestCase):
    """Several values by one format string."""

    def test_a_record_has_the_byte_order_of_its_reader_and_writer(self) -> None:
        """Values are not aligned, and bytes are never swapped."""
        for order, record in ((LITTLE, LITTLE_RECORD), (BIG, BIG_RECORD)):
            writer = ValueWriter()
            writer.byte_order = order
            writer.write_struct(RECORD_FORMAT, *RECORD)
            self.assertEqual(writer.detach_buffer(), record, f"{order=}")
            reader = reader_of(record, order)
            self.assertEqual(reader.read_struct(RECORD_FORMAT), RECORD, f"{order=}")
            self.assertEqual(reader.unconsumed_buffer_length, 0, f"{order=}")

    def test_a_pad_byte_is_written_as_zero_and_read_as_nothing(self) -> None:
        """When it is read, a pad byte may have any value."""
        writer = ValueWriter()
        writer.write_struct("BxB", 1, 2)
        self.assertEqual(writer.detach_buffer(), b"\1\0\2")
        self.assertEqual(reader_of(b"\1\xff\2").read_struct("BxB"), (1, 2))

    def test_a_record_of_no_bytes_is_no_error(self) -> None:
        """A field of bytes may have the count 0."""
        writer = ValueWriter()
        writer.write_struct("0s", b"")
        writer.write_struct("")
        self.assertEqual(writer.detach_buffer(), b"")
        self.assertEqual(reader_of(b"").read_struct("0s"), (b"",))
        self.assertEqual(reader_of(b"a").read_struct(""), ())

    @given(data(), ORDERS, integers(1, 9))
    def test_a_record_is_its_values_one_by_one(
        self, draw: DataObject, order: ByteOrder, step: int
    ) -> None:
        """The bytes may be fed in any pieces, and have either byte order."""
        codes = draw.draw(lists(sampled_from(sorted(CODES)), max_size=8))
        values = tuple(draw.draw(KINDS[CODES[code]]) for code in codes)
        record, one_by_one = ValueWriter(), ValueWriter()
        record.byte_order = one_by_one.byte_order = order
        record.write_struct("".join(codes), *values)
        for code, value in zip(codes, values, strict=True):
            getattr(one_by_one, f"write_{CODES[code]}")(value)
        written = record.detach_buffer()
        self.assertEqual(written, one_by_one.detach_buffer())
        reader, single_reader = reader_of(b"", order), reader_of(written, order)
        for start in range(0, len(written), step):
            reader.feed(written[start : start + step])
        singly = tuple(getattr(single_reader, f"read_{CODES[code]}")() for code in codes)
        # As text, since NaN differs from itself.
        self.assertEqual(repr(reader.read_struct("".join(codes))), repr(singly))

    def test_a_record_that_is_not_loaded_as_a_whole_is_left(self) -> None:
        """If one byte is missing, the error has both numbers."""
        reader = reader_of(BIG_RECORD[:-1])
        error = self.assertRaises(OutOfBoundsError, reader.read_struct, RECORD_FORMAT)
        self.assertEqual((error.wanted, error.available), (13, 12))
        reader.feed(BIG_RECORD[-1:])
        self.assertEqual(reader.read_struct(RECORD_FORMAT), RECORD)

    def test_a_format_that_names_a_byte_order_is_refused(self) -> None:
        """The reader has the byte order; no native size or alignment is on the wire."""
        for sign in "<>!=@":
            error = self.assertRaises(ValueError, reader_of(b"ab").read_struct, f"{sign}H")
            self.assertIn("is not the format of a record", str(error), f"{sign=}")
            self.assertRaises(ValueError, ValueWriter().write_struct, f" {sign}H", 1)

    def test_what_is_no_format_is_refused(self) -> None:
        """Codes that exist in native order only are refused, too."""
        for wrong in ("n", "N", "P", "J", "3", "H\0", "é", "99999999999999999999s"):
            reader, writer = reader_of(b"abcdefgh"), ValueWriter()
            with self.assertRaises(ValueError, msg=f"{wrong=}"):
                reader.read_struct(wrong)
            self.assertEqual(reader.unconsumed_buffer_length, 8, f"{wrong=}")
            with self.assertRaises(ValueError, msg=f"{wrong=}"):
                writer.write_struct(wrong, 1)
        for wrong_type in (b"H", 5, None):
            self.assertRaises(TypeError, reader_of(b"ab").read_struct, wrong_type)

    def test_values_that_do_not_fit_their_format_are_refused(self) -> None:
        """Nothing is written, not even the values that fit."""
        for form, values in (
            ("BB", (1, 256)),
            ("BB", (1,)),
            ("BB", (1, 2, 3)),
            ("Bf", (1, 1e39)),
            ("BB", (1, 1.5)),
            ("Bq", (1, 2**63)),
            ("BB", (1, b"a")),
        ):
            writer = ValueWriter()
            error = self.assertRaises(ValueError, writer.write_struct, form, *values)
            self.assertIn("the values do not fit 'B", str(error), f"{form=}, {values=}")
            self.assertEqual(writer.unstored_buffer_length, 0, f"{form=}, {values=}")
        self.assertRaises(TypeError, ValueWriter().write_struct, "Bi", 1, "2")

    def test_formats_without_number_need_bounded_memory(self) -> None:
        """A program may make a new format for each record."""
        reader = reader_of(bytes(sum(range(600))))
        sizes = [len(reader.read_struct(f"{size}s")[0]) for size in range(600)]
        self.assertEqual(sizes, list(range(600)))


class PieceTests(SynchronousTestCase):
    """Values that span pieces, and the bytes behind them."""

    def test_a_value_across_three_pieces_is_joined(self) -> None:
        """The values behind it are read from its end on."""
        reader = reader_of(b"\0\0")
        for piece in (b"\0", b"\5He", b"llo", b"\0\7"):
            reader.feed(piece)
        self.assertEqual(reader.read_uint32(), 5)
        self.assertEqual(reader.read_string(5), "Hello")
        self.assertEqual(reader.read_uint16(), 7)
        self.assertEqual(reader.unconsumed_buffer_length, 0)

    def test_refused_values_across_pieces_are_left(self) -> None:
        """For example, a malformed text, or a date that is too late."""
        reader = reader_of(b"\x7f")
        reader.feed(b"\xff" * 8)
        self.assertRaises(TextError, reader.read_string, 2)
        self.assertEqual(reader.unconsumed_buffer_length, 9)
        self.assertRaises(RemoteProtocolError, reader.read_date_time)
        self.assertEqual(reader.detach_buffer(), b"\x7f" + b"\xff" * 8)

    def test_a_mutable_piece_is_read_as_bytes(self) -> None:
        """The first piece or a later one may be mutable."""
        pieces: list[Any] = [bytearray(b"ab"), bytearray(b"cd")]
        reader = reader_of(b"")
        for piece in pieces:
            reader.feed(piece)
        self.assertIs(type(reader.read_bytes(3)), bytes)
        self.assertEqual(reader.detach_buffer(), b"d")

    def test_the_size_is_right_between_any_two_writes(self) -> None:
        """The size is read after some writes only."""
        writer = ValueWriter()
        sizes = []
        for count in range(5):
            writer.write_bytes(bytes(count))
            if count % 2:
                sizes.append(writer.unstored_buffer_length)
        self.assertEqual([*sizes, writer.unstored_buffer_length], [1, 6, 10])
        self.assertEqual(len(writer.detach_buffer()), 10)
        writer.write_byte(1)
        self.assertEqual(writer.unstored_buffer_length, 1)


class TextTests(SynchronousTestCase):
    """Text in each encoding."""

    def test_text_has_no_byte_order_mark_and_no_terminator(self) -> None:
        """Only the text itself is written."""
        for encoding, expected in (
            (UnicodeEncoding.UTF8, "c3a9"),
            (UnicodeEncoding.UTF16_LE, "e900"),
            (UnicodeEncoding.UTF16_BE, "00e9"),
        ):
            writer = ValueWriter()
            writer.unicode_encoding = encoding
            writer.write_string("é")
            self.assertEqual(writer.detach_buffer(), bytes.fromhex(expected), f"{encoding=}")

    def test_the_encoding_does_not_follow_the_byte_order(self) -> None:
        """UTF-16LE stays UTF-16LE in big-endian order."""
        writer = ValueWriter()
        writer.byte_order, writer.unicode_encoding = BIG, UnicodeEncoding.UTF16_LE
        writer.write_string("A")
        self.assertEqual(writer.detach_buffer(), b"A\0")

    def test_malformed_text_is_refused_and_left(self) -> None:
        """Nothing is replaced, and the bytes stay in the reader."""
        reader = ValueReader(b"\xffok")
        error = self.assertRaises(TextError, reader.read_string, 1)
        self.assertIsInstance(error, RemoteProtocolError)
        self.assertEqual(error.hresult, 0x80070459)
        self.assertEqual(reader.read_bytes(3), b"\xffok")

    def test_half_a_surrogate_pair_is_refused(self) -> None:
        """A lone surrogate is no text."""
        reader = ValueReader(b"\xd8\x00")
        reader.unicode_encoding = UnicodeEncoding.UTF16_BE
        self.assertRaises(TextError, reader.read_string, 1)
        self.assertRaises(ValueError, ValueWriter().write_string, "\ud800")
        self.assertRaises(ValueError, ValueWriter().measure_string, "\ud800")


class RefusalTests(SynchronousTestCase):
    """Refused calls: they raise an error at once, and change nothing."""

    def test_reading_past_the_end_takes_nothing(self) -> None:
        """For each kind, one byte short; the error is E_BOUNDS."""
        for kind, value, _little, _big in VECTORS:
            reader = ValueReader(write(kind, value)[:-1])
            size = reader.unconsumed_buffer_length
            error = self.assertRaises(OutOfBoundsError, getattr(reader, f"read_{kind}"))
            self.assertEqual(
                (error.hresult, error.wanted, error.available),
                (0x8000000B, size + 1, size),
                f"{kind=}, {value=}",
            )
            self.assertEqual(reader.unconsumed_buffer_length, size, f"{kind=}, {value=}")

    def test_out_of_bounds_is_a_value_error_too(self) -> None:
        """The error is both a `LocalProtocolError` and a ValueError, with both numbers."""
        error = self.assertRaises(OutOfBoundsError, ValueReader(b"ab").read_bytes, 3)
        self.assertIsInstance(error, LocalProtocolError)
        self.assertIsInstance(error, ValueError)
        self.assertEqual(str(error), "cannot read 3 bytes: 2 are loaded")

    def test_negative_counts_are_refused(self) -> None:
        """A slice would read from the other end."""
        for method in ("read_bytes", "read_buffer", "read_string"):
            self.assertRaises(ValueError, getattr(ValueReader(b"ab"), method), -1)

    def test_numbers_out_of_range_are_refused(self) -> None:
        """One above and one below each integer type; too large for a single."""
        for kind, low, high in (
            ("byte", 0, 2**8),
            ("int16", -(2**15), 2**15),
            ("uint16", 0, 2**16),
            ("int32", -(2**31), 2**31),
            ("uint32", 0, 2**32),
            ("int64", -(2**63), 2**63),
            ("uint64", 0, 2**64),
        ):
            self.assert_refused(kind, low - 1)
            self.assert_refused(kind, high)
        self.assert_refused("single", 1e39)

    def test_a_value_that_is_no_number_is_a_type_error(self) -> None:
        """As in Python's own functions."""
        writer = ValueWriter()
        self.assertRaises(TypeError, writer.write_int32, "1")
        self.assertRaises(TypeError, writer.write_bytes, 5)

    def test_a_time_without_a_zone_is_refused(self) -> None:
        """It could be any of twenty-four moments."""
        self.assert_refused("date_time", datetime(2020, 1, 1))  # noqa: DTZ001 - what is refused

    def test_a_zone_without_an_offset_is_refused(self) -> None:
        """A ``tzinfo`` may return None; then the moment is unknown."""

        class Unknown(tzinfo):
            def utcoffset(self, _moment: datetime | None) -> None:
                return None

            tzname = dst = utcoffset

        self.assert_refused("date_time", datetime(2020, 1, 1, tzinfo=Unknown()))

    def test_a_time_that_cannot_be_read_back_is_refused(self) -> None:
        """East of Greenwich the year 1 begins in the year 0 of UTC; west of it 9999 ends later."""
        for hours, moment in ((14, FIRST), (-12, LAST)):
            there = moment.replace(tzinfo=timezone(timedelta(hours=hours)))
            self.assert_refused("date_time", there)
        for moment in (FIRST, LAST):
            self.assertEqual(read("date_time", write("date_time", moment)), moment, f"{moment=}")

    @given(
        datetimes(timezones=ZONES),
        ORDERS,
    )
    def test_a_written_time_reads_back(self, moment: datetime, order: ByteOrder) -> None:
        """In any zone the same moment comes back, or it is not written."""
        writer, reader = ValueWriter(), ValueReader()
        writer.byte_order = reader.byte_order = order
        try:
            writer.write_date_time(moment)
        except ValueError:
            # Only at the two ends, where the moment is in no year of UTC.
            self.assertRaises(OverflowError, moment.astimezone, timezone.utc)
            self.assertEqual(writer.unstored_buffer_length, 0)
        else:
            reader.feed(writer.detach_buffer())
            self.assertEqual(reader.read_date_time(), moment.astimezone(timezone.utc))

    @given(timedeltas())
    def test_a_written_duration_reads_back(self, span: timedelta) -> None:
        """Or it is refused."""
        writer = ValueWriter()
        try:
            writer.write_time_span(span)
        except ValueError:
            self.assertGreater(abs(span), timedelta(days=10_675_198))
        else:
            self.assertEqual(ValueReader(writer.detach_buffer()).read_time_span(), span)

    def test_a_date_beyond_python_is_an_error_of_the_peer(self) -> None:
        """Year 30,000, for example; its bytes are left."""
        for ticks in (2**63 - 1, -(2**63)):
            reader = ValueReader(write("int64", ticks))
            self.assertRaises(RemoteProtocolError, reader.read_date_time)
            self.assertEqual(reader.read_int64(), ticks, f"{ticks=}")

    def test_a_too_long_duration_is_refused(self) -> None:
        """Python allows longer ones than the format."""
        self.assert_refused("time_span", timedelta.max)

    def test_a_part_outside_its_buffer_is_refused(self) -> None:
        """It is not cut."""
        writer = ValueWriter()
        for start, count in ((0, 5), (3, 2), (-1, 1), (5, None), (0, -1)):
            self.assertRaises(ValueError, writer.write_buffer, b"abcd", start, count)
        writer.write_buffer(b"abcd", 1, 2)
        writer.write_buffer(b"abcd", 3)
        self.assertEqual(writer.detach_buffer(), b"bcd")

    def assert_refused(self, kind: str, value: Any) -> None:
        writer = ValueWriter()
        self.assertRaises(ValueError, getattr(writer, f"write_{kind}"), value)
        self.assertEqual(writer.unstored_buffer_length, 0)


class BufferTests(SynchronousTestCase):
    """Whole buffers."""

    def test_a_detached_writer_is_empty_and_usable(self) -> None:
        """Bytes written before are not written again."""
        writer = ValueWriter()
        writer.write_byte(1)
        first = writer.detach_buffer()
        writer.write_byte(2)
        self.assertEqual((first, writer.detach_buffer()), (b"\1", b"\2"))
        self.assertEqual(writer.unstored_buffer_length, 0)

    def test_a_detached_reader_returns_the_rest(self) -> None:
        """The reader is empty then."""
        reader = ValueReader(b"abc")
        reader.read_byte()
        self.assertEqual(reader.detach_buffer(), b"bc")
        self.assertEqual(reader.unconsumed_buffer_length, 0)

    def test_any_buffer_is_copied(self) -> None:
        """A change to it afterwards changes nothing."""
        loose = bytearray(b"abc")
        writer, reader = ValueWriter(), ValueReader(loose)
        writer.write_bytes(memoryview(loose)[:2])
        writer.write_buffer(loose, 2)
        loose[:] = b"xyz"
        self.assertEqual(writer.detach_buffer(), b"abc")
        self.assertEqual(reader.read_bytes(3), b"abc")
