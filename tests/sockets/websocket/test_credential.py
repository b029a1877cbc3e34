"""Credentials become header fields."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twsock import PasswordCredential


class CredentialTests(SynchronousTestCase):
    """User names and passwords."""

    def test_basic_is_in_utf_8(self) -> None:
        """RFC 7617, sections 2 and 2.1."""
        credential = PasswordCredential("Aladdin", "open sesame")
        self.assertEqual(credential.as_basic(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")
        self.assertEqual(
            PasswordCredential("test", "123\u00a3").as_basic(), "Basic dGVzdDoxMjPCow=="
        )

    def test_password_is_not_shown(self) -> None:
        """Neither ``str`` nor ``repr`` has the password."""
        credential = PasswordCredential("user", "secret")
        self.assertNotIn("secret", f"{credential} {credential!r}")

    def test_some_characters_are_refused(self) -> None:
        """A colon in the name, and control characters."""
        for name, password in (("a:b", ""), ("a\n", ""), ("a", "b\r\nc: d")):
            self.assertRaises(ValueError, PasswordCredential, name, password)
        self.assertTrue(PasswordCredential("a", "b:c").as_basic())
