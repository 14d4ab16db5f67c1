"""report.html in a real browser: its charts are alive, and it is readable on every screen, light and dark."""
import pytest
from chatpage import IN_A_BROWSER, browser, screen  # noqa: F401
from test_report import SKILLS, TASKS, ask, full_run, written  # noqa: F401
from test_ui_looks import AXE

pytestmark = IN_A_BROWSER


class Report:
    """report.html as its reader sees it."""

    def __init__(self, browser, path):
        self.browser = browser
        browser.get(path.as_uri())

    def script(self, code, *args):
        return self.browser.execute_script(code, *args)

    def count(self, css):
        return self.script("return [...document.querySelectorAll(arguments[0])].filter(e => getComputedStyle(e).display !== 'none')"
                           ".length", css)

    def switch(self, section, value):
        self.script("document.querySelectorAll('section')[arguments[0]].querySelector(`[value=${arguments[1]}]`).click()",
                    section, value)


@pytest.fixture
def report(full_run, base, browser):  # noqa: F811
    ask(base, "rl", SKILLS[0], *[(f"Where is number {i}?", "<script>window.hacked = 1</script>") for i in range(120)], right=0.925)
    written(base)
    return Report(browser, base / "report" / "report.html")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 820, 390])
def test_it_fits_every_screen(report, width, scheme):
    with screen(report.browser, width, scheme):
        assert report.script("return document.documentElement.scrollWidth") <= width
        assert report.count(".skill") == 1 + len(SKILLS) and report.count("svg") == 3
        ground, ink = report.script("const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]")
        assert (ground == "rgb(255, 255, 255)") == (scheme == "light") and ground != ink
        wide = report.script("return [...document.querySelectorAll('svg')].map(svg => svg.getBoundingClientRect().width)")
        assert all(width * 0.55 < each <= width for each in wide)


@pytest.mark.skipif(not AXE, reason="axe-core is not installed: npm install -g axe-core, or AXE_CORE=.../axe.min.js")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_axe_finds_nothing_in_the_report(report, width, scheme):
    with screen(report.browser, width, scheme):
        report.script(AXE[0].read_text(encoding="utf-8"))
        found = report.browser.execute_async_script("axe.run().then(arguments[0])")["violations"]
        assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []


def test_a_model_that_says_a_script_runs_none(report):
    assert report.script("return window.hacked") is None
    assert "<script>window.hacked = 1</script>" in report.script("return document.body.innerText")


def test_pointing_at_a_curve_tells_step_and_value(report):
    from selenium.webdriver import ActionChains, Keys
    plot = report.browser.find_element("css selector", ".plot[tabindex]")
    told = lambda: report.browser.find_element("css selector", "output").text  # noqa: E731
    ActionChains(report.browser).move_to_element(plot).perform()
    assert "BASE training loss 1." in told() and told().startswith("Step ")
    before = told()
    plot.send_keys(Keys.ARROW_RIGHT)
    assert told() != before
    for _ in range(70):
        plot.send_keys(Keys.ARROW_RIGHT)
    assert told().startswith("Step 60; BASE training loss 1.08") and "SFT validation loss 0.5 (step 60)" in told()


def test_stages_can_be_left_out_and_axes_straightened(report):
    dots = report.count(".dot")
    report.switch(0, "base")
    assert report.count(".dot.base") == 0 and report.count(".dot") == dots - 1 - len(SKILLS)
    lines = report.count("path")
    report.switch(1, "mid")
    assert 0 < report.count("path") < lines and report.count("path.mid") == 0
    before = report.script("return document.querySelector('path.base').getAttribute('d')")
    report.switch(1, "logarithmic")
    assert report.script("return document.querySelector('path.base').getAttribute('d')") != before


def test_its_charts_are_named_and_its_tables_have_headers(report):
    names = report.script("return [...document.querySelectorAll('[role=img]')].map(e => e.ariaLabel)")
    assert len(names) == 4 and names[0].startswith("Skills by stage. Kindergarten, the mean: BASE 5.0") and all(names)
    heads = report.script("return [...document.querySelectorAll('table')].map(t => t.querySelectorAll('thead th').length)")
    assert heads and all(heads)


def test_it_says_the_same_as_report_md(report, base):
    page = report.script("return document.body.innerText")
    headings = [line.lstrip("# ") for line in (base / "report" / "report.md").read_text(encoding="utf-8").splitlines()
                if line.startswith("## ")]
    assert len(headings) > 8 and all(heading in page for heading in headings)
    assert all(TASKS[task].title in page for task in SKILLS)
