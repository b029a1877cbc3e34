"""
Options of a stream socket or listener: set by the application, applied when it is connected.

Read by `twsock.StreamSocket` and `twsock.StreamSocketListener`; accepted sockets get the options of
their listener. Once the socket is in use, setting an option raises an error, except for one that is
then ignored (as documented for WinRT).
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

from twsock._enums import DocumentedEnum
from twsock._integers import checked_integer
from twsock.errors import LocalProtocolError, OperationNotSupported
from twsock.ip.traffic_class import EXPEDITED_FORWARDING, check_marks, mark_packets
from twsock.stream.descriptor import bottom_socket
from twsock.tls.certificates import Certificate
from twsock.tls.levels import SocketProtectionLevel
from twsock.tls.validation import ChainValidationResult

__all__ = [
    "DEFAULT_HOP_LIMIT",
    "SocketQualityOfService",
    "StreamSocketControl",
    "StreamSocketListenerControl",
    "check_roots",
    "checked_quality",
]

#: As in WinRT; the default of Linux is 64.
DEFAULT_HOP_LIMIT: Final = 128


# <linux/tcp.h>: MAX_TCP_KEEPIDLE, MAX_TCP_KEEPINTVL (seconds) and MAX_TCP_KEEPCNT.
_MAX_KEEP_ALIVE_SECONDS: Final = 32_767
_MAX_KEEP_ALIVE_COUNT: Final = 127


class SocketQualityOfService(DocumentedEnum):
    """
    The priority of a socket's packets; ``Windows.Networking.Sockets.SocketQualityOfService``.

    ``LOW_LATENCY`` marks every sent packet as "expedited forwarding": differentiated services code
    point 46 (:rfc:`3246`). Use it for small amounts of urgent data, such as audio. A network may
    ignore or erase the mark. ``NORMAL`` sets no mark.
    """

    NORMAL = 0
    LOW_LATENCY = 1


class StreamSocketListenerControl:
    """
    Options of every socket that a listener accepts. They are set before it is bound.

    Setting one later raises `LocalProtocolError` (HRESULT ``E_ILLEGAL_METHOD_CALL``).
    """

    __slots__ = (
        "_hop_limit",
        "_is_in_use",
        "_keep_alive",
        "_keep_alive_options",
        "_no_delay",
        "_quality_of_service",
        "_send_buffer",
    )

    def __init__(self, is_in_use: Callable[[], bool]) -> None:
        self._is_in_use = is_in_use
        self._keep_alive = False
        # Values by the name of the kernel's option; only options that were set.
        self._keep_alive_options: dict[str, int] = {}
        self._no_delay = True
        self._hop_limit = DEFAULT_HOP_LIMIT
        self._send_buffer: int | None = None
        self._quality_of_service = SocketQualityOfService.NORMAL

    @property
    def keep_alive(self) -> bool:
        """Whether the kernel probes an idle peer (``SO_KEEPALIVE``); default False."""
        return self._keep_alive

    @keep_alive.setter
    def keep_alive(self, value: bool) -> None:
        self._check("keep_alive")
        self._keep_alive = bool(value)

    @property
    def keep_alive_idle(self) -> int | None:
        """
        Seconds without a byte from the peer until the first probe (``TCP_KEEPIDLE``).

        1 to 32,767; None, the default, uses the kernel's value: two hours on Linux. It has an
        effect only if `keep_alive` is True. Not in WinRT. Setting it raises
        `OperationNotSupported` if this system does not have the option.
        """
        return self._keep_alive_options.get("TCP_KEEPIDLE")

    @keep_alive_idle.setter
    def keep_alive_idle(self, value: int | None) -> None:
        self._check("keep_alive_idle")
        self._set_keep_alive_option("TCP_KEEPIDLE", value, _MAX_KEEP_ALIVE_SECONDS)

    @property
    def keep_alive_interval(self) -> int | None:
        """
        Seconds from one probe without an answer to the next (``TCP_KEEPINTVL``).

        1 to 32,767; None uses the kernel's value: 75 seconds on Linux. Otherwise as
        `keep_alive_idle`.
        """
        return self._keep_alive_options.get("TCP_KEEPINTVL")

    @keep_alive_interval.setter
    def keep_alive_interval(self, value: int | None) -> None:
        self._check("keep_alive_interval")
        self._set_keep_alive_option("TCP_KEEPINTVL", value, _MAX_KEEP_ALIVE_SECONDS)

    @property
    def keep_alive_count(self) -> int | None:
        """
        Probes without an answer until the connection fails with ``CONNECTION_TIMED_OUT``.

        1 to 127 (``TCP_KEEPCNT``); None uses the kernel's value: 9 on Linux. Otherwise as
        `keep_alive_idle`.
        """
        return self._keep_alive_options.get("TCP_KEEPCNT")

    @keep_alive_count.setter
    def keep_alive_count(self, value: int | None) -> None:
        self._check("keep_alive_count")
        self._set_keep_alive_option("TCP_KEEPCNT", value, _MAX_KEEP_ALIVE_COUNT)

    @property
    def no_delay(self) -> bool:
        """Whether small segments leave at once (``TCP_NODELAY``); default True, unlike in Linux."""
        return self._no_delay

    @no_delay.setter
    def no_delay(self, value: bool) -> None:
        self._check("no_delay")
        self._no_delay = bool(value)

    @property
    def outbound_unicast_hop_limit(self) -> int:
        """How many routers a packet may pass: 1 to 255; default 128."""
        return self._hop_limit

    @outbound_unicast_hop_limit.setter
    def outbound_unicast_hop_limit(self, value: int) -> None:
        self._check("outbound_unicast_hop_limit")
        if not 1 <= checked_integer(value, "a hop limit") <= 255:
            raise ValueError(f"a hop limit is 1 to 255, not {value}")
        self._hop_limit = value

    @property
    def outbound_buffer_size_in_bytes(self) -> int | None:
        """
        Requested size of the kernel's send buffer (``SO_SNDBUF``).

        None, the default, lets the kernel adapt it to the connection. Linux doubles a requested
        size to allow for its own overhead, and limits it to ``net.core.wmem_max``.
        """
        return self._send_buffer

    @outbound_buffer_size_in_bytes.setter
    def outbound_buffer_size_in_bytes(self, value: int) -> None:
        self._check("outbound_buffer_size_in_bytes")
        self._send_buffer = _checked_size(value)

    @property
    def quality_of_service(self) -> SocketQualityOfService:
        """
        The priority of the socket's packets; default ``NORMAL``. See `SocketQualityOfService`.

        On Windows ``LOW_LATENCY`` raises the priority of threads; here it marks packets, including
        those of the TCP handshake. Setting it raises `OperationNotSupported` if this system cannot
        mark packets.
        """
        return self._quality_of_service

    @quality_of_service.setter
    def quality_of_service(self, value: SocketQualityOfService) -> None:
        self._check("quality_of_service")
        self._quality_of_service = checked_quality(value)

    # Called by the socket and its listener.

    def inherit(self, listener: StreamSocketListenerControl) -> None:
        """Copy the values of the listener that accepted the socket."""
        self._keep_alive = listener._keep_alive
        self._no_delay = listener._no_delay
        self._hop_limit = listener._hop_limit
        self._send_buffer = listener._send_buffer
        self._keep_alive_options = dict(listener._keep_alive_options)
        self._quality_of_service = listener._quality_of_service

    def apply(self, transport: Any) -> None:
        """
        Set the options on the socket of a transport, as far as that kind of socket has them.

        :param transport: a connection; a port, whose accepted connections inherit the options; or a
            client that has not started to connect.
        """
        connection = bottom_socket(transport)
        if connection is None:
            return
        if self._send_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer)
        if connection.family not in (socket.AF_INET, socket.AF_INET6):
            return
        if self._keep_alive:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # `twsock.stream.transport` has turned it on.
        if not self._no_delay:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
        if connection.family == socket.AF_INET6:
            connection.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, self._hop_limit)
        # Also on IPv6 sockets, which may carry IPv4 ("::ffff:192.0.2.1").
        connection.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, self._hop_limit)
        for name, value in self._keep_alive_options.items():
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        if self._quality_of_service is SocketQualityOfService.LOW_LATENCY:
            mark_packets(connection, EXPEDITED_FORWARDING)

    def _set_keep_alive_option(self, name: str, value: int | None, most: int) -> None:
        if value is None:
            self._keep_alive_options.pop(name, None)
            return
        if not 1 <= checked_integer(value, name) <= most:
            raise ValueError(f"{name} is 1 to {most:,}, not {value}")
        if not hasattr(socket, name):
            raise OperationNotSupported(f"this system has no {name}")
        self._keep_alive_options[name] = value

    def _check(self, name: str) -> None:
        if self._is_in_use():
            raise LocalProtocolError(f"{name} is set before the socket is connected or bound")


class StreamSocketControl(StreamSocketListenerControl):
    """
    Options of one socket. They are set before it is connected; those of TLS, before the handshake.

    Setting one later raises `LocalProtocolError` (HRESULT ``E_ILLEGAL_METHOD_CALL``), except for
    `outbound_buffer_size_in_bytes`, which is ignored then. After a connect that failed all can be
    set again.
    """

    __slots__ = (
        "_client_certificate",
        "_is_securing",
        "_min_protection_level",
        "_serialize_connection_attempts",
        "_trust_roots",
        "application_protocols",
        "ignorable_server_certificate_errors",
        "resumes_sessions",
    )

    def __init__(
        self, is_in_use: Callable[[], bool], is_securing: Callable[[], bool] = lambda: False
    ) -> None:
        super().__init__(is_in_use)
        self._serialize_connection_attempts = False
        self._is_securing = is_securing
        self._client_certificate: Certificate | None = None
        self._min_protection_level = SocketProtectionLevel.UNSPECIFIED
        #: Errors of the server's certificate to ignore; a list to be changed. Fatal errors are
        #: never ignored, and each error has to be listed.
        self.ignorable_server_certificate_errors: list[ChainValidationResult] = []
        self._trust_roots: Sequence[Certificate] | None = None
        #: Whether to resume the TLS session of an earlier connection of this process to the same
        #: host and port. The server's certificate is then not verified again, except for its name
        #: and validity. False: every handshake is a full one, and no session is stored.
        self.resumes_sessions = True
        #: Protocols to offer inside TLS (ALPN), the preferred one first. Not in WinRT.
        self.application_protocols: Sequence[bytes] = ()

    @property
    def client_certificate(self) -> Certificate | None:
        """The certificate of this end, if the server requests one; default None."""
        return self._client_certificate

    @client_certificate.setter
    def client_certificate(self, value: Certificate | None) -> None:
        self._check_tls("client_certificate")
        if value is not None and not value.has_private_key:
            raise ValueError(f"the certificate of {value.subject} has no key")
        self._client_certificate = value

    @property
    def min_protection_level(self) -> SocketProtectionLevel:
        """The lowest accepted version of TLS; default ``UNSPECIFIED``, which means TLS 1.2."""
        return self._min_protection_level

    @min_protection_level.setter
    def min_protection_level(self, value: SocketProtectionLevel) -> None:
        self._check_tls("min_protection_level")
        self._min_protection_level = SocketProtectionLevel(value)

    @property
    def trust_roots(self) -> Sequence[Certificate] | None:
        """
        Authorities to trust; default None, for those of the platform. Not in WinRT.

        An empty list trusts no server. `Certificate.load` and `Certificate.from_pem` read
        authorities.
        """
        return self._trust_roots

    @trust_roots.setter
    def trust_roots(self, value: Sequence[Certificate] | None) -> None:
        check_roots(value, "trust_roots")
        self._trust_roots = value

    def _check_tls(self, name: str) -> None:
        if self._is_securing():
            raise LocalProtocolError(f"{name} is set before the handshake")

    @property
    def outbound_buffer_size_in_bytes(self) -> int | None:
        """
        Requested size of the kernel's send buffer (``SO_SNDBUF``).

        None, the default, lets the kernel adapt it to the connection. Linux doubles a requested
        size to allow for its own overhead, and limits it to ``net.core.wmem_max``. Setting it once
        the socket is in use is ignored.
        """
        return self._send_buffer

    @outbound_buffer_size_in_bytes.setter
    def outbound_buffer_size_in_bytes(self, value: int) -> None:
        size = _checked_size(value)
        if not self._is_in_use():
            self._send_buffer = size

    @property
    def serialize_connection_attempts(self) -> bool:
        """Whether attempts to connect never overlap; default False."""
        return self._serialize_connection_attempts

    @serialize_connection_attempts.setter
    def serialize_connection_attempts(self, value: bool) -> None:
        self._check("serialize_connection_attempts")
        self._serialize_connection_attempts = bool(value)


def checked_quality(value: SocketQualityOfService) -> SocketQualityOfService:
    """
    Return a quality of service that this system supports.

    :raises ValueError: when the number is not a `SocketQualityOfService`.
    :raises OperationNotSupported: when this system cannot mark packets.
    """
    quality = SocketQualityOfService(value)
    if quality is SocketQualityOfService.LOW_LATENCY:
        check_marks()
    return quality


def _checked_size(value: int) -> int:
    if not 0 < checked_integer(value, "a buffer size") < 2**31:
        raise ValueError(f"a buffer size is 1 to 2,147,483,647 bytes, not {value}")
    return value


def check_roots(value: Any, name: str) -> None:
    """
    Check a list of authorities, so that a mistake does not wait for the next handshake.

    :param name: that of the option.
    :raises TypeError: when it is no list of certificates, and not None.
    """
    if value is None:
        return
    if not isinstance(value, Sequence) or isinstance(value, str | bytes | bytearray):
        found = type(value).__name__
        raise TypeError(f"{name} is a list of Certificates or None, not {found}")
    for root in value:
        if not isinstance(root, Certificate):
            found = type(root).__name__
            raise TypeError(f"{name} is a list of Certificates, and has {found}")
