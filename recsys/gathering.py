"""Gathers candidates and judges them by the hard rules, until a slate can be filled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce

import numpy as np
import numpy.typing as npt

from recsys.call import Call, SlateKind
from recsys.candidates import Candidates, CandidateSource
from recsys.catalogue import Catalogue, Column, Mask, Rows
from recsys.errors import RecsysError
from recsys.groups import Groups, flattened, group
from recsys.packing import prices, surely_filled
from recsys.plan import RELATED, SlatePlan
from recsys.rules import Matches, Verdicts, column_of, passes
from recsys.timing import Watch

FloatArray = npt.NDArray[np.float64]

CHOICE = 10
"""Below so many allowed candidates a position, or half of all, the source is asked again: order and
diversity need something to choose from."""


@dataclass(frozen=True, eq=False)
class Gathered:
    """n candidates and what the hard rules say of each.

    Parameters
    ----------
    verdicts
        (n,) of each hard rule.
    allowed
        (n,), whether all of them let an item through.
    withheld
        See `recsys.slate.SlateTrace`.
    groups
        Of those that are allowed, by the columns that limits name.
    """

    candidates: Candidates
    verdicts: tuple[Verdicts, ...]
    allowed: Mask
    withheld: Mapping[str, int] = field(default_factory=dict)
    groups: Mapping[str, Groups] = field(default_factory=dict)

    def rows(self) -> Rows:
        """Of the allowed ones."""
        return self.candidates.rows[self.allowed]


def gather(
    call: Call, plan: SlatePlan, catalogue: Catalogue, source: CandidateSource, watch: Watch
) -> Gathered:
    """Candidates of which k are allowed whatever is placed first, or all that are allowed.

    Most calls ask the source once and judge what it gives. Where too little of that is allowed,
    rules are asked about the whole catalogue and the source about what they allow; and where
    limits would still leave the slate short, about what they leave room for.

    Raises
    ------
    RecsysError
        If a rule or the source gives something else than it promises.
    """
    gathering = _Gathering(call, plan, catalogue, source, watch)
    if lacks_seeds(call, plan, catalogue):
        return gathering.found
    pinned = catalogue.rows(pin.item_id for pin in plan.pins if pin.item_id)
    beside = [_of_rows(np.unique(pinned[pinned >= 0]), "pinned")] if len(pinned) else []
    if catalogue.size <= plan.candidates:
        # Every item of a small catalogue is judged, so that every removal has its name.
        beside.append(_of_rows(np.flatnonzero(~gathering.mask), "catalogue"))
        gathering.ask(gathering.mask, *beside)
    else:
        # What nobody asked for needs no rule to keep it out; what was, and breaks one, is named.
        gathering.ask(asked_for(call, catalogue), *beside)
        some = max(call.k, min(plan.candidates // 2, CHOICE * call.k))
        if np.count_nonzero(gathering.found.allowed) < some:
            gathering.ask(gathering.mask)
    while (room := gathering.room()) is not None and gathering.ask(room):
        pass
    for column in dict.fromkeys(pin.column for pin in plan.pins if pin.column):
        gathering.add_true(column)
    return gathering.found


def lacks_seeds(call: Call, plan: SlatePlan, catalogue: Catalogue) -> bool:
    """Whether a slate relates to seeds and the catalogue has none of them."""
    if plan.kind in RELATED or (plan.kind == "because_you" and call.seeds):
        return not (catalogue.rows(call.seeds) >= 0).any()
    return False


def asked_for(call: Call, catalogue: Catalogue) -> Mask | None:
    """(size,), what the call's filters leave; None if it has none."""
    if not call.filters:
        return None
    rule = Matches()
    return passes(rule, rule.verdicts(catalogue, np.arange(catalogue.size), call))


class _Gathering:
    """What was found so far."""

    def __init__(
        self,
        call: Call,
        plan: SlatePlan,
        catalogue: Catalogue,
        source: CandidateSource,
        watch: Watch,
    ) -> None:
        self._watch = watch
        self._call, self._plan, self._catalogue = call, plan, catalogue
        self._source = source if plan.items is None else _Editors(plan.items)
        self._hard = plan.hard
        nothing = _of_rows(np.zeros(0, np.intp), "none")
        none = np.zeros(0, np.bool_)
        self.found = Gathered(nothing, tuple(none.astype(np.int8) for _ in self._hard), none)
        self._present = np.zeros(catalogue.size, np.bool_)

    @cached_property
    def mask(self) -> Mask:
        """(size,), what the hard rules let through of the whole catalogue."""
        rows = np.arange(self._catalogue.size)
        let = [
            passes(rule, found) for rule, found in zip(self._hard, self._judge(rows), strict=True)
        ]
        counts = {
            rule.id: int(np.count_nonzero(~each))
            for rule, each in zip(self._hard, let, strict=True)
        }
        self.found = replace(self.found, withheld=counts)
        return np.asarray(np.logical_and.reduce(let))

    def ask(self, allowed: Mask | None, *beside: Candidates) -> bool:
        """Ask the source for what is not here yet, add what stands beside; whether any is new."""
        plan = self._plan
        told = list(beside)
        if allowed is not None:
            allowed = allowed & ~self._present
        if allowed is None or allowed.any():
            self._watch.stage("candidates")
            proposed = self._source.candidates(
                self._call, self._catalogue, plan.kind, allowed, plan.candidates
            )
            self._watch.stage("rules")
            if len(proposed.rows) and proposed.rows.max() >= self._catalogue.size:
                raise RecsysError(
                    f"slates.{plan.id}: the source proposes row {proposed.rows.max()} of a "
                    f"catalogue of {self._catalogue.size} items. It was made for another."
                )
            told.insert(0, proposed)
        fresh = [self._fresh(each) for each in told]
        new = [each for each in fresh if len(each.rows)]
        if new:
            self._add(reduce(_after, new))
        return bool(new)

    def _fresh(self, told: Candidates) -> Candidates:
        """What is not here yet, which is then."""
        new = ~self._present[told.rows]
        self._present[told.rows] = True
        return told if new.all() else taken(told, np.flatnonzero(new))

    def _add(self, new: Candidates) -> None:
        verdicts = self._judge(new.rows)
        let = [passes(rule, found) for rule, found in zip(self._hard, verdicts, strict=True)]
        found = self.found
        self.found = Gathered(
            _after(found.candidates, new) if len(found.allowed) else new,
            tuple(np.concatenate(pair) for pair in zip(found.verdicts, verdicts, strict=True)),
            np.concatenate([found.allowed, np.logical_and.reduce(let)]),
            found.withheld,
        )

    def room(self) -> Mask | None:
        """(size,), what would let the slate be longer; None if it cannot be short.

        Of what the hard rules let through, what has no place among values that are full anyway.
        """
        limits, k = self._plan.composing.limits, self._call.k
        rows = self.found.rows()
        groups = {
            limit.column: group(column_of(self._catalogue, limit.column), rows, limit.column)
            for limit in limits
        }
        self.found = replace(self.found, groups=groups)
        if surely_filled(limits, groups, len(rows), k):
            return None
        worth = prices(limits, groups, k)
        if worth is None:
            return None
        taken = np.zeros(self._catalogue.size)
        for limit, each in zip(limits, worth, strict=True):
            labelled = dict(zip(groups[limit.column].labels, each.tolist(), strict=False))
            column = column_of(self._catalogue, limit.column)
            taken += _worth(column, labelled, float(each[-1]))
        return self.mask & (taken < 1.0 - 1e-6)

    def add_true(self, name: str) -> None:
        """See that an allowed item is here of which a boolean is true, if there is one."""
        column = column_of(self._catalogue, name)
        true = column.values & column.known
        if not true[self.found.rows()].any():
            self.ask(self.mask & true)

    def _judge(self, rows: Rows) -> tuple[Verdicts, ...]:
        found = []
        for rule in self._hard:
            verdicts = rule.verdicts(self._catalogue, rows, self._call)
            if verdicts.shape != rows.shape:
                raise RecsysError(
                    f"slates.{self._plan.id}.rules.{rule.id} gives verdicts of shape "
                    f"{verdicts.shape} for {len(rows)} items. It must give one each."
                )
            found.append(verdicts)
        return tuple(found)


class _Editors:
    """The items that a plan lists, in its order."""

    def __init__(self, items: Sequence[str]) -> None:
        self._items = items

    def candidates(
        self,
        call: Call,  # noqa: ARG002  # as all sources
        catalogue: Catalogue,
        kind: SlateKind,  # noqa: ARG002  # as all sources
        allowed: Mask | None,
        count: int,
    ) -> Candidates:
        """See `CandidateSource.candidates`."""
        rows = catalogue.rows(dict.fromkeys(self._items))
        rows = rows[rows >= 0]
        if allowed is not None:
            rows = rows[allowed[rows]]
        rows = rows[:count]
        return replace(_of_rows(rows, "editors"), scores=-np.arange(len(rows), dtype=np.float64))


def _of_rows(rows: Rows, source: str) -> Candidates:
    """Candidates that no source proposed."""
    m = len(rows)
    return Candidates(rows, np.zeros(m), np.zeros(m, np.int8), np.full(m, -1, np.intp), (source,))


def taken(candidates: Candidates, index: Rows) -> Candidates:
    return replace(
        candidates,
        rows=candidates.rows[index],
        scores=candidates.scores[index],
        source=candidates.source[index],
        because=candidates.because[index],
    )


def _after(first: Candidates, then: Candidates) -> Candidates:
    """Both, the later ones below: scores of two askings are not comparable, their order is."""
    scores = then.scores
    if len(first.scores):
        scores = scores - max(0.0, float(scores.max() - first.scores.min()))
    sources = tuple(dict.fromkeys((*first.sources, *then.sources)))
    number = np.array([sources.index(name) for name in then.sources], np.int8)
    return Candidates(
        np.concatenate([first.rows, then.rows]),
        np.concatenate([first.scores, scores]),
        np.concatenate([first.source, number[then.source]]),
        np.concatenate([first.because, then.because]),
        sources,
    )


def _worth(column: Column, labelled: Mapping[str, float], unknown: float) -> FloatArray:
    """(size,), the sum of what the values of each item are worth."""
    words = ("false", "true") if column.kind == "boolean" else column.categories
    worth = np.array([*(labelled.get(word, 0.0) for word in words), unknown])
    if column.kind == "strings":
        codes, lengths = flattened(column, np.arange(len(column.known)))
        owner = np.repeat(np.arange(len(lengths)), lengths)
        return np.asarray(np.bincount(owner, worth[codes], minlength=len(lengths)), np.float64)
    return worth[np.where(column.known, column.values.astype(np.int32), -1)]
