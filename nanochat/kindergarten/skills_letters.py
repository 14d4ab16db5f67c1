"""
Letters of any word: spelling, the third letter, how many r, the alphabet; the wordings are in letters.txt.

skills_words.py has a closed list, which a model can learn by heart, word by word. Here the words are what
people try and, so that there is no end of them, strings of syllables that mean nothing: what is learned is to
copy any word into a call of the calculator. One everyday word in ten and one wording in six are for tests: an
unseen word is asked about in unseen words.
"""
from random import Random

from nanochat.kindergarten import tables
from nanochat.kindergarten.skill import Check, Made, Message, chat, is_test
from nanochat.kindergarten.skills_lists import numbered
from nanochat.kindergarten.skills_words import (
    CHAT_WORDS,
    NEW_WORDS,
    count_letter,
    count_letters,
    in_code,
    looked_up,
    spell,
    spell_backwards,
    spelled,
)
from nanochat.kindergarten.tables import EVERYDAY, WORDS
from nanochat.kindergarten.typist import typed
from nanochat.kindergarten.unlisted import is_rude, made_up_word
from nanochat.kindergarten.wording import finished, sentence, some_wording
from nanochat.kindergarten.world import World

ASKED = tables.read("letters.txt")["asked"]  # {what: wordings}
ABOUT_THE_ALPHABET = tables.read("letters.txt")["alphabet"]

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
VOWELS = "aeiou"
CONSONANTS = "bcdfghjklmnpqrstvwxz"  # y is either
ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth".split()
SHORT_ORDINALS = "1st 2nd 3rd 4th 5th 6th 7th 8th 9th 10th".split()
COUNTED = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven"}
AN = set("aefhilmnorsx")  # letters whose names begin with a vowel: "an r"


# ---- words
def _names_of_things() -> list[str]:
    """Names, cities and what people like, in small letters: whole words of the vocabulary, most of them."""
    lists = (tables.NAMES, tables.CITIES, tables.MEALS, tables.PASTIMES, tables.SHADES)
    names = []
    for words in lists:
        names += [word.lower() for word in words if word.isalpha()]
    return names


# The long ones are beside EVERYDAY, of which other skills draw, too.
ASKED_WORDS = EVERYDAY + " ".join(tables.read("letters.txt")["words"]["long"]).split()
TEST_WORDS = [word for word in ASKED_WORDS if is_test("everyday", word) and word not in WORDS]
TRAINED_WORDS = sorted({*ASKED_WORDS, *_names_of_things()} - {*TEST_WORDS, *WORDS})
# The closed list has tests of its own, of which word is asked for what: it is left to skills_words.py, but
# for what is not asked there.
KNOWN_WORDS = TRAINED_WORDS + CHAT_WORDS
NEVER_MADE_UP = {*TEST_WORDS, *WORDS}


def some_word(rng: Random, test: bool, longest: int = 12, pool: list[str] = TRAINED_WORDS) -> str:
    """A word to ask about: one kept for tests, or one of the pool or made up."""
    while True:
        if test:
            word = rng.choice(TEST_WORDS)
        elif rng.random() < 0.4:
            word = made_up_word(rng)
        else:
            word = rng.choice(pool)
        if 3 <= len(word) <= longest and (test or word in pool or _may_be_made_up(word)):
            return word


def _may_be_made_up(word: str) -> bool:
    return not is_rude(word) and word not in NEVER_MADE_UP


def longest_at(level: int) -> int:
    return 8 if level == 1 else 16


# ---- how words and letters are written in a question
def written(rng: Random, word: str) -> str:
    """The word as it may stand in a question: in quotes, with a capital."""
    chance = rng.random()
    if chance < 0.72:
        return word
    if chance < 0.9:
        quote = rng.choice("'\"")
        return f"{quote}{word}{quote}"
    return word.upper() if chance > 0.98 else word.capitalize()


def slots_for(rng: Random, word: str, letter: str = "a") -> dict[str, str]:
    """{w}, {x}, {xs} and {a_x} of a wording."""
    quoted = rng.choice((letter, letter, letter, letter.upper(), f"'{letter}'", f'"{letter}"'))
    plurals = [letter, f"{letter}'s", f"{letter}'s", f"letters {letter}", f"{letter.upper()}'s", quoted]
    if letter not in "ai":  # "as", "is"
        plurals.append(f"{letter}s")
    article = "an" if letter in AN else "a"
    return {"w": written(rng, word), "x": quoted, "xs": rng.choice(plurals), "a_x": f"{article} {quoted}"}


def ask(rng: Random, kind: str, wordings: list[str], test: bool, slots: dict[str, str]) -> str:
    """A question in one of the wordings of this side of the split."""
    wording = sentence(rng, some_wording(rng, kind, wordings, test))
    question = finished(wording.format(**slots))
    copied = [slots[slot].lower() for slot in ("w", "v") if f"{{{slot}}}" in wording]
    while True:
        text = typed(rng, question)
        if all(word in text.lower() for word in copied):  # none of the words asked about is misspelled
            return text


def _about_word(rng: Random, kind: str, test: bool, word: str, letter: str = "a", **more: str) -> str:
    return ask(rng, kind, ASKED[kind], test, {**slots_for(rng, word, letter), **more})


# ---- spelling
def spelling_any(rng: Random, world: World, test: bool, level: int) -> Made:
    word = some_word(rng, test, longest_at(level))
    check = {"kind": "spell", "letters": word, "before": []}
    return spell(_about_word(rng, "spell", test, word), word), check


def backwards_any(rng: Random, world: World, test: bool, level: int) -> Made:
    word = some_word(rng, test, longest=4 + level)
    check = {"kind": "spell", "letters": word[::-1], "before": [word]}
    return spell_backwards(_about_word(rng, "backwards", test, word), word), check


# ---- the letter at a place
def letter_of_word(rng: Random, world: World, test: bool, level: int) -> Made:
    """Which letter is first, third or last; is there a certain one?"""
    word = some_word(rng, test, longest_at(level), pool=KNOWN_WORDS)
    kinds = ("nth", "position", "start", "end", "contains", "starts with", "ends with")
    kind = rng.choices(kinds, (50, 5, 12, 10, 13, 6, 4))[0]
    if kind in ("contains", "starts with", "ends with"):
        return _is_there(rng, kind, test, word)
    if kind in ("start", "end"):
        place = 0 if kind == "start" else -1
    else:
        last = min(len(word), 6) - 1
        place = rng.choice((0, 0, -1, -1, 1, 2, rng.randint(0, last)))
    if kind == "position":
        place = max(place, 0)
    name = "last" if place == -1 else rng.choice((ORDINALS, ORDINALS, SHORT_ORDINALS))[place]
    question = _about_word(rng, kind, test, word, th=name, k=str(place + 1))
    letter = word[place]
    code = f"{in_code(question, word)}[{_number_of(place)}]"
    nth = "last" if place == -1 else ORDINALS[place]
    messages = looked_up(question, code, letter, f"The {nth} letter of {word} is {letter}.")
    return messages, {"kind": "alone", "answer": letter, "given": []}


def _number_of(place: int) -> int:
    """Where a letter stands in the calculator's string, which begins with a blank."""
    return -1 if place == -1 else place + 1


def _is_there(rng: Random, kind: str, test: bool, word: str) -> Made:
    place = 0 if kind == "starts with" else -1
    letter = rng.choice(word) if kind == "contains" else word[place]
    if rng.random() < 0.5:
        letter = rng.choice(ALPHABET)
    question = _about_word(rng, kind, test, word, letter)
    if kind == "contains":
        is_so = letter in word
        code = f"'{letter}' in {in_code(question, word)}"
        article = "an" if letter in AN else "a"
        reply = f"Yes, there is {article} {letter} in {word}."
        if not is_so:
            reply = f"No, there is no {letter} in {word}."
    else:
        is_so = word[place] == letter
        code = f"{in_code(question, word)}[{_number_of(place)}] == '{letter}'"
        verb = kind.split()[0]  # "starts"
        reply = f"Yes, {word} {verb} with {letter}."
        if not is_so:
            reply = f"No, {word} does not {verb.removesuffix('s')} with {letter}."
    check = {"kind": "yes_no", "answer": "yes" if is_so else "no"}
    return looked_up(question, code, str(is_so), reply), check


# ---- counting
def count_vowels(question: str, word: str) -> list[Message]:
    count = sum(letter in VOWELS for letter in word)
    code = f"sum(map({in_code(question, word)}.count, '{VOWELS}'))"
    vowels = "vowel" if count == 1 else "vowels"
    return looked_up(question, code, count, f"{word} has {count} {vowels}.")


def count_consonants(question: str, word: str) -> list[Message]:
    count = sum(letter in CONSONANTS for letter in word)
    code = f"sum(map({in_code(question, word)}.count, '{CONSONANTS}'))"
    consonants = "consonant" if count == 1 else "consonants"
    return looked_up(question, code, count, f"{word} has {count} {consonants}.")


def _vowels_of(question: str, word: str) -> Made:
    """The vowels themselves: "The vowels of banana are a-a-a." """
    vowels = spelled("".join(letter for letter in word if letter in VOWELS))
    code = f"'-'.join(filter('{VOWELS}'.count, {in_code(question, word)}))"
    if len(vowels) == 1:
        messages = looked_up(question, code, vowels, f"The only vowel of {word} is {vowels}.")
        return messages, {"kind": "alone", "answer": vowels, "given": []}
    messages = looked_up(question, code, vowels, f"The vowels of {word} are {vowels}.")
    return messages, {"kind": "spell", "letters": vowels.replace("-", ""), "before": []}


def counting_any(rng: Random, world: World, test: bool, level: int) -> Made:
    word = some_word(rng, test, longest_at(level))
    kinds = ("count", "length", "vowels", "which vowels", "consonants")
    kind = rng.choices(kinds, (54, 24, 12, 6, 4))[0]
    if "vowels" in kind or kind == "consonants":
        while "y" in word or not set(word) & set(VOWELS):  # y is a vowel in some words only
            word = some_word(rng, test, longest_at(level))
    letter = letter_to_count(rng, word)
    question = _about_word(rng, kind, test, word, letter)
    if kind == "which vowels":
        return _vowels_of(question, word)
    if kind == "count":
        messages = count_letter(question, word, letter)
    else:
        count_all = {"length": count_letters, "vowels": count_vowels, "consonants": count_consonants}[kind]
        messages = count_all(question, word)
    count = messages[-1]["content"][1]["text"]
    return messages, {"kind": "number", "answer": count, "given": [], "tool": False}


def letter_to_count(rng: Random, word: str) -> str:
    repeated = [letter for letter in word if word.count(letter) > 1]
    if repeated and rng.random() < 0.5:  # or nearly all answers would be 1
        return rng.choice(repeated)
    return rng.choice(word if rng.random() < 0.7 else ALPHABET)


# ---- words for a letter, and which of two is longer
def _words_by_letter() -> dict[str, list[str]]:
    """{letter: some words, the shortest lists being of "x" and "q"}"""
    found: dict[str, list[str]] = {letter: [] for letter in ALPHABET}
    for word in dict.fromkeys(CHAT_WORDS + EVERYDAY):
        if word not in NEW_WORDS and len(found[word[0]]) < 15:
            found[word[0]].append(word)
    return found


WORDS_BY_LETTER = _words_by_letter()


def words_by_letter(rng: Random, world: World, test: bool, level: int) -> Made:
    chance = rng.random()
    if chance < 0.35:
        return _longer(rng, test)
    letter = rng.choice(ALPHABET)
    words = WORDS_BY_LETTER[letter]
    slots = slots_for(rng, words[0], letter)
    if chance < 0.7 or len(words) < 5:
        word = rng.choice(words[:4])  # few: which of all words comes next cannot be learned
        check: Check = {"kind": "begins", "letter": letter, "n": 1}
        question = ask(rng, "begins", ASKED["begins"], test, slots)
        return chat(question, f"{word.capitalize()} starts with {letter}."), check
    n_words = min(rng.choice((2, 3, 3) if level == 1 else (2, 3, 3, 4, 5, 5, 6, 7)), len(words))
    slots["k"] = rng.choice((str(n_words), COUNTED[n_words]))
    answer = numbered(f"words with {letter}", words[:n_words])
    check = {"kind": "begins", "letter": letter, "n": n_words}
    return chat(ask(rng, "several", ASKED["several"], test, slots), answer), check


def _longer(rng: Random, test: bool) -> Made:
    while True:
        first = some_word(rng, test, longest=9, pool=KNOWN_WORDS)
        second = some_word(rng, test, longest=9, pool=KNOWN_WORDS)
        if len(first) != len(second):
            break
    kind = rng.choice(("longer", "longer", "shorter"))
    right, wrong = sorted((first, second), key=len, reverse=kind == "longer")
    question = _about_word(rng, kind, test, first, v=written(rng, second))
    sign = ">" if kind == "longer" else "<"
    code = f"len({in_code(question, first)}) {sign} len({in_code(question, second)})"
    messages = looked_up(question, code, str(right == first), f"{right} is {kind} than {wrong}.")
    return messages, {"kind": "picked", "answer": right, "rivals": [wrong], "unlike": []}


# ---- the alphabet
def alphabet(rng: Random, world: World, test: bool, level: int) -> Made:
    kinds = ("after", "before", "between", "nth", "vowel", "all", "all vowels")
    kind = rng.choices(kinds, (30, 25, 8, 12, 12, 8, 5))[0]
    index = rng.randrange(1, 25)
    letter = ALPHABET[index]
    slots = slots_for(rng, "", letter)
    check: Check = {"kind": "alone", "given": [letter]}
    if kind == "after":
        check["answer"] = ALPHABET[index + 1]
        answer = f"After {letter} comes {check['answer']}."
    elif kind == "before":
        check["answer"] = ALPHABET[index - 1]
        answer = f"Before {letter} comes {check['answer']}."
    elif kind == "between":
        after = ALPHABET[index + 1]
        slots.update(x=ALPHABET[index - 1], v=after)
        check.update(answer=letter, given=[ALPHABET[index - 1], after])
        answer = f"Between {ALPHABET[index - 1]} and {after} comes {letter}."
    elif kind == "nth":
        return _nth_of_the_alphabet(rng, test)
    elif kind == "vowel":
        is_vowel = rng.random() < 0.5
        letter = rng.choice(VOWELS if is_vowel else CONSONANTS)
        slots = slots_for(rng, "", letter)
        signs = ["vowel", "consonant"] if is_vowel else ["consonant", "vowel"]
        check = {"kind": "any", "signs": signs[:1], "rivals": signs[1:]}
        answer = f"{letter} is a {signs[0]}."
    else:
        letters = ALPHABET if kind == "all" else VOWELS
        check = {"kind": "copy", "text": " ".join(letters)}
        answer = ", ".join(letters) + "."
    question = ask(rng, f"alphabet {kind}", ABOUT_THE_ALPHABET[kind], test, slots)
    return chat(question, answer), check


def _nth_of_the_alphabet(rng: Random, test: bool) -> Made:
    place = rng.choice((0, -1, rng.randrange(10)))
    name = "last" if place == -1 else ORDINALS[place]
    asked = "last" if place == -1 else rng.choice((ORDINALS, SHORT_ORDINALS))[place]
    answer = f"The {name} letter of the alphabet is {ALPHABET[place]}."
    check = {"kind": "alone", "answer": ALPHABET[place], "given": []}
    return chat(ask(rng, "alphabet nth", ABOUT_THE_ALPHABET["nth"], test, {"th": asked}), answer), check
