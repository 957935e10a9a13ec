"""The contract that every kind of policy passes."""

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare

from policies import (
    POLICY_KINDS,
    Action,
    Contexts,
    Feedback,
    PolicyError,
    draw,
    load_policy,
    snapshot_digest,
)
from tests.policies.cases import ACTIONS, CASES, Case, contexts, feedback

every_kind = pytest.mark.parametrize(
    "case", CASES, ids=[f"{c.kind}-{i}" for i, c in enumerate(CASES)]
)


def test_the_suite_covers_every_kind() -> None:
    assert {case.kind for case in CASES} == set(POLICY_KINDS)


@every_kind
def test_a_pmf_sums_to_one_and_is_never_negative(case: Case) -> None:
    for policy in (case.make(), case.trained()):
        for context in contexts(30, seed=2):
            pmf = policy.pmf(context, ACTIONS)
            assert pmf.dtype == np.float64
            assert pmf.shape == (len(ACTIONS),)
            assert abs(pmf.sum() - 1.0) <= 1e-9
            assert (pmf >= 0.0).all()


@every_kind
def test_a_pmf_reorders_with_its_actions(case: Case) -> None:
    for policy in (case.make(), case.trained()):
        for context in contexts(10, seed=3):
            pmf = policy.pmf(context, ACTIONS)
            order = [2, 0, 3, 1]
            moved = policy.pmf(context, [ACTIONS[i] for i in order])
            np.testing.assert_allclose(moved, pmf[order], rtol=0, atol=1e-6)


@every_kind
def test_a_pmf_over_fewer_actions_is_a_pmf(case: Case) -> None:
    policy = case.trained()
    for context in contexts(10, seed=4):
        pmf = policy.pmf({**context, "segment.new": True}, ACTIONS[:2])
        assert pmf.shape == (2,)
        assert abs(pmf.sum() - 1.0) <= 1e-9


@every_kind
def test_a_prediction_leaves_no_trace(case: Case) -> None:
    for policy in (case.make(), case.trained()):
        before = policy.dumps()
        first = policy.pmf(contexts(1, seed=5)[0], ACTIONS)
        policy.pmfs(contexts(20, seed=6), ACTIONS)
        policy.expected(contexts(1, seed=7)[0], ACTIONS)
        first[:] = 9.0
        assert policy.dumps() == before
        again = policy.pmf(contexts(1, seed=5)[0], ACTIONS)
        assert abs(again.sum() - 1.0) <= 1e-9


@every_kind
def test_predictions_between_lessons_change_no_byte(case: Case) -> None:
    log = feedback(40, seed=8)
    quiet, asked = case.make(), case.make()
    for item in log:
        asked.pmf(item.context, item.actions)
        asked.learn([item])
    quiet.learn(log)
    assert asked.dumps() == quiet.dumps()


@every_kind
def test_many_contexts_at_once_give_the_same_pmfs(case: Case) -> None:
    for policy in (case.make(), case.trained()):
        batch = contexts(50, seed=9)
        rows = np.array([policy.pmf(context, ACTIONS) for context in batch])
        np.testing.assert_allclose(policy.pmfs(batch, ACTIONS), rows, rtol=0, atol=1e-9)
        whole = [{**context, "revenue": context.get("revenue")} for context in batch]
        rows = np.array([policy.pmf(context, ACTIONS) for context in whole])
        columns = Contexts({name: [context[name] for context in whole] for name in whole[0]})
        np.testing.assert_allclose(policy.pmfs(columns, ACTIONS), rows, rtol=0, atol=1e-9)
        assert policy.pmfs([], ACTIONS).shape == (0, len(ACTIONS))


@every_kind
def test_expected_is_absent_or_finite(case: Case) -> None:
    expected = case.trained().expected(contexts(1, seed=10)[0], ACTIONS)
    assert expected is None or (expected.shape == (4,) and np.isfinite(expected).all())


@every_kind
def test_asking_for_both_at_once_gives_what_asking_for_each_gives(case: Case) -> None:
    policy = case.trained()
    for context in contexts(5, seed=11):
        pmf, expected = policy.pmf_and_expected(context, ACTIONS)
        np.testing.assert_array_equal(pmf, policy.pmf(context, ACTIONS))
        np.testing.assert_array_equal(expected, policy.expected(context, ACTIONS))


@every_kind
def test_a_snapshot_read_back_decides_the_same(case: Case) -> None:
    for policy in (case.make(), case.trained()):
        data = policy.dumps()
        loaded = load_policy(data)
        assert loaded.kind == policy.kind
        assert loaded.dumps() == data
        for context in contexts(20, seed=11):
            assert (loaded.pmf(context, ACTIONS) == policy.pmf(context, ACTIONS)).all()


@every_kind
def test_a_policy_tells_whether_it_resumes_exactly(case: Case) -> None:
    for policy in (case.make(), case.trained(), load_policy(case.trained().dumps())):
        assert policy.resumable is case.resumable


@pytest.mark.parametrize(
    "case",
    [c for c in CASES if c.resumable],
    ids=[f"{c.kind}-{i}" for i, c in enumerate(CASES) if c.resumable],
)
def test_learning_resumes_exactly(case: Case) -> None:
    log = feedback(90, seed=12)
    whole = case.make()
    whole.learn(log)
    for split in (0, 1, 37, 90):
        part = case.make()
        part.learn(log[:split])
        part = load_policy(part.dumps())
        part.learn(log[split:])
        assert snapshot_digest(part.dumps()) == snapshot_digest(whole.dumps())


@every_kind
def test_how_a_log_is_batched_changes_nothing(case: Case) -> None:
    log = feedback(60, seed=13)
    digests = set()
    for size in (1, 7, 60):
        policy = case.make()
        for start in range(0, len(log), size):
            policy.learn(log[start : start + size])
        digests.add(snapshot_digest(policy.dumps()))
    assert len(digests) == 1


@every_kind
def test_the_order_of_a_contexts_keys_changes_nothing(case: Case) -> None:
    log = feedback(30, seed=14)
    turned = [
        Feedback(
            dict(reversed(list(f.context.items()))), f.actions, f.action, f.propensity, f.reward
        )
        for f in log
    ]
    one, other = case.make(), case.make()
    one.learn(log)
    other.learn(turned)
    for item, mirror in zip(log, turned, strict=True):
        np.testing.assert_array_equal(
            one.pmf(item.context, ACTIONS), other.pmf(mirror.context, ACTIONS)
        )
    assert one.dumps() == other.dumps()


@every_kind
@pytest.mark.parametrize(
    ("actions", "says"),
    [((), "actions is empty"), ((ACTIONS[0], ACTIONS[1], ACTIONS[0]), "more than once")],
)
def test_no_action_or_one_twice_is_refused(
    case: Case, actions: tuple[Action, ...], says: str
) -> None:
    policy = case.trained()
    before = policy.dumps()
    context = contexts(1, seed=15)[0]
    with pytest.raises(PolicyError, match=says):
        policy.pmf(context, actions)
    with pytest.raises(PolicyError, match=says):
        policy.pmfs([context], actions)
    assert policy.dumps() == before


UNREADABLE: tuple[Any, ...] = (math.nan, math.inf, -math.inf, 10**400, [1], {"a": 1}, b"x", 1j)


@pytest.mark.parametrize("value", UNREADABLE, ids=repr)
@pytest.mark.parametrize(
    "case",
    [c for c in CASES if c.reads],
    ids=[f"{c.kind}-{i}" for i, c in enumerate(CASES) if c.reads],
)
def test_an_unreadable_value_is_refused_and_changes_nothing(case: Case, value: Any) -> None:
    policy = case.trained()
    before = policy.dumps()
    good = {"hour": 3, "segment.vip": False}
    bad = {**good, case.reads or "": value}
    for ask in (
        lambda: policy.pmf(bad, ACTIONS),
        lambda: policy.pmfs([good, bad], ACTIONS),
        lambda: policy.learn([Feedback(bad, ACTIONS, "A", 0.5, 1.0)]),
    ):
        with pytest.raises(PolicyError):
            ask()
    assert policy.dumps() == before


@every_kind
def test_a_batch_with_anything_but_feedback_teaches_nothing(case: Case) -> None:
    policy = case.trained()
    before = policy.dumps()
    strange: Any = {"reward": 1.0}
    with pytest.raises(PolicyError, match=r"feedback\[2\]"):
        policy.learn([*feedback(2, seed=16), strange])
    assert policy.dumps() == before


@every_kind
def test_an_action_never_learned_from_can_be_eligible(case: Case) -> None:
    pmf = case.trained().pmf(
        contexts(1, seed=17)[0], [*ACTIONS, Action("fresh", {"depth": 2, "value": 4})]
    )
    assert pmf.shape == (5,)
    assert abs(pmf.sum() - 1.0) <= 1e-9


@every_kind
def test_damaged_snapshots_are_refused(case: Case) -> None:
    data = case.trained().dumps()
    rng = np.random.default_rng(18)
    cuts = [0, 1, 31, 32, 33, len(data) // 2, len(data) - 1]
    damaged = [data[:cut] for cut in cuts] + [data + b"\0"]
    for _ in range(20):
        flipped = bytearray(data)
        flipped[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        damaged.append(bytes(flipped))
    for bad in damaged:
        with pytest.raises(PolicyError, match="snapshot"):
            load_policy(bad)


@every_kind
def test_served_frequencies_equal_the_pmf(case: Case) -> None:
    policy = case.trained()
    pmf = policy.pmf({"hour": 3, "member": True, "segment.new": True}, ACTIONS)
    assert_frequencies(pmf, np.random.default_rng(19))


def assert_frequencies(pmf: Any, rng: np.random.Generator, n: int = 20_000) -> None:
    """χ² of n draws against the pmf at the 1e-4 level; an impossible action is never drawn."""
    drawn = np.bincount([draw(pmf, u) for u in rng.random(n)], minlength=len(pmf))
    possible = pmf > 0.0
    assert drawn[~possible].sum() == 0
    if possible.sum() > 1:
        assert chisquare(drawn[possible], n * pmf[possible]).pvalue > 1e-4
