"""
The listening sockets and UDP ports of a process, by name: endpoint → **table** → next process.

`twsock.services.keeping_reactor` claims a socket for each endpoint. A restart passes the sockets to
the next process, which claims them there under the same names; a process with workers passes them
to its workers. Holds one descriptor for each socket, a duplicate of the descriptor of its port.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from twisted.internet.error import CannotListenError
from typing_extensions import override

from twsock.errors import SocketError
from twsock.ip.address_errors import listening_error
from twsock.log import TextLogger
from twsock.stream.listening.unix_socket import OwnedPath

__all__ = ["KeptSocket", "ListeningSockets", "SocketName", "duplicate_socket"]

#: Kinds whose address is a path.
_WITH_PATHS: Final = frozenset({"control", "unix"})

_Renew = Callable[[socket.socket], None]

#: Largest number of a socket among those of the same address.
_MAX_NUMBER: Final = 65_535


@dataclass(frozen=True, slots=True, order=True)
class SocketName:
    """
    The name of a listening socket or UDP port of a process: what its endpoint asked for.

    :ivar kind: ``tcp``, ``unix``, ``udp``, ``systemd``, ``adopted`` or ``control``.
    :ivar address: the interface as the endpoint has it, or an absolute path. For a multicast group
        it is ``GROUP%INTERFACE``, with a source ``GROUP%INTERFACE,SOURCE``. For a socket of systemd
        it is the domain, with a name ``DOMAIN,NAME``.
    :ivar port: 0 to 65,535; 0 if the system chooses, and for paths.
    :ivar number: counts the sockets with the same kind, address and port, in the order in which
        they were opened, from 0.
    """

    kind: str
    address: str
    port: int = 0
    number: int = 0

    def __str__(self) -> str:
        """Return the name as text for log lines: ``tcp:127.0.0.1:0#1``, ``unix:/run/echo.sock``."""
        if self.kind in _WITH_PATHS:
            # An absolute path never begins with @, so it can stand for the NUL of abstract names.
            text = f"{self.kind}:{self.address.replace(chr(0), '@', 1)}"
        else:
            address = f"[{self.address}]" if ":" in self.address else self.address
            text = f"{self.kind}:{address}:{self.port}"
        return f"{text}#{self.number}" if self.number or "#" in text else text

    @classmethod
    def parse(cls, text: str) -> SocketName:
        """
        Return the name with this text, as ``str`` writes it.

        :raises ValueError: when no name has this text.
        """
        kind, colon, rest = text.partition(":")
        number = "0"
        if "#" in rest:
            rest, _, number = rest.rpartition("#")
        address, port = rest, "0"
        if kind in _WITH_PATHS:
            address = f"\0{rest[1:]}" if rest.startswith("@") else rest
        else:
            address, _, port = rest.rpartition(":")
            address = address[1:-1] if address.startswith("[") else address
        if not (kind and colon and _is_number(port) and _is_number(number)):
            raise ValueError(f"{text[:200]!r} is not the name of a socket")
        name = cls(kind, address, int(port), int(number))
        if str(name) != text:
            raise ValueError(f"{text[:200]!r} is not the name of a socket")
        return name


class KeptSocket(socket.socket):
    """
    A socket of a port whose duplicate a table keeps; its close closes the duplicate as well.

    Without that the kernel would queue connections that no port accepts.

    :ivar path: the path that the socket is bound to; None for other sockets.
    """

    def __init__(
        self,
        descriptor: int,
        path: OwnedPath | None,
        table: ListeningSockets,
        closed: Callable[[], None],
    ) -> None:
        super().__init__(fileno=descriptor)
        self.path = path
        self._table = table
        self._report_close: Callable[[], None] | None = closed
        self._others: tuple[KeptSocket, ...] = ()

    @property
    def accepts_at_end(self) -> bool:
        """Read by `twsock.stream.AcceptGate`; see `ListeningSockets`."""
        return self._table.accepts_at_end

    def closes_with(self, others: Iterable[KeptSocket]) -> None:
        """Close other sockets at the end of this one."""
        self._others = tuple(others)

    @override
    def dup(self) -> socket.socket:  # type: ignore[override]
        """Return a duplicate that is independent of the table."""
        return duplicate_socket(self)

    @override
    def close(self) -> None:
        """Close the socket, and its duplicate in the table."""
        super().close()
        report, self._report_close = self._report_close, None
        if report is not None:
            report()
        others, self._others = self._others, ()
        for each in others:
            each.close()


class _Entry:
    """
    A socket of the table.

    :ivar path: of a bound UNIX socket whose path exists; None for all others.
    :ivar renew: sets the options that the endpoint asked for.
    """

    __slots__ = ("is_claimed", "path", "renew", "socket")

    def __init__(self, name: SocketName, kept: socket.socket, is_owned: bool) -> None:
        self.socket = kept
        self.is_claimed = False
        self.renew: _Renew | None = None
        self.path: OwnedPath | None = None
        if name.kind in _WITH_PATHS and not name.address.startswith("\0"):
            try:
                self.path = OwnedPath(Path(name.address))
            except OSError:
                return
            self.path.is_owned = is_owned

    def close(self) -> None:
        if self.path is not None:
            self.path.remove()
        self.socket.close()


class ListeningSockets:
    """
    The listening sockets and UDP ports of a process, by name.

    The table keeps a duplicate of each socket until its port is closed. It removes the path of a
    UNIX socket at the same time if the process owns the path.

    :param checks_paths: whether a UNIX socket whose path was removed or replaced is dropped; False
        for a parent and its workers, since all workers have to share one socket.
    :ivar accepts_at_end: whether a port that closes first accepts the connections that the kernel
        has queued. Set it to False when another process accepts them.
    """

    _log = TextLogger()

    def __init__(self, *, checks_paths: bool = True) -> None:
        self.accepts_at_end = True
        self._checks_paths = checks_paths
        self._entries: dict[SocketName, _Entry] = {}
        self._owns_paths = True
        self._unused_paths: list[OwnedPath] = []

    @property
    def owns_paths(self) -> bool:
        """
        Whether this process removes the paths of its UNIX sockets.

        Set it to False when another process has taken over all sockets, and to True in that
        process: paths of inherited sockets are not removed until then. It also sets
        `accepts_at_end`.
        """
        return self._owns_paths

    @owns_paths.setter
    def owns_paths(self, value: bool) -> None:
        self._owns_paths = self.accepts_at_end = value
        for entry in self._entries.values():
            if entry.path is not None:
                entry.path.is_owned = value

    def inherit(self, sockets: Iterable[tuple[SocketName, socket.socket]]) -> None:
        """
        Add sockets of another process, to be claimed; the table closes them from now on.

        :raises ValueError: when two sockets have the same name; all of them are closed then.
        """
        given = list(sockets)
        names = {name for name, _ in given}
        if len(names) < len(given) or names & self._entries.keys():
            for _, each in given:
                each.close()
            raise ValueError("two sockets have the same name")
        for name, each in given:
            self._entries[name] = _Entry(name, each, is_owned=False)

    def claim(
        self,
        kind: str,
        address: str,
        port: int,
        open: Callable[[], socket.socket],
        renew: _Renew | None = None,
    ) -> tuple[KeptSocket, bool]:
        """
        Return a socket for a port, and whether it was inherited.

        :param kind: see `SocketName`, also for the next two. The number is the lowest that no other
            port has claimed.
        :param open: opens the socket if none was inherited under this name, or if the path of the
            inherited one was removed. Its errors are raised.
        :param renew: sets the options of an inherited socket, which may differ from those that this
            process wants. If it raises an error, the socket is closed.
        :returns: the socket; the caller closes it. It does not block.
        """
        name = self._next_name(kind, address, port)
        entry = self._entries.get(name)
        if entry is not None and self._is_orphan(name, entry):
            del self._entries[name]
            entry.close()
            entry = None
        is_inherited = entry is not None
        if entry is None:
            entry = self._entries[name] = _Entry(name, open(), is_owned=True)
        entry.is_claimed, entry.renew = True, renew
        try:
            if is_inherited and renew is not None:
                renew(entry.socket)
            kept = self._duplicate(name, entry)
        except BaseException:
            del self._entries[name]
            entry.close()
            raise
        kept.setblocking(False)
        return kept, is_inherited

    def held(self) -> list[tuple[SocketName, socket.socket]]:
        """
        Return all sockets in the order in which they came; the table still owns them.

        A UNIX socket whose path was removed or replaced is not among them: no client reaches it.
        """
        return [
            (name, entry.socket)
            for name, entry in self._entries.items()
            if not self._is_orphan(name, entry)
        ]

    def renew(self) -> None:
        """
        Set the options of all claimed sockets again: another process has changed some, and failed.

        An option that cannot be set is logged.
        """
        for name, entry in self._entries.items():
            if entry.is_claimed and entry.renew is not None:
                try:
                    entry.renew(entry.socket)
                except (CannotListenError, OSError, SocketError) as error:
                    self._log.warn(
                        "cannot set the options of {name} again: {error}",
                        name=str(name),
                        error=listening_error(error).summary,
                    )

    def has(self, kind: str, address: str, port: int) -> bool:
        """Return whether the next `claim` of this name returns an inherited socket."""
        name = self._next_name(kind, address, port)
        entry = self._entries.get(name)
        return entry is not None and not self._is_orphan(name, entry)

    def is_bound(self, address: Any) -> bool:
        """
        Return whether a socket of the table is bound to an address.

        :param address: of a port: ``getHost()`` of Twisted's ports and of ours.
        """
        wanted = _address_of_port(address)
        return any(_address_of_socket(entry.socket) == wanted for entry in self._entries.values())

    def close_unclaimed(self) -> list[SocketName]:
        """
        Close the inherited sockets that no port has claimed; return their names.

        Their paths stay until `remove_unused_paths` if this process does not own them yet.
        """
        unclaimed = [name for name, entry in self._entries.items() if not entry.is_claimed]
        for name in unclaimed:
            entry = self._entries.pop(name)
            if entry.path is not None and not entry.path.is_owned:
                self._unused_paths.append(entry.path)
            entry.close()
        return unclaimed

    def remove_unused_paths(self) -> None:
        """Remove the paths that `close_unclaimed` left: their old process has ended."""
        unused, self._unused_paths = self._unused_paths, []
        for path in unused:
            path.is_owned = True
            path.remove()

    def close(self) -> None:
        """Close all sockets of the table, and remove the paths that this process owns."""
        entries, self._entries = self._entries, {}
        for entry in entries.values():
            entry.close()

    def _next_name(self, kind: str, address: str, port: int) -> SocketName:
        number = 0
        while True:
            name = SocketName(kind, address, port, number)
            entry = self._entries.get(name)
            if entry is None or not entry.is_claimed:
                return name
            number += 1

    def _is_orphan(self, name: SocketName, entry: _Entry) -> bool:
        """Return whether no client can reach the socket any more, as its path was removed."""
        has_path = name.kind in _WITH_PATHS and not name.address.startswith("\0")
        is_reachable = entry.path is not None and entry.path.is_in_place
        return self._checks_paths and has_path and not is_reachable

    def _duplicate(self, name: SocketName, entry: _Entry) -> KeptSocket:
        def closed() -> None:
            if self._entries.get(name) is entry:
                del self._entries[name]
                entry.close()

        return KeptSocket(os.dup(entry.socket.fileno()), entry.path, self, closed)


def duplicate_socket(original: socket.socket) -> socket.socket:
    """
    Return a duplicate.

    Unlike ``dup`` of a socket this changes no flag: all duplicates share ``O_NONBLOCK``.
    """
    return socket.socket(fileno=os.dup(original.fileno()))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 5 and int(text) <= _MAX_NUMBER


def _address_of_port(address: Any) -> tuple[Any, ...]:
    """Return the result of `_address_of_socket` for the address of a port."""
    host = getattr(address, "host", None)
    if host is None:
        return (_as_text(getattr(address, "name", None)),)
    return getattr(address, "type", "TCP"), host.partition("%")[0], address.port


def _address_of_socket(opened: socket.socket) -> tuple[Any, ...]:
    """Return the local address without flow and scope."""
    name = opened.getsockname()
    if not isinstance(name, tuple):
        return (_as_text(name),)
    kind = "UDP" if opened.type == socket.SOCK_DGRAM else "TCP"
    return kind, name[0].partition("%")[0], name[1]


def _as_text(name: Any) -> Any:
    return os.fsdecode(name) if isinstance(name, bytes) else name
