"""
What goes out, in the order it was written: application → **output stream** → stream transport.

One per socket. Holds what was written and has not begun to leave; a write can be withdrawn until
then. What is written in one go leaves in one system call: when one of the writes or a flush is
awaited, else at the end of the receive that woke the application, else in the next turn of the
reactor.

Writes and flushes stand in one line. A flush has no bytes, so it is done when all before it is::

    waiting ── handed to the kernel ──> done
       │  └─── the kernel has no room ──> begun ── drained ──> done
       └── cancelled: withdrawn                     (goes on if cancelled)
"""

from __future__ import annotations

import typing
from collections import OrderedDict
from collections.abc import Callable, Generator
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from twsock.errors import (
    BrokenError,
    BusyError,
    ClosedError,
    LocalProtocolError,
    OperationNotSupported,
    SocketError,
)
from twsock.log import TextLogger
from twsock.operation import Operation, fail
from twsock.sockets.waiting import check_timeout, limit, silence_unhandled
from twsock.stream.transport import HIGH_WATER, StreamTransport
from twsock.wire.byte_queue import Buffer, as_bytes

__all__ = ["DEFAULT_MAX_UNSENT", "DEFAULT_MAX_WRITES", "OutputStream"]

#: Bytes that may be written and not begun to leave, besides those of one write, unless told
#: otherwise. Far above what a program that awaits its writes will see; it is there for one that
#: does not, and has a peer that does not read.
DEFAULT_MAX_UNSENT: Final = 256 * 1024 * 1024

#: How many times in a row something may be sent before the reactor has its turn: a loop of awaited
#: writes to a fast peer would otherwise be alone in the process.
_SENDS_PER_TURN: Final = 64

#: How many writes are looked at for one system call, where there are too many bytes to join.
_MAX_BATCH: Final = 1024

#: The default of ``max_writes``. Each queued write takes some 400 bytes besides its data.
DEFAULT_MAX_WRITES: Final = 1_000_000

#: Up to here all writes are joined into one, however many.
_MAX_JOINED: Final = 64 * 1024


class _Write(Operation[Any]):
    """Something written, or a flush: an empty write that stands in the same line."""

    def __init__(self, stream: OutputStream, data: bytes, outcome: object) -> None:
        super().__init__(_withdraw)
        self.stream = stream
        self.data = data
        self.outcome = outcome

    def __await__(self) -> Generator[Deferred[Any], None, Any]:
        # Who waits for a write has nothing more to put beside it: to send it now saves the wait.
        if not self.called:
            self.stream._send()
        return super().__await__()

    def done(self) -> None:
        self.data = b""  # A caller may keep the Deferred; it should not keep the bytes.
        if not self.called:  # A write that had begun may have been cancelled.
            self.callback(self.outcome)

    def failed(self, error: SocketError) -> bool:
        """Fail; whoever awaits it is told. Tell whether nobody does."""
        self.data = b""
        if self.called:
            return False
        self.errback(error)
        is_flush = self.outcome is True
        return not is_flush and silence_unhandled(self, error)


def _withdraw(write: Deferred[Any]) -> None:
    typing.cast(_Write, write).stream._withdraw(typing.cast(_Write, write))


def _stop_waiting(_ending: Deferred[None]) -> None:
    """Do nothing: who calls the wait off does not call the end off."""


class OutputStream:
    """
    The bytes to the peer.

    `write` and `flush` return a Deferred. They fail, through it, with `LocalProtocolError` before
    the socket is connected, with `ClosedError` once this end was closed, and with `BrokenError`
    when the connection died.

    :param clock: gives the next turn of the reactor, and measures timeouts.
    :ivar max_unsent: bytes that may wait without having begun to leave; with that many there, a
        further write fails with `BusyError`.
    :ivar max_writes: how many writes may be queued, empty ones included; default a million. A
        further write fails with `BusyError`.
    """

    _log = TextLogger()

    __slots__ = (
        "_begun",
        "_clock",
        "_done",
        "_ending",
        "_is_finishing",
        "_is_handing_over",
        "_is_held",
        "_is_sending",
        "_refusal",
        "_sends_left",
        "_transport",
        "_turn",
        "_unsent",
        "_waiting",
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
        self.max_unsent = max_unsent
        self.max_writes = max_writes
        #: Called when bytes stay queued after a send, and when they have left; or None.
        self.on_kept: Callable[[], object] | None = None
        self._clock = clock
        self._transport: StreamTransport | None = None
        # In order. An OrderedDict, since a cancelled write is then removed in constant time.
        self._waiting: OrderedDict[_Write, None] = OrderedDict()
        self._begun: list[_Write] = []
        # How many bytes wait.
        self._unsent = 0
        # Makes the error with which a write fails at once; None while writes are welcome.
        self._refusal: Callable[[], SocketError] | None = _not_connected
        # Whether what is written now will be sent without a turn of the reactor of its own.
        self._is_held = False
        self._is_sending = False
        self._is_handing_over = False
        # With the kernel, and to be told so; each in its turn.
        self._done: list[_Write] = []
        self._is_finishing = False
        # Who waits for FIN, once it was asked for.
        self._ending: Deferred[None] | None = None
        self._sends_left = _SENDS_PER_TURN
        self._turn: IDelayedCall | None = None

    @property
    def is_full(self) -> bool:
        """
        Whether to await `flush` before writing more: 64 KiB wait, or the kernel has no room.

        A loop that writes without awaiting each write stays within bounds by asking this.
        """
        return self._unsent >= HIGH_WATER or bool(self._begun)

    @property
    def unsent(self) -> int:
        """How many bytes were written and have not begun to leave."""
        return self._unsent

    # Called by applications.

    def write(self, data: Buffer) -> Deferred[int]:
        """
        Send bytes, after all that was written before.

        It has begun whether it is awaited or not. What can change, a ``bytearray`` say, is copied
        now.

        :returns: fires with the number of bytes, once the kernel has them all. Cancelling withdraws
            a write that has not been handed on; one that has is sent to its end all the same.
            It fails with `BusyError` if `max_unsent` bytes or `max_writes` writes are queued.
        :raises TypeError: at once, when it is no buffer.
        """
        data = as_bytes(data)
        if self._refusal is not None:
            return self._refuse()
        if self._unsent >= self.max_unsent or len(self._waiting) >= self.max_writes:
            waiting = f"{len(self._waiting)} writes of {self._unsent} bytes"
            return fail(BusyError(f"{waiting} wait to be sent: await flush() first"))
        write = _Write(self, data, len(data))
        self._waiting[write] = None
        self._unsent += len(data)
        if not self._is_held and self._turn is None:
            self._turn = self._clock.callLater(0, self._next_turn)
        return write

    def send_all(self, data: Buffer) -> Deferred[int]:
        """
        Send bytes, and wait only where there is no room for more.

        Answers to what one receive brought leave together that way, though each is awaited. An
        error that comes later is told by the next call, or by `flush`, which says when the kernel
        has everything.

        :returns: fires with the number of bytes once this stream has taken them: at once, unless
            `is_full`; then as `write` does. It fails, and is cancelled, as `write`.
        :raises TypeError: at once, when it is no buffer.
        """
        write = self.write(data)
        if write.called:
            return write
        if self._is_held and self._unsent < HIGH_WATER and not self._begun:
            return succeed(len(data))
        self._send()
        return write

    def flush(self, *, timeout: float | None = None) -> Deferred[bool]:
        """
        Send what was written, and wait until the kernel has all of it.

        :param timeout: seconds until it fails with status ``CONNECTION_TIMED_OUT``.
        :returns: fires with True, as in WinRT, when every earlier write is done: at once if none is
            pending. Writes that come later are not waited for. Cancelling ends the wait only.
        :raises ValueError: at once, when the timeout is negative.
        """
        check_timeout(timeout)
        if self._refusal is not None:
            return self._refuse()
        if not (self._waiting or self._begun or self._done):
            return succeed(True)
        return limit(self._mark(), timeout, self._clock, "the flush")

    def close(self) -> Deferred[None]:
        """
        Send what was written, then FIN. What the peer sends can still be read.

        Under TLS, close_notify is sent in place of FIN (:rfc:`8446`, section 6.1). A peer with TLS
        1.2 may then stop sending. Closing twice is harmless.

        :returns: fires when FIN is on its way; cancelling ends the wait only. It fails with
            `OperationNotSupported`, and nothing is closed, if the transport cannot end one
            direction, such as TLS that the application started with ``startTLS``.
        """
        if self._refusal is not None:
            if self._refusal is _not_connected:
                self._refusal = _closed
            return succeed(None)
        transport = self._transport  # None during a handshake, behind which the end is sent.
        if transport is not None and not transport.can_end_output:
            return fail(OperationNotSupported("the output of this stream cannot be closed alone"))
        self._refusal = _closed
        ending: Deferred[None] = Deferred(_stop_waiting)
        self._ending = ending
        self._send()
        return ending

    def abort(self) -> None:
        """
        End the whole connection now: drop queued writes, and send a reset.

        It is for code that has only this stream, not the socket. Pending writes fail with
        `ClosedError`.
        """
        self._refusal = _closed
        if self._transport is not None:
            self._transport.abort()

    async def __aenter__(self) -> OutputStream:
        return self

    async def __aexit__(self, _type: object, exception: object, _traceback: object) -> None:
        if isinstance(exception, GeneratorExit):
            self.abort()  # An abandoned coroutine can neither await nor complete its message.
        else:
            await self.close()

    # Called by the socket and its connection.

    def opened(self, transport: StreamTransport) -> None:
        """The connection stands."""
        self._transport = transport
        if self._refusal is _not_connected:
            self._refusal = None

    @property
    def is_open(self) -> bool:
        """Whether writes are accepted: the stream is connected, and neither closed nor lost."""
        return self._refusal is None

    @property
    def is_pending(self) -> bool:
        """Whether a write or flush is pending."""
        return bool(self._waiting or self._begun)

    def suspend(self) -> None:
        """Keep what is written until there is a transport again."""
        self._transport = None

    def hold(self) -> None:
        """What is written from here on leaves together, at `release`."""
        self._is_held = True
        self._sends_left = _SENDS_PER_TURN

    def release(self) -> None:
        """Send what was written since `hold`."""
        self._is_held = False
        if self._waiting or self._ending is not None:
            self._send()

    def refuse(self, refusal: Callable[[], SocketError]) -> None:
        """Take no more: this end was closed."""
        self._refusal = refusal

    def cancel_writes(self, error: SocketError) -> None:
        """Withdraw what has not begun to leave; let all that is pending fail."""
        pending = [*self._begun, *self._waiting]
        # What has begun goes on, so the place behind it is still to wait for.
        self._waiting.clear()
        self._unsent = 0
        # One error for each write: an error that is raised keeps the frames of its traceback.
        unheard = sum([write.failed(error.copy()) for write in pending])
        if unheard:
            self._log.info(
                "{count} writes that nobody awaits were not sent: {error}",
                count=unheard,
                error=error,
            )
        self._end_if_empty()

    def send_waiting(self) -> None:
        """Give all that waits to the transport, which is about to close."""
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

    def lost(self, error: SocketError) -> None:
        """The connection is gone: what is pending fails."""
        if self._refusal is None or self._refusal is _not_connected:
            self._refusal = lambda: _again(error)
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        ending, self._ending = self._ending, None
        self.cancel_writes(error)
        self._begun = []
        if ending is not None and not ending.called:
            failure = error.copy()
            ending.errback(failure)
            silence_unhandled(ending, failure)

    # Called by the transport.

    def output_drained(self) -> None:
        """What had begun is with the kernel."""
        if self._is_handing_over:
            return  # Told from within the call, which asks by itself.
        self._sends_left = _SENDS_PER_TURN
        begun, self._begun = self._begun, []
        self._finish(begun)
        if self._waiting:
            self._send()
        if self.on_kept is not None:
            self.on_kept()
        self._end_if_empty()

    def output_failed(self, error: BrokenError) -> None:
        """Nothing more can be sent; what was received can still be read."""
        self.lost(error)

    # How writes leave.

    def _refuse(self) -> Deferred[Any]:
        assert self._refusal is not None
        error = self._refusal()
        refused: Deferred[Any] = fail(error)
        if isinstance(error, BrokenError):
            silence_unhandled(refused, error)
        return refused

    def _mark(self) -> Deferred[Any]:
        """Stand in line behind all that was written."""
        mark = _Write(self, b"", True)
        self._waiting[mark] = None
        self._send()
        return mark

    def _next_turn(self) -> None:
        self._turn = None
        self._sends_left = _SENDS_PER_TURN
        if self._waiting:
            self._send()

    def _send(self) -> None:
        """Hand what waits to the transport; who is called back may write and flush again."""
        if self._is_sending:
            return
        self._send_waiting()
        if self.on_kept is not None and (self._waiting or self._begun):
            self.on_kept()
        self._end_if_empty()  # It was closed by who was called back, or had to wait for its turn.

    def _send_waiting(self) -> None:
        self._is_sending = True
        while self._waiting and not self._begun:
            # Checked each time: the callback of a write may begin a handshake, and then nothing
            # more may be sent in plaintext.
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

    def _finish(self, writes: list[_Write]) -> None:
        """Let writes be done, in their order also where one that is called back sends others."""
        done = self._done
        done += writes
        if self._is_finishing:
            return
        self._is_finishing = True
        for write in done:  # and those that are added meanwhile
            write.done()
        done.clear()
        self._is_finishing = False

    def _end_if_empty(self) -> None:
        """Send FIN once nothing is in front of it."""
        ending, transport = self._ending, self._transport
        if ending is None or transport is None or self._waiting or self._begun:
            return
        self._ending = None
        transport.end_output()
        if not ending.called:
            ending.callback(None)

    def _hand_over(self, transport: StreamTransport) -> list[_Write]:
        """Hand over what one system call can take; give the writes that are done."""
        batch = self._take_batch()
        pieces = [write.data for write in batch if write.data]
        if not pieces:
            return batch
        self._begun = batch  # so that a failure from within the call reaches them
        self._is_handing_over = True
        handed, done = transport.send_pieces(pieces)
        self._is_handing_over = False
        if not transport.is_open:
            return []
        self._begun = []
        if done == len(pieces):
            self._unsent -= sum(map(len, pieces))
            return batch
        self._unsent -= sum(map(len, pieces[:handed]))
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
    """Find where in a batch its first so many writes with bytes end."""
    for place, write in enumerate(batch):
        if write.data:
            if not count:
                return place
            count -= 1
    return len(batch)


def _not_connected() -> SocketError:
    return LocalProtocolError("cannot write: the socket is not connected")


def _closed() -> SocketError:
    return ClosedError("cannot write: this end was closed")


def _again(error: SocketError) -> SocketError:
    kind = ClosedError if isinstance(error, ClosedError) else BrokenError
    return kind.from_exception(error)
