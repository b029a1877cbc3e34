"""
Reader and writer of the values of ``Windows.Storage.Streams``: bytes ↔ **values**.

The values are integers, floating-point numbers, GUIDs, dates, durations and text, each without a
type, a name or a length in front. `twsock.DataReader` and `twsock.DataWriter` add a stream. A
reader holds the bytes that were fed and not read, a writer those that were written and not taken.
The bytes of each value: docs/wire/values.rst.
"""

from __future__ import annotations

import struct
import typing
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Final
from uuid import UUID

from twsock._enums import DocumentedEnum
from twsock._integers import checked_integer
from twsock.errors import LocalProtocolError, RemoteProtocolError
from twsock.wire.byte_queue import Buffer, ByteQueue, as_bytes

__all__ = [
    "ByteOrder",
    "OutOfBoundsError",
    "TextError",
    "UnicodeEncoding",
    "ValueReader",
    "ValueWriter",
]


class ByteOrder(DocumentedEnum):
    """The order of the bytes of a number; ``Windows.Storage.Streams.ByteOrder``."""

    LITTLE_ENDIAN = 0
    BIG_ENDIAN = 1


class UnicodeEncoding(DocumentedEnum):
    """The encoding of text; ``Windows.Storage.Streams.UnicodeEncoding``."""

    UTF8 = 0
    UTF16_LE = 1
    UTF16_BE = 2


#: Both as in WinRT, where the zero of the enumeration is not the default: network order.
_DEFAULT_ORDER: Final = ByteOrder.BIG_ENDIAN
_DEFAULT_ENCODING: Final = UnicodeEncoding.UTF8

# Strict, and without a byte order mark, which Python's "utf-16" would write and remove.
_CODECS: Final[Mapping[UnicodeEncoding, str]] = {
    UnicodeEncoding.UTF8: "utf-8",
    UnicodeEncoding.UTF16_LE: "utf-16-le",
    UnicodeEncoding.UTF16_BE: "utf-16-be",
}
_UNIT_SIZES: Final[Mapping[UnicodeEncoding, int]] = {
    UnicodeEncoding.UTF8: 1,
    UnicodeEncoding.UTF16_LE: 2,
    UnicodeEncoding.UTF16_BE: 2,
}

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


class _Formats(typing.NamedTuple):
    """Each fixed form in one byte order."""

    int16: struct.Struct
    uint16: struct.Struct
    int32: struct.Struct
    uint32: struct.Struct
    int64: struct.Struct
    uint64: struct.Struct
    single: struct.Struct
    double: struct.Struct
    # The last eight bytes of a GUID are one number here, so they turn round in big-endian order:
    # neither ``UUID.bytes`` nor ``UUID.bytes_le``.
    guid: struct.Struct


_FORMATS: Final[Mapping[ByteOrder, _Formats]] = {
    order: _Formats(*(struct.Struct(sign + code) for code in (*"hHiIqQfd", "IHHQ")))
    for order, sign in ((ByteOrder.LITTLE_ENDIAN, "<"), (ByteOrder.BIG_ENDIAN, ">"))
}


_BYTE: Final = struct.Struct("B")


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


class _Form:
    """The settings that a reader and a writer have to agree on."""

    def __init__(self) -> None:
        self._order = _DEFAULT_ORDER
        self._formats = _FORMATS[_DEFAULT_ORDER]
        self._encoding = _DEFAULT_ENCODING

    @property
    def byte_order(self) -> ByteOrder:
        """Order of the bytes of each number, date, duration and GUID; at first big-endian."""
        return self._order

    @byte_order.setter
    def byte_order(self, order: ByteOrder) -> None:
        self._order = ByteOrder(order)
        self._formats = _FORMATS[self._order]

    @property
    def unicode_encoding(self) -> UnicodeEncoding:
        """Encoding of text; at first UTF-8."""
        return self._encoding

    @unicode_encoding.setter
    def unicode_encoding(self, encoding: UnicodeEncoding) -> None:
        self._encoding = UnicodeEncoding(encoding)


class ValueReader(_Form):
    """
    Reads values from the front of the bytes that were fed.

    A read that fails takes nothing.

    :param data: the first bytes.
    """

    def __init__(self, data: Buffer = b"") -> None:
        super().__init__()
        self._queue = ByteQueue()
        self._queue.feed(as_bytes(data))

    @property
    def unconsumed_buffer_length(self) -> int:
        """The number of bytes that are loaded and not read."""
        return self._queue.size

    def feed(self, data: bytes) -> None:
        """Append bytes."""
        self._queue.feed(data)

    def read_byte(self) -> int:
        """Read a byte, 0 to 255."""
        return self.read_bytes(1)[0]

    def read_boolean(self) -> bool:
        """Read one byte, of which every value but 0 is true."""
        return self.read_bytes(1) != b"\0"

    def read_int16(self) -> int:
        """Read two bytes as a signed number."""
        return self._read_integer(self._formats.int16)

    def read_uint16(self) -> int:
        """Read two bytes as an unsigned number."""
        return self._read_integer(self._formats.uint16)

    def read_int32(self) -> int:
        """Read four bytes as a signed number."""
        return self._read_integer(self._formats.int32)

    def read_uint32(self) -> int:
        """Read four bytes as an unsigned number."""
        return self._read_integer(self._formats.uint32)

    def read_int64(self) -> int:
        """Read eight bytes as a signed number."""
        return self._read_integer(self._formats.int64)

    def read_uint64(self) -> int:
        """Read eight bytes as an unsigned number."""
        return self._read_integer(self._formats.uint64)

    def read_single(self) -> float:
        """Read four bytes as an IEEE 754 number."""
        return self._read_real(self._formats.single)

    def read_double(self) -> float:
        """Read eight bytes as an IEEE 754 number."""
        return self._read_real(self._formats.double)

    def read_guid(self) -> UUID:
        """
        Read sixteen bytes as a GUID.

        A 32-bit, two 16-bit and a *64-bit* number, each in the byte order. So in big-endian order
        the last eight bytes are reversed against :rfc:`9562`.
        """
        first, second, third, last = self._formats.guid.unpack(self.read_bytes(16))
        head = first << 32 | second << 16 | third
        return UUID(bytes=head.to_bytes(8, "big") + last.to_bytes(8, "little"))

    def read_date_time(self) -> datetime:
        """
        Read eight bytes: a signed count of 100 ns since 1601-01-01 UTC.

        :returns: in UTC, rounded down to a microsecond.
        :raises RemoteProtocolError: when it is outside the years 1 to 9999, which a ``datetime``
            cannot hold. Nothing was taken.
        """
        raw = self.read_bytes(8)
        ticks: int = self._formats.int64.unpack(raw)[0]
        try:
            return _EPOCH + ticks // _TICKS_PER_MICROSECOND * _MICROSECOND
        except OverflowError as error:
            self._put_back(raw)
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
        queue = self._queue
        if type(count) is not int:
            count = checked_integer(count, "a count of bytes")
        if not 0 <= count <= queue.size:
            if count < 0:
                raise ValueError(f"a count of bytes is 0 or more, not {count}")
            raise OutOfBoundsError(count, queue.size)
        return queue.take(count)

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
        raw = self.read_bytes(count * _UNIT_SIZES[self._encoding])
        try:
            return raw.decode(_CODECS[self._encoding])
        except UnicodeDecodeError as error:
            self._put_back(raw)
            raise TextError(
                f"not {self._encoding.documented_name}: {error.reason} at byte {error.start}"
            ) from error

    def detach_buffer(self) -> bytes:
        """Remove and return all bytes that were not read."""
        return self._queue.take(self._queue.size)

    def _read_integer(self, form: struct.Struct) -> int:
        number: int = form.unpack(self.read_bytes(form.size))[0]
        return number

    def _read_real(self, form: struct.Struct) -> float:
        number: float = form.unpack(self.read_bytes(form.size))[0]
        return number

    def _put_back(self, raw: bytes) -> None:
        rest = self._queue.take(self._queue.size)
        self._queue.feed(raw)
        self._queue.feed(rest)


class ValueWriter(_Form):
    """
    Appends values to a buffer.

    A write that fails adds nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []
        self._size = 0

    @property
    def unstored_buffer_length(self) -> int:
        """The number of bytes that were written and not taken."""
        return self._size

    def write_byte(self, value: int) -> None:
        """
        Write a byte.

        :raises ValueError: when it is not 0 to 255.
        """
        self._write(_BYTE, value)

    def write_boolean(self, value: bool) -> None:
        """Write 1 or 0 as one byte."""
        self._add(b"\1" if value else b"\0")

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
        _check_type(value, UUID)
        last = int.from_bytes(value.bytes[8:], "little")
        number = value.int
        self._add(
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
        _check_type(value, datetime)
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
        _check_type(value, timedelta)
        self._write(self._formats.int64, value // _MICROSECOND * _TICKS_PER_MICROSECOND)

    def write_bytes(self, value: Buffer) -> None:
        """Write bytes; a mutable buffer is copied."""
        self._add(as_bytes(value))

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
        self._add(bytes(view[start : start + count]))

    def write_string(self, value: str) -> int:
        """
        Write text without a length, an end mark or a byte order mark.

        :returns: its size, in *bytes*.
        :raises ValueError: when it has no form in the encoding (a lone surrogate).
        :raises TypeError: when it is not a ``str``.
        """
        _check_type(value, str)
        encoded = value.encode(_CODECS[self._encoding])
        self._add(encoded)
        return len(encoded)

    def measure_string(self, value: str) -> int:
        """
        Return the size of a text in *bytes*. Nothing is written.

        :raises ValueError: when it has no form in the encoding (a lone surrogate).
        :raises TypeError: when it is not a ``str``.
        """
        _check_type(value, str)
        return len(value.encode(_CODECS[self._encoding]))

    def detach_buffer(self) -> bytes:
        """Remove and return all bytes that were written; the writer stays usable."""
        pieces, self._pieces = self._pieces, []
        self._size = 0
        return b"".join(pieces)

    def _write(self, form: struct.Struct, value: float) -> None:
        try:
            packed = form.pack(value)
        except (struct.error, OverflowError) as error:
            if not isinstance(value, (int, float)):
                raise TypeError(f"a number is asked for, not {value!r}") from error
            raise ValueError(f"{value!r} does not fit: {error}") from error
        self._add(packed)

    def _add(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)


def _check_type(value: object, kind: type) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"a {kind.__name__} is asked for, not {value!r}")
