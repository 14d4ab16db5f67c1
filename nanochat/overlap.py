"""
How many test questions stand in the training text: those that have N words in a row in common with it.

The rule of GPT-3 (arXiv 2005.14165, appendix C), with one N for all: words are lower-cased runs of letters and digits.
A question of fewer words is not counted. The tests' runs of words are hashed and sorted once, then the training text
streams past them, a million words in about a third of a second. Two different runs are taken for the same once in a
hundred thousand checks of a whole evaluation against a billion words.
"""
import re

import numpy as np

N = 13
WORD = re.compile(r"\w+")
SLOTS = 26      # bits of the table that tells most runs apart without a search


def runs(text):
    """The hash of each run of N words in `text`: uint64, the same within one process only."""
    words = WORD.findall(text.lower())
    values = np.fromiter(map(hash, words), np.int64, len(words)).view(np.uint64)
    many = max(len(words) - N + 1, 0)
    found = np.zeros(many, np.uint64)
    for i in range(N):
        found = found * np.uint64(0x9E3779B97F4A7C15) + values[i:i + many]
    return found


def overlap(texts, tests):
    """{test: (questions with a run that is in `texts`, questions long enough)}; tests is {test: [question's text]}."""
    found = [(name, runs(text)) for name, questions in tests.items() for text in questions]
    found = [(name, some) for name, some in found if len(some)]
    known, place = np.unique(np.concatenate([some for _, some in found] or [runs("")]), return_inverse=True)
    seen, likely = np.zeros(len(known), bool), np.zeros(1 << SLOTS, bool)
    likely[known >> np.uint64(64 - SLOTS)] = True
    for text in texts:
        some = runs(text)
        some = some[likely[some >> np.uint64(64 - SLOTS)]]
        at = np.minimum(np.searchsorted(known, some), len(known) - 1)
        seen[at[known[at] == some]] = True
    counts, start = {name: [0, 0] for name in tests}, 0
    for name, some in found:
        counts[name][0] += bool(seen[place[start:start + len(some)]].any())
        counts[name][1] += 1
        start += len(some)
    return {name: tuple(count) for name, count in counts.items()}
