"""Base classes of enumerations: documented names, and members that are fast keys."""

from __future__ import annotations

from enum import Enum, IntEnum, IntFlag

__all__ = ["DocumentedEnum", "DocumentedFlag", "KeyEnum"]

# Words that WinRT writes in capitals.
_CAPITALS = frozenset({"BE", "LE"})


def _spell(name: str | None) -> str:
    words = (name or "").split("_")
    return "".join(word if word in _CAPITALS else word.capitalize() for word in words)


class KeyEnum(Enum):
    """Members are keys of tables. `Enum` hashes a member by its name, with a call in Python."""

    __hash__ = object.__hash__


class DocumentedEnum(IntEnum):
    """Numbers of which each has a documented name."""

    @property
    def documented_name(self) -> str:
        """The spelling of the WinRT documentation: ``ConnectionRefused``, ``Utf16LE``."""
        return _spell(self.name)


class DocumentedFlag(IntFlag):
    """Options of which each has a documented name; 0 is ``None``."""

    @property
    def documented_name(self) -> str:
        """The spelling of the WinRT documentation: ``ReadAhead``, ``Partial, ReadAhead``."""
        # One by one: Python 3.10 has no name for several together.
        options = (option for option in type(self) if option and option in self)
        return ", ".join(_spell(option.name) for option in options) or "None"
