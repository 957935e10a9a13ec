"""Rules over columns of items say of each item what the same rule says of its values alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.ids import to_microseconds
from engine.rules import parse
from engine.rules.columns import compile_columns, item_value
from recsys.call import Call
from recsys.catalogue import Catalogue, Item, ItemSchema

ITEMS = {
    "price": "number",
    "stock": "integer",
    "kind": "string",
    "brand": "string",
    "new": "boolean",
    "published": "timestamp",
    "mounts": "list",
    "tags": "list",
}
MOMENT = {
    "budget": "number",
    "mount": "string",
    "mounted": "list",
    "member": "boolean",
    "visited": "timestamp",
}
TYPES = {f"item.{name}": type_ for name, type_ in ITEMS.items()} | MOMENT
SCHEMA = ItemSchema(
    {
        "price": "number",
        "stock": "number",
        "kind": "string",
        "brand": "string",
        "new": "boolean",
        "published": "time",
        "mounts": "strings",
        "tags": "strings",
    }
)
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
WORDS = ("", "a", "aa", "b", "é", "Z", "😀")
NUMBERS = (0, 1, 2.5, -1, -0.0, 2**53, 2**53 + 1, -(2**63), 1e300)
MOMENTS = tuple(BEGAN + timedelta(microseconds=step) for step in (-(10**12), 0, 1))
VALUES: dict[str, tuple[object, ...]] = {
    "number": NUMBERS,
    "integer": NUMBERS,
    "string": WORDS,
    "boolean": (True, False),
    "timestamp": MOMENTS,
    "list": ((), ("a",), ("a", "b"), ("b", "é", "")),
}


def written(value: object) -> str:
    """A value as a rule has it."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f'"{value}"'
        case datetime():
            return f'timestamp("{value.isoformat()}")'
        case _:
            return repr(value)


@st.composite
def clauses(draw: st.DrawFn) -> str:
    """A clause of well-typed operands, most of them of items."""
    name = draw(st.sampled_from(sorted(TYPES)))
    type_ = {"integer": "number"}.get(TYPES[name], TYPES[name])
    alike = [n for n, t in TYPES.items() if {"integer": "number"}.get(t, t) == type_]
    other = draw(st.sampled_from(alike))
    sign = draw(st.sampled_from(("==", "!=", "<", "<=", ">", ">=")))
    forms = [f"has({name})"]
    if type_ == "boolean":
        forms.append(name)
    if type_ == "list":
        word = draw(st.sampled_from(WORDS))
        held = draw(st.sampled_from([n for n, t in TYPES.items() if t == "string"]))
        forms += [f'"{word}" in {name}', f"{held} in {name}"]
        forms.append(f"{name} {draw(st.sampled_from(('==', '!=')))} {other}")
    else:
        value = draw(st.sampled_from(VALUES[type_]))
        several = draw(st.lists(st.sampled_from(VALUES[type_]), max_size=3))
        forms += [
            f"{name} {sign} {other}",
            f"{name} {sign} {written(value)}",
            f"{written(value)} {sign} {name}",
            f"{name} in [{', '.join(map(written, several))}]",
        ]
    return draw(st.sampled_from(forms))


RULES = st.recursive(
    clauses(),
    lambda inner: st.one_of(
        inner.map(lambda rule: f"!({rule})"),
        st.lists(inner, min_size=2, max_size=3).map(
            lambda rules: " && ".join(f"({rule})" for rule in rules)
        ),
        st.lists(inner, min_size=2, max_size=3).map(
            lambda rules: " || ".join(f"({rule})" for rule in rules)
        ),
    ),
    max_leaves=5,
)


def maybe(type_: str) -> st.SearchStrategy[Any]:
    return st.sampled_from((None, *VALUES[type_]))


ATTRIBUTES = st.fixed_dictionaries({name: maybe(type_) for name, type_ in ITEMS.items()})
MOMENTARY = st.fixed_dictionaries({}, optional={n: maybe(t) for n, t in MOMENT.items()})


def catalogue_of(items: list[dict[str, Any]]) -> Catalogue:
    """Items as they are upserted, times in microseconds."""
    told = [
        Item(
            f"i{number:03}",
            {n: to_microseconds(v) if isinstance(v, datetime) else v for n, v in item.items()},
        )
        for number, item in enumerate(items)
    ]
    return Catalogue.empty(SCHEMA).upsert(told, 1)


@settings(max_examples=400, deadline=None)
@given(RULES, st.lists(ATTRIBUTES, min_size=1, max_size=8), MOMENTARY, st.randoms())
def test_a_rule_over_columns_says_of_each_item_what_it_says_of_it_alone(
    text: str, items: list[dict[str, Any]], moment: dict[str, Any], random: Any
) -> None:
    rule = parse(text, TYPES)
    catalogue = catalogue_of(items)
    rows = np.array(random.choices(range(catalogue.size), k=len(items)), np.intp)
    verdicts = compile_columns(rule.tree, len(rule.clauses))(catalogue, rows, moment)
    assert verdicts.dtype == np.int8
    alone = [
        rule.evaluate(
            moment
            | {f"item.{n}": item_value(catalogue.column(n), int(row)) for n in SCHEMA.attributes}
        ).verdict
        for row in rows
    ]
    assert verdicts.tolist() == [-1 if verdict is None else int(verdict) for verdict in alone]


@pytest.mark.parametrize(
    ("text", "verdicts"),
    [
        ("item.price < budget", [1, 0, -1]),
        ("mount in item.mounts", [1, 0, -1]),
        ('item.kind == "lens" && item.stock > 0', [1, 0, 0]),
        ("has(item.price)", [1, 1, 0]),
        ("!has(item.price) || item.price > 0", [1, 1, 1]),
        ("member", [-1, -1, -1]),
    ],
)
def test_what_is_unknown_of_an_item_or_of_the_moment_is_unknown(
    text: str, verdicts: list[int]
) -> None:
    catalogue = catalogue_of(
        [
            {"price": 5.0, "kind": "lens", "stock": 3, "mounts": ["M"]},
            {"price": 50.0, "kind": "lens", "stock": 0, "mounts": []},
            {"kind": "bag"},
        ]
    )
    rule = parse(text, TYPES)
    found = compile_columns(rule.tree, len(rule.clauses))(
        catalogue, np.arange(3), {"budget": 10, "mount": "M"}
    )
    assert found.tolist() == verdicts


def test_a_rule_reads_the_context_of_a_call() -> None:
    """What a rule reads of the moment stands in the call's context, under the same names."""
    call = Call(
        user_id="u1", surface="home", slate="s", k=1, now=0, trace_id="t", context={"budget": 3}
    )
    rule = parse("item.price <= budget", TYPES)
    catalogue = catalogue_of([{"price": 3.0}, {"price": 3.5}])
    evaluate = compile_columns(rule.tree, len(rule.clauses))
    assert evaluate(catalogue, np.arange(2), call.context).tolist() == [1, 0]
