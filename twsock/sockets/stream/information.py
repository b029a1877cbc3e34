"""
Information about a stream socket or listener: addresses, TLS facts and statistics.

Read by applications, at any time. The addresses are read from the transport once, when the socket
is connected; the statistics are read from the kernel at each access.
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
    Times from a segment to its acknowledgement, in microseconds; 0 if nothing was measured.

    ``Windows.Networking.Sockets.RoundTripTimeStatistics``.

    :ivar variance: the variance of the times.
    :ivar max: the longest time; always 0, since Linux does not record it.
    :ivar min: the shortest time.
    :ivar sum: the *smoothed* time, despite its name.
    """

    variance: int = 0
    max: int = 0
    min: int = 0
    sum: int = 0


@dataclass(frozen=True, slots=True)
class BandwidthStatistics:
    """
    Estimates of the bandwidth of the path, in bits a second; 0 if nothing was measured.

    ``Windows.Networking.Sockets.BandwidthStatistics``. Linux estimates the outbound direction only:
    the inbound values, and both instabilities, are always 0 or False.

    :ivar outbound_bandwidth_peaked: whether the estimate is the limit of the path, and not merely
        the rate of the sender.
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
        # Twisted's addresses; converted to host names at each access.
        self._host: Any = None
        self._peer: Any = None
        self._remote_host_name: HostName | None = None
        self._remote_service_name: str | None = None
        self._level = SocketProtectionLevel.PLAIN_SOCKET
        #: Of an accepted socket: the verified certificate of its peer.
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
        """The protocol that both ends agreed on inside TLS (ALPN); empty if there is none."""
        return self._negotiated()[2]

    @property
    def is_session_resumed(self) -> bool:
        """Whether this end, as a client, resumed the session of an earlier connection."""
        return self._verification is not None and self._verification.is_resumed

    @property
    def server_certificate(self) -> Certificate | None:
        """The certificate of the server in the last handshake, even if it was refused."""
        return None if self._verification is None else self._verification.certificate

    @property
    def server_intermediate_certificates(self) -> tuple[Certificate, ...]:
        """The certificates of its issuers that the server sent."""
        return () if self._verification is None else self._verification.intermediates

    @property
    def server_certificate_errors(self) -> tuple[ChainValidationResult, ...]:
        """All errors of the server's certificate, ignored ones included."""
        return () if self._verification is None else self._verification.errors

    @property
    def server_certificate_error_severity(self) -> SocketSslErrorSeverity:
        """The severity of the worst of these errors."""
        verification = self._verification
        return SocketSslErrorSeverity.NONE if verification is None else verification.severity

    @property
    def local_address(self) -> HostName | None:
        """Address of this end; None before it is connected, and for a UNIX socket."""
        return _host_name(self._host)

    @property
    def local_port(self) -> str:
        """Port of this end; empty before it is connected."""
        return _port(self._host)

    @property
    def remote_address(self) -> HostName | None:
        """
        Address of the peer; None before the socket is connected, and for a UNIX socket.

        If a proxy sends a PROXY header, the address in the header, once it was received.
        """
        return _host_name(self._asked_peer())

    @property
    def remote_port(self) -> str:
        """Port of the peer, a number; empty before it is connected."""
        return _port(self._asked_peer())

    @property
    def remote_host_name(self) -> HostName | None:
        """The host argument of ``connect``; of an accepted socket, the peer's address."""
        return self._remote_host_name or self.remote_address

    @property
    def remote_service_name(self) -> str:
        """The service argument of ``connect``; of an accepted socket, the peer's port."""
        return self.remote_port if self._remote_service_name is None else self._remote_service_name

    @property
    def round_trip_time_statistics(self) -> RoundTripTimeStatistics:
        """The current round-trip times."""
        info = read_tcp_info(self._socket())
        return RoundTripTimeStatistics(
            variance=info.round_trip_variation,
            min=info.least_round_trip,
            sum=info.smoothed_round_trip,
        )

    @property
    def bandwidth_statistics(self) -> BandwidthStatistics:
        """The current estimate of the bandwidth."""
        info = read_tcp_info(self._socket())
        return BandwidthStatistics(
            outbound_bits_per_second=8 * info.delivery_rate,
            outbound_bandwidth_peaked=bool(info.delivery_rate)
            and not info.is_rate_limited_by_sender,
        )

    # Called by the socket.

    def asked_for(self, host: HostName | None, service: str | None) -> None:
        """Record the host and service of a new ``connect``, and reset the rest."""
        self._remote_host_name = host
        self._remote_service_name = service
        # The results of an earlier attempt do not apply to this one.
        self._level = SocketProtectionLevel.PLAIN_SOCKET
        self._verification = None
        self._tls = None

    def connected(self, transport: Any) -> None:
        """Record the addresses of the connection, which the transport drops at its end."""
        self._transport = transport
        self._host = transport.getHost()

    def securing(
        self, level: SocketProtectionLevel, verification: ClientVerification | None = None
    ) -> None:
        """
        Record the start of a handshake.

        :param verification: the verification of the server; None if this end is the server.
        """
        self._level = level
        self._verification = verification
        self._tls = None

    def secured(self, connection: SSL.Connection) -> None:
        """Record a finished handshake."""
        protocol = connection.get_alpn_proto_negotiated().decode("ascii", "replace")
        version, cipher = connection.get_protocol_version_name(), connection.get_cipher_name()
        self._tls = (version, cipher or "", protocol)

    def lost(self) -> None:
        """Keep the facts of the lost connection, but not its statistics."""
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
    """Return the IPv4 address that a socket of both families reports as "::ffff:192.0.2.1"."""
    literal, percent, zone = host.partition("%")
    try:
        mapped = ipaddress.IPv6Address(literal).ipv4_mapped
    except ValueError:
        return host
    return str(mapped) if mapped is not None else literal + percent + zone
