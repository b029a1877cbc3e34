"""
The contract of streams for WebSockets of byte streams: both roles, TLS, compression, and memory.

Half-close and ``cancel_io`` are left out, with the reasons in `tests.loopback.contract`.
"""

from __future__ import annotations

import random
from typing import Any, ClassVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IListeningPort,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from zope.interface import implementer

from tests.loopback.contract import ByteStreamContract, Stream, failure_of
from tests.loopback.memory import synchronous_pair
from tests.loopback.reactors import VARIANT_REACTORS
from tests.loopback.test_tls import root, with_key
from tests.tls.peer import SERVER
from twsock import ClosedError, StreamWebSocket, WebSocketListener
from twsock.tls import ServerOptions
from twsock.websocket import DeflateSettings

#: One claim writes 16 MiB at once, which is one message.
LARGEST = 16 * 1024 * 1024


@implementer(IStreamServerEndpoint, IStreamClientEndpoint, IListeningPort)
class MemoryEndpoint:
    """An endpoint in memory, and its port, whose ends call each other before they return."""

    factory: Any

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def listen(self, factory: Any) -> Deferred[Any]:
        self.factory = factory
        return succeed(self)

    def connect(self, factory: Any) -> Deferred[Any]:
        near, far = synchronous_pair(self._reactor)
        near.protocol, far.protocol = factory.buildProtocol(None), self.factory.buildProtocol(None)
        far.protocol.makeConnection(far)
        near.protocol.makeConnection(near)
        return succeed(near.protocol)

    def startListening(self) -> None:
        """Do nothing: an endpoint returns ports that listen."""

    def stopListening(self) -> Deferred[None]:
        return succeed(None)

    def getHost(self) -> Any:
        return None


class WebSocketContract(ByteStreamContract):
    """A client over TCP, and its server."""

    #: Options of the listener; ``compression`` is the client's, too.
    options: ClassVar[dict[str, Any]] = {}
    is_swapped = False

    async def make_pair(self, reactor: Any) -> tuple[Stream, Stream]:
        options = {"max_message_size": LARGEST, **self.options}
        near = StreamWebSocket(reactor)
        near.control.compression = options.get("compression")
        near.control.trust_roots = [root()]
        async with WebSocketListener(reactor, is_stream=True, **options) as listener:
            await self.connect(reactor, near, listener)
            far = await listener.accept()
        return (far, near) if self.is_swapped else (near, far)

    async def connect(self, _reactor: Any, near: StreamWebSocket, listener: Any) -> None:
        """Let the client connect to the listener."""
        await listener.bind_endpoint("127.0.0.1", "")
        scheme = "wss" if "tls" in self.options else "ws"
        await near.connect(f"{scheme}://127.0.0.1:{listener.information.local_port}/")

    def test_a_closed_output_is_unknown_to_the_peer(self) -> None:
        """There is no half-close: both inputs stay open, and the peer can answer."""

        async def conversation(near: Stream, far: Stream) -> None:
            near.output_stream.write(b"question")
            await near.output_stream.close()
            self.assertEqual(await far.input_stream.receive_exactly(8), b"question")
            self.assertIsInstance(await failure_of(near.output_stream.write(b"x")), ClosedError)
            reading = far.input_stream.receive_some()
            await far.output_stream.write(b"answer")
            self.assertEqual(await near.input_stream.receive_exactly(6), b"answer")
            self.assertFalse(reading.called)
            near.close()
            self.assertEqual(await reading, b"")

        self.converse(conversation)


class ServerContract(WebSocketContract):
    """The same claims about a server, and its client."""

    _reactors = VARIANT_REACTORS

    is_swapped = True


class SecureContract(WebSocketContract):
    """A client over TLS 1.3, and its server."""

    _reactors = VARIANT_REACTORS

    options: ClassVar[dict[str, Any]] = {"tls": ServerOptions([with_key(SERVER)])}


class SecureServerContract(SecureContract):
    """The same claims about a server over TLS, and its client."""

    is_swapped = True


class CompressedContract(WebSocketContract):
    """Compressed messages, each of which refers to the ones before."""

    # Compression takes time, and does the same on all of them.
    _reactors = VARIANT_REACTORS[:1]

    options: ClassVar[dict[str, Any]] = {
        "compression": DeflateSettings(context_takeover=True, min_size=0)
    }

    def make_bytes(self, size: int) -> bytes:
        return random.Random(size).randbytes(size)  # Zeros would take no room.


class SynchronousWebSocketContract(WebSocketContract):
    """Transports in memory that call the other end before they return."""

    _reactors = VARIANT_REACTORS

    async def connect(self, reactor: Any, near: StreamWebSocket, listener: Any) -> None:
        endpoint = MemoryEndpoint(reactor)
        await listener.listen(endpoint)
        await near.connect_endpoint(endpoint, "ws://localhost/")


class SynchronousServerContract(SynchronousWebSocketContract):
    """The same claims about a server on such transports."""

    is_swapped = True


for case in (
    WebSocketContract,
    ServerContract,
    SecureContract,
    SecureServerContract,
    CompressedContract,
    SynchronousWebSocketContract,
    SynchronousServerContract,
):
    globals().update(case.makeTestCaseClasses())
