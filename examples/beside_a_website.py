"""
A guest book on frames, and a website that shows it, in one Twisted application.

Run it:        twistd --pidfile= -n -y examples/beside_a_website.py
You will see:  the log of twistd; the guest book is on port 1338, the website on port 8080.
Then:          python examples/guestbook_client.py tcp:127.0.0.1:1338 Ada
and open http://127.0.0.1:8080/ in a browser: Ada has signed.

The ports can be changed: GUESTBOOK=tcp:2000 WEBSITE=tcp:8000 twistd …
The stream service is an ordinary service of Twisted; it drains its connections when twistd stops.
"""

from __future__ import annotations

import html
import os
from typing import Any

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import Application
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.web.resource import Resource
from twisted.web.server import Site

from twsock import RemoteProtocolError
from twsock.protocols import FrameProtocol, StreamServerFactory
from twsock.services import StreamService

LOCAL = "interface=127.0.0.1"

guests: list[str] = []


class GuestBook(FrameProtocol):
    """Answers each name with the number of guests before it."""

    max_payload = 200

    def frame_received(self, payload: bytes) -> None:
        """Add a guest, and answer the number of guests before."""
        try:
            guests.append(payload.decode())
        except UnicodeDecodeError as error:
            raise RemoteProtocolError("a name has to be UTF-8") from error
        self.send_frame(b"%d came before you" % (len(guests) - 1))


class Page(Resource):
    """Lists the guests."""

    isLeaf = True  # noqa: N815 - read by twisted.web

    def render_GET(self, request: Any) -> bytes:  # noqa: N802 - called by twisted.web
        """Return the page."""
        request.setHeader(b"content-type", b"text/html; charset=utf-8")
        rows = "".join(f"<li>{html.escape(name)}</li>" for name in guests)
        return f"<!doctype html><title>Guests</title><ul>{rows}</ul>".encode()


application: Any = Application("guest book")

book = os.environ.get("GUESTBOOK", f"tcp:1338:{LOCAL}")
StreamService(
    reactor,
    StreamServerFactory(reactor, GuestBook),
    [(book, serverFromString(reactor, book))],
).setServiceParent(application)

site = os.environ.get("WEBSITE", f"tcp:8080:{LOCAL}")
StreamServerEndpointService(serverFromString(reactor, site), Site(Page())).setServiceParent(
    application
)
