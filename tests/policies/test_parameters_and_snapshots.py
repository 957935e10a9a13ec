"""Making policies from parameters, describing those, and reading snapshots back."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from policies import (
    POLICY_KINDS,
    Action,
    Feedback,
    PolicyError,
    describe_parameters,
    load_policy,
    make_policy,
    parameter_faults,
    snapshot_digest,
    snapshots,
)

ACTIONS = (Action("A"), Action("B"))


def test_an_unknown_kind_lists_the_known_ones() -> None:
    with pytest.raises(PolicyError, match=r"'lin_ucb2', which is unknown\. Known: fixed, uniform"):
        make_policy("lin_ucb2")


@pytest.mark.parametrize(
    ("kind", "parameters", "says"),
    [
        ("fixed", {}, "action = None is missing"),
        ("fixed", {"action": "a:b"}, "action = 'a:b'"),
        ("fixed", {"action": "a\n"}, "action"),
        ("uniform", {"alpha": 1}, "alpha = 1 is unknown. Known: none"),
        ("weighted", {"weights": {}}, "weights"),
        ("weighted", {"weights": {"A": 0}}, "weights are all zero"),
        ("weighted", {"weights": {"A": -1}}, "weights"),
        ("weighted", {"weights": {"A": float("nan")}}, "not finite"),
        ("weighted", {"weights": {"A": True}}, "weights"),
        ("segment", {"segments": [], "otherwise": {"A": 1}}, "segments"),
        ("lin_ucb", {"alpha": -0.1}, "alpha = -0.1"),
        ("lin_ucb", {"alpha": "1"}, "alpha = '1'"),
        ("lin_ucb", {"l2": 0}, "l2 = 0"),
        ("lin_ts", {"features": ["x", "x"]}, "twice"),
        ("lin_ts", {"max_categories": 0}, "max_categories"),
        ("thompson_beta", {"prior_successes": 0.1}, "prior_successes"),
        ("vw", {"exploration": "large_action_space"}, "exploration"),
        ("vw", {"cb_type": "dr"}, "cb_type must be"),
    ],
)
def test_parameters_are_checked_against_their_declaration(
    kind: str, parameters: dict[str, Any], says: str
) -> None:
    with pytest.raises(PolicyError, match=says):
        make_policy(kind, **parameters)
    assert parameter_faults(kind, parameters)


def test_all_faults_come_at_once() -> None:
    faults = parameter_faults("lin_ucb", {"alpha": -1, "l2": "x", "lambda": 3})
    assert {fault.name for fault in faults} == {"alpha", "l2", "lambda"}
    assert parameter_faults("lin_ucb", {"alpha": 1}) == ()


def test_a_segment_listed_twice_is_refused() -> None:
    twice = [{"id": "vip", "weights": {"A": 1}}] * 2
    with pytest.raises(PolicyError, match="segments holds an id twice"):
        make_policy("segment", segments=twice, otherwise={"A": 1})


@pytest.mark.parametrize("kind", POLICY_KINDS)
def test_every_parameter_is_described(kind: str) -> None:
    described = describe_parameters(kind)
    model = POLICY_KINDS[kind].parameters_model
    assert [p.name for p in described] == list(model.__struct_fields__)
    assert all(p.doc and p.type for p in described)
    if not any(p.required for p in described):
        explicit = {
            p.name: tuple(p.default) if isinstance(p.default, list) else p.default
            for p in described
        }
        assert make_policy(kind, **explicit).dumps() == make_policy(kind).dumps()


def test_the_first_segment_that_holds_the_unit_wins() -> None:
    policy = make_policy(
        "segment",
        segments=[{"id": "vip", "weights": {"A": 1}}, {"id": "new", "weights": {"B": 1}}],
        otherwise={"A": 1, "B": 3},
    )
    both = {"segment.vip": True, "segment.new": True}
    np.testing.assert_array_equal(policy.pmf(both, ACTIONS), [1.0, 0.0])
    np.testing.assert_array_equal(policy.pmf({"segment.new": True}, ACTIONS), [0.0, 1.0])
    np.testing.assert_array_equal(policy.pmf({"segment.vip": None}, ACTIONS), [0.25, 0.75])


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [("fixed", {"action": "Z"}), ("weighted", {"weights": {"Z": 1, "A": 0}})],
)
def test_an_eligible_set_without_a_choice_is_refused(kind: str, parameters: Any) -> None:
    policy = make_policy(kind, **parameters)
    with pytest.raises(PolicyError, match="none of the eligible actions"):
        policy.pmf({}, ACTIONS)
    with pytest.raises(PolicyError, match="none of the eligible actions"):
        policy.pmfs([{}], ACTIONS)


@pytest.mark.parametrize("weights", [{"A": 5e-324, "B": 5e-324}, {"A": 1e308, "B": 1e308}])
def test_weights_of_any_magnitude_are_proportions(weights: dict[str, float]) -> None:
    pmf = make_policy("weighted", weights=weights).pmf({}, ACTIONS)
    np.testing.assert_array_equal(pmf, [0.5, 0.5])


@pytest.mark.parametrize(
    "wrong",
    [
        {"action": "C"},
        {"actions": ()},
        {"actions": (ACTIONS[0], ACTIONS[0])},
        {"propensity": 0.0},
        {"propensity": 1.0001},
        {"propensity": float("nan")},
        {"propensity": True},
        {"reward": float("inf")},
        {"reward": "1"},
        {"context": {"x": float("nan")}},
        {"context": {"x": [1]}},
        {"context": {1: 1.0}},
    ],
    ids=str,
)
def test_feedback_is_valid_or_does_not_exist(wrong: dict[str, Any]) -> None:
    right: dict[str, Any] = {
        "context": {},
        "actions": ACTIONS,
        "action": "A",
        "propensity": 0.5,
        "reward": 1.0,
    }
    Feedback(**right)
    with pytest.raises(PolicyError):
        Feedback(**{**right, **wrong})


def test_feedback_keeps_its_own_context() -> None:
    """So what was checked is what is learned, and a batch is learned whole."""
    given: dict[str, float | str | bool | None] = {"hour": 4}
    row = Feedback(given, ACTIONS, "A", 0.5, 1.0)
    given["hour"] = float("nan")
    assert dict(row.context) == {"hour": 4}
    make_policy("lin_ucb").learn([row])


@pytest.mark.parametrize("kind", ["lin_ucb", "lin_ts", "thompson_gaussian", "vw"])
def test_the_numbers_of_numpy_are_numbers(kind: str) -> None:
    plain, numpy = make_policy(kind), make_policy(kind)
    plain.learn([Feedback({"x": 3, "y": 0.5}, ACTIONS, "A", 0.5, 2.0)])
    context: dict[str, Any] = {"x": np.int64(3), "y": np.float32(0.5)}
    reward: Any = np.int32(2)
    numpy.learn([Feedback(context, ACTIONS, "A", np.float32(0.5).item(), reward)])
    assert numpy.dumps() == plain.dumps()
    np.testing.assert_array_equal(
        numpy.pmf(context, ACTIONS), plain.pmf({"x": 3, "y": 0.5}, ACTIONS)
    )


def test_an_action_keeps_its_own_features_and_hashes_by_id() -> None:
    given: dict[str, float | str | bool | None] = {"depth": 4}
    action = Action("A", given)
    given["depth"] = 9
    assert dict(action.features) == {"depth": 4}
    assert hash(action) == hash(Action("A"))
    for bad in ("", "a b", "x" * 65, "a\n"):
        with pytest.raises(PolicyError, match="action id"):
            Action(bad)
    with pytest.raises(PolicyError, match="depth"):
        Action("A", {"depth": float("nan")})


def repacked(kind: str, **changes: Any) -> bytes:
    policy = make_policy(kind)
    policy.learn([Feedback({"x": 1.0}, ACTIONS, "A", 0.5, 1.0)])
    read = snapshots.unpack(policy.dumps())
    parts = {"parameters": read.parameters, "state": read.state, "arrays": read.arrays}
    return snapshots.pack(kind, **{k: {**v, **changes.get(k, {})} for k, v in parts.items()})


@pytest.mark.parametrize(
    ("kind", "changes", "says"),
    [
        ("uniform", {"state": {"x": 1}}, "the kind has none"),
        ("lin_ucb", {"parameters": {"alpha": -1}}, "alpha"),
        ("lin_ucb", {"state": {"actions": ["A", "B"]}}, "not f8"),
        ("lin_ucb", {"state": {"actions": "A"}}, "snapshot.state"),
        ("lin_ucb", {"state": {"extra": 1}}, "snapshot.state"),
        ("lin_ucb", {"state": {"sums": [{"residual": -1.0}]}}, "residual"),
        ("lin_ucb", {"state": {"rewards": {"total": float("nan")}}}, "rewards"),
        ("lin_ucb", {"state": {"rewards": {"origin": 1e200}}}, "no reward"),
        ("lin_ucb", {"arrays": {"model_0_covariance": np.full((1, 2, 2), np.nan)}}, "not finite"),
        ("lin_ucb", {"arrays": {"model_0_covariance": -np.ones((1, 2, 2))}}, "not positive"),
        ("lin_ucb", {"arrays": {"model_0_coefficients": np.ones((1, 3))}}, "coefficients"),
        ("thompson_beta", {"state": {"actions": ["A", "A"]}}, "statistics"),
        ("thompson_beta", {"arrays": {"statistics": -np.ones((1, 3))}}, "negative"),
    ],
)
def test_a_snapshot_of_another_form_is_refused(kind: str, changes: Any, says: str) -> None:
    with pytest.raises(PolicyError, match=says):
        load_policy(repacked(kind, **changes))


def test_a_snapshots_digest_is_the_sha256_of_its_bytes() -> None:
    """The digest of "abc" is FIPS 180-2's own example."""
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert snapshot_digest(b"abc") == expected


def test_importing_policies_stays_light() -> None:
    heavy = (
        "{'pandas', 'pyarrow', 'sklearn', 'statsmodels', 'matplotlib', 'vowpalwabbit', 'mabwiser'}"
    )
    program = (
        f"import sys, policies; policies.make_policy('lin_ts'); print({heavy} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": ":".join(sys.path)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "set()"
