"""An audit of a run gets the inputs that the run was trained on, and no others; references by their folders."""

import json
import sys

import pytest
import torch
from tests.reporters import Heard

from buttress import jobs
from buttress.audits import Privacy
from buttress.audits.privacy.references import Reference
from buttress.data.sets.digits import digits
from buttress.errors import UserError
from buttress.jobs.settings import Network, Source, Training
from buttress.jobs.surrogates import with_surrogates
from buttress.jobs.training_inputs import training_inputs

DATA = Source(data="digits")
QUICK = {"attack": None, "batches": 2, "inputs": 40}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run on all training inputs, and two on halves of them."""
    folder = tmp_path_factory.mktemp("runs")
    for name, half in (("whole", None), ("first", 0), ("second", 1)):
        network = Network(model="mlp", model_args={"hidden": [8]})
        training = Training(epochs=1, batch_size=64, keep="last", validate_with="none")
        jobs.train(folder / name, source=DATA, architecture=network, training=training, half=half)
    return folder


def test_a_run_finds_its_own_again(runs):
    data = digits()
    assert len(training_inputs(str(runs / "whole"), data)) == len(data.train)
    own, _ = Source().load(0, json.loads((runs / "first" / "model.json").read_text()))
    assert torch.equal(training_inputs(str(runs / "first"), own).ids, data.halved(0).train.ids)


def test_others_are_refused_with_what_to_give(runs):
    others = (digits().limited(100), digits(seed=1), digits().halved(3))
    for data in others:
        with pytest.raises(UserError, match=r"was trained on 1350 inputs that are not the \d+ loaded"):
            training_inputs(str(runs / "whole"), data)
    assert training_inputs("mlp", others[0]) is others[0].train  # whoever names the data says so


def test_a_half_is_the_same_for_any_split_and_halves_differ():
    first, other, again = digits().halved(0), digits(seed=1).halved(0), digits().halved(2)
    assert 0.45 < len(first.train) / 1350 < 0.55
    here, there = set(first.train.ids.tolist()), set(other.train.ids.tolist())
    both = set(digits().train.ids.tolist()) & set(digits(seed=1).train.ids.tolist())
    assert here & both == there & both
    assert 0.4 < len(here & set(again.train.ids.tolist())) / len(here) < 0.6
    assert here ^ set(digits().halved(1).train.ids.tolist()) == set(digits().train.ids.tolist())
    assert torch.equal(first.test.ids, digits().test.ids)
    with pytest.raises(UserError, match="half must be a whole number"):
        digits().halved(0.5)


def test_references_and_a_baseline_are_named_by_their_folders(runs):
    question = Privacy(**QUICK, references=[str(runs / "first"), str(runs / "second")], baseline=str(runs / "first"))
    found = with_surrogates(question, digits())
    assert all(isinstance(one, Reference) for one in found.references)
    assert torch.equal(found.references[1].ids, digits().halved(1).train.ids)
    assert isinstance(found.baseline, torch.nn.Module)


def test_the_job_audits_it(runs, tmp_path):
    heard = Heard()
    names = [str(runs / name) for name in ("first", "second")]
    question = Privacy(**QUICK, references=names)
    settings = {"audits": [question], "inputs": 40}
    (finding,) = jobs.audit(str(runs / "whole"), out=tmp_path / "audit", reporter=heard, **settings)
    assert finding.data["training_inputs"] == 1350
    assert finding.data["membership"]["likelihood ratio"]["form"] == "offline"
    assert "Privacy of the training data" in (tmp_path / "audit" / "report.html").read_text()
    with pytest.raises(UserError, match="was trained on 1350 inputs"):
        jobs.audit(str(runs / "whole"), out=tmp_path / "other", source=Source(limit=50), **settings)
    dry = jobs.audit(str(runs / "first"), out=tmp_path / "dry", audits=[Privacy()], dry_run=True)
    assert dry is None


def test_data_without_a_training_split_are_refused_before_anything_is_computed(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["buttress.jobs.audit"], "training_inputs", lambda reference, dataset: None)
    with pytest.raises(UserError, match="privacy needs the inputs that the network was trained on"):
        jobs.audit(str(runs / "whole"), out=tmp_path / "audit", audits=[Privacy(**QUICK)])
