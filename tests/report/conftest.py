"""Findings made by hand, of one network and of two, which every renderer is tried on."""

import json
import re
from typing import Any

import numpy as np
import pytest

from buttress.audits.base.finding import Finding
from buttress.audits.base.png import difference, png

EPS = [0.0, 2 / 255, 4 / 255, 8 / 255, 12 / 255, 16 / 255]
LAYERS = ["conv1", "relu#1", "layer1.0.relu", "layer1.1.relu", "layer2.0.relu", "fc.relu", "linear"]


def curve(start: float, slope: float) -> list[dict[str, float]]:
    values = [start / (1 + slope * eps) for eps in EPS]
    return [
        {"eps": eps, "accuracy": v, "low": max(0.0, v - 0.03), "high": min(1.0, v + 0.03)}
        for eps, v in zip(EPS, values, strict=True)
    ]


def robustness(start: float, slope: float, severity: Any) -> Finding:
    attacks = [
        {"name": name, "label": label, "norm": "linf", "curve": curve(start, slope * factor)}
        | {"forwards": forwards, "backwards": forwards - 1, "seconds": 0.0031, "r_and_g": 312.4}
        for name, label, factor, forwards in (("fgsm", "FGSM", 0.7, 2.0), ("pgd", "PGD-20", 1.0, 21.0))
    ]
    data = {"inputs": 1000, "seed": 0, "precision": "fp32", "interval": "exact binomial, 95 %", "main_eps": 8 / 255}
    noises = [{"name": "gaussian", "label": "gaussian", "accuracy": 0.87, "low": 0.85, "high": 0.89}]
    content = {**data, "attacks": attacks, "noises": noises, "worst": curve(start, slope)}
    verdict = f"{start:.1%} of 1000 inputs are classified correctly; far fewer are under PGD-20 at linf eps 0.03137."
    return Finding("robustness", "Robustness", verdict, severity, content)


def layers(scale: float, vulnerable: list[str], severity: Any) -> Finding:
    base = np.array([0.42, 0.55, 0.81, 0.74, 0.6, 0.52, 0.44]) * scale
    kinds = {"pgd": 1.0, "fgsm": 0.85, "gaussian": 0.4, "salt": 0.3}
    mean = np.array([base * factor for factor in kinds.values()])
    data = {
        "layers": LAYERS,
        "perturbations": list(kinds),
        "measure": "relative_error",
        "mean": mean.tolist(),
        "std": (0.2 * mean).tolist(),
        "quantiles": {"0.1": (0.75 * mean).tolist(), "0.5": mean.tolist(), "0.9": (1.25 * mean).tolist()},
        "excluded": [[0] * len(LAYERS), [0, 3, *[0] * (len(LAYERS) - 2)], *[[0] * len(LAYERS)] * 2],
        "mu": {name: float(row.mean()) for name, row in zip(kinds, mean, strict=True)},
        "sigma": {name: float(row.std()) for name, row in zip(kinds, mean, strict=True)},
        "eta": 0.5,
        "mvl": {name: vulnerable for name in kinds},
        "suggested_eta": {name: 0.61 for name in kinds},
        "gain": {name: [None, *(base[1:] / base[:-1]).tolist()] for name in kinds},
        "tolerance": [0.35, 0.41, 0.5, 0.63, 0.7, 0.74, None],
        "margin": [0.83, 0.75, 0.62, 0.85, 1.17, 1.42, None],
        "crossed_by_every_path": [True, True, True, False, False, True, True],
        "rank_correlation": -0.6,
        "inputs": 1000,
        "centred": {"mean": (mean * 1.4).tolist(), "std": (mean * 0.2).tolist()},
        "unpaired": {"fgsm": ["dropout"]},
        "tolerance_inputs": 64,
    }
    named = " and ".join(vulnerable)
    return Finding("layers", "Layer sustainability", f"Under pgd, {named} give way first.", severity, data)


def examples(hit: int) -> Finding:
    rows, columns = np.mgrid[0:28, 0:28]
    items = []
    for i in range(6):
        image = np.exp(-(((rows - 14) / (4 + i)) ** 2 + ((columns - 14) / 7) ** 2))[None]
        attacked = np.clip(image + 0.03 * np.sign(np.sin(rows * (i + 1) / 3) * np.cos(columns / 2))[None], 0, 1)
        grey = [np.rint(255 * picture[0]).astype(np.uint8) for picture in (image, attacked)]
        pictures = {
            "clean": png(grey[0]),
            "adversarial": png(grey[1]),
            "difference": png(difference(image, attacked, 16)),
        }
        answers = {"clean": {"label": "T-shirt/top", "confidence": 0.981}}
        answers["adversarial"] = {"label": "Shirt" if i < hit else "T-shirt/top", "confidence": 0.764}
        items.append({"truth": "T-shirt/top", **answers, "images": pictures})
    data = {"classes": ["T-shirt/top", "Shirt"], "attack": "PGD-20", "magnification": 16.0, "items": items}
    return Finding("examples", "Examples", f"PGD-20 changes the answer for {hit} of the 6 shown.", "info", data)


def boundary(shift: float) -> Finding:
    grid = np.linspace(-1.5, 2.5, 41)
    x, y = np.meshgrid(grid, grid)
    probability = 1 / (1 + np.exp(4 * (y - shift - 0.8 * np.sin(2 * x))))
    spots = np.stack([np.linspace(-1.2, 2.2, 40), 0.9 * np.sin(3 * np.linspace(-1.2, 2.2, 40)) + 0.3])
    points = {"x": spots[0].tolist(), "y": spots[1].tolist(), "label": (spots[1] < 0.3).astype(int).tolist()}
    data = {"x": grid.tolist(), "y": grid.tolist(), "probability": probability.tolist(), "classes": ["upper", "lower"]}
    return Finding(
        "boundary", "Decision boundary", "52% of the plane shown goes to lower.", "info", {**data, "points": points}
    )


def trust() -> Finding:
    data = {
        "checks": [{"name": "zero gradients", "share": 0.0125, "passed": True}],
        "restarts": [0.41, 0.409],
        "note": None,
    }
    return Finding("trust", "Can the figures be trusted?", "No sign of gradient masking.", "good", data)


@pytest.fixture
def one() -> dict[str, list[Finding]]:
    """One network, every kind, and a kind that has no renderer."""
    findings = [robustness(0.912, 90.0, "bad"), layers(1.0, ["layer1.0.relu", "layer1.1.relu"], "warning")]
    return {"network": [*findings, examples(6), boundary(0.3), trust()]}


@pytest.fixture
def two() -> dict[str, list[Finding]]:
    """Two networks, every kind."""
    before = [robustness(0.912, 90.0, "bad"), layers(1.0, ["layer1.0.relu", "layer1.1.relu"], "warning")]
    after = [robustness(0.874, 14.0, "good"), layers(0.5, ["layer1.0.relu"], "info")]
    return {
        "baseline": [*before, examples(6), boundary(0.3), trust()],
        "hardened": [*after, examples(2), boundary(0.1), trust()],
    }


@pytest.fixture
def facts() -> dict[str, Any]:
    """How a report came about."""
    return {
        "command": "buttress compare runs/baseline runs/hardened --eps 8/255 --seed 0",
        "seed": 0,
        "data": "fashion-mini",
        "provenance": "8,000/1,000/1,000 images of Fashion-MNIST (Zalando SE, MIT licence), sha256 checked.",
        "versions": {"buttress": "0.1.0", "torch": "2.13.0", "python": "3.11.2"},
        "settings": {"defence": {"name": "at", "gamma": 0.3, "attack": {"name": "pgd", "steps": 10}}, "epochs": 30},
    }


@pytest.fixture
def drawn() -> Any:
    """The figures in a section's HTML, as plotly itself accepts them."""

    def read(html: str) -> list[Any]:
        import plotly.graph_objects as go

        blocks = re.findall(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)
        return [go.Figure(json.loads(content)) for content in blocks]

    return read
