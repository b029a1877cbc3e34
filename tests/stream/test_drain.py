"""A drain watch reports when the queue of a transport has drained."""

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
from twsock.stream.drain import BufferWatch, DrainWatch


class DrainTestCase(SynchronousTestCase):
    """Tests with a descriptor that writes when the test tells it to."""

    def setUp(self) -> None:
        here, peer = tcp_pair()
        self.reactor = IdleReactor()
        self.descriptor: Any = Connection(here, FakeProtocol(), self.reactor)  # type: ignore[arg-type]
        self.descriptor.connected = 1
        self.drained = 0
        self.addCleanup(here.close)
        self.addCleanup(peer.close)

    def watch(self) -> DrainWatch:
        """Watch a queue that is not empty."""
        self.descriptor.write(b"queued")
        return DrainWatch(self.descriptor, self.note)

    def note(self) -> None:
        self.drained += 1


class DrainWatchTests(DrainTestCase):
    """A `DrainWatch` on a descriptor without another producer."""

    def test_a_watch_provides_a_pull_producer(self) -> None:
        """It provides `IPullProducer`, as the descriptor requires."""
        verifyObject(IPullProducer, self.watch())

    def test_the_call_at_registration_is_ignored(self) -> None:
        """A descriptor asks a pull producer at once, whatever the queue holds."""
        self.watch()
        self.assertEqual(self.drained, 0)

    def test_an_emptied_queue_is_reported(self) -> None:
        """The report comes when the kernel has all bytes, without a timer."""
        self.watch()
        self.descriptor.doWrite()
        self.assertEqual(self.drained, 1)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_a_queue_that_the_kernel_does_not_take_is_not_reported(self) -> None:
        """Bytes that are still queued have not drained."""
        self.descriptor.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.descriptor.write(b"x" * 10_000_000)
        self.watch()
        self.descriptor.doWrite()
        self.assertEqual(self.drained, 0)

    def test_each_drain_is_reported(self) -> None:
        """A watch stays until it is stopped."""
        self.watch()
        self.descriptor.doWrite()
        self.descriptor.write(b"more")
        self.descriptor.doWrite()
        self.assertEqual(self.drained, 2)

    def test_a_stopped_watch_unregisters_itself(self) -> None:
        """Nothing more is reported, and the application may register its producer."""
        self.watch().stop()
        self.assertIsNone(self.descriptor.producer)
        self.descriptor.doWrite()
        self.assertEqual(self.drained, 0)

    def test_stopping_leaves_a_later_producer_registered(self) -> None:
        """A producer that was registered after the watch is not unregistered."""
        watch = self.watch()
        self.descriptor.unregisterProducer()
        producer = StringTransport()
        self.descriptor.registerProducer(producer, True)
        watch.stop()
        self.assertIs(self.descriptor.producer, producer)

    def test_stopping_lets_a_closing_descriptor_close(self) -> None:
        """A descriptor that is to close waits for its producer; without one it closes."""
        watch = self.watch()
        self.descriptor.loseConnection()
        self.assertIsNone(self.descriptor.doWrite())
        watch.stop()
        self.assertIn(self.descriptor, self.reactor.writers)
        self.assertIs(self.descriptor.doWrite(), CONNECTION_DONE)

    def test_under_tls_the_plain_descriptor_is_watched(self) -> None:
        """The TLS engine's own register method would ask a pull producer all the time."""
        self.descriptor.registerProducer = self.descriptor.unregisterProducer = None
        self.watch().stop()
        self.assertIsNone(self.descriptor.producer)

    def test_the_end_of_the_connection_is_not_reported_as_a_drain(self) -> None:
        """The owner of the watch learns of the end from the connection."""
        self.watch()
        self.descriptor.producer.stopProducing()
        self.assertEqual(self.drained, 0)

    def test_a_lost_descriptor_takes_no_watch(self) -> None:
        """Nothing is reported, and stopping the watch raises nothing."""
        self.descriptor.disconnected = 1
        self.watch().stop()
        self.assertEqual(self.drained, 0)


class PollingTests(DrainTestCase):
    """A `DrainWatch` on a descriptor with a producer of the application."""

    def setUp(self) -> None:
        super().setUp()
        self.producer = StringTransport()
        self.descriptor.registerProducer(self.producer, True)

    def test_the_producer_of_the_application_stays_registered(self) -> None:
        """Neither the watch nor its end removes the producer."""
        self.watch().stop()
        self.assertIs(self.descriptor.producer, self.producer)

    def test_the_queue_is_polled_until_it_is_empty(self) -> None:
        """The queue is looked at again while bytes are left, and no more after the report."""
        self.watch()
        self.reactor.pump([1, 1, 1])
        self.assertEqual(self.drained, 0)
        self.descriptor.doWrite()
        self.reactor.advance(1)
        self.assertEqual(self.drained, 1)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_stopping_ends_the_polling(self) -> None:
        """No delayed call is left, and nothing is reported."""
        self.watch().stop()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.descriptor.doWrite()
        self.reactor.advance(1)
        self.assertEqual(self.drained, 0)

    def test_stopping_between_two_looks_ends_the_polling(self) -> None:
        """Also if the watch has looked before."""
        watch = self.watch()
        self.reactor.advance(1)
        watch.stop()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_a_watch_may_be_stopped_in_its_report(self) -> None:
        """The called function may stop the watch that calls it."""
        watch: DrainWatch

        def stop() -> None:
            self.note()
            watch.stop()

        self.descriptor.write(b"queued")
        watch = DrainWatch(self.descriptor, stop)
        self.descriptor.doWrite()
        self.reactor.advance(1)
        self.assertEqual((self.drained, self.descriptor.producer), (1, self.producer))


class BufferWatchTests(SynchronousTestCase):
    """A watch on a transport without a descriptor, as a push producer."""

    def setUp(self) -> None:
        self.transport = StringTransport()
        self.drained = 0
        self.watch = BufferWatch(self.transport, self.note)

    def note(self) -> None:
        self.drained += 1

    def test_a_watch_provides_a_push_producer(self) -> None:
        """It provides `IPushProducer`, as the transport requires."""
        verifyObject(IPushProducer, self.watch)

    def test_the_watch_is_registered_as_a_streaming_producer(self) -> None:
        """A streaming producer is paused and resumed, and not asked for each piece."""
        self.assertIs(self.transport.producer, self.watch)
        self.assertTrue(self.transport.streaming)
        self.assertFalse(self.watch.is_full)

    def test_a_buffer_with_room_again_is_reported(self) -> None:
        """A full buffer is noted, and the next room is reported."""
        self.watch.pauseProducing()
        self.assertEqual((self.watch.is_full, self.drained), (True, 0))
        self.watch.resumeProducing()
        self.assertEqual((self.watch.is_full, self.drained), (False, 1))

    def test_bytes_count_while_the_buffer_is_full(self) -> None:
        """Bytes written before do not count; a buffer with room counts as empty."""
        self.watch.note(3)
        self.watch.pauseProducing()
        self.watch.note(4)
        self.assertEqual(self.watch.queued, 4)
        self.watch.resumeProducing()
        self.assertEqual(self.watch.queued, 0)

    def test_a_watch_is_stopped_once(self) -> None:
        """A second stop does not unregister another producer."""
        self.watch.stop()
        self.transport.registerProducer(self, True)
        self.watch.stop()
        self.assertIs(self.transport.producer, self)

    def test_a_stopped_watch_unregisters_itself(self) -> None:
        """The application may register its producer."""
        self.watch.stop()
        self.assertIsNone(self.transport.producer)

    def test_the_end_of_the_connection_is_not_reported(self) -> None:
        """The owner of the watch learns of the end from the connection."""
        self.watch.stopProducing()
        self.assertFalse(self.watch.is_full)
