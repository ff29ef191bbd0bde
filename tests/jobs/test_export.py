"""`buttress export`: a run becomes a file that answers as the network, and mistakes are told before any work."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from buttress.cli import main
from buttress.training import load


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "moons"
    words = f"train {folder} --data moons --data-args.samples 200 --data-args.test 60 --model mlp --epochs 1"
    assert main(words.split()) == 0
    return folder


def export(run, path, *more):
    return main(["export", str(run), "--onnx", str(path), *more])


def test_a_run_is_written_and_answers_as_the_network(run, tmp_path, capsys):
    import onnxruntime

    path = tmp_path / "new" / "net.onnx"
    assert export(run, path) == 0
    said = capsys.readouterr()
    first, second = said.out.splitlines()
    assert first.startswith("onnxruntime and the network differ by ")
    assert first.endswith(" at most on 18 inputs")
    assert second == f"written to {path}: x (N, 2) to logits (N, classes)"
    assert said.err == ""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = load(run)(x)
    torch.testing.assert_close(torch.from_numpy(session.run(["logits"], {"x": x.numpy()})[0]), logits)


@pytest.fixture
def own_network(tmp_path, monkeypatch):
    """A network of a user's own whose names begin as wrappers' do, and its weights in a folder without buttress."""
    code = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        self.mean = nn.Parameter(nn.init.zeros_(self.model[1].bias.clone()))

    def forward(self, x):
        return self.model(x) - self.mean
"""
    (tmp_path / "net.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(code, scope)  # as the user's own code makes it
    torch.manual_seed(0)
    network = scope["Net"]()
    torch.save({"epoch": 3, "state_dict": nn.DataParallel(network).state_dict()}, "checkpoint.pt")
    return network


@pytest.mark.parametrize("file", ["back.pt", "back.pth", "back.safetensors"])
@pytest.mark.parametrize("normalise", ["none", "0.25/0.5"])
def test_weights_go_back_into_the_users_own_code(own_network, file, normalise, capsys):
    words = ["net.py:Net", "--weights", "checkpoint.pt", "--data", "digits", "--normalise", normalise]
    assert main(["export", *words, "--state-dict", file]) == 0
    said = capsys.readouterr().out
    state = load_file(file) if file.endswith(".safetensors") else torch.load(file)
    expected = own_network.state_dict()
    assert state.keys() == expected.keys()
    assert all(state[name].equal(value) for name, value in expected.items())
    assert f'net.load_state_dict({"safetensors.torch.load_file" if "safe" in file else "torch.load"}("{file}"))' in said
    assert ("mean 0.25, std 0.5" in said) == (normalise != "none")


def test_both_files_at_once(run, tmp_path):
    assert export(run, tmp_path / "net.onnx", "--state-dict", str(tmp_path / "net.pt")) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"net.onnx", "net.pt"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "export writes a file: give --state-dict net.pt (weights), --onnx net.onnx, or both"),
        (["--state-dict", "net.bin"], "weights are written to a name ending in .safetensors, .pt or .pth; got net.bin"),
        (["--state-dict", "mine.pt"], "mine.pt exists: choose another name, or ask for it to be replaced (overwrite)"),
    ],
)
def test_weights_that_cannot_be_written(run, words, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.pt").write_text("mine")
    assert main(["export", str(run), *words]) == 2
    assert capsys.readouterr().err == f"buttress: {told}\n"
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"mine.pt": "mine"}


def test_a_file_that_is_there_is_replaced_only_when_asked(run, tmp_path, capsys):
    path = tmp_path / "net.onnx"
    path.write_text("mine")
    assert export(run, path) == 2
    assert capsys.readouterr().err.startswith(
        f"buttress: {path} exists: choose another name, or ask for it to be replaced"
    )
    assert path.read_text() == "mine"
    assert export(run, path, "--overwrite") == 0
    assert path.stat().st_size > 1000


@pytest.mark.parametrize(
    ("network", "name", "told"),
    [
        ("RUN", "net.pt", "a network is exported to a name ending in .onnx; got "),
        ("nowhere", "net.onnx", "'nowhere' is no run's folder and no model; "),
        ("mlp", "net.onnx", "mlp is an architecture without trained weights: give --weights"),
    ],
)
def test_mistakes_are_one_line_and_status_2(network, name, told, run, tmp_path, capsys):
    assert export(run if network == "RUN" else network, tmp_path / name) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"buttress: {told}")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
