"""Estimates of one metric in every variant, with their covariance, from moments or from rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from attribution.errors import AttributionError
from attribution.lift_metrics import Metric
from attribution.moments import Moments

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class VariantMeans:
    """The values of a metric in v variants, the baseline first.

    Parameters
    ----------
    n
        (v,) matured units.
    value
        (v,) the metric, adjusted by covariates if there are any.
    own
        (v,) variance of each value that its own variant brings.
    cov
        (v, v) covariance of the values; off the diagonal it is what adjusting to common means of
        the covariates brings, which differences are free of.
    df
        (v,) degrees of freedom of ``own``.
    effective
        (v,) as many units of equal weight as these are worth.
    away
        (v,) units that show something: values off the resting one, of zeros and ones the rarer.
    resting
        The value of a unit of which nothing was seen.
    ones
        (v,) how many ones, where all values are 0 or 1.
    binary
        Whether all are 0 or 1 and both occur.
    weighted
        Whether units count by the inverse of their probability, or by stratum.
    adjustment
        ``none``, ``cuped`` or ``lin``.
    """

    n: IntArray
    value: FloatArray
    own: FloatArray
    cov: FloatArray
    df: FloatArray
    effective: FloatArray
    away: IntArray
    resting: float
    ones: IntArray
    binary: bool
    weighted: bool
    adjustment: str

    def varies(self, v: int) -> bool:
        """Whether the values of a variant differ, beyond what rounding makes."""
        return bool(self.own[v] * self.n[v] > (1e-13 * abs(self.value[v])) ** 2)


def from_moments(
    metric: Metric, moments: Moments, variant: IntArray, chance: FloatArray, stratum: IntArray
) -> VariantMeans:
    """Hájek's means of cells (c,), or within strata and then by the strata's shares.

        ȳ = Σ w y / Σ w,   Var ȳ = n/(n−1) Σ w² (y − ȳ)² / (Σ w)²,   w = 1/p

    which with equal probabilities are the mean and Welch's variance. A ratio is linearised by
    the delta method. With covariates x (CUPED) the value is z = ȳ − θ'(x̄ − x̄_all), where θ is the
    pooled regression within variants; x̄_all drops out of every difference.

    Raises
    ------
    AttributionError
        If a stratum lacks a variant, or a ratio's denominator is zero.

    References
    ----------
    Särndal, Swensson & Wretman (1992), Model Assisted Survey Sampling, sections 5.7 and 7.6.
    Deng, Xu, Kohavi & Walker (2013), Improving the Sensitivity of Online Controlled Experiments by
    Utilizing Pre-Experiment Data, WSDM.
    """
    k, strata = int(variant.max()) + 1, int(stratum.max()) + 1
    weight = np.where(np.isnan(chance), 1.0, 1 / chance)
    group = variant * strata + stratum
    weighted = any(
        np.ptp(weight[here]) > 0
        for g in np.flatnonzero(np.bincount(group) > 1)
        if (here := (group == g) & (moments.n > 0)).any()
    )
    d = moments.mean.shape[1]
    mean, cov = np.zeros((k, d)), np.zeros((k, d, d))
    effective, within = np.zeros(k), np.zeros((d, d))
    shares = np.bincount(stratum, moments.n, strata) / max(moments.n.sum(), 1)
    for v in range(k):
        for s in np.flatnonzero(shares):
            here = (group == v * strata + s) & (moments.n > 0)
            size = int(moments.n[here].sum())
            if strata > 1 and size < 2:
                raise AttributionError(
                    f"`strata` leaves {size} units of a variant in one stratum for "
                    f"{metric.name!r}. Merge strata until each has two units of every variant.",
                    count=size,
                )
            if size == 0:
                mean[v], cov[v] = np.nan, np.nan
                continue
            centre, spread, worth = _weighted(moments.only(here), weight[here])
            mean[v] += shares[s] * centre
            cov[v] += shares[s] ** 2 * spread
            effective[v] += worth
            if size > 1:
                within += spread * (size * (size - 1))
    n, away = (np.bincount(variant, each, k).astype(np.intp) for each in (moments.n, moments.away))
    binary, ones = _binary(metric, moments, variant, k)
    outcomes = len(metric.outcomes)
    values, coefficients = _linearised(metric, mean[:, :outcomes])
    adjusted = d > outcomes
    theta, share = np.zeros(d - outcomes), n / max(n.sum(), 1)
    if adjusted:
        held = n > 0
        centre = share[held] @ mean[held]
        theta = _regression(within, metric.gradient(centre[:outcomes]), outcomes)
        values = values - (mean[:, outcomes:] - centre[outcomes:]) @ theta
        coefficients = np.hstack([coefficients, np.tile(-theta, (k, 1))])
    own = np.einsum("vi,vij,vj->v", coefficients, cov, coefficients)
    between = _common_centre(coefficients, cov, theta, share) if adjusted else np.diag(own)
    df = np.maximum((effective if weighted else n) - strata - len(theta), 1.0)
    return VariantMeans(
        n, values, own, between, df, effective, np.minimum(away, n - away) if binary else away,
        metric.resting, ones, binary, weighted or strata > 1, "cuped" if adjusted else "none",
    )  # fmt: skip


def from_rows(metric: Metric, rows: FloatArray, variant: IntArray, k: int) -> VariantMeans:
    """Lin's regression adjustment: a regression on the covariates within each variant, with HC2.

    The value is the regression's at the mean of the covariates over all units, which is the
    coefficient of the variant in ordinary least squares with all interactions, centred.

    Parameters
    ----------
    rows
        (n, 1 + p) the outcome and the covariates, none missing.

    Raises
    ------
    AttributionError
        If a variant has no more units than the regression has coefficients, or a covariate does
        not vary in it.

    References
    ----------
    Lin (2013), Agnostic Notes on Regression Adjustments to Experimental Data, Annals of Applied
    Statistics 7(1). MacKinnon & White (1985), Some Heteroskedasticity-consistent Covariance
    Matrix Estimators with Improved Finite Sample Properties, Journal of Econometrics 29.
    """
    centred = rows[:, 1:] - rows[:, 1:].mean(axis=0)
    p = centred.shape[1]
    value, own, n = np.zeros(k), np.zeros(k), np.bincount(variant, minlength=k)
    for v in range(k):
        mine = variant == v
        if n[v] <= p + 1:
            raise AttributionError(
                f"`{metric.name}` has {n[v]} units in a variant, too few to regress on {p} "
                "covariates. Use fewer, or none.",
                count=int(n[v]),
            )
        design = np.column_stack([np.ones(n[v]), centred[mine]])
        q, r = np.linalg.qr(design)
        if np.abs(np.diag(r)).min() < 1e-10 * np.abs(r).max():
            raise AttributionError(
                f"`covariates` of {metric.name!r} depend on each other or do not vary within a "
                "variant. Leave out those that say nothing more."
            )
        y = rows[mine, 0]
        shift = y[0]
        inverse = np.linalg.inv(r)
        coefficients = inverse @ (q.T @ (y - shift))
        residual = y - shift - design @ coefficients
        leverage = (q**2).sum(axis=1)
        # Row 0 of (X'X)⁻¹X': how each unit enters the value at the common mean.
        influence = (q @ inverse[0]) ** 2
        value[v] = shift + coefficients[0]
        own[v] = float((influence * residual**2 / np.maximum(1 - leverage, 1e-12)).sum())
    away = np.bincount(variant[rows[:, 0] != metric.resting], minlength=k)
    df = (n - p - 1).astype(np.float64)
    nothing = np.zeros(k, np.intp)
    return VariantMeans(
        n, value, own, np.diag(own), df, n.astype(np.float64), away, metric.resting, nothing,
        binary=False, weighted=False, adjustment="lin",
    )  # fmt: skip


def _weighted(cells: Moments, weight: FloatArray) -> tuple[FloatArray, FloatArray, float]:
    """Weighted mean (d,), its covariance (d, d), and the effective number of units."""
    n = int(cells.n.sum())
    if len(weight) == 1:
        cov = cells.m2[0] / (n * (n - 1)) if n > 1 else np.full_like(cells.m2[0], np.nan)
        return cells.mean[0], cov, float(n)
    total = float(weight @ cells.n)
    shift = cells.mean[0]
    mean = shift + (weight * cells.n) @ (cells.mean - shift) / total
    apart = cells.mean - mean
    squares = cells.m2 + cells.n[:, None, None] * apart[:, :, None] * apart[:, None, :]
    cov = np.tensordot(weight**2, squares, axes=1) / total**2
    cov = cov * (n / (n - 1)) if n > 1 else np.full_like(cov, np.nan)
    return mean, cov, total**2 / float(weight**2 @ cells.n)


def _binary(metric: Metric, moments: Moments, variant: IntArray, k: int) -> tuple[bool, IntArray]:
    """Whether all values are 0 or 1 and both occur, and the ones of each variant.

    Of the values that are not zero, Σ (y − 1)² is Σ y² − 2 Σ y + their number.
    """
    away = int(moments.away.sum())
    mean = moments.mean[:, 0]
    squares = float((moments.m2[:, 0, 0] + moments.n * mean**2).sum())
    off = squares - 2 * float(moments.n @ mean) + away
    binary = (
        len(metric.outcomes) == 1
        and metric.resting == 0
        and 0 < away < moments.n.sum()
        and abs(off) < 1e-9 * away
    )
    return binary, np.bincount(variant, moments.away, k).astype(np.intp)


def _linearised(metric: Metric, means: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Values (v,) and gradients (v, d) of a metric at the variants' means (v, d)."""
    if len(metric.outcomes) == 2 and (means[:, 1] == 0).any():
        raise AttributionError(
            f"`{metric.outcomes[1]}`, below the line in {metric.name!r}, is zero in all units of a "
            "variant. A ratio needs something to be a share of."
        )
    values = np.array([metric.value(mean) for mean in means])
    return values, np.array([metric.gradient(mean) for mean in means])


def _regression(within: FloatArray, gradient: FloatArray, outcomes: int) -> FloatArray:
    """(p,) pooled coefficients of the linearised outcome on the covariates."""
    xx, xy = within[outcomes:, outcomes:], within[outcomes:, :outcomes] @ gradient
    # In units of each covariate's spread, so that none is lost for being small.
    scale = np.sqrt(np.diag(xx))
    scale[scale == 0] = 1.0
    solved: FloatArray = np.linalg.lstsq(xx / np.outer(scale, scale), xy / scale, rcond=1e-10)[0]
    return solved / scale


def _common_centre(
    coefficients: FloatArray, cov: FloatArray, theta: FloatArray, share: FloatArray
) -> FloatArray:
    """(v, v) covariance of values that are all adjusted to one estimated centre."""
    k, d = coefficients.shape
    outcomes = d - len(theta)
    weights = np.zeros((k, k, d))
    weights[:, :, outcomes:] = share[None, :, None] * theta
    weights[np.arange(k), np.arange(k)] += coefficients
    total: FloatArray = np.einsum("aui,uij,buj->ab", weights, cov, weights)
    return total
