"""The one greedy loop that puts candidates in order, position by position.

At each position every item that is still allowed has a gain

    utility − diversity given the items before + calibration given the items before

where utility is the scorer's score, brought to 0…1 over the candidates, with the amounts of soft
rules. Limits, likeness and mix look at the items before and at nothing else, so that the
probability of a slate is exactly the product of what is logged at its positions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from recsys.groups import Groups
from recsys.packing import Packing, completion, overlapping, surely_filled
from recsys.plan import Calibration, Composing, Diversity, Exploration, Limit
from recsys.slate import PinnedAt, Placing

FloatArray = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]

FULL = 255
"""The likeness of an item to itself, in the whole numbers that likeness is counted in."""

_SMOOTHING = 0.01
_LEAST_RESIDUAL = 1e-6


@dataclass(frozen=True, eq=False)
class Pool:
    """m candidates that no hard rule keeps out, and what their order depends on.

    Parameters
    ----------
    scores
        (m,), of the scorer.
    amounts
        (m,) by soft rule.
    groups
        By column, of those that `Composing.grouped` names.
    mix
        See `recsys.slate.SlateTrace`; empty where nothing is known of the user.
    completion
        See `recsys.slate.SlateTrace`.
    """

    scores: FloatArray
    amounts: Mapping[str, FloatArray]
    groups: Mapping[str, Groups]
    mix: Mapping[str, float]
    pins: tuple[PinnedAt, ...] = ()
    completion: tuple[int, ...] | None = None

    @cached_property
    def utility(self) -> FloatArray:
        """(m,), scores between the lowest, 0, and the highest, 1, with all amounts."""
        utility = np.zeros(len(self.scores))
        if len(utility):
            low, high = self.scores.min(), self.scores.max()
            if high > low:
                utility = (self.scores - low) / (high - low)
        for amounts in self.amounts.values():
            utility = utility + amounts
        return utility


class Likeness(Protocol):
    """How much items resemble each other."""

    def row(self, item: int, position: int) -> Bytes:
        """(m,), the likeness to all of the item that was placed at a position (from 0)."""
        ...


class NoLikeness:
    """For plans that do not read it."""

    def row(self, item: int, position: int) -> Bytes:  # noqa: ARG002  # as all
        """Nothing."""
        return np.zeros(0, np.uint8)


@dataclass(frozen=True, eq=False)
class ByVectors:
    """The cosine of embeddings, none below 0."""

    vectors: npt.NDArray[np.float32]

    @cached_property
    def _units(self) -> npt.NDArray[np.float32]:
        lengths = np.sqrt(np.einsum("md,md->m", self.vectors, self.vectors))
        return np.asarray(self.vectors / np.maximum(lengths, np.float32(1e-12))[:, None])

    def row(self, item: int, position: int) -> Bytes:  # noqa: ARG002  # as all
        """See `Likeness.row`."""
        # einsum adds in one order whatever the number of threads, which BLAS does not.
        return _whole(np.einsum("md,d->m", self._units, self._units[item]))


@dataclass(frozen=True, eq=False)
class ByGroups:
    """The share of an attribute's values in common."""

    groups: Groups

    def row(self, item: int, position: int) -> Bytes:  # noqa: ARG002  # as all
        """See `Likeness.row`."""
        return _whole(self.groups.likeness(item))


@dataclass(frozen=True, eq=False)
class Logged:
    """What a trace tells: (placed, m), of the items that were placed and no others."""

    rows: Bytes

    def row(self, item: int, position: int) -> Bytes:  # noqa: ARG002  # as all
        """See `Likeness.row`."""
        return np.asarray(self.rows[position])


def _whole(likeness: npt.NDArray[np.floating]) -> Bytes:
    found = likeness * FULL
    np.maximum(found, 0.0, out=found)
    # Rounding to the nearest: what is above 1 by a hair is still below 256.
    found += 0.5
    return np.asarray(found.astype(np.uint8))


# Choosing ---------------------------------------------------------------------------------------


class Choose(Protocol):
    """How one of several gains is chosen."""

    def __call__(self, gains: FloatArray, position: int) -> tuple[int, float]:
        """An index and its probability; ``gains`` (m,) are −∞ where an item is not allowed."""
        ...


def best(gains: FloatArray, position: int) -> tuple[int, float]:  # noqa: ARG001  # as all
    """The greatest gain, with probability 1; of equals the first."""
    return int(gains.argmax()), 1.0


def pmf(gains: FloatArray, exploration: Exploration) -> FloatArray:
    """(m,), the probability of each item at a position; see `Exploration`.

    ``gains`` (m,) are −∞ where an item is not allowed; one is.
    """
    first = int(gains.argmax())
    if exploration.temperature > 0:
        found = np.exp((gains - gains[first]) / exploration.temperature)
        found /= found.sum()
    else:
        found = np.zeros(len(gains))
        found[first] = 1.0
    if exploration.epsilon > 0:
        allowed = gains > -math.inf
        found *= 1.0 - exploration.epsilon
        share = exploration.epsilon / np.count_nonzero(allowed)
        np.add(found, share, out=found, where=allowed)
    return np.asarray(found)


@dataclass(frozen=True)
class Drawn:
    """Draws position j with the j-th uniform."""

    exploration: Exploration
    uniforms: Sequence[float]

    def __call__(self, gains: FloatArray, position: int) -> tuple[int, float]:
        """See `Choose`."""
        found = pmf(gains, self.exploration)
        index = int(found.cumsum().searchsorted(self.uniforms[position], side="right"))
        if index == len(found):
            # Rounding can leave the last sum a hair below the uniform; the last item owns it.
            index = int(np.flatnonzero(found)[-1])
        return index, float(found[index])


@dataclass(frozen=True)
class Following:
    """Chooses what was placed, and tells how probable that was; 0 if it is not allowed."""

    placed: Sequence[int]
    exploration: Exploration

    def __call__(self, gains: FloatArray, position: int) -> tuple[int, float]:
        """See `Choose`."""
        if position >= len(self.placed):
            return best(gains, position)
        index = self.placed[position]
        if gains[index] == -math.inf:
            return index, 0.0
        return index, float(pmf(gains, self.exploration)[index])


# The loop ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Placed:
    """One position filled; see `recsys.slate.Placement`."""

    item: int
    propensity: float
    diversity: float
    calibration: float
    placed: Placing


def compose(
    pool: Pool, composing: Composing, k: int, likeness: Likeness, choose: Choose
) -> tuple[list[Placed], list[Bytes]]:
    """At most k positions filled, and the likeness of each placed item to all.

    Fewer than k only where no more are allowed.
    """
    open_ = _Open(pool, composing.limits, k)
    diversity = _diversity(composing.diversity, len(pool.scores))
    calibration = _calibration(composing.calibration, pool)
    placed: list[Placed] = []
    rows: list[Bytes] = []
    while len(placed) < k:
        position = len(placed)
        utility, placing, fixed = open_.at(position)
        if placing is None:
            break
        taken, gained = diversity.taken(), calibration.gained()
        if fixed is None:
            item, propensity = choose(utility - taken + gained, position)
        else:
            item, propensity = fixed, 1.0
        placed.append(Placed(item, propensity, _at(taken, item), _at(gained, item), placing))
        open_.place(item)
        calibration.place(item)
        rows.append(likeness.row(item, position))
        diversity.place(item, rows[-1])
    return placed, rows


def _at(values: FloatArray | float, item: int) -> float:
    return values if isinstance(values, float) else float(values[item])


def fixed_pins(
    pins: Sequence[PinnedAt], limits: Sequence[Limit], groups: Mapping[str, Groups], k: int
) -> dict[int, int]:
    """The pinned item of each position (from 0), of those that limits allow beside one another."""
    counters = [_Counter(limit, groups[limit.column]) for limit in limits]
    found: dict[int, int] = {}
    for pin in pins:
        item = pin.candidates[0]
        fits = pin.fixed and pin.position <= k and item not in found.values()
        if fits and all(counter.has_room(item) for counter in counters):
            found[pin.position - 1] = item
            for counter in counters:
                counter.add(item)
    return found


def completed(pool: Pool, limits: Sequence[Limit], k: int) -> Pool:
    """The pool with a completion, where limits could leave k positions short without one."""
    m = len(pool.scores)
    if surely_filled(limits, pool.groups, m, k) or not overlapping(limits, pool.groups):
        return replace(pool, completion=None)
    fixed = tuple(fixed_pins(pool.pins, limits, pool.groups, k).values())
    return replace(pool, completion=completion(limits, pool.groups, pool.utility, k, fixed))


class _Open:
    """Which items are still allowed: not placed, not reserved, their limits not reached."""

    def __init__(self, pool: Pool, limits: Sequence[Limit], k: int) -> None:
        self._utility = pool.utility.copy()
        self._limits = [_Counter(limit, pool.groups[limit.column]) for limit in limits]
        self._fixed = fixed_pins(pool.pins, limits, pool.groups, k)
        self._kept = {p.position - 1: p for p in pool.pins if not p.fixed}
        self._sponsored = {pin.position - 1 for pin in pool.pins if pin.sponsored}
        for item in self._fixed.values():
            self._count(item)
        self._packing = None
        if pool.completion is not None:
            groups = {limit.column: pool.groups[limit.column] for limit in limits}
            self._packing = Packing(limits, groups, len(pool.scores))
            self._rest = [i for i in pool.completion if i not in self._fixed.values()]
            self._packing.hold([*self._rest, *self._fixed.values()])
        self._pool = pool

    def at(self, position: int) -> tuple[FloatArray, Placing | None, int | None]:
        """Utilities, −∞ where not allowed; how the position is filled, None: not; by which pin."""
        sponsored: Placing = "sponsored" if position in self._sponsored else "pinned"
        if position in self._fixed:
            return self._utility, sponsored, self._fixed.pop(position)
        utility = self._utility
        if self._packing is not None:
            utility = np.where(self._packing.completable(self._rest), utility, -math.inf)
        if position in self._kept:
            among = np.full(len(utility), -math.inf)
            index = list(self._kept[position].candidates)
            among[index] = utility[index]
            if among.max(initial=-math.inf) > -math.inf:
                return among, sponsored, None
        if utility.max(initial=-math.inf) > -math.inf:
            return utility, "ranked", None
        if self._fixed:
            # Nothing else is left: the pins that come later move up.
            later = min(self._fixed)
            return (
                utility,
                "sponsored" if later in self._sponsored else "pinned",
                self._fixed.pop(later),
            )
        return utility, None, None

    def place(self, item: int) -> None:
        """Close the item and whatever may stand beside it no more."""
        if self._utility[item] == -math.inf:
            return
        if self._packing is not None:
            self._rest = self._packing.place(item, self._rest, self._pool.utility)
        self._count(item)

    def _count(self, item: int) -> None:
        self._utility[item] = -math.inf
        for counter in self._limits:
            for full in counter.add(item):
                self._utility[full] = -math.inf


class _Counter:
    """How often each value of a limit's column was placed."""

    def __init__(self, limit: Limit, groups: Groups) -> None:
        self._limit, self._groups = limit, groups
        self._counts: dict[int, int] = {}

    def _codes(self, item: int) -> list[int]:
        codes = self._groups.of(item)
        return codes if self._limit.unknown == "together" else [c for c in codes if c >= 0]

    def has_room(self, item: int) -> bool:
        return all(self._counts.get(c, 0) < self._limit.at_most for c in self._codes(item))

    def add(self, item: int) -> list[npt.NDArray[np.intp]]:
        """The members of what is full now."""
        full = []
        for code in self._codes(item):
            count = self._counts[code] = self._counts.get(code, 0) + 1
            if count == self._limit.at_most:
                full.append(self._groups.members(code))
        return full


class _Nothing:
    """Diversity and calibration that a plan does not ask for."""

    def taken(self) -> FloatArray | float:
        return 0.0

    def gained(self) -> FloatArray | float:
        return 0.0

    def place(self, item: int, row: Bytes | None = None) -> None:
        pass


class _MarginalRelevance:
    """Weight times the likeness to the most similar item before."""

    def __init__(self, weight: float, m: int) -> None:
        self._step = weight / FULL
        self._most = np.zeros(m, np.uint8)

    def taken(self) -> FloatArray:
        return np.asarray(self._most * self._step)

    def place(self, item: int, row: Bytes) -> None:  # noqa: ARG002  # as all
        np.maximum(self._most, row, out=self._most)


class _Determinant:
    """Weight times −log of an item's residual: what of it the items before do not span.

    Each row of the Cholesky factor is kept for all m items, so that a residual costs one more
    product a position (Chen et al. 2018, algorithm 1).
    """

    def __init__(self, weight: float, m: int) -> None:
        self._weight = weight
        self._residual = np.ones(m)
        self._rows: list[FloatArray] = []

    def taken(self) -> FloatArray:
        return np.asarray(-self._weight * np.log(self._residual))

    def place(self, item: int, row: Bytes) -> None:
        found = row / FULL
        for before in self._rows:
            found -= before[item] * before
        found /= math.sqrt(self._residual[item])
        self._rows.append(found)
        # Items alike in all have nothing left; the floor keeps them last rather than out.
        self._residual = np.maximum(self._residual - found * found, _LEAST_RESIDUAL)


def _diversity(diversity: Diversity | None, m: int) -> _Nothing | _MarginalRelevance | _Determinant:
    if diversity is None:
        return _Nothing()
    kind = _MarginalRelevance if diversity.kind == "mmr" else _Determinant
    return kind(diversity.weight, m)


class _Mix:
    """Weight times how much closer an item brings the slate's mix to the user's.

    The divergence of the mix p from the slate's mix q is Σ p log(p / ((1 − α) q + α p)), where
    α = .01 smooths. An item shares its weight of 1 between its values, so it changes the terms of
    those alone, and by the same amount as every item that has a value among as many.
    """

    def __init__(self, weight: float, groups: Groups, mix: Mapping[str, float]) -> None:
        self._weight = weight
        self._groups = groups
        number = {label: i for i, label in enumerate(mix)}
        self._column = np.array([*(number.get(label, -1) for label in groups.labels), -1])
        counts, which = np.unique(groups.lengths, return_inverse=True)
        self._share = 1.0 / np.maximum(counts, 1)
        column = self._column[groups.codes]
        self._owner = groups.owner[column >= 0]
        self._term = column[column >= 0] * len(counts) + which[self._owner]
        self._p = np.array(list(mix.values()))
        self._entropy = float(np.einsum("c,c->", self._p, np.log(self._p)))
        self._sum = np.zeros(len(mix))
        self._n = 0
        self._divergence = 0.0
        self._after: FloatArray = np.zeros(0)

    def gained(self) -> FloatArray:
        each = (1.0 - _SMOOTHING) / (self._n + 1)
        smooth = _SMOOTHING * self._p + each * self._sum
        logs = np.log(smooth)
        terms = self._p[:, None] * (np.log(smooth[:, None] + each * self._share) - logs[:, None])
        closer = np.bincount(self._owner, terms.ravel().take(self._term), len(self._groups.lengths))
        self._after = np.asarray(self._entropy - float(np.einsum("c,c->", self._p, logs)) - closer)
        # Of no items there is no mix, so that all gains sum to −weight · the slate's divergence.
        return np.asarray(self._weight * (self._divergence - self._after))

    def place(self, item: int) -> None:
        codes = self._groups.of(item)
        for code in codes:
            if self._column[code] >= 0:
                self._sum[self._column[code]] += 1.0 / len(codes)
        self._n += 1
        self._divergence = float(self._after[item])


def _calibration(calibration: Calibration | None, pool: Pool) -> _Nothing | _Mix:
    if calibration is None or not pool.mix:
        return _Nothing()
    return _Mix(calibration.weight, pool.groups[calibration.column], pool.mix)
