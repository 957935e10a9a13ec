"""A short form of the study's lift cells, with the same code, judged by binomial bounds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from attribution import lift
from attribution.contrasts import Horizon
from attribution.moments import Moments
from tests.attribution.worlds import at_least
from tests.study.lift import ALPHA, WORLDS, World, judged, quantile_study, study

SHORT = 60
TAIL = 0.035


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_a_cell_covers_and_raises_no_more_false_alarms_than_promised(world: World) -> None:
    row = study(world, SHORT, seed=7)
    answered = round(row.answered * row.logs)
    assert answered >= 0.8 * row.logs
    assert at_least(round(row.coverage * answered), answered, 1 - ALPHA)
    for miss in (row.left_miss, row.right_miss):
        assert at_least(round((1 - miss) * answered), answered, 1 - TAIL)
    if world.effect == 1:
        assert at_least(round((1 - row.false_alarms) * row.logs), row.logs, 1 - ALPHA)


def test_the_median_of_the_study_is_covered_too() -> None:
    row = quantile_study(15, seed=8)
    assert row.answered == 1
    assert at_least(round((1 - row.false_alarms) * row.logs), row.logs, 1 - ALPHA)


def test_without_the_pooled_spread_sparse_revenue_at_5_percent_treated_fails() -> None:
    """What `contrasts` guards against, so that the cells above prove something.

    The same sequence on the two variants' own spreads alarms in far more than 5 % of A/A logs.
    """
    rng = np.random.default_rng(9)
    world = World("", 240_000, 0.05, 0.02, 2.0)
    alarms, logs = 0, 400
    for _ in range(logs):
        looks = world.looks(rng)
        both, alarmed = looks.only(np.arange(2)), False
        for look in range(1, 60):
            both = both + looks.only(2 * look + np.arange(2))
            se = np.sqrt((both.m2[:, 0, 0] / both.n**2).sum())
            clock = both.away.min()
            if clock >= 100:
                c = 8.2 * clock / 1_000
                wide = np.sqrt(2 * (c + 1) / c * (0.5 * np.log1p(c) - np.log(ALPHA)))
                alarmed |= abs(both.mean[1, 0] - both.mean[0, 0]) > wide * se
        alarms += bool(alarmed)
    assert not at_least(logs - alarms, logs, 1 - ALPHA)


@pytest.mark.parametrize("horizon", ["always", "fixed"])
def test_the_study_judges_as_lift_does(horizon: Horizon) -> None:
    rng = np.random.default_rng(10)
    new = rng.random(30_000) < 0.3
    y = (rng.random(30_000) < 0.05) * rng.lognormal(size=30_000)
    frame = pd.DataFrame({"variant": np.where(new, "new", "base"), "y": y})
    metric = WORLDS[0].metric
    [row] = lift(
        frame, variant="variant", baseline="base", metrics=[metric], horizon=horizon
    ).results
    found = judged(metric, Moments.of(y[:, None], new.astype(np.intp), 2), horizon)
    assert (row.low, row.high, row.p_value) == (found.low, found.high, found.p_value)
