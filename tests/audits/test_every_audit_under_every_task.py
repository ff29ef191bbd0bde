"""Every registered audit under every registered task: a finding, or a refusal by name before anything is computed."""

import inspect
import json
import re

import pytest
import torch
from torch import nn

from buttress import audits, registry, report, tasks
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.robustness import Robustness
from buttress.data.dataset import Split
from buttress.errors import UserError
from buttress.threat import Threat

TASKS = {name: registry.task.get(name)() for name in registry.task.names() if name != "denoising"}
PGD_3 = PGD(threat=Threat(eps=0.3), steps=3)
SETTINGS = {"layers": {"layers": ["1", "3"], "tolerance_inputs": 4}, "unseen": {"attacks": [PGD_3], "unseen": []}}


def make(name, tmp_path, x):
    """The member with a short attack."""
    member = registry.audit.get(name)
    file = tmp_path / "examples.pt"
    torch.save({"x_adv": x}, file)
    wanted = {
        "attack": PGD_3,
        "attacks": [PGD_3],
        "perturbations": [PGD_3],
        "file": file,
        "without": {0: nn.Identity()},
        **SETTINGS.get(name, {}),
    }
    return member(**{key: value for key, value in wanted.items() if key in inspect.signature(member).parameters})


def case(nets, task):
    """A convolutional network, images, and the truth, which for a third of them is not what it says."""
    model, x = nets.conv(seed=3), torch.rand(6, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    y = task.decision(task.read(model(x))).detach()
    y[:2] = y[:2] + 1 if y.is_floating_point() else (y[:2] + 2) % 4 if y.dim() == 1 else 1 - y[:2]
    return model, x, y


@pytest.mark.representatives(which=["multi-label", "regression"])
@pytest.mark.parametrize("which", [name for name in TASKS if name != "classification"])
@pytest.mark.parametrize("name", registry.audit.names())
def test_it_answers_or_names_itself_and_what_to_use(nets, name, which, tmp_path):
    task = TASKS[which]
    model, x, y = case(nets, task)
    audit = make(name, tmp_path, x)
    if audit.needs_classes:
        with pytest.raises(UserError, match=rf"^{name} needs classes, which {which} has not: use robustness, layers"):
            audits.run(model, [(x, y)], [audit], task=task)
        return
    try:
        (finding,) = audits.run(model, [(x, y)], [audit], task=task, training=Split(x, y, torch.arange(6, 12)))
    except UserError:
        if name not in ("lipschitz", "zero-stability"):  # which need another kind of network
            raise
        return
    words = json.dumps([finding.verdict, finding.title])
    assert not re.search("class", words) or which == "ordinal"
    page = report.write(tmp_path / "page", {"net": [finding]}, {}, title="t", headline=finding.verdict)
    assert finding.verdict in page.read_text().replace("&#39;", "'")


def test_the_share_is_that_of_the_task(nets):
    """Four of six are right; the report calls the share by its name."""
    for which, words, name in (
        ("multi-label", "right in every label", "exact match"),
        ("regression", "within tolerance of the truth", "share within tolerance"),
        ("ordinal", "within 1 of their class", "share within tolerance"),
        ("classification", "classified correctly", "accuracy"),
    ):
        model, x, y = case(nets, TASKS[which])
        attack = PGD(threat=Threat(eps=1e-6), steps=1)
        (finding,) = audits.run(model, [(x, y)], [Robustness(attacks=[attack])], task=TASKS[which])
        assert finding.verdict.startswith(f"66.7% of 6 inputs are {words}; robust {name} is 66.7%")
        assert finding.data.get("score", "accuracy") == name


def test_a_limit_takes_each_set_of_labels(nets):
    y = torch.tensor([[0, 0], [1, 1]]).repeat(20, 1)
    y[7] = torch.tensor([0, 1])
    subject = audits.subject(nets.conv(classes=2), [(torch.rand(40, 1, 6, 6), y)], limit=6, task=tasks.MultiLabel())
    assert {tuple(row) for row in subject.y.tolist()} == {(0, 0), (1, 1), (0, 1)}
    assert subject.classes == ("0", "1")
