"""Lower ends that hold at any sample size, for means of terms whose range is declared.

Each bounds E[total] / E[rows] from below, from sums over independent units; an upper end is the
negated lower end of the negated reward. Both need what no sample can tell: the floor of a row's
term and the largest number of rows that a unit can have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

from attribution.intervals import fieller_lower

FloatArray = npt.NDArray[np.float64]

# Bets of 1, 1/2, 1/4, … standard deviations, their wealth averaged: a mixture of martingales is
# one, and each is the best for some number of units, the smallest for ten million.
_LEVELS = 12
# A bet never risks more than this share of the wealth on one unit.
_MOST_AT_STAKE = 0.9


@dataclass(frozen=True, slots=True, eq=False)
class Bounded:
    """Sums over units of terms that lie between a floor and a ceiling.

    ``total`` (m,) and ``rows`` (m,), in the order in which the units came; a row's term lies in
    [``floor``, ``ceiling``] (the ceiling may be infinite) and a unit has at most ``most_rows``.
    ``scale`` is the width of the reward's range, by which first bets are measured. ``steadied`` is
    another total of the same expectation with floors of its own, (m,) each, that may depend on
    the units before; see `steadied`.
    """

    total: FloatArray
    rows: FloatArray
    floor: float
    ceiling: float
    most_rows: float
    scale: float
    steadied: tuple[FloatArray, FloatArray] | None = None

    @property
    def streams(self) -> int:
        """How many totals are bet on."""
        return 1 if self.steadied is None else 2


def steadied(
    gain: FloatArray,
    weight: FloatArray,
    base: FloatArray,
    rows: FloatArray,
    gain_range: tuple[float, float],
    base_low: float,
    max_weight: float,
) -> tuple[FloatArray, FloatArray]:
    """Totals with the weights' mean of one as a control, and the floors of their rows.

        T_j = base_j + gain_j + c_j (rows_j − weight_j)

    with c_j the weighted mean gain of the units before j: a martingale's increments like the
    total's own, yet with the variance of a self-normalised estimate. Weights have no smallest
    gain to lean on here, so a row's floor is as deep as ``max_weight`` allows.

    Parameters
    ----------
    gain
        (m,) Σ w g over each unit, in the order in which they came; ``weight`` Σ w, ``base`` Σ b.
    """
    control = _mean_before(gain, weight, gain_range)
    total = base + gain + control * (rows - weight)
    return total, base_low + control + max_weight * (gain_range[0] - control)


def steadied_difference(
    total: FloatArray,
    apart: FloatArray,
    by: tuple[FloatArray, FloatArray],
    gain_range: tuple[float, float],
    base_low: float,
    apart_range: tuple[float, float],
) -> tuple[FloatArray, FloatArray]:
    """As `steadied`, for the difference of two targets whose weights lie d = w₁ − w₂ apart.

        T_j = Σ (b₁ − b₂ + d (g − c_j)),   c_j = Σ d² g / Σ d² over the units before j

    E[d] = 0 makes the control free, and this one leaves the least variance.

    Parameters
    ----------
    total
        (m,) Σ b₁ − b₂ + d g over each unit, in the order in which they came; ``apart`` Σ d.
    by
        (m,) each, Σ d² g and Σ d².
    base_low
        The least that b₁ − b₂ can be in a row; ``apart_range`` the least and the most that d can.
    """
    least, most = gain_range
    nearest, farthest = apart_range
    control = _mean_before(*by, gain_range)
    floor = base_low + np.minimum(farthest * (least - control), nearest * (most - control))
    return total - control * apart, floor


def _mean_before(
    gain: FloatArray, weight: FloatArray, gain_range: tuple[float, float]
) -> FloatArray:
    """The weighted mean gain of the units before each, (m,), within its range."""
    least, most = gain_range
    before = np.concatenate([[0.0], np.cumsum(gain)[:-1]])
    borne = np.concatenate([[0.0], np.cumsum(weight)[:-1]])
    # One row at the middle of the range, until there are others.
    found: FloatArray = np.clip((before + (least + most) / 2) / (borne + 1), least, most)
    return found


def bernstein_lower(terms: Bounded, alpha: float) -> float:
    """Empirical Bernstein lower end for E[total] / E[rows], wrong with probability ≤ ``alpha``.

    The v at which, for X = total − v rows with values in a range of width c,

        X̄ = √(2 V log(2/α) / m) + 7 c log(2/α) / (3 (m − 1))

    References
    ----------
    Maurer & Pontil (2009), Empirical Bernstein Bounds and Sample-Variance Penalization, COLT,
    theorem 4.
    """
    m = len(terms.total)
    log = math.log(2 / alpha)
    width = terms.most_rows * (terms.ceiling - terms.floor)
    found = fieller_lower(
        terms.total, terms.rows, 2 * log / (m - 1), 7 * width * log / (3 * (m - 1))
    )
    return max(found, terms.floor)


def bernstein_p(terms: Bounded, value: float, alpha: float) -> float:
    """The level at which `bernstein_lower` reaches ``value``, whatever ``alpha`` is."""
    del alpha
    m = len(terms.total)
    x = terms.total - value * terms.rows
    mean = float(x.mean())
    if mean <= 0:
        return 1.0
    # With s = √log(2/α): √(2 V / m) s + 7 c s² / (3 (m − 1)) = X̄, a quadratic in s.
    first = math.sqrt(2 * float(x.var(ddof=1)) / m)
    second = 7 * terms.most_rows * (terms.ceiling - terms.floor) / (3 * (m - 1))
    s = (math.sqrt(first * first + 4 * second * mean) - first) / (2 * second)
    return min(1.0, 2 * math.exp(-s * s))


def betting_lower(terms: Bounded, alpha: float) -> float:
    """Anytime-valid lower end for E[total] / E[rows]: it is ever wrong with probability ≤ α.

    For each v the wealth of one who bets that E[total − v rows] > 0,

        W(v) = Π_j (1 + λ_j (total_j − v rows_j)),   λ_j from the units before j alone,

    is a non-negative martingale where v is the truth, and by Ville's inequality exceeds 1/α with
    probability at most α, whenever one looks. The end is the smallest v with W(v) < 1/α. The bets
    are λ_j = κ / σ̂_{j−1}, cut so that no unit can ruin, and the wealth is averaged over
    κ = 1, 1/2, 1/4, …, of which one is nearly the best for any number of units. Terms need no
    ceiling, hence weights no largest value; where they have one, half of the wealth is bet on
    the steadied terms.

    References
    ----------
    Waudby-Smith & Ramdas (2024), Estimating Means of Bounded Random Variables by Betting, JRSS B
    86(1); Waudby-Smith, Wu, Ramdas, Karampatziakis & Mineiro (2024), Anytime-Valid Off-Policy
    Inference for Contextual Bandits, ACM/IMS Journal of Data Science 1(3), arXiv 2210.10768.
    """
    wealth = _wealth(terms, alpha)
    enough = -math.log(alpha)
    low, high = terms.floor, max(float(terms.total.sum() / terms.rows.sum()), terms.floor)
    if wealth(low) < enough:
        return low
    step = terms.scale
    while wealth(high) >= enough:
        low, high, step = high, high + step, 2 * step
    return float(brentq(lambda v: wealth(v) - enough, low, high, xtol=1e-10 * terms.scale))


def betting_p(terms: Bounded, value: float, alpha: float) -> float:
    """Anytime-valid p-value of E[total] / E[rows] ≤ ``value``: one over the wealth, at most 1.

    With bets made for ``alpha``, so that it is below ``alpha`` where `betting_lower` is above.
    """
    if value <= terms.floor:
        return 1.0
    return math.exp(-max(0.0, _wealth(terms, alpha)(value)))


def _wealth(terms: Bounded, alpha: float) -> Callable[[float], float]:
    """Logarithm of the wealth as a function of v; it never rises with v."""
    # Bets that are far from the best for this many units would only add to the wealth a little:
    # leaving them out errs on the side of caution, so it may depend on the log.
    best = math.log2(math.sqrt(len(terms.total) / (2 * -math.log(alpha))))
    first = min(max(round(best) - 2, 0), _LEVELS - 4)
    grown = growth(terms, range(first, first + 4))

    def log_wealth(v: float) -> float:
        each = [float(bet.sum()) for bet in grown(v)]
        most = max(each)
        total_wealth = math.log(sum(math.exp(e - most) for e in each))
        return most + total_wealth - math.log(_LEVELS * terms.streams)

    return log_wealth


def growth(
    terms: Bounded, levels: Iterable[int] = range(_LEVELS)
) -> Callable[[float], Iterator[FloatArray]]:
    """Of each bet on v, the logarithm of what each unit makes of its wealth, (m,) in order."""
    streams = [(terms.total, np.full(len(terms.total), terms.floor))]
    if terms.steadied is not None:
        streams.append(terms.steadied)
    deviations = [_deviations(total, terms) for total, _ in streams]
    sizes = [2.0**-level for level in levels]

    def of(v: float) -> Iterator[FloatArray]:
        for (total, floor), deviation in zip(streams, deviations, strict=True):
            gain = total - v * terms.rows
            # The least that a unit can bring is most_rows (floor − v), a loss wherever v is above.
            cap = _MOST_AT_STAKE / (terms.most_rows * np.maximum(v - floor, 1e-12 * terms.scale))
            for size in sizes:
                yield np.log1p(np.minimum(size / deviation, cap) * gain)

    return of


def _deviations(total: FloatArray, terms: Bounded) -> FloatArray:
    """Standard deviation of total − rate · rows over the units before each, (m,)."""
    rate = np.cumsum(total) / np.cumsum(terms.rows)
    residual = total - rate * terms.rows
    prior = (terms.most_rows * terms.scale) ** 2 / 4
    spent = np.concatenate([[prior], prior + np.cumsum(residual * residual)[:-1]])
    found: FloatArray = np.sqrt(spent / np.arange(1, len(total) + 1))
    return found
