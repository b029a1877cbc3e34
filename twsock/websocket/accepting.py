"""
The handshake of a server's WebSocket: transport → **accepting protocol** → `accept` → response.

`AcceptingProtocol` is the base class of `twsock.websocket.protocol.WebSocketProtocol`, which
handles the messages. A `twsock.websocket.http.ServerHttp` reads the request, the rules of the
settings judge it, and then the application judges it in `accept`. No other code of the application
runs before the request is accepted. Bytes that arrive while `accept` decides are held; above 16 KiB
nothing more is read. The handshake has one deadline.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import CoroutineType
from typing import Any

from twisted.internet.defer import Deferred
from typing_extensions import override

from twsock.errors import SocketError
from twsock.stream.connection import Connection
from twsock.stream.protocol import StreamProtocol
from twsock.stream.registry import ConnectionRegistry
from twsock.stream.upgrade import UpgradePolicy, UpgradeToSsl
from twsock.websocket.closing import Role
from twsock.websocket.connection import WebSocket
from twsock.websocket.handshake import Acceptance, Refusal
from twsock.websocket.http import MAX_HEAD, ServerHttp
from twsock.websocket.http_message import Request
from twsock.websocket.judging import Choice, Judgement, apply_choice, judge_request
from twsock.websocket.ping_schedule import PingSchedule
from twsock.websocket.settings import WebSocketSettings
from twsock.wire.stored_bytes import StoredBytes

__all__ = ["AcceptingProtocol", "check_upgrade"]


def check_upgrade(upgrade: UpgradeToSsl) -> None:
    """
    Check that TLS begins with the first byte: a WebSocket has no message that starts TLS.

    :raises ValueError: when the policy is not ``UpgradePolicy.IMPLICIT``.
    """
    if upgrade.policy is not UpgradePolicy.IMPLICIT:
        raise ValueError(
            f"the upgrade of WebSockets has UpgradePolicy.IMPLICIT, not {upgrade.policy}"
        )


class _RequestBytes(StoredBytes):
    """The bytes of a request, in the place of the decoder of messages."""

    __slots__ = ()

    #: No part of a message was pulled; see `twsock.websocket.messages.MessageDecoder`.
    incomplete = None


class AcceptingProtocol(StreamProtocol):
    """
    A connection that begins with the handshake of a WebSocket.

    :ivar subprotocol: the subprotocol that was agreed; None without one.
    """

    #: The settings of the server, set by its factory.
    settings: WebSocketSettings = WebSocketSettings()
    #: Wakes all connections of the server for their pings; set by the factory. A connection without
    #: a factory makes a schedule of its own.
    ping_schedule: PingSchedule | None = None

    subprotocol: str | None = None

    _web_socket: WebSocket
    # Reads the request; None once the request was answered.
    _http: ServerHttp | None = None
    # A request that another parser has read, and the rules have accepted; None otherwise.
    _parsed: Acceptance | None = None
    # Receives the status of the response, or None if there was none; called once.
    _answered: Callable[[int | None], None] | None = None

    # Called by the resource of a web site.

    def take_request(
        self, acceptance: Acceptance, received: bytes, answered: Callable[[int | None], None]
    ) -> None:
        """
        Answer a request that another parser has read; the connection was just made.

        :param acceptance: the judgement of the rules.
        :param received: the bytes that arrived after the request.
        :param answered: is called once, with the status of the response; with None if the
            connection ends without a response.
        """
        self._parsed = acceptance
        self._answered = answered
        self.dataReceived(received)

    def _report_answer(self, status: int | None) -> None:
        answered, self._answered = self._answered, None
        if answered is not None:
            answered(status)

    # Overridden by applications.

    def accept(self, request: Request) -> Judgement:
        """
        Judge the request of a client. The rules of the settings have accepted it before.

        :returns: None to accept the request with the subprotocol that the rules have chosen. Or the
            name of another subprotocol that the client offers. Or an `Acceptance`, to add header
            fields. Or the result of `refuse`. A coroutine or Deferred of one of these delays the
            answer, within the ``handshake_timeout`` of the settings. It is cancelled when the
            connection is lost. The rules alone decide on compression.
        :raises Exception: any error is logged with its traceback, and answered with status 500.
        """

    # Overridden by the protocol of messages.

    def _open(self, acceptance: Acceptance, received: bytes) -> None:
        """
        Begin with messages: the request is accepted.

        :param received: the bytes that arrived after the request.
        """
        raise NotImplementedError

    def send_control(self, frame: bytes) -> None:
        """Send a control frame."""
        raise NotImplementedError

    def drop_messages(self) -> None:
        """Read and drop messages until the peer's close frame."""
        raise NotImplementedError

    def socket_closed(self, code: int, reason: str) -> None:
        """Report the end to the application."""
        raise NotImplementedError

    # Called by the transport of the application.

    @override
    def _close_transport(self) -> None:
        if self._stream is None:
            super()._close_transport()
        else:
            self.close()

    @override
    def _abort_transport(self) -> None:
        if self._stream is None:
            super()._abort_transport()
        else:
            self.abort()

    @override
    def _reason_to_stay(self) -> str:
        # The next owner would lack the context of compression, fragments, pings and the close.
        return "a WebSocket has more state than its bytes"

    # Called by Twisted.

    @override
    def _make_decoder(self) -> Any:
        """
        Return the store of the request.

        :raises ValueError: when the policy of the upgrade is wrong.
        """
        if self.upgrade is not None:
            check_upgrade(self.upgrade)
        return _RequestBytes(MAX_HEAD)

    @override
    def _connect(self, group: ConnectionRegistry) -> Connection:
        stream = super()._connect(group)
        self._is_unannounced = True  # Until the request is accepted.
        self._web_socket = WebSocket(self, stream, Role.SERVER, self.close_timeout)
        return stream

    @override
    def _announce(self) -> None:
        """Wait for the request: the connection is open, and secure if it has to be."""
        if self._connected_stream().is_open:
            self._http = ServerHttp()
            self._web_socket.start_handshake(self.settings.handshake_timeout)

    @override
    def _release(self, error: SocketError | None) -> None:
        super()._release(error)
        self._http = None
        self._report_answer(None)

    # The steps of the handshake.

    def _judge(self, http: ServerHttp) -> None:
        """Read and judge the request; answer unless more bytes, or `accept`, are awaited."""
        parsed, self._parsed = self._parsed, None
        if parsed is not None:
            self._ask(parsed)
            return
        found = http.feed(self._decoder.take_buffered())
        if isinstance(found, Request):
            judged = judge_request(self.settings.rules, found, self._transport.getHost())
            if isinstance(judged, Refusal):
                self._refuse(judged)
            else:
                self._ask(judged)
        elif found is not None:
            self._refuse(found)

    def _ask(self, acceptance: Acceptance) -> None:
        """Let the application decide, at once or later."""
        choice: Any = self.accept(acceptance.request)
        if isinstance(choice, CoroutineType):
            choice = Deferred.fromCoroutine(choice)
        if isinstance(choice, Deferred):
            self._is_finished(choice.addCallback(self._answer, acceptance))
        else:
            self._answer(choice, acceptance)

    def _answer(self, choice: Choice, acceptance: Acceptance) -> None:
        """Answer the request as the application has decided."""
        http = self._http
        if http is None or not self._web_socket.is_opening:
            return  # The connection was closed while the application decided.
        decided = apply_choice(choice, acceptance)
        if isinstance(decided, Refusal):
            self._refuse(decided)
            return
        acceptance = decided
        self.subprotocol = acceptance.subprotocol
        self._http = None
        self._report_answer(acceptance.response.status)
        self._connected_stream().write(acceptance.response.encode())
        self._open(acceptance, http.leftover + self._decoder.take_buffered())
        super()._announce()
        if self._drain is not None and self.was_queued:
            self._drain.await_first_message()

    def _refuse(self, refusal: Refusal) -> None:
        """Answer with an error, and end the connection."""
        self._log.info(
            "{peer} refused: {status}, {reason}",
            peer=self.peer,
            status=refusal.response.status,
            reason=refusal.reason,
        )
        self._http = None
        self._connected_stream().counters.count_refused_request(refusal.response.status)
        self._report_answer(refusal.response.status)
        # The time of day: the clock of the reactor may count from anywhere.
        self._connected_stream().write(refusal.response.encode(time.time()))
        self._web_socket.refuse()
