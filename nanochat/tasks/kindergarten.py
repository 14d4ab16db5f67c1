"""
The kindergarten's skills as tasks: fresh questions, graded by the checker that each carries.

Every model is asked the same ones. A skill with fewer different questions has only those: asked twice they would make
the interval too narrow.
"""
from nanochat import kindergarten
from nanochat.data.chat_format import reply_text
from nanochat.tasks.base import Task

PREFIX = "kg_"
QUESTIONS = 200  # a skill; the 95 % interval is then at most 7 points either way
TRAIN_QUESTIONS = 4000  # of the split "train", which reinforcement learning draws from


class Kindergarten(Task):
    max_new_tokens = 128

    def __init__(self, skill, split="test"):
        self.skill, self.split, self.name = skill, split, PREFIX + skill
        self.chance = kindergarten.SKILLS[skill].chance
        self.n = TRAIN_QUESTIONS if split == "train" else self._different()

    def _different(self):
        """How many questions there are before they begin again."""
        first = self.conversation(0)["messages"]
        return next((i for i in range(1, QUESTIONS) if self.conversation(i)["messages"] == first), QUESTIONS)

    def conversation(self, i):
        example = (kindergarten.rl_example(i, skill=self.skill) if self.split == "train"
                   else kindergarten.eval_example(self.skill, i))
        return {**example.conversation, "check": example.check}

    def reward(self, chat, parts):
        right = self.evaluate(chat, parts)
        return 1.0 if right else kindergarten.credit(chat["check"], reply_text(parts))

    def evaluate(self, chat, parts):
        used_tool = any(part["type"] == "python_output" for part in parts)
        return bool(kindergarten.check(chat["check"], reply_text(parts), used_tool))
