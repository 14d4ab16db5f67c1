"""What strangers try, letters and numbers: answers are worked out anew here, and tests share nothing with training."""
import re
from collections import Counter
from itertools import combinations
from random import Random

import pytest

from nanochat.infer.tools import run_tool
from nanochat.kindergarten import World, check, eval_example
from nanochat.kindergarten.skills_counting import counting_numbers
from nanochat.kindergarten.skills_letters import (
    ALPHABET,
    ORDINALS,
    TEST_WORDS,
    alphabet,
    backwards_any,
    counting_any,
    letter_of_word,
    made_up_word,
    spelling_any,
    words_by_letter,
)
from nanochat.kindergarten.skills_numbers import calculate, in_words, number_sense, sums_any
from nanochat.kindergarten.skills_problems import (
    PROBLEMS,
    TEST_PROBLEMS,
    TRAINED_PROBLEMS,
    word_problem_new,
    word_problem_wide,
)
from nanochat.kindergarten.skills_words import NEW_WORDS
from nanochat.kindergarten.tables import EVERYDAY, WORDS
from nanochat.kindergarten.wording import finished, sentence, some_wording, usual

LETTERS = (spelling_any, backwards_any, letter_of_word, counting_any, words_by_letter, alphabet)
NUMBERS = (sums_any, number_sense, counting_numbers, word_problem_wide, word_problem_new)
N_TRAIN, N_TEST = 1500, 200


def drawn(make, test, n):
    """[(question, what the calculator was asked, what it said, the reply, the check)]"""
    world = World()
    made = []
    for number in range(n):
        (asked, answered), graded = make(Random(f"{make.__name__} {test} {number}"), world, test, 1 + number % 2)
        said = answered["content"]
        parts = [part["text"] for part in said] if isinstance(said, list) else ["", "", said]
        if len(parts) > 3:  # two sums: tested by themselves
            continue
        if len(parts) == 2:  # the result is what is said
            parts.append(parts[1])
        made.append((asked["content"], *parts, graded))
    return made


@pytest.fixture(scope="module")
def training():
    return {make: drawn(make, False, N_TRAIN) for make in (*LETTERS, *NUMBERS) if make is not word_problem_new}


@pytest.fixture(scope="module")
def tests():
    return {make: drawn(make, True, N_TEST) for make in (*LETTERS, *NUMBERS)}


def all_of(make, training, tests):
    return training.get(make, []) + tests[make]


def word_of(code, reply):
    """The word that a question is about: that of the call, or where vowels are counted that of the working."""
    return (re.search(r"' (\w+)'", code) or re.match(r"(\w+): ", reply))[1].lower()


WORDED = {in_words(number, joint): str(number) for joint in "- " for number in range(1000)} | {"one hundred": "100"}
ANY_WORDED = re.compile(rf"\b({'|'.join(sorted(WORDED, key=len, reverse=True))})\b", re.IGNORECASE)
NO_NUMBERS = re.compile(r"\b(by 2|two numbers|one (number|more|question)"
                        r"|(wh?i\w+|wh?a\w+|smaller|bigger|larger|missing|the|next) one)\b", re.IGNORECASE)


def digits(text):
    """The text with numbers in digits where it has them in words."""
    text = re.sub("hundred (&|n|adn) ", "hundred and ", text, flags=re.IGNORECASE)
    return ANY_WORDED.sub(lambda match: WORDED[match[0].lower()], text)


def numbers(text):
    return [int(number) for number in re.findall(r"\d+", digits(text))]


@pytest.mark.parametrize("make", (*LETTERS, *NUMBERS), ids=lambda make: make.__name__)
def test_references_pass_and_nonsense_fails(make, training, tests):
    for question, code, output, reply, graded in all_of(make, training, tests):
        assert check(graded, reply, True) and check(graded, reply.lower(), True), (question, reply, graded)
        for wrong in ("", "Hmm.", "I like snow.", "quay: q-u-a-y.", "There are 777777 of them.", reply + " word" * 80):
            assert not check(graded, wrong, True) or "quay" in reply, (question, wrong, graded)
        assert output == (run_tool(code) if code else "")
        assert question.strip() == question and "{" not in question and "  " not in question
        assert len(question) + len(reply) < 400
    assert len({question for question, *_ in tests[make]}) >= 100


def test_no_test_is_trained(training, tests):
    def normal(question):
        return re.sub("[^a-z0-9+*/<>=-]", "", question.lower())
    for make in set(training) & set(tests):
        asked = {normal(question) for question, *_ in training[make]}
        assert not [question for question, *_ in tests[make] if normal(question) in asked], make
    assert not {problem.story for problem in TEST_PROBLEMS} & {problem.story for problem in TRAINED_PROBLEMS}


def test_words_kept_for_tests_are_never_spelled_in_training(training, tests):
    kept = {*TEST_WORDS, *NEW_WORDS}
    assert len(TEST_WORDS) > 80 and len(EVERYDAY) > 1400 and len(set(EVERYDAY)) == len(EVERYDAY)
    for make in LETTERS:
        for _question, code, _, reply, _graded in training[make]:
            assert not {word.lower() for word in re.findall(r"' (\w+)'", code) + re.findall(r"(\w+): ", reply)} & kept, reply
    for make in (spelling_any, backwards_any, letter_of_word, counting_any):
        assert all(word_of(code, reply) in TEST_WORDS for _, code, _, reply, _ in tests[make])


def test_the_closed_list_keeps_its_own_tests(training):
    for make in (spelling_any, backwards_any, counting_any):
        assert not {word_of(code, reply) for _, code, _, reply, _ in training[make]} & set(WORDS)


def test_pairs_of_numbers_kept_for_tests_are_never_trained(training):
    kept = {tuple(sorted(map(int, example.check["given"][:2]))) for skill in ("arithmetic", "word_problem")
            for example in (eval_example(skill, i) for i in range(200))}
    trained = set()
    for make in (sums_any, number_sense, word_problem_wide):
        for _, code, _, _, _ in training[make]:
            numbers_of_code = dict.fromkeys(map(int, re.findall(r"\d+", code.split("==")[0].removesuffix(")/2"))))
            trained |= {tuple(sorted(pair)) for pair in combinations(numbers_of_code, 2)}
    assert len(kept) > 250 and len(trained) > 1000 and not kept & trained


@pytest.mark.parametrize("make", (spelling_any, backwards_any, letter_of_word, counting_any), ids=lambda make: make.__name__)
def test_letters_are_those_of_the_word_asked_for(make, training, tests):
    for question, code, output, reply, graded in all_of(make, training, tests):
        word = word_of(code, reply)
        assert word in question.lower()
        if make is spelling_any:
            assert graded["letters"] == word and reply == "-".join(word)
        elif make is backwards_any:
            assert graded["letters"] == word[::-1] and reply == "-".join(reversed(word))
        elif match := re.fullmatch(r"The (\w+) letter of \w+ is (\w)\.", reply):
            place = -1 if match[1] == "last" else ORDINALS.index(match[1])
            assert word[place] == match[2] == graded["answer"]
            asked_as = {"first": "first|1|start|begin|initial|front", "last": "last|end|final|finish|back"}
            assert re.search(asked_as.get(match[1], f"{match[1]}|{place + 1}"), question.lower()), question
        elif match := re.fullmatch(r"The letter (\w) appears (\d+) times? in \w+\.", reply):
            assert str(word.count(match[1])) == match[2] == output and match[1] in question.lower()
        elif match := re.fullmatch(r"\w+ has (\d+) letters\.", reply):
            assert len(word) == int(match[1])
        elif match := re.fullmatch(r"\w+ has (\d+) (vowel|consonant)s?\.", reply):
            assert len(re.findall("[aeiou]" if match[2] == "vowel" else "[^aeiou]", word)) == int(match[1])
        elif match := re.fullmatch(r"The (?:only vowel|vowels) of \w+ (?:is|are) ([a-z-]+)\.", reply):
            assert re.findall("[aeiou]", word) == match[1].split("-")
        else:
            the_letter_is(question, word, reply, graded)


def the_letter_is(question, word, reply, graded):
    answer, letter = re.fullmatch(r"(Yes|No), (?:there is (?:an?|no)|\w+ (?:does not )?(?:start|end)s? with) (\w)(?: in \w+)?\.",
                                  reply).groups()
    where = word if "there is" in reply else word[0] if "start" in reply else word[-1]
    assert answer.lower() == graded["answer"] == ("yes" if letter in where else "no"), question
    asked = re.findall(r"\b(?!a )[a-z](?='?s?\b)", question.lower().replace("'s ", " ")) or ["a"]
    assert letter in asked or re.search(rf"\b{letter}'?s\b", question.lower()) or letter == "a", question


def test_the_alphabet_is_in_order(training, tests):
    for question, _, _, reply, _graded in all_of(alphabet, training, tests):
        if match := re.fullmatch(r"(After|Before) (\w) comes (\w)\.", reply):
            first, second = (match[2], match[3]) if match[1] == "After" else (match[3], match[2])
            assert first + second in ALPHABET and match[2] in question.lower()
        elif match := re.fullmatch(r"Between (\w) and (\w) comes (\w)\.", reply):
            assert match[1] + match[3] + match[2] in ALPHABET
        elif match := re.fullmatch(r"The (\w+) letter of the alphabet is (\w)\.", reply):
            assert ALPHABET[-1 if match[1] == "last" else ORDINALS.index(match[1])] == match[2]
        elif match := re.fullmatch(r"(\w) is a (vowel|consonant)\.", reply):
            assert (match[1] in "aeiou") == (match[2] == "vowel")
        else:
            assert reply.replace(", ", "") in (ALPHABET + ".", "aeiou.")


def test_words_for_a_letter_begin_with_it_and_the_longer_word_is_longer(training, tests):
    for question, _, _, reply, graded in all_of(words_by_letter, training, tests):
        if graded["kind"] == "begins":
            assert ":" not in reply or reply.startswith(f"{graded['n']} words with {graded['letter']}: 1. ")
            words = re.findall("[a-z]+", reply.lower().split(" starts")[0].split(":")[-1])
            assert len(words) == graded["n"] and {word[0] for word in words} == {graded["letter"]}
        else:
            right, kind, wrong = re.fullmatch(r"(\w+) is (longer|shorter) than (\w+)\.", reply).groups()
            assert len(right) > len(wrong) if kind == "longer" else len(right) < len(wrong)
            assert re.search("longer|more" if kind == "longer" else "shorter|fewer", question.lower())


def test_sums_are_read_as_english_reads_them(training, tests):
    signs = {"+": r"\+|plus|and|&|\bn\b|adn|add|total|sum|more|increase|top of|bigger|count",
             "-": r"-|minus|less|smaller|take|subtract|difference|decrease|plus|without|to get|deduct|remove|reduce|from|more"
                  r"|bigger|\+",
             "*": r"\*|x|×|times|multipl|product|groups|lots|square|\^|sets|rows|by|\(",
             "/": "/|÷|:|over|divid|share|split|into|in|quotient"}
    unknown = r"plus how much|\+ \?|missing from|smaller is|to \d+\?$|start from|\+ _|\+ x = "  # "3 + ? = 7"
    for question, code, _output, _reply, _graded in all_of(sums_any, training, tests):
        question = re.sub(r"\b(wat|waht|wht)\b", "what", question).replace("hw ", "how ").replace("biger", "bigger")
        question = re.sub(r"(10|20|ten|twenty)(%| percent) of|power of two|the one|one (after|before|bigger|question)|next one"
                          r"|one more\.", "", question, flags=re.IGNORECASE)
        asked = numbers(question)
        if match := re.fullmatch(r"(\d+)([+*/-])(\d+)", code):
            x, sign, y = int(match[1]), match[2], int(match[3])
            asked = numbers(re.sub(r"is (each|one)\W*$", "", question))
            if sorted(asked) != sorted([x, y]):  # "half of 10", "a third", "one more than 4", "3 squared"
                assert x in asked and (y in (1, 2, 3, 4, 5, 10, 100) or x == y), (question, code)
                continue
            backwards = (sign == "-" and re.search(r"from|\boff\b|(less|smaller) than|to get|plus what", question.lower())
                         and not re.match(r".*minus", question.lower()))
            backwards = backwards or sign == "-" and re.search(unknown, question.lower())
            backwards = backwards and not re.search("take from|one before", question.lower())
            backwards = backwards or (sign == "/" and re.search(r"go into|fit in|h(o?)w m(a?)ny times", question.lower()))
            assert asked == ([y, x] if backwards else [x, y]) or sign in "+*", (question, code)
            assert re.search(signs[sign], question, re.IGNORECASE), (question, code)
        assert set(asked) - {1, 2, 3, 4, 5, 10, 20, 25, 50, 100} <= set(numbers(code)), question


def test_two_sums_in_one_message_are_both_worked_out():
    found = 0
    for number in range(600):
        (_, answered), graded = sums_any(Random(f"two {number}"), World(), False, 2)
        parts = [part["text"] for part in answered["content"]]
        if len(parts) == 6:
            found += 1
            reply = parts[2] + parts[5]
            assert [run_tool(parts[0]), run_tool(parts[3])] == [parts[1], parts[4]]
            assert check(graded, reply, True) and not check(graded, reply, False)
            assert not check(graded, parts[2], True) and not check(graded, parts[5], True)
    assert found > 10


def test_comparisons_say_what_python_says(training, tests):
    for question, _code, _output, reply, graded in all_of(number_sense, training, tests):
        asked = numbers(NO_NUMBERS.sub("", question))
        if graded["kind"] == "number":
            steps = {after - before for before, after in zip(asked, asked[1:])}
            if match := re.fullmatch(r"The number (before|after) (\d+) is (\d+)\.", reply):
                assert asked == [int(match[2])] and int(match[3]) == asked[0] + (1 if match[1] == "after" else -1), question
            elif "missing number" in reply:
                shown = sorted([*asked, int(graded["answer"])], reverse=asked[0] > asked[-1])
                assert len({after - before for before, after in zip(shown, shown[1:])}) == 1, question
            else:
                assert len(steps) == 1 and reply == f"The next number is {asked[-1] + steps.pop()}.", question
        elif graded["kind"] == "picked":
            smaller = re.search("small|less|lower", question.lower())
            assert int(graded["answer"]) == (min(asked) if smaller else max(asked)), question
        elif graded["kind"] == "any":
            assert graded["signs"] == [["even", "odd"][asked[0] % 2]]
        elif "odd" in reply or "even" in reply:
            assert (graded["answer"] == "yes") == (asked[0] % 2 == ("odd" in question.lower())), question
        elif len(asked) == 3:
            asked = asked[1:] + asked[:1] if re.match(r"\D*is \d+ equal", digits(question).lower()) else asked
            assert (graded["answer"] == "yes") == (asked[0] + asked[1] == asked[2]), question
        else:
            smaller = re.search("small|less|lower|<", question.lower())
            assert (graded["answer"] == "yes") == (asked[0] < asked[1] if smaller else asked[0] > asked[1]), question


def test_counting_goes_on_as_it_begins(training, tests):
    for question, _, _, reply, _graded in all_of(counting_numbers, training, tests):
        row = numbers(re.sub("[a-z]+[.]$", "", reply))
        assert len({after - before for before, after in zip(row, row[1:])}) == 1 and 2 <= len(row) <= 20
        asked = numbers(question)
        assert {row[-1], row[-1] + 1, row[0], len(row)} & set(asked), question
        if "odd" in question:
            assert row[0] == 1 and row[1] == 3
        if re.search("down|back", question):
            assert row[0] > row[-1] and row[0] in asked


def test_word_problems_say_all_their_numbers(training, tests):
    assert len(PROBLEMS) >= 900 and 30 <= len(TEST_PROBLEMS) <= 80
    irrelevant = 0
    for question, code, output, reply, _graded in training[word_problem_wide] + tests[word_problem_wide] + tests[word_problem_new]:
        asked = numbers(re.sub(r"(?<!ty.)\b(one|One|ONE)\b", "", question))
        constants = {1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 24, 52, 60, 100}
        of_a_thing = {3, 4, 5, 6, 8} if re.search("legs|wheels|hand|hundred", question.lower()) else {3}
        untold = set(asked) - set(numbers(code)) - of_a_thing
        irrelevant += bool(untold)
        assert asked and len(untold) < 2 and set(numbers(code)) - set(asked) <= constants, (question, code)
        if ">" in code:
            assert output in ("True", "False") and re.search("more|fewer|older|younger|cheaper", reply), reply
            continue
        assert output.isdigit() and numbers(reply) == [int(output)], (question, reply)
        assert not re.search(r"\b1 (apples|children|dollars|years|hours|are|i)\b", reply), reply
        stated = re.sub(r"\b(does|did|can|will|do) (\w+|my \w+|the \w+)( still)? \w+", "", question)
        assert not re.search(r"\b(I|you|You) (has|does|is|gets)\b|\b([Ss]?[Hh]e) (have|do|get|lose|buy)\b|\bdoes I\b",
                             stated), question
        assert not re.search(r"\bYou has\b|\bI\b|\b(a|an) \w+ has\b|\bmy\b", reply), reply
    assert 0 < irrelevant < 40


def test_all_operations_and_persons_occur(training):
    codes = [re.sub(r"\d+", "x", code) for _, code, *_ in training[word_problem_wide]]
    assert {"x+x", "x-x", "x*x", "x/x", "x+x-x", "x-x+x", "x*x-x", "x*x+x", "x/x+x", "x*x+x*x"} <= set(codes)
    for who in ("I have", "She", "He", "my ", "A "):
        assert any(who in question for question, *_ in training[word_problem_wide])


def test_words_that_are_made_up_are_many_and_not_rude():
    made = [made_up_word(Random(number)) for number in range(5000)]
    assert len(set(made)) > 3000 and all(word.isalpha() for word in made)
    asked = [reply.split(":")[0] for _, _, _, reply, _ in drawn(spelling_any, False, 3000)]
    assert not [word for word in asked if re.search("fuc|shit|cunt|slut", word)]


@pytest.mark.parametrize("wording, texts", [
    ("a {b/c}", {"a b", "a c"}), ("{a {b/c}/d} e", {"a b e", "a c e", "d e"}), ("x{/ y}", {"x", "x y"}), ("i {x}", {"I {x}"}),
    ("{a {x}/{y} b} c", {"a {x} c", "{y} b c"}),
])
def test_a_wording_is_all_its_alternatives(wording, texts):
    assert {sentence(Random(number), wording) for number in range(60)} == texts


def test_a_finished_text_has_capitals_and_the_mark_that_fits():
    assert finished("tell me a word?") == "Tell me a word." and finished("can you count.") == "Can you count?"
    assert finished("one . two ?") == "One. Two?" and finished("what is  3?") == "What is 3?"
    assert finished("3 + 4 = ?") == "3 + 4 = ?"


def test_the_calculator_of_training_is_that_of_the_chat():
    for code in ("7/2", "6/2", "1/8", "12*3-4", "2+3*4", "5>3", "5%2==0", "3-5", "9-2*4"):
        assert calculate(code) == run_tool(code)
    assert [in_words(number) for number in (0, 19, 40, 42, 100)] == ["zero", "nineteen", "forty", "forty-two", "a hundred"]


@pytest.mark.parametrize("graded, right, wrong", [
    ({"kind": "alone", "answer": "b", "given": ["a"]},
     ["b", "B.", "It is b.", "ab: a-b. The last letter is b.", "After a comes b."],
     ["a", "bat", "b or c", "It is c, not b.", "a-b", "The letter c, then b."]),
    ({"kind": "alone", "answer": "i", "given": []}, ["i", "The letter is I."], ["I like it", "I do not know", "a-i"]),
    ({"kind": "picked", "answer": "21", "rivals": ["12"], "unlike": ["smaller"]},
     ["21", "21 is bigger than 12.", "12 is here. So 21."],
     ["12", "12 is bigger than 21.", "21 is smaller than 12.", "21 or 12", "12, 21", "21 is not bigger."]),
    ({"kind": "begins", "letter": "b", "n": 1}, ["Ball", "Ball starts with b.", "A word that starts with b is banana."],
     ["Apple", "bxq", "b", "ball apple", "ball and banana"]),
    ({"kind": "begins", "letter": "b", "n": 2}, ["ball, banana", "Ball and banana."],
     ["ball", "ball, ball", "ball, apple", "ball, banana, bear"]),
])
def test_new_checks_are_exact_about_the_answer(graded, right, wrong):
    assert [text for text in right if not check(graded, text)] == []
    assert [text for text in wrong if check(graded, text)] == []


def test_what_most_people_say_is_trained_most_and_tests_are_not_trained():
    rng = Random(1)
    said = Counter(usual(rng, range(70), test=False) for _ in range(20_000))
    assert 6 < said[0] / said[69] < 11 and said[0] > said[20] > said[60] and len(said) == 70
    wordings = [str(rank) for rank in range(70)]
    trained = {some_wording(rng, "any", wordings, test=False) for _ in range(2_000)}
    tested = {some_wording(rng, "any", wordings, test=True) for _ in range(2_000)}
    assert not trained & tested and trained | tested == set(wordings) and tested <= set(wordings[35:])
