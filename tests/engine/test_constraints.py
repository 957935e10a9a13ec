"""Constraints on a decision: budgets that hold, conditions, waiting for evidence, guarantees."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.constraints import Spend, scarcities
from engine.decide import LEARNED, Inputs, decide, spends
from engine.errors import ConfigurationError
from engine.explain import explain
from engine.ids import uuid7
from engine.log import Overspent, Position, Stored, VoidEntry, decision_entry
from engine.models import fresh, initial_snapshot, serving
from engine.record import DecisionRecord
from engine.replay import replay
from engine.request import DecideRequest
from engine.revisions import Revisions
from engine.service import Engine
from engine.store import Store
from engine.store import read as ask
from engine.workspace import Workspace
from policies import Feedback, Guarded, Seen, Watched, snapshot_digest
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
from tests.engine.test_service import Journal

WORLD = """\
surfaces:
  home:
    owner: o@example.com
    attributes: {weeks: integer}
    metrics: {buy: {window: 1h, range: [0, 1]}}
    reward: {buy: 1.0}
    slots:
      offer:
        default: none
        policy: p
        actions: {none: {value: 0}, coupon: {value: 1}, gift: {value: 2}}
        BUDGETS
policies:
  p: {POLICY}
LAYERS
"""
COUPONS = "budgets: [{id: coupons, actions: [coupon], limit: 30, period: 30d, pace: false}]"
EVEN = "kind: weighted, weights: {none: 1, coupon: 2, gift: 1}"


def _world(policy: str = EVEN, budgets: str = COUPONS, layers: str = "") -> Workspace:
    text = WORLD.replace("POLICY", policy).replace("BUDGETS", budgets or "rules: []")
    return workspace_of(text.replace("LAYERS", layers))


def _identical(store: Store, records: list[DecisionRecord]) -> bool:
    revisions = Revisions(store)
    return all(replay(store, revisions, record.decision_id).identical for record in records)


# Budgets ------------------------------------------------------------------------------------------


def test_a_budget_is_spent_to_the_last_and_never_beyond(store: Store) -> None:
    desk = Desk(store, _world())
    records = [desk.decide(unit, NOW + unit) for unit in range(150)]
    served = [only_choice(r).action for r in records]
    assert served.count("coupon") == 30
    last = max(index for index, action in enumerate(served) if action == "coupon")
    for record in records[last + 1 :]:
        choice = only_choice(record)
        assert choice.eligible == ("gift", "none")
        assert choice.candidates == ("coupon", "gift", "none")
    assert _identical(store, records)
    (key,) = records[0].caps
    assert [r.caps[key] for r in records][:3] == [0, served[:1].count("coupon"),
                                                 served[:2].count("coupon")]  # fmt: skip


def test_the_next_period_has_a_budget_of_its_own(store: Store) -> None:
    budget = COUPONS.replace("limit: 30", "limit: 2")
    desk = Desk(store, _world(budgets=budget))
    first = [only_choice(desk.decide(u, NOW + u)).action for u in range(20)]
    later = [only_choice(desk.decide(u, NOW + 31 * DAY + u)).action for u in range(20)]
    assert (first.count("coupon"), later.count("coupon")) == (2, 2)


def test_a_pinned_action_is_budgeted_like_any_other(store: Store) -> None:
    layers = (
        "layers: {l: {e: {range: [0.0, 1.0], variants: {a: {slots: {home.offer: coupon}}, "
        "b: {slots: {home.offer: {policy: p}}}}}}}"
    )
    desk = Desk(store, _world(layers=layers))
    records = [desk.decide(unit, NOW + unit) for unit in range(160)]
    choices = [only_choice(r) for r in records]
    assert sum(c.action == "coupon" for c in choices) == 30
    after = [c for c in choices[-40:] if c.path == "e.a"]
    assert {(c.action, c.reason) for c in after} == {("none", "rule")}
    assert _identical(store, records)


def test_a_variant_has_a_budget_that_others_do_not_touch(store: Store) -> None:
    layers = (
        "layers: {l: {e: {range: [0.0, 1.0], variants: {a: {slots: {home.offer: {policy: p}}}, "
        "b: {slots: {home.offer: {policy: p}}}}}}}"
    )
    budget = COUPONS.replace("limit: 30", "limit: 5, variant: e.a")
    desk = Desk(store, _world(budgets=budget, layers=layers))
    choices = [only_choice(desk.decide(unit, NOW + unit)) for unit in range(120)]
    by_path = {
        path: sum(c.action == "coupon" for c in choices if c.path == path)
        for path in ("e.a", "e.b")
    }
    assert by_path["e.a"] == 5
    assert by_path["e.b"] > 10


def test_of_writers_who_spend_at_once_the_last_unit_goes_to_one(store: Store) -> None:
    """What each of them knows may be old; the log, which writes one after another, is not."""
    workspace = _world(budgets=COUPONS.replace("limit: 30", "limit: 1"))
    Desk(store, workspace)
    stale = serving_of(workspace)
    entries = []
    for number in range(40):
        request = DecideRequest(surface="home", user_id=str(number))
        record = decide(
            stale, request, Inputs(), decision_id=uuid7(NOW, number), now_us=NOW + number
        )
        if only_choice(record).action == "coupon":
            entries.append(decision_entry(record, request, spends=spends(stale, record)))
    assert len(entries) > 5
    results = [*store.write(entries[:3], NOW), *store.write(entries[3:], NOW)]
    assert isinstance(results[0], Stored)
    (key,) = [s.key for s in entries[0].spends]
    assert results[1:] == [Overspent({key: 1})] * (len(entries) - 1)
    assert store.read(ask.allowances) == {key: 1}


def test_an_engine_that_lost_the_race_decides_again(tmp_path: Path, any_url: str) -> None:
    workspace = _world(budgets=COUPONS.replace("limit: 30", "limit: 3"))

    async def scene() -> list[str]:
        engine = Engine(Store(any_url, writer="tests"), workspace, Journal(), clock=lambda: NOW)
        try:
            answers = await asyncio.gather(
                *(engine.decide(DecideRequest("home", user_id=str(u))) for u in range(60))
            )
        finally:
            await engine.close()
        assert all(answer.logged for answer in answers)
        return [answer.choices[0].action for answer in answers]

    assert asyncio.run(scene()).count("coupon") == 3


def test_pacing_spreads_a_budget_over_its_period() -> None:
    """Coupons are wanted by everyone from the first minute; with a price they last."""
    paced = _world(budgets=COUPONS.replace("limit: 30", "limit: 300").replace("false", "true"))
    rushed = _world(budgets=COUPONS.replace("limit: 30", "limit: 300"))
    start = NOW // (30 * DAY) * 30 * DAY
    halfway = {}
    for name, workspace in (("paced", paced), ("rushed", rushed)):
        ready, spent = serving_of(workspace), dict[str, int]()
        for number in range(1_000):
            at = start + number * 30 * DAY // 1_000
            record = decide(
                ready, DecideRequest("home", user_id=str(number)), Inputs(spent=spent),
                decision_id=uuid7(at, number), now_us=at,
            )  # fmt: skip
            for each in spends(ready, record):
                spent[each.key] = spent.get(each.key, 0) + each.amount
            if number == 499:
                halfway[name] = sum(spent.values())
        assert 250 <= sum(spent.values()) <= 300
    assert 140 <= halfway["paced"] <= 175
    assert halfway["rushed"] > 230


def test_a_price_keeps_a_scarce_action_for_whom_it_helps(store: Store) -> None:
    """With a model of the reward, coupons go where they are worth more than their price."""
    policy = "kind: lin_ucb, features: [weeks], alpha: 0.1, floor: 0.01"
    workspace = _world(policy, COUPONS.replace("limit: 30", "limit: 100").replace("false", "true"))
    learner = workspace.learners["p:home.offer"]
    taught = fresh(learner.policy)
    actions = tuple(workspace.surfaces["home"].slots["offer"].actions.values())
    rng = np.random.default_rng(1)
    rows = []
    for _ in range(600):
        weeks, action = int(rng.integers(2)), actions[int(rng.integers(3))]
        gain = {"coupon": 0.9 if weeks else 0.45, "gift": 0.4, "none": 0.4}[action.id]
        rows.append(Feedback({"weeks": weeks}, actions, action.id, 1 / 3, gain))
    taught.learn(rows)
    ready = serving_of(workspace, {learner.id: taught})
    start = NOW // (30 * DAY) * 30 * DAY
    (budget,) = workspace.surfaces["home"].slots["offer"].budgets
    key = scarcities(workspace.surfaces["home"].slots["offer"], None, start, {})[0].key
    served = {}
    for ahead in (0, 3):
        at = start + budget.period_us // 2
        for weeks in (0, 1):
            choice = only_choice(
                decided(ready, "home", at=at, context={"weeks": weeks}, spent={key: 50 + ahead})
            )
            assert choice.pmf is not None
            served[ahead, weeks] = choice.pmf[choice.eligible.index("coupon")]
    assert served[0, 0] > 0.9
    assert served[0, 1] > 0.9
    assert served[3, 0] < 0.01
    assert served[3, 1] > 0.9


# A condition of the policy's own ------------------------------------------------------------------


def test_a_policy_acts_only_where_its_condition_holds(store: Store) -> None:
    desk = Desk(store, _world("kind: uniform, when: 'weeks >= 2'", ""))
    held, unknown, open_ = (
        desk.decide(1, NOW + n, context=context)
        for n, context in enumerate(({"weeks": 1}, {}, {"weeks": 2}))
    )
    for record, verdict in ((held, "false"), (unknown, "unknown")):
        choice = only_choice(record)
        assert (choice.action, choice.reason, choice.propensity) == ("none", "rule", 1.0)
        shown = explain(store, Revisions(store), record.decision_id)["choices"][0]["when"]
        assert (shown["when"], shown["verdict"]) == ("weeks >= 2", verdict)
    assert only_choice(open_).reason == "policy"
    assert _identical(store, [held, unknown, open_])


# Waiting for evidence -----------------------------------------------------------------------------


def test_until_it_has_learned_enough_a_policy_shows_the_default(store: Store) -> None:
    desk = Desk(store, _world("kind: thompson_gaussian, floor: 0.3, abstain: 40", ""))
    records = [desk.decide(unit, NOW + unit) for unit in range(40)]
    for record in records:
        choice = only_choice(record)
        assert choice.pmf == pytest.approx((0.1, 0.1, 0.8))
        assert choice.floor == 0.3
    for number, record in enumerate(records):
        value = float(only_choice(record).action != "none")
        desk.report(outcome(f"o{number}", record, value, metric="buy", at=record.decided_at))
    assert desk.learn("p:home.offer", NOW + DAY) is not None
    desk = Desk(store, desk.workspace)
    after = desk.decide(99, NOW + DAY)
    assert after.caps == {f"{LEARNED}p:home.offer": 40}
    assert only_choice(after).pmf != pytest.approx((0.1, 0.1, 0.8))
    assert _identical(store, [*records, after])


# The guarantee ------------------------------------------------------------------------------------

SAFE = "kind: thompson_gaussian, floor: 0.02, conservative: {alpha: 0.2, share: 0.2}"


def test_a_guarded_policy_risks_no_more_than_its_ledger_pays_for(store: Store) -> None:
    desk = Desk(store, _world(SAFE, ""))
    learner = "p:home.offer"
    first = [desk.decide(unit, NOW + unit) for unit in range(60)]
    assert {only_choice(r).action for r in first} == {"none"}
    assert {only_choice(r).pmf for r in first} == {(0.0, 0.0, 1.0)}
    assert {only_choice(r).floor for r in first} == {0.0}
    for number, record in enumerate(first):
        desk.report(outcome(f"o{number}", record, 1.0, metric="buy", at=record.decided_at))
    desk.learn(learner, NOW + HOUR * 2)
    desk = Desk(store, desk.workspace)
    model = desk.serving.models[learner].policy
    assert isinstance(model, Guarded)
    assert 0 < model.allowance < 20
    then = [desk.decide(unit, NOW + 3 * HOUR + unit) for unit in range(60)]
    risky = [r for r in then if only_choice(r).pmf != (0.0, 0.0, 1.0)]
    assert len(risky) == model.allowance
    assert risky == then[: len(risky)]
    assert all((only_choice(r).pmf or ())[2] >= 0.98 * 0.2 for r in risky)
    assert _identical(store, [*first[:3], *then])


def test_a_risk_that_was_answered_with_the_default_is_given_back(store: Store) -> None:
    desk = Desk(store, _world(SAFE, ""))
    learner = "p:home.offer"
    for unit in range(60):
        record = desk.decide(unit, NOW + unit)
        desk.report(outcome(f"o{unit}", record, 1.0, metric="buy", at=record.decided_at))
    desk.learn(learner, NOW + 2 * HOUR)
    desk = Desk(store, desk.workspace)
    risked = desk.decide(1, NOW + 3 * HOUR)
    store.write([VoidEntry(risked.decision_id, "late")], NOW)
    before = desk.serving.models[learner].policy
    desk.learn(learner, NOW + DAY)
    after = serving(store, desk.workspace, NOW, pytest.fail).models[learner].policy
    assert isinstance(before, Guarded)
    assert isinstance(after, Guarded)
    assert after.allowance == before.allowance + 1


def test_another_guarantee_is_another_lineage() -> None:
    specs = {
        _world(policy, "").learners["p:home.offer"].spec
        for policy in (SAFE, SAFE.replace("0.2", "0.3"), SAFE.replace("floor: 0.02", "floor: 0.04"))
    }
    assert len(specs) == 3


def test_spends_name_what_they_are_of() -> None:
    ready = serving_of(_world())
    record = next(
        r for r in (decided(ready, "home", u, number=u) for u in range(20))
        if only_choice(r).action == "coupon"
    )  # fmt: skip
    period = NOW // (30 * DAY)
    assert spends(ready, record) == (Spend(f"budget:home.offer:coupons:{period}", 1, 30),)


# Harm -------------------------------------------------------------------------------------------


SHOP = WORLD.replace(
    "reward: {buy: 1.0}",
    "reward: {buy: 1.0}\n    guardrails: {back: {direction: down, margin: 0.05, protect: true}}",
).replace("range: [0, 1]}}", "range: [0, 1]}, back: {window: 3h, range: [0, 1]}}")
SHOP = SHOP.replace("BUDGETS", "rules: []").replace("LAYERS", "")


def _harmed(policy: Watched) -> Watched:
    """The policy once it has seen that what gifts bring comes back."""
    policy.watch(
        Seen(("coupon", "gift", "none"), action, 1 / 3, {"back": float(action == "gift")})
        for action in ("coupon", "gift", "none") * 400
    )
    return policy


def test_what_is_shown_to_do_harm_is_eligible_no_more(store: Store) -> None:
    workspace = workspace_of(SHOP.replace("POLICY", "kind: thompson_gaussian, floor: 0.3"))
    learner = workspace.learners["p:home.offer"]
    policy = fresh(learner.policy)
    assert isinstance(policy, Watched)
    data = _harmed(policy).dumps()
    entry = replace(
        initial_snapshot(learner, NOW), data=data, digest=snapshot_digest(data),
        position=Position(NOW - 1, ""),
    )  # fmt: skip
    store.write([entry], NOW)
    desk = Desk(store, workspace)
    records = [desk.decide(unit, NOW + unit) for unit in range(30)]
    for record in records:
        choice = only_choice(record)
        assert choice.eligible == ("coupon", "none")
        assert choice.verdicts == {"guardrail.back": {"gift": "F"}}
    shown = explain(store, Revisions(store), records[0].decision_id)["choices"][0]
    assert shown["guardrails"] == {"back": ["gift"]}
    assert _identical(store, records)


def test_where_all_but_the_default_do_harm_the_decision_replays(store: Store) -> None:
    workspace = workspace_of(
        SHOP.replace("POLICY", "kind: thompson_gaussian, floor: 0.3")
        .replace(", gift: {value: 2}", "")
        .replace("coupon", "gift")
    )
    learner = workspace.learners["p:home.offer"]
    policy = fresh(learner.policy)
    assert isinstance(policy, Watched)
    policy.watch(
        Seen(("gift", "none"), action, 0.5, {"back": float(action == "gift")})
        for action in ("gift", "none") * 400
    )
    data = policy.dumps()
    entry = replace(
        initial_snapshot(learner, NOW), data=data, digest=snapshot_digest(data),
        position=Position(NOW - 1, ""),
    )  # fmt: skip
    store.write([entry], NOW)
    record = Desk(store, workspace).decide(1)
    choice = only_choice(record)
    assert (choice.action, choice.reason, choice.snapshot) == ("none", "rule", entry.digest)
    assert _identical(store, [record])


def test_a_learner_sees_a_protected_metric_once_its_own_window_has_closed(store: Store) -> None:
    workspace = workspace_of(SHOP.replace("POLICY", "kind: thompson_gaussian, floor: 0.3"))
    desk = Desk(store, workspace)
    records = [desk.decide(unit, NOW + unit) for unit in range(12)]
    for number, record in enumerate(records):
        at = record.decided_at + 2 * HOUR
        desk.report(outcome(f"b{number}", record, 0.5, metric="back", at=at))
    assert desk.learn("p:home.offer", NOW + 2 * HOUR) is None
    learned = desk.learn("p:home.offer", NOW + DAY)
    assert learned is not None
    assert learned.learned == 12
    expected = fresh(workspace.learners["p:home.offer"].policy)
    assert isinstance(expected, Watched)
    choices = [only_choice(r) for r in records]
    actions = tuple(workspace.surfaces["home"].slots["offer"].actions.values())
    expected.learn([Feedback({}, actions, c.action, c.propensity, 0.0) for c in choices])
    expected.watch(Seen(c.eligible, c.action, c.propensity, {"back": 0.5}) for c in choices)
    assert learned.snapshot.digest == snapshot_digest(expected.dumps())


def test_protection_needs_a_floor_and_a_range() -> None:
    with pytest.raises(ConfigurationError, match="needs a `floor`"):
        workspace_of(SHOP.replace("POLICY", "kind: lin_ts"))
    text = SHOP.replace("window: 3h, range: [0, 1]", "window: 3h")
    with pytest.raises(ConfigurationError, match="needs the metric's `range`"):
        workspace_of(text.replace("POLICY", "kind: lin_ts, floor: 0.1"))


# Configuration ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"budgets": COUPONS.replace("[coupon]", "[none]")},
         "surfaces.home.slots.offer.budgets[0].actions[0]", "always be servable"),
        ({"budgets": COUPONS.replace("[coupon]", "[copon]")},
         "surfaces.home.slots.offer.budgets[0].actions[0]", 'did you mean "coupon"'),
        ({"budgets": COUPONS.replace("pace", "cost: 31, pace")},
         "surfaces.home.slots.offer.budgets[0].cost", "more than the `limit`"),
        ({"budgets": COUPONS.replace("pace", "variant: e.x, pace")},
         "surfaces.home.slots.offer.budgets[0].variant", "experiment.variant"),
        ({"policy": "kind: uniform, when: 'weeks >'"}, "policies.p.when", "at character"),
        ({"policy": "kind: uniform, abstain: 5"}, "policies.p.abstain", "a `floor`"),
        ({"policy": "kind: lin_ts, abstain: 5"}, "policies.p.abstain", "a `floor`"),
        ({"policy": "kind: uniform, conservative: {}"}, "policies.p.conservative", "learns"),
        ({"policy": "kind: lin_ts, conservative: {alpha: 2}"},
         "policies.p.conservative.alpha", "less than 1"),
        ({"policy": "kind: lin_ts, draw: sticky, period: 1d, conservative: {}"},
         "policies.p.conservative", "draw: decision"),
    ],
)  # fmt: skip
def test_a_constraint_that_cannot_hold_is_refused(
    changes: dict[str, Any], field: str, message: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        _world(**changes)
    faults = [fault for fault in caught.value.faults if fault.field == field]
    assert faults, caught.value
    assert message in faults[0].message


def test_a_guarantee_needs_rewards_that_are_known_not_to_be_negative() -> None:
    for metric, said in (("{window: 1h}", "anything"), ("{window: 1h, range: [-1, 1]}", "-1")):
        text = WORLD.replace("{window: 1h, range: [0, 1]}", metric).replace("POLICY", SAFE)
        with pytest.raises(ConfigurationError, match=f"may be {said}"):
            workspace_of(text.replace("BUDGETS", "rules: []").replace("LAYERS", ""))
