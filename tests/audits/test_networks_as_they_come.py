"""Whatever a network does with its tensors, and whatever its caller has switched on, audits answer alike."""

import pytest
import torch
from tests.networks import InPlace, Plain, everything_switched_on
from torch import nn

from buttress import audits, models, registry
from buttress.attacks import PGD
from buttress.data.dataset import Split
from buttress.errors import UserError
from buttress.layers import sustainability, tolerance
from buttress.threat import Threat

CHEAP = {"inputs": 6, "queries": 20, "draws": 4, "steps": 2, "window": 3, "restarts": 1, "decisions": 10, "corners": 10}
CHEAP |= {"batches": 2, "batch": 3, "coordinates": 50}
CHEAP |= {"decoder_epochs": 2, "svm_epochs": 2, "grid": 5, "points": 20}
THREAT = Threat(eps=0.1)
TRAINING = Split(
    torch.rand(8, 1, 6, 6, generator=torch.Generator().manual_seed(2)), torch.arange(8) % 4, torch.arange(8, 16)
)


class ReusingReLU(nn.Module):
    """A ReLU whose output is always in the same memory, which the next call fills again."""

    memory = None

    def forward(self, x):
        if self.memory is None or self.memory.shape != x.shape:
            self.memory = torch.empty_like(x.detach())
        return self.memory.detach().copy_(x.relu())


def network(nets, kind=Plain, relu=nn.ReLU):
    return kind(nets.seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 8), relu(), nn.Linear(8, 4)), 3)).eval()


@pytest.fixture(scope="module")
def split():
    random = torch.Generator().manual_seed(1)
    return Split(torch.rand(8, 1, 6, 6, generator=random), torch.arange(8) % 4, torch.arange(8))


def questions():
    """Every audit that needs no more than a threat, small."""
    for name in registry.audit.names():
        kind = registry.audit.get(name)
        known = getattr(kind, "__dataclass_fields__", {})
        settings = {key: value for key, value in CHEAP.items() if key in known and known[key].type != "bool"}
        if "attack" in known:
            settings["attack"] = PGD(threat=THREAT, steps=2)
        if "attacks" in known:
            settings["attacks"] = [PGD(threat=THREAT, steps=2)]
        try:
            yield pytest.param(kind(**settings), id=name)
        except (TypeError, UserError):  # needs a file, or another network
            continue


@pytest.fixture
def answer(split):
    """The verdict about a network, or the kind of refusal where the question is not for it."""

    def ask(question, model):
        try:
            return audits.run(model, split, [question], training=TRAINING)[0].verdict
        except UserError as refusal:
            return type(refusal)

    return ask


@pytest.mark.parametrize("question", list(questions()))
def test_an_audit_answers_alike_and_leaves_its_data_alone(nets, split, answer, question):
    before, other = split.x.clone(), network(nets, InPlace)
    expected = answer(question, network(nets))
    with everything_switched_on():
        verdict = answer(question, other)
    assert verdict == expected
    assert torch.equal(split.x, before)


ANY_NUMBER = {0: torch.export.Dim("inputs")}
KINDS = {
    "numpy": lambda model, x: models.FromNumpy(lambda rows: model(torch.from_numpy(rows)).detach().numpy()),
    "half": lambda model, x: model.half(),
    "frozen": lambda model, x: torch.jit.freeze(torch.jit.script(model)),
    "frozen inside": lambda model, x: models.Normalized(torch.jit.freeze(torch.jit.script(model)), 0.5, 0.5),
    "scripted": lambda model, x: torch.jit.script(model),
    "exported": lambda model, x: torch.export.export(
        model, (x,), dynamic_shapes=({0: torch.export.Dim("n")},)
    ).module(),
}


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.representatives(kind=["numpy", "half"])
@pytest.mark.parametrize("kind", KINDS)
def test_networks_of_any_kind_are_audited_or_refused_in_a_line(nets, split, answer, kind):
    model = KINDS[kind](network(nets), split.x)
    answers = [answer(param.values[0], model) for param in questions()]
    assert sum(isinstance(one, str) for one in answers) >= len(answers) / 3


def test_layers_that_use_their_memory_again_are_measured_as_any(nets, split):
    plain, other = network(nets), network(nets, relu=ReusingReLU)
    noise = PGD(threat=THREAT, steps=2)
    batches = [(split.x, split.y)]
    layers = ["inner.2", "inner.3"]
    profiles = [sustainability(model, batches, {"pgd": noise}, layers=layers) for model in (plain, other)]
    assert profiles[0].values.count_nonzero() == profiles[0].values.numel()
    assert torch.equal(profiles[1].values, profiles[0].values)
    radii = [tolerance(model, batches, noise, layers=layers) for model in (plain, other)]
    assert str(radii[0]) == str(radii[1])
