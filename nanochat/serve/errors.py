"""
Errors as OpenAI's clients know them: an HTTP status and a body {"error": {"message", "type", "param",
"code"}}.

The one place where errors of other rooms get a status: see `api_error`. What nobody foresaw tells the client
nothing, for a traceback may hold paths, prompts or keys; it goes into the log.
"""
import json
from typing import Any

from fastapi import Response
from starlette.exceptions import HTTPException

from nanochat.serve.refusals import Busy, NoModel, Stopped

RETRY_AFTER_S = 2  # in which a busy server is likely to have given a place back


class ApiError(Exception):
    """A refusal: 4xx says that the client can mend it, 5xx that it cannot."""

    def __init__(
        self,
        status: int,
        message: str,
        type: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ):
        super().__init__(message)
        self.status = status
        self.headers = headers
        self.body = {"error": {"message": message, "type": type, "param": param, "code": code}}


def invalid(message: str, param: str | None) -> ApiError:
    """400: the field `param` of the request cannot be used as given."""
    return ApiError(400, message, param=param, code="invalid_value")


def server_error(message: str) -> ApiError:
    """500: not the client's fault."""
    return ApiError(500, message, "server_error", code="engine_failed")


def reply_json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A response in ASCII: a lone surrogate in an echoed name must not become a 500."""
    return Response(json.dumps(value), status, headers, "application/json")


def api_error(error: Exception) -> ApiError:
    """The same for what the worker raises (Busy, Stopped) and for FastAPI's own (no such path, no such
    method).

    429 and Retry-After say "the same request will do, later", which clients do by themselves; 503 says "do
    not wait".
    """
    if isinstance(error, Busy):
        return ApiError(429, str(error), "rate_limit_error", code="queue_full",
                        headers={"Retry-After": str(RETRY_AFTER_S)})
    if isinstance(error, (Stopped, NoModel)):
        return ApiError(503, str(error), "server_error", code="unavailable")
    if isinstance(error, HTTPException):
        return ApiError(error.status_code, error.detail, headers=error.headers)
    assert isinstance(error, ApiError), f"no status for {error!r}"
    return error
