"""The routes that see little load: single decisions, reports, forgetting, health."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api.problems import shortened
from api.reports import Reports
from engine.errors import RequestError
from engine.forgetting import Person
from engine.request import LONGEST_ID
from engine.service import Engine

router = APIRouter()


LONGEST_LEARNER = 330

LongId = Annotated[str, Field(min_length=1, max_length=LONGEST_ID)]


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error responses of a route, for the OpenAPI document."""
    return {
        status: {
            "content": {"application/problem+json": {"schema": {"$ref": _PROBLEM}}},
            "description": _DESCRIPTIONS[status],
        }
        for status in statuses
    }


_PROBLEM = "#/components/schemas/Problem"
_DESCRIPTIONS = {
    400: "The request is malformed.",
    401: "The request holds no key in force.",
    403: "The key lacks the scope.",
    404: "Nothing of that name is stored or declared.",
    408: "The request did not come whole in time.",
    409: "The request contradicts what is stored.",
    413: "The body is too large.",
    429: "The key asks more often than the server allows.",
    431: "The headers are too large.",
    500: "The engine failed.",
    503: "The log is unavailable, or reports are too many or take too long.",
}


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class DifferenceBody(BaseModel):
    """A part of a record that a replay made otherwise."""

    field: str
    stored: Any
    replayed: Any


class ReplayBody(BaseModel):
    """Whether a decision came out the same, byte for byte."""

    decision_id: str
    identical: bool
    differences: list[DifferenceBody]
    largest_difference: float


class HealthBody(BaseModel):
    """What the server serves, and whether it can."""

    status: str
    revision: str
    snapshots: dict[str, str | None]
    reload_fault: str | None
    learning_fault: str | None


def engine_of(request: Request) -> Engine:
    """The engine that answers."""
    engine: Engine = request.app.state.engine
    return engine


def _reports(request: Request) -> Reports:
    reports: Reports = request.app.state.reports
    return reports


DecisionId = Annotated[str, Path(min_length=1, max_length=LONGEST_ID)]


@router.get(
    "/v1/decisions/{decision_id}",
    tags=["decisions"],
    summary="Explain a decision",
    responses=problems(400, 404, 500, 503),
)
async def explain(request: Request, decision_id: DecisionId) -> dict[str, Any]:
    """The whole record: what it was made of, each rule's verdict by clause, the probabilities,
    and the exposures and outcomes since."""
    return await engine_of(request).explain(decision_id)


@router.post(
    "/v1/decisions/{decision_id}/replay",
    tags=["decisions"],
    summary="Make a decision again and compare",
    responses=problems(400, 404, 409, 413, 500, 503),
)
async def replay(request: Request, decision_id: DecisionId) -> ReplayBody:
    """From the recorded inputs, revision and snapshots; imported decisions are refused (409)."""
    found = await engine_of(request).replay(decision_id)
    return ReplayBody(
        decision_id=found.decision_id,
        identical=found.identical,
        differences=[
            DifferenceBody(field=d.field, stored=d.stored, replayed=d.replayed)
            for d in found.differences
        ],
        largest_difference=found.largest_difference,
    )


class PersonBody(_Message):
    """Whom to forget: a user id, an anonymous id, or both."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": [name], "properties": {name: {"type": "string"}}}
                for name in ("user_id", "anonymous_id")
            ]
        }
    )

    user_id: LongId | None = None
    anonymous_id: LongId | None = None


class ForgottenBody(BaseModel):
    """What was erased, and which other identifiers stood beside those given."""

    decisions: int
    outcomes: int
    linked_user_ids: list[str]
    linked_anonymous_ids: list[str]


@router.post(
    "/v1/forget",
    tags=["operations"],
    summary="Erase a person from the log",
    responses=problems(400, 413, 500, 503),
)
async def forget(request: Request, body: PersonBody) -> ForgottenBody:
    """What is left counts as before and names nobody. The history of a linked identifier stays
    until that is forgotten, too. Repeat what was answered with an error."""
    found = await engine_of(request).forget(Person(body.user_id, body.anonymous_id))
    return ForgottenBody(
        decisions=found.decisions,
        outcomes=found.outcomes,
        linked_user_ids=list(found.linked_user_ids),
        linked_anonymous_ids=list(found.linked_anonymous_ids),
    )


class PromoteBody(_Message):
    """Whose candidate to judge."""

    learner: Annotated[str, Field(min_length=1, max_length=LONGEST_LEARNER)]


class RollbackBody(PromoteBody):
    """What to roll back: the last change of what serves, or to a snapshot."""

    to: Annotated[str, Field(min_length=6, max_length=64)] | None = None


@router.get(
    "/v1/snapshots",
    tags=["operations"],
    summary="Lineages and what serves of them",
    responses=problems(400, 500, 503),
)
async def snapshots(request: Request) -> dict[str, Any]:
    """By learner: what serves, its snapshots, newest first, and its promotions."""
    return await engine_of(request).lineages()


@router.post(
    "/v1/promote",
    tags=["operations"],
    summary="Judge a candidate",
    responses=problems(400, 404, 409, 413, 500, 503),
)
async def promote(request: Request, body: PromoteBody) -> dict[str, Any]:
    """As ``evenhand promote --json``: the candidate serves only if it passes."""
    return await engine_of(request).promote(body.learner)


@router.post(
    "/v1/rollback",
    tags=["operations"],
    summary="Serve what served before",
    responses=problems(400, 404, 409, 413, 500, 503),
)
async def rollback(request: Request, body: RollbackBody) -> dict[str, Any]:
    """Undoes the last promotion or hold, or holds a learner at a snapshot."""
    return await engine_of(request).roll_back(body.learner, body.to)


Target = Annotated[LongId, Field(json_schema_extra={"pattern": "^[^./]*$"})]
Units = Annotated[str | None, Query(description="Salted share of units, as 0.5:1.")]


@router.get(
    "/v1/lift",
    tags=["reports"],
    summary="Lift of an experiment",
    responses=problems(400, 404, 500, 503),
)
async def lift(
    request: Request,
    experiment: LongId,
    metric: Annotated[list[LongId] | None, Query()] = None,
    horizon: Literal["always", "fixed"] = "always",
    over: Literal["day", "week", "month"] | None = None,
    units: Units = None,
) -> dict[str, Any]:
    """As ``evenhand lift --json``."""
    options = [("--experiment", experiment), *(("--metric", m) for m in metric or ())]
    options.append(("--horizon", horizon))
    if over is not None:
        options.append(("--over", over))
    return await _reports(request).make("lift", options, units)


@router.get(
    "/v1/ope",
    tags=["reports"],
    summary="Off-policy values of targets",
    responses=problems(400, 404, 500, 503),
)
async def ope(
    request: Request,
    surface: LongId,
    slot: LongId,
    target: Annotated[list[Target], Query(min_length=1)],
    against: Target | None = None,
    metric: LongId | None = None,
    units: Units = None,
) -> dict[str, Any]:
    """As ``evenhand ope --json``; a target cannot be a file here."""
    _refuse_files("target", target)
    _refuse_files("against", [against] if against else [])
    options = [("--surface", surface), ("--slot", slot), *(("--target", t) for t in target)]
    if against is not None:
        options.append(("--against", against))
    if metric is not None:
        options.append(("--metric", metric))
    return await _reports(request).make("ope", options, units)


def _refuse_files(field: str, targets: Sequence[str]) -> None:
    """Raises RequestError at what could be a path: nobody may have this machine read a file."""
    for name in targets:
        if "." in name or "/" in name:
            repair = "name a policy, POLICY@SNAPSHOT, an action or uniform"
            raise RequestError(field, f'is "{shortened(name)}", a file; {repair}')


@router.get("/healthz", tags=["operations"], summary="Is the process alive?")
async def healthz() -> dict[str, str]:
    """Always ok while the server answers."""
    return {"status": "ok"}


@router.get(
    "/readyz",
    tags=["operations"],
    summary="Can it decide and log?",
    responses={503: {"model": HealthBody, "description": "The log is unavailable."}},
)
async def readyz(request: Request, response: Response) -> HealthBody:
    """503 while records cannot be made durable; faults of reloading and learning are told."""
    status = await engine_of(request).probe()
    if not status.storing:
        response.status_code = 503
    return HealthBody(
        status="ready" if status.storing else "not storing",
        revision=status.revision,
        snapshots=dict(status.snapshots),
        reload_fault=status.reload_fault,
        learning_fault=status.learning_fault,
    )


@router.get(
    "/metrics",
    tags=["operations"],
    summary="Prometheus metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request) -> Response:
    """In Prometheus' text format."""
    body = request.app.state.telemetry.exposition(engine_of(request).status())
    return Response(body, media_type="text/plain; version=0.0.4; charset=utf-8")
