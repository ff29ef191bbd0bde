import json
import random

import pytest

from buttress.data.images.class_list import class_list, read_class_file
from buttress.errors import UserError


@pytest.mark.parametrize("first", [0, 1, 7])
def test_numbers_are_in_the_order_of_their_values_unless_text_order_is_asked_for(first):
    names = [str(number) for number in range(first, first + 12)]
    made = class_list(random.Random(0).sample(names, 12), None, "x")
    assert list(made.names) == names
    assert made.labels == {name: label for label, name in enumerate(names)}
    assert not made.given
    assert list(class_list(names, ["text-order"], "x").names) == sorted(names)


def test_what_orders_numbers_is_said():
    assert "type --classes text-order" in class_list(map(str, range(11)), None, "x").note
    assert "have the labels 0 to 1" in class_list(["3", "7"], None, "x").note
    assert "in the order of their names: a, b;" in class_list("ab", None, "x").note


def test_numbers_with_leading_zeros_and_equal_values_stay_apart():
    assert class_list(["1", "01", "2"], None, "x").names == ("01", "1", "2")


def test_classes_come_in_the_order_that_is_given_and_a_subset_keeps_its_labels():
    given = ["zebra", "ant", "great white", "Bee"]
    made = class_list(["bee", "great_white"], given, "x")
    assert made.names == tuple(given)
    assert made.labels == {"bee": 3, "great_white": 2}
    assert made.given
    assert "of 2 of 4 classes" in made.note
    assert "bee is 3" in made.note


def test_folders_that_are_numbers_are_positions_in_a_list_of_names_and_their_number_may_be_given():
    assert class_list(["2", "10"], [*"abcdefghijk"], "x").labels == {"2": 2, "10": 10}
    made = class_list(["2", "10"], ["12"], "x")
    assert len(made.names) == 12
    assert made.labels == {"2": 2, "10": 10}


def test_names_that_are_not_in_the_list_are_refused():
    with pytest.raises(UserError, match="cow is none of the classes given"):
        class_list(["cow", "ant"], ["ant", "bee"], "x")
    with pytest.raises(UserError, match="12 is none of the classes given"):
        class_list(["3", "12"], ["12"], "x")
    with pytest.raises(UserError, match="Ant and ant for the same one"):
        class_list(["Ant", "ant"], ["ANT", "bee"], "x")
    with pytest.raises(UserError, match="expected each class once, got ant twice"):
        class_list(["ant"], ["ant", "bee", "ant"], "x")
    with pytest.raises(UserError, match="expected a file of classes, but there is none"):
        class_list(["ant"], ["names.txt"], "x")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("plain.txt", "tench\ngoldfish\ncrane\n"),
        ("numbered.txt", "0 tench\n1 goldfish\n2 crane\n"),
        ("colons.txt", "2: crane\n0: tench\n1: goldfish\n"),
        ("list.json", json.dumps(["tench", "goldfish", "crane"])),
        ("index.json", json.dumps({"2": "crane", "0": "tench", "1": "goldfish"})),
        ("class_to_idx.json", json.dumps({"crane": 2, "tench": 0, "goldfish": 1})),
        ("imagenet.json", json.dumps({"0": ["n01", "tench"], "1": ["n02", "goldfish"], "2": ["n03", "crane"]})),
        ("LOC.txt", "n01440764 tench, Tinca tinca\nn01443537 goldfish, Carassius\nn02012849 crane\n"),
    ],
)
def test_every_form_of_a_file_gives_the_same_classes(tmp_path, file, text):
    path = tmp_path / file
    path.write_text("\ufeff" + text if file == "plain.txt" else text, encoding="utf-8")
    made = class_list(["crane", "tench"], [str(path)], "x")
    assert made.names == ("tench", "goldfish", "crane")
    assert made.labels == {"crane": 2, "tench": 0}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("c.txt", "cat 0\ndog 2\ncow 1\n"),
        ("c.txt", "cat,cow,dog\n"),
        ("c.csv", "id,name\n0,cat\n2,dog\n1,cow\n"),
        ("c.yaml", "names:\n  0: cat\n  1: cow\n  2: dog\n"),
        ("c.json", '{"model_type": "vit", "id2label": {"0": "cat", "1": "cow", "2": "dog"}}'),
    ],
)
def test_forms_of_other_tools_give_the_same_classes(tmp_path, file, text):
    (tmp_path / file).write_text(text)
    assert read_class_file(tmp_path / file) == [["cat"], ["cow"], ["dog"]]


def test_names_that_end_in_numbers_are_names(tmp_path):
    for text in ("Boeing 707\nBoeing 717\n", "type 1\ntype 2\n", "type 0\ntype 1\n"):
        (tmp_path / "c.txt").write_text(text)
        assert read_class_file(tmp_path / "c.txt") == [[line] for line in text.splitlines()]


def test_synsets_are_known_by_their_identities_and_names_that_occur_twice_are_not_mixed_up(tmp_path):
    path = tmp_path / "synsets.txt"
    path.write_text("n02012849 crane\nn03126707 crane\nn01440764 tench, Tinca tinca\n")
    made = class_list(["n03126707", "n01440764"], [str(path)], "x")
    assert made.labels == {"n03126707": 1, "n01440764": 2}
    with pytest.raises(UserError, match="has 2 of that name"):
        class_list(["crane"], [str(path)], "x")


@pytest.mark.parametrize("text", ["{}", '{"a": "b"}', '{"0": "a", "2": "b"}', "[", '["a", {}]', "3"])
def test_files_that_are_no_list_are_named(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(UserError, match=r"c\.json: expected"):
        read_class_file(tmp_path / "c.json")
