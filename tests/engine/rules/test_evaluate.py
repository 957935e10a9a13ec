"""What an evaluation says: the verdict, and the verdict of each clause."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.errors import RuleError
from engine.rules import Evaluation, parse
from tests.engine.rules.random_rules import random_attributes, random_rule

NAIVE = datetime(2026, 1, 1, tzinfo=UTC).replace(tzinfo=None)
VERDICTS = {"T": True, "F": False, "U": None}


@pytest.mark.parametrize(
    ("text", "verdict", "clauses"),
    [
        ("t && t", True, "TT"),
        ("f && t", False, "F-"),
        ("u && f", False, "UF"),
        ("u && t", None, "UT"),
        ("t || f", True, "T-"),
        ("u || t", True, "UT"),
        ("u || f", None, "UF"),
        ("!f", True, "F"),
        ("!u", None, "U"),
        ("!!t", True, "T"),
        ("f && (t || u) || t", True, "F--T"),
        ("t && (f || u) && f", False, "TFUF"),
        ("!(t && f) && u", None, "TFU"),
    ],
)
def test_logic_is_kleenes_and_stops_once_the_verdict_is_settled(
    text: str, verdict: bool | None, clauses: str
) -> None:
    assert parse(text).evaluate({"t": True, "f": False}) == Evaluation(verdict, clauses)


def test_each_clause_of_a_trace_is_what_the_clause_says_alone() -> None:
    random = Random(7)
    for _ in range(500):
        rule = parse(random_rule(random).ours)
        attributes = random_attributes(random)
        trace = rule.evaluate(attributes).clauses
        assert len(trace) == len(rule.clauses)
        for clause, symbol in zip(rule.clauses, trace, strict=True):
            if symbol != "-":
                assert parse(clause).evaluate(attributes).verdict is VERDICTS[symbol]


def test_a_clause_that_was_not_reached_could_not_have_changed_the_verdict() -> None:
    """Operands in any order give the same verdict, as CEL promises of && and ||."""
    random = Random(8)
    for _ in range(500):
        left, right = random_rule(random).ours, random_rule(random).ours
        attributes = random_attributes(random)
        for sign in ("&&", "||"):
            forth = parse(f"({left}) {sign} ({right})").evaluate(attributes)
            back = parse(f"({right}) {sign} ({left})").evaluate(attributes)
            assert forth.verdict is back.verdict


@pytest.mark.parametrize("text", ["x == 1", "x != 1", "x < 1", "!(x == 1)", "x in [1]", "x in xs"])
@pytest.mark.parametrize(
    "value", [float("nan"), 2**63, -(2**63) - 1, object(), {1}, b"1", 1j, NAIVE]
)
def test_a_value_that_no_rule_can_hold_is_unknown(text: str, value: object) -> None:
    attributes = {"x": value, "xs": ["a"]}
    assert parse(text).evaluate(attributes) == Evaluation(None, "U")
    assert parse("has(x)").evaluate(attributes) == Evaluation(True, "T")


def test_an_unknown_element_leaves_membership_unknown_unless_another_is_equal() -> None:
    rule = parse("1 in x")
    assert rule.evaluate({"x": [float("nan"), 2]}).verdict is None
    assert rule.evaluate({"x": [float("nan"), 1]}).verdict is True
    assert parse("x == [1, 2]").evaluate({"x": [float("nan"), 2]}).verdict is None
    assert parse("x == [1, 2]").evaluate({"x": [float("nan"), 3]}).verdict is False
    assert parse("x == y").evaluate({"x": [{}], "y": [{}]}).verdict is None


@pytest.mark.parametrize(
    ("type_name", "text", "value", "verdict"),
    [
        ("integer", "x != 20", "20", None),
        ("integer", "x != 20", None, None),
        ("integer", "x in [20]", True, None),
        ("integer", "x >= 20", 20.0, True),
        ("string", 'x != "a"', 1, None),
        ("string", 'x in ["a"]', 1, None),
        ("string", 'x in ["a"]', "b", False),
        ("boolean", "x == true", 1, None),
        ("boolean", "!x", 0, None),
        ("boolean", "x < true", False, True),
        ("list", '"a" in x', "abc", None),
        ("list", '"a" in x', ("b", "a"), True),
        ("list", 'x == ["a"]', ["a"], True),
        ("list", 'x == ["a"]', "a", None),
        ("timestamp", 'x < timestamp("2026-01-01T00:00:00Z")', "2025-12-31T23:00:00Z", True),
        ("timestamp", 'x < timestamp("2026-01-01T00:00:00Z")', "2026-01-01T00:30:00+01:00", True),
        ("timestamp", 'x < timestamp("2026-01-01T00:00:00Z")', "2025-12-31", None),
        ("timestamp", 'x != timestamp("2026-01-01T00:00:00Z")', 5, None),
        ("timestamp", "x == x", datetime(2026, 1, 1, tzinfo=UTC), True),
        ("timestamp", "x == x", NAIVE, None),
        ("timestamp", 'x in [timestamp("2026-01-01T00:00:00Z")]', "2026-01-01T00:00:00z", True),
    ],
)
def test_a_value_of_another_type_than_declared_is_unknown(
    type_name: str, text: str, value: object, verdict: bool | None
) -> None:
    assert parse(text, {"x": type_name}).evaluate({"x": value}).verdict is verdict


def test_null_is_an_absence_of_a_declared_attribute_and_a_value_of_any_other() -> None:
    absent = {"x": None}
    assert parse("has(x)", {"x": "string"}).evaluate(absent).verdict is False
    assert parse('x != "a"', {"x": "string"}).evaluate(absent).verdict is None
    assert parse("has(x)").evaluate(absent).verdict is True
    assert parse('x != "a"').evaluate(absent).verdict is True


@given(
    age=st.one_of(st.integers(-3, 3), st.floats(allow_nan=False)),
    plan=st.sampled_from(["a", "b", ""]),
    loyal=st.booleans(),
    tags=st.lists(st.sampled_from("abc"), max_size=3),
)
def test_declarations_change_no_verdict_on_values_that_keep_them(
    age: float, plan: str, loyal: bool, tags: list[str]
) -> None:
    attributes = {"age": age, "plan": plan, "loyal": loyal, "tags": tags}
    types = {"age": "number", "plan": "string", "loyal": "boolean", "tags": "list"}
    for text in (
        "age >= 1 && !loyal",
        "1 > age || plan in tags",
        'plan != "b" && age in [1, 2.0, -1]',
        'tags == ["a", "b"] || loyal == (false)',
        "plan < plan || loyal >= false",
    ):
        assert parse(text, types).evaluate(attributes) == parse(text).evaluate(attributes)


def test_a_dotted_name_is_a_key_of_its_own_before_it_leads_into_maps() -> None:
    rule = parse("profile.plan.id == 1")
    for attributes, verdict in (
        ({"profile.plan.id": 1}, True),
        ({"profile": {"plan": {"id": 1}}}, True),
        ({"profile.plan": {"id": 1}, "profile": {"plan": {"id": 2}}}, True),
        ({"profile.plan.id": 1, "profile": {"plan": {"id": 2}}}, True),
        ({"profile": {"plan": 1}}, None),
        ({"profile": {}}, None),
        ({"profile": None}, None),
        ({}, None),
    ):
        assert rule.evaluate(attributes).verdict is verdict
        present = parse("has(profile.plan.id)").evaluate(attributes).verdict
        assert present is (verdict is True)


PIECES = (
    "x", "1", '"a"', "&&", "||", "!", "==", "<", "in", "(", ")", "[", "]", ",", ".", "-", "has(",
    "true", "null", "timestamp(", "1.5", "'",
)  # fmt: skip


@given(
    st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PIECES), max_size=14).map(" ".join))
)
@example("x == 1 && !(has(x))")
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing but RuleError leaves the parser, and its position lies in the text."""
    position = 0
    try:
        parse(text).evaluate({"x": 1})
    except RuleError as error:
        position = error.position
    assert 0 <= position <= len(text)
