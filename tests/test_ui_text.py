"""The chat page in a real browser: what an answer's text may hold, as Markdown and as tokens, and what is kept of it."""
from chatpage import IN_A_BROWSER, browser, model, page, said, tokenizer, url  # noqa: F401

pytestmark = IN_A_BROWSER

DIRECTIONS = "return [...document.querySelectorAll(arguments[0])].map(e => getComputedStyle(e).direction)"


def test_tables_links_strikethrough_tasks_and_languages_are_drawn(page):
    page.fake(said("Before\n| fruit | **price** |\n|:-:|--:|\n| fig \\| date | 2 |\n| plum |\nno row\n\n",
                   "See https://a.example/x_(y), or [w](https://b.example/A_(b)) ~~gone~~ https://c.example.\n\n",
                   "- [x] done\n- [ ] open\n\n```python\nx = 1\n```\n\na | b\nc | d"))
    page.ask("all of it")
    assert page.texts(".assistant th") == ["fruit", "price"] and page.texts(".assistant th strong") == ["price"]
    assert page.texts(".assistant td") == ["fig | date", "2", "plum", ""]
    assert [e.get_attribute("class") for e in page.all(".assistant th")] == ["middle", "right"]
    links = [(a.text, a.get_attribute("href")) for a in page.all(".assistant a")]
    assert links == [(text, f"https://{address}") for text, address in (
        ("https://a.example/x_(y)", "a.example/x_(y)"), ("w", "b.example/A_(b)"), ("https://c.example", "c.example/"))]
    assert page.texts(".assistant s") == ["gone"] and page.texts(".assistant li") == ["☑ done", "☐ open"]
    assert page.texts(".code .head span") == ["python"] and page.texts("pre code") == ["x = 1"]
    assert page.texts(".assistant .body > p")[::2] == ["Before", "See https://a.example/x_(y), or w gone https://c.example."]
    assert page.texts(".assistant .body > p")[-1] == "a | b\nc | d", "no table without its divider"


def test_each_text_runs_from_the_side_that_its_letters_do(page):
    page.fake(said("שלום\n\nhello\n\n- مرحبا\n\n| א |\n|-|\n| b |"))
    page.ask("שלום")
    directions = lambda css: page.browser.execute_script(DIRECTIONS, css)  # noqa: E731
    assert directions(".user .body") == ["rtl"] and directions(".assistant .body > p") == ["rtl", "ltr"]
    assert directions(".assistant li") == ["rtl"] and directions("th, td") == ["rtl", "ltr"]
    assert directions(".chat > button") == ["rtl"] and directions("#draft") == ["ltr"]
    page.paste("مرحبا")
    assert directions("#draft") == ["rtl"]


def test_the_token_view_keeps_the_markdown_and_is_kept_itself(page):
    token = lambda text, logprob=-0.5: (text, logprob, [(text, logprob), ("other", -3.0)])  # noqa: E731
    page.press("Token probabilities")
    page.fake(said(*map(token, ["#", " He", "ad", "\n\n", "**", "bo", "ld", "**", " and", " [", "a", "](https://x.example/and",
                                ")", " é", "nd", "\n\n- ", "one"])))
    page.ask("which?")

    def texts(css):     # in one go, as the page draws itself anew when it has met the model
        script = "return [...document.querySelectorAll(arguments[0])].map(found => found.innerText.trim())"
        return page.browser.execute_script(script, css)

    for _ in range(2):
        assert texts(".token") == ["He", "ad", "bo", "ld", "and", "", "é", "nd", "one"]
        assert texts("h2 .token") == ["He", "ad"] and texts("li .token") == ["one"]
        assert texts("strong") == ["bold"] and texts(".assistant a") == ["a"] and not texts("a .token")
        page.browser.refresh()      # kept with the chat
        page.until(lambda: page.all(".token"))
    page.press("Token probabilities")
    page.until(lambda: not page.all(".token") and page.texts("strong") == ["bold"])
    page.press("Token probabilities")
    page.until(lambda: len(page.all(".token")) == 9)
    before = page.all(".below")[-1].rect
    page.browser.execute_script("document.querySelector('.token').focus()")
    page.until(lambda: page.texts("#odds .here") == ['" He"'])
    assert page.all(".below")[-1].rect == before, "the card lies over the page"


def test_characters_of_several_tokens_have_a_place_among_them(page):
    chunk = ('data: {"choices": [{"index": 0, "delta": {"content": "a é!"}, "logprobs": {"content": ['
             '{"token": "a ", "logprob": -1}, {"token": "\ufffd", "logprob": -2}, {"token": "\ufffd", "logprob": -3},'
             '{"token": "!", "logprob": -4}]}}]}\n\ndata: [DONE]\n\n')
    page.press("Token probabilities")
    page.fake((200, {}, chunk))
    page.ask("bytes")
    assert [t.strip() for t in page.texts(".token")] == ["a", "é", "!"]
    assert page.all(".token")[2].get_attribute("aria-label") == "! 1.8 %"


def test_a_chat_is_saved_as_markdown(page, tmp_path):
    page.browser.execute_cdp_cmd("Page.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    page.ask("What is 47 * 12?")
    for save in (lambda: page.press("Save What is 47 * 12? as Markdown"), lambda: page.type("/export\n")):
        save()
        file = page.until(lambda: next(tmp_path.glob("*.md")))
        assert file.name == "What-is-47-12.md"
        text = page.until(lambda file=file: file.read_text(encoding="utf-8"))
        assert text.startswith("# What is 47 * 12?\n\n## You\n\nWhat is 47 * 12?\n\n## nanochat\n\n47 * 12 is")
        assert "`47 * 12` = `564`" in text and text.endswith("564.\n")
        file.unlink()


def test_speed_is_the_servers_word_and_none_without_it(page):
    last = 'data: {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 900}%s}\n\ndata: [DONE]\n\n'
    page.fake(said("all", " at", " once", end=last % ', "timings": {"predicted_per_second": 48.6}'),
              said("all", " at", " once", end=last % ""))
    page.ask("how fast?")
    page.ask("and now?")
    assert page.texts(".assistant .stats") == ["900 tokens · 49 tokens/s", "900 tokens"]
