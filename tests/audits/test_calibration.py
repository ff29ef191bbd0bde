"""The audit of calibration on a network whose probabilities are known, and on one that says how unsure it is."""

import math

import pytest
import torch
from torch import nn

from buttress import audits, models
from buttress.attacks import FGSM, Gaussian
from buttress.audits.base import probability_scores as scores
from buttress.audits.base.finding import read, to_json
from buttress.audits.calibration import Calibration
from buttress.data.dataset import Split
from buttress.data.sets.digits import digits
from buttress.errors import UserError
from buttress.threat import Threat


class Bright(nn.Module):
    """Two classes by the mean brightness; a slope."""

    def __init__(self, slope=4.0):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope))

    def forward(self, x):
        z = self.slope * (x.flatten(1).mean(1) - 0.5)
        return torch.stack([-z, z], 1)


class Unsure(Bright):
    """Says that dark inputs are strange."""

    def uncertainty(self, x):
        return {"mutual_information": 1 - x.flatten(1).mean(1)}


@pytest.fixture
def split():
    x = torch.rand(60, 2, 4, 4, generator=torch.Generator().manual_seed(1)) * 0.8
    x = (x + torch.linspace(-0.3, 0.3, 60)[:, None, None, None]).clamp(0, 1)
    y = (x.flatten(1).mean(1) > 0.45).long()
    return Split(x, y, torch.arange(60))


QUICK = {"attack": FGSM(threat=Threat(eps=0.2)), "shares": (1.0, 0.5)}


def ask(model, split, **settings):
    return Calibration(**{**QUICK, **settings})(model, split)


def test_figures_of_the_inputs_as_they_are(split):
    data = ask(Bright(), split).data
    with torch.no_grad():
        logits = Bright()(split.x)
    confidence, guess = logits.softmax(1).max(1)
    clean = data["clean"]
    assert clean["error"] == pytest.approx((guess != split.y).double().mean().item())
    assert clean["nll"] == pytest.approx(nn.functional.cross_entropy(logits, split.y).item(), rel=1e-5)
    assert clean["brier"] == pytest.approx(scores.brier(logits, split.y))
    assert clean["confidence"] == pytest.approx(confidence.mean().item(), rel=1e-5)
    assert clean["nll_low"] < clean["nll"] < clean["nll_high"]
    assert clean["ece"] == pytest.approx(scores.calibration_error(data["reliability"]))
    assert len(data["reliability"]) == 15
    assert sum(row["inputs"] for row in data["reliability"]) == 60


def test_conditions_are_noises_and_budgets_in_order(split):
    rows = ask(Bright(), split, perturbations=[Gaussian(std=0.0), Gaussian(std=0.3)]).data["conditions"]
    assert [row["label"] for row in rows] == [
        *("gaussian (std 0)", "gaussian (std 0.3)", "FGSM at linf eps 0.1", "FGSM at linf eps 0.2"),
    ]
    assert [row["eps"] for row in rows] == [None, None, 0.1, 0.2]
    clean = ask(Bright(), split).data["clean"]
    assert rows[0]["nll"] == pytest.approx(clean["nll"])
    assert clean["nll"] < rows[2]["nll"] < rows[3]["nll"]
    with torch.no_grad():  # FGSM moves all pixels against the class, so the mean moves by eps where the box allows
        toward = torch.where(split.y == 1, -0.2, 0.2)[:, None, None, None]
        logits = Bright()((split.x + toward).clamp(0, 1))
    assert rows[3]["nll"] == pytest.approx(nn.functional.cross_entropy(logits, split.y).item(), rel=1e-4)


def test_strange_inputs_are_made_as_told(split):
    rows = {row["name"]: row for row in ask(Bright(), split, attack=None).data["outside"]}
    assert set(rows) == {"uniform", "inverted", "shuffled"}
    # The mean is that of the inputs when shuffled: nothing tells them apart.
    assert rows["shuffled"]["confidence_auroc"] == pytest.approx(0.5, abs=0.01)
    with torch.no_grad():
        inverted = split.x.min() + split.x.max() - split.x
        sure, strange = (Bright()(x).double().softmax(1).max(1).values for x in (split.x, inverted))
    assert rows["inverted"]["confidence_auroc"] == pytest.approx(scores.auroc(-sure, -strange))
    assert rows["uniform"]["confidence"] < 0.6  # their means are near 0.5
    assert "mutual_information_auroc" not in rows["uniform"]


def test_a_network_can_say_itself_how_unsure_it_is(split):
    around = models.Normalized(Unsure(), mean=0.0, std=2.0)
    data = ask(around, split, attack=None).data
    mean = split.x.flatten(1).mean(1) / 2
    assert data["clean"]["mutual_information"] == pytest.approx((1 - mean).mean().item(), rel=1e-5)
    row = next(row for row in data["outside"] if row["name"] == "inverted")
    strange = (split.x.max() - split.x + split.x.min()).flatten(1).mean(1) / 2
    assert row["mutual_information_auroc"] == pytest.approx(scores.auroc(1 - mean, 1 - strange))


def test_a_latent_time_network_on_digits_and_the_file(tmp_path):
    test = digits().test.stratified(20)
    model = models.create("alt-node", width=4, extractor="small", seed=1, mean=0.5, std=0.5)
    settings = {**QUICK, "outside": ("uniform", "digits")}
    finding = audits.run(model, test, [Calibration(**settings)], batch_size=7)[0]
    assert {"mutual_information", "end_time_mean", "end_time_std"} <= set(finding.data["clean"])
    assert finding.data["clean"]["end_time_mean"] > 0
    path = tmp_path / "findings.json"
    path.write_text(to_json({"net": [finding]}, {}))
    assert read(path)[0]["net"][0].data == finding.data
    assert audits.run(model, test, [Calibration(**settings)], batch_size=20)[0].verdict == finding.verdict


def test_a_bold_network_is_a_warning_and_the_verdict_says_so(split):
    y = split.y.clone()
    y[::3] = 1 - y[::3]
    wrong = Split(split.x, y, split.ids)
    finding = ask(Bright(200.0), wrong, attack=None, outside=(), perturbations=())
    assert finding.severity == "warning"
    assert "overconfident" in finding.verdict
    assert ask(Bright(200.0), wrong, tolerated=1.0, attack=None).severity == "info"
    assert not math.isnan(finding.data["clean"]["nll"])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"bins": 0}, "bins must be a whole number of 1 or more"),
        ({"shares": (0.0,)}, r"shares must be a number in \(0, 1\]; got 0.0"),
        ({"tolerated": 2.0}, "tolerated must be a number in"),
        ({"outside": ("noise",)}, "outside must name one of uniform, inverted, shuffled, or a data set"),
        ({"outside": ("digits",)}, "inputs of digits have shape 1x8x8, the network's 2x4x4"),
    ],
)
def test_settings_that_mean_nothing(split, settings, told):
    with pytest.raises(UserError, match=told):
        ask(Bright(), split, **settings)


def test_an_uncertainty_of_another_form_is_refused(split):
    model = Unsure()
    model.uncertainty = lambda x: {"entropy": x}
    with pytest.raises(UserError, match="one number for each input"):
        ask(model, split, attack=None)
