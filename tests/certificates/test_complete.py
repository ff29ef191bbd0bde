"""Of every layer that can be bounded: exact margins and branch and bound, or a refusal that names the layer."""

import pytest
import torch
from tests.certificates import zoo

from buttress import certificates
from buttress.errors import UserError
from buttress.threat import Threat

CURVED = {
    *("celu", "cube", "elu", "erf", "exp", "gelu", "gelu by tanh", "hardswish", "log", "logsigmoid", "mish", "product"),
    *("reciprocal", "root", "selu", "sigmoid", "silu", "sine", "softplus", "square", "tanh", "tanhshrink"),
}
SHOWN = ["abs", "gelu", "max pool", "residual", "where"]


@pytest.mark.representatives(name=SHOWN)
@pytest.mark.parametrize("name", sorted(zoo.ACTIVATIONS | zoo.PARTS))
def test_tighter_than_before_and_below_what_is_met(name):
    torch.manual_seed(1)
    model, x = zoo.network(name), torch.rand(1, *zoo.SHAPE)
    y, threat = model(x.clone()).argmax(1), Threat(eps=0.02)

    def margin(method, **settings):
        return certificates.certify(model, x, y, threat=threat, method=method, **settings).margin

    before = margin("alpha-crown")
    found = margin("branch-and-bound", subproblems=30, gap=0.01, steps=3)
    corners = threat.project(x + 0.04 * torch.randint(0, 2, (100, *zoo.SHAPE)) - 0.02, x.expand(100, -1, -1, -1))
    met = zoo.least_margin(model, corners, y.expand(100)).detach().min()
    assert before <= found + 1e-6
    assert found <= met
    if name in CURVED:
        with pytest.raises(UserError, match=r"cannot encode \w+ in .*: exact is for functions of linear pieces"):
            margin("exact")
        return
    exact = margin("exact", time_limit=600.0)
    assert found <= exact + 1e-4
    assert exact <= met
