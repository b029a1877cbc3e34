"""
The format of a restart: values ↔ **packets** between an old and a new process. No I/O.

Each packet is one packet of a UNIX socket of type SEQPACKET: a header, and the body of its type.
Descriptors are sent beside a packet. Nothing is held. Format: docs/wire/restart.rst.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from twsock.errors import LocalProtocolError, RemoteProtocolError

__all__ = [
    "MAX_NAME",
    "MAX_RESTART_PACKET",
    "MAX_RESTART_REASON",
    "RESTART_VERSION",
    "ConnectionOffer",
    "Farewell",
    "Listed",
    "Moved",
    "Ready",
    "RestartFailed",
    "RestartPacket",
    "RestartRefused",
    "Restarted",
    "SharedSocket",
    "TakeOver",
    "Watch",
    "Watching",
    "decode_restart",
    "encode_restart",
]

#: The version of the packets; every change of the format increases it.
RESTART_VERSION: Final = 1

#: The longest packet, in bytes.
MAX_RESTART_PACKET: Final = 256

#: The longest name of a socket or service, in bytes of UTF-8.
MAX_NAME: Final = 240

#: The longest reason, in bytes of UTF-8; a longer one is cut.
MAX_RESTART_REASON: Final = 200

#: Magic bytes, version, type.
_HEADER: Final = struct.Struct("!4sBB")
_MAGIC: Final = b"TWRE"

_NUMBER: Final = struct.Struct("!I")
_NUMBERS: Final = struct.Struct("!II")


@dataclass(frozen=True, slots=True)
class TakeOver:
    """
    New to old: asks for the sockets; the first packet of a restart.

    :ivar process: the process id of the new process.
    """

    process: int


@dataclass(frozen=True, slots=True)
class SharedSocket:
    """
    Old to new: a listening socket or UDP port; its descriptor is beside it.

    :ivar name: 1 to `MAX_NAME` bytes of UTF-8; the services define the names.
    """

    name: str


@dataclass(frozen=True, slots=True)
class Listed:
    """
    Old to new: the last socket was sent.

    :ivar count: how many sockets were sent.
    """

    count: int


@dataclass(frozen=True, slots=True)
class RestartRefused:
    """Old to new: there is no restart, and the old process goes on."""

    reason: str


@dataclass(frozen=True, slots=True)
class Ready:
    """New to old: all services listen."""


@dataclass(frozen=True, slots=True)
class ConnectionOffer:
    """
    Old to new: a connection is offered; one end of the channel of its hand-over is beside it.

    :ivar service: the service that continues it; 1 to `MAX_NAME` bytes of UTF-8.
    """

    service: str


@dataclass(frozen=True, slots=True)
class Moved:
    """
    Old to new: no further connection is offered.

    :ivar moved: how many connections the new process has taken.
    :ivar draining: how many the old process still serves.
    """

    moved: int
    draining: int


@dataclass(frozen=True, slots=True)
class Farewell:
    """New to old: the new process ends in order, and the old one does not accept again."""


@dataclass(frozen=True, slots=True)
class Watch:
    """Observer to old: asks for the result of the next restart."""


@dataclass(frozen=True, slots=True)
class Watching:
    """
    Old to observer: the result will follow.

    :ivar process: the process id of the old process.
    """

    process: int


@dataclass(frozen=True, slots=True)
class Restarted:
    """
    Old to observer: a new process serves.

    :ivar process: the process id of the new process.
    """

    process: int


@dataclass(frozen=True, slots=True)
class RestartFailed:
    """Old to observer: the restart has failed, and the old process goes on."""

    reason: str


#: Any packet.
RestartPacket = (
    TakeOver
    | SharedSocket
    | Listed
    | RestartRefused
    | Ready
    | ConnectionOffer
    | Moved
    | Farewell
    | Watch
    | Watching
    | Restarted
    | RestartFailed
)

#: The types of packets, by their number less one.
_TYPES: Final[tuple[type[RestartPacket], ...]] = (
    TakeOver,
    SharedSocket,
    Listed,
    RestartRefused,
    Ready,
    ConnectionOffer,
    Moved,
    Farewell,
    Watch,
    Watching,
    Restarted,
    RestartFailed,
)
_NUMBERS_OF_TYPES: Final = {kind: number for number, kind in enumerate(_TYPES, 1)}

_EMPTY: Final = (Ready, Farewell, Watch)
_NUMBERED: Final = (TakeOver, Listed, Watching, Restarted)
_REASONED: Final = (RestartRefused, RestartFailed)
_NAMED: Final = (SharedSocket, ConnectionOffer)


def encode_restart(packet: RestartPacket) -> bytes:
    """
    Return the bytes of a packet; a reason is cut to `MAX_RESTART_REASON` bytes.

    :raises LocalProtocolError: when a name is empty or too long, or a number does not fit in 4
        bytes.
    """
    return _HEADER.pack(_MAGIC, RESTART_VERSION, _NUMBERS_OF_TYPES[type(packet)]) + _encode_body(
        packet
    )


def _encode_body(packet: RestartPacket) -> bytes:
    if isinstance(packet, _REASONED):
        return _cut(packet.reason)
    if isinstance(packet, SharedSocket):
        return _name(packet.name)
    if isinstance(packet, ConnectionOffer):
        return _name(packet.service)
    try:
        if isinstance(packet, Moved):
            return _NUMBERS.pack(packet.moved, packet.draining)
        if isinstance(packet, Listed):
            return _NUMBER.pack(packet.count)
        if isinstance(packet, (TakeOver, Watching, Restarted)):
            return _NUMBER.pack(packet.process)
    except struct.error:
        raise LocalProtocolError(f"a number does not fit in 4 bytes: {packet}") from None
    return b""


def decode_restart(data: bytes) -> RestartPacket:
    """
    Return the packet of these bytes.

    :raises RemoteProtocolError: when they are not a packet of this version.
    """
    if not _HEADER.size <= len(data) <= MAX_RESTART_PACKET or not data.startswith(_MAGIC):
        raise RemoteProtocolError("the packet is not that of a restart of twsock")
    _, version, number = _HEADER.unpack_from(data)
    if version != RESTART_VERSION:
        raise RemoteProtocolError(
            f"the other process has version {version} of the restart, this one {RESTART_VERSION}"
        )
    if not 1 <= number <= len(_TYPES):
        raise RemoteProtocolError(f"packet type {number} is unknown")
    return _decode_body(_TYPES[number - 1], data[_HEADER.size :])


def _decode_body(kind: type[RestartPacket], body: bytes) -> RestartPacket:
    make: type = kind
    packet: RestartPacket | None = None
    if kind in _EMPTY and not body:
        packet = make()
    elif kind in _NUMBERED and len(body) == _NUMBER.size:
        packet = make(*_NUMBER.unpack(body))
    elif kind is Moved and len(body) == _NUMBERS.size:
        packet = Moved(*_NUMBERS.unpack(body))
    elif (kind in _REASONED and len(body) <= MAX_RESTART_REASON) or (
        kind in _NAMED and 1 <= len(body) <= MAX_NAME
    ):
        packet = make(_text(body))
    if packet is None:
        raise RemoteProtocolError(f"a {kind.__name__} cannot have {len(body)} bytes")
    return packet


def _name(text: str) -> bytes:
    body = text.encode(errors="replace")
    if not 1 <= len(body) <= MAX_NAME:
        raise LocalProtocolError(f"a name has 1 to {MAX_NAME} bytes, not {len(body)}: {text!r}")
    return body


def _cut(text: str) -> bytes:
    cut = text.encode(errors="replace")[:MAX_RESTART_REASON]
    return cut.decode(errors="ignore").encode()


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise RemoteProtocolError("a text is not UTF-8") from None
