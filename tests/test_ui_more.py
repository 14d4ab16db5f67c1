"""The chat page in a real browser: hostile text, a server in trouble, and every way to use it."""
import json
import re

from chatpage import IN_A_BROWSER, browser, model, page, refused, said, tokenizer, url  # noqa: F401

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
HARMLESS = set("article div p br code pre b strong em a ul ol li blockquote h2 h3 h4 hr span button svg path i section s "
               "@class @role @title @type @tabindex @viewBox @d @href @target @rel @start @id @aria-label @aria-hidden @dir "
               "@aria-live @aria-current @aria-pressed https:".split())


def test_an_xss_corpus_builds_only_harmless_elements(page):
    messages = [{"role": role, "content": attack} for attack in CORPUS for role in ("user", "assistant")]
    page.browser.execute_script("localStorage['nanochat.chat.x'] = arguments[0]; history.replaceState(null, '', '#x')",
                                json.dumps({"id": "x", "title": CORPUS[0], "messages": messages}))
    page.browser.refresh()
    page.until(lambda: len(page.all(".turn")) == 2 * len(CORPUS))
    page.fake(said(*CORPUS, *(f"\n\n{attack}" for attack in CORPUS)))
    page.type("all at once\n")
    page.until(lambda: len(page.all(".turn")) == 2 * len(CORPUS) + 2 and page.idle())
    page.press("Token probabilities")
    page.fake(said(*((attack, -1.0, [(attack, -1.0)]) for attack in CORPUS[:20])))
    page.type("as tokens\n")
    page.until(lambda: page.idle() and len(page.all(".token")) >= 15)   # the text of a link has none
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


# ------------------------------------------------------------------------------------------------- the server's answers
def test_speed_and_context_are_shown(page):
    page.ask("hello")
    tokens, speed = re.fullmatch(r"(\d+) tokens · (\d+) tokens/s", page.texts(".assistant .stats")[0]).groups()
    used, of = re.fullmatch(r"(\d+) of (\d+) tokens", page.texts("#gauge")[0]).groups()
    assert 5 < int(tokens) < int(used) < int(of) == 700 and int(speed) > 0


def test_a_stream_that_breaks_off_keeps_what_came_and_can_be_tried_again(page):
    page.fake(said("half an ans", end=""), said("a whole answer"))
    page.type("question\n")
    page.until(lambda: "Nothing you wrote is lost" in page.texts(".error")[0])
    assert page.texts() == ["question", "half an ans"] and page.texts(".note") == ["Broken off."]
    page.click("Try again")
    page.until(lambda: page.idle() and page.texts() == ["question", "a whole answer"])
    page.press("Version before")
    page.until(lambda: page.texts()[1] == "half an ans")


def test_a_message_longer_than_the_context_can_be_edited(page):
    page.paste("far too long " * 100)
    page.type("\n")
    page.until(lambda: "The model's context is 700 tokens; the messages take" in page.texts(".error")[0])
    page.press("Edit")
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
    for wrong in ("/temperature hot", "/temperature 3", "/topk -1", "/dance", "/dance with me now", "/clear this not"):
        says(wrong, wrong.split()[0], "not")
        assert page.all(".error") and page.all("#draft")[0].get_attribute("value") == wrong
    page.all("#draft")[0].clear()
    page.fake(said("sure"))
    page.ask("/usr/bin is a folder")
    page.ask(" /dance with me now")     # a blank before it: no command
    assert page.texts()[::2] == ["/usr/bin is a folder", "/dance with me now"]
    assert [page.asked()[0][name] for name in ("temperature", "top_k", "model")] == [1.5, 7, "nanochat-sft"]
    page.type("/clear\n")
    page.until(lambda: page.all("#welcome") and page.texts(".chat > button") == ["/usr/bin is a folder"])


def test_a_menu_completes_commands(page):
    from selenium.webdriver.common.keys import Keys
    names = lambda: [text.split()[0] for text in page.texts("#commands [role=option]")]  # noqa: E731
    chosen = lambda: page.texts("#commands [aria-selected=true]")[0].split()[0]  # noqa: E731
    value = lambda: page.all("#draft")[0].get_attribute("value")  # noqa: E731
    page.type("/")
    assert len(names()) == 5 and chosen() == "/clear" and page.active("aria-activedescendant") == "command-clear"
    page.type(Keys.ARROW_UP)
    assert chosen() == "/topk"
    page.type("t")
    assert names() == ["/temperature", "/topk"] and chosen() == "/topk"
    page.type(Keys.TAB)
    assert value() == "/topk " and not names() and page.active() == "draft"
    page.type("5\n")
    page.until(lambda: "/topk is 5" in page.texts(".notice")[0] and value() == "")
    page.type("/he\n")     # one that wants nothing more is done at once
    page.until(lambda: "/topk NUMBER: choose" in page.texts(".notice")[0] and "Ctrl+K" in page.texts(".notice")[0])
    page.type("/te\n0.5\n")
    page.until(lambda: "/temperature is 0.5" in page.texts(".notice")[0])


def test_keys_lead_everywhere(page):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    def ctrl(*keys):
        ActionChains(page.browser).key_down(Keys.CONTROL).send_keys(*keys).key_up(Keys.CONTROL).perform()
    page.ask("first")
    page.ask("second")
    page.type(Keys.ARROW_UP)
    page.until(lambda: page.active("value") == "second" and page.active("aria-label") == "Edit your message")
    page.browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    page.until(lambda: page.active() == "draft")
    ctrl("k")
    page.until(lambda: page.active() == "search" and page.all("#side")[0].is_displayed())
    ctrl("b")
    page.until(lambda: page.active() == "draft" and not page.all("#side")[0].is_displayed())
    ctrl("b")
    page.until(lambda: page.active() == "search")
    ActionChains(page.browser).key_down(Keys.CONTROL).key_down(Keys.SHIFT).send_keys("o").key_up(Keys.SHIFT).key_up(
        Keys.CONTROL).perform()
    page.until(lambda: page.all("#welcome") and page.active() == "draft")


def test_a_stopped_answer_can_be_continued(page, model):
    model.pace_s = 0.02
    page.type("long one\n")
    page.until(lambda: "word word" in page.texts()[-1])
    page.type("\ue00c")
    page.until(page.idle)
    begun = page.texts()[-1]
    model.pace_s = 0.0
    page.press("Continue")
    page.until(lambda: page.idle() and len(page.texts()[-1]) > len(begun) + 50)
    assert page.texts()[-1].startswith(begun) and len(page.all(".turn")) == 2 and page.texts(".acts")[-1].count("/ ") == 0
    assert page.texts(".note") == ["Cut at the longest answer allowed."], "and once more, if one likes"


def test_no_setting_makes_an_answer_fail(page):
    """A longest answer as long as the context was taken once, and left no room for any question."""
    page.browser.execute_script("""localStorage["nanochat.settings"] = '{"max_tokens": 699}'""")
    page.browser.refresh()
    page.until(lambda: page.texts("#model") == ["sft"])
    page.ask("hello")
    assert page.texts()[-1] == "You said: hello" and not page.all(".error")
    page.press("Settings")
    assert page.all("#max_tokens")[0].get_attribute("max") == "350" and page.texts("#room-for") == ["350"]
    page.press("Done")
    page.ask("a b c d e " * 40)     # more than half of the context: the answer has what room is left
    assert page.texts()[-1].startswith("You said: a b c") and not page.all(".error")


def test_the_system_prompt_and_all_of_sampling_are_settings(page, model):
    page.click("Settings")
    for name, text in (("system", "You are Leo."), ("top_p", "0.93"), ("min_p", "0.05"), ("seed", "42"), ("max_tokens", "11")):
        page.all(f"#{name}")[0].clear()
        page.all(f"#{name}")[0].send_keys(text)
    page.all("#min_p")[0].clear()       # taken back
    page.all("#top_k")[0].clear()
    page.click("Done")
    page.ask("hi")
    assert "You are Leo." in model.asked[-1]
    page.fake(said("yes"))
    page.ask("really?")
    body = page.asked()[0]
    assert body["messages"][0] == {"role": "system", "content": "You are Leo."} and "min_p" not in body
    assert (body["top_p"], body["seed"], body["max_tokens"], body["top_k"]) == (0.93, 42, 11, 50)


def test_a_button_leads_to_the_end_when_that_is_out_of_sight(page):
    page.ask("long one")
    page.ask("long one more")
    assert not page.all("#bottom")[0].is_displayed()
    page.browser.execute_script("document.getElementById('scroll').scrollTo(0, 0)")
    page.until(page.all("#bottom")[0].is_displayed)
    page.click("To the end")
    page.until(lambda: not page.all("#bottom")[0].is_displayed())


def test_the_enter_that_ends_a_composition_in_safari_does_not_send(page):
    page.type("ni hao")
    press = "draft.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', keyCode: arguments[0], bubbles: true}))"
    page.browser.execute_script(press, 229)
    assert not page.all(".turn") and page.all("#draft")[0].get_attribute("value") == "ni hao"
    page.browser.execute_script(press, 13)
    page.until(lambda: page.idle() and page.texts() == ["ni hao", "You said: ni hao"])


def test_a_whole_conversation_with_the_keyboard_alone(page):
    from selenium.webdriver.common.keys import Keys
    press = lambda *keys: page.browser.switch_to.active_element.send_keys(*keys)  # noqa: E731, PLW0108
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
