"""
SmolTalk: everyday conversations to train on, the small-model selection.

Allal et al. 2025 (arXiv 2502.02737), HuggingFaceTB/smol-smoltalk: 460K train and 24K test conversations.
Training only.
"""
import numpy as np
import pyarrow.compute as pc

from nanochat.data.conversation_forms import to_chat
from nanochat.tasks.base import HubTask

SHORT = 800  # characters, all messages together


class SmolTalk(HubTask):
    name = "smoltalk"
    kind = "conversations"
    source = ("HuggingFaceTB/smol-smoltalk", "data")
    columns = ["messages"]

    def read(self, row: dict) -> dict:
        return to_chat(row)


class ShortSmolTalk(SmolTalk):
    """Those of SHORT characters: what a small model can follow to the end."""

    name = "smoltalk_short"

    def __init__(self, split: str = "test") -> None:
        super().__init__(split)
        messages = self.table.table["messages"].combine_chunks()
        characters = pc.utf8_length(pc.struct_field(messages.flatten(), "content"))
        of_a_row = np.bincount(pc.list_parent_indices(messages), weights=characters, minlength=self.n)
        self.rows = np.flatnonzero(of_a_row <= SHORT)
        self.n = len(self.rows)

    def conversation(self, number: int) -> dict:
        return super().conversation(int(self.rows[number]))
