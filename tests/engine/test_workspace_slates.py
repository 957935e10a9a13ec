"""Items, slates and recommenders of a workspace: what they mean, and every fault told."""

from __future__ import annotations

import pytest

from engine.errors import ConfigurationError
from engine.workspace import canonical_content, workspace_from_content
from recsys.rules import Except, Fresh
from tests.engine.build import workspace_of
from tests.engine.shop import SHOP


def faults(text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as raised:
        workspace_of(text)
    return [str(fault) for fault in raised.value.faults]


def edited(*edits: tuple[str, str]) -> str:
    text = SHOP
    for old, new in edits:
        assert old in text
        text = text.replace(old, new, 1)
    return text


def test_a_slate_is_a_plan_with_the_rules_of_its_keys_and_of_its_texts() -> None:
    workspace = workspace_of(SHOP)
    slate = workspace.slates["accessories"]
    assert slate.plan.kind == "accessories"
    assert slate.plan.k == 3
    assert {rule.id for rule in slate.plan.hard} == {
        *("blocked", "excluded", "filtered", "seed", "compatible"),
        *("in_stock", "stock_fresh", "in_region", "recent_purchase", "recent_return"),
        "within_budget",
    }
    assert [(rule.id, rule.amount) for rule in slate.plan.soft] == [("push_bundles", 0.3)]
    assert slate.rules["within_budget"].owner == "shop@example.com"
    assert workspace.surfaces["product"].slates == ("accessories",)
    assert workspace.items is not None
    assert workspace.items.interactions["returned"] == "return"


def test_a_stored_revision_has_the_same_slates() -> None:
    workspace = workspace_of(SHOP)
    again = workspace_from_content(canonical_content(workspace))
    assert again.revision == workspace.revision
    assert (
        again.slates["accessories"].plan.composing == workspace.slates["accessories"].plan.composing
    )


def test_exceptions_hold_for_rules_of_items_and_not_for_what_the_unit_did() -> None:
    rules = {rule.id: rule for rule in workspace_of(SHOP).slates["accessories"].plan.rules}
    stale = rules["stock_fresh"]
    assert isinstance(stale, Except)
    assert isinstance(stale.rule, Fresh)
    assert stale.rule.limit_s == 3600
    assert not isinstance(rules["recent_purchase"], Except)


def test_an_objective_is_predicted_from_relevance_and_the_features_named() -> None:
    named = "    objective: margin\n    features: [price, freshness, type=bundle, type=@viewing]\n"
    slate = workspace_of(edited(("    k: 3\n", f"    k: 3\n{named}"))).slates["accessories"]
    assert slate.scorer is not None
    assert slate.scorer.names == ["relevance", "price", "freshness", "type=bundle", "type=viewing"]


def test_every_workspace_has_the_embedded_recommender() -> None:
    workspace = workspace_of(SHOP)
    assert workspace.slates["accessories"].recommender == "embedded"
    assert workspace.recommenders["embedded"].url is None


PARTNER = """
recommenders:
  partner: {kind: http, url: "https://recs.example.com/v1", deadline: 50ms, key_from: PARTNER_KEY}
"""


def test_an_external_recommender_falls_back_on_the_embedded_one() -> None:
    text = edited(("    kind: accessories\n", "    kind: accessories\n    recommender: partner\n"))
    partner = workspace_of(text + PARTNER).recommenders["partner"]
    assert partner.url == "https://recs.example.com/v1"
    assert partner.deadline_us == 50_000
    assert partner.fallback == "embedded"


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (("kind: accessories", "kind: accesories"), "slates.accessories.kind"),
        (("slates: [accessories]", "slates: [acessories]"), 'did you mean "accessories"?'),
        (("seeds: viewing", "seeds: vewing"), 'did you mean "viewing"?'),
        (("seeds: viewing", "seeds: budget"), "is a number"),
        (("other_regions: region", "other_regions: land"), "keep_out.other_regions"),
        (("stale: {stock: 1h}", "stale: {stok: 1h}"), 'did you mean "stock"?'),
        (("limits: {type: 2}", "limits: {typ: 2}"), 'did you mean "type"?'),
        (("limits: {type: 2}", "limits: {type: 0}"), "limits.type"),
        (("limits: {type: 2}", "limits: {price: 2}"), "price"),
        (("item.price > budget", "item.prise > budget"), 'did you mean "item.price"?'),
        (("item.price > budget", "item.price > limit"), '"limit"'),
        (("item.price > budget", "item.title > budget"), "which never holds"),
        (("        amount: 0.3\n", ""), "rules[1].amount"),
        (("kind: suppress", "kind: suppress\n        amount: 1.0"), "rules[0].amount"),
        (("id: push_bundles", "id: within_budget"), "within_budget"),
        (("stock: number", "stock: string"), "must be of type integer or number to be the stock"),
        (("{purchase: purchase,", "{buy: purchase,"), "metric of a surface"),
        (("type: string", "type: {type: string, role: kind}"), "is no role"),
        (("    k: 3", "    k: 0"), "slates.accessories.k"),
        (("    k: 3", "    k: 3\n    recommender: partner"), "recommender"),
        (("    k: 3", "    k: 3\n    itms: [a]"), "did you mean"),
        (("    k: 3", "    k: 3\n    items: [a]"), "editorial"),
        (("    k: 3", "    k: 3\n    objective: hours"), 'metric of surface "product"'),
        (("    k: 3", "    k: 3\n    features: [price]"), "need an `objective`"),
        (("    k: 3", "    k: 3\n    objective: margin\n    features: [prise]"), "features[0]"),
        (("    k: 3", "    k: 3\n    objective: margin\n    features: [type]"), "type=value"),
        (("    k: 3", "    k: 3\n    objective: margin\n    features: [type=@typ]"), "surface"),
        (("    k: 3", "    k: 3\n    pins: [{position: 1}]"), "pins[0]"),
        (("    k: 3", "    k: 3\n    pins: [{position: 9, item: card}]"), "pins"),
        (("    k: 3", "    k: 3\n    diversity: {kind: mmr}"), "vector_size"),
        (
            ("    k: 3", "    k: 3\n    grades: [{id: g, column: price, amount: 1, reason: r}]"),
            "grades[0]",
        ),
    ],
    ids=lambda value: value[1].strip()[:40] if isinstance(value, tuple) else "",
)
def test_a_fault_is_told_with_its_place_and_repair(edit: tuple[str, str], told: str) -> None:
    found = faults(edited(edit))
    assert any(told in fault for fault in found), found
    assert all("0.yaml:" in fault for fault in found), found


def test_all_faults_are_told_at_once() -> None:
    found = faults(
        edited(
            ("stale: {stock: 1h}", "stale: {stok: 1h}"),
            ("item.price > budget", "item.prise > budget"),
            ("seeds: viewing", "seeds: vewing"),
        )
    )
    assert len(found) == 3


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        ("{kind: http}", "recommenders.partner.url"),
        ("{kind: http, url: ftp://x}", "recommenders.partner.url"),
        ("{kind: embedded, url: 'http://x'}", "is only for"),
        ("{kind: http, url: 'http://x', fallback: other}", "embedded recommender"),
    ],
)
def test_faults_of_recommenders_are_told(declared: str, told: str) -> None:
    found = faults(f"{SHOP}recommenders: {{partner: {declared}}}\n")
    assert any(told in fault for fault in found), found


def test_a_workspace_without_slates_needs_no_items() -> None:
    text = SHOP[SHOP.index("surfaces:") : SHOP.index("slates:\n")]
    assert workspace_of(text.replace(", slates: [accessories]", "")).slates == {}
