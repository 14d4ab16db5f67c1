"""More of what clients, their schemas and the probes of proxies bring: other servers' habits, and what a small model needs."""
import json
import socket

import pytest
from serving import ask, client, engine, served, tokenizer  # noqa: F401
from test_clients import told

from nanochat.common import UsageError
from nanochat.infer.json_grammar import JsonGrammar, compile_schema


# ------------------------------------------------------------------------------------------------------------- schemas
def fits(tokenizer, schema, text):
    """Whether a reply that is held to the schema can be this text."""
    grammar = JsonGrammar(tokenizer, json.dumps(schema))
    ids = tokenizer.encode(text)
    return grammar._grammar.validate_tokens(ids) == len(ids)


COLOUR = {"type": "string", "enum": ["red"]}
NAMED = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
MORE = '{"a": true, "b'


@pytest.mark.parametrize("schema, whole, before", [
    (NAMED, '{"a": true}', ""),
    ({"properties": NAMED["properties"]}, '{"a": true}', ""),                                     # no type: an object is meant
    ({"type": "array", "items": {"$ref": "#/$defs/A"}, "$defs": {"A": NAMED}}, '[{"a": true}]', "["),
    ({"anyOf": [NAMED, {"type": "null"}]}, '{"a": true}', ""),
    ({"type": "object", "properties": {"properties": {**NAMED}}}, '{"properties": {"a": true}}', '{"properties": ')])
def test_an_object_has_the_properties_that_its_schema_names(schema, whole, before, tokenizer):
    assert fits(tokenizer, schema, whole) and not fits(tokenizer, schema, before + MORE)


@pytest.mark.parametrize("schema", [
    {"type": "object"}, {**NAMED, "additionalProperties": True}, {**NAMED, "additionalProperties": {"type": "integer"}},
    {**NAMED, "anyOf": [{"properties": {"b": COLOUR}, "required": ["b"]}]},
    {"allOf": [NAMED, {"type": "object", "properties": {"b": COLOUR}, "required": ["b"]}]}])
def test_and_others_where_it_says_so(schema, tokenizer):
    assert fits(tokenizer, schema, MORE)


@pytest.mark.parametrize("schema", [{"properties": ["a"]}, {"properties": {"a": {"pattern": "^(?=a)a"}}}])
def test_a_schema_that_is_wrong_is_told_in_one_line_with_the_reason(schema, tokenizer):
    with pytest.raises(UsageError, match="(must be an object|look-ahead.*is not supported)$"):
        compile_schema(tokenizer, json.dumps(schema))


# -------------------------------------------------------------------------------------------------------------- fields
@pytest.mark.parametrize("habit, same", [
    ({"max_tokens": -1}, {"max_tokens": None}), ({"max_completion_tokens": -1}, {"max_completion_tokens": None}),
    ({"top_k": -1, "temperature": 1, "seed": 3}, {"top_k": 0, "temperature": 1, "seed": 3}),
    ({"stop": [f"User {i}:" for i in range(20)]}, {}),
    ({"max_tokens": 9, "max_new_tokens": 9, "n_predict": 9, "min_tokens": 0}, {"max_tokens": 9}),
    ({"typical_p": 1, "repeat_penalty": 1.0}, {})])
def test_what_other_servers_clients_write_means_the_same_here(habit, same, client):
    answer = ask(client, **{"temperature": 0, **habit})
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"] == ask(client, **{"temperature": 0, **same}).json()["choices"]


@pytest.mark.parametrize("change", [
    {"guided_choice": ["a"]}, {"grammar": "root ::= 'a'"}, {"format": "json"}, {"json_schema": {}, "stop_token_ids": [5]},
    {"min_tokens": 5}, {"ignore_eos": True}, {"n_predict": 5}, {"max_new_tokens": 5, "max_tokens": 9}, {"repeat_penalty": 1.1},
    {"typical_p": 0.5}, {"extra_body": {"top_k": 1}}])
def test_what_they_have_and_we_do_not_is_refused_rather_than_passed_over(change, client):
    error = ask(client, **change).json()["error"]
    assert error["param"] in change and "not served here" in error["message"]


def test_a_text_by_its_newer_names_is_a_text():
    parts = [{"type": "input_text", "text": "hel"}, {"type": "output_text", "text": "lo"}]
    assert told(("user", parts), ("assistant", parts)) == ["U:hello", "A:hel|lo"]


def test_what_is_no_text_is_refused_in_words(client):
    picture = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]
    error = ask(client, messages=[{"role": "user", "content": picture}]).json()["error"]
    assert error["message"] == 'messages.0.content.0.type must be text, not "image_url": this model reads nothing else.'


@pytest.mark.parametrize("body, place", [
    (b"'{model:", '"\'{model:"'), (b'{model: x, messages: []}', "'model: x, messages: '"), (b"", "'its end'"),
    (b'{"messages": [],}', "}'"), (b'{"n": 1}\0', "'\\x00'"), (b'{"user": "a\nb"}', "'\\nb\"}'")])
def test_what_is_not_json_is_told_with_its_place(body, place, client):
    error = client.post("/v1/chat/completions", content=body).json()["error"]
    assert error["message"].startswith("The body is not valid JSON at ") and error["code"] == "invalid_json"
    assert place in error["message"]


# -------------------------------------------------------------------------------------------------------------- probes
@pytest.mark.parametrize("request_, status", [
    (b"GET /health HTTP/1.0\r\n\r\n", b"200"), (b"OPTIONS / HTTP/1.0\r\n\r\n", b"204"),
    (b"GET /health HTTP/1.0\r\nOrigin: http://none\r\n\r\n", b"403"),
    (b"GET /health HTTP/1.0\r\nHost: evil.example\r\n\r\n", b"403")])
def test_a_probe_that_names_no_host_is_answered(request_, status, served):
    port = int(served[0].rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request_)
        assert connection.makefile("rb").readline().split()[1] == status
