import json
import math
import sys
from types import SimpleNamespace

import pytest
import torch

from buttress.attacks.gradient.fgsm import FGSM
from buttress.audits.layers import Layers
from buttress.errors import UserError
from buttress.jobs import Network, Source, Training, harden
from buttress.jobs.harden import _most_vulnerable, _regularisable
from buttress.jobs.settings import Reporter
from buttress.layers import LayerProfile
from buttress.threat import Threat


def about(names, means):
    """A subject whose layer audit would find these displacements of 20 inputs alike; mu and sigma follow from them."""
    values = torch.tensor(means)[None, :, None].expand(-1, -1, 20)
    return LayerProfile.of(
        names, ["pgd"], "m", values, torch.ones(1, 20), predecessors=list(range(-1, len(names) - 1)), crossed=[]
    )


class Known(Layers):
    """A layer audit that finds what it is told."""

    def profile(self, subject, measure=None):
        return subject


@pytest.mark.parametrize(
    ("eta", "names"), [(None, ["d"]), (0.2, ["d", "a"]), (1.0, ["d"]), (9.0, ["d"]), (-9.0, ["d", "a", "b"])]
)
def test_the_cut_off_names_layers_worst_first(eta, names):
    """Means 3, 1, undefined, 4: mu is 8/3, sigma 1.25; the widest gap is the one below 4."""
    found = about(["a", "b", "c", "d"], [3.0, 1.0, math.nan, 4.0])
    assert _most_vulnerable(found, [Known()], eta) == names


def test_a_lone_layer_is_the_most_vulnerable_one():
    assert _most_vulnerable(about(["a"], [2.0]), [Known()], None) == ["a"]


def test_where_nothing_stands_out_the_user_is_asked():
    with pytest.raises(UserError, match="no layer stands out under pgd: name some by --layers, of a, b"):
        _most_vulnerable(about(["a", "b"], [2.0, 2.0]), [Known()], None)


class Routed(torch.nn.Module):
    """An expert that sees a part of the inputs, an activation that training skips, and one that all cross."""

    def __init__(self):
        super().__init__()
        self.one, self.two = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
        self.expert, self.beside, self.act = torch.nn.ReLU(), torch.nn.Tanh(), torch.nn.ReLU()

    def forward(self, x):
        h, chosen = self.one(x), x[:, 0] > 0.5
        h = torch.where(chosen[:, None], h.index_put((chosen,), self.expert(h[chosen])), h)
        return self.two(self.act(h if self.training else h + self.beside(h)))


def test_layers_that_cannot_be_regularised_are_not_chosen():
    x = torch.rand(40, 3, generator=torch.Generator().manual_seed(0))
    subject = SimpleNamespace(model=Routed(), x=x)

    class Chosen(Layers):
        def profile(self, subject, measure=None):
            every = {"expert": 9.0, "beside": 8.0, "act": 1.0}
            names = [n for n in every if self.layers == "activations" or n in self.layers]
            return about(names, [every[n] for n in names])

    for named, chosen in ((["expert", "act"], ["act"]), (["expert", "beside"], ["act"])):
        assert _regularisable(subject, [Chosen()], None, named) == chosen
    subject.model.requires_grad_(False)
    with pytest.raises(UserError, match=r"no layer can be regularised: .*carries no gradient"):
        _regularisable(subject, [Chosen()], None, ["act"])


def test_the_layers_are_chosen_on_validation_data_by_the_measure_that_is_trained(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        sys.modules["buttress.jobs.harden"],
        "_most_vulnerable",
        lambda subject, questions, eta: asked.extend([subject.ids, questions]) or ["act1"],
    )
    source = Source(data="moons", data_args={"samples": 60, "test": 24})
    short = Training(epochs=1)
    job = {"architecture": Network(model="mlp"), "source": source, "training": short, "attacks": [FGSM()]}
    found = harden(out=tmp_path / "job", measure="centred", **job)
    assert asked[0].tolist() == source.load(0)[0].val.ids.tolist()
    assert [question.measure for question in asked[1] if isinstance(question, Layers)] == ["centred"]
    assert {f.data["measure"] for findings in found.values() for f in findings if f.kind == "layers"} == {"centred"}


class Heard(Reporter):
    def __init__(self):
        self.lines = []

    def line(self, text):
        self.lines.append(text)


def test_the_whole_job_as_a_function(tmp_path):
    """Networks of one seed start alike: with gamma 0, base and hardened are the same network."""
    heard = Heard()
    found = harden(
        out=tmp_path / "job",
        architecture=Network(model="mlp"),
        source=Source(data="moons", data_args={"samples": 60, "test": 24}),
        threat=Threat(eps=0.2),
        training=Training(epochs=1),
        attacks=[FGSM()],
        gamma=0.0,
        reporter=heard,
    )
    original, base, hardened = found.values()
    assert base[0].data["stands"] == hardened[0].data["stands"]
    assert base[1].data["mean"] == hardened[1].data["mean"] != original[1].data["mean"]
    assert {p.name for p in (tmp_path / "job").iterdir()} == {"original", "base", "hardened", "report"}
    assert heard.lines[-1] == f"report: {tmp_path / 'job' / 'report' / 'report.html'}"
    assert heard.lines[-2].startswith("From original to AT-LR: clean accuracy")
    assert "the same inputs. There is no demonstrable gain in robust accuracy from AT to AT-LR." in heard.lines[-2]
    facts = json.loads((tmp_path / "job" / "report" / "findings.json").read_text())["facts"]
    rows = facts["robust accuracy against the last"]
    assert [(row["from"], row["to"], row["change"]) for row in rows][-1] == ("AT", "AT-LR", "none")
    assert facts["severity"] != "good"


def test_layers_that_cannot_be_told_apart_are_both_regularised():
    """0.258 and 0.255, +-0.05 over 400 inputs, and a third that is clearly lower."""
    noise = 0.05 * torch.randn(3, 400, generator=torch.Generator().manual_seed(0))
    values = (torch.tensor([0.255, 0.258, 0.2])[:, None] + noise)[None]
    profile = LayerProfile.of(
        ["relu1", "relu2", "relu3"],
        ["pgd"],
        "centred",
        values,
        torch.ones(1, 400),
        predecessors=[-1, 0, 1],
        crossed=[True] * 3,
    )
    assert set(_most_vulnerable(profile, [Known()], None)) == {"relu1", "relu2"}
