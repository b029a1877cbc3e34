"""The doors of ``twistd twsock-datagram`` and ``twistd twsock-multicast``."""

from twisted.application.service import ServiceMaker

datagram = ServiceMaker(
    "twsock datagram",
    "twsock.services.datagram",
    "Echo datagrams over UDP, without being talked into loops.",
    "twsock-datagram",
)

multicast = ServiceMaker(
    "twsock multicast",
    "twsock.services.multicast",
    "Answer what is sent to a multicast group, on a port shared with others.",
    "twsock-multicast",
)
