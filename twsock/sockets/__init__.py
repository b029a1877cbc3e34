"""
Awaitable sockets: stream sockets, listeners, datagram sockets, and readers and writers of values.

`twsock` itself exports the names that most programs need. `twsock.protocols` has the same
connections as Protocol and Factory classes. A name is imported when it is first used: a program
with stream sockets does not load datagram sockets.
"""

from typing import TYPE_CHECKING

from twsock._lazy import import_when_used

if TYPE_CHECKING:
    from twsock.sockets.data_reader import DataReader
    from twsock.sockets.data_writer import DataWriter
    from twsock.sockets.datagram.control import DatagramSocketControl
    from twsock.sockets.datagram.information import DatagramSocketInformation
    from twsock.sockets.datagram.message import DatagramSocketMessageReceivedEventArgs
    from twsock.sockets.datagram.output import DatagramOutputStream
    from twsock.sockets.datagram.socket import DatagramSocket
    from twsock.sockets.stream.attempts import Attempt, ConnectError
    from twsock.sockets.stream.control import (
        SocketQualityOfService,
        StreamSocketControl,
        StreamSocketListenerControl,
    )
    from twsock.sockets.stream.files import FileTooShortError
    from twsock.sockets.stream.handlers import StreamSocketListenerConnectionReceivedEventArgs
    from twsock.sockets.stream.information import (
        BandwidthStatistics,
        RoundTripTimeStatistics,
        StreamSocketInformation,
        StreamSocketListenerInformation,
    )
    from twsock.sockets.stream.input import (
        DelimiterNotFoundError,
        EndOfStreamError,
        InputStream,
        InputStreamOptions,
    )
    from twsock.sockets.stream.listener import StreamSocketListener
    from twsock.sockets.stream.output import OutputStream
    from twsock.sockets.stream.relaying import Relay, RelayedBytes, relay
    from twsock.sockets.stream.socket import StreamSocket
    from twsock.sockets.websocket.closed import WebSocketClosedError, WebSocketClosedEventArgs
    from twsock.sockets.websocket.control import (
        MessageWebSocketControl,
        StreamWebSocketControl,
        WebSocketControl,
    )
    from twsock.sockets.websocket.credential import PasswordCredential
    from twsock.sockets.websocket.information import WebSocketInformation
    from twsock.sockets.websocket.listener import (
        WebSocketListener,
        WebSocketListenerConnectionReceivedEventArgs,
    )
    from twsock.sockets.websocket.message import (
        MessageWebSocketMessageReceivedEventArgs,
        MessageWebSocketReceiveMode,
        SocketMessageType,
    )
    from twsock.sockets.websocket.message_socket import MessageWebSocket
    from twsock.sockets.websocket.output import WebSocketOutputStream
    from twsock.sockets.websocket.server import (
        ServerMessageWebSocket,
        ServerMessageWebSocketControl,
        ServerStreamWebSocket,
        ServerWebSocketInformation,
    )
    from twsock.sockets.websocket.stream_socket import StreamWebSocket
    from twsock.sockets.websocket.validation import (
        Deferral,
        WebSocketServerCustomValidationRequestedEventArgs,
    )

__all__ = [
    "Attempt",
    "BandwidthStatistics",
    "ConnectError",
    "DataReader",
    "DataWriter",
    "DatagramOutputStream",
    "DatagramSocket",
    "DatagramSocketControl",
    "DatagramSocketInformation",
    "DatagramSocketMessageReceivedEventArgs",
    "Deferral",
    "DelimiterNotFoundError",
    "EndOfStreamError",
    "FileTooShortError",
    "InputStream",
    "InputStreamOptions",
    "MessageWebSocket",
    "MessageWebSocketControl",
    "MessageWebSocketMessageReceivedEventArgs",
    "MessageWebSocketReceiveMode",
    "OutputStream",
    "PasswordCredential",
    "Relay",
    "RelayedBytes",
    "RoundTripTimeStatistics",
    "ServerMessageWebSocket",
    "ServerMessageWebSocketControl",
    "ServerStreamWebSocket",
    "ServerWebSocketInformation",
    "SocketMessageType",
    "SocketQualityOfService",
    "StreamSocket",
    "StreamSocketControl",
    "StreamSocketInformation",
    "StreamSocketListener",
    "StreamSocketListenerConnectionReceivedEventArgs",
    "StreamSocketListenerControl",
    "StreamSocketListenerInformation",
    "StreamWebSocket",
    "StreamWebSocketControl",
    "WebSocketClosedError",
    "WebSocketClosedEventArgs",
    "WebSocketControl",
    "WebSocketInformation",
    "WebSocketListener",
    "WebSocketListenerConnectionReceivedEventArgs",
    "WebSocketOutputStream",
    "WebSocketServerCustomValidationRequestedEventArgs",
    "relay",
]

# Type checkers do not see this: they would take it for a promise that every name exists.
if not TYPE_CHECKING:
    __getattr__, __dir__ = import_when_used(
        __name__,
        (
            *("stream.input", "data_reader", "data_writer", "stream.files", "stream.output"),
            "stream.control",
            *("stream.attempts", "stream.information", "stream.socket", "stream.handlers"),
            "stream.relaying",
            *("stream.listener", "datagram.control", "datagram.information", "datagram.message"),
            *("datagram.output", "datagram.socket"),
            *("websocket.closed", "websocket.credential", "websocket.message"),
            *("websocket.control", "websocket.information", "websocket.output"),
            *("websocket.validation", "websocket.message_socket", "websocket.stream_socket"),
            *("websocket.listener", "websocket.server"),
        ),
    )
