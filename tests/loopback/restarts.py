"""
Restarts of real processes, and clients that notice any loss.

`Service` starts one process after the other on one control socket. `ConnectStorm` connects again
and again, `LongConnection` has messages under way all the time, and `DatagramStream` sends numbered
datagrams. Each of them runs in a thread, and lists what went wrong in `problems`.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from typing_extensions import override

from tests.loopback.fault_points import statement
from tests.services.processes import PATIENCE, Twistd, forked_twistd


class Service:
    """
    The processes of one service, one after the other.

    :param arguments: those of ``twistd``, such as ``twsock-stream``, without ``--control``.

    :ivar options: of `tests.services.processes.forked_twistd`, for each process.
    """

    def __init__(self, *arguments: str) -> None:
        self.arguments = arguments
        self.options: dict[str, Any] = {}
        self._stack = contextlib.ExitStack()
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self.control = self.folder / "control"

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(
        self, *more: str, fault: str = "", arguments: tuple[str, ...] | None = None, **options: Any
    ) -> Twistd:
        """
        Start a further process.

        :param more: options besides the arguments.
        :param fault: see `tests.loopback.fault_points`.
        """
        words = self.arguments if arguments is None else arguments
        return self._stack.enter_context(
            forked_twistd(
                *words,
                *("--control", str(self.control)),
                *more,
                before=statement(fault),
                **{**self.options, **options},
            )
        )

    def restart(self, old: Twistd, *more: str) -> Twistd:
        """Start a process, and wait until the old one has ended."""
        new = self.start(*more)
        status = old.wait()
        if status:
            raise AssertionError(f"the old process ended with {status}:\n{old.log}")
        new.wait_for("serves alone")
        return new


class Client(threading.Thread):
    """
    A client in a thread, until it is stopped.

    :ivar served: how many answers came.
    :ivar problems: what went wrong.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.served = 0
        self.problems: list[str] = []
        self.is_stopping = False
        self._stepped = threading.Condition()

    def __enter__(self) -> Client:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_stopping = True
        self.join(PATIENCE)

    @override
    def run(self) -> None:
        while not self.is_stopping:
            try:
                self.step()
            except (OSError, AssertionError, EOFError) as error:
                self.problems.append(repr(error))
            with self._stepped:
                self._stepped.notify_all()

    def step(self) -> None:
        """Do one exchange."""
        raise NotImplementedError

    def wait_for_answers(self, count: int) -> None:
        """Wait for further answers."""
        wanted = self.served + count
        with self._stepped:
            self._stepped.wait_for(lambda: self.served >= wanted or self.problems, PATIENCE)
        if self.served < wanted:
            raise AssertionError(f"{self.served} answers: {self.problems[:5]}")


class ConnectStorm(Client):
    """
    Connects, exchanges one frame, and closes.

    :param connect: connects, and returns the socket.
    """

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        super().__init__()
        self._connect = connect

    @override
    def step(self) -> None:
        with self._connect() as connection:
            exchange(connection, str(self.served).encode())
        self.served += 1


class LongConnection(Client):
    """
    One connection on which eight messages are under way at any time.

    :param connect: connects, and returns the socket.
    """

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        super().__init__()
        self._socket = connect()
        self._stream = self._socket.makefile("rb")
        self._sent = 0

    @override
    def step(self) -> None:
        while self._sent < self.served + 8:
            self._socket.sendall(frame(self._payload(self._sent)))
            self._sent += 1
        answer = read_frame(self._stream)
        expected = self._payload(self.served)
        if answer != expected:
            raise AssertionError(f"message {self.served}: {answer[:20]!r}, not {expected[:20]!r}")
        self.served += 1

    @override
    def run(self) -> None:
        super().run()
        with contextlib.suppress(OSError):
            while self.served < self._sent and not self.problems:
                self.step_to_end()
        self._stream.close()
        self._socket.close()

    def step_to_end(self) -> None:
        """Read an answer that is still under way."""
        read_frame(self._stream)
        self.served += 1

    @staticmethod
    def _payload(number: int) -> bytes:
        return struct.pack("!I", number) * (1 + number * 7919 % 2000)


class WebSocketStorm(ConnectStorm):
    """Connects, exchanges one message, and closes in order."""

    @override
    def step(self) -> None:
        with self._connect() as connection:
            connection.sendall(_MASKED_MESSAGE)
            found = connection.recv(100)
            # The close frame of a server that drains may follow.
            if not found.startswith(_MESSAGE):
                raise AssertionError(f"{found!r}, not {_MESSAGE!r}")
            connection.sendall(_MASKED_CLOSE)
            while connection.recv(100):
                pass
        self.served += 1


class Reconnecting(Client):
    """
    One connection after the other, each until the server ends it in order.

    :param connect: connects, and returns the socket.
    :param talk: does one exchange; returns False if the server has ended the connection.

    :ivar ends: how many connections the server has ended.
    """

    def __init__(
        self, connect: Callable[[], socket.socket], talk: Callable[[socket.socket], bool]
    ) -> None:
        super().__init__()
        self._connect = connect
        self._talk = talk
        self._connection = connect()
        self.ends = 0

    @override
    def step(self) -> None:
        if self._talk(self._connection):
            self.served += 1
        else:
            self.ends += 1
            self._connection.close()
            self._connection = self._connect()

    @override
    def run(self) -> None:
        super().run()
        self._connection.close()


class DatagramStream(threading.Thread):
    """
    Sends numbered datagrams at a rate, and counts the answers.

    :param rate: datagrams a second.
    :param group: the group that is asked; empty for a port of this machine.

    :ivar answers: how often each number came back.
    """

    def __init__(self, port: int, rate: int, group: str = "") -> None:
        super().__init__(daemon=True)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        own = socket.inet_aton("127.0.0.1")
        self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, own)
        self._socket.bind(("127.0.0.1", 0))
        self._to = (group or "127.0.0.1", port)
        self._socket.settimeout(1)
        self._rate = rate
        self.sent = 0
        self.answers: Counter[int] = Counter()
        self.is_stopping = False
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> DatagramStream:
        self._reader.start()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_stopping = True
        self.join(PATIENCE)
        self._reader.join(PATIENCE)
        self._socket.close()

    @override
    def run(self) -> None:
        start = time.monotonic()
        while not self.is_stopping:
            due = int((time.monotonic() - start) * self._rate)
            # At most 64 at once: a client that was not scheduled does not send a burst.
            for _ in range(min(due - self.sent, 64)):
                self._socket.sendto(struct.pack("!Q", self.sent), self._to)
                self.sent += 1
            if due - self.sent > self._rate:
                start += 1
            time.sleep(0.001)

    def _read(self) -> None:
        while True:
            try:
                data = self._socket.recv(2048)
            except TimeoutError:
                if self.is_stopping:
                    return
                continue
            self.answers[struct.unpack("!Q", data)[0]] += 1

    @property
    def lost(self) -> int:
        """How many answers are missing."""
        return self.sent - len(self.answers)

    @property
    def doubled(self) -> int:
        """How many answers came more than once."""
        return sum(count > 1 for count in self.answers.values())


#: A message "hi" of a WebSocket, to the server and from it, and a close frame to the server.
_MASKED_MESSAGE = b"\x81\x82\0\0\0\0hi"
_MESSAGE = b"\x81\x02hi"
_MASKED_CLOSE = b"\x88\x82\0\0\0\0\x03\xe8"

_REQUEST = (
    "GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def talk_websocket(connection: socket.socket) -> bool:
    """Exchange one message; answer a close frame of the server."""
    connection.sendall(_MASKED_MESSAGE)
    found = connection.recv(100)
    if found == _MESSAGE:
        return True
    # The close frame may follow the last answer.
    if found.removeprefix(_MESSAGE)[:1] != b"\x88":
        raise AssertionError(f"{found!r} is neither a message nor a close frame")
    connection.sendall(_MASKED_CLOSE)
    while connection.recv(100):
        pass
    return False


def talk_tls(connection: socket.socket) -> bool:
    """Exchange one frame; return False at an end in order."""
    connection.sendall(frame(b"hello"))
    found = b""
    while len(found) < 9:
        piece = connection.recv(9 - len(found))
        if not piece and not found:
            return False
        if not piece:
            raise EOFError(f"the connection ended after {found!r}")
        found += piece
    return True


def to_websocket(port: int) -> Callable[[], socket.socket]:
    """Return a function that connects a WebSocket."""

    def connect() -> socket.socket:
        connection = to_port(port)()
        connection.sendall(_REQUEST.format(port=port).encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            piece = connection.recv(1)
            if not piece:
                raise EOFError(f"the handshake ended with {answer!r}")
            answer += piece
        return connection

    return connect


def to_tls(port: int, context: ssl.SSLContext) -> Callable[[], ssl.SSLSocket]:
    """Return a function that connects with TLS."""
    return lambda: context.wrap_socket(to_port(port)())


def frame(payload: bytes) -> bytes:
    """Return a frame of the echo service."""
    return struct.pack("!I", len(payload)) + payload


def read_frame(stream: Any) -> bytes:
    """Read a frame; the connection must not end."""
    header = stream.read(4)
    if len(header) < 4:
        raise EOFError(f"the connection ended after {len(header)} bytes of a header")
    (size,) = struct.unpack("!I", header)
    payload: bytes = stream.read(size)
    if len(payload) < size:
        raise EOFError(f"the connection ended after {len(payload)} of {size} bytes")
    return payload


def exchange(connection: socket.socket, payload: bytes) -> None:
    """Exchange one frame."""
    connection.sendall(frame(payload))
    with connection.makefile("rb") as stream:
        answer = read_frame(stream)
    if answer != payload:
        raise AssertionError(f"{answer!r}, not {payload!r}")


def to_port(port: int) -> Callable[[], socket.socket]:
    """Return a function that connects to a TCP port."""
    return lambda: socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


def to_path(path: Path) -> Callable[[], socket.socket]:
    """Return a function that connects to a UNIX socket."""

    def connect() -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE)
        connection.connect(str(path))
        return connection

    return connect


@contextlib.contextmanager
def running(*clients: Any) -> Iterator[None]:
    """Run clients."""
    with contextlib.ExitStack() as stack:
        for client in clients:
            stack.enter_context(client)
        yield
