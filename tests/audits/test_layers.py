from dataclasses import dataclass

import pytest
import torch
from torch import nn

from buttress import audits, layers
from buttress.attacks import Perturbation
from buttress.attacks.corruptions.noises import Gaussian
from buttress.attacks.gradient.fgsm import FGSM
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.layers import Layers
from buttress.data.dataset import Split
from buttress.errors import UserError
from buttress.threat import Threat

THREAT = Threat(eps=0.1)
PLAIN = {"tolerance_inputs": 0, "patching_inputs": 0}


def ask(model, split, **fields):
    return audits.run(model, split, [Layers(**fields)], seed=2)[0]


@pytest.mark.parametrize("measure", ["relative_error", "centred", "cosine"])
def test_figures_are_those_of_the_layer_analysis_called_directly(pictures, measure):
    model, split = pictures
    perturbations = [PGD(threat=THREAT, steps=3), Gaussian(std=0.2)]
    data = ask(model, split, perturbations=perturbations, measure=measure, **PLAIN).data
    named = dict(zip(["pgd", "gaussian"], perturbations, strict=True))
    direct = layers.sustainability(model, split, named, "activations", measure, seed=2)
    assert data["layers"] == direct.layers
    assert data["perturbations"] == ["pgd", "gaussian"]
    torch.testing.assert_close(torch.tensor(data["mean"], dtype=torch.float64), direct.mean)
    torch.testing.assert_close(torch.tensor(data["std"], dtype=torch.float64), direct.std)
    for name in named:
        assert data["mu"][name] == pytest.approx(direct.mu(name))
        assert data["mvl"][name] == direct.mvl(data["eta"], name)
    other = layers.sustainability(
        model, split, named, "activations", "relative_error" if measure == "centred" else "centred", seed=2
    )
    second = data["relative_error" if measure == "centred" else "centred"]
    torch.testing.assert_close(torch.tensor(second["mean"], dtype=torch.float64), other.mean)


class Ragged(nn.Module):
    """Of each input's tokens those are looked at that are bright, so that one layer has no centre over inputs."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.token, self.mixed, self.out = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        tokens = x.view(-1, 6, 4)
        bright = tokens.mean(2) > 0.5
        seen = torch.zeros(len(x), 6, 6).index_put((bright,), torch.relu(self.token(tokens[bright])))
        return self.out(torch.sigmoid(torch.tanh(self.mixed(seen.mean(1)))))


@pytest.mark.parametrize("measure", ["relative_error", "centred"])
def test_growth_is_told_of_the_layers_that_have_a_centre(measure):
    x = torch.rand(24, 24, generator=torch.Generator().manual_seed(0))
    split, noise = Split(x, torch.arange(24) % 3, torch.arange(24)), Gaussian(std=0.01)
    finding = ask(Ragged().eval(), split, perturbations=[noise], measure=measure, **PLAIN)
    centred = layers.sustainability(Ragged().eval(), split, noise, "activations", "centred", seed=2)
    assert centred.layers == ["tanh", "sigmoid"]
    gains = dict(zip(centred.layers, centred.gain().tolist(), strict=True))
    growth = dict(zip(finding.data["layers"], finding.data["growth"]["gain"], strict=True))
    assert growth == {"relu": None, **gains} if measure == "relative_error" else growth == gains
    assert set(finding.data["growth"]["first"]) <= set(gains)
    other = finding.data["relative_error" if measure == "centred" else "centred"]["mean"][0]
    assert len(other) == len(finding.data["layers"])


def test_tolerance_and_margin_are_those_of_the_search_called_directly(pictures):
    model, split = pictures
    attack = PGD(threat=THREAT, steps=3)
    data = ask(model, split, perturbations=[attack], tolerance_inputs=24, tolerance_steps=2, bisections=2).data
    direct = layers.tolerance(model, split, attack, "activations", steps=2, bisections=2, seed=2).to_dict()
    assert data["margin"] == pytest.approx(direct["margin"])
    assert data["tolerance"] == pytest.approx(direct["tolerance"])
    assert data["tolerance_inputs"] == 24
    assert not {"margin", "tolerance"} & set(ask(model, split, perturbations=[attack], **PLAIN).data)


def test_patching_is_that_of_the_beaten_inputs_called_directly(pictures):
    model, split = pictures
    x, _, ids = split.take(torch.arange(24))
    with torch.no_grad():
        y = model(x).argmax(1)
    y[:3] = (y[:3] + 1) % 4  # wrong unperturbed
    data, attack = Split(x, y, ids), PGD(threat=Threat(eps=0.5), steps=3)
    found = ask(model, data, perturbations=[attack], tolerance_inputs=0).data
    direct = layers.patching(model, data, attack, "activations", seed=2).to_dict()
    assert found["patching_inputs"] == direct["beaten"] > 3
    assert {key: direct[key] for key in found["patching"]} == found["patching"]
    few = ask(model, data, perturbations=[attack], tolerance_inputs=0, patching_inputs=2).data
    assert few["patching_inputs"] == 2
    assert not {"patching", "patching_inputs"} & set(ask(model, data, perturbations=[attack], **PLAIN).data)


def test_of_many_layers_the_most_displaced_and_some_evenly_spread_are_looked_at_closer():
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(11)]
    model, x = nn.Sequential(*blocks, nn.Linear(6, 3)).eval(), torch.rand(24, 6)
    with torch.no_grad():
        for block in blocks:
            block[0].weight *= 2  # or no input is beaten
        split = Split(x, model(x).argmax(1), torch.arange(24))
    attack, brief = FGSM(threat=Threat(eps=0.5)), {"tolerance_steps": 2, "bisections": 2}
    whole = ask(model, split, perturbations=[attack], **brief)
    found = ask(model, split, perturbations=[attack], most_layers=5, **brief)
    moved = sorted(zip(whole.data["mean"][0], whole.data["layers"], strict=True), reverse=True)
    first = {name for _, name in moved[:3]}
    others, part = [name for name in whole.data["layers"] if name not in first], found.data["looked_closer"]
    assert part == [n for n in whole.data["layers"] if n in {*first, others[0], others[-1]}]
    assert "looked_closer" not in whole.data
    assert "Margin and patching are of 5 of 11 layers, half of them the most displaced." in found.verdict
    for k, name in enumerate(found.data["layers"]):
        expected = whole.data["margin"][k] if name in part else None
        assert found.data["margin"][k] == (None if expected is None else pytest.approx(expected))
        assert found.data["patching"]["recovery"][k] == (
            whole.data["patching"]["recovery"][k] if name in part else None
        )
        assert (found.data["ranks"]["by"]["margin"]["rank"][k] is None) == (name not in part)
    assert found.data["mean"] == whole.data["mean"]


def test_where_no_input_is_beaten_there_is_no_patching(pictures):
    model, split = pictures
    x, _, ids = split.take(torch.arange(24))
    with torch.no_grad():
        data = Split(x, model(x).argmax(1), ids)
    found = ask(model, data, perturbations=[Gaussian(std=1e-6)], tolerance_inputs=0).data
    assert found["patching_inputs"] == 0
    assert "patching" not in found
    assert not {"recovery", "restored", "few"} & set(found["ranks"]["by"])


def test_eta_is_the_users_where_it_names_a_layer(pictures):
    model, split = pictures
    suggested = ask(model, split, perturbations=[FGSM(threat=THREAT)], **PLAIN).data
    low, too_high = (ask(model, split, perturbations=[FGSM(threat=THREAT)], eta=e, **PLAIN) for e in (0.0, 50.0))
    mean, mu = low.data["mean"][0], low.data["mu"]["fgsm"]
    above = sorted([(value, name) for value, name in zip(mean, low.data["layers"], strict=True) if value > mu])
    assert low.data["mvl"]["fgsm"] == [name for _, name in above[::-1]]
    assert (low.data["eta"], too_high.data["eta"]) == (0.0, suggested["eta"])
    assert too_high.data["mvl"] == suggested["mvl"]
    assert f"No layer passes eta 50: the cut-off at the widest gap, {suggested['eta']:.3g}" in too_high.verdict
    assert "cut-off" not in low.verdict
    assert len(suggested["mvl"]["fgsm"]) >= 1


@pytest.mark.parametrize("measure", ["relative_error", "relative_error_batch", "centred"])
@pytest.mark.parametrize("count", [1, 5])
def test_few_inputs_name_no_winner(pictures, measure, count):
    model, split = pictures
    x, y, _ = split.take(torch.arange(count))
    (finding,) = audits.run(model, [(x, y)], [Layers(perturbations=[FGSM(threat=THREAT)], measure=measure, **PLAIN)])
    if measure == "centred" and count == 1:
        assert finding.verdict == "The measure centred is defined at no layer of 1 input(s) under FGSM."
        return
    assert finding.verdict.startswith("No layer is displaced more than others under FGSM: ")
    assert set(finding.data["ranking"]["first"]) == set(finding.data["layers"])
    assert len(finding.data["growth"]["first"]) != 1


def test_two_attacks_of_one_name_are_kept_apart(pictures):
    model, split = pictures
    attacks = [FGSM(threat=THREAT), FGSM(threat=Threat(eps=0.3))]
    data = ask(model, split, perturbations=attacks, **PLAIN).data
    assert data["perturbations"] == ["fgsm", "fgsm'"]
    assert data["mean"][0] < data["mean"][1]


class Swing(nn.Module):
    """Two layers of a single number x: one that nothing can move, and 4 x + 2; logits (0, 4 x)."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.ReLU(), nn.ReLU()

    def forward(self, x):
        return torch.cat([self.a(3 + 0 * x) - 3, self.b(4 * x + 2) - 2], 1)


def swing(**fields):
    x = torch.full((6, 1), 0.5)
    x[3:] = 0.45
    data = [(x, torch.ones(6, dtype=torch.int64))]
    return audits.run(Swing(), data, [Layers(**{**PLAIN, **fields})])[0]


def test_the_verdict_names_the_worst_layer_and_how_far_it_moved():
    """At x = 0.5 and 0.45 the layer is 4 and 3.8, and moves by 1.6: 40% and 42%."""
    finding = swing(perturbations=[FGSM(threat=Threat(eps=0.4))])
    assert finding.verdict.startswith("Most displaced under FGSM: b (b is displaced by 41.1% of its own size).")
    assert finding.severity == "info"
    far = swing(perturbations=[FGSM(threat=Threat(eps=0.8, box=None))])
    assert far.verdict.startswith("Most displaced under FGSM: b (b is displaced by 82.1% of its own size).")
    assert far.severity == "warning"


def test_other_measures_are_not_called_a_share_of_the_size(pictures):
    model, split = pictures
    finding = ask(model, split, perturbations=[FGSM(threat=Threat(eps=0.9))], measure="cosine", **PLAIN)
    assert " has cosine 0." in finding.verdict
    assert finding.severity == "info"


@pytest.mark.parametrize("eps", [0.01, 0.9])
def test_of_a_lone_layer_the_verdict_repeats_no_robust_accuracy(eps):
    """Its margin is 1 or less just where the attack succeeds; the figures are in the data."""
    finding = swing(
        perturbations=[FGSM(threat=Threat(eps=eps, box=None))], layers=["b"], tolerance_inputs=6, bisections=6
    )
    assert finding.verdict.startswith("The only layer, b, is displaced by ")
    assert finding.verdict.count(".") == 2  # of the percentage, and the end
    margin = finding.data["margin"][0]
    assert (margin is not None and margin <= 1) == (eps == 0.9)  # None: no displacement was found that is too far


@dataclass(frozen=True, kw_only=True)
class Sideways(Perturbation):
    """Adds 0.1 to the second value of each input."""

    def perturb(self, oracle, x, y, random):
        return x + torch.tensor([0.0, 0.1])


class Amplifying(nn.Module):
    """Three layers that leave the first of two values as it is, and multiply the second, by these factors."""

    def __init__(self, factors):
        super().__init__()
        self.factors = factors
        self.relu1, self.relu2, self.relu3 = nn.ReLU(), nn.ReLU(), nn.ReLU()

    def forward(self, x):
        for factor, relu in zip(self.factors, (self.relu1, self.relu2, self.relu3), strict=True):
            x = relu(x * torch.tensor([1.0, factor]))
        return torch.stack([x[:, 0] - x[:, 1], x[:, 1] - x[:, 0]], 1)


MOST = "No layer is displaced more than others under Sideways: relu1, relu2 and relu3 cannot be told apart ("


@pytest.mark.parametrize(
    ("factors", "displaced", "told"),
    [
        ((9.0, 1.0, 1.0), MOST, "The perturbation grows most at relu1: its centred size is multiplied by 9 "),
        ((1.0, 9.0, 1.0), "Sideways: relu2 and relu3 cannot", "grows most at relu2: its centred size is multiplied by"),
        ((1.0, 1.0, 9.0), "Sideways: relu3 (relu3 is displaced", "grows most at relu3: its centred size is multiplied"),
        ((3.0, 3.0, 1.0), "relu2 and relu3 cannot", "grows most at relu1 and relu2, which cannot be told apart: its "),
        (
            (1.0, 1.0, 1.0),
            MOST,
            "The perturbation is not shown to grow at any layer: its centred size is multip",
        ),
    ],
    ids=["first", "middle", "last", "two", "none"],
)
def test_the_verdict_tells_where_a_network_amplifies(factors, displaced, told):
    """The data vary in the first value alone, which no layer changes: the gain of a layer is its factor."""
    x = torch.stack([torch.linspace(1, 2, 40), torch.zeros(40)], 1)
    data = [(x, torch.arange(40) % 2)]
    finding = audits.run(Amplifying(factors), data, [Layers(perturbations=[Sideways()], **PLAIN)])[0]
    assert displaced in finding.verdict
    assert told in finding.verdict
    assert finding.data["growth"]["gain"] == pytest.approx(factors, rel=1e-4)


@pytest.mark.parametrize("measure", ["relative_error_batch", "cka"])
def test_a_figure_of_whole_batches_has_no_interval_and_no_ties(pictures, measure):
    model, split = pictures
    data = ask(model, split, perturbations=[FGSM(threat=THREAT)], measure=measure, **PLAIN).data
    assert "low" not in data["ranking"]
    assert data["ranking"]["names"] == data["mvl"]["fgsm"]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"perturbations": []}, "at least one perturbation"),
        ({"tolerance_inputs": -1}, "0 or more; got -1"),
        ({"patching_inputs": -1}, "0 or more; got -1"),
        ({"most_layers": 0}, "1 or more; got 0"),
        ({"measure": "tolerance"}, "no measure 'tolerance'"),
    ],
)
def test_what_asks_nothing_is_refused(fields, told):
    with pytest.raises(UserError, match=told):
        Layers(**fields)


def test_a_pattern_that_matches_nothing_is_told(pictures):
    model, split = pictures
    with pytest.raises(UserError, match=r"no layer is called or matches 'zzz\*'"):
        ask(model, split, perturbations=[FGSM(threat=THREAT)], layers="zzz*")


class Gated(nn.Module):
    """Its only activation is that of a parameter."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Parameter(torch.ones(2))

    def forward(self, x):
        return x * torch.sigmoid(self.gate)


def test_where_nothing_is_measured_the_verdict_says_so_and_why():
    data = [(torch.rand(8, 2), torch.arange(8) % 2)]
    finding = audits.run(Gated(), data, [Layers(perturbations=[FGSM(threat=THREAT)])])[0]
    assert finding.verdict == "No layer could be measured: sigmoid does not depend on the input."
    assert (finding.severity, finding.data["layers"]) == ("info", [])


class Softsign(Gated):
    """A gate of its own, and an activation written by hand."""

    def forward(self, x):
        x = super().forward(x)
        return x / (1 + x.abs())


@pytest.mark.parametrize("first", [nn.Identity(), nn.ReLU()], ids=["nothing measured", "a single layer"])
def test_what_was_left_out_or_missed_closes_the_verdict(first):
    data = [(torch.rand(8, 2), torch.arange(8) % 2)]
    network = nn.Sequential(first, Softsign())
    verdict = audits.run(network, data, [Layers(perturbations=[FGSM(threat=THREAT)])])[0].verdict
    assert "sigmoid" in verdict
    assert "does not depend on the input. Perhaps layers, but written by hand and not seen as such: 1.abs " in verdict
