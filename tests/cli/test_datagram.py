"""Requests leave at their times, and each answer is counted, shown and compared."""

from __future__ import annotations

import io
import socket
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.cli.conversations import echo_datagram, run, running, serve_datagrams
from twsock.cli.arguments import EchoArguments
from twsock.cli.datagram import echo_datagrams
from twsock.cli.endpoints import name_address, parse_target
from twsock.cli.output import CommandError, Output, UsageError
from twsock.cli.texts import InputLines, ListedTexts, Texts, describe_generated, generate_texts

GROUP = "224.3.0.5"
NO_TIMES = "round trip min/median/max 0.00/0.00/0.00 ms"


class Peer:
    """
    A plain socket that the test plays, and one run against it in a time that the test makes.

    :param group: the group that the socket is a member of; None for a single peer.
    """

    def __init__(self, case: TestCase, *, group: str | None = None) -> None:
        self.socket = member(0) if group else socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        if not group:
            self.socket.bind(("127.0.0.1", 0))
        case.addCleanup(self.socket.close)
        self.socket.setblocking(False)
        self.port = self.socket.getsockname()[1]
        self.endpoint = f"multicast:{group}:{self.port}" if group else f"udp:127.0.0.1:{self.port}"
        self.clock = Clock()
        self.output, self.notes = io.BytesIO(), io.StringIO()
        self.source: Any = None
        self._case = case

    def start(self, *messages: bytes, texts: Texts | None = None, **given: Any) -> Peer:
        """Begin a run."""
        endpoint = given.pop("endpoint", self.endpoint)
        arguments = EchoArguments(endpoint=endpoint, texts=messages, **{"timeout": 2.0, **given})
        if arguments.size is not None:
            generated = generate_texts(arguments.size, arguments.count, is_numbered=True)
            texts = ListedTexts(arguments.count, generated)
        describe = None if arguments.size is None else describe_generated(True)
        output = Output(self.output, quiet=arguments.quiet, notes=self.notes, describe=describe)
        self.done = Deferred.fromCoroutine(
            echo_datagrams(
                reactor,
                parse_target(endpoint),
                arguments,
                texts or ListedTexts(len(messages), messages),
                output,
                self.clock,
                self.clock.seconds,
            )
        )
        self._case.addCleanup(self._end)
        return self

    async def request(self) -> bytes:
        """Wait for a request."""
        while True:
            try:
                data, self.source = self.socket.recvfrom(65_535)
            except BlockingIOError:
                await self.turn()
            else:
                return data

    async def send(self, *answers: bytes) -> None:
        """Send answers, and wait until each was handled."""
        for answer in answers:
            count = len(self.lines)
            self.socket.sendto(answer, self.source)
            while len(self.lines) == count and not self.done.called:
                await self.turn()

    async def turn(self, seconds: float = 0.0) -> None:
        """Let the reactor have its turns, then time pass."""
        await deferLater(reactor, 0.001)
        self.clock.advance(seconds)
        await deferLater(reactor, 0)

    async def end(self, seconds: float = 0.0) -> None:
        """Let time pass, and wait for the end."""
        await self.turn(seconds)
        while not self.done.called:
            await self.turn()
        await self.done

    async def fails(self, seconds: float = 0.0) -> str:
        """Let time pass, wait for the end, and return the line for standard error."""
        with self._case.assertRaises(CommandError) as caught:
            await self.end(seconds)
        return str(caught.exception.line)

    @property
    def lines(self) -> list[str]:
        """What is on standard output."""
        return self.output.getvalue().decode().splitlines()

    def _end(self) -> None:
        self.done.addErrback(lambda _: None)
        self.done.cancel()


class TimesTests(TestCase):
    """One after the other, or at an interval."""

    async def test_the_next_leaves_when_the_last_was_answered(self) -> None:
        """Each text as often as asked for, empty ones too."""
        peer = Peer(self).start(b"a", b"", count=2)
        for number, text in enumerate((b"a", b"a", b"", b"")):
            self.assertEqual(await peer.request(), text, f"{number=}")
            await peer.send(text)
        await peer.end()

    async def test_the_next_leaves_when_the_last_has_timed_out(self) -> None:
        """Not before, and the last one is waited for as long."""
        peer = Peer(self).start(b"a", b"b")
        for text in (b"a", b"b"):
            self.assertEqual(await peer.request(), text, f"{text=}")
            await peer.turn(1.9)
            self.assertNoResult(peer.done)
            self.assertRaises(BlockingIOError, peer.socket.recv, 9)
            await peer.turn(0.2)
        self.assertIn("no answer within 2 s", await peer.fails())

    async def test_an_interval_is_kept_whatever_comes_back(self) -> None:
        """Several requests are on their way then; the interval runs from send to send."""
        peer = Peer(self).start(size=8, count=3, interval=0.5, timeout=10.0)
        requests = []
        for _ in range(3):
            requests.append(await peer.request())
            self.assertRaises(BlockingIOError, peer.socket.recv, 9)
            await peer.turn(0.5)
        self.assertEqual([request[-1] for request in requests], [0, 1, 2])
        await peer.send(*requests)
        await peer.end(1.6)
        self.assertIn("3 sent, 3 received, 0 lost; ", peer.lines[-1])

    async def test_input_is_read_when_it_is_wanted(self) -> None:
        """The next line is asked for when the last was answered."""
        reads: list[Deferred[bytes]] = []

        def read() -> Deferred[bytes]:
            reads.append(Deferred())
            return reads[-1]

        peer = Peer(self).start(texts=InputLines(read, 100))
        await peer.turn()
        reads[0].callback(b"one\n")
        self.assertEqual((await peer.request(), len(reads)), (b"one", 1))
        await peer.send(b"one")
        await peer.turn()
        reads[1].callback(b"")
        await peer.end()

    async def test_the_last_duplicate_is_waited_for(self) -> None:
        """As long as the slowest answer took."""
        peer = Peer(self).start(b"a", count=2, timeout=5.0)
        await peer.request()
        await peer.turn(1.5)
        await peer.send(b"a")
        await peer.request()
        await peer.send(b"a")
        await peer.turn(1.4)
        await peer.send(b"a")
        self.assertNoResult(peer.done)
        await peer.end(0.2)
        self.assertIn(", 1 duplicate; ", peer.lines[-1])


class PeerTests(TestCase):
    """What a user sees of a run against one peer."""

    async def test_the_lines_are_exact(self) -> None:
        """Those of a stream, without the connection."""
        peer = Peer(self).start(b"Hello, World!")
        await peer.send(await peer.request())
        await peer.end()
        self.assertEqual(
            peer.lines,
            [
                'client sent the request: "Hello, World!"',
                'client received the response: "Hello, World!"',
                "client closed its socket",
            ],
        )

    async def test_quiet_leaves_the_responses(self) -> None:
        """Each request's first one; those that were generated are named."""
        for texts, size, lines in (([b"a"], None, ["a"]), ([], 10, ["number 1, 10 bytes"])):
            peer = Peer(self).start(*texts, quiet=True, size=size)
            await peer.send(await peer.request())
            await peer.end()
            self.assertEqual(peer.lines, lines, f"{texts=}, {size=}")

    async def test_losses_and_duplicates_have_lines_and_figures(self) -> None:
        """So has an answer that comes after the timeout: it is none of them."""
        peer = Peer(self).start(b"a", b"b", b"c", b"d", timeout=1.0)
        for text in (b"a", b"b"):
            self.assertEqual(await peer.request(), text, f"{text=}")
            await peer.turn(1.1)
        self.assertEqual(await peer.request(), b"c")
        await peer.send(b"a", b"c")
        self.assertEqual(await peer.request(), b"d")
        await peer.send(b"c", b"d")
        self.assertEqual(await peer.fails(3.0), "of 4 datagrams, 1 lost (25 %)")
        self.assertEqual(
            peer.lines[:-1],
            [
                'client sent the request: "a"',
                "no answer to 1 within 1 s",
                'client sent the request: "b"',
                "no answer to 1 within 1 s",
                'client sent the request: "c"',
                'client received the response: "a"',
                *peer.lines[6:8],
                'client received the response again: "c"',
                'client received the response: "d"',
                "client closed its socket",
            ],
        )
        self.assertRegex(
            peer.lines[-1],
            r"^4 sent, 3 received, 1 lost \(25 %\), 1 duplicate; round trip min/median/max ",
        )

    async def test_a_single_loss_says_what_to_look_into(self) -> None:
        """There are no figures of one datagram."""
        peer = Peer(self).start(b"a")
        await peer.request()
        self.assertEqual(
            await peer.fails(2.1),
            "no answer within 2 s: ConnectionTimedOut (3): "
            f"127.0.0.1:{peer.port} sent nothing; is a server running there?",
        )
        self.assertEqual(peer.lines, ['client sent the request: "a"'])

    async def test_bytes_that_were_not_sent_end_it(self) -> None:
        """They are shown first."""
        for answer in (b"hollo", b"hell", b"", b"hello!"):
            peer = Peer(self).start(b"hello", count=2)
            await peer.request()
            await peer.send(answer)
            line = await peer.fails()
            self.assertEqual(
                line, f"received {len(answer)} bytes that this end did not send", f"{answer=}"
            )
            self.assertEqual(
                peer.lines[1], f'client received the response: "{answer.decode()}"', f"{answer=}"
            )
            self.assertRaises(BlockingIOError, peer.socket.recv, 9)

    async def test_bytes_that_were_not_sent_end_it_while_the_user_thinks(self) -> None:
        """At once, not with the next line."""
        reads = iter([succeed(b"one\n"), Deferred[bytes]()])
        peer = Peer(self).start(texts=InputLines(lambda: next(reads), 100))
        await peer.request()
        await peer.send(b"one", b"?")
        self.assertEqual(await peer.fails(), "received 1 bytes that this end did not send")

    async def test_a_refusal_ends_it_while_the_user_thinks(self) -> None:
        """Likewise: the refusal of a late request."""
        reads = iter([succeed(b"one\n"), succeed(b"two\n"), Deferred[bytes]()])
        peer = Peer(self).start(texts=InputLines(lambda: next(reads), 100), interval=1.0)
        await peer.request()
        await peer.send(b"one")
        peer.socket.close()
        await peer.turn(1.0)
        self.assertIn("refused: ConnectionResetByPeer (18)", await peer.fails())

    async def test_an_address_that_answered_is_kept(self) -> None:
        """A refusal is the end then, though the host has another address."""
        peer = Peer(self)
        found = socket.getaddrinfo("localhost", peer.port, 0, socket.SOCK_DGRAM)
        family, _, _, _, address = found[0]
        peer.socket.close()
        peer.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.addCleanup(peer.socket.close)
        peer.socket.bind(address)
        peer.socket.setblocking(False)
        peer.start(b"a", b"b", endpoint=f"udp:localhost:{peer.port}", interval=1.0)
        await peer.send(await peer.request())
        peer.socket.close()
        await peer.turn(1.0)
        line = await peer.fails()
        self.assertTrue(line.startswith(f"{name_address(*address[:2])} refused: "), line)

    async def test_a_refusal_leaves_the_figures(self) -> None:
        """The server went away in the middle."""
        peer = Peer(self).start(b"a", b"b", b"c", interval=1.0)
        await peer.request()
        await peer.send(b"a")
        peer.socket.close()
        await peer.turn(1.0)
        line = await peer.fails()
        self.assertRegex(
            line,
            rf"^127\.0\.0\.1:{peer.port} refused: ConnectionResetByPeer \(18\): .+; "
            r"is a server running there\?$",
        )
        self.assertIn("2 sent, 1 received, 1 awaited, 0 lost; ", peer.lines[-1])

    async def test_a_text_that_no_datagram_holds_is_bad_usage(self) -> None:
        """Before anything is sent."""
        peer = Peer(self).start(b"b", b"a" * 65_508)
        with self.assertRaises(UsageError) as caught:
            await peer.end()
        line = "a TEXT has 65508 bytes, a datagram over IPv4 has at most 65507"
        self.assertEqual(caught.exception.line, line)
        self.assertRaises(BlockingIOError, peer.socket.recv, 9)

    async def test_cancelling_leaves_nothing(self) -> None:
        """While an answer is awaited, the interval, or the user; long runs have figures."""
        for count, interval, figures in ((1, 0.0, False), (2, 60.0, False), (9, 0.1, True)):
            peer = Peer(self).start(b"a", count=count, interval=interval)
            await peer.request()
            if figures:
                await peer.turn(0.1)
                await peer.request()
            peer.done.cancel()
            self.failureResultOf(peer.done, CancelledError)
            self.assertEqual(peer.clock.getDelayedCalls(), [], f"{count=}, {interval=}")
            self.assertEqual(
                " sent, 0 received, 2 awaited, 0 lost" in peer.lines[-1],
                figures,
                f"{count=}, {interval=}",
            )
        looking_up = {"endpoint": "udp:name.invalid:7"}
        for given_endpoint in ({}, looking_up):
            peer = Peer(self).start(texts=InputLines(Deferred, 100), **given_endpoint)
            if not given_endpoint:
                await peer.turn()
            peer.done.cancel()
            self.failureResultOf(peer.done, CancelledError)


class GroupTests(TestCase):
    """All members of a group may answer, straight back or to the group."""

    async def test_every_answer_has_its_sender(self) -> None:
        """All are awaited for the whole timeout, and then there are the figures of each."""
        peer = Peer(self, group=GROUP).start(b"a", timeout=1.0)
        await peer.request()
        other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(other.close)
        other.bind(("127.0.0.1", 0))
        mine, theirs = f"127.0.0.1:{peer.port}", f"127.0.0.1:{other.getsockname()[1]}"
        await peer.send(b"a")
        own, peer.socket = peer.socket, other
        await peer.send(b"a", b"a")
        self.assertNoResult(peer.done)
        peer.socket = own
        await peer.end(1.1)
        self.assertEqual(
            peer.lines,
            [
                'client sent the request: "a"',
                f'{mine} answered: "a"',
                f'{theirs} answered: "a"',
                f'{theirs} answered again: "a"',
                "client closed its socket",
                "1 sent, 1 answered by 2, 0 lost",
                f"{mine}: 1 received, 0 lost; {NO_TIMES}",
                f"{theirs}: 1 received, 0 lost, 1 duplicate; {NO_TIMES}",
            ],
        )

    async def test_the_first_answer_lets_the_next_request_go(self) -> None:
        """Only the last is awaited to its end; a member that missed one is named."""
        peer = Peer(self, group=GROUP).start(b"a", b"b", timeout=1.0)
        for text in (b"a", b"b"):
            self.assertEqual(await peer.request(), text, f"{text=}")
            if text == b"a":
                await peer.send(text)
        line = await peer.fails(1.1)
        self.assertEqual(line, f"127.0.0.1:{peer.port} did not answer 1 of 2 datagrams")

    async def test_one_answer_needs_no_figures(self) -> None:
        """With ``--quiet`` there is nothing but it."""
        for quiet, count in ((False, 3), (True, 1)):
            peer = Peer(self, group=GROUP).start(b"a", quiet=quiet)
            await peer.send(await peer.request())
            await peer.end(2.1)
            answered = f'127.0.0.1:{peer.port} answered: "a"'
            self.assertIn("a" if quiet else answered, peer.lines, f"{quiet=}: {peer.lines}")
            self.assertEqual(len(peer.lines), count, peer.lines)

    async def test_what_others_send_to_the_group_is_ignored(self) -> None:
        """Requests of ours and of others, and answers to others."""
        peer = Peer(self, group=GROUP).start(b"a")
        await peer.request()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.setsockopt(
                socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1")
            )
            other.sendto(b"a", (GROUP, peer.port))
        peer.socket.sendto(b"other", (GROUP, peer.port))
        peer.socket.sendto(b"a", (GROUP, peer.port))
        while len(peer.lines) == 1:
            await peer.turn()
        await peer.end(2.1)
        self.assertEqual(
            peer.lines[1:], [f'127.0.0.1:{peer.port} answered: "a"', "client closed its socket"]
        )

    async def test_bytes_that_were_not_sent_fail_in_the_end(self) -> None:
        """The others are still waited for."""
        peer = Peer(self, group=GROUP).start(b"a")
        await peer.request()
        await peer.send(b"bc", b"a")
        self.assertEqual(await peer.fails(2.1), "received datagrams that this end did not send: 1")
        sender = f"127.0.0.1:{peer.port}"
        self.assertEqual(peer.lines[1], f"{sender} returned 2 bytes that this end did not send")

    async def test_a_port_that_is_taken_costs_only_the_answers_to_the_group(self) -> None:
        """A note says so."""
        peer = Peer(self, group=GROUP)
        alone = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(alone.close)
        alone.bind(("", 0))
        port = alone.getsockname()[1]
        peer.start(b"a", endpoint=f"multicast:{GROUP}:{port}")
        await peer.turn()
        self.assertRegex(
            peer.notes.getvalue(),
            r"^cannot receive answers to the group: AddressAlreadyInUse \(10\): .+\n$",
        )
        await peer.fails(2.1)


class LoopbackTests(SynchronousTestCase):
    """Whole runs against plain sockets."""

    def test_a_peer_that_answers(self) -> None:
        """Each message, byte for byte; the largest and the empty one, too."""
        with serve_datagrams(echo_datagram) as endpoint:
            result = run("echo", endpoint, "--quiet", stdin=b"one\n\n" + b"a" * 65507 + b"\nlast")
        self.assertEqual(result.stdout, b"one\n\n" + b"a" * 65507 + b"\nlast\n")
        self.assertEqual((result.stderr, result.returncode), (b"", 0))

    def test_a_peer_that_loses_doubles_and_reorders(self) -> None:
        """The figures are exact."""
        held: list[bytes] = []

        def handle(served: socket.socket, number: int, message: bytes, source: Any) -> None:
            # Its requests come in the order of their numbers, on loopback.
            if number == 3:
                return
            if number == 5:
                held.append(message)
                return
            served.sendto(message, source)
            if number == 6:
                served.sendto(held.pop(), source)
                served.sendto(message, source)

        with serve_datagrams(handle) as endpoint:
            words = ("--size", "100", "--count", "10", "--interval", "0.01", "--timeout", "2")
            result = run("echo", endpoint, *words)
        self.assertRegex(
            result.stdout.decode().splitlines()[-1],
            r"^10 sent, 9 received, 1 lost \(10 %\), 1 duplicate; "
            r"round trip min/median/max [\d./]+ ms$",
        )
        self.assertEqual(result.stderr, b"twsock: of 10 datagrams, 1 lost (10 %)\n")
        self.assertEqual(result.returncode, 1)

    def test_a_name_whose_first_address_refuses(self) -> None:
        """The server has the other one; the interval begins when it is known."""
        with serve_datagrams(echo_datagram) as endpoint:
            port = endpoint.rpartition(":")[2]
            words = ("--quiet", "--count", "3", "--interval", "0.01", "a")
            result = run("echo", f"udp:localhost:{port}", *words)
        self.assertEqual((result.stdout, result.returncode), (b"a\n" * 3, 0), result.stderr)

    def test_a_port_where_nobody_listens(self) -> None:
        """An error at once, long before the timeout; of the last address of a name."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
        for host, shown in (
            ("127.0.0.1", r"127\.0\.0\.1"),
            ("localhost", r"(127\.0\.0\.1|\[::1\])"),
        ):
            result = run("echo", f"udp:{host}:{port}", "a", "--timeout", "1000")
            self.assertRegex(
                result.stderr.decode(),
                rf"\Atwsock: {shown}:{port} refused: ConnectionResetByPeer \(18\): "
                r"[^\n]+; is a server running there\?\n\Z",
                f"{host=}",
            )
            self.assertEqual(result.returncode, 1, f"{host=}")

    def test_an_unknown_name(self) -> None:
        """It is looked up before anything is sent."""
        result = run("echo", "udp:name.invalid:7", "a")
        self.assertRegex(
            result.stderr.decode(), r"\Atwsock: look-up failed: HostNotFound [^\n]+\n\Z"
        )
        self.assertEqual((result.stdout, result.returncode), (b"", 1))

    def test_a_group_with_two_members(self) -> None:
        """One answers straight back, and one to the group; each is named."""

        def answer(_: socket.socket, _number: int, message: bytes, source: Any) -> None:
            # The answers of the other come to the group as well.
            if source[1] != port:
                own.sendto(message, source)

        def answer_group(shared: socket.socket, _n: int, message: bytes, source: Any) -> None:
            # Not its own answers, which come back to it.
            if source[1] != port:
                shared.sendto(message, (GROUP, port))

        with member(0) as one, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
            port = one.getsockname()[1]
            own.bind(("127.0.0.1", 0))
            with member(port) as two, running(one, answer_group), running(two, answer):
                result = run("echo", f"multicast:{GROUP}:{port}", "Hello")
            other = own.getsockname()[1]
        lines = result.stdout.decode().splitlines()
        self.assertEqual((result.stderr, result.returncode), (b"", 0))
        self.assertEqual(
            sorted(lines[1:3]),
            sorted(f'127.0.0.1:{number} answered: "Hello"' for number in (port, other)),
        )
        self.assertIn("1 sent, 1 answered by 2, 0 lost", lines)

    def test_a_group_without_members(self) -> None:
        """The line names the interface, which may be the wrong one."""
        with member(0) as silent:
            port = silent.getsockname()[1]
            result = run("echo", f"multicast:{GROUP}:{port}", "Hello", "--timeout", "0.1")
        self.assertRegex(
            result.stderr.decode(),
            r"\Atwsock: no answer within 0\.1 s: ConnectionTimedOut [^\n]+"
            r" interface lo reach it\?\n\Z",
        )
        self.assertEqual(result.returncode, 1)


def member(port: int) -> socket.socket:
    """
    Return a plain socket that is a member of the group on ``lo``.

    :param port: shared with whoever shares it, too; 0 lets the system choose.
    """
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
    made.bind(("", port))
    membership = socket.inet_aton(GROUP) + socket.inet_aton("127.0.0.1")
    made.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
    return made
