"""Test questions in the training text: what counts, what does not, and the door that counts them."""
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_base_eval import write_bundle
from tiny import save_tiny_checkpoint

from nanochat.common import read_json
from nanochat.eval.overlap import RUN_LENGTH as N
from nanochat.eval.overlap import overlap, runs
from nanochat.tasks import training_conversations
from scripts import base_eval

WORDS = [f"word{i}" for i in range(5000)]


def text(seed, n):
    return " ".join(random.Random(seed).choices(WORDS, k=n))


def plain(texts, tests):
    """The same by sets of word tuples, nothing hashed."""
    def grams(text):
        words = "".join(c if c.isalnum() or c == "_" else " " for c in text.lower()).split()
        return {tuple(words[i:i + N]) for i in range(len(words) - N + 1)}
    seen = set().union(*map(grams, texts))
    return {name: [sum(bool(grams(q) & seen) for q in questions), sum(bool(grams(q)) for q in questions)]
            for name, questions in tests.items()}


def test_agrees_with_sets_of_words():
    training = [text(i, 300) for i in range(30)] + ["", "too short"]
    tests = {"copied": [training[i][50:400] for i in range(8)], "new": [text(f"new {i}", 40) for i in range(20)],
             "mixed": [text(i, 20) + " " + training[i] for i in range(5)] + [text("x", 50), "short one"], "empty": []}
    assert overlap(training, tests) == plain(training, tests)
    assert overlap(training, tests)["copied"] == [8, 8] and overlap(training, tests)["new"] == [0, 20]


@pytest.mark.parametrize("common, found", [(N, 1), (N - 1, 0)])
def test_n_words_in_a_row_count_and_one_fewer_does_not(common, found):
    shared = text("shared", common)
    assert overlap([text(1, 30) + " " + shared + " end"], {"t": [f"begin {shared} {text(2, 30)}"]}) == {"t": [found, 1]}


def test_case_and_punctuation_do_not_hide_a_question():
    question = text("q", 20)
    assert overlap([question.upper().replace(" ", ", ")], {"t": [question]}) == {"t": [1, 1]}


def test_nothing_to_look_for_is_fine():
    assert overlap([text(1, 50)], {"t": ["a few words"], "u": []}) == {"t": [0, 0], "u": [0, 0]}
    assert len(runs("word " * (N - 1))) == 0 and len(runs("word " * N)) == 1


def test_the_door_counts_core_and_says_it(tmp_path, base):
    known, new = text("known", 40), text("unknown", 40)
    write_bundle(base_eval.bundle_dir())
    for name, line in (("world/jeopardy", f'{{"context": "{known}", "continuation": "cat"}}'),
                       ("reasoning/copa", f'{{"query": "{new}", "choices": ["a", "b"], "gold": 1}}')):
        path = base_eval.bundle_dir() / "eval_data" / f"{name}.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text(line, encoding="utf-8")
    for name in ("a.parquet", "b.parquet"):      # the last one is for validation
        pq.write_table(pa.table({"text": [text(name, 90), f"so {known} ends" if name == "a.parquet" else new]}),
                       tmp_path / name)
    found, note = base_eval.count_overlap(f"{tmp_path}|simplespelling")
    assert found == {"jeopardy": [1, 1], "copa": [0, 1]}
    assert "13 words in a row" in note and note.endswith("jeopardy 1 of 1")


def test_documents_among_the_conversations_are_words_too(tmp_path, base):
    path, said = tmp_path / "mine.jsonl", text("said", 20)
    messages = [{"role": "user", "content": said}, {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]}]
    path.write_text(json.dumps({"text": text("read", 20)}) + "\n" + json.dumps(messages) + "\n", encoding="utf-8")
    assert [base_eval.words_of(c) for c in training_conversations(str(path))] == [text("read", 20), f"{said} Yes."]


@pytest.mark.parametrize("wrong", ["climbmx", "/no/such/folder"])
def test_a_slip_in_what_is_searched_loses_no_evaluation(wrong, base):
    save_tiny_checkpoint("base", "climbmix", sequence_len=128)
    base_eval.main([f"--overlap={wrong}", "--device=cpu"])
    result = read_json(base / "report" / "results" / "base_eval.json")
    assert "overlap" not in result["metrics"] and any(note.startswith("skipped: overlap: ") for note in result["notes"])
