"""What is wrong is refused by name, or falls back as declared; the model never changes silently."""

import math
from typing import Any

import numpy as np
import pytest

from policies import Action, Context, Contexts, Feedback, PolicyError, load_policy, make_policy

ACTIONS = (Action("A"), Action("B"))
MODELLED = ("lin_ucb", "lin_ts", "adaptive_ucb", "logistic_ts")


def trained(kind: str) -> Any:
    rng = np.random.default_rng(1)
    policy = make_policy(kind)
    for i in range(80):
        context: Context = {
            "hour": float(i % 24),
            "x": float(rng.normal()),
            "device": str(rng.choice(["tv", "phone"])),
        }
        policy.learn([Feedback(context, ACTIONS, "AB"[i % 2], 0.5, float(rng.integers(2)))])
    return policy


@pytest.mark.parametrize("kind", MODELLED)
@pytest.mark.parametrize(
    "context",
    [{}, {"hour": 3.0}, {"hour": "three", "device": 7.0}, {"hour": True, "device": None, "new": 1}],
    ids=["vanished", "one vanished", "of other types", "appeared"],
)
def test_features_that_vanish_appear_or_change_type_are_uncertain_and_change_nothing(
    kind: str, context: Context
) -> None:
    policy = trained(kind)
    before = policy.dumps()
    usual = policy._models.predict({"hour": 3.0, "x": 0.1, "device": "tv"}, ACTIONS, spread=True)
    unusual = policy._models.predict(context, ACTIONS, spread=True)
    if policy._models._preferred() if kind == "adaptive_ucb" else True:
        assert (unusual.variance > usual.variance).all()
    assert abs(policy.pmf(context, ACTIONS).sum() - 1.0) < 1e-9
    assert policy.dumps() == before


@pytest.mark.parametrize("kind", MODELLED)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e200, 10**400, 1e308, [1]])
def test_a_number_that_is_none_is_refused_with_its_name(kind: str, value: Any) -> None:
    policy = trained(kind)
    before = policy.dumps()
    bad: Any = {"hour": value, "x": 0.1, "device": "tv"}
    with pytest.raises(PolicyError, match="'hour'"):
        policy.pmf(bad, ACTIONS)
    with pytest.raises(PolicyError, match="'hour'"):
        policy.pmfs([{"hour": 1.0, "x": 0.1, "device": "tv"}, bad], ACTIONS)
    with pytest.raises(PolicyError, match="'hour'"):
        policy.pmfs(
            Contexts({"hour": [1.0, value], "x": [0.1, 0.1], "device": ["tv", "tv"]}), ACTIONS
        )
    with pytest.raises(PolicyError, match="'hour'"):
        Feedback(bad, ACTIONS, "A", 0.5, 1.0)
    assert policy.dumps() == before


@pytest.mark.parametrize("kind", ["lin_ts", "adaptive_ucb", "vw"])
def test_a_name_that_is_no_string_is_refused(kind: str) -> None:
    bad: Any = {"hour": 1.0, 3: 1.0}
    for policy in (make_policy(kind), trained(kind)):
        with pytest.raises(PolicyError, match="an attribute named 3"):
            policy.pmf(bad, ACTIONS)


def test_a_number_too_large_to_square_is_told_the_bound_and_not_all_its_digits() -> None:
    with pytest.raises(PolicyError, match=r"'hour' is 1e\+308\. .* between -1e\+100 and 1e\+100"):
        Feedback({"hour": 1e308}, ACTIONS, "A", 0.5, 1.0)
    with pytest.raises(PolicyError, match=r"reward is 1e\+100\. .* between -1e\+100 and 1e\+100"):
        Feedback({}, ACTIONS, "A", 0.5, 1e100)
    with pytest.raises(PolicyError) as error:
        Feedback({"hour": 10**5000}, ACTIONS, "A", 0.5, 1.0)
    assert len(str(error.value)) < 250


@pytest.mark.parametrize("propensity", [0.0, -0.1, 1.1, math.nan, math.inf, "0.5", True])
def test_a_propensity_that_is_none_is_refused(propensity: Any) -> None:
    with pytest.raises(PolicyError, match="propensity"):
        Feedback({}, ACTIONS, "A", propensity, 1.0)


def test_an_action_that_was_not_eligible_is_refused() -> None:
    with pytest.raises(PolicyError, match="not among the eligible"):
        Feedback({}, ACTIONS, "C", 0.5, 1.0)
    with pytest.raises(PolicyError, match="actions is empty"):
        Feedback({}, (), "C", 0.5, 1.0)


@pytest.mark.parametrize("kind", ["lin_ucb", "top_two_beta"])
def test_no_flipped_bit_and_no_cut_of_a_snapshot_goes_unnoticed(kind: str) -> None:
    policy = make_policy(kind)
    policy.learn([Feedback({}, ACTIONS, "A", 0.5, 1.0)])
    data = policy.dumps()
    for position in range(len(data)):
        with pytest.raises(PolicyError, match="snapshot"):
            load_policy(data[:position])
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            with pytest.raises(PolicyError, match="snapshot"):
                load_policy(bytes(damaged))


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({}, "as many in each"),
        ({"x": [1, 2], "y": [1]}, "as many in each"),
        ({"x": np.zeros((2, 2))}, "2 dimensions"),
        ({"x": np.array(["a", "b"])}, "numbers or bools"),
    ],
)
def test_columns_that_are_no_contexts_are_refused(columns: Any, says: str) -> None:
    with pytest.raises(PolicyError, match=says):
        Contexts(columns)


def test_columns_read_as_the_contexts_that_they_hold() -> None:
    columns = Contexts(
        {"n": np.array([1, 2, 3]), "b": np.array([True, False, True]), "s": list("xyz")}
    )
    assert len(columns) == 3
    assert list(columns) == [
        {"n": 1, "b": True, "s": "x"},
        {"n": 2, "b": False, "s": "y"},
        {"n": 3, "b": True, "s": "z"},
    ]
    assert columns[-1] == {"n": 3, "b": True, "s": "z"}
    assert list(columns[1:]) == list(columns)[1:]
