"""Slates, and the traces of how they came about: all that composing them again needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from recsys.call import SlateKind
from recsys.groups import Groups, PackedGroups, unpack_groups
from recsys.plan import Composing

Placing = Literal["ranked", "pinned", "sponsored"]


class SlateItem(msgspec.Struct, frozen=True):
    """An item at a position (from 1), drawn there with ``propensity`` given those before it.

    Parameters
    ----------
    score
        What the scorer expects of the item, in the unit of its objective.
    placed
        By its rank; or by a pin, for which the propensity is 1 where the pin names the item; or
        because the position is paid for.
    reason
        What proposed it, such as the neighbours of an item.
    because
        The item whose likeness or company proposed it, empty where none did.
    """

    item_id: str
    score: float
    position: int
    propensity: float
    placed: Placing = "ranked"
    reason: str = ""
    because: str = ""


class Slate(msgspec.Struct, frozen=True):
    """A ranked list, the id under which its making is traced, and why it is short if it is."""

    trace_id: str
    items: tuple[SlateItem, ...]
    shortfall: str = ""


class Removal(msgspec.Struct, frozen=True):
    """The candidates that one hard rule kept out, as bits of the trace's ``items``.

    ``unknown`` are those among them of which the rule could not tell.
    """

    rule: str
    reason: str
    items: bytes
    unknown: bytes


class PinnedAt(msgspec.Struct, frozen=True):
    """A position that is taken, and what may stand there: indices of the items that were scored.

    ``fixed``: one item, which stands nowhere else.
    """

    position: int
    candidates: tuple[int, ...]
    fixed: bool
    sponsored: bool


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """How one position was filled.

    Parameters
    ----------
    item
        Index of the item among those that were scored.
    utility
        Its score on the scale of the candidates, 0 to 1, with its amounts.
    amounts
        What each soft rule added, where it added anything.
    diversity, calibration
        What likeness to the items before took away, and what the mix added or took.
    """

    item: int
    item_id: str
    position: int
    utility: float
    amounts: dict[str, float]
    diversity: float
    calibration: float
    propensity: float
    placed: Placing


class SlateTrace(msgspec.Struct, frozen=True, kw_only=True):
    """How a slate came about; arrays are little-endian bytes.

    Parameters
    ----------
    versions
        What the caller says of the catalogue, model and scorer that were read.
    uniforms
        As the call's; empty: the slate was not drawn, and every propensity is 1.
    items
        Ids of all candidates, n of them.
    source
        (n,) int8, what proposed each: an index into ``sources``.
    because
        (n,) int16, whose likeness or company proposed each: an index into ``seeds``, -1 for none.
    absent
        Seeds and pinned items that the catalogue does not have.
    removed
        Of every hard rule that kept candidates out.
    withheld
        How many items of the whole catalogue each hard rule keeps out; empty where the candidates
        sufficed and it was not asked.
    scores
        (m,) float32 of the m candidates that no rule keeps out, in the order of ``items``.
    amounts
        (m,) float32 by soft rule.
    mix
        The shares of the calibrated attribute's values in what the user did.
    completion
        Items that fill the slate whatever limits say of others; None where there is no risk that
        it stays short.
    likeness
        (placed, m) uint8, 255ths: of each placed item to all. Empty where likeness is not read, or
        follows from ``groups``.
    features, values
        What the scorer read: names of f features, and (placed, f) float32 of the placed items.
    """

    trace_id: str
    slate: str
    kind: SlateKind
    surface: str
    objective: str
    k: int
    versions: dict[str, str]
    composing: Composing
    uniforms: tuple[float, ...]
    items: tuple[str, ...]
    sources: tuple[str, ...]
    source: bytes
    seeds: tuple[str, ...]
    because: bytes
    absent: tuple[str, ...]
    removed: tuple[Removal, ...]
    withheld: dict[str, int]
    scores: bytes
    amounts: dict[str, bytes]
    groups: dict[str, PackedGroups]
    mix: dict[str, float]
    pins: tuple[PinnedAt, ...]
    completion: tuple[int, ...] | None
    likeness: bytes
    features: tuple[str, ...]
    values: bytes
    placed: tuple[Placement, ...]
    shortfall: str

    def answer(self) -> Slate:
        """The slate."""
        index = self._index()
        source = np.frombuffer(self.source, "i1")
        because = np.frombuffer(self.because, "<i2")
        scores = self.array(self.scores)
        items = tuple(
            SlateItem(
                each.item_id,
                float(scores[each.item]),
                each.position,
                each.propensity,
                each.placed,
                self.sources[source[index[each.item]]],
                self.seeds[seed] if (seed := because[index[each.item]]) >= 0 else "",
            )
            for each in self.placed
        )
        return Slate(self.trace_id, items, self.shortfall)

    def inputs(self) -> npt.NDArray[np.float64]:
        """(placed, f), what the scorer read of each placed item, NaN where unknown.

        With the reward of each position, what a scorer learns from.
        """
        return self.array(self.values).reshape(len(self.placed), len(self.features))

    def removals(self) -> Mapping[str, tuple[str, ...]]:
        """Every rule or limit that kept each candidate out, by item id.

        A limit is named for the candidates that were left over where it was reached.
        """
        found: dict[str, list[str]] = {}
        for removal in self.removed:
            for index in np.flatnonzero(_bits(removal.items, len(self.items))).tolist():
                found.setdefault(self.items[index], []).append(removal.rule)
        scored = self.scored()
        placed = {each.item for each in self.placed}
        for limit in self.composing.limits:
            groups = self.grouped()[limit.column]
            counted = [code for i in placed for code in groups.of(i)]
            full = {code for code in counted if counted.count(code) >= limit.at_most}
            if limit.unknown == "apart":
                full.discard(-1)
            over = {int(i) for code in sorted(full) for i in groups.members(code)}
            for index in sorted(over - placed):
                found.setdefault(scored[index], []).append(limit.id)
        return {item_id: tuple(rules) for item_id, rules in found.items()}

    def unknown(self) -> Mapping[str, tuple[str, ...]]:
        """The rules that could not tell of a candidate and so kept it out, by item id."""
        found: dict[str, list[str]] = {}
        for removal in self.removed:
            for index in np.flatnonzero(_bits(removal.unknown, len(self.items))).tolist():
                found.setdefault(self.items[index], []).append(removal.rule)
        return {item_id: tuple(rules) for item_id, rules in found.items()}

    def scored(self) -> tuple[str, ...]:
        """Ids of the m candidates that no rule keeps out."""
        return tuple(self.items[index] for index in self._index().tolist())

    def _index(self) -> npt.NDArray[np.intp]:
        """(m,), where the candidates that no rule keeps out stand in ``items``."""
        out = np.zeros(len(self.items), np.bool_)
        for removal in self.removed:
            out |= _bits(removal.items, len(self.items))
        return np.flatnonzero(~out)

    @staticmethod
    def array(packed: bytes) -> npt.NDArray[np.float64]:
        """(m,), of ``scores`` or one of ``amounts``."""
        return np.frombuffer(packed, "<f4").astype(np.float64)

    def grouped(self) -> dict[str, Groups]:
        """``groups``, unpacked."""
        return {name: unpack_groups(packed) for name, packed in self.groups.items()}


def pack_bits(flags: npt.NDArray[np.bool_]) -> bytes:
    """Eight flags a byte, as `Removal` keeps them."""
    return np.packbits(flags).tobytes()


def _bits(packed: bytes, n: int) -> npt.NDArray[np.bool_]:
    return np.unpackbits(np.frombuffer(packed, np.uint8), count=n).astype(np.bool_)
