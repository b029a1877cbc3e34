"""The programs in docs/coming-from.rst run as printed, and its names exist."""

from __future__ import annotations

import re
import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.test_examples import programs_in, run_program, running
from twsock import MessageWebSocket, StreamWebSocket
from twsock.sockets.websocket.server import ServerWebSocketInformation

_DOCS = Path(__file__).parents[1] / "docs"

#: Seconds until an answer of a server that has started.
_PATIENCE = 60


class ComingFromTests(SynchronousTestCase):
    """Each server answers its client of the page, at a free port."""

    def setUp(self) -> None:
        made = tempfile.TemporaryDirectory()
        self.addCleanup(made.cleanup)
        self.folder = Path(made.name)
        (
            self.doubling, self.again, self.counting, self.beside, self.dotnet, self.winrt,
        ) = programs_in("coming-from.rst")  # fmt: skip

    def write(self, program: str, printed: str, free: str) -> Path:
        """Save a program with a free port in the place of the printed one."""
        self.assertEqual(program.count(printed), 1, program)
        path = self.folder / f"program_{len(list(self.folder.iterdir()))}.py"
        path.write_text(program.replace(printed, free), encoding="utf-8")
        return path

    def answer(self, client: str, printed: str, port: int) -> str:
        """Run a client until it exits; return what it prints."""
        done = run_program(self.write(client, printed, f"127.0.0.1:{port}/"))
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_from_websockets(self) -> None:
        """The client sends the token that the server wants."""
        server = self.write(self.doubling, '"127.0.0.1", 1343', '"127.0.0.1", 0')
        with running(server) as (_process, _opened, port):
            self.assertEqual(self.answer(self.again, "127.0.0.1:1343/", port), "42\npong\n")

    def test_from_autobahn_and_from_dotnet(self) -> None:
        """The server reports how the client closes."""
        server = self.write(self.counting, '"tcp:1344:', '"tcp:0:')
        with running(server) as (process, _opened, port):
            printed = self.answer(self.dotnet, "127.0.0.1:1344/", port)
            assert process.stdout is not None
            self.assertEqual(process.stdout.readline(), "closed 1000 done\n")
        self.assertEqual(printed, "welcome, count\n1: Hello\n")
        self.assertEqual(self.answer(self.dotnet, "127.0.0.1:1344/", port), "no server runs\n")

    def test_from_aiohttp_and_from_winrt(self) -> None:
        """The page is on the port of the WebSocket."""
        server = self.write(self.beside, '"tcp:1345:', '"tcp:0:')
        with running(server) as (_process, _opened, port):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=_PATIENCE) as page:
                self.assertEqual(page.read(), b"The WebSocket is at /echo\n")
            printed = self.answer(self.winrt, "127.0.0.1:1345/", port)
        self.assertEqual(printed, "Utf8 Hello\nclosed 1000 done\n")


class NamesTests(SynchronousTestCase):
    """The options, facts and calls in the pages on WebSockets exist."""

    def test_names_exist(self) -> None:
        """``control.NAME``, ``information.NAME`` and ``websocket.NAME(``."""
        pages = [
            (_DOCS / name).read_text("utf-8")
            for name in ("coming-from.rst", "websockets.rst", "websocket-clients.rst")
        ]
        both = MessageWebSocket(Clock()), StreamWebSocket(Clock())
        known: dict[str, Sequence[object]] = {
            r"``(?:websocket\.)?control\.(\w+)": [each.control for each in both],
            r"websocket\.information\.(\w+)": [both[0].information, ServerWebSocketInformation()],
            r"await websocket\.(\w+)\(": both,
        }
        others = {"recv", "multicast_only"}  # Of ``websockets``, and of datagram sockets.
        for pattern, owners in known.items():
            for name in {name for page in pages for name in re.findall(pattern, page)} - others:
                self.assertTrue(any(hasattr(owner, name) for owner in owners), name)
