"""A datagram socket is bound or connected once, hands over what comes, and ends in order."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SkipTest

from tests.datagram.fake_ports import log_lines
from tests.sockets.datagram.cases import LOCALHOST, DatagramSocketCase, receive
from tests.sockets.test_resolving import FakeResolution, answering, record
from twsock import (
    BusyError,
    ClosedError,
    DatagramSocket,
    DatagramSocketMessageReceivedEventArgs,
    DataWriter,
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


class SocketCase(DatagramSocketCase):
    """What the tests here ask."""

    def status_of(self, operation: Deferred[Any]) -> SocketErrorStatus:
        error: SocketError = self.failureResultOf(operation, SocketError).value
        return error.status

    def assert_refused(self, operation: Deferred[Any], status: SocketErrorStatus) -> None:
        self.assertIs(self.status_of(operation), status)

    def take(self, made: DatagramSocket) -> bytes:
        """Receive a datagram that has come."""
        return self.successResultOf(made.receive_from())[0]

    def listen(self, made: DatagramSocket | None = None) -> tuple[DatagramSocket, list[Message]]:
        """Bind a socket whose handler keeps the messages."""
        made = made or self.make()
        messages: list[Message] = []
        made.message_received.add(lambda _, message: messages.append(message))
        return self.bind(made), messages

    def flood(self, peer: socket.socket, made: DatagramSocket) -> None:
        """Send until the socket reads no more."""
        for _ in range(100):
            self.send(peer, made, *[b"x"] * 32)
            if not self.reactor.readers:
                return
        self.fail("it still reads")

    def run_to(self, made: DatagramSocket, *datagrams: bytes) -> None:
        """Send datagrams that the kernel hands over as one run, where they are of one size."""
        other = self.make()
        self.successResultOf(other.connect(*self.address(made)))
        for data in datagrams:
            other.output_stream.write(data)
        self.successResultOf(other.output_stream.flush())
        self.pump()

    def slow_host(self, name: str) -> None:
        """Have a lookup not end."""
        self.reactor.nameResolver.slow[name] = FakeResolution(name)


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


class DestinationTests(SocketCase):
    """Streams to several hosts, from one port."""

    def test_every_host_sees_the_port_that_was_bound(self) -> None:
        """From one socket to as many as there are."""
        made = self.bind()
        for peer in (self.peer(), self.peer()):
            stream = self.successResultOf(made.get_output_stream(*peer.getsockname()))
            self.assertEqual(self.successResultOf(stream.send_all(GREETING)), 13)
            self.assertEqual(peer.recvfrom(99), (GREETING, self.address(made)))

    def test_a_socket_that_is_not_bound_is_bound(self) -> None:
        """To a free port, in the family of the host; anybody may answer there."""
        peer, other = self.peer("::1"), self.peer("::1")
        made = self.make()
        stream = self.successResultOf(made.get_output_stream(*peer.getsockname()[:2]))
        self.successResultOf(stream.send_all(b"ping"))
        _, address = peer.recvfrom(99)
        other.sendto(b"pong", address)
        self.pump()
        self.assertEqual(self.take(made), b"pong")
        self.assertEqual(int(made.information.local_port), address[1])

    def test_a_pair_fixes_the_local_end(self) -> None:
        """Of a socket that is not bound."""
        peer = self.peer()
        remote = HostName(LOCALHOST), str(peer.getsockname()[1])
        made = self.make()
        pair = EndpointPair(HostName("127.0.0.2"), "", *remote)
        stream = self.successResultOf(made.get_output_stream(pair))
        self.successResultOf(stream.send_all(GREETING))
        self.assertEqual(peer.recvfrom(99)[1], self.address(made))
        self.assertEqual(self.address(made)[0], "127.0.0.2")

    def test_a_destination_that_is_refused_binds_nothing(self) -> None:
        """Port 0 and a zone that is none; the socket is as it was before."""
        made = self.make()
        for host, port in ((LOCALHOST, 0), ("ff15::9%no-such-interface", 9)):
            self.failureResultOf(made.get_output_stream(host, port), SocketError)
            self.assertIsNone(made.information.local_address)
        self.bind(made)

    def test_a_host_of_the_other_family_is_refused(self) -> None:
        """``ADDRESS_FAMILY_NOT_SUPPORTED``; a name is reached by the address that fits."""
        made = self.bind()
        status = SocketErrorStatus.ADDRESS_FAMILY_NOT_SUPPORTED
        self.assert_refused(made.get_output_stream("::1", 1337), status)
        peer = self.peer()
        self.reactor.nameResolver.hosts["both.example"] = ["::1", LOCALHOST]
        making = made.get_output_stream("both.example", peer.getsockname()[1])
        self.successResultOf(self.successResultOf(making).send_all(GREETING))
        self.assertEqual(peer.recv(99), GREETING)

    def test_a_writer_makes_one_datagram_of_what_it_stores(self) -> None:
        """As on the stream of a connected socket."""
        peer = self.peer()
        stream = self.successResultOf(self.bind().get_output_stream(*peer.getsockname()))
        writer = DataWriter(stream)
        writer.write_uint16(5)
        writer.write_string("Hello")
        self.assertEqual(self.successResultOf(writer.store()), 7)
        self.assertEqual(peer.recv(99), b"\0\5Hello")

    def test_a_closed_stream_leaves_the_socket_open(self) -> None:
        """Another can be made to the same host."""
        peer = self.peer()
        made = self.bind()
        stream = self.successResultOf(made.get_output_stream(*peer.getsockname()))
        stream.close()
        self.failureResultOf(stream.write(b"x"), ClosedError)
        again = self.successResultOf(made.get_output_stream(*peer.getsockname()))
        self.successResultOf(again.send_all(GREETING))
        self.assertEqual(peer.recv(99), GREETING)

    def test_what_a_forgotten_stream_was_given_is_sent(self) -> None:
        """In the next turn, though nobody has the stream any more."""
        peer = self.peer()
        made = self.bind()
        self.successResultOf(made.get_output_stream(*peer.getsockname())).write(GREETING)
        self.reactor.advance(0)
        self.assertEqual(receive(peer, 1), [GREETING])

    def test_a_lookup_ends_with_the_socket(self) -> None:
        """Whether it was bound before, or was to be."""
        self.slow_host("slow.example")
        for made in (self.make(), self.bind()):
            making = made.get_output_stream("slow.example", 1337)
            self.assertNoResult(making)
            made.close()
            self.failureResultOf(making, ClosedError)


class LocalEndTests(SocketCase):
    """Streams of a bound socket that leave from an address which somebody names."""

    def make_pair(self, local: str | None, service: str = "") -> EndpointPair:
        return EndpointPair(local and HostName(local), service, HostName(LOCALHOST), "9")  # type: ignore[arg-type]

    def test_a_socket_of_all_addresses_has_all_of_them(self) -> None:
        """Its own port may be named, too; a group leaves the address to the kernel."""
        made = self.make()
        self.successResultOf(made.bind_service_name(""))
        own, peer = made.information.local_port, self.peer()
        for local in ("127.0.0.2", LOCALHOST, None, GROUP, "255.255.255.255"):
            for service in ("", own):
                pair = self.make_pair(local, service)
                pair.remote_service_name = str(peer.getsockname()[1])
                stream = self.successResultOf(made.get_output_stream(pair))
                self.successResultOf(stream.send_all(GREETING))
                source = local if local == "127.0.0.2" else LOCALHOST
                self.assertEqual(peer.recvfrom(99)[1], (source, int(own)))

    def test_a_socket_of_one_address_has_no_other(self) -> None:
        """Nor another port."""
        made = self.bind()
        own = made.information.local_port
        for pair in (self.make_pair(LOCALHOST, own), self.make_pair(None, own)):
            self.successResultOf(made.get_output_stream(pair))
        for pair in (self.make_pair("127.0.0.2"), self.make_pair(None, str(int(own) ^ 1))):
            self.failureResultOf(made.get_output_stream(pair), LocalProtocolError)

    def test_a_socket_of_one_interface_has_no_choice(self) -> None:
        """As in WinRT."""
        made = self.make()
        self.successResultOf(made.bind_service_name("", "lo"))
        self.failureResultOf(
            made.get_output_stream(self.make_pair("127.0.0.2")), LocalProtocolError
        )

    def test_an_address_of_another_machine_is_refused(self) -> None:
        """So is one of the other family."""
        made = self.make()
        self.successResultOf(made.bind_service_name(""))
        for local, status in (
            ("192.0.2.1", SocketErrorStatus.CANNOT_ASSIGN_REQUESTED_ADDRESS),
            ("::1", SocketErrorStatus.ADDRESS_FAMILY_NOT_SUPPORTED),
        ):
            self.assert_refused(made.get_output_stream(self.make_pair(local)), status)


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


class SendToTests(SocketCase):
    """Single datagrams, as with Python's own sockets."""

    def test_it_is_sent_when_the_call_returns(self) -> None:
        """From a socket that is bound, or is so by then."""
        peer = self.peer()
        for made in (self.bind(), self.make()):
            sending = made.send_to(GREETING, peer.getsockname())
            self.assertEqual(self.successResultOf(sending), 13)
            self.assertEqual(peer.recvfrom(99)[0], GREETING)
            self.assertTrue(made.is_open)

    def test_the_first_of_many_are_sent_when_the_call_returns(self) -> None:
        """After 64 the reactor has its turn, in which the others leave."""
        peer = self.peer()
        made = self.bind()
        for number in range(100):
            made.send_to(b"%d" % number, peer.getsockname())
        self.assertEqual(receive(peer, 64), [b"%d" % number for number in range(64)])
        self.reactor.advance(0)
        self.assertEqual(receive(peer, 36), [b"%d" % number for number in range(64, 100)])

    def test_several_hosts_and_sizes(self) -> None:
        """Each gets its own, an empty one too."""
        first, second = self.peer(), self.peer("::1")
        made = self.make()
        self.successResultOf(made.bind_service_name(""))
        self.successResultOf(made.send_to(b"", first.getsockname()))
        self.successResultOf(made.send_to(bytearray(b"six"), second.getsockname()[:2]))
        self.assertEqual((receive(first, 1), receive(second, 1)), ([b""], [b"six"]))

    def test_one_that_is_too_long_fails(self) -> None:
        """``MESSAGE_TOO_LONG``; the next is sent."""
        peer = self.peer()
        made = self.bind()
        sending = made.send_to(bytes(65_508), peer.getsockname())
        self.assert_refused(sending, SocketErrorStatus.MESSAGE_TOO_LONG)
        self.successResultOf(made.send_to(bytes(65_507), peer.getsockname()))

    def test_what_the_system_refuses_fails(self) -> None:
        """Port 0, on Linux; the socket stays usable."""
        peer = self.peer()
        made = self.bind()
        self.failureResultOf(made.send_to(b"x", (LOCALHOST, 0)), SocketError)
        self.successResultOf(made.send_to(GREETING, peer.getsockname()))
        self.assertEqual(peer.recv(99), GREETING)

    def test_a_name_or_no_port_is_refused_at_once(self) -> None:
        """Nothing is looked up."""
        made = self.bind()
        for address in (("localhost", 9), (LOCALHOST, 65_536), (LOCALHOST, -1)):
            self.assertRaises(ValueError, made.send_to, b"x", address)
        self.assertEqual(self.reactor.nameResolver.asked, [])

    def test_the_other_family_is_refused(self) -> None:
        """``ADDRESS_FAMILY_NOT_SUPPORTED``."""
        status = SocketErrorStatus.ADDRESS_FAMILY_NOT_SUPPORTED
        self.assert_refused(self.bind().send_to(b"x", ("::1", 9)), status)


class HandlerTests(SocketCase):
    """Handlers of ``message_received``."""

    def test_they_are_called_with_the_socket_and_the_message(self) -> None:
        """Once for each datagram, an empty one too."""
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

    def test_a_run_is_a_message_for_each_datagram(self) -> None:
        """The kernel may hand over several at a time."""
        made, messages = self.listen()
        datagrams = [b"%02d" % number for number in range(64)]
        self.run_to(made, *datagrams)
        self.assertEqual([message.data for message in messages], datagrams)

    def test_the_address_that_it_was_sent_to_is_told(self) -> None:
        """Of a socket that is bound to all of them."""
        made = self.make()
        self.successResultOf(made.bind_service_name(""))
        self.peer().sendto(b"x", ("127.0.0.7", int(made.information.local_port)))
        self.pump()
        message = self.successResultOf(made.receive())
        self.assertEqual(message.local_address, HostName("127.0.0.7"))

    def test_bound_it_takes_no_more_handlers(self) -> None:
        """Nor while it is opened, connected or closed: events may have been missed."""
        self.slow_host("slow.example")
        opening = self.make()
        opening.connect("slow.example", 1).addErrback(lambda _: None)
        closed = self.make()
        closed.close()
        for made in (self.bind(), opening, self.connect(self.peer()), closed):
            self.assertRaises(LocalProtocolError, made.message_received.add, print)
            self.assertRaises(LocalProtocolError, made.multicast_group_changed.add, print)

    def test_with_a_handler_nothing_can_be_received_otherwise(self) -> None:
        """The messages are the handler's."""
        made, _ = self.listen()
        self.failureResultOf(made.receive_from(), LocalProtocolError)
        self.failureResultOf(made.receive(), LocalProtocolError)

    def test_one_that_fails_does_not_end_the_socket(self) -> None:
        """It is logged; the next datagram, and the next handler, have their turn."""
        made = self.make()
        made.message_received.add(lambda *_: 1 // 0)
        _, messages = self.listen(made)
        self.send(self.peer(), made, b"one", b"two")
        self.assertEqual([message.data for message in messages], [b"one", b"two"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_a_coroutine_that_fails_is_logged(self) -> None:
        """A mistake with its traceback, an error of the network as one line."""
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

    def test_reading_a_refusal_without_a_guard_is_one_line(self) -> None:
        """The samples guard it; who does not is told, and goes on."""
        made = self.make()
        made.message_received.add(lambda _, message: message.data)
        peer = self.peer()
        self.connect(peer, made)
        peer.close()
        with log_lines() as lines:
            made.output_stream.send_all(b"x")
            self.pump()
        self.assertEqual(len([line for line in lines if "came to nothing" in line]), 1)

    def test_slow_ones_have_the_port_rest(self) -> None:
        """With 1,024 under way nothing more is read, until half of them are done."""
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
        while len([each for each in pending if not each.called]) > 512:
            self.assertEqual(self.reactor.readers, set())
            next(each for each in pending if not each.called).callback(None)
        self.assertEqual(len(self.reactor.readers), 1)
        for each in pending:
            if not each.called:
                each.callback(None)

    def test_one_may_close_the_socket(self) -> None:
        """What came together with it is not delivered."""
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
    """What handlers write."""

    def echo(self) -> DatagramSocket:
        """Bind a socket that answers, and awaits nothing."""
        made = self.make()
        made.message_received.add(
            lambda called, message: called.send_to(message.data, message.address)
        )
        return self.bind(made)

    def answer(self, made: DatagramSocket, peer: socket.socket) -> DatagramSocket:
        """Have a connected socket answer by its stream."""

        def handler(called: DatagramSocket, message: Message) -> None:
            called.output_stream.write(message.data)

        made.message_received.add(handler)
        return self.connect(peer, made)

    def test_it_leaves_at_the_end_of_the_event(self) -> None:
        """Nothing need be awaited, and no turn goes by."""
        peer = self.peer()
        made = self.answer(self.make(), peer)
        self.send(peer, made, b"one", b"two")
        self.assertEqual(receive(peer, 2), [b"one", b"two"])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_it_does_so_after_every_event(self) -> None:
        """However many there were before it."""
        peer = self.peer()
        made = self.answer(self.make(), peer)
        for number in range(100):
            self.send(peer, made, b"%d" % number)
            self.assertEqual(receive(peer, 1), [b"%d" % number])

    def test_by_send_to_it_does_so_too(self) -> None:
        """To whoever asked."""
        made = self.echo()
        for peer in (self.peer(), self.peer()):
            self.send(peer, made, GREETING)
            self.assertEqual(receive(peer, 1), [GREETING])

    def test_what_was_written_before_leaves_with_it(self) -> None:
        """In order."""
        peer = self.peer()
        made = self.answer(self.make(), peer)
        made.output_stream.write(b"before")
        self.send(peer, made, b"answer")
        self.assertEqual(receive(peer, 2), [b"before", b"answer"])

    def test_a_handler_that_awaits_its_write_is_resumed(self) -> None:
        """The write leaves at the end of the event, and then it goes on."""
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

    def test_what_is_written_on_a_refusal_leaves(self) -> None:
        """Also when the refusal is met within a send."""
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
        again.settimeout(5)
        # The refusal has come, and the next send is told of it.
        self.successResultOf(made.output_stream.send_all(b"heard"))
        self.reactor.advance(0)
        self.assertEqual(receive(again, 2), [b"heard", b"again"])


class RefusalTests(SocketCase):
    """A peer that is not there."""

    def refuse(self, made: DatagramSocket) -> None:
        """Connect to a port that is closed by then, and send."""
        peer = self.peer()
        self.connect(peer, made)
        peer.close()
        self.assertEqual(self.successResultOf(made.output_stream.send_all(b"x")), 1)
        self.pump()

    def test_a_handler_is_told_with_a_message_that_raises(self) -> None:
        """Status ``CONNECTION_RESET_BY_PEER``, from the address that was sent to."""
        made = self.make()
        messages: list[Message] = []
        made.message_received.add(lambda _, message: messages.append(message))
        self.refuse(made)
        (message,) = messages
        error = self.assertRaises(SocketError, getattr, message, "data_reader")
        self.assertIs(error.status, SocketErrorStatus.CONNECTION_RESET_BY_PEER)
        self.assertEqual(message.remote_address, made.information.remote_address)
        self.assertEqual(message.remote_port, made.information.remote_port)

    def test_who_receives_is_told_with_an_error(self) -> None:
        """And can receive again."""
        made = self.make()
        self.refuse(made)
        status = SocketErrorStatus.CONNECTION_RESET_BY_PEER
        self.assert_refused(made.receive_from(), status)
        waiting = made.receive_from()
        self.assertNoResult(waiting)
        made.close()
        self.failureResultOf(waiting, ClosedError)

    def test_the_socket_stays_usable(self) -> None:
        """When the peer is there again, it is reached."""
        made = self.make()
        self.refuse(made)
        peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(peer.close)
        peer.bind((LOCALHOST, int(made.information.remote_port)))
        peer.settimeout(5)
        self.successResultOf(made.output_stream.send_all(GREETING))
        self.assertEqual(peer.recv(99), GREETING)
        self.assert_refused(made.receive_from(), SocketErrorStatus.CONNECTION_RESET_BY_PEER)
        self.send(peer, made, b"back")
        self.assertEqual(self.take(made), b"back")


class TruncationTests(SocketCase):
    """Datagrams that are longer than ``max_datagram``."""

    def test_one_is_flagged_and_raises(self) -> None:
        """``MESSAGE_TOO_LONG``; its neighbours are whole."""
        made = self.make()
        made.control.max_datagram = 5
        _, messages = self.listen(made)
        self.send(self.peer(), made, b"Hello", b"Hello, World!", b"")
        self.assertEqual([message.is_truncated for message in messages], [False, True, False])
        error = self.assertRaises(SocketError, getattr, messages[1], "data")
        self.assertIs(error.status, SocketErrorStatus.MESSAGE_TOO_LONG)
        self.assertEqual(messages[1].beginning, b"Hello")

    def test_who_receives_gets_the_error_in_its_place(self) -> None:
        """And the next datagram then."""
        made = self.make()
        made.control.max_datagram = 5
        self.bind(made)
        self.send(self.peer(), made, b"Hello, World!", b"next")
        self.assert_refused(made.receive_from(), SocketErrorStatus.MESSAGE_TOO_LONG)
        self.assertEqual(self.take(made), b"next")

    def test_in_a_run_only_what_is_too_long_is_lost(self) -> None:
        """The limit goes by the datagram, not by what the kernel hands over."""
        made = self.make()
        made.control.max_datagram = 1200
        _, messages = self.listen(made)
        self.run_to(made, *map(bytes, (1200,) * 10 + (1201, 1201, 5)))
        flags = [message.is_truncated for message in messages]
        self.assertEqual(flags, [False] * 10 + [True] * 2 + [False])

    def test_the_largest_there_is_arrives_whole(self) -> None:
        """65,507 bytes; on IPv6, where the header is not counted, 65,527."""
        for host, size in ((LOCALHOST, 65_507), ("::1", 65_527)):
            made, sender = self.bind(host=host), self.bind(host=host)
            self.successResultOf(sender.send_to(bytes(size), self.address(made)))
            self.pump()
            self.assertEqual(len(self.take(made)), size)
            sending = sender.send_to(bytes(size + 1), self.address(made))
            self.assert_refused(sending, SocketErrorStatus.MESSAGE_TOO_LONG)


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


class OutputTests(SocketCase):
    """The stream to a connected peer."""

    def test_before_it_is_connected_nothing_can_be_written(self) -> None:
        """Nor on one that is only bound."""
        for made in (self.make(), self.bind()):
            self.failureResultOf(made.output_stream.write(b"x"), LocalProtocolError)
            self.failureResultOf(made.output_stream.flush(), LocalProtocolError)

    def test_what_nobody_flushes_leaves_in_the_next_turn(self) -> None:
        """Together, in order."""
        peer = self.peer()
        stream = self.connect(peer).output_stream
        stream.write(b"one")
        stream.write(b"two")
        self.assertEqual(receive(peer, 0), [])
        self.reactor.advance(0)
        self.assertEqual(receive(peer, 2), [b"one", b"two"])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_a_failure_that_nobody_awaits_is_one_line(self) -> None:
        """Nothing that is written is lost in silence."""
        stream = self.connect(self.peer()).output_stream
        stream.write(bytes(65_508))
        with log_lines() as lines:
            self.reactor.advance(0)
        self.assertEqual(len([line for line in lines if "not sent" in line]), 1)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_streams_of_one_socket_send_in_one_turn(self) -> None:
        """Each to its own host."""
        made = self.bind()
        peers = [self.peer() for _ in range(3)]
        streams = [
            self.successResultOf(made.get_output_stream(*peer.getsockname())) for peer in peers
        ]
        for stream in streams:
            stream.write(GREETING)
        self.reactor.advance(0)
        self.assertEqual([receive(peer, 1) for peer in peers], [[GREETING]] * 3)


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
