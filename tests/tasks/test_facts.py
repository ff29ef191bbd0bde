"""A task as plain data, and back."""

import json

import pytest

from buttress import registry, tasks
from buttress.errors import UserError


@pytest.mark.parametrize("name", registry.task.names())
def test_it_comes_back_equal(name):
    task = registry.task.get(name)()
    assert tasks.task_of(json.loads(json.dumps(tasks.task_facts(task)))) == task
    assert task.label() == name
    assert task.resolve(task.loss).value is not None


def test_settings_come_back_and_classification_is_not_named():
    assert tasks.task_facts(tasks.classification) == {}
    assert tasks.task_of(tasks.task_facts(tasks.MultiLabel(wrong="all"))) == tasks.MultiLabel(wrong="all")


def test_what_cannot_be_made_again_is_refused():
    with pytest.raises(UserError, match="the run's task cannot be made again"):
        tasks.task_of({"task": {"name": "regression", "colour": 1}})
