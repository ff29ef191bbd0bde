"""Files of weights as training scripts and libraries leave them: found, or refused with what to type."""

import argparse
import collections
import datetime
import fractions
import json
import logging
import pathlib
import types
import uuid

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from buttress import models
from buttress.errors import UserError
from buttress.models.weight_files import read_weights


class Net(nn.Module):
    def __init__(self, seed: int = 0, outputs: int = 3) -> None:
        super().__init__()
        self.stem = nn.Linear(2, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, outputs)
        random = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for value in self.state_dict().values():
                if value.is_floating_point():
                    value.copy_(torch.rand(value.shape, generator=random))

    def forward(self, x):
        return self.head(self.norm(self.stem(x)))


class Settings(dict):
    """As Lightning's AttributeDict: a mapping of a class of its own."""


class Steps(list):
    pass


class Meter:
    def __init__(self):
        self.values = collections.deque([0.1], maxlen=3)


def same(model, other):
    a, b = model.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def state(seed=1, prefix="", **options):
    return {prefix + name: value for name, value in Net(seed, **options).state_dict().items()}


def optimiser():
    net = Net(1)
    made = torch.optim.Adam(net.parameters())
    net(torch.ones(4, 2)).sum().backward()
    made.step()
    return made.state_dict()


def averaged():
    return AveragedModel(Net(1)).state_dict()


HOLDERS = {
    "bare": lambda s: s,
    "any key": lambda s: {"the_weights": s, "epoch": 3},
    "nested": lambda s: {"checkpoint": {"nets": {"student": s}, "step": 2}, "optimizer": optimiser()},
    "list": lambda s: [s, optimiser()],
    "tuple": lambda s: (3, s),
    "beside bookkeeping": lambda s: {**s, "epoch": 3, "best": 0.9},
    "beside metrics": lambda s: {"state_dict": {**s, "val_acc.total": torch.tensor(7), "loss.weight": torch.ones(2)}},
    "numpy's numbers": lambda s: {"net": s, "best": np.float64(0.9), "confusion": np.eye(3)},
    "arrays": lambda s: {name: value.numpy() for name, value in s.items()},
    "settings": lambda s: {
        "net": s,
        "args": argparse.Namespace(lr=0.1),
        "config": types.SimpleNamespace(a=Settings(b=1)),
    },
    "classes": lambda s: {
        "net": s,
        "meter": Meter(),
        "hyper": Settings(lr=Steps([1, 2])),
        "f": fractions.Fraction(1, 3),
    },
    "standard library": lambda s: {
        "net": s,
        "when": datetime.datetime(2026, 1, 2),
        "path": pathlib.PurePosixPath("a/b"),
        "counts": collections.defaultdict(list, a=[1]),
        "id": uuid.UUID(int=3),
    },
}


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "net.", "backbone.module._orig_mod.", "layers.0."])
@pytest.mark.parametrize("holder", [holder for holder in HOLDERS if holder != "beside metrics"])
def test_weights_are_found_under_any_keys_and_any_common_prefix(holder, prefix, tmp_path):
    content = HOLDERS[holder](state(prefix=prefix))
    for new_format in (True, False):
        torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=new_format)
        model = models.Normalized(Net(2), 0.5, 0.5)
        assert models.load_weights(model, tmp_path / "w.pt") == ([], [])
        assert same(model.model, Net(1))


@pytest.mark.parametrize("prefix", ["_orig_mod.", "net.", "a.module."])
def test_metrics_in_the_same_state_dict_are_told_by_the_prefix(prefix, tmp_path):
    torch.save(HOLDERS["beside metrics"](state(prefix=prefix)), tmp_path / "w.pt")
    model = Net(2)
    assert models.load_weights(model, tmp_path / "w.pt") == ([], [])
    assert same(model, Net(1))


@pytest.mark.parametrize("model", [Net(2), nn.Sequential(nn.Flatten(), Net(2)), nn.DataParallel(Net(2))])
def test_wrappers_around_the_network_take_its_weights(model, tmp_path):
    torch.save(state(), tmp_path / "w.pt")
    assert models.load_weights(model, tmp_path / "w.pt") == ([], [])
    assert any(same(part, Net(1)) for part in model.modules() if isinstance(part, Net))


def test_prefixes_of_torchs_wrappers_in_the_middle_of_names(tmp_path):
    """As of torch.compile, FSDP or DataParallel around a part: ImageNet's VGG has features.module.0."""
    for inside in ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module"):
        names = {f"{n.partition('.')[0]}.{inside}.{n.partition('.')[2]}": v for n, v in state().items()}
        torch.save({"state_dict": names}, tmp_path / "w.pt")
        model = Net(2)
        models.load_weights(model, tmp_path / "w.pt")
        assert same(model, Net(1))


def test_averages_of_the_weights(tmp_path):
    torch.save(averaged(), tmp_path / "swa.pt")
    model = Net(2)
    assert models.load_weights(model, tmp_path / "swa.pt") == ([], [])
    assert same(model, Net(1))


@pytest.mark.parametrize(
    "content", [lambda: Net(1), lambda: {"epoch": 3, "model": Net(1)}, lambda: [nn.DataParallel(Net(1))]]
)
def test_a_pickled_module_gives_its_weights_and_no_code_of_it_is_run(content, tmp_path, monkeypatch):
    torch.save(content(), tmp_path / "w.pt")
    monkeypatch.setattr(Net, "__setstate__", lambda *_: pytest.fail("the class was used"), raising=False)
    monkeypatch.setattr(nn.Module, "__setstate__", lambda *_: pytest.fail("the class was used"))
    model = Net(2)
    assert models.load_weights(model, tmp_path / "w.pt") == ([], [])
    assert same(model, Net(1))


def test_buffers_that_a_module_does_not_save_are_not_taken(tmp_path):
    net = Net(1)
    net.register_buffer("cache", torch.ones(3), persistent=False)
    torch.save(net, tmp_path / "w.pt")
    assert models.load_weights(Net(2), tmp_path / "w.pt") == ([], [])


def shards(folder):
    names = list(state())
    files = {name: f"part-{k % 2}.safetensors" for k, name in enumerate(names)}
    for file in set(files.values()):
        save_file({name: value for name, value in state().items() if files[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))


def test_shards_and_folders_and_arrays(tmp_path):
    shards(tmp_path)
    np.savez(tmp_path / "w.npz", **{name: value.numpy() for name, value in state().items()})
    for place in (tmp_path / "model.safetensors.index.json", tmp_path, tmp_path / "w.npz"):
        model = Net(2)
        models.load_weights(model, place)
        assert same(model, Net(1))
    (tmp_path / "part-1.safetensors").unlink()
    with pytest.raises(UserError, match=r"names part-1.safetensors, and there is no .*part-1.safetensors"):
        models.load_weights(Net(2), tmp_path)


def test_several_that_fit_are_a_choice(tmp_path):
    path = tmp_path / "w.pt"
    torch.save({"model": {"raw": state(1), "ema": state(2, "module.")}, "epoch": 1}, path)
    with pytest.raises(UserError) as error:
        models.load_weights(Net(), path)
    assert str(error.value) == (
        f"{path} holds weights that fit under several keys: model.raw (9 of 9), model.ema.module (9 of 9); "
        "choose by --weights-key model.ema.module (key in Python)"
    )
    for key, seed in (("model.raw", 1), ("model.ema", 2), ("model.ema.module", 2)):
        model = Net()
        models.load_weights(model, path, key=key)
        assert same(model, Net(seed))
    with pytest.raises(UserError, match=r"no tensors under 'ema'; weights are under 'model.ema', 'model.raw'$"):
        models.load_weights(Net(), path, key="ema")
    torch.save({"model": state(1), "best": state(1)}, path)  # the same numbers: nothing to choose
    models.load_weights(Net(), path)


def test_the_one_that_fits_is_taken_among_others(tmp_path):
    torch.save({"teacher": state(1, outputs=9), "student": state(2), "optimizer": optimiser()}, tmp_path / "w.pt")
    model = Net()
    models.load_weights(model, tmp_path / "w.pt")
    assert same(model, Net(2))


def test_a_part_of_another_network_is_asked_about(tmp_path):
    path = tmp_path / "w.pt"
    other = {f"other.{k}": torch.ones(2) for k in range(20)}
    torch.save(state(prefix="part.") | other, path)
    with pytest.raises(UserError, match=r"only 9 of its tensors are Net's, under part, beside 20 others \(other.0, "):
        models.load_weights(Net(), path)
    models.load_weights(Net(), path, key="part")


@pytest.mark.parametrize(
    "names", [("0.mean", "0.std"), ("mean", "std"), ("pre.norm_mean", "pre.norm_std"), ("0.means", "0.sds")]
)
def test_a_normalisation_beside_the_network_is_never_dropped_silently(names, tmp_path):
    torch.save(state(prefix="1.") | {name: torch.ones(1, 2) for name in names}, tmp_path / "w.pt")
    with pytest.raises(UserError, match=rf"2 unexpected \({names[0]}, {names[1]}\)"):
        models.load_weights(Net(), tmp_path / "w.pt")
    models.load_weights(Net(), tmp_path / "w.pt", key="1")


def test_what_is_left_aside_is_said(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    torch.save(state(prefix="net.") | {"criterion.weight": torch.ones(2), "step": torch.tensor(3)}, tmp_path / "w.pt")
    models.load_weights(Net(), tmp_path / "w.pt")
    assert [record.getMessage() for record in caplog.records] == [f"{tmp_path}/w.pt: not used: criterion.weight"]
    caplog.clear()
    del (partial := state())["head.bias"]
    torch.save(partial, tmp_path / "w.pt")
    models.load_weights(Net(), tmp_path / "w.pt", strict=False)
    assert [record.getMessage() for record in caplog.records] == [f"{tmp_path}/w.pt: not loaded: head.bias"]


def test_a_head_for_other_classes(tmp_path, caplog):
    path = tmp_path / "w.pt"
    torch.save(state(1, outputs=7), path)
    with pytest.raises(UserError) as error:
        models.load_weights(Net(2), path)
    assert "; they are of a network with 7 outputs: create it with as many, or have its last" in str(error.value)
    model = Net(2)
    models.load_weights(model, path, head="new")
    assert torch.equal(model.stem.weight, Net(1).stem.weight)
    assert torch.equal(model.head.weight, Net(2).head.weight)
    assert caplog.records[-1].getMessage() == f"{path}: not loaded: head.weight, head.bias"
    torch.save(state(1), path)
    with pytest.raises(UserError, match="fits as it is, its last layer too: leave --head new out"):
        models.load_weights(Net(2), path, head="new")


@pytest.mark.parametrize("shape", [(4, 3), (8, 2)])
def test_other_shapes_than_a_heads_are_refused_also_with_a_new_one(shape, tmp_path):
    torch.save({**state(outputs=7), "stem.weight": torch.zeros(shape)}, tmp_path / "w.pt")
    with pytest.raises(UserError, match="of another shape"):
        models.load_weights(Net(2), tmp_path / "w.pt", head="new")


def test_the_nearest_names_of_both_sides_are_told(tmp_path):
    torch.save({name.replace("stem", "stm"): value for name, value in state().items()}, tmp_path / "w.pt")
    with pytest.raises(UserError) as error:
        models.load_weights(Net(2), tmp_path / "w.pt")
    assert str(error.value).endswith(
        "2 missing (stem.weight, stem.bias), 2 unexpected (stm.weight, stm.bias); the network's stem.weight may be the "
        "file's stm.weight, stem.bias may be the file's stm.bias; create the model as it was trained"
    )


@pytest.mark.filterwarnings("ignore:.*deprecated")
def test_programs_are_told(tmp_path):
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "w.pt")
    with pytest.raises(
        UserError, match=r"w.pt is a TorchScript program: save its weights alone, torch.save\(torch.jit"
    ):
        models.load_weights(nn.Linear(2, 2), tmp_path / "w.pt")


def test_a_whole_network_in_the_old_format_is_told_what_to_type(tmp_path):
    torch.save(nn.Sequential(nn.Linear(2, 2)), tmp_path / "w.model", _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match=r"as torch before 1.6 pickled it.*weights_only=False\).state_dict\(\), 'weig"):
        models.load_weights(nn.Linear(2, 2), tmp_path / "w.model")


def test_a_file_that_holds_itself_is_read(tmp_path):
    content = {"net": state()}
    content["again"] = content
    torch.save(content, tmp_path / "w.pt")
    assert len(read_weights(tmp_path / "w.pt").tensors) == 9


class Called:
    def __reduce__(self):
        return (eval, ("__import__('pathlib').Path('ran').touch()",))


def test_a_function_beside_the_weights_is_not_called(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"net": state(), "x": Called()}, "w.pt")
    models.load_weights(Net(2), "w.pt")
    assert not (tmp_path / "ran").exists()


def test_a_lazy_network_takes_weights(tmp_path):
    lazy = nn.Sequential(nn.LazyLinear(4), nn.LazyBatchNorm1d(), nn.LazyLinear(3))
    whole = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).eval()
    torch.save(whole.state_dict(), tmp_path / "w.pt")
    assert models.load_weights(lazy, tmp_path / "w.pt") == ([], [])
    x = torch.ones(3, 2)
    assert torch.equal(lazy.eval()(x), whole(x))


Pair = collections.namedtuple("Pair", "weights epoch")


@pytest.mark.parametrize(
    "content",
    [
        lambda: list(state().items()),
        lambda: {"weights": tuple(state().items()), "epoch": 1},
        lambda: Pair(state(), 3),
        lambda: {name: value.reshape(1) if value.dim() == 0 else value for name, value in state().items()},
    ],
)
def test_items_named_tuples_and_single_numbers_of_any_shape(content, tmp_path):
    torch.save(content(), tmp_path / "w.pt")
    model = Net(2)
    assert models.load_weights(model, tmp_path / "w.pt") == ([], [])
    assert same(model, Net(1))


def test_arrays_whose_names_have_slashes(tmp_path):
    np.savez(tmp_path / "w.npz", **{name.replace(".", "/"): value.numpy() for name, value in state().items()})
    model = Net(2)
    models.load_weights(model, tmp_path / "w.npz")
    assert same(model, Net(1))


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.bool, torch.complex64])
def test_weights_of_another_kind_are_no_floating_point_ones(kind, tmp_path):
    """The scale of quantised weights may be anywhere else: as they are they would give other outputs, silently."""
    torch.save({**state(), "head.weight": (20 * state()["head.weight"]).to(kind)}, tmp_path / "w.pt")
    for strict in (True, False):
        with pytest.raises(UserError, match=rf"1 of another kind \(head.weight is {kind}\)"):
            models.load_weights(Net(2), tmp_path / "w.pt", strict=strict)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_other_precisions_are_converted(kind, tmp_path):
    torch.save({name: v.to(kind) if v.is_floating_point() else v for name, v in state().items()}, tmp_path / "w.pt")
    model = Net(2)
    models.load_weights(model, tmp_path / "w.pt")
    assert torch.equal(model.head.weight, Net(1).head.weight.to(kind).float())


class Tied(nn.Module):
    def __init__(self, seed):
        super().__init__()
        self.embedding, self.head = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        nn.init.constant_(self.embedding.weight, seed)
        self.head.weight = self.embedding.weight


def test_of_tied_weights_one_is_enough_and_two_that_differ_are_refused(tmp_path):
    path = tmp_path / "w.pt"
    for name in Tied(1).state_dict():
        torch.save({name: Tied(1).state_dict()[name]}, path)
        model = Tied(2)
        assert models.load_weights(model, path) == ([], [])
        assert torch.equal(model.head.weight, Tied(1).head.weight)
    torch.save({"embedding.weight": torch.ones(3, 3), "head.weight": torch.zeros(3, 3)}, path)
    with pytest.raises(UserError, match=r"1 tied in the network and not in the file \(head.weight\)"):
        models.load_weights(Tied(2), path)


class Scaled(nn.Module):
    def __init__(self, scale, persistent):
        super().__init__()
        self.inside = nn.Linear(2, 3)
        self.register_buffer("scale", torch.tensor([scale]), persistent=persistent)


def test_a_buffer_that_is_not_saved_is_taken_where_the_file_has_it(tmp_path):
    torch.save(Scaled(5.0, persistent=True).state_dict(), tmp_path / "with.pt")
    torch.save(Scaled(5.0, persistent=False).state_dict(), tmp_path / "without.pt")
    for name, scale in (("with", 5.0), ("without", 2.0)):
        model = Scaled(2.0, persistent=False)
        assert models.load_weights(model, tmp_path / f"{name}.pt") == ([], [])
        assert model.scale.item() == scale


class Remembers(nn.Linear):
    def get_extra_state(self):
        return {"scale": 2}

    def set_extra_state(self, state):
        pass


def test_a_state_that_no_file_of_tensors_holds_is_not_left_at_its_start(tmp_path):
    torch.save(Remembers(2, 2).state_dict(), tmp_path / "w.pt")
    with pytest.raises(UserError, match="'_extra_state' in the state of Remembers is a dict, no tensor: load the weig"):
        models.load_weights(Remembers(2, 2), tmp_path / "w.pt")


def test_other_weights_of_the_network_in_the_file_are_named(tmp_path, caplog):
    """An average of the parameters alone, beside the weights with BatchNorm's statistics."""
    average = {name: value + 1 for name, value in Net(1).named_parameters()}
    torch.save({"state_dict": state(), "ema": average}, tmp_path / "w.pt")
    model = Net(2)
    models.load_weights(model, tmp_path / "w.pt")
    assert same(model, Net(1))
    assert caplog.records[-1].getMessage().endswith("loaded from state_dict; under ema are others, not used (6 of 9)")


def test_two_networks_with_batch_norm_are_a_choice(tmp_path):
    torch.save({**state(1, "ema_model."), **state(2, "online_model."), "step": torch.tensor(3)}, tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"under several keys: ema_model \(9 of 9\), online_model \(9 of 9\)"):
        models.load_weights(Net(), tmp_path / "w.pt")


def test_layers_in_a_plain_list_are_told(tmp_path, caplog):
    model = Net(2)
    torch.save(model.state_dict(), tmp_path / "w.pt")
    model.all_layers = [model.stem, model.head]
    models.load_weights(model, tmp_path / "w.pt")
    assert not caplog.records
    model.branches = [nn.Linear(2, 2)]
    models.load_weights(model, tmp_path / "w.pt")
    assert "no weights for branches, which torch does not know of: make it an nn.ModuleList" in caplog.text


def test_weights_that_are_not_a_number_are_told(tmp_path):
    torch.save({**state(), "stem.bias": torch.full((4,), torch.nan)}, tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"holds NaN in stem.bias: its training diverged, or the file is damaged"):
        models.load_weights(Net(), tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (lambda: dict(Net(1).named_parameters()), "parameters alone were saved: save network.state_dict()"),
        (lambda: list(Net(1).parameters()), "they have no names: save network.state_dict()"),
        (lambda: nn.utils.parameters_to_vector(Net(1).parameters()), "they have no names: save network.state_dict()"),
        (lambda: {**state(), "head.lora_A": torch.ones(2)}, "they are of adapters (LoRA): merge them before saving"),
        (lambda: {"head.kernel": torch.ones(2)}, "Keras and Flax name them so"),
        (lambda: {**state(), "head.weight_mask": torch.ones(2)}, "they are of a layer with a parametrisation"),
        (
            lambda: {**state(prefix="net."), "pre.mean": torch.ones(2)},
            "leave them out by --weights-key net and give --normalise MEAN/STD",
        ),
    ],
)
def test_what_to_do_is_said_where_names_tell_how_weights_were_saved(content, line, tmp_path):
    torch.save(content(), tmp_path / "w.pt")
    with pytest.raises(UserError) as error:
        models.load_weights(Net(), tmp_path / "w.pt")
    assert line in str(error.value)
