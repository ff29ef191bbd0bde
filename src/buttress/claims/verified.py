"""Accuracy that a verifier proves, beside that which attacks leave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from buttress import certificates
from buttress.certificates import Verifier
from buttress.claims.experiment import Experiment, VerifierSpec
from buttress.claims.recipe import from_mapping
from buttress.config.reading import build
from buttress.data.dataset import Split
from buttress.engine.input_dtype import suited
from buttress.errors import UserError
from buttress.threat import Threat

_WHERE = "claim: experiment: verifiers"
_VERIFIED = "verified by "


def label(verifier: Verifier) -> str:
    """How what it verifies is called: "verified by crown-ibp"."""
    return f"{_VERIFIED}{verifier.label()}"


def described(*labels: str) -> str:
    """Labels of accuracies as they follow that word: "under FGSM, PGD-40", "verified by ibp"."""
    attacks = [name for name in labels if not name.startswith(_VERIFIED)]
    proofs = [name for name in labels if name.startswith(_VERIFIED)]
    return " and ".join([*([f"under {', '.join(attacks)}"] if attacks else []), *proofs])


def labels(experiment: Experiment) -> list[str]:
    """What the accuracies that an experiment's verifiers prove will be called."""
    return [label(build(Verifier, entry["verifier"])) for entry in experiment.verifiers]


def refuse_wrong(experiment: Experiment) -> None:
    """Refuse what is no entry of the verifiers, and two of one label.

    Raises:
        UserError: naming it.
    """
    for entry in experiment.verifiers:
        from_mapping(VerifierSpec, entry, _WHERE)
    names = labels(experiment)
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{_WHERE}: two give {name!r}: leave one out")


def verified_accuracy(
    model: nn.Module,
    split: Split,
    entry: Mapping[str, Any],
    budgets: Sequence[float],
    threat: Threat,
    settings: Mapping[str, Any],
) -> tuple[str, list[float]]:
    """The label of an entry, and by budget the percentage of inputs that its verifier verifies.

    Args:
        model: the network.
        split: inputs; of a limited number the same as attacks get.
        entry: see `VerifierSpec`.
        budgets: eps of each column.
        threat: its norm and box count.
        settings: ``seed`` and ``batch_size``, as for audits.
    """
    spec, verifier = VerifierSpec(**entry), build(Verifier, entry["verifier"])
    part = split if spec.inputs is None else split.stratified(spec.inputs, settings["seed"])
    x, y, ids = part.take(torch.arange(len(part)))
    x = suited(model, x)
    place = {"y": y.to(x.device), "ids": ids.to(x.device), "seed": settings["seed"], "batch_size": spec.batch_size}
    shares = []
    for eps in budgets:
        within = Threat(norm=threat.norm, eps=eps, box=threat.box)
        found = certificates.certify(model, x, threat=within, method=verifier, **place)
        shares.append(100 * int(found.verified.sum()) / len(x))
    return label(verifier), shares
