"""What a log must hold after its servers were killed, compared with what clients were told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from random import Random
from typing import Any

import msgspec
from sqlalchemy import Connection, text

from engine.learning import learn
from engine.models import newest_sound
from engine.record import decode_record
from engine.replay import replay
from engine.revisions import Revisions
from engine.store import Store
from engine.store import read as ask
from engine.workspace import Learner, Workspace
from tests.crash.load import Body, Told

REPLAYED = 200
MOST_SHOWN = 5


def all_learned(store: Store, workspace: Workspace) -> bool:
    """Whether each learner has passed all choices that the log holds for it."""
    return all(_passed(store, learner) for learner in workspace.learners.values())


def _passed(store: Store, learner: Learner) -> bool:
    newest = store.read(lambda c: ask.lineage(c, learner.id, learner.spec))[0]
    return newest.passed == store.read(lambda c: _learnables(c, learner.id))


def findings(store: Store, workspace: Workspace, told: Told, seed: int) -> list[str]:
    """What is lost, doubled, altered or invented; empty if all is as it must be."""
    found = [f"refused: {refusal}" for refusal in told.refusals]
    found += store.read(lambda c: [f"database: {row}" for row in _damage(c)])
    found += _decisions(store, told)
    found += _exposures(store, workspace, told)
    found += _outcomes(store, told)
    for learner in workspace.learners.values():
        found += _learning(store, workspace, learner)
    return [*found, *_replays(store, seed)]


def _damage(connection: Connection) -> Iterator[str]:
    if connection.dialect.name == "sqlite":
        rows = connection.scalars(text("PRAGMA integrity_check"))
        yield from (row for row in rows if row != "ok")


def _decisions(store: Store, told: Told) -> Iterator[str]:
    rows = store.read(lambda c: list(c.execute(text("SELECT request_id, record FROM decisions"))))
    yield from _compared("decision", [r.request_id for r in rows], told.answers, told.requests)
    stored = {row.request_id: decode_record(row.record) for row in rows}
    for id_, answers in told.answers.items():
        first = answers[0]
        if any(answer != first for answer in answers):
            yield f"request {id_} was answered in several ways: {_shown(answers)}"
        record = stored.get(id_)
        if record and (record.decision_id, {c.slot: c.action for c in record.choices}) != (
            first["decision_id"],
            {choice["slot"]: choice["action"] for choice in first["choices"]},
        ):
            yield f"request {id_} was answered otherwise than stored: {_shown([first])}"


def _exposures(store: Store, workspace: Workspace, told: Told) -> Iterator[str]:
    slots = tuple(workspace.surfaces["home"].slots)
    rows = store.read(ask.exposure_rows)
    yield from _compared(
        "exposure",
        [(row.decision_id, row.slot) for row in rows],
        {(id_, slot) for id_ in told.exposures for slot in slots},
        {(id_, slot) for id_ in told.exposures_sent for slot in slots},
    )


def _outcomes(store: Store, told: Told) -> Iterator[str]:
    rows = store.read(lambda c: ask.outcomes_after(c, 0, 2**31 - 1))
    yield from _compared(
        "outcome", [row.outcome_id for row in rows], told.outcomes, told.outcomes_sent
    )
    for row in rows:
        sent = told.outcomes_sent.get(row.outcome_id)
        if sent and _subject(row._mapping) != _subject(sent | {"unit": _unit(sent)}):
            yield f"outcome {row.outcome_id} is stored otherwise than sent: {sent}"


def _unit(sent: Body) -> str | None:
    return f"u:{sent['user_id']}" if "user_id" in sent else None


def _subject(outcome: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(outcome.get(k) for k in ("metric", "value", "decision_id", "unit", "corrects"))


def _compared(
    what: str, stored: list[Any], acknowledged: Iterable[Any], sent: Iterable[Any]
) -> Iterator[str]:
    times = Counter(stored)
    for how, ids in (
        ("lost", set(acknowledged) - times.keys()),
        ("doubled", {id_ for id_, n in times.items() if n > 1}),
        ("never sent", times.keys() - set(sent)),
    ):
        if ids:
            yield f"{what} {how}: {len(ids)}, as {_shown(sorted(ids)[:MOST_SHOWN])}"


def _learning(store: Store, workspace: Workspace, learner: Learner) -> Iterator[str]:
    """A refit from the log's first row must give the newest snapshot, to the byte."""
    newest, _ = newest_sound(store, learner, lambda _: None) or (None, None)
    if newest is None:
        yield f"learner {learner.id} has no snapshot"
        return
    stood = store.read(lambda c: ask.closed_before(c, learner.id, newest.position))
    logged = store.read(lambda c: _learnables(c, learner.id))
    if not newest.passed == stood == logged:
        yield (
            f"learner {learner.id} passed {newest.passed} choices, "
            f"{stood} stand before its position, {logged} in the log"
        )
    refit = learn(
        store,
        workspace,
        learner,
        until_us=newest.position.closes_at + workspace.surfaces[learner.surface].reward_horizon_us,
        now_us=newest.created_at,
        revisions=Revisions(store),
        refit=True,
        warn=lambda _: None,
    )
    if refit is None:
        if newest.passed:
            yield f"learner {learner.id} cannot be refitted: the log holds nothing of it"
    elif (refit.snapshot.digest, refit.snapshot.passed, refit.snapshot.learned) != (
        newest.digest,
        newest.passed,
        newest.learned,
    ):
        yield (
            f"learner {learner.id} learned {newest.learned} of {newest.passed}, "
            f"a refit {refit.snapshot.learned} of {refit.snapshot.passed}; "
            f"snapshots {newest.digest[:12]} and {refit.snapshot.digest[:12]}"
        )


def _learnables(connection: Connection, learner: str) -> int:
    query = text("SELECT count(*) FROM learnables WHERE learner = :learner")
    return int(connection.scalar(query, {"learner": learner}) or 0)


def _replays(store: Store, seed: int) -> Iterator[str]:
    ids = store.read(lambda c: list(c.scalars(text("SELECT decision_id FROM decisions"))))
    revisions = Revisions(store)
    for id_ in Random(seed).sample(ids, min(REPLAYED, len(ids))):
        again = replay(store, revisions, id_)
        if not again.identical:
            yield f"decision {id_} replays otherwise: {again.differences}"


def _shown(value: object) -> str:
    return msgspec.json.encode(value).decode()[:600]
