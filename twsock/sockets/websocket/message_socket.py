"""
WebSockets whose messages are delivered one by one: connection → **messages** → application.

`MessageWebSocket` adds a receiver of `twsock.sockets.websocket.receiving`, and the calls that send
messages, to `twsock.sockets.websocket.client.WebSocketClient`. The receiver holds one message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from typing_extensions import Self, override

from twsock.errors import LocalProtocolError
from twsock.operation import fail
from twsock.sockets.event import Event
from twsock.sockets.websocket.client import RESPONSE_TIMEOUT, WebSocketClient
from twsock.sockets.websocket.closed import WebSocketClosedError
from twsock.sockets.websocket.control import MessageWebSocketControl
from twsock.sockets.websocket.message import (
    MessageWebSocketMessageReceivedEventArgs,
    MessageWebSocketReceiveMode,
    SocketMessageType,
)
from twsock.sockets.websocket.opening import Opening
from twsock.sockets.websocket.output import WebSocketOutputStream
from twsock.sockets.websocket.receiving import WebSocketMessageReceiver
from twsock.stream.ending import DEFAULT_CLOSE_TIMEOUT
from twsock.websocket.client_handshake import ClientHandshake
from twsock.websocket.frames import Opcode
from twsock.wire.byte_queue import Buffer, as_bytes

__all__ = ["MessageWebSocket"]

# Names of this module: an attribute of an enumeration takes twice as long.
_TEXT: Final = Opcode.TEXT
_BINARY: Final = Opcode.BINARY

_Handler = Callable[["MessageWebSocket", MessageWebSocketMessageReceivedEventArgs], Any]


class MessageWebSocket(WebSocketClient):
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
        # Whether the messages of this connection are delivered in pieces.
        self._is_partial = False
        self.message_received: Event[_Handler] = Event("message_received", self._state.is_in_use)
        self._make_streams()

    # Receiving.

    def receive(self, *, timeout: float | None = None) -> Deferred[str | bytes]:
        """
        Wait for the next message, and take it. Not in WinRT.

        :param timeout: seconds until it fails with status ``CONNECTION_TIMED_OUT``; 0 or more. None
            for no limit.
        :returns: fires with a text as ``str``, or a binary message as ``bytes``. After the last
            message it fails with `WebSocketClosedError`, which has code and reason, if there was a
            close frame; with `WebSocketViolation` if the server broke a rule or a limit; with
            `BrokenError` if the connection was lost. It fails with `BusyError` while another
            receive is pending; that receive continues. It fails with `LocalProtocolError` before
            the WebSocket is connected, if there are handlers of `message_received`, and with
            ``PARTIAL_MESSAGE``. Cancelling takes no message.
        :raises ValueError: at once, when the timeout is negative.
        """
        if self._is_partial:
            return fail(LocalProtocolError("cannot receive: pieces of messages go to handlers"))
        return self._receiver.receive(timeout)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str | bytes:
        try:
            return await self.receive()
        except WebSocketClosedError as error:
            if error.is_in_order:
                raise StopAsyncIteration from None
            raise

    # Sending.

    def send(self, message: str | Buffer) -> Deferred[int]:
        """
        Send a message: a ``str`` as text, anything else as a binary message. Not in WinRT.

        :returns: fires with the number of bytes once the message is queued: at once, or, while
            ``output_stream.is_full``, when the kernel has the message. It fails as
            ``output_stream.write`` does.
        :raises UnicodeEncodeError: at once, when a text has no form in UTF-8.
        :raises TypeError: at once, when the message is neither text nor a buffer.
        """
        if isinstance(message, str):
            return self.output_stream.send_message(_TEXT, message)
        data = message if type(message) is bytes else as_bytes(message)
        return self.output_stream.send_message(_BINARY, data)

    def send_nonfinal_frame(self, data: Buffer) -> Deferred[int]:
        """
        Send a part of a message in a frame of its own; further parts follow.

        The message has the ``control.message_type`` of its first frame. Until `send_final_frame`,
        other messages fail with `LocalProtocolError`. The message is not compressed.

        :param data: the bytes of the frame. Text is UTF-8; a character may be divided between
            frames.
        :returns: as ``output_stream.write``.
        :raises TypeError: at once, when ``data`` is no buffer.
        """
        return self.output_stream.send_frame(as_bytes(data), is_final=False)

    def send_final_frame(self, data: Buffer) -> Deferred[int]:
        """
        Send the last frame of a message, which may be its only frame.

        :returns: as `send_nonfinal_frame`.
        :raises TypeError: at once, when ``data`` is no buffer.
        """
        return self.output_stream.send_frame(as_bytes(data), is_final=True)

    # Overrides of `WebSocketClient`.

    @override
    def _make_streams(self) -> None:
        control = self.control  # The stream must not refer to this object, which has the stream.

        def choose_opcode() -> Opcode:
            is_text = control.message_type is SocketMessageType.UTF8
            return Opcode.TEXT if is_text else Opcode.BINARY

        self.output_stream = WebSocketOutputStream(self._reactor, choose_opcode)
        self._receiver = WebSocketMessageReceiver(self._reactor, self.message_received)

    @override
    def _opening(self, handshake: ClientHandshake) -> Opening:
        control = self.control
        partial = MessageWebSocketReceiveMode.PARTIAL_MESSAGE
        self._is_partial = control.receive_mode is partial
        return Opening(
            handshake, control, control.max_message_size, self._is_partial, RESPONSE_TIMEOUT
        )
