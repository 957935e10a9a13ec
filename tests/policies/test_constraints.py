"""Constraints: a guarantee that holds and does not cost much, and prices that pace."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from policies import (
    Action,
    Feedback,
    FloatArray,
    Guarantee,
    Guarded,
    PolicyError,
    Protection,
    Protections,
    Seen,
    Watched,
    apply_floor,
    draw,
    load_policy,
    make_policy,
    priced,
)
from policies.constraints import UNBOUNDED, note, surplus
from tests.study.constraints import kept, ledger_of

ACTIONS = (Action("a"), Action("b"), Action("c"))
GUARANTEE = Guarantee("a", alpha=0.1, delta=0.05, share=0.1, low=0.0, high=1.0)


def guarded(guarantee: Guarantee = GUARANTEE, kind: str = "thompson_gaussian") -> Guarded:
    return Guarded(make_policy(kind), guarantee, 0.02)


def lessons(count: int, seed: int = 1) -> list[Feedback]:
    """Half of them certain, half drawn from the mixture."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        if number % 2:
            action = rng.choice(["a", "b", "c"], p=[0.2, 0.5, 0.3])
            propensity = {"a": 0.2, "b": 0.5, "c": 0.3}[action]
            made.append(Feedback({}, ACTIONS, str(action), propensity, float(rng.random())))
        else:
            made.append(Feedback({}, ACTIONS, "a", 1.0, float(rng.random())))
    return made


# The guarantee ------------------------------------------------------------------------------------


@pytest.mark.parametrize("means", [(0.5, 0.8, 0.3, 0.4), (0.5, 0.2, 0.3, 0.4)])
def test_the_guarantee_is_kept_where_the_policy_alone_would_break_it(
    means: tuple[float, ...],
) -> None:
    """docs/constraints.md has 1,000 runs of 10,000 decisions, with the rewards."""
    found = kept(means, runs=100, decisions=1_500)
    assert found.broken <= binom.ppf(0.999, 100, 0.05)
    assert kept(means, runs=100, decisions=1_500, guarded=False).broken > 3


def test_a_guard_that_promises_less_breaks_it() -> None:
    """So the world above is one in which the guard has something to do."""
    worse = (0.5, 0.2, 0.3, 0.4)
    assert kept(worse, runs=50, decisions=1_500, promise=0.6).broken > 25


def test_a_better_policy_soon_has_its_way() -> None:
    found = kept((0.5, 0.8, 0.3, 0.4), runs=50, decisions=10_000)
    free = kept((0.5, 0.8, 0.3, 0.4), runs=50, decisions=10_000, guarded=False)
    assert found.mean >= 0.9 * free.mean


def test_nothing_is_risked_before_the_default_has_earned_for_it() -> None:
    policy = guarded()
    assert policy.allowance == 0
    policy.learn([Feedback({}, ACTIONS, "a", 1.0, 1.0)] * 5)
    assert policy.allowance == 0
    policy.learn([Feedback({}, ACTIONS, "a", 1.0, 1.0)] * 200)
    # A tenth of what the default earned pays for risks at their worst, .9 each.
    assert 10 <= policy.allowance <= 205 * 0.1 / 0.9


def test_what_is_excused_was_no_risk() -> None:
    policy = guarded()
    policy.excuse(3)
    assert policy.allowance == 3


def test_where_nothing_can_be_lost_anything_may_be_risked() -> None:
    assert guarded(Guarantee("a", 0.5, 0.05, 0.1, 1.0, 1.5)).allowance == UNBOUNDED


def test_what_was_earned_is_bounded_from_below_at_all_times() -> None:
    """Σ μ(served) − (1 − α) Σ μ(default) is known here; its bound exceeds it in few runs."""
    runs, share = 400, 0.2
    rng = np.random.default_rng(4)
    ledger = ledger_of(runs)
    truth, above = np.zeros(runs), np.zeros(runs, dtype=bool)
    for step in range(600):
        certain = np.full(runs, step % 2 == 0)
        default = certain | (rng.random(runs) < share)
        mean = np.where(default, 0.4, 0.5)
        reward = (rng.random(runs) < mean).astype(float)
        propensity = np.where(default, np.where(certain, 1.0, share), math.inf)
        note(GUARANTEE, ledger, reward, propensity, certain)
        truth += mean - 0.9 * 0.4
        above |= surplus(GUARANTEE, ledger, share) > truth + 1e-9
    assert above.sum() <= binom.ppf(0.999, runs, 0.05)


def test_a_guarded_policy_is_saved_and_learns_on_as_if_it_had_not_been() -> None:
    whole, rows = guarded(), lessons(60)
    whole.learn(rows)
    parts = guarded()
    for row in rows:
        parts.learn([row])
        again = load_policy(parts.dumps())
        assert isinstance(again, Guarded)
        parts = again
    assert parts.dumps() == whole.dumps()
    assert parts.allowance == whole.allowance
    assert (parts.pmf({}, ACTIONS) == whole.pmf({}, ACTIONS)).all()


def test_the_default_keeps_its_share() -> None:
    policy = guarded()
    policy.learn([Feedback({}, ACTIONS, "b", 0.5, 1.0), Feedback({}, ACTIONS, "a", 0.5, 0.0)] * 99)
    pmf, _ = policy.pmf_and_expected({}, ACTIONS)
    assert pmf.sum() == pytest.approx(1.0, abs=1e-12)
    assert pmf[0] >= 0.1
    assert (policy.pmfs([{}, {}], ACTIONS) == pmf).all()


def test_a_reward_outside_the_range_changes_nothing() -> None:
    policy = guarded()
    before = policy.dumps()
    with pytest.raises(PolicyError, match=r"reward is 1\.5, outside \[0, 1\]"):
        policy.learn([*lessons(3), Feedback({}, ACTIONS, "a", 1.0, 1.5)])
    assert policy.dumps() == before


def test_an_eligible_set_without_the_default_is_refused() -> None:
    with pytest.raises(PolicyError, match="lack 'a'"):
        guarded().pmf({}, ACTIONS[1:])


@pytest.mark.parametrize("field", ["parameters", "state"])
def test_a_snapshot_that_lacks_its_ledger_is_refused(field: str) -> None:
    from policies import snapshots  # noqa: PLC0415  its format is what is damaged here

    snapshot = snapshots.unpack(guarded().dumps())
    content = {"parameters": snapshot.parameters, "state": snapshot.state}
    content[field] = {}
    with pytest.raises(PolicyError, match=f"snapshot.{field}"):
        load_policy(snapshots.pack("guarded", content["parameters"], content["state"], {}))


def test_a_guarantee_says_what_it_can_be() -> None:
    with pytest.raises(ValueError, match="0 ≤ low"):
        Guarantee("a", 0.1, 0.05, 0.1, -1.0, 1.0)
    with pytest.raises(ValueError, match=r"lie in \(0, 1\)"):
        Guarantee("a", 1.0, 0.05, 0.1, 0.0, 1.0)


# Prices -------------------------------------------------------------------------------------------

PMF = np.array([0.2, 0.5, 0.3])


def _scarce(pressure: float) -> FloatArray:
    return np.array([0.0, pressure, 0.0])


def test_an_action_is_chosen_only_where_it_is_worth_its_price() -> None:
    expected = np.array([0.4, 0.6, 0.5])
    kept_ = priced(PMF, expected, _scarce(0.05), _scarce(0.5), 0)
    assert (kept_ == PMF).all()
    dear = priced(PMF, expected, _scarce(0.2), _scarce(0.5), 0)
    assert dear == pytest.approx([0.4, 0.0, 0.6])


def test_without_a_model_a_scarce_action_is_thinned() -> None:
    found = priced(PMF, None, _scarce(0.0), _scarce(0.4), 0)
    assert found == pytest.approx([0.2 * 1.4, 0.3, 0.3 * 1.4])


def test_what_only_the_scarce_action_had_goes_to_the_default() -> None:
    found = priced(np.array([0.0, 1.0, 0.0]), None, _scarce(0.0), _scarce(1.0), 2)
    assert found.tolist() == [0.0, 0.0, 1.0]


@given(
    st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(lambda p: sum(p) > 0.01),
    st.lists(st.floats(0, 1), min_size=3, max_size=3),
    st.floats(0, 1),
)
def test_a_priced_pmf_is_one(weights: list[float], expected: list[float], pressure: float) -> None:
    pmf = np.array(weights) / sum(weights)
    for model in (None, np.array(expected)):
        found = priced(pmf, model, _scarce(pressure), _scarce(pressure), 0)
        assert found.min() >= 0
        assert found.sum() == pytest.approx(1.0, abs=1e-9)
        assert found[1] <= pmf[1] + 1e-12


# Harm ---------------------------------------------------------------------------------------------

RETURNS = Protections("a", (Protection("returns", 1.0, 0.05, 0.0, 1.0),), 0.05, 0.1 / 3, 3)


def shop(
    rows: int, returned: dict[str, float], seed: int = 1
) -> tuple[Watched, list[str], list[float]]:
    """Clicks of .4, .6 and .5, learned from by Thompson sampling with a floor of .1.

    What was drawn at each row, and whether it came back.
    """
    rng = np.random.default_rng(seed)
    policy = Watched(make_policy("thompson_beta"), RETURNS)
    clicked = {"a": 0.4, "b": 0.6, "c": 0.5}
    drawn, back, waiting = [], [], []
    actions: tuple[Action, ...] = ACTIONS
    pmf = np.full(3, 1 / 3)
    for step in range(rows):
        if step % 50 == 0:
            closed = {key.partition("/")[2] for key in policy.harmful}
            actions = tuple(action for action in ACTIONS if action.id not in closed)
            pmf = apply_floor(policy.pmf({}, actions), 0.1)
        place = draw(pmf, rng.random())
        id_ = actions[place].id
        click, came = float(rng.random() < clicked[id_]), float(rng.random() < returned[id_])
        drawn.append(id_)
        back.append(came)
        waiting.append((Feedback({}, actions, id_, float(pmf[place]), click), came))
        if step % 50 == 49:
            policy.learn([row for row, _ in waiting])
            policy.watch(
                Seen([a.id for a in row.actions], row.action, row.propensity, {"returns": value})
                for row, value in waiting
            )
            waiting = []
    return policy, drawn, back


def test_clicks_are_not_bought_with_returns() -> None:
    """The most clicked action comes back most: it is closed, and the best of the others serves."""
    policy, drawn, back = shop(15_000, {"a": 0.1, "b": 0.6, "c": 0.1})
    assert policy.harmful == ("returns/b",)
    assert "b" not in drawn[-3_000:]
    assert drawn[-3_000:].count("c") > 2_500
    assert np.mean(back[-3_000:]) <= 0.15
    free, drawn, back = shop(3_000, {"a": 0.1, "b": 0.1, "c": 0.1})
    assert free.harmful == ()
    assert drawn[-1_000:].count("b") > 800


def test_an_action_that_does_no_harm_is_seldom_closed() -> None:
    """Each comes back as often as the margin lets it; closing either is false."""
    closed = sum(bool(shop(400, {"a": 0.3, "b": 0.35, "c": 0.35}, s)[0].harmful) for s in range(60))
    assert closed <= binom.ppf(0.999, 60, 0.05)


def test_harm_is_not_seen_in_what_comes_back_whatever_is_shown() -> None:
    """Where much comes back one action is preferred, and the default where little does."""
    rng = np.random.default_rng(6)
    protections = Protections("a", (Protection("returns", 1.0, 0.05, 0.0, 1.0),), 0.05, 0.1, 2)
    policy = Watched(make_policy("uniform"), protections)
    rows = []
    for _ in range(4_000):
        often = rng.random() < 0.5
        preferred = rng.random() < 0.9
        action = "b" if often == preferred else "a"
        came = float(rng.random() < (0.9 if often else 0.1))
        rows.append(Seen("ab", action, 0.9 if preferred else 0.1, {"returns": came}))
    policy.watch(rows)
    assert policy.harmful == ()


def test_a_metric_of_which_more_is_better_is_protected_likewise() -> None:
    margin = Protections("a", (Protection("margin", -1.0, 0.1, 0.0, 5.0),), 0.05, 0.5, 2)
    policy = Watched(make_policy("uniform"), margin)
    policy.watch(
        Seen("ab", "ab"[step % 2], 0.5, {"margin": (3.0, 1.0)[step % 2]}) for step in range(400)
    )
    assert policy.harmful == ("margin/b",)


def test_a_watched_policy_is_saved_and_watches_on() -> None:
    policy, _, _ = shop(500, {"a": 0.1, "b": 0.6, "c": 0.1})
    again = load_policy(policy.dumps())
    assert isinstance(again, Watched)
    assert again.dumps() == policy.dumps()
    assert again.harmful == policy.harmful
    assert (again.pmf({}, ACTIONS) == policy.pmf({}, ACTIONS)).all()
    around = Watched(guarded(), RETURNS)
    inner = load_policy(around.dumps())
    assert isinstance(inner, Watched)
    assert isinstance(inner.policy, Guarded)
