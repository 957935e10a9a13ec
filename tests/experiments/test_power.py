"""Power, sample size and minimum effect against statsmodels, the lift report and simulation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.power import NormalIndPower

from attribution import anytime, effects, lift
from experiments import Comparison, ExperimentError, power


def test_at_a_fixed_horizon_power_and_size_are_statsmodels() -> None:
    planned = Comparison(sd=2.0, share=0.3, horizon="fixed")
    reference = NormalIndPower()
    # nobs1 is the first sample's; ratio the second's over it.
    n1, ratio = 0.3 * 4_000, 0.7 / 0.3
    expected = reference.power(0.2 / 2, n1, 0.05, ratio)
    assert planned.power(0.2, 4_000) == pytest.approx(expected, rel=1e-6)
    least = reference.solve_power(nobs1=n1, alpha=0.05, power=0.8, ratio=ratio) * 2
    assert planned.minimum_effect(4_000) == pytest.approx(least, rel=1e-5)
    needed = reference.solve_power(0.1, alpha=0.05, power=0.8, ratio=ratio) / 0.3
    assert planned.units(0.2) == pytest.approx(needed, abs=1.5)


def test_size_and_minimum_effect_undo_each_other() -> None:
    for horizon in ("always", "fixed"):
        planned = Comparison(1.5, 0.05, horizon="always" if horizon == "always" else "fixed")
        units = planned.units(0.05, 0.9)
        assert planned.minimum_effect(units, 0.9) == pytest.approx(0.05, rel=1e-4)
        assert planned.power(-0.05, units) == pytest.approx(0.9, abs=1e-4)


@pytest.mark.parametrize("horizon", ["always", "fixed"])
def test_the_half_width_is_that_of_the_lift_report(horizon: Any) -> None:
    rng = np.random.default_rng(1)
    new = np.arange(40_000) % 10 == 0
    frame = pd.DataFrame({"variant": np.where(new, "new", "old")})
    frame["y"] = rng.normal(size=40_000)
    [row] = lift(frame, variant="variant", baseline="old", metrics=["y"], horizon=horizon).results
    planned = Comparison(sd=1.0, share=0.1, horizon=horizon)
    assert (row.high - row.low) / 2 == pytest.approx(planned.half_width(40_000), rel=0.03)


def test_the_constants_are_those_of_the_lift_report() -> None:
    assert power.TUNED_AT == effects.TUNED_AT
    mixture = anytime.NormalMixture(effects.TUNED_AT)
    planned = Comparison(sd=1.0)
    half = mixture.widening(10_000, 0.05) * planned.standard_error(20_000)
    assert planned.half_width(20_000) == pytest.approx(half, rel=1e-12)


def test_the_promised_power_is_reached_at_the_last_look() -> None:
    rng = np.random.default_rng(2)
    planned = Comparison(sd=1.0, share=0.2)
    units = planned.units(0.12)
    shown, logs = 0, 300
    for _ in range(logs):
        new = rng.random(units) < 0.2
        frame = pd.DataFrame({"variant": np.where(new, "new", "old")})
        frame["y"] = rng.normal(size=units) + 0.12 * new
        [row] = lift(frame, variant="variant", baseline="old", metrics=["y"]).results
        shown += row.verdict == "higher"
    assert stats.binomtest(shown, logs, 0.8).pvalue > 1e-3


def test_an_always_valid_experiment_of_sparse_revenue_outlasts_its_burn_in() -> None:
    planned = Comparison(sd=1.0, share=0.05, shows=0.01)
    assert planned.units(10.0) == 100 / 0.05 / 0.01


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sd": 0}, "`sd` is 0"),
        ({"share": 0.7}, "`share` is 0.7"),
        ({"alpha": 1}, "`alpha` is 1"),
        ({"shows": 0}, "`shows` is 0"),
        ({"tuned_at": -1}, "`tuned_at` is -1"),
        ({"horizon": "soon"}, "`horizon` is 'soon'"),
    ],
)
def test_a_comparison_that_cannot_be_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ExperimentError, match=message):
        Comparison(**({"sd": 1.0} | values))


def test_questions_without_an_answer_are_refused() -> None:
    planned = Comparison(sd=1.0)
    for ask, message in (
        (lambda: planned.units(0.0), "`effect` is 0"),
        (lambda: planned.units(1.0, 1.0), "`power` is 1"),
        (lambda: planned.units(1e-12), "too small for any number of units"),
        (lambda: planned.minimum_effect(1), "`units` is 1"),
        (lambda: planned.minimum_effect(math.inf), "`units` is inf"),
    ):
        with pytest.raises(ExperimentError, match=message):
            ask()
