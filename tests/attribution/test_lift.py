"""Lift against references and known truths."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from statsmodels.stats import proportion
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from attribution import AttributionError, lift, roll_up
from attribution.proportions import TwoProportions
from attribution.report import LiftResult
from attribution.sample_ratio import sample_ratio
from tests.attribution.worlds import at_least, shared_data

FloatArray = npt.NDArray[np.float64]


def two(control: FloatArray, changed: FloatArray, probability: float | None = None) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "variant": ["control"] * len(control) + ["new"] * len(changed),
            "y": np.concatenate([control, changed]),
            "probability": 0.5 if probability is None else probability,
        }
    )


def compare(control: FloatArray, changed: FloatArray) -> LiftResult:
    report = lift(
        two(control, changed), variant="variant", baseline="control", metrics=["y"], horizon="fixed"
    )
    [result] = report.results
    return result


@pytest.mark.parametrize("mean", [0.0, 1e8])
def test_welch_agrees_with_scipy_and_statsmodels(mean: float) -> None:
    """To 1e-10, and to 1e-6 at mean 1e8, where raw sums of squares fail."""
    rng = np.random.default_rng(0)
    control, changed = rng.normal(mean, 8, 300), rng.normal(mean + 1, 12, 200)
    found = compare(control, changed)
    tolerance = 1e-10 if mean == 0 else 1e-6
    # The reference works on what is left when the common mean is taken away.
    reference = CompareMeans(DescrStatsW(changed - mean), DescrStatsW(control - mean))
    low, high = reference.tconfint_diff(usevar="unequal")
    p_value = stats.ttest_ind(changed - mean, control - mean, equal_var=False).pvalue
    assert (found.low, found.high, found.p_value) == pytest.approx(
        (low, high, p_value), rel=tolerance
    )


def test_hillstrom_lifts_are_those_of_ols_with_hc2() -> None:
    """Reference: statsmodels OLS on the group dummies, whose HC2 variance is Welch's."""
    frame = pd.read_csv(shared_data("hillstrom.csv.gz"))
    segments = ["Mens E-Mail", "Womens E-Mail"]
    report = lift(
        frame,
        variant="segment",
        baseline="No E-Mail",
        metrics=["visit", "conversion", "spend"],
        probability=dict.fromkeys([*segments, "No E-Mail"], 1 / 3),
        horizon="fixed",
    )
    assert report.srm.verdict == "ok"
    found = {(row.metric, row.variant): row for row in report.results}
    design = sm.add_constant(
        np.column_stack([(frame["segment"] == name).astype(float) for name in segments])
    )
    for metric in ("visit", "conversion", "spend"):
        fit = sm.OLS(frame[metric].to_numpy(float), design).fit(cov_type="HC2")
        for column, segment in enumerate(segments, start=1):
            row = found[metric, segment]
            half = (row.high - row.low) / 2
            df = len(frame) * 2 / 3
            assert row.difference == pytest.approx(fit.params[column], rel=1e-10)
            assert half / stats.t.ppf(0.975, df) == pytest.approx(fit.bse[column], rel=1e-4)
    assert found["visit", "Mens E-Mail"].mean == pytest.approx(0.1828, abs=5e-5)
    assert found["visit", "Womens E-Mail"].mean == pytest.approx(0.1514, abs=5e-5)
    assert found["visit", "Mens E-Mail"].baseline_mean == pytest.approx(0.1062, abs=5e-5)


def test_relative_lift_has_the_sign_of_the_difference_on_a_negative_baseline() -> None:
    rng = np.random.default_rng(1)
    found = compare(rng.normal(-10, 1, 400), rng.normal(-8, 1, 400))
    assert found.difference > 0
    assert found.relative == pytest.approx(0.2, abs=0.03)
    assert found.relative_low < found.relative < found.relative_high
    assert found.verdict == "higher"


def test_relative_lift_of_the_negated_metric_is_the_negated_relative_lift() -> None:
    rng = np.random.default_rng(2)
    control, changed = rng.normal(5, 1, 300), rng.normal(5.5, 2, 300)
    plain, negated = compare(control, changed), compare(-control, -changed)
    assert negated.relative == pytest.approx(-plain.relative, rel=1e-12)
    assert negated.relative_low == pytest.approx(-plain.relative_high, rel=1e-12)


def test_relative_lift_is_left_out_where_the_baseline_cannot_be_told_from_zero() -> None:
    rng = np.random.default_rng(3)
    found = compare(rng.normal(0, 1, 200), rng.normal(3, 1, 200))
    assert math.isnan(found.relative)
    assert found.low < 3 < found.high


def test_the_relative_interval_is_fiellers() -> None:
    """Its ends are the ratios that Welch's test, with the difference's quantile, just rejects."""
    control, changed = np.array([1.0, 2, 3, 4, 5, 6]) + 5, np.array([2.0, 4, 4, 6, 9, 11]) + 5
    found = compare(control, changed)
    v0, v1 = control.var(ddof=1) / 6, changed.var(ddof=1) / 6
    df = (v0 + v1) ** 2 / (v0**2 / 5 + v1**2 / 5)
    assert found.relative == pytest.approx(changed.mean() / control.mean() - 1, rel=1e-12)
    for end in (found.relative_low, found.relative_high):
        theta = 1 + end
        t = (changed.mean() - theta * control.mean()) / np.sqrt(v1 + theta**2 * v0)
        assert abs(t) == pytest.approx(stats.t.ppf(0.975, df), rel=1e-10)


@given(st.floats(-3, 3), st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_relative_and_absolute_intervals_agree_on_whether_anything_changed(
    effect: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    for sign in (1, -1):
        found = compare(sign * rng.normal(10, 2, 30), sign * rng.normal(10 + effect, 3, 40))
        assert (found.low < 0 < found.high) == (found.relative_low < 0 < found.relative_high)


def test_a_failed_sample_ratio_leaves_no_effect_to_be_believed() -> None:
    rng = np.random.default_rng(4)
    frame = two(rng.normal(size=1000), rng.normal(size=1200))
    report = lift(
        frame, variant="variant", baseline="control", metrics=["y"], probability="probability"
    )
    assert report.srm.verdict == "failed"
    [row] = report.results
    assert math.isnan(row.difference)
    assert row.n == 1200
    assert "sample ratio" in row.verdict
    assert report.to_json()["results"][0]["p_value"] is None


def test_without_probabilities_the_sample_ratio_is_not_checked_and_says_so() -> None:
    report = lift(
        two(np.arange(4.0), np.arange(40.0)), variant="variant", baseline="control", metrics=["y"]
    )
    assert report.to_json()["srm"] == {"p_value": None, "verdict": "not_checked"}


def test_a_declared_variant_that_nobody_got_fails_the_sample_ratio() -> None:
    report = lift(
        two(np.arange(50.0), np.arange(50.0)),
        variant="variant",
        baseline="control",
        metrics=["y"],
        probability={"control": 0.3, "new": 0.3, "lost": 0.3},
    )
    assert report.srm.verdict == "failed"


def ramped(rng: np.random.Generator, effect: float = 0.0) -> pd.DataFrame:
    """5 % treated at first, half later, while the metric drifts upwards for everyone."""
    share = np.repeat([0.05, 0.5], 4000)
    new = rng.random(8000) < share
    base = np.where(share == 0.05, 0.0, 1.0)
    return pd.DataFrame(
        {
            "variant": np.where(new, "new", "control"),
            "probability": np.where(new, share, 1 - share),
            "y": base + effect * new + rng.normal(size=8000),
        }
    )


def test_a_ramp_through_a_shift_of_the_baseline_does_not_confound() -> None:
    """Coverage of the true zero by the weighted interval; the plain one misses it always."""
    rng = np.random.default_rng(5)
    hits = plain_hits = passed = 0
    for _ in range(200):
        frame = ramped(rng)
        asked = {"variant": "variant", "baseline": "control", "metrics": ["y"], "horizon": "fixed"}
        report = lift(frame, **asked, probability="probability")  # type: ignore[arg-type]  # a dict of mixed types
        passed += report.srm.verdict == "ok"
        [row] = report.results
        assert row.interval in {"hajek", "none"}
        hits += row.low < 0 < row.high
        [plain] = lift(frame, **asked).results  # type: ignore[arg-type]  # likewise
        plain_hits += plain.low < 0 < plain.high
    assert at_least(hits, 200, 0.95)
    assert passed >= 198
    assert plain_hits == 0


def test_a_sample_ratio_of_sound_splits_is_not_doubted_over_forty_looks() -> None:
    """Both forms at the level .05 in place of .001, so that a few hundred logs tell."""
    rng = np.random.default_rng(6)
    for shares in ((0.3, 0.3), (0.05, 0.5)):
        share = np.repeat(shares, 1000)
        alarms = 0
        for _ in range(400):
            new = rng.random(2000) < share
            chance = np.where(new, share, 1 - share)
            least = 1.0
            for look in range(50, 2001, 50):
                code = 2 * new[:look] + (share[:look] != share[0])
                cells, count = np.unique(code, return_counts=True)
                p = np.array([chance[:look][code == cell][0] for cell in cells])
                variant = (cells // 2).astype(np.intp)
                if set(variant) == {0, 1}:
                    least = min(least, sample_ratio(count, p, variant, 2).p_value)
            alarms += least < 0.05
        assert at_least(400 - alarms, 400, 0.95), (shares, alarms)


def test_hajek_means_are_inverse_probability_weighted_least_squares() -> None:
    """Reference: statsmodels WLS on the dummy with weights 1/p, robust up to n/(n − 1)."""
    frame = ramped(np.random.default_rng(7), effect=0.3)
    [row] = lift(
        frame,
        variant="variant",
        baseline="control",
        metrics=["y"],
        probability="probability",
        horizon="fixed",
    ).results
    design = sm.add_constant((frame["variant"] == "new").to_numpy(float))
    fit = sm.WLS(frame["y"].to_numpy(), design, weights=1 / frame["probability"].to_numpy()).fit(
        cov_type="HC0"
    )
    assert row.difference == pytest.approx(fit.params[1], rel=1e-10)
    assert (row.high - row.low) / 2 == pytest.approx(1.96 * fit.bse[1], rel=0.01)


def test_welch_covers_the_true_difference_of_skewed_metrics_of_unequal_size() -> None:
    rng = np.random.default_rng(8)
    hits = 0
    for _ in range(600):
        row = compare(rng.exponential(1, 600), rng.exponential(1.2, 300))
        hits += row.low < 0.2 < row.high
    assert at_least(hits, 600, 0.94)


@pytest.mark.parametrize(
    ("n", "n0", "rate"), [(50, 1000, 0.03), (500, 9500, 0.005), (50, 1000, 0.05)]
)
def test_a_rare_proportion_raises_no_more_false_alarms_than_promised(
    n: int, n0: int, rate: float
) -> None:
    """Welch's intervals gave 24, 9 and 8 % in these A/A cells, nearly all of them "lower"."""
    rng = np.random.default_rng(11)
    frame = two(np.zeros(n0), np.zeros(n))
    asked = {"variant": "variant", "baseline": "control", "metrics": ["y"], "horizon": "fixed"}
    alarms = 0
    for _ in range(400):
        frame["y"] = (rng.random(n + n0) < rate).astype(float)
        [row] = lift(frame, **asked).results  # type: ignore[arg-type]  # a dict of mixed types
        alarms += row.verdict in {"higher", "lower"}
        assert (row.p_value < 0.05) == (row.verdict in {"higher", "lower"})
    assert at_least(400 - alarms, 400, 0.95)


def test_rare_revenue_raises_no_more_false_alarms_than_promised() -> None:
    """500 against 9,500 units: without enough non-zero ones there is no verdict."""
    rng = np.random.default_rng(12)
    frame = two(np.zeros(9500), np.zeros(500))
    asked = {"variant": "variant", "baseline": "control", "metrics": ["y"], "horizon": "fixed"}
    for rate in (0.01, 0.05):
        alarms = 0
        for _ in range(150):
            frame["y"] = (rng.random(10_000) < rate) * rng.lognormal(0, 0.5, 10_000)
            [row] = lift(frame, **asked).results  # type: ignore[arg-type]  # likewise
            alarms += row.verdict in {"higher", "lower"}
        assert at_least(150 - alarms, 150, 0.95), (rate, alarms)


def test_no_interval_is_made_from_a_variant_that_shows_no_variance() -> None:
    rng = np.random.default_rng(13)
    for control, changed in (
        (np.zeros(200), rng.normal(3, 1, 200)),
        (rng.normal(3, 1, 200), np.full(200, 0.1)),
        (np.zeros(50), np.zeros(50)),
    ):
        found = compare(control, changed)
        assert found.interval == "none"
        assert "nothing varies within" in found.verdict
        assert np.isnan([found.low, found.high, found.p_value, found.relative]).all()
    mostly = np.where(np.arange(400) < 19, 5.0, 0) + np.where(np.arange(400) == 0, 1, 0)
    found = compare(rng.permutation(np.repeat([0.0, 4.0, 6.0], 100)), mostly)
    assert "'new' has only 19 values other than 0; 20 are needed" in found.verdict


def test_weighted_proportions_with_few_successes_get_no_interval() -> None:
    frame = ramped(np.random.default_rng(14))
    frame["y"] = (np.arange(8000) % 1000 == 7).astype(float)
    [row] = lift(
        frame, variant="variant", baseline="control", metrics=["y"], probability="probability"
    ).results
    assert (row.interval, row.verdict[:11]) == ("none", "no interval")


@given(st.integers(1, 40), st.integers(1, 60), st.floats(0, 1), st.floats(0, 1), st.floats(-1, 1))
@settings(max_examples=30, deadline=None)
def test_the_score_takes_its_spread_from_the_likeliest_rates_that_differ_so(
    n: int, n0: int, share: float, share0: float, at: float
) -> None:
    """Reference: the restricted likelihood maximised by scipy, and its score worked by hand."""
    rates = TwoProportions(round(share * n), n, round(share0 * n0), n0)
    delta = math.copysign(0.02 + 0.96 * abs(at), at)

    def loss(rate0: float) -> float:
        chances = stats.binom.logpmf(rates.x, n, rate0 + delta)
        return -float(chances + stats.binom.logpmf(rates.x0, n0, rate0))

    bounds = (max(0, -delta) + 1e-9, min(1, 1 - delta) - 1e-9)
    rate0 = optimize.minimize_scalar(loss, bounds=bounds, options={"xatol": 1e-10}).x
    rate, total = rate0 + delta, n + n0
    variance = rate * (1 - rate) / n + rate0 * (1 - rate0) / n0
    score = (rates.difference - delta) / math.sqrt(variance * total / (total - 1))
    assert rates.score(delta) == pytest.approx(score, rel=1e-3, abs=1e-3)


def test_few_successes_beside_many_miss_on_either_side_by_no_more_than_promised() -> None:
    """Exact tails, summed over all outcomes; the uncorrected score misses 3.6 % on one side."""
    n, n0, rate = 50, 1_000, 0.05
    high, low, plain = 0.0, 0.0, 0.0
    for x in range(int(stats.binom.ppf(1 - 1e-5, n, rate)) + 1):
        for x0 in range(*stats.binom.ppf([1e-5, 1 - 1e-5], n0, rate).astype(int)):
            chance = stats.binom.pmf(x, n, rate) * stats.binom.pmf(x0, n0, rate)
            rates = TwoProportions(x, n, x0, n0)
            high += chance * (rates.deviate(0.0) > 1.959964)
            low += chance * (rates.deviate(0.0) < -1.959964)
            plain += chance * (rates.score(0.0) > 1.959964)
    assert max(high, low) < 0.03
    assert plain > 0.035


def test_the_score_interval_holds_what_the_score_test_does_not_reject() -> None:
    """The score itself is statsmodels' (method "score", with the correction)."""
    for case in ((1, 50, 30, 1000), (0, 50, 30, 1000), (7, 20, 3, 30), (50, 50, 990, 1000)):
        rates = TwoProportions(*case)
        low, high = rates.interval(0.05)
        ends = rates.deviate(low), rates.deviate(high)
        assert ends == pytest.approx((1.959964, -1.959964), 1e-5)
        assert low < rates.difference < high
    reference = proportion.test_proportions_2indep(
        7, 20, 3, 30, compare="diff", method="score", correction=True
    )
    score = TwoProportions(7, 20, 3, 30).score(0.0)
    assert 2 * stats.norm.sf(abs(score)) == pytest.approx(reference.pvalue, rel=1e-9)
    assert TwoProportions(3, 3, 0, 2).interval(1e-9)[0] <= TwoProportions(3, 3, 0, 2).difference


def test_units_not_yet_mature_are_left_out_and_missing_by_variant_is_found() -> None:
    rng = np.random.default_rng(9)
    frame = two(rng.normal(size=1000), rng.normal(size=1000))
    frame.loc[rng.random(2000) < 0.3, "y"] = np.nan
    asked = {"variant": "variant", "baseline": "control", "metrics": ["y"], "horizon": "fixed"}
    report = lift(frame, **asked, probability="probability")  # type: ignore[arg-type]  # a dict of mixed types
    assert report.results[0].n == frame.loc[1000:, "y"].notna().sum()
    assert report.results[0].verdict == "no difference shown"
    frame.loc[1000:1400, "y"] = np.nan
    biased = lift(frame, **asked, probability="probability")  # type: ignore[arg-type]  # likewise
    assert biased.srm.verdict == "ok"
    assert "sample ratio" in biased.results[0].verdict


@given(st.permutations(range(30)))
@settings(max_examples=20, deadline=None)
def test_lift_does_not_depend_on_the_order_of_units(order: list[int]) -> None:
    rng = np.random.default_rng(10)
    frame = two(rng.normal(size=12), rng.normal(size=18))
    asked = {"variant": "variant", "baseline": "control", "metrics": ["y"], "horizon": "fixed"}
    [first] = lift(frame, **asked).results  # type: ignore[arg-type]  # a dict of mixed types
    [second] = lift(frame.iloc[order], **asked).results  # type: ignore[arg-type]  # likewise
    assert (first.low, first.high) == pytest.approx((second.low, second.high), rel=1e-10)


GOOD = two(np.arange(5.0), np.arange(5.0) + 1).assign(unit=range(10))


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        ({}, {"variant": "arm"}, "`variant` is 'arm', which is not a column"),
        ({}, {"baseline": "old"}, "`baseline` is 'old', which no unit has. Variants: control, new"),
        ({}, {"metrics": []}, "`metrics` is empty"),
        ({}, {"metrics": ["z"]}, "'z', which is not a column"),
        ({}, {"alpha": 1.0}, "`alpha` is 1.0"),
        ({"y": "text"}, {}, "`metrics` is column 'y'"),
        ({"y": [np.inf] + [1.0] * 9}, {}, "infinite in 1 of 10 rows, first in row 0"),
        ({"variant": [None] + ["new"] * 9}, {}, "`variant` is missing in 1 of 10 rows"),
        ({"variant": "control"}, {}, "Lift needs a second variant"),
        ({"variant": ["control"] * 9 + ["new"]}, {}, "has 1 units in variant 'new'"),
        ({"probability": 0.0}, {"probability": "probability"}, r"is not in \(0, 1\] in 10 of 10"),
        ({"probability": np.nan}, {"probability": "probability"}, r"is not in \(0, 1\] in 10"),
        ({}, {"probability": {"control": 0.5}}, "`probability` of variant 'new' is None"),
        ({"unit": [1] * 10}, {"unit": "unit"}, "repeats an earlier row's in 9 of 10 rows"),
        ({"unit": [None, *range(9)]}, {"unit": "unit"}, "`unit` is missing in 1 of 10 rows"),
        ({}, {"probability": {"control": 0.9, "new": 0.9}}, "`probability` sums to 1.8 over contr"),
        ({"p": 0.5}, {"probability": "p", "strata": "probability"}, "'probability' is a column to"),
    ],
)
def test_bad_input_is_refused_by_name(
    change: dict[str, object], arguments: dict[str, object], message: str
) -> None:
    asked: dict[str, object] = {"variant": "variant", "baseline": "control", "metrics": ["y"]}
    with pytest.raises(AttributionError, match=message):
        lift(GOOD.assign(**change), **(asked | arguments))  # type: ignore[arg-type]  # each case has its own


def test_a_file_refuses_what_a_frame_does(tmp_path: Path) -> None:
    path = tmp_path / "units.parquet"
    asked: dict[str, Any] = {"variant": "variant", "baseline": "control", "metrics": ["y"]}
    with pytest.raises(AttributionError, match=r"units\.parquet', which cannot be read: IO Error"):
        lift(path, **asked)
    path.write_bytes(b"no parquet")
    with pytest.raises(
        AttributionError, match=r"which cannot be read: .*Name Parquet files"
    ) as told:
        lift(path, **asked)
    assert "SELECT" not in str(told.value)
    GOOD.assign(unit=pd.Series([None, *range(9)], dtype="Int64"), p=0.5).to_parquet(path)
    with pytest.raises(AttributionError, match="`unit` is missing in 1 of 10 rows, first in row 0"):
        lift(path, **asked, unit="unit")
    with pytest.raises(AttributionError, match="'probability' is a column to report by"):
        lift(path, **asked, probability="p", strata="probability")


def test_strata_may_be_the_probability_itself_from_a_frame_a_file_or_a_roll_up(
    tmp_path: Path,
) -> None:
    """As where a ramp is allowed for by strata."""
    rng = np.random.default_rng(11)
    frame = two(rng.normal(size=400), rng.normal(size=400)).assign(
        probability=np.tile([0.5, 0.25], 400)
    )
    path = tmp_path / "units.parquet"
    frame.to_parquet(path)
    asked: dict[str, Any] = {"baseline": "control", "metrics": ["y"], "horizon": "fixed"}
    named: dict[str, Any] = {"variant": "variant", "probability": "probability"}
    rolled = roll_up(frame, metrics=["y"], **named)
    reports = [
        lift(frame, **asked, **named, strata="probability"),
        lift(path, **asked, **named, strata="probability"),
        lift(rolled, **asked, variant="variant", strata="probability"),
    ]
    differences = [report.results[0].difference for report in reports]
    assert differences == pytest.approx([differences[0]] * 3, rel=1e-12)


def test_the_columns_are_those_of_the_contract() -> None:
    report = lift(GOOD, variant="variant", baseline="control", metrics=["y"])
    assert list(report.table().columns) == [
        *("metric", "variant", "baseline", "n", "mean", "baseline_mean"),
        *("difference", "low", "high", "relative", "relative_low", "relative_high"),
        *("p_value", "interval", "verdict"),
        *("always_valid", "adjustment", "p_adjusted", "chance_to_win", "advice", "population"),
    ]
