"""
What lies around every request, from the outside in. Each layer is plain ASGI: a coroutine that gets a
request's `scope`, and `receive` and `send` for messages, and calls the next.
"""
from fastapi import FastAPI, Request, Response
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nanochat.common import log
from nanochat.serve.errors import ApiError, api_error, reply_json, server_error
from nanochat.serve.metrics import Metrics
from nanochat.serve.origins import KnownNames


async def refuse(request: Request, error: Exception) -> Response:
    """The response to an error that has a status."""
    refusal = api_error(error)
    said = refusal.body["error"]
    if refusal.status == 405:
        if request.method == "OPTIONS":  # what may be done here? The header Allow says it
            return Response(status_code=204, headers=refusal.headers)
        allowed = refusal.headers["Allow"] if refusal.headers else "other methods"
        said["message"] = f"{request.method} does not go here, only {allowed}."
    elif refusal.status == 404 and said["code"] is None:
        said["message"] = f"Nothing is at this address. There are {_addresses(request.app)}."
    return reply_json(refusal.body, refusal.status, refusal.headers)


def _addresses(app):
    """Those of the OpenAPI document: "GET /health, GET /ready, ..."."""
    told = []
    for route in app.routes:
        if route.include_in_schema:
            told.append(f"{' '.join(route.methods)} {route.path_format}")
    return ", ".join(told)


class Forgiving:
    """Takes an address as its client meant it.

    A client puts a base URL, which ends in /v1 or does not, in / or does not, before a path: what comes is
    /models, /v1//models or /v1/v1/models/. HEAD is GET without the body, which uvicorn leaves out by itself.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            parts = [part for part in scope["path"].split("/") if part]
            while parts[:2] == ["v1", "v1"]:
                del parts[0]
            if parts and parts[0] in ("models", "chat", "completions"):
                parts.insert(0, "v1")
            method = "GET" if scope["method"] == "HEAD" else scope["method"]
            scope = {**scope, "path": "/" + "/".join(parts), "method": method}
        await self.app(scope, receive, send)


class CountAndCatch:
    """Counts responses, and turns what nobody foresaw into a 500."""

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def counting_send(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                # The route's pattern, never the path as asked: who asks for /1, /2, /3... would fill the
                # memory.
                path = getattr(scope.get("route"), "path", "other")
                self.metrics.requests.labels(path, message["status"]).inc()
            await send(message)

        try:
            await self.app(scope, receive, counting_send)
        except ClientDisconnect:
            pass  # while its request was read: nobody is left to be answered
        except Exception:
            log.exception("the server failed to answer")
            if started:
                raise
            failed = server_error("Something went wrong inside the server.")
            await reply_json(failed.body, failed.status)(scope, receive, counting_send)


class CheckNames(CORSMiddleware):
    """Answers 403 to who asks by a foreign name, or from a foreign page: see origins.py.

    Browsers ask before a page of another origin may send JSON or a key (a preflight, OPTIONS), and let it
    read an answer only if that names its origin: CORS, which is the class above.
    """

    def __init__(self, app: ASGIApp, names: KnownNames):
        super().__init__(app, names.origins, ["GET", "POST"], ["*"], expose_headers=["Retry-After"],
                         allow_private_network=True)
        self.names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = super().__call__
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            try:
                self.names.check(headers.get("host"), headers.get("origin"))
            except ApiError as error:
                answer = reply_json(error.body, error.status)
        await answer(scope, receive, send)


def add_layers(app: FastAPI, names: KnownNames, metrics: Metrics) -> None:
    """Put all of them around an application, the innermost first."""
    app.add_middleware(CheckNames, names=names)
    app.add_middleware(CountAndCatch, metrics=metrics)
    app.add_middleware(Forgiving)
