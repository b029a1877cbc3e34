"""Connections that change their owner, on every reactor: no byte is lost or doubled."""

from __future__ import annotations

import hashlib
import socket
import struct
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from tests.loopback.contract import OnEveryReactor
from twsock import EndOfStreamError, LocalProtocolError, StreamSocket
from twsock.protocols import FrameProtocol
from twsock.wire import encode_frame

#: How often a connection changes its owner.
HANDOVERS: Final = 30


class Keeping(FrameProtocol):
    """Answers each frame with its digest; keeps how it ended."""

    def __init__(self) -> None:
        self.losses: list[object] = []

    def frame_received(self, payload: bytes) -> None:
        self.send_frame(hashlib.sha256(payload).digest() + payload)

    def connection_lost(self, error: object) -> None:
        self.losses.append(error)


def pair() -> tuple[socket.socket, socket.socket]:
    """Connect two TCP sockets."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        near = socket.create_connection(listening.getsockname())
        return near, listening.accept()[0]


class HandoverTests(OnEveryReactor):
    """``detach`` and ``from_socket``."""

    def test_a_protocol_moves_under_traffic(self) -> None:
        """Frames of any size, with partial ones in both directions at the moves."""

        async def work(reactor: Any) -> None:
            # A smaller buffer would hold less than one segment of the loopback interface, and each
            # segment would then wait for a delayed acknowledgement.
            await self.move_under_traffic(reactor, pair(), 64 * 1024)
            kept = await self.move_under_traffic(reactor, socket.socketpair(), 16 * 1024)
            self.assertGreater(min(kept), 0)

        self.conduct(work)

    async def move_under_traffic(
        self, reactor: Any, ends: tuple[socket.socket, socket.socket], size_of_buffer: int
    ) -> tuple[int, int]:
        """Return at how many moves there were unread and unsent bytes."""
        here, there = ends
        here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size_of_buffer)
        peer = StreamSocket.from_socket(reactor, there)
        payloads = [bytes([number]) * (number * number * 97) for number in range(60)]
        sending = peer.output_stream.write(b"".join(map(encode_frame, payloads)))
        server = Keeping.from_socket(reactor, here)
        owners = [server]
        unread = unsent = 0
        for number, payload in enumerate(payloads):
            size = struct.unpack("!I", await peer.input_stream.receive_exactly(4))[0]
            answer = await peer.input_stream.receive_exactly(size)
            self.assertEqual(answer, hashlib.sha256(payload).digest() + payload)
            # The last ones are larger than the buffer.
            if number >= len(payloads) - HANDOVERS:
                detached = server.detach()
                unread += bool(detached.unread)
                unsent += bool(detached.unsent)
                server = Keeping.from_socket(
                    reactor, detached.socket, unread=detached.unread, unsent=detached.unsent
                )
                owners.append(server)
        await sending
        self.assertEqual([owner.losses for owner in owners], [[None]] * HANDOVERS + [[]])
        await peer.close()
        await server.close()
        await peer.wait_closed()
        return unread, unsent

    def test_a_stream_socket_moves_with_its_bytes(self) -> None:
        """Unread bytes are read first, unsent ones are sent first, and a flush waits for them."""

        async def work(reactor: Any) -> None:
            here, there = pair()
            here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
            near = StreamSocket.from_socket(reactor, here)
            far = StreamSocket.from_socket(reactor, there)
            data = bytes(range(256)) * 16_384
            await far.output_stream.write(b"question")
            near.output_stream.send_all(data)
            while near.input_stream.buffered < 8:
                await deferLater(reactor, 0)
            near.cancel_io()
            detached = near.detach()
            self.assertTrue(detached.unsent)
            again = StreamSocket.from_socket(
                reactor, detached.socket, unread=detached.unread, unsent=detached.unsent
            )
            flushing: Deferred[bool] = again.output_stream.flush()
            self.assertFalse(flushing.called)
            again.output_stream.write(b"later")
            self.assertEqual(await again.input_stream.receive_exactly(8), b"question")
            self.assertEqual(await far.input_stream.receive_exactly(len(data)), data)
            self.assertEqual(await far.input_stream.receive_exactly(5), b"later")
            await flushing
            await again.close()
            with self.assertRaises(EndOfStreamError):
                await far.input_stream.receive_exactly(1)
            await far.close()
            await again.wait_closed()

        self.conduct(work)

    def test_the_options_of_the_socket_do_not_change(self) -> None:
        """Above all not ``SO_LINGER``: the close of the next owner would be a reset."""

        async def work(reactor: Any) -> None:
            here, there = pair()
            with there:
                detached = StreamSocket.from_socket(reactor, here).detach()
                with detached.socket as taken:
                    linger = taken.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)
                    self.assertEqual(linger, bytes(8))
                    taken.send(b"both")
                    self.assertEqual(there.recv(4), b"both")
                    there.send(b"ways")
                    taken.settimeout(None)
                    self.assertEqual(taken.recv(4), b"ways")

        self.conduct(work)

    def test_a_refused_hand_over_changes_nothing(self) -> None:
        """The connection goes on where it was."""

        async def work(reactor: Any) -> None:
            here, there = pair()
            near = StreamSocket.from_socket(reactor, here)
            far = StreamSocket.from_socket(reactor, there)
            reading = near.input_stream.receive_some()
            self.assertRaises(LocalProtocolError, near.detach)
            await far.output_stream.write(b"data")
            self.assertEqual(await reading, b"data")
            await near.close()
            await far.close()
            await near.wait_closed()

        self.conduct(work)


globals().update(HandoverTests.makeTestCaseClasses())
