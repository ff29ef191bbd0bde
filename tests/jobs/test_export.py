"""`buttress export`: a run becomes a file that answers as the network, and mistakes are told before any work."""

import pytest
import torch

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
