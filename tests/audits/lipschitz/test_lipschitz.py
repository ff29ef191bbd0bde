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


@pytest.mark.usefixtures("_short_searches")
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
    asked = Lipschitz(perturbations=[STEP], branches=False, exact=3, inputs=5, iterations=5, starts=1)
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
    data = Lipschitz(perturbations=[STEP], iterations=2, starts=1)(model, split).data
    nets.assert_state(model, before)
    assert data["places"]["blocks"] == [f"layer{k}.{i}" for k in (1, 2, 3, 4) for i in (0, 1)]
    quick = {"perturbations": [STEP], "branches": False, "iterations": 1, "starts": 1}
    some = Lipschitz(blocks=["layer1", "layer?.1"], **quick)(model, split).data
    assert [row["name"] for row in some["blocks"]] == ["layer1.1", "layer1", "layer2.1", "layer3.1", "layer4.1"]
    assert some["chained"] is False
    verdict = Lipschitz(blocks=["layer1", "layer3"], **quick)(model, split).verdict
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


class Gain(nn.Module):
    """A layer whose block in the middle is ``k`` times a matrix, and the rest undoes it."""

    def __init__(self, k):
        super().__init__()
        self.first, self.block, self.head, self.k = nn.Linear(6, 6), nn.Module(), nn.Linear(6, 4), k
        self.block.linear = nn.Linear(6, 6)
        self.block.forward = lambda z: self.block.linear(z) * k

    def forward(self, x):
        return self.head(self.block(self.first(x)) / self.k)


def of_six(n=5):
    x = torch.rand(n, 6, generator=torch.Generator().manual_seed(0))
    return Split(x, torch.arange(n) % 4, torch.arange(n))


@pytest.mark.parametrize("k", [1e-36, 1e-25, 1e-15, 1e-12, 1.0, 1e12, 1e22, 1e36])
def test_the_figures_of_a_block_grow_with_it(k, nets):
    model = nets.seeded(lambda: Gain(k)).eval()
    finding = Lipschitz(perturbations=[STEP], exact=2, starts=1)(model, of_six())
    rows = {row["name"]: row for row in finding.data["blocks"]}
    norm = float(torch.linalg.matrix_norm(model.block.linear.weight.detach(), 2))
    assert rows["block"]["clean"]["sigma"]["mean"] / k == pytest.approx(norm, rel=1e-3)
    assert rows["block"]["clean"]["exact"]["mean"] / k == pytest.approx(norm, rel=1e-5)
    assert 0 < rows["block"]["growth"]["fgsm"]["block"] / k <= norm * 1.001
    assert finding.data["bounds"]["product"] / k == pytest.approx(
        math.prod(row["clean"]["sigma"]["mean"] for row in rows.values()) / k, rel=1e-3
    )
    assert "stretched most by" in finding.verdict


def test_a_block_whose_jacobian_is_not_finite_is_left_out(nets):
    class Root(nn.Module):
        def forward(self, z):
            return (z - z.detach()).sqrt()

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.root, self.head = nn.Linear(6, 6), Root(), nn.Linear(6, 4)

        def forward(self, x):
            return self.head(self.root(self.first(x)))

    finding = Lipschitz(perturbations=[Gaussian(std=0.1)], starts=1)(nets.seeded(Net).eval(), of_six())
    assert [row["name"] for row in finding.data["blocks"]] == ["first", "head"]
    assert "Left out: root has a Jacobian that holds NaN or infinite numbers." in finding.verdict


def test_a_block_that_torch_cannot_derive_is_left_out(nets):
    class Overwriting(nn.Module):
        def forward(self, z):
            z = z.sigmoid()
            z[:, 0] = 0
            return z

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.over, self.head = nn.Linear(6, 6), Overwriting(), nn.Linear(6, 4)

        def forward(self, x):
            return self.head(self.over(self.first(x)))

    finding = Lipschitz(perturbations=[Gaussian(std=0.1)], starts=1)(nets.seeded(Net).eval(), of_six())
    assert [row["name"] for row in finding.data["blocks"]] == ["first", "head"]
    assert finding.data["left_out"]["over"].startswith("cannot be derived; torch raises one of the variables")


class Twice(nn.Module):
    """One block that is called twice, at very different points; then as often as asked for."""

    def __init__(self, more=0):
        super().__init__()
        self.f, self.b, self.h = nn.Linear(6, 6), nn.Sequential(nn.Linear(6, 6), nn.Tanh()), nn.Linear(6, 4)
        self.more = more

    def forward(self, x):
        z = self.b(self.b(30 * self.f(x)) * 0.01)
        for _ in range(self.more):
            z = self.b(z)
        return self.h(z)


def largest(function, z):
    """The mean over the rows of the largest singular value of the whole Jacobian of each."""
    whole = [torch.autograd.functional.jacobian(lambda v: function(v[None])[0].flatten(), row) for row in z]
    matrices = torch.stack([matrix.flatten(1) for matrix in whole])
    return float(torch.linalg.matrix_norm(matrices.double(), 2).mean())


def test_every_call_of_a_block_is_measured(nets):
    model, split = nets.seeded(Twice).eval(), of_six()
    finding = Lipschitz(perturbations=[STEP])(model, split)
    rows = {row["name"]: row["clean"]["sigma"]["mean"] for row in finding.data["blocks"]}
    z = 30 * model.f(split.x).detach()
    expected = {"b": largest(model.b, z), "b#1": largest(model.b, model.b(z).detach() * 0.01)}
    assert list(rows) == ["f", "b", "b#1", "h"]
    assert {name: rows[name] for name in expected} == pytest.approx(expected, rel=2e-3)
    assert finding.data["chained"] is False
    profile = layers.sustainability(model, split, STEP, list(rows))
    assert [row["cm"] for row in finding.data["blocks"]] == pytest.approx(profile.mean[0].tolist())
    many = Lipschitz(perturbations=[STEP], starts=1, inputs=1)(nets.seeded(lambda: Twice(20)).eval(), split)
    assert len(many.data["blocks"]) == 18
    assert many.data["left_out"] == {"b#2.14": "and later calls of it (6 in all) are not measured unless named"}


CONTEXT = torch.linspace(-1, 1, 12).view(2, 6)
WAYS = {
    "latents first": lambda block, x: block(CONTEXT.expand(len(x), 2, 6), x, x, need_weights=False)[0],
    "by keyword": lambda block, x: block(value=x, key=x, query=CONTEXT.expand(len(x), 2, 6), need_weights=False)[0],
    "decoder": lambda block, x: block(CONTEXT.expand(len(x), 2, 6), x),
    "time first": lambda block, x: block(torch.full((len(x), 6), 0.3), x),
    "cut off": lambda block, x: block(torch.full((len(x), 6), 0.3), x.detach()),
}


class Timed(nn.Module):
    def __init__(self):
        super().__init__()
        self.t, self.a = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, t, x):
        return torch.tanh(self.t(t)[:, None] + 4 * self.a(x))


class Around(nn.Module):
    """A block that is called in one of the ways, and a layer of constants only."""

    def __init__(self, way):
        super().__init__()
        attention = {"latents first", "by keyword"}
        self.way, self.queries, self.head = WAYS[way], nn.Linear(6, 6), nn.Linear(6, 4)
        self.block = (
            nn.MultiheadAttention(6, 2, batch_first=True)
            if way in attention
            else nn.TransformerDecoderLayer(6, 2, 8, 0.0, batch_first=True)
            if way == "decoder"
            else Timed()
        )

    def forward(self, x):
        constant = self.queries(CONTEXT.expand(len(x), 2, 6))
        return self.head((self.way(self.block, x) + constant[:, :1]).mean(1))


@pytest.mark.parametrize("way", WAYS)
def test_what_moves_is_what_depends_on_the_input(way, nets):
    """Not the first argument, where that is the same for every input; and a layer of constants is left out."""
    model = nets.seeded(lambda: Around(way)).eval()
    x = torch.rand(4, 3, 6, generator=torch.Generator().manual_seed(0))
    split = Split(x, torch.arange(4) % 4, torch.arange(4))
    finding = Lipschitz(perturbations=[Gaussian(std=0.01)])(model, split)
    rows = {row["name"]: row for row in finding.data["blocks"]}
    called = WAYS["time first"] if way == "cut off" else WAYS[way]
    expected = largest(lambda z: called(model.block, z), x)
    assert rows["block"]["clean"]["sigma"]["mean"] == pytest.approx(expected, rel=2e-3)
    assert rows["block"]["held"] == 1
    assert finding.data["left_out"] == {"queries": "is given what does not depend on the input"}
