"""The sample ratio: did units arrive in the variants as they were assigned?"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from attribution.anytime import NormalMixture, multinomial_p_value
from attribution.report import SampleRatio

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

SRM_ALPHA: Final = 0.001
"""A sample ratio is a fact about the machinery and not about units: it is doubted only when chance
would do as much once in a thousand experiments, however often each is looked at."""

_MIXTURE: Final = NormalMixture(1_000.0)


def sample_ratio(counts: IntArray, chance: FloatArray, variant: IntArray, k: int) -> SampleRatio:
    """Whether cells of units hold as many as their probabilities say, valid at every look.

    Where each variant has one probability, the counts are multinomial with shares proportional
    to the probabilities (`anytime.multinomial_p_value`). Where a ramp or a re-weighting changed
    them, each unit of variant v stands for 1/p units of the population, so that T_v = Σ 1/p
    estimates the same number in every variant. With h_v the mean of 1/p over those, weighted by
    1/p,

        T̄ = Σ_v (T_v / h_v) / Σ_v (1 / h_v),   χ² = Σ_v (T_v − T̄)² / (h_v T̄)

    on one degree of freedom less than there are variants, Pearson's χ² where p is constant. The
    weights follow from Var T_v ≈ T̄ (h_v − 1), of a multinomial with a common total, whose
    generalised least squares has that form. A normal mixture makes it hold at every look.

    Parameters
    ----------
    counts
        (c,) units of each cell.
    chance
        (c,) the probability of the cell's variant; NaN where none was logged.
    variant
        (c,) the cell's variant, from 0 to ``k`` − 1. Where a variant has no cell its probability is
        not known, and nothing is checked.

    References
    ----------
    Fabijan et al. (2019), Diagnosing Sample Ratio Mismatch in Online Controlled Experiments, KDD.
    """
    if np.isnan(chance).any() or len(set(variant.tolist())) < k:
        return SampleRatio(math.nan, "not_checked")
    shares = [np.unique(chance[variant == v]) for v in range(k)]
    if all(len(each) == 1 for each in shares):
        share = np.concatenate(shares)
        held = np.bincount(variant, counts, k).astype(np.float64)
        p_value = multinomial_p_value(held, share / share.sum())
        return SampleRatio(p_value, _verdict(p_value))
    total = np.bincount(variant, counts / chance, k)
    squares = np.bincount(variant, counts / chance**2, k)
    # A variant that nobody got still has its share.
    none_got = np.array([1 / each[0] for each in shares])
    spread = np.divide(squares, total, out=none_got, where=total > 0)
    expected = float((total / spread).sum() / (1 / spread).sum())
    statistic = float(((total - expected) ** 2 / (spread * expected)).sum()) if expected else 0.0
    p_value = _MIXTURE.p_value(statistic, max(float(counts.sum()), 1.0), k - 1)
    return SampleRatio(p_value, _verdict(p_value))


def _verdict(p_value: float) -> str:
    return "failed" if p_value < SRM_ALPHA else "ok"
