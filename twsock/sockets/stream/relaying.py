"""
Two sockets whose bytes are passed on to each other: socket → **relay** → socket, both ways.

A `Relay` has two directions. Each is a read of one socket's input stream that stays pending, and a
transfer in the queue of the other socket's output stream. A direction passes bytes on in one of two
ways::

    COPYING ── two full reads, both sockets plain ──> SPLICING
       ^ └───────────── many small reads ────────────────┘

Copying holds at most the bytes of one read: 64 KiB, or as many as a TLS engine delivers at once.
Splicing leaves the bytes in the kernel, at most 1 MiB in a pipe (`twsock.stream.splicing`). That
saves time with large segments only, and takes two descriptors. So a direction with small segments
copies.

While the target has no room, the source is not read from. A relay ends when both inputs have ended,
when a connection breaks, or when it is cancelled.
"""

from __future__ import annotations

import typing
from typing import Final, NamedTuple

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.python.failure import Failure
from typing_extensions import override

from twsock.errors import (
    BusyError,
    ClosedError,
    OperationNotSupported,
    SocketError,
    SocketErrorStatus,
)
from twsock.operation import Operation
from twsock.sockets.stream.input import ContinuousRead
from twsock.sockets.stream.socket import StreamSocket
from twsock.sockets.stream.transfers import MAX_PIECE, Transfer
from twsock.stream.connection import FULL_READ, Connection
from twsock.stream.splicing import DirectReader, Pipe
from twsock.wire.byte_queue import ByteQueue

__all__ = ["Relay", "RelayedBytes", "relay"]

#: Full reads in a row after which a direction splices.
_FULL_READS: Final = 2

#: A splice of fewer bytes costs as much as a copy.
_SMALL_SPLICE: Final = 16 * 1024

#: Small splices in a row after which a direction copies again, and closes its pipe.
_SMALL_SPLICES: Final = 16


class RelayedBytes(NamedTuple):
    """How many bytes each socket was sent from the other one."""

    left_to_right: int
    right_to_left: int


class _Direction(Transfer, ContinuousRead):
    """
    Passes the input of one socket on to the output of the other.

    :ivar count: how many bytes were passed on.
    """

    def __init__(self, relay: Relay, source: StreamSocket, target: StreamSocket) -> None:
        super().__init__(target.output_stream)
        self.addErrback(_ignore)  # The relay reports the error.
        self.count = 0
        self.source = source
        self.target = target
        self._relay: Relay | None = relay
        self._reading: Deferred[bytes] | None = None
        self._is_input_ended = False
        # Whether all earlier writes of the target are done.
        self._has_turn = False
        # Whether the kernel has no room for bytes to the target.
        self._is_blocked = False
        # Full reads in a row; while splicing, small splices in a row.
        self._in_a_row = 0
        self._pipe: Pipe | None = None
        self._reader: DirectReader | None = None

    def start(self) -> None:
        """Begin to read, and queue behind the writes of the target."""
        if self._relay is None:
            return  # The other direction has failed at once.
        source = self.source.input_stream.transport
        if source is not None:
            source.reset_read_size()
        self._reading = reading = self.source.input_stream.pull(self)
        reading.addCallbacks(self._input_ended, self._input_failed)
        self.stream.queue_transfer(self)

    def hand_back(self) -> None:
        """End before the input has ended: bytes that were read are sent, later ones can be read."""
        if self._pipe is not None and self._has_turn:
            self._stop_reader()
            while data := self._pipe.take(MAX_PIECE):
                self.count += len(data)
                self.stream.pass_on(data)
        self.stop()
        source = self.source.input_stream.transport
        if source is not None:
            source.resume_reading()

    def stop(self) -> None:
        """End this direction; bytes in the pipe are lost."""
        self._relay = None
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
        self.cancel()
        self.release()

    # Called by the input stream of the source.

    @override
    def attempt(self, queue: ByteQueue, is_ended: bool) -> bytes | None:
        """Pass on received bytes; return ``b""`` when the input has ended and none is left."""
        size = queue.size
        if size:
            self._in_a_row = self._in_a_row + 1 if size >= FULL_READ else 0
        while queue.size and self._has_turn and not self._is_blocked:
            piece = queue.take(min(queue.size, MAX_PIECE))
            self.count += len(piece)
            self._is_blocked = not self.stream.pass_on(piece)
        if queue.size or self._is_blocked:
            self._pause()
        elif self._in_a_row >= _FULL_READS and not is_ended:
            self._start_splicing()
        return b"" if is_ended and not queue.size else None

    def _input_ended(self, _nothing: bytes) -> None:
        self._reading = None
        self._is_input_ended = True
        self._stop_reader()
        self.stream.proceed()

    def _input_failed(self, failure: Failure) -> None:
        self._reading = None
        if self._relay is not None and not failure.check(CancelledError):
            self._relay.socket_failed(self.source, typing.cast(SocketError, failure.value))

    # Called by the output stream of the target.

    @override
    def proceed(self, transport: Connection) -> bool:
        self._has_turn = True
        self._is_blocked = False
        if self._pipe is not None:
            self._empty_pipe(transport)
        if not self._is_blocked:
            self.source.input_stream.pull_again()
        if self._is_blocked or self._relay is None:
            return False
        source = self.source.input_stream.transport
        if source is not None and not self._is_input_ended:
            source.resume_reading()
        return self._is_input_ended

    @override
    def done(self) -> None:
        relay, self._relay = self._relay, None
        super().done()
        if relay is not None:
            relay.direction_ended(self.target)

    @override
    def failed(self, error: SocketError) -> bool:
        relay, self._relay = self._relay, None
        super().failed(error)
        if relay is not None:
            relay.socket_failed(self.target, error)
        return False

    @override
    def release(self) -> None:
        self._stop_reader()
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            pipe.close()

    # The two ways.

    def _pause(self) -> None:
        source = self.source.input_stream.transport
        if source is not None:
            source.pause_reading()

    def _start_splicing(self) -> None:
        """Splice from now on, if both sockets are plain; the source has sent full reads."""
        self._in_a_row = 0
        source, target = self.source.input_stream.transport, self.stream.transport
        if source is None or target is None or self._pipe is not None:
            return
        descriptor = source.plain_descriptor
        if descriptor is None or target.direct_descriptor is None:
            return
        self._pipe = Pipe.open()
        if self._pipe is not None:
            self._reader = DirectReader(descriptor, self._splice)

    def _splice(self) -> object:
        """Move bytes from the source to the target; called in the place of ``doRead``."""
        pipe, reader, target = self._pipe, self._reader, self.stream.transport
        if pipe is None or reader is None or target is None or pipe.held:
            return None
        try:
            moved = pipe.fill(reader.fileno())
        except BlockingIOError:
            return None
        except OSError:
            self.release()
            return CONNECTION_LOST
        if not moved:
            self.release()
            return CONNECTION_DONE
        source = self.source.input_stream.transport
        if source is not None:
            source.counters.bytes_received += moved
        self._empty_pipe(target)
        self._in_a_row = self._in_a_row + 1 if moved < _SMALL_SPLICE else 0
        if self._in_a_row >= _SMALL_SPLICES and not self._is_blocked:
            self._in_a_row = 0
            self.release()
        return None

    def _empty_pipe(self, target: Connection) -> None:
        pipe, descriptor = typing.cast(Pipe, self._pipe), target.direct_descriptor
        if descriptor is not None and pipe.held:
            try:
                moved = pipe.empty_into(descriptor)
                self.count += moved
                target.note_sent(moved)
            except OSError as error:
                target.output_broke(error)
                return
        if pipe.held:
            # The socket has no room. Later bytes must not overtake these, so the source waits.
            self._is_blocked = True
            self._pause()
            target.await_room()

    def _stop_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.stop()


class Relay(Operation[RelayedBytes]):
    """
    The Deferred of `relay`.

    :ivar failed_socket: the socket whose connection failed first, or was closed by other code; None
        if none did.
    """

    def __init__(self, left: StreamSocket, right: StreamSocket) -> None:
        super().__init__(_cancel)
        self.failed_socket: StreamSocket | None = None
        self._relayed = RelayedBytes(0, 0)
        self._sockets: tuple[StreamSocket, ...] = (left, right)
        self._ended = 0
        # Cleared at the end: they refer to the relay and to both sockets.
        self._directions: tuple[_Direction, ...] = (
            _Direction(self, left, right),
            _Direction(self, right, left),
        )

    @property
    def relayed(self) -> RelayedBytes:
        """How many bytes were passed on so far; still known after a failure or a cancel."""
        if self._directions:
            return RelayedBytes(*[direction.count for direction in self._directions])
        return self._relayed

    def start(self) -> None:
        """Begin both directions."""
        for direction in self._directions:
            direction.start()

    # Called by the directions.

    def direction_ended(self, target: StreamSocket) -> None:
        """Pass the end of one input on: end the output of the other socket."""
        closing = target.output_stream.close()
        closing.addErrback(_accept_undivided)
        closing.addCallbacks(self._end_passed_on, self._end_failed, errbackArgs=(target,))

    def socket_failed(self, failed: StreamSocket, error: SocketError) -> None:
        """Abort both sockets, so that no peer takes the bytes that it has for all bytes."""
        if not self._directions:
            return
        self.failed_socket = failed
        is_cancelled = error.status is SocketErrorStatus.OPERATION_ABORTED
        if is_cancelled and not isinstance(error, ClosedError):
            self.hand_back()  # By ``cancel_io``, which keeps the connection.
        else:
            directions = self._end()
            # Sockets first: a stream whose transfer has stopped might send FIN before the reset.
            for socket in self._take_sockets():
                socket.abort()
            for direction in directions:
                direction.stop()
        if not self.called:
            self.errback(error.copy())

    def hand_back(self) -> None:
        """End both directions, and leave both sockets open."""
        for direction in self._directions:
            direction.hand_back()
        self.forget()

    def forget(self) -> None:
        """Release the directions and the sockets."""
        self._end()
        self._take_sockets()

    def _end_passed_on(self, _result: None) -> None:
        self._ended += 1
        if self._ended == len(self._directions):
            self._end()
            for socket in self._take_sockets():
                socket.close()
            if not self.called:
                self.callback(self._relayed)

    def _end_failed(self, failure: Failure, target: StreamSocket) -> None:
        self.socket_failed(target, typing.cast(SocketError, failure.value))

    def _end(self) -> tuple[_Direction, ...]:
        self._relayed = self.relayed
        directions, self._directions = self._directions, ()
        return directions

    def _take_sockets(self) -> tuple[StreamSocket, ...]:
        sockets, self._sockets = self._sockets, ()
        return sockets


def relay(left: StreamSocket, right: StreamSocket) -> Relay:
    """
    Pass all bytes that each of two connected sockets receives on to the other one.

    Both sockets belong to the relay until it is done: other reads fail with `BusyError`, and other
    writes wait. Bytes that were received before, and writes that were queued before, come first.

    - When a peer ends its output, the output of the other socket is ended after the last byte. The
      other direction continues. When both peers have ended, both sockets are closed. (TLS that was
      started with ``startTLS`` cannot end one direction alone, and is closed at that time.)
    - When either connection breaks, both are aborted: a reset is passed on as a reset, and never as
      an end in order. Bytes that are on their way are lost.
    - While a peer does not read, the other peer is not read from. Each direction holds at most
      1 MiB in a pipe of the kernel, or the bytes of one read in memory.

    Between two plain sockets on Linux, large segments do not pass through this process (splice).
    Splicing takes two descriptors for each direction. In all other cases bytes are received and
    sent: under TLS on either side, for small segments, on other systems, and without free
    descriptors.

    A relay has no timeout. To limit its time, check ``relayed`` and cancel.

    :returns: fires with the numbers of bytes, `RelayedBytes`, when both peers have ended and the
        kernel has all bytes. The attribute ``relayed`` of the Deferred has these numbers at any
        time, and ``failed_socket`` is the socket whose connection ended the relay. The Deferred
        fails with the error of the connection that broke, or with `ClosedError` if other code
        closed a socket. It fails at once with `ClosedError` if a socket is not connected or one of
        its streams was closed, and with `BusyError` if a read is pending; then both sockets are
        left as they were. Cancelling it, and ``cancel_io`` of a socket, leave both sockets open:
        bytes that were received are still sent, and both sockets can be read and written at once.
        If the end of a peer was passed on before, that output stays ended.
    :raises ValueError: at once, when both are the same socket.
    """
    if left is right:
        raise ValueError("a socket cannot be relayed to itself")
    made = Relay(left, right)
    for socket in (left, right):
        if not (socket.is_open and socket.input_stream.is_open and socket.output_stream.is_open):
            return _refuse(made, ClosedError("cannot relay: a socket is not open"))
        if socket.input_stream.is_pending:
            return _refuse(made, BusyError("cannot relay: a read is pending"))
    made.start()
    return made


def _refuse(refused: Relay, error: SocketError) -> Relay:
    refused.forget()
    refused.errback(error)
    return refused


def _cancel(cancelled: Deferred[RelayedBytes]) -> None:
    typing.cast(Relay, cancelled).hand_back()


def _accept_undivided(failure: Failure) -> None:
    """Accept that an output cannot be closed alone."""
    failure.trap(OperationNotSupported)


def _ignore(_failure: Failure) -> None:
    """Consume an error that the relay has reported."""
