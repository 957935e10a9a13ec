"""From a call to a slate: what is removed and why, what is asked again, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import msgspec
import numpy as np
import pytest

from recsys.call import Call, Interaction, SlateKind
from recsys.candidates import Candidates
from recsys.catalogue import Catalogue, Mask
from recsys.errors import RecsysError
from recsys.plan import (
    Calibration,
    Composing,
    Diversity,
    Exploration,
    Limit,
    Pin,
    SlatePlan,
)
from recsys.recommend import recommend
from recsys.replay import recompose
from recsys.rules import Fresh, Having, InRegion, InStock, NotOwned, NotRecently, PerUnit
from recsys.slate import SlateTrace
from tests.recsys.building import DAY, NOW, Scores, call, catalogue, ids

BEST_FIRST = Scores({f"i{j:04d}": -j for j in range(10_000)})


def plain(n: int, **given: Any) -> Catalogue:
    """n items i0000… with the same attributes."""
    return catalogue({f"i{j:04d}": given for j in range(n)})


def test_the_best_items_are_answered_in_order_with_their_scores() -> None:
    found = recommend(call(3), SlatePlan(id="home"), plain(50), BEST_FIRST)
    assert ids(found.slate) == ["i0000", "i0001", "i0002"]
    assert [item.score for item in found.slate.items] == [0.0, -1.0, -2.0]
    assert [item.position for item in found.slate.items] == [1, 2, 3]
    assert {item.propensity for item in found.slate.items} == {1.0}
    assert {item.reason for item in found.slate.items} == {"scores"}
    assert found.slate.trace_id == "t"
    assert found.slate.shortfall == ""


# The camera scenario: what rules keep out, each by its own name ----------------------------------

CAMERA = {
    "camera": {"category": "camera", "compatible_with": ["mount-m", "sd"], "stock": 4},
    "lens_m": {"compatible_with": ["mount-m"], "stock": 2, "margin": 10},
    "lens_n": {"compatible_with": ["mount-n"], "stock": 2, "margin": 90},
    "card": {"compatible_with": ["sd"], "stock": 9, "margin": 5},
    "battery": {"compatible_with": ["camera"], "stock": 0},
    "warranty": {"compatible_with": ["camera"], "stock": 1, "regions": ["US"]},
    "strap": {"compatible_with": ["camera"], "stock": 7},
    "bag": {"compatible_with": ["camera"], "stock": 7},
    "bundle": {"compatible_with": ["camera"], "stock": 3, "margin": 100},
}
ACCESSORIES = SlatePlan(
    id="home",
    kind="accessories",
    rules=(
        InStock(),
        Fresh(3600),
        InRegion(),
        NotRecently("purchase", 30),
        NotRecently("return", 90, id="recent_return", reason="returned recently"),
    ),
    grades=(PerUnit("margin", 0.5, 100.0, "margin", "earns more"),),
)
ALSO_BOUGHT = Scores({"lens_n": 9, "battery": 8, "strap": 7, "bag": 6, "warranty": 5, "card": 4})
BOUGHT = (Interaction("bag", "return", NOW - 30 * DAY), Interaction("strap", "purchase", NOW - DAY))


def camera(k: int = 3, changed: Mapping[str, Any] | None = None, **said: Any) -> Any:
    items = {
        id_: {"regions": ["NO", "SE"], **given, **((changed or {}).get(id_, {}))}
        for id_, given in CAMERA.items()
    }
    asked = call(k, **{"seeds": ("camera",), "history": BOUGHT, **said})
    return recommend(asked, ACCESSORIES, catalogue(items), ALSO_BOUGHT)


def test_each_item_that_is_kept_out_names_the_rule() -> None:
    found = camera()
    assert sorted(ids(found.slate)) == ["bundle", "card", "lens_m"]
    assert found.trace.removals() == {
        "camera": ("seed",),
        "lens_n": ("compatible",),
        "battery": ("in_stock",),
        "warranty": ("in_region",),
        "strap": ("recent_purchase",),
        "bag": ("recent_return",),
    }
    reasons = {removal.rule: removal.reason for removal in found.trace.removed}
    assert reasons["recent_return"] == "returned recently"


def test_a_margin_moves_an_item_by_the_amount_shown() -> None:
    found = camera()
    amounts = {each.item_id: each.amounts for each in found.trace.placed}
    assert amounts["bundle"] == {"margin": 0.5}
    assert amounts["card"] == {"margin": pytest.approx(0.025)}
    without = recommend(
        call(3, seeds=("camera",), history=BOUGHT),
        replace(ACCESSORIES, grades=()),
        catalogue({id_: {"regions": ["NO"], **given} for id_, given in CAMERA.items()}),
        ALSO_BOUGHT,
    )
    assert ids(without.slate) == ["card", "bundle", "lens_m"]
    utility = {each.item_id: each.utility for each in found.trace.placed}
    for each in without.trace.placed:
        margin = amounts[each.item_id]["margin"]
        assert utility[each.item_id] == pytest.approx(each.utility + margin)


def test_stock_that_is_older_than_its_limit_is_withheld_as_stale() -> None:
    old = {"lens_m": {"at": NOW - 2 * DAY}}
    found = camera(changed=old)
    assert "lens_m" not in ids(found.slate)
    assert found.trace.removals()["lens_m"] == ("stock_fresh",)
    assert {r.rule: r.reason for r in found.trace.removed}["stock_fresh"] == "stale"
    assert found.slate.shortfall.startswith("2 of 3 items: of 9 in the catalogue rules keep out: ")


def test_a_call_that_does_not_say_where_the_user_is_gets_nothing_that_depends_on_it() -> None:
    found = camera(context={})
    assert ids(found.slate) == []
    assert all("in_region" in rules for rules in found.trace.removals().values())
    assert set(found.trace.unknown()) == set(CAMERA)


# Refilling -------------------------------------------------------------------------------------


class Counting(Scores):
    """Remembers how often it was asked, and for what."""

    asked: list[int | None]

    def candidates(
        self, call: Call, catalogue: Catalogue, kind: SlateKind, allowed: Mask | None, count: int
    ) -> Candidates:
        """See `CandidateSource.candidates`."""
        self.asked.append(None if allowed is None else int(allowed.sum()))
        return super().candidates(call, catalogue, kind, allowed, count)


def counting() -> Counting:
    source = Counting(BEST_FIRST.scores)
    object.__setattr__(source, "asked", [])
    return source


SMALL = SlatePlan(id="home", candidates=20)


def test_a_source_is_asked_once_where_enough_of_what_it_gives_is_allowed() -> None:
    source = counting()
    recommend(call(2, exclude=("i0000",)), SMALL, plain(500), source)
    assert source.asked == [None]


def test_slates_are_filled_however_many_of_the_best_are_excluded() -> None:
    source = counting()
    shut = tuple(f"i{j:04d}" for j in range(300))
    found = recommend(call(10, exclude=shut), SMALL, plain(500), source)
    assert ids(found.slate) == [f"i{j:04d}" for j in range(300, 310)]
    assert source.asked == [None, 200]
    assert found.trace.withheld["excluded"] == 300
    assert found.trace.removals()["i0007"] == ("excluded",)


def test_what_a_filter_leaves_is_asked_for_and_rules_name_what_they_keep_out_of_that() -> None:
    items = {f"i{j:04d}": {"price": j % 10, "stock": j % 20} for j in range(500)}
    source = counting()
    plan = replace(SMALL, rules=(InStock(),))
    found = recommend(call(3, filters={"price": 0}), plan, catalogue(items), source)
    assert ids(found.slate) == ["i0010", "i0030", "i0050"]
    assert source.asked == [50]
    assert set(found.trace.removals()) == {f"i{j:04d}" for j in range(0, 200, 20)}


def test_a_limit_that_the_first_candidates_all_share_asks_for_others() -> None:
    items = {
        f"i{j:04d}": {"franchise": "saga" if j < 400 else f"f{j}", "stock": 1} for j in range(500)
    }
    plan = replace(SMALL, composing=Composing(limits=(Limit(column="franchise", at_most=3),)))
    found = recommend(call(5), plan, catalogue(items), BEST_FIRST)
    assert ids(found.slate) == ["i0000", "i0001", "i0002", "i0400", "i0401"]
    assert found.trace.removals()["i0003"] == ("at_most:franchise",)


def test_limits_that_corner_each_other_leave_no_position_empty() -> None:
    """The best item shares its franchise with one and its category with the other."""
    items: dict[str, dict[str, Any]] = {
        "i0000": {"franchise": "a", "category": "x"},
        "i0001": {"franchise": "a", "category": "y"},
        "i0002": {"franchise": "b", "category": "x"},
    }
    limits = (Limit(column="franchise", at_most=1), Limit(column="category", at_most=1))
    plan = SlatePlan(id="home", composing=Composing(limits=limits))
    assert ids(recommend(call(2), plan, catalogue(items), BEST_FIRST).slate) == ["i0001", "i0002"]
    assert ids(recommend(call(1), plan, catalogue(items), BEST_FIRST).slate) == ["i0000"]


@pytest.mark.parametrize(("unknown", "expected"), [("together", 2), ("apart", 6)])
def test_items_without_a_value_share_a_limit_unless_they_are_to_count_apart(
    unknown: Literal["together", "apart"], expected: int
) -> None:
    limit = Limit(column="franchise", at_most=2, unknown=unknown)
    plan = SlatePlan(id="home", composing=Composing(limits=(limit,)))
    found = recommend(call(6), plan, plain(9, stock=1), BEST_FIRST)
    assert len(found.slate.items) == expected


# Replay ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mmr", "dpp"])
@pytest.mark.parametrize("drawn", [True, False])
def test_a_trace_composes_the_same_slate_byte_for_byte(kind: Any, drawn: bool) -> None:
    rng = np.random.default_rng(4)
    items = {
        f"i{j:04d}": {
            "franchise": f"f{j % 13}",
            "genres": [f"g{g}" for g in set(rng.integers(6, size=2).tolist())],
            "vector": tuple(rng.normal(size=8)),
        }
        for j in range(300)
    }
    plan = SlatePlan(
        id="home",
        candidates=100,
        rules=(NotOwned(), Having({"franchise": "f3"}, 0.2, "f3")),
        pins=(Pin(position=2, item_id="i0290", sponsored=True),),
        composing=Composing(
            limits=(Limit(column="franchise", at_most=2),),
            diversity=Diversity(kind=kind, weight=0.4),
            calibration=Calibration(column="genres", weight=0.3),
            exploration=Exploration(temperature=0.1, epsilon=0.1),
        ),
    )
    asked = call(
        8,
        uniforms=tuple(rng.random(8).tolist()) if drawn else (),
        owned=("i0000",),
        history=tuple(Interaction(f"i{j:04d}", "view", NOW - DAY) for j in range(30)),
    )
    found = recommend(asked, plan, catalogue(items, 8), BEST_FIRST)
    assert found.slate.items[1].placed == "sponsored"
    assert found.slate.items[1].propensity == 1.0
    kept = msgspec.json.encode(found.trace)
    trace = msgspec.json.decode(kept, type=SlateTrace)
    again = recompose(trace)
    assert msgspec.json.encode(again) == kept
    assert again.answer() == found.slate


# What is refused -------------------------------------------------------------------------------


def test_values_of_any_size_leave_a_slate_of_distinct_items_within_limits() -> None:
    """A share that vanishes beside another has no logarithm."""
    shop = catalogue({f"{c}{n}": {"category": c} for c in "abc" for n in range(3)})
    composing = Composing(
        limits=(Limit(column="category", at_most=2),),
        calibration=Calibration(column="category", weight=1.0),
    )
    viewed = [("a0", 1e-300), ("b0", 1e300), ("b1", 1.7e308), ("b2", 1.7e308)]
    history = tuple(Interaction(item, "view", NOW - DAY, value) for item, value in viewed)
    plan = SlatePlan(id="home", composing=composing)
    found = recommend(call(5, history=history), plan, shop, Scores({"a0": 1.0}))
    shown = ids(found.slate)
    assert len(set(shown)) == 5
    assert max(sum(id_.startswith(c) for id_ in shown) for c in "abc") == 2
    assert found.trace.mix == {"b": 1.0}
    assert recompose(found.trace) == found.trace


def test_a_call_for_another_slate_is_refused() -> None:
    with pytest.raises(RecsysError, match=r"call\.slate is 'home', but the plan is of 'other'"):
        recommend(call(), SlatePlan(id="other"), plain(3), BEST_FIRST)


def test_nothing_to_show_is_an_empty_slate_that_says_why() -> None:
    cases: list[tuple[dict[str, Any], SlatePlan, Catalogue, str]] = [
        ({}, SlatePlan(id="home"), plain(0), "0 of 3 items: the catalogue is empty"),
        (
            {"exclude": ("i0000", "i0001")},
            SlatePlan(id="home"),
            plain(2),
            "0 of 3 items: of 2 in the catalogue rules keep out: excluded 2",
        ),
        (
            {"seeds": ("gone",)},
            SlatePlan(id="home", kind="similar"),
            plain(2),
            "0 of 3 items: similar relates to seeds, and the catalogue has none of: gone",
        ),
    ]
    for said, plan, items, why in cases:
        found = recommend(call(3, **said), plan, items, BEST_FIRST)
        assert found.slate.items == ()
        assert found.slate.shortfall == why
        assert recompose(found.trace) == found.trace
