"""
One conversation of messages: **request, response, request, …**, on any kind of connection.

The base of `twsock.cli.stream` and `twsock.cli.websocket`, which connect, send and receive.
Messages go one after the other, so in memory are one message on its way out and one on its way
back.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Coroutine
from typing import Any, Final

from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from twsock.cli.arguments import EchoArguments
from twsock.cli.output import CommandError, Output, RoundTrips, no_answer
from twsock.cli.resolver import first_of
from twsock.cli.texts import Texts

__all__ = ["Conversation", "report_echoes", "run_to_end"]

#: How long a connection may take to end in order after Ctrl-C or an error, in seconds.
_HURRIED_CLOSE: Final = 0.5


class Closable(typing.Protocol):
    """A connection that can be closed."""

    def wait_closed(self) -> Deferred[None]:
        """Wait until it is lost. Cancelling ends the wait only."""

    def abort(self) -> object:
        """End it now."""


class Conversation:
    """Requests and responses on one connection."""

    def __init__(
        self, reactor: Any, arguments: EchoArguments, output: Output, round_trips: RoundTrips
    ) -> None:
        self.reactor = reactor
        self.arguments = arguments
        self.output = output
        self.round_trips = round_trips

    # Implemented by the subclasses.

    def send(self, message: bytes) -> None:
        """Send a message. If the connection has just ended, `receive` reports it."""
        raise NotImplementedError

    def find_hint(self) -> str:
        """Return what is probably wrong before the first answer, as the end of a line."""
        return ""

    def describe_silence(self) -> str:
        """Return what the server sent instead of an answer."""
        return "the server sent nothing"

    async def receive(self) -> bytes | None:
        """
        Wait for a message; None when the server has ended. Cancelling loses no message.

        :raises CommandError: when the connection failed, or the message cannot be read.
        """
        raise NotImplementedError

    async def pull(self) -> bytes | None:
        """
        Return a message that was received together with the last one; None if there is none.

        :raises CommandError: when it cannot be read.
        """
        raise NotImplementedError

    # Called by the command.

    async def run(self, texts: Texts, now: Callable[[], float]) -> None:
        """Send all texts, each after the answer to the last."""
        due = 0.0
        while (text := await self._next_text(texts)) is not None:
            for _ in range(self.arguments.repeats):
                if (wait := due - self.reactor.seconds()) > 0:
                    await self._undisturbed(deferLater(self.reactor, wait))
                due = self.reactor.seconds() + self.arguments.interval
                await self._echo(text, now)

    async def _echo(self, text: bytes, now: Callable[[], float]) -> None:
        """Send one message, and compare the response."""
        sent_at = now()
        self.send(text)
        self.output.show_request(text)
        response = await self._answer()
        round_trip = now() - sent_at
        self.output.show_response(response)
        if response != text:
            raise CommandError(_describe_difference(text, response) + self.find_hint())
        self.round_trips.add(round_trip)
        # A second response in the same piece is noticed before the next request is sent.
        if (unasked := await self.pull()) is not None:
            raise _describe_unasked(unasked)
        self.output.advance()

    async def _answer(self) -> bytes:
        timeout = self.arguments.timeout
        answering = Deferred.fromCoroutine(self.receive())
        answering.addTimeout(timeout, self.reactor)
        try:
            response = await answering
        except defer.TimeoutError:
            late = no_answer(self.describe_silence()) + self.find_hint()
            raise CommandError(f"no answer within {timeout:g} s: {late}") from None
        if response is None:
            hint = self.find_hint()
            raise CommandError(f"the server closed the connection before it answered{hint}")
        return response

    async def _next_text(self, texts: Texts) -> bytes | None:
        waiting = Deferred.fromCoroutine(texts.next_text())
        text = await (waiting if waiting.called else self._undisturbed(waiting))
        assert text is None or isinstance(text, bytes)
        return text

    async def _undisturbed(self, waiting: Deferred[Any]) -> Any:
        """
        Wait for something else than the server, which has nothing to send now.

        :raises CommandError: as soon as the server sends something, or ends the connection.
        """
        position, result = await first_of(waiting, Deferred.fromCoroutine(self.receive()))
        if position == 0:
            return result
        if result is None:
            raise CommandError("the server ended the connection")
        raise _describe_unasked(result)


async def report_echoes(
    arguments: EchoArguments,
    output: Output,
    round_trips: RoundTrips,
    converse: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    """
    Connect and converse, and print the first line and the last ones of the conversation.

    Cancelling prints the figures so far, once the connection is closed.

    :raises CommandError: when anything else than each message came back.
    """
    output.say("client is trying to connect...")
    try:
        await converse()
    except CancelledError:
        output.erase_bar()
        if arguments.count > 1 or round_trips.count > 1:
            output.say(_describe_echoes(round_trips))
        raise
    finally:
        output.erase_bar()
    output.say("client closed its socket")
    if arguments.count > 1:
        output.say(_describe_echoes(round_trips))


async def run_to_end(
    reactor: Any,
    connection: Closable,
    conversing: Coroutine[Any, Any, None],
    close: Callable[[], object],
    fail: Callable[[], object] | None = None,
) -> None:
    """
    Converse, and close the connection.

    :param close: closes it in order; a second call has no effect.
    :param fail: closes it in order after a `CommandError`; None to abort it then.
    """
    try:
        await conversing
        close()
        await connection.wait_closed()
    except CancelledError:
        await _close_in_a_hurry(reactor, connection, close)
        raise
    except BaseException as error:
        if fail is not None and isinstance(error, CommandError):
            await _close_in_a_hurry(reactor, connection, fail)
        else:
            connection.abort()
        raise


async def _close_in_a_hurry(
    reactor: Any, connection: Closable, close: Callable[[], object]
) -> None:
    close()
    try:
        await connection.wait_closed().addTimeout(_HURRIED_CLOSE, reactor)
    except defer.TimeoutError:
        connection.abort()
    except CancelledError:
        connection.abort()
        raise


def _describe_echoes(round_trips: RoundTrips) -> str:
    echoes = "1 echo" if round_trips.count == 1 else f"{round_trips.count} echoes"
    return ", ".join(filter(None, (echoes, round_trips.summary)))


def _describe_unasked(message: bytes) -> CommandError:
    return CommandError(f"the server sent a message of {len(message)} bytes that was not requested")


def _describe_difference(request: bytes, response: bytes) -> str:
    sizes = f"sent {len(request)} bytes, received {len(response)} bytes"
    pairs = enumerate(zip(request, response, strict=False), 1)
    position = next((number for number, (a, b) in pairs if a != b), None)
    where = "" if position is None else f", first difference at byte {position}"
    return f"the response differs from the request: {sizes}{where}"
