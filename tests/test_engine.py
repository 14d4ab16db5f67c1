"""Engine: who joins and leaves a batch, what a slot remembers, how prompts are read, and what may never be passed."""
import time

import pytest
from engines import LEN, ask, drain, engine, finish, greedy, model, tokenizer  # noqa: F401
from tiny import prompts_of

from nanochat.common import UsageError
from nanochat.infer import tools
from nanochat.infer.engine import Engine
from nanochat.infer.scheduler import Scheduler


def active(scheduler):
    """The sequences that have a slot, oldest first."""
    return [slot.sequence for slot in scheduler.running]


# ------------------------------------------------------------------------------------------------------- join and leave
def test_greedy_equals_slow_reference_whatever_the_batch(engine, model, tokenizer):
    prompts = prompts_of(tokenizer, [3, 30, 11, 4, 50, 9, 17, 1, 26])
    expected = [greedy(model, tokenizer, p, 12) for p in prompts]
    for batch_size in (1, 2, 4, 64):
        got = engine.generate(prompts, max_new_tokens=12, temperature=0, use_tools=False, batch_size=batch_size)
        assert [c.ids for c in got] == expected, f"batch_size {batch_size}"


def test_rows_join_and_leave_at_any_step(engine, model, tokenizer):
    prompts, budgets = prompts_of(tokenizer, [8, 20, 5, 13, 30, 2]), [3, 9, 1, 14, 6, 20]
    expected = [greedy(model, tokenizer, p, n) for p, n in zip(prompts, budgets)]
    scheduler, sequences = engine.scheduler(3), []
    for prompt, n in zip(prompts, budgets):
        sequences.append(ask(scheduler, prompt, n))
        scheduler.step()
        assert len(active(scheduler)) <= 3
    drain(scheduler)
    assert [s.ids for s in sequences] == expected


def test_sampled_result_is_independent_of_batch_size(engine, tokenizer):
    prompts = prompts_of(tokenizer, [6, 14, 3, 9, 21])
    settings = dict(max_new_tokens=10, temperature=1.0, top_k=40, top_p=0.95, seed=5, use_tools=False)

    def replies(**how):
        return [(s.ids, s.sampled, s.finish_reason) for s in engine.generate(prompts, **{**settings, **how})]
    assert replies() == replies(batch_size=2) == replies()
    assert replies() != replies(seed=-5)


def test_first_token_is_sampled_for_each_sequence(engine, tokenizer):
    prompt = prompts_of(tokenizer, [6])[0]
    replies = engine.generate([prompt] * 24, max_new_tokens=1, temperature=2.0)
    assert len({tuple(r.ids) for r in replies}) > 3


def test_removing_a_sequence_frees_its_slot(engine, tokenizer):
    scheduler = engine.scheduler(1)
    first, second, third = (ask(scheduler, [tokenizer.bos_id, i], 50) for i in (1, 2, 3))
    scheduler.step()
    assert active(scheduler) == [first]
    scheduler.remove(third)
    scheduler.remove(first)
    scheduler.remove(first)
    assert not active(scheduler)
    scheduler.step()
    assert active(scheduler) == [second] and not scheduler.waiting


def test_closing_a_stream_stops_the_work(engine, tokenizer):
    steps = []
    original = Scheduler.step
    stream = engine.stream([tokenizer.bos_id, 5], max_new_tokens=80, temperature=2.0, seed=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scheduler, "step", lambda self: steps.append(1) or original(self))
        next(stream)
        stream.close()
    assert 1 <= len(steps) < 10 and list(stream) == []


# ------------------------------------------------------------------------------------------------------------- capacity
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


def test_max_len_may_exceed_the_trained_length(model, tokenizer):
    reply, = Engine(model, tokenizer, max_len=LEN + 30).generate([[1] * LEN], max_new_tokens=20, temperature=0)
    assert len(reply.ids) == 20 or reply.finish_reason == "stop"


# -------------------------------------------------------------------------------------------------------- chunks, tools
def steps_beside_a_call(engine, tokenizer, seconds, monkeypatch):
    """(a reply that asks a tool which takes `seconds`, the pieces that were read in each step)"""
    monkeypatch.setattr(tools, "run_tool", lambda code: time.sleep(seconds) or f"{code} is 7")
    start = tokenizer.special("<|python_start|>")
    end = tokenizer.special("<|python_end|>")
    prompt, other = prompts_of(tokenizer, [12, 9])
    scheduler = engine.scheduler(2)
    steps = []
    forward = scheduler.runner.forward
    scheduler.runner.forward = lambda work: steps.append(work) or forward(work)
    caller = ask(scheduler, prompt, 30, logit_bias=((end, 1000.0),))    # elsewhere the format forbids it
    for token in (start, *tokenizer.encode("1")):
        caller.accept(token)
    ask(scheduler, other, 30)
    drain(scheduler)
    return caller, steps


def test_a_tool_answers_in_the_step_that_asks_it(engine, model, tokenizer, monkeypatch):
    """However long it takes: were its answer to come a step later, other rows would be computed together."""
    caller, steps = steps_beside_a_call(engine, tokenizer, 0.0, monkeypatch)
    told = [tokenizer.special("<|output_start|>"), *tokenizer.encode("1 is 7"), tokenizer.special("<|output_end|>")]
    assert caller.ids[3:3 + len(told)] == told and caller.sampled[:4 + len(told)] == [1] * 3 + [0] * len(told) + [1]
    so_far = caller.prompt + caller.ids[:3 + len(told)]
    assert caller.ids[3 + len(told):] == greedy(model, tokenizer, so_far, 27 - len(told))
    later, others = steps_beside_a_call(engine, tokenizer, 0.2, monkeypatch)
    assert later.ids == caller.ids and others == steps


def test_a_long_prompt_is_read_in_chunks_beside_those_who_talk(engine, model, tokenizer):
    short, long = prompts_of(tokenizer, [4, 70])
    scheduler, steps = engine.scheduler(2, prefill_beside=8), 0
    first = ask(scheduler, short, 20)
    scheduler.step()
    second = ask(scheduler, long, 20)
    while not second.ids and not second.finish_reason:
        before = len(first.ids)
        assert first in scheduler.step() or first.finish_reason
        steps += 1
        assert len(first.ids) == before + 1 or first.finish_reason
    assert steps == 9
    drain(scheduler)
    assert first.ids == greedy(model, tokenizer, short, 20) and second.ids == greedy(model, tokenizer, long, 20)


# --------------------------------------------------------------------------------------------------------- prefix cache
def test_the_second_turn_of_a_chat_reads_only_what_is_new(engine, model, tokenizer):
    scheduler, (prompt, rest, other) = engine.scheduler(2), prompts_of(tokenizer, [30, 8, 12])
    first = finish(scheduler, prompt)
    finish(scheduler, other)
    history = prompt + first.ids
    second = finish(scheduler, history + rest)
    assert first.cached_tokens == 0 and second.cached_tokens == len(history) - 1   # the last token was never read
    assert second.ids == greedy(model, tokenizer, history + rest, 10)
    again = finish(scheduler, other)
    assert again.cached_tokens == len(other) - 1 and again.ids == greedy(model, tokenizer, other, 10)


@pytest.mark.parametrize("shared", [40, 3])
def test_a_shared_beginning_is_copied_and_nobody_elses_cache_is_spoiled(engine, model, tokenizer, shared):
    scheduler, (system, a, b) = engine.scheduler(3), prompts_of(tokenizer, [shared, 20, 25])
    a, b = system + a[1:], system + b[1:]
    one, two = (finish(scheduler, p) for p in (a, b))
    assert one.cached_tokens == 0 and two.cached_tokens == shared
    for prompt in (a, b):
        again = finish(scheduler, prompt)
        assert again.cached_tokens == len(prompt) - 1 and again.ids == greedy(model, tokenizer, prompt, 10)


def test_a_conversation_by_stream_reads_only_what_is_new(engine, model, tokenizer):
    first, second = ([tokenizer.bos_id, *range(65, 65 + n)] for n in (20, 30))
    for prompt, cached in ((first, 0), (second, 21)):
        *_, end = engine.stream(prompt, max_new_tokens=1, temperature=0, use_tools=False)
        assert end.usage["cached_tokens"] == cached


def test_twins_read_their_prompt_once(engine, model, tokenizer):
    prompt, scheduler = prompts_of(tokenizer, [80])[0], engine.scheduler(3)
    sequences = [ask(scheduler, prompt, 10, i) for i in range(3)]
    drain(scheduler)
    assert [s.cached_tokens for s in sequences] == [0, 79, 79]
    assert all(s.ids == greedy(model, tokenizer, prompt, 10) for s in sequences)
