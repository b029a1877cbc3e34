"""A stream socket connects, reports its information, and closes."""

from __future__ import annotations

import errno
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionAborted, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.sockets.test_resolving import FakeNameResolver, FakeServiceResolver
from twsock import (
    BusyError,
    ClosedError,
    ConnectError,
    EndOfStreamError,
    EndpointPair,
    HostName,
    HostNameSortOptions,
    LocalProtocolError,
    SocketError,
    SocketErrorStatus,
    SocketProtectionLevel,
    StreamSocket,
)


class SocketTests(SynchronousTestCase):
    """A reactor in memory that knows two hosts."""

    def setUp(self) -> None:
        self.names = FakeNameResolver()
        self.names.hosts = {
            "localhost": ["::1", "127.0.0.1"],
            "many.example": ["192.0.2.1", "192.0.2.2", "2001:db8::1"],
        }
        self.reactor: Any = MemoryReactorClock()
        self.reactor.installNameResolver(self.names)
        self.socket = StreamSocket(self.reactor)

    def answer(self, place: int = -1) -> StringTransport:
        """Let an attempt succeed."""
        host, port, factory, _timeout, _bind = self.reactor.tcpClients[place]
        protocol = factory.buildProtocol(None)
        transport = StringTransport(
            peerAddress=IPv4Address("TCP", host, port),
            hostAddress=IPv4Address("TCP", "127.0.0.1", 50_000),
        )
        protocol.makeConnection(transport)
        return transport

    def refuse(self, place: int = -1) -> None:
        """Let an attempt fail."""
        error = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        factory = self.reactor.tcpClients[place][2]
        factory.clientConnectionFailed(self.reactor.connectors[place], Failure(error))
        self.reactor.advance(0)


class ConnectTests(SocketTests):
    """Connecting to a service of a host."""

    def test_connect_takes_a_host_and_a_port(self) -> None:
        """As text, or as a host name and a number; it fires when connected."""
        for host in ("127.0.0.1", HostName("127.0.0.1")):
            for service in ("1337", 1337):
                stream_socket = StreamSocket(self.reactor)
                connecting = stream_socket.connect(host, service)
                self.assertNoResult(connecting)
                self.assertEqual(self.reactor.tcpClients[-1][:2], ("127.0.0.1", 1337), service)
                self.answer()
                self.assertIsNone(self.successResultOf(connecting), service)
                self.assertTrue(stream_socket.is_open, service)

    def test_connect_tries_all_addresses_of_a_name(self) -> None:
        """The next as soon as one fails; families alternate; the error lists every attempt."""
        connecting = self.socket.connect("many.example", 80)
        for _ in range(3):
            self.refuse()
        tried = [client[0] for client in self.reactor.tcpClients]
        self.assertEqual(tried, ["192.0.2.1", "2001:db8::1", "192.0.2.2"])
        error = self.failureResultOf(connecting, ConnectError).value
        self.assertEqual([attempt.address for attempt in error.attempts], tried)
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_REFUSED)
        self.assertIn("cannot connect to many.example:80: 192.0.2.1 port 80: ", str(error))

    def test_attempts_can_be_made_one_by_one(self) -> None:
        """However long one takes."""
        self.socket.control.serialize_connection_attempts = True
        self.socket.connect("many.example", 80)
        self.reactor.pump([1.0] * 20)
        self.assertEqual(len(self.reactor.tcpClients), 1)

    def test_a_service_is_found_through_an_srv_record(self) -> None:
        """If it is neither a number nor in the services file."""
        resolver = FakeServiceResolver(Deferred())
        StreamSocket(self.reactor, resolver=resolver).connect("many.example", "no-such-service")
        self.assertEqual(
            [str(name) for name in resolver.asked], ["_no-such-service._tcp.many.example"]
        )

    def test_an_endpoint_pair_fixes_the_local_end(self) -> None:
        """Its address, its port, or both."""
        for local, service, bind in (
            (HostName("127.0.0.2"), "", ("127.0.0.2", 0)),
            (HostName("127.0.0.2"), "1336", ("127.0.0.2", 1336)),
            (None, "1336", ("0.0.0.0", 1336)),
            (None, "", None),
        ):
            pair = EndpointPair(local, service, HostName("127.0.0.1"), "1337")
            StreamSocket(self.reactor).connect(pair)
            self.assertEqual(self.reactor.tcpClients[-1][4], bind, (local, service, bind))

    def test_invalid_arguments_raise_at_the_call(self) -> None:
        """Before any lookup."""
        for host, service in (
            ("127.0.0.1", None),
            ("127.0.0.1", ""),
            ("127.0.0.1", 65536),
            ("localhost", -1),
            ("not a host", 1),
            ("", 1),
            (None, 1),
        ):
            self.assertRaises(ValueError, self.socket.connect, host, service)
        pair = EndpointPair(None, "", HostName("127.0.0.1"), "1")
        self.assertRaises(ValueError, self.socket.connect, pair, 1)
        pair.remote_service_name = ""
        self.assertRaises(ValueError, self.socket.connect, pair)
        nameless = EndpointPair(HostName("localhost"), "", HostName("127.0.0.1"), "1")
        self.assertRaises(ValueError, self.socket.connect, nameless)
        unknown = EndpointPair(None, "no-such-service", HostName("127.0.0.1"), "1")
        self.assertRaises(ValueError, self.socket.connect, unknown)
        self.assertRaises(ValueError, self.socket.connect, "127.0.0.1", 1, timeout=-1)
        self.assertEqual(self.reactor.tcpClients, [])

    def test_after_a_failed_connect_the_socket_can_be_connected(self) -> None:
        """Its options can be set."""
        connecting = self.socket.connect("127.0.0.1", 1)
        self.assertRaises(LocalProtocolError, setattr, self.socket.control, "keep_alive", True)
        self.refuse()
        self.failureResultOf(connecting, ConnectError)
        self.socket.control.keep_alive = True
        again = self.socket.connect("127.0.0.1", 2)
        self.answer()
        self.successResultOf(again)

    def test_after_a_cancelled_connect_the_socket_can_be_connected(self) -> None:
        """Whether it was cancelled during the lookup or an attempt."""
        for host in ("127.0.0.1", "slow.example"):
            self.names.slow["slow.example"] = _resolution()
            connecting = self.socket.connect(host, 1)
            connecting.cancel()
            self.failureResultOf(connecting, CancelledError)
        again = self.socket.connect("127.0.0.1", 2)
        self.answer()
        self.successResultOf(again)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_a_connect_that_takes_too_long_fails(self) -> None:
        """The lookup included; then the socket can be connected."""
        self.names.slow["slow.example"] = _resolution()
        connecting = self.socket.connect("slow.example", 1, timeout=2)
        self.reactor.advance(2)
        error = self.failureResultOf(connecting, SocketError).value
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_TIMED_OUT)
        self.socket.connect("127.0.0.1", 1)

    def test_the_late_end_of_a_failed_connect_does_not_end_the_next(self) -> None:
        """The reactor reports an abort in a later turn; the socket is connected by then."""
        connecting = self.socket.connect("127.0.0.1", 1, SocketProtectionLevel.SSL, timeout=2)
        aborted: Any = self.answer()
        self.reactor.advance(2)
        self.failureResultOf(connecting, SocketError)
        again = self.socket.connect("127.0.0.1", 2)
        self.answer()
        self.successResultOf(again)
        aborted.protocol.connectionLost(Failure(ConnectionAborted()))
        self.assertTrue(self.socket.is_open)
        self.assertEqual(self.socket.information.remote_port, "2")
        self.failureResultOf(self.socket.connect("127.0.0.1", 3), LocalProtocolError)

    def test_connecting_to_an_unknown_name_fails(self) -> None:
        """Without an attempt."""
        error = self.failureResultOf(self.socket.connect("nobody.example", 1), SocketError).value
        self.assertIs(error.status, SocketErrorStatus.HOST_NOT_FOUND)

    def test_a_second_connect_fails(self) -> None:
        """During the first connect and after it; neither is affected."""
        connecting = self.socket.connect("127.0.0.1", 1)
        self.failureResultOf(self.socket.connect("127.0.0.1", 2), BusyError)
        self.answer()
        self.successResultOf(connecting)
        error = self.failureResultOf(self.socket.connect("127.0.0.1", 2), LocalProtocolError).value
        self.assertEqual(error.hresult, 0x8000000E)
        self.assertTrue(self.socket.is_open)

    def test_closing_fails_a_pending_connect(self) -> None:
        """With the HRESULT of a closed object, at each step."""
        for host in ("127.0.0.1", "slow.example"):
            self.names.slow["slow.example"] = _resolution()
            stream_socket = StreamSocket(self.reactor)
            connecting = stream_socket.connect(host, 1)
            self.successResultOf(stream_socket.close())
            error = self.failureResultOf(connecting, ClosedError).value
            self.assertEqual(error.hresult, 0x80000013, host)
            self.failureResultOf(stream_socket.connect("127.0.0.1", 1), ClosedError)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_any_endpoint_of_twisted_can_be_used(self) -> None:
        """Its errors become `SocketError`."""
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", 1337)
        connecting = self.socket.connect_endpoint(endpoint)
        self.refuse()
        error = self.failureResultOf(connecting, SocketError).value
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_REFUSED)
        again = self.socket.connect_endpoint(endpoint)
        self.answer()
        self.successResultOf(again)
        self.failureResultOf(self.socket.connect_endpoint(endpoint), LocalProtocolError)

    def test_a_connection_after_the_cancellation_is_dropped(self) -> None:
        """From an endpoint that cannot be cancelled."""

        class Stubborn:
            def connect(self, factory: Any) -> Deferred[Any]:
                self.factory = factory
                return Deferred()

        endpoint: Any = Stubborn()
        connecting = self.socket.connect_endpoint(endpoint)
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.assertIsNone(endpoint.factory.buildProtocol(None))


class InformationTests(SocketTests):
    """The information is filled in while the socket connects."""

    def test_information_has_names_as_given_and_addresses_as_connected(self) -> None:
        """Ports are text."""
        information = self.socket.information
        self.assertEqual((information.remote_address, information.remote_port), (None, ""))
        self.assertEqual((information.local_address, information.local_port), (None, ""))
        self.socket.connect("localhost", 1337)
        self.refuse()
        self.answer()
        self.assertEqual(information.remote_host_name, HostName("localhost"))
        self.assertEqual(information.remote_service_name, "1337")
        self.assertEqual(information.remote_address, HostName("127.0.0.1"))
        self.assertEqual((information.remote_port, information.local_port), ("1337", "50000"))
        self.assertIs(self.socket.information, information)

    def test_options_cannot_be_set_on_a_connection(self) -> None:
        """As documented; the size of the buffer is ignored."""
        self.socket.connect("127.0.0.1", 1)
        self.answer()
        control = self.socket.control
        error = self.assertRaises(LocalProtocolError, setattr, control, "no_delay", False)
        self.assertEqual(error.hresult, 0x8000000E)
        control.outbound_buffer_size_in_bytes = 4096
        self.assertIsNone(control.outbound_buffer_size_in_bytes)
        self.assertIs(self.socket.control, control)


class LookUpTests(SocketTests):
    """Endpoint pairs, without connecting."""

    def look_up(self, options: HostNameSortOptions) -> list[tuple[str, str]]:
        looking = StreamSocket.get_endpoint_pairs(self.reactor, "many.example", 80, options)
        pairs = self.successResultOf(looking)
        self.assertEqual(
            {(pair.local_host_name, pair.local_service_name) for pair in pairs}, {(None, "")}
        )
        return [(str(pair.remote_host_name), pair.remote_service_name) for pair in pairs]

    def test_pairs_alternate_between_the_families(self) -> None:
        """So that the second attempt differs from the first."""
        pairs = [("192.0.2.1", "80"), ("2001:db8::1", "80"), ("192.0.2.2", "80")]
        self.assertEqual(self.look_up(HostNameSortOptions.NONE), pairs)

    def test_pairs_for_a_long_connection_are_in_the_resolvers_order(self) -> None:
        """The best path first."""
        pairs = [("192.0.2.1", "80"), ("192.0.2.2", "80"), ("2001:db8::1", "80")]
        options = HostNameSortOptions.OPTIMIZE_FOR_LONG_CONNECTIONS
        self.assertEqual(self.look_up(options), pairs)

    def test_a_pair_can_be_connected(self) -> None:
        """Without a change."""
        looking = StreamSocket.get_endpoint_pairs(self.reactor, "many.example", 80)
        self.socket.connect(self.successResultOf(looking)[1])
        self.assertEqual(self.reactor.tcpClients[0][:2], ("2001:db8::1", 80))


class EndTests(SocketTests):
    """Closing an unconnected socket."""

    def test_closing_before_connecting_fails_later_calls(self) -> None:
        """Closing twice is harmless."""
        for end in (self.socket.close, self.socket.abort, self.socket.cancel_io):
            self.successResultOf(end())
        self.failureResultOf(self.socket.input_stream.receive_some(), ClosedError)
        self.failureResultOf(self.socket.output_stream.write(b"x"), ClosedError)
        self.assertFalse(self.socket.is_open)

    def test_limits_out_of_bounds_are_refused(self) -> None:
        """The call raises the error before a socket is opened."""
        self.assertRaises(ValueError, StreamSocket, Clock(), close_timeout=-1)

    def test_async_with_closes_the_socket(self) -> None:
        """At the end of the block."""

        async def block() -> None:
            async with self.socket:
                pass

        self.successResultOf(Deferred.fromCoroutine(block()))
        self.failureResultOf(self.socket.connect("127.0.0.1", 1), ClosedError)

    def test_async_with_aborts_when_the_block_raises(self) -> None:
        """
        So that the peer takes no partial answer for a complete one; `EndOfStreamError` closes.
        """
        for raised, is_aborted in ((ZeroDivisionError("x"), True), (EndOfStreamError(4, 0), False)):
            stream_socket = StreamSocket(self.reactor)
            stream_socket.connect("127.0.0.1", 1)
            transport: Any = self.answer()

            async def block(
                stream_socket: StreamSocket = stream_socket, raised: Exception = raised
            ) -> None:
                async with stream_socket:
                    raise raised

            ending = Deferred.fromCoroutine(block())
            self.assertEqual(transport.disconnected, is_aborted, (raised, is_aborted))
            transport.protocol = None
            ending.addErrback(lambda _: None)


def _resolution() -> Any:
    from tests.sockets.test_resolving import FakeResolution

    return FakeResolution("slow.example")
