"""What a ranked list is worth to a user: one number each, so that intervals can be had over users.

Lists are rows of a catalogue, (u, k), best first, padded with -1. ``hits`` (u, k) says which of
them the user turned out to choose, of ``relevant`` (u,) items in all.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from recsys.catalogue import Mask, Rows

Numbers = npt.NDArray[np.float64]

_SMOOTHING = 0.01


def recall(hits: Mask, relevant: npt.NDArray[np.integer]) -> Numbers:
    """(u,), the share of the relevant items that are in the list."""
    return np.asarray(hits.sum(axis=1) / relevant, np.float64)


def hit_rate(hits: Mask) -> Numbers:
    """(u,), 1 where the list holds a relevant item."""
    return np.asarray(hits.any(axis=1), np.float64)


def ndcg(hits: Mask, relevant: npt.NDArray[np.integer]) -> Numbers:
    """(u,), Σ hit_j / log2(j + 1) over what min(k, relevant) hits in front would make of it.

    References
    ----------
    Järvelin & Kekäläinen (2002), Cumulated Gain-Based Evaluation of IR Techniques, TOIS 20(4).
    """
    k = hits.shape[1]
    gains = 1.0 / np.log2(np.arange(k) + 2.0)
    ideal = np.concatenate([[0.0], np.cumsum(gains)])[np.minimum(relevant, k)]
    return np.asarray((hits @ gains) / ideal, np.float64)


def average_precision(hits: Mask, relevant: npt.NDArray[np.integer]) -> Numbers:
    """(u,), Σ hit_j · precision at j over min(k, relevant); its mean over users is MAP."""
    k = hits.shape[1]
    precision = np.cumsum(hits, axis=1) / (np.arange(k) + 1.0)
    return np.asarray((hits * precision).sum(axis=1) / np.minimum(relevant, k))


def novelty(lists: Rows, shares: Numbers) -> Numbers:
    """(u,) in bits, the mean of −log2 of the share of users (n,) that chose each item.

    References
    ----------
    Zhou et al. (2010), Solving the Apparent Diversity-Accuracy Dilemma of Recommender Systems,
    PNAS 107(10).
    """
    there = lists >= 0
    bits = np.where(there, -np.log2(shares[lists]), 0.0)
    return np.asarray(bits.sum(axis=1) / np.maximum(1, there.sum(axis=1)))


def intra_list_diversity(
    lists: Rows, similarities: Callable[[Rows, Rows], npt.NDArray[np.floating]]
) -> Numbers:
    """(u,), the mean of 1 − similarity over pairs of a list; 0 for lists of one.

    References
    ----------
    Ziegler, McNee, Konstan & Lausen (2005), Improving Recommendation Lists through Topic
    Diversification, WWW.
    """
    found = np.zeros(len(lists))
    for user, row in enumerate(lists):
        shown = row[row >= 0]
        pairs = np.triu_indices(len(shown), 1)
        if len(pairs[0]):
            found[user] = 1.0 - similarities(shown, shown)[pairs].mean()
    return found


def miscalibration(history: Numbers, shown: Numbers) -> Numbers:
    """(u,) in nats, how far the mix shown (u, c) is from that of the history (u, c); 0 is best.

        Σ_c p_c log(p_c / ((1 − a) q_c + a p_c)),   a = .01

    with p the shares of the history's categories and q of the list's. Users whose history or list
    has no category have NaN.

    References
    ----------
    Steck (2018), Calibrated Recommendations, RecSys.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        p = history / history.sum(axis=1, keepdims=True)
        q = shown / shown.sum(axis=1, keepdims=True)
        terms = np.where(p > 0.0, p * np.log(p / ((1.0 - _SMOOTHING) * q + _SMOOTHING * p)), 0.0)
    unknown = (history.sum(axis=1) == 0.0) | (shown.sum(axis=1) == 0.0)
    return np.where(unknown, np.nan, terms.sum(axis=1))


def coverage(lists: Rows, n: int) -> float:
    """The share of n items that are in anybody's list."""
    return len(np.unique(lists[lists >= 0])) / n


def bootstrap(values: Numbers, draws: int, seed: int, alpha: float) -> tuple[float, float]:
    """The percentile interval of the mean over users, drawn with replacement."""
    rng = np.random.default_rng(seed)
    n = len(values)
    means = [values[rng.integers(0, n, n)].mean() for _ in range(draws)]
    low, high = np.quantile(means, [alpha / 2.0, 1.0 - alpha / 2.0])
    return float(low), float(high)
