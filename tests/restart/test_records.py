"""The format of a restart: literal bytes, round trips, and any garbage."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twsock.errors import LocalProtocolError, RemoteProtocolError
from twsock.restart.records import (
    MAX_NAME,
    MAX_RESTART_PACKET,
    ConnectionOffer,
    Farewell,
    Listed,
    Moved,
    Ready,
    Restarted,
    RestartFailed,
    RestartPacket,
    RestartRefused,
    SharedSocket,
    TakeOver,
    Watch,
    Watching,
    decode_restart,
    encode_restart,
)

_NUMBERS = st.integers(min_value=0, max_value=2**32 - 1)
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
PACKETS: st.SearchStrategy[RestartPacket] = st.one_of(
    *(_NUMBERS.map(kind) for kind in (TakeOver, Listed, Watching, Restarted)),
    *(_TEXTS.map(kind) for kind in (RestartRefused, RestartFailed)),
    *(_TEXTS.filter(bool).map(kind) for kind in (SharedSocket, ConnectionOffer)),
    *(st.just(kind()) for kind in (Ready, Farewell, Watch)),
    st.builds(Moved, _NUMBERS, _NUMBERS),
)


class PacketTests(SynchronousTestCase):
    """Packets and their bytes."""

    def test_the_bytes_are_those_of_the_page(self) -> None:
        """See docs/wire/restart.rst."""
        packets: dict[str, RestartPacket] = {
            "01 00001234": TakeOver(0x1234),
            "02 7564703a61": SharedSocket("udp:a"),
            "03 00000002": Listed(2),
            "04 6e6f": RestartRefused("no"),
            "05": Ready(),
            "06 41": ConnectionOffer("A"),
            "07 00000003 00000004": Moved(3, 4),
            "08": Farewell(),
            "09": Watch(),
            "0a 00001234": Watching(0x1234),
            "0b 00001235": Restarted(0x1235),
            "0c 6e6f": RestartFailed("no"),
        }
        for expected, packet in packets.items():
            data = bytes.fromhex(f"54575245 01 {expected}")
            self.assertEqual(encode_restart(packet), data, f"{packet}")

    @given(PACKETS)
    def test_a_packet_survives_the_way(self, packet: RestartPacket) -> None:
        """The bytes of a packet are that packet, and within the limit."""
        data = encode_restart(packet)
        self.assertLessEqual(len(data), MAX_RESTART_PACKET)
        self.assertEqual(decode_restart(data), packet)

    @given(st.one_of(st.binary(max_size=300), st.binary(max_size=20).map(b"TWRE\1".__add__)))
    def test_garbage_is_refused(self, data: bytes) -> None:
        """Bytes that are no packet raise the documented error, and no other one."""
        try:
            packet = decode_restart(data)
        except RemoteProtocolError:
            return
        self.assertEqual(encode_restart(packet), data)

    @given(PACKETS, st.integers(min_value=0, max_value=13))
    def test_a_cut_packet_is_another_one_or_refused(self, packet: RestartPacket, size: int) -> None:
        """A part of a number is never read as a number."""
        data = encode_restart(packet)
        if size >= len(data):
            return
        try:
            cut = decode_restart(data[:size])
        except RemoteProtocolError:
            return
        self.assertIs(type(cut), type(packet))
        self.assertIsInstance(cut, (RestartRefused, RestartFailed, SharedSocket, ConnectionOffer))

    def test_another_version_is_named(self) -> None:
        """Both numbers are in the message."""
        with self.assertRaisesRegex(RemoteProtocolError, "version 9 of the restart, this one 1"):
            decode_restart(b"TWRE\x09\x02")

    def test_a_long_reason_is_cut_between_characters(self) -> None:
        """The packet stays within its limit, and is valid."""
        for kind in (RestartRefused, RestartFailed):
            data = encode_restart(kind("x" + "ü" * 150))
            self.assertEqual(decode_restart(data), kind("x" + "ü" * 99))

    def test_a_reason_above_the_limit_is_refused(self) -> None:
        """Our own side sends none."""
        decode_restart(b"TWRE\1\4" + b"x" * 200)
        with self.assertRaisesRegex(RemoteProtocolError, "RestartRefused cannot have 201 bytes"):
            decode_restart(b"TWRE\1\4" + b"x" * 201)

    def test_a_name_has_bounds_on_both_sides(self) -> None:
        """A name is never cut: the cut name would be that of another socket."""
        decode_restart(encode_restart(SharedSocket("x" * MAX_NAME)))
        for kind in (SharedSocket, ConnectionOffer):
            for text in ("", "x" * (MAX_NAME + 1)):
                with self.assertRaisesRegex(LocalProtocolError, "1 to 240 bytes"):
                    encode_restart(kind(text))
        self.assertRaises(RemoteProtocolError, decode_restart, b"TWRE\1\2")
        self.assertRaises(RemoteProtocolError, decode_restart, b"TWRE\1\2" + b"x" * 241)

    def test_a_number_that_does_not_fit_is_an_error_of_the_caller(self) -> None:
        """It is named."""
        for packet in (TakeOver(-1), Listed(2**32), Moved(0, 2**32)):
            with self.assertRaisesRegex(LocalProtocolError, "does not fit"):
                encode_restart(packet)
