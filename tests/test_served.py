"""The models of a server: each loaded when somebody asks it, in its newest version, and let go for room."""
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from conftest import ROOT
from serving import Given, ask, make_engine, serving, settles, tokenizer  # noqa: F401
from tiny import save_tiny_checkpoint

from nanochat.common import MissingArtifact, append_jsonl, atomic_write
from nanochat.serve.served import Checkpoints
from nanochat.train import checkpoint
from scripts import chat_web


@pytest.fixture
def engines(tokenizer):     # noqa: F811
    return {f"nanochat-{stage}": make_engine(tokenizer) for stage in ("rl", "sft", "base")}


def test_a_model_is_loaded_when_it_is_asked_for_the_first_time(engines):
    source = Given(engines)
    with serving(None, source=source) as (url, _), httpx.Client(base_url=url, timeout=60) as client:
        assert [model["id"] for model in client.get("/v1/models").json()["data"]] == list(engines) and source.loads == []
        for name in ("nanochat-sft", None, "nanochat-sft"):
            assert ask(client, model=name).json()["model"] == (name or "nanochat-rl")
        assert source.loads == [("nanochat-sft", ""), ("nanochat-rl", "")]
        assert ask(client, model="nanochat-mid").status_code == 404


def test_several_who_ask_at_once_load_it_once(engines):
    source = Given(engines)
    with serving(None, source=source) as (url, _), httpx.Client(base_url=url, timeout=60) as client, ThreadPoolExecutor(6) as pool:
        names = list(engines) * 2
        answers = list(pool.map(lambda name: ask(client, model=name).json()["model"], names))
        assert answers == names and sorted(source.loads) == sorted((name, "") for name in engines)


def test_a_newer_checkpoint_takes_the_place_of_the_one_before_but_not_in_the_midst_of_an_answer(engines):
    source = Given(engines)
    with (serving(None, source=source) as (url, app), httpx.Client(base_url=url, timeout=60) as client,
          ThreadPoolExecutor(1) as pool):
        ask(client)
        before = app.state.served.loaded["nanochat-rl"].api.worker
        engines["nanochat-rl"].model.pace_s = 0.05
        slow = pool.submit(ask, client, max_tokens=40)
        settles(lambda: before.busy)
        source.versions["nanochat-rl"] = "d3/200"
        assert ask(client, max_tokens=1).status_code == 200 and len(source.loads) == 1
        assert slow.result().json()["usage"]["completion_tokens"] == 40
        ask(client)
        assert source.loads[1:] == [("nanochat-rl", "d3/200")] and not before.is_alive()


def test_a_crashed_model_does_not_refuse_for_the_others(engines):
    with serving(None, source=Given(engines)) as (url, app), httpx.Client(base_url=url, timeout=60) as client:
        ask(client, model="nanochat-rl")
        ask(client, model="nanochat-sft")
        served = app.state.served
        served.loaded["nanochat-rl"].api.worker.failed = True
        served.check()
        assert ask(client, model="nanochat-sft").status_code == 200


def test_what_was_not_asked_for_longest_goes_when_there_is_no_room(engines):
    source = Given(engines, room=2)     # each is of size 1
    with serving(None, source=source) as (url, app), httpx.Client(base_url=url, timeout=60) as client:
        for name in ("nanochat-rl", "nanochat-sft", "nanochat-rl", "nanochat-base"):
            ask(client, model=name)
        assert set(app.state.served.loaded) == {"nanochat-rl", "nanochat-base"}


def test_before_a_model_is_there_that_is_said_and_the_page_is_there(base):
    with serving(None, source=Checkpoints()) as (url, _), httpx.Client(base_url=url, timeout=60) as client:
        assert client.get("/v1/models").json()["data"] == [] and client.get("/").status_code == 200
        refused = ask(client)
        assert refused.status_code == 503 and "No model has been trained yet" in refused.json()["error"]["message"]
        assert client.get("/run").status_code == client.get("/health").status_code == 200
        save_tiny_checkpoint("base", "kindergarten")
        assert ask(client, model="nanochat-base", max_tokens=2).json()["usage"]["completion_tokens"] == 2


def test_the_newest_checkpoint_of_each_stage_is_found(base):
    model, tokenizer = save_tiny_checkpoint("base", "kindergarten")     # noqa: F811
    save_tiny_checkpoint("sft", "kindergarten", tokenizer=tokenizer)
    meta = checkpoint.read_meta(checkpoint.find("base"))
    checkpoint.save(checkpoint.stage_dir("base") / "tiny", 9, model.state_dict(), None, meta, tokenizer=tokenizer)
    found = {each.id: each.version for each in Checkpoints().found()}
    assert found == {"nanochat-sft": "tiny/000005", "nanochat-base": "tiny/000009"}
    assert list(found) == ["nanochat-sft", "nanochat-base"], "who names none is answered by the latest that chats"
    assert Checkpoints().load(Checkpoints().found()[0]).max_len == 64


def test_a_model_that_cannot_be_loaded_is_one_sentence_without_a_path(base):
    save_tiny_checkpoint("sft", "kindergarten")
    weights = checkpoint.find("sft") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"oops")
    with serving(None, source=Checkpoints()) as (url, _), httpx.Client(base_url=url, timeout=60) as client:
        refused = ask(client)
        assert refused.status_code == 503 and str(base) not in refused.text and "nanochat-sft cannot be loaded" in refused.text


@pytest.mark.parametrize("argv", [["-i", "rl"], ["--step=7"], ["--tag=other"]])
def test_a_model_that_was_asked_for_by_name_must_be_there(base, argv):
    save_tiny_checkpoint("sft", "kindergarten")
    with pytest.raises(MissingArtifact):
        chat_web.main([*argv, "--port=0"])


def test_the_page_alone_needs_no_torch():
    code = ("import sys, scripts.chat_web as web\nfrom nanochat.serve import run_view\nserved = web.models_of(web.Config())\n"
            "web.create_app(served)\nrun_view.view({})\nprint({'torch', 'numba', 'matplotlib'} & set(sys.modules))")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


# ---------------------------------------------------------------------------------------------------- the run, its report
def test_the_server_tells_it_and_wants_the_key(base, tokenizer):     # noqa: F811
    for step in (1, 2, 3):
        append_jsonl(base / "logs" / "base_d3.jsonl", {"step": step, "loss": 1.0})
    with serving(make_engine(tokenizer), api_key="right") as (url, _), httpx.Client(base_url=url) as client:
        assert client.get("/run").status_code == 401 and client.get("/report/report.md").status_code == 401
        client.headers["Authorization"] = "Bearer right"
        found = client.get("/run").json()
        assert [point["step"] for point in found["logs"][0]["points"]] == [1, 2, 3] and found["models"] == ["tiny"]
        assert client.get("/run", params={"after": json.dumps(found["after"])}).json()["logs"][0]["points"] == []
        for wrong in ("{", "7", '{"base_d3.jsonl": ["a", 1]}', '{"base_d3.jsonl": [1, 2, 3]}', "[" * 5000):
            refused = client.get("/run", params={"after": wrong})
            assert refused.status_code == 400 and refused.json()["error"]["param"] == "after"


def test_the_report_is_shown_in_a_sandbox_and_nothing_beside_it(base, tokenizer):     # noqa: F811
    for name in ("report.html", "report_files/base_train.png", "results/base_train.json", "start.json", "items/x.jsonl"):
        atomic_write(base / "report" / name, "<script>1</script>")
    (base / "secret.md").write_text("x", encoding="utf-8")
    with serving(make_engine(tokenizer)) as (url, _), httpx.Client(base_url=url) as client:
        found = client.get("/report/report.html")
        assert found.text == "<script>1</script>" and found.headers["content-type"].startswith("text/html")
        policy = found.headers["content-security-policy"]
        assert policy.startswith("sandbox allow-scripts;") and "allow-same-origin" not in policy and "default-src 'none'" in policy
        assert client.get("/report/report_files/base_train.png").headers["content-type"] == "image/png"
        for name in ("results/base_train.json", "start.json", "items/x.jsonl", "../secret.md", "..%2fsecret.md", "report.md", ""):
            assert client.get(f"/report/{name}").status_code == 404
