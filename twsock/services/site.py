"""
Static files beside the WebSockets of a service: endpoint → **site** → files and WebSockets.

`twsock.services.websocket` loads this module with ``--site``. The HTTP server is that of Twisted.
The site owns the connections of HTTP; an accepted WebSocket leaves the site for its factory.
"""

from __future__ import annotations

import os
import re
import stat
import warnings
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IListeningPort, IStreamServerEndpoint
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from typing_extensions import override

from twsock.services.quiet_site import QuietChannel, QuietSite
from twsock.stream.connection import FIRST_MESSAGE_TIME
from twsock.websocket.factory import WebSocketFactory
from twsock.websocket.handshake import refuse
from twsock.websocket.judging import serves_loopback
from twsock.websocket.resource import WebSocketResource, answer_refusal, convert_request

# The module of Twisted uses names that Twisted has deprecated, while it is imported.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from twisted.web.static import File

__all__ = ["MAX_PAGE_CONNECTIONS", "PATIENCE", "FileSite", "SiteEndpoint"]

#: How many connections of HTTP are open at most; further ones are closed.
MAX_PAGE_CONNECTIONS: Final = 256

#: Seconds between two checks that a connection of HTTP has made progress.
PATIENCE: Final = 30

#: The form of ``Range`` that is honoured. Many ranges in one request multiply the response.
_ONE_RANGE: Final = re.compile(rb"bytes=[0-9]{1,18}-[0-9]{0,18}")

_INDEX: Final = "index.html"


class FileSite(QuietSite):
    """
    Serves the files of a folder, and WebSockets at one path.

    A connection of HTTP has to make progress: to complete a request, or to take a part of a
    response. Every `PATIENCE` seconds it is checked, and aborted if it has made no progress since
    the last check.

    :param reactor: measures the times.
    :param factory: serves the WebSockets; its rules decide about ``Host``, and its limit on
        connections includes those of the site.
    :param folder: the files; nothing outside of it is served.
    :param path: the path of the WebSockets.
    """

    def __init__(self, reactor: Any, factory: WebSocketFactory, folder: Path, path: str) -> None:
        super().__init__(_Root(self, factory, folder, path), reactor)
        self.protocol = _Channel
        self.clock = reactor
        self.channels: set[_Channel] = set()
        self.is_draining = False
        self._drained: Deferred[None] | None = None
        self._deadline: IDelayedCall | None = None
        self._factory = factory

    @property
    def has_room(self) -> bool:
        """Whether a further connection may stay open."""
        limit = self._factory.group.max_connections
        # Each connection may hold a file as well, so it counts twice.
        used = 2 * len(self.channels) + len(self._factory.group)
        return len(self.channels) < MAX_PAGE_CONNECTIONS and (limit is None or used < limit)

    def drain(self, timeout: float) -> Deferred[None]:
        """
        Close idle connections now, and the others after their response.

        Connections that are made later have a second for a request.

        :param timeout: seconds until the connections that are left are aborted.
        :returns: fires when no connection of HTTP is left.
        """
        self.is_draining = True
        drained: Deferred[None] = Deferred()
        self._drained = drained
        self._deadline = self.clock.callLater(timeout, self.abort)
        for channel in list(self.channels):
            channel.drain()
        self._note_drained()
        return drained

    def abort(self) -> None:
        """Abort all connections."""
        for channel in list(self.channels):
            channel.abort()

    def leave(self, channel: _Channel) -> None:
        """Forget a connection: it has ended, or belongs to a WebSocket now."""
        self.channels.discard(channel)
        self._note_drained()

    def _note_drained(self) -> None:
        if self.channels or self._drained is None:
            return
        drained, self._drained = self._drained, None
        deadline, self._deadline = self._deadline, None
        if deadline is not None and deadline.active():
            deadline.cancel()
        drained.callback(None)


class SiteEndpoint:
    """
    Listens with a site in place of the factory of WebSockets that the service passes to `listen`.

    :param endpoint: opens the port.
    :param site: serves its connections.
    """

    def __init__(self, endpoint: IStreamServerEndpoint, site: FileSite) -> None:
        self._endpoint = endpoint
        self._site = site

    def listen(self, _factory: Factory) -> Deferred[IListeningPort]:
        """Open the port."""
        listening: Deferred[IListeningPort] = self._endpoint.listen(self._site)
        return listening


class _Channel(QuietChannel):
    """A connection of HTTP that has to make progress."""

    site: FileSite

    def __init__(self) -> None:
        super().__init__()
        self._has_progress = False
        self._watch = LoopingCall(self._check)
        # While a connection that came at the stop of its port has time for its request.
        self._grace: IDelayedCall | None = None

    @override
    def connectionMade(self) -> None:
        super().connectionMade()
        if not self.site.has_room:
            self.abort()
            return
        self.site.channels.add(self)
        self._watch.clock = self.site.clock
        self._watch.start(PATIENCE, now=False)
        if self.site.is_draining:
            self._grace = self.site.clock.callLater(FIRST_MESSAGE_TIME, self._end_grace)

    @override
    def write(self, data: bytes) -> None:
        self._has_progress = True
        super().write(data)

    @override
    def requestDone(self, request: Any) -> None:
        self._has_progress = True
        super().requestDone(request)

    @override
    def checkPersistence(self, request: Any, version: bytes) -> bool:
        if self.site.is_draining:
            request.setHeader(b"Connection", b"close")
            return False
        return bool(super().checkPersistence(request, version))

    @override
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.release()
        super().connectionLost(reason)

    def drain(self) -> None:
        """Close now, or after the response to the request that is awaited or being answered."""
        if self._grace is not None:
            return
        # From now on the channel drops what arrives.
        self.persistent = False
        if not self.requests:
            self.loseConnection()

    def abort(self) -> None:
        """End the connection without waiting for the peer."""
        transport: Any = self.transport
        transport.abortConnection()

    def release(self) -> None:
        """Stop the checks: the connection has ended, or belongs to a WebSocket now."""
        if self._watch.running:
            self._watch.stop()
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
        self.site.leave(self)

    def _end_grace(self) -> None:
        self._grace = None
        self.drain()

    def _check(self) -> None:
        if not self._has_progress:
            self.abort()
        self._has_progress = False


class _Root(Resource):
    """All paths of a site."""

    isLeaf = True  # noqa: N815 - an attribute of Twisted's Resource

    def __init__(self, site: FileSite, factory: WebSocketFactory, folder: Path, path: str) -> None:
        super().__init__()
        self._site = site
        self._rules = factory.settings.rules
        self._web_sockets = WebSocketResource(factory)
        self._folder = folder
        self._path = path

    # Called by Twisted.

    @override
    def render(self, request: Any) -> Any:
        """Answer a request."""
        converted = convert_request(request)
        refusal = self._rules.judge_host(converted, is_loopback=serves_loopback(request.getHost()))
        if refusal is not None:
            return answer_refusal(request, refusal)
        if converted.path == self._path and converted.has_token("Upgrade", "websocket"):
            return self._begin_web_socket(request)
        request.setHeader(b"X-Content-Type-Options", b"nosniff")
        if request.method not in (b"GET", b"HEAD"):
            request.setHeader(b"Allow", b"GET, HEAD")
            return _fail(request, HTTPStatus.METHOD_NOT_ALLOWED)
        return self._send_file(request)

    def _begin_web_socket(self, request: Any) -> Any:
        if self._site.is_draining:
            reason = "the server stops"
            return answer_refusal(request, refuse(HTTPStatus.SERVICE_UNAVAILABLE, reason))
        channel = request.channel
        answer = self._web_sockets.render(request)
        if answer is NOT_DONE_YET:
            channel.release()
        return answer

    def _send_file(self, request: Any) -> Any:
        found = _find(self._folder, request.postpath)
        if found is None:
            return _fail(request, HTTPStatus.NOT_FOUND)
        if found.name == _INDEX and request.postpath[-1] not in (b"", _INDEX.encode()):
            # Relative links of the page need the slash. The path has no empty segment in front of
            # the last one, so it does not begin with //, and this is no link to another host.
            request.setHeader(b"Location", request.path + b"/")
            return _fail(request, HTTPStatus.MOVED_PERMANENTLY)
        if not _ONE_RANGE.fullmatch(request.getHeader(b"Range") or b""):
            request.requestHeaders.removeHeader(b"Range")
        try:
            return File(str(found), defaultType="application/octet-stream").render_GET(request)
        except OSError:  # Removed or replaced since it was found, or no descriptor is left.
            return _fail(request, HTTPStatus.NOT_FOUND)


def _find(folder: Path, segments: list[bytes]) -> Path | None:
    """Return the file of a request's decoded path; None if there is none to be served."""
    names = [segment.decode("utf-8", "replace") for segment in segments]
    if names and not names[-1]:
        names.pop()
    # Names that begin with a dot are "..", and files such as .git that are not meant for visitors.
    if any(not name or name[0] == "." or "/" in name or "\0" in name for name in names):
        return None
    try:
        found = folder.joinpath(*names)
        if found.is_dir():
            found = found / _INDEX
        elif segments and not segments[-1]:
            return None
        target = Path(os.path.realpath(found))
        # The open of a pipe would block the reactor.
        is_file = stat.S_ISREG(target.stat().st_mode) and os.access(target, os.R_OK)
    except (OSError, ValueError):
        return None
    is_inside = target.is_relative_to(os.path.realpath(folder))
    # The name of the link, not that of its target, decides about the type and the redirect.
    return found if is_file and is_inside else None


def _fail(request: Any, status: HTTPStatus) -> bytes:
    request.setResponseCode(status)
    request.setHeader(b"Content-Type", b"text/plain; charset=utf-8")
    return f"{status.value} {status.phrase}\n".encode()
