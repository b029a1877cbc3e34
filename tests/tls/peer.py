"""
The other end of a handshake, by Python's ``ssl``: it sends and receives what it is told to.
"""

from __future__ import annotations

import ssl

import trustme

__all__ = ["AUTHORITY", "SERVER", "Peer"]

AUTHORITY = trustme.CA(organization_name="twsock tests")
SERVER = AUTHORITY.issue_cert("localhost", "127.0.0.1", common_name="server")


class Peer:
    """
    A client's side of TLS in memory.

    :ivar received: what came inside.
    """

    def __init__(self) -> None:
        context = ssl.create_default_context()
        AUTHORITY.configure_trust(context)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._inside = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        self._is_done = False
        self.received = b""

    @property
    def is_done(self) -> bool:
        """Whether the handshake is done, and the server verified."""
        return self._is_done

    def hello(self) -> bytes:
        """Make what a handshake begins with."""
        self._go_on()
        return self._outgoing.read()

    def take(self, data: bytes) -> bytes:
        """Take what the server sent; give what is to be sent to it."""
        self._incoming.write(data)
        self._go_on()
        return self._outgoing.read()

    def say(self, data: bytes) -> bytes:
        """Encrypt."""
        self._inside.write(data)
        return self._outgoing.read()

    def _go_on(self) -> None:
        try:
            if not self._is_done:
                self._inside.do_handshake()
                self._is_done = True
            while data := self._inside.read(65536):
                self.received += data
        except ssl.SSLWantReadError:
            pass
