"""
MMLU: four-choice questions from 57 subjects, answered by letter.

Hendrycks et al. 2021 (arXiv 2009.03300), cais/mmlu, configuration "all": 14,042 test, 1,531 validation, 285
dev. Training uses the split "auxiliary_train", which is made from other data sets' questions.
"""
from nanochat.tasks.base import HubTask, multiple_choice


class MMLU(HubTask):
    name = "mmlu"
    kind = "categorical"
    chance = 0.25
    source = ("cais/mmlu", "all")
    columns = ["question", "choices", "answer"]

    def __init__(self, split: str = "test") -> None:
        super().__init__("auxiliary_train" if split == "train" else split)

    def read(self, row: dict) -> dict:
        return multiple_choice(row["question"], row["choices"], row["answer"])
