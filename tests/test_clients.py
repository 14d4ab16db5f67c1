"""What clients send that are freer than our own page: taken by its plain meaning, or refused in plain words."""
import json
import sys

import openai
import pytest
import torch
from engines import ask as queue
from engines import drain
from pydantic import BaseModel
from serving import HELLO, LEN, ask, client, engine, served, tokenizer  # noqa: F401
from standin import Scripted
from tiny import tiny_model

from nanochat.common import DataError
from nanochat.data.chat_format import render_continued, render_prompt
from nanochat.infer.engine import Engine
from nanochat.infer.json_grammar import compile_schema
from nanochat.infer.sampling import penalize_counts
from nanochat.serve.openai_messages import Message, conversation

PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
CALL = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
HEADS = {"system": "S", "user": "U", "assistant": "A"}
KINDS = {"text": "", "python": "call ", "python_output": "got "}


def told(*messages):
    """What a conversation of such (role, content or fields) is in the chat format, in few characters."""
    given = [{"role": role, **(more if isinstance(more, dict) else {"content": more})} for role, more in messages]
    turns = []
    for turn in conversation([Message.model_validate(message) for message in given]):
        content = turn["content"]
        if isinstance(content, list):
            content = "|".join(KINDS[part["type"]] + part["text"] for part in content)
        turns.append(HEADS[turn["role"]] + ":" + content)
    return turns


# ------------------------------------------------------------------------------------------------------------ messages
@pytest.mark.parametrize("messages, turns", [
    ([("developer", "be brief"), ("user", "hi")], ["S:be brief", "U:hi"]),
    ([("system", "a"), ("developer", "b"), ("user", "hi")], ["S:a\n\nb", "U:hi"]),
    ([("user", "hi"), ("assistant", "yes?"), ("system", "be kind"), ("user", "so")], ["S:be kind", "U:hi", "A:yes?", "U:so"]),
    ([("user", "hi"), ("assistant", "yes?"), ("system", "be kind")], ["S:be kind", "U:hi", "A:yes?", "U:"]),
    ([("system", "say something")], ["S:say something", "U:"]),
    ([("user", "hi"), ("user", "there")], ["U:hi\n\nthere"]),
    ([("assistant", "how can I help?"), ("user", "hi")], ["U:", "A:how can I help?", "U:hi"]),
    ([("user", "hi"), ("assistant", "so"), ("assistant", "what?"), ("user", "hm")], ["U:hi", "A:so|what?", "U:hm"]),
    ([("user", None), ("assistant", None), ("user", [])], ["U:", "A:", "U:"]),
    ([("user", [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}])], ["U:hello"]),
    ([("user", "?"), ("assistant", {"content": None, "tool_calls": [CALL]}), ("tool", {"content": "rain", "tool_call_id": "1"})],
     ["U:?", 'A:|call weather({"city": "Oslo"})|got rain']),
    ([("user", "?"), ("assistant", {"tool_calls": [CALL]}), ("tool", "rain"), ("assistant", "It rains."), ("user", "oh")],
     ["U:?", 'A:|call weather({"city": "Oslo"})|got rain|It rains.', "U:oh"]),
    ([("user", "?"), ("assistant", {"function_call": CALL["function"]}), ("function", {"name": "weather", "content": "rain"})],
     ["U:?", 'A:|call weather({"city": "Oslo"})|got rain']),
])
def test_what_has_a_plain_meaning_is_taken(messages, turns, tokenizer):
    assert told(*messages) == turns


def test_no_user_puts_a_call_into_the_assistants_mouth():
    for role in ("user", "system", "tool"):
        with pytest.raises(DataError, match="only the assistant"):
            told((role, [{"type": "python", "text": "1"}]))


def test_a_last_message_of_the_assistants_is_continued(client, engine, tokenizer):
    begun = [*HELLO, {"role": "assistant", "content": "the cat"}]
    prompt = [*render_prompt(tokenizer, HELLO), *tokenizer.encode(" the cat")]
    assert render_continued(tokenizer, begun) == prompt and render_continued(tokenizer, HELLO) == render_prompt(tokenizer, HELLO)
    reply, = engine.generate([prompt], max_new_tokens=12, temperature=0)
    answer = ask(client, messages=begun, temperature=0).json()
    assert answer["choices"][0]["message"]["content"] == tokenizer.decode(reply.ids)
    assert answer["usage"]["prompt_tokens"] == len(prompt)


# -------------------------------------------------------------------------------------------------------------- fields
@pytest.mark.parametrize("harmless", [
    {"tools": [CALL], "tool_choice": "none"}, {"tools": []}, {"tools": None, "tool_choice": "auto"}, {"functions": []},
    {"response_format": {"type": "text"}}, {"response_format": None}, {"logit_bias": {}}, {"logit_bias": None},
    {"frequency_penalty": 0, "presence_penalty": 0.0}, {"best_of": 1}, {"suffix": ""}, {"modalities": ["text"]},
    {"user": "me", "store": True, "metadata": {"a": "b"}, "parallel_tool_calls": True, "service_tier": "auto",
     "stream_options": None, "reasoning_effort": "low", "top_logprobs": 2, "max_completion_tokens": 12, "stop": None}])
def test_what_cannot_change_the_answer_does_not(client, harmless):
    answer = ask(client, temperature=0, **harmless)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"] == ask(client, temperature=0).json()["choices"]


@pytest.mark.parametrize("change, param, words", [
    ({"tools": [CALL]}, "tools", "cannot call tools of the client"),
    ({"tools": [CALL], "tool_choice": "auto"}, "tools", 'set tool_choice to "none"'),
    ({"functions": [CALL["function"]]}, "functions", "cannot call functions"),
    ({"best_of": 3}, "best_of", "not served"), ({"suffix": "end"}, "suffix", "not served"),
    ({"modalities": ["text", "audio"]}, "modalities", "not served"),
    ({"guided_regex": "a"}, "guided_regex", "not served"),
    ({"logit_bias": {"999999": 1}}, "logit_bias", "must be below"),
    ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"not": {}}}}}, "response_format", '["not"]'),
    ({"response_format": {"type": "json_object"}, "messages": [*HELLO, {"role": "assistant", "content": "{"}]}, "messages",
     "the last message"),
    ({"messages": [{"role": "user", "content": [PICTURE]}]}, "messages.0.content.0.type", 'not "image_url"'),
    ({"messages": [{"role": "user"}]}, "messages.0", "has no content")])
def test_what_would_change_the_answer_is_refused_in_words(client, change, param, words):
    response = ask(client, **change)
    error = response.json()["error"]
    assert response.status_code == 400 and error["param"] == param and words in error["message"]


@pytest.mark.parametrize("change, sentence", [
    ({"temperature": 9}, "temperature must be at most 2.0, not 9."),
    ({"temperature": "1"}, 'temperature must be a number, not "1".'),
    ({"n": 1.5}, "n must be a whole number, not 1.5."),
    ({"stop": 1}, "stop must be a text or must be a list, not 1."),
    ({"stop": ["x", 1]}, "stop.1 must be a text, not 1."),
    ({"messages": "hi"}, 'messages must be a list, not "hi".'),
    ({"messages": []}, "messages must not have fewer than 1 entries."),
    ({"messages": [{"content": "hi"}]}, "messages.0.role is missing."),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content.0.text is missing."),
    ({"logit_bias": {"cat": 1}}, "logit_bias.cat must be a token's number"),
    ({"logit_bias": {"5": 101}}, "logit_bias.5 must be at most 100.0, not 101."),
    ({"response_format": {"type": "regex"}},
     "response_format.type must be 'text', 'json_object' or 'json_schema', not \"regex\"."),
    ({"stream_options": 1}, "stream_options must be an object, not 1.")])
def test_what_is_wrong_is_a_sentence_with_the_fields_name(client, change, sentence):
    response = ask(client, **change)
    assert response.status_code == 400 and response.json()["error"]["message"].startswith(sentence)


WRONG = ["x", 1.5, -1e30, True, [], [{}], {}, {"a": 1}, [[1]], 10**30]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_no_sentence_is_a_validators(client, path):
    fields = list(client.get("/openapi.json").json()["components"]["schemas"][
        "ChatRequest" if "chat" in path else "TextRequest"]["properties"])
    for field in fields:
        for value in WRONG:
            body = {"messages": HELLO, "prompt": "hello", "max_tokens": 2, field: value}
            response = client.post(path, json=body)
            if response.status_code != 200:
                message = response.json()["error"]["message"]
                assert response.status_code in (400, 404) and message.endswith(".")
                assert not any(word in message for word in ("Input", "input", "should", "valid", "instance", "not understood"))


# ---------------------------------------------------------------------------------------------------- bias, penalties
def test_counts_are_penalized_as_openai_defines():
    logits = torch.tensor([1.0, 2.0, 3.0, -torch.inf])
    penalize_counts(logits, [1, 2, 1, 3], frequency=0.5, presence=0.25)
    assert logits.tolist() == [1.0, 2.0 - 2 * 0.5 - 0.25, 3.0 - 0.5 - 0.25, -torch.inf]
    penalize_counts(logits, [], frequency=0.5, presence=0.25)
    assert logits.tolist() == [1.0, 0.75, 2.25, -torch.inf]


def test_penalties_reach_the_answer(client):
    def said(**how):
        return ask(client, temperature=0, max_tokens=60, logprobs=True, **how).json()["choices"][0]["logprobs"]["content"]

    def kinds(tokens):
        return len({tuple(token["bytes"]) for token in tokens})
    assert kinds(said(frequency_penalty=2)) > kinds(said()) < kinds(said(presence_penalty=2))
    assert kinds(said(frequency_penalty=-2)) <= kinds(said())


def test_logit_bias_bans_and_forces(client, tokenizer):
    def said(**bias):
        return ask(client, temperature=1, seed=1, max_tokens=20, logit_bias=bias).json()["choices"][0]["message"]["content"]
    x, end = ord("x"), tokenizer.special("<|assistant_end|>")
    assert tokenizer.decode([x]) == "x" and said(**{str(x): 100}) == "x" * 20
    assert said(**{str(x): 100, str(end): 100}).strip("x") == "" and "x" not in said(**{str(x): -100})
    assert said(**{str(tokenizer.bos_id): 100, str(tokenizer.special("<|user_start|>")): 100}).count("<|") == 0


# ---------------------------------------------------------------------------------------------------------------- JSON
class Person(BaseModel):
    name: str
    age: int
    pets: list[str]


SMALL = {"type": "object", "properties": {"kind": {"enum": ["cat", "dog"]}, "old": {"type": "boolean"}},
         "required": ["kind", "old"], "additionalProperties": False}


def as_schema(schema):
    return {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("temperature", [0, 2])
def test_every_answer_fits_the_schema(client, stream, temperature):
    response = ask(client, max_tokens=40, n=3, temperature=temperature, stream=stream, response_format=as_schema(SMALL))
    texts = ["", "", ""]
    bodies = [json.loads(line[6:]) for line in response.text.split("\n\n")[:-2]] if stream else [response.json()]
    for choice in (choice for body in bodies for choice in body["choices"]):
        said = choice["delta"] if stream else choice["message"]
        texts[choice["index"]] += said.get("content", "")
        assert choice["finish_reason"] in ((None, "stop") if stream else ("stop",))
    for text in texts:
        found = json.loads(text)
        assert set(found) == {"kind", "old"} and found["kind"] in ("cat", "dog") and type(found["old"]) is bool


def test_the_official_clients_parse_works(served):
    with openai.OpenAI(base_url=f"{served[0]}/v1", api_key="none", max_retries=0, timeout=60) as made:
        how = dict(model="tiny", messages=HELLO, response_format=Person, temperature=1)
        for seed in range(20):
            try:
                person = made.chat.completions.parse(**how, seed=seed, logit_bias={str(ord('"')): 8}).choices[0].message.parsed
                assert isinstance(person, Person)
                break
            except openai.LengthFinishReasonError:
                continue
        else:
            raise AssertionError("none of 20 answers came to its end")
        with pytest.raises(openai.LengthFinishReasonError):
            made.chat.completions.parse(**how, max_tokens=4)


@pytest.mark.parametrize("format, allowed", [
    ({"type": "json_object"}, dict), ({"type": "json_schema", "json_schema": {"name": "x"}}, dict),
    ({"type": "json_object", "schema": {"const": 7}}, int),
    (as_schema({"type": "array", "items": {"type": "boolean"}, "maxItems": 2}), list)])
def test_all_forms_of_response_format(client, format, allowed):
    for seed in range(8):
        choice, = ask(client, response_format=format, temperature=1, seed=seed, max_tokens=100).json()["choices"]
        if choice["finish_reason"] == "stop":
            assert type(json.loads(choice["message"]["content"])) is allowed
        else:
            assert choice["message"]["content"].startswith("{")


@pytest.mark.parametrize("general", [False, True])
@pytest.mark.parametrize("deterministic", [False, True])
def test_both_ways_of_decoding_obey_a_schema_beside_others_that_have_none(general, deterministic, tokenizer, monkeypatch):
    if general and deterministic:
        return  # is for the compiled way alone
    if general:
        monkeypatch.setattr("nanochat.infer.runner.unknown_parts", lambda model: ["a test"])
    made = Engine(tiny_model(tokenizer.vocab_size, LEN), tokenizer, deterministic=deterministic)
    scheduler = made.scheduler(8)
    assert (scheduler.runner.compiled is None) == general
    prompt = render_prompt(tokenizer, HELLO)
    free = [queue(scheduler, prompt, 12, index, temperature=1.5) for index in range(3)]
    held = [queue(scheduler, prompt, 60, index, temperature=1.5, json_schema=json.dumps(SMALL)) for index in range(3)]
    drain(scheduler)
    for sequence in held:
        assert sequence.finish_reason == "stop" and not set(sequence.ids) & tokenizer.special_ids
        assert set(json.loads(tokenizer.decode(sequence.ids))) == {"kind", "old"}
    alone = made.scheduler(8)
    again = [queue(alone, prompt, 12, index, temperature=1.5) for index in range(3)]
    drain(alone)
    assert [sequence.ids for sequence in again] == [sequence.ids for sequence in free]


@pytest.mark.parametrize("schema, least, most", [
    ({"type": "integer"}, 0, 10**15), ({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 1}, 0, 10**15),
    ({"type": "string", "pattern": "^[0-9]{18,20}$"}, 0, 10**20)])
def test_a_number_ends_and_a_text_of_digits_may_go_on(schema, least, most, tokenizer):
    """A model that wants nothing but the digit 7."""
    made = Engine(Scripted(tokenizer, [ord("7")] * 90), tokenizer)
    reply, = made.generate([[tokenizer.bos_id]], max_new_tokens=80, temperature=0, json_schema=json.dumps(schema))
    found = json.loads(tokenizer.decode(reply.ids))
    number = found[0] if isinstance(found, list) else found
    assert reply.finish_reason == "stop" and least <= int(number) < most and (isinstance(number, int) or len(number) >= 18)


def test_a_grammar_that_becomes_too_complex_ends_the_reply_by_its_length(tokenizer):
    scheduler = Engine(tiny_model(tokenizer.vocab_size, LEN), tokenizer).scheduler(1)
    endless = queue(scheduler, [tokenizer.bos_id], 60, json_schema='{"$ref": "#"}')
    drain(scheduler)
    assert endless.finish_reason == "length" and len(endless.ids) < 60


def test_without_the_package_the_refusal_says_how_to_install_it(client, monkeypatch):
    compile_schema.cache_clear()
    monkeypatch.setitem(sys.modules, "llguidance", None)
    response = ask(client, response_format={"type": "json_object"})
    error = response.json()["error"]
    assert response.status_code == 400 and error["param"] == "response_format" and "pip install" in error["message"]
    assert ask(client).status_code == 200
