"""
The kindergarten: a data set so small that a 3M-parameter model can learn all of it on a laptop.

A seeded world of invented people, true facts and stories yields documents to pretrain on, conversations to
finetune on, and for each conversation a check, which serves as evaluation and as reward. Everything is a
function of numbers (which example, which seed): the same bytes in every process and on every machine.

    python -c "from nanochat.kindergarten import *; print(*documents(3), sep='\\n\\n')"

Read tables.py and world.py first, then documents.py (what is read) and skill.py (what is asked).

Lineage: Physics of Language Models (arXiv:2309.14316: facts must be told in many wordings to be answerable),
the simulated stories of bAbI (arXiv:1502.05698), and TinyStories (arXiv:2305.07759: a small model becomes
fluent when its world is small).
"""
from nanochat.kindergarten.checks import check
from nanochat.kindergarten.conversations import (
    SKILLS,
    eval_example,
    rl_example,
    train_conversations,
    training_example,
)
from nanochat.kindergarten.documents import document, documents
from nanochat.kindergarten.skill import Example, Skill
from nanochat.kindergarten.world import World

__all__ = ["SKILLS", "Example", "Skill", "World", "check", "document", "documents", "eval_example",
           "rl_example", "train_conversations", "training_example"]
