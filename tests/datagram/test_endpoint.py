"""Datagram endpoints and their strings."""

from __future__ import annotations

import socket
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted import plugins
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase
from typing_extensions import override
from zope.interface.verify import verifyObject

from tests.leaks import Leaks
from twsock.datagram.endpoint import (
    IDatagramEndpoint,
    IDatagramEndpointStringParser,
    MulticastEndpoint,
    UdpEndpoint,
    datagram_endpoint_from_string,
)
from twsock.datagram.port import DatagramPort
from twsock.datagram.udp_socket import DatagramOptions
from twsock.errors import SocketError, SocketErrorStatus

GROUP = "224.3.0.5"
#: An address for documentation (:rfc:`5737`), which no host has.
STRANGER = "192.0.2.1"

#: A plugin as an application would install it, under a unique name.
PLUGIN = """
    from twisted.plugin import IPlugin
    from zope.interface import implementer

    from twsock.datagram.endpoint import IDatagramEndpointStringParser, UdpEndpoint

    @implementer(IPlugin, IDatagramEndpointStringParser)
    class Parser:
        prefix = "Twice"

        def parse_datagram_endpoint(self, reactor, *args, **kwargs):
            return self._make(reactor, *args, **kwargs)

        def _make(self, reactor, port, interface=""):
            return UdpEndpoint(reactor, 2 * int(port), interface)

    parser = Parser()
"""


def has_ipv6_loopback() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


class Collector(DatagramProtocol):
    """A protocol that records its state and its first datagram."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.first: Deferred[bytes] = Deferred()

    @override
    def startProtocol(self) -> None:
        self.events.append("started")

    @override
    def stopProtocol(self) -> None:
        self.events.append("stopped")

    @override
    def datagramReceived(self, datagram: bytes, addr: object) -> None:
        if not self.first.called:
            self.first.callback(datagram)


class StringTests(SynchronousTestCase):
    """A string becomes an endpoint, or an error of one line."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()

    def endpoint(self, description: str) -> IDatagramEndpoint:
        return datagram_endpoint_from_string(self.reactor, description)

    def udp(self, port: int, interface: str = "", **options: Any) -> UdpEndpoint:
        return UdpEndpoint(self.reactor, port, interface, DatagramOptions(**options))

    def group(
        self, group: str, port: int, interface: str, source: str | None = None, **options: Any
    ) -> MulticastEndpoint:
        chosen = DatagramOptions(**options)
        return MulticastEndpoint(self.reactor, group, port, interface, source, chosen)

    def assert_refused(self, description: str, reason: str) -> None:
        """Check the message of the error for a string."""
        error = self.assertRaises(ValueError, self.endpoint, description)
        self.assertEqual(str(error), f"cannot use the endpoint {description!r}: {reason}")

    def test_udp_needs_only_a_port(self) -> None:
        """It then listens on all IPv4 addresses, with default options."""
        self.assertEqual(self.endpoint("udp:1337"), self.udp(1337))

    def test_an_interface_of_udp_is_a_numeric_address(self) -> None:
        """IPv4 or IPv6, in brackets or with escaped colons, with a name or after the port."""
        for written in ("[::1]", r"\:\:1", "interface=[::1]", r"interface=\:\:1"):
            self.assertEqual(self.endpoint(f"udp:1337:{written}"), self.udp(1337, "::1"), written)
        for address in ("127.0.0.1", "[fe80::1%lo]"):
            expected = self.udp(0, address.strip("[]"))
            self.assertEqual(self.endpoint(f"UDP:interface={address}:port=0"), expected, address)

    def test_arguments_of_udp_set_options(self) -> None:
        """Each argument sets one field."""
        self.assertEqual(
            self.endpoint(
                "udp:1:ttl=3:receiveBuffer=4000:sendBuffer=5000:maxDatagram=0:dontFragment=yes"
            ),
            self.udp(
                1,
                hop_limit=3,
                receive_buffer=4000,
                send_buffer=5000,
                max_datagram=0,
                dont_fragment=True,
            ),
        )

    def test_multicast_needs_only_a_group_and_a_port(self) -> None:
        """Without an interface the datagrams stay on this machine."""
        expected = self.group(GROUP, 22113, "lo")
        self.assertEqual(self.endpoint(f"multicast:{GROUP}:22113"), expected)

    def test_a_group_may_be_an_ipv6_address(self) -> None:
        """In brackets or with escaped colons."""
        expected = self.group("ff15::1", 22113, "eth0", multicast_hop_limit=0)
        for group in ("[ff15::1]", r"ff15\:\:1"):
            self.assertEqual(self.endpoint(f"multicast:{group}:22113:eth0:0"), expected, group)

    def test_arguments_of_multicast_set_options(self) -> None:
        """Each argument sets one field."""
        self.assertEqual(
            self.endpoint(
                f"multicast:port=1:group={GROUP}:interface=2:ttl=255:loopback=no:source={STRANGER}"
                ":receiveBuffer=4000:sendBuffer=5000:maxDatagram=65535:dontFragment=no"
            ),
            self.group(
                GROUP,
                1,
                "2",
                source=STRANGER,
                multicast_hop_limit=255,
                multicast_loopback=False,
                receive_buffer=4000,
                send_buffer=5000,
            ),
        )

    def test_an_invalid_group_has_a_status(self) -> None:
        """
        A unicast address, a name and an empty text have status ``ADDRESS_FAMILY_NOT_SUPPORTED``.
        """
        for group in ("127.0.0.1", "localhost", ""):
            error = self.assertRaises(SocketError, self.endpoint, f"multicast:{group}:22113")
            self.assertIs(error.status, SocketErrorStatus.ADDRESS_FAMILY_NOT_SUPPORTED, group)

    def test_a_malformed_string_is_refused(self) -> None:
        """The parser's message is part of the error."""
        self.assert_refused("udp:\\", "it ends with a backslash")

    def test_an_unknown_kind_is_refused(self) -> None:
        """The message lists the known kinds."""
        reason = "unknown kind 'tcp', the kinds for datagrams are multicast, udp"
        self.assert_refused("tcp:1337", reason)

    def test_an_unknown_argument_is_refused(self) -> None:
        """
        The message lists the known arguments. Parameters of Python's calls are not among them.
        """
        common = "receiveBuffer, sendBuffer, maxDatagram, dontFragment"
        for word in ("loopback", "reactor", "self", "options", ""):
            reason = f"unknown argument {word!r}, known are port, interface, ttl, {common}"
            self.assert_refused(f"udp:1337:{word}=no", reason)
        words = f"group, port, interface, ttl, loopback, source, {common}"
        reason = f"unknown argument 'shared', known are {words}"
        self.assert_refused(f"multicast:{GROUP}:1:shared=no", reason)

    def test_a_missing_argument_is_refused(self) -> None:
        """The message shows the form of the string."""
        self.assert_refused("udp", "the port is missing, the form is udp:PORT")
        form = "the form is multicast:GROUP:PORT"
        self.assert_refused("multicast", f"the group is missing, {form}")
        self.assert_refused(f"multicast:{GROUP}", f"the port is missing, {form}")

    def test_too_many_arguments_are_refused(self) -> None:
        """Some arguments need a name, and none may occur twice."""
        reason = "too many arguments: 'x'; without a name: port, interface"
        self.assert_refused("udp:1337:[::1]:x", reason)
        self.assert_refused("udp:1:port=2", "'port' is given twice, once without its name")

    def test_an_invalid_number_is_refused(self) -> None:
        """The message has the bounds. Digits of other scripts, signs and spaces are invalid."""
        for port in ("", "65536", "-1", "+1", " 1", "1_0", "0x1", "\u0661", "1" * 5000, "a\nb"):
            self.assert_refused(f"udp:{port}", f"port is a number, 0 to 65535, not {port!r}")
        for word, bounds, wrong in (
            ("ttl", "1 to 255", "0"),
            ("receiveBuffer", "1 to 2147483647", "2147483648"),
            ("sendBuffer", "1 to 2147483647", "0"),
            ("maxDatagram", "0 to 65535", "65536"),
        ):
            reason = f"{word} is a number, {bounds}, not {wrong!r}"
            self.assert_refused(f"udp:1:{word}={wrong}", reason)
        reason = "ttl is a number, 0 to 255, not '256'"
        self.assert_refused(f"multicast:{GROUP}:1:ttl=256", reason)

    def test_anything_but_yes_or_no_is_refused(self) -> None:
        """Other words for yes and no are invalid."""
        self.assert_refused("udp:1:dontFragment=1", "dontFragment is yes or no, not '1'")
        reason = "loopback is yes or no, not 'No'"
        self.assert_refused(f"multicast:{GROUP}:1:loopback=No", reason)

    def test_a_host_name_is_refused(self) -> None:
        """No name is looked up."""
        allowed = "a numeric address, such as 127.0.0.1 or [::1]"
        for name in ("localhost", "lo", "127.0.0.1%lo"):
            self.assert_refused(f"udp:1:{name}", f"interface is {allowed}, not {name!r}")
        for name in ("localhost", ""):
            reason = f"source is {allowed}, not {name!r}"
            self.assert_refused(f"multicast:{GROUP}:1:source={name}", reason)

    def test_a_group_as_interface_is_refused(self) -> None:
        """The message refers to the kind ``multicast``."""
        reason = "an address of this machine (for a group use multicast:GROUP:PORT)"
        self.assert_refused(f"udp:1:{GROUP}", f"interface is {reason}, not '{GROUP}'")

    def test_an_empty_interface_is_refused_for_a_group(self) -> None:
        """Otherwise datagrams for this machine could leave it."""
        reason = "interface is a name, an index or an address, such as lo, not ''"
        self.assert_refused(f"multicast:{GROUP}:1:interface=", reason)

    def test_endpoints_provide_their_interface(self) -> None:
        """Both kinds provide `IDatagramEndpoint`."""
        for description in ("udp:1337", f"multicast:{GROUP}:22113"):
            self.assertTrue(
                verifyObject(IDatagramEndpoint, self.endpoint(description)), description
            )


class PluginTests(SynchronousTestCase):
    """Plugins of Twisted add further kinds."""

    def setUp(self) -> None:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        (folder / "twsock_test_twice.py").write_text(textwrap.dedent(PLUGIN))
        # As Twisted does for each folder on the path that has plugins.
        plugins.__path__.append(str(folder))
        self.addCleanup(sys.modules.pop, "twisted.plugins.twsock_test_twice", None)
        self.addCleanup(plugins.__path__.remove, str(folder))
        self.reactor = MemoryReactorClock()

    def assert_refused(self, description: str, reason: str) -> None:
        error = self.assertRaises(
            ValueError, datagram_endpoint_from_string, self.reactor, description
        )
        self.assertEqual(str(error), f"cannot use the endpoint {description!r}: {reason}")

    def test_a_plugin_makes_endpoints_of_its_kind(self) -> None:
        """It gets the arguments with and without names. The case of the kind is ignored."""
        for description in ("twice:4:[::1]", "TWICE:port=4:interface=[::1]"):
            endpoint = datagram_endpoint_from_string(self.reactor, description)
            self.assertEqual(endpoint, UdpEndpoint(self.reactor, 8, "::1"), description)

    def test_an_error_lists_the_kinds_of_plugins(self) -> None:
        """For an unknown kind."""
        reason = "unknown kind 'thrice', the kinds for datagrams are multicast, twice, udp"
        self.assert_refused("thrice:1", reason)

    def test_arguments_that_a_plugin_does_not_accept_are_refused(self) -> None:
        """The TypeError becomes an error for the user."""
        for description in ("twice", "twice:1:2:3", "twice:1:ttl=1"):
            self.assert_refused(description, "an argument is missing or unknown")

    def test_a_value_error_of_a_plugin_is_the_message(self) -> None:
        """The user sees its text."""
        self.assert_refused("twice:x", "invalid literal for int() with base 10: 'x'")

    def test_a_plugin_provides_the_interface(self) -> None:
        """It has all attributes of `IDatagramEndpointStringParser`."""
        datagram_endpoint_from_string(self.reactor, "twice:1")
        parser = sys.modules["twisted.plugins.twsock_test_twice"].parser
        self.assertTrue(verifyObject(IDatagramEndpointStringParser, parser))


class ListenTests(TestCase):
    """`listen` opens a port."""

    #: Seconds to wait for a datagram; on loopback none takes one second.
    timeout = 10

    def setUp(self) -> None:
        self.collector = Collector()

    def open(self, description: str, protocol: DatagramProtocol | None = None) -> DatagramPort:
        """Listen, and stop after the test."""
        endpoint = datagram_endpoint_from_string(reactor, description)
        port: DatagramPort = self.successResultOf(endpoint.listen(protocol or DatagramProtocol()))
        self.addCleanup(port.stopListening)
        return port

    def assert_fails(self, listen: Callable[[], Deferred[Any]], status: SocketErrorStatus) -> None:
        """Check that the Deferred of listen fails, and that nothing stays open."""
        leaks = Leaks(reactor)
        error = self.failureResultOf(listen(), SocketError).value
        self.assertIs(error.status, status)
        self.assertNotIn("\n", str(error))
        del error
        self.assertEqual(leaks.found(), [])

    def send(self, data: bytes, address: tuple[Any, ...]) -> None:
        """Send a datagram through the loopback interface, from a socket of its own."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            lo = socket.inet_aton("127.0.0.1")
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, lo)
            sender.sendto(data, address)

    def test_a_udp_endpoint_receives_datagrams(self) -> Deferred[None]:
        """The protocol gets a datagram to the port."""
        port = self.open("udp:0:127.0.0.1", self.collector)
        self.assertTrue(verifyObject(IListeningPort, port))
        self.send(b"Hello", ("127.0.0.1", port.getHost().port))
        return self.collector.first.addCallback(self.assertEqual, b"Hello")

    def test_the_zone_of_a_group_names_the_interface(self) -> None:
        """It is looked up at `listen`, as an interface argument is."""
        for words in ("", ":interface=lo"):
            (joined,) = self.open(f"multicast:[ff15::1%lo]:0{words}").memberships
            self.assertEqual((joined.group, joined.interface.name), ("ff15::1", "lo"), words)
        endpoint = datagram_endpoint_from_string(reactor, "multicast:[ff15::1%no-such]:0")
        self.assert_fails(
            lambda: endpoint.listen(self.collector), SocketErrorStatus.UNREACHABLE_HOST
        )

    def test_a_multicast_endpoint_receives_from_its_group_only(self) -> Deferred[None]:
        """A unicast datagram to the port is dropped."""
        port = self.open(f"multicast:{GROUP}:0:lo", self.collector)
        number = port.getHost().port
        self.send(b"for the port", ("127.0.0.1", number))
        self.send(b"for the group", (GROUP, number))
        return self.collector.first.addCallback(self.assertEqual, b"for the group")

    def test_a_protocol_receives_what_it_sends_at_its_start(self) -> Deferred[None]:
        """The group is joined before the protocol starts."""

        class Asking(Collector):
            @override
            def startProtocol(self) -> None:
                assert self.transport is not None
                self.transport.write(b"who is there?", (GROUP, self.transport.getHost().port))

        asking = Asking()
        self.open(f"multicast:{GROUP}:0:lo", asking)
        return asking.first.addCallback(self.assertEqual, b"who is there?")

    def test_a_multicast_port_is_bound_to_all_addresses(self) -> None:
        """Bound to the group address it could not be shared safely."""
        self.assertEqual(self.open(f"multicast:{GROUP}:0").getHost().host, "0.0.0.0")
        if not has_ipv6_loopback():
            raise SkipTest("this machine has no IPv6")
        self.assertEqual(self.open("multicast:[ff15::1]:0").getHost().host, "::")

    def test_two_endpoints_share_a_port_and_another_socket_is_refused(self) -> None:
        """The other socket does not share."""
        number = self.open(f"multicast:{GROUP}:0").getHost().port
        self.open(f"multicast:{GROUP}:{number}")
        third = datagram_endpoint_from_string(reactor, f"udp:{number}")
        self.assert_fails(
            lambda: third.listen(self.collector), SocketErrorStatus.ADDRESS_ALREADY_IN_USE
        )

    def test_a_missing_interface_fails_at_listen(self) -> None:
        """The string is valid, since the name is looked up later."""
        endpoint = datagram_endpoint_from_string(reactor, f"multicast:{GROUP}:0:tw-none")
        self.assert_fails(
            lambda: endpoint.listen(self.collector), SocketErrorStatus.UNREACHABLE_HOST
        )

    def test_an_invalid_group_fails_at_listen(self) -> None:
        """For an endpoint that was not made from a string."""
        endpoint = MulticastEndpoint(reactor, "127.0.0.1", 0)
        status = SocketErrorStatus.ADDRESS_FAMILY_NOT_SUPPORTED
        self.assert_fails(lambda: endpoint.listen(self.collector), status)

    def test_a_failed_join_leaves_nothing_open(self) -> None:
        """The port is closed, and the protocol is not started."""
        endpoint = datagram_endpoint_from_string(reactor, f"multicast:{GROUP}:0:source=[::1]")
        status = SocketErrorStatus.ADDRESS_FAMILY_NOT_SUPPORTED
        self.assert_fails(lambda: endpoint.listen(self.collector), status)
        self.assertEqual(self.collector.events, [])

    def test_invalid_arguments_fail_through_the_deferred(self) -> None:
        """The call itself raises nothing."""
        for endpoint in (UdpEndpoint(reactor, 65_536), UdpEndpoint(reactor, 0, "localhost")):
            self.failureResultOf(endpoint.listen(self.collector), ValueError)

    def test_an_endpoint_can_listen_more_than_once(self) -> None:
        """Each call opens another port, for another protocol."""
        endpoint = UdpEndpoint(reactor, 0, "127.0.0.1")
        ports = [self.successResultOf(endpoint.listen(Collector())) for _ in range(2)]
        for port in ports:
            self.addCleanup(port.stopListening)
        self.assertNotEqual(ports[0].getHost().port, ports[1].getHost().port)
