"""
What strangers get from a chat model of the kindergarten: right answers by kind, and broken ones.

    python benchmarks/strangers.py                      the newest SFT model, the held list
    python benchmarks/strangers.py --stage=rl --list=open --show
    python benchmarks/strangers.py --past=2             each question after two others, as people ask in a chat

An answer is broken, right or wrong, if it goes round in a loop (up to four words, three times in a row), does not stop before
its room is used up, is empty, or says a word that neither the user nor any training answer has said. --show prints the wrong
and the broken ones; the held list is not for reading, so it is refused there.
"""
import re
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[1]))

from nanochat import kindergarten, runtime  # noqa: E402
from nanochat.cli import option, parse  # noqa: E402
from nanochat.common import UsageError, run  # noqa: E402
from nanochat.data.chat_format import encode_text, message_parts, reply_text  # noqa: E402
from nanochat.eval.chat_eval import run_task  # noqa: E402
from nanochat.eval.statistics import wilson  # noqa: E402
from nanochat.tasks.strangers import LISTS, Strangers  # noqa: E402
from nanochat.train import checkpoint  # noqa: E402

LOOP = re.compile(r"\b(\w+(?:\W+\w+){0,3})(?:\W+\1\b){2}", re.IGNORECASE)
CONVERSATIONS = 20_000  # whose answers tell which words there are


@dataclass
class Config:
    stage: str = option("sft", "which model", choices=("mid", "sft", "rl"))
    list: str = option("held", "which questions", choices=LISTS)
    past: int = option(0, "other questions of the list that come before each one, and that the model answers, too")
    show: bool = option(False, "print what is wrong or broken")

    def __post_init__(self) -> None:
        if self.show and self.list == "held":
            raise UsageError("the held list is for measuring alone: --show wants --list=open.")


class InConversation(Strangers):
    """Each question after `past` others that a person might just have asked: single turns, drawn by its number."""

    def __init__(self, which: str, past: int):
        super().__init__(which=which)
        self.past = past
        self.openers = [number for number, block in enumerate(self.blocks) if len(block.turns) == 1]

    def conversation(self, number: int) -> dict:
        chat = super().conversation(number)
        before: list[dict] = []
        for opener in Random(number).sample(self.openers, self.past):
            before.append({"role": "user", "content": self.blocks[opener].turns[0]})
            before.append({"role": "assistant", "content": None})
        return {**chat, "messages": before + chat["messages"]}


def words(text: str) -> set[str]:
    """Of three letters at least: spelled words are letters."""
    return set(re.findall(r"[a-z]{3,}", text.lower()))


def trained_words() -> set[str]:
    known: set[str] = set()
    for stage in ("mid", "sft"):
        for chat in kindergarten.train_conversations(CONVERSATIONS // 2, stage=stage):
            for message in chat.get("messages", []):
                known |= words(reply_text(message_parts(message)))
    return known


def fault(asked: str, said: str, is_cut: bool, known: set[str]) -> str:
    """Why an answer is broken, or ""."""
    if not said.strip():
        return "empty"
    if LOOP.search(re.sub(r"\b\w\b", "", said)) and not re.search(r"\b(times|twice|repeat|say)\b", asked, re.IGNORECASE):
        return "a loop"
    if is_cut:
        return "no end"
    unknown = {word for word in words(said) - known if word not in asked.lower()}
    return f"a word that is none: {', '.join(sorted(unknown))}" if unknown else ""


def main(argv: list[str] | None = None) -> None:
    config = parse(Config, argv, __doc__)
    rt = runtime.init("cpu")
    model, tokenizer, meta = checkpoint.load_model(config.stage, rt)
    task = InConversation(config.list, config.past)
    score, records = run_task(task, model, tokenizer, rt)
    known = trained_words()
    right: Counter[str] = Counter()
    asked_of: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    for record in records:
        block = task.blocks[record["index"]]
        said = reply_text(record["replies"][0] or [])
        is_cut = len(encode_text(tokenizer, said)) >= task.max_new_tokens - 1
        why = fault(" ".join(block.turns), said, is_cut, known)
        right[block.kind] += record["score"]
        asked_of[block.kind] += 1
        faults[why.partition(":")[0]] += 1
        if config.show and (why or not record["score"]):
            print(f"{block.kind} | {' / '.join(block.turns)} -> {said[:160]}{f'   [{why}]' if why else ''}")
    for kind, count in asked_of.items():
        print(f"{kind:24}{right[kind]:4.0f} of {count}")
    low, high = wilson(score.correct, score.n)
    broken = score.n - faults.pop("", 0)
    print(f"{config.stage} of step {meta['step']:,}: {100 * score.correct / score.n:.1f} % right of {score.n} ({100 * low:.1f} to "
          f"{100 * high:.1f}), {100 * broken / score.n:.1f} % broken: {dict(faults)}")


if __name__ == "__main__":
    run(main)
