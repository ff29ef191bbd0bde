"""Commands of buttress in one process, in several and on several hosts, and clusters of Ray's; started and killed."""

import contextlib
import importlib.util
import itertools
import os
import signal
import socket
import sys
import time
from pathlib import Path

from hosts import Host, below, kill, name_of

HERE = Host("127.0.0.1")
_NUMBERS = itertools.count()
_LOOK = 0.02  # seconds between two looks


class Launched:
    """A command in one or several processes.

    Args:
        started: (process, file of what it prints) for each.
    """

    def __init__(self, started):
        self.processes, self.logs = ([part[k] for part in started] for k in (0, 1))

    def running(self):
        return any(process.poll() is None for process in self.processes)

    def wait(self, limit):
        """The first status that is not 0, once all have ended; after so many seconds they are killed."""
        end = time.monotonic() + limit
        while self.running():
            if time.monotonic() > end:
                for process in self.processes:
                    kill(process.pid)
                raise TimeoutError(f"longer than {limit} s: {self.said()[-600:]}")
            time.sleep(_LOOK)
        return next((process.returncode for process in self.processes if process.returncode), 0)

    def said(self):
        """All that was printed."""
        return "".join(log.read_text(errors="replace") for log in self.logs)

    def wait_for_new(self, folder, pattern, limit):
        """Whether a new file came, or a changed one, before so many seconds were over and before it ended."""
        before, end = _newest(folder, pattern), time.monotonic() + limit
        while self.running() and time.monotonic() < end:
            if _newest(folder, pattern) > before:
                return True
            time.sleep(_LOOK)
        return False

    def kill_one(self, draw):
        """Kill one of the ranks that torchrun has started, if there are any: whether there were."""
        ranks = [
            number for process in self.processes for number in below(process.pid) if "-m buttress" in name_of(number)
        ]
        for number in draw.sample(ranks, min(1, len(ranks))):
            os.kill(number, signal.SIGKILL)
        return bool(ranks)


def _newest(folder, pattern):
    moments = [0]
    for path in folder.glob(pattern):
        with contextlib.suppress(OSError):
            moments.append(path.stat().st_mtime_ns)
    return max(moments)


def alone(words, out):
    """One process of this machine."""
    return _launched([(HERE, words)], out)


def together(words, out):
    """Two processes of this machine, by torchrun."""
    return _launched([(HERE, ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", *words])], out)


def on_hosts(hosts):
    """One process on each of the hosts, by torchrun: what starts that."""

    def start(words, out):
        meet = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"{hosts[0].address}:{_free_port()}"]
        parts = []
        for number, host in enumerate(hosts):
            # By its name torchrun would not know which of two hosts of one name holds the store.
            here = ["--local-addr", host.address, "--rdzv-conf", f"is_host={number == 0}"]
            run = ["torch.distributed.run", "--nnodes", len(hosts), "--nproc-per-node", "1", *meet, *here]
            parts.append((host, [*run, "-m", *words]))
        return _launched(parts, out)

    return start


def _launched(parts, out):
    logs = [out / f"log-{next(_NUMBERS)}.txt" for _ in parts]
    modules = [(host, [sys.executable, "-m", *words], log) for (host, words), log in zip(parts, logs, strict=True)]
    return Launched([(host.start(command, log), log) for host, command, log in modules])


def _free_port():
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


class Cluster:
    """A cluster of Ray's, of one or two hosts; on two the head is a node without CPUs beside a worker of one.

    Args:
        hosts: where; the first has the head.
        out: folder of what its nodes print.
    """

    def __init__(self, hosts, out):
        self._host, port = hosts[0], _free_port()
        self._address = f"{hosts[0].address}:{port}"
        self.words = ["--engine", "ray", "--address", self._address]
        self.nodes, self._out = [], out
        alone = len(hosts) == 1
        self._node(hosts[0], "--head", "--port", port, "--include-dashboard", "false", "--num-cpus", 2 if alone else 0)
        for host in () if alone else hosts:
            self._node(host, "--address", self._address, "--num-cpus", 1)

    def _node(self, host, *words):
        """Begin one, and wait until it is there; nodes of one address need ports of their own."""
        log, first = self._out / f"ray-{next(_NUMBERS)}.txt", 20000 + 1000 * len(self.nodes)
        ports = [
            "--min-worker-port",
            first,
            "--max-worker-port",
            first + 900,
            "--dashboard-agent-listen-port",
            first + 950,
        ]
        usual = [
            "--block",
            "--node-ip-address",
            host.address,
            "--object-store-memory",
            80_000_000,
            "--disable-usage-stats",
        ]
        process = host.start([Path(sys.executable).with_name("ray"), "start", *words, *ports, *usual], log)
        self.nodes.append(process)
        end = time.monotonic() + 60
        while "now block" not in log.read_text():
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"a node of Ray's did not start: {log.read_text()[-600:]}")
            time.sleep(_LOOK)

    def start(self, words, out):
        """A command on the host of the head."""
        return _launched([(self._host, words)], out)

    def kill_worker(self, draw):
        """Kill one of the processes that are at a job, if there are any: whether there were."""
        names = {number: name_of(number) for node in self.nodes for number in below(node.pid)}
        workers = [number for number, name in names.items() if name.startswith("ray::") and "task" in name]
        for number in draw.sample(workers, min(1, len(workers))):
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        return bool(workers)

    def kill_head(self, *, whole):
        """Kill the head's node, or its server alone."""
        if whole:
            kill(self.nodes[0].pid)
            return
        for number in below(self.nodes[0].pid):
            if "gcs_server" in name_of(number):
                os.kill(number, signal.SIGKILL)


class Clusters:
    """Clusters on some of the hosts, one after the other."""

    def __init__(self, hosts, out):
        self._hosts, self._out = hosts, out

    @contextlib.contextmanager
    def running(self, count):
        """One of so many hosts."""
        if importlib.util.find_spec("ray") is None:
            raise RuntimeError("Ray is not installed: pip install 'buttress[ray]'")
        cluster = Cluster(self._hosts[:count], self._out)
        try:
            yield cluster
        finally:
            for node in cluster.nodes:
                kill(node.pid)
                node.wait()
