"""What the jobs have in common: threats handed down, data and networks opened."""

import json
import math

import pytest
import torch
from torch import nn

from buttress import models
from buttress.attacks.composed.eot import EoT
from buttress.attacks.corruptions.noises import Gaussian
from buttress.attacks.gradient.fgsm import FGSM
from buttress.attacks.gradient.pgd import PGD
from buttress.attacks.minimum_norm.cw import CW
from buttress.attacks.minimum_norm.fab import FAB
from buttress.audits.layers import Layers
from buttress.audits.robustness import Robustness
from buttress.data.sets.moons import moons
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.defences.layer_regularised import LayerRegularised
from buttress.defences.standard import Standard
from buttress.defences.trades import TRADES
from buttress.errors import UserError
from buttress.jobs.settings import Network, Source, open_network
from buttress.jobs.threat_resolution import threat_for, under
from buttress.models.wrapping.outputs import Output
from buttress.threat import Threat

FREE = Threat(norm="l2", eps=0.5, box=None)
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


def test_a_threat_left_at_its_default_is_the_jobs():
    assert under(FREE, Threat()) == FREE
    assert under(FREE, PGD(steps=3)) == PGD(threat=FREE, steps=3)
    assert under(FREE, [FGSM(), PGD()]) == [FGSM(threat=FREE), PGD(threat=FREE)]


def test_a_threat_of_its_own_is_kept_but_for_a_box_it_does_not_name():
    assert under(FREE, FGSM(threat=Threat(eps=0.1))) == FGSM(threat=Threat(eps=0.1, box=None))
    own = FGSM(threat=Threat(eps=0.1, box=(0, 2)))
    assert under(FREE, own) is own


def test_a_threat_that_was_typed_beats_a_methods_own_default():
    typed, stored = (Threat(norm="l2", eps=0.5, explicit=said) for said in (True, False))
    assert under(typed, [CW(), EoT(attack=CW())]) == [CW(threat=typed), EoT(attack=CW(threat=typed))]
    assert under(stored, CW()) == CW()
    own = CW(threat=Threat(norm="l2", eps=0.1, box=(0, 2)))
    assert under(typed, own) is own
    assert under(typed, FAB()) == FAB(threat=typed)
    with pytest.raises(UserError, match="CW is defined in l2; got l1"):
        under(Threat(norm="l1", explicit=True), CW())


def test_where_perhaps_only_the_eps_was_typed_methods_of_other_norms_keep_their_own_threat(caplog):
    """``--attacks pgd,cw --threat.eps 0.15`` is no reason to refuse CW, which is of l2 alone."""
    typed = Threat(eps=0.15, box=(0, 2), explicit=True)
    kept = under(typed, [PGD(), CW(), FAB(), EoT(attack=CW())])
    own = CW(threat=Threat(norm="l2", eps=math.inf, box=(0, 2)))
    assert kept == [PGD(threat=typed), own, FAB(threat=typed), EoT(attack=own)]
    line = "keeps its own threat, l2 eps ∞: CW is defined in l2; got linf"
    assert [record.getMessage() for record in caplog.records] == [f"CW-1000 {line}"] * 2
    assert under(typed, kept) == kept
    assert len(caplog.records) == 2  # told once


def test_a_threat_that_was_typed_for_one_attack_stays_where_it_equals_that_methods_default():
    typed = Threat(norm="l2", eps=0.5, explicit=True)
    own = CW(threat=Threat(norm="l2", eps=math.inf, explicit=True))
    assert under(typed, own).threat.eps == math.inf
    assert under(typed, CW()).threat.eps == 0.5


def test_a_noise_gets_the_jobs_box():
    assert under(FREE, Gaussian(std=0.3)) == Gaussian(std=0.3, box=None)
    assert under(FREE, Gaussian(box=(0, 2))) == Gaussian(box=(0, 2))
    layers = under(FREE, Layers(perturbations=[FGSM(), Gaussian(std=0.3)]))
    assert layers.perturbations == [FGSM(threat=FREE), Gaussian(std=0.3, box=None)]


def test_what_stands_inside_audits_and_defences_is_reached():
    assert under(FREE, Robustness(attacks=[PGD()])).main_eps == 0.5
    defence = under(FREE, LayerRegularised(AdversarialTraining(attack=PGD(steps=2)), ["a"], 0.7))
    assert (defence.base.attack, defence.layers, defence.gamma) == (PGD(threat=FREE, steps=2), ("a",), (0.7,))
    assert under(FREE, TRADES()).attack.threat == FREE
    assert isinstance(under(FREE, Standard()), Standard)


def test_the_datas_box_is_taken_where_none_was_named():
    assert threat_for((-1, 1), Threat(eps=0.1)) == Threat(eps=0.1, box=(-1, 1))
    assert threat_for(None, Threat(box=(0, 2))) == Threat(box=(0, 2))


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
        ("nowhere/at/all", "is no run's folder and no model; known: .*cnn"),
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


def test_a_threat_that_was_said_stays_also_where_it_equals_the_default():
    said, unsaid = PGD(threat=Threat(explicit=True)), PGD()
    assert said == unsaid
    assert under(Threat(eps=0.1), said).threat.eps == 8 / 255
    assert under(Threat(eps=0.1), unsaid).threat.eps == 0.1
    assert said.fingerprint() == unsaid.fingerprint()
