"""``twistd twsock-multicast`` shares its port, answers as its options say, and counts."""

from __future__ import annotations

import signal
import socket
from contextlib import ExitStack
from typing import Any

from twisted.application.service import IService, IServiceMaker
from twisted.internet.testing import MemoryReactorClock
from twisted.plugin import IPlugin, getPlugins
from twisted.python.usage import UsageError
from twisted.trial.unittest import SkipTest, SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.datagram.fake_ports import log_lines
from tests.services.processes import Twistd, twistd
from twsock.datagram.protocol import EchoCounters
from twsock.datagram.runs import Run
from twsock.errors import SocketError, SocketErrorStatus
from twsock.protocols import ReplyTo
from twsock.services.listening import default_endpoints
from twsock.services.multicast import (
    DEFAULT_GROUP_ENDPOINT,
    MulticastService,
    Options,
    multicast_service,
)

GROUP = "224.3.0.5"
LOCAL = f"multicast:{GROUP}:0:interface=lo"
LISTENING = rf"listening on multicast:{GROUP}:(\d+):interface=lo \("


def make_client() -> socket.socket:
    """Open a plain socket that sends to groups of this machine."""
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.bind(("127.0.0.1", 0))
    client.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
    client.settimeout(60)
    return client


class OptionsTests(SynchronousTestCase):
    """Options are checked before any port is opened."""

    def parse(self, *arguments: str) -> Options:
        """Parse a command line."""
        options = Options()
        options.parseOptions(list(arguments))
        return options

    def test_the_default_answers_the_source(self) -> None:
        """Only the largest datagram is limited."""
        options = self.parse()
        self.assertEqual(options["reply"], "sender")
        self.assertIsNone(options["receive-buffer"])
        self.assertEqual(options["max-datagram"], 65_535)

    def test_the_default_group_is_that_of_the_sample_on_loopback(self) -> None:
        """No datagram leaves the machine unless the user says so."""
        self.assertEqual(DEFAULT_GROUP_ENDPOINT, "multicast:224.3.0.5:22113:interface=lo")

    def test_each_value_of_reply_is_accepted(self) -> None:
        """By its word."""
        for reply in ReplyTo:
            self.assertEqual(self.parse("--reply", reply.value)["reply"], reply.value, f"{reply=}")

    def test_a_wrong_value_is_refused_with_its_option(self) -> None:
        """The error names the option, the allowed values and the given value."""
        for option, value in [
            ("reply", "everybody"),
            ("receive-buffer", "0"),
            ("max-datagram", "65536"),
            ("endpoint", "udp:22113"),
            ("endpoint", "tcp:22113"),
            ("endpoint", "carrier-pigeon:1"),
            ("endpoint", "multicast:224.3.0.5"),
            ("endpoint", "multicast:224.3.0.5:many"),
            ("endpoint", "multicast:224.3.0.5:1:colour=red"),
        ]:
            error = self.assertRaises(UsageError, self.parse, f"--{option}", value)
            self.assertIn(f"--{option}", str(error), f"{option=}, {value=}: {error}")
            self.assertIn(value, str(error), f"{option=}, {value=}: {error}")
            self.assertNotIn("\n", str(error), f"{option=}, {value=}: {error}")

    def test_an_address_that_is_no_group_is_refused_with_its_status(self) -> None:
        """A program that embeds the service gets the same error."""
        error = self.assertRaises(UsageError, self.parse, "-e", "multicast:192.0.2.1:1")
        self.assertIn("AddressFamilyNotSupported (4)", str(error))


class ServiceTests(SynchronousTestCase):
    """The service that `multicast_service` makes from options."""

    def start(self, *endpoints: str, reply: ReplyTo = ReplyTo.OFF) -> MulticastService:
        """Run a service until the end of the test."""
        self.reactor = MemoryReactorClock()
        service = multicast_service(self.reactor, endpoints or [LOCAL], reply=reply)
        service.startService()
        self.addCleanup(lambda: service.running and service.stopService())
        return service

    def deliver(self, service: MulticastService) -> None:
        """Deliver a datagram to a service."""
        service.opened[0][1].run_received(Run(b"x", 1, ("127.0.0.1", 9), GROUP, 1))

    def test_the_result_provides_a_service(self) -> None:
        """It provides `IService`, which twistd runs."""
        service = multicast_service(MemoryReactorClock(), [LOCAL])
        self.assertTrue(verifyObject(IService, service))

    def test_the_plugin_names_existing_objects(self) -> None:
        """Reading its options and making the service joins no group."""
        makers: dict[str, Any] = {maker.tapname: maker for maker in getPlugins(IServiceMaker)}
        maker = makers["twsock-multicast"]
        self.assertTrue(verifyObject(IServiceMaker, maker))
        self.assertTrue(verifyObject(IPlugin, maker))
        process = maker.makeService(maker.options())
        self.assertTrue(IService.providedBy(process))
        (service,) = process
        self.assertEqual(service.ports, ())

    def test_a_wrong_endpoint_is_a_value_error(self) -> None:
        """A program that embeds the service gets the error at once, with the status."""
        reactor = MemoryReactorClock()
        self.assertRaises(ValueError, multicast_service, reactor, ["udp:1"])
        error = self.assertRaises(
            SocketError, multicast_service, reactor, ["multicast:192.0.2.1:1"]
        )
        self.assertIs(error.status, SocketErrorStatus.ADDRESS_FAMILY_NOT_SUPPORTED)

    def test_a_missing_interface_is_reported_in_one_line(self) -> None:
        """It is looked up when the service starts."""
        endpoint = f"multicast:{GROUP}:0:interface=nowhere0"
        service = multicast_service(MemoryReactorClock(), [endpoint])
        error = self.assertRaises(SystemExit, service.privilegedStartService)
        self.assertIn(f"twsock: cannot listen on {endpoint}: UnreachableHost (14)", str(error))

    def test_changed_counts_are_logged_each_minute(self) -> None:
        """And at the stop."""
        service = self.start()
        with log_lines() as lines:
            self.reactor.advance(60)
            self.assertEqual(lines, [])
            self.deliver(service)
            self.reactor.advance(59)
            self.assertEqual(lines, [])
            self.reactor.advance(1)
            self.reactor.advance(60)
            (line,) = lines
            self.assertTrue(line.startswith("so far: 1 received, 0 answered"), line)
            self.successResultOf(service.stopService())
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(
            lines[1],
            "stopped: 1 received, 0 answered",
        )

    def test_a_stopped_service_can_start_again(self) -> None:
        """It counts from zero."""
        service = self.start(reply=ReplyTo.SENDER)
        self.deliver(service)
        self.successResultOf(service.stopService())
        self.assertEqual(service.count().received, 1)
        service.startService()
        self.assertEqual(service.count(), EchoCounters())

    def test_groups_of_both_families_are_joined(self) -> None:
        """The log names each as a client does."""
        if len(default_endpoints(0)) == 1:
            raise SkipTest("this machine has no IPv6")
        service = self.start(LOCAL, "multicast:[ff15::1]:0:interface=lo")
        names = [service.describe_opened(port) for port in service.ports]
        self.assertRegex(names[0], rf"^multicast:{GROUP}:\d+:interface=lo$")
        self.assertRegex(names[1], r"^multicast:ff15\\:\\:1:\d+:interface=lo$")


class TwistdTests(SynchronousTestCase):
    """Real processes."""

    def start(self, stack: ExitStack, port: int = 0, *arguments: str) -> tuple[Twistd, int]:
        """Run the service; return it and its port."""
        endpoint = f"multicast:{GROUP}:{port}:interface=lo"
        started = stack.enter_context(twistd("twsock-multicast", "-e", endpoint, *arguments))
        return started, int(started.wait_for(LISTENING))

    def test_two_processes_share_a_port_and_a_third_cannot_have_it_alone(self) -> None:
        """Both get each datagram, and end in order with their counts."""
        with ExitStack() as stack, make_client() as client:
            first, port = self.start(stack)
            second, shared = self.start(stack, port)
            self.assertEqual(port, shared)
            for attempt in range(3):
                client.sendto(b"Hello", (GROUP, port))
                answers = [client.recvfrom(100) for _ in range(2)]
                self.assertEqual([data for data, _ in answers], [b"Hello"] * 2, f"{attempt=}")
                # Each member answers from another port, and neither from the group's.
                self.assertEqual(len({source for _, source in answers} - {port}), 2, f"{attempt=}")
            third = stack.enter_context(twistd("twsock-datagram", "-e", f"udp:{port}"))
            self.assertEqual(third.wait(), 1)
            self.assertIn(f"cannot listen on udp:{port}: AddressAlreadyInUse (10)", third.log)
            self.assertNotIn("Traceback", third.log)
            for member, number in ((first, signal.SIGTERM), (second, signal.SIGINT)):
                member.process.send_signal(number)
                self.assertEqual(member.wait(), -number, f"{number=}")
                self.assertIn(
                    "stopped: 3 received, 3 answered",
                    member.log,
                    f"{number=}: {member.log}",
                )
                self.assertNotIn("Hello", member.log, f"{number=}: {member.log}")
                self.assertNotIn("Traceback", member.log, f"{number=}: {member.log}")

    def test_a_port_without_sharing_is_reported_in_one_line(self) -> None:
        """The line names it and the reason; exit status 1, no traceback."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            endpoint = f"multicast:{GROUP}:{taken.getsockname()[1]}:interface=lo"
            with twistd("twsock-multicast", "-e", endpoint) as server:
                self.assertEqual(server.wait(), 1)
                self.assertNotIn("Traceback", server.log)
                self.assertEqual(server.log.count("cannot listen on"), 1)
                self.assertIn(f"{endpoint}: AddressAlreadyInUse (10)", server.log)

    def test_an_address_that_is_no_group_is_reported_after_the_usage(self) -> None:
        """The last line names it; exit status 1, no traceback."""
        with twistd("twsock-multicast", "-e", "multicast:192.0.2.1:1") as server:
            self.assertEqual(server.wait(), 1)
            self.assertNotIn("Traceback", server.log)
            self.assertIn("AddressFamilyNotSupported", server.log.splitlines()[-1])
