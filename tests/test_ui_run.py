"""The run in a real browser: its stages, its curves as they grow, what is said and graded, all stages side by side."""
import json

import pytest
from chatpage import IN_A_BROWSER, Page, browser, model, screen, tokenizer  # noqa: F401
from serving import Given, serving
from test_ui_looks import AXE

from nanochat.common import append_jsonl, atomic_write, save_result
from nanochat.infer.engine import Engine
from nanochat.train.stages import STAGES

pytestmark = IN_A_BROWSER
SAID = {1: " thethe the", 40: " Adam. Adam", 100: "I am nanochat, a small model."}


@pytest.fixture
def folder(base):
    """A run that is in its third stage."""
    tier = base / ".done" / "kindergarten"
    for number, name in enumerate(("tok_train", "base_train", "mid_train", "chat_eval_mid"), 1):
        atomic_write(tier / f"{number:02d}-{name}", "x")
    atomic_write(tier / "05-chat_sft.begun", "x")
    listed = "tok_train x\nbase_train x\nmid_train x\nchat_eval_mid x\nchat_sft x --num_iterations=300\nchat_rl x\n"
    atomic_write(tier / "stages", listed)
    for stage, steps, loss in (("base", 100, 8.0), ("mid", 100, 4.0), ("sft", 60, 1.0)):
        grow(base, stage, range(1, steps + 1), loss)
    append_jsonl(base / "logs" / "base_d3.jsonl", {"step": 100, "val_bpb": 0.6})
    shape = {"n_layer": 3}
    save_result("base_train", metrics={"params": 2_899_968, "tokens": 1_024_000, "steps": 100, "train_s": 172.5, "model": shape},
                config={"dataset": "kindergarten"}, device="1 x a CPU", wall_s=180.0)
    task = {"n": 50, "chance": 0.1, "group": "kindergarten"}
    tasks = {"kg_letters": {**task, "score": 0.5}, "kg_sentences": {**task, "score": 0.75}}
    save_result("chat_eval_mid", metrics={"tasks": tasks}, config={}, device="cpu", wall_s=9.0)
    atomic_write(base / "report" / "report.md", "# The report")
    return base


def grow(base, stage, steps, loss=1.0):
    for step in steps:
        path = base / "logs" / f"{stage}_d3.jsonl"
        append_jsonl(path, {"step": step, "loss": loss / step ** 0.3, "lr": 1 - step / 400, "tok_per_s": 6000 + step % 7,
                            "elapsed_s": 0.3 * step, "of": 300})
        if step in SAID:
            answers = [[prompt, SAID[step]] for prompt in STAGES[stage].prompts]
            append_jsonl(path, {"step": step, "answers": answers, "memory_gib": 0.4})


@pytest.fixture
def page(browser, folder, model, tokenizer):     # noqa: F811
    engine = Engine(model, tokenizer)
    source = Given({"nanochat-sft": engine, "nanochat-mid": engine, "nanochat-base": engine}, ["Who is Leo?"])
    with serving(None, source=source) as (url, _):
        yield Page(browser, url)
        said = [line["message"] for line in browser.get_log("browser")]
        assert not [line for line in said if "Content Security" in line or "Uncaught" in line], said


def show(page):
    page.press("The run")
    page.until(lambda: page.texts("#stages li") and page.texts("#said th"))


def test_it_tells_the_stages_the_card_and_what_was_graded(page):
    show(page)
    assert page.browser.current_url.endswith("#run")
    assert page.texts("#headline")[0].startswith("Supervised finetuning: step 60 of 300, about 72 s left")
    states = [(item.get_attribute("class"), item.text) for item in page.all("#stages li")]
    assert [how for how, _ in states] == ["done"] * 4 + ["running", "to-come"] and "20%" in states[4][1]
    card = page.texts("#card")[0]
    assert "2,899,968 parameters" in card and "60 people" in card
    assert page.all("#card a")[0].get_attribute("href").endswith("/report/report.md")
    assert [row.split()[-1] for row in page.texts("#skills tr")[1:]] == ["50", "75"] and "MID" in page.texts("#skills tr")[0]
    assert page.texts("#said tr:nth-child(2) th") == ["Who are you?"]
    assert page.texts("#said tr:nth-child(2) td")[0].startswith("My name is")
    assert page.texts("#said th.base") == ["BASE 1", "BASE 40", "BASE 100"]


def test_curves_and_answers_grow_while_it_is_looked_at(page, folder):
    show(page)
    def path():
        return page.browser.execute_script("return document.querySelector('.chart path.sft:not(.raw)').getAttribute('d')")
    before = path()
    columns = len(page.texts("#said tr:first-child th"))
    grow(folder, "sft", range(61, 121))
    page.until(lambda: path() != before and "step 120 of 300" in page.texts("#headline")[0])
    page.until(lambda: len(page.texts("#said tr:first-child th")) == columns + 1)
    asked = "return performance.getEntriesByType('resource').filter(entry => entry.name.includes('/run?')).length"
    page.press("The run")
    page.until(page.all("#log")[0].is_displayed)
    count = page.browser.execute_script(asked)
    page.browser.execute_async_script("setTimeout(arguments[0], 3600)")
    assert page.browser.execute_script(asked) == count, "nobody looks, nothing is asked"


def test_the_pointer_and_the_arrow_keys_tell_the_step(page):
    from selenium.webdriver.common.action_chains import ActionChains
    show(page)
    told = lambda: page.texts("#curves output")[0]  # noqa: E731
    end = page.until(told)
    assert "base" in end and "step" not in end
    ActionChains(page.browser).move_to_element(page.all(".chart")[0]).perform()
    page.until(lambda: told().startswith("step"))
    page.browser.execute_script("document.querySelector('.chart').dispatchEvent(new PointerEvent('pointerleave'))")
    assert told() == end
    page.browser.execute_script("document.querySelector('.chart').focus()")
    page.browser.switch_to.active_element.send_keys("\ue012" * 5)
    page.until(lambda: told().startswith("step"))
    label = page.all(".chart")[0].get_attribute("aria-label")
    assert label.startswith("Loss: base 8 at step 1,") and "sft" in label


def test_the_address_leads_back_and_forth_and_a_reload_to_the_same(page):
    page.ask("hello")
    chat = page.browser.current_url
    show(page)
    assert not page.all("#log")[0].is_displayed() and not page.all("#draft")[0].is_displayed()
    page.browser.back()
    page.until(lambda: page.browser.current_url == chat and page.texts() == ["hello", "You said: hello"])
    assert not page.all("#run")[0].is_displayed()
    page.browser.forward()
    page.until(page.all("#run")[0].is_displayed)
    page.browser.refresh()
    page.until(lambda: page.all("#run")[0].is_displayed() and page.texts("#stages li"))
    page.press("hello")
    page.until(lambda: page.texts()[:1] == ["hello"] and page.browser.current_url == chat)


def test_one_question_goes_to_all_stages(page, model):
    show(page)
    box = page.until(lambda: page.all("#compare textarea"))[0]
    box.send_keys("What is 47 * 12?\n")
    page.until(lambda: len(page.texts("#compare .chip b")) == 3)
    assert [name.split()[0] for name in page.texts("#compare h3")] == ["BASE", "MID", "SFT"]
    assert box.get_attribute("value") == "What is 47 * 12?"


def test_who_lives_there_can_be_asked_about(page):
    show(page)
    page.all("#card button")[0].click()
    page.until(lambda: page.all("#draft")[0].get_attribute("value").startswith("Where does "))


def test_an_empty_folder_says_how_to_begin(page, folder):
    import shutil
    shutil.rmtree(folder)
    page.press("The run")
    page.until(lambda: "bash speedrun.sh" in page.texts("#headline")[0])
    assert not page.texts("#stages li") and not page.all("#said")[0].is_displayed()


def test_what_a_model_says_stays_text(page, folder):
    attack = "<img src=x onerror=window.hacked=1>"
    append_jsonl(folder / "logs" / "sft_d3.jsonl", {"step": 60, "answers": [[attack, attack]] * 6, "group": {
        "question": attack, "answers": [[attack, 1.0], ["no", 0.25]]}})
    show(page)
    page.until(lambda: attack in page.texts("#group")[0])
    assert page.browser.execute_script("return window.hacked") is None and not page.all("#run img")


@pytest.mark.parametrize("width", [1440, 820, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_every_screen_and_axe_finds_nothing_serious(page, width, scheme):
    with screen(page.browser, width, scheme, touch=width < 600):
        page.browser.refresh()
        page.until(lambda: page.texts("#model"))
        show(page)
        wide = page.browser.execute_script("return [document.documentElement, document.getElementById('run')].map("
                                           "e => e.scrollWidth - e.clientWidth)")
        assert max(wide) <= 0
        small = page.browser.execute_script("return [...document.querySelectorAll('#run button')].filter(e => e.checkVisibility()"
                                            " && e.offsetHeight < 40).length")
        assert not small or width > 600
        if AXE:
            page.browser.execute_script(AXE[0].read_text(encoding="utf-8"))
            found = page.browser.execute_async_script("const done = arguments[0]; axe.run().then(r => done(r.violations))")
            bad = [(v["id"], [n["html"] for n in v["nodes"]]) for v in found if v["impact"] in ("serious", "critical")]
            assert not bad, json.dumps(bad)


def test_the_pages_files_stay_small():
    from nanochat.serve.static import FOLDER
    total = sum(path.stat().st_size for path in FOLDER.iterdir())
    assert total <= 100_000, f"{total:,} bytes"
