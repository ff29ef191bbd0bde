"""What verifiers prove, as accuracies of a table beside those that attacks leave."""

import copy

import pytest
import torch

from buttress import certificates
from buttress.claims.document_tables import inputs_by_attack, rows
from buttress.claims.jobs import run_job
from buttress.claims.recipe import Claim
from buttress.claims.setup_training import load, train
from buttress.claims.table import Table
from buttress.claims.verified import described
from buttress.errors import UserError
from buttress.threat import Threat

SETUP = {
    "source": {"data": "moons", "data_args": {"noise": 0.1, "samples": 96, "val": 16, "test": 40}},
    "architecture": {"model": "mlp", "model_args": {"hidden": [8]}},
    "training": {"epochs": 4, "batch_size": 16, "keep": "last", "optimiser": {"lr": 0.02}},
}
PGD = {"attack": {"name": "pgd", "steps": 3}}
VERIFIERS = [{"verifier": "ibp", "inputs": 20}, {"verifier": "crown"}]
IBP = {"name": "ibp", "threat": {"eps": 0.1, "box": None}, "rise": 0.5}
CHECK = {"better": "IBP", "than": "plain", "at": 0.1, "under": "verified by ibp"}


class Measured:
    """Work that was done: each network is verified as its attack left it, less 10 points."""

    def run(self, jobs, title):
        self.jobs = jobs
        accuracies = {"PGD-3": [90.0, 50.0], "verified by ibp": [90.0, 40.0], "verified by crown": [90.0, 40.0]}
        return [{"accuracy": accuracies, "seconds": {"training": 1.0, "measuring": 1.0}} for _ in jobs]


def table(work, check=CHECK, **changes):
    named = [{"name": "plain", "defence": "standard"}, {"name": "IBP", "defence": IBP}]
    settings = {"setups": {"A": SETUP}, "eps": [0, 0.1], "attacks": [PGD], "verifiers": VERIFIERS, "rows": named}
    claim = Claim(source="s", statement="s", kind="table", checks=[check], attack="verified by ibp")
    return Table(claim, copy.deepcopy(settings | changes), 1, work)


def test_a_job_verifies_what_certify_does_on_the_inputs_that_attacks_get():
    dataset = load(SETUP["source"], None, 0)
    model = train(SETUP, IBP, dataset, 0)[0].model
    job = {"setup": SETUP, "defence": IBP, "seed": 0, "split": "test"}
    found = run_job(job | {"accuracy": {"eps": [0, 0.1], "attacks": [PGD], "verifiers": VERIFIERS}}, None)["accuracy"]
    assert list(found) == ["PGD-3", "verified by ibp", "verified by crown"]
    for name, part in (("ibp", dataset.test.stratified(20, 0)), ("crown", dataset.test)):
        x, y, _ = part.take(torch.arange(len(part)))
        shares = [
            100 * certificates.certify(model, x, y, threat=Threat(eps=eps, box=dataset.box), method=name).verified
            for eps in (0, 0.1)
        ]
        assert found[f"verified by {name}"] == [float(share.double().mean()) for share in shares]
    assert found["verified by crown"][1] <= found["PGD-3"][1]


def test_checks_and_the_page_take_them_as_they_take_attacks():
    work = Measured()
    result = table(work).run()
    assert all(job["accuracy"]["verifiers"] == VERIFIERS for job in work.jobs)
    assert list(result["checks"][0]["under"]) == ["PGD-3", "verified by ibp", "verified by crown"]
    claim = {**result, "verdict_under": "verified by ibp"}
    assert list(inputs_by_attack(claim).values()) == [float("inf"), 20, float("inf")]
    page = rows(claim)
    assert "### Accuracy in percent under PGD-3, by eps" in page
    assert "### Accuracy in percent verified by ibp, by eps" in page


def test_a_table_without_verifiers_has_the_jobs_that_it_had():
    work = Measured()
    table(work, CHECK | {"under": ""}, verifiers=[]).run()
    assert set(work.jobs[0]["accuracy"]) == {"eps", "attacks"}


def test_attacks_and_verifiers_are_told_apart():
    assert described("FGSM", "verified by ibp", "PGD-3") == "under FGSM, PGD-3 and verified by ibp"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"verifiers": [{"verifier": "ipb"}]}, "there is no verifier 'ipb'; did you mean 'ibp'"),
        (
            {"verifiers": [{"verifier": "ibp", "input": 3}]},
            "verifiers: there is no entry 'input'; did you mean 'inputs'",
        ),
        ({"verifiers": [{"verifier": "ibp"}, {"verifier": "ibp", "inputs": 3}]}, "two give 'verified by ibp'"),
        ({"check": CHECK | {"under": "verified by bip"}}, "there is no attack 'verified by bip'"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_trained(changes, said):
    with pytest.raises(UserError, match=said):
        table(Measured(), **changes)
