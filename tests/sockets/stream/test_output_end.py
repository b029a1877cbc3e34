"""Closing the output of a stream socket sends what is queued, then FIN."""

from __future__ import annotations

from tests.sockets.stream.connected import InMemory
from tests.sockets.stream.test_output import GREETING, KIB, OutputTests, conduct
from twsock import ClosedError, OperationNotSupported

__all__: list[str] = []


class CloseTests(OutputTests):
    """Closing the output alone."""

    def test_closing_the_output_ends_the_stream_for_the_peer(self) -> None:
        """After all writes; the input can still be read."""
        self.output.write(GREETING)
        self.successResultOf(self.output.close())
        self.assertEqual(self.connected.receive(), GREETING)
        self.connected.protocol.dataReceived(b"answer")
        read = self.connected.socket.input_stream.receive_some()
        self.assertEqual(self.successResultOf(read), b"answer")
        self.failureResultOf(self.output.write(b"late"), ClosedError)

    def test_closing_waits_for_queued_writes(self) -> None:
        """FIN follows them."""
        self.fill()
        closing = self.output.close()
        self.assertNoResult(closing)
        self.assertEqual(len(self.connected.receive()), 60 * 64 * KIB)
        self.successResultOf(closing)

    def test_closing_twice_is_harmless(self) -> None:
        """The second close fires at once."""
        self.successResultOf(self.output.close())
        self.successResultOf(self.output.close())

    def test_async_with_closes_the_output(self) -> None:
        """At the end of the block."""

        async def block() -> None:
            async with self.output:
                pass

        self.successResultOf(conduct(block))
        self.failureResultOf(self.output.write(b"x"), ClosedError)

    def test_a_transport_that_cannot_close_one_direction_refuses(self) -> None:
        """The connection stays open."""
        connected = InMemory()
        connected.protocol.transport.loseWriteConnection = None
        output = connected.output
        if hasattr(connected.transport, "loseWriteConnection"):
            del connected.transport.loseWriteConnection
        self.failureResultOf(output.close(), OperationNotSupported)
        self.successResultOf(output.send_all(b"still here"))

    def test_closing_the_socket_sends_queued_writes(self) -> None:
        """Also those that wait for the kernel."""
        writes = self.fill()
        self.connected.socket.close()
        self.assertEqual(len(self.connected.receive()), 60 * 64 * KIB)
        self.assertEqual([self.successResultOf(write) for write in writes], [64 * KIB] * 60)

    def test_a_transport_in_memory_can_pause_the_output(self) -> None:
        """A flush fires when the transport resumes it."""
        connected = InMemory()
        assert connected.transport.producer is not None
        connected.transport.producer.pauseProducing()
        flush = connected.output.write(GREETING), connected.output.flush()
        self.assertNoResult(flush[1])
        connected.transport.producer.resumeProducing()
        self.assertEqual(self.successResultOf(flush[0]), 13)
        self.assertIs(self.successResultOf(flush[1]), True)
