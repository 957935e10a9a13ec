"""Every kind of slate from a trained model, items that are no products, and any process alike."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from recsys.bound import BoundModel, bind
from recsys.call import SLATE_KINDS, Interaction, SlateKind
from recsys.catalogue import Catalogue, Item
from recsys.errors import RecsysError
from recsys.plan import Calibration, Diversity, Exploration, Limit, Pin, SlatePlan
from recsys.recommend import Recommendation, recommend
from recsys.rules import DueAgain, Except, Having, InStock, Matches
from recsys.training import train
from tests.console import ROOT
from tests.recsys import worlds
from tests.recsys.building import DAY, NOW, Scores, call, catalogue, ids
from tests.recsys.recommend_again import digest_of_slates

ACCESSORIES = [
    Item("case", {"compatible_with": ["space00"], "category": "gear"}),
    Item("strap", {"compatible_with": ["drama00"], "category": "gear"}),
    Item("refill", {"replenish_days": 30.0, "category": "gear"}),
]


@pytest.fixture(scope="module")
def shop() -> tuple[Catalogue, BoundModel]:
    """A trained model bound to a catalogue that has some items more."""
    items = worlds.catalogue()
    model = train(items, worlds.interactions())
    more = items.upsert(ACCESSORIES, worlds.NOW)
    return more, bind(model, more)


def filled(
    shop: tuple[Catalogue, BoundModel], kind: SlateKind, plan: Any = None, **said: Any
) -> Recommendation:
    items, model = shop
    made = SlatePlan(id="s", kind=kind, **(plan or {}))
    return recommend(worlds.call(**said), made, items, model)


def genre(slate: Any) -> set[str]:
    return {item.item_id[:5] for item in slate.items}


def test_for_you_follows_a_history_and_stands_without_one(shop: Any) -> None:
    seen = worlds.history("space00", "space01", "space02")
    mine = filled(shop, "for_you", history=seen, exclude=("space00", "space01", "space02"), k=3)
    assert genre(mine.slate) == {"space"}
    assert len(filled(shop, "for_you").slate.items) == 5


def test_because_you_names_the_item_that_it_is_because_of(shop: Any) -> None:
    slate = filled(shop, "because_you", history=worlds.history("crime00", "space01"), k=3).slate
    assert {item.because for item in slate.items} == {"space01"}
    assert "space01" not in ids(slate)


@pytest.mark.parametrize("kind", ["similar", "bundles", "alternatives", "because_you"])
def test_kinds_that_relate_to_an_item_never_answer_with_it(kind: SlateKind, shop: Any) -> None:
    slate = filled(shop, kind, seeds=("drama01",), k=3).slate
    assert len(slate.items) == 3
    assert "drama01" not in ids(slate)
    assert genre(slate) == {"drama"}


def test_alternatives_are_of_the_seeds_category(shop: Any) -> None:
    found = filled(shop, "alternatives", seeds=("drama01",), k=20)
    assert {item_id[:5] for item_id in ids(found.slate)} == {"drama"}
    removals = found.trace.removals()
    assert removals["space00"] == ("same_as_seed",)


def test_accessories_fit_and_what_does_not_fit_says_so(shop: Any) -> None:
    found = filled(shop, "accessories", seeds=("space00",))
    assert ids(found.slate) == ["case"]
    assert found.trace.removals()["strap"] == ("compatible",)
    assert "compatible" in found.slate.shortfall


def test_replenishment_is_what_is_due_again(shop: Any) -> None:
    bought = Interaction("refill", "purchase", worlds.NOW - 40 * DAY)
    assert ids(filled(shop, "replenishment", history=(bought,)).slate) == ["refill"]
    early = replace_at(bought, worlds.NOW - 25 * DAY)
    assert ids(filled(shop, "replenishment", history=(early,)).slate) == ["refill"]
    strict = filled(shop, "replenishment", {"rules": (DueAgain(),)}, history=(early,))
    assert strict.slate.items == ()
    assert strict.trace.removals()["refill"] == ("due",)


def replace_at(interaction: Interaction, at: int) -> Interaction:
    return Interaction(interaction.item_id, interaction.kind, at)


def test_editorial_slates_follow_the_editors_and_the_rules(shop: Any) -> None:
    listed = ("drama05", "crime03", "gone", "drama05", "space09")
    found = filled(shop, "editorial", {"items": listed}, k=3)
    assert ids(found.slate) == ["drama05", "crime03", "space09"]
    assert {item.reason for item in found.slate.items} == {"editors"}
    ruled = filled(shop, "editorial", {"items": listed}, k=3, exclude=("crime03",))
    assert ids(ruled.slate) == ["drama05", "space09"]
    by_rule = filled(shop, "editorial", {"rules": (Matches({"category": "gear"}, "gear"),)}, k=3)
    assert sorted(ids(by_rule.slate)) == ["case", "refill", "strap"]


@pytest.mark.parametrize("kind", ["similar", "bundles", "alternatives", "accessories"])
def test_kinds_that_relate_to_items_are_empty_without_one_and_say_why(
    kind: SlateKind, shop: Any
) -> None:
    slate = filled(shop, kind).slate
    assert slate.items == ()
    assert slate.shortfall.endswith(f"{kind} relates to seeds, and the catalogue has none of: none")
    unknown = filled(shop, kind, seeds=("nothing",)).slate
    assert unknown.shortfall.endswith("the catalogue has none of: nothing")


def test_without_consent_a_history_chooses_nothing_but_still_keeps_items_out(shop: Any) -> None:
    seen = worlds.history("space00", "space01", "space02")
    no = {"personalisation": False}
    refused = filled(shop, "for_you", history=seen, consents=no)
    assert ids(refused.slate) == ids(filled(shop, "for_you").slate)


def test_an_unknown_user_gets_a_sensible_list(shop: Any) -> None:
    slate = filled(shop, "for_you", user_id="nobody", k=10).slate
    assert len(slate.items) == 10
    assert slate.shortfall == ""


# Candidates that are no products ---------------------------------------------------------------

HELP: dict[str, dict[str, Any]] = {
    "lens": {"type": "product", "stock": 2},
    "sold_out": {"type": "product", "stock": 0},
    "guide": {"type": "article"},
    "escalation": {"type": "playbook"},
    "renewal": {"type": "offer"},
}


def test_articles_playbooks_and_offers_take_the_same_path_as_products() -> None:
    rules = (Except(InStock(), "type", ("article", "playbook", "offer")),)
    source = Scores({"guide": 4, "sold_out": 3, "renewal": 2, "escalation": 1})
    found = recommend(call(5), SlatePlan(id="home", rules=rules), catalogue(HELP), source)
    assert ids(found.slate) == ["guide", "renewal", "escalation", "lens"]
    assert found.trace.removals() == {"sold_out": ("in_stock",)}


def test_a_sensitive_account_gets_help_and_no_offer() -> None:
    """The rule of the call's surface: only articles and playbooks while a ticket is open."""
    rules = (Matches({"type": ["article", "playbook"]}, "help_only", "an open ticket"),)
    found = recommend(
        call(5), SlatePlan(id="home", rules=rules), catalogue(HELP), Scores({"renewal": 9})
    )
    assert sorted(ids(found.slate)) == ["escalation", "guide"]
    assert found.trace.removals()["renewal"] == ("help_only",)


# The same in any process -----------------------------------------------------------------------


def test_two_processes_answer_the_same_calls_alike() -> None:
    digests = {digest_of_slates()}
    for seed in ("1", "4242"):
        told = subprocess.run(
            [sys.executable, "-m", "tests.recsys.recommend_again"],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(told.stdout.strip())
    assert len(digests) == 1


# Bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "fancy"}, "slates.s.kind is 'fancy', which is unknown. Known: for_you, bec"),
        ({"k": 0}, "slates.s.k is 0. Give 1 to 1000."),
        ({"k": 20, "candidates": 5}, "slates.s.candidates is 5. Give k or more, at most 10,000."),
        ({"items": ("a",)}, "slates.s.items are for editorial slates, and its kind is for_you."),
        (
            {"pins": (Pin(position=2, item_id="a"), Pin(position=2, item_id="b"))},
            "slates.s.pins are at positions [2, 2] of 10. Pin each position once.",
        ),
        ({"pins": (Pin(position=11, item_id="a"),)}, "slates.s.pins are at positions [11] of 10"),
        ({"rules": (InStock(), InStock())}, "slates.s.rules: two have the id 'in_stock'"),
        ({"id": ""}, "plan.id is empty. Name the slate."),
    ],
)
def test_a_plan_that_cannot_be_filled_is_refused_by_name(
    given: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecsysError) as refused:
        SlatePlan(**{"id": "s", **given})
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda v: Limit(column="a", at_most=v), "limits.a.at_most is"),
        (lambda v: Pin(position=v, item_id="a"), "pins.position is"),
        (lambda v: Exploration(temperature=v), "exploration.temperature is"),
        (lambda v: Exploration(epsilon=v), "exploration.epsilon is"),
        (lambda v: Diversity(weight=v), "diversity.weight is"),
        (lambda v: Calibration(column="a", weight=v), "calibration.weight is"),
        (lambda v: SlatePlan(id="s", k=v), "slates.s.k is"),
        (lambda v: SlatePlan(id="s", candidates=v), "slates.s.candidates is"),
        (
            lambda v: SlatePlan(id="s", rules=(Having({"type": "a"}, v, "h"),)),
            "slates.s.rules.h.amount is",
        ),
    ],
)
@pytest.mark.parametrize("value", [-1, "3", None, True, float("nan")])
def test_numbers_of_the_wrong_type_or_range_are_refused_by_name(
    make: Any, message: str, value: Any
) -> None:
    with pytest.raises(RecsysError) as refused:
        make(value)
    assert message in str(refused.value)


def test_an_unknown_attribute_is_refused_with_where_it_is_read(shop: Any) -> None:
    for plan, message in (
        ({"rules": (InStock(),)}, "slates.s.rules.in_stock reads stock is no declared attribute"),
        (
            {"pins": (Pin(position=1, column="price"),)},
            "slates.s.pins reads price, which is a number and must be boolean.",
        ),
    ):
        with pytest.raises(RecsysError) as refused:
            filled(shop, "for_you", plan)
        assert message in str(refused.value)


def test_a_model_bound_to_another_catalogue_is_refused(shop: Any) -> None:
    items, model = shop
    other = items.upsert([Item("new")], NOW)
    with pytest.raises(RecsysError, match="bound to a catalogue of other items"):
        recommend(worlds.call(), SlatePlan(id="s"), other, model)


def test_every_kind_was_tried() -> None:
    tried = {"similar", "bundles", "alternatives", "because_you", "accessories"}
    assert tried | {"for_you", "replenishment", "editorial"} == set(SLATE_KINDS)
