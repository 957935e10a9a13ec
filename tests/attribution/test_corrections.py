"""A correction replaces the value of the outcome it names, if it arrives in time."""

from __future__ import annotations

import pandas as pd
import pytest

from attribution import (
    AttributionError,
    MetricSpec,
    OutcomeEvent,
    join_decisions,
    join_units,
    metric_value,
)
from attribution.metrics import Aggregate

DAY = 86_400_000_000
START = 1_700_000_000_000_000
MARGIN = MetricSpec("margin", window_s=7 * 86_400, lateness_s=86_400)
BEST = MetricSpec("margin", window_s=7 * 86_400, lateness_s=86_400, aggregate="max")


def _time(days: float) -> pd.Timestamp:
    return pd.Timestamp(START + int(days * DAY), unit="us", tz="UTC")


def _outcomes(*rows: tuple[str, float, float, str | None], key: str) -> pd.DataFrame:
    """Rows of (id, value, day of occurrence and receipt, what is corrected)."""
    return pd.DataFrame(
        {
            "outcome_id": [row[0] for row in rows],
            key: ["d1" if key == "decision_id" else "u1"] * len(rows),
            "metric": "margin",
            "value": [row[1] for row in rows],
            "occurred_at": [_time(row[2]) for row in rows],
            "received_at": [_time(row[2]) for row in rows],
            "corrects": [row[3] for row in rows],
        }
    )


def _decided(outcomes: pd.DataFrame, spec: MetricSpec) -> float:
    decisions = pd.DataFrame(
        {"decision_id": ["d1"], "unit": ["u1"], "decided_at": [_time(0)], "n": [1]}
    )
    frame = join_decisions(decisions, outcomes, [spec], _time(30)).frame
    return float(frame["margin"].iloc[0])


@pytest.mark.parametrize("key", ["decision_id", "unit"])
def test_a_return_takes_a_margin_back(key: str) -> None:
    outcomes = _outcomes(
        ("sale", 10.0, 1, None), ("other", 3.0, 2, None), ("return", 0.0, 5, "sale"), key=key
    )
    assert _decided(outcomes, MARGIN) == 3.0
    assert _decided(outcomes, BEST) == 3.0


def test_a_correction_after_maturity_changes_no_report() -> None:
    outcomes = _outcomes(("sale", 10.0, 1, None), ("return", 0.0, 9, "sale"), key="decision_id")
    assert _decided(outcomes, MARGIN) == 10.0


def test_a_correction_counts_at_the_time_of_what_it_corrects() -> None:
    """Received after the window but within its lateness, it still corrects a sale inside."""
    outcomes = _outcomes(("sale", 10.0, 1, None), ("return", 4.0, 7.5, "sale"), key="decision_id")
    assert _decided(outcomes, MARGIN) == 4.0


def test_the_last_of_a_chain_of_corrections_holds() -> None:
    outcomes = _outcomes(
        ("a", 1.0, 1, None), ("b", 2.0, 2, "a"), ("c", 3.0, 3, "b"), ("d", 4.0, 4, "c"),
        key="decision_id",
    )  # fmt: skip
    assert _decided(outcomes, MARGIN) == 4.0


def test_a_correction_of_nothing_known_is_left_out() -> None:
    outcomes = _outcomes(("a", 1.0, 1, None), ("b", 2.0, 2, "elsewhere"), key="decision_id")
    assert _decided(outcomes, MARGIN) == 1.0


def test_units_are_corrected_alike() -> None:
    assignments = pd.DataFrame(
        {
            "unit": ["u1", "u2"],
            "experiment": "e",
            "variant": ["a", "b"],
            "probability": 0.5,
            "assigned_at": [_time(0), _time(0)],
        }
    )
    outcomes = _outcomes(("sale", 10.0, 1, None), ("return", 2.5, 5, "sale"), key="unit")
    frame = join_units(assignments, outcomes, [MARGIN], _time(30)).frame.set_index("unit")
    assert frame["margin"].to_dict() == {"u1": 2.5, "u2": 0.0}


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 7])
def test_corrections_that_go_round_in_a_circle_are_refused(length: int) -> None:
    circle = [(str(i), 1.0, 1.0, str((i + 1) % length)) for i in range(length)]
    outcomes = _outcomes(("x", 1.0, 1, None), *circle, key="decision_id")
    with pytest.raises(AttributionError, match="`corrects` leads back") as caught:
        _decided(outcomes, MARGIN)
    assert (caught.value.count, caught.value.row) == (length, 1)


def test_an_outcome_id_that_repeats_is_refused_where_there_are_corrections() -> None:
    outcomes = _outcomes(
        ("a", 1.0, 1, None), ("a", 2.0, 1, None), ("b", 3.0, 2, "a"), key="decision_id"
    )
    with pytest.raises(AttributionError, match=r"`outcome_id` repeats .* row 1 \(it is a\)"):
        _decided(outcomes, MARGIN)


def test_outcomes_without_an_id_stand_beside_corrections() -> None:
    outcomes = _outcomes(
        ("a", 1.0, 1, None), ("b", 2.0, 1, None), ("c", 4.0, 1, None), ("d", 3.0, 2, "a"),
        key="decision_id",
    )  # fmt: skip
    outcomes.loc[[1, 2], "outcome_id"] = None
    assert _decided(outcomes, MARGIN) == 9.0


@pytest.mark.parametrize("name", ["unit", "variant", "probability"])
def test_an_assignment_with_a_field_missing_is_refused(name: str) -> None:
    assignments = pd.DataFrame(
        {
            "unit": ["u1", "u2"],
            "experiment": "e",
            "variant": ["a", "b"],
            "probability": 0.5,
            "assigned_at": [_time(0), _time(0)],
        }
    ).astype({"probability": object})
    assignments.loc[1, name] = None
    outcomes = _outcomes(("sale", 10.0, 1, None), key="unit")
    with pytest.raises(AttributionError, match=f"`{name}` is missing in 1 of 2 rows, .* row 1"):
        join_units(assignments, outcomes, [MARGIN], _time(30))


def test_a_sum_over_a_frame_is_the_frame_free_sum_to_the_last_bit() -> None:
    values = [0.1, 1e16, 0.7, -1e16, 0.3, 1e-9, 0.1]
    outcomes = _outcomes(*((str(i), v, 1, None) for i, v in enumerate(values)), key="decision_id")
    events = [OutcomeEvent(1, 1, value) for value in values]
    kinds: list[Aggregate] = ["sum", "mean"]
    for aggregate in kinds:
        spec = MetricSpec("margin", 7 * 86_400, 86_400, aggregate)
        assert _decided(outcomes, spec) == metric_value(spec, 0, events)
