"""What all conversations of messages have in common, whatever carries them."""

from __future__ import annotations

import io
from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from typing_extensions import override

from twsock.cli.arguments import EchoArguments
from twsock.cli.conversation import Conversation, report_echoes, run_to_end
from twsock.cli.output import CommandError, Output, RoundTrips
from twsock.cli.texts import ListedTexts


class Connection:
    """A connection that notes what is done to it."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.lost: Deferred[None] = Deferred()

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")

    def wait_closed(self) -> Deferred[None]:
        waiting: Deferred[None] = Deferred()
        self.lost.addCallback(lambda _: None if waiting.called else waiting.callback(None))
        return waiting


class Played(Conversation):
    """A conversation whose server is a list of answers."""

    def __init__(self, *answers: bytes | None, held: bytes | None = None, **given: Any) -> None:
        self.clock = Clock()
        self.written = io.BytesIO()
        self.requests: list[bytes] = []
        self.answers = list(answers)
        self.held = held
        arguments = EchoArguments(endpoint="tcp:h:1", **given)
        super().__init__(self.clock, arguments, Output(self.written), RoundTrips())

    @override
    def send(self, message: bytes) -> None:
        self.requests.append(message)

    @override
    async def receive(self) -> bytes | None:
        if not self.answers:
            await Deferred()
        return self.answers.pop(0)

    @override
    async def pull(self) -> bytes | None:
        return self.held

    def start(self, *texts: bytes) -> Deferred[None]:
        """Send texts."""
        listed = ListedTexts(len(texts), texts)
        return Deferred.fromCoroutine(self.run(listed, self.clock.seconds))


class ConversationTests(SynchronousTestCase):
    """Each request has one answer, equal to it."""

    def test_equal_answers_are_counted(self) -> None:
        """One after the other, each as often as the count says."""
        played = Played(b"a", b"a", b"b", b"b", count=2)
        self.successResultOf(played.start(b"a", b"b"))
        self.assertEqual(played.requests, [b"a", b"a", b"b", b"b"])
        self.assertEqual(played.round_trips.count, 4)

    def test_anything_else_is_one_line(self) -> None:
        """Another answer, the end, and a second answer."""
        for played, line in (
            (Played(b"ab"), "the response differs from the request: sent 1 bytes, received 2"),
            (Played(None), "the server closed the connection before it answered"),
            (Played(b"a", held=b"xy"), "the server sent a message of 2 bytes that was not"),
        ):
            error = self.failureResultOf(played.start(b"a"), CommandError).value
            self.assertTrue(error.line.startswith(line), error.line)

    def test_an_answer_is_awaited_until_the_timeout(self) -> None:
        """In seconds of the reactor."""
        played = Played(timeout=3.0)
        done = played.start(b"a")
        played.clock.advance(2.9)
        self.assertNoResult(done)
        played.clock.advance(0.2)
        self.assertEqual(
            self.failureResultOf(done, CommandError).value.line,
            "no answer within 3 s: ConnectionTimedOut (3): the server sent nothing",
        )


class EndTests(SynchronousTestCase):
    """A connection ends with its conversation."""

    def run_it(
        self, conversing: Coroutine[Any, Any, None], *, closes_after_errors: bool = False
    ) -> Deferred[None]:
        self.clock, self.connection = Clock(), Connection()
        close = self.connection.close
        fail = close if closes_after_errors else None
        ending = run_to_end(self.clock, self.connection, conversing, close, fail)
        return Deferred.fromCoroutine(ending)

    def test_a_finished_conversation_closes_it(self) -> None:
        """The command waits for its loss."""

        async def converse() -> None:
            pass

        done = self.run_it(converse())
        self.assertEqual(self.connection.calls, ["close"])
        self.assertNoResult(done)
        self.connection.lost.callback(None)
        self.successResultOf(done)

    def test_an_error_aborts_it(self) -> None:
        """The error is raised."""

        async def converse() -> None:
            raise CommandError("no")

        self.failureResultOf(self.run_it(converse()), CommandError)
        self.assertEqual(self.connection.calls, ["abort"])

    def test_an_error_may_close_it_in_a_hurry(self) -> None:
        """Only an error of the conversation; a bug aborts it."""

        async def converse(error: Exception) -> None:
            raise error

        done = self.run_it(converse(CommandError("no")), closes_after_errors=True)
        self.assertEqual(self.connection.calls, ["close"])
        self.assertNoResult(done)
        self.clock.advance(0.5)
        self.assertEqual(self.connection.calls, ["close", "abort"])
        self.failureResultOf(done, CommandError)
        done = self.run_it(converse(RuntimeError()), closes_after_errors=True)
        self.assertEqual(self.connection.calls, ["abort"])
        self.failureResultOf(done, RuntimeError)

    def test_cancelling_closes_it_in_a_hurry(self) -> None:
        """A server that does not answer within half a second loses it."""

        async def converse() -> None:
            await Deferred()

        done = self.run_it(converse())
        done.cancel()
        self.assertEqual(self.connection.calls, ["close"])
        self.clock.advance(0.5)
        self.assertEqual(self.connection.calls, ["close", "abort"])
        self.failureResultOf(done, CancelledError)


class ReportTests(SynchronousTestCase):
    """The first line and the last ones."""

    def report(self, converse: Any, **given: Any) -> tuple[Deferred[None], io.BytesIO]:
        written, round_trips = io.BytesIO(), RoundTrips()
        round_trips.add(0.001)
        arguments = EchoArguments(endpoint="tcp:h:1", **given)
        reporting = report_echoes(arguments, Output(written), round_trips, converse)
        return Deferred.fromCoroutine(reporting), written

    def test_a_count_has_figures_at_the_end(self) -> None:
        """Also if it is cancelled."""

        async def converse() -> None:
            pass

        async def wait() -> None:
            await Deferred()

        figures = "1 echo, round trip min/median/max 1.00/1.00/1.00 ms"
        done, written = self.report(converse, count=2)
        self.successResultOf(done)
        self.assertEqual(
            written.getvalue().decode().splitlines(),
            ["client is trying to connect...", "client closed its socket", figures],
        )
        done, written = self.report(wait, count=2)
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.assertEqual(written.getvalue().decode().splitlines()[1:], [figures])
