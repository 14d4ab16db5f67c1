"""report.html as a file: small, of itself alone, and what a model says in it stays text."""
import html
import re

import pytest
from test_report import SKILLS, ask, full_run, generated, record, save, write_log, written  # noqa: F401

from nanochat.report import webpage


def test_a_long_run_stays_a_small_page_and_keeps_its_spikes():
    points = [(i, 1.0 + (i == 77_777)) for i in range(1, 200_001)]
    kept = webpage.thinned(points)
    assert len(kept) <= webpage.MOST_POINTS + 1 and (77_777, 2.0) in kept and kept[-1] == points[-1]
    assert webpage.thinned(points[:5]) == points[:5] and webpage.thinned([]) == []


def test_the_page_is_one_small_file_that_asks_nobody(full_run, base):  # noqa: F811
    for name in ("base_train", "mid_train", "chat_sft", "rl"):
        write_log(base / "logs" / f"{name}.jsonl", n=20_000, val_loss=0.5)
    _, page = written(base)
    assert len(page.encode()) < 300_000
    assert not re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?[^"')]""", page) and "@import" not in page and "fetch(" not in page


@pytest.mark.parametrize("said", ["<script>window.hacked = 1</script>", "</script><script>window.hacked=1</script>",
                                  "[x](javascript:window.hacked=1)", "<img src=x onerror=window.hacked=1>", "{{ 7 * 7 }}",
                                  "<!-- ", "```\n<b>", "![x](https://example.org/x.png)", "<https://example.org>"])
def test_what_a_model_says_stays_text(base, said):
    ask(base, "sft", SKILLS[0], (f"What is {said}?", said), right=0.0)
    save("chat_eval_sft", {"tasks": {SKILLS[0]: record(0.0, 1)}}, config={"stage": "sft"})
    save("base_loss", {"val_bpb": 1.0, "train_bpb": 1.0, "samples": [{"prompt": said, "text": said}]})
    text = generated(base)
    page = webpage.write(text, [], [])
    assert "## A talk with it" in text
    assert page.count("<script") == 1 and "<img" not in page and "<a " not in page and "<!--" not in page and ">49<" not in page
    assert re.sub(r"\s+", " ", said) in re.sub(r"\s+", " ", html.unescape(re.sub("<[^>]*>", "", page))), "and all of it is there"
