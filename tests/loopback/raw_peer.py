"""
A peer on a raw socket, which ends as a test decides: FIN, close_notify and reset separately.

It runs in the reactor of the test, and does nothing by itself. So a test can end at both ends
within one turn of the reactor, and the kernel delivers over loopback at once. TLS is that of
Python's ``ssl`` in memory.
"""

from __future__ import annotations

import enum
import socket
import struct
from typing import Any, NamedTuple

from twisted.internet.task import deferLater

from tests.tls.peer import ClientPeer, ServerPeer

__all__ = ["End", "RawPeer", "Rest", "Security"]

#: Seconds between two checks of a socket that has nothing to read.
_INTERVAL = 0.001

#: The size of one receive, in bytes.
_READ_SIZE = 1 << 18


class End(enum.Enum):
    """How the other side has ended, as the kernel and TLS report it."""

    CLOSE_NOTIFY = enum.auto()
    FIN = enum.auto()
    RST = enum.auto()


class Security(enum.Enum):
    """The four kinds of connection with which each row of the table is tested."""

    PLAIN = "TCP"
    TLS12 = "TLS 1.2"
    TLS13 = "TLS 1.3"
    UPGRADED = "TCP, upgraded to TLS 1.3"

    @property
    def is_encrypted(self) -> bool:
        return self is not Security.PLAIN

    @property
    def ends(self) -> tuple[End, ...]:
        """The end in order of TLS and TCP, as the peer receives it."""
        return (End.CLOSE_NOTIFY, End.FIN) if self.is_encrypted else (End.FIN,)


class Rest(NamedTuple):
    """The bytes and ends that a peer received up to the end of the connection."""

    data: bytes
    ends: tuple[End, ...]


class RawPeer:
    """
    One end of a TCP connection.

    :param reactor: runs between two looks at the socket.
    :param connection: a connected socket; it becomes non-blocking.
    :param security: what the connection runs on, or will.

    :ivar ends: the ends that were received, in their order.
    """

    def __init__(self, reactor: Any, connection: socket.socket, security: Security) -> None:
        self.reactor = reactor
        self.security = security
        self.ends: list[End] = []
        self._connection = connection
        self._tls: ClientPeer | ServerPeer | None = None
        self._received = bytearray()
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def shake_hands(self, tls: ClientPeer | ServerPeer) -> None:
        """Do a handshake; later bytes are inside TLS."""
        if isinstance(tls, ClientPeer):
            self.send_raw(tls.hello())
        while not tls.is_done:
            data = await self._arrival()
            if not data:
                raise AssertionError(f"the handshake ended with {self.ends}")
            self.send_raw(tls.take(data))
        self._tls = tls

    def send(self, data: bytes) -> None:
        """Send bytes, which have to fit into the kernel's buffers."""
        self.send_raw(data if self._tls is None else self._tls.say(data))

    def send_raw(self, data: bytes) -> None:
        """Send bytes, unencrypted."""
        sent = self._connection.send(data) if data else 0
        if sent < len(data):
            raise AssertionError(f"the kernel took {sent} of {len(data)} bytes")

    def end(self) -> None:
        """End the output in order: close_notify without FIN under TLS, otherwise FIN."""
        if self._tls is None:
            self.send_fin()
        else:
            self.send_raw(self._tls.end())

    def send_fin(self) -> None:
        """Send FIN."""
        self._connection.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Send a reset, and close the socket."""
        linger = struct.pack("ii", 1, 0)
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._connection.close()

    def close(self) -> None:
        """Close the socket, if it is open."""
        self._connection.close()

    @property
    def is_reset(self) -> bool:
        """Whether a reset has arrived; the kernel reports it once."""
        return bool(self._connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    async def receive(self, count: int) -> bytes:
        """Wait for a number of bytes; return fewer only at an end."""
        while len(self._received) < count and await self._receive_some():
            pass
        received = bytes(self._received[:count])
        del self._received[:count]
        return received

    async def rest(self) -> Rest:
        """
        Receive until FIN or a reset.

        :returns: the bytes, and all ends; with a reset behind FIN if that has arrived by then.
        """
        while await self._receive_some():
            pass
        received = bytes(self._received)
        self._received.clear()
        return Rest(received, tuple(self.ends))

    async def until_end(self) -> Rest:
        """Receive until the first end: close_notify under TLS."""
        while not self.ends and await self._receive_some():
            pass
        received = bytes(self._received)
        self._received.clear()
        return Rest(received, tuple(self.ends))

    async def raw_rest(self) -> Rest:
        """Receive until FIN or a reset, and decrypt nothing."""
        self._tls = None
        return await self.rest()

    async def _receive_some(self) -> bool:
        """Receive the bytes that have arrived, or wait for some; return False at FIN or reset."""
        data = await self._arrival()
        tls = self._tls
        if tls is None or not data:
            self._received += data
            return bool(data)
        self.send_raw(tls.take(data))
        self._received += tls.received
        tls.received = b""
        if tls.is_ended and End.CLOSE_NOTIFY not in self.ends:
            self.ends.append(End.CLOSE_NOTIFY)
        return True

    async def _arrival(self) -> bytes:
        """Wait for bytes and return them; return none at FIN or a reset, and record which."""
        while End.FIN not in self.ends and End.RST not in self.ends:
            try:
                data = self._connection.recv(_READ_SIZE)
            except BlockingIOError:
                await deferLater(self.reactor, _INTERVAL)
                continue
            except ConnectionError:
                self.ends.append(End.RST)
                return b""
            if not data:
                self.ends.append(End.FIN)
                if self.is_reset:
                    self.ends.append(End.RST)
            return data
        return b""
