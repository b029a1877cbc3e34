"""Plugins of ``twistd``: the commands ``twsock-stream`` and, for all services, ``twsock``."""

from twisted.application.service import ServiceMaker

stream = ServiceMaker(
    "twsock stream",
    "twsock.services.stream",
    "Echo length-prefixed frames or lines over any stream endpoint.",
    "twsock-stream",
)

everything = ServiceMaker(
    "twsock",
    "twsock.services.everything",
    "Run every twsock service with its defaults.",
    "twsock",
)
