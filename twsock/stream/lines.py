"""
The protocol class for lines of text: one method to override, one to send with.

The ``line`` format of `twsock.wire.lines` on the connections of `twsock.stream.protocol`.
"""

from __future__ import annotations

from typing import Any

from typing_extensions import override

from twsock.stream.connection import Connection
from twsock.stream.protocol import Handled, StreamProtocol
from twsock.wire.lines import DEFAULT_MAX_LINE, LineDecoder, encode_line

__all__ = ["LineProtocol"]


class LineProtocol(StreamProtocol):
    """
    A connection that carries lines: received with CRLF or LF, sent with CRLF.

    Override `line_received`, answer with `send_line`::

        class Shout(LineProtocol):
            def line_received(self, line: bytes) -> None:
                self.send_line(decode_text(line).upper())

    A line above ``max_payload`` (default 64 KiB, without its ending) aborts the connection.
    """

    # Overridden by applications.

    def line_received(self, line: bytes) -> Handled:
        """
        Handle one line.

        :param line: without its ending, not decoded: `twsock.wire.decode_text` reads it as text.
        :returns: None when it is handled; otherwise a coroutine or Deferred, and the next line is
            handled after it. It is cancelled when the connection is lost. It is not cancelled when
            the peer only ends its output, so a long operation needs its own timeout.
        :raises RemoteProtocolError: when the peer broke a rule: the connection is aborted, and one
            line is logged. Any other exception is logged with its traceback, and aborts it too.
        """
        raise NotImplementedError(f"{type(self).__name__} does not override line_received")

    # Called by applications.

    def send_line(self, line: bytes | str) -> None:
        """
        Send one line: within `line_received` together with all other answers, otherwise at once.

        Outside a handler, if ``max_unsent`` bytes are queued already, the connection is aborted
        instead. This call then raises nothing; a later one raises `BrokenError`.

        :param line: without its ending; text is sent as UTF-8.
        :raises LocalProtocolError: when a LF is in the line, or nothing is connected yet.
        :raises ClosedError: when this end was closed.
        :raises BrokenError: when the connection died.
        """
        stream = self._stream or self._connected_stream()
        encoded = encode_line(line)
        stream.write(encoded)
        stream.counters.messages_sent += 1
        if not self._is_delivering:
            self._push(stream, len(encoded))

    # Called by the upgrade.

    @override
    def pull_message(self) -> bytes | None:
        line: bytes | None = self._decoder.next_line()
        return line

    @override
    def handle_message(self, message: bytes, stream: Connection) -> bool:
        return self._go_on_after(self.line_received(message), stream)

    @override
    def send_message(self, message: bytes) -> None:
        self.send_line(message)

    @override
    def encode_message(self, message: bytes) -> bytes:
        return encode_line(message)

    # Called by the stream.

    @override
    @classmethod
    def check_max_payload(cls, max_payload: int) -> None:
        LineDecoder(max_payload)

    @override
    def _make_decoder(self) -> Any:
        return LineDecoder(DEFAULT_MAX_LINE if self.max_payload is None else self.max_payload)

    @override
    def deliver_messages(self, stream: Connection) -> None:
        for line in self._decoder.lines():
            handled = self.line_received(line)
            if handled is not None and not self._is_finished(handled):
                return
            if stream.room <= 0 and not self._may_go_on(stream):
                return
