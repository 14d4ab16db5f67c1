"""The chat page in a real browser: hostile text, many chats, a server in trouble, and every way to use it."""
import json
import os
import re
from pathlib import Path

import pytest
from chatpage import IN_A_BROWSER, Page, browser, browsing, model, page, refused, said, screen, tokenizer, url  # noqa: F401
from conftest import ROOT

pytestmark = IN_A_BROWSER

RUN = "window.hacked=1"
CORPUS = [   # ways in which text has become script in pages that trusted it
    f"<script>{RUN}</script>", f"<img src=x onerror={RUN}>", f"<svg/onload={RUN}>", f"<iframe src='javascript:{RUN}'>",
    f"<details open ontoggle={RUN}>", f"<input autofocus onfocus={RUN}>", f"<body onload={RUN}>",
    f"<video><source onerror={RUN}>", f"<math><mtext><style><img src onerror={RUN}></style>",
    f"<a href='javascript:{RUN}'>x</a>", f"<!--><img src onerror={RUN}>-->",
    f"<template><img src onerror={RUN}></template>", f"<base href='javascript:{RUN}//'>",
    f"<object data='javascript:{RUN}'>", f"[x](javascript:{RUN})", f"[x](JaVaScRiPt:{RUN})",
    f"[x](data:text/html,<script>{RUN}</script>)", f"[x](vbscript:{RUN})", f'[x](https://a.b/"onmouseover="{RUN}")',
    f"![x](x\"onerror=\"{RUN})", f"<javascript:{RUN}>", f"**<img src onerror={RUN}>**", f"`<img src onerror={RUN}>`",
    f"```<img src onerror={RUN}>\n</code></pre><script>{RUN}</script>\n```", f"# <svg onload={RUN}>",
    f"> <svg onload={RUN}>", f"- <svg onload={RUN}>", f"1. <svg onload={RUN}>", f"&lt;img src onerror={RUN}&gt;",
    f"\ue000<img onerror={RUN}>", f"\u2028<script>{RUN}</script>", f"{{{{constructor.constructor('{RUN}')()}}}}",
    f"</script><script>{RUN}</script>", "> " * 3000 + "deep", "- " * 3000 + "deep", "**" * 3000, "[" * 3000,
    "`" * 2999]


# ------------------------------------------------------------------------------------------------------------ more text
BUILT = """return [...document.querySelectorAll('#log *, #chats *')].flatMap(e => [e.localName,
    ...e.getAttributeNames().map(a => '@' + a), ...(e.href ? [new URL(e.href).protocol] : [])])"""
HARMLESS = set("article div p br code pre b strong em a ul ol li blockquote h2 h3 h4 hr span button svg path i section "
               "@class @role @title @type @tabindex @viewBox @d @href @target @rel @start @id @aria-label @aria-hidden "
               "@aria-live @aria-current https:".split())


def test_an_xss_corpus_builds_only_harmless_elements(page):
    messages = [{"role": role, "content": attack} for attack in CORPUS for role in ("user", "assistant")]
    page.browser.execute_script("localStorage['nanochat.chat.x'] = arguments[0];sessionStorage['nanochat.chat.'] = 'x'",
                                json.dumps({"id": "x", "title": CORPUS[0], "messages": messages}))
    page.browser.refresh()
    page.until(lambda: len(page.all(".turn")) == 2 * len(CORPUS))
    page.fake(said(*CORPUS, *(f"\n\n{attack}" for attack in CORPUS)))
    page.type("all at once\n")
    page.until(lambda: len(page.all(".turn")) == 2 * len(CORPUS) + 2 and page.idle())
    page.press("Token probabilities")
    page.fake(said(*((attack, -1.0, [(attack, -1.0)]) for attack in CORPUS[:20])))
    page.type("as tokens\n")
    page.until(lambda: len(page.all(".token")) == 20 and page.idle())
    page.browser.execute_script("document.querySelector('.token').focus()")
    assert set(page.browser.execute_script(BUILT)) - {"@style"} <= HARMLESS
    assert page.browser.execute_script("return window.hacked") is None
    assert page.texts(".user .body")[0] == CORPUS[0] == page.texts(".chat > button")[0]


def test_nested_lists_and_code_in_lists_are_markdown_too(page):
    page.fake(said("1. one\n   - inner\n\n     ```\n     x < y\n     ```\n2. two\n\n---\nafter"))
    page.ask("a list please")
    assert len(page.all(".assistant ol > li")) == 2 and page.texts("ol ul li pre code") == ["x < y"]
    assert page.all(".assistant hr") and page.texts(".assistant .body > p") == ["after"]


def test_copy_takes_the_text_and_the_code(page):
    page.browser.execute_script("navigator.clipboard.writeText = async text => { window.copied = text }")
    page.ask("markdown please")
    for label, nth, start in (("Copy", 1, "# Head"), ("Copy the code", 0, "print('hi')"), ("Copy", 0, "markdown")):
        page.press(label, nth)
        page.until(lambda start=start: page.browser.execute_script("return window.copied").startswith(start))


# --------------------------------------------------------------------------------------------------------------- chats
def test_versions_of_a_question_and_of_an_answer_stand_side_by_side(page):
    page.fake(said("one"), said("two"), said("three"))
    page.ask("first")
    page.press("Regenerate")
    page.until(lambda: page.idle() and page.texts() == ["first", "two"] and "2 / 2" in page.texts(".acts")[-1])
    page.press("Edit")
    page.until(lambda: page.active("aria-label") == "Edit your message")
    page.browser.switch_to.active_element.send_keys(" again\n")
    page.until(lambda: page.idle() and page.texts() == ["first again", "three"])
    page.browser.refresh()
    page.press("Version before")
    page.until(lambda: page.texts() == ["first", "two"])
    page.press("Version before")
    page.until(lambda: page.texts() == ["first", "one"])


def test_many_chats_are_kept_found_renamed_and_deleted(page):
    def rows(*names):
        page.until(lambda: page.texts(".chat > button") == list(names))
    page.ask("apples are red")
    page.type("half a thought")
    page.press("New chat")
    page.until(lambda: page.all("#welcome"))
    page.ask("bananas are yellow")
    rows("bananas are yellow", "apples are red")
    page.all("#search")[0].send_keys("APPLE")
    rows("apples are red")
    page.press("apples are red")
    page.until(lambda: page.texts() == ["apples are red", "You said: apples are red"])
    assert page.all("#draft")[0].get_attribute("value") == "half a thought"
    page.all("#search")[0].clear()
    page.all("#search")[0].send_keys(" ")
    rows("bananas are yellow", "apples are red")
    page.press("Rename apples are red")
    prompt = page.until(lambda: page.browser.switch_to.alert)
    prompt.send_keys("Fruit")
    prompt.accept()
    rows("bananas are yellow", "Fruit")
    page.press("Delete Fruit")
    rows("bananas are yellow")
    page.click("Undo")
    rows("bananas are yellow", "Fruit")
    page.press("Delete bananas are yellow")
    rows("Fruit")
    page.browser.refresh()
    rows("Fruit")


def test_an_answer_goes_on_while_another_chat_is_open(page, model):
    model.pace_s = 0.01
    page.type("markdown slowly\n")
    page.until(lambda: "Head" in page.texts()[-1])
    page.press("New chat")
    page.until(lambda: page.all("#welcome"))
    model.pace_s = 0.0
    page.press("markdown slowly")
    page.until(lambda: page.idle() and page.texts(".assistant blockquote") == ["said"])


def test_two_tabs_do_not_overwrite_each_other(page):
    page.ask("one")
    first = page.browser.current_window_handle
    page.browser.switch_to.new_window("tab")
    try:
        page.browser.get(page.url)
        page.press("one")
        page.until(lambda: page.texts() == ["one", "You said: one"])
        page.ask("two")
        page.press("New chat")
        page.ask("another")
        page.browser.close()
    finally:
        page.browser.switch_to.window(first)
    page.until(lambda: page.texts()[2:] == ["two", "You said: two"] and page.texts(".chat > button") == ["another", "one"])
    page.type("and")
    page.browser.refresh()
    page.until(lambda: page.texts()[2:] == ["two", "You said: two"] and page.all("#draft")[0].get_attribute("value") == "and")


def test_chats_are_exported_and_imported(page, tmp_path):
    page.browser.execute_cdp_cmd("Page.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    page.ask("What is 47 * 12?")
    page.press("New chat")
    page.until(lambda: page.all("#welcome"))
    page.ask("another")
    page.press("Export")
    file = tmp_path / "nanochat.json"
    kept = page.until(lambda: json.loads(file.read_text(encoding="utf-8")))
    assert [c["messages"][0]["content"] for c in kept["chats"]] == ["What is 47 * 12?", "another"]
    page.all("#file")[0].send_keys(str(file))
    page.until(lambda: "imported: 0" in page.texts(".notice")[0])   # what was said here is not new, either
    page.browser.execute_script("localStorage.clear(); sessionStorage.clear()")
    page.browser.refresh()
    page.until(lambda: page.all("#welcome") and page.texts("#model") == ["sft"])
    for imported in (2, 0):   # a second time nothing is new
        page.all("#file")[0].send_keys(str(file))
        page.until(lambda n=imported: f"imported: {n}" in page.texts(".notice")[0] and len(page.all(".chat")) == 2)
    page.press("What is 47 * 12?")
    page.until(lambda: page.texts(".chip b") == ["564"])


def test_a_file_without_chats_is_refused_in_words(page, tmp_path):
    for i, content in enumerate((
            "{", '[{"title": 1}]', '[{"messages": [{"role": "system", "content": "x"}]}]', '{"messages": 7}', '[{"id": 7}]',
            '[{"messages": [{"role": "user", "content": "x", "up": 5}]}]', "[" * 20_000 + "]" * 20_000,
            '[{"messages": [{"role": "user", "content": {}}]}]', "7", "null", "")):
        (tmp_path / f"wrong{i}.json").write_text(content, encoding="utf-8")
        page.all("#file")[0].send_keys(str(tmp_path / f"wrong{i}.json"))
        page.until(lambda i=i: f"wrong{i}.json holds no chats" in page.texts(".error")[0])
    assert not page.all(".chat")


def test_without_any_storage_the_page_works_and_says_so(tmp_path, url):
    with browsing(tmp_path, prefs={"profile.default_content_setting_values.cookies": 2}) as forbidding:
        page = Page.__new__(Page)
        page.browser, page.url = forbidding, url
        forbidding.get(url)
        page.until(lambda: page.texts("#model") == ["sft"])
        page.ask("hello")
        assert page.texts() == ["hello", "You said: hello"] and "storage is full or off" in page.texts(".error")[0]
        page.click("New chat")
        page.until(lambda: page.all("#welcome") and page.texts(".chat > button") == ["hello"])


def test_a_full_storage_is_said_and_the_chat_goes_on(page, tmp_path):
    page.browser.execute_script("Storage.prototype.setItem = () => { throw new DOMException('', 'QuotaExceededError') }")
    page.type("hello\n")
    page.until(lambda: page.idle() and page.texts() == ["hello", "You said: hello"])
    assert "storage is full" in page.texts(".error")[0]
    (tmp_path / "one.json").write_text('[{"messages": [{"role": "user", "content": "x"}]}]', encoding="utf-8")
    page.browser.execute_script("tell('')")
    page.all("#file")[0].send_keys(str(tmp_path / "one.json"))
    page.until(lambda: "x" in page.texts(".chat > button") and "storage is full" in page.texts(".notice")[0])


# ------------------------------------------------------------------------------------------------- the server's answers
def test_speed_and_context_are_shown(page):
    page.ask("hello")
    tokens, speed = re.fullmatch(r"(\d+) tokens · (\d+) tokens/s", page.texts(".assistant .stats")[0]).groups()
    used, of = re.fullmatch(r"(\d+) of (\d+) tokens", page.texts("#gauge")[0]).groups()
    assert 5 < int(tokens) < int(used) < int(of) == 700 and int(speed) > 0


def test_a_busy_server_is_asked_again_when_it_said(page):
    page.fake(refused(429, {"Retry-After": "2"}), said("at last"))
    page.type("patience\n")
    page.until(lambda: "goes out again in 2 s" in page.texts(".notice")[0])
    page.until(lambda: page.idle() and page.texts() == ["patience", "at last"] and not page.all(".notice"))
    page.fake(refused(429, {"Retry-After": "50"}))
    page.type("no patience\n")
    page.until(lambda: "in 50 s" in page.texts(".notice")[0])
    page.type("\ue00c")
    page.until(lambda: page.idle() and page.texts(".note") == ["Stopped."])
    assert page.texts()[2] == "no patience"


def test_a_stream_that_breaks_off_keeps_what_came_and_can_be_tried_again(page):
    page.fake(said("half an ans", end=""), said("a whole answer"))
    page.type("question\n")
    page.until(lambda: "Nothing you wrote is lost" in page.texts(".error")[0])
    assert page.texts() == ["question", "half an ans"] and page.texts(".note") == ["Broken off."]
    page.type("/help\n")   # its words stand before the error, not in place of it
    page.until(lambda: "/topk" in page.texts(".notice")[0])
    page.click("Dismiss")
    page.click("Try again")
    page.until(lambda: page.idle() and page.texts() == ["question", "a whole answer"])
    page.press("Version before")
    page.until(lambda: page.texts()[1] == "half an ans")


def test_a_message_longer_than_the_context_can_be_edited(page):
    page.paste("far too long " * 60)
    page.type("\n")
    page.until(lambda: "too many" in page.texts(".error")[0])
    page.click("Edit it")
    area = page.until(lambda: page.all(".edit textarea"))[0]
    assert area.get_attribute("value").startswith("far too long")
    area.clear()
    area.send_keys("short\n")
    page.until(lambda: page.idle() and page.texts() == ["short", "You said: short"])


def test_another_model_after_a_restart_is_found_by_itself(page):
    page.fake(refused(404, code="model_not_found"), said("hello again"))
    page.type("hello\n")
    page.click("Try again")
    page.until(lambda: page.idle() and page.texts() == ["hello", "hello again"])


def test_token_probabilities_are_shown_and_walked_with_the_keyboard(page):
    page.press("Token probabilities")
    page.until(lambda: page.all("#sure[aria-pressed=true]"))
    page.fake(said((" The", -0.1, [(" The", -0.1), (" A", -2.4)]), (" cat", -1.2, [(" dog", -0.5), (" cat", -1.2)])))
    page.ask("which?")
    assert (page.asked()[0]["logprobs"], page.asked()[0]["top_logprobs"]) == (True, 5)
    assert page.texts(".token") == [" The", " cat"] or [t.strip() for t in page.texts(".token")] == ["The", "cat"]
    page.browser.execute_script("document.querySelector('.token').focus()")
    page.until(lambda: re.findall(r'" \w+"|[\d.]+ %', page.texts(".odds")[0]) == ['" The"', "90.5 %", '" A"', "9.1 %"])
    page.browser.switch_to.active_element.send_keys("\ue014")   # the right arrow
    page.until(lambda: page.texts(".odds .here") == ['" cat"'] and "30.1 %" in page.texts(".odds")[0])
    page.press("Token probabilities")
    page.until(lambda: page.texts()[1].strip() == "The cat" and not page.all(".token"))


# ------------------------------------------------------------------------------------------------------------- controls
def test_slash_commands(page):
    def says(command, *words):
        page.all("#draft")[0].clear()
        page.type(command + "\n")
        page.until(lambda: all(word in page.texts(".notice")[0] for word in words))
    says("/help", "/temperature", "/topk", "/clear")
    says("/temperature 1.5", "/temperature is 1.5")
    says("/topk 7", "/topk is 7")
    says("/topk", "/topk is 7")
    for wrong in ("/temperature hot", "/temperature 3", "/topk -1", "/dance"):
        says(wrong, wrong.split()[0], "not")
        assert page.all(".error") and page.all("#draft")[0].get_attribute("value") == wrong
    page.all("#draft")[0].clear()
    page.fake(said("sure"))
    page.ask("/usr/bin is a folder")
    assert page.texts()[0] == "/usr/bin is a folder"
    assert [page.asked()[0][name] for name in ("temperature", "top_k", "model")] == [1.5, 7, "nanochat-sft"]
    page.type("/clear\n")
    page.until(lambda: page.all("#welcome") and page.texts(".chat > button") == ["/usr/bin is a folder"])


def test_the_enter_that_ends_a_composition_in_safari_does_not_send(page):
    page.type("ni hao")
    press = "draft.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', keyCode: arguments[0], bubbles: true}))"
    page.browser.execute_script(press, 229)
    assert not page.all(".turn") and page.all("#draft")[0].get_attribute("value") == "ni hao"
    page.browser.execute_script(press, 13)
    page.until(lambda: page.idle() and page.texts() == ["ni hao", "You said: ni hao"])


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


def test_a_whole_conversation_with_the_keyboard_alone(page):
    from selenium.webdriver.common.keys import Keys
    press = lambda *keys: page.browser.switch_to.active_element.send_keys(*keys)  # noqa: E731
    assert page.active() == "draft"
    press("two", Keys.SHIFT + Keys.ENTER, Keys.NULL, "lines", Keys.ENTER)
    page.until(lambda: page.idle() and page.texts()[0] == "two\nlines" and len(page.all(".turn")) == 2)
    for _ in range(12):   # back from the message box to the question's own buttons
        press(Keys.SHIFT + Keys.TAB)
        outline = page.browser.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", f"no focus to be seen on {page.active('outerHTML')}"
        if page.active("aria-label") == "Edit":
            break
    press(Keys.ENTER)
    page.until(lambda: page.active("aria-label") == "Edit your message")
    press(" more", Keys.ENTER)
    page.until(lambda: page.idle() and page.texts()[0] == "two\nlines more" and page.active() == "draft")


def test_a_screen_reader_hears_each_answer_once(page, model):
    page.ask("first")
    page.browser.execute_script("window.kept = document.querySelector('.turn')")
    model.pace_s = 0.01
    page.type("long one\n")
    page.until(lambda: "word" in page.texts()[-1])
    assert page.all(".turn")[-1].get_attribute("aria-live") == "off" and not page.idle()
    page.type("\ue00c")
    page.until(page.idle)
    assert page.all(".turn")[-1].get_attribute("aria-live") is None
    assert page.browser.execute_script("return kept === document.querySelector('.turn')"), "what was heard is drawn anew"


PLACES = [Path(p) / "node_modules" / "axe-core" / "axe.min.js" for p in (Path.home(), *ROOT.parents, "/usr/local/lib", "/usr/lib")]
AXE = [path for path in (Path(os.environ.get("AXE_CORE", "-")), *PLACES) if path.is_file()]


@pytest.mark.skipif(not AXE, reason="axe-core is not installed: npm install -g axe-core, or AXE_CORE=.../axe.min.js")
@pytest.mark.parametrize("width, scheme", [(1100, "light"), (380, "dark")])
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
