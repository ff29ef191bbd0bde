"""What the environments that torchrun and Slurm's srun make say of a process."""

import pytest

from buttress.errors import UserError
from buttress.started import Started, forget, started

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "x",
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
}
SRUN = {
    "SLURM_STEP_NUM_TASKS": "6",
    "SLURM_NTASKS": "6",
    "SLURM_PROCID": "4",
    "SLURM_LOCALID": "1",
    "SLURM_NTASKS_PER_NODE": "3",
    "SLURM_NNODES": "2",
}


@pytest.fixture
def environment(monkeypatch):
    """Only these variables of the two."""
    for name in TORCHRUN | SRUN | {"SLURM_JOB_NAME": ""}:
        monkeypatch.delenv(name, raising=False)

    def make(values):
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return make


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, None),
        (TORCHRUN, Started("torchrun", rank=5, count=8, local_rank=1, here=4, hosts=2)),
        (TORCHRUN | {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}, None),
        (SRUN, Started("srun", rank=4, count=6, local_rank=1, here=3, hosts=2)),
        (SRUN | TORCHRUN, Started("torchrun", rank=5, count=8, local_rank=1, here=4, hosts=2)),
        (SRUN | {"SLURM_STEP_NUM_TASKS": "1"}, None),
        (SRUN | {"SLURM_JOB_NAME": "interactive"}, None),
        ({name: value for name, value in SRUN.items() if "STEP" not in name}, None),  # the batch script itself
    ],
)
def test_what_started_a_process(environment, values, expected):
    environment(values)
    assert started() == expected


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (
            SRUN | {"SLURM_PROCID": "four"},
            "SLURM_PROCID must be a whole number, as torchrun and srun set it; got 'four'",
        ),
        ({name: value for name, value in SRUN.items() if "PER" not in name}, "srun --ntasks-per-node="),
    ],
)
def test_environments_that_say_too_little_are_refused(environment, values, line):
    environment(values)
    with pytest.raises(UserError, match=line):
        started()


def test_what_a_forgetful_process_starts_is_alone_too(environment):
    environment(TORCHRUN | SRUN)
    forget()
    assert started() is None
