"""
OpenAI's older API: what a request for the continuation of a text may say. Knows no HTTP.

It has no roles and no turns, which suits a base model, and programs that measure one.
"""
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BeforeValidator, Field

from nanochat.data.tokenizer import Tokenizer
from nanochat.serve.errors import invalid
from nanochat.serve.openai_requests import ChatRequest, CompletionRequest, whole

DEFAULT_TEXT_TOKENS = 16  # of a continuation whose max_tokens is not given: OpenAI's default there


def _only_booleans(value: Any) -> Any:
    """0 equals False in Python, in JSON it does not; "" equals no boolean."""
    return value if isinstance(value, bool) else ""


OnlyFalse = Annotated[Literal[False], BeforeValidator(_only_booleans)]
TokenIds = Annotated[list[whole(0)], Field(min_length=1)]
Many = Annotated[list[TypeVar("T")], Field(min_length=1, max_length=128)]


class TextRequest(CompletionRequest):
    """The continuation of a document that begins with a text, or with token ids."""

    is_chat: ClassVar = False
    prompt_field: ClassVar = "prompt"
    prompt: str | Many[str] | TokenIds | Many[TokenIds]
    logprobs: whole(0, 20) | None = None
    echo: OnlyFalse | None = None

    @property
    def answer_limit(self) -> int:
        """Tokens of the longest answer."""
        return self.max_tokens or DEFAULT_TEXT_TOKENS

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

    def prompts(self, tokenizer: Tokenizer) -> list[list[int]]:
        """The token ids of each prompt. Raises ApiError 400."""
        # Text can never make those, so ids that are given may not either.
        first_special = len(tokenizer.tokens)
        prompts = []
        for given in self._listed:
            ids = tokenizer.encode(given) if isinstance(given, str) else given
            if any(token >= first_special for token in ids):
                raise invalid(f"Token ids must be below {first_special}.", "prompt")
            prompts.append([tokenizer.bos_id, *ids])
        return prompts


AnyRequest = ChatRequest | TextRequest
