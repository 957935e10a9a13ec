"""A short form of the study's lift cells, with the same code, judged by binomial bounds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from attribution import lift
from attribution.contrasts import Horizon, Rules
from attribution.moments import Moments
from tests.attribution.worlds import at_least
from tests.study.lift import ALWAYS, CELLS, FIXED, WORLDS, World, judged, rows
from tests.study.promises import ALPHA, TAIL

SHORT = 40


@pytest.mark.parametrize("cell", CELLS)
def test_a_cell_covers_and_raises_no_more_false_alarms_than_promised(cell: str) -> None:
    for row in rows(cell, SHORT, seed=7):
        answered = round(row.answered * SHORT)
        assert at_least(answered, SHORT, row.least_answered)
        assert at_least(round(row.coverage * answered), answered, 1 - ALPHA)
        for miss in (row.too_high, row.too_low):
            assert at_least(round((1 - miss) * answered), answered, 1 - TAIL)
        if not np.isnan(row.false_alarms):
            assert at_least(round((1 - row.false_alarms) * SHORT), SHORT, 1 - ALPHA)


@pytest.mark.parametrize("horizon", ["always", "fixed"])
def test_without_the_pooled_spread_sparse_revenue_at_5_percent_treated_fails(
    horizon: Horizon,
) -> None:
    """What `contrasts` guards against, so that the cells above prove something.

    The same intervals on the two variants' own spreads exclude zero in far more than 5 % of
    A/A logs: a sequence at one of the looks, Welch's at the last.
    """
    rng = np.random.default_rng(9)
    world = World("", 240_000, 0.05, 0.02, 2.0)
    alarms, logs = 0, 300
    for _ in range(logs):
        looks = world.looks(rng)
        both, alarmed = looks.only(np.arange(2)), False
        off = se = 0.0
        for look in range(1, 60):
            both = both + looks.only(2 * look + np.arange(2))
            se = np.sqrt((both.m2[:, 0, 0] / both.n**2).sum())
            off = abs(both.mean[1, 0] - both.mean[0, 0])
            clock = both.away.min()
            if horizon == "always" and clock >= 100:
                c = 8.2 * clock / 1_000
                alarmed |= off > se * np.sqrt(2 * (c + 1) / c * (0.5 * np.log1p(c) - np.log(ALPHA)))
        if horizon == "fixed":
            alarmed = off > 1.96 * se
        alarms += bool(alarmed)
    assert not at_least(logs - alarms, logs, 1 - ALPHA)


@pytest.mark.parametrize(("horizon", "rules"), [("always", ALWAYS), ("fixed", FIXED)])
def test_the_study_judges_as_lift_does(horizon: Horizon, rules: Rules) -> None:
    rng = np.random.default_rng(10)
    new = rng.random(30_000) < 0.3
    y = (rng.random(30_000) < 0.05) * rng.lognormal(size=30_000)
    frame = pd.DataFrame({"variant": np.where(new, "new", "base"), "y": y})
    metric = WORLDS[0].metric
    [row] = lift(
        frame, variant="variant", baseline="base", metrics=[metric], horizon=horizon
    ).results
    found = judged(metric, Moments.of(y[:, None], new.astype(np.intp), 2), rules)
    assert (row.low, row.high, row.p_value) == (found.low, found.high, found.p_value)
    assert row.interval == {"always": "sequence", "fixed": "welch_pooled"}[horizon]
