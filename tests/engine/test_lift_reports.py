"""Lift over a log: of a holdout, of learning apart from acting, and of metrics that two declare."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine.errors import NotFoundError, ReportError
from engine.exporting import export
from engine.lift_reports import DECIDED, HELD, Asked, holdout_report, learning_report, lift_report
from engine.log import OutcomesEntry, decision_entry
from engine.logsource import DatabaseLog, ExportedLog
from engine.record import DecisionRecord
from engine.store import Store
from experiments import parse_units
from tests.engine.build import DAY, HOUR, NOW, Desk, decided, outcome, workspace_of

LATER = NOW + 60 * DAY
WORLD = """\
surfaces:
  home:
    owner: o@example.com
    metrics: {watch: {window: 1h}, clicks: {window: 1h}}
    reward: {watch: 1.0}
    guardrails: {clicks: {direction: up, margin: 0.5}}
    slots:
      layout:
        default: none
        policy: p
        actions: {none: {value: 0}, A: {value: 1}, B: {value: 2}}
  mail:
    owner: o@example.com
    metrics: {watch: {window: 1h}, clicks: {window: 2h}}
    slots:
      body: {default: none, policy: p, actions: {none: {value: 0}, A: {value: 1}}}
policies:
  p: {kind: fixed, action: A}
  any: {kind: uniform}
holdouts: {other: {share: 0.2, surfaces: [home]}, all: {share: 0.3}}
layers:
  l:
    e:
      range: [0.0, 1.0]
      variants:
        usual: {slots: {home.layout: none}}
        random: {slots: {home.layout: {policy: any}}}
        learned: {slots: {home.layout: B}}
"""
WORTH = {"none": 0.0, "A": 1.0, "B": 2.0}
"""What each action brings: uniform choice among the three is worth 1, the learned action 2."""


@pytest.fixture
def log(store: Store, url: str) -> Iterator[DatabaseLog]:
    with closing(DatabaseLog(url)) as source:
        yield source


def worth(record: DecisionRecord) -> float:
    return sum(WORTH[choice.action] for choice in record.choices)


@dataclass
class World:
    """Visits that are decided on a revision and stored together with what they bring."""

    store: Store
    text: str
    number: int = 0

    def __post_init__(self) -> None:
        self.serving = Desk(self.store, workspace_of(self.text)).serving

    def visits(
        self, units: range, at: int = NOW, *, extra: Callable[[int], float] = lambda _: 0.0
    ) -> list[DecisionRecord]:
        """A decision on home of each unit; it brings its actions' worth and the unit's taste.

        ``extra`` is what any action brings beside, of a unit.
        """
        records, outcomes = [], []
        for unit in units:
            self.number += 1
            when = at + unit
            record = decided(self.serving, "home", unit, number=self.number, at=when)
            acts = any(choice.action != "none" for choice in record.choices)
            value = worth(record) + extra(unit) * acts + unit * 7 % 11 / 10
            for metric in ("watch", "clicks"):
                id_ = f"{metric}{record.decision_id}"
                outcomes.append(outcome(id_, record, value, metric=metric, at=when))
            records.append(record)
        self.store.write([decision_entry(record) for record in records], at)
        self.store.write([OutcomesEntry(tuple(outcomes))], at)
        return records


def asked(**more: Any) -> Asked:
    return Asked(LATER, **{"horizon": "fixed", **more})


def test_a_holdout_tells_what_deciding_is_worth(store: Store, log: DatabaseLog) -> None:
    """The three variants bring 0, 1 and 2, so that deciding brings 1 on average."""
    world = World(store, WORLD)
    world.visits(range(900))
    # Later visits are no second entry.
    world.visits(range(300), NOW + 5 * HOUR)
    report = holdout_report(log, "all", asked(metrics=["watch"]))
    [row] = report["results"]
    assert (report["holdout"], report["srm"]["verdict"]) == ("all", "ok")
    assert (row["variant"], row["baseline"]) == (DECIDED, HELD)
    assert row["low"] < 1 < row["high"]
    assert row["high"] - row["low"] < 0.5
    # Units that another holdout keeps are in neither group: .8 pass it, of whom .7 pass this.
    assert 0.8 * 0.7 * 900 - 90 < row["n"] < 0.8 * 0.7 * 900 + 90


def test_a_unit_enters_with_its_first_decision_under_the_holdout(
    store: Store, log: DatabaseLog
) -> None:
    """What was decided before it was declared is before, for those whom it holds and others."""
    World(store, WORLD.replace(", all: {share: 0.3}", "")).visits(range(200), extra=lambda _: 100)
    seen = World(store, WORLD, 10_000).visits(range(100, 400), NOW + DAY)
    report = holdout_report(log, "all", asked(metrics=["watch"], over="day"))
    [row] = report["results"]
    assert row["mean"] < 10
    assert {p["period"] for p in report["periods"]} == {"2024-10-05"}
    kept = [any(a.kind == "holdout" for a in record.assignments) for record in seen]
    assert row["n"] == kept.count(False)


def test_a_novelty_fades_from_period_to_period(store: Store, log: DatabaseLog) -> None:
    world = World(store, WORLD)
    for day in range(4):
        units = range(200 * day, 200 * day + 200)
        world.visits(units, NOW + day * DAY, extra=lambda unit: 3.0 - unit // 200)
    report = holdout_report(log, "all", asked(metrics=["watch"], over="day"))
    effects = {p["period"]: p["difference"] for p in report["periods"] if p["scope"] == "period"}
    assert list(effects) == sorted(effects)
    first, *_, last = effects.values()
    assert first > last + 1
    [trend] = report["trends"]
    assert trend["verdict"] == "fades"
    total = [p["difference"] for p in report["periods"] if p["scope"] == "cumulative"][-1]
    assert total == pytest.approx(report["results"][0]["difference"], rel=1e-9)


def test_four_groups_tell_the_value_of_learning_from_that_of_acting(
    store: Store, log: DatabaseLog, tmp_path: Path
) -> None:
    World(store, WORLD.replace("other: {share: 0.2, surfaces: [home]}, ", "")).visits(range(1_200))
    groups = {"learned": "learned", "random": "random", "usual": "usual"}
    report = learning_report(log, "e", groups, "all", asked(metrics=["watch"]))
    truth = {
        "learning": 1.0, "acting": 1.0, "business as usual": 0.0, "learning over usual": 2.0,
        "all": 2.0,
    }  # fmt: skip
    assert list(report["pairs"]) == list(truth)
    for name, expected in truth.items():
        pair = report["pairs"][name]
        assert pair["srm"]["verdict"] == "ok"
        assert pair["results"][0]["low"] < expected < pair["results"][0]["high"]
    assert report["groups"] == groups | {"none": HELD}
    export(store, tmp_path / "export")
    folder = ExportedLog(tmp_path / "export")
    assert learning_report(folder, "e", groups, "all", asked(metrics=["watch"])) == report
    assert holdout_report(folder, "all", asked()) == holdout_report(log, "all", asked())
    half = asked(metrics=["watch"], units=parse_units("0:0.5"))
    [row] = holdout_report(log, "all", half)["results"]
    assert row["n"] < holdout_report(log, "all", asked())["results"][0]["n"]


def test_a_variant_may_be_the_group_that_is_left_alone(store: Store, log: DatabaseLog) -> None:
    World(store, WORLD).visits(range(200))
    groups = {"learned": "learned", "none": "usual"}
    report = learning_report(log, "e", groups, None, asked(metrics=["watch"]))
    assert list(report["pairs"]) == ["all"]


def test_a_raised_ramp_is_told_beside_a_holdout(store: Store, log: DatabaseLog) -> None:
    slow = WORLD.replace("range: [0.0, 1.0]", "range: [0.0, 1.0]\n      ramp: 0.5")
    for number, text in enumerate((slow, WORLD)):
        world = World(store, text, 10_000 * number)
        world.visits(range(120 * number, 240), NOW + number * DAY)
    report = learning_report(log, "e", {"learned": "learned"}, "all", asked(metrics=["watch"]))
    assert any(note.startswith('the ramp of "e" was changed') for note in report["notes"])


def test_a_metric_that_two_surfaces_declare_otherwise_is_left_out_and_named(
    store: Store, log: DatabaseLog
) -> None:
    World(store, WORLD).visits(range(60))
    report = holdout_report(log, "all", asked())
    assert {row["metric"] for row in report["results"]} == {"watch"}
    said = '"clicks" is declared otherwise on home and on mail; declare it alike, or under two'
    assert any(said in note for note in report["notes"])
    with pytest.raises(ReportError, match="declared otherwise on home and on mail"):
        holdout_report(log, "all", asked(metrics=["clicks"]))
    # Of the experiment's one surface it is one metric.
    assert lift_report(log, "e", asked(metrics=["clicks"]))["guardrails"]


def test_what_cannot_be_compared_says_what_to_mend(store: Store, log: DatabaseLog) -> None:
    world = World(store, WORLD)
    world.visits(range(1))
    learned = {"learned": "learned", "random": "random"}
    with pytest.raises(NotFoundError, match=r'"x", which is not declared; known: all, other'):
        holdout_report(log, "x", asked())
    with pytest.raises(ReportError, match="both groups are needed"):
        holdout_report(log, "all", asked())
    with pytest.raises(NotFoundError, match='learned is "x", which is no variant of "e"'):
        learning_report(log, "e", {"learned": "x"}, None, asked())
    with pytest.raises(NotFoundError, match="known: all, other"):
        learning_report(log, "e", learned, "x", asked())
    with pytest.raises(ReportError, match="both say who is left alone"):
        learning_report(log, "e", learned | {"none": "usual"}, "all", asked())
    world.visits(range(100, 130))
    with pytest.raises(ReportError, match="no two that are"):
        learning_report(log, "e", {"learned": "learned"}, None, asked())
