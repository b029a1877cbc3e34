"""Tests of `benchmarks.stream_load`, over loopback."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.processes import MeasurementError
from benchmarks.stream_load import Case, StreamLoad
from tests.benchmarks.tls_peer import TlsPeer, echo

_CASE = Case(payload=64, window=8)


class LoadTests(SynchronousTestCase):
    """Frames are kept in flight, and what comes back is looked at."""

    def start_load(self, answer: Callable[[bytes], bytes]) -> StreamLoad:
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
        load = StreamLoad(listener.getsockname()[1], _CASE, sleeps=True)
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
        self.assertRaises(MeasurementError, load.run, 0.01)

    def test_end_of_the_connection_is_refused(self) -> None:
        """A server that hangs up is not measured."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        load = StreamLoad(listener.getsockname()[1], _CASE, sleeps=True)
        self.addCleanup(load.close)
        connection, _ = listener.accept()
        connection.shutdown(socket.SHUT_WR)
        self.addCleanup(connection.close)
        self.assertRaises(MeasurementError, load.run, 0.01)


class SecureLoadTests(SynchronousTestCase):
    """Over TLS the frames are the same, and so is what is looked at."""

    def start_load(self, serve: Callable[[ssl.SSLSocket], None], case: Case = _CASE) -> StreamLoad:
        """A load on a server of TLS."""
        peer = TlsPeer(self, serve)
        load = StreamLoad(peer.port, case, sleeps=True, context=peer.client)
        self.addCleanup(load.close)
        return load

    def test_echo_is_counted(self) -> None:
        """At least the first window comes back, and a second run goes on behind it."""
        load = self.start_load(echo)
        for run in range(2):
            self.assertGreaterEqual(load.run(0.01), _CASE.window, f"{run=}")

    def test_frames_above_a_record_are_counted(self) -> None:
        """A frame in several records, of which parts arrive, is one frame."""
        case = Case(payload=64 * 1024, window=4)
        self.assertGreaterEqual(self.start_load(echo, case).run(0.01), case.window)

    def test_connections_are_loaded_side_by_side(self) -> None:
        """Each of them gets its window."""
        case = Case(payload=64, window=2, connections=5)
        self.assertGreaterEqual(self.start_load(echo, case).run(0.01), 10)

    def test_changed_byte_is_refused(self) -> None:
        """One wrong byte at the end of an answer is enough."""

        def serve(peer: ssl.SSLSocket) -> None:
            data = peer.recv(1000)
            peer.sendall(data[:-1] + bytes([data[-1] ^ 1]))

        with self.assertRaisesRegex(MeasurementError, "differs"):
            self.start_load(serve).run(0.01)

    def test_end_of_the_connection_is_refused(self) -> None:
        """A server that hangs up is not measured."""
        with self.assertRaisesRegex(MeasurementError, "hung up"):
            self.start_load(lambda peer: peer.sendall(peer.recv(1000)[:-1])).run(0.01)
