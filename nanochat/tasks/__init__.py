"""
The table of tasks. A new task is one file here and one row below.

    training_conversations("smoltalk", "gsm8k*2", "my.jsonl")    what to finetune on

Nothing is loaded, and nothing fetched, before a row's make().
"""
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from nanochat import kindergarten as world
from nanochat import scaling
from nanochat.common import UsageError
from nanochat.data.sources import kind_of
from nanochat.tasks.arc import ARCChallenge, ARCEasy
from nanochat.tasks.base import Task, TaskUnavailable, local_files  # noqa: F401
from nanochat.tasks.customjson import CustomJSON
from nanochat.tasks.first_questions import SKILLS as EVERYDAY_SKILLS
from nanochat.tasks.first_questions import Everyday
from nanochat.tasks.gsm8k import GSM8K
from nanochat.tasks.humaneval import HumanEval
from nanochat.tasks.identity import Identity
from nanochat.tasks.kindergarten import PREFIX, Kindergarten
from nanochat.tasks.mmlu import MMLU
from nanochat.tasks.persona import USUAL, Persona
from nanochat.tasks.smoltalk import ShortSmolTalk, SmolTalk
from nanochat.tasks.spellingbee import SimpleSpelling, SpellingBee
from nanochat.tasks.strangers import Strangers


@dataclass(frozen=True)
class Row:
    """What is known of a task before its data are loaded."""

    make: Callable[[str], Task]  # split -> Task; raises TaskUnavailable
    kind: str  # this and the next two as in Task
    chance: float
    source: tuple[str, str] | None
    group: str  # what it counts for: "core" ChatCORE, "kindergarten" the mean of its skills,
    # "strangers" a row of its own, "training" neither
    title: str

    def is_local(self, split: str = "test") -> bool:
        """Whether making it downloads nothing."""
        return self.source is None or bool(local_files(*self.source, split))


def _row(task, group, title):
    return Row(task, task.kind, task.chance, task.source, group, title)


TASKS: dict[str, Row] = {
    "arc_easy": _row(ARCEasy, "core", "ARC-Easy"),
    "arc_challenge": _row(ARCChallenge, "core", "ARC-Challenge"),
    "mmlu": _row(MMLU, "core", "MMLU"),
    "gsm8k": _row(GSM8K, "core", "GSM8K"),
    "humaneval": _row(HumanEval, "core", "HumanEval"),
    "spellingbee": _row(SpellingBee, "core", "SpellingBee"),
    "simplespelling": _row(SimpleSpelling, "training", "Spelling"),
    "smoltalk": _row(SmolTalk, "training", "SmolTalk"),
    "smoltalk_short": _row(ShortSmolTalk, "training", "SmolTalk, short ones"),
    "everyday": _row(Everyday, "training", "What everybody asks first"),
    "identity": _row(Identity, "training", "Identity"),
}
for _name, _skill in world.SKILLS.items():
    _make = partial(Kindergarten, _name)
    TASKS[PREFIX + _name] = Row(_make, "generative", _skill.chance, None, "kindergarten", _skill.title)
TASKS["strangers"] = Row(Strangers, "generative", 0.0, None, "strangers", "Strangers")
_open = partial(Strangers, which="open")
TASKS["strangers_open"] = Row(_open, "generative", 0.0, None, "training", "Strangers, open list")
GENERATED = "kindergarten"  # stands for the conversations of all its skills
GENERATED_CONVERSATIONS = 20000

# What a model of real text is finetuned on, and how many times: task -> (midtraining, SFT).
MIXTURE = {
    "smoltalk": (1, 1),  # 460,000: how to talk
    "mmlu": (3, 0),  # 99,842: a letter is an answer
    "arc_easy": (1, 1),  # 2,251
    "arc_challenge": (1, 1),  # 1,119
    "gsm8k": (4, 4),  # 7,473: step by step, with the calculator
    "simplespelling": (1, 1),  # 8,000: the letters that a tokenizer hides
    "spellingbee": (1, 1),  # 8,000
    "identity": (1, 1),  # 6,000: who it is, and manners
}
# And one of fewer than scaling.SMALL layers. Short runs take a random part of it, so who it is stands there
# often.
SMALL_MIXTURE = {
    "everyday": (1, 2),  # 80,000: what it can answer
    "smoltalk_short": (1, 1),  # how to talk
    "arc_easy": (1, 1),  # a letter is an answer
    "identity": (2, 2),
}


def mixture(stage: str, n_layer: int) -> str:
    """What a model of so many layers is trained on in a stage, as --data has it: "smoltalk|mmlu*3|.."."""
    column = ("mid", "sft").index(stage)
    names = []
    for name, times in (SMALL_MIXTURE if n_layer < scaling.SMALL else MIXTURE).items():
        if times[column]:
            names.append(name if times[column] == 1 else f"{name}*{times[column]}")
    return "|".join(names)


def in_group(group: str) -> list[str]:
    """The names of a group's tasks, in the table's order."""
    return [name for name, row in TASKS.items() if row.group == group]


def everyday_tasks() -> list[str]:
    """The names of the tasks that grade what "everyday" teaches, in the table's order."""
    return [name for name in in_group("kindergarten") if name.removeprefix(PREFIX) in EVERYDAY_SKILLS]


def lookup(name: str) -> Row:
    """The row of a task. Raises UsageError, which lists the tasks there are."""
    if name not in TASKS:
        raise UsageError(f"no task is called {name!r}. There are: {', '.join(TASKS)}.")
    return TASKS[name]


def factors(names: Iterable[str]) -> Iterator[tuple[str, int]]:
    """(name, times) of each: "gsm8k * 2" means twice. A task's name is written small, whatever was given.

    Raises UsageError for another factor than a whole number.
    """
    for whole in names:
        if not whole.strip():
            continue
        name, star, times = whole.partition("*")
        name = name.strip()
        times = times.strip() if star else "1"
        if not times.isdecimal() or int(times) == 0:
            raise UsageError(f"{whole}: the factor behind '*' must be a whole number of at least 1. "
                             "Several files: their folder, or joined by '|'.")
        if name.lower() in TASKS or name.lower() == GENERATED:
            name = name.lower()
        yield name, int(times)


def training_conversations(*names: str, stage: str = "sft", seed: int = 0,
                           persona: Persona = USUAL) -> Sequence[dict]:
    """The training conversations of tasks and files, one after another, each read only when it is indexed.

    `stage`, `seed` and `persona` are for those that are generated. Raises UsageError for a task that must not
    be trained on: a test whose answers the model has learned by heart measures nothing.
    """
    from torch.utils.data import ConcatDataset  # here, since the report reads TASKS without torch
    parts = []
    for name, times in factors(names):
        task: Sequence[dict] | Task
        if name == GENERATED:
            made = world.train_conversations(GENERATED_CONVERSATIONS, seed=seed, stage=stage)
            task = [persona.speaks(chat) for chat in made]
        elif name not in TASKS and (kind_of(name) or "/" in name or os.path.exists(os.path.expanduser(name))):
            task = CustomJSON(name)
        elif lookup(name).group in ("kindergarten", "strangers") or name in ("humaneval", "strangers_open"):
            raise UsageError(f"{name} is for evaluation only and cannot be trained on.")
        else:
            task = TASKS[name].make("train")
            task.persona = persona
        for _ in range(times):
            parts.append(task)
    return ConcatDataset(parts) if parts else []
