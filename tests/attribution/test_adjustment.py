"""Ratios, covariates, clusters, strata: against statsmodels and against known truths."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats

from attribution import AttributionError, Mean, Proportion, Quantile, Ratio, lift
from attribution.report import LiftResult
from tests.attribution.worlds import at_least, shared_data

FIXED: dict[str, Any] = {"variant": "variant", "baseline": "a", "horizon": "fixed"}


def world(rng: np.random.Generator, n: int = 600, centre: float = 0.0) -> pd.DataFrame:
    """Three variants of unequal size; the effect of b grows with a covariate."""
    variant = rng.choice(["a", "b", "c"], n, p=[0.5, 0.2, 0.3])
    x1, x2 = rng.normal(size=n), rng.exponential(size=n)
    y = centre + 2 * x1 - x2 + (variant == "b") * (0.5 + x1) + rng.normal(size=n) * (1 + x2)
    return pd.DataFrame({"variant": variant, "x1": x1, "x2": x2, "y": y})


def only(frame: pd.DataFrame, metric: Any, **asked: Any) -> LiftResult:
    return lift(frame, metrics=[metric], **(FIXED | asked)).results[0]


def se(row: LiftResult, df: float) -> float:
    return float((row.high - row.low) / 2 / stats.t.ppf(0.975, df))


@pytest.mark.parametrize(("centre", "rel"), [(0.0, 1e-10), (1e8, 1e-6)])
def test_lins_adjustment_is_ols_with_interactions_and_hc2(centre: float, rel: float) -> None:
    """Reference: statsmodels OLS on dummies, centred covariates and all interactions, HC2."""
    frame = world(np.random.default_rng(0), centre=centre)
    x = (frame[["x1", "x2"]] - frame[["x1", "x2"]].mean()).to_numpy()
    dummies = [(frame["variant"] == name).to_numpy(float) for name in ("b", "c")]
    design = np.column_stack(
        [np.ones(len(frame)), *dummies, x, *(dummy[:, None] * x for dummy in dummies)]
    )
    fit = sm.OLS(frame["y"].to_numpy() - centre, design).fit(cov_type="HC2")
    report = lift(frame, metrics=[Mean("y", covariates=("x1", "x2"))], adjustment="lin", **FIXED)
    for number, row in enumerate(report.results, start=1):
        assert row.adjustment == "lin"
        assert row.difference == pytest.approx(fit.params[number], rel=rel)
        z = row.difference / fit.bse[number]
        # The p-value gives the standard error back, at the Welch degrees of freedom.
        n = frame["variant"].value_counts()
        own = [(frame["variant"] == name).to_numpy() for name in ("bc"[number - 1], "a")]
        own_fit = [
            sm.OLS(
                frame["y"].to_numpy()[mine] - centre,
                np.column_stack([np.ones(mine.sum()), x[mine]]),
            ).fit(cov_type="HC2")
            for mine in own
        ]
        v = [each.bse[0] ** 2 for each in own_fit]
        sizes = [n["bc"[number - 1]] - 3, n["a"] - 3]
        df = sum(v) ** 2 / sum(each**2 / size for each, size in zip(v, sizes, strict=True))
        assert row.p_value == pytest.approx(2 * stats.t.sf(abs(z), df), rel=max(100 * rel, 1e-8))
        assert se(row, df) == pytest.approx(fit.bse[number], rel=rel)


def test_cuped_is_the_difference_less_what_the_covariates_explain() -> None:
    """Reference: the pooled within-variant regression and the variance of what it leaves."""
    frame = world(np.random.default_rng(1))
    row = only(frame, Mean("y", covariates=("x1", "x2")))
    centred = frame[["y", "x1", "x2"]] - frame.groupby("variant")[["y", "x1", "x2"]].transform(
        "mean"
    )
    theta = sm.OLS(centred["y"], centred[["x1", "x2"]]).fit().params.to_numpy()
    left = frame["y"] - frame[["x1", "x2"]].to_numpy() @ theta
    mine, base = left[frame["variant"] == "b"], left[frame["variant"] == "a"]
    assert row.difference == pytest.approx(mine.mean() - base.mean(), rel=1e-10)
    v, v0 = mine.var() / len(mine), base.var() / len(base)
    df = (v + v0) ** 2 / (v**2 / (len(mine) - 3) + v0**2 / (len(base) - 3))
    assert se(row, df) == pytest.approx(np.sqrt(v + v0), rel=1e-10)
    assert row.adjustment == "cuped"
    plain = only(frame, "y")
    assert row.high - row.low < 0.8 * (plain.high - plain.low)


def test_a_covariate_that_is_constant_or_doubled_changes_nothing() -> None:
    frame = world(np.random.default_rng(2)).assign(one=1.0, again=lambda f: 3 * f["x1"] + 1)
    plain = only(frame, Mean("y", covariates=("x1",)))
    for more in (("x1", "one"), ("x1", "again")):
        row = only(frame, Mean("y", covariates=more))
        assert (row.difference, row.mean) == pytest.approx((plain.difference, plain.mean), rel=1e-8)


@pytest.mark.parametrize("adjustment", ["cuped", "lin"])
def test_adjusted_relative_lift_covers_its_truth(adjustment: str) -> None:
    """A baseline of 4, a lift of .4: the common centre's variance counts in the relative one."""
    rng = np.random.default_rng(3)
    hits, logs = 0, 500
    for _ in range(logs):
        x = rng.normal(size=200)
        new = rng.random(200) < 0.5
        frame = pd.DataFrame({"variant": np.where(new, "b", "a"), "x": x})
        frame["y"] = 4 + 2 * x + 0.4 * new + rng.normal(size=200)
        row = only(frame, Mean("y", covariates=("x",)), adjustment=adjustment)
        hits += row.relative_low < 0.1 < row.relative_high
    assert at_least(hits, logs, 0.95 if adjustment == "cuped" else 0.90)


def test_a_ratio_has_the_delta_methods_variance() -> None:
    """Reference: the mean and spread of the linearised values (y − R x) / x̄, by hand."""
    rng = np.random.default_rng(4)
    frame = pd.DataFrame({"variant": rng.choice(["a", "b"], 500), "x": rng.poisson(3, 500) + 1})
    frame["y"] = frame["x"] * rng.exponential(size=500)
    row = only(frame, Ratio("y", per="x"))
    values, variances, sizes = [], [], []
    for name in ("b", "a"):
        mine = frame[frame["variant"] == name]
        ratio = mine["y"].sum() / mine["x"].sum()
        parts = (mine["y"] - ratio * mine["x"]) / mine["x"].mean()
        values.append(ratio)
        variances.append(parts.var() / len(mine))
        sizes.append(len(mine) - 1)
    df = sum(variances) ** 2 / sum(v**2 / n for v, n in zip(variances, sizes, strict=True))
    assert (row.mean, row.baseline_mean) == pytest.approx(tuple(values), rel=1e-12)
    assert se(row, df) == pytest.approx(np.sqrt(sum(variances)), rel=1e-10)


def test_clusters_count_as_one_unit_each() -> None:
    """Reference: the ratio of cluster sums; unit-wise intervals are far too narrow."""
    rng = np.random.default_rng(5)
    hits = plain_hits = 0
    logs = 300
    for _ in range(logs):
        size = 1 + rng.poisson(8, 80)
        shop = np.repeat(np.arange(80), size)
        new = rng.random(80) < 0.5
        y = rng.normal(size=80)[shop] + rng.normal(size=len(shop))
        frame = pd.DataFrame({"shop": shop, "variant": np.where(new, "b", "a")[shop], "y": y})
        clustered, plain = only(frame, "y", cluster="shop"), only(frame, "y")
        assert clustered.difference == pytest.approx(plain.difference, rel=1e-9)
        assert clustered.n == new.sum()
        hits += clustered.low < 0 < clustered.high
        plain_hits += plain.low < 0 < plain.high
    assert at_least(hits, logs, 0.94)
    assert not at_least(plain_hits, logs, 0.9)


def test_strata_take_a_ramp_through_a_shift_out_of_the_comparison() -> None:
    """5 % treated at first, half later, while the metric rises by 1 for everyone."""
    rng = np.random.default_rng(6)
    hits, logs = 0, 300
    for _ in range(logs):
        late = np.arange(8_000) >= 4_000
        share = np.where(late, 0.5, 0.05)
        new = rng.random(8_000) < share
        frame = pd.DataFrame({"variant": np.where(new, "b", "a"), "stage": late})
        frame["probability"] = np.where(new, share, 1 - share)
        frame["y"] = late + rng.normal(size=8_000)
        row = only(frame, "y", strata="stage", probability="probability")
        hits += row.low < 0 < row.high
    assert at_least(hits, logs, 0.95)


def test_stratified_means_are_averaged_by_the_strata_shares() -> None:
    rng = np.random.default_rng(7)
    frame = world(rng, 900).assign(s=rng.choice(["x", "y"], 900, p=[0.3, 0.7]))
    row = only(frame, "y", strata="s")
    shares = frame["s"].value_counts(normalize=True)
    means = frame.groupby(["variant", "s"])["y"].mean()
    expected = sum(shares[s] * (means["b", s] - means["a", s]) for s in ("x", "y"))
    assert row.difference == pytest.approx(expected, rel=1e-10)
    spread = frame.groupby(["variant", "s"])["y"].var() / frame.groupby(["variant", "s"]).size()
    variance = sum(shares[s] ** 2 * (spread["b", s] + spread["a", s]) for s in ("x", "y"))
    assert (row.high - row.low) / 2 == pytest.approx(1.96 * np.sqrt(variance), rel=0.02)


def test_hillstrom_adjusted_by_history_is_ols_with_hc2() -> None:
    frame = pd.read_csv(shared_data("hillstrom.csv.gz"))
    covariates = ["recency", "history", "mens", "newbie"]
    report = lift(
        frame, variant="segment", baseline="No E-Mail", covariates=covariates,
        metrics=[Mean("spend"), Proportion("visit")], adjustment="lin", horizon="fixed",
    )  # fmt: skip
    x = (frame[covariates] - frame[covariates].mean()).to_numpy(float)
    dummies = [
        (frame["segment"] == name).to_numpy(float) for name in ("Mens E-Mail", "Womens E-Mail")
    ]
    design = np.column_stack(
        [np.ones(len(frame)), *dummies, x, *(dummy[:, None] * x for dummy in dummies)]
    )
    for metric in ("spend", "visit"):
        fit = sm.OLS(frame[metric].to_numpy(float), design).fit(cov_type="HC2")
        rows = [row for row in report.results if row.metric == metric]
        for number, row in enumerate(rows, start=1):
            assert row.difference == pytest.approx(fit.params[number], rel=1e-9)
            assert se(row, 42_000) == pytest.approx(fit.bse[number], rel=1e-4)


@pytest.mark.parametrize(
    ("metric", "asked", "message"),
    [
        (Ratio("y", per="x1", covariates=("x2",)), {"adjustment": "lin"}, "is a ratio"),
        (Mean("y", covariates=("x1",)), {"adjustment": "lin", "strata": "s"}, "'cuped'"),
        (Mean("y", covariates=("one",)), {"adjustment": "lin"}, "do not vary"),
        (Ratio("y", per="none"), {}, "is zero in all units of a variant"),
        (Quantile("y"), {"cluster": "s"}, "a quantile is not made by cluster"),
        (Mean("y"), {"cluster": "s"}, "`variant` differs within a 's' in"),
        (Mean("y"), {"strata": "id"}, "leaves 1 units of a variant in one stratum"),
        (Mean("y"), {"horizon": "soon"}, "`horizon` is 'soon'. Known: always, fixed"),
        (Mean("y"), {"correction": "some"}, "`correction` is 'some'"),
        (Mean("y"), {"adjustment": "some"}, "`adjustment` is 'some'"),
    ],
)
def test_what_cannot_be_compared_so_is_refused(
    metric: Any, asked: dict[str, Any], message: str
) -> None:
    frame = world(np.random.default_rng(8)).assign(one=1.0, none=0.0)
    frame["s"] = np.arange(len(frame)) % 2
    frame["id"] = np.arange(len(frame))
    with pytest.raises(AttributionError, match=message):
        only(frame, metric, **asked)
