"""The audit on a network that knows its training inputs by heart, and on one that has seen none."""

import json

import pytest
import torch
from torch import nn

from buttress import audits, models
from buttress.attacks import FGSM, PGD
from buttress.audits import Privacy
from buttress.audits.base.finding import to_json
from buttress.audits.privacy.references import Reference
from buttress.data.dataset import Split
from buttress.errors import UserError
from buttress.layers.example_gradients import example_gradients
from buttress.tasks import Regression, classification
from buttress.threat import Threat

QUICK = {"attack": FGSM(threat=Threat(eps=0.05)), "batches": 3, "batch": 8}


class Memory(nn.Module):
    """Answers with the class of the known point when it is asked about one (or near), and with doubt else."""

    def __init__(self, x, y, slope=400.0):
        super().__init__()
        self.register_buffer("x", x.clone())
        self.register_buffer("answers", 8 * nn.functional.one_hot(y, 4).float())
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.slope = slope

    def forward(self, x):
        near = torch.exp(-self.slope * torch.cdist(x, self.x).square())
        return self.scale * (near @ self.answers)


def split(count, seed, first):
    random = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 6, generator=random)
    return Split(x, torch.arange(count) % 4, torch.arange(first, first + count))


@pytest.fixture(scope="module")
def inputs():
    """Training inputs, and others."""
    return split(80, 0, 0), split(60, 1, 1000)


def ask(model, inputs, /, **settings):
    training, others = inputs
    options = {name: settings.pop(name) for name in ("seed", "task") if name in settings}
    (finding,) = audits.run(model, others, [Privacy(**{**QUICK, **settings})], training=training, **options)
    return finding


def test_who_knows_its_training_inputs_by_heart_gives_them_away(inputs):
    training, _ = inputs
    finding = ask(Memory(training.x, training.y), inputs)
    data = finding.data
    assert data["inputs"] == 60
    assert data["training_inputs"] == 80
    assert data["membership"]["confidence"]["optimistic"] == 1
    assert data["membership"]["confidence"]["advantage"] > 0.9
    assert data["membership"]["confidence"]["at"] == {"0.001": None, "0.01": None}  # 60 others resolve neither
    assert data["clean"]["members"]["accuracy"] == 1
    assert data["clean"]["others"]["accuracy"] < 0.4
    assert finding.severity == "bad"
    assert "a training input is told from another with an advantage of " in finding.verdict
    assert "no guarantee of privacy" in finding.verdict


def test_who_has_seen_none_gives_nothing_away(inputs):
    torch.manual_seed(0)
    finding = ask(nn.Linear(6, 4), inputs)
    found = finding.data["membership"]["confidence"]
    assert found["low"] < 0 < found["high"]
    assert finding.severity == "info"
    assert finding.verdict.startswith("Training inputs are not told from others by what was tried: by ")


def test_members_are_training_inputs_and_gradients_are_theirs(inputs):
    torch.manual_seed(0)
    model, (training, _) = nn.Linear(6, 4), inputs
    data = ask(model, inputs, inputs=80).data
    rows = training.stratified(60, 0)
    norms = example_gradients(model, rows.x, rows.y, classification).norms
    assert data["intensity"]["clean"]["max"] == pytest.approx(float(norms.max()))
    moved = FGSM(threat=Threat(eps=0.05))(model, rows.x, rows.y, ids=rows.ids).x_adv
    above = example_gradients(model, moved, rows.y, classification).norms
    paired = data["intensity"]["paired"]
    assert paired["max"]["ratio"] == pytest.approx(float(above.max() / norms.max()))
    assert paired["mean"]["low"] <= paired["mean"]["ratio"] <= paired["mean"]["high"]
    assert paired["mean"]["ratio"] > 1


def test_without_a_budget_the_intensity_is_one(inputs):
    torch.manual_seed(0)
    data = ask(nn.Linear(6, 4), inputs, attack=PGD(threat=Threat(eps=0.0), steps=2)).data
    assert [part["ratio"] for part in data["intensity"]["paired"].values()] == [1, 1, 1]
    assert data["robust"] == data["clean"]


def test_across_runs_the_divisor_is_the_other_network(inputs):
    torch.manual_seed(0)
    model, other, (training, _) = nn.Linear(6, 4), nn.Linear(6, 4), inputs
    data = ask(model, inputs, baseline=other).data["intensity"]
    rows = training.stratified(60, 0)
    norms = example_gradients(other, rows.x, rows.y, classification).norms
    assert data["baseline"]["max"] == pytest.approx(float(norms.max()))
    assert data["cross_run"]["max"] == pytest.approx(data["adversarial"]["max"] / float(norms.max()))


def test_others_are_as_many_as_members_and_drawn_by_the_seed(inputs):
    training, others = inputs
    few = split(20, 0, 0)
    model = Memory(training.x, training.y)
    assert ask(model, (few, others)).data["inputs"] == 20
    one, same, other = (ask(model, inputs, inputs=30, seed=seed).data for seed in (0, 0, 1))
    assert one == same
    assert one["confidences"] != other["confidences"]


def test_an_attack_is_not_run_twice(inputs, monkeypatch):
    training, others = inputs
    ran = []
    monkeypatch.setattr(FGSM, "perturb", lambda self, oracle, x, y, random: ran.append(len(x)) or x)
    settings = {"training": training}
    audits.run(nn.Linear(6, 4), others, [Privacy(**QUICK), Privacy(**{**QUICK, "delta": 0.1})], **settings)
    assert sum(ran) == 120


def test_without_an_attack_and_without_noise_the_rest_is_answered(inputs):
    finding = ask(nn.Linear(6, 4), inputs, attack=None, batches=0)
    assert finding.data["robust"] is None
    assert list(finding.data["membership"]) == ["confidence"]
    assert "composed" not in finding.data
    assert "paired" not in finding.data["intensity"]


def test_a_network_without_gradients_is_asked_what_it_can_answer(inputs):
    torch.manual_seed(0)
    inner = nn.Linear(6, 4)
    blind = models.FromNumpy(lambda rows: inner(torch.from_numpy(rows)).detach().numpy())
    finding, full = ask(blind, inputs, attack=None), ask(inner, inputs, attack=None)
    assert finding.data["membership"] == full.data["membership"]
    assert "Left out is what gradients over parameters tell" in finding.verdict


def test_steps_and_delta_are_composed(inputs):
    data = ask(nn.Linear(6, 4), inputs, steps=7, delta=0.01).data["composed"]
    assert (data["steps"], data["delta"]) == (7, 0.01)
    assert ask(nn.Linear(6, 4), inputs).data["composed"]["steps"] == 10  # 80 inputs in batches of 8
    assert any("l1 sensitivity" in sentence for sentence in data["assumptions"])


def test_references_calibrate_the_confidence(inputs):
    """Of inputs that are easy for all nothing follows; of one that is easy for this network alone much does."""
    training, others = inputs
    pool = torch.cat([training.x, others.x])
    truth, ids = torch.cat([training.y, others.y]), torch.cat([training.ids, others.ids])
    halves = [torch.rand(len(pool), generator=torch.Generator().manual_seed(k)) < 0.5 for k in range(4)]
    halves += [~half for half in halves]
    references = [Reference(Memory(pool[half], truth[half]), ids[half]) for half in halves]
    found = ask(Memory(training.x, training.y), inputs, references=references).data["membership"]["likelihood ratio"]
    assert (found["form"], found["references"]) == ("online", 8)
    assert found["advantage"] > 0.9
    offline = [Reference(nn.Linear(6, 4), torch.empty(0, dtype=torch.int64)) for _ in range(2)]
    found = ask(nn.Linear(6, 4), inputs, references=offline).data["membership"]["likelihood ratio"]
    assert found["form"] == "offline"


def test_what_is_missing_is_named(inputs):
    training, others = inputs
    model = nn.Linear(6, 4)
    with pytest.raises(UserError, match="privacy needs the inputs that the network was trained on"):
        audits.run(model, others, [Privacy(**QUICK)])
    with pytest.raises(UserError, match="privacy needs classes"):
        audits.run(nn.Linear(6, 1), others, [Privacy(**QUICK)], training=training, task=Regression())
    with pytest.raises(UserError, match="references must be two networks or more"):
        Privacy(references=["runs/one"])
    with pytest.raises(UserError, match=r"Reference\(model, ids\); got 'runs/one'"):
        ask(model, inputs, references=["runs/one", "runs/two"])
    with pytest.raises(UserError, match="baseline must be a network; got 'runs/one'"):
        ask(model, inputs, baseline="runs/one")
    strange = [Reference(nn.Linear(6, 3), training.ids)] * 2
    with pytest.raises(UserError, match="a reference network has 3 classes, the network in question 4"):
        ask(model, inputs, references=strange)
    for settings in ({"delta": 0.0}, {"inputs": 1}, {"steps": 0}, {"batches": -1}):
        with pytest.raises(UserError, match=f"{next(iter(settings))} must be"):
            Privacy(**settings)


def test_the_finding_is_plain_data(inputs):
    finding = ask(nn.Linear(6, 4), inputs)
    json.loads(to_json({"net": [finding]}, {}))
