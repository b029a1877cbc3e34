"""A protection level is the highest TLS version; levels that can't be offered are refused."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twsock.errors import OperationNotSupported
from twsock.tls.levels import (
    SocketProtectionLevel,
    TlsVersion,
    VersionRange,
    available_versions,
    choose_versions,
)

Level = SocketProtectionLevel
V12, V13 = TlsVersion.TLS12, TlsVersion.TLS13


class LevelTests(SynchronousTestCase):
    """Levels and versions."""

    def test_the_levels_have_their_documented_numbers_and_names(self) -> None:
        """The number 10 is twsock's own."""
        self.assertEqual(
            {int(level): level.documented_name for level in Level},
            {
                0: "PlainSocket",
                1: "Ssl",
                2: "SslAllowNullEncryption",
                3: "BluetoothEncryptionAllowNullAuthentication",
                4: "BluetoothEncryptionWithAuthentication",
                5: "Ssl3AllowWeakEncryption",
                6: "Tls10",
                7: "Tls11",
                8: "Tls12",
                9: "Unspecified",
                10: "Tls13",
            },
        )

    def test_this_openssl_supports_tls_12_and_13(self) -> None:
        """Everything else in twsock needs both."""
        self.assertLessEqual({V12, V13}, available_versions())

    def test_a_level_is_the_highest_version(self) -> None:
        """
        The range begins at the default floor, TLS 1.2; ``SSL`` means the best version there is.
        """
        self.assertEqual(choose_versions(Level.TLS12), VersionRange(V12, V12))
        self.assertEqual(choose_versions(Level.TLS13), VersionRange(V12, V13))
        self.assertEqual(choose_versions(Level.SSL), VersionRange(V12, V13))

    def test_a_floor_changes_the_lowest_version(self) -> None:
        """It may be higher than the default, or lower as far as OpenSSL goes."""
        self.assertEqual(choose_versions(Level.SSL, Level.TLS13), VersionRange(V13, V13))
        lowest = min(available_versions())
        self.assertEqual(choose_versions(Level.TLS13, Level.TLS10), VersionRange(lowest, V13))

    def test_a_floor_above_the_level_is_refused(self) -> None:
        """The error is raised before any packet."""
        self.assertRaises(OperationNotSupported, choose_versions, Level.TLS12, Level.TLS13)

    def test_a_version_that_openssl_lacks_is_refused(self) -> None:
        """No other version is used in its place."""
        for level, version in ((Level.TLS10, TlsVersion.TLS10), (Level.TLS11, TlsVersion.TLS11)):
            if version in available_versions():
                self.assertEqual(choose_versions(level, level).highest, version, f"{level=}")
            else:
                self.assertRaises(OperationNotSupported, choose_versions, level, level)
            self.assertRaises(OperationNotSupported, choose_versions, level)

    def test_weak_levels_are_refused(self) -> None:
        """No OpenSSL offers them."""
        for level in (Level.SSL_ALLOW_NULL_ENCRYPTION, Level.SSL3_ALLOW_WEAK_ENCRYPTION):
            error = self.assertRaises(OperationNotSupported, choose_versions, level)
            self.assertIn(level.documented_name, str(error), f"{level=}: {error}")

    def test_a_level_without_tls_is_an_error(self) -> None:
        """E7: neither as the level nor as the floor."""
        for level in (
            Level.PLAIN_SOCKET,
            Level.UNSPECIFIED,
            Level.BLUETOOTH_ENCRYPTION_ALLOW_NULL_AUTHENTICATION,
            Level.BLUETOOTH_ENCRYPTION_WITH_AUTHENTICATION,
        ):
            self.assertRaises(ValueError, choose_versions, level)
        for floor in (Level.PLAIN_SOCKET, Level.SSL):
            self.assertRaises(ValueError, choose_versions, Level.TLS12, floor)

    def test_versions_have_their_usual_names(self) -> None:
        """As other programs write them."""
        self.assertEqual(
            [str(version) for version in TlsVersion], ["TLS 1.0", "TLS 1.1", "TLS 1.2", "TLS 1.3"]
        )
