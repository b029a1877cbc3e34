"""
The protocol class for WebSockets on servers: transport → **protocol** → handler → connection.

A `WebSocketProtocol` is a `twsock.protocols.StreamProtocol`, so handlers, back-pressure and limits
are those of frames and lines. Its base class in `twsock.websocket.accepting` answers the request.
Then this class pulls the messages from a decoder of `twsock.websocket.messages` and calls the
handlers. It passes control frames and the events of the end to a
`twsock.websocket.connection.WebSocket`. The decoder holds the bytes that were not handled.
"""

from __future__ import annotations

import typing
from collections.abc import Hashable, Iterator
from http import HTTPStatus
from typing import Any, ClassVar, Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from typing_extensions import override

from twsock.errors import ClosedError, LocalProtocolError, RemoteProtocolError, SocketError
from twsock.log import forget_frames
from twsock.stream.connection import Connection
from twsock.stream.protocol import Handled
from twsock.websocket.accepting import AcceptingProtocol
from twsock.websocket.close_frame import CloseCode, WebSocketViolation
from twsock.websocket.connection import WebSocket
from twsock.websocket.frames import MAX_SHORT, Opcode, encode_header
from twsock.websocket.handshake import Acceptance, refuse
from twsock.websocket.messages import MessageDecoder, MessageEncoder
from twsock.wire.byte_queue import Buffer, as_bytes

__all__ = ["DEFAULT_MAX_MESSAGE_SIZE", "WebSocketProtocol"]

#: Default of ``max_payload`` on servers, in bytes.
DEFAULT_MAX_MESSAGE_SIZE: Final = 1024 * 1024

# Cached: a global lookup costs less than an enum attribute.
_TEXT: Final = Opcode.TEXT
_BINARY: Final = Opcode.BINARY

#: The largest integer of 30 bits: CPython compares these faster than larger ones. The encoder sends
#: larger messages, with the same result.
_UNLIMITED: Final = (1 << 30) - 1

# Headers of messages up to `MAX_SHORT` bytes, whose length is one byte.
_TEXT_HEADERS: Final = tuple(encode_header(_TEXT, size) for size in range(MAX_SHORT + 1))
_BINARY_HEADERS: Final = tuple(encode_header(_BINARY, size) for size in range(MAX_SHORT + 1))


class WebSocketProtocol(AcceptingProtocol):
    """
    The server's side of one WebSocket (:rfc:`6455`).

    Override `text_received` and `binary_received`, and answer with `send_text` and `send_binary`.
    Override `accept` to judge the request::

        class Shout(WebSocketProtocol):
            def text_received(self, text: str) -> None:
                self.send_text(text.upper())

    Before the handshake is done, only `accept` is called. Then `connection_made` is called. A
    message above ``max_payload`` (default 1 MiB) closes the WebSocket with the code 1009.
    """

    _is_partial: ClassVar[bool] = False
    # Messages up to this size, in bytes, are sent as one frame without compression.
    _max_plain = _UNLIMITED
    # The same between two messages that are sent in pieces.
    _max_plain_between = _UNLIMITED
    _encoder: MessageEncoder

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        cls._is_partial = cls.fragment_received is not WebSocketProtocol.fragment_received

    # Overridden by applications.

    def text_received(self, text: str) -> Handled:
        """
        Handle one text message.

        :returns: None when the message is handled. Otherwise a coroutine or Deferred, and the next
            message is handled after that has ended. It is cancelled when the connection is lost,
            but not when the peer closes the WebSocket. So a long operation needs its own timeout.
        :raises WebSocketViolation: when the peer broke a rule of the application. The WebSocket
            closes with the code of the error, and one line is logged. Any other exception is logged
            with its traceback, and closes the WebSocket with the code 1011.
        """
        raise WebSocketViolation(CloseCode.UNSUPPORTED_DATA, "text messages are not accepted")

    def binary_received(self, data: bytes) -> Handled:
        """Handle one binary message; see `text_received`."""
        raise WebSocketViolation(CloseCode.UNSUPPORTED_DATA, "binary messages are not accepted")

    def fragment_received(self, data: bytes, is_text: bool, is_complete: bool) -> Handled:
        """
        Handle a piece of a message as it arrives.

        If a class overrides this method, `text_received` and `binary_received` are not called.
        Messages are not collected in memory, except compressed ones: each of these is one piece.
        ``max_payload`` still limits a whole message.

        :param data: the bytes of the piece; may be empty. Text is UTF-8, which was checked; a piece
            may end within a character.
        :param is_complete: whether this piece ends its message.
        :returns: as for `text_received`.
        """
        raise NotImplementedError

    def closed(self, code: int, reason: str) -> None:
        """
        Handle the end of the WebSocket.

        Called once, after the last message and before `connection_lost`, and only if the request
        was accepted.

        :param code: the code of the first close frame, of either end. 1005 if that frame had no
            code. 1006 if the connection was lost without a close frame. A `CloseCode` if the code
            has a name there, else a plain ``int``.
        :param reason: the text of the same close frame. Do not trust it: the peer may have sent it.
        """

    # Called by applications.

    @property
    @override
    def is_open(self) -> bool:
        """Whether messages can be sent: the request was accepted, and neither end has closed."""
        return self._stream is not None and self._stream.is_open and self._web_socket.is_open

    def send_text(self, text: str) -> None:
        """
        Send a text message: within a handler together with all other answers, otherwise at once.

        A call outside a handler that finds ``max_unsent`` bytes queued aborts the connection. That
        call raises no error; later calls raise `BrokenError`.

        :raises ClosedError: when either end has closed the WebSocket.
        :raises BrokenError: when the connection was lost without a close frame.
        :raises LocalProtocolError: before the handshake is done.
        :raises UnicodeEncodeError: when the text has no form in UTF-8.
        """
        stream = self._stream or self._connected_stream()
        data = text.encode()
        size = len(data)
        if size > self._max_plain or not self._web_socket.is_open:
            self._send(stream, _TEXT, text)
            return
        header = _TEXT_HEADERS[size] if size <= MAX_SHORT else encode_header(_TEXT, size)
        frame = header + data
        stream.write(frame)
        stream.counters.messages_sent += 1
        if not self._is_delivering:
            self._push(stream, len(frame))

    def send_binary(self, data: Buffer) -> None:
        """
        Send a binary message; see `send_text`.

        :param data: the message; a mutable buffer is copied. The items of a ``memoryview`` may have
            several bytes each: all bytes are sent.
        """
        stream = self._stream or self._connected_stream()
        if data.__class__ is not bytes:
            data = as_bytes(data)
        size = len(data)
        if size > self._max_plain or not self._web_socket.is_open:
            self._send(stream, _BINARY, data)
            return
        # The same as `_send`, with fewer calls.
        header = _BINARY_HEADERS[size] if size <= MAX_SHORT else encode_header(_BINARY, size)
        frame = header + data
        stream.write(frame)
        stream.counters.messages_sent += 1
        if not self._is_delivering:
            self._push(stream, len(frame))

    def send_fragment(self, data: Buffer, is_text: bool, is_complete: bool) -> None:
        """
        Send a piece of a message; see `send_text`.

        Until the last piece is sent, no other message can be sent. The message is not compressed.

        :param data: the bytes of the piece; may be empty. Text is UTF-8; a piece may end within a
            character.
        :param is_text: whether the message is a text; the same for all pieces of a message.
        :param is_complete: whether this piece ends the message.
        :raises LocalProtocolError: also when a message of the other type is unfinished, or a text
            is not UTF-8.
        """
        stream = self._stream or self._connected_stream()
        if not self._web_socket.is_open:
            self._refuse_to_send(stream)
        if not self._encoder.has_unfinished_message:
            self._max_plain_between = self._max_plain
        opcode = _TEXT if is_text else _BINARY
        frame = self._encoder.encode_fragment(opcode, as_bytes(data), is_final=is_complete)
        # Until the message ends, all other messages go to the encoder, which refuses them.
        self._max_plain = self._max_plain_between if is_complete else -1
        self._write(stream, frame)
        stream.counters.messages_sent += is_complete

    def ping(self) -> Deferred[float]:
        """
        Send a ping.

        :returns: fires with the seconds until the pong arrived. It fails with `LocalProtocolError`
            before the handshake is done, with `ClosedError` when the WebSocket is not open, or
            closes before the pong, and with `BrokenError` when the connection is lost without a
            close frame. Cancelling stops the wait.
        :raises LocalProtocolError: at once, before the protocol is connected.
        """
        self._connected_stream()
        return self._web_socket.ping()

    @override
    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> Deferred[None]:
        """
        Send all written messages and a close frame, then end the connection in order.

        No further message is handled. The peer has ``close_timeout`` seconds to answer with its
        close frame and to end the connection; nothing that the peer sends extends this time.
        Closing twice is harmless: only the first call sends a close frame. Before the handshake is
        done, the connection ends without a close frame.

        :param code: 1000 to 1003, 1007 to 1014 or 3000 to 4999; 1005 for a close frame without a
            code.
        :param reason: at most 123 bytes in UTF-8; empty with code 1005.
        :returns: fires when the connection is lost; at once if it was lost before. The Deferred
            need not be awaited. Cancelling it does not cancel the close.
        :raises ValueError: at once, when the code or the reason cannot be sent.
        :raises LocalProtocolError: at once, before the protocol is connected.
        """
        stream = self._connected_stream()
        self._web_socket.close(code, reason)
        return stream.when_lost()

    @override
    def abort(self) -> Deferred[None]:
        """
        End the connection now: without a close frame, and with a reset if there is a socket.

        :returns: fires when the connection is lost; at once if it was lost before. The Deferred
            need not be awaited. Cancelling it does not cancel the abort.
        :raises LocalProtocolError: at once, before the protocol is connected.
        """
        stream = self._connected_stream()
        self._web_socket.abort()
        return stream.when_lost()

    def _send(self, stream: Connection, opcode: Opcode, message: str | bytes) -> None:
        """Send a message that may need compression or several frames."""
        if not self._web_socket.is_open:
            self._refuse_to_send(stream)
        self._write(stream, self._encoder.encode(opcode, message))
        stream.counters.messages_sent += 1

    def _write(self, stream: Connection, frame: bytes) -> None:
        if self._is_delivering:
            stream.write(frame)
        elif self._is_full:
            stream.write(frame)
            self._push(stream, len(frame))
        elif not stream.send_now(frame):  # The common case, with two calls fewer.
            self._hold_back(stream, stream.room)

    def _refuse_to_send(self, stream: Connection) -> typing.NoReturn:
        if self._web_socket.is_opening:
            raise LocalProtocolError("cannot send: the handshake is not done")
        code = self._web_socket.code
        if code == CloseCode.ABNORMAL_CLOSURE:
            stream.write(b"")  # Raises the reason why the connection ended.
        raise ClosedError(f"cannot send: the WebSocket is closed, code {code:d}")

    # Called by the broadcast.

    def send_shared(self, opcode: Opcode, data: bytes, frames: dict[Hashable, bytes]) -> bool:
        """Send a message if the WebSocket is open; see `MessageEncoder.encode_shared`."""
        stream = self._stream
        if stream is None or not (self._web_socket.is_open and stream.is_open):
            return False
        self._write(stream, self._encoder.encode_shared(opcode, data, frames))
        stream.counters.messages_sent += 1
        return stream.is_open

    # Called by the registry and the drain.

    @override
    def close_drained(self) -> None:
        """Close: the server ends, and every received message was answered."""
        self.close(CloseCode.GOING_AWAY, "the server ends")

    # Called by Twisted.

    @override
    def dataReceived(self, data: bytes) -> None:
        self._web_socket.has_received = True
        super().dataReceived(data)
        if self._decoder.incomplete is not None and self._stream is not None:
            self._stream.note_buffered()  # The decoder has pulled a part of a message.
        if (self._handler is not None or self._is_stalled) and self._web_socket.is_closing:
            self.drop_messages()  # The close waits for no handler, and for no room in the output.

    # The beginning.

    @override
    @classmethod
    def check_max_payload(cls, max_payload: int) -> None:
        MessageDecoder(is_server=True, max_message_size=max_payload)

    @property
    def _max_message_size(self) -> int:
        return DEFAULT_MAX_MESSAGE_SIZE if self.max_payload is None else self.max_payload

    @override
    def _make_decoder(self) -> Any:
        self.check_max_payload(self._max_message_size)
        return super()._make_decoder()

    @override
    def _open(self, acceptance: Acceptance, received: bytes) -> None:
        settings = self.settings
        compression = acceptance.compression
        self._decoder = MessageDecoder(
            is_server=True,
            max_message_size=self._max_message_size,
            max_fragments=settings.max_fragments,
            inflater=None if compression is None else compression.inflater(is_server=True),
            is_partial=self._is_partial,
        )
        self._decoder.feed(received)
        self._encoder = MessageEncoder(
            is_server=True,
            deflater=None if compression is None else compression.deflater(is_server=True),
            max_fragment_size=settings.max_fragment_size,
        )
        if settings.max_fragment_size is not None:
            self._max_plain = min(self._max_plain, settings.max_fragment_size)
        if compression is not None:
            self._max_plain = min(self._max_plain, compression.settings.min_size - 1)
        self._web_socket.accept(
            self._encoder, settings.ping_interval, settings.ping_timeout, self.ping_schedule
        )

    # The flow of messages.

    @override
    def deliver_messages(self, stream: Connection) -> None:
        web_socket = self._web_socket
        if self._http is not None:
            request = self._decoder
            self._judge(self._http)
            if web_socket.is_open:
                self._deliver(stream, web_socket)
                request.delivered = self._decoder.delivered  # The caller counts these.
        elif web_socket.is_open:
            self._deliver(stream, web_socket)
        if not web_socket.is_open and web_socket.is_closing:
            self._await_close()

    def _deliver(self, stream: Connection, web_socket: WebSocket) -> None:
        """Pull and handle messages, until a handler runs or the output is full."""
        if self._is_partial:
            self._deliver_fragments(stream, web_socket)
            return
        text_received, binary_received = self.text_received, self.binary_received
        messages: Iterator[tuple[Opcode, Any, bool]] = self._decoder.messages()
        for opcode, data, _ in messages:
            if opcode is _TEXT:
                handled = text_received(data)
            elif opcode is _BINARY:
                handled = binary_received(data)
            else:
                web_socket.control_received(opcode, data)
                handled = None
            if handled is not None and not self._is_finished(handled):
                return
            if not web_socket.is_open:
                return
            if stream.room <= 0 and not self._may_go_on(stream):
                return

    def _deliver_fragments(self, stream: Connection, web_socket: WebSocket) -> None:
        """Do the same as `_deliver` with pieces of messages."""
        messages: Iterator[tuple[Opcode, Any, bool]] = self._decoder.messages()
        for opcode, data, is_complete in messages:
            if opcode is _TEXT or opcode is _BINARY:
                handled = self.fragment_received(data, opcode is _TEXT, is_complete)
                if handled is not None and not self._is_finished(handled):
                    return
            else:
                web_socket.control_received(opcode, data)
            if not web_socket.is_open:
                return
            if stream.room <= 0 and not self._may_go_on(stream):
                return

    @override
    def _may_deliver(self, stream: Connection) -> bool:
        if self._web_socket.is_closing:
            return stream.is_open and not self._is_delivering
        return super()._may_deliver(stream)

    # Called by the WebSocket.

    def send_control(self, frame: bytes) -> None:
        """Send a control frame: together with other answers, or at once."""
        self._write(self._connected_stream(), frame)

    def drop_messages(self) -> None:
        """Read on, and drop messages until the peer's close frame."""
        if self._is_delivering:
            return  # The loop continues here.
        try:
            self._await_close()
        except WebSocketViolation:
            self._failed(Failure())
        self._connected_stream().resume_reading()

    def socket_closed(self, code: int, reason: str) -> None:
        """Report the end to the application."""
        try:
            self.closed(code, reason)
        except Exception:  # noqa: BLE001 - logged here; Twisted's log event would keep its frames
            self._log.failure("closed() failed for {peer}", peer=self.peer)

    def _await_close(self) -> None:
        """Drop messages up to the peer's close frame, and handle that frame."""
        for opcode, data, _ in self._decoder.messages():
            if opcode is Opcode.CLOSE:
                self._web_socket.control_received(opcode, data)
                return

    # Called by the connection.

    @override
    def has_stopped(self, stream: Connection) -> bool:
        """Return False: no message of a WebSocket begins TLS."""
        return False

    @override
    def input_ended(self) -> None:
        """Answer all received messages, then close: the peer has ended its output."""
        if self._web_socket.is_open:
            super().input_ended()
        else:
            self._web_socket.peer_ended()

    @override
    def output_drained(self) -> None:
        """Send the pong, and handle the messages, that waited while the output was full."""
        self._web_socket.drained()
        super().output_drained()

    @override
    def _close_answered(self, stream: Connection, is_event: bool = False) -> None:
        if self._decoder.buffered:
            self._log.info("{peer} ended in the middle of a message", peer=self.peer)
        self._web_socket.peer_ended()

    @override
    def _report_loss(self, error: SocketError | None) -> None:
        self._web_socket.lost()
        super()._report_loss(error)

    @override
    def connection_ended(self, error: SocketError | None, reason: Failure) -> None:
        try:
            super().connection_ended(error, reason)
        finally:  # The canceller of a handler's Deferred may raise an error.
            self._web_socket.lost()

    # Errors.

    @override
    def _failed(self, failure: Failure) -> None:
        """Log an error once; refuse the request, or close the WebSocket with a code."""
        stream = self._connected_stream()
        web_socket = self._web_socket
        error = failure.value
        if not stream.is_open or self.group is None:
            super()._failed(failure)
            return
        forget_frames(failure)
        if isinstance(error, RemoteProtocolError):
            self.note_violation()
            self._log.warn("{peer} closed: {error}", peer=self.peer, error=error)
        else:
            stream.counters.handler_errors += 1
            self._log.failure("handler failed: {peer} closed", failure, peer=self.peer)
        if web_socket.is_opening:
            self._refuse(refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "the server failed"))
        elif isinstance(error, WebSocketViolation):
            web_socket.violated(error.code, error.reason)
        elif isinstance(error, RemoteProtocolError):
            web_socket.violated(CloseCode.POLICY_VIOLATION, "")
        else:
            web_socket.failed()
