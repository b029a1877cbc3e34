"""A datagram socket is bound or connected once, hands over what comes, and ends in order."""

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

#: Linux's number: tells of each datagram how many routers it might still pass.
_IP_RECVTTL = 12

Message = DatagramSocketMessageReceivedEventArgs


class BindTests(SocketCase):
    """Binding a port."""

    def test_an_empty_service_is_a_free_port(self) -> None:
        """``information`` tells which; the socket is open."""
        made = self.make()
        self.assertFalse(made.is_open)
        self.assertIsNone(self.successResultOf(made.bind_endpoint(LOCALHOST, "")))
        self.assertTrue(made.is_open)
        self.assertGreater(int(made.information.local_port), 0)

    def test_a_service_is_bound_in_both_families(self) -> None:
        """On one port; what comes by either is received."""
        made = self.make()
        self.successResultOf(made.bind_service_name(""))
        port = int(made.information.local_port)
        for host in (LOCALHOST, "::1"):
            self.peer(host).sendto(host.encode(), (host, port))
            self.pump()
        self.assertEqual([self.take(made), self.take(made)], [b"127.0.0.1", b"::1"])

    def test_no_host_is_every_address(self) -> None:
        """As a service by itself."""
        made = self.make()
        self.successResultOf(made.bind_endpoint(None, ""))
        self.assertEqual(made.information.local_address, HostName("0.0.0.0"))

    def test_a_host_may_be_a_name_object_or_a_name(self) -> None:
        """A name is looked up with the reactor's resolver."""
        self.reactor.nameResolver.hosts["here.example"] = [LOCALHOST]
        for host, address in ((HostName("::1"), "::1"), ("here.example", LOCALHOST)):
            made = self.make()
            self.successResultOf(made.bind_endpoint(host, ""))
            self.assertEqual(made.information.local_address, HostName(address))

    def test_a_port_that_is_taken_is_refused(self) -> None:
        """``ADDRESS_ALREADY_IN_USE``; then the same socket can be bound elsewhere."""
        port = self.bind().information.local_port
        made = self.make()
        for binding in (made.bind_endpoint(LOCALHOST, port), made.bind_service_name(port)):
            self.assert_refused(binding, SocketErrorStatus.ADDRESS_ALREADY_IN_USE)
        self.assertFalse(made.is_open)
        self.bind(made)

    def test_a_port_that_one_family_lacks_is_not_half_bound(self) -> None:
        """The other family's is given back."""
        port = self.bind(host="::1").information.local_port
        made = self.make()
        status = SocketErrorStatus.ADDRESS_ALREADY_IN_USE
        self.assert_refused(made.bind_service_name(port), status)
        self.successResultOf(self.make().bind_endpoint(LOCALHOST, port))

    def test_an_address_of_another_machine_is_refused(self) -> None:
        """``CANNOT_ASSIGN_REQUESTED_ADDRESS``; then it can be bound."""
        made = self.make()
        status = SocketErrorStatus.CANNOT_ASSIGN_REQUESTED_ADDRESS
        self.assert_refused(made.bind_endpoint("192.0.2.1", ""), status)
        self.bind(made)

    def test_a_name_that_leads_nowhere_is_refused(self) -> None:
        """``HOST_NOT_FOUND``; then it can be bound."""
        made = self.make()
        binding = made.bind_endpoint("nowhere.example", "")
        self.assert_refused(binding, SocketErrorStatus.HOST_NOT_FOUND)
        self.bind(made)

    def test_an_unknown_adapter_is_refused(self) -> None:
        """``UNREACHABLE_HOST``; then it can be bound."""
        made = self.make()
        for adapter in ("eth99999", 2**31 - 7, "192.0.2.1"):
            binding = made.bind_service_name("", adapter)
            self.assert_refused(binding, SocketErrorStatus.UNREACHABLE_HOST)
        self.bind(made)

    def test_an_adapter_is_a_name_an_index_or_an_address(self) -> None:
        """What comes by it is received."""
        for adapter in ("lo", socket.if_nametoindex("lo"), LOCALHOST):
            made = self.make()
            self.successResultOf(made.bind_service_name("", adapter))
            self.peer().sendto(GREETING, (LOCALHOST, int(made.information.local_port)))
            self.pump()
            self.assertEqual(self.take(made), GREETING)

    def test_an_unknown_service_is_refused_at_once(self) -> None:
        """And so is what is no port."""
        made = self.make()
        for service in ("no-such-service", "65536", 65_536, -1):
            self.assertRaises(ValueError, made.bind_service_name, service)
            self.assertRaises(ValueError, made.bind_endpoint, LOCALHOST, service)
        self.assertRaises(ValueError, made.bind_endpoint, "exa mple", "")
        self.bind(made)

    def test_a_bluetooth_address_is_refused(self) -> None:
        """``ADDRESS_FAMILY_NOT_SUPPORTED``."""
        binding = self.make().bind_endpoint("(01:23:45:67:89:ab)", "")
        self.assert_refused(binding, SocketErrorStatus.ADDRESS_FAMILY_NOT_SUPPORTED)

    def test_bound_it_cannot_be_bound_again(self) -> None:
        """It stays as it is."""
        made = self.bind()
        port = made.information.local_port
        self.failureResultOf(made.bind_service_name(""), LocalProtocolError)
        self.failureResultOf(made.bind_endpoint(LOCALHOST, ""), LocalProtocolError)
        self.assertEqual(made.information.local_port, port)

    def test_while_it_is_bound_nothing_else_begins(self) -> None:
        """The lookup goes on."""
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
    """Having one peer."""

    def test_what_is_written_goes_to_the_peer(self) -> None:
        """From the port that it received."""
        peer = self.peer()
        made = self.connect(peer)
        self.successResultOf(made.output_stream.send_all(GREETING))
        self.assertEqual(peer.recvfrom(99), (GREETING, self.address(made)))

    def test_only_the_peer_is_heard(self) -> None:
        """Also of what came before it was connected, and was not read yet."""
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

    def test_what_strangers_sent_before_and_nobody_took_is_dropped(self) -> None:
        """What the peer sent before stays."""
        stranger, peer = self.peer(), self.peer()
        made = self.bind()
        self.send(stranger, made, b"strange")
        self.send(peer, made, GREETING)
        self.connect(peer, made)
        self.assertEqual(self.take(made), GREETING)
        waiting = made.receive_from(timeout=1)
        self.reactor.advance(1)
        self.assert_refused(waiting, SocketErrorStatus.CONNECTION_TIMED_OUT)

    def test_streams_to_others_end_when_there_is_one_peer(self) -> None:
        """What was written to them leaves; more is refused."""
        other, peer = self.peer(), self.peer()
        made = self.bind()
        stream = self.successResultOf(made.get_output_stream(*other.getsockname()))
        writing = stream.write(GREETING)
        self.connect(peer, made)
        self.assertEqual(self.successResultOf(writing), len(GREETING))
        self.assertEqual(other.recv(99), GREETING)
        self.failureResultOf(stream.write(b"more"), LocalProtocolError)

    def test_what_comes_while_a_name_is_looked_up_can_be_received(self) -> None:
        """The socket is bound all the time."""
        peer = self.peer()
        made = self.bind()
        connecting = made.connect("silent.example", 9)
        connecting.addErrback(lambda _: None)
        self.send(peer, made, GREETING)
        self.assertEqual(self.take(made), GREETING)

    def test_strangers_are_counted(self) -> None:
        """Those whose datagrams wait in the kernel when it is connected."""
        stranger, peer = self.peer(), self.peer()
        made = self.bind()
        stranger.sendto(b"early", self.address(made))
        self.connect(peer, made)
        self.send(peer, made, GREETING)
        self.assertEqual(made.information.unexpected_source, 1)

    def test_a_name_to_send_to_binds_nothing(self) -> None:
        """It is refused at once."""
        made = self.make()
        self.assertRaises(ValueError, made.send_to, b"x", ("localhost", 9))
        self.assertEqual(made.information.local_port, "")

    def test_a_name_is_looked_up_with_the_resolver_of_the_reactor(self) -> None:
        """The first address to which there is a way is taken."""
        peer = self.peer()
        self.reactor.nameResolver.hosts["host.example"] = ["fe80::1", LOCALHOST]
        made = self.make()
        self.successResultOf(made.connect("host.example", peer.getsockname()[1]))
        self.assertEqual(made.information.remote_address, HostName(LOCALHOST))

    def test_a_service_record_is_looked_up_for_udp(self) -> None:
        """``_name._udp.host``; its target has its own port."""
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

    def test_a_pair_of_two_families_is_refused(self) -> None:
        """``ADDRESS_FAMILY_NOT_SUPPORTED``."""
        pair = EndpointPair(HostName("::1"), "", HostName(LOCALHOST), "1337")
        status = SocketErrorStatus.ADDRESS_FAMILY_NOT_SUPPORTED
        self.assert_refused(self.make().connect(pair), status)

    def test_bound_its_local_end_is_fixed(self) -> None:
        """A pair with another cannot be had; without one it can."""
        made = self.bind()
        pair = EndpointPair(HostName("127.0.0.2"), "", HostName(LOCALHOST), "1337")
        self.failureResultOf(made.connect(pair), LocalProtocolError)
        self.failureResultOf(made.get_output_stream(pair), LocalProtocolError)
        port = made.information.local_port
        self.connect(self.peer(), made)
        self.assertEqual(made.information.local_port, port)

    def test_bound_to_both_families_it_keeps_the_one_of_its_peer(self) -> None:
        """Nothing is heard in the other any more."""
        made = self.make()
        self.successResultOf(made.bind_service_name(""))
        peer = self.peer("::1")
        self.connect(peer, made)
        self.assertEqual(len(self.reactor.readers), 1)
        self.send(peer, made, GREETING)
        self.assertEqual(self.take(made), GREETING)

    def test_bound_in_the_other_family_it_cannot_be_connected(self) -> None:
        """It stays bound."""
        made = self.bind(host="::1")
        status = SocketErrorStatus.ADDRESS_FAMILY_NOT_SUPPORTED
        self.assert_refused(made.connect(LOCALHOST, 1337), status)
        self.connect(self.peer("::1"), made)

    def test_a_group_is_no_host(self) -> None:
        """D11: ``HOST_NOT_FOUND``, MulticastOnly or not, in either family; then it can connect."""
        for is_shared in (False, True):
            made = self.make()
            made.control.multicast_only = is_shared
            for group in (GROUP, "ff02::1"):
                connecting = made.connect(group, 22113)
                self.assert_refused(connecting, SocketErrorStatus.HOST_NOT_FOUND)
                self.assertFalse(made.is_open)
            made.control.multicast_only = False
            self.connect(self.peer(), made)

    def test_a_name_that_leads_nowhere_is_refused(self) -> None:
        """``HOST_NOT_FOUND``; then it can connect."""
        made = self.make()
        connecting = made.connect("nowhere.example", 1337)
        self.assert_refused(connecting, SocketErrorStatus.HOST_NOT_FOUND)
        self.connect(self.peer(), made)

    def test_port_0_is_nobody_s(self) -> None:
        """The system refuses it with an error that has a status; then it can connect."""
        made = self.make()
        self.failureResultOf(made.connect(LOCALHOST, 0), SocketError)
        self.connect(self.peer(), made)

    def test_what_could_not_be_connected_still_hears_everybody(self) -> None:
        """It is bound as it was."""
        made = self.make()
        self.successResultOf(made.bind_service_name(""))
        self.failureResultOf(made.connect(LOCALHOST, 0), SocketError)
        peer = self.peer("127.0.0.2")
        peer.sendto(GREETING, (LOCALHOST, int(made.information.local_port)))
        self.pump()
        self.assertEqual(self.take(made), GREETING)

    def test_what_is_malformed_is_refused_at_once(self) -> None:
        """By `connect` and `get_output_stream` alike, and nothing has begun."""
        made = self.make()
        for call in (made.connect, made.get_output_stream):
            for arguments in (("exa mple", 1), ("", 1), ("host", None), ("host", 65_536)):
                self.assertRaises(ValueError, call, *arguments)
            self.assertRaises(ValueError, call, "host", 1, timeout=-1)
        self.bind(made)

    def test_connected_it_cannot_be_bound_or_connected(self) -> None:
        """It stays as it is."""
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

    def test_a_lookup_has_an_end(self) -> None:
        """``CONNECTION_TIMED_OUT``; then it can be bound."""
        self.slow_host("slow.example")
        made = self.make()
        for call in (made.connect, made.get_output_stream):
            connecting = call("slow.example", 1337, timeout=5)
            self.reactor.advance(6)
            self.assert_refused(connecting, SocketErrorStatus.CONNECTION_TIMED_OUT)
        self.bind(made)

    def test_a_lookup_can_be_called_off(self) -> None:
        """Then it can be bound."""
        self.slow_host("slow.example")
        made = self.make()
        connecting = made.connect("slow.example", 1337)
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.bind(made)

    def test_in_time_nothing_is_left_of_the_timeout(self) -> None:
        """Whatever came of it."""
        made = self.make()
        self.assert_refused(made.connect("no", 1, timeout=5), SocketErrorStatus.HOST_NOT_FOUND)
        self.successResultOf(made.connect(LOCALHOST, 1, timeout=5))
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class ReplyTests(SocketCase):
    """Messages that are answered; from where is shown in ``tests/loopback/test_answers.py``."""

    def test_a_message_is_answered_by_itself(self) -> None:
        """What is sent may be any buffer."""
        made, messages = self.listen()
        peer = self.peer()
        self.send(peer, made, b"Hello")
        self.assertEqual(self.successResultOf(messages[0].reply(bytearray(b"World"))), 5)
        self.assertEqual(peer.recvfrom(99), (b"World", self.address(made)))

    def test_a_message_that_was_too_long_can_be_answered(self) -> None:
        """That it was, for instance."""
        made = self.make()
        made.control.max_datagram = 3
        made, messages = self.listen(made)
        peer = self.peer()
        self.send(peer, made, b"Hello")
        self.assertTrue(messages[0].is_truncated)
        self.successResultOf(messages[0].reply(b"too long"))
        self.assertEqual(peer.recv(99), b"too long")

    def test_a_connected_socket_answers_its_peer(self) -> None:
        """By its output stream; whoever sent before it was connected is not answered."""
        made, messages = self.listen()
        stranger, peer = self.peer(), self.peer()
        self.send(stranger, made, b"Hello")
        self.connect(peer, made)
        self.send(peer, made, b"Hi")
        self.successResultOf(messages[1].reply(b"there"))
        self.assertEqual(peer.recv(99), b"there")
        self.failureResultOf(messages[0].reply(b"World"), LocalProtocolError)

    def test_a_refusal_has_no_answer(self) -> None:
        """Nobody was there."""
        gone = self.peer()
        made, messages = self.listen()
        self.connect(gone, made)
        gone.close()
        self.successResultOf(made.output_stream.send_all(b"Hello"))
        self.pump()
        self.failureResultOf(messages[0].reply(b"again"), LocalProtocolError)

    def test_a_closed_socket_answers_nobody(self) -> None:
        """It says so."""
        made, messages = self.listen()
        self.send(self.peer(), made, b"Hello")
        made.close()
        self.failureResultOf(messages[0].reply(b"World"), ClosedError)
        self.assertRaises(ClosedError, getattr, messages[0], "endpoint_pair")

    def test_a_shared_port_answers_nobody(self) -> None:
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

    def test_a_message_knows_both_ends(self) -> None:
        """Of the answer, with the address that it came to."""
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

    def test_the_address_of_a_message_is_a_pair_as_any_other(self) -> None:
        """It is equal to it, and is found by it."""
        made, messages = self.listen()
        peer = self.peer()
        self.send(peer, made, b"Hello")
        address = peer.getsockname()
        self.assertEqual(messages[0].address, address)
        self.assertEqual({address: 1}[messages[0].address], 1)
        self.assertEqual(repr(messages[0].address), repr(address))


class CancelIoTests(SocketCase):
    """``cancel_io`` ends what is pending, and nothing else."""

    def test_a_wait_is_called_off(self) -> None:
        """The next one gets the next message."""
        made = self.bind()
        waits: list[Callable[[], Deferred[Any]]] = [made.receive, made.receive_from]
        for wait in (*waits, lambda: made.receive_from(timeout=5)):
            waiting = wait()
            self.assertIsNone(self.successResultOf(made.cancel_io()))
            self.assert_refused(waiting, SocketErrorStatus.OPERATION_ABORTED)
        self.send(self.peer(), made, GREETING)
        self.successResultOf(made.cancel_io())
        self.assertEqual(self.take(made), GREETING)

    def test_writes_and_flushes_are_called_off(self) -> None:
        """Of all streams; what has left stays done, and what is written then leaves."""
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

    def test_lookups_go_on(self) -> None:
        """They are no input or output."""
        self.slow_host("slow.example")
        made = self.bind()
        connecting = made.connect("slow.example", 1337)
        self.successResultOf(made.cancel_io())
        self.assertNoResult(connecting)
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)

    def test_before_and_after_its_life_there_is_nothing_to_call_off(self) -> None:
        """It has fired."""
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
        """The families take turns, or the resolver decides."""
        addresses = ["127.0.0.1", "127.0.0.2", "::1"]
        self.reactor.nameResolver.hosts["many.example"] = addresses
        long = HostNameSortOptions.OPTIMIZE_FOR_LONG_CONNECTIONS
        turns = [(host, "9") for host in ("127.0.0.1", "::1", "127.0.0.2")]
        self.assertEqual(self.look_up("many.example", 9), turns)
        self.assertEqual(self.look_up("many.example", 9, long), [(each, "9") for each in addresses])

    def test_services_are_those_of_udp(self) -> None:
        """In the services file, and what is none is refused at once."""
        try:
            port = socket.getservbyname("tftp", "udp")
        except OSError as error:
            raise SkipTest("the services file of this machine has no tftp") from error
        self.assertEqual(self.look_up("192.0.2.1", "tftp"), [("192.0.2.1", str(port))])
        self.assertRaises(ValueError, DatagramSocket.get_endpoint_pairs, self.reactor, "a", 65_536)
        self.assertRaises(ValueError, DatagramSocket.get_endpoint_pairs, self.reactor, "a b", 9)

    def test_a_pair_can_be_connected(self) -> None:
        """As it is."""
        peer = self.peer()
        (host, port) = peer.getsockname()
        (pair,) = self.successResultOf(DatagramSocket.get_endpoint_pairs(self.reactor, host, port))
        made = self.make()
        self.successResultOf(made.connect(pair))
        self.successResultOf(made.output_stream.send_all(GREETING))
        self.assertEqual(peer.recv(99), GREETING)


class ReceiveTests(SocketCase):
    """Asking for datagrams one by one."""

    def test_a_datagram_and_its_sender(self) -> None:
        """As Python's own sockets give them; an empty one is one."""
        made = self.bind()
        peer = self.peer()
        self.send(peer, made, GREETING, b"")
        received = self.successResultOf(made.receive_from())
        self.assertEqual(received, (GREETING, peer.getsockname()))
        self.assertEqual(self.take(made), b"")

    def test_before_it_is_bound_there_is_nothing_to_wait_for(self) -> None:
        """It would wait for ever."""
        self.failureResultOf(self.make().receive_from(), LocalProtocolError)

    def test_a_second_wait_is_refused(self) -> None:
        """The first gets the datagram."""
        made = self.bind()
        waiting = made.receive_from()
        self.failureResultOf(made.receive_from(), BusyError)
        self.send(self.peer(), made, GREETING)
        self.assertEqual(self.successResultOf(waiting)[0], GREETING)

    def test_a_wait_has_an_end(self) -> None:
        """``CONNECTION_TIMED_OUT``; what comes later is for the next."""
        made = self.bind()
        waiting = made.receive_from(timeout=1)
        self.reactor.advance(1.1)
        self.assert_refused(waiting, SocketErrorStatus.CONNECTION_TIMED_OUT)
        self.send(self.peer(), made, GREETING)
        self.assertEqual(self.take(made), GREETING)
        self.assertRaises(ValueError, made.receive_from, timeout=-1)

    def test_a_cancelled_wait_takes_nothing(self) -> None:
        """What comes is for the next."""
        made = self.bind()
        waiting = made.receive_from()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.send(self.peer(), made, GREETING)
        self.assertEqual(self.take(made), GREETING)

    def test_a_loop_ends_with_the_socket(self) -> None:
        """``async for`` gives messages in order until it is closed."""
        made = self.bind()

        async def loop() -> list[bytes]:
            return [message.data async for message in made]

        looping = Deferred.fromCoroutine(loop())
        self.send(self.peer(), made, b"one", b"two")
        self.assertNoResult(looping)
        made.close()
        self.assertEqual(self.successResultOf(looping), [b"one", b"two"])

    def test_a_loop_may_close_the_socket(self) -> None:
        """What came with it is dropped."""
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
        """It is not taken for one that has ended."""

        async def loop() -> None:
            async for _ in self.make():
                pass

        self.failureResultOf(Deferred.fromCoroutine(loop()), LocalProtocolError)

    def test_what_nobody_takes_has_the_port_rest(self) -> None:
        """With 1,024 of them; it goes on when half were taken."""
        made = self.make()
        made.control.inbound_buffer_size_in_bytes = 4 * 1024 * 1024
        self.bind(made)
        peer = self.peer()
        self.flood(peer, made)
        for _ in range(MAX_MESSAGES // 2 - 1):
            self.take(made)
        self.assertEqual(self.reactor.readers, set())
        while not self.reactor.readers:
            self.assertEqual(self.take(made), b"x")


class ControlTests(SocketCase):
    """Options of the socket, as the kernel has them."""

    def test_bound_or_connected_they_are_fixed(self) -> None:
        """But for the unicast hop limit."""
        for made in (self.bind(), self.connect(self.peer())):
            for name in ("multicast_only", "dont_fragment", "inbound_buffer_size_in_bytes"):
                self.assertRaises(LocalProtocolError, setattr, made.control, name, True)
            made.control.outbound_unicast_hop_limit = 7

    def test_a_bind_that_failed_leaves_them_open(self) -> None:
        """It is not bound."""
        made = self.make()
        self.failureResultOf(made.bind_endpoint("192.0.2.1", ""), SocketError)
        made.control.max_datagram = 100
        made.message_received.add(print)

    def test_the_hop_limit_is_that_of_the_datagrams(self) -> None:
        """Set before, and changed later; closed it does nothing."""
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
    """The end."""

    def test_everything_pending_fails(self) -> None:
        """And everything that comes later."""
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

    def test_what_was_written_is_sent(self) -> None:
        """Though nothing was awaited."""
        peer = self.peer()
        made = self.connect(peer)
        write = made.output_stream.write(GREETING)
        made.close()
        self.assertEqual(self.successResultOf(write), 13)
        self.assertEqual(receive(peer, 1), [GREETING])

    def test_what_was_written_is_sent_after_many_others(self) -> None:
        """The turn that a loop leaves to the reactor does not come any more."""
        peer = self.peer()
        made = self.connect(peer)
        for number in range(64):
            self.successResultOf(made.output_stream.send_all(b"%d" % number))
        write = made.output_stream.write(GREETING)
        made.close()
        self.assertEqual(self.successResultOf(write), 13)
        self.assertEqual(receive(peer, 65)[64], GREETING)

    def test_the_port_is_free_again(self) -> None:
        """At once."""
        made = self.bind()
        port = made.information.local_port
        made.close()
        self.successResultOf(self.make().bind_endpoint(LOCALHOST, port))

    def test_closing_during_a_lookup_ends_it(self) -> None:
        """What the resolver finds later opens nothing."""
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
            self.assertTrue(self.reactor.nameResolver.slow["slow.example"].is_cancelled)
            self.assertFalse(made.is_open)

    def test_a_context_closes_it(self) -> None:
        """Also one that was never bound."""

        async def work(made: DatagramSocket) -> None:
            async with made as same:
                self.assertIs(same, made)

        for made in (self.make(), self.bind()):
            self.successResultOf(Deferred.fromCoroutine(work(made)))
            self.failureResultOf(made.bind_service_name(""), ClosedError)


class GroupTests(SocketCase):
    """Joining groups at the wrong time, or what is none; the rest needs a kernel's multicast."""

    def test_it_has_to_be_bound(self) -> None:
        """Before, or connected to one peer, there is nothing to join with."""
        for made in (self.make(), self.connect(self.peer())):
            self.assertRaises(LocalProtocolError, made.join_multicast_group, GROUP, "lo")
            self.assertRaises(LocalProtocolError, made.leave_multicast_group, GROUP, "lo")

    def test_what_is_no_group_is_refused(self) -> None:
        """``ADDRESS_FAMILY_NOT_SUPPORTED``, with one clear line."""
        made = self.bind()
        for group in (LOCALHOST, HostName("10.0.0.1"), "ff02::1", "240.0.0.1", "no group"):
            error = self.assertRaises(SocketError, made.join_multicast_group, group, "lo")
            self.assertIs(error.status, SocketErrorStatus.ADDRESS_FAMILY_NOT_SUPPORTED)
            self.assertNotIn("\n", str(error))

    def test_an_interface_that_does_not_exist_is_refused(self) -> None:
        """``UNREACHABLE_HOST``."""
        made = self.bind()
        for interface in ("eth99999", 2**31 - 7, "192.0.2.1"):
            error = self.assertRaises(SocketError, made.join_multicast_group, GROUP, interface)
            self.assertIs(error.status, SocketErrorStatus.UNREACHABLE_HOST)

    def test_what_was_not_joined_cannot_be_left(self) -> None:
        """Nor twice."""
        made = self.bind()
        self.assertRaises(LocalProtocolError, made.leave_multicast_group, GROUP, "lo")
        made.join_multicast_group(HostName(GROUP), "lo")
        made.leave_multicast_group(GROUP, "lo")
        self.assertRaises(LocalProtocolError, made.leave_multicast_group, GROUP, "lo")
