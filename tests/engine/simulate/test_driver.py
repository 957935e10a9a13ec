"""The driver: production's own path, the same log for the same seed, DESIGN's invariants kept."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2

from attribution import lift as estimated_lift
from attribution.metrics import OutcomeEvent, metric_value
from engine.errors import EngineError
from engine.ids import rfc3339
from engine.record import ChoiceRecord, DecisionRecord
from engine.simulate import StreamingWorld, TinyWorld, Truth, run, tiny_workspace
from engine.store import Store
from engine.store import read as ask
from engine.workspace import Workspace, learner_id
from policies import apply_floor
from tests.engine.simulate.conftest import DAYS, EVERYTHING, Lived, records_of

LEAST_P = 1e-4


def _digest(store: Store) -> str:
    """SHA-256 of every row of the log."""
    sha = hashlib.sha256()
    for rows in (
        store.read(lambda c: ask.decisions_after(c, 0, EVERYTHING)),
        store.read(lambda c: ask.outcomes_after(c, 0, EVERYTHING)),
        store.read(ask.exposure_rows),
        store.read(ask.assignment_rows),
    ):
        for row in rows:
            sha.update(repr(tuple(row)).encode())
    for snapshot in store.read(ask.snapshot_rows):
        sha.update(repr(snapshot).encode())
    return sha.hexdigest()


def _lived(folder: Path, name: str, workspace: Workspace, seed: int) -> str:
    store = Store(f"sqlite:///{folder}/{name}.db", writer="test")
    for _ in run(
        StreamingWorld(seed, viewers=100), workspace, store, days=3, warn=pytest.fail, settle=False
    ):
        pass
    digest = _digest(store)
    store.close()
    return digest


def test_the_same_seed_leaves_the_same_log_byte_for_byte(
    tmp_path: Path, streaming: Workspace
) -> None:
    first = _lived(tmp_path, "first", streaming, seed=1)
    assert _lived(tmp_path, "again", streaming, seed=1) == first
    assert _lived(tmp_path, "other", streaming, seed=2) != first


def test_a_run_settles_with_every_outcome_arrived_and_everything_learned(lived: Lived) -> None:
    last = lived.progress[-1]
    counts = lived.store.read(ask.counts)
    assert counts["decisions"] == last.decisions == len(lived.records)
    assert counts["outcomes"] == last.outcomes
    assert last.duplicates > 20
    learned = {s.learner: s.learned for p in lived.progress for s in p.learned}
    drawn = Counter(
        choice.learner
        for record in lived.records
        for choice in record.choices
        if choice.draw and choice.draw.drawn and choice.learner
    )
    assert learned == dict(drawn)
    serving = lived.progress[-1].serving
    newest = {s.learner: s.digest for p in lived.progress for s in p.learned}
    assert {id_: serving.models[id_].snapshot for id_ in newest} == newest


def test_progress_counts_matured_decisions_and_their_mean_reward_by_path(lived: Lived) -> None:
    means = {(m.surface, m.path): m for m in lived.progress[-1].means}
    found = Counter(
        (record.surface, a.id if a.kind == "holdout" else f"{a.id}.{a.variant}")
        for record in lived.records
        for a in record.assignments
    )
    assert {key: m.decisions for key, m in means.items() if key[1]} == found
    control, b = means["home", "layout_b.control"], means["home", "layout_b.b"]
    assert 0.4 < control.reward < b.reward < 1.5


def test_some_outcomes_arrive_too_late_to_count(lived: Lived) -> None:
    decided = {r.decision_id: r.decided_at for r in lived.records}
    watch = lived.workspace.surfaces["home"].metrics["watch"]
    rows = lived.store.read(lambda c: ask.outcomes_after(c, 0, EVERYTHING))
    late = [
        row.received_at > decided[row.decision_id] + watch.maturity_us
        for row in rows
        if row.metric == "watch"
    ]
    assert 0.01 < np.mean(late) < 0.06
    assert all(row.received_at >= row.occurred_at >= decided[row.decision_id] for row in rows)


def test_records_say_that_they_are_simulated_and_when(lived: Lived) -> None:
    assert {record.origin for record in lived.records} == {"simulate"}
    assert len({record.decision_id for record in lived.records}) == len(lived.records)
    assert rfc3339(lived.world.midnight(0)) == "2026-03-01T23:00:00.000000Z"
    assert min(r.decided_at for r in lived.records) >= lived.world.midnight(0)
    assert {r.identity.user_id is None for r in lived.records} == {True, False}


# Invariant 1 ----------------------------------------------------------------------------------


def _draws(records: list[DecisionRecord]) -> list[ChoiceRecord]:
    return [c for r in records for c in r.choices if c.draw and c.draw.drawn and c.pmf]


def _check_frequencies(records: list[DecisionRecord]) -> int:
    """By learner or policy, action and range of p: Σ(1{a} − p) against √Σp(1 − p), and their χ².

    Without the ranges, what an action has too little where it is rare hides what it has too much
    where it is common.
    """
    seen: defaultdict[tuple[str, str, int], list[tuple[bool, float]]] = defaultdict(list)
    for choice in _draws(records):
        assert choice.pmf is not None
        assert choice.propensity == choice.pmf[choice.eligible.index(choice.action)]
        for action, p in zip(choice.eligible, choice.pmf, strict=True):
            who = f"{choice.slot}:{choice.learner or choice.policy}"
            rare_to_common = int(p > 0.1) + int(p > 0.5) + int(p > 0.9)
            seen[who, action, rare_to_common].append((action == choice.action, p))
    zs = []
    for cases in seen.values():
        served, p = np.array(cases).T
        deviation = np.sqrt((p * (1 - p)).sum())
        if deviation > 2:
            zs.append((served - p).sum() / deviation)
    assert np.abs(zs).max() < 4
    assert chi2.sf(np.square(zs).sum(), len(zs)) > LEAST_P
    return len(zs)


def test_served_actions_are_as_frequent_as_their_logged_propensities(lived: Lived) -> None:
    assert _check_frequencies(lived.records) >= 12


def test_actions_that_only_the_floor_serves_are_as_frequent_as_it_says(tmp_path: Path) -> None:
    """The tiny learner knows after a day; from then on an action in twenty is the floor's."""
    store = Store(f"sqlite:///{tmp_path}/tiny.db", writer="test")
    for _ in run(TinyWorld(seed=1), tiny_workspace(), store, days=8, warn=pytest.fail):
        pass
    records = records_of(store)
    store.close()
    rare = [c for c in _draws(records) if c.pmf and min(c.pmf) == pytest.approx(0.05)]
    assert len(rare) > 1_000
    assert _check_frequencies(records) >= 4


def test_units_are_assigned_as_often_as_the_logged_factors_say(lived: Lived) -> None:
    """χ² of the units of each path against the product of its factors; one dropped would fail."""
    first: dict[str, DecisionRecord] = {}
    for record in lived.records:
        if record.surface == "home":
            first.setdefault(record.unit, record)
    paths = Counter((a.kind, a.id, a.variant) for r in first.values() for a in r.assignments)
    probability = {
        (a.kind, a.id, a.variant): (a.probability, a.factors)
        for r in first.values()
        for a in r.assignments
    }
    assert len(paths) == 7
    for path, count in paths.items():
        p, factors = probability[path]
        assert p == pytest.approx(np.prod(list(factors.values())))
        deviation = np.sqrt(len(first) * p * (1 - p))
        assert abs(count - len(first) * p) < 4 * deviation, path


# Invariant 3 ----------------------------------------------------------------------------------


def test_no_served_action_breaks_a_rule(lived: Lived) -> None:
    """The sample workspace's rules, written again in Python; what is unknown opens nothing."""
    served: Counter[str] = Counter()
    for record in lived.records:
        said = record.context
        for choice in record.choices:
            served[choice.action] += 1
            match choice.action:
                case "B":
                    assert said["weeks"] >= 1
                case "compact":
                    assert said["device"] in {"phone", "tablet"}
                case "save_offer":
                    assert said["churn_risk"] >= 0.6
                case "onboarding":
                    assert said["weeks"] < 1
                case "email" | "push":
                    assert said["consent"] is True
    actions = {"B", "compact", "save_offer", "onboarding", "email", "push", "none", "flat"}
    assert min(served[action] for action in actions) > 20


# Learning and lift ----------------------------------------------------------------------------


def test_the_layout_learner_beats_the_uniform_policy_and_the_default(
    lived: Lived, truth: Truth
) -> None:
    learner = lived.workspace.learners[
        learner_id(lived.workspace.policies["home_layout"], "home.layout", None)
    ]
    policy = lived.progress[-1].serving.models[learner.id].policy
    value = truth.policy_value(
        "home", "layout", lambda c, a: apply_floor(policy.pmf(c, a), learner.policy.floor)
    )
    uniform = truth.policy_value("home", "layout", lambda _, a: np.full(len(a), 1 / len(a)))
    default = truth.policy_value("home", "layout", "flat")
    best = truth.best_value("home", "layout")
    assert default < uniform < value < best
    assert value - uniform > 0.5 * (best - uniform)


def test_the_tiny_learner_finds_the_right_action_for_each_feature(tmp_path: Path) -> None:
    world, workspace = TinyWorld(seed=1), tiny_workspace()
    store = Store(f"sqlite:///{tmp_path}/tiny.db", writer="test")
    *_, last = run(world, workspace, store, days=3, warn=pytest.fail)
    store.close()
    policy = last.serving.models["learner:page.box"].policy
    assert Truth(world, last.serving).policy_value("page", "box", policy.pmf) == pytest.approx(0.65)


@dataclass(frozen=True)
class _Units:
    """One row a unit of an experiment, as the lift report makes them."""

    frame: pd.DataFrame
    shares: dict[str, float]


def _units(lived: Lived, experiment: str, metric: str) -> _Units:
    specs = [s.metrics[metric] for s in lived.workspace.surfaces.values() if metric in s.metrics]
    started: dict[str, tuple[int, str]] = {}
    shares: dict[str, float] = {}
    unit_of = {}
    for record in lived.records:
        unit_of[record.decision_id] = record.unit
        for a in record.assignments:
            if a.id == experiment:
                started.setdefault(record.unit, (record.decided_at, a.variant))
                shares[a.variant] = a.probability
    events: defaultdict[str, list[OutcomeEvent]] = defaultdict(list)
    for row in lived.store.read(lambda c: ask.outcomes_after(c, 0, EVERYTHING)):
        if row.metric == metric:
            events[unit_of[row.decision_id]].append(
                OutcomeEvent(row.occurred_at, row.received_at, row.value)
            )
    frame = pd.DataFrame(
        [
            (unit, variant, metric_value(specs[0], start, events[unit]))
            for unit, (start, variant) in started.items()
        ],
        columns=["unit", "variant", metric],
    )
    return _Units(frame, shares)


@pytest.mark.parametrize(
    ("experiment", "variant", "metric"),
    [
        ("layout_b", "b", "watch"),
        ("layout_b", "b", "cancel"),
        ("value_story", "story", "return_visit"),
        ("value_story", "story", "watch"),
    ],
)
def test_the_estimated_lift_covers_the_true_one(
    lived: Lived, experiment: str, variant: str, metric: str
) -> None:
    """The interval at 1 − 10⁻⁴ holds the truth, under the models that served last."""
    units = _units(lived, experiment, metric)
    truth = Truth(lived.world, lived.progress[-1].serving).lift(experiment, variant, metric, DAYS)
    assert truth.units == len(units.frame)
    report = estimated_lift(
        units.frame,
        variant="variant",
        baseline="control",
        metrics=[metric],
        probability=units.shares,
        unit="unit",
        alpha=LEAST_P,
        horizon="fixed",
    )
    (result,) = report.results
    assert report.srm.verdict == "ok"
    assert result.low < truth.difference < result.high


# Refusals -------------------------------------------------------------------------------------


def test_a_world_is_not_lived_twice_in_one_database(lived: Lived) -> None:
    with pytest.raises(EngineError, match="already holds the world of seed 5"):
        next(run(lived.world, lived.workspace, lived.store, days=1, warn=pytest.fail))


def test_a_workspace_without_what_the_world_visits_is_refused(
    tmp_path: Path, streaming: Workspace
) -> None:
    store = Store(f"sqlite:///{tmp_path}/log.db", writer="test")
    with pytest.raises(EngineError, match="surface `page` is not declared"):
        next(run(TinyWorld(seed=1), streaming, store, days=1, warn=pytest.fail))
    home = streaming.surfaces["home"]
    without = {k: v for k, v in home.slots.items() if k != "hero"}
    fewer = replace(
        streaming, surfaces={**streaming.surfaces, "home": replace(home, slots=without)}
    )
    with pytest.raises(EngineError, match=r"surfaces\.home\.slots"):
        next(run(StreamingWorld(seed=1), fewer, store, days=1, warn=pytest.fail))
    assert store.read(ask.counts)["decisions"] == 0
    store.close()
