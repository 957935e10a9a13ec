"""Whether effects differ: between segments, and from period to period."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import chdtrc, ndtr

from attribution.verdicts import Compared


def interaction(parts: Sequence[Compared]) -> float:
    """p-value of equal effects, Q = Σ (d_s − d̄)² / v_s with d̄ weighted by 1/v_s.

    References
    ----------
    Cochran (1954), The Combination of Estimates from Different Experiments, Biometrics 10(1).
    """
    known = [part for part in parts if not math.isnan(part.effect.variance)]
    if len(known) < 2:
        return math.nan
    difference = np.array([part.effect.difference for part in known])
    weight = 1 / np.array([part.effect.variance for part in known])
    mean = float(weight @ difference / weight.sum())
    return float(chdtrc(len(known) - 1, float(weight @ (difference - mean) ** 2)))


def slope_of(series: Sequence[Compared]) -> tuple[int, float, float]:
    """How many periods have a standard error, the slope of their effects, and its p-value.

    Effects are weighted by 1/variance.
    """
    known = [
        (number, part.effect.difference, part.effect.variance)
        for number, part in enumerate(series)
        if not math.isnan(part.effect.variance)
    ]
    if len(known) < 3:
        return len(known), math.nan, math.nan
    time, effect, variance = (np.array(column) for column in zip(*known, strict=True))
    weight = 1 / variance
    centred = time - weight @ time / weight.sum()
    information = float(weight * centred @ centred)
    slope = float(weight * centred @ effect) / information
    return len(known), slope, 2 * float(ndtr(-abs(slope) * math.sqrt(information)))


def change(growth: float, p_value: float, alpha: float) -> str:
    """The verdict on a trend whose product with the whole effect is ``growth``."""
    if math.isnan(p_value):
        return "not tested"
    if p_value >= alpha:
        return "no change shown"
    return "grows" if growth > 0 else "fades"
