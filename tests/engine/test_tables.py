"""The tables of the log show what its records say, whatever kind of choice it was."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from msgspec.structs import replace

from engine.ids import to_datetime
from engine.record import DecisionRecord, DrawRecord, decode_record, encode_record
from engine.tables import CHOICES, choices_table, traces_table
from tests.engine.build import NOW, decided, serving_of, workspace_of

WORLD = """\
surfaces:
  home:
    owner: o@example.com
    triggers: [open]
    attributes:
      weeks: {type: integer, required: true}
      score: {type: number, max_age: 1h}
      seen: list
    metrics: {watch: {window: 1h}}
    reward: {watch: 1.0}
    slots:
      layout:
        default: A
        policy: p
        actions: {A: {value: 1}, B: {value: 2}, C: {value: 3}}
        rules:
          - {id: c, kind: eligibility, actions: [C], when: "weeks >= 2", reason: r}
      hero: {default: A, policy: sticky, actions: {A: {value: 1}, B: {value: 2}}}
      plain: {default: A, actions: {A: {value: 1}}}
policies:
  p: {kind: lin_ucb, floor: 0.1}
  sticky: {kind: uniform, draw: sticky, period: 1d}
holdouts: {all: {share: 0.2}}
layers:
  l:
    e: {range: [0.0, 0.7], variants: {control: {slots: {home.layout: A}}, b: {}}}
"""


def records() -> list[DecisionRecord]:
    serving = serving_of(workspace_of(WORLD))
    old = {"value": 1.5, "at": "2020-01-01T00:00:00Z"}
    contexts: list[dict[str, Any]] = [
        {"weeks": 1, "seen": ["é", '"quoted"']}, {"weeks": 3, "score": 0.1}, {},
        {"weeks": 2, "score": old, "other": 1}, {"weeks": 2},
    ]  # fmt: skip
    made = [
        decided(serving, "home", unit, number=unit, at=NOW + unit,
                trigger="open" if unit % 2 else None, context=contexts[unit % len(contexts)])
        for unit in range(60)
    ]  # fmt: skip
    referred = made[1]
    draw = DrawRecord("earlier/hero", "key", 0.5, drawn=False, expires_at=NOW + 5)
    choices = tuple(replace(c, draw=draw, pmf=None, expected=None) for c in referred.choices)
    return [*made, replace(referred, decision_id="referred", choices=choices, origin="import")]


def shown(record: DecisionRecord, committed_at: int) -> list[dict[str, Any]]:
    """The rows of a record, from the whole of it."""
    return [
        {
            "decision_id": record.decision_id,
            "decided_at": to_datetime(record.decided_at),
            "committed_at": to_datetime(committed_at),
            "origin": record.origin,
            "surface": record.surface,
            "slot": choice.slot,
            "unit": record.unit,
            "trigger": record.trigger,
            "action": choice.action,
            "propensity": choice.propensity,
            "reason": choice.reason,
            "policy": choice.policy,
            "learner": choice.learner,
            "snapshot": choice.snapshot,
            "path": choice.path,
            "path_probability": choice.path_probability,
            "floor": choice.floor,
            "draw_id": choice.draw.id if choice.draw else None,
            "drawn": choice.draw.drawn if choice.draw else False,
            "expires_at": to_datetime(choice.draw.expires_at)
            if choice.draw and choice.draw.expires_at
            else None,
            "eligible": list(choice.eligible),
            "pmf": None if choice.pmf is None else list(choice.pmf),
            "expected": None if choice.expected is None else list(choice.expected),
            "fallback": choice.fallback,
            "revision": record.revision,
        }
        for choice in record.choices
    ]


def test_a_table_shows_what_the_whole_records_say() -> None:
    made = records()
    rows = [
        SimpleNamespace(record=encode_record(record), committed_at=NOW + number)
        for number, record in enumerate(made)
    ]
    table = choices_table(rows)
    assert table.schema == CHOICES
    found = table.drop_columns(["context"]).to_pylist()
    assert found == [row for n, record in enumerate(made) for row in shown(record, NOW + n)]
    reasons = {row["reason"] for row in found}
    assert reasons >= {"holdout", "experiment", "policy", "default", "fallback"}
    assert {row["drawn"] for row in found} == {True, False}


def test_a_context_is_without_what_could_not_be_used() -> None:
    made = records()[:5]
    rows = [SimpleNamespace(record=encode_record(r), committed_at=NOW) for r in made]
    contexts = choices_table(rows)["context"].to_pylist()
    assert contexts[::3] == [
        '{"seen":["é","\\"quoted\\""],"weeks":1}',
        '{"score":0.1,"weeks":3}',
        "{}",
        '{"weeks":2}',
        '{"weeks":2}',
    ]


def test_more_rows_than_are_read_at_once_stay_in_their_order() -> None:
    record = encode_record(records()[0])
    rows = [SimpleNamespace(record=record, committed_at=number) for number in range(2_500)]
    table = choices_table(rows)
    assert table["committed_at"].cast("int64").to_pylist() == [
        n for n in range(2_500) for _ in "abc"
    ]
    assert choices_table([]).num_rows == 0


def test_a_trace_is_the_record_as_stored() -> None:
    made = records()[:3]
    rows = [SimpleNamespace(record=encode_record(r), committed_at=NOW) for r in made]
    found = traces_table(rows)
    assert found["decision_id"].to_pylist() == [r.decision_id for r in made]
    assert [decode_record(t.encode()) for t in found["record"].to_pylist()] == made
