"""
ARC: grade-school science questions with 3 to 5 choices, answered by letter.

Clark et al. 2018 (arXiv 1803.05457), allenai/ai2_arc. ARC-Easy: 2,251 train, 2,376 test; ARC-Challenge: 1,119 train,
1,172 test. Here every row is lettered from A.
"""
from nanochat.tasks.base import HubTask, multiple_choice


class ARCEasy(HubTask):
    name, kind, chance, source = "arc_easy", "categorical", 0.25, ("allenai/ai2_arc", "ARC-Easy")
    columns = ["question", "choices", "answerKey"]

    def read(self, row):
        gold = row["choices"]["label"].index(row["answerKey"])
        return multiple_choice(row["question"], row["choices"]["text"], gold)


class ARCChallenge(ARCEasy):
    name, source = "arc_challenge", ("allenai/ai2_arc", "ARC-Challenge")
