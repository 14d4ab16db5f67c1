"""
OpenAI's older API: what a request for the continuation of a text may say. Knows no HTTP.

It has no roles and no turns, which suits a base model, and programs that measure one: with `echo` and
`logprobs` it tells how likely the model finds a given text.
"""
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import Field

from nanochat.data.tokenizer import Tokenizer
from nanochat.serve.errors import invalid
from nanochat.serve.openai_requests import ChatRequest, CompletionRequest, whole

MAX_SCORED_TOKENS = 1 << 13  # of several prompts: to write down what is told of 32,768 takes half a second
DEFAULT_TEXT_TOKENS = 16  # of a continuation whose max_tokens is not given: OpenAI's default there


TokenIds = Annotated[list[whole(0)], Field(min_length=1)]
Many = Annotated[list[TypeVar("T")], Field(min_length=1, max_length=128)]


class TextRequest(CompletionRequest):
    """The continuation of a document that begins with a text, or with token ids."""

    is_chat: ClassVar = False
    prompt_field: ClassVar = "prompt"
    prompt: str | Many[str] | TokenIds | Many[TokenIds]
    max_tokens: whole(0) | None = None
    logprobs: whole(0, 20) | None = None
    echo: bool | None = None

    @property
    def answer_limit(self) -> int:
        """Tokens of the longest answer."""
        return DEFAULT_TEXT_TOKENS if self.max_tokens is None else self.max_tokens

    @property
    def alternatives(self) -> int | None:
        """How many likeliest tokens to tell with each; None: no log-probabilities at all."""
        return self.logprobs

    @property
    def _listed(self) -> Any:
        """`prompt` as a list of texts or of lists of ids."""
        alone = isinstance(self.prompt, str) or isinstance(self.prompt[0], int)
        return [self.prompt] if alone else self.prompt

    @property
    def n_prompts(self) -> int:
        return len(self._listed)

    def echoed(self, number: int, prompt: list[int]) -> int:
        """How many last tokens of prompt `number` are told again before its answers: all that were given."""
        if not self.echo:
            return 0
        given = self._listed[number]
        return len(prompt) - 1 if isinstance(given, str) else len(given)

    def prompts(self, tokenizer: Tokenizer) -> list[list[int]]:
        """The token ids of each prompt, all from bos on. Raises ApiError 400."""
        # Text can never make those, so ids that are given may not either.
        first_special = len(tokenizer.tokens)
        prompts = []
        for given in self._listed:
            ids = tokenizer.encode(given) if isinstance(given, str) else given
            if ids[:1] == [tokenizer.bos_id]:  # which other tokenizers put there themselves
                ids = ids[1:]
            if any(token >= first_special for token in ids):
                raise invalid(f"Token ids must be below {first_special}.", "prompt")
            prompts.append([tokenizer.bos_id, *ids])
        scored = sum(len(prompt) for prompt in prompts)
        if self.echo and self.logprobs is not None and len(prompts) > 1 and scored > MAX_SCORED_TOKENS:
            raise invalid(f"With echo and logprobs prompts may have {MAX_SCORED_TOKENS} tokens together, not "
                          f"{scored}: send fewer at once.", "prompt")
        return prompts


AnyRequest = ChatRequest | TextRequest
