"""Options of a WebSocket have defaults and bounds."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twsock import HostName, PasswordCredential, SocketMessageType
from twsock.sockets import MessageWebSocketControl, StreamWebSocketControl
from twsock.tls import SocketProtectionLevel
from twsock.websocket import DeflateSettings


def control() -> Any:
    return MessageWebSocketControl(lambda: False)


class ControlTests(SynchronousTestCase):
    """Each option."""

    def test_defaults_are_documented(self) -> None:
        """W12, W15, W21, W26: Those of WinRT, except for the limit of messages."""
        expected: dict[str, object] = {
            "max_message_size": 16 * 1024 * 1024,
            "message_type": 0,
            "receive_mode": 0,
            "supported_protocols": [],
            "server_credential": None,
            "proxy_credential": None,
            "proxy": None,
            "proxy_trust_roots": None,
            "server_name": None,
            "max_protection_level": SocketProtectionLevel.SSL,
            "sends_credentials_unencrypted": False,
            "compression": None,
            "ping_interval": 20,
            "ping_timeout": 20,
            "max_fragment_size": None,
            "max_fragments": 1024,
            "desired_unsolicited_pong_interval": None,
            "actual_unsolicited_pong_interval": None,
            "client_certificate": None,
            "ignorable_server_certificate_errors": [],
            "trust_roots": None,
            "outbound_buffer_size_in_bytes": None,
            "no_delay": True,
        }
        found = {name: getattr(control(), name) for name in expected}
        self.assertEqual(found, expected)

    def test_values_are_kept(self) -> None:
        """Each option returns what was set."""
        smallest = control()
        smallest.max_message_size = 0
        self.assertEqual(smallest.max_message_size, 0)
        options: dict[str, object] = {
            "max_message_size": 0xFFFF_FFFF,
            "message_type": SocketMessageType.UTF8,
            "receive_mode": 1,
            "server_credential": PasswordCredential("a", "b"),
            "proxy_credential": PasswordCredential("a", "b"),
            "proxy": "https://proxy.example:8080",
            "proxy_trust_roots": [],
            "server_name": HostName("server.example"),
            "max_protection_level": SocketProtectionLevel.TLS12,
            "sends_credentials_unencrypted": True,
            "compression": DeflateSettings(),
            "ping_interval": None,
            "ping_timeout": 0.5,
            "max_fragment_size": 1,
            "max_fragments": 1,
        }
        changed = control()
        for name, value in options.items():
            setattr(changed, name, value)
            self.assertEqual(getattr(changed, name), value, name)

    def test_bounds_are_checked(self) -> None:
        """W5: A wrong value is a ``ValueError`` or ``TypeError``, which is E_INVALIDARG."""
        wrong_values: tuple[tuple[str, object], ...] = (
            ("proxy", "proxy.example:8080"),
            ("max_message_size", -1),
            ("max_message_size", 1 << 32),
            ("message_type", 2),
            ("receive_mode", 2),
            ("ping_interval", 0),
            ("ping_timeout", -1),
            ("max_fragment_size", 0),
            ("max_fragments", 0),
            ("desired_unsolicited_pong_interval", 0),
            ("server_name", ""),
            ("server_name", "a b"),
            ("server_name", "01:23:45:67:89:ab"),
            ("max_protection_level", SocketProtectionLevel.PLAIN_SOCKET),
            ("max_protection_level", SocketProtectionLevel.UNSPECIFIED),
        )
        for name, value in wrong_values:
            with self.assertRaises(ValueError, msg=f"{name} {value}"):
                setattr(control(), name, value)
        for name, wrong in (
            ("max_message_size", 1.5),
            ("server_credential", "user:secret"),
            ("proxy_credential", "user:secret"),
            ("proxy", b"http://a:1"),
            ("proxy_trust_roots", b"PEM"),
            ("compression", True),
        ):
            with self.assertRaises(TypeError, msg=name):
                setattr(control(), name, wrong)

    def test_stream_form_has_the_common_options(self) -> None:
        """The control of a `StreamWebSocket` has no other options."""
        stream: Any = StreamWebSocketControl(lambda: False)
        self.assertEqual(stream.ping_interval, 20)
        self.assertFalse(hasattr(stream, "max_message_size"))
