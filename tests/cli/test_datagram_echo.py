"""Whole runs of datagrams, and how they end."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.cli.conversations import run
from tests.cli.datagram_conversations import (
    DatagramConversation,
    echo_datagram,
    running,
    serve_datagrams,
)
from twsock.cli.failure import UsageError
from twsock.cli.texts import InputLines

MULTICAST = "multicast:224.3.0.5:22113"


class EndTests(SynchronousTestCase):
    """How a run ends."""

    def test_an_unknown_name_is_told(self) -> None:
        """Before any port is opened."""
        conversation = DatagramConversation(b"a", endpoint="udp:name:7", addresses=())
        self.assertIn("look-up failed: HostNotFound", conversation.fails(self))
        self.assertEqual(conversation.ports, [])

    def test_a_single_loss_is_told_with_what_to_look_into(self) -> None:
        """There are no figures of one datagram."""
        conversation = DatagramConversation(b"a")
        conversation.clock.advance(2.0)
        self.assertEqual(
            conversation.fails(self),
            "no answer within 2 s: ConnectionTimedOut (3): "
            "192.0.2.1:7 sent nothing; is a server running there?",
        )
        self.assertEqual(conversation.lines, ['client sent the request: "a"'])

    def test_what_no_datagram_holds_is_bad_usage(self) -> None:
        """Before anything is sent: IPv6 has room for 20 bytes more."""
        text = b"a" * 65_508
        conversation = DatagramConversation(b"b", text)
        error = self.failureResultOf(conversation.done, UsageError).value
        self.assertEqual(
            error.line, "a TEXT has 65508 bytes, a datagram over IPv4 has at most 65507"
        )
        self.assertEqual(conversation.ports, [])
        conversation = DatagramConversation(text, endpoint="udp:[::1]:7")
        self.assertEqual(conversation.sent(), [text])


class InterruptTests(SynchronousTestCase):
    """Ctrl-C ends a run wherever it is."""

    def test_the_ports_are_closed(self) -> None:
        """While a name is looked up, an answer is awaited, the interval, or the user."""
        for conversation in (
            DatagramConversation(b"a", endpoint="udp:name:7", addresses=None),
            DatagramConversation(b"a"),
            DatagramConversation(b"a", endpoint=MULTICAST),
            DatagramConversation(b"a", count=2, interval=60.0),
            DatagramConversation(texts=InputLines(Deferred, 100)),
        ):
            conversation.done.cancel()
            self.failureResultOf(conversation.done, CancelledError)
            self.assertFalse([port for port in conversation.ports if port.is_open])
            self.assertEqual(conversation.clock.getDelayedCalls(), [])

    def test_a_long_run_has_figures_so_far(self) -> None:
        """As ping has."""
        conversation = DatagramConversation(b"a", count=9)
        conversation.receive(b"a", b"a")
        conversation.done.cancel()
        self.failureResultOf(conversation.done, CancelledError)
        self.assertIn("3 sent, 2 answered, 1 awaited, 0 lost; ", conversation.lines[-1])


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
        lines = result.stdout.decode().splitlines()
        self.assertRegex(
            lines[-1],
            r"^10 sent, 9 answered, 1 lost \(10 %\), 1 duplicate, 1 out of order; "
            r"round trip min/median/p99/max [\d./]+ ms$",
        )
        self.assertEqual(result.stderr, b"twsock: of 10 datagrams, 1 lost (10 %)\n")
        self.assertEqual(result.returncode, 1)

    def test_a_name_whose_first_address_refuses(self) -> None:
        """The server has the other one."""
        with serve_datagrams(echo_datagram) as endpoint:
            port = endpoint.rpartition(":")[2]
            result = run("echo", f"udp:localhost:{port}", "--quiet", "--count", "2", "a")
        self.assertEqual((result.stdout, result.returncode), (b"a\na\n", 0), result.stderr)

    def test_a_port_where_nobody_listens(self) -> None:
        """Told at once, long before the timeout."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
        result = run("echo", f"udp:127.0.0.1:{port}", "a", "--timeout", "1000")
        self.assertRegex(
            result.stderr.decode(),
            rf"\Atwsock: 127\.0\.0\.1:{port} refused: ConnectionResetByPeer \(18\): "
            r"[^\n]+; is a server running there\?\n\Z",
        )
        self.assertEqual(result.returncode, 1)

    def test_a_group_with_two_members(self) -> None:
        """One answers straight back, and one to the group; each is named."""

        def answer(_: socket.socket, _number: int, message: bytes, source: Any) -> None:
            # The answers of the other come to the group as well.
            if source[1] != port:
                own.sendto(message, source)

        def answer_group(shared: socket.socket, _n: int, message: bytes, source: Any) -> None:
            # Not its own answers, which come back to it.
            if source[1] != port:
                shared.sendto(message, ("224.3.0.5", port))

        with member(0) as one, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
            port = one.getsockname()[1]
            own.bind(("127.0.0.1", 0))
            with member(port) as two, running(one, answer_group), running(two, answer):
                result = run("echo", f"multicast:224.3.0.5:{port}", "Hello")
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
            result = run("echo", f"multicast:224.3.0.5:{port}", "Hello", "--timeout", "0.1")
        self.assertRegex(
            result.stderr.decode(),
            r"\Atwsock: no answer within 0\.1 s: ConnectionTimedOut [^\n]+ the interface lo\?\n\Z",
        )
        self.assertEqual(result.returncode, 1)


def member(port: int) -> socket.socket:
    """
    Give a plain socket that is a member of the group on ``lo``.

    :param port: shared with whoever shares it, too; 0 lets the system choose.
    """
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
    made.bind(("", port))
    membership = socket.inet_aton("224.3.0.5") + socket.inet_aton("127.0.0.1")
    made.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
    return made
