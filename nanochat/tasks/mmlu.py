"""
MMLU: four-choice questions from 57 subjects, answered by letter.

Hendrycks et al. 2021 (arXiv 2009.03300), cais/mmlu, configuration "all": 14,042 test, 1,531 validation, 285 dev.
Training uses the split "auxiliary_train", which is made from other data sets' questions.
"""
from nanochat.tasks.base import HubTable, Task, multiple_choice

REPO, FOLDER = "cais/mmlu", "all"


class MMLU(Task):
    name, kind, chance = "mmlu", "categorical", 0.25

    def __init__(self, split="test"):
        split = "auxiliary_train" if split == "train" else split
        self.table = HubTable(REPO, FOLDER, split, ["question", "choices", "answer"])

    def __len__(self):
        return len(self.table)

    def __getitem__(self, i):
        row = self.table[i]
        return multiple_choice(row["question"], row["choices"], row["answer"])
