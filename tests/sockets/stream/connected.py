"""
A stream socket that is connected in memory, with a clock for a reactor.
"""

from __future__ import annotations

import select
import socket
from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection as Descriptor
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from tests.stream.test_transport import CountingSocket, IdleReactor, tcp_pair
from twsock import StreamSocket


class InMemory:
    """Connected through a transport that keeps what is sent."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.socket = StreamSocket(self.clock)
        self.transport = StringTransport()
        self.protocol: Any = self.socket.build_protocol()
        self.protocol.makeConnection(self.transport)
        self.input = self.socket.input_stream
        self.output = self.socket.output_stream

    @property
    def is_reading(self) -> bool:
        """Whether the transport is read from."""
        return self.transport.producerState == "producing"

    @property
    def producer(self) -> Any:
        """What the transport pauses when it is full."""
        return self.transport.producer

    def receive(self, *pieces: bytes) -> None:
        """Let bytes arrive."""
        for piece in pieces:
            self.protocol.dataReceived(piece)

    def sent(self) -> bytes:
        """Return the bytes sent since the last call."""
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def end(self) -> None:
        """Let the peer send FIN."""
        self.protocol.readConnectionLost()

    def lose(self) -> None:
        """End the connection without an error."""
        self.protocol.connectionLost(Failure(ConnectionDone()))

    def lose_through(self, wrapper: Any) -> None:
        """End the connection by calling a wrapper."""
        wrapper.connectionLost(Failure(ConnectionDone()))

    def reset(self) -> None:
        """Let the peer reset the connection."""
        self.protocol.connectionLost(Failure(ConnectionLost()))


class _Descriptor(Descriptor):
    """A connection of Twisted's, without its ends."""

    def getHost(self) -> Any:
        return None

    def getPeer(self) -> Any:
        return None


class OnKernel:
    """
    Connected through a real socket, which counts how it is called; the reactor is a clock.

    :ivar far: the other end, a plain socket that does not block.
    """

    def __init__(self) -> None:
        self.reactor = IdleReactor()
        self.socket = StreamSocket(self.reactor)
        self.output = self.socket.output_stream
        here, self.far = tcp_pair()
        self.far.setblocking(False)
        self.kernel = CountingSocket(fileno=here.detach())
        self.kernel.setblocking(False)
        self.kernel.sends = 0
        self.kernel.error = None
        self.protocol: Any = self.socket.build_protocol()
        self.descriptor: Any = _Descriptor(self.kernel, self.protocol, self.reactor)  # type: ignore[arg-type]
        self.descriptor.connected = 1
        self.descriptor.startReading()
        self.protocol.makeConnection(self.descriptor)

    def close(self) -> None:
        """Close both sockets."""
        self.far.close()
        self.kernel.close()

    def next_turn(self) -> None:
        """Run the calls of the reactor that are due."""
        self.reactor.advance(0)

    def receive(self) -> bytes:
        """Receive all bytes at the other end; let the descriptor write between the reads."""
        received = bytearray()
        while True:
            try:
                chunk = self.far.recv(1 << 20)
            except BlockingIOError:
                if self.descriptor not in self.reactor.writers:
                    return bytes(received)
                select.select([self.far], [self.kernel], [])
                self.descriptor.doWrite()
                continue
            if not chunk:
                return bytes(received)
            received += chunk


def shrink_buffers(connection: socket.socket) -> None:
    """
    Make the kernel's buffers of a connection small.

    A smaller one holds less than one segment of the loopback interface; each segment then waits for
    a delayed acknowledgement.
    """
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
