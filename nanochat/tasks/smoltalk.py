"""
SmolTalk: everyday conversations to train on, the small-model selection.

Allal et al. 2025 (arXiv 2502.02737), HuggingFaceTB/smol-smoltalk: 460K train and 24K test conversations.
Training only.
"""
from nanochat.tasks.base import HubTask


class SmolTalk(HubTask):
    name, kind, source = "smoltalk", "conversations", ("HuggingFaceTB/smol-smoltalk", "data")
    columns = ["messages"]

    def read(self, row):
        return {"messages": [{"role": m["role"], "content": m["content"]} for m in row["messages"]]}
