"""Plugins of ``twistd``: the commands ``twsock-datagram`` and ``twsock-multicast``."""

from twisted.application.service import ServiceMaker

datagram = ServiceMaker(
    "twsock datagram",
    "twsock.services.datagram",
    "Echo datagrams over UDP; never answers where that could make a loop.",
    "twsock-datagram",
)

multicast = ServiceMaker(
    "twsock multicast",
    "twsock.services.multicast",
    "Answer what is sent to a multicast group, on a port shared with others.",
    "twsock-multicast",
)
