"""Each public module lists its public names; each of them exists, once, with a docstring."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from collections import defaultdict
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import GenericAlias, ModuleType

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.interface import InterfaceClass

import twsock

#: Names that twistd looks up in the module of each plugin, so several modules have them.
NAMES_OF_TWISTED = {"Options", "install", "makeService"}

#: Names that each module with a table of states has, such as `twsock.stream.closing`.
NAMES_OF_TABLES = {
    *("APPLICATION_EVENTS", "TABLE", "Action", "Event", "Row", "State", "Step", "follow"),
}

#: Names that several wire formats have: `twsock.wire.frames`, `twsock.websocket.frames`, and so on.
NAMES_OF_FORMATS = {"MessageDecoder", "encode_frame", "encode_header"}

#: Packages that export names of other packages.
FACES = {"twsock.protocols": ("twsock.stream.", "twsock.datagram.", "twsock.websocket.")}

#: The modules whose names and members are kept from one release to the next.
STABLE_MODULES = (
    "twsock",
    "twsock.errors",
    "twsock.names",
    "twsock.protocols",
    "twsock.services",
    "twsock.sockets",
    "twsock.tls",
    "twsock.wire",
)
SNAPSHOT = Path(__file__).with_name("public_names.txt")


def public_modules() -> Iterator[ModuleType]:
    """Import each module whose name has no underscore."""
    yield twsock
    for found in pkgutil.walk_packages(twsock.__path__, "twsock."):
        if not any(part.startswith("_") for part in found.name.split(".")):
            yield importlib.import_module(found.name)


def listed(module: ModuleType) -> list[str]:
    """Return the names that a module lists as public."""
    return list(getattr(module, "__all__", ()))


def by_kind(name: str) -> tuple[bool, bool, str]:
    """Sort constants first, then classes, then the rest, as ruff sorts imports and ``__all__``."""
    return not name.isupper(), not name[0].isupper(), name


def is_package(module: ModuleType) -> bool:
    return hasattr(module, "__path__")


def public_names() -> Iterator[tuple[ModuleType, str, object]]:
    """Return each listed name that exists: the module that lists it, the name, its value."""
    for module in public_modules():
        for name in listed(module):
            if hasattr(module, name):
                yield module, name, getattr(module, name)


def has_docstring(module: ModuleType, name: str, value: object) -> bool:
    """Return whether a name is documented where it is defined."""
    # Before Python 3.11 `inspect.isclass` is true for an alias such as ``tuple[int, str]``.
    is_class = inspect.isclass(value) and not isinstance(value, GenericAlias)
    if isinstance(value, InterfaceClass) or is_class or inspect.isroutine(value):
        # Not `inspect.getdoc`, which also finds the docstring of a base class.
        return bool(value.__doc__)
    return name in described_values(module)


def described_values(module: ModuleType) -> set[str]:
    """Return the names of constants and aliases below a ``#:`` comment."""
    assert module.__file__
    text = Path(module.__file__).read_text("utf-8")
    lines = text.splitlines()
    found = set()
    for node in ast.parse(text).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if lines[node.lineno - 2].startswith("#:"):
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def homes() -> dict[str, set[str]]:
    """Return for each public name the modules that list it, without packages."""
    found = defaultdict(set)
    for module, name, _ in public_names():
        if not is_package(module):
            found[name].add(module.__name__)
    return found


def members(value: type) -> set[str]:
    """Give the public attributes and methods that classes of the package define for a class."""
    own = [base for base in value.__mro__ if base.__module__.startswith("twsock")]
    found = {name for base in own for name in (*vars(base), *vars(base).get("__annotations__", ()))}
    # Before Python 3.11 the members of an enumeration are no attributes of its class.
    found |= set(value.__members__) if issubclass(value, Enum) else set()
    return {name for name in found if not name.startswith("_")}


def stable_names() -> Iterator[str]:
    """Give the full name of each public name and member, each member where its class is first."""
    seen: set[type] = set()
    for place in STABLE_MODULES:
        module = importlib.import_module(place)
        for name in sorted(listed(module)):
            value = getattr(module, name)
            yield f"{place}.{name}"
            if isinstance(value, type) and value not in seen:
                seen.add(value)
                yield from (f"{place}.{name}.{member}" for member in sorted(members(value)))


class PublicNamesTests(SynchronousTestCase):
    """``__all__`` of every public module."""

    def test_every_module_lists_its_names(self) -> None:
        """``__all__`` exists, is sorted by kind and name, and has no name twice."""
        for module in public_modules():
            names = getattr(module, "__all__", None)
            self.assertIsNotNone(names, f"{module.__name__} has no __all__")
            in_order = sorted(set(listed(module)), key=by_kind)
            self.assertEqual(listed(module), in_order, module.__name__)

    def test_every_name_exists_and_is_public(self) -> None:
        """A listed name exists, and does not begin with an underscore."""
        for module in public_modules():
            for name in listed(module):
                self.assertTrue(hasattr(module, name), f"{module.__name__}.{name}")
                self.assertFalse(name.startswith("_"), f"{module.__name__}.{name}")

    def test_every_module_and_name_has_a_docstring(self) -> None:
        """Modules, classes and functions have docstrings, other values a ``#:`` comment."""
        silent = [module.__name__ for module in public_modules() if not module.__doc__]
        places = homes()
        for module, name, value in public_names():
            passed_on = is_package(module) and places[name]
            if not passed_on and not has_docstring(module, name, value):
                silent.append(f"{module.__name__}.{name}")
        self.assertEqual(silent, [])

    def test_every_name_is_listed_by_one_module(self) -> None:
        """Apart from the fixed names, no two modules list the same name."""
        shared = {name: places for name, places in homes().items() if len(places) > 1}
        repeated = NAMES_OF_TWISTED | NAMES_OF_TABLES | NAMES_OF_FORMATS
        self.assertEqual(shared.keys() - repeated, set(), shared)

    def test_every_module_defines_the_names_that_it_lists(self) -> None:
        """Classes and functions come from the module that lists them, or from a private one."""
        for module, name, value in public_names():
            # Before Python 3.11 `inspect.isclass` is true for an alias such as ``tuple[int, str]``.
            is_alias = isinstance(value, GenericAlias)
            is_made_here = inspect.isfunction(value) or (inspect.isclass(value) and not is_alias)
            if not is_package(module) and is_made_here:
                is_private = value.__module__.rpartition(".")[2].startswith("_")
                is_own = value.__module__ == module.__name__
                self.assertTrue(is_own or is_private, f"{module.__name__}.{name}")

    def test_packages_export_names_of_their_own_modules(self) -> None:
        """A package exports the same object as its module; `FACES` lists exceptions."""
        places = homes()
        for module, name, value in public_names():
            if is_package(module) and name not in NAMES_OF_TWISTED | NAMES_OF_FORMATS:
                below = FACES.get(module.__name__, (f"{module.__name__}.",))
                for home in places[name]:
                    self.assertTrue(home.startswith(below), f"{home} {name}")
                    self.assertIs(getattr(importlib.import_module(home), name), value, home)

    def test_stable_names_are_those_of_the_snapshot(self) -> None:
        """
        No public name and no member of a public class appears or vanishes unnoticed.

        To change them: ``python -m tests.test_public_names > tests/public_names.txt``.
        """
        found, kept = set(stable_names()), set(SNAPSHOT.read_text("utf-8").splitlines())
        self.assertEqual((sorted(kept - found), sorted(found - kept)), ([], []))


if __name__ == "__main__":
    print(*stable_names(), sep="\n")
