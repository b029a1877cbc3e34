"""
One conversation of the command in memory, and servers that are not ours, for these tests.

The certificates are of an authority that exists as long as the tests run.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, cast

import trustme
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.forking import ROOT
from tests.forking import Run as ForkedRun
from twsock.cli.arguments import EchoArguments
from twsock.cli.output import CommandError, Output
from twsock.cli.stream import echo
from twsock.cli.texts import ListedTexts, Texts
from twsock.tls import ClientOptions

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
        security: ClientOptions | None = None,
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
                texts or ListedTexts(len(messages), messages),
                Output(self.output, quiet=arguments.quiet, notes=self.notes),
                self.clock.seconds,
                security,
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


@contextlib.contextmanager
def serve_datagrams(
    handle: Callable[[socket.socket, int, bytes, Any], None],
) -> Iterator[str]:
    """
    Run a peer on a plain socket.

    :param handle: called with the socket, the number of each datagram from 0, its bytes and source.
    :returns: the ENDPOINT.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as served:
        served.bind(("127.0.0.1", 0))
        with running(served, handle):
            yield f"udp:127.0.0.1:{served.getsockname()[1]}"


@contextlib.contextmanager
def running(
    served: socket.socket, handle: Callable[[socket.socket, int, bytes, Any], None]
) -> Iterator[None]:
    """Let a thread handle what comes to a socket."""
    ended = threading.Event()
    # Nothing else would wake it in the end: one that is shared may not even get what is sent to it.
    served.settimeout(0.05)

    def run() -> None:
        number = 0
        while not ended.is_set():
            try:
                message, source = served.recvfrom(65535)
            except TimeoutError:
                continue
            handle(served, number, message, source)
            number += 1

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def echo_datagram(served: socket.socket, _number: int, message: bytes, source: Any) -> None:
    """Answer each datagram with itself."""
    served.sendto(message, source)


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
    """Return what child processes need: the checkout, and an encoding with every character."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"}


def command(*words: str) -> list[str]:
    """Return the command line of a child process."""
    return [sys.executable, "-m", "twsock", *words]


class Run(ForkedRun):
    """
    The command in a process of its own, forked from one that has imported it.

    :param streams: descriptors of its standard streams; they stay the caller's.
    :ivar stdin: its input, where that is a pipe.
    """

    stdin: IO[bytes]

    def __init__(self, words: Sequence[str], streams: Sequence[int], **variables: str) -> None:
        request = {"words": words}
        super().__init__("tests.cli.preloaded", request, {**environment(), **variables}, streams)


@contextlib.contextmanager
def running_command(*words: str) -> Iterator[tuple[Run, IO[bytes], IO[bytes]]]:
    """Run the command while its input stays open; returns it, its output and its errors."""
    pipes = [os.pipe() for _ in range(3)]
    theirs = [pipes[0][0], pipes[1][1], pipes[2][1]]
    try:
        run = Run(words, theirs)
    finally:
        for descriptor in theirs:
            os.close(descriptor)
    output, errors = os.fdopen(pipes[1][0], "rb"), os.fdopen(pipes[2][0], "rb")
    run.stdin = os.fdopen(pipes[0][1], "wb", 0)
    try:
        with output, errors:
            yield run, output, errors
    finally:
        run.stdin.close()
        if run.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                run.send_signal(signal.SIGKILL)
            run.wait()


def run(*words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the command in a process of its own, to its end."""
    with (
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as output,
        tempfile.TemporaryFile() as errors,
    ):
        given.write(stdin)
        given.seek(0)
        status = Run(words, [given.fileno(), output.fileno(), errors.fileno()]).wait()
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(words, status, output.read(), errors.read())
