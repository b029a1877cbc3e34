"""The small transport of accepted connections has the texts of Twisted's own, when needed."""

from __future__ import annotations

import socket
from typing import Any, cast

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.tcp import Port, Server
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.stream.test_transport import IdleReactor, tcp_pair
from twsock.stream.listening.server_transport import (
    QuietServerTransport,
    ServerTransport,
    connect_socket,
    make_small_transports,
)


class ServerTransportTests(SynchronousTestCase):
    """A small transport beside Twisted's own transport of the same connection."""

    transport_class: type[ServerTransport] = ServerTransport
    #: The texts that a new connection from 127.0.0.1 has.
    stored = ["127.0.0.1", "Protocol,7,127.0.0.1"]
    prefix_after_loss = "Protocol,7,127.0.0.1"

    def setUp(self) -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        client = socket.create_connection(listening.getsockname())
        self.addCleanup(client.close)
        accepted, _ = listening.accept()
        self.addCleanup(accepted.close)
        self.port = cast(Any, Port)(0, Factory(), reactor=IdleReactor())
        self.port._realPortNumber = listening.getsockname()[1]
        arguments = (accepted, Protocol(), client.getsockname(), self.port, 7, IdleReactor())
        self.transport = self.transport_class(*cast(Any, arguments))
        self.twisted = Server(*cast(Any, arguments))

    def test_its_texts_are_those_of_twisted(self) -> None:
        """Its log prefix and its name are the same as those of Twisted's transport."""
        self.assertEqual(self.transport.logPrefix(), self.twisted.logPrefix())
        self.assertEqual(self.transport.logstr, self.twisted.logstr)
        self.assertEqual(repr(self.transport), repr(self.twisted))

    def test_it_stores_few_texts(self) -> None:
        """A new connection has no text that is not needed for each event."""
        texts = [value for value in vars(self.transport).values() if isinstance(value, str)]
        self.assertEqual(texts, self.stored)

    def test_it_has_texts_after_the_loss(self) -> None:
        """After the loss its name says so, and it still has a log prefix."""
        self.transport.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(repr(self.transport), "<lost connection #7>")
        self.assertEqual(self.transport.logPrefix(), self.prefix_after_loss)

    def test_it_is_a_transport_of_twisted(self) -> None:
        """The transport provides the interface of Twisted's TCP transports."""
        self.assertTrue(verifyObject(ITCPTransport, self.transport))


class QuietServerTransportTests(ServerTransportTests):
    """The same with a transport for a reactor that sets no log context."""

    transport_class = QuietServerTransport
    stored = ["127.0.0.1"]
    prefix_after_loss = "lost connection,7,127.0.0.1"


class MakeSmallTransportsTests(SynchronousTestCase):
    """`make_small_transports` changes ports of Twisted only."""

    def test_a_port_makes_small_transports(self) -> None:
        """A TCP port of Twisted makes them from then on."""
        port = cast(Any, Port)(0, Factory(), reactor=IdleReactor())
        make_small_transports(port)
        self.assertIs(port.transport, ServerTransport)

    def test_a_port_of_a_reactor_without_log_contexts_makes_quiet_transports(self) -> None:
        """If no event needs a log prefix, connections store none."""

        class QuietReactor(IdleReactor):
            sets_log_context = False

        port = cast(Any, Port)(0, Factory(), reactor=QuietReactor())
        make_small_transports(port)
        self.assertIs(port.transport, QuietServerTransport)

    def test_a_port_with_its_own_transport_keeps_it(self) -> None:
        """A class that an application has chosen stays, and so does a port without one."""

        class Own(Server):
            pass

        port = cast(Any, Port)(0, Factory(), reactor=IdleReactor())
        port.transport = Own
        make_small_transports(port)
        self.assertIs(port.transport, Own)
        make_small_transports(object())


class ConnectSocketTests(SynchronousTestCase):
    """`connect_socket`."""

    def connect(self, near: socket.socket, reactor: IdleReactor) -> Any:
        """Return the transport of a socket."""
        protocol = Protocol()
        connect_socket(reactor, near, protocol)
        self.assertIs(protocol.transport.socket, near)  # type: ignore[union-attr]
        return protocol.transport

    def test_a_connection_has_a_small_transport(self) -> None:
        """That which the reactor needs; the socket does not block any more."""
        lean = IdleReactor()
        lean.sets_log_context = False  # type: ignore[attr-defined]
        for reactor, kind in ((IdleReactor(), ServerTransport), (lean, QuietServerTransport)):
            near, far = tcp_pair()
            with near, far:
                transport = self.connect(near, reactor)
                self.assertIs(type(transport), kind)
                self.assertEqual(near.gettimeout(), 0)
                self.assertEqual(transport.getPeer().port, near.getpeername()[1])
                self.assertIn("Protocol", repr(transport))

    def test_a_unix_socket_has_that_of_twisted(self) -> None:
        """It has a name, too."""
        near, far = socket.socketpair()
        with near, far:
            self.assertIn("Protocol on", repr(self.connect(near, IdleReactor())))

    def test_a_socket_that_is_not_connected_is_an_error(self) -> None:
        """It stays open."""
        with socket.socket() as alone:
            self.assertRaises(OSError, connect_socket, IdleReactor(), alone, Protocol())
            self.assertGreater(alone.fileno(), -1)
