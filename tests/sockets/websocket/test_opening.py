"""What was agreed decides on the decoder and the encoder."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twsock import RemoteProtocolError, SocketErrorStatus
from twsock.sockets import StreamWebSocketControl
from twsock.sockets.websocket.opening import Opening
from twsock.websocket import DeflateSettings, WebSocketViolation
from twsock.websocket.client_handshake import Agreement, ClientHandshake
from twsock.websocket.frames import Opcode, encode_frame
from twsock.websocket.handshake import accept_key
from twsock.websocket.http import ClientHttp
from twsock.websocket.http_message import Response
from twsock.websocket.uri import WebSocketUri

COMPRESSION = DeflateSettings()
OPTIONS = (
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover;"
    " server_max_window_bits=12; client_max_window_bits=12"
)
#: The first bytes of a frame of 2**62 bytes.
HUGE = b"\x82\x7f" + (1 << 62).to_bytes(8, "big") + b"a"


def opening(max_message_size: int | None = None, compression: bool = False) -> Opening:
    handshake = ClientHandshake(
        WebSocketUri.parse("ws://a.example/"),
        key=bytes(16),
        compression=COMPRESSION if compression else None,
    )
    return Opening(handshake, StreamWebSocketControl(lambda: False), max_message_size, True, 1.0)


class OpeningTests(SynchronousTestCase):
    """Decoders and encoders."""

    def test_messages_of_streams_have_any_size(self) -> None:
        """Compressed messages have a limit of 16 MiB."""
        plain = opening().make_decoder(Agreement(Response(101)))
        plain.feed(HUGE)
        self.assertEqual(list(plain.messages()), [(Opcode.BINARY, b"a", False)])
        made = opening(compression=True)
        agreed = made.handshake.judge(self.accepting(made))
        assert agreed.compression is not None
        limited = made.make_decoder(agreed)
        limited.feed(HUGE)
        self.assertRaises(WebSocketViolation, list, limited.messages())

    def accepting(self, made: Opening) -> Response:
        """Return the response that agrees to compression."""
        key = made.handshake.request.header("Sec-WebSocket-Key") or ""
        return Response(
            101,
            (
                ("Upgrade", "websocket"),
                ("Connection", "Upgrade"),
                ("Sec-WebSocket-Accept", accept_key(key)),
                ("Sec-WebSocket-Extensions", OPTIONS),
            ),
        )

    def test_limit_of_messages_is_kept(self) -> None:
        """In the header already."""
        decoder = opening(4).make_decoder(Agreement(Response(101)))
        decoder.feed(encode_frame(Opcode.BINARY, b"12345")[:2])
        self.assertRaises(WebSocketViolation, list, decoder.messages())

    def test_frames_are_masked(self) -> None:
        """A client masks."""
        encoder = opening().make_encoder(Agreement(Response(101)))
        self.assertEqual(encoder.encode(Opcode.BINARY, b"a")[:2], b"\x82\x81")

    def test_malformed_responses_have_a_status(self) -> None:
        """More bytes may be needed."""
        made = opening()
        http = ClientHttp(made.handshake.request)
        self.assertIsNone(made.read_response(http, b"HTTP/1.1 101"))
        with self.assertRaises(RemoteProtocolError) as caught:
            made.read_response(http, b"\0")
        status = SocketErrorStatus.HTTP_INVALID_SERVER_RESPONSE
        self.assertIs(caught.exception.status, status)
