"""
Installing puts the plugins where `twistd` finds them, and uninstalling removes them.

Each way to install is tried in a virtual environment of its own. Twisted and its dependencies are
copied into it from the environment of the tests: nothing is downloaded, and twsock and Twisted
share one ``site-packages``, as in a user's environment. Builds read a copy of the checkout, so the
checkout does not change.
"""

from __future__ import annotations

import atexit
import configparser
import functools
import importlib.util
import os
import re
import select
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from twisted.trial.unittest import SynchronousTestCase

from tests import THOROUGH

ROOT = Path(__file__).resolve().parent.parent
#: Files that a build may read, and folders beside them that it must leave out.
SOURCES = (
    *("LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.cfg"),
    *("deploy", "docs", "twisted", "twsock"),
)
BYSTANDERS = ("benchmarks", "examples", "tests")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "dropin.cache", "*.egg-info", "build", "dist")
#: Seconds for one command; many times the time of the slowest.
PATIENCE = 120.0
NO_PIP = None if importlib.util.find_spec("pip") else "pip is not installed beside these tests"
#: The reason why a variant of the installation is not tried; `.ci/run` tries both on every Python.
NOT_THOROUGH = None if THOROUGH else "a variant, which runs with TWSOCK_TESTS=thorough"


@functools.cache
def workshop() -> Path:
    """Make a temporary folder outside the checkout, for all builds and environments."""
    folder = Path(tempfile.mkdtemp(prefix="twsock-packaging-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "elsewhere").mkdir()
    return folder


def run(*command: str | Path) -> str:
    """
    Run a command in a folder outside the checkout.

    :returns: its standard output.
    :raises AssertionError: when it fails; holds all that it printed.
    """
    # The caller's paths and settings must not reach the new environments.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PIP_", "PYTHON", "VIRTUAL_ENV"))
    }
    environment |= {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        command,
        cwd=workshop() / "elsewhere",
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if done.returncode:
        raise AssertionError(f"{command} exited {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def pip(*arguments: str | Path) -> str:
    """Run this environment's pip; with ``--python`` it acts on another environment."""
    return run(sys.executable, "-m", "pip", *arguments)


def copy_of_the_checkout(name: str) -> Path:
    """Copy the files of a build and the folders beside them into a folder of that name."""
    copy = workshop() / name
    copy.mkdir()
    for entry in SOURCES + BYSTANDERS:
        if (ROOT / entry).is_dir():
            shutil.copytree(ROOT / entry, copy / entry, ignore=LEFT_OUT)
        elif (ROOT / entry).exists():
            shutil.copy2(ROOT / entry, copy)
    return copy


@functools.cache
def wheel() -> Path:
    """Build the wheel, as a release does but without a network."""
    checkout, built = copy_of_the_checkout("wheel-source"), workshop() / "wheels"
    options = ["--no-index", "--no-deps", "--no-build-isolation", "--quiet"]
    pip("wheel", *options, "--wheel-dir", built, checkout)
    (found,) = built.iterdir()
    return found


@functools.cache
def source_distribution() -> set[str]:
    """Build the source distribution; return the paths of its files, from its own folder on."""
    checkout, built = copy_of_the_checkout("distribution-source"), workshop() / "distributions"
    built.mkdir()
    program = "import os, sys; from setuptools.build_meta import build_sdist as build"
    run(sys.executable, "-c", f"{program}; os.chdir({str(checkout)!r}); build({str(built)!r})")
    (found,) = built.iterdir()
    with tarfile.open(found) as archive:
        files = [Path(member.name) for member in archive.getmembers() if member.isfile()]
    return {str(Path(*path.parts[1:])) for path in files}


@functools.cache
def dependencies() -> list[Distribution]:
    """List all dependencies of twsock, indirect ones and those of a build included."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    wanted = ["setuptools", *setup["options"]["install_requires"].split("\n")]
    waiting = [Requirement(line) for line in wanted if line]
    found: dict[str, Distribution] = {}
    seen = set()
    while waiting:
        requirement = waiting.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        package = found[requirement.name] = distribution(requirement.name)
        extras = requirement.extras or {""}
        for needed in map(Requirement, package.requires or ()):
            marker = needed.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(needed)
    return list(found.values())


def copy_files(package: Distribution, site_packages: Path) -> None:
    """Copy an installed distribution without its commands, which name their environment."""
    assert package.files, f"{package.name} was installed without a list of its files"
    for file in package.files:
        if file.parts[0] != "..":
            target = site_packages / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(str(package.locate_file(file)), target)


class Environment:
    """A fresh virtual environment with Twisted and without twsock."""

    def __init__(self, folder: Path) -> None:
        run(sys.executable, "-m", "venv", "--without-pip", folder)
        self._commands = folder / "bin"
        python = self._commands / "python"
        (self.site_packages,) = folder.glob("lib/python*/site-packages")
        for package in dependencies():
            copy_files(package, self.site_packages)
        twistd = self._commands / "twistd"
        twistd.write_text(f"#!{python}\nfrom twisted.scripts.twistd import run\nrun()\n")
        twistd.chmod(0o755)

    def install(self, *what: str | Path) -> None:
        """Install local files with pip."""
        options = ["--no-index", "--no-deps", "--no-build-isolation", "--quiet"]
        pip("--python", self._commands / "python", "install", *options, *what)

    def uninstall(self) -> None:
        """Uninstall twsock with pip."""
        pip("--python", self._commands / "python", "uninstall", "--yes", "--quiet", "twsock")

    def run(self, command: str, *arguments: str) -> str:
        """Run an installed command."""
        return run(self._commands / command, *arguments)

    def listed(self, option: str) -> set[str]:
        """Return the names in the list that `twistd` prints with an option."""
        return set(re.findall(r"^ {4}([\w-]+)\s", self.run("twistd", option), re.MULTILINE))

    def traces(self) -> list[str]:
        """Return the files and folders in ``site-packages`` with twsock in their names."""
        return [str(path) for path in self.site_packages.rglob("*twsock*")]


@dataclass(frozen=True, slots=True)
class Findings:
    """Observations in one environment, with twsock installed and after uninstalling it."""

    services: set[str]
    reactors: set[str]
    client_help: str
    services_after: set[str]
    traces_after: list[str]


@functools.cache
def findings(route: str) -> Findings:
    """Install in one way, observe, uninstall, and observe again."""
    environment = Environment(workshop() / f"{route}-environment")
    if route == "wheel":
        environment.install(wheel())
    elif route == "source":
        environment.install(copy_of_the_checkout("source"))
    else:
        environment.install("--editable", copy_of_the_checkout("editable"))
    services = environment.listed("--help")
    reactors = environment.listed("--help-reactors")
    client_help = environment.run("twsock", "--help")
    environment.uninstall()
    return Findings(
        services, reactors, client_help, environment.listed("--help"), environment.traces()
    )


class WheelInstallTests(SynchronousTestCase):
    """The claims about every way to install; here ``pip install`` of a wheel."""

    skip = NO_PIP
    route = "wheel"

    def test_twistd_lists_the_services(self) -> None:
        """From any folder, `twistd` lists our services beside Twisted's own."""
        self.assertLessEqual({"twsock", "twsock-stream", "web"}, findings(self.route).services)

    def test_twistd_lists_the_reactor(self) -> None:
        """From any folder, `twistd` lists our reactor beside Twisted's own."""
        self.assertLessEqual({"twsock", "poll"}, findings(self.route).reactors)

    if not hasattr(select, "epoll"):
        test_twistd_lists_the_reactor.skip = "this platform has no epoll"  # type: ignore[attr-defined]

    def test_the_client_is_a_command(self) -> None:
        """The command ``twsock`` is installed and has the subcommand ``echo``."""
        self.assertIn("echo", findings(self.route).client_help)

    def test_uninstalling_leaves_twisted_as_it_was(self) -> None:
        """After uninstalling, `twistd` still runs and lists no service of ours."""
        services = findings(self.route).services_after
        self.assertIn("web", services)
        self.assertEqual([name for name in services if "twsock" in name], [])

    def test_uninstalling_leaves_no_file(self) -> None:
        """No file with our name stays in ``site-packages``."""
        self.assertEqual(findings(self.route).traces_after, [])


class SourceInstallTests(WheelInstallTests):
    """The same for ``pip install .`` in a checkout."""

    skip = NO_PIP or NOT_THOROUGH
    route = "source"


class EditableInstallTests(WheelInstallTests):
    """The same for ``pip install --editable .`` in a checkout."""

    skip = NO_PIP or NOT_THOROUGH
    route = "editable"


class WheelTests(SynchronousTestCase):
    """The files and the metadata of the wheel."""

    skip = NO_PIP

    def names(self) -> set[str]:
        with zipfile.ZipFile(wheel()) as archive:
            return {name for name in archive.namelist() if ".dist-info/" not in name}

    def metadata(self) -> Message:
        with zipfile.ZipFile(wheel()) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
            return Parser().parsestr(archive.read(name).decode())

    def test_all_modules_plugins_and_the_typing_marker_are_in_it(self) -> None:
        """It has every module and plugin of the checkout, ``py.typed``, and nothing else."""
        modules = [*ROOT.glob("twsock/**/*.py"), *ROOT.glob("twisted/plugins/twsock_*.py")]
        expected = {path.relative_to(ROOT).as_posix() for path in modules}
        self.assertEqual(self.names(), expected | {"twsock/py.typed"})

    def test_only_plugins_are_installed_into_twisted(self) -> None:
        """It has plugins in Twisted's folder, and no ``__init__.py``, which Twisted has."""
        ours = {name for name in self.names() if name.startswith("twisted/")}
        self.assertTrue(ours)
        self.assertEqual([name for name in ours if "/plugins/twsock_" not in name], [])

    def test_the_metadata_names_licence_and_pythons(self) -> None:
        """It names the MIT licence and Python 3.10, and contains the text of the licence."""
        metadata = self.metadata()
        self.assertEqual(metadata["License-Expression"], "MIT")
        self.assertEqual(metadata["License-File"], "LICENSE")
        self.assertEqual(metadata["Requires-Python"], ">=3.10")

    def test_at_run_time_it_needs_twisted_with_tls_and_h11_only(self) -> None:
        """Without extras it needs Twisted, a package that Twisted needs, too, and a parser."""
        needed = map(Requirement, self.metadata().get_all("Requires-Dist", []))
        names = {need.name: need.extras for need in needed if need.marker is None}
        self.assertEqual(names, {"Twisted": {"tls"}, "h11": set(), "typing_extensions": set()})


class SourceDistributionTests(SynchronousTestCase):
    """The files of the source distribution."""

    def test_files_to_deploy_and_pages_are_in_it(self) -> None:
        """It has all of ``deploy/`` and ``docs/``, beside the package."""
        files = [path for name in ("deploy", "docs") for path in (ROOT / name).rglob("*.*")]
        expected = {str(path.relative_to(ROOT)) for path in files if path.is_file()}
        self.assertLessEqual(expected | {"deploy/Containerfile"}, source_distribution())
