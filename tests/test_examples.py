"""The examples run as their docstrings say, and the programs in the documents as printed."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, SynchronousTestCase
from twisted.web.resource import Resource
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as connect_websocket
from websockets.typing import Subprotocol

from tests.ports import free_udp_port
from tests.services.processes import twistd
from tests.websocket.connections import END, REQUEST, Connected, connected, text
from tests.websocket.pages import Page
from twsock import MessageWebSocket
from twsock.protocols import WebSocketEcho, WebSocketFactory
from twsock.sockets.websocket.client import ADDRESS_TIMEOUT, MAX_ADDRESSES, RESPONSE_TIMEOUT
from twsock.stream.connection_protocol import LEAST_MAX_UNSENT
from twsock.stream.ending import DEFAULT_CLOSE_TIMEOUT
from twsock.stream.listening.buffer_limit import DEFAULT_MAX_BUFFERED
from twsock.stream.protocol import MAX_BACKLOG
from twsock.tls.handshake import DEFAULT_HANDSHAKE_TIMEOUT
from twsock.websocket import Acceptance, DeflateSettings, Refusal, Request
from twsock.websocket.http import MAX_FIELDS, MAX_HEAD
from twsock.websocket.protocol import DEFAULT_MAX_MESSAGE_SIZE

_TOP = Path(__file__).parents[1]
EXAMPLES = _TOP / "examples"
_README = _TOP / "README.md"
_ENVIRONMENT = {**os.environ, "PYTHONPATH": str(_TOP), "PYTHONUNBUFFERED": "1"}
_LOCAL = "tcp:0:interface=127.0.0.1"

#: Seconds after which a program that should have ended is killed, and its test fails.
_PATIENCE = 60


def run_client(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the client of the guest book until it exits."""
    return run_example("guestbook_client.py", *arguments)


def run_example(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run an example until it exits."""
    return run_program(EXAMPLES / name, *arguments)


def run_program(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program in its folder until it exits."""
    return subprocess.run(
        [sys.executable, str(path), *arguments],
        cwd=path.parent,
        env=_ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )


def echo(*arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    """Run ``twsock echo``, with a text as its standard input."""
    return subprocess.run(
        [sys.executable, "-m", "twsock", "echo", *arguments],
        env=_ENVIRONMENT,
        input=typed,
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )


@contextlib.contextmanager
def running(path: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str, int]]:
    """Run a server in its folder; yields it, its first line, and the port at the end of it."""
    with subprocess.Popen(
        [sys.executable, str(path), *arguments],
        cwd=path.parent,
        env=_ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        patience = threading.Timer(_PATIENCE, server.kill)
        patience.start()
        try:
            assert server.stdout is not None
            opened = server.stdout.readline()
            yield server, opened, int(re.findall(r"\d+", opened)[-1])
        finally:
            patience.cancel()
            server.kill()


def wait_for_end(path: str) -> None:
    """
    Connect to a UNIX socket, end the output, and wait until the server has ended the connection.

    Then its reactor runs, and handles signals. An example prints its first line a little earlier.
    """
    with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(ConnectionResetError):
        client.settimeout(_PATIENCE)
        client.connect(path)
        client.shutdown(socket.SHUT_WR)
        while client.recv(1000):
            pass


def promised(name: str, run: int = 1) -> str:
    """Return the output that the docstring of an example promises."""
    text = (EXAMPLES / name).read_text(encoding="utf-8").split("You will see:")[run]
    first, *others = text.splitlines()
    lines = [first, *itertools.takewhile(lambda line: line.startswith(15 * " "), others)]
    return "".join(f"{line.strip()}\n" for line in lines)


def programs_in_readme() -> list[str]:
    """Return the programs in README.md."""
    return re.findall(r"^```python\n(.+?)^```$", _README.read_text(encoding="utf-8"), re.M | re.S)


def _mib(size: int) -> str:
    return f"{size >> 20} MiB"


def programs_in(document: str) -> list[str]:
    """Return the programs in a document."""
    text = (_TOP / "docs" / document).read_text(encoding="utf-8")
    blocks = re.findall(r"^\.\. code-block:: python\n\n((?:    .*\n|\n)+)", text, re.MULTILINE)
    return [textwrap.dedent(block).strip() + "\n" for block in blocks]


class ExamplesTests(SynchronousTestCase):
    """The examples without TLS, each as a process of its own."""

    def test_the_server_greets_two_clients_in_order(self) -> None:
        """The server exits on Ctrl-C."""
        with subprocess.Popen(
            [sys.executable, str(EXAMPLES / "guestbook_server.py"), _LOCAL],
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

    def test_a_client_without_a_server_prints_the_status(self) -> None:
        """It prints one line with the status, and exits with a status other than 0."""
        client = run_client("tcp:127.0.0.1:1", "Ada")
        self.assertEqual(client.returncode, 1)
        self.assertIn("ConnectionRefused (12)", client.stderr)
        self.assertNotIn("Traceback", client.stderr)

    def test_the_servers_of_endpoints_listen_on_unix_sockets(self) -> None:
        """The first line has the endpoint; Ctrl-C removes the socket."""
        with tempfile.TemporaryDirectory() as folder:
            for name, *words in (
                ("guestbook_server.py",),
                ("smtp_starttls.py", f"{folder}/certificates"),
                ("websocket_chat.py",),
            ):
                endpoint = f"unix:{folder}/socket1"
                with running(EXAMPLES / name, endpoint, *words) as (server, opened, _port):
                    self.assertTrue(opened.endswith(f" {endpoint}\n"), opened)
                    wait_for_end(f"{folder}/socket1")
                    server.send_signal(signal.SIGINT)
                    printed, _ = server.communicate()
                self.assertEqual((printed, server.returncode), ("", 0), name)
                self.assertFalse(Path(folder, "socket1").exists(), name)

    def test_the_server_names_an_unusable_endpoint_in_one_line(self) -> None:
        """An invalid string, and a port in use."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            for endpoint in ("nonsense:1", f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"):
                refused = run_example("guestbook_server.py", endpoint)
                self.assertEqual(refused.returncode, 1, endpoint)
                expected = f"guestbook_server: cannot listen on {re.escape(endpoint)}: .+"
                self.assertRegex(refused.stderr, rf"\A{expected}\n\Z")

    def test_the_echo_page_prints_the_lines_of_the_guide(self) -> None:
        """The lines of both sides appear in the order of the events."""
        page = run_example("echo_page.py")
        self.assertEqual(page.stdout, promised("echo_page.py"))
        self.assertIn('server sent back the response: "Hello, World!"', page.stdout)

    def test_the_echo_page_names_a_wrong_port_in_one_line(self) -> None:
        """An invalid port and a port in use give one line and status 1."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            for port in ("65536", str(taken.getsockname()[1])):
                page = run_example("echo_page.py", port)
                self.assertEqual((page.returncode, page.stderr.count("\n")), (1, 1), page.stderr)

    def test_the_stream_socket_sample_prints_each_message_once(self) -> None:
        """Ctrl-C ends its server."""
        with subprocess.Popen(
            [sys.executable, str(EXAMPLES / "stream_socket_sample.py"), "server", "0"],
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

    def test_the_stream_socket_sample_names_a_mistake_in_one_line(self) -> None:
        """A missing server and an unknown command give one line and status 1."""
        for words in (("client", "localhost", "1"), ("dance",)):
            sample = run_example("stream_socket_sample.py", *words)
            self.assertEqual((sample.returncode, sample.stderr.count("\n")), (1, 1), sample.stderr)

    def test_the_proxy_passes_bytes_and_ends_on(self) -> None:
        """Both ways; without the remote host, the connection ends, and the proxy goes on."""
        with socket.create_server(("127.0.0.1", 0)) as remote:
            remote.settimeout(_PATIENCE)
            address = ("127.0.0.1", str(remote.getsockname()[1]))
            with running(EXAMPLES / "proxy.py", "0", *address) as (server, _opened, _port):
                port = int(re.findall(r"127.0.0.1:(\d+) leads", _opened)[0])
                with socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE) as client:
                    onward, _ = remote.accept()
                    with onward:
                        client.sendall(b"request")
                        client.shutdown(socket.SHUT_WR)
                        self.assertEqual(onward.makefile("rb").read(), b"request")
                        onward.sendall(b"answer")
                    self.assertEqual(client.makefile("rb").read(), b"answer")
                remote.close()
                with (
                    socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE) as client,
                    contextlib.suppress(ConnectionResetError),
                ):
                    self.assertEqual(client.recv(100), b"")
                self.assertIsNone(server.poll())
        self.assertEqual(run_example("proxy.py", "0").returncode, 1)

    def test_the_counters_of_an_application_are_exported(self) -> None:
        """As its docstring says, by a program of its own."""
        path = EXAMPLES / "counters.py"
        with running(path, _LOCAL, _LOCAL) as (_, opened, page):
            (port,) = re.findall(r"echo on tcp:127.0.0.1:(\d+)", opened)
            echoed = echo(f"tcp:127.0.0.1:{port}", "Hello")
            self.assertEqual(echoed.returncode, 0, echoed.stderr)
            with socket.create_connection(("127.0.0.1", page), timeout=_PATIENCE) as client:
                shown = client.makefile("rb").read().decode()
        self.assertIn(f"You will see:  {shown}", path.read_text("utf-8"))

    def test_the_moving_listener_is_served_by_two_processes(self) -> None:
        """The output is that of its docstring."""
        moved = run_example("moving_listener.py")
        self.assertEqual(
            moved.stdout.splitlines(),
            [
                "the first process answers",
                "the second process answers",
                "nobody was refused",
            ],
            moved.stderr,
        )

    def test_the_batched_sends_example_compares_three_ways(self) -> None:
        """It refuses an unknown word."""
        compared = run_example("batched_sends.py").stdout.splitlines()
        self.assertEqual([line.split()[0] for line in compared], ["awaited", "together", "flushed"])
        self.assertEqual(run_example("batched_sends.py", "slowly").returncode, 1)

    def test_frames_and_a_web_page_are_served_by_one_application(self) -> None:
        """The page shows the guest."""
        os.environ.update(GUESTBOOK=_LOCAL, WEBSITE=_LOCAL)
        self.addCleanup(os.environ.pop, "GUESTBOOK")
        self.addCleanup(os.environ.pop, "WEBSITE")
        with twistd("-y", str(EXAMPLES / "beside_a_website.py")) as server:
            website = server.wait_for(r"Site starting on (\d+)")
            (port,) = server.wait_for_ports()
            client = run_client(f"tcp:127.0.0.1:{port}", "Ada <3")
            page = f"http://127.0.0.1:{website}/"
            with urllib.request.urlopen(page, timeout=_PATIENCE) as response:
                self.assertIn(b"<li>Ada &lt;3</li>", response.read())
        self.assertEqual(client.stdout, "0 came before you\n")


class SecureExamplesTests(SynchronousTestCase):
    """The examples with TLS."""

    def test_each_example_prints_the_output_in_its_docstring(self) -> None:
        """The output is the promised one, in order, and nothing else."""
        for name, *words in (
            ("upgrade_walk.py",),
            ("client_certificate.py",),
            ("certificate_retry.py",),
            ("certificate_retry.py", "fatal"),
        ):
            shown = run_example(name, *words)
            self.assertEqual(shown.stdout, promised(name, 1 + len(words)), shown.stderr)
            self.assertEqual((shown.returncode, shown.stderr), (0, ""), f"{name=}, {words=}")

    def test_unknown_arguments_are_refused_in_one_line(self) -> None:
        """Arguments that the docstring does not list give the usage line and status 1."""
        for name, *words in (
            ("upgrade_walk.py", "1"),
            ("client_certificate.py", "1"),
            ("certificate_retry.py", "kindly"),
            ("smtp_starttls.py",),
        ):
            refused = run_example(name, *words)
            self.assertEqual(refused.returncode, 1, f"{name=}, {words=}")
            self.assertRegex(refused.stderr, r"\Ausage: .+\n\Z", f"{name=}, {words=}")


class ChatExampleTests(SynchronousTestCase):
    """The chat room, with ``websockets`` as its members."""

    PATH = EXAMPLES / "websocket_chat.py"

    @contextlib.contextmanager
    def member(self, port: int, name: str) -> Iterator[ClientConnection]:
        """Join the room."""
        with connect_websocket(f"ws://127.0.0.1:{port}/", compression=None) as member:
            self.assertEqual(member.recv(_PATIENCE), "What is your name?")
            member.send(f"{name}\n")
            self.assertEqual(member.recv(_PATIENCE), f"* {name} has joined")
            yield member

    def test_each_text_goes_to_all_members(self) -> None:
        """A member that has left does not, and a name is given once; Ctrl-C closes with 1001."""
        with running(self.PATH, _LOCAL) as (server, opened, port):
            with self.member(port, "Ada") as ada:
                with self.member(port, "Grace") as grace:
                    self.assertEqual(ada.recv(_PATIENCE), "* Grace has joined")
                    grace.send("Hello")
                    for member in (ada, grace):
                        self.assertEqual(member.recv(_PATIENCE), "Grace: Hello")
                    with connect_websocket(f"ws://127.0.0.1:{port}/") as second:
                        second.recv(_PATIENCE)
                        second.send("")
                        self.assertEqual(second.recv(_PATIENCE), "A name has 1 to 20 characters.")
                        second.send("Ada")
                        with self.assertRaises(ConnectionClosed):
                            second.recv(_PATIENCE)
                        self.assertEqual(second.close_code, 4000)
                self.assertEqual(ada.recv(_PATIENCE), "* Grace has left")
                server.send_signal(signal.SIGINT)
                with self.assertRaises(ConnectionClosed):
                    ada.recv(_PATIENCE)
                self.assertEqual(ada.close_code, 1001)
            printed, _ = server.communicate()
        self.assertEqual(opened.replace(str(port), "1341"), promised("websocket_chat.py"))
        self.assertEqual((printed, server.returncode), ("", 0))

    def test_client_joins_the_room(self) -> None:
        """Lines are sent, and messages are printed; at the end of the input it leaves."""
        with (
            running(self.PATH, _LOCAL) as (_server, _opened, port),
            self.member(port, "Ada") as ada,
            subprocess.Popen(
                [sys.executable, str(self.PATH), f"ws://127.0.0.1:{port}/"],
                env=_ENVIRONMENT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            ) as client,
        ):
            assert client.stdin is not None
            assert client.stdout is not None
            self.assertEqual(client.stdout.readline(), "What is your name?\n")
            client.stdin.write("Grace\nHello\n")
            client.stdin.flush()
            for line in ("* Grace has joined", "Grace: Hello"):
                self.assertEqual(client.stdout.readline(), f"{line}\n")
                self.assertEqual(ada.recv(_PATIENCE), line)
            printed, _ = client.communicate(timeout=_PATIENCE)
            self.assertEqual(ada.recv(_PATIENCE), "* Grace has left")
        self.assertEqual((printed, client.returncode), ("", 0))

    def test_member_that_does_not_read_is_dropped(self) -> None:
        """The others receive every text, and learn that it left."""
        with (
            running(self.PATH, _LOCAL) as (_server, _opened, port),
            socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE) as slow,
        ):
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.sendall(
                b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                b"Sec-WebSocket-Version: 13\r\n\r\n" + text("Slow")
            )
            self.assertTrue(slow.recv(1000).startswith(b"HTTP/1.1 101 "))
            with self.member(port, "Ada") as ada:
                heard: list[str | bytes] = []
                while "* Slow has left" not in heard[-100:]:
                    for _ in range(100):
                        ada.send("x" * 990)
                    heard.extend(ada.recv(_PATIENCE) for _ in range(100))
                    self.assertLess(len(heard), 100_000)
        self.assertEqual(set(heard), {f"Ada: {'x' * 990}", "* Slow has left"})

    def test_unusable_endpoint_is_refused_in_one_line(self) -> None:
        """An invalid string, a port in use and no endpoint give one line and no traceback."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            used = f"tcp:{port}:interface=127.0.0.1"
            for words in (("nonsense:1",), (used,), (), ("ws://",), ("ws://127.0.0.1:1/",)):
                refused = run_example("websocket_chat.py", *words)
                self.assertEqual(refused.returncode, 1, f"{words=}")
                self.assertRegex(refused.stderr, r"\A(websocket_chat|usage): .+\n\Z", f"{words=}")


class ChatPageExampleTests(SynchronousTestCase):
    """The chat room with a page; tests/test_browsers.py opens it in Chromium."""

    NAME = "websocket_chat_page.py"

    @contextlib.contextmanager
    def enter(self, port: int, name: str, **options: Any) -> Iterator[ClientConnection]:
        """Connect as the page does, and send a name."""
        uri = f"ws://127.0.0.1:{port}/ws"
        options.setdefault("subprotocols", [Subprotocol("chat.example")])
        with connect_websocket(uri, compression=None, **options) as member:
            member.send(name)
            yield member

    def test_page_and_its_room_are_on_one_port(self) -> None:
        """Texts go to all members; Ctrl-C closes with 1001."""
        with running(EXAMPLES / self.NAME, "0") as (server, opened, port):
            for path, expected in (("", b'<script src="chat.js"'), ("chat.js", b"new WebSocket(")):
                url = f"http://127.0.0.1:{port}/{path}"
                with urllib.request.urlopen(url, timeout=_PATIENCE) as response:
                    self.assertIn(expected, response.read())
            with self.enter(port, "Ada", origin=f"http://127.0.0.1:{port}") as ada:
                self.assertEqual(ada.recv(_PATIENCE), '{"joined": "Ada"}')
                with self.enter(port, "Grace") as grace:
                    for member in (ada, grace):
                        self.assertEqual(member.recv(_PATIENCE), '{"joined": "Grace"}')
                    ada.send("é")
                    for member in (ada, grace):
                        shown = member.recv(_PATIENCE)
                        self.assertEqual(shown, r'{"from": "Ada", "text": "\u00e9"}')
                self.assertEqual(ada.recv(_PATIENCE), '{"left": "Grace"}')
                server.send_signal(signal.SIGINT)
                self.assertEqual(self.close_code(ada), 1001)
            printed, _ = server.communicate()
        self.assertEqual(opened.replace(str(port), "8080"), promised(self.NAME))
        self.assertEqual((printed, server.returncode), ("", 0))

    def close_code(self, member: ClientConnection) -> int | None:
        """Wait for the end of a WebSocket; return its close code."""
        with self.assertRaises(ConnectionClosed):
            member.recv(_PATIENCE)
        return member.close_code

    def test_each_rule_of_the_room_refuses(self) -> None:
        """A taken name, an empty and a long one, a large text, another page, no subprotocol."""
        with (
            running(EXAMPLES / self.NAME, "0") as (_server, _opened, port),
            self.enter(port, "Ada") as ada,
        ):
            self.assertEqual(ada.recv(_PATIENCE), '{"joined": "Ada"}')
            for name in ("Ada", "", "x" * 21, "\t"):
                with self.enter(port, name) as refused:
                    self.assertEqual(self.close_code(refused), 4000, f"{name=}")
            others: list[dict[str, Any]] = [
                {"origin": "http://example.com"},
                {"additional_headers": {"Host": "example.com"}},
                {"subprotocols": []},
            ]
            for options in others:
                with (
                    self.assertRaises(InvalidStatus, msg=f"{options=}"),
                    self.enter(port, "Grace", **options),
                ):
                    pass
            ada.send("x" * 1001)
            self.assertEqual(self.close_code(ada), 1009)

    def test_member_that_does_not_read_is_dropped(self) -> None:
        """What is queued for it is bounded; the others learn that it left."""
        defined = runpy.run_path(str(EXAMPLES / self.NAME))
        clock = Clock()
        factory = defined["make_room"](clock)
        ada, slow = (Connected(defined["Member"], clock=clock, factory=factory) for _ in range(2))
        for row, name in ((ada, "Ada"), (slow, "Slow")):
            row.receive(REQUEST + b"Sec-WebSocket-Protocol: chat.example\r\n" + END + text(name))
            row.sent()
        slow.transport.producer.pauseProducing()
        received = 0
        while not slow.is_aborted:
            self.assertLess(received, defined["MAX_UNSENT"])
            ada.receive(text("x" * 1000))
            received += 1000
            ada.sent()
        slow.lose(ConnectionAborted())
        self.assertEqual(ada.frames(), [("text", '{"left": "Slow"}')])

    def test_unusable_port_is_refused_in_one_line(self) -> None:
        """A port in use, one that is no number, and one above 65,535 give one line."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            for port in (str(taken.getsockname()[1]), "http", "65536"):
                refused = run_example(self.NAME, port)
                self.assertEqual(refused.returncode, 1, f"{port=}")
                self.assertRegex(refused.stderr, r"\A(websocket_chat_page|usage): .+\n\Z", port)


class FeedExampleTests(SynchronousTestCase):
    """The feed: its server and client as processes, and many subscribers in memory."""

    NAME = "websocket_feed.py"

    def test_client_prints_the_ticks_of_the_server(self) -> None:
        """It ends after the given number, with the server, and on Ctrl-C; a text gets 1003."""
        path = EXAMPLES / self.NAME
        with running(path, "serve", "0", "0.02") as (server, opened, _port):
            uri = re.findall(r"ws://[\d.:]+/", opened)[0]
            followed = run_example(self.NAME, "follow", uri, "3")
            with connect_websocket(uri) as talking:
                talking.send("Hello")
                with self.assertRaises(ConnectionClosed):
                    while talking.recv(_PATIENCE):
                        pass
                self.assertEqual(talking.close_code, 1003)
            with running(path, "follow", uri) as (stopped, _tick, _price):
                stopped.send_signal(signal.SIGINT)
                self.check_end(stopped)
            with running(path, "follow", uri) as (client, _tick, _price):
                server.send_signal(signal.SIGINT)
                self.check_end(client)
            printed, _ = server.communicate()
        self.assertEqual((printed, server.returncode), ("", 0))
        self.assertEqual(
            re.sub(r":\d+/", ":1341/", opened), promised(self.NAME).replace("0.5", "0.02")
        )
        ticks = [json.loads(number) for number in re.findall(r"tick (\d+): ", followed.stdout)]
        self.assertEqual(ticks, [ticks[0], ticks[0] + 1, ticks[0] + 2], followed.stderr)
        first = followed.stdout.splitlines()[0]
        self.assertEqual(first, f"tick {ticks[0]}: {100 + ticks[0] / 4}")
        self.assertEqual(promised(self.NAME, 2).splitlines()[0], "tick 1: 100.25")

    def check_end(self, client: subprocess.Popen[str]) -> None:
        """Wait for the end of a client."""
        printed, _ = client.communicate(timeout=_PATIENCE)
        self.assertRegex(printed, r"\A(tick .+\n)*the WebSocket is closed\n\Z")
        self.assertEqual(client.returncode, 0)

    def test_subscriber_that_does_not_read_is_dropped(self) -> None:
        """Two hundred others miss nothing; what is queued for the slow one is bounded."""
        defined = runpy.run_path(str(EXAMPLES / self.NAME))
        clock = Clock()
        factory = defined["make_factory"](clock)
        feed, subscriber = defined["Feed"](), defined["Subscriber"]
        rows = [Connected(subscriber, clock=clock, factory=factory) for _ in range(201)]
        for row in rows:
            row.receive(REQUEST + END)
            row.sent()
        slow, *others = rows
        slow.transport.producer.pauseProducing()
        self.assertEqual(feed.tick(), 201)
        tick = others[0].frames()
        self.assertEqual(tick, [("text", '{"number": 1, "price": 100.25}')])
        sent = 0
        while not slow.is_aborted:
            self.assertLess(sent, defined["MAX_UNSENT"] + 1000)
            defined["broadcast"](subscriber.everybody, "x" * 1000)
            sent += 1000
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            slow.lose(ConnectionAborted())
        self.assertRegex(printed.getvalue(), r"\Alost .+\n\Z")
        self.assertEqual(feed.tick(), 200)
        for number, row in enumerate(others):
            received = row.frames()
            self.assertEqual(len(received), sent // 1000 + (1 if row is others[0] else 2), number)
            self.assertEqual(received[-1], ("text", '{"number": 2, "price": 100.5}'), number)
        late = Connected(subscriber, clock=clock, factory=factory)
        late.receive(REQUEST + END)
        self.assertTrue(late.sent().endswith(b'{"number": 2, "price": 100.5}'))

    def test_mistakes_are_reported_in_one_line(self) -> None:
        """A wrong command line has the usage in front; all others are one line."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            used = str(taken.getsockname()[1])
            for words, status, line in (
                (("serve", used, "1"), 1, f"websocket_feed: cannot listen on port {used}: .+"),
                (("serve", "0", "nan"), 2, "usage: .+\nwebsocket_feed.+'nan'"),
                (("follow", "nonsense"), 1, "websocket_feed: the URI is not absolute: .+"),
                (("follow", "ws://127.0.0.1:1/"), 1, "websocket_feed: ConnectionRefused .+"),
            ):
                refused = run_example(self.NAME, *words)
                self.assertEqual(refused.returncode, status, f"{words=}")
                self.assertRegex(refused.stderr, rf"\A{line}\n\Z", f"{words=}")


class WebSocketSampleTests(SynchronousTestCase):
    """The WebSocket sample: its four scenarios, and its error texts."""

    def setUp(self) -> None:
        made = tempfile.TemporaryDirectory()
        self.addCleanup(made.cleanup)
        self.folder = str(Path(made.name, "certificates"))

    def test_each_scenario_prints_the_output_in_its_docstring(self) -> None:
        """The server answers with the bytes of the sample; Ctrl-C ends it."""
        name = "websocket_sample.py"
        folder = "/WebSocketSample/"
        server_name = "websocket_sample_server.py"
        server_words = ("0", "0", self.folder)
        with running(EXAMPLES / server_name, *server_words) as (server, opened, _port):
            port, secure = re.findall(r"\d+", opened)
            certified = (
                f"wss://localhost:{secure}{folder}EchoWebSocketWithClientAuthentication.ashx"
            )
            for run, scenario, uri in (
                (1, "text", f"ws://localhost:{port}{folder}EchoWebSocket.ashx"),
                (1, "text", f"wss://localhost:{secure}{folder}EchoWebSocket.ashx"),
                (2, "binary", f"ws://localhost:{port}{folder}EchoWebSocket.ashx"),
                (3, "certificate", certified),
                (4, "partial", f"ws://localhost:{port}{folder}partialMessages.ashx"),
            ):
                shown = run_example(name, scenario, uri, self.folder)
                printed = re.sub(r"at: [\d/]+ [\d:]+", "at: 11/29/2026 12:00:00", shown.stdout)
                # An answer that is late is not counted.
                printed = re.sub(r"received \d+ bytes", "received 161 bytes", printed)
                self.assertEqual((printed, shown.stderr), (promised(name, run), ""), uri)
            Path(self.folder, "client.pem").unlink()
            for uri, error in (
                (certified, "Forbidden"),
                (f"ws://localhost:{port}/x", "cannot connect: run websocket_sample_server.py"),
            ):
                refused = run_example(name, "certificate", uri, self.folder)
                expected = (1, f"websocket_sample: {error}\n")
                self.assertEqual((refused.returncode, refused.stderr), expected, uri)
            server.send_signal(signal.SIGINT)
            server.wait(timeout=_PATIENCE)
        promise = promised(server_name).replace("8080", port).replace("8443", secure)
        self.assertEqual((opened, server.returncode), (promise, 0))

    def test_unusable_uri_is_refused_in_one_line(self) -> None:
        """A URI that is not absolute, a fragment, another scheme, and an unknown scenario."""
        for words in (
            ("text", "nonsense"),
            ("text", "ws://localhost/#fragment"),
            ("text", "http://localhost/"),
            ("dance",),
        ):
            refused = run_example("websocket_sample.py", *words)
            self.assertEqual(refused.returncode, 1, f"{words=}")
            self.assertRegex(refused.stderr, r"\A(websocket_sample|usage): .+\n\Z", f"{words=}")


class MailExampleTests(SynchronousTestCase):
    """The mail server; tests/test_outside_tools.py has its answers to clients."""

    def setUp(self) -> None:
        made = tempfile.TemporaryDirectory()
        self.addCleanup(made.cleanup)
        self.folder = str(Path(made.name, "certificates"))

    def test_ctrl_c_ends_the_connections_in_order(self) -> None:
        """The server prints its port, and ends the connection of a client in order."""
        with running(EXAMPLES / "smtp_starttls.py", _LOCAL, self.folder) as (server, opened, port):
            with socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE) as client:
                greeting = client.recv(100)
                server.send_signal(signal.SIGINT)
                rest = client.recv(100)
            printed, _ = server.communicate()
        self.assertEqual(opened.replace(str(port), "2525"), promised("smtp_starttls.py"))
        self.assertEqual((greeting, rest), (b"220 localhost ESMTP\r\n", b""))
        self.assertEqual((printed, server.returncode), ("", 0))

    def test_an_unusable_endpoint_is_refused_in_one_line(self) -> None:
        """An invalid string and a port in use give one line and no traceback."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            for endpoint in ("nonsense:1", f"tcp:{port}:interface=127.0.0.1"):
                refused = run_example("smtp_starttls.py", endpoint, self.folder)
                self.assertEqual(refused.returncode, 1, f"{endpoint=}")
                self.assertRegex(refused.stderr, r"\Asmtp_starttls: .+\n\Z", f"{endpoint=}")


class DatagramExamplesTests(SynchronousTestCase):
    """The examples with UDP."""

    def test_the_echo_page_prints_the_lines_of_the_guide(self) -> None:
        """The answer goes to the client's port, not to the socket that sent the request."""
        server_port, client_port = str(free_udp_port()), str(free_udp_port())
        page = run_example("datagram_echo_page.py", "127.0.0.1", server_port, client_port)
        expected = promised("datagram_echo_page.py")
        expected = expected.replace("1337", server_port).replace("1336", client_port)
        self.assertEqual((page.stdout, page.stderr), (expected, ""))

    def test_the_echo_page_names_a_wrong_address_in_one_line(self) -> None:
        """A port in use, an invalid port and an address of another host give one line."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            for words in (
                ("127.0.0.1", str(taken.getsockname()[1])),
                ("127.0.0.1", "65536"),
                ("203.0.113.1", "0"),
            ):
                page = run_example("datagram_echo_page.py", *words)
                self.assertEqual(page.returncode, 1, f"{words=}")
                self.assertRegex(page.stderr, r"\Adatagram_echo_page: .+\n\Z", f"{words=}")

    def test_two_programs_share_the_port_and_receive_from_the_group(self) -> None:
        """The sender receives too; a third program that does not share the port can't bind it."""
        port = str(free_udp_port())
        path = EXAMPLES / "multicast_sample.py"
        with subprocess.Popen(
            [sys.executable, str(path), "listen", "3", "30", port],
            env=_ENVIRONMENT,
            stdout=subprocess.PIPE,
            text=True,
        ) as listener:
            assert listener.stdout is not None
            joined = listener.stdout.readline()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as greedy:
                self.assertRaises(OSError, greedy.bind, ("", int(port)))
            sender = run_example("multicast_sample.py", "send", "3", "30", port)
            heard, _ = listener.communicate(timeout=_PATIENCE)
        self.assertEqual(joined, f"Joined 224.3.0.5 port {port} on lo\n")
        self.assertEqual(sender.stdout, joined + 3 * '"Hello" sent successfully\n' + heard)
        self.assertRegex(heard, rf'\A(From \S+ port {port}: "Hello"\n){{3}}\Z')

    def test_the_multicast_sample_names_a_mistake_in_one_line(self) -> None:
        """A port that is not shared, no datagram in time, and an invalid port give one line."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("", 0))
            for port in (str(taken.getsockname()[1]), "0", "65536"):
                sample = run_example("multicast_sample.py", "listen", "1", "0", port)
                self.assertEqual(sample.returncode, 1, f"{port=}")
                self.assertRegex(sample.stderr, r"\Amulticast_sample: .+\n\Z", f"{port=}")

    def test_the_batched_datagrams_example_compares_each_way(self) -> None:
        """Each way runs alone; the run of all ways counts system calls too."""
        for way in ("loop", "awaited", "flushed"):
            compared = run_example("batched_datagrams.py", way, "20")
            self.assertRegex(
                compared.stdout, rf"\A{way} +64 datagrams of 100 bytes: [\d.]+ µs", f"{way=}"
            )

    def test_batched_datagrams_leave_in_one_system_call(self) -> None:
        """The output is the one in its docstring, if strace can count the calls."""
        compared = run_example("batched_datagrams.py").stdout
        if "not counted" in compared:
            raise SkipTest("there is no strace, or it is not allowed to trace")
        counted = re.sub(r"[\d.]+ µs", "… µs", compared)
        self.assertEqual(counted, promised("batched_datagrams.py"))

    def test_unknown_arguments_are_refused_in_one_line(self) -> None:
        """Arguments that the docstring does not list give the usage line and status 1."""
        for name, *words in (
            ("datagram_echo_page.py", "127.0.0.1", "1", "2", "3"),
            ("multicast_sample.py", "dance"),
            ("multicast_sample.py", "listen", "x"),
            ("batched_datagrams.py", "slowly"),
        ):
            refused = run_example(name, *words)
            self.assertEqual(refused.returncode, 1, f"{name=}, {words=}")
            self.assertRegex(refused.stderr, r"\Ausage: .+\n\Z", f"{name=}, {words=}")


class GuideToStartTlsTests(SynchronousTestCase):
    """The programs in docs/starttls.rst."""

    def setUp(self) -> None:
        made = tempfile.TemporaryDirectory()
        self.addCleanup(made.cleanup)
        self.folder = Path(made.name)
        self.server, self.client = programs_in("starttls.rst")

    def write(self, name: str, program: str) -> Path:
        path = self.folder / name
        path.write_text(program, encoding="utf-8")
        return path

    def test_the_server_forgets_the_name_from_before_tls(self) -> None:
        """Inside TLS it has no name; the client had sent it in plaintext."""
        server = self.write("server.py", self.server.replace("tcp:1340:", "tcp:0:"))
        with running(server) as (_process, opened, port):
            client = self.write("client.py", self.client.replace(":1340", f":{port}"))
            talked = run_program(client)
        self.assertEqual(opened, f"listening on 127.0.0.1:{port}\n")
        self.assertEqual((talked.stdout, talked.stderr), (self.promised(), ""))

    def promised(self) -> str:
        """Return the output of the client in the document."""
        text = (_TOP / "docs" / "starttls.rst").read_text(encoding="utf-8")
        block = re.findall(r"^\.\. code-block:: text\n\n((?:    .*\n)+)", text, re.MULTILINE)[-1]
        return textwrap.dedent(block)


class GuideToDatagramsTests(SynchronousTestCase):
    """The program in docs/datagrams.rst."""

    def test_the_program_answers(self) -> None:
        """It runs at a free port."""
        made = tempfile.TemporaryDirectory()
        self.addCleanup(made.cleanup)
        (program,) = programs_in("datagrams.rst")
        path = Path(made.name, "shout.py")
        path.write_text(program.replace("udp:1338:", "udp:0:"), encoding="utf-8")
        with (
            running(path) as (_process, _opened, port),
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
        ):
            client.settimeout(_PATIENCE)
            client.sendto(b"hello", ("127.0.0.1", port))
            self.assertEqual(client.recv(100), b"HELLO")


class GuideToWebSocketsTests(SynchronousTestCase):
    """The programs in docs/websockets.rst: the first as a process, the others in memory."""

    def setUp(self) -> None:
        self.server, *self.others = programs_in("websockets.rst")

    def define(self, name: str) -> Any:
        """Run the program that defines a name; return that."""
        (program,) = [
            program
            for program in self.others
            if re.search(rf"^(class|def) {name}\b|^{name} = ", program, re.MULTILINE)
        ]
        defined: dict[str, Any] = {}
        exec(compile(program, "websockets.rst", "exec", dont_inherit=True), defined)
        return defined[name]

    def test_the_server_answers_the_client_of_the_page(self) -> None:
        """The server runs on a free port; the client prints the lines of the page."""
        self.assertIn("tcp:1341:", self.server)
        self.converse(self.server.replace("tcp:1341:", "tcp:0:"))

    def test_awaiting_server_answers_the_same_client(self) -> None:
        """The program awaits the messages."""
        (program,) = [program for program in self.others if "WebSocketListener" in program]
        self.assertIn(", 1342)", program)
        self.converse(program.replace(", 1342)", ", 0)"))

    def converse(self, program: str) -> None:
        """Run a server; let the client of the page send a text to it."""
        made = tempfile.TemporaryDirectory()
        self.addCleanup(made.cleanup)
        path = Path(made.name, "shout.py")
        path.write_text(program, encoding="utf-8")
        with running(path) as (_process, _opened, port):
            client = echo(f"ws://127.0.0.1:{port}/", "Hello")
        page = (_TOP / "docs" / "websockets.rst").read_text(encoding="utf-8")
        printed = client.stdout + client.stderr
        self.assertIn(textwrap.indent(printed, 4 * " "), page)
        self.assertEqual(client.returncode, 1)

    def test_each_program_is_run(self) -> None:
        """There are ten besides the server, each of which has a test here."""
        self.assertEqual(len(self.others), 10)

    def test_handler_that_waits_answers_in_order(self) -> None:
        """The second message is handled after the first."""
        made = connected(self.define("Slow"))
        made.receive(text("a") + text("b"))
        self.assertEqual(made.frames(), [])
        made.clock.pump((1, 1))
        expected = [("text", "the answer to a"), ("text", "the answer to b")]
        self.assertEqual(made.frames(), expected)

    def test_only_visitors_with_a_session_are_accepted(self) -> None:
        """Others get the status 401."""
        personal = self.define("Personal")
        for cookie, answer in (
            (b"", b"HTTP/1.1 401 "),
            (b"Cookie: session=\r\n", b"HTTP/1.1 401 "),
            (b"Cookie: session=51ab\r\n", b"HTTP/1.1 101 "),
        ):
            made = Connected(personal)
            made.receive(REQUEST + cookie + END)
            sent = made.sent()
            self.assertTrue(sent.startswith(answer), sent)
            is_greeted = sent.endswith(b"\r\n\r\n\x81\x0aHello, Ada")
            self.assertEqual(is_greeted, b"51ab" in cookie, sent)

    def test_page_behind_the_proxy_may_connect(self) -> None:
        """On a loopback address, with the name that the proxy passes on, and no other."""
        rules = self.define("factory").settings.rules
        for host, origin, expected in (
            ("www.example.com", "https://www.example.com", Acceptance),
            ("www.example.com", "https://example.net", Refusal),
            ("example.net", "https://example.net", Refusal),
            ("127.0.0.1:1341", "https://www.example.com", Refusal),
        ):
            fields = (
                ("Host", host),
                ("Origin", origin),
                ("Upgrade", "websocket"),
                ("Connection", "upgrade"),
                ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
                ("Sec-WebSocket-Version", "13"),
            )
            judged = rules.judge(Request("GET", "/chat", fields), is_loopback=True)
            self.assertIsInstance(judged, expected, f"{host} {origin}")

    def test_slow_peer_misses_some_numbers(self) -> None:
        """Nothing is sent while the output is full; the loop ends with the connection."""
        made = connected(self.define("Counting"))
        made.clock.advance(1)
        made.transport.producer.pauseProducing()
        made.clock.pump((1, 1))
        made.transport.producer.resumeProducing()
        made.clock.advance(1)
        _, _, messages = made.sent().rpartition(b"\r\n\r\n")
        made.decoder.feed(messages)
        counted = [data for _, data, _ in made.decoder.messages()]
        self.assertEqual(counted, ["2", "5"])
        made.reset()
        self.assertFalse(made.protocol.loop.running)

    def test_defaults_are_those_of_the_code(self) -> None:
        """The columns "Servers" and "Clients" of the table."""
        page = (_TOP / "docs" / "websockets.rst").read_text(encoding="utf-8")
        table = page.partition("\nDefaults\n")[2].partition("\nThe masks of a client")[0]
        rows = [re.split(r"\n     - ?", row) for row in table.split("\n   * - ")[2:]]
        told = {name: (servers, clients) for name, servers, clients, *_ in rows}
        factory = WebSocketFactory(Clock(), WebSocketEcho)
        server, client = factory.settings, MessageWebSocket(Clock())
        control, queue = client.control, client.output_stream
        head = f"{MAX_HEAD >> 10} KiB, {MAX_FIELDS} fields"
        high_water = f"{WebSocketEcho.high_water >> 10} KiB"
        expected = {
            "largest message": (_mib(DEFAULT_MAX_MESSAGE_SIZE), _mib(control.max_message_size)),
            "frames of a message": (f"{server.max_fragments:,}", f"{control.max_fragments:,}"),
            "head of a request or response": (head, head),
            "opening handshake": (f"{server.handshake_timeout:g} s", f"{RESPONSE_TIMEOUT:g} s"),
            "TLS handshake": (f"{DEFAULT_HANDSHAKE_TIMEOUT:g} s",) * 2,
            "time between two pings": (
                f"{server.ping_interval:g} s",
                f"{control.ping_interval:g} s",
            ),
            "silence after a ping": (f"{server.ping_timeout:g} s", f"{control.ping_timeout:g} s"),
            "close": (f"{factory.close_timeout:g} s", f"{DEFAULT_CLOSE_TIMEOUT:g} s"),
            "queued output, full": (high_water, high_water),
            "queued output, at most": (_mib(LEAST_MAX_UNSENT), _mib(queue.max_unsent)),
            "input during a handler": (f"{MAX_BACKLOG >> 10} KiB", ""),
            "received and unsent bytes of all connections": (_mib(DEFAULT_MAX_BUFFERED), ""),
            "addresses of a host": ("", f"{MAX_ADDRESSES}, {ADDRESS_TIMEOUT:g} s each"),
        }
        self.assertEqual({name: told[name] for name in expected}, expected)

    def test_compression_is_that_of_the_code(self) -> None:
        """The defaults of ``DeflateSettings``."""
        page = (_TOP / "docs" / "websockets.rst").read_text(encoding="utf-8")
        told = {
            name: eval(default)
            for name, default in re.findall(r"^``(\w+)`` +([\w]+)   +[a-z\d]", page, re.MULTILINE)
        }
        self.assertEqual(told, asdict(DeflateSettings()))

    def test_the_tests_of_the_page_pass(self) -> None:
        """Those on a socket, and those in memory."""
        made = tempfile.TemporaryDirectory()
        self.addCleanup(made.cleanup)
        programs = [program for program in self.others if "TestCase" in program]
        for number, program in enumerate(programs):
            Path(made.name, f"test_{number}.py").write_text(program, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "twisted.trial", "test_0", "test_1"],
            cwd=made.name,
            env={**_ENVIRONMENT, "PYTHONPATH": f"{_TOP}{os.pathsep}{made.name}"},
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
        self.assertIn("PASSED (successes=3)", done.stdout, done.stderr)

    def test_server_has_tls_from_the_first_byte(self) -> None:
        """With the commands of the page."""
        (program,) = [program for program in self.others if "UpgradePolicy.IMPLICIT" in program]
        self.assertIn('"tcp:1347:', program)
        made = tempfile.TemporaryDirectory()
        self.addCleanup(made.cleanup)
        folder = Path(made.name)

        def run_twsock(*arguments: str) -> str:
            return subprocess.run(
                [sys.executable, "-m", "twsock", *arguments],
                cwd=folder,
                env=_ENVIRONMENT,
                capture_output=True,
                text=True,
                timeout=_PATIENCE,
                check=True,
            ).stdout

        run_twsock("certificates", "init", "certificates")
        path = folder / "wss.py"
        path.write_text(program.replace('"tcp:1347:', '"tcp:0:'), encoding="utf-8")
        with running(path) as (_process, _opened, port):
            authority = ("--ca", "certificates/authority.pem")
            shown = run_twsock("echo", f"wss://127.0.0.1:{port}/", "Hello", *authority)
        self.assertIn('client received the response: "Hello"', shown)

    def test_site_serves_pages_and_web_sockets(self) -> None:
        """On one port."""
        pages = Resource()
        pages.putChild(b"page", Page(b"a page", "text/plain"))
        site, _ = self.define("make_site")(Clock(), pages)
        for path, expected in ((b"/echo", b"HTTP/1.1 101 "), (b"/page", b"a page")):
            made: Any = StringTransport(hostAddress=IPv4Address("TCP", "192.0.2.1", 80))
            channel = site.buildProtocol(None)
            channel.makeConnection(made)
            channel.dataReceived(REQUEST.replace(b"/chat", path) + END)
            self.assertIn(expected, made.value())
            channel.connectionLost(Failure(ConnectionDone()))

    def test_news_reach_all_subscribers(self) -> None:
        """One that has left is not counted."""
        publish = self.define("publish")
        subscriber = publish.__globals__["Subscriber"]
        rows = [connected(subscriber) for _ in range(3)]
        rows[0].reset()
        self.assertEqual(publish("news"), 2)
        self.assertEqual(rows[1].frames(), [("text", "news")])


class GuideToWebSocketClientsTests(SynchronousTestCase):
    """The programs in docs/websocket-clients.rst, with the service that the page names."""

    def test_clients_print_what_the_service_answers(self) -> None:
        """Messages, a stream, and a refusal with the lines of the page."""
        page = (_TOP / "docs" / "websocket-clients.rst").read_text(encoding="utf-8")
        refusal = page.partition("The program prints::\n\n")[2].partition("\n\n")[0]
        expected = "Hello\nWorld\n", "b'Hello, World!'\n", textwrap.dedent(refusal) + "\n"
        programs = programs_in("websocket-clients.rst")
        with (
            tempfile.TemporaryDirectory() as folder,
            twistd("twsock-websocket", "--endpoint", "tcp:0:interface=127.0.0.1") as service,
        ):
            (port,) = service.wait_for_ports()
            for program, answer in zip(programs, expected, strict=True):
                path = Path(folder, "client.py")
                self.assertIn("127.0.0.1:1338/", program)
                path.write_text(program.replace(":1338/", f":{port}/"), encoding="utf-8")
                done = run_program(path)
                self.assertEqual(done.stdout, answer, done.stderr)


class ReadmeTests(SynchronousTestCase):
    """The programs in README.md, at free ports."""

    def setUp(self) -> None:
        made = tempfile.TemporaryDirectory()
        self.addCleanup(made.cleanup)
        self.folder = Path(made.name)
        self.frames, self.lines, self.datagrams, self.messages = programs_in_readme()

    def write(self, program: str, printed: str, free: str) -> Path:
        """Save a program with a free port in the place of the printed one."""
        self.assertIn(printed, program)
        path = self.folder / "program.py"
        path.write_text(program.replace(printed, free), encoding="utf-8")
        return path

    def test_the_server_of_frames_answers_as_printed(self) -> None:
        """``twsock echo`` prints the lines of README.md, and exits with status 1."""
        path = self.write(self.frames, '"tcp:1340:', '"tcp:0:')
        with running(path) as (_server, _opened, port):
            client = echo(f"tcp:127.0.0.1:{port}", "Hello, World!")
        self.assertEqual(client.returncode, 1)
        printed = f"```text\n{client.stdout}{client.stderr}```\n"
        self.assertIn(printed, _README.read_text(encoding="utf-8"))

    def test_the_server_of_lines_answers_as_printed(self) -> None:
        """``twsock echo --raw`` prints the lines of README.md."""
        path = self.write(self.lines, '"localhost", 1339', '"127.0.0.1", 0')
        with running(path) as (_server, _opened, port):
            client = echo(f"127.0.0.1:{port}", "--raw", typed="Hello\r\nWorld\r\n")
        printed = f"```text\n{client.stdout}```\n"
        self.assertIn(printed, _README.read_text(encoding="utf-8"), client.stderr)

    def test_the_client_of_web_sockets_prints_the_echo(self) -> None:
        """The server is that of ``twistd``."""
        local = "tcp:0:interface=127.0.0.1"
        with twistd("twsock-websocket", "--endpoint", local) as service:
            (port,) = service.wait_for_ports()
            done = run_program(self.write(self.messages, "127.0.0.1:1338", f"127.0.0.1:{port}"))
        self.assertEqual(done.stdout, "Hello, World!\n", done.stderr)

    def test_the_client_of_datagrams_prints_the_echoes(self) -> None:
        """It prints the five datagrams, with the address of the server."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind(("127.0.0.1", 0))
            server.settimeout(_PATIENCE)
            port = server.getsockname()[1]
            path = self.write(self.datagrams, '"127.0.0.1", 1337', f'"127.0.0.1", {port}')
            with subprocess.Popen(
                [sys.executable, str(path)], env=_ENVIRONMENT, stdout=subprocess.PIPE, text=True
            ) as client:
                for _ in range(5):
                    data, peer = server.recvfrom(100)
                    server.sendto(data, peer)
                printed, _ = client.communicate(timeout=_PATIENCE)
        expected = [f"b'datagram {number}' from ('127.0.0.1', {port})" for number in range(5)]
        self.assertEqual(printed.splitlines(), expected)
