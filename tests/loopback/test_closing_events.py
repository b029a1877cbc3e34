"""The rows of events of the peer and the kernel: ends, failed sends, hang-ups."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from tests.loopback.closing_ends import (
    MUCH,
    Recorder,
    connect_kept,
    hold,
)
from tests.loopback.closing_rows import (
    ENCRYPTED,
    PLAIN,
    RowTests,
    over,
    row,
    with_protocol,
    with_socket,
)
from tests.loopback.contract import failure_of, turns
from tests.loopback.raw_peer import End, RawPeer, Security
from twsock import BrokenError, SocketErrorStatus, StreamSocket
from twsock.stream.closing import Event, State
from twsock.wire import encode_frame


class EndTests(RowTests):
    """The peer ends its output, or the kernel has FIN of this end."""

    @with_socket()
    @row(State.OPEN, Event.END_OUTPUT)
    @row(State.HALF_CLOSED, Event.FIN_SENT, over=PLAIN)
    @row(State.HALF_CLOSED, Event.PEER_ENDED)
    @row(State.ENDED, Event.DONE)
    async def test_an_ended_output_leaves_the_input_open(
        self, near: StreamSocket, peer: RawPeer
    ) -> None:
        """Under TLS close_notify is sent; FIN follows the peer's end."""
        near.output_stream.write(b"question")
        await near.output_stream.close()
        self.assert_received(await peer.until_end(), b"question", peer.security.ends[0])
        peer.send(b"answer")
        self.assertEqual(await near.input_stream.receive_exactly(6), b"answer")
        self.assertEqual(peer.ends, [peer.security.ends[0]])
        peer.end()
        self.assertEqual(await near.input_stream.receive_some(), b"")
        await near.wait_closed()
        self.assertFalse(near.was_lost)
        self.assert_received(await peer.rest(), b"", *peer.security.ends)

    @with_socket()
    @row(State.FINISHING, Event.PEER_ENDED)
    @row(State.ANSWERED, Event.FLUSHED)
    @row(State.ENDED, Event.DONE)
    async def test_a_peer_may_end_while_bytes_are_sent(
        self, near: StreamSocket, peer: RawPeer
    ) -> None:
        """The peer still receives all bytes, and then the end."""
        writing = near.output_stream.write(bytes(MUCH))
        closed = near.close()
        peer.end()
        await turns(peer.reactor, 20)
        self.assert_received(await peer.rest(), bytes(MUCH), *peer.security.ends)
        self.assertEqual(await writing, MUCH)
        await closed
        await near.wait_closed()
        self.assertFalse(near.was_lost)

    @with_protocol()
    @row(State.OPEN, Event.FIN_SENT)
    @row(State.OPEN, Event.PEER_ENDED)
    async def test_a_fin_of_other_code_leaves_the_input_open(
        self, protocol: Recorder, peer: RawPeer
    ) -> None:
        """Other code ends the output of Twisted's transport; input is still received."""
        protocol.own.loseWriteConnection()
        self.assert_received(await peer.rest(), b"", End.FIN)
        peer.send(encode_frame(b"late"))
        peer.end()
        await protocol.ended
        self.assertEqual(protocol.received, [b"late"])

    @with_protocol()
    @row(State.ANSWERING, Event.FIN_SENT)
    async def test_a_fin_of_other_code_may_follow_the_peers_end(
        self, protocol: Recorder, peer: RawPeer
    ) -> None:
        """A handler is running; the connection ends after the handler."""
        await hold(protocol, peer)
        peer.end()
        await turns(peer.reactor)
        protocol.own.loseWriteConnection()
        self.assert_received(await peer.rest(), b"", End.FIN)
        self.assertFalse(protocol.ended.called)
        protocol.held.callback(None)
        await protocol.ended

    @over(*ENCRYPTED)
    @row(State.HALF_CLOSED, Event.FIN_SENT)
    @row(State.HALF_CLOSED, Event.PEER_ENDED)
    async def test_a_fin_of_other_code_may_follow_close_notify(
        self, reactor: Any, security: Security
    ) -> None:
        """The input stays open."""
        near, peer, transport = await connect_kept(reactor, security)
        with closing(peer):
            await near.output_stream.close()
            transport.loseWriteConnection()
            self.assert_received(await peer.rest(), b"", *security.ends)
            peer.send(b"answer")
            peer.end()
            self.assertEqual(await near.input_stream.receive_exactly(6), b"answer")
            self.assertEqual(await near.input_stream.receive_some(), b"")
            await near.wait_closed()
            self.assertFalse(near.was_lost)


class FailureTests(RowTests):
    """A send fails, or the peer has disconnected."""

    @with_socket()
    @row(State.OPEN, Event.SEND_FAILED)
    @row(State.BROKEN, Event.PEER_ENDED, over=PLAIN)
    @row(State.BROKEN, Event.RESET, over=ENCRYPTED)
    async def test_after_a_failed_send_received_bytes_can_be_read(
        self, near: StreamSocket, peer: RawPeer
    ) -> None:
        """The end behind them counts as a reset, although the kernel reports FIN."""
        peer.send(b"last words")
        peer.reset()
        error = await failure_of(near.output_stream.write(b"x"))
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_RESET_BY_PEER)
        self.assertEqual(await near.input_stream.receive_exactly(10), b"last words")
        self.assertIsInstance(await failure_of(near.input_stream.receive_some()), BrokenError)
        self.assertTrue(near.was_lost)

    @with_socket(ENCRYPTED)
    @row(State.BROKEN, Event.PEER_ENDED)
    async def test_after_a_failed_send_a_close_notify_ends_the_input(
        self, near: StreamSocket, peer: RawPeer
    ) -> None:
        """The input is complete; bytes of this end are lost."""
        peer.send(b"last words")
        peer.end()
        peer.reset()
        self.assertIsInstance(await failure_of(near.output_stream.write(b"x")), BrokenError)
        self.assertEqual(await near.input_stream.receive_exactly(10), b"last words")
        self.assertEqual(await near.input_stream.receive_some(), b"")
        await near.wait_closed()
        self.assertTrue(near.was_lost)

    async def reset_after_the_end(self, near: StreamSocket, peer: RawPeer) -> None:
        """End the peer's output in order, check that it is read, and then reset."""
        peer.end()
        if peer.security.is_encrypted:
            peer.send_fin()
        self.assertEqual(await near.input_stream.receive_some(), b"")
        await turns(peer.reactor)
        peer.reset()

    @with_socket()
    @row(State.ANSWERING, Event.SEND_FAILED)
    @row(State.BROKEN, Event.HUNG_UP)
    async def test_a_failed_answer_ends_the_connection(
        self, near: StreamSocket, peer: RawPeer
    ) -> None:
        """Nothing is read any more, so the next check of the socket finds the reset."""
        await self.reset_after_the_end(near, peer)
        self.assertIsInstance(await failure_of(near.output_stream.write(b"x")), BrokenError)
        await near.wait_closed()
        self.assertTrue(near.was_lost)

    @with_socket()
    @row(State.ANSWERING, Event.HUNG_UP)
    async def test_a_reset_behind_the_peers_end_is_found(
        self, near: StreamSocket, peer: RawPeer
    ) -> None:
        """The application has not answered yet; its next write fails with the reset."""
        await self.reset_after_the_end(near, peer)
        await near.wait_closed()
        self.assertTrue(near.was_lost)
        error = await failure_of(near.output_stream.write(b"x"))
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_RESET_BY_PEER)

    @with_socket(ENCRYPTED)
    @row(State.HALF_CLOSED, Event.SEND_FAILED)
    @row(State.HALF_CLOSED, Event.PEER_ENDED)
    async def test_an_end_in_order_hides_a_failed_close_notify(
        self, near: StreamSocket, peer: RawPeer
    ) -> None:
        """The peer ended in order, and no byte of this end is lost."""
        peer.send(b"last words")
        peer.end()
        peer.reset()
        await near.output_stream.close()
        self.assertEqual(await near.input_stream.receive_exactly(10), b"last words")
        self.assertEqual(await near.input_stream.receive_some(), b"")
        await near.wait_closed()
        self.assertFalse(near.was_lost)

    @with_protocol(ENCRYPTED)
    @row(State.LINGERING, Event.SEND_FAILED)
    @row(State.LINGERING, Event.RESET)
    async def test_a_failed_close_notify_is_the_reason_of_the_end(
        self, protocol: Recorder, peer: RawPeer
    ) -> None:
        """The peer has not ended in order."""
        peer.reset()
        protocol.close()
        error = await protocol.ended
        assert isinstance(error, BrokenError)
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_RESET_BY_PEER)

    @with_protocol()
    @row(State.ENDED, Event.SEND_FAILED, over=ENCRYPTED)
    @row(State.ENDED, Event.RESET)
    async def test_a_reset_behind_both_ends(self, protocol: Recorder, peer: RawPeer) -> None:
        """With TCP this is an error; with TLS the peer's close_notify was the end."""
        await hold(protocol, peer)
        peer.end()
        await turns(peer.reactor)
        peer.reset()
        protocol.held.callback(None)
        error = await protocol.ended
        if peer.security.is_encrypted:
            self.assertIsNone(error)
        else:
            self.assertIsInstance(error, BrokenError)


for _case in (EndTests, FailureTests):
    globals().update(_case.makeTestCaseClasses())
del EndTests, FailureTests, _case
