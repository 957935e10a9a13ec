"""How alike items are by content, worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from recsys.catalogue import Catalogue, Item, ItemSchema
from recsys.content import Content

SCHEMA = ItemSchema({"category": "string", "tags": "strings", "price": "number"}, vector_size=2)
CATALOGUE = Catalogue.empty(SCHEMA).upsert(
    [
        Item("a", {"category": "lens", "tags": ["m", "new"]}, (3.0, 4.0)),
        Item("b", {"category": "lens", "tags": ["n"]}, (0.0, 2.0)),
        Item("c", {"tags": ["m"]}),
        Item("d", {"price": 1.0}, (1.0, 0.0)),
        Item("e", {"price": 1.0}),
    ],
    now=1,
)


def idf(having: int) -> float:
    return math.log(6 / (1 + having)) + 1


def test_the_similarity_is_the_mean_of_the_cosines_that_are_known() -> None:
    found = Content(CATALOGUE).similarities(np.arange(5))
    a = np.array([idf(2), idf(2), idf(1)])  # lens, m, new
    b = np.array([idf(2), idf(1)])  # lens, n
    by_words = a[0] * b[0] / (np.linalg.norm(a) * np.linalg.norm(b))
    assert found[0, 1] == pytest.approx((by_words + 0.8) / 2)
    assert found[0, 2] == pytest.approx(a[1] / np.linalg.norm(a))  # c has no embedding
    assert found[0, 3] == pytest.approx(0.6)  # d has no words
    assert found[2, 3] == 0.0
    assert not found[4].any()
    np.testing.assert_allclose(found, found.T, atol=1e-6)
    np.testing.assert_allclose(np.diag(found)[:4], 1.0, rtol=1e-6)


def test_a_rare_value_in_common_says_more_than_a_frequent_one() -> None:
    words = [("x", ["all", "rare"]), ("y", ["all", "z"]), ("r", ["rare", "s"])]
    others = [(f"o{n}", ["all"]) for n in range(5)]
    items = [Item(item_id, {"tags": tags}) for item_id, tags in words + others]
    catalogue = Catalogue.empty(SCHEMA).upsert(items, now=1)
    [x, y, r] = catalogue.rows(["x", "y", "r"])
    found = Content(catalogue).similarities(np.array([x]))[0]
    assert found[r] > found[y] > 0.0


def test_the_nearest_are_found_among_the_others_named() -> None:
    others = np.array([1, 2, 4])
    positions, similarities = Content(CATALOGUE).nearest(np.array([0, 3]), others, 2)
    assert others[positions[0]].tolist() == [1, 2]
    assert similarities[1].tolist() == [0.0, 0.0]
    assert (similarities >= 0.0).all()


def test_content_is_kept_while_words_and_embeddings_stay() -> None:
    content = Content(CATALOGUE)
    assert content.of(CATALOGUE.upsert([Item("a", {"price": 3.0})], now=2)) is content
    assert content.of(CATALOGUE.upsert([Item("a", {"tags": []})], now=2)) is not content
    assert content.says_something
    assert not Content(Catalogue.empty(ItemSchema({}))).says_something
