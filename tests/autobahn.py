"""
Runs the test suite of Autobahn against `WebSocketEcho`: ``python -m tests.autobahn [SECTION ...]``.

It prints the table of docs/websockets.rst. The suite needs Python 2.7::

    python2.7 -m pip install --user virtualenv==20.15.1
    python2.7 -m virtualenv autobahn
    autobahn/bin/pip install autobahntestsuite==0.8.2
    WSTEST=autobahn/bin/wstest python -m tests.autobahn

The default sections take 15 seconds; 9 takes a minute more, and 12 and 13 take hours.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ["FAST", "Outcomes", "find_wstest", "render", "run_suite", "wrong_cases"]

#: The sections that are run if none are named.
FAST: Final = ("1", "2", "3", "4", "5", "6", "7", "10")

#: The largest message of the suite, in bytes.
_LARGEST: Final = 16 * 1024 * 1024
#: A message of 4 MiB in fragments of 64 bytes.
_MOST_FRAGMENTS: Final = 65_536

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

#: Case, such as ``7.1.3`` → what the suite found for its messages, and for its close.
Outcomes = Mapping[str, tuple[str, str]]

#: What the suite finds where everything is right, or where there is no right answer.
_RIGHT: Final = ("OK", "INFORMATIONAL")


def find_wstest() -> str | None:
    """Return the command of the suite; None if there is none."""
    found = shutil.which(os.environ.get("WSTEST", "wstest"))
    return None if found is None else str(Path(found).absolute())


def run_suite(wstest: str, sections: Sequence[str]) -> Outcomes:
    """Run sections of the suite against an echo in a process of its own."""
    with _echo() as port, tempfile.TemporaryDirectory() as folder:
        settings = {
            "outdir": folder,
            "servers": [{"agent": "twsock", "url": f"ws://127.0.0.1:{port}"}],
            "cases": [f"{section}.*" for section in sections],
            "exclude-cases": [],
            "exclude-agent-cases": {},
        }
        file = Path(folder, "settings.json")
        file.write_text(json.dumps(settings))
        command = [wstest, "-m", "fuzzingclient", "-s", str(file)]
        subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=True)
        found = json.loads(Path(folder, "index.json").read_text())["twsock"]
    return {case: (said["behavior"], said["behaviorClose"]) for case, said in found.items()}


@contextmanager
def _echo() -> Iterator[int]:
    """Run the echo; yield its port."""
    code = _SERVER.format(largest=_LARGEST, fragments=_MOST_FRAGMENTS)
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


def main(sections: Sequence[str]) -> int:
    """Print the table, and the cases that are wrong; return the status of the process."""
    wstest = find_wstest()
    if wstest is None:
        print("there is no wstest: see python -c 'import tests.autobahn; help(tests.autobahn)'")
        return 2
    outcomes = run_suite(wstest, sections or FAST)
    print(render(outcomes))
    wrong = wrong_cases(outcomes)
    print("\n".join(wrong) or "no case is wrong")
    return 1 if wrong or not outcomes else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
