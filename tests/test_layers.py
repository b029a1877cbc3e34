"""
Imports point down: from the doors over the services to the wire and the ground.

The contracts in ``pyproject.toml`` are the one list of the rooms and of what they may not know.
import-linter checks them too, across several steps; this check needs nothing installed, and adds
what a contract cannot say: that the package's own top is for its users, and that the errors need
the standard library only.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "twsock"
#: The module that everything may import, so it may ask for nothing that is not always there.
GROUND = "twsock.errors"


@dataclass(frozen=True, slots=True)
class House:
    """The rooms in their order and what is forbidden in them."""

    #: Room → (floor, shut): 0 is the ground; who is in a shut room does not know its neighbours.
    rooms: dict[str, tuple[int, bool]]
    #: Module or package of ours → the packages it may not import.
    forbidden: dict[str, set[str]] = field(default_factory=dict)

    def objections(self, module: str, imported: str) -> Iterator[str]:
        """Say what is wrong when one module imports another, both with their full names."""
        for place, packages in self.forbidden.items():
            if is_within(module, place) and any(is_within(imported, name) for name in packages):
                yield f"{module} imports {imported}, which is forbidden in {place}"
        if module == GROUND and imported.split(".")[0] not in sys.stdlib_module_names:
            yield f"{module} imports {imported}, which is not in the standard library"
        if is_within(imported, PACKAGE) and module != PACKAGE:
            yield from self._wrong_direction(module, imported)

    def _wrong_direction(self, module: str, imported: str) -> Iterator[str]:
        here, there = room_of(module), room_of(imported)
        missing = [room for room in (here, there) if room not in self.rooms]
        if missing:
            yield f"{module} imports {imported}: {missing[0] or 'the top'} is no room of the house"
        elif here != there:
            (floor, _), (other, shut) = self.rooms[here], self.rooms[there]
            if other > floor:
                yield f"{module} imports {imported}, which is above it"
            elif other == floor and shut:
                yield f"{module} imports {imported}, which is beside it"


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def room_of(module: str) -> str:
    """Give the first name below the package; empty for the package itself."""
    return module.partition(".")[2].partition(".")[0]


def read_house() -> House:
    """Read the contracts of import-linter."""
    settings: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    rooms: dict[str, tuple[int, bool]] = {}
    forbidden: dict[str, set[str]] = {}
    for contract in settings["tool"]["importlinter"]["contracts"]:
        if contract["type"] == "layers":
            for floor, layer in enumerate(reversed(contract["layers"])):
                names = layer.replace("|", ":").split(":")
                rooms |= {name.strip(" ()"): (floor, ":" not in layer) for name in names}
        else:
            for place in contract["source_modules"]:
                forbidden.setdefault(place, set()).update(contract["forbidden_modules"])
    return House(rooms, forbidden)


def imports_of(source: str, rooms: set[str]) -> Iterator[str]:
    """Give the full name of each module that a source text imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            name = "." * node.level + (node.module or "")
            if name == PACKAGE:
                # `from twsock import errors` is of a room, `… import SocketError` of the top.
                for alias in node.names:
                    yield f"{PACKAGE}.{alias.name}" if alias.name in rooms else PACKAGE
            else:
                yield name


def check(house: House, module: str, source: str) -> list[str]:
    """List what is wrong with the imports of one module."""
    found = []
    for imported in imports_of(source, set(house.rooms)):
        if imported.startswith("."):
            found.append(f"{module} imports {imported}, whose full name is to be written")
        else:
            found.extend(house.objections(module, imported))
    return found


def modules() -> Iterator[tuple[str, Path]]:
    """Give the name and the file of each module of the package."""
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


class LayersTests(SynchronousTestCase):
    """The modules of this checkout."""

    def test_every_import_points_down(self) -> None:
        """No module imports what is above it, beside it in a shut room, or forbidden to it."""
        house = read_house()
        found = [line for name, path in modules() for line in check(house, name, path.read_text())]
        self.assertEqual(found, [])

    def test_every_room_has_a_floor(self) -> None:
        """Whatever lies in the package is a room in the contract."""
        rooms = {room_of(name) for name, _ in modules()} - {""}
        self.assertEqual(rooms - set(read_house().rooms), set())

    def test_plugins_only_name_what_they_open(self) -> None:
        """A file in ``twisted/plugins`` imports classes of Twisted's and nothing of ours."""
        for path in (ROOT / "twisted" / "plugins").glob("twsock_*.py"):
            for imported in imports_of(path.read_text(), set()):
                self.assertTrue(imported.startswith("twisted.application."), f"{path}: {imported}")


class CheckTests(SynchronousTestCase):
    """The check finds what it is for."""

    def assert_objects(self, module: str, source: str, reason: str) -> None:
        (objection,) = check(read_house(), module, source)
        self.assertIn(reason, objection)

    def test_imports_that_point_down_are_fine(self) -> None:
        """A room may use what is below it and its own modules, and may leave floors out."""
        source = "import twisted\nfrom twsock.wire import frames\nfrom twsock.stream import echo"
        self.assertEqual(check(read_house(), "twsock.protocols.planted", source), [])

    def test_the_package_may_offer_what_it_holds(self) -> None:
        """``twsock/__init__.py`` itself stands above all."""
        self.assertEqual(check(read_house(), "twsock", "from twsock.services import stream"), [])

    def test_an_import_from_above_is_found(self) -> None:
        """The addresses may not know the protocols."""
        source = "from twsock.stream.echo import FrameEcho"
        self.assert_objects("twsock.ip.planted", source, "above it")

    def test_an_import_inside_a_function_is_found(self) -> None:
        """Hiding an import does not turn it around."""
        source = "def planted():\n    import twsock.cli"
        self.assert_objects("twsock.wire.planted", source, "above it")

    def test_an_import_from_beside_is_found(self) -> None:
        """The services and the client don't know of each other, nor do streams and datagrams."""
        self.assert_objects("twsock.services.planted", "import twsock.cli.echo", "beside it")
        self.assert_objects("twsock.stream.planted", "from twsock import datagram", "beside it")
        self.assert_objects("twsock.datagram.planted", "import twsock.stream.drain", "beside it")

    def test_an_import_from_the_top_is_found(self) -> None:
        """Our own modules import a name from where it is defined, as the top imports them."""
        source = "from twsock import SocketError"
        self.assert_objects("twsock.wire.planted", source, "no room")

    def test_an_unknown_room_is_found(self) -> None:
        """A package that has no place in the contract may not import, nor be imported."""
        self.assert_objects("twsock.attic.planted", "import twsock.wire", "attic is no room")

    def test_a_relative_import_is_found(self) -> None:
        """A relative import does not say where it points."""
        self.assert_objects("twsock.wire.planted", "from . import frames", "full name")

    def test_input_and_output_in_the_wire_formats_is_found(self) -> None:
        """Sockets, clocks, chance and Twisted are forbidden to the wire formats."""
        for source in (
            "import socket",
            "from time import time",
            "from twisted.internet import defer",
        ):
            self.assert_objects("twsock.wire.planted", source, "forbidden in twsock.wire")

    def test_a_third_package_in_the_errors_is_found(self) -> None:
        """The errors import the standard library only."""
        self.assert_objects(GROUND, "import sortedcontainers", "not in the standard library")
