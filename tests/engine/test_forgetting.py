"""Forgetting a person: nothing names them any more, and every number stays what it was."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ConflictError, RequestError, StoreError
from engine.explain import explain
from engine.forgetting import Forgotten, Person, forget
from engine.ids import random_token
from engine.lift_reports import Asked, lift_report
from engine.log import Entry
from engine.logsource import DatabaseLog
from engine.record import DecisionRecord, decode_record
from engine.replay import replay
from engine.reports import ope_report
from engine.request import DecideRequest
from engine.store import Store
from engine.store import read as ask
from engine.store.erase import unit_records
from tests.engine.build import DAY, HOUR, NOW, Desk, outcome, workspace_of

WORLD = """\
surfaces:
  home:
    owner: o@example.com
    attributes:
      weeks: integer
      device: string
      note: string
      joined: timestamp
      genres: list
      seen: list
    metrics: {watch: {window: 1h, aggregate: max, range: [0, 1]}}
    reward: {watch: 1.0}
    slots:
      layout:
        default: A
        policy: p
        actions: {A: {value: 1}, B: {value: 2}}
      rows:
        default: A
        policy: fans
        actions: {A: {value: 1}, B: {value: 2}}
      hero:
        default: A
        policy: sticky
        actions: {A: {value: 1}, B: {value: 2}}
policies:
  p: {kind: lin_ucb, floor: 0.2, features: [weeks, device]}
  sticky:
    kind: uniform
    draw: sticky
    period: 1d
  fans:
    kind: segment
    segments:
      - {id: fan, when: '"drama" in genres', weights: {B: 1}}
    otherwise: {A: 1}
layers:
  l:
    e:
      range: [0.0, 1.0]
      variants:
        control: {slots: {home.layout: A}}
        b: {slots: {home.layout: {policy: p}}}
"""
ALICE = "alice-4711@example.com"
LATER = NOW + 30 * DAY
CONTEXT = {
    "weeks": 3,
    "device": "tv",
    "joined": "2024-02-03T04:05:06Z",
    "genres": ["drama"],
    "seen": ["the-secret-film"],
    "not-declared-alice": 1,
}


def told(desk: Desk, user: str, at: int, **request: Any) -> DecisionRecord:
    """A decision of a request with all that can identify, and its outcomes."""
    asked = DecideRequest(
        "home", user_id=user, anonymous_id=f"device-of-{user}", request_id=f"request-{user}-{at}",
        context={**CONTEXT, "note": user}, traceparent=f"00-{user}-01", **request,
    )  # fmt: skip
    record = desk.decide(
        user, at, anonymous_id=asked.anonymous_id, request_id=asked.request_id,
        context=asked.context, traceparent=asked.traceparent, **request,
    )  # fmt: skip
    first = outcome(f"order-of-{user}-{at}", record, 0.25, at=at)
    again = outcome(f"return-of-{user}-{at}", record, 0.75, at=at + 1, corrects=first.outcome_id)
    of_unit = outcome(f"visit-of-{user}-{at}", record.unit, 0.5, at=at + 2)
    desk.report(first, again, of_unit)
    return record


@pytest.fixture
def desk(store: Store) -> Desk:
    """A log of twenty people, twice each, who all tell what identifies them."""
    made = Desk(store, workspace_of(WORLD))
    for unit in range(20):
        for at in (NOW + unit, NOW + HOUR + unit):
            told(made, ALICE if unit == 7 else f"somebody-{unit}", at)
    return made


def erase(desk: Desk, *people: Person) -> list[Forgotten]:
    def write(entry: Entry) -> None:
        desk.store.write([entry], LATER)

    return [
        forget(desk.store, desk.revisions, person, write=write, new_token=random_token)
        for person in people or [Person(ALICE, f"device-of-{ALICE}")]
    ]


def records(store: Store) -> list[DecisionRecord]:
    rows = store.read(lambda c: ask.decisions_after(c, 0, 1_000))
    return [decode_record(row.record) for row in rows]


def numbers(url: str) -> Iterator[tuple[Any, ...]]:
    """Every number of the reports that does not depend on which units a fold of five holds."""
    with closing(DatabaseLog(url)) as log:
        yield from _numbers_of(log)


def _numbers_of(log: DatabaseLog) -> Iterator[tuple[Any, ...]]:
    report = lift_report(log, "e", Asked(as_of_us=LATER))
    for row in [*report["results"], report["srm"]]:
        yield tuple(row.values())
    for slot in ("layout", "hero"):
        report = ope_report(log, "home", slot, ["A", "uniform", "fans"], as_of_us=LATER)
        for row in report["results"]:
            if row["estimator"] in {"ips", "snips"}:
                yield tuple(row.values())
    yield tuple(log.choices("home", "layout").drop_columns(["unit", "context"]).to_pylist())


def test_every_report_stays_as_it_was(desk: Desk, url: str) -> None:
    before = list(numbers(url))
    erase(desk)
    after = list(numbers(url))
    assert len(before) == len(after) > 8
    for was, is_ in zip(before, after, strict=True):
        for a, b in zip(was, is_, strict=True):
            assert b == (pytest.approx(a, rel=1e-12) if isinstance(a, float) else a)


def test_what_is_learned_stays_as_it_was(desk: Desk) -> None:
    def learned() -> dict[str, str]:
        made = {id_: desk.learn(id_, LATER, refit=True) for id_ in desk.workspace.learners}
        return {id_: one.snapshot.digest for id_, one in made.items() if one and one.learned}

    before = learned()
    assert before
    erase(desk)
    assert learned() == before


@pytest.mark.parametrize("any_url", ["sqlite"], indirect=True)
def test_no_file_of_the_database_names_the_person(desk: Desk, url: str) -> None:
    """Neither by a text nor by what one can compute: the uniform that a sticky draw hashes to."""
    file = Path(url.removeprefix("sqlite:///"))
    (drawn,) = {
        c.draw.uniform for r in records(desk.store) for c in r.choices
        if r.identity.user_id == ALICE and c.draw and c.draw.expires_at
    }  # fmt: skip
    erase(desk)
    uniforms = {c.draw.uniform for r in records(desk.store) for c in r.choices if c.draw}
    assert drawn not in uniforms
    files = list(file.parent.glob(f"{file.name}*"))
    assert file in files
    for each in files:
        data = each.read_bytes()
        assert ALICE.encode() not in data, each
        assert b"somebody-8" in data or each != file


@pytest.mark.parametrize("any_url", ["sqlite"], indirect=True)
def test_the_bytes_are_gone_though_pages_were_split_around_them(store: Store, url: str) -> None:
    """Large and small records of many units, so that rows move between pages as the log grows."""
    made = Desk(store, workspace_of(WORLD))
    for number in range(600):
        genres = ["x" * (number % 37) * 20]
        made.decide(f"person-{number * 7919 % 60:03d}-of-many", NOW + number,
                    context={"genres": genres})  # fmt: skip
    erase(made, *(Person(f"person-{number:03d}-of-many") for number in range(0, 60, 6)))
    data = Path(url.removeprefix("sqlite:///")).read_bytes()
    found = {number for number in range(60) if f"person-{number:03d}-of-many".encode() in data}
    assert found == {number for number in range(60) if number % 6}


def test_a_record_keeps_what_evaluation_reads_and_no_more(desk: Desk) -> None:
    (before, _) = (r for r in records(desk.store) if r.identity.user_id == ALICE)
    erase(desk)
    (after,) = (r for r in records(desk.store) if r.decision_id == before.decision_id)
    assert after.unit.startswith("e:")
    assert after.identity.user_id is after.identity.anonymous_id is None
    assert after.request_id is after.traceparent is None
    # What a segment reads stays; a list and a time that nothing reads, and what repeats the id, go.
    assert after.context == {"weeks": 3, "device": "tv", "genres": ["drama"]}
    assert after.unknown == {}
    for was, is_ in zip(before.choices, after.choices, strict=True):
        assert (is_.pmf, is_.eligible, is_.action, is_.propensity, is_.expected) == (
            was.pmf, was.eligible, was.action, was.propensity, was.expected
        )  # fmt: skip
    assert after.assignments == before.assignments


def test_pseudonyms_come_from_chance_alone(desk: Desk) -> None:
    """One for all of a unit's rows, and another each time."""
    erase(desk)
    (first,) = {r.unit for r in records(desk.store) if r.unit.startswith("e:")}
    told(desk, ALICE, NOW + 2 * HOUR)
    erase(desk)
    both = {r.unit for r in records(desk.store) if r.unit.startswith("e:")}
    assert first in both
    assert len(both) == 2


def test_an_erased_decision_is_explained_but_not_replayed(desk: Desk) -> None:
    (record, _) = (r for r in records(desk.store) if r.identity.user_id == ALICE)
    erase(desk)
    document = explain(desk.store, desk.revisions, record.decision_id)
    assert len(document["outcomes"]) == 3
    with pytest.raises(ConflictError, match="forgotten"):
        replay(desk.store, desk.revisions, record.decision_id)
    replayable = desk.store.read(lambda c: ask.last_replayable(c, 1_000))
    assert len(replayable) == 38
    assert all(replay(desk.store, desk.revisions, id_).identical for id_ in replayable[:10])


def test_others_stay_untouched(desk: Desk) -> None:
    before = {r.decision_id: r for r in records(desk.store) if r.identity.user_id != ALICE}
    erase(desk)
    after = {r.decision_id: r for r in records(desk.store) if r.decision_id in before}
    assert after == before


def test_what_stood_beside_is_told_and_an_anonymous_id_is_erased_beside_others(
    desk: Desk,
) -> None:
    desk.decide("bob", NOW, anonymous_id="tablet")
    asked = DecideRequest("home", anonymous_id="tablet")
    assert asked.unit == "a:tablet"
    (found,) = erase(desk, Person(ALICE))
    assert found == Forgotten(2, 6, (), (f"device-of-{ALICE}",))
    (found,) = erase(desk, Person(anonymous_id="tablet"))
    assert found == Forgotten(1, 0, ("bob",), ())
    (bob,) = (r for r in records(desk.store) if r.unit == "u:bob")
    assert bob.identity.user_id == "bob"
    assert bob.identity.anonymous_id is None
    # The unit is bob's still, and so is all that his draws were made of.
    assert replay(desk.store, desk.revisions, bob.decision_id).identical


def test_a_second_time_finds_nothing(desk: Desk) -> None:
    erase(desk)
    (again,) = erase(desk)
    assert again == Forgotten()


@pytest.mark.parametrize("any_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("survives", [True, False], ids=["after the commit", "before it"])
def test_killed_on_the_way_it_is_repeated(desk: Desk, url: str, survives: bool) -> None:
    def dying(entry: Entry) -> None:
        if survives:
            desk.store.write([entry], LATER)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        forget(desk.store, desk.revisions, Person(ALICE), write=dying, new_token=random_token)
    (found,) = erase(desk)
    assert (found.decisions, found.outcomes) == ((0, 0) if survives else (2, 6))
    assert ALICE.encode() not in Path(url.removeprefix("sqlite:///")).read_bytes()


def test_a_reader_that_stays_is_told_of_and_the_erasure_stands(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.forgetting._PAUSE_S", 0.0)
    monkeypatch.setattr("engine.forgetting._TRIES", 2)
    monkeypatch.setattr(desk.store, "clear_files", lambda: False)
    with pytest.raises(StoreError, match="repeat it"):
        erase(desk)
    assert desk.store.read(lambda c: unit_records(c, f"u:{ALICE}")) == []


@pytest.mark.parametrize(
    ("make", "field"),
    [(Person, "user_id"), (lambda: Person(""), "user_id"),
     (lambda: Person("u", "a\n"), "anonymous_id")],
)  # fmt: skip
def test_nobody_is_no_person(make: Callable[[], Person], field: str) -> None:
    with pytest.raises(RequestError) as refused:
        make()
    assert refused.value.field == field


def test_tokens_differ() -> None:
    assert len({random_token() for _ in range(100)}) == 100
    assert len(random_token()) == 2 * len(secrets.token_bytes(16))
