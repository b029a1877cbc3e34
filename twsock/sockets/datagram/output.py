"""
The output streams of datagram sockets: application → **output stream** → datagram port.

One for each destination of a socket; every write is one datagram. It queues writes until it passes
them to the port. Writes queued together leave in one system call: when the application awaits one
of them or a flush, else at the end of the event that woke it, else in the reactor's next turn.

Writes and flushes share one queue. A flush is done when all before it are done, sent or failed.
"""

from __future__ import annotations

import typing
from collections import deque
from collections.abc import Callable, Generator
from typing import Any, Final

from twisted.internet.defer import _NO_RESULT, CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from twsock._twisted import silence_unhandled
from twsock.datagram.addresses import interface_control
from twsock.datagram.network.packet_info import Control
from twsock.datagram.port import DatagramPort
from twsock.datagram.runs import Address
from twsock.datagram.send_queue import OUTPUT_HIGH_WATER
from twsock.errors import BusyError, SocketError
from twsock.operation import Operation, fail
from twsock.sockets.datagram.message import SenderAddress
from twsock.sockets.waiting import (
    SENDS_PER_TURN,
    ClosesInBlock,
    check_timeout,
    limit,
    output_closed,
)
from twsock.wire.byte_queue import Buffer, as_bytes

__all__ = ["DatagramOutputStream", "DatagramWrite"]

#: Default of ``max_unsent``, in bytes.
_MAX_UNSENT: Final = 16 * 1024 * 1024

#: How many writes may be queued: each takes some 300 bytes besides its data.
_MAX_WAITING: Final = 100_000


class DatagramWrite(Operation[Any]):
    """One datagram to send, and the Deferred of its write."""

    is_mark = False

    # None for the connected peer of the socket.
    address: Address | None = None
    control: Control | None = None
    # Copies of the datagram that leave by further interfaces.
    copies: tuple[_Copy, ...] = ()

    def __init__(self, stream: DatagramOutputStream, data: bytes) -> None:
        # This does the work of the base class in half the time, for each datagram.
        self._callbacks = []
        self._canceller = _withdraw
        self.stream = stream
        self.data = data
        self.segment_size = len(data)
        # An attribute that is added after `__init__` moves all attributes to a dictionary of this
        # object (CPython 3.11 and later). That costs more than the rest of `sent`.
        self.called = False
        self.result = _NO_RESULT

    def __await__(self) -> Generator[Deferred[Any], None, Any]:
        # The coroutine writes nothing more before this is done, so waiting would gain nothing.
        if not self.called:
            self.stream.send_awaited(self)
        if self.called and self.result.__class__ is int and not self.paused:
            return self.result  # The usual case: the datagram was sent.
        return (yield from super().__await__())

    # Called by the port.

    def sent(self) -> None:
        """Complete the write: the kernel has the datagram."""
        if not self.called:  # The write may have been cancelled after the port had it.
            self.data = b""  # An application that keeps the Deferred does not keep the bytes.
            # Most writes of a batch have no callback yet: setting the result here is faster than
            # the call, which takes longer than all the rest.
            if self._callbacks:
                self.callback(self.segment_size)
            else:
                self.called = True
                self.result = self.segment_size
        stream = self.stream
        if stream._line and not stream.is_sending:
            stream.settle()

    def failed(self, error: SocketError) -> None:
        """Fail the write."""
        self.data = b""
        if not self.called:
            self.errback(error)
            if silence_unhandled(self, error):
                self.stream.note_unawaited(error)
        if not self.stream.is_sending:
            self.stream.settle()


class _Mark(Operation[bool]):
    """A flush, in the queue behind earlier writes."""

    is_mark = True

    def __init__(self, stream: DatagramOutputStream) -> None:
        super().__init__(_stop_waiting)
        self.stream = stream


def _withdraw(write: Deferred[Any]) -> None:
    withdrawn = typing.cast(DatagramWrite, write)
    withdrawn.stream.withdraw(withdrawn, CancelledError())


class DatagramOutputStream(ClosesInBlock):
    """
    Sends datagrams to one destination.

    The Deferreds of `write` and `flush` fail with the error of ``refusal`` before the stream is
    open, and with `ClosedError` after the stream or its socket was closed.

    :param clock: measures timeouts.
    :param refusal: makes the error of writes before the stream is `opened`.
    :param pending: called when the first of several writes is queued; it calls `send` in time.
    :param unawaited: called with the error of a failed write that nobody awaits.
    :ivar max_unsent: bytes that may be queued; at the limit a further write fails with `BusyError`.
        So it does when 100,000 writes are queued.
    """

    __slots__ = (
        "__weakref__",
        "_address",
        "_cancelled",
        "_clock",
        "_controls",
        "_line",
        "_marks",
        "_pending",
        "_port",
        "_refusal",
        "_sends_left",
        "_unsent",
        "_waiting",
        "is_sending",
        "max_unsent",
        "note_unawaited",
    )

    def __init__(
        self,
        clock: IReactorTime,
        refusal: Callable[[], SocketError],
        pending: Callable[[DatagramOutputStream], None],
        unawaited: Callable[[SocketError], None],
    ) -> None:
        self.max_unsent = _MAX_UNSENT
        self._clock = clock
        # Makes the error with which a write fails at once; None while writes are accepted.
        self._refusal: Callable[[], SocketError] | None = refusal
        self._pending = pending
        self.note_unawaited = unawaited
        self._port: DatagramPort | None = None
        self._address: Address | None = None
        # One for each interface that a copy leaves by; empty for the kernel's choice.
        self._controls: tuple[Control, ...] = ()
        # In order. A dict removes a cancelled write in constant time.
        self._waiting: dict[DatagramWrite, None] = {}
        self._unsent = 0
        # Writes that the port has, and the flushes after them. `_cancelled` counts the cancelled
        # ones among them, which are removed when they are first, or when they are the majority.
        self._line: deque[DatagramWrite | _Mark] = deque()
        self._cancelled = 0
        self._marks: list[_Mark] = []  # Flushes behind queued writes.
        self._sends_left = SENDS_PER_TURN
        #: Whether `send` is passing writes to the port; it then handles their results itself.
        self.is_sending = False

    @property
    def is_full(self) -> bool:
        """
        Whether to await `flush` before writing more: 128 KiB are queued, or the kernel has no room.

        A loop that does not await each write checks this to limit the queue.
        """
        port = self._port
        return self._unsent >= OUTPUT_HIGH_WATER or (port is not None and port.is_full)

    # Called by applications.

    def write(self, data: Buffer) -> Deferred[int]:
        """
        Send one datagram, after all earlier writes.

        The write starts whether or not it is awaited. A mutable buffer, such as a ``bytearray``, is
        copied now.

        :param data: 0 to 65,507 bytes, 65,527 on IPv6; 0 bytes are an empty datagram.
        :returns: fires with the number of bytes, once the kernel has them. It fails with status
            ``MESSAGE_TOO_LONG`` when the datagram is too long, and with the system's error when it
            cannot be sent; other writes are not affected. Cancelling withdraws a write that is not
            yet with the kernel.
        :raises TypeError: at once, when ``data`` is no buffer.
        """
        if data.__class__ is not bytes:
            data = as_bytes(data)
        if self._refusal is not None:
            return fail(self._refusal())
        waiting = self._waiting
        if self._unsent >= self.max_unsent or len(waiting) >= _MAX_WAITING:
            return fail(BusyError(f"{self._unsent} bytes wait to be sent: await flush() first"))
        write = DatagramWrite(self, data)
        if not waiting:
            self._pending(self)
        waiting[write] = None
        self._unsent += len(data)
        return write

    def send_all(self, data: Buffer) -> Deferred[int]:
        """
        Send one datagram, and wait only if there is no room for more; used by `DataWriter.store`.

        :returns: as `write`; if there is room, the datagram has been sent when this returns.
        """
        write = self.write(data)
        if not write.called:
            self.send()
        return write

    def flush(self, *, timeout: float | None = None) -> Deferred[bool]:
        """
        Send the queued writes, and wait until the kernel has all of them.

        :param timeout: seconds until it fails with status ``CONNECTION_TIMED_OUT``.
        :returns: fires with True, as in WinRT, when every earlier write is done, sent or failed: at
            once if none is pending. It does not wait for later writes. Cancelling ends the wait
            only.
        :raises ValueError: at once, when the timeout is negative.
        """
        check_timeout(timeout)
        if self._refusal is not None:
            return fail(self._refusal())
        self.send()
        if not (self._line or self._waiting or self.is_sending):
            return succeed(True)
        mark = _Mark(self)
        if self._waiting or self.is_sending:
            self._marks.append(mark)
        else:
            self._line.append(mark)
        return limit(mark, timeout, self._clock, "the flush")

    def close(self) -> Deferred[None]:
        """
        Send the queued writes, and accept no more; the socket stays open.

        Closing twice is harmless.

        :returns: a Deferred that has already fired. Writes that the kernel has no room for yet are
            still sent.
        """
        self.send()
        self._refusal = self._refusal or output_closed
        return succeed(None)

    # Called by the socket.

    def opened(
        self,
        port: DatagramPort,
        address: Address | None = None,
        controls: tuple[Control, ...] = (),
    ) -> None:
        """Use a port: writes are accepted from now on."""
        self._port = port
        self._address = address
        self._controls = controls
        self._refusal = None

    def write_to(self, data: Buffer, address: Address) -> Deferred[int]:
        """
        Send one datagram to a given address; see ``DatagramSocket.send_to``.

        :raises SocketError: when the port cannot send to this address.
        """
        port = self._port
        if port is None or self._refusal is not None:
            return self.write(data)
        found = port.find_address(address)
        # The address of a sender has its run, which says from where to answer. For any other
        # address the kernel chooses the source.
        if isinstance(address, SenderAddress):
            control = port.answer_control(address.run)
        else:
            control = interface_control(address if found is None else found)
        if self._waiting or not self._sends_left:
            writing = self.write(data)
            if isinstance(writing, DatagramWrite):
                writing.address, writing.control = found, control
                self.send()
            return writing
        # The usual case: no write waits here, so the port sends the datagram now, or queues it.
        write = DatagramWrite(self, data if data.__class__ is bytes else as_bytes(data))
        write.address, write.control = found, control
        try:
            port.submit(write)
        except SocketError as error:
            write.failed(error.with_traceback(None))
        if not write.called:
            self._line.append(write)
            return write
        if self._sends_left == SENDS_PER_TURN:
            self._pending(self)
        self._sends_left -= 1
        return write

    def send_awaited(self, write: DatagramWrite) -> None:
        """Send queued writes now, unless the port collects answers; ``write`` is awaited."""
        self.send()
        if self._port is not None and not write.called:
            self._port.send_awaited()

    def next_turn(self) -> None:
        """Send queued writes: the reactor had its turn."""
        self._sends_left = SENDS_PER_TURN
        self.send()

    def send(self) -> None:
        """Pass queued writes to the port."""
        port = self._port
        if port is None or self.is_sending or not self._waiting:
            return
        if not self._sends_left:
            self._pending(self)
            return
        self._sends_left -= 1
        self.is_sending = True
        try:
            self._hand_over(port)
            # Callbacks may have written and flushed meanwhile.
            while self._marks:
                marks, self._marks = self._marks, []
                self._hand_over(port)
                self._line.extend(marks)
        finally:
            self.is_sending = False
        self.settle()
        if self._waiting:
            # Callbacks wrote these while `is_sending` was set.
            self._pending(self)

    def _hand_over(self, port: DatagramPort) -> None:
        writes, self._waiting = list(self._waiting), {}
        self._unsent = 0
        if self._address is not None:
            for write in writes:
                write.address = self._address
        for control in self._controls[1:]:
            copies = [_Copy(write, control) for write in writes]
            for write, copy in zip(writes, copies, strict=True):
                write.copies = (*write.copies, copy)
            port.submit_all(copies)
        if self._controls:
            for write in writes:
                write.control = self._controls[0]
        port.submit_all(writes)
        self._line.extend([write for write in writes if not write.called])

    def settle(self) -> None:
        """Complete the flushes before which no write is pending."""
        line = self._line
        while line:
            first = line[0]
            if not (first.is_mark or first.called):
                break
            line.popleft()
            if not first.called:
                first.callback(True)
        if not line:
            self._cancelled = 0

    def withdraw(self, write: DatagramWrite, error: Exception) -> None:
        """Withdraw a write that is not yet with the kernel, and fail it."""
        if write in self._waiting:
            del self._waiting[write]
            self._unsent -= write.segment_size
            write.data = b""
            write.errback(error)
            if not self._waiting and not self.is_sending:
                # No write is left whose `send` would move the flushes behind it.
                marks, self._marks = self._marks, []
                self._line.extend(marks)
                self.settle()
        elif self._port is not None:
            if self._port.withdraw(write):
                write.data = b""
            for copy in write.copies:
                if not copy.is_done:
                    self._port.withdraw(copy)
            # Now, so that it fails before the flushes behind it are completed.
            write.errback(error)
            self.pass_over()

    def cancel_writes(self, make_error: Callable[[], SocketError]) -> None:
        """Withdraw and fail all writes that are not yet with the kernel; fail all flushes."""
        pending = [*self._line, *self._marks, *self._waiting]
        # The flushes first: they would succeed once no write is before them.
        for thing in sorted(pending, key=_is_mark, reverse=True):
            if not thing.called:
                error = make_error()
                if isinstance(thing, DatagramWrite):
                    self.withdraw(thing, error)
                else:
                    thing.errback(error)
                    self.pass_over()
                if silence_unhandled(thing, error) and not thing.is_mark:
                    self.note_unawaited(error)

    def pass_over(self) -> None:
        """Remove cancelled writes from the queue, once they are the majority."""
        self._cancelled += 1
        if 2 * self._cancelled > len(self._line):
            self._line = deque([each for each in self._line if not each.called])
            self._cancelled = 0
        if not self.is_sending:
            self.settle()

    @property
    def is_awaited(self) -> bool:
        """Whether a flush is pending, or a write that is not with the kernel has a callback."""
        pending = (*self._line, *self._marks, *self._waiting)
        return any(not each.called and (each.is_mark or each._callbacks) for each in pending)

    def complete(self) -> None:
        """Complete the writes of the port: another owner of the socket sends them."""
        for each in list(self._line):
            if isinstance(each, DatagramWrite):
                each.sent()

    def lost(self, make_error: Callable[[], SocketError]) -> None:
        """
        Fail all pending writes and flushes: the socket was closed, or uses another stream.

        :param make_error: makes the error of each of them, and of later writes.
        """
        self._refusal = make_error
        for write in list(self._waiting):
            # The errback of one write may cancel another.
            if write in self._waiting:
                del self._waiting[write]
                write.failed(make_error())
        self._unsent = 0
        marks = [*filter(_is_mark, self._line), *self._marks]
        self._line.clear()
        self._marks.clear()
        for mark in marks:
            if not mark.called:
                error = make_error()
                mark.errback(error)
                silence_unhandled(mark, error)
        if self._port is not None and not self._port.is_open:
            self._port = None


def _is_mark(thing: DatagramWrite | _Mark) -> bool:
    return thing.is_mark


def _stop_waiting(mark: Deferred[bool]) -> None:
    """Fail a cancelled flush; the writes before it are not cancelled."""
    mark.errback(CancelledError())
    typing.cast(_Mark, mark).stream.pass_over()


class _Copy:
    """A copy of a datagram, which leaves by another interface; it has no Deferred."""

    __slots__ = ("address", "control", "data", "is_done", "segment_size", "stream")

    def __init__(self, write: DatagramWrite, control: Control) -> None:
        self.is_done = False
        self.stream = write.stream
        self.data = write.data
        self.segment_size = write.segment_size
        self.address = write.address
        self.control: Control | None = control

    def sent(self) -> None:
        self.is_done = True
        self.data = b""

    def failed(self, error: SocketError) -> None:
        self.sent()
        self.stream.note_unawaited(error)
