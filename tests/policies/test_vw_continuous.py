"""Continuous choices by Vowpal Wabbit: cells of a grid, and the density over them."""

from typing import Any

import numpy as np
import pytest
from scipy.integrate import quad
from vowpalwabbit import Workspace

from policies import (
    Action,
    Feedback,
    PolicyError,
    action_refusal,
    load_policy,
    make_policy,
)
from policies.vw import VowpalWabbitContinuous

HOURS = tuple(Action(f"h{hour}", {"value": hour}) for hour in range(24))
DAY: dict[str, Any] = {"low": 0, "high": 23, "step": 1}


def cats(**parameters: Any) -> VowpalWabbitContinuous:
    policy = make_policy("vw_cats", **{"bits": 10, **DAY, **parameters})
    assert isinstance(policy, VowpalWabbitContinuous)
    return policy


def test_a_probability_is_the_integral_of_the_density_over_the_actions_cell() -> None:
    """By quadrature of the pieces that the library gives."""
    policy = cats(bandwidth=2.3)
    pieces = policy._model.density("|c ")

    def density(x: float) -> float:
        return next((p.density for p in pieces if p.low <= x < p.high), 0.0)

    ends = [piece.high for piece in pieces]
    pmf = policy.pmf({}, HOURS)
    for hour in range(24):
        inside = [end for end in ends if hour < end < hour + 1]
        mass, _ = quad(density, hour, hour + 1, points=inside or None)
        assert pmf[hour] == pytest.approx(mass, abs=1e-6)


def test_wherever_a_range_begins_its_density_is_whole() -> None:
    """The library loses pieces of a range that does not begin at 0, as here without the shift."""
    raw = Workspace(
        "--quiet --cats_pdf 8 --min_value -0.5 --max_value 23.5 --bandwidth 1.5 --epsilon 0.12"
    )
    assert sum((high - low) * density for low, high, density in raw.predict("|c ")) < 0.2
    for low in (-50.0, -0.5, 0.0, 7.0, 900.0):
        for bins, bandwidth in ((2, None), (8, 1.5), (8, 7.9), (24, None), (40, 2.0), (5, 23.0)):
            policy = cats(low=low, high=low + 23, bins=bins, bandwidth=bandwidth)
            actions = [Action(f"a{i}", {"value": low + i}) for i in range(24)]
            for _ in range(3):
                policy.learn([Feedback({}, tuple(actions), "a20", 0.1, 1.0)])
                cells = policy._integrals("|c ")
                assert cells.sum() == pytest.approx(1.0, abs=1e-5)
                np.testing.assert_allclose(policy.pmf({}, actions), cells, atol=1e-5)


def test_every_cell_has_its_share_of_epsilon() -> None:
    assert cats(epsilon=0.12).pmf({}, HOURS).min() == pytest.approx(0.12 / 24, rel=1e-5)


def test_fewer_eligible_actions_share_what_they_had() -> None:
    policy = cats()
    whole, some = policy.pmf({}, HOURS), policy.pmf({}, HOURS[5:9])
    np.testing.assert_allclose(some, whole[5:9] / whole[5:9].sum(), rtol=1e-12)


def test_the_best_hours_of_each_segment_are_found_from_a_uniform_log() -> None:
    """Best at 8 for the one and at 20 for the other; nearby hours earn nearly as much."""
    policy, rng = cats(bandwidth=2.0), np.random.default_rng(1)
    for hour in rng.integers(24, size=6_000).tolist():
        early = bool(rng.random() < 0.5)
        chance = 0.1 + 0.4 * np.exp(-(((hour - (8 if early else 20)) / 3) ** 2))
        reward = float(rng.random() < chance)
        context = {"who": "early" if early else "late"}
        policy.learn([Feedback(context, HOURS, f"h{hour}", 1 / 24, reward)])
    assert policy.pmf({"who": "early"}, HOURS)[5:12].sum() > 0.8
    assert policy.pmf({"who": "late"}, HOURS)[17:24].sum() > 0.8


def test_a_grid_may_be_fine_negative_and_fractional() -> None:
    actions = [Action(f"d{i}", {"value": -0.3 + i * 0.1}) for i in range(7)]
    policy = cats(low=-0.3, high=0.3, step=0.1)
    policy.learn([Feedback({}, tuple(actions), "d5", 0.2, 1.0)])
    assert policy.pmf({}, actions).shape == (7,)


@pytest.mark.parametrize("value", [0.5, 24, -1, "8", True, None])
def test_an_action_off_the_grid_is_refused_with_the_repair(value: Any) -> None:
    action = Action("odd", {"value": value})
    before = cats().dumps()
    policy = load_policy(before)
    with pytest.raises(PolicyError, match="action 'odd' has the feature value"):
        policy.pmf({}, (HOURS[0], action))
    with pytest.raises(PolicyError, match="Give"):
        policy.learn([Feedback({}, (HOURS[0], action), "odd", 0.5, 1.0)])
    assert policy.dumps() == before
    assert action_refusal("vw_cats", DAY, action).startswith("has the feature value")
    assert action_refusal("vw_cats", DAY, HOURS[3]) == ""
    assert action_refusal("vw_cats", {}, action) == ""
    assert action_refusal("uniform", {}, action) == ""


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"step": 5}, "whole number of steps"),
        ({"high": 0}, "whole number of steps"),
        ({"step": 1e-6}, "at most 10,000"),
        ({"bandwidth": 0.0}, "bandwidth is 0"),
        ({"bandwidth": 24.0}, "bandwidth is 24"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"low": float("nan")}, "not finite"),
    ],
)
def test_a_grid_or_bandwidth_that_makes_no_sense_is_refused(
    parameters: dict[str, Any], says: str
) -> None:
    with pytest.raises(PolicyError, match=says):
        make_policy("vw_cats", **{**DAY, **parameters})


def test_what_is_said_not_to_resume_does_not() -> None:
    """Were it to with a later version of the library, it could be said to."""
    rng = np.random.default_rng(3)
    log = [
        Feedback({"x": float(rng.normal())}, HOURS, f"h{h}", 1 / 24, float(rng.random()))
        for h in rng.integers(24, size=300)
    ]
    whole, part = cats(), cats()
    whole.learn(log)
    part.learn(log[:137])
    again = load_policy(part.dumps())
    again.learn(log[137:])
    assert again.dumps() != whole.dumps()
