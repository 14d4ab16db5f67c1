"""The CORE metric: the batched way equals the plain one, rendering is as the paper has it, nothing is lost unsaid."""
import json
import math
import random

import core_reference
import pytest
import torch
from reference import score
from tiny import tiny_model, tiny_tokenizer

from nanochat.eval import bundle, core_eval, scoring, statistics
from nanochat.eval.bundle import CoreTask
from nanochat.eval.prompts import Item, Span, draw_shots, render_item
from nanochat.eval.scoring import SpanScore
from nanochat.eval.statistics import centered, wilson
from nanochat.runtime import Runtime


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def task(kind, shots=0, delimiter=" ", chance=0.25, path=None):
    return CoreTask(f"some_{kind}", path, kind, shots, delimiter, chance)


def choice_examples(n=12):
    rng = random.Random(0)
    words = "sky river cat dog mat colour blue answer".split()
    return [{"query": f"The {rng.choice(words)} {i} is", "choices": [" ".join(rng.sample(words, rng.randint(1, 4)))
             for _ in range(3)], "gold": rng.randrange(3)} for i in range(n)]


def random_items(vocab_size, n=24, longest=60):
    """Items of 1 to 4 options that share 0 to 30 first tokens."""
    rng = random.Random(3)
    items = []
    for index in range(n):
        shared = [rng.randrange(vocab_size) for _ in range(rng.choice([0, 1, 9, rng.randint(0, 30)]))]
        spans = []
        for _ in range(rng.randint(1, 4)):
            ids = shared + [rng.randrange(vocab_size) for _ in range(rng.randint(2, longest - len(shared)))]
            spans.append(Span(ids, rng.randint(max(1, len(shared) - 2), len(ids) - 1)))
        items.append(Item(index, spans, 0))
    return items


def assert_equal_the_reference(model, items, batch_tokens):
    """Scores equal to 1e-5 and all decisions the same."""
    found = scoring.score_items(model, items, batch_tokens)
    expected = [[score(model, span) for span in item.spans] for item in items]
    for have, want in zip(found, expected, strict=True):
        torch.testing.assert_close([h[0] for h in have], [w[0] for w in want], rtol=0, atol=1e-5)
        assert [h[1] for h in have] == [w[1] for w in want]
        assert max(range(len(have)), key=lambda i: have[i]) == max(range(len(want)), key=lambda i: want[i])


# ------------------------------------------------------------------------------------------------------------- scoring
@pytest.mark.parametrize("key_offset", [0.0, 0.5])
@pytest.mark.parametrize("batch_tokens", [1, 300, 100_000])
def test_scores_after_a_shared_prefix_equal_the_one_at_a_time_reference(tokenizer, batch_tokens, key_offset):
    model = tiny_model(tokenizer.vocab_size, key_offset=key_offset, value_offset=key_offset, value_tables=key_offset > 0,
                       embedding_skips=key_offset > 0)
    assert_equal_the_reference(model, random_items(tokenizer.vocab_size), batch_tokens)


@pytest.mark.parametrize("kind", bundle.KINDS)
@pytest.mark.parametrize("room", [10_000, 50])      # 50: most prompts lose their beginning
def test_rendered_questions_of_each_kind_score_as_the_reference_does(tokenizer, kind, room):
    rows = {"multiple_choice": choice_examples(), "language_modeling": [
        {"context": f"The {e['query']} ", "continuation": e["choices"][0]} for e in choice_examples()], "schema": [
        {"context_options": [f"The sky was {c} so the {c}" for c in e["choices"]], "continuation": "ran far.",
         "gold": e["gold"]} for e in choice_examples()]}[kind]
    items = [render_item(task(kind, shots=3), rows, i, tokenizer, room) for i in range(12)]
    model = tiny_model(tokenizer.vocab_size, key_offset=0.5, value_offset=0.5, value_tables=True, embedding_skips=True)
    for batch_tokens in (1, 500):
        assert_equal_the_reference(model, items, batch_tokens)
    assert any(span.cut for item in items for span in item.spans) == (room == 50)


def odd_examples(kind, n=40):
    """With what makes evaluators differ: blanks at ends, options that begin or end alike or repeat another, odd lengths."""
    rng = random.Random(kind)
    words = "sky river cat dog mat colour blue answer the on".split()

    def some(most):
        return " ".join(rng.choices(words, k=rng.randint(1, most)))
    rows = []
    for _ in range(n):
        begin, end, gold = some(3), some(3), rng.randrange(3)
        if kind == "multiple_choice":
            choices = [f"{begin} {some(4)}{rng.choice(['', ' ', '.'])}", f" {begin}", begin][:3]
            rng.shuffle(choices)
            rows.append({"query": f"The {some(6)}{rng.choice(['', ' ', ':'])}", "choices": choices, "gold": gold})
        elif kind == "schema":
            contexts = [f"The {some(5)} {end}" for _ in range(3)]
            rows.append({"context_options": contexts, "continuation": some(3), "gold": gold})
        else:
            rows.append({"context": f" The {some(6)} ", "continuation": rng.choice(["", " "]) + some(1)})
    return rows


@pytest.mark.parametrize("kind, shots", [("multiple_choice", 3), ("schema", 0), ("language_modeling", 3)])
@pytest.mark.parametrize("sequence_len", [400, 40])      # 40: most prompts lose their beginning
@pytest.mark.parametrize("limit", [0, 25])
def test_every_verdict_is_that_of_the_plain_evaluator(tokenizer, tmp_path, kind, shots, sequence_len, limit):
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, odd_examples(kind))), encoding="utf-8")
    some, model = task(kind, shots, path=path), tiny_model(tokenizer.vocab_size, sequence_len)
    found, records = core_eval.run_core_task(some, model, tokenizer, Runtime(), max_items=limit)
    rows = core_reference.questions(path, limit)
    plain = [core_reference.verdict(some, rows, i, tokenizer, model) for i in range(len(rows))]
    assert [record["verdicts"][0] for record in records] == plain and found["n"] == len(plain) == (limit or 40)
    assert found["cut"] > 0 if sequence_len == 40 and shots else found["cut"] == 0
    assert kind == "language_modeling" or 0 < sum(plain) < len(plain)


def test_what_the_options_share_is_read_once(tokenizer):
    model, read = tiny_model(tokenizer.vocab_size), []
    items = [Item(i, [Span([1] * 40 + [i, o, 3], 41) for o in range(4)], 0) for i in range(5)]
    assert [item.shared for item in items] == [40] * 5       # the token before the first scored one is needed again
    hidden = model.hidden

    def counted(idx, *args, **more):
        read.append(idx.numel())
        return hidden(idx, *args, **more)
    model.hidden = counted
    scoring.score_items(model, items, 100_000)
    assert read == [5 * 40, 5 * 4 * 2]


def test_a_batch_is_no_larger_than_asked_and_not_mostly_padding():
    few, many = [Item(i, [Span([i] * 9, 8)] * 2, 0) for i in range(2)], [Item(2, [Span([0] * 900, 899)] * 2, 0)]
    assert scoring.computed_tokens(few) == 2 * 7 + 4 * 2
    assert scoring.computed_tokens(few + many) == float("inf")
    assert list(scoring.batches([3, 9, 1, 1, 1], sum, 4)) == [[3], [9], [1, 1, 1]]


def test_an_option_without_a_scored_token_wins_only_as_the_first(tokenizer):
    model = tiny_model(tokenizer.vocab_size)
    none, some = Span([1, 7], 2), Span([1, 7, 3], 2)
    for spans, wins in [((none, some), 0), ((some, none), 0), ((none, none), 0)]:
        found = scoring.score_items(model, [Item(0, list(spans), 0)], 1000)[0]
        assert [math.isnan(score.log_likelihood) for score in found] == [span is none for span in spans]
        assert core_eval.likeliest_option(found) == wins


def test_exact_match_is_true_for_the_models_own_greedy_continuation(tokenizer):
    model, ids = tiny_model(tokenizer.vocab_size), [5, 80, 120]
    for _ in range(6):
        ids = ids + [int(model(torch.tensor([ids]))[0, -1].argmax())]
    wrong = ids[:-1] + [(ids[-1] + 1) % tokenizer.vocab_size]
    found = scoring.score_items(model, [Item(0, [Span(ids, 3), Span(wrong, 3)], 0)], 1000)
    assert [exact for _, exact, _ in found[0]] == [True, False]
    assert found[0][0][2] == found[0][1][2] == ids[3:]      # what it would have said at each place


def test_verdict_of_a_task_is_the_same_for_every_batch_size(tokenizer, tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, choice_examples())), encoding="utf-8")
    model, some = tiny_model(tokenizer.vocab_size), task("multiple_choice", shots=6, path=path)
    results = [core_eval.run_core_task(some, model, tokenizer, Runtime(), batch_tokens=b) for b in (1, 200, 10_000)]
    assert results[0] == results[1] == results[2]
    assert results[0][0]["n"] == 12 and results[0][0]["cut"] > 0      # six examples and a question do not fit 64 tokens


def test_two_ranks_together_give_the_verdicts_of_one(tokenizer, tmp_path, monkeypatch):
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, choice_examples())), encoding="utf-8")
    model, some = tiny_model(tokenizer.vocab_size), task("multiple_choice", path=path)
    alone = core_eval.run_core_task(some, model, tokenizer, Runtime(), max_items=7)
    parts = []
    monkeypatch.setattr("nanochat.runtime.all_gather_object", lambda rt, value: parts.append(value) or list(parts))
    core_eval.run_core_task(some, model, tokenizer, Runtime(rank=0, world_size=2), max_items=7)
    both = core_eval.run_core_task(some, model, tokenizer, Runtime(rank=1, world_size=2), max_items=7)
    assert both == alone and alone[0]["n"] == len(alone[1]) == 7


# ----------------------------------------------------------------------------------------------------------- rendering
def test_scored_tokens_are_the_whole_continuation_and_only_that(tokenizer):
    examples = choice_examples()
    item = render_item(task("multiple_choice", shots=2), examples, 4, tokenizer, 10_000)
    for span, choice in zip(item.spans, examples[4]["choices"]):
        assert tokenizer.decode(span.ids[span.start:]).strip() == choice
        assert span.ids[0] == tokenizer.bos_id
        assert tokenizer.decode(span.ids[:span.start]).endswith(examples[4]["query"])
    assert item.gold == examples[4]["gold"]


def test_schema_scores_one_continuation_after_each_context(tokenizer):
    example = {"context_options": ["The cat was big so the cat", "The cat was big so the dog"],
               "continuation": "ran.", "gold": 1}
    item = render_item(task("schema"), [example], 0, tokenizer, 10_000)
    assert [tokenizer.decode(s.ids[s.start:]) for s in item.spans] == [" ran.", " ran."]
    assert [tokenizer.decode(s.ids) for s in item.spans] == [f"{c} ran." for c in example["context_options"]]


def test_trailing_space_of_a_context_is_not_doubled(tokenizer):
    example = {"context": "Answer: ", "continuation": "blue"}
    item = render_item(task("language_modeling"), [example], 0, tokenizer, 10_000)
    assert tokenizer.decode(item.spans[0].ids) == "Answer: blue"


def test_few_shot_examples_are_fixed_by_the_number_and_never_the_question_itself(tokenizer):
    for index in range(12):
        drawn = draw_shots(5, 12, index)
        assert drawn == draw_shots(5, 12, index) and len(set(drawn)) == 5 and index not in drawn
        assert drawn == random.Random(1234 + index).sample([i for i in range(12) if i != index], 5)
    assert len({tuple(draw_shots(5, 12, i)) for i in range(12)}) > 6
    assert draw_shots(10, 3, 1) in ([0, 2], [2, 0]) and draw_shots(0, 3, 1) == draw_shots(10, 1, 0) == []
    some = task("multiple_choice", shots=5)
    text = tokenizer.decode(render_item(some, choice_examples(), 3, tokenizer, 10_000).spans[0].ids)
    assert text.count("\n\n") == 5


def test_the_first_examples_are_those_of_the_public_order(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(json.dumps({"number": i}) for i in range(50)), encoding="utf-8")
    order = list(range(50))
    random.Random(1337).shuffle(order)
    assert order[:5] == [2, 1, 20, 17, 48]                         # of every Python so far
    assert [row["number"] for row in bundle.read_examples(path)] == order
    assert [row["number"] for row in bundle.read_examples(path, 5)] == order[:5]


def test_of_choices_is_scored_what_follows_all_they_begin_with(tokenizer):
    row = {"query": "The cat sat", "choices": ["on the mat", "on the river", "on the"], "gold": 0}
    item = render_item(task("multiple_choice"), [row], 0, tokenizer, 10_000)
    assert [tokenizer.decode(span.ids[span.start:]) for span in item.spans] == [" mat", " river", ""]
    assert len({span.start for span in item.spans}) == 1


def test_of_a_schema_is_scored_all_they_end_with(tokenizer):
    row = {"context_options": ["The cat sat down", "The dog sat down"], "continuation": "there.", "gold": 0}
    item = render_item(task("schema"), [row], 0, tokenizer, 10_000)
    assert [tokenizer.decode(span.ids[span.start:]) for span in item.spans] == [" sat down there."] * 2


def test_nothing_is_stripped_from_questions_and_choices(tokenizer):
    row = {"query": "The sky: ", "choices": [" blue ", " river"], "gold": 0}
    for span, choice in zip(render_item(task("multiple_choice"), [row], 0, tokenizer, 10_000).spans, row["choices"]):
        assert tokenizer.decode(span.ids) == "The sky:  " + choice


def test_long_prompts_lose_their_left_and_bos_and_are_counted(tokenizer):
    examples = choice_examples()
    spans = [render_item(task("multiple_choice", shots=8), examples, 0, tokenizer, n).spans for n in (10_000, 40)]
    for whole, short in zip(*spans):
        assert short.ids == whole.ids[-40:] and short.cut == len(whole.ids) - 40 and whole.cut == 0
        assert short.ids[short.start:] == whole.ids[whole.start:] and short.start == whole.start - short.cut
    assert len({span.cut for span in spans[1]}) > 1                # each what it must
    odd = [{"query": "Why?", "choices": ["the cat " * 40, "dog"], "gold": 0}]
    long, small = render_item(task("multiple_choice"), odd, 0, tokenizer, 20).spans
    assert len(long.ids) == 20 and long.start == 1
    assert tokenizer.decode(small.ids[small.start:]) == " dog" and small.cut == 0


def test_continuation_longer_than_the_model_still_gets_a_score(tokenizer):
    example = {"context": "The", "continuation": "cat and dog " * 40}
    span = render_item(task("language_modeling"), [example], 0, tokenizer, 20).spans[0]
    assert len(span.ids) == 20 and span.start == 1


# ---------------------------------------------------------------------------------------------------------- statistics
def test_centered_accuracy_is_zero_at_chance_and_one_at_perfection():
    assert centered(0.25, 0.25) == 0.0 and centered(1.0, 0.62) == 1.0 and centered(0.0, 0.5) == -1.0


def test_wilson_interval_matches_known_values_and_stays_inside_0_and_1():
    low, high = wilson(10, 20)
    assert abs(low - 0.2993) < 1e-4 and abs(high - 0.7007) < 1e-4      # published worked example
    assert wilson(0, 10)[0] == 0.0 and wilson(10, 10)[1] == 1.0 and 0.25 < wilson(0, 10)[1] < 0.31
    assert wilson(0, 0) == (0.0, 1.0)


def test_interval_of_the_mean_is_made_of_the_tasks_own():
    one = {"centered": 0.2, "chance": 0.5, "ci95": [0.55, 0.7]}          # accuracy 0.6; centred 0.1 to 0.4
    assert statistics.mean_centered([one]) == (pytest.approx(0.2), [pytest.approx(0.1), pytest.approx(0.4)])
    mean, (low, high) = statistics.mean_centered([one] * 4)
    assert (mean, low, high) == (pytest.approx(0.2), pytest.approx(0.2 - 0.1 / 2), pytest.approx(0.2 + 0.2 / 2))
    rng, n, hits = random.Random(0), 40, 0        # and it holds the truth about 19 times in 20
    for _ in range(400):
        right = [sum(rng.random() < p for _ in range(n)) for p in (0.3, 0.5, 0.9)]
        low, high = statistics.mean_centered([{"centered": centered(r / n, 0.25), "chance": 0.25, "ci95": wilson(r, n)}
                                             for r in right])[1]
        hits += low <= sum(centered(p, 0.25) for p in (0.3, 0.5, 0.9)) / 3 <= high
    assert 0.92 < hits / 400 < 0.99


def test_gpt2_for_scale_has_every_task_and_its_core():
    gpt2 = bundle.gpt2()
    assert len(gpt2) == 23 and all(len(sizes) == 4 and all(0 <= x <= 100 for x in sizes) for sizes in gpt2.values())
    assert gpt2["CORE"] == [0.1139, 0.1849, 0.2146, 0.2565] and gpt2["hellaswag"][0] == 30.8


# --------------------------------------------------------------------------------------------------------- the control
@pytest.mark.parametrize("kind", bundle.KINDS)
def test_with_exchanged_questions_a_model_that_knows_falls_to_chance(tokenizer, tmp_path, monkeypatch, kind):
    rng, names = random.Random(5), [f"{a}{b}" for a in "bcdfghjklm" for b in "aeiou"]
    answers = [rng.sample(names, 4) for _ in range(200)]
    golds = [rng.randrange(4) for _ in answers]
    rows = {"multiple_choice": [{"query": f"say {a[g]}", "choices": a, "gold": g} for a, g in zip(answers, golds)],
            "schema": [{"context_options": [f"say {x}" for x in a], "continuation": a[g], "gold": g}
                       for a, g in zip(answers, golds)],
            "language_modeling": [{"context": f"say {a[0]}", "continuation": a[0]} for a in answers]}[kind]
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    given = next(iter(rows[0]))    # the question, of which each gets another's
    exchanged = tmp_path / "x.jsonl"
    others = [{**row, given: other[given]} for row, other in zip(rows, rows[7:] + rows[:7])]
    exchanged.write_text("\n".join(map(json.dumps, others)), encoding="utf-8")

    def knows(model, items, batch_tokens):
        """Likes what was asked for: the last word of the prompt, said again."""
        found = []
        for item in items:
            said = [tokenizer.decode(s.ids).rsplit("say ", 1)[1].split() for s in item.spans]
            found.append([SpanScore(float(a == b), a == b, [1]) for a, b in said])
        return found
    monkeypatch.setattr(core_eval, "score_items", knows)
    chance = 0.0 if kind == "language_modeling" else 0.25
    model = tiny_model(64)      # asked for its size alone
    asked = task(kind, chance=chance, path=path)
    true, _ = core_eval.run_core_task(asked, model, tokenizer, Runtime())
    asked_otherwise = task(kind, chance=chance, path=exchanged)
    control, _ = core_eval.run_core_task(asked_otherwise, model, tokenizer, Runtime())
    assert true["accuracy"] == 1.0 and true["ci95"][0] > chance
    assert control["n"] == 200 and control["ci95"][0] <= chance + 0.02 and control["accuracy"] < chance + 0.1


def test_graded_items_say_what_was_asked_answered_and_right(tokenizer, tmp_path):
    model, path = tiny_model(tokenizer.vocab_size), tmp_path / "t.jsonl"
    for kind, row, asked, right in [
            ("multiple_choice", {"query": "The sky is", "choices": ["blue", "cat"], "gold": 0}, "The sky is", "blue"),
            ("schema", {"context_options": ["The cat", "The dog"], "continuation": "ran.", "gold": 1}, "ran.", "The dog"),
            ("language_modeling", {"context": "The sky is ", "continuation": "blue"}, "The sky is", "blue")]:
        path.write_text(json.dumps(row), encoding="utf-8")
        result, (record,) = core_eval.run_core_task(task(kind, path=path), model, tokenizer, Runtime())
        assert record["prompt"] == [{"role": "user", "content": asked}] and record["reference"] == right
        assert record["verdicts"] == [record["replies"] == [right]] == [result["accuracy"] == 1.0]


def test_subset_is_fixed_distinct_and_not_just_the_first_ones():
    some = statistics.subset(1000, 50, 7)
    assert some == statistics.subset(1000, 50, 7) and len(set(some)) == 50 and max(some) > 500
    assert statistics.subset(10, 0, 7) == statistics.subset(10, 50, 7) == list(range(10))
