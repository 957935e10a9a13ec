"""Retrieval finds what reading every item finds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import RecsysError
from recsys.retrieval import Floats, Index, best, build_index

D = 16


def vectors(n: int, seed: int, decay: float = 4.0) -> Floats:
    """Vectors of a falling spectrum along axes that are not the coordinates."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(np.random.default_rng(99).normal(size=(D, D)))[0]
    spread = rng.normal(size=(n, D)) * np.exp(-np.arange(D) / decay)
    return np.asarray(spread @ axes, np.float32)


def brute(items: Floats, query: Floats, k: int, allowed: np.ndarray | None) -> list[int]:
    scores = items.astype(np.float64) @ query
    if allowed is not None:
        scores[~allowed] = -np.inf
    return [int(row) for row in np.argsort(-scores, kind="stable")[:k] if scores[row] > -np.inf]


@given(st.integers(1, 300), st.integers(1, 40), st.integers(0, 9), st.floats(0, 1))
def test_small_sets_are_searched_whole(n: int, k: int, seed: int, share: float) -> None:
    items = vectors(n, seed)
    [query] = vectors(1, seed + 100)
    allowed = np.random.default_rng(seed).random(n) < share
    index = build_index(items)
    rows, scores = index.top(query, k, allowed)
    assert allowed[rows].all()
    assert len(rows) == min(k, allowed.sum())
    exact = items.astype(np.float64) @ query
    np.testing.assert_allclose(scores, exact[rows], atol=1e-4)
    np.testing.assert_allclose(
        np.sort(exact[rows]), np.sort(exact[brute(items, query, k, allowed)]), atol=1e-4
    )


@pytest.fixture(scope="module")
def large() -> tuple[Floats, Index]:
    items = vectors(150_000, seed=1)
    return items, build_index(items)


@pytest.mark.parametrize("share", [None, 0.5, 0.1, 0.01, 0.001])
def test_among_many_at_least_99_of_100_are_found_whatever_is_allowed(
    large: tuple[Floats, Index], share: float | None
) -> None:
    items, index = large
    allowed = None if share is None else np.random.default_rng(2).random(len(items)) < share
    found = wanted = 0
    for query in vectors(20, seed=3):
        rows, scores = index.top(query, 500, allowed)
        exact = brute(items, query, 500, allowed)
        assert len(rows) == len(exact)
        assert (np.diff(scores) <= 0).all()
        assert allowed is None or allowed[rows].all()
        found += len(set(rows.tolist()) & set(exact))
        wanted += len(exact)
    assert found >= 0.99 * wanted


def test_the_prefilter_reads_few_items_in_full(large: tuple[Floats, Index]) -> None:
    items, index = large
    for query in vectors(5, seed=4):
        rows, _ = index._above_threshold(query, 500, None)
        assert 500 <= len(rows) < len(items) / 20


def test_a_flat_spectrum_costs_time_and_no_recall() -> None:
    rng = np.random.default_rng(5)
    items = rng.normal(size=(70_000, D)).astype(np.float32)
    index = build_index(items)
    for query in rng.normal(size=(5, D)).astype(np.float32):
        rows, _ = index.top(query, 300)
        assert len(set(rows.tolist()) & set(brute(items, query, 300, None))) >= 299


def test_equal_vectors_are_ranked_by_row() -> None:
    index = build_index(np.ones((70_000, 4), np.float32))
    rows, scores = index.top(np.ones(4, np.float32), 3)
    assert rows.tolist() == [0, 1, 2]
    np.testing.assert_allclose(scores, 4.0, rtol=1e-6)


def test_vectors_come_back_as_they_were() -> None:
    items = vectors(50, seed=6)
    index = build_index(items)
    rows = np.array([4, 40])
    np.testing.assert_allclose(index.vectors(rows), items[rows], atol=1e-5)
    [query] = vectors(1, seed=7)
    np.testing.assert_allclose(index.scores(query, rows), items[rows] @ query, atol=1e-4)


def test_best_keeps_the_first_of_equals() -> None:
    rows, scores = best(np.array([2, 5, 7, 9]), np.array([1.0, 3.0, 1.0, 1.0]), 2)
    assert (rows.tolist(), scores.tolist()) == ([5, 2], [3.0, 1.0])


def test_vectors_that_are_not_finite_are_refused() -> None:
    with pytest.raises(RecsysError, match="not finite"):
        build_index(np.array([[1.0, np.nan]]))
