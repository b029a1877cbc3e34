"""Programs of other projects, run by the tests of WebSockets."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from unittest import skipIf

from twisted.trial.unittest import SynchronousTestCase

from tests import THOROUGH
from tests.services.processes import twistd
from tests.test_outside_tools import find

__all__ = ["CLOSED", "GO_SOURCES", "OUR_CLIENT", "Folder", "echo", "needs"]

#: Seconds for a program; many times the time of the slowest.
_PATIENCE: Final = 120

#: Where Debian has the libraries of Go.
_GO: Final = {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOFLAGS": ""}
GO_SOURCES: Final = Path("/usr/share/gocode/src")

#: What each client prints: the code and the reason of its close, which the server has echoed.
CLOSED: Final = "closed 4001 bye"

#: Exchanges messages with an echo, without compression, with that of the defaults, and with that of
#: the largest settings.
OUR_CLIENT: Final = """
import sys
from twisted.internet.task import react
from twsock import Certificate, MessageWebSocket
from twsock.websocket import DeflateSettings

uri, *proxy = sys.argv[1:]
largest = DeflateSettings(context_takeover=True, max_window_bits=15)

async def main(reactor):
    for compression in (None, DeflateSettings(), largest):
        async with MessageWebSocket(reactor) as websocket:
            control = websocket.control
            control.compression = compression
            if proxy:
                control.proxy = proxy[0]
                control.trust_roots = control.proxy_trust_roots = [Certificate.load(proxy[1])]
            await websocket.connect(uri)
            for message in ("Hello", "", "h\\u00e9llo", b"", "x" * 900_000, bytes(70_000)):
                await websocket.send(message)
                assert await websocket.receive(timeout=60) == message
            await websocket.ping()
            print("compressed" if websocket.information.is_compressed else "plain")

react(main)
"""


def needs(*programs: str, why: str = "") -> Callable[[Any], Any]:
    """Skip a test if a program or a library is missing, and in the daily profile."""
    if not THOROUGH:
        return skipIf(True, "outside programs run with TWSOCK_TESTS=thorough")
    missing = [program for program in programs if find(program) is None]
    return skipIf(bool(missing or why), f"not installed: {' '.join(missing) or why}")


@functools.cache
def _go_cache() -> str:
    """Return the folder of Go's compiled packages, which the programs of this process share."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


class Folder(SynchronousTestCase):
    """A folder for programs."""

    def setUp(self) -> None:
        made = tempfile.TemporaryDirectory()
        self.addCleanup(made.cleanup)
        self.folder = Path(made.name)

    def write(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    def run_program(self, *command: str, variables: Mapping[str, str] | None = None) -> str:
        """Run a program until it exits; return its output."""
        done = subprocess.run(
            [find(command[0]) or command[0], *command[1:]],
            env={**os.environ, **(variables or {})},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stdout)
        return done.stdout

    @contextmanager
    def running(
        self, *command: str, variables: Mapping[str, str] | None = None
    ) -> Iterator[subprocess.Popen[str]]:
        """Run a program in the background."""
        with subprocess.Popen(
            [find(command[0]) or command[0], *command[1:]],
            env={**os.environ, **(variables or {})},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            # A group of its own, with the processes that the program starts.
            start_new_session=True,
        ) as process:
            try:
                yield process
            finally:
                with suppress(ProcessLookupError):  # All of them may have ended by themselves.
                    os.killpg(process.pid, signal.SIGKILL)

    def build_go(self, text: str) -> str:
        """Build a program in Go; return its path."""
        variables = {**_GO, "GOCACHE": _go_cache()}
        source = self.write("main.go", text)
        self.run_program("go", "build", "-o", "program", source, variables=variables)
        return str(self.folder / "program")


@contextmanager
def echo(*options: str) -> Iterator[int]:
    """Run ``twistd twsock-websocket``; yields its port."""
    local = "tcp:0:interface=127.0.0.1"
    with twistd("twsock-websocket", "--endpoint", local, *options) as service:
        (port,) = service.wait_for_ports()
        yield port
