"""Words taken apart, rhymes and lists that are given: answers are worked out anew here, by other means than the makers'."""
import re
from random import Random

import pytest

from nanochat.infer.tools import run_tool
from nanochat.kindergarten import World, check
from nanochat.kindergarten.skills_given import given_lists
from nanochat.kindergarten.skills_letter_play import PLAY, letter_play
from nanochat.kindergarten.skills_letters import TEST_WORDS
from nanochat.kindergarten.skills_rhymes import FAMILIES, rhymes
from nanochat.kindergarten.skills_words import NEW_WORDS
from nanochat.kindergarten.tables import NAMES

MAKERS = (letter_play, rhymes, given_lists)


def drawn(make, test, n):
    """[(question, [(code, output)], the reply, the check)]"""
    world = World()
    made = []
    for number in range(n):
        (asked, answered), graded = make(Random(f"{make.__name__} {test} {number}"), world, test, 1 + number % 2)
        said = answered["content"] if isinstance(answered["content"], list) else [{"type": "text", "text": answered["content"]}]
        text = {kind: [part["text"] for part in said if part["type"] == kind] for kind in ("python", "python_output", "text")}
        calls = list(zip(text["python"], text["python_output"], strict=True))
        made.append((asked["content"], calls, "".join(text["text"]), graded))
    return made


@pytest.fixture(scope="module")
def made():
    return {(make, test): drawn(make, test, 300 if test else 900) for make in MAKERS for test in (False, True)}


@pytest.mark.parametrize("test", (False, True))
@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_references_pass_and_nonsense_fails(make, test, made):
    for question, calls, reply, graded in made[make, test]:
        assert check(graded, reply, True) and check(graded, reply.lower(), True), (question, reply, graded)
        for wrong in ("", "Hmm.", "I like snow.", "There are 777777 of them.", reply + " word" * 80):
            assert not check(graded, wrong, True), (question, wrong, graded)
        assert all(output == run_tool(code) for code, output in calls), (question, calls)
        assert question.strip() == question and "{" not in question and "  " not in question
        assert len(question) + len(reply) < 400
    assert len({question for question, *_ in made[make, test]}) >= 100


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_no_test_is_trained(make, made):
    def normal(question):
        return re.sub("[^a-z0-9]", "", question.lower())
    trained = {normal(question) for question, *_ in made[make, False]}
    assert not [question for question, *_ in made[make, True] if normal(question) in trained]


def test_words_kept_for_tests_are_not_taken_apart_in_training(made):
    kept = {*TEST_WORDS, *NEW_WORDS} - {name.lower() for name in NAMES}
    for _, calls, _, _ in made[letter_play, False]:
        assert not {word.lower() for code, _ in calls for word in re.findall(r"' (\w+)'", code)} & kept, calls


def test_words_are_taken_apart_rightly(made):
    seen = set()
    for question, calls, reply, _ in made[letter_play, False] + made[letter_play, True]:
        words = {word.lower() for code, _ in calls for word in re.findall(r"' (\w+)'", code)}
        assert all(word in question.lower() for word in words), (question, words)
        for sentence in re.findall(r"[^.]+\.", reply):
            if match := re.search(r"(\w+) without the (first|last) letter is (\w+)\.", sentence):
                whole, end, rest = match.groups()
                assert whole == (whole[0] + rest if end == "first" else rest + whole[-1])
            elif match := re.search(r"The letter (\w) appears (\d+) times? in (\w+)\.", sentence):
                assert match[3].count(match[1]) == int(match[2])
            elif match := re.search(r"(\w+): ([a-z-]+)\.", sentence):
                assert match[1] == match[2].replace("-", "")
            elif match := re.search(r"(Yes|No), (\w+) and (\w+) (?:do not )?(start|end) with", sentence):
                place = 0 if match[4] == "start" else -1
                assert (match[1] == "Yes") == (match[2][place] == match[3][place])
            elif match := re.search(r"(\w) is letter number (\d+) of (\w+)", sentence):
                assert match[3][int(match[2]) - 1] == match[1]
            elif match := re.search(r"(\w+) comes before (\w+)", sentence):
                assert match[1] < match[2]
            else:
                continue
            seen.add(re.sub(r"\w*\d\w*", "", match.re.pattern))
    assert len(seen) == 6 and len(PLAY) >= 25


def test_what_rhymes_is_of_one_family(made):
    assert len(FAMILIES) >= 60 and all(len({*family}) == len(family) > 1 for family in FAMILIES)
    for question, _, reply, graded in made[rhymes, False] + made[rhymes, True]:
        if match := re.fullmatch(r"(\w+) rhymes with (\w+)\.", reply):
            assert any({match[1].lower(), match[2]} <= {*family} for family in FAMILIES) and match[2] in question.lower()
        elif match := re.fullmatch(r"(Yes|No), (\w+) and (\w+) (?:do not )?rhyme\.", reply):
            assert (match[1] == "Yes") == any({match[2], match[3]} <= {*family} for family in FAMILIES)
        elif graded["kind"] == "list":
            assert len({*reply.lower().strip(".").split(", ")}) == graded["n"]


def test_lists_are_read_in_their_order(made):
    for question, calls, reply, _ in made[given_lists, False] + made[given_lists, True]:
        if calls:
            listed = calls[0][0].strip("()[]").split(" in ")[-1]
            things = [thing for thing in re.findall(r"[\w ]+(?=[,'\])])", listed) if thing.strip()]
            found = [question.lower().find(thing.strip().lower()) for thing in things]
            assert -1 not in found or "max" in listed or "sorted" in listed, (question, things)
        if match := re.fullmatch(r"(\d+) is the (biggest|smallest)\.", reply):
            asked = [int(number) for number in re.findall(r"\d+", question)]
            assert int(match[1]) == (max(asked) if match[2] == "biggest" else min(asked))
