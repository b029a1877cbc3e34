"""
Which answer belongs to which request: datagrams and times → **kinds of answers, figures**.

No I/O and no clock: fed by `twsock.cli.datagram_exchange`, which shows what comes out of it.

Datagrams may get lost, come twice, or overtake each other, and nothing in them says which is which
but their bytes. So an answer belongs to the oldest request with the same bytes that this responder
has not answered and that is still awaited; where there is none, to one that has timed out: such an
answer is late. Where it has answered all of them, it is a duplicate. With bytes that are all
different, as those of `twsock.cli.made_texts`, this is exact; with equal ones the sums are.

Held are the requests that are awaited, at most `MAX_AWAITED`, and digests of the bytes sent, at
most `MAX_REMEMBERED`; of what was sent before those, nothing is known any more.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque
from dataclasses import dataclass
from enum import Enum
from typing import Final

from twsock.cli.round_trips import RoundTrips

__all__ = [
    "MAX_AWAITED",
    "MAX_REMEMBERED",
    "MAX_RESPONDERS",
    "AnswerKind",
    "DatagramScore",
    "ResponderScore",
    "Verdict",
]

#: How many requests may be awaited at a time: a second of what this command can send to a group.
MAX_AWAITED: Final = 8_192

#: How many different requests are known, with those that were answered or have timed out, for
#: duplicates and late answers: some 20 MiB, and 2 more for each responder.
MAX_REMEMBERED: Final = 2 * MAX_AWAITED

#: How many responders of a group are told apart: anybody may answer, from any port.
MAX_RESPONDERS: Final = 64

#: Times kept for each responder: 32 MiB for all of them.
_MAX_SAMPLES: Final = 65_536

#: Bytes up to which a message is its own digest.
_DIGEST_SIZE: Final = 32


class AnswerKind(Enum):
    """What a datagram that came back is."""

    #: It belongs to a request that was awaited.
    ANSWER = "answer"
    #: It belongs to a request that had timed out.
    LATE = "late"
    #: Its request was answered already.
    DUPLICATE = "duplicate"
    #: Nothing with these bytes was sent, or too long ago.
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    What is thought of a datagram that came back.

    :ivar number: that of its request, from 1; 0 where that is not known.
    """

    kind: AnswerKind
    number: int = 0


class ResponderScore:
    """
    What one responder did.

    :ivar answered: requests answered in time.
    :ivar late: requests answered after they had timed out.
    :ivar duplicates: answers to what was answered already.
    :ivar reordered: answers in time to requests older than the newest that was answered, as
        :rfc:`4737` section 3 counts them.
    :ivar foreign: datagrams that equal nothing that was sent.
    """

    __slots__ = (
        "_newest",
        "answered",
        "duplicates",
        "foreign",
        "late",
        "reordered",
        "round_trips",
    )

    def __init__(self) -> None:
        self.answered = 0
        self.late = 0
        self.duplicates = 0
        self.reordered = 0
        self.foreign = 0
        self.round_trips = RoundTrips(_MAX_SAMPLES)
        self._newest = 0

    def add_answer(self, number: int, round_trip: float) -> None:
        """Count an answer in time."""
        self.answered += 1
        self.round_trips.add(round_trip)
        if number < self._newest:
            self.reordered += 1
        else:
            self._newest = number


class _Request:
    """One datagram that is awaited."""

    __slots__ = ("digest", "is_answered", "number", "sent_at")

    def __init__(self, number: int, digest: bytes, sent_at: float) -> None:
        self.number = number
        self.digest = digest
        self.sent_at = sent_at
        self.is_answered = False


class _Turn:
    """
    How far a responder is with requests of the same bytes.

    :ivar position: of the next one that it may answer in time.
    :ivar owed: how many before that one it has not answered.
    :ivar late: how many it answered late.
    """

    __slots__ = ("late", "owed", "position")

    def __init__(self) -> None:
        self.position = 0
        self.owed = 0
        self.late = 0


class _Sent:
    """
    Requests of the same bytes, in the order in which they were sent.

    :ivar retired: how many are not awaited any more; they are the oldest.
    :ivar unanswered: how many of those nobody answered in time.
    :ivar rescued: how many of those were answered late.
    """

    __slots__ = ("awaited", "rescued", "retired", "turns", "unanswered")

    def __init__(self) -> None:
        self.awaited: deque[_Request] = deque()
        self.retired = 0
        self.unanswered = 0
        self.rescued = 0
        self.turns: dict[str, _Turn] = {}


class DatagramScore:
    """
    Counts requests and answers.

    :param timeout: seconds for which an answer is awaited.
    :param is_group: whether a request may have several responders. It is awaited for the whole
        timeout then, otherwise until it is answered.

    :ivar sent: requests so far; the number of the newest.
    :ivar answered: those that somebody answered in time.
    :ivar late: those that were answered, but by nobody in time.
    :ivar unanswered: those that are still awaited, and nobody has answered.
    :ivar responders: by the names they were given to `receive` with.
    """

    def __init__(self, timeout: float, *, is_group: bool = False) -> None:
        self.sent = 0
        self.answered = 0
        self.late = 0
        self.unanswered = 0
        self.responders: dict[str, ResponderScore] = {}
        self._timeout = timeout
        self._is_group = is_group
        # By number, the oldest first.
        self._awaited: OrderedDict[int, _Request] = OrderedDict()
        # By digest, the one that was sent least recently first.
        self._sent: OrderedDict[bytes, _Sent] = OrderedDict()

    @property
    def awaited(self) -> int:
        """How many requests may still be answered in time."""
        return len(self._awaited)

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be sent now."""
        return len(self._awaited) >= MAX_AWAITED

    @property
    def lost(self) -> int:
        """How many requests nobody answered, in time or late, of those not awaited any more."""
        return self.sent - self.answered - self.late - self.unanswered

    @property
    def missing(self) -> int:
        """How many requests the worst of those who answered any did not; all where none did."""
        heard = (one.answered + one.late for one in self.responders.values())
        return self.sent - min(filter(None, heard), default=0)

    @property
    def duplicates(self) -> int:
        """The sum of all responders."""
        return sum(one.duplicates for one in self.responders.values())

    @property
    def reordered(self) -> int:
        """The sum of all responders."""
        return sum(one.reordered for one in self.responders.values())

    @property
    def foreign(self) -> int:
        """The sum of all responders."""
        return sum(one.foreign for one in self.responders.values())

    @property
    def longest_round_trip(self) -> float:
        """Seconds; 0 where nothing was answered."""
        return max((one.round_trips.longest for one in self.responders.values()), default=0.0)

    def next_deadline(self) -> float | None:
        """Tell when `expire` has something to do; None where nothing is awaited."""
        first = next(iter(self._awaited.values()), None)
        return None if first is None else first.sent_at + self._timeout

    def was_sent(self, message: bytes) -> bool:
        """Tell whether a request had these bytes, not too long ago."""
        return _digest(message) in self._sent

    def send(self, message: bytes, now: float) -> int:
        """
        Count a request. Ask `is_full` before.

        :returns: its number, from 1.
        """
        self.sent += 1
        self.unanswered += 1
        request = _Request(self.sent, _digest(message), now)
        self._awaited[self.sent] = request
        sent = self._sent.get(request.digest)
        if sent is None:
            sent = self._sent[request.digest] = _Sent()
        else:
            self._sent.move_to_end(request.digest)
        sent.awaited.append(request)
        self._forget()
        return self.sent

    def send_again(self, now: float) -> None:
        """Note that what is awaited was sent once more, since nobody can have got it before."""
        for request in self._awaited.values():
            request.sent_at = now

    def receive(self, message: bytes, responder: str, now: float) -> Verdict | None:
        """
        Count a datagram that came back.

        :param responder: who sent it; of a single peer, always the same.
        :returns: None when there are too many responders to count another one.
        """
        self.expire(now)
        score = self.responders.get(responder)
        if score is None:
            if len(self.responders) >= MAX_RESPONDERS:
                return None
            score = self.responders[responder] = ResponderScore()
        sent = self._sent.get(_digest(message))
        if sent is None:
            score.foreign += 1
            return Verdict(AnswerKind.FOREIGN)
        turn = sent.turns.get(responder)
        if turn is None:
            turn = sent.turns[responder] = _Turn()
        total = sent.retired + len(sent.awaited)
        position = max(turn.position, sent.retired)
        turn.owed += position - turn.position
        turn.position = position
        if position < total:
            turn.position += 1
            return self._answer(sent, sent.awaited[position - sent.retired], score, now)
        if turn.owed:
            turn.owed -= 1
            return self._answer_late(sent, turn, score)
        score.duplicates += 1
        return Verdict(AnswerKind.DUPLICATE)

    def expire(self, now: float) -> list[int]:
        """
        Give up what was awaited for long enough.

        :returns: the numbers of those that nobody answered.
        """
        lost = []
        while (deadline := self.next_deadline()) is not None and deadline <= now:
            _, request = self._awaited.popitem(last=False)
            sent = self._sent[request.digest]
            sent.awaited.popleft()
            sent.retired += 1
            if not request.is_answered:
                sent.unanswered += 1
                self.unanswered -= 1
                lost.append(request.number)
        return lost

    def _answer(self, sent: _Sent, request: _Request, score: ResponderScore, now: float) -> Verdict:
        score.add_answer(request.number, now - request.sent_at)
        if not request.is_answered:
            request.is_answered = True
            self.answered += 1
            self.unanswered -= 1
        if not self._is_group:
            # The oldest with these bytes, as there is nobody else who could have been faster.
            sent.awaited.popleft()
            sent.retired += 1
            del self._awaited[request.number]
        return Verdict(AnswerKind.ANSWER, request.number)

    def _answer_late(self, sent: _Sent, turn: _Turn, score: ResponderScore) -> Verdict:
        score.late += 1
        turn.late += 1
        # Several may be late with the same request.
        if sent.rescued < min(turn.late, sent.unanswered):
            sent.rescued += 1
            self.late += 1
        return Verdict(AnswerKind.LATE)

    def _forget(self) -> None:
        # Ends, as at most half of them are awaited.
        while len(self._sent) > MAX_REMEMBERED:
            digest, oldest = next(iter(self._sent.items()))
            if oldest.awaited:
                self._sent.move_to_end(digest)
            else:
                del self._sent[digest]


def _digest(message: bytes) -> bytes:
    if len(message) < _DIGEST_SIZE:
        return message
    return hashlib.blake2b(message, digest_size=_DIGEST_SIZE).digest()
