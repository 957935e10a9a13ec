"""MABWiser's policies: what they learn, how their probabilities come about, and what is stored."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from mabwiser.mab import MAB, LearningPolicy, NeighborhoodPolicy

from policies import Action, Context, Feedback, PolicyError, load_policy, make_policy, snapshots
from policies.neighbourhoods import MABNearest
from tests.policies.cases import ACTIONS, contexts, feedback

KINDS = ("mab_nearest", "mab_radius", "mab_lsh", "mab_clusters", "mab_tree")
LEARNINGS = ("epsilon_greedy", "ucb1", "thompson")
TWO = (Action("A"), Action("B"))

every_kind = pytest.mark.parametrize("kind", KINDS)


def two_sided(n: int, seed: int = 1, scale: float = 1.0, origin: float = 0.0) -> list[Feedback]:
    """A is right where x is positive and B where it is negative, nine times in ten."""
    rng = np.random.default_rng(seed)
    log = []
    for x in rng.uniform(-1, 1, size=n):
        drawn = int(rng.integers(2))
        good = (x > 0) == (drawn == 0)
        reward = origin + scale * float(rng.random() < (0.9 if good else 0.1))
        log.append(Feedback({"x": float(x)}, TWO, TWO[drawn].id, 0.5, reward))
    return log


@every_kind
@pytest.mark.parametrize("learning", LEARNINGS)
def test_what_was_earned_in_like_contexts_decides(kind: str, learning: str) -> None:
    policy = make_policy(kind, learning=learning, simulations=20)
    policy.learn(two_sided(400))
    assert policy.pmf({"x": 0.7}, TWO)[0] > 0.7
    assert policy.pmf({"x": -0.7}, TWO)[1] > 0.7


@every_kind
def test_rewards_in_another_unit_and_from_another_origin_change_nothing(kind: str) -> None:
    """Left to itself the library takes an action without decisions nearby to earn 0."""
    for learning in ("epsilon_greedy", "ucb1"):
        one, other = make_policy(kind, learning=learning), make_policy(kind, learning=learning)
        one.learn(two_sided(100))
        other.learn(two_sided(100, scale=1024.0, origin=-4096.0))
        rows = [{"x": float(x)} for x in np.linspace(-1, 1, 21)]
        np.testing.assert_array_equal(one.pmfs(rows, TWO), other.pmfs(rows, TWO))


@every_kind
def test_an_action_never_tried_gets_its_even_share(kind: str) -> None:
    policy = make_policy(kind, epsilon=0.0)
    fresh = (*TWO, Action("C"), Action("D"))
    np.testing.assert_array_equal(policy.pmf({"x": 0.7}, fresh), [0.25] * 4)
    policy.learn(two_sided(400))
    np.testing.assert_array_equal(policy.pmf({"x": 0.7}, fresh), [0.5, 0.0, 0.25, 0.25])
    np.testing.assert_array_equal(policy.pmf({"x": 0.7}, fresh[2:]), [0.5, 0.5])
    expected = policy.expected({"x": 0.7}, fresh)
    assert expected is not None
    assert expected[0] > expected[2] == expected[3] > expected[1]


def test_simulated_probabilities_are_those_of_the_librarys_own_draws() -> None:
    """Thompson among the nearest; both are simulated, so the bound is that of two binomials."""
    log, n = two_sided(60), 1_000
    policy = make_policy("mab_nearest", learning="thompson", k=5, simulations=n)
    policy.learn(log)
    x = np.array([[1.0, item.context["x"]] for item in log], dtype=np.float64)
    mab = MAB(["A", "B"], LearningPolicy.ThompsonSampling(), NeighborhoodPolicy.KNearest(5), seed=9)
    mab.fit([item.action for item in log], [item.reward for item in log], x)
    for at in (-0.05, 0.0, 0.05):
        own = policy.pmf({"x": at}, TWO)[0]
        drawn = mab.predict(np.tile([1.0, at], (n, 1))).count("A")
        assert abs(own - drawn / n) < 4.0 * np.sqrt(2.0 * 0.25 / n)


def test_an_action_that_won_w_of_n_simulations_has_what_it_says() -> None:
    log, n, k = two_sided(60), 30, 2
    policy = make_policy("mab_nearest", learning="thompson", k=5, simulations=n)
    policy.learn(log)
    wins = policy.pmfs([{"x": float(x)} for x in np.linspace(-0.2, 0.2, 20)], TWO) * (n + 1) - 1 / k
    np.testing.assert_allclose(wins, wins.round(), atol=1e-9)
    np.testing.assert_allclose(wins.sum(axis=1), n)
    assert len(set(wins[:, 0].round().tolist())) > 3


def test_no_simulated_probability_is_zero() -> None:
    policy = make_policy("mab_nearest", learning="thompson", simulations=10)
    policy.learn(two_sided(400))
    assert policy.pmf({"x": 0.9}, TWO).min() >= 0.5 / 11 - 1e-15


@every_kind
def test_a_prediction_repeats_though_the_librarys_would_not(kind: str) -> None:
    policy = make_policy(kind, learning="thompson", simulations=7)
    policy.learn(two_sided(50))
    first = policy.pmf({"x": 0.01}, TWO)
    for _ in range(3):
        policy.pmf({"x": -0.5}, TWO)
        np.testing.assert_array_equal(policy.pmf({"x": 0.01}, TWO), first)


@every_kind
def test_thompson_refuses_rewards_that_are_no_success_or_failure(kind: str) -> None:
    policy = make_policy(kind, learning="thompson")
    before = policy.dumps()
    with pytest.raises(PolicyError, match="0 or 1"):
        policy.learn([*two_sided(3), Feedback({}, TWO, "A", 0.5, 0.5)])
    assert policy.dumps() == before


@every_kind
def test_only_the_last_decisions_are_remembered(kind: str) -> None:
    log = two_sided(90)
    short = make_policy(kind, memory=30)
    for start in range(0, 90, 7):
        short.learn(log[start : start + 7])
    arrays = snapshots.unpack(short.dumps()).arrays
    assert [len(arrays[name]) for name in ("contexts", "drawn", "rewards")] == [30] * 3
    assert arrays["rewards"].tolist() == [item.reward for item in log[-30:]]


def test_remembered_contexts_are_counted_in_the_units_of_today() -> None:
    """Columns and units grow as larger numbers and new strings come."""
    policy, log = make_policy("mab_nearest"), feedback(80, seed=3)
    policy.learn(log)
    assert isinstance(policy, MABNearest)
    X, _ = policy._encoder.encode_many([item.context for item in log])
    stored = policy._matrix()
    late = [at for at, column in enumerate(policy._encoder.columns, 1) if column.type == "missing"]
    kept = [at for at in range(X.shape[1]) if at not in late]  # a row precedes what was missing
    np.testing.assert_array_equal(stored[:, kept], X[:, kept])


def test_where_nothing_is_within_the_radius_all_are_alike() -> None:
    policy = make_policy("mab_radius", radius=0.01, learning="ucb1")
    policy.learn(two_sided(20))
    np.testing.assert_array_equal(policy.pmf({"x": 50.0}, TWO), [0.5, 0.5])


@every_kind
def test_one_context_and_one_decision_are_enough_to_decide_by(kind: str) -> None:
    policy = make_policy(kind)
    for n in (1, 2, 9):
        policy.learn([Feedback({"x": 1.0}, TWO, "A", 0.5, 1.0)] * n)
        assert abs(policy.pmf({"x": 2.0}, TWO).sum() - 1.0) <= 1e-9


@every_kind
def test_features_may_vanish_appear_and_change_type(kind: str) -> None:
    policy = make_policy(kind)
    seen: list[Context] = [
        {"x": 1.0},
        {},
        {"x": "o", "y": 2.0},
        {"x": None},
        {"x": True, "y": 1e90},
    ]
    for context in seen:
        policy.learn([Feedback(context, TWO, "A", 0.5, 1.0)] * 2)
        assert abs(policy.pmf(context, TWO).sum() - 1.0) <= 1e-9
        assert load_policy(policy.dumps()).dumps() == policy.dumps()


@pytest.mark.parametrize(
    ("state", "arrays", "says"),
    [
        ({"actions": ["A", "A"]}, {}, "twice"),
        ({"learned": 7}, {}, "contexts"),
        ({}, {"drawn": np.array([0, 1, 2, 9], dtype=np.int64)}, "index"),
        ({}, {"rewards": np.zeros(3)}, "rewards"),
    ],
)
def test_a_snapshot_that_contradicts_itself_is_refused(
    state: dict[str, Any], arrays: dict[str, Any], says: str
) -> None:
    policy = make_policy("mab_nearest")
    policy.learn(feedback(4, seed=1))
    told = snapshots.unpack(policy.dumps())
    forged = snapshots.pack(
        "mab_nearest", told.parameters, {**told.state, **state}, {**told.arrays, **arrays}
    )
    with pytest.raises(PolicyError, match=says):
        load_policy(forged)


def test_a_snapshot_is_arrays_and_plain_values() -> None:
    """The library saves itself as a pickle, which runs what it likes when read."""
    policy = make_policy("mab_clusters")
    policy.learn(feedback(50, seed=1))
    body = msgspec.msgpack.decode(policy.dumps()[:-32])
    assert {name: array["dtype"] for name, array in body["arrays"].items()} == {
        "contexts": "<f8",
        "drawn": "<i8",
        "rewards": "<f8",
    }
    assert set(body["state"]) == {"actions", "columns", "learned"}


def test_neither_a_home_nor_a_plotting_library_is_needed(tmp_path: Path) -> None:
    """Another part of MABWiser imports matplotlib, which wants a folder of its own to write to."""
    program = (
        "import sys\n"
        "from policies import make_policy\n"
        "from tests.policies.cases import ACTIONS, contexts, feedback\n"
        "assert not {'mabwiser', 'sklearn', 'pandas'} & set(sys.modules)\n"
        "policy = make_policy('mab_tree')\n"
        "policy.learn(feedback(20, seed=1))\n"
        "policy.pmf(contexts(1, seed=1)[0], ACTIONS)\n"
        "assert not {'matplotlib', 'seaborn'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={"PYTHONPATH": ":".join(sys.path), "HOME": "", "PATH": os.environ["PATH"]},
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())


def test_reading_a_snapshot_fits_it_so_that_the_first_decision_need_not_wait() -> None:
    policy = make_policy("mab_clusters")
    policy.learn(feedback(50, seed=1))
    again: Any = load_policy(policy.dumps())
    assert again._fit is not None
    again.pmf(contexts(1, seed=2)[0], ACTIONS)
