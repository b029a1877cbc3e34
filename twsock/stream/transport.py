"""
The output of one connection: protocol or socket → **stream transport** → socket of the kernel.

The base of `twsock.stream.ending.EndingTransport`. It holds the bytes that were written and not
sent; the owner limits them by checking `StreamTransport.is_full`. Bytes that the kernel does not
take are queued in Twisted's transport. So all bytes leave in the order of the writes, also those
that an application writes with ``transport.write``.

If nothing is queued on a plain socket, `StreamTransport.send` calls the kernel itself. That saves a
turn of the reactor and three system calls for each answer. Under TLS, on a transport in memory, and
behind queued bytes, it calls ``transport.write``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from twsock.errors import SocketError
from twsock.stream.below_tls import TRY_LATER, TlsLowerTransport
from twsock.stream.counters import NOT_COUNTED, Counters
from twsock.stream.descriptor import (
    SMALL,
    engine_bytes,
    engine_holds,
    find_descriptor,
    join_queued,
    may_collect,
    plain_socket,
    queued_bytes,
)
from twsock.stream.drain import BufferWatch, DrainWatch

__all__ = ["HIGH_WATER", "LOW_WATER", "StreamTransport"]

#: A connection is full when this many written bytes are not yet with the kernel. The owner then
#: stops producing, and pauses reading. Twisted pauses a producer at the same 64 KiB.
HIGH_WATER: Final = 64 * 1024

#: A full connection has room again when so few bytes are queued: 0, since a descriptor reports only
#: an empty queue.
LOW_WATER: Final = 0

#: Written pieces are joined if they have at most this many bytes together. More bytes are passed to
#: the kernel as separate pieces: copying them would cost more than the longer call.
_MAX_JOINED: Final = 64 * 1024

#: Seconds between two checks whether a TLS engine still holds written bytes.
_SETTLE_INTERVAL: Final = 0.01

#: The most pieces of one call; Linux's IOV_MAX.
_MAX_PIECES: Final = 1024


class StreamTransport:
    """
    Sends the bytes of one connection; the base of `twsock.stream.connection.Connection`.

    :param transport: any connected stream transport of Twisted.
    :param clock: measures the time until a TLS engine is checked again.
    :param high_water: `is_full` becomes true when this many written bytes are not yet with the
        kernel.
    """

    __slots__ = (
        "_descriptor",
        "_high_water",
        "_lower",
        "_pending",
        "_settling",
        "_socket",
        "_transport",
        "_watch",
        "clock",
        "counters",
        "is_held",
        "is_open",
        "room",
        "sent",
    )

    def __init__(self, transport: Any, clock: IReactorTime, high_water: int) -> None:
        #: The reactor, or a clock in a test; measures the deadlines.
        self.clock = clock
        self._high_water = high_water
        # None between two sends: an idle connection has no list.
        self._pending: list[bytes | bytearray] | None = None
        #: Bytes that may be written before the next `send`; 0 or less when the connection is full
        #: or no longer open. A loop over messages checks this one number after each message.
        self.room = high_water
        #: Whether the owner may write: neither closed nor lost.
        self.is_open = True
        #: Whether written bytes wait for a handshake.
        self.is_held = False
        #: Counts the connections of the same port; set by the owner.
        self.counters: Counters = NOT_COUNTED
        #: Bytes that were passed to the kernel or to Twisted's queue, before encryption.
        self.sent = 0
        # The transport below the TLS engine of an upgrade; None before an upgrade.
        self._lower: TlsLowerTransport | None = None
        # Checks in the next turn whether the TLS engine has sent its data.
        self._settling: IDelayedCall | None = None
        self._attach(transport)
        # Otherwise an answer that the kernel takes in two parts waits 40 ms for the peer's ACK.
        port = getattr(self._descriptor, "server", None)
        if not getattr(getattr(port, "socket", None), "has_no_delay", False):
            set_no_delay = getattr(self._descriptor, "setTcpNoDelay", None)
            if set_no_delay is not None:
                set_no_delay(True)

    def _attach(self, transport: Any) -> None:
        """Use a transport, or the TLS engine above it."""
        self._transport = transport
        self._socket = plain_socket(transport)
        self._descriptor = transport if self._socket is not None else find_descriptor(transport)
        # A `DrainWatch` while bytes are queued; without a descriptor, a `BufferWatch` all the time.
        self._watch: DrainWatch | BufferWatch | None = None
        if self._descriptor is None and hasattr(transport, "registerProducer"):
            self._watch = BufferWatch(transport, self._queue_is_empty)

    # Implemented by `EndingTransport`.

    def _drained(self) -> None:
        """Handle an empty queue."""
        raise NotImplementedError

    def _send_failed(self, error: OSError) -> None:
        """Handle a send that failed for good; called within the call that got the error."""
        raise NotImplementedError

    def _reason_not_to_write(self) -> SocketError:
        """Return the error of a write to a connection that is not open."""
        raise NotImplementedError

    # The queue.

    @property
    def is_plain(self) -> bool:
        """Whether the bytes go to a socket unchanged: no TLS engine encrypts them."""
        return self._socket is not None and not self._transport.TLS

    @property
    def is_full(self) -> bool:
        """Whether the high-water mark is reached; later ``output_drained`` is called."""
        descriptor = self._descriptor
        if descriptor is None:
            return self.room <= 0 or self._is_buffer_full
        kept = engine_bytes(self._transport) if self._settling is not None else 0
        return kept + queued_bytes(descriptor) >= self.room

    @property
    def _buffer_watch(self) -> BufferWatch | None:
        return self._watch if isinstance(self._watch, BufferWatch) else None

    @property
    def _is_buffer_full(self) -> bool:
        watch = self._buffer_watch
        return watch is not None and watch.is_full

    @property
    def queued(self) -> int:
        """Bytes that were sent and are not yet with the kernel, before encryption and after it."""
        if self._descriptor is None:
            watch = self._buffer_watch
            return 0 if watch is None else watch.queued
        kept = 0 if self.is_plain else engine_bytes(self._transport)
        return queued_bytes(self._descriptor) + kept

    @property
    def is_flushed(self) -> bool:
        """Whether the kernel has all written bytes."""
        if self._pending or self._settling is not None:
            return False
        descriptor = self._descriptor
        return not (self._is_buffer_full if descriptor is None else queued_bytes(descriptor))

    # Sending.

    def write(self, data: bytes | bytearray) -> None:
        """
        Keep bytes for the next `send`. The caller must not change a ``bytearray`` any more.

        :raises ClosedError: when this end was closed, or the connection ended in order.
        :raises BrokenError: when a send failed, or the connection was lost with an error.
        """
        if not self.is_open:
            raise self._reason_not_to_write()
        if self._pending is None:
            self._pending = [data]
        else:
            self._pending.append(data)
        self.room -= len(data)

    def send(self) -> bool:
        """
        Send all written bytes: as many as the kernel takes now, and the rest through Twisted.

        :returns: False if bytes wait in a queue of Twisted, or for the end of a handshake.
        """
        pending = self._pending
        if pending is None:
            # A TLS engine may have filled the queue with answers of its own.
            return self._socket is not None or not self._watch_queue()
        if self.is_held:
            _join_last(pending)
            return False
        data = pending[0] if len(pending) == 1 else b"".join(pending)
        self._pending = None
        self.room = self._high_water
        self.sent += len(data)
        self.counters.bytes_sent += len(data)
        transport = self._transport
        if (
            self._socket is not None
            # TLS may have been started meanwhile. Queued bytes have to be sent first.
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
                    self._send_failed(error)
                    return True
                sent = 0
            if sent == len(data):
                return True
            data = memoryview(data)[sent:].tobytes()
        return self._queue_data(data)

    def _queue_data(self, data: bytes | bytearray) -> bool:
        """Pass data to Twisted's queue; return False if bytes wait there afterwards."""
        transport = self._transport
        is_plain = self._socket is not None and not transport.TLS
        if not (is_plain and join_queued(transport, data)):
            transport.write(data if isinstance(data, bytes) else bytes(data))
        descriptor = self._descriptor
        if descriptor is None:
            watch = self._buffer_watch
            if watch is not None:
                watch.note(len(data))
            return watch is None or not watch.is_full
        # The common case with an engine of twsock, as in `_engine_sent_all`: one call less.
        if (
            getattr(transport, "held_bytes", None) == 0
            and not descriptor.dataBuffer
            and not descriptor._tempDataLen
        ):
            return True
        is_engine_full = self._watch_engine()
        return not (self._watch_queue() or is_engine_full)

    def _engine_sent_all(self, descriptor: Any) -> bool:
        """Return whether no byte waits in an engine of twsock, and none below it."""
        transport = self._transport
        return (
            getattr(transport, "held_bytes", None) == 0
            and not transport._appSendBuffer
            and not descriptor.dataBuffer
            and not descriptor._tempDataLen
        )

    def send_now(self, data: bytes) -> bool:
        """
        Do the same as `write` and `send`, with one call fewer.

        :returns: as `send`.
        :raises SocketError: as `write`.
        """
        if self._pending is None and self.is_open and not self.is_held:
            self._pending = [data]  # `send` sets `room`.
        else:
            self.write(data)
        return self.send()

    def send_pieces(self, pieces: Sequence[bytes]) -> tuple[int, int]:
        """
        Send pieces, in their order, until the kernel takes no more of them.

        The owner keeps the other pieces, and can still withdraw them. Unless `is_flushed` is true
        afterwards, ``output_drained`` is called when there is room again.

        :param pieces: none of them empty.
        :returns: how many pieces were sent or queued, and how many of these the kernel has
            completely. A call passes at most 1,024 pieces if they have more than 64 KiB together.
        """
        transport = self._transport
        if (
            self._socket is None
            or transport.TLS
            or transport.dataBuffer
            or transport._tempDataLen
            or transport._aborting  # by an application that has the transport itself
        ):
            return self._queue_pieces(pieces)
        is_single = len(pieces) == 1
        total = len(pieces[0]) if is_single else sum(map(len, pieces))
        try:
            if is_single:
                sent = self._socket.send(pieces[0])
            elif total <= _MAX_JOINED:
                sent = self._socket.send(b"".join(pieces))
            else:
                sent = self._socket.sendmsg(pieces[:_MAX_PIECES])
        except OSError as error:
            if error.errno not in TRY_LATER:
                self._send_failed(error)
                return 0, 0
            sent = 0
        if sent == total:
            self.sent += total
            self.counters.bytes_sent += total
            return len(pieces), len(pieces)
        handed, done = self._queue_first_unsent(pieces, sent)
        self.note_sent(sum(map(len, pieces[:handed])))
        return handed, done

    def note_sent(self, size: int) -> None:
        """Count bytes that the owner has passed to the kernel itself, by sendfile and splice."""
        self.sent += size
        self.counters.bytes_sent += size

    def _queue_first_unsent(self, pieces: Sequence[bytes], sent: int) -> tuple[int, int]:
        """Pass the first piece that the kernel did not take whole to Twisted's queue."""
        transport = self._transport
        for done, piece in enumerate(pieces):
            if sent < len(piece):
                if done == _MAX_PIECES and not sent:
                    return done, done
                # The transport reports room only after it has sent queued bytes.
                transport.write(piece[sent:] if sent else piece)
                self._watch_queue()
                return done + 1, done
            sent -= len(piece)
        return len(pieces), len(pieces)

    def _queue_pieces(self, pieces: Sequence[bytes]) -> tuple[int, int]:
        """Pass pieces to a transport that queues them, until it is full."""
        handed = 0
        descriptor = self._descriptor
        is_little = sum(map(len, pieces)) <= _MAX_JOINED
        while handed < len(pieces) and (is_little or not self.is_full):
            end = len(pieces) if is_little else _joined_end(pieces, handed)
            joined = b"".join(pieces[handed:end])
            self._transport.write(joined)
            if descriptor is None and (watch := self._buffer_watch) is not None:
                watch.note(len(joined))
            handed = end
            self.note_sent(len(joined))
        # The common case under TLS. The checks below take as many calls as all the rest.
        if descriptor is not None and self._settling is None and self._engine_sent_all(descriptor):
            return handed, handed
        self._watch_queue()
        if descriptor is not None and self._settling is None and may_collect(self._transport):
            self._settling = self.clock.callLater(0, self._settle)
        return handed, handed if self.is_flushed else 0

    @property
    def direct_descriptor(self) -> int | None:
        """
        The file descriptor to which the kernel itself may move bytes, by sendfile and splice.

        None under TLS, without a socket, and while bytes are queued, which come first.
        """
        connection = self._socket
        if connection is None or self._transport.TLS or not self.is_flushed:
            return None
        return None if self._transport._aborting else connection.fileno()

    def await_room(self) -> None:
        """Report ``output_drained`` when the kernel has room, although nothing is queued here."""
        descriptor: Any = self._descriptor
        if self._watch is None:
            self._watch = DrainWatch(descriptor, self._queue_is_empty)
        descriptor.startWriting()

    def stop_awaiting_room(self) -> None:
        """End the wait of `await_room`; Twisted sends no FIN while there is one."""
        if isinstance(self._watch, DrainWatch) and self.is_flushed:
            self._stop_watching()

    # Waiting for the kernel.

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
            self._settling = self.clock.callLater(_SETTLE_INTERVAL, self._settle)
        return True

    def _watch_held_bytes(self) -> None:
        """Check a TLS engine again later if it keeps bytes until its handshake is done."""
        if self._descriptor is None or self._settling is not None or self.is_plain:
            return
        if engine_holds(self._transport):
            self._settling = self.clock.callLater(_SETTLE_INTERVAL, self._settle)

    def _settle(self) -> None:
        self._settling = None
        self._watch_queue()
        if engine_holds(self._transport):
            # A handshake runs, and no event reports its end to this class.
            self._settling = self.clock.callLater(_SETTLE_INTERVAL, self._settle)
        elif self._watch is None:
            self._queue_is_empty()

    def _queue_is_empty(self) -> None:
        if self._descriptor is not None:
            is_settling = self._settling is not None
            self._stop_watching()
            if is_settling and engine_holds(self._transport):
                # The bytes sent were part of the handshake.
                self._settling = self.clock.callLater(_SETTLE_INTERVAL, self._settle)
                return
        self._drained()

    def _stop_watching(self) -> None:
        watch = self._watch
        if watch is not None:
            watch.stop()
        if self._descriptor is not None:
            self._watch = None  # A `BufferWatch` stays: it has counted the unsent bytes.
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None


def _join_last(pending: list[bytes | bytearray]) -> None:
    """Join the last two waiting pieces if both are small, as `join_queued` does."""
    if len(pending) > 1 and len(pending[-2]) < SMALL and len(pending[-1]) < SMALL:
        last = pending.pop()
        pending[-1] += last


def _joined_end(pieces: Sequence[bytes], start: int) -> int:
    """Return the end of the pieces that are joined for one write; a large one is written alone."""
    end, size = start + 1, len(pieces[start])
    while end < len(pieces) and (size := size + len(pieces[end])) <= _MAX_JOINED:
        end += 1
    return end
