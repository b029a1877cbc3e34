"""
Twisted's TLS engine, with a fast path for open connections.

`twsock.tls.handshake` makes it. Twisted reads from OpenSSL until an exception, twice for each
received piece, and delivers record by record. This engine follows the boundaries of the records, so
it knows how many it can read, and delivers their contents in one call. It also reads the encrypted
output from OpenSSL once. The handshake and all errors take Twisted's own path.

The two directions end separately, as those of TCP do (:rfc:`8446`, section 6.1). The input ends in
order only with the peer's close_notify, since an attacker can send FIN. Later events of the TCP
connection do not change that. The output ends with our close_notify, before or
after the input.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, Final

from OpenSSL import SSL
from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.tls import (
    BufferingTLSTransport,
    TLSMemoryBIOProtocol,
)
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import directlyProvidedBy, directlyProvides, implementer

from twsock._interfaces import provide_same

__all__ = ["Engine", "RecordBoundaries", "adopt_engine", "make_engine"]

#: Type, version and count in front of a record (:rfc:`8446`, section 5.1), in bytes.
_HEADER: Final = 5
#: The plaintext of a record, in bytes.
_RECORD: Final = 2**14
#: Encrypted in one go, in bytes: a whole number of records.
_BATCH: Final = 4 * _RECORD
#: The most that encryption adds to a batch, in bytes.
_ADDED: Final = 4 * 256


#: The most answers to a peer that does not read them (:rfc:`8446`, section 4.6.3), in bytes.
_MAX_UNREAD_ANSWERS: Final = 2**16

#: Seconds that a failed connection may take to send its queued bytes and its alert.
_ALERT_TIMEOUT: Final = 5.0

#: Pieces below this many bytes are joined while they wait.
_SMALL: Final = 1024


class RecordBoundaries:
    """Counts the records of a stream, whatever pieces it arrives in."""

    def __init__(self) -> None:
        #: Bytes that the record under way still lacks; and those of a header that is not whole.
        self._missing = 0
        self._header = b""

    def count(self, data: bytes) -> int:
        """Process the next piece; return how many records end in it."""
        size = len(data)
        at = self._missing
        if self._header:
            data = self._header + data
            size = len(data)
        elif not at and size == _HEADER + int.from_bytes(data[3:_HEADER], "big"):
            return 1  # One whole record: the usual case.
        ended = 1 if 0 < at <= size else 0
        while at + _HEADER <= size:
            at += _HEADER + int.from_bytes(data[at + 3 : at + _HEADER], "big")
            if at <= size:
                ended += 1
        self._header = data[at:]
        self._missing = max(0, at - size)
        return ended


class _NoFactory:
    """Replaces the factory of Twisted's engine; keeps no list of engines."""

    def unregisterProtocol(self, engine: TLSMemoryBIOProtocol) -> None:
        """Do nothing at the loss of a connection."""


_NO_FACTORY: Final = _NoFactory()


@implementer(IHalfCloseableProtocol)
class Engine(TLSMemoryBIOProtocol):
    """
    The TLS engine of one connection; made by `make_engine`.

    At the peer's close_notify, ``readConnectionLost`` of a receiver is called if it provides
    ``IHalfCloseableProtocol``; it may still write. With any other receiver the connection ends, as
    in Twisted.

    :ivar completed: called once, when the handshake has succeeded; None to call nothing.
    :ivar ended: called with OpenSSL's connection when the transport is lost; None to call nothing.
    """

    completed: Callable[[], object] | None = None
    ended: Callable[[SSL.Connection], object] | None = None
    #: Bytes that wait for the end of the handshake.
    held_bytes = 0
    #: Whether the peer's close_notify was read, and whether ours was sent or is due.
    _input_ended = False
    _output_ended = False
    # Whether close_notify has to be sent as soon as the handshake is done.
    _owes_close_notify = False
    #: Whether the application has closed both directions.
    _is_finished = False
    # Whether a close waits until the end of the input was reported, and whether a close waits now.
    _closes_later = _has_to_close = False
    # Measures the deadline. None: the clock of the factory, which a TLS endpoint of Twisted has.
    _reactor: IReactorTime | None = None
    _unread_answers = 0
    # After a failure: aborts the connection if the peer does not read.
    _deadline: IDelayedCall | None = None

    def __init__(self, clock: IReactorTime, receiver: Any, is_client: bool) -> None:
        super().__init__(_NO_FACTORY, receiver)
        self._reactor = clock
        self._boundaries = RecordBoundaries()
        self._appSendBuffer = []
        self._is_client = is_client

    @override
    def makeConnection(self, transport: Any) -> None:
        # Twisted's engine does the same in many more calls: it computes the declaration of the
        # interfaces anew, and a server tries to read a ClientHello before any byte has arrived.
        provide_same(self, transport)
        Protocol.makeConnection(self, transport)
        self.wrappedProtocol.makeConnection(self)
        if self._is_client:
            self._checkHandshakeStatus()

    @override
    def dataReceived(self, data: bytes) -> None:
        if self._input_ended or self._lostTLSConnection or self._aborted:
            # Bytes after close_notify have to be ignored (RFC 8446, section 6.1). OpenSSL reads no
            # bytes after an end or a failure, and would keep them all.
            return
        ended = self._boundaries.count(data)
        if not self._handshakeDone or self._appSendBuffer:
            super().dataReceived(data)
            if self._owes_close_notify:  # It had to wait.
                self._send_close_notify()
            completed = self.completed
            if completed is not None and self._handshakeDone:
                self.completed = None
                completed()
            return
        connection = self._tlsConnection
        connection.bio_write(data)
        pieces: list[bytes] = []
        has_ended = False
        error: Failure | None = None
        try:
            for _ in range(ended):
                pieces.append(connection.recv(_RECORD))  # noqa: PERF401 - kept when one fails
        except SSL.ZeroReturnError:
            has_ended = True
        except SSL.WantReadError:
            pass  # One was no data. What else it may be, OpenSSL tells again below.
        except SSL.Error:
            error = Failure()
        if error is not None:
            # Delivered first, since an answer would meet an error of its own after this.
            self._tlsShutdownFinished(error)
        if pieces and self.connected:  # Where FIN was sent, the error has ended the connection.
            self.wrappedProtocol.dataReceived(b"".join(pieces))
        if has_ended:
            self._end_after_data()
        elif error is None and len(pieces) < ended:
            self._flushReceiveBIO()

    @override
    def _flushReceiveBIO(self) -> None:
        while not (self._lostTLSConnection or self._input_ended or self._aborted):
            try:
                data = self._tlsConnection.recv(_RECORD)
            except SSL.WantReadError:
                break
            except SSL.ZeroReturnError:
                self._end_input()
            except SSL.Error:
                self._tlsShutdownFinished(Failure())
            else:
                self.wrappedProtocol.dataReceived(data)
        self._flushSendBIO()

    # How the directions end.

    def _end_after_data(self) -> None:
        """Report the peer's close_notify, unless the data before it has ended the connection."""
        if not (self._lostTLSConnection or self._aborted):
            self._end_input()
        self._flushSendBIO()

    def _end_input(self) -> None:
        """Report the peer's close_notify to the receiver."""
        self._input_ended = True
        if not IHalfCloseableProtocol.providedBy(self.wrappedProtocol):
            self._shutdownTLS()
            return
        transport: Any = self.transport
        self._closes_later = hasattr(transport, "close_answered")
        self.wrappedProtocol.readConnectionLost()
        if self._has_to_close and self.connected and not self._aborted:
            transport.close_answered()
        self._closes_later = self._has_to_close = False

    @override
    def _shutdownTLS(self) -> None:
        self.loseWriteConnection()
        transport: Any = self.transport
        if self._closes_later:
            self._has_to_close = True
        else:
            transport.loseConnection()

    def loseWriteConnection(self) -> None:
        """Send close_notify after all written bytes; input is still received."""
        if not self._output_ended:
            self._output_ended = self._owes_close_notify = True
        self._send_close_notify()

    def _send_close_notify(self) -> None:
        """Send close_notify if it is due: after the handshake and all written bytes, once."""
        if not self._owes_close_notify or not self._handshakeDone or self._appSendBuffer:
            return
        # After a second call every `recv` would fail.
        self._owes_close_notify = False
        try:
            self._tlsConnection.shutdown()
        except SSL.Error:
            pass  # After a failure nothing can be sent.
        self._flushSendBIO()

    def finish(self) -> None:
        """Send close_notify and FIN. After this, a missing close_notify of the peer is no error."""
        self.disconnecting = self._is_finished = True
        self.loseWriteConnection()
        transport: Any = self.transport
        transport.loseWriteConnection()

    @override
    def loseConnection(self) -> None:
        if self._is_finished:
            self._shutdownTLS()
        else:
            super().loseConnection()

    @override
    def abortConnection(self) -> None:
        # Without the close_notify that Twisted would send: the peer must see a truncation.
        self._aborted = self.disconnecting = True
        transport: Any = self.transport
        transport.abortConnection()

    def readConnectionLost(self) -> None:
        """Handle the peer's FIN: a truncation, unless after its close_notify or our `finish`."""
        if self._is_finished:
            self._tlsShutdownFinished(None)
        else:
            self._tlsConnection.bio_shutdown()
            self._flushReceiveBIO()  # It meets the end, and reports a truncation.

    def writeConnectionLost(self) -> None:
        """Report that the kernel has our close_notify and FIN."""
        receiver: Any = self.wrappedProtocol  # It called `finish`, so it has this method.
        receiver.writeConnectionLost()

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.completed = None
        if self.ended is not None:
            self.ended(self._tlsConnection)
        if self.disconnecting and self._output_ended:
            self._lostTLSConnection = True  # This end is no truncation.
        super().connectionLost(reason)
        self.disconnecting = True  # Later writes are dropped.
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._appSendBuffer = []  # Twisted keeps bytes that waited for a handshake.
        self.held_bytes = 0

    @override
    def _tlsShutdownFinished(self, reason: Failure | None) -> None:
        # Twisted looks at the first argument, and the error of a close_notify during the handshake
        # has none. To Twisted this one is a lost connection, too.
        if reason is not None and reason.check(SSL.ZeroReturnError):
            reason = Failure(SSL.SysCallError(-1, "Unexpected EOF"))
        if reason is not None:
            # It is kept until the connection is lost, and its frames refer to this engine.
            reason.cleanFailure()
        super()._tlsShutdownFinished(reason)
        if reason is not None and self._deadline is None and self.connected:
            # The receiver is called when the transport is lost, which first sends its queue.
            reactor = self._reactor or self.factory._clock
            self._deadline = reactor.callLater(_ALERT_TIMEOUT, self._give_up)

    def _give_up(self) -> None:
        self._deadline = None
        transport: Any = self.transport
        transport.abortConnection()

    @override
    def write(self, data: bytes) -> None:
        if self.disconnecting or self._output_ended or not self._handshakeDone:
            if not self._output_ended:
                super().write(data)
            elif not self.disconnecting:
                # Writing after close_notify fails, as it does after FIN on TCP.
                self._tlsShutdownFinished(Failure(SSL.SysCallError(errno.EPIPE, "Broken pipe")))
            return
        if len(data) > _BATCH:
            view = memoryview(data)
            for start in range(0, len(data), _BATCH):
                if not self.connected:
                    return  # A transport in memory may lose the connection within a write.
                # The attribute ``write`` of this object is replaced if TLS runs inside this TLS.
                type(self).write(self, view[start : start + _BATCH].tobytes())
            return
        if self._appSendBuffer:
            # Twisted would try to send this before the bytes that wait for OpenSSL to read.
            self._bufferedWrite(data)
            return
        sent = self._encrypt(data)
        if sent < len(data) and self.connected:
            # OpenSSL has to read first, or has failed: Twisted handles both.
            super().write(data[sent:])

    @override
    def _bufferedWrite(self, octets: bytes) -> None:
        held = self._appSendBuffer
        self.held_bytes += len(octets)
        is_small = bool(held) and max(len(octets), len(held[-1])) < _SMALL
        if is_small and self._producer is None:
            # Python adds some 40 bytes to each piece, which may be more than a message has.
            held[-1] += octets
        else:
            super()._bufferedWrite(octets)

    @override
    def _unbufferPendingWrites(self) -> None:
        self.held_bytes = 0  # Bytes that OpenSSL refuses are queued again.
        super()._unbufferPendingWrites()

    def _encrypt(self, data: bytes) -> int:
        """Encrypt bytes and write them to the transport; return how many."""
        connection, transport = self._tlsConnection, self.transport
        assert transport is not None
        size = len(data)
        sent = 0
        # Slices of a view are no copies; making one costs more than a small copy.
        source = data if size <= _RECORD else memoryview(data)
        try:
            while sent < size:
                sent += connection.send(source[sent : sent + _RECORD])
        except SSL.Error:
            pass
        if sent:
            transport.write(self._read_out(size + _ADDED))
        return sent

    def _read_out(self, expected: int) -> bytes:
        """Return all encrypted output; after a piece of the full size there may be more."""
        connection = self._tlsConnection
        data: bytes = connection.bio_read(expected)
        if len(data) < expected:
            return data
        pieces = [data]
        while len(pieces[-1]) == expected:
            try:
                pieces.append(connection.bio_read(expected))
            except SSL.WantReadError:
                break
        return b"".join(pieces)

    @override
    def _flushSendBIO(self) -> None:
        transport: Any = self.transport
        if not self.connected:
            return  # The connection was lost while the received bytes were delivered.
        try:
            data = self._read_out(_BATCH)
        except SSL.WantReadError:
            return
        transport.write(data)
        if getattr(transport, "is_flushed", True):
            self._unread_answers = 0
            return
        # Not data, but answers to its own messages, which it does not read.
        self._unread_answers += len(data)
        if self._unread_answers > _MAX_UNREAD_ANSWERS:
            self.abortConnection()


def make_engine(creator: Any, is_client: bool, receiver: Any, clock: IReactorTime) -> Engine:
    """
    Make an engine that is not connected yet.

    :param creator: makes the OpenSSL connection, as for Twisted.
    :param receiver: the protocol that receives the decrypted bytes.
    :param clock: the reactor; without it, Twisted would install a default reactor.
    """
    engine = Engine(clock, receiver, is_client)
    if is_client:
        connection = creator.clientConnectionForTLS(engine)
        connection.set_connect_state()
    else:
        connection = creator.serverConnectionForTLS(engine)
        connection.set_accept_state()
    engine._tlsConnection = connection
    return engine


def adopt_engine(transport: Any) -> bool:
    """
    Convert a TLS engine that a TLS endpoint of Twisted made into an `Engine`.

    Other transports and subclasses are not changed, nor is an engine whose handshake is done, since
    the start of the next record is not known then.

    :param transport: the transport of a connection that was just made.
    :returns: whether it was converted; its handshake is not done then.
    """
    if type(transport) not in (BufferingTLSTransport, TLSMemoryBIOProtocol):
        return False
    if transport._handshakeDone:
        return False
    if isinstance(transport, BufferingTLSTransport):
        # It would collect what is written until the next turn of the reactor, as our streams do.
        transport._aggregator.close()  # It writes what it has to the engine.
        del transport._aggregator, transport.write
    # Twisted makes the engine in a dozen places, and its class cannot be configured. Both classes
    # have the same attributes and no slots, so the class can be changed.
    transport.__class__ = Engine
    directlyProvides(transport, directlyProvidedBy(transport))  # with what the class provides
    transport._boundaries = RecordBoundaries()
    transport.held_bytes = sum(map(len, transport._appSendBuffer))
    return True
