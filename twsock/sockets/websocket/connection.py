"""
The protocol of an awaitable WebSocket: transport → **connection** → receiver, output stream.

The base class of both roles: `twsock.sockets.websocket.connecting` has the client's handshake,
`twsock.sockets.websocket.accepting` the server's. This class pulls messages from a decoder, and
passes them to the receiver of the socket. It passes control frames and the events of the end to a
`twsock.websocket.connection.WebSocket`. Holds the received bytes that were not pulled: those of one
read, and one incomplete message.

All received messages are delivered before the end is reported, even if the application takes them
after the loss of the connection. So this object may outlive its connection, until the last message
is taken.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from typing_extensions import override

from twsock.errors import BrokenError, ClosedError, LocalProtocolError, SocketError
from twsock.log import TextLogger
from twsock.operation import fail
from twsock.sockets.stream.output import OutputStream
from twsock.sockets.waiting import lost_again, output_closed
from twsock.sockets.websocket.closed import WebSocketClosedError, lost_without_close
from twsock.sockets.websocket.output import WebSocketOutputStream
from twsock.sockets.websocket.receiving import Receiver
from twsock.stream.connection import FULL_READ, Connection, ReportsEnds
from twsock.stream.descriptor import describe_peer
from twsock.stream.listening.buffer_limit import BufferLimit
from twsock.stream.switch import Switch
from twsock.websocket.close_frame import CloseCode, WebSocketViolation, decode_close
from twsock.websocket.connection import WebSocket
from twsock.websocket.frames import Opcode
from twsock.websocket.messages import MessageDecoder, MessageEncoder

__all__ = ["WebSocketConnection", "WebSocketEvents"]

# Cached: a global lookup costs less than an enum attribute. Larger opcodes are control frames.
_LAST_DATA: Final = int(Opcode.BINARY)


class WebSocketEvents(typing.Protocol):
    """The socket above a connection: receives its events."""

    def connection_made(self, connection: Any) -> None:
        """Handle the connection: it is open, and no handshake has begun."""

    def handshake_done(self, agreement: Any) -> None:
        """Handle the end of the handshake: messages may follow."""

    def connection_closed(self, code: int, reason: str) -> None:
        """Handle the first close frame, of either end."""

    def connection_lost(self, error: SocketError | None) -> None:
        """Handle the loss of the connection."""


class WebSocketConnection(ReportsEnds):
    """
    The connection of one WebSocket, of a client or a server.

    :param clock: measures the timeouts.
    :param receiver: takes the messages.
    :param output: the sending side of the socket. This class sets its encoder and its connection.
    :param events: the socket, which receives the events, and is the first argument of handlers.
    :param close_timeout: seconds from the first close frame to the end of the connection.
    """

    close_timeout: float

    _log = TextLogger()

    _switch: Switch | None = None
    _web_socket: WebSocket | None = None
    # Between the response and the last message.
    _decoder: MessageDecoder | None = None
    _is_pulling = False
    # The messages that `pull` goes through now.
    _messages: Any = None
    _was_fed = False
    # Whether messages are dropped: this end was closed.
    _is_dropping = False
    _has_peer_ended = False
    # The error to report after the last message.
    _ending: SocketError | None = None
    _is_finished = False

    def __init__(
        self,
        clock: IReactorTime,
        receiver: Receiver,
        output: WebSocketOutputStream,
        events: WebSocketEvents,
        close_timeout: float,
    ) -> None:
        self._clock = clock
        # None once no more events are reported.
        self._events: WebSocketEvents | None = events
        self._receiver = receiver
        self._output = output
        self._frames: OutputStream = output.frames
        self.close_timeout = close_timeout

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent and are received."""
        stream, web_socket = self._stream, self._web_socket
        if stream is None or web_socket is None or self._is_dropping:
            return False
        return stream.is_open and web_socket.is_open

    # Implemented for each role.

    def _handshake_received(self, data: bytes) -> None:
        """Handle bytes that were received before the handshake was done."""
        raise NotImplementedError

    def _handshake_ended(self) -> None:
        """Handle the end of the peer's output before the handshake was done."""
        raise NotImplementedError

    def _handshake_lost(self, error: SocketError) -> None:
        """Handle the loss of the connection before the handshake was done."""

    def _make_stream(self, limit: BufferLimit | None) -> Connection:
        """Make the connection below; its bytes are counted by the limit."""
        owner: Any = self
        self._stream = Connection(owner, self.transport, self._clock, buffer_limit=limit)
        return self._stream

    # Facts.

    @property
    def stream(self) -> Connection:
        """The connection below; there is one between open and lost."""
        assert self._stream is not None
        return self._stream

    @property
    def is_secure(self) -> bool:
        """Whether the connection is encrypted, and its peer was accepted."""
        return self._stream is not None and self._stream.is_secure

    @property
    def peer(self) -> str:
        """The address of the peer, for the log."""
        transport: Any = self.transport
        return describe_peer(transport)

    def when_lost(self) -> Deferred[None]:
        """Wait until the connection is lost; fires at once if it is already."""
        return succeed(None) if self._stream is None else self._stream.when_lost()

    def forget_socket(self) -> None:
        """Report no more events: the connect failed, and the socket may be connected again."""
        self._events = None

    # The beginning.

    def _begin_messages(
        self,
        events: WebSocketEvents,
        decoder: MessageDecoder,
        encoder: MessageEncoder,
        leftover: bytes,
    ) -> None:
        """
        Prepare for messages: the handshake is done.

        :param leftover: the bytes that were received after the handshake.
        """
        self._decoder = decoder
        decoder.feed(leftover)
        self._output.use(encoder)
        self._frames.opened(self.stream)
        self._receiver.opened(self, events)

    # The end, by this end.

    def close(self, code: int, reason: str) -> Deferred[None]:
        """Send the queued messages and a close frame; return the wait for the loss."""
        stream, web_socket = self._stream, self._web_socket
        if stream is None or web_socket is None:
            return self.abort()
        if self._is_dropping or not web_socket.is_open or not stream.is_open:
            if web_socket.is_open and not stream.is_open:
                self.abort()  # A send has failed.
            return stream.when_lost()
        error = WebSocketClosedError(code, reason)
        waiting = stream.when_lost()
        self._is_dropping = True
        self._ending = error
        self._end_output(stream, error.copy)
        self._receiver.drop(error)
        web_socket.close(code, reason)
        self._report_closed(code, reason)
        return waiting

    def _end_output(self, stream: Connection, refusal: Callable[[], SocketError]) -> None:
        """Send the queued messages, which precede the close frame; refuse further ones."""
        self._frames.refuse(refusal)
        self._frames.send_waiting()
        if stream.is_flushed:
            self._frames.output_drained()

    def abort(self, error: SocketError | None = None) -> Deferred[None]:
        """
        End the connection now, without a close frame; return the wait for the loss.

        :param error: the reason; None if the application asked for it.
        """
        stream = self._stream
        self._is_dropping = True
        if self._ending is None:
            # A copy: a raised error holds frames, which refer to this object.
            self._ending = error.copy() if error else ClosedError("the WebSocket was aborted")
        self._frames.refuse(output_closed)
        waiting: Deferred[None] = succeed(None)
        if stream is not None:
            waiting = stream.when_lost()
            (self._web_socket or stream).abort(error)
        # After the abort: a receiver that drops its bytes makes the connection read on.
        self._receiver.drop(ClosedError("the WebSocket was aborted"))
        if stream is None:
            self.pull()
        return waiting

    def ping(self) -> Deferred[float]:
        """Send a ping; see `twsock.websocket.connection.WebSocket.ping`."""
        web_socket = self._web_socket
        if web_socket is not None and web_socket.is_open:
            return web_socket.ping()
        error = self._ending or LocalProtocolError("cannot ping: it is not connected")
        return fail(error.copy())

    # Called by the receiver.

    def pull(self) -> None:
        """Pull messages until the receiver is full, or more bytes are needed."""
        is_full = self._receiver.is_full and not self._is_dropping
        if self._is_pulling or is_full or self._decoder is None:
            return
        self._is_pulling = True
        try:
            is_dry = self._pull_from(self._decoder)
        except WebSocketViolation as violation:
            is_dry = True
            self._violated(violation)
        finally:
            self._is_pulling = False
            self._messages = None
        if is_dry:
            self._finish_if_ended()
        self._steer()

    def next_message(self) -> str | bytes | None:
        """
        Pull the next message during a `pull`, which continues with the message after it.

        :returns: None if no message has arrived.
        """
        messages, was_fed = self._messages, self._was_fed
        if messages is None or was_fed:
            return None
        try:
            for opcode, payload, _ in messages:
                if opcode > _LAST_DATA:
                    self._control_received(opcode, payload)
                    if self._was_fed:
                        break
                elif not self._is_dropping:
                    message: str | bytes = payload
                    return message
        except WebSocketViolation as violation:
            # `pull` finds no second error: the decoder has passed a malformed close frame.
            self._violated(violation)
        return None

    def handler_failed(self) -> None:
        """Close the WebSocket with the code 1011: a handler of the application has failed."""
        self.close(CloseCode.INTERNAL_ERROR, "")

    # Messages.

    def _pull_from(self, decoder: MessageDecoder) -> bool:
        """Pull messages; return whether all were pulled, and False if the receiver is full."""
        take = self._receiver.take
        while True:
            self._was_fed = False
            messages: Any = decoder.messages()
            self._messages = messages
            for opcode, payload, is_complete in messages:
                if opcode > _LAST_DATA:
                    self._control_received(opcode, payload)
                elif not (self._is_dropping or take(opcode, payload, is_complete)):
                    return False
                if self._was_fed:
                    break  # This loop would not see the bytes that were fed during `take`.
            else:
                return True

    def _control_received(self, opcode: Opcode, payload: bytes) -> None:
        web_socket = self._web_socket
        if opcode is Opcode.CLOSE:
            code, reason = decode_close(payload)
            if not self._is_dropping:
                self._close_received(code, reason)
        if web_socket is not None:
            web_socket.control_received(opcode, payload)

    def _close_received(self, code: int, reason: str) -> None:
        """Handle a close frame of the peer that came before one of this end."""
        self._is_dropping = True
        self._ending = error = WebSocketClosedError(code, reason)
        if self._stream is not None:
            self._end_output(self._stream, error.copy)
        self._report_closed(code, reason)

    def _report_closed(self, code: int, reason: str) -> None:
        if self._events is not None:
            self._events.connection_closed(code, reason)

    def _violated(self, violation: WebSocketViolation) -> None:
        """Close the WebSocket: the peer broke a rule."""
        if not self._is_dropping:
            self._is_dropping = True
            self._ending = error = violation.copy()
            self._log.warn("{peer} closed: {error}", peer=self.peer, error=violation)
            if self._stream is not None:
                self._end_output(self._stream, lambda: lost_again(error))
        if self._web_socket is not None:
            self._web_socket.violated(violation.code, violation.reason)

    def _steer(self) -> None:
        """Read from the connection, unless the receiver is full."""
        stream = self._stream
        if stream is None or self._has_peer_ended:
            return
        if self._is_dropping or self._receiver.may_read:
            stream.resume_reading()
        else:
            stream.pause_reading()

    def _finish_if_ended(self) -> None:
        """Report the end, after the last message."""
        if self._has_peer_ended and self._web_socket is not None:
            stream, error = self._stream, self._ending
            if stream is not None and error is not None and not self._is_dropping:
                # The peer may still read what was sent before its end was noticed.
                self._end_output(stream, lambda: lost_again(error))
            self._web_socket.peer_ended()
        if self._ending is not None and not self._is_finished:
            self._is_finished = True
            self._receiver.end(self._ending)
        self._release_if_over()

    def _release_if_over(self) -> None:
        """Drop all references back to this object, when no event follows."""
        if self._stream is None and self._is_finished:
            self._decoder = None
            self._web_socket = None
            self._events = None

    # Called by Twisted.

    @override
    def connectionMade(self) -> None:
        self._make_stream(None)
        if self._events is not None:
            self._events.connection_made(self)

    @override
    def dataReceived(self, data: bytes) -> None:
        decoder, web_socket = self._decoder, self._web_socket
        frames = self._frames
        was_held, frames.is_held = frames.is_held, True
        self.stream.counters.bytes_received += len(data)
        if decoder is None or web_socket is None:
            self._handshake_received(data)  # And messages after it.
        else:
            web_socket.has_received = True
            if len(data) >= FULL_READ:
                self.stream.note_read(len(data))
            decoder.feed(data)
            self._was_fed = True
        self.pull()
        if not was_held:
            frames.release()

    # Called by the TLS handshake.

    def begin_upgrade(self, switch: Switch) -> None:
        """Report the loss of the connection to this handshake, too."""
        self._switch = switch

    def forget_switch(self) -> None:
        """Drop the handshake, which is done."""
        self._switch = None

    def suspend(self) -> None:
        """Do nothing: nothing is written before the handshake is done."""

    def take_buffered(self) -> bytes:
        """Return no bytes: nothing is received before the handshake."""
        return b""

    def continue_above(self, engine: Any) -> None:
        """Continue above a TLS engine whose handshake is done."""
        self.transport = engine
        self.stream.rebind(engine)

    def _lose_switch(self, error: SocketError | None) -> None:
        """Report the loss of the connection to a handshake that runs."""
        switch, self._switch = self._switch, None
        if switch is not None:
            switch.lost(error)

    # Called by the WebSocket.

    def send_control(self, frame: bytes) -> None:
        """Send a control frame at once, in front of messages that wait."""
        stream = self._stream
        if stream is not None and stream.is_open:
            stream.write(frame)
            stream.send()

    def drop_messages(self) -> None:
        """Read and drop messages until the peer's close frame; this end has sent its own."""
        self.pull()

    def socket_closed(self, code: int, reason: str) -> None:
        """Do nothing: the end was reported with its close frame."""

    # Called by the connection.

    @property
    def held_bytes(self) -> int:
        """Bytes that were received and not taken, or written and not passed to the connection."""
        received = 0 if self._decoder is None else self._decoder.buffered
        return received + self._receiver.held_bytes + self._frames.unsent

    def drop_input(self) -> None:
        """Drop the received bytes."""
        if self._decoder is not None:
            self._decoder.clear()

    def output_drained(self) -> None:
        """Send a pong that waited for room, and complete the writes that had begun."""
        if self._web_socket is not None:
            self._web_socket.drained()
        self._frames.output_drained()

    def output_failed(self, error: BrokenError) -> None:
        """Fail all pending writes; messages that were received can still be taken."""
        self._frames.lost(error)

    def input_ended(self) -> None:
        """Deliver the messages that were received, then end: the peer has ended its output."""
        self._has_peer_ended = True
        if self._decoder is None:
            self._handshake_ended()
            return
        if self._ending is None:
            message = "the peer ended the connection without a close frame"
            self._ending = lost_without_close(None, message)
        self.pull()

    def connection_ended(self, error: SocketError | None, _reason: Failure) -> None:
        """Report the loss; messages that were received can still be taken."""
        events, web_socket = self._events, self._web_socket
        self._stream = None
        self._lose_switch(error)
        loss = lost_without_close(error, "the connection was lost without a close frame")
        if self._ending is None:
            self._ending = loss
        if web_socket is not None:
            web_socket.lost()
        if events is not None:
            events.connection_lost(error)
        if self._is_dropping and error is None:
            self._frames.output_drained()
        self._frames.lost(self._ending)
        if self._decoder is None:  # The handshake was not done.
            self._handshake_lost(error or loss)
            self._is_finished = True
            self._release_if_over()
        else:
            self.pull()
