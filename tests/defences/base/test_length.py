"""A training that ends before its method is what was asked for is refused; a shorter one waits for less."""

import inspect

import pytest

from buttress import fit, registry
from buttress.data.sets.moons import moons
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.defences.awp import AWP
from buttress.defences.base.length import check_length, for_share
from buttress.defences.eps_warmup import EpsWarmup
from buttress.defences.layer_regularised import LayerRegularised
from buttress.errors import UserError

KINDS = {name: registry.defence.get(name) for name in registry.defence.names()}
WAITING = {name: kind for name, kind in KINDS.items() if kind.rises or kind.begins}


def test_every_setting_that_waits_is_told():
    """By their names, so that a new method with a warm-up says what it is."""
    for name, kind in KINDS.items():
        settings = {p for p in inspect.signature(kind.__init__).parameters if p == "warmup"}
        assert settings <= {*kind.rises, *kind.begins}, name


@pytest.mark.parametrize("name", WAITING)
def test_what_never_comes_is_refused_by_its_name(name):
    kind = WAITING[name]
    for setting in (*kind.rises, *kind.begins):
        for defaults in (True, False):
            with pytest.raises(UserError, match=f"{setting} 7 is longer than the training, which ends after 6"):
                check_length(kind(**{setting: 7.0}), 6, defaults=defaults)
        if setting in kind.begins:
            with pytest.raises(UserError, match=f"{setting} 7 leaves it no epoch of 7: give less, or more epochs"):
                check_length(kind(**{setting: 7.0}), 7)
        check_length(kind(**{setting: 7.0}), 8)
        check_length(kind(), 1, defaults=False)
        assert getattr(for_share(kind(**{setting: 8.0}), 0.25), setting) == 2


def test_methods_inside_are_asked_too_and_shortened_too():
    inside = AWP(EpsWarmup(AdversarialTraining(), epochs=4.0), warmup=2.0)
    with pytest.raises(UserError, match="epochs 4 is longer than the training, which ends after 3"):
        check_length(inside, 3)
    half = for_share(inside, 0.5)
    assert (half.warmup, half.base.epochs) == (1, 2)
    check_length(half, 3)


def test_training_refuses_it_before_it_begins(nets):
    data, network = moons(samples=20, val=4, test=4), nets.linear([[1.0, 0.0], [0.0, 1.0]])
    with pytest.raises(UserError, match="warmup 5 is longer than the training, which ends after 2"):
        fit(network, data, LayerRegularised(warmup=5.0), epochs=2)
