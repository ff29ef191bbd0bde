"""Every job gives the same, to the last bit, whether its inputs are in memory or read as they are needed."""

import pytest
import torch
from PIL import Image
from tests.audits.test_networks_as_they_come import network as small
from tests.audits.test_networks_as_they_come import questions
from tests.lazy import lazy_split
from tests.reporters import Heard

from buttress import audits
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.base.evaluation import evaluate
from buttress.audits.robustness import Robustness
from buttress.data.dataset import Split
from buttress.errors import UserError
from buttress.jobs import attack, audit, train
from buttress.jobs.settings import Network, Source, Training
from buttress.threat import Threat

PGD_2 = PGD(threat=Threat(eps=0.05), steps=2)
QUESTIONS = {question.id: question.values[0] for question in questions()}


@pytest.fixture
def both_ways(monkeypatch):
    """Runs a job on a folder in memory and on one that is read as it is needed."""

    def run(job):
        results = [job("memory")]
        with monkeypatch.context() as patch:
            patch.setattr("buttress.data.images.image_inputs.fits", lambda size: False)
            patch.setattr("buttress.data.dataset.fits", lambda size: False)
            return [*results, job("lazy")]

    return run


@pytest.fixture
def pictures(tmp_path):
    """Grey images of two classes, dark and light, in splits."""
    for part, count in (("train", 12), ("val", 4), ("test", 6)):
        for name, level in (("dark", 90), ("light", 140)):
            place = tmp_path / "pictures" / part / name
            place.mkdir(parents=True)
            for k in range(count):
                Image.new("L", (6, 6), level + 7 * k % 40).save(place / f"{k}.png")
    return f"folder:{tmp_path / 'pictures'}"


def test_train_audit_and_attack(both_ways, pictures, tmp_path):
    def work(way):
        run, lines = tmp_path / way, Heard()
        source, training = Source(data=pictures), Training(epochs=2, batch_size=8, workers=1)
        train(run, source=source, training=training, architecture=Network(model="mlp"), reporter=lines)
        told = any("would take" in line and "decoded as they are needed" in line for line in lines.lines)
        assert told == (way == "lazy")
        attack(str(run), out=tmp_path / f"{way}-attack", by=PGD_2, group=5)
        questions = [Robustness(attacks=[PGD_2])]
        found = audit(str(run), out=tmp_path / f"{way}-audit", audits=questions)
        files = (run / "model.safetensors", tmp_path / f"{way}-attack" / "examples.safetensors")
        return [path.read_bytes() for path in files], [finding.verdict.partition(" Spent")[0] for finding in found]

    known, read = both_ways(work)
    assert read == known


def split(count=8):
    x = torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    return Split(x, torch.arange(count) % 4, torch.arange(count))


def verdict(model, data, question):
    try:
        (finding,) = audits.run(model, data, [question])
    except UserError as refusal:
        return str(refusal)
    return finding.verdict.partition(" Spent: ")[0]


@pytest.mark.representatives(name=["calibration", "robustness"])
@pytest.mark.parametrize("name", QUESTIONS)
def test_every_audit(nets, name):
    model, question = small(nets), QUESTIONS[name]
    assert verdict(model, lazy_split(split()), question) == verdict(model, split(), question)


def test_an_evaluation_reads_a_group_at_a_time(nets, monkeypatch):
    data, model = lazy_split(split(30)), nets.conv()
    found = evaluate(model, data, PGD_2, group=7)
    assert found.successes == evaluate(model, split(30), PGD_2, group=7).successes
    monkeypatch.setattr("buttress.data.memory.free_memory", lambda: 8.0 * 7 * 36)  # half of it: one group as float32
    assert evaluate(model, data, PGD_2, group=7).inputs == 30
    with pytest.raises(UserError, match=r"8 inputs \(1, 6, 6\) at once would take"):
        evaluate(model, data, PGD_2, group=8)


def test_an_audit_of_more_than_fits_is_refused_before_it_reads(nets, monkeypatch):
    data = lazy_split(split(30))
    monkeypatch.setattr("buttress.data.memory.free_memory", lambda: 2 * 4.0 * 8 * 36 * 10)
    with pytest.raises(UserError, match=r"^an audit of 30 inputs, with what attacks find, would take .*--limit N"):
        audits.run(nets.conv(), data, [Robustness(attacks=[PGD_2])])
    assert data.x.source.asked == 0
    (finding,) = audits.run(nets.conv(), data, [Robustness(attacks=[PGD_2])], limit=10)
    assert finding.data["inputs"] == 10


ALONE = """
import torch
from torch.utils.data import DataLoader, TensorDataset
x = torch.rand(24, 1, 6, 6, generator=torch.Generator().manual_seed(3))
x[::2] /= 2
y = (torch.arange(24) + 1) % 2
loader = lambda: DataLoader(TensorDataset(x, y), batch_size=5)
pair = lambda: (x, y)
"""


NET = """
import torch
Net = lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 2))
"""


@pytest.mark.parametrize("returned", ["loader", "pair"])
def test_one_loader_or_pair_alone_is_audited_and_attacked_and_not_trained_on(tmp_path, returned):
    (tmp_path / "mine.py").write_text(ALONE)
    (tmp_path / "net.py").write_text(
        "import torch\nNet = lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 2))"
    )
    source, network = Source(data=f"{tmp_path / 'mine.py'}:{returned}"), f"{tmp_path / 'net.py'}:Net"
    (found,) = audit(network, source=source, out=tmp_path / "audit", audits=[Robustness(attacks=[PGD_2])])
    assert found.data["inputs"] == 24
    attack(network, source=source, out=tmp_path / "attack", by=PGD_2)
    with pytest.raises(UserError, match=r"expected .*train"):
        train(tmp_path / "run", source=source, architecture=Network(model=network), training=Training(epochs=1))
