"""
The programs that are compared: their names, how each is started, and what it needs.

Each module of this package is a program, run by ``python -m benchmarks.programs CHECKOUT MODULE``
through `benchmarks.processes`. A server listens on a free port of 127.0.0.1, prints that port alone
on a line, and echoes frames or datagrams until SIGTERM; with ``--tls FILE`` connections are
encrypted from the first byte. Another program does one measurement and prints it as JSON.
"""

from __future__ import annotations

from typing import Final

from benchmarks.processes import Program

__all__ = [
    "BARE_TLS",
    "BROADCASTERS",
    "BROADCAST_REFERENCES",
    "DATAGRAM_SERVERS",
    "FLUSH_WAYS",
    "FRAMES",
    "FRAMINGS",
    "HANDOVERS",
    "IDLE_SERVERS",
    "IDLE_TLS_SERVERS",
    "OPERATIONS",
    "PLAIN_SERVICE",
    "PROXIES",
    "RECORD_WAYS",
    "REFERENCE",
    "SENDERS",
    "STREAM_SERVERS",
    "TLS_SERVERS",
    "WEBSOCKET_CORES",
    "WEBSOCKET_REFERENCES",
    "WEBSOCKET_SERVERS",
    "WITHOUT_DEFLATE",
]

#: The server of streams that ratios refer to.
REFERENCE: Final = "int32"

#: The service without options for operations.
PLAIN_SERVICE: Final = "service"

#: The server of idle connections over TLS that ratios refer to.
BARE_TLS: Final = "bare"

_LEAN: Final = "--reactor=twsock"
_UVLOOP: Final = "--uvloop"


def _on_uvloop(key: str, title: str, *arguments: str) -> Program:
    return Program(key, title, "asyncio_echo", (*arguments, _UVLOOP), packages=("uvloop",))


def _some(programs: tuple[Program, ...], *keys: str) -> tuple[Program, ...]:
    return tuple(program for program in programs if program.key in keys)


def _datagram_sockets(way: str, title: str) -> tuple[Program, Program]:
    socket = f"twsock DatagramSocket, {title}"
    return (
        Program(way, socket, "twsock_datagram_sockets", (way,)),
        Program(
            f"{way}-lean", f"{socket}, --reactor=twsock", "twsock_datagram_sockets", (way, _LEAN)
        ),
    )


def _decoders(prefix: str, title: str, form: str) -> tuple[Program, ...]:
    sizes = {"64KiB": ("64 KiB", "65536"), "1KiB": ("1 KiB", "1024"), "1B": ("1 byte", "1")}
    return tuple(
        Program(
            f"{prefix}{key}",
            f"{title}, pieces of {words}",
            "decoding",
            (size, "1048576" if size == "1" else "67108864", form),
        )
        for key, (words, size) in sizes.items()
    )


def _web_socket(key: str, title: str, *arguments: str) -> tuple[Program, Program]:
    """Return a server of twsock on WebSockets, and the same where masks are in Python."""
    module = "twsock_websockets"
    return (
        Program(key, f"twsock {title}", module, arguments, packages=("websockets",)),
        Program(
            f"{key}-python",
            f"twsock {title}, without speedups",
            "without_speedups",
            (module, *arguments),
        ),
    )


def _peer(module: str, library: str, title: str, *packages: str) -> Program:
    return Program(library, title, module, (library,), packages=packages)


def _peer_on_uvloop(library: str) -> Program:
    return Program(
        f"{library}-uvloop",
        f"{library} on uvloop",
        "asyncio_websockets",
        (library, _UVLOOP),
        packages=(library, "uvloop"),
    )


STREAM_SERVERS: Final = (
    Program("echo", "twsock FrameEcho", "twsock_frames"),
    Program(
        "handler", "twsock FrameProtocol, a handler per frame", "twsock_frames", ("--handler",)
    ),
    Program(
        "coroutine",
        "twsock FrameProtocol, a coroutine per frame",
        "twsock_frames",
        ("--coroutine",),
    ),
    Program("echo-lean", "twsock FrameEcho, --reactor=twsock", "twsock_frames", (_LEAN,)),
    Program(
        "handler-lean",
        "twsock FrameProtocol, --reactor=twsock",
        "twsock_frames",
        ("--handler", _LEAN),
    ),
    Program("sockets", "twsock StreamSocket, receive_exactly", "twsock_sockets"),
    Program("sockets-lean", "twsock StreamSocket, --reactor=twsock", "twsock_sockets", (_LEAN,)),
    Program("values", "twsock DataReader and DataWriter", "twsock_sockets", ("--values",)),
    Program(REFERENCE, "Twisted Int32StringReceiver", "twisted_echo"),
    Program("asyncio", "asyncio Protocol, a write per read", "asyncio_echo", ("protocol",)),
    Program("asyncio-each", "asyncio Protocol, a write per frame", "asyncio_echo", ("each",)),
    Program("asyncio-streams", "asyncio streams", "asyncio_echo", ("streams",)),
    _on_uvloop("uvloop", "uvloop Protocol, a write per read", "protocol"),
    _on_uvloop("uvloop-each", "uvloop Protocol, a write per frame", "each"),
    _on_uvloop("uvloop-streams", "uvloop streams", "streams"),
    Program("c", "C, epoll, whole frames", "c_program", ("c_epoll",), executable="cc"),
)

#: Servers that move their connections.
HANDOVERS: Final = (
    Program("echo", "twsock FrameEcho", "twsock_handover"),
    Program("echo-lean", "twsock FrameEcho, --reactor=twsock", "twsock_handover", (_LEAN,)),
)

#: Those that are compared over TLS. The others are not needed to see what TLS itself costs.
TLS_SERVERS: Final = _some(
    STREAM_SERVERS,
    *("echo", "echo-lean", "sockets", REFERENCE, "asyncio-streams", "uvloop", "uvloop-each"),
)

OPERATIONS: Final = (
    Program(PLAIN_SERVICE, "twsock-stream", "twsock_service"),
    Program(
        "service-metrics",
        "twsock-stream --metrics, scraped each second",
        "twsock_service",
        ("--metrics",),
    ),
    Program(
        "service-log", "twsock-stream --log-connections", "twsock_service", ("--log-connections",)
    ),
    Program("service-workers", "twsock-stream --workers 2", "twsock_service", ("--workers", "2")),
)

#: Those whose memory for idle connections is compared unless others are asked for.
IDLE_SERVERS: Final = _some(
    STREAM_SERVERS, "echo", "sockets", REFERENCE, "uvloop", "asyncio-streams"
)

#: Those whose memory for idle connections is compared over TLS.
IDLE_TLS_SERVERS: Final = (
    *_some(STREAM_SERVERS, "echo", "sockets", REFERENCE),
    Program(BARE_TLS, "pyOpenSSL alone, MODE_RELEASE_BUFFERS", "pyopenssl_echo"),
)

DATAGRAM_SERVERS: Final = (
    Program("echo", "twsock DatagramEcho", "twsock_datagrams"),
    Program("echo-lean", "twsock DatagramEcho, --reactor=twsock", "twsock_datagrams", (_LEAN,)),
    Program(
        "echo-plain", "twsock DatagramEcho, Twisted's port", "twsock_datagrams", ("--twisted-port",)
    ),
    *_datagram_sockets("event", "an event"),
    *_datagram_sockets("coroutine", "an event, a coroutine each"),
    *_datagram_sockets("receive", "receive_from"),
    *_datagram_sockets("iterate", "async for"),
    Program("twisted", "Twisted DatagramProtocol", "twisted_echo", ("--datagrams",)),
    Program("asyncio", "asyncio DatagramProtocol", "asyncio_echo", ("datagrams",)),
    _on_uvloop("uvloop", "uvloop DatagramProtocol", "datagrams"),
    Program("c", "C, recvfrom and sendto", "c_program", ("c_datagram",), executable="cc"),
)

#: Ways to send a batch of datagrams; ratios refer to the loop.
SENDERS: Final = (
    Program("socket", "twsock DatagramSocket, writes and a flush", "datagram_sender", ("socket",)),
    Program("port", "twsock DatagramPort, sent together", "datagram_sender", ("port",)),
    Program("loop", "a loop around socket.send", "datagram_sender", ("loop",)),
)

#: Ways to send a long stream in small writes.
FLUSH_WAYS: Final = (
    Program("once", "twsock, all writes, one flush", "stream_sender", ("once",)),
    Program("full", "twsock, a flush when full", "stream_sender", ("full",)),
    Program("each", "twsock, a flush per write", "stream_sender", ("each",)),
    Program("write", "Twisted, transport.write", "stream_sender", ("write",)),
    Program("producer", "Twisted, a pull producer", "stream_sender", ("producer",)),
)

#: Ways to pass bytes on between two connections; ratios refer to the plain one.
PROXIES: Final = (
    Program("relay", "twsock relay", "proxies", ("relay",)),
    Program("coroutines", "StreamSocket, a coroutine each way", "proxies", ("coroutines",)),
    Program("plain", "Twisted, transports as producers", "proxies", ("plain",)),
)

#: Pieces in which a stream of frames reaches the decoder: their size, and how many bytes in all.
#: Byte by byte 64 MiB would take a minute.
FRAMINGS: Final = (
    *_decoders("", "twsock FrameDecoder", "frames"),
    *_decoders("websocket-", "twsock MessageDecoder", "websocket"),
    *_decoders("fragments-", "twsock MessageDecoder, 1,000 fragments", "fragments"),
)

#: Ways to read and write records of values; ratios are relative to ``hand``.
RECORD_WAYS: Final = (
    Program("struct", "twsock read_struct and write_struct", "records", ("struct",)),
    Program("values", "twsock, value by value", "records", ("values",)),
    Program("hand", "a struct.Struct by hand", "records", ("hand",)),
)

#: Decoders and encoders of WebSocket messages, without connections.
WEBSOCKET_CORES: Final = (
    Program("twsock", "twsock MessageDecoder, MessageEncoder", "websocket_core", ("twsock",)),
    Program("python", "twsock, masks in Python", "without_speedups", ("websocket_core", "twsock")),
    Program(
        "websockets",
        "websockets, Sans-I/O",
        "websocket_core",
        ("websockets",),
        packages=("websockets",),
    ),
    Program("wsproto", "wsproto", "websocket_core", ("wsproto",), packages=("wsproto",)),
)

#: Key of the server without WebSockets: messages of the same sizes are length-prefixed frames.
FRAMES: Final = "frames"

#: Servers of WebSockets.
WEBSOCKET_SERVERS: Final = (
    *_web_socket("echo", "WebSocketEcho"),
    *_web_socket("echo-lean", "WebSocketEcho, --reactor=twsock", _LEAN),
    *_web_socket("sockets", "WebSocketListener", "--sockets"),
    *_web_socket("sockets-lean", "WebSocketListener, --reactor=twsock", "--sockets", _LEAN),
    _peer("asyncio_websockets", "websockets", "websockets on asyncio", "websockets"),
    _peer_on_uvloop("websockets"),
    _peer("asyncio_websockets", "aiohttp", "aiohttp on asyncio", "aiohttp"),
    _peer_on_uvloop("picows"),
    _peer("twisted_websockets", "autobahn", "autobahn on Twisted", "autobahn"),
    _peer("twisted_websockets", "twisted", "Twisted's own WebSocketResource", "wsproto"),
    Program(FRAMES, "twsock FrameEcho, frames instead of messages", "twsock_frames"),
)

#: The servers of WebSockets that ratios refer to.
WEBSOCKET_REFERENCES: Final = ("websockets", "picows-uvloop")

#: The one of `BROADCASTERS` that sends equal bytes to all, and compresses nothing.
_SENDS: Final = "sends"

#: Keys of the servers of WebSockets that compress nothing.
WITHOUT_DEFLATE: Final = frozenset({"picows-uvloop", "twisted", _SENDS})

#: Servers that send one message to many WebSockets.
BROADCASTERS: Final = (
    Program("twsock", "twsock broadcast", "twsock_broadcast"),
    Program("twsock-lean", "twsock broadcast, --reactor=twsock", "twsock_broadcast", (_LEAN,)),
    Program(_SENDS, "a loop around socket.send", "twsock_broadcast", ("--sends",)),
    _peer("asyncio_websockets", "broadcast", "websockets on asyncio", "websockets"),
    Program(
        "broadcast-uvloop",
        "websockets on uvloop",
        "asyncio_websockets",
        ("broadcast", _UVLOOP),
        packages=("websockets", "uvloop"),
    ),
)

#: The servers that ratios of broadcasts refer to.
BROADCAST_REFERENCES: Final = ("broadcast", _SENDS)
