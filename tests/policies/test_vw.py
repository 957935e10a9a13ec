"""The Vowpal Wabbit adapter: its text, its guards and its saved models."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from vowpalwabbit import Workspace

from policies import (
    Action,
    Context,
    Feedback,
    PolicyError,
    apply_floor,
    load_policy,
    make_policy,
    normalise,
    snapshots,
)
from policies.vw import VowpalWabbit
from tests.policies.cases import ACTIONS, feedback

NASTY = (
    "a b",
    "a|b",
    "a:1",
    "a\nb",
    "a\r\nb",
    "|",
    "shared",
    "a=b",
    "a?",
    "%20",
    "ü",
    "'",
    "\0",
    "",
)


EXPLORERS = {
    "epsilon": "--epsilon 0.05",
    "first": "--first 1000",
    "softmax": "--softmax --lambda 1",
    "squarecb": "--squarecb --gamma_scale 10 --gamma_exponent 0.5",
    "regcb": "--regcb --mellowness 0.1",
    "regcbopt": "--regcb --regcbopt --mellowness 0.1",
    "bag": "--bag 5",
    "cover": "--cover 5",
    "rnd": "--rnd 5",
}


def vw(**parameters: Any) -> VowpalWabbit:
    policy = make_policy("vw", bits=10, **parameters)
    assert isinstance(policy, VowpalWabbit)
    return policy


def test_no_name_or_value_can_break_out_of_its_feature() -> None:
    """Every pair of name and value gives one line, one namespace, one feature, and its own text."""
    policy = vw()
    texts = set()
    for name in NASTY:
        for value in (*NASTY, 1.5, None):
            text = policy._shared({name: value}).removesuffix("\n")
            assert text.startswith("shared |c ")
            body = text.removeprefix("shared |c ")
            assert not set(body) & set(" |\n\r\t\0")
            assert body.count(":") == (1 if isinstance(value, float) else 0)
            texts.add(body)
            line = policy._line(Action("x", {name: value}))
            assert line.startswith("|a id=x ")
            assert line.count(" ") == 2
    assert len(texts) == len(NASTY) * (len(NASTY) + 2)


def test_nasty_contexts_are_learned_from_and_told_apart() -> None:
    policy = vw(exploration="epsilon", epsilon=0.0)
    contexts: list[Context] = [{"q": "a b|c:1\n"}, {"q": "a b|c:1"}]
    for _ in range(30):
        for context, good in zip(contexts, ("A", "B"), strict=True):
            for action in ("A", "B"):
                reward = float(action == good)
                policy.learn([Feedback(context, ACTIONS[:2], action, 0.5, reward)])
    assert policy.pmf(contexts[0], ACTIONS[:2])[0] > 0.99
    assert policy.pmf(contexts[1], ACTIONS[:2])[1] > 0.99


@pytest.mark.parametrize("explorer", EXPLORERS)
def test_the_adapter_predicts_as_the_library_does_from_the_same_text(explorer: str) -> None:
    """Through the library's own Python layer, which the adapter leaves out."""
    policy, log = vw(exploration=explorer), feedback(50, seed=1)
    raw = Workspace(f"--quiet --cb_explore_adf {EXPLORERS[explorer]} -b 10 --cb_type mtr -q ca")
    for item in log:
        lines = [policy._line(action) for action in item.actions]
        shared = policy._shared(item.context).rstrip()
        expected = normalise(np.array(raw.predict([shared, *lines])))
        np.testing.assert_array_equal(policy.pmf(item.context, item.actions), expected)
        drawn = [action.id for action in item.actions].index(item.action)
        lines[drawn] = f"0:{-item.reward}:{item.propensity} {lines[drawn]}"
        raw.learn([shared, *lines])
        policy.learn([item])


def test_a_pmf_that_the_library_leaves_unnormalised_is_normalised() -> None:
    """Of actions that tie, regcbopt gives each probability 1."""
    policy = vw(exploration="regcbopt")
    lines = [policy._line(action) for action in ACTIONS]
    raw = Workspace("--quiet --cb_explore_adf --regcb --regcbopt").predict(["shared |c", *lines])
    assert raw == [1.0] * 4
    assert policy.pmf({}, ACTIONS).tolist() == [0.25] * 4


def test_bag_leaves_actions_without_probability_until_a_floor_gives_them_one() -> None:
    policy = vw(exploration="bag")
    policy.learn(feedback(100, seed=5))
    pmfs = policy.pmfs([item.context for item in feedback(50, seed=6)], ACTIONS)
    assert (pmfs == 0.0).any()
    assert apply_floor(pmfs, 0.02).min() >= 0.005 - 1e-15


@pytest.mark.parametrize(
    "parameters",
    [
        {"exploration": "bag"},
        {"exploration": "cover"},
        {"exploration": "rnd"},
        {"exploration": "epsilon", "cb_type": "dr"},
    ],
)
def test_what_is_said_not_to_resume_does_not(parameters: Mapping[str, str]) -> None:
    """Were it to with a later version of the library, it could be said to."""
    log = feedback(300, seed=12)
    whole, part = vw(**parameters), vw(**parameters)
    whole.learn(log)
    part.learn(log[:137])
    again = load_policy(part.dumps())
    again.learn(log[137:])
    assert again.dumps() != whole.dumps()


def test_an_exploration_that_needs_mtr_refuses_another_cb_type() -> None:
    for exploration in ("squarecb", "regcb", "regcbopt"):
        with pytest.raises(PolicyError, match=f'must be "mtr" with {exploration}'):
            make_policy("vw", exploration=exploration, cb_type="ips")


def test_an_unsound_propensity_never_reaches_the_library() -> None:
    """Vowpal Wabbit itself learns from any of them without a word."""
    for propensity in (0.0, -0.5, 1.5, float("nan"), float("inf")):
        with pytest.raises(PolicyError, match="propensity"):
            Feedback({}, ACTIONS, "A", propensity, 1.0)
    for reward in (float("nan"), float("inf")):
        with pytest.raises(PolicyError, match="reward"):
            Feedback({}, ACTIONS, "A", 0.5, reward)


def test_an_attribute_may_change_its_type() -> None:
    policy = vw()
    for value in (3, "three", None, True, 3.5):
        policy.learn([Feedback({"hour": value}, ACTIONS, "A", 0.5, 1.0)])
        assert abs(policy.pmf({"hour": value}, ACTIONS).sum() - 1.0) <= 1e-9


def test_no_eligible_action_is_a_policy_error() -> None:
    for policy in (vw(), load_policy(vw().dumps())):
        with pytest.raises(PolicyError, match="actions is empty"):
            policy.pmf({}, ())
        with pytest.raises(PolicyError, match="more than once"):
            policy.pmfs([{}], (ACTIONS[0], ACTIONS[0]))


def test_action_features_are_used() -> None:
    """An action never shown is as good as its features say."""
    policy = vw(exploration="epsilon", epsilon=0.0)
    actions = (Action("A", {"tone": "warm"}), Action("B", {"tone": "cold"}))
    for _ in range(40):
        policy.learn([Feedback({}, actions, "A", 0.5, 1.0), Feedback({}, actions, "B", 0.5, 0.0)])
    fresh = (Action("C", {"tone": "cold"}), Action("D", {"tone": "warm"}))
    assert policy.pmf({}, fresh)[1] == 1.0


@pytest.mark.parametrize("value", [1e10, -1e90, 10**12])
def test_numbers_that_overflow_the_library_are_refused(value: float) -> None:
    policy = vw()
    before = policy.dumps()
    with pytest.raises(PolicyError, match="within ±1e9"):
        policy.pmf({"x": value}, ACTIONS)
    with pytest.raises(PolicyError, match="within ±1e9"):
        policy.learn(
            [
                Feedback({"x": 1.0}, ACTIONS, "A", 0.5, 1.0),
                Feedback({"x": value}, ACTIONS, "A", 0.5, 1.0),
            ]
        )
    with pytest.raises(PolicyError, match="reward"):
        policy.learn([Feedback({}, ACTIONS, "A", 0.5, value)])
    assert policy.dumps() == before


def test_the_largest_numbers_accepted_leave_a_pmf() -> None:
    policy = vw()
    for reward in (1e9, -1e9):
        policy.learn([Feedback({"x": reward}, ACTIONS, "A", 1e-3, reward)] * 3)
        assert abs(policy.pmf({"x": -reward}, ACTIONS).sum() - 1.0) <= 1e-9


def test_a_snapshot_holds_the_model_without_the_count_of_predictions() -> None:
    policy = vw()
    policy.learn(feedback(20, seed=2))
    before = policy.dumps()
    for item in feedback(30, seed=3):
        policy.pmf(item.context, item.actions)
    assert policy.dumps() == before


def test_a_model_made_with_other_options_is_refused() -> None:
    """VW takes its options from the model file: they must be those of the parameters."""
    snapshot = snapshots.unpack(vw(epsilon=0.1, exploration="epsilon").dumps())
    parameters = {**snapshot.parameters, "epsilon": 0.2}
    forged = snapshots.pack("vw", parameters, snapshot.state, {})
    with pytest.raises(PolicyError, match="not made with these parameters"):
        load_policy(forged)


@pytest.mark.parametrize("model", [b"", b"junk", b"\xff" * 500])
def test_bytes_that_are_no_model_never_reach_the_library(model: bytes) -> None:
    parameters = msgspec.to_builtins(vw().parameters)
    with pytest.raises(PolicyError):
        load_policy(snapshots.pack("vw", parameters, {"model": model}, {}))


def test_models_are_equal_in_another_process() -> None:
    program = (
        "from policies import make_policy, snapshot_digest\n"
        "from tests.policies.cases import CASES, feedback\n"
        "import json\n"
        "digests = []\n"
        "for case in CASES:\n"
        "    policy = case.make()\n"
        "    policy.learn(feedback(40, seed=4))\n"
        "    digests.append(snapshot_digest(policy.dumps()))\n"
        "print(json.dumps(digests))\n"
    )
    digests = {
        tuple(
            json.loads(
                subprocess.run(
                    [sys.executable, "-c", program],
                    env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
                    check=True,
                    capture_output=True,
                    text=True,
                ).stdout
            )
        )
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_a_folder_that_cannot_be_written_is_a_policy_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    policy = vw()
    policy.dumps()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    with pytest.raises(PolicyError, match="TMPDIR"):
        policy.dumps()
