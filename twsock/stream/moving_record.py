"""
What moves with a connection besides its bytes: protocol → **record** → protocol. No I/O.

The record is the application's part of a hand-over (`twsock.handover.records`). It has the state
that the protocol exported, and facts that the process of the next owner cannot know: the addresses
of a PROXY header, how long the connection is open and idle, and its numbers. Nothing is held.
Format: docs/wire/handover.rst.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass, field
from typing import Final

from twsock.errors import LocalProtocolError, RemoteProtocolError
from twsock.wire.proxy_header import ProxyHeader

__all__ = ["MAX_EXPORTED", "MovingRecord", "decode_record", "encode_record"]

#: The longest state that a protocol may export, in bytes.
MAX_EXPORTED: Final = 64 * 1024

#: The version of the record; every change of the format increases it.
_VERSION: Final = 1

#: Version; flags; seconds since the connection was accepted, and since its last whole message, in
#: microseconds; messages; bytes received; bytes sent.
_HEADER: Final = struct.Struct("!BB5Q")

_STALLED, _AGED, _PROXIED, _DATAGRAM = 1, 2, 4, 8
_FLAGS: Final = _STALLED | _AGED | _PROXIED | _DATAGRAM

#: In front of each text, and of the state: the size in bytes.
_SIZE: Final = struct.Struct("!I")

#: The kind of an address, in front of it.
_NO_ADDRESS, _PORT, _PATH = 0, 1, 2
_KIND: Final = struct.Struct("!B")
_PORT_NUMBER: Final = struct.Struct("!H")

#: The longest name of a class, host or path, in bytes.
_MAX_TEXT: Final = 1024

_MICROSECONDS: Final = 1_000_000
_MAX_NUMBER: Final = 2**64 - 1

_Address = tuple[str, int] | bytes | None


@dataclass(frozen=True, slots=True)
class MovingRecord:
    """
    The state and the facts of one connection.

    :ivar protocol: module and name of the class of the protocol.
    :ivar endpoint: the name of the port that accepted the connection; empty if there was none.
    :ivar state: what ``export_state`` returned; at most 64 KiB.
    :ivar header: the PROXY header of the connection; None without one.
    :ivar is_stalled: whether reading has paused until the peer receives the answers.
    :ivar age: seconds since the connection was accepted; None if that is not known.
    :ivar idle: seconds since its last whole message, at least.
    :ivar messages: whole messages received.
    :ivar received: bytes received.
    :ivar sent: bytes sent or queued.
    """

    protocol: str
    endpoint: str = ""
    state: bytes = field(default=b"", repr=False)
    header: ProxyHeader | None = None
    is_stalled: bool = False
    age: float | None = None
    idle: float = 0.0
    messages: int = 0
    received: int = 0
    sent: int = 0


def encode_record(record: MovingRecord) -> bytes:
    """
    Return the bytes of a record.

    :raises LocalProtocolError: when the state has more than `MAX_EXPORTED` bytes, or the name of
        the class or an address more than 1,024.
    """
    if len(record.state) > MAX_EXPORTED:
        raise LocalProtocolError(
            f"its state has {len(record.state)} bytes, limit is {MAX_EXPORTED}"
        )
    header = record.header
    flags = (
        (_STALLED if record.is_stalled else 0)
        | (_AGED if record.age is not None else 0)
        | (_PROXIED if header is not None else 0)
        | (_DATAGRAM if header is not None and header.is_datagram else 0)
    )
    times = (_microseconds(record.age or 0.0), _microseconds(record.idle))
    parts = [
        _HEADER.pack(_VERSION, flags, *times, record.messages, record.received, record.sent),
        _sized(record.protocol.encode()),
        _sized(record.endpoint.encode()),
    ]
    if header is not None:
        parts += [_encode_address(header.source), _encode_address(header.destination)]
    return b"".join((*parts, _SIZE.pack(len(record.state)), record.state))


def decode_record(data: bytes) -> MovingRecord:
    """
    Return the record of these bytes.

    :raises RemoteProtocolError: when they are not a record of this version.
    """
    if data and data[0] != _VERSION:
        raise RemoteProtocolError(
            f"the record of a connection has version {data[0]}, this process has {_VERSION}"
        )
    reader = _Reader(data)
    _, flags, age, idle, messages, received, sent = _HEADER.unpack(reader.take(_HEADER.size))
    if flags & ~_FLAGS or (flags & _DATAGRAM and not flags & _PROXIED):
        raise RemoteProtocolError(f"the record of a connection has flags {flags:#x}")
    name, endpoint = reader.take_text(_MAX_TEXT), reader.take_text(_MAX_TEXT)
    header = None
    if flags & _PROXIED:
        header = ProxyHeader(reader.take_address(), reader.take_address(), bool(flags & _DATAGRAM))
    state = reader.take_sized(MAX_EXPORTED)
    reader.check_end()
    return MovingRecord(
        name,
        endpoint,
        state,
        header,
        bool(flags & _STALLED),
        age / _MICROSECONDS if flags & _AGED else None,
        idle / _MICROSECONDS,
        messages,
        received,
        sent,
    )


def _microseconds(seconds: float) -> int:
    return min(max(round(seconds * _MICROSECONDS), 0), _MAX_NUMBER)


def _sized(data: bytes) -> bytes:
    if len(data) > _MAX_TEXT:
        raise LocalProtocolError(f"a name or address has {len(data)} bytes, limit is {_MAX_TEXT}")
    return _SIZE.pack(len(data)) + data


def _encode_address(address: _Address) -> bytes:
    if address is None:
        return _KIND.pack(_NO_ADDRESS)
    if isinstance(address, bytes):
        return _KIND.pack(_PATH) + _sized(address)
    host, port = address
    return _KIND.pack(_PORT) + _sized(host.encode()) + _PORT_NUMBER.pack(port)


class _Reader:
    """Reads the values of a record, in order."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._start = 0

    def take(self, size: int) -> bytes:
        """Return the next bytes."""
        end = self._start + size
        if end > len(self._data):
            raise RemoteProtocolError("the record of a connection is cut")
        taken = self._data[self._start : end]
        self._start = end
        return taken

    def take_number(self, form: struct.Struct) -> int:
        """Return one number."""
        number: int = form.unpack(self.take(form.size))[0]
        return number

    def take_sized(self, limit: int) -> bytes:
        """Return bytes that have their size in front."""
        size = self.take_number(_SIZE)
        if size > limit:
            raise RemoteProtocolError(
                f"the record of a connection has a part of {size} bytes, limit is {limit}"
            )
        return self.take(size)

    def take_text(self, limit: int) -> str:
        """Return a text that has its size in front."""
        try:
            return self.take_sized(limit).decode()
        except UnicodeDecodeError:
            raise RemoteProtocolError("a text in the record of a connection is not UTF-8") from None

    def take_address(self) -> _Address:
        """Return an address of a PROXY header."""
        kind = self.take_number(_KIND)
        if kind == _NO_ADDRESS:
            return None
        if kind == _PATH:
            return self.take_sized(_MAX_TEXT)
        if kind != _PORT:
            raise RemoteProtocolError(f"the record of a connection has an address of kind {kind}")
        host = self.take_text(_MAX_TEXT)
        try:
            ipaddress.ip_address(host)
        except ValueError as error:
            raise RemoteProtocolError(f"the record of a connection: {error}") from None
        return host, self.take_number(_PORT_NUMBER)

    def check_end(self) -> None:
        """
        Check that nothing follows.

        :raises RemoteProtocolError: when bytes are left.
        """
        left = len(self._data) - self._start
        if left:
            raise RemoteProtocolError(f"{left} bytes follow the record of a connection")
