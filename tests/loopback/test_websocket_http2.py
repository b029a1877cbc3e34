"""A client of HTTP/2 asks a Site for a WebSocket."""

from __future__ import annotations

import importlib
import importlib.util
import socket
from typing import Any

from tests.loopback.reactors import EveryReactor, connect
from tests.loopback.test_websocket_resource import Address, over_tls
from tests.tls.peer import client_context
from twsock.protocols import WebSocketEcho, WebSocketFactory

#: What a client sends in place of ``Upgrade``, which HTTP/2 does not have.
FIELDS = (
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
)


def statuses(secure: socket.socket, port: int) -> list[str]:
    """Send four requests, one behind the other; return the statuses of the responses."""
    connection: Any = importlib.import_module("h2.connection").H2Connection()
    events: Any = importlib.import_module("h2.events")
    connection.initiate_connection()
    found: list[str] = []
    for path, host in (
        ("/page", f"localhost:{port}"),
        ("/chat", f"localhost:{port}"),
        ("/chat", "attacker.example"),
        ("/page", f"localhost:{port}"),
    ):
        head = ((":method", "GET"), (":scheme", "https"), (":authority", host), (":path", path))
        stream = connection.get_next_available_stream_id()
        connection.send_headers(stream, [*head, *FIELDS], end_stream=True)
        is_done = False
        while not is_done:
            secure.sendall(connection.data_to_send())
            for event in connection.receive_data(secure.recv(65_536)):
                if isinstance(event, events.ResponseReceived):
                    found.append(str(dict(event.headers)[b":status"], "ascii"))
                is_done = is_done or isinstance(event, events.StreamEnded)
    return found


class Http2Builder(EveryReactor):
    """HTTP/2 inside TLS, as a browser and a Site agree on it."""

    make_factory = WebSocketFactory
    if importlib.util.find_spec("h2") is None or importlib.util.find_spec("priority") is None:
        skip = "the packages h2 and priority are not installed"

    def test_web_socket_is_refused_and_pages_are_served(self) -> None:
        """With 505; a rule about ``Host`` comes first."""

        def peer(address: Address) -> None:
            context = client_context()
            context.set_alpn_protocols(("h2", "http/1.1"))
            with (
                connect(address) as plain,
                context.wrap_socket(plain, server_hostname="localhost") as secure,
            ):
                self.assertEqual(secure.selected_alpn_protocol(), "h2")
                found = statuses(secure, address[1])
            self.assertEqual(found, ["200", "505", "421", "200"])

        self.serve(WebSocketEcho, peer, over_tls)


globals().update(Http2Builder.makeTestCaseClasses())
