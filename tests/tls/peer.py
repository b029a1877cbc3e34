"""
The other end of a handshake, by Python's ``ssl``: it sends and receives what it is told to.
"""

from __future__ import annotations

import ssl

import trustme

__all__ = ["AUTHORITY", "SERVER", "Peer", "ServerPeer"]

AUTHORITY = trustme.CA(organization_name="twsock tests")
SERVER = AUTHORITY.issue_cert("localhost", "127.0.0.1", common_name="server")


class _Peer:
    """
    One side of TLS in memory.

    :ivar received: what came inside.
    """

    def __init__(self) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._inside = self._make_inside()
        self._is_done = False
        self.received = b""

    def _make_inside(self) -> ssl.SSLObject:
        raise NotImplementedError

    @property
    def is_done(self) -> bool:
        """Whether the handshake is done, and the other end verified where that is wished."""
        return self._is_done

    def take(self, data: bytes) -> bytes:
        """Take what the other end sent; give what is to be sent to it."""
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


class Peer(_Peer):
    """The client's side, which trusts `AUTHORITY` and awaits ``localhost``."""

    def hello(self) -> bytes:
        """Make what a handshake begins with."""
        self._go_on()
        return self._outgoing.read()

    def _make_inside(self) -> ssl.SSLObject:
        context = ssl.create_default_context()
        AUTHORITY.configure_trust(context)
        return context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")


class ServerPeer(_Peer):
    """
    The server's side.

    :param issued: what it shows.
    """

    def __init__(self, issued: trustme.LeafCert = SERVER) -> None:
        self._issued = issued
        super().__init__()

    def _make_inside(self) -> ssl.SSLObject:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._issued.configure_cert(context)
        return context.wrap_bio(self._incoming, self._outgoing, server_side=True)
