"""
The HTTP server of a service: connection → **quiet site** → resource.

The base of the sites of `twsock.services.metrics_page` and `twsock.services.site`. The server is
Twisted's. It drops the bodies of requests, which no page of these sites needs, answers one request
at a time, and logs no requests. No body is held.
"""

from __future__ import annotations

import io
from typing import Any, Final

from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET, Request, Site
from typing_extensions import override

__all__ = ["MAX_BODY", "QuietChannel", "QuietSite"]

#: The largest body of a request, in bytes; a larger one aborts the connection.
MAX_BODY: Final = 64 * 1024


class QuietSite(Site):
    """
    Serves a resource; drops the bodies of requests, and shows no tracebacks to clients.

    :param resource: answers all requests.
    :param reactor: measures the times.
    """

    noisy = False
    displayTracebacks = False  # noqa: N815 - an attribute of Twisted's Site

    def __init__(self, resource: IResource, reactor: Any) -> None:
        # The sites limit the times themselves: each byte would extend Twisted's timeout.
        super().__init__(resource, _BodylessRequest, reactor=reactor, timeout=None)
        # Twisted's default also accepts HTTP/2, where a WebSocket cannot begin.
        self.protocol: Any = QuietChannel

    @override
    def acceptableProtocols(self) -> list[bytes]:
        """Return the names for ALPN: a client that offers HTTP/2 as well gets HTTP/1.1."""
        return [b"http/1.1"]

    @override
    def log(self, request: Any) -> None:
        """Log no line for each request: a monitor sends one every few seconds."""


class QuietChannel(HTTPChannel):
    """
    A connection that ends when its client sends a request before it has the last answer.

    Such requests (pipelining, :rfc:`9112`, section 9.3.2) are optional, and browsers and monitors
    send none. One read may have thousands of them. Twisted would answer them all before it reads
    from another connection.
    """

    # Whether a request has arrived, and its answer is not complete.
    _is_answering = False
    # Whether the client has sent more before it had the answer.
    _is_pipelined = False

    # Called by Twisted.

    @override
    def dataReceived(self, data: bytes) -> None:
        _, _, rest = data.partition(b"\r\n\r\n")
        if rest or self._is_answering:
            self._is_pipelined = True
        super().dataReceived(data)

    @override
    def checkPersistence(self, request: Any, version: bytes) -> bool:
        self._is_answering = True
        if self._is_pipelined:
            request.setHeader(b"Connection", b"close")
            return False
        return bool(super().checkPersistence(request, version))

    @override
    def requestDone(self, request: Any) -> None:
        self._is_answering = False
        if self._is_pipelined:
            self.persistent = False
        super().requestDone(request)


class _BodylessRequest(Request):
    """Drops the body."""

    _size = 0

    @override
    def gotLength(self, length: int | None) -> None:
        self.content = io.BytesIO()

    @override
    def handleContentChunk(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > MAX_BODY:
            channel: Any = self.channel
            channel.transport.abortConnection()

    @override
    def render(self, resrc: Any) -> None:
        super().render(_WithoutBody(resrc) if self.method == b"HEAD" else resrc)


class _WithoutBody:
    """Answers HEAD without the body of the resource; Twisted would log a line for each request."""

    def __init__(self, resource: Any) -> None:
        self._resource = resource

    def render(self, request: Any) -> Any:
        """Send the answer without the body, whose length is in the header."""
        body = self._resource.render(request)
        if not isinstance(body, bytes) or not body:
            return body
        request.setHeader(b"Content-Length", b"%d" % len(body))
        request.write(b"")
        request.finish()
        return NOT_DONE_YET
