"""The plain loop that methods train their helpers with."""

import copy

import torch
import torch.nn.functional as F

from buttress.defences.base.memory import Rows
from buttress.defences.base.pretraining import descend, pretrain
from buttress.random import derive, generator


def test_pretraining_is_adam_over_shuffled_batches(network, images, same):
    model = network(dropout=0.5)
    by_hand = copy.deepcopy(model)
    model.eval()
    state = torch.get_rng_state()
    with torch.random.fork_rng():
        pretrain(model, images.train, epochs=2, seed=4, batch_size=16, lr=0.01)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module.training for module in model.modules())
    adam = torch.optim.Adam(by_hand.parameters(), lr=0.01)
    for epoch in range(2):
        with torch.random.fork_rng():
            torch.manual_seed(derive(4, "descend", epoch))
            for part in torch.randperm(36, generator=generator(4, "order", epoch)).split(16):
                x, y, _ = images.train.take(part)
                adam.zero_grad()
                F.cross_entropy(by_hand(x), y).backward()
                adam.step()
    same(model.state_dict(), by_hand.state_dict())


def test_descending_tells_the_mean_of_each_epoch(images):
    weight = torch.nn.Parameter(torch.zeros(()))
    history = descend([weight], lambda x, y, ids: (weight - 1) ** 2, images.train, epochs=3, seed=0, lr=0.1)
    expected, value, adam_like = [], 0.0, 0.1  # Adam's first steps on a slope of one sign are as long as its rate
    for _ in range(3):
        expected.append((value - 1) ** 2)
        value += adam_like
    torch.testing.assert_close(torch.tensor(history), torch.tensor(expected), rtol=0.02, atol=0)


def test_a_lone_last_input_is_left_out(images):
    sizes = []
    weight = torch.nn.Parameter(torch.zeros(()))

    def objective(x, y, ids):
        sizes.append(len(x))
        return weight * 0

    descend([weight], objective, images.train, epochs=1, seed=0, batch_size=35)
    assert sizes == [35]


def test_rows_are_found_by_id(images):
    shuffled = images.train.subset(torch.randperm(36, generator=torch.Generator().manual_seed(0)))
    rows = Rows(shuffled)
    assert torch.equal(rows(shuffled.ids[[5, 0, 7]]), torch.tensor([5, 0, 7]))
    assert not rows.state_dict()
