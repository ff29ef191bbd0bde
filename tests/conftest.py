"""What all tests share: the thinned run, one torch thread per process, a guard of torch's settings, tiny models."""

import copy
import gc

import pytest
import torch
from hypothesis import settings
from torch import nn

from buttress import registry
from buttress.layers import tolerance

torch.set_num_threads(1)

settings.register_profile("fast", max_examples=25, deadline=None, derandomize=True)
settings.register_profile("full", max_examples=100, deadline=None, derandomize=True)


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="every member where representatives do, and all examples")
    parser.addoption("--device", default="pretended", help="where test_devices.py computes: cuda, mps; pretended else")


def pytest_configure(config):
    for line in ("representatives(parameter=values): the cases that run without --full", "full: runs with --full only"):
        config.addinivalue_line("markers", line)
    settings.load_profile("full" if config.getoption("full") else "fast")


@pytest.hookimpl(hookwrapper=True)
def pytest_collection():
    """What collection makes lives as long as the tests: no work for the garbage collector, again and again."""
    gc.disable()
    yield
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(config, items):
    """Without --full, leave out a function's other cases where a representative of it was collected too."""
    if config.getoption("full"):
        return
    represented = {_function(item) for item in items if _is_representative(item)}
    kept, left_out = [], []
    for item in items:
        chosen = _is_representative(item) or _function(item) not in represented
        (kept if chosen and not item.get_closest_marker("full") else left_out).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=left_out)


def _function(item):
    return item.nodeid.partition("[")[0]


def _is_representative(item):
    marks = [mark.kwargs for mark in item.iter_markers("representatives")]
    return all(item.callspec.params[name] in values for kwargs in marks for name, values in kwargs.items())


@pytest.fixture(autouse=True, scope="session")
def _no_waiting_for_the_disk():
    """What is written is there for every process, and for one that was killed; only a power cut would tell."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda handle: None)
        yield


def _settings():
    return (
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.are_deterministic_algorithms_enabled(),
    )


@pytest.fixture(autouse=True)
def _registries_forget_what_a_test_registers():
    """Members of a user's own, such as those of a file that a test writes, are not there for other tests."""
    before = {role: set(registry.ROLES[role]._members) for role in registry.ROLES}
    yield
    for role, names in before.items():
        members = registry.ROLES[role]._members
        for name in members.keys() - names:
            if not members[name].__module__.startswith("buttress."):
                del members[name]


@pytest.fixture(autouse=True)
def _torch_stays_as_it_was():
    before = _settings()
    yield
    assert _settings() == before, "the test changed a global setting of torch"


@pytest.fixture
def _short_searches(monkeypatch):
    """Audits of layers search tolerances in few steps: for tests of jobs, where their numbers are not looked at."""

    def short(*args, **settings):
        return tolerance(*args, **settings | {"steps": 2, "bisections": 1})

    for audit in ("layers", "lipschitz.audit"):
        monkeypatch.setattr(f"buttress.audits.{audit}.tolerance", short)


class Nets:
    """Tiny models with weights from a seed of their own; images are 1x6x6."""

    @staticmethod
    def seeded(build, seed=0):
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            return build()

    @staticmethod
    def linear(weight, bias=None):
        """Logits ``weight @ x + bias`` of flattened inputs, in the weight's dtype."""
        weight = torch.as_tensor(weight)
        layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
        with torch.no_grad():
            layer.weight.copy_(weight)
            layer.bias.copy_(torch.zeros(len(weight)) if bias is None else torch.as_tensor(bias))
        return nn.Sequential(nn.Flatten(), layer).eval()

    @classmethod
    def conv(cls, seed=0, classes=4, dtype=torch.float32):
        """Smooth and without BatchNorm: what a reference loop computes does not hang on a tie."""

        def build():
            return nn.Sequential(
                nn.Conv2d(1, 4, 3, padding=1),
                nn.Tanh(),
                nn.Conv2d(4, 6, 3, stride=2, padding=1),
                nn.Tanh(),
                nn.Flatten(),
                nn.Linear(54, classes),
            )

        return cls.seeded(build, seed).to(dtype).eval()

    @classmethod
    def awkward(cls, inputs, seed=0, classes=4, dtype=torch.float32):
        """BatchNorm, Dropout, flags of both kinds, a frozen weight and gradients of the caller's."""

        def build():
            return nn.Sequential(
                nn.Flatten(),
                nn.Linear(inputs, 8),
                nn.BatchNorm1d(8),
                nn.ReLU(),
                nn.Sequential(nn.Dropout(0.5), nn.Linear(8, classes)),
            )

        model = cls.seeded(build, seed).to(dtype)
        model.train()
        model[2].eval()
        model[4][1].eval()
        model[1].weight.requires_grad_(False)
        model[1].bias.grad = torch.full_like(model[1].bias, 3.0)
        return model

    @staticmethod
    def state(model):
        """Everything a call must leave alone, by value, and the identity of what must stay the same object."""
        modules, parameters, buffers = list(model.modules()), list(model.parameters()), list(model.buffers())
        values = {
            "flags": [m.training for m in modules],
            "needs": [p.requires_grad for p in parameters],
            "parameters": [p.detach().clone() for p in parameters],
            "grads": [None if p.grad is None else p.grad.clone() for p in parameters],
            "buffers": [b.clone() for b in buffers],
            "random": torch.random.get_rng_state(),
        }
        return copy.deepcopy(values), [id(t) for t in (*parameters, *buffers, *(p.grad for p in parameters))]

    @classmethod
    def assert_state(cls, model, before):
        values, objects = cls.state(model)
        torch.testing.assert_close(values, before[0], rtol=0, atol=0)
        assert objects == before[1]


@pytest.fixture(scope="session")
def nets():
    return Nets
