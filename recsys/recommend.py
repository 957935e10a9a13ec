"""From a call to a slate: candidates, hard rules, scores, composition, each kept in the trace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from recsys.call import Call
from recsys.candidates import Candidates, CandidateSource
from recsys.catalogue import Catalogue
from recsys.composition import (
    ByGroups,
    ByVectors,
    Drawn,
    Likeness,
    NoLikeness,
    Pool,
    best,
    completed,
    compose,
)
from recsys.errors import RecsysError
from recsys.features import encode
from recsys.gathering import Gathered, gather, lacks_seeds, taken
from recsys.groups import group
from recsys.plan import Composing, SlatePlan
from recsys.replay import placements
from recsys.rules import TRUE, UNKNOWN, column_of, passes
from recsys.scoring import Scorer
from recsys.slate import PinnedAt, Removal, Slate, SlateTrace, pack_bits
from recsys.timing import Timer, Watch

FloatArray = npt.NDArray[np.float64]

_LEAST_SHARE = 1e-12


@dataclass(frozen=True)
class Recommendation:
    """A slate, how it came about, and the seconds of each stage where a timer was given.

    Stages are ``candidates``, ``rules``, ``scoring``, ``composition`` and ``trace``.
    """

    slate: Slate
    trace: SlateTrace
    timings: Mapping[str, float]


def recommend(
    call: Call,
    plan: SlatePlan,
    catalogue: Catalogue,
    source: CandidateSource,
    scorer: Scorer | None = None,
    *,
    versions: Mapping[str, str] | None = None,
    timer: Timer | None = None,
) -> Recommendation:
    """Fill a slate: ``call.k`` items, fewer only where fewer are allowed.

    The same arguments give the same answer, whoever asks, in any process.

    Parameters
    ----------
    source
        What proposes candidates: a model, or an external recommender.
    scorer
        What predicts the plan's objective; None takes the source's own scores.
    versions
        What the trace shall say of the catalogue, model and scorer.
    timer
        Gives seconds; None: nothing is timed.

    Raises
    ------
    RecsysError
        If the call is for another slate, the catalogue lacks what the plan reads, a filter asks for
        what an attribute cannot have, or a rule, source or scorer gives something else than it
        promises.
    """
    watch = Watch(timer)
    if call.slate != plan.id:
        raise RecsysError(f"call.slate is {call.slate!r}, but the plan is of {plan.id!r}.")
    plan.check(catalogue)
    watch.stage("rules")
    gathered = gather(call, plan, catalogue, source, watch)
    watch.stage("scoring")
    scored = taken(gathered.candidates, np.flatnonzero(gathered.allowed))
    features = () if scorer is None else tuple(scorer.features)
    x = encode(features, call, catalogue, scored)
    scores = scored.scores if scorer is None else scorer.predict(x)
    watch.stage("composition")
    pool = _pool(call, plan, catalogue, gathered, scored, scores)
    likeness = _likeness(plan.composing, catalogue, scored, pool)
    exploration = plan.composing.exploration
    choose = Drawn(exploration, call.uniforms) if call.uniforms else best
    placed, rows = compose(pool, plan.composing, call.k, likeness, choose)
    watch.stage("trace")
    trace = _trace(call, plan, catalogue, gathered, pool, versions or {})
    trace = msgspec.structs.replace(
        trace,
        features=tuple(feature.name for feature in features),
        values=x[[each.item for each in placed]].astype("<f4").tobytes(),
        placed=placements(placed, pool, trace.scored()),
        likeness=np.concatenate(rows).tobytes()
        if isinstance(likeness, ByVectors) and rows
        else b"",
        shortfall=_shortfall(call, plan, catalogue, gathered, len(placed)),
    )
    slate = trace.answer()
    watch.stage("")
    return Recommendation(slate, trace, watch.seconds)


def _pool(
    call: Call,
    plan: SlatePlan,
    catalogue: Catalogue,
    gathered: Gathered,
    scored: Candidates,
    scores: FloatArray,
) -> Pool:
    composing = plan.composing
    groups = dict(gathered.groups)
    for name in composing.grouped:
        if name not in groups:
            groups[name] = group(column_of(catalogue, name), scored.rows, name)
    pool = Pool(
        scores=_single(scores, len(scored.rows), f"slates.{plan.id}: the scorer"),
        amounts=_amounts(call, plan, catalogue, scored),
        groups=groups,
        mix=_mix(call, composing, catalogue),
        pins=_pins(plan, catalogue, scored),
    )
    return completed(pool, composing.limits, call.k)


def _single(values: FloatArray, m: int, who: str) -> FloatArray:
    """As numbers of the precision that traces keep, so that a replay reads what was read here."""
    if values.shape != (m,) or not np.isfinite(values).all():
        raise RecsysError(f"{who} must give {m} finite numbers; it gave shape {values.shape}.")
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    if not np.isfinite(single).all():
        raise RecsysError(f"{who} gives {np.abs(values).max():g}. Give numbers below 3e38.")
    return single.astype(np.float64)


def _amounts(
    call: Call, plan: SlatePlan, catalogue: Catalogue, scored: Candidates
) -> dict[str, FloatArray]:
    found = {}
    for rule in plan.soft:
        true = rule.verdicts(catalogue, scored.rows, call) == TRUE
        found[rule.id] = np.where(true, rule.amount if rule.kind == "boost" else -rule.amount, 0.0)
    for grade in plan.grades:
        found[grade.id] = grade.amounts(catalogue, scored.rows, call)
    return {
        rule: _single(amounts, len(scored.rows), f"slates.{plan.id}.rules.{rule}")
        for rule, amounts in found.items()
    }


def _mix(call: Call, composing: Composing, catalogue: Catalogue) -> dict[str, float]:
    """The share of each value in what the user did, by weight; empty without consent."""
    calibration = composing.calibration
    if calibration is None or not call.personal:
        return {}
    done = [i for i in call.history if i.kind not in calibration.ignore and i.value > 0]
    rows = catalogue.rows(i.item_id for i in done)
    there = np.flatnonzero(rows >= 0)
    if len(there) == 0:
        return {}
    groups = group(column_of(catalogue, calibration.column), rows[there], calibration.column)
    weights = np.array([done[at].value for at in there.tolist()])
    # Of the greatest, so that no sum overflows, whatever unit values are in.
    weights /= weights.max()
    known = groups.codes >= 0
    owner = groups.owner[known]
    each = weights[owner] / groups.lengths[owner]
    sums = np.bincount(groups.codes[known], each, minlength=len(groups.labels))
    if len(sums) == 0:
        return {}
    shares = zip(groups.labels, (sums / sums.sum()).tolist(), strict=True)
    # Of a share of nearly nothing there is no logarithm, and no slate that tells of it.
    return {label: share for label, share in shares if share > _LEAST_SHARE}


def _pins(plan: SlatePlan, catalogue: Catalogue, scored: Candidates) -> tuple[PinnedAt, ...]:
    found = []
    for pin in sorted(plan.pins, key=lambda pin: pin.position):
        if pin.item_id:
            index = np.flatnonzero(scored.rows == catalogue.rows([pin.item_id])[0])
        else:
            column = column_of(catalogue, pin.column)
            index = np.flatnonzero((column.values & column.known)[scored.rows])
        if len(index):
            at = tuple(index.tolist())
            found.append(PinnedAt(pin.position, at, bool(pin.item_id), pin.sponsored))
    return tuple(found)


def _likeness(
    composing: Composing, catalogue: Catalogue, scored: Candidates, pool: Pool
) -> Likeness:
    diversity = composing.diversity
    if diversity is None:
        return NoLikeness()
    if diversity.column is not None:
        return ByGroups(pool.groups[diversity.column])
    if catalogue.vectors is None:
        raise RecsysError("diversity goes by embeddings, and items have none.")
    return ByVectors(catalogue.vectors[scored.rows])


def _trace(
    call: Call,
    plan: SlatePlan,
    catalogue: Catalogue,
    gathered: Gathered,
    pool: Pool,
    versions: Mapping[str, str],
) -> SlateTrace:
    """All but what composition gave."""
    candidates, ids = gathered.candidates, catalogue.ids
    seeds, because = np.unique(candidates.because, return_inverse=True)
    removed = []
    for rule, verdicts in zip(plan.hard, gathered.verdicts, strict=True):
        out = ~passes(rule, verdicts)
        if out.any():
            unknown = pack_bits(verdicts == UNKNOWN)
            removed.append(Removal(rule.id, rule.reason, pack_bits(out), unknown))
    named = [*call.seeds, *(pin.item_id for pin in plan.pins if pin.item_id)]
    absent = catalogue.rows(named) < 0
    offset = int(len(seeds) > 0 and seeds[0] < 0)
    return SlateTrace(
        trace_id=call.trace_id,
        slate=plan.id,
        kind=plan.kind,
        surface=call.surface,
        objective=plan.objective,
        k=call.k,
        versions=dict(versions),
        composing=plan.composing,
        uniforms=call.uniforms,
        items=tuple([ids[row] for row in candidates.rows.tolist()]),
        sources=candidates.sources,
        source=candidates.source.tobytes(),
        seeds=tuple(ids[row] for row in seeds.tolist() if row >= 0),
        because=(because - offset).astype("<i2").tobytes(),
        absent=tuple(np.array(named, object)[absent].tolist()),
        removed=tuple(removed),
        withheld=dict(gathered.withheld),
        scores=pool.scores.astype("<f4").tobytes(),
        amounts={rule: each.astype("<f4").tobytes() for rule, each in pool.amounts.items()},
        groups={name: each.packed() for name, each in pool.groups.items()},
        mix=dict(pool.mix),
        pins=pool.pins,
        completion=pool.completion,
        likeness=b"",
        features=(),
        values=b"",
        placed=(),
        shortfall="",
    )


def _shortfall(
    call: Call, plan: SlatePlan, catalogue: Catalogue, gathered: Gathered, placed: int
) -> str:
    """Why fewer items than asked for are answered; empty if as many are."""
    if placed == call.k:
        return ""
    short = f"{placed} of {call.k} items: "
    if catalogue.size == 0:
        return short + "the catalogue is empty"
    if lacks_seeds(call, plan, catalogue):
        told = ", ".join(call.seeds) or "none"
        return short + f"{plan.kind} relates to seeds, and the catalogue has none of: {told}"
    allowed = int(gathered.allowed.sum())
    if allowed > placed:
        limits = ", ".join(limit.id for limit in plan.composing.limits)
        return short + f"limits leave room for no more of {allowed} ({limits})"
    counts = sorted(gathered.withheld.items(), key=lambda each: (-each[1], each[0]))
    kept = ", ".join(f"{rule} {n}" for rule, n in counts if n)
    return short + f"of {catalogue.size} in the catalogue rules keep out: {kept or 'none'}"
