"""The tokenizer's promises: what goes in comes out, text is never a command, files are whole or said to be broken."""
import json
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nanochat.data.tokenizer as tokenizer_module
from nanochat.common import DataError, MissingArtifact, UsageError
from nanochat.data.tokenizer import SPECIAL_TOKENS, Tokenizer
from scripts import tok_eval, tok_train

CORPUS = ["The cat sat on the mat; the dog didn't. 12 + 34 = 46\n", "Ein Mädchen läuft über die Straße. 你好，世界 🙂🙃\n",
          "def f(x):\n    return x * 2\n"] * 20


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(CORPUS, 400)


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_survives_a_round_trip(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([*SPECIAL_TOKENS, "a", " ", "<|", "|>", "bos", "\n"])).map("".join))
def test_text_never_yields_a_special_token(tokenizer, text):
    ids = tokenizer.encode(text)
    assert not tokenizer.special_ids & set(ids)
    assert tokenizer.decode(ids) == text


def test_batch_is_the_same_as_one_by_one(tokenizer):
    texts = [*CORPUS[:3], "", "<|bos|>", " " * 250_000 + "end"]
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]
    assert tokenizer.encode_batch([]) == []


def test_lone_surrogates_become_a_replacement_character(tokenizer):
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a\ufffdb"
    assert Tokenizer.train(["a\ud800b"] * 9, 300).decode([97]) == "a"


@pytest.mark.parametrize("character", [" ", "\n", "a", "1", "!", "é"])
def test_a_megabyte_of_one_character_is_encoded_not_a_crash(tokenizer, character):
    text = character * 1_000_000
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_megabyte_of_spaces_can_be_trained_on():
    assert len(Tokenizer.train([" " * 1_000_000 + "x"], 300).tokens[-1]) > 1000


def test_half_a_character_decodes_to_its_bytes(tokenizer):
    ids = tokenizer.encode("Ǽ")            # not in the corpus, so two single bytes
    assert len(ids) == 2
    assert tokenizer.decode_bytes(ids[:1]) + tokenizer.decode_bytes(ids[1:]) == "Ǽ".encode()
    assert tokenizer.decode(ids[:1]) == "\ufffd"


def test_special_tokens_and_padding_ids_decode_to_nothing(tokenizer):
    ids = [tokenizer.bos_id, *tokenizer.encode("hi"), *sorted(tokenizer.special_ids), tokenizer.vocab_size + 5]
    assert tokenizer.decode(ids) == "hi"
    assert tokenizer.decode_bytes(np.array(ids)) == b"hi"


def test_special_ids_come_last_and_have_names(tokenizer):
    ids = [tokenizer.special(name) for name in SPECIAL_TOKENS]
    assert ids == list(range(tokenizer.vocab_size))[-len(ids):]
    assert tokenizer.bos_id == tokenizer.special("<|bos|>") == min(tokenizer.special_ids)
    with pytest.raises(AssertionError, match="no_such"):
        tokenizer.special("<|no_such|>")


def test_token_bytes_are_counted_on_bytes_not_on_str(tokenizer):
    lengths = tokenizer.token_bytes()
    assert lengths.dtype == np.int32 and lengths.shape == (tokenizer.vocab_size,)
    assert all(lengths[i] == 0 for i in tokenizer.special_ids)
    assert all(lengths[:256] == 1)         # a lone byte above 127 decodes to U+FFFD, which would count as three
    for text in CORPUS[:3] + ["Ǽ€𝄞"]:
        assert lengths[tokenizer.encode(text)].sum() == len(text.encode())


def test_small_vocabularies_see_single_digits_and_large_ones_pairs():
    text = ["7 77 777 7777 77777 777777 "] * 50
    small, large = Tokenizer.train(text, 300), Tokenizer.train(text, 5000)
    assert max(len(t) for t in small.tokens if t.strip().isdigit()) == 1
    assert max(len(t) for t in large.tokens if t.strip().isdigit()) == 2


def test_vocab_size_counts_the_special_tokens_and_is_checked():
    assert Tokenizer.train(CORPUS, 300).vocab_size == 300
    assert Tokenizer.train(["ab"], 300).vocab_size == 257 + len(SPECIAL_TOKENS)
    with pytest.raises(UsageError, match="--vocab_size"):
        Tokenizer.train(CORPUS, 256)


# ------------------------------------------------------------------------------------------------------------ on disk
def test_saved_and_loaded_is_equal(tokenizer, tmp_path):
    path = tokenizer.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    for what in ("tokens", "pattern", "special_ids", "vocab_size"):
        assert getattr(loaded, what) == getattr(tokenizer, what)
    assert loaded.hash == tokenizer.hash and len(loaded.hash) == 16
    assert loaded.encode(CORPUS[1]) == tokenizer.encode(CORPUS[1])
    assert [p.name for p in tmp_path.iterdir()] == ["tokenizer.json"]
    assert json.loads(path.read_text(encoding="utf-8"))["special"] == SPECIAL_TOKENS


def test_hash_follows_the_vocabulary(tokenizer):
    assert Tokenizer.train(CORPUS, 400).hash == tokenizer.hash
    assert Tokenizer.train(CORPUS, 290).hash != tokenizer.hash


def test_a_pickle_is_never_read_or_written():
    with open(tokenizer_module.__file__, encoding="utf-8") as f:
        assert "import pickle" not in f.read()


def test_missing_names_the_command():
    with pytest.raises(MissingArtifact, match="python -m scripts.tok_train"):
        Tokenizer.load()


@pytest.mark.parametrize("damage", [
    lambda kept: kept.update(format="other-1"),
    lambda kept: kept.pop("tokens"),
    lambda kept: kept["tokens"].pop(7),
    lambda kept: kept["tokens"].append(kept["tokens"][300]),
    lambda kept: kept["tokens"].append("not base64!"),
    lambda kept: kept["tokens"].append(17),
    lambda kept: kept["special"].pop(),
    lambda kept: kept.update(special=None),
    lambda kept: kept.update(pattern="(unclosed"),
    lambda kept: kept.update(pattern=5),
])
def test_damaged_content_is_an_error_naming_the_file(tokenizer, tmp_path, damage):
    kept = json.loads(tokenizer.save(tmp_path).read_text(encoding="utf-8"))
    damage(kept)
    (tmp_path / "tokenizer.json").write_text(json.dumps(kept), encoding="utf-8")
    with pytest.raises(DataError, match="tokenizer.json"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"[1, 2", b"[]", b"null", b"\xff\xfe\x00", b'{"format": '])
def test_a_file_that_is_no_tokenizer_is_an_error_naming_it(tmp_path, content):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(DataError, match="tokenizer.json"):
        Tokenizer.load(tmp_path)


# ------------------------------------------------------------------------------------------------------------ scripts
@pytest.fixture
def small_data(tmp_path, monkeypatch):
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))
    for script in (tok_train, tok_eval):
        monkeypatch.setattr(script, "shards", lambda name, split: [split])
        monkeypatch.setattr(script, "iter_texts", lambda paths: iter(CORPUS))
    return tmp_path


def test_what_is_cut_off_was_read_too_so_that_later_shards_change_nothing(small_data, monkeypatch):
    monkeypatch.setattr(tok_train, "iter_texts", lambda paths: iter(["so many words " * 50] * 9))
    tok_train.main(["--vocab_size=300", "--max_chars=3000", "--doc_cap=100"])
    metrics = json.loads((small_data / "report/results/tok_train.json").read_text(encoding="utf-8"))["metrics"]
    assert (metrics["documents"], metrics["chars"]) == (5, 500)


def test_tok_train_then_tok_eval(small_data, monkeypatch):
    tok_train.main(["--vocab-size=400", "--max_chars=2000", "--doc_cap=40"])
    first = Tokenizer.load()
    tok_train.main(["--vocab_size=400", "--max_chars=2000", "--doc_cap=40"])
    assert Tokenizer.load().hash == first.hash
    result = json.loads((small_data / "report/results/tok_train.json").read_text(encoding="utf-8"))
    documents = result["metrics"]["documents"]
    read = sum(map(len, CORPUS[:documents]))
    assert read >= 2000 > read - len(CORPUS[documents - 1])
    assert result["metrics"]["vocab_size"] == first.vocab_size

    monkeypatch.setattr(tok_eval.tiktoken, "get_encoding", lambda name: first.encoding)
    tok_eval.main(["--max_chars=500"])
    rows = json.loads((small_data / "report/results/tok_eval.json").read_text(encoding="utf-8"))["metrics"]["rows"]
    assert [row["text"] for row in rows] == [*tok_eval.TEXTS, "kindergarten train", "kindergarten val"]
    for row in rows:
        assert row["tokens"] == row["gpt2_tokens"] == row["gpt4_tokens"]
        assert row["bytes_per_token"] == pytest.approx(row["bytes"] / row["tokens"], abs=0.001)


def test_tok_eval_offline_says_so_in_one_line(small_data, monkeypatch, capsys):
    Tokenizer.train(CORPUS, 300).save()

    def offline(name):
        raise ConnectionError("a long story about a proxy")
    monkeypatch.setattr(tok_eval.tiktoken, "get_encoding", offline)
    tok_eval.main([])
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "gpt2 and gpt4 tokenizer not available offline (ConnectionError)"
    notes = json.loads((small_data / "report/results/tok_eval.json").read_text(encoding="utf-8"))["notes"]
    assert notes == [said[-1]]


def test_tok_eval_does_not_wait_for_a_download_that_hangs(monkeypatch):
    end = threading.Event()
    monkeypatch.setattr(tok_eval.tiktoken, "get_encoding", lambda name: end.wait(30))
    start = time.monotonic()
    peers, notes = tok_eval.load_peers(0.2)
    end.set()
    assert time.monotonic() - start < 5 and not peers and "no answer in 0.2s" in notes[0]


def test_no_text_is_an_error_naming_the_data_set(small_data, monkeypatch):
    monkeypatch.setattr(tok_train, "iter_texts", lambda paths: iter([]))
    with pytest.raises(DataError, match="kindergarten holds no text"):
        tok_train.main(["--vocab_size=300"])
    assert not (small_data / "tokenizer").exists()
