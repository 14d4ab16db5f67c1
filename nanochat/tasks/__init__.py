"""
The table of tasks. A new task is one file here and one row below.

    training_conversations("smoltalk", "gsm8k*2", "my.jsonl")    what to finetune on

`group` says what a score counts for: "core" tasks make ChatCORE, "kindergarten" ones rows of the report, "training"
ones neither. Nothing is loaded before make().
"""
from collections.abc import Callable
from dataclasses import dataclass

from nanochat import kindergarten as world
from nanochat.common import UsageError
from nanochat.tasks.arc import ARCChallenge, ARCEasy
from nanochat.tasks.base import Task, TaskUnavailable, local_files  # noqa: F401
from nanochat.tasks.customjson import CustomJSON
from nanochat.tasks.gsm8k import GSM8K
from nanochat.tasks.humaneval import HumanEval
from nanochat.tasks.kindergarten import PREFIX, Kindergarten
from nanochat.tasks.mmlu import MMLU
from nanochat.tasks.smoltalk import SmolTalk
from nanochat.tasks.spellingbee import SimpleSpelling, SpellingBee


@dataclass(frozen=True)
class Row:
    make: Callable[[str], Task]  # split -> Task; raises TaskUnavailable
    kind: str  # these as in Task
    chance: float
    source: tuple[str, str] | None
    group: str
    title: str

    def is_local(self, split="test"):
        """Whether making it downloads nothing."""
        return self.source is None or bool(local_files(*self.source, split))


TASKS = {task.name: Row(task, task.kind, task.chance, task.source, group, title) for task, group, title in (
    (ARCEasy, "core", "ARC-Easy"), (ARCChallenge, "core", "ARC-Challenge"), (MMLU, "core", "MMLU"),
    (GSM8K, "core", "GSM8K"), (HumanEval, "core", "HumanEval"), (SpellingBee, "core", "SpellingBee"),
    (SimpleSpelling, "training", "Spelling"), (SmolTalk, "training", "SmolTalk"))}
TASKS |= {PREFIX + name: Row(lambda split, name=name: Kindergarten(name, split), "generative", skill.chance, None,
                             "kindergarten", skill.title) for name, skill in world.SKILLS.items()}


def in_group(group):
    return [name for name, row in TASKS.items() if row.group == group]


def lookup(name) -> Row:
    if name not in TASKS:
        raise UsageError(f"no task is called {name!r}. There are: {', '.join(TASKS)}.")
    return TASKS[name]


def factors(names):
    """(name, times) of each: "gsm8k*2" means twice."""
    for whole in names:
        name, star, times = whole.partition("*")
        if star and not (times.isdecimal() and int(times)):
            raise UsageError(f"{whole}: the factor behind '*' must be a whole number of at least 1.")
        yield name, int(times or 1)


def training_conversations(*names):
    """The training conversations of tasks and .jsonl files, a sequence read as it is indexed."""
    from torch.utils.data import ConcatDataset  # here, since the report reads TASKS without torch
    parts = []
    for name, times in factors(names):
        if name.endswith(".jsonl"):
            task = CustomJSON(name)
        elif lookup(name).group == "kindergarten" or name == "humaneval":
            raise UsageError(f"{name} is for evaluation only and cannot be trained on.")
        else:
            task = TASKS[name].make("train")
        parts += [task] * times
    return ConcatDataset(parts) if parts else []
