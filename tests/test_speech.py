"""What a model says as it learns goes into the run's log, and changes nothing else."""
import json
import os
import signal

import pytest
import torch
from test_train import FakeRows, weights
from tiny import tiny_tokenizer

from nanochat import kindergarten, memory, scaling
from nanochat.common import Interrupted
from nanochat.data.dataloader import StepBatches
from nanochat.model.gpt import GPT, GPTConfig
from nanochat.runtime import Runtime
from nanochat.train import loop, speech
from nanochat.train.recipe import RunFlags
from nanochat.train.resume import TrainState
from nanochat.train.rollout import Rollout, readable
from nanochat.train.stages import STAGES

TOKENIZER = tiny_tokenizer()
STEPS = 12


def make(folder, prompts, chats=True, hook=None, sequence_len=64):
    config = GPTConfig(sequence_len, TOKENIZER.vocab_size, n_layer=2, n_head=2, n_kv_head=2, n_embd=32)
    rt = Runtime()
    model = GPT(config)
    model.init_weights(1)

    def batches(start, at_a_time):
        for step, micro in StepBatches(FakeRows(), 8, at_a_time, 0, 1, start_step=start):
            torch.rand(1)       # somebody uses the global generator
            if hook:
                hook(step)
            yield step, micro
    stage = loop.Stage("test", folder / "run", folder / "log.jsonl", STEPS, batches,
                       lambda step: (scaling.lr_scale(step, STEPS), scaling.muon_momentum(step, STEPS)), {"steps": STEPS},
                       {"model": vars(config), "tokenizer": "x"}, rows=4, tokenizer=TOKENIZER, prompts=prompts, chats=chats,
                       flags=RunFlags(save_every=4))
    return stage, model, loop.make_optimizer(model, rt), rt


def spoken(folder):
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return {record["step"]: record for record in records if "answers" in record}


@pytest.mark.parametrize("chats", [True, False])
def test_the_weights_the_log_and_the_generators_are_as_without_it_bit_for_bit(tmp_path, chats):
    ends = []
    for name, prompts in (("silent", ()), ("speaking", ("Who are you?", "hello"))):
        torch.manual_seed(5)
        parts = make(tmp_path / name, prompts, chats)
        loop.run(*parts)
        lines = [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        ends.append((weights(parts[1]), torch.get_rng_state(), [line["loss"] for line in lines if "loss" in line]))
        assert parts[1].training
    (before, state_before, losses_before), (after, state_after, losses_after) = ends
    assert all(torch.equal(p, after[name]) for name, p in before.items())
    assert torch.equal(state_before, state_after) and losses_before == losses_after
    said = spoken(tmp_path / "speaking")
    assert set(said) == set(speech.speaking_steps(STEPS)) and not spoken(tmp_path / "silent")
    for record in said.values():
        assert [prompt for prompt, _ in record["answers"]] == ["Who are you?", "hello"] and record["memory_gib"] > 0


def test_it_speaks_early_often_and_at_the_end():
    assert sorted(speech.speaking_steps(500)) == [1, 2, 6, 14, 35, 85, 206, 500]
    for steps in (1, 2, 3, 20, 100_000):
        found = speech.speaking_steps(steps)
        assert {1, steps} <= found and len(found) <= speech.TIMES


def test_only_rank_0_speaks(tmp_path):
    stage, model, optimizer, _ = make(tmp_path, ("hello",))
    for rank, speaks in ((1, False), (0, True)):
        rt = Runtime(rank=rank, world_size=2)
        loop._Sitting(stage, model, optimizer, rt, TrainState(step=1), None, None, []).speak()
        assert stage.log_path.exists() == speaks


def test_a_stopped_run_goes_on_speaking_and_repeats_nothing(tmp_path):
    def stop(step):
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
    loop.run(*make(tmp_path / "straight", ("hello",)))
    with pytest.raises(Interrupted):
        loop.run(*make(tmp_path / "stopped", ("hello",), hook=stop))
    loop.run(*make(tmp_path / "stopped", ("hello",)))
    for straight, stopped in zip(spoken(tmp_path / "straight").items(), spoken(tmp_path / "stopped").items(), strict=True):
        assert straight[0] == stopped[0] and straight[1]["answers"] == stopped[1]["answers"]


def test_what_does_not_fit_is_passed_over_and_no_reason_to_end(tmp_path, monkeypatch):
    parts = make(tmp_path, ("hello", "a " * 100))
    assert [prompt for prompt, _ in speech.answers(parts[1], TOKENIZER, parts[0].prompts, True)] == ["hello"]

    def fails(*args, **more):
        raise memory.OutOfMemory("memory ran out")
    monkeypatch.setattr(speech.Engine, "generate", fails)
    loop.run(*parts)
    assert parts[1].training and all(record["answers"] == [] for record in spoken(tmp_path).values())


def test_every_stage_is_asked_the_same_six_things_as_it_can_answer():
    asked = {name: row.prompts for name, row in STAGES.items()}
    assert asked["mid"] == asked["sft"] == asked["rl"] and all(len(prompts) == 6 for prompts in asked.values())
    assert all(prompt.endswith(("?", ".")) for prompt in asked["rl"]) and not any(p.endswith("?") for p in asked["base"])
    names = {person.name for person in kindergarten.World().people}
    for prompts in asked.values():
        assert any(name in prompt for prompt in prompts for name in names), "somebody who lives in the kindergarten"


def test_the_group_that_is_shown_is_one_from_which_something_is_learned():
    def rollout(text, reward):
        return Rollout([0], TOKENIZER.encode(text), [1], reward)
    groups = [[rollout("a", 1.0), rollout("b", 1.0)], [rollout("no", 0.0), rollout("yes", 1.0)]]
    items = [(None, {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": ""}]}) for q in ("One?", "Two?")]
    assert readable(TOKENIZER, items, groups) == {"question": "Two?", "answers": [["yes", 1.0], ["no", 0.0]]}
