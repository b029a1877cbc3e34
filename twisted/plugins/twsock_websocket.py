"""Plugin of ``twistd``: the command ``twsock-websocket``."""

from twisted.application.service import ServiceMaker

websocket = ServiceMaker(
    "twsock websocket",
    "twsock.services.websocket",
    "Echo the messages of WebSockets over any stream endpoint.",
    "twsock-websocket",
)
