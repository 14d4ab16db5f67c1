"""
HumanEval: 164 Python functions to be written from their docstring; the reply's code is run against hidden
tests.

Chen et al. 2021 (arXiv 2107.03374), openai/openai_humaneval; evaluation only. Changed from the paper: asked
in a chat message, so the reply may hold a whole program in a code block; pass@1, by default at temperature 0.
"""
import re

from nanochat.data.chat_format import reply_text
from nanochat.infer import sandbox
from nanochat.tasks.base import HubTask, exchange

BLOCK = re.compile(r"```\w*[ \t]*\n(.*?)(?:\n```|\Z)", re.DOTALL)


def program(prompt: str, entry_point: str, reply: str) -> str:
    """The reply's code as a program: its first code block or all of it, behind what the prompt already
    gives."""
    block = BLOCK.search(reply)
    code = block[1] if block else reply
    definition = re.compile(rf"^def {re.escape(entry_point)}\b", re.MULTILINE)
    if not definition.search(code):
        return f"{prompt}{code}\n"  # the body alone
    begins = [match.start() for match in definition.finditer(prompt)]
    before = prompt[:begins[-1]]  # the prompt's imports and helpers
    return f"{before}\n{code}\n"


class HumanEval(HubTask):
    name = "humaneval"
    max_new_tokens = 384
    runs_code = True
    source = ("openai/openai_humaneval", "openai_humaneval")

    def read(self, row: dict) -> dict:
        question = f"Complete this Python function.\n```python\n{row['prompt'].rstrip()}\n```"
        answer = f"```python\n{row['prompt']}{row['canonical_solution'].rstrip()}\n```"
        kept = {key: row[key] for key in ("prompt", "entry_point", "test")}
        return exchange(question, answer, **kept)

    def answer(self, chat: dict, parts: list[dict]) -> str:
        return program(chat["prompt"], chat["entry_point"], reply_text(parts))

    def evaluate(self, chat: dict, parts: list[dict]) -> bool:
        tests = f"{chat['test']}\ncheck({chat['entry_point']})\n"
        return sandbox.run_code(self.answer(chat, parts), tests=tests, timeout_s=5, unsafe=self.unsafe).ok
