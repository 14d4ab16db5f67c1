"""
The kindergarten's skills as tasks: fresh questions, graded by the checker that each carries.

Every model is asked the same ones. A skill with fewer different questions has only those: asking one twice would make
the interval look narrower than it is.
"""
from nanochat import kindergarten
from nanochat.chat_format import reply_text
from nanochat.tasks.base import Task

PREFIX = "kg_"
QUESTIONS = 200  # a skill; the 95 % interval is then at most 7 points either way
TRAIN_QUESTIONS = 4000  # of the split "train", which reinforcement learning draws from


class Kindergarten(Task):
    max_new_tokens = 128

    def __init__(self, skill, split="test"):
        self.skill, self.split = kindergarten.SKILLS[skill], split
        self.name, self.chance = PREFIX + skill, self.skill.chance
        self.n = TRAIN_QUESTIONS if split == "train" else self._different()

    def _different(self):
        """How many questions there are before they begin again."""
        first = self._example(0).conversation["messages"]
        return next((i for i in range(1, QUESTIONS) if self._example(i).conversation["messages"] == first), QUESTIONS)

    def _example(self, i):
        if self.split == "train":
            return kindergarten.rl_example(i, skill=self.skill.name)
        return kindergarten.eval_example(self.skill.name, i)

    def conversation(self, i):
        example = self._example(i)
        return {**example.conversation, "check": example.check}

    def reward(self, conversation, parts):
        """1 for a right answer; a wrong one that begins right gets a part."""
        right = self.evaluate(conversation, parts)
        return 1.0 if right else kindergarten.credit(conversation["check"], reply_text(parts))

    def evaluate(self, conversation, parts):
        used_tool = any(part["type"] == "python_output" for part in parts)
        return bool(kindergarten.check(conversation["check"], reply_text(parts), used_tool))
