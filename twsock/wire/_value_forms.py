"""
The forms of values: byte order and encoding → **forms** → formats of `struct`, names of codecs.

The reader and the writer of `twsock.wire.values` share these forms. Holds the compiled formats of
at most 128 records in each byte order.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeVar

from twsock._enums import DocumentedEnum

__all__ = [
    "BOOLEAN",
    "BYTE",
    "CODECS",
    "UNIT_SIZES",
    "ByteOrder",
    "Form",
    "Format",
    "UnicodeEncoding",
    "check_type",
]

_ValueT = TypeVar("_ValueT")


class ByteOrder(DocumentedEnum):
    """The order of the bytes of a number; ``Windows.Storage.Streams.ByteOrder``."""

    LITTLE_ENDIAN = 0
    BIG_ENDIAN = 1


class UnicodeEncoding(DocumentedEnum):
    """The encoding of text; ``Windows.Storage.Streams.UnicodeEncoding``."""

    UTF8 = 0
    UTF16_LE = 1
    UTF16_BE = 2


#: The defaults of WinRT: network byte order, which is not the zero of the enumeration, and UTF-8.
_DEFAULT_ORDER: Final = ByteOrder.BIG_ENDIAN
_DEFAULT_ENCODING: Final = UnicodeEncoding.UTF8

#: Names of codecs without a byte order mark, which Python's "utf-16" would write and remove.
CODECS: Final[Mapping[UnicodeEncoding, str]] = {
    UnicodeEncoding.UTF8: "utf-8",
    UnicodeEncoding.UTF16_LE: "utf-16-le",
    UnicodeEncoding.UTF16_BE: "utf-16-be",
}
#: The bytes of a code unit.
UNIT_SIZES: Final[Mapping[UnicodeEncoding, int]] = {
    UnicodeEncoding.UTF8: 1,
    UnicodeEncoding.UTF16_LE: 2,
    UnicodeEncoding.UTF16_BE: 2,
}

#: How many formats of records stay compiled, in each byte order.
_MAX_RECORDS: Final = 128


class Format(Generic[_ValueT]):
    """
    A compiled format of `struct`.

    Its functions are attributes of this object: ``struct.Struct`` makes a method object for each
    lookup, which costs up to a fifth of a whole read or write.
    """

    __slots__ = ("pack", "size", "unpack_from")

    def __init__(self, text: str) -> None:
        compiled = struct.Struct(text)
        self.size: Final = compiled.size
        self.pack: Final[Callable[..., bytes]] = compiled.pack
        self.unpack_from: Final[Callable[[bytes, int], tuple[_ValueT, ...]]] = compiled.unpack_from


class _Records(dict[str, Format[Any]]):
    """The compiled formats of records in one byte order."""

    def __init__(self, sign: str) -> None:
        super().__init__()
        self._sign = sign

    def __missing__(self, text: str) -> Format[Any]:
        """Compile a format; drop all others when there are too many, as `struct` does."""
        check_type(text, str)
        try:
            # A second sign is an error of `struct`, so a format cannot name another byte order.
            form = Format[Any](self._sign + text)
        except struct.error as error:
            raise ValueError(f"{text!r} is not the format of a record: {error}") from error
        if len(self) >= _MAX_RECORDS:
            self.clear()
        self[text] = form
        return form


class _Formats:
    """Each fixed form, and the records, in one byte order."""

    __slots__ = (
        *("int16", "uint16", "int32", "uint32", "int64", "uint64"),
        *("single", "double", "guid", "records"),
    )

    def __init__(self, sign: str) -> None:
        """
        Compile the fixed forms.

        :param sign: the byte order, as `struct` writes it.
        """
        self.int16 = Format[int](sign + "h")
        self.uint16 = Format[int](sign + "H")
        self.int32 = Format[int](sign + "i")
        self.uint32 = Format[int](sign + "I")
        self.int64 = Format[int](sign + "q")
        self.uint64 = Format[int](sign + "Q")
        self.single = Format[float](sign + "f")
        self.double = Format[float](sign + "d")
        # The last eight bytes of a GUID are one number here, so big-endian order reverses them.
        # Neither ``UUID.bytes`` nor ``UUID.bytes_le`` does that.
        self.guid = Format[int](sign + "IHHQ")
        self.records = _Records(sign)


_FORMATS: Final[Mapping[ByteOrder, _Formats]] = {
    ByteOrder.LITTLE_ENDIAN: _Formats("<"),
    ByteOrder.BIG_ENDIAN: _Formats(">"),
}

BYTE: Final = Format[int]("B")
BOOLEAN: Final = Format[bool]("?")


class Form:
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


def check_type(value: object, kind: type) -> None:
    """
    Check the type of an argument.

    :raises TypeError: when the argument has another type.
    """
    if not isinstance(value, kind):
        raise TypeError(f"a {kind.__name__} is needed, not {value!r}")
