"""
One connection as a protocol of Twisted: transport → **connection protocol** → application.

The base of `twsock.stream.protocol.StreamProtocol`, which adds the messages. Twisted reports the
events of a transport to this class. It makes a `twsock.stream.connection.Connection` for the
transport, and joins a `twsock.stream.registry.ConnectionRegistry`. It holds no bytes.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any, ClassVar, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from twsock._integers import checked_integer
from twsock.errors import BrokenError, LocalProtocolError, RemoteProtocolError, SocketError
from twsock.ip.addresses import host_of
from twsock.log import TextLogger
from twsock.stream.application_transport import ApplicationTransport
from twsock.stream.closing import State
from twsock.stream.connection import Connection
from twsock.stream.descriptor import describe_peer, find_descriptor
from twsock.stream.ending import DEFAULT_CLOSE_TIMEOUT
from twsock.stream.handler_errors import end_with_failure
from twsock.stream.moving_record import MovingRecord
from twsock.stream.registry import ConnectionRegistry
from twsock.stream.transport import HIGH_WATER
from twsock.tls.certificates import Certificate

__all__ = ["LEAST_MAX_UNSENT", "ConnectionProtocol"]

#: The default of `ConnectionProtocol.max_unsent`, in bytes; a larger message limit raises it.
LEAST_MAX_UNSENT: Final = 16 * 1024 * 1024


@implementer(IHalfCloseableProtocol)
class ConnectionProtocol(Protocol):
    """
    One connection, under any stream endpoint of Twisted, client or server.

    The class attributes are limits, to be set on a subclass or an instance before it is connected.

    :ivar peer: the other end, for messages to people.
    """

    #: No more messages are handled while this many written bytes, or more, are not yet with the
    #: kernel.
    high_water: ClassVar[int] = HIGH_WATER
    #: Limit, in bytes, for written bytes that are not yet with the kernel; above `high_water`. At
    #: this limit a further message that is sent outside a handler aborts the connection. None for
    #: the larger of 16 MiB and the limit of a message.
    max_unsent: int | None = None
    #: Largest message accepted, in bytes; None for the default of the format.
    max_payload: int | None = None
    #: How long `close` waits for the peer, in seconds; 0 or more.
    close_timeout: float = DEFAULT_CLOSE_TIMEOUT
    #: The registry of the server, set by its factory; a connection without a factory makes its own.
    group: ConnectionRegistry | None = None

    active_tick = 0

    _log = TextLogger()
    _transport: Any = None
    _ordered: ApplicationTransport | None = None
    _stream: Connection | None = None
    # Whether `connection_made` has not been called yet: a handshake comes first.
    _is_unannounced = False
    # Whether a write has reported a full output, which has not drained since.
    _is_full = False
    # Calls `writing_resumed` if no event of the transport does; None while it is not needed.
    _room_report: IDelayedCall | None = None
    # Whether the running handler was cancelled because the connection was lost.
    _is_cancelled = False
    # Bytes of the connection's earlier owner, which are sent first.
    _unsent_before = b""
    # What the earlier owner knew, until the connection continues here.
    _moved: MovingRecord | None = None

    # Overridden by applications.

    def connection_made(self) -> None:
        """The connection is open; called once, before any message."""

    def connection_resumed(self) -> None:
        """
        The connection was moved here; called once, instead of `connection_made`.

        Only a connection that `StreamServerFactory.resume` continues with a state is resumed, after
        ``import_state``. The earlier owner has sent what `connection_made` sends.
        """

    def connection_lost(self, error: SocketError | None) -> None:
        """
        The connection is gone; called once, after the last message.

        :param error: the reason; None if the connection ended in order, or was detached. A handler
            that still runs is cancelled right after this call.
        """

    def writing_paused(self) -> None:
        """
        The output is full: ``high_water`` bytes or more are not yet with the kernel.

        Called once each time the output becomes full. If the bytes are answers, reading pauses
        until they have been sent.
        """

    def writing_resumed(self) -> None:
        """
        The output has room again.

        Called once after each `writing_paused`, when the kernel has all bytes, and after `is_full`
        was True within a handler; not called once the connection is closed or lost.
        """

    # Called by applications.

    @property
    def transport(self) -> Any:
        """
        Twisted's transport. Its methods act after all messages that were sent before.

        ``loseConnection`` is `close`, and ``abortConnection`` is `abort`: no further message is
        handled. The same object stays usable after an upgrade.

        ``startTLS`` aborts the connection if the peer has sent plaintext that was not handled:
        such bytes could pass as encrypted data (STARTTLS injection).
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
            if self._stream is not None and self._stream.is_gone:
                self._ordered.release()  # It refers back to this protocol.
        return self._ordered

    @transport.setter
    def transport(self, transport: Any) -> None:
        self._transport = transport
        if self._ordered is not None:
            self._ordered = None

    @property
    def peer(self) -> str:
        """The other end's address, as ``host:port``, ``[host]:port`` or a path."""
        if self._transport is None:
            raise LocalProtocolError("this protocol is not connected yet")
        return describe_peer(self._transport)

    @property
    def is_secure(self) -> bool:
        """Whether the connection is encrypted now, and the peer was accepted."""
        return self._stream is not None and self._stream.is_secure

    @property
    def peer_certificate(self) -> Certificate | None:
        """The verified certificate of the peer, from the upgrade; None without one."""
        return None if self._stream is None else self._stream.peer_certificate

    @property
    def clock(self) -> IReactorTime:
        """Measures this connection's timeouts: the reactor, or a clock in a test."""
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
    def is_full(self) -> bool:
        """
        Whether to wait before sending more, until `writing_resumed` is called.

        Within a handler, its own answers count. They are sent after the handler; if the kernel
        takes them, `writing_resumed` is called in the next turn of the reactor.

        A program that pushes messages without checking this reaches ``max_unsent``, and then the
        connection is aborted.
        """
        if not self.is_open:
            return False
        if not self._is_full:
            stream = self._connected_stream()
            if not stream.is_full:
                return False
            if self._room_report is None:
                self._room_report = stream.clock.callLater(0, self._report_room)
        return True

    @property
    def buffered(self) -> int:
        """Bytes that were received and not handled, or written and not yet with the kernel."""
        return 0 if self._stream is None else self._stream.buffered

    def close(self) -> Deferred[None]:
        """
        Send all written bytes, then end the connection in order, within `close_timeout`.

        No further message is handled. During an upgrade the connection is aborted instead. Closing
        twice is harmless.

        :returns: fires when the connection is lost; at once when it is already. It need not be
            awaited. Cancelling stops the wait and not the close.
        :raises LocalProtocolError: at once, before the protocol is connected.
        """
        return self._connected_stream().close()

    def abort(self) -> Deferred[None]:
        """
        End the connection now: drop the queued bytes, and send a reset if there is a socket.

        :returns: fires when the connection is lost; at once when it is already. It need not be
            awaited. Cancelling stops the wait and not the abort.
        :raises LocalProtocolError: at once, before the protocol is connected.
        """
        return self._connected_stream().abort()

    # Called by the transport of the application.

    def _send_written(self) -> None:
        if self._stream is not None:
            self._stream.send()

    def _prepare_write(self) -> None:
        """Send queued bytes before a write to the transport; such a write pauses no reading."""
        self._send_written()
        if self._stream is not None:
            self._limit_unsent(self._stream)

    def _close_transport(self) -> None:
        if self._stream is None:  # Called before `connectionMade`.
            self._transport.loseConnection()
        else:
            self._stream.close()

    def _abort_transport(self) -> None:
        if self._stream is None:
            self._transport.abortConnection()
        else:
            self._stream.abort()

    def _has_nothing_left_over(self) -> bool:
        """Return whether TLS may start; abort if the peer sent plaintext that was not handled."""
        stream = self._stream
        if stream is None or not self.held_bytes:
            return True
        self._log.warn(
            "{peer} sent {size} bytes of plaintext after the request for TLS: aborted",
            peer=self.peer,
            size=self.held_bytes,
        )
        stream.abort(RemoteProtocolError("plaintext after the request for TLS"))
        return False

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

    def _limit_unsent(self, stream: Connection, size: int = 0) -> bool:
        """Abort if too many bytes are queued, besides the last ``size``; return whether it did."""
        unsent = stream.unsent - size
        limit = self.max_unsent
        if limit is None:
            limit = max(LEAST_MAX_UNSENT, self.max_payload or 0, self.high_water + 1)
        if unsent < limit or not stream.is_open:
            return False
        self._log.warn(
            "{peer} aborted: {unsent} bytes wait to be sent, limit is {limit}",
            peer=self.peer,
            unsent=unsent,
            limit=limit,
        )
        stream.counters.unsent_limit_aborts += 1
        stream.abort(BrokenError(f"{unsent} bytes waited to be sent, limit is {limit}"))
        return True

    # Called by Twisted.

    def _connect(self, group: ConnectionRegistry) -> Connection:
        """Make the connection, and add it to a registry."""
        stream = self._stream = Connection(
            self,
            self._transport,
            group.clock,
            high_water=self.high_water,
            buffer_limit=group.buffer_limit,
        )
        moved = self._moved
        counters = group.counters_of(stream.port, "" if moved is None else moved.endpoint)
        is_counted = group.address_limit is not None
        host = host_of(self._transport.getPeer()) if is_counted else None
        group.join(self, host, counters, moved)
        if self._unsent_before:
            stream.write(self._unsent_before)
            self._unsent_before = b""
            stream.send()
        # From here on: the earlier owner has counted the bytes above.
        stream.counters = counters
        return stream

    def _join_group(self) -> ConnectionRegistry:
        """Return the registry of the factory; without a factory, make one for this connection."""
        if self.group is None:
            self.group = ConnectionRegistry(_clock_of(self._transport))
        return self.group

    def _announce(self) -> None:
        if self._is_unannounced:
            self._is_unannounced = False
        self._call_hook(self.connection_made if self._moved is None else self.connection_resumed)

    def readConnectionLost(self) -> None:
        """Report the end of the peer's output to the connection."""
        (self._stream or self._connected_stream()).peer_ended()

    def writeConnectionLost(self) -> None:
        """Report to the connection that the kernel has FIN."""
        self._connected_stream().fin_sent()

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._stream is not None:
            self._stream.lost(reason)

    def _report_loss(self, error: SocketError | None) -> None:
        try:
            self.connection_lost(error)
        except Exception:  # noqa: BLE001 - logged here; Twisted's log event would keep its frames
            self._log.failure("connection_lost of {peer} failed", peer=self.peer)

    def _release(self, error: SocketError | None) -> None:
        """Drop received bytes and references back to this protocol: the connection is lost."""
        raise NotImplementedError

    # Called by the registry.

    def end_if_idle(self) -> None:
        """End the connection, unless it is busy: the idle timeout has passed."""
        raise NotImplementedError

    def drain(self) -> None:
        """Answer all received messages, then close."""
        raise NotImplementedError

    def close_drained(self) -> None:
        """Close: the server ends, and every received message was answered."""
        self._connected_stream().close_drained()

    # Called by the connection.

    @property
    def held_bytes(self) -> int:
        """Bytes that were received and not handled."""
        raise NotImplementedError

    def drop_input(self) -> None:
        """Release the received bytes: this connection holds the most, and is aborted."""
        raise NotImplementedError

    def connection_ended(self, error: SocketError | None, _reason: Failure) -> None:
        """Release everything, and report the loss."""
        self._release(error)
        if self._room_report is not None:
            self._stop_room_report()
        if self._ordered is not None:
            self._ordered.release()
        stream = self._connected_stream()
        if self._is_full:
            self._is_full = False
            stream.counters.output_emptied(stream.clock.seconds())
        if self.group is not None:
            self.group.leave(self, stream.counters)
        if not self._is_unannounced:
            self._report_loss(error)

    def input_ended(self) -> None:
        """Handle the end of the peer's output."""
        raise NotImplementedError

    def output_drained(self) -> None:
        """Handle the messages that waited while the output was full."""
        raise NotImplementedError

    def output_failed(self, error: BrokenError) -> None:
        """Abort: messages of the peer could not be answered."""
        self._connected_stream().abort(error)

    # Errors.

    def note_violation(self) -> None:
        """Count a peer that broke a rule."""
        self._connected_stream().counters.violations += 1

    def note_upgrade(self, result: SocketError | float) -> None:
        """Count an upgrade that is done, with the seconds of its handshake, or its error."""
        counters = self._connected_stream().counters
        if isinstance(result, SocketError):
            counters.upgrade_failed(result.status.documented_name)
        else:
            counters.upgraded(result)

    def _call_hook(self, hook: Callable[[], None]) -> None:
        """Call a method of the application; after the loss was reported, do nothing."""
        stream = self._stream or self._connected_stream()
        if not stream.is_open and stream.state is State.LOST:
            return  # A transport in memory may lose the connection within a send.
        try:
            hook()
        except Exception:  # noqa: BLE001 - logged, and it ends the connection
            self._failed(Failure())

    def _report_room(self) -> None:
        """Call `writing_resumed`, if the kernel took at once what filled the output."""
        self._room_report = None
        if not self.is_open or self._is_full:
            return
        stream = self._connected_stream()
        if stream.is_full:
            self._is_full = True  # The transport will report its room.
            stream.counters.output_filled(stream.clock.seconds())
            self._call_hook(self.writing_paused)
        else:
            self._report_resumed()

    def _report_resumed(self) -> None:
        """Call `writing_resumed`, unless a WebSocket has begun to close and sends no more."""
        if self.is_open:
            self._call_hook(self.writing_resumed)

    def _stop_room_report(self) -> None:
        report, self._room_report = self._room_report, None
        if report is not None:
            report.cancel()

    def _failed(self, failure: Failure) -> None:
        """Log an error once, at the level of its cause; abort the connection."""
        end_with_failure(
            failure, self._connected_stream(), self.peer, is_cancelled=self._is_cancelled
        )

    def _connected_stream(self) -> Connection:
        if self._stream is None:
            raise LocalProtocolError("this protocol is not connected yet")
        return self._stream


def _clock_of(transport: Any) -> IReactorTime:
    """Return the reactor of a transport, for a connection without a `StreamServerFactory`."""
    descriptor = find_descriptor(transport)
    if descriptor is not None:
        return typing.cast(IReactorTime, descriptor.reactor)
    from twisted.internet import reactor

    return typing.cast(IReactorTime, reactor)
