"""
twsock: the sockets of Windows.Networking.Sockets for Twisted.

The names most programs need are importable from here; protocols to embed are in `twsock.protocols`,
the wire formats by themselves in `twsock.wire`.

A name is imported when it is first used, so that `twsock.wire`, `twsock.errors` and `twsock.names`
load neither Twisted nor OpenSSL.
"""

from typing import TYPE_CHECKING

from twsock._lazy import import_when_used

if TYPE_CHECKING:
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
        WebSocketError,
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
        FileTooShortError,
        InputStreamOptions,
        MessageWebSocket,
        MessageWebSocketMessageReceivedEventArgs,
        MessageWebSocketReceiveMode,
        PasswordCredential,
        RelayedBytes,
        RoundTripTimeStatistics,
        ServerMessageWebSocket,
        ServerStreamWebSocket,
        SocketMessageType,
        SocketQualityOfService,
        StreamSocket,
        StreamSocketListener,
        StreamSocketListenerConnectionReceivedEventArgs,
        StreamWebSocket,
        WebSocketClosedError,
        WebSocketClosedEventArgs,
        WebSocketListener,
        WebSocketListenerConnectionReceivedEventArgs,
        WebSocketServerCustomValidationRequestedEventArgs,
        relay,
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
    "FileTooShortError",
    "HostName",
    "HostNameSortOptions",
    "HostNameType",
    "InputStreamOptions",
    "LocalProtocolError",
    "MessageWebSocket",
    "MessageWebSocketMessageReceivedEventArgs",
    "MessageWebSocketReceiveMode",
    "OperationNotSupported",
    "OutOfBoundsError",
    "PasswordCredential",
    "ProtocolError",
    "RelayedBytes",
    "RemoteProtocolError",
    "RoundTripTimeStatistics",
    "ServerMessageWebSocket",
    "ServerStreamWebSocket",
    "SocketError",
    "SocketErrorStatus",
    "SocketMessageType",
    "SocketProtectionLevel",
    "SocketQualityOfService",
    "SocketSslErrorSeverity",
    "StreamSocket",
    "StreamSocketListener",
    "StreamSocketListenerConnectionReceivedEventArgs",
    "StreamWebSocket",
    "TextError",
    "UnicodeEncoding",
    "WebErrorStatus",
    "WebSocketClosedError",
    "WebSocketClosedEventArgs",
    "WebSocketError",
    "WebSocketListener",
    "WebSocketListenerConnectionReceivedEventArgs",
    "WebSocketServerCustomValidationRequestedEventArgs",
    "relay",
]

# Type checkers do not see this: they would take it for a promise that every name exists.
if not TYPE_CHECKING:
    # They are attributes after `import twsock` alone, too.
    __getattr__, __dir__ = import_when_used(
        __name__, ("errors", "names", "wire", "wire.values", "tls", "sockets", "protocols")
    )
