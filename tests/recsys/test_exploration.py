"""Drawn slates: what is logged is the probability; a trace tells that of another plan as well."""

from __future__ import annotations

import math
from itertools import permutations
from typing import Any

import msgspec
import numpy as np
import pytest
from scipy import stats

from recsys.call import Interaction
from recsys.composition import Drawn, NoLikeness, compose, pmf
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
from recsys.replay import every_slate, likeness_of, marginals, pool_of, propensities
from recsys.slate import SlateTrace
from tests.recsys.building import NOW, Scores, call, catalogue

ITEMS: dict[str, dict[str, Any]] = {
    "a": {"category": "x", "genres": ["p", "q"], "paid": True},
    "b": {"category": "x", "genres": ["p"]},
    "c": {"category": "y", "genres": ["q"]},
    "d": {"category": "y", "genres": ["q", "r"]},
    "e": {"category": "z", "genres": ["r"], "paid": True},
}
CATALOGUE = catalogue(ITEMS)
SOURCE = Scores({"a": 1.0, "b": 0.8, "c": 0.7, "d": 0.3, "e": 0.0})
SEEN = (Interaction("a", "view", NOW - 5), Interaction("c", "view", NOW - 4))
EXPLORATION = Exploration(temperature=0.8, epsilon=0.2)
COMPOSING = Composing(
    diversity=Diversity(kind="mmr", weight=0.5, column="category"),
    calibration=Calibration(column="genres", weight=0.6),
    exploration=EXPLORATION,
)


def traced(composing: Composing, k: int = 3, uniform: float = 0.5, **given: Any) -> SlateTrace:
    plan = SlatePlan(id="home", composing=composing, **given)
    asked = call(k, uniforms=(uniform,) * k, history=SEEN)
    return recommend(asked, plan, CATALOGUE, SOURCE).trace


def draws(trace: SlateTrace, n: int) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
    """n slates drawn from a trace's candidates, each with what would be logged."""
    rng = np.random.default_rng(11)
    pool = pool_of(trace)
    likeness = likeness_of(trace, trace.composing, pool)
    found = []
    for uniforms in rng.random((n, trace.k)).tolist():
        drawn = Drawn(trace.composing.exploration, uniforms)
        placed, _ = compose(pool, trace.composing, trace.k, likeness, drawn)
        found.append((tuple(p.item for p in placed), tuple(p.propensity for p in placed)))
    return found


def test_each_of_the_60_slates_is_drawn_as_often_as_its_logged_propensity_says() -> None:
    trace = traced(COMPOSING)
    possible = every_slate(trace)
    assert set(possible) == set(permutations(range(5), 3))
    expected = {slate: math.prod(chances) for slate, chances in possible.items()}
    assert sum(expected.values()) == pytest.approx(1.0, abs=1e-12)

    n = 12_000
    found = draws(trace, n)
    for slate, logged in found:
        assert logged == possible[slate]
    counts = dict.fromkeys(expected, 0)
    for slate, _ in found:
        counts[slate] += 1
    assert min(expected.values()) * n > 5
    chi2 = stats.chisquare(
        list(counts.values()), [expected[slate] * n for slate in counts]
    )  # fmt: skip
    assert chi2.pvalue > 1e-3


def test_what_rules_forbid_after_a_prefix_has_no_probability_and_the_rest_has_it_all() -> None:
    limited = msgspec.structs.replace(COMPOSING, limits=(Limit(column="category", at_most=1),))
    possible = every_slate(traced(limited))
    category = [ITEMS[id_]["category"] for id_ in traced(limited).scored()]
    assert len(possible) == 24
    for slate in possible:
        assert len({category[item] for item in slate}) == 3
    assert sum(map(math.prod, possible.values())) == pytest.approx(1.0, abs=1e-12)


def test_no_item_that_is_allowed_is_less_probable_than_its_share_of_epsilon() -> None:
    exploration = Exploration(temperature=0.01, epsilon=0.2)
    gains = np.array([5.0, -math.inf, 1.0, 0.0, -50.0])
    chances = pmf(gains, exploration)
    assert chances[1] == 0.0
    assert (chances[[0, 2, 3, 4]] >= 0.2 / 4 - 1e-15).all()
    assert chances.sum() == pytest.approx(1.0, abs=1e-12)


def test_the_pmf_is_worked_by_hand() -> None:
    gains = np.array([0.3, 0.1, -math.inf])
    soft = np.exp(np.array([0.3, 0.1]) / 0.5)
    expected = [*(0.9 * soft / soft.sum() + 0.05), 0.0]
    assert pmf(gains, Exploration(temperature=0.5, epsilon=0.1)) == pytest.approx(expected)
    assert pmf(gains, Exploration(epsilon=0.1)).tolist() == pytest.approx([0.95, 0.05, 0.0])
    assert pmf(gains, Exploration()).tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("u", [0.0, 0.25, 0.5, 1.0 - 2**-53])
def test_a_uniform_draws_the_item_whose_share_of_the_unit_it_falls_in(u: float) -> None:
    gains = np.array([-math.inf, 0.0, 0.0, -math.inf])
    chosen, chance = Drawn(Exploration(temperature=1.0), (u,))(gains, 0)
    assert (chosen, chance) == (1 if u < 0.5 else 2, 0.5)


def test_without_uniforms_the_slate_is_the_best_and_its_propensities_are_1() -> None:
    plan = SlatePlan(id="home", composing=COMPOSING)
    slate = recommend(call(3), plan, CATALOGUE, SOURCE).slate
    assert [item.propensity for item in slate.items] == [1.0, 1.0, 1.0]


# Pins ------------------------------------------------------------------------------------------


def test_a_pinned_item_has_propensity_1_and_stands_nowhere_else() -> None:
    pins = (Pin(position=2, item_id="e"),)
    for uniform in (0.05, 0.4, 0.99):
        placed = traced(COMPOSING, uniform=uniform, pins=pins).placed
        assert [p.item_id for p in placed].count("e") == 1
        assert (placed[1].item_id, placed[1].propensity, placed[1].placed) == ("e", 1.0, "pinned")
        assert {placed[0].placed, placed[2].placed} == {"ranked"}
        assert 0 < placed[0].propensity < 1
    possible = every_slate(traced(COMPOSING, pins=pins))
    assert len(possible) == 12
    assert sum(map(math.prod, possible.values())) == pytest.approx(1.0, abs=1e-12)


def test_a_position_kept_for_what_is_paid_is_drawn_among_that_alone() -> None:
    pins = (Pin(position=1, column="paid", sponsored=True),)
    trace = traced(COMPOSING, pins=pins)
    assert trace.placed[0].placed == "sponsored"
    possible = every_slate(trace)
    first: dict[str, float] = {}
    for slate, chances in possible.items():
        first[trace.scored()[slate[0]]] = chances[0]
    assert set(first) == {"a", "e"}
    assert sum(first.values()) == pytest.approx(1.0)


def test_a_pin_that_a_rule_keeps_out_leaves_its_position_to_the_others() -> None:
    plan = SlatePlan(id="home", pins=(Pin(position=1, item_id="e"),))
    found = recommend(call(3, exclude=("e",)), plan, CATALOGUE, SOURCE)
    assert [item.item_id for item in found.slate.items] == ["a", "b", "c"]
    assert found.trace.removals()["e"] == ("excluded",)
    gone = SlatePlan(id="home", pins=(Pin(position=1, item_id="gone"),))
    assert recommend(call(3), gone, CATALOGUE, SOURCE).trace.absent == ("gone",)


def test_pins_count_against_limits_from_the_first_position_on() -> None:
    """Two of x would stand before the pinned third, were it counted where it stands."""
    limits = (Limit(column="category", at_most=1),)
    plan = SlatePlan(
        id="home", pins=(Pin(position=3, item_id="b"),), composing=Composing(limits=limits)
    )
    found = recommend(call(3), plan, CATALOGUE, SOURCE)
    assert [item.item_id for item in found.slate.items] == ["c", "e", "b"]


def test_pins_move_up_where_nothing_else_is_left() -> None:
    plan = SlatePlan(id="home", pins=(Pin(position=5, item_id="e"),))
    found = recommend(call(5, exclude=("a", "b", "c")), plan, CATALOGUE, SOURCE)
    assert [(i.item_id, i.position, i.placed) for i in found.slate.items] == [
        ("d", 1, "ranked"),
        ("e", 2, "pinned"),
    ]


# Another plan on the same trace ----------------------------------------------------------------


def test_a_traces_own_propensities_are_what_it_logged() -> None:
    for uniform in (0.1, 0.6, 0.95):
        trace = traced(COMPOSING, uniform=uniform, pins=(Pin(position=2, item_id="d"),))
        logged = [each.propensity for each in trace.placed]
        assert propensities(trace).tolist() == pytest.approx(logged, rel=1e-12)


def test_another_plans_propensities_are_those_with_which_it_would_have_drawn() -> None:
    """The conditionals of the other plan's own trace, slate by slate."""
    other = Composing(exploration=Exploration(temperature=0.2, epsilon=0.3))
    scores = np.array([0.0, 0.5, 1.0, 0.2, 0.9])
    for uniform in (0.1, 0.6, 0.95):
        trace = traced(COMPOSING, uniform=uniform)
        found = propensities(trace, other, scores)
        theirs = every_slate(trace, other, scores)
        assert found.tolist() == pytest.approx(theirs[tuple(each.item for each in trace.placed)])


def test_what_another_plan_would_never_have_placed_has_no_propensity_from_there_on() -> None:
    trace = traced(COMPOSING, uniform=0.99)
    only_best = Composing()
    found = propensities(trace, only_best)
    greedy = [each.item for each in traced(Composing()).placed]
    agree = [ours.item == best for ours, best in zip(trace.placed, greedy, strict=True)]
    first = agree.index(False)
    assert found.tolist() == [1.0] * first + [0.0] * (3 - first)
    strict = Composing(limits=(Limit(column="genres", at_most=1),), exploration=EXPLORATION)
    with_genres = msgspec.structs.replace(COMPOSING, limits=(Limit(column="genres", at_most=9),))
    twice = next(
        trace
        for uniform in np.linspace(0, 0.99, 50)
        for trace in [traced(with_genres, uniform=uniform)]
        if {"a", "b"} == {each.item_id for each in trace.placed[:2]}
    )
    assert propensities(twice, strict)[1:].tolist() == [0.0, 0.0]


def test_marginals_sum_the_slates_that_have_the_item_there() -> None:
    trace = traced(COMPOSING)
    possible = every_slate(trace)
    for position, each in enumerate(trace.placed):
        there = [math.prod(c) for slate, c in possible.items() if slate[position] == each.item]
        assert marginals(trace)[position] == pytest.approx(sum(there))


def test_what_cannot_be_told_from_a_trace_is_refused_with_what_can() -> None:
    trace = traced(COMPOSING)
    cases: list[tuple[Any, str]] = [
        (
            lambda: propensities(trace, Composing(limits=(Limit(column="franchise", at_most=1),))),
            "the other plan reads franchise, which the trace 't' does not keep",
        ),
        (
            lambda: propensities(trace, Composing(diversity=Diversity())),
            "diversity reads embeddings, whose likeness the trace 't' does not keep",
        ),
        (
            lambda: propensities(trace, scores=np.zeros(2)),
            "scores have shape (2,). Give 5 finite numbers",
        ),
        (
            lambda: marginals(trace, most=59),
            "slates of 3 of 5 items are 60, more than 59. Evaluate by",
        ),
    ]
    for told, message in cases:
        with pytest.raises(RecsysError) as refused:
            told()
        assert message in str(refused.value)


def test_marginals_by_embeddings_are_refused() -> None:
    items = {id_: {**given, "vector": (1.0, 0.0)} for id_, given in ITEMS.items()}
    composing = Composing(diversity=Diversity(), exploration=EXPLORATION)
    plan = SlatePlan(id="home", composing=composing)
    trace = recommend(call(2, uniforms=(0.1, 0.9)), plan, catalogue(items, 2), SOURCE).trace
    assert propensities(trace).tolist() == pytest.approx([p.propensity for p in trace.placed])
    with pytest.raises(RecsysError, match="the trace keeps that of the placed items alone"):
        marginals(trace)


def test_likeness_is_not_read_where_no_plan_asks_for_it() -> None:
    trace = traced(Composing(exploration=EXPLORATION))
    assert isinstance(likeness_of(trace, trace.composing, pool_of(trace)), NoLikeness)
    assert trace.likeness == b""
