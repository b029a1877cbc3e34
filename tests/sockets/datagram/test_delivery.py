"""Received datagrams become messages, which handlers get at once and `receive` in order."""

from __future__ import annotations

import asyncio
import socket
from contextvars import ContextVar

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from tests.datagram.fake_ports import log_lines
from tests.sockets.datagram.cases import LOCALHOST, SocketCase, receive
from twsock import (
    ClosedError,
    DatagramSocket,
    DatagramSocketMessageReceivedEventArgs,
    HostName,
    LocalProtocolError,
    SocketError,
    SocketErrorStatus,
)

GREETING = b"Hello, World!"
GROUP = "224.3.0.5"

Message = DatagramSocketMessageReceivedEventArgs


class HandlerTests(SocketCase):
    """Handlers of ``message_received``."""

    def test_handlers_get_the_socket_and_the_message(self) -> None:
        """Once for each datagram, also an empty one."""
        made = self.make()
        calls: list[tuple[DatagramSocket, Message]] = []
        made.message_received.add(lambda *arguments: calls.append(arguments))
        self.bind(made)
        peer = self.peer()
        self.send(peer, made, b"one", b"", b"two")
        self.assertEqual([message.data for _, message in calls], [b"one", b"", b"two"])
        self.assertEqual({called for called, _ in calls}, {made})
        message = calls[0][1]
        self.assertEqual(message.data_reader.read_string(3), "one")
        self.assertEqual(message.remote_address, HostName(LOCALHOST))
        self.assertEqual(message.remote_port, str(peer.getsockname()[1]))
        self.assertEqual(message.local_address, HostName(LOCALHOST))

    def test_each_datagram_of_a_run_is_a_message(self) -> None:
        """The kernel may return several datagrams in one call."""
        made, messages = self.listen()
        datagrams = [b"%02d" % number for number in range(64)]
        self.run_to(made, *datagrams)
        self.assertEqual([message.data for message in messages], datagrams)

    def test_a_message_has_the_address_that_it_was_sent_to(self) -> None:
        """On a socket that is bound to all addresses."""
        made = self.make()
        self.successResultOf(made.bind_service_name(""))
        self.peer().sendto(b"x", ("127.0.0.7", int(made.information.local_port)))
        self.pump()
        message = self.successResultOf(made.receive())
        self.assertEqual(message.local_address, HostName("127.0.0.7"))

    def test_a_handler_cannot_be_added_to_a_socket_in_use(self) -> None:
        """While it is opened, bound, connected or closed: the handler may have missed events."""
        self.slow_host("slow.example")
        opening = self.make()
        opening.connect("slow.example", 1).addErrback(lambda _: None)
        closed = self.make()
        closed.close()
        for made in (self.bind(), opening, self.connect(self.peer()), closed):
            self.assertRaises(LocalProtocolError, made.message_received.add, print)
            self.assertRaises(LocalProtocolError, made.multicast_group_changed.add, print)

    def test_with_a_handler_receive_fails(self) -> None:
        """The handlers get all messages."""
        made, _ = self.listen()
        self.failureResultOf(made.receive_from(), LocalProtocolError)
        self.failureResultOf(made.receive(), LocalProtocolError)

    def test_a_handler_that_raises_does_not_close_the_socket(self) -> None:
        """The error is logged; the next handlers and datagrams are served."""
        made = self.make()
        made.message_received.add(lambda *_: 1 // 0)
        _, messages = self.listen(made)
        self.send(self.peer(), made, b"one", b"two")
        self.assertEqual([message.data for message in messages], [b"one", b"two"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_the_error_of_a_coroutine_is_logged(self) -> None:
        """A programming error with its traceback, a network error as one line."""
        errors: list[Exception] = [KeyError("mistake"), SocketError("the peer fell silent")]

        async def handler(_made: DatagramSocket, message: Message) -> None:
            await deferLater(self.reactor, 0)
            raise errors[message.data[0]]

        made = self.make()
        made.message_received.add(handler)
        self.bind(made)
        self.send(self.peer(), made, b"\0", b"\1")
        with log_lines() as lines:
            self.reactor.advance(0)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.assertEqual(len([line for line in lines if "the peer fell silent" in line]), 1)

    def test_a_cancelled_task_in_a_coroutine_does_not_close_the_socket(self) -> None:
        """The error of asyncio is no `Exception`; it is logged, and the next message handled."""
        handled: list[bytes] = []

        async def handler(_made: DatagramSocket, message: Message) -> None:
            handled.append(message.data)
            raise asyncio.CancelledError

        made = self.make()
        made.message_received.add(handler)
        self.bind(made)
        self.send(self.peer(), made, b"one", b"two")
        self.assertEqual(handled, [b"one", b"two"])
        self.assertEqual(len(self.flushLoggedErrors(asyncio.CancelledError)), 2)

    def test_a_coroutine_can_reset_a_variable_after_it_waited(self) -> None:
        """A handler runs in one context from its begin to its end."""
        variable = ContextVar("variable", default="none")
        ended: list[str] = []

        async def handler(_made: DatagramSocket, _message: Message) -> None:
            token = variable.set("inside")
            await deferLater(self.reactor, 0)
            variable.reset(token)
            ended.append(variable.get())

        made = self.make()
        made.message_received.add(handler)
        self.bind(made)
        self.send(self.peer(), made, b"x")
        self.reactor.advance(0)
        self.assertEqual(ended, ["none"])

    def test_an_uncaught_refusal_is_logged_in_one_line(self) -> None:
        """The samples catch it; a handler that does not continues with the next message."""
        made = self.make()
        made.message_received.add(lambda _, message: message.data)
        peer = self.peer()
        self.connect(peer, made)
        peer.close()
        with log_lines() as lines:
            made.output_stream.send_all(b"x")
            self.pump()
        self.assertEqual(
            len([line for line in lines if "the handler of a message failed" in line]), 1
        )

    def test_the_port_pauses_at_1024_running_handlers(self) -> None:
        """It resumes when half of them have ended."""
        pending: list[Deferred[None]] = []

        def handler(_made: DatagramSocket, _message: Message) -> Deferred[None]:
            pending.append(Deferred())
            return pending[-1]

        made = self.make()
        made.message_received.add(handler)
        made.control.inbound_buffer_size_in_bytes = 4 * 1024 * 1024
        self.bind(made)
        peer = self.peer()
        self.flood(peer, made)
        self.assertTrue(1024 <= len(pending) < 1024 + 64, len(pending))
        while (running := len([each for each in pending if not each.called])) > 512:
            self.assertEqual(self.reactor.readers, set(), f"{running=}")
            next(each for each in pending if not each.called).callback(None)
        self.assertEqual(len(self.reactor.readers), 1)
        for each in pending:
            if not each.called:
                each.callback(None)

    def test_a_handler_may_close_the_socket(self) -> None:
        """Datagrams received in the same call are not delivered."""
        made = self.make()
        seen: list[bytes] = []

        def handler(called: DatagramSocket, message: Message) -> None:
            seen.append(message.data)
            called.close()

        made.message_received.add(handler)
        self.bind(made)
        self.run_to(made, b"one", b"two")
        self.assertEqual(seen, [b"one"])


class HandlerOutputTests(SocketCase):
    """Datagrams that handlers write."""

    def echo(self) -> DatagramSocket:
        """Bind a socket that answers each message, without awaiting."""
        made = self.make()
        made.message_received.add(
            lambda called, message: called.send_to(message.data, message.address)
        )
        return self.bind(made)

    def answer(self, made: DatagramSocket, peer: socket.socket) -> DatagramSocket:
        """Connect a socket that answers each message through its stream."""

        def handler(called: DatagramSocket, message: Message) -> None:
            called.output_stream.write(message.data)

        made.message_received.add(handler)
        return self.connect(peer, made)

    def test_a_handler_s_writes_are_sent_at_the_end_of_the_event(self) -> None:
        """Without being awaited, in the same turn of the reactor."""
        peer = self.peer()
        made = self.answer(self.make(), peer)
        self.send(peer, made, b"one", b"two")
        self.assertEqual(receive(peer, 2), [b"one", b"two"])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_the_writes_of_each_event_are_sent_at_its_end(self) -> None:
        """However many events there were before."""
        peer = self.peer()
        made = self.answer(self.make(), peer)
        for number in range(100):
            self.send(peer, made, b"%d" % number)
            self.assertEqual(receive(peer, 1), [b"%d" % number], number)

    def test_datagrams_of_send_to_are_sent_at_the_end_of_the_event(self) -> None:
        """To the sender of the message."""
        made = self.echo()
        for peer in (self.peer(), self.peer()):
            self.send(peer, made, GREETING)
            self.assertEqual(receive(peer, 1), [GREETING], peer)

    def test_writes_queued_before_the_event_are_sent_with_it(self) -> None:
        """In order."""
        peer = self.peer()
        made = self.answer(self.make(), peer)
        made.output_stream.write(b"before")
        self.send(peer, made, b"answer")
        self.assertEqual(receive(peer, 2), [b"before", b"answer"])

    def test_a_handler_that_awaits_its_write_continues_in_the_same_event(self) -> None:
        """The write is sent at the end of the event."""
        peer = self.peer()

        async def handler(called: DatagramSocket, message: Message) -> None:
            await called.output_stream.write(message.data)
            await called.output_stream.write(b"and more")

        made = self.make()
        made.message_received.add(handler)
        self.connect(peer, made)
        self.send(peer, made, b"one")
        self.reactor.advance(0)
        self.assertEqual(receive(peer, 2), [b"one", b"and more"])

    def steps_of_answering(self, *datagrams: bytes) -> list[str]:
        """Let a coroutine answer each of these datagrams, which arrive in one call."""
        steps: list[str] = []

        async def handler(_called: DatagramSocket, message: Message) -> None:
            steps.append("called")
            await message.reply(message.data)
            steps.append("answered")

        made = self.make()
        made.message_received.add(handler)
        self.run_to(self.bind(made), *datagrams)
        return steps

    def test_an_awaited_answer_to_a_single_datagram_is_sent_at_once(self) -> None:
        """No other answer can leave with it, so the coroutine does not wait."""
        self.assertEqual(self.steps_of_answering(b"one"), ["called", "answered"])

    def test_awaited_answers_to_a_run_are_sent_when_all_handlers_were_called(self) -> None:
        """The answers leave in one call."""
        steps = self.steps_of_answering(b"one", b"two", b"six")
        self.assertEqual(steps, ["called"] * 3 + ["answered"] * 3)

    def test_writes_of_the_handler_of_a_refusal_are_sent(self) -> None:
        """Also when a send detects the refusal."""
        peer = self.peer()
        address = peer.getsockname()
        made = self.make()

        def handler(called: DatagramSocket, _message: Message) -> None:
            called.output_stream.write(b"again")

        made.message_received.add(handler)
        self.connect(peer, made)
        peer.close()
        self.successResultOf(made.output_stream.send_all(b"into the void"))
        again = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(again.close)
        again.bind(address)
        again.settimeout(60)
        # The ICMP reply has arrived, and the next send reports it.
        self.successResultOf(made.output_stream.send_all(b"heard"))
        self.reactor.advance(0)
        self.assertEqual(receive(again, 2), [b"heard", b"again"])


class ReceivingCoroutineTests(SocketCase):
    """A socket without handlers, and a coroutine that receives."""

    def bind_and_receive(self) -> tuple[DatagramSocket, Deferred[Message]]:
        """Bind a socket, and begin to wait for a message."""
        made = self.bind()
        return made, made.receive()

    def test_all_datagrams_of_a_wake_up_have_arrived_when_a_wait_ends(self) -> None:
        """A coroutine waits for the reactor once, not for each datagram."""
        made, waiting = self.bind_and_receive()
        later: list[list[bytes]] = []
        waiting.addCallback(lambda _: later.append([self.take(made), self.take(made)]))
        self.run_to(made, b"one", b"two", b"six")
        self.assertEqual(later, [[b"two", b"six"]])

    def test_an_awaited_answer_is_sent_before_the_await_returns(self) -> None:
        """Datagrams of one wake-up are answered one after the other."""
        peer = self.peer()
        made = self.bind()
        answered: list[bytes] = []

        async def answer() -> None:
            async for message in made:
                await message.reply(message.data)
                answered.append(peer.recv(100, socket.MSG_DONTWAIT))

        answering = Deferred.fromCoroutine(answer())
        self.send(peer, made, b"one", b"", b"three")
        self.assertEqual(answered, [b"one", b"", b"three"])
        made.close()
        self.successResultOf(answering)

    def test_writes_after_a_wait_leave_together(self) -> None:
        """Writes to one stream leave at the end of the event that woke the coroutine."""
        peer = self.peer()
        made = self.connect(peer)
        waiting = made.receive()
        waiting.addCallback(lambda _: [made.output_stream.write(data) for data in (b"a", b"b")])
        self.send(peer, made, b"begin")
        self.assertEqual(receive(peer, 2), [b"a", b"b"])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_a_wait_may_end_with_a_close(self) -> None:
        """The other datagrams of the wake-up are dropped."""
        made, waiting = self.bind_and_receive()
        waiting.addCallback(lambda _: made.close())
        self.run_to(made, b"one", b"two")
        self.successResultOf(waiting)
        self.failureResultOf(made.receive(), ClosedError)


class RefusalTests(SocketCase):
    """A peer whose port is closed."""

    def refuse(self, made: DatagramSocket) -> None:
        """Send to a connected peer whose port is closed."""
        peer = self.peer()
        self.connect(peer, made)
        peer.close()
        self.assertEqual(self.successResultOf(made.output_stream.send_all(b"x")), 1)
        self.pump()

    def test_a_refusal_is_a_message_that_raises(self) -> None:
        """Status ``CONNECTION_RESET_BY_PEER``, with the address of the peer."""
        made = self.make()
        messages: list[Message] = []
        made.message_received.add(lambda _, message: messages.append(message))
        self.refuse(made)
        (message,) = messages
        error = self.assertRaises(SocketError, getattr, message, "data_reader")
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_RESET_BY_PEER)
        self.assertEqual(message.remote_address, made.information.remote_address)
        self.assertEqual(message.remote_port, made.information.remote_port)

    def test_a_refusal_fails_a_pending_receive(self) -> None:
        """The next receive succeeds."""
        made = self.make()
        self.refuse(made)
        status = SocketErrorStatus.CONNECTION_RESET_BY_PEER
        self.assert_refused(made.receive_from(), status)
        waiting = made.receive_from()
        self.assertNoResult(waiting)
        made.close()
        self.failureResultOf(waiting, ClosedError)

    def test_after_a_refusal_the_socket_stays_usable(self) -> None:
        """When the peer opens its port again, it gets the datagrams."""
        made = self.make()
        self.refuse(made)
        peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(peer.close)
        peer.bind((LOCALHOST, int(made.information.remote_port)))
        peer.settimeout(60)
        self.successResultOf(made.output_stream.send_all(GREETING))
        self.assertEqual(peer.recv(99), GREETING)
        self.assert_refused(made.receive_from(), SocketErrorStatus.CONNECTION_RESET_BY_PEER)
        self.send(peer, made, b"back")
        self.assertEqual(self.take(made), b"back")


class TruncationTests(SocketCase):
    """Datagrams that are longer than ``max_datagram``."""

    def test_a_datagram_that_is_too_long_is_flagged_and_raises(self) -> None:
        """``MESSAGE_TOO_LONG``; the datagrams before and after it are whole."""
        made = self.make()
        made.control.max_datagram = 5
        _, messages = self.listen(made)
        self.send(self.peer(), made, b"Hello", b"Hello, World!", b"")
        self.assertEqual([message.is_truncated for message in messages], [False, True, False])
        error = self.assertRaises(SocketError, getattr, messages[1], "data")
        self.assertIs(error.status, SocketErrorStatus.MESSAGE_TOO_LONG)
        self.assertEqual(messages[1].beginning, b"Hello")

    def test_a_pending_receive_fails_for_a_datagram_that_is_too_long(self) -> None:
        """The next receive gets the next datagram."""
        made = self.make()
        made.control.max_datagram = 5
        self.bind(made)
        self.send(self.peer(), made, b"Hello, World!", b"next")
        self.assert_refused(made.receive_from(), SocketErrorStatus.MESSAGE_TOO_LONG)
        self.assertEqual(self.take(made), b"next")

    def test_in_a_run_only_datagrams_that_are_too_long_are_truncated(self) -> None:
        """The limit applies to each datagram, not to the run."""
        made = self.make()
        made.control.max_datagram = 1200
        _, messages = self.listen(made)
        self.run_to(made, *map(bytes, (1200,) * 10 + (1201, 1201, 5)))
        flags = [message.is_truncated for message in messages]
        self.assertEqual(flags, [False] * 10 + [True] * 2 + [False])

    def test_the_largest_possible_datagram_arrives_whole(self) -> None:
        """65,507 bytes; on IPv6, where the header is not counted, 65,527."""
        for host, size in ((LOCALHOST, 65_507), ("::1", 65_527)):
            made, sender = self.bind(host=host), self.bind(host=host)
            self.successResultOf(sender.send_to(bytes(size), self.address(made)))
            self.pump()
            self.assertEqual(len(self.take(made)), size, (host, size))
            sending = sender.send_to(bytes(size + 1), self.address(made))
            self.assert_refused(sending, SocketErrorStatus.MESSAGE_TOO_LONG)
