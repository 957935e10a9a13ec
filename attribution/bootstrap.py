"""The Poisson bootstrap, streamed over units: every draw resamples numerators and denominators."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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


class PoissonSums:
    """Σ_j ω_jb column_j for independent Poisson(1) weights ω, summed as the units j come.

    The weights are made for a few units at a time and forgotten, so that memory does not grow
    with units times draws. Sums are taken in single precision: give columns that are centred.
    Units that come in other portions, in the same order, get the same weights and the same sums.

    Parameters
    ----------
    columns
        How many sums to take.
    seed
        A number, or numbers: sums of other units, to be added to these, need another.

    References
    ----------
    Chamandy, Muralidharan, Najmi & Naidu (2012), Estimating Uncertainty for Massive Data Streams,
    Google; Hanley & MacGibbon (2006), Creating Non-Parametric Bootstrap Samples Using Poisson
    Frequencies, Computer Methods and Programs in Biomedicine 83(1).
    """

    def __init__(self, columns: int, seed: int | Sequence[int], draws: int = DRAWS) -> None:
        self._step = max(1, _ONE_THREAD // (columns * draws))
        self._bits = np.random.SFC64(seed)
        self._sums = np.zeros((columns, draws))
        self._omega = np.empty((self._step, -(-draws // 4) * 4), dtype=np.float32)
        self._waiting = np.empty((columns, 0), dtype=np.float32)

    def add(self, columns: Iterable[FloatArray], count: int) -> None:
        """``count`` more units, (count,) of each column; one is held at a time."""
        before = self._waiting.shape[1]
        units = np.empty((len(self._sums), before + count), dtype=np.float32)
        units[:, :before] = self._waiting
        for place, column in enumerate(columns):
            units[place, before:] = column
        whole = units.shape[1] - units.shape[1] % self._step
        for start in range(0, whole, self._step):
            self._sums += self._weighted(units[:, start : start + self._step])
        self._waiting = units[:, whole:].copy()

    def total(self) -> FloatArray:
        """The sums over all units, (c, draws). No more can be added."""
        if self._waiting.size:
            self._sums += self._weighted(self._waiting)
        return self._sums

    def _weighted(self, units: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        rows, width = units.shape[1], self._omega.shape[1]
        drawn = self._bits.random_raw(rows * width // 4).view(np.uint16).reshape(rows, width)
        omega = self._omega[:rows]
        np.take(_TABLE, drawn, out=omega, mode="clip")
        sums: npt.NDArray[np.float32] = units @ omega[:, : self._sums.shape[1]]
        return sums
