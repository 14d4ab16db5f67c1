"""
The graders: does a reply say the right thing? Exact about the answer, lenient about how it is said.

They are the reward, too: case and punctuation are forgiven, hedges ("Tom or Ben"), missing tool calls and parroted
letters are not.
"""
import os
import re

from nanochat.kindergarten.tables import STARTERS

NUMBER_WORDS = {w: str(i) for i, w in enumerate(
    "zero one two three four five six seven eight nine ten eleven twelve".split())} | {"once": "1", "twice": "2"}
DONT_KNOW = re.compile(r"\b(don'?t|do not|not|never) (really )?(know|sure|heard|met)\b|\bno idea\b")
STATED = re.compile(r"\b(lives? in|comes? from|works? as|favourite \w+ is|friend is|hobby is|job is|is called|"
                    r"capital of [\w ]+ is|has an?|is an?|likes|because|he|she)\b")
MAX_WORDS = 60  # a reply that says everything says nothing


def words(text):
    return re.findall(r"[a-z0-9]+(?:'[a-z]+)?", text.lower().replace("’", "'"))


def says(text, phrase):
    """Whether the phrase stands in the text as whole words; "Mia's" says Mia."""
    said, wanted = [w.removesuffix("'s") for w in words(text)], [w.removesuffix("'s") for w in words(phrase)]
    return any(said[i:i + len(wanted)] == wanted for i in range(len(said) - len(wanted) + 1))


def numbers(text):
    """All numbers in the text as digits, those written as words too."""
    found = re.findall(r"(?<![\d.])-?\d+(?:\.\d+)?|[a-z]+", text.lower().replace(",", ""))
    return [NUMBER_WORDS.get(w, w) for w in found if w in NUMBER_WORDS or w[-1].isdigit()]


def letter_runs(text):
    """Runs of single letters parted by hyphens, commas, dots or blanks: "c-a-t" -> ["cat"]."""
    found = re.finditer(r"\b[a-z]([\s,.\-]+)[a-z](?:\1[a-z])*\b(?!')", text.lower())
    return [re.sub("[^a-z]", "", run.group()) for run in found]


def check(check, reply_text, used_tool=False):
    """Whether the reply passes an Example's check; `used_tool`: whether the calculator gave an output."""
    return 0 < len(words(reply_text)) <= MAX_WORDS and KINDS[check["kind"]](check, reply_text, used_tool)


def credit(check, reply_text):
    """For a reply that fails: half the share of letters or words right from the start."""
    if check["kind"] == "spell":
        wanted, said = check["letters"], "".join(letter_runs(reply_text)[-1:])
    elif check["kind"] == "copy":
        wanted, said = words(check["text"]), words(reply_text)
    else:
        return 0.0
    return 0.5 * len(os.path.commonprefix([list(wanted), list(said)])) / len(wanted)


def _fact(check, text, _):
    if DONT_KNOW.search(text.lower()) or " or " in text.lower():
        return False
    proper = {w.lower().removesuffix("'s") for w in re.findall(r"\b[A-Z][A-Za-z']*", text)}
    if check["names"] and proper - {*STARTERS} - {w for name in check["names"] for w in words(name)}:
        return False
    return (all(any(says(text, v) for v in group) for group in check["need"])
            and not any(says(text, v) for v in check["rivals"]))


def _yes_no(check, text, _):
    """The answer is said, first or last ("No, she has a cat.", "Mia has a cat, so no."), and its opposite is not."""
    said = words(text)
    return check["answer"] in (said[0], said[-1]) and not {"yes", "no"} <= {*said}


def _letter(check, text, _):
    """The letter is said ("B", "(B) soup", "The answer is B.", "soup=B.") and no other letter is."""
    return set(re.findall(r"\b[B-D]\b|\bA\b(?! (?!or|and)[a-z])", text)) == {check["answer"]}


def _number(check, text, used_tool):
    """The last number is the answer, and every other was in the question (or the answer's working)."""
    found = numbers(text)
    if not found or found[-1] != check["answer"] or (check["tool"] and not used_tool):
        return False
    return {n.lstrip("-") for n in found[:-1]} <= {*check["given"], check["answer"].lstrip("-")}


def _spell(check, text, _):
    """The last run of letters is the word's; when reversing, its spelling may stand before it."""
    runs = letter_runs(text)
    return runs[-1:] == [check["letters"]] and set(runs[:-1]) <= set(check["before"])


def _copy(check, text, _):
    """The words stand at the end, after a short introduction at most."""
    said, wanted = words(text), words(check["text"])
    return said[-len(wanted):] == wanted and len(said) <= len(wanted) + 3


def _first(check, text, _):
    """The answer is named before its rivals ("a horse is bigger than a cat")."""
    order = [w for w in words(text) if w in (check["answer"], *check["rivals"])]
    return order[:1] == [check["answer"]] and not {"smaller", "or"} & {*words(text)}


def _any(check, text, _):
    return any(says(text, sign) for sign in check["signs"]) and not any(says(text, v) for v in check["rivals"])


def _unknown(check, text, _):
    """It does not know, and no other sentence speaks of the thing or states a fact."""
    low = text.lower().replace("’", "'")
    if not DONT_KNOW.search(low) or STATED.search(re.sub(r"\b(where|what|who|if|that)\b[^.!?]*", "", low)):
        return False
    rest = [s for s in re.split(r"[.!?]+", text) if not DONT_KNOW.search(s.lower().replace("’", "'"))]
    return not any(says(s, check["about"]) for s in rest)


KINDS = {"fact": _fact, "yes_no": _yes_no, "letter": _letter, "number": _number, "spell": _spell, "copy": _copy,
         "first": _first, "any": _any, "unknown": _unknown}
