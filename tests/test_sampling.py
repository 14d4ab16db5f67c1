"""Sampling: which token is drawn, by a row's own settings, and what is told about it; compiled and in torch."""
import math
import random

import pytest
import torch
from engines import engine, model, tokenizer  # noqa: F401
from tiny import prompts_of

from nanochat.common import UsageError
from nanochat.infer.sampling import Sampling, sample_tokens, sample_tokens_torch
from nanochat.infer.scheduler import format_bias


def both(*args):
    """What the compiled kernel draws, and torch, too, but where rounding moves a point over a border."""
    tokens = sample_tokens(*args)
    assert (tokens != sample_tokens_torch(*args)).sum() <= 2
    return tokens


def draw(logits, n=4000, **how):
    rng = random.Random(0)
    rows = torch.tensor([logits]).repeat(n, 1)
    settings = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, **how}
    columns = ([settings[name]] * n for name in ("temperature", "top_k", "top_p"))
    return both(rows, *columns, [rng.random() for _ in range(n)], [settings["min_p"]] * n)


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


def test_min_p_keeps_what_is_likely_enough():
    logits = [math.log(x) for x in (0.05, 0.5, 0.15, 0.3)]
    assert set(draw(logits, min_p=0.5).tolist()) == {1, 3}
    assert set(draw(logits, min_p=0.2).tolist()) == {1, 2, 3}
    assert torch.equal(draw(logits, min_p=0.0), draw(logits))


def test_banned_tokens_are_never_drawn_not_even_at_the_edges():
    logits = torch.tensor([[-math.inf, 0.0, 0.0, -math.inf]] * 3)
    assert both(logits, [1.0] * 3, [0] * 3, [1.0] * 3, [0.0, 0.5, 1 - 2**-53], [0.0] * 3).tolist() == [1, 2, 2]


def test_rows_with_different_settings_do_not_touch_each_other():
    rng, differ = random.Random(0), 0
    for seed in range(60):
        V, spread = rng.choice([5, 50, 2000]), rng.choice([0.5, 3, 30])
        logits = torch.randn(7, V, generator=torch.Generator().manual_seed(seed)) * spread
        rows = [[rng.choice(choices) for _ in logits] for choices in (
            [0.0, 0.1, 0.7, 1.0, 2.0], [0, 1, 5, 50, 900], [1.0, 0.9, 0.5, 0.01], [0.0, 0.3, 0.9, 0.999], [0.0, 0.05, 0.5, 1.0])]
        compiled, by_torch = ([int(way(logits[i:i + 1], *([r[i]] for r in rows))) for i in range(7)]
                              for way in (sample_tokens, sample_tokens_torch))
        assert sample_tokens(logits, *rows).tolist() == compiled and sample_tokens_torch(logits, *rows).tolist() == by_torch
        differ += sum(a != b for a, b in zip(compiled, by_torch))
    assert differ <= 4      # of 420


def test_equally_likely_tokens_stay_or_go_together():
    logits = [1.0, 3.0, 2.0, 3.0, 2.0]
    assert set(draw(logits, top_k=1).tolist()) == {1, 3} and set(draw(logits, top_k=3).tolist()) == {1, 2, 3, 4}
    assert set(draw(logits, top_p=0.1).tolist()) == {1, 3} and set(draw(logits, top_k=1, temperature=0.0).tolist()) == {1}


@pytest.mark.parametrize("wrong", [dict(temperature=-1.0), dict(temperature=math.nan), dict(top_k=-1), dict(top_p=0.0),
                                   dict(top_p=1.5), dict(max_new_tokens=-1), dict(min_p=1.5), dict(logprobs=-1),
                                   dict(frequency_penalty=3.0), dict(stop="end"), dict(stop=("",))])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Sampling(**wrong)


# -------------------------------------------------------------------------------------------------------- in the engine
def test_a_penalty_breaks_a_loop(engine, model, tokenizer):
    prompt, how = prompts_of(tokenizer, [9])[0], dict(max_new_tokens=60, temperature=0, use_tools=False)

    def repeats(penalty):
        reply, = engine.generate([prompt], frequency_penalty=penalty, **how)
        return len(reply.ids) - len(set(reply.ids))
    assert repeats(2.0) < repeats(None) / 2 and repeats(0.0) == repeats(None)


def test_only_special_tokens_that_keep_the_format_can_be_sampled(engine, tokenizer):
    names = ["user_start", "user_end", "assistant_start", "output_start", "output_end", "system_start", "reserved_0"]
    illegal = {tokenizer.special(f"<|{name}|>") for name in names}
    replies = engine.generate(prompts_of(tokenizer, [4] * 20), max_new_tokens=60, temperature=4.0)
    for reply in replies:
        assert not illegal & {i for i, s in zip(reply.ids, reply.sampled) if s}
        assert all(i < tokenizer.vocab_size for i in reply.ids)


def test_logprobs_are_the_models_and_belong_to_the_text(engine, model, tokenizer):
    prompt, bias = prompts_of(tokenizer, [9])[0], format_bias(tokenizer, model.config.vocab_size)[2]
    how = dict(max_new_tokens=14, temperature=2.0, top_k=50, frequency_penalty=1.5, seed=3, use_tools=False)
    events = list(engine.stream(prompt, logprobs=3, **how))
    plain = list(engine.stream(prompt, **how))
    assert "".join(e.text for e in events) == "".join(e.text for e in plain) and not any(e.logprobs for e in plain)
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


@pytest.mark.parametrize("temperature", [5e-324, 1e-30, 1.0, 1e308])
def test_no_temperature_gives_a_token_that_is_not_there_or_not_allowed(temperature):
    logits = 5 * torch.randn(4, 330, generator=torch.Generator().manual_seed(0))
    logits[:, 0] = -torch.inf
    for top_k, top_p, uniform, min_p in ((0, 1.0, 1 - 1e-9, 0.0), (5, 1e-5, 1 - 1e-9, 0.5), (0, 5e-324, 0.0, 1.0)):
        tokens = sample_tokens(logits, [temperature] * 4, [top_k] * 4, [top_p] * 4, [uniform] * 4, [min_p] * 4)
        assert tokens.min() > 0 and tokens.max() < 330
