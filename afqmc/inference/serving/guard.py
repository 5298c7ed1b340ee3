"""ASGI middleware around all endpoints: access, type and time limits of requests, security headers, log and metrics."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
import uuid
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from afqmc.inference.serving.json_log import log_event
from afqmc.inference.serving.service_metrics import ServiceMetrics
from afqmc.inference.serving.settings import MAX_BODY, is_loopback

OPEN_PATHS = {"/", "/page.js", "/page.css", "/health", "/ready", "/docs", "/openapi.json"}  # without a token: no data
PATHS = OPEN_PATHS | {"/predict", "/explain", "/model", "/examples", "/metrics"}
INTERNAL_ERROR = "internal error; the log of the service has the reason"
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


class Guard:
    """Answers requests that may not reach the endpoints, and adds headers, a log line and metrics to all.

    Without a token, the ``Host`` header must name this machine: a web site whose name resolves to 127.0.0.1 (DNS
    rebinding) could otherwise read the answers in a browser on this machine.

    Args:
        app: The endpoints.
        token: The token that clients must send; None for a service on a loopback address.
        metrics: Counts the requests.
        body_timeout_s: Seconds in which the body must arrive.
    """

    def __init__(self, app: ASGIApp, token: str | None, metrics: ServiceMetrics, body_timeout_s: float) -> None:
        self._app, self._token, self._metrics, self._body_timeout_s = app, token, metrics, body_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        since, status, identity = time.perf_counter(), 0, uuid.uuid4().hex[:16]
        state = scope.setdefault("state", {})
        state["fields"] = {}  # that endpoints add to the log line
        path = scope["path"] if scope["path"] in PATHS else "(unknown)"  # any other path could contain texts

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                extra = {**_HEADERS, "x-request-id": identity}
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in extra.items())]
            await send(message)

        try:
            if refusal := self._refuse(scope):
                await _answer(send_with_headers, *refusal)
            else:
                await self._app(scope, self._limited(receive), send_with_headers)
        except Exception as error:
            log_event("error", logging.ERROR, exc_info=error, id=identity, path=path)
            if status == 0:
                await _answer(send_with_headers, 500, INTERNAL_ERROR)
        finally:
            seconds = time.perf_counter() - since
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.seconds.labels(path).observe(seconds)
            if path not in ("/health", "/ready", "/metrics"):
                fields = {"id": identity, "method": scope["method"], "path": path, "status": status}
                log_event("request", **fields, seconds=round(seconds, 6), **state["fields"])

    def _refuse(self, scope: Scope) -> tuple[int, str] | None:
        """Return the status and the message for a request that is refused, or None."""
        headers = {name.lower(): value for name, value in scope["headers"]}
        if self._token is None:
            host = headers.get(b"host", b"").decode("latin-1").rsplit(":", 1)
            name = host[0] if len(host) == 1 or host[1].isdigit() else ":".join(host)
            if not is_loopback(name):
                return 421, "Host: must be localhost or an address of this machine; any other name needs a token"
        elif scope["path"] not in OPEN_PATHS:
            sent = headers.get(b"authorization", b"").removeprefix(b"Bearer ").strip()
            if not hmac.compare_digest(sent, self._token.encode()):
                return 401, "Authorization: must be Bearer TOKEN"
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > MAX_BODY:
            return 413, f"Content-Length: at most {MAX_BODY} bytes"
        if scope["method"] == "POST" and scope["path"] in PATHS:
            kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
            if kind != b"application/json":
                return 415, "Content-Type: must be application/json"
        return None

    def _limited(self, receive: Receive) -> Receive:
        """Fail if the body takes too long. Later messages, such as a disconnect, may take any time."""
        deadline, is_complete = asyncio.get_running_loop().time() + self._body_timeout_s, False

        async def limited() -> Message:
            nonlocal is_complete
            if is_complete:
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError as error:
                raise HTTPException(408, "the body of the request did not arrive in time") from error
            is_complete = not message.get("more_body", False)
            return message

        return limited


async def _answer(send: Send, status: int, error: str) -> None:
    body = json.dumps({"error": error}).encode()
    headers: list[Any] = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
