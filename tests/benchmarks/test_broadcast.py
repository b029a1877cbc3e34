"""Tests of `benchmarks.broadcast`: the whole command, in small, and its load."""

from __future__ import annotations

import socket
import sys
import threading
from contextlib import ExitStack

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.broadcast import BENCHMARK, BroadcastLoad
from benchmarks.processes import MeasurementError
from benchmarks.programs import BROADCASTERS, WITHOUT_DEFLATE
from benchmarks.websocket_load import WebSocketCase
from tests.benchmarks.commands import run_small
from twsock.websocket.frames import Opcode, encode_frame
from twsock.websocket.messages import MessageDecoder


class BroadcastTests(SynchronousTestCase):
    """``python -m benchmarks broadcast``."""

    if sys.platform != "linux":
        skip = "the benchmarks need Linux"

    def test_each_server_that_is_installed_broadcasts(self) -> None:
        """Compressed where the server can; a server that is not installed is left out."""
        options = ("--seconds", "0.01", "--receivers", "3", "--cases", "small,large-deflated")
        servers = run_small(self, BENCHMARK, *options)
        installed = [p.key for p in BROADCASTERS if p.why_not() is None]
        self.assertEqual(list(servers), installed)
        for name, server in servers.items():
            cases = server["cases"]
            self.assertGreater(min(cases["small"]["cpu"], cases["small"]["rate"]), 0, name)
            self.assertEqual(cases["large-deflated"]["cpu"] is None, name in WITHOUT_DEFLATE, name)


class LoadTests(SynchronousTestCase):
    """What receivers get is compared with what was sent."""

    def start_load(self, wrong_from: int, *, sleeps: bool = True) -> BroadcastLoad:
        """
        A load of two receivers.

        :param wrong_from: the number of the first message that the second receiver gets otherwise.
        """
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)

        def serve() -> None:
            with ExitStack() as stack:
                first, second, sender = [
                    stack.enter_context(self.accept(listener)) for _ in range(3)
                ]
                decoder = MessageDecoder(is_server=True, max_message_size=100)
                while data := sender.recv(1000):
                    decoder.feed(data)
                    for _, payload, _ in decoder.messages():
                        assert isinstance(payload, bytes)
                        first.sendall(encode_frame(Opcode.BINARY, payload))
                        is_wrong = decoder.delivered >= wrong_from
                        second.sendall(
                            encode_frame(Opcode.BINARY, payload[::-1] if is_wrong else payload)
                        )

        server = threading.Thread(target=serve)
        server.start()
        self.addCleanup(server.join)
        port = listener.getsockname()[1]
        load = BroadcastLoad(port, WebSocketCase(payload=64, window=1), 2, sleeps=sleeps)
        self.addCleanup(load.close)
        return load

    def accept(self, listener: socket.socket) -> socket.socket:
        """Accept a connection, and answer its handshake."""
        connection, _ = listener.accept()
        connection.recv(10_000)
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        return connection

    def test_messages_of_each_receiver_are_counted(self) -> None:
        """Whether or not the client sleeps."""
        for sleeps in (True, False):
            load = self.start_load(wrong_from=1_000_000, sleeps=sleeps)
            received = load.run(0.01)
            self.assertGreaterEqual(received, 2, sleeps)
            self.assertEqual(received % 2, 0, sleeps)

    def test_other_message_is_refused(self) -> None:
        """Before anything is measured, and later."""
        with self.assertRaisesRegex(MeasurementError, "something else"):
            self.start_load(wrong_from=2)
        load = self.start_load(wrong_from=6)
        with self.assertRaisesRegex(MeasurementError, "something else"):
            load.run(1)
