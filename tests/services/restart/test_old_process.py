"""The old process of a restart, with a new process and services in memory."""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.services.restart.fakes import FakeOwner, FakeReactor, FakeServed, Peer
from twsock.restart.old_side import State
from twsock.restart.records import (
    ConnectionOffer,
    Farewell,
    Listed,
    Moved,
    Ready,
    Restarted,
    RestartFailed,
    RestartRefused,
    SharedSocket,
    TakeOver,
    Watching,
)
from twsock.services.listening_sockets import ListeningSockets
from twsock.services.restart.channel import PacketChannel
from twsock.services.restart.old_process import MOST_OBSERVERS, READY_TIMEOUT, OldProcess
from twsock.stream.moving import GivenConnections


def open_udp() -> socket.socket:
    """Open a UDP socket of the system's choice."""
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.bind(("127.0.0.1", 0))
    return opened


class OldProcessTests(SynchronousTestCase):
    """An `OldProcess` that serves one UDP socket."""

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.sockets = ListeningSockets()
        self.kept, _ = self.sockets.claim("udp", "127.0.0.1", 0, open_udp)
        self.addCleanup(self.kept.close)
        self.served, self.owner = FakeServed(), FakeOwner()
        served: Any = self.served
        self.old = OldProcess(self.reactor, self.sockets, served, self.owner)
        self.peers: list[Peer] = []

    def connect(self) -> tuple[Peer, PacketChannel]:
        """Connect a further process."""
        peer = Peer()
        self.addCleanup(peer.close)
        unused: Any = None
        channel = PacketChannel(self.reactor, peer.theirs, unused)
        self.addCleanup(channel.close)
        channel.start()
        return peer, channel

    def begin(self) -> Peer:
        """Let a new process ask for the sockets."""
        peer, channel = self.connect()
        self.old.begin(channel, 77)
        return peer

    def become_ready(self) -> Peer:
        """Let a new process take the sockets, and become ready."""
        peer = self.begin()
        peer.receive_all()
        peer.send(Ready())
        self.reactor.turn()
        return peer

    def test_it_gives_its_sockets_and_goes_on(self) -> None:
        """Nothing is paused until the new process is ready."""
        peer = self.begin()
        self.assertEqual(peer.receive_all(), [SharedSocket("udp:127.0.0.1:0"), Listed(1)])
        self.assertEqual((self.served.calls, self.owner.calls), ([], ["begins"]))
        self.assertTrue(self.sockets.owns_paths)

    def test_a_copy_of_a_socket_stays_non_blocking(self) -> None:
        """All copies share O_NONBLOCK: an accept of the old process would block."""
        self.begin()
        self.assertFalse(os.get_blocking(self.kept.fileno()))

    def test_it_moves_drains_and_ends(self) -> None:
        """The new process gets the numbers, and the old one owns no path."""
        peer = self.become_ready()
        self.assertEqual(self.served.calls, ["pause", "give", "drain"])
        self.assertFalse(self.sockets.owns_paths)
        self.assertEqual(peer.receive_all(), [Moved(3, 2)])
        self.served.draining.callback(None)
        self.assertEqual(self.owner.calls, ["begins", "replaced by 77", "end"])

    def test_the_new_process_gets_the_numbers_once_the_service_manager_knows_it(self) -> None:
        """Then it reports itself. The drain does not wait for that."""
        self.owner.reported = Deferred()
        peer = self.become_ready()
        self.assertEqual(self.served.calls, ["pause", "give", "drain"])
        self.assertEqual(peer.receive_all(), [])
        self.owner.reported.callback(None)
        self.assertEqual(peer.receive_all(), [Moved(3, 2)])

    def test_an_offered_connection_goes_to_the_new_process(self) -> None:
        """With the key of its service."""
        peer = self.become_ready()
        peer.receive_all()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(ours.close)
        assert self.served.offer is not None
        self.served.offer("FrameEcho", theirs)
        self.assertEqual(peer.receive(), ConnectionOffer("FrameEcho"))

    def test_a_new_process_that_ends_before_it_is_ready_changes_nothing(self) -> None:
        """The next one gets the sockets."""
        peer = self.begin()
        peer.socket.close()
        with capturedLogs() as logs:
            self.reactor.turn()
        lines = [formatEvent(event) for event in logs]
        self.assertIn("restart by process 77 failed: it has ended; this process goes on", lines)
        self.assertEqual((self.old.state, self.served.calls), (State.SERVING, []))
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertIn(Listed(1), self.begin().receive_all())

    def test_after_a_failure_the_sockets_have_their_own_options_again(self) -> None:
        """The new process may have set others, before it was ready or later."""
        renewed: list[socket.socket] = []
        kept, _ = self.sockets.claim("udp", "127.0.0.1", 0, open_udp, renewed.append)
        self.addCleanup(kept.close)
        for number, start in enumerate((self.begin, self.become_ready), 1):
            start().socket.close()
            self.reactor.turn()
            self.assertEqual(len(renewed), number)

    def test_a_new_process_that_is_not_ready_in_time_is_refused(self) -> None:
        """It hears why, since it would take the end of the channel for a death."""
        peer = self.begin()
        peer.receive_all()
        self.reactor.advance(READY_TIMEOUT)
        self.assertEqual(peer.receive_all(), [RestartRefused("it was not ready within 60 s"), None])
        self.assertIs(self.old.state, State.SERVING)

    def test_a_foreign_packet_is_refused(self) -> None:
        """Nothing has changed."""
        for wrong in (b"GET /", TakeOver(1), Listed(1), Farewell()):
            peer = self.begin()
            peer.receive_all()
            peer.send(wrong)
            self.reactor.turn()
            refusal, end = peer.receive_all()
            self.assertIsInstance(refusal, RestartRefused, f"{wrong!r}")
            self.assertIsNone(end)
            self.assertEqual((self.old.state, self.served.calls), (State.SERVING, []))

    def test_it_accepts_again_after_the_death_of_the_new_process(self) -> None:
        """Whether it moves connections or drains; the drain is called off."""
        for _ in range(2):
            peer = self.become_ready()
            draining = self.served.draining
            peer.socket.close()
            self.reactor.turn()
            self.assertEqual(self.served.calls, ["pause", "give", "drain", "resume"])
            self.assertTrue(self.sockets.owns_paths)
            self.assertTrue(draining.called)
            self.assertEqual(self.owner.calls[-1], "serves again")
            self.served.calls.clear()

    def test_connections_that_nobody_took_are_not_drained_after_a_death(self) -> None:
        """The offers fail before the end of the channel is seen."""
        self.served.given = GivenConnections(0, 2)
        peer = self.become_ready()
        self.assertEqual(self.served.calls, ["pause", "give"])
        peer.socket.close()
        self.reactor.turn()
        self.assertEqual(self.served.calls, ["pause", "give", "resume"])
        self.assertIs(self.old.state, State.SERVING)

    def test_a_death_is_reported_once(self) -> None:
        """Also if answers to offers are missing then."""
        self.served.giving = Deferred()
        peer = self.become_ready()
        peer.socket.close()
        with capturedLogs() as logs:
            self.reactor.turn()
            self.served.giving.callback(None)
        self.assertIs(self.old.state, State.SERVING)
        self.assertEqual(self.owner.calls, ["begins", "replaced by 77", "serves again"])
        self.assertEqual(
            [formatEvent(event) for event in logs],
            ["restart by process 77 failed: it has ended; this process goes on"],
        )

    def test_connections_that_a_living_process_refused_are_drained(self) -> None:
        """After a second: it would have died by then."""
        self.served.given = GivenConnections(0, 2)
        self.become_ready()
        self.reactor.advance(1)
        self.assertEqual(self.served.calls, ["pause", "give", "drain"])

    def refuse_with_unread_offer(self) -> Peer:
        """Let a new process become ready, and hang before it reads the first offer."""
        self.served.given = GivenConnections(0, 2)
        self.served.giving = Deferred()
        peer = self.become_ready()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(ours.close)
        assert self.served.offer is not None
        self.served.offer("FrameEcho", theirs)
        self.served.giving.callback(None)
        self.reactor.advance(59)
        self.assertEqual(self.served.calls, ["pause", "give"])
        return peer

    def test_connections_are_served_while_the_new_process_hangs(self) -> None:
        """Until it is killed: then this process accepts again, and nothing was drained."""
        peer = self.refuse_with_unread_offer()
        peer.socket.close()
        self.reactor.turn()
        self.assertEqual(self.served.calls, ["pause", "give", "resume"])
        self.assertIs(self.old.state, State.SERVING)

    def test_a_new_process_that_goes_on_after_a_hang_gets_connections(self) -> None:
        """It has not answered the offers, so the connections are offered once more."""
        peer = self.refuse_with_unread_offer()
        peer.receive_all()
        self.served.given = GivenConnections(2, 0)
        self.reactor.advance(1)
        self.assertEqual(self.served.calls, ["pause", "give", "give", "drain"])
        self.assertEqual(peer.receive_all(), [Moved(2, 2)])

    def test_offers_are_repeated_once(self) -> None:
        """A process that hangs again and again cannot take connections."""
        peer = self.refuse_with_unread_offer()
        peer.receive_all()
        self.reactor.advance(1)
        self.reactor.advance(1)
        self.assertEqual(self.served.calls, ["pause", "give", "give", "drain"])

    def test_a_hang_is_awaited_for_a_minute(self) -> None:
        """An old process that waited for ever could not be replaced."""
        self.refuse_with_unread_offer()
        self.reactor.advance(2)
        self.assertEqual(self.served.calls, ["pause", "give", "drain"])

    def test_a_stop_ends_the_wait_for_a_hang(self) -> None:
        """The process ends within a second."""
        self.refuse_with_unread_offer()
        stopping = self.as_deferred(self.old.stop())
        self.reactor.advance(1)
        self.successResultOf(stopping)

    def test_the_end_of_the_drain_does_not_hide_a_death(self) -> None:
        """What has arrived is read before the process ends."""
        peer = self.become_ready()
        peer.socket.close()
        self.served.draining.callback(None)
        self.assertNotIn("end", self.owner.calls)
        self.assertEqual(self.served.calls[-1], "resume")

    def test_a_drain_that_fails_ends_the_process_all_the_same(self) -> None:
        """The failure is logged; otherwise the process would stay for ever."""
        self.become_ready()
        self.served.draining.errback(ZeroDivisionError("fault"))
        self.assertEqual(self.owner.calls[-1], "end")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_after_a_farewell_it_does_not_accept_again(self) -> None:
        """The new process was stopped, and not killed."""
        peer = self.become_ready()
        peer.send(Farewell())
        peer.socket.close()
        self.reactor.turn()
        self.assertEqual(self.served.calls, ["pause", "give", "drain"])
        self.served.draining.callback(None)
        self.assertEqual(self.owner.calls[-1], "end")

    def test_one_restart_at_a_time(self) -> None:
        """A further process is refused, with the number of the first."""
        first = self.begin()
        second, channel = self.connect()
        self.old.begin(channel, 78)
        self.assertEqual(
            second.receive_all(), [RestartRefused("a restart by process 77 is under way"), None]
        )
        self.assertIn(Listed(1), first.receive_all())

    def test_a_stopped_process_leaves_the_sockets_to_a_new_one(self) -> None:
        """The channel ends without a refusal: the new process goes on."""
        peer = self.begin()
        peer.receive_all()
        self.successResultOf(self.as_deferred(self.old.stop()))
        self.assertEqual(peer.receive_all(), [None])
        self.assertEqual(self.served.calls, ["pause"])
        self.assertFalse(self.sockets.owns_paths)

    def test_a_stop_ends_the_drain_and_waits_for_offers(self) -> None:
        """A connection that is under way is with one process when the old one ends."""
        self.served.giving = self.as_deferred(self.never())
        self.become_ready()
        stopping = self.as_deferred(self.old.stop())
        self.assertNoResult(stopping)
        self.waiting.callback(None)
        self.successResultOf(stopping)
        self.assertIs(self.old.state, State.ENDED)

    def test_observers_hear_the_result(self) -> None:
        """Success with the numbers, or the reason of a failure."""
        good, channel = self.connect()
        self.old.watch(channel)
        peer = self.begin()
        peer.send(RestartRefused(""))
        self.reactor.turn()
        reason = "RestartRefused was not expected"
        self.assertEqual(good.receive_all(), [Watching(os.getpid()), RestartFailed(reason), None])
        other, channel = self.connect()
        self.old.watch(channel)
        self.become_ready()
        self.assertEqual(
            other.receive_all(), [Watching(os.getpid()), Restarted(77), Moved(3, 2), None]
        )

    def test_observers_are_bounded(self) -> None:
        """The oldest one asks again, as after the end of a process."""
        peers = []
        for _ in range(MOST_OBSERVERS + 1):
            peer, channel = self.connect()
            self.old.watch(channel)
            peers.append(peer)
        watching = Watching(os.getpid())
        self.assertEqual(peers[0].receive_all(), [watching, None])
        for peer in peers[1:]:
            self.assertEqual(peer.receive_all(), [watching])

    def test_an_observer_that_leaves_is_forgotten(self) -> None:
        """As is one that sends anything."""
        gone, channel = self.connect()
        self.old.watch(channel)
        gone.socket.close()
        loud, channel = self.connect()
        self.old.watch(channel)
        loud.send(Ready())
        self.reactor.turn()
        self.assertEqual(loud.receive_all(), [Watching(os.getpid()), None])
        self.assertEqual(self.reactor.readers, set())
        self.assertIs(self.old.state, State.SERVING)

    # Deferreds of coroutines.

    def as_deferred(self, coroutine: Any) -> Any:
        """Start a coroutine."""
        return Deferred.fromCoroutine(coroutine)

    async def never(self) -> None:
        """Wait for the test."""
        self.waiting: Deferred[None] = Deferred()
        await self.waiting
