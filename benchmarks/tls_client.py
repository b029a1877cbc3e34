"""
The client's side of TLS: frames → **TLS client** → socket.

Takes the place of a plain socket in `benchmarks.stream_load` and `benchmarks.connections`. The
records are made and read in memory: what is sent at once leaves in one system call, and what has
come is received in one, as without TLS. A socket of the `ssl` module takes two calls for each
record received, so the client would set the pace. In memory is what the kernel had no room for, and
what is left of a record that has not come whole.
"""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Final

from OpenSSL import SSL

from benchmarks.certificate import SERVER_NAME

__all__ = ["TlsClient", "describe_tls", "encode_client_hello", "make_client_context"]

#: Received in one call, in bytes. Small frames that are encrypted one by one are a third larger
#: than their plaintext, so the largest window, 256 KiB, comes in a few calls at most.
_RECEIVE: Final = 256 * 1024
#: The plaintext of a record, in bytes (:rfc:`8446`, section 5.1).
_RECORD: Final = 16 * 1024


def make_client_context(certificate: Path) -> ssl.SSLContext:
    """
    Make the settings of a client: TLS 1.3 only, so that all servers do the same work.

    :param certificate: the file of the only server that is trusted.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # Trusts the server's certificate itself, without the authority that signed it.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(certificate)
    return context


def encode_client_hello(context: ssl.SSLContext) -> bytes:
    """Make the first message of a handshake that is not going on."""
    outgoing = ssl.MemoryBIO()
    try:
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=SERVER_NAME).do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def describe_tls() -> dict[str, str]:
    """Name what the figures depend on, besides the machine: the two libraries that encrypt."""
    version = SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode("ascii")
    return {"Python's ssl on": ssl.OPENSSL_VERSION, "pyOpenSSL on": version}


class TlsClient:
    """
    A connection that is encrypted, without blocking once it stands.

    :param connection: a socket that has just been connected and has a timeout, for the handshake.
    :param session: of an earlier connection to the same server, to be resumed.
    :raises OSError: when the handshake fails; the socket is the caller's to close.
    """

    def __init__(
        self,
        connection: socket.socket,
        context: ssl.SSLContext,
        session: ssl.SSLSession | None = None,
    ) -> None:
        self._socket = connection
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=SERVER_NAME, session=session
        )
        self._received = memoryview(bytearray(_RECEIVE))
        #: Encrypted bytes that the kernel had no room for, and the size of their plaintext.
        self._unsent = memoryview(b"")
        self._promised = 0
        self._shake_hands()
        connection.setblocking(False)

    def fileno(self) -> int:
        """Give the descriptor to wait on. All that has come is taken at once, so it never lies."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket, without an end of TLS."""
        self._socket.close()

    @property
    def cipher(self) -> str:
        """What encrypts the connection."""
        agreed = self._tls.cipher()
        return "none" if agreed is None else agreed[0]

    @property
    def is_resumed(self) -> bool:
        """Whether the server took up the session that was offered."""
        return self._tls.session_reused

    @property
    def session(self) -> ssl.SSLSession | None:
        """What the next connection may resume: the server's last ticket of those received."""
        return self._tls.session

    def receive_into(self, buffer: memoryview) -> int:
        """
        Take what has come, as `socket.socket.recv_into` does.

        :param buffer: has room for all that the server may have sent.
        :returns: how many bytes; 0 when the server has ended.
        :raises BlockingIOError: when no plaintext has come, even if a part of a record has.
        """
        size = self._socket.recv_into(self._received)
        if not size:
            return 0
        self._incoming.write(self._received[:size])
        filled = 0
        try:
            while filled < len(buffer):
                data = self._tls.read(min(_RECORD, len(buffer) - filled))
                buffer[filled : filled + len(data)] = data
                filled += len(data)
        except ssl.SSLWantReadError:
            if not filled:
                raise BlockingIOError from None
        except ssl.SSLZeroReturnError:
            pass
        return filled

    def send(self, data: memoryview) -> int:
        """
        Encrypt and send, as `socket.socket.send` does.

        :returns: how many bytes the kernel has, encrypted.
        :raises BlockingIOError: when it has no room for all of them. They are encrypted once, so
            the next call has to begin with the same bytes, as with OpenSSL's own ``SSL_write``.
        """
        if not self._promised:
            self._promised = self._tls.write(data)
            self._unsent = memoryview(self._outgoing.read())
        sent = self._socket.send(self._unsent)
        self._unsent = self._unsent[sent:]
        if self._unsent:
            raise BlockingIOError
        size, self._promised = self._promised, 0
        return size

    def end(self, timeout: float) -> None:
        """
        Close in order, and wait until the server has too. The socket is the caller's to close.

        :param timeout: seconds that the server has for each of its last bytes.
        """
        self._socket.settimeout(timeout)
        try:
            self._tls.unwrap()
        except ssl.SSLWantReadError:
            pass
        self._socket.sendall(self._outgoing.read())
        while self._socket.recv_into(self._received):
            pass

    def _shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._socket.sendall(self._outgoing.read())
                size = self._socket.recv_into(self._received)
                if size:
                    self._incoming.write(self._received[:size])
                else:
                    self._incoming.write_eof()
            else:
                self._socket.sendall(self._outgoing.read())
                return
