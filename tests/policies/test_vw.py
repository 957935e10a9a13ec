"""The Vowpal Wabbit adapter: its text, its guards and its saved models."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from vowpalwabbit import Workspace

from policies import Action, Context, Feedback, PolicyError, load_policy, make_policy, snapshots
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
            text = policy._shared({name: value})
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


def test_the_adapter_predicts_as_the_library_does_from_the_same_text() -> None:
    policy, log = vw(), feedback(50, seed=1)
    options = "--quiet --cb_explore_adf --squarecb --gamma_scale 10 --gamma_exponent 0.5 -b 10"
    raw = Workspace(options + " --cb_type mtr -q ca")
    for item in log:
        lines = [policy._line(action) for action in item.actions]
        shared = policy._shared(item.context)
        np.testing.assert_allclose(
            policy.pmf(item.context, item.actions), raw.predict([shared, *lines]), atol=1e-6
        )
        drawn = [action.id for action in item.actions].index(item.action)
        lines[drawn] = f"0:{-item.reward}:{item.propensity} {lines[drawn]}"
        raw.learn([shared, *lines])
        policy.learn([item])


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
