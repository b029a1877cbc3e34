"""Tests of `benchmarks.pending`, over loopback."""

from __future__ import annotations

import ssl
import sys

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.connections import FRAME
from benchmarks.pending import BENCHMARK, measure_pending
from benchmarks.processes import MeasurementError
from tests.benchmarks.commands import run_small
from tests.benchmarks.tls_peer import TlsPeer, echo


def _measure(peer: TlsPeer, pending: int, round_trips: int = 8) -> dict[str, float]:
    return measure_pending(peer.port, peer.client, pending, round_trips, sleeps=True)


class MeasurePendingTests(SynchronousTestCase):
    """Round trips on one connection, without silent ones and beside them."""

    def test_both_kinds_of_round_trips_are_timed(self) -> None:
        """Their ratio says how many times longer it takes beside the silent ones."""
        cost = _measure(TlsPeer(self, echo), 5)
        self.assertGreater(min(cost["alone"], cost["beside"]), 0)
        self.assertAlmostEqual(cost["ratio"], cost["beside"] / cost["alone"])

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
        self.assertEqual([len(each) / len(FRAME) for each in served], [16, 1])

    def test_ended_handshakes_are_refused(self) -> None:
        """What was measured then is not what it says."""
        with self.assertRaisesRegex(MeasurementError, "2 silent handshakes were ended"):
            _measure(TlsPeer(self, echo, turned_away=[1, 4]), 5)

    def test_lost_connection_is_refused(self) -> None:
        """There is nothing to time then."""
        with self.assertRaises(OSError):
            _measure(TlsPeer(self, echo, turned_away=[0]), 5)

    def test_other_answer_is_refused(self) -> None:
        """What does not echo is not timed."""
        peer = TlsPeer(self, lambda peer: peer.sendall(bytes(len(peer.recv(1000)))))
        with self.assertRaisesRegex(MeasurementError, "differs"):
            _measure(peer, 5)


class PendingTests(SynchronousTestCase):
    """``python -m benchmarks pending``."""

    if sys.platform != "linux":
        skip = "the benchmarks need Linux"

    def test_run_reports_both_round_trips(self) -> None:
        """With the silent handshakes of a real server."""
        options = ("--pending", "4", "--round-trips", "5", "--servers", "sockets")
        figures = run_small(self, BENCHMARK, *options)["sockets"]["cases"]["pending"]
        self.assertGreater(min(figures["alone"], figures["beside"]), 0)
