"""
Scenarios for the rows of `twsock.stream.closing`, each over TCP, TLS 1.2, TLS 1.3 and an upgrade.

A test is a conversation between a socket or a protocol of twsock and a `RawPeer`. It declares the
rows that the connection passes. What the test asserts is visible from outside: the application's
events, and what the peer's kernel receives. In addition, the calls of `follow` are recorded while
the conversation runs, so a declared row that was not passed fails the test.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred, DeferredList

from tests.loopback.closing_ends import NEVER, connect_protocol, connect_socket
from tests.loopback.contract import OnEveryReactor
from tests.loopback.raw_peer import End, Rest, Security
from tests.loopback.reactors import VARIANT_REACTORS
from twsock.stream.closing import TABLE, Carrier, Event, State, follow

__all__ = [
    "ALL",
    "ENCRYPTED",
    "PLAIN",
    "SCENARIOS",
    "SOON",
    "Row",
    "RowTests",
    "column",
    "followed",
    "is_trivial",
    "over",
    "row",
    "with_protocol",
    "with_socket",
]

ALL: Final = tuple(Security)
PLAIN: Final = (Security.PLAIN,)
ENCRYPTED: Final = tuple(security for security in Security if security.is_encrypted)

#: A deadline that a test waits for, in seconds.
SOON: Final = 0.1

Row = tuple[State, Event]

#: The tests of each row over each kind of connection.
SCENARIOS: Final[dict[tuple[State, Event, Security], list[str]]] = {}

#: A scenario; its decorator determines its arguments after the test.
Scenario = Callable[..., Coroutine[Any, Any, None]]
Test = Callable[["RowTests"], None]
_Scenario = TypeVar("_Scenario", bound=Scenario)


def is_trivial(state: State, event: Event, security: Security) -> bool:
    """Return whether a row keeps the state and has no action, or does not exist."""
    row = TABLE.get((state, event))
    if row is None:
        return True
    step = row[column(security, event)]
    return step.state is state and not step.actions


def column(security: Security, event: Event) -> Carrier:
    """Return the column of the table for an event of a connection."""
    is_held = event in (Event.CLOSE_HELD, Event.CLOSE_SILENT)
    # During its handshake a connection is still above the transport below TLS.
    return Carrier.TLS if security.is_encrypted and not is_held else Carrier.TCP


def row(
    state: State, event: Event, over: Iterable[Security] = ALL
) -> Callable[[_Scenario], _Scenario]:
    """
    Declare that a scenario passes a row.

    :param over: the kinds of connections with which it does.
    """

    def declare(scenario: _Scenario) -> _Scenario:
        rows = vars(scenario).setdefault("rows", [])
        rows += [(state, event, security) for security in over]
        return scenario

    return declare


def over(*securities: Security) -> Callable[[Scenario], Test]:
    """
    Make a test of a scenario, which is run once over each of these kinds of connection.

    The scenario gets the reactor and the kind.
    """

    def decorate(scenario: Scenario) -> Test:
        rows = [each for each in vars(scenario).get("rows", ()) if each[2] in securities]
        for each in rows:
            SCENARIOS.setdefault(each, []).append(scenario.__qualname__)

        def test(self: RowTests) -> None:
            self.run_scenario(scenario, securities, rows)

        test.__name__, test.__doc__ = scenario.__name__, scenario.__doc__
        return test

    return decorate


def with_socket(
    over: Iterable[Security] = ALL, close_timeout: float = NEVER
) -> Callable[[Scenario], Test]:
    """Make a test of a scenario; its arguments are a socket and the peer."""
    return _between(connect_socket, over, close_timeout)


def with_protocol(
    over: Iterable[Security] = ALL, close_timeout: float = NEVER, *, is_narrow: bool = False
) -> Callable[[Scenario], Test]:
    """
    Make a test of a scenario, which gets a `Recorder` and its peer.

    :param is_narrow: whether the peer's kernel has room for a few kilobytes only.
    """
    return _between(connect_protocol, over, close_timeout, is_narrow)


def _between(
    connect_ends: Callable[..., Any], securities: Iterable[Security], *settings: object
) -> Callable[[Scenario], Test]:
    def decorate(scenario: Scenario) -> Test:
        @functools.wraps(scenario)
        async def converse(self: RowTests, reactor: Any, security: Security) -> None:
            near, peer = await connect_ends(reactor, security, *settings)
            with closing(peer):
                try:
                    await scenario(self, near, peer)
                finally:
                    await near.abort()

        return over(*securities)(converse)

    return decorate


class RowTests(OnEveryReactor):
    """Runs the scenarios of a test at the same time, since some wait for a deadline."""

    _reactors = VARIANT_REACTORS

    def run_scenario(
        self,
        scenario: Scenario,
        securities: Iterable[Security],
        rows: Iterable[tuple[State, Event, Security]],
    ) -> None:
        """Run a scenario over each kind of connection; require that it passed its rows."""

        async def work(reactor: Any) -> None:
            runs = [
                Deferred.fromCoroutine(scenario(self, reactor, security)) for security in securities
            ]
            results: Any = await DeferredList(runs, consumeErrors=True)
            for security, (has_succeeded, result) in zip(securities, results, strict=True):
                if not has_succeeded:
                    error = result.value
                    raise AssertionError(f"over {security.value}: {error!r}") from error

        with followed() as passed:
            self.conduct(work)
        missing = [
            f"{state.name} {event.name} over {security.value}"
            for state, event, security in rows
            if (state, event, column(security, event)) not in passed
        ]
        self.assertEqual(missing, [], "rows that the scenario did not pass")

    def assert_received(self, rest: Rest, data: bytes, *ends: End) -> None:
        """Require the bytes that a peer received; many bytes are not printed."""
        self.assertEqual(rest.ends, ends)
        self.assertEqual(len(rest.data), len(data))
        self.assertTrue(rest.data == data, "other bytes than were sent")


@contextmanager
def followed() -> Iterator[set[tuple[State, Event, Carrier]]]:
    """Record the rows that are looked up."""
    passed: set[tuple[State, Event, Carrier]] = set()

    def note(frame: Any, event: str, _argument: object) -> None:
        if event == "call" and frame.f_code is follow.__code__:
            asked = frame.f_locals
            passed.add((asked["state"], asked["event"], asked["carrier"]))

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield passed
    finally:
        sys.setprofile(before)
