"""
The kindergarten's skills as tasks: fresh questions, graded by the checker that each carries.

Every model is asked the same ones. A skill with fewer different questions has only those: asked twice they
would make the interval too narrow.
"""
from nanochat import kindergarten
from nanochat.data.chat_format import reply_text
from nanochat.tasks.base import Task

PREFIX = "kg_"
QUESTIONS = 200  # a skill; the 95 % interval is then at most 7 points either way
TRAIN_QUESTIONS = 4000  # of the split "train", which reinforcement learning draws from


class Kindergarten(Task):
    max_new_tokens = 128

    def __init__(self, skill: str, split: str = "test") -> None:
        self.skill = skill
        self.split = split
        self.name = PREFIX + skill
        self.chance = kindergarten.SKILLS[skill].chance
        self.n = TRAIN_QUESTIONS if split == "train" else self._different()

    def _different(self):
        """How many questions there are before they begin again."""
        first = self.conversation(0)["messages"]
        for number in range(1, QUESTIONS):
            if self.conversation(number)["messages"] == first:
                return number
        return QUESTIONS

    def conversation(self, number: int) -> dict:
        if self.split == "train":
            example = kindergarten.rl_example(number, skill=self.skill)
        else:
            example = kindergarten.eval_example(self.skill, number)
        return self.persona.speaks({**example.conversation, "check": example.check})

    def evaluate(self, chat: dict, parts: list[dict]) -> bool:
        used_tool = any(part["type"] == "python_output" for part in parts)
        return bool(kindergarten.check(chat["check"], reply_text(parts), used_tool))
