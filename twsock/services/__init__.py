"""
What `twistd` runs: command-line options → endpoint strings → an ``IService``.

Each module here is one service, with the ``Options`` and ``makeService`` that a plugin of Twisted
names; the work is done by `twsock.protocols`.
"""

from twsock.services.datagram import DatagramService, datagram_service
from twsock.services.multicast import MulticastService, multicast_service
from twsock.services.stream import StreamService, stream_service

__all__ = [
    "DatagramService",
    "MulticastService",
    "StreamService",
    "datagram_service",
    "multicast_service",
    "stream_service",
]
