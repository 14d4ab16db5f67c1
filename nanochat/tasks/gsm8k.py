"""
GSM8K: grade-school word problems whose solutions call a calculator.

Cobbe et al. 2021 (arXiv 2110.14168), openai/gsm8k, configuration "main": 7,473 train, 1,319 test. The
solutions mark each calculation as <<expression=result>>, made a call of the tool, and end in "#### number",
the last of which counts.
"""
import itertools
import re
from decimal import Decimal, InvalidOperation

from nanochat.data.chat_format import reply_text
from nanochat.tasks.base import HubTask, exchange

MARK = re.compile(r"<<([^<>]*)=([^<>=]*)>>")
FINAL = re.compile(r"####\s*\$?\s*(-?[\d,]*\.?\d+)")


def solution_parts(solution: str) -> list[dict]:
    """A solution's text as the parts of a message."""
    parts = []
    kinds = itertools.cycle(("text", "python", "python_output"))  # what split() gives in turn
    for kind, text in zip(kinds, MARK.split(solution)):
        if text:
            parts.append({"type": kind, "text": text})
    return parts


def final_number(text: str) -> str:
    """The number after the last ####, in one spelling ("1,200.0" is "1200"); "" when there is none."""
    found = FINAL.findall(text)
    try:
        number = Decimal(found[-1].replace(",", ""))
    except (IndexError, InvalidOperation):
        return ""
    return f"{number.normalize():f}" if number else "0"  # "0" also for -0


class GSM8K(HubTask):
    name = "gsm8k"
    max_new_tokens = 384
    source = ("openai/gsm8k", "main")
    columns = ["question", "answer"]

    def read(self, row: dict) -> dict:
        return exchange(row["question"], solution_parts(row["answer"]))

    def answer(self, chat: dict, parts: list[dict]) -> str:
        return final_number(reply_text(parts))
