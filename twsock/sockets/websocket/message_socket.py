"""
WebSockets whose messages are delivered one by one: connection → **messages** → application.

`MessageWebSocket` adds a receiver of `twsock.sockets.websocket.receiving`, and the calls that send
messages, to `twsock.sockets.websocket.client.WebSocketClient`. The receiver holds one message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from typing_extensions import override

from twsock.sockets.event import Event
from twsock.sockets.websocket.client import RESPONSE_TIMEOUT, WebSocketClient
from twsock.sockets.websocket.control import MessageWebSocketControl
from twsock.sockets.websocket.message import (
    MessageWebSocketMessageReceivedEventArgs,
    MessageWebSocketReceiveMode,
)
from twsock.sockets.websocket.message_calls import MessageCalls, choose_by
from twsock.sockets.websocket.opening import Opening
from twsock.sockets.websocket.output import WebSocketOutputStream
from twsock.sockets.websocket.receiving import WebSocketMessageReceiver
from twsock.stream.ending import DEFAULT_CLOSE_TIMEOUT
from twsock.websocket.client_handshake import ClientHandshake

__all__ = ["MessageWebSocket"]

_Handler = Callable[["MessageWebSocket", MessageWebSocketMessageReceivedEventArgs], Any]


class MessageWebSocket(MessageCalls, WebSocketClient):
    """
    A WebSocket client of messages; ``Windows.Networking.Sockets.MessageWebSocket``.

    ::

        async with MessageWebSocket(reactor) as websocket:
            await websocket.connect("ws://127.0.0.1:1338/")
            await websocket.send("Hello")
            print(await websocket.receive())

    There are two ways to receive messages. If `message_received` has handlers, they get the
    messages. Otherwise `receive` and ``async for message in websocket`` return them. While a
    handler runs, or the application does not receive, this end stops reading, and the server has to
    wait.

    :ivar message_received: an event whose handlers are called with the WebSocket and a
        `MessageWebSocketMessageReceivedEventArgs`. Handlers are functions or coroutine functions,
        and are added before `connect`. The next message is delivered when all of them have ended. A
        failure of receiving is delivered as a message, and reading that message raises the error.
        An error that a handler raises is logged, and closes the WebSocket with the code 1011.

    The other parameters and attributes are those of `WebSocketClient`.
    """

    control: MessageWebSocketControl
    _receiver: WebSocketMessageReceiver

    def __init__(self, reactor: Any, *, close_timeout: float = DEFAULT_CLOSE_TIMEOUT) -> None:
        super().__init__(reactor, close_timeout=close_timeout)
        self.control = MessageWebSocketControl(self._state.is_in_use, self._state.is_securing)
        self.message_received: Event[_Handler] = Event("message_received", self._state.is_in_use)
        self._make_streams()

    # Overrides of `WebSocketClient`.

    @override
    def _make_streams(self) -> None:
        self.output_stream = WebSocketOutputStream(self._reactor, choose_by(self.control))
        self._receiver = WebSocketMessageReceiver(self._reactor, self.message_received)

    @override
    def _opening(self, handshake: ClientHandshake) -> Opening:
        control = self.control
        partial = MessageWebSocketReceiveMode.PARTIAL_MESSAGE
        self._is_partial = control.receive_mode is partial
        return Opening(
            handshake, control, control.max_message_size, self._is_partial, RESPONSE_TIMEOUT
        )
