"""Training recommenders: what units did with items becomes a model that servers follow."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from attribution.metrics import matures_at
from engine.errors import EngineError, SnapshotError, StoreError
from engine.log import Outcome, UnitInteraction
from engine.models import Warn
from engine.recommending import standing
from engine.record import DecisionRecord, decode_record, fillings_of
from engine.revisions import Revisions
from engine.rewards import metric_values
from engine.shelf import Shelf, Versioned, restocked
from engine.store import ModelRow, ModelStore, Store
from engine.store import read as ask
from engine.workspace import Recommender, Slate, Workspace
from recsys.catalogue import Catalogue
from recsys.errors import RecsysError
from recsys.evaluation import Evaluation, SplitKind, compare, per_user_split, time_split
from recsys.interactions import Interactions
from recsys.model import Model, load_model
from recsys.scoring import LinearScorer, load_scorer
from recsys.training import train, updated

PAGE = 10_000
_DECISIONS = 2_000
MOST_SINCE = 100_000
"""Interactions since the training that a serving model is kept up with."""

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Trained:
    """A model that was stored, and what it was made of."""

    recommender: str
    digest: str
    kind: str
    interactions: int
    units: int
    items: int
    catalogue: int


def train_recommender(
    store: Store,
    models: ModelStore,
    workspace: Workspace,
    recommender: Recommender,
    *,
    now_us: int,
    more: Sequence[UnitInteraction] = (),
    progress: Progress | None = None,
) -> Trained:
    """A new model from all that the log knows of items, and from ``more`` interactions.

    Raises
    ------
    EngineError
        If the recommender is one elsewhere, or no interaction counts.
    """
    if recommender.url is not None:
        raise EngineError(f'recommender "{recommender.id}" is elsewhere; train it there')
    catalogue = catalogue_of(store, workspace)
    position, found = logged(store)
    table = as_table([*found, *more])
    try:
        model = train(catalogue, table, recommender.train, progress)
    except RecsysError as error:
        raise EngineError(str(error)) from error
    data = model.dumps()
    digest = hashlib.sha256(data).hexdigest()
    models.add(
        recommender.id,
        digest,
        data,
        position=position,
        interactions=len(table),
        created_at=now_us,
    )
    return Trained(
        recommender=recommender.id,
        digest=digest,
        kind=model.kind,
        interactions=len(table),
        units=len(table.user_ids),
        items=model.size,
        catalogue=catalogue.size,
    )


def catalogue_of(store: Store, workspace: Workspace) -> Catalogue:
    """The items that are stored, as a workspace declares them."""
    items = workspace.items
    change, news = store.read(partial(ask.items_after, change=0))
    return restocked(Shelf(Catalogue.empty(items.schema)), news, change).catalogue


def logged(
    store: Store, after: int = 0, most: int | None = None
) -> tuple[int, list[UnitInteraction]]:
    """Interactions of the log after a position, and the position of the last of them."""
    found: list[UnitInteraction] = []
    while most is None or len(found) < most:
        limit = PAGE if most is None else min(PAGE, most - len(found))
        after, page = store.read(partial(ask.interactions_after, seq=after, limit=limit))
        found += page
        if len(page) < limit:
            break
    return after, found


def as_table(interactions: Sequence[UnitInteraction]) -> Interactions:
    """Interactions as models are trained on: those of known units, as corrections leave them."""
    held = [(one, value) for one, value in standing(interactions) if one.unit is not None]
    return Interactions.of(
        users=[one.unit or "" for one, _ in held],
        items=[one.item_id for one, _ in held],
        at=[one.occurred_at for one, _ in held],
        kinds=[one.kind for one, _ in held],
        values=[value for _, value in held],
    )


def verified(models: ModelStore, row: ModelRow) -> Model:
    """A stored model; a damaged one could load silently.

    Raises
    ------
    SnapshotError
        If its bytes do not match their digest, or are no model.
    """
    data = models.data(row)
    if hashlib.sha256(data).hexdigest() != row.digest:
        raise SnapshotError(
            f"model {row.digest} was altered: its {len(data):,} bytes have another digest"
        )
    try:
        return load_model(data)
    except RecsysError as error:
        raise SnapshotError(f"model {row.digest} cannot be read: {error}") from error


@dataclass(frozen=True, slots=True, eq=False)
class Following:
    """A model as it was trained, and as interactions since have left it.

    ``position`` is the last interaction that it knows.
    """

    row: ModelRow
    trained: Model
    current: Model
    position: int

    @property
    def versioned(self) -> Versioned:
        """As a shelf holds it: beside the digest stands what came since the training."""
        since = "" if self.position == self.row.position else f"+{self.position}"
        return Versioned(self.current, f"{self.row.digest}{since}")


def followed(
    store: Store,
    models: ModelStore,
    workspace: Workspace,
    known: Mapping[str, Following],
    catalogue: Catalogue,
    warn: Warn,
    *,
    until: int | None = None,
) -> dict[str, Following]:
    """By recommender, the newest models, kept up with the interactions since they were trained.

    What of ``known`` is still so is taken from there. Interactions up to the position ``until`` are
    looked at (None: no new ones); a model is always kept up from what was trained, so that it
    depends on the position alone, on every replica.
    """
    found: dict[str, Following] = {}
    for id_, row in models.newest().items():
        if id_ not in workspace.recommenders:
            continue
        before = known.get(id_)
        try:
            if before is None or before.row.seq != row.seq:
                model = verified(models, row)
                before = Following(row, model, model, row.position)
        except (SnapshotError, StoreError) as error:
            warn(f"recommender {id_}: {error}; what served before serves on")
            if before is None:
                continue
        found[id_] = before
        if until is not None and until > before.position:
            found[id_] = _kept_up(store, before, catalogue)
    return found


def _kept_up(store: Store, of: Following, catalogue: Catalogue) -> Following:
    position, since = logged(store, of.row.position, MOST_SINCE)
    try:
        current = updated(of.trained, as_table(since), catalogue)
    except RecsysError:
        # None of them counts, or is with an item of the catalogue.
        current = of.trained
    return replace(of, current=current, position=position)


# Scorers ----------------------------------------------------------------------------------------

OF_SLATE = "slate:"
"""What a scorer is stored under begins with, before its slate's id."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A scorer that was stored: of which slate, and from how many positions it learned."""

    slate: str
    digest: str
    objective: str
    positions: int


def train_scorer(
    store: Store, models: ModelStore, slate: Slate, revisions: Revisions, *, now_us: int
) -> Scored | None:
    """A slate's scorer, from what came of the items at each position that was shown.

    A position's reward is the objective of its item: the outcomes of that metric that name the item
    and the decision, or its unit, within the metric's window. Positions count whose windows are
    over. Where a surface's exposures are logged, what was not exposed was not shown. None where the
    slate has no objective, or nothing was shown.

    Raises
    ------
    EngineError
        If the log cannot be read.
    """
    if slate.scorer is None:
        return None
    scorer = slate.scorer
    for page in _pages(store):
        for x, rewards in _shown(store, slate, revisions, page, now_us):
            scorer = scorer.learned(x, rewards)
    if scorer.rows == 0:
        return None
    data = scorer.dumps()
    models.add(
        f"{OF_SLATE}{slate.id}",
        scorer.digest,
        data,
        position=0,
        interactions=scorer.rows,
        created_at=now_us,
    )
    return Scored(slate.id, scorer.digest, slate.plan.objective, scorer.rows)


def _pages(store: Store) -> Iterator[list[DecisionRecord]]:
    """Decisions that were answered as they are stored, in the order of the log."""
    after = 0
    while rows := store.read(partial(ask.decisions_after, seq=after, limit=_DECISIONS)):
        after = rows[-1].seq
        yield [decode_record(row.record) for row in rows if row.void is None]


def _shown(
    store: Store,
    slate: Slate,
    revisions: Revisions,
    records: Sequence[DecisionRecord],
    now_us: int,
) -> Iterator[tuple[Any, Any]]:
    """Of each decision that showed the slate: features and rewards of its positions."""
    found = []
    for record in records:
        filling = fillings_of(record).get(slate.id)
        if filling is None or slate.scorer is None:
            continue
        surface = revisions.get(record.revision).surfaces[record.surface]
        spec = surface.metrics.get(slate.plan.objective)
        if spec is None or list(filling.trace.features) != slate.scorer.names:
            continue
        if matures_at(spec, record.decided_at) <= now_us and filling.trace.placed:
            found.append((record, surface, filling.trace))
    if not found:
        return
    ids = [record.decision_id for record, _, _ in found]
    units = sorted({record.unit for record, _, _ in found})
    began = min(record.decided_at for record, _, _ in found)
    told: defaultdict[str | None, list[Outcome]] = defaultdict(list)
    for outcome in store.read(lambda c: ask.outcomes_of_decisions(c, ids)):
        told[outcome.decision_id].append(outcome)
    for outcome in store.read(lambda c: ask.outcomes_of_units(c, units, began, now_us)):
        told[outcome.unit].append(outcome)
    exposed = store.read(partial(ask.exposed, decision_ids=ids))
    counted = store.read(ask.surfaces_with_exposures)
    for record, surface, trace in found:
        if record.surface in counted and record.decision_id not in exposed:
            continue
        by_item = _by_item([*told[record.decision_id], *told[record.unit]])
        objective = slate.plan.objective
        rewards = [
            metric_values(surface, record.decided_at, by_item[placed.item_id], [objective])
            for placed in trace.placed
        ]
        yield trace.inputs(), np.array([reward[objective] for reward in rewards], np.float64)


def _by_item(outcomes: Sequence[Outcome]) -> defaultdict[str, list[Outcome]]:
    """Outcomes by the item that they are about; a correction is of the item that it corrects."""
    found: defaultdict[str, list[Outcome]] = defaultdict(list)
    about: dict[str, str] = {}
    for outcome in sorted(outcomes, key=lambda outcome: outcome.received_at):
        item_id = outcome.item_id or about.get(outcome.corrects or "")
        if item_id is not None:
            about[outcome.outcome_id] = item_id
            found[item_id].append(outcome)
    return found


def scorers_of(
    models: ModelStore,
    workspace: Workspace,
    known: Mapping[str, tuple[ModelRow, LinearScorer]],
    warn: Warn,
) -> dict[str, tuple[ModelRow, LinearScorer]]:
    """By slate, the newest scorers that were stored; a damaged one leaves what served before."""
    found: dict[str, tuple[ModelRow, LinearScorer]] = {}
    for name, row in models.newest().items():
        slate = workspace.slates.get(name.removeprefix(OF_SLATE))
        if not name.startswith(OF_SLATE) or slate is None or slate.scorer is None:
            continue
        before = known.get(slate.id)
        if before is not None and before[0].seq == row.seq:
            found[slate.id] = before
            continue
        try:
            found[slate.id] = row, _loaded(models, row, slate.scorer)
        except (SnapshotError, StoreError) as error:
            warn(f"slate {slate.id}: {error}; what served before serves on")
            if before is not None:
                found[slate.id] = before
    return found


def _loaded(models: ModelStore, row: ModelRow, declared: LinearScorer) -> LinearScorer:
    data = models.data(row)
    if hashlib.sha256(data).hexdigest() != row.digest:
        raise SnapshotError(f"scorer {row.digest} was altered")
    try:
        return load_scorer(data, declared.features)
    except RecsysError as error:
        raise SnapshotError(f"scorer {row.digest} cannot be read: {error}") from error


def evaluate_recommenders(
    store: Store,
    workspace: Workspace,
    recommenders: Sequence[Recommender],
    *,
    split: SplitKind = "per_user",
    share: float = 0.2,
    k: int = 10,
    more: Sequence[UnitInteraction] = (),
    draws: int = 1_000,
    seed: int = 0,
) -> list[Evaluation]:
    """How recommenders do on what units chose later, beside what most units chose.

    Each is trained anew on the earlier part. ``share`` is held out: of each unit's choices, or of
    the time; ``draws`` and ``seed`` are of the bootstrap over units.

    Raises
    ------
    EngineError
        If a recommender is one elsewhere, or there is too little to split.
    """
    for recommender in recommenders:
        if recommender.url is not None:
            raise EngineError(f'recommender "{recommender.id}" is elsewhere; name an embedded one')
    _, found = logged(store)
    table = as_table([*found, *more])
    settings = {recommender.id: recommender.train for recommender in recommenders}
    try:
        least = next(iter(settings.values()))
        counted = table.counted(least.weights, least.least_value)
        parts = (
            per_user_split(counted, share) if split == "per_user" else time_split(counted, share)
        )
        return compare(catalogue_of(store, workspace), parts, settings, k=k, draws=draws, seed=seed)
    except RecsysError as error:
        raise EngineError(str(error)) from error
