"""The rules of a server and its application decide on a request."""

from __future__ import annotations

import dataclasses

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from tests.sockets.websocket.accepted import REQUEST
from twsock.websocket.deflate import DeflateSettings
from twsock.websocket.handshake import Acceptance, Refusal, RequestRules, refuse
from twsock.websocket.http import ServerHttp
from twsock.websocket.http_message import Request
from twsock.websocket.judging import apply_choice, judge_request


def request(*headers: bytes, host: bytes = b"example.com") -> Request:
    """Return a request with this host and further header fields."""
    raw = REQUEST.replace(b"127.0.0.1", host)
    found = ServerHttp().feed(raw[:-2] + b"".join(headers) + b"\r\n")
    assert isinstance(found, Request)
    return found


class JudgingTests(SynchronousTestCase):
    """A request is accepted or refused."""

    def test_loopback_addresses_accept_no_foreign_host(self) -> None:
        """A page of an attacker may have a name that leads to a loopback address."""
        for local, is_accepted in (
            (IPv4Address("TCP", "127.0.0.1", 80), False),
            (IPv4Address("TCP", "192.0.2.1", 80), True),
            (IPv6Address("TCP", "::1", 80), False),
            (IPv6Address("TCP", "::1%lo", 80), False),
            (IPv6Address("TCP", "::ffff:127.0.0.1", 80), False),
            (IPv6Address("TCP", "fe80::1%lo", 80), True),
            (UNIXAddress(b"/socket"), True),
        ):
            judged = judge_request(RequestRules(), request(), local)
            self.assertIs(isinstance(judged, Acceptance), is_accepted, local)

    def test_application_accepts_changes_or_refuses(self) -> None:
        """None accepts; a name is a subprotocol; an acceptance adds fields; a refusal stays."""
        given = Acceptance(request(b"Sec-WebSocket-Protocol: a, b\r\n"), "a")
        self.assertIs(apply_choice(None, given), given)
        named = apply_choice("b", given)
        assert isinstance(named, Acceptance)
        self.assertEqual(named.subprotocol, "b")
        added = Acceptance(given.request, headers=(("X-A", "1"),))
        self.assertEqual(apply_choice(added, given), added)
        compressing = DeflateSettings().accept([("permessage-deflate", ())])
        wanted = apply_choice(dataclasses.replace(given, compression=compressing), given)
        assert isinstance(wanted, Acceptance)
        self.assertIsNone(wanted.compression, "the rules decide on it")
        refusal = refuse(403, "no")
        self.assertIsInstance(apply_choice(refusal, given), Refusal)

    def test_subprotocol_that_is_not_offered_is_an_error(self) -> None:
        """:rfc:`6455`, section 4.2.2: the client has to offer it."""
        self.assertRaises(ValueError, apply_choice, "c", Acceptance(request()))

    def test_decision_of_another_type_is_an_error(self) -> None:
        """A hook that returns whether to accept would else accept what it refuses."""
        given = Acceptance(request())
        for wrong in (True, False, 403, b"a"):
            with self.assertRaises(TypeError, msg=repr(wrong)):
                apply_choice(wrong, given)  # type: ignore[arg-type]
