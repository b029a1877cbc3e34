"""A server of TLS in a thread, for the tests of what is measured over it."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import ExitStack

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.certificate import temporary_certificate
from benchmarks.secure import SecureConnection, make_client_context

__all__ = ["TlsPeer", "echo"]

#: Seconds that either side waits for the other at most.
_TIMEOUT = 10


class TlsPeer:
    """
    Serves one connection after the other, until the test ends.

    :param serve: is given each one after its handshake.
    :ivar address: where it listens.
    :ivar client: the settings of a client that trusts it.
    """

    def __init__(self, case: SynchronousTestCase, serve: Callable[[ssl.SSLSocket], None]) -> None:
        stack = ExitStack()
        case.addCleanup(stack.close)
        certificate = stack.enter_context(temporary_certificate())
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._case = case
        self.client = make_client_context(certificate)
        self.address: tuple[str, int] = self._listener.getsockname()
        thread = threading.Thread(target=self._run)
        thread.start()
        stack.callback(self._listener.close)
        stack.callback(thread.join, _TIMEOUT)
        # Wakes the accept, which closing alone would not.
        stack.callback(self._listener.shutdown, socket.SHUT_RDWR)

    def connect(
        self,
        context: ssl.SSLContext | None = None,
        session: ssl.SSLSession | None = None,
    ) -> SecureConnection:
        """Connect to it; the end of the test closes."""
        plain = socket.create_connection(self.address, _TIMEOUT)
        self._case.addCleanup(plain.close)
        return SecureConnection(plain, context or self.client, session)

    def _run(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            plain.settimeout(_TIMEOUT)
            try:
                with self._context.wrap_socket(plain, server_side=True) as secure:
                    self._serve(secure)
            except OSError:
                pass  # The test has seen enough, or means it: the client looks at the outcome.
            finally:
                plain.close()


def echo(connection: ssl.SSLSocket) -> None:
    """Send back what comes."""
    while data := connection.recv(1 << 16):
        connection.sendall(data)
