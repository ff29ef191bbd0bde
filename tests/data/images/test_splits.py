"""Folders as people have them, with what is used as what."""

import json
from collections import Counter

import pytest
from PIL import Image

from buttress import data
from buttress.errors import UserError

CLASSES = ("ant", "bee", "cat")


def write(root, classes=CLASSES, count=4, first=0):
    """Grey images of one level each, which no other image has, by class."""
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.new("L", (2, 2), first + label * count + i).save(root / name / f"{first}_{i}.png")


def load(root, **options):
    return data.load(f"folder:{root}", **options)


def sizes(made):
    return {part: len(split) for part, split in made.splits.items()}


def levels(split):
    return Counter(split.x[:, 0, 0, 0].tolist())


def says(made, text):
    return any(text in note for note in made.notes)


@pytest.fixture
def tree(tmp_path):
    """Makes a folder with some splits: train has levels from 0, val from 50, test from 100."""

    def make(**names):
        for part, first in (("train", 0), ("val", 50), ("test", 100)):
            if part in names:
                write(tmp_path / names[part], first=first)
        return tmp_path

    return make


@pytest.mark.parametrize("change", [str, str.title, str.upper])
@pytest.mark.parametrize(("val", "test"), [("val", "test"), ("valid", "testing"), ("dev", "eval"), ("eval", "test")])
def test_folders_of_splits_are_used_as_what_they_are(tree, val, test, change):
    made = load(tree(train=change("training"), val=change(val), test=change(test)))
    assert sizes(made) == {"train": 12, "val": 12, "test": 12}
    assert min(levels(made.val)) == 50
    assert min(levels(made.test)) == 100
    assert made.classes == CLASSES
    assert (
        f"train 12 from {change('training')}, val 12 from {change(val)}, test 12 from {change(test)}" in made.provenance
    )


def test_val_alone_is_for_validation_and_for_the_test_and_that_is_said(tree):
    made = load(tree(train="train", val="Valid"))
    assert sizes(made) == {"train": 12, "val": 12, "test": 12}
    assert levels(made.val) == levels(made.test)
    assert says(made, "those of Valid are for validation and for the test")


@pytest.mark.parametrize("names", [{"train": "Train"}, {"train": "."}])
def test_what_is_cut_out_of_the_training_images_is_said(tree, names):
    made = load(tree(**names))
    assert sizes(made) == {"train": 10, "val": 1, "test": 1}
    assert says(made, "1 are set aside for the test; a network that was trained on this folder elsewhere may have seen")
    assert says(made, "1 are split off train")


@pytest.mark.parametrize(
    ("names", "expected", "first", "said"),
    [
        ({"train": "."}, {"train": 0, "val": 0, "test": 12}, 0, "all 12 images of"),
        ({"train": "train"}, {"train": 0, "val": 0, "test": 12}, 0, "if the network was trained on them"),
        ({"val": "val"}, {"train": 0, "val": 0, "test": 12}, 50, "those of val are the test"),
        ({"test": "test"}, {"train": 0, "val": 0, "test": 12}, 100, ""),
        ({"train": "train", "val": "val"}, {"train": 12, "val": 0, "test": 12}, 50, "those of val are the test"),
        ({"val": "val", "test": "test"}, {"train": 0, "val": 12, "test": 12}, 100, ""),
        ({"train": "train", "test": "test"}, {"train": 12, "val": 0, "test": 12}, 100, ""),
    ],
)
def test_for_a_trained_network_nothing_is_split_off(tree, names, expected, first, said):
    made = load(tree(**names), test_only=True)
    assert sizes(made) == expected
    assert min(levels(made.test)) == first
    assert max(levels(made.test).values()) == 1
    assert not said or says(made, said)


def test_the_images_of_a_train_folder_that_is_asked_for_itself_may_have_been_trained_on(tree):
    assert says(load(tree(train="train") / "train", test_only=True), "if the network was trained on them")


def test_without_training_images_there_is_nothing_to_train(tree):
    with pytest.raises(UserError, match="expected train images beside test and val, got none"):
        load(tree(val="val", test="test"))


def test_images_of_the_test_that_were_trained_on_are_counted(tree):
    root = tree(train="train", test="test")
    for i in range(2):
        (root / "test" / "ant" / f"again{i}.png").write_bytes((root / "train" / "ant" / f"0_{i}.png").read_bytes())
    assert says(load(root, test_only=True), "2 of 14 test images are in train as well, with the same bytes")
    assert not any("same bytes" in note for note in load(root / "train").notes)


def test_splits_beside_classes_and_inside_of_them(tmp_path):
    write(tmp_path / "a", ("bus", "train"))
    made = load(tmp_path / "a")
    assert made.classes == ("bus", "train")
    assert says(made, "train in")
    write(tmp_path / "b", ("ant/train", "ant/test", "bee/train", "bee/test"))
    with pytest.raises(UserError, match=r"ant: expected images of one class, got the splits test and train"):
        load(tmp_path / "b")
    write(tmp_path / "c" / "train", ("x", "y"))
    write(tmp_path / "c" / "extra", ("x", "y"))
    with pytest.raises(UserError, match="got train beside extra, which may be either"):
        load(tmp_path / "c")
    write(tmp_path / "d" / "inner" / "train")
    with pytest.raises(UserError, match=r"ask for folder:.*inner"):
        load(tmp_path / "d")


def test_images_without_a_class_are_never_taken_for_one(tmp_path):
    write(tmp_path / "train")
    write(tmp_path / "test", ("",))
    assert says(load(tmp_path), "not used, as they have no folders of classes (see --labels): ")
    write(tmp_path / "flat" / "train", ("",))
    write(tmp_path / "flat" / "test", ("",))
    with pytest.raises(UserError, match=r"test: expected one folder for each class, got none; .*--labels"):
        load(tmp_path / "flat")
    (tmp_path / "flat" / "test" / "labels.csv").write_text("x")
    with pytest.raises(UserError, match=r"got 4 images; for labels in a table type --labels .*labels.csv"):
        load(tmp_path / "flat" / "test")


def test_other_files_and_deeper_images_are_said(tmp_path):
    write(tmp_path, ("ant", "bee/inner"))
    (tmp_path / "ant" / "notes.txt").write_text("x")
    write(tmp_path, ("",), 2)
    made = load(tmp_path)
    assert says(made, "passed over, as they are no images: ")
    assert says(made, "images in folders inside of bee belong to the outer folder's class")
    assert says(made, "not used, as they lie in no class's folder: ")


@pytest.mark.parametrize("by", ["column", "folder"])
def test_a_table_brings_labels_and_splits(tmp_path, by):
    records = []
    for i in range(12):
        split = ("Train", "Train", "val", "test")[i % 4]
        place = f"{split}/{i}.png" if by == "folder" else f"{i}.png"
        (tmp_path / place).parent.mkdir(exist_ok=True)
        Image.new("L", (2, 2), i).save(tmp_path / place)
        records.append({"file_name": place, "label": 10 - i % 3} | ({"split": split} if by == "column" else {}))
    Image.new("L", (2, 2), 99).save(tmp_path / "unlisted.png")
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, records)))
    made = load(tmp_path, labels=tmp_path / "t.jsonl")
    assert sizes(made) == {"train": 6, "val": 3, "test": 3}
    assert made.classes == ("8", "9", "10")
    for split in made.splits.values():
        for x, y in split:
            assert y.tolist() == [2 - level % 3 for level in (x[:, 0, 0, 0] * 255).round().int().tolist()]
    assert says(made, "not used, as they have no label: ")


def test_broken_images_are_passed_over_when_asked_and_counted_nowhere(tmp_path):
    write(tmp_path)
    (tmp_path / "ant" / "0_1.png").write_bytes(b"x")
    with pytest.raises(UserError, match=r"0_1.png: expected an image"):
        load(tmp_path)
    made = load(tmp_path, skip_broken=True, test_only=True)
    assert len(made.test) == 11
    assert says(made, "all 11 images")
    assert says(made, "passed over, as they cannot be decoded")


def test_a_list_of_classes_puts_labels_in_its_order_in_every_split(tmp_path):
    write(tmp_path / "train", ("ant", "cat"))
    write(tmp_path / "test", ("cat",), first=100)
    made = load(tmp_path, classes=["dog", "cat", "bee", "ant"])
    assert made.classes == ("dog", "cat", "bee", "ant")
    assert set(made.test.y.tolist()) == {1}
    assert set(made.train.y.tolist()) == {1, 3}
    assert made.ordered
    assert not load(tmp_path).ordered
