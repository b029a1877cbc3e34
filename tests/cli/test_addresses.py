"""A name becomes addresses, or one line."""

from __future__ import annotations

import socket

from twisted.internet.defer import CancelledError, ensureDeferred
from twisted.trial.unittest import SynchronousTestCase

from tests.cli.datagram_conversations import FakeReactor
from twsock.cli.addresses import find_addresses
from twsock.cli.failure import CommandError


class AddressesTests(SynchronousTestCase):
    """Asked of the reactor's resolver."""

    def test_a_name_has_its_addresses_in_their_order(self) -> None:
        """Each of them once."""
        reactor = FakeReactor(("::1", "127.0.0.1", "::1"))
        found = self.successResultOf(ensureDeferred(find_addresses(reactor, "name", 5.0)))
        self.assertEqual(found, ["::1", "127.0.0.1"])
        self.assertEqual(reactor.nameResolver.asked, ["name"])
        self.assertEqual(reactor.getDelayedCalls(), [])

    def test_an_address_is_its_own(self) -> None:
        """Nobody is asked."""
        for address in ("192.0.2.1", "::1", "fe80::1%eth0"):
            reactor = FakeReactor()
            found = self.successResultOf(ensureDeferred(find_addresses(reactor, address, 5.0)))
            self.assertEqual((found, reactor.nameResolver.asked), ([address], []))

    def test_an_address_of_one_link_keeps_its_interface(self) -> None:
        """Without it nothing can be sent there."""
        reactor = FakeReactor(("fe80::1", "::1"))
        reactor.nameResolver.scope = socket.if_nametoindex("lo")
        found = self.successResultOf(ensureDeferred(find_addresses(reactor, "name", 5.0)))
        self.assertEqual(found, ["fe80::1%lo", "::1%lo"])

    def test_an_unknown_name_is_told(self) -> None:
        """With the status of it."""
        failed = ensureDeferred(find_addresses(FakeReactor(()), "no.example", 5.0))
        self.assertEqual(
            self.failureResultOf(failed, CommandError).value.line,
            "look-up failed: HostNotFound (6): nobody knows an address of no.example",
        )

    def test_a_resolver_that_does_not_tell_is_left(self) -> None:
        """After the timeout."""
        reactor = FakeReactor(None)
        failed = ensureDeferred(find_addresses(reactor, "slow.example", 5.0))
        reactor.advance(5.0)
        self.assertEqual(
            self.failureResultOf(failed, CommandError).value.line,
            "look-up failed: ConnectionTimedOut (3): "
            "nobody told the address of slow.example within 5 s",
        )
        self.assertEqual(reactor.nameResolver.cancelled, 1)

    def test_a_cancelled_look_up_leaves_nothing(self) -> None:
        """Ctrl-C while the resolver thinks."""
        reactor = FakeReactor(None)
        looking = ensureDeferred(find_addresses(reactor, "slow.example", 5.0))
        looking.cancel()
        self.failureResultOf(looking, CancelledError)
        self.assertEqual(reactor.getDelayedCalls(), [])
