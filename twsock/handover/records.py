"""
The format of a hand-over between two processes: values ↔ **packets and state**. No I/O.

One hand-over is one SEQPACKET connection. Each packet has a header, and the body of its type. The
state of the socket is in a file in memory, since it may be long. Nothing is held. Format:
docs/wire/handover.rst.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

from twsock.errors import LocalProtocolError, RemoteProtocolError

__all__ = [
    "MAX_PACKET",
    "MAX_REFUSAL",
    "MAX_STATE",
    "VERSION",
    "Accepted",
    "HandoverState",
    "Offer",
    "Packet",
    "Refused",
    "Withdrawn",
    "decode_packet",
    "decode_state",
    "encode_packet",
    "encode_state",
]

#: The version of packets and state. A change of either has another number.
VERSION: Final = 1

#: The longest packet, in bytes.
MAX_PACKET: Final = 256

#: The longest reason of a refusal, in bytes of UTF-8.
MAX_REFUSAL: Final = 200

#: The longest state, in bytes: four times the largest frame by default.
MAX_STATE: Final = 64 * 1024 * 1024

#: Magic bytes, version, type.
_HEADER: Final = struct.Struct("!4sBB")
_MAGIC: Final = b"TWHO"

#: The body of an offer: the size of the state in bytes.
_OFFER: Final = struct.Struct("!Q")

#: The header of a section of the state: number and size in bytes.
_SECTION: Final = struct.Struct("!BI")

_TYPE_OFFER, _TYPE_ACCEPTED, _TYPE_REFUSED, _TYPE_WITHDRAWN = 1, 2, 3, 4

#: The sections of a state, in this order.
_SECTIONS: Final = ("unread", "unsent", "application")


@dataclass(frozen=True, slots=True)
class Offer:
    """The giver offers a connection; the descriptors of socket and state are beside it."""

    state_size: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """The taker has the connection, and the giver closes its copy."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The taker has closed what it received, and the giver continues the connection."""

    reason: str


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The giver continues the connection, and the taker closes what it received."""


#: Any packet.
Packet = Offer | Accepted | Refused | Withdrawn


@dataclass(frozen=True, slots=True)
class HandoverState:
    """
    The bytes that move with a socket.

    :ivar unread: received and not read.
    :ivar unsent: written and not sent.
    :ivar application: the state of the application.
    """

    unread: bytes = field(default=b"", repr=False)
    unsent: bytes = field(default=b"", repr=False)
    application: bytes = field(default=b"", repr=False)


def encode_packet(packet: Packet) -> bytes:
    """Return the bytes of a packet; a reason is cut to `MAX_REFUSAL` bytes."""
    if isinstance(packet, Offer):
        return _HEADER.pack(_MAGIC, VERSION, _TYPE_OFFER) + _OFFER.pack(packet.state_size)
    if isinstance(packet, Refused):
        text = packet.reason.encode(errors="replace")[:MAX_REFUSAL]
        text = text.decode(errors="ignore").encode()
        return _HEADER.pack(_MAGIC, VERSION, _TYPE_REFUSED) + text
    number = _TYPE_ACCEPTED if isinstance(packet, Accepted) else _TYPE_WITHDRAWN
    return _HEADER.pack(_MAGIC, VERSION, number)


def decode_packet(data: bytes) -> Packet:
    """
    Return the packet of these bytes.

    :raises RemoteProtocolError: when they are no packet of this version.
    """
    if not _HEADER.size <= len(data) <= MAX_PACKET or not data.startswith(_MAGIC):
        raise RemoteProtocolError("the packet is not that of a hand-over of twsock")
    _, version, number = _HEADER.unpack_from(data)
    if version != VERSION:
        raise RemoteProtocolError(
            f"the other process has version {version} of the hand-over, this one {VERSION}"
        )
    body = data[_HEADER.size :]
    if number == _TYPE_OFFER and len(body) == _OFFER.size:
        (size,) = _OFFER.unpack(body)
        if size > MAX_STATE:
            raise RemoteProtocolError(f"a state of {size} bytes was offered, limit is {MAX_STATE}")
        return Offer(size)
    if number == _TYPE_REFUSED and len(body) <= MAX_REFUSAL:
        try:
            return Refused(body.decode())
        except UnicodeDecodeError:
            raise RemoteProtocolError("the reason of a refusal is not UTF-8") from None
    if number in (_TYPE_ACCEPTED, _TYPE_WITHDRAWN) and not body:
        return Accepted() if number == _TYPE_ACCEPTED else Withdrawn()
    raise RemoteProtocolError(f"packet type {number} with {len(body)} bytes is unknown")


def encode_state(state: HandoverState) -> bytes:
    """
    Return the bytes of a state.

    :raises LocalProtocolError: when they are more than `MAX_STATE`.
    """
    parts = [getattr(state, name) for name in _SECTIONS]
    size = sum(_SECTION.size + len(part) for part in parts)
    if size > MAX_STATE:
        raise LocalProtocolError(f"the state has {size} bytes, limit is {MAX_STATE}")
    return b"".join(_SECTION.pack(number, len(part)) + part for number, part in enumerate(parts, 1))


def decode_state(data: bytes) -> HandoverState:
    """
    Return the state of these bytes.

    :raises RemoteProtocolError: when they are no state of this version.
    """
    if len(data) > MAX_STATE:
        raise RemoteProtocolError(f"the state has {len(data)} bytes, limit is {MAX_STATE}")
    parts, start = [], 0
    for expected, name in enumerate(_SECTIONS, 1):
        if len(data) - start < _SECTION.size:
            raise RemoteProtocolError(f"the state ends before its section {name!r}")
        number, size = _SECTION.unpack_from(data, start)
        start += _SECTION.size
        if number != expected or size > len(data) - start:
            raise RemoteProtocolError(f"section {number} of the state is not {name!r}, or is cut")
        parts.append(data[start : start + size])
        start += size
    if start != len(data):
        raise RemoteProtocolError(f"{len(data) - start} bytes follow the state")
    return HandoverState(*parts)
