"""The kindergarten says the same everywhere, contradicts itself nowhere, and keeps its tests out of its training."""
import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nanochat.common import DataError, UsageError
from nanochat.data.chat_format import message_parts, reply_text
from nanochat.infer.tools import run_tool
from nanochat.kindergarten import (
    SKILLS,
    World,
    check,
    document,
    documents,
    eval_example,
    nature,
    phrases,
    rl_example,
    tables,
    train_conversations,
    training_example,
    typist,
)
from nanochat.kindergarten.skills_numbers import calculate
from nanochat.kindergarten.skills_world import ways_to_ask

N_TRAIN, N_DOCUMENTS, N_EVAL = 5000, 8000, 200     # N_TRAIN of each stage


@pytest.fixture(scope="module")
def world():
    return World()


@pytest.fixture(scope="module")
def training():
    return [training_example(i, stage=stage) for stage in ("mid", "sft") for i in range(N_TRAIN)]


@pytest.fixture(scope="module")
def texts():
    return list(documents(12_000))


@pytest.fixture(scope="module")
def evals():
    return {skill: [eval_example(skill, i) for i in range(N_EVAL)] for skill in SKILLS}


def parts(content):
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def reply(example):
    return reply_text(message_parts(example.conversation["messages"][-1]))


def user_turns(example):
    return [m["content"] for m in example.conversation["messages"] if m["role"] == "user"]


def normal(turns):
    """Forgets the typist's noise: case, punctuation, contractions and polite beginnings."""
    text = re.sub(r"\b(what|who|where)'?s ", r"\1 is ", " | ".join(turns).lower())
    text = re.sub(r"(^|\| |\. )(please tell me: |hey, |hi! |i have a question\. )", r"\1", text)
    return "".join(c for c in text if c.isalnum() or c in " |+-*/")


def test_same_bytes_in_every_process():
    code = ("import json, hashlib; from nanochat.kindergarten import *; "
            "made = [list(documents(60, seed=3)), list(train_conversations(150, stage='sft')), "
            "[[eval_example(s, i).conversation for i in range(4)] for s in SKILLS], "
            "rl_example(5, skill='story').conversation, document(World(), 7, 1)]; "
            "print(hashlib.sha256(json.dumps(made).encode()).hexdigest())")
    digests = {subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, check=True,
                              cwd=Path(__file__).parent.parent, capture_output=True, text=True).stdout
               for seed in ("1", "2")}
    made = [list(documents(60, seed=3)), list(train_conversations(150, stage="sft")),
            [[eval_example(s, i).conversation for i in range(4)] for s in SKILLS],
            rl_example(5, skill="story").conversation, document(World(), 7, 1)]
    assert digests == {hashlib.sha256(json.dumps(made).encode()).hexdigest() + "\n"}


def test_a_document_depends_on_its_number_only(world):
    assert list(documents(40, seed=5))[17] == document(world, 17, seed=5) != document(world, 17, seed=-5)


def test_names_are_unique_and_friendship_is_mutual(world):
    by_name = {p.name: p for p in world.people}
    assert len(by_name) == len({p.pet for p in world.people}) == 60
    for p in world.people:
        friend = by_name[p.friend]
        assert friend.friend == p.name and friend is not p and friend.held_out == p.held_out
    assert len(world.held_out) == 12
    assert max(map(len, world.by_home.values())) == 1
    fillers = {*tables.NAMES} & {*tables.GIRLS, *tables.BOYS}
    assert not fillers and len(tables.NAMES) >= 250 and len(tables.MEALS) >= 100 and len(tables.PASTIMES) >= 80


def test_a_world_with_too_few_names_is_refused(monkeypatch):
    monkeypatch.setattr(tables, "BOYS", tables.BOYS[:20])
    with pytest.raises(DataError, match="50 girls and boys and 60 pets"):
        World()


def test_every_fact_is_told_seventy_times(world, texts):
    people = world.people[:3] + world.held_out[:3]
    counts = {(p.name, attribute): 0 for p in people for attribute in phrases.STATEMENTS}
    told = {p.name: {attribute: {form for s in said for form in (s, phrases.with_pronoun(s, p))}
                     for attribute, wordings in phrases.STATEMENTS.items()
                     for said in [[phrases.fill(w, p) for w in wordings]]} for p in people}
    for line in itertools.chain.from_iterable(t.split("\n") for t in texts):
        for p in people:
            if p.name in line and ":" not in line:
                for attribute, sentences in told[p.name].items():
                    counts[p.name, attribute] += any(s in line for s in sentences)
    assert min(counts.values()) >= 70, counts
    assert all(len(set(wordings)) >= 5 for wordings in phrases.STATEMENTS.values())


def test_held_out_people_are_never_asked_about(world, training, texts):
    names = {p.name.lower() for p in world.held_out}
    for example in training:
        said = json.dumps(example.conversation).lower()
        assert not names & set(re.findall(r"[a-z]+", said)), example
    for text in texts[:N_DOCUMENTS]:
        for line in text.split("\n"):
            if "?" in line or ": " in line:
                assert not names & set(re.findall(r"[a-z]+", line.lower())), line


def test_everybody_is_read_about_again_while_conversations_are_trained(world):
    made = list(train_conversations(6000, stage="sft"))
    replayed = " ".join(c["text"] for c in made if "text" in c)
    assert 0.04 < sum("text" in c for c in made) / len(made) < 0.08 and "?" not in replayed
    assert all(f"{p.name} " in replayed for p in world.people)


def test_eval_examples_are_never_trained(training, evals):
    trained = {normal(turns[k:]) for turns in map(user_turns, training) for k in range(len(turns))}
    for skill, examples in evals.items():
        if SKILLS[skill].split != "seen":
            both = {normal(user_turns(e)) for e in examples} & trained
            assert not both, (skill, both)


def test_eval_content_is_never_trained(training, evals):
    def content(skill, example):
        """What must be new: the pair of numbers, the word and letter, the story, the value told, the stranger."""
        asked, kind = user_turns(example)[-1], example.check
        if skill in ("arithmetic", "word_problem"):
            return tuple(sorted(map(int, kind["given"][:2])))
        if skill == "story":
            return asked.split("? ")[0].rsplit(". ", 1)[0]
        return kind["need"][0][0].lower() if skill == "memory" else kind["about"].lower()
    for skills in (("arithmetic", "word_problem"), ("story",), ("memory",), ("unknown",)):
        trained = {content(skills[0], e) for e in training if e.skill in skills and e.check["kind"] != "any"}
        fresh = [rl_example(i, skill=s) for s in skills for i in range(300)]
        trained |= {content(skills[0], e) for e in fresh if e.check["kind"] != "any"}
        assert not trained & {content(s, e) for s in skills for e in evals[s]}, skills


def test_a_wording_kept_for_tests_is_in_no_conversation_and_no_document(training, texts):
    kept = {wording for fact in nature.FACTS for wording in ways_to_ask(fact, True)}
    turns = [turn for e in training for turn in user_turns(e)] + [user_turns(rl_example(i, skill="choice"))[0]
                                                                  for i in range(1000)]
    assert len(kept) > 100 and not [w for w in kept for said in (" \n".join(turns), " \n".join(texts)) if w in said]


def test_documents_do_not_ask_what_tests_ask(texts, evals):
    pairs = {tuple(sorted(map(int, e.check["given"][:2]))) for e in evals["arithmetic"]}
    told = {tuple(sorted(map(int, m))) for t in texts for m in re.findall(r"(\d+) (?:[+*-]|plus|minus|times) (\d+)", t)}
    assert told and not told & pairs
    everything = "\n".join(texts)
    assert not [e for e in evals["facts_paraphrase"] + evals["story"] if user_turns(e)[0] in everything]


@pytest.mark.parametrize("skill", SKILLS)
def test_references_pass_and_wrong_answers_fail(skill, evals):
    examples = evals[skill]
    assert len({json.dumps(e.conversation) for e in examples}) >= 100
    for e in examples:
        assert e.skill == skill and e.split == SKILLS[skill].split and json.loads(json.dumps(e.check)) == e.check
        said = reply(e)
        for right in (said, said.lower() if skill not in ("choice", "instructions") else said, " " + said.rstrip(".!") + " "):
            assert check(e.check, right, True), (skill, e, right)
        for text in ("", "Hmm.", "I like gravel.", "quay: q-u-a-y.", "There are 777777 of them.", said + " word" * 80):
            assert not check(e.check, text, True), (skill, e, text)


@pytest.mark.parametrize("kind, right, wrong", [
    ({"kind": "yes_no", "answer": "no"}, ["No.", "no, she is not", "No, Mia has a cat.", "Mia has a cat, so no."],
     ["Yes.", "No yes", "There is no cat here", "nope", "Mia has a cat, so yes."]),
    ({"kind": "number", "answer": "14", "given": ["47", "33"], "tool": True}, ["47 - 33 = 14.", "It is 14"],
     ["141", "47 - 33 = 15.", "14 or 15", "It is 13 and 14", "-14", "1.4"]),
    ({"kind": "number", "answer": "2", "given": [], "tool": False}, ["2", "two times", "c-a-r-r-o-t. r comes twice."],
     ["3", "2 or 3", "1, 2", "12"]),
    ({"kind": "spell", "letters": "cat", "before": []}, ["c-a-t", "C-A-T.", "c a t", "It is c, a, t.", "cat: c-a-t."],
     ["cat", "c-a-t-t", "c-t-a", "c-a-t c-a-r", "t-a-c"]),
    ({"kind": "fact", "need": [["soup"]], "rivals": ["rice"], "names": []}, ["Soup!", "Her favourite food is soup."],
     ["soup and rice", "soups", "soup or bread", "I don't know if it is soup."]),
    ({"kind": "fact", "need": [["Tom"]], "rivals": [], "names": ["Mia", "Tom"]}, ["Tom.", "Mia's best friend is Tom."],
     ["Tom and Ben", "Tomas", "Ben"]),
    ({"kind": "unknown", "about": "Zandor"},
     ["I don't know Zandor.", "I do not know where Zandor lives.", "Sorry, I have never heard of Zandor."],
     ["Zandor lives in Oakton.", "I don't know Zandor. Zandor is a baker.", "I don't know, but he lives in Oakton."]),
    ({"kind": "letter", "answer": "B"}, ["B", "B.", "(B) soup", "The answer is B."], ["A", "A or B", "b", "soup"]),
    ({"kind": "copy", "text": "red cat"}, ["red cat", "Red cat.", '"red cat"', "You said: red cat"],
     ["cat red", "red", "red cat and a long tail behind it"]),
    ({"kind": "first", "answer": "horse", "rivals": ["cat"]}, ["A horse is bigger than a cat.", "The horse."],
     ["A cat is bigger than a horse.", "A horse is smaller than a cat.", "A dog", "A horse or a cat"]),
    ({"kind": "any", "signs": ["hello", "hi"], "rivals": ["don't know"]}, ["Hi!", "Hello there"],
     ["Hint", "I don't know hi"]),
])
def test_checks_are_exact_about_the_answer_and_lenient_about_the_rest(kind, right, wrong):
    assert [r for r in right if not check(kind, r, True)] == []
    assert [w for w in wrong if check(kind, w, True)] == []


def test_sums_without_the_tool_do_not_count(evals):
    for e in evals["arithmetic"] + evals["word_problem"]:
        assert check(e.check, reply(e), True) and not check(e.check, reply(e), False)


def test_tool_outputs_are_what_python_says(training, evals):
    seen = 0
    for e in training + evals["arithmetic"] + evals["word_problem"]:
        for m in e.conversation["messages"]:
            kinds = [p["type"] for p in parts(m["content"])]
            if "python" in kinds:
                assert m["role"] == "assistant"
                texts = [p["text"] for p in m["content"]]
                if kinds == ["python", "python_output"]:  # the result is all that is said
                    texts.append(reply_text(m["content"]))
                else:
                    assert kinds == ["python", "python_output", "text"] * (len(kinds) // 3)
                for code, output, said in zip(texts[::3], texts[1::3], texts[2::3]):
                    of_numbers = r"[\d+*/%<>=()-]+|(sorted|min|max|numbers)\([\[\]\d, +*-]+\)(\[::-1\])?"
                    assert re.fullmatch(of_numbers, code) or re.search("',? ", code)
                    assert output == run_tool(code)
                    assert output in ("True", "False") or re.search(rf"\b{output.strip('- ')}\b", said)
                    seen += 1
    assert seen > 500 and calculate("12*3-4") == "32"


def retell(text):
    """Read a story's sentences anew, with a machine of its own: ({person: place}, {thing: person or place})."""
    at, thing_at = {}, {}
    for s in (s.strip() for s in text.split(".") if s.strip()):
        if m := re.fullmatch(r"The (\w+) is in the (\w+)", s):
            thing_at[m[1]] = m[2]
        elif m := re.fullmatch(r"(\w+) is in the (\w+)", s):
            at[m[1]] = m[2]
        elif m := re.fullmatch(r"(\w+) (?:goes|walks|runs) to the (\w+)", s):
            assert at[m[1]] != m[2], f"{m[1]} is there already: {text}"
            at[m[1]] = m[2]
        elif m := re.fullmatch(r"(\w+) (?:takes|picks up) the (\w+)", s):
            assert thing_at[m[2]] == at[m[1]], f"{m[1]} cannot reach it: {text}"
            thing_at[m[2]] = m[1]
        elif m := re.fullmatch(r"(\w+) (?:drops|puts down) the (\w+)", s):
            assert thing_at[m[2]] == m[1], f"{m[1]} does not hold it: {text}"
            thing_at[m[2]] = at[m[1]]
        elif m := re.fullmatch(r"(\w+) gives the (\w+) to (\w+)", s):
            assert thing_at[m[2]] == m[1] and at[m[1]] == at[m[3]], text
            thing_at[m[2]] = m[3]
        else:
            raise AssertionError(f"unreadable: {s}")
    return at, thing_at


def test_stories_agree_with_an_independent_reading(training, evals):
    examples = [e for e in training if e.skill == "story"] + evals["story"]
    assert len(examples) > 400
    for e in examples:
        openers = sorted([*typist.PLAIN, *typist.QUESTION, *typist.SENTENCE], key=len, reverse=True)
        asked = re.sub("|".join(re.escape(f" {opener} ") for opener in openers), " ", user_turns(e)[-1])
        story, question = re.fullmatch(r"(.*\.) ([^.]+)", asked).groups()
        at, thing_at = retell(story)
        word = question.rstrip("?").split()[-1].removesuffix("?")
        if question.lower().startswith("who"):
            want = [thing_at[word]] if " has " in question else [p for p, x in at.items() if x == word]
        else:
            where = at.get(word) or at.get(word.capitalize()) or thing_at[word]
            want = [at.get(where, where)]
        assert want == e.check["need"][0], e


def test_a_story_told_again_is_no_answer(evals):
    asked = [e for e in evals["story"] if e.check["need"][0][0] in tables.PLACES]
    assert len(asked) > 100
    for e in asked:
        answer, = e.check["need"][0]
        named = [place for place in tables.PLACES if f" {place}." in user_turns(e)[0]]
        assert answer in named and {*e.check["rivals"]} == {*named} - {answer}


def test_steam_is_a_right_answer_and_the_question_none():
    fact = next(fact for fact in nature.FACTS if "What is steam?" in fact.asked)
    graded = {"kind": "fact", "need": [fact.value], "rivals": [], "names": []}
    assert check(graded, "It turns into steam.") and not any(check(graded, asked) for asked in fact.asked)


def test_long_stories_in_documents_do_not_contradict_themselves(texts):
    told = [line for t in texts for line in t.split("\n") if " Now " in line and not re.search(r"\?|: ", line)]
    assert len(told) > 500
    for line in told:
        story, *now = line.split(" Now ")
        at, thing_at = retell(story)
        for said in now:
            who, place = re.fullmatch(r"(?:the )?(\w+) (?:is in|has) the (\w+)\.", said).groups()
            where = at.get(who) or at.get(thing_at[who], thing_at[who])
            assert thing_at[place] == who if " has " in said else where == place, line


def test_nothing_is_too_long_or_too_short(texts, training, evals):
    assert all(60 <= len(t) <= 900 for t in texts)  # pairs of words are short
    assert 350 <= sum(map(len, texts)) / len(texts) <= 500
    for e in training + [e for examples in evals.values() for e in examples]:
        messages = e.conversation["messages"]
        assert [m["role"] for m in messages] == ["user", "assistant"] * (len(messages) // 2)
        assert sum(len(p["text"]) for m in messages for p in parts(m["content"])) <= 640
        for said in (parts(m["content"]) for m in messages):  # what a list gives, and what follows a first sum, begins with a blank
            assert all(p["text"].rstrip() == p["text"] != "" for p in said) and said[0]["text"][0] != " "


def test_questions_make_up_a_sixth_to_a_third_of_the_text(texts):
    asked = sum(len(t) for t in texts if re.search(r"^(Question|Q|User|[A-Z]\w+): ", t))
    assert 0.16 <= asked / sum(map(len, texts)) <= 0.33


def test_articles_fit_their_nouns(texts, training):
    said = texts + [reply(e) for e in training]
    for text in said:
        assert not re.search(r"(?<!an )(?<!letter )\b[Aa] [aeiou](?!re\b|s\b|n\b|nd\b|ne\b|ppear)[a-z]+", text), text
        assert not re.search(r"\b[Aa]n (?!hour|['\"]|[FHLMNRSXfhlmnrsx]\b)[^aeiouAEIOU\d]", text), text


def test_nature_does_not_contradict_itself():
    asked = [q for f in nature.FACTS for q in f.asked]
    assert len(asked) == len(set(asked))
    for f in nature.FACTS:
        assert len(f.asked) >= 3
        assert check({"kind": "fact", "need": [list(f.value)], "rivals": list(f.rivals), "names": []}, f.told[0]), f


def test_mid_is_simpler_than_sft(training):
    def moves(e):
        return len(re.findall(r"goes|walks|runs|takes|picks|drops|puts|gives", user_turns(e)[-1]))
    mid, sft = ([moves(e) for e in half if e.skill == "story"] for half in (training[:N_TRAIN], training[N_TRAIN:]))
    assert max(mid) == 2 and max(sft) == 3
    assert all(SKILLS[e.skill].mid for e in training[:N_TRAIN])


def test_letters_of_choices_are_listed_and_balanced(evals):
    letters = [e.check["answer"] for e in evals["choice"]]
    assert all(e.conversation["letters"] == ["A", "B", "C", "D"] for e in evals["choice"])
    assert all(letters.count(x) >= 30 for x in "ABCD")
    yes = [e.check["answer"] for e in evals["yes_no"]].count("yes")
    assert 70 <= yes <= 130


@pytest.mark.parametrize("text", ["cat: x", "[a]\ncat", "[a]\ncat: x\ncat: y", "[a: b | c]\ncat: x", "[a]\ncat: x | | y"])
def test_a_malformed_table_names_file_and_line(text, tmp_path):
    (tmp_path / "bad.txt").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=rf"bad\.txt, line {text.count(chr(10)) + 1}: expected"):
        tables.read(str(tmp_path / "bad.txt"))


def test_unknown_names_have_one_clear_error():
    with pytest.raises(UsageError, match="unknown skill"):
        eval_example("flying", 0)
    with pytest.raises(UsageError, match="facts_new_people"):
        rl_example(0, skill="facts_new_people")
    with pytest.raises(UsageError, match="stage"):
        training_example(0, stage="base")
