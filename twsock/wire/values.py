"""
Reader and writer of the values of ``Windows.Storage.Streams``: bytes ↔ **values**.

The values are integers, floating-point numbers, GUIDs, dates, durations and text, each without a
type, a name or a length in front. `twsock.DataReader` and `twsock.DataWriter` add a stream. A
reader holds the bytes that were fed and not read. It holds a whole piece until all of that piece
was read and more bytes were fed. A writer holds the bytes that were written and not taken. The
bytes of each value: docs/wire/values.rst.
"""

from __future__ import annotations

import struct
from datetime import datetime, timedelta, timezone
from itertools import islice
from typing import Any, Final, TypeVar
from uuid import UUID

from twsock._integers import checked_integer
from twsock.errors import LocalProtocolError, RemoteProtocolError
from twsock.wire._value_forms import (
    BOOLEAN,
    BYTE,
    CODECS,
    UNIT_SIZES,
    ByteOrder,
    Form,
    Format,
    UnicodeEncoding,
    check_type,
)
from twsock.wire.byte_queue import Buffer, ByteQueue, as_bytes

__all__ = [
    "ByteOrder",
    "OutOfBoundsError",
    "TextError",
    "UnicodeEncoding",
    "ValueReader",
    "ValueWriter",
]


# HRESULTs of values only: E_BOUNDS, and ERROR_NO_UNICODE_TRANSLATION of Win32.
_E_BOUNDS: Final = 0x8000_000B
_NO_UNICODE_TRANSLATION: Final = 0x8007_0459

#: The epoch of FILETIME, in units of 100 ns.
_EPOCH: Final = datetime(1601, 1, 1, tzinfo=timezone.utc)
#: The first and the last moment that a ``datetime`` can hold, relative to the epoch.
_FIRST: Final = datetime.min.replace(tzinfo=timezone.utc) - _EPOCH
_LAST: Final = datetime.max.replace(tzinfo=timezone.utc) - _EPOCH
_TICKS_PER_MICROSECOND: Final = 10
_MICROSECOND: Final = timedelta(microseconds=1)

_ValueT = TypeVar("_ValueT")


class OutOfBoundsError(LocalProtocolError, ValueError):
    """
    A read of more bytes than are loaded (HRESULT ``E_BOUNDS``). Nothing was taken.

    :ivar wanted: the size of the value, in bytes.
    :ivar available: the number of loaded bytes.
    """

    _class_hresult = _E_BOUNDS

    def __init__(self, wanted: int, available: int) -> None:
        super().__init__(f"cannot read {wanted} bytes: {available} are loaded")
        self.wanted = wanted
        self.available = available


class TextError(RemoteProtocolError):
    """The bytes are not text in the current encoding. Nothing was taken."""

    _class_hresult = _NO_UNICODE_TRANSLATION


class ValueReader(Form):
    """
    Reads values from the front of the bytes that were fed.

    A read that fails takes nothing.

    :param data: the first bytes.
    """

    def __init__(self, data: Buffer = b"") -> None:
        super().__init__()
        # The bytes to decode, and the index of the first one that was not read. All are in one
        # object, so that the read of a value is one call of `struct`.
        self._front = as_bytes(data)
        self._position = 0
        # Bytes that were fed while `_front` had bytes left.
        self._queue = ByteQueue()

    @property
    def unconsumed_buffer_length(self) -> int:
        """The number of bytes that are loaded and not read."""
        return len(self._front) - self._position + self._queue.size

    def feed(self, data: bytes) -> None:
        """Append bytes."""
        if self._position == len(self._front) and not self._queue.size and type(data) is bytes:
            self._front = data
            self._position = 0
        else:
            self._queue.feed(data)

    def read_byte(self) -> int:
        """Read a byte, 0 to 255."""
        return self._unpack(BYTE)[0]

    def read_boolean(self) -> bool:
        """Read one byte, of which every value but 0 is true."""
        return self._unpack(BOOLEAN)[0]

    def read_int16(self) -> int:
        """Read two bytes as a signed number."""
        return self._unpack(self._formats.int16)[0]

    def read_uint16(self) -> int:
        """Read two bytes as an unsigned number."""
        return self._unpack(self._formats.uint16)[0]

    def read_int32(self) -> int:
        """Read four bytes as a signed number."""
        return self._unpack(self._formats.int32)[0]

    def read_uint32(self) -> int:
        """Read four bytes as an unsigned number."""
        return self._unpack(self._formats.uint32)[0]

    def read_int64(self) -> int:
        """Read eight bytes as a signed number."""
        return self._unpack(self._formats.int64)[0]

    def read_uint64(self) -> int:
        """Read eight bytes as an unsigned number."""
        return self._unpack(self._formats.uint64)[0]

    def read_single(self) -> float:
        """Read four bytes as an IEEE 754 number."""
        return self._unpack(self._formats.single)[0]

    def read_double(self) -> float:
        """Read eight bytes as an IEEE 754 number."""
        return self._unpack(self._formats.double)[0]

    def read_guid(self) -> UUID:
        """
        Read sixteen bytes as a GUID.

        A 32-bit, two 16-bit and a *64-bit* number, each in the byte order. So in big-endian order
        the last eight bytes are reversed against :rfc:`9562`.
        """
        first, second, third, last = self._unpack(self._formats.guid)
        head = first << 32 | second << 16 | third
        return UUID(bytes=head.to_bytes(8, "big") + last.to_bytes(8, "little"))

    def read_date_time(self) -> datetime:
        """
        Read eight bytes: a signed count of 100 ns since 1601-01-01 UTC.

        :returns: in UTC, rounded down to a microsecond.
        :raises RemoteProtocolError: when it is outside the years 1 to 9999, which a ``datetime``
            cannot hold. Nothing was taken.
        """
        ticks = self.read_int64()
        try:
            return _EPOCH + ticks // _TICKS_PER_MICROSECOND * _MICROSECOND
        except OverflowError as error:
            self._position -= self._formats.int64.size
            raise RemoteProtocolError(
                f"a date of {ticks} units of 100 ns since 1601 is outside the years 1 to 9999"
            ) from error

    def read_time_span(self) -> timedelta:
        """Read eight bytes: a signed count of 100 ns; rounded down to a microsecond."""
        return self.read_int64() // _TICKS_PER_MICROSECOND * _MICROSECOND

    def read_bytes(self, count: int) -> bytes:
        """
        Read bytes.

        :param count: how many; 0 or more.
        :raises OutOfBoundsError: when fewer are loaded.
        """
        if type(count) is not int:
            count = checked_integer(count, "a count of bytes")
        if count < 0:
            raise ValueError(f"a count of bytes is 0 or more, not {count}")
        end = self._position + count
        if end > len(self._front):
            self._gather(count)
            end = count
        taken = self._front[self._position : end]
        self._position = end
        return taken

    def read_buffer(self, length: int) -> bytes:
        """Read bytes; the same as `read_bytes`."""
        return self.read_bytes(length)

    def read_string(self, code_unit_count: int) -> str:
        """
        Read text.

        :param code_unit_count: units of the encoding: *bytes* of UTF-8, *pairs* of bytes of UTF-16.
            Never characters.
        :raises TextError: when the bytes are not text in this encoding. They stay loaded.
        """
        count = checked_integer(code_unit_count, "a count of code units")
        raw = self.read_bytes(count * UNIT_SIZES[self._encoding])
        try:
            return raw.decode(CODECS[self._encoding])
        except UnicodeDecodeError as error:
            self._position -= len(raw)
            raise TextError(
                f"not {self._encoding.documented_name}: {error.reason} at byte {error.start}"
            ) from error

    def read_struct(self, format: str) -> tuple[Any, ...]:
        """
        Read a record: the values of a format string of `struct`, in the reader's byte order.

        The values have the sizes that `struct` calls standard, and nothing between them.

        :param format: without a sign for the byte order, such as ``"HIqd"``. It comes from the
            program, never from the peer: the count in ``"99s"`` takes as many bytes.
        :raises OutOfBoundsError: when fewer bytes are loaded than the whole record has.
        :raises ValueError: when ``format`` is malformed, or names a byte order.
        :raises TypeError: when ``format`` is not a ``str``.
        """
        return self._unpack(self._formats.records[format])

    def detach_buffer(self) -> bytes:
        """Remove and return all bytes that were not read."""
        return self.read_bytes(self.unconsumed_buffer_length)

    def _unpack(self, form: Format[_ValueT]) -> tuple[_ValueT, ...]:
        position = self._position
        unpack_from = form.unpack_from  # A method call of `form` costs 7% of a read more (3.11).
        try:
            values = unpack_from(self._front, position)
        except struct.error:
            # Only too few bytes can cause this error.
            self._gather(form.size)
            return self._unpack(form)
        self._position = position + form.size
        return values

    def _gather(self, count: int) -> None:
        """
        Join all loaded bytes, for a value that is longer than the rest of the front.

        Only that rest may be joined again, so the cost of each byte does not grow with the number
        of pieces.

        :raises OutOfBoundsError: when fewer than ``count`` bytes are loaded; nothing was joined.
        """
        loaded = self.unconsumed_buffer_length
        if count > loaded:
            raise OutOfBoundsError(count, loaded)
        self._front = self._front[self._position :] + self._queue.take(self._queue.size)
        self._position = 0

    def _forget_read(self) -> None:
        """Free the front if all of it was read; a read leaves it, for speed."""
        if self._position == len(self._front):
            self._front = b""
            self._position = 0


class ValueWriter(Form):
    """
    Appends values to a buffer.

    A write that fails adds nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []
        # The size of the pieces measured so far, and their number.
        self._size = 0
        self._measured = 0

    @property
    def unstored_buffer_length(self) -> int:
        """The number of bytes that were written and not taken."""
        # Each piece is measured once, when the size is read.
        self._size += sum(map(len, islice(self._pieces, self._measured, None)))
        self._measured = len(self._pieces)
        return self._size

    def write_byte(self, value: int) -> None:
        """
        Write a byte.

        :raises ValueError: when it is not 0 to 255.
        """
        self._write(BYTE, value)

    def write_boolean(self, value: bool) -> None:
        """Write 1 or 0 as one byte."""
        self._pieces.append(b"\1" if value else b"\0")

    def write_int16(self, value: int) -> None:
        """
        Write a signed number as two bytes.

        :raises ValueError: when it does not fit, as in every write of a number.
        """
        self._write(self._formats.int16, value)

    def write_uint16(self, value: int) -> None:
        """Write an unsigned number as two bytes."""
        self._write(self._formats.uint16, value)

    def write_int32(self, value: int) -> None:
        """Write a signed number as four bytes."""
        self._write(self._formats.int32, value)

    def write_uint32(self, value: int) -> None:
        """Write an unsigned number as four bytes."""
        self._write(self._formats.uint32, value)

    def write_int64(self, value: int) -> None:
        """Write a signed number as eight bytes."""
        self._write(self._formats.int64, value)

    def write_uint64(self, value: int) -> None:
        """Write an unsigned number as eight bytes."""
        self._write(self._formats.uint64, value)

    def write_single(self, value: float) -> None:
        """Write an IEEE 754 number as four bytes, rounded to what they can hold."""
        self._write(self._formats.single, value)

    def write_double(self, value: float) -> None:
        """Write an IEEE 754 number as eight bytes."""
        self._write(self._formats.double, value)

    def write_guid(self, value: UUID) -> None:
        """
        Write a GUID as sixteen bytes; see `ValueReader.read_guid` for their order.

        :raises TypeError: when it is not a ``UUID``.
        """
        check_type(value, UUID)
        last = int.from_bytes(value.bytes[8:], "little")
        number = value.int
        self._pieces.append(
            self._formats.guid.pack(
                number >> 96, number >> 80 & 0xFFFF, number >> 64 & 0xFFFF, last
            )
        )

    def write_date_time(self, value: datetime) -> None:
        """
        Write a date and time as eight bytes: a signed count of 100 ns since 1601-01-01 UTC.

        `ValueReader.read_date_time` returns the same time in UTC.

        :raises ValueError: when it has no time zone, or is outside the years 1 to 9999 in UTC, and
            could not be read back as a ``datetime``.
        :raises TypeError: when it is not a ``datetime``.
        """
        check_type(value, datetime)
        # `utcoffset` and not `tzinfo`: a time zone may have no offset.
        if value.utcoffset() is None:
            raise ValueError(f"{value!r} has no time zone")
        since = value - _EPOCH
        if not _FIRST <= since <= _LAST:
            raise ValueError(f"{value!r} is outside the years 1 to 9999 in UTC")
        self._write(self._formats.int64, since // _MICROSECOND * _TICKS_PER_MICROSECOND)

    def write_time_span(self, value: timedelta) -> None:
        """
        Write a duration as eight bytes: a signed count of 100 ns.

        :raises ValueError: when it is longer than 10,675,199 days and some hours.
        :raises TypeError: when it is not a ``timedelta``.
        """
        check_type(value, timedelta)
        self._write(self._formats.int64, value // _MICROSECOND * _TICKS_PER_MICROSECOND)

    def write_bytes(self, value: Buffer) -> None:
        """Write bytes; a mutable buffer is copied."""
        self._pieces.append(as_bytes(value))

    def write_buffer(self, buffer: Buffer, start: int = 0, count: int | None = None) -> None:
        """
        Write a part of a buffer; a mutable buffer is copied.

        :param start: the index of the first byte.
        :param count: the number of bytes to write; None for all after ``start``.
        :raises ValueError: when that part is not within the buffer.
        """
        view = memoryview(buffer).cast("B")
        start = checked_integer(start, "start")
        count = len(view) - start if count is None else checked_integer(count, "count")
        if not (start >= 0 and count >= 0 and start + count <= len(view)):
            raise ValueError(f"{count} bytes from {start} on are not within {len(view)}")
        self._pieces.append(bytes(view[start : start + count]))

    def write_string(self, value: str) -> int:
        """
        Write text without a length, an end mark or a byte order mark.

        :returns: its size, in *bytes*.
        :raises ValueError: when it has no form in the encoding (a lone surrogate).
        :raises TypeError: when it is not a ``str``.
        """
        check_type(value, str)
        encoded = value.encode(CODECS[self._encoding])
        self._pieces.append(encoded)
        return len(encoded)

    def measure_string(self, value: str) -> int:
        """
        Return the size of a text in *bytes*. Nothing is written.

        :raises ValueError: when it has no form in the encoding (a lone surrogate).
        :raises TypeError: when it is not a ``str``.
        """
        check_type(value, str)
        return len(value.encode(CODECS[self._encoding]))

    def write_struct(self, format: str, *values: object) -> None:
        """
        Write a record: values by a format string of `struct`, in the writer's byte order.

        :param format: see `ValueReader.read_struct`.
        :param values: one for each item of the format.
        :raises ValueError: when ``format`` is malformed or names a byte order, when the number of
            values differs, or a value does not fit. Nothing was written.
        :raises TypeError: when the format is not a ``str``, or a value neither a number nor bytes.
        """
        pack = self._formats.records[format].pack
        try:
            packed = pack(*values)
        except (struct.error, OverflowError) as error:
            for value in values:
                if not isinstance(value, (int, float, bytes, bytearray)):
                    raise TypeError(f"a value is a number or bytes, not {value!r}") from error
            # Without the values: their bytes may be secret.
            raise ValueError(f"the values do not fit {format!r}: {error}") from error
        self._pieces.append(packed)

    def detach_buffer(self) -> bytes:
        """Remove and return all bytes that were written; the writer stays usable."""
        pieces, self._pieces = self._pieces, []
        self._size = self._measured = 0
        return b"".join(pieces)

    def _write(self, form: Format[_ValueT], value: _ValueT) -> None:
        pack = form.pack
        try:
            packed = pack(value)
        except (struct.error, OverflowError) as error:
            if not isinstance(value, (int, float)):
                raise TypeError(f"a value is a number, not {value!r}") from error
            raise ValueError(f"{value!r} does not fit: {error}") from error
        self._pieces.append(packed)
