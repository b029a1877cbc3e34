"""Tests of `benchmarks.connections`, over loopback."""

from __future__ import annotations

import socket
import ssl

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.connections import connect, round_trip
from benchmarks.processes import MeasurementError
from tests.benchmarks.tls_peer import TlsPeer, echo


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
        round_trip(connection, sleeps=True)
        self.assertRaises(BlockingIOError, connection.receive_into, memoryview(bytearray(1)))

    def test_waiting_awake_gives_the_same(self) -> None:
        """It is the kernel that is asked more often, nothing else."""
        peer = TlsPeer(self, echo)
        connection = peer.connect()
        for _ in range(2):
            round_trip(connection, sleeps=False)
        self.assertRaises(BlockingIOError, connection.receive_into, memoryview(bytearray(1)))

    def test_other_answer_is_refused(self) -> None:
        """One changed byte is enough."""
        peer = TlsPeer(self, lambda peer: peer.sendall(peer.recv(1000)[:-1] + b"!"))
        with self.assertRaisesRegex(MeasurementError, "differs"):
            round_trip(peer.connect(), sleeps=True)

    def test_end_is_refused(self) -> None:
        """A part of an answer is none."""
        peer = TlsPeer(self, lambda peer: peer.sendall(peer.recv(1000)[:-1]))
        with self.assertRaisesRegex(MeasurementError, "hung up"):
            round_trip(peer.connect(), sleeps=True)


class ConnectTests(SynchronousTestCase):
    """The connection before its handshake."""

    def test_frames_leave_at_once(self) -> None:
        """The kernel does not hold them back to gather more."""
        with connect(TlsPeer(self, echo).port) as connection:
            self.assertTrue(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
