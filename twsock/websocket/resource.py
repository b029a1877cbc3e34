"""
WebSockets beside a web site: ``twisted.web`` → **resource** → protocol.

A ``Site`` of ``twisted.web`` parses a request and finds the `WebSocketResource`. The rules of the
factory judge the request, as those of `twsock.websocket.handshake` do without a Site. If they
accept it, `twsock._twisted.take_over_channel` replaces HTTP on this connection by a
`WebSocketProtocol`, which answers the request. Nothing is held.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from typing_extensions import override

from twsock._twisted import take_over_channel
from twsock.websocket.factory import WebSocketFactory
from twsock.websocket.handshake import Refusal, refuse
from twsock.websocket.http_message import Request
from twsock.websocket.judging import judge_request
from twsock.websocket.protocol import WebSocketProtocol

__all__ = ["WebSocketResource", "answer_refusal", "convert_request"]

#: Fields that the Site writes itself: its connection may continue after a refusal.
_OF_THE_SITE: Final = frozenset({"connection", "content-length"})


class WebSocketResource(Resource):
    """
    Serves WebSockets at a path of a ``twisted.web`` site, over HTTP and HTTPS.

    The Site limits the time and the size of a request. A request that the rules of the factory
    refuse is answered with an error, and HTTP continues on its connection. An accepted request ends
    HTTP on its connection. From then on the connection belongs to the factory and has its limits.
    ``factory.drain`` closes the connection; the Site does not. Paths below this resource are served
    as well, unless the factory has a ``path``, which is compared with the whole path of a request.

    :param factory: makes the protocols; it needs no endpoint of its own.
    :raises ValueError: when the factory has an ``upgrade``: TLS is that of the Site's endpoint.
    """

    isLeaf = True  # noqa: N815 - Twisted reads it

    def __init__(self, factory: WebSocketFactory) -> None:
        super().__init__()
        if factory.upgrade is not None:
            raise ValueError(
                "the factory has an upgrade: give TLS to the endpoint of the Site instead"
            )
        self._factory = factory

    # Called by Twisted.

    @override
    def render(self, request: Any) -> Any:
        """Judge a request: refuse it, or begin with the WebSocket."""
        channel = request.channel
        if channel is None:  # Lost while a guard in front of this resource decided.
            return NOT_DONE_YET
        rules = self._factory.settings.rules
        judged = judge_request(rules, convert_request(request), request.getHost())
        if isinstance(judged, Refusal):
            return self._refuse(request, judged)
        if not isinstance(channel, HTTPChannel):  # With HTTP/2, requests share one connection.
            return self._refuse(
                request, refuse(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "a WebSocket needs HTTP/1.1")
            )
        protocol = self._factory.buildProtocol(request.client)
        if not isinstance(protocol, WebSocketProtocol):
            return self._refuse(
                request, refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections")
            )
        transport: Any = channel.transport
        site = channel.factory
        received = take_over_channel(channel, protocol)
        protocol.makeConnection(transport)
        transport.resumeProducing()  # The Site may have paused it after the request.
        protocol.take_request(judged, received, lambda status: _finish(request, site, status))
        return NOT_DONE_YET

    def _refuse(self, request: Any, refusal: Refusal) -> bytes:
        self._factory.group.counters.count_refused_request(refusal.response.status)
        return answer_refusal(request, refusal)


def convert_request(request: Any) -> Request:
    """Return a request of ``twisted.web`` as the rules need it."""
    fields = request.requestHeaders.getAllRawHeaders()
    headers = [(name, value) for name, values in fields for value in values]
    version = request.clientproto.partition(b"/")[2]
    return Request.from_bytes(request.method, request.uri, headers, version)


def answer_refusal(request: Any, refusal: Refusal) -> bytes:
    """Prepare the response of a refusal; return its body, which the Site sends."""
    response = refusal.response
    request.setResponseCode(response.status, HTTPStatus(response.status).phrase.encode("ascii"))
    for name, value in response.headers:
        if name.lower() not in _OF_THE_SITE:
            request.responseHeaders.setRawHeaders(name, [value])
    if response.values("Upgrade"):
        request.responseHeaders.addRawHeader("Connection", "Upgrade")
    return response.body


def _finish(request: Any, site: Any, status: int | None) -> None:
    """End a request of ``twisted.web`` whose response the WebSocket has written."""
    if status is None:
        request.connectionLost(Failure(ConnectionLost()))
        return
    request.setResponseCode(status)
    if site is not None:
        site.log(request)
    request.finished = 1
    request.channel = None
    request.content.close()
    waiting, request.notifications = request.notifications, []
    for each in waiting:
        each.callback(None)
