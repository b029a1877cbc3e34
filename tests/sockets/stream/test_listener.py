"""A listener accepts connections, passes them to handlers or `accept`, and closes cleanly."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.endpoints import TCP4ServerEndpoint, serverFromString
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import LogLevel, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.loopback.contract import OnEveryReactor, failure_of, turns
from tests.loopback.reactors import on_every_reactor
from twsock import (
    BusyError,
    ClosedError,
    HostName,
    LocalProtocolError,
    SocketError,
    SocketErrorStatus,
    StreamSocket,
    StreamSocketListener,
)
from twsock.sockets.stream.listening import MAX_WAITING
from twsock.stream.listening.proxy_endpoint import ProxyEndpoint

Args = Any


async def echo(_listener: StreamSocketListener, args: Args) -> None:
    """Send received bytes back."""
    async with args.socket as accepted:
        async for chunk in accepted.input_stream:
            await accepted.output_stream.send_all(chunk)


async def listen(reactor: Any, handler: Any = None, **options: Any) -> StreamSocketListener:
    """Listen on a free port of 127.0.0.1."""
    listener = StreamSocketListener(reactor, **options)
    if handler is not None:
        listener.connection_received.add(handler)
    await listener.bind_endpoint("127.0.0.1", "")
    return listener


async def connect(reactor: Any, listener: StreamSocketListener) -> StreamSocket:
    near = StreamSocket(reactor)
    await near.connect("127.0.0.1", listener.information.local_port)
    return near


class ListenerTests(OnEveryReactor):
    """On sockets of the kernel."""

    has_variants = True

    def log_events(self) -> list[Any]:
        """Record all later log events."""
        events: list[Any] = []
        observer: Any = events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        return events

    @on_every_reactor
    def test_handlers_get_each_connection(self) -> None:
        """With the listener; coroutine functions and plain ones, all that were added."""
        seen: list[StreamSocket] = []

        async def work(reactor: Any) -> None:
            listener = StreamSocketListener(reactor)

            @listener.connection_received.add
            def note(sender: StreamSocketListener, args: Args) -> None:
                self.assertIs(sender, listener)
                seen.append(args.socket)

            listener.connection_received.add(echo)
            await listener.bind_endpoint("127.0.0.1", "")
            for number in range(2):
                async with await connect(reactor, listener) as near:
                    near.output_stream.write(b"Hello")
                    echoed = await near.input_stream.receive_exactly(5)
                    self.assertEqual(echoed, b"Hello", f"{number=}")
            self.assertEqual(await listener.close_all(5), 0)

        self.conduct(work)
        self.assertEqual(len(set(seen)), 2)

    @on_every_reactor
    def test_connections_can_be_taken_one_by_one(self) -> None:
        """In a loop that ends when the listener is closed."""

        async def work(reactor: Any) -> None:
            listener = await listen(reactor)
            near = [await connect(reactor, listener) for _ in range(3)]
            reactor.callLater(0.01, listener.close)
            taken = [accepted async for accepted in listener]
            self.assertEqual(len(taken), 3)
            for one in (*near, *taken):
                await one.abort()

        self.conduct(work)

    def test_cancel_io_fails_a_pending_accept(self) -> None:
        """The listener continues, and the next wait gets the next connection."""

        async def work(reactor: Any) -> None:
            listener = await listen(reactor)
            await listener.cancel_io()
            for timeout in (None, 5):
                waiting = listener.accept(timeout=timeout)
                await listener.cancel_io()
                error = await failure_of(waiting)
                self.assertIs(error.status, SocketErrorStatus.OPERATION_ABORTED, timeout)
            looping = ensureDeferred(anext(aiter(listener)))
            await listener.cancel_io()
            await failure_of(looping)
            near = await connect(reactor, listener)
            accepted = await listener.accept()
            await listener.cancel_io()
            near.output_stream.write(b"Hello")
            self.assertEqual(await accepted.input_stream.receive_exactly(5), b"Hello")
            for one in (near, accepted):
                await one.abort()
            await listener.close()

        self.conduct(work)

    def test_cancel_io_keeps_queued_connections(self) -> None:
        """None is taken or refused."""

        async def work(reactor: Any) -> None:
            listener = await listen(reactor)
            near = await connect(reactor, listener)
            await turns(reactor, 20)
            await listener.cancel_io()
            accepted = await listener.accept()
            for one in (near, accepted):
                await one.abort()
            await listener.close()

        self.conduct(work)

    def test_without_accept_only_a_few_connections_are_accepted(self) -> None:
        """The others wait in the kernel until there is room."""

        async def work(reactor: Any) -> None:
            listener = await listen(reactor)
            near = [await connect(reactor, listener) for _ in range(MAX_WAITING + 5)]
            await turns(reactor, 20)
            self.assertEqual(len(listener), MAX_WAITING)
            taken = [await listener.accept() for _ in near]
            self.assertEqual(len(taken), MAX_WAITING + 5)
            await listener.close()
            for one in (*near, *taken):
                await one.abort()

        self.conduct(work)

    @on_every_reactor
    def test_max_connections_limits_the_open_connections(self) -> None:
        """The next one is accepted when one has ended."""

        async def work(reactor: Any) -> None:
            listener = await listen(reactor, echo, max_connections=2)
            near = [await connect(reactor, listener) for _ in range(3)]
            near[2].output_stream.write(b"x")
            await turns(reactor, 20)
            self.assertEqual(len(listener), 2)
            await near[0].close()
            self.assertEqual(await near[2].input_stream.receive_some(), b"x")
            await near[1].close()
            await near[2].close()
            self.assertEqual(await listener.close_all(5), 0)

        self.conduct(work)

    @on_every_reactor
    def test_binding_a_taken_port_fails_and_can_be_repeated(self) -> None:
        """The listener is not bound."""

        async def work(reactor: Any) -> None:
            first = await listen(reactor)
            port = first.information.local_port
            second = StreamSocketListener(reactor)
            error = await failure_of(second.bind_endpoint("127.0.0.1", port))
            self.assertIs(error.status, SocketErrorStatus.ADDRESS_ALREADY_IN_USE)
            self.assertEqual(second.information.local_port, "")
            await first.close()
            await second.bind_endpoint("127.0.0.1", port)
            self.assertEqual(second.information.local_port, port)
            await second.close()

        self.conduct(work)

    def test_binding_an_address_of_another_machine_fails(self) -> None:
        """192.0.2.1 belongs to no machine (RFC 5737)."""

        async def work(reactor: Any) -> None:
            error = await failure_of(StreamSocketListener(reactor).bind_endpoint("192.0.2.1", ""))
            self.assertIs(error.status, SocketErrorStatus.CANNOT_ASSIGN_REQUESTED_ADDRESS)

        self.conduct(work)

    def test_a_name_is_bound_to_its_address(self) -> None:
        """``localhost`` is a name of this machine."""

        async def work(reactor: Any) -> None:
            async with StreamSocketListener(reactor) as listener:
                await listener.bind_endpoint("localhost", "")
                self.assertNotEqual(listener.information.local_port, "")

        self.conduct(work)

    def test_a_service_is_bound_to_all_addresses(self) -> None:
        """Of both families, if both exist; the addresses of IPv4 peers are IPv4 addresses."""

        async def work(reactor: Any) -> None:
            listener = StreamSocketListener(reactor)
            await listener.bind_service_name("")
            hosts = ["127.0.0.1", "::1"] if socket.has_dualstack_ipv6() else ["127.0.0.1"]
            for host in hosts:
                near = StreamSocket(reactor)
                await near.connect(host, listener.information.local_port)
                accepted = await listener.accept()
                self.assertEqual(accepted.information.remote_address, HostName(host), host)
                self.assertEqual(accepted.information.remote_host_name, HostName(host), host)
                self.assertEqual(
                    accepted.information.remote_port, near.information.local_port, host
                )
                await near.abort()
                await accepted.abort()
            await listener.close()

        self.conduct(work)

    def test_any_endpoint_of_twisted_can_be_used(self) -> None:
        """With `listen`."""

        async def work(reactor: Any) -> None:
            async with StreamSocketListener(reactor) as listener:
                await listener.listen(TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"))
                near = await connect(reactor, listener)
                accepted = await listener.accept()
                await near.abort()
                await accepted.abort()

        self.conduct(work)

    def test_accepted_sockets_have_the_options_of_the_listener(self) -> None:
        """And keep them."""

        async def work(reactor: Any) -> None:
            async with StreamSocketListener(reactor) as listener:
                listener.control.keep_alive = True
                listener.control.no_delay = False
                listener.control.outbound_unicast_hop_limit = 7
                await listener.bind_endpoint("127.0.0.1", "")
                self.assertRaises(
                    LocalProtocolError, setattr, listener.control, "keep_alive", False
                )
                near = await connect(reactor, listener)
                accepted = await listener.accept()
                self.assertTrue(accepted.control.keep_alive)
                self.assertEqual(accepted.control.outbound_unicast_hop_limit, 7)
                self.assertFalse(accepted.control.no_delay)
                self.assertTrue(near.control.no_delay)
                await near.abort()
                await accepted.abort()

        self.conduct(work)

    def test_a_handler_that_raises_aborts_only_its_connection(self) -> None:
        """The error is logged once, and the listener continues."""
        events = self.log_events()

        async def fail(_listener: StreamSocketListener, args: Args) -> None:
            await args.socket.input_stream.receive_some()
            raise ZeroDivisionError("in a handler")

        def fail_at_once(_listener: StreamSocketListener, args: Args) -> None:
            raise ZeroDivisionError("in a handler")

        async def work(reactor: Any) -> None:
            for handler in (fail, fail_at_once):
                listener = await listen(reactor, handler)
                for _ in range(2):
                    near = await connect(reactor, listener)
                    near.output_stream.write(b"x")
                    self.assertEqual(await end_of(near), b"", handler)
                    await near.abort()
                self.assertEqual(await listener.close_all(5), 0, handler)

        self.conduct(work)
        failures = [event for event in events if event["log_level"] is LogLevel.critical]
        self.assertEqual(len(failures), 4)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 4)

    def test_a_peer_that_disconnects_is_logged_in_one_line(self) -> None:
        """Without a traceback; the connection ends."""
        events = self.log_events()

        async def read(_listener: StreamSocketListener, args: Args) -> None:
            await args.socket.input_stream.receive_exactly(10)

        async def work(reactor: Any) -> None:
            listener = await listen(reactor, read)
            for end in ("close", "abort"):
                near = await connect(reactor, listener)
                near.output_stream.write(b"half")
                await near.output_stream.flush()
                await getattr(near, end)()
            await turns(reactor, 20)
            self.assertEqual(len(listener), 0)
            await listener.close()

        self.conduct(work)
        self.assertEqual(self.flushLoggedErrors(), [])
        ended = [event for event in events if "ended" in (event.get("log_format") or "")]
        self.assertEqual(len(ended), 2)

    def test_closing_keeps_accepted_connections(self) -> None:
        """Only the port is closed."""

        async def work(reactor: Any) -> None:
            listener = await listen(reactor, echo)
            near = await connect(reactor, listener)
            near.output_stream.write(b"before")
            await near.input_stream.receive_exactly(6)
            await listener.close()
            await listener.close()
            near.output_stream.write(b"after")
            self.assertEqual(await near.input_stream.receive_exactly(5), b"after")
            error = await failure_of(
                StreamSocket(reactor).connect("127.0.0.1", listener.information.local_port)
            )
            self.assertIs(error.status, SocketErrorStatus.CONNECTION_REFUSED)
            await near.close()

        self.conduct(work)

    @on_every_reactor
    def test_closing_aborts_connections_queued_for_accept(self) -> None:
        """No other code could close them."""

        async def work(reactor: Any) -> None:
            listener = await listen(reactor)
            near = await connect(reactor, listener)
            await turns(reactor, 20)
            await listener.close()
            self.assertEqual(await end_of(near), b"")
            await near.abort()

        self.conduct(work)

    @on_every_reactor
    def test_close_all_serves_the_received_bytes(self) -> None:
        """Handlers that wait for further bytes get the end of the stream."""

        async def work(reactor: Any) -> None:
            async def slow_echo(_listener: StreamSocketListener, args: Args) -> None:
                async with args.socket as accepted:
                    async for chunk in accepted.input_stream:
                        await deferLater(reactor, 0.01)
                        await accepted.output_stream.send_all(chunk)

            listener = await listen(reactor, slow_echo)
            idle = await connect(reactor, listener)
            busy = await connect(reactor, listener)
            busy.output_stream.write(b"abc")
            await busy.output_stream.flush()
            await turns(reactor, 20)
            draining = listener.close_all(5)
            self.assertEqual(await idle.input_stream.receive_some(), b"")
            self.assertEqual(await busy.input_stream.receive_exactly(3), b"abc")
            self.assertEqual(await busy.input_stream.receive_some(), b"")
            await idle.close()
            await busy.close()
            self.assertEqual(await draining, 0)

        self.conduct(work)

    @on_every_reactor
    def test_close_all_aborts_at_its_deadline(self) -> None:
        """It returns the number of aborted connections."""

        async def work(reactor: Any) -> None:
            listener = await listen(reactor, lambda *_: None)
            near = await connect(reactor, listener)
            await turns(reactor, 20)
            self.assertEqual(await listener.close_all(0.05), 1)
            self.assertEqual(await end_of(near), b"")
            await near.abort()
            self.assertEqual(await listener.close_all(0), 0)

        self.conduct(work)

    def test_two_calls_of_close_all_end_with_the_last_connection(self) -> None:
        """Both, long before their deadlines."""

        async def work(reactor: Any) -> None:
            listener = await listen(reactor, lambda *_: None)
            near = await connect(reactor, listener)
            await turns(reactor, 20)
            first, second = listener.close_all(3600), listener.close_all(3600)
            await near.abort()
            # No read is pending, so the test looks for the reset itself.
            for accepted in list(listener.sockets):
                await accepted.abort()
            self.assertEqual([await first, await second], [0, 0])

        self.conduct(work)

    def test_a_cancelled_close_all_leaves_no_timer(self) -> None:
        """The reactor has no delayed call."""

        async def work(reactor: Any) -> None:
            listener = await listen(reactor, lambda *_: None)
            near = await connect(reactor, listener)
            await turns(reactor, 20)
            draining = listener.close_all(3600)
            draining.cancel()
            with self.assertRaises(CancelledError):
                await draining
            await near.abort()
            await listener.close_all(0)

        self.conduct(work)

    def test_a_cancelled_close_still_frees_the_port(self) -> None:
        """Only the wait ends."""

        async def work(reactor: Any) -> None:
            listener = await listen(reactor)
            closing = listener.close()
            closing.cancel()
            with self.assertRaises(CancelledError):
                await closing
            await turns(reactor)
            async with StreamSocketListener(reactor) as again:
                await again.bind_endpoint("127.0.0.1", listener.information.local_port)

        self.conduct(work)

    def test_a_handler_that_raises_in_its_block_aborts_the_connection(self) -> None:
        """So that the peer does not take a partial answer for a complete one."""

        async def fail(_listener: StreamSocketListener, args: Args) -> None:
            async with args.socket as accepted:
                await accepted.output_stream.write(b"half")
                raise ZeroDivisionError("in a handler")

        async def work(reactor: Any) -> None:
            listener = await listen(reactor, fail)
            near = await connect(reactor, listener)
            self.assertEqual(await near.input_stream.receive_exactly(4), b"half")
            error = await failure_of(near.input_stream.receive_some())
            self.assertIs(error.status, SocketErrorStatus.CONNECTION_RESET_BY_PEER)
            await near.abort()
            await listener.close_all(5)

        self.conduct(work)
        self.flushLoggedErrors(ZeroDivisionError)

    def test_peers_cannot_fill_the_log_with_tracebacks(self) -> None:
        """A silent peer and a broken rule are one line each."""
        events = self.log_events()

        async def read(_listener: StreamSocketListener, args: Args) -> None:
            await args.socket.input_stream.receive_until(b"\n", 3, timeout=0.01)

        async def work(reactor: Any) -> None:
            listener = await listen(reactor, read)
            for words in (b"", b"too long"):
                near = await connect(reactor, listener)
                near.output_stream.write(words)
                await end_of(near)
                await near.abort()
            await listener.close_all(5)

        self.conduct(work)
        self.assertEqual(self.flushLoggedErrors(), [])
        ended = [event for event in events if "ended" in (event.get("log_format") or "")]
        self.assertEqual(len(ended), 2)

    def test_the_peer_is_the_one_that_a_proxy_names(self) -> None:
        """Once the header was received, and after the end."""

        async def work(reactor: Any) -> None:
            listener = StreamSocketListener(reactor)
            await listener.listen(serverFromString(reactor, "haproxy:tcp:0:interface=127.0.0.1"))
            near = await connect(reactor, listener)
            near.output_stream.write(b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 2000\r\nx")
            accepted = await listener.accept()
            await accepted.input_stream.receive_exactly(1)
            for state in ("connected", "aborted"):
                address = str(accepted.information.remote_address)
                self.assertEqual(address, "192.0.2.1", f"{state=}")
                self.assertEqual(accepted.information.remote_port, "1000", f"{state=}")
                await near.abort()
                await accepted.abort()
            await listener.close()

        self.conduct(work)

    def test_under_our_proxy_endpoint_a_socket_has_the_address_of_the_client(self) -> None:
        """From the start: the connection is accepted when the header has arrived."""

        async def work(reactor: Any) -> None:
            listener = StreamSocketListener(reactor)
            plain = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
            await listener.listen(ProxyEndpoint(reactor, plain))
            near = await connect(reactor, listener)
            near.output_stream.write(b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 2000\r\nx")
            accepted = await listener.accept()
            self.assertEqual(str(accepted.information.remote_address), "192.0.2.1")
            self.assertEqual(accepted.information.remote_port, "1000")
            self.assertEqual(await accepted.input_stream.receive_exactly(1), b"x")
            await near.abort()
            await accepted.abort()
            await listener.close()

        self.conduct(work)

    def test_options_reach_a_socket_under_wrappers(self) -> None:
        """Also if the peer sends a PROXY header."""

        async def work(reactor: Any) -> None:
            listener = StreamSocketListener(reactor)
            listener.control.outbound_unicast_hop_limit = 7
            await listener.listen(serverFromString(reactor, "haproxy:tcp:0:interface=127.0.0.1"))
            near = await connect(reactor, listener)
            accepted = await listener.accept()
            limits = [
                reader.socket.getsockopt(socket.IPPROTO_IP, socket.IP_TTL)
                for reader in reactor.getReaders()
                if getattr(reader, "getPeer", None) and hasattr(reader, "socket")
            ]
            self.assertIn(7, limits)
            await near.abort()
            await accepted.abort()
            await listener.close()

        self.conduct(work)


async def end_of(near: StreamSocket) -> bytes:
    """Read to the end of the stream, or to the reset."""
    try:
        return await near.input_stream.receive_some()
    except SocketError as error:
        if error.status is not SocketErrorStatus.CONNECTION_RESET_BY_PEER:
            raise
        return b""


class InMemoryTests(SynchronousTestCase):
    """A listener on a reactor in memory."""

    def test_max_connections_per_address_limits_one_address(self) -> None:
        """Also without a socket of the kernel: a further connection is closed."""
        reactor = MemoryReactorClock()
        listener = StreamSocketListener(reactor, max_connections_per_address=1)
        self.successResultOf(listener.bind_endpoint("127.0.0.1", ""))
        factory: Any = reactor.tcpServers[0][1]
        peer, other = (IPv4Address("TCP", host, 7) for host in ("192.0.2.1", "192.0.2.2"))
        transport = StringTransport(peerAddress=peer)
        protocol = factory.buildProtocol(peer)
        protocol.makeConnection(transport)
        self.assertIsNone(factory.buildProtocol(peer))
        self.assertIsNotNone(factory.buildProtocol(other))
        protocol.connectionLost(Failure(ConnectionDone()))
        self.assertIsNotNone(factory.buildProtocol(peer))


@implementer(IStreamServerEndpoint)
class NeverListening:
    """An endpoint that does not finish listening."""

    def listen(self, _factory: object) -> Deferred[Any]:
        return Deferred()


class CancelledBindTests(SynchronousTestCase):
    """A cancelled bind leaves the listener unbound."""

    def test_after_a_cancelled_bind_the_listener_can_be_bound(self) -> None:
        """Until then handlers and options can be changed."""
        reactor = MemoryReactorClock()
        listener = StreamSocketListener(reactor)
        binding = listener.listen(NeverListening())
        self.assertRaises(LocalProtocolError, setattr, listener.control, "no_delay", False)
        binding.cancel()
        self.failureResultOf(binding, CancelledError)
        listener.control.no_delay = False
        self.successResultOf(listener.bind_endpoint("127.0.0.1", 1337))
        self.assertEqual(len(reactor.tcpServers), 1)


class RefusalTests(SynchronousTestCase):
    """Calls in the wrong state, or with wrong arguments."""

    def setUp(self) -> None:
        self.listener = StreamSocketListener(Clock())

    def test_invalid_arguments_raise_at_the_call(self) -> None:
        """Before a socket is opened."""
        for service in (None, "no-such-service", 65536):
            self.assertRaises(ValueError, self.listener.bind_service_name, service)
        self.assertRaises(ValueError, self.listener.bind_endpoint, "not a host", "")
        for options in ({"max_connections": 0}, {"close_timeout": -1}):
            self.assertRaises(ValueError, StreamSocketListener, Clock(), **options)
        self.assertRaises(ValueError, self.listener.close_all, -1)
        self.assertRaises(ValueError, self.listener.close_all, None)
        self.assertRaises(ValueError, self.listener.accept, timeout=-1)

    def test_accept_before_binding_fails(self) -> None:
        """The HRESULT is that of a method called too early."""
        error = self.failureResultOf(self.listener.accept(), LocalProtocolError).value
        self.assertEqual(error.hresult, 0x8000000E)

    def test_every_call_on_a_closed_listener_fails(self) -> None:
        """A loop over it ends at once."""
        self.successResultOf(self.listener.close())
        self.failureResultOf(self.listener.accept(), ClosedError)
        self.failureResultOf(self.listener.bind_service_name(""), ClosedError)
        self.assertRaises(LocalProtocolError, self.listener.connection_received.add, echo)

        async def loop() -> list[StreamSocket]:
            return [accepted async for accepted in self.listener]

        self.assertEqual(self.successResultOf(ensureDeferred(loop())), [])


class BoundTests(OnEveryReactor):
    """A bound listener."""

    _reactors = ["twisted.internet.selectreactor.SelectReactor"]

    def test_a_bound_listener_cannot_be_bound_or_get_handlers(self) -> None:
        """The handlers may have missed events."""

        async def work(reactor: Any) -> None:
            async with await listen(reactor, echo) as listener:
                self.assertIsInstance(
                    await failure_of(listener.bind_service_name("")), LocalProtocolError
                )
                event = listener.connection_received
                self.assertRaises(LocalProtocolError, event.add, echo)
                self.assertRaises(LocalProtocolError, event.remove, echo)
                self.assertIsInstance(await failure_of(listener.accept()), LocalProtocolError)

        self.conduct(work)

    def test_only_one_accept_may_be_pending(self) -> None:
        """It can be cancelled, has a timeout, and ends with the listener."""

        async def work(reactor: Any) -> None:
            listener = await listen(reactor)
            wait = listener.accept()
            self.assertIsInstance(await failure_of(listener.accept()), BusyError)
            wait.cancel()
            with self.assertRaises(CancelledError):
                await wait
            error = await failure_of(listener.accept(timeout=0.01))
            self.assertIs(error.status, SocketErrorStatus.CONNECTION_TIMED_OUT)
            last = listener.accept()
            await listener.close()
            self.assertIsInstance(await failure_of(last), ClosedError)

        self.conduct(work)

    def test_closing_during_a_bind_leaves_no_port_open(self) -> None:
        """The bind fails."""

        async def work(reactor: Any) -> None:
            listener = StreamSocketListener(reactor)
            binding = listener.bind_endpoint("localhost", "")
            await listener.close()
            self.assertIsInstance(await failure_of(binding), ClosedError)

        self.conduct(work)


for case in (ListenerTests, BoundTests):
    globals().update(case.makeTestCaseClasses())
del ListenerTests, BoundTests
