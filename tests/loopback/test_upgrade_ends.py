"""Clients that end or fall silent in the middle of an upgrade."""

from __future__ import annotations

import itertools
import ssl
from collections.abc import Callable, Iterator
from typing import Any

from tests.loopback.hostile import (
    EVIL,
    FORMATS,
    FRAMES,
    IMPLICIT,
    TLS,
    TLS12,
    TLS13,
    Address,
    Attacker,
    Format,
    Hostile,
    Seen,
    attacker,
)
from tests.loopback.reactors import on_every_reactor
from twsock.errors import BrokenError, SocketError
from twsock.protocols import (
    UpgradePolicy,
    UpgradeToSsl,
)


class SilenceTests(Hostile):
    """Clients that begin an upgrade and do not continue: each ends at the deadline."""

    def test_a_silent_client_ends_at_the_deadline_and_frees_its_place(self) -> None:
        """S10: behind the go-ahead, in the middle of a hello, in the middle of a handshake."""
        # Two steps in each format: each costs a deadline.
        for server, steps in zip(FORMATS, ((0, 1), (2, 3)), strict=True):
            answer = server.encode(b"got x")
            connections = itertools.count()

            class Impatient(server.protocol):  # type: ignore[misc, name-defined]
                def connectionMade(self, connections: Iterator[int] = connections) -> None:
                    # Attackers and honest clients take turns. An honest one has time, also on a
                    # busy machine.
                    if next(connections) % 2 == 0:
                        self.upgrade = UpgradeToSsl(TLS, handshake_timeout=0.1)
                    super().connectionMade()

            def begin(mallory: Attacker, step: int, server: Format = server) -> None:
                if step < 2:
                    mallory.send(server.request)
                    mallory.receive(len(server.go_ahead))
                if step:
                    hello = mallory.tls.hello()
                    mallory.send(hello[:20] if step < 3 else hello)

            def attack(
                address: Address,
                begin: Any = begin,
                server: Format = server,
                answer: bytes = answer,
                steps: tuple[int, int] = steps,
            ) -> None:
                for step in steps:
                    with attacker(address) as mallory, attacker(address) as client:
                        begin(mallory, step)
                        mallory.rest()
                        client.shake_hands()
                        self.assertEqual(
                            client.ask(server.encode(b"x"), len(answer)), answer, f"{step=}"
                        )
                        client.send(client.tls.end())
                        client.rest()

            impatient = Format(Impatient, server.encode)
            seen = self.attack(attack, impatient, count=4, max_connections=1)
            self.assertEqual(seen.messages, [(b"x", True)] * 2, f"{server=}")
            self.assertEqual(len(self.violations(seen)), 2, seen.warnings)

    @on_every_reactor
    def test_a_handshake_in_single_bytes_ends_at_the_same_deadline(self) -> None:
        """S10: one byte after the other, until the server ends the connection."""
        for upgrade in (
            UpgradeToSsl(TLS, handshake_timeout=0.1),
            UpgradeToSsl(TLS, UpgradePolicy.IMPLICIT, handshake_timeout=0.1),
        ):

            def attack(address: Address) -> None:
                with attacker(address) as mallory:
                    hello = mallory.tls.hello()
                    for byte in hello[:-1]:
                        mallory.send(bytes([byte]))
                        if mallory.say_nothing_for(0.01):
                            break
                    self.assertEqual(mallory.rest(), b"")

            seen = self.attack(attack, FRAMES, upgrade)
            self.assert_refused(seen, 1)

    def test_a_handshake_has_the_time_left_since_the_go_ahead(self) -> None:
        """
        S10: one deadline runs from the go-ahead to the end of the handshake; idle timeouts do not
        count.
        """

        def attack(address: Address) -> None:
            with attacker(address) as mallory:
                mallory.send(FRAMES.request)
                mallory.receive(len(FRAMES.go_ahead))
                mallory.send(mallory.tls.hello())
                self.assertTrue(mallory.rest().startswith(b"\x16\x03"))

        hasty = UpgradeToSsl(TLS, handshake_timeout=0.1)
        self.assert_refused(self.attack(attack, FRAMES, hasty, idle_timeout=None), 1)

    def violations(self, seen: Seen) -> list[str]:
        """Return the log events of peers that were refused."""
        return [warning for warning in seen.warnings if warning.startswith("TLS handshake with ")]


class EndTests(Hostile):
    """Connections that end in the middle of an upgrade."""

    #: The steps of a client.
    STEPS = ("nothing", "half a request", "request", "go-ahead", "half a hello", "hello", "secure")

    def go(self, mallory: Attacker, step: str) -> None:
        """Do the steps up to this one."""
        reached = self.STEPS.index(step)
        hello = mallory.tls.hello()
        if reached >= 1:
            mallory.send(FRAMES.request[:7])
        if reached >= 2:
            mallory.send(FRAMES.request[7:])
        if reached >= 3:
            mallory.receive(len(FRAMES.go_ahead))
        if reached >= 4:
            mallory.send(hello[:50])
        if reached >= 5:
            mallory.send(hello[50:])
        if reached >= 6:
            self.assertTrue(mallory.go_on())

    @on_every_reactor
    def test_a_reset_at_each_step_is_reported_once(self) -> None:
        """S14: one end for each connection, no message, and nothing is left."""
        for end in (Attacker.reset, Attacker.finish):

            def attack(address: Address, end: Callable[[Attacker], None] = end) -> None:
                for step in self.STEPS:
                    with attacker(address) as mallory:
                        self.go(mallory, step)
                        end(mallory)
                        if end is Attacker.finish:
                            mallory.rest()

            seen = self.attack(attack, count=len(self.STEPS))
            self.assertEqual(len(seen.announced), len(self.STEPS), f"{end=}")
            self.assertEqual(len(seen.lost), len(self.STEPS), f"{end=}")
            self.assertEqual((seen.messages, seen.secured), ([], [True]), f"{end=}")

    def test_with_tls_first_only_secure_connections_are_reported(self) -> None:
        """S14: a reset before the end of the handshake is no event of the application."""

        def attack(address: Address) -> None:
            for end in (Attacker.reset, Attacker.finish):
                for cut in (0, 1, 50, 10_000):
                    with attacker(address) as mallory:
                        mallory.send(mallory.tls.hello()[:cut])
                        end(mallory)
                with attacker(address) as mallory:
                    mallory.shake_hands()
                    end(mallory)

        seen = self.attack(attack, upgrade=IMPLICIT, count=10)
        self.assertEqual((seen.announced, len(seen.lost)), ([True] * 2, 2))

    def test_close_notify_in_place_of_a_hello_is_a_truncation(self) -> None:
        """S15: in plaintext, right behind the go-ahead."""
        farewell = b"\x15\x03\x03\0\2\1\0"

        def attack(address: Address) -> None:
            for hello in (False, True):
                with attacker(address) as mallory:
                    mallory.send(FRAMES.request)
                    mallory.receive(len(FRAMES.go_ahead))
                    if hello:
                        mallory.send(mallory.tls.hello())
                        mallory.some()
                    mallory.send(farewell)
                    mallory.rest()

        seen = self.attack(attack, count=2)
        self.assert_refused(seen, 2)
        self.assertEqual([isinstance(error, SocketError) for error in seen.lost], [True] * 2)

    def test_close_notify_inside_tls_is_a_clean_end(self) -> None:
        """S15: right behind the handshake, and behind a message, which is handled."""
        for version in (TLS12, TLS13):

            def attack(address: Address, version: ssl.SSLContext = version) -> None:
                for message in (b"", FRAMES.encode(b"x")):
                    with attacker(address, version) as client:
                        self.assertTrue(client.shake_hands(), f"{message=}")
                        client.send(
                            (client.tls.say(message) if message else b"") + client.tls.end()
                        )
                        client.rest()

            seen = self.attack(attack, count=2)
            self.assertEqual(seen.lost, [None, None], f"{version=}")
            self.assertEqual(seen.messages, [(b"x", True)], f"{version=}")

    @on_every_reactor
    def test_a_fin_without_close_notify_is_a_truncation(self) -> None:
        """S15: at a boundary and in the middle of a message; the end is reported as an error."""
        for version in (TLS12, TLS13):

            def attack(address: Address, version: ssl.SSLContext = version) -> None:
                for message in (b"", FRAMES.evil, FRAMES.evil[:6]):
                    with attacker(address, version) as mallory:
                        self.assertTrue(mallory.shake_hands(), f"{message=}")
                        if message:
                            mallory.send(mallory.tls.say(message))
                        mallory.finish()
                        mallory.rest()

            seen = self.attack(attack, count=3)
            self.assertEqual(
                [isinstance(error, BrokenError) for error in seen.lost], [True] * 3, f"{version=}"
            )
            self.assertEqual(seen.messages, [(EVIL, True)], f"{version=}")


for case in (SilenceTests, EndTests):
    globals().update(case.makeTestCaseClasses())
del SilenceTests, EndTests, case
