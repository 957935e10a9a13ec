"""Routes under load, answered ahead of FastAPI: a typed body in, a typed value out, no detour."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from inspect import cleandoc
from typing import Any, Generic, TypeVar

import msgspec
from starlette.responses import Response

from api.faults import body_fault
from api.problems import MEDIA_TYPE, Problem, problem
from api.telemetry import Telemetry
from engine.request import LONGEST_ID
from engine.service import Engine

Body = TypeVar("Body")

ID = msgspec.Meta(
    extra_json_schema={
        "minLength": 1,
        "maxLength": LONGEST_ID,
        "description": "Printable characters.",
    }
)
"""What the engine asks of an identifier beside its type."""

_ENCODER = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Call(Generic[Body]):
    """A request as a handler sees it."""

    body: Body
    headers: Iterable[tuple[bytes, bytes]]
    engine: Engine
    telemetry: Telemetry


@dataclass(frozen=True, slots=True)
class RawRoute(Generic[Body]):
    """A path to which bodies are sent, and how the OpenAPI document describes it.

    ``takes`` is the type of a body, ``model`` the one struct within it, ``gives`` the type of an
    answer. ``asks`` is what the schema of ``model`` says beside its fields; ``errors`` describes
    the statuses of the engine's refusals. All of ``methods`` do the same.
    """

    path: str
    takes: Any
    model: type[msgspec.Struct]
    gives: type[Any]
    handle: Callable[[Call[Body]], Awaitable[Any]]
    tag: str
    summary: str
    errors: dict[int, str]
    asks: Mapping[str, Any] = field(default_factory=dict)
    links: Mapping[str, Any] = field(default_factory=dict)
    methods: tuple[str, ...] = ("POST",)
    decoder: msgspec.json.Decoder[Body] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "decoder", msgspec.json.Decoder(self.takes))

    async def answer(
        self,
        sent: bytes,
        headers: Iterable[tuple[bytes, bytes]],
        engine: Engine,
        telemetry: Telemetry,
    ) -> Response:
        """The answer to a body; the engine's refusals are raised."""
        try:
            body = self.decoder.decode(sent)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            is_json = isinstance(error, msgspec.ValidationError)
            detail = "the body is not what this route takes" if is_json else "the body is not JSON"
            # Reading a large one again takes a while, in which others want answers.
            fault = await asyncio.to_thread(body_fault, sent, self.model, error)
            return problem(400, detail, [fault])
        given = await self.handle(Call(body, headers, engine, telemetry))
        return Response(_ENCODER.encode(given), media_type="application/json")

    def openapi(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The path item and the schemas that it refers to, for the OpenAPI document."""
        (body, given, problem_), schemas = msgspec.json.schema_components(
            [self.takes, self.gives, Problem], ref_template="#/components/schemas/{name}"
        )
        for schema in schemas.values():
            schema["description"] = cleandoc(schema["description"])
        schemas[self.model.__name__] |= self.asks
        answered: dict[str, Any] = {
            "description": HTTPStatus.OK.phrase,
            "content": {"application/json": {"schema": given}},
        }
        if self.links:
            answered["links"] = self.links
        operation = {
            "tags": [self.tag],
            "summary": self.summary,
            "description": cleandoc(self.handle.__doc__ or ""),
            "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
            "responses": {
                "200": answered,
                **{
                    str(status): {
                        "description": text,
                        "content": {MEDIA_TYPE: {"schema": problem_}},
                    }
                    for status, text in sorted((_ERRORS | self.errors).items())
                },
            },
        }
        name = self.handle.__name__
        operations = {
            method.lower(): {"operationId": name if not at else f"{name}_{method.lower()}"}
            | operation
            for at, method in enumerate(self.methods)
        }
        return operations, schemas


_ERRORS = {
    400: "The body is malformed, or names what cannot be.",
    413: "The body is too large.",
    500: "The engine failed.",
    503: "The log is unavailable.",
}
