"""Top-two Thompson sampling: its pmf by drawing, and the winner it tells."""

import numpy as np
import pytest

from policies import Action, Feedback, Winner, draw, make_policy
from policies.top_two import top_two

A, B, C = ACTIONS = (Action("A"), Action("B"), Action("C"))


def rewards(action: str, *values: float) -> list[Feedback]:
    return [Feedback({}, ACTIONS, action, 1 / 3, value) for value in values]


def test_the_pmf_is_that_of_drawing_until_another_comes() -> None:
    """The algorithm itself, a million times."""
    best, share, n = np.array([0.7, 0.2, 0.1]), 0.6, 1_000_000
    rng = np.random.default_rng(1)
    first = rng.choice(3, n, p=best)
    shown = first.copy()
    second = np.flatnonzero(rng.random(n) >= share)
    waiting = second
    while waiting.size:
        shown[waiting] = rng.choice(3, waiting.size, p=best)
        waiting = waiting[shown[waiting] == first[waiting]]
    shares = np.bincount(shown, minlength=3) / n
    pmf = top_two(best, share)
    assert (np.abs(shares - pmf) < 4.5 * np.sqrt(pmf * (1 - pmf) / n)).all()


@pytest.mark.parametrize(
    ("best", "expected"),
    [
        ([1.0], [1.0]),
        ([1.0, 0.0, 0.0], [0.5, 0.25, 0.25]),
        ([0.0, 1.0], [0.5, 0.5]),
        ([1.0, 3e-300, 1e-300], [0.5, 0.375, 0.125]),
    ],
)
def test_a_certain_leader_is_shown_in_its_share(best: list[float], expected: list[float]) -> None:
    np.testing.assert_allclose(top_two(np.array(best), 0.5), expected, rtol=1e-12)


@pytest.mark.parametrize("kind", ["top_two_beta", "top_two_gaussian"])
def test_the_winner_has_the_posterior_probability_of_being_the_best(kind: str) -> None:
    policy = make_policy(kind, confidence=0.9)
    thompson = make_policy(kind.replace("top_two", "thompson"))
    log = (
        rewards("A", *[1, 0] * 10) + rewards("B", *[1, 1, 1, 0] * 5) + rewards("C", *[0, 0, 1] * 7)
    )
    for learner in (policy, thompson):
        learner.learn(log)
    before = policy.dumps()
    best = thompson.pmf({}, ACTIONS)
    assert policy.winner(ACTIONS) == Winner("B", float(best[1]), bool(best[1] >= 0.9))
    assert thompson.winner(ACTIONS) is None
    np.testing.assert_allclose(policy.pmf({}, ACTIONS), top_two(best, 0.5), rtol=1e-12)
    assert policy.dumps() == before


def rounds_until_settled(kind: str, seed: int) -> tuple[int, str]:
    """Decisions until one of three actions is 95 % surely the best: learned 25 at a time."""
    rng = np.random.default_rng(seed)
    chances = [0.3, 0.6, 0.4]
    policy, judge = make_policy(kind), make_policy("top_two_beta")
    for t in range(25, 4_000, 25):
        pmf = policy.pmf({}, ACTIONS)
        rows = [draw(pmf, u) for u in rng.random(25)]
        log = [
            Feedback({}, ACTIONS, "ABC"[drawn], 0.5, float(rng.random() < chances[drawn]))
            for drawn in rows
        ]
        policy.learn(log)
        judge.learn(log)
        winner = judge.winner(ACTIONS)
        if winner and winner.settled:
            return t, winner.action
    return 4_000, ""


def test_top_two_settles_on_the_best_and_sooner_than_thompson_sampling() -> None:
    top = [rounds_until_settled("top_two_beta", seed) for seed in range(20)]
    plain = [rounds_until_settled("thompson_beta", seed) for seed in range(20)]
    assert [action for _, action in top].count("B") >= 18
    assert np.mean([t for t, _ in top]) < np.mean([t for t, _ in plain])
