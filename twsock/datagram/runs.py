"""
A run of datagrams that arrived together: kernel → **run** → protocol.

Made by `twsock.datagram.port`. The bytes stay one piece until somebody wants them apart: who
answers or forwards a run as a whole never cuts it.
"""

from __future__ import annotations

from typing import Any

from twsock.wire.datagrams import count_datagrams, split_run

__all__ = ["Run"]


class Run:
    """
    One datagram or several, from one peer.

    :ivar data: the datagrams one behind the other.
    :ivar segment_size: bytes of each; the last may have fewer.
    :ivar source: the peer: address and port, for IPv6 also flow information and scope id, as the
        kernel gives and takes them.
    :ivar destination: the address they were sent to, a group's for instance; empty where the
        system does not tell.
    :ivar interface: index of the interface they came by; 0 where the system does not tell.
    :ivar local: the address of this machine to answer from; empty for the system's choice.
    :ivar is_truncated: whether this is the beginning of a datagram that was longer.
    """

    __slots__ = (
        "data",
        "destination",
        "interface",
        "is_truncated",
        "local",
        "segment_size",
        "source",
    )

    def __init__(
        self,
        data: bytes,
        segment_size: int,
        source: tuple[Any, ...],
        destination: str = "",
        interface: int = 0,
        is_truncated: bool = False,
        local: str = "",
    ) -> None:
        self.data = data
        self.segment_size = segment_size
        self.source = source
        self.destination = destination
        self.interface = interface
        self.local = local
        self.is_truncated = is_truncated

    def part(self, data: bytes, segment_size: int, *, is_truncated: bool = False) -> Run:
        """Make a run of some of its bytes, of the same origin."""
        return Run(
            data,
            segment_size,
            self.source,
            self.destination,
            self.interface,
            is_truncated,
            self.local,
        )

    def __len__(self) -> int:
        return count_datagrams(len(self.data), self.segment_size)

    def __bool__(self) -> bool:
        return True

    def datagrams(self) -> list[bytes]:
        """Cut it into its datagrams, in order."""
        return split_run(self.data, self.segment_size)

    def __repr__(self) -> str:
        host, port = self.source[:2]
        return f"<{len(self)} datagrams of {self.segment_size} bytes from {host} port {port}>"
