"""
The sending side of a WebSocket: application → **messages** → frames → output stream → connection.

Each write is one message. Its frames wait in an output stream of `twsock.sockets.stream.output`,
which sends together what was queued together. Pings and pongs do not wait there, so they may
precede a message.
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

    A cancelled write is still sent, for two reasons. With context takeover, the next message refers
    to the cancelled one. And without one of its frames, a message in fragments never ends.
    """

    __slots__ = ()

    @override
    def _withdraw(self, write: object) -> None:
        """Do nothing: the frame stays in the queue."""


class WebSocketOutputStream:
    """
    The sending side of a WebSocket: each write is one message.

    The Deferreds fail with `LocalProtocolError` before the WebSocket is connected, with
    `ClosedError` after either end has closed it, and with `BrokenError` after the connection broke.
    Cancelling a Deferred stops the wait only: a message that was written is sent.

    :param clock: calls at the next turn of the reactor, and measures timeouts.
    :param choose_opcode: returns the type of the message that is written now.
    :ivar max_unsent: how many bytes may be queued; default 256 MiB. At this limit a further write
        fails with `BusyError`.
    """

    __slots__ = (
        "_choose_opcode", "_encoder", "_frames", "_is_closed", "_is_usual", "_unfinished",
    )  # fmt: skip

    def __init__(self, clock: IReactorTime, choose_opcode: Callable[[], Opcode]) -> None:
        self._frames = _Frames(clock)
        self._choose_opcode = choose_opcode
        # None before the handshake is done.
        self._encoder: MessageEncoder | None = None
        # The type of the message that is being sent in pieces; None without one.
        self._unfinished: Opcode | None = None
        self._is_closed = False
        # Whether only the queue can refuse a message; see `_refusal`.
        self._is_usual = False

    @property
    def max_unsent(self) -> int:
        """How many bytes may be queued."""
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

        The message is sent whether or not the Deferred is awaited. Its type is
        ``control.message_type``; messages of a `StreamWebSocket` are binary.

        :param data: the whole message; text is UTF-8.
        :returns: fires with the number of bytes, once the kernel has the whole message. It fails
            with `LocalProtocolError` if a text is not UTF-8, or a message is being sent in pieces,
            and with `BusyError` if `max_unsent` bytes are queued; then nothing is sent.
        :raises TypeError: at once, when ``data`` is no buffer.
        """
        return self.send_message(self._choose_opcode(), as_bytes(data), waits_for_kernel=True)

    def send_all(self, data: Buffer) -> Deferred[int]:
        """
        Send a message, and wait only while there is no room for more.

        :returns: fires with the number of bytes once this stream has queued the message: at once,
            or, while `is_full`, when the kernel has the message. It fails as `write` does.
        :raises TypeError: at once, when ``data`` is no buffer.
        """
        return self.send_message(self._choose_opcode(), as_bytes(data))

    def flush(self, *, timeout: float | None = None) -> Deferred[bool]:
        """
        Send the queued messages, and wait until the kernel has all of them.

        :param timeout: seconds until it fails with status ``CONNECTION_TIMED_OUT``; 0 or more. None
            for no limit.
        :returns: fires with True, as in WinRT, when every earlier write is done: at once if none is
            pending. Cancelling stops the wait only.
        :raises ValueError: at once, when the timeout is negative.
        """
        if self._is_closed:
            return fail(_closed())
        return self._frames.flush(timeout=timeout)

    def close(self) -> Deferred[None]:
        """
        Accept no more messages. Queued messages are sent, and the WebSocket stays open.

        Closing twice is harmless.

        :returns: a Deferred that has already fired.
        """
        self._is_closed = True
        self._is_usual = False
        return succeed(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # Called by the socket.

    def send_message(
        self, opcode: Opcode, data: bytes, *, waits_for_kernel: bool = False
    ) -> Deferred[int]:
        """
        Send a message with a type of its own; a text is UTF-8.

        :param waits_for_kernel: whether to send as `write` does; otherwise as `send_all`.
        """
        encoder = self._encoder
        if encoder is None or not self._is_usual:
            refused = self._refusal()
            if refused is not None:
                return refused
            assert encoder is not None
        try:
            frame = encoder.encode(opcode, data)
        except LocalProtocolError as error:
            # After the end, the reason of the end comes first, even if the message is wrong too.
            return self._refusal() or fail(error.copy())
        frames = self._frames
        sending = frames.write(frame) if waits_for_kernel else frames.send_all(frame)
        if type(sending) is not Fired:
            return _count(sending, len(data))
        sending.result = len(data)  # As `_count` does, without a call.
        return sending

    def send_frame(self, data: bytes, *, is_final: bool) -> Deferred[int]:
        """Send one frame of a message as `write` does; the first frame decides on the type."""
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
        """Set the encoder of messages: the handshake is done."""
        self._encoder = encoder
        self._is_usual = not (encoder.is_compressing or self._is_closed)

    # One message.

    def _refusal(self) -> Deferred[Any] | None:
        """
        Return the failure of a message that cannot be queued.

        The check comes before the compression: later messages may refer to a compressed message, so
        that message has to be sent. Without compression, the queue refuses the encoded message, and
        the check follows an error of the encoder.
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
    """Make a write fire with the size of the message instead of the size of its frames."""
    if not sending.called:
        return sending.addCallback(lambda _: size)
    if not isinstance(sending.result, Failure):
        sending.result = size  # A second Deferred costs more; no other code has this one.
    return sending


def _closed() -> SocketError:
    return ClosedError("cannot write: the output stream was closed")
