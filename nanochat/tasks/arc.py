"""
ARC: grade-school science questions with 3 to 5 choices, answered by letter.

Clark et al. 2018 (arXiv 1803.05457), allenai/ai2_arc. ARC-Easy: 2,251 train, 2,376 test; ARC-Challenge: 1,119 train,
1,172 test. Some rows label their choices 1 to 4; here every row is lettered from A.
"""
from nanochat.tasks.base import HubTable, Task, multiple_choice

REPO = "allenai/ai2_arc"


class ARC(Task):
    kind, chance = "categorical", 0.25

    def __init__(self, name, folder, split="test"):
        self.name, self.table = name, HubTable(REPO, folder, split, ["question", "choices", "answerKey"])

    def __len__(self):
        return len(self.table)

    def __getitem__(self, i):
        row = self.table[i]
        gold = row["choices"]["label"].index(row["answerKey"])
        return multiple_choice(row["question"], row["choices"]["text"], gold)
