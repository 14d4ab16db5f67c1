"""
The hand-typed part of the kindergarten: the text files beside this one. For another world, edit these.

Words, facts and sentences are data, code only chooses and joins them. The lists are made with two rules in
mind. People's names and filler names (of users, and in stories) have none in common, so that "My name is
Kevin" never meets a Kevin with a biography. And lists of people's values are short, so that every fact is met
often and can be learned by heart; fillers are many, so that no model can learn them by heart and has to copy
what the user said.
"""
import functools
import re
from collections.abc import Iterator
from pathlib import Path

from nanochat.common import DataError

Table = dict[str, list[str]]  # key -> values

# A line that begins neither with a blank nor with "#", and the indented lines that follow it.
_ENTRY = re.compile(r"^[^#\s].*(?:\n[ \t]+\S.*)*", re.MULTILINE)


@functools.cache
def read(file: str) -> dict[str, Table]:
    """All tables of a text file by title.

        # a remark
        [title]                   begins a table whose lines have one value or more
        [title: column | column]  begins one whose lines have exactly these values, which may be empty
        key: value | value
             value                indented: one more value of the line above

    Raises DataError for the first wrong line, naming it.
    """
    tables: dict[str, Table] = {}
    table: Table | None = None
    columns: list[str] = []
    for line_number, (line, *continued) in _entries(file):
        before, colon, after = line.partition(":")
        key = before.strip()
        rest = after.strip()
        if line.startswith("["):
            table = tables.setdefault(key.strip("[]"), {})
            columns = _parted(rest.strip("]"), "|") if rest else []
            continue

        values = _parted("|".join([rest, *continued] if rest else continued), "|")
        fits = len(values) == len(columns) if columns else "" not in values
        if table is None or not colon or key in table or not fits:
            wanted = " | ".join(columns) or "value | value | ..."
            raise DataError(f"{file}, line {line_number}: expected a new key in a [table], "
                            f"as in 'key: {wanted}'; got {line!r}")
        table[key] = values
    return tables


def _entries(file: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, [line, the indented lines after it]) without empty lines and remarks."""
    text = (Path(__file__).parent / file).read_text(encoding="utf-8")
    for entry in _ENTRY.finditer(text):
        line_number = text.count("\n", 0, entry.start()) + 1
        yield line_number, _parted(entry[0], "\n")


def _parted(text: str, separator: str) -> list[str]:
    return [part.strip() for part in text.split(separator)]


def titled(file: str, kind: str) -> dict[str, Table]:
    """The tables whose title begins with the word `kind`, by the rest of it: "science sky" as "sky"."""
    found = {}
    for title, table in read(file).items():
        if title.startswith(kind + " "):
            found[title.removeprefix(kind + " ")] = table
    return found


def _word_list(key: str) -> list[str]:
    """A list of words.txt: parted by commas where any of its words has a blank, else by blanks."""
    for lists in read("words.txt").values():
        if key in lists:
            text = " ".join(lists[key])
            return _parted(text, ",") if "," in text else text.split()
    raise DataError(f"words.txt has no list {key!r}")


# What people in the invented world are called and what they are like (world.py).
GIRLS = _word_list("girls")
BOYS = _word_list("boys")
PETS = _word_list("pets")  # the pets' names
TOWNS = _word_list("towns")
JOBS = _word_list("jobs")
SPECIES = _word_list("species")
FOODS = _word_list("foods")
COLOURS = _word_list("colours")
HOBBIES = _word_list("hobbies")

# What users tell about themselves, to be remembered (skills_social.py).
NAMES = _word_list("names")  # of actors in stories and word problems, too
CITIES = _word_list("cities")
MEALS = _word_list("meals")
SHADES = _word_list("shades")
PASTIMES = _word_list("pastimes")

# What is spelled, and what stories and word problems are made of.
WORDS = _word_list("words")
EVERYDAY = " ".join(read("letters.txt")["words"]["everyday"]).split()  # what people try
PLACES = _word_list("places")
THINGS = _word_list("things")
GOODS = _word_list("goods")

# Of which names and words are made that mean nothing: one of each.
ONSETS = _word_list("onsets")
NUCLEI = _word_list("nuclei")
CODAS = _word_list("codas")
ENDS = _word_list("ends")

STARTERS = _word_list("starters")  # words that may have a capital in a reply beside the names asked for
GOES = _word_list("goes")  # hobbies to which one "goes"
