"""The decision itself: its probabilities, its rules, its assignments, its draws and its purity."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from engine.decide import Inputs, StickyDraw, decide, sticky_key
from engine.errors import NotFoundError, RequestError
from engine.ids import uuid7
from engine.models import fresh
from engine.record import DecisionRecord, encode_record
from engine.request import DecideRequest
from engine.workspace import Workspace, workspace_from_content
from experiments import bucket
from policies import Feedback, Policy
from tests.engine.build import (
    DAY,
    HOUR,
    NOW,
    decided,
    draws_of,
    only_choice,
    serving_of,
    workspace_of,
)
from tests.engine.decide_again import digest_of_decisions

# Invariant 1: served frequencies equal logged probabilities --------------------------------------

DRAWN = """\
surfaces:
  home:
    owner: o@example.com
    metrics: {click: {window: 1h, range: [0, 1]}}
    reward: {click: 1.0}
    attributes: {weeks: integer}
    slots:
      layout:
        default: A
        policy: outside
        actions: {A: {value: 1}, B: {value: 2}, C: {value: 3}, D: {value: 4}}
        rules:
          - {id: settled_only, kind: eligibility, actions: [D], when: "weeks >= 1", reason: r}
policies:
  outside: {kind: weighted, weights: {A: 1, B: 2, C: 5, D: 2}, floor: 0.2 STICKY}
  inside: {kind: weighted, weights: {A: 6, B: 1, D: 1}, floor: 0.4 STICKY}
holdouts:
  h: {share: 0.15}
layers:
  l:
    e:
      range: [0.1, 0.8]
      ramp: 0.7
      variants:
        control: {weight: 1, slots: {home.layout: B}}
        bandit: {weight: 3, slots: {home.layout: {policy: inside}}}
"""
DRAWS = {"decision": "", "sticky": ", draw: sticky, period: 7d"}


@pytest.mark.parametrize("draw", DRAWS)
def test_paths_and_actions_are_served_as_often_as_the_log_says(draw: str) -> None:
    """Holdout × layer × ramp × variant × action: each joint frequency is the logged product.

    Units are independent, so that a cell's count is binomial; χ² over all cells, which sees any
    factor that is dropped or doubled.
    """
    serving = serving_of(workspace_of(DRAWN.replace("STICKY", DRAWS[draw])))
    units = 12_000
    counts: Counter[tuple[str, str]] = Counter()
    logged: defaultdict[tuple[str, str], set[float]] = defaultdict(set)
    outside = 0
    for unit in range(units):
        choice = only_choice(decided(serving, "home", unit, number=unit, context={"weeks": 3}))
        if choice.path is None:
            outside += 1
            continue
        cell = (choice.path, choice.action)
        counts[cell] += 1
        logged[cell].add(round(choice.path_probability * choice.propensity, 15))
    assert {path for path, _ in counts} == {"h", "e.control", "e.bandit"}
    assert all(len(probabilities) == 1 for probabilities in logged.values())
    expected = {cell: units * next(iter(p)) for cell, p in logged.items()}
    # By hand: e takes (1 - .15) × .7 × .7 of the units, control a quarter of those.
    assert expected["h", "A"] == pytest.approx(units * 0.15)
    assert expected["e.control", "B"] == pytest.approx(units * 0.85 * 0.7 * 0.7 / 4)
    assert expected["e.bandit", "A"] == pytest.approx(
        units * 0.85 * 0.7 * 0.7 * 3 / 4 * (0.6 * 6 / 8 + 0.4 / 4)
    )
    cells = sorted(counts)
    result = chisquare(
        [*(counts[c] for c in cells), outside],
        [*(expected[c] for c in cells), units - sum(expected.values())],
    )
    assert result.pvalue > 1e-3


@pytest.mark.parametrize("draw", DRAWS)
def test_each_action_is_drawn_as_often_as_its_propensities_add_up_to(draw: str) -> None:
    """Σ(1{a} − p) per path and action, over eligible sets that differ, within 4.5 deviations."""
    serving = serving_of(workspace_of(DRAWN.replace("STICKY", DRAWS[draw])))
    sums: defaultdict[tuple[str | None, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for number in range(9_000):
        # Few units and many decisions each, or many units with one draw each.
        unit = number % 60 if draw == "decision" else number
        context = {"weeks": number % 2}
        choice = only_choice(decided(serving, "home", unit, number=number, context=context))
        if choice.pmf is None:
            continue
        assert choice.propensity == choice.pmf[choice.eligible.index(choice.action)]
        for action, p in zip(choice.eligible, choice.pmf, strict=True):
            sums[choice.path, action][0] += (choice.action == action) - p
            sums[choice.path, action][1] += p * (1 - p)
    assert {path for path, _ in sums} == {None, "e.bandit"}
    assert len(sums) == 8
    for cell, (difference, variance) in sums.items():
        assert abs(difference) < 4.5 * math.sqrt(variance), cell


@pytest.mark.parametrize("draw", DRAWS)
def test_a_unit_that_is_drawn_often_meets_its_logged_propensities(draw: str) -> None:
    """χ² of one unit's actions: over its decisions, or over its periods."""
    serving = serving_of(workspace_of(DRAWN.replace("STICKY", DRAWS[draw])))
    records = [
        decided(serving, "home", 9, number=i, at=NOW + i * 7 * DAY, context={"weeks": 5})
        for i in range(3_000)
    ]
    choices = [only_choice(record) for record in records]
    (pmf,) = {choice.pmf for choice in choices}
    assert pmf is not None
    counts = Counter(choice.action for choice in choices)
    assert chisquare([counts[a] for a in "ABCD"], [p * 3_000 for p in pmf]).pvalue > 1e-3


def test_a_bandit_that_has_learned_is_drawn_as_it_is_logged() -> None:
    workspace = workspace_of(
        DRAWN.replace("STICKY", "").replace(
            "kind: weighted, weights: {A: 6, B: 1, D: 1}", "kind: thompson_beta"
        )
    )
    layout = workspace.surfaces["home"].slots["layout"]
    learner = workspace.learners["inside:home.layout@e.bandit"]
    policy = fresh(learner.policy)
    actions = tuple(layout.actions.values())
    policy.learn(
        [
            Feedback({}, actions, a.id, 0.25, float(i % (k + 2) == 0))
            for i in range(30)
            for k, a in enumerate(actions)
        ]
    )
    serving = serving_of(workspace, {learner.id: policy})
    difference: defaultdict[str, float] = defaultdict(float)
    variance: defaultdict[str, float] = defaultdict(float)
    drawn = 0
    for number in range(6_000):
        record = decided(serving, "home", number % 200, number=number, context={"weeks": 2})
        choice = only_choice(record)
        if choice.path != "e.bandit" or choice.pmf is None:
            continue
        drawn += 1
        assert choice.expected is not None
        assert sum(choice.pmf) == pytest.approx(1, abs=1e-12)
        for action, p in zip(choice.eligible, choice.pmf, strict=True):
            difference[action] += (choice.action == action) - p
            variance[action] += p * (1 - p)
    assert drawn > 1_000
    for action in "ABCD":
        assert abs(difference[action]) < 4.5 * math.sqrt(variance[action])


def test_the_floor_is_spread_over_the_eligible_actions_and_logged_beside_the_policys_own() -> None:
    serving = serving_of(
        workspace_of(DRAWN.replace("STICKY", "").replace("share: 0.15", "share: 0"))
    )
    record = next(
        r
        for unit in range(99)
        if (r := decided(serving, "home", unit, context={"weeks": 0})).choices[0].path == "e.bandit"
    )
    choice = only_choice(record)
    assert choice.eligible == ("A", "B", "C")
    assert choice.pmf_policy == pytest.approx((6 / 7, 1 / 7, 0))
    assert choice.pmf == pytest.approx((0.6 * 6 / 7 + 0.4 / 3, 0.6 / 7 + 0.4 / 3, 0.4 / 3))
    assert choice.floor == 0.4


# Assignments -------------------------------------------------------------------------------------


def _by_path(text: str, path: str | None, **request: Any) -> DecisionRecord:
    """The first of many units' decisions that took a path."""
    serving = serving_of(workspace_of(text))
    for unit in range(200):
        record = decided(serving, "home", unit, number=unit, **request)
        if record.choices[0].path == path:
            return record
    raise AssertionError(path)


PLAIN = DRAWN.replace("STICKY", "")


def test_a_held_out_unit_has_the_default_with_certainty_and_no_experiment() -> None:
    record = _by_path(PLAIN, "h", context={"weeks": 3})
    choice = only_choice(record)
    assert (choice.action, choice.propensity, choice.reason) == ("A", 1.0, "holdout")
    assert (choice.policy, choice.pmf, choice.draw) == (None, None, None)
    assert choice.path_factors == {"holdout.h": 0.15}
    assert [(a.kind, a.id, a.variant, a.probability) for a in record.assignments] == [
        ("holdout", "h", "holdout", 0.15)
    ]
    assert choice.verdicts == {"settled_only": "TT"}


def test_a_pinned_variant_has_its_action_with_certainty() -> None:
    record = _by_path(PLAIN, "e.control", context={"weeks": 3})
    choice = only_choice(record)
    assert (choice.action, choice.propensity, choice.reason) == ("B", 1.0, "experiment")
    assert (choice.policy, choice.draw) == (None, None)
    assert choice.path_factors == {
        "holdout.h": 0.85,
        "layer.l": pytest.approx(0.7),
        "ramp.e": 0.7,
        "variant.e": 0.25,
    }
    assert choice.path_probability == pytest.approx(record.assignments[0].probability)


def test_a_pinned_action_that_a_rule_closes_gives_way_to_the_default() -> None:
    pinned = PLAIN.replace("{home.layout: B}", "{home.layout: D}")
    choice = only_choice(_by_path(pinned, "e.control", context={"weeks": 0}))
    assert (choice.action, choice.propensity, choice.reason) == ("A", 1.0, "rule")
    assert choice.eligible == ("A", "B", "C")
    assert choice.path == "e.control"
    assert choice.evaluable


def test_outside_of_experiments_the_slot_has_its_own_policy() -> None:
    choice = only_choice(_by_path(PLAIN, None, context={"weeks": 3}))
    assert (choice.reason, choice.policy) == ("policy", "outside")
    assert choice.path_factors == {"holdout.h": 0.85}


def test_a_slot_that_no_variant_names_is_decided_as_if_there_were_no_experiment() -> None:
    two = PLAIN.replace("slots: {home.layout: B}", "slots: {home.hero: Y}").replace(
        "    slots:\n",
        "    slots:\n      hero: {default: X, actions: {X: {value: 1}, Y: {value: 2}}}\n",
        1,
    )
    serving = serving_of(workspace_of(two))
    records = [decided(serving, "home", unit, number=unit) for unit in range(60)]
    record = next(r for r in records if any(c.path == "e.control" for c in r.choices))
    hero, layout = record.choices
    assert (hero.slot, hero.action, hero.reason) == ("hero", "Y", "experiment")
    assert (layout.slot, layout.path, layout.policy) == ("layout", None, "outside")


def test_a_slot_without_policy_has_its_default() -> None:
    text = PLAIN.replace("        policy: outside\n", "")
    choice = only_choice(_by_path(text, None, context={"weeks": 3}))
    assert (choice.action, choice.propensity, choice.reason) == ("A", 1.0, "default")


# Invariant 5: one experiment's life moves nobody elsewhere ---------------------------------------

TWO_SLOTS = """\
surfaces:
  home:
    owner: o@example.com
    slots:
      layout: {default: A, policy: p, actions: {A: {value: 1}, B: {value: 2}, C: {value: 3}}}
      hero: {default: X, policy: p, actions: {X: {value: 1}, Y: {value: 2}, Z: {value: 3}}}
  mail:
    owner: o@example.com
    slots:
      subject: {default: S, policy: p, actions: {S: {value: 1}, T: {value: 2}}}
policies: {p: {kind: uniform}}
holdouts: {h: {share: 0.1}}
layers:
  top:
    first:
      range: [0.0, 0.4]
      ramp: 0.5
      variants:
        a: {slots: {home.layout: A, mail.subject: S}}
        b: {slots: {home.layout: {policy: p}, mail.subject: T}}
"""
SECOND = """\
    second:
      range: [0.4, 0.9]
      variants: {a: {slots: {home.layout: B}}, b: {slots: {home.layout: C}}}
"""
OTHER_LAYER = """\
  other:
    third: {range: [0.0, 1.0], variants: {a: {slots: {home.hero: X}}, b: {slots: {home.hero: Y}}}}
"""


def _lives(text: str) -> dict[str, dict[int, Any]]:
    """By experiment: what its units were given, on every surface."""
    serving = serving_of(workspace_of(text))
    lives: defaultdict[str, dict[int, Any]] = defaultdict(dict)
    for unit in range(1_500):
        for surface in ("home", "mail"):
            record = decided(serving, surface, unit, number=unit)
            for assignment in record.assignments:
                given = {
                    c.slot: c.action
                    for c in record.choices
                    if c.path and c.path.partition(".")[0] == assignment.id
                }
                lives[assignment.id][unit] = (assignment.variant, assignment.factors, given)
    return lives


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (TWO_SLOTS, TWO_SLOTS + SECOND),
        (TWO_SLOTS, TWO_SLOTS + OTHER_LAYER),
        (TWO_SLOTS + SECOND + OTHER_LAYER, TWO_SLOTS + OTHER_LAYER),
        (
            TWO_SLOTS + SECOND + OTHER_LAYER,
            TWO_SLOTS + SECOND.replace("range", "state: ended\n      range") + OTHER_LAYER,
        ),
        (
            TWO_SLOTS + SECOND + OTHER_LAYER,
            TWO_SLOTS + SECOND.replace("range", "state: paused\n      range") + OTHER_LAYER,
        ),
        (TWO_SLOTS + SECOND, TWO_SLOTS.replace("ramp: 0.5", "ramp: 0.9") + SECOND),
    ],
    ids=["adding", "adding a layer", "removing", "ending", "pausing", "ramping"],
)
def test_the_life_of_an_experiment_moves_nobody_in_another(before: str, after: str) -> None:
    old, new = _lives(before), _lives(after)
    changed = {"first"} if "ramp: 0.9" in after else set(old) ^ set(new)
    assert len(changed) == 1
    kept = set(old) & set(new) - changed
    assert kept >= {"h"}
    for id_ in kept:
        assert old[id_] == new[id_], id_


def test_raising_a_ramp_moves_nobody_who_is_in() -> None:
    old, new = _lives(TWO_SLOTS), _lives(TWO_SLOTS.replace("ramp: 0.5", "ramp: 0.9"))
    assert len(new["first"]) > 1.5 * len(old["first"])
    for unit, (variant, _, given_) in old["first"].items():
        assert new["first"][unit][0] == variant
        assert new["first"][unit][2] == given_


def test_a_unit_has_one_variant_on_all_surfaces_that_an_experiment_spans() -> None:
    serving = serving_of(workspace_of(TWO_SLOTS))
    both = 0
    for unit in range(300):
        home, mail = (decided(serving, s, unit).assignments for s in ("home", "mail"))
        assert home == mail
        both += any(a.kind == "experiment" for a in home)
    assert both > 30


# Invariant 3: no hard rule is ever broken --------------------------------------------------------

TYPES = {"n": "integer", "s": "string", "b": "boolean", "t": "list"}
_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "n": st.integers(-2, 2),
    "s": st.sampled_from(["x", "y"]),
    "b": st.booleans(),
    "t": st.lists(st.sampled_from(["x", "y"]), max_size=2),
    "action.f": st.integers(-2, 2),
}
_CLAUSES = st.one_of(
    st.tuples(
        st.sampled_from(["n", "action.f"]), st.sampled_from(["<", ">=", "==", "!="]), _VALUES["n"]
    ),
    st.tuples(st.just("s"), st.sampled_from(["==", "!="]), _VALUES["s"]),
    st.tuples(st.just("b"), st.just("is"), st.just(True)),
    st.tuples(st.just("t"), st.just("holds"), _VALUES["s"]),
)
_TREES: st.SearchStrategy[Any] = st.recursive(
    _CLAUSES,
    lambda inner: st.one_of(
        st.tuples(st.just("!"), inner),
        st.tuples(st.just("&&"), inner, inner),
        st.tuples(st.just("||"), inner, inner),
    ),
    max_leaves=5,
)
_RULES = st.lists(
    st.tuples(
        st.sampled_from(["eligibility", "suppression"]),
        _TREES,
        st.none() | st.lists(st.sampled_from("BCD"), min_size=1, max_size=3, unique=True),
    ),
    max_size=4,
)
_CONTEXTS = st.fixed_dictionaries(
    {}, optional={**{n: st.none() | _VALUES[n] for n in TYPES}, "undeclared": st.just(1)}
)
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "<": lambda a, b: a < b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "is": lambda a, b: a is b,
    "holds": lambda a, b: b in a,
}


def _text(tree: Any) -> str:
    match tree:
        case ("!", inner):
            return f"!({_text(inner)})"
        case ("&&" | "||" as operator, left, right):
            return f"({_text(left)}) {operator} ({_text(right)})"
        case (name, "is", _):
            return str(name)
        case (name, "holds", value):
            return f'"{value}" in {name}'
        case (name, operator, str(value)):
            return f'{name} {operator} "{value}"'
        case (name, operator, value):
            return f"{name} {operator} {value}"
    raise AssertionError(tree)


def _verdict(tree: Any, seen: dict[str, Any]) -> bool | None:
    """Kleene's three values, worked out anew."""
    match tree:
        case ("!", inner):
            verdict = _verdict(inner, seen)
            return None if verdict is None else not verdict
        case ("&&" | "||" as operator, left, right):
            both = {_verdict(left, seen), _verdict(right, seen)}
            decisive = operator == "||"
            return decisive if decisive in both else None if None in both else not decisive
        case (name, operator, value):
            given_ = seen.get(name)
            return None if given_ is None else _COMPARISONS[operator](given_, value)
    raise AssertionError(tree)


def _ruled(rules: Any, kind: str) -> Workspace:
    actions = {
        a: {"value": a, "features": {"f": f}} for a, f in zip("ABC", (1, -1, 0), strict=True)
    }
    content = {
        "surfaces": {
            "home": {
                "owner": "o@example.com",
                "attributes": TYPES,
                "metrics": {"click": {"window": "1h", "range": [0, 1]}},
                "reward": {"click": 1.0},
                "slots": {
                    "layout": {
                        "default": "A",
                        "policy": "p",
                        "actions": {**actions, "D": {"value": "D"}},
                        "rules": [
                            {"id": f"r{i}", "kind": k, "when": _text(tree), "reason": "r"}
                            | ({"actions": covered} if covered else {})
                            for i, (k, tree, covered) in enumerate(rules)
                        ],
                    }
                },
            }
        },
        "policies": {"p": {"kind": kind}},
        "layers": {
            "l": {
                "e": {
                    "range": [0.0, 0.5],
                    "variants": {a: {"slots": {"home.layout": a}} for a in "ABCD"},
                }
            }
        },
    }
    return workspace_from_content(msgspec.json.encode(content))


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    rules=_RULES,
    contexts=st.lists(_CONTEXTS, min_size=1, max_size=4),
    kind=st.sampled_from(["uniform", "thompson_beta"]),
)
def test_no_action_is_served_that_a_rule_closes(
    rules: Any, contexts: list[dict[str, Any]], kind: str
) -> None:
    """The eligible set is exactly what an independent reading of the rules leaves open.

    Unknown opens nothing: an attribute that is missing, null or undeclared, or a feature that an
    action lacks.
    """
    _features = {"A": {"action.f": 1}, "B": {"action.f": -1}, "C": {"action.f": 0}, "D": {}}
    serving = serving_of(_ruled(rules, kind))
    for number, context in enumerate(contexts):
        open_ = {"A"}
        for action in "BCD":
            seen = {**context, **_features[action]}
            closed = [
                _verdict(tree, seen) is not (kind_ == "eligibility")
                for kind_, tree, covered in rules
                if covered is None or action in covered
            ]
            if not any(closed):
                open_.add(action)
        for unit in range(5):
            choice = only_choice(decided(serving, "home", unit, number=number, context=context))
            assert set(choice.eligible) == open_
            assert choice.action in open_
            assert choice.fallback is None


def test_an_unknown_attribute_opens_nothing() -> None:
    text = PLAIN.replace("actions: [D]", "actions: [B, C, D]")
    serving = serving_of(workspace_of(text))
    for context in ({}, {"weeks": None}):
        for unit in range(40):
            choice = only_choice(decided(serving, "home", unit, context=context))
            assert choice.action == "A"
            assert choice.eligible == ("A",)
            assert choice.verdicts == {"settled_only": "UU"}


def test_a_suppression_over_an_unknown_attribute_suppresses() -> None:
    text = PLAIN.replace("kind: eligibility, actions: [D]", "kind: suppression, actions: [D]")
    serving = serving_of(workspace_of(text))
    assert "D" not in only_choice(decided(serving, "home", 1)).eligible
    assert "D" in only_choice(decided(serving, "home", 1, context={"weeks": 0})).eligible


def test_where_only_the_default_is_open_it_is_served_by_rule_with_certainty() -> None:
    text = PLAIN.replace("actions: [D]", "actions: [B, C, D]")
    choice = only_choice(_by_path(text, None))
    assert (choice.action, choice.propensity, choice.reason) == ("A", 1.0, "rule")
    assert (choice.policy, choice.pmf, choice.draw) == ("outside", None, None)


def test_a_rule_on_a_surface_closes_every_slot_and_is_kept_once() -> None:
    text = TWO_SLOTS.replace(
        "    owner: o@example.com\n    slots:\n      layout",
        "    owner: o@example.com\n    attributes: {ok: boolean}\n"
        "    rules: [{id: consent, kind: eligibility, when: ok && ok, reason: r}]\n"
        "    slots:\n      layout",
    )
    record = decided(serving_of(workspace_of(text)), "home", 1, context={"ok": False})
    assert record.verdicts == {"consent": "FF-"}
    assert [c.verdicts for c in record.choices] == [{}, {}]
    assert [c.eligible for c in record.choices] == [("X",), ("A",)]


# Sticky draws ------------------------------------------------------------------------------------

STICKY = """\
surfaces:
  home:
    owner: o@example.com
    attributes: {weeks: integer, no_b: boolean, no_c: boolean}
    slots:
      layout:
        default: A
        policy: p
        actions: {A: {value: 1}, B: {value: 2}, C: {value: 3}}
        rules:
          - {id: b, kind: suppression, actions: [B], when: no_b, reason: r}
          - {id: c, kind: suppression, actions: [C], when: no_c, reason: r}
policies:
  p: {kind: weighted, weights: {B: 1, C: 1}, draw: sticky, period: 7d, salt: s}
"""
OPEN = {"no_b": False, "no_c": False}
WEEK = 7 * DAY
START = NOW // WEEK * WEEK


def _sticky(
    unit: int, closed: dict[str, bool], at: int, seen: dict[str, StickyDraw]
) -> DecisionRecord:
    serving = serving_of(workspace_of(STICKY))
    record = decided(serving, "home", unit, number=at % 997, at=at, sticky=seen, context=closed)
    seen.update(draws_of(record))
    return record


def test_a_sticky_draw_is_made_once_in_a_period_and_referred_to_after() -> None:
    seen: dict[str, StickyDraw] = {}
    first = only_choice(_sticky(1, OPEN, START + HOUR, seen))
    assert first.draw is not None
    assert first.draw.drawn
    assert first.draw.expires_at == START + WEEK
    assert first.draw.uniform == bucket("s", f"home:layout:u:1:{START // WEEK}")
    assert first.pmf == (0.0, 0.5, 0.5)
    for at in (START + 2 * HOUR, START + WEEK - 1):
        later = only_choice(_sticky(1, OPEN, at, seen))
        assert later.draw is not None
        assert not later.draw.drawn
        assert (later.draw.id, later.draw.key) == (first.draw.id, first.draw.key)
        assert (later.action, later.propensity) == (first.action, first.propensity)
        assert later.pmf is None
        assert later.snapshot == first.snapshot
    assert len(seen) == 1
    after = only_choice(_sticky(1, OPEN, START + WEEK, seen))
    assert after.draw is not None
    assert after.draw.drawn
    assert after.draw.uniform != first.draw.uniform


def test_a_sticky_draw_is_the_same_whichever_decision_makes_it() -> None:
    """It is hashed of unit and period: so two replicas that race draw alike."""
    serving = serving_of(workspace_of(STICKY))
    made = {
        only_choice(decided(serving, "home", 4, number=n, at=START + n, context=OPEN)).action
        for n in range(50)
    }
    assert len(made) == 1


def test_units_and_periods_are_drawn_apart() -> None:
    serving = serving_of(workspace_of(STICKY))
    over_units = Counter(
        only_choice(decided(serving, "home", u, context=OPEN)).action for u in range(600)
    )
    over_periods = Counter(
        only_choice(decided(serving, "home", 1, at=START + p * WEEK, context=OPEN)).action
        for p in range(600)
    )
    for counts in (over_units, over_periods):
        assert abs(counts["B"] - 300) < 4.5 * math.sqrt(150)


def _unit_that_draws(action: str) -> int:
    serving = serving_of(workspace_of(STICKY))
    return next(
        u
        for u in range(99)
        if only_choice(decided(serving, "home", u, at=START, context=OPEN)).action == action
    )


def test_a_drawn_action_that_is_closed_is_drawn_anew_with_a_fresh_uniform() -> None:
    seen: dict[str, StickyDraw] = {}
    unit = _unit_that_draws("B")
    first = only_choice(_sticky(unit, OPEN, START, seen))
    again = only_choice(_sticky(unit, {"no_b": True, "no_c": False}, START + HOUR, seen))
    assert first.draw is not None
    assert again.draw is not None
    assert again.draw.drawn
    assert (again.action, again.propensity, again.draw.redraw) == ("C", 1.0, 1)
    key = f"home:layout:u:{unit}:{START // WEEK}"
    assert again.draw.key == f"s:{key}:1"
    assert again.draw.uniform == bucket("s", f"{key}:1") != first.draw.uniform
    # From then on the new draw holds, even where the first action is open again.
    later = only_choice(_sticky(unit, OPEN, START + 2 * HOUR, seen))
    assert later.draw is not None
    assert (later.action, later.draw.drawn, later.draw.id) == ("C", False, again.draw.id)
    assert later.draw.redraw == 1
    third = only_choice(_sticky(unit, {"no_b": False, "no_c": True}, START + 3 * HOUR, seen))
    assert third.draw is not None
    assert (third.action, third.draw.redraw, third.draw.key) == ("B", 2, f"s:{key}:2")
    assert set(seen) == {f"s:{key}"}


def test_closing_another_action_does_not_draw_anew() -> None:
    seen: dict[str, StickyDraw] = {}
    unit = _unit_that_draws("C")
    first = only_choice(_sticky(unit, OPEN, START, seen))
    later = only_choice(_sticky(unit, {"no_b": True, "no_c": False}, START + HOUR, seen))
    assert later.draw is not None
    assert not later.draw.drawn
    assert (later.action, later.propensity) == ("C", first.propensity)


def _in(variant: str) -> str:
    return (
        "layers: {l: {e: {range: [0.0, 1.0], variants: "
        f"{{{variant}: {{slots: {{home.layout: {{policy: p}}}}}}}}}}}}}}\n"
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [("", _in("a")), (_in("a"), ""), (_in("a"), _in("b"))],
    ids=["outside, then a variant", "a variant, then outside", "two variants"],
)
@pytest.mark.parametrize("unit", range(4))
def test_a_sticky_draw_of_another_path_is_drawn_anew_with_a_fresh_uniform(
    before: str, after: str, unit: int
) -> None:
    """It was made by another variant's model, for another population's propensity."""
    old, new = (serving_of(workspace_of(STICKY + layers)) for layers in (before, after))
    first = decided(old, "home", unit, number=1, at=START, context=OPEN)
    seen = draws_of(first)
    again = decided(new, "home", unit, number=2, at=START + 1, context=OPEN, sticky=seen)
    made, drawn = only_choice(first), only_choice(again).draw
    assert made.draw is not None
    assert drawn is not None
    assert made.path != only_choice(again).path
    key = f"home:layout:u:{unit}:{START // WEEK}"
    assert made.draw.key == f"s:{key}"
    assert (drawn.drawn, drawn.redraw, drawn.key) == (True, 1, f"s:{key}:1")
    assert drawn.uniform == bucket("s", f"{key}:1") != made.draw.uniform
    assert only_choice(again).pmf == (0.0, 0.5, 0.5)
    # From then on the path has a draw of its own to refer to.
    later = decided(
        new, "home", unit, number=3, at=START + 2, context=OPEN, sticky={**seen, **draws_of(again)}
    )
    referred = only_choice(later)
    assert referred.draw is not None
    assert (referred.draw.drawn, referred.draw.id) == (False, drawn.id)
    assert referred.action == only_choice(again).action


def test_redraws_are_distributed_as_their_pmf_says() -> None:
    """A reused uniform would give every unit that lost B the same half of the interval."""
    text = STICKY.replace("{A: {value: 1}, B", "{D: {value: 4}, A: {value: 1}, B").replace(
        "{B: 1, C: 1}", "{B: 2, C: 1, D: 1}"
    )
    serving = serving_of(workspace_of(text))
    counts: Counter[str] = Counter()
    for unit in range(2_000):
        first = decided(serving, "home", unit, number=unit, context=OPEN)
        if only_choice(first).action == "B":
            closed = {"no_b": True, "no_c": False}
            again = decided(
                serving, "home", unit, number=unit + 9_999, sticky=draws_of(first), context=closed
            )
            counts[only_choice(again).action] += 1
    assert set(counts) == {"C", "D"}
    n = counts.total()
    assert n > 800
    assert abs(counts["C"] - n / 2) < 4.5 * math.sqrt(n / 4)


def test_a_decision_with_one_open_action_neither_draws_nor_refers() -> None:
    """Else a draw's reward would gain such decisions only where the default had been drawn."""
    seen: dict[str, StickyDraw] = {}
    _sticky(1, OPEN, START, seen)
    choice = only_choice(_sticky(1, {"no_b": True, "no_c": True}, START + HOUR, seen))
    assert (choice.action, choice.reason, choice.draw) == ("A", "rule", None)


def test_the_key_of_a_sticky_draw_names_salt_surface_slot_unit_and_period() -> None:
    spec = workspace_of(STICKY).policies["p"]
    assert sticky_key(spec, "home.layout", "u:1", START) == f"s:home:layout:u:1:{START // WEEK}"


def test_a_draw_per_decision_is_hashed_of_the_decision() -> None:
    record = _by_path(PLAIN, None, context={"weeks": 3})
    choice = only_choice(record)
    assert choice.draw is not None
    assert choice.draw.key == f"outside:home:layout:{record.decision_id}"
    assert choice.draw.uniform == bucket("outside", f"home:layout:{record.decision_id}")
    assert choice.draw.id == f"{record.decision_id}/layout"
    assert choice.draw.expires_at is None


# Fallbacks ---------------------------------------------------------------------------------------


def test_a_policy_that_cannot_choose_falls_back_to_the_default_and_says_why() -> None:
    text = PLAIN.replace("weights: {A: 1, B: 2, C: 5, D: 2}", "weights: {D: 1}")
    record = _by_path(text, None, context={"weeks": 0})
    choice = only_choice(record)
    assert (choice.action, choice.propensity, choice.reason) == ("A", 1.0, "fallback")
    assert not choice.evaluable
    assert choice.fallback is not None
    assert choice.fallback.startswith("policy outside: none of the eligible actions")
    assert record.fallback == choice.fallback
    assert (choice.pmf, choice.draw) == (None, None)


def test_a_fallback_of_one_slot_leaves_the_others_as_they_are() -> None:
    text = (
        TWO_SLOTS.replace("hero: {default: X, policy: p", "hero: {default: X, policy: q")
        .replace(
            "policies: {p: {kind: uniform}}",
            "policies: {p: {kind: uniform}, q: {kind: weighted, weights: {Y: 1}}}",
        )
        .replace(
            "    slots:\n      layout",
            "    attributes: {ok: boolean}\n    slots:\n      layout",
        )
        .replace(
            "Z: {value: 3}}}",
            "Z: {value: 3}}, "
            "rules: [{id: y, kind: eligibility, actions: [Y], when: ok, reason: r}]}",
        )
    )
    record = next(
        r
        for u in range(50)
        if not (r := decided(serving_of(workspace_of(text)), "home", u)).assignments
    )
    hero, layout = record.choices
    assert (hero.reason, layout.reason) == ("fallback", "policy")
    assert record.fallback == hero.fallback
    assert layout.fallback is None


@pytest.mark.parametrize(
    ("context", "why"),
    [
        ({}, "required attribute weeks is missing"),
        ({"weeks": None}, "required attribute weeks is missing"),
        (
            {"weeks": {"value": 3, "at": "2024-10-03T08:59:59Z"}},
            "required attribute weeks is stale",
        ),
    ],
)
def test_without_a_required_attribute_every_slot_answers_its_default(
    context: dict[str, Any], why: str
) -> None:
    text = PLAIN.replace("weeks: integer", "weeks: {type: integer, required: true, max_age: 1d}")
    record = decided(serving_of(workspace_of(text)), "home", 1, context=context)
    choice = only_choice(record)
    assert record.fallback == choice.fallback == why
    assert (choice.action, choice.propensity, choice.reason) == ("A", 1.0, "fallback")
    assert not choice.evaluable
    assert (choice.eligible, choice.path, choice.policy) == (("A",), None, None)


# Attributes --------------------------------------------------------------------------------------

FACTS = """\
surfaces:
  home:
    owner: o@example.com
    metrics: {click: {window: 1h, range: [0, 1]}}
    reward: {click: 1.0}
    triggers: [start, page]
    attributes:
      weeks: {type: integer, max_age: 1d}
      risk: number
      device: string
      vip: boolean
      seen_at: timestamp
      tastes: list
    slots:
      layout:
        default: A
        policy: p
        actions: {A: {value: 1}, B: {value: 2}}
        rules:
          - {id: r, kind: eligibility, actions: [B], when: 'RULE', reason: r}
policies: {p: {kind: lin_ucb}}
"""


def _facts(context: dict[str, Any], rule: str = "weeks >= 1", **request: Any) -> DecisionRecord:
    serving = serving_of(workspace_of(FACTS.replace("RULE", rule)))
    return decided(serving, "home", 1, context=context, **request)


def test_attributes_are_kept_with_their_age_and_the_unknown_with_the_reason() -> None:
    record = _facts(
        {
            "weeks": {"value": 3, "at": "2024-10-04T08:00:00Z"},
            "device": "tv",
            "risk": None,
            "colour": "red",
            "vip": {"value": True, "at": "2024-10-04T11:00:30+02:00"},
        }
    )
    assert record.context == {"weeks": 3, "device": "tv", "vip": True}
    assert record.ages_us == {"weeks": HOUR}
    assert record.unknown == {
        "colour": "undeclared",
        "risk": "missing",
        "seen_at": "missing",
        "tastes": "missing",
    }


def test_a_stale_attribute_is_kept_but_unknown() -> None:
    fresh_ = _facts({"weeks": {"value": 3, "at": "2024-10-03T09:00:00Z"}})
    stale = _facts({"weeks": {"value": 3, "at": "2024-10-03T08:59:59.999999Z"}})
    assert fresh_.choices[0].verdicts == {"r": "TT"}
    assert stale.choices[0].verdicts == {"r": "UU"}
    assert stale.context == {"weeks": 3}
    assert stale.ages_us == {"weeks": DAY + 1}
    assert stale.unknown["weeks"] == "stale"
    assert only_choice(stale).eligible == ("A",)


def test_an_undeclared_attribute_is_named_but_not_kept() -> None:
    record = _facts({"weeks": 3, "secret": {"any": ["thing", None]}, "x" * 300: 1})
    assert record.unknown["secret"] == "undeclared"
    assert record.unknown["x" * 256] == "undeclared"
    assert b"thing" not in encode_record(record)


def test_times_and_lists_are_read_by_rules_and_kept_from_policies() -> None:
    """A policy that reads every attribute it is given would refuse them."""
    rule = '"sport" in tastes && seen_at < timestamp("2024-10-01T00:00:00Z") && weeks >= 1'
    context = {"weeks": 2, "tastes": ["news", "sport"], "seen_at": "2024-09-30T22:59:59-01:00"}
    record = _facts(context, rule)
    assert record.context["seen_at"] == "2024-09-30T23:59:59.000000Z"
    choice = only_choice(record)
    assert choice.verdicts == {"r": "TTTT"}
    assert (choice.fallback, choice.reason) == (None, "policy")


def test_a_number_may_be_whole_and_an_integer_may_not_be_broken() -> None:
    assert _facts({"risk": 3}).context == {"risk": 3}
    with pytest.raises(RequestError, match=r"`context.weeks` is 3.0; give an integer"):
        _facts({"weeks": 3.0})


@pytest.mark.parametrize(
    ("name", "value", "repair"),
    [
        ("weeks", "3", "an integer"),
        ("weeks", True, "an integer"),
        ("weeks", 2**53 + 1, "an integer of at most 2^53"),
        ("weeks", [3], "an integer"),
        ("risk", math.nan, "a finite number"),
        ("risk", math.inf, "a finite number"),
        ("risk", "0.3", "a finite number"),
        ("risk", 10**400, "a finite number"),
        ("risk", 2**63, "a finite number"),
        ("device", 3, "a string"),
        ("device", "x" * 1_001, "a string of at most 1,000 characters"),
        ("device", "\ud800", "a string"),
        ("vip", 1, "true or false"),
        ("vip", "true", "true or false"),
        ("seen_at", 1_700_000_000, "a time as RFC 3339"),
        ("seen_at", "2024-10-04T09:00:00", "a time as RFC 3339 with zone"),
        ("seen_at", "yesterday", "a time as RFC 3339"),
        ("seen_at", "0001-01-01T00:00:00+14:00", "a time as RFC 3339"),
        ("seen_at", "9999-12-31T23:59:59-14:00", "a time as RFC 3339"),
        ("tastes", "sport", "a list of at most 1,000 strings"),
        ("tastes", ["sport", 1], "a list of at most 1,000 strings"),
        ("tastes", ["\udfff"], "a list of at most 1,000 strings"),
        ("tastes", ["x"] * 1_001, "a list of at most 1,000 strings"),
    ],
)
def test_an_attribute_of_another_kind_is_refused_with_field_value_and_repair(
    name: str, value: Any, repair: str
) -> None:
    with pytest.raises(RequestError) as caught:
        _facts({name: value})
    assert caught.value.field == f"context.{name}"
    assert f"give {repair}" in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("given_", "field"),
    [
        ({"value": 3}, "context.weeks"),
        ({"value": 3, "at": "2024-10-04T08:00:00Z", "by": "x"}, "context.weeks"),
        ({"value": 3, "at": None}, "context.weeks.at"),
        ({"value": 3, "at": "2024-10-04"}, "context.weeks.at"),
        ({"value": 3, "at": "2024-10-04T09:01:01Z"}, "context.weeks.at"),
        ({"value": "3", "at": "2024-10-04T08:00:00Z"}, "context.weeks"),
    ],
)
def test_a_dated_attribute_is_refused_where_its_parts_are_wrong(given_: Any, field: str) -> None:
    with pytest.raises(RequestError) as caught:
        _facts({"weeks": given_})
    assert caught.value.field == field


# Requests ----------------------------------------------------------------------------------------


def test_an_unknown_surface_is_not_found() -> None:
    with pytest.raises(
        NotFoundError, match='`surface` is "hme", which is not declared; known: "home"'
    ):
        decided(serving_of(workspace_of(PLAIN)), "hme")


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"trigger": "sleep"}, "trigger"),
        ({"slots": ()}, "slots"),
        ({"slots": ("layout", "layout")}, "slots"),
        ({"slots": ("layout", "hero")}, "slots[1]"),
        ({"slots": ("x" * 10_000,)}, "slots[0]"),
    ],
)
def test_a_trigger_or_slot_that_is_not_declared_is_refused(
    request_: dict[str, Any], field: str
) -> None:
    with pytest.raises(RequestError) as caught:
        _facts({}, **request_)
    assert caught.value.field == field
    assert len(str(caught.value)) < 250


def test_a_surface_can_demand_a_trigger() -> None:
    text = FACTS.replace("RULE", "vip").replace(
        "    attributes:", "    require_trigger: true\n    attributes:", 1
    )
    serving = serving_of(workspace_of(text))
    with pytest.raises(RequestError, match='`trigger` is missing; give one of "start", "page"'):
        decided(serving, "home")
    assert decided(serving, "home", trigger="page").trigger == "page"


def test_slots_are_decided_in_the_order_asked_and_alike_whichever_are_asked() -> None:
    """A slot's draw is its own: asking for one alone changes nothing."""
    serving = serving_of(workspace_of(TWO_SLOTS))
    for unit in range(50):
        both = {c.slot: c for c in decided(serving, "home", unit).choices}
        turned = decided(serving, "home", unit, slots=("layout", "hero")).choices
        assert [c.slot for c in turned] == ["layout", "hero"]
        assert {c.slot: c for c in turned} == both
        assert decided(serving, "home", unit, slots=("hero",)).choices == (both["hero"],)


@pytest.mark.parametrize("name", ["user_id", "anonymous_id", "request_id", "traceparent"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "is empty"),
        ("x" * 257, "has 257 characters; give at most 256"),
        ("x" * 10_000, "has 10,000 characters"),
        ("a\nb", "control character"),
        ("a\x00b", "control character"),
        ("\ud800", "control character"),
    ],
)
def test_an_id_that_is_none_is_refused(name: str, value: str, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        replace(DecideRequest(surface="home", user_id="1"), **{name: value})  # type: ignore[arg-type]  # the four are all text
    assert caught.value.field == name
    assert len(str(caught.value)) < 200


def test_somebody_must_be_named() -> None:
    with pytest.raises(RequestError, match="give at least one"):
        DecideRequest(surface="home")


@pytest.mark.parametrize("deadline_ms", [0, -1, 60_001])
def test_a_deadline_out_of_bounds_is_refused(deadline_ms: int) -> None:
    with pytest.raises(RequestError) as caught:
        DecideRequest(surface="home", user_id="1", deadline_ms=deadline_ms)
    assert caught.value.field == "deadline_ms"


def test_a_context_of_too_many_attributes_is_refused() -> None:
    with pytest.raises(RequestError, match="give at most 500"):
        DecideRequest(surface="home", user_id="1", context={str(i): i for i in range(501)})


def test_the_unit_is_the_first_identifier_that_is_given() -> None:
    assert DecideRequest(surface="home", user_id="7", anonymous_id="x").unit == "u:7"
    assert DecideRequest(surface="home", anonymous_id="x").unit == "a:x"


# The record and its purity -----------------------------------------------------------------------


def test_a_record_holds_all_that_the_decision_was_made_of() -> None:
    workspace = workspace_of("time_zone: Europe/Berlin\n" + FACTS.replace("RULE", "weeks >= 1"))
    serving = serving_of(workspace)
    request = DecideRequest(
        surface="home",
        user_id="7",
        anonymous_id="x",
        trigger="start",
        context={"weeks": 2},
        request_id="r1",
        traceparent="00-ab-cd-01",
    )
    id_ = uuid7(NOW, 5)
    record = decide(serving, request, Inputs(), decision_id=id_, now_us=NOW, origin="simulate")
    assert (record.decision_id, record.request_id, record.origin) == (id_, "r1", "simulate")
    assert (record.decided_at, record.time_zone) == (NOW, "Europe/Berlin")
    assert (record.identity.user_id, record.identity.anonymous_id) == ("7", "x")
    assert (record.unit, record.surface, record.trigger) == ("u:7", "home", "start")
    assert (record.revision, record.traceparent) == (workspace.revision, "00-ab-cd-01")
    assert (record.slates, record.caps, record.suppressed, record.contacts) == ({}, {}, (), ())
    choice = only_choice(record)
    (learner,) = workspace.learners.values()
    assert (choice.policy, choice.learner, choice.spec) == ("p", learner.id, learner.spec)
    assert choice.snapshot == serving.models[learner.id].snapshot
    assert choice.candidates == choice.eligible == ("A", "B")
    assert choice.expected is not None
    assert len(choice.expected) == 2


def test_a_decision_leaves_no_trace_on_the_model_that_made_it() -> None:
    workspace = workspace_of(FACTS.replace("RULE", "weeks >= 1"))
    serving = serving_of(workspace)
    models: dict[str, Policy] = {id_: m.policy for id_, m in serving.models.items()}
    before = {id_: policy.dumps() for id_, policy in models.items()}
    for unit in range(20):
        decided(serving, "home", unit, number=unit, context={"weeks": unit, "device": str(unit)})
    assert {id_: policy.dumps() for id_, policy in models.items()} == before


def test_the_same_inputs_give_the_same_bytes_in_another_process() -> None:
    """Invariant 2, under two other hash seeds."""
    here = digest_of_decisions()
    for seed in ("1", "4242"):
        there = subprocess.run(
            [sys.executable, "-m", "tests.engine.decide_again"],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert there.stdout.strip() == here


def test_now_is_the_time_that_was_passed_in() -> None:
    assert datetime.fromtimestamp(NOW / 1e6, UTC).isoformat() == "2024-10-04T09:00:00+00:00"
