"""An upgrade under wrapping factories of Twisted, and behind a proxy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.protocols.policies import TimeoutFactory, TrafficLoggingFactory, WrappingFactory

from tests.loopback.hostile import (
    BROKEN_HELLOS,
    FORMATS,
    FRAMES,
    GOOD_CERTIFICATE,
    TLS,
    Address,
    Format,
    Hostile,
    attacker,
    identified,
)
from tests.loopback.reactors import on_every_reactor
from tests.tls.peer import client_context
from twsock.protocols import (
    UpgradeToSsl,
)
from twsock.tls.server import ClientCertificatePolicy, ServerTls

PROXY = b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 2000\r\n"


class WrapperTests(Hostile):
    """Factories between the socket and the protocol."""

    #: Factories of Twisted that wrap those of twsock.
    WRAPS: tuple[Callable[[Any, Any], Any], ...] = (
        lambda _reactor, factory: WrappingFactory(factory),
        lambda _reactor, factory: TimeoutFactory(WrappingFactory(factory), 30),
    )

    @on_every_reactor
    def test_an_upgrade_under_a_wrapper_is_secure_and_reported(self) -> None:
        """S16: with both triggers, and a clean end."""
        tls = ServerTls(identified(ClientCertificatePolicy.REQUIRED))
        context = client_context(GOOD_CERTIFICATE)
        answer = FRAMES.encode(b"got x")

        def attack(address: Address) -> None:
            for trigger in (b"", FRAMES.request):
                with attacker(address, context) as client:
                    client.send(trigger + client.tls.hello())
                    if trigger:
                        self.assertEqual(
                            client.receive(len(FRAMES.go_ahead)), FRAMES.go_ahead, f"{trigger=}"
                        )
                    self.assertTrue(client.go_on(), f"{trigger=}")
                    self.assertEqual(
                        client.ask(FRAMES.encode(b"x"), len(answer)), answer, f"{trigger=}"
                    )
                    client.send(client.tls.end())
                    client.rest()

        for wrap in self.WRAPS:
            seen = self.attack(attack, upgrade=UpgradeToSsl(tls), count=2, wrap=wrap)
            self.assertEqual(seen.announced, [False] * 2, f"{wrap=}")
            self.assertEqual(seen.secured, [True] * 2, f"{wrap=}")
            self.assertEqual(seen.messages, [(b"x", True)] * 2, f"{wrap=}")
            self.assertEqual(seen.certificates, ["mallory"] * 2, f"{wrap=}")
            self.assertEqual(seen.lost, [None] * 2, f"{wrap=}")

    def test_attacks_under_a_wrapper_are_refused(self) -> None:
        """S16: plaintext behind the request, garbage in place of a hello, silence."""

        def attack(address: Address) -> None:
            for behind in (FRAMES.evil, BROKEN_HELLOS[0], b""):
                with attacker(address) as mallory:
                    mallory.send(FRAMES.request + behind)
                    self.assertNotIn(b"got", mallory.rest(), f"{behind=}")

        hasty = UpgradeToSsl(TLS, handshake_timeout=0.1)
        for wrap in self.WRAPS:
            self.assert_refused(self.attack(attack, upgrade=hasty, count=3, wrap=wrap), 3)

    def test_a_log_of_the_traffic_has_no_plaintext_after_the_upgrade(self) -> None:
        """S16: a factory that logs the traffic sees the plaintext before it, and TLS."""
        logged: list[bytes] = []

        class Log(TrafficLoggingFactory):
            def open(self, name: str) -> Any:
                return self

            def write(self, line: str) -> None:
                logged.append(line.encode())

            def flush(self) -> None:
                """Keep nothing back."""

            def close(self) -> None:
                """Stay open for the next connection."""

        def attack(address: Address) -> None:
            with attacker(address) as client:
                client.send(FRAMES.encode(b"open") + FRAMES.request + client.tls.hello())
                client.receive(len(FRAMES.encode(b"got open") + FRAMES.go_ahead))
                self.assertTrue(client.go_on(behind=FRAMES.encode(b"secret")))
                answer = FRAMES.encode(b"got secret")
                self.assertEqual(client.inside(len(answer)), answer)

        seen = self.attack(attack, wrap=lambda _reactor, factory: Log(factory, "traffic"))
        self.assertEqual(seen.messages, [(b"open", False), (b"secret", True)])
        self.assertIn(b"got open", b"".join(logged))
        self.assertNotIn(b"secret", b"".join(logged))

    def test_behind_a_proxy_a_pipelined_upgrade_is_secure(self) -> None:
        """S17: header, request and ClientHello, wherever they are cut."""
        for server in FORMATS:
            front = PROXY + server.request
            end = len(front)
            cuts = (0, 3, len(PROXY) - 1, len(PROXY), *range(end - 1, end + 4))
            answer = server.encode(b"got x")

            def attack(
                address: Address,
                server: Format = server,
                front: bytes = front,
                cuts: Any = cuts,
                answer: bytes = answer,
            ) -> None:
                for cut in cuts:
                    with attacker(address) as client:
                        stream = front + client.tls.hello()
                        client.send(stream[:cut])
                        client.send(stream[cut:])
                        self.assertEqual(
                            client.receive(len(server.go_ahead)), server.go_ahead, f"{cut=}"
                        )
                        self.assertTrue(client.go_on(), f"{cut=}")
                        self.assertEqual(
                            client.ask(server.encode(b"x"), len(answer)), answer, f"{cut=}"
                        )

            seen = self.attack(attack, server, count=9, behind_proxy=True)
            self.assertEqual(seen.secured, [True] * 9, f"{server=}")
            self.assertEqual(seen.messages, [(b"x", True)] * 9, f"{server=}")

    def test_behind_a_proxy_attacks_are_refused(self) -> None:
        """S17: a message behind the request, in one segment with the header; a second header."""

        def attack(address: Address) -> None:
            for behind in (FRAMES.evil, PROXY):
                with attacker(address) as mallory:
                    mallory.send(PROXY + FRAMES.request + behind)
                    self.assertIn(mallory.rest(), (FRAMES.go_ahead, b""), f"{behind=}")

        seen = self.attack(attack, count=2, behind_proxy=True)
        self.assertEqual((seen.messages, seen.secured), ([], []))
        for warning in seen.warnings:
            self.assertRegex(warning, r"^192\.0\.2\.1:1000 aborted: plaintext after", f"{warning=}")
        self.assertEqual(len(seen.warnings), 2)


globals().update(WrapperTests.makeTestCaseClasses())
del WrapperTests
