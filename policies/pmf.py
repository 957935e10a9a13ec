"""Arithmetic of probability mass functions, and the one draw."""

from bisect import bisect_right
from itertools import accumulate

import numpy as np

from policies.errors import PolicyError
from policies.types import FloatArray


def normalise(pmf: FloatArray) -> FloatArray:
    """The same proportions, each row summing to one.

    Parameters
    ----------
    pmf
        (k,) or (n, k); non-negative, each row with a positive, finite sum.

    Returns
    -------
    float64 of the same shape.

    Raises
    ------
    PolicyError
        If a row is empty, holds a negative or non-finite number, or sums to zero.
    """
    values = np.asarray(pmf, dtype=np.float64)
    if values.shape[-1] == 0 or not np.minimum.reduce(values, axis=None, initial=0.0) >= 0.0:
        raise PolicyError(f"pmf is {values}. Give at least one number, each of them ≥ 0.")
    total = np.add.reduce(values, axis=-1, keepdims=True)
    least = np.minimum.reduce(total, axis=None, initial=np.inf)
    if least == 0.0 or not np.maximum.reduce(total, axis=None, initial=0.0) < np.inf:
        raise PolicyError(f"pmf sums to {total.squeeze(-1)}. Give a positive, finite total.")
    # A subnormal total keeps too few bits to divide by: bring the largest to one first.
    if least < 1e-290:
        values = values / values.max(axis=-1, keepdims=True)
        total = values.sum(axis=-1, keepdims=True)
    return np.asarray(values / total, dtype=np.float64)


def apply_floor(pmf: FloatArray, floor: float) -> FloatArray:
    """Mix a pmf with the uniform one: (1 − floor) pmf + floor / k.

    Parameters
    ----------
    pmf
        (k,) or (n, k), each row summing to one.
    floor
        The total probability spread over all k actions, in [0, 1]; no action's probability is
        then below floor / k.

    Raises
    ------
    PolicyError
        If ``floor`` is outside [0, 1].
    """
    if not 0.0 <= floor <= 1.0:
        raise PolicyError(f"floor is {floor!r}. Give the share spread uniformly, in [0, 1].")
    return np.asarray((1.0 - floor) * pmf + floor / pmf.shape[-1], dtype=np.float64)


def draw(pmf: FloatArray, u: float) -> int:
    """The index that ``u`` selects: the inverse of the cumulative distribution.

    Index i is drawn where Σ_{j<i} pmf_j ≤ u < Σ_{j≤i} pmf_j, hence for u uniform on [0, 1)
    with probability pmf_i, and never where pmf_i is zero.

    Parameters
    ----------
    pmf
        (k,), summing to one.
    u
        In [0, 1).

    Raises
    ------
    PolicyError
        If ``u`` is outside [0, 1), a probability is negative, or the sum is not 1 within 1e-9.
    """
    if not 0.0 <= u < 1.0:
        raise PolicyError(f"u is {u!r}. Give a number in [0, 1).")
    # Over the few actions of a slot, lists are several times quicker than arrays.
    probabilities = pmf.tolist()
    if min(probabilities) < 0.0:
        raise PolicyError(f"pmf holds {min(probabilities)!r}. A probability is never negative.")
    cumulative = list(accumulate(probabilities))
    if not abs(cumulative[-1] - 1.0) <= 1e-9:
        raise PolicyError(f"pmf sums to {cumulative[-1]!r}. Normalise it before drawing.")
    index = bisect_right(cumulative, u)
    # Rounding can leave the last sum a hair below u; the last possible action owns that hair.
    return index if index < len(cumulative) else int(np.flatnonzero(pmf)[-1])
