"""Lineages: each learner's snapshots with what serves of them, and going back to one of them."""

from __future__ import annotations

from typing import Any

import msgspec

from engine.errors import NotFoundError, RequestError
from engine.ids import rfc3339
from engine.log import PromotionEntry
from engine.models import newest_sound, standings
from engine.standing import Standing, check_learner, rolled_back, standing, step
from engine.store import PromotionRow, SnapshotRow, Store
from engine.store import read as ask
from engine.workspace import Workspace

_FEWEST_NAMED = 6


def lineages(store: Store, workspace: Workspace) -> dict[str, Any]:
    """JSON data: by learner what serves, its snapshots, newest first, and its promotions."""
    by_learner: dict[str, list[SnapshotRow]] = {}
    for row in store.read(ask.snapshot_rows):
        by_learner.setdefault(row.learner, []).insert(0, row)
    histories = store.read(ask.promotions)
    return {
        id_: {
            "serves": _serves(store, stands),
            "snapshots": [_snapshot(workspace, id_, row) for row in by_learner.get(id_, ())],
            "promotions": [_step(row) for row in reversed(histories.get(id_, []))],
        }
        for id_, stands in standings(store, workspace).items()
    }


def rollback(
    store: Store, workspace: Workspace, id_: str, to: str | None, now_us: int
) -> PromotionEntry:
    """The step that undoes the last change of what serves, or holds a snapshot.

    Parameters
    ----------
    to
        A snapshot's digest or its beginning; None to put back what served before.

    Raises
    ------
    NotFoundError
        If there is no such learner or snapshot.
    RequestError
        If nothing was promoted, or the digest's beginning is of several.
    """
    check_learner(workspace, id_)
    history = store.read(ask.promotions).get(id_, [])
    if to is None:
        return rolled_back(workspace, id_, history, now_us)
    serves = standing(workspace, id_, history).learner
    rows = [row for row in store.read(ask.snapshot_rows) if row.learner == id_]
    found = {row.digest: row for row in rows if serves and row.spec == serves.spec}
    chosen = [row for digest, row in found.items() if digest.startswith(to)]
    if len(to) < _FEWEST_NAMED or len(chosen) > 1:
        raise RequestError("to", f'is "{to[:64]}", too short to name one snapshot; give more of it')
    if not chosen:
        raise NotFoundError(
            "to", f'is "{to[:64]}", none of the {len(found):,} snapshots of what serves "{id_}"'
        )
    return step("pin", id_, (chosen[0].spec, chosen[0].digest), history, now_us)


def _serves(store: Store, stands: Standing) -> dict[str, Any]:
    if stands.learner is None:
        return {"what": "declared", "spec": None, "snapshot": None, "pinned": False}
    found = newest_sound(store, stands.learner, lambda _: None) if stands.pinned is None else None
    return {
        "what": "candidate" if stands.promoted else "declared",
        "spec": stands.learner.spec,
        "snapshot": stands.pinned or (found[0].digest if found else None),
        "pinned": stands.pinned is not None,
    }


def _snapshot(workspace: Workspace, id_: str, row: SnapshotRow) -> dict[str, Any]:
    declared, candidate = workspace.learners.get(id_), workspace.candidates.get(id_)
    of = "earlier"
    if declared is not None and row.spec == declared.spec:
        of = "declared"
    elif candidate is not None and row.spec == candidate.spec:
        of = "candidate"
    return {
        "digest": row.digest,
        "parent": row.parent,
        "of": of,
        "spec": row.spec,
        "learned": row.learned,
        "units": row.units,
        "until": rfc3339(row.position.closes_at) if row.position.closes_at >= 0 else None,
        "created_at": rfc3339(row.created_at),
    }


def _step(row: PromotionRow) -> dict[str, Any]:
    report = msgspec.json.decode(row.report, type=dict[str, Any])
    return {
        "what": row.what,
        "at": rfc3339(row.at),
        "spec": row.spec,
        "snapshot": row.snapshot,
        "report": report or None,
    }
