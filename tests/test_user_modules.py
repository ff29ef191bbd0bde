"""Users' files see their neighbours and their package, and are found again from other directories."""

import sys

import pytest

from buttress import models
from buttress.errors import UserError
from buttress.jobs.settings import Source
from buttress.user_modules import absolute, import_thing, place_of, short


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """The path and the modules are put back: the folders of tests have files of the same names."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_a_file_sees_its_neighbours_also_when_it_runs(tmp_path, monkeypatch):
    late = "def late():\n    import late_neighbour\n    return late_neighbour.VALUE\n"
    write(tmp_path, {"code/mine_a.py": f"import neighbour_a\nTHING = neighbour_a.VALUE\n{late}"})
    write(tmp_path, {"code/neighbour_a.py": "VALUE = 3\n", "code/late_neighbour.py": "VALUE = 4\n"})
    monkeypatch.chdir(tmp_path)
    assert import_thing("code/mine_a.py:THING") == 3
    assert import_thing("code/mine_a.py:late")() == 4


@pytest.mark.parametrize("marked", [True, False])
def test_relative_imports_reach_the_files_package(marked, tmp_path):
    files = {f"package_{marked}/nets/one.py": "from ..parts import VALUE\nfrom .two import OTHER\nclass Net: pass\n"}
    files |= {f"package_{marked}/parts.py": "VALUE = 3\n", f"package_{marked}/nets/two.py": "OTHER = 4\n"}
    files |= {f"package_{marked}/{name}__init__.py": "" for name in ("", "nets/") if marked}
    write(tmp_path, files)
    file = tmp_path / f"package_{marked}" / "nets" / "one.py"
    assert import_thing(f"{file}:VALUE") + import_thing(f"{file}:OTHER") == 7
    assert place_of(import_thing(f"{file}:Net")) == str(file)


def test_neighbours_of_one_name_in_two_folders_are_never_mistaken_for_each_other(tmp_path):
    for folder, value in (("one", 1), ("two", 2)):
        write(tmp_path / folder, {"mine_b.py": "import helper_b\nV = helper_b.V\n", "helper_b.py": f"V = {value}\n"})
    assert import_thing(f"{tmp_path}/one/mine_b.py:V") == 1
    with pytest.raises(
        UserError, match=r"one/helper_b.py and its like in .*/two are both imported as 'helper_b': rename"
    ):
        import_thing(f"{tmp_path}/two/mine_b.py:V")
    (tmp_path / "two" / "alone.py").write_text("V = 3\n")
    assert import_thing(f"{tmp_path}/two/alone.py:V") == 3


def test_a_file_that_ends_the_program_is_told(tmp_path):
    (tmp_path / "script.py").write_text("import argparse\nargparse.ArgumentParser(exit_on_error=True).exit(3)\n")
    with pytest.raises(UserError, match="ends the program as it is imported: put what it runs under if __name__"):
        import_thing(f"{tmp_path}/script.py:net")


def test_references_mean_the_same_in_other_directories(tmp_path, monkeypatch):
    write(tmp_path, {"here/mine_c.py": "X = 1\n", "here/module_c.py": "X = 1\n"})
    monkeypatch.chdir(tmp_path / "here")
    import_thing("module_c:X")
    assert absolute("mine_c.py:X") == f"{tmp_path}/here/mine_c.py:X"
    assert absolute("module_c:X") == f"{tmp_path}/here/module_c.py:X"
    for other in ("collections:OrderedDict", "timm:resnet18", "cnn", "nowhere.py:X"):
        assert absolute(other) == other
    assert short(f"{tmp_path}/here/mine_c.py:X") == "mine_c.py:X"


def test_what_has_moved_is_found_below_the_working_directory_and_said(tmp_path, monkeypatch, caplog):
    write(tmp_path, {"new/code/mine_d.py": "X = 5\n"})
    monkeypatch.chdir(tmp_path / "new")
    assert import_thing("/gone/code/mine_d.py:X") == 5
    assert caplog.records[-1].getMessage() == f"/gone/code/mine_d.py is gone; {tmp_path}/new/code/mine_d.py is used"
    with pytest.raises(UserError, match=r"there is no file /gone/code/other\.py$"):
        import_thing("/gone/code/other.py:X")
    with pytest.raises(UserError, match=f"there is no file code/other.py in {tmp_path}/new$"):
        import_thing("code/other.py:X")


def test_a_model_and_data_remember_where_they_are(tmp_path, monkeypatch):
    code = "import numpy as np\nfrom torch import nn\n\n\ndef net():\n    return nn.Linear(2, 2)\n\n\n"
    code += (
        "def data():\n    x = np.eye(2, dtype=np.float32).repeat(8, 0)\n    return (x, x.argmax(1)), (x, x.argmax(1))\n"
    )
    write(tmp_path, {"mine_e.py": code, "other/mine.txt": ""})
    monkeypatch.chdir(tmp_path)
    spec = models.spec_of(models.create("mine_e.py:net"))
    dataset, facts = Source(data="mine_e.py:data").load(0)
    monkeypatch.chdir(tmp_path / "other")
    assert models.from_spec(spec).in_features == 2
    again, told = Source().load(0, {"source": facts})
    assert (again.name, told) == (dataset.name, facts) == ("mine_e.py:data", facts)
