"""
HumanEval: 164 Python functions to be written from their docstring; the reply's code is run against hidden tests.

Chen et al. 2021 (arXiv 2107.03374), openai/openai_humaneval; evaluation only.
Changed from the paper: asked in a chat message, so the reply may hold a whole program in a code block; by default
pass@1 at temperature 0.
"""
import re

from nanochat.data.chat_format import reply_text
from nanochat.infer import sandbox
from nanochat.tasks.base import HubTask, exchange

BLOCK = re.compile(r"```\w*[ \t]*\n(.*?)(?:\n```|\Z)", re.DOTALL)


def program(prompt, entry_point, reply):
    """The reply's code as a program: its first code block or all of it, behind what the prompt already gives."""
    code = block[1] if (block := BLOCK.search(reply)) else reply
    definition = re.compile(rf"^def {re.escape(entry_point)}\b", re.MULTILINE)
    if definition.search(code):  # the prompt's imports and helpers first
        return f"{prompt[:[m.start() for m in definition.finditer(prompt)][-1]]}\n{code}\n"
    return f"{prompt}{code}\n"


class HumanEval(HubTask):
    name, max_new_tokens, runs_code = "humaneval", 384, True
    source = ("openai/openai_humaneval", "openai_humaneval")

    def read(self, row):
        question = f"Complete this Python function.\n```python\n{row['prompt'].rstrip()}\n```"
        answer = f"```python\n{row['prompt']}{row['canonical_solution'].rstrip()}\n```"
        return exchange(question, answer, prompt=row["prompt"], entry_point=row["entry_point"], test=row["test"])

    def answer(self, chat, parts):
        return program(chat["prompt"], chat["entry_point"], reply_text(parts))

    def evaluate(self, chat, parts):
        tests = f"{chat['test']}\ncheck({chat['entry_point']})\n"
        return sandbox.run(self.answer(chat, parts), tests=tests, timeout_s=5, unsafe=self.unsafe).ok
