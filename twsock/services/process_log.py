"""
The log of a process of ``twistd``: its options → **log observer** → file or standard output.

Used where the log is JSON, has a least level, or is a file that two processes of a restart share;
otherwise ``twistd`` chooses the observer. Holds the open log file.
"""

from __future__ import annotations

import signal
import sys
from typing import Any, Final, TextIO

from twisted.logger import (
    FilteringLogObserver,
    ILogFilterPredicate,
    ILogObserver,
    LogEvent,
    LogLevel,
    PredicateResult,
    textFileLogObserver,
)
from twisted.python.usage import UsageError
from zope.interface import implementer

from twsock.services.json_log import json_log_observer
from twsock.services.log_file import SharedLogFile
from twsock.services.start_error import StartError
from twsock.services.twistd_options import is_daemon

__all__ = ["LOG_LEVELS", "check_log", "logs_to_file", "process_log_observer"]

#: The name of a daemon's log file without ``twistd --logfile``.
_DEFAULT_LOG_FILE: Final = "twistd.log"

#: The values of ``--log-level``, from the most lines to the fewest.
LOG_LEVELS: Final = ("debug", "info", "warn", "error", "critical")


def check_log(twistd: Any, name: str, value: str) -> None:
    """
    Check that a log option takes effect.

    :param twistd: the options of ``twistd``; None if it does not run the service.
    :param name: the option that differs from its default, without the hyphens.
    :raises UsageError: when another option replaces the log observer, or the program ignores it.
    """
    if twistd is None:
        raise UsageError(f"--{name} {value} needs twistd; with twist, use twist --{name}")
    for option in ("logger", "syslog"):
        if twistd.get(option):
            raise UsageError(
                f"--{name} {value} excludes twistd's --{option}: both set the log observer"
            )


def process_log_observer(twistd: Any, *, logs_json: bool, level: Any) -> ILogObserver:
    """
    Return the observer that writes the log.

    :param twistd: the options of ``twistd``, which name the file.
    :param level: the least level that is logged.
    :raises StartError: when the file cannot be opened, or a daemon should log to standard output.
    """
    file = _open_log(twistd)
    observer: Any = json_log_observer(file) if logs_json else textFileLogObserver(file)
    filtered: ILogObserver = FilteringLogObserver(observer, [_AtLeast(level)])
    return filtered


def logs_to_file(twistd: Any) -> bool:
    """
    Return whether ``twistd`` logs to a file, and not to standard output, syslog or a logger.

    :param twistd: the options of ``twistd``.
    """
    name = twistd.get("logfile")
    if twistd.get("logger") or twistd.get("syslog") or name == "-":
        return False
    return bool(name) or is_daemon(twistd)


@implementer(ILogFilterPredicate)
class _AtLeast:
    """Accepts events of a level or above; Twisted's predicate drops those without a namespace."""

    def __init__(self, level: Any) -> None:
        self._level = level

    def __call__(self, event: LogEvent) -> Any:
        level = event.get("log_level") or LogLevel.info
        return PredicateResult.no if level < self._level else PredicateResult.maybe


def _open_log(twistd: Any) -> TextIO:
    """Open the log that twistd would use; it rotates at one megabyte and on SIGUSR1, as there."""
    name = twistd.get("logfile")
    if name == "-" and is_daemon(twistd):
        raise StartError("twsock: --logfile -: daemons have no standard output to log to")
    if not logs_to_file(twistd):
        return sys.stdout
    try:
        file: Any = SharedLogFile.fromFullPath(name or _DEFAULT_LOG_FILE)
    except OSError as error:
        raise StartError(f"twsock: --logfile: cannot write {name}: {error.strerror}") from error
    if not signal.getsignal(signal.SIGUSR1):
        signal.signal(signal.SIGUSR1, lambda *_: _rotate_later(file))
    opened: TextIO = file
    return opened


def _rotate_later(file: Any) -> None:
    from twisted.internet import reactor

    loop: Any = reactor
    loop.callFromThread(file.rotate)
