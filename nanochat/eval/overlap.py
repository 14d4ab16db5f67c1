"""
How many test questions have N words in a row in common with the training text.

The rule of GPT-3 (arXiv 2005.14165, appendix C), with one N for all. The tests' runs of words are hashed and
sorted, the training text streams by.
"""
import re

import numpy as np

N = 13
SHIFT = np.uint64(38)  # leaves 26 bits, by which most runs are told apart without a search


def runs(text):
    """The hash of each run of N words in `text`: uint64, the same within one process only."""
    words = re.findall(r"\w+", text.lower())
    values = np.fromiter(map(hash, words), np.int64, len(words)).view(np.uint64)
    found = np.zeros(max(len(words) - N + 1, 0), np.uint64)
    for i in range(N):
        found = found * np.uint64(0x9E3779B97F4A7C15) + values[i:i + len(found)]
    return found


def overlap(texts, tests):
    """{test: [questions found in `texts`, questions of N words or more]} of {test: [question]}."""
    asked = [(name, some) for name, questions in tests.items() for some in map(runs, questions) if len(some)]
    known, place = np.unique(np.concatenate([runs(""), *(some for _, some in asked)]), return_inverse=True)
    padded = np.append(known, np.uint64(0))
    seen, likely = np.zeros(len(padded), bool), np.zeros(1 << 26, bool)
    likely[known >> SHIFT] = True
    for text in texts:
        some = runs(text)
        some = some[likely[some >> SHIFT]]
        at = np.searchsorted(known, some)
        seen[at[padded[at] == some]] = True
    counts, start = {name: [0, 0] for name in tests}, 0
    for name, some in asked:
        counts[name][0] += int(seen[place[start:start + len(some)]].any())
        counts[name][1] += 1
        start += len(some)
    return counts
