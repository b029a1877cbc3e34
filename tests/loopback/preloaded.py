"""
A process that has imported the package, and forks for each program on a host; see `tests.forking`.

A program is the text of a module. It enters the network namespace of its host, as ``ip netns exec``
does.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Any, Final

# No reactor: the programs install one.
import twsock
import twsock.datagram.endpoint
import twsock.datagram.network.interfaces
import twsock.datagram.network.membership
import twsock.datagram.port
import twsock.protocols
import twsock.reactor
from tests.forking import run_forked

__all__: list[str] = []

#: The programs use these names of a lazy package.
_USED: Final = (twsock.DatagramSocket, twsock.StreamSocket, twsock.StreamSocketListener)

# Constants of the kernel, which the module `os` has since Python 3.12 at the earliest.
_CLONE_NEWNS: Final = 0x00020000
_CLONE_NEWNET: Final = 0x40000000
_MNT_DETACH: Final = 2
_MS_REC: Final = 1 << 14
_MS_SLAVE: Final = 1 << 19


def work(request: dict[str, Any]) -> None:
    """Run a program on a host."""
    enter(request["namespace"])
    # As with PYTHONUNBUFFERED: the test reads the lines while the program runs.
    sys.stdout = os.fdopen(1, "w", 1, closefd=False, encoding="utf-8")
    sys.argv = ["-c", *request["arguments"]]
    exec(compile(request["source"], "<string>", "exec"), {"__name__": "__main__"})


def enter(namespace: str) -> None:
    """Use the network of a namespace, and its ``/sys``."""
    assert "twisted.internet.reactor" not in sys.modules
    with Path("/run/netns", namespace).open() as file:
        call("setns", file.fileno(), _CLONE_NEWNET)
    call("unshare", _CLONE_NEWNS)
    call("mount", b"none", b"/", None, ctypes.c_ulong(_MS_SLAVE | _MS_REC), None)
    call("umount2", b"/sys", _MNT_DETACH)
    call("mount", namespace.encode(), b"/sys", b"sysfs", ctypes.c_ulong(0), None)


def call(name: str, *arguments: Any) -> None:
    """Call a function of the C library."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


if __name__ == "__main__":
    run_forked(work)
