"""
Packets with descriptors between two processes: UNIX socket → **packet** → channel of its reader.

The channels of hand-overs and of restarts read their packets here. Descriptors travel in control
messages of type SCM_RIGHTS, unix(7). A packet owns its descriptors until it is closed.
"""

from __future__ import annotations

import array
import os
import socket
import struct
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final

from typing_extensions import Self

from twsock.errors import RemoteProtocolError

__all__ = ["ReceivedPacket", "channel_peer", "receive_with_descriptors"]

#: ``struct ucred``: process, user, group.
_UCRED: Final = struct.Struct("=iII")


def channel_peer(channel: socket.socket) -> tuple[int, int]:
    """
    Return the process id and the user at the other end of a UNIX socket.

    At the end that connected, they are those of the process that called listen(2), which may be an
    earlier owner of the listening socket.
    """
    raw = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    process, user, _ = _UCRED.unpack(raw)
    return process, user


@dataclass(frozen=True, slots=True)
class ReceivedPacket:
    """
    One packet; a context manager that closes its descriptors.

    :ivar data: empty at the end of the channel.
    :ivar descriptors: a reader that keeps a descriptor removes it from the list.
    """

    data: bytes
    descriptors: list[int]
    _flags: int = field(default=0, repr=False)
    _most_bytes: int = field(default=0, repr=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)

    def check_whole(self) -> None:
        """
        Check that nothing was cut off.

        :raises RemoteProtocolError: when a descriptor was lost, or the packet is too long.
        """
        if self._flags & socket.MSG_CTRUNC:
            raise RemoteProtocolError("a descriptor was lost: none is free in this process")
        if self._flags & socket.MSG_TRUNC:
            raise RemoteProtocolError(f"a packet has more than {self._most_bytes} bytes")


def receive_with_descriptors(
    channel: socket.socket, most_bytes: int, most_descriptors: int
) -> ReceivedPacket:
    """
    Receive one packet.

    :param most_bytes: the rest of a longer packet is dropped; see `ReceivedPacket.check_whole`.
    :param most_descriptors: the kernel closes further ones.
    :raises OSError: of the socket, such as ``BlockingIOError`` or ``ConnectionResetError``.
    """
    data, messages, flags, _ = channel.recvmsg(
        most_bytes, socket.CMSG_SPACE(most_descriptors * 4), socket.MSG_CMSG_CLOEXEC
    )
    return ReceivedPacket(data, _descriptors_of(messages), flags, most_bytes)


def _descriptors_of(messages: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in messages:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return found.tolist()
