"""One command in one and two processes, on one and two hosts, and killed at random moments: the same figures?

    python benchmarks/several_processes.py                # every check; about half an hour on two cores
    python benchmarks/several_processes.py --only train kill-head --kills 3
    python benchmarks/several_processes.py --out runs/several --again    # forget what was measured

Checks that are done are kept in the folder and not done again. Hosts are two network namespaces of this machine where
these can be had (see hosts.py). The checks of Ray need `pip install 'buttress[ray]'`. Weights are compared with a
tolerance, since ddp sums gradients in another order than one process, all else bit for bit.
"""

import argparse
import json
import random
import shutil
import sys
import time
from pathlib import Path

import torch
import yaml
from hosts import two_hosts
from launched import Clusters, alone, on_hosts, together
from safetensors.torch import load_file

DATA = ["--data", "moons", "--data-args", json.dumps({"samples": 640, "val": 64, "test": 3000})]
ATTACKED = ["--threat.eps", "0.1"]
LOOP = ["--batch-size", "16", "--checkpoint-seconds", "0.2", "--seed", "1"]
TRAIN = ["--model", "mlp", "--defence", "at", "--defence.attack.steps", "2", *LOOP, *ATTACKED, *DATA]
AUDIT = ["--audits", "robustness", "--precision", "fp32", *ATTACKED]
HARDEN = ["--model", "mlp", "--epochs", "1", "--gamma", "0.5", "--layers", "act1", "--attacks", "fgsm", *LOOP, *DATA]
HARDEN += ["--measure", "relative_error"]  # a mean over inputs; what compares pairs sees those of its own process
WEIGHTS = 1e-4  # how far weights of two processes may be from those of one
MOONS = {"data": "moons", "data_args": {"samples": 1600, "val": 100, "test": 1000}}
ROW = {"name": "at", "attack": {"name": "pgd", "steps": 3, "threat": {"eps": 0.1, "box": None}}}
RECIPE = {
    "summary": "a table of a few seconds for each network",
    "claim": {
        "source": "nobody",
        "statement": "It helps.",
        "kind": "table",
        "checks": [{"better": "AT", "than": "standard", "at": 0.1}],
        "experiment": {
            "setups": {"A": {"source": MOONS, "architecture": {"model": "mlp"}, "training": {"epochs": 4}}},
            "eps": [0, 0.1],
            "attacks": [{"attack": {"name": "pgd", "steps": 10}}],
            "rows": [{"name": "standard", "defence": "standard"}, {"name": "AT", "defence": ROW}],
        },
        "scales": {"small": {}},
    },
}
JOBS, SEEDS = 12, 6


def timeless(value):
    """Plain data without times."""
    if isinstance(value, dict):
        return {key: timeless(part) for key, part in value.items() if "seconds" not in key}
    return [timeless(part) for part in value] if isinstance(value, list) else value


def weights(folder):
    return {str(path.relative_to(folder)): load_file(path) for path in sorted(folder.rglob("last.safetensors"))}


def same_weights(one, other):
    """The largest difference of the weights of all runs in two folders, as words, and whether it is small."""
    mine, theirs = weights(one), weights(other)
    if not mine or mine.keys() != theirs.keys():
        return "other runs", False
    apart = max(
        float((value.double() - theirs[run][name].double()).abs().max())
        for run, state in mine.items()
        for name, value in state.items()
    )
    return "bit for bit" if apart == 0 else f"weights within {apart:.0e}", apart <= WEIGHTS


def same_findings(one, other):
    mine, theirs = (timeless(json.loads((path / "findings.json").read_text())["networks"]) for path in (one, other))
    return ("bit for bit", True) if mine == theirs else ("other findings", False)


def same_files(one, other):
    """Whether the tensors in all files are the same."""
    mine, theirs = ({path.name: load_file(path) for path in folder.glob("*.safetensors")} for folder in (one, other))
    same = bool(mine) and mine.keys() == theirs.keys()
    same = same and all(torch.equal(value, theirs[file][name]) for file in mine for name, value in mine[file].items())
    return ("bit for bit", True) if same else ("other examples", False)


def same_results(one, other):
    """Whether two folders hold the same results of the same jobs, each once."""
    mine, theirs = (
        {path.name: timeless(json.loads(path.read_text())) for path in f.glob("*.json")} for f in (one, other)
    )
    return ("bit for bit", len(mine) == JOBS) if mine == theirs else ("other results", False)


class Checks:
    """The checks, each a method that returns rows: what, where, seconds, compared with what, whether as hoped."""

    def __init__(self, out, hosts, kills, limit):
        self.out, self.hosts, self.kills, self.limit = out, hosts, kills, limit
        self.draw = random.Random(0)
        self.recipe = out / "several.yaml"
        self.recipe.write_text(yaml.safe_dump(RECIPE))
        self.clusters = Clusters(hosts, out)

    def _folder(self, name):
        folder = self.out / name
        shutil.rmtree(folder, ignore_errors=True)
        return folder

    def _run(self, start, *words, status=0):
        """Seconds of a command, which must end with that status."""
        begun = time.perf_counter()
        launched = start(["buttress", *words], self.out)
        ended = launched.wait(self.limit)
        if ended != status:
            raise RuntimeError(f"{words[0]} ended with {ended}: {launched.said()[-600:]}")
        return time.perf_counter() - begun

    def _ways(self, name, words, compare):
        """A command in one process, in two, and on two hosts; ``words`` of the folder that it writes to."""
        rows, first = [], None
        for where, start in (("1 process", alone), ("2 processes", together), ("2 hosts", on_hosts(self.hosts))):
            folder = self._folder(f"{name}-{where[0]}-{where[2:]}")
            seconds = self._run(start, *words(folder))
            first = first or folder
            compared, well = compare(first, folder) if rows else ("", True)
            rows.append([name, where, f"{seconds:.1f}", compared, well])
        return rows

    def train(self):
        """A training."""
        return self._ways("train", lambda folder: ["train", folder, "--epochs", "3", *TRAIN], same_weights)

    def audit(self):
        """An audit of one run, with three groups of inputs."""
        return self._ways(
            "audit",
            lambda folder: ["audit", self._network(), "--out", folder, *AUDIT, "--attacks", "pgd,apgd"],
            same_findings,
        )

    def attack(self):
        """Examples of one run, in six groups."""
        words = ["--by", "pgd", "--group", "500", *ATTACKED]
        return self._ways("attack", lambda folder: ["attack", self._network(), "--out", folder, *words], same_files)

    def harden(self):
        """A base training and a hardened one."""
        return self._ways("harden", lambda folder: ["harden", "--out", folder, *HARDEN], same_weights)

    def _network(self):
        folder = self.out / "network"
        if not (folder / "model.json").exists():
            self._run(alone, "train", folder, "--epochs", "1", *TRAIN)
        return folder

    def _reproduce(self, folder, *words):
        return ["reproduce", self.recipe, "--seeds", SEEDS, "--out", folder, "--work", folder / "work", *words]

    def _reference(self):
        folder = self.out / "reproduced"
        if not (folder / "several.json").exists():
            self._run(alone, *self._reproduce(folder, "--workers", "0", "--resume"))
        return folder / "work"

    def reproduce(self):
        """Twelve networks in this process, in two, on a cluster of one host, and on one of two."""
        rows, first = [], None
        for where, words in (("1 process", ("--workers", "0")), ("2 processes", ("--workers", "2"))):
            folder = self._folder(f"reproduce-{where[0]}")
            seconds = self._run(alone, *self._reproduce(folder, *words))
            first = first or folder
            rows.append(["reproduce", where, f"{seconds:.1f}", *same_results(first / "work", folder / "work")])
        for count, where in ((1, "Ray, 1 host"), (2, "Ray, 2 hosts")):
            folder = self._folder(f"reproduce-ray-{count}")
            with self.clusters.running(count) as cluster:
                seconds = self._run(cluster.start, *self._reproduce(folder, *cluster.words))
            rows.append(["reproduce", where, f"{seconds:.1f}", *same_results(first / "work", folder / "work")])
        return rows

    def kill_rank_train(self):
        """A training in two processes, of which one is killed, again and again."""
        whole, folder = self._folder("kill-train-whole"), self._folder("kill-train")
        words = ["--epochs", "16", *TRAIN]
        seconds = self._run(together, "train", whole, *words)
        told = self._kill_ranks(["train", folder, *words], folder, "checkpoints/*", seconds)
        compared, well = same_weights(whole, folder)
        same = (whole / "metrics.csv").read_bytes() == (folder / "metrics.csv").read_bytes()
        well = well and same and compared == "bit for bit"
        return [["train, a rank killed", "2 processes", told, compared + ", each epoch once" * same, well]]

    def kill_rank_audit(self):
        """An audit in two processes, of which one is killed, again and again."""
        whole, folder = self._folder("kill-audit-whole"), self._folder("kill-audit")
        words = [*AUDIT, "--attacks", "pgd,apgd", "--resume"]  # without which it keeps nothing to go on from
        seconds = self._run(together, "audit", self._network(), "--out", whole, *words)
        command = ["audit", self._network(), "--out", folder, *words]
        told = self._kill_ranks(command, folder, "**/*.safetensors", seconds)
        return [["audit, a rank killed", "2 processes", told, *same_findings(whole, folder)]]

    def kill_rank_hosts(self):
        """A training on two hosts, of which one loses its process, again and again."""
        start, whole, folder = on_hosts(self.hosts), self._folder("kill-hosts-whole"), self._folder("kill-hosts")
        words = ["--epochs", "16", *TRAIN]
        seconds = self._run(start, "train", whole, *words)
        told = self._kill_ranks(["train", folder, *words], folder, "checkpoints/*", seconds, start)
        return [["train, a rank killed", "2 hosts", told, *same_weights(whole, folder)]]

    def _kill_ranks(self, words, folder, pattern, seconds, start=together):
        """Run it until it is done, and kill one of its ranks so many times before: what came of that, as words."""
        hit, told, status = 0, 0, None
        for moment in [self.draw.random() for _ in range(self.kills)]:
            launched = start(["buttress", *words, *self._going_on(folder)], self.out)
            if launched.wait_for_new(folder, pattern, seconds * moment):  # else while it starts
                time.sleep(self.draw.random())
            hit += launched.kill_one(self.draw)
            status = launched.wait(self.limit)
            told += sum("go on with --resume" in line for line in launched.said().splitlines()) == 1
            if status == 0:
                break
        last = self._run(start, *words, *self._going_on(folder)) if status != 0 else 0.0
        return f"{hit} kills, {told} with one line; the last command {last:.1f} s, {seconds:.1f} s without a kill"

    @staticmethod
    def _going_on(folder):
        """What a second training says, once the first has left something."""
        return ["--resume"] if (folder / "checkpoints").is_dir() else []

    def kill_worker(self):
        """A reproduction on a cluster, whose workers are killed, again and again."""
        folder, kills, put_again, statuses = self._folder("kill-worker"), 0, 0, []
        with self.clusters.running(2) as cluster:
            while not statuses or statuses[-1] != 0:
                launched = cluster.start(["buttress", *self._reproduce(folder, *cluster.words, "--resume")], self.out)
                while launched.running() and kills < self.kills:
                    time.sleep(2 * self.draw.random())
                    kills += cluster.kill_worker(self.draw)
                statuses.append(launched.wait(self.limit))
                put_again += launched.said().count("put again")
                if len(statuses) > self.kills:
                    raise RuntimeError(launched.said()[-600:])
        told = f"{kills} kills, {put_again} jobs put again, {len(statuses)} commands"
        return [["reproduce, a worker killed", "Ray, 2 hosts", told, *same_results(self._reference(), folder / "work")]]

    def kill_head(self):
        """Reproductions on a cluster, whose head is killed, again and again, and begun anew once they are done."""
        kills = told = changed = rounds = 0
        status, done, same = 0, {}, True
        while kills < self.kills or status != 0:
            if status == 0:  # the one before is done
                rounds, done = rounds + 1, {}
                folder = self._folder(f"kill-head-{rounds}")
            with self.clusters.running(2) as cluster:
                launched = cluster.start(["buttress", *self._reproduce(folder, *cluster.words, "--resume")], self.out)
                if kills < self.kills:
                    launched.wait_for_new(folder / "work", "*.json", self.limit)
                    time.sleep(1.5 * self.draw.random())
                    if launched.running():
                        cluster.kill_head(whole=kills % 2 == 0)
                        kills += 1
                status = launched.wait(self.limit)
            now = {path: path.stat().st_mtime_ns for path in (folder / "work").glob("*.json")}
            changed += sum(now.get(path) != moment for path, moment in done.items())
            done = now
            told += status == 143 and launched.said().count("has gone (was its head killed?)") == 1
            if status == 0:
                same = same and same_results(self._reference(), folder / "work")[1]
        words = f"{kills} kills in {rounds} reproductions, {told} with one line and status 143"
        compared = ("bit for bit" if same else "other results") + (
            f", {changed} done twice" if changed else ", none twice"
        )
        return [["reproduce, the head killed", "Ray, 2 hosts", words, compared, same and not changed]]


NAMES = [
    *("train", "audit", "attack", "harden", "reproduce"),
    *("kill-rank-train", "kill-rank-audit", "kill-rank-hosts", "kill-worker", "kill-head"),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="CHECK")
    parser.add_argument("--kills", type=int, default=10, help="of each kind")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for one command")
    parser.add_argument("--out", type=Path, default=Path("runs/several"), help="folder of what is made and measured")
    parser.add_argument("--again", action="store_true", help="measure anew what is measured")
    chosen = parser.parse_args()
    out = chosen.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    kept = out / "measured.json"
    rows = json.loads(kept.read_text()) if kept.exists() and not chosen.again else {}
    with two_hosts() as hosts:
        print("hosts:", " and ".join(host.address for host in hosts))
        checks = Checks(out, hosts, chosen.kills, chosen.limit)
        for name in chosen.only:
            if name not in rows:
                try:
                    rows[name] = getattr(checks, name.replace("-", "_"))()
                except (RuntimeError, TimeoutError, OSError) as error:
                    print(f"{name}: {type(error).__name__}: {error}", flush=True)
                    continue
                kept.write_text(json.dumps(rows, indent=1))
            for *cells, well in rows[name]:
                print("|", " | ".join(cells), "|", "" if well else "NOT as hoped", "|", flush=True)
    return 0 if all(name in rows and all(row[-1] for row in rows[name]) for name in chosen.only) else 1


if __name__ == "__main__":
    sys.exit(main())
