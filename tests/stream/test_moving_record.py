"""The record of a connection that moves: literal bytes, round trips, and any garbage."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twsock.errors import LocalProtocolError, RemoteProtocolError
from twsock.stream.moving_record import (
    MAX_EXPORTED,
    MovingRecord,
    decode_record,
    encode_record,
)
from twsock.wire.proxy_header import ProxyHeader

#: All that a record can have.
FULL = MovingRecord(
    "app.Echo",
    "tcp:127.0.0.1:7",
    b"state",
    ProxyHeader(("192.0.2.1", 56324), b"/run/echo", is_datagram=True),
    is_stalled=True,
    age=1.5,
    idle=0.25,
    messages=2,
    received=258,
    sent=65536,
)

_NUMBERS = st.integers(min_value=0, max_value=2**64 - 1)
_SECONDS = st.integers(min_value=0, max_value=2**30).map(lambda count: count / 4)
_ADDRESSES = st.one_of(
    st.none(),
    st.binary(max_size=108),
    st.tuples(st.ip_addresses().map(str), st.integers(min_value=0, max_value=65_535)),
)
RECORDS = st.builds(
    MovingRecord,
    st.text(max_size=40),
    st.text(max_size=40),
    st.binary(max_size=40),
    st.none() | st.builds(ProxyHeader, _ADDRESSES, _ADDRESSES, st.booleans()),
    st.booleans(),
    st.none() | _SECONDS,
    _SECONDS,
    _NUMBERS,
    _NUMBERS,
    _NUMBERS,
)


class MovingRecordTests(SynchronousTestCase):
    """Records and their bytes."""

    def test_the_bytes_are_those_of_the_page(self) -> None:
        """See docs/wire/handover.rst."""
        self.assertEqual(
            encode_record(FULL).hex(" "),
            "01 0f 00 00 00 00 00 16 e3 60 00 00 00 00 00 03 d0 90 "
            "00 00 00 00 00 00 00 02 00 00 00 00 00 00 01 02 00 00 00 00 00 01 00 00 "
            "00 00 00 08 61 70 70 2e 45 63 68 6f "
            "00 00 00 0f 74 63 70 3a 31 32 37 2e 30 2e 30 2e 31 3a 37 "
            "01 00 00 00 09 31 39 32 2e 30 2e 32 2e 31 dc 04 "
            "02 00 00 00 09 2f 72 75 6e 2f 65 63 68 6f "
            "00 00 00 05 73 74 61 74 65",
        )

    @given(RECORDS)
    def test_a_record_survives_the_way(self, record: MovingRecord) -> None:
        """The bytes of a record are that record."""
        self.assertEqual(decode_record(encode_record(record)), record)

    @given(st.one_of(st.binary(max_size=100), st.binary(max_size=100).map(b"\1".__add__)))
    def test_garbage_is_refused(self, data: bytes) -> None:
        """Bytes that are no record raise the documented error, and no other one."""
        try:
            record = decode_record(data)
        except RemoteProtocolError:
            return
        self.assertEqual(decode_record(encode_record(record)).state, record.state)

    @given(st.integers(min_value=0), st.binary(min_size=1, max_size=4))
    def test_a_damaged_record_raises_the_documented_error(self, where: int, what: bytes) -> None:
        """Or is another record."""
        whole = encode_record(FULL)
        start = where % len(whole)
        damaged = whole[:start] + what + whole[start + len(what) :]
        try:
            decode_record(damaged)
        except RemoteProtocolError:
            return

    def test_a_cut_record_is_refused(self) -> None:
        """Wherever it is cut; and one that is too long."""
        whole = encode_record(FULL)
        for end in range(len(whole)):
            with self.assertRaises(RemoteProtocolError, msg=f"cut at {end}"):
                decode_record(whole[:end])
        self.assertRaisesRegex(RemoteProtocolError, "1 bytes follow", decode_record, whole + b"\0")

    def test_another_version_is_named(self) -> None:
        """Both numbers are in the message."""
        with self.assertRaisesRegex(RemoteProtocolError, "version 2, this process has 1"):
            decode_record(b"\2" + encode_record(FULL)[1:])

    def test_an_address_that_is_none_is_refused(self) -> None:
        """It would be an error in the log and in the limits of addresses."""
        whole = encode_record(FULL).replace(b"192.0.2.1", b"192.0.2.x")
        self.assertRaisesRegex(RemoteProtocolError, "192.0.2.x", decode_record, whole)

    def test_a_flag_that_is_unknown_is_refused(self) -> None:
        """Another version gave it a meaning."""
        for flags in (0x10, 0x08):
            with self.assertRaisesRegex(RemoteProtocolError, f"flags {flags:#x}"):
                decode_record(b"\1" + bytes([flags]) + encode_record(FULL)[2:])

    def test_a_state_above_the_limit_is_refused_on_both_sides(self) -> None:
        """The largest state is accepted."""
        largest = replace(FULL, state=bytes(MAX_EXPORTED))
        encoded = encode_record(largest)
        self.assertEqual(decode_record(encoded), largest)
        self.assertRaisesRegex(
            LocalProtocolError,
            "65537 bytes, limit is 65536",
            encode_record,
            replace(FULL, state=bytes(MAX_EXPORTED + 1)),
        )
        longer = encoded[: -MAX_EXPORTED - 4] + (MAX_EXPORTED + 1).to_bytes(4, "big")
        with self.assertRaisesRegex(RemoteProtocolError, "65537 bytes, limit is 65536"):
            decode_record(longer + bytes(MAX_EXPORTED + 1))

    def test_a_name_that_is_too_long_is_refused(self) -> None:
        """By the process that has the connection."""
        self.assertRaises(LocalProtocolError, encode_record, replace(FULL, protocol="x" * 1025))
