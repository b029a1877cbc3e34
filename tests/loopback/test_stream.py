"""Stream protocols on real connections, on every reactor."""

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
    """Servers as a plain socket sees them."""

    def test_frames_come_back_however_they_are_cut(self) -> None:
        """The peer uses only ``struct``."""

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
        """The peer sends lines with either line end."""

        def peer(address: tuple[str, int]) -> None:
            with connect(address) as connection:
                connection.sendall(b"Hello, World!\r\nbare\n")
                self.assertEqual(receive_exactly(connection, 21), b"Hello, World!\r\nbare\r\n")

        self.serve(LineEcho, peer)

    def test_after_a_peers_fin_every_answer_arrives_before_fin(self) -> None:
        """Answers of handlers that still run when FIN arrives are sent before the server's FIN."""

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
        """The server holds less than the high-water mark plus one frame for such a peer."""
        held: list[int] = []
        paused = threading.Event()
        size = 100_000

        class Measured(FrameEcho):
            def writing_paused(self) -> None:
                held.append(queued_bytes(self.transport))
                paused.set()

        frame = encode_frame(bytes(size))
        rounds = 200

        def peer(address: tuple[str, int]) -> None:
            with connect(address) as connection:
                sender = threading.Thread(target=connection.sendall, args=(frame * rounds,))
                sender.start()
                # Nothing is read until no more bytes fit into the buffers.
                self.assertTrue(paused.wait(60))
                self.assertTrue(sender.is_alive())
                for attempt in range(rounds):
                    self.assertEqual(receive_exactly(connection, len(frame)), frame, f"{attempt=}")
                sender.join()

        self.serve(Measured, peer)
        self.assertTrue(held)
        # One read may complete one frame, and bring as many whole frames as fit into it.
        self.assertLess(max(held), HIGH_WATER + 128_000 + len(frame))

    def test_a_reset_with_unread_input_ends_with_the_idle_timeout(self) -> None:
        """While a handler runs and reading is paused, only the timeout detects the reset."""
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
            connection.settimeout(0.1)
            # The bytes sent until the sender blocks fill all buffers: the server reads no more.
            with self.assertRaises(TimeoutError):
                for _ in range(1000):
                    connection.sendall(encode_frame(bytes(100_000)))
            self.assertTrue(handling.wait(60))
            self.assertFalse(ended.is_set())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
            # As the registry does at the timeout, which the test would else have to wait for.
            (protocol,) = protocols
            protocol.clock.callFromThread(protocol.end_if_idle)
            self.assertTrue(ended.wait(60))

        self.serve(Endless, peer)

    def test_a_reset_is_reported_with_its_status(self) -> None:
        """The status is `CONNECTION_RESET_BY_PEER`."""
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

    def test_closing_with_unread_input_is_no_reset(self) -> None:
        """The server closes while its peer still sends: the answer and FIN arrive."""

        class Once(FrameProtocol):
            def frame_received(self, payload: bytes) -> None:
                self.send_frame(b"enough")
                self.close()

        def peer(address: tuple[str, int]) -> None:
            with connect(address) as connection:
                connection.sendall(encode_frame(bytes(100_000)) * 20)
                self.assertEqual(receive_all(connection), encode_frame(b"enough"))

        self.serve(Once, peer)

    def test_a_length_above_the_limit_resets_the_connection(self) -> None:
        """The connection is aborted at the length prefix."""

        def peer(address: tuple[str, int]) -> None:
            with connect(address) as connection:
                connection.sendall(b"\xff\xff\xff\xff")
                self.assertRaises(ConnectionResetError, connection.recv, 1)

        self.serve(FrameEcho, peer)

    def test_a_peer_above_the_connection_limit_waits(self) -> None:
        """It connects, and is served when another connection ends; no peer is refused."""

        def peer(address: tuple[str, int]) -> None:
            frame = encode_frame(b"x")
            first, second, third = (connect(address) for _ in range(3))
            for name, connection in (("first", first), ("second", second)):
                connection.sendall(frame)
                self.assertEqual(receive_exactly(connection, len(frame)), frame, f"{name=}")
            third.sendall(frame)
            third.settimeout(0.05)
            self.assertRaises(TimeoutError, third.recv, 1)
            first.close()
            third.settimeout(60)
            self.assertEqual(receive_exactly(third, len(frame)), frame)
            second.close()
            third.close()

        factory = self.serve(FrameEcho, peer, max_connections=2)
        self.assertEqual(factory.counters.accepted, 3)
        self.assertEqual(factory.counters.refused, 0)

    def test_a_drain_answers_bytes_that_wait_in_the_kernel(self) -> None:
        """They arrived before the drain, and the server had not read them yet."""
        frame = encode_frame(b"last words")
        sent = threading.Event()

        class Draining(FrameEcho):
            def connection_made(self) -> None:
                # The reactor does not run until the peer has sent: the bytes wait in the kernel.
                sent.wait(60)
                self.drain()

        def peer(address: tuple[str, int]) -> None:
            with connect(address) as connection:
                connection.sendall(frame)
                sent.set()
                self.assertEqual(receive_all(connection), frame)

        self.serve(Draining, peer)

    def test_a_frame_of_several_megabytes_comes_back(self) -> None:
        """It is whole."""
        frame = encode_frame(bytes(range(256)) * 16_384)

        def peer(address: tuple[str, int]) -> None:
            with connect(address) as connection:
                sender = threading.Thread(target=connection.sendall, args=(frame,))
                sender.start()
                self.assertEqual(receive_exactly(connection, len(frame)), frame)
                sender.join()

        self.serve(FrameEcho, peer)

    def test_a_handler_of_a_lost_peer_is_cancelled_at_the_idle_timeout(self) -> None:
        """The peer ended in order, or was reset unseen."""
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
                # So many bytes that reading is paused, and a reset is not seen.
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
