"""Plugins of ``twistd``: the commands ``twsock-datagram`` and ``twsock-multicast``."""

from twisted.application.service import ServiceMaker

datagram = ServiceMaker(
    "twsock datagram",
    "twsock.services.datagram",
    "Echo datagrams over UDP, except where an answer could make a loop.",
    "twsock-datagram",
)

multicast = ServiceMaker(
    "twsock multicast",
    "twsock.services.multicast",
    "Echo datagrams to a multicast group, on a port shared with other programs.",
    "twsock-multicast",
)
