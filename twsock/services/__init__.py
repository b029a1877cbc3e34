"""
Services for `twistd`: command-line options → endpoint strings → an ``IService``.

Each service has a module with the ``Options`` and ``makeService`` that its plugin names. The
protocol classes of `twsock.protocols` serve the connections and datagrams.
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
