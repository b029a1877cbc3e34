"""Options are set before a socket is in use, and applied to its connection."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.tcp import Connection
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.stream.test_transport import FakeProtocol, IdleReactor, tcp_pair
from twsock.errors import LocalProtocolError, OperationNotSupported
from twsock.sockets.stream.control import (
    SocketQualityOfService,
    StreamSocketControl,
    StreamSocketListenerControl,
)

#: Options that neither a socket in use nor a bound listener lets set, with a valid value.
OPTIONS: dict[str, object] = {
    "keep_alive": True,
    "no_delay": False,
    "outbound_unicast_hop_limit": 10,
    "quality_of_service": SocketQualityOfService.LOW_LATENCY,
}
if hasattr(socket, "TCP_KEEPIDLE"):
    OPTIONS |= {"keep_alive_idle": 60, "keep_alive_interval": 5, "keep_alive_count": 3}

LOW_LATENCY = SocketQualityOfService.LOW_LATENCY

#: Options of keep-alive, with the name of the kernel's option and the largest value.
KEEP_ALIVE = {
    "keep_alive_idle": ("TCP_KEEPIDLE", 32_767),
    "keep_alive_interval": ("TCP_KEEPINTVL", 32_767),
    "keep_alive_count": ("TCP_KEEPCNT", 127),
}

ILLEGAL_METHOD_CALL = 0x8000000E


def without(test: SynchronousTestCase, name: str) -> None:
    """Run a test as on a system whose Python does not have an option of sockets."""
    if hasattr(socket, name):
        test.addCleanup(setattr, socket, name, getattr(socket, name))
        delattr(socket, name)


def control() -> StreamSocketControl:
    return StreamSocketControl(lambda: False)


def listener_control() -> StreamSocketListenerControl:
    return StreamSocketListenerControl(lambda: False)


class QualityOfServiceTests(SynchronousTestCase):
    """The priority of a socket's packets."""

    def test_the_values_are_the_documented_ones(self) -> None:
        """`SocketQualityOfService` as in WinRT."""
        found = {each.documented_name: each.value for each in SocketQualityOfService}
        self.assertEqual(found, {"Normal": 0, "LowLatency": 1})

    def test_low_latency_can_be_set_and_reset(self) -> None:
        """The option keeps its value."""
        for options in (control(), listener_control()):
            for quality in (LOW_LATENCY, SocketQualityOfService.NORMAL):
                options.quality_of_service = quality
                found = options.quality_of_service
                self.assertIs(found, quality, f"{options=}, {quality=}, {found=}")

    def test_low_latency_without_marking_is_not_supported(self) -> None:
        """An option that has no effect is not accepted silently; its value does not change."""
        without(self, "IPV6_TCLASS")
        for options in (control(), listener_control()):
            with self.assertRaises(OperationNotSupported):
                options.quality_of_service = LOW_LATENCY
            options.quality_of_service = SocketQualityOfService.NORMAL
            self.assertIs(options.quality_of_service, SocketQualityOfService.NORMAL, options)

    def test_another_number_is_refused(self) -> None:
        """There are two qualities."""
        self.assertRaises(ValueError, setattr, control(), "quality_of_service", 2)


class OptionTests(SynchronousTestCase):
    """Which options can be set, before and after a socket is in use."""

    def setUp(self) -> None:
        self.is_in_use = False
        self.control = StreamSocketControl(lambda: self.is_in_use)
        self.listener = StreamSocketListenerControl(lambda: self.is_in_use)

    def test_the_defaults_are_the_documented_ones(self) -> None:
        """As in WinRT; the kernel decides on the size of the buffer."""
        for options in (self.control, self.listener):
            self.assertEqual((options.keep_alive, options.no_delay), (False, True), options)
            self.assertEqual(options.outbound_unicast_hop_limit, 128, options)
            self.assertIsNone(options.outbound_buffer_size_in_bytes, options)
            self.assertIs(options.quality_of_service, SocketQualityOfService.NORMAL, options)
            self.assertEqual([getattr(options, name) for name in KEEP_ALIVE], [None] * 3, options)
        self.assertIs(self.control.serialize_connection_attempts, False)

    def test_an_option_keeps_its_value(self) -> None:
        """Before use all options can be set."""
        options = {
            **OPTIONS,
            "outbound_buffer_size_in_bytes": 9000,
            "serialize_connection_attempts": True,
        }
        for name, value in options.items():
            setattr(self.control, name, value)
        self.assertEqual({name: getattr(self.control, name) for name in options}, options)

    def test_a_hop_limit_is_1_to_255(self) -> None:
        """Both included; any other value changes nothing."""
        for limit in (255, 1):
            self.control.outbound_unicast_hop_limit = limit
        for limit in (0, 256, -1):
            self.assertRaises(
                ValueError, setattr, self.control, "outbound_unicast_hop_limit", limit
            )
        self.assertEqual(self.control.outbound_unicast_hop_limit, 1)

    def test_a_fraction_is_refused(self) -> None:
        """When it is set, not when the socket is connected."""
        for name in ("outbound_unicast_hop_limit", "outbound_buffer_size_in_bytes"):
            self.assertRaises(TypeError, setattr, self.control, name, 1.5)

    def test_times_of_keep_alive_have_the_bounds_of_linux(self) -> None:
        """Both included; any other value changes nothing, and None means the kernel's default."""
        if not hasattr(socket, "TCP_KEEPIDLE"):
            self.skipTest("this system has no TCP_KEEPIDLE")
        for options in (self.control, self.listener):
            for name, (_, most) in KEEP_ALIVE.items():
                for value in (1, most):
                    setattr(options, name, value)
                for value in (0, -1, most + 1):
                    self.assertRaises(ValueError, setattr, options, name, value)
                for wrong in (1.5, True, "1"):
                    self.assertRaises(TypeError, setattr, options, name, wrong)
                self.assertEqual(getattr(options, name), most, (name, most))
                setattr(options, name, None)
                self.assertIsNone(getattr(options, name), (name, most))

    def test_times_of_keep_alive_without_system_support_raise(self) -> None:
        """An option that has no effect is not accepted silently."""
        for options in (self.control, self.listener):
            for name, (option, _) in KEEP_ALIVE.items():
                without(self, option)
                error = self.assertRaises(OperationNotSupported, setattr, options, name, 1)
                self.assertIn(option, str(error), (name, option))
                self.assertIsNone(getattr(options, name), (name, option))

    def test_a_buffer_has_at_least_1_byte(self) -> None:
        """And at most 2,147,483,647."""
        name = "outbound_buffer_size_in_bytes"
        for options in (self.control, self.listener):
            for size in (1, 2**31 - 1):
                setattr(options, name, size)
            for size in (0, -1, 2**31):
                self.assertRaises(ValueError, setattr, options, name, size)
            self.assertEqual(options.outbound_buffer_size_in_bytes, 2**31 - 1, options)

    def test_trust_roots_are_certificates(self) -> None:
        """A file's name or contents are refused at once, and not at the next handshake."""
        one = control()
        refused: tuple[Any, ...] = (b"-----BEGIN", "authority.pem", 5, [b"-----BEGIN"], {1: 2})
        for value in refused:
            with self.assertRaises(TypeError, msg=value) as caught:
                one.trust_roots = value
            self.assertIn("trust_roots is a list of Certificates", str(caught.exception))
        self.assertIsNone(one.trust_roots)
        for value in (None, [], ()):
            one.trust_roots = value
            self.assertIs(one.trust_roots, value)

    def test_setting_an_option_of_a_socket_in_use_raises(self) -> None:
        """The error names the option, whose value does not change."""
        self.is_in_use = True
        for options in (self.control, self.listener):
            for name, value in OPTIONS.items():
                before = getattr(options, name)
                error = self.assertRaises(LocalProtocolError, setattr, options, name, value)
                self.assertEqual(error.hresult, ILLEGAL_METHOD_CALL, (name, value))
                self.assertIn(name, str(error), (name, value))
                self.assertEqual(getattr(options, name), before, (name, value))

    def test_a_connect_that_was_called_fixes_the_order_of_attempts(self) -> None:
        """The attempts under way cannot be changed."""
        self.is_in_use = True
        error = self.assertRaises(
            LocalProtocolError, setattr, self.control, "serialize_connection_attempts", True
        )
        self.assertEqual(error.hresult, ILLEGAL_METHOD_CALL)

    def test_a_socket_ignores_a_late_size_of_its_buffer(self) -> None:
        """As documented for WinRT, it is no error."""
        self.control.outbound_buffer_size_in_bytes = 9000
        self.is_in_use = True
        self.control.outbound_buffer_size_in_bytes = 10_000
        self.assertEqual(self.control.outbound_buffer_size_in_bytes, 9000)

    def test_a_listener_refuses_a_late_size_of_the_buffer(self) -> None:
        """As documented for WinRT, it is an error."""
        self.is_in_use = True
        error = self.assertRaises(
            LocalProtocolError, setattr, self.listener, "outbound_buffer_size_in_bytes", 9000
        )
        self.assertEqual(error.hresult, ILLEGAL_METHOD_CALL)

    def test_after_a_failed_connect_options_can_be_set(self) -> None:
        """The socket is no longer in use."""
        self.is_in_use = True
        self.is_in_use = False
        self.control.keep_alive = True
        self.assertTrue(self.control.keep_alive)

    def test_an_accepted_socket_has_the_options_of_its_listener(self) -> None:
        """All are copied, although the socket is in use."""
        for name, value in {**OPTIONS, "outbound_buffer_size_in_bytes": 9000}.items():
            setattr(self.listener, name, value)
        self.is_in_use = True
        self.control.inherit(self.listener)
        for name in (*OPTIONS, "outbound_buffer_size_in_bytes"):
            self.assertEqual(getattr(self.control, name), getattr(self.listener, name), name)


def ipv6_pair() -> tuple[socket.socket, socket.socket]:
    """Connect two sockets over the loopback of IPv6."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
            near = socket.create_connection(listener.getsockname()[:2])
            far, _ = listener.accept()
    except OSError as error:
        raise SkipTest(f"no IPv6: {error}") from None
    return near, far


class ApplyTests(SynchronousTestCase):
    """Options are set in the kernel."""

    def setUp(self) -> None:
        self.control = control()

    def applied(self, pair: tuple[socket.socket, socket.socket]) -> socket.socket:
        """Apply the options to one end, and return it."""
        for end in pair:
            self.addCleanup(end.close)
        transport: Any = Connection(pair[0], FakeProtocol(), IdleReactor())  # type: ignore[arg-type]
        self.control.apply(transport)
        return pair[0]

    def test_keep_alive_is_off_by_default(self) -> None:
        """``SO_KEEPALIVE`` has the value of the option."""
        for value in (False, True):
            self.control.keep_alive = value
            end = self.applied(tcp_pair())
            self.assertEqual(
                end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), value, f"{value=}"
            )

    def test_times_of_keep_alive_are_set(self) -> None:
        """Those that were not set have the kernel's defaults."""
        if not hasattr(socket, "TCP_KEEPIDLE"):
            self.skipTest("this system has no TCP_KEEPIDLE")
        for chosen in ([], list(KEEP_ALIVE)[:1], list(KEEP_ALIVE)):
            self.control = control()
            for name in chosen:
                setattr(self.control, name, OPTIONS[name])
            pair = tcp_pair()
            options = {name: getattr(socket, option) for name, (option, _) in KEEP_ALIVE.items()}
            expected = {
                name: OPTIONS[name]
                if name in chosen
                else pair[0].getsockopt(socket.IPPROTO_TCP, option)
                for name, option in options.items()
            }
            end = self.applied(pair)
            found = {
                name: end.getsockopt(socket.IPPROTO_TCP, option) for name, option in options.items()
            }
            self.assertEqual(found, expected, chosen)

    def test_low_latency_marks_both_families(self) -> None:
        """``IP_TOS``, and ``IPV6_TCLASS`` on IPv6 sockets, have the code point 46."""
        self.control.quality_of_service = LOW_LATENCY
        end = self.applied(tcp_pair())
        self.assertEqual(end.getsockopt(socket.IPPROTO_IP, socket.IP_TOS), 46 << 2)
        end = self.applied(ipv6_pair())
        self.assertEqual(end.getsockopt(socket.IPPROTO_IP, socket.IP_TOS), 46 << 2)
        self.assertEqual(end.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS), 46 << 2)

    def test_normal_keeps_an_existing_mark(self) -> None:
        """Other code may have set it."""
        pair = tcp_pair()
        pair[0].setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 32)
        end = self.applied(pair)
        self.assertEqual(end.getsockopt(socket.IPPROTO_IP, socket.IP_TOS), 32)

    def test_no_delay_is_set(self) -> None:
        """The transport turns ``TCP_NODELAY`` on at the start; False turns it off."""
        for value in (True, False):
            self.control.no_delay = value
            pair = tcp_pair()
            pair[0].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            found = self.applied(pair).getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            self.assertEqual(bool(found), value, f"{value=}")

    def test_the_hop_limit_is_set_on_ipv4(self) -> None:
        """``IP_TTL`` is 128 by default, not 64 as in Linux."""
        for limit in (128, 7):
            self.control.outbound_unicast_hop_limit = limit
            end = self.applied(tcp_pair())
            self.assertEqual(end.getsockopt(socket.IPPROTO_IP, socket.IP_TTL), limit, f"{limit=}")

    def test_the_hop_limit_is_set_on_ipv6(self) -> None:
        """``IPV6_UNICAST_HOPS``, and ``IP_TTL`` for IPv4 on such a socket."""
        self.control.outbound_unicast_hop_limit = 7
        end = self.applied(ipv6_pair())
        self.assertEqual(end.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS), 7)
        self.assertEqual(end.getsockopt(socket.IPPROTO_IP, socket.IP_TTL), 7)

    def test_the_buffer_has_at_least_the_requested_size(self) -> None:
        """``SO_SNDBUF``; Linux doubles it."""
        self.control.outbound_buffer_size_in_bytes = 20_000
        end = self.applied(tcp_pair())
        found = end.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        self.assertIn(found, (20_000, 40_000))

    def test_without_a_size_the_kernel_decides_on_the_buffer(self) -> None:
        """Setting any size would stop the kernel from adapting it."""
        near, far = tcp_pair()
        before = near.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        end = self.applied((near, far))
        self.assertEqual(end.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF), before)

    def test_a_unix_socket_gets_only_the_size_of_the_buffer(self) -> None:
        """Options that it does not have are left out, without an error."""
        for name, value in {**OPTIONS, "outbound_buffer_size_in_bytes": 20_000}.items():
            setattr(self.control, name, value)
        end = self.applied(socket.socketpair())
        found = end.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        self.assertIn(found, (20_000, 40_000))

    def test_a_transport_in_memory_gets_no_options(self) -> None:
        """It has no socket; that is no error."""
        for name, value in {**OPTIONS, "outbound_buffer_size_in_bytes": 20_000}.items():
            setattr(self.control, name, value)
        self.control.apply(transport := StringTransport())
        self.assertEqual(transport.value(), b"")
