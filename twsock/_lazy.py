"""
Lazy names: a package and its modules → **lazy names** → its ``__getattr__`` and ``__dir__``.

Used by `twsock` and its packages; in `twsock.protocols` only for the classes of WebSockets. A
program that imports one name loads only the modules of that name (:pep:`562`). Type checkers read
the imports that such a package has under ``TYPE_CHECKING``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module

__all__ = ["import_when_used"]


def import_when_used(
    package: str, modules: Sequence[str], root: str | None = None
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """
    Return the ``__getattr__`` and the ``__dir__`` of a package that imports names when used.

    :param package: the full name of the package; its ``__all__`` has the names.
    :param modules: the modules that define the names, relative to the package, in the order of the
        search. A module comes after the modules that it imports, so a lookup loads no module that
        its name does not need.
    :param root: the package that ``modules`` are relative to; None for the package itself. Then
        each module is an attribute of the package, too.
    """
    places = [f"{root or package}.{name}" for name in modules]
    attributes = modules if root is None else ()

    def get_attribute(name: str) -> object:
        module = sys.modules[package]
        if name in attributes:
            return import_module(f"{package}.{name}")
        if name not in module.__all__:
            message = f"module {package!r} has no attribute {name!r}"
            raise AttributeError(message, name=name, obj=module)
        found = map(import_module, places)
        value: object = next(getattr(place, name) for place in found if name in place.__all__)
        vars(module)[name] = value
        return value

    def list_names() -> list[str]:
        module = sys.modules[package]
        submodules = (name for name in attributes if "." not in name)
        return sorted({*vars(module), *module.__all__, *submodules})

    return get_attribute, list_names
