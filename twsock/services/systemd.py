"""
Sockets that systemd opened (``systemd:`` endpoints): environment → **descriptor** → endpoint.

The protocol is that of sd_listen_fds(3). LISTEN_FDS is the number of descriptors; the first is 3.
LISTEN_PID is the process that they are for. LISTEN_FDNAMES, which may be missing, has their names.

Twisted ignores the descriptors if there are no names, and removes the variables when it is
imported. It also removes the path of a UNIX socket that belongs to systemd: after a restart of the
service, clients could not connect any more.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, execute
from twisted.internet.endpoints import AdoptedStreamServerEndpoint
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.posixbase import PosixReactorBase
from zope.interface import implementer

from twsock.ip.address_errors import EndpointError
from twsock.services.keeping_reactor import BindingReactor, KeepingReactor
from twsock.stream.listening.unix_endpoint import UnixPort

__all__ = ["systemd_endpoint"]

_FIRST: Final = 3

_FAMILIES: Final = {
    "INET": socket.AF_INET,
    "INET6": socket.AF_INET6,
    "UNIX": socket.AF_UNIX,
}


def systemd_endpoint(
    reactor: Any,
    domain: str,
    index: str | None = None,
    name: str | None = None,
    *,
    environment: Mapping[str, str] | None = None,
) -> IStreamServerEndpoint:
    """
    Make an endpoint from a listening socket that systemd passed to this process.

    :param domain: ``INET``, ``INET6`` or ``UNIX``; must match the socket.
    :param index: number of the socket, from 0; give either this or ``name``.
    :param name: the ``FileDescriptorName=`` of its unit.
    :param environment: None for the environment that this process was started with.
    :raises EndpointError: when a variable or the socket cannot be used; names it. With a
        `KeepingReactor` the endpoint raises it when it listens, unless the socket was inherited;
        with a `BindingReactor` it is raised here.
    """
    family = _FAMILIES.get(domain)
    if family is None:
        raise EndpointError(f"domain is {', '.join(_FAMILIES)}, not {domain!r}")
    if (index is None) == (name is None):
        raise EndpointError("it needs either index= or name=")
    if name is None:
        _number(index)
    find = partial(_find_descriptor, family, domain, index, name, environment)
    if isinstance(reactor, KeepingReactor):
        address = domain if name is None else f"{domain},{name}"
        kept = _KeptEndpoint(reactor, ("systemd", address, _number(index or "0")), find)
        if kept.problem is not None and isinstance(reactor, BindingReactor):
            # A parent of workers inherits nothing.
            raise kept.problem.copy()
        return kept
    descriptor = find()
    if family == socket.AF_UNIX and isinstance(reactor, PosixReactorBase):
        return _InheritedUnixEndpoint(reactor, descriptor)
    return AdoptedStreamServerEndpoint(reactor, descriptor, family)


def _find_descriptor(
    family: int,
    domain: str,
    index: str | None,
    name: str | None,
    environment: Mapping[str, str] | None,
) -> int:
    """
    Return the descriptor of a socket that systemd passed to this process.

    :raises EndpointError: when a variable or the socket cannot be used; names it.
    """
    variables = _initial_environment() if environment is None else environment
    count = _count(variables)
    number = _number_of_name(variables, name) if name is not None else _number(index)
    if number >= count:
        raise EndpointError(
            f"LISTEN_FDS is {count}, so there is no socket with index {number}: "
            f"use 0{'' if count == 1 else f' to {count - 1}'}"
        )
    descriptor = _FIRST + number
    _check_socket(descriptor, family, domain)
    return descriptor


@implementer(IStreamServerEndpoint)
class _KeptEndpoint:
    """
    Listens on a socket of systemd, or on the one that another process had from it.

    :param key: kind, address and port of its name in the table.
    :param find: returns the descriptor of systemd.

    :ivar problem: why systemd has passed no such socket; None if it has.
    """

    def __init__(
        self, reactor: KeepingReactor, key: tuple[str, str, int], find: Callable[[], int]
    ) -> None:
        self._reactor = reactor
        self._key = key
        self.problem: EndpointError | None = None
        self._descriptor = -1
        # Now, since the process id changes when the process becomes a daemon.
        try:
            self._descriptor = find()
        except EndpointError as error:
            self.problem = error

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        return execute(self._reactor.adopt, self._key, self._open, factory)

    def _open(self) -> socket.socket:
        if self.problem is not None:
            raise self.problem.copy()
        return socket.socket(fileno=self._descriptor)


@implementer(IStreamServerEndpoint)
class _InheritedUnixEndpoint:
    """Listens on a UNIX socket whose path belongs to systemd."""

    def __init__(self, reactor: Any, descriptor: int) -> None:
        self._reactor = reactor
        self._descriptor = descriptor

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        return execute(self._listen, factory)

    def _listen(self, factory: IProtocolFactory) -> IListeningPort:
        listening = socket.socket(fileno=self._descriptor)
        listening.setblocking(False)
        port = UnixPort(self._reactor, listening, factory)
        port.startListening()
        return port


def _initial_environment() -> Mapping[str, str]:
    """Return the environment of the start of the process, before Twisted removed variables."""
    try:
        entries = os.fsdecode(Path("/proc/self/environ").read_bytes()).split("\0")
    except OSError:
        # Not Linux, so there is no systemd.
        return os.environ
    pairs = (entry.partition("=") for entry in entries)
    return {name: value for name, _, value in pairs}


def _count(variables: Mapping[str, str]) -> int:
    text = variables.get("LISTEN_FDS")
    if text is None:
        raise EndpointError(
            "LISTEN_FDS is not set: systemd passed no socket to this process; is there a .socket "
            "unit for it?"
        )
    if not text.isdecimal() or int(text) < 1:
        raise EndpointError(f"LISTEN_FDS is {text!r}, not a number of sockets")
    listener = variables.get("LISTEN_PID", "")
    if listener != str(os.getpid()):
        raise EndpointError(
            f"LISTEN_PID is {listener or 'not set'}, but this is process {os.getpid()}: "
            "the sockets are for another process"
        )
    return int(text)


def _number(index: str | None) -> int:
    if index is None or not index.isdecimal():
        raise EndpointError(f"index is a number from 0, not {index!r}")
    return int(index)


def _number_of_name(variables: Mapping[str, str], name: str) -> int:
    names = variables.get("LISTEN_FDNAMES", "").split(":")
    if name not in names:
        listed = ", ".join(names) if names != [""] else "not set"
        raise EndpointError(f"LISTEN_FDNAMES has no {name!r}: it is {listed}")
    return names.index(name)


def _check_socket(descriptor: int, family: int, domain: str) -> None:
    """
    Check a socket before the reactor uses it.

    :raises EndpointError: when it is not a listening stream socket of that domain.
    """
    number = descriptor - _FIRST
    try:
        with socket.socket(fileno=os.dup(descriptor)) as found:
            actual, kind = found.family, found.type
            listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise EndpointError(
            f"socket {number} of LISTEN_FDS is not a socket: {error.strerror}"
        ) from error
    if actual != family:
        names = {value: key for key, value in _FAMILIES.items()}
        raise EndpointError(
            f"socket {number} of LISTEN_FDS is of domain {names.get(actual, actual)}, not {domain}"
        )
    if kind != socket.SOCK_STREAM or not listens:
        raise EndpointError(
            f"socket {number} of LISTEN_FDS does not listen: use ListenStream= and Accept=no"
        )
