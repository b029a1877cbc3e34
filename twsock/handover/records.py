"""
The format of a hand-over between two processes: values ↔ **packets and state**. No I/O.

One hand-over is one SEQPACKET connection. Each packet has a header, and the body of its type. The
state of the sockets is in a file in memory, since it may be long. Nothing is held. The part of a
UDP socket is in `twsock.handover.datagram_state`. Format: docs/wire/handover.rst.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

from twsock.errors import LocalProtocolError, RemoteProtocolError
from twsock.handover.datagram_state import (
    DatagramState,
    decode_datagram_state,
    encode_datagram_state,
)

__all__ = [
    "KINDS",
    "MAX_PACKET",
    "MAX_REFUSAL",
    "MAX_STATE",
    "VERSION",
    "Accepted",
    "HandoverState",
    "Offer",
    "Packet",
    "Refused",
    "SocketKind",
    "Withdrawn",
    "decode_packet",
    "decode_state",
    "encode_packet",
    "encode_state",
]

#: The version of packets and state; every change of either format increases it.
VERSION: Final = 2

#: The longest packet, in bytes.
MAX_PACKET: Final = 256

#: The longest reason of a refusal, in bytes of UTF-8.
MAX_REFUSAL: Final = 200

#: The longest state, in bytes: four times the largest frame by default.
MAX_STATE: Final = 64 * 1024 * 1024

#: Magic bytes, version, type.
_HEADER: Final = struct.Struct("!4sBB")
_MAGIC: Final = b"TWHO"

#: The body of an offer: kind, number of sockets, size of the state in bytes.
_OFFER: Final = struct.Struct("!BBQ")

#: The header of a section of the state: number and size in bytes.
_SECTION: Final = struct.Struct("!BI")

_TYPE_OFFER, _TYPE_ACCEPTED, _TYPE_REFUSED, _TYPE_WITHDRAWN = 1, 2, 3, 4

#: The numbers of the sections of a state.
_UNREAD, _UNSENT, _APPLICATION, _PORT, _ADAPTER = 1, 2, 3, 4, 5

#: The body of the section of the adapter: the index of an interface.
_INDEX: Final = struct.Struct("!I")


@dataclass(frozen=True, slots=True)
class SocketKind:
    """
    A kind of socket that moves.

    :ivar number: in the offer.
    :ivar most_sockets: how many sockets it has at most; it has at least one.
    """

    number: int
    name: str
    most_sockets: int


#: All kinds, in the order of their numbers.
KINDS: Final = (
    SocketKind(1, "connection", 1),
    SocketKind(2, "listener", 7),
    SocketKind(3, "datagram port", 1),
    SocketKind(4, "datagram socket", 2),
)
_CONNECTION, _LISTENER, _DATAGRAM_PORT, _DATAGRAM_SOCKET = KINDS


@dataclass(frozen=True, slots=True)
class Offer:
    """
    The giver offers sockets; their descriptors and that of the state are beside it.

    :ivar state_size: size of the state in bytes.
    :ivar kind: what the sockets are.
    :ivar sockets: how many there are.
    """

    state_size: int
    kind: SocketKind = _CONNECTION
    sockets: int = 1


@dataclass(frozen=True, slots=True)
class Accepted:
    """The taker has the sockets, and the giver closes its copies."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The taker has closed what it received, and the giver continues its sockets."""

    reason: str


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The giver continues its sockets, and the taker closes what it received."""


#: Any packet.
Packet = Offer | Accepted | Refused | Withdrawn


@dataclass(frozen=True, slots=True)
class HandoverState:
    """
    What moves with the sockets.

    :ivar unread: bytes of a connection that were received and not read.
    :ivar unsent: bytes of a connection that were written and not sent.
    :ivar application: the state of the application.
    :ivar ports: one for each UDP socket.
    :ivar adapter: index of the interface that a datagram socket is bound to; 0 for none.
    """

    unread: bytes = field(default=b"", repr=False)
    unsent: bytes = field(default=b"", repr=False)
    application: bytes = field(default=b"", repr=False)
    ports: tuple[DatagramState, ...] = ()
    adapter: int = 0


def encode_packet(packet: Packet) -> bytes:
    """Return the bytes of a packet; a reason is cut to `MAX_REFUSAL` bytes."""
    if isinstance(packet, Offer):
        body = _OFFER.pack(packet.kind.number, packet.sockets, packet.state_size)
        return _HEADER.pack(_MAGIC, VERSION, _TYPE_OFFER) + body
    if isinstance(packet, Refused):
        text = packet.reason.encode(errors="replace")[:MAX_REFUSAL]
        text = text.decode(errors="ignore").encode()
        return _HEADER.pack(_MAGIC, VERSION, _TYPE_REFUSED) + text
    number = _TYPE_ACCEPTED if isinstance(packet, Accepted) else _TYPE_WITHDRAWN
    return _HEADER.pack(_MAGIC, VERSION, number)


def decode_packet(data: bytes) -> Packet:
    """
    Return the packet of these bytes.

    :raises RemoteProtocolError: when they are not a packet of this version.
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
        return _decode_offer(*_OFFER.unpack(body))
    if number == _TYPE_REFUSED and len(body) <= MAX_REFUSAL:
        try:
            return Refused(body.decode())
        except UnicodeDecodeError:
            raise RemoteProtocolError("the reason of a refusal is not UTF-8") from None
    if number in (_TYPE_ACCEPTED, _TYPE_WITHDRAWN) and not body:
        return Accepted() if number == _TYPE_ACCEPTED else Withdrawn()
    raise RemoteProtocolError(f"packet type {number} with {len(body)} bytes is unknown")


def _decode_offer(number: int, sockets: int, size: int) -> Offer:
    kind = next((one for one in KINDS if one.number == number), None)
    if kind is None or not 1 <= sockets <= kind.most_sockets:
        raise RemoteProtocolError(f"{sockets} sockets of kind {number} were offered")
    if size > MAX_STATE:
        raise RemoteProtocolError(f"a state of {size} bytes was offered, limit is {MAX_STATE}")
    return Offer(size, kind, sockets)


def encode_state(state: HandoverState, kind: SocketKind = _CONNECTION) -> bytes:
    """
    Return the bytes of the state of one kind.

    :raises LocalProtocolError: when they are more than `MAX_STATE`.
    """
    ports = iter(state.ports)
    parts = []
    for number in _sections(kind, len(state.ports)):
        if number == _PORT:
            part = encode_datagram_state(next(ports))
        elif number == _ADAPTER:
            part = _INDEX.pack(state.adapter)
        else:
            part = (state.unread, state.unsent, state.application)[number - 1]
        parts.append((number, part))
    size = sum(_SECTION.size + len(part) for _, part in parts)
    if size > MAX_STATE:
        raise LocalProtocolError(f"the state has {size} bytes, limit is {MAX_STATE}")
    return b"".join(_SECTION.pack(number, len(part)) + part for number, part in parts)


def decode_state(data: bytes, kind: SocketKind = _CONNECTION, sockets: int = 1) -> HandoverState:
    """
    Return the state of these bytes.

    :param kind: of the offer, as ``sockets``.
    :raises RemoteProtocolError: when they are not such a state of this version.
    """
    if len(data) > MAX_STATE:
        raise RemoteProtocolError(f"the state has {len(data)} bytes, limit is {MAX_STATE}")
    parts: dict[int, bytes] = {}
    ports = []
    start = 0
    for expected in _sections(kind, sockets):
        if len(data) - start < _SECTION.size:
            raise RemoteProtocolError(f"the state ends before its section {expected}")
        number, size = _SECTION.unpack_from(data, start)
        start += _SECTION.size
        if number != expected or size > len(data) - start:
            raise RemoteProtocolError(f"section {number} of the state is not {expected}, or is cut")
        part = data[start : start + size]
        start += size
        if number == _PORT:
            ports.append(decode_datagram_state(part))
        else:
            parts[number] = part
    if start != len(data):
        raise RemoteProtocolError(f"{len(data) - start} bytes follow the state")
    return HandoverState(
        parts.get(_UNREAD, b""),
        parts.get(_UNSENT, b""),
        parts[_APPLICATION],
        tuple(ports),
        _decode_adapter(parts.get(_ADAPTER, bytes(_INDEX.size))),
    )


def _decode_adapter(data: bytes) -> int:
    if len(data) != _INDEX.size:
        raise RemoteProtocolError(f"the index of an interface has {len(data)} bytes")
    index: int = _INDEX.unpack(data)[0]
    return index


def _sections(kind: SocketKind, sockets: int) -> tuple[int, ...]:
    """Return the numbers of the sections of a kind, in their order."""
    if kind is _CONNECTION:
        return (_UNREAD, _UNSENT, _APPLICATION)
    if kind is _LISTENER:
        return (_APPLICATION,)
    ports = (_PORT,) * sockets
    return (*ports, _APPLICATION) if kind is _DATAGRAM_PORT else (_ADAPTER, *ports, _APPLICATION)
