"""The private names of pyOpenSSL exist; without them handshakes use public functions only."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import OpenSSL
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from tests.tls.peer import ServerPeer
from twsock.tls.naming import from_openssl
from twsock.tls.openssl import BINDING, Binding, Judge, find_binding, verify_peer


class Judging:
    """
    Verifies as the test says.

    :param code: the verdict on the server's certificate; 0 accepts it.
    """

    def __init__(self, code: int = 0) -> None:
        self.steps: list[tuple[int, int, int]] = []
        self.subjects: list[str] = []
        self._code = code

    def judge(
        self, _connection: SSL.Connection, shown: Any, code: int, depth: int, ok: int
    ) -> tuple[bool, int]:
        self.steps.append((code, depth, ok))
        if not ok or depth:
            return True, code
        self.subjects.append(from_openssl(shown).subject)
        return not self._code, self._code


def shake_hands(judge: Judge, binding: Binding | None, peer: ServerPeer) -> SSL.Connection:
    """Do a handshake as a client; an error that the server reads is its own exception."""
    connection = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
    connection.set_connect_state()
    verify_peer(connection, SSL.VERIFY_PEER, judge, binding)
    while True:
        try:
            connection.do_handshake()
        except SSL.WantReadError:
            connection.bio_write(peer.take(connection.bio_read(65536)))
            continue
        except SSL.Error:
            pass
        peer.take(connection.bio_read(65536))
        return connection


class BindingTests(SynchronousTestCase):
    """`find_binding`: it looks for the private names once, and needs all of them."""

    def test_this_release_of_pyopenssl_has_all_names(self) -> None:
        """
        All private names exist.

        If this fails, `twsock.tls.openssl` needs the new names; until then sessions are not resumed
        and alerts are those of public functions.
        """
        self.assertIsNotNone(BINDING)

    def test_without_one_of_the_names_there_is_no_binding(self) -> None:
        """Importing raises no error."""
        util: Any = getattr(OpenSSL, "_util", None)
        self.assertIsNotNone(find_binding(util))
        self.assertIsNone(find_binding(None))
        self.assertIsNone(find_binding(SimpleNamespace(ffi=util.ffi, lib=SimpleNamespace())))

    def test_with_and_without_the_binding_the_verification_is_the_same(self) -> None:
        """The errors are reported, then the certificates from the root to the server."""
        for binding in (BINDING, None):
            judging = Judging()
            peer = ServerPeer()
            connection = shake_hands(judging.judge, binding, peer)
            self.assertTrue(peer.is_done, f"{binding is None=}")
            self.assertEqual(
                [step[1:] for step in judging.steps][-1], (0, 1), f"{binding is None=}"
            )
            self.assertIn((20, 0, 0), judging.steps, f"{binding is None=}: {judging.steps}")
            self.assertEqual(judging.subjects, ["server"], f"{binding is None=}")
            if binding is not None:
                self.assertEqual(binding.verify_result(connection), 0, f"{binding is None=}")
                self.assertFalse(binding.is_resumed(connection), f"{binding is None=}")

    def test_the_refused_peer_reads_the_alert_of_the_code(self) -> None:
        """Without the private names it is the alert of an internal error."""
        for binding, alert in ((BINDING, "certificate revoked"), (None, "internal error")):
            peer = ServerPeer()
            with self.assertRaises(OSError) as refused:
                shake_hands(Judging(23).judge, binding, peer)
            self.assertIn(
                f"alert {alert}", str(refused.exception), f"{binding is None=}: {refused.exception}"
            )

    def test_a_verification_that_raises_refuses_the_peer(self) -> None:
        """The error is logged."""

        def fail(*_step: object) -> tuple[bool, int]:
            raise ZeroDivisionError

        with self.assertRaises(OSError):
            shake_hands(fail, BINDING, ServerPeer())
        self.assertTrue(self.flushLoggedErrors(ZeroDivisionError))
