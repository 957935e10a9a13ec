"""Learning: what matured and how, the same snapshot from the same log, and damaged snapshots."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from uuid import UUID

import pytest

from engine.errors import EngineError, SnapshotError
from engine.learning import Learned, features
from engine.log import Outcome, Position, Stored, VoidEntry, decision_entry
from engine.models import fresh, newest_sound, restore, serving
from engine.record import DecisionRecord
from engine.store import Store
from engine.store import read as ask
from engine.workspace import Workspace
from experiments import parse_units
from policies import POLICY_KINDS, Feedback, snapshot_digest
from tests.engine.build import DAY, HOUR, NOW, SECOND, Desk, decided, execute, outcome, workspace_of

WORLD = """\
surfaces:
  home:
    owner: o@example.com
    attributes: {weeks: integer, device: string, seen_at: timestamp, ok: boolean}
    metrics:
      watch: {window: 1h, lateness: 30m, aggregate: max, range: [0, 1]}
      cancel: {window: 2h, range: [0, 1]}
    reward: {watch: 1.0, cancel: 0.0}
    slots:
      layout:
        default: A
        policy: p
        actions:
          A: {value: 1, features: {value: 0}}
          B: {value: 2, features: {value: 1, depth: 2}}
          C: {value: 3, features: {value: 2}}
        rules:
          - {id: c, kind: eligibility, actions: [C], when: "weeks >= 1", reason: r}
policies:
  p: {kind: KIND}
"""
LEARNER = "p:home.layout"
MATURE = 2 * HOUR
CATS = "vw_cats, low: 0, high: 2, step: 1"
CANNOT_RESUME = [CATS, "vw, exploration: cover", "vw, exploration: epsilon, cb_type: dr"]
KINDS = [k for k, policy in POLICY_KINDS.items() if policy.learns and not CATS.startswith(f"{k},")]


def _world(kind: str = "lin_ts") -> Workspace:
    return workspace_of(WORLD.replace("KIND", kind))


@pytest.fixture(scope="module")
def world() -> Workspace:
    """The revision that most tests learn under."""
    return _world()


@pytest.fixture
def desk(store: Store, world: Workspace) -> Desk:
    """A store to decide on, and to learn from."""
    return Desk(store, world)


# Maturity and rewards ----------------------------------------------------------------------------


def _expected(desk: Desk, *rows: tuple[DecisionRecord, float], learner: str = LEARNER) -> str:
    """The digest of a fresh model that is fed these rewards by hand."""
    made_by = desk.workspace.learners[learner]
    policy = fresh(made_by.policy)
    for record, value in rows:
        (choice,) = record.choices
        surface = desk.workspace.surfaces[record.surface]
        actions = tuple(surface.slots[choice.slot].actions[a] for a in choice.eligible)
        policy.learn(
            [
                Feedback(
                    features(record, surface, choice.slot),
                    actions,
                    choice.action,
                    choice.propensity,
                    value,
                )
            ]
        )
    return snapshot_digest(policy.dumps())


def _digest(learned: Learned | None) -> str:
    assert learned is not None
    return learned.snapshot.digest


def test_a_decision_is_learned_from_once_its_last_window_has_closed(desk: Desk) -> None:
    record = desk.decide(1, context={"weeks": 2})
    desk.report(outcome("o", record, 0.7, at=NOW + HOUR))
    assert desk.learn(LEARNER, NOW + MATURE - 1) is None
    learned = desk.learn(LEARNER, NOW + MATURE)
    assert _digest(learned) == _expected(desk, (record, 0.7))
    assert learned is not None
    assert (learned.learned, learned.skipped) == (1, 0)
    assert learned.snapshot.position == Position(NOW, record.decision_id)
    assert desk.learn(LEARNER, NOW + DAY) is None


def test_without_outcomes_the_default_is_learned(desk: Desk) -> None:
    record = desk.decide(1, context={"weeks": 2})
    assert _digest(desk.learn(LEARNER, NOW + DAY)) == _expected(desk, (record, 0.0))


def test_what_arrived_too_late_or_too_soon_is_not_learned(desk: Desk) -> None:
    record = desk.decide(1, context={"weeks": 2})
    desk.report(
        outcome("early", record, 0.9, at=NOW - 1),
        outcome("late", record, 0.9, at=NOW + HOUR + 1),
        outcome("tardy", record, 0.9, at=NOW + HOUR, received=NOW + 90 * 60 * SECOND + 1),
        outcome("just", record, 0.2, at=NOW + HOUR, received=NOW + 90 * 60 * SECOND),
    )
    assert _digest(desk.learn(LEARNER, NOW + DAY)) == _expected(desk, (record, 0.2))


def test_a_correction_received_in_time_is_what_is_learned(desk: Desk) -> None:
    record = desk.decide(1, context={"weeks": 2})
    desk.report(outcome("o", record, 0.9, at=NOW + HOUR))
    desk.report(outcome("r", record, 0.1, at=NOW + HOUR + 1, corrects="o"))
    assert _digest(desk.learn(LEARNER, NOW + DAY)) == _expected(desk, (record, 0.1))


def test_an_outcome_that_came_before_its_decision_is_joined_to_it(
    desk: Desk, store: Store, tmp_path: Path
) -> None:
    """It was sent for an id that was known before the decision was durable."""
    twin = Desk(store, desk.workspace)
    record = twin.decide(1, context={"weeks": 2})
    other = Store(f"sqlite:///{tmp_path / 'other.db'}", writer="tests")
    elsewhere = Desk(other, desk.workspace)
    result = elsewhere.report(outcome("o", record, 0.6, at=NOW + 1))
    assert result == Stored(1, 0, 1)
    other.write([decision_entry(record)], NOW)
    assert _digest(elsewhere.learn(LEARNER, NOW + DAY)) == _expected(desk, (record, 0.6))
    other.close()


def test_an_outcome_of_a_unit_is_credited_to_every_decision_whose_window_holds_it(
    desk: Desk,
) -> None:
    first = desk.decide(1, NOW, context={"weeks": 2})
    second = desk.decide(1, NOW + 30 * 60 * SECOND, context={"weeks": 3})
    before = desk.decide(1, NOW - 2 * HOUR, context={"weeks": 4})
    after = desk.decide(1, NOW + HOUR, context={"weeks": 5})
    other = desk.decide(2, NOW, context={"weeks": 2})
    desk.report(outcome("o", "u:1", 0.8, at=NOW + 45 * 60 * SECOND))
    desk.report(outcome("own", first, 0.9, at=NOW + 1))
    rewards = [(before, 0.0), (first, 0.9), (other, 0.0), (second, 0.8), (after, 0.0)]
    assert _digest(desk.learn(LEARNER, NOW + DAY)) == _expected(desk, *rewards)


def test_the_context_that_is_learned_is_what_the_policy_saw(desk: Desk) -> None:
    """Unknown and unreadable attributes are left out, as they were at the decision."""
    record = desk.decide(
        1, context={"weeks": 2, "seen_at": "2024-01-01T00:00:00Z", "device": None, "odd": 3}
    )
    surface = desk.workspace.surfaces["home"]
    assert features(record, surface, "layout") == {"weeks": 2}


def test_a_void_decision_is_never_learned_from(desk: Desk, store: Store) -> None:
    answered, void = (desk.decide(u, NOW + u, context={"weeks": 2}) for u in (1, 2))
    store.write([VoidEntry(void.decision_id, "answered after its deadline")], NOW)
    learned = desk.learn(LEARNER, NOW + DAY)
    assert learned is not None
    assert (learned.learned, learned.skipped) == (1, 1)
    assert _digest(learned) == _expected(desk, (answered, 0.0))
    assert learned.snapshot.position.decision_id == void.decision_id


def test_what_was_not_drawn_is_never_learned_from(store: Store) -> None:
    """Holdouts, pins, forced defaults and fallbacks say nothing of a policy."""
    text = WORLD.replace("KIND", "thompson_gaussian").replace(
        "ok: boolean", "ok: {type: boolean, required: true}"
    ).replace("actions: [C]", "actions: [B, C]") + (
        "holdouts: {h: {share: 0.3}}\n"
        "layers: {l: {e: {range: [0.0, 0.5], variants: {a: {slots: {home.layout: A}}}}}}\n"
    )
    desk = Desk(store, workspace_of(text))
    kinds = set()
    for unit in range(40):
        for context in ({"ok": True, "weeks": 0}, {"weeks": 3}):
            (choice,) = desk.decide(unit, NOW + unit, context=context).choices
            kinds.add((choice.path, choice.reason))
    assert kinds >= {("h", "holdout"), ("e.a", "experiment"), (None, "rule"), (None, "fallback")}
    assert desk.learn(LEARNER, NOW + 9 * DAY) is None
    assert (
        store.read(
            partial(ask.closed, learner=LEARNER, after=Position(), until_us=NOW + DAY, limit=9)
        )
        == []
    )


def test_a_policy_in_a_variant_learns_from_its_own_variant_alone(store: Store) -> None:
    text = WORLD.replace("KIND", "thompson_gaussian") + (
        "layers:\n  l:\n    e:\n      range: [0.0, 0.6]\n"
        "      variants: {a: {slots: {home.layout: {policy: p}}}, b: {slots: {home.layout: A}}}\n"
    )
    desk = Desk(store, workspace_of(text))
    records = [desk.decide(u, NOW + u, context={"weeks": 2}) for u in range(60)]
    for learner, path in ((LEARNER, None), (f"{LEARNER}@e.a", "e.a")):
        own = [(r, 0.0) for r in records if r.choices[0].path == path]
        assert len(own) > 5
        assert _digest(desk.learn(learner, NOW + DAY)) == _expected(desk, *own, learner=learner)


# Sticky draws ------------------------------------------------------------------------------------

STICKY = (
    WORLD.replace("KIND", "thompson_gaussian, draw: sticky, period: 1d")
    .replace("reward: {watch: 1.0, cancel: 0.0}", "reward: {watch: 1.0, cancel: -2.0}")
    .replace('actions: [C], when: "weeks >= 1"', "actions: [B, C], when: ok")
)
START = NOW // DAY * DAY


def test_a_sticky_draw_is_learned_once_with_the_rewards_of_its_period(store: Store) -> None:
    desk = Desk(store, workspace_of(STICKY))
    uses = [desk.decide(1, START + h * HOUR, context={"ok": True}) for h in (1, 5, 22)]
    # One that could not be drawn is no use of the draw, and the next day's is another draw.
    desk.decide(1, START + 8 * HOUR, context={"ok": False})
    tomorrow = desk.decide(1, START + DAY, context={"ok": True})
    for number, (record, value) in enumerate(zip(uses, (1.0, 2.0, 4.0), strict=True)):
        desk.report(outcome(f"o{number}", record, value, at=record.decided_at + 1))
    desk.report(outcome("c", uses[2], 1.0, metric="cancel", at=uses[2].decided_at + HOUR))
    desk.report(outcome("u", "u:1", 0.5, at=START + 8 * HOUR + 1))
    desk.report(outcome("t", tomorrow, 16.0, at=START + DAY + 1))
    assert desk.learn(LEARNER, START + DAY + MATURE - 1) is None
    learned = desk.learn(LEARNER, START + DAY + MATURE)
    assert learned is not None
    assert learned.learned == 1
    assert _digest(learned) == _expected(desk, (uses[0], 1.0 + 2.0 + 4.0 - 2.0))
    both = desk.learn(LEARNER, START + 3 * DAY)
    assert _digest(both) == _expected(desk, (uses[0], 5.0), (tomorrow, 16.0))


def test_a_redraw_is_learned_with_the_rewards_from_then_on(store: Store) -> None:
    desk = Desk(store, workspace_of(STICKY.replace("actions: [B, C], when", "actions: [B], when")))
    unit = next(
        unit
        for unit in range(50)
        if decided(desk.serving, "home", unit, context={"ok": True}).choices[0].action == "B"
    )
    at = NOW // DAY * DAY
    first, closed, after = (
        desk.decide(unit, at + hour * HOUR, context={"ok": ok})
        for hour, ok in ((1, True), (2, False), (3, True))
    )
    redrawn = closed.choices[0].draw
    assert redrawn is not None
    assert (redrawn.drawn, redrawn.redraw) == (True, 1)
    for number, (record, value) in enumerate(((first, 1.0), (closed, 2.0), (after, 4.0))):
        desk.report(outcome(f"o{number}", record, value, at=record.decided_at))
    learned = desk.learn(LEARNER, at + 2 * DAY)
    assert _digest(learned) == _expected(desk, (first, 1.0), (closed, 2.0 + 4.0))


def test_a_void_use_of_a_sticky_draw_is_not_in_its_reward(store: Store) -> None:
    desk = Desk(store, workspace_of(STICKY))
    first, void = (desk.decide(1, START + h * HOUR, context={"ok": True}) for h in (1, 5))
    desk.report(outcome("a", first, 1.0, at=first.decided_at))
    desk.report(outcome("b", void, 2.0, at=void.decided_at))
    store.write([VoidEntry(void.decision_id, "late")], NOW)
    assert _digest(desk.learn(LEARNER, START + 3 * DAY)) == _expected(desk, (first, 1.0))


# Invariant 7: the same log, the same snapshot ----------------------------------------------------

Deliver = Callable[[Desk, Sequence[Outcome]], None]


def _at_once(desk: Desk, outcomes: Sequence[Outcome]) -> None:
    desk.report(*outcomes)


def _one_by_one(desk: Desk, outcomes: Sequence[Outcome]) -> None:
    for sent in outcomes:
        desk.report(sent)


def _backwards(desk: Desk, outcomes: Sequence[Outcome]) -> None:
    _one_by_one(desk, outcomes[::-1])


def _often(desk: Desk, outcomes: Sequence[Outcome]) -> None:
    for _ in range(3):
        _one_by_one(desk, outcomes)
    desk.report(*outcomes, *outcomes)


DELIVERIES: dict[str, Deliver] = {
    "at once": _at_once,
    "one by one": _one_by_one,
    "backwards": _backwards,
    "often": _often,
}


def _logged(desk: Desk, deliver: Deliver, decisions: int = 160) -> None:
    """Decisions of 25 units over a day, several at a time, and outcomes of them and of units.

    Ids do not sort by time, as those of imports do not.
    """
    rng = random.Random(11)
    outcomes = []
    for number in range(decisions):
        at = NOW + rng.randrange(24) * HOUR
        context = {"weeks": rng.randrange(3), "device": rng.choice(["tv", "phone"])}
        id_ = str(UUID(int=rng.getrandbits(128)))
        record = desk.decide(rng.randrange(25), at, decision_id=id_, context=context)
        if rng.random() < 0.6:
            of = record if rng.random() < 0.8 else record.unit
            seen = at + rng.randrange(HOUR)
            arrived = seen + rng.randrange(HOUR)
            # Now and then a value that a policy of rewards in [0, 1] refuses.
            value = 3.0 if rng.random() < 0.1 else float(rng.random() < 0.5)
            outcomes.append(outcome(f"o{number}", of, value, at=seen, received=arrived))
    deliver(desk, outcomes)


def _snapshot(
    folder: Path,
    world: Workspace,
    *,
    deliver: Deliver = _at_once,
    runs: Iterable[int] = (NOW + 3 * DAY,),
    batch: int = 2_000,
) -> str:
    """The digest that a log leads to, learned in runs up to some times."""
    store = Store(f"sqlite:///{folder / f'{len(list(folder.iterdir()))}.db'}", writer="tests")
    desk = Desk(store, world)
    _logged(desk, deliver)
    for until in runs:
        desk.learn(LEARNER, until, batch=batch)
    (newest, *_) = store.read(lambda c: ask.lineage(c, LEARNER, world.learners[LEARNER].spec))
    store.close()
    return newest.digest


def test_the_same_log_gives_the_same_snapshot_whatever_the_batch(
    tmp_path: Path, world: Workspace
) -> None:
    assert len({_snapshot(tmp_path, world, batch=batch) for batch in (1, 7, 64, 2_000)}) == 1


def test_the_same_log_gives_the_same_snapshot_however_outcomes_were_delivered(
    tmp_path: Path, world: Workspace
) -> None:
    assert (
        len({_snapshot(tmp_path, world, deliver=deliver) for deliver in DELIVERIES.values()}) == 1
    )


def test_the_same_log_gives_the_same_snapshot_in_one_run_or_many(
    tmp_path: Path, world: Workspace
) -> None:
    hourly = range(NOW, NOW + 3 * DAY, HOUR)
    rough = (NOW + 5 * HOUR, NOW + 5 * HOUR, NOW + 9 * DAY)
    once = _snapshot(tmp_path, world)
    assert _snapshot(tmp_path, world, runs=hourly, batch=9) == once
    assert _snapshot(tmp_path, world, runs=rough) == once


@pytest.mark.parametrize("kind", [*KINDS, *CANNOT_RESUME])
def test_every_kind_that_learns_keeps_to_it(kind: str, tmp_path: Path) -> None:
    """Also those that cannot resume: they begin anew at each run."""
    world = _world(kind)
    assert fresh(world.policies["p"]).resumable is (kind not in CANNOT_RESUME)
    once = _snapshot(tmp_path, world)
    assert _snapshot(tmp_path, world, runs=(NOW + 9 * HOUR, NOW + 3 * DAY), batch=13) == once


@pytest.mark.parametrize("batch", [1, 2_000])
def test_a_correction_counts_at_the_time_of_what_it_corrects_whatever_the_batch(
    desk: Desk, batch: int
) -> None:
    """Though it is dated outside of the windows of all that is read with it."""
    before, corrected, after = (
        desk.decide(unit, at, context={"weeks": 2})
        for unit, at in ((2, NOW - 8 * HOUR), (1, NOW), (3, NOW + 8 * HOUR))
    )
    early, late = NOW - 5 * HOUR, NOW + 6 * HOUR
    desk.report(outcome("o", "u:1", 0.9, at=NOW + 1), outcome("p", "u:3", 0.8, at=NOW + 9 * HOUR))
    desk.report(outcome("r", "u:1", 0.1, at=late, received=NOW + 2, corrects="o"))
    desk.report(outcome("s", "u:3", 0.2, at=early, received=NOW + 9 * HOUR, corrects="p"))
    rewards = [(before, 0.0), (corrected, 0.1), (after, 0.2)]
    assert _digest(desk.learn(LEARNER, NOW + DAY, batch=batch)) == _expected(desk, *rewards)


def test_another_outcome_gives_another_snapshot(tmp_path: Path, world: Workspace) -> None:
    """That the digests agree is no proof unless they can differ."""

    def otherwise(desk: Desk, outcomes: Sequence[Outcome]) -> None:
        _at_once(desk, outcomes[len(outcomes) // 2 :])

    assert _snapshot(tmp_path, world, deliver=otherwise) != _snapshot(tmp_path, world)


# Lineage -----------------------------------------------------------------------------------------


def test_snapshots_grow_from_their_parents_and_count_what_they_learned(
    desk: Desk, store: Store
) -> None:
    _logged(desk, _at_once)
    for until in (NOW + 9 * HOUR, NOW + 3 * DAY):
        desk.learn(LEARNER, until)
    second, first, beginning = store.read(
        lambda c: ask.lineage(c, LEARNER, desk.workspace.learners[LEARNER].spec)
    )
    assert (beginning.parent, beginning.learned, beginning.position) == (None, 0, Position())
    assert (first.parent, second.parent) == (beginning.digest, first.digest)
    assert 0 < first.learned < second.learned == 160
    assert first.position.closes_at < second.position.closes_at


def test_a_refit_begins_anew_and_comes_to_the_same(desk: Desk) -> None:
    _logged(desk, _at_once)
    desk.learn(LEARNER, NOW + 9 * HOUR)
    learned = desk.learn(LEARNER, NOW + 3 * DAY)
    assert learned is not None
    refitted = desk.learn(LEARNER, NOW + 3 * DAY, refit=True)
    assert refitted is not None
    assert refitted.snapshot.digest == learned.snapshot.digest
    assert refitted.snapshot.learned == refitted.learned == 160
    assert refitted.snapshot.parent == learned.snapshot.digest


def test_rows_that_come_to_stand_before_the_position_make_the_learner_begin_anew(
    desk: Desk,
) -> None:
    """As an import of an older log brings them; the same as one run over all of it."""
    newer = [(desk.decide(u, NOW + u, context={"weeks": 2}), 0.0) for u in range(5)]
    assert _digest(desk.learn(LEARNER, NOW + DAY)) == _expected(desk, *newer)
    assert desk.learn(LEARNER, NOW + DAY) is None
    assert desk.warned == []
    older = [(desk.decide(u, NOW - DAY + u, context={"weeks": 1}), 0.7) for u in range(3)]
    for number, (record, value) in enumerate(older):
        desk.report(outcome(f"o{number}", record, value, at=record.decided_at))
    latest = desk.decide(9, NOW + HOUR, context={"weeks": 3})
    learned = desk.learn(LEARNER, NOW + DAY)
    assert _digest(learned) == _expected(desk, *older, *newer, (latest, 0.0))
    assert learned is not None
    assert (learned.snapshot.learned, learned.snapshot.passed) == (9, 9)
    (warning,) = desk.warned
    assert f"learner {LEARNER} begins anew: 3 decisions" in warning
    assert desk.learn(LEARNER, NOW + DAY) is None


def test_rows_that_were_passed_over_do_not_make_a_learner_begin_anew(
    desk: Desk, store: Store
) -> None:
    """What is void or of other units stands before the position too, and was counted."""
    records = [desk.decide(u, NOW + u, context={"weeks": 2}) for u in range(12)]
    store.write([VoidEntry(records[0].decision_id, "late")], NOW)
    half = parse_units("0:0.5")
    first, second = (
        desk.learn(LEARNER, until, units=half) for until in (NOW + MATURE + 6, NOW + DAY)
    )
    assert first is not None
    assert second is not None
    assert (first.snapshot.passed, second.snapshot.passed) == (7, 12)
    assert first.snapshot.learned < 7
    desk.decide(20, NOW + HOUR, context={"weeks": 2})
    assert desk.learn(LEARNER, NOW + DAY, units=half) is not None
    assert desk.warned == []


def test_units_restrict_what_is_learned_until_a_refit(desk: Desk) -> None:
    rows = [(desk.decide(u, NOW + u, context={"weeks": 2}), 0.0) for u in range(30)]
    half = parse_units("0:0.5")
    inside = [(record, value) for record, value in rows if half.contains(record.unit)]
    assert 5 < len(inside) < 25
    learned = desk.learn(LEARNER, NOW + DAY, units=half)
    assert _digest(learned) == _expected(desk, *inside)
    assert learned is not None
    assert (learned.learned, learned.skipped) == (len(inside), 30 - len(inside))
    assert learned.snapshot.units == "0:0.5"
    assert desk.learn(LEARNER, NOW + DAY) is None
    refitted = desk.learn(LEARNER, NOW + DAY, refit=True)
    assert _digest(refitted) == _expected(desk, *rows)
    assert refitted is not None
    assert refitted.snapshot.units is None


def test_the_two_halves_of_the_units_share_nobody(desk: Desk) -> None:
    for unit in range(30):
        desk.decide(unit, NOW + unit, context={"weeks": 2})
    counts = [
        learned.learned
        for text in ("0:0.5", "0.5:1")
        if (learned := desk.learn(LEARNER, NOW + DAY, units=parse_units(text), refit=True))
    ]
    assert len(counts) == 2
    assert sum(counts) == 30


def test_a_change_of_parameters_begins_a_new_lineage_over_the_whole_log(
    desk: Desk, store: Store
) -> None:
    _logged(desk, _at_once)
    old = desk.learn(LEARNER, NOW + 3 * DAY)
    changed = Desk(store, _world("lin_ts, alpha: 0.9"))
    spec = changed.workspace.learners[LEARNER].spec
    (beginning,) = store.read(lambda c: ask.lineage(c, LEARNER, spec))
    assert (beginning.parent, beginning.learned) == (None, 0)
    assert changed.serving.models[LEARNER].snapshot == beginning.digest
    new = changed.learn(LEARNER, NOW + 3 * DAY)
    assert new is not None
    assert old is not None
    assert new.snapshot.digest != old.snapshot.digest
    assert (new.snapshot.parent, new.learned) == (beginning.digest, 160)
    # The old lineage is there for whoever goes back to the old parameters.
    back = Desk(store, desk.workspace)
    assert back.serving.models[LEARNER].snapshot == old.snapshot.digest


def test_wider_windows_are_learned_from_the_log_that_narrow_ones_made(
    desk: Desk, store: Store
) -> None:
    record = desk.decide(1, context={"weeks": 2})
    desk.report(outcome("o", record, 0.4, at=NOW + 3 * HOUR))
    assert _digest(desk.learn(LEARNER, NOW + MATURE)) == _expected(desk, (record, 0.0))
    wider = Desk(
        store, workspace_of(WORLD.replace("KIND", "lin_ts").replace("window: 1h", "window: 1d"))
    )
    assert wider.learn(LEARNER, NOW + MATURE) is None
    learned = wider.learn(LEARNER, NOW + DAY + HOUR)
    assert _digest(learned) == _expected(wider, (record, 0.4))


def test_what_a_server_restarts_with_is_its_newest_snapshot(desk: Desk, store: Store) -> None:
    _logged(desk, _at_once)
    learned = desk.learn(LEARNER, NOW + 3 * DAY)
    assert learned is not None
    again = serving(store, desk.workspace, NOW, desk.warned.append)
    assert again.models[LEARNER].snapshot == learned.snapshot.digest
    assert again.models[LEARNER].policy.dumps() == learned.snapshot.data
    assert desk.warned == []


def test_a_beginning_is_stored_before_it_serves(desk: Desk, store: Store) -> None:
    digest = desk.serving.models[LEARNER].snapshot
    assert digest is not None
    data = store.read(lambda c: ask.snapshot_bytes(c, digest))
    assert restore(data, digest).dumps() == data


# Damage ------------------------------------------------------------------------------------------


def _damage(url: str, digest: str, data: bytes) -> None:
    altered = "UPDATE snapshot_data SET data = :data WHERE digest = :digest"
    execute(url, altered, data=data, digest=digest)


@pytest.mark.parametrize("how", ["truncated", "a bit flipped", "emptied", "another's"])
def test_an_altered_snapshot_is_refused_and_its_parent_serves_with_a_warning(
    how: str, desk: Desk, store: Store, url: str
) -> None:
    _logged(desk, _at_once)
    first, second = (desk.learn(LEARNER, until) for until in (NOW + 9 * HOUR, NOW + 3 * DAY))
    assert first is not None
    assert second is not None
    whole = second.snapshot.data
    flipped = bytes([*whole[:60], whole[60] ^ 1, *whole[61:]])
    altered = {
        "truncated": whole[:-9],
        "a bit flipped": flipped,
        "emptied": b"",
        "another's": first.snapshot.data,
    }[how]
    _damage(url, second.snapshot.digest, altered)
    with pytest.raises(SnapshotError, match="was altered"):
        restore(altered, second.snapshot.digest)
    served = serving(store, desk.workspace, NOW, desk.warned.append).models[LEARNER]
    assert served.snapshot == first.snapshot.digest
    assert served.policy.dumps() == first.snapshot.data
    (warning,) = desk.warned
    assert second.snapshot.digest in warning
    assert "its parent serves" in warning


def test_an_altered_snapshot_is_learned_again_from_its_parent_and_mended(
    desk: Desk, store: Store, url: str
) -> None:
    _logged(desk, _at_once)
    desk.learn(LEARNER, NOW + 9 * HOUR)
    second = desk.learn(LEARNER, NOW + 3 * DAY)
    _damage(url, _digest(second), b"gone")
    assert _digest(desk.learn(LEARNER, NOW + 3 * DAY)) == _digest(second)
    assert len(desk.warned) == 1
    found = newest_sound(store, desk.workspace.learners[LEARNER], desk.warned.append)
    assert found is not None
    assert found[0].digest == _digest(second)
    assert len(desk.warned) == 1
    assert desk.learn(LEARNER, NOW + 3 * DAY) is None


def test_where_no_snapshot_is_sound_the_learner_begins_anew(
    desk: Desk, store: Store, url: str
) -> None:
    beginning = desk.serving.models[LEARNER].snapshot
    assert beginning is not None
    _damage(url, beginning, b"gone")
    served = serving(store, desk.workspace, NOW, desk.warned.append).models[LEARNER]
    assert served.snapshot == beginning
    assert len(desk.warned) == 1
    assert newest_sound(store, desk.workspace.learners[LEARNER], desk.warned.append) is not None
    assert len(desk.warned) == 1


def test_a_snapshot_that_is_not_stored_is_told() -> None:
    with pytest.raises(SnapshotError, match="is not stored"):
        restore(None, "0" * 64)


def test_bytes_that_hold_no_policy_are_told_even_under_their_digest() -> None:
    with pytest.raises(SnapshotError, match="cannot be read"):
        restore(b"\x80", snapshot_digest(b"\x80"))


def test_a_reward_that_the_policy_refuses_is_passed_over_and_told(store: Store) -> None:
    """Thompson over a Beta needs rewards in [0, 1]; one bad row may not stop all learning."""
    desk = Desk(store, _world("thompson_beta"))
    broken = desk.decide(1, context={"weeks": 2})
    sound = desk.decide(2, context={"weeks": 2})
    desk.report(outcome("o", broken, 2.0), outcome("p", sound, 1.0))
    learned = desk.learn(LEARNER, NOW + DAY)
    assert learned is not None
    assert (learned.learned, learned.skipped) == (1, 1)
    assert _digest(learned) == _expected(desk, (sound, 1.0))
    assert any("passes over a decision" in warning for warning in desk.warned)


def test_a_reward_that_no_policy_can_hold_is_passed_over_and_told(desk: Desk) -> None:
    record = desk.decide(1, context={"weeks": 2})
    desk.report(outcome("o", record, 1e200))
    learned = desk.learn(LEARNER, NOW + DAY)
    assert learned is not None
    assert (learned.learned, learned.skipped) == (0, 1)
    assert any(record.decision_id in warning for warning in desk.warned)
    assert not any("1e+200" in warning for warning in desk.warned)


def test_an_outcome_that_is_no_number_is_an_engine_error(desk: Desk) -> None:
    record = desk.decide(1, context={"weeks": 2})
    desk.report(outcome("o", record, float("inf")))
    with pytest.raises(EngineError, match="cannot read its log"):
        desk.learn(LEARNER, NOW + DAY)
