"""p-values corrected for how many comparisons were made."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
# Those for which there are intervals that all hold at once.
Familywise: TypeAlias = Literal["none", "holm"]
Correction: TypeAlias = Literal["none", "holm", "benjamini_hochberg"]


def adjusted(p_values: FloatArray, correction: Correction) -> FloatArray:
    """(m,) corrected p-values; NaN stays and is not counted as a comparison.

    Holm keeps the chance of any false alarm at the level, whatever the dependence; Benjamini and
    Hochberg the expected share of false ones among the alarms, of comparisons that do not depend
    negatively on each other.

    References
    ----------
    Holm (1979), A Simple Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of
    Statistics 6(2). Benjamini & Hochberg (1995), Controlling the False Discovery Rate, Journal of
    the Royal Statistical Society B 57(1).
    """
    found = p_values.copy()
    made = np.flatnonzero(~np.isnan(p_values))
    m = len(made)
    if correction == "none" or m == 0:
        return found
    order = made[np.argsort(p_values[made], kind="stable")]
    rank = np.arange(1, m + 1)
    if correction == "holm":
        stepped = np.maximum.accumulate(p_values[order] * (m - rank + 1))
    else:
        stepped = np.minimum.accumulate((p_values[order] * m / rank)[::-1])[::-1]
    found[order] = np.minimum(stepped, 1.0)
    return found
