"""``async with`` closes, also when its coroutine is abandoned."""

from __future__ import annotations

import gc
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, succeed
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tests.sockets.stream.connected import OnKernel, shrink_buffers
from tests.stream.test_transport import IdleReactor
from twsock import (
    ClosedError,
    DatagramSocket,
    DataReader,
    DataWriter,
    StreamSocket,
    StreamSocketListener,
)


class SlowPort:
    """An endpoint, and its port, which stops later."""

    def __init__(self) -> None:
        self.stopping: Deferred[None] = Deferred()

    def listen(self, _factory: object) -> Deferred[SlowPort]:
        return succeed(self)

    def getHost(self) -> None:
        return None

    def stopListening(self) -> Deferred[None]:
        return self.stopping


class AbandonedTests(SynchronousTestCase):
    """
    An abandoned coroutine gets ``GeneratorExit``, and must not await. Otherwise Python reports
    ``coroutine ignored GeneratorExit``.
    """

    def setUp(self) -> None:
        self.connected = OnKernel()
        self.addCleanup(self.connected.close)

    def abandon(self, thing: Any) -> None:
        """Enter the block of an object, wait there, and close the coroutine."""

        async def block() -> None:
            async with thing:
                await Deferred()

        coroutine = block()
        coroutine.send(None)
        coroutine.close()

    def fill(self) -> None:
        """Fill the kernel's buffer, so that no close can be done at once."""
        shrink_buffers(self.connected.kernel)
        self.connected.output.write(bytes(1 << 20))
        self.connected.next_turn()

    def assert_aborted(self) -> None:
        """Check that the peer gets a reset, not the end of the stream."""
        self.connected.next_turn()
        self.assertRaises(ConnectionResetError, self.read_to_the_end)
        self.failureResultOf(self.connected.output.write(b"x"), ClosedError)

    def read_to_the_end(self) -> None:
        while self.connected.far.recv(1 << 20):
            pass

    def test_a_socket_is_aborted(self) -> None:
        """As by any other exception."""
        self.fill()
        self.abandon(self.connected.socket)
        self.assert_aborted()

    def test_a_socket_is_aborted_during_a_read(self) -> None:
        """The read belongs to the abandoned coroutine, and does not resume it."""

        async def read(socket: StreamSocket) -> None:
            async with socket:
                await socket.input_stream.receive_some()

        self.fill()
        reading = read(self.connected.socket)
        ensureDeferred(reading)
        reading.close()
        self.assert_aborted()
        gc.collect()  # Twisted logs a failure that nobody handles when it is freed.

    def test_an_output_is_aborted(self) -> None:
        """So that the peer does not take a partial answer for a complete one."""
        self.fill()
        self.abandon(self.connected.output)
        self.assert_aborted()

    def test_a_writer_is_aborted(self) -> None:
        """With its stream."""
        self.fill()
        writer = DataWriter(self.connected.output)
        self.abandon(writer)
        self.failureResultOf(writer.store(), ClosedError)
        self.assert_aborted()

    def test_a_writer_without_a_stream_is_closed(self) -> None:
        """It has nothing to abort."""
        writer = DataWriter()
        self.abandon(writer)
        self.failureResultOf(writer.store(), ClosedError)

    def test_an_input_and_a_reader_are_closed(self) -> None:
        """Without awaiting."""
        for thing in (
            self.connected.socket.input_stream,
            DataReader(self.connected.socket.input_stream),
        ):
            self.abandon(thing)
        self.failureResultOf(self.connected.socket.input_stream.receive_some(), ClosedError)

    def test_a_socket_that_is_not_connected_is_closed(self) -> None:
        """It cannot be connected any more."""
        unconnected = StreamSocket(IdleReactor())
        self.abandon(unconnected)
        self.failureResultOf(unconnected.connect("127.0.0.1", 1), ClosedError)

    def test_a_listener_is_closed(self) -> None:
        """Its port stops later."""
        listener = StreamSocketListener(MemoryReactorClock())
        slow: Any = SlowPort()
        self.successResultOf(listener.listen(slow))
        self.abandon(listener)
        self.failureResultOf(listener.accept(), ClosedError)
        slow.stopping.callback(None)

    def test_a_datagram_socket_and_its_stream_are_closed(self) -> None:
        """Each in a block of its own."""
        datagrams = DatagramSocket(IdleReactor())
        self.successResultOf(datagrams.bind_endpoint("127.0.0.1", ""))
        output = self.successResultOf(datagrams.get_output_stream("127.0.0.1", "9"))
        self.abandon(output)
        self.failureResultOf(output.write(b"x"), ClosedError)
        self.abandon(datagrams)
        self.failureResultOf(datagrams.receive_from(), ClosedError)

    def test_a_coroutine_without_references_is_abandoned(self) -> None:
        """By reference counting or the garbage collector; Python reports nothing."""
        self.fill()

        async def block() -> None:
            async with self.connected.socket:
                await Deferred()

        ensureDeferred(block())
        gc.collect()
        self.assert_aborted()
        self.assertEqual(self.flushLoggedErrors(), [])


class CancelledTests(SynchronousTestCase):
    """A cancelled coroutine can await."""

    def test_a_socket_is_aborted(self) -> None:
        """The cancellation continues after the connection has ended."""
        connected = OnKernel()
        self.addCleanup(connected.close)

        async def block() -> None:
            async with connected.socket:
                await Deferred()

        running = ensureDeferred(block())
        running.cancel()
        self.assertNoResult(running)
        connected.next_turn()
        self.failureResultOf(running, CancelledError)
        self.assertFalse(connected.socket.is_open)
