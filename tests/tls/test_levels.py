"""A level is a ceiling, and what cannot be offered is said to be so."""

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

    def test_the_levels_have_their_documented_numbers(self) -> None:
        """And names; 10 is ours."""
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

    def test_this_openssl_has_what_everybody_needs(self) -> None:
        """TLS 1.2 and 1.3."""
        self.assertLessEqual({V12, V13}, available_versions())

    def test_a_level_is_a_ceiling(self) -> None:
        """From the default floor, TLS 1.2, up to it; ``SSL`` is the best there is."""
        self.assertEqual(choose_versions(Level.TLS12), VersionRange(V12, V12))
        self.assertEqual(choose_versions(Level.TLS13), VersionRange(V12, V13))
        self.assertEqual(choose_versions(Level.SSL), VersionRange(V12, V13))

    def test_a_floor_can_be_set(self) -> None:
        """Higher than the default, or lower as far as there is anything."""
        self.assertEqual(choose_versions(Level.SSL, Level.TLS13), VersionRange(V13, V13))
        lowest = min(available_versions())
        self.assertEqual(choose_versions(Level.TLS13, Level.TLS10), VersionRange(lowest, V13))

    def test_a_floor_above_the_ceiling_leaves_nothing(self) -> None:
        """It is refused before any packet."""
        self.assertRaises(OperationNotSupported, choose_versions, Level.TLS12, Level.TLS13)

    def test_what_this_openssl_cannot_do_is_refused(self) -> None:
        """Never something else instead."""
        for level, version in ((Level.TLS10, TlsVersion.TLS10), (Level.TLS11, TlsVersion.TLS11)):
            if version in available_versions():
                self.assertEqual(choose_versions(level, level).highest, version, f"{level=}")
            else:
                self.assertRaises(OperationNotSupported, choose_versions, level, level)
            self.assertRaises(OperationNotSupported, choose_versions, level)

    def test_weak_levels_are_not_offered(self) -> None:
        """By nobody."""
        for level in (Level.SSL_ALLOW_NULL_ENCRYPTION, Level.SSL3_ALLOW_WEAK_ENCRYPTION):
            error = self.assertRaises(OperationNotSupported, choose_versions, level)
            self.assertIn(level.documented_name, str(error), f"{level=}: {error}")

    def test_what_is_no_level_of_tls_is_a_mistake(self) -> None:
        """E7: nor is it a floor."""
        for level in (
            Level.PLAIN_SOCKET,
            Level.UNSPECIFIED,
            Level.BLUETOOTH_ENCRYPTION_ALLOW_NULL_AUTHENTICATION,
            Level.BLUETOOTH_ENCRYPTION_WITH_AUTHENTICATION,
        ):
            self.assertRaises(ValueError, choose_versions, level)
        for floor in (Level.PLAIN_SOCKET, Level.SSL):
            self.assertRaises(ValueError, choose_versions, Level.TLS12, floor)

    def test_versions_have_names_for_people(self) -> None:
        """As they are written everywhere."""
        self.assertEqual(
            [str(version) for version in TlsVersion], ["TLS 1.0", "TLS 1.1", "TLS 1.2", "TLS 1.3"]
        )
