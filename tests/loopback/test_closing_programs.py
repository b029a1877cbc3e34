"""
Rows of the table of ends, with other programs as peers: OpenSSL and socat; in the thorough profile
also Go and Node.

A half-close of socat without TLS is in tests/loopback/test_interoperation.py.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar
from unittest import skipIf

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.threads import deferToThreadPool
from typing_extensions import override

from tests import THOROUGH
from tests.loopback.closing_rows import Row, column, followed
from tests.loopback.contract import OnEveryReactor
from tests.loopback.hostile import ALLOWED, IMPLICIT
from tests.loopback.raw_peer import Security
from tests.tls.peer import AUTHORITY
from twsock import BrokenError, SocketError
from twsock.protocols import LineProtocol, StreamServerFactory
from twsock.stream.closing import Event, State

#: The limit of a program, in seconds; many times the duration of the slowest one.
_PATIENCE = 60

_VERSIONS = {
    Security.TLS12: "1.2",
    Security.TLS13: "1.3",
    Security.UPGRADED: "1.3",
}

#: Arguments: port, kind, TLS version, text to send, whether to end first, file of the authority.
_GO = """
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
)

type halves interface {
	net.Conn
	CloseWrite() error
}

func main() {
	port, kind, version, message := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	first, authority := os.Args[5], os.Args[6]
	pem, _ := os.ReadFile(authority)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	plain, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		panic(err)
	}
	var connection halves = plain.(*net.TCPConn)
	if kind == "UPGRADED" {
		fmt.Fprint(plain, "STARTTLS\\r\\n")
		io.ReadFull(plain, make([]byte, 4))
	}
	if kind != "PLAIN" {
		highest := uint16(tls.VersionTLS13)
		if version == "1.2" {
			highest = tls.VersionTLS12
		}
		settings := tls.Config{RootCAs: roots, ServerName: "localhost", MaxVersion: highest}
		connection = tls.Client(plain, &settings)
	}
	fmt.Fprint(connection, message+"\\r\\n")
	if first == "first" {
		connection.CloseWrite()
	}
	answer, err := io.ReadAll(connection)
	if err != nil {
		panic(err)
	}
	fmt.Print(string(answer))
	connection.Close()
}
"""

#: Arguments: as those of the program in Go.
_NODE = """
const [port, kind, version, message, first, authority] = process.argv.slice(1);
const settings = {
  ca: require('fs').readFileSync(authority), servername: 'localhost', maxVersion: 'TLSv' + version,
  allowHalfOpen: true,
};
const plain = require('net').connect({port: Number(port), host: '127.0.0.1', allowHalfOpen: true});
function converse(connection) {
  connection.on('data', data => process.stdout.write(data));
  connection.on('end', () => connection.end());
  connection.write(message + '\\r\\n');
  if (first == 'first') connection.end();
}
function begin() {
  const secure = require('tls').connect({...settings, socket: plain}, () => converse(secure));
}
plain.on('connect', () => {
  if (kind == 'PLAIN') converse(plain);
  else if (kind == 'UPGRADED') { plain.once('data', begin); plain.write('STARTTLS\\r\\n'); }
  else begin();
});
"""

#: Called in a thread with the port; returns the bytes that the program received.
Program = Callable[[int], bytes]


def needs(program: str, *, is_slow: bool = False) -> Callable[[Any], Any]:
    """Skip a test if a program is missing, or is slow and the profile is not the thorough one."""
    if is_slow and not THOROUGH:
        return skipIf(True, f"{program} runs with TWSOCK_TESTS=thorough")
    return skipIf(shutil.which(program) is None, f"{program} is not installed")


def run(*command: str, say: bytes = b"") -> bytes:
    """Run a program, require its success, and return its output."""
    done = subprocess.run(command, input=say, capture_output=True, timeout=_PATIENCE, check=False)
    if done.returncode:
        raise AssertionError(f"{command[0]} failed: {done.stderr.decode(errors='replace')}")
    return done.stdout


def run_and_kill(*command: str, say: bytes, until: bytes) -> bytes:
    """Run a program, and send it SIGKILL when it has printed a text."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as running:
        assert running.stdin is not None and running.stdout is not None
        running.stdin.write(say)
        running.stdin.flush()
        printed = running.stdout.read(len(until))
        running.kill()
    return printed


class Answering(LineProtocol):
    """Answers each line; closes after QUIT."""

    ended: ClassVar[Deferred[SocketError | None]]

    def line_received(self, line: bytes) -> None:
        self.send_line(b"answer to " + line)
        if line == b"QUIT":
            self.close()

    def connection_lost(self, error: SocketError | None) -> None:
        self.ended.callback(error)


class ProgramTests(OnEveryReactor):
    """Programs that end before this end, after this end, or not in order."""

    _reactors = ["twisted.internet.epollreactor.EPollReactor"]

    @override
    def setUp(self) -> None:
        super().setUp()
        made = tempfile.TemporaryDirectory()
        self.addCleanup(made.cleanup)
        self.folder = Path(made.name)
        self.authority = str(self.folder / "authority.pem")
        AUTHORITY.cert_pem.write_to_path(self.authority)

    def serve(
        self, program: Program, security: Security, rows: Iterable[Row]
    ) -> tuple[bytes, SocketError | None]:
        """
        Serve one program; require that the connection passed these rows.

        :returns: the bytes that the program received, and the error of the end; None in order.
        """
        found: list[Any] = []

        async def work(reactor: Any) -> None:
            ended: Deferred[SocketError | None] = Deferred()
            made = type("Made", (Answering,), {"ended": ended})
            policies = {Security.PLAIN: None, Security.UPGRADED: ALLOWED}
            factory = StreamServerFactory(reactor, made, upgrade=policies.get(security, IMPLICIT))
            port: Any = await factory.listen(TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"))
            pool = reactor.getThreadPool()
            printed = await deferToThreadPool(reactor, pool, program, port.getHost().port)
            found.extend([printed, await ended])
            await port.stopListening()

        with followed() as passed:
            self.conduct(work)
        for state, event in rows:
            where = f"{state.name}, {event.name} over {security.value}"
            self.assertIn((state, event, column(security, event)), passed, where)
        return found[0], found[1]

    def assert_both_orders(self, make_program: Callable[..., Program]) -> None:
        """Require an end in order from a program that ends first, and from one that ends last."""
        for security in Security:
            for message, is_first, rows in (
                (
                    b"hello",
                    True,
                    [(State.OPEN, Event.PEER_ENDED), (State.ANSWERING, Event.CLOSE_ANSWERED)],
                ),
                (b"QUIT", False, [(State.OPEN, Event.CLOSE), (State.FINISHING, Event.FLUSHED)]),
            ):
                found = self.serve(make_program(security, message, is_first), security, rows)
                where = f"{security.value}, {is_first=}"
                self.assertEqual(found, (b"answer to " + message + b"\r\n", None), where)

    # OpenSSL.

    def s_client(self, security: Security, *options: str) -> Callable[[int], list[str]]:
        """Return the command for a port; a ClientHello at a boundary begins an upgrade."""
        version = "-tls" + _VERSIONS[security].replace(".", "_")
        return lambda port: [
            *("openssl", "s_client", "-quiet", version, "-connect", f"127.0.0.1:{port}"),
            *("-CAfile", self.authority, "-verify_return_error", *options),
        ]

    @needs("openssl")
    def test_openssl_may_end_first(self) -> None:
        """OpenSSL sends close_notify at the end of its input, and waits for no answer."""
        for security in _VERSIONS:
            command = self.s_client(security, "-no_ign_eof")
            _, error = self.serve(
                lambda port, command=command: run(*command(port), say=b"hello\r\n"),  # type: ignore[misc]
                security,
                [(State.OPEN, Event.PEER_ENDED), (State.ANSWERING, Event.CLOSE_ANSWERED)],
            )
            self.assertIsNone(error, security.value)

    @needs("openssl")
    def test_openssl_may_end_last(self) -> None:
        """OpenSSL ends when it has read the close_notify of this end."""
        for security in _VERSIONS:
            command = self.s_client(security)
            printed, error = self.serve(
                lambda port, command=command: run(*command(port), say=b"QUIT\r\n"),  # type: ignore[misc]
                security,
                [(State.OPEN, Event.CLOSE), (State.FINISHING, Event.FLUSHED)],
            )
            self.assertEqual((printed, error), (b"answer to QUIT\r\n", None), security.value)

    @needs("openssl")
    def test_an_openssl_that_is_killed_is_a_truncation(self) -> None:
        """The kernel sends FIN without close_notify."""
        for security in _VERSIONS:
            command = self.s_client(security)
            _, error = self.serve(
                lambda port, command=command: run_and_kill(  # type: ignore[misc]
                    *command(port), say=b"hello\r\n", until=b"answer to hello\r\n"
                ),
                security,
                [(State.OPEN, Event.RESET)],
            )
            self.assertIsInstance(error, BrokenError, security.value)

    # socat.

    @needs("socat")
    def test_a_socat_that_is_killed_without_lingering_is_a_reset(self) -> None:
        """The kernel sends a reset."""
        _, error = self.serve(
            lambda port: run_and_kill(
                *("socat", "-", f"TCP:127.0.0.1:{port},linger=0"),
                say=b"hello\r\n",
                until=b"answer to hello\r\n",
            ),
            Security.PLAIN,
            [(State.OPEN, Event.RESET)],
        )
        self.assertIsInstance(error, BrokenError)

    @needs("socat")
    def test_socat_gets_answers_after_its_close_notify(self) -> None:
        """The peer ends its output at the end of its input, and then reads."""
        secure = f"cafile={self.authority},commonname=localhost"
        for security in (Security.TLS13, Security.UPGRADED):
            found = self.serve(
                lambda port: run(
                    *("socat", "-t", str(_PATIENCE), "-", f"OPENSSL:127.0.0.1:{port},{secure}"),
                    say=b"hello\r\n",
                ),
                security,
                [(State.OPEN, Event.PEER_ENDED), (State.ANSWERING, Event.CLOSE_ANSWERED)],
            )
            self.assertEqual(found, (b"answer to hello\r\n", None), security.value)

    # Go and Node.

    def arguments(self, security: Security, message: bytes, is_first: bool) -> tuple[str, ...]:
        """Return the arguments behind the port."""
        version = _VERSIONS.get(security, "")
        order = "first" if is_first else "last"
        return security.name, version, message.decode(), order, self.authority

    @needs("go", is_slow=True)
    def test_go_may_end_first_or_last(self) -> None:
        """Go calls ``CloseWrite`` before this end, or ``Close`` after it."""
        source, program = self.folder / "client.go", str(self.folder / "client")
        source.write_text(_GO, encoding="utf-8")
        run("go", "build", "-o", program, str(source))
        self.assert_both_orders(
            lambda *case: lambda port: run(program, str(port), *self.arguments(*case))
        )

    @needs("node", is_slow=True)
    def test_node_may_end_first_or_last(self) -> None:
        """Node calls ``end`` before this end or after it."""
        self.assert_both_orders(
            lambda *case: lambda port: run("node", "-e", _NODE, str(port), *self.arguments(*case))
        )


globals().update(ProgramTests.makeTestCaseClasses())
del ProgramTests
