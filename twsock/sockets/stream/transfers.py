"""
Writes whose bytes come from elsewhere: file or socket → **transfer** → stream transport.

A `Transfer` waits in the queue of an output stream, and holds no bytes before its turn. At its turn
it sends as many bytes as the kernel takes, each time that the kernel has room; later writes wait.
`Transferring` is a base class of the output stream in `twsock.sockets.stream.output`, and runs the
transfers. The two kinds of transfers are in `twsock.sockets.stream.files` and
`twsock.sockets.stream.relaying`.
"""

from __future__ import annotations

import typing
from collections import OrderedDict
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from twsock._twisted import silence_unhandled
from twsock.errors import SocketError
from twsock.operation import Operation
from twsock.sockets.stream.output_end import EndingOutput
from twsock.sockets.waiting import output_closed, uncancellable
from twsock.stream.connection import Connection

__all__ = ["MAX_PIECE", "Transfer", "Transferring"]

#: The most bytes that a transfer passes on in one call: the transport takes so many as one piece.
MAX_PIECE: Final = 64 * 1024


class Transfer(Operation[Any]):
    """
    A write whose bytes come from a file or another socket while it is being sent.

    :param stream: the output stream. `Transferring.queue_transfer` queues the transfer.
    """

    #: The bytes of a queued write. A transfer has none.
    data = b""

    #: Whether the stream calls `proceed` in the next turn of the reactor.
    is_due = False

    def __init__(self, stream: Transferring) -> None:
        super().__init__(_withdraw)
        self.stream = stream

    def proceed(self, transport: Connection) -> bool:
        """
        Send what the kernel takes now.

        Called when it is this transfer's turn, and whenever the kernel has room again.

        :returns: whether the kernel has all bytes, so that the next write may begin.
        """
        raise NotImplementedError

    def release(self) -> None:
        """Free the resources: the transfer is done, failed or cancelled. Called once or more."""
        raise NotImplementedError

    @property
    def outcome(self) -> object:
        """The result of the Deferred."""
        return None

    # Called by the stream, as for a write.

    def done(self) -> None:
        """Complete the transfer: the kernel has its bytes."""
        self.release()
        if not self.called:
            self.callback(self.outcome)

    def failed(self, error: SocketError) -> bool:
        """Fail the transfer; return whether no code awaits it."""
        self.release()
        if self.called:
            return False
        self.errback(error)
        return silence_unhandled(self, error)


def _withdraw(transfer: Deferred[Any]) -> None:
    withdrawn = typing.cast(Transfer, transfer)
    withdrawn.stream.withdraw_transfer(withdrawn)


class Transferring(EndingOutput):
    """Runs the transfers of an output stream, one at a time, in the order of its queue."""

    __slots__ = (
        "_begun",
        "_clock",
        "_is_handing_over",
        "_transfers",
        "_turn",
        "_waiting",
    )

    def __init__(self, clock: IReactorTime) -> None:
        super().__init__()
        self._clock = clock
        # In order. An OrderedDict removes a cancelled write in constant time.
        self._waiting: OrderedDict[Any, None] = OrderedDict()
        # Writes of which the kernel has a part; or the transfer whose turn it is.
        self._begun: list[Any] = []
        # How many transfers are queued or have begun.
        self._transfers = 0
        self._is_handing_over = False
        self._turn: IDelayedCall | None = None

    @property
    def is_transferring(self) -> bool:
        """Whether a transfer is queued or has begun."""
        return self._transfers > 0

    @property
    def transport(self) -> Connection | None:
        """The connection below the stream; None before it is open, and during a handshake."""
        return self._transport

    # Called by the code that makes a transfer, and by the transfer.

    def queue_transfer(self, transfer: Transfer) -> None:
        """Queue a transfer behind all earlier writes, and begin it if there are none."""
        self._queue_taken()  # These writes precede the transfer.
        self._transfers += 1
        self._waiting[transfer] = None
        self._send()

    def proceed(self) -> None:
        """Call `Transfer.proceed` of the transfer that has begun: there may be bytes to send."""
        transfer, transport = self._current_transfer(), self._transport
        if transfer is None or transport is None or not transport.is_open:
            return
        if transfer.proceed(transport) and self._current_transfer() is transfer:
            self._end_transfer()
            self._finish([transfer])
            self._send()

    def proceed_next_turn(self) -> None:
        """Call `Transfer.proceed` of the transfer that has begun in the next turn."""
        transfer = self._current_transfer()
        if transfer is not None:
            transfer.is_due = True
        if self._turn is None:
            self._turn = self._clock.callLater(0, self._next_turn)

    def pass_on(self, data: bytes) -> bool:
        """
        Send bytes of the transfer that has begun.

        :param data: at most `MAX_PIECE` bytes, and at least one.
        :returns: whether the kernel has all of these bytes. If not, `Transfer.proceed` is called
            once the kernel has them, unless the connection breaks.
        """
        transport = self._transport
        if transport is None or not transport.is_open:
            return False
        self._is_handing_over = True
        _, done = transport.send_pieces([data])
        self._is_handing_over = False
        return bool(done)

    def withdraw_transfer(self, transfer: Transfer) -> None:
        """End a cancelled transfer; bytes that it has passed on are sent."""
        transfer.release()
        if transfer in self._waiting:
            del self._waiting[transfer]
            self._transfers -= 1
        elif self._current_transfer() is transfer:
            self._end_transfer()
        self._send()

    # Called by the socket that closes.

    def finish(self) -> Deferred[None]:
        """
        Refuse further writes, and send FIN when the queued writes and transfers are done.

        :returns: fires when the kernel has FIN, or the connection is lost.
        """
        self._refusal = output_closed
        if self._ending is None:
            self._ending = uncancellable()
        ending: Deferred[None] = Deferred()
        self._ending.addBoth(_fire, ending)
        self._end_if_empty()
        return ending

    # Called by the output stream.

    def _take_up_to_transfer(self) -> list[Any]:
        """Take the writes before the first transfer off the queue, or that transfer alone."""
        waiting = self._waiting
        batch: list[Any] = []
        while waiting and not (batch and isinstance(next(iter(waiting)), Transfer)):
            batch.append(waiting.popitem(last=False)[0])
            if isinstance(batch[0], Transfer):
                break
        return batch

    def _begin_transfer(self, transfer: Transfer, transport: Connection) -> list[Any]:
        """Begin a transfer; return it if it is done."""
        self._begun = [transfer]
        if transfer.proceed(transport) and self._current_transfer() is transfer:
            self._end_transfer()
            return [transfer]
        return []

    def _forget_transfers(self) -> None:
        """Let later writes wait only for bytes that a failed transfer has passed on."""
        if self._current_transfer() is not None:
            self._end_transfer()
        self._transfers = 0

    def _proceed_if_due(self) -> None:
        transfer = self._current_transfer()
        if transfer is not None and transfer.is_due:
            transfer.is_due = False
            self.proceed()

    def _current_transfer(self) -> Transfer | None:
        """Return the transfer that has begun."""
        begun = self._begun
        return begun[0] if self._transfers and begun and isinstance(begun[0], Transfer) else None

    def _end_transfer(self) -> None:
        self._transfers -= 1
        transport = self._transport
        if transport is None or transport.is_flushed:
            self._begun = []
        else:
            self._begun = [_Rest()]
        if transport is not None:
            transport.stop_awaiting_room()

    # Implemented by the output stream.

    def _next_turn(self) -> None:
        raise NotImplementedError

    def _finish(self, writes: list[Any]) -> None:
        raise NotImplementedError

    def _queue_taken(self) -> None:
        raise NotImplementedError


class _Rest:
    """Stands for bytes of an ended transfer that the kernel does not have yet."""

    data = b""
    called = True

    def done(self) -> None: ...

    def failed(self, _error: SocketError) -> bool:
        return False


def _fire(result: object, ending: Deferred[None]) -> object:
    ending.callback(None)
    return result
