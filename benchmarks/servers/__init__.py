"""
The servers that are compared: what they are called, how each is started, and what it needs.

Read by `benchmarks.processes`, which starts them. Every module in this package is a program that
listens on a free port of 127.0.0.1, prints that port alone on a line, and echoes frames, or those
of `DATAGRAM_SERVERS` datagrams, until it is told to end. Those of `TLS_SERVERS` take
``--tls FILE``, and are encrypted from the first byte.
"""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass
from typing import Final

__all__ = [
    "BASELINE",
    "DATAGRAM_BASELINES",
    "DATAGRAM_SERVERS",
    "DEFAULT_DATAGRAM_SERVERS",
    "IDLE_SERVERS",
    "SERVERS",
    "TLS_SERVERS",
    "Server",
]

#: The server that ratios refer to.
BASELINE: Final = "int32"
#: The servers of datagrams that ratios refer to.
DATAGRAM_BASELINES: Final = ("twisted", "c")


@dataclass(frozen=True, slots=True)
class Server:
    """
    One way to echo frames or datagrams.

    :ivar key: what the command line calls it.
    :ivar module: the program's name in this package.
    :ivar options: what the program is started with.
    :ivar package: a package that has to be installed for it.
    :ivar program: a program that has to be on the search path for it.
    """

    key: str
    title: str
    module: str
    options: tuple[str, ...] = ()
    package: str | None = None
    program: str | None = None

    @property
    def arguments(self) -> tuple[str, ...]:
        """What follows the interpreter on the command line."""
        return ("-m", f"{__name__}.{self.module}", *self.options)

    def why_not(self) -> str | None:
        """Why it cannot run here; None when it can."""
        if self.package is not None and importlib.util.find_spec(self.package) is None:
            return f"the package {self.package} is not installed"
        if self.program is not None and shutil.which(self.program) is None:
            return f"the program {self.program} is not installed"
        return None


SERVERS: Final = {
    server.key: server
    for server in (
        Server("echo", "twsock FrameEcho", "frame_echo"),
        Server("handler", "twsock FrameProtocol, a handler per frame", "frame_handler"),
        Server(
            "echo-lean",
            "twsock FrameEcho, --reactor=twsock",
            "frame_echo",
            ("--reactor=twsock",),
        ),
        Server(
            "handler-lean",
            "twsock FrameProtocol, --reactor=twsock",
            "frame_handler",
            ("--reactor=twsock",),
        ),
        Server("sockets", "twsock StreamSocket, receive_exactly", "stream_socket"),
        Server("values", "twsock DataReader and DataWriter", "data_reader"),
        Server(BASELINE, "Twisted Int32StringReceiver", "int32"),
        Server("asyncio", "asyncio Protocol, a write per read", "asyncio_protocol"),
        Server(
            "asyncio-each",
            "asyncio Protocol, a write per frame",
            "asyncio_protocol",
            ("--write-each",),
        ),
        Server("asyncio-streams", "asyncio streams", "asyncio_streams"),
        Server(
            "uvloop",
            "uvloop Protocol, a write per read",
            "asyncio_protocol",
            ("--uvloop",),
            package="uvloop",
        ),
        Server(
            "uvloop-each",
            "uvloop Protocol, a write per frame",
            "asyncio_protocol",
            ("--uvloop", "--write-each"),
            package="uvloop",
        ),
        Server(
            "uvloop-streams",
            "uvloop streams",
            "asyncio_streams",
            ("--uvloop",),
            package="uvloop",
        ),
        Server("c", "C, epoll, whole frames", "c_epoll", program="cc"),
    )
}

#: Those whose memory for idle connections is compared unless others are asked for.
IDLE_SERVERS: Final = ("echo", "sockets", BASELINE, "uvloop", "asyncio-streams")

#: Those that are compared over TLS. The others are not needed to see what TLS itself costs.
TLS_SERVERS: Final = (
    "echo",
    "echo-lean",
    "sockets",
    BASELINE,
    "asyncio-streams",
    "uvloop",
    "uvloop-each",
)

DATAGRAM_SERVERS: Final = {
    server.key: server
    for server in (
        Server("echo", "twsock DatagramEcho", "datagram_echo"),
        Server(
            "echo-lean",
            "twsock DatagramEcho, --reactor=twsock",
            "datagram_echo",
            ("--reactor=twsock",),
        ),
        Server("echo-plain", "twsock DatagramEcho, Twisted's port", "plain_datagram_echo"),
        Server("twisted", "Twisted DatagramProtocol", "twisted_datagram"),
        Server("asyncio", "asyncio DatagramProtocol", "asyncio_datagram"),
        Server(
            "uvloop",
            "uvloop DatagramProtocol",
            "asyncio_datagram",
            ("--uvloop",),
            package="uvloop",
        ),
        Server("c", "C, recvfrom and sendto", "c_datagram", program="cc"),
    )
}

#: Those that are compared unless others are asked for: Twisted's port costs what it costs.
DEFAULT_DATAGRAM_SERVERS: Final = tuple(key for key in DATAGRAM_SERVERS if key != "echo-plain")
