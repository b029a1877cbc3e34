"""The order of bytes around an upgrade: answers, the go-ahead, the handshake."""

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
    """Pipelined requests of honest clients, and their answers."""

    def test_a_request_and_a_hello_in_one_piece_upgrade(self) -> None:
        """S4: at every cut around the boundary, and byte by byte."""
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
        """S11: all of them in plaintext, and none inside TLS."""
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
    def test_answers_to_a_slow_peer_keep_their_order(self) -> None:
        """S11, S13: with a full send buffer and paused reading, up to the end."""
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
    """A pull producer, registered with the transport that the protocol had at the beginning."""

    def connection_made(self) -> None:
        self.cached = self.transport
        self.cached.registerProducer(self, False)

    def resumeProducing(self) -> None:
        if self.is_open:
            self.cached.write(PRODUCED)

    def stopProducing(self) -> None:
        """Stop producing."""

    def connection_lost(self, error: SocketError | None) -> None:
        self.cached.unregisterProducer()


PRODUCING = Format(Producing, encode_frame)


class OrderTests(Hostile):
    """Handlers, pushes and producers during the switch: nothing is sent on the wrong side of it."""

    @on_every_reactor
    def test_a_request_waits_for_the_handler_that_runs(self) -> None:
        """S13: the handler's answer leaves in plaintext, before the go-ahead."""

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

    def test_pushes_during_the_upgrade_are_sent_inside_tls(self) -> None:
        """S11, S13: many bytes, while a ClientHello arrives in two pieces."""
        size = 100_000

        class Pushing(Frames):
            is_pushing = False

            def push(self) -> None:
                if self.is_open and not self.is_secure:
                    self.send_frame(EVIL + bytes(size))

            def connection_made(self) -> None:
                # After the go-ahead was sent and before the handshake is done.
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
                client.say_nothing_for(0.05)  # Until that piece has arrived by itself.
                client.send(hello[1:])
                self.assertTrue(client.go_on())
                self.assertTrue(client.inside(len(pushed)) == pushed)
                answer = pushing.encode(b"got x")
                self.assertEqual(client.ask(pushing.encode(b"x"), len(answer)), answer)

        hasty = UpgradeToSsl(TLS, handshake_timeout=1)
        seen = self.attack(attack, pushing, hasty)
        self.assertEqual(seen.messages, [(b"x", True)])

    def test_a_producer_of_the_transport_does_not_write_into_the_handshake(self) -> None:
        """S13: it was registered before the upgrade, with the transport of that time."""

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
    def test_a_producer_of_the_transport_continues_inside_tls(self) -> None:
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
