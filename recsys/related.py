"""Scores of the kinds of slate that relate to items being looked at, or bought before."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from recsys.candidates import Candidates
from recsys.catalogue import Catalogue, Column, Mask, Rows
from recsys.errors import RecsysError
from recsys.popularity import MICROSECONDS_A_DAY
from recsys.retrieval import best

Numbers = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]

_DUE = 0.8  # of its interval: from when on an item is due again
_LITTLE = 1e-3  # what decides between equals only


def accessories(catalogue: Catalogue, seeds: Rows, together: Floats, popular: Floats) -> Floats:
    """(n,), items that fit the seeds first, then those that say what they fit or go with the seeds.

    Whether an item must fit is for a rule to say, which also names it.

    Parameters
    ----------
    together
        (n,) in [0, 1], how often the items are chosen with the seeds.
    popular
        (n,), of any scale.

    Raises
    ------
    RecsysError
        If no attribute has the role compatible_with.
    """
    column = catalogue.role("compatible_with")
    if column is None or column.offsets is None:
        raise RecsysError(
            "no attribute of items has the role compatible_with, which accessories need. Declare "
            "it in items.roles."
        )
    declared = np.diff(column.offsets) > 0
    share = popular / max(float(popular.max(initial=0.0)), 1e-12)
    score = fits(catalogue, column, seeds) + together + _LITTLE * (declared + share)
    return np.where(declared | (together > 0.0), score, 0.0).astype(np.float32)


def fits(catalogue: Catalogue, column: Column, seeds: Rows) -> Floats:
    """(n,), the share of the seeds that items say they fit.

    An item says so by the seed's id or by one of its strings: what fits "mount M" fits a camera
    that has it.
    """
    if column.offsets is None:
        raise RecsysError(f"what items fit is a {column.kind}. Make it strings.")
    owner = np.repeat(np.arange(catalogue.size), np.diff(column.offsets))
    found = np.zeros(catalogue.size, np.float32)
    for seed in seeds:
        words = {catalogue.ids[seed]}
        for other in catalogue.columns.values():
            value = other.at(int(seed)) if other is not column else None
            words |= {value} if isinstance(value, str) else set()
            words |= set(value) if isinstance(value, tuple) else set()
        codes = [column.codes[word] for word in words if word in column.codes]
        found[np.unique(owner[np.isin(column.values, codes)])] += 1.0
    return found / np.float32(max(1, len(seeds)))


def alternatives(catalogue: Catalogue, seed: int, alike: Floats) -> Floats:
    """(n,), how alike items of the seed's category are, those of like price first."""
    score = alike
    category = catalogue.role("category")
    if category is not None and category.known[seed]:
        score = np.where(category.values == category.values[seed], score, np.float32(0.0))
    price = catalogue.role("price")
    if price is not None and price.known[seed] and price.values[seed] > 0.0:
        ratio = np.maximum(np.where(price.known, price.values, 1.0), 1e-9) / price.values[seed]
        near = np.where(price.known, np.minimum(ratio, 1.0 / ratio), 0.5)
        score = score * near.astype(np.float32)
    return score


def due_again(
    catalogue: Catalogue, bought: Mapping[str, int], usual_days: Numbers, now: int
) -> tuple[Rows, Numbers]:
    """What is due again, the most overdue first: rows, and intervals since it was bought.

    Parameters
    ----------
    bought
        When each of m items of the catalogue was bought last, in microseconds since 1970, UTC.
    usual_days
        (m,), after which users buy it again, NaN where that is not known. What the attribute with
        the role replenish_days says goes before.
    """
    rows = catalogue.rows(bought)
    days = usual_days
    column = catalogue.role("replenish_days")
    if column is not None:
        days = np.where(column.known[rows], column.values[rows], days)
    since = (now - np.array(list(bought.values()), np.float64)) / MICROSECONDS_A_DAY
    due = np.divide(since, days, out=np.full(len(rows), np.nan), where=days > 0.0)
    ready = np.flatnonzero(due >= _DUE)
    order = ready[np.lexsort((rows[ready], -due[ready]))]
    return rows[order], due[order]


def ranked(
    score: Floats,
    mask: Mask,
    count: int,
    sources: tuple[str, ...],
    source: str,
    because: Rows | np.intp,
) -> Candidates:
    """The allowed rows with a (n,) score above 0, as candidates of one source."""
    there = np.flatnonzero(mask & (score > 0.0))
    rows, scores = best(there, score[there], count)
    brought = np.broadcast_to(because, score.shape)[rows]
    return Candidates(
        rows,
        scores.astype(np.float64),
        np.full(len(rows), sources.index(source), np.int8),
        brought.astype(np.intp),
        sources,
    )
