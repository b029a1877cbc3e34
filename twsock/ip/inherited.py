"""
Checks of a bound socket that another process has opened: socket → **accepted or refused**.

Some options have to be set before the bind. If they differ from those that this process wants, the
socket cannot be used. Nothing is held.
"""

from __future__ import annotations

import socket
from typing import Any, Final

from twsock.errors import SocketError, SocketErrorStatus

__all__ = ["check_inherited"]

#: Options that have no effect on a bound socket, or are refused there.
_FIXED: Final = tuple(
    (getattr(socket, level), getattr(socket, option), option)
    for level, option in (("SOL_SOCKET", "SO_REUSEPORT"), ("IPPROTO_IPV6", "IPV6_V6ONLY"))
    if hasattr(socket, option)
)


def check_inherited(inherited: socket.socket, fresh: socket.socket, where: Any) -> None:
    """
    Check that a socket is what this process would have opened.

    :param fresh: not bound; it has the options that are set before the bind.
    :param where: the address to be bound to, as ``bind`` takes it; port 0 for any port.
    :raises SocketError: with status ``ADDRESS_ALREADY_IN_USE``; the message names the difference.
    """
    if inherited.family != fresh.family or inherited.type != fresh.type:
        raise _differs("is of another family or type")
    bound = inherited.getsockname()
    if bound[0].partition("%")[0] != where[0].partition("%")[0] or where[1] not in (0, bound[1]):
        raise _differs(f"is bound to {bound[0]} port {bound[1]}")
    for level, option, name in _FIXED:
        # The bind to a single IPv6 address turns IPV6_V6ONLY on.
        if level == socket.IPPROTO_IPV6 and bound[0] != "::":
            continue
        has, wants = inherited.getsockopt(level, option), fresh.getsockopt(level, option)
        if has != wants:
            raise _differs(f"has {name} {has} instead of {wants}, which cannot be changed")


def _differs(what: str) -> SocketError:
    return SocketError(
        f"the socket of the running process {what}: stop that process first",
        status=SocketErrorStatus.ADDRESS_ALREADY_IN_USE,
    )
