"""
Name lookups and other blocking calls in threads; the process ends without waiting for them.

A thread of the reactor's own pool keeps the process from ending until its call returns. A name
server that does not answer, or a terminal at which nobody types, would keep the user waiting after
``--timeout``, and after Ctrl-C. So each call here gets a daemon thread of its own. Calls are few:
one for a name, and one for each piece of input.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IReactorFromThreads,
    IResolutionReceiver,
)
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["ThreadResolver", "first_of", "in_thread"]

T = TypeVar("T")


def in_thread(reactor: IReactorFromThreads, function: Callable[..., T], *args: Any) -> Deferred[T]:
    """
    Call a function that blocks.

    :returns: fires with its result, or fails with what it raised. Cancelling ends the wait only:
        the call goes on, and its result is dropped.
    """
    deferred: Deferred[T] = Deferred()

    def work() -> None:
        try:
            result = function(*args)
        except Exception:  # noqa: BLE001 - passed on, whatever it is
            reactor.callFromThread(deferred.errback, Failure())
        else:
            reactor.callFromThread(deferred.callback, result)

    threading.Thread(target=work, daemon=True).start()
    return deferred


def first_of(*waits: Deferred[Any]) -> Deferred[tuple[int, Any]]:
    """
    Wait for whichever ends first; the others are cancelled before anybody learns of it.

    :returns: fires with its position and its result, or fails as it does. Cancelling cancels all.
    """
    is_over = False

    def ended(result: Any, position: int) -> None:
        nonlocal is_over
        if is_over:
            return
        is_over = True
        cancel_all(first)
        first.callback(result if isinstance(result, Failure) else (position, result))

    def cancel_all(_first: object) -> None:
        for wait in waits:
            wait.cancel()

    first: Deferred[tuple[int, Any]] = Deferred(cancel_all)
    for position, wait in enumerate(waits):
        wait.addBoth(ended, position)
    return first


@implementer(IHostResolution)
class _Resolution:
    """One name that is being looked up."""

    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        """Do nothing: `HostnameEndpoint` ignores results after it was cancelled."""


@implementer(IHostnameResolver)
class ThreadResolver:
    """
    Looks names up with ``getaddrinfo``. A malformed name has no addresses.

    :param look_up: stands for `socket.getaddrinfo`.
    """

    def __init__(
        self, reactor: IReactorFromThreads, look_up: Callable[..., Any] = socket.getaddrinfo
    ) -> None:
        self._reactor = reactor
        self._look_up = look_up

    # Called by Twisted.
    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,  # noqa: N803
        hostName: str,  # noqa: N803
        portNumber: int = 0,  # noqa: N803
        addressTypes: Sequence[type[IAddress]] | None = None,  # noqa: N803
        transportSemantics: str = "TCP",  # noqa: N803
    ) -> IHostResolution:
        """Look a name up, and pass its addresses to a receiver one by one."""
        resolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)

        def report(found: list[Any]) -> None:
            for address in map(_make_address, found):
                if addressTypes is None or isinstance(address, tuple(addressTypes)):
                    resolutionReceiver.addressResolved(address)
            resolutionReceiver.resolutionComplete()

        looking = in_thread(
            self._reactor, self._find, hostName, portNumber, transportSemantics == "TCP"
        )
        looking.addCallback(report)
        return resolution

    def _find(self, name: str, port: int, is_tcp: bool) -> list[Any]:
        kind = socket.SOCK_STREAM if is_tcp else socket.SOCK_DGRAM
        try:
            found = self._look_up(name, port, socket.AF_UNSPEC, kind)
        # A label that IDNA does not allow is a UnicodeError; any other failure an OSError.
        except (OSError, UnicodeError):
            return []
        return [entry for entry in found if entry[0] in (socket.AF_INET, socket.AF_INET6)]


def _make_address(entry: Any) -> IPv4Address | IPv6Address:
    family, kind, _, _, (host, port, *rest) = entry
    protocol = "TCP" if kind == socket.SOCK_STREAM else "UDP"
    if family == socket.AF_INET:
        return IPv4Address(protocol, host, port)  # type: ignore[arg-type]
    # The endpoint connects to the text, so the text has the zone of a link-local address.
    zone = f"%{rest[1]}" if rest[1] and "%" not in host else ""
    return IPv6Address(protocol, host + zone, port, *rest)  # type: ignore[arg-type]
