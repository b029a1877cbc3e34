"""
The judgement of one request: rules → **judging** → application → acceptance or refusal.

Used by all servers of WebSockets: first the rules judge, then ``accept`` of a protocol class or
``judge`` of a listener. Nothing is held.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress

from twsock.ip.addresses import host_of
from twsock.websocket.handshake import Acceptance, Refusal, RequestRules
from twsock.websocket.http_message import Request
from twsock.websocket.uri import is_loopback_host

__all__ = ["Choice", "Judgement", "apply_choice", "judge_request", "serves_loopback"]

#: The decision of an application about a request that the rules have accepted.
Choice = Acceptance | Refusal | str | None

#: What ``accept`` or ``judge`` of an application may return.
Judgement = typing.Union[Choice, "Deferred[Choice]", "Coroutine[Deferred[Any], Any, Choice]"]


def judge_request(
    rules: RequestRules, request: Request, local: IAddress | None
) -> Acceptance | Refusal:
    """
    Judge a request by the rules of a server.

    :param local: the address of this end, as a transport returns it.
    """
    return rules.judge(request, is_loopback=serves_loopback(local))


def serves_loopback(local: IAddress | None) -> bool:
    """
    Return whether a request arrived on a loopback address of this machine.

    :param local: the address of this end, as a transport returns it; UNIX sockets have none.
    """
    host = host_of(local)
    return host is not None and is_loopback_host(host)


def apply_choice(choice: Choice, acceptance: Acceptance) -> Acceptance | Refusal:
    """
    Combine the decision of the application with that of the rules, which decide on compression.

    :raises ValueError: when the client does not offer the chosen subprotocol.
    :raises TypeError: when the decision has another type, such as ``bool``.
    """
    if isinstance(choice, Acceptance):
        return dataclasses.replace(choice, compression=acceptance.compression)
    if isinstance(choice, str):
        return dataclasses.replace(acceptance, subprotocol=choice)
    if choice is None:
        return acceptance
    refusal: object = choice  # An application without types may return anything.
    if isinstance(refusal, Refusal):
        return refusal
    name = type(refusal).__name__
    raise TypeError(f"a request is judged by None, str, Acceptance or Refusal, not {name}")
