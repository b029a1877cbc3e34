"""
The transport below a TLS engine: engine → **lower transport** → transport of the connection.

Once the upgrade of a connection has begun, only the engine writes to the transport. The connection
keeps bytes that other code writes to it. They pass through the engine later: none of them is sent
in plaintext.

Encrypted bytes are sent to the kernel at once if there is a plain socket, as without TLS (see
`twsock.stream.transport`).
"""

from __future__ import annotations

import errno
import socket
import typing
from collections.abc import Iterable
from typing import Any, Final

from twisted.internet.abstract import FileDescriptor
from twisted.internet.protocol import connectionDone

from twsock._interfaces import provide_same
from twsock.stream.descriptor import is_writable, join_queued

__all__ = ["TRY_LATER", "Held", "TlsLowerTransport"]

#: Errors of a full send buffer: nothing was sent, and the connection is intact.
TRY_LATER: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS})


#: Methods that a lower transport replaces on its transport, besides those that write.
_REPLACED: Final = ("abortConnection", "loseConnection", "registerProducer", "unregisterProducer")


class Held(typing.Protocol):
    """A connection that keeps its output until a handshake is done."""

    def take(self, data: bytes) -> object:
        """Keep bytes that were written to the transport directly."""

    def output_broke(self, error: OSError) -> object:
        """Report that sending failed for good; received bytes can still be read."""

    def abort(self) -> object:
        """Abort the connection; nothing more is sent."""

    def close_waits(self) -> object:
        """Report that a close waits until the kernel has room."""


class _Nobody:
    """Replaces a lost connection; does nothing."""

    def take(self, data: bytes) -> None: ...
    def output_broke(self, error: OSError) -> None: ...
    def abort(self) -> None: ...
    def close_waits(self) -> None: ...


def _drop(_data: object) -> None:
    """Drop a write to a transport whose connection is lost."""


class TlsLowerTransport:
    """
    The transport that a TLS engine sees.

    :param handle: the plain socket to send on; None if there is none.
    :param descriptor: Twisted's descriptor below it; None if there is none.
    :param connection: keeps the bytes that other code writes.

    :ivar transport: the real transport; it has all attributes that this class does not define.
    :ivar below: with TLS inside TLS (a proxy with TLS), the lower transport of the outer TLS;
        otherwise None.
    """

    below: TlsLowerTransport | None = None

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
        # The application's producer, and whether it is a push producer.
        self._producer: Any = None
        self._is_streaming = False
        # Whether nothing more can be sent: FIN was sent, or sending failed.
        self._is_over = False
        # The original methods, before they are replaced as Twisted's startTLS does.
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
        provide_same(self, transport)

    def take_producer(self) -> None:
        """Pause the application's producer until the handshake is done."""
        plain: Any = self._descriptor
        producer, is_streaming = plain.producer, plain.streamingProducer
        self._unregister()
        self._keep_producer(producer, is_streaming)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    @property
    def protocol(self) -> Any:
        """The protocol that receives: the engine."""
        return getattr(self.transport, self._receiver)

    @protocol.setter
    def protocol(self, protocol: Any) -> None:
        setattr(self.transport, self._receiver, protocol)

    @property
    def is_flushed(self) -> bool:
        """Whether the kernel has all bytes that the engine wrote, as far as is known."""
        descriptor: Any = self._descriptor
        # As `queued_bytes`, without a call: each message of a handshake asks.
        return descriptor is None or not (descriptor.dataBuffer or descriptor._tempDataLen)

    def lead_to(self, engine: Any, connection: Held) -> None:
        """
        Direct calls by other code to the engine from now on.

        :param connection: replaces the connection that kept the output.
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
        """Resume the application's producer, after the kept bytes."""
        producer = self._drop_producer()
        if producer is not None and self._is_streaming:
            producer.resumeProducing()

    def lost(self) -> None:
        """Handle the loss of the connection before there was an engine."""
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
        if self.below is not None:
            self.below.release()

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
        """Send as much as the kernel takes, and queue the rest in the transport."""
        if self._is_over:
            return
        transport = self.transport
        if (
            self._socket is not None
            # Queued bytes have to be sent first; and the socket of a lost connection is closed.
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
        """Write several pieces as one."""
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

    def close_answered(self) -> None:
        """
        End the connection after close_notify was written: at once if a plain socket has sent all.

        The loss is then reported within this call. Otherwise, and if the kernel has no room (the
        peer may not read), the connection starts its deadline, and ends as with `loseConnection`.
        """
        descriptor: Any = self._descriptor
        if (
            self._socket is not None
            and self.is_flushed
            and descriptor.producer is None  # Twisted waits for the producer of an application.
            and is_writable(descriptor)
        ):
            # ``loseConnection`` would end in the next turn, and make four more system calls.
            # As in Twisted's abortConnection: one event may report input and room, and the reactor
            # writes after it has read.
            descriptor.doWrite = _write_nothing
            descriptor.connectionLost(connectionDone)
        else:
            self._connection.close_waits()
            self._lose()

    def abortConnection(self) -> None:
        """Abort the connection, with a reset if there is a socket."""
        # Transports in memory call loseConnection to abort; the replaced one would call the engine.
        self.transport.loseConnection = self._lose
        (self._lose if self._abort is None else self._abort)()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Register the engine's producer with the transport."""
        self._register(producer, streaming)

    def unregisterProducer(self) -> None:
        """Unregister the producer."""
        self._unregister()


def _write_nothing() -> None:
    """Replaces ``doWrite`` of a descriptor that a read has closed."""
