"""Training on inputs that are read as they are needed: bit for bit that on the same inputs in memory."""

import signal
from dataclasses import replace

import pytest
import torch
from tests.defences.test_every_defence import NAMES as DEFENCES
from tests.defences.test_every_defence import make as defence_of
from tests.lazy import Kept, lazily

from buttress import registry, training
from buttress.data.augment import Augment
from buttress.errors import UserError
from buttress.training import Interrupted, Optimiser, fit
from buttress.training.averaging import Average
from buttress.training.batches import Batches


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world", [1, 2])
def test_batches_are_those_of_memory(images, workers, world):
    data = replace(images, augment=Augment(pad=2))
    for rank in range(world):
        place = (torch.device("cpu"), rank, world)
        known = Batches(data, 10, 3, *place)
        read = Batches(lazily(data), 10, 3, *place, workers=workers)
        assert read.per_epoch == known.per_epoch
        for one, other in zip(known.epoch(2, 1), read.epoch(2, 1), strict=True):
            assert one.x.equal(other.x)
            assert one.y.equal(other.y)
            assert one.ids.equal(other.ids)


def test_a_run_goes_on_wherever_its_inputs_are(images, network, train, stop_at, state_of, same, tmp_path):
    """It begins in memory, is stopped, and goes on lazily; as when memory has become scarce."""
    train(network(), images, out=tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(network(), images, out=tmp_path / "run", progress=stop_at(4, signal.SIGTERM))
    train(network(), lazily(images), out=tmp_path / "run", resume=True, workers=1)
    for one, other in zip(state_of(tmp_path / "run"), state_of(tmp_path / "whole"), strict=True):
        same(one, other)


def trained(model, data, defence, **settings):
    return fit(model, data, defence, epochs=1, batch_size=12, optimiser=Optimiser(lr=0.01), workers=0, **settings)


@pytest.mark.representatives(name=["adv-kip", "at", "gat", "instance-eps", "j-sigr", "ladder", "self-training"])
@pytest.mark.parametrize("name", DEFENCES)
def test_every_defence_trains_on_them(images, network, same, name):
    known = trained(network(), images, defence_of(name), validate_with="none")
    read = trained(network(), lazily(images), defence_of(name), validate_with="none")
    same(read.model.state_dict(), known.model.state_dict())
    assert [row["clean"] for row in read.history] == [row["clean"] for row in known.history]


@pytest.mark.parametrize("name", training.monitors.names())
def test_every_monitor_watches_them(images, network, attack, name):
    kind = registry.monitor.get(name)
    settings = {"every": 1, "layers": ["2"], "attack": attack, "patience": 3}
    monitor = kind(**{key: value for key, value in settings.items() if key in kind.__dataclass_fields__})
    rows = [trained(network(), data, defence_of("at"), monitors=[monitor]).history for data in (images, lazily(images))]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("average", Average.__subclasses__())
def test_every_average_is_that_of_memory(images, network, same, average):
    known, read = (trained(network(), data, defence_of("at"), average=average()) for data in (images, lazily(images)))
    same(read.model.state_dict(), known.model.state_dict())


def test_what_keeps_inputs_says_that_they_do_not_fit(images, network, monkeypatch):
    for name, kept in (("ladder", "keeps what it makes of 36 inputs"), ("j-sigr", "keeps a map of each of 36 inputs")):
        defence = defence_of(name)
        if name == "j-sigr":
            defence.every = 2
        with monkeypatch.context() as patch:
            patch.setattr("buttress.data.memory.free_memory", lambda: 100.0)
            with pytest.raises(UserError, match=rf"{kept}, which would take .* take fewer \(--limit N\)"):
                defence.prepare(network(), images, 0)


def test_a_file_that_vanishes_ends_a_training_which_goes_on_when_it_is_back(
    images, network, train, state_of, same, tmp_path, monkeypatch
):
    train(network(), images, out=tmp_path / "whole")
    steps = []

    def read(self, rows):
        if len(steps) == 5:  # in the middle of the second epoch
            raise UserError("a.png: there was an image, and it is gone: put it back")
        return self.x[rows]

    data = replace(lazily(images), val=images.val)
    settings = {"out": tmp_path / "run", "workers": 0, "progress": lambda done, figures: steps.append(done)}
    with monkeypatch.context() as patch:
        patch.setattr(Kept, "read", read)
        with pytest.raises(UserError, match=r"^a.png: .*: put it back; what was trained is saved: --resume goes on$"):
            train(network(), data, **settings)
    train(network(), data, **settings, resume=True)
    assert len(steps) == 9 + 3  # steps and ends of epochs, none of them twice
    for one, other in zip(state_of(tmp_path / "run"), state_of(tmp_path / "whole"), strict=True):
        same(one, other)
