"""One reply: tool calls, its text as it comes, and the strings that end it."""
import pytest
from engines import engine, model, tokenizer  # noqa: F401
from standin import Scripted, pieces

from nanochat.data.chat_format import parse_reply, render_prompt, reply_text
from nanochat.infer.engine import Engine
from nanochat.infer.sampling import Sampling
from nanochat.infer.sequence import MAX_TOOL_CALLS, Sequence
from nanochat.infer.text_stream import TextStream

SUM = "Sum: ", "\0python:47 * 12", "\0output:564", "It is 564."


def stream(tokenizer, script, **how):
    """(the events of a reply with this script, the model that said it)."""
    model = Scripted(tokenizer, script)
    how = {"max_new_tokens": 60, "temperature": 0, **how}
    return list(Engine(model, tokenizer).stream([tokenizer.bos_id], **how)), model


def text_of(events, kind="text"):
    return "".join(e.text for e in events if e.kind == kind)


# ---------------------------------------------------------------------------------------------------------------- tools
def test_tool_output_is_forced_fed_to_the_model_and_masked(tokenizer):
    model = Scripted(tokenizer, pieces(tokenizer, *SUM))
    reply, = Engine(model, tokenizer).generate([[tokenizer.bos_id]], max_new_tokens=60, temperature=1.0)
    assert parse_reply(tokenizer, reply.ids) == [
        {"type": "text", "text": "Sum: "}, {"type": "python", "text": "47 * 12"},
        {"type": "python_output", "text": "564"}, {"type": "text", "text": "It is 564."}]
    forced = [tokenizer.special("<|output_start|>"), *tokenizer.encode("564"), tokenizer.special("<|output_end|>")]
    assert [i for i, s in zip(reply.ids, reply.sampled) if not s] == forced
    assert len(reply.sampled) == len(reply.ids) and reply.finish_reason == "stop"
    assert model.seen == [tokenizer.bos_id, *reply.ids]


@pytest.mark.parametrize("room", range(-3, 1))
def test_a_tools_result_that_fills_the_answer_ends_it_by_length(tokenizer, room):
    call, result = (pieces(tokenizer, piece) for piece in SUM[1:3])
    model = Scripted(tokenizer, [*call, *[tokenizer.special("<|assistant_end|>")] * len(result)])
    reply, = Engine(model, tokenizer).generate([[tokenizer.bos_id]], max_new_tokens=len(call + result) + room, temperature=0)
    assert (len(reply.ids), reply.finish_reason) == (len(call + result) + room, "length")
    assert len(model.seen) == len(call)      # its end is not read any more


def test_tools_are_not_called_without_use_tools(tokenizer):
    model = Scripted(tokenizer, pieces(tokenizer, *SUM[:3]))
    reply, = Engine(model, tokenizer).generate([[tokenizer.bos_id]], max_new_tokens=60, temperature=0, use_tools=False)
    assert not set(reply.ids) & tokenizer.special_ids and all(reply.sampled)


def test_calls_of_one_reply_are_bounded(tokenizer):
    start, one = tokenizer.special("<|python_start|>"), pieces(tokenizer, "\0python:1", "\0output:1")
    model = Scripted(tokenizer, one * 30)
    reply, = Engine(model, tokenizer, max_len=200).generate([[tokenizer.bos_id]], max_new_tokens=150, temperature=0)
    assert reply.ids.count(start) == MAX_TOOL_CALLS


# ------------------------------------------------------------------------------------------------------------ streaming
def test_stream_never_splits_a_character(tokenizer):
    script = list("né 東京 🙂!".encode())   # a token for each byte
    events, _ = stream(tokenizer, script)
    assert [e.text for e in events if e.kind == "text"] == list("né 東京 🙂!")
    assert events[-1].kind == "end" and events[-1].usage == {"prompt_tokens": 1, "completion_tokens": len(script),
                                                               "cached_tokens": 0, "decoded_tokens": len(script)}


def test_stream_shows_half_a_character_once_at_the_end_and_drops_nothing(tokenizer):
    assert text_of(stream(tokenizer, "ok🙂".encode()[:-1])[0]) == "ok\ufffd"
    assert text_of(stream(tokenizer, b"a\xf0\x9fb")[0]) == "a\ufffdb"


def test_stream_shows_tools_as_whole_events_and_no_special_token(tokenizer):
    events, _ = stream(tokenizer, pieces(tokenizer, *SUM))
    shown = [(e.kind, e.text) for e in events if e.kind not in ("text", "end")]
    assert shown == [("python", "47 * 12"), ("python_output", "564")]
    assert text_of(events) == "Sum: It is 564."
    by_the_model = events[-1].usage["completion_tokens"] - len("564") - 2    # the two marks around what the tool says
    assert events[-1].usage["decoded_tokens"] == by_the_model
    assert "<|" not in "".join(e.text for e in events)


def test_stream_agrees_with_generate_and_parse_reply(engine, tokenizer):
    for seed in range(12):
        how = dict(max_new_tokens=70, temperature=3.0, seed=seed)
        prompt = render_prompt(tokenizer, [{"role": "user", "content": "hello"}])
        reply, = engine.generate([prompt], **how)
        events = list(engine.stream(prompt, **how))
        assert events[-1].finish_reason == reply.finish_reason
        merged = []
        for e in events[:-1]:
            if merged and e.kind == "text" == merged[-1]["type"]:
                merged[-1]["text"] += e.text
            else:
                merged.append({"type": e.kind, "text": e.text})
        parts = parse_reply(tokenizer, reply.ids)
        if reply_text(parts) and not any(part["type"] == "text" for part in parts):
            parts.append({"type": "text", "text": reply_text(parts)})
        assert merged == parts


def test_a_result_without_words_around_it_is_what_is_said(tokenizer):
    call = pieces(tokenizer, "\0python:' ha'*3", "\0output: ha ha ha")
    events, _ = stream(tokenizer, call)
    assert [(e.kind, e.text) for e in events[:-1]] == [("python", "' ha'*3"), ("python_output", " ha ha ha"), ("text", "ha ha ha")]
    reply, = Engine(Scripted(tokenizer, call), tokenizer).generate([[tokenizer.bos_id]], max_new_tokens=60, temperature=0)
    assert reply_text(parse_reply(tokenizer, reply.ids)) == "ha ha ha"


def test_text_stream_reports_an_unfinished_tool_call(tokenizer):
    sequence = Sequence(tokenizer, [1], Sampling(4))
    for token in [tokenizer.special("<|python_start|>"), *b"1+1"]:
        sequence.accept(token)
    events = TextStream(tokenizer).take(sequence)
    assert [(e.kind, e.text) for e in events] == [("python", "1+1"), ("end", "")]
    assert events[-1].finish_reason == "length"


@pytest.mark.parametrize("last, expected", [("<|assistant_start|>", "cat"), ("<|output_end|>", "cat"), (None, " cat")])
def test_the_first_blank_is_the_formats_only_at_the_beginning_of_a_reply(tokenizer, last, expected):
    prompt = [*tokenizer.encode("the"), *([tokenizer.special(last)] if last else [])]
    sequence = Sequence(tokenizer, prompt, Sampling())
    sequence.ids, sequence.finish_reason = tokenizer.encode(" cat"), "stop"
    sequence.logprobs = [None] * len(sequence.ids)
    assert "".join(event.text for event in TextStream(tokenizer).take(sequence)) == expected


# --------------------------------------------------------------------------------------------------------- stop strings
@pytest.mark.parametrize("stop, expected", [
    (("lo w",), "hel"), (("xyz", "wor", "o w"), "hell"), (("东", "京🙂"), "hello world é東"),
    (("d.",), "hello world é東京🙂!"), (("hello",), "")])
def test_a_stop_string_ends_the_text_before_it_across_tokens(tokenizer, stop, expected):
    script = list("hello world é東京🙂!".encode())   # a token for each byte
    events, model = stream(tokenizer, script, stop=stop)
    assert text_of(events) == expected and events[-1].finish_reason == "stop"
    assert all(e.text for e in events[:-1])
    assert len(model.seen) <= len(script) + 1 if expected.endswith("!") else len(model.seen) < len(script)


def test_a_stop_string_within_one_token_keeps_what_is_before_it(tokenizer):
    token = max((i for i in range(tokenizer.vocab_size) if tokenizer.decode([i]).isalpha()),
                key=lambda i: len(tokenizer.decode([i])))
    word = tokenizer.decode([token])
    events, _ = stream(tokenizer, [*b"ab ", token, *b"rest"], stop=(word[1:],))
    assert len(word) > 2 and text_of(events) == "ab " + word[0] and events[-1].usage["completion_tokens"] == 4


def test_stop_strings_are_looked_for_in_the_text_and_not_in_tools(tokenizer):
    events, _ = stream(tokenizer, pieces(tokenizer, *SUM), stop=("64",))
    assert [(e.kind, e.text) for e in events if e.kind.startswith("python")] == [("python", "47 * 12"),
                                                                               ("python_output", "564")]
    assert text_of(events) == "Sum: It is 5" and events[-1].finish_reason == "stop"


def test_logprobs_stop_where_the_text_stops(tokenizer):
    events, _ = stream(tokenizer, "aé stop".encode(), stop=(" s",), logprobs=0)
    assert text_of(events) == "aé"
    assert bytes(b for e in events for entry in e.logprobs for b in entry["bytes"]) == "aé".encode()
