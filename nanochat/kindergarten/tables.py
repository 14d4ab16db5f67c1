"""
The hand-typed part of the kindergarten: the text files beside this one. For another world, edit these.

People's names and filler names are disjoint, so that "My name is Kevin" never meets a Kevin with a biography. Lists of
people's values are short, so that every fact is met often; fillers are many, so that they are copied, not learned.
"""
import functools
import re
from pathlib import Path

from nanochat.common import DataError


@functools.cache
def read(file):
    """{title: {key: [value]}} of a text file, which says at its top how it is written.

    Raises DataError for the first wrong line; only where a title names columns may a value be empty."""
    tables, table, columns = {}, None, []
    for n, (line, *more) in _entries(file):
        key, colon, rest = (part.strip() for part in line.partition(":"))
        if line.startswith("["):
            columns = [name.strip() for name in rest.strip("]").split("|") if name]
            table = tables.setdefault(key.strip("[]"), {})
            continue
        values = [value.strip() for value in "|".join([rest, *more] if rest else more).split("|")]
        fits = len(values) == len(columns) if columns else "" not in values
        if table is None or not colon or key in table or not fits:
            wanted = " | ".join(columns) or "value | value | ..."
            raise DataError(f"{file}, line {n}: expected a new key in a [table], as in 'key: {wanted}'; got {line!r}")
        table[key] = values
    return tables


def _entries(file):
    """Yield (line number, [line, the indented lines after it]) without empty lines and remarks."""
    text = (Path(__file__).parent / file).read_text(encoding="utf-8")
    for entry in re.finditer(r"^[^#\s].*(?:\n[ \t]+\S.*)*", text, re.MULTILINE):
        yield text.count("\n", 0, entry.start()) + 1, [line.strip() for line in entry[0].split("\n")]


def titled(file, kind):
    """{rest of the title: table} of the titles that begin with the word `kind`."""
    return {title[len(kind) + 1:]: table for title, table in read(file).items() if title.startswith(kind + " ")}


def _lists(*keys):
    """Lists of words.txt, parted by commas where a word has blanks."""
    found = {key: " ".join(lines) for lists in read("words.txt").values() for key, lines in lists.items()}
    return [[word.strip() for word in found[key].split("," if "," in found[key] else None)] for key in keys]


GIRLS, BOYS, PETS, NAMES = _lists("girls", "boys", "pets", "names")
TOWNS, TOWN_HEADS, TOWN_TAILS, CITIES = _lists("towns", "town_heads", "town_tails", "cities")
JOBS, SPECIES, FOODS, COLOURS, HOBBIES = _lists("jobs", "species", "foods", "colours", "hobbies")
MEALS, SHADES, PASTIMES = _lists("meals", "shades", "pastimes")
PLACES, THINGS, GOODS, WORDS = _lists("places", "things", "goods", "words")
SYLLABLES, ONSETS, NUCLEI, CODAS, ENDS = _lists("syllables", "onsets", "nuclei", "codas", "ends")
STARTERS, GOES = _lists("starters", "goes")
