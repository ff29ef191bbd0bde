"""What README and docs say to type works, in the order of the README, on a network and images of a user's own."""

import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from buttress.cli import main
from buttress.cli.commands import JOBS, job
from buttress.config.parsing import parse
from buttress.training import loggers

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# What makes the README's lines take seconds here.
SMALL = {"audit": ["--audits", "robustness"], "harden": ["--epochs", "1", "--gamma", "0.03", "--warmup", "1"]}
NARROW = ("README.md", "guide.md", "methods.md", "integrations.md")

# As people have them: a network, its training's file, and images normalised outside of the network.
NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes=3):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU())
        self.fc = nn.Linear(54, num_classes)

    def forward(self, x):
        return self.fc(self.features(x).flatten(1))
"""
MEAN, STD = (torch.tensor(v).view(3, 1, 1) for v in ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)))


def blocks(page, language):
    """The fenced blocks of a page in a language."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.S)


def commands(page):
    """The lines of its shell blocks that call buttress, in words; a backslash at the end goes on in the next line."""
    lines = "".join(blocks(page, "(?:sh|bash|console)")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("buttress ")]


@pytest.fixture(scope="module")
def journey(tmp_path_factory):
    """A folder as a user has it, in which everything of the README is typed in its order."""
    folder = tmp_path_factory.mktemp("journey")
    (folder / "net.py").write_text(NET)
    random = np.random.default_rng(0)
    for split, count in (("train", 16), ("test", 6)):
        for k, name in enumerate(("cat", "dog", "frog")):
            (folder / "images" / split / name).mkdir(parents=True)
            for n in range(count):
                levels = random.integers(0, 120, (12, 12, 3), dtype=np.uint8)
                levels[..., k] += 100 if n % 3 else 0  # a third are of any class
                Image.fromarray(levels).save(folder / "images" / split / name / f"{n}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        train_as_users_do()
        for words in commands(ROOT / "README.md"):
            assert main([*words, *SMALL.get(words[0], ())]) == 0, words
        yield folder
        sys.modules.pop("net", None)


def train_as_users_do():
    from net import Net

    torch.manual_seed(0)
    model = torch.nn.DataParallel(Net())
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    x, y = images("train")
    for _ in range(20):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    torch.save({"epoch": 20, "state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}, "checkpoint.pt")


def images(split):
    """(N, 3, 12, 12) normalised images and (N,) classes, read by a user's own code."""
    files = sorted(Path("images", split).glob("*/*.png"))
    names = sorted({file.parent.name for file in files})
    x = torch.stack([torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) / 255 for file in files])
    return (x - MEAN) / STD, torch.tensor([names.index(file.parent.name) for file in files])


def clean_accuracy(network):
    x, y = images("test")
    with torch.no_grad():
        return (network(x).argmax(1) == y).double().mean().item()


def reported(folder):
    """Clean accuracy of each network in a report."""
    networks = json.loads((Path(folder) / "findings.json").read_text())["networks"]
    return {
        name: next(f["data"]["attacks"][0]["curve"][0]["accuracy"] for f in findings if f["kind"] == "robustness")
        for name, findings in networks.items()
    }


def test_the_report_has_the_accuracy_that_the_users_own_evaluation_gives(journey, monkeypatch):
    monkeypatch.chdir(journey)
    from net import Net

    net = Net()
    state = torch.load("checkpoint.pt")["state_dict"]
    net.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    assert reported("audits/mine") == {"net.py:Net": clean_accuracy(net)}
    assert 0.5 < clean_accuracy(net) < 1
    assert reported("hardened/report")["original"] == clean_accuracy(net)


def test_the_hardened_network_is_back_in_code_without_buttress(journey, monkeypatch):
    monkeypatch.chdir(journey)
    monkeypatch.setitem(sys.modules, "buttress", None)  # cannot be imported
    code = blocks(ROOT / "README.md", "python")[0]
    scope = {}
    exec(code, scope)
    accuracy = clean_accuracy(scope["net"])
    assert reported("audits/hardened") == {"hardened": accuracy}
    assert list(reported("hardened/report").values())[-1] == accuracy


def test_the_onnx_file_takes_images_as_they_are(journey, monkeypatch):
    import onnxruntime

    monkeypatch.chdir(journey)
    x, y = images("test")
    session = onnxruntime.InferenceSession("hardened.onnx", providers=["CPUExecutionProvider"])
    logits = session.run(["logits"], {"x": (x * STD + MEAN).numpy()})[0]
    assert (logits.argmax(1) == y.numpy()).mean() == reported("audits/hardened")["hardened"]


def test_the_example_in_python_ends_with_weights_for_the_users_network(journey, monkeypatch, capsys):
    monkeypatch.chdir(journey)
    code = blocks(ROOT / "README.md", "python")[1]
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 20
    scope = {}
    exec(code, scope)
    expected = scope["hardened"].model.state_dict()
    assert all(expected[name].equal(value) for name, value in torch.load("hardened.pt").items())
    assert "are classified correctly" in capsys.readouterr().out


def test_the_readme_shows_every_step_and_no_block_is_left_untried():
    assert [words[0] for words in commands(ROOT / "README.md")] == [
        *("audit", "audit", "harden", "harden", "audit", "compare", "export", "export")
    ]
    assert len(blocks(ROOT / "README.md", "python")) == 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_command_of_the_pages_is_understood(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loggers, "find_spec", lambda name: name)  # where all extras are installed
    for name, *words in commands(page):
        if name == "list":
            assert main([name, *words]) == 0
        else:
            assert parse(job(name), words) is not None


def test_every_command_is_shown_somewhere():
    assert {words[0] for page in PAGES for words in commands(page)} == {*JOBS, "list"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_example_in_python_compiles(page):
    for code in blocks(page, "python"):
        compile(code, page.name, "exec")


@pytest.mark.parametrize("page", [page for page in PAGES if page.name in NARROW], ids=lambda page: page.name)
def test_lines_are_no_longer_than_120_characters(page):
    assert [line for line in page.read_text(encoding="utf-8").splitlines() if len(line) > 120] == []


def test_the_method_of_the_guide_attacks(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n# mine.py\n(.*?)```", (ROOT / "docs/guide.md").read_text(), re.S)
    (tmp_path / "mine.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    from torch import nn

    from buttress.registry import attack

    model, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), torch.rand(5, 1, 2, 2)
    nudge = attack.get("mine.py:Nudge")().within()
    result = nudge(model, x, torch.zeros(5, dtype=torch.int64))
    assert nudge.threat.contains(result.x_adv, x).all()
    assert result.distance.max() > nudge.threat.eps / 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
