"""A WebSocket has facts of its handshake."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twsock.sockets import WebSocketInformation
from twsock.websocket.client_handshake import Agreement
from twsock.websocket.http_message import Response


class InformationTests(SynchronousTestCase):
    """Facts before, after and between connects."""

    def test_facts_are_of_the_last_connect(self) -> None:
        """None before it, and again when the next one starts."""
        information = WebSocketInformation()
        self.assertIsNone(information.protocol)
        self.assertFalse(information.is_compressed)
        response = Response(101)
        information.agreed(Agreement(response, "chat"))
        self.assertEqual((information.protocol, information.response), ("chat", response))
        information.lost()
        self.assertEqual(information.protocol, "chat")
        information.asked_for(None, None)
        self.assertIsNone(information.protocol)
        self.assertIsNone(information.response)

    def test_facts_of_a_stream_socket_are_there(self) -> None:
        """W27: Those of certificates among them."""
        information = WebSocketInformation()
        self.assertIsNone(information.server_certificate)
        self.assertEqual(information.server_certificate_errors, ())
        self.assertEqual(information.server_certificate_error_severity, 0)
        self.assertEqual(information.bandwidth_statistics.outbound_bits_per_second, 0)
