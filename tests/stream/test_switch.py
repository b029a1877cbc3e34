"""A switch to TLS carries out what its core decides, with the one deadline of its connection."""

from __future__ import annotations

import errno
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from tests.stream.test_transport import KernelCase
from tests.tls.peer import AUTHORITY, ServerPeer
from twsock.errors import BrokenError, ClosedError, RemoteProtocolError, SocketError
from twsock.names import HostName
from twsock.stream import Connection
from twsock.stream.switch import Switch
from twsock.stream.upgrade_core import Event, Side
from twsock.tls import Certificate, ClientOptions, SocketProtectionLevel, choose_versions
from twsock.tls.client import make_client
from twsock.tls.handshake import Verification

OPTIONS = ClientOptions(
    choose_versions(SocketProtectionLevel.SSL),
    HostName("localhost"),
    trust_roots=[Certificate.from_pem(AUTHORITY.cert_pem.bytes())],
)


class Owner:
    """The protocol above a connection; records what it is told."""

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

    def drop_input(self) -> None: ...
    def output_drained(self) -> None: ...
    def input_ended(self) -> None: ...

    def output_failed(self, error: BrokenError) -> None:
        self.connection.abort(error)


class Recorded(Switch):
    """The client's side of an upgrade without messages; records how it ends."""

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
        """Pass on what each side sends, until neither sends more."""
        while data := self.transport.value():
            self.transport.clear()
            self.transport.protocol.dataReceived(self.peer.take(data))

    def test_bytes_written_before_leave_in_plaintext_and_later_ones_inside(self) -> None:
        """The owner continues when the peer is accepted, and then the caller is told."""
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
        """The clock of the system was set back: the upgrade goes on until it is late."""
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
        """Both hear of it once."""
        self.switch.handle(Event.BEGIN_DIRECT)
        self.transport.protocol.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(self.owner.events, ["lost"])
        ((event, error),) = self.switch.ends
        self.assertIs(event, Event.LOST)
        self.assertIsInstance(error, BrokenError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_close_of_this_end_is_the_reason_of_a_failed_handshake(self) -> None:
        """Not the loss that follows it."""
        self.switch.handle(Event.BEGIN_DIRECT)
        self.connection.close()
        self.transport.protocol.connectionLost(Failure(ConnectionLost()))
        ((_, error),) = self.switch.ends
        self.assertIsInstance(error, ClosedError)

    def test_an_event_in_the_wrong_place_aborts_with_its_name(self) -> None:
        """A handshake ends where none runs."""
        self.switch.handle(Event.COMPLETED)
        self.assertTrue(self.transport.disconnected)
        ((event, error),) = self.switch.ends
        self.assertIs(event, Event.COMPLETED)
        self.assertIsInstance(error, RemoteProtocolError)
        self.assertIn(Event.COMPLETED.value, str(error))


class FailedSendTests(KernelCase):
    """A switch over a plain socket, on which the last send in plaintext fails."""

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
