"""What `import twsock` loads, and what type checkers and documentation tools see of lazy names."""

from __future__ import annotations

import json
import os
import pickle
import pydoc
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import cast
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

import twsock
import twsock.sockets
import twsock.stream

_TOP = Path(__file__).parents[1]

#: Seconds for a child process, many times what the slowest takes.
_PATIENCE = 120

#: An editable installation and coverage load modules of third parties when Python starts.
_REPORT = """
import json, sys
before = set(sys.modules)
{statement}
loaded = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(json.dumps(sorted(loaded - set(sys.stdlib_module_names) - {{"twsock"}})))
"""

_MISSPELT = """
import twsock
from twsock import SocketEror
twsock.StreamSockt
"""
_SPELT = """
import twsock
from twsock import SocketError
twsock.StreamSocket
"""


_MODULES = """
import json, sys
{statement}
print(json.dumps(sorted(sys.modules)))
"""


#: Imports each name in a process of its own, which has loaded packages of third parties only.
_EACH_FIRST = """
import os, sys
import h11, twisted.internet.endpoints, twisted.internet.ssl, twisted.protocols.tls
assert "twsock" not in sys.modules
for word in sys.argv[1:]:
    package, name = word.split(":")
    child = os.fork()
    if child == 0:
        exec(f"from {package} import {name}; print({name}.__name__, flush=True)")
        os._exit(0)  # The end of the interpreter takes longer than the import.
    if os.waitpid(child, 0)[1]:
        sys.exit(f"{word} failed")
"""


def run(*command: str | Path, folder: str | Path = _TOP) -> subprocess.CompletedProcess[str]:
    """Run a program that finds this checkout to its end."""
    environment = {**os.environ, "PYTHONPATH": str(_TOP), "MYPYPATH": str(_TOP)}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=_PATIENCE
    )


def run_python(code: str, *words: str) -> str:
    """Run code in a new Python; return what it printed."""
    done = run(sys.executable, "-c", code, *words)
    if done.returncode:
        raise AssertionError(done.stderr)
    return done.stdout


def third_parties(statement: str) -> list[str]:
    """Return the packages of third parties that a statement loads into a new Python."""
    return cast("list[str]", json.loads(run_python(_REPORT.format(statement=statement))))


def modules_after(statement: str) -> list[str]:
    """Return the names of all modules that a new Python has after a statement."""
    return cast("list[str]", json.loads(run_python(_MODULES.format(statement=statement))))


def is_below(name: str, modules: tuple[str, ...]) -> bool:
    """Return whether a module is one of these, or in one of these packages."""
    return any(f"{name}.".startswith(f"{module}.") for module in modules)


def find(*tools: str) -> str:
    """Return the first tool that is installed, beside this Python or on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    for tool in tools:
        found = shutil.which(tool, path=path)
        if found:
            return found
    raise SkipTest(f"not installed: {' or '.join(tools)}")


class LoadingTests(SynchronousTestCase):
    """What an import loads besides the standard library."""

    def test_formats_errors_and_names_load_no_third_party(self) -> None:
        """`twsock.wire`, `twsock.errors` and `twsock.names` need the standard library only."""
        for module in ("twsock", "twsock.wire", "twsock.wire.values", "twsock.errors"):
            self.assertEqual(third_parties(f"import {module}"), [], module)
        self.assertEqual(third_parties("import twsock.names"), [])

    def test_names_from_the_top_load_only_their_own_modules(self) -> None:
        """A value or an error that is imported from `twsock` does not load Twisted."""
        names = "BrokenError, ByteOrder, EndpointPair, HostName, SocketErrorStatus"
        self.assertEqual(third_parties(f"from twsock import {names}"), [])

    def test_a_stream_socket_loads_what_stream_sockets_need(self) -> None:
        """Datagrams, services, DNS client, endpoints and reactor are not loaded."""
        unwanted = (
            *("twsock.datagram", "twsock.sockets.datagram", "twsock.sockets.service_records"),
            *("twsock.services", "twsock.cli", "twsock.protocols", "twsock.tls.development"),
            *("twsock.sockets.stream.listener", "twsock.stream.protocol", "twsock.stream.registry"),
            *("twsock.stream.listening.proxy_endpoint", "twsock.stream.listening.unix_endpoint"),
            *("twisted.names", "twisted.plugin", "twisted.web", "twisted.internet.endpoints"),
            *("twisted.internet.reactor", "twisted.internet.posixbase", "twisted.internet.unix"),
            *("h11", "rich", "hypothesis"),
        )
        for statement in ("from twsock import StreamSocket", "import twsock.stream.connection"):
            loaded = modules_after(statement)
            self.assertEqual(
                [name for name in loaded if is_below(name, unwanted)], [], f"{statement=}"
            )

    def test_a_listener_loads_no_datagrams_and_no_endpoints(self) -> None:
        """A server of streams needs neither of them."""
        unwanted = ("twsock.datagram", "twsock.sockets.datagram", "twisted.internet.endpoints")
        loaded = modules_after("from twsock import StreamSocketListener")
        self.assertEqual([name for name in loaded if is_below(name, unwanted)], [])

    def test_services_without_a_page_load_no_http_server(self) -> None:
        """`twisted.web` and prometheus-client are loaded when ``--metrics`` listens."""
        unwanted = ("twisted.web", "prometheus_client")
        loaded = modules_after("import twsock.services.everything, twsock.services.metrics")
        self.assertEqual([name for name in loaded if is_below(name, unwanted)], [])

    def test_only_international_names_load_idna(self) -> None:
        """A host name of ASCII characters loads nothing; the first other one loads `idna`."""
        ascii_name = "from twsock import HostName; HostName('Example.COM')"
        self.assertEqual(third_parties(ascii_name), [])
        self.assertEqual(third_parties(f"{ascii_name}; HostName('bücher.example')"), ["idna"])

    def test_modules_are_attributes_without_an_import_of_their_own(self) -> None:
        """After ``import twsock`` alone, its documented modules can be used."""
        modules = ("errors", "names", "protocols", "sockets", "tls", "wire")
        used = "; ".join(f"twsock.{module}" for module in modules)
        self.assertEqual(run_python(f"import twsock; {used}"), "")

    def test_values_and_errors_are_unpickled_where_nothing_is_loaded(self) -> None:
        """A pickle of an error, an enum member or a name loads the modules that it needs."""
        values = [
            twsock.BrokenError("lost", status=twsock.SocketErrorStatus.CONNECTION_RESET_BY_PEER),
            twsock.ByteOrder.BIG_ENDIAN,
            twsock.HostName("bücher.example"),
            twsock.EndpointPair(None, "", twsock.HostName("::1"), "1337"),
        ]
        code = f"import pickle; print(repr(pickle.loads({pickle.dumps(values)!r})))"
        self.assertEqual(run_python(code).strip(), repr(values))


class NamesTests(SynchronousTestCase):
    """Lazy names are used as others are."""

    def test_star_import_gives_all_names(self) -> None:
        """``from twsock import *`` binds exactly what ``__all__`` lists; so do its packages."""
        for package in ("twsock", "twsock.sockets", "twsock.stream"):
            names: dict[str, object] = {}
            exec(f"from {package} import *", names)
            names.pop("__builtins__")
            self.assertEqual(sorted(names), sorted(sys.modules[package].__all__), package)

    def test_each_module_of_a_lazy_package_can_be_the_first(self) -> None:
        """Without modules of twsock, a name of any module is found without a cycle of imports."""
        words: list[str] = []
        for package in (twsock.sockets, twsock.stream):
            names = {getattr(package, name).__module__: name for name in package.__all__}
            words += [f"{package.__name__}:{name}" for name in names.values()]
        printed = run_python(_EACH_FIRST, *words).split()
        self.assertEqual(printed, [word.partition(":")[2] for word in words])

    def test_dir_lists_names_that_were_not_used(self) -> None:
        """``dir(twsock)`` has each public name from the beginning, for completion in shells."""
        listed = json.loads(run_python("import json, twsock; print(json.dumps(dir(twsock)))"))
        self.assertEqual(set(twsock.__all__) - set(listed), set())
        self.assertIn("protocols", listed)

    def test_documentation_shows_every_name(self) -> None:
        """``help(twsock)`` in a new Python has a heading for each public class and function."""
        code = "import pydoc, twsock; print(pydoc.plain(pydoc.render_doc(twsock)))"
        shown = run_python(code)
        for name in twsock.__all__:
            heading = "class " if isinstance(getattr(twsock, name), type) else "    "
            self.assertIn(f"{heading}{name}(", shown, name)
        self.assertIn("class StreamSocket", pydoc.render_doc("twsock.StreamSocket"))

    def test_a_misspelt_name_fails_with_a_suggestion(self) -> None:
        """A name that does not exist raises an ``AttributeError`` or ``ImportError`` with it."""
        with self.assertRaises(AttributeError) as caught:
            getattr(twsock, "SocketEror")  # noqa: B009 - as an attribute, mypy would refuse it
        self.assertEqual(str(caught.exception), "module 'twsock' has no attribute 'SocketEror'")
        self.assertIs(caught.exception.obj, twsock)
        done = run(sys.executable, "-c", "from twsock import SocketEror")
        self.assertIn("cannot import name 'SocketEror' from 'twsock'", done.stderr)


class TypeCheckerTests(SynchronousTestCase):
    """Type checkers know which names exist, though they are imported when used."""

    def assert_finds_misspelt_names(self, *command: str | Path) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for name, source in (("spelt.py", _SPELT), ("misspelt.py", _MISSPELT)):
                Path(folder, name).write_text(source)
            passed = run(*command, "spelt.py", folder=folder)
            failed = run(*command, "misspelt.py", folder=folder)
        self.assertEqual(passed.returncode, 0, passed.stdout + passed.stderr)
        self.assertEqual(failed.returncode, 1, failed.stdout + failed.stderr)
        for name in ("SocketEror", "StreamSockt"):
            self.assertIn(name, failed.stdout, f"{name=}: {failed.stdout}")

    def test_mypy_refuses_a_misspelt_name(self) -> None:
        """Mypy accepts the names that exist and reports those that do not."""
        # Twisted need not be read to know the names of `twsock`, which saves most of the time.
        options = ("--config-file=", "--cache-dir=/dev/null", "--follow-imports=skip")
        top = _TOP / "twsock" / "__init__.py"
        self.assert_finds_misspelt_names(
            find("mypy"), *options, "--ignore-missing-imports", "--explicit-package-bases", top
        )

    def test_pyright_refuses_a_misspelt_name(self) -> None:
        """pyright, or its fork that needs no download, does as well."""
        tool = find("basedpyright", "pyright")
        self.assert_finds_misspelt_names(tool, "--level=error", f"--pythonpath={sys.executable}")
