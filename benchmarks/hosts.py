"""Hosts to run commands on: two network namespaces of this machine, joined by a cable, or the machine itself.

As root on Linux, with `ip`, each host is a namespace of its own, so that processes on different hosts reach each other
by the cable alone; they share the disk. Elsewhere two processes of the machine stand for two hosts.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

CABLE = "buttress0"


@dataclass(frozen=True)
class Host:
    """Where commands run.

    Attributes:
        address: by which others reach it.
        words: that begin each command there.
        interface: by which it reaches others.
    """

    address: str
    words: tuple[str, ...] = ()
    interface: str = "lo"

    def start(self, command, log):
        """A command that has begun there, in a session of its own; what it prints goes into the file ``log``."""
        gloo = {"GLOO_SOCKET_IFNAME": self.interface, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        with Path(log).open("w") as file:
            return subprocess.Popen(
                [*self.words, *map(str, command)],
                stdout=file,
                stderr=file,
                start_new_session=True,
                env=os.environ | gloo,
            )


@contextlib.contextmanager
def two_hosts():
    """Two of them; namespaces where they can be had, which are taken down again."""
    names = [f"buttress-{os.getpid()}-{letter}" for letter in "ab"]
    if sys.platform != "linux" or os.geteuid() or not shutil.which("ip") or not _ip("netns", "add", names[0]):
        yield [Host("127.0.0.1")] * 2
        return
    try:
        _ip("netns", "add", names[1])
        # The cable is laid inside the first, so that this machine's own network is left alone.
        inside = ("-n", names[0])
        _ip(*inside, "link", "add", CABLE, "type", "veth", "peer", "name", CABLE, "netns", names[1])
        hosts = []
        for number, name in enumerate(names, 1):
            address = f"10.77.0.{number}"
            _ip("-n", name, "address", "add", f"{address}/24", "dev", CABLE)
            for device in (CABLE, "lo"):
                _ip("-n", name, "link", "set", device, "up")
            hosts.append(Host(address, ("ip", "netns", "exec", name), CABLE))
        yield hosts
    finally:
        for name in names:
            _ip("netns", "delete", name)


def below(process):
    """The numbers of the processes that a process has started, and those that these have, the eldest first."""
    found, left = [], [process]
    while left:
        with contextlib.suppress(OSError):
            tasks = Path(f"/proc/{left[0]}/task").iterdir()
            for number in [int(word) for task in tasks for word in (task / "children").read_text().split()]:
                found.append(number)
                left.append(number)
        left.pop(0)
    return found


def name_of(process):
    """The command of a process; empty where it has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def kill(process):
    """Kill a process and all that it has started."""
    for number in [process, *below(process)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def _ip(*words):
    return subprocess.run(["ip", *words], capture_output=True).returncode == 0
