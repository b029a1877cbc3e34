"""
STARTTLS, tested by tools of other projects; docs/outside-tools.rst has their results.

Each test is skipped where its tool is not installed, and in the daily profile. Every tool has a
timeout, and only processes that were started here are ended.
"""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import os
import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import skipIf

from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from tests import THOROUGH
from tests.services.processes import twistd
from tests.test_examples import programs_in, running

_EXAMPLE = Path(__file__).parents[1] / "examples" / "smtp_starttls.py"
_LOCAL = "tcp:0:interface=127.0.0.1"

#: Seconds for a tool; many times the time of the slowest.
_PATIENCE = 120

#: Seconds that the scanner waits for each answer; it always waits to the end.
_LISTENS = "1"


def find(tool: str) -> str | None:
    """Return the path of a tool, from the folder of this Python or from PATH."""
    beside = Path(sys.executable).parent
    return shutil.which(tool, path=f"{beside}{os.pathsep}{os.environ.get('PATH', os.defpath)}")


def needs(tool: str) -> Callable[[Any], Any]:
    """Skip a test if a tool is missing, and in the daily profile."""
    if THOROUGH:
        return skipIf(find(tool) is None, f"{tool} is not installed")
    return skipIf(True, "outside programs run with TWSOCK_TESTS=thorough")


def run(folder: Path, tool: str, *arguments: str, say: str = "") -> tuple[int, str]:
    """Run a tool until it exits; return its exit status and its output."""
    # Tools in Python cause warnings of their own.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    done = subprocess.run(
        [find(tool) or tool, *arguments],
        env=environment,
        cwd=folder,
        input=say,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )
    return done.returncode, done.stdout


class ProxyTests(SynchronousTestCase):
    """``examples/proxy.py`` between programs that know nothing of it."""

    def setUp(self) -> None:
        made = tempfile.TemporaryDirectory()
        self.addCleanup(made.cleanup)
        self.folder = Path(made.name)
        self.data = self.folder / "data"
        self.data.write_bytes(os.urandom(8 * 1024 * 1024))

    @needs("socat")
    def test_socat_ends_its_output_and_gets_the_answer(self) -> None:
        """The far end sees the end of the bytes, and answers with their hash."""

        def answer() -> None:
            connection, _ = remote.accept()
            with connection, connection.makefile("rb") as file:
                connection.sendall(hashlib.sha256(file.read()).hexdigest().encode())

        with socket.create_server(("127.0.0.1", 0)) as remote:
            remote.settimeout(_PATIENCE)
            answering = threading.Thread(target=answer)
            answering.start()
            with self.proxy(remote.getsockname()[1]) as port:
                here = f"OPEN:{self.data},rdonly!!STDOUT"
                _, printed = run(self.folder, "socat", "-t", "60", here, f"TCP:127.0.0.1:{port}")
            answering.join()
        self.assertEqual(printed, hashlib.sha256(self.data.read_bytes()).hexdigest())

    @needs("curl")
    def test_curl_gets_a_file_of_a_web_server(self) -> None:
        """Byte by byte the same."""
        handler = functools.partial(_QuietHandler, directory=str(self.folder))
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            serving = threading.Thread(target=server.serve_forever)
            serving.start()
            with self.proxy(server.server_address[1]) as port:
                url = f"http://127.0.0.1:{port}/data"
                status, _ = run(self.folder, "curl", "--silent", "--output", "got", url)
            server.shutdown()
            serving.join()
        self.assertEqual(status, 0)
        self.assertEqual(self.folder.joinpath("got").read_bytes() == self.data.read_bytes(), True)

    @contextmanager
    def proxy(self, remote_port: int) -> Iterator[int]:
        """Run the proxy to a port; yields its own."""
        path = _EXAMPLE.with_name("proxy.py")
        with running(path, "0", "127.0.0.1", str(remote_port)) as (_server, opened, _):
            yield int(opened.split(" ")[0].rpartition(":")[2])


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Prints nothing."""

    @override
    def log_message(self, *_arguments: object) -> None: ...


class MailServerTests(SynchronousTestCase):
    """An SMTP server with STARTTLS, tested by clients of mail servers."""

    def setUp(self) -> None:
        made = tempfile.TemporaryDirectory()
        self.addCleanup(made.cleanup)
        self.folder = Path(made.name)
        started = ExitStack()
        self.addCleanup(started.close)
        certificates = self.folder / "certificates"
        _, _, self.port = started.enter_context(running(_EXAMPLE, _LOCAL, str(certificates)))
        self.authority = str(certificates / "authority.pem")
        self.certificate = str(certificates / "server.pem")

    def s_client(self, *arguments: str, name: str = "localhost") -> tuple[int, str]:
        return run(
            self.folder,
            "openssl",
            *("s_client", "-starttls", "smtp", "-connect", f"localhost:{self.port}"),
            *("-verify_return_error", "-verify_hostname", name, "-brief", "-quiet", *arguments),
            say="NOOP\r\nQUIT\r\n",
        )

    @needs("openssl")
    def test_openssl_verifies_and_is_answered(self) -> None:
        """The certificate is verified, and the session continues over TLS."""
        status, printed = self.s_client("-CAfile", self.authority)
        self.assertEqual(status, 0, printed)
        self.assertIn("Verification: OK", printed)
        self.assertIn("250 OK\n221 Bye\n", printed.replace("\r", ""))

    @needs("openssl")
    def test_openssl_refuses_an_unknown_authority_and_another_name(self) -> None:
        """So its acceptance in the other test shows a verification."""
        for refused in (
            self.s_client(),
            self.s_client("-CAfile", self.authority, name="example.com"),
        ):
            self.assertEqual(refused[0], 1, refused[1])
            self.assertIn("certificate verify failed", refused[1], refused)

    @needs("gnutls-cli")
    def test_gnutls_verifies_and_is_answered(self) -> None:
        """The same with another implementation of TLS."""
        status, printed = run(
            self.folder,
            "gnutls-cli",
            *("--starttls-proto=smtp", f"--x509cafile={self.authority}"),
            *("--port", str(self.port), "localhost"),
            say="NOOP\r\nQUIT\r\n",
        )
        self.assertEqual(status, 0, printed)
        self.assertIn("The certificate is trusted.", printed)
        self.assertIn("250 OK\n221 Bye\n", printed.replace("\r", ""))

    @needs("swaks")
    def test_swaks_upgrades_and_asks_again(self) -> None:
        """A mail client sends EHLO over TLS, and is not offered STARTTLS there."""
        status, printed = run(
            self.folder,
            "swaks",
            *("--server", f"127.0.0.1:{self.port}", "--helo", "localhost", "--quit-after", "EHLO"),
            *("--from", "ada@example.com", "--to", "ada@example.com"),
            *("--tls", "--tls-verify", "--tls-ca-path", self.authority),
        )
        if "TLS not available" in printed:
            self.skipTest("swaks has no TLS here: it needs Net::SSLeay")
        self.assertEqual(status, 0, printed)
        self.assertIn(" ~> EHLO localhost\n<~  250 localhost\n ~> QUIT\n", printed)

    def test_the_server_forgets_plaintext_commands_of_smtplib(self) -> None:
        """The EHLO before TLS does not count after it, and a second STARTTLS is refused."""
        context = ssl.create_default_context(cafile=self.authority)
        with smtplib.SMTP("127.0.0.1", self.port, "localhost", timeout=_PATIENCE) as session:
            session.ehlo()
            replies = [session.docmd("MAIL FROM:<ada@example.com>")[0]]
            replies.append(session.starttls(context=context)[0])
            replies.append(session.docmd("MAIL FROM:<ada@example.com>")[0])
            replies.append(session.docmd("StartTLS")[0])
            session.ehlo()
            replies.append(session.docmd("MAIL FROM:<ada@example.com>")[0])
            self.assertFalse(session.has_extn("starttls"))
        self.assertEqual(replies, [530, 220, 503, 503, 550])

    def test_smtplib_refuses_an_unknown_authority(self) -> None:
        """Without the file of the authority it raises a verification error."""
        session = smtplib.SMTP("127.0.0.1", self.port, "localhost", timeout=_PATIENCE)
        self.addCleanup(session.close)
        context = ssl.create_default_context()
        self.assertRaises(ssl.SSLCertVerificationError, session.starttls, context=context)

    @needs("sslyze")
    def test_sslyze_finds_tls_1_2_and_1_3_only(self) -> None:
        """It finds no other version, and none of the vulnerabilities that it tests."""
        # The exit status depends on the authority and each cipher as well, so it is not checked.
        report = self.folder / "report.json"
        run(
            self.folder,
            "sslyze",
            *("--starttls", "smtp", "--json_out", str(report), f"localhost:{self.port}"),
        )
        (server,) = json.loads(report.read_text())["server_scan_results"]
        found = {name: scan["result"] for name, scan in server["scan_result"].items()}
        offered = [
            version
            for version in ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1", "tls_1_2", "tls_1_3")
            if found[f"{version}_cipher_suites"]["accepted_cipher_suites"]
        ]
        self.assertEqual(offered, ["tls_1_2", "tls_1_3"])
        self.assertFalse(found["heartbleed"]["is_vulnerable_to_heartbleed"])
        self.assertFalse(found["openssl_ccs_injection"]["is_vulnerable_to_ccs_injection"])
        self.assertFalse(
            found["session_renegotiation"]["is_vulnerable_to_client_renegotiation_dos"]
        )

    def scan(self, port: int) -> str:
        """Run the scanner for STARTTLS injection; return its output."""
        _, printed = run(
            self.folder,
            "command-injection-tester",
            *("--smtp", "--smtp-port", str(port), "--timeout", _LISTENS, "--nocolor", "127.0.0.1"),
        )
        self.assertIn("Sanity test done", printed)
        return printed

    @needs("command-injection-tester")
    def test_the_scanner_finds_no_injection(self) -> None:
        """The connection ends at the line behind the request, before the handshake."""
        printed = self.scan(self.port)
        self.assertIn("handshake failed - Server probably closed the connection!", printed)
        self.assertNotIn("injection here", printed)

    @needs("command-injection-tester")
    def test_the_scanner_finds_an_injection_where_there_is_one(self) -> None:
        """The server in docs/outside-tools.rst keeps its buffer, and the scanner detects it."""
        (program,) = programs_in("outside-tools.rst")
        path = self.folder / "keeps_its_buffer.py"
        path.write_text(program, encoding="utf-8")
        with running(path, "0", self.certificate) as (_server, _opened, port):
            printed = self.scan(port)
        self.assertIn("Command injection here!", printed)


class LineServiceTests(SynchronousTestCase):
    """The lines of twsock: gnutls-cli sends any plaintext, and then begins TLS."""

    @needs("gnutls-cli")
    def test_gnutls_upgrades_lines(self) -> None:
        """Lines are echoed before and after; a second request is answered NO."""
        with twistd(
            *("twsock-stream", "--framing", "line", "--upgrade", "allowed", "--endpoint", _LOCAL)
        ) as service:
            (port,) = service.wait_for_ports()
            authority = service.folder / "twsock" / "certificates" / "authority.pem"
            with Talk(
                *(find("gnutls-cli") or "", "--starttls", f"--x509cafile={authority}"),
                *("--port", str(port), "localhost"),
            ) as talk:
                talk.say("before", until="before")
                talk.say("STARTTLS", until="OK")
                talk.begin_tls()
                talk.say("after", until="after")
                talk.say("STARTTLS", until="NO")
                talk.end()
        self.assertIn("The certificate is trusted.", talk.printed)
        self.assertEqual(
            [line for line in talk.printed.split() if line in ("before", "OK", "after", "NO")],
            ["before", "OK", "after", "NO"],
        )


class Talk:
    """
    A session with gnutls-cli.

    :ivar printed: its output so far.
    """

    def __init__(self, *command: str) -> None:
        self.printed = ""
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._patience = threading.Timer(_PATIENCE, self._process.kill)
        self._patience.start()

    def __enter__(self) -> Talk:
        self._read("- Simple Client Mode:")
        return self

    def __exit__(self, *_error: object) -> None:
        self._patience.cancel()
        self._process.kill()
        self._process.communicate()

    def say(self, line: str, *, until: str) -> None:
        """Send a line, and wait for a line of the output."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        self._read(until)

    def begin_tls(self) -> None:
        """Begin the handshake, and wait for it."""
        self._process.send_signal(signal.SIGALRM)
        self._read("*** Starting TLS handshake")

    def end(self) -> None:
        """Wait until it exits, and collect the rest of its output."""
        self.printed += self._process.communicate(timeout=_PATIENCE)[0]

    def _read(self, line: str) -> None:
        assert self._process.stdout is not None
        for printed in self._process.stdout:
            self.printed += printed
            if printed.strip() == line:
                return
        raise AssertionError(f"it ended without {line!r}:\n{self.printed}")
