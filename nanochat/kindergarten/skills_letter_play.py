"""
Words taken apart and held against each other: without a letter, spelled and counted, which comes first.

Each kind is a question of the table [play] of letters.txt, a call of the calculator, and a sentence. Where
two things are asked, there are two calls, each with the sentence that it has when it is asked alone. Words
are those of skills_letters.py: one in ten is for tests.
"""
from collections.abc import Callable
from random import Random

from nanochat.kindergarten import tables
from nanochat.kindergarten.skill import Check, Made, Message, fact_check, is_test
from nanochat.kindergarten.skills_letters import (
    ALPHABET,
    TEST_WORDS,
    ask,
    letter_to_count,
    longest_at,
    slots_for,
    some_word,
    written,
)
from nanochat.kindergarten.skills_words import (
    count_letter,
    count_letters,
    in_code,
    looked_up,
    spell,
    spelled,
)
from nanochat.kindergarten.unlisted import is_rude, made_up_word
from nanochat.kindergarten.world import World

PLAY = tables.read("letters.txt")["play"]  # {kind: wordings}
NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four"}
PALINDROMES = ("level noon mom mum dad radar kayak civic madam refer rotor eye pop wow racecar stats solos "
               "deed peep toot sees bob anna hannah otto").split()


class Draw:
    """One example's chances: words of its side of the split, and a question about them."""

    def __init__(self, rng: Random, test: bool, level: int):
        self.rng = rng
        self.test = test
        self.longest = longest_at(level)

    def word(self, fits: Callable[[str], bool] = lambda word: True) -> str:
        """A word to ask about, for which this is so."""
        while True:
            word = some_word(self.rng, self.test, self.longest)
            if fits(word):
                return word

    def two(self, fits: Callable[[str, str], bool] = lambda one, other: True) -> tuple[str, str]:
        """Two different words, for which this is so."""
        while True:
            first = self.word()
            second = self.word()
            if first != second and fits(first, second):
                return first, second

    def two_often_alike(self, place: int) -> tuple[str, str]:
        """Two words, half of which have the same letter at this place."""
        if self.rng.random() < 0.5:
            return self.two()
        return self.two(lambda one, other: one[place] == other[place])

    def ask(self, kind: str, word: str, letter: str = "a", **more: str) -> str:
        slots = {**slots_for(self.rng, word, letter), "xp": f"{letter}'s", **more}
        return ask(self.rng, f"play {kind}", PLAY[kind], self.test, slots)

    def other(self, word: str) -> str:
        return written(self.rng, word)


def _both(first: list[Message], second: list[Message]) -> list[Message]:
    """The second one's answer after the first one's, to the question of the first."""
    question, answer = first
    call, output, reply = second[1]["content"]
    more = [call, output, {"type": "text", "text": f" {reply['text']}"}]
    return [question, {**answer, "content": [*answer["content"], *more]}]


# ---- two things asked at once
def _spell_and_count(draw: Draw) -> Made:
    word = draw.word()
    question = draw.ask("spell and count", word)
    messages = _both(spell(question, word), count_letters(question, word))
    return messages, fact_check(spelled(word), [str(len(word))])


def _two_words(draw: Draw) -> Made:
    first, second = draw.two()
    question = draw.ask("two words", first, v=draw.other(second))
    return _both(spell(question, first), spell(question, second)), fact_check(spelled(first), spelled(second))


def _two_lengths(draw: Draw) -> Made:
    first, second = draw.two()
    question = draw.ask("two lengths", first, v=draw.other(second))
    messages = _both(count_letters(question, first), count_letters(question, second))
    return messages, fact_check(f"{first} has {len(first)}", f"{second} has {len(second)}")


def _two_counts(draw: Draw) -> Made:
    first, second = draw.two()
    letter = letter_to_count(draw.rng, draw.rng.choice((first, second)))
    question = draw.ask("two counts", first, letter, v=draw.other(second))
    messages = _both(count_letter(question, first, letter), count_letter(question, second, letter))
    return messages, fact_check([str(first.count(letter))], [str(second.count(letter))])


def _two_letters(draw: Draw) -> Made:
    word = draw.word()
    letter = letter_to_count(draw.rng, word)
    other = draw.rng.choice([some for some in 3 * word + ALPHABET if some != letter])
    question = draw.ask("two letters", word, letter, xs=f"{letter}'s", ys=f"{other}'s")
    messages = _both(count_letter(question, word, letter), count_letter(question, word, other))
    return messages, fact_check([str(word.count(letter))], [str(word.count(other))])


# ---- yes or no
def _yes_or_no(question: str, code: str, is_so: bool, if_so: str, if_not: str) -> Made:
    reply = f"Yes, {if_so}." if is_so else f"No, {if_not}."
    check = {"kind": "yes_no", "answer": "yes" if is_so else "no"}
    return looked_up(question, code, str(is_so), reply), check


def _exactly(draw: Draw) -> Made:
    word = draw.word()
    letter = letter_to_count(draw.rng, word)
    count = word.count(letter)
    if count == 0 or draw.rng.random() < 0.5:
        count = draw.rng.choice((1, 2, 2, 3))
    plural = letter if count == 1 else f"{letter}'s"
    asked = NUMBERS[count] if draw.rng.random() < 0.7 else str(count)
    question = draw.ask("exactly", word, letter, k=asked, xp=plural)
    code = f"{in_code(question, word)}.count('{letter}') == {count}"
    so = f"{word} has {asked} {plural}"
    return _yes_or_no(question, code, word.count(letter) == count, so, so.replace(" has ", " does not have "))


def _double(draw: Draw) -> Made:
    doubled = draw.rng.random() < 0.5
    word = draw.word(lambda word: not doubled or any(2 * letter in word for letter in ALPHABET))
    letter = draw.rng.choice(word)
    if doubled:
        letter = next(letter for letter in word if 2 * letter in word)
    question = draw.ask("double", word, letter, x=letter)
    code = f"'{2 * letter}' in {in_code(question, word)}"
    twice = f"double {letter}"
    return _yes_or_no(question, code, 2 * letter in word, f"{word} has a {twice}", f"{word} has no {twice}")


def _same_start(draw: Draw) -> Made:
    first, second = draw.two_often_alike(0)
    question = draw.ask("same start", first, v=draw.other(second))
    code = f"{in_code(question, first)}[1] == {in_code(question, second)}[1]"
    pair = f"{first} and {second}"
    return _yes_or_no(question, code, first[0] == second[0], f"{pair} start with the same letter",
                      f"{pair} do not start with the same letter")


def _same_end(draw: Draw) -> Made:
    first, second = draw.two_often_alike(-1)
    question = draw.ask("same end", first, v=draw.other(second))
    code = f"{in_code(question, first)}[-1] == {in_code(question, second)}[-1]"
    pair = f"{first} and {second}"
    return _yes_or_no(question, code, first[-1] == second[-1], f"{pair} end with the same letter",
                      f"{pair} do not end with the same letter")


def _same_length(draw: Draw) -> Made:
    alike = draw.rng.random() < 0.5

    def fits(one: str, other: str) -> bool:
        return not alike or len(one) == len(other)

    first, second = draw.two(fits)
    question = draw.ask("same length", first, v=draw.other(second))
    code = f"len({in_code(question, first)}) == len({in_code(question, second)})"
    pair = f"{first} and {second}"
    return _yes_or_no(question, code, len(first) == len(second), f"{pair} have the same number of letters",
                      f"{pair} do not have the same number of letters")


def _palindrome(draw: Draw) -> Made:
    word = draw.word()
    if draw.rng.random() < 0.5:
        word = draw.rng.choice([some for some in PALINDROMES if is_test("palindrome", some) == draw.test])
    question = draw.ask("palindrome", word)
    copied = in_code(question, word)
    is_so = word == word[::-1]
    return _yes_or_no(question, f"{copied}[1:] == {copied}[:0:-1]", is_so,
                      f"{word} is the same backwards", f"{word} is not the same backwards")


# ---- a part of the word
def _without(draw: Draw, place: str, part: slice, code: str) -> Made:
    word = draw.word(lambda word: len(word) > 3)
    question = draw.ask(f"without {place}", word)
    rest = word[part]
    reply = f"{word} without the {place} letter is {rest}."
    return looked_up(question, f"{in_code(question, word)}{code}", rest, reply), fact_check(rest)


def _without_first(draw: Draw) -> Made:
    return _without(draw, "first", slice(1, None), "[2:]")


def _without_last(draw: Draw) -> Made:
    return _without(draw, "last", slice(None, -1), "[1:-1]")


def _without_letter(draw: Draw) -> Made:
    word = draw.word(lambda word: len({*word}) > 3)
    letter = draw.rng.choice(word)
    question = draw.ask("without letter", word, letter, x=letter)
    rest = word.replace(letter, "")
    code = f"{in_code(question, word)}[1:].replace('{letter}', '')"
    return looked_up(question, code, rest, f"{word} without the letter {letter} is {rest}."), fact_check(rest)


def _capital(draw: Draw) -> Made:
    word = draw.word()
    question = draw.ask("capital", word, w=word)
    capital = word.capitalize()
    reply = looked_up(question, f"{in_code(question, word)}[1:].capitalize()", capital, f"{capital}.")
    return reply, {"kind": "copy", "text": capital}


def _few(draw: Draw, end: str) -> Made:
    word = draw.word(lambda word: len(word) > 4)
    n_letters = draw.rng.choice((2, 2, 3, 3, 4))
    asked = draw.rng.choice((NUMBERS[n_letters], str(n_letters)))
    question = draw.ask(f"{end} few", word, k=asked)
    part = word[:n_letters] if end == "first" else word[-n_letters:]
    at = f"[1:{n_letters + 1}]" if end == "first" else f"[-{n_letters}:]"
    reply = f"The {end} {asked} letters of {word} are {spelled(part)}."
    messages = looked_up(question, f"'-'.join({in_code(question, word)}{at})", spelled(part), reply)
    return messages, {"kind": "spell", "letters": part, "before": []}


def _first_few(draw: Draw) -> Made:
    return _few(draw, "first")


def _last_few(draw: Draw) -> Made:
    return _few(draw, "last")


# ---- one letter, or where it stands
def _letter(question: str, code: str, letter: str, reply: str) -> Made:
    return looked_up(question, code, letter, reply), {"kind": "alone", "answer": letter, "given": []}


def _middle(draw: Draw) -> Made:
    word = draw.word(lambda word: len(word) % 2 == 1)
    question = draw.ask("middle", word)
    letter = word[len(word) // 2]
    copied = in_code(question, word)
    return _letter(question, f"{copied}[len({copied}) // 2]", letter,
                   f"The middle letter of {word} is {letter}.")


def _before_last(draw: Draw) -> Made:
    word = draw.word()
    question = draw.ask("before last", word)
    return _letter(question, f"{in_code(question, word)}[-2]", word[-2],
                   f"The second to last letter of {word} is {word[-2]}.")


def _both_ends(draw: Draw) -> Made:
    word = draw.word()
    question = draw.ask("both ends", word)
    copied = in_code(question, word)
    first = looked_up(question, f"{copied}[1]", word[0], f"The first letter of {word} is {word[0]}.")
    last = looked_up(question, f"{copied}[-1]", word[-1], f"The last letter of {word} is {word[-1]}.")
    return _both(first, last), fact_check(f"is {word[0]}", f"is {word[-1]}")


def _place(draw: Draw) -> Made:
    word = draw.word()
    letter = draw.rng.choice([letter for letter in word if word.count(letter) == 1] or word[0])
    question = draw.ask("place", word, letter, x=letter)
    place = word.index(letter) + 1
    messages = looked_up(question, f"{in_code(question, word)}.find('{letter}')", place,
                         f"{letter} is letter number {place} of {word}.")
    return messages, {"kind": "number", "answer": str(place), "given": [], "tool": False}


# ---- two words
def _common(draw: Draw) -> Made:
    first, second = draw.two(lambda one, other: not {*one}.isdisjoint(other))
    question = draw.ask("common", first, v=draw.other(second))
    both = spelled("".join(sorted({*first} & {*second})))
    filtered = f"filter({in_code(question, second)}.count, '{ALPHABET}')"
    code = f"'-'.join(filter({in_code(question, first)}.count, {filtered}))"
    reply = f"{first} and {second} both have {both}."
    check: Check = {"kind": "alone", "answer": both, "given": []}
    if len(both) > 1:
        check = {"kind": "spell", "letters": both.replace("-", ""), "before": []}
    return looked_up(question, code, both, reply), check


def _earlier(draw: Draw) -> Made:
    first, second = draw.two()
    question = draw.ask("earlier", first, v=draw.other(second))
    right, wrong = sorted((first, second))
    code = f"{in_code(question, first)} < {in_code(question, second)}"
    messages = looked_up(question, code, str(right == first), f"{right} comes before {wrong}.")
    return messages, {"kind": "picked", "answer": right, "rivals": [wrong], "unlike": []}


# ---- names that somebody tells
def _some_name(draw: Draw) -> str:
    """A name that is listed or made up; the listed ones are trained, and a tenth of the others is for
    tests."""
    while True:
        is_listed = not draw.test and draw.rng.random() < 0.5
        name = draw.rng.choice(tables.NAMES).lower() if is_listed else made_up_word(draw.rng)
        if is_rude(name):
            continue
        if 3 <= len(name) <= 10 and name not in TEST_WORDS and name not in tables.WORDS:
            if name.capitalize() in tables.NAMES or is_test("name spelled", name) == draw.test:
                return name


def _my_name(draw: Draw) -> Made:
    name = _some_name(draw)
    question = draw.ask("my name", name, w=name.capitalize())
    return spell(question, name), {"kind": "spell", "letters": name, "before": []}


def _name_letters(draw: Draw) -> Made:
    name = _some_name(draw)
    question = draw.ask("name letters", name, w=name.capitalize())
    check: Check = {"kind": "number", "answer": str(len(name)), "given": [], "tool": False}
    return count_letters(question, name), check


KINDS = {
    _my_name: 12, _name_letters: 4, _spell_and_count: 9, _two_words: 5, _two_lengths: 4, _two_counts: 7,
    _two_letters: 5, _exactly: 9, _double: 5, _without_first: 8, _without_last: 8, _without_letter: 4,
    _capital: 5, _first_few: 5, _last_few: 4, _middle: 5, _before_last: 3, _both_ends: 4, _place: 4,
    _same_start: 7, _same_end: 3, _same_length: 4, _common: 3, _earlier: 5, _palindrome: 4,
}


def letter_play(rng: Random, world: World, test: bool, level: int) -> Made:
    kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
    return kind(Draw(rng, test, level))
