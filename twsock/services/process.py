"""
A service as a process of ``twistd``: options → **process** → its services and its log.

This is the outermost service of each of our plugins. When a service cannot start, it ends the
process with status 1, one line on standard error and no pid file. That holds for daemons as well.

``twistd`` becomes a daemon as follows. The process that the user started forks, and waits on a pipe
for a report from its grandchild. The grandchild writes the pid file, then starts the services. It
removes the file and reports a failure in an ``except Exception``, which a plain ``SystemExit``
skips: the parent would then wait for ever. A report has at most 100 bytes, which is too few for an
endpoint and a reason. So our line is written to the terminal through a duplicate of standard error.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import sys
from pathlib import Path
from typing import Any, Final, TextIO

from twisted.application.service import IService, MultiService
from twisted.logger import ILogObserver
from twisted.python.logfile import LogFile
from twisted.python.usage import Options, UsageError
from typing_extensions import override

from twsock.log import TextLogger
from twsock.services.json_log import json_log_observer
from twsock.services.options import choice_option

__all__ = ["ProcessOptions", "ProcessService", "StartError", "in_process", "process_owner"]

#: The name of a daemon's log file without ``twistd --logfile``.
_DEFAULT_LOG_FILE: Final = "twistd.log"


class StartError(SystemExit, Exception):
    """
    A service cannot start; the text of the error is the line for the user.

    It is a ``SystemExit``, so that Python prints the line without a traceback and ends with status
    1. It is an ``Exception`` too, so that ``twistd`` cleans up first.
    """


class ProcessOptions(Options):
    """The options of every service; checks some options of ``twistd`` before they are used."""

    optParameters: list[list[Any]] = [
        ["log-format", None, "text", "Log format: text, or json (one object per line)."],
    ]

    def postOptions(self) -> None:
        """
        Check these options, and those options of ``twistd`` whose errors it does not report.

        :raises UsageError: when an option of this class is invalid; says what it takes.
        :raises StartError: when an option of ``twistd`` cannot be used.
        """
        self["log-format"] = choice_option(self, "log-format", ("text", "json"))
        given = _options_of_twistd(self)
        if given is not None:
            _check_folders(given)
            _check_user(given)
        if self["log-format"] == "json":
            _check_log(given)


class ProcessService(MultiService):
    """
    Contains the services of a process that ``twistd`` runs.

    :param options: the parsed options of the plugin; ``options.parent`` has those of ``twistd``.
    """

    _log = TextLogger()

    def __init__(self, options: ProcessOptions) -> None:
        super().__init__()
        given = _options_of_twistd(options)
        self._options: Any = given
        self._logs_json = given is not None and dict(options)["log-format"] == "json"
        self._terminal: int | None = None
        if given is not None and _is_daemon(given):
            # Standard error may be closed; then no line is printed.
            with contextlib.suppress(OSError):
                self._terminal = os.dup(2)

    # Called by Twisted.

    @override
    def setServiceParent(self, parent: Any) -> None:
        """Join the application and set its log observer; twistd starts logging after this."""
        super().setServiceParent(parent)
        if self._logs_json and hasattr(parent, "setComponent"):
            parent.setComponent(ILogObserver, json_log_observer(_open_log(self._options)))

    @override
    def privilegedStartService(self) -> None:
        """
        Start the services, while the process may still open low ports.

        :raises StartError: when one of them cannot start.
        """
        try:
            super().privilegedStartService()
        except StartError as error:
            if self._options is not None and _is_daemon(self._options):
                self._end_daemon(error)
            raise

    def _end_daemon(self, error: StartError) -> None:
        """Report why the daemon cannot start, before twistd reports to the parent process."""
        if self._terminal is not None:
            os.write(self._terminal, f"{error}\n".encode(errors="backslashreplace"))
        self._log.critical("{line}", line=str(error))
        # Python prints no more than the status then.
        error.code = 1
        # twistd would remove it too, but only when its parent may have ended.
        if self._options["pidfile"]:
            Path(self._options["pidfile"]).unlink(missing_ok=True)
            self._options["pidfile"] = ""

    @override
    def startService(self) -> None:
        super().startService()
        if self._terminal is not None:
            # A daemon keeps no terminal open.
            os.close(self._terminal)
            self._terminal = None


def in_process(options: ProcessOptions, service: Any) -> IService:
    """Return the service for ``twistd`` that contains a service of ours."""
    process: Any = ProcessService(options)
    service.setServiceParent(process)
    contained: IService = process
    return contained


def process_owner(options: Options) -> tuple[int, int] | None:
    """
    Return the user and group that ``twistd`` switches to once the services listen.

    :returns: numeric user and group, -1 for one that does not change; None if neither changes.
    """
    given = _options_of_twistd(options)
    uid = None if given is None else given.get("uid")
    gid = None if given is None else given.get("gid")
    if uid is None and gid is None:
        return None
    if gid is None and uid is not None:
        # twistd chooses the same group.
        gid = pwd.getpwuid(uid).pw_gid
    # chown(2) does not change an id that is -1.
    return -1 if uid is None else uid, -1 if gid is None else gid


def _check_folders(given: Any) -> None:
    if given.get("logfile") not in (None, "", "-"):
        _check_folder("--logfile", Path(given["logfile"]).parent)
    if given.get("chroot") is not None:
        # The other folders are relative to it.
        return _check_folder("--chroot", given["chroot"])
    _check_folder("--rundir", given.get("rundir"))
    if given.get("pidfile"):
        _check_folder("--pidfile", Path(given["pidfile"]).parent)
    return None


def _check_folder(option: str, folder: str | Path | None) -> None:
    if folder is not None and not Path(folder).is_dir():
        raise StartError(f"twsock: {option}: there is no folder {folder}")


def _check_user(given: Any) -> None:
    uid, gid = given.get("uid"), given.get("gid")
    if uid is not None and gid is None and not _is_known(uid):
        raise StartError(f"twsock: --uid: there is no user {uid}; set its group with --gid")
    if os.geteuid() == 0 or (uid is None and gid is None):
        return
    if uid in (None, os.getuid()) and gid in (None, os.getgid()):
        return
    raise StartError(
        f"twsock: --uid and --gid need root, but this process runs as user {os.geteuid()}"
    )


def _is_known(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _options_of_twistd(options: Options) -> Any:
    """Return the options of ``twistd``; None if an application or ``twist`` runs the service."""
    given: Any = options.parent
    return given if given is not None and "nodaemon" in given else None


def _check_log(given: Any) -> None:
    """Refuse options that would replace our log observer, or programs that ignore it."""
    if given is None:
        raise UsageError("--log-format json needs twistd; with twist, use twist --log-format")
    for option in ("logger", "syslog"):
        if given.get(option):
            raise UsageError(
                f"--log-format json excludes twistd's --{option}: both set the log format"
            )


def _open_log(given: Any) -> TextIO:
    """
    Open the log that twistd would use; it is rotated at one megabyte and on SIGUSR1, as by twistd.

    :raises StartError: when the file cannot be opened, or when a daemon should log to standard
        output.
    """
    name = given.get("logfile")
    if name == "-" and _is_daemon(given):
        raise StartError("twsock: --logfile -: daemons have no standard output to log to")
    if name == "-" or (not name and not _is_daemon(given)):
        return sys.stdout
    try:
        file: Any = LogFile.fromFullPath(name or _DEFAULT_LOG_FILE)
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


def _is_daemon(given: Any) -> bool:
    return not given.get("nodaemon") and not given.get("debug")
