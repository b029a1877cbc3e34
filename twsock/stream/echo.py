"""
Echo protocols for frames and lines, and their factories.

Whole runs of messages are pulled from the decoder and sent back in one piece, so the cost is per
read and not per message.
"""

from __future__ import annotations

from typing import Any

from typing_extensions import override

from twsock.stream.connection import Connection
from twsock.stream.factory import StreamServerFactory
from twsock.stream.frames import FrameProtocol
from twsock.stream.lines import LineProtocol
from twsock.stream.protocol import StreamProtocol

__all__ = ["FrameEcho", "FrameEchoFactory", "LineEcho", "LineEchoFactory"]


class _Echo(StreamProtocol):
    """Sends back each run of whole messages."""

    @override
    def deliver_messages(self, stream: Connection) -> None:
        decoder = self._decoder
        before = decoder.delivered
        while decoder.stored and (run := decoder.take_run()):
            stream.write(run)
        stream.counters.messages_sent += decoder.delivered - before


class FrameEcho(_Echo, FrameProtocol):
    """Sends each frame back once it is complete."""

    @override
    def frame_received(self, payload: bytes) -> None:
        self.send_frame(payload)

    def export_state(self) -> bytes:
        """Return no bytes: an echo has no state besides the bytes of its connection."""
        return b""

    def import_state(self, state: bytes) -> None:
        """Restore nothing."""


class LineEcho(_Echo, LineProtocol):
    """Sends each line back once it is complete, always ended by CRLF."""

    @override
    def line_received(self, line: bytes) -> None:
        self.send_line(line)

    def export_state(self) -> bytes:
        """Return no bytes: an echo has no state besides the bytes of its connection."""
        return b""

    def import_state(self, state: bytes) -> None:
        """Restore nothing."""


class FrameEchoFactory(StreamServerFactory):
    """
    Serves `FrameEcho`.

    :param reactor: see `StreamServerFactory`, which takes the same keywords.
    """

    def __init__(self, reactor: Any, **limits: Any) -> None:
        super().__init__(reactor, FrameEcho, **limits)


class LineEchoFactory(StreamServerFactory):
    """
    Serves `LineEcho`.

    :param reactor: see `StreamServerFactory`, which takes the same keywords.
    """

    def __init__(self, reactor: Any, **limits: Any) -> None:
        super().__init__(reactor, LineEcho, **limits)
