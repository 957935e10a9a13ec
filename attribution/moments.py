"""Centred moments of samples: they merge exactly, and keep the variance at any mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Number, means and co-moments of c samples of d columns each.

    Raw sums of squares lose the variance where the mean is large beside it (at mean 1e8 they
    give 51.9 for 68.7); centred ones do not, and merge with ``+``.

    >>> halves = [Moments.of(np.array([[x] for x in part])) for part in ([1.0, 2.0], [6.0])]
    >>> whole = halves[0] + halves[1]
    >>> int(whole.n[0]), float(whole.mean[0, 0]), float(whole.m2[0, 0, 0])
    (3, 3.0, 14.0)

    Parameters
    ----------
    n
        (c,) how many rows.
    mean
        (c, d), zeros where a sample is empty.
    m2
        (c, d, d) sums of products of deviations from the means.
    away
        (c,) how many values of the first column differ from its resting value.
    """

    n: IntArray
    mean: FloatArray
    m2: FloatArray
    away: IntArray

    @classmethod
    def of(
        cls,
        values: FloatArray,
        cell: IntArray | None = None,
        cells: int = 1,
        resting: float = 0.0,
    ) -> Moments:
        """Moments of the rows (n, d) of each cell, by the corrected two-pass algorithm.

        ``cell`` (n,) gives each row's cell, from 0 to ``cells`` − 1; without it there is one.
        """
        rows, d = values.shape
        cell = np.zeros(rows, np.intp) if cell is None else cell
        n = np.bincount(cell, minlength=cells)
        size = np.maximum(n, 1)
        mean, m2 = np.zeros((cells, d)), np.zeros((cells, d, d))
        residual = np.empty((d, rows))
        for j in range(d):
            # Subtracting one of the values first keeps the mean exact where all are large.
            shift = float(values[0, j]) if rows else 0.0
            shifted = values[:, j] - shift
            centre = np.bincount(cell, shifted, cells) / size
            mean[:, j] = np.where(n > 0, shift + centre, 0.0)
            residual[j] = shifted - centre[cell]
        left = np.array([np.bincount(cell, each, cells) for each in residual])
        for j in range(d):
            for i in range(j + 1):
                product = np.bincount(cell, residual[i] * residual[j], cells)
                m2[:, i, j] = m2[:, j, i] = product - left[i] * left[j] / size
        away = np.bincount(cell[values[:, 0] != resting], minlength=cells)
        return cls(n, mean, m2, away)

    def merged(self, group: IntArray, groups: int) -> Moments:
        """Moments of the samples of each group together, ``group`` (c,) naming each cell's.

        References
        ----------
        Chan, Golub & LeVeque (1983), Algorithms for Computing the Sample Variance, The American
        Statistician 37(3).
        """
        n, away = np.zeros(groups, np.intp), np.zeros(groups, np.intp)
        np.add.at(n, group, self.n)
        np.add.at(away, group, self.away)
        shift = np.zeros((groups, self.mean.shape[1]))
        held = self.n > 0
        shift[group[held]] = self.mean[held]
        centre = np.zeros_like(shift)
        np.add.at(centre, group, self.n[:, None] * (self.mean - shift[group]))
        mean = shift + centre / np.maximum(n, 1)[:, None]
        apart = self.mean - mean[group]
        m2 = np.zeros((groups, *self.m2.shape[1:]))
        between = self.n[:, None, None] * apart[:, :, None] * apart[:, None, :]
        np.add.at(m2, group, self.m2 + between)
        return Moments(n, mean, m2, away)

    def __add__(self, other: Moments) -> Moments:
        """Moments of the samples of each cell together; both have the same cells."""
        cells = np.tile(np.arange(len(self.n)), 2)
        return self.joined(other).merged(cells, len(self.n))

    def joined(self, other: Moments) -> Moments:
        """The cells of both, one after the other."""
        pairs = ((getattr(self, name), getattr(other, name)) for name in self.__slots__)
        return Moments(*(np.concatenate(pair) for pair in pairs))

    def only(self, cells: npt.NDArray[np.bool_] | IntArray) -> Moments:
        """Some of the cells."""
        return Moments(self.n[cells], self.mean[cells], self.m2[cells], self.away[cells])
