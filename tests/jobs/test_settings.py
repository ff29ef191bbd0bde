"""What the jobs have in common: threats handed down, data and networks opened."""

import json
import math
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from buttress import models
from buttress.attacks import Attack
from buttress.attacks.composed.eot import EoT
from buttress.attacks.corruptions.noises import Gaussian
from buttress.attacks.gradient.fgsm import FGSM
from buttress.attacks.gradient.pgd import PGD
from buttress.attacks.minimum_norm.cw import CW
from buttress.attacks.minimum_norm.fab import FAB
from buttress.audits.layers import Layers
from buttress.audits.masking.audit import Masking
from buttress.audits.robustness import Robustness
from buttress.data.sets.moons import moons
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.defences.free import Free
from buttress.defences.layer_regularised import LayerRegularised
from buttress.defences.standard import Standard
from buttress.defences.trades import TRADES
from buttress.engine.threat_resolution import resolve_threats
from buttress.errors import UserError
from buttress.jobs.settings import Network, Source, open_network
from buttress.jobs.threat_resolution import job_threat
from buttress.models.wrapping.outputs import Output
from buttress.threat import Threat
from buttress.training import fit
from buttress.training.monitors.catastrophic import CatastrophicOverfitting

FREE = Threat(norm="l2", eps=0.5, box=None)
TYPED = Threat(norm="l2", eps=0.5)
SOURCE = Source(data="moons", data_args={"samples": 40, "test": 12})


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)

    def forward(self, x):
        return x, {"logits": self.fc(x)}["logits"]


def pair():
    return Pair()


HERE = f"{__file__}:pair"


def test_a_threat_that_was_not_given_is_the_jobs():
    assert resolve_threats(PGD(steps=3), FREE) == PGD(threat=FREE, steps=3)
    assert resolve_threats([FGSM(), PGD()], FREE) == [FGSM(threat=FREE), PGD(threat=FREE)]
    assert resolve_threats(PGD(steps=3), usual=FREE) == PGD(threat=FREE, steps=3)


def test_a_threat_of_its_own_is_kept_but_for_a_box_it_does_not_name():
    assert resolve_threats(FGSM(threat=Threat(eps=0.1)), FREE) == FGSM(threat=Threat(eps=0.1, box=None))
    own = FGSM(threat=Threat(eps=0.1, box=(0, 2)))
    assert resolve_threats(own, FREE) is own


def test_a_threat_that_was_typed_beats_a_methods_own_default():
    assert resolve_threats([CW(), EoT(attack=CW())], TYPED) == [CW(threat=TYPED), EoT(attack=CW(threat=TYPED))]
    assert resolve_threats(CW(), usual=TYPED) == CW(threat=CW.default_threat)  # of the run's training
    own = CW(threat=Threat(norm="l2", eps=0.1, box=(0, 2)))
    assert resolve_threats(own, TYPED) is own
    assert resolve_threats(FAB(), TYPED) == FAB(threat=TYPED)
    with pytest.raises(UserError, match="CW is defined in l2; got l1"):
        resolve_threats(CW(), Threat(norm="l1"))


def test_where_perhaps_only_the_eps_was_typed_methods_of_other_norms_keep_their_own_threat(caplog):
    """``--attacks pgd,cw --threat.eps 0.15`` is no reason to refuse CW, which is of l2 alone."""
    typed = Threat(eps=0.15, box=(0, 2))
    resolved = resolve_threats([PGD(), CW(), FAB(), EoT(attack=CW())], typed)
    own = CW(threat=Threat(norm="l2", eps=math.inf, box=(0, 2)))
    assert resolved == [PGD(threat=typed), own, FAB(threat=typed), EoT(attack=own)]
    line = "keeps its own threat, l2 eps ∞: CW is defined in l2; got linf"
    assert [record.getMessage() for record in caplog.records] == [f"CW-1000 {line}"] * 2
    assert resolve_threats(resolved, typed) is resolved
    assert len(caplog.records) == 2  # logged once


@pytest.mark.parametrize("method", [PGD, FGSM, CW])
def test_a_threat_that_was_given_to_one_attack_stays_where_it_equals_that_methods_default(method):
    own = method(threat=method.default_threat)
    assert resolve_threats(own, TYPED) is own
    assert own.fingerprint() == method().fingerprint()
    assert resolve_threats(method(), TYPED).threat == TYPED


@pytest.mark.parametrize("method", [TRADES, Free, Masking])
def test_a_threat_that_was_given_to_a_defence_or_an_audit_stays_where_it_is_the_usual_one(method):
    typed = Threat(eps=0.1)
    assert resolve_threats(method(threat=Threat()), typed).threat == Threat()
    assert resolve_threats(method(), typed).threat == typed
    assert method(threat=typed).threat == typed


@dataclass(frozen=True, kw_only=True)
class Own(Attack):
    """A user's attack with a threat in its signature, as they were written before `NOT_GIVEN`."""

    threat: Threat = Threat(norm="l1", eps=3.0)

    def perturb(self, oracle, x, y, random):
        return x


def test_a_users_attack_may_have_its_default_in_its_signature():
    assert resolve_threats(Own(), TYPED).threat == TYPED
    assert resolve_threats(Own(), usual=FREE).threat == Threat(norm="l1", eps=3.0, box=None)
    assert resolve_threats(Own(threat=Threat(norm="l1", eps=2.0)), TYPED).threat.eps == 2


def test_a_noise_gets_the_jobs_box():
    assert resolve_threats(Gaussian(std=0.3), FREE) == Gaussian(std=0.3, box=None)
    assert resolve_threats(Gaussian(std=0.3), usual=FREE) == Gaussian(std=0.3, box=None)
    assert resolve_threats(Gaussian(box=(0, 2)), FREE) == Gaussian(box=(0, 2))
    layers = resolve_threats(Layers(perturbations=[FGSM(), Gaussian(std=0.3)]), FREE)
    assert layers.perturbations == [FGSM(threat=FREE), Gaussian(std=0.3, box=None)]


def test_attacks_inside_audits_and_defences_are_reached():
    assert resolve_threats(Robustness(attacks=[PGD()]), FREE).main_eps == 0.5
    defence = resolve_threats(LayerRegularised(AdversarialTraining(attack=PGD(steps=2)), ["a"], 0.7), FREE)
    assert (defence.base.attack, defence.layers, defence.gamma) == (PGD(threat=FREE, steps=2), ("a",), (0.7,))
    assert resolve_threats(TRADES(), FREE).attack.threat == FREE
    assert isinstance(resolve_threats(Standard(), FREE), Standard)


def test_a_monitor_without_a_threat_keeps_that_of_the_training():
    monitors = resolve_threats([CatastrophicOverfitting(), CatastrophicOverfitting(threat=Threat(eps=0.1))], FREE)
    assert [monitor.threat for monitor in monitors] == [None, Threat(eps=0.1, box=None)]


def test_the_datas_box_is_taken_where_none_was_named():
    dataset = replace(moons(samples=40), box=(-5, 5))
    assert job_threat(Threat(eps=0.1), dataset).threat == Threat(eps=0.1, box=(-5, 5))
    assert job_threat(Threat(box=(0, 2)), dataset).threat == Threat(box=(0, 2))
    assert job_threat(None, dataset).threat == Threat(eps=10 * Threat().eps, box=(-5, 5))  # in widths of the box
    stored = {"norm": "l2", "eps": 0.5, "box": [-2, 2]}
    assert job_threat(None, dataset, stored).threat == Threat(norm="l2", eps=0.5, box=(-2, 2))
    assert job_threat(Threat(), dataset, stored).threat == Threat(box=(-5, 5))


EIGHT = PGD(threat=Threat(eps=8))


@pytest.mark.parametrize(
    "thing",
    [EIGHT, [Robustness(attacks=[EoT(attack=EIGHT)])], LayerRegularised(AdversarialTraining(EIGHT))],
)
def test_an_eps_wider_than_the_box_is_asked_about_wherever_it_was_given(thing):
    data = SimpleNamespace(box=(0, 1), shape=(1, 8, 8))
    for given, asked in ((None, thing), (Threat(eps=8), PGD())):
        with pytest.raises(UserError) as caught:
            job_threat(given, data).resolve(asked)
        question = "eps 8 is wider than box (0.0, 1.0): did you mean 8/255? To allow the whole box give eps inf"
        assert str(caught.value) == question
    wide = SimpleNamespace(box=(0, 255), shape=(1, 8, 8))
    assert job_threat(Threat(eps=8), wide).resolve(PGD()).threat == Threat(eps=8, box=(0, 255))
    for allowed in (Threat(eps=math.inf), Threat(norm="l2", eps=8), Threat(eps=1)):
        assert job_threat(allowed, data).resolve(PGD()).threat.eps == allowed.eps
    for norm, eps, diagonal in (("l2", 128, 8), ("l1", 255, 64)):  # of an image of 64 pixels
        with pytest.raises(UserError, match=f"in {norm} is more than {diagonal}, the diagonal of .* mean {eps}/255"):
            job_threat(Threat(norm=norm, eps=eps), data).resolve(PGD())


def test_data_can_be_loaded_again_from_what_is_told():
    first, facts = SOURCE.load(seed=4)
    again, told = Source().load(seed=99, known={"source": json.loads(json.dumps(facts))})
    assert torch.equal(first.train.x, again.train.x)
    assert told == facts
    other, _ = Source(data_args={"test": 8}).load(seed=99, known={"source": facts})
    assert (len(other.train), len(other.test)) == (len(first.train), 8)


def test_a_limit_holds_for_every_split():
    dataset, _ = Source(data="moons", limit=10).load(seed=0)
    assert [len(split) for split in dataset.splits.values()] == [10, 10, 10]


def test_a_lower_resolution_is_remembered_with_the_run():
    """A network is made for the size of its images, so it meets the same later."""
    first, facts = Source(data="digits", limit=20, pool=2).load(seed=0)
    assert first.shape == (1, 4, 4)
    again, told = Source().load(seed=99, known={"source": json.loads(json.dumps(facts))})
    assert again.shape == (1, 4, 4)
    assert told == facts
    assert "pool" not in Source(data="digits").load(seed=0)[1]


def test_options_of_the_wrong_type_are_named():
    with pytest.raises(UserError, match="data set 'moons': noise must be a number; got 'x'"):
        Source(data="moons", data_args={"noise": "x"}).load(seed=0)
    with pytest.raises(UserError, match="data set 'moons': samples must be a whole number; got True"):
        Source(data="moons", data_args={"samples": True}).load(seed=0)


def test_the_model_is_made_for_the_data():
    dataset = moons(samples=40)
    made = Network(model="mlp").create(dataset, seed=1)
    assert models.spec_of(made)["options"] == {"features": 2, "classes": 2}
    one = Network(model="lsa-a").create(dataset, seed=1)  # made for one logit, which tells two classes
    assert one(dataset.test.x[:3]).shape == (3, 1)
    torch.testing.assert_close(Network(model="mlp").create(dataset, 1).state_dict(), made.state_dict(), rtol=0, atol=0)


def test_a_reference_is_a_function_with_weights_and_an_output(tmp_path):
    model = pair()
    models.save_weights(model, tmp_path / "w.safetensors")
    network = Network(weights=tmp_path / "w.safetensors", output="1")
    opened, dataset, facts = open_network(HERE, network, SOURCE, seed=0)
    assert isinstance(opened, Output)
    assert not opened.training
    assert torch.equal(opened(dataset.test.x), model.fc(dataset.test.x))
    assert facts["data"] == "moons"
    with pytest.raises(UserError, match="returns a tuple of 2"):
        open_network(HERE, Network(output="2"), SOURCE, seed=0)


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("nowhere/at/all", r"is no run's folder and no model; there is no /.*/nowhere/at/all; buttress list models"),
        ("mlp", "an architecture without trained weights: give --weights, or a run's folder"),
        (f"{__file__}:par", "did you mean 'pair'"),
    ],
)
def test_what_is_no_network_is_told(reference, told):
    with pytest.raises(UserError, match=told):
        open_network(reference, Network(), SOURCE, seed=0)


def test_a_folder_without_a_run_is_told(tmp_path):
    with pytest.raises(UserError, match=r"holds no trained model \(no run is there\)"):
        open_network(str(tmp_path), Network(), SOURCE, seed=0)


def test_a_run_made_in_python_is_asked_for_its_data(tmp_path):
    dataset, _ = SOURCE.load(seed=0)
    fit(models.create("mlp", seed=0), dataset, epochs=1, out=tmp_path / "run", validate_with="none")
    with pytest.raises(UserError, match=r"the run in .*run does not say what data it is for: give --data"):
        open_network(str(tmp_path / "run"), Network(), Source(), 0)
    assert open_network(str(tmp_path / "run"), Network(), SOURCE, 0)[1].name == dataset.name
