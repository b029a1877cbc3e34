"""
twsock: the sockets of Windows.Networking.Sockets for Twisted.

The names most programs need are importable from here; protocols to embed are in `twsock.protocols`,
the wire formats by themselves in `twsock.wire`.
"""

from twsock.errors import (
    BrokenError,
    BusyError,
    ClosedError,
    LocalProtocolError,
    OperationNotSupported,
    ProtocolError,
    RemoteProtocolError,
    SocketError,
    SocketErrorStatus,
    WebErrorStatus,
)
from twsock.names import EndpointPair, HostName, HostNameSortOptions, HostNameType
from twsock.sockets import (
    Attempt,
    BandwidthStatistics,
    ConnectError,
    DatagramSocket,
    DatagramSocketMessageReceivedEventArgs,
    DataReader,
    DataWriter,
    DelimiterNotFoundError,
    EndOfStreamError,
    InputStreamOptions,
    RoundTripTimeStatistics,
    SocketQualityOfService,
    StreamSocket,
    StreamSocketListener,
    StreamSocketListenerConnectionReceivedEventArgs,
)
from twsock.tls import (
    Certificate,
    CertificateQuery,
    CertificateStores,
    ChainValidationResult,
    SocketProtectionLevel,
    SocketSslErrorSeverity,
)
from twsock.wire.values import ByteOrder, OutOfBoundsError, TextError, UnicodeEncoding

__all__ = [
    "Attempt",
    "BandwidthStatistics",
    "BrokenError",
    "BusyError",
    "ByteOrder",
    "Certificate",
    "CertificateQuery",
    "CertificateStores",
    "ChainValidationResult",
    "ClosedError",
    "ConnectError",
    "DataReader",
    "DataWriter",
    "DatagramSocket",
    "DatagramSocketMessageReceivedEventArgs",
    "DelimiterNotFoundError",
    "EndOfStreamError",
    "EndpointPair",
    "HostName",
    "HostNameSortOptions",
    "HostNameType",
    "InputStreamOptions",
    "LocalProtocolError",
    "OperationNotSupported",
    "OutOfBoundsError",
    "ProtocolError",
    "RemoteProtocolError",
    "RoundTripTimeStatistics",
    "SocketError",
    "SocketErrorStatus",
    "SocketProtectionLevel",
    "SocketQualityOfService",
    "SocketSslErrorSeverity",
    "StreamSocket",
    "StreamSocketListener",
    "StreamSocketListenerConnectionReceivedEventArgs",
    "TextError",
    "UnicodeEncoding",
    "WebErrorStatus",
]
