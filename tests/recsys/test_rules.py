"""Each rule alone: what it is true of, what it cannot tell, and that unknown opens no gate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from recsys.call import Interaction
from recsys.errors import RecsysError
from recsys.plan import ALWAYS, OF_KIND
from recsys.rules import (
    Compatible,
    DueAgain,
    Except,
    Fresh,
    Having,
    InRegion,
    InStock,
    ItemRule,
    Matches,
    Newer,
    NotBlocked,
    NotExcluded,
    NotOwned,
    NotRecently,
    NotSeed,
    PerUnit,
    SameAsSeed,
    WithinCap,
    passes,
)
from tests.recsys.building import DAY, NOW, call, catalogue

ITEMS: dict[str, dict[str, Any]] = {
    "body": {
        "type": "product",
        "category": "camera",
        "stock": 3,
        "price": 900,
        "regions": ["NO", "SE"],
        "compatible_with": ["mount-m", "sd"],
        "at": NOW - 2 * DAY,
    },
    "lens": {
        "type": "product",
        "category": "lens",
        "stock": 0,
        "price": 300,
        "regions": ["SE"],
        "compatible_with": ["mount-m"],
        "margin": 30,
        "published": NOW - 30 * DAY,
        "shown": 5,
        "cap": 5,
        "paid": True,
    },
    "other": {
        "category": "lens",
        "stock": 1,
        "regions": [],
        "compatible_with": ["mount-n"],
        "replenish_days": 10,
        "margin": -5,
        "shown": 4,
        "cap": 5,
        "paid": False,
    },
    "guide": {"type": "article", "compatible_with": []},
}
CATALOGUE = catalogue(ITEMS)


def verdicts(rule: ItemRule, **said: Any) -> dict[str, int]:
    found = rule.verdicts(CATALOGUE, np.arange(CATALOGUE.size), call(**said))
    return dict(zip(CATALOGUE.ids, found.tolist(), strict=True))


def done(item_id: str, kind: str, days_ago: float) -> Interaction:
    return Interaction(item_id, kind, NOW - int(days_ago * DAY))


CASES: list[tuple[ItemRule, dict[str, Any], dict[str, int]]] = [
    (InStock(), {}, {"body": 1, "lens": 0, "other": 1, "guide": -1}),
    (InStock(at_least=2), {}, {"body": 1, "lens": 0, "other": 0, "guide": -1}),
    (Fresh(86_400), {}, {"body": 0, "lens": 1, "other": 1, "guide": -1}),
    (Fresh(2 * 86_400), {}, {"body": 1, "lens": 1, "other": 1, "guide": -1}),
    (InRegion(), {}, {"body": 1, "lens": 0, "other": 0, "guide": -1}),
    (InRegion(), {"context": {}}, dict.fromkeys(ITEMS, -1)),
    (Compatible(), {"seeds": ("body",)}, {"body": 1, "lens": 1, "other": 0, "guide": 0}),
    (Compatible(), {"seeds": ("gone",)}, dict.fromkeys(ITEMS, 0)),
    (SameAsSeed(), {"seeds": ("lens",)}, {"body": 0, "lens": 1, "other": 1, "guide": -1}),
    (NotOwned(), {"owned": ("lens", "gone")}, {"body": 0, "lens": 1, "other": 0, "guide": 0}),
    (NotExcluded(), {"exclude": ("body",)}, {"body": 1, "lens": 0, "other": 0, "guide": 0}),
    (NotSeed(), {"seeds": ("body",)}, {"body": 1, "lens": 0, "other": 0, "guide": 0}),
    (
        NotRecently("finish", 7),
        {"history": (done("body", "finish", 7), done("lens", "finish", 6.99))},
        {"body": 0, "lens": 1, "other": 0, "guide": 0},
    ),
    (
        NotRecently("return", 90),
        {"history": (done("body", "view", 1), done("other", "return", -1))},
        {"body": 0, "lens": 0, "other": 1, "guide": 0},
    ),
    (
        DueAgain(),
        {
            "history": (
                done("other", "purchase", 20),
                done("lens", "purchase", 20),
            )
        },
        {"body": 0, "lens": -1, "other": 1, "guide": 0},
    ),
    (
        DueAgain(),
        {"history": (done("other", "purchase", 20), done("other", "purchase", 9))},
        {"body": 0, "lens": 0, "other": 0, "guide": 0},
    ),
    (
        DueAgain(early_days=1),
        {"history": (done("other", "purchase", 9),)},
        {"body": 0, "lens": 0, "other": 1, "guide": 0},
    ),
    (WithinCap("shown", "cap"), {}, {"body": -1, "lens": 0, "other": 1, "guide": -1}),
    (
        Except(InStock(), "type", ("article",)),
        {},
        {"body": 1, "lens": 0, "other": 1, "guide": 1},
    ),
    (
        Except(NotOwned(), "type", ("product",)),
        {"owned": ("lens", "other")},
        {"body": 0, "lens": 0, "other": 1, "guide": 0},
    ),
    (Matches({"category": "lens"}), {}, {"body": 0, "lens": 1, "other": 1, "guide": -1}),
    (
        Matches({"category": ["lens", "camera"], "paid": True}),
        {},
        {"body": -1, "lens": 1, "other": 0, "guide": -1},
    ),
    (
        Matches({"price": {"max": 300}, "category": "lens"}),
        {},
        {"body": 0, "lens": 1, "other": -1, "guide": -1},
    ),
    (Matches({"price": [300, 5]}), {}, {"body": 0, "lens": 1, "other": -1, "guide": -1}),
    (
        Matches(),
        {"filters": {"compatible_with": ["sd", "mount-n"]}},
        {"body": 1, "lens": 0, "other": 1, "guide": 0},
    ),
    (
        Matches(),
        {"filters": {"published": {"min": NOW - 30 * DAY}}},
        {"body": -1, "lens": 1, "other": -1, "guide": -1},
    ),
    (Matches(), {}, dict.fromkeys(ITEMS, 1)),
    (Having({"paid": True}, 0.2, "paid"), {}, {"body": -1, "lens": 1, "other": 0, "guide": -1}),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "said", "expected"), CASES)
def test_a_rule_says_true_false_or_unknown_of_each_item(
    rule: ItemRule, said: dict[str, Any], expected: dict[str, int]
) -> None:
    assert verdicts(rule, **said) == expected


@pytest.mark.parametrize("rule", [case[0] for case in CASES] + [NotBlocked()])
def test_what_a_hard_rule_cannot_tell_it_keeps_out(rule: ItemRule) -> None:
    unknown = np.array([-1], np.int8)
    assert not passes(rule, unknown).any()


@pytest.mark.parametrize(("rule", "said", "expected"), CASES)
def test_a_rule_judges_some_items_as_it_judges_all(
    rule: ItemRule, said: dict[str, Any], expected: dict[str, int]
) -> None:
    rows = np.array([2, 0])
    some = rule.verdicts(CATALOGUE, rows, call(**said)).tolist()
    assert some == [expected[CATALOGUE.ids[row]] for row in rows]


def test_a_block_takes_effect_with_the_catalogue_that_holds_it() -> None:
    blocked = CATALOGUE.block(["lens"])
    rows = np.arange(blocked.size)
    assert NotBlocked().verdicts(blocked, rows, call()).tolist() == [0, 0, 1, 0]
    assert NotBlocked().verdicts(CATALOGUE, rows, call()).tolist() == [0, 0, 0, 0]


def test_grades_are_worked_by_hand() -> None:
    rows = np.arange(CATALOGUE.size)
    margin = PerUnit("margin", 0.2, 20.0, "margin").amounts(CATALOGUE, rows, call())
    assert dict(zip(CATALOGUE.ids, margin.tolist(), strict=True)) == pytest.approx(
        {"body": 0.0, "guide": 0.0, "lens": 0.2, "other": -0.05}
    )
    newer = Newer(0.4, half_life_days=15).amounts(CATALOGUE, rows, call())
    assert dict(zip(CATALOGUE.ids, newer.tolist(), strict=True)) == pytest.approx(
        {"body": 0.0, "guide": 0.0, "lens": 0.1, "other": 0.0}
    )


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"colour": "red"}, "colour is no declared attribute of items. Known: type, category"),
        ({"category": 3}, "filters.category asks for 3, but category is a string"),
        ({"price": True}, "filters.price asks for True, but price is a number"),
        ({"price": 10**400}, "filters.price asks for one that no number can be"),
        ({"published": 2**63}, "filters.published asks for one that no time can be"),
        ({"price": {"min": 10**400}}, "filters.price is {'min': 1000"),
        ({"price": {"min": "1"}}, "filters.price is {'min': '1'}. Bounds are numbers"),
        ({"price": {"least": 1}}, "filters.price is {'least': 1}. Bounds are numbers"),
        ({"category": {"min": 1}}, "filters.category asks for {'min': 1}, but"),
        ({"paid": ["yes"]}, "filters.paid asks for 'yes', but paid is a boolean"),
    ],
)
def test_a_filter_that_no_item_could_meet_is_refused_by_name(
    filters: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecsysError) as refused:
        verdicts(Matches(), filters=filters)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Fresh(0), "rule stock_fresh: limit_s is 0. Give seconds above 0."),
        (lambda: NotRecently("finish", -1), "rule recent_purchase: did is 'finish' and days -1"),
        (lambda: PerUnit("margin", 1.0, 0.0, "m"), "rule m: amount is 1.0 and unit 0.0"),
        (lambda: Newer(float("nan")), "rule freshness: amount is nan"),
        (lambda: Except(Having({}, 1.0, "h"), "type", ("a",)), "rule h: only a hard rule"),
        (
            lambda: InStock("category").verdicts(CATALOGUE, np.arange(2), call()),
            "category is a string and must be a number",
        ),
        (
            lambda: Newer(1.0, column="price").amounts(CATALOGUE, np.arange(2), call()),
            "price is a number and must be a time",
        ),
    ],
)
def test_a_rule_that_cannot_work_is_refused_by_name(make: Any, message: str) -> None:
    with pytest.raises(RecsysError) as refused:
        make()
    assert message in str(refused.value)


def test_every_built_in_rule_has_an_id_and_a_reason_of_its_own() -> None:
    rules = [*ALWAYS, *(rule for of_kind in OF_KIND.values() for rule in of_kind)]
    rules += [InStock(), Fresh(1), InRegion(), NotOwned(), NotRecently(), WithinCap("a", "b")]
    named = {(rule.id, rule.reason) for rule in rules}
    assert len({id_ for id_, _ in named}) == len(named)
    assert all(reason for _, reason in named)
