"""Living a world: its visits decided, logged, answered by outcomes and learned from, day by day.

Everything goes through the code that serves production: the pure ``decide``, the log's entries,
the store, ``learn`` and the models' restoring. Only clock, ids and viewers are simulated.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import defaultdict, deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from engine.decide import Inputs, Serving, StickyDraw, decide, spends
from engine.errors import EngineError
from engine.ids import uuid7
from engine.learning import learn
from engine.log import (
    DecisionEntry,
    Entry,
    ExposureEntry,
    Outcome,
    OutcomesEntry,
    SnapshotEntry,
    Stored,
    decision_entry,
)
from engine.models import Warn, serving
from engine.record import DecisionRecord
from engine.revisions import Revisions, activate
from engine.rewards import metric_values, reward
from engine.simulate.world import Visit, World, respond, uniform
from engine.store import Store
from engine.store import read as ask
from engine.workspace import Workspace

BATCH = 500
"""Decisions in one transaction, and outcomes in one entry."""

_SEEN_AFTER_US = 2_000_000
_RESENT_SHARE = 0.02
_RESENT_AFTER_US = 6 * 3_600_000_000


@dataclass(frozen=True, slots=True)
class VariantMean:
    """Mean reward of the matured decisions of a surface by how they came about.

    ``path`` is ``experiment.variant``, a holdout's id, or None outside of both.
    """

    surface: str
    path: str | None
    decisions: int
    reward: float


@dataclass(frozen=True, slots=True)
class Progress:
    """What a simulated day came to. Counts are of the whole run; ``learned`` is of this day."""

    day: int
    now_us: int
    decisions: int
    outcomes: int
    duplicates: int
    means: tuple[VariantMean, ...]
    learned: tuple[SnapshotEntry, ...]
    serving: Serving


def run(
    world: World,
    workspace: Workspace,
    store: Store,
    *,
    days: int,
    warn: Warn,
    settle: bool = True,
) -> Iterator[Progress]:
    """Live ``days`` days of the world; one progress after each, when all of it is durable.

    Visits are decided with origin ``simulate`` and ids made of the seed. Outcomes reach the log
    when their news do, some twice and some too late. At the end of a day every learner learns from
    what has matured, and its snapshot serves from the next day on. To ``settle`` is to live on
    without visits until every outcome has arrived and every decision has matured.

    The same world, workspace and days leave the same log, byte for byte.

    Raises
    ------
    EngineError
        If the workspace lacks what the world visits or shows what it does not know, or if the
        database already holds this world's decisions.
    """
    _check(world, workspace)
    life = _Life(world, workspace, store, warn)
    for day in range(days):
        life.decide(world.visits(day))
        yield life.close(day)
    day = days
    while settle and life.unsettled:
        yield life.close(day)
        day += 1


class _Life:
    """A run in the middle of it: what serves, what is on its way, what came of it so far."""

    def __init__(self, world: World, workspace: Workspace, store: Store, warn: Warn) -> None:
        self.world = world
        self.workspace = workspace
        self.store = store
        self.warn = warn
        start = world.midnight(0)
        activate(store, workspace, lambda: start)
        self.serving = serving(store, workspace, start, warn)
        self.revisions = Revisions(store)
        self.sticky: defaultdict[str, dict[str, StickyDraw]] = defaultdict(dict)
        self.spent = store.read(ask.allowances)
        self.underway: list[tuple[int, str, Outcome]] = []
        self.maturing: defaultdict[str, deque[tuple[int, tuple[str | None, ...], float]]]
        self.maturing = defaultdict(deque)
        self.last_maturity = 0
        self.now_us = start
        self.totals: defaultdict[tuple[str, str | None], list[float]]
        self.totals = defaultdict(lambda: [0, 0.0])
        self.decisions = self.outcomes = self.duplicates = 0

    @property
    def unsettled(self) -> bool:
        """Whether outcomes are still underway or decisions have not matured."""
        return bool(self.underway) or self.last_maturity > self.now_us

    def decide(self, visits: Sequence[Visit]) -> None:
        """Decide on a day's visits and log them; what will follow them gets underway."""
        if not self.decisions and visits:
            self._refuse_again(visits[0])
        for start in range(0, len(visits), BATCH):
            entries: list[Entry] = []
            for visit in visits[start : start + BATCH]:
                entry = self._decided(visit)
                entries.append(entry)
                seen = entry.record.decided_at + _SEEN_AFTER_US
                entries.append(ExposureEntry(entry.record.decision_id, None, seen, seen))
                self._follow(visit, entry.record)
            self._write(entries, visits[min(start + BATCH, len(visits)) - 1].at_us)
            self.decisions += len(entries) // 2

    def close(self, day: int) -> Progress:
        """Deliver what has become known by the day's end, learn, and say what there is."""
        self.now_us = self.world.midnight(day + 1)
        self._deliver()
        learned = self._learn()
        self.store.checkpoint()
        return Progress(
            day=day,
            now_us=self.now_us,
            decisions=self.decisions,
            outcomes=self.outcomes,
            duplicates=self.duplicates,
            means=self._means(),
            learned=learned,
            serving=self.serving,
        )

    def _decision_id(self, visit: Visit) -> str:
        digest = hashlib.sha256(f"{self.world.seed}:{visit.id}".encode()).digest()
        return uuid7(visit.at_us, int.from_bytes(digest[:8], "big") >> 2)

    def _refuse_again(self, first: Visit) -> None:
        id_ = self._decision_id(first)
        if self.store.read(lambda c: ask.decision(c, id_)) is not None:
            raise EngineError(
                f'database "{self.store.url}" already holds the world of seed {self.world.seed}; '
                "give another database or seed"
            )

    def _decided(self, visit: Visit) -> DecisionEntry:
        request = visit.request()
        record = decide(
            self.serving,
            request,
            Inputs(self.sticky[request.unit], self.spent),
            decision_id=self._decision_id(visit),
            now_us=visit.at_us,
            origin="simulate",
        )
        spent = spends(self.serving, record)
        for each in spent:
            self.spent[each.key] = self.spent.get(each.key, 0) + each.amount
        entry = decision_entry(record, request, spends=spent)
        self.sticky[request.unit] |= entry.sticky
        horizon = self.workspace.surfaces[record.surface].learning_horizon_us
        self.last_maturity = max(
            [self.last_maturity, *(each.closes_at + horizon for each in entry.learnables)]
        )
        return entry

    def _follow(self, visit: Visit, record: DecisionRecord) -> None:
        shown = {choice.slot: choice.action for choice in record.choices}
        outcomes = respond(self.world, visit, shown, record.decision_id)
        for outcome in outcomes:
            self._send(outcome)
            if uniform(self.world.seed, "again", outcome.outcome_id) < _RESENT_SHARE:
                self._send(replace(outcome, received_at=outcome.received_at + _RESENT_AFTER_US))
        surface = self.workspace.surfaces[record.surface]
        values = metric_values(surface, record.decided_at, outcomes, surface.reward)
        paths = tuple(
            a.id if a.kind == "holdout" else f"{a.id}.{a.variant}" for a in record.assignments
        )
        matures_at = record.decided_at + surface.reward_horizon_us
        self.maturing[surface.id].append((matures_at, paths or (None,), reward(surface, values)))
        self.last_maturity = max(self.last_maturity, matures_at)

    def _send(self, outcome: Outcome) -> None:
        heapq.heappush(self.underway, (outcome.received_at, outcome.outcome_id, outcome))

    def _deliver(self) -> None:
        known: list[Outcome] = []
        while self.underway and self.underway[0][0] <= self.now_us:
            known.append(heapq.heappop(self.underway)[2])
        self._write(
            [OutcomesEntry(tuple(known[i : i + BATCH])) for i in range(0, len(known), BATCH)],
            self.now_us,
        )

    def _write(self, entries: Sequence[Entry], now_us: int) -> None:
        if not entries:
            return
        results = self.store.write(entries, now_us)
        for entry, result in zip(entries, results, strict=True):
            if not isinstance(result, Stored):
                raise EngineError(f"the log refused what the simulation wrote: {result}")
            if isinstance(entry, OutcomesEntry):
                self.outcomes += result.accepted
                self.duplicates += result.duplicates

    def _learn(self) -> tuple[SnapshotEntry, ...]:
        learned = []
        for learner in self.workspace.pupils:
            found = learn(
                self.store,
                self.workspace,
                learner,
                until_us=self.now_us,
                now_us=self.now_us,
                revisions=self.revisions,
                warn=self.warn,
            )
            if found:
                learned.append(found.snapshot)
        if learned:
            self._write(learned, self.now_us)
            self.serving = serving(self.store, self.workspace, self.now_us, self.warn)
        return tuple(learned)

    def _means(self) -> tuple[VariantMean, ...]:
        for surface, waiting in self.maturing.items():
            while waiting and waiting[0][0] <= self.now_us:
                _, paths, earned = waiting.popleft()
                for path in paths:
                    total = self.totals[surface, path]
                    total[0] += 1
                    total[1] += earned
        return tuple(
            VariantMean(surface, path, int(count), total / count)
            for (surface, path), (count, total) in sorted(
                self.totals.items(), key=lambda item: (item[0][0], item[0][1] or "")
            )
        )


def _check(world: World, workspace: Workspace) -> None:
    """The world must know every action of the surfaces that it visits."""
    for name, slots in world.slots.items():
        surface = workspace.surfaces.get(name)
        if surface is None:
            raise EngineError(f"surface `{name}` is not declared, but the world visits it; add it")
        _check_same(f"surfaces.{name}.slots", surface.slots, slots)
        for slot, known in slots.items():
            actions = surface.slots[slot].actions
            _check_same(f"surfaces.{name}.slots.{slot}.actions", actions, known)


def _check_same(field: str, declared: Collection[str], known: Collection[str]) -> None:
    if set(declared) != set(known):
        raise EngineError(
            f"`{field}` has {sorted(declared)}, but the world knows {sorted(known)}; "
            "simulate on the workspace that the world was made for"
        )
