"""A broadcast on real connections, one of whose peers never reads."""

from __future__ import annotations

import socket
from typing import ClassVar

from tests.loopback.reactors import receive_exactly
from tests.loopback.test_websocket import Address, WebSocketBuilder, raw, reset
from tests.websocket.connections import binary
from twsock.errors import SocketError
from twsock.protocols import WebSocketProtocol, broadcast

MAX_UNSENT = 200_000
MESSAGE = 64 * 1024
HEADER = 10

#: More than a kernel buffers for one connection.
ROUNDS = 400


class Repeating(WebSocketProtocol):
    """Sends each message to all connections; notes the most bytes that one has queued."""

    everybody: ClassVar[set[WebSocketProtocol]] = set()
    most = 0

    def connection_made(self) -> None:
        self.everybody.add(self)

    def connection_lost(self, error: SocketError | None) -> None:
        self.everybody.discard(self)

    def binary_received(self, data: bytes) -> None:
        broadcast(self.everybody, data)
        Repeating.most = max(Repeating.most, *[one.unsent for one in self.everybody], 0)


class BroadcastTests(WebSocketBuilder):
    """A slow peer among others."""

    def test_peer_that_never_reads_is_bounded_and_stops_nobody(self) -> None:
        """The peer is aborted at ``max_unsent``; another peer receives every message."""

        def peer(address: Address) -> None:
            message = binary(b"x" * MESSAGE)
            with raw(address) as slow, raw(address) as fast:
                slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                for number in range(ROUNDS):
                    fast.sendall(message)
                    received = receive_exactly(fast, MESSAGE + HEADER)
                    self.assertEqual(received[-MESSAGE:], b"x" * MESSAGE, number)
                reset(slow)

        Repeating.most = 0
        factory = self.serve(Repeating, peer, max_unsent=MAX_UNSENT)
        self.assertEqual(factory.counters.unsent_limit_aborts, 1)
        self.assertGreater(Repeating.most, 64 * 1024)
        self.assertLess(Repeating.most, MAX_UNSENT + MESSAGE + HEADER)


globals().update(BroadcastTests.makeTestCaseClasses())
