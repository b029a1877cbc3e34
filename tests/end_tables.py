"""What the tables of ends of streams and of WebSockets have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

__all__ = ["EndTableContract"]


class EndTableContract:
    """
    Claims about a table of ends; a test case with it has the table.

    :cvar table: the row of each state and event; a row has the steps of each variant.
    :cvar outside: the events of the peer, the kernel, handlers and the clock.
    :cvar progress: how far each state is from the first. The first and the last state have a number
        of their own.
    """

    table: ClassVar[Mapping[tuple[Any, Any], Any]]
    outside: ClassVar[list[Any]]
    progress: ClassVar[Mapping[Any, int]]

    def test_each_state_has_a_place(self: Any) -> None:
        """The numbers are for every member of the enumeration."""
        states: Any = type(next(iter(self.table))[0])
        self.assertEqual(set(states), set(self.progress))

    def test_events_from_outside_have_a_row_in_every_state(self: Any) -> None:
        """Each of these events has a step."""
        missing = [
            f"{state.name} {event.name}"
            for state in self.progress
            for event in self.outside
            if (state, event) not in self.table
        ]
        self.assertEqual(missing, [])

    def test_no_step_leads_back(self: Any) -> None:
        """What has ended stays ended."""
        for (state, event), row in self.table.items():
            for target in targets(row):
                self.assertLessEqual(
                    self.progress[state], self.progress[target], f"{state.name}, {event.name}"
                )

    def test_every_state_is_reached_and_left(self: Any) -> None:
        """A step leads into each state but the first, and out of each but the last."""
        steps = {
            (state, target) for (state, _), row in self.table.items() for target in targets(row)
        }
        first = min(self.progress, key=self.progress.__getitem__)
        last = max(self.progress, key=self.progress.__getitem__)
        for state in self.progress:
            into = [source for source, target in steps if target is state is not source]
            out = [target for source, target in steps if source is state is not target]
            self.assertEqual(bool(into), state is not first, state.name)
            self.assertEqual(bool(out), state is not last, state.name)


def targets(row: Any) -> list[Any]:
    """Return the states to which the steps of a row lead."""
    return [step.state for step in row]
