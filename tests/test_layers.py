"""
Imports point down: plugins and client, services, sockets, streams and datagrams, wire, errors.

The import contracts in ``pyproject.toml`` list the layers and the forbidden imports. import-linter
checks them too, also for indirect imports. This check needs no installed tool. It adds two rules
that a contract cannot express: no module imports from ``twsock/__init__.py``, which is for users,
and `twsock.errors` imports the standard library only.
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
#: The lowest package: every module may import it, so it imports the standard library only.
LOWEST = "twsock.errors"


@dataclass(frozen=True, slots=True)
class Contracts:
    """The layers of the package, and the forbidden imports."""

    #: Package or module → (layer, whether it is independent). Layer 0 is the lowest. Independent
    #: members of one layer do not import each other.
    layers: dict[str, tuple[int, bool]]
    #: Module or package of ours → the packages that it may not import.
    forbidden: dict[str, set[str]] = field(default_factory=dict)

    def objections(self, module: str, imported: str) -> Iterator[str]:
        """Return the rules that an import breaks; both modules with their full names."""
        for place, packages in self.forbidden.items():
            if is_within(module, place) and any(is_within(imported, name) for name in packages):
                yield f"{module} imports {imported}, which is forbidden in {place}"
        if is_within(module, LOWEST) and imported.split(".")[0] not in {
            *sys.stdlib_module_names,
            PACKAGE,
        }:
            yield f"{module} imports {imported}, which is not in the standard library"
        if is_within(imported, PACKAGE) and module != PACKAGE:
            yield from self._wrong_direction(module, imported)

    def _wrong_direction(self, module: str, imported: str) -> Iterator[str]:
        here, there = top_package(module), top_package(imported)
        missing = [name for name in (here, there) if name not in self.layers]
        if missing:
            yield f"{module} imports {imported}: {missing[0] or PACKAGE} is in no layer"
        elif here != there:
            (layer, _), (other, is_independent) = self.layers[here], self.layers[there]
            if other > layer:
                yield f"{module} imports {imported}, which is above it"
            elif other == layer and is_independent:
                yield f"{module} imports {imported}, which is beside it"


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def top_package(module: str) -> str:
    """Return the first name below ``twsock``; empty for ``twsock`` itself."""
    return module.partition(".")[2].partition(".")[0]


def read_contracts() -> Contracts:
    """Read the contracts of import-linter."""
    settings: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    layers: dict[str, tuple[int, bool]] = {}
    forbidden: dict[str, set[str]] = {}
    for contract in settings["tool"]["importlinter"]["contracts"]:
        if contract["type"] == "layers":
            for height, layer in enumerate(reversed(contract["layers"])):
                names = layer.replace("|", ":").split(":")
                layers |= {name.strip(" ()"): (height, ":" not in layer) for name in names}
        else:
            for place in contract["source_modules"]:
                forbidden.setdefault(place, set()).update(contract["forbidden_modules"])
    return Contracts(layers, forbidden)


def imports_of(source: str, packages: set[str]) -> Iterator[str]:
    """
    Return the full name of each module that a source text imports, also inside functions.

    :param packages: the packages and modules directly below ``twsock``.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            name = "." * node.level + (node.module or "")
            if name == PACKAGE:
                # `from twsock import errors` imports a module, `… import SocketError` a name.
                for alias in node.names:
                    yield f"{PACKAGE}.{alias.name}" if alias.name in packages else PACKAGE
            else:
                yield name


def check(contracts: Contracts, module: str, source: str) -> list[str]:
    """List the rules that the imports of one module break."""
    found = []
    for imported in imports_of(source, set(contracts.layers)):
        if imported.startswith("."):
            found.append(f"{module} imports {imported}, which is not a full name")
        else:
            found.extend(contracts.objections(module, imported))
    return found


def modules() -> Iterator[tuple[str, Path]]:
    """Return the name and the file of each module of the package."""
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


class LayersTests(SynchronousTestCase):
    """The modules of this checkout."""

    def test_every_import_points_down(self) -> None:
        """No module imports a module above it, an independent one beside it, or a forbidden one."""
        contracts = read_contracts()
        found = [
            line for name, path in modules() for line in check(contracts, name, path.read_text())
        ]
        self.assertEqual(found, [])

    def test_every_package_has_a_layer(self) -> None:
        """The contract lists each package and module directly below ``twsock``."""
        packages = {top_package(name) for name, _ in modules()} - {""}
        self.assertEqual(packages - set(read_contracts().layers), set())

    def test_plugins_import_twisted_only(self) -> None:
        """A file in ``twisted/plugins`` imports classes of Twisted and no module of twsock."""
        for path in (ROOT / "twisted" / "plugins").glob("twsock_*.py"):
            for imported in imports_of(path.read_text(), set()):
                self.assertTrue(imported.startswith("twisted.application."), f"{path}: {imported}")


class CheckTests(SynchronousTestCase):
    """The check finds each kind of forbidden import, and accepts the others."""

    def assert_objects(self, module: str, source: str, reason: str) -> None:
        objections = check(read_contracts(), module, source)
        self.assertEqual(len(objections), 1, f"{module=}, {source=}, {objections=}")
        self.assertIn(reason, objections[0], f"{module=}, {source=}, {objections=}")

    def test_imports_that_point_down_are_accepted(self) -> None:
        """A package may import itself and every layer below, not only the next one."""
        source = "import twisted\nfrom twsock.wire import frames\nfrom twsock.stream import echo"
        self.assertEqual(check(read_contracts(), "twsock.protocols.planted", source), [])

    def test_the_package_itself_may_import_every_layer(self) -> None:
        """``twsock/__init__.py`` is above all layers."""
        self.assertEqual(
            check(read_contracts(), "twsock", "from twsock.services import stream"), []
        )

    def test_an_import_from_above_is_found(self) -> None:
        """`twsock.ip` may not import `twsock.stream`."""
        source = "from twsock.stream.echo import FrameEcho"
        self.assert_objects("twsock.ip.planted", source, "above it")

    def test_an_import_inside_a_function_is_found(self) -> None:
        """An import counts wherever it is in the file."""
        source = "def planted():\n    import twsock.cli"
        self.assert_objects("twsock.wire.planted", source, "above it")

    def test_an_import_from_beside_is_found(self) -> None:
        """Services and client do not import each other, nor do streams and datagrams."""
        self.assert_objects("twsock.services.planted", "import twsock.cli.stream", "beside it")
        self.assert_objects("twsock.stream.planted", "from twsock import datagram", "beside it")
        self.assert_objects("twsock.datagram.planted", "import twsock.stream.drain", "beside it")

    def test_an_import_from_twsock_itself_is_found(self) -> None:
        """Modules import a name from where it is defined, since ``twsock`` imports them."""
        source = "from twsock import SocketError"
        self.assert_objects("twsock.wire.planted", source, "twsock is in no layer")

    def test_a_package_without_a_layer_is_found(self) -> None:
        """A package that the contract does not list may neither import nor be imported."""
        self.assert_objects("twsock.unlisted.planted", "import twsock.wire", "unlisted is in no")

    def test_a_relative_import_is_found(self) -> None:
        """Imports are written with the full name of the module."""
        self.assert_objects("twsock.wire.planted", "from . import frames", "not a full name")

    def test_input_and_output_in_the_wire_formats_is_found(self) -> None:
        """The wire formats may not import sockets, clocks, random numbers or Twisted."""
        for source in (
            "import socket",
            "from time import time",
            "from twisted.internet import defer",
        ):
            self.assert_objects("twsock.wire.planted", source, "forbidden in twsock.wire")

    def test_a_third_party_package_in_the_errors_is_found(self) -> None:
        """The errors import the standard library only."""
        for module in (LOWEST, f"{LOWEST}.diagnosis"):
            self.assert_objects(module, "import sortedcontainers", "not in the standard library")
