"""Memory that runs out: fewer rows at a time give the same run, in every stage and on all ranks together; what no halving helps."""
import gc
import importlib
import json
import sys
import time
import weakref
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_train import Ranks, weights

from nanochat import memory, runtime, scaling
from nanochat.common import NanochatError, base_dir
from nanochat.data import datasets
from nanochat.data.dataloader import StepBatches
from nanochat.infer.runner import Runner
from nanochat.model import fp8
from nanochat.model.gpt import GPT, GPTConfig
from nanochat.runtime import Runtime
from nanochat.train import checkpoint, loop
from nanochat.train.recipe import RunFlags
from nanochat.train.stages import STAGES

CONFIG = GPTConfig(sequence_len=16, vocab_size=64, n_layer=2, n_head=2, n_kv_head=2, n_embd=32, key_offset=0.5, value_offset=0.5,
                   value_tables=True)
FULL = "CUDA out of memory. Tried to allocate 2.00 GiB."


class ManyRows:
    """600 rows of a cycle with noise."""

    def __init__(self):
        rng = np.random.RandomState(0)
        self.tokens = (rng.randint(0, 64, size=(600, 1)) + np.arange(17) * 3 + (rng.rand(600, 17) < 0.1)) % 64
        self.counts = np.full(600, 16.0)

    def __len__(self):
        return 600

    def row(self, i):
        return self.tokens[i].astype(np.int64), np.ones(16, np.float32)


def make(folder, rows, rt=Runtime(), steps=3, **more):
    """Arguments of loop.run: steps of 64 rows for each rank, `rows` of them at a time."""
    model = GPT(CONFIG, rt.dtype)
    model.init_weights(1)

    def batches(start, at_a_time):
        return iter(StepBatches(ManyRows(), 64 * rt.world_size, at_a_time, rt.rank, rt.world_size, start_step=start))
    flags = {"save_every": 0, **{name: more.pop(name) for name in ("save_minutes", "keep") if name in more}}
    stage = loop.Stage("test", folder / "run", folder / "log.jsonl", steps, batches, lambda step: (1.0, 0.9), {},
                       {"model": asdict(CONFIG), "tokenizer": "x"}, RunFlags(**flags), rows=rows, **more)
    return stage, model, loop.make_optimizer(model, rt), rt


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def limited(monkeypatch):
    """limited(rows, tokens) -> the sizes that were tried: a device that holds no more, in training as in decoding."""
    def limit(rows, tokens=10**9, without_recompute=10**9):
        return set_limit(monkeypatch.setattr, rows, tokens, without_recompute)
    return limit


def set_limit(patch, rows, tokens=10**9, without_recompute=10**9):
    hidden, init, tried = GPT.hidden, Runner.__init__, []

    def full_hidden(self, idx, *more):
        tried.append(len(idx))
        most = rows if self.recompute or not torch.is_grad_enabled() else min(rows, without_recompute)
        if len(idx) > most or idx.numel() > tokens:
            raise torch.OutOfMemoryError(FULL)
        return hidden(self, idx, *more)

    def full_init(self, model, batch_size, *more, **options):
        tried.append(batch_size)
        if batch_size > rows:
            raise torch.OutOfMemoryError(FULL)
        init(self, model, batch_size, *more, **options)
    patch(GPT, "hidden", full_hidden)
    patch(Runner, "__init__", full_init)
    return tried


# -------------------------------------------------------------------------------------------------------------- halving
@pytest.mark.parametrize("rows", [64, 32, 16])
def test_a_run_that_runs_out_of_memory_is_the_run_that_began_with_fewer_rows(tmp_path, limited, caplog, rows):
    caplog.set_level("INFO", "nanochat")
    began = make(tmp_path / "began", 8)
    loop.run(*began)
    tried = limited(8)
    healed = make(tmp_path / "healed", rows)
    loop.run(*healed)
    assert max(tried) == rows and set(tried[-24:]) == {8}, "three steps of eight micro-batches"
    assert losses(tmp_path / "healed") == losses(tmp_path / "began")
    assert all(torch.equal(p, weights(began[1])[name]) for name, p in weights(healed[1]).items())
    said = [line for line in caplog.messages if "memory ran out" in line]
    assert said[-1] == "memory ran out with 16 rows at a time: going on with at most 8" and len(said) == {64: 3, 32: 2, 16: 1}[rows]


def test_on_two_ranks_one_that_runs_out_has_both_go_on_with_less(tmp_path):
    Ranks(2, __file__).run(tmp_path)
    began = losses(tmp_path / "8")
    assert len(began) == 3
    for rows in (64, 32, 16):
        assert losses(tmp_path / str(rows)) == began
        one, other = (load_file(tmp_path / str(n) / "run" / "000003" / "model.safetensors") for n in (8, rows))
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert checkpoint.steps_in(tmp_path / "16" / "run") == [2, 3], "one rank's clock is enough for all to save"


def test_rows_that_memory_does_not_hold_in_the_middle_of_a_run_change_nothing_before(tmp_path, limited):
    began = make(tmp_path / "began", 8, steps=4)
    loop.run(*began)
    stage, model, *rest = make(tmp_path / "healed", 16, steps=4)
    real = stage.batches

    def batches(start, at_a_time):
        for step, micro in real(start, at_a_time):
            if step == 2 and at_a_time == 16:
                limited(8)
            yield step, micro
    stage.batches = batches
    loop.run(stage, model, *rest)
    assert losses(tmp_path / "healed") == pytest.approx(losses(tmp_path / "began"), abs=1e-4)
    assert [json.loads(line)["step"] for line in stage.log_path.read_text(encoding="utf-8").splitlines()] == [1, 2, 3, 4]


def test_where_not_one_row_fits_activations_are_computed_anew_with_all_rows_again(tmp_path, limited, caplog):
    caplog.set_level("INFO", "nanochat")
    began = make(tmp_path / "began", 8)
    loop.run(*began)
    tried = limited(8, without_recompute=0)
    healed = make(tmp_path / "healed", 16)
    loop.run(*healed)
    assert tried[:6] == [16, 8, 4, 2, 1, 16] and healed[1].recompute and "now with --recompute" in caplog.text
    assert all(torch.equal(p, weights(began[1])[name]) for name, p in weights(healed[1]).items())


def test_what_never_fits_is_one_line_that_says_what_would(tmp_path, limited, monkeypatch):
    limited(0)
    monkeypatch.setattr(runtime, "memory_gib", lambda rt: 4e-3)
    with pytest.raises(NanochatError, match=r"^memory ran out: a d2 .* of 0\.0 GiB here\. .*--depth=1 fits, .*\.$"):
        loop.run(*make(tmp_path, 4))
    big = GPTConfig(2048, 32768, value_tables=True, **vars(scaling.model_shape(26)))
    monkeypatch.setattr(runtime, "memory_gib", lambda rt: 24.0)
    said = r"d26 with 2,048 .*wants 33\.5 of 24\.0 GiB here\. .*--depth=22 fits"
    with pytest.raises(NanochatError, match=said), memory.must_fit(big, Runtime(dtype=torch.bfloat16)):
        raise RuntimeError("MPS backend out of memory")


@pytest.mark.parametrize("where", ["step", "masters"])
def test_memory_that_runs_out_outside_of_the_rows_is_one_line_and_not_tried_again(tmp_path, monkeypatch, where):
    stage, model, optimizer, rt = make(tmp_path, 4)
    calls = []

    def full(*args):
        calls.append(1)
        raise torch.OutOfMemoryError(FULL)
    monkeypatch.setattr(optimizer, where, full)
    with pytest.raises(NanochatError, match="memory ran out: a d2 with 16 tokens"):
        loop.run(stage, model, optimizer, rt)
    assert len(calls) == 1


def test_what_an_attempt_held_is_free_before_the_next_and_what_fitted_is_remembered():
    model, held, tried = torch.nn.Linear(1, 1), [], []

    def work(size):
        assert all(tensor() is None for tensor in held), "the attempt before still holds its memory"
        tried.append(size)
        tensor = torch.ones(10)
        held.append(weakref.ref(tensor))
        if size > 5:
            torch.empty(1 << 60)  # the allocator's own error
        return size
    gc.disable()                # it may come too late
    try:
        assert memory.fitted(model, "things", 20, work) == 5 and memory.fitted(model, "things", 20, work) == 5
    finally:
        gc.enable()
    assert tried == [20, 10, 5, 5] and memory.fitted(torch.nn.Linear(1, 1), "things", 4, work) == 4


@pytest.mark.parametrize("error, yes", [
    (torch.OutOfMemoryError(FULL), True), (RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"), True),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True), (MemoryError(), True),
    (RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"), False), (ValueError("out of memory"), False)])
def test_an_error_of_memory_is_known_and_no_other(error, yes):
    assert memory.ran_out(error) == yes
    if not yes:
        with pytest.raises(type(error)):
            memory.fitted(torch.nn.Linear(1, 1), "things", 8, lambda size: exec("raise error", {"error": error}))


# ------------------------------------------------------------------------------------------------------- recomputation
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("in_8_bits", [False, True])
def test_gradients_with_recomputation_are_the_same_bits(dtype, in_8_bits):
    found = []
    for recompute in (False, True):
        model = GPT(CONFIG, dtype)
        model.init_weights(1)
        for name, p in model.named_parameters():
            if "c_proj" in name:                    # zero at first, which would hide the rest
                p.data.normal_(0, 0.1, generator=torch.Generator().manual_seed(2))
        if in_8_bits:
            fp8.convert(model)
        model.recompute = recompute
        optimizer = loop.make_optimizer(model, Runtime())
        idx = torch.randint(0, 64, (4, 16), generator=torch.Generator().manual_seed(0))
        for _ in range(2):
            model.loss(idx, idx.roll(1, 1), torch.ones(4, 16)).backward()
        found.append([bucket.grad for bucket in optimizer.buckets])
    assert all(torch.equal(plain, again) and plain.any() for plain, again in zip(*found))


# --------------------------------------------------------------------------------------------- every stage, every test
SMALL = ["--device=cpu", "--num_iterations=2"]
RUNS = {
    "base": ["--dataset=kindergarten", "--depth=1", "--sequence_len=64", "--total_batch_size=1024", "--eval_tokens=2048"],
    "mid": ["--conversations=200", "--source_tag=began", "--total_batch_size=1024"],
    "sft": ["--conversations=200", "--source_tag=began", "--total_batch_size=1024"],
    "rl": ["--questions=4", "--samples=4", "--max_new_tokens=8", "--anchor_rows=12", "--source_tag=began", "--temperature=2"],
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A base directory with every stage run at four rows at a time, as tag `began`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NANOCHAT_BASE_DIR", str(tmp_path_factory.mktemp("memory")))
        patch.setattr(datasets, "KINDERGARTEN_SHARD", 60)
        patch.setattr(datasets, "KINDERGARTEN_VAL", 20)
        script("tok_train").main(["--dataset=kindergarten", "--vocab_size=400"])
        for stage, flags in RUNS.items():
            script(STAGES[stage].script).main([*SMALL, *flags, "--device_batch_size=4", "--tag=began"])
        yield base_dir()


def script(name):
    return importlib.import_module(f"scripts.{name}")


def metrics(home, name):
    return json.loads((home / "report" / "results" / f"{name}.json").read_text(encoding="utf-8"))["metrics"]


@pytest.mark.parametrize("stage", RUNS)
def test_every_stage_heals_its_sampling_and_validation_too(home, monkeypatch, limited, stage):
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(home))
    tried = limited(4)
    script(STAGES[stage].script).main([*SMALL, *RUNS[stage], "--device_batch_size=16", "--tag=healed"])
    began, healed = (load_file(checkpoint.find(stage, tag) / "model.safetensors") for tag in ("began", "healed"))
    assert max(tried) == 16 and all(torch.equal(began[name], healed[name]) for name in began)
    one, other = (checkpoint.read_meta(checkpoint.find(stage, tag))["state"] for tag in ("began", "healed"))
    assert one["loss"] == other["loss"] and one["val"] == pytest.approx(other["val"], rel=1e-6)


@pytest.mark.parametrize("name, flags", [
    ("chat_eval", ["-i", "rl", "-a", "kg_identity|kg_word_problem", "--max_problems=10", "--max_new_tokens=8"]),
    ("chat_eval", ["-i", "rl", "-a", "kg_choice", "--max_problems=20"]),
    ("base_loss", ["--max_rows=20", "--sample_tokens=4"])])
def test_evaluations_heal_and_their_results_stay(home, monkeypatch, limited, name, flags):
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(home))
    result = "chat_eval_rl" if name == "chat_eval" else name
    script(name).main([*flags, "--device=cpu", "--tag=began"])
    before = metrics(home, result)
    tried = limited(4, tokens=600)
    script(name).main([*flags, "--device=cpu", "--tag=began"])
    after = metrics(home, result)
    assert max(tried) > 4 and after.get("tasks") == before.get("tasks")
    assert after.get("val_bpb") == pytest.approx(before.get("val_bpb"))


# --------------------------------------------------------------------------------------------------------------- saving
def test_by_time_a_run_saves_when_it_is_time_and_not_for_a_validation(tmp_path):
    validated = []
    more = {"keep": 0, "evaluate": lambda: validated.append(1) or {"val_loss": 1.0}, "eval_every": 2}
    for name, minutes, expected in (("each", 1e-9, [1, 2, 3, 4]), ("never", 1e9, [4]), ("off", 0.0, [2, 4])):
        loop.run(*make(tmp_path / name, 64, steps=4, save_minutes=minutes, **more))
        assert checkpoint.steps_in(tmp_path / name / "run") == expected and len(validated) == 2
        assert checkpoint.best_step(tmp_path / name / "run") in expected
        validated.clear()


def test_a_run_that_saves_by_time_goes_on_bitwise_from_between_two_validations(tmp_path, monkeypatch):
    clock, passed = time.monotonic, [0]
    monkeypatch.setattr(time, "monotonic", lambda: clock() + passed[0])

    def run(folder, fail=None):
        passed[0] = 0
        parts = make(folder, 64, steps=6, save_minutes=10, evaluate=lambda: {"val_loss": 1.0}, eval_every=2)
        real = parts[0].batches

        def batches(start, at_a_time):
            for step, micro in real(start, at_a_time):
                if fail == step:
                    raise KeyboardInterrupt
                passed[0] += 601 * (step == 2)
                yield step, micro
        parts[0].batches = batches
        loop.run(*parts)
        return weights(parts[1])
    straight = run(tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", fail=5)
    assert checkpoint.steps_in(tmp_path / "broken" / "run") == [3]
    assert all(torch.equal(p, straight[name]) for name, p in run(tmp_path / "broken").items())
    straight_log, log = ((tmp_path / x / "log.jsonl").read_text(encoding="utf-8").splitlines() for x in ("straight", "broken"))
    assert [json.loads(line).get("loss") for line in log] == [json.loads(line).get("loss") for line in straight_log]


def test_by_default_a_cpu_saves_by_steps_and_a_gpu_by_time(base):
    def made(device, **flags):
        rt = Runtime(device=torch.device(device))
        stage = RunFlags(**flags).make_stage(STAGES["mid"], "t", rt, 1, 1.0, {}, {}, batches=None)
        return stage.flags.steps_between_saves(rt), stage.flags.save_minutes
    assert made("cpu") == (100, 10) and made("cuda") == (0, 10)
    assert made("cuda", save_every=7, save_minutes=0) == (7, 0) and made("cpu", save_every=0) == (0, 10)
    with pytest.raises(NanochatError, match="save_every must be at least 0"):
        RunFlags(save_every=-1)


# ------------------------------------------------------------------------------------------------------------ two ranks
def _rank_main(out):
    """The run at 8 rows, then those that begin with more than the second rank holds; there is what Ranks reads."""
    rt = runtime.init("cpu")
    for rows in (8, 64, 32, 16):
        if rows == 64 and rt.rank == 1:
            set_limit(setattr, 8)
        minutes = 1e-9 if (rows, rt.rank) == (16, 1) else 1e9
        stage, model, optimizer, _ = make(out / str(rows), rows, rt, save_minutes=minutes)
        loop.run(stage, model, optimizer, rt)
    written = {**optimizer.masters(), **optimizer.state()}
    assert len(written) == (0 if rt.rank else 15 + 2 * 12 + 6), "weights, a matrix's averages, others: where it is written"
    if rt.rank == 0:
        assert all(torch.equal(written[name], p) for name, p in model.named_parameters())
        torch.save(weights(model), out / "weights.pt")
        (out / "losses.json").write_text("[]", encoding="utf-8")
    runtime.close(rt)


if __name__ == "__main__":
    _rank_main(Path(sys.argv[1]))
