"""Each stream sends from the port of its socket, together with the streams of one event."""

from __future__ import annotations

from tests.datagram.fake_ports import log_lines
from tests.sockets.datagram.cases import LOCALHOST, SocketCase, receive
from twsock import (
    ClosedError,
    DatagramSocketMessageReceivedEventArgs,
    DataWriter,
    EndpointPair,
    HostName,
    LocalProtocolError,
    SocketError,
    SocketErrorStatus,
)

GREETING = b"Hello, World!"
GROUP = "224.3.0.5"

Message = DatagramSocketMessageReceivedEventArgs


class DestinationTests(SocketCase):
    """Streams to several hosts, from one port."""

    def test_streams_to_several_hosts_send_from_the_bound_port(self) -> None:
        """One socket can have any number of streams."""
        made = self.bind()
        for peer in (self.peer(), self.peer()):
            stream = self.successResultOf(made.get_output_stream(*peer.getsockname()))
            self.assertEqual(self.successResultOf(stream.send_all(GREETING)), 13, peer)
            self.assertEqual(peer.recvfrom(99), (GREETING, self.address(made)), peer)

    def test_making_a_stream_binds_an_unbound_socket(self) -> None:
        """To a free port, in the address family of the host; any host may answer there."""
        peer, other = self.peer("::1"), self.peer("::1")
        made = self.make()
        stream = self.successResultOf(made.get_output_stream(*peer.getsockname()[:2]))
        self.successResultOf(stream.send_all(b"ping"))
        _, address = peer.recvfrom(99)
        other.sendto(b"pong", address)
        self.pump()
        self.assertEqual(self.take(made), b"pong")
        self.assertEqual(int(made.information.local_port), address[1])

    def test_a_pair_fixes_the_local_end_of_an_unbound_socket(self) -> None:
        """The socket is bound to it."""
        peer = self.peer()
        remote = HostName(LOCALHOST), str(peer.getsockname()[1])
        made = self.make()
        pair = EndpointPair(HostName("127.0.0.2"), "", *remote)
        stream = self.successResultOf(made.get_output_stream(pair))
        self.successResultOf(stream.send_all(GREETING))
        self.assertEqual(peer.recvfrom(99)[1], self.address(made))
        self.assertEqual(self.address(made)[0], "127.0.0.2")

    def test_a_refused_destination_leaves_the_socket_unbound(self) -> None:
        """Port 0 and an unknown zone."""
        made = self.make()
        for host, port in ((LOCALHOST, 0), ("ff15::9%no-such-interface", 9)):
            self.failureResultOf(made.get_output_stream(host, port), SocketError)
            self.assertIsNone(made.information.local_address, (host, port))
        self.bind(made)

    def test_a_stream_to_a_host_of_another_family_fails(self) -> None:
        """``ADDRESS_FAMILY_NOT_SUPPORTED``; for a name, the address that fits is used."""
        made = self.bind()
        status = SocketErrorStatus.ADDRESS_FAMILY_NOT_SUPPORTED
        self.assert_refused(made.get_output_stream("::1", 1337), status)
        peer = self.peer()
        self.reactor.nameResolver.hosts["both.example"] = ["::1", LOCALHOST]
        making = made.get_output_stream("both.example", peer.getsockname()[1])
        self.successResultOf(self.successResultOf(making).send_all(GREETING))
        self.assertEqual(peer.recv(99), GREETING)

    def test_a_writer_stores_one_datagram(self) -> None:
        """As on the stream of a connected socket."""
        peer = self.peer()
        stream = self.successResultOf(self.bind().get_output_stream(*peer.getsockname()))
        writer = DataWriter(stream)
        writer.write_uint16(5)
        writer.write_string("Hello")
        self.assertEqual(self.successResultOf(writer.store()), 7)
        self.assertEqual(peer.recv(99), b"\0\5Hello")

    def test_closing_a_stream_leaves_the_socket_open(self) -> None:
        """Another stream to the same host can be made."""
        peer = self.peer()
        made = self.bind()
        stream = self.successResultOf(made.get_output_stream(*peer.getsockname()))
        stream.close()
        self.failureResultOf(stream.write(b"x"), ClosedError)
        again = self.successResultOf(made.get_output_stream(*peer.getsockname()))
        self.successResultOf(again.send_all(GREETING))
        self.assertEqual(peer.recv(99), GREETING)

    def test_a_dropped_stream_sends_its_queued_datagrams(self) -> None:
        """In the next turn, though the application has dropped the stream."""
        peer = self.peer()
        made = self.bind()
        self.successResultOf(made.get_output_stream(*peer.getsockname())).write(GREETING)
        self.reactor.advance(0)
        self.assertEqual(receive(peer, 1), [GREETING])

    def test_closing_the_socket_ends_the_lookup_of_a_destination(self) -> None:
        """Of a bound and of an unbound socket."""
        self.slow_host("slow.example")
        for made in (self.make(), self.bind()):
            making = made.get_output_stream("slow.example", 1337)
            self.assertNoResult(making)
            made.close()
            self.failureResultOf(making, ClosedError)


class LocalEndTests(SocketCase):
    """Streams of a bound socket that leave from a given local address."""

    def make_pair(self, local: str | None, service: str = "") -> EndpointPair:
        return EndpointPair(local and HostName(local), service, HostName(LOCALHOST), "9")  # type: ignore[arg-type]

    def test_a_socket_of_all_addresses_sends_from_any_of_them(self) -> None:
        """Its own port may be given too; for a group as local address the kernel chooses."""
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
                self.assertEqual(peer.recvfrom(99)[1], (source, int(own)), service)

    def test_a_socket_of_one_address_sends_from_no_other(self) -> None:
        """Nor from another port."""
        made = self.bind()
        own = made.information.local_port
        for pair in (self.make_pair(LOCALHOST, own), self.make_pair(None, own)):
            self.successResultOf(made.get_output_stream(pair))
        for pair in (self.make_pair("127.0.0.2"), self.make_pair(None, str(int(own) ^ 1))):
            self.failureResultOf(made.get_output_stream(pair), LocalProtocolError)

    def test_a_socket_of_one_interface_accepts_no_local_address(self) -> None:
        """As in WinRT."""
        made = self.make()
        self.successResultOf(made.bind_service_name("", "lo"))
        self.failureResultOf(
            made.get_output_stream(self.make_pair("127.0.0.2")), LocalProtocolError
        )

    def test_a_local_address_of_another_machine_is_refused(self) -> None:
        """So is one of the other family."""
        made = self.make()
        self.successResultOf(made.bind_service_name(""))
        for local, status in (
            ("192.0.2.1", SocketErrorStatus.CANNOT_ASSIGN_REQUESTED_ADDRESS),
            ("::1", SocketErrorStatus.ADDRESS_FAMILY_NOT_SUPPORTED),
        ):
            self.assert_refused(made.get_output_stream(self.make_pair(local)), status)


class SendToTests(SocketCase):
    """Sending single datagrams, as with sockets of Python."""

    def test_send_to_sends_before_it_returns(self) -> None:
        """From a bound socket; an unbound one is bound first."""
        peer = self.peer()
        for made in (self.bind(), self.make()):
            sending = made.send_to(GREETING, peer.getsockname())
            self.assertEqual(self.successResultOf(sending), 13, made)
            self.assertEqual(peer.recvfrom(99)[0], GREETING, made)
            self.assertTrue(made.is_open, made)

    def test_the_first_64_are_sent_before_the_calls_return(self) -> None:
        """The others are sent in the reactor's next turn."""
        peer = self.peer()
        made = self.bind()
        for number in range(100):
            made.send_to(b"%d" % number, peer.getsockname())
        self.assertEqual(receive(peer, 64), [b"%d" % number for number in range(64)])
        self.reactor.advance(0)
        self.assertEqual(receive(peer, 36), [b"%d" % number for number in range(64, 100)])

    def test_datagrams_of_any_size_reach_several_hosts(self) -> None:
        """Each host gets its own, also an empty one."""
        first, second = self.peer(), self.peer("::1")
        made = self.make()
        self.successResultOf(made.bind_service_name(""))
        self.successResultOf(made.send_to(b"", first.getsockname()))
        self.successResultOf(made.send_to(bytearray(b"six"), second.getsockname()[:2]))
        self.assertEqual((receive(first, 1), receive(second, 1)), ([b""], [b"six"]))

    def test_a_datagram_that_is_too_long_fails(self) -> None:
        """``MESSAGE_TOO_LONG``; the next one is sent."""
        peer = self.peer()
        made = self.bind()
        sending = made.send_to(bytes(65_508), peer.getsockname())
        self.assert_refused(sending, SocketErrorStatus.MESSAGE_TOO_LONG)
        self.successResultOf(made.send_to(bytes(65_507), peer.getsockname()))

    def test_a_datagram_that_the_system_refuses_fails(self) -> None:
        """To port 0, on Linux; the socket stays usable."""
        peer = self.peer()
        made = self.bind()
        self.failureResultOf(made.send_to(b"x", (LOCALHOST, 0)), SocketError)
        self.successResultOf(made.send_to(GREETING, peer.getsockname()))
        self.assertEqual(peer.recv(99), GREETING)

    def test_a_name_or_an_invalid_port_raises_at_the_call(self) -> None:
        """No name is looked up."""
        made = self.bind()
        for address in (("localhost", 9), (LOCALHOST, 65_536), (LOCALHOST, -1)):
            self.assertRaises(ValueError, made.send_to, b"x", address)
        self.assertEqual(self.reactor.nameResolver.asked, [])

    def test_a_host_of_the_other_family_is_refused(self) -> None:
        """``ADDRESS_FAMILY_NOT_SUPPORTED``."""
        status = SocketErrorStatus.ADDRESS_FAMILY_NOT_SUPPORTED
        self.assert_refused(self.bind().send_to(b"x", ("::1", 9)), status)


class OutputTests(SocketCase):
    """The stream to a connected peer."""

    def test_writing_before_connecting_fails(self) -> None:
        """Also on a socket that is only bound."""
        for made in (self.make(), self.bind()):
            self.failureResultOf(made.output_stream.write(b"x"), LocalProtocolError)
            self.failureResultOf(made.output_stream.flush(), LocalProtocolError)

    def test_unflushed_writes_are_sent_in_the_next_turn(self) -> None:
        """Together, in order."""
        peer = self.peer()
        stream = self.connect(peer).output_stream
        stream.write(b"one")
        stream.write(b"two")
        self.assertEqual(receive(peer, 0), [])
        self.reactor.advance(0)
        self.assertEqual(receive(peer, 2), [b"one", b"two"])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_a_failed_write_that_nobody_awaits_is_logged_in_one_line(self) -> None:
        """No datagram is lost without a log line."""
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
