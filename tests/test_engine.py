"""Engine: the cache, sampling, tools, continuous batching and streaming, on a tiny random model."""
import math
import random
import threading

import pytest
import torch
from reference import PlainCache, StandIn

from nanochat import tools
from nanochat.chat_format import parse_reply, render_prompt
from nanochat.common import UsageError
from nanochat.engine import Batcher, Engine, banned
from nanochat.gpt import GPT, GPTConfig
from nanochat.sampling import Sampling, penalise, sample
from nanochat.sequence import MAX_TOOL_CALLS, Sequence, TextStream
from nanochat.tokenizer import Tokenizer

LEN = 96


@pytest.fixture(scope="module")
def tokenizer():
    texts = ["the cat sat on the mat. 47 * 12 = 564.", "Zoë eats a crème brûlée in 東京 😀😀", "hello there, how are you?"]
    return Tokenizer.train(texts * 20, 340)


@pytest.fixture(scope="module")
def model(tokenizer):
    config = GPTConfig(sequence_len=LEN, vocab_size=tokenizer.vocab_size, n_layer=2, n_head=4, n_kv_head=2, n_embd=32)
    model = GPT(config).eval()
    generator = torch.Generator().manual_seed(0)
    for p in model.parameters():   # init_weights leaves the residual writers at zero: attention would not be tested
        p.data.normal_(0, 0.3, generator=generator)
    return model


@pytest.fixture
def engine(model, tokenizer):
    return Engine(model, tokenizer)


def prompts_of(tokenizer, lengths):
    rng = random.Random(1)
    return [[tokenizer.bos_id] + [rng.randrange(256) for _ in range(n - 1)] for n in lengths]


def active(batcher):
    """The sequences that have a slot, oldest first."""
    return [slot.sequence for slot in batcher.running]


class Scripted(StandIn):
    """A model that says what it is told: after position p of any row, the token script[p] (or by row)."""

    def __init__(self, tokenizer, script, prompt_len):
        self.config = GPTConfig(sequence_len=LEN, vocab_size=tokenizer.vocab_size, n_layer=1, n_head=1, n_kv_head=1,
                                n_embd=2)
        self.dtype, self.device = torch.float32, torch.device("cpu")
        self.script, self.prompt_len = script, prompt_len
        self.end = tokenizer.special("<|assistant_end|>")
        self.seen = []

    def hidden(self, idx, cache):
        self.seen += idx[0].tolist()
        positions = cache.lengths[:, None] + torch.arange(idx.size(1))
        k = torch.zeros(*idx.shape, 1, 2)
        cache.update(0, k, k)
        return positions[..., None].float().expand(-1, -1, 2)

    def logits(self, hidden):
        logits = torch.zeros(hidden.size(0), self.config.vocab_size)
        for row, position in enumerate(hidden[:, 0].long().tolist()):
            at = position - self.prompt_len + 1
            logits[row, self.script[at] if at < len(self.script) else self.end] = 50.0
        return logits


# ------------------------------------------------------------------------------------------------------- cache, joins
def test_kv_cache_matches_full_forward(model):
    torch.manual_seed(0)
    idx, lengths = torch.randint(0, 256, (3, 20)), torch.tensor([5, 12, 9])
    full = model(idx)
    cache = PlainCache(model, 3, 20)
    padded = idx[:, :12].clone()
    for row, n in enumerate(lengths):
        padded[row, n:] = 7    # padding, which must leave no trace
    logits = model(padded, cache)
    cache.advance(lengths)
    for row, n in enumerate(lengths):
        torch.testing.assert_close(logits[row, :n], full[row, :n], atol=1e-5, rtol=1e-5)
    for _ in range(8):
        at = cache.lengths.clone()
        step = model(idx.gather(1, at[:, None]), cache)
        cache.advance(1)
        torch.testing.assert_close(step[:, 0], full[torch.arange(3), at], atol=1e-5, rtol=1e-5)


def test_chunked_prefill_matches_full_prefill(model):
    idx = torch.randint(0, 256, (2, 17), generator=torch.Generator().manual_seed(3))
    cache, pieces = PlainCache(model, 2, 17), []
    for chunk in idx.split([1, 5, 11], dim=1):
        pieces.append(model(chunk, cache))
        cache.advance(chunk.size(1))
    torch.testing.assert_close(torch.cat(pieces, 1), model(idx), atol=1e-5, rtol=1e-5)


def reference(model, tokenizer, prompt, max_new_tokens):
    """Greedy decoding by the whole forward pass for each token, with the engine's rules for special tokens left out."""
    bias = banned(tokenizer, model.config.vocab_size)[2]
    ids = list(prompt)
    while len(ids) < len(prompt) + max_new_tokens:
        token = int((model(torch.tensor([ids]))[0, -1] + bias).argmax())
        if token in (tokenizer.special("<|assistant_end|>"), tokenizer.bos_id):
            break
        ids.append(token)
    return ids[len(prompt):]


def test_greedy_equals_slow_reference_whatever_the_batch(engine, model, tokenizer):
    prompts = prompts_of(tokenizer, [3, 30, 11, 4, 50, 9, 17, 1, 26])
    expected = [reference(model, tokenizer, p, 12) for p in prompts]
    for batch_size in (1, 2, 4, 64):
        got = engine.generate(prompts, max_new_tokens=12, temperature=0, use_tools=False, batch_size=batch_size)
        assert [c.ids for c in got] == expected, f"batch_size {batch_size}"


def test_rows_join_and_leave_at_any_step(engine, model, tokenizer):
    prompts, budgets = prompts_of(tokenizer, [8, 20, 5, 13, 30, 2]), [3, 9, 1, 14, 6, 20]
    expected = [reference(model, tokenizer, p, n) for p, n in zip(prompts, budgets)]
    batcher = engine.batcher(3)
    sequences = [Sequence(tokenizer, p, Sampling(n, 0.0, use_tools=False)) for p, n in zip(prompts, budgets)]
    for sequence in sequences:
        batcher.add(sequence)
        batcher.step()
        assert len(active(batcher)) <= 3
    while not batcher.idle:
        batcher.step()
    assert [s.ids for s in sequences] == expected


def test_sampled_result_is_independent_of_batch_size(engine, tokenizer):
    prompts = prompts_of(tokenizer, [6, 14, 3, 9, 21])
    settings = dict(max_new_tokens=10, temperature=1.0, top_k=40, top_p=0.95, seed=5, use_tools=False)
    whole = engine.generate(prompts, **settings)
    assert whole == engine.generate(prompts, **settings, batch_size=2) == engine.generate(prompts, **settings)
    assert whole != engine.generate(prompts, **{**settings, "seed": -5})


def test_first_token_is_sampled_for_each_sequence(engine, tokenizer):
    prompt = prompts_of(tokenizer, [6])[0]
    replies = engine.generate([prompt] * 24, max_new_tokens=1, temperature=2.0)
    assert len({tuple(r.ids) for r in replies}) > 3


def test_removing_a_sequence_frees_its_slot(engine, tokenizer):
    batcher = engine.batcher(1)
    first, second, third = (Sequence(tokenizer, [tokenizer.bos_id, i], Sampling(50, 0.0)) for i in (1, 2, 3))
    for sequence in (first, second, third):
        batcher.add(sequence)
    batcher.step()
    assert active(batcher) == [first]
    batcher.remove(third)
    batcher.remove(first)
    batcher.remove(first)
    assert not active(batcher)
    batcher.step()
    assert active(batcher) == [second] and not batcher.waiting


# ----------------------------------------------------------------------------------------------------------- capacity
def test_prompt_and_answer_never_pass_the_capacity(engine, tokenizer):
    prompts = prompts_of(tokenizer, [LEN - 1, LEN - 5, 10])
    replies = engine.generate(prompts, max_new_tokens=10 * LEN, temperature=1.5, use_tools=False)
    for prompt, reply in zip(prompts, replies):
        assert len(prompt) + len(reply.ids) <= LEN
        assert reply.finish_reason == "stop" or len(prompt) + len(reply.ids) == LEN


@pytest.mark.parametrize("n", [0, LEN, LEN + 40])
def test_a_prompt_without_room_for_an_answer_is_refused(engine, n):
    with pytest.raises(UsageError, match="prompt has"):
        engine.generate([[1] * 4, [1] * n], max_new_tokens=4)


def test_the_cache_refuses_to_grow(model):
    cache = PlainCache(model, 1, 8)
    with pytest.raises(UsageError, match="9 tokens do not fit a KV cache of 8"):
        model(torch.zeros(1, 9, dtype=torch.int64), cache)
    assert cache.v.size(2) == cache.capacity == 8


def test_max_len_may_exceed_the_trained_length(model, tokenizer):
    reply, = Engine(model, tokenizer, max_len=LEN + 30).generate([[1] * LEN], max_new_tokens=20, temperature=0)
    assert len(reply.ids) == 20 or reply.finish_reason == "stop"


# ----------------------------------------------------------------------------------------------------------- sampling
def draw(logits, n=4000, **how):
    rng = random.Random(0)
    rows = torch.tensor([logits]).repeat(n, 1)
    settings = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, **how}
    columns = ([settings[name]] * n for name in ("temperature", "top_k", "top_p"))
    return sample(rows, *columns, [rng.random() for _ in range(n)], [settings["min_p"]] * n)


def test_samples_follow_the_distribution():
    p = [0.5, 0.3, 0.15, 0.05]
    counts = torch.bincount(draw([math.log(x) for x in p]), minlength=4) / 4000
    assert torch.allclose(counts, torch.tensor(p), atol=0.03)


def test_top_k_zero_and_beyond_the_vocabulary_are_off():
    logits = [0.0, 0.1, 0.2, 0.3]
    assert torch.equal(draw(logits, top_k=0), draw(logits, top_k=4))
    assert torch.equal(draw(logits, top_k=0), draw(logits, top_k=1000))
    assert set(draw(logits).tolist()) == {0, 1, 2, 3}


def test_top_k_and_top_p_keep_the_best():
    logits = [math.log(x) for x in (0.05, 0.5, 0.15, 0.3)]
    assert set(draw(logits, top_k=2).tolist()) == {1, 3}
    assert set(draw(logits, top_p=0.6).tolist()) == {1, 3}
    assert set(draw(logits, top_p=1e-9).tolist()) == {1}
    assert set(draw(logits, top_k=1, temperature=50.0).tolist()) == {1}
    assert set(draw(logits, temperature=0.0).tolist()) == {1}


def test_banned_tokens_are_never_drawn_not_even_at_the_edges():
    logits = torch.tensor([[-math.inf, 0.0, 0.0, -math.inf]] * 3)
    assert sample(logits, [1.0] * 3, [0] * 3, [1.0] * 3, [0.0, 0.5, 1 - 2**-53]).tolist() == [1, 2, 2]


def test_rows_with_different_settings_do_not_touch_each_other():
    torch.manual_seed(0)
    logits, rng = torch.randn(6, 50), random.Random(2)
    rows = [[0.0, 1.0, 0.7, 1.3, 1.0, 2.0], [0, 5, 0, 900, 1, 7], [1.0, 1.0, 0.5, 0.9, 1.0, 0.3],
            [rng.random() for _ in range(6)]]
    alone = [int(sample(logits[i:i + 1], *([r[i]] for r in rows))) for i in range(6)]
    assert sample(logits, *rows).tolist() == alone


@pytest.mark.parametrize("wrong", [dict(temperature=-1.0), dict(temperature=math.nan), dict(top_k=-1), dict(top_p=0.0),
                                   dict(top_p=1.5), dict(max_new_tokens=0), dict(min_p=1.5), dict(logprobs=-1),
                                   dict(repetition_penalty=0.0), dict(stop="end"), dict(stop=("",))])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Sampling(**wrong)


# -------------------------------------------------------------------------------------------------------------- tools
def tool_script(tokenizer, code, after):
    special = tokenizer.special
    return [*tokenizer.encode("Sum: "), special("<|python_start|>"), *tokenizer.encode(code), special("<|python_end|>"),
            *[0] * len(tokenizer.encode("564")), 0, 0, *tokenizer.encode(after)]


def test_tool_output_is_forced_fed_to_the_model_and_masked(tokenizer):
    script = tool_script(tokenizer, "47 * 12", "It is 564.")
    model = Scripted(tokenizer, script, prompt_len=1)
    reply, = Engine(model, tokenizer).generate([[tokenizer.bos_id]], max_new_tokens=60, temperature=1.0)
    assert parse_reply(tokenizer, reply.ids) == [
        {"type": "text", "text": "Sum: "}, {"type": "python", "text": "47 * 12"},
        {"type": "python_output", "text": "564"}, {"type": "text", "text": "It is 564."}]
    forced = [tokenizer.special("<|output_start|>"), *tokenizer.encode("564"), tokenizer.special("<|output_end|>")]
    assert [i for i, s in zip(reply.ids, reply.sampled) if not s] == forced
    assert len(reply.sampled) == len(reply.ids) and reply.finish_reason == "stop"
    assert model.seen == [tokenizer.bos_id, *reply.ids]


def test_tools_are_not_called_without_use_tools(tokenizer):
    model = Scripted(tokenizer, tool_script(tokenizer, "47 * 12", ""), prompt_len=1)
    reply, = Engine(model, tokenizer).generate([[tokenizer.bos_id]], max_new_tokens=60, temperature=0, use_tools=False)
    assert not set(reply.ids) & tokenizer.special_ids and all(reply.sampled)


def test_calls_of_one_reply_are_bounded(tokenizer):
    start, end = tokenizer.special("<|python_start|>"), tokenizer.special("<|python_end|>")
    one = [start, *tokenizer.encode("1"), end, 0, 0, 0]
    model = Scripted(tokenizer, one * 30, prompt_len=1)
    reply, = Engine(model, tokenizer, max_len=200).generate([[tokenizer.bos_id]], max_new_tokens=150, temperature=0)
    assert reply.ids.count(start) == MAX_TOOL_CALLS


def test_only_special_tokens_that_keep_the_format_can_be_sampled(engine, tokenizer):
    names = ["user_start", "user_end", "assistant_start", "output_start", "output_end", "system_start", "reserved_0"]
    illegal = {tokenizer.special(f"<|{name}|>") for name in names}
    replies = engine.generate(prompts_of(tokenizer, [4] * 20), max_new_tokens=60, temperature=4.0)
    for reply in replies:
        assert not illegal & {i for i, s in zip(reply.ids, reply.sampled) if s}
        assert all(i < tokenizer.vocab_size for i in reply.ids)


# ---------------------------------------------------------------------------------------------------------- streaming
def pieces(tokenizer, script):
    model = Scripted(tokenizer, script, prompt_len=1)
    return list(Engine(model, tokenizer).stream([tokenizer.bos_id], max_new_tokens=60, temperature=0))


def test_stream_never_splits_a_character(tokenizer):
    script = list("né 東京 🙂!".encode())   # a token for each byte
    events = pieces(tokenizer, script)
    assert [e.text for e in events if e.kind == "text"] == list("né 東京 🙂!")
    assert events[-1].kind == "end" and events[-1].usage == {"prompt_tokens": 1, "completion_tokens": len(script),
                                                               "cached_tokens": 0}


def test_stream_shows_half_a_character_once_at_the_end_and_drops_nothing(tokenizer):
    assert "".join(e.text for e in pieces(tokenizer, list("ok🙂".encode()[:-1]))) == "ok\ufffd"
    assert "".join(e.text for e in pieces(tokenizer, [*b"a\xf0\x9f", 0x62])) == "a\ufffdb"


def test_stream_shows_tools_as_whole_events_and_no_special_token(tokenizer):
    events = pieces(tokenizer, tool_script(tokenizer, "47 * 12", "It is 564."))
    shown = [(e.kind, e.text) for e in events if e.kind not in ("text", "end")]
    assert shown == [("python", "47 * 12"), ("python_output", "564")]
    assert "".join(e.text for e in events if e.kind == "text") == "Sum: It is 564."
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
        assert merged == parse_reply(tokenizer, reply.ids)


def test_closing_a_stream_stops_the_work(engine, tokenizer):
    steps = []
    original = Batcher.step
    stream = engine.stream([tokenizer.bos_id, 5], max_new_tokens=80, temperature=2.0, seed=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Batcher, "step", lambda self: steps.append(1) or original(self))
        next(stream)
        stream.close()
    assert 1 <= len(steps) < 10 and list(stream) == []


def test_text_stream_reports_an_unfinished_tool_call(tokenizer):
    sequence = Sequence(tokenizer, [1], Sampling(4))
    for token in [tokenizer.special("<|python_start|>"), *b"1+1"]:
        sequence.accept(token)
    events = TextStream(tokenizer).take(sequence)
    assert [(e.kind, e.text) for e in events] == [("python", "1+1"), ("end", "")]
    assert events[-1].finish_reason == "length"


# ------------------------------------------------------------------------------------- stop strings, logprobs, settings
def text_of(events):
    return "".join(e.text for e in events if e.kind == "text")


@pytest.mark.parametrize("stop, expected", [
    (("lo w",), "hel"), (("xyz", "wor", "o w"), "hell"), (("东", "京🙂"), "hello world é東"),
    (("d.",), "hello world é東京🙂!"), (("hello",), "")])
def test_a_stop_string_ends_the_text_before_it_across_tokens(tokenizer, stop, expected):
    script = list("hello world é東京🙂!".encode())   # a token for each byte
    model = Scripted(tokenizer, script, prompt_len=1)
    events = list(Engine(model, tokenizer).stream([tokenizer.bos_id], max_new_tokens=60, temperature=0, stop=stop))
    assert text_of(events) == expected and events[-1].finish_reason == "stop"
    assert all(e.text for e in events[:-1])
    assert len(model.seen) <= len(script) + 1 if expected.endswith("!") else len(model.seen) < len(script)


def test_a_stop_string_within_one_token_keeps_what_is_before_it(tokenizer):
    token = max((i for i in range(tokenizer.vocab_size) if tokenizer.decode([i]).isalpha()),
                key=lambda i: len(tokenizer.decode([i])))
    word = tokenizer.decode([token])
    model = Scripted(tokenizer, [*b"ab ", token, *b"rest"], prompt_len=1)
    events = list(Engine(model, tokenizer).stream([tokenizer.bos_id], temperature=0, stop=(word[1:],)))
    assert len(word) > 2 and text_of(events) == "ab " + word[0] and events[-1].usage["completion_tokens"] == 4


def test_stop_strings_are_looked_for_in_the_text_and_not_in_tools(tokenizer):
    model = Scripted(tokenizer, tool_script(tokenizer, "47 * 12", "It is 564."), prompt_len=1)
    events = list(Engine(model, tokenizer).stream([tokenizer.bos_id], max_new_tokens=90, temperature=0, stop=("64",)))
    assert [(e.kind, e.text) for e in events if e.kind.startswith("python")] == [("python", "47 * 12"),
                                                                               ("python_output", "564")]
    assert text_of(events) == "Sum: It is 5" and events[-1].finish_reason == "stop"


def test_logprobs_are_the_models_and_belong_to_the_text(engine, model, tokenizer):
    prompt, bias = prompts_of(tokenizer, [9])[0], banned(tokenizer, model.config.vocab_size)[2]
    how = dict(max_new_tokens=14, temperature=2.0, top_k=50, repetition_penalty=1.5, seed=3, use_tools=False)
    events = list(engine.stream(prompt, logprobs=3, **how))
    plain = list(engine.stream(prompt, **how))
    assert text_of(events) == text_of(plain) and not any(e.logprobs for e in plain)
    entries = [entry for e in events for entry in e.logprobs]
    ids, (reply,) = list(prompt), engine.generate([prompt], **how)
    assert [bytes(entry["bytes"]) for entry in entries] == [tokenizer.decode_bytes([i]) for i in reply.ids]
    for token, entry in zip(reply.ids, entries):
        expected = (model(torch.tensor([ids]))[0, -1].detach() + bias).log_softmax(-1)
        assert entry["logprob"] == pytest.approx(float(expected[token]), abs=1e-3)
        best = expected.topk(3)
        assert [top["logprob"] for top in entry["top"]] == pytest.approx(best.values.tolist(), abs=1e-3)
        assert [top["token"] for top in entry["top"]] == [tokenizer.decode([i]) for i in best.indices.tolist()]
        ids.append(token)


def test_logprobs_stop_where_the_text_stops(tokenizer):
    model = Scripted(tokenizer, list("aé stop".encode()), prompt_len=1)
    events = list(Engine(model, tokenizer).stream([tokenizer.bos_id], temperature=0, stop=(" s",), logprobs=0))
    assert text_of(events) == "aé"
    assert bytes(b for e in events for entry in e.logprobs for b in entry["bytes"]) == "aé".encode()


def test_min_p_keeps_what_is_likely_enough():
    logits = [math.log(x) for x in (0.05, 0.5, 0.15, 0.3)]
    assert set(draw(logits, min_p=0.5).tolist()) == {1, 3}
    assert set(draw(logits, min_p=0.2).tolist()) == {1, 2, 3}
    assert torch.equal(draw(logits, min_p=0.0), draw(logits))


def test_repetition_penalty_breaks_a_loop(engine, model, tokenizer):
    prompt, how = prompts_of(tokenizer, [9])[0], dict(max_new_tokens=60, temperature=0, use_tools=False)

    def repeats(penalty):
        reply, = engine.generate([prompt], repetition_penalty=penalty, **how)
        return len(reply.ids) - len(set(reply.ids))
    assert repeats(5.0) < repeats(None) / 2 and repeats(1.0) == repeats(None)


def test_penalised_logits_shrink_towards_unlikely():
    logits = torch.tensor([2.0, -2.0, 3.0, -math.inf])
    penalise(logits, [0, 1, 3], 2.0)
    assert logits.tolist() == [1.0, -4.0, 3.0, -math.inf]


# ------------------------------------------------------------------------------------------------------ tools, prefixes
def test_a_slow_tool_stops_nobody_else(engine, model, tokenizer, monkeypatch):
    gate = threading.Event()
    monkeypatch.setattr(tools, "run_tool", lambda code: gate.wait(60) and "7")
    prompt, other = prompts_of(tokenizer, [12, 9])
    slow, quick = (Sequence(tokenizer, p, Sampling(30, 0.0, use_tools=False)) for p in (prompt, other))
    for token in [tokenizer.special("<|python_start|>"), *b"1+6", tokenizer.special("<|python_end|>")]:
        slow.prompt.append(token)
    batcher = engine.batcher(2)
    batcher.add(slow)
    batcher.step()
    del slow.ids[:], slow.sampled[:], slow.logprobs[:]    # as if the model had called the tool just now
    slow.call = "1+6"
    batcher._calls[slow] = batcher._pool.submit(lambda: tools.run_tool("1+6"))
    batcher.add(quick)
    while not quick.finish_reason:
        batcher.step()
    assert quick.ids == reference(model, tokenizer, other, 30) and not slow.ids
    gate.set()
    while not batcher.idle:
        batcher.step()
    forced = [tokenizer.special("<|output_start|>"), *tokenizer.encode("7"), tokenizer.special("<|output_end|>")]
    assert slow.ids[:3] == forced and slow.sampled[:4] == [0, 0, 0, 1]
    assert slow.ids[3:] == reference(model, tokenizer, slow.prompt + forced, 27)


def test_a_long_prompt_is_read_in_chunks_beside_those_who_talk(engine, model, tokenizer):
    short, long = prompts_of(tokenizer, [4, 70])
    batcher = engine.batcher(2, beside=8)
    first, second = (Sequence(tokenizer, p, Sampling(20, 0.0, use_tools=False)) for p in (short, long))
    batcher.add(first)
    batcher.step()
    batcher.add(second)
    steps = 0
    while not second.ids and not second.finish_reason:
        before = len(first.ids)
        assert first in batcher.step() or first.finish_reason
        steps += 1
        assert len(first.ids) == before + 1 or first.finish_reason
    assert steps == 9
    while not batcher.idle:
        batcher.step()
    assert first.ids == reference(model, tokenizer, short, 20) and second.ids == reference(model, tokenizer, long, 20)


def finish(batcher, tokenizer, prompt, n=10, index=0, **how):
    sampling = Sampling(n, how.pop("temperature", 0.0), use_tools=False, **how)
    sequence = Sequence(tokenizer, list(prompt), sampling, index)
    batcher.add(sequence)
    while not batcher.idle:
        batcher.step()
    return sequence


def test_the_second_turn_of_a_chat_reads_only_what_is_new(engine, model, tokenizer):
    batcher, (prompt, rest, other) = engine.batcher(2), prompts_of(tokenizer, [30, 8, 12])
    first = finish(batcher, tokenizer, prompt)
    finish(batcher, tokenizer, other)
    history = prompt + first.ids
    second = finish(batcher, tokenizer, history + rest)
    assert first.cached_tokens == 0 and second.cached_tokens == len(history) - 1   # the last token was never read
    assert second.ids == reference(model, tokenizer, history + rest, 10)
    again = finish(batcher, tokenizer, other)
    assert again.cached_tokens == len(other) - 1 and again.ids == reference(model, tokenizer, other, 10)


def test_a_shared_beginning_is_copied_and_nobody_elses_cache_is_spoiled(engine, model, tokenizer):
    batcher, (system, a, b) = engine.batcher(3), prompts_of(tokenizer, [40, 20, 25])
    a, b = system + a[1:], system + b[1:]
    one, two = (finish(batcher, tokenizer, p) for p in (a, b))
    assert one.cached_tokens == 0 and two.cached_tokens == 40
    for prompt in (a, b):
        again = finish(batcher, tokenizer, prompt)
        assert again.cached_tokens == len(prompt) - 1 and again.ids == reference(model, tokenizer, prompt, 10)


def test_a_conversation_by_stream_reads_only_what_is_new(engine, model, tokenizer):
    first, second = ([tokenizer.bos_id, *range(65, 65 + n)] for n in (20, 30))
    for prompt, cached in ((first, 0), (second, 21)):
        *_, end = engine.stream(prompt, max_new_tokens=1, temperature=0, use_tools=False)
        assert end.usage["cached_tokens"] == cached


def test_twins_read_their_prompt_once(engine, model, tokenizer):
    prompt, batcher = prompts_of(tokenizer, [80])[0], engine.batcher(3)
    sequences = [Sequence(tokenizer, prompt, Sampling(10, 0.0, use_tools=False), i) for i in range(3)]
    for sequence in sequences:
        batcher.add(sequence)
    while not batcher.idle:
        batcher.step()
    assert [s.cached_tokens for s in sequences] == [0, 79, 79]
    assert all(s.ids == reference(model, tokenizer, prompt, 10) for s in sequences)


def test_a_penalty_with_nothing_to_punish_changes_nothing():
    logits = torch.tensor([1.0, -1.0])
    penalise(logits, [], 2.0)
    assert logits.tolist() == [1.0, -1.0]


@pytest.mark.parametrize("last, expected", [("<|assistant_start|>", "cat"), (None, " cat")])
def test_the_first_blank_is_the_formats_only_at_the_beginning_of_a_reply(tokenizer, last, expected):
    prompt = [*tokenizer.encode("the"), *([tokenizer.special(last)] if last else [])]
    sequence = Sequence(tokenizer, prompt, Sampling())
    sequence.ids, sequence.finish_reason = tokenizer.encode(" cat"), "stop"
    sequence.logprobs = [None] * len(sequence.ids)
    assert "".join(event.text for event in TextStream(tokenizer).take(sequence)) == expected
