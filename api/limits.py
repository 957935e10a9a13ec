"""Limits on the size of heads and bodies, kept before anything is parsed."""

from __future__ import annotations

from starlette.responses import Response
from starlette.types import Message, Receive

from api.problems import problem

LARGEST_BODY_BYTES = 1_000_000
LARGEST_HEAD_BYTES = 32_768


def head_too_large() -> str:
    """What a request is told whose head is larger than the limit."""
    return f"the headers and the path are larger than {LARGEST_HEAD_BYTES:,} bytes; send less"


def body_too_large() -> Response:
    """The answer to a request whose body is larger than the limit, declared or sent."""
    return problem(413, f"the body is larger than {LARGEST_BODY_BYTES:,} bytes; send less")


def is_too_large(declared: bytes) -> bool:
    """Whether a declared length is beyond the limit, or none."""
    return not declared.isdigit() or int(declared) > LARGEST_BODY_BYTES


async def whole_body(receive: Receive) -> list[Message] | None:
    """The messages up to the end of a body, None as soon as they hold more than the limit.

    The last is no ``http.request`` where the client left before the end.
    """
    messages = []
    size = 0
    more = True
    while more:
        message = await receive()
        messages.append(message)
        size += len(message.get("body", b""))
        if size > LARGEST_BODY_BYTES:
            return None
        more = message.get("more_body", False)
    return messages
