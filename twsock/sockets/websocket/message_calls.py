"""
The calls of a WebSocket whose messages are delivered one by one: application → **calls** → streams.

`MessageCalls` is a base class of `twsock.MessageWebSocket` and `twsock.ServerMessageWebSocket`.
Holds nothing.
"""

from __future__ import annotations

import typing
from collections.abc import AsyncIterator, Callable
from typing import Final

from twisted.internet.defer import Deferred

from twsock.errors import LocalProtocolError
from twsock.operation import fail
from twsock.sockets.websocket.closed import WebSocketClosedError
from twsock.sockets.websocket.message import SocketMessageType
from twsock.sockets.websocket.output import WebSocketOutputStream
from twsock.sockets.websocket.receiving import WebSocketMessageReceiver
from twsock.websocket.frames import Opcode
from twsock.wire.byte_queue import Buffer, as_bytes

__all__ = ["MessageCalls", "choose_by"]

# Names of this module: an attribute of an enumeration takes twice as long.
_TEXT: Final = Opcode.TEXT
_BINARY: Final = Opcode.BINARY


class _Typed(typing.Protocol):
    """Options with a type for written messages."""

    @property
    def message_type(self) -> SocketMessageType:
        """The type of messages written to ``output_stream``."""


def choose_by(control: _Typed) -> Callable[[], Opcode]:
    """Return a function that returns the opcode for the ``message_type`` of the options."""

    def choose_opcode() -> Opcode:
        is_text = control.message_type is SocketMessageType.UTF8
        return _TEXT if is_text else _BINARY

    return choose_opcode


class MessageCalls:
    """Receives and sends whole messages."""

    output_stream: WebSocketOutputStream
    _receiver: WebSocketMessageReceiver
    # Whether the messages of this connection are delivered in pieces.
    _is_partial = False

    # Receiving.

    def receive(self, *, timeout: float | None = None) -> Deferred[str | bytes]:
        """
        Wait for the next message, and take it. Not in WinRT.

        :param timeout: seconds until it fails with status ``CONNECTION_TIMED_OUT``; 0 or more. None
            for no limit.
        :returns: fires with a text as ``str``, or a binary message as ``bytes``. Cancelling takes
            no message.

            After the last message it fails with `WebSocketClosedError`, which has code and reason,
            if there was a close frame. It fails with `WebSocketViolation` if the peer broke a rule
            or a limit, and with `BrokenError` if the connection was lost.

            It fails with `BusyError` while another receive is pending; that receive continues. It
            fails with `LocalProtocolError` before the WebSocket is connected, if there are handlers
            of `message_received`, and with ``PARTIAL_MESSAGE``.
        :raises ValueError: at once, when the timeout is negative.
        """
        if self._is_partial:
            return fail(LocalProtocolError("cannot receive: pieces of messages go to handlers"))
        return self._receiver.receive(timeout)

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        """
        Receive messages until a close frame with the code 1000 or 1001, or without a code.

        After any other end it raises the error of `receive`.

        A loop that is left early takes no further message.
        """
        if self._is_partial:
            await self.receive()  # Fails.
        take_next = self._receiver.take_next
        while True:
            # A message that has arrived needs no Deferred.
            message = take_next()
            if message is None:
                try:
                    message = await self.receive()
                except WebSocketClosedError as error:
                    if error.is_in_order:
                        return
                    raise
            yield message

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
        if type(message) is bytes:
            return self.output_stream.send_message(_BINARY, message)
        if isinstance(message, str):
            return self.output_stream.send_message(_TEXT, message.encode())
        return self.output_stream.send_message(_BINARY, as_bytes(message))

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
