"""Every parameter of a registered member that takes a member of a role is known by its annotation."""

import typing

import pytest

from buttress import registry
from buttress.attacks import Perturbation
from buttress.audits import Audit
from buttress.certificates import Verifier
from buttress.cli.static.members import BASES
from buttress.config.annotations import parameters, takes_several
from buttress.config.reading import read
from buttress.config.spec import specs
from buttress.defences import Defence
from buttress.training import Average
from buttress.training.monitors import Monitor

NAMES = {
    Perturbation: "fgsm",
    Defence: "standard",
    Audit: "weights",
    Monitor: "early-stopping",
    Average: "ema",
    Verifier: "crown",
}
MEMBERS = [
    registry.ROLES[role].get(name) for role in sorted(set(BASES.values())) for name in registry.ROLES[role].names()
]


def classes_in(annotation):
    """All classes in an annotation, however deep."""
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        yield annotation
    for part in typing.get_args(annotation):
        yield from classes_in(part)


FOUND = [
    (member, name, parameter, base)
    for member in MEMBERS
    for name, parameter in parameters(member).items()
    for base in NAMES
    if any(issubclass(kind, base) for kind in classes_in(parameter.annotation))
]


@pytest.mark.parametrize(
    ("parameter", "base"), [pytest.param(p, base, id=f"{m.__name__}.{name}") for m, name, p, base in FOUND]
)
def test_a_parameter_of_a_role_takes_names_of_that_role(parameter, base):
    several = takes_several(parameter.annotation)
    text = ",".join([NAMES[base]] * (2 if several else 1))
    value = read(parameter.annotation, text, ("option",))
    assert isinstance(value, list) is several
    assert [issubclass(spec.kind, base) for spec in specs(value)] == [True] * (2 if several else 1)


def test_there_are_such_parameters():
    assert {(member.__name__, name) for member, name, _, _ in FOUND} >= {
        ("Robustness", "attacks"),
        ("Unseen", "styles"),
        ("AWP", "base"),
        ("EoT", "attack"),
        ("Layers", "perturbations"),
    }


def test_help_has_the_same_base_classes():
    assert set(BASES) == {base.__name__ for base in NAMES} - {"Average"}
    for base in NAMES:
        if base is not Average:
            assert issubclass(registry.ROLES[BASES[base.__name__]].get(NAMES[base]), base)
