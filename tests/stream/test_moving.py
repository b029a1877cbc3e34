"""All connections of a server move, or continue; two processes are in tests/loopback."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.defer import Deferred, succeed

from tests.datagram.fake_ports import log_lines
from tests.stream.test_resuming import Counting, Inheriting, MovingCase, reset
from twsock.handover.channel import HandoverError
from twsock.handover.detached import DetachedConnection
from twsock.stream.moving import MOST_AT_ONCE, GivenConnections, give_connections
from twsock.wire import encode_frame


class Offers:
    """Takes offers, and answers when the test says so."""

    def __init__(self) -> None:
        self.open: list[tuple[Deferred[None], DetachedConnection, bytes]] = []
        self.cancelled = 0
        self.most = 0

    def __call__(self, detached: DetachedConnection, record: bytes, /) -> Deferred[None]:
        answer: Deferred[None] = Deferred(self._cancel)
        self.open.append((answer, detached, record))
        self.most = max(self.most, len(self.open))
        return answer

    def _cancel(self, answer: Deferred[None]) -> None:
        self.cancelled += 1
        answer.errback(HandoverError("cancelled"))

    def take(self) -> tuple[DetachedConnection, bytes]:
        """Accept the oldest offer."""
        answer, detached, record = self.open.pop(0)
        answer.callback(None)
        return detached, record

    def refuse(self, error: Exception) -> None:
        """Refuse the oldest offer."""
        self.open.pop(0)[0].errback(error)


class GivingTests(MovingCase):
    """`give_connections`."""

    def setUp(self) -> None:
        super().setUp()
        self.offers = Offers()

    def connect_many(self, count: int) -> list[socket.socket]:
        """Return the peers of new connections."""
        return [self.connect()[1] for _ in range(count)]

    def assert_served(self, peer: socket.socket, number: int = 1) -> None:
        """A connection of the server answers."""
        peer.send(encode_frame(b"a"))
        for reader in list(self.reactor.readers):
            reader.doRead()
        self.assertEqual(peer.recv(100), encode_frame(b"%d:a" % number))

    def test_all_connections_are_given(self) -> None:
        """At most 16 at once; each acknowledgement begins the next one."""
        peers = self.connect_many(MOST_AT_ONCE + 10)
        done = give_connections(self.factory, self.offers)
        other = self.serve(Counting)
        while self.offers.open:
            self.assertNoResult(done)
            other.resume(*self.offers.take())
        self.assertEqual(self.successResultOf(done), GivenConnections(len(peers), 0))
        self.assertEqual(self.offers.most, 16)
        self.assertEqual(self.factory.counters.given, len(peers))
        self.assertEqual((len(self.factory.group), len(other.group)), (0, len(peers)))

    def test_no_connections_are_given_at_once(self) -> None:
        """There is nothing to wait for."""
        done = give_connections(self.factory, self.offers)
        self.assertEqual(self.successResultOf(done), GivenConnections(0, 0))

    def test_a_refused_connection_continues_here(self) -> None:
        """With its state; the others are offered as well, and one line is logged."""
        peers = self.connect_many(3)
        self.assert_served(peers[0])
        done = give_connections(self.factory, self.offers)
        with log_lines() as lines:
            for _ in range(3):
                self.offers.refuse(HandoverError("full"))
            self.reactor.advance(0)
            self.assertEqual(self.successResultOf(done), GivenConnections(0, 3))
        (line,) = lines
        self.assertIn("3 connections were not handed over and continue here: full", line)
        self.assert_served(peers[0], 2)
        counters = self.factory.counters
        self.assertEqual((counters.accepted, counters.given, counters.taken), (3, 0, 0))
        self.assertEqual(counters.ended, 0)

    def test_refusals_in_a_row_end_the_offers(self) -> None:
        """The other process serves another format, for example: it would refuse all."""
        self.connect_many(3 * MOST_AT_ONCE)
        done = give_connections(self.factory, self.offers)
        self.offers.refuse(HandoverError("no"))
        self.offers.take()[0].close()
        while self.offers.open:
            self.offers.refuse(HandoverError("no"))
        result = self.successResultOf(done)
        self.assertEqual(result, GivenConnections(1, 2 * MOST_AT_ONCE))
        self.assertEqual(len(self.factory.group), 3 * MOST_AT_ONCE - 1)

    def test_an_error_of_the_way_itself_ends_the_offers(self) -> None:
        """The other process is gone: no further connection is interrupted."""
        self.connect_many(MOST_AT_ONCE + 1)
        done = give_connections(self.factory, self.offers)
        for _ in range(MOST_AT_ONCE):
            self.offers.refuse(ConnectionResetError("gone"))
        self.reactor.advance(0)
        self.assertEqual(self.successResultOf(done), GivenConnections(0, MOST_AT_ONCE))
        self.assertEqual(len(self.factory.group), MOST_AT_ONCE + 1)

    def test_offers_that_end_at_once_leave_the_turn(self) -> None:
        """Otherwise ten thousand connections would be one turn of the reactor."""
        self.connect_many(2 * MOST_AT_ONCE + 1)
        calls = []

        def offer(detached: DetachedConnection, record: bytes) -> Deferred[None]:
            calls.append(record)
            detached.close()
            return succeed(None)

        done = give_connections(self.factory, offer)
        self.assertEqual(len(calls), MOST_AT_ONCE)
        self.reactor.advance(0)
        self.assertEqual(len(calls), 2 * MOST_AT_ONCE + 1)
        self.successResultOf(done)

    def test_connections_that_stay_leave_the_turn(self) -> None:
        """A server of ten thousand handlers that run serves others meanwhile."""
        factory = self.serve(Inheriting)
        for _ in range(MOST_AT_ONCE * 64 + 1):
            factory.group.join(Inheriting())
        done = give_connections(factory, self.offers)
        self.assertNoResult(done)
        self.reactor.advance(0)
        self.assertEqual(self.successResultOf(done), GivenConnections(0, 0))
        for member in factory.group.members:
            factory.group.leave(member)

    def test_few_bytes_are_under_way_at_once(self) -> None:
        """Each process has copies of them; a connection with more than the limit moves alone."""
        for megabytes in (9, 7, 6, 20, 1):
            here, peer = socket.socketpair()
            self.addCleanup(peer.close)
            protocol: Any = self.factory.resume(DetachedConnection(here))
            protocol.send_frame(bytes(megabytes << 20))
        done = give_connections(self.factory, self.offers)
        counts = []
        while self.offers.open:
            counts.append(len(self.offers.open))
            self.offers.take()[0].close()
        self.assertEqual(counts, [2, 3, 2, 1, 1])
        self.assertEqual(self.successResultOf(done), GivenConnections(5, 0))

    def test_cancelling_ends_the_wait_for_bytes(self) -> None:
        """The connections that wait have not left."""
        for _ in range(3):
            here, peer = socket.socketpair()
            self.addCleanup(peer.close)
            protocol: Any = self.factory.resume(DetachedConnection(here))
            protocol.send_frame(bytes(12 << 20))
        done = give_connections(self.factory, self.offers)
        self.assertEqual(len(self.offers.open), 1)
        done.cancel()
        self.assertEqual(self.successResultOf(done), GivenConnections(0, 1))
        self.assertEqual(len(self.factory.group), 3)

    def test_an_offer_that_raises_loses_no_connection(self) -> None:
        """It is the same as one that fails."""
        (peer,) = self.connect_many(1)

        def offer(detached: DetachedConnection, record: bytes) -> Deferred[None]:
            raise OSError("no descriptor is free")

        done = give_connections(self.factory, offer)
        self.reactor.advance(0)
        self.assertEqual(self.successResultOf(done), GivenConnections(0, 1))
        self.assert_served(peer)

    def test_cancelling_withdraws_the_offers(self) -> None:
        """And begins no others; every connection is served here."""
        peers = self.connect_many(MOST_AT_ONCE + 2)
        done = give_connections(self.factory, self.offers)
        self.offers.take()[0].close()
        done.cancel()
        self.reactor.advance(0)
        self.assertEqual(self.successResultOf(done), GivenConnections(1, MOST_AT_ONCE))
        self.assertEqual(self.offers.cancelled, MOST_AT_ONCE)
        self.assertEqual(len(self.factory.group), MOST_AT_ONCE + 1)
        self.assert_served(peers[-1])

    def test_an_error_of_export_state_stays_here(self) -> None:
        """It is logged, and the connection is served as before."""
        (peer,) = self.connect_many(1)
        (protocol,) = self.factory.group.members
        broken: Any = protocol
        broken.export_state = lambda: 1 // 0
        done = give_connections(self.factory, self.offers)
        self.assertEqual(self.successResultOf(done), GivenConnections(0, 0))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assert_served(peer)

    def test_a_state_that_is_too_large_stays_with_one_line(self) -> None:
        """The connection drains later."""
        self.connect_many(1)
        (protocol,) = self.factory.group.members
        large: Any = protocol
        large.export_state = lambda: bytes(1 << 17)
        with log_lines() as lines:
            self.successResultOf(give_connections(self.factory, self.offers))
        (line,) = lines
        self.assertIn("is not handed over: its state has 131072 bytes, limit is 65536", line)

    def test_a_connection_that_ends_while_it_is_offered_is_dropped(self) -> None:
        """Its peer has reset it; nothing is left open."""
        (peer,) = self.connect_many(1)
        done = give_connections(self.factory, self.offers)
        _, detached, _ = self.offers.open[0]
        reset(peer)
        with log_lines() as lines:
            self.offers.refuse(HandoverError("no"))
            self.reactor.advance(0)
            self.successResultOf(done)
        self.assertIn("ended while it was handed over", lines[0])
        self.assertEqual(detached.socket.fileno(), -1)
