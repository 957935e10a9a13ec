"""What items of a set have in common: the values of one attribute, several of them an item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import msgspec
import numpy as np
import numpy.typing as npt

from recsys.catalogue import Column, Mask, Rows
from recsys.errors import RecsysError

Codes = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float64]


class PackedGroups(msgspec.Struct, frozen=True):
    """`Groups` as a trace keeps them: little-endian int32 in bytes."""

    labels: tuple[str, ...]
    codes: bytes
    lengths: bytes


@dataclass(frozen=True, eq=False)
class Groups:
    """The values that m items have of one attribute.

    Parameters
    ----------
    labels
        The values, in the order in which the items bring them.
    codes
        Those of all items one after the other, indices into ``labels``; -1 where an item's value
        is unknown.
    lengths
        (m,), how many of ``codes`` an item has: none if it is known to have none.
    """

    labels: tuple[str, ...]
    codes: Codes
    lengths: Codes

    @cached_property
    def owner(self) -> Rows:
        """Which item has each of ``codes``."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *np.cumsum(self.lengths).tolist()]

    @cached_property
    def _listed(self) -> list[int]:
        found: list[int] = self.codes.tolist()
        return found

    def of(self, item: int) -> list[int]:
        """The codes of one item."""
        return self._listed[self._starts[item] : self._starts[item + 1]]

    def members(self, code: int) -> Rows:
        """The items that have a value."""
        return np.asarray(self.owner[self.codes == code])

    def membership(self) -> Mask:
        """(m, labels), which items have which values."""
        found = np.zeros((len(self.lengths), len(self.labels)), np.bool_)
        known = self.codes >= 0
        found[self.owner[known], self.codes[known]] = True
        return found

    def likeness(self, item: int) -> FloatArray:
        """(m,), what share of the values that an item and each has they have in common."""
        own = [code for code in self.of(item) if code >= 0]
        if not own:
            return np.zeros(len(self.lengths))
        shared = np.zeros(len(self.lengths))
        for code in own:
            shared[self.members(code)] += 1.0
        return np.asarray(shared / (self.lengths + len(own) - shared))

    def packed(self) -> PackedGroups:
        """As bytes."""
        return PackedGroups(
            self.labels,
            self.codes.astype("<i4").tobytes(),
            self.lengths.astype("<i4").tobytes(),
        )


def unpack_groups(packed: PackedGroups) -> Groups:
    """What `Groups.packed` packed."""
    return Groups(
        packed.labels,
        np.frombuffer(packed.codes, "<i4").astype(np.int32),
        np.frombuffer(packed.lengths, "<i4").astype(np.int32),
    )


def group(column: Column, rows: Rows, name: str) -> Groups:
    """The values that items have of a column.

    Raises
    ------
    RecsysError
        If the column holds numbers or times, which group nothing.
    """
    if column.kind == "boolean":
        raw = np.where(column.known[rows], column.values[rows].astype(np.int32), -1)
        lengths = np.ones(len(rows), np.int32)
        words: Sequence[str] = ("false", "true")
    elif column.kind == "string":
        raw = np.where(column.known[rows], column.values[rows], -1)
        lengths = np.ones(len(rows), np.int32)
        words = column.categories
    elif column.kind == "strings":
        raw, lengths = flattened(column, rows)
        words = column.categories
    else:
        raise RecsysError(
            f"{name} is a {column.kind}, which groups no items. Name a string, strings or boolean."
        )
    return _renumbered(raw, lengths.astype(np.int32), words)


def flattened(column: Column, rows: Rows) -> tuple[Codes, Codes]:
    """The codes of some items' lists one after the other, and how many each has.

    An item whose list is unknown has one code, -1.
    """
    offsets = column.offsets
    if offsets is None:
        raise RecsysError(f"a column of {column.kind} holds no lists. Name one of strings.")
    known = column.known[rows]
    starts = offsets[rows]
    lengths = np.where(known, offsets[rows + 1] - starts, 1)
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(rows) else 0
    within = np.arange(total) - np.repeat(ends - lengths, lengths)
    told = np.repeat(known, lengths)
    at = np.repeat(starts, lengths) + within
    codes = np.full(total, -1, np.int32)
    codes[told] = column.values[at[told]]
    return codes, lengths.astype(np.int32)


def _renumbered(raw: npt.NDArray[np.int32], lengths: Codes, words: Sequence[str]) -> Groups:
    """Codes in the order of their first appearance: a catalogue numbers by its history."""
    used, first, inverse = np.unique(raw, return_index=True, return_inverse=True)
    known = used >= 0
    order = np.argsort(first[known])
    number = np.full(len(used), -1, np.int32)
    number[np.flatnonzero(known)[order]] = np.arange(known.sum(), dtype=np.int32)
    labels = tuple(words[code] for code in used[known][order].tolist())
    return Groups(labels, number[inverse], lengths)
