"""The contract of streams under TLS: both versions, from the first byte and upgraded."""

from __future__ import annotations

from typing import Any, ClassVar

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import (
    SSL4ServerEndpoint,
    TCP4ClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.ssl import Certificate as TwistedCertificate
from twisted.internet.ssl import optionsForClientTLS

from tests.loopback.contract import StreamContract
from tests.loopback.memory import synchronous_pair
from tests.loopback.reactors import VARIANT_REACTORS
from tests.loopback.test_contract import connect_tcp
from tests.loopback.test_tls import Level, root, with_key
from tests.tls.peer import AUTHORITY, SERVER, twisted_options
from twsock import StreamSocket, StreamSocketListener
from twsock.tls.server import ServerOptions


class TlsContract(StreamContract):
    """TLS from the first byte: a listener with a certificate, a client with a level."""

    level: ClassVar[Level]

    async def make_pair(self, reactor: Any) -> tuple[StreamSocket, StreamSocket]:
        options = ServerOptions([with_key(SERVER)], protection_level=self.level)
        async with StreamSocketListener(reactor, tls=options) as listener:
            await listener.bind_endpoint("127.0.0.1", "")
            near = StreamSocket(reactor)
            near.control.trust_roots = [root()]
            port = listener.information.local_port
            await near.connect("127.0.0.1", port, self.level)
            return near, await listener.accept()


class Tls12Contract(TlsContract):
    """TLS 1.2."""

    _reactors = VARIANT_REACTORS

    level = Level.TLS12


class Tls13Contract(TlsContract):
    """TLS 1.3."""

    level = Level.TLS13


async def upgrade(near: StreamSocket, far: StreamSocket, level: Level) -> None:
    """Put TLS on a connection; the far end is the server."""
    near.control.trust_roots = [root()]
    upgrades: list[Deferred[None]] = [
        far.upgrade_to_ssl(level, certificate=with_key(SERVER)),
        near.upgrade_to_ssl(level, "localhost"),
    ]
    await gatherResults(upgrades)


class UpgradedContract(StreamContract):
    """TLS in the middle of a connection that has carried plaintext."""

    level: ClassVar[Level]

    async def make_pair(self, reactor: Any) -> tuple[StreamSocket, StreamSocket]:
        near, far = await connect_tcp(reactor)
        await near.output_stream.write(b"plain")
        await far.input_stream.receive_exactly(5)
        await upgrade(near, far, self.level)
        return near, far


class Upgraded12Contract(UpgradedContract):
    """Upgraded to TLS 1.2."""

    _reactors = VARIANT_REACTORS

    level = Level.TLS12


class Upgraded13Contract(UpgradedContract):
    """Upgraded to TLS 1.3."""

    _reactors = VARIANT_REACTORS

    level = Level.TLS13


class SynchronousTlsContract(StreamContract):
    """TLS 1.3 on transports in memory that call the other end before they return."""

    _reactors = VARIANT_REACTORS

    level: ClassVar[Level] = Level.TLS13

    async def make_pair(self, reactor: Any) -> tuple[StreamSocket, StreamSocket]:
        near, far = (StreamSocket.from_transport(reactor, one) for one in synchronous_pair(reactor))
        await upgrade(near, far, self.level)
        return near, far


class Synchronous12Contract(SynchronousTlsContract):
    """TLS 1.2 on such transports."""

    level = Level.TLS12


class EndpointContract(StreamContract):
    """TLS of Twisted's own endpoints at both ends."""

    _reactors = VARIANT_REACTORS

    async def make_pair(self, reactor: Any) -> tuple[StreamSocket, StreamSocket]:
        key_and_chain = SERVER.private_key_and_cert_chain_pem.bytes()
        options = twisted_options(key_and_chain)
        async with StreamSocketListener(reactor) as listener:
            await listener.listen(SSL4ServerEndpoint(reactor, 0, options, interface="127.0.0.1"))
            near = StreamSocket(reactor)
            port = int(listener.information.local_port)
            trusted = TwistedCertificate.loadPEM(AUTHORITY.cert_pem.bytes())
            plain = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
            client = wrapClientTLS(optionsForClientTLS("localhost", trusted), plain)
            await near.connect_endpoint(client)
            far = await listener.accept()
        # Such an endpoint reports a connection when its handshake has only begun.
        for one, other in ((near, far), (far, near)):
            await one.output_stream.write(b"x")
            await other.input_stream.receive_exactly(1)
        return near, far


for case in (
    Tls12Contract,
    Tls13Contract,
    Upgraded12Contract,
    Upgraded13Contract,
    SynchronousTlsContract,
    Synchronous12Contract,
    EndpointContract,
):
    globals().update(case.makeTestCaseClasses())
