"""Intervals for off-policy values, computed on sums over units.

The **delete-one-unit jackknife** with Student's t is for when the sums of a unit are many and not
too skewed: rows of one unit may depend on each other in any way, and the statistic may be a ratio.
Skewness that the sample shows can be corrected for.

The **Cressie–Read** interval (power −2 of the empirical likelihood family) is for heavy weights or
small samples. It imagines one more unit, the worst that the declared ranges allow, and takes the
values that data so completed do not contradict. It cannot be had without a declared range of the
reward: from the sample alone nobody can say how bad the unseen unit might be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import fdtrc, fdtri, stdtr, stdtrit

from attribution.moments import Moments

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
# Numerator and size of a ratio, for some units; a float is the same size for each of them.
Part = tuple[FloatArray, FloatArray | float]
# Numbers in a block: a few columns of them fit a core's second cache, and are small enough for
# memory to be used again without asking the operating system for it.
BLOCK = 2**15


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its standard error and the two ends of its interval, low ≤ value ≤ high."""

    value: float
    se: float
    low: float
    high: float

    @classmethod
    def around(
        cls,
        se: float,
        ends: tuple[float, float],
        centres: tuple[float, float],
        bounds: tuple[float, float],
    ) -> Interval:
        """From one-sided ends and centres, within what the declared range allows.

        The value is the middle of the two centres. Each end is safe by itself, so that in rare
        samples they cross: then both are kept, in order.
        """
        least, most = bounds
        low, high = sorted(min(max(end, least), most) for end in ends)
        return cls(min(max(sum(centres) / 2, low), high), se, low, high)


def unit_sums(values: FloatArray, unit: IntArray | None) -> FloatArray:
    """Sums over the rows of each unit, (m,); the values themselves where each row is a unit."""
    return values if unit is None else np.bincount(unit, weights=values).astype(np.float64)


def blocks(n: int, k: int = 1) -> Iterator[slice]:
    """Slices of rows that together cover an (n, k) matrix, so few that a core's cache holds them.

    What is worked out for one block needs no memory of the log's size.
    """
    step = max(1, BLOCK // k)
    for start in range(0, n, step):
        yield slice(start, min(n, start + step))


def sliced(parts: Sequence[Part]) -> Iterator[list[Part]]:
    """The parts of an estimate in `blocks`."""
    for units in blocks(len(parts[0][0])):
        yield [(top[units], b if isinstance(b, float) else b[units]) for top, b in parts]


def totals(parts: Iterable[Sequence[Part]]) -> list[tuple[float, float]]:
    """Σ numerator and Σ size of each of the ratios whose sum is an estimate."""
    sums: list[tuple[float, float]] = []
    for block in parts:
        each = [
            (float(top.sum()), size * len(top) if isinstance(size, float) else float(size.sum()))
            for top, size in block
        ]
        sums = sums or [(0.0, 0.0)] * len(each)
        sums = [(a + c, b + d) for (a, b), (c, d) in zip(sums, each, strict=True)]
    return sums


def ratio(top: float, size: float) -> float:
    """The quotient; NaN where there is nothing to divide by."""
    return top / size if size else math.nan


def deviations(
    parts: Iterable[Sequence[Part]], sums: Sequence[tuple[float, float]]
) -> Iterator[FloatArray]:
    """V̂_(−j) − V̂ for the units j of each block, with V̂ the sum of the ratios of ``sums``.

    Without unit j a ratio T/S becomes (T − T_j)/(S − S_j), which is (V̂ S_j − T_j)/(S − S_j) away.
    """
    for block in parts:
        moved = None
        for (top, size), (all_top, all_size) in zip(block, sums, strict=True):
            value = ratio(all_top, all_size)
            each: FloatArray
            if isinstance(size, float):
                each = value * size - top
                each *= ratio(1.0, all_size - size)
            else:
                each = value * size
                each -= top
                rest = all_size - size
                # A unit that bears all of the size leaves nothing to divide by.
                rest[rest == 0] = math.nan
                each /= rest
            moved = each if moved is None else moved + each
        if moved is not None:
            yield moved


@dataclass(frozen=True, slots=True)
class Spread:
    """What the jackknife tells of a statistic: standard error, units, and how skewed it is.

    ``skew`` is the skewness of its influence values over √m, infinite where nothing varies;
    ``df`` the degrees of freedom of its variance, 2 m / (κ − 1) with their kurtosis κ, at most
    m − 1: few where a few units make most of it.
    """

    se: float
    m: int
    skew: float
    df: float

    @property
    def asymmetry(self) -> float:
        """The skew without its sign.

        By the Edgeworth expansion of Student's t each tail of a nominal 95 % interval misses by
        about (2 z² + 1) φ(z) / 6 ≈ 0.085 times this number, so 0.1 means a tail of .033 for .025.

        References
        ----------
        Hall (1992), The Bootstrap and Edgeworth Expansion, section 2.6.
        """
        return abs(self.skew)


@dataclass(frozen=True, slots=True)
class Moved:
    """Sums of the first four powers of V̂_(−j) − V̂ over m units j, and their largest square.

    Those of different units merge with ``+``.
    """

    m: int = 0
    first: float = 0.0
    second: float = 0.0
    third: float = 0.0
    fourth: float = 0.0
    largest: float = 0.0

    @classmethod
    def of(cls, d: FloatArray) -> Moved:
        # Their mean is of order 1/m of their spread: moments about zero lose nothing here.
        # Not a BLAS product: its threads cost more than they save at these sizes.
        squares = d * d
        return cls(
            len(d),
            float(d.sum()),
            float(squares.sum()),
            float(np.einsum("i,i->", squares, d)),
            float(np.einsum("i,i->", squares, squares)),
            float(squares.max()),
        )

    def __add__(self, other: Moved) -> Moved:
        return Moved(
            self.m + other.m,
            self.first + other.first,
            self.second + other.second,
            self.third + other.third,
            self.fourth + other.fourth,
            max(self.largest, other.largest),
        )

    def spread(self, value: float) -> Spread:
        """Delete-one-unit jackknife of a statistic, and how skewed it is.

            SE² = (m − 1)/m Σ_j (V̂_(−j) − V̄_(−·))²

        Parameters
        ----------
        value
            V̂, beside which what varies by rounding alone counts as nothing.

        References
        ----------
        Efron & Tibshirani (1993), An Introduction to the Bootstrap, chapter 11.
        """
        m, second, third = self.m, self.second, self.third
        mean = self.first / m
        total = max(second - m * mean * mean, 0.0) if not math.isnan(second) else math.nan
        se = math.sqrt((m - 1) / m * total)
        scale = abs(value) + math.sqrt(self.largest)
        if not total / m > (1e-14 * scale) ** 2:
            return Spread(se, m, math.inf, m - 1)
        central = third - 3 * mean * second + 2 * m * mean**3
        fourth = self.fourth - 4 * mean * third + 6 * mean**2 * second - 3 * m * mean**4
        kurtosis = m * fourth / total**2
        # Without a unit the estimate moves against what the unit brought to it.
        skew = -(central / m) / math.sqrt((total / m) ** 3 * m)
        return Spread(se, m, skew, min(m - 1, 2 * m / max(kurtosis - 1, 1e-9)))


def spread(moved: Iterable[FloatArray], value: float) -> Spread:
    """`Moved.spread` of blocks of V̂_(−j) − V̂.

    The difference of two statistics on one log is such a statistic too, which makes the
    comparison a paired one.
    """
    return sum(map(Moved.of, moved), Moved()).spread(value)


def jackknife(value: float, seen: Spread, alpha: float) -> Interval:
    """Jackknife interval with t on m − 1 degrees of freedom."""
    reach = float(stdtrit(seen.m - 1, 1 - alpha / 2)) * seen.se
    return Interval(value, seen.se, value - reach, value + reach)


def skew_corrected(value: float, seen: Spread, alpha: float) -> Interval:
    """Jackknife interval whose ends are moved by the skew of the statistic.

    The studentised statistic T is transformed to g(T) = T + a T²/3 + a² T³/27 + a/6, with a the
    skew over √m, which is symmetric to a higher order and rises everywhere; the ends are

        V̂ − SE g⁻¹(± t),   g⁻¹(x) = (3/a) [ (1 + a (x − a/6))^(1/3) − 1 ]

    with t on the degrees of freedom that the variance has. It corrects for skewness that the
    sample shows, not for what it has not shown yet.

    References
    ----------
    Hall (1992), On the Removal of Skewness by Transformation, JRSS B 54(1).
    """
    t = float(stdtrit(seen.df, 1 - alpha / 2))
    a = seen.skew
    if abs(a) < 1e-6:
        return Interval(value, seen.se, value - t * seen.se, value + t * seen.se)
    ends = [3 / a * (float(np.cbrt(1 + a * (x - a / 6))) - 1) for x in (t, -t)]
    return Interval(value, seen.se, value - seen.se * ends[0], value - seen.se * ends[1])


def skew_corrected_p(value: float, seen: Spread) -> float:
    """Two-sided p-value of a true value of zero, dual to `skew_corrected`."""
    if not seen.se:
        return 1.0
    x, a = value / seen.se, seen.skew
    return 2 * float(stdtr(seen.df, -abs(x + a * x * x / 3 + a * a * x**3 / 27 + a / 6)))


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """What units bring to an estimate, with the ranges declared for its rows.

    ``moments``, of one sample, are those of three sums over each unit: total Σ(b + w g), weight Σ w
    and its number of rows. A row's gain lies in [``gain_low``, ``gain_high``], its base in
    [``base_low``, ``base_high``]. ``own`` is 1 where the rows' own gain is taken off,
    Σ(b + (w − 1) g), as in a difference with the logging policy. ``imagined`` is the rows of the
    unit that may not have been seen yet, NaN for the average.
    """

    moments: Moments
    gain_low: float
    gain_high: float
    base_low: float
    base_high: float
    own: float = 0.0
    imagined: float = math.nan

    @property
    def m(self) -> int:
        """Units."""
        return int(self.moments.n[0])

    @property
    def size(self) -> float:
        """Rows of the imagined unit, at most the average unit's."""
        average = float(self.moments.mean[0, 2])
        return average if math.isnan(self.imagined) else min(self.imagined, average)

    def worst(self, weight: float) -> float:
        """The least that a row of this weight could bring."""
        excess = weight - self.own
        return self.base_low + excess * (self.gain_low if excess > 0 else self.gain_high)

    def beside_logging(self) -> Sums:
        """The same for a difference with the logging policy, whose total is taken off already.

        V − V_log = E[ b₁ − b₂ + (w − 1) g ], in which the target's are the only weights: the same
        problem as that of a value, with another worst for the imagined unit.
        """
        reach = self.base_high - self.base_low
        return replace(self, base_low=-reach, base_high=reach, own=1.0)

    def mirrored(self) -> Sums:
        """The same for the negated reward, whose lower end is the negated upper end."""
        return Sums(
            _mapped(self.moments, [[-1, 0, 0], [0, 1, 0], [0, 0, 1]]),
            -self.gain_high,
            -self.gain_low,
            -self.base_high,
            -self.base_low,
            self.own,
            self.imagined,
        )


def moments_of(*columns: FloatArray) -> Moments:
    """Moments of one sample with these columns, (m,) each."""
    return Moments.of(np.column_stack(columns))


def _mapped(moments: Moments, by: npt.ArrayLike) -> Moments:
    """Moments of linear combinations of one sample's columns, a row of ``by`` for each."""
    matrix = np.asarray(by, dtype=np.float64)
    return replace(moments, mean=moments.mean @ matrix.T, m2=matrix @ moments.m2 @ matrix.T)


def cressie_read(sums: Sums, max_weight: float, alpha: float) -> tuple[float, float]:
    """Both ends of the Cressie–Read interval for the value E[Σ r under the target] / E[rows].

    Sought are the v for which some reweighting Q of the units, and of one imagined unit, has

        E_Q[total − v rows] = 0   and   E_Q[weight − rows] = 0

    at a divergence from equal weights below the F(1, m) quantile. The second moment condition
    says that weights have mean one, which ties the unseen to the seen. At power −2 the
    divergence is quadratic, so that moments are all that is needed and the ends are roots of a
    quadratic: a regression of ``total`` on ``weight``, with the imagined unit among the data. That
    unit has as many rows as are drawn together, weight 0 or ``max_weight`` in each and the worst
    gain; the outer of the two answers counts.

    References
    ----------
    Karampatziakis, Langford & Mineiro (2020), Empirical Likelihood for Contextual Bandits,
    NeurIPS 33, arXiv 1906.03323. Baggerly (1998), Empirical Likelihood as a Goodness-of-Fit
    Measure, Biometrika 85(3), for the power family.
    """
    return cressie_read_levels(sums, max_weight)(alpha)


def cressie_read_levels(sums: Sums, max_weight: float) -> Callable[[float], tuple[float, float]]:
    """`cressie_read` as a function of alpha alone.

    At an alpha of one it shrinks to one value for each worst reward: that of the reweighting
    which is nearest to equal weights, with all that is missing from the weights' mean given to
    the worst, or to the best, reward. Their middle is the estimate that belongs to the interval
    (Karampatziakis, Langford & Mineiro 2020).
    """
    below, above = _lower(sums, max_weight), _lower(sums.mirrored(), max_weight)
    return lambda alpha: (below(alpha), -above(alpha))


def guarded_lower(moments: Moments, alpha: float) -> float:
    """Lower end for E[total] / E[rows] where ``total`` has its long tail above.

    The limit of `cressie_read` as the imagined unit's weight grows without bound. A mean and
    its standard error rise together under a long upper tail, so the end errs downwards, on
    the side of caution.

    Parameters
    ----------
    moments
        Of one sample: total and number of rows of each unit.
    """
    m = int(moments.n[0])
    return _smaller_root(moments, m + 1, _quantile(m, alpha))


def _quantile(m: int, alpha: float) -> float:
    """How far a reweighting of m units and the imagined one may go at level 1 − alpha."""
    return float(fdtri(1, m, 1 - alpha)) / (m + 1)


def guarded_p(moments: Moments, value: float) -> float:
    """The level at which `guarded_lower` reaches ``value``; 1 where that is above its centre."""
    m = int(moments.n[0])
    x = _mapped(moments, [[1, -value]])
    mean = float(x.mean[0, 0])
    if mean <= 0:
        return 1.0
    variance = float(x.m2[0, 0, 0]) / (m + 1)
    return float(fdtrc(1, m, (m + 1) * mean**2 / variance)) if variance else 0.0


def fieller_lower(total: FloatArray, rows: FloatArray, radius: float, slack: float) -> float:
    """Smaller v with E[total] − slack − v E[rows] = √(radius · Var(total − v rows))."""
    return _smaller_root(moments_of(total - slack, rows), len(total), radius)


def _lower(sums: Sums, max_weight: float) -> Callable[[float], float]:
    """The lower end as a function of alpha: the least over what the imagined unit may be."""
    m = sums.m
    _, weight, rows = sums.moments.mean[0]
    completed = [_Completed.by(sums, 0.0)]
    above = None
    if math.isfinite(max_weight):
        completed.append(_Completed.by(sums, max_weight))
        least = completed[1 if weight < rows else 0].misfit
    else:
        # In the limit the imagined unit takes up the missing weight at a cost of 1/m.
        least = 1 / m if weight < rows else min(1 / m, completed[0].misfit)
        above = _mapped(sums.moments, [[1.0, -sums.gain_low, 0.0], [0.0, 0.0, 1.0]])

    def end(alpha: float) -> float:
        found = [] if above is None else [sums.gain_low + guarded_lower(above, alpha)]
        found += [
            _smaller_root(each.moments, m + 1, radius)
            for each in completed
            if (radius := _quantile(m, alpha) + least - each.misfit) >= 0
        ]
        return min(found, default=-math.inf)

    return end


@dataclass(frozen=True, slots=True, eq=False)
class _Completed:
    """The sample with an imagined unit in it, total and rows corrected for weights ≠ 1.

    ``misfit`` is C̄² / var C for C = weight − rows: how far the weights are from mean one.
    """

    moments: Moments
    misfit: float

    @classmethod
    def by(cls, sums: Sums, weight: float) -> _Completed:
        imagined = sums.size * np.array([sums.worst(weight), weight, 1.0])
        unit = Moments(
            np.ones(1, np.intp), imagined[None], np.zeros((1, 3, 3)), np.zeros(1, np.intp)
        )
        whole = _mapped(sums.moments + unit, [[1, 0, 0], [0, 0, 1], [0, 1, -1]])
        products, mean = whole.m2[0], float(whole.mean[0, 2])
        by_total, by_rows = (products[2, :2] / products[2, 2]).tolist()
        misfit = mean**2 * (sums.m + 1) / float(products[2, 2])
        return cls(_mapped(whole, [[1, 0, -by_total], [0, 1, -by_rows]]), misfit)


def _smaller_root(moments: Moments, divisor: int, radius: float) -> float:
    """Smaller v with (Ā − v B̄)² = radius · var(A − v B), Fieller's quadratic; −∞ if none.

    ``moments`` are those of A and B; the variance is over ``divisor``.
    """
    a, b = map(float, moments.mean[0])
    aa, ab, bb = (float(moments.m2[0, i, j]) / divisor for i, j in ((0, 0), (0, 1), (1, 1)))
    leading = b * b - radius * bb
    if leading <= 0:
        return -math.inf
    # middle² − leading (a² − radius aa), without what cancels: its root would be far less exact.
    discriminant = radius * (
        a * a * bb - 2 * a * b * ab + b * b * aa - radius * (aa * bb - ab * ab)
    )
    return (a * b - radius * ab - math.sqrt(max(discriminant, 0.0))) / leading
