"""Exactly one side continues a connection, whatever the order of the events."""

from __future__ import annotations

from dataclasses import dataclass, replace

from twisted.trial.unittest import SynchronousTestCase

from twsock.errors import LocalProtocolError
from twsock.handover.exchange import (
    GIVER_TABLE,
    TAKER_TABLE,
    GiverState,
    HandoverEvent,
    TakerState,
    follow_giver,
    follow_taker,
)

_OWN = {
    HandoverEvent.APPROVED,
    HandoverEvent.DECLINED,
    HandoverEvent.SENT,
    HandoverEvent.NOT_SENT,
}
_GIVER_ENDS = {GiverState.GIVEN, GiverState.KEPT}
_TAKER_ENDS = {TakerState.TAKEN, TakerState.EMPTY}


@dataclass(frozen=True)
class World:
    """Both sides, and what the kernel holds between them."""

    giver: GiverState | None = GiverState.OFFERED  # None: killed
    taker: TakerState | None = TakerState.WAITING
    to_giver: tuple[HandoverEvent, ...] = ()
    to_taker: tuple[HandoverEvent, ...] = (HandoverEvent.OFFER,)
    giver_reads: bool = True
    giver_closed: bool = False

    def steps(self) -> list[World]:
        """Return every world that may be next."""
        return [*self.giver_steps(), *self.taker_steps()]

    def giver_steps(self) -> list[World]:
        """Return what the giver may do, or suffer."""
        if self.giver is None or self.giver in _GIVER_ENDS:
            return []
        found = [replace(self, giver=None, giver_closed=True, giver_reads=False)]
        if self.giver is GiverState.OFFERED:
            found.append(self.read_on(HandoverEvent.DEADLINE))
        if self.to_giver:
            first, *rest = self.to_giver
            after = replace(self, to_giver=tuple(rest))
            found.append(after.at_giver(first))
        elif self.taker is None:
            found += [self.at_giver(HandoverEvent.RESET), self.at_giver(HandoverEvent.END)]
        elif not self.giver_reads or self.taker is TakerState.EMPTY:
            found.append(self.at_giver(HandoverEvent.END))
        return found

    def read_on(self, event: HandoverEvent) -> World:
        assert self.giver is not None
        return replace(self, giver=follow_giver(self.giver, event), giver_reads=False)

    def at_giver(self, event: HandoverEvent) -> World:
        assert self.giver is not None
        after = follow_giver(self.giver, event)
        said = (HandoverEvent.WITHDRAWN,) if after is GiverState.KEPT else ()
        return replace(
            self,
            giver=after,
            to_taker=self.to_taker + said,
            giver_closed=after in _GIVER_ENDS,
            giver_reads=self.giver_reads and after is not GiverState.READING_ON,
        )

    def taker_steps(self) -> list[World]:
        """Return what the taker may do, or suffer."""
        if self.taker is None or self.taker in _TAKER_ENDS:
            return []
        found = [replace(self, taker=None)]
        if self.taker is TakerState.DECIDING:
            decisions = (HandoverEvent.APPROVED, HandoverEvent.DECLINED, HandoverEvent.DEADLINE)
            decided = [follow_taker(self.taker, event) for event in decisions]
            return [*found, *(replace(self, taker=after) for after in decided)]
        if self.taker is TakerState.HELD:
            if self.giver_reads and not self.giver_closed:
                sent = (*self.to_giver, HandoverEvent.ACCEPTED)
                found.append(
                    replace(self, taker=follow_taker(self.taker, HandoverEvent.SENT), to_giver=sent)
                )
            else:
                found.append(replace(self, taker=follow_taker(self.taker, HandoverEvent.NOT_SENT)))
            return found
        found.append(replace(self, taker=follow_taker(self.taker, HandoverEvent.DEADLINE)))
        if self.to_taker:
            first, *rest = self.to_taker
            found.append(replace(self, taker=follow_taker(self.taker, first), to_taker=tuple(rest)))
        elif self.giver_closed:
            found.append(replace(self, taker=follow_taker(self.taker, HandoverEvent.END)))
        return found


class ExchangeTests(SynchronousTestCase):
    """The two tables."""

    def test_each_event_has_a_step_until_a_side_has_ended(self) -> None:
        """The other process decides what arrives, so nothing of it is an error of this one."""
        arriving = set(HandoverEvent) - _OWN
        for state in set(GiverState) - _GIVER_ENDS:
            self.assertEqual({event for one, event in GIVER_TABLE if one is state}, arriving, state)
        for taking in (TakerState.WAITING, TakerState.UNSURE):
            found = {event for one, event in TAKER_TABLE if one is taking}
            self.assertEqual(found, arriving, taking)

    def test_an_ended_side_has_no_step(self) -> None:
        """The error names the event and the state."""
        with self.assertRaisesRegex(LocalProtocolError, "deadline.*the taker owns"):
            follow_giver(GiverState.GIVEN, HandoverEvent.DEADLINE)
        with self.assertRaisesRegex(LocalProtocolError, "an offer.*has closed"):
            follow_taker(TakerState.EMPTY, HandoverEvent.OFFER)

    def test_no_order_of_events_serves_a_connection_twice_or_loses_it(self) -> None:
        """Every order, with either side killed at any point, or late."""
        seen, left, ends = {World()}, [World()], 0
        while left:
            world = left.pop()
            steps = world.steps()
            both = world.giver is GiverState.KEPT and world.taker is TakerState.TAKEN
            self.assertFalse(both, f"served twice: {world}")
            if not steps:
                ends += 1
                self.assert_not_lost(world)
            for step in steps:
                if step not in seen:
                    seen.add(step)
                    left.append(step)
        self.assertGreater(ends, 5)

    def assert_not_lost(self, world: World) -> None:
        """Somebody owns the connection, unless its owner was killed or gave up at its deadline."""
        if None in (world.giver, world.taker):
            return
        owners = (world.giver is GiverState.KEPT) + (world.taker is TakerState.TAKEN)
        self.assertEqual(owners, 1, f"{world}")
