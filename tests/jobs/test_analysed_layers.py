"""Networks without activations: what the usual audit looks at, and what is told."""

import warnings

import pytest
import torch
from tests.reporters import Heard
from torch import nn

from buttress.attacks.gradient.fgsm import FGSM
from buttress.audits.boundary import Boundary
from buttress.audits.layers import Layers
from buttress.audits.robustness import Robustness
from buttress.data.sets.moons import moons
from buttress.errors import UserError
from buttress.jobs import Source, Training, audit, harden
from buttress.jobs.analysed_layers import analysed_layers
from buttress.jobs.questions import usual_audits
from buttress.threat import Threat

pytestmark = pytest.mark.usefixtures("_short_searches")
FREE = Threat(eps=0.2, box=None)

NETWORKS = """
import torch
from torch import nn


class Sine(nn.Module):
    def forward(self, x):
        return torch.sin(x)


class Shift(nn.Module):
    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(2))

    def forward(self, x):
        return x + self.shift


def linear():
    return nn.Sequential(nn.Linear(2, 2))


def sines():
    return nn.Sequential(nn.Linear(2, 8), Sine(), nn.Linear(8, 8), Sine(), nn.Linear(8, 2))


def shift():
    return Shift()


def shifts():
    return nn.Sequential(Shift(), Shift())
"""
LINES = {
    "linear": "no activations that buttress knows: layers with weights are looked at in their stead (0); to look at",
    "sines": "no activations that buttress knows: layers with weights are looked at in their stead (0, 2, 4); to look",
    "shifts": "layers are left out of the audit: the network has no activations that buttress knows, and no layers "
    "with weights; to look at others type --audits layers --audits.layers NAME,NAME, of 0, 1",
    "shift": "layers are left out of the audit: the network has no activations that buttress knows, and no layers with",
}
SOURCE = Source(data="moons", data_args={"samples": 60, "test": 24})


@pytest.fixture
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(NETWORKS)


@pytest.mark.usefixtures("_here")
@pytest.mark.representatives(name=["sines", "shift"])
@pytest.mark.parametrize("name", LINES)
def test_the_usual_audit_goes_on_and_says_what_it_looks_at(tmp_path, name):
    heard = Heard()
    found = audit(
        f"mine.py:{name}", out=tmp_path / "out", source=SOURCE, attacks=[FGSM()], precision="fp32", reporter=heard
    )
    remarks = [line for line in heard.lines if "no activations that buttress knows" in line]
    assert len(remarks) == 1
    assert LINES[name] in remarks[0]
    layers = [finding.data["layers"] for finding in found if finding.kind == "layers"]
    assert layers == {"linear": [["0"]], "sines": [["0", "2", "4"]]}.get(name, [])
    assert [f.kind for f in found if f.kind != "layers"][:3] == ["robustness", "boundary", "masking"]


@pytest.mark.usefixtures("_here")
def test_the_audit_of_layers_typed_alone_goes_on_alike(tmp_path):
    heard, asked = Heard(), {"source": SOURCE, "attacks": [FGSM()], "reporter": Heard()}
    found = audit("mine.py:linear", out=tmp_path / "out", audits=[Layers()], **{**asked, "reporter": heard})
    assert [finding.data["layers"] for finding in found] == [["0"]]
    assert any(LINES["linear"] in line for line in heard.lines)
    told = "^the audit layers finds none, for the network has no activations that buttress knows, and no layers with "
    with pytest.raises(UserError, match=f"{told}weights: name some by --audits.layers, of 0, 1$"):
        audit("mine.py:shifts", out=tmp_path / "shifts", audits=[Layers()], **asked)
    assert asked["reporter"].lines[1:] == []  # but where it computes


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize(
    ("name", "of"), [("shifts", ": name the layers to regularise by --layers, of 0, 1"), ("shift", "")]
)
def test_hardening_asks_for_names_before_anything_is_done(tmp_path, name, of):
    heard = Heard()
    told = "the network has no activations that buttress knows, and no layers with weights"
    with pytest.raises(UserError, match=f"^harden finds no layers to choose among, for {told}{of}$"):
        harden(f"mine.py:{name}", out=tmp_path / "job", source=SOURCE, reporter=heard)
    assert heard.lines[1:] == []  # but where it computes
    assert not (tmp_path / "job").exists()


@pytest.mark.usefixtures("_here")
def test_hardening_goes_on_with_layers_that_are_named_or_have_weights(tmp_path):
    heard = Heard()
    short = {"source": SOURCE, "training": Training(epochs=1), "attacks": [FGSM()], "inputs": 12, "precision": "fp32"}
    found = harden("mine.py:sines", out=tmp_path / "job", layers=["0"], gamma=0.5, reporter=heard, **short)
    assert len(found) == 3
    assert any(LINES["sines"] in line for line in heard.lines)
    assert "regularised: 0" in heard.lines
    harden("mine.py:linear", out=tmp_path / "chosen", gamma=0.5, reporter=heard, **short)
    assert heard.lines.count("regularised: 0") == 2


def test_activations_are_looked_at_without_a_word():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)).double()
    seen = analysed_layers(model, moons(samples=40))
    assert (seen.layers, seen.names, seen.remark) == ("activations", ["1"], "")


def test_a_traced_network_is_left_out_with_the_reason():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing is deprecated
        traced = torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2))
    seen = analysed_layers(traced, moons(samples=40))
    assert seen.layers is None
    assert "left out of the audit: layers of a scripted or traced network cannot be seen: pass" in seen.remark


def test_activations_that_do_not_depend_on_the_input_are_none():
    class Gated(nn.Linear):
        def forward(self, x):
            return super().forward(x) * torch.sigmoid(self.bias)

    seen = analysed_layers(Gated(2, 2), moons(samples=40))
    assert (seen.layers, seen.names) == ("learnable", ["gated"])


def test_the_usual_questions_without_layers():
    assert [type(question) for question in usual_audits(moons(samples=40), FREE, None, None)] == [Robustness, Boundary]
    assert usual_audits(moons(samples=40), FREE, None, "learnable")[1].layers == "learnable"
