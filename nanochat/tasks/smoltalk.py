"""
SmolTalk: everyday conversations to train on, the small-model selection.

Allal et al. 2025 (arXiv 2502.02737), HuggingFaceTB/smol-smoltalk: 460K train and 24K test conversations.
Training only.
"""
from nanochat.data.conversation_forms import to_chat
from nanochat.tasks.base import HubTask


class SmolTalk(HubTask):
    name = "smoltalk"
    kind = "conversations"
    source = ("HuggingFaceTB/smol-smoltalk", "data")
    columns = ["messages"]

    def read(self, row: dict) -> dict:
        return to_chat(row)
