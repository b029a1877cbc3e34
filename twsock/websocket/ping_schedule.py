"""
Calls many WebSockets at their times: clock → **ping schedule** → `twsock.websocket.connection`.

A factory makes one schedule for all its connections. The schedule holds one delayed call, and the
WebSockets that wait. A delayed call for each connection would take more memory than the rest of an
idle WebSocket. A ping interval is divided into 16 rounds. The schedule calls a WebSocket at the end
of the round in which the time of its next ping lies.
"""

from __future__ import annotations

import math
import typing
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from twsock.log import TextLogger

__all__ = ["PingSchedule", "Sleeper"]

#: Rounds in a ping interval: a ping is late by a sixteenth of the interval at most.
_ROUNDS: Final = 16


class Sleeper(typing.Protocol):
    """An object that a schedule calls, such as `twsock.websocket.connection.WebSocket`."""

    def wake(self) -> None:
        """Do what is due. To be called again, call `PingSchedule.add`."""


class PingSchedule:
    """
    Calls each sleeper once, at its time or up to a sixteenth of the interval later.

    :param clock: measures the times.
    :param interval: the ping interval, in seconds; above 0.
    """

    __slots__ = ("_call", "_clock", "_length", "_next", "_past", "_rounds")

    _log = TextLogger()

    def __init__(self, clock: IReactorTime, interval: float) -> None:
        self._clock = clock
        self._length = interval / _ROUNDS
        # The number of a round → the sleepers that wait for its end.
        self._rounds: dict[int, set[Sleeper]] = {}
        self._call: IDelayedCall | None = None
        # The round that `_call` waits for.
        self._next = 0
        # The last round that has ended.
        self._past = -1

    def add(self, sleeper: Sleeper, at: float) -> int:
        """
        Call a sleeper once.

        :param at: the time, in seconds on the clock.
        :returns: the number of the round, for `remove`.
        """
        number = max(math.ceil(at / self._length), self._past + 1)
        self._rounds.setdefault(number, set()).add(sleeper)
        if self._call is None or number < self._next:
            self._wait_for(number)
        return number

    def remove(self, sleeper: Sleeper, number: int) -> None:
        """Remove a sleeper, which then is not called."""
        sleepers = self._rounds.get(number)
        if sleepers is None:
            return  # The round has ended: its sleepers are being called.
        sleepers.discard(sleeper)
        if not sleepers:
            del self._rounds[number]
        if not self._rounds and self._call is not None:
            self._call.cancel()
            self._call = None

    def _wait_for(self, number: int) -> None:
        if self._call is not None:
            self._call.cancel()
        self._next = number
        delay = max(0.0, number * self._length - self._clock.seconds())
        self._call = self._clock.callLater(delay, self._end_round)

    def _end_round(self) -> None:
        self._call = None
        # If the process was stopped, the rounds that it missed end together.
        self._past = max(self._next, math.floor(self._clock.seconds() / self._length))
        for number in sorted(number for number in self._rounds if number <= self._past):
            # A sleeper that was called may have removed the round.
            for sleeper in self._rounds.pop(number, ()):
                try:
                    sleeper.wake()
                except Exception:  # noqa: BLE001 - logged; the others are called, too
                    self._log.failure("a WebSocket could not be pinged")
        if self._rounds and self._call is None:
            self._wait_for(min(self._rounds))
