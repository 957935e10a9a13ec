"""Truth: by hand where the world is tiny, by brute force where it is not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest

from attribution.metrics import OutcomeEvent, metric_value
from engine.decide import Inputs, decide
from engine.errors import NotFoundError, ReportError
from engine.rewards import metric_values, reward
from engine.simulate import (
    StreamingWorld,
    TinyWorld,
    Truth,
    Visit,
    respond,
    tiny_workspace,
    untaught,
)
from engine.workspace import Workspace
from experiments import assign
from policies import Action, Context, FloatArray


def _uniform(context: Context, actions: Sequence[Action]) -> FloatArray:
    return np.full(len(actions), 1 / len(actions))


def _right(context: Context, actions: Sequence[Action]) -> FloatArray:
    return np.array([0.0, 1.0] if context["x"] else [1.0, 0.0])


def test_the_tiny_world_has_the_values_of_its_docstring() -> None:
    truth = Truth(TinyWorld(seed=1), untaught(tiny_workspace()))
    assert truth.policy_value("page", "box", "a") == pytest.approx(0.25 * 0.2 + 0.75 * 0.6)
    assert truth.policy_value("page", "box", "b") == pytest.approx(0.25 * 0.8 + 0.75 * 0.2)
    assert truth.policy_value("page", "box", _uniform) == pytest.approx(0.425)
    assert truth.policy_value("page", "box", _right) == pytest.approx(0.65)
    assert truth.best_value("page", "box") == pytest.approx(0.65)
    assert truth.policy_value("page", "box", "a", metric="click") == pytest.approx(0.5)


def test_the_tiny_world_has_the_lift_worked_out_by_hand() -> None:
    """b − a is +.6 for a unit with x and −.4 without, over the units that are enrolled."""
    workspace, world = tiny_workspace(), TinyWorld(seed=1)
    effects = [
        0.6 if visit.situation.context[0][1] else -0.4
        for visit in world.visits(0)
        if assign(workspace.design, visit.request().unit, "page")
    ]
    lift = Truth(world, untaught(workspace)).lift("a_or_b", "b", "click", days=3)
    assert lift.units == len(effects)
    assert 150 < lift.units < 250
    assert lift.difference == pytest.approx(fmean(effects), abs=1e-12)


def test_what_is_not_declared_is_refused(truth: Truth) -> None:
    with pytest.raises(NotFoundError, match=r"home\.hat"):
        truth.policy_value("home", "hat", "flat")
    with pytest.raises(NotFoundError, match='"round"; known actions: B, compact, flat'):
        truth.policy_value("home", "layout", "round")
    with pytest.raises(NotFoundError, match="clicks"):
        truth.policy_value("home", "layout", "flat", metric="clicks")
    with pytest.raises(NotFoundError, match="round"):
        truth.lift("layout_b", "round", "watch", days=1)
    with pytest.raises(ReportError, match="enrols no unit"):
        truth.lift("layout_b", "b", "watch", days=0)


@pytest.mark.parametrize("action", ["flat", "B", "compact"])
def test_the_value_of_a_layout_is_what_brute_force_finds(
    truth: Truth, streaming: Workspace, action: str
) -> None:
    """Mean reward of seats that live through drawn actions and outcomes, within 4 errors."""
    world = StreamingWorld(seed=11, viewers=1_500)
    serving = untaught(streaming)
    home = streaming.surfaces["home"]
    seats: defaultdict[str, list[float]] = defaultdict(list)
    for day in (0, 200):
        for number, visit in enumerate(world.visits(day)):
            if visit.surface != "home":
                continue
            record = decide(
                serving,
                visit.request(),
                Inputs(),
                decision_id=f"{day}-{number}",
                now_us=visit.at_us,
            )
            shown = {choice.slot: choice.action for choice in record.choices}
            eligible = next(c.eligible for c in record.choices if c.slot == "layout")
            if any(a.id == "value_story" or a.kind == "holdout" for a in record.assignments):
                continue  # their hero copy or banner is not the declared policies'
            shown["layout"] = action if action in eligible else "flat"
            outcomes = respond(world, visit, shown, record.decision_id)
            values = metric_values(home, visit.at_us, outcomes, home.reward)
            seats[visit.id.split("-")[1]].append(reward(home, values))
    expected = truth.policy_value("home", "layout", action)
    sums = np.array([sum(rewards) for rewards in seats.values()])
    sizes = np.array([len(rewards) for rewards in seats.values()])
    residual = sums - expected * sizes
    z = residual.sum() / np.sqrt((residual**2).sum())
    assert abs(z) < 4


def test_the_lift_of_units_is_what_brute_force_finds(streaming: Workspace) -> None:
    """Every enrolled unit lives both variants 40 times; the mean agrees within 4 errors."""
    world, days, serving = StreamingWorld(seed=5, viewers=200), 2, untaught(streaming)
    exact = Truth(world, serving).lift("layout_b", "b", "watch", days)
    spec = streaming.surfaces["home"].metrics["watch"]
    visits: defaultdict[str, list[Visit]] = defaultdict(list)
    for visit in (v for day in range(days) for v in world.visits(day) if v.surface == "home"):
        unit = visit.request().unit
        if any(a.id == "layout_b" for a in assign(streaming.design, unit, "home")):
            visits[unit].append(visit)
    assert exact.units == len(visits)

    def lived(luck: int) -> float:
        """The mean difference over units, with outcomes and draws of this luck."""
        lucky, total = replace(world, seed=1_000 + luck), 0.0
        for mine in visits.values():
            for layout, sign in (("B", 1), ("flat", -1)):
                events = []
                for visit in mine:
                    id_ = f"{luck}/{visit.id}"
                    record = decide(
                        serving, visit.request(), Inputs(), decision_id=id_, now_us=visit.at_us
                    )
                    shown = {c.slot: c.action for c in record.choices}
                    eligible = next(c.eligible for c in record.choices if c.slot == "layout")
                    shown["layout"] = layout if layout in eligible else "flat"
                    events += [
                        OutcomeEvent(o.occurred_at, o.received_at, o.value)
                        for o in respond(lucky, visit, shown, id_)
                        if o.metric == "watch"
                    ]
                total += sign * metric_value(spec, mine[0].at_us, events)
        return total / len(visits)

    found = np.array([lived(luck) for luck in range(40)])
    z = (found.mean() - exact.difference) / (found.std(ddof=1) / np.sqrt(len(found)))
    assert abs(z) < 4
