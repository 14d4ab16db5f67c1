"""
How many test questions have a long run of words in common with the training text.

A model that has read the test knows its answers without knowing anything else, and the web is full of tests.
So a score is worth more when it comes with how many of its questions stood in the training text. The rule is
GPT-3's (arXiv 2005.14165, appendix C), 13 words in a row, with one length for all tests.

The text is too long to keep, so only the tests' runs are: hashed and sorted, while the training text streams
by.
"""
import re
from collections.abc import Iterable

import numpy as np

RUN_LENGTH = 13  # words in a row; fewer would find common phrases
SHIFT = np.uint64(38)  # leaves 26 bits of a hash, by which most runs are told apart without a search
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, which spreads the bits (Knuth)


def runs(text: str) -> np.ndarray:
    """The hash (n,) uint64 of each run of words in `text`, the same within one process only; case does not
    count."""
    words = re.findall(r"\w+", text.lower())
    values = np.fromiter(map(hash, words), np.int64, len(words)).view(np.uint64)
    found = np.zeros(max(len(words) - RUN_LENGTH + 1, 0), np.uint64)
    for i in range(RUN_LENGTH):
        found = found * MULTIPLIER + values[i:i + len(found)]  # a polynomial, all runs of the text at once
    return found


def overlap(texts: Iterable[str], tests: dict[str, Iterable[str]]) -> dict[str, list[int]]:
    """{test: [questions found in `texts`, questions long enough to hold a run]} of {test: [question]}."""
    asked = []  # (test, its runs) of each question
    for name, questions in tests.items():
        for question in questions:
            hashes = runs(question)
            if len(hashes):
                asked.append((name, hashes))
    every_run = np.concatenate([runs(""), *(hashes for _, hashes in asked)])
    known, place = np.unique(every_run, return_inverse=True)  # sorted; every_run == known[place]

    seen = _seen(texts, known)
    counts = {name: [0, 0] for name in tests}
    first = 0
    for name, hashes in asked:
        found = seen[place[first:first + len(hashes)]].any()
        counts[name][0] += int(found)
        counts[name][1] += 1
        first += len(hashes)
    return counts


def _seen(texts, known):
    """Which of the `known` hashes, sorted, are in `texts`: (n,) bool."""
    padded = np.append(known, np.uint64(0))  # searchsorted answers len(known) for what is larger than all
    seen = np.zeros(len(padded), bool)
    # By a hash's first bits: one look says of most runs that they are unknown.
    likely = np.zeros(1 << 26, bool)
    likely[known >> SHIFT] = True
    for text in texts:
        hashes = runs(text)
        hashes = hashes[likely[hashes >> SHIFT]]
        at = np.searchsorted(known, hashes)
        seen[at[padded[at] == hashes]] = True
    return seen[:-1]
