"""Rewards: which outcomes count for a decision, what corrections do, and what they add up to."""

from __future__ import annotations

import pytest

from engine.log import Outcome
from engine.rewards import effective, metric_values, reward
from engine.workspace import Surface
from tests.engine.build import HOUR, NOW, outcome, workspace_of

WORLD = """\
surfaces:
  home:
    owner: o@example.com
    metrics:
      watch: {window: 2h, lateness: 1h, aggregate: AGGREGATE, default: DEFAULT}
      cancel: {window: 1d}
    reward: {watch: 2.0, cancel: -5.0}
    slots: {layout: {default: A, actions: {A: {value: 1}}}}
"""


def _surface(aggregate: str = "sum", default: float = 0.0) -> Surface:
    text = WORLD.replace("AGGREGATE", aggregate).replace("DEFAULT", str(default))
    return workspace_of(text).surfaces["home"]


def _watch(*outcomes: Outcome, aggregate: str = "sum", default: float = 0.0) -> float:
    surface = _surface(aggregate, default)
    return metric_values(surface, NOW, outcomes, ["watch"])["watch"]


@pytest.mark.parametrize(
    ("at", "received", "counts"),
    [
        (0, 0, True),
        (-1, 0, False),
        (2 * HOUR, 2 * HOUR, True),
        (2 * HOUR + 1, 2 * HOUR + 1, False),
        (HOUR, 3 * HOUR, True),
        (HOUR, 3 * HOUR + 1, False),
        (HOUR, -HOUR, True),
        (400 * 24 * HOUR, 400 * 24 * HOUR, False),
    ],
)
def test_an_outcome_counts_that_occurs_in_the_window_and_arrives_by_the_lateness(
    at: int, received: int, counts: bool
) -> None:
    """Both ends included; one received before it occurred had a clock ahead of ours."""
    assert _watch(outcome("o", "u:1", 7.0, at=NOW + at, received=NOW + received)) == 7.0 * counts


@pytest.mark.parametrize(
    ("aggregate", "value"),
    [
        ("sum", 6.0),
        ("mean", 2.0),
        ("max", 4.0),
        ("min", -1.0),
        ("first", 4.0),
        ("last", 3.0),
        ("count", 3.0),
    ],
)
def test_outcomes_are_aggregated_in_the_order_in_which_they_occurred(
    aggregate: str, value: float
) -> None:
    sent = [
        outcome("c", "u:1", 3.0, at=NOW + 9, received=NOW + 9),
        outcome("a", "u:1", 4.0, at=NOW + 1, received=NOW + 20),
        outcome("b", "u:1", -1.0, at=NOW + 5, received=NOW + 6),
    ]
    for order in (sent, sent[::-1], sent[1:] + sent[:1]):
        assert _watch(*order, aggregate=aggregate) == value


@pytest.mark.parametrize("aggregate", ["sum", "mean", "max", "min", "first", "last", "count"])
def test_without_outcomes_a_metric_has_its_default(aggregate: str) -> None:
    late = outcome("o", "u:1", 9.0, received=NOW + 4 * HOUR)
    assert _watch(late, aggregate=aggregate, default=-0.5) == -0.5


def test_each_metric_has_its_own_window_and_outcomes() -> None:
    sent = [
        outcome("w", "u:1", 1.0, at=NOW + HOUR),
        outcome("c", "u:1", 1.0, metric="cancel", at=NOW + 20 * HOUR),
        outcome("late", "u:1", 1.0, at=NOW + 20 * HOUR),
        outcome("other", "u:1", 1.0, metric="unheard_of"),
    ]
    surface = _surface()
    values = metric_values(surface, NOW, sent, surface.reward)
    assert values == {"watch": 1.0, "cancel": 1.0}
    assert reward(surface, values) == 2.0 * 1.0 - 5.0 * 1.0


def test_a_correction_replaces_the_value_and_keeps_the_time() -> None:
    """A return takes the margin back; that it came after the window does not matter."""
    bought = outcome("o", "u:1", 30.0, at=NOW + HOUR)
    returned = outcome("r", "u:1", 0.0, at=NOW + 150 * 60_000_000, corrects="o")
    assert _watch(bought, returned) == 0.0
    assert effective([bought, returned], NOW + 3 * HOUR)[0].occurred_at == NOW + HOUR


def test_a_correction_that_arrives_too_late_changes_nothing() -> None:
    bought = outcome("o", "u:1", 30.0, at=NOW + HOUR)
    late = outcome("r", "u:1", 0.0, at=NOW + HOUR, received=NOW + 3 * HOUR + 1, corrects="o")
    assert _watch(bought, late) == 30.0


def test_the_last_correction_holds_also_of_a_correction() -> None:
    first = outcome("o", "u:1", 1.0, at=NOW)
    second = outcome("b", "u:1", 2.0, at=NOW + 1, corrects="o")
    third = outcome("a", "u:1", 3.0, at=NOW + 2, corrects="b")
    for order in ([first, second, third], [third, first, second]):
        assert _watch(*order) == 3.0
    # And of two of the same, the one received later.
    twice = outcome("a2", "u:1", 5.0, at=NOW, received=NOW + 3, corrects="o")
    assert _watch(first, twice, second) == 5.0


def test_corrections_received_at_once_hold_in_the_order_in_which_they_were_sent() -> None:
    first = outcome("z", "u:1", 1.0)
    second = outcome("y", "u:1", 2.0, corrects="z")
    third = outcome("x", "u:1", 3.0, corrects="y")
    assert _watch(first, second, third) == 3.0
    again = outcome("a", "u:1", 4.0, corrects="z")
    assert _watch(first, again, second) == 2.0


def test_a_correction_of_what_is_not_there_says_nothing() -> None:
    assert _watch(outcome("r", "u:1", 9.0, corrects="o")) == 0.0
    assert _watch(outcome("o", "u:1", 1.0), outcome("r", "u:1", 9.0, corrects="p")) == 1.0
