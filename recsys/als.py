"""Implicit-feedback matrix factorisation by alternating least squares, for large catalogues.

    Σ_observed w_ui (1 − u·v_i)² + α Σ_all (u·v_i)²
    + λ Σ_u (w_u + α n) |u|² + λ Σ_i (w_i + α m) |v_i|²

of m users and n items, with w_u and w_i the sums of weights of a user and an item. What is not
observed weighs ``unobserved`` times as much in all as what is: α = unobserved · Σw / (m n), so that
one setting serves catalogues of any size.

References
----------
Hu, Koren & Volinsky (2008), Collaborative Filtering for Implicit Feedback Datasets, ICDM.
Rendle, Krichene, Zhang & Koren (2022), Revisiting the Performance of iALS on Item Recommendation
Benchmarks, RecSys: the regularisation by frequency.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_BLOCK_NUMBERS = 1 << 18  # gathered at a time: what a cache holds


@dataclass(frozen=True)
class Ridge:
    """What a vector of one side is solved with, given those of the other.

    Parameters
    ----------
    gram
        (d, d), α Σ v vᵀ over the other side.
    alpha
        α.
    lambda_
        λ.
    others
        How many the other side has.
    """

    gram: Floats
    alpha: float
    lambda_: float
    others: int

    def solve(self, vectors: Floats, weights: Floats) -> Floats:
        """(b, d) vectors of b rows that observed (b, l, d) vectors with (b, l) weights."""
        weighted = vectors * weights[:, :, None]
        system = np.matmul(weighted.transpose(0, 2, 1), vectors) + self.gram
        diagonal = self.lambda_ * (weights.sum(axis=1) + self.alpha * self.others)
        d = vectors.shape[2]
        system[:, np.arange(d), np.arange(d)] += diagonal[:, None]
        solved = np.linalg.solve(system, weighted.sum(axis=1)[:, :, None])
        return np.asarray(solved[:, :, 0], np.float32)


def alpha_of(choices: Any, unobserved: float) -> float:
    """α of a sparse (m, n) matrix of weights."""
    m, n = choices.shape
    return float(unobserved * choices.sum() / (m * n))


def als(
    choices: Any,
    *,
    factors: int,
    unobserved: float,
    lambda_: float,
    iterations: int,
    seed: int,
    progress: Callable[[float], None],
) -> Floats:
    """(n, factors) item vectors of a sparse (m, n) matrix of weights."""
    from threadpoolctl import threadpool_limits  # noqa: PLC0415  training only

    rows = choices.tocsr().astype(np.float32)
    columns = rows.T.tocsr()
    m, n = choices.shape
    alpha = alpha_of(choices, unobserved)
    rng = np.random.default_rng(seed)
    items = (rng.standard_normal((n, factors)) * 0.1 / np.sqrt(factors)).astype(np.float32)
    # Systems this small take ten times as long where threads share them out.
    with threadpool_limits(1, "blas"):
        for iteration in range(iterations):
            users = _half(rows, items, ridge(items, alpha, lambda_, n))
            items = _half(columns, users, ridge(users, alpha, lambda_, m))
            progress((iteration + 1) / iterations)
    return np.asarray(items)


def ridge(vectors: Floats, alpha: float, lambda_: float, others: int) -> Ridge:
    """The `Ridge` against (k, d) vectors of the other side."""
    return Ridge(alpha * (vectors.T @ vectors), alpha, lambda_, others)


def _half(rows: Any, vectors: Floats, system: Ridge) -> Floats:
    """The vectors of one side; rows of like length are solved together."""
    solved = np.zeros((rows.shape[0], vectors.shape[1]), np.float32)
    lengths = np.diff(rows.indptr)
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 0]
    start = 0
    while start < len(order):
        # Ascending lengths: the block ends where its longest row would make it too large.
        longest = np.maximum.accumulate(lengths[order[start:]])
        sizes = longest * np.arange(1, len(longest) + 1) * vectors.shape[1]
        count = max(1, int(np.searchsorted(sizes, _BLOCK_NUMBERS, side="right")))
        block = order[start : start + count]
        width = int(lengths[block].max())
        place = rows.indptr[block][:, None] + np.arange(width)
        there = np.arange(width) < lengths[block][:, None]
        place = np.where(there, place, 0)
        weights = np.where(there, rows.data[place], np.float32(0.0))
        solved[block] = system.solve(vectors[rows.indices[place]], weights)
        start += count
    return solved
