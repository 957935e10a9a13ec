"""Random Fourier features: what lets a linear model learn curves and interactions.

For columns z, each over the largest magnitude it had in the first contexts, the features are

    φ_i(z) = √2 a / √D · cos(w_iᵀz / ℓ + b_i),   i = 1 … D,   w_i ~ N(0, I),   b_i ~ U(0, 2π)

so that φ(z)ᵀφ(z') ≈ a² exp(−|z − z'|² / 2ℓ²). The frequencies of a column are
a hash of the seed and of what the column is: they depend on nothing else, neither on the order in
which columns came nor on a library's generator.

The length ℓ is measured: ℓ² is half the mean squared distance between two of the first 64 contexts
learned from. Before the last of these all φ are 0; from then on φ is a fixed function of the
context, so that what was learned of it stays true: it counts numbers by the largest of that time,
though a linear column's unit may grow, and does not read a column that comes later, of whose scale
nothing was known.

References
----------
Rahimi & Recht (2007), Random Features for Large-Scale Kernel Machines, NeurIPS.
"""

import hashlib
import math
from collections.abc import Sequence

import numpy as np
from scipy.special import ndtri

from policies.encoding import Column
from policies.errors import PolicyError
from policies.types import FloatArray

LEAST = 8
"""Fewer features than this are no kernel, and each would exceed what a ridge model may read."""

WARM = 64
"""How many contexts the length is measured from."""

_AMPLITUDE = 2.0  # a
_LENGTH = 0.5  # ℓ² over the mean squared distance
_LEAST_LARGEST = 1e-6  # of what never was larger nothing is known
_FARTHEST = 2.0  # beyond that cosines tell nothing, and the linear column still does


class Fourier:
    """D features of columns that grow.

    Parameters
    ----------
    count
        D.
    seed
        Of the frequencies and phases.
    """

    def __init__(self, count: int, seed: int) -> None:
        self._count = count
        self._seed = seed
        self.length = 0.0
        self.ratio = np.zeros(1)  # what columns are multiplied by
        self._frequencies = np.zeros((1, count))
        self._phases = 2.0 * math.pi * self._uniform("phase")

    def widen(self, columns: Sequence[Column]) -> None:
        """Take note of all columns, of which those beyond the ones known are new."""
        known = len(self.ratio) - 1
        fresh = [
            ndtri(self._uniform(f"{c.type}\0{c.attribute}\0{c.value}")) for c in columns[known:]
        ]
        if fresh:
            self._frequencies = np.concatenate([self._frequencies, fresh])
            read = 0.0 if self.length else 1.0
            self.ratio = np.concatenate([self.ratio, np.full(len(fresh), read)])

    def restore(self, length: float, ratio: FloatArray) -> None:
        """Take the state of a snapshot, after `widen`.

        Raises
        ------
        PolicyError
            If no features can have that state.
        """
        if not (0.0 <= length < math.inf and (ratio >= 0.0).all()):
            raise PolicyError(
                f"snapshot.state: fourier_length {length!r} is no length, or a ratio is negative."
            )
        self.length, self.ratio = length, ratio

    def rescale(self, column: int, factor: float) -> None:
        """A column's unit has grown by ``factor``."""
        if self.length > 0.0:
            self.ratio[column] *= factor

    def measure(self, x: FloatArray) -> None:
        """Measure ℓ, and the largest magnitude of each column, by the first contexts (WARM, d)."""
        largest = np.abs(x).max(axis=0)
        self.ratio = 1.0 / np.where(largest > _LEAST_LARGEST, largest, 1.0)
        spread = 2.0 * float((x * self.ratio).var(axis=0).sum())
        self.length = math.sqrt(_LENGTH * spread) if spread > 0.0 else 1.0

    def features(self, x: FloatArray) -> FloatArray:
        """φ, (D,) of (d,) or (n, D) of (n, d)."""
        if not self.length > 0.0:
            return np.zeros((*x.shape[:-1], self._count))
        near = np.minimum(np.maximum(x * self.ratio, -_FARTHEST), _FARTHEST)
        angle = near @ self._frequencies
        angle /= self.length
        angle += self._phases
        np.cos(angle, out=angle)
        angle *= _AMPLITUDE * math.sqrt(2.0 / self._count)
        return np.asarray(angle)

    def _uniform(self, name: str) -> FloatArray:
        """(D,) numbers in (0, 1), a hash of the seed and the name."""
        text = f"{self._seed}\0{name}".encode("utf-8", "surrogatepass")
        drawn = np.frombuffer(hashlib.shake_256(text).digest(8 * self._count), "<u8")
        return np.asarray(((drawn >> np.uint64(12)) + 0.5) / 2.0**52)
