"""
Runs the test suite of Autobahn: ``python -m tests.autobahn [client|listener] [SECTION ...]``.

It tests `WebSocketEcho`; with ``client``, an echo that is a `MessageWebSocket`; with ``listener``,
an echo that awaits the messages of a `WebSocketListener`. It prints the table of
docs/websockets.rst. The suite needs Python 2.7::

    python2.7 -m pip install --user virtualenv==20.15.1
    python2.7 -m virtualenv autobahn
    autobahn/bin/pip install autobahntestsuite==0.8.2
    WSTEST=autobahn/bin/wstest python -m tests.autobahn

The default sections take 10 seconds, and 9 as long again. 12 and 13 take some 15 minutes each if
nothing else runs.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = [
    "FAST",
    "Outcomes",
    "find_free_port",
    "find_wstest",
    "render",
    "run_client_suite",
    "run_suite",
    "wait_until_it_listens",
    "wrong_cases",
]

#: The sections that are run if none are named.
FAST: Final = ("1", "2", "3", "4", "5", "6", "7", "10")

#: The largest message of the suite, in bytes.
_LARGEST: Final = 16 * 1024 * 1024
#: A message of 4 MiB in fragments of 64 bytes, and an empty one at its end.
_MOST_FRAGMENTS: Final = 65_537

#: Seconds until the suite has to listen.
_PATIENCE: Final = 60

_SERVER: Final = """
from twisted.internet import reactor
from twsock.protocols import WebSocketEcho, WebSocketFactory
from twsock.websocket import DeflateSettings
factory = WebSocketFactory(
    reactor, WebSocketEcho, compression=DeflateSettings(),
    max_message_size={largest}, max_fragments={fragments},
)
port = reactor.listenTCP(0, factory, interface="127.0.0.1")
reactor.callWhenRunning(lambda: print(port.getHost().port, flush=True))
reactor.run()
"""

_LISTENER: Final = """
from twisted.internet import reactor
from twsock import WebSocketListener
from twsock.websocket import DeflateSettings

async def echo(listener, args):
    async with args.socket as websocket:
        async for message in websocket:
            await websocket.send(message)

listener = WebSocketListener(
    reactor, compression=DeflateSettings(),
    max_message_size={largest}, max_fragments={fragments},
)
listener.connection_received.add(echo)
listening = listener.bind_endpoint("127.0.0.1", 0)
listening.addCallback(lambda _: print(listener.information.local_port, flush=True))
reactor.run()
"""

_CLIENT: Final = """
import json
from twisted.internet import reactor, task
from twsock import MessageWebSocket, SocketError
from twsock.websocket import DeflateSettings

async def connect(path):
    websocket = MessageWebSocket(reactor)
    control = websocket.control
    control.compression = DeflateSettings(context_takeover=True, max_window_bits=15)
    control.max_message_size, control.max_fragments = {largest}, {fragments}
    await websocket.connect("ws://127.0.0.1:{port}" + path)
    return websocket

async def ask(path):
    websocket = await connect(path)
    answer = [message async for message in websocket]
    await websocket.wait_closed()
    return answer

async def run(case):
    websocket = await connect(f"/runCase?case={{case}}&agent=twsock")
    try:
        async for message in websocket:
            await websocket.send(message)
    except SocketError:
        pass  # The suite judges the end.
    await websocket.wait_closed()

async def main(reactor):
    (count,) = await ask("/getCaseCount")
    for case in range(1, int(count) + 1):
        await run(case)
    await ask("/updateReports?agent=twsock")

task.react(main)
"""

#: Case, such as ``7.1.3`` → what the suite found for its messages, and for its close.
Outcomes = Mapping[str, tuple[str, str]]

#: What the suite finds where everything is right, or where there is no right answer.
_RIGHT: Final = ("OK", "INFORMATIONAL")


def find_wstest() -> str | None:
    """Return the command of the suite; None if there is none."""
    found = shutil.which(os.environ.get("WSTEST", "wstest"))
    return None if found is None else str(Path(found).absolute())


def run_suite(wstest: str, sections: Sequence[str], *, is_awaited: bool = False) -> Outcomes:
    """
    Run sections of the suite against an echo in a process of its own.

    :param is_awaited: whether the echo awaits the messages of a `WebSocketListener`.
    """
    with (
        _echo(_LISTENER if is_awaited else _SERVER) as port,
        tempfile.TemporaryDirectory() as folder,
    ):
        settings = {
            "outdir": folder,
            "servers": [{"agent": "twsock", "url": f"ws://127.0.0.1:{port}"}],
            "cases": [f"{section}.*" for section in sections],
            "exclude-cases": [],
            "exclude-agent-cases": {},
        }
        command = _command(wstest, "fuzzingclient", folder, settings)
        subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=True)
        return _read_outcomes(folder)


def run_client_suite(wstest: str, sections: Sequence[str]) -> Outcomes:
    """Run sections of the suite against a client in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        port = find_free_port()
        settings = {
            "outdir": folder,
            "url": f"ws://127.0.0.1:{port}",
            "cases": [f"{section}.*" for section in sections],
            "exclude-cases": [],
            "exclude-agent-cases": {},
        }
        command = [*_command(wstest, "fuzzingserver", folder, settings), "-u", "0"]
        code = _CLIENT.format(largest=_LARGEST, fragments=_MOST_FRAGMENTS, port=port)
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as server:
            try:
                wait_until_it_listens(port)
                subprocess.run([sys.executable, "-c", code], check=True)
            finally:
                server.kill()
        return _read_outcomes(folder)


def _command(wstest: str, mode: str, folder: str, settings: object) -> list[str]:
    """Return the command of the suite, whose settings are written to a file."""
    file = Path(folder, "settings.json")
    file.write_text(json.dumps(settings))
    return [wstest, "-m", mode, "-s", str(file)]


def _read_outcomes(folder: str) -> Outcomes:
    found = json.loads(Path(folder, "index.json").read_text())["twsock"]
    return {case: (said["behavior"], said["behaviorClose"]) for case, said in found.items()}


def find_free_port() -> int:
    """Return a port that nobody uses, for programs that cannot choose one themselves."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
    return port


def wait_until_it_listens(port: int) -> None:
    """Wait for a server of another program, which takes a while to start."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


@contextmanager
def _echo(program: str) -> Iterator[int]:
    """Run an echo; yield its port."""
    code = program.format(largest=_LARGEST, fragments=_MOST_FRAGMENTS)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as echo:
        assert echo.stdout is not None
        try:
            yield int(echo.stdout.readline())
        finally:
            echo.kill()


def wrong_cases(outcomes: Outcomes) -> list[str]:
    """Return the cases that failed or were not strict, with what the suite found."""
    return [
        f"{case}: {messages}, close {close}"
        for case, (messages, close) in outcomes.items()
        if messages not in _RIGHT or close not in _RIGHT
    ]


def render(outcomes: Outcomes) -> str:
    """Return a line for each section, with the number of cases of each outcome."""
    sections: dict[int, Counter[str]] = defaultdict(Counter)
    for case, (messages, _) in outcomes.items():
        sections[int(case.partition(".")[0])][messages] += 1
    return "\n".join(
        f"{section:7}  {', '.join(f'{count} {name}' for name, count in sorted(counts.items()))}"
        for section, counts in sorted(sections.items())
    )


def main(arguments: Sequence[str]) -> int:
    """Print the table, and the cases that are wrong; return the status of the process."""
    role = arguments[0] if arguments[:1] in (["client"], ["listener"]) else ""
    sections = (arguments[1:] if role else arguments) or FAST
    wstest = find_wstest()
    if wstest is None:
        print("there is no wstest: see python -c 'import tests.autobahn; help(tests.autobahn)'")
        return 2
    if role == "client":
        outcomes = run_client_suite(wstest, sections)
    else:
        outcomes = run_suite(wstest, sections, is_awaited=role == "listener")
    print(render(outcomes))
    wrong = wrong_cases(outcomes)
    print("\n".join(wrong) or "no case is wrong")
    return 1 if wrong or not outcomes else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
