import pytest

from buttress.audits.base.finding import Finding
from buttress.report.kinds import draw


@pytest.fixture
def finding():
    row = {"id": 3, "predicted_std": [0.1, 0.0], "measured_std": [0.125, 0.0], "union": 0.5}
    data = {
        "rows": [
            {**row, "predicted_error": 0.25, "measured_error": 0.3},
            {
                **row,
                "predicted_std": [0.2, 0.4],
                "measured_std": [0.25, 0.5],
                "predicted_error": 0.0,
                "measured_error": 0.1,
            },
        ],
        "errors": {"predicted": 0.125, "union": 0.25, "measured": 0.2},
        "accuracy": 0.9,
        "noisy_accuracy": 0.8,
        "covariance_error": 0.15,
        "sampling_error": 0.08,
        "shift": 0.31,
        "correlation": None,
    }
    return Finding("uncertainty-propagation", "Uncertainty of the outputs", "A verdict.", "info", data)


def test_two_figures_and_a_row(finding, drawn):
    section = draw({"network": finding})
    deviations, errors = drawn(section.html)
    assert list(deviations.data[1].x) == [0.1, 0.2, 0.4]  # what does not move has no place on a log axis
    assert list(deviations.data[1].y) == [0.125, 0.25, 0.5]
    assert list(deviations.data[0].x) == [0.1, 0.5]
    assert list(errors.data[1].x) == [0.25, 0.0]
    assert list(errors.data[1].y) == [0.3, 0.1]
    for cell in ("90.0%", "80.0%", "75.0% to 87.5%", "15.0%", "8.0%", "0.310", "–"):
        assert f"<td>{cell}</td>" in section.html
    assert section.keys[0].values == {"network": "80.0%"}


def test_networks_stand_together(finding, drawn):
    html = draw({"before<1>": finding, "after": finding}).html
    assert [trace.name for trace in drawn(html)[0].data[1:]] == ["before&lt;1&gt;", "after"]
    assert '<th scope="row">before&lt;1&gt;</th>' in html


@pytest.mark.parametrize("data", [{}, {"rows": []}])
def test_an_empty_finding(data):
    section = draw({"network": Finding("uncertainty-propagation", "Uncertainty", "None.", "info", data)})
    assert (section.html, section.keys) == ("", ())


def test_what_may_be_missing(finding, drawn):
    rows = finding.data["rows"]
    section = draw({"network": Finding("uncertainty-propagation", "", "", "info", {"rows": rows})})
    assert len(drawn(section.html)) == 2
    assert section.keys == ()
