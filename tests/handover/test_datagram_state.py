"""The part of a UDP socket in the record: literal bytes, round trips, and any garbage."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twsock.datagram import DatagramOptions
from twsock.errors import RemoteProtocolError
from twsock.handover.datagram_state import (
    OPTIONS,
    DatagramState,
    GroupMembership,
    UnreadDatagram,
    UnsentDatagram,
    decode_datagram_state,
    encode_datagram_state,
)

_INDEXES = st.integers(0, 2**32 - 1)
_PORTS = st.integers(0, 65_535)
_V4 = st.ip_addresses(v=4).map(str)
_V6 = st.ip_addresses(v=6).map(str)
_HOSTS = st.one_of(_V4, _V6, st.just("fe80::1%lo"))
_MAYBE = st.one_of(st.just(""), _HOSTS)
_NAMES = st.text(max_size=15)
_ADDRESSES: st.SearchStrategy[tuple[Any, ...]] = st.one_of(
    st.tuples(_V4, _PORTS), st.tuples(_V6, _PORTS, _INDEXES, _INDEXES)
)
_VALUES: dict[type, st.SearchStrategy[Any]] = {int: _INDEXES, bool: st.booleans(), str: _NAMES}
_GROUPS = st.builds(
    GroupMembership, _HOSTS, _NAMES, _INDEXES, st.one_of(st.none(), _HOSTS), st.booleans()
)
_UNREAD = st.builds(
    UnreadDatagram,
    st.binary(max_size=9),
    _ADDRESSES,
    _MAYBE,
    _INDEXES,
    _MAYBE,
    st.booleans(),
)
_UNSENT = st.builds(
    lambda data, size, address, source, interface: UnsentDatagram(
        data, min(size, len(data)), address, source, interface
    ),
    st.binary(max_size=9),
    st.integers(1, 9),
    st.one_of(st.none(), _ADDRESSES),
    _MAYBE,
    _INDEXES,
)
STATES = st.builds(
    DatagramState,
    st.booleans(),
    st.booleans(),
    st.fixed_dictionaries({}, optional={name: _VALUES[kind] for name, kind in OPTIONS.items()}),
    st.lists(_GROUPS, max_size=3).map(tuple),
    st.lists(_UNREAD, max_size=3).map(tuple),
    st.lists(_UNSENT, max_size=3).map(tuple),
)


class DatagramStateTests(SynchronousTestCase):
    """A `DatagramState` and its bytes."""

    def test_the_bytes_are_those_of_the_page(self) -> None:
        """See docs/wire/handover.rst."""
        state = DatagramState(
            True,
            False,
            {"max_datagram": 1200, "device": "lo"},
            (GroupMembership("224.0.0.5", "lo", 1),),
            (UnreadDatagram(b"in", ("127.0.0.1", 5000), "127.0.0.2", 1, "127.0.0.2"),),
            (UnsentDatagram(b"out", 3, ("::1", 5001, 0, 0)),),
        )
        self.assertEqual(
            encode_datagram_state(state).hex(" "),
            "01 02 02 00 00 04 b0 08 02 6c 6f "
            "00 00 00 01 09 32 32 34 2e 30 2e 30 2e 35 02 6c 6f 00 00 00 01 00 00 "
            "00 00 00 01 09 31 32 37 2e 30 2e 30 2e 31 13 88 "
            "09 31 32 37 2e 30 2e 30 2e 32 00 00 00 01 09 31 32 37 2e 30 2e 30 2e 32 00 "
            "00 02 69 6e "
            "00 00 00 01 01 03 3a 3a 31 13 89 00 00 00 00 00 00 00 00 "
            "00 00 00 00 00 00 03 00 03 6f 75 74",
        )

    @given(STATES)
    def test_a_state_survives_the_way(self, state: DatagramState) -> None:
        """The bytes of a state are that state."""
        self.assertEqual(decode_datagram_state(encode_datagram_state(state)), state)

    @given(st.one_of(st.binary(max_size=80), st.binary(max_size=40).map(b"\1\0".__add__)))
    def test_garbage_is_refused(self, data: bytes) -> None:
        """Bytes that are no state raise the documented error, and no other one."""
        try:
            state = decode_datagram_state(data)
        except RemoteProtocolError:
            return
        self.assertEqual(encode_datagram_state(state), data)

    @given(STATES, st.data())
    def test_a_changed_state_is_refused_or_another_one(
        self, state: DatagramState, data: st.DataObject
    ) -> None:
        """One byte is wrong, or bytes are missing at the end."""
        encoded = bytearray(encode_datagram_state(state))
        self.assertRaises(RemoteProtocolError, decode_datagram_state, bytes(encoded[:-1]))
        self.assertRaises(RemoteProtocolError, decode_datagram_state, bytes(encoded) + b"\0")
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
        self.test_garbage_is_refused.hypothesis.inner_test(self, bytes(encoded))  # type: ignore[attr-defined]

    def test_the_number_of_items_takes_no_memory(self) -> None:
        """The bytes that follow bound it."""
        data = b"\0\0" + b"\xff" * 4
        self.assertRaisesRegex(RemoteProtocolError, "is cut", decode_datagram_state, data)

    def test_what_no_socket_has_is_refused(self) -> None:
        """Each of these would fail later, at the first use."""
        none = bytes(4)
        for name, data in (
            ("unknown flags", b"\4\0" + 3 * none),
            ("unknown option", b"\0\1\x63" + 3 * none),
            ("an option twice", b"\0\2\0" + none + b"\0" + none + 3 * none),
            ("neither on nor off", b"\0\1\5\0\0\0\2" + 3 * none),
            ("no address", b"\0\0" + none + b"\0\0\0\1\0\0\1" + b"\0" * 9 + none),
            ("a name", b"\0\0" + b"\0\0\0\1\4name\0" + none + b"\0\0" + 2 * none),
            ("sizes", b"\0\0" + 2 * none + b"\0\0\0\1\0\0" + none + b"\0\2\0\1x"),
            ("no size", b"\0\0" + 2 * none + b"\0\0\0\1\0\0" + none + b"\0\0\0\1x"),
        ):
            self.assertRaises(RemoteProtocolError, decode_datagram_state, data)
            self.assertNotIn("is cut", _error_of(data), name)

    def test_every_option_moves(self) -> None:
        """A new option of the socket needs a place in the record."""
        fields = {one.name for one in dataclasses.fields(DatagramOptions)}
        self.assertEqual(set(OPTIONS), fields)

    def test_its_text_has_no_payload(self) -> None:
        """Payloads are never logged."""
        unread = UnreadDatagram(b"secret", ("127.0.0.1", 1))
        state = DatagramState(unread=(unread,), unsent=(UnsentDatagram(b"secret", 6),))
        self.assertNotIn("secret", repr(state))


def _error_of(data: bytes) -> str:
    try:
        decode_datagram_state(data)
    except RemoteProtocolError as error:
        return str(error)
    return ""
