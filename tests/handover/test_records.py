"""The format of a hand-over: literal bytes, round trips, and any garbage."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.handover.test_datagram_state import STATES
from twsock.errors import LocalProtocolError, RemoteProtocolError
from twsock.handover import records
from twsock.handover.datagram_state import DatagramState
from twsock.handover.records import (
    KINDS,
    MAX_PACKET,
    MAX_STATE,
    Accepted,
    HandoverState,
    Offer,
    Packet,
    Refused,
    SocketKind,
    Withdrawn,
    decode_packet,
    decode_state,
    encode_packet,
    encode_state,
)

OFFERS = st.sampled_from(KINDS).flatmap(
    lambda kind: st.builds(
        Offer, st.integers(0, MAX_STATE), st.just(kind), st.integers(1, kind.most_sockets)
    )
)
PACKETS: st.SearchStrategy[Packet] = st.one_of(
    OFFERS,
    st.just(Accepted()),
    st.just(Withdrawn()),
    st.text(max_size=40).filter(lambda text: text.isprintable()).map(Refused),
)


class PacketTests(SynchronousTestCase):
    """Packets and their bytes."""

    def test_the_bytes_are_those_of_the_page(self) -> None:
        """See docs/wire/handover.rst."""
        self.assertEqual(encode_packet(Offer(258)).hex(), "5457484f020101010000000000000102")
        self.assertEqual(encode_packet(Accepted()).hex(), "5457484f0202")
        self.assertEqual(encode_packet(Refused("no")).hex(), "5457484f02036e6f")
        self.assertEqual(encode_packet(Withdrawn()).hex(), "5457484f0204")

    @given(PACKETS)
    def test_a_packet_survives_the_way(self, packet: Packet) -> None:
        """The bytes of a packet are that packet."""
        self.assertEqual(decode_packet(encode_packet(packet)), packet)

    @given(st.one_of(st.binary(max_size=300), st.binary(max_size=20).map(b"TWHO\2".__add__)))
    def test_garbage_is_refused(self, data: bytes) -> None:
        """Bytes that are no packet raise the documented error, and no other one."""
        try:
            packet = decode_packet(data)
        except RemoteProtocolError:
            return
        self.assertEqual(encode_packet(packet), data)

    def test_another_version_is_named(self) -> None:
        """Both numbers are in the message."""
        with self.assertRaisesRegex(RemoteProtocolError, "version 9 of the hand-over, this one 2"):
            decode_packet(b"TWHO\x09\x02")

    def test_a_state_above_the_limit_is_refused_before_it_is_read(self) -> None:
        """Its size is in the offer."""
        decode_packet(encode_packet(Offer(MAX_STATE)))
        with self.assertRaisesRegex(RemoteProtocolError, f"limit is {MAX_STATE}"):
            decode_packet(encode_packet(Offer(MAX_STATE + 1)))

    def test_an_unknown_kind_and_a_wrong_number_of_sockets_are_refused(self) -> None:
        """Before a descriptor is used."""
        for kind, sockets in ((0, 1), (5, 1), (1, 0), (1, 2), (2, 8), (3, 2), (4, 3)):
            data = b"TWHO\2\1" + bytes([kind, sockets]) + bytes(8)
            with self.assertRaisesRegex(RemoteProtocolError, f"{sockets} sockets of kind {kind}"):
                decode_packet(data)

    def test_a_long_reason_is_cut_between_characters(self) -> None:
        """The packet stays within its limit, and is valid."""
        data = encode_packet(Refused("ü" * 150 + "x"))
        self.assertLessEqual(len(data), MAX_PACKET)
        self.assertEqual(decode_packet(data), Refused("ü" * 100))


class StateTests(SynchronousTestCase):
    """The state and its bytes."""

    def test_the_bytes_are_those_of_the_page(self) -> None:
        """Three sections, each with number and size."""
        encoded = encode_state(HandoverState(b"in", b"out", b"app"))
        self.assertEqual(encoded.hex(), "0100000002696e02000000036f75740300000003617070")

    @given(st.binary(max_size=50), st.binary(max_size=50), st.binary(max_size=50))
    def test_a_state_survives_the_way(self, unread: bytes, unsent: bytes, rest: bytes) -> None:
        """The bytes of a state are that state."""
        state = HandoverState(unread, unsent, rest)
        self.assertEqual(decode_state(encode_state(state)), state)

    def test_each_kind_has_its_sections(self) -> None:
        """A listener has no bytes; a datagram socket has its adapter, and a part for each port."""
        ports = (DatagramState(), DatagramState())
        state = HandoverState(application=b"app", ports=ports, adapter=7)
        _, listener, port, datagram_socket = KINDS
        rest = "0300000003617070"
        self.assertEqual(encode_state(HandoverState(application=b"app"), listener).hex(), rest)
        part = "040000000e" + "00" * 14
        one = HandoverState(application=b"app", ports=ports[:1])
        self.assertEqual(encode_state(one, port).hex(), part + rest)
        encoded = encode_state(state, datagram_socket)
        self.assertEqual(encoded.hex(), "050000000400000007" + part + part + rest)
        self.assertEqual(decode_state(encoded, datagram_socket, 2), state)
        self.assertRaises(RemoteProtocolError, decode_state, encoded, datagram_socket, 1)
        self.assertRaises(RemoteProtocolError, decode_state, encoded, listener, 1)

    @given(st.lists(STATES, min_size=1, max_size=2), st.binary(max_size=9))
    def test_a_state_of_ports_survives_the_way(
        self, ports: list[DatagramState], application: bytes
    ) -> None:
        """The bytes of a state are that state."""
        state = HandoverState(application=application, ports=tuple(ports), adapter=3)
        encoded = encode_state(state, KINDS[3])
        self.assertEqual(decode_state(encoded, KINDS[3], len(ports)), state)

    @given(st.binary(max_size=60), st.sampled_from(KINDS))
    def test_garbage_is_refused(self, data: bytes, kind: SocketKind) -> None:
        """Bytes that are no state raise the documented error, and no other one."""
        try:
            state = decode_state(data, kind)
        except RemoteProtocolError:
            return
        self.assertEqual(encode_state(state, kind), data)

    @given(st.integers(min_value=0, max_value=20), st.binary(min_size=1, max_size=3))
    def test_a_cut_or_longer_state_is_refused(self, size: int, more: bytes) -> None:
        """Never a part of the bytes as if it were all of them."""
        encoded = encode_state(HandoverState(b"in", b"out", b""))
        self.assertRaises(RemoteProtocolError, decode_state, encoded[: min(size, 19)])
        self.assertRaises(RemoteProtocolError, decode_state, encoded + more)

    def test_a_state_above_the_limit_is_not_sent_nor_read(self) -> None:
        """Both sides have the same limit."""
        self.patch(records, "MAX_STATE", 20)
        self.assertRaises(LocalProtocolError, encode_state, HandoverState(b"123456"))
        self.assertRaises(RemoteProtocolError, decode_state, bytes(21))
        encode_state(HandoverState(b"12345"))

    def test_its_text_has_no_payload(self) -> None:
        """Payloads are never logged."""
        self.assertNotIn("secret", repr(HandoverState(b"secret")))
