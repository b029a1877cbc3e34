"""
The sending side of a WebSocket: application → **messages** → frames → output stream → connection.

Each write is one message. The frames wait in an `OutputStream` of stream sockets, which sends
together what was queued together. Pongs and pings do not wait there: they may precede a message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from typing_extensions import Self, override

from twsock.errors import BusyError, ClosedError, LocalProtocolError, SocketError
from twsock.operation import Fired, fail
from twsock.sockets.stream.output import OutputStream
from twsock.websocket.frames import Opcode
from twsock.websocket.messages import MessageEncoder
from twsock.wire.byte_queue import Buffer, as_bytes

__all__ = ["WebSocketOutputStream"]


class _Frames(OutputStream):
    """
    The queue of frames.

    A cancelled write is still sent: with a context, the next message is compressed with
    reference to it, and without a part its message would never end.
    """

    __slots__ = ()

    @override
    def _withdraw(self, write: object) -> None:
        """Keep the frame in the queue."""


class WebSocketOutputStream:
    """
    The sending side of a WebSocket: each write is one message.

    The Deferreds fail with `LocalProtocolError` before the WebSocket is connected, with
    `ClosedError` after either end has closed it, and with `BrokenError` after the connection broke.
    Cancelling them ends the wait only: a message that was written is sent.

    :param clock: calls at the next turn of the reactor, and measures timeouts.
    :param choose_opcode: returns the type of the message that is written now.
    :ivar max_unsent: bytes that may be queued; at the limit a further write fails with `BusyError`.
        Default 256 MiB.
    """

    __slots__ = ("_choose_opcode", "_encoder", "_frames", "_is_closed", "_unfinished")

    def __init__(self, clock: IReactorTime, choose_opcode: Callable[[], Opcode]) -> None:
        self._frames = _Frames(clock)
        self._choose_opcode = choose_opcode
        # None before the handshake is done.
        self._encoder: MessageEncoder | None = None
        # The type of the message that is sent in frames; None if there is none.
        self._unfinished: Opcode | None = None
        self._is_closed = False

    @property
    def max_unsent(self) -> int:
        """Bytes that may be queued."""
        return self._frames.max_unsent

    @max_unsent.setter
    def max_unsent(self, value: int) -> None:
        self._frames.max_unsent = value

    @property
    def is_full(self) -> bool:
        """
        Whether to await `flush` before writing more: 64 KiB are queued, or the kernel has no room.
        """
        return self._frames.is_full

    @property
    def unsent(self) -> int:
        """How many bytes are queued and have not begun to leave, with the headers of frames."""
        return self._frames.unsent

    # Called by applications.

    def write(self, data: Buffer) -> Deferred[int]:
        """
        Send a message, after all earlier ones.

        It is sent whether or not it is awaited. Its type is ``control.message_type``; of the stream
        form, binary.

        :param data: the whole message; of a text in UTF-8.
        :returns: fires with the number of bytes, once the kernel has the whole message. It fails
            with `LocalProtocolError` if a text is not UTF-8, or a message is being sent in frames,
            and with `BusyError` if `max_unsent` bytes are queued; then nothing was sent.
        :raises TypeError: at once, when ``data`` is no buffer.
        """
        data = as_bytes(data)
        return self._send(self._frames.write, self._choose_opcode(), data)

    def send_all(self, data: Buffer) -> Deferred[int]:
        """
        Send a message, and wait only if there is no room for more.

        :returns: fires with the number of bytes once this stream has queued the message: at once,
            unless `is_full`; then as `write` does. It fails as `write`.
        :raises TypeError: at once, when ``data`` is no buffer.
        """
        return self._send(self._frames.send_all, self._choose_opcode(), as_bytes(data))

    def flush(self, *, timeout: float | None = None) -> Deferred[bool]:
        """
        Send the queued messages, and wait until the kernel has all of them.

        :param timeout: seconds until it fails with status ``CONNECTION_TIMED_OUT``.
        :returns: fires with True, as in WinRT, when every earlier write is done: at once if none is
            pending. Cancelling ends the wait only.
        :raises ValueError: at once, when the timeout is negative.
        """
        if self._is_closed:
            return fail(_closed())
        return self._frames.flush(timeout=timeout)

    def close(self) -> Deferred[None]:
        """
        Accept no more messages. Queued ones are sent, and the WebSocket stays open.

        Closing twice is harmless.

        :returns: a Deferred that has already fired.
        """
        self._is_closed = True
        return succeed(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # Called by the socket.

    def send_message(self, opcode: Opcode, data: str | bytes) -> Deferred[int]:
        """Send a message as `send_all` does, with a type of its own."""
        payload = data.encode() if isinstance(data, str) else data
        return self._send(self._frames.send_all, opcode, payload)

    def send_frame(self, data: bytes, *, is_final: bool) -> Deferred[int]:
        """Send one frame of a message as `write` does; the first one decides on the type."""
        refused = self._refusal()
        if refused is not None:
            return refused
        assert self._encoder is not None
        opcode = self._choose_opcode() if self._unfinished is None else self._unfinished
        try:
            frame = self._encoder.encode_fragment(opcode, data, is_final=is_final)
        except LocalProtocolError as error:
            return fail(error.copy())
        self._unfinished = None if is_final else opcode
        return _count(self._frames.write(frame), len(data))

    # Called by the connection.

    @property
    def frames(self) -> OutputStream:
        """The queue of frames, which the connection opens, flushes and fails."""
        return self._frames

    def use(self, encoder: MessageEncoder) -> None:
        """Encode messages from now on: the handshake is done."""
        self._encoder = encoder

    # One message.

    def _send(
        self, send: Callable[[bytes], Deferred[int]], opcode: Opcode, data: bytes
    ) -> Deferred[int]:
        refused = self._refusal()
        if refused is not None:
            return refused
        assert self._encoder is not None
        try:
            frame = self._encoder.encode(opcode, data)
        except LocalProtocolError as error:
            return fail(error.copy())
        return _count(send(frame), len(data))

    def _refusal(self) -> Deferred[Any] | None:
        """
        Return the failure of a message that cannot be queued.

        Looked at before it is compressed: the next message may refer to it.
        """
        if self._is_closed:
            return fail(_closed())
        frames = self._frames
        if not frames.is_open:
            return frames.write(b"")  # Fails with the reason.
        if frames.unsent >= frames.max_unsent:
            return fail(BusyError(f"{frames.unsent} bytes wait to be sent: await flush() first"))
        return None


def _count(sending: Deferred[int], size: int) -> Deferred[int]:
    """Let a write fire with the size of the message, and not with that of its frame."""
    if not sending.called:
        return sending.addCallback(lambda _: size)
    if isinstance(sending.result, Failure):
        return sending
    return Fired(size)


def _closed() -> SocketError:
    return ClosedError("cannot write: the output stream was closed")
