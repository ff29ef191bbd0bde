import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from buttress.audits.base.finding import Finding
from buttress.report.kinds import share_key
from buttress.report.page import groups, page, without_duplicates, worst

EVIL = """<script>alert("1")</script><img src=x onerror='alert(2)'>&amp;"""


class Seen(HTMLParser):
    """All tags with their attributes, the texts outside of scripts, and the figures' data."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.figures, self.words, self.inside = [], [], [], ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.inside = dict(attrs).get("type") or tag

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self.inside = ""

    def handle_data(self, data):
        if self.inside == "application/json":
            self.figures.append(json.loads(data))
        elif not self.inside:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def evil(value):
    """The same data with every text in it made hostile, but for what a renderer looks up by name."""
    if isinstance(value, dict):
        named = {
            k: evil(v) for k, v in value.items() if k not in ("images", "mu", "sigma", "mvl", "gain", "suggested_eta")
        }
        return named | {k: value[k] for k in value if k == "images"}
    if isinstance(value, list):
        return [evil(v) if not isinstance(v, str) else f"{EVIL}{i}" for i, v in enumerate(value)]
    return EVIL if isinstance(value, str) else value


@pytest.mark.parametrize("networks", ["one", "two"])
def test_nothing_is_fetched(request, facts, networks):
    html = page(request.getfixturevalue(networks), {**facts, "title": "t", "headline": "h"})
    seen = Seen(html)
    addresses = [a[n] for _, a in seen.tags for n in ("src", "href", "srcset", "action", "data", "poster") if n in a]
    assert addresses
    assert all(address.startswith("data:") for address in addresses)
    style = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    assert len(style) == 1
    assert "url(" not in style[0]
    assert "@import" not in style[0]
    policy = [a["content"] for tag, a in seen.tags if tag == "meta" and "http-equiv" in a]
    assert len(policy) == 1
    assert policy[0].startswith("default-src 'none'")


def test_plotly_is_there_once_and_only_when_needed(two, facts):
    from plotly.offline import get_plotlyjs

    assert page(two, facts).count(get_plotlyjs()) == 1
    plain = {name: [f for f in findings if f.kind in ("examples", "masking")] for name, findings in two.items()}
    assert len(page(plain, facts)) < 200_000


def test_hostile_names_are_harmless(two, facts):
    hostile = {
        f"{EVIL}{name}": [replace(f, title=EVIL, verdict=EVIL, data=evil(f.data)) for f in found]
        for name, found in two.items()
    }
    about = {**evil(facts), EVIL: EVIL, "title": EVIL, "headline": EVIL}
    kept = Seen(page(two, {**facts, "title": "t", "headline": "h"}))
    seen = Seen(page(hostile, about))

    def count(found, tag):
        return sum(name == tag for name, _ in found.tags)

    assert count(seen, "script") == count(kept, "script")
    assert count(seen, "img") == count(kept, "img")
    assert not any(name.startswith("on") for _, attributes in seen.tags for name in attributes)
    assert 'alert("1")' in seen.text  # told as text, not lost
    texts = json.dumps(seen.figures)
    assert "&lt;script&gt;" in texts  # figures read some tags, so theirs are taken off
    assert "<script" not in texts
    assert "<img" not in texts


def test_what_comes_where(one, facts):
    text = Seen(page(one, {**facts, "title": "The title", "headline": "The verdict."})).text
    marks = [
        "The title",
        "The verdict.",
        "Clean accuracy",
        "Robust accuracy",
        "Most displaced layers (published MVL)",
        "FGSM (linf)",
    ]
    places = [text.rindex(mark) if mark == "The title" else text.index(mark) for mark in marks]
    assert places[1:] == sorted(places[1:])
    position = text.index("How this was made")
    assert position > text.index("Can the figures be trusted?") > max(places[1:])
    for fact in (facts["command"], facts["provenance"], "torch 2.13.0", "gamma", "0.3", "Seed 0", "epochs"):
        assert fact in text[position:]


def test_each_verdict_names_its_network_where_there_are_two(one, two, facts):
    assert "hardened: 87.4% of 1000 inputs" in Seen(page(two, facts)).text
    assert "network:" not in Seen(page(one, facts)).text


def test_changes_between_two_networks(two, facts):
    html = page(two, facts)
    assert '<span class="change worse">−3.8 points</span>' in html
    assert '<span class="change better">+36.9 points</span>' in html


def test_key_figures_of_many_networks_are_a_table(two, facts):
    (_, findings), *_ = two.items()
    many = {f"network {index}": findings for index in range(7)}
    seen = Seen(page(many, facts))
    assert not [tag for tag, attributes in seen.tags if tag == "div" and attributes.get("class") == "cards"]
    assert "Network Clean accuracy" in seen.text
    assert all(f"{name} 91.2%" in seen.text for name in many)


def test_a_key_figure_that_two_kinds_tell_stands_there_once(two, facts):
    shares = {"baseline": 0.912, "hardened": 0.874}  # clean, as the robustness audit has it
    parts = {name: {"clean": {"accuracy": share}, "unseen": {"accuracy": 0.3}} for name, share in shares.items()}
    both = {name: [*two[name], Finding("unseen", "Corruptions", "A.", "info", parts[name])] for name in two}
    text = Seen(page(both, facts)).text
    assert text.count("Clean accuracy") == Seen(page(two, facts)).text.count("Clean accuracy") == 1
    assert "Robust accuracy, unseen attacks" in text


def test_key_figures_are_told_once_only_where_they_agree():
    clean, note = share_key("Clean", {"a": 0.9, "b": 0.8}, "note"), "note"
    fewer, fuller = share_key("Clean", {"a": 0.9}, note), share_key("Clean", {"a": 0.9, "b": 0.8, "c": 0.7}, note)
    other, elsewhere = share_key("Clean", {"a": 0.9, "b": 0.7}, note), share_key("Clean", {"b": 0.8, "a": 0.9}, "else")
    robust = share_key("Robust", {"a": 0.9, "b": 0.8}, note)
    assert without_duplicates([clean, robust, clean, fewer]) == [clean, robust]
    assert without_duplicates([fewer, robust, clean, fuller]) == [fuller, robust]
    assert without_duplicates([clean, other, elsewhere]) == [clean, other, elsewhere]
    assert without_duplicates([other, fewer, clean]) == [other, clean]


def test_findings_of_one_kind_are_paired(two):
    sections = groups(two)
    assert [list(section) for section in sections] == [["baseline", "hardened"]] * 5
    assert [section["hardened"].kind for section in sections] == [f.kind for f in two["baseline"]]


def test_several_of_one_kind_are_paired_by_title(two):
    first = two["baseline"][0]
    l2, linf = replace(first, title="Robustness in l2"), replace(first, title="Robustness in linf")
    sections = groups({"a": [linf, l2], "b": [l2], "c": [l2, l2]})
    assert [(next(iter(s.values())).title, list(s)) for s in sections] == [
        ("Robustness in linf", ["a"]),
        ("Robustness in l2", ["a", "b", "c"]),
        ("Robustness in l2", ["c"]),
    ]


def test_the_banner_tells_the_worst_of_the_last_network(two, facts):
    assert worst(two) == "info"
    assert worst({"only": two["baseline"]}) == "bad"
    assert worst({"only": []}) == "info"
    assert '<p class="banner bad">' in page({"only": two["baseline"]}, {**facts, "headline": "h"})
    assert '<p class="banner good">' in page(two, {**facts, "headline": "h", "severity": "good"})


def test_many_findings_stand_by_what_they_are_about_and_have_a_table_of_contents():
    """In reading order, what is about nothing known last; each entry leads to the section of its title."""
    topics = ["Further questions", "of an audit from elsewhere", "How robust it is", "Where it fails"]
    findings = [Finding(f"kind-{i}", f"Title {i}", "Yes.", "info", {}, topic=topics[i % 4]) for i in range(8)]
    html = page({"net": findings}, {})
    order = [2, 6, 3, 7, 0, 4, 1, 5]
    assert re.findall(r"<h2>(Title \d)</h2>", html) == [f"Title {i}" for i in order]
    assert re.findall(r'href="#finding-(\d)">(Title \d)<', html) == [
        (str(k), f"Title {i}") for k, i in enumerate(order, 1)
    ]
    assert re.findall(r'id="finding-(\d)"', html) == [str(k) for k in range(1, 9)]


def test_a_few_findings_stay_as_they_were_asked(one, facts):
    assert "Contents" not in Seen(page(one, facts)).text


def test_a_network_without_findings_is_drawn(facts):
    assert "How this was made" in page({"empty": []}, facts)
    assert "How this was made" in page({"empty": []}, {})
