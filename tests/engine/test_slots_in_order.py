"""Slots that come after others: conditional probabilities whose product is the joint one."""

from __future__ import annotations

from collections import Counter
from math import prod
from pathlib import Path

import pytest
from scipy.stats import chisquare

from engine.decide import Serving
from engine.errors import ConfigurationError, ReportError, RequestError
from engine.learning import features
from engine.logsource import DatabaseLog
from engine.record import DecisionRecord
from engine.replay import replay
from engine.reports import matured_rows, ope_report, policy_pmfs
from engine.simulate.tiny import TinyWorld
from engine.simulate.truth import Truth
from engine.store import Store
from engine.workspace import load_workspace
from tests.engine.build import DAY, HOUR, NOW, Desk, decided, outcome, serving_of, workspace_of

WORLD = """\
surfaces:
  home:
    owner: o@example.com
    attributes: {weeks: integer}
    metrics: {click: {window: 1h, range: [0, 1]}}
    reward: {click: 1.0}
    slots:
      aside:
        default: none
        policy: page
        after: [hero]
        actions: {none: {value: 0}, film: {value: 1}, series: {value: 2}}
      hero:
        default: none
        policy: page
        actions: {none: {value: 0}, film: {value: 1}, series: {value: 2}}
policies:
  page: {kind: KIND, floor: 0.2}
"""
ACTIONS = ("film", "none", "series")
KINDS = ("lin_ts", "vw, bits: 10, exploration: epsilon, epsilon: 0.1", "mab_clusters")
TWICE = """
        rules:
          - {id: a, kind: eligibility, actions: [film], when: 'slot.hero != "film"', reason: r}
          - {id: b, kind: suppression, actions: [series], when: 'slot.hero == "series"', reason: r}
"""


def _world(kind: str = "lin_ts") -> str:
    return WORLD.replace("KIND", kind)


def _actions(record: DecisionRecord) -> dict[str, str]:
    return {choice.slot: choice.action for choice in record.choices}


def _logged(desk: Desk, n: int = 240) -> None:
    """An aside is clicked where it shows what the hero does."""
    for number in range(n):
        record = desk.decide(number, NOW + number, context={"weeks": number % 3})
        shown = _actions(record)
        hit = float(shown["aside"] == shown["hero"])
        desk.report(outcome(f"o{number}", record, hit, metric="click", at=NOW + HOUR // 2))


def _taught(desk: Desk, store: Store) -> Desk:
    _logged(desk)
    for learner in desk.workspace.learners:
        desk.learn(learner, NOW + DAY)
    return Desk(store, desk.workspace)


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_are_served_as_often_as_the_product_of_their_propensities(
    kind: str, store: Store
) -> None:
    """χ² over all pairs of actions, after learning: it fails if either factor is unconditional."""
    desk = _taught(Desk(store, workspace_of(_world(kind))), store)
    counts: Counter[tuple[str, str]] = Counter()
    joint: dict[tuple[str, str], float] = {}
    n = 1_500
    for number in range(n):
        record = decided(desk.serving, "home", 1, number=number, context={"weeks": 1})
        aside, hero = record.choices
        assert aside.pmf is not None
        for action, p in zip(aside.eligible, aside.pmf, strict=True):
            joint[action, hero.action] = p * hero.propensity
        assert joint[aside.action, hero.action] == prod(c.propensity for c in record.choices)
        counts[aside.action, hero.action] += 1
    assert len(joint) == 9
    assert sum(joint.values()) == pytest.approx(1.0, abs=1e-12)
    pairs = sorted(joint)
    found, expected = [counts[pair] for pair in pairs], [n * joint[pair] for pair in pairs]
    assert chisquare(found, expected).pvalue > 1e-3
    # The slots do depend on each other: the product of the margins is refuted.
    of_aside, of_hero = (
        {a: sum(p for pair, p in joint.items() if pair[at] == a) for a in ACTIONS} for at in (0, 1)
    )
    assert chisquare(found, [n * of_aside[a] * of_hero[h] for a, h in pairs]).pvalue < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_a_slot_learns_what_goes_with_the_slots_before(kind: str, store: Store) -> None:
    desk = _taught(Desk(store, workspace_of(_world(kind))), store)
    for number in range(60):
        record = decided(desk.serving, "home", number, number=number, context={"weeks": 1})
        aside, hero = record.choices
        assert aside.pmf is not None
        assert max(zip(aside.pmf, aside.eligible, strict=True))[1] == hero.action


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_log_gives_the_same_snapshot(kind: str, store: Store) -> None:
    desk = Desk(store, workspace_of(_world(kind)))
    _logged(desk, 60)
    (learner,) = [id_ for id_ in desk.workspace.learners if "aside" in id_]
    first = desk.learn(learner, NOW + DAY)
    again = desk.learn(learner, NOW + DAY, refit=True, batch=7)
    assert first is not None
    assert again is not None
    assert first.snapshot.digest == again.snapshot.digest


def test_decisions_replay_to_the_byte(store: Store) -> None:
    desk = _taught(Desk(store, workspace_of(_world())), store)
    for number in range(20):
        slots = (None, ("hero",), ("aside", "hero"), ("hero", "aside"))[number % 4]
        record = desk.decide(number, NOW + DAY, slots=slots, context={"weeks": 2})
        assert replay(store, desk.revisions, record.decision_id).identical
        assert tuple(_actions(record)) == (slots or ("aside", "hero"))


@pytest.fixture
def fresh_serving() -> Serving:
    """The world before anything was learned."""
    return serving_of(workspace_of(_world()))


def test_what_a_policy_learns_from_is_what_it_read(fresh_serving: Serving) -> None:
    record = decided(fresh_serving, "home", 1, context={"weeks": 1})
    surface = fresh_serving.workspace.surfaces["home"]
    hero = _actions(record)["hero"]
    assert features(record, surface, "aside") == {"weeks": 1, "slot.hero": hero}
    assert features(record, surface, "hero") == {"weeks": 1}


def test_a_slot_cannot_be_asked_for_without_those_before(fresh_serving: Serving) -> None:
    with pytest.raises(RequestError, match='comes after "hero"; ask for both'):
        decided(fresh_serving, "home", 1, slots=("aside",))
    assert len(decided(fresh_serving, "home", 1, slots=("hero",)).choices) == 1


def test_where_nothing_can_be_decided_every_slot_has_its_default() -> None:
    text = _world().replace("{weeks: integer}", "{weeks: {type: integer, required: true}}")
    record = decided(serving_of(workspace_of(text)), "home", 1)
    assert [choice.reason for choice in record.choices] == ["fallback", "fallback"]


def test_a_pinned_or_held_out_slot_is_read_like_any_other(fresh_serving: Serving) -> None:
    text = _world() + (
        "holdouts: {h: {share: 0.3}}\n"
        "layers: {l: {e: {range: [0, 1], variants: {a: {slots: {home.hero: film}}, b: {}}}}}\n"
    )
    serving = serving_of(workspace_of(text))
    seen = set()
    for unit in range(100):
        record = decided(serving, "home", unit, number=unit)
        surface = serving.workspace.surfaces["home"]
        _, hero = record.choices
        assert features(record, surface, "aside")["slot.hero"] == hero.action
        seen.add((hero.reason, hero.action == "film"))
    assert {("experiment", True), ("holdout", False)} <= seen


def test_rules_read_the_slots_before_so_that_nothing_is_shown_twice() -> None:
    """As in conditional contextual bandits, whose slots choose among what is left."""
    text = _world().replace("\n      hero:", TWICE.rstrip() + "\n      hero:")
    serving = serving_of(workspace_of(text))
    counts: Counter[tuple[str, str]] = Counter()
    for number in range(600):
        aside, hero = decided(serving, "home", 1, number=number).choices
        counts[aside.action, hero.action] += 1
        assert aside.action == "none" or aside.action != hero.action
        left = {"none", "film", "series"} - ({hero.action} - {"none"})
        assert set(aside.eligible) == left
        assert aside.pmf == pytest.approx([1 / len(left)] * len(left))
    assert len(counts) == 7


def test_a_sticky_draw_stays_what_it_was_drawn_after(store: Store) -> None:
    """Until a rule closes it; then another is drawn, after what stands now."""
    text = _world().replace("\n      hero:", TWICE.rstrip() + "\n      hero:")
    text = text.replace("policy: page\n        after", "policy: kept\n        after")
    text += "  kept: {kind: lin_ts, floor: 0.2, draw: sticky, period: 7d}\n"
    desk = Desk(store, workspace_of(text))
    kept, redrawn = 0, 0
    first = desk.decide(1)
    held = _actions(first)["aside"]
    for number in range(1, 40):
        record = desk.decide(1, NOW + number * HOUR)
        aside, hero = record.choices
        assert replay(store, desk.revisions, record.decision_id).identical
        assert aside.draw is not None
        if held in aside.eligible:
            kept += 1
            assert (aside.action, aside.draw.drawn) == (held, False)
        else:
            redrawn += 1
            assert hero.action == held
            assert aside.draw.drawn
        held = aside.action
    assert kept > 5
    assert redrawn > 0


def test_a_chain_is_decided_from_its_beginning() -> None:
    text = _world().replace("after: [hero]", "after: [hero, rail]")
    rail = "      rail: {default: x, policy: page, after: [hero], actions: {x: {value: 1}}}\n"
    text = text.replace("policies:", rail + "policies:")
    workspace = workspace_of(text)
    assert [slot.id for slot in workspace.surfaces["home"].in_order] == ["hero", "rail", "aside"]
    record = decided(serving_of(workspace), "home", 1)
    read = features(record, workspace.surfaces["home"], "aside")
    shown = _actions(record)
    assert read == {"slot.hero": shown["hero"], "slot.rail": shown["rail"]}


@pytest.mark.parametrize(
    ("after", "says"),
    [
        ("[heros]", 'is no declared slot of the surface; did you mean "hero"?'),
        ("[aside]", 'comes itself after "aside"; let one of them go first'),
        ("hero", "input should be a valid list"),
    ],
)
def test_an_order_that_cannot_be_is_refused(after: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text(_world().replace("[hero]", after), encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load_workspace(tmp_path)
    assert says in str(caught.value)


def test_two_slots_cannot_wait_for_each_other(tmp_path: Path) -> None:
    text = _world().replace("      hero:\n", "      hero:\n        after: [aside]\n")
    (tmp_path / "w.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load_workspace(tmp_path)
    assert [fault.field for fault in caught.value.faults] == [
        "surfaces.home.slots.aside.after[0]",
        "surfaces.home.slots.hero.after[0]",
    ]


def test_a_policy_may_name_what_it_reads_of_the_slots_before(tmp_path: Path) -> None:
    named = _world("lin_ts, features: [weeks, slot.hero]").replace(
        "        default: none\n        policy: page\n        actions",
        "        default: none\n        actions",
    )
    assert set(workspace_of(named).learners) == {"page:home.aside"}
    (tmp_path / "w.yaml").write_text(_world("lin_ts, features: [slot.hero]"), encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"features\[0\]. is .slot.hero."):
        load_workspace(tmp_path)


def test_another_order_begins_a_new_lineage() -> None:
    one = workspace_of(_world()).learners["page:home.aside"]
    free = workspace_of(_world().replace("        after: [hero]\n", ""))
    assert one.spec != free.learners["page:home.aside"].spec


def test_evaluation_conditions_on_what_the_slots_before_got(store: Store, url: str) -> None:
    """What a snapshot would do at each row is, to the bit, what it did where it served."""
    desk = _taught(Desk(store, workspace_of(_world())), store)
    for number in range(300):
        record = desk.decide(number, NOW + DAY + number, context={"weeks": 1})
        shown = _actions(record)
        hit = float(shown["aside"] == shown["hero"])
        at = NOW + DAY + HOUR // 2
        desk.report(outcome(f"later{number}", record, hit, metric="click", at=at))
    later, source = NOW + 3 * DAY, DatabaseLog(url)
    rows = matured_rows(source, "home", "aside", None, None, later)
    assert set(rows.frame["context.slot.hero"]) == set(ACTIONS)
    model = desk.serving.models["page:home.aside"]
    by_it = (rows.frame["snapshot"] == model.snapshot).to_numpy()
    assert by_it.sum() == 300
    spec = desk.workspace.policies["page"]
    again = policy_pmfs(source, rows, "aside", spec, model.policy)
    assert rows.pmf is not None
    assert abs(again[by_it] - rows.pmf[by_it]).max() < 1e-12
    report = ope_report(
        source, "home", "aside", ["page", "uniform"], against="uniform", as_of_us=later
    )
    source.close()
    values = {
        (row["target"], row["estimator"]): (row["low"], row["high"]) for row in report["results"]
    }
    # Uniform is right one time in three; the policy shows what the hero does, but for the floor.
    low, high = values["uniform", "snips"]
    assert low < 1 / 3 < high
    assert values["page", "snips"][0] > 0.5


def test_exact_values_are_refused_where_slots_wait_for_others() -> None:
    with pytest.raises(ReportError, match="slots that come after others"):
        Truth(TinyWorld(seed=1), serving_of(workspace_of(_world())))
