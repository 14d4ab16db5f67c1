"""
The web server: an OpenAI-compatible API and the chat page, over one model on one worker thread.

The event loop only moves bytes; nanochat.worker decodes, and a request gives its place there back when its client goes
away. `create_app` takes an engine and loads nothing, so tests and scripts/chat_web.py build it alike. What requests and
answers look like is nanochat.openai_api's business, who may ask and how much is nanochat.limits'. A model in /v1/models
also tells `max_model_len` and `defaults`. Text is never echoed into a page or an error unescaped, and errors carry no
traceback. No conversation is logged or kept.
"""
import asyncio
import base64
import contextlib
import functools
import hashlib
import json
import re
import secrets
import time
from pathlib import Path

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect

from nanochat.common import log
from nanochat.limits import Guard, read_body
from nanochat.metrics import Metrics
from nanochat.openai_api import SCHEMAS, ApiError, ChatRequest, TextRequest, Writer, parse, schemas, server_error
from nanochat.sampling import Sampling
from nanochat.worker import Full, Stopped, Worker

RETRY_AFTER_S = 2
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def reply_json(value, status=200, headers=None):
    """`value` as an ASCII JSON response: a lone surrogate in an echoed name must not become a 500."""
    return Response(json.dumps(value), status, headers, "application/json")


# -------------------------------------------------------------------------------------------------------------- answers
class Answers:
    """The jobs of one request, their events as they come, and what they cost."""

    def __init__(self, worker, jobs, metrics):
        self.worker, self.jobs, self.metrics = worker, jobs, metrics
        self.began, self.first, self.usages = time.monotonic(), {}, [None] * len(jobs)
        self._arrived, self._pumps = asyncio.Queue(), []

    async def _pump(self, index, job):
        async for event in job.events():
            self._arrived.put_nowait((index, event))

    async def arrive(self):
        """(index, events) of the answers, all that has come since the last time at once, until each has ended."""
        self._pumps = [asyncio.create_task(self._pump(*item)) for item in enumerate(self.jobs)]
        running = len(self.jobs)
        while running:
            batch = {}
            items = [await self._arrived.get()]
            while not self._arrived.empty():
                items.append(self._arrived.get_nowait())
            for index, event in items:
                batch.setdefault(index, []).append(event)
                running -= event.kind in ("end", "error")
            for index, events in batch.items():
                self._count(index, events[-1])
                yield index, events

    def _count(self, index, event):
        now = time.monotonic()
        if index not in self.first:
            self.first[index] = now
            self.metrics.observe("first_token", now - self.began)
        if event.kind == "end":
            self.usages[index] = event.usage
            self.metrics.tokens.update(event.usage)
            self.metrics.observe("per_token", (now - self.first[index]) / max(event.usage["completion_tokens"] - 1, 1))

    def close(self):
        """Give the places back that are still held."""
        for pump in self._pumps:
            pump.cancel()
        for job in self.jobs:
            self.worker.cancel(job)


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


def _or(given, default):
    return default if given is None else given


class Api:
    """What the endpoints do: from a request to jobs, and from the jobs to a response."""

    def __init__(self, worker, model_id, temperature, top_k, metrics):
        self.worker, self.engine, self.metrics, self.reserved = worker, worker.engine, metrics, 0
        self.model = {"id": model_id, "object": "model", "created": int(time.time()), "owned_by": "nanochat",
                      "max_model_len": self.engine.max_len, "defaults": {
                          "temperature": temperature, "top_k": top_k, "max_tokens": self.engine.max_len // 4}}

    def check_model(self, name):
        """Raise ApiError 404 unless `name` is the model served here, or nothing."""
        if name not in (None, "", self.model["id"]):
            raise ApiError(404, f"No model {name[:100]!r} here, only {self.model['id']!r}.", param="model",
                           code="model_not_found")

    @contextlib.contextmanager
    def places(self, n):
        """Reserve n places while a request is tokenized. Raises Full, before that work, when they are not to be had."""
        if n > self.worker.places:
            raise ApiError(400, f"This server has places for {self.worker.places} answers, the request wants {n}.",
                           param="n", code="invalid_value")
        if self.worker.busy + self.reserved + n > self.worker.places:
            raise Full(f"The server is busy with {self.worker.busy} requests. Try again in a moment.")
        self.reserved += n
        try:
            yield
        finally:
            self.reserved -= n

    def sampling(self, wanted, prompts):
        """The request's Sampling. Raises ApiError 400, saying by how much, when prompt and answer are too long."""
        longest, limit, defaults = max(map(len, prompts)), self.engine.max_len, self.model["defaults"]
        over = longest + (wanted.limit or 1) - limit
        if over > 0:
            what = "messages" if wanted.chat else "prompt"
            raise ApiError(400, f"The model's context is {limit} tokens; the {what} take {longest} of them and the "
                                f"answer may have {wanted.limit or 1}, which is {over} too many. Shorten either.",
                           param=what, code="context_length_exceeded")
        return Sampling(wanted.limit or limit - longest, _or(wanted.temperature, defaults["temperature"]),
                        _or(wanted.top_k, defaults["top_k"]), wanted.top_p, _or(wanted.seed, secrets.randbits(62)),
                        wanted.chat, wanted.min_p, wanted.repetition_penalty, wanted.stops, wanted.alternatives)

    async def answers(self, wanted):
        """The Answers to a request, queued; tokenized off the event loop."""
        n = wanted.n or 1
        with self.places(n * wanted.n_prompts):
            prompts = await asyncio.to_thread(wanted.prompts, self.engine.tokenizer)
            sampling, jobs = self.sampling(wanted, prompts), []
            for prompt in prompts:
                jobs += [self.worker.submit(prompt, sampling, index) for index in range(n)]
        return Answers(self.worker, jobs, self.metrics)

    async def answer(self, kind, request):
        """The response to a request of `kind`, whole or as a stream."""
        self.worker.check()   # before the work of reading and parsing
        wanted = parse(kind, await read_body(request))
        self.check_model(wanted.model)
        answers, writer = await self.answers(wanted), Writer(wanted, self.model["id"])
        if wanted.stream:
            return EventStream(writer.chunks(answers.arrive(), answers.usages), on_close=answers.close)
        try:
            return reply_json(await unless_gone(request, writer.finished(answers.arrive(), answers.usages)))
        finally:
            answers.close()

    async def chat(self, request: Request):
        return await self.answer(ChatRequest, request)

    async def text(self, request: Request):
        return await self.answer(TextRequest, request)


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
class Counted:
    """ASGI middleware: counts responses, and turns what nobody foresaw into a 500 that tells nothing."""

    def __init__(self, app, metrics):
        self.app, self.metrics = app, metrics

    async def __call__(self, scope, receive, send):
        status = None

        async def counting(message):
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                path = getattr(scope.get("route"), "path", "other")
                self.metrics.requests[path, status] += 1
            await send(message)
        try:
            await self.app(scope, receive, counting)
        except ClientDisconnect:
            pass   # while its request was read: nobody is left to be answered
        except Exception:
            log.exception("the server failed to answer")
            if status is not None:
                raise
            body = server_error("Something went wrong inside the server.").body
            await reply_json(body, 500)(scope, receive, counting)


def openapi(keyed):
    """The OpenAPI document. What JSON schema cannot say: messages take turns, and prompt and answer fit the context."""
    def door(kind, wanted=None, **more):
        kinds = [kind, "text/event-stream"] if wanted else [kind]
        body = {"content": {"application/json": {"schema": {"$ref": SCHEMAS.format(model=wanted)}}}, "required": True}
        answers = {"200": kinds, "4XX": ["application/json"], "5XX": ["application/json"]}
        responses = {status: {"description": "", "content": {k: {} for k in kinds}} for status, kinds in answers.items()}
        return {"post" if wanted else "get": {"responses": responses, **({"requestBody": body} if wanted else {}), **more}}
    js, key = "application/json", {"security": [{"key": []}]} if keyed else {}
    name = {"parameters": [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]}
    return {"openapi": "3.1.0", "info": {"title": "nanochat", "version": "1"}, "paths": {
        "/": door("text/html"), "/health": door(js), "/ready": door(js), "/metrics": door("text/plain", **key),
        "/v1/models": door(js, **key), "/v1/models/{name}": door(js, **key, **name),
        "/v1/completions": door(js, "TextRequest", **key),
        **dict.fromkeys(("/v1/chat/completions", "/chat/completions"), door(js, "ChatRequest", **key))},
        "components": {"schemas": schemas(), "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}}}


def handle_errors(app):
    """Give every error OpenAI's shape."""
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


def add_state(app, worker, metrics, guard):
    """The doors through which a server is watched."""
    @app.get("/health")
    async def health():
        state = {"status": "failed" if worker.failed else "ok", "busy": worker.busy, "places": worker.places}
        return reply_json(state, 503 if worker.failed else 200)

    @app.get("/ready")
    async def ready():
        worker.check()   # 429 or 503, unless a request would be taken now
        return reply_json({"status": "ready"})

    @app.get("/metrics", dependencies=[Depends(guard.client)])
    async def shown():
        running = min(worker.busy, worker.slots)
        return Response(metrics.text(running=running, waiting=worker.busy - running), media_type="text/plain")

    @app.get("/openapi.json")
    async def described():
        return reply_json(openapi(guard.api_key))


def create_app(engine, *, model_id, api_key=None, hosts=(), slots=8, max_waiting=32, temperature=0.0, top_k=50, rate=0):
    """The ASGI application. It owns a Worker, started and stopped with it.

    `hosts` are the names under which it may be asked (empty: any); `slots` answers are decoded together, `max_waiting`
    more may wait; `temperature` and `top_k` are for requests that name none; `rate` is how many requests a client may
    make in a minute (0: any).
    """
    worker, metrics = Worker(engine, slots, max_waiting), Metrics()

    @contextlib.asynccontextmanager
    async def lifespan(app):
        worker.start()
        yield
        await asyncio.to_thread(worker.stop)

    guard, api = Guard(api_key, hosts, rate), Api(worker, model_id, temperature, top_k, metrics)
    app = FastAPI(title="nanochat", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None,
                  dependencies=[Depends(guard.origin)])
    app.state.worker = worker
    app.add_middleware(Counted, metrics=metrics)
    handle_errors(app)
    keyed = [Depends(guard.client)]
    add_state(app, worker, metrics, guard)

    @app.get("/")
    async def chat_page():
        html, policy = page()
        return Response(html, media_type="text/html", headers={
            "Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-cache"})

    @app.get("/v1/models", dependencies=keyed)
    async def models():
        return reply_json({"object": "list", "data": [api.model]})

    @app.get("/v1/models/{name:path}", dependencies=keyed)
    async def model(name: str):
        api.check_model(name)
        return reply_json(api.model)

    for path, answer in (("/chat/completions", api.chat), ("/v1/chat/completions", api.chat), ("/v1/completions", api.text)):
        app.post(path, dependencies=keyed)(answer)
    return app
