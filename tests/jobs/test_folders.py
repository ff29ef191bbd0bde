"""Jobs on folders of images, with a network that is right on every image whose label is right, and on no other."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from buttress import fit
from buttress.attacks.gradient.fgsm import FGSM
from buttress.audits.robustness import Robustness
from buttress.errors import UserError
from buttress.jobs import attack, audit, train
from buttress.jobs.settings import Network, Reporter, Source, Training, open_network
from buttress.threat import Threat

NET = """
import torch
class Net(torch.nn.Module):
    # class k: all pixels are about 20 k + 10
    def __init__(self):
        super().__init__()
        self.centres = torch.nn.Parameter(torch.arange({}) * 20.0 + 10)
    def forward(self, x):
        return -((x.mean((1, 2, 3))[:, None] * 255 - self.centres) / 20) ** 2
"""


class Lines(Reporter):
    def __init__(self):
        self.lines = []

    def line(self, text):
        self.lines.append(text)

    def says(self, text):
        return any(text in line for line in self.lines)


def images(root, names, count=4):
    """Images of the classes by number, so that labels are known whatever the folders are called."""
    for name, label in names.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.new("L", (3, 3), 20 * label + 8 + i).save(root / name / f"{i}.png")
    return f"folder:{root}"


@pytest.fixture
def network(tmp_path):
    def make(classes):
        path = tmp_path / f"net{classes}.py"
        path.write_text(NET.format(classes))
        return f"{path}:Net"

    return make


def accuracy(reference, **source):
    model, dataset, _ = open_network(reference, Network(), Source(**source), 0, trained=True)
    x, y, _ = dataset.test.take(torch.arange(len(dataset.test)))
    return (model(x).argmax(1) == y).float().mean().item(), dataset


def test_numbers_of_folders_are_the_networks(tmp_path, network):
    right, made = accuracy(network(12), data=images(tmp_path / "n", {str(k): k for k in range(12)}))
    assert right == 1
    assert len(made.test) == 48


def test_a_subset_of_the_classes_is_refused_until_the_list_is_given(tmp_path, network):
    data = images(tmp_path / "n", {"c7": 7, "c10": 10, "c2": 2})
    with pytest.raises(UserError, match=r"tells 12 classes apart, n has images of 3: say which they are.*--classes"):
        accuracy(network(12), data=data)
    listed = tmp_path / "classes.txt"
    listed.write_text("\n".join(f"c{k}" for k in range(12)))
    for classes in ([str(listed)], [f"c{k}" for k in range(12)]):
        right, made = accuracy(network(12), data=data, classes=classes)
        assert right == 1
        assert len(made.test) == 12


def test_another_order_than_that_of_the_names_is_taken_from_the_list(tmp_path, network):
    data = images(tmp_path / "n", {"ant": 2, "bee": 0, "cat": 1})
    assert accuracy(network(3), data=data)[0] == 0
    assert accuracy(network(3), data=data, classes=["bee", "cat", "ant"])[0] == 1


def test_labels_of_a_table_are_the_networks(tmp_path, network):
    (tmp_path / "n").mkdir()
    for k in range(11):
        Image.new("L", (3, 3), 20 * k + 10).save(tmp_path / "n" / f"{k}.png")
    (tmp_path / "t.csv").write_text("image,class\n" + "".join(f"{k},{k}\n" for k in range(10, -1, -1)))
    assert accuracy(network(11), data=f"folder:{tmp_path / 'n'}", labels=tmp_path / "t.csv")[0] == 1


@pytest.mark.parametrize("option", [{"classes": ["a", "b"]}, {"labels": Path("t.csv")}])
def test_options_of_folders_are_refused_for_other_data(option):
    with pytest.raises(UserError, match=f"data set 'digits' takes no '{next(iter(option))}'"):
        Source(data="digits", **option).load(0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "x"}, "size: expected a number of pixels"),
        ({"size": [1, 2, 3]}, "size: expected a number of pixels"),
        ({"size": 0}, "at least 1 pixel"),
        ({"crop": "perhaps"}, "crop: expected true or false"),
        ({"skip_broken": 1}, "skip_broken: expected true or false"),
        ({"val": "x"}, "val must be a whole number"),
        ({"test": 0}, "test must be a whole number"),
        ({"seed": 3}, "type --seed"),
        ({"nothing": 3}, "takes no 'nothing'"),
    ],
)
def test_options_that_mean_nothing_are_refused(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        Source(data=images(tmp_path / "n", {"a": 0, "b": 1}), data_args=options).load(0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A network of one epoch, trained on three classes without a test."""
    folder = tmp_path_factory.mktemp("trained")
    data = images(folder / "data", {"ant": 0, "bee": 1, "cat": 2}, 10)
    told = Lines()
    architecture, training = Network(model="mlp"), Training(epochs=1, accelerator="cpu")
    train(folder / "run", source=Source(data=data), architecture=architecture, training=training, reporter=told)
    assert told.says("3 are set aside for the test")
    return folder


@pytest.mark.parametrize("named", ["", "folder:", "folder"])
def test_a_run_is_audited_on_what_it_was_not_trained_on_also_where_its_folder_is_named_again(run, named):
    places = {"": {}, "folder:": {"data": f"folder:{run / 'data'}"}, "folder": {"data": "folder"}}
    source = Source(**places[named], data_dir=run / "data" if named == "folder" else None)
    trained_on = Source(data=f"folder:{run / 'data'}").load(0)[0]
    _, dataset, _ = open_network(str(run / "run"), Network(), source, 5, trained=True)
    assert torch.equal(dataset.test.x, trained_on.test.x)
    assert len(dataset.test) == 3


def test_other_images_of_a_run_are_all_test_and_have_its_classes(run, tmp_path):
    source = Source(data=images(tmp_path / "some", {"cat": 2, "ant": 0}))
    _, dataset, _ = open_network(str(run / "run"), Network(), source, 0, trained=True)
    assert dataset.classes == ("ant", "bee", "cat")
    assert dataset.test.y.unique().tolist() == [0, 2]
    assert len(dataset.test) == 8
    source = Source(data=images(tmp_path / "others", {"cow": 2, "ant": 0}))
    with pytest.raises(UserError, match="cow is none of the classes given"):
        open_network(str(run / "run"), Network(), source, 0, trained=True)


def test_audit_and_attack_say_what_was_used_as_what(tmp_path, network):
    data = images(tmp_path / "t" / "Train", {"a": 0, "b": 1, "c": 2}) and f"folder:{tmp_path / 't'}"
    by = FGSM(threat=Threat(eps=0.01))
    told = Lines(), Lines()
    common = {"source": Source(data=data), "batch_size": 64}
    findings = audit(network(3), out=tmp_path / "audit", audits=[Robustness(attacks=[by])], reporter=told[0], **common)
    assert findings[0].data["worst"][0]["accuracy"] == 1
    attack(network(3), out=tmp_path / "attack", by=by, reporter=told[1], **common)
    for one in told:
        assert one.says("has train images alone")
        assert one.says("if the network was trained on them, figures say nothing of new images")
    page = (tmp_path / "audit" / "findings.json").read_text()
    assert "test 12 from Train" in page
    assert "if the network was trained on them" in page


def test_images_for_the_test_alone_are_limited_and_pooled_like_any(tmp_path):
    source = Source(data=images(tmp_path / "n", {"a": 0, "b": 1}), limit=4, data_args={"size": 4}, pool=2)
    made = source.load(0, trained=True)[0]
    assert [len(split) for split in made.splits.values()] == [0, 0, 4]
    assert made.shape == (1, 2, 2)
    assert made.mean[0] == pytest.approx(made.test.x.mean().item())


def test_nothing_is_trained_without_training_images(tmp_path):
    made = Source(data=images(tmp_path / "n", {"a": 0, "b": 1})).load(0, trained=True)[0]
    with pytest.raises(UserError, match="training needs train inputs; n has none"):
        fit(nn.Sequential(nn.Flatten(), nn.Linear(9, 2)), made, epochs=1)
