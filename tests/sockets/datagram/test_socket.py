"""A datagram socket is bound or connected once, receives datagrams, and closes cleanly."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SkipTest

from tests.sockets.datagram.cases import LOCALHOST, SocketCase, receive
from tests.sockets.test_resolving import answering, record
from twsock import (
    BusyError,
    ClosedError,
    DatagramSocket,
    DatagramSocketMessageReceivedEventArgs,
    EndpointPair,
    HostName,
    HostNameSortOptions,
    LocalProtocolError,
    SocketError,
    SocketErrorStatus,
)
from twsock.sockets.datagram.message_queue import MAX_MESSAGES

GREETING = b"Hello, World!"
GROUP = "224.3.0.5"

#: The number in Linux: the kernel reports the hop limit of each received datagram.
_IP_RECVTTL = 12

Message = DatagramSocketMessageReceivedEventArgs


class BindTests(SocketCase):
    """Binding to a port."""

    def test_an_empty_service_binds_a_free_port(self) -> None:
        """``information`` has its number; the socket is open."""
        made = self.make()
        self.assertFalse(made.is_open)
        self.assertIsNone(self.successResultOf(made.bind_endpoint(LOCALHOST, "")))
        self.assertTrue(made.is_open)
        self.assertGreater(int(made.information.local_port), 0)

    def test_a_service_is_bound_in_both_families(self) -> None:
        """Both ports have the same number, and both receive."""
        made = self.make()
        self.successResultOf(made.bind_service_name(""))
        port = int(made.information.local_port)
        for host in (LOCALHOST, "::1"):
            self.peer(host).sendto(host.encode(), (host, port))
            self.pump()
        self.assertEqual([self.take(made), self.take(made)], [b"127.0.0.1", b"::1"])

    def test_without_a_host_all_addresses_are_bound(self) -> None:
        """As `bind_service_name` does."""
        made = self.make()
        self.successResultOf(made.bind_endpoint(None, ""))
        self.assertEqual(made.information.local_address, HostName("0.0.0.0"))

    def test_a_host_is_a_host_name_or_text(self) -> None:
        """The reactor's resolver looks up a name."""
        self.reactor.nameResolver.hosts["here.example"] = [LOCALHOST]
        for host, address in ((HostName("::1"), "::1"), ("here.example", LOCALHOST)):
            made = self.make()
            self.successResultOf(made.bind_endpoint(host, ""))
            self.assertEqual(made.information.local_address, HostName(address), (host, address))

    def test_binding_a_taken_port_fails(self) -> None:
        """``ADDRESS_ALREADY_IN_USE``; then the same socket can be bound to another port."""
        port = self.bind().information.local_port
        made = self.make()
        for binding in (made.bind_endpoint(LOCALHOST, port), made.bind_service_name(port)):
            self.assert_refused(binding, SocketErrorStatus.ADDRESS_ALREADY_IN_USE)
        self.assertFalse(made.is_open)
        self.bind(made)

    def test_a_port_taken_in_one_family_is_not_bound_in_the_other(self) -> None:
        """The port of the other family is closed again."""
        port = self.bind(host="::1").information.local_port
        made = self.make()
        status = SocketErrorStatus.ADDRESS_ALREADY_IN_USE
        self.assert_refused(made.bind_service_name(port), status)
        self.successResultOf(self.make().bind_endpoint(LOCALHOST, port))

    def test_binding_an_address_of_another_machine_fails(self) -> None:
        """``CANNOT_ASSIGN_REQUESTED_ADDRESS``; then the socket can be bound."""
        made = self.make()
        status = SocketErrorStatus.CANNOT_ASSIGN_REQUESTED_ADDRESS
        self.assert_refused(made.bind_endpoint("192.0.2.1", ""), status)
        self.bind(made)

    def test_binding_an_unknown_name_fails(self) -> None:
        """``HOST_NOT_FOUND``; then the socket can be bound."""
        made = self.make()
        binding = made.bind_endpoint("nowhere.example", "")
        self.assert_refused(binding, SocketErrorStatus.HOST_NOT_FOUND)
        self.bind(made)

    def test_binding_to_an_unknown_adapter_fails(self) -> None:
        """``UNREACHABLE_HOST``; then the socket can be bound."""
        made = self.make()
        for adapter in ("eth99999", 2**31 - 7, "192.0.2.1"):
            binding = made.bind_service_name("", adapter)
            self.assert_refused(binding, SocketErrorStatus.UNREACHABLE_HOST)
        self.bind(made)

    def test_an_adapter_is_a_name_an_index_or_an_address(self) -> None:
        """The socket receives by this interface."""
        for adapter in ("lo", socket.if_nametoindex("lo"), LOCALHOST):
            made = self.make()
            self.successResultOf(made.bind_service_name("", adapter))
            self.peer().sendto(GREETING, (LOCALHOST, int(made.information.local_port)))
            self.pump()
            self.assertEqual(self.take(made), GREETING, adapter)

    def test_an_unknown_service_raises_at_the_call(self) -> None:
        """So does a number that is no port."""
        made = self.make()
        for service in ("no-such-service", "65536", 65_536, -1):
            self.assertRaises(ValueError, made.bind_service_name, service)
            self.assertRaises(ValueError, made.bind_endpoint, LOCALHOST, service)
        self.assertRaises(ValueError, made.bind_endpoint, "exa mple", "")
        self.bind(made)

    def test_binding_a_bluetooth_address_fails(self) -> None:
        """``ADDRESS_FAMILY_NOT_SUPPORTED``."""
        binding = self.make().bind_endpoint("(01:23:45:67:89:ab)", "")
        self.assert_refused(binding, SocketErrorStatus.ADDRESS_FAMILY_NOT_SUPPORTED)

    def test_a_bound_socket_cannot_be_bound_again(self) -> None:
        """Its port does not change."""
        made = self.bind()
        port = made.information.local_port
        self.failureResultOf(made.bind_service_name(""), LocalProtocolError)
        self.failureResultOf(made.bind_endpoint(LOCALHOST, ""), LocalProtocolError)
        self.assertEqual(made.information.local_port, port)

    def test_during_a_bind_no_other_operation_starts(self) -> None:
        """The pending lookup continues."""
        self.slow_host("slow.example")
        made = self.make()
        binding = made.bind_endpoint("slow.example", "")
        for other in (
            made.bind_service_name(""),
            made.connect(LOCALHOST, 1),
            made.get_output_stream(LOCALHOST, 1),
            made.send_to(b"x", (LOCALHOST, 1)),
        ):
            self.failureResultOf(other, BusyError)
        self.assertNoResult(binding)
        made.close()
        self.failureResultOf(binding, ClosedError)


class ConnectTests(SocketCase):
    """Connecting to one peer."""

    def test_a_connected_socket_sends_to_its_peer(self) -> None:
        """From the port that it receives on."""
        peer = self.peer()
        made = self.connect(peer)
        self.successResultOf(made.output_stream.send_all(GREETING))
        self.assertEqual(peer.recvfrom(99), (GREETING, self.address(made)))

    def test_a_connected_socket_receives_from_its_peer_only(self) -> None:
        """Datagrams of other hosts that the kernel had queued before are dropped too."""
        stranger, peer = self.peer(), self.peer()
        made = self.bind()
        stranger.sendto(b"early", self.address(made))
        self.connect(peer, made)
        stranger.sendto(b"late", self.address(made))
        self.send(peer, made, GREETING)
        self.assertEqual(self.take(made), GREETING)
        waiting = made.receive_from(timeout=1)
        self.reactor.advance(1)
        self.assert_refused(waiting, SocketErrorStatus.CONNECTION_TIMED_OUT)

    def test_connecting_drops_queued_messages_of_other_hosts(self) -> None:
        """Messages that the peer sent before stay."""
        stranger, peer = self.peer(), self.peer()
        made = self.bind()
        self.send(stranger, made, b"strange")
        self.send(peer, made, GREETING)
        self.connect(peer, made)
        self.assertEqual(self.take(made), GREETING)
        waiting = made.receive_from(timeout=1)
        self.reactor.advance(1)
        self.assert_refused(waiting, SocketErrorStatus.CONNECTION_TIMED_OUT)

    def test_connecting_ends_streams_to_other_hosts(self) -> None:
        """Their queued datagrams are sent; further writes are refused."""
        other, peer = self.peer(), self.peer()
        made = self.bind()
        stream = self.successResultOf(made.get_output_stream(*other.getsockname()))
        writing = stream.write(GREETING)
        self.connect(peer, made)
        self.assertEqual(self.successResultOf(writing), len(GREETING))
        self.assertEqual(other.recv(99), GREETING)
        self.failureResultOf(stream.write(b"more"), LocalProtocolError)

    def test_a_socket_receives_during_the_lookup_of_its_peer(self) -> None:
        """The socket stays bound all the time."""
        peer = self.peer()
        made = self.bind()
        connecting = made.connect("silent.example", 9)
        connecting.addErrback(lambda _: None)
        self.send(peer, made, GREETING)
        self.assertEqual(self.take(made), GREETING)

    def test_datagrams_of_other_hosts_are_counted(self) -> None:
        """Those in the kernel's queue when the socket is connected."""
        stranger, peer = self.peer(), self.peer()
        made = self.bind()
        stranger.sendto(b"early", self.address(made))
        self.connect(peer, made)
        self.send(peer, made, GREETING)
        self.assertEqual(made.information.unexpected_source, 1)

    def test_sending_to_a_name_raises_at_the_call(self) -> None:
        """The socket is not bound."""
        made = self.make()
        self.assertRaises(ValueError, made.send_to, b"x", ("localhost", 9))
        self.assertEqual(made.information.local_port, "")

    def test_a_name_is_looked_up_with_the_resolver_of_the_reactor(self) -> None:
        """The socket uses the first address that has a route."""
        peer = self.peer()
        self.reactor.nameResolver.hosts["host.example"] = ["fe80::1", LOCALHOST]
        made = self.make()
        self.successResultOf(made.connect("host.example", peer.getsockname()[1]))
        self.assertEqual(made.information.remote_address, HostName(LOCALHOST))

    def test_a_service_record_is_looked_up_for_udp(self) -> None:
        """``_name._udp.host``; the target has a port of its own."""
        peer = self.peer()
        self.reactor.nameResolver.hosts["target.example"] = [LOCALHOST]
        resolver = answering(record("target.example", peer.getsockname()[1]))
        made = DatagramSocket(self.reactor, resolver=resolver)
        self.sockets.append(made)
        self.successResultOf(made.connect("example.com", "no-such-service"))
        self.assertEqual(resolver.asked, ["_no-such-service._udp.example.com"])
        self.assertEqual(made.information.remote_port, str(peer.getsockname()[1]))

    def test_a_pair_fixes_the_local_end(self) -> None:
        """Its address, its port, or both."""
        peer = self.peer()
        free = self.bind()
        port = free.information.local_port
        free.close()
        made = self.make()
        remote = HostName(LOCALHOST), str(peer.getsockname()[1])
        self.successResultOf(made.connect(EndpointPair(HostName("127.0.0.2"), port, *remote)))
        self.assertEqual(self.address(made), ("127.0.0.2", int(port)))

    def test_connecting_a_pair_of_two_families_fails(self) -> None:
        """``ADDRESS_FAMILY_NOT_SUPPORTED``."""
        pair = EndpointPair(HostName("::1"), "", HostName(LOCALHOST), "1337")
        status = SocketErrorStatus.ADDRESS_FAMILY_NOT_SUPPORTED
        self.assert_refused(self.make().connect(pair), status)

    def test_a_bound_socket_keeps_its_local_end(self) -> None:
        """Connecting with another local end fails; without one it succeeds."""
        made = self.bind()
        pair = EndpointPair(HostName("127.0.0.2"), "", HostName(LOCALHOST), "1337")
        self.failureResultOf(made.connect(pair), LocalProtocolError)
        self.failureResultOf(made.get_output_stream(pair), LocalProtocolError)
        port = made.information.local_port
        self.connect(self.peer(), made)
        self.assertEqual(made.information.local_port, port)

    def test_connecting_closes_the_port_of_the_other_family(self) -> None:
        """Datagrams to it are no longer received."""
        made = self.make()
        self.successResultOf(made.bind_service_name(""))
        peer = self.peer("::1")
        self.connect(peer, made)
        self.assertEqual(len(self.reactor.readers), 1)
        self.send(peer, made, GREETING)
        self.assertEqual(self.take(made), GREETING)

    def test_connecting_to_a_host_of_another_family_fails(self) -> None:
        """The socket stays bound."""
        made = self.bind(host="::1")
        status = SocketErrorStatus.ADDRESS_FAMILY_NOT_SUPPORTED
        self.assert_refused(made.connect(LOCALHOST, 1337), status)
        self.connect(self.peer("::1"), made)

    def test_connecting_to_a_group_fails(self) -> None:
        """
        D11: ``HOST_NOT_FOUND``, with MulticastOnly or without, in either family; then it can
        connect.
        """
        for is_shared in (False, True):
            made = self.make()
            made.control.multicast_only = is_shared
            for group in (GROUP, "ff02::1"):
                connecting = made.connect(group, 22113)
                self.assert_refused(connecting, SocketErrorStatus.HOST_NOT_FOUND)
                self.assertFalse(made.is_open, group)
            made.control.multicast_only = False
            self.connect(self.peer(), made)

    def test_connecting_to_an_unknown_name_fails(self) -> None:
        """``HOST_NOT_FOUND``; then it can connect."""
        made = self.make()
        connecting = made.connect("nowhere.example", 1337)
        self.assert_refused(connecting, SocketErrorStatus.HOST_NOT_FOUND)
        self.connect(self.peer(), made)

    def test_connecting_to_port_0_fails(self) -> None:
        """The system's error has a status; then the socket can connect."""
        made = self.make()
        self.failureResultOf(made.connect(LOCALHOST, 0), SocketError)
        self.connect(self.peer(), made)

    def test_after_a_failed_connect_the_socket_receives_from_all_hosts(self) -> None:
        """It stays bound."""
        made = self.make()
        self.successResultOf(made.bind_service_name(""))
        self.failureResultOf(made.connect(LOCALHOST, 0), SocketError)
        peer = self.peer("127.0.0.2")
        peer.sendto(GREETING, (LOCALHOST, int(made.information.local_port)))
        self.pump()
        self.assertEqual(self.take(made), GREETING)

    def test_a_malformed_argument_raises_at_the_call(self) -> None:
        """`connect` and `get_output_stream` alike; nothing has started."""
        made = self.make()
        for call in (made.connect, made.get_output_stream):
            for arguments in (("exa mple", 1), ("", 1), ("host", None), ("host", 65_536)):
                self.assertRaises(ValueError, call, *arguments)
            self.assertRaises(ValueError, call, "host", 1, timeout=-1)
        self.bind(made)

    def test_a_connected_socket_cannot_be_bound_or_connected(self) -> None:
        """Its state does not change."""
        peer = self.peer()
        made = self.connect(peer)
        for operation in (
            made.connect(LOCALHOST, 1),
            made.bind_service_name(""),
            made.bind_endpoint(LOCALHOST, ""),
            made.get_output_stream(LOCALHOST, 1),
            made.send_to(b"x", (LOCALHOST, 1)),
        ):
            self.failureResultOf(operation, LocalProtocolError)
        self.assertEqual(made.information.remote_port, str(peer.getsockname()[1]))

    def test_a_lookup_that_takes_too_long_fails(self) -> None:
        """``CONNECTION_TIMED_OUT``; then the socket can be bound."""
        self.slow_host("slow.example")
        made = self.make()
        for call in (made.connect, made.get_output_stream):
            connecting = call("slow.example", 1337, timeout=5)
            self.reactor.advance(6)
            self.assert_refused(connecting, SocketErrorStatus.CONNECTION_TIMED_OUT)
        self.bind(made)

    def test_a_lookup_can_be_cancelled(self) -> None:
        """Then the socket can be bound."""
        self.slow_host("slow.example")
        made = self.make()
        connecting = made.connect("slow.example", 1337)
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.bind(made)

    def test_a_finished_lookup_leaves_no_timer(self) -> None:
        """In success and in failure."""
        made = self.make()
        self.assert_refused(made.connect("no", 1, timeout=5), SocketErrorStatus.HOST_NOT_FOUND)
        self.successResultOf(made.connect(LOCALHOST, 1, timeout=5))
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class ReplyTests(SocketCase):
    """
    Answers to messages; ``tests/loopback/test_answers.py`` shows from which address they leave.
    """

    def test_a_reply_goes_to_the_sender(self) -> None:
        """Its data may be any buffer."""
        made, messages = self.listen()
        peer = self.peer()
        self.send(peer, made, b"Hello")
        self.assertEqual(self.successResultOf(messages[0].reply(bytearray(b"World"))), 5)
        self.assertEqual(peer.recvfrom(99), (b"World", self.address(made)))

    def test_a_truncated_message_can_be_answered(self) -> None:
        """For example, to report that it was too long."""
        made = self.make()
        made.control.max_datagram = 3
        made, messages = self.listen(made)
        peer = self.peer()
        self.send(peer, made, b"Hello")
        self.assertTrue(messages[0].is_truncated)
        self.successResultOf(messages[0].reply(b"too long"))
        self.assertEqual(peer.recv(99), b"too long")

    def test_a_connected_socket_answers_only_its_peer(self) -> None:
        """A message of another host, received before, cannot be answered."""
        made, messages = self.listen()
        stranger, peer = self.peer(), self.peer()
        self.send(stranger, made, b"Hello")
        self.connect(peer, made)
        self.send(peer, made, b"Hi")
        self.successResultOf(messages[1].reply(b"there"))
        self.assertEqual(peer.recv(99), b"there")
        self.failureResultOf(messages[0].reply(b"World"), LocalProtocolError)

    def test_a_refusal_cannot_be_answered(self) -> None:
        """No datagram was received."""
        gone = self.peer()
        made, messages = self.listen()
        self.connect(gone, made)
        gone.close()
        self.successResultOf(made.output_stream.send_all(b"Hello"))
        self.pump()
        self.failureResultOf(messages[0].reply(b"again"), LocalProtocolError)

    def test_a_reply_of_a_closed_socket_fails(self) -> None:
        """With `ClosedError`."""
        made, messages = self.listen()
        self.send(self.peer(), made, b"Hello")
        made.close()
        self.failureResultOf(messages[0].reply(b"World"), ClosedError)
        self.assertRaises(ClosedError, getattr, messages[0], "endpoint_pair")

    def test_a_reply_of_a_shared_port_fails(self) -> None:
        """It sends to groups only."""
        made = self.make()
        made.control.multicast_only = True
        messages: list[Message] = []
        made.message_received.add(lambda _, message: messages.append(message))
        self.successResultOf(made.bind_service_name("", "lo"))
        made.join_multicast_group(GROUP)
        speaker = self.make()
        speaker.control.multicast_only = True
        self.successResultOf(speaker.bind_service_name("", "lo"))
        port = int(made.information.local_port)
        self.successResultOf(speaker.send_to(b"Hello", (GROUP, port)))
        self.pump()
        self.assertEqual(messages[0].local_address, HostName(GROUP))
        self.failureResultOf(messages[0].reply(b"World"), LocalProtocolError)

    def test_a_message_has_both_ends_of_its_answer(self) -> None:
        """The local end has the address that the message was sent to."""
        made = self.make()
        messages: list[Message] = []
        made.message_received.add(lambda _, message: messages.append(message))
        self.successResultOf(made.bind_service_name(""))
        peer, port = self.peer(), made.information.local_port
        peer.sendto(b"Hello", ("127.0.0.2", int(port)))
        self.pump()
        pair = messages[0].endpoint_pair
        self.assertEqual(pair.local_host_name, HostName("127.0.0.2"))
        self.assertEqual(pair.remote_host_name, HostName(LOCALHOST))
        remote_port = str(peer.getsockname()[1])
        self.assertEqual((pair.local_service_name, pair.remote_service_name), (port, remote_port))

    def test_the_address_of_a_message_equals_a_plain_pair(self) -> None:
        """Also as the key of a dictionary."""
        made, messages = self.listen()
        peer = self.peer()
        self.send(peer, made, b"Hello")
        address = peer.getsockname()
        self.assertEqual(messages[0].address, address)
        self.assertEqual({address: 1}[messages[0].address], 1)
        self.assertEqual(repr(messages[0].address), repr(address))


class CancelIoTests(SocketCase):
    """``cancel_io`` ends pending operations, and nothing else."""

    def test_cancel_io_fails_a_pending_wait(self) -> None:
        """The next wait gets the next message."""
        made = self.bind()
        waits: list[Callable[[], Deferred[Any]]] = [made.receive, made.receive_from]
        for wait in (*waits, lambda: made.receive_from(timeout=5)):
            waiting = wait()
            self.assertIsNone(self.successResultOf(made.cancel_io()), wait)
            self.assert_refused(waiting, SocketErrorStatus.OPERATION_ABORTED)
        self.send(self.peer(), made, GREETING)
        self.successResultOf(made.cancel_io())
        self.assertEqual(self.take(made), GREETING)

    def test_cancel_io_fails_pending_writes_and_flushes(self) -> None:
        """Of all streams. Sent writes stay done, and later writes are sent."""
        made, peer = self.bind(), self.peer()
        stream = self.successResultOf(made.get_output_stream(*peer.getsockname()))
        sent = made.send_to(b"sent", peer.getsockname())
        writes = [stream.write(b"never") for _ in range(3)]
        self.assertEqual(self.successResultOf(sent), 4)
        self.successResultOf(made.cancel_io())
        for write in writes:
            self.assert_refused(write, SocketErrorStatus.OPERATION_ABORTED)
        self.successResultOf(stream.send_all(b"later"))
        self.assertEqual(receive(peer, 2), [b"sent", b"later"])

    def test_cancel_io_does_not_end_lookups(self) -> None:
        """They are neither input nor output."""
        self.slow_host("slow.example")
        made = self.bind()
        connecting = made.connect("slow.example", 1337)
        self.successResultOf(made.cancel_io())
        self.assertNoResult(connecting)
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)

    def test_cancel_io_without_an_open_socket_does_nothing(self) -> None:
        """Its Deferred has fired."""
        made = self.make()
        self.successResultOf(made.cancel_io())
        made.close()
        self.successResultOf(made.cancel_io())


class LookUpTests(SocketCase):
    """Endpoint pairs, without connecting."""

    def look_up(self, *arguments: Any) -> list[tuple[str, str]]:
        looking = DatagramSocket.get_endpoint_pairs(self.reactor, *arguments)
        pairs = self.successResultOf(looking)
        self.assertEqual(
            {(pair.local_host_name, pair.local_service_name) for pair in pairs}, {(None, "")}
        )
        return [(str(pair.remote_host_name), pair.remote_service_name) for pair in pairs]

    def test_pairs_are_ordered_as_those_of_streams(self) -> None:
        """The families alternate, or the resolver decides."""
        addresses = ["127.0.0.1", "127.0.0.2", "::1"]
        self.reactor.nameResolver.hosts["many.example"] = addresses
        long = HostNameSortOptions.OPTIMIZE_FOR_LONG_CONNECTIONS
        turns = [(host, "9") for host in ("127.0.0.1", "::1", "127.0.0.2")]
        self.assertEqual(self.look_up("many.example", 9), turns)
        self.assertEqual(self.look_up("many.example", 9, long), [(each, "9") for each in addresses])

    def test_services_are_those_of_udp(self) -> None:
        """From the services file; an invalid port raises at the call."""
        try:
            port = socket.getservbyname("tftp", "udp")
        except OSError as error:
            raise SkipTest("the services file of this machine has no tftp") from error
        self.assertEqual(self.look_up("192.0.2.1", "tftp"), [("192.0.2.1", str(port))])
        self.assertRaises(ValueError, DatagramSocket.get_endpoint_pairs, self.reactor, "a", 65_536)
        self.assertRaises(ValueError, DatagramSocket.get_endpoint_pairs, self.reactor, "a b", 9)

    def test_a_pair_can_be_connected(self) -> None:
        """Without a change."""
        peer = self.peer()
        (host, port) = peer.getsockname()
        (pair,) = self.successResultOf(DatagramSocket.get_endpoint_pairs(self.reactor, host, port))
        made = self.make()
        self.successResultOf(made.connect(pair))
        self.successResultOf(made.output_stream.send_all(GREETING))
        self.assertEqual(peer.recv(99), GREETING)


class ReceiveTests(SocketCase):
    """Receiving datagrams one by one."""

    def test_receive_from_returns_a_datagram_and_its_sender(self) -> None:
        """As sockets of Python do; an empty datagram counts."""
        made = self.bind()
        peer = self.peer()
        self.send(peer, made, GREETING, b"")
        received = self.successResultOf(made.receive_from())
        self.assertEqual(received, (GREETING, peer.getsockname()))
        self.assertEqual(self.take(made), b"")

    def test_receiving_on_an_unbound_socket_fails(self) -> None:
        """It would wait for ever."""
        self.failureResultOf(self.make().receive_from(), LocalProtocolError)

    def test_a_second_wait_fails_while_one_is_pending(self) -> None:
        """The first one gets the datagram."""
        made = self.bind()
        waiting = made.receive_from()
        self.failureResultOf(made.receive_from(), BusyError)
        self.send(self.peer(), made, GREETING)
        self.assertEqual(self.successResultOf(waiting)[0], GREETING)

    def test_a_wait_that_takes_too_long_fails(self) -> None:
        """``CONNECTION_TIMED_OUT``; the next wait gets the next datagram."""
        made = self.bind()
        waiting = made.receive_from(timeout=1)
        self.reactor.advance(1.1)
        self.assert_refused(waiting, SocketErrorStatus.CONNECTION_TIMED_OUT)
        self.send(self.peer(), made, GREETING)
        self.assertEqual(self.take(made), GREETING)
        self.assertRaises(ValueError, made.receive_from, timeout=-1)

    def test_a_cancelled_wait_takes_no_datagram(self) -> None:
        """The next wait gets it."""
        made = self.bind()
        waiting = made.receive_from()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.send(self.peer(), made, GREETING)
        self.assertEqual(self.take(made), GREETING)

    def test_a_loop_ends_when_the_socket_is_closed(self) -> None:
        """``async for`` returns messages in order until then."""
        made = self.bind()

        async def loop() -> list[bytes]:
            return [message.data async for message in made]

        looping = Deferred.fromCoroutine(loop())
        self.send(self.peer(), made, b"one", b"two")
        self.assertNoResult(looping)
        made.close()
        self.assertEqual(self.successResultOf(looping), [b"one", b"two"])

    def test_a_loop_may_close_the_socket(self) -> None:
        """Messages that arrived with the current one are dropped."""
        made = self.bind()
        received: list[bytes] = []

        async def loop() -> None:
            async for message in made:
                received.append(message.data)
                await made.close()

        looping = Deferred.fromCoroutine(loop())
        self.send(self.peer(), made, b"one", b"two")
        self.successResultOf(looping)
        self.assertEqual(received, [b"one"])

    def test_a_loop_over_an_unbound_socket_fails(self) -> None:
        """It does not end as if the socket had been closed."""

        async def loop() -> None:
            async for _ in self.make():
                pass

        self.failureResultOf(Deferred.fromCoroutine(loop()), LocalProtocolError)

    def test_the_port_pauses_while_many_messages_are_queued(self) -> None:
        """At 1,024 messages; it resumes when half of them were taken."""
        made = self.make()
        made.control.inbound_buffer_size_in_bytes = 4 * 1024 * 1024
        self.bind(made)
        peer = self.peer()
        self.flood(peer, made)
        taken = MAX_MESSAGES // 2 - 1
        for _ in range(taken):
            self.take(made)
        self.assertEqual(self.reactor.readers, set())
        while not self.reactor.readers:
            self.assertEqual(self.take(made), b"x", f"{taken=}")
            taken += 1


class ControlTests(SocketCase):
    """Options of the socket, as the kernel has them."""

    def test_options_of_an_open_socket_cannot_be_set(self) -> None:
        """Except for the unicast hop limit."""
        for made in (self.bind(), self.connect(self.peer())):
            for name in ("multicast_only", "dont_fragment", "inbound_buffer_size_in_bytes"):
                self.assertRaises(LocalProtocolError, setattr, made.control, name, True)
            made.control.outbound_unicast_hop_limit = 7

    def test_after_a_failed_bind_options_can_be_set(self) -> None:
        """The socket is not bound."""
        made = self.make()
        self.failureResultOf(made.bind_endpoint("192.0.2.1", ""), SocketError)
        made.control.max_datagram = 100
        made.message_received.add(print)

    def test_sent_datagrams_have_the_hop_limit(self) -> None:
        """Set before binding and changed later; on a closed socket setting it does nothing."""
        peer = self.peer()
        peer.setsockopt(socket.IPPROTO_IP, _IP_RECVTTL, 1)
        made = self.make()
        self.assertEqual(self.hops(made, peer), 128)
        made.control.outbound_unicast_hop_limit = 9
        self.assertEqual(self.hops(made, peer), 9)
        made.close()
        made.control.outbound_unicast_hop_limit = 10

    def hops(self, made: DatagramSocket, peer: socket.socket) -> int:
        self.successResultOf(made.send_to(b"x", peer.getsockname()))
        _, messages, _, _ = peer.recvmsg(9, 99)
        return int.from_bytes(messages[0][2], "little")


class CloseTests(SocketCase):
    """Closing a socket."""

    def test_closing_fails_pending_and_later_operations(self) -> None:
        """With `ClosedError`."""
        made = self.bind()
        waiting = made.receive_from()
        stream = self.successResultOf(made.get_output_stream(LOCALHOST, 9))
        self.assertIsNone(self.successResultOf(made.close()))
        self.assertFalse(made.is_open)
        for operation in (
            waiting,
            made.receive_from(),
            made.send_to(b"x", (LOCALHOST, 9)),
            made.bind_service_name(""),
            made.connect(LOCALHOST, 9),
            made.get_output_stream(LOCALHOST, 9),
            made.output_stream.write(b"x"),
            stream.write(b"x"),
            stream.flush(),
        ):
            self.failureResultOf(operation, ClosedError)
        self.assertRaises(ClosedError, made.join_multicast_group, GROUP, "lo")

    def test_closing_twice_is_harmless(self) -> None:
        """Whether it was bound or not."""
        for made in (self.make(), self.bind(), self.connect(self.peer())):
            self.successResultOf(made.close())
            self.successResultOf(made.close())

    def test_closing_sends_queued_writes(self) -> None:
        """Even if the application awaited none."""
        peer = self.peer()
        made = self.connect(peer)
        write = made.output_stream.write(GREETING)
        made.close()
        self.assertEqual(self.successResultOf(write), 13)
        self.assertEqual(receive(peer, 1), [GREETING])

    def test_closing_sends_queued_writes_after_many_others(self) -> None:
        """Even if the loop has to wait for the reactor's next turn."""
        peer = self.peer()
        made = self.connect(peer)
        for number in range(64):
            self.successResultOf(made.output_stream.send_all(b"%d" % number))
        write = made.output_stream.write(GREETING)
        made.close()
        self.assertEqual(self.successResultOf(write), 13)
        self.assertEqual(receive(peer, 65)[64], GREETING)

    def test_closing_frees_the_port(self) -> None:
        """At once."""
        made = self.bind()
        port = made.information.local_port
        made.close()
        self.successResultOf(self.make().bind_endpoint(LOCALHOST, port))

    def test_closing_ends_a_pending_lookup(self) -> None:
        """A later result of the resolver opens nothing."""
        for begin in (
            lambda made: made.connect("slow.example", 9),
            lambda made: made.connect("slow.example", 9, timeout=5),
            lambda made: made.bind_endpoint("slow.example", ""),
            lambda made: made.get_output_stream("slow.example", 9),
        ):
            self.slow_host("slow.example")
            made = self.make()
            opening: Deferred[Any] = begin(made)
            made.close()
            self.failureResultOf(opening, ClosedError)
            self.assertTrue(self.reactor.nameResolver.slow["slow.example"].is_cancelled, begin)
            self.assertFalse(made.is_open, begin)

    def test_async_with_closes_the_socket(self) -> None:
        """Also one that was never bound."""

        async def work(made: DatagramSocket) -> None:
            async with made as same:
                self.assertIs(same, made)

        for made in (self.make(), self.bind()):
            self.successResultOf(Deferred.fromCoroutine(work(made)))
            self.failureResultOf(made.bind_service_name(""), ClosedError)


class GroupTests(SocketCase):
    """
    Joining groups in the wrong state, or with wrong arguments; the rest needs the kernel's
    multicast.
    """

    def test_joining_needs_a_bound_socket(self) -> None:
        """An unbound or connected socket cannot join."""
        for made in (self.make(), self.connect(self.peer())):
            self.assertRaises(LocalProtocolError, made.join_multicast_group, GROUP, "lo")
            self.assertRaises(LocalProtocolError, made.leave_multicast_group, GROUP, "lo")

    def test_joining_an_address_that_is_no_group_fails(self) -> None:
        """``ADDRESS_FAMILY_NOT_SUPPORTED``, with one clear line."""
        made = self.bind()
        for group in (LOCALHOST, HostName("10.0.0.1"), "ff02::1", "240.0.0.1", "no group"):
            error = self.assertRaises(SocketError, made.join_multicast_group, group, "lo")
            self.assertIs(error.status, SocketErrorStatus.ADDRESS_FAMILY_NOT_SUPPORTED, group)
            self.assertNotIn("\n", str(error), group)

    def test_joining_on_an_unknown_interface_fails(self) -> None:
        """``UNREACHABLE_HOST``."""
        made = self.bind()
        for interface in ("eth99999", 2**31 - 7, "192.0.2.1"):
            error = self.assertRaises(SocketError, made.join_multicast_group, GROUP, interface)
            self.assertIs(error.status, SocketErrorStatus.UNREACHABLE_HOST, interface)

    def test_leaving_a_group_that_was_not_joined_fails(self) -> None:
        """So does leaving it twice."""
        made = self.bind()
        self.assertRaises(LocalProtocolError, made.leave_multicast_group, GROUP, "lo")
        made.join_multicast_group(HostName(GROUP), "lo")
        made.leave_multicast_group(GROUP, "lo")
        self.assertRaises(LocalProtocolError, made.leave_multicast_group, GROUP, "lo")
