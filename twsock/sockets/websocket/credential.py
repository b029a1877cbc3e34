"""
Credentials of HTTP: application → **user name and password** → header fields of a handshake.

They are those of the Basic scheme (:rfc:`7617`), which sends the password in plain text. Held by
the options of a WebSocket until the application replaces them.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from typing import Final

__all__ = ["PasswordCredential"]

#: Control characters, which RFC 7617 section 2 forbids.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class PasswordCredential:
    """
    A user name and a password; ``Windows.Security.Credentials.PasswordCredential``.

    :param user_name: without a colon.
    :param password: is not shown in the text of this object.
    :param resource: what it is for; not sent.
    :raises ValueError: when the user name has a colon, or one of the two a control character.
    """

    user_name: str
    password: str = field(repr=False)
    resource: str = ""

    def __post_init__(self) -> None:
        if ":" in self.user_name:
            raise ValueError("a user name has no colon (:)")
        if _CONTROL.search(self.user_name) or _CONTROL.search(self.password):
            raise ValueError("a user name or password has no control characters")

    def as_basic(self) -> str:
        """Return the value of a header field: ``Basic``, and the credential in UTF-8."""
        pair = f"{self.user_name}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode('ascii')}"
