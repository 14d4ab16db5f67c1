"""
One reply: what may be sampled next, when a tool is asked, when it ends. Its text is read by
text_stream.TextStream.
"""
from nanochat.common import mix_seed
from nanochat.data.tokenizer import Tokenizer
from nanochat.infer import tools
from nanochat.infer.json_grammar import JsonGrammar
from nanochat.infer.sampling import Sampling
from nanochat.infer.text_stream import TextStream

MAX_TOOL_CALLS = 8  # of one reply; beyond, python_start can no longer be sampled
FREE, IN_CODE, NO_TOOLS = range(3)  # what a sequence may sample next: rows of scheduler.format_bias
GIVEN = 3  # a row more: of a text that was not sampled, all is possible


class Sequence:
    """The state of one reply to `prompt` (token ids).

    `ids` are the reply's tokens without the closing one; `sampled[i]` is 1 where the model chose ids[i] and 0
    where a tool's output was put in; `logprobs[i]` is (its log-probability, [(token, that) of the likeliest])
    or None; `prompt_logprobs` are the same of the prompt if that `is_scored`, and `closing` is (the closing
    token, its logprobs). `grammar` knows what its JSON schema still allows. `finish_reason` is None, "stop"
    or "length". `index` tells apart the replies to one prompt.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: list[int], sampling: Sampling, index: int = 0) -> None:
        self.tokenizer = tokenizer
        self.prompt = prompt
        self.sampling = sampling
        self.index = index
        self.grammar = JsonGrammar(tokenizer, sampling.json_schema) if sampling.json_schema else None
        self.reset()

    def reset(self) -> None:
        """Back to the prompt alone."""
        self.ids: list[int] = []
        self.sampled: list[int] = []
        self.logprobs: list[tuple | None] = []
        self.prompt_logprobs: list[tuple | None] = [None]  # nothing foretells the first
        self.closing: tuple | None = None
        self.finish_reason: str | None = None
        self.room = self.sampling.max_new_tokens  # lowered to what the cache can hold by Scheduler.add
        self.cached_tokens = 0  # of the prompt, found in the prefix cache
        self.tool_calls = 0
        self._code: list[int] | None = None  # tokens of a call that is being written
        self._stops = TextStream(self.tokenizer)  # looks for stop strings

    def __len__(self) -> int:
        return len(self.prompt) + len(self.ids)

    @property
    def is_scored(self) -> bool:
        """Whether the log-probabilities of the prompt's tokens are wanted."""
        return self.sampling.echo > 0 and self.sampling.logprobs is not None

    @property
    def state(self) -> int:
        if self._code is not None:
            return IN_CODE
        if self.sampling.use_tools and self.tool_calls < MAX_TOOL_CALLS:
            return FREE
        return NO_TOOLS

    def uniform(self) -> float:
        """The random number in [0, 1) for the next token, 0 where none is wanted.

        By seed, index and position alone, not from a generator that others draw from: so company cannot
        change a reply.
        """
        if not self.sampling.temperature:
            return 0.0
        return (mix_seed(self.sampling.seed, self.index, len(self.ids)) >> 10) / 2**53

    def tokens(self, start: int, stop: int) -> list[int]:
        """Those from position `start` to `stop` of prompt and reply."""
        n = len(self.prompt)
        return self.prompt[start:stop] + self.ids[max(0, start - n): max(0, stop - n)]

    def accept(self, token: int, logprobs: tuple | None = None) -> None:
        """Take the token that was sampled, and behind a call what the calculator says to it.

        At once, as that takes milliseconds. On a thread of its own it would now and then answer a step later;
        then other rows are multiplied together, which rounds otherwise, and no run of reinforcement learning
        could be repeated.
        """
        special = self.tokenizer.special
        if not self.room:  # the prompt was to be read, and nothing said
            self.finish_reason = "length"
            return
        if token in (special("<|assistant_end|>"), self.tokenizer.bos_id):
            self.closing = (token, logprobs)
            cut = self.grammar is not None and self.grammar.failed
            self.finish_reason = "length" if cut else "stop"
            return
        if self.grammar:
            self.grammar.accept(token)
        self._add([token], 1, logprobs)
        if token == special("<|python_start|>"):
            self._code = []
        elif self._code is not None and token == special("<|python_end|>"):
            code = self.tokenizer.decode(self._code)
            self._code = None
            self.tool_calls += 1
            if not self.finish_reason:
                self._add_result(tools.run_tool(code))
        elif self._code is not None:
            self._code.append(token)

    def _add_result(self, result):
        """What the calculator said, which the model reads next.

        `sampled` is 0 there: reinforcement learning must not pay the model for what a tool said.
        """
        special = self.tokenizer.special
        output = [special("<|output_start|>"), *self.tokenizer.encode(result), special("<|output_end|>")]
        self._add(output, 0)

    def _add(self, tokens, sampled, logprobs=None):
        tokens = tokens[: self.room - len(self.ids)]
        self.ids += tokens
        self.sampled += [sampled] * len(tokens)
        self.logprobs += [logprobs] * len(tokens)
        if self.sampling.stop:
            self._stops.take(self)
        if self._stops.stopped:
            self.finish_reason = "stop"
        elif len(self.ids) >= self.room:
            self.finish_reason = "length"
