"""The promotion gate on logs whose truth is known: how often it errs, and what it finds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from attribution import EvaluationLog
from engine.gate import Judgement, judge, level_of
from engine.workspace import Guardrail
from tests.study.promotion import Slot, chances, sequence

PLAIN = Slot(means=(0.5, 0.5, 0.5))
BETTER = Slot(means=(0.475, 0.475, 0.55))
"""What a policy that takes the last action earns here is a tenth more than uniform's .5."""


def test_the_levels_of_all_attempts_sum_to_the_declared_one() -> None:
    spent = math.fsum(level_of(0.05, attempt) for attempt in range(1, 100_000))
    assert spent == pytest.approx(0.05, rel=1e-4)
    assert spent < 0.05


def test_a_candidate_no_better_is_seldom_promoted_in_any_number_of_attempts() -> None:
    """The study in docs/promotion.md runs 1,000 of these; the bound is binomial's."""
    found = chances(PLAIN, sequences=100, attempts=3, rows=500, alpha=0.2)
    assert found.promoted <= binom.ppf(0.999, 100, 0.2)


def test_a_candidate_that_is_a_tenth_better_is_promoted() -> None:
    found = chances(BETTER, sequences=50, attempts=2, rows=4_000, alpha=0.05)
    assert found.promoted >= binom.ppf(0.001, 50, 0.8)


def _judged(slot: Slot, seed: int = 1) -> Judgement:
    return sequence(slot, np.random.default_rng(seed), attempts=1, rows=6_000, alpha=0.05)[-1]


def test_clicks_are_not_bought_with_margin() -> None:
    assert _judged(BETTER).verdict == "promoted"
    losing = Slot(BETTER.means, guarded=(0.5, 0.5, 0.35))
    found = _judged(losing)
    assert found.verdict == "guarded"
    assert "beyond its margin" in found.reason
    assert found.reward.low is not None
    assert found.reward.low > 0


def test_a_guardrail_that_nothing_is_shown_of_does_not_hold() -> None:
    """What is not worse, but might be, stops a promotion as well."""
    found = _judged(Slot(BETTER.means, guarded=(0.5, 0.5, 0.5), margin=0.001))
    assert found.verdict == "guarded"


def test_a_guardrail_may_point_either_way() -> None:
    costly = Slot(BETTER.means, guarded=(0.2, 0.2, 0.5), direction="down")
    assert _judged(costly).verdict == "guarded"
    cheaper = Slot(BETTER.means, guarded=(0.5, 0.5, 0.2), direction="down")
    assert _judged(cheaper).verdict == "promoted"


def test_a_better_candidate_must_be_better_by_the_margin() -> None:
    rng = np.random.default_rng(2)
    assert sequence(BETTER, rng, attempts=1, rows=6_000, alpha=0.05, margin=0.2)[0].verdict in {
        "kept",
        "too_weak",
    }


def test_a_log_without_what_the_candidate_does_is_no_pass() -> None:
    """A refusal promotes nobody, however well the logged actions did."""
    n = 2_000
    action = np.zeros(n, dtype=np.intp)
    pmf = np.tile([1.0, 0.0], (n, 1))
    reward = np.random.default_rng(3).random(n)
    log = EvaluationLog(
        ("a", "b"), action, reward, np.ones(n), pmf=pmf, adaptive=True, reward_range=(0, 1)
    )
    found = judge(log, np.tile([0.0, 1.0], (n, 1)), {}, (), margin=0.0, level=0.05)
    assert found.verdict == "too_weak"
    assert found.reward.low is None


def test_what_is_worse_is_kept_back_and_not_offered() -> None:
    found = _judged(Slot((0.6, 0.6, 0.2)))
    assert found.verdict == "kept"


def test_guardrails_are_judged_by_their_own_rows() -> None:
    slot = Slot(BETTER.means)
    assert slot.guardrails == ()
    assert Slot(BETTER.means, guarded=(1, 1, 1)).guardrails == (Guardrail("guard", "up", 0.05),)
