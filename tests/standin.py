"""
Stand-ins for a model: they have no weights and say what a test wants, through the engine's own doors.

A stand-in has `next_token(tokens)`, which is given all that its slot has read and returns what it says next. How it
gets in: the engine makes a runner for its model by the name `scheduler.Runner`; here that name is made to look for
`model.runner` first, which a real GPT does not have. Nothing else of the engine is replaced.
"""
import time

import torch
import torch.nn.functional as F

from nanochat.infer import scheduler
from nanochat.infer.runner import Runner
from nanochat.model.gpt import GPTConfig

scheduler.Runner = lambda model, *args, **options: getattr(model, "runner", Runner)(model, *args, **options)


class Telling:
    """The runner of a stand-in: keeps the tokens of each slot, and asserts that none of them was left out."""

    def __init__(self, model, batch_size, capacity, bans, **options):
        self.model, self.cache, self.bans, self.read = model, self, bans, [[] for _ in range(batch_size)]

    def copy(self, source, target, n):
        self.read[target] = self.read[source][:n]

    def forward(self, pieces):
        for slot, start, tokens in pieces:
            assert start <= len(self.read[slot]), f"slot {slot} has {len(self.read[slot])} tokens, and now from {start}"
            self.read[slot][start:] = tokens
        return torch.tensor([self.model.next_token(self.read[piece.slot]) for piece in pieces])

    def logits(self, said, states):
        return 50.0 * F.one_hot(said, self.model.config.vocab_size) + self.bans[states]


class StandIn:
    """What the engine wants of a model: its config and its device."""

    runner = Telling

    def __init__(self, tokenizer, sequence_len):
        self.tokenizer, self.device = tokenizer, torch.device("cpu")
        self.config = GPTConfig(sequence_len, tokenizer.vocab_size, n_layer=1, n_head=1, n_kv_head=1, n_embd=2)
        self.end = tokenizer.special("<|assistant_end|>")

    def num_params(self):
        return 0


class Scripted(StandIn):
    """Says script[i] after i tokens beyond the first; `seen` is what it has read."""

    def __init__(self, tokenizer, script, sequence_len=96):
        super().__init__(tokenizer, sequence_len)
        self.script = script

    def next_token(self, tokens):
        self.seen, at = list(tokens), len(tokens) - 1
        return self.script[at] if at < len(self.script) else self.end


class ByHeart(StandIn):
    """Looks up the last question of its prompt and says the answer, a list of `pieces`; for one slot.

    `asked` are the prompts, oldest first. At token `interrupt_at` of an answer somebody presses Ctrl-C, once.
    """

    pace_s, interrupt_at = 0.0, None

    def __init__(self, tokenizer, answers, sequence_len=700):
        super().__init__(tokenizer, sequence_len)
        self.answers, self.asked = answers, []

    def next_token(self, tokens):
        time.sleep(self.pace_s)
        special = self.tokenizer.special
        if tokens[-1] == special("<|assistant_start|>"):
            start, end = (special(f"<|user_{edge}|>") for edge in ("start", "end"))
            at = len(tokens) - tokens[::-1].index(start)
            question = self.tokenizer.decode(tokens[at: tokens.index(end, at)])
            self.asked.append(self.tokenizer.decode(tokens))
            answer = next((a for key, a in self.answers.items() if key in question), [f"You said: {question}"])
            self.script, self.begin = pieces(self.tokenizer, *answer), len(tokens)
        at = len(tokens) - self.begin
        if at == self.interrupt_at:
            self.interrupt_at = None
            raise KeyboardInterrupt
        return self.script[at] if at < len(self.script) else self.end


def pieces(tokenizer, *texts):
    """The tokens of an answer in pieces: text, "\\0python:CODE", and "\\0output:RESULT", whose number alone matters."""
    ids = []
    for text in texts:
        kind, _, rest = text.partition(":")
        if kind == "\0python":
            ids += [tokenizer.special("<|python_start|>"), *tokenizer.encode(rest), tokenizer.special("<|python_end|>")]
        elif kind == "\0output":          # the engine forces these
            ids += [0] * (len(tokenizer.encode(rest)) + 2)
        else:
            ids += tokenizer.encode(text)
    return ids
