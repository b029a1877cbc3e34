"""Tests of `benchmarks.pending`, over loopback."""

from __future__ import annotations

import ssl

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.client import encode_frame
from benchmarks.pending import PendingCost, measure_pending
from benchmarks.processes import ServerError
from tests.benchmarks.tls_peer import TlsPeer, echo

_FRAME_SIZE = len(encode_frame(bytes(64)))


def _measure(peer: TlsPeer, pending: int, round_trips: int = 8) -> PendingCost:
    return measure_pending(peer.running, peer.client, pending, round_trips, sleeps=True)


class MeasurePendingTests(SynchronousTestCase):
    """Round trips on one connection, without silent ones and beside them."""

    def test_both_kinds_of_round_trips_are_timed(self) -> None:
        """And it is noted how many were silent."""
        cost = _measure(TlsPeer(self, echo), 5)
        self.assertEqual(cost.pending, 5)
        self.assertGreater(min(cost.alone, cost.beside), 0)

    def test_established_connection_carries_the_round_trips(self) -> None:
        """As many before as beside; one more on another shows that all have been accepted."""
        served: list[bytearray] = []

        def serve(peer: ssl.SSLSocket) -> None:
            received = bytearray()
            served.append(received)
            while data := peer.recv(1000):
                received += data
                peer.sendall(data)

        _measure(TlsPeer(self, serve), 5, round_trips=8)
        self.assertEqual([len(each) / _FRAME_SIZE for each in served], [16, 1])

    def test_ended_handshakes_are_refused(self) -> None:
        """What was measured then is not what it says."""
        with self.assertRaisesRegex(ServerError, "ended 2 silent handshakes"):
            _measure(TlsPeer(self, echo, turned_away=[1, 4]), 5)

    def test_lost_connection_is_refused(self) -> None:
        """The error names the server."""
        with self.assertRaisesRegex(ServerError, "^twsock FrameEcho"):
            _measure(TlsPeer(self, echo, turned_away=[0]), 5)

    def test_other_answer_is_refused(self) -> None:
        """What does not echo is not timed."""
        peer = TlsPeer(self, lambda peer: peer.sendall(bytes(len(peer.recv(1000)))))
        with self.assertRaisesRegex(ServerError, "does not echo"):
            _measure(peer, 5)


class PendingCostTests(SynchronousTestCase):
    """What the figures amount to."""

    def test_ratio_is_how_many_times_longer(self) -> None:
        """Three instead of two is half as much again."""
        self.assertEqual(PendingCost(pending=5, alone=2, beside=3).ratio, 1.5)
