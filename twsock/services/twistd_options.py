"""
The options of ``twistd`` around those of a plugin: command line → **options of twistd** → process.

Checks the options whose errors ``twistd`` does not report in one line, before anything starts.
Returns what the services of a process depend on: the later user, and where errors appear. Nothing
is held.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Any

from twisted.python.usage import Options

__all__ = ["check_twistd", "hides_errors", "is_daemon", "options_of_twistd", "process_owner"]


def options_of_twistd(options: Options) -> Any:
    """Return the options of ``twistd``; None if an application or ``twist`` runs the service."""
    twistd: Any = options.parent
    return twistd if twistd is not None and "nodaemon" in twistd else None


def hides_errors(twistd: Any) -> bool:
    """
    Return whether ``twistd`` replaces standard error by a log that is not on the terminal.

    :param twistd: the options of ``twistd``.
    """
    if is_daemon(twistd) or twistd.get("logger") or twistd.get("syslog"):
        return True
    return twistd.get("logfile") not in (None, "", "-")


def is_daemon(twistd: Any) -> bool:
    """
    Return whether the process becomes a daemon.

    :param twistd: the options of ``twistd``.
    """
    return not twistd.get("nodaemon") and not twistd.get("debug")


def process_owner(options: Options) -> tuple[int, int] | None:
    """
    Return the user and group that ``twistd`` switches to once the services listen.

    :returns: numeric user and group, -1 for one that does not change; None if neither changes.
    """
    twistd = options_of_twistd(options)
    uid = None if twistd is None else twistd.get("uid")
    gid = None if twistd is None else twistd.get("gid")
    if uid is None and gid is None:
        return None
    if gid is None and uid is not None:
        # twistd chooses the same group.
        gid = pwd.getpwuid(uid).pw_gid
    # chown(2) does not change an id that is -1.
    return -1 if uid is None else uid, -1 if gid is None else gid


def check_twistd(twistd: Any) -> None:
    """
    Check folders and the user.

    :param twistd: the options of ``twistd``.
    :raises ValueError: when a folder does not exist, or the process may not switch to the user; the
        text is a line for the user.
    """
    _check_folders(twistd)
    _check_user(twistd)


def _check_folders(twistd: Any) -> None:
    if twistd.get("logfile") not in (None, "", "-"):
        _check_folder("--logfile", Path(twistd["logfile"]).parent)
    if twistd.get("chroot") is not None:
        # The other folders are relative to it.
        return _check_folder("--chroot", twistd["chroot"])
    _check_folder("--rundir", twistd.get("rundir"))
    if twistd.get("pidfile"):
        _check_folder("--pidfile", Path(twistd["pidfile"]).parent)
    return None


def _check_folder(option: str, folder: str | Path | None) -> None:
    if folder is not None and not Path(folder).is_dir():
        raise ValueError(f"{option}: there is no folder {folder}")


def _check_user(twistd: Any) -> None:
    uid, gid = twistd.get("uid"), twistd.get("gid")
    if uid is not None and gid is None and not _is_known(uid):
        raise ValueError(f"--uid: there is no user {uid}; set its group with --gid")
    if os.geteuid() == 0 or (uid is None and gid is None):
        return
    if uid in (None, os.getuid()) and gid in (None, os.getgid()):
        return
    raise ValueError(f"--uid and --gid need root, but this process runs as user {os.geteuid()}")


def _is_known(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True
