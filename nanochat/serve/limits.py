"""
What keeps a server up when clients are careless or hostile.

Every resource a stranger can hold has a bound: bytes of a body, seconds until a request has arrived,
connections, requests a minute (and answers: see worker.py). It is no substitute for a proxy with TLS on the
open internet.
"""
import asyncio
import hmac
import ipaddress
import math
import time
import zlib

import uvicorn
from fastapi import FastAPI, Request
from uvicorn.protocols.http.h11_impl import H11Protocol

from nanochat.serve.errors import ApiError

MAX_BODY_BYTES = 1 << 20
MAX_CONNECTIONS = 500
MAX_CLIENTS = 10_000  # whose rate is remembered
RECEIVE_S = 10.0  # for a request's headers, and again for its body
DRAIN_S = 30  # for running answers at the end


# ---- how much
async def read_body(request: Request) -> bytes:
    """Raises ApiError 413 when it is too large, whatever Content-Length says, 408 when it takes too long, or
    400 or 415 when it is packed in a way that is not understood."""
    async def read() -> bytes:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            _check_size(body)
        return bytes(body)

    try:
        body = await asyncio.wait_for(read(), RECEIVE_S)
        return _unpacked(body, request.headers.get("content-encoding", "identity").strip().lower())
    except asyncio.TimeoutError:
        raise ApiError(
            408,
            f"The request took longer than {RECEIVE_S:g} seconds to arrive.",
            code="request_timeout",
            headers={"Connection": "close"},
        ) from None


def _check_size(body):
    if len(body) > MAX_BODY_BYTES:
        message = f"The request is larger than {MAX_BODY_BYTES} bytes."
        raise ApiError(413, message, code="request_too_large")


def _unpacked(body, coding):
    """A kilobyte can be a megabyte of blanks, packed: no more is unpacked than may be."""
    if coding == "identity":
        return body
    if coding not in ("gzip", "x-gzip", "deflate"):
        message = f"Content-Encoding {coding[:50]!r} is not understood here: send gzip, deflate or none."
        raise ApiError(415, message, code="unsupported_encoding")
    unpacker = zlib.decompressobj(wbits=47)  # tells gzip's format and deflate's apart by itself
    try:
        body = unpacker.decompress(body, MAX_BODY_BYTES + 1)
    except zlib.error:
        raise ApiError(400, f"The body is not {coding}, as Content-Encoding says.",
                       code="invalid_encoding") from None
    _check_size(body)
    return body


# ---- how often
class RateLimit:
    """At most `per_minute` requests a client in any minute, also all at once.

    The generic cell rate algorithm (GCRA; ATM Forum, 1996), in words: a request costs 60 / per_minute
    seconds, and each client has a time until which its requests are paid for. That time never lies in the
    past (who was away saves nothing up) and at most a minute in the future (who asks faster than that is
    refused). One number a client is all that is remembered, where a list of the last minute's requests would
    grow with an attack.
    """

    def __init__(self, per_minute: int):
        self.cost_s = 60 / per_minute
        self.paid_until: dict[str, float] = {}  # time.monotonic() by client, who asked longest ago first

    def wait_s(self, client: str) -> float:
        """Seconds until the client may ask; 0 counts this request."""
        now = time.monotonic()
        before = max(now, self.paid_until.pop(client, 0.0))
        after = before + self.cost_s
        late = max(0.0, after - now - 60 - 1e-6)  # less than a microsecond is rounding
        self.paid_until[client] = after - self.cost_s if late else after  # put at the end: asked just now
        if len(self.paid_until) > MAX_CLIENTS:
            oldest = next(iter(self.paid_until))
            del self.paid_until[oldest]
        return late


def client_of(request: Request) -> str:
    """Whose request it is: an address, or the IPv6 network that one customer gets, with 2^64 addresses to
    choose from."""
    host = request.client.host if request.client else ""
    try:
        return str(ipaddress.ip_network((host, 64), strict=False)) if ":" in host else host
    except ValueError:  # a proxy's word
        return host


# ---- who
class Guard:
    """Who may ask. The check is a FastAPI dependency: it runs before a request's body is read."""

    def __init__(self, api_key: str | None, rate: int):
        self.api_key = api_key
        self.rate_limit = RateLimit(rate) if rate else None

    async def check_client(self, request: Request) -> None:
        """Raises ApiError 429 when it asks too often, 401 without the key. In this order: guessing keys is
        slow, too."""
        if self.rate_limit:
            wait_s = math.ceil(self.rate_limit.wait_s(client_of(request)))
            if wait_s:
                raise ApiError(429, f"Too many requests. Try again in {wait_s} seconds.", "rate_limit_error",
                               code="rate_limit_exceeded", headers={"Retry-After": str(wait_s)})
        if self.api_key:
            given = request.headers.get("authorization", "")
            scheme, _, key = given.partition(" ")
            if scheme.lower() == "bearer":
                given = key.strip()
            # == stops at the first byte that differs, so the time of a refusal tells how many were right, and
            # a key can be guessed byte by byte. This comparison always takes the same time.
            if not hmac.compare_digest(given.encode("latin-1"), self.api_key.encode()):
                raise ApiError(
                    401,
                    "A valid API key is needed: Authorization: Bearer <key>.",
                    "authentication_error",
                    code="invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )


# ---- how long
class BoundedConnection(H11Protocol):
    """A connection that cannot be held by doing nothing, which uvicorn itself does not bound.

    "Slow loris" is an attack by many connections that send a header now and then, byte by byte, and never
    finish, until the server has no file descriptor left for others. Here a connection is closed RECEIVE_S
    after it was opened or last answered unless a request's headers are complete by then; beyond
    MAX_CONNECTIONS the one idle for longest goes earlier. An answer may take as long as it likes.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._watch()
        if len(self.connections) > MAX_CONNECTIONS:
            idle = [connection for connection in self.connections if connection.idle]  # this new one at least
            oldest = min(idle, key=lambda connection: connection.idle_since)
            self.connections.discard(oldest)  # the transport reports its end only later
            oldest.transport.abort()

    @property
    def idle(self) -> bool:
        """No request's headers are complete, or it has been answered."""
        return self.cycle is None or self.cycle.response_complete

    def _watch(self) -> None:
        self.idle_since = self.loop.time()
        self._timer = self.loop.call_later(RECEIVE_S, self._close_if_idle)

    def _close_if_idle(self) -> None:
        if self.idle:
            self.transport.abort()

    def on_response_complete(self) -> None:
        self._timer.cancel()
        self._watch()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)


def server(app: FastAPI, trusted_proxy: str = "") -> uvicorn.Server:
    """uvicorn around the application, bounded; it stops on SIGTERM after at most DRAIN_S for answers on their
    way.

    What comes from the address (or network) `trusted_proxy` is of the client that its X-Forwarded-For names.
    From anybody else that header is a client's own invention: as many clients as it likes, for its rate.
    """
    config = uvicorn.Config(app, http=BoundedConnection, ws="none", log_level="warning", access_log=False,
                            server_header=False, timeout_graceful_shutdown=DRAIN_S,
                            proxy_headers=bool(trusted_proxy), forwarded_allow_ips=trusted_proxy)
    return uvicorn.Server(config)
