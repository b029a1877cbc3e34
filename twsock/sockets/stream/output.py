"""
The sending side of a stream socket: application → **output stream** → connection → kernel.

One per socket. It queues writes until the connection takes them; cancelling withdraws a queued
write. Writes queued together leave in one system call: when the application awaits one of them or
a flush; otherwise at the end of the ``dataReceived`` that woke it; otherwise in the reactor's next
turn.

Writes and flushes share one queue. A flush has no bytes: it is done when all before it is done::

    waiting ── handed to the kernel ──> done
       │  └─── the kernel has no room ──> begun ── drained ──> done
       └── cancelled: withdrawn                     (also if cancelled)
"""

from __future__ import annotations

import operator
import typing
from collections.abc import Callable, Generator
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from typing_extensions import override

from twsock._twisted import silence_unhandled
from twsock.errors import BusyError, SocketError
from twsock.log import TextLogger
from twsock.operation import Fired, Operation, fail
from twsock.sockets.stream.files import FileSending
from twsock.sockets.stream.transfers import Transfer
from twsock.sockets.waiting import SENDS_PER_TURN, check_timeout, limit
from twsock.stream.connection import Connection
from twsock.stream.transport import HIGH_WATER
from twsock.wire.byte_queue import Buffer, as_bytes

__all__ = ["DEFAULT_MAX_UNSENT", "DEFAULT_MAX_WRITES", "OutputStream"]

#: Default of ``max_unsent``, in bytes. Only a program that does not await its writes reaches it.
DEFAULT_MAX_UNSENT: Final = 256 * 1024 * 1024

#: All queued writes are joined into one if they have no more bytes than this.
_MAX_JOINED: Final = 64 * 1024

#: Otherwise one system call gets at most this many writes.
_MAX_BATCH: Final = 1024

#: The default of ``max_writes``. Each queued write takes some 400 bytes besides its data.
DEFAULT_MAX_WRITES: Final = 1_000_000


#: In C: a comprehension would be a call for each batch.
_data_of: Final = operator.attrgetter("data")


class _Write(Operation[Any]):
    """A write, or a flush: an empty write in the same queue."""

    # Whether `send_all` has answered its caller, so that no code has this Deferred.
    is_answered = False

    def __init__(self, stream: OutputStream, data: bytes, outcome: object) -> None:
        super().__init__(_withdraw)
        self.stream = stream
        self.data = data
        self.outcome = outcome

    def __await__(self) -> Generator[Deferred[Any], None, Any]:
        # The coroutine writes nothing more before this is done, so waiting would gain nothing.
        if not self.called:
            self.stream._send()
        return super().__await__()

    def done(self) -> None:
        self.data = b""  # An application that keeps the Deferred does not keep the bytes.
        if self.called:
            return  # It was cancelled after it had begun.
        # Most writes of a batch have no callback yet: setting the result here is faster than the
        # call, which takes longer than all the rest.
        if self._callbacks:
            self.callback(self.outcome)
        else:
            self.called = True
            self.result = self.outcome

    def failed(self, error: SocketError) -> bool:
        """Fail the write; return whether no code awaits it."""
        self.data = b""
        if self.called:
            return False
        self.errback(error)
        is_flush = self.outcome is True
        return not is_flush and silence_unhandled(self, error)


class _Answered(_Write):
    """A write of a call of `send_all` that has fired."""

    is_answered = True


def _withdraw(write: Deferred[Any]) -> None:
    typing.cast(_Write, write).stream._withdraw(typing.cast(_Write, write))


class OutputStream(FileSending):
    """
    The sending side of a stream socket.

    The Deferreds of `write` and `flush` fail with `LocalProtocolError` before the socket is
    connected, with `ClosedError` after this end was closed, and with `BrokenError` after the
    connection broke.

    :param clock: calls at the next turn of the reactor, and measures timeouts.
    :ivar max_unsent: bytes that may be queued; at the limit a further write fails with `BusyError`.
    :ivar max_writes: how many writes may be queued, empty ones included; default a million. A
        further write fails with `BusyError`.
    """

    _log = TextLogger()

    __slots__ = (
        "_done",
        "_is_sending",
        "_sends_left",
        "_taken",
        "_unsent",
        "is_held",
        "max_unsent",
        "max_writes",
        "on_kept",
    )

    def __init__(
        self,
        clock: IReactorTime,
        max_unsent: int = DEFAULT_MAX_UNSENT,
        max_writes: int = DEFAULT_MAX_WRITES,
    ) -> None:
        super().__init__(clock)
        self.max_unsent = max_unsent
        self.max_writes = max_writes
        #: Called when bytes stay queued after a send, and when the kernel has them; or None.
        self.on_kept: Callable[[], object] | None = None
        self._unsent = 0
        #: Set by the connection: queue writes until `release`, which sends them together.
        self.is_held = False
        # What `send_all` took while held and empty; it precedes all writes that wait.
        self._taken: list[bytes] = []
        self._is_sending = False
        # Writes that the kernel has and whose Deferreds are being fired, in order.
        self._done: list[_Write] | None = None
        self._sends_left = SENDS_PER_TURN

    @property
    def is_full(self) -> bool:
        """
        Whether to await `flush` before writing more: 64 KiB are queued, or the kernel has no room.

        A loop that does not await each write checks this to limit the queue.
        """
        return self._unsent >= HIGH_WATER or bool(self._begun)

    @property
    def unsent(self) -> int:
        """How many bytes are queued and have not begun to leave."""
        return self._unsent

    # Called by applications.

    def write(self, data: Buffer) -> Deferred[int]:
        """
        Send bytes, after all earlier writes.

        The write starts whether or not it is awaited. A mutable buffer, such as a ``bytearray``, is
        copied now.

        :returns: fires with the number of bytes, once the kernel has them all. Cancelling withdraws
            a queued write; a write that has begun is sent to its end. It fails with `BusyError` if
            `max_unsent` bytes or `max_writes` writes are queued.
        :raises TypeError: at once, when ``data`` is no buffer.
        """
        if type(data) is not bytes:
            data = as_bytes(data)
        if self._refusal is not None:
            return self._refuse()
        if self._taken:
            self._queue_taken()
        if self._unsent >= self.max_unsent or len(self._waiting) >= self.max_writes:
            waiting = f"{len(self._waiting)} writes of {self._unsent} bytes"
            return fail(BusyError(f"{waiting} wait to be sent: await flush() first"))
        write = _Write(self, data, len(data))
        self._waiting[write] = None
        self._unsent += len(data)
        if not self.is_held and self._turn is None:
            self._turn = self._clock.callLater(0, self._next_turn)
        return write

    def send_all(self, data: Buffer) -> Deferred[int]:
        """
        Send bytes, and wait only if there is no room for more.

        So answers to one received segment leave together, even if each is awaited. The next call
        reports a later error, and so does `flush`, which fires when the kernel has everything.

        :returns: fires with the number of bytes once this stream has queued them: at once, unless
            `is_full`; then as `write` does. It fails, and is cancelled, as `write`.
        :raises TypeError: at once, when ``data`` is no buffer.
        """
        taken, unsent = self._taken, self._unsent
        if (
            self.is_held
            and self._refusal is None
            and not (self._waiting or self._begun or self._is_sending)
            and unsent < HIGH_WATER
            and unsent < self.max_unsent
            and len(taken) < self.max_writes
            and type(data) is bytes
            and data
        ):
            taken.append(data)  # The common case: no object is made for the write.
            self._unsent = unsent + len(data)
            return Fired(len(data))
        write = self.write(data)
        if write.called:
            return write
        if self.is_held and self._unsent < HIGH_WATER and not self._begun:
            typing.cast(_Write, write).is_answered = True
            return Fired(len(data))
        self._send()
        return write

    def flush(self, *, timeout: float | None = None) -> Deferred[bool]:
        """
        Send the queued writes, and wait until the kernel has all of them.

        :param timeout: seconds until it fails with status ``CONNECTION_TIMED_OUT``.
        :returns: fires with True, as in WinRT, when every earlier write is done: at once if none is
            pending. It does not wait for later writes. Cancelling ends the wait only.
        :raises ValueError: at once, when the timeout is negative.
        """
        if timeout is not None:
            check_timeout(timeout)
        if self._refusal is not None:
            return self._refuse()
        if self._taken:
            self._queue_taken()
        if not (self.is_pending or self._done):
            return Fired(True)
        flush = _Write(self, b"", True)
        self._waiting[flush] = None
        self._send()
        return flush if timeout is None else limit(flush, timeout, self._clock, "the flush")

    # Called by the socket and its connection.

    @property
    @override
    def is_pending(self) -> bool:
        """Whether a write or flush is pending."""
        return bool(self._taken or self._waiting or self._begun)

    @property
    def is_awaited(self) -> bool:
        """Whether a Deferred of a write, a flush or a transfer has not fired."""
        writes = (*self._begun, *self._waiting)
        return bool(self._transfers) or not all(one.called or one.is_answered for one in writes)

    def take_unsent(self) -> bytes:
        """Remove and return the bytes that were not passed to the transport."""
        if self._taken:
            self._queue_taken()
        unsent = b"".join(map(_data_of, self._waiting))
        self._waiting.clear()
        self._unsent = 0
        return unsent

    def release(self) -> None:
        """Send the writes that were queued while it was held."""
        self.is_held = False
        if self._taken:
            self._send_taken()
        if self._waiting or self._begun or self._ending is not None:
            self._send()
        self._sends_left = SENDS_PER_TURN

    def cancel_writes(self, error: SocketError) -> None:
        """Withdraw the queued writes, and fail all pending ones."""
        pending = [*self._begun, *self._waiting]
        # The transport still sends writes that have begun, and later writes still wait for them.
        self._waiting.clear()
        self._unsent = 0
        unawaited = len(self._taken)
        self._taken.clear()
        if self._transfers:
            self._forget_transfers()
        # One error for each write: an error that is raised keeps the frames of its traceback.
        unawaited += sum([write.failed(error.copy()) for write in pending])
        if unawaited:
            self._log.info(
                "{count} writes that nobody awaits were not sent: {error}",
                count=unawaited,
                error=error,
            )
        self._end_if_empty()

    def send_waiting(self) -> None:
        """Pass all queued writes to the transport, which is about to close."""
        transport = self._transport
        if transport is not None and transport.is_open:
            self._send()
        if transport is not None and transport.is_open:
            for write in self._waiting:
                transport.write(write.data)
                write.data = b""  # The transport has the data.
            self._begun += self._waiting
            self._waiting.clear()
            self._unsent = 0

    @override
    def _fail_writes(self, error: SocketError) -> None:
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        self.cancel_writes(error)
        self._begun = []

    # Called by the transport.

    def output_drained(self) -> None:
        """Complete the writes that had begun: the kernel has them."""
        if self._is_handing_over:
            return  # `send_pieces` is running; its result has the same information.
        self._sends_left = SENDS_PER_TURN
        if self._transfers and self._current_transfer() is not None:
            self.proceed()
            return
        begun, self._begun = self._begun, []
        self._finish(begun)
        if self._waiting:
            self._send()
        if self.on_kept is not None:
            self.on_kept()
        self._end_if_empty()

    # Sending.

    @override
    def _next_turn(self) -> None:
        self._turn = None
        self._sends_left = SENDS_PER_TURN
        if self._transfers:
            self._proceed_if_due()
        if self._waiting:
            self._send()

    @override
    def _send(self) -> None:
        # Callbacks may write and flush again.
        if self._is_sending:
            return
        if self._taken:
            self._queue_taken()
        self._send_waiting()
        if self.on_kept is not None and (self._waiting or self._begun):
            self.on_kept()
        if self._ending is not None:
            self._end_if_empty()  # A callback closed it, or it was closed with writes queued.

    def _send_taken(self) -> None:
        """Send what `send_all` took; in the common case the kernel takes all of it."""
        taken, transport = self._taken, self._transport
        if self._is_sending or transport is None or not transport.is_open:
            self._queue_taken()
            return
        size = self._unsent  # Nothing but `taken` waits yet; a transport in memory may add writes.
        self._is_sending = self._is_handing_over = True
        handed, done = transport.send_pieces(taken)
        self._is_sending = self._is_handing_over = False
        if taken and done == len(taken):
            self._unsent -= size
        else:  # Also after a failure, which has cleared `taken`.
            self._unsent -= sum(map(len, taken[:handed]))
            if transport.is_open:
                self._keep_rest([_Answered(self, data, len(data)) for data in taken], handed, done)
        taken.clear()

    @override
    def _queue_taken(self) -> None:
        """Make writes of what `send_all` took; no other write waits."""
        if not self._is_sending:  # Otherwise it is being sent.
            for data in self._taken:
                self._waiting[_Answered(self, data, len(data))] = None
            self._taken.clear()

    def _send_waiting(self) -> None:
        self._is_sending = True
        while self._waiting and not self._begun:
            # Checked each time: the callback of a write may start a handshake, and then no more
            # plaintext may be sent.
            transport = self._transport
            if transport is None or not transport.is_open:
                break
            if not self._sends_left:
                if self._turn is None:
                    self._turn = self._clock.callLater(0, self._next_turn)
                break
            self._sends_left -= 1
            self._finish(self._hand_over(transport))
        self._is_sending = False

    @override
    def _finish(self, writes: list[_Write]) -> None:
        """Complete writes in order, also when the callback of one sends others."""
        if self._done is not None:
            self._done += writes
            return
        self._done = writes
        for write in writes:  # Callbacks may add further writes to this list.
            write.done()
        self._done = None

    def _hand_over(self, transport: Connection) -> list[_Write]:
        """Pass writes to the transport for one system call; return those that are done."""
        batch = self._take_up_to_transfer() if self._transfers else self._take_batch()
        if self._transfers and isinstance(batch[0], Transfer):
            return self._begin_transfer(batch[0], transport)
        pieces = list(filter(None, map(_data_of, batch)))
        if not pieces:
            return batch
        self._begun = batch  # A failure within the call fails them.
        self._is_handing_over = True
        handed, done = transport.send_pieces(pieces)
        self._is_handing_over = False
        if not transport.is_open:
            return []
        self._begun = []
        self._unsent -= sum(map(len, pieces[:handed]))
        return batch if done == len(pieces) else self._keep_rest(batch, handed, done)

    def _keep_rest(self, batch: list[_Write], handed: int, done: int) -> list[_Write]:
        """Keep the writes that the kernel does not have; return the others, which are done."""
        last_done, last_handed = _split(batch, done), _split(batch, handed)
        self._begun = batch[last_done:last_handed]
        for write in self._begun:
            write.data = b""  # The transport has the rest of the data.
        for write in reversed(batch[last_handed:]):
            self._waiting[write] = None
            self._waiting.move_to_end(write, last=False)
        return batch[:last_done]

    def _take_batch(self) -> list[_Write]:
        """Remove the first writes from the queue, as many as one system call can take."""
        waiting = self._waiting
        if self._unsent <= _MAX_JOINED:
            batch = list(waiting)
            waiting.clear()
            return batch
        return [waiting.popitem(last=False)[0] for _ in range(min(_MAX_BATCH, len(waiting)))]

    def _withdraw(self, write: _Write) -> None:
        if write in self._waiting:
            del self._waiting[write]
            self._unsent -= len(write.data)
            write.data = b""


def _split(batch: list[_Write], count: int) -> int:
    """Return the index after the first ``count`` writes that have bytes."""
    for place, write in enumerate(batch):
        if write.data:
            if not count:
                return place
            count -= 1
    return len(batch)
