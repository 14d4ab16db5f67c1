"""
The web server: an OpenAI-compatible API and the chat page, over one model on one worker thread.

The event loop only moves bytes; nanochat.serve.worker decodes, openai_api reads and writes JSON, limits guards.
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

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse, StreamingResponse
from fastapi.security import HTTPBearer
from starlette.requests import ClientDisconnect

from nanochat.common import log
from nanochat.infer.sampling import Sampling
from nanochat.serve.limits import Guard, read_body
from nanochat.serve.metrics import Metrics
from nanochat.serve.openai_api import (
    ApiError,
    ChatRequest,
    TextRequest,
    Writer,
    invalid,
    parse,
    schemas,
    server_error,
)
from nanochat.serve.worker import Worker

SETTINGS = {"temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed"}


def reply_json(value, status=200, headers=None):
    """A response in ASCII: a lone surrogate in an echoed name must not become a 500."""
    return Response(json.dumps(value), status, headers, "application/json")


async def refuse(request, e):
    """The response to an ApiError or to FastAPI's own."""
    e = e if isinstance(e, ApiError) else ApiError(e.status_code, e.detail, headers=e.headers)
    return reply_json(e.body, e.status, e.headers)


# ---- answers
class Answers:
    def __init__(self, worker, metrics):
        self.worker, self.metrics, self.sequences = worker, metrics, []
        self.began, self.first = time.monotonic(), {}
        self._arrived, self._new = asyncio.Event(), {}

    def add(self, prompt, sampling, index):
        post = functools.partial(self._take, len(self.sequences))
        self.sequences.append(self.worker.submit(prompt, sampling, index, post))

    def _take(self, index, events):
        self._new.setdefault(index, []).extend(events)
        self._arrived.set()

    async def arrive(self):
        """(index, events) of the answers, all new ones at once, until each has ended."""
        running = len(self.sequences)
        while running:
            await self._arrived.wait()
            self._arrived.clear()
            new, self._new = self._new, {}
            for index, events in new.items():
                running -= events[-1].kind in ("end", "error")
                self._count(index, events[-1])
                yield index, events

    def _count(self, index, event):
        now = time.monotonic()
        if index not in self.first:
            self.first[index] = now
            self.metrics.observe("first_token_seconds", now - self.began)
        if event.kind == "end":
            self.metrics.update({f'tokens_total{{kind="{kind}"}}': n for kind, n in event.usage.items()})
            steps = max(event.usage["completion_tokens"] - 1, 1)
            self.metrics.observe("per_token_seconds", (now - self.first[index]) / steps)

    def close(self):
        for sequence in self.sequences:
            self.worker.cancel(sequence)


class EventStream(StreamingResponse):
    """Server-sent events. `on_close` runs however they end, even before the first byte."""

    def __init__(self, chunks, on_close):
        super().__init__(chunks, 200, {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}, "text/event-stream")
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
    """The result of `work`, or None as soon as the client has disconnected."""
    work, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        return work.result() if work.done() else None
    finally:
        work.cancel()
        gone.cancel()


class Api:
    def __init__(self, worker, model_id, temperature, top_k, metrics):
        self.worker, self.engine, self.metrics, self.reserved = worker, worker.engine, metrics, 0
        self.defaults = {"temperature": temperature, "top_k": top_k}
        self.model = {"id": model_id, "object": "model", "created": int(time.time()), "owned_by": "nanochat",
                      "max_model_len": self.engine.max_len,
                      "defaults": {**self.defaults, "max_tokens": self.engine.max_len // 4}}

    def check_model(self, name):
        if name not in (None, "", self.model["id"]):
            message = f"No model {name[:100]!r} here, only {self.model['id']!r}."
            raise ApiError(404, message, param="model", code="model_not_found")

    def sampling(self, wanted, prompts):
        """The request's Sampling. Raises ApiError 400 when prompt and answer are too long."""
        longest, limit = max(map(len, prompts)), self.engine.max_len
        over = longest + (wanted.limit or 1) - limit
        if over > 0:
            what = "messages" if wanted.chat else "prompt"
            raise ApiError(400, f"The model's context is {limit} tokens; the {what} take {longest} and the answer may "
                                f"have {wanted.limit or 1}, which is {over} too many.",
                           param=what, code="context_length_exceeded")
        given = wanted.model_dump(include=SETTINGS, exclude_none=True)
        return Sampling(max_new_tokens=wanted.limit or limit - longest, use_tools=wanted.chat, stop=wanted.stops,
                        logprobs=wanted.alternatives, **{"seed": secrets.randbits(62), **self.defaults, **given})

    async def answers(self, wanted, total):
        """The `total` Answers, queued; places are reserved before the request is tokenized off the event loop."""
        answers = Answers(self.worker, self.metrics)
        if total > self.worker.places:
            raise invalid(f"This server has places for {self.worker.places} answers, the request wants {total}.", "n")
        self.worker.check(self.reserved + total)
        self.reserved += total
        try:
            prompts = await asyncio.to_thread(wanted.prompts, self.engine.tokenizer)
            sampling = self.sampling(wanted, prompts)
            for prompt in prompts:
                for index in range(wanted.n or 1):
                    answers.add(prompt, sampling, index)
        finally:
            self.reserved -= total
        return answers

    async def answer(self, kind, request: Request):
        self.worker.check()  # before the work of reading and parsing
        wanted = parse(kind, await read_body(request))
        self.check_model(wanted.model)
        writer = Writer(wanted, self.model["id"])
        answers = await self.answers(wanted, writer.count)
        if wanted.stream:
            return EventStream(writer.chunks(answers.arrive()), on_close=answers.close)
        try:
            return reply_json(await unless_gone(request, writer.finished(answers.arrive())))
        finally:
            answers.close()


# ---- app
@functools.cache
def page():
    """(html, Content-Security-Policy): only the page's own style and script, known by their hashes, may run."""
    html = (Path(__file__).parent / "page" / "index.html").read_text(encoding="utf-8")

    def source(tag):
        inline = re.search(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)[1]
        return f"'sha256-{base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()}'"
    return html, (f"default-src 'none'; script-src {source('script')}; style-src {source('style')}; "
                  "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")


class Counted:
    """Counts responses, and turns what nobody foresaw into a 500 that tells nothing."""

    def __init__(self, app, metrics):
        self.app, self.metrics = app, metrics

    async def __call__(self, scope, receive, send):
        status = None

        async def counting(message):
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                path = getattr(scope.get("route"), "path", "other")
                self.metrics[f'requests_total{{path="{path}",status="{status}"}}'] += 1
            await send(message)
        try:
            await self.app(scope, receive, counting)
        except ClientDisconnect:
            pass  # while its request was read: nobody is left to be answered
        except Exception:
            log.exception("the server failed to answer")
            if status is not None:
                raise
            response = await refuse(None, server_error("Something went wrong inside the server."))
            await response(scope, receive, counting)


def add_doors(app, api, keyed):
    """FastAPI describes them, and is told of the requests' bodies, which it does not read itself."""
    worker = api.worker

    @app.get("/", response_class=HTMLResponse)
    async def chat_page():
        html, policy = page()
        return HTMLResponse(html, headers={
            "Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-cache"})

    @app.get("/health")
    async def health():
        state = {"status": "failed" if worker.failed else "ok", "busy": worker.busy, "places": worker.places}
        return reply_json(state, 503 if worker.failed else 200)

    @app.get("/ready")
    async def ready():
        worker.check()
        return {"status": "ready"}

    @app.get("/metrics", dependencies=keyed, response_class=PlainTextResponse)
    async def shown():
        running = min(worker.busy, worker.slots)
        return api.metrics.text(running=running, waiting=worker.busy - running)

    @app.get("/v1/models", dependencies=keyed)
    async def models():
        return {"object": "list", "data": [api.model]}

    @app.get("/v1/models/{name:path}", dependencies=keyed)
    async def model(name: str):
        api.check_model(name)
        return api.model

    for path, kind in (("/chat/completions", ChatRequest), ("/v1/chat/completions", ChatRequest),
                       ("/v1/completions", TextRequest)):
        schema = {"$ref": f"#/components/schemas/{kind.__name__}"}
        app.post(path, dependencies=keyed, summary=kind.__name__, description=kind.__doc__,
                 responses={200: {"content": {"text/event-stream": {}}}}, openapi_extra={
                     "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}},
                 )(functools.partial(api.answer, kind))

    @app.get("/openapi.json", include_in_schema=False)
    async def described():
        document = app.openapi()
        document.setdefault("components", {})["schemas"] = schemas()
        return document


def create_app(engine, *, model_id, api_key=None, hosts=(), slots=8, max_waiting=32, temperature=0.0, top_k=50, rate=0):
    """The ASGI application, which starts and stops a Worker.

    `hosts` are its names (empty: any); `temperature` and `top_k` are for requests that name none; `rate` is how many
    requests a client may make in a minute (0: any).
    """
    worker, metrics, guard = Worker(engine, slots, max_waiting), Metrics(), Guard(api_key, hosts, rate)

    @contextlib.asynccontextmanager
    async def lifespan(_):
        worker.call = asyncio.get_running_loop().call_soon_threadsafe
        worker.start()
        yield
        await asyncio.to_thread(worker.stop)

    error = {"content": {"application/json": {}}}
    app = FastAPI(title="nanochat", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None,
                  dependencies=[Depends(guard.origin)], responses={"4XX": error, "5XX": error},
                  exception_handlers=dict.fromkeys((ApiError, 404, 405), refuse))
    app.state.worker = worker
    app.add_middleware(Counted, metrics=metrics)
    keyed = [Depends(guard.client)] + ([Depends(HTTPBearer(auto_error=False))] if api_key else [])
    add_doors(app, Api(worker, model_id, temperature, top_k, metrics), keyed)
    return app
