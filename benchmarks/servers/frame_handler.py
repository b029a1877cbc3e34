"""A twsock protocol whose handler is called for each frame and answers each by itself."""

from __future__ import annotations

from typing import Any

from typing_extensions import override

from benchmarks.servers.twisted_program import run
from twsock.protocols import FrameProtocol, StreamServerFactory

__all__ = ["Answer"]


class Answer(FrameProtocol):
    """Sends back what comes, frame by frame."""

    @override
    def frame_received(self, payload: bytes) -> None:
        self.send_frame(payload)


def _make_factory(reactor: Any) -> StreamServerFactory:
    return StreamServerFactory(reactor, Answer)


if __name__ == "__main__":
    run(_make_factory)
