"""TLS on a blocking socket, by Python's ``ssl``, with control of each byte that is sent."""

from __future__ import annotations

import socket
import ssl
import struct

__all__ = ["Wire"]


class Wire:
    """
    One end of a TLS connection, which does its handshake at once.

    ``ssl.SSLSocket`` ends both directions at once, and does not show when it sends which bytes.

    :param connection: a connected socket with a timeout of some seconds.
    :param context: the context of a server or a client.
    :param host: for a client, the host name that it expects.

    :ivar is_ended: whether the other end's close_notify was read.
    """

    def __init__(
        self, connection: socket.socket, context: ssl.SSLContext, host: str | None = None
    ) -> None:
        self.is_ended = False
        self._connection = connection
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._inside = context.wrap_bio(
            self._incoming, self._outgoing, server_side=host is None, server_hostname=host
        )
        while True:
            try:
                self._inside.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush()
                self._feed()
        self._flush()

    def send(self, data: bytes, *, ends: bool = False) -> None:
        """Send data, and with ``ends`` close_notify behind it, in one piece."""
        if data:
            self._inside.write(data)
        if ends:
            self._say_end()
        self._flush()

    def send_raw(self, data: bytes) -> None:
        """Send bytes unencrypted."""
        self._connection.sendall(data)

    def receive_exactly(self, count: int) -> bytes:
        """Read this many bytes; fewer only at close_notify."""
        received = b""
        while len(received) < count and (data := self._receive(count - len(received))):
            received += data
        return received

    def receive_to_the_end(self) -> bytes:
        """
        Read up to close_notify.

        :raises ConnectionError: at a FIN or reset without one.
        """
        received = bytearray()
        while data := self._receive(1 << 16):
            received += data
        return bytes(received)

    def close(self) -> None:
        """Send FIN, or a reset if bytes were not read."""
        self._connection.close()

    def reset(self) -> None:
        """Send a reset."""
        linger = struct.pack("ii", 1, 0)
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._connection.close()

    def _receive(self, count: int) -> bytes:
        while not self.is_ended:
            try:
                data = self._inside.read(count)
            except ssl.SSLWantReadError:
                self._feed()
                continue
            except ssl.SSLZeroReturnError:
                data = b""
            self.is_ended = not data
            return data
        return b""

    def _say_end(self) -> None:
        try:
            self._inside.unwrap()
        except ssl.SSLWantReadError:
            pass  # `unwrap` would wait for the other end's close_notify.

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data:
            self._connection.sendall(data)

    def _feed(self) -> None:
        data = self._connection.recv(1 << 16)
        if not data:
            raise ConnectionError("FIN without close_notify")
        self._incoming.write(data)
