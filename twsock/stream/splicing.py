"""
Bytes that the kernel moves from one socket to another: socket → **pipe** → socket.

Used by `twsock.sockets.stream.relaying` between plain sockets on Linux. splice(2) moves bytes
between a socket and a pipe without copying them into this process. A pipe holds at most 1 MiB of
kernel memory, and takes two file descriptors. A pipe of the kernel's default size, 64 KiB, saves
nothing: each segment takes one of its 16 places.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.abstract import FileDescriptor

__all__ = ["PIPE_SIZE", "DirectReader", "Pipe"]

#: What a pipe holds, in bytes: the most that Linux allows without privileges (pipe-max-size).
PIPE_SIZE: Final = 1024 * 1024


class Pipe:
    """
    A pipe for bytes on their way between two sockets; made by `Pipe.open`.

    :ivar held: how many bytes are in the pipe.
    """

    __slots__ = ("_ends", "_flags", "held")

    def __init__(self, ends: tuple[int, int]) -> None:
        self.held = 0
        self._ends: tuple[int, int] | None = ends
        self._flags = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK

    @classmethod
    def open(cls) -> Pipe | None:
        """Make a pipe; return None if there is no splice, or the system refuses such a pipe."""
        if not (hasattr(os, "splice") and hasattr(fcntl, "F_SETPIPE_SZ")):
            return None  # Only Linux has both.
        try:
            ends = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None  # Too many files are open.
        pipe = cls(ends)
        try:
            if fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, PIPE_SIZE) >= PIPE_SIZE:
                return pipe
        except OSError:
            pass  # This user has too much memory in pipes (pipe-user-pages-soft).
        pipe.close()
        return None

    def fill(self, source: int) -> int:
        """
        Move bytes from a socket into the pipe, up to `PIPE_SIZE` in all.

        :param source: the file descriptor of the socket.
        :returns: how many bytes were moved; 0 at the end of the stream.
        :raises BlockingIOError: when the socket has no bytes, or the pipe is full. A pipe can be
            full below its size, since each segment takes a place.
        :raises OSError: when the connection is broken.
        """
        assert self._ends is not None
        # The kernel only limits the places. One place may hold 64 KiB, so the size is checked here.
        room = PIPE_SIZE - self.held
        if not room:
            raise BlockingIOError
        moved = os.splice(source, self._ends[1], room, flags=self._flags)
        self.held += moved
        return moved

    def empty_into(self, target: int) -> int:
        """
        Move bytes from the pipe into a socket.

        :param target: the file descriptor of the socket.
        :returns: how many bytes were moved; 0 when the socket has no room.
        :raises OSError: when the connection is broken.
        """
        assert self._ends is not None
        try:
            moved = os.splice(self._ends[0], target, self.held, flags=self._flags)
        except BlockingIOError:
            return 0
        self.held -= moved
        return moved

    def take(self, most: int) -> bytes:
        """Read at most ``most`` bytes out of the pipe; return none if it is empty."""
        assert self._ends is not None
        data = os.read(self._ends[0], min(most, self.held)) if self.held else b""
        self.held -= len(data)
        return data

    def close(self) -> None:
        """Close the pipe; bytes in it are lost. Closing twice is harmless."""
        ends, self._ends = self._ends, None
        self.held = 0
        for end in ends or ():
            os.close(end)


class DirectReader:
    """
    Replaces the ``doRead`` of Twisted's transport, which the reactor calls for a readable socket.

    The reactor continues to watch the transport, which is paused, resumed and closed as before.

    :param descriptor: a plain transport.
    :param read: called in the place of ``doRead``. It returns None, or the reason why nothing more
        can be read.
    """

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: FileDescriptor, read: Callable[[], object]) -> None:
        self._descriptor: Any = descriptor
        vars(descriptor)["doRead"] = read

    def fileno(self) -> int:
        """Return the file descriptor; -1 once it is closed."""
        descriptor: int = self._descriptor.fileno()
        return descriptor

    def stop(self) -> None:
        """Let the transport read again."""
        vars(self._descriptor).pop("doRead", None)
