"""Crafting on a variant that the model offers: whose points, whose verdict, and what happens without one."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from buttress.attacks import FGSM, PGD, Variant
from buttress.attacks.composed.variant import variants_of
from buttress.defences import AdversarialTraining
from buttress.defences.base.step_context import Batch, StepContext
from buttress.errors import UserError
from buttress.models.wrapping.normalized import Normalized
from buttress.models.wrapping.outputs import Output
from buttress.threat import Threat

THREAT = Threat(eps=0.1, box=None)


class Turned(nn.Module):
    """The network's weights, seen with the second input's sign turned."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network.layer(x * torch.tensor([1.0, -1.0]))


class Offering(nn.Module):
    """Two classes by w x; offers a variant that thinks otherwise of the second input."""

    def __init__(self, w=(1.0, 0.5)):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor([w, [-v for v in w]]))
            self.layer.bias.zero_()

    def forward(self, x):
        return self.layer(x)

    def attack_variants(self):
        return {"turned": Turned(self)}


@pytest.fixture
def x():
    return torch.tensor([[0.12, 0.0], [0.04, 0.0], [0.5, 0.2], [0.0, 0.22]])


def test_a_step_on_the_variant_in_closed_form(x):
    """The variant's gradient is that of (1, -0.5): FGSM moves by (-0.1, +0.1), and the model judges that."""
    model, y = Offering().eval(), torch.zeros(4, dtype=torch.int64)
    attack = Variant(attack=FGSM(threat=THREAT), variant="turned")
    found = attack(model, x, y)
    torch.testing.assert_close(found.x_adv, x + torch.tensor([-0.1, 0.1]))
    assert found.success.tolist() == [value < 0 for value in (0.12 - 0.05, 0.04 - 0.05, 0.5, 0.11 - 0.05)]
    assert found.forwards.tolist() == [2] * 4
    assert found.backwards.tolist() == [1] * 4
    plain = FGSM(threat=THREAT)(model, x, y)
    torch.testing.assert_close(plain.x_adv, x - 0.1)


def test_a_search_for_the_first_leaves_what_is_wrong_already(x):
    y = torch.tensor([0, 0, 1, 0])
    found = Variant(attack=FGSM(threat=THREAT), variant="turned")(Offering().eval(), x, y, search="first")
    assert torch.equal(found.x_adv[2], x[2])
    assert found.success.tolist() == [False, True, True, False]


@pytest.mark.parametrize("settings", [{}, {"variant": "other", "missing": "itself"}])
def test_without_a_variant_it_is_the_attack_inside(x, settings):
    model, y = Offering().eval(), torch.tensor([0, 1, 0, 1])
    inside = PGD(threat=THREAT, steps=4, restarts=2)
    for search in ("full", "first"):
        ours, theirs = (a(model, x, y, seed=3, search=search) for a in (Variant(attack=inside, **settings), inside))
        for field in ("x_adv", "success", "forwards", "backwards"):
            assert torch.equal(getattr(ours, field), getattr(theirs, field))


def test_a_missing_variant_is_told_with_those_there_are(x, nets):
    y = torch.zeros(4, dtype=torch.int64)
    attack = Variant(attack=FGSM(threat=THREAT), variant="joint")
    with pytest.raises(UserError, match=r"no variant 'joint' to craft on; it has 'turned'\. Choose another"):
        attack(Offering().eval(), x, y)
    with pytest.raises(UserError, match="no variant 'joint' to craft on; it has none"):
        attack(nets.linear(torch.eye(2)), x, y)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"variant": ""}, "variant must be a name; got ''"),
        ({"missing": "skip"}, "missing must be one of refuse, itself; got 'skip'"),
        ({"attack": "pgd"}, "attack must be an attack with a threat"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, line):
    with pytest.raises(UserError, match=line):
        Variant(**settings)


def test_a_variant_that_is_no_network_is_refused():
    model = Offering()
    model.attack_variants = lambda: {"three": 3}
    with pytest.raises(UserError, match="the variant 'three' must be a torch module"):
        variants_of(model)


def test_it_is_found_through_wrappers_and_stands_where_the_network_stands(x):
    network = Offering().eval()
    for wrapped in (Normalized(network, [0.1, 0.2], 0.5), nn.DataParallel(Normalized(network, [0.1, 0.2], 0.5))):
        (variant,) = variants_of(wrapped).values()
        torch.testing.assert_close(variant(x), Turned(network)((x - torch.tensor([0.1, 0.2])) / 0.5))
    wrapped = Normalized(network, [0.1, 0.2], 0.5)
    variants_of(wrapped)
    assert wrapped.model is network


def test_of_a_network_with_several_outputs_the_same_one_is_read(x):
    class Several(nn.Module):
        def __init__(self, sign=1.0):
            super().__init__()
            self.sign = sign

        def forward(self, x):
            return {"logits": self.sign * x, "more": x}

        def attack_variants(self):
            return {"minus": Several(-1.0)}

    assert torch.equal(variants_of(Output(Several(), "logits"))["minus"](x), -x)


def test_a_network_without_any_has_none(nets):
    assert variants_of(nets.conv()) == {}
    assert variants_of(lambda x: x) == {}


def test_the_model_and_its_variant_come_back_as_they_were(x, nets):
    model = Offering().train()
    before = nets.state(model)
    Variant(attack=PGD(threat=THREAT), variant="turned")(model, x, torch.zeros(4, dtype=torch.int64))
    nets.assert_state(model, before)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_variant_searches_in_the_mode_of_the_model(x, mode):
    model = Offering()
    seen = []
    model.layer.register_forward_hook(lambda module, args, output: seen.append(module.training))
    Variant(attack=FGSM(threat=THREAT), variant="turned").craft(model, x, torch.zeros(4, dtype=torch.int64), mode=mode)
    assert seen == [mode == "train"]


def test_adversarial_training_crafts_on_it_with_the_weights_of_the_moment(x):
    model, y = Offering(), torch.zeros(4, dtype=torch.int64)
    defence = AdversarialTraining(Variant(attack=FGSM(threat=THREAT), variant="turned"))
    for w, moved in (((1.0, 0.5), (-0.1, 0.1)), ((-1.0, 0.5), (0.1, 0.1))):
        with torch.no_grad():
            model.layer.weight.copy_(torch.tensor([w, [-v for v in w]]))
        loss = defence.loss(model, Batch(x, y, torch.arange(4)), StepContext(model, Batch(x, y, torch.arange(4))))
        torch.testing.assert_close(loss.value, F.cross_entropy(model(x + torch.tensor(moved)), y))


def test_targets_are_passed_on(x):
    model, y = Offering().eval(), torch.zeros(4, dtype=torch.int64)
    attack = Variant(attack=FGSM(threat=THREAT), variant="turned")
    found = attack(model, x, y, target=torch.ones(4, dtype=torch.int64))
    torch.testing.assert_close(found.x_adv, x + torch.tensor([-0.1, 0.1]))


@pytest.mark.parametrize("precision", ["bf16", "folded", "twin", "auto"])
def test_it_runs_in_every_precision(x, precision):
    found = Variant(attack=PGD(threat=THREAT), variant="turned")(
        Offering().eval(), x, torch.zeros(4, dtype=torch.int64), precision=precision
    )
    assert THREAT.contains(found.x_adv, x).all()
    assert found.precision in ("fp32", "bf16", "folded", "twin")
