"""The order of what is sent around an upgrade: answers, the go-ahead, the handshake."""

from __future__ import annotations

from twisted.internet.task import deferLater

from tests.loopback.hostile import EVIL, FORMATS, TLS, Address, Format, Frames, Hostile, attacker
from tests.loopback.reactors import on_every_reactor
from twsock.errors import SocketError
from twsock.protocols import (
    UpgradeToSsl,
)
from twsock.wire import encode_frame


class PipelineTests(Hostile):
    """What an honest client may send in one piece, and what it is answered where."""

    def test_the_request_and_a_hello(self) -> None:
        """S4: in one piece, at every cut around the boundary, byte by byte."""
        for server in FORMATS:
            boundary = len(server.request)
            answer = server.encode(b"got x")

            def attack(
                address: Address,
                server: Format = server,
                boundary: int = boundary,
                answer: bytes = answer,
            ) -> None:
                for cut in (0, *range(boundary - 2, boundary + 7)):
                    with attacker(address) as client:
                        stream = server.request + client.tls.hello()
                        client.send(stream[:cut])
                        client.send(stream[cut:])
                        self.assertEqual(
                            client.receive(len(server.go_ahead)), server.go_ahead, f"{cut=}"
                        )
                        self.assertTrue(client.go_on(), f"{cut=}")
                        self.assertEqual(
                            client.ask(server.encode(b"x"), len(answer)), answer, f"{cut=}"
                        )
                with attacker(address) as client:
                    client.send(server.request + client.tls.hello(), step=1)
                    client.receive(len(server.go_ahead))
                    self.assertTrue(client.go_on(step=1))
                    self.assertEqual(client.ask(server.encode(b"x"), len(answer)), answer)

            seen = self.attack(attack, server, count=11)
            self.assertEqual(seen.secured, [True] * 11, f"{server=}")
            self.assertEqual(seen.messages, [(b"x", True)] * 11, f"{server=}")
            self.assertEqual(seen.warnings, [], f"{server=}")

    def test_answers_leave_before_the_go_ahead(self) -> None:
        """S11: in plaintext all of them, and none inside."""
        for server in FORMATS:
            before = server.encode(b"got before") * 3
            inside = server.encode(b"got inside")

            def attack(
                address: Address,
                server: Format = server,
                before: bytes = before,
                inside: bytes = inside,
            ) -> None:
                for middle in (server.request, b""):
                    with attacker(address) as client:
                        plain = server.encode(b"before") * 3 + middle
                        client.send(plain + client.tls.hello())
                        expected = before + (server.go_ahead if middle else b"")
                        self.assertEqual(client.receive(len(expected)), expected, f"{middle=}")
                        self.assertTrue(client.go_on(behind=server.encode(b"inside")), f"{middle=}")
                        self.assertEqual(client.inside(len(inside)), inside, f"{middle=}")

            seen = self.attack(attack, server, count=2)
            expected = [(b"before", False)] * 3 + [(b"inside", True)]
            self.assertEqual(seen.messages, expected * 2, f"{server=}")

    @on_every_reactor
    def test_answers_that_the_peer_was_slow_to_take(self) -> None:
        """S11, S13: with a full send buffer and reading paused the order is kept, to the end."""
        for server in FORMATS:
            before = server.encode(bytes(1_500_000)) * 4
            inside = server.encode(b"got inside")

            def attack(
                address: Address,
                server: Format = server,
                before: bytes = before,
                inside: bytes = inside,
            ) -> None:
                with attacker(address) as client:
                    large = server.encode(b"large 1500000")
                    client.send(large * 4 + server.request + client.tls.hello())
                    self.assertTrue(client.receive(len(before)) == before)
                    self.assertEqual(client.receive(len(server.go_ahead)), server.go_ahead)
                    self.assertTrue(client.go_on(behind=server.encode(b"inside")))
                    self.assertEqual(client.inside(len(inside)), inside)

            seen = self.attack(attack, server)
            self.assertEqual(seen.secured, [True], f"{server=}")
            self.assertEqual(seen.messages[-1], (b"inside", True), f"{server=}")


PRODUCED = encode_frame(b"produced")


class Producing(Frames):
    """Is a producer of the transport that it had at the beginning, asked for each piece."""

    def connection_made(self) -> None:
        self.cached = self.transport
        self.cached.registerProducer(self, False)

    def resumeProducing(self) -> None:
        if self.is_open:
            self.cached.write(PRODUCED)

    def stopProducing(self) -> None:
        """It is asked no more."""

    def connection_lost(self, error: SocketError | None) -> None:
        self.cached.unregisterProducer()


PRODUCING = Format(Producing, encode_frame)


class OrderTests(Hostile):
    """Whatever is under way when the switch falls, nothing is sent on the wrong side of it."""

    @on_every_reactor
    def test_while_a_handler_runs_the_request_waits(self) -> None:
        """S13: its answer leaves in plaintext, in front of the go-ahead."""

        class Slow(Frames):
            async def frame_received(self, payload: bytes) -> None:
                await deferLater(self.clock, 0.01)
                self.handle(payload)

        slow = Format(Slow, encode_frame)
        before, inside = slow.encode(b"got before"), slow.encode(b"got inside")

        def attack(address: Address) -> None:
            for step in (0, 1):
                with attacker(address) as client:
                    client.send(slow.encode(b"before") + slow.request + client.tls.hello(), step)
                    self.assertEqual(client.receive(len(before)), before, f"{step=}")
                    self.assertEqual(client.receive(len(slow.go_ahead)), slow.go_ahead, f"{step=}")
                    self.assertTrue(client.go_on(step, slow.encode(b"inside")), f"{step=}")
                    self.assertEqual(client.inside(len(inside)), inside, f"{step=}")

        seen = self.attack(attack, slow, count=2)
        self.assertEqual(seen.messages, [(b"before", False), (b"inside", True)] * 2)

    def test_what_the_application_pushes_meanwhile_is_sent_inside(self) -> None:
        """S11, S13: much of it, with a ClientHello that comes in two pieces."""
        size = 100_000

        class Pushing(Frames):
            is_pushing = False

            def push(self) -> None:
                if self.is_open and not self.is_secure:
                    self.send_frame(EVIL + bytes(size))

            def connection_made(self) -> None:
                # Once the go-ahead has left and before the handshake is done.
                self.clock.callLater(0.05, self.push)

        pushing = Format(Pushing, encode_frame)
        pushed = pushing.encode(EVIL + bytes(size))

        def attack(address: Address) -> None:
            with attacker(address) as client:
                hello = client.tls.hello()
                client.send(pushing.request)
                client.receive(len(pushing.go_ahead))
                client.say_nothing_for(0.1)  # Until the application has pushed.
                client.send(hello[:1])
                client.say_nothing_for(0.05)  # Until that has arrived by itself.
                client.send(hello[1:])
                self.assertTrue(client.go_on())
                self.assertTrue(client.inside(len(pushed)) == pushed)
                answer = pushing.encode(b"got x")
                self.assertEqual(client.ask(pushing.encode(b"x"), len(answer)), answer)

        hasty = UpgradeToSsl(TLS, handshake_timeout=1)
        seen = self.attack(attack, pushing, hasty)
        self.assertEqual(seen.messages, [(b"x", True)])

    def test_a_producer_on_the_transport_does_not_write_into_the_handshake(self) -> None:
        """S13: registered by the application before, with the transport that it had then."""

        def attack(address: Address) -> None:
            with attacker(address) as client:
                client.send(PRODUCING.request)
                received = client.receive(12)
                while PRODUCING.go_ahead not in received:
                    received += client.some()
                client.send(client.tls.hello())
                while client.say_nothing_for(0.05) and len(received) < 1_000_000:
                    received += client.some()
                behind = received[received.index(PRODUCING.go_ahead) :]
                self.assertNotIn(PRODUCED, behind)
                client.reset()

        seen = self.attack(attack, PRODUCING)
        self.assertEqual(seen.messages, [])

    @on_every_reactor
    def test_a_producer_on_the_transport_goes_on_inside(self) -> None:
        """S13: it is asked for more when the connection is secure."""

        def attack(address: Address) -> None:
            with attacker(address) as client:
                client.connection.settimeout(60)
                client.send(PRODUCING.request + client.tls.hello())
                received = b""
                while PRODUCING.go_ahead + b"\x16\x03" not in received:
                    received += client.some()
                _, _, tls = received.partition(PRODUCING.go_ahead)
                client.send(client.tls.take(tls))
                expected = PRODUCED * 3
                self.assertEqual(client.inside(len(expected))[: len(expected)], expected)
                client.reset()

        seen = self.attack(attack, PRODUCING)
        self.assertEqual(seen.secured, [True])


for case in (PipelineTests, OrderTests):
    globals().update(case.makeTestCaseClasses())
del PipelineTests, OrderTests, case
