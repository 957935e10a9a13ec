"""What every request passes before its route, in one pass: size, key, time taken, headers.

The routes under load are answered here, ahead of FastAPI: its layers cost a decision as much as an
empty endpoint costs in all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.access import SECURITY_HEADERS, Access, is_open
from api.limits import (
    LARGEST_HEAD_BYTES,
    body_too_large,
    head_too_large,
    is_too_large,
    whole_body,
)
from api.problems import failed, problem
from api.raw import RawRoute
from api.telemetry import Telemetry
from engine.errors import EngineError
from engine.service import Engine, Journal

_CLIENT_LEFT = 499
"""What is counted where nothing was answered; no client ever sees it."""
_HEADERS = [(name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]


class Gate:
    """Refuses, answers by a raw route, or lets through to ``app``; measures and marks answers."""

    def __init__(
        self,
        app: ASGIApp,
        raw: Mapping[str, RawRoute[Any]],
        engine: Callable[[], Engine],
        telemetry: Telemetry,
        journal: Journal,
        access: Access | None,
    ) -> None:
        """``raw`` are routes by path; ``engine`` is asked once the application has started."""
        self._app = app
        self._raw = raw
        self._engine = engine
        self._telemetry = telemetry
        self._journal = journal
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = _CLIENT_LEFT
        route = self._raw.get(scope["path"])

        async def marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message["headers"]
                present = {name for name, _ in headers}
                headers += [header for header in _HEADERS if header[0] not in present]
            await send(message)

        try:
            refusal = self._refusal(scope)
            if refusal is not None:
                await refusal(scope, receive, marked)
            elif route is not None:
                await self._answer(route, scope, receive, marked)
            else:
                await self._pass_on(scope, receive, marked)
        finally:
            path = route.path if route is not None else _path_of(scope)
            self._telemetry.requested(path, status, time.perf_counter() - began)

    def _refusal(self, scope: Scope) -> Response | None:
        """The answer to a request that may not go on, before a byte of its body is read."""
        path = scope["path"]
        size = len(path) + len(scope["query_string"])
        key = length = None
        for name, value in scope["headers"]:
            size += len(name) + len(value)
            if name == b"authorization" and key is None:
                key = value
            elif name == b"content-length":
                length = value
        if size > LARGEST_HEAD_BYTES:
            return problem(431, head_too_large())
        if self._access and not is_open(path):
            refusal = self._access.refusal(path, key)
            if refusal is not None:
                return refusal
        return body_too_large() if length is not None and is_too_large(length) else None

    async def _answer(
        self, route: RawRoute[Any], scope: Scope, receive: Receive, send: Send
    ) -> None:
        if scope["method"] not in route.methods:
            allowed = ", ".join(route.methods)
            refused = problem(405, "Method Not Allowed", headers={"Allow": allowed})
            await refused(scope, receive, send)
            return
        messages = await whole_body(receive)
        if messages is None:
            await body_too_large()(scope, receive, send)
            return
        if messages[-1]["type"] != "http.request":
            return  # the client left
        sent = b"".join([message.get("body", b"") for message in messages])
        try:
            response = await route.answer(sent, scope["headers"], self._engine(), self._telemetry)
        except EngineError as error:
            response = failed(error, self._journal)
        except Exception as error:
            await failed(error, self._journal)(scope, receive, send)
            raise  # to the server, whose log says where
        await response(scope, receive, send)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        # A body without a declared length is read here, so that it can still be refused whole.
        if any(name == b"content-length" for name, _ in scope["headers"]):
            await self._app(scope, receive, send)
            return
        messages = await whole_body(receive)
        if messages is None:
            await body_too_large()(scope, receive, send)
            return
        waiting = iter(messages)

        async def replayed() -> Message:
            return next(waiting, None) or await receive()

        await self._app(scope, replayed, send)


def _path_of(scope: Scope) -> str:
    """The route's path as it is declared, so that ids in paths make no label."""
    return getattr(scope.get("route"), "path", None) or "none"
