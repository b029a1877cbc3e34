"""
Requests at their times, and whatever comes back: texts → **datagrams, answers** → screen.

Driven by `twsock.cli.datagram_echo`, which opens the way; what belongs to what is decided by
`twsock.cli.datagram_score`. In memory is one message, and what the score holds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred

from twsock.cli.arguments import EchoArguments
from twsock.cli.datagram_score import AnswerKind, DatagramScore
from twsock.cli.datagram_way import Way
from twsock.cli.failure import CommandError
from twsock.cli.screen import Screen
from twsock.cli.texts import Texts

__all__ = ["DatagramExchange"]


class DatagramExchange:
    """
    Sends every message as often as was asked for, and awaits the answers.

    :param score: counts; it belongs to the exchange.
    :param now: the time, in seconds; the delays are the reactor's.
    :param is_group: whether several may answer.
    :param is_single: whether there is one request in all, of which nobody needs figures.
    :ivar hurries: whether the interval may be kept from the first request on, and not only when it
        was answered or has timed out.
    """

    def __init__(
        self,
        reactor: Any,
        arguments: EchoArguments,
        screen: Screen,
        score: DatagramScore,
        now: Callable[[], float],
        *,
        is_group: bool = False,
        is_single: bool = False,
    ) -> None:
        self.score = score
        self.hurries = True
        self._reactor = reactor
        self._arguments = arguments
        self._screen = screen
        self._now = now
        self._is_group = is_group
        self._is_single = is_single
        self._failure: CommandError | None = None
        # Whether the reactor had a turn since the last request; before the first it has.
        self._has_waited = True
        # Ends the wait that is under way, if there is one: always, or only for a failure.
        self._wake: Callable[[], object] | None = None
        self._disturb: Callable[[], object] | None = None

    async def run(self, way: Way, texts: Texts) -> None:
        """
        Send and await all.

        :raises CommandError: when it cannot go on. What was lost is in the score.
        """
        repeats = self._arguments.repeats
        score = self.score
        next_send = self._now()
        while (text := await self._next_text(way, texts)) is not None:
            for _ in range(repeats):
                await self._until(partial(self._may_send, way), next_send)
                if not self._has_waited:
                    # However short the interval is, answers are read, and Ctrl-C is heard.
                    await self._something([0.0])
                self._has_waited = False
                next_send = self._now() + self._arguments.interval
                score.send(text, self._now())
                way.send(text)
                self._screen.show_request(text)
        await self._until(lambda _: not (score.awaited if self._is_group else score.unanswered))
        if not (self._is_single or self._is_group):
            # A duplicate of the last answer takes no longer than an answer.
            end = self._now() + score.longest_round_trip
            await self._until(lambda due: due, end)

    # Called by the way.

    def received(self, message: bytes, responder: str, *, is_certain: bool = True) -> None:
        """
        Take a datagram that came back.

        :param responder: who sent it; empty for the only peer.
        :param is_certain: whether it is meant for us, and not for others of a group, too.
        """
        now = self._now()
        score = self.score
        try:
            self._expire(now)
            if not (is_certain or score.was_sent(message)):
                return
            answered = score.answered
            answer = score.receive(message, responder, now)
            if answer is not None:
                self._show(answer.kind, message, responder)
            if score.answered > answered:
                self._screen.advance()
        except CommandError as error:
            self.fail(error)
        else:
            self.tell()

    def fail(self, error: CommandError) -> None:
        """End the exchange with an error."""
        self._failure = self._failure or error
        disturb, self._disturb = self._disturb, None
        if disturb is not None:
            disturb()
        self.tell()

    def tell(self) -> None:
        """Look again whether what is waited for has happened."""
        wake, self._wake = self._wake, None
        if wake is not None:
            wake()

    # Waiting.

    async def _next_text(self, way: Way, texts: Texts) -> bytes | None:
        # Not while an answer is awaited: an input that cannot be read ends it all.
        await self._until(lambda _: self._may_send(way, True))
        text: bytes | None = await self._undisturbed(texts.next_text)
        return text

    def _may_send(self, way: Way, is_due: bool) -> bool:
        if way.is_full or self.score.is_full:
            return False
        if self._arguments.interval and (self.hurries or self.score.lost):
            return is_due
        return is_due and not self.score.unanswered

    async def _until(self, is_over: Callable[[bool], bool], due: float | None = None) -> None:
        """
        Wait for something to happen.

        :param is_over: tells whether it has, given whether the time has come.
        """
        while True:
            self._check()
            now = self._now()
            self._expire(now)
            is_due = due is None or due <= now
            if is_over(is_due):
                return
            times = [self.score.next_deadline(), None if is_due else due]
            await self._something([time - now for time in times if time is not None])

    async def _something(self, delays: list[float]) -> None:
        something: Deferred[None] = Deferred()
        self._wake = lambda: something.callback(None)
        self._has_waited = True
        call = self._reactor.callLater(max(0.0, min(delays)), self.tell) if delays else None
        try:
            await something
        finally:
            self._wake = None
            if call is not None and call.active():
                call.cancel()

    async def _undisturbed(self, start: Callable[[], Any]) -> Any:
        """Wait for something else than answers, which are counted meanwhile."""
        self._check()
        waiting = ensureDeferred(start())
        self._disturb = waiting.cancel
        try:
            return await waiting
        except CancelledError:
            self._check()
            raise
        finally:
            self._disturb = None

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    # Telling.

    def _expire(self, now: float) -> None:
        who = "nobody answered" if self._is_group else "nothing came back for"
        for number in self.score.expire(now):
            # Of a single one the error says it.
            if not self._is_single:
                timeout = self._arguments.timeout
                self._screen.say(f"{who} request {number} within {timeout:g} s")
            self._screen.advance()

    def _show(self, kind: AnswerKind, message: bytes, responder: str) -> None:
        who = f"{responder} answered" if responder else "client received the response"
        if kind is AnswerKind.ANSWER:
            self._screen.show_response(message, who)
        elif kind is AnswerKind.LATE:
            self._screen.show_response(message, f"{who} late")
        elif kind is AnswerKind.DUPLICATE:
            self._screen.say(f"{who} once more: {self._screen.quote(message)}")
        elif responder:
            self._screen.say(f"{len(message)} bytes came back from {responder} that were not sent")
        else:
            self._screen.show_response(message, who)
            raise CommandError(f"{len(message)} bytes came back that were not sent")
