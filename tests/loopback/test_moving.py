"""The connections of a server move through channels, on every reactor."""

from __future__ import annotations

import socket
import sys
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from tests.lifetimes import Lifetimes
from tests.loopback.contract import OnEveryReactor, failure_of
from tests.loopback.restarts import Service
from twsock.handover import DetachedConnection
from twsock.handover.channel import HandoverError, give
from twsock.protocols import FrameEcho, FrameEchoFactory, LineEchoFactory, StreamServerFactory
from twsock.stream.detaching import name_of
from twsock.stream.moving import GivenConnections, give_connections, take_connection
from twsock.stream.moving_record import MovingRecord, encode_record
from twsock.wire import encode_frame
from twsock.wire.proxy_header import ProxyHeader

#: More than are under way at once.
CONNECTIONS = 70


class Offering:
    """Offers each connection over a channel of its own, whose other end a server takes from."""

    def __init__(self, reactor: Any, taker: StreamServerFactory) -> None:
        self.reactor = reactor
        self.taker = taker
        self.taken: list[Deferred[Any]] = []

    def __call__(self, detached: DetachedConnection, record: bytes, /) -> Deferred[None]:
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.taken.append(take_connection(self.taker, there))
        return give(self.reactor, here, detached, application=record)


class MovingTests(OnEveryReactor):
    """`give_connections` and `take_connection`."""

    def connect(self, factory: StreamServerFactory) -> socket.socket:
        """Return the peer of a new connection."""
        here, peer = socket.socketpair()
        peer.settimeout(10)
        factory.resume(DetachedConnection(here))
        return peer

    async def end(
        self, reactor: Any, factory: StreamServerFactory, peers: list[socket.socket]
    ) -> None:
        """Each peer gets its answer, and then ends its connection."""
        while factory.counters.messages < len(peers):
            await deferLater(reactor, 0)
        for peer in peers:
            self.assertEqual(peer.recv(100), encode_frame(b"question"))
            peer.close()
        while len(factory.group):
            await deferLater(reactor, 0)

    def test_all_connections_move_with_their_bytes(self) -> None:
        """Each one is answered by the server that took it."""

        async def work(reactor: Any) -> None:
            old, new = FrameEchoFactory(reactor), FrameEchoFactory(reactor)
            peers = [self.connect(old) for _ in range(CONNECTIONS)]
            offering = Offering(reactor, new)
            for peer in peers:
                peer.send(encode_frame(b"question")[:5])
            given = await give_connections(old, offering)
            self.assertEqual(given, GivenConnections(CONNECTIONS, 0))
            await gatherResults(offering.taken)
            self.assertEqual((len(old.group), len(new.group)), (0, CONNECTIONS))
            self.assertEqual(new.counters.taken, CONNECTIONS)
            for peer in peers:
                peer.send(encode_frame(b"question")[5:])
            await self.end(reactor, new, peers)

        self.conduct(work)

    def test_nothing_of_a_connection_stays_with_the_giver(self) -> None:
        """Nor with the taker, after the end; a proxied connection has one object more."""

        async def move(reactor: Any, old: Any, new: Any) -> None:
            for header in (None, ProxyHeader(("192.0.2.1", 1), ("192.0.2.2", 2))):
                here, peer = socket.socketpair()
                with peer:
                    record = encode_record(MovingRecord(name_of(FrameEcho), header=header))
                    old.resume(DetachedConnection(here), record)
                    offering = Offering(reactor, new)
                    await give_connections(old, offering)
                    await offering.taken[0]
                while len(new.group):
                    await deferLater(reactor, 0)

        async def work(reactor: Any) -> None:
            old, new = FrameEchoFactory(reactor), FrameEchoFactory(reactor)
            await move(reactor, old, new)  # Objects that exist once are made now.
            lifetimes = Lifetimes()
            try:
                await lifetimes.settle(lambda: move(reactor, old, new), 1 << 20)
                self.assertEqual(lifetimes.retained_objects(), {})
            finally:
                lifetimes.stop()

        self.conduct(work)

    def test_a_server_of_another_format_takes_nothing(self) -> None:
        """The connections continue where they were."""

        async def work(reactor: Any) -> None:
            old, new = FrameEchoFactory(reactor), LineEchoFactory(reactor)
            peer = self.connect(old)
            offering = Offering(reactor, new)
            given = await give_connections(old, offering)
            error = await failure_of(offering.taken[0])
            self.assertIsInstance(error, HandoverError)
            self.assertIn("FrameEcho, but this server has twsock.stream.echo.LineEcho", str(error))
            self.assertEqual(given, GivenConnections(0, 1))
            peer.send(encode_frame(b"question"))
            await self.end(reactor, old, [peer])

        self.conduct(work)


class RestartTests(SynchronousTestCase):
    """The connections of a service that is restarted; test_restarts.py has the service itself."""

    if sys.platform != "linux":
        skip = "sockets are handed over on Linux only"

    def test_a_client_behind_a_proxy_stays_itself(self) -> None:
        """Its half frame is answered, and one line of the log has all of the connection."""
        endpoint = "haproxy:tcp:0:interface=127.0.0.1"
        with Service("twsock-stream", "-e", endpoint, "--log-connections") as service:
            old = service.start()
            (port,) = old.wait_for_ports()
            with socket.create_connection(("127.0.0.1", port), 10) as proxy:
                proxy.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 5 6\r\n" + encode_frame(b"one"))
                self.assertEqual(proxy.recv(100), encode_frame(b"one"))
                proxy.sendall(encode_frame(b"two")[:5])
                new = service.restart(old)
                proxy.sendall(encode_frame(b"two")[5:])
                self.assertEqual(proxy.recv(100), encode_frame(b"two"))
            line = new.wait_for(r"(192\.0\.2\.1:5 ended after .*)")
            self.assertIn("plaintext, 2 messages, 14 bytes in, 14 bytes out, in order", line)
            self.assertNotIn(" ended after ", old.log)


globals().update(MovingTests.makeTestCaseClasses())
