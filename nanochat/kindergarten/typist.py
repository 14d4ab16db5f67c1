"""
The noise of people who type: greetings before a question, "pls" behind it, small letters, slips of the
fingers.

Strangers write as nobody listed it, and a model of this size has met nothing but what it was trained on. So
the variations are not listed but composed: an opener, a contraction, a chat spelling, a closer and the case
are drawn apart from each other, which makes thousands of ways from a few dozen pieces (typing.txt). A word
that an answer has to copy is never misspelled, and a text that begins with a name keeps its capital.
"""
import re
from random import Random

from nanochat.kindergarten import tables

PIECES = tables.read("typing.txt")
PLAIN = PIECES["openers"]["plain"]
QUESTION = PIECES["openers"]["question"]
SENTENCE = PIECES["openers"]["sentence"]
CLOSERS = PIECES["closers"]["any"]
SHORTER = PIECES["shorter"]
SPELLINGS = PIECES["words"]
OTHER_SPELLINGS = {other.lower() for others in SPELLINGS.values() for other in others} - set(SPELLINGS)

AS_IT_IS = 0.4  # part of the texts that are typed as by a teacher
SPELLED = 0.12  # part of the others' words that have another spelling and get it


def typed(rng: Random, text: str, lower: bool = True) -> str:
    """The text as somebody may type it.

    `lower` allows all letters to be small; without it names and words that have to be copied stay as they
    are, and nothing comes behind them.
    """
    if rng.random() < AS_IT_IS:
        return text
    text = _shortened(rng, text)
    if lower:
        text = _misspelled(rng, text)
    if rng.random() < 0.35:
        text = _opened(rng, text)
    elif rng.random() < 0.4:
        text = _uncapped(text)
    if not lower:
        return text
    chance = rng.random()
    if chance < 0.15:
        text = _closed(rng, text)
    elif chance < 0.4:
        text = text.rstrip("?. ")
    chance = rng.random()
    if chance < 0.25:
        return text.lower()
    if chance < 0.27:
        return text.upper()
    return text


def is_plain(text: str) -> bool:
    """Whether a text looks as nobody in a hurry typed it: no other spelling, and no opener before it."""
    if not text[:1].isupper() or text.isupper() or text[-1:] not in ("?", ".", "!"):
        return False
    lowered = text.lower()
    opened = any(lowered.startswith(f"{opener.lower()} ") for opener in (*PLAIN, *QUESTION, *SENTENCE))
    return not opened and OTHER_SPELLINGS.isdisjoint(re.findall(r"[a-z'’]+", lowered))


def _uncapped(text: str) -> str:
    """With a small first letter, unless it is the word "I" or a letter by itself."""
    if re.match(r"\w\b", text):
        return text
    return text[0].lower() + text[1:]


def _shortened(rng: Random, text: str) -> str:
    for full, contractions in SHORTER.items():
        if text.startswith(full + " ") and rng.random() < 0.4:
            return rng.choice(contractions) + text.removeprefix(full)
    return text


def _misspelled(rng: Random, text: str) -> str:
    """Every word of the table may get another spelling, but not behind a colon or in quotes."""
    if rng.random() < 0.6:
        return text
    frame, colon, rest = text.partition(":")

    def spelling(match: re.Match[str]) -> str:
        word = match[0]
        others = SPELLINGS.get(word.lower())
        if others is None or rng.random() > SPELLED * 3:
            return word
        other = rng.choice(others)
        return other.capitalize() if word[0].isupper() and rng.random() < 0.5 else other

    return re.sub(r"(?<!['\"])\b[A-Za-z]+\b(?!['\"])", spelling, frame) + colon + rest


def _opened(rng: Random, text: str) -> str:
    chance = rng.random()
    if chance < 0.5:
        return f"{rng.choice(PLAIN)} {_uncapped(text)}"
    if chance < 0.75 and text.endswith("?"):
        opener = rng.choice(QUESTION)
        return f"{opener} {text if opener[-1] in ':?' else _uncapped(text)}"
    return f"{rng.choice(SENTENCE)} {text}"


def _closed(rng: Random, text: str) -> str:
    closer = rng.choice(CLOSERS)
    bare = text.rstrip("?.! ")
    gap = "" if closer[0] in ",!?." else " "
    return bare + gap + closer
