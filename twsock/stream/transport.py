"""
One connection's way out, its brakes and its end: protocol → **stream transport** → socket.

Owned by a protocol of `twsock.protocols` (or a socket object), above any stream transport of
Twisted. It keeps what was written and not sent yet, which the owner bounds by looking at
`StreamTransport.is_full`; what the kernel refused waits in Twisted's own queue, so that a
``transport.write`` of the application keeps its place in the order.

Writes go through: where nothing is queued on a plain socket, `StreamTransport.send` calls the
kernel itself. That saves a reactor turn and three system calls per answer. Under TLS, in memory, or
behind anything queued, the bytes take ``transport.write``.

How a connection ends::

    OPEN ── close() ──> FINISHING ── all is with the kernel: FIN ──> LINGERING ── peer's FIN ─> LOST
     │ │                    └──────── the deadline passes: abort                                 ^
     │ ├── end_output(): FIN ──> HALF_CLOSED ── close() ──> LINGERING ── the deadline: close ───>│
     │ └── a failed send ──> BROKEN: input can be read until the owner aborts ──────────────────>│
     └──── abort(), a reset ─────────────────────────────────────────────────────────────────────┘

Above a TLS engine of `twsock.tls.engine` the same holds: close_notify takes the place of FIN, and
`close` sends FIN behind it. The peer's end is its close_notify; what TCP does after that does not
count. An engine that Twisted made ends both directions at once.
"""

from __future__ import annotations

import enum
import typing
from collections.abc import Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from twsock._twisted import forget_buffers
from twsock.errors import BrokenError, ClosedError, OperationNotSupported, SocketError
from twsock.stream.below_tls import TRY_LATER, TlsLowerTransport
from twsock.stream.descriptor import (
    SMALL,
    carries_tls,
    discard_input,
    engine_bytes,
    engine_holds,
    find_descriptor,
    hung_up,
    is_half_closing_engine,
    is_shaking_hands,
    join_queued,
    may_collect,
    plain_socket,
    queued_bytes,
    unread_input,
)
from twsock.stream.drain import BrakeWatch, DrainWatch, Watch
from twsock.waiters import Waiters

__all__ = [
    "DEFAULT_CLOSE_TIMEOUT",
    "FIRST_MESSAGE_TIME",
    "HIGH_WATER",
    "LOW_WATER",
    "StreamOwner",
    "StreamTransport",
]

#: Bytes written and not yet taken by the kernel at which a connection is full: the owner stops
#: producing, and its peer is not read from. The same 64 KiB at which Twisted pauses a producer.
HIGH_WATER: Final = 64 * 1024

#: Bytes at which a full connection is writable again. Zero, because a descriptor tells of an empty
#: queue and of nothing before it.
LOW_WATER: Final = 0

#: How long a close waits for the peer before it aborts, in seconds.
DEFAULT_CLOSE_TIMEOUT: Final = 5.0

#: Seconds from the end of a handshake to the first message, while the server ends. A client sends
#: its message when the handshake is done; with TLS 1.2 that is one round trip later.
FIRST_MESSAGE_TIME: Final = 1.0

#: One receive, in bytes. It begins at Twisted's 64 KiB and doubles while reads come back full, up
#: to this: frames of 64 KiB then cost a third of the time. Just below the 128 KiB above which glibc
#: maps and unmaps memory for each receive, which costs more than the larger read saves.
_MAX_READ_SIZE: Final = 128_000

#: Written pieces are joined up to this many bytes, which costs less than a longer call; more are
#: given to the kernel as they are.
_MAX_JOINED: Final = 64 * 1024

#: How often a TLS engine is looked at that keeps what it was given, in seconds.
_SETTLE_INTERVAL: Final = 0.01

#: Pieces that one call may be given; Linux's IOV_MAX.
_MAX_PIECES: Final = 1024


class StreamOwner(typing.Protocol):
    """Receives output events of a stream; never from within one of its own calls."""

    def output_drained(self) -> None:
        """What made the connection full is with the kernel: go on."""

    def output_failed(self, error: BrokenError) -> None:
        """
        The kernel sends no more: abort, now or once what was received has been read.

        Called from within the call that met the error.
        """


class _Nobody:
    """Replaces the owner of a lost connection; does nothing."""

    def output_drained(self) -> None: ...
    def output_failed(self, error: BrokenError) -> None: ...


class _Engine(typing.Protocol):
    """A TLS engine whose two directions end separately."""

    def finish(self) -> None:
        """Send close_notify, then FIN."""


class _Phase(enum.Enum):
    OPEN = enum.auto()
    HALF_CLOSED = enum.auto()
    BROKEN = enum.auto()
    FINISHING = enum.auto()
    LINGERING = enum.auto()
    ABORTED = enum.auto()
    LOST = enum.auto()


#: Asked for with every write and read, and a name of the module is found in half the time.
_OPEN: Final = _Phase.OPEN


class StreamTransport:
    """
    Sends, brakes and closes one connection.

    :param owner: is told when a full connection is writable again.
    :param transport: any connected stream transport of Twisted.
    :param clock: measures ``close_timeout``.
    :param high_water: bytes written and not with the kernel at which `is_full` becomes true.
    :param close_timeout: seconds that `close` waits for the kernel to take what is queued and for
        the peer to end, before it aborts.
    """

    __slots__ = (
        "_braked_bytes",
        "_clock",
        "_close_timeout",
        "_deadline",
        "_descriptor",
        "_ending",
        "_engine",
        "_error",
        "_high_water",
        "_is_braked",
        "_lower",
        "_output_error",
        "_owner",
        "_peer_ended",
        "_pending",
        "_phase",
        "_rebound_from",
        "_settling",
        "_socket",
        "_transport",
        "_watch",
        "is_reading",
        "room",
    )

    def __init__(
        self,
        owner: StreamOwner,
        transport: Any,
        clock: IReactorTime,
        *,
        high_water: int = HIGH_WATER,
        close_timeout: float = DEFAULT_CLOSE_TIMEOUT,
    ) -> None:
        if not close_timeout >= 0:
            raise ValueError(f"close_timeout is 0 seconds or more, not {close_timeout!r}")
        self._owner = owner
        self._transport = transport
        self._clock = clock
        self._high_water = high_water
        self._close_timeout = close_timeout
        self._phase = _Phase.OPEN
        self._pending: list[bytes | bytearray] = []
        #: Bytes that may be written before the next `send`; 0 or less once this end is closed. One
        #: number answers both questions that a loop over messages has after each of them.
        self.room = high_water
        self._is_braked = False
        self._braked_bytes = 0  # Written since the transport reported a full buffer.
        # Of a TLS engine, while written data waits for its handshake; of the engine below this.
        self._lower: TlsLowerTransport | None = None
        self._rebound_from: TlsLowerTransport | None = None
        self.is_reading = True  #: Whether the transport is read from.
        self._peer_ended = False
        self._error: SocketError | None = None
        # The error of a send by the TLS engine itself; it is ignored if the input ends in order.
        self._output_error: BrokenError | None = None
        self._deadline: IDelayedCall | None = None
        self._ending: Waiters | None = None  # Made at the first wait.
        self._watch: Watch | None = None
        # Checks in the next turn whether the TLS engine has sent its data.
        self._settling: IDelayedCall | None = None
        self._socket = plain_socket(transport)
        self._descriptor = find_descriptor(transport)
        self._engine: _Engine | None = transport if is_half_closing_engine(transport) else None
        self._set_up(transport)

    def _set_up(self, transport: Any) -> None:
        """Watch the queue of a transport without a descriptor; disable Nagle's algorithm."""
        if self._descriptor is None and hasattr(transport, "registerProducer"):
            self._watch = BrakeWatch(transport, self._set_brake)
        if hasattr(self._descriptor, "setTcpNoDelay"):
            # Without it an answer that the kernel took in two parts waits 40 ms for the peer's ACK.
            typing.cast(Any, self._descriptor).setTcpNoDelay(True)

    @property
    def is_open(self) -> bool:
        """Whether the owner may still write, and should still be given what arrives."""
        return self._phase is _OPEN

    @property
    def is_broken(self) -> bool:
        """Whether a send failed, so that a FIN is no end in order; the peer's close_notify is."""
        return self._phase is _Phase.BROKEN and self._engine is None

    @property
    def is_gone(self) -> bool:
        """Whether the connection is lost, or was aborted and is about to be."""
        return self._phase in (_Phase.ABORTED, _Phase.LOST)

    @property
    def is_plain(self) -> bool:
        """Whether the bytes written are the bytes on the wire."""
        return self._socket is not None and not self._transport.TLS

    @property
    def carries_tls(self) -> bool:
        """Whether a TLS engine is among what carries the connection."""
        return carries_tls(self._transport)

    @property
    def can_end_output(self) -> bool:
        """Whether FIN or close_notify can be sent while input is still read."""
        if self._engine is not None:
            return True
        if self._descriptor is not None:
            return self.is_plain
        return hasattr(self._transport, "loseWriteConnection")

    @property
    def is_held(self) -> bool:
        """Whether what is written waits for a handshake."""
        return self._lower is not None

    @property
    def is_full(self) -> bool:
        """Whether the high-water mark is reached; `StreamOwner.output_drained` tells of its end."""
        descriptor = self._descriptor
        if descriptor is None:
            return self._is_braked or self.room <= 0
        kept = engine_bytes(self._transport) if self._settling is not None else 0
        return kept + queued_bytes(descriptor) >= self.room

    @property
    def unsent(self) -> int:
        """
        How many bytes were written and are not yet with the kernel; 0 once they were dropped.

        Under TLS this includes bytes that wait before encryption and bytes that wait after it. On a
        transport without a file descriptor, only bytes written while its buffer was full count.
        """
        if self.is_gone:
            return 0  # It was dropped.
        written = self._high_water - self.room if self._phase is _OPEN else 0
        descriptor = self._descriptor
        if descriptor is None:
            return written + self._braked_bytes
        kept = 0 if self.is_plain else engine_bytes(self._transport)
        return written + queued_bytes(descriptor) + kept

    @property
    def is_flushed(self) -> bool:
        """Whether everything written is with the kernel."""
        if self._pending or self._settling is not None:
            return False
        descriptor = self._descriptor
        return not (self._is_braked if descriptor is None else queued_bytes(descriptor))

    @property
    def has_unread_input(self) -> bool:
        """Whether bytes wait in the kernel that the reactor has not read."""
        return self._descriptor is not None and unread_input(self._descriptor)

    # The way out.

    def write(self, data: bytes | bytearray) -> None:
        """
        Keep bytes for the next `send`. The caller no longer touches a ``bytearray`` given.

        :raises ClosedError: when this end was closed.
        :raises BrokenError: when the connection died.
        """
        if self._phase is not _OPEN:
            raise self._reason_not_to_write()
        self._pending.append(data)
        self.room -= len(data)

    def send(self) -> bool:
        """
        Hand all that was written to the kernel, or as much as it takes and the rest to Twisted.

        :returns: whether nothing is left with Twisted, as far as is known.
        """
        pending = self._pending
        if not pending:
            # A TLS engine answers its peer by itself, which may fill the queue.
            return self._socket is not None or not self._watch_queue()
        if self._lower is not None:
            self._join_pending()
            return False
        data = pending[0] if len(pending) == 1 else b"".join(pending)
        pending.clear()
        self.room = self._high_water
        transport = self._transport
        if (
            self._socket is not None
            # TLS may have been started since; a queue may have formed: both have to come first.
            and not transport.TLS
            and not transport.dataBuffer
            and not transport._tempDataLen
            # An application may have aborted the transport itself.
            and not transport._aborting
        ):
            try:
                sent = self._socket.send(data)
            except OSError as error:
                if error.errno not in TRY_LATER:
                    self._fail(error)
                    return True
                sent = 0
            if sent == len(data):
                return True
            data = memoryview(data)[sent:].tobytes()
        return self._queue_data(data)

    def _queue_data(self, data: bytes | bytearray) -> bool:
        """Pass data to Twisted's queue; return whether it is empty afterwards, as far as known."""
        transport = self._transport
        if not (self.is_plain and join_queued(transport, data)):
            transport.write(data if isinstance(data, bytes) else bytes(data))
        if self._descriptor is None:
            if self._is_braked:
                self._braked_bytes += len(data)
            return not self._is_braked
        is_engine_full = self._watch_engine()
        return not (self._watch_queue() or is_engine_full)

    def _join_pending(self) -> None:
        """Join the last two pieces that wait where both are small, as `join_queued` does."""
        pending = self._pending
        if len(pending) > 1 and len(pending[-2]) < SMALL and len(pending[-1]) < SMALL:
            last = pending.pop()
            pending[-1] += last

    def hold(self) -> TlsLowerTransport:
        """
        Let what is written wait, whoever writes it: a handshake begins on the transport.

        :returns: the transport below the TLS engine. Only the engine may write to it.
        """
        lower = self._lower
        if lower is None:
            descriptor: Any = self._descriptor
            lower = self._lower = TlsLowerTransport(self._transport, self._socket, descriptor, self)
            if descriptor is not None and descriptor.producer not in (None, self._watch):
                lower.take_producer()
        return lower

    def take(self, data: bytes) -> None:
        """Keep what was written to the transport itself while it is held."""
        if self._phase is _OPEN:
            self.write(bytes(data))

    def output_broke(self, error: OSError) -> None:
        """Note that the engine can no longer send; end as after a failed send of this end."""
        if self._phase is _OPEN and self._lower is None:
            self._fail(error)
        else:
            # An answer of the handshake, or close_notify: what the peer sent says more.
            self._output_error = BrokenError.from_exception(error.with_traceback(None))

    def rebind(self, transport: Any) -> StreamTransport:
        """
        Go on above another transport, which has been put above this one's.

        :returns: what takes the place of this, with all that was written and not sent.
        """
        self._stop_watching()
        successor = StreamTransport(
            self._owner,
            transport,
            self._clock,
            high_water=self._high_water,
            close_timeout=self._close_timeout,
        )
        for data in self._pending:
            successor.write(data)
        self._pending.clear()
        successor._ending, self._ending = self._ending, None
        if self._lower is not None:
            successor._rebound_from = self._lower
            self._lower.lead_to(transport, successor)
        successor.send()
        successor._watch_queue()
        if self._lower is not None:
            self._lower.resume_producer()
        return successor

    def send_pieces(self, pieces: Sequence[bytes]) -> tuple[int, int]:
        """
        Hand pieces on, in their order, until the kernel takes no more of them.

        For an owner that keeps what the kernel has no room for, and so can still take it back:
        `StreamOwner.output_drained` says when to go on, unless `is_flushed` is true afterwards.

        :param pieces: none of them empty.
        :returns: how many were handed on, at most 1,024 of them where they are more than 64 KiB
            together; and how many of these the kernel has to their ends.
        """
        transport = self._transport
        if (
            self._socket is None
            or transport.TLS
            or transport._aborting  # by an application that has the transport itself
            or queued_bytes(transport)
        ):
            return self._queue_pieces(pieces)
        total = sum(map(len, pieces))
        try:
            if total <= _MAX_JOINED:
                sent = self._socket.send(b"".join(pieces))
            else:
                sent = self._socket.sendmsg(pieces[:_MAX_PIECES])
        except OSError as error:
            if error.errno not in TRY_LATER:
                self._fail(error)
                return 0, 0
            sent = 0
        if sent == total:
            return len(pieces), len(pieces)
        return self._queue_first_unsent(pieces, sent)

    def _queue_first_unsent(self, pieces: Sequence[bytes], sent: int) -> tuple[int, int]:
        """Pass the first piece that the kernel did not take whole to Twisted's queue."""
        transport = self._transport
        for done, piece in enumerate(pieces):
            if sent < len(piece):
                if done == _MAX_PIECES and not sent:
                    return done, done
                # The transport tells when there is room again only if it has something to send.
                transport.write(piece[sent:] if sent else piece)
                self._watch_queue()
                return done + 1, done
            sent -= len(piece)
        return len(pieces), len(pieces)

    def end_output(self) -> None:
        """
        Send FIN behind what was handed on, which is all with the kernel. What comes is still read.

        Under TLS, close_notify is sent instead. A peer with TLS 1.2 may then stop sending.

        :raises OperationNotSupported: when the transport, or a TLS engine of Twisted, cannot do it.
        """
        if not self.can_end_output:
            raise OperationNotSupported("this transport cannot close its output alone")
        if self._phase is _OPEN:
            self._phase = _Phase.HALF_CLOSED
            self.room = 0
            if self._peer_ended:
                self._lose_transport()
            else:
                self._transport.loseWriteConnection()

    # The brakes.

    def pause_reading(self) -> None:
        """Let the peer wait: its bytes stay in the kernel, and soon on its own machine."""
        if self.is_reading:
            self.is_reading = False
            self._transport.pauseProducing()

    def resume_reading(self) -> None:
        """Read on, unless there is nothing more to come."""
        if not self.is_reading and not self._peer_ended:
            self.is_reading = True
            self._transport.resumeProducing()

    def note_read(self, size: int) -> None:
        """Ask for more at a time next time when a read came back full."""
        descriptor = self._descriptor
        if descriptor is not None and size >= descriptor.bufferSize < _MAX_READ_SIZE:
            descriptor.bufferSize = min(2 * descriptor.bufferSize, _MAX_READ_SIZE)

    # The end.

    @property
    def has_hung_up(self) -> bool:
        """Whether the peer is gone for good, which nobody notices while nothing is read."""
        return self._descriptor is not None and hung_up(self._descriptor)

    def close(self) -> Deferred[None]:
        """
        End the connection in order: send what is written, send FIN, await the peer's.

        What the peer sends meanwhile is read and dropped, so that no reset destroys what was sent.
        Under TLS, close_notify is sent before FIN.

        After ``close_timeout`` the wait ends. The kernel still sends the bytes that it has taken; a
        peer that goes on sending may get a reset. If bytes are still queued here, the connection is
        aborted, since an end in order would hide the loss.

        :returns: fires when the connection is gone; at once when it is already. Cancelling stops
            the wait and not the close.
        """
        if self._lower is not None and self._phase is not _Phase.LINGERING:
            return self.abort()  # What waits cannot be sent, so there is no end in order.
        if self._phase is _Phase.OPEN:
            self.send()
        # Sending may just have failed, which is an end too.
        if self._phase in (_Phase.OPEN, _Phase.HALF_CLOSED):
            has_sent_fin = self._phase is _Phase.HALF_CLOSED and self._engine is None
            self._phase = _Phase.LINGERING if has_sent_fin else _Phase.FINISHING
            self.room = 0
            self._deadline = self._clock.callLater(self._close_timeout, self._deadline_passed)
            if not self._peer_ended:
                self.is_reading = True
                self._transport.resumeProducing()  # Whoever paused it.
            is_waiting = self._watch is not None or self._settling is not None
            if not has_sent_fin and (not is_waiting or self._descriptor is None):
                self._finish_output()
        elif self._phase is _Phase.BROKEN:
            self.abort()
        return self.when_lost()

    def close_drained(self) -> Deferred[None]:
        """
        Close as `close` does, or send FIN at once if the peer has not begun its handshake.

        No bytes wait for that handshake, so this is an end in order.

        :returns: as `close`.
        """
        if self.is_silent:
            self._phase = _Phase.LINGERING
            self.room = 0
            self._transport.loseConnection()
        return self.close()

    @property
    def is_silent(self) -> bool:
        """Whether the peer has not begun the handshake, and no bytes wait for it."""
        if self._lower is None or self._pending or self._phase is not _OPEN:
            return False
        return not self.has_unread_input and not is_shaking_hands(self._lower.protocol)

    def abort(self, error: SocketError | None = None) -> Deferred[None]:
        """
        End the connection now: drop what is queued, send a reset where there is a socket.

        :param error: the reason, if it is not that the application wished it.
        :returns: fires when the connection is gone.
        """
        if self._phase is not _Phase.LOST:
            if error is not None:
                self.note_error(error)
            if self._phase is not _Phase.ABORTED:
                self._phase = _Phase.ABORTED
                self._pending.clear()
                self.room = 0
                self._stop_watching()
                transport = self._transport
                getattr(transport, "abortConnection", transport.loseConnection)()
        return self.when_lost()

    def note_error(self, error: SocketError) -> None:
        """Know better than Twisted why the connection is about to end."""
        if self._error is None:
            # Who reported it may raise it, and the frames would be kept with it.
            self._error = error.copy()

    def when_lost(self) -> Deferred[None]:
        """
        Wait for the end of the connection, whoever brings it about.

        :returns: fires when it is gone; at once when it is already. Cancelling stops the wait.
        """
        if self._phase is _Phase.LOST:
            return succeed(None)
        if self._ending is None:
            self._ending = Waiters()
        return self._ending.wait()

    # Told by the owner what Twisted tells it.

    def peer_ended(self) -> None:
        """Note that the peer sent FIN or close_notify: nothing more will be read."""
        self._peer_ended = True
        self.is_reading = False
        if self._phase in (_Phase.LINGERING, _Phase.HALF_CLOSED):
            self._lose_transport()
        elif self._phase is _Phase.BROKEN:
            self.abort()

    def lost(self, reason: Failure) -> SocketError | None:
        """
        Handle the loss of the connection: release everything, and fire the waiters.

        :returns: why, or None where it ended in order.
        """
        phase, self._phase = self._phase, _Phase.LOST
        self._error = self._reason_of_end(phase, reason)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._stop_watching()
        self._release()
        if self._ending is not None:
            self._ending.fire()
        # A copy, since an error that is raised keeps the frames of its traceback.
        return None if self._error is None else self._error.copy()

    def _release(self) -> None:
        """Drop written bytes, and the references back to the owner."""
        for lower in (self._lower, self._rebound_from):
            if lower is not None:
                lower.release()
        self._lower = self._rebound_from = None
        if self._descriptor is not None:
            forget_buffers(self._descriptor)
        self._owner = _Nobody()
        self._socket = None
        self._descriptor = None
        self._pending.clear()

    def _reason_of_end(self, phase: _Phase, reason: Failure) -> SocketError | None:
        if self._error is not None:
            return self._error
        if phase is _Phase.ABORTED:
            return ClosedError("the connection was aborted by this end")
        if self._peer_ended and self._engine is not None:
            # The peer's close_notify was the end. TCP may fail after it, unless bytes are lost.
            descriptor = self._descriptor
            is_queued = descriptor is not None and queued_bytes(descriptor) > 0
            if phase is _Phase.LINGERING or not (self._pending or is_queued):
                return None
        if self._output_error is not None or reason.check(ConnectionDone):
            return self._output_error
        return BrokenError.from_exception(typing.cast(BaseException, reason.value))

    def _reason_not_to_write(self) -> SocketError:
        if isinstance(self._error, BrokenError):
            return BrokenError.from_exception(self._error)
        return ClosedError("cannot write: this end of the connection is closed")

    def _fail(self, error: OSError) -> None:
        # The kernel gives a socket's error once, and we have it: the transport could now see a
        # clean end. So this end is ours to report.
        # Without the frames that it came through, which hold on to the bytes under way.
        self._error = broken = BrokenError.from_exception(error.with_traceback(None))
        self._phase = _Phase.BROKEN
        self._pending.clear()
        self.room = 0
        self._stop_watching()
        self._owner.output_failed(broken.copy())

    def _queue_pieces(self, pieces: Sequence[bytes]) -> tuple[int, int]:
        """Hand pieces to a transport that sends them in its own time, until it is full."""
        handed = 0
        is_little = sum(map(len, pieces)) <= _MAX_JOINED
        while handed < len(pieces) and (is_little or not self.is_full):
            end = _joined_end(pieces, handed)
            self._transport.write(b"".join(pieces[handed:end]))
            if self._is_braked:
                self._braked_bytes += sum(map(len, pieces[handed:end]))
            handed = end
        self._watch_queue()
        if self._descriptor is not None and self._settling is None and may_collect(self._transport):
            self._settling = self._clock.callLater(0, self._settle)
        return handed, handed if self.is_flushed else 0

    def _settle(self) -> None:
        self._settling = None
        self._watch_queue()
        if engine_holds(self._transport):
            # A handshake that is under way; nothing tells of its end here.
            self._settling = self._clock.callLater(_SETTLE_INTERVAL, self._settle)
        elif self._watch is None:
            self._queue_is_empty()

    def _set_brake(self, is_braked: bool) -> None:
        self._is_braked = is_braked
        if not is_braked:
            self._braked_bytes = 0
            self._queue_is_empty()

    def _watch_queue(self) -> bool:
        """Watch for an empty queue of the descriptor; return whether it has bytes now."""
        descriptor = self._descriptor
        if descriptor is None or not queued_bytes(descriptor):
            return False
        if self._watch is None:
            self._watch = DrainWatch(descriptor, self._queue_is_empty)
        return True

    def _watch_engine(self) -> bool:
        """Check a TLS engine in its handshake again later; return whether it is full."""
        transport = self._transport
        if (self._socket is not None and not transport.TLS) or not engine_holds(transport):
            return False
        # An engine below high water needs no check, since no sender waits for it.
        if engine_bytes(transport) < self._high_water:
            return False
        if self._settling is None:
            self._settling = self._clock.callLater(_SETTLE_INTERVAL, self._settle)
        return True

    def _stop_watching(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.stop()
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None

    def _queue_is_empty(self) -> None:
        if self._descriptor is not None:
            is_settling = self._settling is not None
            self._stop_watching()
            if is_settling and engine_holds(self._transport):
                # What left was a part of the handshake.
                self._settling = self._clock.callLater(_SETTLE_INTERVAL, self._settle)
                return
        if self._phase is _Phase.FINISHING:
            self._finish_output()
        self._owner.output_drained()

    def _finish_output(self) -> None:
        """All is with the kernel, or in the hands of a transport that sends before it closes."""
        self._phase = _Phase.LINGERING
        descriptor = self._descriptor
        if self._peer_ended or descriptor is None:
            self._lose_transport()
        elif self._engine is not None:
            self._engine.finish()
        elif carries_tls(self._transport):
            self._transport.loseConnection()
        else:
            # Below the wrappers that leave bytes as they are (a PROXY header, policies).
            typing.cast(Any, descriptor).loseWriteConnection()

    def _lose_transport(self) -> None:
        if self._descriptor is None:
            self._stop_watching()  # A TLS engine waits for its producer before it ends.
        self._transport.loseConnection()

    def _deadline_passed(self) -> None:
        self._deadline = None
        error = ClosedError(f"the peer did not end within {self._close_timeout:g} s")
        descriptor = self._descriptor
        if self._phase is _Phase.LINGERING and descriptor and not queued_bytes(descriptor):
            # All of it is with the kernel, which goes on sending it to a peer that is slow.
            self.note_error(error)
            discard_input(descriptor)
            descriptor.loseConnection()
        else:
            self.abort(error)


def _joined_end(pieces: Sequence[bytes], start: int) -> int:
    """Find the end of the pieces that are joined for one write; a large one is written alone."""
    end, size = start + 1, len(pieces[start])
    while end < len(pieces) and (size := size + len(pieces[end])) <= _MAX_JOINED:
        end += 1
    return end
