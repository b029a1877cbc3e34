"""
Options of a WebSocket: set by the application, applied when it is connected.

`twsock.MessageWebSocket` and `twsock.StreamWebSocket` read the options when they connect. All
options of a stream socket are included. Once the WebSocket is in use, setting an option raises an
error, except for options that WinRT ignores then. Holds the values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from twsock._integers import checked_integer
from twsock.names import HostName
from twsock.sockets.stream.control import StreamSocketControl, check_roots
from twsock.sockets.stream.securing import checked_server_name
from twsock.sockets.websocket.credential import PasswordCredential
from twsock.sockets.websocket.message import MessageWebSocketReceiveMode, SocketMessageType
from twsock.sockets.websocket.tunnel import Proxy
from twsock.tls.certificates import Certificate
from twsock.tls.levels import SocketProtectionLevel
from twsock.websocket.deflate import DeflateSettings
from twsock.websocket.keepalive import DEFAULT_PING_INTERVAL, DEFAULT_PING_TIMEOUT, check_times
from twsock.websocket.messages import DEFAULT_MAX_FRAGMENTS

__all__ = [
    "DEFAULT_MAX_RECEIVED_MESSAGE",
    "MessageWebSocketControl",
    "StreamWebSocketControl",
    "WebSocketControl",
]

#: Default of ``max_message_size`` on clients, in bytes. The default of WinRT is 4 GiB.
DEFAULT_MAX_RECEIVED_MESSAGE: Final = 16 * 1024 * 1024

#: The largest size in bytes, which WinRT calls INFINITE.
_LARGEST: Final = 0xFFFF_FFFF

_Level = SocketProtectionLevel

#: The levels of TLS.
_TLS_LEVELS: Final = frozenset({_Level.SSL, _Level.TLS10, _Level.TLS11, _Level.TLS12, _Level.TLS13})

T = TypeVar("T")


class WebSocketControl(StreamSocketControl):
    """
    Options of one WebSocket, to be set before it is connected.

    Later, setting an option raises `LocalProtocolError` (HRESULT ``E_ILLEGAL_METHOD_CALL``), with
    two exceptions: `outbound_buffer_size_in_bytes` and changes of the lists are ignored. After a
    connect that failed, all options can be set again.
    """

    __slots__ = (
        "_compression",
        "_desired_unsolicited_pong_interval",
        "_max_fragment_size",
        "_max_fragments",
        "_max_protection_level",
        "_ping_interval",
        "_ping_timeout",
        "_proxy",
        "_proxy_credential",
        "_proxy_trust_roots",
        "_sends_credentials_unencrypted",
        "_server_credential",
        "_server_name",
        "supported_protocols",
    )

    def __init__(
        self, is_in_use: Callable[[], bool], is_securing: Callable[[], bool] = lambda: False
    ) -> None:
        super().__init__(is_in_use, is_securing)
        #: Subprotocols to offer, the preferred one first; a list to be changed.
        self.supported_protocols: list[str] = []
        self._server_credential: PasswordCredential | None = None
        self._proxy: str | None = None
        self._proxy_trust_roots: Sequence[Certificate] | None = None
        self._proxy_credential: PasswordCredential | None = None
        self._sends_credentials_unencrypted = False
        self._server_name: HostName | None = None
        self._max_protection_level = SocketProtectionLevel.SSL
        self._compression: DeflateSettings | None = None
        self._ping_interval: float | None = DEFAULT_PING_INTERVAL
        self._ping_timeout: float | None = DEFAULT_PING_TIMEOUT
        self._max_fragment_size: int | None = None
        self._max_fragments = DEFAULT_MAX_FRAGMENTS
        self._desired_unsolicited_pong_interval: float | None = None

    @property
    def server_credential(self) -> PasswordCredential | None:
        """
        User name and password for the server, sent with the request (Basic); default None.

        Without TLS, a connect fails; see `sends_credentials_unencrypted`. A header field
        ``Authorization`` of the application replaces them.
        """
        return self._server_credential

    @server_credential.setter
    def server_credential(self, value: PasswordCredential | None) -> None:
        self._check("server_credential")
        self._server_credential = _checked_type(value, PasswordCredential, "server_credential")

    @property
    def proxy(self) -> str | None:
        """
        The HTTP proxy to connect through; default None, for no proxy. Not in WinRT.

        ``http://host:port``, or ``https://host:port`` for a proxy that clients reach with TLS. The
        proxy opens a tunnel (``CONNECT``) for ``ws`` and ``wss``. Environment variables such as
        ``HTTPS_PROXY`` are not read. ``connect_endpoint`` fails if there is a proxy.
        """
        return self._proxy

    @proxy.setter
    def proxy(self, value: str | None) -> None:
        self._check("proxy")
        if value is not None:
            Proxy.parse(value)
        self._proxy = value

    @property
    def proxy_trust_roots(self) -> Sequence[Certificate] | None:
        """
        Authorities to trust for the certificate of an ``https`` proxy. Not in WinRT.

        None, the default, means the authorities of the platform. `trust_roots`,
        ``client_certificate`` and ``ignorable_server_certificate_errors`` apply to the server only.
        """
        return self._proxy_trust_roots

    @proxy_trust_roots.setter
    def proxy_trust_roots(self, value: Sequence[Certificate] | None) -> None:
        self._check("proxy_trust_roots")
        check_roots(value, "proxy_trust_roots")
        self._proxy_trust_roots = value

    @property
    def proxy_credential(self) -> PasswordCredential | None:
        """
        User name and password for the proxy (Basic); default None. They are never sent to the
        server.

        With an ``http`` proxy a connect fails unless `sends_credentials_unencrypted` is set. Not in
        WinRT.
        """
        return self._proxy_credential

    @proxy_credential.setter
    def proxy_credential(self, value: PasswordCredential | None) -> None:
        self._check("proxy_credential")
        self._proxy_credential = _checked_type(value, PasswordCredential, "proxy_credential")

    @property
    def sends_credentials_unencrypted(self) -> bool:
        """Whether credentials may be sent without TLS; default False. Not in WinRT."""
        return self._sends_credentials_unencrypted

    @sends_credentials_unencrypted.setter
    def sends_credentials_unencrypted(self, value: bool) -> None:
        self._check("sends_credentials_unencrypted")
        self._sends_credentials_unencrypted = bool(value)

    @property
    def server_name(self) -> HostName | None:
        """
        The name that the certificate of the server must have, as a `HostName` or ``str``.

        None, the default, means the host of the URI. TLS also sends the name to the server (SNI).
        ``Host`` of the request is still the host of the URI. Not in WinRT.
        """
        return self._server_name

    @server_name.setter
    def server_name(self, value: HostName | str | None) -> None:
        self._check_tls("server_name")
        self._server_name = None if value is None else checked_server_name(value)

    @property
    def max_protection_level(self) -> SocketProtectionLevel:
        """
        The highest version of TLS to offer; default ``SSL``, for the highest that OpenSSL has.

        Not in WinRT. A connect fails if this machine does not support the level, or
        `min_protection_level` is above it.
        """
        return self._max_protection_level

    @max_protection_level.setter
    def max_protection_level(self, value: SocketProtectionLevel) -> None:
        self._check_tls("max_protection_level")
        level = SocketProtectionLevel(value)
        if level not in _TLS_LEVELS:
            raise ValueError(f"{level.documented_name} is not a level of TLS")
        self._max_protection_level = level

    @property
    def compression(self) -> DeflateSettings | None:
        """The compression to offer; default None, for no compression. Not in WinRT."""
        return self._compression

    @compression.setter
    def compression(self, value: DeflateSettings | None) -> None:
        self._check("compression")
        self._compression = _checked_type(value, DeflateSettings, "compression")

    @property
    def ping_interval(self) -> float | None:
        """Seconds between two pings, above 0; default 20. None for no pings. Not in WinRT."""
        return self._ping_interval

    @ping_interval.setter
    def ping_interval(self, value: float | None) -> None:
        self._check("ping_interval")
        check_times(value, None)
        self._ping_interval = value

    @property
    def ping_timeout(self) -> float | None:
        """
        Seconds after a ping until the connection is aborted if no byte arrives; default 20.

        Above 0. None for no such limit. Time in which this end does not read does not count. Not in
        WinRT.
        """
        return self._ping_timeout

    @ping_timeout.setter
    def ping_timeout(self, value: float | None) -> None:
        self._check("ping_timeout")
        check_times(None, value)
        self._ping_timeout = value

    @property
    def desired_unsolicited_pong_interval(self) -> float | None:
        """
        Seconds between two pongs that answer no ping, above 0; default None, for no such pongs.

        These pongs keep proxies from dropping the connection. Only pings, which are sent by
        default, show whether the server is alive.
        """
        return self._desired_unsolicited_pong_interval

    @desired_unsolicited_pong_interval.setter
    def desired_unsolicited_pong_interval(self, value: float | None) -> None:
        self._check("desired_unsolicited_pong_interval")
        if value is not None and not value > 0:
            raise ValueError(f"an interval of pongs is above 0 seconds, not {value:g}")
        self._desired_unsolicited_pong_interval = value

    @property
    def actual_unsolicited_pong_interval(self) -> float | None:
        """The interval in use: the desired one."""
        return self._desired_unsolicited_pong_interval

    @property
    def max_fragment_size(self) -> int | None:
        """
        The largest frame that is sent, in bytes, 1 or more: larger messages are divided.

        Default None, for one frame for each message. Not in WinRT.
        """
        return self._max_fragment_size

    @max_fragment_size.setter
    def max_fragment_size(self, value: int | None) -> None:
        self._check("max_fragment_size")
        if value is not None and checked_integer(value, "max_fragment_size") < 1:
            raise ValueError(f"max_fragment_size is 1 byte or more, not {value}")
        self._max_fragment_size = value

    @property
    def max_fragments(self) -> int:
        """
        How many frames a received message may have, 1 or more; default 1,024. Not in WinRT.

        A message with more frames closes the WebSocket with the code 1008. Uncompressed messages
        that are delivered in pieces do not have this limit.
        """
        return self._max_fragments

    @max_fragments.setter
    def max_fragments(self, value: int) -> None:
        self._check("max_fragments")
        if checked_integer(value, "max_fragments") < 1:
            raise ValueError(f"max_fragments is 1 or more, not {value}")
        self._max_fragments = value


class MessageWebSocketControl(WebSocketControl):
    """Options of one `twsock.MessageWebSocket`; see `WebSocketControl`."""

    __slots__ = ("_max_message_size", "_message_type", "_receive_mode")

    def __init__(
        self, is_in_use: Callable[[], bool], is_securing: Callable[[], bool] = lambda: False
    ) -> None:
        super().__init__(is_in_use, is_securing)
        self._max_message_size = DEFAULT_MAX_RECEIVED_MESSAGE
        self._message_type = SocketMessageType.BINARY
        self._receive_mode = MessageWebSocketReceiveMode.FULL_MESSAGE

    @property
    def max_message_size(self) -> int:
        """
        The largest message accepted, in bytes: 0 to 0xFFFFFFFF; default 16 MiB.

        A larger one closes the WebSocket with the code 1009. The default of WinRT is 0xFFFFFFFF.
        """
        return self._max_message_size

    @max_message_size.setter
    def max_message_size(self, value: int) -> None:
        self._check("max_message_size")
        if not 0 <= checked_integer(value, "max_message_size") <= _LARGEST:
            raise ValueError(f"max_message_size is 0 to {_LARGEST} bytes, not {value}")
        self._max_message_size = value

    @property
    def message_type(self) -> SocketMessageType:
        """
        The type of messages written to ``output_stream``; default ``BINARY``.

        It can be set at any time, and applies to messages that are written afterwards.
        """
        return self._message_type

    @message_type.setter
    def message_type(self, value: SocketMessageType) -> None:
        self._message_type = SocketMessageType(value)

    @property
    def receive_mode(self) -> MessageWebSocketReceiveMode:
        """Whether messages are delivered whole, the default, or in pieces as they arrive."""
        return self._receive_mode

    @receive_mode.setter
    def receive_mode(self, value: MessageWebSocketReceiveMode) -> None:
        self._check("receive_mode")
        self._receive_mode = MessageWebSocketReceiveMode(value)


class StreamWebSocketControl(WebSocketControl):
    """Options of one `twsock.StreamWebSocket`; see `WebSocketControl`."""

    __slots__ = ()


def _checked_type(value: Any, kind: type[T], name: str) -> T | None:
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"{name} is a {kind.__name__} or None, not {type(value).__name__}")
    return value
