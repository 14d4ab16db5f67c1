"""The chat page in a real browser: that it keeps its shape, on every width, light and dark, and what axe-core finds."""
import os
from pathlib import Path

import pytest
from chatpage import IN_A_BROWSER, browser, model, page, refused, said, screen, tokenizer, url  # noqa: F401
from conftest import ROOT

pytestmark = IN_A_BROWSER

BOXES = """const boxes = {};
    for (const css of arguments) {
        const {left, right, top, bottom} = document.querySelector(css).getBoundingClientRect();
        boxes[css] = {left, right, top, bottom, width: right - left, height: bottom - top};
    }
    return boxes"""
SIDEBAR_FROM = 961   # points: on a narrower screen the chats are a drawer over the conversation


def boxes(page, *selectors):
    """Where these elements stand on the screen, in points."""
    return page.browser.execute_script(BOXES, *selectors)


def show_sidebar(page, shown):
    """Open or close the list of chats, with the buttons that a user has."""
    side = page.all("#side")[0]
    if side.is_displayed() != shown:
        drawer = page.browser.execute_script("return document.getElementById('room').inert")
        page.press("Close the list of chats" if drawer else "Your chats")
    page.until(lambda: side.is_displayed() == shown)


@pytest.mark.parametrize("chat", ["empty", "long"])
@pytest.mark.parametrize("width", [1440, 820, 600, 390])
def test_the_conversation_keeps_its_place_with_the_sidebar_open_and_closed(page, width, chat):
    with screen(page.browser, width):
        if chat == "long":
            page.ask("markdown " + "x" * 120)
            page.ask("long one")
        for shown in (False, True, False):
            show_sidebar(page, shown)
            found = boxes(page, "#side", "#room", "#log", "#composer", "header", "#open-settings")
            room, log, composer = found["#room"], found["#log"], found["#composer"]
            left = found["#side"]["width"] if shown and width >= SIDEBAR_FROM else 0
            assert (room["left"], room["right"]) == (left, width), "the room takes all that the sidebar leaves"
            assert (room["top"], room["height"]) == (0, 760) and found["header"]["width"] == width - left
            assert abs(log["left"] + log["right"] - left - width) <= 2, "the conversation stands in the middle"
            assert log["width"] >= min(736, 0.9 * (width - left)), "and is as wide as its lines may be"
            assert composer["left"] >= log["left"] and composer["right"] <= log["right"]
            assert composer["width"] >= log["width"] - 48 and composer["bottom"] <= 760
            assert found["#open-settings"]["right"] <= width


def test_light_and_dark(page):
    from selenium.webdriver.support.ui import Select
    ground = lambda: page.browser.execute_script("return getComputedStyle(document.body).backgroundColor")  # noqa: E731
    with screen(page.browser, 1100):
        light = ground()
        page.click("Settings")
        Select(page.all("#theme")[0]).select_by_visible_text("Dark")
        page.until(lambda: ground() != light)
        dark = ground()
        page.browser.refresh()
        page.until(lambda: page.texts("#model") == ["sft"] and ground() == dark)
    page.browser.execute_script("localStorage.clear()")
    with screen(page.browser, 1100, "dark"):
        page.browser.refresh()
        page.until(lambda: page.texts("#model") == ["sft"] and ground() == dark)


def test_on_a_phone_the_chats_are_a_drawer(page):
    with screen(page.browser, 380):
        page.ask("hello")
        assert not page.all("#side")[0].is_displayed()
        page.press("Your chats")
        page.until(lambda: page.all("#side")[0].is_displayed() and page.active() == "search")
        assert page.browser.execute_script("return document.getElementById('room').inert")
        page.browser.switch_to.active_element.send_keys("\ue00c")
        page.until(lambda: not page.all("#side")[0].is_displayed() and page.active() == "menu")
        page.press("Your chats")
        page.press("hello")
        page.until(lambda: not page.all("#side")[0].is_displayed() and page.active() == "draft")


# ----------------------------------------------------------------------------------------------------------- on a phone
def test_no_button_that_nobody_sees_takes_a_tap(page):
    with screen(page.browser, 390, touch=True):
        page.ask("first")
        page.press("New chat")
        page.ask("second")
        page.press("Your chats")
        page.until(lambda: page.texts(".chat > button") == ["second", "first"])
        hit = page.browser.execute_script("""const row = document.querySelectorAll('.chat')[1].getBoundingClientRect();
            return [5, 20, 60, 100].map(x => document.elementFromPoint(row.right - x, row.top + row.height / 2).textContent)""")
        assert hit == ["first"] * 4


def test_a_finger_finds_every_button(page):
    small = """return [...document.querySelectorAll('button, input, select')].filter(e => e.checkVisibility()
        && e.type !== 'range' && e.id !== 'shade').map(e => [e.ariaLabel || e.id || e.textContent, e.offsetWidth, e.offsetHeight])
        .filter(([, width, height]) => Math.min(width, height) < 40)"""
    find = lambda: page.browser.execute_script(small)  # noqa: E731
    with screen(page.browser, 390, touch=True):
        page.browser.refresh()
        page.until(lambda: page.texts("#model") == ["sft"])
        assert find() == []
        page.ask("markdown please")
        page.press("Your chats")
        assert find() == []
        page.press("Close the list of chats")
        page.press("Settings")
        assert find() == []


# -------------------------------------------------------------------------------------------------------------- regions
@pytest.mark.parametrize("width", [1440, 390])
def test_nothing_jumps_when_an_answer_ends(page, model, width):
    with screen(page.browser, width, touch=width < 600):
        page.ask("warm up")     # the gauge shows from the first answer on
        model.pace_s = 0.05
        page.type("hello\n")
        page.until(lambda: len(page.texts()) == 4 and page.texts()[-1].startswith("You"))
        watched = ("#composer", "#foot", ".turn:last-of-type", ".turn:last-of-type .body", ".turn:last-of-type .below")
        before = boxes(page, *watched)
        page.until(page.idle)
        assert boxes(page, *watched) == before


def picture(page):
    """A screenshot without its letters, in blocks of 10 by 10 points: (rows, columns, 3) mean colours."""
    import io

    import numpy as np
    from PIL import Image
    page.browser.execute_script("""window.bare ??= new CSSStyleSheet();
        bare.replaceSync("*, ::placeholder { color: transparent !important; caret-color: transparent !important }");
        document.adoptedStyleSheets = [bare]""")
    with Image.open(io.BytesIO(page.browser.get_screenshot_as_png())) as shot:
        small = shot.convert("RGB").resize((shot.width // 10, shot.height // 10), Image.Resampling.BOX)
    return np.asarray(small, dtype=int)


def moved(picture, path):
    """How many of its blocks differ from those of the picture kept at this path."""
    import numpy as np
    from PIL import Image
    with Image.open(path) as image:
        kept = np.asarray(image.convert("RGB"), dtype=int)
    assert kept.shape == picture.shape
    return int((abs(kept - picture).max(axis=2) > 5).sum())


LOOKS = ROOT / "tests" / "looks"
SAME = 20    # blocks may differ: letters are as broad as a machine's fonts have them


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 820, 390])
def test_every_region_is_where_it_was(page, width, scheme):
    with screen(page.browser, width, scheme, touch=width < 600):
        page.ask("i\ni\ni")     # no line is broken where a font is broad
        page.ask("markdown please")
        path = LOOKS / f"{width}-{scheme}.png"
        found = picture(page)
        if os.environ.get("NANOCHAT_NEW_LOOKS"):    # the page is meant to look otherwise now
            from PIL import Image
            Image.fromarray(found.astype("uint8")).save(path, optimize=True)
        assert moved(found, path) <= SAME
        for css, move in (("#composer", "marginBottom"), ("header", "paddingTop"), (".code", "paddingTop")):
            page.browser.execute_script("""const [css, move] = arguments, {style} = document.querySelector(css);
                style[move] = parseFloat(getComputedStyle(document.querySelector(css))[move]) + 24 + 'px'""", css, move)
            assert moved(picture(page), path) > SAME, f"{css} has moved, and that was not seen"
            page.browser.execute_script("document.querySelector(arguments[0]).style[arguments[1]] = ''", css, move)


def test_what_is_printed_is_the_whole_conversation_and_nothing_else(page):
    page.ask("long one")
    page.ask("long one more")
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        shown = [css for css in ("#side", "footer", "#menu", ".acts") if page.all(css)[0].is_displayed()]
        height, said_until = page.browser.execute_script("""return [document.body.offsetHeight,
            document.querySelector('.turn:last-of-type .body').getBoundingClientRect().bottom]""")
        assert shown == [] and height >= said_until > 800 and page.all("h1")[0].is_displayed()
    finally:
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


# ----------------------------------------------------------------------------------------------------------------- axe
PLACES = [Path(p) / "node_modules" / "axe-core" / "axe.min.js" for p in (Path.home(), *ROOT.parents, "/usr/local/lib", "/usr/lib")]
AXE = [path for path in (Path(os.environ.get("AXE_CORE", "-")), *PLACES) if path.is_file()]


@pytest.mark.skipif(not AXE, reason="axe-core is not installed: npm install -g axe-core, or AXE_CORE=.../axe.min.js")
@pytest.mark.parametrize("width, scheme", [(1440, "light"), (820, "dark"), (390, "light"), (390, "dark")])
def test_axe_finds_nothing_serious(page, width, scheme):
    def check(where):
        found = page.browser.execute_async_script("const done = arguments[0]; axe.run().then(r => done(r.violations))")
        bad = [(v["id"], [n["html"] for n in v["nodes"]]) for v in found if v["impact"] in ("serious", "critical")]
        assert not bad, f"{where}: {bad}"
    with screen(page.browser, width, scheme):
        page.browser.refresh()
        page.until(lambda: page.texts("#model") == ["sft"])
        page.browser.execute_script(AXE[0].read_text(encoding="utf-8"))
        check("welcome")
        page.ask("markdown please")
        page.ask("What is 47 * 12?")
        page.press("Token probabilities")
        page.fake(said((" The", -0.1, [(" The", -0.1), (" A", -2.4)]), (" cat", -9.0, [(" dog", -0.5), (" cat", -9.0)])))
        page.ask("tokens")
        page.browser.execute_script("document.querySelector('.token').focus()")
        check("conversation")
        page.fake(refused(500))
        page.type("fail\n")
        page.until(lambda: page.all(".error"))
        check("error")
        page.press("Your chats")
        check("chats")
        page.browser.execute_script("if (document.querySelector('#room[inert]')) document.getElementById('shade').click()")
        page.press("Settings")
        page.until(lambda: page.all("dialog[open]"))
        check("settings")
