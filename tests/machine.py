"""
A small machine with systemd, in a container of systemd-nspawn: a script runs on it as root.

Its root is a new folder with the read-only ``/usr`` of this machine; it sees no other folder, since
systemd empties ``/tmp`` when it boots. It has a network of its own with the loopback interface
alone, no devices, and the twsock of this checkout in ``/opt/twsock``. It ends with the process of
the tests, however that ends.

Its root user is the root of this machine for the kernel: systemd cannot load the filters of
``IPAddressDeny=`` in a user namespace. So a machine is started only where
``TWSOCK_TESTS=machines`` asks for it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests import MACHINES

__all__ = ["run_on_a_machine", "why_no_machine"]

#: The checkout.
ROOT: Final = Path(__file__).resolve().parent.parent
#: Seconds for a script; many times the time of the slowest.
_PATIENCE: Final = 600
#: Seconds until all processes of a machine that was killed have ended.
_END: Final = 60

# These mounts are seen by nspawn alone. It needs a /run that is a file system of its own. It makes
# groups in each hierarchy of control groups that it finds, so it finds only that of version 2,
# where its process is in a group that no other machine shares.
_NSPAWN: Final = """
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo $$ > "/sys/fs/cgroup/$1/cgroup.procs"
shift
exec systemd-nspawn "$@"
"""

_UNIT: Final = """
[Unit]
SuccessAction=exit-force
FailureAction=exit-force

[Service]
Type=oneshot
WorkingDirectory=/srv/clone
ExecStart=/bin/bash -euxo pipefail /srv/script
StandardOutput=file:/srv/output
StandardError=file:/srv/output
"""

_COMMAND: Final = """#!/bin/sh
export PYTHONPATH=/opt/checkout:/opt/packages PYTHONDONTWRITEBYTECODE=1
export LD_LIBRARY_PATH=/opt/python/lib
exec {python} {program} "$@"
"""
_COMMANDS: Final = {
    "python3": "",
    "twistd": """-c 'import sys
from twisted.scripts.twistd import run
sys.argv[0] = "twistd"
run()'""",
    "twsock": "-m twsock",
}


@functools.cache
def why_no_machine() -> str | None:
    """Return why no machine can be started here; None if one can."""
    if not MACHINES:
        return "machines with systemd are started with TWSOCK_TESTS=machines"
    if os.geteuid() != 0:
        return "a machine with systemd needs root"
    for program in ("systemd-nspawn", "setpriv", "unshare", "mount", "bash"):
        if shutil.which(program) is None:
            return f"not installed: {program}"
    try:
        run_on_a_machine("true")
    except (AssertionError, OSError, subprocess.TimeoutExpired) as error:
        return f"systemd-nspawn does not work here: {str(error)[-200:]}"
    return None


def run_on_a_machine(script: str) -> str:
    """
    Start a machine, and run a script for bash on it, which stops at the first failure.

    Its working directory has the folder ``deploy/`` of this checkout.

    :returns: each command, after ``+``, and its output.
    :raises AssertionError: when the script fails or does not end, with its output.
    """
    with tempfile.TemporaryDirectory() as folder, _control_group() as group:
        root = Path(folder, "root")
        _fill(root, script)
        options = [
            *("--quiet", f"--directory={root}", "--bind-ro=/usr", *_bound()),
            *("--private-network", "--register=no", "--keep-unit", "--link-journal=no"),
            # For the filters of IPAddressDeny=, which are programs in BPF.
            *("--capability=CAP_BPF,CAP_NET_ADMIN", "--system-call-filter=bpf"),
            # Without it nobody on the machine can open a disk of this one.
            "--drop-capability=CAP_MKNOD",
            *("--console=pipe", f"--rlimit=NOFILE=1024:{_most_files()}"),
        ]
        done = subprocess.run(
            [
                # The end of this process kills unshare, that kills nspawn, the first process of a
                # namespace, and that ends all others in it. systemd outlives its nspawn otherwise.
                *("setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child"),
                *("--mount-proc", "--propagation", "private"),
                *("sh", "-euc", _NSPAWN, "sh", group.name, *options),
                *("--boot", "--", "systemd.unit=script.service"),
            ],
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
        written = root / "srv" / "output"
        output = written.read_text("utf-8") if written.exists() else "the script did not run"
    if done.returncode:
        raise AssertionError(f"status {done.returncode}\n{done.stdout}\n{output}")
    return output


@contextlib.contextmanager
def _control_group() -> Iterator[Path]:
    """
    Make a control group (version 2) for a machine.

    At the end all processes in it are killed, and it is removed with all groups in it.
    """
    mounts = [line.split() for line in Path("/proc/mounts").read_text("utf-8").splitlines()]
    places = [Path(words[1]) for words in mounts if words[2] == "cgroup2"]
    if not places:
        raise AssertionError("cgroup2 is not mounted")
    group = Path(tempfile.mkdtemp(prefix="twsock-", dir=places[0]))
    try:
        yield group
    finally:
        _wait_until_empty(group)
        # rmdir(2) removes a group with its files.
        for path, _, _ in os.walk(group, topdown=False):
            Path(path).rmdir()


def _wait_until_empty(group: Path) -> None:
    """Kill what is left in a control group, as after a timeout, and wait for its end."""
    deadline = time.monotonic() + _END
    while "populated 1" in (group / "cgroup.events").read_text("utf-8"):
        if time.monotonic() > deadline:
            raise AssertionError(f"processes remain in {group}")
        (group / "cgroup.kill").write_text("1", "utf-8")
        time.sleep(0.01)


def _most_files() -> int:
    """Return the limit of open files that services may raise their own to, as systemd sets it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return hard if 0 < hard < 524_288 else 524_288


def _python() -> str:
    """Return the path of this Python on the machine."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if sys.base_prefix.startswith("/usr"):
        return f"{sys.base_prefix}/bin/{version}"
    return f"/opt/python/bin/{version}"


def _bound() -> list[str]:
    """Return the options for the folders of this Python and of this checkout."""
    folders = {"/opt/checkout": ROOT, "/opt/packages": sysconfig.get_path("purelib")}
    if not sys.base_prefix.startswith("/usr"):
        folders["/opt/python"] = sys.base_prefix
    return [f"--bind-ro={here}:{there}" for there, here in folders.items()]


def _fill(root: Path, script: str) -> None:
    """Make the files of a machine that was just installed."""
    for name in ("etc/systemd/system", "etc/haproxy", "opt/twsock/bin", "srv/clone", "usr", "var"):
        (root / name).mkdir(parents=True)
    (root / "var/lib/haproxy/dev").mkdir(parents=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        (root / name).symlink_to(f"usr/{name}")
    files = {
        "etc/machine-id": "",
        "etc/os-release": "ID=test\n",
        "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
        "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
        "etc/passwd": "root:x:0:0::/root:/bin/bash\nhaproxy:x:199:199::/:/bin/false\n",
        "etc/group": "root:x:0:\nhaproxy:x:199:\n",
        "etc/systemd/system/script.service": _UNIT,
        "srv/script": script,
    }
    for name, text in files.items():
        (root / name).write_text(text, "utf-8")
    for name, program in _COMMANDS.items():
        command = root / "opt/twsock/bin" / name
        command.write_text(_COMMAND.format(python=_python(), program=program), "utf-8")
        command.chmod(0o755)
    (root / "srv/clone/deploy").symlink_to("/opt/checkout/deploy")
