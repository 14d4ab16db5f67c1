"""What keeps a server up when clients are careless or hostile."""
import asyncio
import hmac
import ipaddress
import math
import re
import time

import uvicorn
from fastapi import Request
from uvicorn.protocols.http.h11_impl import H11Protocol

from nanochat.serve.openai_api import ApiError

MAX_BODY_BYTES = 1 << 20
MAX_CONNECTIONS = 500
MAX_CLIENTS = 10_000  # whose rate is remembered
RECEIVE_S = 10.0  # for a request's headers, and again for its body
DRAIN_S = 30  # for running answers at the end


async def read_body(request) -> bytes:
    """Raises ApiError 413, whatever Content-Length says, or 408."""
    async def read():
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise ApiError(413, f"The request is larger than {MAX_BODY_BYTES} bytes.", code="request_too_large")
        return body
    try:
        return await asyncio.wait_for(read(), RECEIVE_S)
    except asyncio.TimeoutError:
        raise ApiError(408, f"The request took longer than {RECEIVE_S:g} seconds to arrive.", code="request_timeout",
                       headers={"Connection": "close"}) from None


class Rate:
    """At most `per_minute` requests a client in any minute (GCRA: ATM Forum, 1996)."""

    def __init__(self, per_minute):
        self.step, self.due = 60 / per_minute, {}  # seconds a request costs; when clients have paid, oldest first

    def wait(self, client):
        """Seconds until the client may ask; 0 counts it."""
        now = time.monotonic()
        due = max(now, self.due.pop(client, 0.0)) + self.step
        late = max(0.0, due - now - 60 - 1e-6)
        self.due[client] = due - self.step if late else due
        if len(self.due) > MAX_CLIENTS:
            del self.due[next(iter(self.due))]
        return late


def client_of(request):
    """The client's address, or the IPv6 network that one customer gets."""
    host = request.client.host if request.client else ""
    try:
        return str(ipaddress.ip_network((host, 64), strict=False)) if ":" in host else host
    except ValueError:  # a proxy's word
        return host


class Guard:
    """Who may ask. `hosts` is against DNS rebinding."""

    def __init__(self, api_key, hosts, rate):
        self.api_key, self.hosts, self.rate = api_key, hosts, Rate(rate) if rate else None

    async def origin(self, request: Request):
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if self.hosts and re.sub(r":\d*$", "", host).strip("[]").lower() not in self.hosts:
            raise ApiError(403, "This server is not known by that name.", "permission_error", code="wrong_host")
        if origin is not None and origin.partition("://")[2] != host:
            raise ApiError(403, "Another site may not use this server.", "permission_error", code="wrong_origin")

    async def client(self, request: Request):
        """Raises ApiError 429 or 401."""
        if self.rate and (wait := self.rate.wait(client_of(request))):
            wait = math.ceil(wait)
            raise ApiError(429, f"Too many requests. Try again in {wait} seconds.", "rate_limit_error",
                           code="rate_limit_exceeded", headers={"Retry-After": str(wait)})
        given = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        if self.api_key and not hmac.compare_digest(given.encode("latin-1"), self.api_key.encode()):
            raise ApiError(401, "A valid API key is needed: Authorization: Bearer <key>.", "authentication_error",
                           code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


class Connection(H11Protocol):
    """Closed RECEIVE_S after it was opened or last answered unless a request's headers are complete (slow loris), the
    oldest earlier beyond MAX_CONNECTIONS. uvicorn bounds neither."""

    def connection_made(self, transport):
        super().connection_made(transport)
        self._watch()
        if len(self.connections) > MAX_CONNECTIONS:
            oldest = min((c for c in self.connections if c.idle), key=lambda c: c.since)
            self.connections.discard(oldest)  # the transport reports its end only later
            oldest.transport.abort()

    @property
    def idle(self):
        return self.cycle is None or self.cycle.response_complete

    def _watch(self):
        self.since = self.loop.time()
        self.timer = self.loop.call_later(RECEIVE_S, self._late)

    def _late(self):
        if self.idle:
            self.transport.abort()

    def on_response_complete(self):
        self.timer.cancel()
        self._watch()
        super().on_response_complete()

    def connection_lost(self, exc):
        self.timer.cancel()
        super().connection_lost(exc)


def server(app):
    return uvicorn.Server(uvicorn.Config(app, http=Connection, ws="none", log_level="warning", access_log=False,
                                         server_header=False, timeout_graceful_shutdown=DRAIN_S))
