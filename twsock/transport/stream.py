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
     │                      └──────────── the deadline passes: abort ────┘                       ^
     └── abort(), a failed send, a reset ────────────────────────────────────────────────────────┘
"""

from __future__ import annotations

import enum
import errno
import typing
from typing import Any, Final

from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IPullProducer, IPushProducer, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from twsock.errors import BrokenError, ClosedError, SocketError
from twsock.transport.descriptor import (
    find_descriptor,
    plain_socket,
    queued_bytes,
    unread_input,
)

__all__ = ["DEFAULT_CLOSE_TIMEOUT", "HIGH_WATER", "LOW_WATER", "StreamOwner", "StreamTransport"]

#: Bytes written and not yet taken by the kernel at which a connection is full: the owner stops
#: producing, and its peer is not read from. The same 64 KiB at which Twisted pauses a producer.
HIGH_WATER: Final = 64 * 1024

#: Bytes at which a full connection is writable again. Zero, because a descriptor tells of an empty
#: queue and of nothing before it.
LOW_WATER: Final = 0

#: How long a close waits for the peer before it aborts, in seconds.
DEFAULT_CLOSE_TIMEOUT: Final = 5.0

#: One receive, in bytes. It begins at Twisted's 64 KiB and doubles while reads come back full, up
#: to this: frames of 64 KiB then cost a third of the time. Just below the 128 KiB above which glibc
#: maps and unmaps memory for each receive, which costs more than the larger read saves.
_MAX_READ_SIZE: Final = 128_000

#: How often the queue is looked at where a producer of the application holds the place from which
#: we would be told that it drained, in seconds.
_POLL_INTERVAL: Final = 0.01


#: What a kernel without room answers: nothing was sent, and nothing is wrong.
_TRY_LATER: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS})


class StreamOwner(typing.Protocol):
    """Who is told about the way out; never from within a call of its own."""

    def output_drained(self) -> None:
        """What made the connection full is with the kernel: go on."""


class _Phase(enum.Enum):
    OPEN = enum.auto()
    FINISHING = enum.auto()
    LINGERING = enum.auto()
    ABORTED = enum.auto()
    LOST = enum.auto()


#: Asked for with every write and read, and a name of the module is found in half the time.
_OPEN: Final = _Phase.OPEN


@implementer(IPullProducer)
class _DrainWatch:
    """Is called by a plain descriptor when its queue is empty."""

    __slots__ = ("_descriptor", "_poll", "_registering", "_stream")

    def __init__(self, stream: StreamTransport, descriptor: FileDescriptor) -> None:
        self._stream = stream
        self._descriptor = descriptor
        self._poll: IDelayedCall | None = None
        self._registering = True
        if typing.cast(Any, descriptor).producer is None:
            # The descriptor's own method: under TLS that was started on it, the instance's would
            # register with the TLS engine, which calls a pull producer all the time.
            FileDescriptor.registerProducer(descriptor, self, False)
        else:
            self._poll_later()
        self._registering = False

    def stop(self) -> None:
        if self._poll is not None:
            self._poll.cancel()
            self._poll = None
        elif typing.cast(Any, self._descriptor).producer is self:
            FileDescriptor.unregisterProducer(self._descriptor)

    def _poll_later(self) -> None:
        clock = typing.cast(IReactorTime, self._descriptor.reactor)
        self._poll = clock.callLater(_POLL_INTERVAL, self._look)

    def _look(self) -> None:
        self._poll = None
        if queued_bytes(self._descriptor):
            self._poll_later()
        else:
            self._stream._queue_is_empty()

    # Called by Twisted.
    def resumeProducing(self) -> None:
        # The call at registration comes whatever the queue holds.
        if not self._registering:
            self._stream._queue_is_empty()

    def stopProducing(self) -> None:
        """Do nothing: the end of the connection reaches the owner in its own way."""


@implementer(IPushProducer)
class _BrakeWatch:
    """Is called by a transport without a plain descriptor when its buffer fills and empties."""

    __slots__ = ("_stream", "_transport")

    def __init__(self, stream: StreamTransport, transport: Any) -> None:
        self._stream = stream
        self._transport = transport
        transport.registerProducer(self, True)

    def stop(self) -> None:
        self._transport.unregisterProducer()

    # Called by Twisted.
    def pauseProducing(self) -> None:
        self._stream._is_braked = True

    def resumeProducing(self) -> None:
        self._stream._is_braked = False
        self._stream._queue_is_empty()

    def stopProducing(self) -> None:
        """Do nothing: the end of the connection reaches the owner in its own way."""


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
        "_clock",
        "_close_timeout",
        "_deadline",
        "_descriptor",
        "_ending",
        "_error",
        "_high_water",
        "_is_braked",
        "_is_reading",
        "_owner",
        "_peer_ended",
        "_pending",
        "_phase",
        "_socket",
        "_transport",
        "_watch",
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
        self._is_reading = True
        self._peer_ended = False
        self._error: SocketError | None = None
        self._deadline: IDelayedCall | None = None
        self._ending: list[Deferred[None]] | None = None
        self._watch: _DrainWatch | _BrakeWatch | None = None
        self._socket = plain_socket(transport)
        self._descriptor = find_descriptor(transport)
        if self._descriptor is None and hasattr(transport, "registerProducer"):
            self._watch = _BrakeWatch(self, transport)
        if hasattr(self._descriptor, "setTcpNoDelay"):
            # Without it an answer that the kernel took in two parts waits 40 ms for the peer's ACK.
            typing.cast(Any, self._descriptor).setTcpNoDelay(True)

    @property
    def is_open(self) -> bool:
        """Whether the owner may still write, and should still be given what arrives."""
        return self._phase is _OPEN

    @property
    def is_plain(self) -> bool:
        """Whether the bytes written are the bytes on the wire."""
        return self._socket is not None and not self._transport.TLS

    @property
    def is_full(self) -> bool:
        """Whether the high-water mark is reached; `StreamOwner.output_drained` tells of its end."""
        descriptor = self._descriptor
        if descriptor is None:
            return self._is_braked or self.room <= 0
        return queued_bytes(descriptor) >= self.room

    @property
    def is_flushed(self) -> bool:
        """Whether everything written is with the kernel."""
        descriptor = self._descriptor
        return not self._pending and (descriptor is None or not queued_bytes(descriptor))

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

        :returns: whether nothing is left with Twisted.
        """
        pending = self._pending
        if not pending:
            return True
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
        ):
            try:
                sent = self._socket.send(data)
            except OSError as error:
                if error.errno not in _TRY_LATER:
                    self._fail(error)
                    return True
                sent = 0
            if sent == len(data):
                return True
            data = memoryview(data)[sent:].tobytes()
        transport.write(data if isinstance(data, bytes) else bytes(data))
        self._watch_queue()
        return False

    # The brakes.

    def pause_reading(self) -> None:
        """Let the peer wait: its bytes stay in the kernel, and soon on its own machine."""
        if self._is_reading:
            self._is_reading = False
            self._transport.pauseProducing()

    def resume_reading(self) -> None:
        """Read on, unless there is nothing more to come."""
        if not self._is_reading and not self._peer_ended:
            self._is_reading = True
            self._transport.resumeProducing()

    def note_read(self, size: int) -> None:
        """Ask for more at a time next time when a read came back full."""
        descriptor = self._descriptor
        if descriptor is not None and size >= descriptor.bufferSize < _MAX_READ_SIZE:
            descriptor.bufferSize = min(2 * descriptor.bufferSize, _MAX_READ_SIZE)

    # The end.

    def close(self) -> Deferred[None]:
        """
        End the connection in order: send what is written, send FIN, await the peer's.

        What the peer sends meanwhile is read and dropped, so that no reset destroys what was sent.
        At the latest after ``close_timeout`` the connection is aborted. Under TLS ``close_notify``
        takes the place of FIN.

        :returns: fires when the connection is gone; at once when it is already. Cancelling stops
            the wait and not the close.
        """
        if self._phase is _Phase.OPEN:
            self.send()
        # Sending may just have failed, which is an end too.
        if self._phase is _Phase.OPEN:
            self._phase = _Phase.FINISHING
            self.room = 0
            self._deadline = self._clock.callLater(self._close_timeout, self._deadline_passed)
            self.resume_reading()
            if self._watch is None or self._descriptor is None:
                self._finish_output()
        return self._when_lost()

    def abort(self, error: SocketError | None = None) -> Deferred[None]:
        """
        End the connection now: drop what is queued, send a reset where there is a socket.

        :param error: the reason, if it is not that the application wished it.
        :returns: fires when the connection is gone.
        """
        if self._phase is not _Phase.LOST:
            if self._error is None:
                self._error = error
            if self._phase is not _Phase.ABORTED:
                self._phase = _Phase.ABORTED
                self._pending.clear()
                self.room = 0
                self._stop_watching()
                transport = self._transport
                getattr(transport, "abortConnection", transport.loseConnection)()
        return self._when_lost()

    # Told by the owner what Twisted tells it.

    def peer_ended(self) -> None:
        """The peer sent FIN: nothing more will be read."""
        self._peer_ended = True
        self._is_reading = False
        if self._phase is _Phase.LINGERING:
            self._transport.loseConnection()

    def lost(self, reason: Failure) -> SocketError | None:
        """
        The connection is gone: let go of everything, fire what waits for it.

        :returns: why, or None where it ended in order.
        """
        phase, self._phase = self._phase, _Phase.LOST
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._stop_watching()
        self._socket = None
        self._descriptor = None
        self._pending.clear()
        if self._error is None and not reason.check(ConnectionDone):
            if phase is _Phase.ABORTED:
                self._error = ClosedError("the connection was aborted by this end")
            else:
                self._error = BrokenError.from_exception(typing.cast(BaseException, reason.value))
        waiting, self._ending = self._ending, None
        for deferred in waiting or ():
            deferred.callback(None)
        return self._error

    def _reason_not_to_write(self) -> SocketError:
        if self._phase is _Phase.LOST and self._error is not None:
            return BrokenError.from_exception(self._error)
        return ClosedError("cannot write: this end of the connection is closed")

    def _when_lost(self) -> Deferred[None]:
        deferred: Deferred[None] = Deferred(self._forget_waiter)
        if self._phase is _Phase.LOST:
            deferred.callback(None)
        else:
            if self._ending is None:
                self._ending = []
            self._ending.append(deferred)
        return deferred

    def _forget_waiter(self, deferred: Deferred[None]) -> None:
        if self._ending is not None:
            self._ending.remove(deferred)

    def _fail(self, error: OSError) -> None:
        # The kernel gives a socket's error once, and we have it: the transport could now see a
        # clean end. So this end is ours to report.
        self.abort(BrokenError.from_exception(error))

    def _watch_queue(self) -> None:
        descriptor = self._descriptor
        if self._watch is None and descriptor is not None and queued_bytes(descriptor):
            self._watch = _DrainWatch(self, descriptor)

    def _stop_watching(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.stop()

    def _queue_is_empty(self) -> None:
        if self._descriptor is not None:
            self._stop_watching()
        if self._phase is _Phase.FINISHING:
            self._finish_output()
        elif self._phase is _Phase.OPEN:
            self._owner.output_drained()

    def _finish_output(self) -> None:
        """All is with the kernel, or in the hands of a transport that sends before it closes."""
        self._phase = _Phase.LINGERING
        if self._descriptor is None:
            self._stop_watching()
        if self._peer_ended or not self.is_plain:
            self._transport.loseConnection()
        else:
            self._transport.loseWriteConnection()

    def _deadline_passed(self) -> None:
        self._deadline = None
        self.abort(ClosedError(f"the peer did not end within {self._close_timeout:g} s"))
