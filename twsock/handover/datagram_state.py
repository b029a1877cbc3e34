"""
What a UDP socket has outside of the kernel: values ↔ **bytes** of the record. No I/O.

`twsock.handover.records` has one such part for each UDP socket of a hand-over. A value holds the
datagrams that its owner received and did not read, and those that it wrote and did not send.
Format: docs/wire/handover.rst.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, TypeVar

from twsock.errors import RemoteProtocolError

__all__ = [
    "OPTIONS",
    "DatagramState",
    "GroupMembership",
    "UnreadDatagram",
    "UnsentDatagram",
    "decode_datagram_state",
    "encode_datagram_state",
]

#: The options that move, in the order of the record: those of ``twsock.datagram.DatagramOptions``.
OPTIONS: Final[Mapping[str, type]] = MappingProxyType(
    {
        "receive_buffer": int,
        "send_buffer": int,
        "max_datagram": int,
        "hop_limit": int,
        "multicast_hop_limit": int,
        "multicast_loopback": bool,
        "multicast_only": bool,
        "interface": int,
        "device": str,
        "dont_fragment": bool,
        "broadcast": bool,
        "code_point": int,
        "segmentation": bool,
    }
)

_NAMES: Final = tuple(OPTIONS)

_BYTE: Final = struct.Struct("!B")
_SHORT: Final = struct.Struct("!H")
_LONG: Final = struct.Struct("!I")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class GroupMembership:
    """
    A multicast group that a socket has joined; the kernel keeps it with the socket.

    :ivar group: numeric, without a zone.
    :ivar interface: the name of the interface; empty if the kernel has chosen it.
    :ivar index: the index of the interface; 0 if the kernel has chosen it.
    :ivar source: the only sender to receive from; None for all.
    :ivar is_lost: whether the interface is gone, so that nothing is received now.
    """

    group: str
    interface: str = ""
    index: int = 0
    source: str | None = None
    is_lost: bool = False


@dataclass(frozen=True, slots=True)
class UnreadDatagram:
    """
    A datagram that was received and not read.

    :ivar source: numeric host and port, for IPv6 also flow information and scope id.
    :ivar destination: the address that it was sent to; empty if the system did not report it.
    :ivar interface: index of the interface that received it; 0 if the system did not report it.
    :ivar local: the address to answer from; empty for the choice of the kernel.
    :ivar is_truncated: whether this is the beginning of a longer datagram.
    """

    data: bytes = field(repr=False)
    source: tuple[Any, ...]
    destination: str = ""
    interface: int = 0
    local: str = ""
    is_truncated: bool = False


@dataclass(frozen=True, slots=True)
class UnsentDatagram:
    """
    A datagram or run that was written and that the kernel had not taken.

    :ivar segment_size: bytes of each datagram of the run; the last may have fewer.
    :ivar address: numeric, in the form of `UnreadDatagram.source`; None for the connected peer.
    :ivar source: the address to send from; empty for the choice of the kernel.
    :ivar interface: index of the interface to send by, if ``source`` is not empty; 0 for the choice
        of the kernel.
    """

    data: bytes = field(repr=False)
    segment_size: int
    address: tuple[Any, ...] | None = None
    source: str = ""
    interface: int = 0


@dataclass(frozen=True, slots=True)
class DatagramState:
    """
    What belongs to a UDP socket outside of the kernel.

    The kernel keeps the options, the peer of a connected socket and the groups together with the
    socket. This value has what the next owner must know about them.

    :ivar has_runs: whether the socket receives runs (``UDP_GRO``): the kernel then returns up to 64
        datagrams of one size as one, with their size in a control message.
    :ivar has_packet_info: whether the kernel reports the destination of each datagram.
    :ivar options: those options of ``twsock.datagram.DatagramOptions`` that differ from the
        defaults, by name.
    """

    has_runs: bool = False
    has_packet_info: bool = False
    options: Mapping[str, int | str] = field(default_factory=dict)
    memberships: tuple[GroupMembership, ...] = ()
    unread: tuple[UnreadDatagram, ...] = ()
    unsent: tuple[UnsentDatagram, ...] = ()


def encode_datagram_state(state: DatagramState) -> bytes:
    """Return the bytes of a state."""
    pieces: list[bytes] = [_BYTE.pack(state.has_runs | state.has_packet_info << 1)]
    names = [name for name in _NAMES if name in state.options]
    pieces.append(_BYTE.pack(len(names)))
    for name in names:
        value = state.options[name]
        pieces.append(_BYTE.pack(_NAMES.index(name)))
        pieces.append(_text(value) if isinstance(value, str) else _LONG.pack(value))
    pieces += _listed(state.memberships, _encode_membership)
    pieces += _listed(state.unread, _encode_unread)
    pieces += _listed(state.unsent, _encode_unsent)
    return b"".join(pieces)


def decode_datagram_state(data: bytes) -> DatagramState:
    """
    Return the state of these bytes.

    :raises RemoteProtocolError: when they are not a state.
    """
    reader = _Reader(data)
    flags = reader.read_number(_BYTE)
    if flags > 3:
        raise RemoteProtocolError(f"flags {flags} of a UDP socket are unknown")
    state = DatagramState(
        bool(flags & 1),
        bool(flags & 2),
        _decode_options(reader),
        reader.read_all(_decode_membership),
        reader.read_all(_decode_unread),
        reader.read_all(_decode_unsent),
    )
    reader.finish()
    return state


class _Reader:
    """Reads the fields of a state, in order."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._start = 0

    def read_number(self, form: struct.Struct) -> int:
        number: int = form.unpack(self._read(form.size))[0]
        return number

    def read_boolean(self) -> bool:
        number = self.read_number(_BYTE)
        if number > 1:
            raise RemoteProtocolError(f"a flag of a UDP socket is 0 or 1, not {number}")
        return bool(number)

    def read_bytes(self) -> bytes:
        return self._read(self.read_number(_SHORT))

    def read_text(self) -> str:
        try:
            return self._read(self.read_number(_BYTE)).decode()
        except UnicodeDecodeError:
            raise RemoteProtocolError("a text of a UDP socket is not UTF-8") from None

    def read_host(self) -> str:
        """Read a numeric address, or an empty text."""
        host = self.read_text()
        try:
            if host:
                ipaddress.ip_address(host)
        except ValueError:
            raise RemoteProtocolError("an address of a UDP socket is not numeric") from None
        return host

    def read_address(self) -> tuple[Any, ...]:
        host, port = self.read_host(), self.read_number(_SHORT)
        if not host:
            raise RemoteProtocolError("a peer of a UDP socket has no address")
        if ":" in host:
            return host, port, self.read_number(_LONG), self.read_number(_LONG)
        return host, port

    def read_all(self, decode: Callable[[_Reader], T]) -> tuple[T, ...]:
        # Each item takes a byte or more, so the bytes that are left bound their number.
        return tuple(decode(self) for _ in range(self.read_number(_LONG)))

    def finish(self) -> None:
        if self._start != len(self._data):
            raise RemoteProtocolError("bytes follow the state of a UDP socket")

    def _read(self, size: int) -> bytes:
        start, self._start = self._start, self._start + size
        if self._start > len(self._data):
            raise RemoteProtocolError("the state of a UDP socket is cut")
        return self._data[start : self._start]


def _text(value: str) -> bytes:
    encoded = value.encode()
    return _BYTE.pack(len(encoded)) + encoded


def _address(address: tuple[Any, ...]) -> bytes:
    host, port, *more = address
    return _text(host) + _SHORT.pack(port) + b"".join(map(_LONG.pack, more))


def _listed(items: tuple[T, ...], encode: Callable[[T], bytes]) -> Iterable[bytes]:
    return [_LONG.pack(len(items)), *map(encode, items)]


def _decode_options(reader: _Reader) -> Mapping[str, int | str]:
    options: dict[str, int | str] = {}
    before = -1
    for _ in range(reader.read_number(_BYTE)):
        number = reader.read_number(_BYTE)
        if not before < number < len(_NAMES):
            raise RemoteProtocolError(f"option {number} of a UDP socket is unknown")
        before, name = number, _NAMES[number]
        if OPTIONS[name] is str:
            options[name] = reader.read_text()
        else:
            value = reader.read_number(_LONG)
            if OPTIONS[name] is bool and value > 1:
                raise RemoteProtocolError(f"option {name} of a UDP socket is not 0 or 1")
            options[name] = OPTIONS[name](value)
    return options


def _encode_membership(membership: GroupMembership) -> bytes:
    return b"".join(
        (
            _text(membership.group),
            _text(membership.interface),
            _LONG.pack(membership.index),
            _text(membership.source or ""),
            _BYTE.pack(membership.is_lost),
        )
    )


def _decode_membership(reader: _Reader) -> GroupMembership:
    return GroupMembership(
        reader.read_host(),
        reader.read_text(),
        reader.read_number(_LONG),
        reader.read_host() or None,
        reader.read_boolean(),
    )


def _encode_unread(datagram: UnreadDatagram) -> bytes:
    return b"".join(
        (
            _address(datagram.source),
            _text(datagram.destination),
            _LONG.pack(datagram.interface),
            _text(datagram.local),
            _BYTE.pack(datagram.is_truncated),
            _SHORT.pack(len(datagram.data)),
            datagram.data,
        )
    )


def _decode_unread(reader: _Reader) -> UnreadDatagram:
    source, destination = reader.read_address(), reader.read_host()
    interface, local = reader.read_number(_LONG), reader.read_host()
    is_truncated = reader.read_boolean()
    return UnreadDatagram(reader.read_bytes(), source, destination, interface, local, is_truncated)


def _encode_unsent(datagram: UnsentDatagram) -> bytes:
    address = datagram.address
    return b"".join(
        (
            _BYTE.pack(address is not None),
            b"" if address is None else _address(address),
            _text(datagram.source),
            _LONG.pack(datagram.interface),
            _SHORT.pack(datagram.segment_size),
            _SHORT.pack(len(datagram.data)),
            datagram.data,
        )
    )


def _decode_unsent(reader: _Reader) -> UnsentDatagram:
    address = reader.read_address() if reader.read_boolean() else None
    source, interface = reader.read_host(), reader.read_number(_LONG)
    segment_size, data = reader.read_number(_SHORT), reader.read_bytes()
    if segment_size > len(data) or bool(segment_size) is not bool(data):
        raise RemoteProtocolError(
            f"datagrams of {segment_size} bytes are not those of a run of {len(data)} bytes"
        )
    return UnsentDatagram(data, segment_size, address, source, interface)
