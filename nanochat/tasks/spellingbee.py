"""
SpellingBee: how often a letter stands in a word (of words.txt), and plain spelling.

A tokenizer hides the letters from the model: writing them one by one makes them tokens; counting is left to the tool.
"""
import random
import re
from pathlib import Path

from nanochat.common import mix_seed
from nanochat.data.chat_format import reply_text
from nanochat.tasks.base import Task, exchange

WORDS = Path(__file__).with_name("words.txt").read_text(encoding="utf-8").split()
COUNT_QUESTIONS, SPELL_QUESTIONS = (
    part.splitlines() for part in Path(__file__).with_name("spelling.txt").read_text(encoding="utf-8").split("\n\n"))


def words(split):
    """Every fifth word is for testing, the rest for training."""
    return [word for i, word in enumerate(WORDS) if (i % 5 == 4) == (split != "train")]


class SpellingBee(Task):
    name, max_new_tokens = "spellingbee", 160

    def __init__(self, split="test"):
        self.split, self.words, self.n = split, words(split), 8000 if split == "train" else 256

    def conversation(self, i):
        rng = random.Random(mix_seed(self.name, self.split, i))
        word = rng.choice(self.words)
        return self.ask(rng, word, rng.choice(word if rng.random() < 0.9 else "abcdefghijklmnopqrstuvwxyz"))

    def ask(self, rng, word, letter):
        count = str(word.count(letter))
        answer = [{"type": "text", "text": f"{word} is spelled {', '.join(word)}. I count the {letter}: "},
                  {"type": "python", "text": f"'{word}'.count('{letter}')"},
                  {"type": "python_output", "text": count}, {"type": "text", "text": f"{count}\n#### {count}"}]
        return exchange(rng.choice(COUNT_QUESTIONS).format(word=word, letter=letter), answer)

    def answer(self, chat, parts):
        found = re.findall(r"####\s*(\d+)", reply_text(parts))
        return found[-1] if found else ""


class SimpleSpelling(SpellingBee):
    name, max_new_tokens = "simplespelling", 96

    def ask(self, rng, word, letter):
        return exchange(rng.choice(SPELL_QUESTIONS).format(word=word), ", ".join(word))

    def answer(self, chat, parts):
        return reply_text(parts).strip().lower().removesuffix(".")
