"""Plaintext before a handshake: it is not handled after it, and leaves no state."""

from __future__ import annotations

from typing import Any

from tests.loopback.hostile import (
    BROKEN_HELLOS,
    EVIL,
    FORMATS,
    FRAMES,
    IMPLICIT,
    NO_HELLOS,
    REQUIRED,
    TLS13,
    Address,
    Format,
    Hostile,
    attacker,
)
from tests.loopback.reactors import on_every_reactor
from tests.tls.peer import ClientPeer


class InjectionTests(Hostile):
    """Plaintext that an attacker on the path writes before the handshake."""

    @on_every_reactor
    def test_plaintext_in_one_segment_with_the_request_aborts(self) -> None:
        """S1: it is not handled, and at most the go-ahead is answered."""
        for server in FORMATS:
            answers: list[bytes] = []

            def attack(address: Address, server: Format = server, answers: Any = answers) -> None:
                with attacker(address) as mallory:
                    mallory.send(server.request + server.evil)
                    answers.append(mallory.rest())

            seen = self.attack(attack, server)
            self.assert_refused(seen, 1)
            self.assertIn(answers, ([server.go_ahead], [b""]), f"{server=}")

    def test_plaintext_behind_the_request_aborts_at_every_cut(self) -> None:
        """S2, S3: within the request, at the boundary, behind the go-ahead, byte by byte."""
        for server in FORMATS:
            stream = server.request + server.evil
            cuts = range(1, len(stream))

            def attack(
                address: Address,
                server: Format = server,
                stream: bytes = stream,
                cuts: Any = cuts,
            ) -> None:
                for cut in cuts:
                    with attacker(address) as mallory:
                        mallory.send(stream[:cut])
                        if cut >= len(server.request):
                            mallory.receive(len(server.go_ahead))
                        mallory.send(stream[cut:])
                        self.assertIn(mallory.rest(), (server.go_ahead, b""), f"{cut=}")
                with attacker(address) as mallory:
                    mallory.send(stream, step=1)
                    self.assertIn(mallory.rest(), (server.go_ahead, b""))

            self.assert_refused(self.attack(attack, server, count=len(cuts) + 1), len(cuts) + 1)

    def test_a_message_begun_in_plaintext_aborts(self) -> None:
        """S5: each beginning of a message, whose end would be inside TLS."""
        for server in FORMATS:

            def attack(address: Address, server: Format = server) -> None:
                for cut in range(1, 6):
                    with attacker(address) as mallory:
                        mallory.send(server.request + server.evil[:cut] + mallory.tls.hello())
                        self.assertIn(mallory.rest(), (server.go_ahead, b""), f"{cut=}")

            self.assert_refused(self.attack(attack, server, count=5), 5)

    def test_a_second_request_aborts(self) -> None:
        """S6: in one segment with the first, and behind the go-ahead."""
        for server in FORMATS:

            def attack(address: Address, server: Format = server) -> None:
                for waits in (False, True):
                    with attacker(address) as mallory:
                        mallory.send(server.request)
                        if waits:
                            mallory.receive(len(server.go_ahead))
                        mallory.send(server.request)
                        self.assertIn(mallory.rest(), (server.go_ahead, b""), f"{waits=}")

            self.assert_refused(self.attack(attack, server, count=2), 2)

    def test_a_request_inside_tls_is_refused(self) -> None:
        """S6: the connection continues, and a ClientHello inside TLS is a message."""
        for server in FORMATS:
            refusal, answer = server.encode(b"NO"), server.encode(b"got x")

            def attack(
                address: Address,
                server: Format = server,
                refusal: bytes = refusal,
                answer: bytes = answer,
            ) -> None:
                with attacker(address) as mallory:
                    self.assertTrue(mallory.shake_hands())
                    for attempt in range(2):
                        self.assertEqual(
                            mallory.ask(server.request, len(refusal)), refusal, f"{attempt=}"
                        )
                        self.assertEqual(
                            mallory.ask(server.encode(b"x"), len(answer)), answer, f"{attempt=}"
                        )
                    mallory.send(mallory.tls.say(ClientPeer(TLS13).hello() + b"\n"))
                    mallory.send(mallory.tls.end())
                    mallory.rest()

            seen = self.attack(attack, server)
            self.assertEqual(seen.secured, [True], f"{server=}")
            self.assertNotIn(False, [is_secure for _, is_secure in seen.messages], f"{server=}")

    def test_bytes_that_are_no_hello_abort(self) -> None:
        """S9: behind the go-ahead, and in place of a direct handshake."""
        for server in FORMATS:

            def attack(address: Address, server: Format = server) -> None:
                for words in NO_HELLOS + BROKEN_HELLOS:
                    with attacker(address) as mallory:
                        mallory.send(server.request)
                        self.assertEqual(
                            mallory.receive(len(server.go_ahead)), server.go_ahead, f"{words=}"
                        )
                        mallory.send(words + server.evil)
                        mallory.finish()
                        self.assert_only_alerts(mallory.rest())

            count = len(NO_HELLOS + BROKEN_HELLOS)
            self.assert_refused(self.attack(attack, server, count=count), count)

    def test_with_tls_first_bytes_that_are_no_hello_are_no_event(self) -> None:
        """S9: the application gets no call."""

        def attack(address: Address) -> None:
            for words in (*NO_HELLOS, *BROKEN_HELLOS, FRAMES.request, FRAMES.evil):
                with attacker(address) as mallory:
                    mallory.send(words)
                    mallory.finish()
                    self.assert_only_alerts(mallory.rest())

        count = len(NO_HELLOS + BROKEN_HELLOS) + 2
        seen = self.attack(attack, FRAMES, IMPLICIT, count=count)
        self.assert_refused(seen, count)
        self.assertEqual((seen.announced, seen.lost), ([], []))

    def test_plaintext_in_the_middle_of_a_handshake_aborts(self) -> None:
        """S9: plaintext behind a correct ClientHello is neither handled nor answered."""
        for server in FORMATS:

            def attack(address: Address, server: Format = server) -> None:
                for waits in (False, True):
                    with attacker(address) as mallory:
                        mallory.send(server.request)
                        mallory.receive(len(server.go_ahead))
                        mallory.send(mallory.tls.hello())
                        if waits:
                            mallory.some()
                        mallory.send(server.evil * 3)
                        mallory.finish()
                        self.assertNotIn(b"got", mallory.rest(), f"{waits=}")

            self.assert_refused(self.attack(attack, server, count=2), 2)

    def assert_only_alerts(self, answer: bytes) -> None:
        """Require that the server answered nothing, or a TLS alert."""
        self.assertIn(answer[:2], (b"", b"\x15\x03"), f"{answer=}")
        self.assertLessEqual(len(answer), 14, f"{answer=}")


class StateTests(Hostile):
    """Messages and state from before the handshake."""

    def test_a_name_from_before_the_handshake_is_dropped(self) -> None:
        """S7: session fixation; with both triggers."""
        for server in FORMATS:
            nobody = server.encode(b"nobody")
            named = server.encode(b"got I am root")

            def attack(
                address: Address,
                server: Format = server,
                nobody: bytes = nobody,
                named: bytes = named,
            ) -> None:
                for trigger in (b"", server.request):
                    with attacker(address) as client:
                        client.send(server.encode(b"I am root") + trigger)
                        client.receive(len(named) + (len(server.go_ahead) if trigger else 0))
                        self.assertTrue(client.shake_hands(), f"{trigger=}")
                        self.assertEqual(
                            client.ask(server.encode(b"who am I"), 6), nobody, f"{trigger=}"
                        )

            seen = self.attack(attack, server, count=2)
            self.assertEqual(seen.messages[1::2], [(b"who am I", True)] * 2, f"{server=}")

    @on_every_reactor
    def test_messages_before_a_required_upgrade_are_dropped(self) -> None:
        """S8: they are not answered, and not kept for later."""
        for server in FORMATS:
            answer = server.encode(b"got x")

            def attack(address: Address, server: Format = server, answer: bytes = answer) -> None:
                for step in (0, 1):
                    for trigger in (b"", server.request):
                        with attacker(address) as mallory:
                            mallory.send(server.evil * 3 + trigger, step)
                            if trigger:
                                self.assertEqual(
                                    mallory.receive(len(server.go_ahead)),
                                    server.go_ahead,
                                    f"{step=}, {trigger=}",
                                )
                            self.assertTrue(mallory.shake_hands(step), f"{step=}, {trigger=}")
                            self.assertEqual(
                                mallory.ask(server.encode(b"x"), len(answer)),
                                answer,
                                f"{step=}, {trigger=}",
                            )

            seen = self.attack(attack, server, REQUIRED, count=4)
            self.assertEqual(seen.messages, [(b"x", True)] * 4, f"{server=}")
            self.assertNotIn(EVIL.decode(), seen.text, f"{server=}: {seen.text}")

    def test_more_than_four_kib_before_a_required_upgrade_aborts(self) -> None:
        """S8: also in many messages."""
        for server in FORMATS:

            def attack(address: Address, server: Format = server) -> None:
                with attacker(address) as mallory:
                    mallory.send(server.evil * 1000)
                    self.assertEqual(mallory.rest(), b"")

            self.assert_refused(self.attack(attack, server, REQUIRED), 1)


for case in (InjectionTests, StateTests):
    globals().update(case.makeTestCaseClasses())
del InjectionTests, StateTests, case
