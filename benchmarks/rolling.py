"""
``python -m benchmarks rolling``: requests that fail while instances behind HAProxy are replaced.

HAProxy runs with ``deploy/haproxy/twsock-stream.cfg``; only its paths, its ports and the interval
of its health check are other ones, and it has no TLS. Two instances of ``twistd twsock-stream`` run
behind it. They are replaced in turn: SIGTERM, wait for the end of the process, start the next one,
wait until it is ready and HAProxy uses it. Meanwhile clients send requests:

- a short one connects, sends a frame, reads its echo and closes;
- a long one sends frame after frame on one connection.

A request fails if its connection is refused or reset, or if its answer is wrong or late. An
instance that drains ends long connections in order, between two answers, and their clients connect
again. A frame that crosses that end is not answered: its client sends it again, on a new
connection. It is counted as ``resent``, and does not fail, as in HTTP (RFC 9112, section 9.3.1).
"""

from __future__ import annotations

import argparse
import itertools
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from benchmarks.processes import ROOT, MeasurementError
from benchmarks.rounds import positive

__all__ = ["CONFIGURATION", "Load", "free_port", "main", "replace_instances", "settings_of"]

#: The file that is tried.
CONFIGURATION: Final = ROOT / "deploy" / "haproxy" / "twsock-stream.cfg"
#: Seconds until a program has to answer or to end.
_PATIENCE: Final = 60.0
#: Seconds between two attempts to see a change.
_INTERVAL: Final = 0.02
#: The health check, and seconds from SIGTERM until listening stops: more than three checks.
_CHECK: Final = "100ms"
_DRAIN_DELAY: Final = "1"
#: Clients, and seconds between two requests of one.
_SHORT_CLIENTS, _LONG_CLIENTS, _PAUSE = 4, 8, 0.01
#: A server of HAProxy that gets connections, in ``show servers state``.
_RUNNING: Final = "2"

_TWISTD: Final = "import sys; from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()"

# Below the ports that Linux gives to outgoing connections (from 32768): the port of an instance
# stays free until its replacement listens. Processes begin at different numbers.
_candidates = itertools.cycle(range(10_000 + os.getpid() * 89 % 20_000, 32_000))


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that is not in use, another one at each call."""
    for port in _candidates:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("unreachable")


def settings_of(path: Path, changes: dict[str, str]) -> str:
    """
    Return the text of a file of settings, with other paths, ports and times.

    :param changes: text → its replacement.
    :raises ValueError: when the file has no such text.
    """
    text = path.read_text("utf-8")
    for old, new in changes.items():
        if old not in text:
            raise ValueError(f"{path} has no {old!r}")
        text = text.replace(old, new)
    return text


class _Front:
    """
    HAProxy and two instances behind it.

    :ivar port: where HAProxy accepts frames.
    """

    def __init__(self, folder: Path) -> None:
        """
        :param folder: an empty one, for all files; its path is short, as it has a UNIX socket.
        """
        self.folder = folder
        self.port = free_port()
        self._ports = {name: (free_port(), free_port()) for name in ("one", "two")}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def _settings(self) -> str:
        """Return the settings of HAProxy."""
        one, two = self._ports["one"], self._ports["two"]
        return settings_of(
            CONFIGURATION,
            {
                "log /dev/log local0": "log stdout format raw local0",
                "    user haproxy\n    group haproxy\n": "",
                "maxconn 4000": "maxconn 1000",
                "/run/haproxy/admin.sock": str(self.folder / "admin.sock"),
                "bind :1337": f"bind 127.0.0.1:{self.port}",
                "bind :1443 ssl crt /etc/haproxy/twsock.pem": f"bind 127.0.0.1:{free_port()}",
                "inter 1s": f"inter {_CHECK}",
                "127.0.0.1:13371 port 9101": f"127.0.0.1:{one[0]} port {one[1]}",
                "127.0.0.1:13372 port 9102": f"127.0.0.1:{two[0]} port {two[1]}",
            },
        )

    @contextmanager
    def open(self) -> Iterator[_Front]:
        """Run all three, until the end of the block."""
        path = self.folder / "haproxy.cfg"
        path.write_text(self._settings(), "utf-8")
        with ExitStack() as stack:
            stack.callback(self._end_instances)
            for name in self._ports:
                self.start(name)
            for name in self._ports:
                self._wait_until_ready(name)
            log = stack.enter_context((self.folder / "haproxy.log").open("wb"))
            self._proxy = subprocess.Popen(["haproxy", "-db", "-f", path], stdout=log, stderr=log)
            stack.callback(self._proxy.wait)
            stack.callback(self._proxy.kill)
            for name in self._ports:
                self._wait_until_used(name)
            yield self

    def start(self, name: str) -> None:
        """Start an instance."""
        port, health = self._ports[name]
        command = [
            *(sys.executable, "-c", _TWISTD, "--pidfile=", "-n", "twsock-stream"),
            *("--endpoint", f"haproxy:tcp:{port}:interface=127.0.0.1"),
            *("--health", f"tcp:{health}:interface=127.0.0.1"),
            *("--drain-delay", _DRAIN_DELAY),
        ]
        with (self.folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def replace(self, name: str) -> None:
        """Replace an instance; returns when HAProxy uses the new one."""
        self._running[name].terminate()
        self._running[name].wait(_PATIENCE)
        self.start(name)
        self._wait_until_ready(name)
        self._wait_until_used(name)

    def log(self, name: str) -> str:
        """Return the log of an instance, or of ``haproxy``."""
        return (self.folder / f"{name}.log").read_text("utf-8")

    def _wait_until_ready(self, name: str) -> None:
        address = f"http://127.0.0.1:{self._ports[name][1]}/health/ready"

        def is_ready() -> bool:
            if self._running[name].poll() is not None:
                raise MeasurementError(f"the instance {name} does not start:\n{self.log(name)}")
            try:
                with urllib.request.urlopen(address, timeout=_PATIENCE) as response:
                    return int(response.status) == 200
            except urllib.error.URLError:
                return False

        _wait_until(is_ready, f"the instance {name} is not ready")

    def _wait_until_used(self, name: str) -> None:
        _wait_until(lambda: self._is_used(name), f"HAProxy does not use the instance {name}")

    def _is_used(self, name: str) -> bool:
        if self._proxy.poll() is not None:
            raise MeasurementError(f"HAProxy does not run:\n{self.log('haproxy')}")
        with socket.socket(socket.AF_UNIX) as commands:
            try:
                commands.connect(str(self.folder / "admin.sock"))
            except OSError:
                return False
            commands.sendall(b"show servers state frames\n")
            with commands.makefile() as lines:
                fields = [line.split() for line in lines]
        # The fourth field is the name of the server, the sixth its state.
        return any(each[3] == name and each[5] == _RUNNING for each in fields if len(each) > 5)

    def _end_instances(self) -> None:
        for process in self._running.values():
            process.kill()
            process.wait()


def _wait_until(is_so: Callable[[], bool], complaint: str) -> None:
    """Wait until a condition holds; raise an error with the complaint after a minute."""
    wait = threading.Event()
    for _ in range(int(_PATIENCE / _INTERVAL)):
        if is_so():
            return
        wait.wait(_INTERVAL)
    raise MeasurementError(f"{complaint} within {_PATIENCE:g} s")


class Load:
    """
    Clients in threads, for as long as the block, and what happened to their requests.

    :ivar failures: the reasons of the requests that failed.
    :ivar failed: set at the first of them.
    """

    def __init__(
        self, port: int, short_clients: int = _SHORT_CLIENTS, long_clients: int = _LONG_CLIENTS
    ) -> None:
        self._port = port
        self.failed = threading.Event()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        targets = [self._send_short] * short_clients + [self._send_long] * long_clients
        self._threads = [threading.Thread(target=self._run, args=(each,)) for each in targets]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, send: Callable[[Iterator[int]], None]) -> None:
        numbers = itertools.count()
        while not self._stop.is_set():
            try:
                send(numbers)
            except (OSError, MeasurementError) as error:
                self._count("failed")
                self.failures.append(repr(error))
                self.failed.set()
                # Some thousand failures would hide the first.
                self._stop.wait(0.1)

    def _send_short(self, numbers: Iterator[int]) -> None:
        with self._connect() as connection:
            if not _exchange(connection, next(numbers)):
                raise MeasurementError("a new connection ended without an answer")
        self._count("short")
        self._stop.wait(_PAUSE)

    def _send_long(self, numbers: Iterator[int]) -> None:
        """Send on one connection until it ends."""
        self._count("connections")
        with self._connect() as connection:
            # The first one, which is sent again after an end, has to be answered.
            if not _exchange(connection, next(numbers)):
                raise MeasurementError("a new connection ended without an answer")
            while not self._stop.wait(_PAUSE) and not _has_ended(connection):
                self._count("long")
                if not _exchange(connection, next(numbers)):
                    return self._count("resent")
        return None

    def _connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._port), _PATIENCE)

    def _count(self, name: str) -> None:
        with self._lock:
            self.counts[name] += 1


def _has_ended(connection: socket.socket) -> bool:
    """Return whether the end of a connection has arrived, between two answers."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0)) and not connection.recv(1, socket.MSG_PEEK)


def _exchange(connection: socket.socket, number: int) -> bool:
    """
    Exchange a frame.

    :returns: False if the connection ended in order before the first byte of the answer.
    :raises OSError: when the connection is reset, or the answer is late.
    :raises MeasurementError: when the answer is incomplete or another one.
    """
    frame = struct.pack(">IQ", 8, number)
    connection.sendall(frame)
    answer = bytearray()
    while len(answer) < len(frame):
        received = connection.recv(len(frame) - len(answer))
        if not received and not answer:
            return False
        if not received:
            raise MeasurementError(f"the connection ended after {len(answer)} bytes of an answer")
        answer += received
    if answer != frame:
        raise MeasurementError("the answer is not an echo")
    return True


def replace_instances(folder: Path, count: int) -> dict[str, int]:
    """
    Replace the two instances in turn, under load.

    :param folder: an empty one with a short path.
    :param count: how many are replaced.
    :returns: the numbers of ``short`` and ``long`` requests, of long ``connections``, and of
        requests that were ``resent`` or ``failed``.
    :raises MeasurementError: when a program does not start or end; also when a request failed, with
        the first reasons.
    """
    with _Front(folder).open() as front, Load(front.port) as load:
        for number in range(count):
            front.replace(("one", "two")[number % 2])
    if load.failures:
        failures = "\n".join(load.failures[:10])
        raise MeasurementError(f"{load.counts['failed']} requests failed:\n{failures}")
    return {
        name: load.counts[name] for name in ("short", "long", "connections", "resent", "failed")
    }


def main(argv: list[str]) -> None:
    """Run the command, and print its figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks rolling", description=__doc__)
    parser.add_argument("--replacements", type=positive, default=100, metavar="N")
    options = parser.parse_args(argv)
    if shutil.which("haproxy") is None:
        sys.exit("python -m benchmarks rolling: the program haproxy is not installed")
    with tempfile.TemporaryDirectory() as folder:
        try:
            figures = replace_instances(Path(folder), options.replacements)
        except MeasurementError as error:
            sys.exit(f"python -m benchmarks rolling: {error}")
    print(f"{options.replacements} replacements:")
    print("\n".join(f"{name:12}{number:8}" for name, number in figures.items()))
