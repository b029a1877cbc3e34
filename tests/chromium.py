"""
The browser Chromium, headless, driven over the DevTools protocol by a thread that may wait.

The browser writes to a folder of its own, and can ignore errors of certificates. The end of the
``with`` block ends the browser, which ends its processes, also those in groups of their own.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from typing import IO, Any, Final

from websockets.sync.client import ClientConnection, connect

__all__ = ["CHROMIUM", "Browser", "Tab", "run_browser"]

#: The program; None if it is not installed.
CHROMIUM: Final = shutil.which("chromium")

#: Seconds for the browser; many times what it needs.
_PATIENCE: Final = 60

_OPTIONS: Final = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--disable-breakpad", "--disable-background-networking", "--no-first-run"),
    *("--ignore-certificate-errors", "--remote-debugging-port=0"),
)


class Browser:
    """
    A browser, over the WebSocket of its DevTools.

    :param devtools: the connection.
    """

    def __init__(self, devtools: ClientConnection) -> None:
        self._devtools = devtools
        self._count = 0

    def open(self, url: str) -> Tab:
        """Open a page in a new tab, and wait until it is loaded."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        return Tab(self, target, session, url)

    def call(self, method: str, session: str | None = None, **params: Any) -> Any:
        """Run a command of the DevTools protocol; return its result."""
        self._count += 1
        command: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if session is not None:
            command["sessionId"] = session
        self._devtools.send(json.dumps(command))
        answer = self._receive(lambda message: message.get("id") == command["id"])
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def wait_for(self, event: str, session: str) -> None:
        """Wait for an event of a page."""
        self._receive(
            lambda message: (message.get("method"), message.get("sessionId")) == (event, session)
        )

    def _receive(self, is_awaited: Any) -> Any:
        while not is_awaited(message := json.loads(self._devtools.recv(_PATIENCE))):
            pass
        return message


class Tab:
    """A page in a browser; see `Browser.open`."""

    def __init__(self, browser: Browser, target: str, session: str, url: str) -> None:
        self._browser = browser
        self._target = target
        self._session = session
        self._call("Page.enable")
        # Tabs in the background get input as well.
        self._call("Emulation.setFocusEmulationEnabled", enabled=True)
        self._call("Page.navigate", url=url)
        self._wait_until_loaded()

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript, or that of its promise."""
        answer = self._call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def type(self, text: str) -> None:
        """Type a text and Enter into the element that has the focus."""
        self._call("Input.insertText", text=text)
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}
        self._call("Input.dispatchKeyEvent", type="keyDown", text="\r", **key)
        self._call("Input.dispatchKeyEvent", type="keyUp", **key)

    def reload(self) -> None:
        """Load the page again, and wait until it is loaded."""
        self._call("Page.reload")
        self._browser.wait_for("Page.loadEventFired", self._session)

    def close(self) -> None:
        """Close the tab."""
        self._browser.call("Target.closeTarget", targetId=self._target)

    def _call(self, method: str, **params: Any) -> Any:
        return self._browser.call(method, self._session, **params)

    def _wait_until_loaded(self) -> None:
        self.evaluate(
            "document.readyState === 'complete' ||"
            " new Promise((done) => addEventListener('load', () => done()))"
        )


@contextlib.contextmanager
def run_browser() -> Iterator[Browser]:
    """Run Chromium, with a profile of its own."""
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        subprocess.Popen(
            [str(CHROMIUM), *_OPTIONS, f"--user-data-dir={folder}/profile", "about:blank"],
            env={**os.environ, "HOME": folder, "XDG_CONFIG_HOME": folder, "TMPDIR": folder},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as process,
    ):
        assert process.stderr is not None
        draining = threading.Thread(target=_drain, args=(process.stderr,), daemon=True)
        patience = threading.Timer(_PATIENCE, process.kill)
        patience.start()
        try:
            url = _find_devtools(process.stderr)
            draining.start()
            patience.cancel()
            with connect(url, compression=None, max_size=None, proxy=None) as devtools:
                yield Browser(devtools)
        finally:
            patience.cancel()
            _end(process)
            if draining.ident is not None:
                draining.join(_PATIENCE)


def _find_devtools(printed: IO[bytes]) -> str:
    """Return the URI of the DevTools, which the browser prints when it has started."""
    lines = []
    for line in printed:
        if found := re.search(r"DevTools listening on (ws://\S+)", line.decode(errors="replace")):
            return found[1]
        lines.append(line)
    raise RuntimeError(f"chromium did not start: {b''.join(lines)!r}")


def _drain(printed: IO[bytes]) -> None:
    """Read the rest of what the browser prints, since a full pipe would stop it."""
    while printed.read(4096):
        pass


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_PATIENCE)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
