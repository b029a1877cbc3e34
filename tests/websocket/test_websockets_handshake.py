"""The handshake and the compression understand those of the package ``websockets``, both ways."""

from __future__ import annotations

from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    PerMessageDeflate,
    ServerPerMessageDeflateFactory,
)
from websockets.frames import Frame
from websockets.frames import Opcode as TheirOpcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from twsock.websocket.client_handshake import Agreement, ClientHandshake, HandshakeError
from twsock.websocket.deflate import DeflateAgreement, DeflateSettings
from twsock.websocket.handshake import Acceptance, RequestRules
from twsock.websocket.http import ClientHttp, ServerHttp
from twsock.websocket.http_message import Request
from twsock.websocket.uri import WebSocketUri

URI = "ws://example.com:1338/chat?room=1"
MESSAGES = (bytes(300), b"", b"Hello " * 100, bytes(range(256)) * 3, b"Hello " * 100)
SETTINGS = st.builds(
    DeflateSettings,
    context_takeover=st.booleans(),
    max_window_bits=st.integers(9, 15),
    min_size=st.just(0),
)


def serve(client: ClientHandshake, server: ServerProtocol) -> Agreement:
    """Let their server answer our client."""
    http = ClientHttp(client.request)
    server.receive_data(http.request_bytes)
    (request,) = cast("list[Any]", server.events_received())
    server.send_response(server.accept(request))
    response = http.feed(b"".join(server.data_to_send()))
    assert response is not None
    return client.judge(response)


def connect(client: ClientProtocol, rules: RequestRules) -> Acceptance:
    """Let our server answer their client, and their client judge that."""
    client.send_request(client.connect())
    request = ServerHttp().feed(b"".join(client.data_to_send()))
    assert isinstance(request, Request), request
    acceptance = rules.judge(request, is_loopback=False)
    assert isinstance(acceptance, Acceptance), acceptance
    client.receive_data(acceptance.response.encode(now=0))
    if client.handshake_exc is not None:
        raise client.handshake_exc
    return acceptance


class HandshakeTests(SynchronousTestCase):
    """Requests and responses."""

    def client(self, **options: Any) -> ClientHandshake:
        return ClientHandshake(WebSocketUri.parse(URI), key=bytes(16), **options)

    def test_their_server_accepts_our_client(self) -> None:
        """Their server chooses a subprotocol by its own order, too."""
        server = ServerProtocol(subprotocols=cast(Any, ["b", "a"]))
        agreement = serve(self.client(subprotocols=["a", "b", "c"]), server)
        self.assertEqual(agreement.subprotocol, "b")
        self.assertEqual(server.state, State.OPEN)

    def test_their_refusal_is_the_error(self) -> None:
        """A server that wants a subprotocol of its own."""
        with self.assertRaises(HandshakeError) as caught:
            serve(self.client(), ServerProtocol(subprotocols=cast(Any, ["b"])))
        error: HandshakeError = caught.exception
        self.assertEqual(error.web_status, 400)

    def test_our_server_accepts_their_client(self) -> None:
        """Our server chooses a subprotocol by its own order."""
        client = ClientProtocol(parse_uri(URI), subprotocols=cast(Any, ["a", "b", "c"]))
        acceptance = connect(client, RequestRules(subprotocols=["b", "a"]))
        self.assertEqual(acceptance.request.target, "/chat?room=1")
        self.assertEqual(acceptance.request.header("Host"), "example.com:1338")
        self.assertEqual(client.subprotocol, "b")
        self.assertEqual(client.state, State.OPEN)


class CompressionTests(SynchronousTestCase):
    """What both agree on is what both do, message after message."""

    def assert_understood(
        self, ours: DeflateAgreement, theirs: PerMessageDeflate, *, is_server: bool
    ) -> None:
        deflater = ours.deflater(is_server=is_server)
        inflater = ours.inflater(is_server=is_server)
        for data in MESSAGES:
            compressed = deflater.compress(data)
            if compressed is not None:
                frame = theirs.decode(Frame(TheirOpcode.BINARY, compressed, rsv1=True))
                self.assertEqual(bytes(frame.data), data)
            frame = theirs.encode(Frame(TheirOpcode.BINARY, data))
            self.assertTrue(frame.rsv1)
            self.assertEqual(inflater.inflate(bytes(frame.data), len(data)), data)

    @given(SETTINGS, st.booleans(), st.booleans(), st.none() | st.integers(9, 15))
    def test_their_server_and_our_client(
        self, settings: DeflateSettings, server_alone: bool, client_alone: bool, bits: int | None
    ) -> None:
        """With and without context takeover, with each window."""
        theirs = ServerPerMessageDeflateFactory(server_alone, client_alone, bits, bits)
        client = ClientHandshake(WebSocketUri.parse(URI), key=bytes(16), compression=settings)
        server = ServerProtocol(extensions=[theirs])
        agreement = serve(client, server).compression
        assert agreement is not None
        (extension,) = cast("list[PerMessageDeflate]", server.extensions)
        self.assert_understood(agreement, extension, is_server=False)

    @given(
        SETTINGS,
        st.booleans(),
        st.booleans(),
        st.none() | st.integers(9, 15),
        st.none() | st.just(True) | st.integers(9, 15),
    )
    def test_their_client_and_our_server(
        self,
        settings: DeflateSettings,
        server_alone: bool,
        client_alone: bool,
        server_bits: int | None,
        client_bits: int | None,
    ) -> None:
        """The answer keeps to each offer of their client."""
        theirs = ClientPerMessageDeflateFactory(
            server_alone, client_alone, server_bits, client_bits
        )
        client = ClientProtocol(parse_uri(URI), extensions=[theirs])
        agreement = connect(client, RequestRules(compression=settings)).compression
        assert agreement is not None
        (extension,) = cast("list[PerMessageDeflate]", client.extensions)
        self.assert_understood(agreement, extension, is_server=True)
