"""
Messages handled one after the other: transport → **protocol** → handler → transport.

What `twsock.protocols.FrameProtocol` and `LineProtocol` share: Twisted enters here, a decoder of
`twsock.wire` is fed and pulled, a handler answers, a `twsock.stream.Connection` sends. In
memory are the decoder's undelivered bytes and the answers not yet sent.

A connection stops being read from when its peer does not take the answers, and while a handler runs
as soon as `MAX_BACKLOG` bytes have come meanwhile; then the peer waits, not this process's memory.
What is sent without being an answer stops no reading: two ends that both push would deadlock.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from twsock._integers import checked_integer
from twsock.errors import (
    BrokenError,
    ClosedError,
    LocalProtocolError,
    RemoteProtocolError,
    SocketError,
)
from twsock.ip.addresses import host_of
from twsock.log import TextLogger, forget_frames
from twsock.operation import fail
from twsock.stream._securing import Securing
from twsock.stream.application_transport import ApplicationTransport
from twsock.stream.client_upgrade import ClientUpgrade, ClientUpgrading
from twsock.stream.connection import FIRST_MESSAGE_TIME, Connection
from twsock.stream.descriptor import describe_peer, find_descriptor
from twsock.stream.ending import DEFAULT_CLOSE_TIMEOUT
from twsock.stream.registry import ConnectionRegistry
from twsock.stream.transport import HIGH_WATER
from twsock.stream.upgrade import Upgrade, UpgradeToSsl
from twsock.tls.certificates import Certificate

__all__ = ["LEAST_MAX_UNSENT", "MAX_BACKLOG", "Handled", "StreamProtocol"]

#: What a handler may return: None when it is done, or something to wait for.
Handled = typing.Union[None, "Deferred[Any]", "Coroutine[Deferred[Any], Any, Any]"]

#: Bytes that may arrive, besides one read, while a handler runs or the peer takes no answers, in
#: bytes. A smaller message limit lowers it.
MAX_BACKLOG: Final = 64 * 1024

#: The default of `StreamProtocol.max_unsent`, in bytes; a larger message limit raises it.
LEAST_MAX_UNSENT: Final = 16 * 1024 * 1024

#: How often a connection that is to be drained is looked at while the kernel has bytes for it, in
#: seconds.
_DRAIN_INTERVAL: Final = 0.05

#: A read of this many bytes filled Twisted's smallest receive buffer, so more was probably there.
_FULL_READ: Final = 64 * 1024


class Decoder(typing.Protocol):
    """What a wire format offers here."""

    delivered: int
    max_payload: int
    stored: bytes | bytearray

    @property
    def buffered(self) -> int: ...
    def feed(self, data: bytes) -> None: ...
    def stop_before(self, word: bytes, beginning: bytes = ...) -> None: ...
    def stops_here(self) -> bool: ...


@implementer(IHalfCloseableProtocol)
class StreamProtocol(Protocol):
    """
    One connection, under any stream endpoint of Twisted, client or server.

    Subclasses give a wire format. The class attributes are limits, to be set on a subclass or an
    instance before it is connected.

    :ivar peer: the other end, for messages to people.
    """

    #: Largest message accepted, in bytes; None for the default of the format.
    max_payload: int | None = None
    #: Bytes written and not with the kernel at which no more messages are handled.
    high_water: ClassVar[int] = HIGH_WATER
    #: Limit, in bytes, for written bytes that are not yet with the kernel; above `high_water`. At
    #: this limit a further message that is sent outside a handler aborts the connection. None for
    #: the larger of 16 MiB and `max_payload`.
    max_unsent: int | None = None
    #: Seconds that `close` waits for the peer before it aborts.
    close_timeout: float = DEFAULT_CLOSE_TIMEOUT
    #: Whether messages have a count in front, which a handshake could be taken for.
    is_counted: ClassVar[bool] = False
    #: How this connection becomes secure in its middle; None where it does not.
    upgrade: UpgradeToSsl | None = None
    #: Who counts and watches this connection; set by a factory, otherwise it is on its own.
    group: ConnectionRegistry | None = None

    active_tick = 0

    _log = TextLogger()
    _transport: Any = None
    _ordered: ApplicationTransport | None = None
    _stream: Connection | None = None
    _upgrading: Securing | None = None
    _is_announced = False
    _decoder: Any
    _handler: Deferred[Any] | None = None
    _is_cancelled = False
    _is_delivering = False
    _early = b""
    _is_full = False
    _is_stalled = False
    _is_draining = False
    # While it drains: the next check whether a message is left to be answered.
    _looking: IDelayedCall | None = None
    # While it drains: whether a handshake was in progress, after which a message may follow.
    _awaits_first_message = False

    # Overridden by applications.

    def connection_made(self) -> None:
        """The connection stands; called once, before any message."""

    def connection_lost(self, error: SocketError | None) -> None:
        """
        The connection is gone; called once, after the last message.

        :param error: why, or None where both ends closed it in order. A handler that still runs
            is cancelled right after this.
        """

    def connection_secured(self) -> None:
        """
        The connection is encrypted from here on, and its peer accepted.

        Not called with TLS from the first byte, where `connection_made` comes only then.

        What was learned before (a name, a login, a choice) was told in plaintext and may be
        anybody's: drop it here.
        """

    def writing_paused(self) -> None:
        """
        The peer does not take what is sent: `high_water` is reached. Called once each time.

        Where answers are concerned, the peer is not read from meanwhile.
        """

    def writing_resumed(self) -> None:
        """
        What had piled up is with the kernel.

        Called once after each `writing_paused`, unless the connection is closed or lost before.
        """

    # Called by applications.

    @property
    def transport(self) -> Any:
        """
        Twisted's transport; what is done to it comes after all that was sent before.

        ``loseConnection`` is `close`, and ``abortConnection`` is `abort`: no further message is
        handled. The same object stays usable after an upgrade.

        ``startTLS`` aborts the connection where plaintext of the peer is left over, which would be
        taken for what comes after (STARTTLS injection).
        """
        if self._ordered is None and self._transport is not None:
            self._ordered = ApplicationTransport(
                self._transport,
                send=self._send_written,
                prepare_write=self._prepare_write,
                close=self._close_transport,
                abort=self._abort_transport,
                is_ending=lambda: self._stream is not None and not self._stream.is_open,
                may_start_tls=self._has_nothing_left_over,
            )
        return self._ordered

    @transport.setter
    def transport(self, transport: Any) -> None:
        self._transport = transport
        self._ordered = None

    @property
    def peer(self) -> str:
        """The other end's address, as ``host:port``, ``[host]:port`` or a path."""
        if self._transport is None:
            raise LocalProtocolError("this protocol is not connected yet")
        return describe_peer(self._transport)

    @property
    def is_secure(self) -> bool:
        """Whether what comes and goes now is encrypted, and the peer was accepted."""
        return self._stream is not None and self._stream.is_secure

    @property
    def peer_certificate(self) -> Certificate | None:
        """With which the peer identified itself in an upgrade, accepted; None where it did not."""
        return None if self._stream is None else self._stream.peer_certificate

    def upgrade_to_ssl(self, settings: ClientUpgrade) -> Deferred[None]:
        """
        Put TLS on this connection, as its client.

        What is written from here on waits, and is sent encrypted. After a failure the connection is
        gone: it never goes on in plaintext.

        :returns: fires after `connection_secured`, when the server is accepted. It fails with
            `RemoteProtocolError` when the server did not grant TLS, or sent plaintext that nobody
            has handled yet; with `twsock.tls.CertificateError` when it was not accepted; with
            status ``CONNECTION_TIMED_OUT`` at the deadline. With `LocalProtocolError`, and nothing
            else happens, when the connection is secure already or being upgraded. Cancelling aborts
            the connection.
        """
        stream = self._connected_stream()
        if not stream.is_open:
            return fail(ClosedError("cannot upgrade: this end of the connection is closed"))
        if self._upgrading is not None or stream.carries_tls:
            return fail(LocalProtocolError("cannot upgrade: it was done or begun already"))
        try:
            upgrading = ClientUpgrading(settings, self)
        except SocketError as error:
            return fail(error)
        self._upgrading = upgrading
        return upgrading.begin(stream)

    @property
    def clock(self) -> IReactorTime:
        """What measures this connection's timeouts: the reactor, or a clock in a test."""
        if self.group is None:
            raise LocalProtocolError("this protocol is not connected yet")
        return self.group.clock

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent: the connection was made, and neither closed nor lost."""
        return self._stream is not None and self._stream.is_open

    @property
    def unsent(self) -> int:
        """
        How many bytes were written and are not yet with the kernel.

        Under TLS this includes bytes that wait before encryption and bytes that wait after it. On a
        transport without a file descriptor, such as one in memory, only the bytes that were written
        while its buffer was full are counted. 0 while not connected.
        """
        return 0 if self._stream is None else self._stream.unsent

    @property
    def buffered(self) -> int:
        """Bytes that were received and not handled, or written and not yet with the kernel."""
        return 0 if self._stream is None else self._stream.buffered

    @property
    def is_full(self) -> bool:
        """
        Whether to wait before sending more: True from `writing_paused` to `writing_resumed`.

        A program that pushes messages without checking this reaches `max_unsent`, and then the
        connection is aborted.
        """
        return self.is_open and (self._is_full or self._connected_stream().is_full)

    def close(self) -> Deferred[None]:
        """
        Send what is written, then end the connection in order, within `close_timeout`.

        No further message is handled. Closing twice is harmless.

        :returns: fires when the connection is gone. It need not be awaited.
        """
        return self._connected_stream().close()

    def abort(self) -> Deferred[None]:
        """
        End the connection now, dropping what is queued.

        :returns: fires when the connection is gone. It need not be awaited.
        """
        return self._connected_stream().abort()

    # Called by the group.

    def end_if_idle(self) -> None:
        """Close, unless a handler runs for a peer that is still there, waiting for us."""
        stream = self._connected_stream()
        if not stream.is_open or self.group is None:
            return
        if self._handler is not None and not stream.has_peer_ended and not stream.has_hung_up:
            return
        self.group.counters.idle += 1
        self._log.info("{peer} was idle: closing", peer=self.peer)
        if self._handler is None:
            self.close()
        else:
            self.abort()  # It cancels the handler, whose answer nobody would take.

    def drain(self) -> None:
        """Answer what has arrived, then close."""
        self._is_draining = True
        self._close_drained(self._connected_stream())

    def _send_written(self) -> None:
        if self._stream is not None:
            self._stream.send()

    def _prepare_write(self) -> None:
        """Send queued bytes before a write to the transport; such a write pauses no reading."""
        self._send_written()
        if self._stream is not None:
            self._abort_slow_peer(self._stream)

    def _close_transport(self) -> None:
        if self._stream is None:  # Asked before `connectionMade` has made it.
            self._transport.loseConnection()
        else:
            self._stream.close()

    def _abort_transport(self) -> None:
        if self._stream is None:
            self._transport.abortConnection()
        else:
            self._stream.abort()

    def _has_nothing_left_over(self) -> bool:
        """Tell whether TLS may start; abort where the peer sent something in front of it."""
        stream = self._stream
        if stream is None or not self._decoder.buffered:
            return True
        self._log.warn(
            "{peer} sent {size} bytes of plaintext after the request for TLS: aborted",
            peer=self.peer,
            size=self._decoder.buffered,
        )
        stream.abort(RemoteProtocolError("plaintext after the request for TLS"))
        return False

    # Called by the upgrade.

    def pull_message(self) -> bytes | None:
        """Pull one message; None when more bytes are needed."""
        raise NotImplementedError

    def handle_message(self, message: bytes, stream: Connection) -> bool:
        """Handle one message; return whether the next may be handled."""
        raise NotImplementedError

    def send_message(self, message: bytes) -> None:
        """Send one message."""
        raise NotImplementedError

    def peek(self, count: int) -> bytes:
        """Look at what would be pulled next."""
        head: bytes = self._decoder.peek(count)
        return head

    def stop_before(self, word: bytes, beginning: bytes = b"") -> None:
        """Make `deliver_messages` stop before the message ``word``, or before ``beginning``."""
        self._decoder.stop_before(word, beginning)

    def has_stopped(self, stream: Connection) -> bool:
        """Tell whether `deliver_messages` ended for `stop_before`, and the next may be handled."""
        is_free = self._handler is None and not self._is_stalled
        if not is_free or not self._decoder.stops_here():
            return False
        return stream.room > 0 or self._may_go_on(stream)

    @property
    def has_unhandled_input(self) -> bool:
        """Whether anything was received and not pulled."""
        return bool(self._decoder.buffered or self._early)

    def take_buffered(self) -> bytes:
        """Take all that was received and not pulled."""
        early, self._early = self._early, b""
        rest: bytes = self._decoder.take_buffered()
        return rest + early

    def limit_messages(self, size: int) -> None:
        """Accept only small messages until the connection is secure."""
        self._decoder.max_payload = min(self._decoder.max_payload, size)

    def note_violation(self) -> None:
        """Count a peer that broke a rule."""
        if self.group is not None:
            self.group.counters.violations += 1

    def suspend(self) -> Any:
        """Let what is written wait; give the transport."""
        return self._connected_stream().hold()

    def resume(self, transport: Any) -> None:
        """Go on above another transport, with nothing of what came before."""
        stream = self._connected_stream()
        if self._upgrading is not None:
            stream.peer_certificate = self._upgrading.peer_certificate
        stream.rebind(transport)
        self.transport = transport
        self._decoder = self._make_decoder()
        if self._is_announced:
            self._call_hook(self.connection_secured)
        else:
            self._announce()
        if self._flush(stream):
            self.output_drained()
        if self._is_draining and self._may_deliver(stream):
            self._awaits_first_message = True
            self._close_drained(stream)

    def note_error(self, error: SocketError) -> None:
        """Know why the connection is about to end."""
        self._connected_stream().note_error(error)

    # Overridden by the wire formats.

    @classmethod
    def check_max_payload(cls, max_payload: int) -> None:
        """
        Refuse what is no limit.

        :raises ValueError: when the format has no such size.
        """
        raise NotImplementedError

    @classmethod
    def check_max_unsent(cls, max_unsent: int | None) -> None:
        """
        Check a limit for unsent bytes; None is accepted.

        :raises ValueError: when it is not above `high_water`.
        :raises TypeError: when it is not a whole number.
        """
        if max_unsent is None:
            return
        if checked_integer(max_unsent, "max_unsent") <= cls.high_water:
            raise ValueError(f"max_unsent is above {cls.high_water} bytes, not {max_unsent}")

    def _make_decoder(self) -> Decoder:
        raise NotImplementedError

    def deliver_messages(self, stream: Connection) -> None:
        """Pull and handle messages until there is none, a handler runs, or the output is full."""
        raise NotImplementedError

    def _flush(self, stream: Connection, is_answer: bool = False) -> bool:
        """Send all written bytes; return whether the output has room for more."""
        room = stream.room
        if stream.send():
            return stream.is_open
        stream.note_buffered()
        if not stream.is_open or not stream.is_full:
            return stream.is_open
        # Only answers pause the reading. Two ends that both push would otherwise wait for each
        # other for ever, and bytes that wait for a handshake need its messages to be read.
        is_answered = (is_answer and room < self.high_water) or self._handler is not None
        if is_answered and not stream.is_held:
            self._is_stalled = True
            stream.pause_reading()
        if not self._is_full:
            self._is_full = True
            self._call_hook(self.writing_paused)
        # The transport may have drained meanwhile.
        return not self._is_full and stream.is_open

    def _may_go_on(self, stream: Connection) -> bool:
        """Tell whether the next message may be handled after one that left the output no room."""
        return self._flush(stream, is_answer=True)

    def _push(self, stream: Connection, size: int) -> None:
        """Send a message of ``size`` bytes that is no answer; abort if too many are queued."""
        if not (self._is_full and self._abort_slow_peer(stream, size)):
            self._flush(stream)

    def _abort_slow_peer(self, stream: Connection, size: int = 0) -> bool:
        """Abort if too many bytes are queued, besides the last ``size``; return whether it did."""
        unsent = stream.unsent - size
        limit = self.max_unsent
        if limit is None:
            limit = max(LEAST_MAX_UNSENT, self.max_payload or 0, self.high_water + 1)
        if unsent < limit or not stream.is_open:
            return False
        self._log.warn(
            "{peer} aborted: {unsent} bytes wait to be sent to it, limit is {limit}",
            peer=self.peer,
            unsent=unsent,
            limit=limit,
        )
        if self.group is not None:
            self.group.counters.unsent_limit_aborts += 1
        stream.abort(BrokenError(f"{unsent} bytes waited to be sent, limit is {limit}"))
        return True

    def _may_deliver(self, stream: Connection) -> bool:
        """Tell whether nothing keeps the next message, if there is one, from being handled."""
        is_busy = self._handler is not None or self._is_stalled or self._is_delivering
        return stream.is_open and not is_busy

    def _call_hook(self, hook: Callable[[], None]) -> None:
        try:
            hook()
        except Exception:  # noqa: BLE001 - logged, and it ends the connection
            self._failed(Failure())

    def _go_on_after(self, handled: object, stream: Connection) -> bool:
        """Tell whether the next message may be handled, given what a handler returned."""
        if handled is not None and not self._is_finished(handled):
            return False
        return stream.room > 0 or self._may_go_on(stream)

    def _is_finished(self, handled: object) -> bool:
        """Tell whether a handler is done; if not, what follows waits for it."""
        if inspect.iscoroutine(handled):
            handled = Deferred.fromCoroutine(handled)
        if not isinstance(handled, Deferred):
            raise TypeError(f"a handler returns None, a Deferred or a coroutine, not {handled!r}")
        self._handler = handled
        # May call back at once, so the attribute comes first.
        handled.addCallbacks(self._handler_done, self._handler_failed)
        return self._handler is None

    # Called by Twisted.

    @override
    def connectionMade(self) -> None:
        group = self.group
        if group is None:
            group = self.group = ConnectionRegistry(_clock_of(self._transport))
        try:
            self._decoder = self._make_decoder()
            self.check_max_unsent(self.max_unsent)
            if self.upgrade is not None:
                self.upgrade.check_limit(self._decoder.max_payload, self.is_counted)
        except (TypeError, ValueError):
            # A limit on the class that is none. Twisted would log it and keep the connection.
            self._transport.abortConnection()
            raise
        self._stream = Connection(
            self,
            self._transport,
            group.clock,
            high_water=self.high_water,
            close_timeout=self.close_timeout,
            buffer_limit=group.buffer_limit,
        )
        is_counted = group.address_limit is not None
        group.join(self, host_of(self._transport.getPeer()) if is_counted else None)
        if self.upgrade is not None:
            upgrading = self._upgrading = Upgrade(self.upgrade, self)
            upgrading.begin(self._stream)
            if upgrading.is_implicit:
                return
        self._announce()

    def _announce(self) -> None:
        self._is_announced = True
        self._call_hook(self.connection_made)

    @override
    def dataReceived(self, data: bytes) -> None:
        stream = self._stream
        assert stream is not None and self.group is not None
        if not stream.is_open:
            # Closing reads and drops, so that the peer's unread bytes do not turn FIN into a reset.
            return
        size = len(data)
        self.group.counters.bytes_received += size
        if size >= _FULL_READ:
            stream.note_read(size)
        if self._is_delivering:
            # A transport in memory brings the answer while we send: it waits for the loop to end.
            self._early += data
            return
        self._decoder.feed(data)
        if (self._handler is None and not self._is_stalled) or self._is_asking():
            self._go_on(stream)
        else:
            self._limit_backlog(stream)
        if stream.noted or self._decoder.stored:
            stream.note_buffered()

    def readConnectionLost(self) -> None:
        """Answer what has arrived, then end: the peer sends no more."""
        self._connected_stream().peer_ended()

    def writeConnectionLost(self) -> None:
        """Do nothing: the close that sent FIN goes on by itself."""

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        stream = self._stream
        if stream is None or self.group is None:
            return
        error = stream.lost(reason)
        if self._upgrading is not None:
            self._upgrading.lost(error)
        self._stop_looking()
        self._release()
        self.group.leave(self)
        if self._is_announced:
            self._report_loss(error)
        if self._handler is not None:
            self._is_cancelled = True
            self._handler.cancel()

    def _report_loss(self, error: SocketError | None) -> None:
        try:
            self.connection_lost(error)
        except Exception:  # noqa: BLE001 - logged here; Twisted's log event would keep its frames
            self._log.failure("connection_lost of {peer} failed", peer=self.peer)

    def _release(self) -> None:
        """Drop received bytes and all references back to this protocol."""
        self._early = b""
        self._decoder.clear()
        if self._ordered is not None:
            self._ordered.release()
        self._upgrading = None

    # Called by the connection.

    @property
    def held_bytes(self) -> int:
        """Bytes that were received and not handled."""
        held: int = self._decoder.buffered
        return held

    def drop_input(self) -> None:
        """Release the received bytes: this connection holds the most, and is aborted."""
        if self.group is not None:
            self.group.counters.buffer_limit_aborts += 1
        self._decoder = self._make_decoder()

    def input_ended(self) -> None:
        """Answer what has arrived, then end: the peer sends no more."""
        stream = self._connected_stream()
        if self._may_deliver(stream):
            self._close_answered(stream)

    def fin_sent(self) -> None:
        """Do nothing: the close that sent FIN goes on by itself."""

    def output_drained(self) -> None:
        """Go on with what was left when the output was full."""
        stream = self._connected_stream()
        if stream.noted:
            stream.note_buffered()
        if not self._is_full or not stream.is_open:
            return
        was_stalled, self._is_stalled, self._is_full = self._is_stalled, False, False
        self._call_hook(self.writing_resumed)
        if was_stalled:
            self._go_on_reading(stream)

    def output_failed(self, error: BrokenError) -> None:
        """End: what the peer still sends has nobody to answer it."""
        self._connected_stream().abort(error)

    # The flow of messages.

    def _go_on_reading(self, stream: Connection) -> None:
        """Take up what had to wait while the output was full."""
        if self._may_deliver(stream):
            self._go_on(stream)
        elif stream.is_open and self._decoder.buffered < self._max_backlog:
            # A handler runs: what comes meanwhile tells at least whether the peer is still there.
            stream.resume_reading()

    def _go_on(self, stream: Connection) -> None:
        """Deliver what can be delivered, and send what it gave rise to in one piece."""
        decoder = self._decoder
        before = decoder.delivered
        self._is_delivering = True
        upgrading = self._upgrading
        try:
            if upgrading is None or not upgrading.is_watching:
                self.deliver_messages(stream)
            else:
                upgrading.deliver(stream)
        except Exception:  # noqa: BLE001 - logged, and it ends the connection
            self._failed(Failure())
        finally:
            self._is_delivering = False
        if decoder.delivered != before and self.group is not None:
            self.group.counters.messages += decoder.delivered - before
            self.active_tick = self.group.tick
        self._flush(stream, is_answer=True)
        if not stream.is_open:
            return
        if upgrading is not None and upgrading.is_due:
            upgrading.start()
            return
        if self._early:
            early, self._early = self._early, b""
            self._decoder.feed(early)
            if not self._is_stalled and self._handler is None:
                self._go_on(stream)
                return
        if self._is_stalled or self._handler is not None:
            self._limit_backlog(stream)
            return
        if not stream.is_reading:
            if stream.has_peer_ended:
                self._close_answered(stream)
                return
            stream.resume_reading()
        if self._is_draining:
            self._close_drained(stream)

    def _is_asking(self) -> bool:
        """Tell whether a handler, or whoever else, waits for what this end asked of its peer."""
        return self._upgrading is not None and self._upgrading.is_urgent

    def _limit_backlog(self, stream: Connection) -> None:
        """Let the peer wait once enough has come that cannot be handled yet."""
        if self._decoder.buffered >= self._max_backlog:
            stream.pause_reading()

    @property
    def _max_backlog(self) -> int:
        limit: int = self._decoder.max_payload
        return min(MAX_BACKLOG, limit)

    def _close_answered(self, stream: Connection) -> None:
        """The peer has ended, and has every answer: now this end ends too."""
        rest = self._decoder.buffered
        if rest:
            self._log.info(
                "{peer} ended in the middle of a message: {size} bytes dropped",
                peer=self.peer,
                size=rest,
            )
        stream.close()

    def _close_drained(self, stream: Connection) -> None:
        """Close, unless a message is under way here, or on its way in the kernel."""
        if self._decoder.buffered or not self._may_deliver(stream):
            return
        self._stop_looking()
        wait = self._time_to_drain(stream)
        if wait:
            # Without the stream: an upgrade may put another in its place.
            self._looking = self.clock.callLater(wait, self._look_again)
        else:
            stream.close_drained()

    def _time_to_drain(self, stream: Connection) -> float:
        """Return the seconds until the next check for a message; 0 to close now."""
        if self._is_shaking_hands(stream):
            self._awaits_first_message = True
            return _DRAIN_INTERVAL
        if self._awaits_first_message and not self._decoder.delivered:
            self._awaits_first_message = False
            return FIRST_MESSAGE_TIME
        # Unread bytes may be a proxy's header, which is not delivered to this protocol.
        return _DRAIN_INTERVAL if stream.has_unread_input else 0

    def _is_shaking_hands(self, stream: Connection) -> bool:
        """Return whether the peer has begun a handshake, after which a message may follow."""
        if self._upgrading is not None and self._upgrading.is_under_way:
            return True
        return stream.is_shaking_hands

    def _stop_looking(self) -> None:
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()

    def _look_again(self) -> None:
        self._looking = None
        self._close_drained(self._connected_stream())

    # How a handler ends.

    def _handler_done(self, _result: object) -> None:
        self._handler = None
        stream = self._connected_stream()
        if not self._is_delivering and not self._is_stalled and stream.is_open:
            if self.group is not None:
                self.active_tick = self.group.tick
            self._go_on(stream)
            if stream.noted:
                stream.note_buffered()

    def _handler_failed(self, failure: Failure) -> None:
        self._handler = None
        self._failed(failure)

    def _failed(self, failure: Failure) -> None:
        """Tell of an error once, to whom it concerns; end the connection."""
        stream = self._connected_stream()
        error = failure.value
        group = self.group
        assert group is not None
        # Its frames refer to this protocol and to the handled message.
        forget_frames(failure)
        if not stream.is_open:
            if failure.check(CancelledError, SocketError):
                self._log.debug(
                    "{peer} disconnected while its handler ran: {error}",
                    peer=self.peer,
                    error=error,
                )
            elif self._is_cancelled:
                self._log.warn(
                    "{peer} disconnected while its handler ran; the handler raised {error}",
                    peer=self.peer,
                    error=repr(error),
                )
            else:
                self._log.failure(
                    "handler failed after {peer} had disconnected", failure, peer=self.peer
                )
            return
        if isinstance(error, RemoteProtocolError):
            group.counters.violations += 1
            self._log.warn("{peer} aborted: {error}", peer=self.peer, error=error)
            stream.send()  # Answers to what came before the violation.
            stream.abort(error)
        else:
            group.counters.handler_errors += 1
            self._log.failure("handler failed: {peer} aborted", failure, peer=self.peer)
            stream.abort(BrokenError("the handler of this connection failed"))

    def _connected_stream(self) -> Connection:
        if self._stream is None:
            raise LocalProtocolError("this protocol is not connected yet")
        return self._stream


def _clock_of(transport: Any) -> IReactorTime:
    """Find the reactor that runs a transport, for a connection that no factory of ours made."""
    descriptor = find_descriptor(transport)
    if descriptor is not None:
        return typing.cast(IReactorTime, descriptor.reactor)
    from twisted.internet import reactor

    return typing.cast(IReactorTime, reactor)
