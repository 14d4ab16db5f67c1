"""
Generating with a model: many prompts to the end, or one reply as it comes.

The door to inference for everything but the server, which drives a Scheduler of its own from a thread.
"""
from collections.abc import Generator
from typing import Any

from nanochat import memory
from nanochat.data.tokenizer import Tokenizer
from nanochat.infer.sampling import Sampling
from nanochat.infer.scheduler import Scheduler
from nanochat.infer.sequence import Sequence
from nanochat.infer.text_stream import Event, TextStream
from nanochat.model.gpt import GPT
from nanochat.terminal import Progress


class Engine:
    """Generates with `model` (eval mode, on its device). A conversation may hold `max_len` tokens.

    More than in training is allowed, at falling quality. `options` are those of runner.Runner; raises
    UsageError at once where the model cannot be decoded with them.
    """

    def __init__(self, model: GPT, tokenizer: Tokenizer, max_len: int | None = None, **options: Any) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.max_len = max_len or model.config.sequence_len
        self.options = options
        self._chat: Scheduler | None = None
        if any(options.values()):  # now, and not when a server that already listens gets its first request
            self.scheduler(1)

    def scheduler(self, batch_size: int, capacity: int | None = None, **settings: Any) -> Scheduler:
        """A Scheduler of `batch_size` slots of `capacity` tokens (default: max_len)."""
        return Scheduler(
            self.model, self.tokenizer, batch_size, capacity or self.max_len, **settings, **self.options
        )

    def generate(self, prompts: list[list[int]], *, batch_size: int = 64, **sampling: Any) -> list[Sequence]:
        """One ended Sequence a prompt (a list of token ids), in order; keywords as in Sampling.

        Raises UsageError before any work when a prompt leaves no room below max_len.
        """
        settings = Sampling(**sampling)
        sequences = []
        for index, prompt in enumerate(prompts):
            sequences.append(Sequence(self.tokenizer, list(prompt), settings, index))
        self.finish(sequences, batch_size)
        return sequences

    def finish(self, sequences: list[Sequence], batch_size: int, progress: Progress | None = None) -> None:
        """Bring all `sequences` to their ends, at most `batch_size` together, fewer where memory runs out."""
        if not sequences:
            return
        longest = max(len(sequence.prompt) + sequence.sampling.max_new_tokens for sequence in sequences)

        def say(at_a_time):
            waiting = [sequence for sequence in sequences if not sequence.finish_reason]
            scheduler = self.scheduler(min(at_a_time, len(waiting)), min(self.max_len, longest))
            for sequence in waiting:
                sequence.reset()
                scheduler.add(sequence)
            while not scheduler.idle:
                ended = [sequence for sequence in scheduler.step() if sequence.finish_reason]
                if progress:
                    progress.update(len(ended))

        memory.fitted(self.model, "replies", min(batch_size, len(sequences)), say)

    def stream(self, prompt: list[int], **sampling: Any) -> Generator[Event, None, None]:
        """The Events of one reply as they come. Closing the iterator stops the work.

        All streams share a slot: the next turn reads only what is new, with the weights as they were at the
        first.
        """
        if self._chat is None:
            self._chat = self.scheduler(1)
        sequence = Sequence(self.tokenizer, list(prompt), Sampling(**sampling))
        text = TextStream(self.tokenizer)
        self._chat.add(sequence)
        try:
            while not sequence.finish_reason:
                self._chat.step()
                yield from text.take(sequence)
        finally:
            self._chat.remove(sequence)
