"""Each attack has a row in docs/attacks.rst, and each row names tests that exist."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

PAGE = Path(__file__).resolve().parent.parent / "docs" / "attacks.rst"

#: A row: its case, and everything up to the next row or the end of the table.
_ROW = re.compile(r"^   \* - ([SCEWO]\d+)\n((?:     .*\n)+)", re.MULTILINE)
_NAME = re.compile(r"``(tests\.[\w.]+)``")

#: Begins a row without a test; the reason follows.
_NOT_HERE = "Does not apply:"


def read_rows() -> list[tuple[str, str]]:
    """Return the cases of the page and the rest of their rows, in order."""
    return _ROW.findall(PAGE.read_text(encoding="utf-8"))


def exists(name: str) -> bool:
    """
    Return whether a test exists.

    A class that runs on every reactor is replaced by one class for each reactor.
    """
    module, class_name, method = name.rsplit(".", 2)
    found = vars(import_module(module))
    return any(
        callable(getattr(thing, method, None))
        for key, thing in found.items()
        if key == class_name or re.fullmatch(rf"{class_name}_\w+ReactorTests", key)
    )


class AttackTests(SynchronousTestCase):
    """The rows of docs/attacks.rst, and the tests that they name."""

    def test_each_attack_against_a_server_has_a_row(self) -> None:
        """S1 to S18."""
        self.assert_has("S", 18)

    def test_each_attack_against_a_client_has_a_row(self) -> None:
        """C1 to C18."""
        self.assert_has("C", 18)

    def test_each_claim_of_the_upgrade_has_a_row(self) -> None:
        """E1 to E23."""
        self.assert_has("E", 23)

    def test_each_attack_on_websockets_has_a_row(self) -> None:
        """W1 to W21."""
        self.assert_has("W", 21)

    def test_each_attack_on_the_operation_has_a_row(self) -> None:
        """O1 to O12."""
        self.assert_has("O", 12)

    def test_each_row_names_a_test_or_a_reason(self) -> None:
        """The last of the four columns has names of tests."""
        for case, said in read_rows():
            cells = re.findall(r"^     - ", said, re.MULTILINE)
            self.assertEqual(len(cells), 3, case)
            self.assertTrue(_NAME.search(said) or _NOT_HERE in said, case)

    def test_each_named_test_exists(self) -> None:
        """Names outside the tables are checked, too."""
        names = _NAME.findall(PAGE.read_text(encoding="utf-8"))
        self.assertGreater(len(names), 18)
        self.assertEqual([name for name in names if not exists(name)], [])

    def assert_has(self, letter: str, count: int) -> None:
        """Each case has one row, in its order."""
        cases = [case for case, _ in read_rows() if case[0] == letter]
        self.assertEqual(cases, [f"{letter}{number}" for number in range(1, count + 1)])
