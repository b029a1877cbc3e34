"""
Protocol and Factory classes that any Twisted application can embed.

They stand between an endpoint of Twisted, which connects them, and the application, which overrides
one method and answers with another. Every buffer has a limit and every wait an end.
"""

from twsock.protocols.client_upgrade import ClientUpgrade, UpgradeStyle
from twsock.protocols.datagram_echo import DatagramEcho
from twsock.protocols.datagrams import DatagramProtocol
from twsock.protocols.echo import FrameEcho, FrameEchoFactory, LineEcho, LineEchoFactory
from twsock.protocols.factory import StreamServerFactory
from twsock.protocols.frames import FrameProtocol
from twsock.protocols.group import ConnectionGroup, Counters
from twsock.protocols.lines import LineProtocol
from twsock.protocols.multicast_echo import MulticastEcho, ReplyTo
from twsock.protocols.rate_limit import RateLimit
from twsock.protocols.stream import StreamProtocol
from twsock.protocols.upgrade import UpgradePolicy, UpgradeToSsl

__all__ = [
    "ClientUpgrade",
    "ConnectionGroup",
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
]
