"""
Checks of options of ``twistd`` whose errors it does not report in one line.

Used by `twsock.services.process`, before anything starts. Holds nothing.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Any

__all__ = ["check_twistd"]


def check_twistd(given: Any) -> None:
    """
    Check folders and the user.

    :param given: the options of ``twistd``.
    :raises ValueError: when a folder does not exist, or the process may not switch to the user; the
        text is a line for the user.
    """
    _check_folders(given)
    _check_user(given)


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
        raise ValueError(f"{option}: there is no folder {folder}")


def _check_user(given: Any) -> None:
    uid, gid = given.get("uid"), given.get("gid")
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
