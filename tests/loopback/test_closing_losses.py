"""The rows of losses: a reset of the peer, with or without bytes unsent, and an end in order."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from twisted.internet.task import deferLater

from tests.loopback.closing_ends import (
    MUCH,
    Recorder,
    connect_endpoint,
    connect_kept,
    fill,
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


class ResetTests(RowTests):
    """The peer resets the connection, and the kernel reports the reset."""

    @with_protocol()
    @row(State.OPEN, Event.RESET)
    async def test_in_an_open_connection_it_is_an_error(
        self, protocol: Recorder, peer: RawPeer
    ) -> None:
        """The status of the error is that of a reset."""
        peer.reset()
        error = await protocol.ended
        assert isinstance(error, BrokenError)
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_RESET_BY_PEER)

    @with_protocol()
    @row(State.OPEN, Event.RESET_UNSENT)
    async def test_with_bytes_unsent_it_is_an_error(
        self, protocol: Recorder, peer: RawPeer
    ) -> None:
        """The unsent bytes are dropped."""
        protocol.send_frame(bytes(MUCH))
        peer.reset()
        self.assertIsInstance(await protocol.ended, BrokenError)
        self.assertEqual(protocol.unsent, 0)

    @with_socket()
    @row(State.HALF_CLOSED, Event.RESET)
    async def test_after_the_output_ended_it_is_an_error(
        self, near: StreamSocket, peer: RawPeer
    ) -> None:
        """The bytes before the reset can be read."""
        await near.output_stream.close()
        await peer.until_end()
        peer.send(b"half of it")
        peer.reset()
        self.assertEqual(await near.input_stream.receive_exactly(10), b"half of it")
        self.assertIsInstance(await failure_of(near.input_stream.receive_some()), BrokenError)
        self.assertTrue(near.was_lost)

    @over(*ENCRYPTED)
    @row(State.HALF_CLOSED, Event.RESET_UNSENT)
    async def test_after_an_end_of_the_output_that_is_unsent_it_is_an_error(
        self, reactor: Any, security: Security
    ) -> None:
        """The kernel had no room for close_notify."""
        near, peer, transport = await connect_kept(reactor, security)
        await fill(reactor, transport.getHandle())
        await near.output_stream.close()
        peer.reset()
        self.assertIsInstance(await failure_of(near.input_stream.receive_some()), BrokenError)
        self.assertTrue(near.was_lost)

    @with_protocol()
    @row(State.FINISHING, Event.RESET_UNSENT)
    async def test_in_a_close_with_bytes_unsent_it_is_an_error(
        self, protocol: Recorder, peer: RawPeer
    ) -> None:
        """The peer has not received all bytes."""
        protocol.send_frame(bytes(MUCH))
        protocol.close()
        peer.reset()
        self.assertIsInstance(await protocol.ended, BrokenError)

    @with_protocol()
    @row(State.LINGERING, Event.RESET)
    async def test_in_a_close_it_is_an_error(self, protocol: Recorder, peer: RawPeer) -> None:
        """The peer has received the end of this end, and has not ended in order."""
        protocol.close()
        self.assert_received(await peer.rest(), b"", *peer.security.ends)
        peer.reset()
        self.assertIsInstance(await protocol.ended, BrokenError)

    @with_protocol()
    @row(State.ANSWERING, Event.RESET_UNSENT)
    async def test_with_an_answer_unsent_it_is_an_error(
        self, protocol: Recorder, peer: RawPeer
    ) -> None:
        """The same holds after the peer's close_notify: bytes of this end are lost."""
        await hold(protocol, peer)
        peer.end()
        await turns(peer.reactor)
        protocol.send_frame(bytes(MUCH))
        peer.reset()
        self.assertIsInstance(await protocol.ended, BrokenError)

    @with_protocol()
    @row(State.ANSWERED, Event.RESET_UNSENT)
    async def test_in_a_close_with_an_answer_unsent_it_is_an_error(
        self, protocol: Recorder, peer: RawPeer
    ) -> None:
        """The protocol has closed at the peer's end."""
        protocol.send_frame(bytes(MUCH))
        peer.end()
        while protocol.is_open:
            await deferLater(peer.reactor, 0.001)
        peer.reset()
        self.assertIsInstance(await protocol.ended, BrokenError)

    @with_protocol(ENCRYPTED)
    @row(State.ANSWERING, Event.RESET)
    async def test_behind_close_notify_it_is_an_end_in_order(
        self, protocol: Recorder, peer: RawPeer
    ) -> None:
        """A reset of TCP after the peer's close_notify changes nothing."""
        await hold(protocol, peer)
        peer.end()
        await turns(peer.reactor)
        peer.reset()
        self.assertIsNone(await protocol.ended)

    @with_protocol(ENCRYPTED, is_narrow=True)
    @row(State.LINGERING, Event.RESET_UNSENT)
    async def test_with_close_notify_unsent_it_is_an_error(
        self, protocol: Recorder, peer: RawPeer
    ) -> None:
        """The kernel had no room for close_notify, and the peer has not ended."""
        await fill(peer.reactor, protocol.own.getHandle())
        protocol.close()
        peer.reset()
        self.assertIsInstance(await protocol.ended, BrokenError)

    @with_protocol(ENCRYPTED, is_narrow=True)
    @row(State.ENDED, Event.RESET_UNSENT)
    async def test_behind_close_notify_an_unsent_one_is_no_error(
        self, protocol: Recorder, peer: RawPeer
    ) -> None:
        """The peer has ended in order; only the close_notify of this end is lost."""
        await fill(peer.reactor, protocol.own.getHandle())
        peer.end()
        while protocol.is_open:
            await deferLater(peer.reactor, 0.001)
        peer.reset()
        self.assertIsNone(await protocol.ended)

    @over(Security.TLS12, Security.TLS13)
    @row(State.FINISHING, Event.RESET)
    async def test_with_bytes_in_an_endpoint_of_tls_it_is_an_error(
        self, reactor: Any, security: Security
    ) -> None:
        """The bytes wait in the engine for the handshake, and none of them is with the kernel."""
        near, peer = await connect_endpoint(reactor, security)
        writing = near.output_stream.write(b"secret")
        near.close()
        await turns(reactor)
        peer.reset()
        self.assertIsInstance(await failure_of(writing), BrokenError)
        await near.wait_closed()


class LossTests(RowTests):
    """Losses that Twisted reports as ends in order."""

    @with_protocol(ENCRYPTED)
    @row(State.LINGERING, Event.DONE)
    async def test_a_fin_in_place_of_close_notify_ends_a_close(
        self, protocol: Recorder, peer: RawPeer
    ) -> None:
        """The close of this end has succeeded."""
        protocol.close()
        self.assert_received(await peer.rest(), b"", *peer.security.ends)
        peer.send_fin()
        self.assertIsNone(await protocol.ended)

    @with_protocol(PLAIN)
    @row(State.LINGERING, Event.DONE)
    async def test_a_close_by_other_code_ends_a_close(
        self, protocol: Recorder, peer: RawPeer
    ) -> None:
        """Other code closes Twisted's transport, and does not wait for the peer's FIN."""
        protocol.close()
        self.assert_received(await peer.rest(), b"", End.FIN)
        protocol.own.loseConnection()
        self.assertIsNone(await protocol.ended)

    @over(*Security)
    @row(State.OPEN, Event.DONE)
    async def test_a_close_by_other_code_is_an_end_in_order(
        self, reactor: Any, security: Security
    ) -> None:
        """Such a close does not wait for the peer."""
        near, peer, transport = await connect_kept(reactor, security)
        with closing(peer):
            transport.loseConnection()
            self.assertEqual(await near.input_stream.receive_some(), b"")
            await near.wait_closed()
            self.assertFalse(near.was_lost)
            self.assert_received(await peer.rest(), b"", *security.ends)

    @over(*Security)
    @row(State.HALF_CLOSED, Event.DONE)
    async def test_a_close_by_other_code_may_follow_the_end_of_the_output(
        self, reactor: Any, security: Security
    ) -> None:
        """The output of this end has ended, and the peer's has not."""
        near, peer, transport = await connect_kept(reactor, security)
        with closing(peer):
            await near.output_stream.close()
            transport.loseConnection()
            self.assertEqual(await near.input_stream.receive_some(), b"")
            await near.wait_closed()
            self.assertFalse(near.was_lost)

    @over(*Security)
    @row(State.ANSWERING, Event.DONE)
    async def test_a_close_by_other_code_may_follow_the_peers_end(
        self, reactor: Any, security: Security
    ) -> None:
        """The peer has ended its output, and this end has not."""
        near, peer, transport = await connect_kept(reactor, security)
        with closing(peer):
            peer.end()
            self.assertEqual(await near.input_stream.receive_some(), b"")
            transport.loseConnection()
            await near.wait_closed()
            self.assertFalse(near.was_lost)

    @over(*Security)
    @row(State.OPEN, Event.FIN_SENT)
    @row(State.BROKEN, Event.DONE)
    async def test_a_close_by_other_code_keeps_the_error_of_a_send(
        self, reactor: Any, security: Security
    ) -> None:
        """The other code had sent FIN, so a later write failed."""
        near, peer, transport = await connect_kept(reactor, security)
        with closing(peer):
            transport.loseWriteConnection()
            self.assert_received(await peer.rest(), b"", End.FIN)
            self.assertIsInstance(await failure_of(near.output_stream.write(b"x")), BrokenError)
            transport.loseConnection()
            await near.wait_closed()
            self.assertTrue(near.was_lost)

    @over(*PLAIN)
    @row(State.BROKEN, Event.RESET)
    async def test_a_close_by_other_code_after_a_reset_keeps_the_error_of_a_send(
        self, reactor: Any, security: Security
    ) -> None:
        """The failed send has lost bytes of this end."""
        near, peer, transport = await connect_kept(reactor, security)
        peer.reset()
        self.assertIsInstance(await failure_of(near.output_stream.write(b"x")), BrokenError)
        transport.loseConnection()
        await near.wait_closed()
        self.assertTrue(near.was_lost)


for _case in (ResetTests, LossTests):
    globals().update(_case.makeTestCaseClasses())
del ResetTests, LossTests, _case
