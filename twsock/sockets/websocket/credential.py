"""
Credentials of HTTP: application → **user name and password** → header fields of a handshake.

The scheme is Basic (:rfc:`7617`), which sends the password without encryption of its own. The
options of a WebSocket hold a credential until the application replaces it.
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

    :param user_name: a text without a colon and without control characters.
    :param password: a text without control characters; ``repr`` does not show it.
    :param resource: what the credential is for; not sent.
    :raises ValueError: when the user name has a colon, or user name or password has a control
        character.
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
