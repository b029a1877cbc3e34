"""Options of a datagram socket are set before it is bound, and applied to its ports."""

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
    """Which options can be set, and when."""

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
        """As in WinRT; the kernel decides on the sizes of buffers."""
        control = self.control
        self.assertEqual((control.multicast_only, control.dont_fragment), (False, False))
        self.assertEqual(control.outbound_unicast_hop_limit, 128)
        self.assertIsNone(control.inbound_buffer_size_in_bytes)
        self.assertIsNone(control.outbound_buffer_size_in_bytes)
        self.assertIs(control.quality_of_service, SocketQualityOfService.NORMAL)
        self.assertEqual((control.multicast_loopback, control.max_datagram), (True, 65_535))
        self.assertEqual(control.outbound_multicast_hop_limit, 1)

    def test_an_option_keeps_its_value(self) -> None:
        """Also the requested size of a buffer, which Linux doubles."""
        for name, value in OPTIONS.items():
            setattr(self.control, name, value)
        self.assertEqual({name: getattr(self.control, name) for name in OPTIONS}, OPTIONS)

    def test_setting_an_option_of_a_socket_in_use_raises(self) -> None:
        """The error names the option, whose value does not change."""
        self.is_in_use = True
        for name, value in OPTIONS.items():
            before = getattr(self.control, name)
            error = self.assertRaises(LocalProtocolError, setattr, self.control, name, value)
            self.assertEqual(error.hresult, ILLEGAL_METHOD_CALL, (name, value))
            self.assertIn(name, str(error), (name, value))
            self.assertEqual(getattr(self.control, name), before, (name, value))

    def test_the_unicast_hop_limit_can_be_set_at_any_time(self) -> None:
        """The socket is called with the new value."""
        self.control.outbound_unicast_hop_limit = 255
        self.is_in_use = True
        self.control.outbound_unicast_hop_limit = 1
        self.assertEqual(self.hop_limits, [255, 1])
        self.assertEqual(self.control.outbound_unicast_hop_limit, 1)

    def test_a_hop_limit_out_of_bounds_is_refused(self) -> None:
        """1 to 255 for unicast; 0, which stays on this machine, to 255 for multicast."""
        self.assert_refuses(ValueError, "outbound_unicast_hop_limit", 0, 256, -1)
        self.assertEqual(self.hop_limits, [])
        self.assert_refuses(ValueError, "outbound_multicast_hop_limit", -1, 256)
        for limit in (0, 255):
            self.control.outbound_multicast_hop_limit = limit

    def test_a_size_out_of_bounds_is_refused(self) -> None:
        """A buffer has at least 1 byte; the largest datagram may have 0."""
        for name in ("inbound_buffer_size_in_bytes", "outbound_buffer_size_in_bytes"):
            self.assert_refuses(ValueError, name, 0, -1, 2**31)
            setattr(self.control, name, 2**31 - 1)
        self.assert_refuses(ValueError, "max_datagram", -1, 65_536)
        self.control.max_datagram = 0

    def test_the_size_of_the_buffer_has_a_short_name(self) -> None:
        """Both names are the same option."""
        self.control.inbound_buffer_size = 4096
        self.assertEqual(self.control.inbound_buffer_size_in_bytes, 4096)

    def test_a_value_that_is_no_number_is_refused(self) -> None:
        """When it is set, not when the socket is bound."""
        for name in ("inbound_buffer_size_in_bytes", "outbound_unicast_hop_limit", "max_datagram"):
            self.assert_refuses(TypeError, name, 1.5, "1", None)

    def test_an_unknown_quality_of_service_is_refused(self) -> None:
        """There are two."""
        self.control.quality_of_service = SocketQualityOfService.LOW_LATENCY
        self.assert_refuses(ValueError, "quality_of_service", 2)
        self.control.quality_of_service = SocketQualityOfService.NORMAL
        self.assertEqual(self.control.make_options().code_point, 0)

    def test_low_latency_without_marking_is_not_supported(self) -> None:
        """An option that has no effect is not accepted silently."""
        without(self, "IP_TOS")
        self.assert_refuses(
            OperationNotSupported, "quality_of_service", SocketQualityOfService.LOW_LATENCY
        )

    def test_a_port_gets_all_options(self) -> None:
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

    def test_the_defaults_are_those_of_a_port(self) -> None:
        """A socket without set options has the options of a plain port."""
        self.assertEqual(self.control.make_options(), DatagramOptions())
