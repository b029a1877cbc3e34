"""
Sends each WebSocket message to all connections that have sent none, with twsock's ``broadcast``.

The factory has its defaults, and compression is allowed. With ``--sends``, the message is encoded
once, and a loop passes its bytes to the socket of each connection; nothing is compressed. A server
in Python cannot send to many connections with less work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.programs.serving import install, make_parser, serve

__all__ = ["main"]


def _make_factory(reactor: Any) -> Any:
    from twsock.protocols import WebSocketFactory, WebSocketProtocol, broadcast
    from twsock.websocket import DeflateSettings

    receivers: set[WebSocketProtocol] = set()

    class Listening(WebSocketProtocol):
        def connection_made(self) -> None:
            receivers.add(self)

        def binary_received(self, data: bytes) -> None:
            receivers.discard(self)
            broadcast(receivers, data)

        def connection_lost(self, error: object) -> None:
            receivers.discard(self)

    return WebSocketFactory(reactor, Listening, compression=DeflateSettings())


def _make_bare_factory(reactor: Any) -> Any:
    from twsock.protocols import WebSocketFactory, WebSocketProtocol
    from twsock.websocket.frames import Opcode, encode_frame

    sends: dict[WebSocketProtocol, Callable[[bytes], int]] = {}

    class Listening(WebSocketProtocol):
        def connection_made(self) -> None:
            sends[self] = self.transport.getHandle().send

        def binary_received(self, data: bytes) -> None:
            sends.pop(self, None)
            frame = encode_frame(Opcode.BINARY, data)
            for send in sends.values():
                send(frame)

        def connection_lost(self, error: object) -> None:
            sends.pop(self, None)

    return WebSocketFactory(reactor, Listening)


def main(argv: Sequence[str]) -> None:
    """Serve, as the command line says."""
    parser = make_parser()
    parser.add_argument("--sends", action="store_true", help="only send, and nothing else")
    options = parser.parse_args(argv)
    reactor = install(options.reactor)
    serve(reactor, (_make_bare_factory if options.sends else _make_factory)(reactor))
