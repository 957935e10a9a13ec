"""Limits on the size of heads and bodies, kept before anything is parsed."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import problem

LARGEST_BODY_BYTES = 1_000_000
LARGEST_HEAD_BYTES = 32_768


def head_too_large() -> str:
    """What a request is told whose head is larger than the limit."""
    return f"the headers and the path are larger than {LARGEST_HEAD_BYTES:,} bytes; send less"


class HeadLimit:
    """Answers 431 to a request whose path, query and headers are larger than the limit."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            size = len(scope["path"]) + len(scope["query_string"])
            for name, value in scope["headers"]:
                size += len(name) + len(value)
            if size > LARGEST_HEAD_BYTES:
                await problem(431, head_too_large())(scope, receive, send)
                return
        await self._app(scope, receive, send)


class BodyLimit:
    """Answers 413 to a request whose body is larger than a limit, declared or sent."""

    def __init__(self, app: ASGIApp, largest: int = LARGEST_BODY_BYTES) -> None:
        self._app = app
        self._largest = largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self._largest:
            await self._refuse(scope, receive, send)
            return
        received = 0
        parts: list[Message] = []
        # A body without a declared length is read here, so that it can still be refused whole.
        if b"content-length" not in dict(scope["headers"]):
            while True:
                message = await receive()
                parts.append(message)
                received += len(message.get("body", b""))
                if received > self._largest:
                    await self._refuse(scope, receive, send)
                    return
                if not message.get("more_body"):
                    break
        waiting = iter(parts)

        async def replayed() -> Message:
            return next(waiting, None) or await receive()

        await self._app(scope, replayed, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = problem(413, f"the body is larger than {self._largest:,} bytes; send less")
        await response(scope, receive, send)
