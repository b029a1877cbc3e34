"""The files of tests mirror the package: each module has one, under the same path and name."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent
#: Modules without a file of tests of their own → where their tests are.
UNPAIRED_MODULES: dict[str, str] = {}
#: Files of tests that belong to no single module → what they test.
UNPAIRED_TESTS = {
    "tests/sockets/stream/test_blocks.py": "``async with`` of all classes that can be closed",
    "tests/sockets/stream/test_conversations.py": "sockets and values together",
    "tests/sockets/stream/test_ends_in_memory.py": "transports that call back within a close",
    "tests/stream/test_moving_model.py": "one connection that moves at random moments",
    "tests/sockets/stream/test_synchronous_pairs.py": "any conversation on transports in memory",
    "tests/test_deployment.py": "deploy/, docs/deployment.rst",
    "tests/test_documents.py": "README.md, CONTRIBUTING.md, docs/, newsfragments/",
    "tests/test_coming_from.py": "docs/coming-from.rst",
    "tests/test_examples.py": "examples/",
    "tests/test_lazy_imports.py": "the names of `twsock`, which are imported when used",
    "tests/test_layers.py": "the imports of all modules",
    "tests/test_main.py": "twsock/__main__.py",
    "tests/websocket/test_websockets_handshake.py": "the handshake with `websockets`",
    "tests/sockets/websocket/test_any_conversation.py": "calls and events in any order",
    "tests/sockets/websocket/test_bounds.py": "the memory that servers of WebSockets take",
    "tests/sockets/websocket/test_defaults.py": "the defaults of all kinds of WebSockets",
    "tests/stream/test_every_end.py": "each event in each state of twsock/stream/closing.py",
    "tests/stream/test_synchronous_conversations.py": "protocols on transports in memory",
    "tests/websocket/test_beside_websockets.py": "frames and messages, against another decoder",
    "tests/websocket/test_deflate_beside_websockets.py": "compression, against another decoder",
    "tests/websocket/test_page.py": "docs/wire/websocket.rst",
    "tests/stream/test_upgrade_model.py": "both sides of an upgrade, against a hostile peer",
    "tests/test_attacks.py": "docs/attacks.rst",
    "tests/test_browsers.py": "WebSockets, with Chromium",
    "tests/test_autobahn.py": "twsock/websocket/, with the test suite of Autobahn",
    "tests/test_outside_metrics.py": "metrics, read by programs of Prometheus",
    "tests/test_outside_stops.py": "queued clients of a stop, with outside programs",
    "tests/test_outside_tools.py": "the upgrade, with outside tools",
    "tests/test_outside_compression.py": "compressed WebSockets, with outside programs",
    "tests/test_outside_proxies.py": "WebSockets through outside proxies",
    "tests/test_outside_websockets.py": "WebSockets, with outside programs",
    "tests/test_packaging.py": "setup.cfg, MANIFEST.in",
    "tests/test_pairing.py": "tests/ itself",
    "tests/test_parameters.py": "the parameters of all public calls",
    "tests/test_private_names.py": "twsock/_twisted.py",
    "tests/test_paths.py": "the modules and calls of an event, the length of modules",
    "tests/test_public_names.py": "the public names of all modules",
    "tests/test_restart_command.py": "twsock restart, with services and systemd",
    "tests/test_rows.py": "tests/rows.py, which removes rows of tables",
    "tests/test_state_tables.py": "tests/state_tables.py, which writes tables into the page",
}
#: Folders of tests that do not mirror the package → what they test.
UNPAIRED_FOLDERS = {
    "tests/loopback": "behaviour that only a kernel can show",
    "tests/benchmarks": "benchmarks/",
}


def tests_for(module: Path) -> str:
    """
    Return the file of tests that belongs to a module.

    :param module: its path, relative to the checkout.
    """
    return str(Path("tests", *module.parts[1:-1], f"test_{module.name}"))


def is_paired(module: Path) -> bool:
    """Return whether a module needs its own tests; those of its importers cover a private one."""
    return not module.name.startswith("_")


def found(pattern: str) -> set[Path]:
    return {path.relative_to(ROOT) for path in ROOT.glob(pattern)}


def expected_tests() -> set[str]:
    modules = {path for path in found("twsock/**/*.py") if is_paired(path)}
    return {tests_for(path) for path in modules if str(path) not in UNPAIRED_MODULES}


class PairingTests(SynchronousTestCase):
    """Each module has a file of tests, and each file of tests a module."""

    def test_every_module_has_its_tests(self) -> None:
        """``twsock/wire/frames.py`` has ``tests/wire/test_frames.py``, and so on."""
        tests = {str(path) for path in found("tests/**/test_*.py")}
        self.assertEqual(sorted(expected_tests() - tests), [])

    def test_every_file_of_tests_has_its_module(self) -> None:
        """A file of tests belongs to a module, or is listed as an exception."""
        for path in found("tests/**/test_*.py"):
            if not UNPAIRED_FOLDERS.keys() & {str(folder) for folder in path.parents}:
                self.assertIn(str(path), expected_tests() | UNPAIRED_TESTS.keys(), path)

    def test_listed_exceptions_exist(self) -> None:
        """The exceptions name only existing files and folders."""
        for path in (*UNPAIRED_MODULES, *UNPAIRED_TESTS, *UNPAIRED_FOLDERS):
            self.assertTrue((ROOT / path).exists(), path)

    def test_every_folder_of_tests_is_a_package(self) -> None:
        """A folder without an ``__init__.py`` is silently ignored by trial."""
        folders = {path.parent for path in found("tests/**/*.py")}
        self.assertEqual([f for f in folders if not (ROOT / f / "__init__.py").exists()], [])
