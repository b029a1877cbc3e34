"""
Files that are sent: file → **file transfer** → output stream.

`FileSending` is a base class of the output stream in `twsock.sockets.stream.output`, and has
``send_file``. On a plain socket the kernel sends the file (sendfile), and its bytes do not enter
this process. On other transports, and for a file that the kernel cannot send, the transfer reads
and sends 64 KiB at a time. A `FileTransfer` holds a descriptor of the file until it ends.
"""

from __future__ import annotations

import os
import stat
import typing
from typing import Final

from twisted.internet.defer import Deferred
from typing_extensions import override

from twsock._integers import checked_integer
from twsock.errors import LocalProtocolError, SocketError
from twsock.operation import fail
from twsock.sockets.stream.transfers import MAX_PIECE, Transfer, Transferring
from twsock.stream.connection import Connection

__all__ = ["FileSending", "FileTooShortError"]

#: The most bytes of one call of sendfile. After each call the reactor handles other connections, so
#: that a fast peer does not stop them.
_MAX_CALL: Final = 1024 * 1024

#: Pieces that are copied in one turn of the reactor: 1 MiB.
_PIECES_PER_TURN: Final = 16


class FileTooShortError(LocalProtocolError):
    """
    A file has fewer bytes than were to be sent.

    :ivar wanted: how many bytes were to be sent.
    :ivar available: how many bytes the file has from the offset on.
    """

    def __init__(self, wanted: int, available: int) -> None:
        super().__init__(f"the file has {available} bytes to send, not {wanted}")
        self.wanted = wanted
        self.available = available


class _HasDescriptor(typing.Protocol):
    def fileno(self) -> int:
        """Return the number of the file descriptor."""


class FileTransfer(Transfer):
    """
    Sends a part of one file.

    :param descriptor: the descriptor of the file; the transfer closes it.
    :ivar sent: how many bytes the kernel or the transport has taken so far.
    """

    def __init__(self, stream: Transferring, descriptor: int, offset: int, count: int) -> None:
        super().__init__(stream)
        self.sent = 0
        self._descriptor: int | None = descriptor
        self._offset = offset
        self._count = count
        # Whether the kernel can send this file.
        self._is_direct = hasattr(os, "sendfile")

    @property
    @override
    def outcome(self) -> int:
        return self._count

    @override
    def release(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    @override
    def proceed(self, transport: Connection) -> bool:
        if self.sent == self._count:
            return True
        socket_descriptor = transport.direct_descriptor if self._is_direct else None
        try:
            if socket_descriptor is None:
                return self._copy()
            return self._send_directly(transport, socket_descriptor)
        except (OSError, FileTooShortError) as error:
            # The peer would take the bytes of later writes for the missing ones.
            broken = error if isinstance(error, SocketError) else SocketError.from_exception(error)
            transport.abort(broken)
            return False

    def _send_directly(self, transport: Connection, socket_descriptor: int) -> bool:
        """Let the kernel send once; return whether all is sent."""
        assert self._descriptor is not None
        left = min(self._count - self.sent, _MAX_CALL)
        place = self._offset + self.sent
        try:
            sent = os.sendfile(socket_descriptor, self._descriptor, place, left)
        except BlockingIOError:
            transport.await_room()
            return False
        except ConnectionError as error:
            transport.output_broke(error)
            return False
        except OSError:
            # The kernel cannot send this file. If there is another error, the read reports it.
            self._is_direct = False
            return self._copy()
        self._note_sent(sent)
        transport.note_sent(sent)
        if self.sent < self._count:
            transport.await_room()
            return False
        return True

    def _copy(self) -> bool:
        """Read and send pieces; return whether all is sent and with the kernel."""
        for _ in range(_PIECES_PER_TURN):
            if self._descriptor is None:
                return False  # Released: the connection broke in the last step.
            left = min(self._count - self.sent, MAX_PIECE)
            piece = os.pread(self._descriptor, left, self._offset + self.sent)
            self._note_sent(len(piece))
            is_sent = self.stream.pass_on(piece)
            if not is_sent or self.sent == self._count:
                return is_sent
        self.stream.proceed_next_turn()
        return False

    def _note_sent(self, size: int) -> None:
        if not size:
            raise FileTooShortError(self._count, self.sent)
        self.sent += size


class FileSending(Transferring):
    """The part of an output stream that sends files."""

    __slots__ = ()

    def send_file(
        self, file: _HasDescriptor, offset: int = 0, count: int | None = None
    ) -> Deferred[int]:
        """
        Send a part of a file, after all earlier writes and before all later ones.

        On a plain socket the kernel sends the file (sendfile). Under TLS, and on a transport in
        memory, 64 KiB at a time are read and sent. The position of the file is neither used nor
        changed, and the file may be closed after the call. It must not become shorter before all
        bytes are sent. If a read waits for the disk, the reactor waits, too.

        :param file: a regular file, opened for reading. Text is sent as the bytes on the disk.
        :param offset: where the first byte is in the file, counted from 0; 0 or more.
        :param count: how many bytes; 0 or more. None for all bytes from the offset to the present
            end of the file.
        :returns: fires with the number of bytes, once the kernel has all of them. The attribute
            ``sent`` of the Deferred is the number of bytes so far. Cancelling stops the transfer;
            later writes follow the bytes that were sent. The Deferred fails with
            `FileTooShortError` at once if the file has fewer bytes. If the file becomes shorter
            later, or the disk has an error, the connection is aborted and the Deferred fails: the
            peer would take later bytes for the missing ones.
        :raises ValueError: at once, when a number is negative, or the file is not a regular file.
        :raises TypeError: at once, when a number is not an integer.
        """
        if checked_integer(offset, "an offset") < 0:
            raise ValueError(f"an offset is 0 or more, not {offset}")
        if count is not None and checked_integer(count, "a count of bytes") < 0:
            raise ValueError(f"a count of bytes is 0 or more, not {count}")
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("only a regular file can be sent")
        if self._refusal is not None:
            return self._refuse()
        available = max(status.st_size - offset, 0)
        wanted = available if count is None else count
        if wanted > available:
            return fail(FileTooShortError(wanted, available))
        transfer = FileTransfer(self, os.dup(file.fileno()), offset, wanted)
        self.queue_transfer(transfer)
        return transfer
