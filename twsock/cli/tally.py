"""
Answers of an echo of datagrams: requests, answers → **tally** → counts.

Fed by `twsock.cli.datagram`. In memory are the times of requests that may still be answered, and
digests of at most `MAX_REMEMBERED` messages.
"""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from twsock.cli.output import Responder

__all__ = ["MAX_REMEMBERED", "MAX_RESPONDERS", "Tally"]

#: How many different messages are known, for duplicates and for answers after the timeout.
MAX_REMEMBERED: Final = 16_384

#: How many responders of a group are told apart: anybody may answer, from any port.
MAX_RESPONDERS: Final = 64

#: How many times of equal messages are kept; bytes up to which a message is its own digest.
_MAX_TIMES: Final = 65_536
_DIGEST_SIZE: Final = 32


@dataclass
class _Copies:
    """Requests with the same bytes."""

    sent: int = 0
    # When the newest of them were sent.
    times: deque[float] = field(default_factory=lambda: deque(maxlen=_MAX_TIMES))
    # How many of them each responder has answered, or missed.
    answered: dict[str, int] = field(default_factory=dict)


class Tally:
    """
    Which answer belongs to which request, by the bytes of both.

    With different bytes, as generated datagrams have, all counts are exact. Of equal requests, an
    answer belongs to the oldest that this responder has not answered; those whose timeout is over
    are passed over, unless there is no other. There a duplicate can hide a loss.

    :ivar sent: how many requests were sent.
    :ivar answered: how many of them anybody has answered.
    :ivar unexpected: datagrams that equal no request.
    :ivar responders: by name; at most `MAX_RESPONDERS`.
    :ivar others: all further responders together, as if they were one.
    """

    def __init__(self, timeout: float) -> None:
        self.sent = 0
        self.answered = 0
        self.unexpected = 0
        self.responders: dict[str, Responder] = {}
        self.others = Responder()
        self._timeout = timeout
        # By digest, the one that was sent least recently first.
        self._copies: dict[bytes, _Copies] = {}

    def send(self, message: bytes, now: float) -> None:
        """Count a request."""
        self.sent += 1
        key = _digest(message)
        copies = self._copies[key] = self._copies.pop(key, _Copies())
        copies.sent += 1
        copies.times.append(now)
        if len(self._copies) > MAX_REMEMBERED:
            del self._copies[next(iter(self._copies))]

    def was_sent(self, message: bytes) -> bool:
        """Return whether a request had these bytes, not too long ago."""
        return _digest(message) in self._copies

    def receive(self, message: bytes, name: str, now: float) -> str:
        """
        Count a datagram that arrived.

        :param name: its sender.
        :returns: ``answer``, ``duplicate`` or ``unexpected``; empty for one of the `others`.
        """
        copies = self._copies.get(_digest(message))
        if copies is None:
            self.unexpected += 1
            return "unexpected"
        is_listed = name in self.responders or len(self.responders) < MAX_RESPONDERS
        if is_listed:
            responder = self.responders.setdefault(name, Responder())
        else:
            # Counted together: a request that only one of them has answered is not lost.
            name, responder = "", self.others
        oldest = copies.sent - len(copies.times)
        position = max(oldest, copies.answered.get(name, 0))
        if position == copies.sent:
            responder.duplicates += 1
            return "duplicate" if is_listed else ""
        deadline = now - self._timeout
        while position + 1 < copies.sent and copies.times[position - oldest] < deadline:
            position += 1
        self.answered += position >= max(copies.answered.values(), default=0)
        copies.answered[name] = position + 1
        responder.received += 1
        responder.round_trips.add(now - copies.times[position - oldest])
        return "answer" if is_listed else ""


def _digest(message: bytes) -> bytes:
    if len(message) < _DIGEST_SIZE:
        return message
    return hashlib.blake2b(message, digest_size=_DIGEST_SIZE).digest()
