"""Robust self-training: whose labels are guesses, by whom, and how much they count."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from buttress.attacks.gradient.pgd import PGD
from buttress.defences import Batch
from buttress.defences.base.networks import new_network
from buttress.defences.base.pretraining import pretrain
from buttress.defences.self_training import SelfTraining
from buttress.defences.trades import TRADES
from buttress.errors import UserError
from buttress.random import derive
from buttress.threat import Threat

THREAT = Threat(eps=0.07)


@pytest.fixture
def smooth(network):
    return network(dropout=0.0, dtype=torch.float64, activation=nn.Tanh)


def guessed_rows(defence, data):
    return torch.isin(data.train.ids, defence.guessed)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_a_share_of_the_labels_is_the_teachers_argmax(share, network, images):
    teacher = network(3).eval()
    defence = SelfTraining(unlabelled=share, teacher=teacher)
    data = defence.prepare(network(), images, 5)
    rows = guessed_rows(defence, data)
    assert rows.sum() == round(share * len(images.train))
    x, y, _ = images.train.take(torch.arange(len(images.train)))
    assert torch.equal(data.train.y[rows], teacher(x).argmax(1)[rows])
    assert (teacher(x).argmax(1) != y)[rows].any()
    assert torch.equal(data.train.y[~rows], y[~rows])
    assert torch.equal(data.train.x, images.train.x)
    assert torch.equal(data.train.ids, images.train.ids)
    assert data.val is images.val
    assert data.test is images.test


def test_the_teacher_learns_from_the_labelled_inputs_alone(network, images):
    model = network()
    defence = SelfTraining(epochs=7)
    data = defence.prepare(model, images, 5)
    rows = guessed_rows(defence, data)
    teacher = new_network(model, derive(5, "teacher"))
    pretrain(teacher, images.train.subset((~rows).nonzero().flatten()), epochs=7, seed=derive(5, "pretraining"))
    x = images.train.take(rows.nonzero().flatten())[0]
    assert torch.equal(data.train.y[rows], teacher.eval()(x).argmax(1))
    again = SelfTraining(epochs=7).prepare(network(1), images, 5)
    assert torch.equal(again.train.y, data.train.y), "the model's own weights play no part"


def test_further_inputs_from_a_file(network, images, tmp_path):
    x = np.random.default_rng(1).integers(0, 255, (20, 1, 6, 6), dtype=np.uint8)
    np.savez(tmp_path / "more.npz", x=x)
    teacher = network(3).eval()
    defence = SelfTraining(unlabelled=str(tmp_path / "more.npz"), teacher=teacher)
    data = defence.prepare(network(), images, 5)
    count = len(images.train)
    assert len(data.train) == count + 20
    assert torch.equal(guessed_rows(defence, data).nonzero().flatten(), torch.arange(count, count + 20))
    assert torch.equal(data.train.y[:count], images.train.y)
    assert torch.equal(data.train.x[count:], torch.from_numpy(x))
    assert torch.equal(data.train.y[count:], teacher(torch.from_numpy(x).float() / 255).argmax(1))


def test_with_full_weight_it_is_trades(smooth, batch, context):
    other = copy.deepcopy(smooth)
    defence = SelfTraining(THREAT, steps=2, beta=4.0)
    defence.guessed = batch.ids[::2].sort().values
    ours = defence.loss(smooth, batch, context(smooth, batch)).value
    theirs = TRADES(THREAT, steps=2, beta=4.0).loss(other, batch, context(other, batch)).value
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("weight", [0.0, 0.3, 5.0])
def test_guesses_count_by_their_weight(weight, smooth, batch, context):
    by_hand, place = copy.deepcopy(smooth), context(smooth, batch)
    defence = SelfTraining(THREAT, steps=2, beta=4.0, weight=weight)
    defence.guessed = batch.ids[[1, 4, 6]]
    attack = PGD(threat=THREAT, steps=2, start="normal", loss="kl")
    x_adv = attack.craft(by_hand, batch.x, batch.y, seed=place.seed, ids=batch.ids)
    p, q = by_hand(batch.x).log_softmax(1), by_hand(x_adv).log_softmax(1)
    each = -p[torch.arange(8), batch.y] + 4.0 * (p.exp() * (p - q)).sum(1)
    weights = [weight if i in (1, 4, 6) else 1.0 for i in range(8)]
    expected = sum(w * value for w, value in zip(weights, each, strict=True)) / sum(weights)
    loss = defence.loss(smooth, batch, place)
    torch.testing.assert_close(loss.value, expected, rtol=0, atol=1e-12)
    assert loss.logs["guessed"] == 3 / 8


def test_a_batch_in_which_nothing_counts(smooth, batch, context):
    defence = SelfTraining(THREAT, steps=1, weight=0.0)
    defence.guessed = batch.ids
    assert defence.loss(smooth, batch, context(smooth, batch)).value == 0


def test_nothing_of_the_teacher_is_trained_or_saved(network, images, train, nets):
    teacher = network(3)
    before = nets.state(teacher)
    defence = SelfTraining(THREAT, steps=1, teacher=teacher)
    train(network(), defence)
    nets.assert_state(teacher, before)
    assert not list(defence.parameters())
    assert not defence.state_dict()
    assert defence.settings()["teacher"] is teacher


def test_ids_of_the_data_are_all_found(network, images, context):
    """The model sees a batch of the data returned; the log says how many of it are guesses."""
    model, defence = network(), SelfTraining(THREAT, steps=1)
    data = defence.prepare(model, images, 5)
    batch = Batch(*data.train.take(torch.arange(len(data.train))))
    assert defence.loss(model, batch, context(model, batch)).logs["guessed"] == 0.5


def test_files_that_do_not_fit(network, images, tmp_path):
    good = np.zeros((3, 1, 6, 6), np.uint8)
    np.savez(tmp_path / "float.npz", x=good.astype(np.float32))
    np.savez(tmp_path / "shape.npz", x=good[:, :, :5])
    np.savez(tmp_path / "name.npz", images=good)
    np.savez(tmp_path / "object.npz", x=np.array([None], dtype=object))
    np.save(tmp_path / "bare.npy", good)
    (tmp_path / "text.npz").write_text("no")
    for name, line in (
        ("float.npz", r"expected inputs like the training split's, uint8 of shape \(N, 1, 6, 6\); got float32"),
        ("shape.npz", r"got uint8 \(3, 1, 5, 6\)"),
        ("name.npz", "must be a .npz file with an array x"),
        ("object.npz", "must be a .npz file with an array x"),
        ("bare.npy", "must be a .npz file with an array x"),
        ("text.npz", "must be a .npz file with an array x"),
        ("none.npz", "must be a .npz file with an array x"),
    ):
        with pytest.raises(UserError, match=line):
            SelfTraining(unlabelled=str(tmp_path / name)).prepare(network(), images, 0)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"unlabelled": 0.0}, r"unlabelled, if it is no .npz file, must be a number in \(0, 1\); got 0.0"),
        ({"unlabelled": 1.0}, "unlabelled, if it is no .npz file, must be"),
        ({"weight": -1.0}, "weight must be a finite number of 0 or more; got -1"),
        ({"epochs": 0}, "epochs must be a whole number of 1 or more; got 0"),
        ({"beta": -1.0}, "beta must be a finite number of 0 or more"),
    ],
)
def test_settings_that_mean_nothing(options, line):
    with pytest.raises(UserError, match=line):
        SelfTraining(**options)
