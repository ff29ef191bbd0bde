import json

import pytest

from buttress.data.images.label_table import read_label_table
from buttress.errors import UserError


@pytest.fixture
def root(tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / "images" / name).write_bytes(b"x")
    return tmp_path


def rows(root, file, text):
    (root / file).write_text(text, encoding="utf-8")
    return [(path.name, label, split) for path, label, split in read_label_table(root / file, root).rows]


RECORDS = [{"file": "images/a.png", "label": "cat"}, {"file": "images/b.png", "label": "dog"}]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("t.csv", "file,label\nimages/a.png,cat\nimages/b.png,dog\n"),
        ("t.csv", "\ufefffilename;class\r\na.png;cat\r\nb.png;dog\r\n"),
        ("t.csv", "index,Label,Image Path\n0,cat,a\n1,dog,b\n"),
        ("t.tsv", "target\tfile_name\ncat\ta.png\ndog\timages/b.png\n"),
        ("t.csv", 'id,label\n"a","cat"\n"b","dog"\n'),
        ("t.jsonl", "\n".join(json.dumps(record) for record in RECORDS)),
        ("t.json", json.dumps(RECORDS)),
    ],
)
def test_columns_are_known_by_name_and_images_by_path_name_or_stem(root, file, text):
    assert rows(root, file, text) == [("a.png", "cat", None), ("b.png", "dog", None)]


def test_numbers_and_splits(root):
    text = "file,label,split\na.png,1.0,Train\nb.png,0.0,valid\nc.png,2.0,TEST\n"
    assert rows(root, "t.csv", text) == [("a.png", "1", "Train"), ("b.png", "0", "valid"), ("c.png", "2", "TEST")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected rows"),
        ("file,label\n", "expected rows"),
        ("a.png,cat\nb.png,dog\n", "expected a column of images"),
        ("file,name\na.png,cat\n", "expected a column of labels"),
        ("file,label\nz.png,cat\n", r"line 2: expected one image 'z.png' in .*, got none"),
        ("file,label\na.png,\n", "line 2: expected one name or number in column 'label'"),
        ("file,label\na.png,cat\na,dog\n", "line 3: expected each image once"),
        ("file,label,split\na.png,cat,somewhere\n", "expected splits such as train, val and test, got 'somewhere'"),
        ("file,label,split\na.png,cat,val\nb.png,cat,valid\n", "both stand for val"),
    ],
)
def test_what_is_wrong_in_a_table_is_said_with_its_line(root, text, message):
    with pytest.raises(UserError, match=message):
        rows(root, "t.csv", text)


@pytest.mark.parametrize(
    ("column", "yes", "no"),
    [("is_train", "train", "test"), ("is_valid", "val", "train"), ("isTest", "test", "train")],
)
def test_columns_of_yes_and_no_are_splits(root, column, yes, no):
    assert rows(root, "t.csv", f"file,label,{column}\na,0,1\nb,1,0\nc,1,False\n") == [
        ("a.png", "0", yes),
        ("b.png", "1", no),
        ("c.png", "1", no),
    ]
    records = [{"file": "a", "label": 1, column: True}, {"file": "b", "label": 0, column: False}]
    assert [row[2] for row in rows(root, "t.json", json.dumps(records))] == [yes, no]
    with pytest.raises(UserError, match=f"line 2: expected 1 or 0 in column '{column}', got '7'"):
        rows(root, "t.csv", f"file,label,{column}\na,0,7\n")


def test_a_name_that_occurs_twice_needs_its_folder(root):
    (root / "other").mkdir()
    (root / "other" / "a.png").write_bytes(b"x")
    with pytest.raises(UserError, match=r"expected one image 'a.png' in .*, got 2"):
        rows(root, "t.csv", "file,label\na.png,cat\n")
    assert rows(root, "t.csv", "file,label\nother/a.png,cat\n") == [("a.png", "cat", None)]


def test_a_table_that_cannot_be_read_is_named(root):
    with pytest.raises(UserError, match=r"none.csv: expected a table of labels"):
        read_label_table(root / "none.csv", root)
    with pytest.raises(UserError, match=r"t.jsonl: expected a table of labels"):
        rows(root, "t.jsonl", "{")
