"""What a restart does with services: pause, resume, move, drain."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.services.restart.fakes import FakeReactor
from twsock.protocols import FrameEchoFactory, LineEchoFactory
from twsock.services.listening import ListeningService
from twsock.services.restart.served import Served


class Service(ListeningService):
    """A service without ports."""

    def __init__(self, factory: Any = None) -> None:
        super().__init__(FakeReactor(), [])
        self.factory = factory
        self.calls: list[str] = []
        self.rest: Deferred[None] = Deferred()

    def pause_ports(self) -> None:
        self.calls.append("pause")

    def resume_ports(self) -> None:
        self.calls.append("resume")

    async def drain_rest(self) -> None:
        await self.rest


class ServedTests(SynchronousTestCase):
    """`Served` on three services with connections, and one without."""

    def setUp(self) -> None:
        reactor: Any = FakeReactor()
        self.factories = [
            FrameEchoFactory(reactor),
            LineEchoFactory(reactor),
            FrameEchoFactory(reactor),
        ]
        self.services = [Service(), *(Service(factory) for factory in self.factories)]
        self.served = Served(reactor, lambda: self.services)

    def test_factories_have_keys(self) -> None:
        """The name of the protocol, and a number for further ones: the same in both processes."""
        keys = ("FrameEcho", "LineEcho", "FrameEcho#2")
        self.assertEqual([self.served.factory(key) for key in keys], self.factories)
        self.assertIsNone(self.served.factory("FrameEcho#3"))

    def test_all_services_pause_and_resume(self) -> None:
        """Those without connections as well."""
        self.served.pause()
        self.served.resume()
        for service in self.services:
            self.assertEqual(service.calls, ["pause", "resume"])

    def test_a_drain_waits_for_all_services(self) -> None:
        """A cancelled one waits for none."""
        draining = self.served.drain()
        for service in self.services:
            self.assertNoResult(draining)
            service.rest.callback(None)
        self.successResultOf(draining)
        for service in self.services:
            service.rest = Deferred()
        draining = self.served.drain()
        draining.cancel()
        self.failureResultOf(draining, CancelledError)
        for service in self.services:
            self.assertTrue(service.rest.called)

    def test_nothing_is_offered_without_connections(self) -> None:
        """The numbers are 0."""
        offers: list[str] = []

        def offer(key: str, theirs: socket.socket) -> None:
            offers.append(key)

        giving = Deferred.fromCoroutine(self.served.give(offer))
        result = self.successResultOf(giving)
        self.assertEqual((result.given, result.refused, offers), (0, 0, []))
        self.assertEqual(self.served.connections, 0)
