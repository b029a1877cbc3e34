"""Tests of `benchmarks.client`, over loopback."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.cases import Case
from benchmarks.client import EchoError, Load

_CASE = Case("A", payload=64, window=8)


class LoadTests(SynchronousTestCase):
    """Frames are kept in flight, and what comes back is looked at."""

    def start_load(self, answer: Callable[[bytes], bytes]) -> Load:
        """A load on a server that answers each read with what the function makes of it."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                while data := connection.recv(1000):
                    connection.sendall(answer(data))

        server = threading.Thread(target=serve)
        server.start()
        load = Load(listener.getsockname(), _CASE, sleeps=True)
        self.addCleanup(server.join)
        self.addCleanup(load.close)
        return load

    def test_echo_is_counted(self) -> None:
        """At least the first window comes back."""
        self.assertGreaterEqual(self.start_load(lambda data: data).run(0.01), _CASE.window)

    def test_second_run_goes_on_where_the_first_ended(self) -> None:
        """The contents go on in the same order, so they are still the expected ones."""
        load = self.start_load(lambda data: data)
        load.run(0.01)
        self.assertGreaterEqual(load.run(0.01), _CASE.window)

    def test_changed_byte_is_refused(self) -> None:
        """One wrong byte at the end of an answer is enough."""
        load = self.start_load(lambda data: data[:-1] + bytes([data[-1] ^ 1]))
        self.assertRaises(EchoError, load.run, 0.01)

    def test_end_of_the_connection_is_refused(self) -> None:
        """A server that hangs up is not measured."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        load = Load(listener.getsockname(), _CASE, sleeps=True)
        self.addCleanup(load.close)
        connection, _ = listener.accept()
        connection.shutdown(socket.SHUT_WR)
        self.addCleanup(connection.close)
        self.assertRaises(EchoError, load.run, 0.01)
