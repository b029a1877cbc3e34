"""
The protocol class for length-prefixed frames: one method to override, one to send with.

The ``uint32`` format of `twsock.wire.frames` on the connections of `twsock.stream.protocol`.
"""

from __future__ import annotations

from typing import Any

from typing_extensions import override

from twsock.stream.connection import Connection
from twsock.stream.protocol import Handled, StreamProtocol
from twsock.wire.byte_queue import as_bytes
from twsock.wire.frames import (
    DEFAULT_MAX_PAYLOAD,
    FrameDecoder,
    encode_frame,
    encode_header,
    pack_size,
)

__all__ = ["FrameProtocol"]

#: Smaller payloads, in bytes, are joined with their header: a small copy costs less than one more
#: piece in the send.
_SMALL = 4096

#: The size of the header of a frame, in bytes.
_HEADER_SIZE = 4


class FrameProtocol(StreamProtocol):
    """
    A connection that carries frames: a 4-byte big-endian count, then that many bytes.

    Override `frame_received`, answer with `send_frame`::

        class Shout(FrameProtocol):
            def frame_received(self, payload: bytes) -> None:
                self.send_frame(payload.upper())

    A frame above ``max_payload`` (default 16 MiB) aborts the connection when its header arrives.
    """

    is_counted = True

    # Overridden by applications.

    def frame_received(self, payload: bytes) -> Handled:
        """
        Handle one frame.

        :returns: None when it is handled; otherwise a coroutine or Deferred, and the next frame is
            handled after it. It is cancelled when the connection is lost. It is not cancelled when
            the peer only ends its output, so a long operation needs its own timeout.
        :raises RemoteProtocolError: when the peer broke a rule: the connection is aborted, and one
            line is logged. Any other exception is logged with its traceback, and aborts it too.
        """
        raise NotImplementedError(f"{type(self).__name__} does not override frame_received")

    # Called by applications.

    def send_frame(self, payload: bytes) -> None:
        """
        Send one frame: within `frame_received` together with all other answers, otherwise at once.

        Outside a handler, if ``max_unsent`` bytes are queued already, the connection is aborted
        instead. This call then raises nothing; a later one raises `BrokenError`.

        :param payload: 0 to 4,294,967,295 bytes. The peer may have a lower limit.
        :raises LocalProtocolError: when the payload is too large, or nothing is connected yet.
        :raises ClosedError: when this end was closed.
        :raises BrokenError: when the connection died.
        """
        stream = self._stream or self._connected_stream()
        if len(payload) < _SMALL:
            stream.write(pack_size(len(payload)) + payload)
        else:
            payload = as_bytes(payload)
            stream.write(encode_header(len(payload)))
            stream.write(payload)
        stream.counters.messages_sent += 1
        if not self._is_delivering:
            self._push(stream, _HEADER_SIZE + len(payload))

    # Called by the upgrade.

    @override
    def pull_message(self) -> bytes | None:
        frame: bytes | None = self._decoder.next_frame()
        return frame

    @override
    def handle_message(self, message: bytes, stream: Connection) -> bool:
        return self._go_on_after(self.frame_received(message), stream)

    @override
    def send_message(self, message: bytes) -> None:
        self.send_frame(message)

    @override
    def encode_message(self, message: bytes) -> bytes:
        return encode_frame(message)

    # Called by the stream.

    @override
    @classmethod
    def check_max_payload(cls, max_payload: int) -> None:
        FrameDecoder(max_payload)

    @override
    def _make_decoder(self) -> Any:
        return FrameDecoder(DEFAULT_MAX_PAYLOAD if self.max_payload is None else self.max_payload)

    @override
    def deliver_messages(self, stream: Connection) -> None:
        frame_received = self.frame_received
        for payload in self._decoder.take_frames():
            handled = frame_received(payload)
            if handled is not None and not self._is_finished(handled):
                return
            if stream.room <= 0 and not self._may_go_on(stream):
                return
