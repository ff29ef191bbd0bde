"""A claim's networks are trained as the command train would."""

from pathlib import Path

import torch

from buttress.claims.setup_training import load
from buttress.claims.setup_training import train as train_setup
from buttress.config.reading import build
from buttress.defences import Defence
from buttress.jobs import Network, Source, Training, train

SETUP = {
    "source": {"data": "moons", "data_args": {"samples": 60, "test": 20}},
    "architecture": {"model": "mlp"},
    "training": {"epochs": 1, "keep": "last"},
}
TREE = {"name": "at", "attack": {"name": "pgd", "steps": 2}}


def test_an_attack_without_a_threat_attacks_in_the_box_of_the_data(tmp_path: Path):
    """The inputs of moons are outside the usual box."""
    claim, _ = train_setup(SETUP, TREE, load(SETUP["source"], None, 3), 3)
    job = train(
        tmp_path / "run",
        source=build(Source, SETUP["source"]),
        architecture=build(Network, SETUP["architecture"]),
        defence=build(Defence, TREE),
        training=build(Training, SETUP["training"]),
        seed=3,
    )
    assert job is not None
    weights = claim.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in job.model.state_dict().items())
