"""Items and interactions in the store, on every backend."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import RequestError
from engine.items import ItemChange, ItemRequest, StoredItem, checked
from engine.log import (
    InteractionsEntry,
    ItemsEntry,
    Outcome,
    OutcomesEntry,
    Refused,
    Stored,
    UnitInteraction,
    decision_entry,
)
from engine.shelf import Shelf, restocked
from engine.store import Store
from engine.store import read as ask
from recsys.catalogue import Catalogue, ItemSchema
from tests.engine.build import NOW, SECOND, decided, serving_of, workspace_of

WORLD = """\
surfaces:
  shop:
    owner: o@example.com
    metrics: {purchase: {window: 1d}}
    slots: {only: {default: A, actions: {A: {value: 1}}}}
"""


def change(item_id: str, at: int = NOW, **attributes: Any) -> ItemChange:
    return ItemChange(item_id, at, attributes)


def told(store: Store, *changes: ItemChange) -> Stored:
    (result,) = store.write([ItemsEntry(changes)], NOW)
    assert isinstance(result, Stored)
    return result


def bought(id_: str, subject: Any, item: str = "lens", value: float = 1.0, **more: Any) -> Outcome:
    given: dict[str, Any] = {"unit": subject} if isinstance(subject, str) else {}
    return Outcome(
        outcome_id=id_,
        metric="purchase",
        value=value,
        occurred_at=NOW,
        received_at=NOW,
        item_id=item,
        interaction="purchase",
        **given | more,
    )


def interactions(store: Store, unit: str) -> list[tuple[str, str, float]]:
    found = store.read(lambda c: ask.unit_interactions(c, unit, 100))
    return [(one.item_id, one.kind, one.value) for one in found]


def test_a_later_change_holds_and_an_earlier_one_is_no_news(store: Store) -> None:
    assert told(store, change("lens", NOW, stock=3.0, price=9.0)) == Stored(1)
    assert told(store, change("lens", NOW + 5, stock=0.0)) == Stored(1)
    assert told(store, change("lens", NOW + 2, stock=7.0)) == Stored(0, 1)
    found = store.read(lambda c: ask.item(c, "lens"))
    assert found is not None
    assert found.attributes == {"stock": (0.0, NOW + 5), "price": (9.0, NOW)}


def test_followers_are_told_of_what_changed_since(store: Store) -> None:
    told(store, change("a"), change("b"))
    seen, first = store.read(lambda c: ask.items_after(c, 0))
    assert set(first) == {"a", "b"}
    assert store.read(lambda c: ask.items_after(c, seen)) == (seen, {})
    told(store, change("b", NOW + 1), change("c"))
    later, news = store.read(lambda c: ask.items_after(c, seen))
    assert later > seen
    assert set(news) == {"b", "c"}


def test_one_commit_may_tell_of_an_item_twice(store: Store) -> None:
    store.write(
        [
            ItemsEntry((change("a", NOW, stock=1.0), change("a", NOW + 1, stock=2.0))),
            ItemsEntry((change("a", NOW + 2, stock=3.0),)),
        ],
        NOW,
    )
    found = store.read(lambda c: ask.item(c, "a"))
    assert found is not None
    assert found.attributes == {"stock": (3.0, NOW + 2)}


CHANGES = st.builds(
    lambda at, attributes: ItemChange("a", at, attributes),
    st.integers(1, 5),
    st.dictionaries(st.sampled_from("xyz"), st.integers(0, 9).map(float), max_size=3),
)


@given(st.lists(CHANGES, max_size=4, unique_by=lambda c: c.at))
def test_news_in_any_order_leave_the_same_item(changes: list[ItemChange]) -> None:
    found = set()
    for order in permutations(changes):
        item = StoredItem()
        for one in order:
            item = item.changed(one)
        found.add(repr(sorted(item.attributes.items())))
    assert len(found) == 1


def test_a_removed_item_comes_back_with_news_and_stays_blocked() -> None:
    item = StoredItem().changed(ItemChange("a", 1, {"x": 1.0}, blocked=True))
    gone = item.changed(ItemChange("a", 2, removed=True))
    assert gone.removed
    assert gone.attributes == {}
    assert gone.changed(ItemChange("a", 1, {"x": 3.0})).removed
    back = gone.changed(ItemChange("a", 3, {"x": 2.0}))
    assert not back.removed
    assert back.blocked
    assert back.attributes == {"x": (2.0, 3)}


def test_a_catalogue_is_told_each_value_for_its_time_and_what_fits_its_schema() -> None:
    item = StoredItem().changed(ItemChange("a", 5, {"x": 1.0, "gone": "old"}))
    item = item.changed(ItemChange("a", 9, {"y": "new", "z": "no number"}))
    schema = ItemSchema({"x": "number", "y": "string", "z": "number"})
    catalogue = Catalogue.empty(schema).upsert(list(item.told("a", schema)), 0)
    assert catalogue.ids == ("a",)
    assert catalogue.column("x").at(0) == 1.0
    assert catalogue.column("x").updated_at.tolist() == [5]
    assert catalogue.column("y").updated_at.tolist() == [9]
    assert catalogue.column("z").at(0) is None


SHELVED = ItemSchema({"stock": "number", "kind": "string", "tags": "strings"}, vector_size=1)


@given(
    st.lists(
        st.lists(
            st.builds(
                lambda id_, at, attributes, vector, removed, blocked: ItemChange(
                    id_,
                    at,
                    {} if removed else attributes,
                    None if removed else vector,
                    blocked,
                    removed,
                ),
                st.sampled_from("ab"),
                st.integers(1, 6),
                st.fixed_dictionaries(
                    {},
                    optional={
                        "stock": st.sampled_from([0.0, 1.0, None]),
                        "kind": st.sampled_from(["x", "y"]),
                        "tags": st.sampled_from([["x"], ["x", "y"], []]),
                    },
                ),
                st.sampled_from([None, (1.0,), (2.0,)]),
                st.booleans(),
                st.sampled_from([None, None, True, False]),
            ),
            min_size=1,
            max_size=3,
        ),
        min_size=1,
        max_size=4,
    )
)
def test_a_shelf_that_follows_holds_what_one_that_is_read_anew_does(
    entries: list[list[ItemChange]],
) -> None:
    stored: dict[str, StoredItem] = {}
    followed = Shelf(Catalogue.empty(SHELVED))
    for number, changes in enumerate(entries, 1):
        for one in changes:
            stored[one.item_id] = stored.get(one.item_id, StoredItem()).changed(one)
        news = {one.item_id: stored[one.item_id] for one in changes}
        followed = restocked(followed, news, number)
    anew = restocked(Shelf(Catalogue.empty(SHELVED)), stored, len(entries))
    assert followed.catalogue.ids == anew.catalogue.ids
    there = set(anew.catalogue.ids)
    assert followed.catalogue.blocked_ids & there == anew.catalogue.blocked_ids & there
    assert followed.catalogue.vectors is not None
    assert anew.catalogue.vectors is not None
    assert followed.catalogue.vectors.tolist() == anew.catalogue.vectors.tolist()
    for name, column in anew.catalogue.columns.items():
        for row in range(anew.catalogue.size):
            assert followed.catalogue.columns[name].at(row) == column.at(row)
            if column.known[row]:
                assert followed.catalogue.columns[name].updated_at[row] == column.updated_at[row]


def test_news_of_stock_leave_the_other_columns_as_they_are() -> None:
    schema = ItemSchema({"stock": "number", "kind": "string"}, vector_size=2)
    item = StoredItem().changed(ItemChange("a", 1, {"stock": 3.0, "kind": "x"}, (0.1, 0.2)))
    before = restocked(Shelf(Catalogue.empty(schema)), {"a": item}, 1)
    after = restocked(before, {"a": item.changed(ItemChange("a", 2, {"stock": 2.0}))}, 2)
    assert after.catalogue.columns["stock"].at(0) == 2.0
    assert after.catalogue.columns["kind"] is before.catalogue.columns["kind"]
    assert after.catalogue.vectors is before.catalogue.vectors


def test_an_outcome_about_an_item_is_an_interaction_of_its_unit(store: Store) -> None:
    record = decided(serving_of(workspace_of(WORLD)), "shop", "7")
    (_, both) = store.write(
        [
            decision_entry(record),
            OutcomesEntry(
                (
                    bought("1", "u:7"),
                    bought("2", None, "card", decision_id=record.decision_id),
                )
            ),
        ],
        NOW,
    )
    assert both == Stored(2)
    assert interactions(store, "u:7") == [("lens", "purchase", 1.0), ("card", "purchase", 1.0)]


def test_a_repeated_outcome_is_one_interaction(store: Store) -> None:
    for _ in range(2):
        store.write([OutcomesEntry((bought("1", "u:7"),))], NOW)
    assert interactions(store, "u:7") == [("lens", "purchase", 1.0)]


def test_the_item_of_a_repeated_outcome_must_agree(store: Store) -> None:
    store.write([OutcomesEntry((bought("1", "u:7"),))], NOW)
    (result,) = store.write([OutcomesEntry((bought("1", "u:7", "other"),))], NOW)
    assert isinstance(result, Refused)
    assert result.why == "conflict"


@pytest.mark.parametrize("together", [True, False])
def test_a_correction_is_of_the_item_that_it_corrects(store: Store, together: bool) -> None:
    first = bought("1", "u:7")
    second = Outcome("2", "purchase", 0.0, NOW, NOW, unit="u:7", corrects="1")
    entries = (
        [OutcomesEntry((first, second))]
        if together
        else [OutcomesEntry((first,)), OutcomesEntry((second,))]
    )
    for entry in entries:
        store.write([entry], NOW)
    found = store.read(lambda c: ask.unit_interactions(c, "u:7", 9))
    assert [(one.item_id, one.value, one.corrects) for one in found] == [
        ("lens", 1.0, None),
        ("lens", 0.0, "o:1"),
    ]


def test_an_interaction_that_came_before_its_decision_finds_its_unit_later(store: Store) -> None:
    record = decided(serving_of(workspace_of(WORLD)), "shop", "7")
    early = bought("1", None, decision_id=record.decision_id)
    store.write([OutcomesEntry((early,))], NOW)
    seq, found = store.read(lambda c: ask.interactions_after(c, 0, 10))
    assert [one.unit for one in found] == [None]
    store.write([decision_entry(record)], NOW)
    assert store.read(lambda c: ask.interactions_after(c, 0, 10)[1][0].unit) == "u:7"
    assert store.read(lambda c: ask.interactions_after(c, seq, 10)) == (seq, [])


def test_interactions_from_elsewhere_are_stored_once_and_listed_by_their_time(
    store: Store,
) -> None:
    rows = tuple(
        UnitInteraction(f"f:{i}", "u:1", f"i{i}", "view", 1.0, NOW - i * SECOND, NOW)
        for i in range(3)
    )
    assert store.write([InteractionsEntry(rows[:2])], NOW) == [Stored(2)]
    assert store.write([InteractionsEntry(rows)], NOW) == [Stored(1, 2)]
    assert [item for item, _, _ in interactions(store, "u:1")] == ["i2", "i1", "i0"]
    last = store.read(lambda c: ask.unit_interactions(c, "u:1", 2))
    assert [one.item_id for one in last] == ["i1", "i0"]


def test_what_a_unit_bought_is_told_however_much_it_viewed_since(store: Store) -> None:
    bought = [
        UnitInteraction(f"f:b{i}", "u:1", f"b{i}", "purchase", 1.0, NOW - (60 - i) * SECOND, NOW)
        for i in range(3)
    ]
    viewed = [
        UnitInteraction(f"f:v{i}", "u:1", f"v{i}", "view", 1.0, NOW - (9 - i) * SECOND, NOW)
        for i in range(5)
    ]
    store.write([InteractionsEntry((*bought, *viewed))], NOW)
    last = store.read(lambda c: ask.unit_interactions(c, "u:1", 3, {"purchase"}, 2))
    assert [one.item_id for one in last] == ["b1", "b2", "v2", "v3", "v4"]


def test_the_embedding_of_an_item_that_came_back_without_one_is_gone() -> None:
    schema = ItemSchema({"stock": "number"}, vector_size=2)
    item = StoredItem().changed(ItemChange("a", 1, {"stock": 3.0}, (0.1, 0.2)))
    before = restocked(Shelf(Catalogue.empty(schema)), {"a": item}, 1)
    back = item.changed(ItemChange("a", 2, removed=True)).changed(ItemChange("a", 3, {"stock": 2}))
    followed = restocked(before, {"a": back}, 2).catalogue
    assert followed.vectors is not None
    assert not followed.vectors.any()


def test_an_embedding_that_no_single_float_can_sum_is_refused_by_name() -> None:
    request = ItemRequest("a", vector=(1.0, 1e300))
    with pytest.raises(RequestError, match=r"\[3\]\.vector.*beyond 1e\+15"):
        checked(ItemSchema({}, vector_size=2), request, "[3].", NOW)
