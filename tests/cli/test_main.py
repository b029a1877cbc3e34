"""The command as users meet it: a process with streams, signals and an exit status."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import pty
import re
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.cli.conversations import (
    AUTHORITY,
    PATIENCE,
    Run,
    behind_tls,
    command,
    echo_datagram,
    echo_frames,
    echo_lines,
    environment,
    run,
    running_command,
    serve,
    serve_datagrams,
)
from tests.cli.extras import needs_rich
from tests.services.processes import twistd
from twsock.cli import main
from twsock.cli.main import COMMANDS


def answer_with(data: bytes) -> Callable[[socket.socket], None]:
    """Give a server that answers anything with the same bytes, and waits for the end."""

    def handle(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(data)
        while connection.recv(65536):
            pass

    return handle


class MainTests(SynchronousTestCase):
    """What ends before a reactor is needed."""

    def test_bad_usage_is_one_line_and_exit_status_2(self) -> None:
        """On standard error, and nothing on standard output."""
        for words in (
            [],
            ["ping"],
            ["--count", "echo"],
            ["echo"],
            ["echo", "--quiet"],
            ["echo", "tcp:h:1", "--count", "no"],
            ["certificates"],
            ["restart"],
        ):
            with (
                contextlib.redirect_stderr(io.StringIO()) as errors,
                contextlib.redirect_stdout(io.StringIO()) as output,
            ):
                ended = self.assertRaises(SystemExit, main, words)
            self.assertEqual(ended.code, 2, f"{words=}")
            self.assertRegex(
                errors.getvalue(), r"\Atwsock: [^\n]+; see twsock [a-z ]*--help\n\Z", f"{words=}"
            )
            self.assertEqual(output.getvalue(), "", f"{words=}")

    def test_a_missing_word_is_named(self) -> None:
        """Neither a command nor an endpoint can be left out, and a command must be known."""
        for words, line in (
            ([], "a command is missing; see twsock --help"),
            (["ping"], "there is no command 'ping'; see twsock --help"),
            (["--count", "echo"], "there is no command '--count'; see twsock --help"),
            (["echo"], "ENDPOINT is missing; see twsock echo --help"),
            (["echo", "--quiet"], "ENDPOINT is missing; see twsock echo --help"),
        ):
            with contextlib.redirect_stderr(io.StringIO()) as errors:
                self.assertRaises(SystemExit, main, words)
            self.assertEqual(errors.getvalue(), f"twsock: {line}\n", f"{words=}")

    def test_help_and_version_end_in_order(self) -> None:
        """They are printed on standard output, with every command, in 80 columns."""
        for word, parts in (
            ("--version", ["twsock "]),
            ("--help", ["commands:\n  echo ", "\n  certificates "]),
            ("-h", ["usage: twsock "]),
        ):
            result = run(word)
            self.assertEqual((result.stderr, result.returncode), (b"", 0), f"{word=}")
            shown = result.stdout.decode()
            for part in parts:
                self.assertIn(part, shown, f"{word=}, {part=}: {shown}")
            self.assertLessEqual(max(map(len, shown.splitlines())), 80, f"{word=}")

    def test_every_command_is_in_the_help(self) -> None:
        """A new one needs a purpose."""
        shown = run("--help").stdout.decode()
        for name, one in COMMANDS.items():
            self.assertRegex(shown, rf"(?m)^  {name} +{re.escape(one.purpose)}$", f"{name=}")

    def test_nothing_of_twisted_is_loaded_before_a_command_runs(self) -> None:
        """Neither for help nor for a wrong command line; no reactor, no TLS."""
        program = """
import sys
from twsock.cli import main
from twsock.cli.main import COMMANDS
try:
    main(sys.argv[1:])
except SystemExit:
    pass
for name in ("twisted", "OpenSSL", "cryptography", "zope", "rich"):
    if name in sys.modules:
        print("loaded", name)
"""
        for words in ([], ["--help"], ["--version"], ["echo", "--help"], ["echo", "tcp:h:1", "-x"]):
            result = subprocess.run(
                [sys.executable, "-c", program, *words],
                capture_output=True,
                timeout=PATIENCE,
                check=True,
                env=environment(),
            )
            self.assertNotIn(b"loaded", result.stdout, words)


class ProcessTests(SynchronousTestCase):
    """Whole runs against servers that know nothing of twsock."""

    def fails(
        self, result: subprocess.CompletedProcess[bytes], pattern: str, status: int = 1
    ) -> None:
        """Make sure of one line and no more on standard error."""
        self.assertRegex(result.stderr.decode(), rf"\Atwsock: {pattern}\n\Z")
        self.assertEqual(result.returncode, status)

    def test_frames_are_understood_by_a_server_with_only_struct(self) -> None:
        """The five lines, and nothing on standard error."""
        with serve(echo_frames) as endpoint:
            result = run("echo", endpoint, "Hello, World! ☺")
        self.assertEqual(
            result.stdout.decode().splitlines(),
            [
                "client is trying to connect...",
                "client connected",
                'client sent the request: "Hello, World! ☺"',
                'client received the response: "Hello, World! ☺"',
                "client closed its socket",
            ],
        )
        self.assertEqual((result.stderr, result.returncode), (b"", 0))

    def test_lines_are_understood_by_a_server_with_only_a_file(self) -> None:
        """From standard input to standard output, byte for byte."""
        lines = "".join(f"{number} ☺\n" for number in range(300)).encode() + b"\nlast"
        with serve(echo_lines) as endpoint:
            result = run("echo", endpoint, "--framing", "line", "--quiet", stdin=lines)
        self.assertEqual(result.stdout, lines + b"\n")
        self.assertEqual((result.stderr, result.returncode), (b"", 0))

    def test_a_refused_connection_is_one_line(self) -> None:
        """With the status of it, and exit status 1."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        result = run("echo", f"tcp:127.0.0.1:{port}", "a")
        self.fails(result, r"connect failed: ConnectionRefused \(12\): [^\n]+")
        self.assertEqual(result.stdout, b"client is trying to connect...\n")

    def test_an_endpoint_that_cannot_be_used_is_bad_usage(self) -> None:
        """The line names it."""
        for endpoint in ("localhost", "udp:127.0.0.1", "multicast:127.0.0.1:22113"):
            result = run("echo", endpoint, "a")
            self.fails(result, rf"cannot use the endpoint '{re.escape(endpoint)}': [^\n]+", 2)
            self.assertEqual(result.stdout, b"", f"{endpoint=}")

    def test_a_size_makes_up_the_messages(self) -> None:
        """Of a stream, in either format; their bytes are not shown."""
        for framing, handle in (("uint32", echo_frames), ("line", echo_lines)):
            with serve(handle) as endpoint:
                words = ("--size", "5000", "--count", "2", "--framing", framing)
                result = run("echo", endpoint, *words)
            self.assertEqual((result.stderr, result.returncode), (b"", 0), f"{framing=}")
            lines = result.stdout.decode().splitlines()
            self.assertEqual(
                lines[2:4],
                [
                    "client sent the request: 5000 bytes",
                    "client received the response: 5000 bytes",
                ],
                f"{framing=}",
            )
            self.assertTrue(lines[-1].startswith("2 echoes, round trip "), f"{framing=}")

    def test_a_long_line_is_told_with_its_limit(self) -> None:
        """That of a datagram, where it is to be one."""
        with serve_datagrams(echo_datagram) as endpoint:
            result = run("echo", endpoint, "--quiet", stdin=b"a\n" + b"b" * 65_528)
        self.fails(result, "line 2 of standard input is longer than a datagram, 65527 bytes")
        self.assertEqual(result.stdout, b"a\n")

    def test_a_hostile_answer_is_one_line(self) -> None:
        """A count of 4 GiB, another answer, two answers, none."""
        for answer, pattern in (
            (b"\xff\xff\xff\xff", "cannot read the response: peer announced a frame of 4294967295"),
            (
                struct.pack(">I1s", 1, b"\x1b"),
                "the response differs from the request: sent 1 bytes",
            ),
            (struct.pack(">I1sI", 1, b"a", 0), "the server sent a message of 0 bytes that was not"),
        ):
            with serve(answer_with(answer)) as endpoint:
                self.fails(run("echo", endpoint, "a"), f"{pattern}[^\n]*")

    def test_a_server_that_does_not_answer_is_left_after_the_timeout(self) -> None:
        """So is one that does not even read."""
        for text in (b"a", b"a" * 16_000_000):
            ended = threading.Event()

            def handle(_connection: socket.socket, ended: threading.Event = ended) -> None:
                ended.wait(PATIENCE)

            with serve(handle) as endpoint:
                result = run("echo", endpoint, "--timeout", "0.3", "--quiet", stdin=text)
                ended.set()
            self.fails(result, r"no answer within 0\.3 s: ConnectionTimedOut \(3\): [^\n]+")

    def test_input_that_is_not_utf8_is_one_line(self) -> None:
        """After the lines before it."""
        with serve(echo_frames) as endpoint:
            result = run("echo", endpoint, "--quiet", stdin=b"ok\n\xff\n")
        self.fails(result, "line 2 of standard input is not UTF-8: [^\n]+")
        self.assertEqual(result.stdout, b"ok\n")

    def test_a_reader_that_leaves_ends_it_quietly(self) -> None:
        """As in ``| head -1``: no traceback, and the status of a broken pipe."""
        with serve(echo_frames) as endpoint:
            process = self.start("echo", endpoint, "--count", "1000000", "a")
            assert process.stdout is not None
            self.assertEqual(process.stdout.readline(), b"client is trying to connect...\n")
            process.stdout.close()
            self.assertEqual(process.wait(PATIENCE), 141)
        assert process.stderr is not None
        self.assertEqual(process.stderr.read(), b"")

    def test_help_that_nobody_reads_ends_quietly(self) -> None:
        """Of all commands, with the buffer that standard output has."""
        variables = {**environment(), "PYTHONUNBUFFERED": ""}
        for words in (["--help"], ["echo", "--help"], ["certificates", "--help"]):
            reader, writer = os.pipe()
            os.close(reader)
            try:
                result = subprocess.run(
                    command(*words),
                    stdout=writer,
                    stderr=subprocess.PIPE,
                    timeout=PATIENCE,
                    check=False,
                    env=variables,
                )
            finally:
                os.close(writer)
            self.assertEqual((result.stderr, result.returncode), (b"", 141), words)

    def test_help_that_cannot_be_written_is_one_line(self) -> None:
        """Of all commands, whether Python has a buffer or not; the disk may be full."""
        device = Path("/dev/full")
        if not device.exists():
            raise SkipTest("this system has no /dev/full")
        line = f"twsock: cannot write to standard output: {os.strerror(errno.ENOSPC)}\n"
        for words in (["--help"], ["echo", "--help"], ["certificates", "--help"]):
            for unbuffered in ("", "1"):
                with device.open("wb") as full:
                    result = subprocess.run(
                        command(*words),
                        stdout=full,
                        stderr=subprocess.PIPE,
                        timeout=PATIENCE,
                        check=False,
                        env={**environment(), "PYTHONUNBUFFERED": unbuffered},
                    )
                self.assertEqual((result.stderr.decode(), result.returncode), (line, 1), words)

    def test_closed_streams_are_one_line(self) -> None:
        """Nothing can be done without the first two, and nothing said without the third."""
        for redirection, words, line in (
            ("<&-", "", b"twsock: standard input is closed\n"),
            (">&-", "text", b"twsock: standard output is closed\n"),
            (">&-", "--help", b"twsock: standard output is closed\n"),
            (">&- 2>&-", "text", b""),
        ):
            shell = f'exec "$@" echo tcp:127.0.0.1:1 {words} {redirection}'
            result = subprocess.run(
                ["sh", "-c", shell, "sh", *command()],
                capture_output=True,
                timeout=PATIENCE,
                check=False,
                env=environment(),
            )
            self.assertEqual(
                (result.stderr, result.returncode), (line, 1), f"{redirection=}, {words=}"
            )

    def test_ctrl_c_closes_the_connection_and_exits_with_130(self) -> None:
        """While standard input is waited for, or the interval; SIGTERM gives 143."""
        for number, words in (
            (signal.SIGINT, ()),
            (signal.SIGINT, ("a", "--interval", "60", "--count", "2")),
            (signal.SIGTERM, ("a", "--interval", "60", "--count", "2")),
        ):
            ended = threading.Event()

            def handle(connection: socket.socket, ended: threading.Event = ended) -> None:
                echo_frames(connection)
                # No reset: the connection ended in order.
                ended.set()

            with (
                serve(handle) as endpoint,
                running_command("echo", endpoint, *words) as (process, output, errors),
            ):
                last_line = b"client received" if words else b"client connected"
                self.assertTrue(
                    any(line.startswith(last_line) for line in output), f"{number=}, {words=}"
                )
                process.send_signal(number)
                self.assertEqual(process.wait(), 128 + number, f"{number=}, {words=}")
                self.assertTrue(ended.wait(PATIENCE), f"{number=}, {words=}")
                figures = rb"1 echo, round trip min/median/max [\d./]+ ms\n" if words else b""
                self.assertRegex(output.read(), rb"\A" + figures + rb"\Z", f"{number=}, {words=}")
                self.assertEqual(errors.read(), b"", f"{number=}, {words=}")

    def test_ctrl_c_ends_a_run_of_datagrams(self) -> None:
        """At once, with exit status 130 and the figures, however short the interval is."""
        words = ("a", "--count", "1000000", "--interval", "1e-9")
        with (
            serve_datagrams(echo_datagram) as endpoint,
            running_command("echo", endpoint, *words) as (process, output, errors),
        ):
            received = (line for line in output if line.startswith(b"client received"))
            for _ in range(2):
                next(received)
            process.send_signal(signal.SIGINT)
            self.assertEqual(process.wait(), 130)
            *_, last = output
            self.assertRegex(
                last, rb"^\d+ sent, \d+ received, .*0 lost; round trip min/median/max "
            )
            self.assertEqual(errors.read(), b"")

    def test_a_name_that_is_still_looked_up_does_not_hold_the_process(self) -> None:
        """Nobody waits for a name server after the timeout, on a connection or without one."""
        program = (
            "import socket, time\n"
            "socket.getaddrinfo = lambda *_: time.sleep(600)\n"
            "from twsock.cli import main\n"
            "main()\n"
        )
        for kind, line in (
            ("tcp", "connect failed: ConnectionTimedOut (3): no connection within 0.2 s"),
            ("udp", "look-up failed: ConnectionTimedOut (3): no address of slow.example within"),
        ):
            words = [f"{kind}:slow.example:1", "a", "--timeout", "0.2"]
            result = subprocess.run(
                [sys.executable, "-c", program, "echo", *words],
                capture_output=True,
                timeout=PATIENCE,
                check=False,
                env=environment(),
            )
            self.fails(result, rf"{re.escape(line)}[^\n]*")

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a process whose streams stay open for the test."""
        process = subprocess.Popen(
            command(*words),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )

        def end() -> None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()

        self.addCleanup(end)
        return process


class TerminalTests(SynchronousTestCase):
    """A terminal shows a bar, and nothing that a server could do to it."""

    def run_on_terminal(self, *words: str, output_too: bool, status: int = 0) -> tuple[str, str]:
        """
        Run the command with its standard error on a terminal.

        :returns: what the terminal got, and what standard output got where that is a pipe.
        """
        ours, theirs = pty.openpty()
        with tempfile.TemporaryFile() as elsewhere, Path(os.devnull).open("rb") as nothing:
            output = theirs if output_too else elsewhere.fileno()
            process = Run(words, [nothing.fileno(), output, theirs], TERM="xterm")
            os.close(theirs)
            pieces: list[bytes] = []
            # Linux gives EIO when the last process has closed the terminal.
            with contextlib.suppress(OSError):
                while piece := os.read(ours, 65536):
                    pieces.append(piece)
            os.close(ours)
            self.assertEqual(process.wait(), status)
            elsewhere.seek(0)
            return b"".join(pieces).decode(), elsewhere.read().decode()

    @needs_rich
    def test_a_long_run_shows_a_bar_and_takes_it_away(self) -> None:
        """Standard output goes elsewhere, and has the same lines as ever."""
        with serve(echo_frames) as endpoint:
            shown, output = self.run_on_terminal(
                "echo", endpoint, "--count", "500", "a", output_too=False
            )
        self.assertIn(" 1/500", shown)
        self.assertTrue(shown.endswith("\x1b[2K"), repr(shown[-80:]))
        self.assertEqual(output.count("client received the response"), 500)
        self.assertNotIn("\x1b", output)

    @needs_rich
    def test_a_long_run_of_datagrams_shows_a_bar(self) -> None:
        """It reaches its end, though some were lost."""

        def lose(served: socket.socket, number: int, message: bytes, source: Any) -> None:
            if number not in (50, 100):
                served.sendto(message, source)

        with serve_datagrams(lose) as endpoint:
            words = ("--size", "100", "--count", "200", "--timeout", "1")
            shown, output = self.run_on_terminal(
                *("echo", endpoint, *words), output_too=False, status=1
            )
        self.assertIn(" 1/200", shown)
        self.assertTrue(
            shown.endswith("\x1b[2Ktwsock: of 200 datagrams, 2 lost (1 %)\r\n"), repr(shown[-80:])
        )
        self.assertIn("200 sent, 198 received, 2 lost (1 %); ", output)

    @needs_rich
    def test_the_bar_stays_below_the_lines(self) -> None:
        """On one terminal they don't run into each other."""
        with serve(echo_frames) as endpoint:
            shown, _ = self.run_on_terminal(
                "echo", endpoint, "--count", "100", "a", output_too=True
            )
        self.assertIn(" 1/100", shown)
        # Without colours, and without the lines that were cleared.
        left = re.sub(r"\x1b\[[\d;]*m|\x1b\[\?25[lh]", "", shown)
        left = re.sub(r"[^\r\n]*\r(\n\r\x1b\[1A)?\x1b\[2K", "", left).replace("\r\n", "\n")
        self.assertEqual(left.count('client received the response: "a"\n'), 100)
        self.assertRegex(
            left, r'"a"\nclient closed its socket\n100 echoes, round trip [^\n]+ ms\n\Z'
        )

    def test_a_short_run_has_no_bar(self) -> None:
        """Only lines, quiet ones escaped."""
        with serve(echo_frames) as endpoint:
            shown, _ = self.run_on_terminal("echo", endpoint, "--quiet", "\x1b[2J", output_too=True)
        self.assertEqual(shown, "\\x1b[2J\r\n")


class SecureProcessTests(SynchronousTestCase):
    """Whole runs with TLS, against our own services and against Python's ``ssl``."""

    def setUp(self) -> None:
        # What a user would do first; the path of a UNIX socket has to be short.
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.made = self.folder / "made"
        made = run("certificates", "init", str(self.made))
        self.assertEqual((made.stderr, made.returncode), (b"", 0))
        self.trust = ("--ca", str(self.made / "authority.pem"))
        authority = self.folder / "authority.pem"
        authority.write_bytes(AUTHORITY.cert_pem.bytes())
        self.trust_tests = ("--ca", str(authority))

    @contextlib.contextmanager
    def service(self, *words: str) -> Iterator[tuple[str, Path]]:
        """Run the service with the certificate made; give its two endpoints."""
        path = self.folder / "echo.sock"
        endpoints = ("--endpoint", "tcp:0:interface=127.0.0.1", "--endpoint", f"unix:{path}")
        certificate = ("--certificate", str(self.made / "server.pem"))
        with twistd("twsock-stream", *endpoints, *certificate, *words) as running:
            (port,) = running.wait_for_ports()
            running.wait_for("listening on unix:")
            yield f"tcp:127.0.0.1:{port}", path

    def echoes(self, *words: str) -> bytes:
        """Make sure that a text comes back; give standard error."""
        result = run("echo", *words, "Hello, World! ☺", "--quiet")
        self.assertEqual(result.stdout.decode(), "Hello, World! ☺\n", result.stderr)
        self.assertEqual(result.returncode, 0)
        return result.stderr

    def fails(self, pattern: str, *words: str) -> None:
        """Make sure that it is told in these lines and no more."""
        result = run("echo", *words, "Hello, World! ☺", "--quiet")
        self.assertRegex(result.stderr.decode(), rf"\Atwsock: {pattern}\n\Z")
        self.assertEqual((result.stdout, result.returncode), (b"", 1))

    def test_our_service_in_mid_connection(self) -> None:
        """At once and after a command, with names and without, on TCP and on a UNIX socket."""
        with self.service("--upgrade", "required") as (endpoint, path):
            self.echoes(endpoint, "--upgrade", *self.trust)
            self.echoes(endpoint, "--upgrade=command", *self.trust, "--name", "localhost")
            self.echoes(f"unix:{path}", "--upgrade", *self.trust, "--name", "localhost")
            shown = self.echoes(endpoint, "--upgrade", *self.trust, "--show-certificate")
            self.assertIn(b"  names       localhost, 127.0.0.1, ::1\n", shown)
            self.fails(
                r"the certificate of wrong\.example is refused: "
                r"CertificateCommonNameIsIncorrect \(25\)\n"
                r"  InvalidName: it is for localhost, 127\.0\.0\.1, ::1; [^\n]+",
                *(endpoint, "--upgrade", *self.trust, "--name", "wrong.example"),
            )
            self.fails(
                r"the certificate of 127\.0\.0\.1 is refused: CertificateUntrustedRoot \(24\)\n"
                r"  IncompleteChain: [^\n]+ name a trusted authority with --ca FILE",
                *(endpoint, "--upgrade"),
            )

    def test_our_service_with_tls_from_the_first_byte(self) -> None:
        """Clients identify themselves there; one that does not is told what is missing."""
        asks = ("--client-certificate", "required", "--client-ca", self.trust[1])
        identity = ("--client-certificate", str(self.made / "client.pem"))
        with self.service("--tls", *asks) as (endpoint, _):
            self.echoes(endpoint, "--tls", *self.trust, *identity)
            self.fails(
                r"connection lost: [^\n]+; the server asks for --client-certificate FILE",
                *(endpoint, "--tls", *self.trust),
            )
            self.fails(
                r"TLS failed: [^\n]+; the server may ask for --client-certificate FILE [^\n]+",
                *(endpoint, "--tls", *self.trust, "--level", "tls12"),
            )

    def test_pythons_tls_is_understood(self) -> None:
        """From the first byte, and after a command."""
        for words, handle in (
            (("--tls",), behind_tls(echo_frames)),
            (
                ("--upgrade=command",),
                behind_tls(echo_frames, request=b"\0\0\0\x08STARTTLS", go_ahead=b"\0\0\0\2OK"),
            ),
            (
                ("--upgrade=command", "--framing", "line", "--level", "tls12"),
                behind_tls(echo_lines, request=b"STARTTLS\r\n", go_ahead=b"OK\r\n"),
            ),
        ):
            with serve(handle) as endpoint:
                notes = self.echoes(endpoint, *words, *self.trust_tests)
                self.assertEqual(notes, b"", f"{words=}")

    def test_an_expired_certificate_is_refused(self) -> None:
        """The line says when it was valid."""
        expired = AUTHORITY.issue_cert(
            "127.0.0.1", not_after=datetime(2020, 1, 1, tzinfo=timezone.utc)
        )
        with serve(behind_tls(echo_frames, expired)) as endpoint:
            self.fails(
                r"the certificate of 127\.0\.0\.1 is refused: CertificateExpired \(23\)\n"
                r"  Expired: it is valid from [^\n]+ to 2020-01-01 00:00 UTC, [^\n]+",
                *(endpoint, "--tls", *self.trust_tests),
            )

    def test_another_level_is_told(self) -> None:
        """The server takes only what is above it."""
        newest = behind_tls(echo_frames, lowest=ssl.TLSVersion.TLSv1_3)
        with serve(newest) as endpoint:
            self.fails(
                r"TLS failed: [^\n]+, see --level",
                *(endpoint, "--tls", *self.trust_tests, "--level", "tls12"),
            )

    def test_a_server_without_tls_is_told(self) -> None:
        """Whatever it makes of a handshake."""
        for words, handle, line in (
            (("--tls",), answer_with(b"220 hello\r\n"), "the server did not answer with TLS"),
            (
                ("--upgrade=command",),
                answer_with(b"\0\0\0\2NO"),
                "did not grant the request [^\n]+",
            ),
            (("--tls",), lambda _connection: None, "perhaps the server does not offer TLS"),
        ):
            with serve(handle) as endpoint:
                self.fails(f"TLS failed: [^\n]+{line}", endpoint, *words, *self.trust_tests)

    def test_ctrl_c_ends_a_handshake_that_hangs(self) -> None:
        """With exit status 130, and nothing to say."""
        ended = threading.Event()
        process: subprocess.Popen[bytes]

        def handle(connection: socket.socket) -> None:
            connection.recv(1)
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(ConnectionError):
                while connection.recv(65536):
                    pass
            ended.set()

        with serve(handle) as endpoint:
            words = command("echo", endpoint, "a", "--tls", *self.trust_tests)
            with subprocess.Popen(
                words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
            ) as process:
                output, errors = process.communicate(timeout=PATIENCE)
            self.assertTrue(ended.wait(PATIENCE))
        self.assertEqual((process.returncode, errors), (130, b""))
        self.assertEqual(output, b"client is trying to connect...\nclient connected\n")

    def test_bad_usage_connects_to_nobody(self) -> None:
        """A file or a name that cannot be used costs no connection."""
        for words, pattern in (
            (("tcp:127.0.0.1:1", "--ca", "missing.pem"), "cannot read missing.pem: [^\n]+"),
            (("unix:/run/echo.sock",), "--name HOST is missing: [^\n]+"),
        ):
            result = run("echo", *words, "a", "--tls")
            self.assertRegex(result.stderr.decode(), rf"\Atwsock: {pattern}\n\Z", f"{words=}")
            self.assertEqual((result.stdout, result.returncode), (b"", 2), f"{words=}")

    def test_certificates_are_made_once(self) -> None:
        """A second time there is something in the folder already."""
        result = run("certificates", "init", str(self.made))
        self.assertRegex(
            result.stderr.decode(), r"\Atwsock: cannot make certificates in [^\n]+\n\Z"
        )
        self.assertEqual((result.stdout, result.returncode), (b"", 1))
