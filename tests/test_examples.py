"""The examples run as their first lines say."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.services.processes import twistd

_TOP = Path(__file__).parents[1]
_EXAMPLES = _TOP / "examples"
_ENVIRONMENT = {**os.environ, "PYTHONPATH": str(_TOP), "PYTHONUNBUFFERED": "1"}
_LOCAL = "tcp:0:interface=127.0.0.1"


def run_client(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the guest book's client to its end."""
    return run_example("guestbook_client.py", *arguments)


def run_example(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run an example to its end."""
    return subprocess.run(
        [sys.executable, str(_EXAMPLES / name), *arguments],
        env=_ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class ExamplesTests(SynchronousTestCase):
    """Each as its own process."""

    def test_server_and_client_talk(self) -> None:
        """The guest book opens, greets two guests in order, and closes on Ctrl-C."""
        with subprocess.Popen(
            [sys.executable, str(_EXAMPLES / "guestbook_server.py"), _LOCAL],
            env=_ENVIRONMENT,
            stdout=subprocess.PIPE,
            text=True,
        ) as server:
            assert server.stdout is not None
            opened = server.stdout.readline()
            self.assertIn("guest book is open on 127.0.0.1:", opened)
            client = run_client(
                f"tcp:127.0.0.1:{opened.rpartition(':')[2].strip()}", "Ada", "Grace"
            )
            server.send_signal(signal.SIGINT)
            server.wait(timeout=30)
        self.assertEqual(
            client.stdout, "Welcome, Ada! 0 came before you.\nWelcome, Grace! 1 came before you.\n"
        )

    def test_a_client_without_a_server_says_so(self) -> None:
        """One line with the status, and a non-zero exit."""
        client = run_client("tcp:127.0.0.1:1", "Ada")
        self.assertEqual(client.returncode, 1)
        self.assertIn("ConnectionRefused (12)", client.stderr)
        self.assertNotIn("Traceback", client.stderr)

    def test_the_echo_page_prints_the_lines_of_the_guide(self) -> None:
        """Both sides, in the order in which things happen."""
        page = run_example("echo_page.py")
        lines = (_EXAMPLES / "echo_page.py").read_text().split("You will see:")[1].split("\n\n")[0]
        self.assertEqual(page.stdout.split("\n"), [*map(str.strip, lines.split("\n")), ""])
        self.assertIn('server sent back the response: "Hello, World!"', page.stdout)

    def test_the_echo_page_refuses_in_one_line(self) -> None:
        """What is no port, and one that is taken."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            for port in ("65536", str(taken.getsockname()[1])):
                page = run_example("echo_page.py", port)
                self.assertEqual((page.returncode, page.stderr.count("\n")), (1, 1), page.stderr)

    def test_the_stream_socket_sample_shows_what_is_sent(self) -> None:
        """As often as it is sent; Ctrl-C ends the server."""
        with subprocess.Popen(
            [sys.executable, str(_EXAMPLES / "stream_socket_sample.py"), "server", "0"],
            env=_ENVIRONMENT,
            stdout=subprocess.PIPE,
            text=True,
        ) as server:
            assert server.stdout is not None
            port = server.stdout.readline().rpartition(" ")[2].strip()
            client = run_example("stream_socket_sample.py", "client", "localhost", port, "3")
            shown = [server.stdout.readline() for _ in range(3)]
            server.send_signal(signal.SIGINT)
            server.wait(timeout=30)
        self.assertEqual(client.stdout, "Connected\n" + 3 * '"Hello" sent successfully\n')
        self.assertEqual(shown, ['Received data: "Hello"\n'] * 3)

    def test_the_sample_refuses_in_one_line(self) -> None:
        """No server, no such command."""
        for words in (("client", "localhost", "1"), ("dance",)):
            sample = run_example("stream_socket_sample.py", *words)
            self.assertEqual((sample.returncode, sample.stderr.count("\n")), (1, 1), sample.stderr)

    def test_batched_sends_are_compared(self) -> None:
        """Three ways, or one; anything else is refused in one line."""
        compared = run_example("batched_sends.py").stdout.splitlines()
        self.assertEqual([line.split()[0] for line in compared], ["awaited", "together", "flushed"])
        self.assertEqual(run_example("batched_sends.py", "slowly").returncode, 1)

    def test_both_run_beside_a_website(self) -> None:
        """One Twisted application serves frames and pages; the page shows the guest."""
        os.environ.update(GUESTBOOK=_LOCAL, WEBSITE=_LOCAL)
        self.addCleanup(os.environ.pop, "GUESTBOOK")
        self.addCleanup(os.environ.pop, "WEBSITE")
        with twistd("-y", str(_EXAMPLES / "beside_a_website.py")) as server:
            website = server.wait_for(r"Site starting on (\d+)")
            (port,) = server.wait_for_ports()
            client = run_client(f"tcp:127.0.0.1:{port}", "Ada <3")
            with urllib.request.urlopen(f"http://127.0.0.1:{website}/", timeout=10) as response:
                self.assertIn(b"<li>Ada &lt;3</li>", response.read())
        self.assertEqual(client.stdout, "0 came before you\n")
