"""
Offers of a hand-over: detached value → **packet, descriptors and sealed state** → detached value.

Used by `twsock.handover.channel` on both sides. An invalid offer is refused before any part of it
is used. Nothing is held.
"""

from __future__ import annotations

import fcntl
import os
import socket
from typing import Final

from twsock.errors import LocalProtocolError, RemoteProtocolError
from twsock.handover.detached import (
    Detached,
    DetachedConnection,
    DetachedDatagramPort,
    DetachedDatagramSocket,
    DetachedListener,
)
from twsock.handover.records import (
    KINDS,
    HandoverState,
    Offer,
    SocketKind,
    decode_state,
    encode_packet,
    encode_state,
)

__all__ = ["MOST_DESCRIPTORS", "kind_of", "open_offer", "send_offer"]

#: How many descriptors are received. The kernel closes further ones; an offer with too many is
#: refused.
MOST_DESCRIPTORS: Final = 9

#: Seals without which the giver could change or cut the state while it is read.
_SEALS: Final = 0x0002 | 0x0004 | 0x0008  # F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE; fcntl(2)

_CONNECTION, _LISTENER, _DATAGRAM_PORT, _DATAGRAM_SOCKET = KINDS
_IP: Final = (socket.AF_INET, socket.AF_INET6)
_STREAMS: Final = (*_IP, socket.AF_UNIX)

_CLASSES: Final[dict[type, SocketKind]] = dict(
    zip(
        (DetachedConnection, DetachedListener, DetachedDatagramPort, DetachedDatagramSocket),
        KINDS,
        strict=True,
    )
)


def kind_of(value: type) -> SocketKind:
    """
    Return the kind of a class of detached values.

    :raises ValueError: for any other class.
    """
    kind = _CLASSES.get(value)
    if kind is None:
        raise ValueError(f"{value!r} is not a class of detached values")
    return kind


def send_offer(channel: socket.socket, detached: Detached, application: bytes) -> None:
    """
    Send an offer; the value does not change.

    :raises LocalProtocolError: when the state is too long, or the value has too many sockets.
    :raises OSError: when the offer cannot be sent, for example on a channel that was closed.
    """
    kind = kind_of(type(detached))
    sockets, state = _take_apart(detached, application)
    if not 1 <= len(sockets) <= kind.most_sockets:
        raise LocalProtocolError(
            f"a {kind.name} has 1 to {kind.most_sockets} sockets, not {len(sockets)}"
        )
    memory = _seal(encode_state(state, kind))
    try:
        offer = Offer(os.fstat(memory).st_size, kind, len(sockets))
        descriptors = [*(one.fileno() for one in sockets), memory]
        socket.send_fds(channel, [encode_packet(offer)], descriptors, socket.MSG_NOSIGNAL)
    finally:
        os.close(memory)


def open_offer(offer: Offer, descriptors: list[int], kind: SocketKind) -> tuple[Detached, bytes]:
    """
    Check an offer, and take its sockets out of the list of descriptors.

    :param kind: the kind that is taken.
    :returns: the value, and the bytes of the application.
    :raises RemoteProtocolError: when the offer is invalid; the list is unchanged.
    """
    if offer.kind is not kind:
        raise RemoteProtocolError(f"a {offer.kind.name} was offered, not a {kind.name}")
    if len(descriptors) != offer.sockets + 1:
        raise RemoteProtocolError(f"{len(descriptors)} descriptors, not {offer.sockets + 1}")
    *numbers, memory = descriptors
    state = decode_state(_read_state(memory, offer.state_size), kind, offer.sockets)
    sockets: list[socket.socket] = []
    try:
        for number in numbers:
            sockets.append(_open_socket(number))
            _check_socket(sockets[-1], kind)
        families = {one.family for one in sockets}
        if state.ports and len(families) != len(sockets):
            raise RemoteProtocolError("both UDP sockets of the offer have the same address family")
    except BaseException:
        for one in sockets:
            one.detach()
        raise
    del descriptors[:-1]
    for one in sockets:
        one.setblocking(False)
    return _put_together(kind, sockets, state), state.application


def _take_apart(
    detached: Detached, application: bytes
) -> tuple[tuple[socket.socket, ...], HandoverState]:
    if isinstance(detached, DetachedConnection):
        state = HandoverState(detached.unread, detached.unsent, application)
        return (detached.socket,), state
    if isinstance(detached, DetachedListener):
        return detached.sockets, HandoverState(application=application)
    ports = (detached,) if isinstance(detached, DetachedDatagramPort) else detached.ports
    adapter = 0 if isinstance(detached, DetachedDatagramPort) else detached.adapter
    states = tuple(port.state for port in ports)
    sockets = tuple(port.socket for port in ports)
    return sockets, HandoverState(application=application, ports=states, adapter=adapter)


def _put_together(kind: SocketKind, sockets: list[socket.socket], state: HandoverState) -> Detached:
    if kind is _CONNECTION:
        return DetachedConnection(sockets[0], state.unread, state.unsent)
    if kind is _LISTENER:
        return DetachedListener(tuple(sockets))
    ports = tuple(map(DetachedDatagramPort, sockets, state.ports))
    return ports[0] if kind is _DATAGRAM_PORT else DetachedDatagramSocket(ports, state.adapter)


def _open_socket(number: int) -> socket.socket:
    try:
        return socket.socket(fileno=number)
    except OSError as error:
        raise RemoteProtocolError("a descriptor of the offer is not a socket") from error


def _check_socket(offered: socket.socket, kind: SocketKind) -> None:
    """Check that a socket is of its kind: a wrong one would fail at its first use."""
    if kind in (_DATAGRAM_PORT, _DATAGRAM_SOCKET):
        is_right = offered.type == socket.SOCK_DGRAM and offered.family in _IP
    else:
        is_right = offered.type == socket.SOCK_STREAM and offered.family in _STREAMS
    listens = bool(offered.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    if not is_right or listens is not (kind is _LISTENER):
        raise RemoteProtocolError(f"a socket of the offer is not that of a {kind.name}")


def _seal(data: bytes) -> int:
    """Return the descriptor of a file in memory that nobody can change."""
    memory = os.memfd_create("twsock-handover", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(memory, view) :]
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS | fcntl.F_SEAL_SEAL)
    except BaseException:
        os.close(memory)
        raise
    return memory


def _read_state(memory: int, size: int) -> bytes:
    try:
        seals = fcntl.fcntl(memory, fcntl.F_GET_SEALS)
    except OSError as error:
        raise RemoteProtocolError("the second descriptor is not a file in memory") from error
    actual = os.fstat(memory).st_size
    if seals & _SEALS != _SEALS or actual != size:
        raise RemoteProtocolError(f"the state is not sealed, or has {actual} bytes, not {size}")
    pieces, start = [], 0
    while start < size:
        piece = os.pread(memory, size - start, start)
        if not piece:
            raise RemoteProtocolError("the state is shorter than its file")
        pieces.append(piece)
        start += len(piece)
    return b"".join(pieces)
