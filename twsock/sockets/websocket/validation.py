"""
Validation of a server's certificate by the application: handshake → **event** → accepted or not.

`twsock.sockets.websocket.client` calls `validate` once for each connect over TLS, after TLS has
accepted the certificate. So handlers can refuse a certificate that the settings accept, but cannot
accept another one. The request is sent afterwards: a server that is refused never receives it.
"""

from __future__ import annotations

import inspect
from typing import Any

from twisted.internet.defer import Deferred

from twsock.errors import LocalProtocolError, SocketError
from twsock.errors.web_socket_error import INET_E_SECURITY_PROBLEM
from twsock.sockets.event import Event
from twsock.sockets.websocket.information import WebSocketInformation
from twsock.tls.certificates import Certificate
from twsock.tls.validation import ChainValidationResult, SocketSslErrorSeverity

__all__ = ["Deferral", "WebSocketServerCustomValidationRequestedEventArgs", "validate"]


class Deferral:
    """Makes a connect wait for the decision of a handler; ``Windows.Foundation.Deferral``."""

    __slots__ = ("_completed",)

    def __init__(self, completed: Deferred[None]) -> None:
        self._completed: Deferred[None] | None = completed

    def complete(self) -> None:
        """
        End the wait of the connect, whether or not the certificate was rejected.

        :raises LocalProtocolError: when the wait has ended already.
        """
        if self._completed is None:
            raise LocalProtocolError("the deferral was completed already")
        self.close()

    def close(self) -> None:
        """End the wait of the connect; a second call has no effect."""
        completed, self._completed = self._completed, None
        if completed is not None and not completed.called:
            completed.callback(None)


class WebSocketServerCustomValidationRequestedEventArgs:
    """
    Argument of a handler of ``server_custom_validation_requested``.

    The WebSocket connects unless a handler calls `reject`.

    :ivar is_rejected: whether a handler has called `reject`.
    """

    __slots__ = ("_information", "_pending", "is_rejected")

    def __init__(self, information: WebSocketInformation) -> None:
        self._information = information
        self._pending: list[Deferred[Any]] = []
        self.is_rejected = False

    @property
    def server_certificate(self) -> Certificate | None:
        """The certificate of the server."""
        return self._information.server_certificate

    @property
    def server_intermediate_certificates(self) -> tuple[Certificate, ...]:
        """The issuers' certificates that the server sent."""
        return self._information.server_intermediate_certificates

    @property
    def server_certificate_errors(self) -> tuple[ChainValidationResult, ...]:
        """The errors of the certificate that were ignored."""
        return self._information.server_certificate_errors

    @property
    def server_certificate_error_severity(self) -> SocketSslErrorSeverity:
        """The severity of the worst of these errors."""
        return self._information.server_certificate_error_severity

    def reject(self) -> None:
        """Refuse the certificate: the connect fails with the HRESULT 0x800C000E."""
        self.is_rejected = True

    def get_deferral(self) -> Deferral:
        """
        Make the connect wait until the returned deferral is completed.

        A coroutine function needs no deferral: the connect waits until it has ended.
        """
        completed: Deferred[None] = Deferred()
        self._pending.append(completed)
        return Deferral(completed)

    # Called by `validate`.

    async def decided(self) -> None:
        """Wait for all deferrals, coroutines and Deferreds of handlers."""
        while self._pending:
            await self._pending.pop()

    def await_handler(self, handled: Deferred[Any]) -> None:
        """Wait for a handler, too."""
        self._pending.append(handled)


async def validate(event: Event[Any], owner: object, information: WebSocketInformation) -> None:
    """
    Ask the handlers of an event whether the certificate of the server is accepted.

    :param owner: the WebSocket, which is the first argument of the handlers.
    :raises SocketError: when a handler has rejected the certificate, with the HRESULT 0x800C000E.
    :raises Exception: an error of a handler, which rejects the certificate, too.
    """
    if not event.handlers:
        return
    args = WebSocketServerCustomValidationRequestedEventArgs(information)
    for handler in event.handlers:
        handled = handler(owner, args)
        if inspect.iscoroutine(handled):
            handled = Deferred.fromCoroutine(handled)
        if isinstance(handled, Deferred):
            args.await_handler(handled)
    await args.decided()
    if args.is_rejected:
        raise SocketError(
            "the application rejected the certificate of the server",
            hresult=INET_E_SECURITY_PROBLEM,
        )
