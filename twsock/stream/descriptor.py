"""
The descriptor below a transport: its socket, its queue, and the TLS engine between them.

A transport may be Twisted's descriptor itself, or a stack of wrappers (TLS, policies, a PROXY
header) above it. The descriptor holds the queue of bytes that the kernel has not taken. Only if the
transport is the descriptor itself are the written bytes also the bytes on the wire.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from typing import Any, Final

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IHalfCloseableProtocol, ITransport
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOProtocol

from twsock.ip.zones import with_zone

__all__ = [
    "SMALL",
    "bottom_socket",
    "carries_tls",
    "describe_path",
    "describe_peer",
    "discard_input",
    "engine_bytes",
    "engine_holds",
    "find_descriptor",
    "hung_up",
    "is_half_closing_engine",
    "is_shaking_hands",
    "is_writable",
    "join_queued",
    "may_collect",
    "plain_socket",
    "queued_bytes",
    "secured_by",
    "unread_input",
]

#: The most wrappers that are followed. Real stacks have two or three; a wrapper that has itself as
#: its transport would have no end.
_MAX_WRAPPERS: Final = 16

#: Pieces below this many bytes are joined while they wait.
SMALL: Final = 1024

#: OpenSSL's name of the state in which no message of a handshake was sent or read.
_NOT_BEGUN: Final = b"before SSL initialization"

#: How many bytes are read before a close: in one call, and in all calls.
_DISCARDED: Final = 64 * 1024
_MAX_DISCARDED: Final = 16 * _DISCARDED


def find_descriptor(transport: ITransport) -> FileDescriptor | None:
    """
    Return Twisted's descriptor below the wrappers of a transport.

    :returns: None if there is none: a transport in memory, or of a reactor with its own class.
    """
    candidate: object = transport
    for _ in range(_MAX_WRAPPERS):
        # A class and not an interface: its queue is read below, which no interface has.
        if isinstance(candidate, FileDescriptor):
            return candidate
        candidate = getattr(candidate, "transport", None)
        if candidate is None:
            break
    return None


def bottom_socket(transport: ITransport) -> socket.socket | None:
    """Return the socket below a transport, to read and set options; never to send on."""
    found = getattr(find_descriptor(transport), "socket", None)
    return found if isinstance(found, socket.socket) else None


def is_half_closing_engine(transport: ITransport) -> bool:
    """Return whether this is a TLS engine of twsock, whose two directions end separately."""
    # Twisted's engines do not provide IHalfCloseableProtocol: FIN ends them.
    is_engine = isinstance(transport, TLSMemoryBIOProtocol)
    return is_engine and IHalfCloseableProtocol.providedBy(transport)


def carries_tls(transport: ITransport) -> bool:
    """Return whether one of the wrappers is a TLS engine of Twisted."""
    candidate: object = transport
    for _ in range(_MAX_WRAPPERS):
        if isinstance(candidate, TLSMemoryBIOProtocol) or getattr(candidate, "TLS", False):
            return True
        candidate = getattr(candidate, "transport", None)
        if candidate is None:
            break
    return False


def engine_holds(transport: ITransport) -> bool:
    """Return whether a TLS engine queues bytes until its handshake is done."""
    candidate: object = transport
    for _ in range(_MAX_WRAPPERS):
        for layer in (candidate, _started_engine(candidate)):
            if isinstance(layer, TLSMemoryBIOProtocol) and layer._appSendBuffer:
                return True
        candidate = getattr(candidate, "transport", None)
        if candidate is None:
            break
    return False


def describe_path(path: bytes | str) -> str:
    """
    Return a path as printable text, for logs and messages.

    The peer chose the path. So bytes that are not text, line ends and escape sequences are escaped
    in ASCII.
    """
    text = os.fsdecode(path)
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def describe_peer(transport: ITransport) -> str:
    """Return the peer's address as text: ``host:port``, ``[host]:port`` or a path."""
    peer: Any = transport.getPeer()
    host = getattr(peer, "host", None)
    if host is None:
        name = getattr(peer, "name", None)
        return describe_path(name) if name else "unnamed UNIX socket"
    host = with_zone(host, getattr(peer, "scopeID", 0))
    return f"[{host}]:{peer.port}" if ":" in host else f"{host}:{peer.port}"


def engine_bytes(transport: ITransport) -> int:
    """
    Return how many bytes TLS engines hold: until a handshake is done, or until the next turn.

    An engine of `twsock.tls.engine` knows the number. For one of Twisted's, the cost is
    proportional to the number of queued writes.
    """
    kept = 0
    candidate: object = transport
    for _ in range(_MAX_WRAPPERS):
        for layer in (candidate, _started_engine(candidate)):
            if isinstance(layer, TLSMemoryBIOProtocol):
                held: int | None = getattr(layer, "held_bytes", None)
                kept += sum(map(len, layer._appSendBuffer)) if held is None else held
            if isinstance(layer, BufferingTLSTransport):
                kept += sum(map(len, getattr(layer._aggregator, "_buffer", ())))
        candidate = getattr(candidate, "transport", None)
        if candidate is None:
            break
    return kept


def _started_engine(transport: object) -> object:
    """Return the engine that ``startTLS`` has put on a transport; None if there is none."""
    return getattr(transport, "protocol", None) if getattr(transport, "TLS", False) else None


def join_queued(descriptor: FileDescriptor, data: bytes | bytearray) -> bool:
    """
    Append a small piece to the last queued piece, if that is small too.

    Python adds some 40 bytes to each piece, which may be more than the message itself.

    :returns: whether the piece was appended; otherwise the caller has to queue it.
    """
    waiting: list[bytes] = descriptor._tempDataBuffer
    if not waiting or len(data) >= SMALL or len(waiting[-1]) >= SMALL:
        return False
    target: Any = descriptor
    if not target.connected or (target.producer is not None and target.streamingProducer):
        return False  # Only the descriptor's write method pauses the producer at a full queue.
    waiting[-1] += data
    descriptor._tempDataLen += len(data)
    return True


def may_collect(transport: ITransport) -> bool:
    """Return whether a wrapper may still hold bytes that were just written."""
    candidate: object = transport
    for _ in range(_MAX_WRAPPERS):
        # An engine of Twisted collects written bytes until the next turn of the reactor.
        if isinstance(candidate, BufferingTLSTransport) or getattr(candidate, "TLS", False):
            return True
        candidate = getattr(candidate, "transport", None)
        if candidate is None:
            break
    return engine_holds(transport)


def secured_by(transport: ITransport) -> Any:
    """
    Return OpenSSL's connection of the TLS engine among the wrappers, once its handshake is done.

    Only this function decides whether a connection is secure. After a handshake of twsock, the
    connection continues only if the peer was accepted.

    :returns: None if the connection is not secure, or not yet.
    """
    candidate: object = transport
    for _ in range(_MAX_WRAPPERS):
        for layer in (candidate, _started_engine(candidate)):
            if isinstance(layer, TLSMemoryBIOProtocol):
                return layer.getHandle() if layer._handshakeDone else None
        candidate = getattr(candidate, "transport", None)
        if candidate is None:
            break
    return None


def is_shaking_hands(transport: ITransport) -> bool:
    """
    Return whether a TLS engine among the wrappers has begun its handshake and not finished it.

    The handshake of a server has begun once it has read the client's first message.
    """
    candidate: object = transport
    for _ in range(_MAX_WRAPPERS):
        for layer in (candidate, _started_engine(candidate)):
            if isinstance(layer, TLSMemoryBIOProtocol):
                state = layer.getHandle().get_state_string()
                return not layer._handshakeDone and state != _NOT_BEGUN
        candidate = getattr(candidate, "transport", None)
        if candidate is None:
            break
    return False


def plain_socket(transport: ITransport) -> socket.socket | None:
    """
    Return the socket on which bytes may be sent without the transport, or None.

    That is allowed if the transport is the descriptor itself, its ``getHandle`` is the method of
    its class (an earlier ``startTLS`` replaces it), and the handle is a non-blocking stream socket
    with the transport's file descriptor. Each send has to check whether TLS was started meanwhile.
    """
    if not isinstance(transport, FileDescriptor):
        return None
    get_handle = getattr(transport, "getHandle", None)
    if get_handle is None or getattr(get_handle, "__self__", None) is not transport:
        return None
    handle = get_handle()
    if (
        isinstance(handle, socket.socket)
        # The number: the property of the class makes an enum member of it, in four calls.
        and super(socket.socket, handle).type == socket.SOCK_STREAM
        and handle.gettimeout() == 0
        and handle.fileno() == transport.fileno()
    ):
        return handle
    return None


def queued_bytes(descriptor: FileDescriptor) -> int:
    """Return the number of bytes in the queue of a descriptor."""
    # Twisted adds up the same two numbers to check for a full buffer.
    waiting: int = descriptor._tempDataLen
    return len(descriptor.dataBuffer) - descriptor.offset + waiting


def hung_up(descriptor: FileDescriptor) -> bool:
    """Return whether both directions of the connection have ended, or it has failed."""
    waiting = select.poll()
    waiting.register(descriptor.fileno(), 0)  # Both are always reported.
    return bool(waiting.poll(0))


def is_writable(descriptor: FileDescriptor) -> bool:
    """Return whether the kernel has room for bytes, and the connection has no error."""
    waiting = select.poll()
    number = descriptor.fileno()
    waiting.register(number, select.POLLOUT)
    return waiting.poll(0) == [(number, select.POLLOUT)]


def discard_input(descriptor: FileDescriptor) -> None:
    """
    Read the bytes that wait in the kernel, and drop them.

    Closing a socket with unread bytes resets the connection, and the peer may then lose bytes that
    it has not read yet. At most 1 MiB is read, so a peer that sends without end is still reset.
    """
    connection = getattr(descriptor, "socket", None)
    if not isinstance(connection, socket.socket):
        return
    with contextlib.suppress(OSError):  # No more bytes, or the connection is over.
        for _ in range(_MAX_DISCARDED // _DISCARDED):
            if not connection.recv(_DISCARDED):
                return


def unread_input(descriptor: FileDescriptor) -> bool:
    """Return whether bytes, the peer's FIN or an error wait in the kernel for the reactor."""
    waiting = select.poll()
    # With poll(), because peeking would consume a pending error.
    waiting.register(descriptor.fileno(), select.POLLIN)
    return bool(waiting.poll(0))
