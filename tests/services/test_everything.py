"""``twistd twsock`` runs every service with its defaults."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from twisted.application.service import IService
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from twsock.protocols import UpgradePolicy
from twsock.services.everything import Options, everything_service, makeService
from twsock.services.stream import StreamService


class EverythingTests(SynchronousTestCase):
    """All services in one."""

    def setUp(self) -> None:
        self.state = Path(self.mktemp()).absolute()
        self.patch(os, "environ", {**os.environ, "XDG_STATE_HOME": str(self.state)})
        self.said: list[str] = []
        publisher: Any = globalLogPublisher
        publisher.addObserver(self.note)
        self.addCleanup(publisher.removeObserver, self.note)

    def note(self, event: Any) -> None:
        """Keep a line of the log."""
        self.said.append(formatEvent(event))

    def run_it(self) -> Any:
        """Start all, on ports in memory; give the stream service."""
        reactor = MemoryReactorClock()
        service = everything_service(reactor)
        service.startService()
        self.addCleanup(service.stopService)
        reactor.run()
        reactor.advance(0)
        (stream,) = service
        return stream

    def test_it_holds_the_stream_service(self) -> None:
        """The echo of port 1337 is among them."""
        service = makeService(Options())
        self.assertTrue(verifyObject(IService, service))
        self.assertEqual([type(child) for child in service], [StreamService])  # type: ignore[attr-defined]

    def test_options_belong_to_the_services(self) -> None:
        """An option is refused here, in one line."""
        self.assertRaises(UsageError, Options().parseOptions, ["--framing", "line"])

    def test_connections_may_be_put_into_tls(self) -> None:
        """With a certificate of its own; a line to type names who issued it."""
        before = signal.getsignal(signal.SIGHUP)
        stream = self.run_it()
        self.assertIs(stream.factory.buildProtocol(None).upgrade.policy, UpgradePolicy.ALLOWED)
        (line,) = [line for line in self.said if line.startswith("talk to it")]
        authority = Path(line.rpartition(" --upgrade --ca ")[2])
        self.assertTrue(authority.is_relative_to(self.state))
        self.assertTrue(authority.exists())
        self.doCleanups()
        self.assertIs(signal.getsignal(signal.SIGHUP), before)

    def test_without_a_certificate_it_runs_all_the_same(self) -> None:
        """A warning says why there is no TLS."""
        self.state.touch()
        stream = self.run_it()
        self.assertIsNone(stream.factory.buildProtocol(None).upgrade)
        (problem,) = [line for line in self.said if "TLS is not offered" in line]
        self.assertIn(str(self.state), problem)
        (line,) = [line for line in self.said if line.startswith("talk to it")]
        self.assertNotIn("--upgrade", line)
