"""
A conversation on a stream connection: `twsock.cli.conversation`, or bytes in both directions.

Stands on `twsock.StreamSocket` and the decoders of `twsock.wire`. With ``--raw``, in memory are one
piece in each direction and what the socket reads ahead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import deferLater
from typing_extensions import override

from twsock.cli.arguments import EchoArguments
from twsock.cli.conversation import Conversation, report_echoes, run_to_end
from twsock.cli.endpoints import parse_endpoint
from twsock.cli.output import CommandError, Output, RoundTrips, no_answer, open_output
from twsock.cli.resolver import first_of, in_thread
from twsock.cli.texts import Texts, find_texts, open_echo_output, read_input
from twsock.cli.tls import (
    NO_TLS,
    explain_failure,
    prepare_security,
    secure,
    warn_of_exposed_key,
)
from twsock.errors import (
    OperationNotSupported,
    RemoteProtocolError,
    SocketError,
    SocketErrorStatus,
)
from twsock.ip.address_errors import connecting_error
from twsock.sockets import StreamSocket
from twsock.stream.ending import DEFAULT_CLOSE_TIMEOUT
from twsock.tls import ClientOptions
from twsock.wire import FrameDecoder, LineDecoder, encode_frame, encode_line

__all__ = ["echo", "exchange_bytes", "prepare_stream"]

#: The request for TLS, the answer that grants it, and the largest answer, in bytes.
_REQUEST: Final = b"STARTTLS"
_GO_AHEAD: Final = b"OK"
_MAX_GO_AHEAD: Final = 4096

#: How a TLS record of a server begins: an alert, or a part of its handshake (:rfc:`8446`, 5.1).
_TLS_RECORDS: Final = (b"\x15\x03", b"\x16\x03")
#: How the answer of a web server begins.
_HTTP: Final = (b"HTTP/", b"<!DOC", b"<html")
#: The first bytes of the server that a hint looks at.
_BEGINNING: Final = 5


def prepare_stream(
    reactor: Any, arguments: EchoArguments
) -> Callable[[], Coroutine[Any, Any, None]]:
    """
    Check all that can be checked before there is a connection.

    :returns: starts the conversation.
    :raises CommandError: with what is wrong.
    """
    endpoint = parse_endpoint(reactor, arguments.endpoint, arguments.timeout)
    security = prepare_security(arguments) if arguments.is_secure else None
    if arguments.raw:
        read, output = read_input(reactor), open_output(quiet=True)
    else:
        texts = find_texts(reactor, arguments)
        output = open_echo_output(arguments, texts)
    warn_of_exposed_key(arguments.client_certificate, output)
    if arguments.raw:
        return lambda: exchange_bytes(reactor, endpoint, arguments, read, output, security)
    return lambda: echo(reactor, endpoint, arguments, texts, output, time.perf_counter, security)


async def echo(
    reactor: Any,
    endpoint: IStreamClientEndpoint,
    arguments: EchoArguments,
    texts: Texts,
    output: Output,
    now: Callable[[], float],
    security: ClientOptions | None = None,
) -> None:
    """
    Send every text as often as the arguments say, and compare what comes back.

    Cancelling prints the figures so far and closes the connection.

    :param now: measures the round trips, in seconds; the timeouts are the reactor's.
    :param security: how the connection becomes secure before the first text; None for plaintext.
    :raises CommandError: when anything else than each message came back.
    """
    round_trips = RoundTrips()

    async def converse(stream_socket: StreamSocket) -> None:
        output.say("client connected")
        conversation = _Conversation(reactor, stream_socket, arguments, output, round_trips)
        if security is not None:
            await conversation.secure(security)
        await conversation.run(texts, now)

    def run() -> Coroutine[Any, Any, None]:
        return _on_connection(reactor, endpoint, arguments.timeout, converse)

    await report_echoes(arguments, output, round_trips, run)


async def exchange_bytes(
    reactor: Any,
    endpoint: IStreamClientEndpoint,
    arguments: EchoArguments,
    read: Callable[[], Deferred[bytes]],
    output: Output,
    security: ClientOptions | None = None,
) -> None:
    """
    Send what is read while writing what arrives, until the server ends.

    At the end of the input the output side is closed. Then the exchange ends too when nothing
    arrives for ``arguments.timeout``. Cancelling closes the connection.

    :param read: reads the next piece, ``b""`` at the end.
    :raises CommandError: when the connection failed, or the output takes no more.
    """

    async def converse(stream_socket: StreamSocket) -> None:
        if security is not None:
            await secure(stream_socket, security, arguments, output)
        exchange = _Exchange(reactor, stream_socket, arguments.timeout, read, output)
        try:
            await first_of(
                Deferred.fromCoroutine(exchange.receive()), Deferred.fromCoroutine(exchange.send())
            )
        except SocketError as error:
            raise _describe_loss(error, is_secure=security is not None) from error

    await _on_connection(reactor, endpoint, arguments.timeout, converse)


async def _on_connection(
    reactor: Any,
    endpoint: IStreamClientEndpoint,
    timeout: float,
    converse: Callable[[StreamSocket], Coroutine[Any, Any, None]],
) -> None:
    """Connect, converse, and close; abort the connection after an error."""

    def time_out(_result: object, _timeout: float) -> None:
        line = f"no connection within {timeout:g} s"
        raise SocketError(line, status=SocketErrorStatus.CONNECTION_TIMED_OUT)

    stream_socket = StreamSocket(reactor, close_timeout=min(DEFAULT_CLOSE_TIMEOUT, timeout))
    try:
        await stream_socket.connect_endpoint(endpoint).addTimeout(timeout, reactor, time_out)
    except CancelledError:
        raise
    # Whatever an endpoint meets, a name without an address or a certificate that nobody can read.
    except Exception as error:
        raise CommandError(f"connect failed: {connecting_error(error).summary}") from error
    await run_to_end(reactor, stream_socket, converse(stream_socket), stream_socket.close)


@dataclass
class _Exchange:
    """Bytes in both directions."""

    reactor: Any
    stream_socket: StreamSocket
    timeout: float
    read: Callable[[], Deferred[bytes]]
    output: Output
    has_received: bool = True

    async def receive(self) -> None:
        async for data in self.stream_socket.input_stream:
            self.has_received = True
            # In a thread: a reader that is slow, or waits for us, stops neither the other direction
            # nor Ctrl-C.
            await in_thread(self.reactor, self.output.write_bytes, data)

    async def send(self) -> None:
        stream = self.stream_socket.output_stream
        while data := await self.read():
            await stream.write(data)
        try:
            await stream.close()
        except OperationNotSupported:
            pass  # TLS of an endpoint of Twisted's cannot end one direction.
        while self.has_received:
            self.has_received = False
            await deferLater(self.reactor, self.timeout)
        self.output.note(
            f"the server sent nothing for {self.timeout:g} s, and did not close the connection"
        )


class _Messages:
    """
    The messages on a connection.

    :ivar beginning: the first bytes that arrived, at most `_BEGINNING` of them.
    """

    def __init__(self, stream_socket: StreamSocket, framing: str, max_size: int) -> None:
        self.beginning = b""
        self._socket = stream_socket
        self._encode: Callable[[bytes], bytes] = encode_line if framing == "line" else encode_frame
        if framing == "line":
            lines = LineDecoder(max_size)
            self._decoder: FrameDecoder | LineDecoder = lines
            self._next = lines.next_line
        else:
            frames = FrameDecoder(max_size)
            self._decoder = frames
            self._next = frames.next_frame

    @property
    def buffered(self) -> int:
        """Bytes that were received and not pulled."""
        return self._decoder.buffered

    def send(self, message: bytes) -> None:
        """Send a message. If the connection has just ended, `receive` reports it."""
        self._socket.output_stream.send_all(self._encode(message)).addErrback(lambda _: None)

    async def receive(self) -> bytes | None:
        """
        Wait for a message; None when the server has ended. Cancelling loses no byte.

        :raises SocketError: when the connection failed, or the message is too large.
        """
        while (message := self._next()) is None:
            data = await self._socket.input_stream.receive_some()
            if not data:
                return None
            self.beginning = (self.beginning + data)[:_BEGINNING]
            self._decoder.feed(data)
        return message

    def pull(self) -> bytes | None:
        """Return a message that was received already; None if there is none."""
        return self._next()


class _Conversation(Conversation):
    """
    Messages on one stream connection.

    :ivar is_secure: whether it has TLS.
    """

    def __init__(
        self,
        reactor: Any,
        stream_socket: StreamSocket,
        arguments: EchoArguments,
        output: Output,
        round_trips: RoundTrips,
    ) -> None:
        super().__init__(reactor, arguments, output, round_trips)
        self.stream_socket = stream_socket
        self.is_secure = False
        self.messages = self._make_messages(arguments.max_frame)

    async def secure(self, security: ClientOptions) -> None:
        """Put TLS on the connection; nothing that the server sends before that is shown."""
        if self.arguments.upgrade == "command":
            await self._request_tls()
        await secure(self.stream_socket, security, self.arguments, self.output)
        self.is_secure = True
        self.messages = self._make_messages(self.arguments.max_frame)

    async def _request_tls(self) -> None:
        """Ask for TLS in the clear."""
        messages, timeout = self._make_messages(_MAX_GO_AHEAD), self.arguments.timeout
        messages.send(_REQUEST)
        waiting = Deferred.fromCoroutine(messages.receive())
        try:
            answer = await waiting.addTimeout(timeout, self.reactor)
        except defer.TimeoutError:
            reason = no_answer(f"the server did not grant TLS within {timeout:g} s")
        except SocketError as error:
            reason = error.summary
        else:
            if answer == _GO_AHEAD and not messages.buffered:
                return
            if answer is None:
                reason = f"the server ended the connection{NO_TLS}"
            elif answer == _GO_AHEAD:
                reason = "the server sent plaintext after its go-ahead"
            else:
                reason = "the server did not grant the request for TLS"
        raise CommandError(f"TLS failed: {reason}")

    def _make_messages(self, max_size: int) -> _Messages:
        return _Messages(self.stream_socket, self.arguments.framing, max_size)

    # Overrides of `Conversation`.

    @override
    def send(self, message: bytes) -> None:
        self.messages.send(message)

    @override
    async def pull(self) -> bytes | None:
        return self.messages.pull()

    @override
    async def receive(self) -> bytes | None:
        try:
            return await self.messages.receive()
        except RemoteProtocolError as error:
            hint = self.find_hint()
            raise CommandError(f"cannot read the response: {error}{hint}") from error
        except SocketError as error:
            is_reset = error.status is SocketErrorStatus.CONNECTION_RESET_BY_PEER
            hint = self.find_hint() if is_reset else ""
            raise _describe_loss(error, hint, is_secure=self.is_secure) from error

    @override
    def describe_silence(self) -> str:
        what = "no whole message" if self.messages.beginning else "nothing"
        return f"the server sent {what}"

    @override
    def find_hint(self) -> str:
        """Return what is probably wrong with the framing or TLS."""
        if self.round_trips.count:  # Both were right until now.
            return ""
        beginning, is_line = self.messages.beginning, self.arguments.framing == "line"
        if not beginning:
            tls = "" if self.is_secure else "TLS (--tls or --upgrade), or "
            return f"; perhaps the server expects {tls}another --framing"
        if beginning.startswith(_TLS_RECORDS):
            return "; what the server sent is TLS: see --tls and --upgrade"
        if beginning.startswith(_HTTP):
            return "; what the server sent is HTTP: --raw shows it"
        if is_line and b"\0" in beginning:
            return "; what the server sent looks like a frame: see --framing uint32"
        if not is_line and beginning.isascii() and b"\0" not in beginning:
            return "; what the server sent looks like text: see --framing line and --raw"
        return ""


def _describe_loss(error: SocketError, hint: str = "", *, is_secure: bool) -> CommandError:
    # With TLS 1.3 a server judges this end only after the handshake.
    summary = explain_failure(error) if is_secure else error.summary
    return CommandError(f"connection lost: {summary}{hint}")
