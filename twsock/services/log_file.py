"""
A log file to which several processes write: log observer of a process → **log file**.

Two processes write to one file while a restart is under way, and during the drain after it. Each
write goes to the end of the file, as the other process may have written since.
"""

from __future__ import annotations

import fcntl
import os

from twisted.python.logfile import LogFile
from typing_extensions import override

__all__ = ["SharedLogFile"]


class SharedLogFile(LogFile):
    """
    A log file to which several processes append.

    Each of them rotates the file when it has written one megabyte. The others then go on in the
    rotated file, until they rotate as well.
    """

    # Called by the base.

    @override
    def _openFile(self) -> None:
        super()._openFile()
        descriptor = self._file.fileno()
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_APPEND)
