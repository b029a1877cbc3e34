"""
What is known of a socket: filled in as its connection forms, readable at any time.

Read by applications. Addresses are asked of the transport once, when it stands; the statistics are
asked of the kernel each time.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

from OpenSSL import SSL

from twsock.ip.zones import with_zone
from twsock.names import HostName
from twsock.stream.descriptor import bottom_socket, secured_by
from twsock.stream.tcp_info import read_tcp_info
from twsock.tls.certificates import Certificate
from twsock.tls.client import ClientVerification
from twsock.tls.levels import SocketProtectionLevel
from twsock.tls.validation import ChainValidationResult, SocketSslErrorSeverity

__all__ = [
    "BandwidthStatistics",
    "RoundTripTimeStatistics",
    "StreamSocketInformation",
    "StreamSocketListenerInformation",
]


@dataclass(frozen=True, slots=True)
class RoundTripTimeStatistics:
    """
    Times from a segment to its acknowledgement, in microseconds; 0 where nothing was measured.

    ``Windows.Networking.Sockets.RoundTripTimeStatistics``.

    :ivar variance: how much they vary.
    :ivar max: the longest; always 0, since Linux keeps none.
    :ivar min: the shortest.
    :ivar sum: the *smoothed* time, whatever its name.
    """

    variance: int = 0
    max: int = 0
    min: int = 0
    sum: int = 0


@dataclass(frozen=True, slots=True)
class BandwidthStatistics:
    """
    Estimates of what the path carries, in bits a second; 0 where nothing was measured.

    ``Windows.Networking.Sockets.BandwidthStatistics``. Linux estimates the way out only: what is
    inbound, and both instabilities, are always 0 or False.

    :ivar outbound_bandwidth_peaked: whether the estimate is what the path carries, and not merely
        what was sent.
    """

    outbound_bits_per_second: int = 0
    inbound_bits_per_second: int = 0
    outbound_bits_per_second_instability: int = 0
    inbound_bits_per_second_instability: int = 0
    outbound_bandwidth_peaked: bool = False
    inbound_bandwidth_peaked: bool = False


class StreamSocketInformation:
    """Facts of one `twsock.StreamSocket`. All ports are text, as in WinRT."""

    __slots__ = (
        "_host",
        "_level",
        "_peer",
        "_remote_host_name",
        "_remote_service_name",
        "_tls",
        "_transport",
        "_verification",
        "client_certificate",
    )

    def __init__(self) -> None:
        self._transport: Any = None
        # Twisted's addresses; made into names when somebody asks.
        self._host: Any = None
        self._peer: Any = None
        self._remote_host_name: HostName | None = None
        self._remote_service_name: str | None = None
        self._level = SocketProtectionLevel.PLAIN_SOCKET
        #: Of an accepted socket: the certificate with which its peer identified itself, verified.
        self.client_certificate: Certificate | None = None
        self._verification: ClientVerification | None = None
        self._tls: tuple[str, str, str] | None = None

    @property
    def protection_level(self) -> SocketProtectionLevel:
        """
        The *requested* level; `negotiated_version` is the version in use.

        With a TLS endpoint it is ``SSL`` once the handshake is done.
        """
        if self._level is SocketProtectionLevel.PLAIN_SOCKET and self._negotiated()[0]:
            return SocketProtectionLevel.SSL
        return self._level

    @property
    def negotiated_version(self) -> str:
        """The version of TLS in use, such as ``TLSv1.3``; empty before a handshake is done."""
        return self._negotiated()[0]

    @property
    def cipher(self) -> str:
        """OpenSSL's name of the cipher suite in use; empty before a handshake is done."""
        return self._negotiated()[1]

    @property
    def alpn_protocol(self) -> str:
        """The protocol that both agreed on inside TLS (ALPN); empty where none was."""
        return self._negotiated()[2]

    @property
    def is_session_resumed(self) -> bool:
        """Whether this end, as a client, resumed the session of an earlier connection."""
        return self._verification is not None and self._verification.is_resumed

    @property
    def server_certificate(self) -> Certificate | None:
        """What the server showed in the last handshake, also where it was refused for that."""
        return None if self._verification is None else self._verification.certificate

    @property
    def server_intermediate_certificates(self) -> tuple[Certificate, ...]:
        """The certificates of its issuers that the server sent."""
        return () if self._verification is None else self._verification.intermediates

    @property
    def server_certificate_errors(self) -> tuple[ChainValidationResult, ...]:
        """All that was wrong with it, what was forgiven included."""
        return () if self._verification is None else self._verification.errors

    @property
    def server_certificate_error_severity(self) -> SocketSslErrorSeverity:
        """How bad the worst of that is."""
        verification = self._verification
        return SocketSslErrorSeverity.NONE if verification is None else verification.severity

    @property
    def local_address(self) -> HostName | None:
        """Address of this end; None before it is connected, and where it has none (UNIX)."""
        return _host_name(self._host)

    @property
    def local_port(self) -> str:
        """Port of this end; empty before it is connected."""
        return _port(self._host)

    @property
    def remote_address(self) -> HostName | None:
        """
        Address of the peer; None before it is connected, and where it has none (UNIX).

        Behind a proxy that sends the PROXY header, whom the proxy names, once it has.
        """
        return _host_name(self._asked_peer())

    @property
    def remote_port(self) -> str:
        """Port of the peer, a number; empty before it is connected."""
        return _port(self._asked_peer())

    @property
    def remote_host_name(self) -> HostName | None:
        """The host as it was given to ``connect``; of an accepted socket, the peer's address."""
        return self._remote_host_name or self.remote_address

    @property
    def remote_service_name(self) -> str:
        """The service as it was given to ``connect``; of an accepted socket, the peer's port."""
        return self.remote_port if self._remote_service_name is None else self._remote_service_name

    @property
    def round_trip_time_statistics(self) -> RoundTripTimeStatistics:
        """How long segments take, as of now."""
        info = read_tcp_info(self._socket())
        return RoundTripTimeStatistics(
            variance=info.round_trip_variation,
            min=info.least_round_trip,
            sum=info.smoothed_round_trip,
        )

    @property
    def bandwidth_statistics(self) -> BandwidthStatistics:
        """How much the path carries, as of now."""
        info = read_tcp_info(self._socket())
        return BandwidthStatistics(
            outbound_bits_per_second=8 * info.delivery_rate,
            outbound_bandwidth_peaked=bool(info.delivery_rate)
            and not info.is_rate_limited_by_sender,
        )

    # Called by the socket.

    def asked_for(self, host: HostName | None, service: str | None) -> None:
        """Somebody wants to connect there."""
        self._remote_host_name = host
        self._remote_service_name = service
        # What an earlier attempt came to is of no meaning for this one.
        self._level = SocketProtectionLevel.PLAIN_SOCKET
        self._verification = None
        self._tls = None

    def connected(self, transport: Any) -> None:
        """The connection stands: take its addresses down, which its end forgets."""
        self._transport = transport
        self._host = transport.getHost()

    def securing(
        self, level: SocketProtectionLevel, verification: ClientVerification | None = None
    ) -> None:
        """
        Note that a handshake begins.

        :param verification: the verification of the server; None if this end is the server.
        """
        self._level = level
        self._verification = verification
        self._tls = None

    def secured(self, connection: SSL.Connection) -> None:
        """A handshake is done."""
        protocol = connection.get_alpn_proto_negotiated().decode("ascii", "replace")
        version, cipher = connection.get_protocol_version_name(), connection.get_cipher_name()
        self._tls = (version, cipher or "", protocol)

    def lost(self) -> None:
        """The connection is gone; what was known of it stays, without the statistics."""
        self._peer = self._asked_peer()
        self._negotiated()
        self._transport = None

    def _negotiated(self) -> tuple[str, str, str]:
        """Return version, cipher suite and ALPN protocol; of a TLS endpoint, from its engine."""
        if self._tls is None and self._transport is not None:
            connection = secured_by(self._transport)
            if connection is not None:
                self.secured(connection)
        return self._tls or ("", "", "")

    def _asked_peer(self) -> Any:
        return self._peer if self._transport is None else self._transport.getPeer()

    def _socket(self) -> Any:
        return None if self._transport is None else bottom_socket(self._transport)


class StreamSocketListenerInformation:
    """
    Facts of one `twsock.StreamSocketListener`.

    :ivar local_port: port it listens on, as text; empty before it is bound.
    """

    __slots__ = ("local_port",)

    def __init__(self) -> None:
        self.local_port = ""


def _host_name(address: Any) -> HostName | None:
    host = getattr(address, "host", None)
    if not isinstance(host, str):
        return None
    return HostName(with_zone(_unmapped(host), getattr(address, "scopeID", 0)))


def _port(address: Any) -> str:
    return str(address.port) if isinstance(getattr(address, "port", None), int) else ""


def _unmapped(host: str) -> str:
    """Give the IPv4 address that a socket of both families shows as "::ffff:192.0.2.1"."""
    literal, percent, zone = host.partition("%")
    try:
        mapped = ipaddress.IPv6Address(literal).ipv4_mapped
    except ValueError:
        return host
    return str(mapped) if mapped is not None else literal + percent + zone
