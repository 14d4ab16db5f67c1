"""
The web server: an OpenAI-compatible API and the chat page, over one model on one worker thread.

This file is the table of what is served under which path. The event loop only moves bytes; worker.py decodes,
openai_*.py read and write JSON, middleware.py lies around each request, limits.py and origins.py guard,
answers.py bridges thread and loop, static.py has the page.
"""
import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from fastapi import Depends, FastAPI, Response
from fastapi.responses import PlainTextResponse
from fastapi.security import HTTPBearer

from nanochat.infer.engine import Engine
from nanochat.serve import metrics
from nanochat.serve.errors import ApiError
from nanochat.serve.feedback import Feedback
from nanochat.serve.limits import Guard
from nanochat.serve.metrics import Metrics
from nanochat.serve.middleware import add_layers, refuse
from nanochat.serve.openai_api import OpenAIApi, reply_json
from nanochat.serve.openai_requests import ChatRequest, schemas
from nanochat.serve.origins import KnownNames
from nanochat.serve.static import add_page
from nanochat.serve.text_requests import TextRequest
from nanochat.serve.worker import Busy, Stopped, Worker


def add_state(app: FastAPI, worker: Worker, counted: Metrics, keyed: list) -> None:
    """What a monitor or a load balancer asks: is it alive (/health), may it be sent more (/ready), how does
    it do."""
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
        return Response(counted.text(), media_type=metrics.CONTENT_TYPE)


def add_openai(app: FastAPI, api: OpenAIApi, keyed: list) -> None:
    """OpenAI's API, and the document that describes all of the server to programs."""
    @app.get("/v1/models", dependencies=keyed)
    async def models():
        return {"object": "list", "data": [api.model]}

    @app.get("/v1/models/{name:path}", dependencies=keyed)
    async def model(name: str) -> dict:
        api.check_model(name)
        return api.model

    for path, kind in (("/v1/chat/completions", ChatRequest), ("/v1/completions", TextRequest)):
        # FastAPI does not read the body itself (we bound its bytes and seconds first), so it has to be told
        # of it.
        schema = {"$ref": f"#/components/schemas/{kind.__name__}"}
        body = {"required": True, "content": {"application/json": {"schema": schema}}}
        add = app.post(path, dependencies=keyed, summary=kind.__name__, description=kind.__doc__,
                       responses={200: {"content": {"text/event-stream": {}}}},
                       openapi_extra={"requestBody": body})
        add(functools.partial(api.answer, kind))

    @app.get("/openapi.json", include_in_schema=False)
    async def described():
        document = app.openapi()
        document.setdefault("components", {})["schemas"] = schemas(ChatRequest, TextRequest)
        return document


def create_app(engine: Engine, *, model_id: str, api_key: str | None = None, hosts: tuple[str, ...] = (),
               public_hosts: tuple[str, ...] = (), allow_origins: tuple[str, ...] = (), slots: int = 8,
               max_waiting: int = 32, temperature: float = 0.0, top_k: int = 50, rate: int = 0,
               suggestions: Sequence[str] = (), feedback: Path | None = None) -> FastAPI:
    """The ASGI application, which starts and stops a Worker.

    `hosts`, `public_hosts` and `allow_origins`: see origins.KnownNames. `temperature` and `top_k` are for
    requests that name none; `rate` is how many requests a client may make in a minute (0: any);
    `suggestions` are questions for the page to offer; `feedback` is a file for what people think of answers.
    """
    worker = Worker(engine, slots, max_waiting)
    counted = Metrics(worker)
    guard = Guard(api_key, rate)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        worker.hand_over = asyncio.get_running_loop().call_soon_threadsafe
        worker.start()
        yield
        await asyncio.to_thread(worker.stop)

    error = {"content": {"application/json": {}}}
    app = FastAPI(title="nanochat", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None,
                  redirect_slashes=False, responses={"4XX": error, "5XX": error},
                  exception_handlers=dict.fromkeys((ApiError, Busy, Stopped, 404, 405), refuse))
    app.state.worker = worker
    add_layers(app, KnownNames(hosts, public_hosts, allow_origins), counted)

    keyed = [Depends(guard.check_client)]
    if api_key:
        # This one refuses nobody: it makes the OpenAPI document say that a key is wanted.
        keyed.append(Depends(HTTPBearer(auto_error=False)))
    add_page(app)
    add_state(app, worker, counted, keyed)
    api = OpenAIApi(worker, model_id, temperature, top_k, counted, suggestions)
    api.model["feedback"] = feedback is not None
    add_openai(app, api, keyed)
    if feedback:
        app.post("/v1/feedback", dependencies=keyed)(Feedback(feedback).take)
    return app
