"""Interfaces between a port and its protocol, and the adapter for Twisted's protocols."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger, capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override
from zope.interface.verify import verifyClass, verifyObject

from twsock import SocketError
from twsock.datagram.network.interfaces import Interface
from twsock.datagram.network.membership import Membership, MembershipChange
from twsock.datagram.owner import (
    IDatagramOwner,
    IRunTransport,
    PlainProtocol,
    log_membership_change,
)
from twsock.datagram.port import DatagramPort
from twsock.datagram.runs import Run
from twsock.protocols import DatagramEcho, MulticastEcho
from twsock.protocols import DatagramProtocol as RunProtocol

LINK_LOCAL = ("fe80::1", 7001, 0, socket.if_nametoindex("lo"))


class Plain(DatagramProtocol):
    """A protocol of Twisted that records its events."""

    def __init__(self) -> None:
        self.transport: Any = object()
        self.received: list[tuple[bytes, Any]] = []
        self.refusals = 0

    @override
    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.received.append((datagram, addr))

    @override
    def connectionRefused(self) -> None:
        self.refusals += 1


class InterfaceTests(SynchronousTestCase):
    """Implementations have every attribute of their interface."""

    def test_protocols_provide_the_owner_interface(self) -> None:
        """All protocol classes of twsock."""
        for protocol in (RunProtocol(), DatagramEcho(), MulticastEcho(None)):
            verifyObject(IDatagramOwner, protocol)

    def test_the_port_provides_the_run_interface(self) -> None:
        """The echo looks it up."""
        self.assertTrue(verifyClass(IRunTransport, DatagramPort))


class PlainProtocolTests(SynchronousTestCase):
    """Runs become datagrams for a protocol of Twisted."""

    def setUp(self) -> None:
        self.protocol = Plain()
        self.plain = PlainProtocol(self.protocol)

    def test_the_adapter_provides_the_owner_interface(self) -> None:
        """With every event."""
        verifyObject(IDatagramOwner, self.plain)

    def test_a_run_is_delivered_as_datagrams(self) -> None:
        """With host and port; a link-local host has its zone."""
        self.plain.run_received(Run(b"aab", 2, ("127.0.0.1", 7001)))
        self.plain.run_received(Run(b"c", 1, LINK_LOCAL))
        self.assertEqual(
            self.protocol.received,
            [
                (b"aa", ("127.0.0.1", 7001)),
                (b"b", ("127.0.0.1", 7001)),
                (b"c", ("fe80::1%lo", 7001)),
            ],
        )

    def test_a_truncated_datagram_is_not_delivered(self) -> None:
        """It is logged."""
        with capturedLogs() as events:
            self.plain.run_received(Run(b"a", 1, LINK_LOCAL, is_truncated=True))
        self.assertEqual((self.protocol.received, len(events)), ([], 1))

    def test_an_icmp_error_calls_connection_refused(self) -> None:
        """Twisted's event has no reason."""
        self.plain.refused(SocketError("nobody there"))
        self.assertEqual(self.protocol.refusals, 1)

    def test_a_failed_send_is_logged(self) -> None:
        """With the reason."""
        with capturedLogs() as events:
            self.plain.send_failed(SocketError("no way leads there"), None, 1)
        self.assertEqual([str(event["error"]) for event in events], ["no way leads there"])


class MembershipTests(SynchronousTestCase):
    """Log lines about memberships."""

    def levels(self, error: SocketError | None) -> list[str]:
        membership = Membership("224.3.0.5", Interface("eth7", 7))
        with capturedLogs() as events:
            log_membership_change(Logger(), MembershipChange(membership, error))
        return [event["log_level"].name for event in events]

    def test_a_loss_is_a_warning(self) -> None:
        """It contains the reason."""
        self.assertEqual(self.levels(SocketError("the interface eth7 is gone")), ["warn"])

    def test_a_return_is_logged_as_information(self) -> None:
        """It contains the interface."""
        self.assertEqual(self.levels(None), ["info"])
