"""
Writes the tables of states into docs/architecture.rst: ``python -m tests.state_tables``.

For each table, the page has two parts, each between two comments: the diagram in the docstring of
the module, and the table with the meanings of its states and events. A step that keeps the state
and does nothing is left out. `tests.test_state_tables` fails on a page that differs from the code.
"""

from __future__ import annotations

import enum
import inspect
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from twsock.datagram import sending
from twsock.restart import new_side, old_side
from twsock.services.workers import slot
from twsock.stream import closing, upgrade_core
from twsock.websocket import closing as websocket_closing

__all__ = ["PAGE", "PARTS", "Part", "render_grid", "replace_parts"]

#: The page with the tables.
PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "architecture.rst"

#: Widths of the columns of steps, in characters, by their number. A line has at most 119.
_WIDTHS: Final = {1: (74,), 2: (35, 35)}
_STATES_WIDTH: Final = 21

#: One step: the next state (None if the state stays the same), and the actions.
_Step = tuple["enum.Enum | None", tuple[enum.Enum, ...]]


@dataclass(frozen=True)
class Part:
    """
    The text of the page between two comments.

    :ivar module: has a table, and its states and events.
    :ivar what: ``states`` for the diagram, ``table`` for the table.
    :ivar render: makes the text.
    """

    module: ModuleType
    what: str
    render: Callable[[], str]

    @property
    def begin(self) -> str:
        """The line of the page above the generated text."""
        return f".. {self.what} of {self.module.__name__}, by: python -m tests.state_tables"

    @property
    def end(self) -> str:
        """The line of the page below it."""
        return f".. end of the {self.what} of {self.module.__name__}"


@dataclass(frozen=True)
class _Table:
    """
    One table.

    :ivar columns: the headings of the steps.
    :ivar steps: makes the steps of a row, one for each column.
    :ivar notes: makes further paragraphs, below the table.
    """

    module: ModuleType
    columns: tuple[str, ...]
    steps: Callable[[Any], Sequence[_Step]]
    notes: Callable[[], Iterable[str]] = tuple

    def render(self) -> str:
        return "\n\n".join(
            (
                _render_meanings("State", self.module.State),
                _render_meanings("Event", self.module.Event),
                self._render_steps(),
                *self._missing(),
                *self.notes(),
            )
        )

    def _render_steps(self) -> str:
        heading = ("Event", "In the states", *self.columns)
        groups = [(event, self._grouped(event)) for event in self.module.Event]
        rows = [
            [[event.name, states, *_cells(steps)] for states, steps in grouped]
            for event, grouped in groups
            if grouped
        ]
        event_width = max(len(event.name) for event in self.module.Event)
        widths = (event_width, _STATES_WIDTH, *_WIDTHS[len(self.columns)])
        return render_grid(heading, rows, widths)

    def _grouped(self, event: enum.Enum) -> list[tuple[str, tuple[_Step, ...]]]:
        """Return the states of an event that have the same steps, with these steps."""
        found: dict[tuple[_Step, ...], list[str]] = {}
        for state in self.module.State:
            if (state, event) in self.module.TABLE:
                steps = self.steps(self.module.TABLE[state, event])
                kept = tuple((None if to is state else to, actions) for to, actions in steps)
                found.setdefault(kept, []).append(state.name)
        return [
            (", ".join(states), steps)
            for steps, states in found.items()
            if any(step != (None, ()) for step in steps)
        ]

    def _missing(self) -> Iterator[str]:
        """List the events that have no row in some state; there they are errors of the caller."""
        missing = {
            event.name: [
                state.name for state in self.module.State if (state, event) not in self.module.TABLE
            ]
            for event in self.module.Event
        }
        lines = [f"- {event} in {', '.join(states)}" for event, states in missing.items() if states]
        yield "These raise ``LocalProtocolError``:"
        yield "\n".join(_wrapped(line, 116, "  ") for line in lines)


def _render_diagram(module: ModuleType) -> str:
    """Render the literal block below ``States::`` in a module's docstring."""
    text = inspect.getdoc(module) or ""
    block = text.partition("\nStates::\n")[2].lstrip("\n")
    lines = []
    for line in block.splitlines():
        if line and not line.startswith(" "):
            break
        lines.append(line)
    diagram = textwrap.dedent("\n".join(lines)).strip("\n")
    return f"::\n\n{textwrap.indent(diagram, '    ')}"


def _cells(steps: Sequence[_Step]) -> Iterator[str]:
    """Describe the steps of one row, once if they are the same."""
    for number, step in enumerate(steps):
        yield "the same" if number and step == steps[0] else _described(step)


def _described(step: _Step) -> str:
    state, actions = step
    parts = [] if state is None else [f"→ {state.name}"]
    parts += [str(action.value) for action in actions]
    return "; ".join(parts) or "nothing"


def _render_meanings(heading: str, members: type[enum.Enum]) -> str:
    """Render the members of an enumeration as a simple table."""
    rows = [(heading, "Meaning"), *((member.name, str(member.value)) for member in members)]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    rule = "  ".join("=" * width for width in widths)
    lines = [f"{name:{widths[0]}}  {meaning}" for name, meaning in rows]
    return "\n".join((rule, lines[0], rule, *lines[1:], rule))


def render_grid(
    heading: Sequence[str], groups: Sequence[Sequence[Sequence[str]]], widths: Sequence[int]
) -> str:
    """
    Render a grid table.

    :param groups: rows; those of one group share their first cell.
    :param widths: of the columns, in characters; longer cells are wrapped.
    """
    whole = _rule(widths, "-")
    lines = [whole, *_row_lines(heading, widths), _rule(widths, "=")]
    for group in groups:
        for number, row in enumerate(group):
            if number:
                lines.append(f"|{' ' * (widths[0] + 2)}{_rule(widths[1:], '-')}")
            lines += _row_lines(row if not number else ("", *row[1:]), widths)
        lines.append(whole)
    return "\n".join(lines)


def _rule(widths: Sequence[int], character: str) -> str:
    return f"+{'+'.join(character * (width + 2) for width in widths)}+"


def _row_lines(cells: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    wrapped = [textwrap.wrap(cell, width) for cell, width in zip(cells, widths, strict=True)]
    for number in range(max(map(len, wrapped))):
        parts = [
            f" {lines[number] if number < len(lines) else '':{width}} "
            for lines, width in zip(wrapped, widths, strict=True)
        ]
        yield f"|{'|'.join(parts)}|"


def _wrapped(text: str, width: int, indent: str = "") -> str:
    return textwrap.fill(text, width, subsequent_indent=indent, break_on_hyphens=False)


# The tables.


def _end_steps(row: closing.Row) -> Sequence[_Step]:
    return row.tcp, row.tls


def _end_notes() -> Iterator[str]:
    yield "``WHOLE`` does what TCP does, except for:"
    yield "\n".join(
        f"- {event.name} in {state.name}: {_described(row.whole)}"
        for (state, event), row in closing.TABLE.items()
        if row.whole != row.tcp
    )


def _upgrade_notes() -> Iterator[str]:
    yield "What may be delivered and sent:"
    heading = ("State", "Messages of the peer", "Bytes that the application writes")
    rows = [
        [
            state.name,
            "delivered" if upgrade_core.delivers_in(state) else "not delivered",
            str(upgrade_core.sending_in(state).value),
        ]
        for state in upgrade_core.State
    ]
    yield render_grid(heading, [[row] for row in rows], (9, 20, 35))


_TABLES: Final = (
    _Table(closing, ("TCP", "TLS"), _end_steps, _end_notes),
    _Table(upgrade_core, ("Step",), lambda row: (row,), _upgrade_notes),
    _Table(websocket_closing, ("Server", "Client"), lambda row: (row.server, row.client)),
    _Table(sending, ("Step",), lambda state: ((state, ()),)),
    _Table(old_side, ("Step",), lambda step: (step,)),
    _Table(new_side, ("Step",), lambda step: (step,)),
    _Table(slot, ("Step",), lambda row: (row,)),
)

#: The generated parts of the page.
PARTS: Final = tuple(
    part
    for table in _TABLES
    for part in (
        Part(table.module, "states", partial(_render_diagram, table.module)),
        Part(table.module, "table", table.render),
    )
)


def replace_parts(text: str) -> str:
    """
    Return the page with its generated parts made anew.

    :raises ValueError: when the page has not both comments of each part.
    """
    for part in PARTS:
        before, begin, rest = text.partition(f"{part.begin}\n")
        _, end, after = rest.partition(f"{part.end}\n")
        if not (begin and end):
            raise ValueError(f"the page has no {part.what} of {part.module.__name__}")
        text = f"{before}{begin}\n{part.render()}\n\n{end}{after}"
    return text


if __name__ == "__main__":
    PAGE.write_text(replace_parts(PAGE.read_text("utf-8")), "utf-8")
