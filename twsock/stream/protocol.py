"""
Handles messages one after the other: transport → **protocol** → handler → connection.

The base of `twsock.protocols.FrameProtocol` and `LineProtocol`. Twisted calls it with received
bytes. A decoder of `twsock.wire` stores them and returns messages, a handler of the application
answers them, and a `twsock.stream.connection.Connection` sends the answers. The decoder holds the
bytes that were not handled, the connection the answers that were not sent.

Reading pauses while the peer does not receive the answers, and when `MAX_BACKLOG` bytes have
arrived while a handler runs. Messages that are no answers pause no reading: two ends that both push
would wait for each other for ever.
"""

from __future__ import annotations

import typing
from collections.abc import Coroutine
from types import CoroutineType
from typing import Any, ClassVar, Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from typing_extensions import override

from twsock.errors import ClosedError, LocalProtocolError, SocketError
from twsock.operation import fail, run_coroutine
from twsock.stream.client_upgrade import ClientUpgrade, ClientUpgrading
from twsock.stream.connection import FULL_READ, Connection
from twsock.stream.detaching import DetachableProtocol
from twsock.stream.draining import Drain
from twsock.stream.switch import MessageSwitch, StoringDecoder
from twsock.stream.upgrade import Upgrade, UpgradeToSsl

__all__ = ["MAX_BACKLOG", "Handled", "StreamProtocol"]

#: What a handler may return: None when it is done, or something to wait for.
Handled = typing.Union[None, "Deferred[Any]", "Coroutine[Deferred[Any], Any, Any]"]

#: How many received bytes may wait, besides one read, while a handler runs or the peer receives no
#: answers. A smaller message limit lowers it.
MAX_BACKLOG: Final = 64 * 1024


class StreamProtocol(DetachableProtocol):
    """
    A connection that carries messages; subclasses define the wire format.

    The class attributes are limits, to be set on a subclass or an instance before it is connected.
    """

    #: Whether messages begin with a byte count. The first bytes of a handshake could be a count.
    is_counted: ClassVar[bool] = False
    #: The upgrade of this connection to TLS; None without one.
    upgrade: UpgradeToSsl | None = None

    _upgrading: MessageSwitch | None = None
    _decoder: Any
    _handler: Deferred[Any] | None = None
    _is_delivering = False
    _early = b""
    _drain: Drain | None = None  # Set by `drain`.
    #: Whether the connection was accepted when its port stopped: its first message may follow.
    was_queued = False

    # Overridden by applications.

    def connection_secured(self) -> None:
        """
        The connection is now secure: encrypted, and the peer was accepted.

        Not called with TLS from the first byte: then ``connection_made`` is called at this point.
        An attacker may have sent the earlier messages. Drop all that they said, such as a login.
        """

    # Called by applications.

    def upgrade_to_ssl(self, settings: ClientUpgrade) -> Deferred[None]:
        """
        Start TLS on this connection, as the client of the handshake.

        Later writes wait, and are sent encrypted. A failure aborts the connection: it never
        continues in plaintext.

        :returns: fires after `connection_secured`, when the server is accepted. It fails with
            `RemoteProtocolError` when the server did not grant TLS, or sent plaintext that was not
            handled; with `twsock.tls.CertificateError` when the server was not accepted; with
            status ``CONNECTION_TIMED_OUT`` after ``settings.timeout``. It fails with
            `LocalProtocolError` when the connection is secure already or being upgraded, and with
            `ClosedError` when this end was closed; both change nothing. Cancelling aborts the
            connection.
        :raises LocalProtocolError: at once, before the protocol is connected.
        """
        stream = self._connected_stream()
        if not stream.is_open:
            return fail(ClosedError("cannot upgrade: this end of the connection is closed"))
        if self._upgrading is not None or stream.carries_tls:
            return fail(LocalProtocolError("cannot upgrade: it was done or begun already"))
        try:
            self._upgrading = upgrading = ClientUpgrading(settings, self, stream)
        except SocketError as error:
            return fail(error)
        return upgrading.begin()

    @override
    def _reason_to_stay(self) -> str:
        if self._handler is not None or self._is_delivering:
            return "a handler runs"
        return "it is being upgraded" if self.is_upgrading or self._is_unannounced else ""

    # Called by the registry.

    @override
    def end_if_idle(self) -> None:
        """End the connection, unless a handler runs and the peer's output is still open."""
        stream = self._connected_stream()
        if not stream.is_open or self.group is None:
            return
        if self._handler is not None and not stream.has_peer_ended and not stream.has_hung_up:
            return
        stream.counters.idle += 1
        self._log.info("{peer} was idle: closing", peer=self.peer)
        if self._handler is None:
            self.close()
        else:
            # The loss cancels the handler: the peer has ended its output or disconnected.
            self.abort()

    @override
    def drain(self) -> None:
        """Answer all received messages, then close."""
        stream = self._connected_stream()
        if not stream.is_open:
            return  # Closed, or lost: then nothing would end the drain.
        if self._drain is None:
            self._drain = Drain(self, stream)
        self._drain.close_if_idle()

    # Called by the drain.

    @property
    def is_idle(self) -> bool:
        """Whether a message could be handled now, and none has arrived."""
        return self._may_deliver(self._connected_stream()) and not self._decoder.buffered

    @property
    def is_upgrading(self) -> bool:
        """Whether a handshake runs, or a go-ahead was sent."""
        return self._upgrading is not None and self._upgrading.is_under_way

    @property
    def has_delivered(self) -> bool:
        """Whether a message was delivered since the connection was made or secured."""
        return bool(self._decoder.delivered)

    # Called by the upgrade.

    def pull_message(self) -> bytes | None:
        """Pull one message; return None when more bytes are needed."""
        raise NotImplementedError

    def handle_message(self, message: bytes, stream: Connection) -> bool:
        """Handle one message; return whether the next one may be handled."""
        raise NotImplementedError

    def send_message(self, message: bytes) -> None:
        """Send one message."""
        raise NotImplementedError

    def encode_message(self, message: bytes) -> bytes:
        """Return one message as it is sent."""
        raise NotImplementedError

    @property
    def decoder(self) -> StoringDecoder:
        """The decoder of received bytes; a new one when the connection becomes secure."""
        return typing.cast(StoringDecoder, self._decoder)

    def has_stopped(self, stream: Connection) -> bool:
        """Return whether a request or ClientHello is next, and may be handled now."""
        if self._handler is not None or self._is_stalled or not self._decoder.stops_here():
            return False
        return stream.room > 0 or self._may_go_on(stream)

    @override
    def take_buffered(self) -> bytes:
        early, self._early = self._early, b""
        return typing.cast(bytes, self._decoder.take_buffered()) + early

    def continue_above(self, engine: Any) -> None:
        """Continue above a TLS engine; drop the decoder from before the handshake."""
        stream = self._connected_stream()
        self._decoder = self._make_decoder()
        self.transport = engine
        stream.rebind(engine)
        if self._is_unannounced:
            self._announce()
        else:
            self._call_hook(self.connection_secured)
        if self._flush(stream):
            self.output_drained()
        if self._drain is not None and self._may_deliver(stream):
            self._drain.await_first_message()

    def forget_switch(self) -> None:
        """Drop the upgrade: the connection is secure, and no message concerns the upgrade."""
        self._upgrading = None

    # Overridden by the wire formats.

    @classmethod
    def check_max_payload(cls, max_payload: int) -> None:
        """
        Check a limit for messages.

        :raises ValueError: when the format has no message of this size.
        """
        raise NotImplementedError

    def _make_decoder(self) -> StoringDecoder:
        raise NotImplementedError

    def deliver_messages(self, stream: Connection) -> None:
        """Pull and handle messages until there is none, a handler runs, or the output is full."""
        raise NotImplementedError

    def _flush(self, stream: Connection, is_answer: bool = False) -> bool:
        """Send all written bytes; return whether the output has room for more."""
        room = stream.room
        if stream.send():
            return stream.is_open
        return self._hold_back(stream, room, is_answer)

    @override
    def _hold_back(self, stream: Connection, room: int, is_answer: bool = False) -> bool:
        """Handle a send of which bytes are left; return as `_flush` does."""
        stream.note_buffered()
        if not stream.is_open or not stream.is_full:
            return stream.is_open
        # Bytes that wait for a handshake pause no reading: its messages have to be read.
        is_answered = (is_answer and room < self.high_water) or self._handler is not None
        if is_answered and not stream.is_held:
            self._is_stalled = True
            stream.pause_reading()
        if not self._is_full:
            self._is_full = True
            stream.counters.output_filled(stream.clock.seconds())
            self._stop_room_report()  # The transport will report it.
            self._call_hook(self.writing_paused)
        # The transport may have drained meanwhile.
        return not self._is_full and stream.is_open

    def _may_go_on(self, stream: Connection) -> bool:
        """Return whether the next message may be handled after one that filled the output."""
        return self._flush(stream, is_answer=True)

    def _push(self, stream: Connection, size: int) -> None:
        """Send a message of ``size`` bytes that is no answer; abort if too many are queued."""
        if not (self._is_full and self._limit_unsent(stream, size)):
            self._flush(stream)

    def _may_deliver(self, stream: Connection) -> bool:
        """Return whether the next message, if there is one, may be handled now."""
        is_busy = self._handler is not None or self._is_stalled or self._is_delivering
        return stream.is_open and not is_busy

    def _go_on_after(self, handled: object, stream: Connection) -> bool:
        """Return whether the next message may be handled, depending on a handler's result."""
        if handled is not None and not self._is_finished(handled):
            return False
        return stream.room > 0 or self._may_go_on(stream)

    def _is_finished(self, handled: object) -> bool:
        """Return whether a handler is done; if not, the next messages wait for it."""
        if isinstance(handled, CoroutineType):
            handled = run_coroutine(handled)
            if handled is None:
                return True
        if not isinstance(handled, Deferred):
            raise TypeError(f"a handler returns None, a Deferred or a coroutine, not {handled!r}")
        self._handler = handled
        # Not before: to time a coroutine that ends at once would cost a sixth of it.
        begun = self._connected_stream().clock.seconds()
        # The Deferred may call back at once, so the attribute is set before.
        handled.addCallbacks(self._handler_done, self._handler_failed, (begun,), {}, (begun,))
        return self._handler is None

    # Called by Twisted.

    @override
    def connectionMade(self) -> None:
        group = self._join_group() if self.group is None else self.group
        try:
            self._decoder = self._make_decoder()
            self.check_max_unsent(self.max_unsent)
            if self.upgrade is not None:
                self.upgrade.check_limit(self._decoder.max_payload, self.is_counted)
            stream = self._connect(group)
        except (TypeError, ValueError):
            # A limit on the class is wrong. Twisted would log the error and keep the connection.
            self._transport.abortConnection()
            raise
        if self.upgrade is not None:
            self._is_unannounced = True
            upgrading = self._upgrading = Upgrade(self.upgrade, self, stream)
            upgrading.begin()
            if upgrading.is_implicit:
                return
        self._announce()

    @override
    def dataReceived(self, data: bytes) -> None:
        stream = self._stream or self._connected_stream()
        if not stream.is_open:
            # Read and dropped: the kernel resets a connection that is closed with unread bytes.
            return
        size = len(data)
        stream.counters.bytes_received += size
        self._received += size
        if size >= FULL_READ:
            stream.note_read(size)
        if self._is_delivering:
            # A transport in memory delivers within a send. These bytes wait until the loop ends.
            self._early += data
            return
        decoder = self._decoder
        if decoder.stored:
            decoder.feed(data)
        else:
            decoder.stored = data  # As `feed` does, without a call.
        is_free = self._handler is None and not self._is_stalled
        if is_free or (self._upgrading is not None and self._upgrading.is_urgent):
            self._go_on(stream)
        else:
            self._limit_backlog(stream)
        if stream.noted or self._decoder.stored:
            stream.note_buffered()

    @override
    def _release(self, error: SocketError | None) -> None:
        if self._upgrading is not None:
            self._upgrading.lost(error)
            self._upgrading = None
        if self._drain is not None:
            self._drain.stop()
            self._drain = None
        self._early = b""
        self._decoder.clear()

    @override
    def connection_ended(self, error: SocketError | None, reason: Failure) -> None:
        if self.group is not None and self.group.connection_log is not None:
            counts = self._messages, self._received
            self.group.connection_log.end(self, self._connected_stream(), counts, error)
        super().connection_ended(error, reason)
        if self._handler is not None:
            self._is_cancelled = True
            self._handler.cancel()

    # Called by the connection.

    @property
    @override
    def held_bytes(self) -> int:
        """Bytes that were received and not handled."""
        held: int = self._decoder.buffered
        return held + len(self._early)

    @override
    def drop_input(self) -> None:
        """Release the received bytes: this connection holds the most, and is aborted."""
        self._connected_stream().counters.buffer_limit_aborts += 1
        self._decoder = self._make_decoder()

    @override
    def input_ended(self) -> None:
        """Answer all received messages, then close: the peer has ended its output."""
        stream = self._stream or self._connected_stream()
        if self._may_deliver(stream):
            self._close_answered(stream, is_event=True)

    @override
    def output_drained(self) -> None:
        """Handle the messages that waited while the output was full."""
        stream = self._connected_stream()
        if stream.noted:
            stream.note_buffered()
        if not self._is_full or not stream.is_open:
            return
        was_stalled, self._is_stalled, self._is_full = self._is_stalled, False, False
        stream.counters.output_emptied(stream.clock.seconds())
        self._report_resumed()
        if was_stalled:
            self._go_on_reading(stream)

    # The flow of messages.

    def _go_on_reading(self, stream: Connection) -> None:
        """Handle waiting messages, or at least read: the output has room again."""
        if self._may_deliver(stream):
            self._go_on(stream)
        elif stream.is_open and self._decoder.buffered < self._max_backlog:
            # A handler runs. Reading reports whether the peer disconnects meanwhile.
            stream.resume_reading()

    def _go_on(self, stream: Connection) -> None:
        """Deliver the messages that may be delivered; send all answers in one piece."""
        decoder = self._decoder
        before = decoder.delivered
        self._is_delivering = True
        upgrading = self._upgrading
        try:
            if upgrading is None or upgrading.passes_messages:
                self.deliver_messages(stream)
            if upgrading is not None and (
                not upgrading.passes_messages or (self._decoder.stored and self.has_stopped(stream))
            ):
                upgrading.deliver()
        except Exception:  # noqa: BLE001 - logged, and it ends the connection
            self._failed(Failure())
        finally:
            self._is_delivering = False
        if decoder.delivered != before and self.group is not None:
            stream.counters.messages += decoder.delivered - before
            self._messages += decoder.delivered - before
            self.active_tick = self.group.tick
        room = stream.room
        if not stream.send():
            self._hold_back(stream, room, is_answer=True)
        if not stream.is_open:
            return
        if stream.is_held and upgrading is not None and upgrading.is_shaking_hands:
            return  # The engine receives the rest.
        if self._early and self._deliver_early(stream):
            return
        if self._is_stalled or self._handler is not None:
            self._limit_backlog(stream)
            return
        if not stream.is_reading:
            if stream.has_peer_ended:
                self._close_answered(stream)
                return
            stream.resume_reading()
        if self._drain is not None:
            self._drain.close_if_idle()

    def _deliver_early(self, stream: Connection) -> bool:
        """Deliver bytes that arrived within a write; return whether a message could be handled."""
        early, self._early = self._early, b""
        self._decoder.feed(early)
        if self._is_stalled or self._handler is not None:
            return False
        self._go_on(stream)
        return True

    def _limit_backlog(self, stream: Connection) -> None:
        """Pause reading if too many bytes have arrived that cannot be handled yet."""
        if self._decoder.buffered >= self._max_backlog:
            stream.pause_reading()

    @property
    def _max_backlog(self) -> int:
        return min(MAX_BACKLOG, typing.cast(int, self._decoder.max_payload))

    def _close_answered(self, stream: Connection, is_event: bool = False) -> None:
        """Close: all is answered. ``is_event`` is true within the event of the peer's end."""
        if self._decoder.stored:
            self._log.info(
                "{peer} ended in the middle of a message: {size} bytes dropped",
                peer=self.peer,
                size=self._decoder.buffered,
            )
        close = stream.close_answered if is_event else stream.close
        close()

    # How a handler ends.

    def _note_handler(self, begun: float) -> Connection:
        self._handler = None
        stream = self._connected_stream()
        stream.counters.handler_seconds.observe(stream.clock.seconds() - begun)
        return stream

    def _handler_done(self, _result: object, begun: float) -> None:
        stream = self._note_handler(begun)
        if not self._is_delivering and not self._is_stalled and stream.is_open:
            if self.group is not None:
                self.active_tick = self.group.tick
            self._go_on(stream)
            if stream.noted:
                stream.note_buffered()

    def _handler_failed(self, failure: Failure, begun: float) -> None:
        self._note_handler(begun)
        self._failed(failure)
