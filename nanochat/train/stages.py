"""
The table of stages: what a model goes through, in order, one row each.

This is the only place that knows their names. Checkpoints, the flags that name a stage (-i, --source), the
report and speedrun.sh all follow from it, so a new stage is one row here and one script that builds a
recipe.Stage. It is a table, not a registry: nothing adds to it while the program runs, and what a stage does
stands in its script, not here. Standard library only, because the report reads it and wants no torch.
"""
from dataclasses import dataclass

# What a model is asked again and again while it learns (speech.py), as (the beginning of a text, a question):
# six things that it gets right one after the other.
ASKED = (
    ("My name is", "Who are you?"),
    ("David lives in", "Where does David live?"),
    ("The capital of France is", "What is the capital of France?"),
    ("The opposite of hot is", "What is the opposite of hot?"),
    ("Seven plus five is", "What is 7 + 5?"),
    ("Once upon a time", "Tell me a story."),
)


@dataclass(frozen=True)
class StageRow:
    """One stage of training, by the names that the rest of the project knows it by."""

    name: str  # as in `-i sft`
    title: str  # as in the report
    script: str  # scripts/<script>.py, which is also the name of its result
    starts_from: tuple[str, ...] = ()  # whose model it may take, the usual one first; none: new weights
    chats: bool = True  # whether one can talk to what it leaves

    @property
    def folder(self) -> str:
        """Where its checkpoints lie, under the base directory; `speedrun.sh --fresh` goes by this pattern."""
        return f"{self.name}_checkpoints"

    @property
    def prompts(self) -> tuple[str, ...]:
        """What its model is asked while it learns."""
        return tuple(question if self.chats else beginning for beginning, question in ASKED)


_ROWS = (
    StageRow("base", "Pretraining", "base_train", chats=False),
    StageRow("mid", "Midtraining", "mid_train", starts_from=("base", "mid", "sft")),
    StageRow("sft", "Supervised finetuning", "chat_sft", starts_from=("mid", "base", "sft")),
    StageRow("rl", "Reinforcement learning", "chat_rl", starts_from=("sft", "mid", "rl")),
)
STAGES = {row.name: row for row in _ROWS}
CHAT_STAGES = tuple(row.name for row in reversed(_ROWS) if row.chats)  # the latest first
