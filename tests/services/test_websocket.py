"""``twistd twsock-websocket`` serves, names wrong options in one line, and drains."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from twisted.application.service import IService, IServiceMaker
from twisted.internet.testing import MemoryReactorClock
from twisted.plugin import IPlugin, getPlugins
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from zope.interface.verify import verifyObject

from tests.services.processes import twistd
from twsock.protocols import UpgradePolicy, WebSocketEcho
from twsock.services.security import Security, find_development_certificate
from twsock.services.websocket import Options, websocket_service

LOCAL = "tcp:0:interface=127.0.0.1"


class OptionsTests(SynchronousTestCase):
    """Options are checked before any port is opened."""

    def parse(self, *arguments: str) -> dict[str, Any]:
        """Parse a command line."""
        options = Options()
        options.parseOptions(list(arguments))
        return dict(options)

    def test_defaults_are_those_of_the_design(self) -> None:
        """Any path, a ping every 20 seconds, and no compression."""
        options = self.parse()
        self.assertEqual((options["path"], options["compression"]), (None, 0))
        self.assertEqual((options["ping-interval"], options["max-message-size"]), (20, None))
        self.assertEqual((options["hosts"], options["origins"], options["subprotocols"]), ([],) * 3)

    def test_each_option_is_documented(self) -> None:
        """The page of the services has it, with its value."""
        page = (Path(__file__).parents[2] / "docs" / "services.rst").read_text()
        names = {name.rstrip("=") for name in Options().longOpt} - {"help", "version"}
        self.assertEqual([name for name in sorted(names) if f"``--{name}" not in page], [])

    def test_lists_are_given_one_by_one(self) -> None:
        """Names of hosts, origins and subprotocols."""
        words = ["--host", "a.example", "--host", "b.example", "--origin", "*"]
        options = self.parse(*words, "--subprotocol", "chat", "--ping-interval", "0")
        self.assertEqual(options["hosts"], ["a.example", "b.example"])
        self.assertEqual((options["origins"], options["subprotocols"]), (["*"], ["chat"]))
        self.assertIsNone(options["ping-interval"])

    def test_wrong_values_are_refused_with_their_options(self) -> None:
        """The error names the option."""
        for option, value in (
            ("max-message-size", "-1"),
            ("ping-interval", "often"),
            ("host", "a.example:1"),
            ("subprotocol", "a b"),
            ("path", "chat"),
            ("upgrade", "allowed"),
            ("endpoint", "tcp:"),
            ("max-connections", "0"),
        ):
            error = self.assertRaises(UsageError, self.parse, f"--{option}", value)
            self.assertIn(f"--{option}", str(error), f"{option=}, {value=}: {error}")


class ServiceTests(SynchronousTestCase):
    """The service that `websocket_service` makes from options."""

    def test_plugin_names_existing_objects(self) -> None:
        """Twistd finds it."""
        (maker,) = (m for m in getPlugins(IServiceMaker) if m.tapname == "twsock-websocket")
        self.assertTrue(verifyObject(IServiceMaker, maker))
        self.assertTrue(verifyObject(IPlugin, maker))
        self.assertTrue(IService.providedBy(maker.makeService(maker.options())))

    def test_settings_reach_the_connections(self) -> None:
        """Rules, limits and times."""
        service = websocket_service(
            MemoryReactorClock(),
            [LOCAL],
            path="/echo",
            subprotocols=["chat"],
            compression=True,
            max_message_size=7,
            ping_interval=3,
            max_connections=5,
        )
        built = service.factory.buildProtocol(None)
        assert isinstance(built, WebSocketEcho)
        rules = built.settings.rules
        self.assertEqual((rules.path, list(rules.subprotocols)), ("/echo", ["chat"]))
        self.assertIsNotNone(rules.compression)
        self.assertEqual((built.max_payload, built.settings.ping_interval), (7, 3))
        self.assertEqual(service.factory.group.max_connections, 5)

    def test_tls_begins_with_the_first_byte(self) -> None:
        """An upgrade in mid-connection is refused."""
        self.patch(os, "environ", {**os.environ, "XDG_STATE_HOME": self.mktemp()})
        security = Security([find_development_certificate()], UpgradePolicy.ALLOWED)
        with self.assertRaisesRegex(ValueError, "first byte"):
            websocket_service(MemoryReactorClock(), security=security)


class TwistdTests(SynchronousTestCase):
    """Real processes."""

    def test_service_echoes_until_sigterm(self) -> None:
        """On SIGTERM each client receives the code 1001, and the process ends as twistd does."""
        with twistd("twsock-websocket", "--endpoint", LOCAL, "--compression") as server:
            (port,) = server.wait_for_ports()
            with connect(f"ws://127.0.0.1:{port}/") as client:
                client.send("Hello, World!" * 100)
                self.assertEqual(client.recv(), "Hello, World!" * 100)
                self.assertEqual(len(client.protocol.extensions), 1)
                server.terminate()
                with self.assertRaises(ConnectionClosed) as caught:
                    client.recv()
                assert caught.exception.rcvd is not None
                self.assertEqual(caught.exception.rcvd.code, 1001)
            self.assertEqual(server.wait(), -signal.SIGTERM)
            self.assertIn("stopped: 1 accepted", server.log)
            self.assertNotIn("Hello", server.log)
            self.assertNotIn("Traceback", server.log)
