"""What Weights & Biases is told, by a fake of the calls that are made."""

from types import SimpleNamespace

import pytest

from buttress.training.loggers.wandb import WandB


class Service:
    """The package: the runs that were begun, by what they are called, and their rows by step."""

    def __init__(self):
        self.starts, self.rows, self.codes = [], {}, []

    def init(self, **options):
        self.starts.append(options)
        rows = self.rows.setdefault(options["id"], {})
        return SimpleNamespace(log=lambda row, step: rows.setdefault(step, row), finish=self.finish)

    def finish(self, exit_code):
        self.codes.append(exit_code)


@pytest.fixture
def service(package):
    service = Service()
    package("wandb", init=service.init, Settings=SimpleNamespace)
    return service


def test_a_run_has_its_settings_and_figures(service, run):
    logger = WandB(run)
    logger.write({"epoch": 1.0}, 12)
    logger.close(finished=True)
    (start,) = service.starts
    assert (start["name"], start["dir"], start["config"]) == ("runs/at", str(run.folder), run.settings())
    assert (start["reinit"], start["settings"].console) == ("create_new", "off")
    assert service.rows == {start["id"]: {12: {"epoch": 1.0}}}
    assert service.codes == [0]


def test_a_run_that_goes_on_is_the_same_run(service, run):
    WandB(run).close(finished=False)
    WandB(run).write({"epoch": 2.0}, 24)
    first, second = service.starts
    assert first["id"] == second["id"]
    assert (second["resume"], service.codes) == ("allow", [1])
