"""Networks of verifiers' papers, in the files that their code writes, audited by a user's own function."""

import pytest
import torch
from torch import nn

from buttress import certificates, models
from buttress.audits.base.finding import read
from buttress.cli import main
from buttress.errors import UserError
from buttress.threat import Threat

HERE = __file__


class Flatten(nn.Module):
    def forward(self, x):
        return x.view(x.size(0), -1)


class Scaled(nn.Module):
    """The layer that randomised smoothing's code puts before a network, whose numbers are no part of its weights."""

    def __init__(self):
        super().__init__()
        self.means, self.sds = torch.tensor([0.1307]), torch.tensor([0.3081])

    def forward(self, x):
        return (x - self.means.view(1, -1, 1, 1)) / self.sds.view(1, -1, 1, 1)


def small():
    """Two convolutions and a hidden layer, of Wong & Kolter and of CROWN-IBP."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU()),
        *(Flatten(), nn.Linear(32 * 7 * 7, 100), nn.ReLU(), nn.Linear(100, 10)),
    )


def scaled():
    return nn.Sequential(Scaled(), small())


def large():
    """Four convolutions, of CROWN-IBP's family."""
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 8, 4, 2, 1), nn.ReLU()),
        *(nn.Conv2d(8, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 16, 4, 2, 1), nn.ReLU()),
        *(Flatten(), nn.Linear(16 * 7 * 7, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)),
    )


class ConvSmall(nn.Module):
    """DiffAI's, whose layers are in a network of its own in a module that trains it."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 16, 4, 2), nn.ReLU(), nn.Conv2d(16, 32, 4, 2), nn.ReLU(), Flatten())
        self.fc1, self.fc2 = nn.Linear(32 * 5 * 5, 100), nn.Linear(100, 10)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(self.net(x))))


def inputs():
    """An image of noise for each class, one of which the network is right about."""
    x = torch.rand(10, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    return torch.utils.data.TensorDataset(x, torch.arange(10))


def fresh(make, seed=3):
    torch.manual_seed(seed)
    return make().eval()


def trained(make):
    """With an optimiser's state, as training code leaves it."""
    model = fresh(make)
    optimiser = torch.optim.Adam(model.parameters(), 1e-4)
    model(torch.rand(2, 1, 28, 28)).sum().backward()
    optimiser.step()
    return model, optimiser.state_dict()


def behind(prefix, state):
    return {prefix + name: value for name, value in state.items()}


# By what wrote it: the name of the file, the network, and what is in the file.
LAYOUTS = {
    "crown-ibp": ("IBP_small_best.pth", small, lambda s, o: {"state_dict": s, "epoch": 200, "optimizer": o}),
    "auto_LiRPA": ("cnn_4layer.model", large, lambda s, o: {"state_dict": s, "epoch": 1, "acc": 0.9, "optimizer": o}),
    "data parallel": ("net.pth", large, lambda s, o: {"state_dict": behind("module.", s), "epoch": 3}),
    "convex adversarial": ("mnist_small.pth", small, lambda s, o: {"state_dict": [s], "err": 0.05, "epoch": 99}),
    "smoothing": (
        "checkpoint.pth.tar",
        scaled,
        lambda s, o: {
            "epoch": 90,
            "arch": "cifar_resnet110",
            "state_dict": {name.replace("1.", "1.module.", 1): value for name, value in s.items()},
            "optimizer": o,
        },
    ),
    "trades": ("model-nn-epoch100.pt", small, lambda s, o: behind("module.", s)),
    "robustbench": ("Net.pt", small, lambda s, o: {"model_state_dict": behind("model.", s)}),
    "diffai": ("ConvSmall.pynet", ConvSmall, lambda s, o: s),
}


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_gives_the_networks_own_certificates(layout, old, tmp_path):
    name, make, content = LAYOUTS[layout]
    model, optimiser = trained(make)
    torch.save(content(model.state_dict(), optimiser), tmp_path / name, _use_new_zipfile_serialization=not old)
    loaded = fresh(make, 8)
    models.load_weights(loaded, tmp_path / name)
    x = inputs().tensors[0]
    y, threat = model(x).argmax(1), Threat(eps=0.002)
    own, theirs = (certificates.certify(net, x, y, threat=threat, method="ibp") for net in (model, loaded))
    assert torch.equal(own.margin, theirs.margin)


def test_networks_of_a_cascade_are_a_choice(tmp_path):
    states = [fresh(small, seed).state_dict() for seed in (1, 2)]
    torch.save({"state_dict": states, "err": 0.05, "epoch": 9}, tmp_path / "cascade.pth")
    with pytest.raises(UserError, match=r"under several keys: state_dict\.0 .*, state_dict\.1 "):
        models.load_weights(small(), tmp_path / "cascade.pth")
    model = small()
    models.load_weights(model, tmp_path / "cascade.pth", key="state_dict.0")
    assert torch.equal(model[0].weight, states[0]["0.weight"])


@pytest.mark.parametrize("layout", ["convex adversarial", "onnx"])
def test_certified_accuracy_by_the_command_line(layout, tmp_path):
    model = fresh(small)
    if layout == "onnx":
        from buttress.models.onnx import export_onnx

        export_onnx(model, tmp_path / "net.onnx", inputs().tensors[0])
        network = [str(tmp_path / "net.onnx")]
    else:
        torch.save({"state_dict": [model.state_dict()], "err": 0.1, "epoch": 1}, tmp_path / "net.pth")
        network = [f"{HERE}:small", "--weights", str(tmp_path / "net.pth")]
    out = tmp_path / "out"
    options = ["--data", f"{HERE}:inputs", "--audits", "certificates", "--threat.eps", "0.001", "--out", str(out)]
    assert main(["audit", *network, *options]) == 0
    (findings,) = read(out / "findings.json")[0].values()
    (finding,) = (found for found in findings if found.kind == "certificates")
    x, y = inputs().tensors
    for row in finding.data["curve"]:
        expected = certificates.certify(model, x, y, threat=Threat(eps=row["eps"])).verified
        assert row["certified"]["accuracy"] == pytest.approx(float(expected.float().mean()))
