"""Choice of an estimator's hyper-parameter by SLOPE: as little variance as bias can be excluded."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

from attribution.trials import Trial


def slope(trials: Sequence[Trial], alpha: float) -> int:
    """Index of the trial that SLOPE takes.

    The trials are taken from the widest confidence interval to the narrowest, as long as each
    agrees with all before it,

        |V̂_i − V̂_j| ≤ c_i + (√6 − 1) c_j   for all j before i,

    with c the half width of the interval; the last that does is chosen, whose error is within a
    constant of the best in the grid, provided bias grows as width shrinks.

    References
    ----------
    Su, Srinath & Krishnamurthy (2020), Adaptive Estimator Selection for Off-Policy Evaluation,
    ICML, arXiv 2002.07729.
    """
    value = np.array([trial.value for trial in trials])
    width = np.array(
        [stdtrit(trial.spread.m - 1, 1 - alpha / 2) * trial.spread.se for trial in trials]
    )
    order = np.argsort(-width, kind="stable")
    chosen = order[0]
    for rank, i in enumerate(order[1:], start=1):
        before = order[:rank]
        apart = np.abs(value[i] - value[before])
        if (apart > width[i] + (math.sqrt(6) - 1) * width[before]).any():
            break
        # Where a value changes no weight it brings no narrower interval: take the least bias.
        if width[i] < width[chosen] * (1 - 1e-12):
            chosen = i
    return int(chosen)


def told(grid: Sequence[float], chosen: int, unbiased: float) -> str:
    """What a reader must know of the choice: where it lies in the grid, and if at its edge."""
    found = f"λ = {grid[chosen]:g} by SLOPE over {len(grid)} values"
    ends = {min(grid), max(grid)}
    if grid[chosen] in ends and grid[chosen] != unbiased:
        return f"{found}; warning: this is the edge of the grid, the best may lie beyond: extend it"
    return found
