"""
A service as a process of ``twistd``: options → **process** → its services and its log.

The outermost service of each of our plugins. It makes a start that fails end the process with
status 1, one line and no pid file, whether it was to become a daemon or not.

How ``twistd`` becomes a daemon: the process that the user started forks and waits on a pipe for a
word from its grandchild, which writes the pid file and only then starts the services. A
``SystemExit`` passes the ``except Exception`` that removes the file and writes that word, so the
parent would wait for ever. At most 100 bytes fit into the word, which is too few for an endpoint
with its reason, so the line goes to the terminal by a descriptor of its own.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import sys
from pathlib import Path
from typing import Any, Final, TextIO

from twisted.application.service import MultiService
from twisted.logger import ILogObserver
from twisted.python.logfile import LogFile
from twisted.python.usage import Options, UsageError
from typing_extensions import override

from twsock.services.json_log import json_log_observer
from twsock.services.options import choice_option
from twsock.transport.log import TextLogger

__all__ = ["ProcessOptions", "ProcessService", "StartError", "process_owner"]

#: What twistd calls the log file of a daemon that was told no name.
_DEFAULT_LOG_FILE: Final = "twistd.log"


class StartError(SystemExit, Exception):
    """
    A service cannot start; its text is the line for the user.

    A ``SystemExit``, so that Python prints that line and no traceback and ends with status 1; an
    ``Exception``, so that ``twistd`` cleans up before.
    """


class ProcessOptions(Options):
    """The options of every service, and a look at those of ``twistd`` before it acts on them."""

    optParameters: list[list[Any]] = [
        ["log-format", None, "text", "text, or json: one object a line; to where twistd logs."],
    ]

    def postOptions(self) -> None:
        """
        Check the options of this class, and those of ``twistd`` that it fails at without a word.

        :raises UsageError: naming the option and what it takes.
        :raises StartError: with the line for the user.
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
    Holds the services of a process that ``twistd`` runs.

    :param options: of the plugin, parsed; their ``parent`` are those of ``twistd``.
    """

    _log = TextLogger()

    def __init__(self, options: ProcessOptions) -> None:
        super().__init__()
        given = _options_of_twistd(options)
        self._options: Any = given
        self._logs_json = given is not None and dict(options)["log-format"] == "json"
        self._terminal: int | None = None
        if given is not None and _is_daemon(given):
            # Where standard error is closed there is nobody to read the line.
            with contextlib.suppress(OSError):
                self._terminal = os.dup(2)

    # Called by Twisted.

    @override
    def setServiceParent(self, parent: Any) -> None:
        """Join the application, and choose how it logs: twistd begins to log after this."""
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
        """Say why there will be no daemon, before the process that waits for it learns that."""
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


def process_owner(options: Options) -> tuple[int, int] | None:
    """
    Find out as whom the process runs once the services listen.

    :returns: user and group, by number; None where it stays who it is.
    """
    given = _options_of_twistd(options)
    uid = None if given is None else given.get("uid")
    gid = None if given is None else given.get("gid")
    if uid is None and gid is None:
        return None
    if gid is None and uid is not None:
        # As twistd chooses it.
        gid = pwd.getpwuid(uid).pw_gid
    # chown leaves alone what is -1.
    return -1 if uid is None else uid, -1 if gid is None else gid


def _check_folders(given: Any) -> None:
    if given.get("logfile") not in (None, "", "-"):
        _check_folder("--logfile", Path(given["logfile"]).parent)
    if given.get("chroot") is not None:
        # The others are looked for inside it, later.
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
        raise StartError(f"twsock: --uid: there is no user {uid}, whose group it would have: --gid")
    if os.geteuid() == 0 or (uid is None and gid is None):
        return
    if uid in (None, os.getuid()) and gid in (None, os.getgid()):
        return
    raise StartError(
        f"twsock: --uid and --gid are for root, and this process belongs to user {os.geteuid()}"
    )


def _is_known(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _options_of_twistd(options: Options) -> Any:
    """Find what ``twistd`` was told; None where an application or ``twist`` runs the service."""
    given: Any = options.parent
    return given if given is not None and "nodaemon" in given else None


def _check_log(given: Any) -> None:
    """Refuse what twistd would prefer to the observer that it is given, or cannot write JSON to."""
    if given is None:
        raise UsageError("--log-format json is for twistd; twist has a --log-format of its own")
    for option in ("logger", "syslog"):
        if given.get(option):
            raise UsageError(
                f"--log-format json chooses how to log, and so does twistd's --{option}"
            )


def _open_log(given: Any) -> TextIO:
    """
    Open what twistd would log to, with its rotation at a megabyte and on SIGUSR1.

    :raises StartError: when it is standard output, which a daemon has not.
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
