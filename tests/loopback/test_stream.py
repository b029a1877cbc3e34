"""Streams behave on a real kernel as they do in memory, on every reactor."""

from __future__ import annotations

import socket
import struct
import threading
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from tests.loopback.reactors import EveryReactor, connect, receive_all, receive_exactly
from twsock.errors import SocketError, SocketErrorStatus
from twsock.protocols import FrameEcho, FrameProtocol, LineEcho
from twsock.stream.descriptor import queued_bytes
from twsock.stream.transport import HIGH_WATER
from twsock.wire import encode_frame


class LoopbackTests(EveryReactor):
    """What a peer with a plain socket sees."""

    def test_frames_come_back(self) -> None:
        """A peer that knows only ``struct`` gets its frames back, however it cut them."""

        def peer(address: tuple[str, int]) -> None:
            with connect(address) as connection:
                stream = b"".join(
                    struct.pack(">I", size) + bytes(size) for size in (0, 1, 13, 70_000)
                )
                connection.sendall(stream[:3])
                connection.sendall(stream[3:])
                self.assertEqual(receive_exactly(connection, len(stream)), stream)

        factory = self.serve(FrameEcho, peer)
        self.assertEqual(factory.counters.messages, 4)

    def test_lines_come_back(self) -> None:
        """A peer that sends lines gets lines."""

        def peer(address: tuple[str, int]) -> None:
            with connect(address) as connection:
                connection.sendall(b"Hello, World!\r\nbare\n")
                self.assertEqual(receive_exactly(connection, 21), b"Hello, World!\r\nbare\r\n")

        self.serve(LineEcho, peer)

    def test_a_peer_that_ends_gets_every_answer_then_fin(self) -> None:
        """Answers still being worked on when FIN arrives reach the peer before FIN goes back."""

        class Slow(FrameProtocol):
            async def frame_received(self, payload: bytes) -> None:
                await deferLater(self.clock, 0.01)
                self.send_frame(payload)

        stream = b"".join(encode_frame(b"%d" % number) for number in range(10))

        def peer(address: tuple[str, int]) -> None:
            with connect(address) as connection:
                connection.sendall(stream + b"\x00\x00")
                connection.shutdown(socket.SHUT_WR)
                self.assertEqual(receive_all(connection), stream)

        self.serve(Slow, peer)

    def test_a_peer_that_does_not_read_is_not_read_from(self) -> None:
        """What the server holds for such a peer stays below high water plus one frame."""
        held: list[int] = []
        size = 100_000

        class Measured(FrameEcho):
            def writing_paused(self) -> None:
                held.append(queued_bytes(self.transport))

        frame = encode_frame(bytes(size))
        rounds = 200

        def peer(address: tuple[str, int]) -> None:
            with connect(address) as connection:
                sender = threading.Thread(target=connection.sendall, args=(frame * rounds,))
                sender.start()
                # Nothing is read until the sender is stuck: no more than the buffers hold fits.
                sender.join(0.5)
                self.assertTrue(sender.is_alive())
                for attempt in range(rounds):
                    self.assertEqual(receive_exactly(connection, len(frame)), frame, f"{attempt=}")
                sender.join()

        self.serve(Measured, peer)
        self.assertTrue(held)
        # One read may bring the rest of one frame and, whole, what else fits in it.
        self.assertLess(max(held), HIGH_WATER + 128_000 + len(frame))

    def test_a_peer_that_resets_unread_ends_with_the_idle_timeout(self) -> None:
        """While a handler runs and reading is paused, only this check detects the reset."""
        handling, ended = threading.Event(), threading.Event()
        protocols: list[Any] = []

        class Endless(FrameProtocol):
            def frame_received(self, payload: bytes) -> Deferred[None]:
                protocols.append(self)
                handling.set()
                return Deferred()

            def connection_lost(self, error: SocketError | None) -> None:
                ended.set()

        def peer(address: tuple[str, int]) -> None:
            connection = connect(address)
            connection.settimeout(0.5)
            # What is sent until it is stuck has filled all buffers: nobody reads it any more.
            with self.assertRaises(TimeoutError):
                for _ in range(1000):
                    connection.sendall(encode_frame(bytes(100_000)))
            self.assertTrue(handling.wait(60))
            self.assertFalse(ended.is_set())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
            # As the group does at the timeout, which would be one of the test as well.
            (protocol,) = protocols
            protocol.clock.callFromThread(protocol.end_if_idle)
            self.assertTrue(ended.wait(60))

        self.serve(Endless, peer)

    def test_a_reset_is_told_with_its_status(self) -> None:
        """A peer that resets ends its connection with `CONNECTION_RESET_BY_PEER`."""
        lost: list[SocketError | None] = []

        class Watching(FrameEcho):
            def connection_lost(self, error: SocketError | None) -> None:
                lost.append(error)

        def peer(address: tuple[str, int]) -> None:
            connection = connect(address)
            connection.sendall(encode_frame(b""))
            receive_exactly(connection, 4)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

        self.serve(Watching, peer)
        (error,) = lost
        assert error is not None
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_RESET_BY_PEER)

    def test_closing_over_unread_input_is_no_reset(self) -> None:
        """A server that closes while its peer still sends: the answer and FIN arrive."""

        class Once(FrameProtocol):
            def frame_received(self, payload: bytes) -> None:
                self.send_frame(b"enough")
                self.close()

        def peer(address: tuple[str, int]) -> None:
            with connect(address) as connection:
                connection.sendall(encode_frame(bytes(100_000)) * 20)
                self.assertEqual(receive_all(connection), encode_frame(b"enough"))

        self.serve(Once, peer)

    def test_a_length_above_the_limit_is_a_reset(self) -> None:
        """A peer that announces too much loses its connection at the prefix."""

        def peer(address: tuple[str, int]) -> None:
            with connect(address) as connection:
                connection.sendall(b"\xff\xff\xff\xff")
                self.assertRaises(ConnectionResetError, connection.recv, 1)

        self.serve(FrameEcho, peer)

    def test_above_the_limit_on_connections_a_peer_waits(self) -> None:
        """It connects, is not served, and is served when another ends: nobody is turned away."""

        def peer(address: tuple[str, int]) -> None:
            frame = encode_frame(b"x")
            first, second, third = (connect(address) for _ in range(3))
            for name, connection in (("first", first), ("second", second)):
                connection.sendall(frame)
                self.assertEqual(receive_exactly(connection, len(frame)), frame, f"{name=}")
            third.sendall(frame)
            third.settimeout(0.2)
            self.assertRaises(TimeoutError, third.recv, 1)
            first.close()
            third.settimeout(60)
            self.assertEqual(receive_exactly(third, len(frame)), frame)
            second.close()
            third.close()

        factory = self.serve(FrameEcho, peer, max_connections=2)
        self.assertEqual(factory.counters.accepted, 3)
        self.assertEqual(factory.counters.refused, 0)

    def test_draining_answers_what_is_in_the_kernel(self) -> None:
        """Bytes that arrived before a drain are answered, though nobody had read them yet."""
        frame = encode_frame(b"last words")
        sent = threading.Event()

        class Draining(FrameEcho):
            def connection_made(self) -> None:
                # The reactor stands still until the peer has sent: the bytes wait in the kernel.
                sent.wait(60)
                self.drain()

        def peer(address: tuple[str, int]) -> None:
            with connect(address) as connection:
                connection.sendall(frame)
                sent.set()
                self.assertEqual(receive_all(connection), frame)

        self.serve(Draining, peer)

    def test_large_frames_survive(self) -> None:
        """A frame of several megabytes comes back whole."""
        frame = encode_frame(bytes(range(256)) * 16_384)

        def peer(address: tuple[str, int]) -> None:
            with connect(address) as connection:
                sender = threading.Thread(target=connection.sendall, args=(frame,))
                sender.start()
                self.assertEqual(receive_exactly(connection, len(frame)), frame)
                sender.join()

        self.serve(FrameEcho, peer)

    def test_a_handler_does_not_wait_for_a_peer_that_is_gone(self) -> None:
        """Whether it ended in order or was cut off, it is cancelled when it has been idle."""
        cancelled: list[str] = []

        class Patient(FrameProtocol):
            async def frame_received(self, payload: bytes) -> None:
                try:
                    await Deferred()
                except CancelledError:
                    cancelled.append(payload[:7].decode())
                    raise

        def peer(address: tuple[str, int]) -> None:
            with connect(address) as ended:
                ended.sendall(encode_frame(b"in order"))
            with connect(address) as reset:
                # So much that reading is paused, and a reset goes unseen.
                reset.sendall(encode_frame(b"cut off") + bytes(200_000))
                reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            for _ in range(1000):
                if len(cancelled) == 2:
                    break
                threading.Event().wait(0.01)

        self.serve(Patient, peer, idle_timeout=0.2)
        self.assertEqual(sorted(cancelled), ["cut off", "in orde"])


cases: dict[str, Any] = LoopbackTests.makeTestCaseClasses()
globals().update(cases)
