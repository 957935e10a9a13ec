"""Whether limits can leave a slate short, and which items complete it where they could.

One limit on single values cannot: whatever stands in the slate, it can be continued until all
values are full. Where limits overlap, a slate may run into a corner: with one item a franchise and
one a category, placing the item that shares both with others keeps all of those out. There a
completion, items that fill the slate, is held from the start, and only what leaves one is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.catalogue import Mask
from recsys.groups import Groups
from recsys.plan import Limit

FloatArray = npt.NDArray[np.float64]

# Of the search for the widest completion: beyond it the widest that was found is taken.
_MOST_NODES = 1000


def _items(groups: Mapping[str, Groups]) -> int:
    return max((len(each.lengths) for each in groups.values()), default=0)


def _columns(limit: Limit, groups: Groups) -> Mask:
    """(m, labels + 1), which items count against which values; the last are unknown ones."""
    unknown = np.zeros((len(groups.lengths), 1), np.bool_)
    if limit.unknown == "together":
        unknown[groups.members(-1)] = True
    return np.concatenate([groups.membership(), unknown], axis=1)


def _matrix(limits: Sequence[Limit], groups: Mapping[str, Groups]) -> Any:
    """(values, m) of all limits, sparse."""
    from scipy.sparse import csr_array  # noqa: PLC0415  # as above

    columns = [_columns(limit, groups[limit.column]) for limit in limits]
    return csr_array(np.concatenate(columns, axis=1).T.astype(np.float64))


def _caps(limits: Sequence[Limit], groups: Mapping[str, Groups]) -> FloatArray:
    widths = [len(groups[limit.column].labels) + 1 for limit in limits]
    return np.repeat([float(limit.at_most) for limit in limits], widths)


def overlapping(limits: Sequence[Limit], groups: Mapping[str, Groups]) -> bool:
    """Whether an item can count against several values."""
    return len(limits) > 1 or any(
        bool((groups[limit.column].lengths > 1).any()) for limit in limits
    )


def surely_filled(limits: Sequence[Limit], groups: Mapping[str, Groups], m: int, k: int) -> bool:
    """Whether k of m items can be placed whichever are placed first.

    Exact where limits do not overlap. Else by a bound: before position k no more than
    (k − 1) · values an item / limit values can be full, at worst those that most items have.
    """
    if not limits or m < k:
        return m >= k
    blocked = 0
    for limit in limits:
        each = groups[limit.column]
        codes = each.codes if limit.unknown == "together" else each.codes[each.codes >= 0]
        sizes = np.sort(np.bincount(codes + 1))[::-1]
        if not overlapping(limits, groups):
            free = m - int(sizes.sum())
            return int(np.minimum(sizes, limit.at_most).sum()) + free >= k
        full = (k - 1) * int(each.lengths.max(initial=1)) // limit.at_most
        blocked += int(sizes[:full].sum())
    return m - blocked - (k - 1) >= 1


def prices(
    limits: Sequence[Limit], groups: Mapping[str, Groups], k: int
) -> list[FloatArray] | None:
    """What a place within each limit's values is worth, or None if the items can fill k.

    (labels + 1,) for each limit, the last for unknown values. Items whose values together are worth
    1 or more bring nothing that the items here have not: where a catalogue has no others, no slate
    of it is longer. Where limits do not overlap, a value is worth 1 once enough items have it. Else
    these are the duals of the longest slate's linear programme, as in column generation.
    """
    if not overlapping(limits, groups) or not _items(groups):
        return [_reached(limit, groups[limit.column]) for limit in limits]
    from scipy.optimize import linprog  # noqa: PLC0415  # rarely needed, and slow to import

    matrix = _matrix(limits, groups)
    solved = linprog(
        -np.ones(matrix.shape[1]), A_ub=matrix, b_ub=_caps(limits, groups), bounds=(0, 1)
    )
    if -solved.fun >= k - 1e-6:
        return None
    found, start = [], 0
    for limit in limits:
        width = len(groups[limit.column].labels) + 1
        found.append(-np.asarray(solved.ineqlin.marginals)[start : start + width])
        start += width
    return found


def _reached(limit: Limit, groups: Groups) -> FloatArray:
    codes = np.where(groups.codes >= 0, groups.codes, len(groups.labels))
    found = np.bincount(codes, minlength=len(groups.labels) + 1) >= limit.at_most
    found[-1] &= limit.unknown == "together"
    return found.astype(np.float64)


def completion(
    limits: Sequence[Limit],
    groups: Mapping[str, Groups],
    utility: FloatArray,
    k: int,
    fixed: Sequence[int],
) -> tuple[int, ...]:
    """As many items as k positions and all limits allow, ``fixed`` among them, in order of index.

    Those of the greatest utility that still fit, one after the other, if they are k; else as many
    as there can be, by an integer programme.
    """
    found = _one_after_the_other(limits, groups, utility, k, fixed)
    return found if len(found) == k else _most(limits, groups, utility, k, fixed)


def _one_after_the_other(
    limits: Sequence[Limit],
    groups: Mapping[str, Groups],
    utility: FloatArray,
    k: int,
    fixed: Sequence[int],
) -> tuple[int, ...]:
    member = np.concatenate([_columns(limit, groups[limit.column]) for limit in limits], axis=1)
    caps = _caps(limits, groups)
    counts = member[np.array(fixed, np.intp)].sum(axis=0)
    open_ = ~(member & (counts >= caps)).any(axis=1)
    open_[list(fixed)] = False
    found = list(fixed)
    while len(found) < k and open_.any():
        item = int(np.where(open_, utility, -np.inf).argmax())
        found.append(item)
        open_[item] = False
        counts = counts + member[item]
        full = member[item] & (counts >= caps)
        open_ &= ~member[:, full].any(axis=1)
    return tuple(sorted(found))


def _most(
    limits: Sequence[Limit],
    groups: Mapping[str, Groups],
    utility: FloatArray,
    k: int,
    fixed: Sequence[int],
) -> tuple[int, ...]:
    """As many as there can be; of as many, those of the greatest total utility."""
    from scipy.optimize import Bounds, LinearConstraint, milp  # noqa: PLC0415  # rarely needed
    from scipy.sparse import vstack  # noqa: PLC0415  # as above

    m = len(utility)
    if m == 0:
        return ()
    span = max(float(np.ptp(utility)), 1e-12)
    worth = 1.0 + (utility - utility.min()) / (2.0 * k * span)
    lower = np.zeros(m)
    lower[list(fixed)] = 1.0
    solved = milp(
        -worth,
        integrality=np.ones(m),
        bounds=Bounds(lower, np.ones(m)),
        constraints=LinearConstraint(
            vstack([_matrix(limits, groups), np.ones((1, m))]),
            ub=np.append(_caps(limits, groups), k),
        ),
        options={"node_limit": _MOST_NODES},
    )
    if solved.x is None:
        return tuple(sorted(fixed))
    return tuple(np.flatnonzero(solved.x > 0.5).tolist())


class Packing:
    """The limits' counts over what is placed and what completes it."""

    def __init__(self, limits: Sequence[Limit], groups: Mapping[str, Groups], m: int) -> None:
        columns = [_columns(limit, groups[limit.column]).T for limit in limits]
        # A row for each value, since those that are full are looked at again and again.
        self._members = np.concatenate([np.zeros((0, m), np.bool_), *columns]).astype(np.float32)
        self._caps = _caps(limits, groups)
        self._counts = np.zeros(len(self._caps))

    def hold(self, items: Sequence[int]) -> None:
        """Count items that are, or will be, in the slate."""
        self._counts += self._members[:, np.array(items, np.intp)].sum(axis=1)

    def completable(self, rest: Sequence[int]) -> Mask:
        """(m,), what can be placed so that all but at most one of ``rest`` still complete it.

        An item takes the place of one of the rest; that frees every value that is full but needed.
        """
        found = (self._needs(rest) == 0).any(axis=0)
        found[list(rest)] = True
        return np.asarray(found)

    def _needs(self, rest: Sequence[int]) -> npt.NDArray[np.float32]:
        """(rest, m), how many full values an item needs that one of the rest would not free."""
        full = np.flatnonzero(self._counts >= self._caps)
        need = self._members[full]
        kept = 1.0 - need[:, np.array(rest, np.intp)]
        return np.asarray(kept.T @ need, np.float32)

    def place(self, item: int, rest: list[int], utility: FloatArray) -> list[int]:
        """The rest that completes the slate once the item is placed."""
        if item in rest:
            return [i for i in rest if i != item]
        free = np.flatnonzero(self._needs(rest)[:, item] == 0).tolist()
        if not free:
            return rest
        gone = min(free, key=lambda at: (utility[rest[at]], at))
        self._counts += self._members[:, item] - self._members[:, rest[gone]]
        return [i for at, i in enumerate(rest) if at != gone]
