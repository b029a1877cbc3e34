"""``twistd twsock-datagram`` echoes, names wrong options in one line, and counts."""

from __future__ import annotations

import signal
import socket
from typing import Any

from twisted.application.service import IService, IServiceMaker
from twisted.internet.defer import Deferred, succeed
from twisted.internet.testing import MemoryReactorClock
from twisted.plugin import IPlugin, getPlugins
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.datagram.fake_ports import PlainPort, log_lines
from tests.services.processes import twistd
from twsock.datagram.endpoint import IDatagramEndpoint
from twsock.datagram.port import DatagramPort
from twsock.datagram.protocol import EchoCounters
from twsock.datagram.runs import Run
from twsock.errors import SocketError, SocketErrorStatus
from twsock.protocols import DatagramEcho
from twsock.services.datagram import (
    DatagramService,
    Options,
    datagram_service,
)

HOST = "127.0.0.1"
LOCAL = f"udp:0:interface={HOST}"
LISTENING = r"listening on udp:.*?(\d+) \("


def make_client(port: int = 0) -> socket.socket:
    """Open a plain socket with a timeout."""
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.bind((HOST, port))
    client.settimeout(60)
    return client


def ask(port: int, payload: bytes = b"Hello, World!") -> bytes:
    """Exchange one datagram from a new socket."""
    with make_client() as client:
        client.sendto(payload, (HOST, port))
        answer, source = client.recvfrom(65_535)
        assert source == (HOST, port)
        return answer


class PluginPort(PlainPort):
    """A port that can be closed."""

    def stopListening(self) -> None:
        pass


@implementer(IDatagramEndpoint)
class PluginEndpoint:
    """An endpoint whose port has no support for runs."""

    def listen(self, protocol: Any) -> Deferred[Any]:
        port = PluginPort()
        protocol.makeConnection(port)
        return succeed(port)


class OptionsTests(SynchronousTestCase):
    """Options are checked before any port is opened."""

    def parse(self, *arguments: str) -> dict[str, Any]:
        """Parse a command line."""
        options = Options()
        options.parseOptions(list(arguments))
        return dict(options)

    def test_the_defaults_answer_the_source_without_limits(self) -> None:
        """Only the largest datagram is limited."""
        options = self.parse()
        for name in ("reply-port", "receive-buffer", "rate-limit"):
            self.assertIsNone(options[name], f"{name=}")
        self.assertEqual(options["max-datagram"], 65_535)
        self.assertFalse(options["answer-any-port"])

    def test_each_endpoint_option_adds_an_endpoint(self) -> None:
        """``--endpoint`` may be given several times."""
        options = self.parse("--endpoint", "udp:1", "-e", "udp:2:interface=[::1]")
        self.assertEqual(options["endpoints"], ["udp:1", "udp:2:interface=[::1]"])

    def test_a_wrong_value_is_refused_with_its_option(self) -> None:
        """The error names the option, the allowed values and the given value."""
        for option, value in [
            ("reply-port", "0"),
            ("reply-port", "65536"),
            ("receive-buffer", "0"),
            ("receive-buffer", "2147483648"),
            ("max-datagram", "65536"),
            ("max-datagram", "1k"),
            ("rate-limit", "0"),
            ("rate-limit", "0.5"),
            ("endpoint", "carrier-pigeon:1"),
            ("endpoint", "udp:"),
            ("endpoint", "udp:65536"),
            ("endpoint", "udp:1:colour=red"),
            ("endpoint", "udp:1:interface=localhost"),
            ("endpoint", "multicast:192.0.2.1:1"),
        ]:
            error = self.assertRaises(UsageError, self.parse, f"--{option}", value)
            self.assertIn(f"--{option}", str(error), f"{option=}, {value=}: {error}")
            self.assertIn(value, str(error), f"{option=}, {value=}: {error}")
            self.assertNotIn("\n", str(error), f"{option=}, {value=}: {error}")

    def test_an_endpoint_of_another_service_names_that_service(self) -> None:
        """Streams and groups have their own services."""
        for endpoint, service in (
            ("tcp:1337", "twsock-stream"),
            ("UNIX:/run/echo", "twsock-stream"),
            ("haproxy:tcp:1", "twsock-stream"),
            ("multicast:224.3.0.5:1", "twsock-multicast"),
        ):
            error = self.assertRaises(UsageError, self.parse, "--endpoint", endpoint)
            self.assertIn(service, str(error), f"{endpoint=}: {error}")

    def test_a_reply_port_that_is_the_own_port_is_refused(self) -> None:
        """
        Datagrams from that port count as another echo's, unless ``--answer-any-port`` is given.
        """
        given = ("--endpoint", "udp:1337", "--reply-port", "1337")
        error = self.assertRaises(UsageError, self.parse, *given)
        self.assertIn("would count as another echo", str(error))
        self.parse(*given, "--answer-any-port")


class ServiceTests(SynchronousTestCase):
    """The service that `datagram_service` makes from options."""

    def start(self, endpoints: list[str], **settings: Any) -> DatagramService:
        """Run a service until the end of the test."""
        service = datagram_service(MemoryReactorClock(), endpoints, **settings)
        service.startService()
        self.addCleanup(lambda: service.running and service.stopService())
        return service

    def test_the_result_provides_a_service(self) -> None:
        """It provides `IService`, which twistd runs."""
        service = datagram_service(MemoryReactorClock(), [LOCAL])
        self.assertTrue(verifyObject(IService, service))

    def test_the_plugin_names_existing_objects(self) -> None:
        """Reading its options and making the service opens no port."""
        makers: dict[str, Any] = {maker.tapname: maker for maker in getPlugins(IServiceMaker)}
        maker = makers["twsock-datagram"]
        self.assertTrue(verifyObject(IServiceMaker, maker))
        self.assertTrue(verifyObject(IPlugin, maker))
        process = maker.makeService(maker.options())
        self.assertTrue(IService.providedBy(process))
        (service,) = process
        self.assertEqual(service.ports, ())

    def test_options_reach_each_port_unless_its_string_sets_them(self) -> None:
        """A setting of the endpoint string replaces the option."""
        service = self.start(
            [LOCAL, f"{LOCAL}:receiveBuffer=9000:maxDatagram=65535"],
            receive_buffer=20_000,
            max_datagram=3,
        )
        sizes = []
        for port, answered in zip(service.ports, (2, 3), strict=True):
            assert isinstance(port, DatagramPort)
            with make_client() as client, socket.socket(fileno=socket.dup(port.fileno())) as udp:
                sizes.append(udp.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF))
                for payload in (b"abc", b"abcd", b""):
                    client.sendto(payload, (HOST, port.getHost().port))
                for _ in range(3):
                    port.doRead()
                self.assertEqual(port.counters.sent, answered, f"{answered=}")
        # Linux returns twice the size that was set.
        self.assertEqual(sizes[0] * 9, sizes[1] * 20)

    def test_all_ports_share_one_rate_limit(self) -> None:
        """A peer has one share, however many ports it sends to."""
        now = [0.0]
        service = self.start([LOCAL, LOCAL], rate_limit=3, now=lambda: now[0])
        run = Run(b"xxxx", 2, (HOST, 9))
        for _ in range(2):
            for _, echo in service.opened:
                echo.run_received(run)
            now[0] += 1
        self.assertEqual(sum(echo.counters.limited for _, echo in service.opened), 2)

    def test_a_stopped_service_can_start_again(self) -> None:
        """It opens new ports, and counts from zero."""
        service = self.start([LOCAL])
        before = service.ports
        self.successResultOf(service.stopService())
        self.assertEqual(service.ports, ())
        service.startService()
        self.assertNotEqual(service.ports, before)
        self.assertEqual(service.count(), EchoCounters())

    def test_after_a_failed_start_no_port_is_open(self) -> None:
        """One line names the endpoint; ports that were opened before are closed."""
        with make_client() as taken:
            number = taken.getsockname()[1]
            service = datagram_service(MemoryReactorClock(), [LOCAL, f"udp:{number}"])
            error = self.assertRaises(SystemExit, service.privilegedStartService)
        self.assertIn(f"twsock: cannot listen on udp:{number}: AddressAlreadyInUse", str(error))
        ((port, _),) = service.opened
        self.assertFalse(port.is_open)
        self.assertEqual(service.ports, ())

    def test_the_port_of_a_plugin_is_counted_by_its_echo(self) -> None:
        """Such a port has no counters of its own."""
        endpoint = PluginEndpoint()
        service = DatagramService(MemoryReactorClock(), [("plugin:1", endpoint)], DatagramEcho)
        service.startService()
        self.addCleanup(service.stopService)
        ((_, echo),) = service.opened
        echo.datagramReceived(b"x", ("192.0.2.1", 9))
        echo.datagramReceived(b"x", ("192.0.2.1", 0))
        self.assertEqual(service.count(), EchoCounters(received=2, answered=1, loop_risk=1))

    def test_a_wrong_endpoint_is_a_value_error(self) -> None:
        """A program that embeds the service gets the error at once, with the status."""
        reactor = MemoryReactorClock()
        self.assertRaises(ValueError, datagram_service, reactor, ["nowhere:1"])
        self.assertRaises(ValueError, datagram_service, reactor, [LOCAL], reply_port=0)
        error = self.assertRaises(SocketError, datagram_service, reactor, ["multicast:192.0.2.1:1"])
        self.assertIs(error.status, SocketErrorStatus.ADDRESS_FAMILY_NOT_SUPPORTED)

    def test_the_stop_is_logged_in_one_line_with_the_counts(self) -> None:
        """The counts are the sums over all ports."""
        service = self.start([LOCAL, LOCAL])
        for port, _ in service.opened:
            with make_client() as client:
                client.sendto(b"x", (HOST, port.getHost().port))
                port.doRead()
        with log_lines() as lines:
            self.successResultOf(service.stopService())
        (line,) = lines
        self.assertEqual(
            line,
            "stopped: 2 received, 2 answered",
        )


class TwistdTests(SynchronousTestCase):
    """Real processes."""

    def test_a_signal_ends_the_echo_with_its_counts(self) -> None:
        """On SIGTERM and on Ctrl-C; the log has no payload."""
        for number in (signal.SIGTERM, signal.SIGINT):
            with twistd("twsock-datagram", "--endpoint", LOCAL, "--endpoint", LOCAL) as server:
                ports = [int(server.wait_for(LISTENING)) for _ in range(2)]
                self.assertEqual(
                    [ask(port) for port in ports], [b"Hello, World!"] * 2, f"{number=}"
                )
                server.process.send_signal(number)
                self.assertEqual(server.wait(), -number, f"{number=}")
                self.assertEqual(
                    server.log.count("stopped: 2 received, 2 answered"), 1, f"{number=}"
                )
                self.assertNotIn("Hello", server.log, f"{number=}: {server.log}")
                self.assertNotIn("Traceback", server.log, f"{number=}: {server.log}")

    def test_the_guides_sample_is_answered_at_a_fixed_port(self) -> None:
        """The sample sends from one socket, and receives on another."""
        with make_client() as listening, make_client() as sending:
            reply_port = str(listening.getsockname()[1])
            arguments = ["--endpoint", LOCAL, "--reply-port", reply_port]
            with twistd("twsock-datagram", *arguments) as server:
                port = int(server.wait_for(LISTENING))
                sending.sendto(b"Hello, World!", (HOST, port))
                self.assertEqual(listening.recvfrom(100), (b"Hello, World!", (HOST, port)))
                server.terminate()
                server.wait()

    def test_a_port_in_use_is_reported_in_one_line(self) -> None:
        """The line names it and the reason; exit status 1, no traceback."""
        with make_client() as taken:
            endpoint = f"udp:{taken.getsockname()[1]}:interface={HOST}"
            with twistd("twsock-datagram", "--endpoint", endpoint) as server:
                self.assertEqual(server.wait(), 1)
                self.assertNotIn("Traceback", server.log)
                self.assertEqual(server.log.count("cannot listen on"), 1)
                self.assertIn(f"twsock: cannot listen on {endpoint}", server.log)
                self.assertIn("AddressAlreadyInUse (10)", server.log)

    def test_an_endpoint_of_streams_is_reported_after_the_usage(self) -> None:
        """The last line names the service that accepts it."""
        with twistd("twsock-datagram", "--endpoint", "tcp:1337") as server:
            self.assertEqual(server.wait(), 1)
            self.assertNotIn("Traceback", server.log)
            self.assertIn("run twsock-stream", server.log.splitlines()[-1])
