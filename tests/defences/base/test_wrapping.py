"""Methods around one another: what each sees of the other's passes, and what both cost."""

import pytest

from buttress.attacks.gradient.pgd import PGD
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.defences.apart.defence import APART
from buttress.defences.awp import AWP
from buttress.defences.cost_sensitive.wrapper import CostSensitive
from buttress.defences.free import Free
from buttress.defences.iat import IAT
from buttress.defences.j_sigr import JSIGR
from buttress.defences.layer_regularised import LayerRegularised
from buttress.errors import UserError
from buttress.threat import Threat

THREAT = Threat(eps=0.1)
ATTACK = PGD(threat=THREAT, steps=2)


def regularised(base):
    return LayerRegularised(base, layers=["7"])  # the logits


@pytest.mark.parametrize(
    "make",
    [
        lambda: regularised(Free(THREAT, replays=3)),
        lambda: regularised(AWP(AdversarialTraining(ATTACK))),
        lambda: AWP(regularised(AdversarialTraining(ATTACK))),
        lambda: AWP(AWP(AdversarialTraining(ATTACK))),
        lambda: AWP(APART(THREAT)),
        lambda: AWP(JSIGR(ATTACK)),
    ],
)
def test_the_cost_of_both_is_counted(make, network, train):
    model, defence, counts = network(dropout=0.0), make(), {"passes": 0, "inputs": 0}
    original = type(defence).step

    def count(tensor):
        counts["passes"] += len(tensor)

    def note(module, args, output):
        count(output)
        if output.requires_grad:
            output.register_hook(count)

    def step(self, step):
        handle = step.model.register_forward_hook(note)
        original(self, step)
        handle.remove()
        counts["inputs"] += len(step.batch.x)

    defence.step = step.__get__(defence)
    train(model, defence, epochs=1)
    assert counts["passes"] / counts["inputs"] == pytest.approx(defence.cost.crafting + defence.cost.training)


def test_the_pass_that_layer_regularisation_adds_has_no_cost_of_its_own(network, single, context):
    base = LayerRegularised(AdversarialTraining(ATTACK), layers=["2"], gamma=1e-9)
    place = context(model := network(dropout=0.0), single)
    assert set(CostSensitive(base).loss(model, single, place).logs) == {"displacement 2", "cost adversarial"}


def test_mixtures_are_neither_compared_with_other_ones_nor_judged_by_one_class(network, single, context):
    model = network(dropout=0.0)
    with pytest.raises(UserError, match="independent=False"):
        LayerRegularised(IAT(ATTACK), layers=["2"]).loss(model, single, context(model, single))
    none = LayerRegularised(IAT(PGD(threat=Threat(eps=0.0)), independent=False), layers=["2"])
    assert none.loss(model, single, context(model, single)).logs["displacement 2"] == 0
    LayerRegularised(IAT(ATTACK, alpha=0), layers=["2"]).loss(model, single, context(model, single))
    for independent in (True, False):
        with pytest.raises(UserError, match="IAT mixes inputs"):
            CostSensitive(IAT(ATTACK, independent=independent))
    CostSensitive(IAT(ATTACK, alpha=0))
