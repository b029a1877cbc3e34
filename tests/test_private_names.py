"""The register of Twisted's private names is complete, and true for the installed Twisted."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import pkgutil
import textwrap
from collections.abc import Iterator
from pathlib import Path

from twisted.python.reflect import namedAny
from twisted.trial.unittest import SynchronousTestCase

import twsock
from twsock._twisted import PRIVATE_NAMES

ROOT = Path(__file__).resolve().parent.parent
#: It uses private names of pyOpenSSL, and lists them itself.
OTHER_REGISTER = "twsock.tls.openssl"
#: Objects of the standard library with private names that are documented, or used nowhere else, or
#: that only type checkers know.
STANDARD_LIBRARY = {
    *("argparse._ArgumentGroup", "member._value_", "zlib._Compress", "zlib._Decompress"),
    "subprocess._args_from_interpreter_flags",
}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def stored(tree: ast.AST) -> set[str]:
    """Return the private names that a class body or its methods define."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found |= {node.attr} if ast.unparse(node.value) == "self" else set()
    return {name for name in found if is_private(name)}


@functools.cache
def private_names_of(owner: type) -> frozenset[str]:
    """Return the private names that one class defines, without those of its bases."""
    found = {name for name in vars(owner) if is_private(name)}
    try:
        source = textwrap.dedent(inspect.getsource(owner))
    except (OSError, TypeError):  # not written in Python
        return frozenset(found)
    return frozenset(found | stored(ast.parse(source)))


def owners(value: object) -> list[type]:
    """Return the classes of Twisted among a class and its bases."""
    bases = value.__mro__ if isinstance(value, type) else ()
    return [base for base in bases if base.__module__.startswith("twisted.")]


def inherited(value: type) -> set[str]:
    """Return the private names that a class has from Twisted."""
    return set().union(*map(private_names_of, owners(value)))


def modules() -> Iterator[str]:
    for found in pkgutil.walk_packages(twsock.__path__, "twsock."):
        if not found.name.endswith("__main__"):
            yield found.name


def used_names(name: str) -> set[str]:
    """Return the private names of Twisted that a module uses, as far as its text shows."""
    module = importlib.import_module(name)
    tree = ast.parse(inspect.getsource(module))
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    found: set[str] = set()
    own: set[str] = set()
    for node in classes:
        theirs = inherited(getattr(module, node.name, object))
        mentioned = {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}
        found |= theirs & (mentioned | stored(node))
        own |= stored(node) - theirs
    return found | set(foreign_names(tree, own))


def foreign_names(tree: ast.AST, own: set[str]) -> Iterator[str]:
    """Yield private names of other objects than those of classes of the same module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("twisted"):
            yield from (alias.name for alias in node.names if is_private(alias.name))
        elif isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own:
            is_own = ast.unparse(node.value) in ("self", "cls", "super()")
            if not is_own and ast.unparse(node) not in STANDARD_LIBRARY:
                yield node.attr
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr"):
            name = getattr(node.args[1], "value", None)
            if isinstance(name, str) and is_private(name) and name not in own:
                yield name


class PrivateNamesTests(SynchronousTestCase):
    """What the package uses, what the register lists, and what Twisted has."""

    def test_every_use_is_registered(self) -> None:
        """A private name of Twisted that a module uses has an entry, with its purpose."""
        registered = {name for entry in PRIVATE_NAMES for name in entry.purposes}
        for module in modules():
            if module != OTHER_REGISTER:
                self.assertEqual(used_names(module) - registered, set(), module)

    def test_every_entry_is_used(self) -> None:
        """An entry goes when its last use goes."""
        used = set().union(*(used_names(module) for module in modules()))
        for entry in PRIVATE_NAMES:
            self.assertEqual(set(entry.purposes) - used, set(), entry.owner)

    def test_twisted_has_every_name(self) -> None:
        """The installed Twisted defines each name where the register says."""
        for entry in PRIVATE_NAMES:
            owner = namedAny(entry.owner)
            names = inherited(owner) if isinstance(owner, type) else set(vars(owner))
            self.assertEqual(set(entry.purposes) - names, set(), entry.owner)

    def test_every_entry_names_its_tests(self) -> None:
        """The tests that fail without a name are found."""
        for entry in PRIVATE_NAMES:
            path = ROOT.joinpath(*entry.test.split(".")).with_suffix(".py")
            self.assertTrue(path.is_file(), entry.test)


class FindingTests(SynchronousTestCase):
    """How uses are found."""

    def test_a_name_of_another_object_is_found(self) -> None:
        """By an attribute, by ``getattr``, and by an import."""
        for source in (
            "transport._tempDataLen",
            "getattr(transport, '_tempDataLen', 0)",
            "from twisted.internet.abstract import _tempDataLen",
        ):
            self.assertEqual(
                list(foreign_names(ast.parse(source), set())), ["_tempDataLen"], source
            )

    def test_a_name_of_a_class_of_the_module_is_not(self) -> None:
        """Neither that of the object itself, nor that of another one of the same module."""
        for source in ("self._queue", "super()._queue", "other._own", "getattr(other, '_own')"):
            self.assertEqual(list(foreign_names(ast.parse(source), {"_own"})), [], source)

    def test_overrides_and_uses_of_inherited_names_are_found(self) -> None:
        """A subclass of a class of Twisted has private names that it did not define."""
        used = used_names("twsock.reactor")
        inherited_from = {
            "twisted.internet.base": {
                "_justStopped",
                "_newTimedCalls",
                "_pendingTimedCalls",
                "_started",
            },
            "twisted.internet.posixbase": {
                "_disconnectSelectable",
                "_doReadOrWrite",
                "_internalReaders",
            },
            "twisted.internet.epollreactor": {"_poller", "_selectables"},
        }
        self.assertEqual(used, set().union(*inherited_from.values()))
        self.assertIn("_flushSendBIO", used_names("twsock.tls.engine"))
