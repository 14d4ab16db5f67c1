"""Packing, the global order of rows, token shards: python -m pytest tests/test_dataloader.py"""
import errno
import gc
import itertools
import json
import threading
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tiny import tiny_tokenizer

from nanochat.common import DataError, UsageError
from nanochat.data import token_shards
from nanochat.data.chat_format import render
from nanochat.data.dataloader import ChatRows, StepBatches, TextRows, pack, prepare_tokens

T = 32
BOS = 256


class ByteTokenizer:
    """One token a byte, and bos."""
    bos_id, vocab_size, hash = BOS, 257, "bytes"

    def encode_batch(self, texts):
        return [list(text.encode("utf-8")) for text in texts]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def write(path, texts, **columns):
    pq.write_table(pa.table({"text": texts, **columns}), path, row_group_size=16)
    return path


def some_texts(n, seed=0, longest=120):
    """n different texts, each of bytes that tell where they stand: no two tokens of a text are alike within reach."""
    rng = np.random.RandomState(seed)
    return [f"{i}:" + "".join(chr(33 + (i + k) % 90) for k in range(rng.randint(1, longest))) for i in range(n)]


@pytest.fixture
def texts():
    return some_texts(100)


@pytest.fixture
def rows(tmp_path, texts):
    paths = [write(tmp_path / f"{name}.parquet", part) for name, part in (("a", texts[:60]), ("b", texts[60:]))]
    return TextRows(prepare_tokens(ByteTokenizer(), paths, "some"), T)


def offsets_of(lengths):
    return np.concatenate([[0], np.cumsum(lengths)])


def lengths_like_text(n, median, seed=0):
    return np.maximum(2, np.random.RandomState(seed).lognormal(np.log(median), 1.0, n).astype(int))


# ------------------------------------------------------------------------------------------------------------- packing
@pytest.mark.parametrize("capacity", [2, 3, 7, 33])
def test_packing_loses_nothing_and_repeats_nothing(capacity):
    lengths = np.random.RandomState(capacity).randint(2, 120, 200)
    tokens = np.arange(lengths.sum())
    plan = pack(offsets_of(lengths), capacity, crop=True)
    starts = set(offsets_of(lengths)[:-1].tolist())
    content = [t for s, n in zip(plan.start, plan.length) for t in tokens[s + 1:s + n]]
    assert sorted(content) == sorted(set(tokens.tolist()) - starts)      # each token but the bos exactly once
    assert starts <= set(plan.start.tolist())                            # and each document's bos
    filled = plan.row_lengths()
    assert (np.sort(filled)[1:] == capacity).all()                       # only one row has padding
    assert filled.sum() == lengths.sum() + len(plan.start) - len(lengths)   # a cut adds one bos


def test_a_cut_piece_is_the_last_of_its_row():
    lengths = np.random.RandomState(1).randint(2, 90, 300)
    plan, ends = pack(offsets_of(lengths), 33, crop=True), set(np.cumsum(lengths).tolist())
    for i in range(len(plan)):
        for p in range(plan.first[i], plan.first[i + 1] - 1):
            assert plan.start[p] + plan.length[p] in ends


def test_documents_that_fit_are_not_cut_when_there_is_choice():
    plan = pack(offsets_of(lengths_like_text(5000, 40)), 257, crop=True)
    cuts, falls = len(plan.start) - 5000, len(plan)                      # cut where a row ends: about one cut a row
    assert cuts < falls / 3


def test_best_fit_wastes_less_than_first_fit():
    lengths = np.minimum(lengths_like_text(3000, 60), 257)
    rows = []                                                            # the slow reference: first fit
    for n in lengths:
        home = next((i for i, filled in enumerate(rows) if filled + n <= 257), None)
        if home is None:
            rows.append(n)
        else:
            rows[home] += n
    plan = pack(offsets_of(lengths), 257, crop=False)
    assert len(plan) <= len(rows)
    assert plan.row_lengths().mean() / 257 > 0.995


def test_packing_is_quick():
    offsets = offsets_of(lengths_like_text(50_000, 600))
    start = time.perf_counter()
    pack(offsets, 2049, crop=True)
    assert time.perf_counter() - start < 3       # 0.15 s measured; the rest is for a busy machine


def test_long_documents_are_mixed_over_the_rows():
    plan = pack(offsets_of([3000] + [30] * 300), 31, crop=True)
    where = [i for i in range(len(plan)) if plan.start[plan.first[i]] < 3000]
    assert max(where) - min(where) > len(plan) // 2


# ---------------------------------------------------------------------------------------------------------- text rows
def test_every_row_starts_with_bos_and_is_text(rows):
    for i in range(len(rows)):
        tokens, weight = rows.row(i)
        assert tokens.dtype == np.int64 and tokens.shape == (T + 1,) and tokens[0] == BOS
        assert weight.dtype == np.float32 and weight.shape == (T,) and weight.sum() == rows.counts[i]


def test_an_epoch_of_rows_holds_every_byte_of_every_text(rows, texts):
    got = np.zeros(256, int)
    for i in range(len(rows)):
        tokens, weight = rows.row(i)
        targets = tokens[1:][weight > 0]
        got += np.bincount(targets[targets != BOS], minlength=256)
    assert (got == np.bincount(np.frombuffer("".join(texts).encode(), np.uint8), minlength=256)).all()


def test_only_the_unfinished_row_of_a_shard_is_padded_with_weight_zero(rows):
    padded = [i for i in range(len(rows)) if rows.counts[i] < T]
    assert len(padded) <= len(rows.shards)
    for i in padded:
        tokens, weight = rows.row(i)
        filled = int(weight.sum())
        assert (weight[:filled] == 1).all() and (tokens[1:][filled:] == BOS).all()


def test_empty_documents_are_skipped(tmp_path):
    shard, = prepare_tokens(ByteTokenizer(), [write(tmp_path / "e.parquet", ["", "ab", None, "", "c"])], "e")
    assert shard.documents == 2 and shard.tokens.tolist() == [BOS, *b"ab", BOS, *b"c"]
    assert len(TextRows([shard], T)) == 1


# -------------------------------------------------------------------------------------------------------- token shards
def test_tokens_are_made_once_and_again_when_the_source_changes(tmp_path, monkeypatch):
    path, made, real = write(tmp_path / "a.parquet", ["one"]), [], token_shards.tokenize_shard
    monkeypatch.setattr(token_shards, "tokenize_shard", lambda *a: (made.append(1), real(*a)))
    for _ in range(2):
        shard, = prepare_tokens(ByteTokenizer(), [path], "x")
    assert len(made) == 1 and isinstance(shard.tokens, np.memmap) and shard.tokens.dtype == np.uint16
    write(path, ["another"])
    assert len(prepare_tokens(ByteTokenizer(), [path], "x")[0].tokens) == 8 and len(made) == 2


def test_a_truncated_token_file_is_named_and_made_again(tmp_path, caplog):
    path = write(tmp_path / "a.parquet", ["some text"])
    shard, = prepare_tokens(ByteTokenizer(), [path], "x")
    file = shard.path.with_name("a.tokens.npy")
    file.write_bytes(file.read_bytes()[:-3])
    with caplog.at_level("WARNING", "nanochat"):
        again, = prepare_tokens(ByteTokenizer(), [path], "x")
    assert str(file) in caplog.text and again.tokens.tolist() == [BOS, *b"some text"]


def test_an_error_of_the_disk_keeps_its_number_by_which_a_full_one_is_known(tmp_path, tokenizer):
    resource = pytest.importorskip("resource", reason="the system has no limit of file sizes to stand for a full disk")
    path = write(tmp_path / "a.parquet", ["abc" * 1000])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError) as error:
            token_shards.tokenize_shard(tokenizer, path, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert error.value.errno == errno.EFBIG and not list((tmp_path / "out").iterdir())


def test_a_large_vocabulary_takes_32_bits(tmp_path):
    class Wide(ByteTokenizer):
        bos_id, vocab_size, hash = 70_000, 70_001, "wide"
    shard, = prepare_tokens(Wide(), [write(tmp_path / "a.parquet", ["ab"])], "x")
    assert shard.tokens.dtype == np.uint32 and shard.tokens.tolist() == [70_000, *b"ab"]


def test_worker_processes_make_the_same_token_shards(tmp_path, monkeypatch, texts, tokenizer):
    paths = [write(tmp_path / f"{i}.parquet", texts[i::2]) for i in range(2)]
    here = [shard.sha256 for shard in prepare_tokens(tokenizer, paths, "here")]
    monkeypatch.setattr(token_shards, "IN_PROCESS_BYTES", 0)
    assert [shard.sha256 for shard in prepare_tokens(tokenizer, paths, "there")] == here
    paths[1].write_bytes(paths[1].read_bytes()[:-20] + b"x" * 20)
    with pytest.raises(DataError, match="1.parquet"):
        prepare_tokens(tokenizer, paths, "there")


def test_an_error_of_a_worker_process_names_the_shard(tmp_path, tokenizer):
    good, bad = write(tmp_path / "good.parquet", ["a"]), write(tmp_path / "bad.parquet", ["b" * 9000])
    bad.write_bytes(bad.read_bytes()[:40] + bytes(40) + bad.read_bytes()[80:])     # the footer is whole, the page not
    tokenizer.save(tmp_path)
    with pytest.raises(DataError, match="bad.parquet"):
        token_shards._tokenize_in_processes(tmp_path, [good, bad], tmp_path / "out", 2, token_shards.Progress(2, "x"))


# -------------------------------------------------------------------------------------------------------- conversations
def talk(question, answer):
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def test_chat_weight_belongs_to_the_target(tokenizer):
    special = tokenizer.special
    rows = ChatRows([talk("a", "b")], tokenizer, 12)
    tokens, weight = rows.row(0)
    a, b = tokenizer.encode(" a"), tokenizer.encode(" b")
    expected = [(tokenizer.bos_id, 0), (special("<|user_start|>"), 0), *((i, 0) for i in a), (special("<|user_end|>"), 0),
                (special("<|assistant_start|>"), 0), *((i, 1) for i in b), (special("<|assistant_end|>"), 1)]
    expected += [(tokenizer.bos_id, 0)] * (13 - len(expected))
    assert tokens.tolist() == [token for token, _ in expected]
    assert weight.tolist() == [mask for _, mask in expected[1:]]         # weight[t] is for tokens[t+1]
    assert rows.counts.tolist() == [1.0 + len(b)] and rows.cut == 0


def test_what_is_learned_is_in_the_hash_as_well_as_what_is_read(tokenizer):
    both = {"messages": [*talk("a", "b")["messages"], *talk("c", "d")["messages"]]}
    one = json.loads(json.dumps(both))
    one["messages"][1]["weight"] = 0
    hashes = [ChatRows([chat], tokenizer, 24).hash for chat in (both, both, one, talk("a", "b"))]
    assert hashes[0] == hashes[1] and len(set(hashes)) == 3


def test_conversations_are_never_split_and_none_is_lost(tokenizer):
    talks = [talk("q" * (1 + i % 7) + str(i), "r" * (1 + i % 5)) for i in range(50)]
    rows = ChatRows(talks, tokenizer, 48, seed=3)
    found = []
    for i in range(len(rows)):
        tokens, weight = rows.row(i)
        cuts = [k for k, t in enumerate(tokens) if t == tokenizer.bos_id] + [len(tokens)]
        found += [tuple(tokens[a:b]) for a, b in itertools.pairwise(cuts) if b - a > 1]
        assert weight.sum() == rows.counts[i]
    assert sorted(found) == sorted(tuple(render(tokenizer, t)[0]) for t in talks)
    assert rows.counts.sum() == sum(sum(render(tokenizer, t)[1]) for t in talks)


def test_a_conversation_longer_than_a_row_is_cut_on_the_right_and_counted(caplog, tokenizer):
    long = talk("hi", "xyz" * 40)
    with caplog.at_level("INFO", "nanochat"):
        rows = ChatRows([long, talk("a", "b")], tokenizer, 31)
    assert rows.cut == 1 and "1 of 2 conversations" in caplog.text
    assert render(tokenizer, long)[0][:32] in [rows.row(i)[0].tolist() for i in range(len(rows))]


def test_a_step_without_any_supervised_token_has_count_one(tokenizer):
    batches = StepBatches(ChatRows([talk("q" * 60, "a")], tokenizer, 16), 2, 1)
    batch = batches.load(0)[0]
    assert batch.weight.sum() == 0 and batch.count == 1


# -------------------------------------------------------------------------------------------------- one global order
def step_content(rows, step, device_batch_size, world, **more):
    """What all ranks together see in a step: (tokens by row in the order of the step, counts)."""
    ranks = [StepBatches(rows, 8, device_batch_size, rank, world, **more).load(step) for rank in range(world)]
    in_order = [batches[micro] for micro in range(len(ranks[0])) for batches in ranks]
    return (torch.cat([b.inputs for b in in_order]), torch.cat([b.targets for b in in_order]),
            torch.cat([b.weight for b in in_order]), {b.count for b in in_order}, [r for b in in_order for r in b.rows])


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("world, device_batch_size", [(1, 4), (1, 1), (2, 2), (2, 4), (4, 2), (4, 1)])
def test_any_split_over_ranks_and_micro_batches_sees_the_same_rows(rows, world, device_batch_size, shuffle):
    for step in (0, 1, len(rows) // 8, len(rows) // 8 + 1):
        one = step_content(rows, step, 8, 1, shuffle=shuffle)
        many = step_content(rows, step, device_batch_size, world, shuffle=shuffle)
        assert all(torch.equal(a, b) for a, b in zip(one[:3], many[:3]))
        assert one[3:] == many[3:] and len(one[3]) == 1
        assert many[3] == {rows.counts[many[4]].sum()} == {float(many[2].sum())}


@pytest.mark.parametrize("shuffle", [False, True])
def test_an_epoch_is_every_row_exactly_once(rows, shuffle):
    batches = StepBatches(rows, 8, 4, seed=1, shuffle=shuffle)
    n = len(rows)
    seen = np.concatenate([batches.step_rows(s) for s in range(-(-3 * n // 8))])
    for epoch in range(3):
        assert sorted(seen[epoch * n:(epoch + 1) * n]) == list(range(n))


def test_a_step_larger_than_an_epoch_goes_round(rows):
    n = len(rows)
    assert StepBatches(rows, 3 * n, n).step_rows(0).tolist() == list(range(n)) * 3


def test_shuffled_epochs_differ_and_are_reproducible(rows):
    def epoch(seed, e):
        n = len(rows)
        return StepBatches(rows, n, n, seed=seed, shuffle=True).step_rows(e).tolist()
    assert epoch(1, 0) == epoch(1, 0)
    assert len({tuple(epoch(seed, e)) for seed in (-1, 0, 1) for e in (0, 1)}) == 6


def test_resume_equals_uninterrupted(rows):
    def steps(start, n):
        iterator = iter(StepBatches(rows, 8, 4, shuffle=True, start_step=start))
        return [next(iterator) for _ in range(n)]
    through = steps(0, len(rows) // 4)                                   # past the end of the first epoch
    middle = len(through) // 2 + 1
    for (s, a), (r, b) in zip(through[middle:], steps(middle, len(through) - middle)):
        assert s == r and [x.rows for x in a] == [x.rows for x in b]
        assert all(torch.equal(x.inputs, y.inputs) and torch.equal(x.weight, y.weight) for x, y in zip(a, b))


def test_targets_are_the_inputs_one_later(rows):
    for batch in StepBatches(rows, 8, 4).load(0):
        assert batch.inputs.dtype == batch.targets.dtype == torch.int64 and batch.weight.dtype == torch.float32
        assert batch.inputs.shape == batch.targets.shape == batch.weight.shape == (4, T)
        assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])


def test_a_micro_batch_that_does_not_divide_names_the_flag(rows):
    with pytest.raises(UsageError, match="--device_batch_size=3"):
        StepBatches(rows, 8, 3)


def test_the_reading_thread_ends_with_the_iterator(rows):
    def readers():
        return [t for t in threading.enumerate() if t.name.startswith("batches")]
    before = len(readers())
    iterator = iter(StepBatches(rows, 8, 4))
    next(iterator)
    assert len(readers()) == before + 1
    iterator.close()
    iterator = iter(StepBatches(rows, 8, 4))
    next(iterator)
    del iterator
    gc.collect()
    deadline = time.time() + 5
    while len(readers()) > before and time.time() < deadline:
        time.sleep(0.02)
    assert len(readers()) == before


def test_an_error_while_reading_ahead_reaches_the_loop(rows, monkeypatch):
    monkeypatch.setattr(rows, "row", lambda i: (_ for _ in ()).throw(DataError("shard gone")))
    with pytest.raises(DataError, match="shard gone"):
        next(iter(StepBatches(rows, 8, 4)))


def test_row_order_never_changes_between_versions():
    """Checkpoints rely on it: a resumed run must see the rows that its first half would have seen."""
    plan = pack(offsets_of([5, 3, 9, 2, 20, 4, 7]), 8, crop=True)
    pieces = list(zip(plan.start.tolist(), plan.length.tolist()))
    assert [pieces[a:b] for a, b in itertools.pairwise(plan.first.tolist())] == [
        [(43, 7), (33, 1)], [(33, 6), (15, 2)], [(19, 8)], [(0, 5), (5, 3)], [(8, 8)], [(26, 8)], [(39, 4), (17, 2)]]
