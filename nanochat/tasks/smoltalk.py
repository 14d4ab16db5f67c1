"""
SmolTalk: everyday conversations to train on, the small-model selection.

Allal et al. 2025 (arXiv 2502.02737), HuggingFaceTB/smol-smoltalk: about 460K train and 24K test conversations, some of
them with a system message. Training only: there is nothing to grade.
"""
from nanochat.tasks.base import HubTable, Task

REPO, FOLDER = "HuggingFaceTB/smol-smoltalk", "data"


class SmolTalk(Task):
    name, kind = "smoltalk", "conversations"

    def __init__(self, split="train"):
        self.table = HubTable(REPO, FOLDER, split, ["messages"])

    def __len__(self):
        return len(self.table)

    def __getitem__(self, i):
        return {"messages": [{"role": m["role"], "content": m["content"]} for m in self.table[i]["messages"]]}
