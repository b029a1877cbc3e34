"""Messages between the parent and a worker."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twsock.errors import LocalProtocolError, RemoteProtocolError
from twsock.services.measurements import Kind, Measurement
from twsock.services.workers.messages import (
    MAX_FAILURE,
    MAX_MESSAGE,
    WorkerCommand,
    WorkerFailed,
    WorkerMeasured,
    WorkerReady,
    WorkerReport,
    encode_command,
    encode_report,
    parse_command,
    parse_report,
)

_MEASUREMENTS = st.builds(
    Measurement,
    name=st.text(max_size=9),
    meaning=st.text(max_size=9),
    kind=st.sampled_from(Kind),
    labels=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
    value=st.integers(0, 2**63) | st.floats(allow_nan=False, allow_infinity=False),
    suffix=st.text(max_size=5),
)
_REPORTS: st.SearchStrategy[WorkerReport] = (
    st.just(WorkerReady())
    | st.builds(WorkerFailed, st.text(max_size=20))
    | st.builds(WorkerMeasured, st.lists(_MEASUREMENTS, max_size=3).map(tuple), st.booleans())
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=20,
)


class CommandTests(SynchronousTestCase):
    """The lines of a parent."""

    def test_commands_are_lines_of_json(self) -> None:
        """A person can read them in a trace."""
        self.assertEqual(encode_command(WorkerCommand.MEASURE), b'{"command":"measure"}\n')

    def test_every_command_arrives(self) -> None:
        """The line without its ending is parsed."""
        for command in WorkerCommand:
            self.assertIs(parse_command(encode_command(command)[:-1]), command)

    @given(st.binary(max_size=50) | _JSON.map(lambda value: json.dumps(value).encode()))
    def test_any_other_line_is_refused(self, line: bytes) -> None:
        """No other error escapes."""
        self.assertRaises(RemoteProtocolError, parse_command, line)


class ReportTests(SynchronousTestCase):
    """The lines of a worker."""

    @given(_REPORTS)
    def test_every_report_arrives(self, report: WorkerReport) -> None:
        """In one line."""
        line = encode_report(report)
        self.assertEqual(line.count(b"\n"), 1)
        self.assertEqual(parse_report(line[:-1]), report)

    def test_a_long_reason_is_cut(self) -> None:
        """By the worker, and by the parent."""
        failed = WorkerFailed("x" * MAX_FAILURE)
        self.assertEqual(parse_report(encode_report(WorkerFailed("x" * 2000))), failed)
        line = json.dumps({"report": "failed", "reason": "x" * 2000}).encode()
        self.assertEqual(parse_report(line), failed)

    def test_too_many_numbers_are_an_error_of_the_worker(self) -> None:
        """The parent could not receive the line."""
        many = (Measurement("name", "x" * 1000, Kind.GAUGE, {}, 0),) * (MAX_MESSAGE // 1000)
        error = self.assertRaises(LocalProtocolError, encode_report, WorkerMeasured(many, True))
        self.assertIn(f"limit {MAX_MESSAGE}", str(error))

    @given(
        st.binary(max_size=50)
        | st.builds(
            lambda kind, values, is_final: json.dumps(
                {"report": kind, "reason": values, "values": values, "is_final": is_final}
            ).encode(),
            st.sampled_from(["ready", "failed", "measured", 1]) | _JSON,
            _JSON | st.lists(st.lists(_JSON, min_size=6, max_size=6), max_size=2),
            st.booleans() | _JSON,
        )
    )
    def test_any_line_is_a_report_or_refused(self, line: bytes) -> None:
        """No other error escapes."""
        try:
            report = parse_report(line)
        except RemoteProtocolError:
            return
        self.assertEqual(parse_report(encode_report(report)), report)

    def test_members_of_a_wrong_type_are_refused(self) -> None:
        """The error says which."""
        good = ["n", "", "counter", "m", {"l": "v"}, 1]
        for position, wrong, said in (
            (0, 1, "text"), (1, None, "text"), (2, "x", "kind"), (2, [], "kind"), (3, [], "text"),
            (4, [], "labels"), (4, {"l": 1}, "text"), (5, "1", "number"), (5, True, "number"),
            (5, 10**400, "number"),
        ):  # fmt: skip
            values = [[*good[:position], wrong, *good[position + 1 :]]]
            line = json.dumps({"report": "measured", "is_final": True, "values": values})
            error = self.assertRaises(RemoteProtocolError, parse_report, line.encode())
            self.assertIn(said, str(error), line)

    def test_numbers_that_are_not_finite_are_refused(self) -> None:
        """A sum with them would stay wrong for ever."""
        for word in ("NaN", "Infinity", "-Infinity", "1e999"):
            line = (
                f'{{"report":"measured","is_final":true,"values":[["","","gauge","",{{}},{word}]]}}'
            )
            error = self.assertRaises(RemoteProtocolError, parse_report, line.encode())
            self.assertIn("number", str(error), word)

    def test_deep_nesting_is_refused(self) -> None:
        """As the parser of Python fails."""
        self.assertRaises(RemoteProtocolError, parse_report, b"[" * 200_000)
