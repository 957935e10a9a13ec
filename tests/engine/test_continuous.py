"""Continuous choices, from the range that is declared to decisions, learning and replay."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from scipy.stats import chisquare

from engine.errors import ConfigurationError
from engine.replay import replay
from engine.store import Store
from engine.workspace import canonical_content, load_workspace, workspace_from_content
from tests.engine.build import DAY, NOW, Desk, decided, only_choice, outcome, workspace_of

RANGE = "{range: [8, 22], step: 0.5}"
WORLD = f"""\
surfaces:
  push:
    owner: o@example.com
    attributes: {{segment: string, latest: number}}
    metrics: {{open: {{window: 1h, range: [0, 1]}}}}
    reward: {{open: 1.0}}
    slots:
      hour:
        default: "9"
        policy: when
        actions: {RANGE}
        rules:
          - {{id: quiet, kind: suppression, when: action.value > latest, reason: too late}}
policies:
  when: {{kind: vw_cats, low: 8, high: 22, step: 0.5, features: [segment], bits: 10, floor: 0.1}}
"""


def test_a_range_stands_for_the_actions_on_it() -> None:
    slot = workspace_of(WORLD).surfaces["push"].slots["hour"]
    assert set(slot.actions) == {f"{h}" for h in range(8, 23)} | {f"{h}_5" for h in range(8, 22)}
    assert slot.values["9_5"] == 9.5
    assert slot.values["9"] == 9
    assert dict(slot.actions["9_5"].features) == {"value": 9.5}


@pytest.mark.parametrize(
    ("written", "ids"),
    [
        ("{range: [-1, 1], step: 1}", ["-1", "0", "1"]),
        ("{range: [0, 0.3], step: 0.1}", ["0", "0_1", "0_2", "0_3"]),
        ("{range: [10, 1000000], step: 999990}", ["10", "1000000"]),
    ],
)
def test_names_are_the_numbers_as_they_were_written(written: str, ids: list[str]) -> None:
    text = WORLD.replace(RANGE, written).replace('"9"', f'"{ids[0]}"')
    text = text[: text.index("policies:")].replace("        policy: when\n", "")
    assert sorted(workspace_of(text).surfaces["push"].slots["hour"].actions) == ids


def test_actions_written_one_by_one_make_the_same_revision() -> None:
    """What is stored is what the range stands for, so that any version can read it."""
    ids = {h / 2: f"{h / 2:g}".replace(".", "_") for h in range(16, 45)}
    written = ", ".join(
        f'"{name}": {{value: {h:g}, features: {{value: {h:g}}}}}' for h, name in ids.items()
    )
    by_range, one_by_one = workspace_of(WORLD), workspace_of(WORLD.replace(RANGE, f"{{{written}}}"))
    assert by_range.revision == one_by_one.revision
    assert workspace_from_content(canonical_content(by_range)).revision == by_range.revision


@pytest.mark.parametrize(
    ("written", "line", "field", "says"),
    [
        ("{range: [8, 22], step: 0.3}", 11, "actions.step", "in whole steps"),
        ("{range: [8, 22], step: 0}", 11, "actions.step", "in whole steps"),
        ("{range: [8, 22], step: true}", 11, "actions.step", "in whole steps"),
        ("{range: [8, 22]}", 11, "actions.step", "in whole steps"),
        ("{range: [8, 22], step: 0.01}", 11, "actions.step", "makes 1,401 actions"),
        ("{range: [8], step: 1}", 11, "actions.range", "low < high"),
        ("{range: [8, 8], step: 1}", 11, "actions.range", "low < high"),
        ("{range: [8, 2e6], step: 1}", 11, "actions.range", "low < high"),
        ("{range: [8, x], step: 1}", 11, "actions.range", "low < high"),
        ("{range: [8, 22], step: 1, A: {value: 1}}", 11, "actions.A", "beside `range`"),
        ("{range: [8, 23], step: 0.5}", 15, "", 'whose action "22_5" has the feature value 22.5'),
        ("{9: {value: 1, features: {value: 9.1}}}", 15, "", "Give a number that lies whole steps"),
    ],
)
def test_a_range_that_makes_no_sense_is_told_and_nothing_else(
    written: str, line: int, field: str, says: str, tmp_path: Path
) -> None:
    text = WORLD.replace(RANGE, written)
    (tmp_path / "w.yaml").write_text(text.replace("{9:", '{"9":'), encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load_workspace(tmp_path)
    (fault,) = caught.value.faults
    assert fault.line == line
    assert fault.field == (f"surfaces.push.slots.hour.{field}" if field else "policies.when.kind")
    assert says in fault.message


def test_an_action_of_the_name_range_is_an_action() -> None:
    text = WORLD[: WORLD.index("        rules:")].replace("        policy: when\n", "")
    text = text.replace(RANGE, "{range: {value: 1}}").replace('"9"', "range")
    assert set(workspace_of(text).surfaces["push"].slots["hour"].actions) == {"range"}


def test_hours_are_served_as_logged_learned_alike_and_replayed_to_the_byte(store: Store) -> None:
    """χ² of what one context is served after learning, rules in force, against the logged pmf."""
    desk = Desk(store, workspace_of(WORLD))
    rng = random.Random(1)
    for number in range(300):
        record = desk.decide(
            number, surface="push", context={"segment": rng.choice("ab"), "latest": 21}
        )
        choice = only_choice(record)
        assert choice.fallback is None
        assert float(choice.action.replace("_", ".")) <= 21
        near = abs(float(choice.action.replace("_", ".")) - 18) < 2
        desk.report(outcome(f"o{number}", record, float(near), metric="open"))
    (learner,) = desk.workspace.learners
    whole = desk.learn(learner, NOW + DAY)
    again = desk.learn(learner, NOW + DAY, refit=True, batch=7)
    assert whole is not None
    assert again is not None
    assert whole.snapshot.digest == again.snapshot.digest
    desk = Desk(store, desk.workspace)
    record = desk.decide(1, NOW + DAY, surface="push", context={"segment": "a", "latest": 12})
    assert replay(store, desk.revisions, record.decision_id).identical
    choices = [
        only_choice(
            decided(desk.serving, "push", 1, number=n, context={"segment": "a", "latest": 12})
        )
        for n in range(4_000)
    ]
    (pmf,) = {choice.pmf for choice in choices}
    assert pmf is not None
    assert len(pmf) == 9
    counts = Counter(choice.action for choice in choices)
    expected = [4_000 * p for p in pmf]
    assert chisquare([counts[a] for a in choices[0].eligible], expected).pvalue > 1e-3
