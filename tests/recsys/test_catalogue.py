"""Catalogues are values: what is told holds from the next one on, and nothing else moves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.catalogue import Catalogue, Item, ItemSchema
from recsys.errors import RecsysError

SCHEMA = ItemSchema(
    {
        "category": "string",
        "price": "number",
        "stock": "number",
        "new": "boolean",
        "regions": "strings",
        "published": "time",
    },
    vector_size=2,
)
LENS = Item(
    "lens",
    {
        "category": "optics",
        "price": 99.5,
        "stock": 3,
        "new": True,
        "regions": ["EU", "UK", "EU"],
        "published": 17,
    },
    (0.5, -1.0),
)
EMPTY = Catalogue.empty(SCHEMA)


def values(catalogue: Catalogue, item_id: str) -> dict[str, Any]:
    [row] = catalogue.rows([item_id])
    return {name: column.at(int(row)) for name, column in catalogue.columns.items()}


def test_what_was_told_of_an_item_is_read_back_typed() -> None:
    catalogue = EMPTY.upsert([LENS, Item("card")], now=50)
    assert catalogue.ids == ("card", "lens")
    assert catalogue.rows(["lens", "nothing"]).tolist() == [1, -1]
    assert values(catalogue, "lens") == {
        "category": "optics",
        "price": 99.5,
        "stock": 3.0,
        "new": True,
        "regions": ("EU", "UK"),
        "published": 17,
    }
    assert set(values(catalogue, "card").values()) == {None}
    assert catalogue.vectors is not None
    assert catalogue.vectors.tolist() == [[0.0, 0.0], [0.5, -1.0]]
    assert catalogue.updated_at.tolist() == [50, 50]


def test_an_upsert_changes_what_it_names_and_its_time_alone() -> None:
    before = EMPTY.upsert([LENS, Item("card", {"stock": 1})], now=50)
    after = before.upsert([Item("lens", {"stock": 0, "price": None})], now=60)
    assert values(after, "lens") == {**values(before, "lens"), "stock": 0.0, "price": None}
    assert values(after, "card") == values(before, "card")
    assert values(before, "lens")["stock"] == 3.0
    assert after.column("stock").updated_at.tolist() == [50, 60]
    assert after.column("price").updated_at.tolist() == [0, 60]
    assert after.column("new") is before.column("new")
    assert after.updated_at.tolist() == [50, 60]


def test_news_that_come_late_do_not_undo_later_ones() -> None:
    catalogue = EMPTY.upsert([Item("lens", {"stock": 3}, at=50)], now=55)
    late = catalogue.upsert([Item("lens", {"stock": 9, "price": 5}, at=40)], now=60)
    assert (values(late, "lens")["stock"], values(late, "lens")["price"]) == (3.0, 5.0)
    assert late.column("stock").updated_at.tolist() == [50]
    both = [Item("lens", {"stock": 8}, at=70), Item("lens", {"stock": 7}, at=65)]
    assert values(catalogue.upsert(both, now=80), "lens")["stock"] == 8.0


def test_a_removed_item_is_gone_and_its_block_is_not() -> None:
    catalogue = EMPTY.upsert([LENS, Item("card"), Item("bag")], now=1).block(["lens"])
    assert catalogue.blocked.tolist() == [False, False, True]
    smaller = catalogue.remove(["lens", "bag"])
    assert smaller.ids == ("card",)
    back = smaller.upsert([LENS], now=2)
    assert back.blocked.tolist() == [False, True]
    assert back.unblock(["lens"]).blocked.tolist() == [False, False]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (Item(""), "item.id is ''"),
        (Item("\ud800"), "item.id"),
        (Item("lens", {"colour": "red"}), "'lens': colour is no declared attribute.*Known: cat"),
        (Item("lens", {"price": "12"}), "price is '12'. Give a finite number"),
        (Item("lens", {"price": True}), "price is True"),
        (Item("lens", {"price": float("inf")}), "price is inf"),
        (Item("lens", {"price": 10**400}), "price is"),
        (Item("lens", {"new": 1}), "new is 1. Give true or false"),
        (Item("lens", {"regions": "EU"}), "regions is 'EU'. Give a list of strings"),
        (Item("lens", {"regions": ["EU", 3]}), "regions"),
        (Item("lens", {"category": 3}), "category is 3. Give a string"),
        (Item("lens", {"published": 1.5}), "published is 1.5. Give microseconds"),
        (Item("lens", {}, (1.0,)), "vector has 1 numbers, but items.vector_size is 2"),
        (Item("lens", {}, (1.0, float("nan"))), "no finite number"),
        (Item("lens", {}, (1.0, -1e300)), "one beyond 1e.15"),
    ],
    ids=str,
)
def test_an_item_that_does_not_fit_the_schema_is_refused(item: Item, message: str) -> None:
    with pytest.raises(RecsysError, match=message):
        EMPTY.upsert([item], now=1)


def test_unknown_ids_and_attributes_are_refused() -> None:
    catalogue = EMPTY.upsert([LENS], now=1)
    for change in (catalogue.remove, catalogue.block):
        with pytest.raises(RecsysError, match="'card', which the catalogue does not have"):
            change(["card"])
    with pytest.raises(RecsysError, match="'lens', which is not blocked"):
        catalogue.unblock(["lens"])
    with pytest.raises(RecsysError, match="colour is no declared attribute"):
        catalogue.column("colour")


def test_a_role_is_held_by_its_name_or_by_declaration() -> None:
    schema = ItemSchema({"series": "string", "price": "number"}, {"franchise": "series"})
    assert (schema.role("franchise"), schema.role("price")) == ("series", "price")
    assert schema.role("stock") is None
    for attributes, roles, message in [
        ({"price": "string"}, {}, "price must be number"),
        ({"a": "text"}, {}, "items.attributes.a is 'text'. Known: string"),
        ({"a": "string"}, {"colour": "a"}, "items.roles.colour is no role"),
        ({"a": "string"}, {"franchise": "b"}, "items.roles.franchise is 'b'"),
    ]:
        with pytest.raises(RecsysError, match=message):
            ItemSchema(attributes, roles)  # type: ignore[arg-type]


KINDS = {
    "category": st.sampled_from(["a", "b", "c"]),
    "price": st.floats(-1e6, 1e6),
    "new": st.booleans(),
    "regions": st.lists(st.sampled_from(["EU", "UK", "US"]), max_size=3),
    "published": st.integers(-(2**62), 2**62),
}
ITEMS = st.builds(
    Item,
    st.sampled_from("pqrstu"),
    st.fixed_dictionaries({}, optional={n: st.none() | s for n, s in KINDS.items()}),
    st.none() | st.tuples(st.integers(-9, 9), st.integers(-9, 9)),
    st.integers(1, 9),
)


@given(st.lists(ITEMS, max_size=12), st.integers(0, 12))
def test_the_same_news_make_the_same_catalogue_in_one_go_or_two(
    items: list[Item], split: int
) -> None:
    """And each value is what a plain dictionary holds."""
    items = sorted(items, key=lambda item: item.at or 0)
    at_once = EMPTY.upsert(items, now=10)
    in_two = EMPTY.upsert(items[:split], now=10).upsert(items[split:], now=10)
    assert at_once.digest == in_two.digest
    plain: dict[str, dict[str, Any]] = {}
    for item in items:
        plain.setdefault(item.id, {}).update(item.attributes)
    for item_id, told in plain.items():
        for name, value in values(in_two, item_id).items():
            expected = told.get(name)
            if name == "regions" and expected is not None:
                expected = tuple(dict.fromkeys(expected))
            assert value == expected
    assert in_two.ids == tuple(sorted(plain))


def test_the_digest_tells_every_change() -> None:
    catalogue = EMPTY.upsert([LENS, Item("card")], now=5)
    others = [
        EMPTY,
        catalogue.upsert([Item("card", {"stock": 1})], now=5),
        catalogue.upsert([Item("lens", {"regions": ["EU"]})], now=5),
        catalogue.upsert([Item("lens", {"category": "bags"})], now=5),
        catalogue.upsert([Item("lens", {}, (0.5, 1.0))], now=5),
        catalogue.upsert([Item("lens")], now=6),
        catalogue.upsert([Item("lens", {"stock": 3})], now=6),
        catalogue.upsert([Item("lens", {"price": 99.5})], now=6),
        catalogue.block(["lens"]),
        catalogue.remove(["card"]),
    ]
    assert len({catalogue.digest, *(other.digest for other in others)}) == 1 + len(others)


def test_a_catalogue_cannot_be_written_to() -> None:
    catalogue = EMPTY.upsert([LENS], now=1)
    assert catalogue.vectors is not None
    for array in (catalogue.column("price").values, catalogue.vectors, catalogue.updated_at):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = np.zeros(1)
