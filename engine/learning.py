"""Learning: matured decisions, in one order, become feedback; a learner's state a new snapshot.

The order is (matures_at, decision_id), so that the same log gives the same snapshot whatever the
size of a batch and however often it is run.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from attribution.errors import AttributionError
from engine.constraints import guard_of
from engine.decide import earlier_actions
from engine.errors import EngineError
from engine.log import Outcome, Position, SnapshotEntry
from engine.models import Warn, fresh, newest_sound
from engine.record import ChoiceRecord, DecisionRecord, decode_record
from engine.revisions import Revisions
from engine.rewards import metric_values, reward
from engine.store import ClosedChoice, SnapshotRow, Store
from engine.store import read as ask
from engine.workspace import Learner, Surface, Workspace
from experiments import UnitRange
from policies import Feedback, Policy, PolicyError, Seen, Watched, snapshot_digest

BATCH = 2_000
Advance = Callable[[int], None]
Lesson = tuple[Feedback, ...]
"""What a policy learns from one choice, all of it or nothing."""


@dataclass(frozen=True, slots=True)
class Learned:
    """What a run made of one learner's log."""

    snapshot: SnapshotEntry
    policy: Policy
    learned: int
    skipped: int


def learn(
    store: Store,
    workspace: Workspace,
    learner: Learner,
    *,
    until_us: int,
    now_us: int,
    revisions: Revisions,
    units: UnitRange | None = None,
    refit: bool = False,
    batch: int = BATCH,
    warn: Warn,
    advance: Advance = lambda _: None,
) -> Learned | None:
    """A learner's next snapshot from what matured by ``until_us``; None if nothing did.

    ``until_us`` must be a time up to which everything received is durable. ``units`` restricts
    learning to a salted share of the units; the rows passed over stay so until a ``refit``, which
    begins anew at the log's first row. ``batch`` is how many rows are held in memory at once.

    Raises
    ------
    EngineError
        If the policy refuses a row that was logged.
    """
    surface = workspace.surfaces[learner.surface]
    # Windows are the same for all of a learner's decisions: mature is what closed by then.
    closed_by = until_us - surface.learning_horizon_us
    found = newest_sound(store, learner, warn)
    parent = found[0].digest if found else None
    if found and not refit:
        refit = _missed_some(store, learner, found[0], warn)
    if found and found[1].resumable and not refit:
        policy, position = found[1], found[0].position
        passed, total = found[0].passed, found[0].learned
    else:
        policy, position, passed, total = fresh(learner.policy), Position(), 0, 0
        if found and not refit and not _anything_after(store, learner, found[0], closed_by):
            return None
    began = position
    learned = skipped = 0
    for page in _pages(store, learner, position, closed_by, batch):
        try:
            lessons = list(_lessons(store, revisions, surface, learner, page, units, warn))
        except AttributionError as error:
            raise EngineError(f"learner {learner.id} cannot read its log: {error}") from error
        guarded = guard_of(policy)
        if guarded is not None:
            guarded.excuse(sum(_never_served(surface, learner, each) for each in page))
        if isinstance(policy, Watched):
            _watch(store, surface, learner, policy, page, units)
        position = Position(page[-1].closes_at, page[-1].decision_id)
        taken = _take(policy, lessons, learner, warn)
        learned += taken
        skipped += len(page) - taken
        advance(len(page))
    if position == began:
        return None
    data = policy.dumps()
    snapshot = SnapshotEntry(
        learner=learner.id,
        spec=learner.spec,
        digest=snapshot_digest(data),
        parent=parent,
        position=position,
        passed=passed + learned + skipped,
        learned=total + learned,
        created_at=now_us,
        data=data,
        units=_selector(units) if began == Position() or not found else _joint(found[0], units),
    )
    return Learned(snapshot, policy, learned, skipped)


def _take(policy: Policy, rows: Sequence[Lesson], learner: Learner, warn: Warn) -> int:
    """Learn from the rows, passing over what the policy refuses; how many were learned."""
    try:
        policy.learn([each for lesson in rows for each in lesson])
    except PolicyError:
        # A refused batch has changed nothing, and how rows are batched changes nothing either.
        taken = 0
        for lesson in rows:
            try:
                policy.learn(lesson)
            except PolicyError:
                warn(f"learner {learner.id} passes over a decision whose reward it cannot hold")
            else:
                taken += 1
        return taken
    return len(rows)


def _selector(units: UnitRange | None) -> str | None:
    return None if units is None else f"{units.low:g}:{units.high:g}"


def _joint(parent: SnapshotRow, units: UnitRange | None) -> str | None:
    """The units of a snapshot that continues its parent: the parent's, if they are the same."""
    return parent.units if parent.units == _selector(units) else None


def _missed_some(store: Store, learner: Learner, row: SnapshotRow, warn: Warn) -> bool:
    """Whether rows came to stand before a snapshot's position since, as an import's may."""
    before = store.read(lambda c: ask.closed_before(c, learner.id, row.position))
    if before == row.passed:
        return False
    warn(
        f"learner {learner.id} begins anew: {before - row.passed:,} decisions came to the log that "
        "are older than the last it learned from"
    )
    return True


def _anything_after(store: Store, learner: Learner, row: SnapshotRow, closed_by: int) -> bool:
    return bool(store.read(lambda c: ask.closed(c, learner.id, row.position, closed_by, 1)))


def _pages(
    store: Store, learner: Learner, after: Position, closed_by: int, batch: int
) -> Iterator[list[ClosedChoice]]:
    while True:
        closed = partial(
            ask.closed, learner=learner.id, after=after, until_us=closed_by, limit=batch
        )
        page = store.read(closed)
        if not page:
            return
        yield page
        after = Position(page[-1].closes_at, page[-1].decision_id)


def _lessons(
    store: Store,
    revisions: Revisions,
    surface: Surface,
    learner: Learner,
    page: Sequence[ClosedChoice],
    units: UnitRange | None,
    warn: Warn,
) -> Iterator[Lesson]:
    """What each of the page's choices teaches, in order; those left out teach nothing."""
    rows = list(_drawn_by(learner, page, units))
    agreement = learner.mode == "apprentice"
    joined = _Joined(store, surface, [] if agreement else [record for record, _ in rows])
    for record, choice in rows:
        if agreement:
            yield _agreement(record, choice, revisions, surface.id)
            continue
        end = choice.draw.expires_at if choice.draw else None
        value = (
            joined.reward(record)
            if end is None
            else _sticky_reward(store, surface, record, choice, end)
        )
        made_by = revisions.get(record.revision).surfaces[surface.id]
        actions = tuple(made_by.slots[choice.slot].actions[a] for a in choice.eligible)
        context = features(record, made_by, choice.slot)
        try:
            yield (Feedback(context, actions, choice.action, choice.propensity, value),)
        except PolicyError:
            # What it says of the row would be personal data in a log.
            warn(f"learner {learner.id} passes over decision {record.decision_id}: not learnable")


def _watch(
    store: Store,
    surface: Surface,
    learner: Learner,
    policy: Watched,
    page: Sequence[ClosedChoice],
    units: UnitRange | None,
) -> None:
    """Have a policy see what the page's choices did to the metrics that are protected."""
    rows = list(_drawn_by(learner, page, units))
    joined = _Joined(store, surface, [record for record, _ in rows])
    names = [guard.metric for guard in surface.protected]
    policy.watch(
        Seen(choice.eligible, choice.action, choice.propensity, joined.values(record, names))
        for record, choice in rows
    )


def _drawn_by(
    learner: Learner, page: Sequence[ClosedChoice], units: UnitRange | None
) -> Iterator[tuple[DecisionRecord, ChoiceRecord]]:
    """The page's choices that may be learned from."""
    for matured in page:
        record = decode_record(matured.data)
        choice = next(c for c in record.choices if c.slot == learner.slot)
        if not matured.void and choice.evaluable and (units is None or units.contains(record.unit)):
            yield record, choice


def _never_served(surface: Surface, learner: Learner, closed: ClosedChoice) -> bool:
    """Whether a choice risked something, and was answered by the default after all."""
    if not closed.void:
        return False
    record = decode_record(closed.data)
    choice = next(c for c in record.choices if c.slot == learner.slot)
    default = surface.slots[learner.slot].default
    if choice.pmf is None or default not in choice.eligible:
        return False
    return choice.pmf[choice.eligible.index(default)] < 1.0


def _agreement(
    record: DecisionRecord, choice: ChoiceRecord, revisions: Revisions, surface: str
) -> Lesson:
    """What was served is worth 1, and each other eligible action 0: all of them are known."""
    made_by = revisions.get(record.revision).surfaces[surface]
    actions = tuple(made_by.slots[choice.slot].actions[a] for a in choice.eligible)
    context = features(record, made_by, choice.slot)
    return tuple(
        Feedback(context, actions, id_, 1 / len(actions), float(id_ == choice.action))
        for id_ in choice.eligible
    )


def features(
    record: DecisionRecord, surface: Surface, slot: str
) -> dict[str, float | str | bool | None]:
    """What a slot's policy could read of a record, given the surface that declared it."""
    read = {
        name: value
        for name, value in record.context.items()
        if name not in record.unknown and surface.attributes[name].scalar
    }
    return read | earlier_actions(surface.slots[slot], {c.slot: c for c in record.choices})


def _sticky_reward(
    store: Store, surface: Surface, record: DecisionRecord, choice: ChoiceRecord, end: int
) -> float:
    """The rewards of all decisions of a draw, summed over its period."""
    rows = store.read(
        lambda c: ask.unit_decisions(c, record.unit, surface.id, record.decided_at, end)
    )
    uses = [
        use
        for use in (decode_record(row.record) for row in rows)
        if any(c.draw and choice.draw and c.draw.id == choice.draw.id for c in use.choices)
    ]
    joined = _Joined(store, surface, uses)
    return math.fsum(joined.reward(use) for use in uses)


class _Joined:
    """Outcomes of some decisions, read at once: those that name them, and those of their units."""

    def __init__(self, store: Store, surface: Surface, records: Sequence[DecisionRecord]) -> None:
        self.surface = surface
        self.own: defaultdict[str, list[Outcome]] = defaultdict(list)
        self.of_unit: defaultdict[str, list[Outcome]] = defaultdict(list)
        if not records:
            return
        ids = [record.decision_id for record in records]
        for outcome in store.read(lambda c: ask.outcomes_of_decisions(c, ids)):
            self.own[outcome.decision_id or ""].append(outcome)
        start = min(record.decided_at for record in records)
        end = max(record.decided_at for record in records) + surface.learning_horizon_us
        units = sorted({record.unit for record in records})
        for outcome in store.read(lambda c: ask.outcomes_of_units(c, units, start, end)):
            self.of_unit[outcome.unit or ""].append(outcome)

    def reward(self, record: DecisionRecord) -> float:
        """The reward of one of the decisions."""
        return reward(self.surface, self.values(record, self.surface.reward))

    def values(self, record: DecisionRecord, metrics: Iterable[str]) -> dict[str, float]:
        """Some metrics of one of the decisions."""
        outcomes = [*self.own[record.decision_id], *self.of_unit[record.unit]]
        return metric_values(self.surface, record.decided_at, outcomes, metrics)
