"""A lost connection is freed with its last reference, in each state of its end."""

from __future__ import annotations

import gc
import socket
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from tests.loopback.contract import turns
from tests.loopback.raw_peer import RawPeer, Security
from tests.loopback.reactors import VARIANT_REACTORS
from tests.loopback.test_lifetimes import OPTIONS, LifetimeTests, all_ended
from tests.tls.peer import ClientPeer, trusting
from twsock import BrokenError, StreamSocket, StreamSocketListener
from twsock.sockets.stream.input import READ_AHEAD_LIMIT
from twsock.stream.closing import State
from twsock.stream.connection import Connection

MIB = 1024 * 1024


def states() -> list[State]:
    """Return the states of all connections in memory that are not lost."""
    found = [thing.state for thing in gc.get_objects() if type(thing) is Connection]
    return [state for state in found if state is not State.LOST]


Step = Callable[[StreamSocket, RawPeer], Awaitable[None]]


async def do_nothing(_far: StreamSocket, _peer: RawPeer) -> None:
    """Leave the connection open."""


async def read_the_end(far: StreamSocket, peer: RawPeer) -> None:
    """The peer ends its output, and this end reads it."""
    peer.end()
    while await far.input_stream.receive_some():
        pass


async def write_after_the_end(far: StreamSocket, peer: RawPeer) -> None:
    """The peer ends its output, and does not read the answer."""
    await read_the_end(far, peer)
    await write_much(far, peer)


async def write_much(far: StreamSocket, _peer: RawPeer) -> None:
    """Write more than the kernel takes."""
    far.output_stream.write(bytes(16 * MIB))
    far.output_stream.flush().addErrback(lambda _: None)


async def end_output(far: StreamSocket, _peer: RawPeer) -> None:
    """End the output alone."""
    await far.output_stream.close()


async def meet_a_reset(far: StreamSocket, peer: RawPeer) -> None:
    """Write to a peer that has reset the connection, while nothing is read."""
    while far.input_stream.buffered < READ_AHEAD_LIMIT:
        peer.send(bytes(16 * 1024))
        await turns(peer.reactor, 1)
    await turns(peer.reactor)
    peer.reset()
    while True:
        try:
            await far.output_stream.send_all(b"x")
        except BrokenError:
            break


async def close_with_unsent_bytes(far: StreamSocket, peer: RawPeer) -> None:
    """Close with bytes that the peer does not read."""
    await write_much(far, peer)
    far.close()


async def close_after_the_end(far: StreamSocket, peer: RawPeer) -> None:
    """Close after the peer has ended its output."""
    await read_the_end(far, peer)
    far.close()


async def close_with_unsent_bytes_after_the_end(far: StreamSocket, peer: RawPeer) -> None:
    """Close after the end of a peer that does not read."""
    await write_after_the_end(far, peer)
    far.close()


async def close_and_finish(far: StreamSocket, peer: RawPeer) -> None:
    """Close when the kernel has room for all bytes."""
    await far.close()


async def abort(far: StreamSocket, _peer: RawPeer) -> None:
    """Abort the connection."""
    far.abort()


class StateLifetimes(LifetimeTests):
    """The connection of an accepted socket is lost in each state."""

    _reactors = VARIANT_REACTORS
    has_variants = False

    is_secure: ClassVar[bool] = False

    def lose_in(self, state: State, reach: Step) -> None:
        """
        Bring a connection into a state, and lose it by a reset of the peer; by an abort where the
        reactor does not watch it.
        """

        async def converse(port: int) -> None:
            accepting = self.listening.accept()
            security = Security.TLS13 if self.is_secure else Security.PLAIN
            connected = socket.create_connection(("127.0.0.1", port))
            peer = RawPeer(self.reactor, connected, security)
            if self.is_secure:
                await peer.shake_hands(ClientPeer(trusting()))
            far = await accepting
            await reach(far, peer)
            self.assertEqual(states(), [state])
            if state is not State.BROKEN:
                peer.reset()
            if state in (State.BROKEN, State.ANSWERING):
                far.abort()
            await far.wait_closed()

        self.check(self.serve(), converse)

    def serve(self) -> Any:
        """Accept sockets."""

        @asynccontextmanager
        async def serve(reactor: Any) -> Any:
            tls = OPTIONS if self.is_secure else None
            async with StreamSocketListener(reactor, tls=tls) as listening:
                self.listening = listening
                await listening.bind_endpoint("127.0.0.1", "")
                serving.ended = lambda: all_ended(reactor, listening)
                yield int(listening.information.local_port)
            del self.listening

        serving: Any = serve
        return serve

    def test_a_loss_in_open_leaves_nothing(self) -> None:
        """Neither direction has ended."""
        self.lose_in(State.OPEN, do_nothing)

    def test_a_loss_in_answering_leaves_nothing(self) -> None:
        """The peer has ended its output; with and without unsent bytes."""
        self.lose_in(State.ANSWERING, read_the_end)
        self.lose_in(State.ANSWERING, write_after_the_end)

    def test_a_loss_in_half_closed_leaves_nothing(self) -> None:
        """The output has ended, and the input has not."""
        self.lose_in(State.HALF_CLOSED, end_output)

    def test_a_loss_in_broken_leaves_nothing(self) -> None:
        """A send has failed, and received bytes can be read."""
        self.lose_in(State.BROKEN, meet_a_reset)

    def test_a_loss_in_finishing_leaves_nothing(self) -> None:
        """The socket is closed, and bytes are unsent."""
        self.lose_in(State.FINISHING, close_with_unsent_bytes)

    def test_a_loss_in_answered_leaves_nothing(self) -> None:
        """The socket is closed after the peer's end, and bytes are unsent."""
        self.lose_in(State.ANSWERED, close_with_unsent_bytes_after_the_end)

    def test_a_loss_in_lingering_leaves_nothing(self) -> None:
        """The socket is closed, and the peer has not ended."""
        self.lose_in(State.LINGERING, close_and_finish)

    def test_a_loss_in_ended_leaves_nothing(self) -> None:
        """Both directions have ended; the transport closes in the next turn."""
        self.lose_in(State.ENDED, close_after_the_end)

    def test_a_loss_in_aborted_leaves_nothing(self) -> None:
        """The transport resets the connection in the next turn."""
        self.lose_in(State.ABORTED, abort)


class SecureStateLifetimes(StateLifetimes):
    """Losses in each state under TLS."""

    is_secure = True


for case in (StateLifetimes, SecureStateLifetimes):
    globals().update(case.makeTestCaseClasses())
