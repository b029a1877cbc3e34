"""Hostile clients of accepted sockets, which the application upgrades at a boundary it knows."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import formatEvent

from tests.loopback.hostile import (
    BROKEN_HELLOS,
    CERTIFICATE,
    EVIL,
    NO_HELLOS,
    Address,
    Attacker,
    Hostile,
    Seen,
    attacker,
    echo,
)
from tests.loopback.reactors import on_every_reactor
from twsock.errors import BrokenError, LocalProtocolError, SocketError
from twsock.sockets import StreamSocket
from twsock.tls.levels import SocketProtectionLevel


class SocketTests(Hostile):
    """Accepted sockets that the application upgrades at a boundary."""

    def upgraded(
        self, delivered: list[bytes], timeout: float = 5, before: bytes = b""
    ) -> Callable[[StreamSocket], Any]:
        """Serve a request of two bytes, a go-ahead, then an echo inside TLS."""

        async def serve(accepted: StreamSocket) -> None:
            async with accepted:
                self.assertEqual(await accepted.input_stream.receive_exactly(2), b"GO")
                await accepted.output_stream.write(before + b"OK")
                upgrading = accepted.upgrade_to_ssl(
                    SocketProtectionLevel.TLS13, certificate=CERTIFICATE, timeout=timeout
                )
                # The call raises an error if the connection is gone already.
                accepted.output_stream.write(b"first inside").addErrback(lambda _: None)
                await upgrading
                async for chunk in accepted.input_stream:
                    delivered.append(chunk)
                    await accepted.output_stream.send_all(chunk)

        return serve

    def assert_nothing_got_in(self, seen: Seen, delivered: list[bytes]) -> None:
        self.assertEqual(delivered, [])
        self.assertNotIn(EVIL.decode(), seen.text)

    def test_plaintext_behind_the_request_aborts(self) -> None:
        """S1, S2, S3, S5, S9: with it, or behind the go-ahead; nothing of it is delivered."""
        delivered: list[bytes] = []
        words = (EVIL, *NO_HELLOS, *BROKEN_HELLOS)

        def attack(address: Address) -> None:
            for behind in words:
                for waits in (False, True):
                    with attacker(address) as mallory:
                        mallory.send(b"GO" + (b"" if waits else behind))
                        if waits:
                            mallory.receive(2)
                            mallory.send(behind)
                        mallory.send(EVIL)
                        mallory.finish()
                        self.assertNotIn(b"inside", mallory.rest(), f"{behind=}, {waits=}")

        seen = self.attack_socket(attack, self.upgraded(delivered), count=2 * len(words))
        self.assert_nothing_got_in(seen, delivered)
        self.assertEqual(len(self.ends(seen)), 2 * len(words))
        # Some was there when the upgrade began, and some failed in its handshake.
        self.assertEqual(len(seen.warnings), 2 * len(words))
        for warning in seen.warnings:
            self.assertRegex(
                warning,
                r"^(127\.0\.0\.1 port \d+ aborted: peer sent \d+ bytes|"
                r"TLS handshake with 127\.0\.0\.1 port \d+ failed: )",
                f"{warning=}",
            )

    @on_every_reactor
    def test_earlier_writes_leave_before_the_handshake(self) -> None:
        """S4, S11, S13: with a full send buffer; bytes written after the call wait."""
        delivered: list[bytes] = []
        before = bytes(2_000_000) + b"OK"

        def attack(address: Address) -> None:
            for cut in (1, 2, 3, 4, 5, 10_000):
                with attacker(address) as client:
                    stream = b"GO" + client.tls.hello()
                    client.send(stream[:cut])
                    client.send(stream[cut:])
                    self.assertTrue(client.receive(len(before)) == before, f"{cut=}")
                    self.assertTrue(client.go_on(behind=b"inside"), f"{cut=}")
                    self.assertEqual(client.inside(18), b"first insideinside", f"{cut=}")
                    client.send(client.tls.end())
                    client.rest()

        serve = self.upgraded(delivered, before=bytes(2_000_000))
        self.attack_socket(attack, serve, count=6)
        self.assertEqual(delivered, [b"inside"] * 6)

    def test_a_silent_client_ends_at_the_deadline(self) -> None:
        """S10: without a hello, with half of one, and with a whole one."""
        delivered: list[bytes] = []

        def attack(address: Address) -> None:
            for cut in (0, 100, 10_000):
                with attacker(address) as mallory, attacker(address) as client:
                    mallory.send(b"GO")
                    mallory.receive(2)
                    mallory.send(mallory.tls.hello()[:cut])
                    mallory.rest()
                    client.send(b"GO")
                    client.receive(2)
                    self.assertTrue(client.shake_hands(behind=b"x"), f"{cut=}")
                    self.assertEqual(client.inside(13), b"first insidex", f"{cut=}")
                    client.send(client.tls.end())
                    client.rest()

        # Attackers and honest clients take turns. An honest one has time, also on a busy machine.
        turns = itertools.cycle(self.upgraded(delivered, timeout) for timeout in (0.1, 60))
        self.attack_socket(
            attack, lambda accepted: next(turns)(accepted), count=6, max_connections=1
        )
        self.assertEqual(delivered, [b"x"] * 3)

    @on_every_reactor
    def test_an_end_at_each_step_is_reported_once(self) -> None:
        """S14: reset or FIN; the handler gets one error, and nothing is left."""
        delivered: list[bytes] = []

        def attack(address: Address) -> None:
            for end in (Attacker.reset, Attacker.finish):
                for step in range(6):
                    with attacker(address) as mallory:
                        if step:
                            mallory.send(b"GO"[:step])
                        if step > 2:
                            mallory.receive(2)
                            mallory.send(mallory.tls.hello()[: 50 if step == 3 else None])
                        if step > 4:
                            mallory.go_on()
                        end(mallory)
                        if end is Attacker.finish:
                            mallory.rest()

        seen = self.attack_socket(attack, self.upgraded(delivered, timeout=1), count=12)
        self.assertEqual(len(seen.announced), 12)
        self.assertEqual(len(self.ends(seen)), 12)
        self.assert_nothing_got_in(seen, delivered)

    def test_a_second_upgrade_is_refused(self) -> None:
        """S6: the connection is not disturbed."""
        refused: list[BaseException] = []

        async def serve(accepted: StreamSocket) -> None:
            async with accepted:
                for _ in range(2):
                    await accepted.input_stream.receive_exactly(2)
                    upgrading: Deferred[None] = accepted.upgrade_to_ssl(
                        SocketProtectionLevel.TLS13, certificate=CERTIFICATE
                    )
                    try:
                        await upgrading
                    except LocalProtocolError as error:
                        refused.append(error)
                await echo(accepted)

        def attack(address: Address) -> None:
            with attacker(address) as client:
                client.send(b"GO")
                self.assertTrue(client.shake_hands(behind=b"GO"))
                self.assertEqual(client.ask(b"inside", 6), b"inside")
                client.send(client.tls.end())
                client.rest()

        self.attack_socket(attack, serve)
        self.assertEqual(len(refused), 1)

    def test_a_fin_without_close_notify_is_a_truncation(self) -> None:
        """S15: the bytes are delivered, then an error; with close_notify the end is clean."""
        ends: list[object] = []

        async def serve(accepted: StreamSocket) -> None:
            async with accepted:
                await accepted.input_stream.receive_exactly(2)
                await accepted.upgrade_to_ssl(SocketProtectionLevel.TLS13, certificate=CERTIFICATE)
                self.assertEqual(await accepted.input_stream.receive_exactly(4), b"half")
                try:
                    ends.append(await accepted.input_stream.receive_some())
                except SocketError as error:
                    ends.append(type(error))

        def attack(address: Address) -> None:
            for is_polite in (False, True):
                with attacker(address) as client:
                    client.send(b"GO")
                    client.shake_hands(behind=b"half")
                    if is_polite:
                        client.send(client.tls.end())
                    client.finish()
                    client.rest()

        self.attack_socket(attack, serve, count=2)
        self.assertEqual(ends, [BrokenError, b""])

    def ends(self, seen: Seen) -> list[str]:
        """Return the ends of handlers that the listener logged."""
        return [text for text in map(formatEvent, seen.events) if " ended: " in text]


globals().update(SocketTests.makeTestCaseClasses())
del SocketTests
