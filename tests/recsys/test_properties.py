"""Whatever the catalogue, the rules and the call: what slates never do, and always do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from recsys.call import Call, Interaction
from recsys.catalogue import Catalogue
from recsys.plan import Calibration, Composing, Diversity, Exploration, Limit, Pin, SlatePlan
from recsys.recommend import Recommendation, recommend
from recsys.replay import propensities, recompose
from recsys.rules import (
    Fresh,
    Having,
    InRegion,
    InStock,
    ItemRule,
    NotOwned,
    NotRecently,
    WithinCap,
)
from tests.recsys.building import DAY, NOW, Scores, call, catalogue

WORDS = st.sampled_from(["a", "b", "c"])
ATTRIBUTES = st.fixed_dictionaries(
    {},
    optional={
        "category": WORDS,
        "franchise": WORDS,
        "genres": st.lists(WORDS, max_size=3, unique=True),
        "stock": st.integers(0, 3),
        "regions": st.lists(st.sampled_from(["NO", "SE"]), unique=True),
        "shown": st.integers(0, 2),
        "cap": st.integers(0, 2),
        "paid": st.booleans(),
        "at": st.sampled_from([NOW, NOW - DAY]),
    },
)


HARD: list[ItemRule] = [
    InStock(),
    Fresh(3600),
    InRegion(),
    NotOwned(),
    NotRecently("finish", 7, id="finished"),
    NotRecently("purchase", 10),
    WithinCap("shown", "cap"),
]
IDS = [f"i{j:02d}" for j in range(14)]


@st.composite
def worlds(draw: Any) -> tuple[Catalogue, SlatePlan, Call]:
    """A small catalogue, a plan with some of everything, and a call."""
    items = draw(st.dictionaries(st.sampled_from(IDS), ATTRIBUTES, min_size=1))
    some = st.lists(st.sampled_from(IDS), max_size=3, unique=True).map(tuple)
    kinds = st.sampled_from(["view", "purchase", "finish"])
    history = sorted(
        draw(
            st.lists(
                st.builds(
                    Interaction,
                    item_id=st.sampled_from(IDS),
                    kind=kinds,
                    at=st.integers(NOW - 20 * DAY, NOW),
                ),
                max_size=4,
            )
        ),
        key=lambda each: each.at,
    )
    k = draw(st.integers(1, 6))
    limits = draw(
        st.lists(
            st.builds(
                Limit,
                column=st.sampled_from(["category", "franchise", "genres"]),
                at_most=st.integers(1, 3),
                unknown=st.sampled_from(["together", "apart"]),
            ),
            max_size=2,
            unique_by=lambda limit: limit.column,
        )
    )
    hard = draw(st.lists(st.sampled_from(HARD), unique_by=lambda rule: rule.id, max_size=3))
    pins = draw(
        st.lists(
            st.builds(Pin, position=st.integers(1, 6), item_id=st.sampled_from(IDS))
            | st.builds(Pin, position=st.integers(1, 6), column=st.just("paid")),
            max_size=2,
            unique_by=lambda pin: pin.position,
        )
    )
    plan = SlatePlan(
        id="home",
        candidates=draw(st.sampled_from([10, 1000])),
        rules=(*hard, Having({"category": "b"}, 0.4, "b")),
        pins=tuple(pins),
        composing=Composing(
            limits=tuple(limits),
            diversity=draw(
                st.none()
                | st.builds(
                    Diversity, kind=st.sampled_from(["mmr", "dpp"]), column=st.just("genres")
                )
            ),
            calibration=draw(
                st.none() | st.builds(Calibration, column=st.just("category"), weight=st.just(0.5))
            ),
            exploration=draw(
                st.builds(
                    Exploration,
                    temperature=st.sampled_from([0.0, 0.2, 5.0]),
                    epsilon=st.sampled_from([0.0, 0.3]),
                )
            ),
        ),
    )
    uniform = st.floats(0, 1, exclude_max=True)
    asked = call(
        k,
        history=tuple(history),
        owned=draw(some),
        exclude=draw(some),
        uniforms=tuple(draw(st.just([]) | st.lists(uniform, min_size=k, max_size=k))),
        context=draw(st.sampled_from([{"region": "NO"}, {}])),
    )
    blocked = draw(st.lists(st.sampled_from(sorted(items)), max_size=2, unique=True))
    return catalogue(items).block(blocked), plan, asked


SOURCE = Scores({id_: float(-j % 7) for j, id_ in enumerate(IDS)})


def judged(items: Catalogue, asked: Call, rule: str, id_: str) -> bool | None:
    """What a rule says of an item, in plain words: an oracle."""

    def value(name: str) -> Any:
        return items.column(name).at(items.ids.index(id_))

    def did(kind: str, days: int) -> bool:
        since = asked.now - days * DAY
        return any(i.item_id == id_ and i.kind == kind and i.at > since for i in asked.history)

    stock, shown, cap = value("stock"), value("shown"), value("cap")
    told = items.column("stock").updated_at[items.ids.index(id_)]
    region, regions = asked.context.get("region"), value("regions")
    verdicts: dict[str, bool | None] = {
        "blocked": id_ not in items.blocked_ids,
        "excluded": id_ not in asked.exclude,
        "filtered": True,
        "owned": id_ not in asked.owned,
        "in_stock": None if stock is None else stock >= 1,
        "stock_fresh": None if stock is None else bool(told >= asked.now - 3600 * 10**6),
        "in_region": None if region is None or regions is None else region in regions,
        "finished": not did("finish", 7),
        "recent_purchase": not did("purchase", 10),
        "inventory_cap": None if shown is None or cap is None else shown < cap,
    }
    return verdicts[rule]


def allowed(items: Catalogue, plan: SlatePlan, asked: Call) -> list[str]:
    """Items of which every hard rule is true: not false, and not unknown."""
    return [
        id_
        for id_ in items.ids
        if all(judged(items, asked, rule.id, id_) is True for rule in plan.hard)
    ]


def values(items: Catalogue, limit: Limit, id_: str) -> set[str | None]:
    """What an item counts against; None stands for all whose value is unknown."""
    value = items.column(limit.column).at(items.ids.index(id_))
    if value is None:
        return {None} if limit.unknown == "together" else set()
    return set(value) if isinstance(value, tuple) else {str(value)}


def longest(items: Catalogue, plan: SlatePlan, asked: Call) -> int:
    """The most items that all limits allow at once, exactly."""
    open_ = allowed(items, plan, asked)
    rows, caps = [np.ones(len(open_))], [float(asked.k)]
    for limit in plan.composing.limits:
        of = [values(items, limit, id_) for id_ in open_]
        for value in set().union(*of) if of else set():
            rows.append(np.array([float(value in each) for each in of]))
            caps.append(float(limit.at_most))
    if not open_:
        return 0
    solved = milp(
        -np.ones(len(open_)),
        integrality=np.ones(len(open_)),
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(np.array(rows), ub=caps),
    )
    return round(-float(solved.fun))


def found(world: tuple[Catalogue, SlatePlan, Call]) -> Recommendation:
    items, plan, asked = world
    return recommend(asked, plan, items, SOURCE)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(worlds())
def test_no_slate_ever_breaks_a_hard_rule_and_what_is_unknown_opens_no_gate(
    world: tuple[Catalogue, SlatePlan, Call],
) -> None:
    items, plan, asked = world
    served = [item.item_id for item in found(world).slate.items]
    assert set(served) <= set(allowed(items, plan, asked))
    assert len(set(served)) == len(served) <= asked.k
    for limit in plan.composing.limits:
        counts: dict[str | None, int] = {}
        for id_ in served:
            for value in values(items, limit, id_):
                counts[value] = counts.get(value, 0) + 1
        assert max(counts.values(), default=0) <= limit.at_most


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(worlds())
def test_slates_have_k_items_whenever_rules_and_limits_allow_k(
    world: tuple[Catalogue, SlatePlan, Call],
) -> None:
    """As many as the longest slate there is; without pins, which may take the place of two."""
    items, plan, asked = world
    plan = replace(plan, pins=())
    slate = found((items, plan, asked)).slate
    assert len(slate.items) == longest(items, plan, asked)
    assert (slate.shortfall == "") == (len(slate.items) == asked.k)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(worlds())
def test_every_candidate_that_is_not_placed_is_named_by_the_rules_that_keep_it_out(
    world: tuple[Catalogue, SlatePlan, Call],
) -> None:
    items, plan, asked = world
    trace = found(world).trace
    removals = trace.removals()
    hard = {rule.id for rule in plan.hard}
    assert set(trace.items) <= set(items.ids)
    for id_ in trace.items:
        verdicts = {rule: judged(items, asked, rule, id_) for rule in hard}
        broken = {rule for rule, verdict in verdicts.items() if verdict is not True}
        assert {rule for rule in removals.get(id_, ()) if rule in hard} == broken
        unknown = {rule for rule, verdict in verdicts.items() if verdict is None}
        assert set(trace.unknown().get(id_, ())) == unknown


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(worlds())
def test_every_trace_composes_its_slate_again_and_tells_its_own_propensities(
    world: tuple[Catalogue, SlatePlan, Call],
) -> None:
    result = found(world)
    assert found(world).trace == result.trace
    kept = msgspec.json.encode(result.trace)
    trace = msgspec.json.decode(kept, type=type(result.trace))
    assert msgspec.json.encode(recompose(trace)) == kept
    logged = [item.propensity for item in result.slate.items]
    assert all(0.0 < propensity <= 1.0 for propensity in logged)
    if trace.uniforms:
        assert propensities(trace).tolist() == logged
