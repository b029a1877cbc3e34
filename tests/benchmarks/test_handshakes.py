"""Tests of `benchmarks.handshakes`, over loopback."""

from __future__ import annotations

import os
import ssl
import sys

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.connections import FRAME
from benchmarks.handshakes import BENCHMARK, measure_handshakes, rate_per_second
from tests.benchmarks.commands import run_small
from tests.benchmarks.tls_peer import TlsPeer, echo


def _measure(peer: TlsPeer, count: int, *, resumes: bool = False) -> tuple[dict[str, float], str]:
    pid = os.getpid()  # The peer is a thread.
    return measure_handshakes(peer.port, pid, peer.client, count, resumes=resumes, sleeps=True)


class MeasureHandshakesTests(SynchronousTestCase):
    """One connection after the other: handshake, echo, end."""

    if sys.platform != "linux":
        skip = "the benchmarks need Linux"

    def test_full_handshakes_are_counted(self) -> None:
        """None of them takes up a session, though the server would let it."""
        figures, _ = _measure(TlsPeer(self, echo), 3)
        self.assertEqual(figures["resumed"], 0)
        self.assertGreater(figures["rate"], 0)

    def test_rate_is_by_the_second_of_processor_time(self) -> None:
        """Ten in two milliseconds are 5,000 in a second."""
        self.assertEqual(rate_per_second(10, 2_000_000), 5000)

    def test_resumed_handshakes_are_counted(self) -> None:
        """All do, as there is a session from the first that is counted on."""
        figures, _ = _measure(TlsPeer(self, echo), 3, resumes=True)
        self.assertEqual(figures["resumed"], 3)
        self.assertGreater(figures["rate"], 0)

    def test_server_without_tickets_has_no_rate_of_resumed_handshakes(self) -> None:
        """It is no error that none was resumed, but there is nothing to compare."""
        figures, _ = _measure(TlsPeer(self, echo, tickets=0), 3, resumes=True)
        self.assertEqual(figures, {"resumed": 0})

    def test_cipher_is_that_of_the_server(self) -> None:
        """It is what either side says that they agreed on."""
        ciphers = []

        def serve(peer: ssl.SSLSocket) -> None:
            ciphers.append(peer.cipher())
            echo(peer)

        _, agreed = _measure(TlsPeer(self, serve), 1)
        self.assertEqual({cipher and cipher[0] for cipher in ciphers}, {agreed})

    def test_each_handshake_carries_a_frame_and_ends(self) -> None:
        """The server gets one frame and then the end, as often while warming up as counted."""
        received = []

        def serve(peer: ssl.SSLSocket) -> None:
            frame = peer.recv(1000)
            peer.sendall(frame)
            received.append((frame, peer.recv(1000)))

        _measure(TlsPeer(self, serve), 3)
        self.assertEqual(received, [(FRAME, b"")] * 6)

    def test_lost_connection_is_refused(self) -> None:
        """Even the second of those that count is one."""
        peer = TlsPeer(self, echo, turned_away=[4])
        with self.assertRaises(OSError):
            _measure(peer, 3)

    def test_failed_handshake_is_refused(self) -> None:
        """As with a certificate that is not the one of the run."""
        peer = TlsPeer(self, echo)
        other = TlsPeer(self, echo).client
        with self.assertRaises(ssl.SSLCertVerificationError):
            measure_handshakes(peer.port, os.getpid(), other, 1, resumes=False, sleeps=True)


class HandshakesTests(SynchronousTestCase):
    """``python -m benchmarks handshakes``."""

    if sys.platform != "linux":
        skip = "the benchmarks need Linux"

    def test_run_reports_full_and_resumed_handshakes(self) -> None:
        """All servers shake hands, and resume what they are offered."""
        options = ("--handshakes", "3", "--servers", "int32,sockets")
        servers = run_small(self, BENCHMARK, *options)
        self.assertEqual(list(servers), ["int32", "sockets"])
        for name, server in servers.items():
            full, resumed = server["cases"]["full"], server["cases"]["resumed"]
            self.assertGreater(min(full["rate"], resumed["rate"]), 0, name)
            self.assertEqual((full["resumed"], resumed["resumed"]), (0, 3), name)
