"""Tests of `benchmarks.rolling`, over loopback."""

from __future__ import annotations

import shutil
import socket
import sys
import tempfile
import threading
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.rolling import CONFIGURATION, Load, replace_instances, settings_of


class RollingTests(SynchronousTestCase):
    """``python -m benchmarks rolling``, with two replacements."""

    if sys.platform != "linux":
        skip = "the benchmarks need Linux"
    elif shutil.which("haproxy") is None:
        skip = "not installed: haproxy"

    def test_no_request_fails_while_instances_are_replaced(self) -> None:
        """Short requests, and long connections that move to the other instance."""
        with tempfile.TemporaryDirectory() as folder:
            figures = replace_instances(Path(folder), 2)
        self.assertEqual(figures["failed"], 0)
        for name in ("short", "long"):
            self.assertGreater(figures[name], 0, name)
        # All of the 8 long connections end with an instance, and begin again.
        self.assertGreaterEqual(figures["connections"], 16)


class LoadTests(SynchronousTestCase):
    """Failures are seen."""

    def fail_with(self, answer: bytes) -> str:
        """Let a server end its first connection after some bytes; return the reason."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
            load = Load(port, short_clients=1, long_clients=0)
            with load:
                connection, _ = listening.accept()
                with connection:
                    connection.recv(100)
                    connection.sendall(answer)
                    connection.shutdown(socket.SHUT_WR)
                    connection.recv(100)
                load.failed.wait(60)
                # A client in its next attempt is reset, and does not wait for an answer.
                listening.close()
        return load.failures[0]

    def test_connection_without_an_answer_fails(self) -> None:
        """A new connection ends before its first answer."""
        self.assertIn("ended without an answer", self.fail_with(b""))

    def test_incomplete_answer_fails(self) -> None:
        """Also an end in order."""
        self.assertIn("after 3 bytes of an answer", self.fail_with(b"\0\0\0"))

    def test_wrong_answer_fails(self) -> None:
        """An answer to another request."""
        self.assertIn("is not an echo", self.fail_with(bytes(12)))

    def test_refused_connection_fails(self) -> None:
        """Nobody listens."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
        with Load(port, short_clients=0, long_clients=1) as load:
            self.assertTrue(load.failed.wait(60))
        self.assertIn("ConnectionRefusedError", load.failures[0])

    def test_threads_end(self) -> None:
        """None runs after the block."""
        before = threading.active_count()
        with Load(1, short_clients=2, long_clients=2) as load:
            load.failed.wait(60)
        self.assertEqual(threading.active_count(), before)


class SettingsTests(SynchronousTestCase):
    """The file of the repository, with other values."""

    def test_text_that_is_not_in_the_file_is_an_error(self) -> None:
        """A change of the file cannot silently leave a port as it is."""
        with self.assertRaisesRegex(ValueError, "has no 'bind :9'"):
            settings_of(CONFIGURATION, {"bind :9": "bind :10"})
