import importlib.util

from buttress.jobs.user_code_errors import users_mistake
from buttress.random import derive


def raised(call):
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_users_line_is_named_also_below_the_standard_library(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("import json\n\ndef read():\n    return json.loads('{')\n")
    module = load(tmp_path / "mine.py")
    line = users_mistake(raised(module.read))
    assert line.startswith("mine.py, line 4, in read: JSONDecodeError: Expecting property name")


def test_a_cause_counts_too(tmp_path):
    (tmp_path / "cause.py").write_text("def fail():\n    raise KeyError('x')\n")
    module = load(tmp_path / "cause.py")

    error = ValueError("wrapped")
    error.__cause__ = raised(module.fail)
    assert users_mistake(error) == f"{tmp_path}/cause.py, line 2, in fail: KeyError: 'x'"


def test_what_our_code_raises_when_a_user_called_it_is_told_by_both_lines(tmp_path):
    (tmp_path / "caller.py").write_text("from buttress.random import derive\n\ndef call():\n    derive(object(), {})\n")
    error = raised(load(tmp_path / "caller.py").call)
    assert derive.__module__ == "buttress.random"
    line = users_mistake(error)
    assert line.startswith(
        f"{tmp_path}/caller.py, line 4, in call, in a call of buttress that failed in random.py, line "
    )


def test_syntax_errors_name_the_place(tmp_path):
    (tmp_path / "typo.py").write_text("a = 1\nb = (\n")
    line = users_mistake(raised(lambda: load(tmp_path / "typo.py")))
    assert line.startswith(f"{tmp_path}/typo.py, line 2: ")


def test_an_error_that_was_never_raised_is_nobodys():
    assert users_mistake(ValueError("never raised")) is None
