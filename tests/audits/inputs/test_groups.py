"""Planted groups are found, and where there are none there is one."""

import pytest
import torch

from buttress.audits.inputs.groups import groups


@pytest.mark.parametrize("count", [2, 3, 5])
def test_planted_groups(count):
    random = torch.Generator().manual_seed(count)
    truth = torch.cat([torch.full((30 - 4 * k,), k) for k in range(count)])[
        torch.randperm(sum(30 - 4 * k for k in range(count)), generator=random)
    ]
    centres = 10 * torch.randn(count, 40, generator=random)
    features = centres[truth] + torch.randn(len(truth), 40, generator=random)
    found, silhouette = groups(features)
    assert torch.equal(found, truth)  # the largest comes first
    assert silhouette > 0.5
    again, _ = groups(features + 1e-7)
    assert torch.equal(again, found)


@pytest.mark.parametrize(
    "features",
    [torch.zeros(50, 3), torch.ones(1, 4), torch.rand(7, 2), torch.randn(200, 50, generator=torch.Generator())],
    ids=["constant", "one", "few", "noise"],
)
def test_no_groups(features):
    found, silhouette = groups(features)
    assert silhouette is None
    assert found.tolist() == [0] * len(features)


def test_many_are_fitted_on_some():
    truth = torch.arange(3000) % 2
    features = truth[:, None] * 20.0 + torch.randn(3000, 4, generator=torch.Generator().manual_seed(0))
    found, _ = groups(features)
    assert torch.equal((found == found[0]), truth == 0)
