"""The chat page in a real browser: many chats, their versions, tabs, and a storage that is full or forbidden."""
import json

from chatpage import IN_A_BROWSER, Page, browser, browsing, model, page, said, tokenizer, url  # noqa: F401

pytestmark = IN_A_BROWSER


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
    page.until(lambda: page.active("aria-label") == "Name of this chat")
    page.browser.switch_to.active_element.send_keys("Fruit\ue007")   # in its place; Enter
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


def test_two_tabs_write_in_one_chat_and_no_answer_draft_or_setting_is_lost(page, model):
    page.ask("one")
    first = page.browser.current_window_handle
    address = page.browser.current_url
    stored = lambda key: json.loads(page.browser.execute_script("return localStorage[arguments[0]]", key))  # noqa: E731
    page.browser.switch_to.new_window("tab")
    second = page.browser.current_window_handle
    try:
        page.browser.get(address)
        page.until(lambda: page.texts() == ["one", "You said: one"])
        model.pace_s = 0.02
        page.type("markdown here\n")
        page.until(lambda: not page.idle())
        page.type("draft of two")
        page.browser.switch_to.window(first)
        page.until(lambda: page.texts()[-1] == "markdown here")
        page.type("there\n")     # while the other tab's answer is being written
        page.type("draft of one")
        model.pace_s = 0.0
        page.until(lambda: page.idle() and page.texts()[-1] == "You said: there")
        page.browser.switch_to.window(second)
        page.until(lambda: page.idle() and page.texts(".assistant blockquote") == ["said"])
        assert page.all("#draft")[0].get_attribute("value") == "draft of two"
        page.all("#draft")[0].clear()
        page.type("/topk 7\n")
        page.until(lambda: "/topk is 7" in page.texts(".notice")[0])
        page.browser.close()
    finally:
        page.browser.switch_to.window(first)
    assert page.all("#draft")[0].get_attribute("value") == "draft of one"
    page.all("#draft")[0].clear()
    page.type("/temperature 1.5\n")
    page.until(lambda: "/temperature is 1.5" in page.texts(".notice")[0])
    assert stored("nanochat.settings") == {"top_k": 7, "temperature": 1.5}
    id = address.partition("#")[2]
    messages = stored(f"nanochat.chat.{id}")["messages"]
    kept = [" ".join("".join(part["text"] for part in m["content"]).split()) for m in messages if m["role"] == "assistant"]
    assert "You said: one" in kept and "You said: there" in kept and any("# Head" in text for text in kept), kept
    assert len({m["id"] for m in messages}) == len(messages)


def test_each_chat_has_an_address_and_back_leads_to_the_one_before(page):
    home = page.browser.current_url
    page.ask("apples")
    apples = page.browser.current_url
    page.press("New chat")
    page.until(lambda: page.all("#welcome") and page.browser.current_url == home)
    page.ask("pears")
    pears = page.browser.current_url
    assert len({home, apples, pears}) == 3
    page.browser.back()
    page.until(lambda: page.texts()[:1] == ["apples"])
    page.browser.forward()
    page.until(lambda: page.texts()[:1] == ["pears"])
    page.browser.get(home)
    page.until(lambda: page.all("#welcome"))
    page.browser.get(apples)
    page.until(lambda: page.texts()[:1] == ["apples"])
    page.browser.refresh()
    page.until(lambda: page.texts()[:1] == ["apples"] and page.browser.current_url == apples)


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


def test_a_full_storage_is_said_and_the_chat_goes_on(page):
    page.browser.execute_script("Storage.prototype.setItem = () => { throw new DOMException('', 'QuotaExceededError') }")
    page.type("hello\n")
    page.until(lambda: page.idle() and page.texts() == ["hello", "You said: hello"])
    assert "storage is full" in page.texts(".error")[0]
    page.click("Dismiss")
    page.until(lambda: not page.all(".notice"))
    page.ask("more")
    assert page.texts()[-1] == "You said: more" and "storage is full" in page.texts(".error")[0]
