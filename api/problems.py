"""Errors as ``application/problem+json`` (RFC 9457), each naming its fields."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

import msgspec
from starlette.responses import Response

from engine.errors import (
    ConflictError,
    EngineError,
    NotFoundError,
    ReportError,
    RequestError,
    StoreError,
)
from engine.service import Journal

MEDIA_TYPE = "application/problem+json"


class FieldError(msgspec.Struct, frozen=True):
    """What is wrong with one field; ``field`` is a dotted path, empty for the whole."""

    field: str
    message: str


class Problem(msgspec.Struct, frozen=True):
    """The body of every error."""

    type: str
    title: str
    status: int
    detail: str
    errors: tuple[FieldError, ...] = ()


_ENCODER = msgspec.json.Encoder()
_FAILED = "the engine failed; its log says why"


def problem(
    status: int,
    detail: str,
    errors: Sequence[FieldError] = (),
    headers: dict[str, str] | None = None,
) -> Response:
    """A response of the status, with a problem as its body."""
    title = HTTPStatus(status).phrase
    body = Problem("about:blank", title, status, detail, tuple(errors))
    return Response(_ENCODER.encode(body), status, headers, media_type=MEDIA_TYPE)


def shown(value: object) -> str:
    """A value as a message names it, not at length."""
    try:
        return shortened(repr(value))
    except RecursionError:
        return "nested deeply"


def shortened(text: str, longest: int = 60) -> str:
    """The text, cut with an ellipsis where it is longer."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def problem_of(error: EngineError) -> Response:
    """The response to an error of the engine."""
    if isinstance(error, RequestError):
        status = (
            404
            if isinstance(error, NotFoundError)
            else 409
            if isinstance(error, ConflictError)
            else 400
        )
        return problem(status, str(error), [FieldError(error.field, error.message)])
    if isinstance(error, ReportError):
        return problem(400, str(error), [FieldError("", str(error))])
    if isinstance(error, StoreError):
        return problem(503, "the log is unavailable; ask again", headers={"Retry-After": "1"})
    return problem(500, _FAILED)


def failed(error: Exception, journal: Journal) -> Response:
    """The response to an error; what is no fault of the request is journalled."""
    if not isinstance(error, EngineError):
        journal.warning("failed", error=type(error).__name__)
        return problem(500, _FAILED)
    response = problem_of(error)
    if response.status_code >= 500:
        journal.warning("failed", error=type(error).__name__, message=str(error))
    return response
