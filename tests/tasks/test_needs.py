"""What is no task is refused in one line by whatever takes one."""

import inspect

import pytest
import torch
from torch import nn

from buttress import audits, layers, registry, tasks
from buttress.attacks import PGD
from buttress.errors import UserError
from buttress.layers import saliency
from buttress.training import fit

X, Y = torch.full((2, 1, 4, 4), 0.5), torch.tensor([0, 1])
NET = nn.Sequential(nn.Flatten(), nn.Linear(16, 2), nn.ReLU())
ATTACK = PGD(steps=1)
CALLS = {
    "an attack": lambda task: ATTACK(NET, X, Y, task=task),
    "craft": lambda task: ATTACK.craft(NET, X, Y, task=task),
    "audits.run": lambda task: audits.run(NET, [(X, Y)], [audits.Robustness()], task=task),
    "audits.evaluate": lambda task: audits.evaluate(NET, [(X, Y)], ATTACK, task=task),
    "fit": lambda task: fit(NET, None, task=task),
    "sustainability": lambda task: layers.sustainability(NET, [(X, Y)], ATTACK, task=task),
    "tolerance": lambda task: layers.tolerance(NET, [(X, Y)], ATTACK, task=task),
    "patching": lambda task: layers.patching(NET, [(X, Y)], ATTACK, task=task),
    "crossed_by_every_path": lambda task: layers.crossed_by_every_path(NET, X, task=task),
    "occlusion": lambda task: saliency.occlusion(NET, X, Y, task=task),
    "input_gradients": lambda task: saliency.input_gradients(NET, X, Y, task=task),
    "deletion": lambda task: saliency.deletion(NET, X, Y, X[:, 0], task=task),
}


class Own(tasks.Regression):
    """Of a user's own file."""


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("task", "line"),
    [
        ("multi-label", "got 'multi-label': use tasks.MultiLabel()"),
        ("multilabel", "got 'multilabel'; did you mean 'multi-label'?"),
        (tasks.MultiLabel, "got MultiLabel: use tasks.MultiLabel()"),
        (Own, "got Own: use Own()"),
        (None, "got None"),
        (dict, "got dict"),
    ],
    ids=str,
)
def test_it_is_refused_with_what_to_type(call, task, line):
    with pytest.raises(UserError) as refusal:
        CALLS[call](task)
    assert str(refusal.value).startswith("task must be a task, such as tasks.MultiLabel(); ")
    assert str(refusal.value).endswith(line)


@pytest.mark.parametrize("name", registry.task.names())
def test_what_it_says_makes_the_task_of_that_name(name):
    with pytest.raises(UserError) as refusal:
        tasks.require_task(name)
    made = eval(str(refusal.value).rpartition("use ")[2], {"tasks": tasks})
    assert made.label() == name
    tasks.require_task(made)


def test_every_public_call_of_layers_with_a_task_is_tried():
    functions = [vars(layers)[name] for name in layers.__all__]
    functions += [
        member for member in vars(saliency).values() if getattr(member, "__module__", "") == saliency.__name__
    ]
    public = [f for f in functions if inspect.isfunction(f) and not f.__name__.startswith("_")]
    assert {f.__name__ for f in public if "task" in inspect.signature(f).parameters} <= CALLS.keys()
