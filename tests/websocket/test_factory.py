"""The factory of WebSockets passes its settings and limits to each connection."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from tests.tls.peer import SERVER
from tests.websocket.connections import END, REQUEST, Connected, Recorder, text
from twsock.protocols import ConnectionRegistry, UpgradePolicy, UpgradeToSsl, WebSocketEcho
from twsock.tls.certificates import Certificate
from twsock.tls.server import ServerOptions, ServerTls
from twsock.websocket.factory import WebSocketFactory
from twsock.websocket.protocol import WebSocketProtocol

TLS = ServerTls(
    ServerOptions([Certificate.from_pem(SERVER.private_key_and_cert_chain_pem.bytes())])
)


class FactoryTests(SynchronousTestCase):
    """Settings and limits."""

    def test_connections_share_the_settings(self) -> None:
        """All connections read one settings object."""
        made = Connected(Recorder, ping_interval=5, max_message_size=7, max_unsent=100_000)
        self.assertIs(made.protocol.settings, made.factory.settings)
        self.assertEqual(made.protocol.settings.ping_interval, 5)
        self.assertEqual((made.protocol.max_payload, made.protocol.max_unsent), (7, 100_000))

    def test_limit_of_the_class_is_kept(self) -> None:
        """Without a limit for messages, the factory leaves that of the class."""

        class Small(Recorder):
            max_payload = 5

        self.assertEqual(Connected(Small).protocol.max_payload, 5)

    def test_there_is_no_idle_timeout(self) -> None:
        """Pings find out whether a peer is alive."""
        self.assertIsNone(WebSocketFactory(Clock(), WebSocketProtocol).group.idle_timeout)

    def test_wrong_rules_are_refused_at_once(self) -> None:
        """The factory refuses wrong rules when it is made, not with the first request."""
        for options in ({"hosts": ["a:1"]}, {"path": "chat"}, {"subprotocols": ["a b"]}):
            with self.assertRaises(ValueError, msg=str(options)):
                WebSocketFactory(Clock(), WebSocketProtocol, **options)

    def test_upgrade_is_implicit_only(self) -> None:
        """The factory refuses any other policy when it is made, also that of the class."""
        for policy in UpgradePolicy:

            class Upgrading(Recorder):
                upgrade = UpgradeToSsl(TLS, policy)

            if policy is UpgradePolicy.IMPLICIT:
                WebSocketFactory(Clock(), Recorder, upgrade=Upgrading.upgrade)
                WebSocketFactory(Clock(), Upgrading)
                continue
            with self.assertRaisesRegex(ValueError, "IMPLICIT", msg=str(policy)):
                WebSocketFactory(Clock(), Recorder, upgrade=Upgrading.upgrade)
            with self.assertRaisesRegex(ValueError, "IMPLICIT", msg=str(policy)):
                WebSocketFactory(Clock(), Upgrading)

    def test_upgrade_is_checked_without_the_factory_too(self) -> None:
        """Under any factory of Twisted, a wrong policy of the class aborts the connection."""

        class Upgrading(Recorder):
            upgrade = UpgradeToSsl(TLS, UpgradePolicy.REQUIRED)

        built = Upgrading()
        built.group = ConnectionRegistry(Clock())
        transport = StringTransport()
        with self.assertRaisesRegex(ValueError, "IMPLICIT"):
            built.makeConnection(transport)
        self.assertTrue(transport.disconnecting)

    def test_any_factory_of_twisted_works(self) -> None:
        """A connection then has the defaults, and no limit on their number."""
        factory = Factory.forProtocol(WebSocketEcho)
        built: Any = factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1))
        transport = StringTransport()
        built.group = ConnectionRegistry(Clock())
        built.makeConnection(transport)
        built.dataReceived(REQUEST + END + text("a"))
        self.assertTrue(transport.value().endswith(b"\r\n\r\n\x81\x01a"))
        built.group.clock.advance(20)
        self.assertTrue(transport.value().endswith(b"\x89\x00"))
        built.connectionLost()
        self.assertEqual(built.group.clock.getDelayedCalls(), [])

    def test_limit_of_connections_holds(self) -> None:
        """A connection above it gets no protocol."""
        made = Connected(Recorder, max_connections=1)
        self.assertIsNone(made.factory.buildProtocol(None))
