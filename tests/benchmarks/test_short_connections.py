"""Tests of `benchmarks.short_connections`, over loopback."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.connections import FRAME
from benchmarks.processes import MeasurementError
from benchmarks.short_connections import BENCHMARK, measure_connections
from tests.benchmarks.commands import run_small


class MeasureConnectionsTests(SynchronousTestCase):
    """One connection after the other: a frame there and back, and the end."""

    if sys.platform != "linux":
        skip = "the benchmarks need Linux"

    def serve(self, answer: Callable[[socket.socket], None]) -> int:
        """Answer connections in a thread, one after the other; return the port."""
        listening = socket.create_server(("127.0.0.1", 0))

        def accept() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    answer(connection)

        thread = threading.Thread(target=accept)
        thread.start()

        def stop() -> None:
            listening.shutdown(socket.SHUT_RDWR)
            listening.close()
            thread.join()

        self.addCleanup(stop)
        return int(listening.getsockname()[1])

    def test_each_connection_carries_a_frame_and_ends(self) -> None:
        """Warm-up has at most the counted number. The client ends its output after the answer."""
        received = []

        def echo(peer: socket.socket) -> None:
            frame = peer.recv(1000)
            peer.sendall(frame)
            received.append((frame, peer.recv(1000)))

        for sleeps in (True, False):
            figures = measure_connections(self.serve(echo), os.getpid(), 3, sleeps=sleeps)
            self.assertGreater(figures["cpu"], 0, f"{sleeps=}")
        self.assertEqual(received, [(FRAME, b"")] * 12)

    def test_bytes_after_the_echo_are_an_error(self) -> None:
        """A server that sends more than the echo does other work than the others."""

        def talk(peer: socket.socket) -> None:
            peer.sendall(peer.recv(1000))
            peer.recv(1000)
            peer.sendall(b"more")

        with self.assertRaisesRegex(MeasurementError, "more than an echo"):
            measure_connections(self.serve(talk), os.getpid(), 1, sleeps=True)


class ShortConnectionsTests(SynchronousTestCase):
    """``python -m benchmarks short-connections``."""

    if sys.platform != "linux":
        skip = "the benchmarks need Linux"

    def test_run_reports_the_processor_time_of_each_server(self) -> None:
        """All servers echo, and close after their peer."""
        options = ("--connections", "3", "--servers", "echo,echo-lean,sockets,int32")
        servers = run_small(self, BENCHMARK, *options)
        self.assertEqual(list(servers), ["echo", "echo-lean", "sockets", "int32"])
        for name, server in servers.items():
            self.assertGreater(server["cases"]["short"]["cpu"], 0, name)
