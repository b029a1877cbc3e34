"""
twsock: the sockets of Windows.Networking.Sockets for Twisted.

The names most programs need are importable from here; protocols to embed are in `twsock.protocols`,
the wire formats by themselves in `twsock.wire`.

A name is imported when it is first used, so that `twsock.wire`, `twsock.errors` and `twsock.names`
load neither Twisted nor OpenSSL.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

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

# Where the names come from, and the modules that are attributes after `import twsock` alone. Each
# stands behind those that it imports itself, so a lookup loads no more than its name needs.
_MODULES = ("errors", "names", "wire", "wire.values", "tls", "sockets", "protocols")

# Type checkers do not see this: they would take it for a promise that every name exists.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name in _MODULES:
            return import_module(f"{__name__}.{name}")
        if name not in __all__:
            message = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(message, name=name, obj=sys.modules[__name__])
        places = (import_module(f"{__name__}.{place}") for place in _MODULES)
        value = next(vars(place)[name] for place in places if name in place.__all__)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, *(name for name in _MODULES if "." not in name)})
