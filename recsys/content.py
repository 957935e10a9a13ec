"""How alike items are by what is told of them: their attributes and their embeddings.

The similarity of two items is the mean of two cosines: of their embeddings, and of their
attributes' values (strings, and each of several strings), where a value that n_v of n items have
weighs log((1 + n) / (1 + n_v)) + 1. Where one of the two is not known of either item, the other
decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.catalogue import Catalogue, Column, Rows

Floats = npt.NDArray[np.float32]

_BLOCK = 256  # items compared with all others at a time


@dataclass(frozen=True, eq=False)
class Content:
    """What is told of the items of a catalogue, made comparable."""

    catalogue: Catalogue

    @cached_property
    def _attributes(self) -> Any:
        """Sparse (n, values), rows of length 1 or 0."""
        from scipy import sparse  # noqa: PLC0415  none of the catalogues without words needs it

        words = [c for c in self.catalogue.columns.values() if c.kind in {"string", "strings"}]
        blocks = [_one_hot(column, self.catalogue.size) for column in words]
        if not blocks:
            return sparse.csr_array((self.catalogue.size, 0), dtype=np.float32)
        joined = sparse.hstack(blocks, format="csr")
        having = np.bincount(joined.indices, minlength=joined.shape[1])
        idf = np.log((1.0 + self.catalogue.size) / (1.0 + having)) + 1.0
        joined.data = idf[joined.indices].astype(np.float32)
        norms = np.sqrt(np.asarray(joined.multiply(joined).sum(axis=1)).ravel())
        scale = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0.0)
        return (sparse.diags_array(scale.astype(np.float32)) @ joined).tocsr()

    @cached_property
    def _vectors(self) -> Floats:
        """(n, d), rows of length 1 or 0."""
        vectors = self.catalogue.vectors
        if vectors is None:
            return np.zeros((self.catalogue.size, 0), np.float32)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        scale = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0.0)
        return np.asarray(vectors * scale, np.float32)

    @cached_property
    def _told(self) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        return np.diff(self._attributes.indptr) > 0, np.asarray(self._vectors.any(axis=1))

    @property
    def says_something(self) -> bool:
        """Whether anything comparable is told of any item."""
        return any(bool(told.any()) for told in self._told)

    def similarities(self, rows: Rows, others: Rows | None = None) -> Floats:
        """(m, o) in [-1, 1]: of some items with others, with all n if none are named."""
        by_attributes, by_vectors = self._attributes, self._vectors
        told, seen = self._told
        left, right = (
            by_attributes[rows],
            by_attributes if others is None else by_attributes[others],
        )
        there = slice(None) if others is None else others
        total = (left @ right.T).toarray() + by_vectors[rows] @ by_vectors[there].T
        parts = np.outer(told[rows], told[there]).astype(np.float32)
        parts += np.outer(seen[rows], seen[there])
        return np.asarray(total / np.maximum(parts, 1.0), np.float32)

    def nearest(self, rows: Rows, others: Rows, count: int) -> tuple[Rows, Floats]:
        """(m, count) positions in ``others`` of the most similar, and (m, count) similarities.

        Similarities are clipped at 0; ``count`` is at most as many as the others are.
        """
        count = min(count, len(others))
        positions = np.zeros((len(rows), count), np.intp)
        similarities = np.zeros((len(rows), count), np.float32)
        for start in range(0, len(rows), _BLOCK):
            found = self.similarities(rows[start : start + _BLOCK], others)
            best = np.argsort(-found, axis=1, kind="stable")[:, :count]
            positions[start : start + _BLOCK] = best
            values = np.take_along_axis(found, best, axis=1)
            similarities[start : start + _BLOCK] = np.maximum(values, 0.0)
        return positions, similarities

    def of(self, catalogue: Catalogue) -> Content:
        """That of another catalogue, which is this one where nothing that counts has changed."""
        same = catalogue.index is self.catalogue.index and (
            catalogue.vectors is self.catalogue.vectors
            and _words(catalogue.columns) == _words(self.catalogue.columns)
        )
        return self if same else Content(catalogue)


def _words(columns: Mapping[str, Column]) -> list[int]:
    return [id(column) for column in columns.values() if column.kind in {"string", "strings"}]


def _one_hot(column: Column, n: int) -> Any:
    from scipy import sparse  # noqa: PLC0415

    if column.offsets is not None:
        indptr, codes = column.offsets, column.values
    else:
        indptr, codes = np.concatenate([[0], np.cumsum(column.known)]), column.values[column.known]
    ones = np.ones(len(codes), np.float32)
    return sparse.csr_array((ones, codes, indptr), shape=(n, len(column.categories)))
