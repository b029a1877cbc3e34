"""A server of TLS in a thread, for the tests of what is measured over it."""

from __future__ import annotations

import itertools
import socket
import ssl
import threading
from collections.abc import Callable, Container
from contextlib import ExitStack

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.certificate import temporary_certificate
from benchmarks.tls_client import TlsClient, make_client_context

__all__ = ["TlsPeer", "echo"]

#: Seconds that either side waits for the other at most.
_TIMEOUT = 60


class TlsPeer:
    """
    Serves each connection in a thread of its own, until the test ends.

    :param serve: is given each one after its handshake.
    :param tickets: sent in each handshake, so that its session can be resumed.
    :param turned_away: which of the connections are closed at once; the first has number 0.
    :ivar port: where it listens, on 127.0.0.1.
    :ivar client: the settings of a client that trusts it.
    """

    def __init__(
        self,
        case: SynchronousTestCase,
        serve: Callable[[ssl.SSLSocket], None],
        *,
        tickets: int = 2,
        turned_away: Container[int] = (),
    ) -> None:
        stack = ExitStack()
        case.addCleanup(stack.close)
        certificate = stack.enter_context(temporary_certificate())
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._context.num_tickets = tickets
        self._serve = serve
        self._turned_away = turned_away
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._case = case
        self.client = make_client_context(certificate)
        self.port: int = self._listener.getsockname()[1]
        thread = threading.Thread(target=self._accept)
        thread.start()
        stack.callback(self._listener.close)
        stack.callback(thread.join, _TIMEOUT)
        # Wakes the accept, which closing alone would not.
        stack.callback(self._listener.shutdown, socket.SHUT_RDWR)

    def connect(
        self,
        context: ssl.SSLContext | None = None,
        session: ssl.SSLSession | None = None,
    ) -> TlsClient:
        """Connect to it; the end of the test closes."""
        plain = socket.create_connection(("127.0.0.1", self.port), _TIMEOUT)
        self._case.addCleanup(plain.close)
        return TlsClient(plain, context or self.client, session)

    def _accept(self) -> None:
        with ExitStack() as stack:
            for number in itertools.count():
                try:
                    plain, _ = self._listener.accept()
                except OSError:
                    return
                if number in self._turned_away:
                    plain.close()
                    continue
                thread = threading.Thread(target=self._talk, args=(plain,))
                thread.start()
                stack.callback(thread.join, _TIMEOUT)

    def _talk(self, plain: socket.socket) -> None:
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
