"""What a port and its protocol promise each other."""

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
    DatagramCounters,
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
    """Notes what it is told."""

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
    """Who declares an interface has all of it."""

    def test_our_protocols_own_ports(self) -> None:
        """All that there are."""
        for protocol in (RunProtocol(), DatagramEcho(), MulticastEcho(None)):
            verifyObject(IDatagramOwner, protocol)

    def test_our_port_takes_runs(self) -> None:
        """As the echo asks."""
        self.assertTrue(verifyClass(IRunTransport, DatagramPort))

    def test_nothing_was_counted_at_first(self) -> None:
        """Of anything."""
        counters = DatagramCounters()
        self.assertEqual({getattr(counters, name) for name in counters.__slots__}, {0})


class PlainProtocolTests(SynchronousTestCase):
    """Runs in, datagrams out."""

    def setUp(self) -> None:
        self.protocol = Plain()
        self.plain = PlainProtocol(self.protocol)

    def test_it_owns_a_port(self) -> None:
        """With every event there is."""
        verifyObject(IDatagramOwner, self.plain)

    def test_a_run_is_datagrams(self) -> None:
        """With host and port, and the zone of a link-local one."""
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

    def test_a_piece_of_a_datagram_is_none(self) -> None:
        """It is logged."""
        with capturedLogs() as events:
            self.plain.run_received(Run(b"a", 1, LINK_LOCAL, is_truncated=True))
        self.assertEqual((self.protocol.received, len(events)), ([], 1))

    def test_a_refusal_has_its_event(self) -> None:
        """Though not its reason."""
        self.plain.refused(SocketError("nobody there"))
        self.assertEqual(self.protocol.refusals, 1)

    def test_what_it_has_no_event_for_is_logged(self) -> None:
        """A failure to send, with the reason."""
        with capturedLogs() as events:
            self.plain.send_failed(SocketError("no way leads there"), None, 1)
        self.assertEqual([str(event["error"]) for event in events], ["no way leads there"])


class MembershipTests(SynchronousTestCase):
    """What the log says of a group."""

    def levels(self, error: SocketError | None) -> list[str]:
        membership = Membership("224.3.0.5", Interface("eth7", 7))
        with capturedLogs() as events:
            log_membership_change(Logger(), MembershipChange(membership, error))
        return [event["log_level"].name for event in events]

    def test_a_loss_is_a_warning(self) -> None:
        """It says why."""
        self.assertEqual(self.levels(SocketError("the interface eth7 is gone")), ["warn"])

    def test_a_return_is_a_piece_of_news(self) -> None:
        """Where it is heard again."""
        self.assertEqual(self.levels(None), ["info"])
