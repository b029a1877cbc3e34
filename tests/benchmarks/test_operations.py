"""Tests of `benchmarks.operations`, over loopback."""

from __future__ import annotations

import socket
import sys
import threading

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.operations import BENCHMARK, scraped
from benchmarks.processes import MeasurementError
from tests.benchmarks.commands import run_small


class ScrapedTests(SynchronousTestCase):
    """A page that is read again and again."""

    if sys.platform != "linux":
        skip = "abstract UNIX sockets are of Linux"

    def scrape(self, answer: bytes) -> list[int]:
        """Read a page once; return the sizes of the answers."""
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind("")  # The kernel chooses an abstract address.
            listening.listen()

            def serve() -> None:
                connection, _ = listening.accept()
                with connection:
                    connection.recv(1000)
                    connection.sendall(answer)

            server = threading.Thread(target=serve)
            server.start()
            with scraped(listening.getsockname().decode(), 60) as sizes:
                server.join()
            return sizes

    def test_the_page_is_read_during_the_block(self) -> None:
        """The end of the block ends the wait for the next request."""
        answer = b"HTTP/1.1 200 OK\r\n\r\n"
        self.assertEqual(self.scrape(answer), [len(answer)])

    def test_an_error_of_the_page_is_reported(self) -> None:
        """At the end of the block."""
        with self.assertRaisesRegex(MeasurementError, "it answered b'HTTP/1.1 404 "):
            self.scrape(b"HTTP/1.1 404 Not Found\r\n\r\n")


class OperationsTests(SynchronousTestCase):
    """``python -m benchmarks operations``."""

    if sys.platform != "linux":
        skip = "the benchmarks need Linux"

    def test_run_reports_the_processor_time_of_each_service(self) -> None:
        """Metrics are scraped, and connections logged."""
        options = ("--connections", "3", "--seconds", "0.02", "--cases", "B,short")
        servers = run_small(self, BENCHMARK, *options)
        self.assertEqual(list(servers)[:3], ["service", "service-metrics", "service-log"])
        for name, server in servers.items():
            for case, figures in server["cases"].items():
                self.assertGreater(figures["cpu"], 0, (name, case))
