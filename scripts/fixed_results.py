"""Digests of the results of a fixed list of attacks, defences and audits, to show that a change leaves them alone.

    python scripts/fixed_results.py attacks before.json                        # before the change
    python scripts/fixed_results.py attacks after.json --against before.json   # after it: status 1 where one differs

and likewise for ``defences`` and ``audits``; each takes some minutes. The list is every member of the three
registries with the seeds and small settings below, so it needs no care. Digests are of the bits, which differ between
processors and versions of torch: compare files of one machine only.
"""

import argparse
import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from buttress import audits, data, fit, models, registry
from buttress.attacks import PGD, Attack
from buttress.data.dataset import Dataset
from buttress.errors import UserError
from buttress.threat import Threat

CHEAP = {"steps": 3, "queries": 20, "draws": 2, "search_steps": 2, "samples": 2, "population": 4, "targets": 2}
THREATS = [Threat(norm="linf", eps=0.1), Threat(norm="l2", eps=0.8), Threat(norm="l1", eps=4.0)]
SEEDS = (0, 7)
CALLS = [(SEEDS[0], "full", None), (SEEDS[1], "first", None), (SEEDS[0], "first", "random")]
MODELS = {
    "cnn": {"image_size": 8},
    "lt-node": {"channels": 1, "width": 4},
    "odenet": {"channels": 1, "width": 4},
    "zerosnet": {"channels": 1},
}


def leaves(value: Any) -> Iterator[bytes]:
    """Tensors and numbers of a tree in their order, by their bits; names and texts may change."""
    if isinstance(value, Tensor):
        yield f"{value.dtype}{tuple(value.shape)}".encode()
        yield value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from leaves(getattr(value, field.name))
    elif isinstance(value, dict):
        for part in value.values():
            yield from leaves(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from leaves(part)
    elif isinstance(value, bool | int | float) or value is None:
        yield repr(value).encode()


def digest(value: Any) -> str:
    """Of all leaves."""
    return hashlib.sha256(b"|".join(leaves(value))).hexdigest()[:16]


def small(member: Any, threat: Threat, surrogate: nn.Module) -> Attack:
    """A member with few steps, under this threat."""
    known = {field.name for field in dataclasses.fields(member)}
    wanted = {
        "threat": threat,
        "box": threat.box,
        "surrogate": surrogate,
        "attack": PGD(threat=threat, steps=3),
        **CHEAP,
    }
    return member(**{key: value for key, value in wanted.items() if key in known})


def trained(name: str, dataset: Dataset, seed: int = 0, **options: Any) -> nn.Module:
    """A registered model after three epochs."""
    return fit(models.create(name, seed=seed, **options), dataset, epochs=3, seed=seed).model


def attack_results(dataset: Dataset) -> dict[str, str]:
    """By name, norm, seed and kind of search."""
    model, surrogate = (trained("cnn", dataset, seed, image_size=8) for seed in (0, 1))
    x, y, ids = dataset.test.take(torch.arange(12))
    found = {}
    for name in registry.attack.names():
        for threat in THREATS:
            for seed, search, target in CALLS:
                key = f"attack {name} {threat.norm} seed {seed} {search} {target or 'untargeted'}"
                try:
                    attack = small(registry.attack.get(name), threat, surrogate)
                    result = attack(model, x, y, ids=ids, seed=seed, search=search, target=target)
                except UserError:
                    found[key] = "refused"
                else:
                    found[key] = digest(dataclasses.replace(result, stages=()))
    return found


def defence_results(dataset: Dataset) -> dict[str, str]:
    """The weights and the history of an epoch."""
    found = {}
    for name in registry.defence.names():
        model = models.create("cnn", image_size=8, seed=SEEDS[0])
        key = f"defence {name}"
        try:
            trained = fit(model, dataset, registry.defence.get(name)(), epochs=1, batch_size=64, seed=SEEDS[1])
        except UserError:
            found[key] = "refused"
        else:
            history = [{k: v for k, v in row.items() if "second" not in k} for row in trained.history]
            found[key] = digest([dict(trained.model.state_dict()), history])
    return found


def audit_results(dataset: Dataset) -> dict[str, str]:
    """The figures of each question, put to each network."""
    networks = {name: trained(name, dataset, **options) for name, options in MODELS.items()}
    found = {}
    for name in registry.audit.names():
        for network, model in networks.items():
            key = f"audit {name} of {network}"
            try:
                audit = registry.audit.get(name)()
                (finding,) = audits.run(model, dataset.test, [audit], limit=16, seed=SEEDS[0], precision="fp32")
            except (UserError, TypeError):  # not for this network, or it needs a file
                found[key] = "refused"
            else:
                found[key] = digest(untimed(finding.data))
    return found


def untimed(tree: Any) -> Any:
    """Without seconds."""
    if isinstance(tree, dict):
        return {key: untimed(part) for key, part in tree.items() if "second" not in str(key)}
    return [untimed(part) for part in tree] if isinstance(tree, list | tuple) else tree


PARTS = {"attacks": attack_results, "defences": defence_results, "audits": audit_results}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("file", type=Path)
    parser.add_argument("--against", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    dataset = data.load("digits", seed=0).limited(96, 0)
    found = PARTS[args.part](dataset)
    args.file.write_text(json.dumps({"torch": torch.__version__, "digests": found}, indent=1) + "\n")
    if args.against is None:
        return 0
    before = json.loads(args.against.read_text())["digests"]
    other = sorted(key for key in before.keys() | found.keys() if before.get(key) != found.get(key))
    for key in other:
        print(f"{key}: {before.get(key, 'not there')} before, {found.get(key, 'not there')} now")
    print(f"{len(found) - len(other)} of {len(found)} results are the same, bit for bit")
    return 1 if other else 0


if __name__ == "__main__":
    sys.exit(main())
