"""The store: a suite that every backend passes, and the one writer of a SQLite file."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import permutations
from pathlib import Path

import msgspec
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from engine.decide import Inputs, Serving, decide
from engine.errors import StoreError
from engine.ids import uuid7
from engine.log import (
    DecisionEntry,
    ExposureEntry,
    Late,
    Learnable,
    Outcome,
    OutcomesEntry,
    Position,
    Refused,
    Repeated,
    RevisionEntry,
    Settled,
    SettleEntry,
    SnapshotEntry,
    StickyTaken,
    Stored,
    VoidEntry,
    decision_entry,
    request_digest,
)
from engine.record import DecisionRecord, decode_record, encode_record
from engine.request import DecideRequest
from engine.store import Store
from engine.store import read as ask
from engine.store.schema import metadata
from tests.engine.build import (
    DAY,
    NOW,
    SECOND,
    decided,
    draws_of,
    outcome,
    serving_of,
    workspace_of,
)

WORLD = """\
surfaces:
  home:
    owner: o@example.com
    attributes: {ok: boolean}
    metrics: {watch: {window: 1h}}
    reward: {watch: 1.0}
    slots:
      hero: {default: X, policy: s, actions: {X: {value: 1}, Y: {value: 2}, Z: {value: 3}}}
      layout: {default: A, policy: p, actions: {A: {value: 1}, B: {value: 2}}}
policies:
  p: {kind: thompson_gaussian}
  s: {kind: uniform, draw: sticky, period: 7d}
layers:
  l:
    e:
      range: [0.0, 1.0]
      variants: {a: {slots: {home.layout: A}}, b: {slots: {home.layout: {policy: p}}}}
"""


@pytest.fixture(scope="module")
def made() -> Serving:
    """The revision that the suite decides under."""
    return serving_of(workspace_of(WORLD))


def _entry(
    made: Serving, number: int, *, unit: int | None = None, request_id: str | None = None
) -> DecisionEntry:
    """Decision ``number``, of a unit of its own unless one is given."""
    asked = DecideRequest(
        surface="home", user_id=str(number if unit is None else unit), request_id=request_id
    )
    now = NOW + number
    record = decide(made, asked, Inputs(), decision_id=uuid7(now, number), now_us=now)
    return decision_entry(record, asked)


def _counts(store: Store) -> dict[str, int]:
    return store.read(ask.counts)


# Decisions ---------------------------------------------------------------------------------------


def test_a_decision_is_read_back_to_the_byte(store: Store, made: Serving) -> None:
    entry = _entry(made, 1, request_id="r1")
    assert store.write([entry], NOW + 7) == [Stored()]
    stored = store.read(lambda c: ask.decision(c, entry.record.decision_id))
    assert stored is not None
    assert (stored.data, stored.committed_at, stored.void) == (entry.data, NOW + 7, None)
    assert decode_record(stored.data) == entry.record
    assert encode_record(decode_record(stored.data)) == entry.data
    assert store.read(lambda c: ask.by_request(c, "r1")) == (entry.data, entry.request_digest)


def test_what_is_not_stored_is_not_found(store: Store) -> None:
    assert store.read(lambda c: ask.decision(c, "x")) is None
    assert store.read(lambda c: ask.by_request(c, "x")) is None
    assert store.read(lambda c: ask.snapshot_bytes(c, "x")) is None
    assert store.read(lambda c: ask.revision(c, "x")) is None
    assert store.read(ask.latest_revision) is None
    assert store.read(lambda c: ask.sticky_draw(c, "x")) is None
    assert set(_counts(store).values()) == {0}


def test_nothing_to_write_is_no_fault(store: Store) -> None:
    assert store.write([], NOW) == []


def test_a_repeated_request_id_gives_the_first_record(store: Store, made: Serving) -> None:
    """In the same batch or a later one; nothing of the second is stored."""
    first, second, third = (_entry(made, n, request_id="same") for n in (1, 2, 3))
    results = store.write([first, second], NOW)
    assert results == [Stored(), Repeated(first.data, first.request_digest)]
    assert store.write([third], NOW) == [Repeated(first.data, first.request_digest)]
    assert _counts(store)["decisions"] == 1
    assert third.request_digest != first.request_digest


def test_decisions_without_request_id_are_all_stored(store: Store, made: Serving) -> None:
    assert store.write([_entry(made, n) for n in range(5)], NOW) == [Stored()] * 5


def test_the_digest_of_a_request_leaves_out_deadline_and_trace() -> None:
    request = DecideRequest(surface="home", user_id="1", context={"a": 1, "b": 2})
    same = replace(request, deadline_ms=5, traceparent="t", context={"b": 2, "a": 1})
    assert request_digest(same) == request_digest(request)
    for changed in (
        replace(request, surface="mail"),
        replace(request, user_id="2"),
        replace(request, anonymous_id="1"),
        replace(request, trigger="t"),
        replace(request, context={"a": 1}),
        replace(request, slots=("hero",)),
    ):
        assert request_digest(changed) != request_digest(request)


def test_a_decision_id_twice_is_refused_and_leaves_nothing(store: Store, made: Serving) -> None:
    entry = replace(_entry(made, 1), sticky={})
    with pytest.raises(StoreError, match="refused a write"):
        store.write([_entry(made, 2), entry, entry], NOW)
    assert _counts(store)["decisions"] == 0
    assert store.write([entry], NOW) == [Stored()]


def test_more_ids_than_one_question_holds_are_all_looked_up(store: Store, made: Serving) -> None:
    entries = [_entry(made, n, request_id=f"r{n}") for n in range(1_203)]
    assert store.write(entries, NOW) == [Stored()] * 1_203
    again = store.write(entries, NOW)
    assert again == [Repeated(e.data, e.request_digest) for e in entries]
    ids = [e.record.decision_id for e in entries]
    outcomes = [outcome(f"o{n}", e.record) for n, e in enumerate(entries)]
    assert store.write([OutcomesEntry(tuple(outcomes))], NOW) == [Stored(1_203, 0, 0)]
    assert store.read(lambda c: ask.outcomes_of_decisions(c, ids)) == outcomes


def test_decisions_are_read_in_pages_in_log_order(store: Store, made: Serving) -> None:
    entries = [_entry(made, n) for n in (5, 3, 9, 1)]
    store.write(entries, NOW)
    store.write([VoidEntry(entries[2].record.decision_id, "late")], NOW)
    first = store.read(lambda c: ask.decisions_after(c, 0, 3))
    rest = store.read(lambda c: ask.decisions_after(c, first[-1].seq, 3))
    assert [row.record for row in (*first, *rest)] == [e.data for e in entries]
    assert [row.void for row in (*first, *rest)] == [None, None, "late", None]
    assert store.read(lambda c: ask.decisions_after(c, 0, 9, surface="mail")) == []
    assert len(store.read(lambda c: ask.decisions_after(c, 0, 9, surface="home"))) == 4


# Sticky draws ------------------------------------------------------------------------------------


def _key(entry: DecisionEntry) -> str:
    (key,) = entry.sticky
    return key


def test_a_sticky_draw_is_found_until_its_period_ends(store: Store, made: Serving) -> None:
    entry = _entry(made, 1)
    store.write([entry], NOW)
    (drawn,) = entry.sticky.values()
    for now, found in (
        (NOW, dict(entry.sticky)),
        (drawn.expires_at - 1, dict(entry.sticky)),
        (drawn.expires_at, {}),
    ):
        at = partial(ask.sticky_draws, unit="u:1", now_us=now)
        assert store.read(at) == found
    assert store.read(lambda c: ask.sticky_draws(c, "u:2", NOW)) == {}
    assert store.read(lambda c: ask.sticky_draw(c, drawn.key)) == (_key(entry), drawn)


def test_a_sticky_draw_that_another_decision_made_first_is_handed_back(
    store: Store, made: Serving
) -> None:
    """Else one unit would have two draws in a period, and the second decision a false one."""
    first, second, third = (_entry(made, n, unit=1) for n in (1, 2, 3))
    taken = StickyTaken(dict(first.sticky))
    assert store.write([first, second], NOW) == [Stored(), taken]
    assert store.write([third], NOW) == [taken]
    assert _counts(store)["decisions"] == 1


def test_a_redraw_is_kept_beside_the_draw_and_found_instead(store: Store, made: Serving) -> None:
    first = _entry(made, 1)
    (drawn,) = first.sticky.values()
    again = replace(drawn, id="again", key=f"{drawn.key}:1", redraw=1, action="Z")
    second = replace(_entry(made, 2), sticky={_key(first): again})
    late = replace(_entry(made, 3), sticky={_key(first): again})
    assert store.write([first], NOW) == [Stored()]
    assert store.write([second, late], NOW) == [Stored(), StickyTaken({_key(first): again})]
    assert store.read(lambda c: ask.sticky_draws(c, "u:1", NOW)) == {_key(first): drawn}
    assert store.read(lambda c: ask.sticky_draw(c, again.key)) == (_key(first), again)
    assert store.read(lambda c: ask.sticky_draw(c, drawn.key)) == (_key(first), drawn)


def test_the_last_redraw_of_a_key_is_found(store: Store, made: Serving) -> None:
    first = decided(made, "home", 1, number=1, slots=("hero",))
    (key,) = draws_of(first)
    (drawn,) = draws_of(first).values()
    store.write([decision_entry(first)], NOW)
    for redraw in (1, 2):
        record = decided(made, "home", 1, number=1 + redraw, slots=("hero",))
        again = replace(drawn, id=f"{redraw}", key=f"{key}:{redraw}", redraw=redraw)
        store.write([replace(decision_entry(record), sticky={key: again})], NOW)
    found = store.read(lambda c: ask.sticky_draws(c, "u:1", NOW))
    assert found[key].redraw == 2


# Outcomes ----------------------------------------------------------------------------------------


def _outcomes(store: Store, *outcomes: Outcome) -> object:
    (result,) = store.write([OutcomesEntry(outcomes)], NOW)
    return result


@pytest.fixture
def record(store: Store, made: Serving) -> DecisionRecord:
    """A stored decision."""
    entry = _entry(made, 1)
    store.write([entry], NOW)
    return entry.record


def test_outcomes_are_read_back_in_the_order_of_arrival(
    store: Store, record: DecisionRecord
) -> None:
    sent = [
        outcome("b", record, 2.5, at=NOW + 5, received=NOW + 9),
        outcome("a", record, -1.0, metric="cancel"),
        outcome("c", record, 3.0, corrects="b"),
    ]
    assert _outcomes(store, *sent) == Stored(3, 0, 0)
    assert store.read(lambda c: ask.outcomes_of_decisions(c, [record.decision_id])) == sent


def test_outcomes_of_units_are_read_within_their_times(store: Store) -> None:
    sent = [outcome(f"o{n}", "u:1", at=NOW + n) for n in range(5)]
    _outcomes(store, *sent, outcome("x", "u:2", at=NOW + 2))
    assert store.read(lambda c: ask.outcomes_of_units(c, ["u:1"], NOW + 1, NOW + 3)) == sent[1:4]


def test_an_outcome_repeated_with_the_same_content_is_a_duplicate(
    store: Store, record: DecisionRecord
) -> None:
    """Whenever it is received again; in the same message, batch or a later one."""
    first = outcome("o", record)
    again = replace(first, received_at=NOW + DAY)
    assert _outcomes(store, first, again) == Stored(1, 1, 0)
    assert store.write([OutcomesEntry((again,)), OutcomesEntry((first,))], NOW) == [
        Stored(0, 1, 0),
        Stored(0, 1, 0),
    ]
    assert store.read(lambda c: ask.outcomes_of_decisions(c, [record.decision_id])) == [first]


@pytest.mark.parametrize(
    "changes",
    [
        {"value": 2.0},
        {"metric": "cancel"},
        {"occurred_at": NOW + 1},
        {"decision_id": None, "unit": "u:1"},
        {"corrects": "z"},
    ],
)
def test_an_outcome_id_reused_with_other_content_is_refused_with_all_beside_it(
    store: Store, record: DecisionRecord, changes: dict[str, object]
) -> None:
    _outcomes(store, outcome("z", record), outcome("o", record))
    other = replace(outcome("o", record), **changes)  # type: ignore[arg-type]  # of each field's type
    result = _outcomes(store, outcome("new", record), other)
    assert isinstance(result, Refused)
    assert (result.field, result.why) == ("[1].outcome_id", "conflict")
    assert '"o" was used with other content' in result.message
    assert _counts(store)["outcomes"] == 2


def test_one_id_with_two_contents_in_one_message_is_refused(
    store: Store, record: DecisionRecord
) -> None:
    result = _outcomes(store, outcome("o", record, 1), outcome("o", record, 2))
    assert isinstance(result, Refused)
    assert _counts(store)["outcomes"] == 0


def test_a_refused_message_does_not_touch_those_beside_it(
    store: Store, record: DecisionRecord
) -> None:
    good, bad, after = (
        OutcomesEntry((outcome("a", record),)),
        OutcomesEntry((outcome("b", record), outcome("a", record, 9.0))),
        OutcomesEntry((outcome("b", record, 3.0),)),
    )
    results = store.write([good, bad, after], NOW)
    assert [type(r) for r in results] == [Stored, Refused, Stored]
    kept = store.read(lambda c: ask.outcomes_of_decisions(c, [record.decision_id]))
    assert [(o.outcome_id, o.value) for o in kept] == [("a", 1.0), ("b", 3.0)]


def test_a_correction_needs_what_it_corrects(store: Store, record: DecisionRecord) -> None:
    result = _outcomes(store, outcome("fix", record, corrects="o"))
    assert isinstance(result, Refused)
    assert (result.field, result.why) == ("[0].corrects", "invalid")
    assert _outcomes(store, outcome("o", record), outcome("fix", record, corrects="o")) == Stored(2)
    assert _outcomes(store, outcome("fix2", record, corrects="fix")) == Stored(1)


@pytest.mark.parametrize("together", [True, False], ids=["one batch", "a later batch"])
@pytest.mark.parametrize(
    "other",
    [{"metric": "cancel"}, {"decision_id": uuid7(NOW, 9)}, {"decision_id": None, "unit": "u:1"}],
    ids=["metric", "decision", "user"],
)
def test_a_correction_names_an_outcome_of_its_own_metric_and_subject(
    store: Store, record: DecisionRecord, other: dict[str, str], together: bool
) -> None:
    """What it corrects came in the same message, in the same batch, or long before."""
    entry = OutcomesEntry((outcome("o", record),))
    right = outcome("right", record, 2.0, corrects="o")
    wrong = OutcomesEntry((replace(right, outcome_id="wrong", **other),))  # type: ignore[arg-type]  # of each field's type
    if together:
        _, result = store.write([entry, wrong], NOW)
    else:
        store.write([entry], NOW)
        (result,) = store.write([wrong], NOW)
    assert isinstance(result, Refused)
    assert (result.field, result.why) == ("[0].corrects", "invalid")
    assert "of the same metric and the same decision or user" in result.message
    beside = _outcomes(store, outcome("p", record), *wrong.outcomes)
    assert isinstance(beside, Refused)
    assert beside.field == "[1].corrects"
    assert _outcomes(store, right) == Stored(1)
    assert _outcomes(store, outcome("u", "u:1")) == Stored(1)
    assert _outcomes(store, outcome("v", "u:1", 2.0, corrects="u")) == Stored(1)
    assert _counts(store)["outcomes"] == 4


def test_an_outcome_of_an_unknown_decision_is_stored_as_unmatched(
    store: Store, made: Serving
) -> None:
    late = _entry(made, 4)
    early = outcome("o", late.record)
    assert _outcomes(store, early, outcome("by_unit", "u:9")) == Stored(2, 0, 1)
    store.write([late], NOW)
    assert store.read(lambda c: ask.outcomes_of_decisions(c, [late.record.decision_id])) == [early]


def test_an_outcome_beside_its_decision_in_one_batch_is_matched(
    store: Store, made: Serving
) -> None:
    entry = _entry(made, 1)
    results = store.write([entry, OutcomesEntry((outcome("o", entry.record),))], NOW)
    assert results == [Stored(), Stored(1, 0, 0)]


@pytest.mark.parametrize(
    "broken",
    [
        {"occurred_at": 2**63},
        {"value": float("nan")},
        {"metric": "\ud800"},
    ],
)
def test_a_value_that_no_column_holds_is_a_store_error_and_leaves_nothing(
    store: Store, record: DecisionRecord, broken: dict[str, object]
) -> None:
    """An exception of another kind would end the thread that commits."""
    good = OutcomesEntry((outcome("a", record),))
    entry = OutcomesEntry((replace(outcome("b", record), **broken),))  # type: ignore[arg-type]  # of each field's type
    with pytest.raises(StoreError, match="refused a write"):
        store.write([good, entry], NOW)
    assert _counts(store)["outcomes"] == 0


# What is settled ---------------------------------------------------------------------------------


def test_what_is_stamped_by_the_settled_time_is_late_and_not_stored(
    store: Store, made: Serving
) -> None:
    """Else learning, which took all up to that time as stored, would have passed it over."""
    entries = [_entry(made, number) for number in (1, 2, 3)]
    assert store.write([SettleEntry(NOW + 2)], NOW) == [Settled(NOW + 2)]
    late = Late(NOW + 2)
    assert store.write(entries, NOW, live=True) == [late, late, Stored()]
    sent = [OutcomesEntry((outcome(f"o{n}", "u:1", received=NOW + n),)) for n in (2, 3)]
    assert store.write(sent, NOW, live=True) == [late, Stored(1, 0, 0)]
    assert (_counts(store)["decisions"], _counts(store)["outcomes"]) == (1, 1)


def test_a_log_of_the_past_is_not_late(store: Store, made: Serving) -> None:
    """What is imported was decided long ago."""
    store.write([SettleEntry(NOW + 9)], NOW)
    assert store.write([_entry(made, 1)], NOW) == [Stored()]


def test_what_was_answered_is_answered_again_however_late(store: Store, made: Serving) -> None:
    first, again = (_entry(made, number, request_id="r") for number in (1, 2))
    store.write([first], NOW)
    store.write([SettleEntry(NOW + 9)], NOW)
    assert store.write([again], NOW, live=True) == [Repeated(first.data, first.request_digest)]


def test_the_settled_time_never_goes_back(store: Store) -> None:
    for until, settled in ((5, 5), (3, 5), (7, 7)):
        assert store.write([SettleEntry(until)], NOW) == [Settled(settled)]
        assert store.read(ask.settled) == settled


# Exposures, voids, assignments -------------------------------------------------------------------


def test_an_exposure_is_counted_once_for_each_slot(store: Store, record: DecisionRecord) -> None:
    id_ = record.decision_id
    whole = ExposureEntry(id_, None, NOW + 1, NOW + 2)
    one = ExposureEntry(id_, ("hero",), NOW + 5, NOW + 6)
    assert store.write([one, whole], NOW) == [Stored(1, 0), Stored(1, 1)]
    assert store.write([whole, one], NOW) == [Stored(0, 2), Stored(0, 1)]
    rows = store.read(lambda c: ask.exposures(c, id_))
    assert [tuple(row) for row in rows] == [
        ("layout", NOW + 1, NOW + 2),
        ("hero", NOW + 5, NOW + 6),
    ]
    assert _counts(store)["exposures"] == 2


def test_an_exposure_of_nothing_that_was_decided_is_refused(
    store: Store, record: DecisionRecord
) -> None:
    unknown, slot = store.write(
        [
            ExposureEntry(uuid7(NOW, 99), None, NOW, NOW),
            ExposureEntry(record.decision_id, ("hero", "footer"), NOW, NOW),
        ],
        NOW,
    )
    assert isinstance(unknown, Refused)
    assert (unknown.field, unknown.why) == ("decision_id", "missing")
    assert isinstance(slot, Refused)
    assert (slot.field, slot.why) == ("slots", "invalid")
    assert '"footer"' in slot.message
    assert _counts(store)["exposures"] == 0


def test_an_exposure_beside_its_decision_in_one_batch_is_stored(
    store: Store, made: Serving
) -> None:
    entry = _entry(made, 1)
    shown = ExposureEntry(entry.record.decision_id, None, NOW, NOW)
    assert store.write([entry, shown], NOW) == [Stored(), Stored(2, 0)]


def test_a_void_is_kept_with_its_first_reason(store: Store, record: DecisionRecord) -> None:
    id_ = record.decision_id
    store.write([VoidEntry(id_, "late"), VoidEntry(id_, "other")], NOW)
    stored = store.read(lambda c: ask.decision(c, id_))
    assert stored is not None
    assert stored.void == "late"
    assert [tuple(row) for row in store.read(ask.void_rows)] == [(id_, "late", NOW)]


def test_the_first_assignment_of_a_unit_is_kept(store: Store, made: Serving) -> None:
    entries = [_entry(made, n, unit=7) for n in (3, 4, 5)]
    for entry in entries:
        store.write([replace(entry, sticky={})], NOW)
    (row,) = store.read(lambda c: ask.assignments_of(c, "experiment", "e"))
    (assignment,) = entries[0].record.assignments
    assert (row.unit, row.variant, row.assigned_at) == ("u:7", assignment.variant, NOW + 3)
    assert row.decision_id == entries[0].record.decision_id
    assert row.probability == assignment.probability
    assert msgspec.json.decode(row.factors) == assignment.factors


@pytest.mark.parametrize("together", [True, False], ids=["one batch", "batches"])
@pytest.mark.parametrize("order", list(permutations((3, 4, 5))))
def test_the_earliest_assignment_is_kept_in_whatever_order_they_come(
    store: Store, made: Serving, order: tuple[int, ...], together: bool
) -> None:
    """An import may bring decisions that are older than those in the log."""
    entries = {n: replace(_entry(made, n, unit=7), sticky={}) for n in order}
    if together:
        store.write(list(entries.values()), NOW)
    else:
        for entry in entries.values():
            store.write([entry], NOW)
    (row,) = store.read(lambda c: ask.assignments_of(c, "experiment", "e"))
    assert (row.assigned_at, row.decision_id) == (NOW + 3, entries[3].record.decision_id)


def test_a_unit_found_in_two_variants_is_kept_in_both(store: Store, made: Serving) -> None:
    """A conflict is recorded, not hidden."""
    entry = _entry(made, 1)
    (assignment,) = entry.record.assignments
    moved = msgspec.structs.replace(
        _entry(made, 2, unit=1).record,
        assignments=(msgspec.structs.replace(assignment, variant="elsewhere"),),
    )
    store.write([entry, replace(decision_entry(moved), sticky={})], NOW)
    rows = store.read(lambda c: ask.assignments_of(c, "experiment", "e"))
    assert {row.variant for row in rows} == {assignment.variant, "elsewhere"}


# Snapshots and revisions -------------------------------------------------------------------------


def _snapshot(
    digest: str, *, parent: str | None = None, spec: str = "s1", data: bytes = b"x"
) -> SnapshotEntry:
    return SnapshotEntry(
        learner="p:home.layout",
        spec=spec,
        digest=digest,
        parent=parent,
        position=Position(5, "id"),
        passed=3,
        learned=3,
        created_at=NOW,
        data=data,
        units="0:0.5",
    )


def test_a_lineage_is_read_newest_first_and_by_spec(store: Store) -> None:
    store.write([_snapshot("d1"), _snapshot("d2", parent="d1")], NOW)
    store.write([_snapshot("d3", spec="s2")], NOW)
    rows = store.read(lambda c: ask.lineage(c, "p:home.layout", "s1"))
    assert [(row.digest, row.parent) for row in rows] == [("d2", "d1"), ("d1", None)]
    assert rows[0].position == Position(5, "id")
    assert (rows[0].learned, rows[0].created_at, rows[0].units) == (3, NOW, "0:0.5")
    assert [row.digest for row in store.read(ask.snapshot_rows)] == ["d1", "d2", "d3"]
    assert store.read(lambda c: ask.lineage(c, "q:home.layout", "s1")) == []


def test_the_bytes_of_a_snapshot_are_stored_once_for_all_learners(store: Store) -> None:
    store.write([_snapshot("d"), replace(_snapshot("d"), learner="other")], NOW)
    assert store.read(lambda c: ask.snapshot_bytes(c, "d")) == b"x"
    assert _counts(store)["snapshots"] == 2


def test_bytes_that_were_damaged_are_mended_by_those_stored_again(store: Store) -> None:
    store.write([_snapshot("d", data=b"damaged")], NOW)
    store.write([_snapshot("d", data=b"sound")], NOW)
    assert store.read(lambda c: ask.snapshot_bytes(c, "d")) == b"sound"


def test_the_revision_activated_last_is_the_latest(store: Store) -> None:
    for digest, after in (("r1", None), ("r2", "r1"), ("r1", "r2")):
        entry = RevisionEntry(digest, digest.encode(), NOW, after)
        assert store.write([entry], NOW) == [Stored()]
    assert store.read(ask.latest_revision) == "r1"
    assert store.read(lambda c: ask.revision(c, "r2")) == b"r2"
    assert sorted(store.read(ask.revision_digests)) == ["r1", "r2"]


def test_a_revision_that_was_checked_against_another_than_the_latest_is_refused(
    store: Store,
) -> None:
    """Two processes that activate at once would else pass each other's check."""
    assert store.write([RevisionEntry("r1", b"1", NOW, None)], NOW) == [Stored()]
    for after in (None, "r0"):
        (result,) = store.write([RevisionEntry("r2", b"2", NOW, after)], NOW)
        assert isinstance(result, Refused)
    both = [RevisionEntry("r2", b"2", NOW, "r1"), RevisionEntry("r3", b"3", NOW, "r1")]
    assert [type(result) for result in store.write(both, NOW)] == [Stored, Refused]
    assert store.read(ask.latest_revision) == "r2"


def test_a_beginning_never_follows_what_was_learned(store: Store) -> None:
    """A process that found no snapshot may store its beginning after another has learned."""
    store.write([_snapshot("learned")], NOW)
    beginning = replace(_snapshot("beginning", data=b"new"), position=Position())
    assert store.write([beginning], NOW) == [Stored()]
    rows = store.read(lambda c: ask.lineage(c, "p:home.layout", "s1"))
    assert [row.digest for row in rows] == ["learned"]
    assert store.read(lambda c: ask.snapshot_bytes(c, "beginning")) == b"new"


# What matured ------------------------------------------------------------------------------------


def _learnable(made: Serving, number: int, *closes_at: int) -> DecisionEntry:
    return replace(
        _entry(made, number),
        learnables=tuple(Learnable(f"L{i}", "layout", at) for i, at in enumerate(closes_at)),
        sticky={},
    )


def test_choices_are_read_in_the_order_of_closing_and_then_of_their_decisions(
    store: Store, made: Serving
) -> None:
    entries = {
        n: _learnable(made, n, at) for n, at in ((5, 30), (1, 20), (4, 10), (3, 20), (2, 40))
    }
    store.write(list(entries.values()), NOW)
    store.write([VoidEntry(entries[3].record.decision_id, "late")], NOW)
    order = [4, 1, 3, 5]
    for limit in (1, 2, 3, 9):
        found: list[ask.ClosedChoice] = []
        after = Position()
        while page := store.read(
            partial(ask.closed, learner="L0", after=after, until_us=30, limit=limit)
        ):
            assert len(page) <= limit
            found += page
            after = Position(page[-1].closes_at, page[-1].decision_id)
        assert [row.decision_id for row in found] == [entries[n].record.decision_id for n in order]
        assert [row.data for row in found] == [entries[n].data for n in order]
        assert [row.void for row in found] == [False, False, True, False]
    assert store.read(lambda c: ask.closed(c, "other", Position(), 99, 9)) == []


def test_a_choice_can_be_learned_from_by_several_learners(store: Store, made: Serving) -> None:
    store.write([_learnable(made, 1, 10, 20)], NOW)
    for learner, closes_at in (("L0", 10), ("L1", 20)):
        (row,) = store.read(
            partial(ask.closed, learner=learner, after=Position(), until_us=99, limit=9)
        )
        assert row.closes_at == closes_at


def test_a_units_decisions_are_read_within_their_times_and_without_voids(
    store: Store, made: Serving
) -> None:
    entries = [replace(_entry(made, n, unit=1), sticky={}) for n in range(5)]
    store.write([*entries, _entry(made, 9)], NOW)
    store.write([VoidEntry(entries[2].record.decision_id, "late")], NOW)
    rows = store.read(lambda c: ask.unit_decisions(c, "u:1", "home", NOW + 1, NOW + 4))
    assert [row.decision_id for row in rows] == [entries[n].record.decision_id for n in (1, 3)]


# Opening and closing -----------------------------------------------------------------------------


def test_a_log_is_there_when_it_is_opened_again(url: str, made: Serving) -> None:
    entry = _entry(made, 1)
    first = Store(url, writer="tests")
    first.write([entry], NOW)
    first.checkpoint()
    first.close()
    second = Store(url, writer="tests")
    assert second.read(lambda c: ask.decision(c, entry.record.decision_id)) is not None
    assert _counts(second)["decisions"] == 1
    second.close()
    second.close()


def test_a_reader_reads_beside_the_writer_and_may_not_write(
    store: Store, url: str, made: Serving
) -> None:
    reader = Store(url)
    assert store.writable
    assert not reader.writable
    store.write([_entry(made, 1)], NOW)
    assert _counts(reader)["decisions"] == 1
    with pytest.raises(StoreError, match="is open for reading only"):
        reader.write([_entry(made, 2)], NOW)
    assert _counts(store)["decisions"] == 1
    reader.close()


def test_a_database_that_does_not_exist_is_not_made_by_a_reader(url: str) -> None:
    for _ in range(2):
        with pytest.raises(StoreError, match=r"does not exist|holds no log"):
            Store(url)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "log.db",
        "/var/lib/log.db",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite+aiosqlite:///log.db",
        "mysql://u:secret@host/log",
    ],
)
def test_an_address_that_is_none_of_ours_is_refused_with_one_that_is(address: str) -> None:
    with pytest.raises(StoreError, match=r"write sqlite:///path/to/file\.db") as caught:
        Store(address, writer="tests")
    assert "secret" not in str(caught.value)


# SQLite alone: files, versions and the writer's lock ---------------------------------------------


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The address of a file that does not exist yet."""
    return _sqlite(tmp_path / "log.db")


def _sqlite(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.mark.parametrize("writer", [None, "tests"])
def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(
    writer: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "notes.db"
    path.write_bytes(b"Dear diary, " * 500)
    for _ in range(2):
        with pytest.raises(StoreError, match="no database of ours"):
            Store(_sqlite(path), writer=writer)
    assert path.read_bytes() == b"Dear diary, " * 500


@pytest.mark.parametrize("writer", [None, "tests"])
def test_a_database_of_somebody_else_is_refused(writer: str | None, tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE decisions (id INTEGER)")
    connection.commit()
    with pytest.raises(StoreError):
        Store(_sqlite(path), writer=writer)
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("decisions",)]
    connection.close()


@pytest.mark.parametrize(
    ("writer", "message"), [(None, "is of version 9999"), ("tests", "use the code that wrote it")]
)
def test_a_database_of_a_later_version_is_refused(
    writer: str | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "log.db"
    Store(_sqlite(path), writer="tests").close()
    connection = sqlite3.connect(path)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    for _ in range(2):
        with pytest.raises(StoreError, match=message):
            Store(_sqlite(path), writer=writer)


def test_a_path_that_cannot_be_written_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be written"):
        Store(_sqlite(tmp_path / "file" / "log.db"), writer="tests")
    with pytest.raises(StoreError):
        Store(_sqlite(tmp_path), writer="tests")


def test_the_folder_of_a_new_database_is_made(tmp_path: Path) -> None:
    Store(_sqlite(tmp_path / "a" / "b" / "log.db"), writer="tests").close()
    assert (tmp_path / "a" / "b" / "log.db").exists()


def test_the_migrations_make_the_tables_that_the_code_reads(store: Store) -> None:
    assert store.read(lambda c: compare_metadata(MigrationContext.configure(c), metadata)) == []


def test_a_commit_is_on_the_disk_before_it_is_acknowledged(sqlite_url: str) -> None:
    store = Store(sqlite_url, writer="tests")
    assert store.read(lambda c: c.exec_driver_sql("PRAGMA journal_mode").scalar()) == "wal"
    assert store.read(lambda c: c.exec_driver_sql("PRAGMA synchronous").scalar()) == 2
    store.close()


def test_a_second_writer_is_refused_and_told_who_writes(sqlite_url: str) -> None:
    store = Store(sqlite_url, writer="tests")
    for _ in range(2):
        with pytest.raises(
            StoreError, match=rf'being written by "tests" \(process {os.getpid()}\)'
        ):
            Store(sqlite_url, writer="another")
    store.close()


def test_a_closed_store_frees_the_lock(url: str) -> None:
    for _ in range(3):
        store = Store(url, writer="tests")
        assert store.writable
        store.close()


def test_a_store_that_could_not_be_opened_frees_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    path.write_bytes(b"no database " * 500)
    with pytest.raises(StoreError):
        Store(_sqlite(path), writer="tests")
    path.unlink()
    Store(_sqlite(path), writer="tests").close()


@contextmanager
def _child(what: str, url: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.engine.store_child", what, url],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_another_process_holds_the_lock_until_it_is_killed(sqlite_url: str) -> None:
    url = sqlite_url
    with _child("hold", url) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        said = rf'being written by "a child that holds" \(process {child.pid}\)'
        with pytest.raises(StoreError, match=said):
            Store(url, writer="tests")
        reader = Store(url)
        assert set(_counts(reader).values()) == {0}
        reader.close()
        child.send_signal(signal.SIGKILL)
        child.wait()
        Store(url, writer="tests").close()


def test_what_was_acknowledged_survives_a_kill_and_is_there_once(url: str) -> None:
    """Invariant 4: 24 writers under group commit, killed in the midst of it."""
    with _child("write", url) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(400)]
        child.send_signal(signal.SIGKILL)
        # What it had acknowledged by then is still in the pipe; its last line may be torn.
        lines += child.stdout.read().splitlines(keepends=True)
        child.wait()
    acknowledged = [line.split() for line in lines if line.endswith("\n")]
    assert len(acknowledged) >= 400
    store = Store(url, writer="tests")
    requests = [row.record for row in store.read(lambda c: ask.decisions_after(c, 0, 1_000_000))]
    records = [decode_record(data) for data in requests]
    ids = [record.decision_id for record in records]
    assert len(set(ids)) == len(ids)
    assert len({record.request_id for record in records}) == len(records)
    by_request = {record.request_id: record.decision_id for record in records}
    for number, decision_id, _ in acknowledged:
        assert by_request[f"r{number}"] == decision_id
    stored = [row.outcome_id for row in store.read(lambda c: ask.outcomes_after(c, 0, 1_000_000))]
    assert len(set(stored)) == len(stored)
    assert {outcome_id for _, _, outcome_id in acknowledged} <= set(stored)
    # A client that asks again after the crash is given what it was given before.
    number, decision_id, _ = acknowledged[-1]
    again = replace(
        decision_entry(
            msgspec.structs.replace(
                records[0], decision_id=uuid7(NOW + SECOND, 1), request_id=f"r{number}"
            )
        ),
        sticky={},
    )
    (result,) = store.write([again], NOW)
    assert isinstance(result, Repeated)
    assert decode_record(result.data).decision_id == decision_id
    store.close()
