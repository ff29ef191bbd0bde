import numpy as np
import pytest
import torch
from PIL import Image

from buttress import data
from buttress.attacks.gradient.fgsm import FGSM
from buttress.audits.base.evaluation import evaluate
from buttress.data.dataset import as_split
from buttress.data.streamed_folder import FolderBatches
from buttress.errors import UserError
from buttress.threat import Threat


@pytest.fixture
def folder(tmp_path):
    """17 grey images 5x4 of two classes, as PATH/test/<class>/*, and as many more in PATH/train."""
    random = np.random.default_rng(0)
    for part in ("train", "test"):
        for name, count in (("cat", 9), ("dog", 8)):
            (tmp_path / part / name).mkdir(parents=True)
            for k in range(count):
                Image.fromarray(random.integers(0, 256, (5, 4), dtype=np.uint8)).save(
                    tmp_path / part / name / f"{k}.png"
                )
    return tmp_path


@pytest.mark.parametrize("batch", [1, 6, 17, 50])
def test_batches_are_those_of_the_data_set(folder, batch):
    split = data.load(f"folder:{folder}").test
    stream = FolderBatches(folder / "test", batch=batch)
    x, y = (torch.cat(parts) for parts in zip(*stream, strict=True))
    assert torch.equal(x, split.take(torch.arange(17))[0])
    assert torch.equal(y, split.y)
    assert stream.classes == ("cat", "dog")
    assert len(stream) == len(list(stream)) == -(-17 // batch)


def test_an_evaluation_of_the_stream_is_that_of_the_data_in_memory(folder, nets):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(20, 2))
    attack = FGSM(threat=Threat(eps=0.1))
    split = data.load(f"folder:{folder}").test
    known = as_split(split.x.numpy(), split.y.numpy())
    parts = [evaluate(model, given, attack, group=4) for given in (FolderBatches(folder / "test", batch=3), known)]
    assert parts[0].successes == parts[1].successes
    assert parts[0].groups == parts[1].groups == 5


def test_images_can_be_resized(folder):
    x, _ = next(iter(FolderBatches(folder / "test", size=8)))
    assert x.shape == (17, 1, 8, 8)


def test_what_cannot_be_read_is_told(folder, tmp_path):
    with pytest.raises(UserError, match="batch must be a whole number of 1 or more; got 0"):
        FolderBatches(folder / "test", batch=0)
    with pytest.raises(UserError, match="there is none"):
        FolderBatches(tmp_path / "nowhere")
    (folder / "test" / "cat" / "0.png").write_text("no image")
    with pytest.raises(UserError, match=r"0.png: expected an image"):
        FolderBatches(folder / "test")
