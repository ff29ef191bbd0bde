"""Every defence that is given a threat trains within it, feature by feature; by discovery."""

import inspect

import pytest
import torch

from buttress import registry
from buttress.defences import StepContext
from buttress.errors import UserError
from buttress.threat import Threat

MASK = torch.rand(1, 6, 6, generator=torch.Generator().manual_seed(4)) < 0.6
EPS = (0.05 + 0.2 * torch.rand(1, 6, 6, generator=torch.Generator().manual_seed(5))) * MASK
QUICK = {"pretrain_epochs": 1, "steps": 3, "rise": 0.0}
KNOWN = {name: inspect.signature(registry.defence.get(name)).parameters for name in registry.defence.names()}
# Masked FGSM training blackens pixels of the input itself, whatever may change.
NAMES = [name for name, parameters in KNOWN.items() if "threat" in parameters and name != "masked-fgsm"]


def test_those_with_geometry_of_their_own_are_among_them():
    assert {"apart", "csa", "free", "grad-align"} <= set(NAMES)


@pytest.mark.parametrize("threat", [Threat(eps=0.2, mask=MASK), Threat(eps=EPS)], ids=["mask", "eps by feature"])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_trained_on_is_inside_feature_by_feature(network, train, monkeypatch, name, threat):
    member, seen = registry.defence.get(name), []
    known = {key: value for key, value in QUICK.items() if key in KNOWN[name]}
    pass_through = StepContext.adversarial
    reach = {"n-fgsm": 3.0}.get(name, 1.0)  # its noise and step go beyond eps, as published

    def looked_at(self, x_adv, *rest, **named):
        moved = (x_adv.detach() - self.batch.x).abs()
        assert torch.equal(x_adv.detach()[:, ~MASK], self.batch.x[:, ~MASK])
        assert (moved <= reach * threat.cube(torch.full((1, 1, 6, 6), 0.5))[1] - reach * 0.5 + 1e-6).all()
        seen.append(moved.amax())
        return pass_through(self, x_adv, *rest, **named)

    monkeypatch.setattr(StepContext, "adversarial", looked_at)
    defence = member(threat=threat, **known)
    train(network(), defence, epochs=1)
    assert max(seen) > 0.01 or name == "apart"  # which learns its steps


def test_csa_in_standard_deviations_knows_neither():
    with pytest.raises(UserError, match="csa in normalized space moves all features alike"):
        registry.defence.get("csa")(threat=Threat(eps=EPS), space="normalized")
