"""Reads or writes records of four values: a 16-bit, a 32-bit, a 64-bit and a real number."""

from __future__ import annotations

import json
import statistics
import struct
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from twsock import DataReader, DataWriter

__all__ = ["main", "measure"]

_FORMAT: Final = "HIqd"
_RECORD: Final = struct.Struct(">" + _FORMAT)
_VALUES: Final = (1, 2, -3, 4.0)

#: Records in one buffer: 1,408 bytes, which one packet carries.
_RECORDS: Final = 64
#: How many buffers are measured; the figure is their median.
_BUFFERS: Final = 1001


def read_by_hand(data: bytes) -> None:
    """Read with one compiled format."""
    position = 0
    for _ in range(_RECORDS):
        _RECORD.unpack_from(data, position)
        position += _RECORD.size


def read_structs(data: bytes) -> None:
    """Read with a format for the record."""
    reader = DataReader.from_buffer(data)
    for _ in range(_RECORDS):
        reader.read_struct(_FORMAT)


def read_values(data: bytes) -> None:
    """Read value by value."""
    reader = DataReader.from_buffer(data)
    for _ in range(_RECORDS):
        reader.read_uint16()
        reader.read_uint32()
        reader.read_int64()
        reader.read_double()


def write_by_hand() -> bytes:
    """Write with one compiled format."""
    first, second, third, fourth = _VALUES
    return b"".join([_RECORD.pack(first, second, third, fourth) for _ in range(_RECORDS)])


def write_structs() -> bytes:
    """Write with a format for the record."""
    first, second, third, fourth = _VALUES
    writer = DataWriter()
    for _ in range(_RECORDS):
        writer.write_struct(_FORMAT, first, second, third, fourth)
    return writer.detach_buffer()


def write_values() -> bytes:
    """Write value by value."""
    first, second, third, fourth = _VALUES
    writer = DataWriter()
    for _ in range(_RECORDS):
        writer.write_uint16(first)
        writer.write_uint32(second)
        writer.write_int64(third)
        writer.write_double(fourth)
    return writer.detach_buffer()


_READERS: Final = {"hand": read_by_hand, "struct": read_structs, "values": read_values}
_WRITERS: Final = {"hand": write_by_hand, "struct": write_structs, "values": write_values}


def measure(way: str, case: str) -> float:
    """
    Read or write buffers of records.

    :param way: ``hand``, ``struct`` or ``values``.
    :param case: ``read`` or ``write``.
    :returns: nanoseconds of processor time for each record.
    """
    data = _RECORD.pack(*_VALUES) * _RECORDS
    if _WRITERS[way]() != data:
        raise AssertionError("the bytes differ from those written by hand")
    handle: Callable[[], object] = _WRITERS[way]
    if case == "read":
        handle = partial(_READERS[way], data)
    spent = []
    for _ in range(_BUFFERS):
        began = time.process_time_ns()
        handle()
        spent.append(time.process_time_ns() - began)
    return statistics.median(spent) / _RECORDS


def main(argv: Sequence[str]) -> None:
    """Measure one way of reading or writing; print the figure."""
    way, case = argv
    print(json.dumps({"record": measure(way, case)}))
