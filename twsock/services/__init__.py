"""
What `twistd` runs: command-line options → endpoint strings → an ``IService``.

Each module here is one service, with the ``Options`` and ``makeService`` that a plugin of Twisted
names; the work is done by `twsock.protocols`.
"""

from twsock.services.stream import StreamService, stream_service

__all__ = ["StreamService", "stream_service"]
