"""
One conversation with an echo server: texts → **request, response, request, …** → screen.

Where TLS is asked for (`twsock.cli.security`), no text leaves before the server is accepted.

Runs on any client endpoint of Twisted, with the protocols that servers use. Messages go one after
the other, so in memory is one message on its way out and one on its way back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.interfaces import IAddress, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from typing_extensions import override

from twsock.cli.arguments import EchoArguments
from twsock.cli.failure import CommandError
from twsock.cli.round_trips import RoundTrips
from twsock.cli.screen import Screen
from twsock.cli.security import explain_failure, secure
from twsock.cli.texts import Texts
from twsock.errors import (
    BrokenError,
    ClosedError,
    RemoteProtocolError,
    SocketError,
    SocketErrorStatus,
)
from twsock.ip.address_errors import connecting_error
from twsock.protocols import (
    ClientUpgrade,
    ConnectionRegistry,
    FrameProtocol,
    LineProtocol,
    StreamProtocol,
)
from twsock.stream.transport import DEFAULT_CLOSE_TIMEOUT

__all__ = ["echo"]

#: How long a connection may take to end in order after Ctrl-C, in seconds: nobody waits longer.
_HURRIED_CLOSE: Final = 0.5


async def echo(
    reactor: Any,
    endpoint: IStreamClientEndpoint,
    arguments: EchoArguments,
    texts: Texts,
    screen: Screen,
    now: Callable[[], float],
    upgrade: ClientUpgrade | None = None,
) -> None:
    """
    Send every text as often as was asked for, and check what comes back.

    Cancelling ends the connection, in order where the server plays along.

    :param now: measures the round trips, in seconds; the timeouts are the reactor's.
    :param upgrade: how the connection becomes secure before the first text; None for plaintext.
    :raises CommandError: when anything else than each message came back, with a line that says so.
    """
    round_trips = RoundTrips()
    screen.say("client is trying to connect...")
    client = await _connect(reactor, endpoint, arguments, now)
    try:
        screen.say("client connected")
        if upgrade is not None:
            await secure(client, upgrade, screen, shows_certificate=arguments.shows_certificate)
        await _exchange(reactor, client, arguments, texts, screen, round_trips)
        await client.close()
    except CancelledError:
        await _close_in_a_hurry(reactor, client)
        raise
    except BaseException:
        client.abort()
        raise
    finally:
        screen.end_progress()
    screen.say("client closed its socket")
    if arguments.count > 1:
        screen.say(round_trips.summary)


async def _exchange(
    reactor: Any,
    client: _Client,
    arguments: EchoArguments,
    texts: Texts,
    screen: Screen,
    round_trips: RoundTrips,
) -> None:
    next_send = 0.0
    while (text := await client.undisturbed(texts.next_text)) is not None:
        for _ in range(arguments.repeats):
            if (wait := next_send - reactor.seconds()) > 0:
                await client.undisturbed(deferLater, reactor, wait)
            next_send = reactor.seconds() + arguments.interval
            client.ask(text)
            screen.show_request(text)
            response = await client.answer(arguments.timeout)
            round_trips.add(client.round_trip)
            screen.show_response(response)
            if response != text:
                raise CommandError(_describe_difference(text, response))
            client.check_undisturbed()
            screen.advance()


async def _connect(
    reactor: Any,
    endpoint: IStreamClientEndpoint,
    arguments: EchoArguments,
    now: Callable[[], float],
) -> _Client:
    kind = _LineClient if arguments.framing == "line" else _FrameClient
    timeout = arguments.timeout

    def time_out(_result: object, _timeout: float) -> None:
        raise SocketError(
            f"no connection within {timeout:g} s", status=SocketErrorStatus.CONNECTION_TIMED_OUT
        )

    def make_client() -> _Client:
        client = kind(now)
        # Every delay of the connection is then one of the reactor given.
        client.group = ConnectionRegistry(reactor)
        client.max_payload = arguments.max_frame
        client.close_timeout = min(DEFAULT_CLOSE_TIMEOUT, timeout)
        return client

    connecting = endpoint.connect(_ClientFactory(make_client))
    connecting.addTimeout(timeout, reactor, time_out)
    try:
        client = await connecting
    except CancelledError:
        raise
    # Whatever an endpoint meets, a name without an address or a certificate that nobody can read.
    except Exception as error:
        raise CommandError(f"connect failed: {_summarize(error)}") from error
    assert isinstance(client, _Client)
    return client


class _ClientFactory(Factory):
    noisy = False

    def __init__(self, make_client: Callable[[], _Client]) -> None:
        self._make_client = make_client

    @override
    def buildProtocol(self, addr: IAddress | None) -> _Client:
        return self._make_client()


class _Client(StreamProtocol):
    """
    Asks, and waits for the answer; anything that the server does unasked is an error.

    :ivar round_trip: seconds from the last `ask` to its answer.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.round_trip = 0.0
        self._now = now
        self._asked_at = 0.0
        self._responses: deque[bytes] = deque()
        self._has_ended = False
        self._error: SocketError | None = None
        # Ends the wait that is under way, if there is one.
        self._wake: Callable[[], object] | None = None

    def ask(self, message: bytes) -> None:
        """Send a message. Where the connection has just ended, `answer` says so."""
        self._asked_at = self._now()
        try:
            self._send(message)
        except (BrokenError, ClosedError):
            pass

    async def answer(self, timeout: float) -> bytes:
        """
        Wait for the next message.

        :raises CommandError: when none came within ``timeout`` seconds, or the connection ended.
        """
        if not self._responses and not self._has_ended:
            assert self.group is not None
            something: Deferred[None] = Deferred()
            something.addTimeout(timeout, self.group.clock)
            self._wake = lambda: something.callback(None)
            try:
                await something
            except defer.TimeoutError:
                late = SocketError(
                    "the server sent nothing", status=SocketErrorStatus.CONNECTION_TIMED_OUT
                )
                raise CommandError(f"no answer within {timeout:g} s: {_summarize(late)}") from None
            finally:
                self._wake = None
        if not self._responses:
            raise self._describe_end("before its answer")
        return self._responses.popleft()

    async def undisturbed(self, start: Callable[..., Any], *args: Any) -> Any:
        """
        Wait for something else than the server, which has nothing to say now.

        :param start: what to wait for: gives a Deferred or a coroutine.
        :raises CommandError: as soon as the server sends something, or ends the connection.
        """
        self.check_undisturbed()
        waiting = ensureDeferred(start(*args))
        self._wake = waiting.cancel
        try:
            return await waiting
        except CancelledError:
            self.check_undisturbed()
            raise
        finally:
            self._wake = None

    def check_undisturbed(self) -> None:
        """
        Make sure that the server did nothing unasked so far.

        :raises CommandError: when it did.
        """
        if self._responses:
            size = len(self._responses[0])
            raise CommandError(f"the server sent a message of {size} bytes that nobody asked for")
        if self._has_ended:
            raise self._describe_end("")

    # Called by the stream.

    @override
    def connection_lost(self, error: SocketError | None) -> None:
        self._has_ended = True
        self._error = error
        self._tell()

    # Called by Twisted.

    @override
    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        # Only now, so that a message too many in the same piece is seen before the next is sent.
        if self._responses:
            self._tell()

    def _send(self, message: bytes) -> None:
        raise NotImplementedError

    def _take(self, message: bytes) -> None:
        self.round_trip = self._now() - self._asked_at
        self._responses.append(message)

    def _tell(self) -> None:
        wake, self._wake = self._wake, None
        if wake is not None:
            wake()

    def _describe_end(self, moment: str) -> CommandError:
        error = self._error
        if error is None:
            return CommandError(f"the server ended the connection {moment}".rstrip())
        if isinstance(error, RemoteProtocolError):
            return CommandError(f"the response is refused: {error}")
        # With TLS 1.3 a server judges this end only after the handshake.
        summary = explain_failure(error) if self.peer_certificate else _summarize(error)
        return CommandError(f"connection lost: {summary}")


class _FrameClient(_Client, FrameProtocol):
    @override
    def frame_received(self, payload: bytes) -> None:
        self._take(payload)

    @override
    def _send(self, message: bytes) -> None:
        self.send_frame(message)


class _LineClient(_Client, LineProtocol):
    @override
    def line_received(self, line: bytes) -> None:
        self._take(line)

    @override
    def _send(self, message: bytes) -> None:
        self.send_line(message)


async def _close_in_a_hurry(reactor: Any, client: _Client) -> None:
    try:
        await client.close().addTimeout(_HURRIED_CLOSE, reactor)
    except defer.TimeoutError:
        client.abort()


def _describe_difference(request: bytes, response: bytes) -> str:
    sizes = f"sent {len(request)} bytes, received {len(response)} bytes"
    pairs = enumerate(zip(request, response, strict=False), 1)
    position = next((number for number, (a, b) in pairs if a != b), None)
    if position is None:
        return f"the response differs from the request: {sizes}"
    return f"the response differs from the request: {sizes}, first difference at byte {position}"


def _summarize(error: BaseException) -> str:
    return connecting_error(error).summary
