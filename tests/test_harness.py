"""
How likely the model finds a text that is given: what programs that measure models, such as EleutherAI's
lm-evaluation-harness, ask of the completions API. The reference is the project's own scoring.
"""
import json
import threading

import httpx
import pytest
import torch
from engines import drain, greedy
from serving import HELLO, LEN, client, engine, make_engine, served, serving, settles, tokenizer  # noqa: F401
from tiny import prompts_of, tiny_model

from nanochat.eval.prompts import Item, Span
from nanochat.eval.scoring import score_items
from nanochat.infer.engine import Engine
from nanochat.infer.runner import Runner
from nanochat.infer.sampling import Sampling
from nanochat.infer.sequence import Sequence
from nanochat.serve import text_requests

TEXT = "The cat sat on the mat, Zoë 東京 😀."


def score(client, prompt, **more):
    """The choices of what lm-evaluation-harness asks."""
    body = {"prompt": prompt, "max_tokens": 1, "temperature": 0, "logprobs": 1, "seed": 1234, "echo": True, **more}
    answer = client.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"]


def reference(model, ids):
    """Log-probabilities of ids[1:] in the model's own forward pass, (n - 1,), and the likeliest token at each place."""
    logprobs = model(torch.tensor([ids]))[0, :-1].log_softmax(-1)
    return logprobs.gather(1, torch.tensor(ids[1:])[:, None])[:, 0], logprobs.max(-1).values


def test_a_text_is_told_again_with_the_models_own_log_probabilities(client, engine, tokenizer):
    choice, = score(client, TEXT)
    told, ids = choice["logprobs"], tokenizer.encode(TEXT)
    assert choice["text"].startswith(TEXT) and choice["finish_reason"] == "length"
    n = len(ids) + 1
    assert [len(told[name]) for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")] == [n] * 4
    assert told["token_logprobs"][0] is None and told["top_logprobs"][0] is None and told["text_offset"][0] == 0
    logprobs, best = reference(engine.model, [tokenizer.bos_id, *ids])
    assert told["token_logprobs"][1:-1] == pytest.approx(logprobs[1:].tolist(), abs=2e-3)
    assert [max(top.values()) for top in told["top_logprobs"][1:-1]] == pytest.approx(best[1:].tolist(), abs=2e-3)
    ascii_part = TEXT.index("Zo")
    pieces = [(token, offset) for token, offset in zip(told["tokens"], told["text_offset"]) if offset < ascii_part]
    assert all(TEXT[offset:offset + len(token)] == token for token, offset in pieces) and len(pieces) > 5


def test_prompts_may_be_texts_or_token_ids_one_or_many_with_bos_or_without(client, tokenizer):
    texts = [TEXT, "hello there, how are you?"]
    ids = [tokenizer.encode(text) for text in texts]
    alone = [score(client, text)[0]["logprobs"] for text in texts]
    for given in (texts, ids):
        choices = score(client, given)
        assert [choice["index"] for choice in choices] == [0, 1]
        for choice, one in zip(choices, alone):
            assert choice["logprobs"]["tokens"] == one["tokens"]
            assert choice["logprobs"]["token_logprobs"][1:] == pytest.approx(one["token_logprobs"][1:], abs=2e-3)
    one, = score(client, ids[1])
    assert one["logprobs"]["tokens"] == alone[1]["tokens"]
    begun, = score(client, [tokenizer.bos_id, *ids[1]])     # as a tokenizer gives them that puts bos first: a token more
    assert begun["text"] == one["text"] and begun["logprobs"]["tokens"] == ["", *one["logprobs"]["tokens"]]
    assert begun["logprobs"]["token_logprobs"][2:] == pytest.approx(one["logprobs"]["token_logprobs"][1:], abs=2e-3)
    assert begun["logprobs"]["token_logprobs"][1] < 0      # and so the text's first token has a number
    assert client.post("/v1/completions", json={"prompt": [5, tokenizer.bos_id], "echo": True}).status_code == 400


def test_a_prompt_is_only_read_where_no_token_may_be_said(client):
    whole, = score(client, TEXT)
    none, = score(client, TEXT, max_tokens=0)
    assert none["text"] == TEXT and none["finish_reason"] == "length"
    assert len(none["logprobs"]["tokens"]) == len(whole["logprobs"]["tokens"]) - 1
    answer = client.post("/v1/completions", json={"prompt": TEXT, "max_tokens": 0}).json()
    assert answer["choices"][0]["text"] == "" and answer["usage"]["completion_tokens"] == 0
    plain, = score(client, TEXT, logprobs=None, max_tokens=5)
    assert plain["logprobs"] is None and plain["text"].startswith(TEXT) and len(plain["text"]) > len(TEXT)


def test_a_stream_tells_the_prompt_first(client):
    whole, = score(client, TEXT, max_tokens=4)
    body = {"prompt": TEXT, "max_tokens": 4, "temperature": 0, "logprobs": 1, "echo": True, "stream": True}
    lines = client.post("/v1/completions", json=body).text.split("\n\n")
    chunks = [json.loads(line.removeprefix("data: "))["choices"][0] for line in lines if "{" in line]
    assert chunks[0]["text"] == TEXT and "".join(chunk["text"] for chunk in chunks) == whole["text"]
    offsets = [offset for chunk in chunks if chunk["logprobs"] for offset in chunk["logprobs"]["text_offset"]]
    assert offsets == whole["logprobs"]["text_offset"]


def test_the_closing_token_is_told_so_that_the_prompts_stay_in_their_places(tokenizer):
    """The harness takes the last token for the one that was said; with none there it would lose one of the prompt's."""
    engine = make_engine(tokenizer)
    head = engine.model.lm_head.weight.data
    head[tokenizer.special("<|assistant_end|>")] = 40 * head[65]
    with serving(engine) as (url, _), httpx.Client(base_url=url, timeout=60) as client:
        ended = 0
        for text in ("hello there", "the cat", "a", "Question: what", "it is blue", "47 * 12"):
            choice, = score(client, text)
            ended += choice["finish_reason"] == "stop"
            assert len(choice["logprobs"]["tokens"]) == len(tokenizer.encode(text)) + 1
            if choice["finish_reason"] == "stop":
                assert choice["text"] == text and choice["logprobs"]["token_logprobs"][-1] < 0
        assert ended


# ------------------------------------------------------------------------------------------------------- the same scores
def run_scored(scheduler, prompts, counts=2):
    """Ended sequences of prompts that were scored."""
    sequences = []
    for prompt in prompts:
        sampling = Sampling(1, 0.0, use_tools=False, logprobs=counts, echo=len(prompt))
        sequences.append(Sequence(scheduler.tokenizer, prompt, sampling))
        scheduler.add(sequences[-1])
    drain(scheduler)
    return sequences


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("beside", [7, 16384])
def test_scores_equal_those_of_the_projects_own_evaluation(tokenizer, compiled, beside, monkeypatch):
    """However the prompts are cut into pieces, and whoever decodes beside them."""
    if not compiled:
        monkeypatch.setattr("nanochat.infer.runner.unknown_parts", lambda model: ["tried"])
    model = tiny_model(tokenizer.vocab_size, 96, n_head=4, n_kv_head=2)
    scheduler = Engine(model, tokenizer).scheduler(3, prefill_beside=beside)
    assert isinstance(scheduler.runner, Runner) and bool(scheduler.runner.compiled) == compiled
    prompts = prompts_of(tokenizer, (60, 61, 2, 90, 1, 33))
    prompts[1][:40] = prompts[0][:40]     # what is known of one is read again for the other
    company = Sequence(tokenizer, prompts[3][:20], Sampling(40, 0.0, use_tools=False))
    scheduler.add(company)
    for sequence, prompt in zip(run_scored(scheduler, prompts), prompts):
        assert len(sequence.prompt_logprobs) == len(prompt) and sequence.prompt_logprobs[0] is None
        if len(prompt) > 1:
            score, = score_items(model, [Item(0, [Span(prompt, 1)], 0)])[0]
            mine = [logprob for logprob, _ in sequence.prompt_logprobs[1:]]
            assert sum(mine) / len(mine) == pytest.approx(score.log_likelihood, abs=2e-3)
            likeliest = [best[0][0] for _, best in sequence.prompt_logprobs[1:]]
            assert sum(a == b for a, b in zip(likeliest, score.likeliest)) >= len(likeliest) - 1
    assert company.ids == greedy(model, tokenizer, prompts[3][:20], 40)


def test_scores_are_the_same_bits_where_the_engine_is_deterministic(tokenizer):
    model = tiny_model(tokenizer.vocab_size, 96, n_head=4, n_kv_head=2)
    prompts = prompts_of(tokenizer, (60, 61, 90))
    engine = Engine(model, tokenizer, deterministic=True)
    together = run_scored(engine.scheduler(3), prompts)
    chunked = [run_scored(engine.scheduler(1, prefill_beside=7), [prompt])[0] for prompt in prompts]
    for one, other in zip(together, chunked):
        assert one.prompt_logprobs == other.prompt_logprobs


# --------------------------------------------------------------------------------------------------------------- bounds
@pytest.mark.parametrize("change, param", [
    ({"echo": 1}, "echo"), ({"echo": "yes"}, "echo"), ({"max_tokens": -1}, "max_tokens"), ({"logprobs": 21}, "logprobs"),
    ({"prompt": "word " * 500}, "prompt"), ({"prompt": [3] * LEN, "max_tokens": 0}, "prompt"), ({"prompt": ["a"] * 9}, "n")])
def test_what_cannot_be_scored_is_a_400_that_names_the_field(client, change, param):
    response = client.post("/v1/completions", json={"prompt": "a", "echo": True, "logprobs": 1, **change})
    assert response.status_code == 400 and response.json()["error"]["param"] == param, response.text


def test_a_request_may_have_so_many_scored_tokens(client, monkeypatch):
    monkeypatch.setattr(text_requests, "MAX_SCORED_TOKENS", 30)
    refused = client.post("/v1/completions", json={"prompt": [[3] * 20] * 2, "echo": True, "logprobs": 1})
    assert refused.status_code == 400 and "fewer at once" in refused.json()["error"]["message"]
    for fine in ({"prompt": [[3] * 20] * 2}, {"prompt": [3] * 40, "logprobs": 1}):
        assert client.post("/v1/completions", json={"echo": True, **fine}).status_code == 200


def test_scoring_takes_places_and_lets_the_others_go_on(client, served, engine, monkeypatch):
    """A long prompt is read beside the others' tokens, in the same pieces as one that is answered."""
    monkeypatch.setattr("nanochat.serve.worker.BESIDE_TOKENS", 16)
    engine.model.pace_s = 0.02
    body = {"messages": HELLO, "stream": True, "max_tokens": 100}
    with (serving(engine, slots=2, max_waiting=0) as (url, app), httpx.Client(base_url=url, timeout=60) as asking,
          asking.stream("POST", "/v1/chat/completions", json=body) as answer):
        lines = answer.iter_lines()
        next(lines)
        scored = []
        thread = threading.Thread(target=lambda: scored.extend(score(asking, [3] * 150)))
        thread.start()
        settles(lambda: app.state.worker.busy == 2)
        assert asking.post("/v1/completions", json={"prompt": "a", "echo": True, "logprobs": 1}).status_code == 429
        said = 0
        while thread.is_alive():
            said += next(lines).startswith("data")
        assert said >= 5      # ten pieces of 16 tokens, a token of the other's answer with each
    assert len(scored[0]["logprobs"]["tokens"]) == 151
