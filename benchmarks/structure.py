"""
The structure of twsock in figures: modules, lines, imports between modules, time of an import.

``python -m benchmarks structure`` reads the source of this checkout, or of the one that
``--checkout`` names, without importing it; only the last tables start processes. What each figure
counts:

Modules
    Files ``*.py`` below ``twsock/``, ``__init__.py`` among them.
Lines of code
    Lines with a token that is neither a comment nor part of a docstring.
Imports
    Pairs of an importing module and the module that defines the name. A name that is imported from
    a module that itself imports it counts for the module at the end of that chain. Imports inside
    functions and under ``TYPE_CHECKING`` count as well. The plain figure counts the modules that
    the import statements name. ``__init__.py`` is left out as importer in a figure of its own,
    because most of them do nothing but re-export.
Functions
    From the line of ``def`` to the last line, decorators left out and the docstring included.
Processor time
    User and system time of a child process, medians of the rounds; the programs take turns. The
    modules are compiled before, as those of an installed package are. A service is measured until
    it listens (Linux only).
"""

from __future__ import annotations

import argparse
import ast
import io
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import tokenize
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from benchmarks.kernel import cpu_time
from benchmarks.processes import MeasurementError
from benchmarks.tables import Table

__all__ = [
    "Module",
    "count_code",
    "imports_to_definitions",
    "main",
    "plain_imports",
    "read_package",
]

_ROOT: Final = Path(__file__).resolve().parent.parent
_PACKAGE: Final = "twsock"
_LONG_MODULE: Final = 500
_LONG_FUNCTION: Final = 40

_TWISTD: Final = ("-c", "from twisted.scripts.twistd import run; run()", "-n", "--pidfile=")
#: A part of the line that Twisted logs for the first port of a service.
_LISTENS: Final = " starting on "


@dataclass(frozen=True)
class _Start:
    """
    The start of a program.

    :ivar arguments: the arguments of the interpreter.
    :ivar listens: whether the program is a service, measured until it listens.
    """

    title: str
    arguments: tuple[str, ...]
    listens: bool = False


#: Pairs of a program with twsock and a program with Twisted alone.
_COMPARED: Final = (
    (
        _Start("from twsock import StreamSocket", ("-c", "from twsock import StreamSocket")),
        _Start(
            "twisted.internet: reactor, ssl", ("-c", "from twisted.internet import reactor, ssl")
        ),
    ),
    (
        _Start(
            "twistd -n twsock-stream",
            (*_TWISTD, "twsock-stream", "--endpoint", "tcp:0:interface=127.0.0.1"),
            listens=True,
        ),
        _Start(
            "twistd -n web",
            (*_TWISTD, "web", "--listen", "tcp:0:interface=127.0.0.1"),
            listens=True,
        ),
    ),
)

#: Title → arguments of the interpreter. The first one is what ratios refer to.
_PROGRAMS: Final = {
    "python -c pass": ("-c", "pass"),
    "import twsock.wire": ("-c", "import twsock.wire"),
    "import twsock.errors": ("-c", "import twsock.errors"),
    "import twsock.names": ("-c", "import twsock.names"),
    "twsock --help": ("-m", "twsock", "--help"),
}
_BASELINE: Final = "python -c pass"

#: Tokens that do not count as code.
_LAYOUT: Final = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
    tokenize.ENCODING,
}

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Documented = ast.Module | ast.ClassDef | _Function


@dataclass(frozen=True)
class Module:
    """
    The source of one module.

    :ivar name: its full name; that of the package for an ``__init__.py``.
    """

    name: str
    source: str
    is_package: bool

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """All nodes of its syntax tree."""
        return list(ast.walk(ast.parse(self.source)))

    @cached_property
    def lines(self) -> int:
        """All its lines."""
        return len(self.source.splitlines())

    @cached_property
    def imported_names(self) -> dict[str, tuple[str, str]]:
        """Each name bound by ``from module import name``, anywhere in it → that module and name."""
        return {
            alias.asname or alias.name: (node.module, alias.name)
            for node in self.nodes
            if isinstance(node, ast.ImportFrom) and node.module
            for alias in node.names
        }

    def imports(self) -> Iterator[tuple[str, str | None]]:
        """Each module that it imports, with the name taken from it; None for the module itself."""
        for node in self.nodes:
            if isinstance(node, ast.Import):
                yield from ((alias.name, None) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield from ((node.module, alias.name) for alias in node.names)

    def functions(self) -> Iterator[tuple[str, int]]:
        """Each function and how many lines it has."""
        for node in self.nodes:
            if isinstance(node, _Function) and node.end_lineno is not None:
                yield node.name, node.end_lineno - node.lineno + 1


def read_package(checkout: Path, package: str = _PACKAGE) -> dict[str, Module]:
    """Read all modules of a package, by name."""
    modules = {}
    for path in sorted(checkout.joinpath(package).rglob("*.py")):
        parts = path.relative_to(checkout).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        modules[name] = Module(name, path.read_text("utf-8"), is_package)
    return modules


def count_code(source: str) -> int:
    """Count the lines that hold code: no blank lines, comments and docstrings."""
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _LAYOUT:
            code.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, _Documented) and ast.get_docstring(node, clean=False) is not None:
            docstring = node.body[0]
            code.difference_update(range(docstring.lineno, (docstring.end_lineno or 0) + 1))
    return len(code)


def plain_imports(modules: dict[str, Module]) -> set[tuple[str, str]]:
    """Pairs of a module and one that its import statements name."""
    return {
        (module.name, target)
        for module in modules.values()
        for source, name in module.imports()
        if (target := _submodule(modules, source, name)) in modules and target != module.name
    }


def imports_to_definitions(modules: dict[str, Module]) -> set[tuple[str, str]]:
    """Pairs of a module and one that defines a name that it imports."""
    return {
        (module.name, target)
        for module in modules.values()
        for source, name in module.imports()
        if source in modules and (target := _definer(modules, source, name)) != module.name
    }


def _submodule(modules: dict[str, Module], source: str, name: str | None) -> str:
    """``from package import module`` names the module, not the package."""
    return submodule if (submodule := f"{source}.{name}") in modules else source


def _definer(modules: dict[str, Module], source: str, name: str | None) -> str:
    """Follow a name from re-export to re-export; one that was not found is where the chain ends."""
    seen = set()
    while name is not None and (source, name) not in seen:
        seen.add((source, name))
        if (submodule := _submodule(modules, source, name)) != source:
            return submodule
        onward, onward_name = modules[source].imported_names.get(name, ("", ""))
        if onward not in modules:
            break
        source, name = onward, onward_name
    return source


def _source_table(checkout: Path) -> Table:
    modules = read_package(checkout)
    plain, defined = plain_imports(modules), imports_to_definitions(modules)
    re_exporting = {name for name, module in modules.items() if module.is_package}
    folder, files = _widest_folder(modules)
    long_modules = [(m.name, m.lines) for m in modules.values() if m.lines > _LONG_MODULE]
    long_functions = [
        (f"{module.name}.{name}", lines)
        for module in modules.values()
        for name, lines in module.functions()
        if lines > _LONG_FUNCTION
    ]
    rows = [
        ("modules", len(modules)),
        ("lines of code", sum(count_code(module.source) for module in modules.values())),
        ("lines", sum(module.lines for module in modules.values())),
        ("imports, to the definition, of all but __init__", _without(defined, re_exporting)),
        ("imports, to the definition, of all", len(defined)),
        ("imports as written, of all but __init__", _without(plain, re_exporting)),
        ("imports as written, of all", len(plain)),
        *_command_line_rows(checkout, modules),
        (f"files in the widest folder, {folder}", files),
        (f"modules over {_LONG_MODULE} lines", len(long_modules)),
        *_in_order(long_modules),
        (f"functions over {_LONG_FUNCTION} lines", len(long_functions)),
        *_in_order(long_functions),
    ]
    return Table("Source", ("what", "figure"), [(what, f"{figure:,}") for what, figure in rows])


def _without(pairs: set[tuple[str, str]], importers: set[str]) -> int:
    return sum(importer not in importers for importer, _ in pairs)


def _command_line_rows(checkout: Path, modules: dict[str, Module]) -> Iterator[tuple[str, int]]:
    commands = [m for name, m in modules.items() if f"{name}.".startswith(f"{_PACKAGE}.cli.")]
    tests = read_package(checkout, "tests/cli").values()
    yield "modules of cli/", len(commands)
    yield "lines of cli/", sum(module.lines for module in commands)
    yield "lines of the tests of cli/", sum(module.lines for module in tests)


def _widest_folder(modules: dict[str, Module]) -> tuple[str, int]:
    folders = Counter(
        module.name if module.is_package else module.name.rpartition(".")[0]
        for module in modules.values()
    )
    return folders.most_common(1)[0]


def _in_order(measured: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    return [(f"  {name}", lines) for name, lines in sorted(measured, key=lambda one: -one[1])]


@contextmanager
def _compiled_modules() -> Iterator[None]:
    """Make child processes store compiled modules, if need be in a temporary folder."""
    if not sys.dont_write_bytecode:
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        before = dict(os.environ)
        os.environ["PYTHONPYCACHEPREFIX"] = folder
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def _processor_table(checkout: Path, rounds: int) -> Table:
    times: dict[str, list[float]] = {title: [] for title in _PROGRAMS}
    for _ in range(rounds):
        for title, arguments in _PROGRAMS.items():
            times[title].append(_processor_time(checkout, arguments))
    rows = []
    for title, arguments in _PROGRAMS.items():
        ratios = (ours / base for ours, base in zip(times[title], times[_BASELINE], strict=True))
        own, loaded = _count_loaded(checkout, arguments)
        milliseconds = statistics.median(times[title]) * 1000
        ratio = statistics.median(ratios)
        rows.append((title, f"{milliseconds:.0f}", f"{ratio:.1f}", str(own), str(loaded)))
    header = ("program", "CPU, ms", "ratio", f"modules of {_PACKAGE}", "modules in all")
    return Table(f"Start of a program, medians of {rounds} rounds", header, rows)


def _comparison_table(checkout: Path, rounds: int) -> Table:
    rows = []
    for ours, theirs in _COMPARED:
        if ours.listens and sys.platform != "linux":
            continue
        times = [[_measure_start(checkout, each) for each in (ours, theirs)] for _ in range(rounds)]
        own, other = map(statistics.median, zip(*times, strict=True))
        ratio = statistics.median(first / second for first, second in times)
        rows.append((ours.title, f"{own:.0f}", theirs.title, f"{other:.0f}", f"{ratio:.2f}"))
    header = ("program", "CPU, ms", "beside", "CPU, ms", "ratio")
    return Table(f"Start beside Twisted, medians of {rounds} rounds", header, rows)


def _measure_start(checkout: Path, start: _Start) -> float:
    """Return the processor time of a start in milliseconds."""
    measure = _time_to_listen if start.listens else _processor_time
    return measure(checkout, start.arguments) * 1000


def _time_to_listen(checkout: Path, arguments: Sequence[str]) -> float:
    """
    Return the seconds of processor time until a service listens; then stop the service.

    :raises MeasurementError: when the service ends before it listens.
    """
    service = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=checkout,
        # Warnings of Twisted's own service are none of ours, and may be errors in this process.
        env={name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with service:
        lines = []
        for line in service.stdout or ():
            lines.append(line)
            if _LISTENS in line:
                spent = cpu_time(service.pid)
                service.terminate()
                service.communicate()
                return spent / 1e9
    raise MeasurementError(f"{shlex.join(arguments)} does not listen: {''.join(lines)}")


def _processor_time(checkout: Path, arguments: Sequence[str]) -> float:
    """
    Seconds of user and system time that one program takes.

    :raises subprocess.CalledProcessError: when the program fails.
    """
    child = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=checkout,  # The first place where it looks for modules.
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, child.args)
    return usage.ru_utime + usage.ru_stime


def _count_loaded(checkout: Path, arguments: Sequence[str]) -> tuple[int, int]:
    """Count the modules of the package, and all modules, that one program loads."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        cwd=checkout,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    names = [
        line.rpartition("|")[2].strip()
        for line in done.stderr.splitlines()
        if line.startswith("import time:")
    ][1:]  # The first line is a header.
    return sum(name.split(".")[0] == _PACKAGE for name in names), len(names)


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks structure",
        description="Count modules, lines and imports, and measure what it costs to import twsock.",
    )
    add = parser.add_argument
    add("--checkout", type=Path, default=_ROOT, metavar="PATH", help="default: this one")
    add("--rounds", type=int, default=9, metavar="N", help="medians of so many (default 9)")
    add("--only-source", action="store_true", help="start no programs")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables."""
    options = _make_parser().parse_args(argv)
    print(_source_table(options.checkout).to_text())
    if options.only_source:
        return
    with _compiled_modules():
        for make_table in (_processor_table, _comparison_table):
            make_table(options.checkout, 1)  # Compiles the modules.
            print()
            print(make_table(options.checkout, options.rounds).to_text())


if __name__ == "__main__":
    main()
