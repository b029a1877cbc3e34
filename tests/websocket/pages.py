"""A page of a web site, beside WebSockets."""

from __future__ import annotations

from typing import Any

from twisted.web.resource import Resource

__all__ = ["Page"]


class Page(Resource):
    """
    A fixed page.

    Twisted's ``twisted.web.static.Data`` does the same, but the import of its module warns of names
    that Twisted has deprecated.

    :param content: the body of the response.
    :param content_type: the field ``Content-Type``.
    """

    isLeaf = True  # noqa: N815 - Twisted reads it

    def __init__(self, content: bytes, content_type: str) -> None:
        super().__init__()
        self._content = content
        self._content_type = content_type

    def render_GET(self, request: Any) -> bytes:  # noqa: N802 - Twisted calls it
        """Return the page."""
        request.setHeader("Content-Type", self._content_type)
        return self._content
