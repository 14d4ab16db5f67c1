"""
ARC: grade-school science questions with 3 to 5 choices, answered by letter.

Clark et al. 2018 (arXiv 1803.05457), allenai/ai2_arc. ARC-Easy: 2,251 train, 2,376 test; ARC-Challenge, those
that neither looking up nor counting words answers: 1,119 train, 1,172 test. Here every row is lettered from
A.
"""
from nanochat.tasks.base import HubTask, multiple_choice


class ARCEasy(HubTask):
    name = "arc_easy"
    kind = "categorical"
    chance = 0.25
    source = ("allenai/ai2_arc", "ARC-Easy")
    columns = ["question", "choices", "answerKey"]

    def read(self, row: dict) -> dict:
        gold = row["choices"]["label"].index(row["answerKey"])  # labels are A, B, ... or 1, 2, ...
        return multiple_choice(row["question"], row["choices"]["text"], gold)


class ARCChallenge(ARCEasy):
    name = "arc_challenge"
    source = ("allenai/ai2_arc", "ARC-Challenge")
