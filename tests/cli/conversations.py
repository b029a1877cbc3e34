"""
One conversation of the command in memory, and servers that are not ours, for these tests.

The certificates are of an authority that exists as long as the tests run.
"""

from __future__ import annotations

import contextlib
import io
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import trustme
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from twsock.cli.arguments import EchoArguments
from twsock.cli.echo import echo
from twsock.cli.failure import CommandError
from twsock.cli.screen import Screen
from twsock.cli.texts import GivenTexts, Texts
from twsock.protocols import ClientUpgrade

ROOT = Path(__file__).resolve().parents[2]
#: Seconds for one child process, many times what the slowest takes.
PATIENCE = 60.0

AUTHORITY = trustme.CA(organization_name="twsock tests of the command")
SERVER = AUTHORITY.issue_cert("localhost", "127.0.0.1", common_name="server")
CLIENT = AUTHORITY.issue_cert("client@example.com", common_name="client")


class Conversation:
    """The command against a server that the test plays."""

    def __init__(
        self,
        *messages: bytes,
        texts: Texts | None = None,
        connect: bool = True,
        upgrade: ClientUpgrade | None = None,
        **settings: Any,
    ) -> None:
        self.clock = MemoryReactorClock()
        self.output = io.BytesIO()
        self.notes = io.StringIO()
        arguments = EchoArguments(endpoint="tcp:server:1", texts=messages, **settings)
        self.done: Deferred[None] = ensureDeferred(
            echo(
                self.clock,
                TCP4ClientEndpoint(self.clock, "192.0.2.1", 1),
                arguments,
                texts or GivenTexts(messages),
                Screen(self.output, quiet=arguments.quiet, notes=self.notes),
                self.clock.seconds,
                upgrade,
            )
        )
        transport: Any = StringTransport()
        self.transport = transport
        self.has_ended = False
        if connect:
            factory = cast(Any, self.clock.tcpClients[0][2])
            # A handshake puts its engine there.
            transport.protocol = factory.buildProtocol(None)
            transport.protocol.makeConnection(transport)

    def receive(self, data: bytes) -> None:
        """Let the server send bytes."""
        self.transport.protocol.dataReceived(data)

    def sent(self) -> bytes:
        """Take what was sent to the server since the last call."""
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def end(self, error: Exception | None = None) -> None:
        """Let the connection be gone."""
        self.has_ended = True
        self.transport.protocol.connectionLost(Failure(error or ConnectionDone()))

    @property
    def lines(self) -> list[str]:
        """What is on standard output."""
        return self.output.getvalue().decode().splitlines()

    def fails(self, case: SynchronousTestCase) -> str:
        """Give the line for standard error, and make sure that the connection was not left open."""
        error = case.failureResultOf(self.done, CommandError).value
        case.assertTrue(self.transport.disconnected or self.has_ended)
        return str(error.line)


@contextlib.contextmanager
def serve(handle: Callable[[socket.socket], None]) -> Iterator[str]:
    """Run a server on a plain socket for one connection; gives the ENDPOINT."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            try:
                connection, _ = listener.accept()
            except OSError:  # Nobody came.
                return
            with connection, contextlib.suppress(ConnectionError):
                connection.settimeout(PATIENCE)
                handle(connection)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield f"tcp:127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE)


def echo_frames(connection: socket.socket) -> None:
    """Serve the ``uint32`` format with nothing but ``struct``."""
    with connection.makefile("rb") as stream:
        while len(header := stream.read(4)) == 4:
            (size,) = struct.unpack(">I", header)
            connection.sendall(header + stream.read(size))


def echo_lines(connection: socket.socket) -> None:
    """Serve the ``line`` format with nothing but a file."""
    with connection.makefile("rwb") as stream:
        for line in stream:
            stream.write(line.rstrip(b"\r\n") + b"\r\n")
            stream.flush()


def behind_tls(
    handle: Callable[[socket.socket], None],
    issued: trustme.LeafCert = SERVER,
    *,
    request: bytes = b"",
    go_ahead: bytes = b"",
    lowest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
) -> Callable[[socket.socket], None]:
    """
    Serve inside TLS, made by Python's ``ssl``.

    :param request: what the client has to send before; it is answered with the go-ahead.
    :param lowest: the lowest version of TLS.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = lowest
    issued.configure_cert(context)

    def secured(connection: socket.socket) -> None:
        if request and connection.recv(len(request), socket.MSG_WAITALL) != request:
            return
        connection.sendall(go_ahead)
        # A client that refuses the certificate is a failure here, too.
        with (
            contextlib.suppress(ssl.SSLError),
            context.wrap_socket(connection, server_side=True) as inside,
        ):
            handle(inside)

    return secured


def environment() -> dict[str, str]:
    """Give child processes the checkout, and an encoding that holds every character."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"}


def command(*words: str) -> list[str]:
    """Give the command line of a child process."""
    return [sys.executable, "-m", "twsock", *words]


def run(*words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the command in a process of its own."""
    return subprocess.run(
        command(*words),
        input=stdin,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
        env=environment(),
    )
