"""
The transport below a TLS engine: engine → **lower transport** → transport of the connection.

From the moment at which a connection is to become secure, the transport is the engine's alone. What
anybody else writes to it, whoever kept it, waits with the connection, and takes the way through the
engine later: nothing of it leaves in plaintext.

What the engine encrypts goes to the kernel at once where there is a plain socket, as it would
without TLS (see `twsock.stream.transport`).
"""

from __future__ import annotations

import errno
import socket
import typing
from collections.abc import Iterable
from typing import Any, Final

from twisted.internet.abstract import FileDescriptor
from zope.interface import directlyProvides, providedBy

from twsock.stream.descriptor import join_queued, queued_bytes

__all__ = ["TRY_LATER", "Held", "TlsLowerTransport"]

#: What a kernel without room answers: nothing was sent, and nothing is wrong.
TRY_LATER: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS})


#: Methods that a lower transport replaces on its transport, besides those that write.
_REPLACED: Final = ("abortConnection", "loseConnection", "registerProducer", "unregisterProducer")


class Held(typing.Protocol):
    """A connection whose output waits for a handshake."""

    def take(self, data: bytes) -> object:
        """Keep what was written to the transport itself."""

    def output_broke(self, error: OSError) -> object:
        """Report that sending failed for good; received bytes can still be read."""

    def abort(self) -> object:
        """End the connection now; nothing more is sent."""


class _Nobody:
    """Replaces a connection that is lost; does nothing."""

    def take(self, data: bytes) -> None: ...
    def output_broke(self, error: OSError) -> None: ...
    def abort(self) -> None: ...


def _drop(_data: object) -> None:
    """Drop a write to a transport whose connection is lost."""


class TlsLowerTransport:
    """
    A transport as the engine has it.

    :param handle: the plain socket that carries it, to be sent on; None where there is none.
    :param descriptor: at the bottom of it; None where there is none.
    :param connection: keeps what others write.

    :ivar transport: all that is not written here is asked of this one.
    """

    def __init__(
        self,
        transport: Any,
        handle: socket.socket | None,
        descriptor: FileDescriptor | None,
        connection: Held,
    ) -> None:
        self.transport = transport
        self._socket = handle
        self._descriptor = descriptor
        self._connection = connection
        # A wrapper (a PROXY header, a policy) has another name for it.
        is_wrapper = hasattr(transport, "wrappedProtocol")
        self._receiver = "wrappedProtocol" if is_wrapper else "protocol"
        # Of an application: what produces, and whether it pushes.
        self._producer: Any = None
        self._is_streaming = False
        # Whether nothing more can be sent: FIN was sent, or sending failed.
        self._is_over = False
        # The engine's own, before they are taken over as Twisted does where it starts TLS itself.
        self._write = transport.write
        transport.write = connection.take
        transport.writeSequence = lambda pieces: transport.write(b"".join(pieces))
        self._lose = transport.loseConnection
        self._abort: Any = getattr(transport, "abortConnection", None)
        if self._abort is not None:
            transport.abortConnection = self._abort_for_others
        self._register: Any = getattr(transport, "registerProducer", None)
        self._unregister: Any = getattr(transport, "unregisterProducer", None)
        if descriptor is not None:
            transport.registerProducer = self._keep_producer
            transport.unregisterProducer = self._drop_producer
        directlyProvides(self, providedBy(transport))

    def take_producer(self) -> None:
        """Let the application's producer rest until there is an engine to produce for."""
        plain: Any = self._descriptor
        producer, is_streaming = plain.producer, plain.streamingProducer
        self._unregister()
        self._keep_producer(producer, is_streaming)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    @property
    def protocol(self) -> Any:
        """Who is given what arrives: the engine."""
        return getattr(self.transport, self._receiver)

    @protocol.setter
    def protocol(self, protocol: Any) -> None:
        setattr(self.transport, self._receiver, protocol)

    @property
    def is_flushed(self) -> bool:
        """Whether all that the engine wrote is with the kernel, as far as can be told."""
        return self._descriptor is None or not queued_bytes(self._descriptor)

    def lead_to(self, engine: Any, connection: Held) -> None:
        """
        Let what others do take the way through the engine from now on.

        :param connection: takes the place of the one that held the output.
        """
        self._connection = connection
        transport = self.transport
        transport.write = engine.write
        transport.loseConnection = engine.loseConnection
        if self._descriptor is not None:
            transport.registerProducer = engine.registerProducer
            transport.unregisterProducer = engine.unregisterProducer
        if self._producer is not None:
            engine.registerProducer(self._producer, self._is_streaming)

    def resume_producer(self) -> None:
        """Let the application's producer go on, behind what was held."""
        producer = self._drop_producer()
        if producer is not None and self._is_streaming:
            producer.resumeProducing()

    def lost(self) -> None:
        """The connection is gone before there was an engine."""
        producer = self._drop_producer()
        if producer is not None:
            producer.stopProducing()

    def release(self) -> None:
        """Remove the references from the transport of a lost connection to this one."""
        self.lost()
        self._connection = _Nobody()
        transport = self.transport
        # Twisted's own methods are not restored: a late write must never leave in plaintext.
        transport.write = transport.writeSequence = _drop
        for name in _REPLACED:
            vars(transport).pop(name, None)

    def _abort_for_others(self) -> None:
        # The connection first, since neither the engine nor this writes through the transport.
        self._connection.abort()
        self.abortConnection()

    def _keep_producer(self, producer: Any, streaming: bool) -> None:
        self._producer, self._is_streaming = producer, streaming
        if streaming:
            producer.pauseProducing()

    def _drop_producer(self) -> Any:
        producer, self._producer = self._producer, None
        return producer

    # Called by the engine.

    def write(self, data: bytes) -> None:
        """Send as much as the kernel takes, and leave the rest to the transport."""
        if self._is_over:
            return
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
            except OSError as error:
                if error.errno not in TRY_LATER:
                    # The transport is not used here: it would end the connection before the last
                    # bytes of the peer are read, such as its close_notify or an alert.
                    self._is_over = True
                    self._connection.output_broke(error)
                    return
        if self._socket is None or not join_queued(transport, data):
            self._write(data)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Write pieces as one."""
        self.write(b"".join(iovec))

    def loseWriteConnection(self) -> None:
        """Send FIN after all written bytes."""
        self._is_over = True
        # On the descriptor, below wrappers that do not change the bytes.
        bottom: Any = self.transport if self._descriptor is None else self._descriptor
        bottom.loseWriteConnection()

    def loseConnection(self) -> None:
        """End the connection; close_notify was written."""
        self._lose()

    def abortConnection(self) -> None:
        """End the connection now, with a reset if there is a socket."""
        # Transports in memory call loseConnection to abort; ours would lead back to the engine.
        self.transport.loseConnection = self._lose
        (self._lose if self._abort is None else self._abort)()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Let the transport tell the engine's producer of a full queue."""
        self._register(producer, streaming)

    def unregisterProducer(self) -> None:
        """Leave the transport without a producer."""
        self._unregister()
