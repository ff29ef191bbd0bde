"""Integer inputs, such as tokens, are refused wherever numbers are needed, in one line with what to type instead."""

import dataclasses

import pytest
import torch
from torch import nn

from buttress import audits, layers, registry
from buttress.attacks.gradient.universal import Universal
from buttress.data.dataset import Split
from buttress.errors import UserError
from buttress.layers import saliency

TOKENS, Y = torch.arange(20).view(4, 5) % 11, torch.arange(4) % 3
HINT = r"FromEmbedding\(.*embed\(x\)$"


def without_arguments(role):
    """The registered members of a role that need none; without transfer, which asks for a surrogate first."""
    for name in sorted(set(role.names()) - {"transfer"}):
        member = role.get(name)
        if not any(
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            for field in dataclasses.fields(member)
        ):
            yield pytest.param(member, id=name)


@pytest.fixture(scope="module")
def network(nets):
    return nets.seeded(lambda: nn.Sequential(nn.Embedding(11, 4), nn.Flatten(), nn.ReLU(), nn.Linear(20, 3))).eval()


def refused(ask):
    with pytest.raises(UserError, match=HINT) as caught:
        ask()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("attack", list(without_arguments(registry.attack)))
def test_by_every_attack(attack, network):
    refused(lambda: attack()(network, TOKENS, Y))
    refused(lambda: attack().craft(network, TOKENS, Y))


@pytest.mark.parametrize("audit", list(without_arguments(registry.audit)))
def test_by_every_audit(audit, network):
    refused(lambda: audits.run(network, [(TOKENS, Y)], [audit()]))


def test_by_all_else_that_takes_inputs(network):
    attack = registry.attack.get("fgsm")()
    for ask in (
        lambda: layers.sustainability(network, [(TOKENS, Y)], attack),
        lambda: layers.tolerance(network, [(TOKENS, Y)], attack),
        lambda: layers.crossed_by_every_path(network, TOKENS),
        lambda: saliency.input_gradients(network, TOKENS, Y),
        lambda: saliency.occlusion(network, TOKENS[:, None, None], Y),
        lambda: audits.evaluate(network, [(TOKENS, Y)], attack),
        lambda: Universal.fit(network, [(TOKENS, Y)]),
        lambda: Split(TOKENS, Y, torch.arange(4)),
    ):
        refused(ask)


def test_names_of_layers_need_no_numbers(network):
    assert layers.layer_names(network, TOKENS) == ["2"]
