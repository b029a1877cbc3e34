"""
The two ends of a connection whose end is tested: a socket or protocol of twsock, and a `RawPeer`.

Each is connected over TCP, TLS 1.2, TLS 1.3 or an upgrade, as a `Security` says.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, wrapClientTLS
from twisted.internet.interfaces import IProtocol, IStreamClientEndpoint
from twisted.internet.ssl import optionsForClientTLS, trustRootFromCertificates
from twisted.internet.task import deferLater
from typing_extensions import override
from zope.interface import implementer

from tests.loopback.contract import turns
from tests.loopback.hostile import ALLOWED, IMPLICIT, ROOT
from tests.loopback.raw_peer import RawPeer, Security
from tests.tls.peer import ClientPeer, ServerPeer, client_context
from twsock import SocketProtectionLevel, StreamSocket
from twsock.errors import SocketError
from twsock.protocols import FrameProtocol, StreamServerFactory
from twsock.wire import encode_frame

__all__ = [
    "CHUNK",
    "HOLD",
    "MUCH",
    "NEVER",
    "UNREAD",
    "Recorder",
    "connect_endpoint",
    "connect_kept",
    "connect_plain",
    "connect_protocol",
    "connect_socket",
    "crowd",
    "fill",
    "hold",
    "serve",
]

#: A deadline that no test reaches, in seconds.
NEVER: Final = 3600.0

#: More bytes than the kernel takes for a peer that does not read.
MUCH: Final = 8 * 1024 * 1024

#: Bytes that the peer sends and the application does not read; more than an input stream holds.
UNREAD: Final = bytes(400_000)

#: A piece, and how many of them are sent after the socket has stopped being writable. The third of
#: the buffer that is free then has room for twice as many, and the peer's socket for two.
CHUNK: Final = bytes(4_000)
_BEYOND: Final = 5

#: The receive buffer of a narrow peer, in bytes; the kernel doubles it.
_NARROW: Final = 4096

#: A message whose handler runs until the test ends it.
HOLD: Final = b"hold"

_LEVELS = {
    Security.PLAIN: SocketProtectionLevel.PLAIN_SOCKET,
    Security.TLS12: SocketProtectionLevel.TLS12,
    Security.TLS13: SocketProtectionLevel.TLS13,
}
_VERSIONS = {Security.TLS12: ssl.TLSVersion.TLSv1_2}
_REQUEST, _GO_AHEAD = encode_frame(b"STARTTLS"), encode_frame(b"OK")


# Sockets.


@contextmanager
def _listening(is_narrow: bool = False) -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        if is_narrow:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _NARROW)
        listener.setblocking(False)
        yield listener


async def _accepted(reactor: Any, listener: socket.socket) -> socket.socket:
    while True:
        try:
            return listener.accept()[0]
        except BlockingIOError:
            await deferLater(reactor, 0.001)


async def connect_socket(
    reactor: Any, security: Security, close_timeout: float = NEVER
) -> tuple[StreamSocket, RawPeer]:
    """
    Connect a socket to a raw peer.

    :returns: both ends, when each has received one byte.
    """
    if security is Security.UPGRADED:
        near, peer = await connect_plain(reactor, security, close_timeout)
        upgrading = near.upgrade_to_ssl(SocketProtectionLevel.TLS13, "localhost")
        await peer.shake_hands(ServerPeer())
        await upgrading
    else:
        near = _socket(reactor, close_timeout)
        with _listening() as listener:
            port = listener.getsockname()[1]
            connecting = near.connect("127.0.0.1", port, _LEVELS[security])
            peer = RawPeer(reactor, await _accepted(reactor, listener), security)
        if security.is_encrypted:
            await peer.shake_hands(ServerPeer())
        await connecting
    await _settle(near, peer)
    return near, peer


async def connect_plain(
    reactor: Any, security: Security, close_timeout: float = NEVER
) -> tuple[StreamSocket, RawPeer]:
    """Connect a socket to a peer that has granted TLS; no handshake has begun."""
    near = _socket(reactor, close_timeout)
    with _listening() as listener:
        connecting = near.connect("127.0.0.1", listener.getsockname()[1])
        peer = RawPeer(reactor, await _accepted(reactor, listener), security)
    await connecting
    near.output_stream.write(_REQUEST)
    await peer.receive(len(_REQUEST))
    peer.send(_GO_AHEAD)
    await near.input_stream.receive_exactly(len(_GO_AHEAD))
    return near, peer


async def connect_kept(
    reactor: Any, security: Security, close_timeout: float = NEVER
) -> tuple[StreamSocket, RawPeer, Any]:
    """Connect a socket to a peer with a small buffer; return Twisted's own transport, too."""
    near = _socket(reactor, close_timeout)
    with _listening(is_narrow=True) as listener:
        endpoint = _Keeping(reactor, listener.getsockname()[1])
        await near.connect_endpoint(endpoint)
        peer = RawPeer(reactor, await _accepted(reactor, listener), security)
    if security.is_encrypted:
        level = _LEVELS.get(security, SocketProtectionLevel.TLS13)
        upgrading = near.upgrade_to_ssl(level, "localhost")
        await peer.shake_hands(ServerPeer())
        await upgrading
    await _settle(near, peer)
    await turns(reactor, 1)  # Within the call of a read, writes would be collected.
    return near, peer, endpoint.transport


def _socket(reactor: Any, close_timeout: float) -> StreamSocket:
    near = StreamSocket(reactor, close_timeout=close_timeout)
    near.control.trust_roots = [ROOT]
    return near


async def _settle(near: StreamSocket, peer: RawPeer) -> None:
    """Exchange two bytes, so that no message of a handshake is under way."""
    await near.output_stream.write(b"?")
    await peer.receive(1)
    peer.send(b"!")
    await near.input_stream.receive_exactly(1)


@implementer(IStreamClientEndpoint)
class _Keeping:
    """An endpoint of TCP that stores the transport, as other code of an application may."""

    transport: Any

    def __init__(self, reactor: Any, port: int) -> None:
        self._plain = TCP4ClientEndpoint(reactor, "127.0.0.1", port)

    def connect(self, factory: Any) -> Deferred[IProtocol]:
        connecting: Deferred[Any] = self._plain.connect(factory)
        return connecting.addCallback(self._keep)

    def _keep(self, protocol: Any) -> Any:
        self.transport = protocol.transport
        return protocol


async def connect_endpoint(
    reactor: Any, security: Security, close_timeout: float = NEVER
) -> tuple[StreamSocket, RawPeer]:
    """Connect a socket through a TLS endpoint of Twisted; the peer answers no handshake."""
    near = _socket(reactor, close_timeout)
    with _listening() as listener:
        plain = TCP4ClientEndpoint(reactor, "127.0.0.1", listener.getsockname()[1])
        options = optionsForClientTLS("localhost", trustRootFromCertificates([]))
        await near.connect_endpoint(wrapClientTLS(options, plain))
        return near, RawPeer(reactor, await _accepted(reactor, listener), security)


# Protocols.


class Recorder(FrameProtocol):
    """
    Records its messages and its end.

    :ivar own: the transport of Twisted below everything.
    :ivar received: the messages.
    :ivar held: what the handler of a `HOLD` waits for.
    """

    reached: Deferred[Recorder]
    ended: Deferred[SocketError | None]
    held: Deferred[None]

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.ended = Deferred()

    @override
    def makeConnection(self, transport: Any) -> None:
        self.own = transport
        super().makeConnection(transport)

    def connection_made(self) -> None:
        if self.is_secure or self.upgrade is None:
            self.reached.callback(self)

    def connection_secured(self) -> None:
        self.reached.callback(self)

    def frame_received(self, payload: bytes) -> Deferred[None] | None:
        self.received.append(payload)
        if payload != HOLD:
            return None
        self.held = Deferred()
        return self.held

    def connection_lost(self, error: SocketError | None) -> None:
        self.ended.callback(error)


async def hold(protocol: Recorder, peer: RawPeer) -> None:
    """Start a handler that does not end, so that the protocol stays open at the peer's end."""
    peer.send(encode_frame(HOLD))
    while not protocol.received:
        await deferLater(peer.reactor, 0.001)


# The buffers of the kernel.


async def fill(reactor: Any, handle: socket.socket) -> None:
    """
    Leave no room in the kernel, below TLS and the queue of Twisted.

    The bytes are no record of TLS, so the peer must not decrypt them. The socket becomes writable
    only after the peer has read much more than a `narrow` socket holds.
    """
    _fix_size(handle)
    while not _has_no_room(handle):
        await deferLater(reactor, 0.001)


def _has_no_room(handle: socket.socket) -> bool:
    """Send until the kernel takes no byte; return whether no acknowledgement will make room."""
    is_settled = not _unacknowledged(handle)
    for size in (1 << 16, 256, 1):
        try:
            while True:
                handle.send(bytes(size))
                is_settled = False
        except BlockingIOError:
            pass
    return is_settled


def _unacknowledged(handle: socket.socket) -> int:
    """Return how many segments are on their way to the peer; 0 if it is not known."""
    option = getattr(socket, "TCP_INFO", None)
    if option is None:
        return 0
    count: int = struct.unpack_from("=I", handle.getsockopt(socket.IPPROTO_TCP, option, 28), 24)[0]
    return count


def crowd(handle: socket.socket, write: Callable[[bytes], object]) -> int:
    """
    Write until the socket of a `narrow` peer is not writable, although the kernel takes each byte.

    A socket is writable while a third of its buffer is free, so there is room for some more bytes.

    :param write: sends bytes, unencrypted or encrypted.
    :returns: how often it was called with `CHUNK`.
    """
    _fix_size(handle)
    count = beyond = 0
    while beyond < _BEYOND:
        write(CHUNK)
        count += 1
        beyond += not select.select([], [handle], [], 0)[1]
    return count


def _fix_size(handle: socket.socket) -> None:
    """Fix the size of a buffer, which the kernel would enlarge later."""
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)


async def serve(
    reactor: Any, security: Security, close_timeout: float = NEVER, is_narrow: bool = False
) -> tuple[StreamServerFactory, RawPeer, Deferred[Recorder]]:
    """
    Serve one raw peer, which has sent nothing.

    :returns: also what fires with the protocol, once its connection is secure.
    """
    reached: Deferred[Recorder] = Deferred()
    made = type("Made", (Recorder,), {"reached": reached})
    factory = StreamServerFactory(
        reactor,
        made,
        upgrade={Security.PLAIN: None, Security.UPGRADED: ALLOWED}.get(security, IMPLICIT),
        idle_timeout=None,
        close_timeout=close_timeout,
    )
    port: Any = await factory.listen(TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"))
    connection = socket.socket()
    if is_narrow:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _NARROW)
    connection.connect(("127.0.0.1", port.getHost().port))  # The kernel accepts by itself.
    peer = RawPeer(reactor, connection, security)
    while not len(factory.group):
        await deferLater(reactor, 0.001)
    await port.stopListening()
    return factory, peer, reached


async def connect_protocol(
    reactor: Any, security: Security, close_timeout: float = NEVER, is_narrow: bool = False
) -> tuple[Recorder, RawPeer]:
    """
    Serve one raw peer.

    :returns: both ends, when each has received a message.
    """
    _, peer, reached = await serve(reactor, security, close_timeout, is_narrow)
    if security is Security.UPGRADED:
        peer.send(_REQUEST)
        await peer.receive(len(_GO_AHEAD))
    if security.is_encrypted:
        version = _VERSIONS.get(security, ssl.TLSVersion.TLSv1_3)
        await peer.shake_hands(ClientPeer(client_context(version=version)))
    protocol = await reached
    protocol.send_frame(b"?")
    await peer.receive(len(encode_frame(b"?")))
    peer.send(encode_frame(b"!"))
    while not protocol.received:
        await deferLater(reactor, 0.001)
    protocol.received.clear()
    return protocol, peer
