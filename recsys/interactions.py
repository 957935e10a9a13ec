"""What users did with items: the table that models are trained on and judged by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.catalogue import Mask, Rows, Times
from recsys.errors import RecsysError

Codes = npt.NDArray[np.int32]
Ids = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Interactions:
    """m interactions in order of time, then user, then item; start at `Interactions.of`.

    Parameters
    ----------
    user_ids, item_ids, kinds, segments
        What the codes stand for, each distinct and in ascending order.
    user, item, kind
        (m,), codes.
    at
        (m,), microseconds since 1970, UTC.
    value
        (m,), finite: a rating, a quantity, a share watched.
    segment
        (m,), code of the segment that the user was in, -1 where it is unknown.
    """

    user_ids: tuple[str, ...]
    item_ids: tuple[str, ...]
    kinds: tuple[str, ...]
    segments: tuple[str, ...]
    user: Codes
    item: Codes
    kind: Codes
    at: Times
    value: npt.NDArray[np.float64]
    segment: Codes

    @staticmethod
    def of(
        users: Sequence[str],
        items: Sequence[str],
        at: Sequence[int] | Times,
        *,
        kinds: Sequence[str] | str = "view",
        values: Sequence[float] | npt.NDArray[np.float64] | None = None,
        segments: Sequence[str | None] | None = None,
    ) -> Interactions:
        """A table of columns in any order; one kind may stand for all.

        Raises
        ------
        RecsysError
            If columns differ in length, an id or kind is empty, or a value is not finite; the
            message gives the row, counted from 0.
        """
        n = len(users)
        columns: dict[str, Sequence[Any] | npt.NDArray[Any]] = {
            "users": users,
            "items": items,
            "at": at,
            "kinds": [kinds] * n if isinstance(kinds, str) else kinds,
            "values": np.ones(n) if values is None else values,
            "segments": [None] * n if segments is None else segments,
        }
        for name, column in columns.items():
            if len(column) != n:
                raise RecsysError(
                    f"interactions.{name} has {len(column)} rows, but users has {n}. Give as many."
                )
        user_ids, user = _coded("users", columns["users"])
        item_ids, item = _coded("items", columns["items"])
        known, kind = _coded("kinds", columns["kinds"])
        groups, segment = _coded("segments", columns["segments"], optional=True)
        times = np.asarray(columns["at"], np.int64)
        value = np.asarray(columns["values"], np.float64)
        if n and not np.isfinite(value).all():
            row = int(np.flatnonzero(~np.isfinite(value))[0])
            raise RecsysError(f"interactions.values[{row}] is {value[row]!r}. Give finite numbers.")
        order = np.lexsort((item, user, times))
        return Interactions(
            user_ids,
            item_ids,
            known,
            groups,
            user[order],
            item[order],
            kind[order],
            times[order],
            value[order],
            segment[order],
        )

    def __len__(self) -> int:
        return len(self.at)

    def take(self, rows: Rows | Mask) -> Interactions:
        """Some of the interactions, with the ids that occur in them."""
        user_ids, user = _kept(self.user_ids, self.user[rows])
        item_ids, item = _kept(self.item_ids, self.item[rows])
        kinds, kind = _kept(self.kinds, self.kind[rows])
        segments, segment = _kept(self.segments, self.segment[rows])
        return Interactions(
            user_ids,
            item_ids,
            kinds,
            segments,
            user,
            item,
            kind,
            self.at[rows],
            self.value[rows],
            segment,
        )

    def last_of_pairs(self) -> Interactions:
        """The last interaction of each user with each item."""
        pair = self.user.astype(np.int64) * max(1, len(self.item_ids)) + self.item
        _, first_from_end = np.unique(pair[::-1], return_index=True)
        return self.take(np.sort(len(self) - 1 - first_from_end))

    def counted(self, weights: Mapping[str, float], least_value: float) -> Interactions:
        """Those that speak for an item: of a kind with a weight, and of at least that value."""
        weight = self.weights(weights)
        return self.take((weight > 0.0) & (self.value >= least_value))

    def weights(self, weights: Mapping[str, float]) -> npt.NDArray[np.float64]:
        """(m,), the weight of each interaction's kind; 1 for kinds that are not named."""
        by_kind = np.array([weights.get(kind, 1.0) for kind in self.kinds], np.float64)
        return np.asarray(by_kind[self.kind]) if len(self) else np.zeros(0)


def _coded(name: str, column: Iterable[Any], *, optional: bool = False) -> tuple[Ids, Codes]:
    values = list(column)
    there = {value for value in values if not (optional and value is None)}
    if not all(isinstance(value, str) and value for value in there):
        wrong = there - {value for value in there if isinstance(value, str) and value}
        row = next(i for i, value in enumerate(values) if value in wrong)
        raise RecsysError(
            f"interactions.{name}[{row}] is {values[row]!r}. Give a string that is not empty."
        )
    ids = tuple(sorted(there))
    code = {value: number for number, value in enumerate(ids)}
    return ids, np.array([-1 if value is None else code[value] for value in values], np.int32)


def _kept(ids: Ids, codes: Codes) -> tuple[Ids, Codes]:
    used = np.unique(codes[codes >= 0])
    renumbered = np.full(len(ids) + 1, -1, np.int32)  # the last entry is that of code -1
    renumbered[used] = np.arange(len(used))
    return tuple(ids[code] for code in used), renumbered[codes]
