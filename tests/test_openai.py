"""The API as OpenAI's own client sees it, and the layouts that it hides."""
import json

import openai
import pytest
from serving import HELLO, LEN, client, engine, events_of, make_engine, served, serving, tokenizer  # noqa: F401


@pytest.fixture(scope="module")
def openai_client(served):
    with openai.OpenAI(base_url=f"{served[0]}/v1", api_key="none", max_retries=0, timeout=30) as made:
        yield made


def chat(openai_client, **more):
    more = {"model": "tiny", "messages": HELLO, "max_tokens": 12, "temperature": 0, **more}
    return openai_client.chat.completions.create(**more)


def text(openai_client, prompt="hello there", **more):
    return openai_client.completions.create(model="tiny", prompt=prompt, **{"max_tokens": 12, "temperature": 0, **more})


# --------------------------------------------------------------------------------------------------------------- chat
def test_chat_whole_and_streamed_are_the_same(openai_client):
    whole = chat(openai_client)
    assert whole.choices[0].message.role == "assistant" and whole.choices[0].finish_reason == "length"
    *chunks, last = chat(openai_client, stream=True, stream_options={"include_usage": True})
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == whole.choices[0].message.content
    assert last.choices == [] and last.usage.total_tokens == whole.usage.total_tokens
    assert {c.usage for c in chunks} == {None} and {c.id for c in [*chunks, last]} == {last.id}
    assert [c.choices[0].delta.role for c in chunks] == ["assistant"] + [None] * (len(chunks) - 1)
    assert [c.choices[0].finish_reason for c in chunks] == [None] * (len(chunks) - 1) + ["length"]


def test_both_names_of_the_limit_and_both_forms_of_content(openai_client):
    parts = [{"role": "user", "content": [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]}]
    whole = chat(openai_client)
    for other in (chat(openai_client, messages=parts), chat(openai_client, max_tokens=None, max_completion_tokens=12),
                  chat(openai_client, max_tokens=99, max_completion_tokens=12, user="me", extra_body={"unknown": [1]})):
        assert other.choices == whole.choices and other.usage.completion_tokens == 12


def test_a_chunk_is_a_token_also_where_many_were_made_since_the_last(openai_client, monkeypatch):
    """Clients count them; logprobs tell which token each is."""
    monkeypatch.setattr("nanochat.serve.worker.PAUSE_S", 1000)
    chunks = [c.choices[0] for c in chat(openai_client, stream=True, logprobs=True, max_tokens=12)]
    tokens = [c.logprobs.content for c in chunks if c.delta.content and c.delta.role is None]
    assert len(tokens) > 6 and {len(found) for found in tokens[:-1]} == {1}


def test_n_answers_of_one_seed(openai_client):
    whole = chat(openai_client, n=3, temperature=1.5, seed=5)
    said = [c.message.content for c in whole.choices]
    assert [c.index for c in whole.choices] == [0, 1, 2] and len(set(said)) == 3
    assert said == [c.message.content for c in chat(openai_client, n=3, temperature=1.5, seed=5).choices]
    assert said[0] == chat(openai_client, temperature=1.5, seed=5).choices[0].message.content
    assert chat(openai_client, extra_body={"n": 2.0}).usage.completion_tokens == 24   # JSON knows one kind of number
    assert whole.usage.completion_tokens == 36 and whole.usage.prompt_tokens == chat(openai_client).usage.prompt_tokens
    streamed, roles = ["", "", ""], []
    for chunk in chat(openai_client, n=3, temperature=1.5, seed=5, stream=True):
        choice, = chunk.choices
        streamed[choice.index] += choice.delta.content or ""
        roles += [choice.index] if choice.delta.role else []
    assert streamed == said and sorted(roles) == [0, 1, 2]


def test_stop_strings_end_an_answer_before_them(openai_client):
    whole = chat(openai_client, max_tokens=40).choices[0].message.content
    stop = whole[11:14]
    before = whole[:whole.index(stop)]
    for given in (stop, ["never said", stop], [stop, ""]):
        choice = chat(openai_client, max_tokens=40, stop=given).choices[0]
        assert (choice.message.content, choice.finish_reason) == (before, "stop")
    streamed = list(chat(openai_client, max_tokens=40, stop=stop, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in streamed) == before
    assert streamed[-1].choices[0].finish_reason == "stop"
    assert chat(openai_client, max_tokens=40, stop="").choices[0].message.content == whole


def test_chat_logprobs(openai_client):
    assert chat(openai_client).choices[0].logprobs is None
    whole = chat(openai_client, logprobs=True, top_logprobs=5).choices[0]
    tokens = whole.logprobs.content
    assert len(tokens) == 12 and bytes(b for t in tokens for b in t.bytes).decode("utf-8", "replace").lstrip(" ") \
        == whole.message.content
    for token in tokens:
        best = [x.logprob for x in token.top_logprobs]
        assert len(best) == 5 and best == sorted(best, reverse=True) and token.logprob == best[0] <= 0   # greedy
    streamed = [t for c in chat(openai_client, logprobs=True, top_logprobs=5, stream=True)
                for t in (c.choices[0].logprobs.content if c.choices[0].logprobs else [])]
    assert [t.token for t in streamed] == [t.token for t in tokens]
    assert [t.logprob for t in streamed] == pytest.approx([t.logprob for t in tokens], abs=1e-4)
    assert all(t.top_logprobs == [] for t in chat(openai_client, logprobs=True).choices[0].logprobs.content)


# --------------------------------------------------------------------------------------------------------------- text
def test_text_whole_and_streamed_are_the_same(openai_client, engine, tokenizer):
    whole = text(openai_client)
    reply, = engine.generate([[tokenizer.bos_id, *tokenizer.encode("hello there")]], max_new_tokens=12, temperature=0,
                             use_tools=False)
    assert whole.object == "text_completion" and whole.choices[0].text == tokenizer.decode(reply.ids)
    *chunks, last = text(openai_client, stream=True, stream_options={"include_usage": True})
    assert "".join(c.choices[0].text for c in chunks) == whole.choices[0].text
    assert last.choices == [] and last.usage.total_tokens == whole.usage.total_tokens
    assert chunks[-1].choices[0].finish_reason == "length" and chunks[-1].choices[0].text == ""


def test_text_takes_many_prompts_and_token_ids(openai_client, tokenizer):
    prompts = ["hello there", "the cat"]
    alone = [text(openai_client, p).choices[0].text for p in prompts]
    assert [c.text for c in text(openai_client, prompts).choices] == alone
    ids = [tokenizer.encode(p) for p in prompts]
    assert [c.text for c in text(openai_client, ids).choices] == alone
    assert text(openai_client, ids[1]).choices[0].text == alone[1]
    both = text(openai_client, prompts, n=2)
    assert [(c.index, c.text) for c in both.choices] == list(enumerate([alone[0], alone[0], alone[1], alone[1]]))
    assert both.usage.prompt_tokens == 2 + sum(map(len, ids)) and both.usage.completion_tokens == 48


def test_text_logprobs(openai_client):
    whole = text(openai_client, logprobs=2).choices[0]
    told = whole.logprobs
    assert len(told.tokens) == len(told.token_logprobs) == len(told.text_offset) == len(told.top_logprobs) == 12
    assert told.text_offset == [len("".join(told.tokens[:i])) for i in range(12)]
    assert all(1 <= len(best) <= 2 and max(best.values()) == p for best, p in zip(told.top_logprobs, told.token_logprobs))
    streamed = [c.choices[0].logprobs for c in text(openai_client, logprobs=2, stream=True) if c.choices[0].logprobs]
    assert [o for s in streamed for o in s.text_offset] == told.text_offset


@pytest.mark.parametrize("change, param", [
    ({"prompt": []}, "prompt"), ({"prompt": [[]]}, "prompt"), ({"prompt": None}, "prompt"), ({"prompt": ["a", 1]}, "prompt"),
    ({"prompt": [-1]}, "prompt"), ({"prompt": [1 << 70]}, "prompt"), ({"prompt": "word " * 500}, "prompt"),
    ({"prompt": "a", "echo": 0}, "echo"),
    ({"prompt": "a", "max_tokens": 1.5}, "max_tokens"), ({"prompt": "a", "max_tokens": LEN}, "prompt"),
    ({"prompt": ["a"] * 5}, "n"), ({"prompt": "a", "logprobs": 21}, "logprobs")])
def test_invalid_text_requests_get_a_400_that_names_the_field(client, change, param):
    response = client.post("/v1/completions", json=change)
    assert response.status_code == 400 and response.json()["error"]["param"].startswith(param), response.text


def test_special_tokens_cannot_be_given_as_ids(client, tokenizer):
    for special in sorted(tokenizer.special_ids):
        assert client.post("/v1/completions", json={"prompt": [5, special]}).status_code == 400
        alone = client.post("/v1/completions", json={"prompt": [special]})
        assert alone.status_code == (200 if special == tokenizer.bos_id else 400)      # a document begins with bos
    assert client.post("/v1/completions", json={"prompt": [len(tokenizer.tokens) - 1]}).status_code == 200


# -------------------------------------------------------------------------------------------------------------- others
def test_models(openai_client):
    assert [m.id for m in openai_client.models.list()] == ["tiny"] and openai_client.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError) as error:
        openai_client.models.retrieve("gpt/9")
    assert error.value.code == "model_not_found"


def test_errors_are_the_clients_own(openai_client):
    with pytest.raises(openai.NotFoundError):
        openai_client.chat.completions.create(model="gpt-9", messages=HELLO)
    with pytest.raises(openai.BadRequestError) as error:
        chat(openai_client, temperature=9)
    assert error.value.param == "temperature" and error.value.type == "invalid_request_error"
    with pytest.raises(openai.BadRequestError) as error:
        chat(openai_client, max_tokens=LEN)
    assert error.value.code == "context_length_exceeded"


def test_an_error_after_the_first_byte_is_raised_by_the_client(tokenizer):
    engine = make_engine(tokenizer)
    engine.model.pace_s = 0.1
    with serving(engine) as (url, _), openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as made:
        stream = chat(made, stream=True, max_tokens=100)
        next(stream)
        engine.model.broken = True
        with pytest.raises(openai.APIError, match="stopped"):
            list(stream)
        with pytest.raises(openai.InternalServerError):
            chat(made)


@pytest.mark.parametrize("path, body", [("/v1/chat/completions", {"messages": HELLO}), ("/v1/completions", {"prompt": "hello"})])
def test_raw_bytes_of_a_stream(client, path, body):
    raw = client.post(path, json={**body, "stream": True, "max_tokens": 6, "n": 2}).content
    *chunks, done = events_of(raw)
    chunks = [json.loads(c) for c in chunks]
    assert done == "[DONE]" and len({c["id"] for c in chunks}) == 1 and b"usage" not in raw
    for index in range(2):
        mine = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == index]
        assert [c["finish_reason"] for c in mine] == [None] * (len(mine) - 1) + ["length"]
        assert mine[-1].get("delta", mine[-1].get("text")) in ({}, "")
