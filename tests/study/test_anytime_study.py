"""A short form of the study's growing logs, with the same code, judged by binomial bounds."""

from __future__ import annotations

import numpy as np
import pytest

from tests.attribution.worlds import at_least
from tests.study.anytime import CELLS, alarmed, excluded, first, judged, rows, terms_of
from tests.study.promises import ALPHA, LOOKS

SHORT = 25


@pytest.mark.parametrize("cell", CELLS)
def test_a_growing_log_is_covered_and_raises_no_more_false_alarms_than_promised(cell: str) -> None:
    for row in rows(cell, SHORT, seed=3):
        answered = round(row.answered * SHORT)
        assert at_least(answered, SHORT, row.least_answered)
        assert at_least(round(row.coverage * answered), answered, 1 - ALPHA)
        assert at_least(round((1 - row.false_alarms) * SHORT), SHORT, 1 - ALPHA)


@pytest.mark.parametrize("cell", CELLS)
def test_the_study_bets_as_evaluate_does(cell: str) -> None:
    """Just inside of an interval nothing is excluded, just outside of it the value is."""
    growing = CELLS[cell]
    drawn = growing.draw(np.random.default_rng(4))
    last = judged(drawn, growing.believed)
    for which, (_, up, down) in terms_of(drawn, growing.believed).items():
        low, high, _ = last[which]
        for value, outside in ((low - 1e-6, True), (low + 1e-6, False), (high - 1e-6, False)):
            assert excluded(value, up, down) == outside, which


def test_looking_closely_at_rich_looks_only_passes_over_no_alarm() -> None:
    rng = np.random.default_rng(5)
    growing = CELLS["mild, low reward, 1 row a unit"]
    alarms = 0
    for _ in range(4):
        drawn = growing.draw(rng)
        for truth, up, down in terms_of(drawn, growing.believed).values():
            for v in (truth, truth + 0.03):
                looks = np.linspace(0, len(up.total), LOOKS + 1).astype(int)[1:]
                every = any(excluded(v, first(up, n), first(down, n)) for n in looks)
                assert alarmed(v, up, down) == every
                alarms += every
    assert alarms


def test_a_difference_is_held_about_as_closely_as_a_value() -> None:
    """Bets on differences that lean on the range of rewards alone are twice as wide."""
    found = {row.which: row.width for row in rows("mild, low reward, 1 row a unit", 6, seed=6)}
    assert found["ips − logging"] < 1.4 * found["ips"]
    assert found["dr − logging"] < 1.4 * found["dr"]
