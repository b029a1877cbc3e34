"""A watch tells when the queue of a transport has drained."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.interfaces import IPullProducer, IPushProducer
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.tcp import Connection
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.stream.test_transport import FakeProtocol, IdleReactor, tcp_pair
from twsock.stream.drain import BrakeWatch, DrainWatch, Watch


class DrainTestCase(SynchronousTestCase):
    """A descriptor that writes when told to."""

    def setUp(self) -> None:
        here, peer = tcp_pair()
        self.reactor = IdleReactor()
        self.descriptor: Any = Connection(here, FakeProtocol(), self.reactor)  # type: ignore[arg-type]
        self.descriptor.connected = 1
        self.drained = 0
        self.addCleanup(here.close)
        self.addCleanup(peer.close)

    def watch(self) -> Watch:
        """Watch a queue with something in it."""
        self.descriptor.write(b"queued")
        return DrainWatch(self.descriptor, self.note)

    def note(self) -> None:
        self.drained += 1


class DrainWatchTests(DrainTestCase):
    """The place of the producer is free."""

    def test_a_watch_is_a_pull_producer(self) -> None:
        """It has all that the descriptor may call."""
        verifyObject(IPullProducer, self.watch())

    def test_the_call_at_registration_is_ignored(self) -> None:
        """A pull producer is asked at once, whatever the queue holds."""
        self.watch()
        self.assertEqual(self.drained, 0)

    def test_an_empty_queue_is_told(self) -> None:
        """As soon as the kernel has all of it, without a timer."""
        self.watch()
        self.descriptor.doWrite()
        self.assertEqual(self.drained, 1)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_a_queue_that_the_kernel_does_not_take_is_not_told(self) -> None:
        """What is still there has not drained."""
        self.descriptor.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.descriptor.write(b"x" * 10_000_000)
        self.watch()
        self.descriptor.doWrite()
        self.assertEqual(self.drained, 0)

    def test_each_time_is_told(self) -> None:
        """A watch stays until it is stopped."""
        self.watch()
        self.descriptor.doWrite()
        self.descriptor.write(b"more")
        self.descriptor.doWrite()
        self.assertEqual(self.drained, 2)

    def test_stopping_frees_the_place(self) -> None:
        """Nothing is told any more, and the application may use it."""
        self.watch().stop()
        self.assertIsNone(self.descriptor.producer)
        self.descriptor.doWrite()
        self.assertEqual(self.drained, 0)

    def test_stopping_leaves_the_place_to_another(self) -> None:
        """A producer that came after us is not unregistered."""
        watch = self.watch()
        self.descriptor.unregisterProducer()
        producer = StringTransport()
        self.descriptor.registerProducer(producer, True)
        watch.stop()
        self.assertIs(self.descriptor.producer, producer)

    def test_stopping_lets_an_end_go_on(self) -> None:
        """A descriptor that is to close waits for its producer, and for nothing after it."""
        watch = self.watch()
        self.descriptor.loseConnection()
        self.assertIsNone(self.descriptor.doWrite())
        watch.stop()
        self.assertIn(self.descriptor, self.reactor.writers)
        self.assertIs(self.descriptor.doWrite(), CONNECTION_DONE)

    def test_the_engine_of_tls_is_not_used(self) -> None:
        """What TLS put over the descriptor's methods would ask a pull producer all the time."""
        self.descriptor.registerProducer = self.descriptor.unregisterProducer = None
        self.watch().stop()
        self.assertIsNone(self.descriptor.producer)

    def test_the_end_of_the_connection_is_not_a_drain(self) -> None:
        """Whoever owns the watch hears of it in another way."""
        self.watch()
        self.descriptor.producer.stopProducing()
        self.assertEqual(self.drained, 0)

    def test_a_lost_descriptor_takes_no_watch(self) -> None:
        """Nothing is told, and nothing is in the way of a stop."""
        self.descriptor.disconnected = 1
        self.watch().stop()
        self.assertEqual(self.drained, 0)


class PollingTests(DrainTestCase):
    """A producer of the application holds the place."""

    def setUp(self) -> None:
        super().setUp()
        self.producer = StringTransport()
        self.descriptor.registerProducer(self.producer, True)

    def test_the_producer_keeps_its_place(self) -> None:
        """It was there first, and stays after the watch."""
        self.watch().stop()
        self.assertIs(self.descriptor.producer, self.producer)

    def test_the_queue_is_looked_at_until_it_is_empty(self) -> None:
        """Again and again while something is left, and no more after that."""
        self.watch()
        self.reactor.pump([1, 1, 1])
        self.assertEqual(self.drained, 0)
        self.descriptor.doWrite()
        self.reactor.advance(1)
        self.assertEqual(self.drained, 1)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_stopping_ends_the_looking(self) -> None:
        """No delayed call is left, and nothing is told."""
        self.watch().stop()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.descriptor.doWrite()
        self.reactor.advance(1)
        self.assertEqual(self.drained, 0)

    def test_stopping_between_two_looks_ends_the_looking(self) -> None:
        """Also when the watch has looked before."""
        watch = self.watch()
        self.reactor.advance(1)
        watch.stop()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_a_watch_may_be_stopped_when_it_tells(self) -> None:
        """Whoever is told needs it no more."""
        watch: Watch

        def stop() -> None:
            self.note()
            watch.stop()

        self.descriptor.write(b"queued")
        watch = DrainWatch(self.descriptor, stop)
        self.descriptor.doWrite()
        self.reactor.advance(1)
        self.assertEqual((self.drained, self.descriptor.producer), (1, self.producer))


class BrakeWatchTests(SynchronousTestCase):
    """A transport without a descriptor."""

    def setUp(self) -> None:
        self.transport = StringTransport()
        self.told: list[bool] = []
        self.watch = BrakeWatch(self.transport, self.told.append)

    def test_a_watch_is_a_push_producer(self) -> None:
        """It has all that the transport may call."""
        verifyObject(IPushProducer, self.watch)

    def test_it_is_the_producer_of_the_transport(self) -> None:
        """One that sends by itself, and is not asked for each piece."""
        self.assertIs(self.transport.producer, self.watch)
        self.assertTrue(self.transport.streaming)
        self.assertEqual(self.told, [])

    def test_full_and_empty_are_told(self) -> None:
        """Each time, with True for a buffer that is full."""
        self.watch.pauseProducing()
        self.watch.resumeProducing()
        self.watch.pauseProducing()
        self.assertEqual(self.told, [True, False, True])

    def test_stopping_frees_the_place(self) -> None:
        """The application may use it."""
        self.watch.stop()
        self.assertIsNone(self.transport.producer)

    def test_the_end_of_the_connection_is_neither(self) -> None:
        """Whoever owns the watch hears of it in another way."""
        self.watch.stopProducing()
        self.assertEqual(self.told, [])
