"""
What everybody asks a small model first: sums, letters, lists, opposites, a story, "remember my name".

A model of a few million parameters learns nothing from long and hard conversations, and these it can answer.
They are those of the kindergarten's skills that hold in any world: none speaks of its people. Training only;
the skills' own tasks (kg_lists ..) grade them, with other questions.
"""
from nanochat.kindergarten import training_example
from nanochat.tasks.base import Task

SKILLS = frozenset("""
    tales reading sentences recall instructions follow_ups facts_everyday yes_no_world comparing lists
    spelling_any backwards_any letter_of_word counting_any words_by_letter alphabet sums_any number_sense
    counting_numbers word_problem_wide passages orders
""".split())


class Everyday(Task):
    name = "everyday"
    kind = "conversations"
    n = 80_000

    def __init__(self, split: str = "train") -> None:
        self.split = split

    def conversation(self, number: int) -> dict:
        example = training_example(number, stage="sft", skills=SKILLS)
        return self.persona.speaks(example.conversation)
