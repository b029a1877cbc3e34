"""Netlink messages as the kernel writes them, and a fake kernel with prepared answers."""

from __future__ import annotations

import struct

__all__ = [
    "DONE",
    "ERROR",
    "INTERRUPTED",
    "NEW_ADDRESS",
    "NEW_LINK",
    "Kernel",
    "address",
    "attribute",
    "link",
    "message",
]

# <linux/netlink.h> and <linux/rtnetlink.h>: types of messages, and a flag.
NEW_LINK, NEW_ADDRESS, ERROR, DONE = 16, 20, 2, 3
INTERRUPTED = 0x10


def message(kind: int, body: bytes = b"", flags: int = 0) -> bytes:
    """Return a message as the kernel writes it, padded to four bytes."""
    header = struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0)
    return header + body + bytes(-len(body) % 4)


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def address(family: int, index: int, *attributes: bytes) -> bytes:
    """Return the body of an address message."""
    return struct.pack("=BBBBI", family, 24, 0, 0, index) + b"".join(attributes)


def link(index: int, flags: int, name: bytes) -> bytes:
    """Return the body of a link message."""
    return struct.pack("=BxHiII", 0, 1, index, flags, 0) + attribute(3, name)


class Kernel:
    """
    A fake for netlink sockets: answers each request with the next of several lists of parts.

    :ivar asked: the number of requests.
    :ivar timeout: timeout of the socket; None waits for ever.
    """

    def __init__(self, *answers: list[bytes], flags: int = 0) -> None:
        self._answers = list(answers)
        self._flags = flags
        self._parts: list[bytes] = []
        self.asked = 0
        self.timeout: float | None = None

    def __call__(self, *_arguments: int) -> Kernel:
        return self

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._parts = []

    def settimeout(self, timeout: float) -> None:
        self.timeout = timeout

    def send(self, data: bytes) -> int:
        self.asked += 1
        self._parts = list(self._answers.pop(0))
        return len(data)

    def recvmsg(self, _size: int) -> tuple[bytes, list[object], int, object]:
        if self._parts:
            return self._parts.pop(0), [], self._flags, None
        if self.timeout is None:
            raise AssertionError("it waits for ever")
        raise TimeoutError("timed out")
