"""Replay: every decision comes out to the byte again, and what does not is told."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import msgspec
import pytest

from engine.errors import ConflictError, EngineError, NotFoundError, SnapshotError
from engine.log import Outcome, Stored, decision_entry
from engine.record import ChoiceRecord, DecisionRecord
from engine.replay import MOST_DIFFERENCES, Replay, replay
from engine.store import Store
from engine.workspace import load_workspace
from tests.engine.build import (
    DAY,
    HOUR,
    NOW,
    SAMPLE,
    Desk,
    execute,
    only_choice,
    outcome,
    workspace_of,
)
from tests.engine.replay_again import replays

WORLD = """\
surfaces:
  home:
    owner: o@example.com
    attributes:
      weeks: {type: integer, max_age: 1d}
      need: {type: boolean, required: true}
      no_b: boolean
      tastes: list
      seen_at: timestamp
      risk: number
    metrics: {watch: {window: 1h}}
    reward: {watch: 1.0}
    slots:
      layout:
        default: A
        policy: p
        actions: {A: {value: 1}, B: {value: 2}, C: {value: 3}}
        rules:
          - {id: c, kind: suppression, actions: [C], when: no_b, reason: r}
      hero:
        default: X
        policy: s
        actions: {X: {value: 1}, Y: {value: 2}, Z: {value: 3}}
        rules:
          - {id: b, kind: suppression, actions: [Y], when: no_b, reason: r}
      side:
        default: M
        policy: only_n
        actions: {M: {value: 1}, N: {value: 2}, O: {value: 3}}
        rules:
          - {id: n, kind: eligibility, actions: [N], when: weeks > 1, reason: r}
policies:
  p: {kind: lin_ts, features: [weeks, risk], floor: 0.1}
  s: {kind: thompson_gaussian, floor: 0.5, draw: sticky, period: 7d}
  only_n: {kind: weighted, weights: {N: 1}}
holdouts: {h: {share: 0.1}}
layers:
  l:
    e:
      range: [0.0, 0.8]
      variants: {a: {slots: {home.layout: C}}, b: {slots: {home.layout: {policy: p}}}}
"""


def _replayed(desk: Desk, record: DecisionRecord) -> Replay:
    return replay(desk.store, desk.revisions, record.decision_id)


@pytest.fixture
def desk(store: Store) -> Desk:
    """A store to decide on."""
    return Desk(store, workspace_of(WORLD))


def _contexts(rng: random.Random) -> Iterator[dict[str, object]]:
    while True:
        yield {
            "need": True if rng.random() < 0.9 else None,
            "weeks": rng.choice(
                [rng.randrange(4), {"value": 3, "at": "2024-10-01T08:00:00+02:00"}]
            ),
            "no_b": rng.random() < 0.4,
            "tastes": rng.sample(["news", "sport"], rng.randrange(3)),
            "seen_at": "2024-10-04T10:00:00.25+02:00",
            "risk": rng.choice([1, 0.1 + 0.2, -0.0, 1e-300, 40, None]),
            "odd": "undeclared",
        }


def test_every_kind_of_decision_replays_to_the_byte_here_and_in_another_process(
    desk: Desk, store: Store, url: str
) -> None:
    """Invariant 2: holdouts, pins, draws, sticky references and redraws, fallbacks, snapshots."""
    rng = random.Random(5)
    kinds: Counter[tuple[str, str]] = Counter()
    contexts = _contexts(rng)
    for round_ in range(3):
        for number in range(70):
            at = NOW + round_ * 3 * DAY + number * 60_000_000
            record = desk.decide(
                number % 25,
                at,
                context=next(contexts),
                slots=rng.choice([None, ("side", "hero"), ("hero", "layout")]),
                request_id=f"{round_}-{number}" if number % 2 else None,
                traceparent="00-1-2-03",
            )
            for choice in record.choices:
                kinds[choice.slot, _kind_of(choice)] += 1
            desk.report(outcome(f"o{round_}-{number}", record, rng.random(), at=at + 1))
        for learner in desk.workspace.learners:
            desk.learn(learner, NOW + round_ * 3 * DAY + 8 * DAY)
        desk = Desk(store, desk.workspace)
    assert {kind for _, kind in kinds} == {
        "holdout",
        "experiment",
        "rule",
        "drawn",
        "referred",
        "redrawn",
        "fallback",
    }
    assert replays(url) == (210, 210)
    there = subprocess.run(
        [sys.executable, "-m", "tests.engine.replay_again", url],
        env={**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert there.stdout.split() == ["210", "210"]


def _kind_of(choice: ChoiceRecord) -> str:
    if choice.draw is None:
        return choice.reason
    return (
        "redrawn"
        if choice.draw.drawn and choice.draw.redraw
        else ("drawn" if choice.draw.drawn else "referred")
    )


def test_a_replay_of_the_sample_is_identical_after_its_folder_is_gone(store: Store) -> None:
    """Configuration comes from the store, in the order in which it decided."""
    desk = Desk(store, load_workspace(SAMPLE))
    for unit in range(30):
        context = {"device": "phone", "weeks": unit % 3, "churn_risk": unit / 30}
        record = desk.decide(unit, context=context)
        replayed = _replayed(desk, record)
        assert replayed == Replay(record.decision_id, True, (), 0.0)


def test_a_sticky_reference_replays_with_the_draw_it_referred_to(desk: Desk) -> None:
    """Though the draw has been made anew since, and the period is over."""
    context = {"need": True, "no_b": False}
    unit = next(
        unit
        for unit in range(50)
        if desk.decide(unit, NOW, context=context, slots=("hero",)).choices[0].action == "Y"
    )
    referred = desk.decide(unit, NOW + HOUR, context=context, slots=("hero",))
    redrawn = desk.decide(unit, NOW + 2 * HOUR, context={**context, "no_b": True}, slots=("hero",))
    again = desk.decide(unit, NOW + 3 * HOUR, context=context, slots=("hero",))
    desk.decide(unit, NOW + 9 * DAY, context=context, slots=("hero",))
    flags = [only_choice(r).draw for r in (referred, redrawn, again)]
    assert [(d.drawn, d.redraw) for d in flags if d] == [(False, 0), (True, 1), (False, 1)]
    for record in (referred, redrawn, again):
        assert _replayed(desk, record).identical


def _forged(desk: Desk, record: DecisionRecord, **changes: object) -> DecisionRecord:
    """A stored record that says something else than what was decided."""
    id_ = f"{record.decision_id[:-4]}ffff"
    forged = msgspec.structs.replace(record, decision_id=id_, **changes)
    (result,) = desk.store.write([replace(decision_entry(forged), sticky={})], NOW)
    assert result == Stored()
    return forged


def _liked(record: DecisionRecord, action: str, number: int) -> Outcome:
    value = float(only_choice(record).action == action)
    return outcome(f"o{number}", record, value, at=record.decided_at)


def test_what_another_snapshot_would_have_done_is_told_with_the_largest_difference(
    desk: Desk,
) -> None:
    context = {"need": True, "weeks": 2}
    learner = "p:home.layout"
    records = [desk.decide(u, NOW + u, context=context, slots=("layout",)) for u in range(60)]
    record = next(r for r in records if only_choice(r).learner == learner)
    for number, other in enumerate(records):
        desk.report(_liked(other, "B", number))
    learned = desk.learn(learner, NOW + DAY)
    assert learned is not None
    assert _replayed(desk, record).identical
    choice = msgspec.structs.replace(only_choice(record), snapshot=learned.snapshot.digest)
    replayed = _replayed(desk, _forged(desk, record, choices=(choice,)))
    assert not replayed.identical
    fields = {difference.field for difference in replayed.differences}
    assert {"choices[0].pmf[0]", "choices[0].pmf_policy[0]", "choices[0].expected[1]"} <= fields
    assert "choices[0].snapshot" not in fields
    told = {d.field: abs(d.stored - d.replayed) for d in replayed.differences if ".pmf[" in d.field}
    assert replayed.largest_difference == max(told.values()) > 0.01


def test_what_another_revision_would_have_done_is_told(desk: Desk, store: Store) -> None:
    record = desk.decide(1, context={"need": True, "weeks": 2}, slots=("side",))
    assert only_choice(record).action == "N"
    other = Desk(store, workspace_of(WORLD.replace("weights: {N: 1}", "weights: {O: 1}")))
    replayed = _replayed(other, _forged(other, record, revision=other.workspace.revision))
    assert not replayed.identical
    told = {d.field: (d.stored, d.replayed) for d in replayed.differences}
    assert told["choices[0].action"] == ("N", "O")
    assert replayed.largest_difference == 1.0


def test_another_version_of_the_code_is_told(desk: Desk) -> None:
    record = desk.decide(1, context={"need": True}, slots=("layout",))
    forged = _forged(desk, record, code_version="evenhand 0.0.1")
    told = {d.field for d in _replayed(desk, forged).differences}
    assert "code_version" in told


def test_differences_are_bounded(desk: Desk) -> None:
    record = desk.decide(1, context={"need": True})
    forged = _forged(desk, record, unknown={f"x{n}": "stale" for n in range(500)})
    assert len(_replayed(desk, forged).differences) == MOST_DIFFERENCES


def test_an_imported_decision_does_not_replay(desk: Desk) -> None:
    record = _forged(desk, desk.decide(1, context={"need": True}), origin="import")
    with pytest.raises(ConflictError, match="was imported"):
        _replayed(desk, record)


def test_a_simulated_decision_replays_as_one(desk: Desk) -> None:
    record = desk.decide(1, context={"need": True})
    forged = _forged(desk, record, origin="simulate")
    assert "origin" not in {d.field for d in _replayed(desk, forged).differences}


def test_a_decision_that_is_not_stored_is_not_found(desk: Desk) -> None:
    with pytest.raises(NotFoundError, match='"nobody" is no stored decision'):
        replay(desk.store, desk.revisions, "nobody")


def test_an_altered_snapshot_stops_a_replay(desk: Desk, url: str) -> None:
    records = [
        desk.decide(u, context={"need": True, "weeks": 1}, slots=("layout",)) for u in range(30)
    ]
    record = next(r for r in records if only_choice(r).snapshot)
    execute(url, "UPDATE snapshot_data SET data = :data", data=b"0")
    with pytest.raises(SnapshotError, match="was altered"):
        _replayed(desk, record)


def test_a_revision_that_is_not_stored_stops_a_replay(desk: Desk) -> None:
    record = _forged(desk, desk.decide(1, context={"need": True}), revision="0" * 64)
    with pytest.raises(EngineError, match="is not stored"):
        _replayed(desk, record)
