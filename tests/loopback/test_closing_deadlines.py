"""The rows of the deadline of a close, which the kernel and the peer may both delay."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from tests.loopback.closing_ends import (
    CHUNK,
    MUCH,
    UNREAD,
    Recorder,
    connect_endpoint,
    connect_kept,
    crowd,
    fill,
)
from tests.loopback.closing_rows import (
    ENCRYPTED,
    SOON,
    RowTests,
    over,
    row,
    with_protocol,
)
from tests.loopback.contract import failure_of
from tests.loopback.raw_peer import End, RawPeer, Security
from tests.stream.test_transport import PausedPusher
from twsock import ClosedError
from twsock.stream.closing import Event, State
from twsock.wire import encode_frame


class DeadlineTests(RowTests):
    """The deadline of a close; the error of the end names it."""

    def assert_blamed(self, error: object) -> None:
        self.assertIsInstance(error, ClosedError)
        self.assertIn("did not end within", str(error))

    @with_protocol(close_timeout=SOON)
    @row(State.LINGERING, Event.DEADLINE)
    async def test_a_slow_peer_still_gets_what_the_kernel_has(
        self, protocol: Recorder, peer: RawPeer
    ) -> None:
        """Unread bytes of the peer cause no reset at the deadline."""
        peer.send(UNREAD)
        payload = bytes(500_000)
        protocol.send_frame(payload)
        await protocol.close()
        self.assert_blamed(await protocol.ended)
        self.assert_received(await peer.rest(), encode_frame(payload), *peer.security.ends)

    @with_protocol(close_timeout=SOON)
    @row(State.FINISHING, Event.DEADLINE_UNSENT)
    async def test_unsent_bytes_end_in_a_reset(self, protocol: Recorder, peer: RawPeer) -> None:
        """An end in order would hide that the bytes are lost."""
        protocol.send_frame(bytes(MUCH))
        await protocol.close()
        self.assert_blamed(await protocol.ended)
        self.assertEqual((await peer.rest()).ends, (End.RST,))

    @with_protocol(close_timeout=SOON)
    @row(State.ANSWERED, Event.DEADLINE_UNSENT)
    async def test_an_unsent_answer_ends_in_a_reset(
        self, protocol: Recorder, peer: RawPeer
    ) -> None:
        """The protocol closes at the end of a peer that does not read."""
        protocol.send_frame(bytes(MUCH))
        peer.end()
        self.assert_blamed(await protocol.ended)
        self.assertEqual((await peer.rest()).ends, (End.RST,))

    @with_protocol(ENCRYPTED, close_timeout=SOON, is_narrow=True)
    @row(State.LINGERING, Event.DEADLINE_UNSENT)
    async def test_an_unsent_close_notify_ends_in_a_reset(
        self, protocol: Recorder, peer: RawPeer
    ) -> None:
        """The kernel has no room left when the connection is closed."""
        await fill(peer.reactor, protocol.own.getHandle())
        await protocol.close()
        self.assert_blamed(await protocol.ended)
        self.assertEqual((await peer.raw_rest()).ends, (End.RST,))

    @with_protocol(ENCRYPTED, close_timeout=SOON, is_narrow=True)
    @row(State.ENDED, Event.DEADLINE_UNSENT)
    async def test_after_the_peers_end_an_unsent_close_notify_ends_in_a_reset(
        self, protocol: Recorder, peer: RawPeer
    ) -> None:
        """The peer has ended its output, and does not read."""
        await fill(peer.reactor, protocol.own.getHandle())
        peer.end()
        self.assert_blamed(await protocol.ended)
        self.assertEqual((await peer.raw_rest()).ends, (End.RST,))

    @with_protocol(close_timeout=SOON, is_narrow=True)
    @row(State.LINGERING, Event.DEADLINE)
    async def test_a_full_kernel_does_not_delay_the_deadline(
        self, protocol: Recorder, peer: RawPeer
    ) -> None:
        """
        The kernel has all bytes, and no room: the socket never becomes writable, not even for FIN.

        The connection ends at the deadline, and the kernel still delivers the bytes.
        """
        count = crowd(protocol.own.getHandle(), protocol.send_frame)
        await protocol.close()
        self.assert_blamed(await protocol.ended)
        received = encode_frame(CHUNK) * count
        self.assert_received(await peer.rest(), received, *peer.security.ends)

    @with_protocol(close_timeout=SOON, is_narrow=True)
    @row(State.ENDED, Event.DEADLINE)
    async def test_a_full_kernel_does_not_delay_the_deadline_after_the_peers_end(
        self, protocol: Recorder, peer: RawPeer
    ) -> None:
        """The peer has ended its output, and does not read."""
        count = crowd(protocol.own.getHandle(), protocol.send_frame)
        peer.end()
        self.assert_blamed(await protocol.ended)
        received = encode_frame(CHUNK) * count
        self.assert_received(await peer.rest(), received, *peer.security.ends)

    @with_protocol(ENCRYPTED, close_timeout=SOON)
    @row(State.ANSWERING, Event.CLOSE)
    async def test_a_producer_that_does_not_end_has_a_deadline_after_the_peers_end(
        self, protocol: Recorder, peer: RawPeer
    ) -> None:
        """The TLS engine waits for the producer, which may still write."""
        protocol.transport.registerProducer(PausedPusher(), True)
        peer.end()
        self.assert_blamed(await protocol.ended)

    @over(*Security)
    @row(State.ANSWERING, Event.END_OUTPUT)
    @row(State.ENDED, Event.DEADLINE)
    async def test_an_output_that_ends_last_has_a_deadline(
        self, reactor: Any, security: Security
    ) -> None:
        """Both directions have ended, and the peer does not read."""
        near, peer, transport = await connect_kept(reactor, security, SOON)
        with closing(peer):
            count = crowd(transport.getHandle(), near.output_stream.send_all)
            peer.end()
            self.assertEqual(await near.input_stream.receive_some(), b"")
            await near.output_stream.close()
            await near.wait_closed()
            self.assert_received(await peer.rest(), CHUNK * count, *security.ends)

    @over(*Security)
    @row(State.HALF_CLOSED, Event.PEER_ENDED)
    @row(State.ENDED, Event.DEADLINE)
    async def test_an_output_that_ended_first_has_a_deadline(
        self, reactor: Any, security: Security
    ) -> None:
        """The peer ends its output and does not read, so even FIN may wait."""
        near, peer, transport = await connect_kept(reactor, security, SOON)
        with closing(peer):
            count = crowd(transport.getHandle(), near.output_stream.send_all)
            await near.output_stream.close()
            peer.end()
            self.assertEqual(await near.input_stream.receive_some(), b"")
            await near.wait_closed()
            self.assert_received(await peer.rest(), CHUNK * count, *security.ends)

    @over(Security.TLS12, Security.TLS13)
    @row(State.FINISHING, Event.DEADLINE)
    async def test_bytes_in_an_endpoint_of_tls_end_in_a_reset(
        self, reactor: Any, security: Security
    ) -> None:
        """The peer answers no handshake, so the engine holds the bytes at the deadline."""
        near, peer = await connect_endpoint(reactor, security, close_timeout=SOON)
        with closing(peer):
            writing = near.output_stream.write(b"secret")
            near.close()
            await near.wait_closed()
            await failure_of(writing)
            self.assertEqual((await peer.rest()).ends, (End.RST,))


globals().update(DeadlineTests.makeTestCaseClasses())
del DeadlineTests
