"""Help is read off the source: it says what the live signatures say, and imports no torch."""

import dataclasses
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from buttress import registry
from buttress.cli.commands import JOBS, job
from buttress.cli.static.members import BASES, names, names_of, roles
from buttress.cli.static.options import entries, job_options
from buttress.config.annotations import REQUIRED, alternatives, is_group, item_of, parameters, takes_several
from buttress.config.job_spec import job_spec
from buttress.config.roles import role_of
from buttress.config.typed_parser import parsed_text


def live(known, prefix="", over=None):
    """Each option's parameter by name, those of groups with their dots, at the defaults of the value in their place."""
    for name, parameter in known.items():
        default = parameter.default if over is None else getattr(over, name)
        groups = [kind for kind in alternatives(parameter.annotation) if is_group(kind)]
        if groups:
            shown = {f.name for f in dataclasses.fields(groups[0]) if f.repr}
            inner = {key: one for key, one in parameters(groups[0]).items() if key in shown}
            yield from live(inner, f"{prefix}{name}.", groups[0]() if default is None else default)
        else:
            yield prefix + name, dataclasses.replace(parameter, default=default)


@pytest.mark.parametrize("name", JOBS)
def test_the_options_are_those_of_the_live_job(name):
    expected = dict(live(job_spec(job(name)).known))
    options = {option.name: option for option in job_options(name)}
    assert list(options) == list(expected)
    for key, option in options.items():
        parameter = expected[key]
        kinds = alternatives(parameter.annotation)
        assert option.required is (parameter.default is REQUIRED), key
        assert option.positional is parameter.positional, key
        assert option.kind.several is takes_several(parameter.annotation), key
        assert option.text, key
        if typing.get_origin(kinds[0]) is typing.Literal:
            assert option.kind.choices == tuple(map(str, typing.get_args(kinds[0]))), key
        if len(kinds) == 1:
            simple = {int: "N", float: "X", str: "TEXT", Path: "PATH", bool: "true|false"}
            assert option.kind.value == simple.get(kinds[0], option.kind.value), key
        if option.default and option.kind.several:
            item = item_of(kinds[0])
            assert [parsed_text(item, part) for part in option.default.split(",")] == list(parameter.default), key
        elif option.default and "," in option.default:
            assert tuple(float(part) for part in option.default.split(",")) == parameter.default, key
        elif option.default and "/" in option.default and kinds == [float]:
            top, bottom = option.default.split("/")
            assert float(top) / float(bottom) == parameter.default, key
        elif option.default:
            assert parsed_text(kinds[0], option.default) == parameter.default, key
        else:
            plain = parameter.default in (REQUIRED, None, False, "", [], (), {})
            assert plain, key


def own(role):
    """The registered names of the package itself: other tests register members of a user's."""
    return [name for name in role.names() if role.get(name).__module__.startswith("buttress.")]


@pytest.mark.parametrize("role", sorted(registry.ROLES))
def test_the_names_are_those_of_the_registry(role):
    assert names(role) == own(registry.ROLES[role])


def test_names_are_those_of_the_class_that_an_option_takes():
    attacks = [name for name in own(registry.attack) if role_of(registry.attack.get(name)) is registry.attack]
    assert names_of("Perturbation", "Perturbation") == attacks
    from buttress.attacks import Attack

    with_budget = [name for name in attacks if issubclass(registry.attack.get(name), Attack)]
    assert names_of("Attack", "Perturbation") == with_budget
    assert set(BASES.values()) < set(roles())


@pytest.mark.parametrize(
    "words", ["", "--help", "--version", "list", "list --help", *(f"{name} --help" for name in JOBS)]
)
def test_help_imports_no_torch(words):
    code = (
        "import sys\nfrom buttress.cli import main\n"
        f"status = main({words.split()!r})\n"
        "assert status == 0\n"
        "heavy = {'torch', 'numpy', 'jsonargparse', 'sklearn', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_entries_of_a_docstring():
    doc = """First line.

Args:
    one: meant in
        two lines: really.
    two: short.

Returns:
    three: no argument.
"""
    assert entries(doc) == {"one": "meant in two lines: really.", "two": "short."}
    assert entries("No arguments.") == {}
