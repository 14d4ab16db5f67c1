"""
Letters and words: spelling, counting letters, copying, reversing.

A model sees tokens, not letters: "cheese" may be one token or three, and nothing in its number tells of the
three e's. So the calculator looks at the letters, and what has to be learned is to copy the word into a call:
`' cheese'.count('e')`. The blank before the word makes its tokens those of the question, and numbers the
letters from one. One word in ten of the closed list is spelled in documents only.
"""
import re
from random import Random

from nanochat.kindergarten.phrases import WORDINGS
from nanochat.kindergarten.skill import Made, Message, chat, draw, is_test
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


# ---- asking the calculator
def spelled(word: str) -> str:
    """ "cat" -> "c-a-t" """
    return "-".join(word)


def in_code(question: str, word: str) -> str:
    """The word as the calculator's string, copied as the question has it: "How is Cat spelled?" ->
    "' Cat'.lower()"."""
    found = re.search(rf"\b{word}\b", question, re.IGNORECASE)
    copied = found.group() if found else word
    return f"' {copied}'" if copied.islower() else f"' {copied}'.lower()"


def looked_up(question: str, code: str, output: str | int, reply: str = "") -> list[Message]:
    """A question, and an answer that calls the calculator first; without a `reply` the result is what is
    said."""
    answer = [{"type": "python", "text": code}, {"type": "python_output", "text": str(output)}]
    if reply:
        answer.append({"type": "text", "text": reply})
    return chat(question, answer)


def said_times(question: str, text: str, number: int) -> Made:
    """The text so many times, by the calculator: who says a word again and again forgets how often."""
    output = f" {text}" * number
    check = {"kind": "copy", "text": output.strip()}
    return looked_up(question, f"' {text}'*{number}", output), check


def compared(question: str, asked: str, known: str, fact: str) -> Made:
    """Yes or no: the calculator holds what is asked against what is so. "Does Leo live in Oakton?" ->
    "' Oakton'==' Fernhill'", False, "No. Leo lives in Fernhill."

    To notice that two words are not the same is learned late by a small model, and in some runs never; to
    copy both is learned early.
    """
    asked = asked.replace("'", "")  # which would end the calculator's string
    known = known.replace("'", "")
    is_so = asked == known
    word = "Yes" if is_so else "No"
    code = f"' {asked}'==' {known}'"
    said = f"{word}. {fact[0].upper()}{fact[1:]}"
    return looked_up(question, code, is_so, said), {"kind": "yes_no", "answer": word.lower()}


def spell(question: str, word: str) -> list[Message]:
    code = f"'-'.join({in_code(question, word)}[1:])"
    return looked_up(question, code, spelled(word))


def spell_backwards(question: str, word: str) -> list[Message]:
    code = f"'-'.join({in_code(question, word)}[:0:-1])"
    return looked_up(question, code, spelled(word[::-1]))


def count_letter(question: str, word: str, letter: str) -> list[Message]:
    count = word.count(letter)
    code = f"{in_code(question, word)}.count('{letter}')"
    times = "time" if count == 1 else "times"
    return looked_up(question, code, count, f"The letter {letter} appears {count} {times} in {word}.")


def count_letters(question: str, word: str) -> list[Message]:
    code = f"len({in_code(question, word)}[1:])"
    return looked_up(question, code, len(word), f"{word} has {len(word)} letters.")


# ---- skills
def _spell(rng: Random, word: str, wording: str) -> Made:
    check = {"kind": "spell", "letters": word, "before": []}
    return spell(typed(rng, wording.format(w=word)), word), check


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
        messages, count = _letters_of_a_word(rng, test)
    else:
        messages, count = _one_letter_of_a_word(rng, test)
    return messages, {"kind": "number", "answer": str(count), "given": [], "tool": False}


def _letters_of_a_word(rng: Random, test: bool) -> tuple[list[Message], int]:
    def make() -> tuple[str, str]:
        word = rng.choice(CHAT_WORDS)
        wording = rng.choice(ASKED["length"])
        return word, wording

    word, wording = draw(make, lambda made: ("length", *made), test, percent=15)
    return count_letters(typed(rng, wording.format(w=word)), word), len(word)


def _one_letter_of_a_word(rng: Random, test: bool) -> tuple[list[Message], int]:
    def make() -> tuple[str, str]:
        word = rng.choice(CHAT_WORDS)
        repeated = [letter for letter in word if word.count(letter) > 1]
        if repeated and rng.random() < 0.5:  # or nearly all answers would be 1
            return word, rng.choice(repeated)
        if rng.random() < 0.8:
            return word, rng.choice(word)
        return word, rng.choice(ASKED_LETTERS)

    word, letter = draw(make, lambda made: ("counting", *made), test, percent=15)
    question = typed(rng, rng.choice(ASKED["count"]).format(w=word, x=letter))
    return count_letter(question, word, letter), word.count(letter)


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
        return said_times(typed(rng, f"Say {text} {n_times} times.", lower=False), text, n_times)
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
    check = {"kind": "spell", "letters": word[::-1], "before": [word]}
    question = typed(rng, rng.choice(ASKED["backwards"]).format(w=word))
    return spell_backwards(question, word), check
