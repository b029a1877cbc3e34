"""
A stopping service answers clients of other projects that wait in the kernel's queue.

The service is halted (SIGSTOP) while its clients connect and send; then it gets SIGTERM and runs
again. Each test is skipped where its client is not installed, and in the daily profile.
"""

from __future__ import annotations

import signal
import subprocess
import tempfile
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.outside_programs import needs
from tests.services.processes import PATIENCE, twistd
from tests.tls.peer import SERVER

_LOCAL = "tcp:0:interface=127.0.0.1"
_CLIENTS = 3
_NODE = """
const s = require("net").connect(PORT, "127.0.0.1", () => s.write("hello\\n"));
s.pipe(process.stdout);
"""


def unread_bytes(port: int) -> list[int]:
    """Return the unread bytes of each established connection to a port, from proc_net_tcp(5)."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [
        int(row[4].partition(":")[2], 16)
        for row in rows
        if row[1].endswith(f":{port:04X}") and row[3] == "01"
    ]


class QueueTests(SynchronousTestCase):
    """Clients that were never accepted while the service ran."""

    def serve(self, arguments: list[str], client: list[str], say: str = "") -> list[str]:
        """Let clients wait in the queue, stop the service, and return what each receives."""
        with twistd(*arguments) as server:
            (port,) = server.wait_for_ports()
            server.process.send_signal(signal.SIGSTOP)
            words = [word.replace("PORT", str(port)) for word in client]
            clients = [self.begin(words, say) for _ in range(_CLIENTS)]
            deadline = time.monotonic() + PATIENCE
            while len([size for size in unread_bytes(port) if size]) < _CLIENTS:
                self.assertLess(time.monotonic(), deadline, "the clients have sent nothing")
                time.sleep(0.05)
            server.terminate()
            server.process.send_signal(signal.SIGCONT)
            answers = [each.communicate(timeout=PATIENCE)[0] for each in clients]
            server.wait()
        return answers

    def begin(self, words: list[str], say: str) -> subprocess.Popen[str]:
        """Start a client, and write to it."""
        begun = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.addCleanup(begun.wait)
        self.addCleanup(begun.kill)
        assert begun.stdin is not None
        begun.stdin.write(say)
        begun.stdin.flush()
        return begun

    @needs("socat")
    def test_socat_is_answered(self) -> None:
        """It sends at once."""
        arguments = ["twsock-stream", "--framing", "line", "-e", _LOCAL]
        client = ["socat", "-t60", "-", "TCP:127.0.0.1:PORT"]
        self.assertEqual(self.serve(arguments, client, "hello\n"), ["hello\n"] * _CLIENTS)

    @needs("node")
    def test_node_is_answered(self) -> None:
        """It sends at once."""
        arguments = ["twsock-stream", "--framing", "line", "-e", _LOCAL]
        self.assertEqual(self.serve(arguments, ["node", "-e", _NODE]), ["hello\n"] * _CLIENTS)

    @needs("openssl")
    def test_openssl_is_answered_after_its_handshake(self) -> None:
        """It sends what is typed when the handshake is done."""
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:
            file.write(SERVER.private_key_and_cert_chain_pem.bytes())
            file.flush()
            arguments = ["twsock-stream", "--framing", "line", "-e", _LOCAL]
            arguments += ["--tls", "--certificate", file.name]
            client = ["openssl", "s_client", "-quiet", "-connect", "127.0.0.1:PORT"]
            self.assertEqual(self.serve(arguments, client, "hello\n"), ["hello\n"] * _CLIENTS)

    @needs("curl")
    def test_curl_is_answered_by_the_page(self) -> None:
        """The health of a process that stops."""
        arguments = ["twsock-stream", "-e", "unix:echo.sock", "--health", _LOCAL]
        client = ["curl", "--silent", "http://127.0.0.1:PORT/health/ready"]
        self.assertEqual(self.serve(arguments, client), ["not ready\n"] * _CLIENTS)
