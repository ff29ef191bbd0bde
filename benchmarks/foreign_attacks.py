"""Whether FGSM of other libraries, through `buttress.integrations`, gives the points of ours.

Compared are those that are installed, of torchattacks, foolbox and adversarial-robustness-toolbox:
``python benchmarks/foreign_attacks.py``. Status 1 where points differ by more than 1e-6, or where none is installed.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

import torch
from torch import nn

from buttress.attacks import FGSM, Attack
from buttress.integrations import ARTAttack, FoolboxAttack, TorchAttack
from buttress.threat import Threat

THREAT = Threat(eps=0.1)


def of_torchattacks() -> Attack:
    """Its FGSM."""
    import torchattacks

    return TorchAttack(make=lambda net, threat: torchattacks.FGSM(net, eps=threat.eps), threat=THREAT)


def of_foolbox() -> Attack:
    """Its FGSM."""
    import foolbox

    return FoolboxAttack(make=lambda net, threat: foolbox.attacks.LinfFastGradientAttack(), threat=THREAT)


def of_art() -> Attack:
    """Its FGSM."""
    from art.attacks.evasion import FastGradientMethod

    return ARTAttack(make=lambda net, threat: FastGradientMethod(net, eps=threat.eps), threat=THREAT)


def main() -> int:
    """Compare them on a small convolutional network."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).eval()
    x, y = torch.rand(20, 1, 6, 6), torch.arange(20) % 3
    own, gaps = FGSM(threat=THREAT)(model, x, y).x_adv, dict[str, float]()
    for package, make in {"torchattacks": of_torchattacks, "foolbox": of_foolbox, "art": of_art}.items():
        if find_spec(package) is not None:
            gaps[package] = float((make()(model, x, y).x_adv - own).abs().max())
            print(f"{package:13} largest difference {gaps[package]:.1e}")
    if not gaps:
        print("none of torchattacks, foolbox and adversarial-robustness-toolbox is installed")
    return int(not gaps or max(gaps.values()) > 1e-6)


if __name__ == "__main__":
    sys.exit(main())
