"""Thumbs: what the server keeps of them, who may send them, and what finetuning makes of the file."""
import json
from types import SimpleNamespace

import httpx
import pytest
from chatpage import IN_A_BROWSER, Page, browser  # noqa: F401
from serving import engine, make_engine, serving, tokenizer  # noqa: F401

from nanochat.serve import feedback
from nanochat.tasks.customjson import CustomJSON
from scripts import chat_web

TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}, {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": [{"type": "python", "text": "2+2"}, {"type": "python_output", "text": "4"},
                                          {"type": "text", "text": "It is 4."}]}]


@pytest.fixture
def kept(engine, tmp_path):
    """A function that sends a thumb, and the file."""
    path = tmp_path / "base" / "feedback.jsonl"
    with serving(engine, feedback=path) as (url, _), httpx.Client(base_url=url) as client:
        assert client.get("/v1/models").json()["data"][0]["feedback"] is True
        yield SimpleNamespace(path=path, send=lambda **body: client.post("/v1/feedback", json=body))


def test_finetuning_takes_the_file_and_learns_only_what_was_liked(kept):
    for id, rating in (("a", "up"), ("b", "down")):
        assert kept.send(id=id, rating=rating, messages=TALK).json() == {"rating": rating}
    liked, disliked = CustomJSON(kept.path).conversations
    weights = lambda chat: [m.get("weight", 1) for m in chat["messages"] if m["role"] == "assistant"]  # noqa: E731
    assert weights(liked) == [0, 1] and weights(disliked) == [0, 0]
    assert liked["messages"][3]["content"] == TALK[3]["content"]


def test_an_opinion_can_be_changed_and_taken_back(kept):
    for rating in ("up", "down", "down"):
        kept.send(id="a", rating=rating, messages=TALK)
    kept.send(id="aa", rating="up", messages=TALK[:2])
    lines = [json.loads(line) for line in kept.path.read_text(encoding="utf-8").splitlines()]
    assert [(line["id"], line["rating"]) for line in lines] == [("a", "down"), ("aa", "up")]
    kept.send(id="a", rating=None, messages=TALK)
    assert [json.loads(line)["id"] for line in kept.path.read_text(encoding="utf-8").splitlines()] == ["aa"]


@pytest.mark.parametrize("body", [
    {"id": "", "rating": "up", "messages": TALK}, {"id": "x" * 65, "rating": "up", "messages": TALK},
    {"id": "a", "rating": "great", "messages": TALK}, {"id": "a", "rating": "up", "messages": TALK[:3]},
    {"id": "a", "rating": "up", "messages": []}, {"id": "a", "messages": TALK}])
def test_what_is_no_opinion_is_refused_and_nothing_kept(kept, body):
    answer = kept.send(**body)
    assert answer.status_code == 400 and answer.json()["error"]["message"] and not kept.path.exists()


def test_the_file_has_a_bound(kept, monkeypatch):
    assert kept.send(id="a", rating="up", messages=TALK).status_code == 200
    before = kept.path.read_bytes()
    monkeypatch.setattr(feedback, "MAX_FILE_BYTES", len(before) + 10)
    answer = kept.send(id="b", rating="up", messages=TALK)
    assert answer.status_code == 507 and "full" in answer.json()["error"]["message"] and kept.path.read_bytes() == before


def test_a_server_for_others_keeps_nothing_unless_it_is_told(engine):
    assert chat_web.Config().feedback and not chat_web.Config(feedback=False).feedback
    assert not chat_web.Config(host="0.0.0.0", api_key="x").feedback
    assert not chat_web.Config(public_host="chat.example.com", api_key="x").feedback
    assert chat_web.Config(host="0.0.0.0", api_key="x", feedback=True).feedback
    with serving(engine) as (url, _), httpx.Client(base_url=url) as client:
        assert client.post("/v1/feedback", json={}).status_code == 404
        assert client.get("/v1/models").json()["data"][0]["feedback"] is False


@pytest.mark.browser
@IN_A_BROWSER[1]
def test_thumbs_on_the_page(browser, engine, tmp_path):
    path = tmp_path / "feedback.jsonl"
    with serving(engine, "nanochat-sft", feedback=path) as (url, _):
        page = Page(browser, url)
        page.ask("hello")
        page.press("Good answer")
        page.until(lambda: page.all("[aria-label='Good answer'][aria-pressed=true]"))
        page.browser.refresh()
        page.until(lambda: page.all("[aria-label='Good answer'][aria-pressed=true]"))
        line, = path.read_text(encoding="utf-8").splitlines()
        assert json.loads(line)["messages"][0] == {"role": "user", "content": "hello"}
        page.press("Bad answer")
        page.until(lambda: '"down"' in path.read_text(encoding="utf-8"))
        page.until(lambda: page.all("[aria-label='Bad answer'][aria-pressed=true]"))
        page.press("Bad answer")
        page.until(lambda: not path.read_text(encoding="utf-8") and not page.all(".turn [aria-pressed=true]"))
