"""Strings of datagram endpoints, with the settings of a service."""

from __future__ import annotations

from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from twsock.errors import SocketError, SocketErrorStatus
from twsock.services.datagram_listening import parse_datagram_endpoint
from twsock.services.listening import describe_mistake


class DatagramEndpointTests(SynchronousTestCase):
    """Endpoint strings of datagrams, together with the options of a service."""

    def parse(self, description: str, **settings: Any) -> Any:
        """Parse a string."""
        return parse_datagram_endpoint(MemoryReactorClock(), description, **settings)

    def test_a_setting_of_the_string_replaces_the_option(self) -> None:
        """For each setting, also if the string gives the default."""
        settings = {"receive_buffer": 5000, "max_datagram": 100}
        for words, expected in (
            ("", (5000, 100)),
            (":receiveBuffer=7000", (7000, 100)),
            (":maxDatagram=65535", (5000, 65_535)),
            (":maxDatagram=7:receiveBuffer=7000", (7000, 7)),
        ):
            for kind in ("udp:1", "multicast:224.3.0.5:1"):
                options = self.parse(kind + words, **settings).options
                self.assertEqual(
                    (options.receive_buffer, options.max_datagram),
                    expected,
                    f"{words=}, {expected=}, {kind=}",
                )

    def test_other_settings_of_the_string_stay(self) -> None:
        """The options change their own settings only."""
        endpoint = self.parse("udp:1:interface=127.0.0.1:ttl=3", receive_buffer=5000)
        self.assertEqual((endpoint.interface, endpoint.options.hop_limit), ("127.0.0.1", 3))

    def test_a_string_that_is_no_endpoint_is_refused_with_an_example(self) -> None:
        """The error is one line with the string."""
        for description in ("", "udp", "udp:port", "pigeon:1", "udp:1:colour=red", "udp:1\\"):
            error = self.assertRaises(ValueError, self.parse, description)
            self.assertIn(repr(description), str(error), f"{description=}: {error}")
            self.assertIn("udp:1337:interface=127.0.0.1", str(error), f"{description=}: {error}")
            self.assertNotIn("\n", str(error), f"{description=}: {error}")

    def test_a_wrong_port_has_its_status(self) -> None:
        """It is the same as for streams."""
        for description in ("udp:abc", "udp:65536", "multicast:224.3.0.5:x"):
            error: Any = self.assertRaises(ValueError, self.parse, description)
            self.assertIs(
                error.status,
                SocketErrorStatus.CLASS_TYPE_NOT_FOUND,
                f"{description=}, {error.status=}",
            )
            self.assertIn(
                "ClassTypeNotFound (9): cannot use", describe_mistake(error), f"{description=}"
            )

    def test_an_address_that_is_no_group_has_its_status(self) -> None:
        """The line has the string too."""
        error = self.assertRaises(SocketError, self.parse, "multicast:192.0.2.1:1")
        self.assertIs(error.status, SocketErrorStatus.ADDRESS_FAMILY_NOT_SUPPORTED)
        self.assertIn("'multicast:192.0.2.1:1'", str(error))
