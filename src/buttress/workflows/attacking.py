"""Craft adversarial examples and write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from buttress.attacks import Perturbation
from buttress.attacks.fingerprint import plain
from buttress.attacks.passes import Precision
from buttress.attacks.pgd import PGD
from buttress.audits.base import describe, subject
from buttress.files import told_when_full, write_text
from buttress.threat import Threat
from buttress.training import versions
from buttress.workflows.auditing import new_folder
from buttress.workflows.settings import Network, Say, Source, open_network, threat_for, under


def attack(
    network: str,
    *,
    out: Path,
    architecture: Network = Network(),
    source: Source = Source(),
    threat: Threat = Threat(),
    by: Perturbation | None = None,
    inputs: int | None = None,
    seed: int = 0,
    precision: Precision = "fp32",
    batch_size: int = 256,
    say: Say = Say(),
) -> Path:
    """Perturb the test inputs of a network and write them as tensors.

    Args:
        network: a run's folder; or a model's name, package.module:function or file.py:function, with --weights.
        out: a new folder for examples.safetensors (x_adv, y, ids, beaten, distance) and examples.json.
        architecture: for a network that is no run's: its options and weights.
        source: the data; a run's own unless said otherwise.
        threat: what the attacker may do, where the attack names no threat itself.
        by: the attack or noise; PGD-20 unless given.
        inputs: at most so many test inputs, classes in proportion.
        seed: of the attack.
        precision: of the search; verdicts are float32.
        batch_size: inputs computed at once.
        say: who is told.
    """
    new_folder(out)
    model, dataset, _ = open_network(network, architecture, source, seed)
    chosen = under(threat_for(dataset.box, threat), by or PGD(steps=20))
    settings: dict[str, Any] = {"seed": seed, "precision": precision, "batch_size": batch_size}
    about = subject(model, dataset.test, limit=inputs, classes=dataset.classes, **settings)
    timed = about.attacked(chosen)
    result = timed.outcome
    out.mkdir(parents=True, exist_ok=True)
    tensors = {"x_adv": result.x_adv, "y": about.y, "ids": about.ids, "beaten": result.beaten.to(torch.uint8)}
    tensors["distance"] = result.distance
    path = out / "examples.safetensors"
    beside = path.with_name(f".{path.name}.tmp")
    try:
        with told_when_full(path):
            save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, beside)
            beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    facts = {
        "network": network,
        "data": dataset.name,
        "attack": describe(chosen),
        "fingerprint": chosen.fingerprint(),
        "settings": plain(chosen),
        "seed": seed,
        "inputs": len(about.y),
        "beaten": int(result.beaten.sum()),
        "forwards": float(result.forwards.double().mean()),
        "backwards": float(result.backwards.double().mean()),
        "seconds": timed.seconds,
        "versions": versions(),
    }
    write_text(out / "examples.json", json.dumps(facts, indent=2))
    say.line(f"{describe(chosen)} beats the network on {facts['beaten']} of {len(about.y)} inputs; written to {path}")
    return path
