"""The doors of ``twistd twsock-stream`` and, for all services, ``twistd twsock``."""

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
