"""The Poisson bootstrap, streamed over units: every draw resamples numerators and denominators."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import pdtr

FloatArray = npt.NDArray[np.float64]

DRAWS = 1000
# OpenBLAS runs a product of up to 2^18 multiplications on one thread; beyond that, waking the
# others costs more than they do.
_ONE_THREAD = 2**18
# Sixteen random bits each: the Poisson probabilities are right to 1e-5.
_LEVELS = 2**16
_TABLE = np.searchsorted(
    np.rint(pdtr(np.arange(12), 1.0) * _LEVELS), np.arange(_LEVELS), side="right"
).astype(np.float32)


def poisson_sums(columns: npt.NDArray[np.floating], draws: int, seed: int) -> FloatArray:
    """Σ_j ω_jb column_j for each of ``draws`` sets of independent Poisson(1) weights ω.

    The weights are made for a few units at a time and forgotten, so that memory does not grow
    with units times draws. Sums are taken in single precision: give columns that are centred.

    Parameters
    ----------
    columns
        (c, m) one value for each unit.

    Returns
    -------
    (c, draws)

    References
    ----------
    Chamandy, Muralidharan, Najmi & Naidu (2012), Estimating Uncertainty for Massive Data Streams,
    Google; Hanley & MacGibbon (2006), Creating Non-Parametric Bootstrap Samples Using Poisson
    Frequencies, Computer Methods and Programs in Biomedicine 83(1).
    """
    count, m = columns.shape
    step = max(1, min(m, _ONE_THREAD // (count * draws)))
    width = -(-draws // 4) * 4
    bits = np.random.SFC64(seed)
    sums = np.zeros((count, draws))
    omega = np.empty((step, width), dtype=np.float32)
    for start in range(0, m, step):
        block = columns[:, start : start + step].astype(np.float32)
        rows = block.shape[1]
        drawn = bits.random_raw(rows * width // 4).view(np.uint16).reshape(rows, width)
        np.take(_TABLE, drawn, out=omega[:rows], mode="clip")
        sums += block @ omega[:rows, :draws]
    return sums
