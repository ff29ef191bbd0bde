"""The audit of blocks against products of matrices, full decompositions and the layer analysis."""

import json
import math

import pytest
import torch
from torch import nn

from buttress import audits, layers, models
from buttress.attacks.corruptions.noises import Gaussian
from buttress.attacks.gradient.fgsm import FGSM
from buttress.audits.base.finding import to_json
from buttress.audits.lipschitz.audit import Lipschitz
from buttress.data.dataset import Split
from buttress.errors import UserError
from buttress.threat import Threat

STEP = FGSM(threat=Threat(eps=0.05))


@pytest.fixture(scope="module")
def chain(nets):
    """Linear maps one after the other, the last but one the largest, and their inputs."""

    def build():
        return nn.Sequential(*(nn.Linear(6, 6, bias=False) for _ in range(3)), nn.Linear(6, 4, bias=False))

    model = nets.seeded(build, 3).eval()
    with torch.no_grad():
        model[2].weight.mul_(5)
    x = torch.rand(20, 6, generator=torch.Generator().manual_seed(0))
    return model, Split(x, torch.arange(20) % 4, torch.arange(20))


@pytest.fixture(scope="module")
def transformer():
    model = models.create("vit", seed=0, image_size=8, channels=1, width=8, depth=3, heads=2, classes=4).eval()
    x = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return model, Split(x, torch.arange(12) % 4, torch.arange(12))


def test_a_chain_of_matrices(chain):
    model, split = chain
    finding = Lipschitz(perturbations=[STEP, Gaussian(std=0.01)], exact=20)(model, split)
    norms = [float(torch.linalg.matrix_norm(layer.weight.detach(), 2)) for layer in model]
    data = finding.data
    for row, norm in zip(data["blocks"], norms, strict=True):
        assert row["clean"]["sigma"]["mean"] == pytest.approx(norm, rel=1e-3)
        assert row["adversarial"]["sigma"]["max"] == pytest.approx(norm, rel=1e-3)
        assert row["clean"]["exact"]["mean"] == pytest.approx(norm, rel=1e-5)
        assert row["clean"]["upper"]["mean"] >= norm
    assert [row["name"] for row in data["blocks"]] == ["0", "1", "2", "3"]
    bounds = data["bounds"]
    assert bounds["product"] == bounds["exponential"] == pytest.approx(math.prod(norms), rel=3e-3)
    whole = model[3].weight @ model[2].weight @ model[1].weight @ model[0].weight
    assert max(bounds["measured"].values()) <= float(torch.linalg.matrix_norm(whole.detach(), 2)) <= bounds["product"]
    assert bounds["held"] == 1
    assert data["chained"] is True
    assert data["places"]["top"] == "2"
    assert (data["places"]["place"], data["places"]["middle"]) == (
        "inner",
        pytest.approx(sum(norms[1:3]) / 2, rel=1e-3),
    )
    assert finding.verdict.startswith(
        "Small changes are stretched most by 2, neither the first nor the last of 4 compared"
    )


def test_growth_and_alignment_by_hand(chain):
    model, split = chain
    data = Lipschitz(perturbations=[STEP])(model, split).data
    x_adv = STEP(model, split.x, split.y).x_adv
    with torch.no_grad():
        before, after = (x_adv - split.x), model[0](x_adv - split.x)
        right = torch.linalg.svd(model[0].weight)[2][0]
        size = before.norm(dim=1)
        expected = {
            "block": (after.norm(dim=1) / size).mean(),
            "start": (after.norm(dim=1) / size).mean(),
            "relative": (after.norm(dim=1) / model[0](split.x).norm(dim=1)).mean(),
            "alignment": ((before @ right).abs() / size).mean(),
        }
    grown = data["blocks"][0]["growth"]["fgsm"]
    assert grown == pytest.approx({name: float(value) for name, value in expected.items()}, rel=5e-3)
    last = data["blocks"][3]["growth"]["fgsm"]["start"]
    with torch.no_grad():
        assert last == pytest.approx(float((model(before).norm(dim=1) / size).mean()), rel=1e-4)


def test_blocks_and_branches_of_a_transformer(transformer):
    model, split = transformer
    tiny = Gaussian(std=1e-4)
    finding = Lipschitz(perturbations=[tiny], exact=2, inputs=4, tolerance_inputs=2, starts=1)(model, split)
    data = finding.data
    assert [row["name"] for row in data["blocks"]] == ["embedding", "blocks.0", "blocks.1", "blocks.2", "head"]
    assert [list(row["branches"]) for row in data["blocks"]] == [[], *[["mixer", "mlp"]] * 3, []]
    assert data["inputs"] == 4
    assert data["chained"] is True
    assert data["bounds"]["held"] == 1  # of small changes, to first order
    assert data["bounds"]["measured"]["gaussian"] <= data["bounds"]["product"] <= data["bounds"]["exponential"]
    assert data["bounds"]["log_norm"] <= data["bounds"]["exponential"]
    for row in data["blocks"][1:4]:
        for branch in row["branches"].values():
            stated = branch["clean"]
            assert stated["log_norm"]["max"] <= stated["sigma"]["max"] * 1.001
            assert stated["residual"]["max"] <= 1 + stated["sigma"]["max"] * 1.001
            assert stated["upper"]["mean"] >= stated["exact"]["mean"]
        assert {"cm", "gain", "tolerance", "margin"} <= set(row)
    places = data["places"]
    assert places["blocks"] == ["blocks.0", "blocks.1", "blocks.2"]
    assert places["last_over_middle"] == pytest.approx(places["last"] / places["middle"])
    inner = [row["adversarial"]["sigma"]["mean"] for row in data["blocks"][1:4]]
    assert places["adversarial"]["first_over_middle"] == pytest.approx(inner[0] / inner[1])
    read = json.loads(to_json({"network": [finding]}, {}))
    assert read["networks"]["network"][0]["data"]["blocks"][4]["name"] == "head"


def test_the_layer_analysis_beside_it_is_the_layer_analysis(transformer):
    model, split = transformer
    data = Lipschitz(perturbations=[STEP], branches=False)(model, split).data
    names = [row["name"] for row in data["blocks"]]
    direct = layers.sustainability(model, split, STEP, names)
    assert [row["cm"] for row in data["blocks"]] == pytest.approx(direct.mean[0].tolist())
    assert [row["gain"] for row in data["blocks"]] == pytest.approx(direct.gain().tolist())


def test_figures_do_not_hang_on_batches(transformer):
    model, split = transformer
    asked = Lipschitz(perturbations=[STEP], branches=False, exact=5, iterations=5, starts=1)
    whole, parts = (asked(model, split, batch_size=size).data for size in (64, 4))
    for one, other in zip(whole["blocks"], parts["blocks"], strict=True):
        assert one["clean"]["sigma"] == pytest.approx(other["clean"]["sigma"], rel=1e-4)
        assert one["clean"]["exact"] == pytest.approx(other["clean"]["exact"], rel=1e-4)
        assert one["cm"] == pytest.approx(other["cm"], rel=1e-4)


def test_a_residual_network_and_blocks_by_name(nets):
    model = models.create("resnet18", seed=0, width=2, channels=1, classes=4)
    model.train()
    split = Split(torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(4), torch.arange(4))
    before = nets.state(model)
    data = Lipschitz(perturbations=[STEP], iterations=3, starts=1)(model, split).data
    nets.assert_state(model, before)
    assert data["places"]["blocks"] == [f"layer{k}.{i}" for k in (1, 2, 3, 4) for i in (0, 1)]
    some = Lipschitz(perturbations=[STEP], blocks=["layer1", "layer?.1"], iterations=3, starts=1)(model, split).data
    assert [row["name"] for row in some["blocks"]] == ["layer1.1", "layer1", "layer2.1", "layer3.1", "layer4.1"]
    assert some["chained"] is False
    verdict = Lipschitz(perturbations=[STEP], blocks=["layer1", "layer3"], iterations=3, starts=1)(model, split).verdict
    assert verdict.endswith("modules between change it too, so no product bounds this.")
    with pytest.raises(UserError, match=r"^no layer is called or matches 'layer5'; did you mean [^\n]*$"):
        Lipschitz(perturbations=[STEP], blocks=["layer5"])(model, split)


def test_a_network_of_one_layer(line):
    model, x, y, w = line
    anywhere = FGSM(threat=Threat(eps=0.05, box=None))
    finding = Lipschitz(perturbations=[anywhere])(model, [(x, y)])
    (row,) = finding.data["blocks"]
    assert row["clean"]["sigma"]["mean"] == pytest.approx(float(w.norm() / 2**0.5), rel=1e-3)
    assert finding.verdict.startswith("Small changes are stretched most by the network: largest singular value ")


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"perturbations": []}, "at least one perturbation"),
        ({"inputs": 0}, "inputs must be a whole number of 1 or more; got 0"),
        ({"starts": 0}, "starts must be a whole number of 1 or more; got 0"),
        ({"exact": -1}, "exact must be a whole number of 0 or more; got -1"),
        ({"tolerance": 0.0}, r"tolerance must be a number in \(0, 1\); got 0.0"),
    ],
)
def test_settings_that_measure_nothing(fields, line):
    with pytest.raises(UserError, match=line):
        Lipschitz(**fields)


def test_it_is_registered():
    assert "lipschitz" in audits.names()


class Memory(nn.Module):
    """Attention to itself, then to a memory; an encoding of positions, and a part that returns a dict."""

    def __init__(self):
        super().__init__()
        self.position = nn.Embedding(3, 6)
        self.own, self.cross = (nn.MultiheadAttention(6, 1, batch_first=True) for _ in range(2))
        self.head = Head()

    def forward(self, x):
        z = x + self.position(torch.arange(3))
        z = z + self.own(query=z, key=z, value=z, need_weights=False)[0]
        z = z + self.cross(z, x, x, need_weights=False)[0]
        return self.head(states=z)["logits"]


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(18, 4)

    def forward(self, states):
        return {"logits": self.linear(states.flatten(1))}


def test_what_moves_jointly_and_what_is_left_out_is_said(nets):
    model = nets.seeded(Memory).eval()
    x = torch.rand(5, 3, 6, generator=torch.Generator().manual_seed(0))
    split = Split(x, torch.arange(5) % 4, torch.arange(5))
    finding = Lipschitz(perturbations=[STEP], exact=5, tolerance_inputs=2)(model, split)
    rows = {row["name"]: row for row in finding.data["blocks"]}
    assert {name: row["joint"] for name, row in rows.items()} == {"own": 1, "cross": 2, "head": 1}
    assert {row["held"] for row in rows.values()} == {0}
    assert finding.data["left_out"] == {"position": "is not given numbers"}
    assert "What goes into cross is several tensors, which move jointly." in finding.verdict
    assert finding.verdict.endswith("Left out: position is not given numbers.")
    z = (x + model.position.weight).detach()
    every = torch.stack(
        [
            torch.func.jacrev(lambda row: model.own(row[None], row[None], row[None])[0].flatten())(row).flatten(1)
            for row in z
        ]
    )
    exact = torch.linalg.matrix_norm(every.detach(), 2)
    assert rows["own"]["clean"]["exact"]["mean"] == pytest.approx(float(exact.mean()), rel=1e-5)
    assert rows["own"]["clean"]["sigma"]["mean"] == pytest.approx(float(exact.mean()), rel=2e-3)
    norm = float(torch.linalg.matrix_norm(model.head.linear.weight.detach(), 2))
    assert rows["head"]["clean"]["sigma"]["mean"] == pytest.approx(norm, rel=1e-3)
    assert {"cm", "margin"} <= set(rows["own"]) & set(rows["head"])
    with pytest.raises(UserError, match=r"^the block 'position' is not given numbers: na"):
        Lipschitz(perturbations=[STEP], blocks="position")(model, split)


class Remembering(nn.Module):
    """Attention to states that have a row for each input and depend on none."""

    def __init__(self):
        super().__init__()
        self.cross, self.states = nn.MultiheadAttention(6, 1, batch_first=True), torch.ones(9, 3, 6).cumsum(1)

    def forward(self, x):
        states = self.states[: len(x)]
        return self.cross(x, states, states, need_weights=False)[0].flatten(1)


def test_what_is_held_is_said(nets):
    x = torch.rand(5, 3, 6, generator=torch.Generator().manual_seed(0))
    split = Split(x, torch.arange(5) % 4, torch.arange(5))
    finding = Lipschitz(perturbations=[STEP])(nets.seeded(Remembering).eval(), split)
    assert finding.data["blocks"][0]["held"] == 2
    assert "Of what goes into cross tensors that do not depend on the input are held" in finding.verdict
