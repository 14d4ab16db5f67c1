"""
OpenAI's API: what a request may say (https://platform.openai.com/docs/api-reference). Knows no HTTP.

Beyond OpenAI's: `top_k`, `min_p`. Unknown fields are ignored, as clients send new ones
every month, but those which `_refuse` knows to change the answer. pydantic checks each field by
its annotation, strictly: the text "1" is no number. What the classes below say is also what the server's
OpenAPI document says.
"""
import json
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BeforeValidator, Field, ValidationError
from pydantic.json_schema import models_json_schema

from nanochat.common import DataError
from nanochat.data.chat_format import render_continued
from nanochat.data.tokenizer import Tokenizer
from nanochat.serve.errors import ApiError, invalid
from nanochat.serve.openai_messages import Message, Strict, conversation
from nanochat.serve.sentences import complaint

MAX_MESSAGES = 1000
# OpenAI's for other models, and other servers': each would change the answer.
UNSERVED = ("suffix", "audio", "web_search_options", "guided_json", "guided_regex", "guided_choice",
            "structured_outputs", "grammar", "format", "json_schema", "stop_token_ids", "min_tokens",
            "ignore_eos", "extra_body")


# ---- types of fields
def _whole_float_as_int(value: Any) -> Any:
    """JSON knows one kind of number: 12.0 is an integer, too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def whole(low: int, high: int | None = None) -> Any:
    """The type of an integer from `low` to `high`."""
    return Annotated[int, Field(ge=low, le=high), BeforeValidator(_whole_float_as_int)]


def _or_minus_one(kind: Any, meaning: int | None) -> Any:  # other servers' "no limit"
    return Annotated[kind, BeforeValidator(lambda value: meaning if value == -1 else value)]


Limit = _or_minus_one(whole(1) | None, None)
TokenId = Annotated[str, Field(pattern=r"^\d{1,9}$")]  # JSON's objects have no numbers for keys
LogitBias = Annotated[dict[TokenId, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=1024)]


# ---- requests
class StreamOptions(Strict):
    include_usage: bool = False


class JsonSchema(Strict):
    schema_: dict[str, Any] | None = Field(None, alias="schema")


class ResponseFormat(JsonSchema):  # the schema may stand in it directly, as llama.cpp has it
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class CompletionRequest(Strict):
    model: str | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: _or_minus_one(whole(0, 1 << 20) | None, 0) = None
    min_p: float | None = Field(None, ge=0, le=1)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: LogitBias | None = None
    response_format: ResponseFormat | None = None
    max_tokens: Limit = None
    seed: whole(-(1 << 63), (1 << 63) - 1) | None = None
    n: whole(1, 128) | None = None
    stop: str | Annotated[list[str], Field(max_length=32)] | None = None
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
    def json_schema(self) -> str | None:
        """What the answer is to be; None: anything."""
        wanted = self.response_format
        if wanted is None or wanted.type == "text":
            return None
        schema = (wanted.json_schema or wanted).schema_
        return json.dumps({"type": "object"} if schema is None else schema)

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
    max_completion_tokens: Limit = None
    logprobs: bool | None = None
    top_logprobs: whole(0, 20) | None = None

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
        if self.json_schema and self.messages[-1].role == "assistant":
            raise invalid("With a response_format the last message cannot be the assistant's.", "messages")
        try:
            return [render_continued(tokenizer, conversation(self.messages))]
        except DataError as error:
            raise invalid(f"{error}.", "messages") from None


# ---- reading
Wanted = TypeVar("Wanted", bound=Strict)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")  # NaN and Infinity, which Python's reader would let through


def _refuse(body: dict) -> None:
    """Raise ApiError 400 for what would change the answer and cannot be had here."""
    for name, choice in (("tools", "tool_choice"), ("functions", "function_call")):
        if body.get(name) and body.get(choice) != "none":
            raise invalid(f"This model cannot call {name} of the client. Leave {name} away, or set {choice} "
                          'to "none".', name)
    changed = [name for name in UNSERVED if body.get(name)]
    limit = body.get("max_tokens")
    harmless = {"best_of": body.get("n") or 1, "modalities": ["text"], "repeat_penalty": 1, "typical_p": 1,
                "max_new_tokens": limit, "n_predict": limit}
    changed += [name for name, value in harmless.items() if body.get(name) not in (None, -1, value)]
    if changed:
        name = changed[0]
        raise invalid(f"{name} is not served here, and would change the answer. Leave it away.", name)


def parse(kind: type[Wanted], body: bytes) -> Wanted:
    """Read a request of a `kind`. Raises ApiError 400 with the field that is wrong."""
    try:
        text = body.decode(json.detect_encoding(body))  # UTF-8; Windows marks it, or writes UTF-16
        given = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        rest = error.doc[error.pos:][:20] or "its end"
        raise ApiError(400, f"The body is not valid JSON at {rest!r}.", code="invalid_json") from None
    # No text, NaN, too long an integer, or [[[[... as deep as the body is long.
    except (ValueError, RecursionError):
        raise ApiError(400, "The body is not valid JSON in UTF-8.", code="invalid_json") from None
    if isinstance(given, dict):
        _refuse(given)
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise invalid(*complaint(error, given)) from None


def schemas(*kinds: type[CompletionRequest]) -> dict[str, dict]:
    """Requests of these kinds, and what they consist of, as JSON schemas for the OpenAPI document."""
    read: Any = [(kind, "validation") for kind in kinds]
    return models_json_schema(read, ref_template="#/components/schemas/{model}")[1]["$defs"]
