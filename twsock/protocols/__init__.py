"""
Protocol and Factory classes that any Twisted application can embed.

They stand between an endpoint of Twisted, which connects them, and the application, which overrides
one method and answers with another. Every buffer has a limit and every wait an end. The modules of
WebSockets are imported when one of their names is used.
"""

from typing import TYPE_CHECKING

from twsock._lazy import import_when_used
from twsock.datagram.echo import DatagramEcho
from twsock.datagram.multicast_echo import MulticastEcho, ReplyTo
from twsock.datagram.protocol import DatagramProtocol
from twsock.datagram.rate_limit import RateLimit
from twsock.stream.client_upgrade import ClientUpgrade, UpgradeStyle
from twsock.stream.counters import Counters
from twsock.stream.echo import FrameEcho, FrameEchoFactory, LineEcho, LineEchoFactory
from twsock.stream.factory import StreamServerFactory
from twsock.stream.frames import FrameProtocol
from twsock.stream.lines import LineProtocol
from twsock.stream.protocol import StreamProtocol
from twsock.stream.registry import ConnectionGroup, ConnectionRegistry
from twsock.stream.upgrade import UpgradePolicy, UpgradeToSsl

if TYPE_CHECKING:
    from twsock.websocket.broadcast import broadcast
    from twsock.websocket.echo import WebSocketEcho
    from twsock.websocket.factory import WebSocketFactory
    from twsock.websocket.protocol import WebSocketProtocol
    from twsock.websocket.resource import WebSocketResource

__all__ = [
    "ClientUpgrade",
    "ConnectionGroup",
    "ConnectionRegistry",
    "Counters",
    "DatagramEcho",
    "DatagramProtocol",
    "FrameEcho",
    "FrameEchoFactory",
    "FrameProtocol",
    "LineEcho",
    "LineEchoFactory",
    "LineProtocol",
    "MulticastEcho",
    "RateLimit",
    "ReplyTo",
    "StreamProtocol",
    "StreamServerFactory",
    "UpgradePolicy",
    "UpgradeStyle",
    "UpgradeToSsl",
    "WebSocketEcho",
    "WebSocketFactory",
    "WebSocketProtocol",
    "WebSocketResource",
    "broadcast",
]

# Type checkers do not see this: they would take it for a promise that every name exists.
if not TYPE_CHECKING:
    __getattr__, __dir__ = import_when_used(
        __name__, ("protocol", "echo", "factory", "broadcast", "resource"), root="twsock.websocket"
    )
