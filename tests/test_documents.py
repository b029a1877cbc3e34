"""The documents name files, modules and names that exist."""

from __future__ import annotations

import ast
import importlib
import io
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import skipIf

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(ROOT.glob("docs/**/*.rst")),
    *sorted(ROOT.glob("docs/**/*.md")),
    *sorted(ROOT.glob("newsfragments/*.rst")),
]

#: A relative link of Markdown, and the target of a link in reStructuredText.
_LINK = re.compile(r"\]\(([^):#]+)\)")
_TARGET = re.compile(r"^\.\. _[^:]+: (\S+)$", re.MULTILINE)
#: A link in reStructuredText that is named after a file.
_REFERENCE = re.compile(r"`([\w/.-]+\.(?:rst|md))`_")
#: A file, from the checkout, the package, or docs/ on.
_FILE = re.compile(r"(?<!\.\. )(?<![\w/<.-])((?:[\w-]+/)*[\w-]+\.(?:py|rst|md))(?![\w>])")
#: The full name of a module, a class or a member.
_NAME = re.compile(r"(?<![\w/.-])(twsock(?:\.[A-Za-z_]\w*)+)(?![\w*])")

#: Programs that documents tell the reader to write.
_TO_BE_WRITTEN = {
    "shout.py", "shout_lines.py", "datagrams.py", "hello.py", "wss.py", "keeps_its_buffer.py"
}  # fmt: skip


def occurrences(pattern: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    """Return each match in a document, with the path of the document."""
    for document in DOCUMENTS:
        for found in pattern.findall(document.read_text("utf-8")):
            yield str(document.relative_to(ROOT)), found


def exists(name: str) -> bool:
    """Return whether a file exists, from one of the folders that documents begin paths at."""
    bases = (ROOT, ROOT / "twsock", ROOT / "docs", ROOT / "examples", ROOT / "tests")
    return name in _TO_BE_WRITTEN or any((base / name).exists() for base in bases)


def resolves(name: str) -> bool:
    """Return whether a full name leads to a module or to a name in it."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            # An annotation without a value is an attribute of instances.
            if not (hasattr(found, part) or part in getattr(found, "__annotations__", {})):
                return False
            found = getattr(found, part, None)
        return True
    return False


def mistakes_in(document: Path) -> list[str]:
    """Return what docutils reports about a document in reStructuredText, from warnings on."""
    core: Any = importlib.import_module("docutils.core")
    reported = io.StringIO()
    settings = {"report_level": 2, "halt_level": 5, "warning_stream": reported}
    text = document.read_text("utf-8")
    core.publish_doctree(text, source_path=str(document), settings_overrides=settings)
    return reported.getvalue().splitlines()


class DocumentTests(SynchronousTestCase):
    """README, CONTRIBUTING, docs/ and the news."""

    def test_links_lead_to_files(self) -> None:
        """Each relative link, from the folder of its document."""
        broken = [
            (document, link)
            for pattern, suffix in ((_LINK, ".md"), (_TARGET, ".rst"))
            for document, link in occurrences(pattern)
            if document.endswith(suffix) and not (ROOT / document).parent.joinpath(link).exists()
        ]
        self.assertEqual(broken, [])

    def test_links_to_pages_have_a_target(self) -> None:
        """A page in reStructuredText lists the target of each link at its end."""
        without_target = [
            (document, name)
            for document, name in occurrences(_REFERENCE)
            if f"\n.. _{name}: " not in (ROOT / document).read_text("utf-8")
        ]
        self.assertEqual(without_target, [])

    def test_named_files_exist(self) -> None:
        """Each file of the checkout that a document names."""
        missing = [(document, name) for document, name in occurrences(_FILE) if not exists(name)]
        self.assertEqual(missing, [])

    def test_full_names_exist(self) -> None:
        """Each module, class and member that a document names in full."""
        missing = [(document, name) for document, name in occurrences(_NAME) if not resolves(name)]
        self.assertEqual(missing, [])

    @skipIf(find_spec("docutils") is None, "docutils is not installed: it is in the extra test")
    def test_pages_have_no_mistakes_of_markup(self) -> None:
        """In docs/, and in the news."""
        pages = [document for document in DOCUMENTS if document.suffix == ".rst"]
        self.assertEqual([mistake for page in pages for mistake in mistakes_in(page)], [])


#: A line of a table: its text, in the width of the first column.
_LINE = re.compile(r"^(?!=|Line )(\S.{0,53}?) {2,}\S", re.MULTILINE)
_LEVELS = {"critical": {"failure", "critical", "error"}, "warn": {"warn"}, "info": {"info"}}


def logged() -> Iterator[tuple[str, str]]:
    """Return the method and the message of each event that the package logs."""
    for path in (ROOT / "twsock").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield node.func.attr, argument.value


class LogTests(SynchronousTestCase):
    """The lines of the log in docs/operations.rst."""

    def test_each_line_is_logged_at_its_level(self) -> None:
        """A message that changes has to change there, too: programs may select by it."""
        page = (ROOT / "docs" / "operations.rst").read_text("utf-8")
        events = list(logged())
        for level, methods in _LEVELS.items():
            table = re.search(rf"^``{level}``.*:\n\n=(?s:.*?\n=.*?\n)=", page, re.MULTILINE)
            assert table is not None
            lines = _LINE.findall(table[0].partition("\n=")[2])
            self.assertGreater(len(lines), 3, level)
            for line in lines:
                pattern = re.escape(line).replace("…", ".+")
                found = [text for method, text in events if method in methods]
                self.assertTrue(any(re.fullmatch(pattern, text) for text in found), (level, line))


def service_options() -> set[str]:
    """Return the options of all services, with their hyphens."""
    found = set()
    for name in ("stream", "websocket", "datagram", "multicast", "everything"):
        options: Any = importlib.import_module(f"twsock.services.{name}").Options()
        found |= {f"--{option.rstrip('=')}" for option in options.longOpt}
    return found - {"--help", "--version"}


class OptionTests(SynchronousTestCase):
    """Options of the services."""

    def assert_all_in(self, texts: str) -> None:
        """Check that each option is in the texts, as a whole word."""
        missing = [
            option
            for option in sorted(service_options())
            if not re.search(rf"(?<![\w-]){option}(?![\w-])", texts)
        ]
        self.assertEqual(missing, [])

    def test_each_option_is_in_a_page(self) -> None:
        """One of docs/."""
        self.assert_all_in("".join(page.read_text("utf-8") for page in ROOT.glob("docs/*.rst")))

    def test_each_option_is_in_a_test(self) -> None:
        """In one at least, whatever it tests."""
        self.assert_all_in("".join(path.read_text("utf-8") for path in ROOT.rglob("tests/**/*.py")))
