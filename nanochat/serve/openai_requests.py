"""
OpenAI's API: what a request may say (https://platform.openai.com/docs/api-reference). Knows no HTTP.

Beyond OpenAI's: `top_k`, `min_p`, `repetition_penalty`. Unknown fields are ignored, as clients send new ones
every month; `tools` are refused when they would change the answer. pydantic checks each field by
its annotation, strictly: the text "1" is no number. What the classes below say is also what the server's
OpenAPI document says.
"""
import json
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.json_schema import models_json_schema

from nanochat.common import DataError
from nanochat.data.chat_format import render_prompt
from nanochat.data.tokenizer import Tokenizer
from nanochat.serve.errors import ApiError, invalid

MAX_MESSAGES = 1000


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


# ---- types of fields
def _whole_float_as_int(value: Any) -> Any:
    """JSON knows one kind of number: 12.0 is an integer, too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def whole(low: int, high: int | None = None) -> Any:
    """The type of an integer from `low` to `high`."""
    return Annotated[int, Field(ge=low, le=high), BeforeValidator(_whole_float_as_int)]


# ---- messages (comments, not docstrings: those would be told to clients in the OpenAPI document)
class Part(_Strict):
    type: Literal["text", "python", "python_output"]
    text: str


class Message(_Strict):
    role: Literal["system", "user", "assistant"]
    content: str | list[Part]

    # As the chat format wants it. A user's text that looks like a tool call stays text; a tool call as such
    # would let users put words into the assistant's mouth.
    def plain(self) -> dict:
        if isinstance(self.content, str) or self.role == "assistant":
            return self.model_dump()
        if any(part.type != "text" for part in self.content):
            raise DataError(f"only the assistant can use tools, not the {self.role}")
        return {"role": self.role, "content": "".join(part.text for part in self.content)}


# ---- requests
class StreamOptions(_Strict):
    include_usage: bool = False


class CompletionRequest(_Strict):
    model: str | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: whole(0, 1 << 20) | None = None
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    max_tokens: whole(1) | None = None
    seed: whole(-(1 << 63), (1 << 63) - 1) | None = None
    n: whole(1, 128) | None = None
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def answers_per_prompt(self) -> int:
        return self.n or 1

    def echoed(self, number: int, prompt: list[int]) -> int:
        """How many last tokens of prompt `number` are told again before its answers: none."""
        return 0

    @property
    def stop_strings(self) -> tuple[str, ...]:
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(text for text in given if text)

    @property
    def wants_usage(self) -> bool:
        """Whether a stream is to end with the counts of tokens."""
        return self.stream_options is not None and self.stream_options.include_usage


class ChatRequest(CompletionRequest):
    """The next message of a conversation."""

    is_chat: ClassVar = True
    prompt_field: ClassVar = "messages"
    n_prompts: ClassVar = 1
    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_completion_tokens: whole(1) | None = None
    logprobs: bool | None = None
    top_logprobs: whole(0, 20) | None = None
    tools: Annotated[list, Field(max_length=0)] | None = None

    @property
    def answer_limit(self) -> int | None:
        """Tokens of the longest answer; None: what the context has room for."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def alternatives(self) -> int | None:
        """How many likeliest tokens to tell with each; None: no log-probabilities at all."""
        return (self.top_logprobs or 0) if self.logprobs else None

    def prompts(self, tokenizer: Tokenizer) -> list[list[int]]:
        """The token ids of each prompt. Raises ApiError 400."""
        try:
            return [render_prompt(tokenizer, [message.plain() for message in self.messages])]
        except DataError as error:
            raise invalid(str(error), "messages") from None


# ---- reading
Wanted = TypeVar("Wanted", bound=CompletionRequest)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")  # NaN and Infinity, which Python's reader would let through


def parse(kind: type[Wanted], body: bytes) -> Wanted:
    """Read a request of a `kind`. Raises ApiError 400 with the field that is wrong."""
    try:
        text = body.decode(json.detect_encoding(body))  # UTF-8; Windows marks it, or writes UTF-16
        return kind.model_validate(json.loads(text, parse_constant=_no_constant))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(str(step) for step in first["loc"]) or None
        raise invalid(f"{field or 'the body'}: {first['msg']}", field) from None
    # No JSON, too long an integer, or [[[[... as deep as the body is long.
    except (ValueError, RecursionError):
        raise ApiError(400, "The body is not valid JSON in UTF-8.", code="invalid_json") from None


def schemas(*kinds: type[CompletionRequest]) -> dict[str, dict]:
    """Requests of these kinds, and what they consist of, as JSON schemas for the OpenAPI document."""
    read: Any = [(kind, "validation") for kind in kinds]
    return models_json_schema(read, ref_template="#/components/schemas/{model}")[1]["$defs"]
