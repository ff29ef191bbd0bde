import dataclasses
import json
import math

import pytest

from buttress.audits.base.finding import Finding, to_json
from buttress.errors import UserError
from buttress.jobs.compare import changes, class_orders, compare, field_of, headline
from buttress.jobs.trade_off import trade_off


def finding(clean, main, eps=8 / 255, norm="linf", inputs="abc", attacks=("f",), seed=0):
    data = {"inputs": len(clean), "main_eps": eps, "same_inputs": inputs, "stands": {"clean": clean, "main": main}}
    data |= {"fingerprints": list(attacks), "seed": seed}
    return Finding("robustness", "R", "", "info", {**data, "attacks": [{"norm": norm, "label": "PGD", "curve": []}]})


NONE = "There is no demonstrable gain in robust accuracy from a to b."


def exact(gained, lost):
    """McNemar's exact test: a fair coin, two-sided."""
    n = gained + lost
    few = sum(math.comb(n, k) for k in range(min(gained, lost) + 1)) / 2**n
    return min(1.0, 2 * few)


def test_accuracies_and_the_paired_test():
    before, after = finding("1111111110", "0000000110"), finding("1111111100", "1111110010")
    p = exact(6, 1)
    assert headline({"a": [before], "b": [after]}) == (
        "From a to b: clean accuracy 90.0% to 80.0%; robust accuracy 20.0% to 70.0% under linf eps 8/255 "
        f"(6 inputs gained, 1 lost, exact McNemar p = {p:.2g}, paired bootstrap +10.0 to +90.0 points). "
        "There is no demonstrable gain in robust accuracy from a to b."
    )
    assert p == 0.125


@pytest.mark.parametrize(
    ("before", "after", "ending", "change"),
    [
        ("0" * 8, "1" * 8, "points).", "gain"),
        ("1" * 8, "0" * 8, "There is a demonstrable loss in robust accuracy from a to b.", "loss"),
        ("0" * 5 + "111", "1" * 8, NONE, "none"),
        ("01" * 4, "10" * 4, NONE, "none"),
        ("01" * 4, "01" * 4, NONE, "none"),
    ],
)
def test_a_gain_is_one_that_the_exact_test_shows(before, after, ending, change):
    """8 of 8 gained: p = 1/128; 5 of 5: 1/16."""
    networks = {"a": [finding("1" * 8, before)], "b": [finding("1" * 8, after)]}
    assert headline(networks).endswith(ending)
    (row,) = changes(networks)
    assert (row["from"], row["to"], row["change"]) == ("a", "b", change)
    assert row["p"] == pytest.approx(exact(row["gained"], row["lost"]))


def test_a_network_at_chance_is_no_goal():
    last = finding("1" * 2 + "0" * 18, "1" * 2 + "0" * 18)
    points = [{"eps": 0.0, "accuracy": 0.1, "low": 0.01, "high": 0.3}]
    guessing = dataclasses.replace(last, data={**last.data, "chance": 0.1, "worst": points})
    assert headline({"a": [finding("1" * 20, "0" * 20)], "b": [guessing]}).endswith(
        "b: The network is at chance: 10.0% (1.0% to 30.0%) classified correctly cannot be told from the 10.0% of one "
        "answer for all."
    )


def test_of_three_the_last_is_set_against_both():
    text = headline({"a": [finding("11", "00")], "b": [finding("11", "01")], "c": [finding("10", "01")]})
    assert text.startswith("From a to c: clean accuracy 100.0% to 50.0%; robust accuracy 0.0% to 50.0% ")
    assert "; from b to c: robust accuracy 50.0% to 50.0% under linf eps 8/255, the same inputs. There is no" in text
    assert text.endswith("demonstrable gain in robust accuracy from b to c.")


def test_of_many_the_best_and_the_front_are_told():
    networks = {"a": [finding("1111", "0001")], "b": [finding("1110", "0110")], "c": [finding("1110", "0010")]}
    cost = {"a": {"passes": 2.0}, "b": {"passes": 2.0}, "c": {"passes": 3.0}}
    assert field_of(trade_off(networks, cost)) == (
        "Of 3 networks b is the most robust (50.0% under linf eps 8/255, 75.0% clean; a and c cannot be told from it) "
        "and a the most accurate (100.0% clean, 25.0% robust; b and c cannot be told from it). No other is better in "
        "everything, training passes included, than a, b."
    )


def test_of_many_a_clear_best_has_no_ties():
    ones, few = "1" * 200, "1" * 20 + "0" * 180
    networks = {"a": [finding(ones, few)], "b": [finding(ones, ones)], "c": [finding(few, few)]}
    text = field_of(trade_off(networks, {}))
    assert "b is the most robust (100.0% under linf eps 8/255, 100.0% clean) and a the most accurate" in text
    assert "(100.0% clean, 10.0% robust; b cannot be told from it)" in text


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (finding("11", "01", eps=0.3), "is not compared, being under linf eps 8/255 and linf eps 0.3"),
        (finding("11", "01", norm="l2"), "is not compared, being under linf eps 8/255 and l2 eps 8/255"),
        (finding("11", "01", inputs="xyz"), "100.0% to 50.0% under linf eps 8/255, on different inputs"),
        (finding("11", "01", attacks=("g",)), "under linf eps 8/255, by different attacks, seeds or versions"),
        (finding("11", "01", seed=1), "under linf eps 8/255, by different attacks, seeds or versions"),
        (finding("111", "010", inputs="xyz"), "100.0% to 33.3% under linf eps 8/255, on different inputs"),
        (Finding("layers", "L", "", "info", {}), "no robustness finding to compare"),
    ],
)
def test_what_cannot_be_compared_is_not(other, told):
    assert told in headline({"a": [finding("11", "11")], "b": [other]})


def test_a_comparison_names_the_device_of_each_audit_and_none_of_its_own(tmp_path):
    for name, device in (("a", "CPU"), ("b", "NVIDIA H200")):
        (tmp_path / name).mkdir()
        facts = {"data": "moons", "versions": {"device": device}}
        (tmp_path / name / "findings.json").write_text(to_json({name: [finding("11", "01")]}, facts))
    compare([tmp_path / "a", tmp_path / "b"], out=tmp_path / "out")
    facts = json.loads((tmp_path / "out" / "findings.json").read_text())["facts"]
    assert [own["device"] for own in facts["settings"].values()] == ["CPU", "NVIDIA H200"]
    assert "device" not in facts["versions"]


def test_one_audit_is_no_comparison(tmp_path):
    with pytest.raises(UserError, match="at least two audits; got 1"):
        compare([tmp_path], out=tmp_path / "out")


def test_the_order_of_the_classes_is_set_against_the_first_networks():
    """Robust shares of 0, 1/2 and 1 in three classes of two; and the other way round; and of other inputs."""

    def table(stands, inputs="s"):
        data = {"attacks": [{"stands": stands, "fingerprint": "f"}], "labels": [0, 0, 1, 1, 2, 2]}
        return [Finding("classes", "", "", "info", {**data, "seed": 0, "same_inputs": inputs})]

    networks = {"none": [], "one": table("000111"), "two": table("110100"), "other": table("000111", "t")}
    (found,) = class_orders(networks)
    assert (found["from"], found["to"], found["spearman"]["value"]) == ("one", "two", pytest.approx(-1.0))
    assert (found["kendall"]["value"], found["worst"]) == (pytest.approx(-1.0), False)
    assert class_orders({"none": []}) == []
