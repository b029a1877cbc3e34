"""
Answers of an echo of datagrams: requests, answers → **tally** → counts.

Called by `twsock.cli.datagram`. Holds the times of requests that may still be answered, and the
digests of at most `MAX_REMEMBERED` messages.
"""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from twsock.cli.output import Responder

__all__ = ["MAX_REMEMBERED", "MAX_RESPONDERS", "Tally"]

#: How many different messages are kept, to detect duplicates and answers after the timeout.
MAX_REMEMBERED: Final = 16_384

#: How many responders of a group are counted separately: any host may answer, from any port.
MAX_RESPONDERS: Final = 64

#: How many times of equal messages are kept.
_MAX_TIMES: Final = 65_536
#: The size of a digest, in bytes. A shorter message is its own digest.
_DIGEST_SIZE: Final = 32


@dataclass
class _Copies:
    """Requests with the same bytes."""

    sent: int = 0
    # The times at which the newest of them were sent, in seconds.
    times: deque[float] = field(default_factory=lambda: deque(maxlen=_MAX_TIMES))
    # By responder, how many of them it has answered or missed.
    answered: dict[str, int] = field(default_factory=dict)


class Tally:
    """
    Finds the request of each answer by comparing bytes, and counts answers and losses.

    With different bytes, as generated datagrams have, all counts are exact. If requests are equal,
    an answer belongs to the oldest one that this responder has not answered. Requests whose timeout
    has passed are skipped, unless there is no other. A duplicate can then hide a loss.

    :param timeout: how long a request waits for answers, in seconds.

    :ivar sent: how many requests were sent.
    :ivar answered: how many requests at least one responder has answered.
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
        # By digest; the one sent least recently comes first.
        self._copies: dict[bytes, _Copies] = {}

    def send(self, message: bytes, now: float) -> None:
        """
        Count a request.

        :param now: the time, in seconds.
        """
        self.sent += 1
        key = _digest(message)
        copies = self._copies[key] = self._copies.pop(key, _Copies())
        copies.sent += 1
        copies.times.append(now)
        if len(self._copies) > MAX_REMEMBERED:
            del self._copies[next(iter(self._copies))]

    def was_sent(self, message: bytes) -> bool:
        """Return whether one of the last `MAX_REMEMBERED` different requests had these bytes."""
        return _digest(message) in self._copies

    def receive(self, message: bytes, name: str, now: float) -> str:
        """
        Count a datagram that arrived.

        :param name: the name of its sender.
        :param now: the time, in seconds.
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
            # All further responders count as one: a request that one of them answers is not lost.
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
