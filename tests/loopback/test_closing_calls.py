"""The rows of calls of the application: close, end of the output, abort."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from twisted.internet.defer import CancelledError

from tests.loopback.closing_ends import (
    MUCH,
    NEVER,
    UNREAD,
    Recorder,
    connect_plain,
    serve,
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
from twsock import (
    BrokenError,
    ClosedError,
    SocketError,
    SocketProtectionLevel,
    StreamSocket,
)
from twsock.stream.closing import Event, State
from twsock.wire import encode_frame


class CloseTests(RowTests):
    """``close`` in each state."""

    @with_socket()
    @row(State.OPEN, Event.CLOSE)
    @row(State.FINISHING, Event.FLUSHED)
    @row(State.LINGERING, Event.FIN_SENT)
    @row(State.LINGERING, Event.PEER_ENDED)
    @row(State.ENDED, Event.DONE)
    async def test_a_close_sends_what_is_written_and_drops_what_comes(
        self, near: StreamSocket, peer: RawPeer
    ) -> None:
        """The peer receives all bytes and an end in order; its bytes cause no reset."""
        peer.send(UNREAD)
        await turns(peer.reactor, 20)
        near.output_stream.write(b"answer")
        await near.close()
        self.assert_received(await peer.rest(), b"answer", *peer.security.ends)
        peer.send(UNREAD)
        peer.end()
        await near.wait_closed()
        self.assertFalse(near.was_lost)
        self.assertFalse(peer.is_reset)

    @with_socket()
    @row(State.LINGERING, Event.PEER_ENDED)
    async def test_ends_may_cross(self, near: StreamSocket, peer: RawPeer) -> None:
        """Both sides close before either has received the end of the other."""
        near.output_stream.write(b"answer")
        closing_near = near.close()
        peer.end()
        await closing_near
        await near.wait_closed()
        self.assertFalse(near.was_lost)
        self.assert_received(await peer.rest(), b"answer", *peer.security.ends)

    @with_socket()
    @row(State.OPEN, Event.PEER_ENDED)
    @row(State.ANSWERING, Event.CLOSE)
    @row(State.ANSWERED, Event.FLUSHED)
    @row(State.ENDED, Event.DONE)
    async def test_a_close_after_the_peers_end_ends_at_once(
        self, near: StreamSocket, peer: RawPeer
    ) -> None:
        """The answer is sent before the end."""
        peer.send(b"question")
        peer.end()
        question = b"".join([chunk async for chunk in near.input_stream])
        near.output_stream.write(b"answer to " + question)
        await near.close()
        self.assert_received(await peer.rest(), b"answer to question", *peer.security.ends)
        await near.wait_closed()
        self.assertFalse(near.was_lost)

    @with_protocol()
    @row(State.OPEN, Event.PEER_ENDED)
    @row(State.ANSWERING, Event.CLOSE_ANSWERED)
    @row(State.ENDED, Event.DONE)
    async def test_a_protocol_that_has_answered_closes_its_socket_at_the_peers_end(
        self, protocol: Recorder, peer: RawPeer
    ) -> None:
        """The answer is sent before the end, under TLS with close_notify."""
        self.assertTrue(protocol.own.getTcpNoDelay())
        protocol.send_frame(b"answer")
        peer.end()
        self.assertIsNone(await protocol.ended)
        self.assert_received(await peer.rest(), encode_frame(b"answer"), *peer.security.ends)

    @with_socket()
    @row(State.HALF_CLOSED, Event.CLOSE)
    @row(State.HALF_CLOSED, Event.FIN_SENT, over=PLAIN)
    @row(State.FINISHING, Event.FLUSHED, over=ENCRYPTED)
    @row(State.LINGERING, Event.PEER_ENDED)
    async def test_a_close_after_the_output_ended_goes_on_reading(
        self, near: StreamSocket, peer: RawPeer
    ) -> None:
        """Under TLS it sends FIN. Later bytes of the peer cause no reset."""
        await near.output_stream.close()
        await peer.until_end()
        await turns(peer.reactor)
        peer.send(UNREAD)
        await near.close()
        self.assert_received(await peer.rest(), b"", *peer.security.ends)
        peer.send(UNREAD)
        peer.end()
        await near.wait_closed()
        self.assertFalse(near.was_lost)
        self.assertFalse(peer.is_reset)

    @with_socket()
    @row(State.BROKEN, Event.CLOSE)
    async def test_a_close_after_a_failed_send_is_an_abort(
        self, near: StreamSocket, peer: RawPeer
    ) -> None:
        """After a failed send, the peer sends no end to wait for."""
        peer.send(b"last words")
        peer.reset()
        writing = near.output_stream.write(b"x")
        self.assertIsInstance(await failure_of(writing), BrokenError)
        await near.close()
        await near.wait_closed()
        error = await failure_of(near.input_stream.receive_some())
        self.assertIsInstance(error, ClosedError)

    @with_socket()
    @row(State.ANSWERING, Event.END_OUTPUT)
    @row(State.ENDED, Event.CLOSE)
    @row(State.ENDED, Event.DONE)
    async def test_a_close_after_both_ends_changes_nothing(
        self, near: StreamSocket, peer: RawPeer
    ) -> None:
        """The output was ended in the same turn, after the peer's end."""
        peer.end()
        self.assertEqual(await near.input_stream.receive_some(), b"")
        near.output_stream.write(b"answer")
        near.output_stream.close()
        await near.close()
        await near.wait_closed()
        self.assertFalse(near.was_lost)
        self.assert_received(await peer.rest(), b"answer", *peer.security.ends)


class HeldTests(RowTests):
    """``close`` during a handshake."""

    async def close_held(self, near: StreamSocket) -> SocketError:
        """Begin a handshake that the peer does not answer, and close; return its error."""
        upgrading = near.upgrade_to_ssl(SocketProtectionLevel.TLS13, "localhost")
        near.output_stream.write(b"secret")
        await near.close()
        await near.wait_closed()
        return await failure_of(upgrading)

    async def assert_reset(self, peer: RawPeer) -> None:
        """Require a reset, and that no byte was sent in plaintext."""
        rest = await peer.rest()
        self.assertEqual(rest.ends[-1], End.RST)
        self.assertIn(rest.data[:2], (b"", b"\x16\x03"))
        self.assertNotIn(b"secret", rest.data)

    @over(Security.UPGRADED)
    @row(State.OPEN, Event.CLOSE_HELD)
    async def test_a_close_with_bytes_that_wait_for_a_handshake_is_an_abort(
        self, reactor: Any, security: Security
    ) -> None:
        """The peer receives a reset, and none of the bytes."""
        near, peer = await connect_plain(reactor, security)
        with closing(peer):
            self.assertIsInstance(await self.close_held(near), ClosedError)
            await self.assert_reset(peer)

    @over(Security.UPGRADED)
    @row(State.ANSWERING, Event.CLOSE_HELD)
    async def test_after_the_peers_fin_it_is_an_abort(
        self, reactor: Any, security: Security
    ) -> None:
        """A peer that has sent FIN cannot do a handshake."""
        near, peer = await connect_plain(reactor, security)
        with closing(peer):
            peer.send_fin()
            self.assertEqual(await near.input_stream.receive_some(), b"")
            self.assertIsInstance(await self.close_held(near), ClosedError)
            await self.assert_reset(peer)

    @over(Security.TLS12, Security.TLS13)
    @row(State.OPEN, Event.CLOSE_SILENT)
    async def test_a_server_that_stops_ends_a_silent_client_in_order(
        self, reactor: Any, security: Security
    ) -> None:
        """A client that has not begun its handshake receives FIN and no alert."""
        factory, peer, reached = await serve(reactor, security)
        reached.addErrback(lambda failure: failure.trap(CancelledError))
        reached.cancel()  # It would be left behind, since the application gets no connection.
        with closing(peer):
            self.assertEqual(await factory.drain(NEVER), 0)
            self.assert_received(await peer.rest(), b"", End.FIN)


class AbortTests(RowTests):
    """``abort`` in each state: a reset, without close_notify before it."""

    @with_socket()
    @row(State.OPEN, Event.ABORT)
    async def test_an_abort_is_a_reset(self, near: StreamSocket, peer: RawPeer) -> None:
        """The peer sees a truncation."""
        reading = near.input_stream.receive_some()
        await near.output_stream.write(b"half of it")
        await near.abort()
        self.assertIsInstance(await failure_of(reading), ClosedError)
        self.assert_received(await peer.rest(), b"half of it", End.RST)
        self.assertTrue(near.was_lost)

    @with_socket(PLAIN)
    @row(State.OPEN, Event.DETACH, PLAIN)
    @row(State.DETACHED, Event.DONE, PLAIN)
    async def test_a_hand_over_is_no_end_for_the_peer(
        self, near: StreamSocket, peer: RawPeer
    ) -> None:
        """The peer receives what another owner of the socket sends, and then its FIN."""
        await near.output_stream.write(b"half of it")
        with near.detach().socket as taken:
            taken.send(b", and the rest")
        self.assert_received(await peer.rest(), b"half of it, and the rest", End.FIN)
        self.assertFalse(near.was_lost)

    def assert_own(self, error: object) -> None:
        self.assertIsInstance(error, ClosedError)
        self.assertIn("aborted by this end", str(error))

    @with_protocol()
    @row(State.ABORTED, Event.RESET)
    async def test_an_abort_is_the_reason_of_the_end(
        self, protocol: Recorder, peer: RawPeer
    ) -> None:
        """The error that the protocol receives names the abort."""
        await protocol.abort()
        self.assert_own(await protocol.ended)
        self.assert_received(await peer.rest(), b"", End.RST)

    @with_protocol()
    @row(State.ABORTED, Event.RESET_UNSENT)
    async def test_an_abort_is_the_reason_why_bytes_are_lost(
        self, protocol: Recorder, peer: RawPeer
    ) -> None:
        """Queued bytes do not change the reason."""
        protocol.send_frame(bytes(MUCH))
        await protocol.abort()
        self.assert_own(await protocol.ended)
        self.assertEqual((await peer.rest()).ends, (End.RST,))

    @with_socket()
    @row(State.ANSWERING, Event.ABORT)
    async def test_after_the_peers_end_it_is_a_reset(
        self, near: StreamSocket, peer: RawPeer
    ) -> None:
        """The peer, which waits for an answer, sees a truncation."""
        peer.end()
        self.assertEqual(await near.input_stream.receive_some(), b"")
        await near.abort()
        self.assert_received(await peer.rest(), b"", End.RST)
        self.assertTrue(near.was_lost)

    @with_socket()
    @row(State.HALF_CLOSED, Event.ABORT)
    async def test_after_the_output_ended_it_is_a_reset(
        self, near: StreamSocket, peer: RawPeer
    ) -> None:
        """The reset follows FIN, and under TLS close_notify without FIN."""
        await near.output_stream.close()
        await turns(peer.reactor)
        await near.abort()
        self.assert_received(await peer.rest(), b"", peer.security.ends[0], End.RST)
        self.assertTrue(near.was_lost)

    @with_socket()
    @row(State.BROKEN, Event.ABORT)
    async def test_after_a_failed_send_it_ends_the_connection(
        self, near: StreamSocket, peer: RawPeer
    ) -> None:
        """Received bytes are dropped."""
        peer.send(b"last words")
        peer.reset()
        self.assertIsInstance(await failure_of(near.output_stream.write(b"x")), BrokenError)
        await near.abort()
        self.assertIsInstance(await failure_of(near.input_stream.receive_some()), ClosedError)
        self.assertTrue(near.was_lost)

    async def assert_abort_of_a_close(self, near: StreamSocket, peer: RawPeer) -> None:
        """Close with unsent bytes, abort, and check that the peer sees a reset only."""
        writing = near.output_stream.write(bytes(MUCH))
        closed = near.close()
        await turns(peer.reactor)
        await near.abort()
        await closed
        self.assertIsInstance(await failure_of(writing), ClosedError)
        self.assertEqual((await peer.rest()).ends, (End.RST,))

    @with_socket()
    @row(State.FINISHING, Event.ABORT)
    async def test_while_bytes_are_sent_it_is_a_reset(
        self, near: StreamSocket, peer: RawPeer
    ) -> None:
        """The peer sees no end in order behind the bytes that it has."""
        await self.assert_abort_of_a_close(near, peer)

    @with_socket()
    @row(State.ANSWERED, Event.ABORT)
    async def test_while_an_answer_is_sent_it_is_a_reset(
        self, near: StreamSocket, peer: RawPeer
    ) -> None:
        """Bytes of an answer to a peer that has ended are unsent."""
        peer.end()
        self.assertEqual(await near.input_stream.receive_some(), b"")
        await self.assert_abort_of_a_close(near, peer)

    @with_socket()
    @row(State.LINGERING, Event.ABORT)
    async def test_while_the_peers_end_is_awaited_it_is_a_reset(
        self, near: StreamSocket, peer: RawPeer
    ) -> None:
        """The reset follows the end in order."""
        await near.close()
        await near.abort()
        self.assert_received(await peer.rest(), b"", *peer.security.ends, End.RST)

    @with_socket()
    @row(State.ENDED, Event.ABORT)
    async def test_after_both_ends_it_is_a_reset(self, near: StreamSocket, peer: RawPeer) -> None:
        """The transport has not yet closed."""
        peer.end()
        self.assertEqual(await near.input_stream.receive_some(), b"")
        near.output_stream.close()
        await near.abort()
        self.assertEqual((await peer.rest()).ends[-1], End.RST)


for _case in (CloseTests, HeldTests, AbortTests):
    globals().update(_case.makeTestCaseClasses())
del CloseTests, HeldTests, AbortTests, _case
