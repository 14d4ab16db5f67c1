"""
The kindergarten: a data set so small that a 3M-parameter model can learn all of it on a laptop.

A seeded world of invented people, true facts and stories yields documents, conversations, and for each conversation a
check, which is evaluation and reward. The same bytes in every process.
`size` is the number of people: 60 for a laptop, 100,000 for gigabytes.

    python -c "from nanochat.kindergarten import *; print(*documents(3), sep='\\n\\n')"

Lineage: Physics of Language Models (arXiv:2309.14316: facts must be told in many wordings to be answerable) and the
simulated stories of bAbI (arXiv:1502.05698).
"""
from nanochat.kindergarten.checks import check, credit
from nanochat.kindergarten.conversations import SKILLS, eval_example, rl_example, train_conversations, training_example
from nanochat.kindergarten.documents import document, documents
from nanochat.kindergarten.skill import Example, Skill
from nanochat.kindergarten.world import World

__all__ = ["SKILLS", "Example", "Skill", "World", "check", "credit", "document", "documents", "eval_example",
           "rl_example", "train_conversations", "training_example"]
