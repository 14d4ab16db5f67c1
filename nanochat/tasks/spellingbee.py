"""
SpellingBee: how often a letter stands in a word (of words.txt), and plain spelling.

A tokenizer hides the letters from the model, which sees "strawberry" as two or three numbers: writing the
letters one by one makes them tokens. Counting is left to the tool.
"""
import random
import re
from pathlib import Path

from nanochat.common import mix_seed
from nanochat.data.chat_format import reply_text
from nanochat.tasks.base import Task, exchange

HERE = Path(__file__).parent
WORDS = (HERE / "words.txt").read_text(encoding="utf-8").split()
_counting, _spelling = (HERE / "spelling.txt").read_text(encoding="utf-8").split("\n\n")
COUNT_QUESTIONS = _counting.splitlines()
SPELL_QUESTIONS = _spelling.splitlines()


def words(split: str) -> list[str]:
    """Every fifth word is for testing, the rest for training."""
    if split == "train":
        return [word for i, word in enumerate(WORDS) if i % 5 != 4]
    return WORDS[4::5]


class SpellingBee(Task):
    name = "spellingbee"
    max_new_tokens = 160

    def __init__(self, split: str = "test") -> None:
        self.split = split
        self.words = words(split)
        self.n = 8000 if split == "train" else 256

    def conversation(self, number: int) -> dict:
        rng = random.Random(mix_seed(self.name, self.split, number))
        word = rng.choice(self.words)
        letters = word if rng.random() < 0.9 else "abcdefghijklmnopqrstuvwxyz"  # of which many count 0
        return self.ask(rng, word, rng.choice(letters))

    def ask(self, rng: random.Random, word: str, letter: str) -> dict:
        """The conversation about a word."""
        count = str(word.count(letter))
        answer = [{"type": "text", "text": f"{word} is spelled {', '.join(word)}. I count the {letter}: "},
                  {"type": "python", "text": f"'{word}'.count('{letter}')"},
                  {"type": "python_output", "text": count},
                  {"type": "text", "text": f"{count}\n#### {count}"}]
        return exchange(rng.choice(COUNT_QUESTIONS).format(word=word, letter=letter), answer)

    def answer(self, chat: dict, parts: list[dict]) -> str:
        text = reply_text(parts)
        found = re.findall(r"####\s*(\d+)", text) or re.findall(r"\d+", text)  # in other words: right, too
        return found[-1] if found else ""


class SimpleSpelling(SpellingBee):
    name = "simplespelling"
    max_new_tokens = 96

    def ask(self, rng: random.Random, word: str, letter: str) -> dict:
        return exchange(rng.choice(SPELL_QUESTIONS).format(word=word), ", ".join(word))

    def answer(self, chat: dict, parts: list[dict]) -> str:
        return reply_text(parts).strip().lower().removesuffix(".")
