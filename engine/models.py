"""Models as they serve: made from configuration, or restored from verified snapshots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from engine.decide import Model, Serving
from engine.errors import SnapshotError
from engine.log import Position, SnapshotEntry
from engine.standing import Standing, standing
from engine.store import SnapshotRow, Store
from engine.store import read as ask
from engine.workspace import Learner, PolicySpec, Workspace
from policies import (
    Guarded,
    Policy,
    PolicyError,
    Watched,
    load_policy,
    make_policy,
    snapshot_digest,
)

Warn = Callable[[str], None]
Keep = Callable[[Sequence[SnapshotEntry]], None]


def fresh(policy: PolicySpec) -> Policy:
    """The policy before it has learned anything."""
    made = make_policy(policy.kind, **policy.parameters)
    if policy.guarantee is not None:
        made = Guarded(made, policy.guarantee, policy.floor)
    if policy.protections is not None:
        made = Watched(made, policy.protections)
    return made


def restore(data: bytes | None, digest: str) -> Policy:
    """The policy of a snapshot's bytes, verified first: a damaged model can load silently.

    Raises
    ------
    SnapshotError
        If the bytes are missing, do not match the digest, or are no snapshot.
    """
    if data is None:
        raise SnapshotError(f"snapshot {digest} is not stored")
    if snapshot_digest(data) != digest:
        raise SnapshotError(
            f"snapshot {digest} was altered: its {len(data):,} bytes have another digest"
        )
    try:
        return load_policy(data)
    except PolicyError as error:
        raise SnapshotError(f"snapshot {digest} cannot be read: {error}") from error


def initial_snapshot(learner: Learner, now_us: int) -> SnapshotEntry:
    """The stored form of a learner that has learned nothing."""
    data = fresh(learner.policy).dumps()
    return SnapshotEntry(
        learner=learner.id,
        spec=learner.spec,
        digest=snapshot_digest(data),
        parent=None,
        position=Position(),
        passed=0,
        learned=0,
        created_at=now_us,
        data=data,
    )


def newest_sound(store: Store, learner: Learner, warn: Warn) -> tuple[SnapshotRow, Policy] | None:
    """The learner's newest snapshot whose bytes hold; each that does not is reported."""
    for limit in (1, None):
        # Of a long lineage the newest is read alone; the rest only where it is damaged.
        rows = store.read(partial(ask.lineage, learner=learner.id, spec=learner.spec, limit=limit))
        for row in rows[0 if limit else 1 :]:
            data = store.read(partial(ask.snapshot_bytes, digest=row.digest))
            try:
                return row, restore(data, row.digest)
            except SnapshotError as error:
                warn(f"learner {learner.id}: {error}; its parent serves")
    return None


def newer(store: Store, current: Serving, warn: Warn) -> dict[str, Model]:
    """By learner, the models of snapshots stored since those that serve."""
    found = {}
    for id_, stands in standings(store, current.workspace).items():
        serves = current.models.get(id_)
        if stands.learner is None or stands.pinned is not None or serves is None or serves.pinned:
            continue
        newest = store.read(partial(ask.lineage, learner=id_, spec=stands.learner.spec, limit=1))
        if newest and newest[0].digest != serves.snapshot:
            sound = newest_sound(store, stands.learner, warn)
            if sound:
                found[id_] = _model(stands, sound)
    return found


def standings(store: Store, workspace: Workspace) -> dict[str, Standing]:
    """By learner, what its history of promotions has serve."""
    histories = store.read(ask.promotions)
    return {
        id_: standing(workspace, id_, histories.get(id_, ()))
        for id_ in sorted({*workspace.learners, *workspace.candidates})
    }


def _model(stands: Standing, found: tuple[SnapshotRow, Policy]) -> Model:
    spec = stands.learner.spec if stands.learner and stands.promoted else None
    return Model(found[1], found[0].digest, spec, learned=found[0].learned)


def _held(store: Store, stands: Standing, warn: Warn) -> Model | None:
    """The model of the snapshot that is pinned; None if its bytes do not hold."""
    digest = stands.pinned
    if digest is None or stands.learner is None:
        return None
    try:
        policy = restore(store.read(partial(ask.snapshot_bytes, digest=digest)), digest)
    except SnapshotError as error:
        warn(f"learner {stands.learner.id}: {error}; the newest of its lineage serves")
        return None
    rows = store.read(partial(ask.lineage, learner=stands.learner.id, spec=stands.learner.spec))
    return Model(
        policy,
        digest,
        stands.learner.spec if stands.promoted else None,
        pinned=True,
        learned=next((row.learned for row in rows if row.digest == digest), 0),
    )


def serving(
    store: Store, workspace: Workspace, now_us: int, warn: Warn, *, keep: Keep | None = None
) -> Serving:
    """A revision ready to serve: each learner from its newest sound snapshot.

    A learner without one begins anew; where the store is writable that beginning is stored first,
    by ``keep`` if something else than this call does the writing, so that every snapshot named in a
    record can be read back.
    """
    models: dict[str, Model] = {}
    beginnings = []
    for id_, stands in standings(store, workspace).items():
        learner = stands.learner
        if learner is None:
            continue
        if held := _held(store, stands, warn):
            models[id_] = held
        elif found := newest_sound(store, learner, warn):
            models[id_] = _model(stands, found)
        else:
            beginning = initial_snapshot(learner, now_us)
            beginnings.append(beginning)
            models[id_] = Model(fresh(learner.policy), beginning.digest)
    if beginnings and keep:
        keep(beginnings)
    elif beginnings and store.writable:
        store.write(beginnings, now_us)
    return Serving(workspace, models | static_models(workspace))


def static_models(workspace: Workspace) -> dict[str, Model]:
    """A model for each policy that does not learn."""
    return {
        id_: Model(fresh(policy)) for id_, policy in workspace.policies.items() if not policy.learns
    }
