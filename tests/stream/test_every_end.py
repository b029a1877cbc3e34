"""Every event in every state of an end has a step, and the connection ends with a reason."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable
from itertools import product
from typing import Any, Final
from unittest import SkipTest

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from typing_extensions import override
from zope.interface import implementer

from tests import THOROUGH
from tests.stream.test_transport import KernelCase, Owner
from tests.tls.peer import SERVER, Peer
from twsock.errors import BrokenError, ClosedError, LocalProtocolError, SocketError
from twsock.stream.closing import State
from twsock.stream.connection import Connection
from twsock.tls.certificates import Certificate
from twsock.tls.engine import make_engine
from twsock.tls.server import ServerOptions, ServerTls

CERTIFICATE: Final = Certificate.from_pem(SERVER.private_key_and_cert_chain_pem.bytes())

#: Seconds until every deadline has passed.
LONG: Final = 60.0


class CountingOwner(Owner):
    """Counts the reports of the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.losses = 0

    @override
    def connection_ended(self, error: SocketError | None, reason: Failure) -> None:
        super().connection_ended(error, reason)
        self.losses += 1


@implementer(IHalfCloseableProtocol)
class Receiver(Protocol):
    """Reports the loss to a connection; the tests make all other calls."""

    def __init__(self, stream: Connection) -> None:
        self._stream = stream

    def readConnectionLost(self) -> None: ...
    def writeConnectionLost(self) -> None: ...

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stream.lost(reason)


Ending = Callable[[Any], object]

#: The calls that lead to each state. In states that wait, the kernel takes no more bytes.
WAYS: Final[dict[State, Ending]] = {
    State.OPEN: lambda _: None,
    State.ANSWERING: lambda case: case.stream.peer_ended(),
    State.HALF_CLOSED: lambda case: case.stream.end_output(),
    State.BROKEN: lambda case: case.break_sending(),
    State.FINISHING: lambda case: (case.fill(), case.stream.close()),
    State.ANSWERED: lambda case: (case.fill(), case.stream.peer_ended(), case.stream.close()),
    State.LINGERING: lambda case: case.stream.close(),
    State.ENDED: lambda case: (case.stream.peer_ended(), case.stream.close()),
    State.ABORTED: lambda case: case.stream.abort(),
    State.DETACHED: lambda case: case.detach(),
    State.LOST: lambda case: case.lose(ConnectionDone()),
}

#: The calls that lead to a state while output is held: a close would abort.
WAYS_WHILE_HELD: Final[dict[State, Ending]] = {
    State.ENDED: lambda case: (case.stream.peer_ended(), case.stream.end_output()),
}

#: States in which a close changes nothing.
ENDED_STATES: Final = (State.ENDED, State.ABORTED, State.DETACHED, State.LOST)

#: Under TLS nothing is handed over.
STATES_WITH_TLS: Final = tuple(state for state in State if state is not State.DETACHED)

#: The events that may happen in each state.
EVENTS: Final[dict[str, Ending]] = {
    "bytes are queued": lambda case: case.stream.is_open and case.fill(),
    "close()": lambda case: case.stream.close(),
    "abort()": lambda case: case.stream.abort(),
    "the peer's end": lambda case: case.stream.peer_ended(),
    "FIN is sent": lambda case: case.stream.fin_sent(),
    "a reset that nobody reads": lambda case: case.reset(),
    "a send fails": lambda case: case.break_sending(),
    "all deadlines": lambda case: case.reactor.advance(LONG),
    "a loss in order": lambda case: case.lose(ConnectionDone()),
    "a loss with an error": lambda case: case.lose(ConnectionLost()),
}

#: States without an output, which therefore cannot be ended.
WITHOUT_OUTPUT: Final = (State.BROKEN, State.ABORTED, State.DETACHED, State.LOST)


class EndCase(KernelCase):
    """Makes a connection over a plain socket, and brings it into a state."""

    @override
    def setUp(self) -> None:
        super().setUp()
        self.owner = self.counting = CountingOwner()
        self.stream = Connection(self.owner, self.descriptor, self.reactor)
        self.descriptor.protocol = Receiver(self.stream)

    def reach(self, state: State) -> None:
        """Make a connection, and bring it into a state."""
        self.setUp()
        WAYS[state](self)
        self.assertIs(self.stream.state, state)

    def break_sending(self) -> None:
        """Make a send fail for good."""
        self.stream.output_broke(OSError(errno.EPIPE, "Broken pipe"))

    def detach(self) -> None:
        """Take the socket out, and keep the loss from the connection."""
        self.descriptor.protocol = Protocol()
        self.stream.detach(self.stream.copy_socket(), b"").close()

    def reset(self) -> None:
        """Reset the connection at the peer, and let some seconds pass."""
        if self.peer.fileno() != -1:
            self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.peer.close()
        for _ in range(4):
            self.reactor.advance(0.5)

    def lose(self, reason: Exception) -> None:
        """Lose the connection."""
        self.stream.lost(Failure(reason))

    def assert_ends(self, case: str) -> None:
        """At the loss the owner gets one report, the waits end, and no timer is left."""
        waits = (self.stream.when_lost(), self.stream.when_fin_sent())
        self.lose(ConnectionDone())
        for wait in waits:
            self.successResultOf(wait)
        self.assertEqual(self.counting.losses, 1, case)
        self.reactor.advance(0)  # Runs the delayed calls of the descriptor itself.
        self.assertEqual(self.reactor.getDelayedCalls(), [], case)


class OverTcpTests(EndCase):
    """A connection over a plain socket."""

    is_fast = True
    #: The errors of a loss with an error; all other states report `BrokenError`.
    resets: dict[State, type[SocketError] | None] = {
        State.ABORTED: ClosedError,
        State.DETACHED: None,
        State.LOST: None,
    }
    #: The states that a connection of this kind reaches.
    states: tuple[State, ...] = tuple(State)

    def test_every_event_leads_to_the_end(self) -> None:
        """No event raises an error."""
        for state in self.states:
            for name, event in EVENTS.items():
                self.reach(state)
                event(self)
                self.assert_ends(f"{name} in {state}")

    def test_two_events_lead_to_the_end(self) -> None:
        """The second event happens in the state after the first."""
        if not (THOROUGH or self.is_fast):
            raise SkipTest("part of the thorough profile: a handshake for each of 1,000 pairs")
        for state in self.states:
            for (first, event), (second, another) in product(EVENTS.items(), repeat=2):
                self.reach(state)
                event(self)
                another(self)
                self.assert_ends(f"{first}, {second} in {state}")

    def test_output_can_be_ended_while_there_is_one(self) -> None:
        """In other states the call raises an error and changes nothing."""
        for state in self.states:
            self.reach(state)
            if state in WITHOUT_OUTPUT:
                self.assertRaises(LocalProtocolError, self.stream.end_output)
                self.assertIs(self.stream.state, state)
            else:
                self.stream.end_output()
            self.assert_ends(f"{state}")

    def test_a_loss_in_order_is_no_error_unless_this_end_made_it_one(self) -> None:
        """A failed send and an abort of this end are errors."""
        for state in self.states:
            self.reach(state)
            self.lose(ConnectionDone())
            expected = {State.BROKEN: BrokenError, State.ABORTED: ClosedError}.get(state)
            self.assertIs(_kind_of(self.owner.error), expected, state)

    def test_a_loss_with_an_error_is_reported(self) -> None:
        """Bytes may be lost, and this end does not know which."""
        for state in self.states:
            self.reach(state)
            self.lose(ConnectionLost())
            expected = self.resets.get(state, BrokenError)
            self.assertIs(_kind_of(self.owner.error), expected, state)

    def test_a_closed_connection_ends_at_its_deadline(self) -> None:
        """The error says that the peer did not end."""
        for state in (State.FINISHING, State.ANSWERED, State.LINGERING):
            self.reach(state)
            self.descriptor.doWrite()  # FIN, if the kernel has room for it.
            self.reactor.advance(LONG)
            self.reactor.advance(0)
            self.assertFalse(self.descriptor.connected, state)
            self.lose(ConnectionDone())
            self.assertIs(_kind_of(self.owner.error), ClosedError, state)


class HeldTests(EndCase):
    """What is written waits for a handshake."""

    def test_a_close_while_output_is_held_aborts(self) -> None:
        """What waits for a handshake cannot be sent; a connection that has ended stays ended."""
        for state in (State.OPEN, State.ANSWERING, State.HALF_CLOSED, State.BROKEN, *ENDED_STATES):
            if state is State.DETACHED:
                continue  # A held connection is not handed over.
            self.setUp()
            if state is not State.BROKEN:
                self.stream.hold()
            WAYS_WHILE_HELD.get(state, WAYS[state])(self)
            self.stream.hold()
            self.assertIs(self.stream.state, state)
            self.stream.close()
            expected = state if state in ENDED_STATES else State.ABORTED
            self.assertIs(self.stream.state, expected)
            self.assert_ends(f"{state}")


class OverTlsTests(OverTcpTests):
    """A connection over TLS."""

    is_fast = False
    #: After the peer's close_notify, a loss is an end in order, unless bytes are unsent.
    states = STATES_WITH_TLS
    resets = {
        State.ABORTED: ClosedError,
        State.LOST: None,
        State.ANSWERING: None,
        State.ENDED: None,
    }

    @override
    def setUp(self) -> None:
        super().setUp()
        creator, _ = ServerTls(ServerOptions([CERTIFICATE])).begin()
        engine = make_engine(creator, False, Receiver(self.stream), self.reactor)
        client = Peer()
        lower = self.stream.hold()
        lower.protocol = engine
        engine.makeConnection(lower)
        engine.dataReceived(client.hello())
        engine.dataReceived(client.take(self.peer.recv(1 << 16)))
        self.stream.rebind(engine)


def _kind_of(error: SocketError | None) -> type[SocketError] | None:
    return None if error is None else type(error)
