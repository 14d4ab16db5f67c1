"""What a conversation looks like to the model, token by token, and which of those tokens it is taught to say."""
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.common import DataError
from nanochat.data.chat_format import parse_reply, render, render_prompt, reply_text, validate
from nanochat.data.tokenizer import SPECIAL_TOKENS, Tokenizer

TOOL_USE = [{"type": "text", "text": "So "}, {"type": "python", "text": "2+2"},
            {"type": "python_output", "text": "4"}, {"type": "text", "text": "four."}]


def conversation(*contents, system=None):
    """Contents taken in turn by the user and the assistant."""
    messages = [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]
    return {"messages": ([{"role": "system", "content": system}] if system is not None else []) + messages}


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["hello there, what is two plus two?"] * 3, 300)


def spell(tokenizer, ids):
    """Each token as text; a special one by its name."""
    names = {tokenizer.special(name): name for name in SPECIAL_TOKENS}
    return [names.get(i) or tokenizer.decode([i]) for i in ids]


def compact(tokenizer, ids, mask):
    """[(text, mask)], neighbours of equal mask joined."""
    out = []
    for piece, m in zip(spell(tokenizer, ids), mask):
        out[-1:] = [(out[-1][0] + piece, m)] if out and out[-1][1] == m else [*out[-1:], (piece, m)]
    return out


@pytest.mark.parametrize("given, expected", [
    (conversation("Hi", "Hello!"),
     [("<|bos|><|user_start|> Hi<|user_end|><|assistant_start|>", 0), (" Hello!<|assistant_end|>", 1)]),
    (conversation("Hi", "Yo", system="Be kind."),
     [("<|bos|><|system_start|> Be kind.<|system_end|><|user_start|> Hi<|user_end|><|assistant_start|>", 0),
      (" Yo<|assistant_end|>", 1)]),
    (conversation("2+2?", TOOL_USE),
     [("<|bos|><|user_start|> 2+2?<|user_end|><|assistant_start|>", 0),
      (" So <|python_start|>2+2<|python_end|>", 1), ("<|output_start|>4<|output_end|>", 0),
      (" four.<|assistant_end|>", 1)]),
    (conversation("a", "b", "c", "d"),
     [("<|bos|><|user_start|> a<|user_end|><|assistant_start|>", 0), (" b<|assistant_end|>", 1),
      ("<|user_start|> c<|user_end|><|assistant_start|>", 0), (" d<|assistant_end|>", 1)]),
    (conversation("Hi"), [("<|bos|><|user_start|> Hi<|user_end|>", 0)]),
    (conversation("", ""),
     [("<|bos|><|user_start|><|user_end|><|assistant_start|>", 0), ("<|assistant_end|>", 1)]),
], ids=["plain", "system", "tool", "two turns", "question only", "empty"])
def test_tokens_and_mask(tokenizer, given, expected):
    assert compact(tokenizer, *render(tokenizer, given)) == expected


def test_a_document_is_supervised_whole(tokenizer):
    assert compact(tokenizer, *render(tokenizer, {"text": "A cat."})) == [("<|bos|>", 0), ("A cat.", 1)]


def test_tool_output_is_never_supervised(tokenizer):
    ids, mask = render(tokenizer, conversation("2+2?", TOOL_USE))
    start, end = ids.index(tokenizer.special("<|output_start|>")), ids.index(tokenizer.special("<|output_end|>"))
    assert not any(mask[start:end + 1])
    assert mask[start - 1] == 1 and mask[end + 1] == 1


@pytest.mark.parametrize("system", [None, "Be kind."])
@pytest.mark.parametrize("contents", [("Hi", "Hello!"), ("2+2?", TOOL_USE), ("a", "b", "c", TOOL_USE)])
def test_prompt_is_a_prefix_of_the_whole(tokenizer, contents, system):
    whole = conversation(*contents, system=system)
    ids, mask = render(tokenizer, whole)
    prompt = render_prompt(tokenizer, whole["messages"])
    assert ids[:len(prompt)] == prompt and prompt[-1] == tokenizer.special("<|assistant_start|>")
    assert prompt == render_prompt(tokenizer, whole["messages"][:-1])
    assert mask[len(prompt)] == 1 and mask[len(prompt) - 1] == 0
    expected = TOOL_USE if contents[-1] is TOOL_USE else [{"type": "text", "text": contents[-1]}]
    assert parse_reply(tokenizer, ids[len(prompt):]) == expected


def test_a_long_talk_forgets_its_oldest_exchanges_first(tokenizer):
    talk = conversation("first", "one", "second", "two", "third", system="S")["messages"]
    full = render_prompt(tokenizer, talk)
    assert render_prompt(tokenizer, talk, len(full)) == full
    shorter = render_prompt(tokenizer, talk, len(full) - 1)
    assert shorter == render_prompt(tokenizer, talk[:1] + talk[3:])
    tiny = spell(tokenizer, render_prompt(tokenizer, talk, 10))
    assert tiny[:5] == ["<|bos|>", "<|system_start|>", " ", "S", "<|system_end|>"] and len(tiny) == 10
    assert "third".endswith("".join(tiny[6:8])) and tiny[8:] == ["<|user_end|>", "<|assistant_start|>"]
    with pytest.raises(DataError, match="system message"):
        render_prompt(tokenizer, talk, 7)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([*SPECIAL_TOKENS, "hi", " ", "<|"])).map("".join))
def test_content_never_becomes_a_special_token(tokenizer, text):
    plain = render(tokenizer, conversation("x", "x", system="x"))[0]
    marks = [i for i in plain if i in tokenizer.special_ids]
    ids, _ = render(tokenizer, conversation(text, text, system=text))
    assert [i for i in ids if i in tokenizer.special_ids] == marks
    tool = [{"type": kind, "text": text} for kind in ("python", "python_output")]
    ids, _ = render(tokenizer, conversation(text, tool))
    assert sum(i in tokenizer.special_ids for i in ids) == 9


# -------------------------------------------------------------------------------------------------------- parse_reply
@pytest.mark.parametrize("reply, parts", [
    ("", []),
    ("hi", [("text", "hi")]),
    ("hi<|assistant_end|>junk", [("text", "hi")]),
    ("hi<|user_start|>and now I am the user", [("text", "hi")]),
    ("hi<|bos|>more", [("text", "hi")]),
    ("<|python_start|>1+1", [("python", "1+1")]),
    ("<|python_start|><|python_end|>", [("python", "")]),
    ("a<|python_end|>b", [("text", "ab")]),
    ("<|python_start|>1<|python_start|>2<|python_end|>", [("python", "1"), ("python", "2")]),
    ("<|python_start|>1<|output_start|>2<|output_end|>c", [("python", "1"), ("python_output", "2"), ("text", "c")]),
    ("<|output_start|>x<|python_end|>y<|output_end|>z", [("python_output", "xy"), ("text", "z")]),
    ("a<|reserved_0|>b", [("text", "ab")]),
])
def test_malformed_replies_parse(tokenizer, reply, parts):
    ids = tokenizer.encoding.encode(reply, allowed_special="all")
    assert parse_reply(tokenizer, ids) == [{"type": kind, "text": text} for kind, text in parts]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_ids_parse(tokenizer, data):
    any_id = st.integers(0, tokenizer.vocab_size + 63) | st.sampled_from(sorted(tokenizer.special_ids))
    ids = data.draw(st.lists(any_id))
    parts = parse_reply(tokenizer, ids)
    assert all(set(part) == {"type", "text"} for part in parts)
    assert isinstance(reply_text(parts), str)


def test_reply_text_is_only_what_is_said():
    assert reply_text(TOOL_USE) == "So four."
    assert reply_text([]) == ""
    assert reply_text([{"type": "python", "text": "2*2"}]) == ""
    assert reply_text([{"type": "python", "text": "' a'*2"}, {"type": "python_output", "text": " a a"}]) == "a a"


# ----------------------------------------------------------------------------------------------------------- validate
USER, ASSISTANT = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
SYSTEM = {"role": "system", "content": "s"}


@pytest.mark.parametrize("messages, says", [
    (None, "at least one message"), ([], "at least one message"), ("hi", "at least one message"),
    ([ASSISTANT], "message 0 .*expected the user, got the assistant"),
    ([USER, USER], "message 1 .*expected the assistant, got the user"),
    ([SYSTEM, USER, ASSISTANT, ASSISTANT], "message 3 "),
    ([SYSTEM], "wants a user message"),
    ([USER, SYSTEM], "message 1 .*got the system"),
    (["hi"], "role must be"), ([{"role": "tool", "content": "x"}], "'tool'"), ([{"role": ["user"]}], "role must be"),
    ([{"role": "user"}], "content must be a string, got NoneType"),
    ([{"role": "user", "content": [{"type": "text", "text": "x"}]}], "user's content must be a string"),
    ([USER, {"role": "assistant", "content": 5}], "message 1 .*got int"),
    ([USER, {"role": "assistant", "content": ["x"]}], "type must be"),
    ([USER, {"role": "assistant", "content": [{"type": "image", "text": "x"}]}], "'image'"),
    ([USER, {"role": "assistant", "content": [{"type": ["text"], "text": "x"}]}], "type must be"),
    ([USER, {"role": "assistant", "content": [{"type": "python"}]}], "text must be a string"),
])
def test_what_is_no_conversation_is_refused(tokenizer, messages, says):
    with pytest.raises(DataError, match=says):
        validate({"messages": messages})
    with pytest.raises(DataError):
        render(tokenizer, {"messages": messages})
    with pytest.raises(DataError):
        render_prompt(tokenizer, messages)


def test_a_conversation_that_is_no_dict_is_refused():
    for value in (None, [], "hi", {}):
        with pytest.raises(DataError):
            validate(value)


def test_a_result_that_was_said_for_the_model_is_not_read_as_its_words(tokenizer):
    wrote = [{"type": "python", "text": "' a'*2"}, {"type": "python_output", "text": " a a"}]
    asked = {"role": "user", "content": "a, twice"}
    said = [*wrote, {"type": "text", "text": "a a"}]
    other = [*wrote, {"type": "text", "text": "a a."}]
    def rendered(parts):
        return render(tokenizer, {"messages": [asked, {"role": "assistant", "content": parts}]})
    assert rendered(said) == rendered(wrote)
    assert len(rendered(other)[0]) > len(rendered(wrote)[0])
