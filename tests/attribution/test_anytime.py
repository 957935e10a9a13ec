"""Always-valid bounds against closed forms, and against how often they fail in simulation."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize, stats

from attribution import AttributionError, Proportion, Quantile, lift
from attribution.anytime import NormalMixture, Rate, TwoRates, multinomial_p_value, quantile_ranks
from tests.attribution.worlds import at_least

MIXTURE = NormalMixture(2_000)


@given(st.floats(1, 1e7), st.floats(1e-6, 0.5))
@settings(max_examples=50, deadline=None)
def test_the_p_value_of_an_estimate_at_the_intervals_end_is_the_level(
    clock: float, alpha: float
) -> None:
    z = MIXTURE.widening(clock, alpha)
    assert MIXTURE.p_value(z * z, clock) == pytest.approx(alpha, rel=1e-9)


def test_the_normal_mixture_is_the_mean_likelihood_ratio_of_normal_effects() -> None:
    """Reference: quadrature of exp(λS − λ²t/2) over λ ~ N(0, ρ²), with S = z √t."""
    z, t = 2.5, 300.0
    rho2 = 8.2 / 2_000
    [found] = optimize.minimize(
        lambda c: NormalMixture(1).widening(abs(c[0]), 0.05), [1.0], method="Nelder-Mead"
    ).x
    assert found == pytest.approx(1.0, abs=1e-2)

    def density(effect: float, at: float) -> float:
        ratio = math.exp(effect * z * math.sqrt(t) - effect**2 * t / 2)
        return float(ratio * stats.norm.pdf(effect, scale=math.sqrt(at)))

    e_value = integrate.quad(density, -2, 2, args=(rho2,), points=[0.1])[0]
    assert MIXTURE.p_value(z * z, t) == pytest.approx(min(1 / e_value, 1), rel=2e-2)


def test_a_mixture_of_two_dimensions_is_the_product_of_two() -> None:
    one = -math.log(MIXTURE.p_value(30.0, 900.0))
    both = -math.log(MIXTURE.p_value(60.0, 900.0, df=2))
    assert both == pytest.approx(2 * one, rel=1e-12)


def test_the_multinomial_p_value_is_one_over_the_bayes_factor() -> None:
    """Reference: scipy's Dirichlet-multinomial against the multinomial."""
    counts, shares = np.array([130.0, 60.0, 10.0]), np.array([0.5, 0.3, 0.2])
    bayes = stats.dirichlet_multinomial(100 * shares, 200).logpmf(counts.astype(int))
    null = stats.multinomial(200, shares).logpmf(counts)
    assert multinomial_p_value(counts, shares) == pytest.approx(math.exp(null - bayes), rel=1e-9)
    assert multinomial_p_value(np.zeros(3), shares) == 1.0


@given(st.integers(0, 50), st.integers(1, 50), st.floats(0.001, 0.5))
@settings(max_examples=60, deadline=None)
def test_a_rates_interval_holds_what_its_e_value_does_not_reject(
    x: int, more: int, alpha: float
) -> None:
    rate = Rate(x, x + more)
    low, high = rate.interval(alpha)
    assert low <= x / (x + more) <= high
    for end, edge in ((low, 0.0), (high, 1.0)):
        if end != edge:
            assert rate.log_e(end) == pytest.approx(-math.log(alpha), abs=1e-3)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 400), st.integers(1, 400))
@settings(max_examples=60, deadline=None)
def test_two_rates_p_value_is_dual_to_their_interval(x: int, x0: int, n: int, n0: int) -> None:
    rates = TwoRates(Rate(x, x + n), Rate(x0, x0 + n0))
    p_value = rates.p_value
    for alpha in (0.5 * p_value, min(1.01 * p_value, 0.999)):
        low, high = rates.interval(alpha)
        assert (low > 0 or high < 0) == (alpha > p_value)


def test_quantile_ranks_hold_the_quantile_at_all_times_together() -> None:
    """Uniform numbers, whose quantile is known, looked at after each of 40 batches."""
    rng = np.random.default_rng(1)
    logs, fails = 600, 0
    for _ in range(logs):
        values = rng.random(2_000)
        failed = False
        for n in range(50, 2_001, 50):
            low, high = quantile_ranks(n, 0.8, 0.05)
            ordered = np.sort(values[:n])
            failed |= low > 0 and ordered[low - 1] > 0.8
            failed |= high <= n and ordered[high - 1] < 0.8
        fails += failed
    assert at_least(logs - fails, logs, 0.95)


def test_a_quantile_looked_at_fifteen_times_raises_no_more_false_alarms_than_promised() -> None:
    rng = np.random.default_rng(2)
    logs, alarms, plain_alarms = 60, 0, 0
    metric = Quantile("y", quantile=0.5)
    for _ in range(logs):
        frame = pd.DataFrame({"variant": rng.choice(["a", "b"], 3_000)})
        frame["y"] = rng.lognormal(0, 1, 3_000)
        for horizon in ("always", "fixed"):
            p_values = [
                lift(
                    frame.iloc[:n],
                    variant="variant",
                    baseline="a",
                    metrics=[metric],
                    horizon="always" if horizon == "always" else "fixed",
                )
                .results[0]
                .p_value
                for n in range(200, 3_001, 200)
            ]
            alarmed = min(p_values) < 0.05
            alarms += alarmed and horizon == "always"
            plain_alarms += alarmed and horizon == "fixed"
    assert at_least(logs - alarms, logs, 0.95)
    # What the label "fixed" means: a look at will is no such look.
    assert not at_least(logs - plain_alarms, logs, 0.95)


def test_a_rare_proportion_has_an_always_valid_interval_from_the_first_unit() -> None:
    frame = pd.DataFrame({"variant": ["a"] * 400 + ["b"] * 400, "y": 0.0})
    frame.loc[[1, 2, 3], "y"] = 1.0
    frame.loc[range(400, 460), "y"] = 1.0
    [row] = lift(frame, variant="variant", baseline="a", metrics=[Proportion("y")]).results
    assert (row.interval, row.always_valid, row.verdict) == ("beta_binomial", True, "higher")
    assert 0 < row.low < row.difference < row.high
    assert 0 < row.relative_low < row.relative < row.relative_high


@pytest.mark.parametrize("tuned_at", [0, -1, math.inf, math.nan])
def test_a_mixture_tuned_nowhere_is_refused(tuned_at: float) -> None:
    with pytest.raises(AttributionError, match="`tuned_at` is"):
        NormalMixture(tuned_at)
