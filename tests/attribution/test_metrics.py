"""Which outcomes count, when a decision matures, and that both forms of the rule agree."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attribution import (
    AttributionError,
    MetricSpec,
    OutcomeEvent,
    counts,
    join_decisions,
    join_units,
    matures_at,
    metric_value,
)
from attribution.metrics import AGGREGATES, Aggregate

S = 1_000_000
DAY = 86_400 * S


def test_importing_the_metrics_brings_no_data_frame_library() -> None:
    code = (
        "import sys, attribution.metrics\n"
        "print([m for m in ('numpy', 'pandas', 'scipy', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_outcome_counts_from_the_decision_to_the_end_of_its_window_if_it_came_in_time() -> None:
    spec = MetricSpec("watch", window_s=10, lateness_s=5)
    at = 100 * S
    assert matures_at(spec, at) == 115 * S
    for occurred, received, counted in [
        (100, 100, True),
        (110, 115, True),
        (110, 116, False),
        (111, 111, False),
        (99, 100, False),
    ]:
        assert counts(spec, at, OutcomeEvent(occurred * S, received * S, 1.0)) is counted
    second = MetricSpec("back", window_s=10, opens_s=7)
    for occurred, counted in [(106, False), (107, True), (110, True), (111, False)]:
        assert counts(second, at, OutcomeEvent(occurred * S, occurred * S, 1.0)) is counted


def test_each_aggregate_by_hand() -> None:
    events = [OutcomeEvent(3, 3, 1.0), OutcomeEvent(1, 9, 4.0), OutcomeEvent(2, 2, -2.0)]
    expected = {"max": 4, "min": -2, "sum": 3, "mean": 1, "last": 1, "first": 4, "count": 3}
    for aggregate in AGGREGATES:
        spec = MetricSpec("m", window_s=1, aggregate=aggregate, default=7)
        assert metric_value(spec, 0, events) == expected[aggregate]
        assert metric_value(spec, 0, []) == 7


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(-1e9, 1e9)), max_size=8), st.integers(0, 99))
def test_the_order_of_arrival_changes_no_metric(pairs: list[tuple[int, float]], seed: int) -> None:
    events = [OutcomeEvent(time, time, value) for time, value in pairs]
    shuffled = [events[i] for i in np.random.default_rng(seed).permutation(len(events))]
    for aggregate in AGGREGATES:
        spec = MetricSpec("m", window_s=1, aggregate=aggregate)
        assert metric_value(spec, 0, events) == metric_value(spec, 0, shuffled)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": ""}, "`name` of a metric is empty"),
        ({"window_s": -1}, "`m.window_s` is -1"),
        ({"window_s": math.nan}, "`m.window_s` is nan"),
        ({"lateness_s": math.inf}, "`m.lateness_s` is inf"),
        ({"aggregate": "median"}, "`m.aggregate` is 'median'. Known: max, min"),
        ({"default": math.nan}, "`m.default` is nan"),
        ({"opens_s": 1}, "A window opens before it closes"),
        ({"opens_s": -1}, "`m.opens_s` is -1"),
    ],
)
def test_a_metric_that_makes_no_sense_is_refused(
    arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(AttributionError, match=message):
        MetricSpec(**({"name": "m", "window_s": 1} | arguments))  # type: ignore[arg-type]  # each case has its own


def test_an_outcome_that_is_not_finite_is_refused() -> None:
    with pytest.raises(AttributionError, match="`value` of an outcome is nan"):
        OutcomeEvent(0, 0, math.nan)


def stamps(microseconds: list[int]) -> pd.Series[pd.Timestamp]:
    return pd.to_datetime(pd.Series(microseconds, dtype="int64"), unit="us", utc=True)


NOW = pd.Timestamp("1970-02-01", tz="UTC")


@given(
    seed=st.integers(0, 2**32 - 1),
    aggregate=st.sampled_from(AGGREGATES),
    window_s=st.sampled_from([0, 3, 10]),
    late_s=st.sampled_from([0, 2]),
)
@settings(max_examples=40, deadline=None)
def test_joined_frames_hold_the_values_that_learning_sees(
    seed: int, aggregate: Aggregate, window_s: float, late_s: float
) -> None:
    """The frame form and the frame-free form are one rule, decision by decision."""
    rng = np.random.default_rng(seed)
    spec = MetricSpec(
        "m",
        window_s,
        lateness_s=2,
        aggregate=aggregate,
        default=-1,
        opens_s=late_s if window_s else 0,
    )
    decisions = pd.DataFrame(
        {
            "decision_id": [f"d{i}" for i in range(12)],
            "unit": rng.choice(["a", "b", "c"], 12),
            "decided_at": stamps([int(t) * S for t in rng.integers(0, 20, 12)]),
        }
    )
    occurred = rng.integers(0, 30, 40) * S
    received = occurred + rng.integers(0, 6, 40) * S
    outcomes = pd.DataFrame(
        {
            "decision_id": [
                f"d{i}" if named else None
                for i, named in zip(rng.integers(0, 14, 40), rng.random(40) < 0.5, strict=True)
            ],
            "unit": rng.choice(["a", "b", "z"], 40),
            "metric": rng.choice(["m", "other"], 40),
            "value": rng.integers(-3, 4, 40).astype(float),
            "occurred_at": stamps(occurred.tolist()),
            "received_at": stamps(received.tolist()),
        }
    )
    joined = join_decisions(decisions, outcomes, [spec], NOW, reward={"m": 2.0}).frame
    for i, row in joined.iterrows():
        decided = round(row["decided_at"].timestamp()) * S
        mine = (outcomes["metric"] == "m") & (
            (outcomes["decision_id"] == row["decision_id"])
            | (outcomes["decision_id"].isna() & (outcomes["unit"] == row["unit"]))
        )
        events = [
            OutcomeEvent(int(occurred[j]), int(received[j]), float(outcomes["value"][j]))
            for j in np.flatnonzero(mine)
        ]
        value = metric_value(spec, decided, events)
        assert row["m"] == pytest.approx(value, abs=1e-12), i
        assert row["reward"] == pytest.approx(2 * value, abs=1e-12)


def test_a_decision_that_has_not_matured_is_left_out_and_never_a_zero() -> None:
    spec = MetricSpec("m", window_s=10, lateness_s=5)
    decisions = pd.DataFrame(
        {"decision_id": ["old", "new"], "unit": ["a", "b"], "decided_at": stamps([0, 20 * S])}
    )
    outcomes = pd.DataFrame(
        {
            "decision_id": ["new"],
            "metric": ["m"],
            "value": [1.0],
            "occurred_at": stamps([21 * S]),
            "received_at": stamps([21 * S]),
        }
    )
    early = join_decisions(decisions, outcomes, [spec], pd.Timestamp(30 * S * 1000, tz="UTC"))
    assert (early.frame["decision_id"].tolist(), early.open) == (["old"], 1)
    ripe = join_decisions(decisions, outcomes, [spec], pd.Timestamp(35 * S * 1000, tz="UTC"))
    assert (ripe.frame["m"].tolist(), ripe.open) == ([0.0, 1.0], 0)


def units_of(times: list[int], units: list[str], variants: list[str]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "unit": units,
            "experiment": "e",
            "variant": variants,
            "probability": 0.5,
            "assigned_at": stamps(times),
        }
    )


NOTHING = pd.DataFrame(
    {
        "unit": pd.Series(dtype=object),
        "metric": pd.Series(dtype=object),
        "value": pd.Series(dtype=float),
        "occurred_at": stamps([]),
        "received_at": stamps([]),
    }
)


def test_a_unit_keeps_its_first_assignment_and_conflicts_are_counted() -> None:
    assigned = units_of([5 * S, 0, 9 * S], ["a", "a", "b"], ["new", "control", "new"])
    joined = join_units(assigned, NOTHING, [MetricSpec("m", 1)], NOW)
    assert joined.frame.set_index("unit")["variant"].to_dict() == {"a": "control", "b": "new"}
    assert joined.conflicts == 1


def test_open_windows_are_missing_and_late_arrivals_counted_apart() -> None:
    assigned = units_of([0, 0, 25 * DAY], ["a", "b", "c"], ["new", "control", "new"])
    outcomes = pd.DataFrame(
        {
            "unit": ["a", "a", "b", "c", "stranger"],
            "metric": "m",
            "value": [1.0, 2.0, 4.0, 8.0, 16.0],
            "occurred_at": stamps([DAY, 2 * DAY, DAY, 26 * DAY, DAY]),
            "received_at": stamps([DAY, 2 * DAY, 20 * DAY, 26 * DAY, DAY]),
        }
    )
    short, long = MetricSpec("m", 7 * 86_400), MetricSpec("slow", 60 * 86_400)
    joined = join_units(assigned, outcomes, [short, long], NOW)
    frame = joined.frame.set_index("unit")
    assert frame.loc["a", "m"] == 3
    assert frame.loc["b", "m"] == 0
    assert frame["m"].isna().to_dict() == {"a": False, "b": False, "c": True}
    assert frame["slow"].isna().all()
    assert joined.open == {"m": 1, "slow": 3}
    assert joined.late == {"m": 1, "slow": 0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": np.nan}, "`value` is not finite in 2 of 2 rows"),
        ({"value": "much"}, "It must hold numbers"),
        ({"occurred_at": pd.Timestamp("2026-01-01")}, "must hold timestamps with a zone"),
        ({"received_at": pd.NaT}, "must hold timestamps with a zone|is missing"),
    ],
)
def test_outcomes_that_make_no_sense_are_refused(change: dict[str, Any], message: str) -> None:
    outcomes = pd.DataFrame(
        {
            "unit": ["a", "b"],
            "metric": "m",
            "value": 1.0,
            "occurred_at": stamps([0, 0]),
            "received_at": stamps([0, 0]),
        }
    ).assign(**change)
    with pytest.raises(AttributionError, match=message):
        join_units(units_of([0], ["a"], ["x"]), outcomes, [MetricSpec("m", 1)], NOW)


def test_assignments_of_two_experiments_and_a_time_without_zone_are_refused() -> None:
    assigned = units_of([0, 0], ["a", "b"], ["x", "y"]).assign(experiment=["e", "f"])
    with pytest.raises(AttributionError, match="holds 2 experiments"):
        join_units(assigned, NOTHING, [MetricSpec("m", 1)], NOW)
    with pytest.raises(AttributionError, match="`as_of` is 2026-01-01 00:00:00, without a zone"):
        join_units(
            units_of([0], ["a"], ["x"]), NOTHING, [MetricSpec("m", 1)], pd.Timestamp("2026-01-01")
        )
    decisions = pd.DataFrame({"decision_id": ["d", "d"], "unit": "a", "decided_at": stamps([0, 0])})
    with pytest.raises(AttributionError, match="`decision_id` repeats an earlier row's in 1 of 2"):
        join_decisions(decisions, NOTHING, [MetricSpec("m", 1)], NOW)
    with pytest.raises(AttributionError, match=r"`reward` names 'z'\. Known: m"):
        join_decisions(decisions[:1], NOTHING, [MetricSpec("m", 1)], NOW, reward={"z": 1.0})
