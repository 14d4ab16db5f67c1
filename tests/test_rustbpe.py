"""
rustbpe against a slow reference written here in pure Python: the same merges, the same ids, and tiktoken's the same.

    python -m pytest tests/test_rustbpe.py -v -s            also prints how fast each of them is
"""
import time

import pytest
import regex
import rustbpe
import tiktoken

from nanochat.data.tokenizer import split_pattern

TEXTS = ["The quick brown fox doesn't jump; it sleeps. THE END, isn't it? " * 3,
         "for i in range(10):\n    total += i * 3.14  # comment\n\n\n\treturn total\r\n" * 3,
         "Zürich, naïve, 你好世界, привет, नमस्ते, 👩‍👩‍👧 é é " * 3,
         "1 22 333 4444 55555 2024-11-05 1,000,000 " * 3,
         "aaaaaaaaaaaaaaaaaaaaaaaa   bbbb    \n\n\n   cccc " * 3,
         "she sells sea shells by the sea shore; the shells she sells are sea shells " * 3]
UNSEEN = ["", " ", "a", "The foxes' shells weren't 12345 of them!\n", "ünïcödé 你们好 🙂", "\x00\x7f  \t\t x",
          "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]
VOCAB = 256 + 120


# ------------------------------------------------------------------------------------------------------ the reference
def merged(ids, pair, new):
    """`ids` with every occurrence of `pair` replaced by `new`, from the left."""
    out, i = [], 0
    while i < len(ids):
        at_pair = i + 1 < len(ids) and (ids[i], ids[i + 1]) == pair
        out.append(new if at_pair else ids[i])
        i += 2 if at_pair else 1
    return out


def train_reference(texts, vocab_size, pattern):
    """Merges in order, {(left, right): new id}: most frequent pair first, of equally frequent ones the smaller ids."""
    words = [list(piece.encode()) for text in texts for piece in regex.findall(pattern, text)]
    merges = {}
    while 256 + len(merges) < vocab_size:
        counts = {}
        for word in words:
            for pair in zip(word, word[1:]):
                counts[pair] = counts.get(pair, 0) + 1
        if not counts:
            break
        pair = min(counts, key=lambda p: (-counts[p], p))
        merges[pair] = 256 + len(merges)
        words = [merged(word, pair, merges[pair]) for word in words]
    return merges


def encode_reference(text, merges, pattern):
    """The ids of `text`: in each piece the earliest learned merge first."""
    out = []
    for piece in regex.findall(pattern, text):
        ids = list(piece.encode())
        while found := [merges[pair] for pair in zip(ids, ids[1:]) if pair in merges]:
            first = min(found)
            ids = merged(ids, next(p for p in merges if merges[p] == first), first)
        out += ids
    return out


def token_bytes(merges):
    """The bytes of every id."""
    tokens = [bytes([i]) for i in range(256)]
    for left, right in merges:
        tokens.append(tokens[left] + tokens[right])
    return tokens


# ---------------------------------------------------------------------------------------------------------- the tests
@pytest.fixture(scope="module", params=[2048, 32768], ids=["single digits", "two digits"])
def pattern(request):
    return split_pattern(request.param)


@pytest.fixture(scope="module")
def trained(pattern):
    bpe = rustbpe.Tokenizer()
    bpe.train_from_iterator(iter(TEXTS), VOCAB, pattern=pattern)
    return bpe, train_reference(TEXTS, VOCAB, pattern)


def test_rustbpe_learns_the_reference_merges_in_order(trained):
    bpe, merges = trained
    learned = [bytes(token) for token, _ in sorted(bpe.get_mergeable_ranks(), key=lambda item: item[1])]
    assert learned == token_bytes(merges) and len(learned) == VOCAB


def test_rustbpe_encodes_like_the_reference(trained, pattern):
    bpe, merges = trained
    for text in TEXTS + UNSEEN:
        assert bpe.encode(text) == encode_reference(text, merges, pattern), text


def test_tiktoken_encodes_like_rustbpe(trained, pattern):
    bpe, _ = trained
    ranks = {bytes(token): rank for token, rank in bpe.get_mergeable_ranks()}
    encoding = tiktoken.Encoding("test", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    for text in TEXTS + UNSEEN:
        ids = bpe.encode(text)
        assert encoding.encode_ordinary(text) == ids
        assert encoding.decode(ids) == text


def test_training_twice_gives_the_same_merges(trained, pattern):
    again = rustbpe.Tokenizer()
    again.train_from_iterator(iter(TEXTS), VOCAB, buffer_size=2, pattern=pattern)
    assert again.get_mergeable_ranks() == trained[0].get_mergeable_ranks()


def test_speed_table(capsys):
    pattern, text = split_pattern(32768), " ".join(TEXTS)
    rows = []

    def measure(what, n_chars, call):
        start = time.perf_counter()
        value = call()
        rows.append((what, n_chars / (time.perf_counter() - start) / 1e6))
        return value
    bpe = rustbpe.Tokenizer()
    merges = measure("train, reference", len(text), lambda: train_reference([text], VOCAB, pattern))
    measure("train, rustbpe", len(text) * 100, lambda: bpe.train_from_iterator([text] * 100, VOCAB, pattern=pattern))
    ranks = {bytes(token): rank for token, rank in bpe.get_mergeable_ranks()}
    encoding = tiktoken.Encoding("test", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    measure("encode, reference", len(text), lambda: encode_reference(text, merges, pattern))
    measure("encode, rustbpe", len(text) * 100, lambda: bpe.encode(text * 100))
    measure("encode, tiktoken", len(text) * 100, lambda: encoding.encode_ordinary(text * 100))
    with capsys.disabled():
        print("\n" + "\n".join(f"  {what:20} {speed:10.3f} M characters/s" for what, speed in rows))
    assert rows[1][1] > rows[0][1] and rows[4][1] > rows[2][1]
