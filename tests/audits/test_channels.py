"""Activations and relevances by hand on a network of four channels."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from buttress import audits, models
from buttress.attacks.gradient.fgsm import FGSM
from buttress.audits.base.finding import read, to_json
from buttress.audits.channels import Channels, _alignment
from buttress.errors import UserError
from buttress.models.wrapping.normalized import Normalized
from buttress.threat import Threat

W = torch.tensor([[2.0, -1.0, 1.0, 0.0], [-1.0, 2.0, -2.0, 0.5]])
NAMES = ["cat", "dog"]


class Pair(nn.Module):
    """Four channels of 1x2 pixels, their mean over space, and a linear head."""

    def __init__(self):
        super().__init__()
        self.same = nn.Identity()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4, 2)
        with torch.no_grad():
            self.fc.weight.copy_(W)
            self.fc.bias.zero_()

    def forward(self, x):
        return self.fc(self.pool(self.same(x)).flatten(1))


@pytest.fixture
def case():
    """Means over space: (4, 1, 2, 0), (2, 1, 2, 0) of class 0 and (0, 3, 1, 1) of class 1, in tenths."""
    means = torch.tensor([[4.0, 1.0, 2.0, 0.0], [2.0, 1.0, 2.0, 0.0], [0.0, 3.0, 1.0, 1.0]]) / 10
    x = torch.stack([0.5 * means, 1.5 * means], 2)[:, :, None]
    return Pair().eval(), [(x, torch.tensor([0, 0, 1]))]


def ask(case, **settings):
    """Where FGSM steps by 0.1: against class 0 by the signs of W[1] - W[0], which are (-, +, -, +); the box is at 0."""
    attack = FGSM(threat=Threat(eps=0.1))
    return Channels(attack=attack, **settings)(*case, classes=NAMES)


class Routed(Pair):
    """Bright inputs take another way."""

    def forward(self, x):
        return super().forward(x) if x.mean() < 0.3 else super().forward(torch.tanh(x))


def test_a_layer_that_is_not_called_for_all_inputs_is_refused(case):
    x = torch.cat([case[1][0][0], torch.ones(3, 4, 1, 2)])
    with pytest.raises(UserError, match=r"^the layer 'tanh' is not called for all inputs: name another$"):
        Channels(attack=FGSM(threat=Threat(eps=0.1)), layer="tanh")(
            Routed().eval(), [(x.flip(0), torch.tensor([1, 1, 0, 1, 0, 0]))], batch_size=3
        )


def pearson(a, b):
    return np.corrcoef(a, b)[0, 1]


# What FGSM makes of the means: pixels of class 0 move by (-, +, -, +) 0.1, those of class 1 the other way; none is
# below 0.
ATTACKED = {
    0: np.array([(0.3 + 0.1) / 2, 0.2, 0.1, 0.1]),
    1: np.array([0.1, 0.2, 0.2, (0.0 + 0.05) / 2]),
}
CLEAN = {0: np.array([0.3, 0.1, 0.2, 0.0]), 1: np.array([0.0, 0.3, 0.1, 0.1])}


def test_figures_of_each_class_by_hand(case):
    finding = ask(case)
    cat, dog = finding.data["classes"]
    assert (cat["class"], cat["inputs"], cat["positive"], cat["negative"]) == ("cat", 2, 2, 1)
    assert (dog["class"], dog["inputs"], dog["positive"], dog["negative"]) == ("dog", 1, 2, 2)
    for k, row in enumerate((cat, dog)):
        w, negative = W[k].numpy(), W[k].numpy() < 0
        for kind, a in (("clean", CLEAN[k]), ("attacked", ATTACKED[k])):
            assert row[f"negative_{kind}"] == pytest.approx(a[negative].sum() / a.sum(), rel=1e-5)
            assert row[f"pearson_{kind}"] == pytest.approx(pearson(a, w), abs=1e-5)
            assert row[f"spearman_{kind}"] is not None
        a, b = CLEAN[k] / CLEAN[k].max(), ATTACKED[k] / ATTACKED[k].max()
        assert row["l1"] == pytest.approx(np.abs(a - b).sum(), rel=1e-5)
        assert row["cosine"] == pytest.approx(1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b), rel=1e-4)
    assert cat["spearman_clean"] == pytest.approx(spearmanr(CLEAN[0], W[0].numpy()).statistic)
    mean = finding.data["mean"]
    assert mean["negative_attacked"] == pytest.approx((cat["negative_attacked"] + dog["negative_attacked"]) / 2)
    assert mean["l1"] == pytest.approx((cat["l1"] + dog["l1"]) / 2)


def test_how_often_channels_are_active(case):
    """Channel 3 is at 0 for class 0, and above 1 % of the largest value under attack."""
    cat, dog = ask(case).data["classes"]
    assert (cat["active_positive_clean"], cat["active_negative_clean"]) == (1, 1)
    assert (dog["active_positive_clean"], dog["active_negative_clean"]) == (1, 0.5)
    assert (dog["active_positive_attacked"], dog["active_negative_attacked"]) == (1, 1)


def test_in_units_of_the_clean_activation(case):
    for k, row in enumerate(ask(case, unit="clean").data["classes"]):
        assert row["l1"] == pytest.approx(np.abs(CLEAN[k] - ATTACKED[k]).sum() / CLEAN[k].max(), rel=1e-5)


def test_robust_accuracy_is_that_of_the_attack(case):
    model, [(x, y)] = case
    outcome = FGSM(threat=Threat(eps=0.1))(model, x, y)
    cat, dog = ask(case).data["classes"]
    assert (cat["clean"], dog["clean"]) == (1, 1)
    assert cat["accuracy"] == float((~outcome.success[:2]).double().mean())
    assert dog["accuracy"] == float(~outcome.success[2])
    assert (cat["low"], dog["low"]) <= (cat["accuracy"], dog["accuracy"]) < (cat["high"], dog["high"])


def test_curves_are_sorted_by_clean_activation(case):
    (cat,) = ask(case, classes=["cat"]).data["curves"]
    assert cat["class"] == "cat"
    assert cat["clean"] == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert cat["attacked"] == pytest.approx([1, 0.5, 1, 0.5], rel=1e-5)  # of 0.2
    assert cat["relevance"] == [2, 1, -1, 0]
    assert len(ask(case).data["curves"]) == 2
    with pytest.raises(UserError, match="there is no class 'cow'"):
        ask(case, classes=["cow"])


def test_a_layer_by_name_is_judged_by_its_gradient(case):
    """The logit is the mean over 2 pixels, so the gradient summed over space is the weight itself."""
    model, data = case
    plain = ask(case).data
    wrapped = Normalized(model, 0.0, 1.0)
    for network, name in ((model, "same"), (wrapped, "same")):
        found = ask((network, data), layer=name).data
        assert found["layer"] == "same"
        for mine, theirs in zip(found["classes"], plain["classes"], strict=True):
            for key, value in theirs.items():
                assert mine[key] == (pytest.approx(value, rel=1e-5, abs=1e-6) if isinstance(value, float) else value)
    assert plain["layer"] == "the input of fc"


def test_a_layer_that_is_none_is_told(case):
    with pytest.raises(UserError, match="'sane'"):
        ask(case, layer="sane")
    with pytest.raises(UserError, match="unit must be one of each, clean; got 'own'"):
        Channels(unit="own")


def test_without_a_linear_layer_at_the_end_a_layer_must_be_named(case):
    model, data = case
    ends = nn.Sequential(model, nn.Tanh())
    with pytest.raises(UserError, match="not the output of a linear layer: name the layer"):
        ask((ends, data))
    assert ask((ends, data), layer="0.same").data["channels"] == 4


def test_features_that_say_nothing_are_told_as_undefined(case):
    model, [(x, y)] = case
    with torch.no_grad():
        model.fc.weight.fill_(1.0)
    row = ask((model, [(0 * x, y)])).data["classes"][0]
    assert row["negative_clean"] is None
    assert row["pearson_clean"] is None
    assert row["active_negative_clean"] is None
    assert row["cosine"] is None


def test_what_enters_the_head_is_masked(tmp_path):
    model = models.create("cifs-cnn", width=2, seed=0).eval()
    x, y = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1, 2])
    head = []
    hook = model.linear.register_forward_pre_hook(lambda module, args: head.append(args[0].detach()))
    model(x)
    hook.remove()
    finding = Channels(attack=FGSM(threat=Threat(eps=0.0)), classes=[2])(model, [(x, y)])
    expected = head[0][y == 2].mean(0).sort(descending=True).values
    assert finding.data["curves"][0]["clean"] == pytest.approx((expected / expected.max()).tolist(), rel=1e-5)
    assert finding.data["mean"]["l1"] == pytest.approx(0, abs=1e-6)
    assert "channels" in audits.names()
    (tmp_path / "findings.json").write_text(to_json({"net": [finding]}, {}))
    assert read(tmp_path / "findings.json")[0]["net"][0] == finding


def test_alignment_is_the_rank_correlation_over_the_classes_that_have_one():
    figures = [(0.1, 0.2), (0.5, -0.1), (0.9, 0.4), (0.7, None)]
    rows = [{"accuracy": accuracy, "pearson_attacked": pearson} for accuracy, pearson in figures]
    assert _alignment(rows) == pytest.approx(1 - 6 * (1 + 1 + 0) / (3 * 8))
    assert _alignment(rows[:1]) is None
    assert _alignment([{**row, "accuracy": 0.5} for row in rows]) is None


def test_alignment_of_a_networks_classes(case):
    data = ask(case).data
    accuracies, correlations = ([row[name] for row in data["classes"]] for name in ("accuracy", "pearson_attacked"))
    assert accuracies[0] != accuracies[1]
    assert data["alignment"] == pytest.approx(spearmanr(accuracies, correlations).statistic)
    assert data["best_pearson"] == correlations[accuracies.index(max(accuracies))]
    assert data["worst_pearson"] == correlations[accuracies.index(min(accuracies))]
    gained = [row["negative_attacked"] - row["negative_clean"] for row in data["classes"]]
    assert data["gained"] == pytest.approx(sum(gained) / len(gained))
