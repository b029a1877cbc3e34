"""TLS clients of other programs that are in their handshake when a restart begins."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from unittest import skipIf

from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from tests import THOROUGH
from tests.loopback.restarts import Service, exchange, frame, running, to_port
from tests.services.processes import PATIENCE

_OPENSSL = shutil.which("openssl")

#: How many bytes of the ClientHello arrive before the restart: none, a part, or all.
_PASSING = (0, 50, 1 << 16)


def by_ssl(port: int) -> bytes:
    """Exchange a frame with Python's TLS."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with context.wrap_socket(to_port(port)()) as connection:
        exchange(connection, b"hello")
    return frame(b"hello")


def by_openssl(port: int) -> bytes:
    """Exchange a frame with ``openssl s_client``."""
    command = [str(_OPENSSL), "s_client", "-quiet", "-connect", f"127.0.0.1:{port}"]
    result = subprocess.run(
        command, input=frame(b"hello"), capture_output=True, timeout=PATIENCE, check=False
    )
    return result.stdout


class HeldClient(threading.Thread):
    """
    A client behind a relay, which holds a part of its ClientHello until it is released.

    :param port: that of the server.
    :param client: exchanges a frame with a port; returns what it has received.
    :param count: how many bytes of the ClientHello pass before.

    :ivar received: what the client has received; empty before its end.
    """

    def __init__(self, port: int, client: Callable[[int], bytes], count: int) -> None:
        super().__init__(daemon=True)
        self.received = b""
        self._client = client
        self._count = count
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._server = to_port(port)()
        self._relay = threading.Thread(target=self._pass_on, daemon=True)
        self._is_held = threading.Event()
        self._is_released = threading.Event()

    def __enter__(self) -> HeldClient:
        self._relay.start()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self._relay.join(PATIENCE)
        self._listener.close()
        self._server.close()

    @override
    def run(self) -> None:
        self.received = self._client(self._listener.getsockname()[1])

    def wait_until_held(self) -> None:
        """Wait until the server has the bytes that pass."""
        if not self._is_held.wait(PATIENCE):
            raise AssertionError("there is no ClientHello")

    def release(self) -> None:
        """Send the rest; wait for the end of the client."""
        self._is_released.set()
        self.join(PATIENCE)

    def _pass_on(self) -> None:
        client, _ = self._listener.accept()
        with client:
            client.settimeout(PATIENCE)
            hello = read_record(client)
            self._server.sendall(hello[: self._count])
            self._is_held.set()
            self._is_released.wait(PATIENCE)
            self._server.sendall(hello[self._count :])
            back = threading.Thread(target=copy, args=(self._server, client), daemon=True)
            back.start()
            copy(client, self._server)
            back.join(PATIENCE)


def read_record(connection: socket.socket) -> bytes:
    """Read one record of TLS: type, version, length (:rfc:`8446`, section 5.1), and its bytes."""
    with connection.makefile("rb", buffering=0) as stream:
        header = stream.read(5)
        rest = int.from_bytes(header[3:], "big")
        pieces = [header]
        while rest and (piece := stream.read(rest)):
            pieces.append(piece)
            rest -= len(piece)
    return b"".join(pieces)


def copy(source: socket.socket, target: socket.socket) -> None:
    """Copy bytes up to the end of the source."""
    with contextlib.suppress(OSError):
        while data := source.recv(4096):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@skipIf(not THOROUGH, "processes are started with TWSOCK_TESTS=thorough")
class HandshakeTests(SynchronousTestCase):
    """The old process answers clients that it has accepted."""

    def check(self, client: Callable[[int], bytes]) -> None:
        """Check the answers of clients that were held at each point."""
        with Service("twsock-stream", "-e", "tcp:0:interface=127.0.0.1", "--tls") as service:
            service.options = {"environment": {"XDG_STATE_HOME": str(service.folder)}}
            old = service.start()
            (port,) = old.wait_for_ports()
            clients = [HeldClient(port, client, count) for count in _PASSING]
            with running(*clients):
                for each in clients:
                    each.wait_until_held()
                service.start()
                old.wait_for(f"0 connections have moved, {len(clients)} drain")
                for each in clients:
                    each.release()
            self.assertEqual([each.received for each in clients], [frame(b"hello")] * 3)
            self.assertEqual(old.wait(), 0, old.log)

    def test_of_python_are_answered(self) -> None:
        """Wherever their ClientHello was cut."""
        self.check(by_ssl)

    @skipIf(_OPENSSL is None, "openssl is not installed")
    def test_of_openssl_are_answered(self) -> None:
        """Wherever their ClientHello was cut."""
        self.check(by_openssl)
