"""
Several hosts on one machine: network namespaces joined by a virtual cable or a bridge.

Only root may create them, on Linux, with ``ip``. They do not change the machine's own network.
Nothing is left after a test, even if it fails.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar
from unittest import SkipTest

from tests.forking import ROOT, Run

__all__ = [
    "Child",
    "Host",
    "add_network",
    "hosts",
    "needs_hosts",
    "needs_netem",
    "netem_skip_reason",
    "of_link",
    "skip_reason",
    "start_program",
]

#: Seconds after which a child or a command that should have ended is killed, and its test fails.
PATIENCE = 120

#: The name of the interface in every namespace.
_INTERFACE = "eth0"

#: Settings that make IPv6 addresses usable at once, and keep them while an interface is down. They
#: are set for existing and for new interfaces; the kernel uses the larger value.
_SETTINGS = (("accept_dad", 0), ("keep_addr_on_down", 1))

_numbers = itertools.count()

_Test = TypeVar("_Test", bound=Callable[..., object])


class Child:
    """
    A process on a host, with input and output by lines.

    :ivar process: has text pipes; its standard error goes to its standard output.
    :ivar printed: the output read so far.
    """

    def __init__(self, process: subprocess.Popen[str] | _Forked) -> None:
        self.process = process
        self.printed = ""
        # A process that hangs fails its test, with its output.
        self._patience = threading.Timer(PATIENCE, self.process.kill)
        self._patience.daemon = True
        self._patience.start()

    def read_line(self) -> str:
        """Wait for the next line; return it without its line end."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"the process ended early:\n{self.printed}")
        self.printed += line
        return line.rstrip("\n")

    def wait_for(self, start: str) -> str:
        """Read up to a line that begins with these words; return the rest of that line."""
        while not (line := self.read_line()).startswith(start):
            pass
        return line[len(start) :].strip()

    def say(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def wait(self) -> int:
        """Read the rest of the output, and wait for the end; return ``Popen.returncode``."""
        self.printed += self.process.communicate(timeout=PATIENCE)[0]
        return self.process.wait()

    def end(self) -> None:
        """Kill the process if it runs, and close its pipes."""
        self._patience.cancel()
        if self.process.poll() is None:
            self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self.process.wait()


def start_program(command: Sequence[str]) -> subprocess.Popen[str]:
    """Start a process for a `Child`."""
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


class _Forked(Run):
    """A Python program on a host, forked from a process that has imported the package."""

    def __init__(self, namespace: str, source: str, arguments: Sequence[str]) -> None:
        request = {"namespace": namespace, "source": source, "arguments": arguments}
        (theirs_in, ours_in), (ours_out, theirs_out) = os.pipe(), os.pipe()
        try:
            streams = [theirs_in, theirs_out, theirs_out]
            super().__init__("tests.loopback.preloaded", request, _environment(), streams)
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
            self.stdin = os.fdopen(ours_in, "w", encoding="utf-8")
            self.stdout = os.fdopen(ours_out, encoding="utf-8")

    def kill(self) -> None:
        """Kill the program if it runs."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float) -> tuple[str, None]:
        """Read the rest of the output, and wait for the end; `Child` limits the time."""
        with contextlib.suppress(BrokenPipeError):
            self.stdin.close()
        rest = self.stdout.read()
        self.wait()
        return rest, None


class Host:
    """
    A host, which is a network namespace.

    :ivar namespace: the name of its network namespace.
    :ivar address: its IPv4 address, in a network of 24 bits with the others.
    :ivar address6: its IPv6 address, in a network of 64 bits with the others.
    :ivar interface: the name of the interface that leads to the others.
    """

    def __init__(self, namespace: str, number: int) -> None:
        self.namespace = namespace
        self.address = f"10.77.0.{number}"
        self.address6 = f"fd77::{number}"
        self.interface = _INTERFACE
        #: The state of both ends of the cable when it carries traffic: the namespace, the
        #: interface, and words of ``ip -d link show``.
        self.ends: list[tuple[str, str, str]] = []
        #: Creates the interface and the other end of its cable.
        self.attach: Callable[[], None] = lambda: None
        self._children: list[Child] = []

    def command(self, *arguments: str) -> list[str]:
        """Return the command line that runs a program on this host."""
        return ["ip", "netns", "exec", self.namespace, *arguments]

    def start(self, *arguments: str) -> Child:
        """Start a program on this host; it ends with the host at the latest."""
        return self._keep(Child(start_program(self.command(*arguments))))

    def _keep(self, child: Child) -> Child:
        self._children.append(child)
        return child

    def start_python(self, source: str, *arguments: str) -> Child:
        """Start a Python program on this host from its text; it can import the package."""
        return self._keep(Child(_Forked(self.namespace, source, arguments)))

    def run(self, *arguments: str) -> str:
        """Run a program on this host to its end; return its output."""
        return _printed_by(self.start(*arguments), arguments[0])

    def run_python(self, source: str, *arguments: str) -> str:
        """Run a Python program on this host from its text; return its output."""
        return _printed_by(self.start_python(source, *arguments), "the program")

    def ip(self, *arguments: str) -> str:
        """Run ``ip`` on this host; return its output."""
        return _run("ip", "-n", self.namespace, *arguments)

    def tc(self, *arguments: str) -> str:
        """Run ``tc`` on this host; return its output."""
        return _run("tc", "-n", self.namespace, *arguments)

    def set_down(self) -> None:
        """Take the interface down, as ``ip link set down`` does."""
        self.ip("link", "set", self.interface, "down")

    def set_up(self) -> None:
        """Set the interface up, with its earlier addresses, and wait until it carries traffic."""
        self.ip("link", "set", self.interface, "up")
        self.wait_until_up()

    def unplug(self) -> None:
        """Delete the interface. With two hosts, this also deletes the interface of the other."""
        self.ip("link", "delete", self.interface)

    def plug(self) -> None:
        """Create an interface of the same name and addresses, and wait until it carries traffic."""
        self.attach()
        self.wait_until_up()

    def wait_until_up(self) -> None:
        """Wait until the kernel has connected both ends of the cable."""
        deadline = time.monotonic() + PATIENCE
        for namespace, interface, words in self.ends:
            # The kernel does it in the background, mostly before the first check.
            while words not in (
                shown := _run("ip", "-n", namespace, "-d", "-o", "link", "show", interface)
            ):
                if time.monotonic() > deadline:
                    raise AssertionError(f"there is no {words!r} in time: {shown}")

    def end(self) -> None:
        """End all processes on this host."""
        for child in self._children:
            child.end()
        # All processes of the namespace were started by the test, also those that a child left.
        deadline = time.monotonic() + PATIENCE
        while left := _run("ip", "netns", "pids", self.namespace).split():
            for number in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(number), signal.SIGKILL)
            if time.monotonic() > deadline:
                raise AssertionError(f"processes {left} do not end")


def _printed_by(child: Child, name: str) -> str:
    """Wait for the end of a process; return its output."""
    status = child.wait()
    child.end()
    if status != 0:
        raise AssertionError(f"{name} ended with {status}:\n{child.printed}")
    return child.printed


@contextlib.contextmanager
def hosts(count: int) -> Iterator[tuple[Host, ...]]:
    """
    Create hosts that reach each other with IPv4 and IPv6, unicast and multicast, and no other host.

    Two hosts are joined by a cable: if one interface is down, the other has no carrier. More hosts
    are joined by a bridge, which forwards every multicast. Skips the test if hosts cannot be
    created.

    :param count: 1 to 250. A single host has only the interface ``lo``.
    """
    reason = skip_reason()
    if reason:
        raise SkipTest(reason)
    with contextlib.ExitStack() as stack:
        made = tuple(Host(stack.enter_context(_namespace()), n) for n in range(1, count + 1))
        for host in made:
            stack.callback(host.end)
            host.ip("link", "set", "lo", "up")
        if count == 2:
            _join_by_cable(*made)
        elif count > 2:
            _join_by_bridge(made, stack.enter_context(_namespace()))
        for host in made:
            host.wait_until_up()
        yield made


def add_network(one: Host, other: Host) -> None:
    """
    Join two hosts by a second cable, ``eth1``, with networks of its own.

    The first has 10.88.0.1 and fd88::1 there, the second 10.88.0.2 and fd88::2.
    """
    cable = ("type", "veth", "peer", "name", "eth1", "netns", other.namespace)
    one.ip("link", "add", "name", "eth1", *cable)
    for number, host in enumerate((one, other), 1):
        host.ip("address", "add", f"10.88.0.{number}/24", "broadcast", "+", "dev", "eth1")
        host.ip("address", "add", f"fd88::{number}/64", "dev", "eth1", "nodad")
        # Accept packets with a source address of the other network.
        for which in ("all", "eth1"):
            host.run("sh", "-c", f"echo 0 >/proc/sys/net/ipv4/conf/{which}/rp_filter")
        host.ip("link", "set", "eth1", "up")
        host.ends = [*host.ends, *((end.namespace, "eth1", "state UP") for end in (one, other))]
    for host in (one, other):
        host.wait_until_up()


def of_link(host: Host, interface: str = _INTERFACE) -> str:
    """Return the link-local address of an interface of a host, without its zone."""
    shown = host.ip("-o", "address", "show", "dev", interface, "scope", "link")
    return shown.split("inet6 ")[1].split("/")[0]


@functools.cache
def skip_reason() -> str | None:
    """Return the reason why hosts cannot be created; None if they can. Tried once."""
    if sys.platform != "linux":
        return "only Linux has network namespaces"
    if os.geteuid() != 0:
        return "only root makes network namespaces"
    if shutil.which("ip") is None:
        return "ip is not installed"
    if not Path("/proc/sys/net/ipv6").exists():
        return "this kernel has no IPv6"
    try:
        with _namespace() as one, _namespace() as other:
            _batch(f"link add name a netns {one} type veth peer name b netns {other}")
            _batch(f"link add name c netns {one} type bridge")
    except AssertionError as error:
        return f"network namespaces cannot be made: {' '.join(str(error).split())}"
    return None


@functools.cache
def netem_skip_reason() -> str | None:
    """Return the reason why ``netem`` cannot be used; None if it can. Tried once."""
    reason = skip_reason()
    if reason:
        return reason
    if shutil.which("tc") is None:
        return "tc is not installed"
    with _namespace() as namespace:
        try:
            _run(*f"tc -n {namespace} qdisc add dev lo root netem loss 1%".split())
        except AssertionError as error:
            return f"the kernel has no netem: {' '.join(str(error).split())}"
    return None


def needs_hosts(test: _Test) -> _Test:
    """Skip a test method if hosts cannot be created; checked when it runs."""
    return _skipping(skip_reason, test)


def needs_netem(test: _Test) -> _Test:
    """Skip a test method if ``tc qdisc add … netem`` does not work."""
    return _skipping(netem_skip_reason, test)


def _skipping(find_reason: Callable[[], str | None], test: _Test) -> _Test:
    @functools.wraps(test)
    def run(*arguments: object, **named: object) -> object:
        reason = find_reason()
        if reason:
            raise SkipTest(reason)
        return test(*arguments, **named)

    return run  # type: ignore[return-value]


@contextlib.contextmanager
def _namespace() -> Iterator[str]:
    name = f"tw-{os.getpid()}-{next(_numbers)}"
    _run("ip", "netns", "add", name)
    try:
        _run("ip", "netns", "exec", name, "sh", "-c", _settings())
        yield name
    finally:
        _run("ip", "netns", "delete", name)


def _settings() -> str:
    return " && ".join(
        f"echo {value} >/proc/sys/net/ipv6/conf/{which}/{setting}"
        for setting, value in _SETTINGS
        for which in ("all", "default")
    )


def _join_by_cable(one: Host, other: Host) -> None:
    def attach() -> None:
        _batch(
            f"link add name {_INTERFACE} netns {one.namespace} type veth "
            f"peer name {_INTERFACE} netns {other.namespace}"
        )
        _set_addresses(one)
        _set_addresses(other)

    for host in (one, other):
        host.attach = attach
        host.ends = [(end.namespace, _INTERFACE, "state UP") for end in (one, other)]
    attach()


def _join_by_bridge(made: Sequence[Host], middle: str) -> None:
    _batch(
        "link add name bridge type bridge forward_delay 0 mcast_snooping 0",
        "link set bridge up",
        namespace=middle,
    )

    def attach(host: Host, port: str) -> None:
        _batch(
            f"link add name {port} type veth peer name {_INTERFACE} netns {host.namespace}",
            f"link set {port} master bridge up",
            namespace=middle,
        )
        _set_addresses(host)

    for number, host in enumerate(made):
        port = f"port{number}"
        host.attach = functools.partial(attach, host, port)
        host.ends = [
            (host.namespace, _INTERFACE, "state UP"),
            (middle, port, "state forwarding"),
        ]
        host.attach()


def _set_addresses(host: Host) -> None:
    _batch(
        f"address add {host.address}/24 dev {_INTERFACE}",
        f"address add {host.address6}/64 dev {_INTERFACE} nodad",
        f"link set {_INTERFACE} up",
        namespace=host.namespace,
    )


def _batch(*lines: str, namespace: str = "") -> None:
    where = ["-n", namespace] if namespace else []
    _run("ip", *where, "-batch", "-", say="\n".join(lines))


def _run(*command: str, say: str = "") -> str:
    done = subprocess.run(
        command,
        input=say,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: {done.stdout}")
    return done.stdout
