"""Tests of `benchmarks.structure`."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.structure import (
    Module,
    count_code,
    imports_to_definitions,
    main,
    plain_imports,
    read_package,
)


def _make_package() -> dict[str, Module]:
    """A package that re-exports a name under another, and three modules that import it."""
    sources = {
        "p": "from p.definer import original as exported\n",
        "p.definer": "import os\noriginal = os\n",
        "p.first": "from p import exported\n",
        "p.second": "from p.first import exported\nfrom p import definer\n",
        "p.third": "def use():\n    from p.first import missing\n",
    }
    return {name: Module(name, source, name == "p") for name, source in sources.items()}


class ImportTests(SynchronousTestCase):
    """Imports between the modules of a package."""

    def test_re_exported_name_counts_for_the_module_that_defines_it(self) -> None:
        """However long the chain is; a pair counts once, and a name without a definition counts."""
        self.assertEqual(
            imports_to_definitions(_make_package()),
            {
                ("p", "p.definer"),
                ("p.first", "p.definer"),
                ("p.second", "p.definer"),
                ("p.third", "p.first"),
            },
        )

    def test_plain_import_counts_for_the_module_that_it_names(self) -> None:
        """``from package import module`` names the module; other packages are left out."""
        self.assertEqual(
            plain_imports(_make_package()),
            {
                ("p", "p.definer"),
                ("p.first", "p"),
                ("p.second", "p.first"),
                ("p.second", "p.definer"),
                ("p.third", "p.first"),
            },
        )

    def test_names_that_import_each_other_end(self) -> None:
        """Two modules that each take the same name from the other still have a pair each."""
        sources = {"p.a": "from p.b import name\n", "p.b": "from p.a import name\n"}
        modules = {name: Module(name, source, False) for name, source in sources.items()}
        self.assertEqual(imports_to_definitions(modules), {("p.a", "p.b"), ("p.b", "p.a")})


class CountCodeTests(SynchronousTestCase):
    """Lines of code of a module."""

    def test_comments_docstrings_and_blank_lines_do_not_count(self) -> None:
        """A string that is no docstring counts with all its lines."""
        source = '"""Doc\nstring."""\n\n# comment\ndef f():\n    """Doc."""\n    return """\n"""\n'
        self.assertEqual(count_code(source), 3)


class ReadPackageTests(SynchronousTestCase):
    """Modules are read from a checkout."""

    def test_package_has_the_name_of_its_folder(self) -> None:
        """``__init__.py`` is the package itself."""
        root = Path(self.mktemp())
        folder = root / "p" / "inner"
        folder.mkdir(parents=True)
        for path in (root / "p" / "__init__.py", folder / "__init__.py", folder / "module.py"):
            path.write_text("")
        modules = read_package(root, "p")
        self.assertEqual(list(modules), ["p", "p.inner", "p.inner.module"])
        self.assertEqual([module.is_package for module in modules.values()], [True, True, False])


class StartTests(SynchronousTestCase):
    """The start of programs."""

    if sys.platform != "linux":
        skip = "the benchmarks need Linux"

    def test_programs_are_compared_to_twisted_alone(self) -> None:
        """The table has the import of a socket, and a service until it listens."""
        with redirect_stdout(StringIO()) as printed:
            main(["--rounds", "1"])
        table = printed.getvalue().partition("Start beside Twisted")[2].splitlines()
        ours = [line for line in table if line.startswith(("from twsock", "twistd -n twsock"))]
        self.assertEqual(len(ours), 2, table)
        for line in ours:
            self.assertGreater(float(line.split()[-1]), 0, line)
