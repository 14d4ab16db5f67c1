"""Bits per byte against a plain count, and its independence of how the rows are split."""
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tiny import save_tiny_checkpoint

from nanochat.common import DataError, read_json
from nanochat.eval.bits_per_byte import bits_per_byte
from nanochat.model.gpt import GPT, GPTConfig
from nanochat.runtime import Runtime
from scripts import base_loss

V, T = 40, 12
TOKEN_BYTES = np.array([0] + [1 + i % 4 for i in range(V - 1)], dtype=np.int32)      # token 0 is special


class Rows:
    """Random rows, some with padding at the end."""

    def __init__(self, n):
        rng = np.random.default_rng(0)
        self.tokens = rng.integers(0, V, (n, T + 1))
        self.weight = np.ones((n, T), np.float32)
        self.weight[::3, -4:] = 0

    def __len__(self):
        return len(self.tokens)

    def row(self, i):
        return self.tokens[i].astype(np.int64), self.weight[i]


@pytest.fixture(scope="module")
def model():
    model = GPT(GPTConfig(T, V, n_layer=1, n_head=2, n_kv_head=2, n_embd=16))
    model.init_weights(0)
    torch.nn.init.normal_(model.lm_head.weight, generator=torch.Generator().manual_seed(0))
    return model.requires_grad_(False).eval()


def plain(model, rows):
    nats = size = 0
    for i in range(len(rows)):
        tokens, weight = rows.row(i)
        logp = model(torch.tensor(tokens[None, :-1]))[0].log_softmax(-1)
        for t in range(T):
            if weight[t] and tokens[t + 1] != 0:
                nats -= logp[t, tokens[t + 1]].item()
                size += int(TOKEN_BYTES[tokens[t + 1]])
    return nats / math.log(2) / size


def test_bits_per_byte_equals_a_plain_count_without_specials_and_padding(model):
    rows = Rows(7)
    assert abs(bits_per_byte(model, rows, TOKEN_BYTES, 3, Runtime()) - plain(model, rows)) < 1e-5


@pytest.mark.parametrize("batch", [1, 2, 7, 50])
def test_micro_batch_does_not_matter(model, batch):
    rows = Rows(7)
    assert abs(bits_per_byte(model, rows, TOKEN_BYTES, batch, Runtime()) - plain(model, rows)) < 1e-5


def test_two_ranks_together_give_the_number_of_one(model, monkeypatch):
    rows, parts = Rows(9), []
    monkeypatch.setattr("nanochat.runtime.all_gather_object", lambda rt, value: parts.append(value) or list(parts))
    bits_per_byte(model, rows, TOKEN_BYTES, 2, Runtime(rank=0, world_size=2))
    assert abs(bits_per_byte(model, rows, TOKEN_BYTES, 2, Runtime(rank=1, world_size=2)) - plain(model, rows)) < 1e-5


def test_max_rows_takes_the_first_rows(model):
    few = Rows(9)
    few.tokens, few.weight = few.tokens[:5], few.weight[:5]
    found = bits_per_byte(model, Rows(9), TOKEN_BYTES, 4, Runtime(), max_rows=5)
    assert found == pytest.approx(plain(model, few), abs=1e-5)


def test_uniform_model_needs_the_bits_of_its_vocabulary():
    model = GPT(GPTConfig(T, 256, n_layer=1, n_head=2, n_kv_head=2, n_embd=16))
    model.init_weights(0)
    torch.nn.init.zeros_(model.lm_head.weight)
    found = bits_per_byte(model.requires_grad_(False), Rows(4), np.ones(256), 4, Runtime())
    assert found == pytest.approx(8.0, abs=1e-5)


def test_rows_without_text_have_no_bits_per_byte(model):
    assert math.isnan(bits_per_byte(model, Rows(4), np.zeros(V), 4, Runtime()))


def test_base_loss_reports_both_splits_and_continues_the_prompts(tmp_path, monkeypatch):
    monkeypatch.setenv("NANOCHAT_DTYPE", "fp32")
    text = tmp_path / "text"
    text.mkdir()
    for name in ("a", "b"):
        pq.write_table(pa.table({"text": [f"The cat {name} sat on the mat number {i}." for i in range(40)]}),
                       text / f"{name}.parquet")
    save_tiny_checkpoint("base", str(text))
    base_loss.main(["--sample_tokens=4", "--device_batch_size=4", "--device=cpu"])
    metrics = read_json(tmp_path / "base" / "report" / "results" / "base_loss.json")["metrics"]
    assert 0.5 < metrics["train_bpb"] < 12 and 0.5 < metrics["val_bpb"] < 12
    assert [s["prompt"] for s in metrics["samples"]] == base_loss.PROMPTS
    assert all(isinstance(s["text"], str) for s in metrics["samples"])


def test_base_loss_names_the_split_without_text(tmp_path, monkeypatch):
    monkeypatch.setenv("NANOCHAT_DTYPE", "fp32")
    text = tmp_path / "text"
    text.mkdir()
    for name, said in (("a", "The cat sat on the mat."), ("b", "")):
        pq.write_table(pa.table({"text": [said] * 40}), text / f"{name}.parquet")
    save_tiny_checkpoint("base", str(text))
    with pytest.raises(DataError, match="holds no text: all of .*b.parquet is empty"):
        base_loss.main(["--sample_tokens=0", "--device=cpu"])
