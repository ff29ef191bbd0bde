"""What loaders give, in every form that occurs, is read as the same inputs and labels, or refused in one line."""

from collections import UserDict, namedtuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from buttress import audits, layers
from buttress.attacks.gradient.fgsm import FGSM
from buttress.attacks.gradient.universal import Universal
from buttress.audits.robustness import Robustness
from buttress.data import load
from buttress.data.batches import read_batch, read_batches
from buttress.data.dataset import Split
from buttress.errors import UserError
from buttress.threat import Threat
from buttress.training import fit

X = torch.rand(6, 3, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 0, 1, 2])
Named = namedtuple("Named", "image label weight")
STEP = FGSM(threat=Threat(eps=0.05))


def halves(make):
    return [make(X[:4], Y[:4]), make(X[4:], Y[4:])]


def in_inference_mode():
    with torch.inference_mode():
        return halves(lambda x, y: (x.clone(), y.clone()))


def read_only(x):
    array = x.numpy().copy()
    array.flags.writeable = False
    return array


FORMS = {
    "pairs": halves(lambda x, y: (x, y)),
    "lists": halves(lambda x, y: [x, y]),
    "triples": halves(lambda x, y: (x, y, torch.arange(len(x)))),
    "more": halves(lambda x, y: (x, y, {"weight": 1.0}, "path", None)),
    "named": halves(lambda x, y: Named(x, y, torch.ones(len(x)))),
    "small labels": halves(lambda x, y: (x, y.to(torch.uint8))),
    "image and label": halves(lambda x, y: {"image": x, "label": y}),
    "pixels and labels": halves(lambda x, y: {"pixel_values": x, "labels": y, "index": y}),
    "input and target": halves(lambda x, y: UserDict({"input": x, "target": y, "pixel_mask": torch.ones(6)})),
    "x and y": halves(lambda x, y: {"X": x, "y": y}),
    "arrays": halves(lambda x, y: (read_only(x), y.numpy())),
    "inference mode": in_inference_mode(),
    "loader": DataLoader(TensorDataset(X, Y), batch_size=4),
    "loader of triples": DataLoader(TensorDataset(X, Y, torch.arange(6)), batch_size=4),
    "loader of dicts": DataLoader([{"x": x, "target": y} for x, y in zip(X, Y, strict=True)], batch_size=4),
    "examples by index": TensorDataset(X, Y),
    "split": Split(X, Y, torch.arange(6)),
}


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3)).eval()


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read_alike(form):
    read = list(read_batches(FORMS[form], 4))
    assert torch.equal(torch.cat([x for x, _ in read]), X)
    assert torch.equal(torch.cat([y for _, y in read]), Y)
    assert not any(part.is_inference() for pair in read for part in pair)


@pytest.mark.parametrize("form", FORMS)
def test_analyses_audits_and_attacks_give_the_same_figures(form, network):
    data, plain = FORMS[form], FORMS["pairs"]
    displaced = [layers.sustainability(network, d, STEP, batch_size=2).values for d in (data, plain)]
    assert torch.equal(*displaced)
    tolerated = [layers.tolerance(network, d, STEP, steps=2, bisections=2, batch_size=2).rho for d in (data, plain)]
    assert torch.equal(*tolerated)
    found = [audits.run(network, d, [Robustness(attacks=[STEP])])[0].data["attacks"] for d in (data, plain)]
    assert [row["curve"] for row in found[0]] == [row["curve"] for row in found[1]]
    fooled = [audits.evaluate(network, d, STEP) for d in (data, plain)]
    assert fooled[0].accuracy == fooled[1].accuracy
    if form not in ("split", "examples by index"):  # one batch: other steps
        learnt = [Universal.fit(network, d, Threat(eps=0.05), epochs=1).delta for d in (data, plain)]
        assert torch.equal(*learnt)


@pytest.mark.parametrize(
    ("item", "line"),
    [
        (X, r"pairs of tensors, batches of \(inputs, labels\); got a Tensor"),
        ((X,), "pairs of tensors, .* got a tuple"),
        ("batch", "pairs of tensors, .* got a str"),
        (((X, X), Y), "inputs must be a tensor or an array; got a tuple"),
        ((X, {"label": Y}), "labels must be a tensor or an array; got a dict"),
        ((X, ["cat"] * 6), "labels must be a tensor or an array; got a list"),
        ((X[0], Y[0]), r"got \(3,\) and \(\): make batches of single examples, .*DataLoader\("),
        ((X, Y[:5]), r"as many inputs as labels; got \(6, 3\) and \(5,\)"),
        ({"image": X, "x": X, "y": Y}, r"inputs under one of x, image.*; got 'image' and 'x': say which, \[\(batch\["),
        ({"image": X, "y": Y, "label": Y}, r"labels under one of y, label.*; got 'y' and 'label'"),
        ({"picture": X, "y": Y}, "got none of its keys 'picture', 'y'"),
        ({"input_ids": X, "labels": Y, "attention_mask": torch.tensor([[1, 0]])}, "'attention_mask' would not reach"),
        ({"input_ids": X, "labels": Y, "token_type_ids": torch.tensor([[0, 1]])}, "'token_type_ids' would not reach"),
    ],
)
def test_what_is_no_batch_is_refused_in_one_line(item, line):
    with pytest.raises(UserError, match=line) as caught:
        read_batch(item)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (load("moons"), r"the whole data set 'moons': give one of its splits, such as data\.test"),
        ((X, Y), r"a single tuple: give a list of batches, \[\(x, y\)\]"),
        ({"image": X, "label": Y}, "a single dict: give a list of batches"),
        (X, "must give batches .* got a Tensor"),
        (3, "must give batches .* got a int"),
    ],
)
def test_what_gives_no_batches_is_refused_wherever_data_are_given(data, line, network):
    for ask in (
        lambda: layers.sustainability(network, data, STEP),
        lambda: layers.tolerance(network, data, STEP),
        lambda: audits.run(network, data, [Robustness(attacks=[STEP])]),
        lambda: audits.evaluate(network, data, STEP),
        lambda: Universal.fit(network, data, Threat(eps=0.05)),
    ):
        with pytest.raises(UserError, match=line) as caught:
            ask()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["pairs", "loader", "split"])
def test_training_needs_a_data_set_and_says_so(form, network):
    with pytest.raises(UserError, match=r"^training takes a Dataset, .*: make one, data\.from_arrays\("):
        fit(network, FORMS[form], epochs=1)


def test_a_mask_that_leaves_nothing_out_is_none():
    x, _ = read_batch({"input_ids": X, "labels": Y, "attention_mask": torch.ones(6, 3), "token_type_ids": X * 0})
    assert x is X


def test_types_that_the_network_does_not_take_are_refused_in_one_line(network):
    for x, line in (
        (X.double(), "weights are torch.float32, the inputs torch.float64"),
        (X.half(), r"use x\.float\(\)"),
        ((255 * X).to(torch.uint8), r"use x\.float\(\) / 255"),
        (X / 0, "finite"),
    ):
        with pytest.raises(UserError, match=line):
            layers.sustainability(network, [(np.asarray(x), Y)], STEP)
