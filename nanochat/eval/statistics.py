"""
What a score is worth: intervals, means, differences.

A benchmark is a sample of the questions that could have been asked. With other questions of the same kind the
score would be another, so every score here comes with the interval that holds the true one 19 times in 20.
Two models differ only when the interval of their difference leaves out zero.

Plain arithmetic on plain numbers, for the evaluations and for the report: no tensors, no files, no ranks.
"""
import math
import random
from collections.abc import Collection

Z95 = 1.96  # so many standard deviations to both sides of its mean hold 95 % of a normal distribution


def centered(accuracy: float, chance: float) -> float:
    """Accuracy on a scale where blind guessing is 0 and perfection 1; whoever is worse than guessing falls
    below 0.

    Raw accuracies cannot be averaged over tasks: 50 % is worth nothing with two answers to choose from, much
    with ten.
    """
    return (accuracy - chance) / (1.0 - chance)


def wilson(right: float, total: int) -> tuple[float, float]:
    """The 95 % interval (low, high) of a share, `right` of `total` (Wilson 1927); (0, 1) when nothing was
    asked.

    The naive interval, p +- 1.96 sqrt(p (1 - p) / n), takes its width from the share that was measured. With
    0 of 20 right it has no width, as if 20 questions had proven that the model never answers; elsewhere it
    leaves 0 to 1. Wilson's asks the other way round, which true shares would make this measurement no
    surprise. It is honest near 0 and 1, where the scores of small models and of easy tasks lie.
    """
    if total == 0:
        return 0.0, 1.0
    zz = Z95 * Z95
    share = right / total
    middle = share + zz / (2 * total)
    half = Z95 * math.sqrt(share * (1 - share) / total + zz / (4 * total * total))
    low = (middle - half) / (1 + zz / total)
    high = (middle + half) / (1 + zz / total)
    return max(0.0, low), min(1.0, high)


def mean_centered(scores: Collection[dict]) -> tuple[float, list[float]]:
    """(mean of the centred accuracies, its 95 % interval [low, high]) of tasks {"centered", "chance",
    "ci95"}.

    The errors of independent tasks add as squares. Wilson's intervals are not symmetric, so each side of the
    mean's is made of that side of the tasks' own (MOVER, Zou and Donner 2008).
    """
    mean = sum(score["centered"] for score in scores) / len(scores)
    below = []
    above = []
    for score in scores:
        low, high = score["ci95"]
        below.append(score["centered"] - centered(low, score["chance"]))
        above.append(centered(high, score["chance"]) - score["centered"])
    return mean, [mean - math.hypot(*below) / len(scores), mean + math.hypot(*above) / len(scores)]


def paired_difference(before: list[float], after: list[float]) -> tuple[float, float, float]:
    """(mean before, mean after, half of the 95 % interval of their difference) of two models on the same
    questions.

    Most of a score's spread is the questions' own: some are hard for every model. In the difference of each
    question that part is gone, so far fewer questions tell two models apart (arXiv 2411.00640).
    """
    total = len(before)
    mean_before = sum(before) / total
    mean_after = sum(after) / total
    change = mean_after - mean_before
    squares = sum((y - x - change) ** 2 for x, y in zip(before, after))
    variance = squares / max(total - 1, 1)
    return mean_before, mean_after, Z95 * (variance / total) ** 0.5


def subset(total: int, limit: int, seed: int) -> list[int]:
    """At most `limit` (0: all) of the numbers below `total`, ascending: a random sample, always the same for
    a seed.

    Random, since data sets are often sorted, by subject say; fixed, so that two models are asked the same
    questions.
    """
    if 0 < limit < total:
        return sorted(random.Random(seed).sample(range(total), limit))
    return list(range(total))
