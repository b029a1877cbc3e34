"""Options of a datagram socket are set before it is bound, and put on its ports."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.sockets.stream.test_control import without
from twsock import LocalProtocolError, OperationNotSupported
from twsock.datagram.udp_socket import DatagramOptions
from twsock.sockets import DatagramSocketControl, SocketQualityOfService

#: Each option that is fixed once the socket is in use, with a value that is not its default.
OPTIONS = {
    "multicast_only": True,
    "dont_fragment": True,
    "inbound_buffer_size_in_bytes": 65_536,
    "outbound_buffer_size_in_bytes": 32_768,
    "outbound_multicast_hop_limit": 3,
    "multicast_loopback": False,
    "max_datagram": 1200,
    "quality_of_service": SocketQualityOfService.LOW_LATENCY,
}

ILLEGAL_METHOD_CALL = 0x8000000E


class ControlTests(SynchronousTestCase):
    """What may be set, and when."""

    def setUp(self) -> None:
        self.is_in_use = False
        self.hop_limits: list[int] = []
        self.control = DatagramSocketControl(lambda: self.is_in_use, self.hop_limits.append)

    def assert_refuses(self, error: type[Exception], name: str, *values: object) -> None:
        before = getattr(self.control, name)
        for value in values:
            self.assertRaises(error, setattr, self.control, name, value)
        self.assertEqual(getattr(self.control, name), before)

    def test_the_defaults_are_the_documented_ones(self) -> None:
        """As in WinRT; the sizes of buffers are left to the kernel."""
        control = self.control
        self.assertEqual((control.multicast_only, control.dont_fragment), (False, False))
        self.assertEqual(control.outbound_unicast_hop_limit, 128)
        self.assertIsNone(control.inbound_buffer_size_in_bytes)
        self.assertIsNone(control.outbound_buffer_size_in_bytes)
        self.assertIs(control.quality_of_service, SocketQualityOfService.NORMAL)
        self.assertEqual((control.multicast_loopback, control.max_datagram), (True, 65_535))
        self.assertEqual(control.outbound_multicast_hop_limit, 1)

    def test_what_is_set_is_kept(self) -> None:
        """Also the size that was asked for, of which Linux takes twice as much."""
        for name, value in OPTIONS.items():
            setattr(self.control, name, value)
        self.assertEqual({name: getattr(self.control, name) for name in OPTIONS}, OPTIONS)

    def test_in_use_they_are_fixed(self) -> None:
        """The call is illegal, its error names the option, and what was there stays."""
        self.is_in_use = True
        for name, value in OPTIONS.items():
            before = getattr(self.control, name)
            error = self.assertRaises(LocalProtocolError, setattr, self.control, name, value)
            self.assertEqual(error.hresult, ILLEGAL_METHOD_CALL)
            self.assertIn(name, str(error))
            self.assertEqual(getattr(self.control, name), before)

    def test_the_unicast_hop_limit_may_change(self) -> None:
        """Before use and in use; the socket is told."""
        self.control.outbound_unicast_hop_limit = 255
        self.is_in_use = True
        self.control.outbound_unicast_hop_limit = 1
        self.assertEqual(self.hop_limits, [255, 1])
        self.assertEqual(self.control.outbound_unicast_hop_limit, 1)

    def test_a_hop_limit_has_bounds(self) -> None:
        """1 to 255 to one peer; to a group 0, which stays on this machine, to 255."""
        self.assert_refuses(ValueError, "outbound_unicast_hop_limit", 0, 256, -1)
        self.assertEqual(self.hop_limits, [])
        self.assert_refuses(ValueError, "outbound_multicast_hop_limit", -1, 256)
        for limit in (0, 255):
            self.control.outbound_multicast_hop_limit = limit

    def test_sizes_have_bounds(self) -> None:
        """A buffer has at least 1 byte; a datagram to be received may be empty."""
        for name in ("inbound_buffer_size_in_bytes", "outbound_buffer_size_in_bytes"):
            self.assert_refuses(ValueError, name, 0, -1, 2**31)
            setattr(self.control, name, 2**31 - 1)
        self.assert_refuses(ValueError, "max_datagram", -1, 65_536)
        self.control.max_datagram = 0

    def test_the_size_of_the_buffer_has_a_short_name(self) -> None:
        """It is the same."""
        self.control.inbound_buffer_size = 4096
        self.assertEqual(self.control.inbound_buffer_size_in_bytes, 4096)

    def test_what_is_no_number_is_refused(self) -> None:
        """At once, not when the socket is bound."""
        for name in ("inbound_buffer_size_in_bytes", "outbound_unicast_hop_limit", "max_datagram"):
            self.assert_refuses(TypeError, name, 1.5, "1", None)

    def test_there_are_two_qualities(self) -> None:
        """Another number is refused."""
        self.control.quality_of_service = SocketQualityOfService.LOW_LATENCY
        self.assert_refuses(ValueError, "quality_of_service", 2)
        self.control.quality_of_service = SocketQualityOfService.NORMAL
        self.assertEqual(self.control.make_options().code_point, 0)

    def test_where_nothing_can_be_marked_low_latency_is_not_supported(self) -> None:
        """What cannot be done is not taken and forgotten."""
        without(self, "IP_TOS")
        self.assert_refuses(
            OperationNotSupported, "quality_of_service", SocketQualityOfService.LOW_LATENCY
        )

    def test_a_port_gets_all_of_them(self) -> None:
        """And the interface that the socket is bound to."""
        for name, value in OPTIONS.items():
            setattr(self.control, name, value)
        self.control.outbound_unicast_hop_limit = 9
        expected = DatagramOptions(
            receive_buffer=65_536,
            send_buffer=32_768,
            max_datagram=1200,
            hop_limit=9,
            multicast_hop_limit=3,
            multicast_loopback=False,
            multicast_only=True,
            dont_fragment=True,
            code_point=46,
            interface=1,
            device="lo",
        )
        self.assertEqual(self.control.make_options(interface=1, device="lo"), expected)

    def test_the_defaults_of_a_port_are_these(self) -> None:
        """A socket on which nothing was set is as a port is by itself."""
        self.assertEqual(self.control.make_options(), DatagramOptions())
