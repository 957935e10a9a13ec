"""What a trace tells of its slate: the slate again, and how probable it is under another plan."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

import msgspec
import numpy as np
import numpy.typing as npt

from recsys.composition import (
    ByGroups,
    Drawn,
    Following,
    Likeness,
    Logged,
    NoLikeness,
    Placed,
    Pool,
    best,
    completed,
    compose,
    pmf,
)
from recsys.errors import RecsysError
from recsys.plan import Composing, Exploration
from recsys.slate import Placement, SlateTrace

FloatArray = npt.NDArray[np.float64]

MOST_SLATES = 10_000


def recompose(trace: SlateTrace) -> SlateTrace:
    """The trace with its slate composed again from the candidates and scores that it keeps.

    Equal to ``trace``, byte for byte, unless it was altered or composition has changed.
    """
    pool = pool_of(trace)
    exploration = trace.composing.exploration
    choose = Drawn(exploration, trace.uniforms) if trace.uniforms else best
    likeness = likeness_of(trace, trace.composing, pool)
    placed, _ = compose(pool, trace.composing, trace.k, likeness, choose)
    return msgspec.structs.replace(trace, placed=placements(placed, pool, trace.scored()))


def pool_of(trace: SlateTrace) -> Pool:
    """What a trace's slate was composed from."""
    return Pool(
        scores=trace.array(trace.scores),
        amounts={rule: trace.array(amounts) for rule, amounts in trace.amounts.items()},
        groups=trace.grouped(),
        mix=trace.mix,
        pins=trace.pins,
        completion=trace.completion,
    )


def likeness_of(trace: SlateTrace, composing: Composing, pool: Pool) -> Likeness:
    """Likeness as a plan reads it, to the items that a trace's slate placed.

    Raises
    ------
    RecsysError
        If the trace does not keep what the plan reads.
    """
    diversity = composing.diversity
    if diversity is None:
        return NoLikeness()
    if diversity.column is not None:
        return ByGroups(pool.groups[diversity.column])
    if trace.placed and not trace.likeness:
        raise RecsysError(
            f"diversity reads embeddings, whose likeness the trace {trace.trace_id!r} does not "
            "keep: the logging plan did not read them."
        )
    return Logged(np.frombuffer(trace.likeness, np.uint8).reshape(-1, len(pool.scores)))


def placements(placed: Sequence[Placed], pool: Pool, ids: Sequence[str]) -> tuple[Placement, ...]:
    """As a trace keeps them."""
    return tuple(
        Placement(
            item=each.item,
            item_id=ids[each.item],
            position=position,
            utility=float(pool.utility[each.item]),
            amounts={
                rule: amount
                for rule, amounts in pool.amounts.items()
                if (amount := float(amounts[each.item])) != 0.0
            },
            diversity=each.diversity,
            calibration=each.calibration,
            propensity=each.propensity,
            placed=each.placed,
        )
        for position, each in zip(count(1), placed, strict=False)
    )


def propensities(
    trace: SlateTrace, composing: Composing | None = None, scores: FloatArray | None = None
) -> FloatArray:
    """How probable each placed item is at its position, given those before it, under another plan.

    Parameters
    ----------
    composing
        Of the other plan; None: the trace's own.
    scores
        (m,), another scorer's, in the order of ``trace.scored()``; None: the trace's own.

    Returns
    -------
    (placed,), 0 from the first item that the other plan would not have placed.

    Raises
    ------
    RecsysError
        If the other plan reads what the trace does not keep.
    """
    pool, composing = _other(trace, composing, scores)
    follow = Following([each.item for each in trace.placed], composing.exploration)
    likeness = likeness_of(trace, composing, pool)
    placed, _ = compose(pool, composing, trace.k, likeness, follow)
    found = np.zeros(len(trace.placed))
    for position, (ours, theirs) in enumerate(zip(placed, trace.placed, strict=False)):
        if ours.item != theirs.item or ours.propensity == 0.0:
            break
        found[position] = ours.propensity
    return found


def every_slate(
    trace: SlateTrace,
    composing: Composing | None = None,
    scores: FloatArray | None = None,
    *,
    most: int = MOST_SLATES,
) -> dict[tuple[int, ...], tuple[float, ...]]:
    """Every slate that could have been drawn, as items by index, with the probability of each
    position given those before it.

    Parameters are those of `propensities`.

    Raises
    ------
    RecsysError
        If there could be more than ``most``, or likeness goes by embeddings: a trace keeps that of
        the items that were placed.
    """
    pool, composing = _other(trace, composing, scores)
    m, k = len(pool.scores), trace.k
    if math.perm(m, min(k, m)) > most:
        raise RecsysError(
            f"slates of {k} of {m} items are {math.perm(m, min(k, m)):,}, more than {most:,}. "
            "Evaluate by the probabilities given the items before ('rips', 'cascade_dr')."
        )
    likeness = likeness_of(trace, composing, pool)
    if isinstance(likeness, Logged):
        raise RecsysError(
            "likeness goes by embeddings, and the trace keeps that of the placed items alone. "
            "Evaluate by the probabilities given the items before ('rips', 'cascade_dr')."
        )

    def after(prefix: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], tuple[float, ...]]]:
        """The rest of each slate that begins so, with its probabilities."""
        ahead = _Ahead(prefix, composing.exploration)
        placed, _ = compose(pool, composing, k, likeness, ahead)
        if len(placed) == len(prefix):
            yield (), ()
            return
        # Nothing is chosen where a pin stands.
        chances = ahead.found or {placed[len(prefix)].item: 1.0}
        for item, chance in chances.items():
            for rest, conditionals in after((*prefix, item)):
                yield (item, *rest), (chance, *conditionals)

    return dict(after(()))


def marginals(
    trace: SlateTrace,
    composing: Composing | None = None,
    scores: FloatArray | None = None,
    *,
    most: int = MOST_SLATES,
) -> FloatArray:
    """How probable each placed item is at its position, whatever stands before it.

    Parameters and errors are those of `every_slate`, over which it sums.

    Returns
    -------
    (placed,).
    """
    found = np.zeros(len(trace.placed))
    for slate, conditionals in every_slate(trace, composing, scores, most=most).items():
        chance = math.prod(conditionals)
        for position, (ours, theirs) in enumerate(zip(slate, trace.placed, strict=False)):
            found[position] += chance * (ours == theirs.item)
    return found


@dataclass
class _Ahead:
    """Follows a prefix, keeps the probabilities at the position after it, and goes on anyhow."""

    prefix: Sequence[int]
    exploration: Exploration
    found: Mapping[int, float] = field(default_factory=dict)

    def __call__(self, gains: FloatArray, position: int) -> tuple[int, float]:
        """See `recsys.composition.Choose`."""
        if position < len(self.prefix):
            return self.prefix[position], 1.0
        if position == len(self.prefix):
            chances = pmf(gains, self.exploration)
            self.found = {i: float(chances[i]) for i in np.flatnonzero(chances).tolist()}
        return best(gains, position)


def _other(
    trace: SlateTrace, composing: Composing | None, scores: FloatArray | None
) -> tuple[Pool, Composing]:
    """What another plan and scorer would have composed from."""
    pool, own = pool_of(trace), trace.composing
    composing = composing or own
    if scores is not None:
        scores = np.asarray(scores, np.float64)
        if scores.shape != pool.scores.shape or not np.isfinite(scores).all():
            raise RecsysError(
                f"scores have shape {scores.shape}. Give {len(pool.scores)} finite numbers, in the "
                "order of trace.scored()."
            )
        pool = replace(pool, scores=scores)
    absent = [name for name in composing.grouped if name not in pool.groups]
    if absent:
        raise RecsysError(
            f"the other plan reads {absent[0]}, which the trace {trace.trace_id!r} does not keep. "
            "Name columns that the logging plan reads."
        )
    if composing.limits != own.limits:
        pool = completed(pool, composing.limits, trace.k)
    return pool, composing
