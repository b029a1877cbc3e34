"""``twistd twsock`` runs every service with its defaults."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any

from twisted.application.service import IService
from twisted.internet import reactor
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from tests.services.processes import twistd
from twsock.protocols import UpgradePolicy, WebSocketEcho
from twsock.services.datagram import DatagramService
from twsock.services.everything import Options, everything_service, makeService
from twsock.services.multicast import MulticastService
from twsock.services.process import ProcessService
from twsock.services.process_options import ProcessOptions
from twsock.services.start_error import StartError
from twsock.services.stream import StreamService, default_max_connections
from twsock.services.websocket import DEFAULT_WEBSOCKET_PORT
from twsock.stream.listening.buffer_limit import DEFAULT_MAX_BUFFERED

_SERVICES = ("twsock", *(f"twsock-{k}" for k in ("stream", "datagram", "multicast", "websocket")))


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
        """Start all services on unused ports; return the stream service."""
        reactor = MemoryReactorClock()
        service = everything_service(
            reactor,
            port=0,
            group_endpoint="multicast:224.3.0.5:0:interface=lo",
            websocket_port=0,
        )
        service.startService()
        self.addCleanup(service.stopService)
        reactor.run()
        reactor.advance(0)
        stream, *self.others, self.websocket = service
        return stream

    def test_it_has_every_service(self) -> None:
        """Streams, datagrams, a multicast group and WebSockets."""
        process: Any = makeService(Options())
        self.assertTrue(verifyObject(IService, process))
        (service,) = process
        kinds = [StreamService, DatagramService, MulticastService, StreamService]
        self.assertEqual([type(child) for child in service], kinds)

    def test_the_log_has_a_client_command_for_each_service(self) -> None:
        """With the real port; the group without the interface, which a client chooses itself."""
        self.run_it()
        ports = [other.ports[0].getHost().port for other in self.others]
        lines = [line for line in self.said if line.startswith("try it: twsock echo ")]
        endpoints = [line.split()[4] for line in lines]
        self.assertEqual(
            endpoints,
            [
                *("tcp:127.0.0.1:0", f"udp:127.0.0.1:{ports[0]}"),
                *(f"multicast:224.3.0.5:{ports[1]}", "ws://127.0.0.1:0/"),
            ],
        )
        self.assertTrue(lines[1].endswith(' "Hello, World!"'), lines[1])
        for line in lines[2:]:
            self.assertTrue(line.endswith(" Hello"), line)

    def test_connections_are_limited_as_in_the_stream_service(self) -> None:
        """The default is the same."""
        group = self.run_it().factory.group
        self.assertEqual(group.max_connections, default_max_connections())
        self.assertEqual(group.buffer_limit.max_buffered, DEFAULT_MAX_BUFFERED)

    def test_websockets_are_echoed(self) -> None:
        """On their own port, by default 1338."""
        self.run_it()
        self.assertIsInstance(self.websocket.factory.buildProtocol(None), WebSocketEcho)
        self.assertEqual(DEFAULT_WEBSOCKET_PORT, 1338)

    def test_a_stop_stops_every_service(self) -> None:
        """No port stays open."""
        self.run_it()
        ports = [port for other in self.others for port in other.ports]
        self.doCleanups()
        self.assertEqual([port.is_open for port in ports], [False] * len(ports))

    def test_options_of_the_services_are_refused(self) -> None:
        """The error is one line."""
        self.assertRaises(UsageError, Options().parseOptions, ["--framing", "line"])

    def test_connections_may_be_upgraded_to_tls(self) -> None:
        """The certificate is a development certificate; the client command names its authority."""
        before = signal.getsignal(signal.SIGHUP)
        stream = self.run_it()
        self.assertIs(stream.factory.buildProtocol(None).upgrade.policy, UpgradePolicy.ALLOWED)
        line, *_ = [line for line in self.said if line.startswith("try it")]
        authority = Path(line.rpartition(" --upgrade --ca ")[2])
        self.assertTrue(authority.is_relative_to(self.state))
        self.assertTrue(authority.exists())
        self.doCleanups()
        self.assertIs(signal.getsignal(signal.SIGHUP), before)

    def test_without_a_certificate_the_services_start(self) -> None:
        """A warning says why there is no TLS."""
        self.state.touch()
        stream = self.run_it()
        self.assertIsNone(stream.factory.buildProtocol(None).upgrade)
        (problem,) = [line for line in self.said if "TLS is not offered" in line]
        self.assertIn(str(self.state), problem)
        line, *_ = [line for line in self.said if line.startswith("try it")]
        self.assertNotIn("--upgrade", line)

    def test_help_names_every_service(self) -> None:
        """Each has a line that says what it does."""
        with twistd("--help") as helping:
            self.assertEqual(helping.wait(), 0)
            for name in _SERVICES:
                self.assertRegex(helping.log, rf"(?m)^ +{name} +[A-Z].*", f"{name=}")


class StartTests(TestCase):
    """A failed start."""

    async def test_a_port_in_use_ends_the_start(self) -> None:
        """For each of the services."""
        self.patch(os, "environ", {**os.environ, "XDG_STATE_HOME": self.mktemp()})
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(socket.AF_INET, kind) as taken:
                taken.bind(("127.0.0.1", 0))
                if kind == socket.SOCK_STREAM:
                    taken.listen()
                port = taken.getsockname()[1]
                process: Any = ProcessService(ProcessOptions())
                everything_service(
                    reactor,
                    port=port,
                    group_endpoint="multicast:224.3.0.5:0:interface=lo",
                    websocket_port=0,
                ).setServiceParent(process)
                error = self.assertRaises(StartError, process.privilegedStartService)
                self.assertIn(
                    f":{port}:interface=127.0.0.1: AddressAlreadyInUse (10)",
                    str(error),
                    f"{kind=}: {error}",
                )
                await process.stopService()
