"""
The graders: does a reply say the right thing? Exact about the answer, lenient about how it is said.

They are the reward of reinforcement learning, too, and a model finds whatever is paid. So case and
punctuation are forgiven; hedges ("Tom or Ben"), all values in one reply, sums without the calculator and
letters that were only parroted are not.
"""
import functools
import re
from collections.abc import Iterable

from nanochat.kindergarten.skill import Check
from nanochat.kindergarten.tables import EVERYDAY, STARTERS, WORDS

COUNTED = "zero one two three four five six seven eight nine ten eleven twelve".split()
NUMBER_WORDS = {word: str(number) for number, word in enumerate(COUNTED)} | {"once": "1", "twice": "2"}
DONT_KNOW = re.compile(r"\b(don'?t|do not|not|never) (really )?(know|sure|heard|met)\b|\bno idea\b")
STATED = re.compile(r"\b(lives? in|comes? from|works? as|favourite \w+ is|friend is|hobby is|job is|"
                    r"is called|capital of [\w ]+ is|has an?|is an?|likes|because|he|she)\b")
SUBORDINATE = re.compile(r"\b(where|what|who|if|that)\b[^.!?]*")  # "I don't know where she lives": no fact
SPELLED = re.compile(r"\b[a-z]\d*(?:-[a-z]\d*)+\b")  # the working: "c-h-e1-e2-s-e3"
AROUND = set("the letter word words that and are is start starts begin begins with one for example".split())
LISTING = set("a an the and some is are here there of in these yes sure i know".split())  # said around a list
MAX_WORDS = 60  # a reply that says everything says nothing


# ---- reading a reply
def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+(?:'[a-z]+)?", text.lower().replace("’", "'"))


@functools.lru_cache(maxsize=2**16)  # a table's sentences meet each other's values often
def says(text: str, phrase: str) -> bool:
    """Whether the phrase stands in the text as whole words; "Mia's" says Mia."""
    said = _without_possessives(words(text))
    wanted = _without_possessives(words(phrase))
    last_start = len(said) - len(wanted)
    return any(said[start:start + len(wanted)] == wanted for start in range(last_start + 1))


def _without_possessives(said: list[str]) -> list[str]:
    return [word.removesuffix("'s") for word in said]


def _says_any(text: str, phrases: Iterable[str]) -> bool:
    return any(says(text, phrase) for phrase in phrases)


def numbers(text: str) -> list[str]:
    """All numbers in the text as digits, those written as words too."""
    found = re.findall(r"(?<![\d.])-?\d+(?:\.\d+)?|[a-z]+", text.lower().replace(",", ""))
    return [NUMBER_WORDS.get(word, word) for word in found if word in NUMBER_WORDS or word[-1].isdigit()]


def letter_runs(text: str) -> list[str]:
    """Runs of single letters parted by hyphens, commas, dots or blanks: "c-a-t" -> ["cat"]."""
    found = re.finditer(r"\b[a-z]([\s,.\-]+)[a-z](?:\1[a-z])*\b(?!')", text.lower())
    return [re.sub("[^a-z]", "", run.group()) for run in found]


# ---- the verdict
def check(wanted: Check, reply_text: str, used_tool: bool = False) -> bool:
    """Whether the reply passes an Example's check; `used_tool`: whether the calculator gave an output."""
    if not 0 < len(words(reply_text)) <= MAX_WORDS:
        return False
    if wanted.get("tool") and not used_tool:
        return False
    return KINDS[wanted["kind"]](wanted, reply_text)


# ---- the kinds of checks
def _fact(wanted: Check, text: str) -> bool:
    """Every needed value is said, no rival is, and nobody is named who was not asked about."""
    if DONT_KNOW.search(text.lower()) or " or " in text.lower():
        return False
    if wanted["names"]:
        capitalised = {word.lower().removesuffix("'s") for word in re.findall(r"\b[A-Z][A-Za-z']*", text)}
        allowed = set(STARTERS)
        for name in wanted["names"]:
            allowed.update(words(name))
        if capitalised - allowed:
            return False
    for acceptable in wanted["need"]:
        if not _says_any(text, acceptable):
            return False
    return not _says_any(text, wanted["rivals"])


def _yes_no(wanted: Check, text: str) -> bool:
    """The answer is said, first or last ("No, she has a cat.", "Mia has a cat, so no."), and not both."""
    said = words(text)
    says_both = "yes" in said and "no" in said
    return wanted["answer"] in (said[0], said[-1]) and not says_both


def _letter(wanted: Check, text: str) -> bool:
    """The letter is said ("B", "(B) soup", "The answer is B.", "soup=B.") and no other letter is."""
    letters = re.findall(r"\b[B-D]\b|\bA\b(?! (?!or|and)[a-z])", text)  # "A cat": an article
    return set(letters) == {wanted["answer"]}


def _number(wanted: Check, text: str) -> bool:
    """The last number is the answer, and every other was in the question (or the answer's working)."""
    found = numbers(text)
    if not found or found[-1] != wanted["answer"]:
        return False
    allowed = {*wanted["given"], wanted["answer"].lstrip("-")}
    return all(number.lstrip("-") in allowed for number in found[:-1])


def _spell(wanted: Check, text: str) -> bool:
    """The last run of letters is the word's; when reversing, its spelling may stand before it."""
    runs = letter_runs(text)
    return runs[-1:] == [wanted["letters"]] and set(runs[:-1]) <= set(wanted["before"])


def _copy(wanted: Check, text: str) -> bool:
    """The words stand at the end, after a short introduction at most."""
    said = words(text)
    goal = words(wanted["text"])
    return said[-len(goal):] == goal and len(said) <= len(goal) + 3


def _first(wanted: Check, text: str) -> bool:
    """The answer is named before its rivals ("a horse is bigger than a cat"), and not the other way round."""
    said = words(text)
    if wanted.get("opposite", "smaller") in said or "or" in said:
        return False
    candidates = (wanted["answer"], *wanted["rivals"])
    named = [word for word in said if word in candidates]
    return named[:1] == [wanted["answer"]]


def _picked(wanted: Check, text: str) -> bool:
    """The last sentence names the answer before its rivals and does not say the opposite."""
    sentences = [words(sentence) for sentence in re.split(r"[.!?]+", text) if words(sentence)]
    said = sentences[-1]
    candidates = (wanted["answer"], *wanted["rivals"])
    named = [word for word in said if word in candidates]
    return named[:1] == [wanted["answer"]] and not {"or", "not", *wanted["unlike"]} & set(said)


def _alone(wanted: Check, text: str) -> bool:
    """The last letter that stands alone is the answer, the others were given; spelled words don't count."""
    said = words(SPELLED.sub("", text.lower()))
    letters = [word for word in said[:-1] if len(word) == 1 and word not in "ai"] + said[-1:]
    return letters[-1:] == [wanted["answer"]] and set(letters[:-1]) <= {*wanted["given"], wanted["answer"]}


def _begins(wanted: Check, text: str) -> bool:
    """`n` different words are said that exist and begin with the letter, and hardly anything else."""
    said = {word for word in words(text) if len(word) > 1 and word not in AROUND}
    known = {*WORDS, *EVERYDAY}
    right = [word for word in said if word in known and word[0] == wanted["letter"]]
    return len(right) == len(said) == wanted["n"]


def _any(wanted: Check, text: str) -> bool:
    """One of the signs is said, and no rival."""
    return _says_any(text, wanted["signs"]) and not _says_any(text, wanted["rivals"])


def _unknown(wanted: Check, text: str) -> bool:
    """It does not know, and no other sentence speaks of the thing or states a fact."""
    lowered = text.lower().replace("’", "'")
    if not DONT_KNOW.search(lowered) or STATED.search(SUBORDINATE.sub("", lowered)):
        return False
    for sentence in re.split(r"[.!?]+", text):
        does_not_know = DONT_KNOW.search(sentence.lower().replace("’", "'"))
        if not does_not_know and says(sentence, wanted["about"]):
            return False
    return True


def _tale(wanted: Check, text: str) -> bool:
    """Some sentences, about what was asked for; whether they are good ones nobody can check."""
    enough = sum(len(word) > 1 for word in words(text)) >= 6
    about_it = not wanted["about"] or says(text, wanted["about"]) or says(text, wanted["about"] + "s")
    return enough and about_it and not DONT_KNOW.search(text.lower())


def _exactly(wanted: Check, text: str) -> bool:
    """Letter by letter, but for blanks and marks at both ends: what was to be written in capitals."""
    return text.strip(" .!\"'") == wanted["text"]


def _list(wanted: Check, text: str) -> bool:
    """So many different members of the category are said and no more, or all of them in order, and nothing
    else."""
    said = words(text)
    allowed = LISTING | {*COUNTED, *words(wanted["about"])}
    members = sorted(wanted["members"], key=lambda member: -len(words(member)))  # "ice cream" before "cream"
    found = []
    while said:
        member = next((member for member in members if _begins_with(said, words(member))), None)
        if member:
            found.append(member)
            del said[:len(words(member))]
        elif said[0] in allowed or said[0].isdigit():
            del said[0]
        else:
            return False
    if wanted["in_order"]:
        return found == wanted["members"]
    return wanted["n"] <= len(set(found)) <= wanted["most"]


def _begins_with(said: list[str], wanted: list[str]) -> bool:
    """Whether these words begin with those, the last of which may be in the plural."""
    start = said[:len(wanted)]
    if start[:-1] != wanted[:-1]:
        return False
    return start[-1:] in ([wanted[-1]], [wanted[-1] + "s"], [wanted[-1] + "es"])


KINDS = {
    "fact": _fact, "yes_no": _yes_no, "letter": _letter, "number": _number, "spell": _spell, "copy": _copy,
    "first": _first, "any": _any, "unknown": _unknown, "list": _list,
    "tale": _tale, "exactly": _exactly,
    "picked": _picked, "alone": _alone, "begins": _begins,
}
