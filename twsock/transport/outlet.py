"""
The way out below a TLS engine: engine → **outlet** → transport.

From the moment at which a connection is to become secure, the transport is the engine's alone. What
anybody else writes to it, whoever kept it, waits with the connection, and takes the way through the
engine later: nothing of it leaves in plaintext.

What the engine encrypts goes to the kernel at once where there is a plain socket, as it would
without TLS (see `twsock.transport.stream`).
"""

from __future__ import annotations

import socket
import typing
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.abstract import FileDescriptor
from zope.interface import directlyProvides, providedBy

from twsock.errors import BrokenError

__all__ = ["Held", "Outlet"]


class Held(typing.Protocol):
    """A connection whose output waits for a handshake."""

    def take(self, data: bytes) -> object:
        """Keep what was written to the transport itself."""

    def note_error(self, error: BrokenError) -> object:
        """Know why the connection is about to end."""


class Outlet:
    """
    A transport as the engine has it.

    :param handle: the plain socket that carries it, to be sent on; None where there is none.
    :param connection: keeps what others write.

    :ivar transport: all but writing is asked of this one.
    """

    def __init__(self, transport: Any, handle: socket.socket | None, connection: Held) -> None:
        self.transport = transport
        self._socket = handle
        self._connection = connection
        # A wrapper (a PROXY header, a policy) has another name for it.
        is_wrapper = hasattr(transport, "wrappedProtocol")
        self._receiver = "wrappedProtocol" if is_wrapper else "protocol"
        self._write: Callable[[bytes], object] = transport.write
        # Of this very transport, as Twisted does where it starts TLS itself.
        transport.write = connection.take
        transport.writeSequence = lambda pieces: transport.write(b"".join(pieces))
        self._producer: Any = None
        self._is_streaming = False
        self._unregister: Callable[[], object] | None = None
        directlyProvides(self, providedBy(transport))

    def take_producer(self, descriptor: FileDescriptor) -> None:
        """Let the application's producer rest until there is an engine to produce for."""
        plain: Any = descriptor
        self._producer, self._is_streaming = plain.producer, plain.streamingProducer
        if self._is_streaming:
            self._producer.pauseProducing()
        self._unregister = self.transport.unregisterProducer
        self._unregister()
        # Also where it is done before there is one.
        self.transport.unregisterProducer = self._drop_producer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    @property
    def protocol(self) -> Any:
        """Who is given what arrives: the engine."""
        return getattr(self.transport, self._receiver)

    @protocol.setter
    def protocol(self, protocol: Any) -> None:
        setattr(self.transport, self._receiver, protocol)

    def lead_to(self, engine: Any) -> None:
        """Let what others write or produce take the way through the engine from now on."""
        self.transport.write = engine.write
        if self._unregister is not None:
            self.transport.unregisterProducer = engine.unregisterProducer
        producer = self._drop_producer()
        if producer is not None:
            engine.registerProducer(producer, self._is_streaming)
            if self._is_streaming:
                producer.resumeProducing()

    def lost(self) -> None:
        """The connection is gone before there was an engine."""
        producer = self._drop_producer()
        if producer is not None:
            producer.stopProducing()

    def _drop_producer(self) -> Any:
        producer, self._producer = self._producer, None
        return producer

    # Called by the engine.

    def unregisterProducer(self) -> None:
        """Leave the transport without a producer; its own name for that may be the engine's now."""
        unregister = self._unregister or self.transport.unregisterProducer
        unregister()

    def write(self, data: bytes) -> None:
        """Send as much as the kernel takes, and leave the rest to the transport."""
        transport = self.transport
        if (
            self._socket is not None
            # A queue has to leave before it; and the socket of a lost connection is closed.
            and not transport.dataBuffer
            and not transport._tempDataLen
            and transport.connected
        ):
            try:
                sent = self._socket.send(data)
                if sent == len(data):
                    return
                data = data[sent:]
            except BlockingIOError:
                pass
            except OSError as error:
                # The kernel tells of it once. The transport meets another one when it sends.
                self._connection.note_error(BrokenError.from_exception(error.with_traceback(None)))
        self._write(data)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Write pieces as one."""
        self.write(b"".join(iovec))
