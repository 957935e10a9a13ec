"""Reports over a log: what is a row, what is left out, and under which revision a row is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ReportError
from engine.exporting import export
from engine.lift_reports import Asked, lift_report
from engine.log import VoidEntry
from engine.logsource import DatabaseLog, ExportedLog, LogSource
from engine.record import DecisionRecord
from engine.reports import ope_report
from engine.store import Store
from experiments import parse_units
from tests.engine.build import (
    DAY,
    HOUR,
    NOW,
    Desk,
    decided,
    only_choice,
    outcome,
    serving_of,
    workspace_of,
)

WORLD = """\
surfaces:
  home:
    owner: o@example.com
    attributes: {weeks: integer, device: string}
    metrics: {watch: {window: 1h, lateness: 30m, aggregate: max, range: [0, 1]}}
    reward: {watch: 1.0}
    slots:
      layout:
        default: A
        policy: p
        actions: {A: {value: 1}, B: {value: 2}, C: {value: 3}}
        rules:
          - {id: c, kind: eligibility, actions: [C], when: "weeks >= 1", reason: r}
policies:
  p: {kind: uniform}
"""
UNBOUNDED = WORLD.replace(", range: [0, 1]", "")
"""Without a declared range the value of IPS is the plain mean, not an interval's centre."""
STICKY = WORLD.replace("{kind: uniform}", "{kind: uniform, draw: sticky, period: 1d}")
START = NOW // DAY * DAY
LATER = NOW + 30 * DAY


@pytest.fixture
def log(store: Store, url: str) -> Iterator[DatabaseLog]:
    """The store's log as a report reads it."""
    with closing(DatabaseLog(url)) as source:
        yield source


def _ope(log: LogSource, *targets: str, as_of_us: int = LATER, **more: Any) -> dict[str, Any]:
    return ope_report(log, "home", "layout", targets, as_of_us=as_of_us, **more)


def _value(report: dict[str, Any], target: str, estimator: str = "ips") -> float:
    (found,) = (
        row["value"]
        for row in report["results"]
        if (row["target"], row["estimator"]) == (target, estimator)
    )
    assert isinstance(found, float)
    return found


def _n(report: dict[str, Any]) -> set[int]:
    return {row["n"] for row in report["results"]}


def _ips(rows: Sequence[tuple[DecisionRecord, float]], target: Callable[..., float]) -> float:
    """The mean of the rewards, each weighted by target over logged probability, by hand."""
    weighted = [value * target(record) / only_choice(record).propensity for record, value in rows]
    return sum(weighted) / len(rows)


def _rewarded(
    desk: Desk, units: range, at: int = NOW, **context: Any
) -> list[tuple[DecisionRecord, float]]:
    """Decisions of some units with a reward that differs by unit and action."""
    rows = []
    for unit in units:
        record = desk.decide(unit, at + unit, context=context)
        value = (unit % 4) / 8 + {"A": 0.0, "B": 0.25, "C": 0.5}[only_choice(record).action]
        desk.report(outcome(f"o{record.decision_id}", record, value, at=at + unit))
        rows.append((record, value))
    return rows


# Sticky draws ------------------------------------------------------------------------------------


def test_a_sticky_draw_is_one_row_with_the_rewards_of_its_period(
    store: Store, log: DatabaseLog
) -> None:
    """Their sum exceeds the range that is declared of a decision's reward: no fault."""
    desk = Desk(store, workspace_of(STICKY))
    rows = []
    for unit in range(24):
        uses = [desk.decide(unit, START + h * HOUR, context={"weeks": 2}) for h in (1, 5, 22)]
        values = [1.0, (unit % 3) / 2, 0.5]
        for record, value in zip(uses, values, strict=True):
            desk.report(outcome(record.decision_id, record, value, at=record.decided_at))
        rows.append((uses[0], sum(values)))
    report = _ope(log, "p", "B")
    assert (report["row"], _n(report)) == ("draw", {24})
    plain = sum(value for _, value in rows) / 24
    assert plain > 1
    assert _value(report, "p") == pytest.approx(plain)
    by_hand = _ips(rows, lambda record: only_choice(record).action == "B")
    assert _value(report, "B") == pytest.approx(by_hand)
    assert _value(_ope(log, "p", metric="watch"), "p") == pytest.approx(plain)


def test_draws_of_void_decisions_and_of_open_periods_are_left_out_and_counted(
    store: Store, log: DatabaseLog
) -> None:
    desk = Desk(store, workspace_of(STICKY))
    days = [
        [desk.decide(unit, START + day * DAY + h * HOUR, context={"weeks": 2}) for h in (1, 2, 3)]
        for unit in range(12)
        for day in (0, 1)
    ]
    for uses in days:
        for record in uses:
            desk.report(outcome(record.decision_id, record, 0.5, at=record.decided_at))
    # The first use of a draw is void: its others have lost theirs. Of another, a later use is.
    store.write([VoidEntry(days[0][0].decision_id, "late")], NOW)
    store.write([VoidEntry(days[2][1].decision_id, "late")], NOW)
    report = _ope(log, "p", as_of_us=START + DAY + 6 * HOUR)
    assert report["left_out"] == {
        "not_drawn": 0,
        "draws_void": 2,
        "open_windows": 0,
        "late_outcomes": 0,
        "open_periods": 12,
    }
    assert _n(report) == {11}
    assert _value(report, "p") == pytest.approx((10 * 1.5 + 1.0) / 11)
    with pytest.raises(ReportError, match="36 open windows, 0 late outcomes, 11 open periods"):
        _ope(log, "p", as_of_us=START + DAY)


# Targets -----------------------------------------------------------------------------------------


def test_the_newest_snapshot_of_a_learner_is_the_one_evaluated(
    store: Store, log: DatabaseLog
) -> None:
    """As it would serve, though an earlier one learned from more."""
    learner = "p:home.layout"
    desk = Desk(store, workspace_of(WORLD.replace("uniform", "thompson_gaussian, floor: 0.3")))
    _rewarded(desk, range(40), weeks=2)
    most = desk.learn(learner, LATER)
    newest = desk.learn(learner, LATER, refit=True, units=parse_units("0:0.2"))
    assert most is not None
    assert newest is not None
    assert 0 < newest.snapshot.learned < most.snapshot.learned
    first, last = f"p@{most.snapshot.digest[:16]}", f"p@{newest.snapshot.digest}"
    report = _ope(log, "p", first, last)
    assert _value(report, "p") == _value(report, last) != _value(report, first)
    judged = _ope(log, "p", units=parse_units("0.2:1"))
    assert not any("learned from rows" in note for note in judged["notes"])
    assert any("learned from rows" in note for note in report["notes"])


def test_a_log_in_which_rules_left_one_action_gives_the_plain_mean(
    store: Store, log: DatabaseLog
) -> None:
    rules = "actions: [B, C], when"
    desk = Desk(store, workspace_of(WORLD.replace("actions: [C], when", rules)))
    rows = _rewarded(desk, range(20), weeks=0)
    report = _ope(log, "p", "uniform", "B")
    mean = sum(value for _, value in rows) / 20
    for row in report["results"]:
        assert row["value"] == pytest.approx(mean), row
    assert report["left_out"]["not_drawn"] == 0


def test_a_file_of_probabilities_is_a_target(
    store: Store, log: DatabaseLog, tmp_path: Path
) -> None:
    desk = Desk(store, workspace_of(UNBOUNDED))
    rows = _rewarded(desk, range(60), weeks=2)
    file = tmp_path / "always_b.csv"
    lines = [f"{record.decision_id},0,1,0" for record, _ in rows]
    file.write_text("\n".join(["decision_id,A,B,C", *lines]), encoding="utf-8")
    report = _ope(log, "B", str(file))
    assert _value(report, str(file)) == _value(report, "B")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", r"t\.csv cannot be read: No columns to parse from file"),
        ("t.csv", b"\xff\xfe,", r"t\.csv cannot be read: .* decode byte"),
        ("t.parquet", b"no parquet", r"t\.parquet cannot be read"),
        ("t.csv", b"decision_id,A,B\n", "has no column C; give decision_id and every action"),
        ("t.csv", b"decision_id,A,B,C\nd,1,0,0\nd,1,0,0\n", "in 1 rows, first in row 1 .it is d."),
        ("t.csv", b"decision_id,A,B,C\nd,1,zero,0\n", "has a column B of type str"),
        ("t.csv", b"decision_id,A,B,C\nd,1,0,0\n", "lacks 4 of the decisions evaluated"),
    ],
)
def test_a_file_that_is_no_target_is_refused_by_name(
    store: Store, log: DatabaseLog, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    _rewarded(Desk(store, workspace_of(WORLD)), range(4), weeks=2)
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(ReportError, match=message):
        _ope(log, str(file))


# Revisions ---------------------------------------------------------------------------------------


def _revised(desk: Desk, *changes: tuple[str, str]) -> Desk:
    """A later revision of UNBOUNDED serves on the same store."""
    text = UNBOUNDED
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    later = Desk(desk.store, workspace_of(text))
    later._number = 1_000
    return later


def test_where_a_target_was_not_eligible_the_default_of_the_rows_own_revision_stands(
    store: Store, log: DatabaseLog
) -> None:
    first = Desk(store, workspace_of(UNBOUNDED))
    rows = _rewarded(first, range(30), weeks=0)
    second = _revised(first, ("default: A", "default: B"))
    rows += _rewarded(second, range(30), NOW + HOUR, weeks=0)
    rows += _rewarded(second, range(30), NOW + 2 * HOUR, weeks=1)

    def always_c(record: DecisionRecord) -> float:
        choice = only_choice(record)
        default = "A" if record.revision == first.workspace.revision else "B"
        return choice.action == ("C" if "C" in choice.eligible else default)

    assert _value(_ope(log, "C"), "C") == pytest.approx(_ips(rows, always_c))


def test_a_context_is_read_as_the_rows_own_revision_declares_it(
    store: Store, log: DatabaseLog
) -> None:
    """An attribute of another type since would refuse what was logged."""
    first = Desk(store, workspace_of(UNBOUNDED))
    rows = _rewarded(first, range(30), weeks=1, device="tv")
    segment = (
        "{kind: segment, segments: [{id: tv, when: 'device == \"tv\"', weights: {B: 1}}], "
        "otherwise: {C: 1}, floor: 0.4}"
    )
    second = _revised(
        first,
        ("weeks: integer", "weeks: string"),
        ('"weeks >= 1"', "'weeks == \"new\"'"),
        ("policy: p", "policy: q"),
        ("p: {kind: uniform}", f"q: {segment}"),
    )
    rows += _rewarded(second, range(30), NOW + HOUR, weeks="new", device="tv")
    rows += _rewarded(second, range(30), NOW + 2 * HOUR, weeks="new", device="phone")

    def by_device(record: DecisionRecord) -> float:
        choice = only_choice(record)
        of_segment = "B" if record.context["device"] == "tv" else "C"
        return 0.6 * (choice.action == of_segment) + 0.4 / len(choice.eligible)

    assert _value(_ope(log, "q"), "q") == pytest.approx(_ips(rows, by_device))


def test_actions_that_a_later_revision_removed_are_evaluated_where_they_were(
    store: Store, log: DatabaseLog
) -> None:
    first = Desk(store, workspace_of(UNBOUNDED))
    rows = _rewarded(first, range(40), weeks=1)
    second = _revised(
        first,
        (", C: {value: 3}", ""),
        ("actions: [C], when", "actions: [B], when"),
    )
    rows += _rewarded(second, range(40), NOW + HOUR, weeks=1)
    assert {only_choice(record).action for record, _ in rows[:40]} == {"A", "B", "C"}
    report = _ope(log, "p", "C")
    assert _value(report, "p") == pytest.approx(sum(value for _, value in rows) / 80)

    def always_c(record: DecisionRecord) -> float:
        choice = only_choice(record)
        return choice.action == ("C" if "C" in choice.eligible else "A")

    assert _value(report, "C") == pytest.approx(_ips(rows, always_c))


# Lift --------------------------------------------------------------------------------------------

GUARDED = """\
surfaces:
  home:
    owner: o@example.com
    metrics:
      same: {window: 1h}
      worse: {window: 1h}
      unsure: {window: 1h}
      better: {window: 1h}
      fewer: {window: 1h}
      free: {window: 1h}
    guardrails:
      same: {direction: down, margin: 0.5}
      worse: {direction: down, margin: 0.5}
      unsure: {direction: down, margin: 0.5}
      better: {direction: up}
      fewer: {direction: up, margin: 0.5}
    slots:
      layout: {default: A, actions: {A: {value: 1}, B: {value: 2}}}
layers:
  l:
    e:
      range: [0.0, 1.0]
      owner: e@example.com
      variants: {control: {slots: {home.layout: A}}, b: {slots: {home.layout: B}}}
"""


def _guarded(store: Store, units: Iterable[int] = range(60)) -> None:
    """Outcomes of each metric; what variant b changes in one stands beside its name."""
    desk = Desk(store, workspace_of(GUARDED))
    for unit in units:
        record = desk.decide(unit, NOW + unit)
        b = only_choice(record).action == "B"
        noise = (unit * 7 % 11) / 100
        values = {
            "same": noise,
            "worse": noise + 2 * b,
            "unsure": 100 * noise + 0.5 * b,
            "better": noise + b,
            "fewer": noise - 2 * b,
            "free": noise,
        }
        for metric, value in values.items():
            sent = outcome(f"{metric}{unit}", record.unit, value, metric=metric, at=NOW + unit)
            desk.report(sent)


def test_a_guardrail_holds_is_broken_or_stays_open(store: Store, log: DatabaseLog) -> None:
    _guarded(store)
    report = lift_report(log, "e", Asked(as_of_us=LATER, horizon="fixed"))
    assert report["owner"] == "e@example.com"
    assert {g["metric"]: g["verdict"] for g in report["guardrails"]} == {
        "same": "held",
        "worse": "broken",
        "unsure": "open",
        "better": "held",
        "fewer": "broken",
    }
    (worse,) = (g for g in report["guardrails"] if g["metric"] == "worse")
    assert worse == {
        "metric": "worse",
        "variant": "b",
        "direction": "down",
        "margin": 0.5,
        "verdict": "broken",
    }


def test_a_guardrail_without_an_interval_is_open(store: Store, log: DatabaseLog) -> None:
    """The sample ratio failed, so nothing is known: that is no pass."""
    serving = serving_of(workspace_of(GUARDED))
    in_b = {u for u in range(100) if only_choice(decided(serving, "home", u)).action == "B"}
    _guarded(store, [u for u in range(100) if u not in in_b or u % 25 == 0])
    report = lift_report(log, "e", Asked(as_of_us=LATER))
    assert report["srm"]["verdict"] == "failed"
    assert {g["verdict"] for g in report["guardrails"]} == {"open"}


# Exports -----------------------------------------------------------------------------------------


def test_reports_of_an_export_equal_those_of_the_database(
    store: Store, log: DatabaseLog, tmp_path: Path
) -> None:
    """With voids, corrections, outcomes of units, two revisions and a snapshot."""
    layers = (
        "layers: {l: {e: {range: [0.0, 1.0], variants: "
        "{a: {slots: {home.layout: {policy: p}}}, b: {slots: {home.layout: A}}}}}}\n"
    )
    text = STICKY.replace("uniform", "thompson_gaussian, floor: 0.2") + layers
    first = Desk(store, workspace_of(text))
    rows = _rewarded(first, range(40), weeks=1)
    second = Desk(store, workspace_of(text.replace("value: 3", "value: 4")))
    second._number = 1_000
    rows += _rewarded(second, range(20, 60), NOW + HOUR, weeks=0)
    for number, (record, _) in enumerate(rows[::5]):
        of = record if number % 2 else record.unit
        sent = outcome(f"s{number}", of, 0.9, at=record.decided_at + 5)
        second.report(sent, outcome(f"t{number}", of, 0.1, at=NOW, corrects=f"s{number}"))
    store.write([VoidEntry(rows[3][0].decision_id, "late")], NOW)
    assert second.learn("p:home.layout@e.a", LATER) is not None
    export(store, tmp_path / "export")
    folder = ExportedLog(tmp_path / "export")
    assert _ope(folder, "p", "B", "uniform", against="logging") == _ope(
        log, "p", "B", "uniform", against="logging"
    )
    for units in (None, parse_units("0:0.6")):
        in_folder, in_log = (
            lift_report(source, "e", Asked(units=units, as_of_us=LATER)) for source in (folder, log)
        )
        assert in_folder == in_log
