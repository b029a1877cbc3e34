"""
Private names of Twisted that twsock uses, and the code around the rarely needed ones.

Twisted may change a private name in any release. `PRIVATE_NAMES` lists those in use, which are
those of Twisted 26.10. So tests/test_private_names.py can check a new release: it finds each use in
the package, and fails on a use that is not listed, on a listed name that is not used, and on one
that the installed Twisted does not have.

Subclasses of Twisted's classes, and code that runs for each event, use a name in place; other code
calls a function of this module. The private names of pyOpenSSL are in `twsock.tls.openssl`.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.tcp import BaseClient, Port
from twisted.python.failure import Failure

__all__ = [
    "PRIVATE_NAMES",
    "PrivateNames",
    "adopt_listening_socket",
    "forget_buffers",
    "leave_listening",
    "leave_socket",
    "silence_unhandled",
    "take_over_channel",
]


class PrivateNames(NamedTuple):
    """
    Private names of one class or module of Twisted.

    :ivar owner: the full name of the class or module.
    :ivar test: the module of the tests that fail without them.
    :ivar purposes: each name, and what it is needed for.
    """

    owner: str
    test: str
    purposes: dict[str, str]


#: Every private name of Twisted that a module of the package uses.
PRIVATE_NAMES: Final = (
    PrivateNames(
        "twisted.internet.abstract.FileDescriptor",
        "tests.stream.test_below_tls",
        {
            "_tempDataBuffer": "join small pieces that are queued",
            "_tempDataLen": "send nothing before the bytes that are queued",
        },
    ),
    PrivateNames(
        "twisted.internet.abstract._LogOwner",
        "tests.stream.listening.test_server_transport",
        {"_getLogPrefix": "make the prefix of log messages when it is needed"},
    ),
    PrivateNames(
        "twisted.internet.tcp.Connection",
        "tests.stream.test_transport",
        {"_aborting": "send nothing after an application has aborted the transport"},
    ),
    PrivateNames(
        "twisted.internet.tcp._SocketCloser",
        "tests.loopback.test_handover",
        {"_shouldShutdown": "leave a socket open that was handed over"},
    ),
    PrivateNames(
        "twisted.internet.endpoints",
        "tests.loopback.test_lifetimes",
        {"_WrappingFactory": "recognise the factory of an endpoint"},
    ),
    PrivateNames(
        "twisted.internet.endpoints._WrappingFactory",
        "tests.loopback.test_lifetimes",
        {"_connector": "free a lost client without the garbage collector"},
    ),
    PrivateNames(
        "twisted.internet.defer.Deferred",
        "tests.sockets.datagram.test_output",
        {
            "_callbacks": "complete a datagram without a call if nobody awaits it",
            "_canceller": "cancel a queued datagram",
            "_debugInfo": "log no failure of a write that nobody awaits",
        },
    ),
    PrivateNames(
        "twisted.internet.defer",
        "tests.sockets.datagram.test_output",
        {"_NO_RESULT": "give a queued datagram the attributes of a sent one"},
    ),
    PrivateNames(
        "twisted.internet.tcp.Port",
        "tests.services.test_keeping_reactor",
        {"_preexistingSocket": "listen on a socket that is kept for another process"},
    ),
    PrivateNames(
        "twisted.python.logfile.BaseLogFile",
        "tests.services.test_log_file",
        {
            "_file": "write to the end of a log file that another process writes to",
            "_openFile": "do so after a rotation, too",
        },
    ),
    PrivateNames(
        "twisted.internet.base.ReactorBase",
        "tests.datagram.test_port",
        {"_stopped": "close datagram ports when the reactor ends"},
    ),
    PrivateNames(
        "twisted.internet.epollreactor.EPollReactor",
        "tests.test_reactor",
        {
            "_disconnectSelectable": "end a connection after a read",
            "_doReadOrWrite": "handle any other event than input alone",
            "_internalReaders": "keep the alarm when all connections are closed",
            "_justStopped": "know that the reactor was stopped",
            "_newTimedCalls": "know that a timer was added",
            "_pendingTimedCalls": "know when the next timer is due",
            "_poller": "wait for events",
            "_selectables": "find the descriptor of an event",
            "_started": "run the loop until the reactor has ended",
        },
    ),
    PrivateNames(
        "twisted.protocols.tls.TLSMemoryBIOProtocol",
        "tests.tls.test_engine",
        {
            "_aborted": "send no close_notify with an abort",
            "_appSendBuffer": "count the bytes that wait for the handshake, and keep their order",
            "_bufferedWrite": "join small writes that wait for the handshake",
            "_flushReceiveBIO": "stop reading at the peer's close_notify",
            "_flushSendBIO": "bound the answers to a peer that does not read",
            "_checkHandshakeStatus": "begin the handshake of a client",
            "_handshakeDone": "know when the connection is secure and the fast path is open",
            "_lostTLSConnection": "deliver and send nothing after the end of TLS",
            "_producer": "leave writes to Twisted while it pauses a producer",
            "_shutdownTLS": "end both directions with close_notify",
            "_tlsConnection": "read and write records",
            "_tlsShutdownFinished": "send the alert of a failure before the connection ends",
            "_unbufferPendingWrites": "count no byte as waiting after the handshake",
        },
    ),
    PrivateNames(
        "twisted.protocols.tls.TLSMemoryBIOFactory",
        "tests.tls.test_engine",
        {"_clock": "abort a failed connection whose peer does not read"},
    ),
    PrivateNames(
        "twisted.protocols.tls.BufferingTLSTransport",
        "tests.tls.test_engine",
        {"_aggregator": "send at once what is written to an engine of Twisted's endpoints"},
    ),
    PrivateNames(
        "twisted.protocols.tls._AggregateSmallWrites",
        "tests.stream.test_descriptor",
        {"_buffer": "count the bytes that such an engine collects"},
    ),
    PrivateNames(
        "twisted.protocols.basic.LineReceiver",
        "tests.websocket.test_resource",
        {"_buffer": "deliver the frames that arrived in one read with their request"},
    ),
    PrivateNames(
        "twisted.web.http.HTTPChannel",
        "tests.websocket.test_resource",
        {
            "_abortingCall": "stop the timeout of HTTP",
            "_dataBuffer": "deliver the frames that arrived while the request was routed",
            "_networkProducer": "unregister the producer of HTTP",
        },
    ),
)


def silence_unhandled(deferred: Deferred[Any], error: Exception) -> bool:
    """
    Suppress the unhandled-error log of a failed Deferred that nobody awaits.

    When a connection breaks with five writes and a flush pending, the flush reports the error. The
    five unawaited writes would log five more tracebacks when they are freed. The failure stays in
    the Deferred: code that awaits the write later still gets it.

    :param deferred: has just failed.
    :param error: the error with which it failed.
    :returns: whether no code handled the failure.
    """
    information = deferred._debugInfo
    failure = None if information is None else information.failResult
    if information is None or failure is None or failure.value is not error:
        return False  # A callback handled it, and is responsible for the result.
    information.failResult = None
    return True


def adopt_listening_socket(reactor: Any, listening: Any, factory: Any) -> Any:
    """
    Make a port of a listening TCP socket, and start it.

    ``adoptStreamPort`` does the same with a duplicate of the socket.

    :param listening: the port closes it, and never shuts it down.
    """
    # Twisted reads the family of the port from the address.
    port = Port(None, factory, None, listening.getsockname()[0], reactor)  # type: ignore[arg-type]
    port._preexistingSocket = listening
    port.startListening()
    return port


def leave_socket(descriptor: Any) -> bytes:
    """
    Close a transport without a word to its peer: another descriptor keeps the connection.

    The protocol receives ``connectionLost`` within this call.

    :returns: the bytes that wait in the queue of the transport.
    """
    queued = bytes(descriptor.dataBuffer[descriptor.offset :])
    queued += b"".join(descriptor._tempDataBuffer)
    # Otherwise Twisted calls shutdown(2), which ends the connection for all its descriptors.
    descriptor._shouldShutdown = False
    # It leaves the reactor first, and then closes its descriptor.
    descriptor.connectionLost(Failure(ConnectionDone()))
    return queued


def leave_listening(port: Any) -> None:
    """Close a listening port without effect on its socket: another descriptor keeps it."""
    # Otherwise Twisted calls shutdown(2), which ends the listening for all descriptors.
    port._shouldShutdown = False
    # It leaves the reactor first, and then closes its descriptor. That of a UNIX port would also
    # remove the path.
    Port.connectionLost(port, Failure(ConnectionDone()))


def forget_buffers(descriptor: FileDescriptor) -> None:
    """
    Drop the buffers of a descriptor whose connection is lost; called within connectionLost.

    Twisted keeps unsent bytes as long as anything refers to the transport.
    """
    if descriptor.connected:
        return  # Only a wrapper has ended; the connection itself is open.
    if isinstance(descriptor, BaseClient):
        client: Any = descriptor
        client.connector = _LastReport(client.connector)
    descriptor.dataBuffer = b""
    descriptor.offset = 0
    descriptor._tempDataBuffer = []
    descriptor._tempDataLen = 0


class _LastReport:
    """
    Replaces the connector of a client until the connector has reported the lost connection.

    Without this, connector, transport, factory and often the protocol keep each other in memory.
    """

    def __init__(self, connector: Any) -> None:
        self._last: Any = connector

    # Called by Twisted.

    def connectionLost(self, reason: Failure) -> None:
        # Here, since it loads all endpoints of Twisted: a server has no connector.
        from twisted.internet.endpoints import _WrappingFactory

        connector, self._last = self._last, None
        connector.connectionLost(reason)
        # The factory of an endpoint needs its connector only to cancel a pending attempt.
        factory: Any = connector.factory
        if isinstance(factory, _WrappingFactory):
            factory._connector = None


def take_over_channel(channel: Any, protocol: Any) -> bytes:
    """
    Replace the protocol of HTTP/1.1 above a transport; call ``makeConnection`` afterwards.

    The timeouts and the producer of HTTP are stopped. The one request that is being handled no
    longer belongs to the channel.

    :param channel: the ``HTTPChannel`` of a request whose response is not begun.
    :param protocol: receives all further events of the transport.
    :returns: the bytes that arrived after the request.
    """
    channel.setTimeout(None)
    aborting, channel._abortingCall = channel._abortingCall, None
    if aborting is not None:
        aborting.cancel()
    channel._networkProducer.unregisterProducer()
    received: bytes = b"".join(channel._dataBuffer) + channel._buffer
    channel._dataBuffer = []
    channel._buffer = b""  # Its loop ends, when the request was read in this turn.
    channel.requests = []
    transport = channel.transport
    # An engine of TLS, and a wrapper of a policy, have the first name.
    has_wrapped = hasattr(transport, "wrappedProtocol")
    setattr(transport, "wrappedProtocol" if has_wrapped else "protocol", protocol)
    return received
