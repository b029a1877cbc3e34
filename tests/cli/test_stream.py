"""A conversation with an echo server, and with servers that are none."""

from __future__ import annotations

import contextlib
import signal
import socket
import struct
import threading
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost, ConnectionRefusedError
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.cli.conversations import PATIENCE, Conversation, run, running_command, serve
from twsock.cli.output import CommandError
from twsock.cli.texts import InputLines
from twsock.wire import encode_frame

HELLO = encode_frame(b"Hello, World!")


class ConversationTests(SynchronousTestCase):
    """The server does what it should."""

    def test_the_lines_are_exact(self) -> None:
        """A user sees these five."""
        conversation = Conversation(b"Hello, World!")
        self.assertEqual(conversation.sent(), HELLO)
        conversation.receive(HELLO)
        self.assertTrue(conversation.transport.disconnecting)
        conversation.end()
        self.successResultOf(conversation.done)
        self.assertEqual(
            conversation.lines,
            [
                "client is trying to connect...",
                "client connected",
                'client sent the request: "Hello, World!"',
                'client received the response: "Hello, World!"',
                "client closed its socket",
            ],
        )

    def test_lines_go_with_crlf(self) -> None:
        """The other format, read with either ending; a CR of the text's own stays."""
        conversation = Conversation("grüße".encode(), b"", b"a\r", framing="line")
        for text in ("grüße".encode(), b"", b"a\r"):
            self.assertEqual(conversation.sent(), text + b"\r\n", f"{text=}")
            conversation.receive(text + (b"\r\n" if text.endswith(b"\r") else b"\n"))
        conversation.end()
        self.successResultOf(conversation.done)

    def test_one_message_goes_after_the_other(self) -> None:
        """Each text as often as asked for, each when the last has come back; a summary ends it."""
        conversation = Conversation(b"a", b"", count=2)
        for number, text in enumerate((b"a", b"a", b"", b"")):
            self.assertEqual(conversation.sent(), encode_frame(text), f"{number=}, {text=}")
            conversation.clock.advance(0.001 * (number + 1))
            conversation.receive(encode_frame(text))
        conversation.end()
        self.successResultOf(conversation.done)
        self.assertEqual(
            conversation.lines[-2:],
            ["client closed its socket", "4 echoes, round trip min/median/max 1.00/2.50/4.00 ms"],
        )

    def test_quiet_leaves_the_responses(self) -> None:
        """Nothing else is on standard output, with a count neither."""
        conversation = Conversation(b"a", quiet=True, count=2)
        conversation.receive(encode_frame(b"a"))
        conversation.receive(encode_frame(b"a"))
        conversation.end()
        self.successResultOf(conversation.done)
        self.assertEqual(conversation.lines, ["a", "a"])

    def test_an_interval_runs_from_send_to_send(self) -> None:
        """A quick answer is followed by a pause, a slow one by none; the last by none."""
        conversation = Conversation(b"a", count=3, interval=2.0)
        answer = conversation.sent()
        conversation.clock.advance(0.5)
        conversation.receive(answer)
        conversation.clock.advance(1.4)
        self.assertEqual(conversation.sent(), b"")
        conversation.clock.advance(0.1)
        self.assertEqual(conversation.sent(), answer)
        conversation.clock.advance(5.0)
        conversation.receive(answer)
        self.assertEqual(conversation.sent(), answer)
        conversation.receive(answer)
        self.assertTrue(conversation.transport.disconnecting)

    def test_input_is_read_when_it_is_wanted(self) -> None:
        """The next line is asked for when the last has come back."""
        reads: list[Deferred[bytes]] = []

        def read() -> Deferred[bytes]:
            reads.append(Deferred())
            return reads[-1]

        conversation = Conversation(texts=InputLines(read, 100))
        self.assertEqual(len(reads), 1)
        reads[0].callback(b"one\n")
        self.assertEqual((conversation.sent(), len(reads)), (encode_frame(b"one"), 1))
        conversation.receive(encode_frame(b"one"))
        reads[1].callback(b"")
        self.assertTrue(conversation.transport.disconnecting)

    def test_a_server_that_never_ends_is_left(self) -> None:
        """All answers were right, so that is a success."""
        conversation = Conversation(b"a", timeout=3.0)
        conversation.receive(conversation.sent())
        conversation.clock.advance(3.0)
        self.assertTrue(conversation.transport.disconnected)
        conversation.end(ConnectionLost())
        self.successResultOf(conversation.done)
        self.assertEqual(conversation.clock.getDelayedCalls(), [])


class TroubleTests(SynchronousTestCase):
    """The server does what it should not: one line, and no connection is left."""

    def test_a_refused_connection_is_told(self) -> None:
        """With the status of it."""
        conversation = Conversation(b"a", connect=False)
        factory = cast(Any, conversation.clock.tcpClients[0][2])
        factory.clientConnectionFailed(
            None, Failure(ConnectionRefusedError(111, "Connection refused"))
        )
        error = self.failureResultOf(conversation.done, CommandError).value
        self.assertRegex(error.line, r"^connect failed: ConnectionRefused \(12\): ")
        self.assertEqual(error.exit_code, 1)

    def test_a_connection_that_takes_too_long_is_given_up(self) -> None:
        """After the timeout, and not before."""
        conversation = Conversation(b"a", connect=False, timeout=2.5)
        conversation.clock.advance(2.4)
        self.assertNoResult(conversation.done)
        conversation.clock.advance(0.1)
        self.assertEqual(
            self.failureResultOf(conversation.done, CommandError).value.line,
            "connect failed: ConnectionTimedOut (3): no connection within 2.5 s",
        )

    def test_an_answer_that_takes_too_long_ends_the_wait(self) -> None:
        """Also when part of it has come."""
        conversation = Conversation(b"a")
        conversation.receive(b"\0\0\0\1")
        conversation.clock.advance(9.9)
        self.assertNoResult(conversation.done)
        conversation.clock.advance(0.1)
        self.assertRegex(
            conversation.fails(self), r"^no answer within 10 s: ConnectionTimedOut \(3\): "
        )

    def test_each_answer_has_the_whole_timeout(self) -> None:
        """The clock starts again with each request."""
        conversation = Conversation(b"a", count=3)
        for _ in range(3):
            conversation.clock.advance(9)
            conversation.receive(encode_frame(b"a"))
        self.assertTrue(conversation.transport.disconnecting)

    def test_an_answer_that_differs_is_shown_and_told(self) -> None:
        """The user sees what came, then where it differs."""
        for answer, difference in (
            (b"hollo", "sent 5 bytes, received 5 bytes, first difference at byte 2"),
            (b"hell", "sent 5 bytes, received 4 bytes"),
            (b"hello!", "sent 5 bytes, received 6 bytes"),
        ):
            conversation = Conversation(b"hello", count=2)
            conversation.sent()
            conversation.receive(encode_frame(answer))
            self.assertEqual(
                conversation.fails(self),
                f"the response differs from the request: {difference}",
                f"{answer=}",
            )
            self.assertEqual(
                conversation.lines[-1],
                f'client received the response: "{answer.decode()}"',
                f"{answer=}",
            )
            self.assertEqual(conversation.sent(), b"", f"{answer=}")

    def test_a_count_above_the_limit_is_refused_at_once(self) -> None:
        """Not a byte of the payload is awaited."""
        conversation = Conversation(b"a", max_frame=100)
        conversation.receive(b"\xff\xff\xff\xff")
        conversation.end()
        self.assertEqual(
            conversation.fails(self),
            "cannot read the response: peer announced a frame of 4294967295 bytes, limit is 100",
        )

    def test_a_line_above_the_limit_is_refused(self) -> None:
        """Before it has ended."""
        conversation = Conversation(b"a", framing="line", max_frame=3)
        conversation.receive(b"aaaaaaa")
        conversation.end()
        self.assertIn("cannot read the response: peer sent a line", conversation.fails(self))

    def test_a_server_that_ends_before_its_answer_is_told(self) -> None:
        """In order, or in the middle of it."""
        for part in (b"", b"\0\0"):
            conversation = Conversation(b"a")
            conversation.receive(part)
            conversation.transport.protocol.readConnectionLost()
            conversation.end()
            self.assertRegex(
                conversation.fails(self),
                "^the server closed the connection before it answered(;|$)",
                f"{part=}",
            )

    def test_a_reset_is_told(self) -> None:
        """With its status."""
        conversation = Conversation(b"a")
        conversation.end(ConnectionLost())
        self.assertRegex(conversation.fails(self), r"^connection lost: \w+ \(\d+\): ")

    def test_a_server_that_ends_while_the_user_thinks_is_told(self) -> None:
        """At once, not with the next line."""
        conversation = Conversation(texts=InputLines(Deferred, 100))
        conversation.end()
        self.assertEqual(conversation.fails(self), "the server ended the connection")

    def test_a_server_that_ends_during_the_interval_is_told(self) -> None:
        """At once, not with the next send."""
        conversation = Conversation(b"a", count=2, interval=60.0)
        conversation.receive(conversation.sent())
        conversation.end()
        self.assertEqual(conversation.fails(self), "the server ended the connection")
        self.assertEqual(conversation.clock.getDelayedCalls(), [])

    def test_a_message_that_nobody_asked_for_is_told(self) -> None:
        """Before the first request, with an answer, behind the last one."""
        unasked = "the server sent a message of 1 bytes that was not requested"
        conversation = Conversation(texts=InputLines(Deferred, 100))
        conversation.receive(encode_frame(b"a"))
        self.assertEqual(conversation.fails(self), unasked)
        for count in (1, 2):
            conversation = Conversation(b"a", count=count)
            conversation.sent()
            conversation.receive(encode_frame(b"a") * 2)
            self.assertEqual(conversation.fails(self), unasked, f"{count=}")
            self.assertEqual(conversation.sent(), b"", f"{count=}")


class HintTests(SynchronousTestCase):
    """What is probably wrong, where the first answer is."""

    def test_a_server_that_is_silent_expects_something_else(self) -> None:
        """It waits, or ends."""
        hint = "; perhaps the server expects TLS (--tls or --upgrade), or another --framing"
        conversation = Conversation(b"a")
        conversation.clock.advance(10)
        line = conversation.fails(self)
        self.assertTrue(line.endswith(f"the server sent nothing{hint}"), line)
        conversation = Conversation(b"a")
        conversation.end()
        line = conversation.fails(self)
        self.assertEqual(line, f"the server closed the connection before it answered{hint}")

    def test_a_server_that_resets_the_connection_expects_something_else(self) -> None:
        """So does a server of frames that receives a line, or one of TLS that receives a frame."""
        hint = "; perhaps the server expects TLS (--tls or --upgrade), or another --framing"
        conversation = Conversation(b"a")
        conversation.end(ConnectionLost())
        line = conversation.fails(self)
        self.assertRegex(line, r"^connection lost: ConnectionResetByPeer ")
        self.assertTrue(line.endswith(hint), line)
        conversation = Conversation(b"a", count=2)
        conversation.receive(encode_frame(b"a"))
        conversation.end(ConnectionLost())
        self.assertNotIn(";", conversation.fails(self))

    def test_another_protocol_is_named(self) -> None:
        """By its first bytes."""
        for framing, answer, hint in (
            ("uint32", b"\x15\x03\x03\0\2\2\n", "is TLS: see --tls and --upgrade"),
            ("line", b"\x15\x03\x03\0\2\2\n", "is TLS: see --tls and --upgrade"),
            ("uint32", b"HTTP/1.1 400 Bad Request\r\n", "is HTTP: --raw shows it"),
            ("line", b"<!DOCTYPE HTML>\r\n", "is HTTP: --raw shows it"),
            ("uint32", b"SSH-2.0-x\r\n", "looks like text: see --framing line and --raw"),
            ("line", b"\0\0\0\1a\n", "looks like a frame: see --framing uint32"),
        ):
            conversation = Conversation(b"a", framing=framing)
            conversation.receive(answer)
            line = conversation.fails(self)
            self.assertTrue(line.endswith(f"; what the server sent {hint}"), line)

    def test_no_hint_is_better_than_a_wrong_one(self) -> None:
        """The framing was right, or nothing is known about it."""
        conversation = Conversation(b"a", count=2)
        conversation.receive(encode_frame(b"a"))
        conversation.end()
        self.assertEqual(
            conversation.fails(self), "the server closed the connection before it answered"
        )
        conversation = Conversation(b"a", max_frame=4)
        conversation.receive(b"\0\0\0\x05")
        self.assertNotIn(";", conversation.fails(self))


class InterruptTests(SynchronousTestCase):
    """Ctrl-C ends a conversation wherever it is."""

    def test_a_long_run_has_figures_so_far(self) -> None:
        """One that was asked for, or is known to be one by then."""
        for texts, count, echoes in (([b"a"], 9, 1), ([b"a", b"b", b"c"], 1, 2)):
            conversation = Conversation(*texts, count=count)
            for text in [*texts, *texts][:echoes]:
                conversation.receive(encode_frame(text))
            conversation.done.cancel()
            conversation.end()
            self.failureResultOf(conversation.done, CancelledError)
            self.assertRegex(
                conversation.lines[-1],
                rf"^{echoes} echo(es)?, round trip min/median/max [\d./]+ ms$",
                f"{texts=}, {count=}",
            )

    def test_a_short_run_has_none(self) -> None:
        """Nor has one without an echo any times."""
        conversation = Conversation(b"a")
        conversation.done.cancel()
        conversation.end()
        self.failureResultOf(conversation.done, CancelledError)
        self.assertEqual(conversation.lines[-1], 'client sent the request: "a"')
        conversation = Conversation(b"a", count=2)
        conversation.done.cancel()
        conversation.end()
        self.failureResultOf(conversation.done, CancelledError)
        self.assertEqual(conversation.lines[-1], "0 echoes")

    def test_a_connection_under_way_is_given_up(self) -> None:
        """Nothing is left."""
        conversation = Conversation(b"a", connect=False)
        conversation.done.cancel()
        self.failureResultOf(conversation.done)
        self.assertEqual(conversation.clock.getDelayedCalls(), [])

    def test_the_connection_is_closed_in_order(self) -> None:
        """While it waits for an answer, for the interval, or for the server to end."""
        waits_for_answer = Conversation(b"a")
        pauses = Conversation(b"a", count=2, interval=60.0)
        closes = Conversation(b"a")
        for conversation in (pauses, closes):
            conversation.receive(encode_frame(b"a"))
        for number, conversation in enumerate((waits_for_answer, pauses, closes)):
            conversation.done.cancel()
            self.assertTrue(conversation.transport.disconnecting, f"{number=}")
            conversation.end()
            self.failureResultOf(conversation.done, CancelledError)
            self.assertEqual(conversation.clock.getDelayedCalls(), [], f"{number=}")

    def test_a_server_that_does_not_play_along_is_not_waited_for(self) -> None:
        """Half a second, then the connection is aborted."""
        conversation = Conversation(b"a")
        conversation.done.cancel()
        conversation.clock.advance(0.5)
        self.assertTrue(conversation.transport.disconnected)
        self.failureResultOf(conversation.done, CancelledError)


def echo_bytes(connection: socket.socket) -> None:
    """Send back what comes, until it ends."""
    while data := connection.recv(65536):
        connection.sendall(data)


class RawTests(SynchronousTestCase):
    """Bytes in both directions, in whole runs against plain sockets."""

    def test_all_bytes_come_back(self) -> None:
        """More than any buffer holds, and of every value: they are sent and read at once."""
        data = bytes(range(256)) * 80_000
        with serve(echo_bytes) as endpoint:
            result = run("echo", endpoint, "--raw", stdin=data)
        self.assertEqual((result.stderr, result.returncode), (b"", 0))
        self.assertTrue(result.stdout == data, "the bytes differ")

    def test_the_end_of_the_input_is_sent(self) -> None:
        """A server may answer only then; the answer is printed as it is."""

        def count(connection: socket.socket) -> None:
            size = 0
            while data := connection.recv(65536):
                size += len(data)
            connection.sendall(b"\x1b%d\r" % size)

        with serve(count) as endpoint:
            result = run("echo", endpoint, "--raw", stdin=b"a" * 100_000)
        self.assertEqual((result.stdout, result.stderr), (b"\x1b100000\r", b""))
        self.assertEqual(result.returncode, 0)

    def test_a_server_that_ends_first_ends_it(self) -> None:
        """Though the input goes on."""
        with (
            serve(lambda connection: connection.sendall(b"bye")) as endpoint,
            running_command("echo", endpoint, "--raw") as (command, output, errors),
        ):
            self.assertEqual((output.read(), command.wait()), (b"bye", 0))
            self.assertEqual(errors.read(), b"")

    def test_a_silent_server_is_left_after_the_end_of_the_input(self) -> None:
        """That is no failure: nobody knows whether more was to come."""
        ended = threading.Event()

        def handle(connection: socket.socket) -> None:
            connection.sendall(connection.recv(3))
            ended.wait(PATIENCE)

        with serve(handle) as endpoint:
            result = run("echo", endpoint, "--raw", "--timeout", "0.2", stdin=b"abc")
            ended.set()
        self.assertEqual((result.stdout, result.returncode), (b"abc", 0))
        self.assertEqual(
            result.stderr, b"the server sent nothing for 0.2 s, and did not close the connection\n"
        )

    def test_a_reset_is_an_error(self) -> None:
        """What came before it was printed."""

        def reset(connection: socket.socket) -> None:
            connection.sendall(connection.recv(3))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.recv(1)

        with (
            serve(reset) as endpoint,
            running_command("echo", endpoint, "--raw") as (command, output, errors),
        ):
            command.stdin.write(b"abc")
            self.assertEqual(output.read(3), b"abc")
            command.stdin.write(b"d")
            self.assertEqual(command.wait(), 1)
            self.assertRegex(errors.read(), rb"\Atwsock: connection lost: ConnectionResetByPeer ")

    def test_a_reader_that_leaves_ends_it_quietly(self) -> None:
        """As in ``| head -c 1``."""
        with (
            serve(echo_bytes) as endpoint,
            running_command("echo", endpoint, "--raw") as (command, output, errors),
        ):
            output.close()
            command.stdin.write(b"a")
            self.assertEqual((command.wait(), errors.read()), (141, b""))

    def test_ctrl_c_ends_it_while_nobody_reads(self) -> None:
        """The reader of the output holds up neither the other direction nor the signal."""
        received = threading.Event()

        def flood(connection: socket.socket) -> None:
            # As much as fits: the command reads no more than its reader and a bounded rest.
            connection.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    connection.send(bytes(65536))
            connection.settimeout(PATIENCE)
            connection.recv(2)
            received.set()
            while connection.recv(65536):
                pass

        with (
            serve(flood) as endpoint,
            running_command("echo", endpoint, "--raw") as (command, _, _),
        ):
            command.stdin.write(b"go")
            self.assertTrue(received.wait(PATIENCE))
            command.send_signal(signal.SIGINT)
            self.assertEqual(command.wait(), 130)
