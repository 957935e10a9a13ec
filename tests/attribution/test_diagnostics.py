"""What the diagnostics say of a log: missing outcomes, drift, mended and unmended faults."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from attribution import AttributionError, EvaluationLog, evaluate
from attribution.diagnostics import drift


def frame_of(rng: np.random.Generator, lost: list[float]) -> pd.DataFrame:
    """Two actions drawn alike, whose outcomes go missing with the chances given."""
    action = rng.integers(0, 2, 4000)
    return pd.DataFrame(
        {
            "a": action,
            "r": rng.random(4000),
            "known": rng.random(4000) >= np.array(lost)[action],
        }
    )


def read(frame: pd.DataFrame, **more: Any) -> EvaluationLog:
    return EvaluationLog.from_frame(frame, action="a", reward="r", propensity=0.5, **more)


def test_outcomes_that_go_missing_with_one_action_are_named() -> None:
    """Reference: scipy's test of the table of actions by known and missing."""
    rng = np.random.default_rng(0)
    frame = frame_of(rng, [0.02, 0.1])
    log = read(frame, observed="known", pmf=np.full((4000, 2), 0.5))
    assert log.n == frame["known"].sum()
    found = evaluate(log, {"u": log.uniform()}, ["ips"]).diagnostics["u"]
    table = pd.crosstab(frame["known"], frame["a"])
    assert found.missing_p == pytest.approx(
        stats.chi2_contingency(table, correction=False).pvalue, rel=1e-9
    )
    assert found.verdict == "weak"
    assert "outcomes are missing more often after some actions" in found.reason


def test_outcomes_that_go_missing_alike_are_no_fault() -> None:
    log = read(frame_of(np.random.default_rng(1), [0.05, 0.05]), observed="known")
    found = evaluate(log, {"u": log.uniform()}, ["ips"]).diagnostics["u"]
    assert found.missing_p > 1e-3
    assert found.verdict == "ok"
    assert found.to_json()["missing_p"] == found.missing_p


def test_a_row_without_an_outcome_may_hold_no_number() -> None:
    frame = frame_of(np.random.default_rng(2), [0.05, 0.05])
    frame.loc[~frame["known"], "r"] = np.nan
    assert read(frame, observed="known").n == frame["known"].sum()
    with pytest.raises(AttributionError, match="`reward` is not a finite number"):
        read(frame)
    with pytest.raises(AttributionError, match="`observed` is column 'r' of type float64"):
        read(frame, observed="r")


def test_drift_is_how_far_the_logged_probabilities_moved() -> None:
    n = 1000
    time = np.datetime64("2026-01-01", "us") + np.arange(n).astype("timedelta64[m]")
    share = np.linspace(0.2, 0.8, n)
    reward = np.random.default_rng(3).random(n)
    pmf = np.column_stack([share, 1 - share])
    action = np.zeros(n, dtype=np.intp)
    log = EvaluationLog((0, 1), action, reward, pmf[:, 0], pmf=pmf, time=time)
    assert drift(log) == pytest.approx(0.27, abs=0.001)
    still = EvaluationLog((0, 1), action, reward, np.full(n, 0.5), time=time)
    assert np.isnan(drift(still))


def test_counts_of_missing_outcomes_must_fit_the_actions() -> None:
    common: dict[str, Any] = {"actions": ("a", "b"), "action": np.array([0, 1])}
    numbers: dict[str, Any] = {"reward": np.ones(2), "propensity": np.full(2, 0.5)}
    with pytest.raises(AttributionError, match="`missing` has 3 counts for 2 actions"):
        EvaluationLog(**common, **numbers, missing=np.zeros(3, int))
    with pytest.raises(AttributionError, match="`missing` holds -1"):
        EvaluationLog(**common, **numbers, missing=np.array([-1, 0]))
    with pytest.raises(AttributionError, match="`logger_propensity` has shape"):
        EvaluationLog(**common, **numbers, logger_propensity=np.ones((2, 1)))
    with pytest.raises(AttributionError, match=r"`logger_propensity` is not in .* in 2 of 2 rows"):
        EvaluationLog(
            **common,
            **numbers,
            logger=np.array([0, 1]),
            logger_propensity=np.full((2, 2), 0.4),
        )
