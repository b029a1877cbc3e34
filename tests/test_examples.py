"""The examples run as their first lines say."""

from __future__ import annotations

import os
import signal
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
    return subprocess.run(
        [sys.executable, str(_EXAMPLES / "guestbook_client.py"), *arguments],
        env=_ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=30,
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
