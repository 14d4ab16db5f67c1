"""The chat page in a real browser, against a real server: talking to the model."""
import pytest
from chatpage import IN_A_BROWSER, XSS, Page, browser, model, page, screen, tokenizer, url  # noqa: F401
from serving import serving

from nanochat.infer.engine import Engine

pytestmark = IN_A_BROWSER


def test_send_and_read_an_answer(page):
    page.ask("hello <b>you</b>")
    assert page.texts() == ["hello <b>you</b>", "You said: hello <b>you</b>"]
    assert page.all("#draft")[0].get_attribute("value") == ""


def test_tool_calls_are_chips(page):
    page.ask("What is 47 * 12?")
    assert (page.texts(".chip code"), page.texts(".chip b")) == (["47 * 12"], ["564"])
    assert page.texts(".chip")[0].startswith("Calculator:")   # for those who do not see the picture
    assert page.texts()[1].startswith("47 * 12 is") and page.texts()[1].endswith("564.")


def test_a_result_that_is_the_whole_answer_stands_there_once(page):
    page.ask("Say ha three times")
    assert (page.texts(".chip code"), page.texts(".chip b")) == (["' ha'*3"], [])
    assert page.texts()[1].endswith("ha ha ha")


def test_markdown_becomes_elements(page):
    page.ask("markdown please")
    for css, text in (("h2", "Head"), ("strong", "bold"), ("em", "slanted"), ("p code", "code"), ("li", "one"),
                      ("pre code", "print('hi')"), ("blockquote", "said")):
        assert page.texts(f".assistant {css}")[0] == text


def test_no_markup_of_the_model_or_the_user_ever_runs(page):
    page.ask("xss " + XSS.replace("\n", " "))
    assert page.browser.execute_script("return window.hacked") is None
    assert not page.all(".turn img, .turn script, .turn .body svg, .turn b, a[href^=javascript]")
    assert "<script>" in page.texts()[0] and "<script>" in page.texts()[1]


@pytest.mark.parametrize("how", ["Stop (Esc)", "\ue00c"])
def test_stop_keeps_what_was_said(page, model, how):
    model.pace_s = 0.02
    page.type("long one\n")
    page.until(lambda: "word word" in page.texts()[-1])
    page.press(how) if how.startswith("Stop") else page.type(how)
    page.until(page.idle)
    assert "word word" in page.texts()[-1] and page.texts(".note") == ["Stopped."]
    model.pace_s = 0.0
    page.ask("and now")
    assert page.texts()[-1] == "You said: and now"


def test_reload_keeps_the_conversation_and_the_draft(page):
    page.ask("remember me")
    page.type("half a thou")
    page.browser.refresh()
    page.until(lambda: page.texts() == ["remember me", "You said: remember me"])
    assert page.all("#draft")[0].get_attribute("value") == "half a thou"
    page.click("New chat")
    assert not page.all(".turn") and page.all("#welcome")


def test_edit_regenerate_and_history(page, model):
    page.ask("first")
    page.ask("second")
    page.click("Regenerate")
    page.until(lambda: page.idle() and "2 / 2" in page.texts(".acts")[-1])
    assert "first" in model.asked[-1] and len(page.all(".turn")) == 4
    page.browser.execute_script("[...document.querySelectorAll('.user .act')].find(b => b.title === 'Edit').click()")
    area = page.until(lambda: page.all(".edit textarea"))[0]
    page.until(lambda: page.browser.switch_to.active_element == area)
    area.send_keys(" changed\n")
    page.until(lambda: page.idle() and page.texts() == ["first changed", "You said: first changed"])
    assert "second" not in model.asked[-1]


def test_a_chat_of_twenty_turns_goes_on_without_its_oldest_messages_and_says_so(page, model):
    for i in range(20):
        page.ask(f"message {i} " + "abcdefgh " * 7)
    assert len(page.all(".turn")) == 40 and not page.all(".error")
    assert page.texts(".cut") == ["The model no longer remembers what is above"]
    assert "message 16" not in model.asked[-1] and "message 19" in model.asked[-1]


def test_what_can_be_asked_is_what_the_model_answered_right_in_its_evaluation(browser, model, tokenizer):
    with serving(Engine(model, tokenizer), "nanochat-sft", suggestions=["Who is Leo?", "What is 2 + 2?"]) as (url, _):
        browser.get(url)
        page = Page.__new__(Page)
        page.browser, page.url = browser, url
        page.until(lambda: page.texts("#ideas button") == ["Who is Leo?", "What is 2 + 2?"])
        page.click("Who is Leo?")
        page.until(lambda: page.texts()[:1] == ["Who is Leo?"])


def test_errors_are_said_and_nothing_written_is_lost(page):
    page.browser.execute_script("window.kept = fetch; window.fetch = () => Promise.reject(new TypeError('down'))")
    page.type("important thought\n")
    page.until(lambda: "cannot be reached" in "".join(page.texts(".error")))
    assert page.texts() == ["important thought"]
    page.browser.execute_script("window.fetch = () => Promise.resolve(new Response('{}', {status: 429}))")
    page.click("Try again")
    page.until(lambda: "answered 429" in "".join(page.texts(".error")))
    page.browser.execute_script("window.fetch = window.kept")
    page.click("Try again")
    page.until(lambda: page.texts() == ["important thought", "You said: important thought"] and not page.all(".error"))


def test_api_key_can_be_entered(browser, model, tokenizer):
    with serving(Engine(model, tokenizer), "nanochat-sft", slots=1, api_key="sésame") as (url, _):
        browser.get(url)
        page = Page.__new__(Page)
        page.browser, page.url = browser, url
        page.until(lambda: "API key" in "".join(page.texts(".error")))
        page.click("Enter the key")
        page.all("#api_key")[0].send_keys("sésame")
        page.click("Done")
        page.until(lambda: page.texts("#model") == ["sft"] and not page.all(".error"))
        page.ask("hello")
        assert page.texts()[-1] == "You said: hello"


def test_settings_are_sent_and_kept(page, model):
    page.click("Settings")
    for name, value in (("top_k", "7"), ("max_tokens", "9")):
        page.all(f"#{name}")[0].clear()
        page.all(f"#{name}")[0].send_keys(value)
    page.click("Done")
    page.ask("another message of mine")
    assert page.texts(".note") == ["Cut at the longest answer allowed."]
    assert len(page.texts()[1]) < len("You said: another")
    page.browser.refresh()
    page.until(lambda: page.texts("#model") == ["sft"])
    page.click("Settings")
    assert page.all("#max_tokens")[0].get_attribute("value") == "9"


@pytest.mark.parametrize("width", [320, 390, 1100])
def test_nothing_is_wider_than_the_screen(page, width):
    with screen(page.browser, width):
        page.ask("markdown " + "x" * 120)
        wide = page.browser.execute_script(
            "return [document.documentElement, document.querySelector('main')].map(e => e.scrollWidth)")
        assert max(wide) <= width


def test_controls_have_names_and_the_keyboard_suffices(page):
    page.ask("hi")
    unnamed = page.browser.execute_script("""return [...document.querySelectorAll('button, input, textarea')].filter(
        e => !(e.textContent.trim() || e.ariaLabel || e.labels?.length)).map(e => e.outerHTML)""")
    assert unnamed == []
    page.until(lambda: page.all("#log")[0].get_attribute("aria-live") == "polite")
    page.type("\ue004")   # Tab leaves the message box: nothing traps the keyboard
    assert page.active() != "draft"
