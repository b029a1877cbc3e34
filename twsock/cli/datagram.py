"""
Echo of datagrams: texts → **requests, answers** → figures; with one peer, or with a group.

Stands on `twsock.DatagramSocket`. `twsock.cli.tally` finds the request of each answer. Holds
one message, besides the tally.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Generic, TypeVar

from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred

from twsock.cli.arguments import EchoArguments
from twsock.cli.endpoints import GroupTarget, PeerTarget, check_size, name_address, parse_target
from twsock.cli.output import CommandError, Output, Responder, describe_lost, no_answer
from twsock.cli.resolver import first_of
from twsock.cli.tally import Tally
from twsock.cli.texts import Texts, find_texts, open_echo_output
from twsock.errors import SocketError, SocketErrorStatus
from twsock.sockets import DatagramSocket, DatagramSocketMessageReceivedEventArgs

__all__ = ["echo_datagrams", "prepare_datagrams"]

T = TypeVar("T", PeerTarget, GroupTarget)

#: A wait without a deadline, in seconds.
_FOREVER: Final = 1e9

_HEADERS: Final = ("responder", "received", "lost", "duplicates", "min ms", "median ms", "max ms")


def prepare_datagrams(
    reactor: Any, arguments: EchoArguments
) -> Callable[[], Coroutine[Any, Any, None]]:
    """
    Check all that can be checked before anything is sent.

    :returns: starts the run.
    :raises CommandError: with what is wrong.
    """
    target = parse_target(arguments.endpoint)
    texts = find_texts(reactor, arguments)
    output = open_echo_output(arguments, texts)
    return lambda: echo_datagrams(reactor, target, arguments, texts, output)


async def echo_datagrams(
    reactor: Any,
    target: PeerTarget | GroupTarget,
    arguments: EchoArguments,
    texts: Texts,
    output: Output,
    clock: Any = None,
    now: Callable[[], float] = time.perf_counter,
) -> None:
    """
    Send every message as often as the arguments say, count what comes back, and print figures.

    Cancelling closes the sockets at once, and prints the figures so far.

    :param clock: waits; None for the reactor.
    :param now: measures round trips and timeouts, in seconds.
    :raises CommandError: when something was lost, or arrived that was not sent.
    """
    kind: Any = _GroupRun if isinstance(target, GroupTarget) else _PeerRun
    is_single = texts.total == 1 and arguments.repeats == 1
    run = kind(reactor, target, arguments, texts, output, clock or reactor, now, is_single)
    await run.go()


@dataclass
class _Run(Generic[T]):
    """Requests at their times, and the answers to them."""

    reactor: Any
    target: T
    arguments: EchoArguments
    texts: Texts
    output: Output
    clock: Any
    now: Callable[[], float]
    # One request in all needs no figures.
    is_single: bool
    # Requests within their timeouts that nobody has answered yet; when the last was sent.
    awaited: int = 0
    sent_at: float = 0.0
    failure: CommandError | None = None
    news: Deferred[None] | None = None

    def __post_init__(self) -> None:
        self.tally = Tally(self.arguments.timeout)

    # What peers and groups do differently.

    is_group: ClassVar[bool] = False
    address = question = ""
    open: ClassVar[Callable[..., Coroutine[Any, Any, None]]]
    send: ClassVar[Callable[..., Coroutine[Any, Any, None]]]
    close: ClassVar[Callable[..., None]]
    describe_figures: ClassVar[Callable[..., None]]

    # The run.

    async def go(self) -> None:
        tally = self.tally
        try:
            await self.open()
            for text in self.arguments.texts:
                check_size(text, self.address)
            await self._converse()
        except (CancelledError, CommandError):
            if tally.sent > 1:
                self.describe_figures()
            raise
        finally:
            self.close()
            self.output.erase_bar()
        is_silent = tally.sent > 0 and not tally.responders
        if not (is_silent and self.is_single):
            self.output.say("client closed its socket")
        if not self.is_single or len(tally.responders) > 1:
            self.describe_figures()
        if line := self._describe_loss():
            raise CommandError(line)

    async def _converse(self) -> None:
        arguments = self.arguments
        due = self.now()
        while (message := await self._next_text()) is not None:
            for _ in range(arguments.repeats):
                await self.wait(due)
                due = self.now() + arguments.interval
                await self._request(message)
                if not arguments.interval:
                    await self._await_answers()
        # All members of a group may answer the last request.
        await self._await_answers(is_last=True)
        # A duplicate of the last answer takes no longer than an answer.
        trips = [one.round_trips.longest for one in self.tally.responders.values()]
        await self.wait(self.now() + (0.0 if self.is_single else max(trips, default=0.0)))

    async def _request(self, text: bytes) -> None:
        check_size(text, self.address)
        self.sent_at = self.now()
        self.awaited += 1
        self.tally.send(text, self.sent_at)
        self.output.show_request(text)
        await self.send(text)

    async def _await_answers(self, *, is_last: bool = False) -> None:
        """Wait for all answers, until the timeout."""
        timeout, is_all = self.arguments.timeout, is_last and self.is_group
        await self.wait(self.sent_at + timeout, lambda: not (self.awaited or is_all))
        if self.awaited and not self.is_single:
            self.output.say(f"no answer to {self.awaited} within {timeout:g} s")
        self.awaited = 0

    async def wait(self, due: float, is_over: Callable[[], bool] = lambda: False) -> None:
        """Wait until a time, an event or a failure, one turn of the reactor at least."""
        while self.failure is None and not is_over():
            left = max(0.0, due - self.now())
            self.news = Deferred()
            try:
                await self.news.addTimeout(left, self.clock)
            except defer.TimeoutError:
                pass
            finally:
                self.news = None
            if not left:
                break
        if self.failure is not None:
            raise self.failure

    async def _next_text(self) -> bytes | None:
        """Wait for a text; answers are counted meanwhile, and a failure ends the wait."""
        waiting = Deferred.fromCoroutine(self.texts.next_text())
        if waiting.called:
            return await waiting
        _, text = await first_of(waiting, Deferred.fromCoroutine(self.wait(_FOREVER)))
        return text  # type: ignore[no-any-return]

    def received(self, data: bytes, sender: str) -> None:
        """Count and show a datagram; the sender is empty for the only peer."""
        answered = self.tally.answered
        answer = self.tally.receive(data, sender, self.now())
        if self.tally.answered > answered and self.awaited:
            self.awaited -= 1
            self.output.advance()
        try:
            self._show(answer, data, sender)
        except CommandError as error:
            self.fail(error)
        self.wake()

    def fail(self, error: CommandError) -> None:
        """End the run with an error."""
        self.failure = self.failure or error
        self.wake()

    def wake(self) -> None:
        """Look again whether `wait` is over."""
        news, self.news = self.news, None
        if news is not None:
            news.callback(None)

    # What the user sees.

    @property
    def name(self) -> str:
        return name_address(self.address, self.target.port)

    def describe_error(self, error: SocketError) -> CommandError:
        """Return the error for a datagram that the system did not send: it is not lost."""
        return CommandError(f"cannot send to {self.name}: {error.summary}")

    def _show(self, answer: str, data: bytes, sender: str) -> None:
        who = f"{sender} answered" if sender else "client received the response"
        if answer == "answer":
            self.output.show_response(data, who)
        elif answer == "duplicate":
            self.output.say(f"{who} again: {self.output.quote(data)}")
        elif answer == "unexpected" and sender:
            self.output.say(f"{sender} returned {len(data)} bytes that this end did not send")
        elif answer == "unexpected":
            self.output.show_response(data, who)
            raise CommandError(f"received {len(data)} bytes that this end did not send")

    def _describe_loss(self) -> str:
        """Return one line about what was lost or was not sent by us; empty if all is well."""
        tally = self.tally
        if tally.sent and not tally.responders:
            line = no_answer(f"{self.name} sent nothing")
            return f"no answer within {self.arguments.timeout:g} s: {line}; {self.question}"
        if tally.unexpected:
            return f"received datagrams that this end did not send: {tally.unexpected}"
        for name, one in tally.responders.items():
            if lost := tally.sent - one.received:
                if name:
                    return f"{name} did not answer {lost} of {tally.sent} datagrams"
                return f"of {tally.sent} datagrams, {describe_lost(lost, tally.sent)}"
        return ""


class _PeerRun(_Run[PeerTarget]):
    """
    A connected socket to one peer, by one of its addresses.

    The kernel reports to a connected socket who refuses, and drops what others send. Which address
    is right shows only when something is sent: one that refuses is left for the next.
    """

    question = "is a server running there?"
    _socket: DatagramSocket | None = None
    _is_refused = False

    async def open(self) -> None:
        host, timeout = self.target.host, self.arguments.timeout
        looking = DatagramSocket.get_endpoint_pairs(self.reactor, host, self.target.port)
        try:
            # The addresses that are left to try.
            self._pairs = deque(await looking.addTimeout(timeout, self.reactor))
        except defer.TimeoutError:
            line = no_answer(f"no address of {host.display_name} within {timeout:g} s")
            raise CommandError(f"look-up failed: {line}") from None
        except SocketError as error:
            raise CommandError(f"look-up failed: {error.summary}") from error
        await self._connect()

    async def _connect(self) -> None:
        """Connect to the next address to which there is a way."""
        while True:
            self.close()
            pair = self._pairs.popleft()
            self.address = str(pair.remote_host_name)
            connecting = self._socket = DatagramSocket(self.reactor)
            connecting.message_received.add(self._take)
            try:
                await connecting.connect(pair)
                return
            except SocketError as error:
                if not self._pairs:
                    raise self.describe_error(error) from error

    async def send(self, text: bytes) -> None:
        await self._write(text)
        # While another address could do better, a request is tried out before the next.
        while self._pairs:
            timeout = self.sent_at + self.arguments.timeout
            await self.wait(timeout, lambda: self._is_refused or not self.awaited)
            if not self._is_refused:
                self._pairs.clear()
                return
            self._is_refused = False
            await self._connect()
            self.sent_at = self.now()
            await self._write(text)

    async def _write(self, text: bytes) -> None:
        assert self._socket is not None
        try:
            await self._socket.output_stream.write(text)
        except SocketError as error:
            self._failed(error)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def describe_figures(self) -> None:
        one = self.tally.responders.get("") or Responder()
        self.output.say(f"{self.tally.sent} sent, {one.describe(self.tally.sent, self.awaited)}")

    def _take(self, source: DatagramSocket, message: _Message) -> None:
        if source is not self._socket:
            return
        if message.error is not None:
            self._failed(message.error)
        else:
            self.received(message.data, "")

    def _failed(self, error: SocketError) -> None:
        if error.status is not SocketErrorStatus.CONNECTION_RESET_BY_PEER:
            self.fail(self.describe_error(error))
        elif not self._pairs:
            self.fail(CommandError(f"{self.name} refused: {error.summary}; {self.question}"))
        else:
            self._is_refused = True
            self.wake()


class _GroupRun(_Run[GroupTarget]):
    """
    Two sockets for a group: one sends, the other is a member.

    The first receives the answers that come straight back. The other shares the port of the group,
    and receives the answers that go to the group.
    """

    is_group = True

    async def open(self) -> None:
        target, index = self.target, self.target.interface.index
        self.address = target.group
        interface = target.interface.name
        self.question = f"is a member running, and does interface {interface} reach it?"
        self._sender, self._member = DatagramSocket(self.reactor), DatagramSocket(self.reactor)
        self._sender.message_received.add(self._take)
        self._member.message_received.add(self._take_from_group)
        self._sender.control.outbound_multicast_hop_limit = target.ttl
        self._member.control.multicast_only = True
        try:
            await self._sender.bind_service_name("", index)
        except SocketError as error:
            raise self.describe_error(error) from error
        try:
            await self._member.bind_service_name(target.port, index)
            self._member.join_multicast_group(target.group, index)
        except SocketError as error:
            self.output.note(f"cannot receive answers to the group: {error.summary}")

    async def send(self, text: bytes) -> None:
        try:
            await self._sender.send_to(text, (self.address, self.target.port))
        except SocketError as error:
            raise self.describe_error(error) from error

    def close(self) -> None:
        self._sender.close()
        self._member.close()

    def describe_figures(self) -> None:
        tally, responders = self.tally, self.tally.responders
        sent = tally.sent - self.awaited
        unexpected = f", {tally.unexpected} unexpected" if tally.unexpected else ""
        others = " and others" if tally.others.received else ""
        answered = f"{tally.answered} answered by {len(responders)}{others}{unexpected}"
        self.output.say(
            f"{tally.sent} sent, {answered}, {describe_lost(sent - tally.answered, sent)}"
        )
        rows, lines = [], []
        for name, one in responders.items():
            lost = describe_lost(sent - one.received, sent).replace(" lost", "")
            times = one.round_trips.milliseconds
            rows.append((name, str(one.received), lost, str(one.duplicates), *times))
            lines.append(f"{name}: {one.describe(tally.sent, self.awaited)}")
        self.output.say_table(_HEADERS, rows, lines)

    def _take(self, _socket: DatagramSocket, message: _Message) -> None:
        if message.error is None:
            self.received(message.data, name_address(*message.address))

    def _take_from_group(self, source: DatagramSocket, message: _Message) -> None:
        # Members answer from the group's port. Other ports send requests: ours, or other clients'.
        is_answer = message.error is None and message.address[1] == self.target.port
        # Other group members may also be the addressee.
        if is_answer and self.tally.was_sent(message.data):
            self._take(source, message)


_Message = DatagramSocketMessageReceivedEventArgs
