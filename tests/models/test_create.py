import builtins
import copy
import json
import sys
import types

import pytest
import torch
from torch import nn

from buttress import models
from buttress.errors import UserError

USERS = """
import torch
from torch import nn

def net(width=3, *, bias=True):
    return nn.Linear(2, width, bias=bias)

def needs(width):
    return nn.Linear(2, width)

def anything(**options):
    return nn.Linear(2, options["width"])

def number():
    return 3

made = nn.Linear(2, 2)
text = "net"
"""


@pytest.fixture
def users(tmp_path):
    (tmp_path / "nets.py").write_text(USERS)
    return f"{tmp_path / 'nets.py'}:"


def told(name: str, **options: object) -> str:
    with pytest.raises(UserError) as error:
        models.create(name, **options)
    return str(error.value)


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_unknown_names_and_options_are_told_with_what_is_known(users):
    assert told("resnet81") == "there is no model 'resnet81'; did you mean 'resnet18'?"
    assert told("cnn", clases=3) == (
        "the model 'cnn' has no option 'clases'; its options are classes, channels, image_size, width"
    )
    assert told(users + "net", depth=3) == f"the model '{users}net' has no option 'depth'; its options are width, bias"
    assert told(users + "needs") == f"the model '{users}needs' cannot be made: missing a required argument: 'width'"
    assert told(users + "number", a=1) == f"the model '{users}number' has no option 'a'; it takes none"
    assert told(users + "number") == f"'{users}number' returned a int: a torch.nn.Module was expected"
    for thing, kind, adapter in (("made", "Linear", ", as in def make(): return Linear(...)"), ("text", "str", "")):
        expected = f"is a {kind}: a function that returns a new module was expected{adapter}"
        assert told(users + thing) == f"'{users}{thing}' {expected}"


def test_a_users_function_and_class_make_models(users):
    model = models.create(users + "net", width=5, bias=False, seed=3)
    assert model.weight.shape == (5, 2)
    # The first call also imported the file, which draws numbers.
    assert same(model, models.create(users + "net", width=5, bias=False, seed=3))
    assert models.create(users + "anything", width=4).weight.shape == (4, 2)
    assert isinstance(models.create("torch.nn:Linear", in_features=2, out_features=1), nn.Linear)
    spec = models.spec_of(model)
    assert spec == {"name": users + "net", "options": {"width": 5, "bias": False}, "mean": None, "std": None}
    assert models.from_spec(spec).weight.shape == (5, 2)


def test_mean_and_std_wrap_the_model():
    model = models.create("cnn", mean=[0.5], std=0.25, seed=1)
    assert isinstance(model, models.Normalized)
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(model(x), models.create("cnn", seed=1)((x - 0.5) / 0.25))
    assert models.create("cnn", mean=0.5).std == 1
    assert models.create("cnn", std=0.5).mean == 0
    assert not isinstance(models.create("cnn"), models.Normalized)


def test_the_description_is_plain_data_and_a_copy():
    model = models.create("mlp", hidden=(8, 4), features=3, mean=torch.tensor([0.5, 0.25, 0.0]), std=(1.0, 2.0, 4.0))
    spec = models.spec_of(model)
    assert spec == {
        "name": "mlp",
        "options": {"hidden": [8, 4], "features": 3},
        "mean": [0.5, 0.25, 0.0],
        "std": [1.0, 2.0, 4.0],
    }
    assert json.loads(json.dumps(spec)) == spec
    spec["options"]["features"] = 7
    assert models.spec_of(model)["options"]["features"] == 3
    assert models.spec_of(copy.deepcopy(model)) == models.spec_of(model)
    assert [p.shape for p in models.from_spec(models.spec_of(model)).parameters()] == [
        p.shape for p in model.parameters()
    ]


def test_what_cannot_be_described_has_no_description(users):
    assert models.spec_of(nn.Linear(2, 2)) is None
    assert models.spec_of(models.create(users + "anything", width=2, other=nn.ReLU())) is None


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ({"name": "cnn"}, "has the entries name, options, mean and std; got {'name': 'cnn'}"),
        (["cnn"], "has the entries name, options, mean and std; got ['cnn']"),
        ({"name": 3, "options": {}, "mean": None, "std": None}, "has a name as text and options by name"),
        ({"name": "cnn", "options": [], "mean": None, "std": None}, "has a name as text and options by name"),
        ({"name": "cnn", "options": {"seed": 1}, "mean": None, "std": None}, "has a name as text and options by name"),
    ],
)
def test_what_is_no_description_is_told_in_one_line(spec, line):
    with pytest.raises(UserError) as error:
        models.from_spec(spec)
    assert str(error.value).startswith(f"a model's description {line}")


def test_the_global_state_comes_back_also_after_an_error():
    before = torch.get_rng_state()
    told("cnn", classes=0, seed=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_seed_does_not_depend_on_the_global_state_and_its_lack_does():
    made = []
    with torch.random.fork_rng(devices=[]):
        for seed in (1, 1, None, None):
            torch.default_generator.manual_seed(len(made))
            made.append(models.create("mlp", seed=seed))
        torch.default_generator.manual_seed(2)
        made.append(models.create("mlp"))
    assert same(made[0], made[1])
    assert not same(made[2], made[3])
    assert same(made[2], made[4])


@pytest.mark.parametrize("seed", [-1, 2**63, 0.5, "1"])
def test_a_seed_that_is_none_is_told_in_one_line(seed):
    assert told("cnn", seed=seed) == f"seed must be a whole number from 0 to 2**63 - 1; got {seed!r}"


def test_a_missing_timm_is_told_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)  # what Python itself does to forbid an import
    line = told("timm:resnet50")
    assert line.startswith("'timm:resnet50' needs timm, which cannot be imported (")
    assert line.endswith("): pip install 'buttress[timm]'")


def test_a_timm_that_does_not_import_beside_this_torch_is_told_in_one_line(monkeypatch):
    true_import = builtins.__import__

    def importing(name, *args, **kwargs):
        if name == "timm":
            raise RuntimeError("operator torchvision::nms does not exist\nand more")
        return true_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", importing)
    assert told("timm:vit") == (
        "'timm:vit' needs timm, which cannot be imported (operator torchvision::nms does not exist): "
        "pip install 'buttress[timm]'"
    )


def test_timm_is_asked_by_its_own_words(monkeypatch):
    """Against a stand-in of the two functions used, since timm cannot be installed beside every torch."""

    def create_model(name, *, num_classes=1000, in_chans=3, drop_rate=0.0):
        return nn.Linear(in_chans, num_classes)

    stand_in = types.ModuleType("timm")
    stand_in.is_model = lambda name: name == "tiny"
    stand_in.create_model = create_model
    monkeypatch.setitem(sys.modules, "timm", stand_in)
    model = models.create("timm:tiny", classes=7, channels=2, drop_rate=0.1, mean=0.5)
    assert model.model.weight.shape == (7, 2)
    assert models.spec_of(model)["name"] == "timm:tiny"
    assert models.from_spec(models.spec_of(model)).model.weight.shape == (7, 2)
    assert told("timm:tony") == "timm has no model 'tony': timm.list_models() names those it has"
    assert "unexpected keyword argument 'width'" in told("timm:tiny", width=3)
