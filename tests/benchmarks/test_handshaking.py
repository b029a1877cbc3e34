"""Tests of `benchmarks.handshaking`, over loopback."""

from __future__ import annotations

import socket
import ssl
import sys

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.client import encode_frame
from benchmarks.handshaking import HandshakeCost, connect, measure_handshakes, round_trip
from benchmarks.processes import ServerError
from tests.benchmarks.tls_peer import TlsPeer, echo

_FRAME = encode_frame(bytes(range(64)))


def _measure(peer: TlsPeer, count: int, *, resumes: bool = False) -> HandshakeCost:
    return measure_handshakes(peer.running, peer.client, count, resumes=resumes, sleeps=True)


class MeasureHandshakesTests(SynchronousTestCase):
    """One connection after the other: handshake, echo, end."""

    if sys.platform != "linux":
        skip = "the benchmarks need Linux"

    def test_full_handshakes_are_counted(self) -> None:
        """None of them takes up a session, though the server would let it."""
        cost = _measure(TlsPeer(self, echo), 3)
        self.assertEqual((cost.handshakes, cost.resumed), (3, 0))
        self.assertGreater(cost.cpu, 0)

    def test_resumed_handshakes_are_counted(self) -> None:
        """All do, as there is a session from the first that is counted on."""
        cost = _measure(TlsPeer(self, echo), 3, resumes=True)
        self.assertEqual((cost.handshakes, cost.resumed), (3, 3))

    def test_server_without_tickets_resumes_none(self) -> None:
        """That is no error, but it shows."""
        cost = _measure(TlsPeer(self, echo, tickets=0), 3, resumes=True)
        self.assertEqual((cost.handshakes, cost.resumed), (3, 0))

    def test_cipher_is_that_of_the_server(self) -> None:
        """It is what either side says that they agreed on."""
        ciphers = []

        def serve(peer: ssl.SSLSocket) -> None:
            ciphers.append(peer.cipher())
            echo(peer)

        cost = _measure(TlsPeer(self, serve), 1)
        self.assertEqual({cipher and cipher[0] for cipher in ciphers}, {cost.cipher})

    def test_each_handshake_carries_a_frame_and_ends(self) -> None:
        """The server gets one frame and then the end, as often while warming up as counted."""
        received = []

        def serve(peer: ssl.SSLSocket) -> None:
            frame = peer.recv(1000)
            peer.sendall(frame)
            received.append((frame, peer.recv(1000)))

        _measure(TlsPeer(self, serve), 3)
        self.assertEqual(received, [(_FRAME, b"")] * 6)

    def test_lost_connection_is_refused(self) -> None:
        """The error names the server."""
        peer = TlsPeer(self, echo, turned_away=[4])
        with self.assertRaisesRegex(ServerError, "^twsock FrameEcho: "):
            _measure(peer, 3)

    def test_failed_handshake_is_refused(self) -> None:
        """As with a certificate that is not the one of the run; the error has the cause."""
        peer = TlsPeer(self, echo)
        other = TlsPeer(self, echo).client
        with self.assertRaisesRegex(ServerError, "^twsock FrameEcho: .*CERTIFICATE_VERIFY_FAILED"):
            measure_handshakes(peer.running, other, 1, resumes=False, sleeps=True)


class RoundTripTests(SynchronousTestCase):
    """A frame there and back."""

    def test_answer_may_come_in_pieces(self) -> None:
        """A record for each byte is an echo as well."""

        def serve(peer: ssl.SSLSocket) -> None:
            for byte in peer.recv(1000):
                peer.send(bytes([byte]))
            peer.recv(1)

        peer = TlsPeer(self, serve)
        connection = peer.connect()
        round_trip(peer.running, connection, sleeps=True)
        self.assertRaises(BlockingIOError, connection.receive_into, memoryview(bytearray(1)))

    def test_waiting_awake_gives_the_same(self) -> None:
        """It is the kernel that is asked more often, nothing else."""
        peer = TlsPeer(self, echo)
        connection = peer.connect()
        for _ in range(2):
            round_trip(peer.running, connection, sleeps=False)
        self.assertRaises(BlockingIOError, connection.receive_into, memoryview(bytearray(1)))

    def test_other_answer_is_refused(self) -> None:
        """One changed byte is enough."""
        peer = TlsPeer(self, lambda peer: peer.sendall(peer.recv(1000)[:-1] + b"!"))
        with self.assertRaisesRegex(ServerError, "does not echo"):
            round_trip(peer.running, peer.connect(), sleeps=True)

    def test_end_is_refused(self) -> None:
        """A part of an answer is none."""
        peer = TlsPeer(self, lambda peer: peer.sendall(peer.recv(1000)[:-1]))
        with self.assertRaisesRegex(ServerError, "hung up"):
            round_trip(peer.running, peer.connect(), sleeps=True)


class ConnectTests(SynchronousTestCase):
    """The connection before its handshake."""

    def test_frames_leave_at_once(self) -> None:
        """The kernel does not hold them back to gather more."""
        with connect(TlsPeer(self, echo).running) as connection:
            self.assertTrue(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))


class HandshakeCostTests(SynchronousTestCase):
    """What the figures amount to."""

    def test_rate_is_by_the_second_of_processor_time(self) -> None:
        """Ten in two milliseconds are 5,000 in a second."""
        cost = HandshakeCost(handshakes=10, cpu=2_000_000, resumed=0, cipher="")
        self.assertEqual(cost.rate, 5000)
