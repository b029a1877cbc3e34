"""
Declares which interfaces an object provides, for classes that have one object for each connection.

`zope.interface` keeps a declaration only while an object has it. A server whose connections follow
each other would compute the declaration for each of them, in some hundred calls. So this module
keeps the last declarations.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from zope.interface import providedBy
from zope.interface.declarations import Provides

__all__ = ["provide_same"]

#: The most declarations that are kept. A server needs one for each class of its transports.
_MAX_KEPT: Final = 64


def provide_same(wrapper: Any, transport: Any) -> None:
    """Declare that an object provides what a transport provides, as ``directlyProvides`` does."""
    kind: Any = type(wrapper)
    wrapper.__provides__ = _declare(kind, providedBy(transport))


@lru_cache(_MAX_KEPT)
def _declare(kind: Any, provided: Any) -> Any:
    return Provides(kind, provided)
