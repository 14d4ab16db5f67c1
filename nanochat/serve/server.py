"""
The web server: an OpenAI-compatible API, the chat page, and what it shows of a run.

This file is the table of what is served under which path. The event loop only moves bytes; worker.py decodes,
served.py has the models, openai_*.py read and write JSON, middleware.py lies around each request, limits.py
and origins.py guard, answers.py bridges thread and loop, static.py has the page, run_view.py what it shows.
"""
import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from fastapi.security import HTTPBearer
from pydantic import TypeAdapter, ValidationError

from nanochat.serve import metrics, run_view
from nanochat.serve.errors import ApiError, invalid, reply_json
from nanochat.serve.feedback import Feedback
from nanochat.serve.limits import Guard, read_body
from nanochat.serve.middleware import add_layers, refuse
from nanochat.serve.openai_requests import ChatRequest, parse, schemas
from nanochat.serve.origins import KnownNames
from nanochat.serve.refusals import Busy, NoModel, Stopped
from nanochat.serve.served import Served
from nanochat.serve.static import add_page, add_report
from nanochat.serve.text_requests import AnyRequest, TextRequest

PLACES = TypeAdapter(dict[str, str | tuple[int, int]])  # of run_view.view: how far each file was read


def add_state(app: FastAPI, served: Served, keyed: list) -> None:
    """What a monitor or a load balancer asks: is it alive (/health), may it be sent more (/ready), how does
    it do."""
    @app.get("/health")
    async def health():
        state = {"status": "failed" if served.failed else "ok", "busy": served.busy, "places": served.places}
        return reply_json(state, 503 if served.failed else 200)

    @app.get("/ready")
    async def ready():
        served.check()
        return {"status": "ready"}

    @app.get("/metrics", dependencies=keyed, response_class=PlainTextResponse)
    async def shown():
        return Response(served.metrics.text(), media_type=metrics.CONTENT_TYPE)


def add_openai(app: FastAPI, served: Served, keyed: list, feedback: bool) -> None:
    """OpenAI's API, and the document that describes all of the server to programs."""
    def described_model(found):
        return {**served.describe(found), "feedback": feedback}

    @app.get("/v1/models", dependencies=keyed)
    async def models():
        listed = await asyncio.to_thread(lambda: [described_model(found) for found in served.source.found()])
        return {"object": "list", "data": listed}

    @app.get("/v1/models/{name:path}", dependencies=keyed)
    async def model(name: str) -> dict:
        return await asyncio.to_thread(lambda: described_model(served.find(name)))

    async def answer(kind: type[AnyRequest], request: Request) -> Response:
        served.check()  # before the work of reading and parsing
        wanted = parse(kind, await read_body(request))
        api = await served.api(wanted.model)
        return await api.answer(wanted, request)

    for path, kind in (("/v1/chat/completions", ChatRequest), ("/v1/completions", TextRequest)):
        # FastAPI does not read the body itself (we bound its bytes and seconds first), so it has to be told
        # of it.
        schema = {"$ref": f"#/components/schemas/{kind.__name__}"}
        body = {"required": True, "content": {"application/json": {"schema": schema}}}
        add = app.post(path, dependencies=keyed, summary=kind.__name__, description=kind.__doc__,
                       responses={200: {"content": {"text/event-stream": {}}}},
                       openapi_extra={"requestBody": body})
        add(functools.partial(answer, kind))

    @app.get("/openapi.json", include_in_schema=False)
    async def described():
        document = app.openapi()
        document.setdefault("components", {})["schemas"] = schemas(ChatRequest, TextRequest)
        return document


def add_run(app: FastAPI, served: Served, keyed: list) -> None:
    """What the page shows of a run; `after` is what the view before said, so that only news is sent."""
    def view(places):
        return {**run_view.view(places), "models": [found.id for found in served.source.found()]}

    @app.get("/run", dependencies=keyed, include_in_schema=False)
    async def run(after: str = "{}") -> Response:
        try:
            places = PLACES.validate_json(after)
        except ValidationError:
            raise invalid("after is not what an earlier answer said.", "after") from None
        return reply_json(await asyncio.to_thread(view, places))


def create_app(served: Served, *, api_key: str | None = None, hosts: tuple[str, ...] = (),
               public_hosts: tuple[str, ...] = (), allow_origins: tuple[str, ...] = (), rate: int = 0,
               feedback: Path | None = None) -> FastAPI:
    """The ASGI application, which starts and stops the threads of the models.

    `hosts`, `public_hosts` and `allow_origins`: see origins.KnownNames. `rate` is how many requests a client
    may make in a minute (0: any); `feedback` is a file for what people think of answers.
    """
    guard = Guard(api_key, rate)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        served.start(asyncio.get_running_loop().call_soon_threadsafe)
        yield
        await asyncio.to_thread(served.stop)

    error = {"content": {"application/json": {}}}
    app = FastAPI(title="nanochat", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None,
                  redirect_slashes=False, responses={"4XX": error, "5XX": error},
                  exception_handlers=dict.fromkeys((ApiError, Busy, Stopped, NoModel, 404, 405), refuse))
    app.state.served = served
    add_layers(app, KnownNames(hosts, public_hosts, allow_origins), served.metrics)

    keyed = [Depends(guard.check_client)]
    if api_key:
        # This one refuses nobody: it makes the OpenAPI document say that a key is wanted.
        keyed.append(Depends(HTTPBearer(auto_error=False)))
    add_page(app)
    add_run(app, served, keyed)
    add_report(app, keyed)
    add_state(app, served, keyed)
    add_openai(app, served, keyed, feedback is not None)
    if feedback:
        app.post("/v1/feedback", dependencies=keyed)(Feedback(feedback).take)
    return app
