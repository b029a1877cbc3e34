"""
The server's connection of a WebSocket: accept → TLS → **request and response** → messages.

A `twsock.WebSocketListener` makes one `ServerProtocol` for each accepted connection. The rules of
the listener judge the request, then ``judge`` of the application. The base class in
`twsock.sockets.websocket.connection` handles the messages. Holds the request and the bytes that
arrive while ``judge`` decides; above 16 KiB nothing more is read.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from types import CoroutineType
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from typing_extensions import override

from twsock.errors import ClosedError, SocketError
from twsock.log import forget_frames
from twsock.sockets.websocket.connection import WebSocketConnection, WebSocketEvents
from twsock.sockets.websocket.output import WebSocketOutputStream
from twsock.sockets.websocket.receiving import Receiver
from twsock.stream.connection import Connection
from twsock.stream.listening.buffer_limit import BufferLimit
from twsock.websocket.close_frame import CloseCode
from twsock.websocket.closing import Role
from twsock.websocket.connection import WebSocket
from twsock.websocket.handshake import Acceptance, Refusal, refuse
from twsock.websocket.http import MAX_HEAD, ServerHttp
from twsock.websocket.http_message import Request
from twsock.websocket.judging import Choice, Judgement, apply_choice, judge_request
from twsock.websocket.messages import MessageDecoder, MessageEncoder
from twsock.websocket.ping_schedule import PingSchedule
from twsock.websocket.settings import WebSocketSettings

__all__ = ["ServerConnections", "ServerProtocol"]


@dataclass(frozen=True, slots=True)
class ServerConnections:
    """
    What all connections of one listener share.

    :ivar settings: the rules and times.
    :ivar judge: called with each request that the rules have accepted; returns what
        ``WebSocketProtocol.accept`` returns.
    :ivar max_message_size: largest message accepted, in bytes.
    :ivar is_partial: whether messages are delivered in pieces.
    :ivar ping_schedule: calls the connections at the times of their pings; None without pings.
    :ivar buffer_limit: counts the bytes that the connections hold; None for no limit.
    """

    settings: WebSocketSettings
    judge: Callable[[Request], Judgement]
    max_message_size: int
    is_partial: bool
    ping_schedule: PingSchedule | None
    buffer_limit: BufferLimit | None


class ServerProtocol(WebSocketConnection):
    """
    The connection of one server's WebSocket.

    :param shared: the settings of the listener.

    The other parameters are those of `WebSocketConnection`.
    """

    # Reads the request; None before TLS is done, and once the request was answered.
    _http: ServerHttp | None = None
    # Bytes that arrived while the application judges the request.
    _early = b""
    _judging: Deferred[Any] | None = None
    _is_draining = False

    def __init__(
        self,
        clock: Any,
        receiver: Receiver,
        output: WebSocketOutputStream,
        events: WebSocketEvents,
        close_timeout: float,
        shared: ServerConnections,
    ) -> None:
        super().__init__(clock, receiver, output, events, close_timeout)
        self._shared = shared

    @override
    def _make_stream(self, limit: BufferLimit | None) -> Connection:
        limit = self._shared.buffer_limit
        stream = super()._make_stream(limit)
        if limit is not None:
            self._frames.on_kept = stream.note_buffered
        return stream

    def start_handshake(self) -> None:
        """Wait for the request: the connection is open, and secure if it has to be."""
        stream = self._stream
        if stream is None or not stream.is_open:
            return
        self._http = ServerHttp()
        self._web_socket = WebSocket(self, stream, Role.SERVER, self.close_timeout)
        self._web_socket.start_handshake(self._shared.settings.handshake_timeout)

    def drain(self) -> None:
        """Close with the code 1001 when the application waits and no message has arrived."""
        self._is_draining = True
        web_socket, stream = self._web_socket, self._stream
        if stream is None:
            return
        if web_socket is None:
            self.abort()  # TLS has not begun or is not done.
        elif web_socket.is_opening:
            if self._judging is None and not stream.has_unread_input:
                stream.close()
        else:
            self.pull()

    # The request.

    @override
    def _handshake_received(self, data: bytes) -> None:
        http = self._http
        if http is None or self._stream is None or not self._stream.is_open:
            return
        if self._judging is not None:
            self._early += data
            if len(self._early) >= MAX_HEAD:
                self._stream.pause_reading()
            return
        try:
            self._judge(http, data)
        except Exception:  # noqa: BLE001 - logged, and answered with status 500
            self._judging_failed(Failure())

    def _judge(self, http: ServerHttp, data: bytes) -> None:
        found = http.feed(data)
        if isinstance(found, Request):
            rules = self._shared.settings.rules
            judged = judge_request(rules, found, self._local())
            if isinstance(judged, Refusal):
                self._refuse(judged)
            else:
                self._ask(judged)
        elif found is not None:
            self._refuse(found)

    def _ask(self, acceptance: Acceptance) -> None:
        """Let the application decide, at once or later."""
        choice: Any = self._shared.judge(acceptance.request)
        if isinstance(choice, CoroutineType):
            choice = Deferred.fromCoroutine(choice)
        if not isinstance(choice, Deferred):
            self._answer(choice, acceptance)
            return
        self._judging = choice
        choice.addCallback(self._answer, acceptance).addErrback(self._judging_failed)

    def _answer(self, choice: Choice, acceptance: Acceptance) -> None:
        """Answer the request as the application has decided."""
        self._judging = None
        http, web_socket, events = self._http, self._web_socket, self._events
        if http is None or web_socket is None or events is None or not web_socket.is_opening:
            return  # The connection was closed while the application decided.
        decided = apply_choice(choice, acceptance)
        if isinstance(decided, Refusal):
            self._refuse(decided)
            return
        self._http = None
        self.stream.write(decided.response.encode())
        early, self._early = self._early, b""
        self._open(web_socket, events, decided, http.leftover + early)

    def _open(
        self, web_socket: WebSocket, events: WebSocketEvents, accepted: Acceptance, received: bytes
    ) -> None:
        """Begin with messages: the request is accepted."""
        shared, compression = self._shared, accepted.compression
        settings = shared.settings
        decoder = MessageDecoder(
            is_server=True,
            max_message_size=shared.max_message_size,
            max_fragments=settings.max_fragments,
            inflater=None if compression is None else compression.inflater(is_server=True),
            is_partial=shared.is_partial,
        )
        encoder = MessageEncoder(
            is_server=True,
            deflater=None if compression is None else compression.deflater(is_server=True),
            max_fragment_size=settings.max_fragment_size,
        )
        frames = self._frames
        was_held, frames.is_held = frames.is_held, True
        self._begin_messages(events, decoder, encoder, received)
        web_socket.accept(
            encoder, settings.ping_interval, settings.ping_timeout, shared.ping_schedule
        )
        if self._stream is not None:
            self._stream.send()
        if web_socket.is_open:
            events.handshake_done(accepted)
        self.pull()
        if self._has_peer_ended:
            self.input_ended()
        if not was_held:
            frames.release()

    def _refuse(self, refusal: Refusal) -> None:
        """Answer with an error, and end the connection."""
        self._log.info(
            "{peer} refused: {status}, {reason}",
            peer=self.peer,
            status=refusal.response.status,
            reason=refusal.reason,
        )
        self._http = None
        self.stream.counters.count_refused_request(refusal.response.status)
        # The time of day: the clock of the reactor may count from anywhere.
        self.stream.write(refusal.response.encode(time.time()))
        if self._web_socket is not None:
            self._web_socket.refuse()

    def _judging_failed(self, failure: Failure) -> None:
        self._judging = None
        stream = self._stream
        # Aborted, as the request took too long: the loss is reported later.
        if stream is None or not stream.is_open or self._http is None:
            if not failure.check(CancelledError, SocketError):
                self._log.failure("judging a request failed after the connection ended", failure)
            forget_frames(failure)
            return
        self._log.failure("judging the request of {peer} failed", failure, peer=self.peer)
        forget_frames(failure)
        self._refuse(refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "the server failed"))

    def _local(self) -> Any:
        transport: Any = self.transport
        return transport.getHost()

    # Overrides of `WebSocketConnection`.

    @override
    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        stream = self._stream
        if stream is not None and (stream.noted or self.held_bytes):
            stream.note_buffered()

    @override
    def _handshake_ended(self) -> None:
        if self._judging is not None:
            return
        if self._web_socket is None:
            self.abort(ClosedError("the peer ended the connection before its request"))
        else:
            self._web_socket.peer_ended()

    @override
    def _handshake_lost(self, error: SocketError) -> None:
        self._http = None
        self._early = b""
        judging, self._judging = self._judging, None
        if judging is not None:
            judging.cancel()

    @override
    def _finish_if_ended(self) -> None:
        is_idle = self._is_draining and self._receiver.is_waiting and self.is_open
        if is_idle and not self.stream.has_unread_input:
            self.close(CloseCode.GOING_AWAY, "")
            return
        super()._finish_if_ended()
