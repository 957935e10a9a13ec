"""Candidates: what they learn beside the incumbent, how they come to serve, and the way back."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.errors import ConfigurationError, NotFoundError, RequestError
from engine.learning import learn
from engine.lineage import lineages, rollback
from engine.log import PromotionEntry, Refused, Stored
from engine.models import newer, serving
from engine.promotion import Attempt, attempt, challenger
from engine.record import decode_record
from engine.replay import replay
from engine.revisions import Revisions
from engine.simulate import TinyWorld, run
from engine.standing import standing
from engine.store import PromotionRow, Store
from engine.store import read as ask
from engine.workspace import Workspace, workspace_from_content, written
from policies import snapshot_digest
from tests.engine.build import DAY, NOW, Desk, outcome, workspace_of

CONTENT: dict[str, Any] = {
    "surfaces": {
        "page": {
            "owner": "tests@example.com",
            "triggers": ["view"],
            "attributes": {"x": "boolean"},
            "metrics": {"click": {"window": "2h", "aggregate": "max", "range": [0, 1]}},
            "reward": {"click": 1.0},
            "slots": {
                "box": {
                    "default": "a",
                    "policy": "p",
                    "actions": {"a": {"value": 0}, "b": {"value": 1}},
                }
            },
        }
    },
    "policies": {
        "p": {
            "kind": "uniform",
            "floor": 0.1,
            "candidate": {"kind": "lin_ucb", "features": ["x"], "gate": {"rows": 500}},
        }
    },
}
ID = "p:page.box"


def _workspace(**candidate: Any) -> Workspace:
    content = msgspec.json.decode(msgspec.json.encode(CONTENT))
    content["policies"]["p"]["candidate"] |= candidate
    return workspace_from_content(msgspec.json.encode(content))


def _lived(store: Store, workspace: Workspace, days: int = 2, viewers: int = 800) -> int:
    """Days of the tiny world, of which all has matured; the time then."""
    *_, last = run(TinyWorld(1, viewers), workspace, store, days=days, warn=print)
    return last.now_us


def _attempt(store: Store, workspace: Workspace, now: int) -> Attempt:
    found = attempt(
        store, workspace, ID,
        until_us=now, now_us=now, revisions=Revisions(store), warn=pytest.fail,
    )  # fmt: skip
    if found.entry is not None:
        assert store.write([found.entry], now) == [Stored()]
    return found


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Store]:
    opened = Store(f"sqlite:///{tmp_path / 'log.db'}", writer="tests")
    yield opened
    opened.close()


# What a shadow is ---------------------------------------------------------------------------------


def test_a_shadow_changes_nothing_of_what_is_served(tmp_path: Path) -> None:
    plain = msgspec.json.decode(msgspec.json.encode(CONTENT))
    del plain["policies"]["p"]["candidate"]
    served: list[list[Any]] = []
    for name, workspace in (
        ("a", workspace_from_content(msgspec.json.encode(plain))),
        ("b", _workspace()),
    ):
        store = Store(f"sqlite:///{tmp_path / name}.db", writer="tests")
        _lived(store, workspace, viewers=60)
        rows = store.read(partial(ask.decisions_after, seq=0, limit=1_000))
        choices = [decode_record(row.record).choices[0] for row in rows]
        served.append([(c.action, c.pmf, c.snapshot, c.spec) for c in choices])
        store.close()
    assert served[0] == served[1]


def test_a_shadow_learns_what_the_same_policy_would_learn_if_it_served(store: Store) -> None:
    """Its lineage goes on where the candidate's kind is declared as the policy itself."""
    workspace = _workspace()
    now = _lived(store, workspace, days=1, viewers=50)
    shadow = workspace.candidates[ID]
    (newest,) = store.read(partial(ask.lineage, learner=ID, spec=shadow.spec, limit=1))
    content = msgspec.json.decode(msgspec.json.encode(CONTENT))
    del content["policies"]["p"]["candidate"]
    content["policies"]["p"] |= {"kind": "lin_ucb", "features": ["x"]}
    after = workspace_from_content(msgspec.json.encode(content))
    assert serving(store, after, now, pytest.fail).models[ID].snapshot == newest.digest
    assert newest.learned == 50


def test_an_apprentice_learns_to_do_what_is_done(log: Store) -> None:
    """The existing logic is a segment policy; the apprentice sees its attribute, and agrees."""
    content = msgspec.json.decode(msgspec.json.encode(CONTENT))
    content["policies"]["p"] = {
        "kind": "segment",
        "segments": [{"id": "xs", "when": "x", "weights": {"b": 1}}],
        "otherwise": {"a": 1},
        "candidate": {
            "kind": "lin_greedy", "features": ["x"], "mode": "apprentice", "gate": {"rows": 100},
        },
    }  # fmt: skip
    workspace = workspace_from_content(msgspec.json.encode(content))
    now = _lived(log, workspace, days=2, viewers=150)
    found = attempt(
        log, workspace, ID,
        until_us=now, now_us=now, revisions=Revisions(log), warn=pytest.fail,
    )  # fmt: skip
    assert found.report["verdict"] == "apprentice"
    assert found.report["agreement"] > 0.99
    assert found.entry is None
    apprentice = workspace.candidates[ID]
    assert standing(workspace, ID, [_promotion(apprentice.spec)]).promoted is False


def _promotion(
    spec: str | None, what: Any = "promote", snapshot: str | None = None
) -> PromotionRow:
    return PromotionRow(1, ID, what, spec, snapshot, 0, 0, "{}")


# The gate on a log --------------------------------------------------------------------------------


def test_a_better_candidate_serves_and_is_rolled_back_by_one_command(log: Store) -> None:
    workspace = _workspace()
    now = _lived(log, workspace)
    before = serving(log, workspace, now, pytest.fail)
    assert ID not in before.models
    found = _attempt(log, workspace, now)
    assert found.report["verdict"] == "promoted", found.report
    assert found.report["rows"] == 800
    after = serving(log, workspace, now, pytest.fail)
    candidate = workspace.candidates[ID]
    assert after.models[ID].spec == candidate.spec
    (newest,) = log.read(partial(ask.lineage, learner=ID, spec=candidate.spec, limit=1))
    assert after.models[ID].snapshot == newest.digest

    desk = Desk(log, workspace)
    record = desk.decide(1, now, surface="page", context={"x": True})
    (choice,) = record.choices
    assert (choice.learner, choice.spec, choice.snapshot) == (ID, candidate.spec, newest.digest)
    assert choice.action == "b"
    assert replay(log, Revisions(log), record.decision_id).identical
    told = lineages(log, workspace)[ID]
    assert told["serves"]["what"] == "candidate"
    assert told["serves"]["snapshot"] == newest.digest
    assert [step["what"] for step in told["promotions"]] == ["promote"]
    with pytest.raises(RequestError, match="served by its candidate already"):
        _attempt(log, workspace, now)

    log.write([rollback(log, workspace, ID, None, now + 1)], now)
    assert ID not in serving(log, workspace, now, pytest.fail).models
    assert replay(log, Revisions(log), record.decision_id).identical
    with pytest.raises(RequestError, match="nothing was promoted"):
        rollback(log, workspace, ID, None, now + 2)


@pytest.mark.parametrize("days", [1, 2])
def test_what_judges_a_candidate_came_after_all_that_it_learned_from(log: Store, days: int) -> None:
    """A snapshot from before those rows is taken where there is one, else it is made then."""
    workspace = _workspace()
    now = _lived(log, workspace, days=days, viewers=1_000 // days)
    found = _attempt(log, workspace, now)
    rows = log.read(partial(ask.decisions_after, seq=0, limit=10_000))
    records = sorted((decode_record(row.record) for row in rows), key=lambda r: r.decided_at)
    learned = learn(
        log, workspace, workspace.candidates[ID],
        until_us=records[499].decided_at + 2 * 3_600_000_000, now_us=now,
        revisions=Revisions(log), refit=True, warn=pytest.fail,
    )  # fmt: skip
    assert learned is not None
    assert learned.learned == 500
    assert found.report["snapshot"] == snapshot_digest(learned.policy.dumps())


def test_a_second_attempt_is_judged_by_rows_of_its_own_at_a_smaller_level(log: Store) -> None:
    workspace = _workspace(kind="lin_greedy", gate={"rows": 400, "margin": 0.9})
    now = _lived(log, workspace, viewers=400)
    first = _attempt(log, workspace, now)
    assert (first.report["verdict"], first.report["attempt"]) == ("kept", 1)
    again = _attempt(log, workspace, now)
    assert again.report["verdict"] == "too_few"
    assert again.entry is None
    assert again.report["attempt"] == 2
    desk = Desk(log, workspace)
    for number in range(400):
        desk.decide(number, now + number, surface="page", context={"x": number % 2 == 0})
    second = _attempt(log, workspace, now + DAY)
    assert second.report["rows"] == 400
    assert second.report["level"] == pytest.approx(first.report["level"] / 4)
    assert [row.what for row in log.read(ask.promotions)[ID]] == ["attempt", "attempt"]


def test_a_log_too_weak_to_judge_by_offers_a_challenger_share(log: Store) -> None:
    """What always shows one action says nothing of the other."""
    content = msgspec.json.decode(msgspec.json.encode(CONTENT))
    content["policies"]["p"] |= {"kind": "fixed", "action": "a", "floor": 0.0}
    workspace = workspace_from_content(msgspec.json.encode(content))
    found = _attempt(log, workspace, _lived(log, workspace, viewers=600))
    # Greedy on what it saw, an optimist takes what was never shown.
    assert found.report["verdict"] == "too_weak"
    content["policies"] |= found.report["challenger"]["policies"]
    content["layers"] = found.report["challenger"]["layers"]
    offered = workspace_from_content(msgspec.json.encode(content))
    assert [v.weight for v in offered.design.experiments[0].variants] == [0.9, 0.1]
    assert "p_challenger" in written(found.report["challenger"])


def test_a_challenger_is_what_the_candidate_is() -> None:
    workspace = _workspace(alpha=0.3)
    found = workspace.policies["p"].candidate
    assert found is not None
    declared = challenger(workspace.candidates[ID], found)["policies"]["p_challenger"]
    assert declared == {"kind": "lin_ucb", "features": ["x"], "alpha": 0.3, "floor": 0.1}


# History ------------------------------------------------------------------------------------------


def _entry(what: Any, spec: str | None, after: int, snapshot: str | None = None) -> PromotionEntry:
    return PromotionEntry(ID, what, spec, snapshot, -1, NOW, "{}", after)


def test_of_two_who_promote_at_once_one_is_refused(store: Store) -> None:
    """Else both would spend the level of the same attempt."""
    results = store.write([_entry("attempt", None, 0), _entry("attempt", None, 0)], NOW)
    assert isinstance(results[0], Stored)
    assert isinstance(results[1], Refused)
    (row,) = store.read(ask.promotions)[ID]
    assert isinstance(store.write([_entry("attempt", None, 0)], NOW)[0], Refused)
    assert store.write([_entry("attempt", None, row.seq)], NOW) == [Stored()]
    assert store.read(lambda c: ask.last_promotion(c, ID)) > row.seq
    assert store.read(lambda c: ask.last_promotion(c, "other")) == 0


def test_a_learner_is_held_at_an_earlier_snapshot_until_that_is_undone(store: Store) -> None:
    text = """\
surfaces:
  home:
    owner: o@example.com
    metrics: {watch: {window: 1h}}
    reward: {watch: 1.0}
    slots: {layout: {default: A, policy: p, actions: {A: {value: 1}, B: {value: 2}}}}
policies: {p: {kind: thompson_gaussian}}
"""
    workspace = workspace_of(text)
    id_ = "p:home.layout"
    desk = Desk(store, workspace)
    digests = []
    for number in range(3):
        record = desk.decide(number, NOW + number * DAY)
        desk.report(outcome(f"o{number}", record, number, at=record.decided_at))
        learned = desk.learn(id_, NOW + number * DAY + DAY)
        assert learned is not None
        digests.append(learned.snapshot.digest)
    now = NOW + 9 * DAY
    store.write([rollback(store, workspace, id_, digests[0][:8], now)], now)
    held = serving(store, workspace, now, pytest.fail)
    assert (held.models[id_].snapshot, held.models[id_].pinned) == (digests[0], True)
    assert newer(store, held, pytest.fail) == {}
    shown = lineages(store, workspace)[id_]
    assert shown["serves"]["snapshot"] == digests[0]
    assert [row["digest"] for row in shown["snapshots"]][:3] == digests[::-1]
    assert [row["parent"] for row in shown["snapshots"]][:2] == digests[1::-1]
    # What is learned meanwhile waits.
    desk.decide(9, NOW + 4 * DAY)
    assert desk.learn(id_, now) is not None
    store.write([rollback(store, workspace, id_, None, now)], now)
    free = serving(store, workspace, now, pytest.fail).models[id_]
    assert not free.pinned
    assert free.snapshot not in digests


def test_a_snapshot_to_go_back_to_is_named_clearly(store: Store) -> None:
    workspace = _workspace(kind="lin_ts")
    _lived(store, workspace, days=1, viewers=5)
    with pytest.raises(NotFoundError, match=r"`to` is .*none of the 0 snapshots"):
        rollback(store, workspace, ID, "0" * 12, NOW)
    with pytest.raises(RequestError, match="too short"):
        rollback(store, workspace, ID, "ab", NOW)
    with pytest.raises(NotFoundError, match=r"known: p:page\.box"):
        rollback(store, workspace, "q", None, NOW)


def test_undoing_goes_back_step_by_step() -> None:
    workspace = _workspace()
    spec = workspace.candidates[ID].spec
    steps = [_promotion(spec), _promotion(spec, "pin", "d" * 64)]
    assert standing(workspace, ID, steps).pinned == "d" * 64
    steps.append(_promotion(spec, "undo"))
    assert standing(workspace, ID, steps).promoted
    assert standing(workspace, ID, steps).pinned is None
    assert not standing(workspace, ID, [*steps, _promotion(None, "undo")]).promoted


def test_a_promotion_of_what_is_declared_no_more_has_no_force() -> None:
    spec = _workspace().candidates[ID].spec
    other = _workspace(alpha=0.7)
    assert not standing(other, ID, [_promotion(spec)]).promoted


def test_a_damaged_snapshot_that_is_held_gives_way_to_the_newest(log: Store) -> None:
    workspace = _workspace()
    now = _lived(log, workspace, days=1, viewers=50)
    spec = workspace.candidates[ID].spec
    rows = log.read(partial(ask.lineage, learner=ID, spec=spec))
    log.write([_entry("promote", spec, 0)], now)
    after = log.read(ask.last_promotion)
    log.write([_entry("pin", spec, after, "0" * 64)], now)
    warned: list[str] = []
    assert serving(log, workspace, now, warned.append).models[ID].snapshot == rows[0].digest
    assert len(warned) == 1
    assert "is not stored" in warned[0]


# Configuration ------------------------------------------------------------------------------------

HEAD = """\
surfaces:
  home:
    owner: o@example.com
    metrics: {watch: {window: 1h, range: [0, 1]}, margin: {window: 1h}}
    reward: {watch: 1.0}
    guardrails: {margin: {direction: up}}
    slots: {layout: {default: A, policy: p, actions: {A: {value: 1}, B: {value: 2}}}}
policies:
"""


@pytest.mark.parametrize(
    ("policy", "field", "message"),
    [
        ("{kind: uniform}", "policies.p.candidate.kind", "does not learn"),
        ("{kind: lin_uc}", "policies.p.candidate.kind", 'did you mean "lin_ucb"'),
        ("{kind: lin_ucb, alpha: -1}", "policies.p.candidate.alpha", ">="),
        ("{kind: lin_ucb, features: [q]}", "policies.p.candidate.features[0]", "attribute"),
        ("{kind: lin_ucb}", "surfaces.home.metrics.margin.range", "required by"),
        ("{kind: lin_ucb}", "surfaces.home.guardrails.margin.margin", "say how much worse"),
        ("{kind: lin_ucb, gate: {rows: 5}}", "policies.p.candidate.gate.rows", "100"),
        ("{kind: lin_ucb, mode: ghost}", "policies.p.candidate.mode", "apprentice"),
    ],
)  # fmt: skip
def test_a_candidate_that_could_not_be_judged_is_refused(
    policy: str, field: str, message: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        workspace_of(f"{HEAD}  p: {{kind: lin_ts, candidate: {policy}}}\n")
    faults = [fault for fault in caught.value.faults if fault.field == field]
    assert faults, caught.value
    assert message in faults[0].message


def test_a_sticky_policy_has_no_candidate() -> None:
    text = f"{HEAD}  p: {{kind: lin_ts, draw: sticky, period: 1d, candidate: {{kind: lin_ucb}}}}\n"
    with pytest.raises(ConfigurationError, match="judged choice by choice"):
        workspace_of(text)
