"""
The service manager of the process: state of the services → **notify** → systemd.

The messages are those of sd_notify(3): one datagram for each, to the UNIX socket in NOTIFY_SOCKET.
`ProcessService` reports the start and the stop, `twsock.services.signals` reports SIGHUP, and
a restart reports the process that replaces this one. Without NOTIFY_SOCKET nothing is sent. A
message that cannot be sent is logged; it never ends the service.

A watchdog (WATCHDOG_USEC) gets a message from a timer of the reactor, at half of its interval. A
reactor that hangs sends none.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, MutableMapping
from enum import Enum, auto
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.internet.task import LoopingCall, deferLater

from twsock.log import TextLogger

__all__ = [
    "Notifier",
    "notify_main_process",
    "notify_ready",
    "notify_reloading",
    "process_notifier",
]

_VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")

#: systemd drops messages above 4,096 bytes; a character has at most 4.
_MAX_STATUS: Final = 900

#: Seconds that are added to the time of a stop: what follows the drain takes part of a second.
_MARGIN: Final = 5.0

#: Seconds to wait until a new main process is a child of the service manager, and between checks.
_ADOPTION: Final = 5.0
_ADOPTION_INTERVAL: Final = 0.02

#: systemd reads 64 bits, and treats the largest value as "never".
_MAX_MICROSECONDS: Final = 2**63


class _Phase(Enum):
    """The last report to the service manager."""

    STARTING = auto()
    READY = auto()
    RELOADING = auto()
    STOPPING = auto()
    #: Another process is the main one, and reports to the service manager.
    REPLACED = auto()


#: The phases in which each report is sent, and the next phase. Any other report is dropped.
_NEXT: Final = {
    _Phase.READY: (_Phase.STARTING, _Phase.READY, _Phase.RELOADING, _Phase.REPLACED),
    _Phase.RELOADING: (_Phase.READY, _Phase.RELOADING),
    _Phase.STOPPING: (_Phase.STARTING, _Phase.READY, _Phase.RELOADING),
    _Phase.REPLACED: (_Phase.STARTING, _Phase.READY, _Phase.RELOADING),
}


class Notifier:
    """
    Reports the state of this process to the service manager that started it.

    :param patience: the most seconds that a message waits if the queue of the service manager is
        full. The reactor waits too. Messages for the watchdog do not wait.
    """

    _log = TextLogger()

    def __init__(self, *, patience: float = 1.0) -> None:
        self._patience = patience
        self._address: str | None = None
        self._watchdog: LoopingCall | None = None
        self._interval: float | None = None
        self._describe: Callable[[], str] = str
        self._phase = _Phase.STARTING
        self._process = self._successor = 0
        self._has_failed = False

    def take_environment(self, environment: MutableMapping[str, str]) -> None:
        """
        Read the variables of the service manager, and remove them.

        Processes that this one starts then do not report in its place.
        """
        given = {name: environment.pop(name, "") for name in _VARIABLES}
        self._phase = _Phase.STARTING
        self._process = os.getpid()
        self._has_failed = False
        self._address = self._read_address(given["NOTIFY_SOCKET"])
        self._interval = self._read_interval(given["WATCHDOG_USEC"], given["WATCHDOG_PID"])

    def start(self, reactor: Any, describe: Callable[[], str]) -> None:
        """
        Report that all services listen, and serve the watchdog from now on.

        :param describe: returns what the process does, for ``systemctl status``.
        """
        self._describe = describe
        self.notify_ready()
        if self._address is not None and self._interval is not None and self._watchdog is None:
            self._watchdog = LoopingCall(self._answer_watchdog)
            self._watchdog.clock = reactor
            self._watchdog.start(self._interval)

    def notify_ready(self) -> None:
        """Report that this process serves: after the start, a reload or a failed restart."""
        was_replaced = self._phase is _Phase.REPLACED
        if not self._enter(_Phase.READY):
            return
        lines = ["READY=1", f"STATUS={_one_line(self._describe())}"]
        # A daemon is another process than the one that the service manager started.
        if was_replaced or self._process != os.getpid():
            lines.insert(0, f"MAINPID={os.getpid()}")
        self._send(*lines)

    def notify_reloading(self) -> None:
        """
        Report that certificates are read again, or that a restart begins.

        `notify_ready` or `notify_main_process` has to follow.
        """
        if self._enter(_Phase.RELOADING):
            now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000
            self._send("RELOADING=1", f"MONOTONIC_USEC={now}", "STATUS=reloading")

    def notify_stopping(self, seconds: float) -> None:
        """
        Report that the process stops; the last report.

        :param seconds: the longest time that the stop may take. The service manager waits at least
            so long and `_MARGIN` longer, whatever its own limit is.
        """
        self._stop_watchdog()
        if self._enter(_Phase.STOPPING):
            limit = min(int((seconds + _MARGIN) * 1e6), _MAX_MICROSECONDS)
            status = f"stopping: connections may take {seconds:g} s" if seconds else "stopping"
            self._send("STOPPING=1", f"STATUS={status}", f"EXTEND_TIMEOUT_USEC={limit}")

    def notify_main_process(self, process: int) -> None:
        """
        Report that another process has taken over; it reports from now on, and this one does not.

        The service manager accepts this from its main process only (``NotifyAccess=main``).
        `notify_ready` makes this process the main one again.

        :param process: the id of the process that serves now.
        """
        if self._enter(_Phase.REPLACED):
            self._send(f"MAINPID={process}", "READY=1")

    def notify_adopted_process(self, reactor: Any, process: int) -> Deferred[None]:
        """
        Report as `notify_main_process`, once that process is a child of the service manager.

        systemd looks up the parent of a process only when the process is reported. If the parent is
        another process, systemd kills the main process at a stop, and does not wait for its drain.
        A process of ``twsock restart`` is the parent until the restart has succeeded.

        :returns: fires when the process was reported, after 5 seconds at the latest.
        """
        if not self._enter(_Phase.REPLACED):
            return succeed(None)
        self._successor = process
        return ensureDeferred(self._report_adopted(reactor, process))

    async def _report_adopted(self, reactor: Any, process: int) -> None:
        deadline = reactor.seconds() + _ADOPTION
        while not _has_our_parent(process) and reactor.seconds() < deadline:
            await deferLater(reactor, _ADOPTION_INTERVAL)
        # This process may serve again, or another one may have taken over since.
        if self._phase is _Phase.REPLACED and self._successor == process:
            self._send(f"MAINPID={process}", "READY=1")

    def _enter(self, phase: _Phase) -> bool:
        if self._address is None or self._phase not in _NEXT[phase]:
            return False
        self._phase = phase
        return True

    def _answer_watchdog(self) -> None:
        if self._phase in (_Phase.READY, _Phase.RELOADING):
            self._send("WATCHDOG=1", patience=0)

    def _stop_watchdog(self) -> None:
        watchdog, self._watchdog = self._watchdog, None
        if watchdog is not None:
            watchdog.stop()

    def _send(self, *lines: str, patience: float | None = None) -> None:
        assert self._address is not None
        address = self._address.encode(errors="surrogateescape")
        if address.startswith(b"@"):
            address = b"\0" + address[1:]
        try:
            # Python sets the flag that closes the descriptor in other programs.
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(self._patience if patience is None else patience)
                sender.sendto("\n".join(lines).encode(errors="replace"), address)
        except OSError as error:
            is_full = isinstance(error, (BlockingIOError, TimeoutError))
            self._warn("its queue is full" if is_full else error.strerror)
        else:
            self._has_failed = False

    def _warn(self, reason: str | None) -> None:
        """Log a line for the first of consecutive failures, as a watchdog repeats them."""
        if not self._has_failed:
            self._has_failed = True
            self._log.warn(
                "cannot notify the service manager at {address}: {reason}",
                address=self._address,
                reason=reason,
            )

    def _read_address(self, text: str) -> str | None:
        if not text:
            return None
        if text.startswith(("/", "@")) and len(text) > 1:
            return text
        self._log.warn(
            "cannot notify the service manager: NOTIFY_SOCKET is {text!r}, neither a path nor an "
            "abstract name",
            text=text,
        )
        return None

    def _read_interval(self, text: str, process: str) -> float | None:
        """Return the seconds between two messages for the watchdog; None for no watchdog."""
        if not text or process not in ("", str(self._process)):
            return None
        if not text.isdecimal() or not int(text):
            self._log.warn("no watchdog: WATCHDOG_USEC is {text!r}, not a number", text=text)
            return None
        return int(text) / 2e6


def _has_our_parent(process: int) -> bool:
    """Return whether a process has the parent of this one; also True if it has ended."""
    try:
        text = Path(f"/proc/{process}/stat").read_text("utf-8", "replace")
    except OSError:
        # ``ProtectProc=`` hides a process, if ``PrivateUsers=`` gives it other users.
        return not _is_alive(process)
    # The second field, in parentheses, may contain anything; see proc(5).
    return int(text.rpartition(")")[2].split()[1]) == os.getppid()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _one_line(text: str) -> str:
    """Return a text without line ends, which end a value, and short enough for a message."""
    line = " ".join(text.split())
    return line if len(line) <= _MAX_STATUS else f"{line[:_MAX_STATUS]}…"


#: One for the process, as it has one service manager.
process_notifier: Final = Notifier()

notify_main_process = process_notifier.notify_main_process
notify_ready = process_notifier.notify_ready
notify_reloading = process_notifier.notify_reloading
