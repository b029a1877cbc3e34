"""What a port and its protocol promise each other."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyClass, verifyObject

from twsock.datagram.owner import DatagramCounters, IDatagramOwner, IRunTransport
from twsock.datagram.port import DatagramPort
from twsock.protocols import DatagramEcho, DatagramProtocol, MulticastEcho


class InterfaceTests(SynchronousTestCase):
    """Who declares an interface has all of it."""

    def test_our_protocols_own_ports(self) -> None:
        """All that there are."""
        for protocol in (DatagramProtocol(), DatagramEcho(), MulticastEcho(None)):
            verifyObject(IDatagramOwner, protocol)

    def test_our_port_takes_runs(self) -> None:
        """As the echo asks."""
        self.assertTrue(verifyClass(IRunTransport, DatagramPort))

    def test_nothing_was_counted_at_first(self) -> None:
        """Of anything."""
        counters = DatagramCounters()
        self.assertEqual({getattr(counters, name) for name in counters.__slots__}, {0})
