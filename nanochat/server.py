"""
The web server: an OpenAI-compatible chat API and the chat page, over one model on one worker thread.

The event loop only moves bytes; nanochat.worker decodes, and a request gives its place there back when its client goes
away. `create_app` takes an engine and loads nothing, so tests and scripts/chat_web.py build it alike. Beyond OpenAI's
fields: `top_k` in a request, `parts` in a reply (tool calls, in nanochat's own conversation format) and `max_model_len`
and `defaults` of a model. Text is never echoed into a page or an error unescaped, and errors carry no traceback.
No conversation is logged or kept.
"""
import asyncio
import base64
import contextlib
import functools
import hashlib
import hmac
import json
import re
import secrets
import time
from pathlib import Path
from typing import Annotated, Literal

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nanochat.chat_format import render_prompt
from nanochat.common import DataError
from nanochat.sampling import Sampling
from nanochat.worker import Full, Stopped, Worker

MAX_BODY_BYTES = 1 << 20
MAX_MESSAGES = 1000
RETRY_AFTER_S = 2
LOOPBACK = ("127.0.0.1", "localhost", "::1")


# ------------------------------------------------------------------------------------------------------------- errors
class ApiError(Exception):
    """An error as OpenAI's clients expect it, with a true HTTP status."""

    def __init__(self, status, message, type="invalid_request_error", param=None, code=None, headers=None):
        super().__init__(message)
        self.status, self.headers = status, headers
        self.body = {"error": {"message": message, "type": type, "param": param, "code": code}}


def reply_json(value, status=200, headers=None):
    """`value` as an ASCII JSON response: a lone surrogate in an echoed name must not become a 500."""
    return Response(json.dumps(value), status, headers, "application/json")


# ------------------------------------------------------------------------------------------------------------ requests
class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class Part(_Strict):
    type: Literal["text", "python", "python_output"]
    text: str


class Message(_Strict):
    role: Literal["system", "user", "assistant"]
    content: str | list[Part]

    def plain(self):
        """As nanochat.chat_format wants it; only the assistant's content stays in parts."""
        content = self.content
        if not isinstance(content, str):
            if self.role != "assistant" and any(part.type != "text" for part in content):
                raise DataError(f"only the assistant can use tools, not the {self.role}")
            content = [part.model_dump() for part in content]
            content = content if self.role == "assistant" else "".join(part["text"] for part in content)
        return {"role": self.role, "content": content}


NoneOf = Annotated[list, Field(max_length=0)]


class StreamOptions(_Strict):
    include_usage: bool = False


class ChatRequest(_Strict):
    """OpenAI's chat request, as far as it is understood here. Unknown fields are ignored."""

    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    model: str | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0, le=1 << 20)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    seed: int | None = Field(None, ge=-(1 << 63), lt=1 << 63)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    # Known but not built: refused when they would change the answer, never silently ignored.
    n: Literal[1] | None = None
    logprobs: Literal[False] | None = None
    stop: Literal[""] | NoneOf | None = None
    tools: NoneOf | None = None


async def read_body(request) -> bytes:
    """The request's body. Raises ApiError 413 beyond MAX_BODY_BYTES, whatever Content-Length says."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise ApiError(413, f"The request is larger than {MAX_BODY_BYTES} bytes.", code="request_too_large")
    return bytes(body)


def _no_constant(name):
    raise ValueError(f"{name} is not JSON")


def parse_chat(body) -> ChatRequest:
    """The request in a JSON body. Raises ApiError 400 that names the field."""
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
        return ChatRequest.model_validate(value)
    except ValidationError as e:
        first = e.errors(include_url=False, include_context=False)[0]
        param = ".".join(str(x) for x in first["loc"]) or None
        raise ApiError(400, f"{param or 'the body'}: {first['msg']}", param=param, code="invalid_value") from None
    except (ValueError, RecursionError):
        raise ApiError(400, "The body is not valid JSON in UTF-8.", code="invalid_json") from None


# -------------------------------------------------------------------------------------------------------------- replies
class EventStream(StreamingResponse):
    """Server-sent events. `on_close` runs however the response ends, also when not one byte of it was sent."""

    def __init__(self, chunks, on_close):
        super().__init__(chunks, media_type="text/event-stream",
                         headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self.on_close = on_close

    async def __call__(self, scope, receive, send):
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.on_close()


def _sse(value):
    return f"data: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}\n\n"


def _usage(usage):
    prompt, completion = usage["prompt_tokens"], usage["completion_tokens"]
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _server_error(text):
    return ApiError(500, text, "server_error", code="engine_failed")


async def stream_chunks(job, head, include_usage):
    """OpenAI's chunks: the role first, then text, finish_reason only in the last, [DONE]. Tools are delta.parts."""
    def chunk(delta, reason=None):
        return _sse({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})
    yield chunk({"role": "assistant", "content": ""})
    async for event in job.events():
        if event.kind == "text":
            yield chunk({"content": event.text})
        elif event.kind == "end":
            yield chunk({}, event.finish_reason)
            if include_usage:
                yield _sse({**head, "choices": [], "usage": _usage(event.usage)})
        elif event.kind == "error":
            yield _sse(_server_error(event.text).body)
        else:
            yield chunk({"parts": [{"type": event.kind, "text": event.text}]})
    yield _sse("[DONE]")


async def whole_reply(job, head):
    """The finished reply as OpenAI's chat.completion. Raises ApiError 500 if the model fails."""
    parts = []
    async for event in job.events():
        if event.kind == "error":
            raise _server_error(event.text)
        if event.kind == "text" and parts and parts[-1]["type"] == "text":
            parts[-1]["text"] += event.text
        elif event.kind != "end":
            parts.append({"type": event.kind, "text": event.text})
    content = "".join(part["text"] for part in parts if part["type"] == "text")
    message = {"role": "assistant", "content": content, "parts": parts}
    return {**head, "choices": [{"index": 0, "message": message, "finish_reason": event.finish_reason}],
            "usage": _usage(event.usage)}


async def _gone(request):
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def unless_gone(request, work):
    """The result of coroutine `work`, or None as soon as the client has disconnected."""
    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return tasks[0].result() if tasks[0].done() else None
    finally:
        for task in tasks:
            task.cancel()


# ----------------------------------------------------------------------------------------------------------------- page
@functools.cache
def page():
    """(html, Content-Security-Policy): only the page's own inline style and script, known by their hashes, may run."""
    html = (Path(__file__).parent / "ui.html").read_text(encoding="utf-8")

    def source(tag):
        inline = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(x.encode()).digest()).decode()}'" for x in inline)
    return html, (f"default-src 'none'; script-src {source('script')}; style-src {source('style')}; "
                  "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")


# ------------------------------------------------------------------------------------------------------------------ app
class Guard:
    """Who may ask: the right Host (against DNS rebinding), the page's own Origin, and the API key if there is one."""

    def __init__(self, api_key, hosts):
        self.api_key, self.hosts = api_key, hosts

    async def origin(self, request: Request):
        """Raise ApiError 403 for a foreign Host or Origin."""
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if self.hosts and re.sub(r":\d*$", "", host).strip("[]").lower() not in self.hosts:
            raise ApiError(403, "This server is not known by that name.", "permission_error", code="wrong_host")
        if origin is not None and origin.partition("://")[2] != host:
            raise ApiError(403, "Another site may not use this server.", "permission_error", code="wrong_origin")

    async def key(self, request: Request):
        """Raise ApiError 401 without the API key; compared in constant time."""
        given = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        if self.api_key and not hmac.compare_digest(given.encode("latin-1"), self.api_key.encode()):
            raise ApiError(401, "A valid API key is needed: Authorization: Bearer <key>.", "authentication_error",
                           code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


def _or(given, default):
    return default if given is None else given


class Chat:
    """What the chat endpoints do: from a request to a job, and from the job to a response."""

    def __init__(self, worker, model_id, temperature, top_k):
        self.worker, self.model_id, self.engine = worker, model_id, worker.engine
        self.defaults = {"temperature": temperature, "top_k": top_k, "max_tokens": self.engine.max_len // 4}

    async def prompt(self, wanted):
        """Token ids of the conversation, tokenized off the event loop, and the tokens that the answer may have."""
        limit, asked = self.engine.max_len, wanted.max_completion_tokens or wanted.max_tokens
        try:
            ids = await asyncio.to_thread(render_prompt, self.engine.tokenizer, [m.plain() for m in wanted.messages])
        except DataError as e:
            raise ApiError(400, str(e), param="messages", code="invalid_value") from None
        over = len(ids) + (asked or 1) - limit
        if over > 0:
            raise ApiError(400, f"The model's context is {limit} tokens; the messages have {len(ids)} and the answer "
                                f"may have {asked or 1}, which is {over} too many. Shorten either.",
                           param="messages", code="context_length_exceeded")
        return ids, asked or limit - len(ids)

    async def __call__(self, request: Request):
        self.worker.check()   # before the work of reading and tokenizing
        wanted = parse_chat(await read_body(request))
        if wanted.model not in (None, "", self.model_id):
            raise ApiError(404, f"No model {wanted.model[:100]!r} here, only {self.model_id!r}.", param="model",
                           code="model_not_found")
        ids, room = await self.prompt(wanted)
        sampling = Sampling(room, _or(wanted.temperature, self.defaults["temperature"]),
                            _or(wanted.top_k, self.defaults["top_k"]), wanted.top_p,
                            _or(wanted.seed, secrets.randbits(62)))
        job = self.worker.submit(ids, sampling)
        kind = "chat.completion.chunk" if wanted.stream else "chat.completion"
        head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "object": kind, "created": int(time.time()),
                "model": self.model_id}
        if wanted.stream:
            usage = wanted.stream_options is not None and wanted.stream_options.include_usage
            return EventStream(stream_chunks(job, head, usage), on_close=lambda: self.worker.cancel(job))
        try:
            return reply_json(await unless_gone(request, whole_reply(job, head)))
        finally:
            self.worker.cancel(job)


def create_app(engine, *, model_id="nanochat", api_key=None, hosts=(), slots=8, max_waiting=32, temperature=0.0,
               top_k=0) -> FastAPI:
    """The application. `hosts` are the names it may be called by (empty: any); the rest are defaults of requests.

    `app.state.worker` is its Worker, started and stopped with the application.
    """
    worker = Worker(engine, slots, max_waiting)

    @contextlib.asynccontextmanager
    async def lifespan(app):
        worker.start()
        yield
        await asyncio.to_thread(worker.stop)

    guard, chat, born = Guard(api_key, hosts), Chat(worker, model_id, temperature, top_k), int(time.time())
    app = FastAPI(title="nanochat", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None,
                  dependencies=[Depends(guard.origin)])
    app.state.worker = worker

    @app.exception_handler(ApiError)
    async def api_error(request, e):
        return reply_json(e.body, e.status, e.headers)

    @app.exception_handler(Full)
    async def full(request, e):
        error = ApiError(429, str(e), "rate_limit_error", code="queue_full")
        return reply_json(error.body, 429, {"Retry-After": str(RETRY_AFTER_S)})

    @app.exception_handler(Stopped)
    async def stopped(request, e):
        return reply_json(ApiError(503, str(e), "server_error", code="unavailable").body, 503)

    @app.exception_handler(404)
    @app.exception_handler(405)
    async def no_such_door(request, e: HTTPException):
        return reply_json(ApiError(e.status_code, e.detail).body, e.status_code, e.headers)

    @app.exception_handler(Exception)
    async def unexpected(request, e):   # the traceback goes to the log, nothing of it to the client
        return reply_json(_server_error("Something went wrong inside the server.").body, 500)

    @app.get("/")
    async def chat_page():
        html, policy = page()
        return Response(html, media_type="text/html", headers={
            "Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-cache"})

    @app.get("/health")
    async def health():
        state = {"status": "failed" if worker.failed else "ok", "busy": worker.busy, "places": worker.places}
        return reply_json(state, 503 if worker.failed else 200)

    @app.get("/v1/models", dependencies=[Depends(guard.key)])
    async def models():
        return reply_json({"object": "list", "data": [
            {"id": model_id, "object": "model", "created": born, "owned_by": "nanochat",
             "max_model_len": engine.max_len, "defaults": chat.defaults}]})

    for path in ("/chat/completions", "/v1/chat/completions"):
        app.post(path, dependencies=[Depends(guard.key)])(chat.__call__)
    return app
