"""
Letters and words: spelling, counting letters after spelling them out, copying, reversing.

A model sees tokens, not letters: "cheese" may be one token or three, and nothing in its number tells of the
three e's. So spelling has to be learned word by word, and counting goes by way of spelling
("c-h-e1-e2-s-e3"), which turns one impossible step into many easy ones. Hyphens stand between letters so that
"-a" is one token whatever the word. One word in ten of the closed list is spelled in documents only.
"""
from random import Random

from nanochat.kindergarten.phrases import WORDINGS
from nanochat.kindergarten.skill import Made, chat, draw, is_test
from nanochat.kindergarten.tables import COLOURS, NAMES, WORDS
from nanochat.kindergarten.typist import typed
from nanochat.kindergarten.unlisted import some_thing
from nanochat.kindergarten.world import World

NEW_WORDS = [word for word in WORDS if is_test("word", word)]  # no conversation spells these
CHAT_WORDS = [word for word in WORDS if not is_test("word", word)]
DIGITS = [str(number) for number in range(1, 10)]
NUMBERS = [str(number) for number in range(1, 100)]
ASKED_LETTERS = "abcdefghiklmnoprstuwy"
ASKED = WORDINGS["letters"]  # {what: questions}


# ---- what is said; documents say it, too
def spelled(word: str) -> str:
    """ "cat" -> "c-a-t" """
    return "-".join(word)


def counted(word: str, letter: str | None = None) -> str:
    """ "cheese", "e" -> "c-h-e1-e2-s-e3"; counts every letter if None."""
    said = []
    count = 0
    for character in word:
        if letter is None or character == letter:
            count += 1
            said.append(f"{character}{count}")
        else:
            said.append(character)
    return "-".join(said)


def told_count(word: str, letter: str) -> str:
    count = word.count(letter)
    times = "time" if count == 1 else "times"
    return f"{word}: {counted(word, letter)}. The letter {letter} appears {count} {times}."


def told_length(word: str) -> str:
    return f"{word}: {counted(word)}. That is {len(word)} letters."


# ---- skills
def _spell(rng: Random, word: str, wording: str) -> Made:
    check = {"kind": "spell", "letters": word, "before": []}
    return chat(typed(rng, wording.format(w=word)), f"{word}: {spelled(word)}."), check


def spelling(rng: Random, world: World, test: bool, level: int) -> Made:
    def make() -> tuple[str, str]:
        word = rng.choice(CHAT_WORDS)
        wording = rng.choice(ASKED["spell"])
        return word, wording

    word, wording = draw(make, lambda made: ("spelling", *made), test)
    return _spell(rng, word, wording)


def spelling_new_words(rng: Random, world: World, test: bool, level: int) -> Made:
    word = rng.choice(NEW_WORDS)
    wording = rng.choice(ASKED["spell"])
    return _spell(rng, word, wording)


def counting(rng: Random, world: World, test: bool, level: int) -> Made:
    if rng.random() < 0.15:
        question, answer, count = _letters_of_a_word(rng, test)
    else:
        question, answer, count = _one_letter_of_a_word(rng, test)
    on_the_way = NUMBERS[:max(0, count - 1)]  # 1, 2, ... are said while counting
    check = {"kind": "number", "answer": str(count), "given": on_the_way, "tool": False}
    return chat(typed(rng, question), answer), check


def _letters_of_a_word(rng: Random, test: bool) -> tuple[str, str, int]:
    """(question, answer, number)"""
    def make() -> tuple[str, str]:
        word = rng.choice(CHAT_WORDS)
        wording = rng.choice(ASKED["length"])
        return word, wording

    word, wording = draw(make, lambda made: ("length", *made), test, percent=15)
    return wording.format(w=word), told_length(word), len(word)


def _one_letter_of_a_word(rng: Random, test: bool) -> tuple[str, str, int]:
    """(question, answer, number)"""
    def make() -> tuple[str, str]:
        word = rng.choice(CHAT_WORDS)
        repeated = [letter for letter in word if word.count(letter) > 1]
        if repeated and rng.random() < 0.5:  # or nearly all answers would be 1
            return word, rng.choice(repeated)
        if rng.random() < 0.8:
            return word, rng.choice(word)
        return word, rng.choice(ASKED_LETTERS)

    word, letter = draw(make, lambda made: ("counting", *made), test, percent=15)
    question = rng.choice(ASKED["count"]).format(w=word, x=letter)
    return question, told_count(word, letter), word.count(letter)


def copying(rng: Random, world: World, test: bool, level: int) -> Made:
    def make() -> tuple[str, bool]:
        pool = rng.choice((WORDS, WORDS, NAMES, NUMBERS))
        length = rng.randint(1, 2 + level)
        text = " ".join(some_thing(rng, pool) for _ in range(length))
        several_times = rng.random() < 0.2 and length == 1
        return text, several_times

    text, several_times = draw(make, lambda made: ("copying", made[0].lower()), test)
    if several_times:
        n_times = rng.randint(2, 4)
        question = f"Say {text} {n_times} times."
        text = " ".join([text] * n_times)
    else:
        question = rng.choice(ASKED["copy"]).format(t=text)
    return chat(typed(rng, question, lower=False), text), {"kind": "copy", "text": text}


def reversing(rng: Random, world: World, test: bool, level: int) -> Made:
    if rng.random() < 0.4:
        return _letters_backwards(rng, test, longest=3 + level)
    pool = rng.choice((CHAT_WORDS, COLOURS, DIGITS))

    def make() -> list[str]:
        return rng.sample(pool, rng.randint(2, 2 + level))

    items = draw(make, lambda made: ("reversing", *made), test)
    question = rng.choice(ASKED["reverse"]).format(t=" ".join(items))
    answer = " ".join(reversed(items))
    return chat(typed(rng, question), answer), {"kind": "copy", "text": answer}


def _letters_backwards(rng: Random, test: bool, longest: int) -> Made:
    short_words = [word for word in CHAT_WORDS if len(word) <= longest]
    word = draw(lambda: rng.choice(short_words), lambda made: ("backwards", made), test, percent=12)
    backwards = word[::-1]
    answer = f"{word}: {spelled(word)}. Backwards: {spelled(backwards)}."
    check = {"kind": "spell", "letters": backwards, "before": [word]}
    question = rng.choice(ASKED["backwards"]).format(w=word)
    return chat(typed(rng, question), answer), check
