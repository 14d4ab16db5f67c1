"""What a child knows: every fact is right in every wording, asked from both sides, and no test's wording is trained."""
import itertools
import re
from random import Random

import pytest

from nanochat.data.chat_format import message_parts, reply_text
from nanochat.infer.tools import run_tool
from nanochat.kindergarten import (
    World,
    categories,
    check,
    documents,
    everyday,
    nature,
    skills_everyday,
    skills_tales,
)
from nanochat.kindergarten.skill import fact_check
from nanochat.kindergarten.skills_everyday import (
    ASKED,
    YES_OR_NO,
    comparing,
    facts_everyday,
    plain,
    ways_to_ask_widely,
    yes_no_world,
)
from nanochat.kindergarten.skills_lists import lists
from nanochat.kindergarten.skills_people import yes_no
from nanochat.kindergarten.skills_world import ways_to_ask

N_MADE = 3000


@pytest.fixture(scope="module")
def world():
    return World()


@pytest.fixture(scope="module")
def asked():
    """{test: {question: the answers of all facts that it asks for}}, all of both sides."""
    found = {True: {}, False: {}}
    for relation in ASKED:
        for fact, test, composed in itertools.product(relation.known, (True, False), (True, False)):
            for question in ways_to_ask_widely(relation, fact, test, composed):
                found[test].setdefault(plain(question), set()).add(fact.told[0])
    return found


def make(maker, world, test=False, first=0, count=N_MADE):
    """[(question, what is said, the check)]"""
    made = [maker(Random(seed), world, test, 2) for seed in range(first, first + count)]
    return [(messages[0]["content"], reply_text(message_parts(messages[-1])), wanted) for messages, wanted in made]


def all_facts():
    return [(relation, fact) for relation in everyday.RELATIONS for fact in relation.known]


def wanted_of(relation, fact):
    return fact_check(fact.values, rivals=everyday.rivals(relation, fact))


def test_every_answer_passes_its_check_and_no_rivals_does():
    for relation, fact in all_facts():
        wanted = wanted_of(relation, fact)
        assert check(wanted, fact.told[0]), (relation.name, fact)
        for rival in wanted["rivals"]:
            assert not check(wanted, rival) and not check(wanted, f"{fact.told[0]} {rival}."), (relation.name, fact, rival)


def test_a_question_about_a_single_thing_is_no_answer_to_it():
    for relation in ASKED:
        if relation.name.startswith("know "):
            fact, = relation.known
            sides = itertools.product((True, False), (True, False))
            ways = {way for side in sides for way in ways_to_ask_widely(relation, fact, *side)} - {*fact.asked}
            assert not [way for way in ways if check(wanted_of(relation, fact), way)], fact


def test_every_relation_is_asked_in_six_ways_and_more():
    for relation in ASKED:
        ways = {*relation.direct, *relation.composed, *relation.known[0].asked}
        assert len(ways) >= 6, relation.name
        assert all(ways_to_ask_widely(relation, fact, False) for fact in relation.known), relation.name


def test_no_question_has_two_answers(asked):
    answers = {question: said | asked[True].get(question, set()) for question, said in asked[False].items()}
    for fact in nature.FACTS:
        for question in fact.asked:
            answers.setdefault(plain(question), set()).add(fact.told[0])
    assert {question: said for question, said in answers.items() if len(said) > 1} == {}
    assert len(answers) > 30_000


def test_whole_wordings_are_kept_for_tests(asked):
    of_facts_world = {plain(question) for fact in nature.FACTS for question in ways_to_ask(fact, True)}
    trained_there = {plain(question) for fact in nature.FACTS for question in ways_to_ask(fact, False)}
    assert not asked[False].keys() & (asked[True].keys() | of_facts_world)
    assert not asked[True].keys() & trained_there and len(asked[True]) > 5000
    for relation in ASKED:
        sides = [{*skills_everyday._frames(test, composed)[relation.name]}
                 for composed in (True, False) for test in (True, False)]
        assert not sides[0] & sides[1] and not sides[2] & sides[3] and sides[3], relation.name


@pytest.mark.parametrize("question, answer", [
    ("what is the capital of brazil", "Brasilia"), ("paris is the capital of which country", "France"),
    ("where is madrid", "Spain"), ("which animal says moo", "cow"), ("a kitten is a baby what", "cat"),
    ("how many days does a week have", "7"), ("which language is spoken in mexico", "Spanish"),
    ("what do you use to cut paper", "scissors"), ("who bakes bread", "baker"), ("what comes from hens", "Eggs"),
    ("what do rabbits eat", "carrots"), ("mice is the plural of what", "mouse"), ("what colour are bananas", "yellow"),
    ("who is the mother of my mother", "grandmother"), ("on which planet do we live", "Earth"), ("when is christmas", "December"),
    ("what do you wear on your feet", "shoes"), ("which colours make green", "yellow"),
    ("is a carrot a fruit or a vegetable", "vegetable"), ("how many heads do i have", "1"),
    ("what is the second month of the year", "February"),
    ("why is there rain", "clouds"), ("who do you call when there is a fire", "firefighters"), ("is ice cold or hot", "cold"),
])
def test_what_everybody_asks_is_asked(asked, question, answer):
    said = asked[False].get(question) or asked[True].get(question)
    assert said and all(answer in text for text in said), question


def test_the_facts_of_nature_are_all_in_here():
    told = {fact.told[0] for _, fact in all_facts()}
    assert [fact for fact in nature.FACTS if fact.told[0] not in told] == []


def test_documents_tell_every_fact():
    text = "\n".join(documents(6000))
    facts = itertools.chain(*everyday.TOLD.values(), *everyday.ANIMALS_TOLD.values())
    untold = [told for told in facts if not any(sentence in text for sentence in told)]
    assert len(untold) < 10, untold
    assert all(categories.all_of(key) in text for key in categories.WHOLE)


def test_articles_and_sentences_are_right():
    for relation, fact in all_facts():
        for said in (*fact.told, *itertools.chain(*(ways_to_ask_widely(relation, fact, False) if relation.direct else []))):
            assert not re.search(r"\b[Aa] [aeiou](?!re\b|s\b|n\b|nd\b)\w|\b[Aa]n (?!hour)[^aeiouAEIOU]|[{}]|  ", said), said
    assert all(fact.told[0][0].isupper() and fact.told[0].endswith(".") for _, fact in all_facts())


# ------------------------------------------------------------------------------------------------------------ yes or no
def test_what_is_wrong_is_never_right():
    for relation in YES_OR_NO:
        for fact in relation.known:
            wrong = everyday.wrong_words(relation, fact)
            assert wrong, (relation.name, fact)
            for words in wrong:
                said = words.get("v") or words["x"]
                assert categories.bare(re.sub("^(in|on|at) ", "", said)) not in fact.values, (relation.name, fact, said)


def test_yes_or_no_follows_from_the_fact_that_is_said(world):
    for test in (False, True):
        made = make(yes_no_world, world, test)
        assert all(check(wanted, said) and not check(wanted, "Yes." if wanted["answer"] == "no" else "No.")
                   for _, said, wanted in made)
        assert 0.4 < sum(wanted["answer"] == "yes" for *_, wanted in made) / len(made) < 0.6
    assert not {plain(q) for q, *_ in make(yes_no_world, world, True)} & {plain(q) for q, *_ in make(yes_no_world, world)}


# ---------------------------------------------------------------------------------------------------------- comparisons
def size_of(name):
    return everyday.SIZES.get(categories.bare(name.lower()))


def test_what_is_held_against_each_other_is_what_was_asked_and_what_is_said(world):
    for make_one in (yes_no, yes_no_world, comparing):
        seen = 0
        for seed in range(600):
            (question, answered), wanted = make_one(Random(seed), world, seed % 2 == 0, 2)
            if isinstance(answered["content"], str):
                continue
            code, output, said = (part["text"] for part in answered["content"])
            asked, known = re.fullmatch(r"' (.+)'==' (.+)'", code).groups()
            assert output == run_tool(code) == str(wanted["answer"] == "yes"), code
            for word in known.lower().split():
                assert word in said.lower(), (code, said)
            seen += 1
        assert seen > 100, make_one


def test_comparisons_are_true_and_only_so(world):
    for question, said, wanted in make(comparing, world) + make(comparing, world, True):
        assert check(wanted, said), (question, said)
        compared = re.fullmatch(r"(?:Yes\. |No\. )?(.+) is (\w+) than (.+?)\.", said)
        first, word, second = compared.groups()
        if wanted["kind"] == "first":
            turned = f"{second} is {word} than {first}."
            assert not check(wanted, turned) and not check(wanted, f"{first} or {second}"), (question, turned)
        if word in ("bigger", "smaller"):
            sizes = [size_of(name) for name in (first, second)]
            assert None in sizes or (sizes[0] > sizes[1]) == (word == "bigger"), said
    tests, trained = ({plain(q) for q, *_ in make(comparing, world, test)} for test in (True, False))
    assert not tests & trained


# ---------------------------------------------------------------------------------------------------------------- lists
def test_lists_have_as_many_different_members_as_asked_for(world):
    for test in (False, True):
        for question, said, wanted in make(lists, world, test):
            assert check(wanted, said) and check(wanted, said.lower()), (question, said, wanted)
            items = re.findall(r"\d+\. ([^,]+?)(?=[,.]|$)", said)
            if items:
                assert len(items) == len({*items}) == wanted["n"] and {*items} <= {*wanted["members"]}, said
                number = re.search(r"\b([2-7])\b", question)
                assert not number or int(number[1]) == wanted["n"] or len(wanted["members"]) == wanted["n"], question


ANIMALS = {"kind": "list", "n": 3, "most": 3, "in_order": False, "about": "animal animals",
           "members": ["cat", "dog", "cow", "mouse"]}
DAYS = {"kind": "list", "n": 3, "most": 3, "in_order": True, "about": "day days",
        "members": ["Monday", "Tuesday", "ice cream"]}


@pytest.mark.parametrize("wanted, right, wrong", [
    (ANIMALS, ["1. cat, 2. dog, 3. cow.", "A cat, a dog and a cow.", "cats, dogs and cows",
               "Three animals are cat, dog, cow!", "3 animals: 1. cow, 2. dog, 3. cat."],
     ["1. cat, 2. dog.", "Cow\nDog\nCat\nMouse", "cat, cat, cat", "cat, dog, table",
      "I like cats, dogs and cows because they are animals", "", "cat dog", "three animals"]),
    (DAYS, ["Monday, Tuesday and ice cream.", "The days are Monday, Tuesday, ice cream"],
     ["Tuesday, Monday, ice cream", "Monday, Tuesday", "Monday, Tuesday, cream", "Monday, Tuesday, ice cream, Monday"]),
])
def test_a_list_is_checked_by_its_members(wanted, right, wrong):
    assert [text for text in right if not check(wanted, text)] == []
    assert [text for text in wrong if check(wanted, text)] == []


def test_no_frame_of_a_list_is_trained_and_tested(world):
    tests, trained = ({plain(q) for q, *_ in make(lists, world, test)} for test in (True, False))
    assert len(tests) > 1000 and not tests & trained


def test_tables_name_only_what_there_is():
    animals, countries = {animal["name"] for animal in categories.ANIMALS}, {*categories.merged("capitals")}
    for table in ("can", "cannot"):
        for named in categories.EVERYDAY[table].values():
            assert {*named} <= animals, {*named} - animals
    for table in ("continents", "languages"):
        for named in categories.EVERYDAY[table].values():
            assert {*named} <= countries, {*named} - countries
    for ability, able in categories.EVERYDAY["can"].items():
        assert not {*able} & {*categories.EVERYDAY["cannot"][ability]}
    assert len(animals) >= 45 and len(countries) >= 45
    for category in (*categories.CATEGORIES.values(), *categories.NARROWER):
        assert len(category.members) >= 2 and len({*category.members}) == len(category.members), category


def test_conversations_pass_their_checks(world):
    for test in (False, True):
        made = make(facts_everyday, world, test, count=1000)
        assert all(check(wanted, said) for _, said, wanted in made)
        assert len({question for question, *_ in made}) > 700 and max(len(q + said) for q, said, _ in made) < 400


def test_heroes_have_likeliest_stories_of_their_own():
    """Of a fox, a robot and a queen not the same is told by a model that always takes the likeliest words."""
    plots = skills_tales.PLOTS["any"]
    own = {hero: {plot[0] + plot[1] for plot in skills_tales.own(plots, hero)} for hero in ("the fox", "Fay", "the robot", "Quin")}
    assert own["the fox"] == own["Fay"] and all(len(first) == skills_tales.OWN for first in own.values())
    assert len(own["the fox"] | own["the robot"] | own["Quin"]) > 2 * skills_tales.OWN
    told = {plot[1] for letter in "abcdefghijklmnopqrstuvwxyz" for plot in skills_tales.own(plots, letter)}
    assert told == {plot[1] for plot in plots}      # none is lost
