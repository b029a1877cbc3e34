"""A switch carries out the actions of its core, with the one deadline of its connection."""

from __future__ import annotations

import errno
import gc
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from tests.stream.test_client_upgrade import COMMAND, DIRECT
from tests.stream.test_client_upgrade import Connection as ClientConnection
from tests.stream.test_transport import KernelCase
from tests.stream.test_upgrade import GO_AHEAD, REQUEST
from tests.stream.test_upgrade import Connection as ServerConnection
from tests.tls.peer import AUTHORITY, ServerPeer
from twsock.errors import BrokenError, ClosedError, RemoteProtocolError, SocketError
from twsock.names import HostName
from twsock.protocols import ClientUpgrade, StreamProtocol
from twsock.stream import Connection
from twsock.stream.switch import Switch
from twsock.stream.upgrade_core import Event, Side, State, UpgradeCore
from twsock.tls import Certificate, ClientOptions, SocketProtectionLevel, choose_versions
from twsock.tls.client import make_client
from twsock.tls.engine import Engine
from twsock.tls.handshake import Handshake, Verification

OPTIONS = ClientOptions(
    choose_versions(SocketProtectionLevel.SSL),
    HostName("localhost"),
    trust_roots=[Certificate.from_pem(AUTHORITY.cert_pem.bytes())],
)


class Owner:
    """The protocol above a connection; records the calls that it receives."""

    held_bytes = 0
    close_timeout = 5.0

    def __init__(self) -> None:
        self.events: list[str] = []
        self.connection: Any = None
        self.switch: Any = None

    def connection_ended(self, error: SocketError | None, reason: Failure) -> None:
        self.events.append("lost")
        self.switch.lost(error)

    def take_buffered(self) -> bytes:
        return b""

    def continue_above(self, engine: object) -> None:
        self.events.append("secure")
        self.connection.rebind(engine)

    def forget_switch(self) -> None: ...
    def drop_input(self) -> None: ...
    def output_drained(self) -> None: ...
    def input_ended(self) -> None: ...

    def output_failed(self, error: BrokenError) -> None:
        self.connection.abort(error)


class Recorded(Switch):
    """The client's side of an upgrade without messages; records the outcome."""

    __slots__ = ("done", "ends")

    def __init__(self, owner: Owner, connection: Connection) -> None:
        super().__init__(owner, connection, Side.CLIENT, 10.0)
        self.ends: list[tuple[Event, SocketError | None]] = []
        self.done: Deferred[None] = Deferred()

    @override
    def prepare(self) -> tuple[Any, Verification]:
        return make_client(OPTIONS)

    @override
    def accepted(self, engine: Any) -> None:
        self.done.callback(None)

    @override
    def failed(self, event: Event, error: SocketError) -> None:
        self.ends.append((event, error))


def things() -> list[Any]:
    """Return all objects of upgrades that are in memory."""
    kinds = (Switch, UpgradeCore, Handshake, Engine, Connection, StreamProtocol)
    return [each for each in gc.get_objects() if isinstance(each, kinds)]


def make_switch(transport: Any, clock: Any) -> tuple[Owner, Recorded]:
    """Put a connection and its switch on a transport."""
    owner = Owner()
    owner.connection = Connection(owner, transport, clock)
    owner.switch = switch = Recorded(owner, owner.connection)
    return owner, switch


class SwitchTests(SynchronousTestCase):
    """A switch on a transport in memory."""

    def setUp(self) -> None:
        self.clock, self.peer = Clock(), ServerPeer()
        self.transport: Any = StringTransport()
        self.owner, self.switch = make_switch(self.transport, self.clock)
        self.connection: Any = self.owner.connection

    def converse(self) -> None:
        """Deliver the bytes of each side to the other, until neither sends more."""
        while data := self.transport.value():
            self.transport.clear()
            self.transport.protocol.dataReceived(self.peer.take(data))

    def test_bytes_written_before_leave_in_plaintext_and_later_ones_inside(self) -> None:
        """The owner continues above TLS before the caller's Deferred fires."""
        self.connection.write(b"before")
        self.switch.handle(Event.BEGIN_DIRECT)
        sent = self.transport.value()
        self.assertTrue(sent.startswith(b"before\x16\x03"))
        self.connection.write(b"after")
        self.connection.send()
        self.assertEqual(self.transport.value(), sent)
        self.transport.clear()
        self.transport.protocol.dataReceived(self.peer.take(sent[len(b"before") :]))
        self.assertEqual(self.owner.events, ["secure"])
        self.successResultOf(self.switch.done)
        self.converse()
        self.assertEqual(self.peer.received, b"after")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        assert self.connection.peer_certificate is not None
        self.assertEqual(self.connection.peer_certificate.subject, "server")

    def test_a_deadline_that_comes_early_is_armed_again(self) -> None:
        """If the clock was set back, the upgrade continues until its deadline."""
        self.switch.handle(Event.BEGIN_DIRECT)
        call: Any = self.clock.getDelayedCalls()[0]
        passed, arguments = call.func, call.args
        call.cancel()
        self.clock.advance(4)
        passed(*arguments)
        self.assertEqual(self.switch.ends, [])
        (call,) = self.clock.getDelayedCalls()
        self.assertEqual(call.getTime(), 10)
        self.clock.advance(6)
        ((event, _),) = self.switch.ends
        self.assertIs(event, Event.DEADLINE)
        self.assertTrue(self.transport.disconnected)

    def test_a_loss_reaches_the_owner_before_the_caller(self) -> None:
        """Each of them gets one report."""
        self.switch.handle(Event.BEGIN_DIRECT)
        self.transport.protocol.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(self.owner.events, ["lost"])
        ((event, error),) = self.switch.ends
        self.assertIs(event, Event.LOST)
        self.assertIsInstance(error, BrokenError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_close_of_this_end_is_the_reason_of_a_failed_handshake(self) -> None:
        """The loss that follows is not the reason."""
        self.switch.handle(Event.BEGIN_DIRECT)
        self.connection.close()
        self.transport.protocol.connectionLost(Failure(ConnectionLost()))
        ((_, error),) = self.switch.ends
        self.assertIsInstance(error, ClosedError)

    def test_an_event_in_the_wrong_place_aborts_with_its_name(self) -> None:
        """A handshake ends although none was started."""
        self.switch.handle(Event.COMPLETED)
        self.assertTrue(self.transport.disconnected)
        ((event, error),) = self.switch.ends
        self.assertIs(event, Event.COMPLETED)
        self.assertIsInstance(error, RemoteProtocolError)
        self.assertIn(Event.COMPLETED.value, str(error))


class LosingVerification:
    """Loses the connection within the verification, and accepts the peer."""

    certificate = None
    is_accepted = True

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def conclude(self, connection: object) -> None:
        self._transport.protocol.connectionLost(Failure(ConnectionLost()))

    def ended(self, connection: object) -> None:
        """Do nothing: the handshake was not accepted."""

    def refusal(self) -> None:
        """Return no error: there is no reason to refuse the peer."""


class LosingSwitch(Recorded):
    """Loses its connection in JUDGED, which lasts as long as the verification."""

    __slots__ = ("transport",)

    transport: Any

    @override
    def prepare(self) -> tuple[Any, Verification]:
        creator, _ = make_client(OPTIONS)
        return creator, LosingVerification(self.transport)


class JudgedTests(SynchronousTestCase):
    """A connection is lost within the verification of its peer."""

    def test_a_lost_connection_does_not_become_secure(self) -> None:
        """The acceptance of the peer changes nothing."""
        transport: Any = StringTransport()
        owner, peer = Owner(), ServerPeer()
        owner.connection = Connection(owner, transport, Clock())
        owner.switch = switch = LosingSwitch(owner, owner.connection)
        switch.transport = transport
        switch.handle(Event.BEGIN_DIRECT)
        hello = transport.value()
        transport.clear()
        transport.protocol.dataReceived(peer.take(hello))
        self.assertEqual(owner.events, ["lost"])
        self.assertNoResult(switch.done)
        ((event, error),) = switch.ends
        self.assertIs(event, Event.LOST)
        self.assertIsInstance(error, BrokenError)


class LifetimeTests(SynchronousTestCase):
    """A lost connection leaves no object, in each state of its upgrade."""

    def setUp(self) -> None:
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        self.before = [id(each) for each in things()]

    def new_things(self) -> list[Any]:
        """Return the objects of upgrades that this test has made and that are in memory."""
        return [each for each in things() if id(each) not in self.before]

    def assert_freed(self, converse: Callable[[], Any], expected: State) -> None:
        """Lose the connection of a conversation; require that no object is left."""
        made = converse()
        (state,) = [each.state for each in self.new_things() if isinstance(each, Switch)]
        self.assertIs(state, expected)
        made.transport.protocol.connectionLost(Failure(ConnectionLost()))
        made.transport.protocol = None  # As a transport of Twisted does.
        del made
        self.assertEqual(self.new_things(), [], expected)

    def test_a_lost_server_is_freed_in_every_state(self) -> None:
        """PLAIN, HELD, HANDSHAKE, SECURE and FAILED."""

        def hold(end: bytes = b"") -> ServerConnection:
            made = ServerConnection(idle_timeout=None)
            made.receive(REQUEST + end)
            made.sent()
            return made

        def shake_hands() -> ServerConnection:
            made = hold()
            made.shake_hands()
            return made

        for converse, expected in (
            (lambda: ServerConnection(idle_timeout=None), State.PLAIN),
            (hold, State.HELD),
            (lambda: hold(b"\x16\x03\x01"), State.HANDSHAKE),
            (shake_hands, State.SECURE),
            (lambda: hold(b"plaintext"), State.FAILED),
        ):
            self.assert_freed(converse, expected)

    def test_a_lost_client_is_freed_in_every_state(self) -> None:
        """REQUESTED, HANDSHAKE, SECURE and FAILED."""

        def upgrade(settings: ClientUpgrade, answer: bytes = b"") -> ClientConnection:
            made = ClientConnection()
            made.protocol.upgrade_to_ssl(settings).addErrback(lambda _: None)
            made.receive(answer)
            return made

        def shake_hands() -> ClientConnection:
            made = upgrade(DIRECT)
            made.converse()
            return made

        for converse, expected in (
            (lambda: upgrade(COMMAND), State.REQUESTED),
            (lambda: upgrade(DIRECT), State.HANDSHAKE),
            (shake_hands, State.SECURE),
            (lambda: upgrade(COMMAND, GO_AHEAD + GO_AHEAD), State.FAILED),
        ):
            self.assert_freed(converse, expected)


class FailedSendTests(KernelCase):
    """The last send in plaintext fails, on a plain socket."""

    def test_no_engine_is_put_on_a_connection_that_failed(self) -> None:
        """Nothing more is sent; the error of the send is the reason."""
        owner, switch = make_switch(self.descriptor, self.reactor)
        owner.connection.write(b"before")
        self.socket.error = OSError(errno.EHOSTUNREACH, "No route to host")
        switch.handle(Event.BEGIN_DIRECT)
        self.assertIs(self.descriptor.protocol, self.protocol)
        owner.connection.lost(Failure(ConnectionLost()))
        ((event, error),) = switch.ends
        self.assertIs(event, Event.LOST)
        self.assertIsInstance(error, BrokenError)
        self.assertIn("No route to host", str(error))
