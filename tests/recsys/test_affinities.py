"""EASE, item-kNN and ALS solve what their modules say, by other ways of solving it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from recsys.affinity import DenseWeights, Factors, NearestItems
from recsys.als import alpha_of, als, ridge
from recsys.ease import default_lambda, ease
from recsys.item_knn import nearest_items
from recsys.retrieval import build_index

RNG = np.random.default_rng(0)
CHOICES = (RNG.random((40, 12)) < RNG.uniform(0.1, 0.7, 12)).astype(np.float64)
CHOICES[0] = 1.0  # no item is without a user
SPARSE = sparse.csr_array(CHOICES)


def test_ease_is_each_items_ridge_regression_on_the_others() -> None:
    weights = ease(SPARSE, 7.0)
    for item in range(12):
        others = np.delete(np.arange(12), item)
        X = CHOICES[:, others]
        expected = np.linalg.solve(X.T @ X + 7.0 * np.eye(11), X.T @ CHOICES[:, item])
        np.testing.assert_allclose(weights[others, item], expected, rtol=2e-3, atol=1e-6)
        assert weights[item, item] == 0.0


def test_the_default_lambda_grows_with_users() -> None:
    """As did what Steck (2019) found best: 500 for 136,677 users, 1000 for 463,435."""
    assert default_lambda(943) == pytest.approx(98, abs=1)
    assert default_lambda(136_677) == pytest.approx(515, abs=1)


def test_nearest_items_are_those_of_the_cosines_of_bm25_columns() -> None:
    n_users, n_items = CHOICES.shape
    amounts = CHOICES * np.random.default_rng(3).choice([0.25, 1.0], CHOICES.shape)
    weighted = np.zeros_like(CHOICES)
    for u in range(n_users):
        for i in range(n_items):
            if CHOICES[u, i]:
                idf = np.log(1.0 + n_items / CHOICES[u].sum())
                length = 0.25 + 0.75 * CHOICES[:, i].sum() / CHOICES.sum(axis=0).mean()
                weighted[u, i] = idf * amounts[u, i] * 2.2 / (amounts[u, i] + 1.2 * length)
    norms = np.linalg.norm(weighted, axis=0)
    cosine = weighted.T @ weighted / np.outer(norms, norms)
    np.fill_diagonal(cosine, -1.0)
    items, similarities = nearest_items(sparse.csr_array(amounts), 4)
    for item in range(n_items):
        order = np.argsort(-cosine[item], kind="stable")[:4]
        assert items[item].tolist() == order.tolist()
        np.testing.assert_allclose(similarities[item], cosine[item][order], rtol=1e-5)


def test_an_item_that_goes_with_none_has_no_nearest() -> None:
    alone = sparse.csr_array(np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    _, similarities = nearest_items(alone, 2)
    assert (similarities > 0).sum(axis=1).tolist() == [1, 1, 0]


def als_vectors(iterations: int) -> np.ndarray:
    return als(
        SPARSE, factors=4, unobserved=3.0, lambda_=0.01, iterations=iterations, seed=1,
        progress=lambda _: None,
    )  # fmt: skip


def loss(users: np.ndarray, items: np.ndarray) -> float:
    """The objective as `recsys.als` states it, entry by entry."""
    m, n = CHOICES.shape
    alpha = 3.0 * CHOICES.sum() / (m * n)
    product = users @ items.T
    fit = (CHOICES * (1.0 - product) ** 2).sum() + alpha * (product**2).sum()
    of_users = ((CHOICES.sum(axis=1) + alpha * n) * (users**2).sum(axis=1)).sum()
    of_items = ((CHOICES.sum(axis=0) + alpha * m) * (items**2).sum(axis=1)).sum()
    return float(fit + 0.01 * (of_users + of_items))


def folded(items: np.ndarray) -> np.ndarray:
    system = ridge(items, alpha_of(SPARSE, 3.0), 0.01, 12)
    return np.array(
        [
            system.solve(items[np.flatnonzero(row)][None], row[row > 0][None].astype(np.float32))[0]
            for row in CHOICES
        ]
    )


def test_als_lowers_its_objective_to_where_no_step_lowers_it() -> None:
    losses = [loss(folded(als_vectors(count)), als_vectors(count)) for count in (1, 4, 60)]
    assert losses == sorted(losses, reverse=True)
    items = als_vectors(300).astype(np.float64)
    users = folded(items.astype(np.float32)).astype(np.float64)
    at = loss(users, items)
    for _ in range(20):
        step = 1e-3 * RNG.normal(size=users.shape), 1e-3 * RNG.normal(size=items.shape)
        change = loss(users + step[0], items + step[1]) - at
        back = loss(users - step[0], items - step[1]) - at
        # A slope would show as a difference between a step and the step back.
        assert abs(change - back) < 0.05 * (change + back)


def test_als_is_the_same_twice() -> None:
    np.testing.assert_array_equal(als_vectors(3), als_vectors(3))


ITEMS = np.array([3, 5, 8])
WEIGHTS = np.array([1.0, 0.5, 0.25], np.float32)
ALL = np.ones(12, np.bool_)


def affinities() -> list[DenseWeights | NearestItems | Factors]:
    vectors = als_vectors(10)
    system = ridge(vectors, alpha_of(SPARSE, 3.0), 0.01, 12)
    return [
        DenseWeights(ease(SPARSE, 7.0)),
        NearestItems(*nearest_items(SPARSE, 5)),
        Factors(build_index(vectors), system),
    ]


@pytest.mark.parametrize("affinity", affinities(), ids=lambda a: type(a).__name__)
def test_the_parts_of_a_score_add_up_to_it(affinity: DenseWeights | NearestItems | Factors) -> None:
    taste = affinity.taste(ITEMS, WEIGHTS)
    everything = np.arange(12)
    parts = affinity.parts(ITEMS, WEIGHTS, everything)
    np.testing.assert_allclose(parts.sum(axis=0), affinity.scores(taste, everything), atol=1e-5)


@pytest.mark.parametrize("affinity", affinities(), ids=lambda a: type(a).__name__)
def test_the_best_are_the_allowed_ones_of_highest_boosted_score(
    affinity: DenseWeights | NearestItems | Factors,
) -> None:
    taste = affinity.taste(ITEMS, WEIGHTS)
    allowed = np.arange(12) % 3 != 0
    factors = np.linspace(0.5, 2.0, 12).astype(np.float32)
    rows, scores = affinity.best(taste, lambda items: factors[items], allowed, 3)
    plain = affinity.scores(taste, np.arange(12))
    expected = np.where(plain > 0.0, plain * factors, plain)
    order = [row for row in np.argsort(-expected, kind="stable") if allowed[row]][:3]
    assert rows.tolist() == order
    np.testing.assert_allclose(scores, expected[order], atol=1e-5)
