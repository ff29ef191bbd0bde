"""The report in a real browser: figures drawn, hover, both colour schemes, a narrow page, and a quiet console."""

import os
import shutil

import pytest
from tests.report.kinds.test_classes import build as classes
from tests.report.kinds.test_inputs import build as inputs

from buttress import report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "headless=new no-sandbox disable-gpu disable-quic no-first-run disable-background-networking "
    "disable-component-update disable-sync disable-dev-shm-usage"
)
DRAWN = "return [...document.querySelectorAll('.plot')].every(plot => plot.querySelector('.main-svg .xtick'))"
BOTH = pytest.mark.parametrize("opened", ["one", "two"], indirect=True)
ONE = pytest.mark.parametrize("opened", ["one"], indirect=True)
TWO = pytest.mark.parametrize("opened", ["two"], indirect=True)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None or DRIVER is None:
        if os.environ.get("CI") == "true":
            pytest.fail("Chromium and chromedriver are needed here")
        pytest.skip("Chromium is not installed: the browser test was NOT RUN")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS.split(), f"user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def opened(request, browser, tmp_path, facts):
    """A report of one network or of two, open at 1200 pixels in the light; the console stays quiet."""
    show(browser, 1200)
    html = report.write(tmp_path, request.getfixturevalue(request.param), facts, title="A report", headline="So it is.")
    browser.get_log("browser")
    browser.get(html.as_uri())
    wait(browser, DRAWN)
    yield browser
    assert browser.get_log("browser") == []


def show(browser, width, scheme="light"):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def wait(browser, condition):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 20, 0.05).until(lambda driver: driver.execute_script(condition))


@pytest.mark.representatives(opened=["two"])
@BOTH
def test_every_line_is_drawn(opened):
    networks = 2 if opened.execute_script("return document.querySelectorAll('.card .network').length") else 1
    drawn = "return [...document.querySelectorAll('.plot')].map(p => p.querySelectorAll('%s').length)"
    lines = opened.execute_script(drawn % ".scatterlayer .js-line")
    curves, boundary = [3 * 2 * networks], [0] * networks  # a line and a band for each of two attacks and for both
    assert lines == [*curves, *[4] * 2, *boundary]  # the layers' lines: all four, or two of each network's four
    points = opened.execute_script(drawn % ".scatterlayer .point")
    assert points == [2 * 6 * networks, 4 * 7, 4 * 7, *[40] * networks]
    assert opened.execute_script(drawn % ".contourlayer .contour") == [0, 0, 0, *[2] * networks]
    height = (
        "return Math.min(...[...document.querySelectorAll('.scatterlayer')].map(s => s.getBoundingClientRect().height))"
    )
    assert opened.execute_script(height) > 50
    fetched = opened.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert [name for name in fetched if not name.startswith(("data:", "blob:"))] == []


@ONE
def test_hover_on_the_layer_profile(opened):
    from selenium.webdriver import ActionChains

    plot = opened.find_elements("css selector", ".plot")[1]
    opened.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot)
    assert plot.find_elements("css selector", ".hoverlayer .hovertext") == []
    ActionChains(opened).move_to_element(plot.find_elements("css selector", ".scatterlayer .point")[2]).perform()
    wait(opened, "return document.querySelectorAll('.hoverlayer .hovertext').length")
    text = plot.find_element("css selector", ".hoverlayer .hovertext").text
    for part in ("layer1.0.relu", "mean 0.810, sd 0.162", "median 0.810", "among the most displaced"):
        assert part in text


@ONE
def test_a_dark_reader_gets_a_dark_page(opened):
    look = (
        "return [getComputedStyle(document.body).backgroundColor, "
        "document.querySelector('.xtick text').style.fill, document.querySelector('.gtitle, .xtitle').style.fill]"
    )
    light = opened.execute_script(look)
    show(opened, 1200, "dark")
    wait(opened, f"return (() => {{ {look} }})()[1] !== '{light[1]}'")
    dark = opened.execute_script(look)

    def lightness(colour):
        return sum(int(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3])

    assert lightness(light[0]) > 600 > 200 > lightness(dark[0])
    for before, after in zip(light[1:], dark[1:], strict=True):
        assert lightness(before) < 200 < 600 < lightness(after)


@TWO
def test_no_page_is_wider_than_its_window(opened):
    outside = (
        "return [...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll, .canvas, script') && "
        "e.getBoundingClientRect().right > document.documentElement.clientWidth).map(e => e.outerHTML.slice(0, 80))"
    )
    for width in (768, 400):
        show(opened, width)
        wait(opened, f"return window.innerWidth === {width}")
        opened.refresh()
        wait(opened, DRAWN)
        wide, room = opened.execute_script("const d = document.documentElement; return [d.scrollWidth, d.clientWidth]")
        assert wide == room <= width
        assert opened.execute_script(outside) == []
        widths = "return [...document.querySelectorAll('%s')].map(part => part.clientWidth)"
        assert opened.execute_script(widths % ".plot") == opened.execute_script(widths % ".main-svg:first-child")


def test_hostile_names_run_nothing(browser, one, facts, tmp_path):
    evil = "</script><script>window.hit = 1</script><img src=x onerror='window.hit = 1'><a href='javascript:1'>x</a>"
    show(browser, 1200)
    html = report.write(
        tmp_path, {evil: one["network"], "b": one["network"]}, {**facts, evil: evil}, title=evil, headline=evil
    )
    browser.get(html.as_uri())
    wait(browser, DRAWN)
    assert browser.execute_script("return [window.hit, document.querySelectorAll('a, main img[src=x]').length]") == [
        None,
        0,
    ]
    legend = browser.find_element("css selector", ".legendtext").get_attribute("textContent")
    assert legend.startswith("</script><script>window.hit")
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_a_link_from_a_class_opens_its_inputs(browser, tmp_path):
    """They are folded away until then; each picture is drawn."""
    html = report.write(tmp_path, {"net": [classes(0.25), inputs()]}, {}, title="A report", headline="So it is.")
    show(browser, 1200)
    browser.get(html.as_uri())
    wait(browser, DRAWN)
    link = browser.find_element("css selector", ".links a")
    target = browser.find_element("id", link.get_attribute("href").partition("#")[2])
    assert not target.is_displayed()
    link.click()
    wait(browser, "return document.querySelector('.finding details:not([open]) :target') === null")
    assert target.is_displayed()
    assert target.find_element("css selector", ".thumb").value_of_css_property("background-image").startswith("url(")
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
