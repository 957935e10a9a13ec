"""An import stores all of a table or none of it, once, and says what to mend."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from engine import importing
from engine.errors import ConfigurationError, EngineError
from engine.importing import Imported, ImportMapping, import_table, read_mapping
from engine.record import decode_record
from engine.revisions import Revisions, activate
from engine.store import Store
from engine.store import read as ask
from engine.workspace import Workspace
from tests.engine.build import HOUR, NOW, workspace_of

MAIL = """
surfaces:
  mail:
    owner: growth@example.com
    attributes: {age: integer}
    metrics: {click: {window: 1d, aggregate: max, range: [0, 1]}, spend: {window: 1d}}
    slots: {body: {default: a, actions: {a: {value: 1}, b: {value: 2}, c: {value: 3}}}}
"""
OTHER = MAIL.replace("growth", "crm")
MAPPING: dict[str, Any] = {
    "surface": "mail",
    "slot": "body",
    "unit": "who",
    "decided_at": "when",
    "action": "shown",
    "propensity": "chance",
    "outcomes": {"click": "clicked", "spend": "spent"},
    "context": {"age": "integer"},
}


def table(rows: int = 6, /, **columns: list[Any]) -> pd.DataFrame:
    """Choices between a and b, an hour apart."""
    n = range(rows)
    times = [pd.Timestamp(NOW + i * HOUR, unit="us", tz="UTC").isoformat() for i in n]
    content = {
        "who": [f"u{i}" for i in n],
        "when": times,
        "shown": ["ab"[i % 2] for i in n],
        "chance": [0.5] * rows,
        "clicked": [float(i % 3 == 0) for i in n],
        "spent": [None if i % 2 else i * 10.0 for i in n],
        "age": [20 + i for i in n],
    }
    return pd.DataFrame(content | columns)


def put(
    store: Store, frame: pd.DataFrame, text: str | None = MAIL, **mapping: Any
) -> tuple[Imported, Workspace | None]:
    """Import with a workspace, and what serves thereafter."""
    parts = ImportMapping.model_validate(
        {k: v for k, v in (MAPPING | mapping).items() if v is not None}
    )
    workspace = workspace_of(text) if text else None
    made = import_table(store, frame, parts, source="rows", workspace=workspace, clock=lambda: NOW)
    return made, Revisions(store).latest()


def stored(store: Store) -> dict[str, int]:
    return {name: count for name, count in store.read(ask.counts).items() if count}


def with_value(values: list[Any], row: int, value: Any) -> list[Any]:
    """The values with another in a row, counted from 1."""
    return [*values[: row - 1], value, *values[row:]]


def test_a_row_that_no_record_can_hold_stores_nothing_however_far_down(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "ROWS_PER_WRITE", 2)
    with pytest.raises(EngineError, match=r"`context.age` is .* first in row 6\)"):
        put(store, table(age=[20, 20, 20, 20, 20, 2**60]))
    assert stored(store) == {}
    assert Revisions(store).latest() is None


def test_a_refused_import_leaves_the_serving_workspace(store: Store) -> None:
    """Whether its rows are at fault or were imported before with other content."""
    put(store, table())
    serving = Revisions(store).latest()
    with pytest.raises(EngineError, match="`propensity`"):
        put(store, table(chance=[0.0] * 6), OTHER)
    with pytest.raises(EngineError, match="row 1, the first of 6 rows such, was imported before"):
        put(store, table(chance=[0.25] * 6), OTHER)
    assert Revisions(store).latest() == serving


def test_a_refused_import_of_a_longer_file_stores_none_of_the_new_rows(store: Store) -> None:
    put(store, table(4))
    before = stored(store)
    with pytest.raises(EngineError, match="row 2, the first of 1 row such"):
        put(store, table(6, shown=["a", "c", "a", "b", "a", "b"]))
    assert stored(store) == before


@pytest.mark.parametrize(
    "spent",
    [[0.0, None, 20.0, None, 41.0, None], [0.0, None, None, None, 40.0, None]],
    ids=["another value", "none any more"],
)
def test_another_outcome_of_a_stored_row_is_refused(store: Store, spent: list[Any]) -> None:
    put(store, table())
    before = stored(store)
    with pytest.raises(EngineError, match="with other content"):
        put(store, table(spent=spent))
    assert stored(store) == before


def test_an_unchanged_file_is_a_repeat_under_another_revision_and_code(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a row says does not depend on who reads it; there is nothing new to serve for."""
    put(store, table())
    before = stored(store)
    monkeypatch.setattr(importing, "CODE_VERSION", "evenhand 99")
    again, serving = put(store, table(), OTHER)
    assert (again.rows, again.decisions, again.outcomes) == (6, 0, 0)
    assert stored(store) == before
    assert serving == workspace_of(MAIL)


@pytest.mark.parametrize(
    ("column", "value"),
    [("who", "v"), ("when", "2026-01-01T00:00:00Z"), ("shown", "c"), ("chance", 0.4), ("age", 1)],
)
def test_a_row_with_other_content_is_refused(store: Store, column: str, value: Any) -> None:
    put(store, table())
    frame = table()
    changed = table(**{column: with_value(frame[column].tolist(), 3, value)})
    with pytest.raises(EngineError, match="row 3, the first of 1 row such"):
        put(store, changed)


def test_an_import_that_stopped_goes_on_and_rows_and_outcomes_may_be_added(store: Store) -> None:
    put(store, table(3), outcomes={"click": "clicked"})
    again, _ = put(store, table(6))
    assert (again.rows, again.decisions, again.outcomes) == (6, 3, 6)
    assert stored(store) == {"decisions": 6, "outcomes": 9}


def test_rows_are_stored_in_the_order_of_their_times(store: Store) -> None:
    """Rows of one time stay in the file's order; ids tell the file's rows."""
    times = table()["when"].tolist()
    frame = table(when=[times[n] for n in (4, 2, 5, 2, 0, 1)])
    put(store, frame)
    rows = store.read(lambda c: ask.decisions_after(c, 0, 10))
    records = [decode_record(row.record) for row in rows]
    assert [r.request_id for r in records] == [f"import/rows/{n}" for n in (5, 6, 2, 4, 1, 3)]


def test_a_first_assignment_is_the_first_in_time(store: Store) -> None:
    times = table(4)["when"].tolist()
    frame = table(4, when=[times[n] for n in (3, 1, 0, 2)], who=["u"] * 4, shown=list("aaba"))
    experiment = {"id": "mailing", "variant": "shown"}
    put(store, frame, None, experiment=experiment)
    rows = store.read(lambda c: ask.assignments_of(c, "experiment", "mailing"))
    assert {row.variant: row.assigned_at for row in rows} == {"b": NOW, "a": NOW + HOUR}


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (
            {"who": ["u", "v" * 257, "w", "x" * 300, "y", "z"]},
            r"`unit` has 257 characters; give .* \(in 2 rows, first in row 2\)",
        ),
        (
            {"who": ["u", "v", "a\nb", "w", "x", "y"]},
            r"`unit` holds a control character; remove it \(in 1 row, first in row 3\)",
        ),
        (
            {"clicked": [0, 1, 2.5, -1, 1, None]},
            r"`outcomes.click` is beyond .* in 2 rows, first in row 3: 2.5; mend .*",
        ),
        (
            {"shown": ["a", "b", "d", "d", "b", "e"]},
            r'`action` is "d" in row 3, the first of 3 rows .*known: a, b, c\); add it, .*',
        ),
        (
            {"age": [2**60] * 6},
            r"`context.age` is 1152921504606846976; give .* \(in 6 rows, first in row 1\)",
        ),
        (
            {"chance": [0.5, 0.5, 7, 0.5, 0.5, None]},
            r"`propensity` is not in \(0, 1\] in 2 rows, first in row 3: 7.0; give .*",
        ),
    ],
)
def test_what_http_refuses_is_refused_here(
    store: Store, columns: dict[str, list[Any]], says: str
) -> None:
    """With the field, the number of such rows, the first of them and what to mend."""
    with pytest.raises(EngineError) as refused:
        put(store, table(**columns))
    assert re.fullmatch(says, str(refused.value))
    assert stored(store) == {}


def test_a_sum_takes_parts_beyond_its_range(store: Store) -> None:
    """As over HTTP: an outcome of a sum is not a value of the metric."""
    text = MAIL.replace("aggregate: max", "aggregate: sum")
    made, _ = put(store, table(clicked=[-1.0, 3, 0, 0, 0, 0]), text)
    assert made.decisions == 6


PMF = {"a": "p_a", "b": "p_b", "c": "p_c"}


@pytest.mark.parametrize(
    ("p_a", "p_c", "says"),
    [
        (0.5, -0.1, "`pmf.c` is negative or missing in 1 row, first in row 4: -0.1; give"),
        (0.5, None, "`pmf.c` is negative or missing in 1 row, first in row 4: nan; give"),
        (0.6, 0.0, "`pmf` does not sum to 1 in 1 row, first in row 4: 1.1; give"),
    ],
)
def test_a_pmf_that_is_none_is_refused(store: Store, p_a: float, p_c: Any, says: str) -> None:
    frame = table(p_a=[0.5] * 3 + [p_a, 0.5, 0.5], p_b=[0.5] * 6, p_c=[0.0] * 3 + [p_c, 0.0, 0.0])
    with pytest.raises(EngineError) as refused:
        put(store, frame, pmf=PMF)
    assert str(refused.value).startswith(says)
    assert stored(store) == {}


def test_a_pmf_agrees_with_the_propensity_or_is_refused(store: Store) -> None:
    near = table(p_a=[0.5 + 9e-7] * 6, p_b=[0.5 - 9e-7] * 6, p_c=[0.0] * 6)
    off = table(p_a=[0.6] * 6, p_b=[0.4] * 6, p_c=[0.0] * 6, shown=list("ccaaaa"))
    off["chance"] = [0.5, 0.5, 0.6, 0.6, 0.6, 0.6]
    with pytest.raises(EngineError) as refused:
        put(store, off, pmf=PMF)
    assert str(refused.value) == (
        "`pmf` gives the action another probability than `propensity` in 2 rows, first in row 1: "
        "0.0; make them agree"
    )
    made, _ = put(store, near, pmf=PMF)
    assert made.decisions == 6


def test_an_action_of_the_pmf_is_in_the_workspace(store: Store) -> None:
    frame = table(p_a=[0.5] * 6, p_b=[0.5] * 6)
    with pytest.raises(EngineError, match='`pmf` names action "z"'):
        put(store, frame.assign(p_z=0.0), pmf={"a": "p_a", "b": "p_b", "z": "p_z"})


def test_an_import_that_would_move_a_started_experiment_is_refused(store: Store) -> None:
    layer = """
layers:
  l:
    e:
      range: [0, 1]
      state: running
      variants: {x: {weight: W, slots: {mail.body: a}}, y: {slots: {mail.body: b}}}
"""
    before = workspace_of(MAIL, layer.replace("W", "1"))
    activate(store, before, lambda: 0)
    with pytest.raises(ConfigurationError, match="weight"):
        put(store, table(), MAIL + layer.replace("W", "2"))
    assert stored(store) == {}
    assert Revisions(store).latest() == before


# The mapping --------------------------------------------------------------------------------------

TEXT = """\
surface: mail
slot: body
unit: who
decided_at: 2026-03-01T10:00:00+02:00
action: shown
propensity: {a: 0.25, b: 0.75}
outcomes:
  click: clicked
context:
  age: integer
"""


def faults_of(folder: Path, text: str) -> list[tuple[int | None, str, str, str]]:
    """Of each fault of a mapping: line, field, value and message."""
    file = folder / "mapping.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as refused:
        read_mapping(file)
    assert all(fault.file == file for fault in refused.value.faults)
    return [(f.line, f.field, f.value, f.message) for f in refused.value.faults]


def test_an_unquoted_time_is_read_as_written(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(TEXT, encoding="utf-8")
    mapping = read_mapping(tmp_path / "m.yaml")
    assert mapping.decided_at == "2026-03-01T10:00:00+02:00"
    assert mapping.propensity == {"a": 0.25, "b": 0.75}


def test_a_mapping_as_json_is_one(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(json.dumps(MAPPING), encoding="utf-8")
    assert read_mapping(tmp_path / "m.yaml") == ImportMapping.model_validate(MAPPING)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("unit: who", "unit: 7", (3, "unit", "7", "input should be a valid string")),
        ("surface: mail", "surface: my mail", (1, "surface", '"my mail"', "must be 1 to 64")),
        ("  click:", "  a click:", (8, "outcomes.a click", '"clicked"', "must be 1 to 64")),
        ("integer", "colour", (10, "context.age", '"colour"', "must be one of 'integer'")),
        ("integer", "[a]", (10, "context.age", '["a"]', "must be a type, or")),
        (
            "integer",
            "{type: integer, colum: a}",
            (10, "context.age.colum", '"a"', 'is not a known key; did you mean "column"?'),
        ),
        ("action: shown", "action: 3", (5, "action", "3", "must be a column, or {column")),
        ("0.75", "often", (6, "propensity", '{"a":0.25,"b":"often"}', 'gives "b" no number')),
        ("{a: 0.25, b: 0.75}", "[1]", (6, "propensity", "[1]", "must be a number, a column")),
        ("slot: body\n", "", (1, "slot", "", "is required; add it")),
        ("  click: clicked", "  {}", (7, "outcomes", "{}", "is empty; add at least one entry")),
        ("  age:", "  1:", (10, "context.1", '"1"', "is not text; put the key in quotes")),
    ],
)
def test_a_fault_of_a_mapping_is_told_with_its_place_and_repair(
    tmp_path: Path, old: str, new: str, told: tuple[int | None, str, str, str]
) -> None:
    file = tmp_path / "mapping.yaml"
    assert old in TEXT
    file.write_text(TEXT.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigurationError) as refused:
        read_mapping(file)
    (fault,) = refused.value.faults
    line, field, value, message = told
    assert (fault.line, fault.field) == (line, field)
    assert fault.value == value
    assert fault.message.startswith(message)


def test_every_fault_of_a_mapping_is_told_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = TEXT.replace("slot: body", "slto: body").replace("integer", "colour")
    assert [fault[:2] for fault in faults_of(tmp_path, text)] == [
        (1, "slot"), (2, "slto"), (10, "context.age"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- 1", "must be a mapping with some of surface, slot"),
        ("surface: [", "is not YAML 1.2"),
        ("surface: a\nsurface: b", "is not YAML 1.2"),
    ],
)
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str, says: str) -> None:
    ((_, field, _, message),) = faults_of(tmp_path, text)
    assert field == "mapping"
    assert message.startswith(says)


def test_a_mapping_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        read_mapping(tmp_path / "none.yaml")


def test_names_that_the_workspace_lacks_are_told_all_at_once(store: Store) -> None:
    with pytest.raises(ConfigurationError) as refused:
        put(store, table(), slot="head", outcomes={"joy": "clicked"})
    assert [str(fault) for fault in refused.value.faults] == [
        '`slot` is "head": is not in the workspace (known: body); fix the name, or add it there',
        (
            '`outcomes.joy` is "joy": is not in the workspace (known: click, spend); '
            "fix the name, or add it there"
        ),
    ]
