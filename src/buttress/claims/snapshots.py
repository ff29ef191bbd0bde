"""The jobs' side of pictures: what a trained network gives to draw, as plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from buttress import audits
from buttress.audits import Audit
from buttress.audits.base.finding import to_json
from buttress.claims.build import build
from buttress.data.dataset import Dataset, Split
from buttress.engine.threat_resolution import resolve_threats
from buttress.threat import Threat
from buttress.training import Trained

_BATCH = 512  # inputs attacked at once


def snapshot(trained: Trained, dataset: Dataset, split: Split, asked: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """What was asked of one network.

    Args:
        trained: the network and its history.
        dataset: what it was trained on.
        split: what an audit looks at.
        asked: ``audit``, ``inputs`` and ``eps`` of its threat.
        seed: of the audit.

    Returns:
        ``finding``.
    """
    threat = Threat(eps=asked["eps"], box=dataset.box)
    question: Audit = resolve_threats(build(Audit, asked["audit"]), usual=threat)
    settings: dict[str, Any] = {"classes": dataset.classes, "seed": seed, "batch_size": _BATCH}
    (finding,) = audits.run(trained.model, split, [question], limit=asked["inputs"], **settings)
    return {"finding": json.loads(to_json({"it": [finding]}, {}))["networks"]["it"][0]}
