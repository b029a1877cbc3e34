"""
A service manager for tests: the socket of NOTIFY_SOCKET, and the messages that arrive there.

Like systemd, it learns from the kernel which process sent a message.
"""

from __future__ import annotations

import os
import socket
import struct
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from tests.services.processes import PATIENCE

_CREDENTIALS: Final = struct.Struct("3i")


@dataclass(frozen=True)
class Message:
    """
    One message.

    :ivar process: the id of the sender.
    :ivar fields: the assignments, in their order.
    """

    process: int
    fields: Mapping[str, str]


class NotifySocket:
    """
    A socket that receives the messages of services.

    :param is_abstract: whether its name is in the abstract namespace instead of a folder.
    :ivar name: the value of NOTIFY_SOCKET.
    """

    def __init__(self, *, is_abstract: bool = False) -> None:
        self._folder = tempfile.TemporaryDirectory()
        path = Path(self._folder.name) / "notify"
        self.name = f"@{path}" if is_abstract else str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.settimeout(PATIENCE)
        self._socket.bind(f"\0{path}" if is_abstract else str(path))

    @property
    def environment(self) -> dict[str, str]:
        """The variables for a service."""
        return {"NOTIFY_SOCKET": self.name}

    def receive(self) -> Message:
        """Wait for a message."""
        data, ancillary, _, _ = self._socket.recvmsg(
            4_096, socket.CMSG_SPACE(_CREDENTIALS.size), socket.MSG_CMSG_CLOEXEC
        )
        (process,) = (
            _CREDENTIALS.unpack(content)[0]
            for _, kind, content in ancillary
            if kind == socket.SCM_CREDENTIALS
        )
        pairs = (line.partition("=") for line in data.decode().splitlines())
        return Message(process, {name: value for name, _, value in pairs})

    def wait_for(self, *fields: str) -> Message:
        """Wait for a message that has all the fields, and return it; others are dropped."""
        while not set(fields) <= set((message := self.receive()).fields):
            pass
        return message

    def take_all(self) -> list[Message]:
        """Return the messages that have arrived, without waiting."""
        self._socket.settimeout(0)
        taken = []
        try:
            while True:
                taken.append(self.receive())
        except BlockingIOError:
            return taken
        finally:
            self._socket.settimeout(PATIENCE)

    def close(self) -> None:
        """Close the socket, as a service manager that ends."""
        self._socket.close()

    def __enter__(self) -> NotifySocket:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        frames: TracebackType | None,
    ) -> None:
        self.close()
        self._folder.cleanup()


def environment_of(process: int) -> set[str]:
    """Return the names of the variables that a process was started with."""
    entries = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    return {os.fsdecode(entry).partition("=")[0] for entry in entries}
