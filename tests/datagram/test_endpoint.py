"""Datagram endpoints, and the strings that they are made from."""

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
#: An address for examples (:rfc:`5737`), so nobody's.
STRANGER = "192.0.2.1"

#: A plugin as an application would install it, under a name that no other has.
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
    """Keeps whether it runs, and what comes first."""

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
    """A string becomes an endpoint, or one line for who wrote it."""

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
        """Check what the one line says of a string."""
        error = self.assertRaises(ValueError, self.endpoint, description)
        self.assertEqual(str(error), f"cannot use the endpoint {description!r}: {reason}")

    def test_a_port_is_enough_for_udp(self) -> None:
        """Without an interface it listens on all IPv4 addresses, with the options' defaults."""
        self.assertEqual(self.endpoint("udp:1337"), self.udp(1337))

    def test_the_interface_is_an_address(self) -> None:
        """IPv4 or IPv6, in brackets or with escaped colons, with its name or after the port."""
        for written in ("[::1]", r"\:\:1", "interface=[::1]", r"interface=\:\:1"):
            self.assertEqual(self.endpoint(f"udp:1337:{written}"), self.udp(1337, "::1"))
        for address in ("127.0.0.1", "[fe80::1%lo]"):
            expected = self.udp(0, address.strip("[]"))
            self.assertEqual(self.endpoint(f"UDP:interface={address}:port=0"), expected)

    def test_words_of_udp_set_options(self) -> None:
        """Each has its field."""
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

    def test_a_group_and_a_port_are_enough_for_multicast(self) -> None:
        """Without an interface it stays on this machine."""
        expected = self.group(GROUP, 22113, "lo")
        self.assertEqual(self.endpoint(f"multicast:{GROUP}:22113"), expected)

    def test_a_group_may_be_ipv6(self) -> None:
        """In brackets or with escaped colons."""
        expected = self.group("ff15::1", 22113, "eth0", multicast_hop_limit=0)
        for group in ("[ff15::1]", r"ff15\:\:1"):
            self.assertEqual(self.endpoint(f"multicast:{group}:22113:eth0:0"), expected)

    def test_words_of_multicast_set_options(self) -> None:
        """Each has its field."""
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

    def test_a_group_that_is_none_is_another_error(self) -> None:
        """No group, a name, and nothing at all are of a family that is not supported."""
        for group in ("127.0.0.1", "localhost", ""):
            error = self.assertRaises(SocketError, self.endpoint, f"multicast:{group}:22113")
            self.assertIs(error.status, SocketErrorStatus.ADDRESS_FAMILY_NOT_SUPPORTED)

    def test_a_string_out_of_shape_is_refused(self) -> None:
        """What has no parts is no endpoint."""
        self.assert_refused("udp:\\", "it ends with a backslash")

    def test_an_unknown_kind_is_refused(self) -> None:
        """The line has the kinds that there are."""
        reason = "unknown kind 'tcp', the kinds for datagrams are multicast, udp"
        self.assert_refused("tcp:1337", reason)

    def test_an_unknown_word_is_refused(self) -> None:
        """The line has the words that there are; those of Python's calls are none of them."""
        common = "receiveBuffer, sendBuffer, maxDatagram, dontFragment"
        for word in ("loopback", "reactor", "self", "options", ""):
            reason = f"unknown argument {word!r}, known are port, interface, ttl, {common}"
            self.assert_refused(f"udp:1337:{word}=no", reason)
        words = f"group, port, interface, ttl, loopback, source, {common}"
        reason = f"unknown argument 'shared', known are {words}"
        self.assert_refused(f"multicast:{GROUP}:1:shared=no", reason)

    def test_missing_words_are_refused(self) -> None:
        """The line has the beginning of a whole string."""
        self.assert_refused("udp", "the port is missing, the form is udp:PORT")
        begin = "it begins multicast:GROUP:PORT"
        self.assert_refused("multicast", f"the group is missing, {begin}")
        self.assert_refused(f"multicast:{GROUP}", f"the port is missing, {begin}")

    def test_surplus_words_are_refused(self) -> None:
        """Only some words need no name, and none is given in two ways."""
        reason = "too many arguments: 'x'; without a name: port, interface"
        self.assert_refused("udp:1337:[::1]:x", reason)
        self.assert_refused("udp:1:port=2", "'port' is given twice, once without its name")

    def test_bad_numbers_are_refused(self) -> None:
        """The line has the bounds; digits of other scripts, signs and spaces make no number."""
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
        """There is one way to say yes."""
        self.assert_refused("udp:1:dontFragment=1", "dontFragment is yes or no, not '1'")
        reason = "loopback is yes or no, not 'No'"
        self.assert_refused(f"multicast:{GROUP}:1:loopback=No", reason)

    def test_names_of_hosts_are_refused(self) -> None:
        """Nobody is asked for an address."""
        allowed = "a numeric address, such as 127.0.0.1 or [::1]"
        for name in ("localhost", "lo", "127.0.0.1%lo"):
            self.assert_refused(f"udp:1:{name}", f"interface is {allowed}, not {name!r}")
        for name in ("localhost", ""):
            reason = f"source is {allowed}, not {name!r}"
            self.assert_refused(f"multicast:{GROUP}:1:source={name}", reason)

    def test_groups_are_no_interfaces(self) -> None:
        """The line leads to the kind that joins groups."""
        reason = "an address of this machine (for a group use multicast:GROUP:PORT)"
        self.assert_refused(f"udp:1:{GROUP}", f"interface is {reason}, not '{GROUP}'")

    def test_an_empty_interface_is_refused_for_a_group(self) -> None:
        """It might send to the network what is meant for this machine."""
        reason = "interface is a name, an index or an address, such as lo, not ''"
        self.assert_refused(f"multicast:{GROUP}:1:interface=", reason)

    def test_endpoints_provide_their_interface(self) -> None:
        """Both kinds are what applications look for."""
        for description in ("udp:1337", f"multicast:{GROUP}:22113"):
            self.assertTrue(verifyObject(IDatagramEndpoint, self.endpoint(description)))


class PluginTests(SynchronousTestCase):
    """Kinds that are not built in come from plugins of Twisted."""

    def setUp(self) -> None:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        (folder / "twsock_test_twice.py").write_text(textwrap.dedent(PLUGIN))
        # As Twisted itself does for each folder on the path that has plugins.
        plugins.__path__.append(str(folder))
        self.addCleanup(sys.modules.pop, "twisted.plugins.twsock_test_twice", None)
        self.addCleanup(plugins.__path__.remove, str(folder))
        self.reactor = MemoryReactorClock()

    def assert_refused(self, description: str, reason: str) -> None:
        error = self.assertRaises(
            ValueError, datagram_endpoint_from_string, self.reactor, description
        )
        self.assertEqual(str(error), f"cannot use the endpoint {description!r}: {reason}")

    def test_a_plugin_makes_its_kind(self) -> None:
        """It is given the words, with and without names, whatever the case of its kind."""
        for description in ("twice:4:[::1]", "TWICE:port=4:interface=[::1]"):
            endpoint = datagram_endpoint_from_string(self.reactor, description)
            self.assertEqual(endpoint, UdpEndpoint(self.reactor, 8, "::1"))

    def test_plugins_are_among_the_kinds(self) -> None:
        """Who writes an unknown kind is told of them, too."""
        reason = "unknown kind 'thrice', the kinds for datagrams are multicast, twice, udp"
        self.assert_refused("thrice:1", reason)

    def test_words_that_a_plugin_does_not_take_are_refused(self) -> None:
        """One that is missing or unknown is the user's mistake, not a traceback."""
        for description in ("twice", "twice:1:2:3", "twice:1:ttl=1"):
            self.assert_refused(description, "an argument is missing or unknown")

    def test_what_a_plugin_refuses_is_told(self) -> None:
        """Its ValueError becomes the line."""
        self.assert_refused("twice:x", "invalid literal for int() with base 10: 'x'")

    def test_a_plugin_provides_the_interface(self) -> None:
        """What it has is all that a parser needs."""
        datagram_endpoint_from_string(self.reactor, "twice:1")
        parser = sys.modules["twisted.plugins.twsock_test_twice"].parser
        self.assertTrue(verifyObject(IDatagramEndpointStringParser, parser))


class ListenTests(TestCase):
    """An endpoint opens a port when it is told to listen."""

    #: Seconds until a datagram that does not come is a failure; on loopback none takes one.
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
        """Check that listening fails through its Deferred, and leaves nothing behind."""
        leaks = Leaks(reactor)
        error = self.failureResultOf(listen(), SocketError).value
        self.assertIs(error.status, status)
        self.assertNotIn("\n", str(error))
        del error
        self.assertEqual(leaks.found(), [])

    def send(self, data: bytes, address: tuple[Any, ...]) -> None:
        """Send a datagram over the loopback interface, from a socket of its own."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            lo = socket.inet_aton("127.0.0.1")
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, lo)
            sender.sendto(data, address)

    def test_udp_receives(self) -> Deferred[None]:
        """A datagram to the port reaches the protocol."""
        port = self.open("udp:0:127.0.0.1", self.collector)
        self.assertTrue(verifyObject(IListeningPort, port))
        self.send(b"Hello", ("127.0.0.1", port.getHost().port))
        return self.collector.first.addCallback(self.assertEqual, b"Hello")

    def test_the_zone_of_a_group_is_its_interface(self) -> None:
        """It is looked up when it listens, as an interface that is named."""
        for words in ("", ":interface=lo"):
            (joined,) = self.open(f"multicast:[ff15::1%lo]:0{words}").memberships
            self.assertEqual((joined.group, joined.interface.name), ("ff15::1", "lo"))
        endpoint = datagram_endpoint_from_string(reactor, "multicast:[ff15::1%no-such]:0")
        self.assert_fails(
            lambda: endpoint.listen(self.collector), SocketErrorStatus.UNREACHABLE_HOST
        )

    def test_multicast_receives_what_is_sent_to_its_group(self) -> Deferred[None]:
        """A datagram to the group reaches the protocol; one to the port alone does not."""
        port = self.open(f"multicast:{GROUP}:0:lo", self.collector)
        number = port.getHost().port
        self.send(b"for the port", ("127.0.0.1", number))
        self.send(b"for the group", (GROUP, number))
        return self.collector.first.addCallback(self.assertEqual, b"for the group")

    def test_a_protocol_that_starts_hears_the_group(self) -> Deferred[None]:
        """The group is joined before: what it sends at once comes back."""

        class Asking(Collector):
            @override
            def startProtocol(self) -> None:
                assert self.transport is not None
                self.transport.write(b"who is there?", (GROUP, self.transport.getHost().port))

        asking = Asking()
        self.open(f"multicast:{GROUP}:0:lo", asking)
        return asking.first.addCallback(self.assertEqual, b"who is there?")

    def test_a_group_is_heard_at_all_addresses_of_its_family(self) -> None:
        """The port is bound to the wildcard address, else it could not be shared safely."""
        self.assertEqual(self.open(f"multicast:{GROUP}:0").getHost().host, "0.0.0.0")
        if not has_ipv6_loopback():
            raise SkipTest("this machine has no IPv6")
        self.assertEqual(self.open("multicast:[ff15::1]:0").getHost().host, "::")

    def test_two_share_a_port_and_no_third_takes_it(self) -> None:
        """Who does not share cannot have it."""
        number = self.open(f"multicast:{GROUP}:0").getHost().port
        self.open(f"multicast:{GROUP}:{number}")
        third = datagram_endpoint_from_string(reactor, f"udp:{number}")
        self.assert_fails(
            lambda: third.listen(self.collector), SocketErrorStatus.ADDRESS_ALREADY_IN_USE
        )

    def test_an_interface_that_is_not_there_fails(self) -> None:
        """Its name is looked up when it is needed, so the string itself is none the worse."""
        endpoint = datagram_endpoint_from_string(reactor, f"multicast:{GROUP}:0:tw-none")
        self.assert_fails(
            lambda: endpoint.listen(self.collector), SocketErrorStatus.UNREACHABLE_HOST
        )

    def test_a_group_that_is_none_fails(self) -> None:
        """Endpoints that are made without a string are checked when they listen."""
        endpoint = MulticastEndpoint(reactor, "127.0.0.1", 0)
        status = SocketErrorStatus.ADDRESS_FAMILY_NOT_SUPPORTED
        self.assert_fails(lambda: endpoint.listen(self.collector), status)

    def test_a_join_that_fails_leaves_nothing_open(self) -> None:
        """The port is closed again, and the protocol has not heard of it."""
        endpoint = datagram_endpoint_from_string(reactor, f"multicast:{GROUP}:0:source=[::1]")
        status = SocketErrorStatus.ADDRESS_FAMILY_NOT_SUPPORTED
        self.assert_fails(lambda: endpoint.listen(self.collector), status)
        self.assertEqual(self.collector.events, [])

    def test_bad_arguments_fail_through_the_deferred(self) -> None:
        """No failure comes at the call, not even of an endpoint that can't be."""
        for endpoint in (UdpEndpoint(reactor, 65_536), UdpEndpoint(reactor, 0, "localhost")):
            self.failureResultOf(endpoint.listen(self.collector), ValueError)

    def test_an_endpoint_listens_more_than_once(self) -> None:
        """Each time there is another port, and another protocol may run on it."""
        endpoint = UdpEndpoint(reactor, 0, "127.0.0.1")
        ports = [self.successResultOf(endpoint.listen(Collector())) for _ in range(2)]
        for port in ports:
            self.addCleanup(port.stopListening)
        self.assertNotEqual(ports[0].getHost().port, ports[1].getHost().port)
