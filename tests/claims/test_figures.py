"""What else a table may measure and ask for: figures of audits, differences of a size, claims without numbers."""

import pytest
from scipy.stats import spearmanr

from buttress.claims import jobs
from buttress.claims.document_tables import figures
from buttress.claims.jobs import run_job
from buttress.claims.recipe import Claim
from buttress.claims.seed_statistics import paired_difference
from buttress.claims.table import Table
from buttress.errors import UserError

FOUND = {  # by row: accuracies of two seeds at eps 0 and 0.2, and two figures
    "plain": [([90.0, 10.0], 1.0, "suspect"), ([92.0, 12.0], 3.0, "suspect")],
    "AT": [([85.0, 50.0], 5.0, "trustworthy"), ([86.0, 54.0], 8.0, "suspect")],
}
DEFENCES = {"standard": "plain", "at": "AT"}


class Finished:
    """Work that has been done: each job is looked up."""

    def run(self, jobs, title):
        return [self.result(*FOUND[DEFENCES[job["defence"]]][job["seed"]]) for job in jobs]

    def result(self, accuracy, number, text):
        result = {"accuracy": {"PGD": accuracy}, "figures": {"size": number, "trust": text}}
        return {**result, "seconds": {"training": 1.0, "measuring": 1.0}}


def judge(*checks, **experiment):
    rows = [{"name": name, "defence": defence} for defence, name in DEFENCES.items()]
    figures = {"size": {"audit": "weights", "path": "a"}, "trust": {"audit": "masking", "path": "verdict"}}
    attacks = [{"attack": {"name": "pgd", "steps": steps}} for steps in (20, 40)]
    settings = {
        "setups": {"A": {}},
        "eps": [0, 0.2],
        "attacks": attacks,
        "rows": rows,
        "figures": figures,
        **experiment,
    }
    return Table(Claim(source="s", statement="s", kind="table", checks=list(checks)), settings, 2, Finished()).run()


def test_a_text_is_not_compared():
    with pytest.raises(UserError, match="'trust' is no number but a text"):
        judge({"better": "AT", "than": "plain", "figure": "trust"})


@pytest.mark.parametrize(
    ("by", "verdict", "statement"),
    [
        (0, "reproduced", "AT better than plain (accuracy at eps 0.2)"),
        (20, "reproduced", "AT at least 20 above plain (accuracy at eps 0.2)"),
        (40, "direction only", "AT at least 40 above plain (accuracy at eps 0.2)"),
        (42, "not reproduced", "AT at least 42 above plain (accuracy at eps 0.2)"),
    ],
)
def test_a_difference_of_a_size(by, verdict, statement):
    """The differences are 40 and 42 points: 41 with an interval of 12.7 standard errors, from 28.3 to 53.7."""
    (check,) = judge({"better": "AT", "than": "plain", "at": 0.2, "by": by})["checks"]
    assert check["statement"] == statement
    assert check["under"]["PGD"]["verdict"] == verdict
    assert check["under"]["PGD"]["seeds"] == [40.0, 42.0]  # as measured, whatever was asked for
    assert check["published"] is None


@pytest.mark.parametrize(("by", "verdict"), [(-20, "reproduced"), (-6, "direction only"), (-5, "not reproduced")])
def test_what_may_be_lost(by, verdict):
    """AT loses 5 and 6 points of clean accuracy: 5.5, from 11.9 to -0.9."""
    (check,) = judge({"better": "AT", "than": "plain", "at": 0, "by": by})["checks"]
    assert check["statement"] == f"AT at most {-by} below plain (accuracy at eps 0)"
    assert check["under"]["PGD"]["verdict"] == verdict


def test_figures_are_summed_up_and_checked():
    result = judge({"better": "AT", "than": "plain", "figure": "size"})
    (check,) = result["checks"]
    assert check["under"]["PGD"]["seeds"] == [4.0, 5.0]
    assert check["under"]["PGD"]["verdict"] == "direction only"  # 4.5 +- 6.4
    rows = {row["name"]: row["figures"] for row in result["rows"]}
    assert rows["plain"]["size"]["mean"] == 2.0
    assert rows["AT"]["trust"] == {"values": ["trustworthy", "suspect"]}
    page = figures(result)
    assert "| training | size | trust |" in page
    assert "| plain | 2.0 ± 1.41 | suspect (2 of 2) |" in page
    assert "trustworthy (1 of 2), suspect (1 of 2)" in page


@pytest.mark.parametrize(
    ("above", "verdict"), [(-15, "reproduced"), (6, "direction only"), (6.5, "not reproduced"), (7, "not reproduced")]
)
def test_a_figure_of_one_row_above_a_number(above, verdict):
    """It is 5 and 8: 6.5 +- 19.06, by Student's t with one degree of freedom."""
    (check,) = judge({"row": "AT", "figure": "size", "above": above})["checks"]
    assert check["statement"] == f"AT above {above} (size; differences are from that)"
    assert check["under"]["PGD"]["seeds"] == [5.0 - above, 8.0 - above]
    assert check["under"]["PGD"]["high"] - check["under"]["PGD"]["mean"] == pytest.approx(12.7062 * 1.5, abs=1e-3)
    assert check["under"]["PGD"]["verdict"] == verdict


def test_a_difference_under_one_attack_is_the_same_in_each_column():
    """Under the first attack AT has 50 and 54 where plain has 10 and 12, under the second 7 less."""

    class Two(Finished):
        def result(self, accuracy, number, text):
            result = super().result(accuracy, number, text)
            return {
                **result,
                "accuracy": {"FGSM": accuracy, "PGD-40": [accuracy[0], accuracy[1] - 7 * (accuracy[1] > 40)]},
            }

    rows = [{"name": name, "defence": defence} for defence, name in DEFENCES.items()]
    attacks = [{"attack": "fgsm"}, {"attack": {"name": "pgd", "steps": 40}}]
    settings = {"setups": {"A": {}}, "eps": [0, 0.2], "attacks": attacks, "rows": rows}
    check = {"better": "AT", "than": "plain", "at": 0.2}
    checks = [check, {**check, "under": "FGSM"}, {**check, "under": "PGD-40", "by": 40}]
    all_, first, second = Table(
        Claim(source="s", statement="s", kind="table", checks=checks), settings, 2, Two()
    ).run()["checks"]
    assert [result["mean"] for result in all_["under"].values()] == [41.0, 34.0]
    assert [result["mean"] for result in first["under"].values()] == [41.0, 41.0]
    assert [result["verdict"] for result in second["under"].values()] == ["not reproduced"] * 2
    assert second["statement"] == "AT at least 40 above plain (accuracy at eps 0.2, PGD-40)"


def test_the_accuracy_of_one_row_above_a_number():
    """It is 50 and 54: 2 +- 25.4 above 50."""
    (check,) = judge({"row": "AT", "at": 0.2, "above": 50})["checks"]
    assert check["statement"] == "AT above 50 (accuracy at eps 0.2; differences are from that)"
    assert check["under"]["PGD"]["seeds"] == [0.0, 4.0]
    assert check["under"]["PGD"]["verdict"] == "direction only"


def test_what_a_row_has_in_appearance_only():
    """One attack leaves 50 and 54, the other 44 and 46: 7 points less, or 2 +- 12.7 above 5."""

    class Two(Finished):
        def result(self, accuracy, number, text):
            outcome = super().result(accuracy, number, text)
            outcome["accuracy"]["PGD-40"] = [accuracy[0], {50.0: 44.0, 54.0: 46.0}.get(accuracy[1], 0.0)]
            outcome["accuracy"]["PGD-20"] = outcome["accuracy"].pop("PGD")
            return outcome

    attacks = [{"attack": {"name": "pgd", "steps": steps}} for steps in (20, 40)]
    check = {"row": "AT", "at": 0.2, "attacks": ["PGD-20", "PGD-40"], "above": 5}
    rows = [{"name": name, "defence": defence} for defence, name in DEFENCES.items()]
    settings = {"setups": {"A": {}}, "eps": [0, 0.2], "attacks": attacks, "rows": rows}
    claim = Claim(source="s", statement="s", kind="table", checks=[check])
    (outcome,) = Table(claim, settings, 2, Two()).run()["checks"]
    assert outcome["statement"] == "AT above 5 (accuracy at eps 0.2, PGD-20 less PGD-40; differences are from that)"
    assert outcome["under"]["PGD-40"]["seeds"] == [1.0, 3.0]
    assert outcome["under"]["PGD-40"]["verdict"] == "direction only"


RANKED = {  # by row, of two seeds: size, and what is to rise with it
    "standard": [(1.0, 10.0), (1.0, 30.0)],
    "at": [(2.0, 20.0), (2.0, 20.0)],
    "trades": [(2.0, 40.0), (3.0, 10.0)],
    "mart": [(5.0, 30.0), (4.0, 40.0)],
}


def ranked(check, values=RANKED):
    class Ranked:
        def run(self, jobs, title):
            return [self.result(*values[job["defence"]][job["seed"]]) for job in jobs]

        def result(self, size, other):
            figures = {"size": size, "other": other}
            return {"accuracy": {"PGD": [90.0, 50.0]}, "figures": figures, "seconds": {"training": 1.0}}

    rows = [{"name": name, "defence": name} for name in values]
    audits = {name: {"audit": "weights", "path": "a"} for name in ("size", "other")}
    settings = {"setups": {"A": {}}, "eps": [0, 0.2], "attacks": [], "rows": rows, "figures": audits}
    return Table(Claim(source="s", statement="s", kind="table", checks=[check]), settings, 2, Ranked()).run()


def test_figures_that_go_together_over_rows():
    """Spearman's correlation of each seed, ties included, against scipy's."""
    (check,) = ranked({"across": list(RANKED), "figure": "size", "rises": "other"})["checks"]
    pairs = [list(zip(*(values[seed] for values in RANKED.values()), strict=True)) for seed in (0, 1)]
    expected = [float(spearmanr(*pair).statistic) for pair in pairs]
    assert check["under"]["PGD"]["seeds"] == pytest.approx(expected)
    assert check["under"]["PGD"]["verdict"] == "direction only"
    assert check["statement"] == "other rises with size (rank correlation over 4 rows)"
    (less,) = ranked({"across": ["standard", "at", "mart"], "figure": "size", "rises": "other"})["checks"]
    assert less["under"]["PGD"]["seeds"] == [1.0, 0.5]


def test_pairs_of_rows_are_judged_by_their_mean_difference():
    """Three networks by two methods: of each seed the mean of three differences, whose interval is that of two."""
    accuracies = {
        "at": (50, 54),
        "trades": (40, 40),
        "mart": (60, 61),
        "standard": (49, 50),
        "free": (42, 40),
        "alp": (57, 60),
    }

    class Fixed:
        def run(self, jobs, title):
            return [
                {
                    "accuracy": {"PGD": [90.0, float(accuracies[job["defence"]][job["seed"]])]},
                    "seconds": {"training": 1.0},
                }
                for job in jobs
            ]

    rows = [{"name": name, "defence": name} for name in accuracies]
    settings = {"setups": {"one": {}}, "eps": [0, 0.2], "attacks": [], "rows": rows}
    check = {"pairs": [["at", "standard"], ["trades", "free"], ["mart", "alp"]], "at": 0.2}
    (outcome,) = Table(Claim(source="s", statement="s", kind="table", checks=[check]), settings, 2, Fixed()).run()[
        "checks"
    ]
    assert (
        outcome["statement"]
        == "at, trades, mart better than standard, free, alp (accuracy at eps 0.2, the mean of 3 differences)"
    )
    seeds = [(1 - 2 + 3) / 3, (4 + 0 + 1) / 3]
    expected = paired_difference([round(value, 9) for value in seeds])
    assert outcome["under"] == {"PGD": {**expected, "verdict": "direction only"}}


def test_what_is_the_same_in_all_rows_goes_with_nothing():
    same = {name: [(1.0, other) for _, other in values] for name, values in RANKED.items()}
    (check,) = ranked({"across": list(same), "figure": "size", "rises": "other"}, same)["checks"]
    assert check["under"]["PGD"]["seeds"] == [0.0, 0.0]
    assert check["under"]["PGD"]["verdict"] == "not reproduced"


def test_a_figure_goes_with_the_passes():
    """Standard training has 2 passes, PGD-10 22, TRADES and MART more."""
    (check,) = ranked({"across": ["standard", "at", "trades"], "figure": "passes", "rises": "size"})["checks"]
    assert check["under"]["PGD"]["seeds"] == [0.866025404, 1.0]


def test_a_figure_of_some_rows():
    class Told(Finished):
        def run(self, jobs, title):
            self.asked = {job["defence"]: sorted(job["figures"]) for job in jobs if "figures" in job}
            table = super().run(jobs, title)
            for job, result in zip(jobs, table, strict=True):
                result["figures"] = {key: result["figures"][key] for key in job.get("figures", {})}
            return table

    figures_asked = {"size": {"audit": "weights", "path": "a", "rows": ["AT"]}}
    settings = {"setups": {"A": {}}, "eps": [0, 0.2], "attacks": [], "figures": figures_asked}
    rows = [{"name": name, "defence": defence} for defence, name in DEFENCES.items()]
    check = {"row": "AT", "figure": "size", "above": 0}
    claim, work = Claim(source="s", statement="s", kind="table", checks=[check]), Told()
    table = Table(claim, {**settings, "rows": rows}, 2, work).run()
    assert work.asked == {"at": ["size"]}
    assert "| plain | - |" in figures(table)
    assert "| AT | 6.5 ± 2.1 |" in figures(table)


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ("hello", "a mapping of better, than.* was expected; got 'hello'"),
        ({"better": ["AT"], "than": "plain", "at": 0}, r"better must be a name; got \['AT'\]"),
        ({"better": "AT", "than": "plain", "at": 0, "bye": 3}, "no entry 'bye'; did you mean 'by'"),
        ({"better": "AT", "than": "plain"}, "each needs better, than and at or figure"),
        ({"better": "AT", "at": 0}, "each needs better, than and at or figure"),
        ({"better": "AT", "than": "plain", "at": 0, "figure": "size"}, "each needs"),
        ({"better": "AT", "than": "plain", "at": 0, "above": 3}, "each needs"),
        ({"better": "AT", "than": "plain", "at": 0.3}, "at must be one of R&G, 0, 0.2; got 0.3"),
        ({"better": "AT", "than": "plain", "figure": "sise"}, "no figure 'sise'; did you mean 'size'"),
        ({"better": "AT", "than": "plain", "at": 0, "by": float("nan")}, "by must be a finite number; got nan"),
        ({"better": "AT", "than": "plain", "at": 0.2, "under": "FGSM-2"}, "no attack 'FGSM-2'"),
        ({"better": "AT", "than": "plain", "figure": "size", "under": "FGSM"}, "under is for the accuracies"),
        ({"row": "AT", "at": 0.2, "above": 1, "under": "FGSM"}, "under is for the accuracies"),
        ({"row": "AT", "figure": "size"}, "each needs .*row, figure or at, and above"),
        ({"row": "AT", "than": "plain", "figure": "size", "above": 1}, "each needs"),
        ({"row": "AT", "figure": "size", "above": "1"}, "above must be a finite number; got '1'"),
        ({"row": "TA", "figure": "size", "above": 1}, "no row 'TA'"),
        ({"across": ["AT", "plain"], "figure": "size", "rises": "size"}, "each needs .*across, figure and rises"),
        ({"across": ["AT", "plain", "AT"], "figure": "size", "rises": "size"}, "each needs"),
        ({"across": ["AT", "plain", "TA"], "figure": "size", "rises": "size"}, "no row 'TA'"),
        ({"across": ["AT", "plain", "x"], "figure": "size", "rises": "size", "above": 0}, "each needs"),
        ({"better": "AT", "than": "plain", "at": 0, "rises": "size"}, "each needs"),
        ({"pairs": [["AT", "plain"]], "at": 0}, "each needs .*pairs and at"),
        ({"pairs": [["AT", "plain"], ["AT"]], "at": 0}, "each needs"),
        ({"pairs": [["AT", "plain"], ["AT", "plain"]]}, "each needs"),
        ({"pairs": [["AT", "plain"], ["AT", "plain"]], "at": 0, "by": 3}, "each needs"),
        ({"pairs": [["AT", "plain"], ["AT", "TA"]], "at": 0}, "no row 'TA'"),
        ({"pairs": "AT", "at": 0}, "each needs"),
        ({"row": "AT", "at": 0, "attacks": ["PGD"], "above": 1}, "each needs"),
        ({"row": "AT", "at": 0.2, "attacks": ["PGD-20", "PGD-400"], "above": 1}, "no attack 'PGD-400'.*'PGD-40'"),
    ],
)
def test_wrong_checks_are_answered_before_anything_runs(check, message):
    with pytest.raises(UserError, match=message):
        judge(check)


@pytest.mark.parametrize(
    ("rows", "message"), [(["TA"], "no row 'TA'"), (["plain"], "'size' is not measured of 'AT': its rows are plain")]
)
def test_wrong_rows_of_a_figure_are_answered_before_anything_runs(rows, message):
    figures = {"size": {"audit": "weights", "path": "a", "rows": rows}}
    with pytest.raises(UserError, match=message):
        judge({"better": "AT", "than": "plain", "figure": "size"}, figures=figures)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": [{"name": "plain", "defence": "standard"}, {"name": "AT", "defence": "att"}]}, "'att'"),
        ({"rows": [{"name": "plain", "defence": "standard"}, {"name": ["AT"], "defence": "at"}]}, "must be a text"),
        ({"setups": {"A": {"training": {"monitors": ["early-stoping"]}}}}, "'early-stoping'"),
        ({"figures": {"size": {"audit": "weight", "path": "a"}}}, "'weight'"),
        ({"figures": {"size": {"audit": "weights", "path": 3}}}, "path must be a text; got 3"),
    ],
)
def test_what_no_job_could_build_is_answered_before_anything_runs(changes, message):
    with pytest.raises(UserError, match=message):
        judge({"better": "AT", "than": "plain", "at": 0}, **changes)


def test_a_wrong_figure_is_answered_before_anything_runs():
    with pytest.raises(UserError, match="size: there is no entry 'paht'; did you mean 'path'"):
        judge({"better": "AT", "than": "plain", "at": 0}, figures={"size": {"audit": "weights", "paht": "a"}})


def job(path, times=1.0):
    moons = {"source": {"data": "moons", "data_args": {"samples": 64, "val": 16, "test": 40}}}
    question = {"name": "robustness", "attacks": [{"name": "pgd", "steps": 2}], "eps": [0.0, 0.1]}
    return {
        "setup": {**moons, "architecture": {"model": "lsa-a"}, "training": {"epochs": 1, "keep": "last"}},
        "defence": "standard",
        "seed": 0,
        "split": "test",
        "accuracy": {"eps": [0, 0.1], "attacks": [{"attack": {"name": "pgd", "steps": 2}}]},
        "figures": {"asked": {"audit": question, "path": path, "times": times, "inputs": 20}},
    }


def test_a_figure_is_read_from_the_finding():
    assert run_job(job("inputs"), None)["figures"] == {"asked": 20.0}
    assert run_job(job("main_eps", times=100), None)["figures"] == {"asked": pytest.approx(10.0)}
    assert run_job(job("same_inputs"), None)["figures"]["asked"].isalnum()
    assert run_job(job("attacks.0.label"), None)["figures"]["asked"] == "PGD-2"


def test_figures_of_one_audit_ask_it_once(monkeypatch):
    template, runs = job("inputs"), []
    plain = jobs.audits.run
    monkeypatch.setattr(jobs.audits, "run", lambda *about, **s: runs.append(s["limit"]) or plain(*about, **s))
    first = template["figures"]["asked"]
    more = {"eps": {**first, "path": "main_eps"}, "fewer": {**first, "inputs": 10}}
    figures = run_job({**template, "figures": {**template["figures"], **more}}, None)["figures"]
    assert figures == {"asked": 20.0, "eps": 0.1, "fewer": 10.0}
    assert runs == [None, 20, 10]  # the table's attack, and two audits for three figures


def test_a_figure_of_networks_without_a_class(monkeypatch):
    """For each class one is trained, on the data without it, once for all figures of the audit."""
    trained, plain = [], jobs.train
    monkeypatch.setattr(jobs, "train", lambda *about: trained.append(about[2].classes) or plain(*about))
    homing = {"audit": {"name": "homing", "attack": {"name": "pgd", "steps": 2}}, "without": ["3", "8"]}
    setup = {
        "source": {"data": "digits", "limit": 60},
        "architecture": {"model": "mlp"},
        "training": {"epochs": 2, "keep": "last"},
    }
    figures = {name: {**homing, "path": path} for name, path in (("n", "inputs"), ("k", "removed.1"))}
    found = run_job({**job("inputs"), "setup": setup, "figures": figures}, None)["figures"]
    assert found == {"n": 60.0, "k": "8"}
    all_of_them = tuple(map(str, range(10)))
    assert trained == [all_of_them, all_of_them[:3] + all_of_them[4:], (*all_of_them[:8], "9")]


def test_networks_without_a_class_are_for_audits_that_take_them():
    figures = {"size": {"audit": "weights", "path": "a", "without": ["3"]}}
    with pytest.raises(UserError, match="without"):
        judge({"better": "AT", "than": "plain", "at": 0.2}, figures=figures)


def test_whether_a_monitor_fired_is_a_figure():
    """A network that cannot learn: its robust accuracy never rises, so early stopping has something to say."""
    template = job("inputs")
    calm = {"monitors": [{"name": "early-stopping", "patience": 50}]}
    loud = {"monitors": [{"name": "early-stopping", "patience": 1}], "optimiser": {"lr": 1e-12}, "epochs": 6}
    for changes, fired in ((calm, 0.0), (loud, 1.0)):
        setup = {**template["setup"], "training": {**template["setup"]["training"], **changes}}
        assert run_job({**template, "setup": setup}, None)["figures"]["monitors fired"] == fired


@pytest.mark.parametrize(
    ("path", "message"), [("imputs", "did you mean 'inputs'"), ("attacks", "no number or text"), ("inputs.a", "has no")]
)
def test_a_figure_that_is_not_there(path, message):
    with pytest.raises(UserError, match=message):
        run_job(job(path), None)
