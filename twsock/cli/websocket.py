"""
A conversation on a WebSocket: URI → **handshake** → `twsock.cli.conversation`.

Stands on `twsock.MessageWebSocket`, which holds at most one message that was not asked for. A
server may put anything into its response and its close frame: what is printed of it is escaped and
shortened.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from twisted.internet.task import deferLater
from typing_extensions import override

from twsock.cli.arguments import EchoArguments
from twsock.cli.conversation import Conversation, report_echoes, run_to_end
from twsock.cli.endpoints import parse_uri
from twsock.cli.output import CommandError, Output, RoundTrips, UsageError, escape
from twsock.cli.texts import Texts, find_texts, open_echo_output
from twsock.cli.tls import (
    OFFERED_LEVELS,
    apply_security,
    explain_failure,
    explain_handshake,
    explain_refusal,
    prepare_proxy_security,
    prepare_security,
    report_security,
    warn_of_exposed_key,
)
from twsock.errors import RemoteProtocolError, SocketError, SocketErrorStatus
from twsock.sockets import MessageWebSocket, WebSocketClosedError
from twsock.sockets.websocket.credential import PasswordCredential
from twsock.sockets.websocket.tunnel import Proxy
from twsock.stream.ending import DEFAULT_CLOSE_TIMEOUT
from twsock.tls import CertificateError, ClientOptions, SocketProtectionLevel
from twsock.websocket.client_handshake import HandshakeError, check_request_header
from twsock.websocket.close_frame import CloseCode, WebSocketViolation
from twsock.websocket.header_fields import check_subprotocols
from twsock.websocket.http_message import Response
from twsock.websocket.uri import WebSocketUri

__all__ = ["echo_messages", "prepare_websocket", "read_headers", "read_proxy_credential"]

#: Longest line with a credential, in characters: more than a proxy accepts in one header field.
_MAX_CREDENTIAL: Final = 8192

#: Longest text of a response that is shown, in characters.
_MAX_TEXT: Final = 256

#: What a refusal probably means, and what to do.
_HINTS: Final[Mapping[int, str]] = {
    HTTPStatus.OK: "a web server answered, without a WebSocket at {target}: check the path",
    HTTPStatus.UNAUTHORIZED: "give credentials with --header 'Authorization: …'",
    HTTPStatus.FORBIDDEN: (
        "the server may expect another --header 'Origin: …', or credentials in a --header"
    ),
    HTTPStatus.NOT_FOUND: "there is no WebSocket at {target}: check the path",
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED: "see --proxy-credential",
    HTTPStatus.MISDIRECTED_REQUEST: (
        "it does not serve the host {host}: connect with a name of the server, "
        "or start twsock-websocket with --host NAME"
    ),
    HTTPStatus.UPGRADE_REQUIRED: "it does not support version 13 of WebSockets",
    HTTPStatus.TOO_MANY_REQUESTS: "try again later",
    HTTPStatus.SERVICE_UNAVAILABLE: "try again later",
}

#: What a close code of the server means, and what to do.
_CLOSE_HINTS: Final[Mapping[int, str]] = {
    CloseCode.GOING_AWAY: "the server ends",
    CloseCode.UNSUPPORTED_DATA: "it does not accept messages of this type, see --binary",
    CloseCode.MESSAGE_TOO_BIG: "it does not accept messages of this size",
    CloseCode.INTERNAL_ERROR: "its log may have the reason",
    CloseCode.SERVICE_RESTART: "try again later",
    CloseCode.TRY_AGAIN_LATER: "try again later",
}

#: What to do if the certificate is for another name.
_OTHER_NAME: Final = "write one of these names in the URI, or set it with --name HOST"
_OTHER_PROXY: Final = "write one of these names in --proxy"


def prepare_websocket(
    reactor: Any, arguments: EchoArguments
) -> Callable[[], Coroutine[Any, Any, None]]:
    """
    Check all that can be checked before there is a connection.

    :returns: starts the conversation.
    :raises CommandError: with what is wrong.
    """
    uri = parse_uri(arguments.endpoint)
    read_headers(arguments.header)
    try:
        check_subprotocols(arguments.subprotocol)
    except ValueError as error:
        raise UsageError(f"--subprotocol: {error}") from None
    proxy = None if arguments.proxy is None else _read_proxy(arguments.proxy)
    credential = read_proxy_credential(arguments.proxy_credential)
    security = prepare_security(arguments) if arguments.is_secure else None
    proxy_security = None
    if proxy is not None and proxy.is_secure:
        proxy_security = prepare_proxy_security(arguments.proxy_ca, proxy.host)
    texts = find_texts(reactor, arguments)
    output = open_echo_output(arguments, texts)
    warn_of_exposed_key(arguments.client_certificate, output)
    warn_of_exposed_key(arguments.proxy_credential, output, "password")
    return lambda: echo_messages(
        *(reactor, uri, arguments, texts, output, time.perf_counter, security),
        proxy_credential=credential,
        proxy_security=proxy_security,
    )


def _read_proxy(text: str) -> Proxy:
    """
    Read the URI of a proxy.

    :raises UsageError: when it is malformed. The error does not repeat a user name.
    """
    try:
        return Proxy.parse(text)
    except ValueError as error:
        # Other users of this machine can see a command line.
        has_name = "@" in text
        hint = "; put USER:PASSWORD into a file, see --proxy-credential" if has_name else ""
        reason = "it has no user name" if has_name else error
        raise UsageError(f"--proxy: {reason}{hint}") from None


def read_headers(lines: Sequence[str]) -> list[tuple[str, str]]:
    """
    Read header fields, each as ``NAME: VALUE``.

    :raises UsageError: when one is malformed, given twice, or set by the handshake itself.
    """
    fields: dict[str, tuple[str, str]] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name, value = name.strip(" \t"), value.strip(" \t")
        if not colon:
            raise UsageError(f"--header takes 'NAME: VALUE', not {line!r}")
        if name.lower() in fields:
            raise UsageError(f"--header {name} is given twice: put both values into one")
        try:
            check_request_header(name, value)
        except ValueError as error:
            raise UsageError(f"--header: {error}") from None
        fields[name.lower()] = name, value
    return list(fields.values())


def read_proxy_credential(path: str | None) -> PasswordCredential | None:
    """
    Read the user name and the password for a proxy from a file with one line.

    :raises UsageError: when the file cannot be read, or has something else. The error does not
        repeat the contents.
    """
    if path is None:
        return None
    try:
        with Path(path).open(encoding="utf-8") as file:
            line = file.read(_MAX_CREDENTIAL + 1)
    except OSError as error:
        raise UsageError(f"--proxy-credential: cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise UsageError(f"--proxy-credential: {path} is not UTF-8") from None
    user_name, colon, password = line.removesuffix("\n").removesuffix("\r").partition(":")
    if not colon or len(line) > _MAX_CREDENTIAL:
        raise UsageError(f"--proxy-credential: {path} has no line USER:PASSWORD")
    try:
        return PasswordCredential(user_name, password)
    except ValueError as error:
        raise UsageError(f"--proxy-credential: {path}: {error}") from None


async def echo_messages(
    reactor: Any,
    uri: WebSocketUri,
    arguments: EchoArguments,
    texts: Texts,
    output: Output,
    now: Callable[[], float],
    security: ClientOptions | None = None,
    *,
    proxy_credential: PasswordCredential | None = None,
    proxy_security: ClientOptions | None = None,
) -> None:
    """
    Send every text as often as the arguments say, and compare what comes back.

    Cancelling prints the figures so far and closes the WebSocket.

    :param uri: that of the arguments.
    :param now: measures the round trips, in seconds; the timeouts are the reactor's.
    :param security: which servers are trusted with ``wss``; None with ``ws``.
    :param proxy_credential: sent to the proxy only.
    :param proxy_security: which proxies are trusted with ``https``; None with ``http``, which sends
        the credential without encryption.
    :raises CommandError: when anything else than each message came back.
    """
    round_trips = RoundTrips()
    timeout = arguments.timeout
    websocket = MessageWebSocket(reactor, close_timeout=min(DEFAULT_CLOSE_TIMEOUT, timeout))
    _set_options(websocket, arguments, security)
    control = websocket.control
    if proxy_security is not None:
        control.proxy_trust_roots = proxy_security.trust_roots
    if proxy_credential is not None:
        control.proxy_credential = proxy_credential
        control.sends_credentials_unencrypted = proxy_security is None

    async def converse() -> None:
        output.say("client connected")
        if security is not None:
            report_security(websocket.information, security.host_name, arguments, output)
        if arguments.subprotocol:
            chosen = websocket.information.protocol
            output.say(f"server chose the subprotocol: {'none' if chosen is None else chosen}")
        conversation = _Conversation(reactor, websocket, arguments, output, round_trips)
        await conversation.run(texts, now)

    async def connect_and_converse() -> None:
        try:
            await websocket.connect(arguments.endpoint, timeout=timeout)
        except SocketError as error:
            if proxy_security is not None and _is_from_proxy(error):
                raise _explain_proxy(error, proxy_security) from error
            raise _explain(error, websocket, uri, arguments, output, security) from error
        await run_to_end(
            reactor,
            websocket,
            converse(),
            lambda: websocket.close(CloseCode.NORMAL_CLOSURE),
            lambda: _close_after_error(websocket),
        )

    await report_echoes(arguments, output, round_trips, connect_and_converse)


def _close_after_error(websocket: MessageWebSocket) -> None:
    """Close it, unless a close frame was sent already, to a server that closed or broke a rule."""
    if websocket.is_open:
        websocket.close(CloseCode.GOING_AWAY)


def _set_options(
    websocket: MessageWebSocket, arguments: EchoArguments, security: ClientOptions | None
) -> None:
    control = websocket.control
    control.max_message_size = arguments.max_frame
    control.proxy = arguments.proxy
    control.supported_protocols.extend(arguments.subprotocol)
    for name, value in read_headers(arguments.header):
        websocket.set_request_header(name, value)
    if security is not None:
        apply_security(control, security)
        control.max_protection_level = OFFERED_LEVELS[arguments.level]
        control.server_name = security.host_name


class _Conversation(Conversation):
    """Messages of one WebSocket; all of them have one type."""

    def __init__(
        self,
        reactor: Any,
        websocket: MessageWebSocket,
        arguments: EchoArguments,
        output: Output,
        round_trips: RoundTrips,
    ) -> None:
        super().__init__(reactor, arguments, output, round_trips)
        self._websocket = websocket

    # Overrides of `Conversation`.

    @override
    def send(self, message: bytes) -> None:
        sent = message if self.arguments.binary else message.decode()
        self._websocket.send(sent).addErrback(lambda _: None)

    @override
    async def receive(self) -> bytes | None:
        try:
            message = await self._websocket.receive()
        except WebSocketClosedError as error:
            raise CommandError(_describe_close(error)) from error
        except RemoteProtocolError as error:
            code = error.code if isinstance(error, WebSocketViolation) else None
            hint = "; see --max-frame" if code == CloseCode.MESSAGE_TOO_BIG else ""
            raise CommandError(f"cannot read the response: {error}{hint}") from error
        except SocketError as error:
            raise CommandError(f"connection lost: {error.summary}") from error
        return self._read(message)

    @override
    async def pull(self) -> bytes | None:
        # This call runs within the delivery of the answer; what was received after it is delivered
        # in the same turn of the reactor, and held then.
        await deferLater(self.reactor, 0)
        waiting = self._websocket.receive()
        if not waiting.called:
            waiting.addErrback(lambda _: None)
            waiting.cancel()
            return None
        try:
            return self._read(await waiting)
        except SocketError:
            return None  # The end. A wait for a further message reports it.

    def _read(self, message: str | bytes) -> bytes:
        """Return a message as bytes; refuse one of the other type."""
        is_binary = isinstance(message, bytes)
        data = message if isinstance(message, bytes) else message.encode()
        if is_binary is not self.arguments.binary:
            kinds = ("binary message", "text") if is_binary else ("text", "binary message")
            raise CommandError(
                f"the server sent a {kinds[0]} of {len(data)} bytes, and not a {kinds[1]}"
                "; see --binary"
            )
        return data


def _explain(
    error: SocketError,
    websocket: MessageWebSocket,
    uri: WebSocketUri,
    arguments: EchoArguments,
    output: Output,
    security: ClientOptions | None,
) -> CommandError:
    """Describe why a connect failed: the connection, TLS, or the handshake of the WebSocket."""
    information = websocket.information
    if isinstance(error, HandshakeError):
        if error.response.status == HTTPStatus.SWITCHING_PROTOCOLS:
            return CommandError(f"handshake failed: {error}")
        hosts = [value for name, value in read_headers(arguments.header) if name.lower() == "host"]
        host = hosts[0] if hosts else uri.authority
        who = "proxy" if error.is_from_proxy else "server"
        return CommandError(_describe_refusal(who, error.response, uri.target, host))
    has_begun_tls = information.protection_level is not SocketProtectionLevel.PLAIN_SOCKET
    if security is not None and has_begun_tls and not information.negotiated_version:
        return explain_handshake(error, security, arguments, output, _OTHER_NAME)
    if not information.local_port:
        return CommandError(f"connect failed: {error.summary}")
    # With TLS 1.3 a server judges this end only after the handshake of TLS.
    line = explain_failure(error)
    if line == error.summary and arguments.proxy is None:
        line += "; perhaps no WebSocket server listens there"
        line += "" if uri.is_secure else ", or one that expects TLS (wss://)"
    elif error.status is SocketErrorStatus.CONNECTION_TIMED_OUT and _has_secure_proxy(arguments):
        line += "" if has_begun_tls else "; perhaps the proxy does not offer TLS (http://)"
    return CommandError(f"handshake failed: {line}")


def _has_secure_proxy(arguments: EchoArguments) -> bool:
    return arguments.proxy is not None and _read_proxy(arguments.proxy).is_secure


def _is_from_proxy(error: SocketError) -> bool:
    """Return whether the proxy, or TLS with it, has caused an error other than a refusal."""
    return str(error).startswith("proxy: ")


def _explain_proxy(error: SocketError, security: ClientOptions) -> CommandError:
    """Describe why a connect failed before the tunnel through a proxy with TLS was open."""
    if isinstance(error, CertificateError):
        return explain_refusal(error, security, _OTHER_PROXY, "--proxy-ca")
    line = explain_failure(error).replace("the server", "the proxy")
    return CommandError(f"connect failed: {line}")


def _describe_refusal(who: str, response: Response, target: str, host: str) -> str:
    status = response.status
    line = f"the {who} refused the WebSocket: {status}"
    if response.phrase:
        line += f" {_shorten(response.phrase)}"
    if who == "proxy":
        wants_credential = status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED
        return f"{line}; {_HINTS[status]}" if wants_credential else line
    location = response.header("Location")
    subprotocols = response.header("Sec-WebSocket-Protocol")
    if status // 100 == 3 and location is not None:
        hint = f"it redirects to {_shorten(location)}, and redirections are not followed"
    elif status == HTTPStatus.BAD_REQUEST and subprotocols is not None:
        hint = f"it has the subprotocols {_shorten(subprotocols)}: see --subprotocol"
    else:
        hint = _HINTS.get(status, "").format(target=_shorten(target), host=_shorten(host))
    return f"{line}; {hint}" if hint else line


def _describe_close(error: WebSocketClosedError) -> str:
    code = error.code
    line = f"the server closed the WebSocket: {code}"
    if code in CloseCode.__members__.values():
        line += f" ({CloseCode(code).name.lower().replace('_', ' ')})"
    if error.reason:
        line += f', "{escape(error.reason)}"'
    hint = _CLOSE_HINTS.get(code)
    return line if hint is None else f"{line}; {hint}"


def _shorten(text: str) -> str:
    return escape(text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…")
