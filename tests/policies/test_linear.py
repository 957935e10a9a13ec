"""Ridge bandits: the arithmetic against a direct solve, the encoding, and the two choices."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies import Action, Context, Feedback, Policy, Value, load_policy, make_policy
from policies.disjoint import Disjoint
from policies.encoding import Column, Encoder
from policies.errors import PolicyError
from policies.linear import LinTS, LinUCB
from policies.quadrature import largest_gaussian

A, B, C = ACTIONS = (Action("A"), Action("B"), Action("C"))


def log(n: int, seed: int, scale: float = 1.0, offset: float = 0.0) -> list[Feedback]:
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        context: Context = {
            "x": float(rng.normal()),
            "spend": float(rng.lognormal(8.0, 1.0)),
            "device": str(rng.choice(["phone", "tv"])),
            "age": None if rng.random() < 0.3 else float(rng.uniform(18, 80)),
        }
        action = str(rng.choice(["A", "B"]))
        reward = scale * (float(rng.normal()) + (context["device"] == "tv") * (action == "A"))
        rows.append(Feedback(context, ACTIONS, action, 0.5, reward + offset))
    return rows


def models(policy: Policy) -> Disjoint:
    """The models of a ridge kind."""
    assert isinstance(policy, LinUCB | LinTS)
    assert isinstance(policy._models, Disjoint)
    return policy._models


def scores(
    policy: Policy, context: Context, actions: Sequence[Action]
) -> tuple[np.ndarray, np.ndarray]:
    """Means, counted from the common one, and deviations."""
    assert isinstance(policy, LinUCB | LinTS)
    predicted = policy._models.predict(context, actions, spread=True)
    return predicted.mean, policy._deviation(predicted)


def direct_solve(
    rows: list[Feedback], encoder: Encoder, action: str, l2: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Coefficients, covariance and attained ridge objective, from the normal equations.

    Of the rewards less their mean over all actions.
    """
    drawn = [row for row in rows if row.action == action]
    X = np.array([encoder.encode(row.context)[0] for row in drawn]).reshape(-1, encoder.width)
    r = np.array([row.reward for row in drawn]) - np.mean([row.reward for row in rows])
    gram = X.T @ X + l2 * np.eye(encoder.width)
    theta = np.linalg.solve(gram, X.T @ r)
    objective = float(((r - X @ theta) ** 2).sum() + l2 * theta @ theta)
    return theta, np.linalg.inv(gram), objective


@pytest.mark.parametrize("l2", [0.1, 1.0, 30.0])
def test_updates_equal_a_closed_form_ridge_solve(l2: float) -> None:
    """Also for columns and actions that appeared only in the middle of the log."""
    rows = log(300, seed=1, offset=5.0)
    policy = make_policy("lin_ucb", alpha=0.7, l2=l2)
    policy.learn(rows)
    encoder = models(policy)._encoder
    x, unseen = encoder.encode(rows[0].context)
    assert unseen == 0.0
    solved = [direct_solve(rows, encoder, action.id, l2) for action in ACTIONS]
    mean, deviation = scores(policy, rows[0].context, ACTIONS)
    noise = np.sqrt(sum(objective for _, _, objective in solved) / len(rows))
    np.testing.assert_allclose(mean, [theta @ x for theta, _, _ in solved], rtol=1e-8)
    np.testing.assert_allclose(
        deviation, [0.7 * noise * np.sqrt(x @ P @ x) for _, P, _ in solved], rtol=1e-8
    )
    expected = policy.expected(rows[0].context, ACTIONS)
    assert expected is not None
    common = float(np.mean([row.reward for row in rows]))
    np.testing.assert_allclose(expected, mean + common, rtol=1e-12)


def test_a_value_never_seen_is_as_uncertain_before_its_column_grows_as_after() -> None:
    policy = make_policy("lin_ts")
    policy.learn(log(100, seed=2))
    fresh: Context = {"x": 0.3, "device": "watch", "plan": "gold", "level": 6, "age": 30.0}
    before = scores(policy, fresh, ACTIONS)
    models(policy)._grown(fresh)
    after = scores(policy, fresh, ACTIONS)
    np.testing.assert_allclose(before[0], after[0], rtol=1e-12)
    np.testing.assert_allclose(before[1], after[1], rtol=1e-12)


RIDGE = pytest.mark.parametrize("kind", ["lin_ucb", "lin_ts", "lin_greedy", "lin_squarecb"])


@RIDGE
def test_the_rewards_unit_changes_no_probability(kind: str) -> None:
    one, thousand = make_policy(kind), make_policy(kind)
    one.learn(log(80, seed=3))
    thousand.learn(log(80, seed=3, scale=1024.0))
    for row in log(20, seed=4):
        np.testing.assert_allclose(
            one.pmf(row.context, ACTIONS), thousand.pmf(row.context, ACTIONS), atol=1e-12
        )


@pytest.mark.parametrize("offset", [1e3, -100.0, 2.0**20])
@RIDGE
def test_adding_to_all_rewards_changes_no_probability(kind: str, offset: float) -> None:
    """Also over actions and values not yet seen, and the expectation moves by just that."""
    plain, moved = make_policy(kind), make_policy(kind)
    for before, after in zip(log(150, seed=3), log(150, seed=3, offset=offset), strict=True):
        context: Context = {**before.context, "plan": "new"}
        for seen in (before.context, context):
            np.testing.assert_allclose(
                plain.pmf(seen, ACTIONS), moved.pmf(seen, ACTIONS), rtol=0, atol=1e-8
            )
        plain.learn([before])
        moved.learn([after])
    expected = plain.expected(before.context, ACTIONS)
    expected_moved = moved.expected(before.context, ACTIONS)
    assert expected is not None
    assert expected_moved is not None
    np.testing.assert_allclose(expected_moved, expected + offset, rtol=1e-9)


@pytest.mark.parametrize("reward", [0.0, 1.0, -7.3])
@RIDGE
def test_rewards_that_never_differ_favour_no_action(kind: str, reward: float) -> None:
    policy = make_policy(kind)
    policy.learn([Feedback({"x": float(i)}, ACTIONS, "A", 0.5, reward) for i in range(5)])
    pmf = policy.pmf({"x": 1.0}, ACTIONS)
    np.testing.assert_allclose(pmf, [1 / 3, 1 / 3, 1 / 3], rtol=0, atol=1e-12)
    expected = policy.expected({"x": 1.0}, ACTIONS)
    assert expected is not None
    np.testing.assert_allclose(expected, [reward] * 3, rtol=1e-12)


def test_an_attributes_unit_changes_no_probability() -> None:
    """By a power of two exactly, and so by any factor within √2."""
    rows = log(80, seed=5)
    policies = []
    for factor in (1.0, 2.0**-20):
        policy = make_policy("lin_ts")
        for row in rows:
            spend = row.context["spend"]
            assert isinstance(spend, float)
            context = {**row.context, "spend": spend * factor}
            policy.learn([Feedback(context, ACTIONS, row.action, 0.5, row.reward)])
        policies.append(policy)
    spent = [policies[0].pmf({"spend": 3000.0}, ACTIONS)]
    spent.append(policies[1].pmf({"spend": 3000.0 * 2.0**-20}, ACTIONS))
    np.testing.assert_array_equal(spent[0], spent[1])


def test_lin_ucb_shares_alike_between_actions_never_tried() -> None:
    policy = make_policy("lin_ucb")
    np.testing.assert_array_equal(policy.pmf({"x": 1.0}, ACTIONS), [1 / 3, 1 / 3, 1 / 3])
    policy.learn([Feedback({"x": 1.0}, ACTIONS, "A", 0.5, r) for r in (-1.0, -1.1, -0.9, -1.0)])
    np.testing.assert_array_equal(policy.pmf({"x": 1.0}, ACTIONS), [0.0, 0.5, 0.5])


def test_rounding_breaks_no_tie() -> None:
    """Two actions that learned the same rows in another order differ by rounding alone."""
    rows = log(60, seed=11)
    policy = make_policy("lin_ucb")
    for action, lessons in (("A", rows), ("B", rows[::-1])):
        policy.learn([Feedback(r.context, ACTIONS, action, 0.5, r.reward) for r in lessons])
    expected = policy.expected(rows[0].context, ACTIONS[:2])
    assert expected is not None
    assert expected[0] != expected[1]
    for row in rows[:10]:
        np.testing.assert_array_equal(policy.pmf(row.context, ACTIONS[:2]), [0.5, 0.5])


def test_lin_ts_is_the_gaussian_integral_of_its_scores() -> None:
    policy = make_policy("lin_ts", alpha=0.5)
    rows = log(120, seed=6)
    policy.learn(rows)
    mean, deviation = scores(policy, rows[5].context, ACTIONS)
    best = np.random.default_rng(7).normal(mean, deviation, (400_000, 3)).argmax(axis=1)
    shares = np.bincount(best, minlength=3) / 400_000
    pmf = policy.pmf(rows[5].context, ACTIONS)
    assert np.abs(pmf - shares).max() < 4 * np.sqrt(0.25 / 400_000)
    np.testing.assert_array_equal(pmf, largest_gaussian(mean[None], deviation[None])[0])


def test_squarecb_is_the_inverse_of_the_gaps() -> None:
    rows = log(120, seed=6)
    policy = make_policy("lin_squarecb", gamma=0.3)
    policy.learn(rows)
    bounds = make_policy("lin_ucb")
    bounds.learn(rows)
    for row in rows[:10]:
        expected = policy.expected(row.context, ACTIONS)
        assert expected is not None
        gap = (expected.max() - expected) / models(bounds).noise
        share = 1.0 / (3 + 0.3 * np.sqrt(3 * 120) * gap)
        share[expected.argmax()] = 0.0
        share[expected.argmax()] = 1.0 - share.sum()
        np.testing.assert_allclose(policy.pmf(row.context, ACTIONS), share, rtol=1e-9)


def test_greedy_takes_what_it_expects_most_of() -> None:
    policy = make_policy("lin_greedy")
    policy.learn(log(120, seed=6))
    for row in log(10, seed=7):
        expected = policy.expected(row.context, ACTIONS)
        assert expected is not None
        np.testing.assert_array_equal(policy.pmf(row.context, ACTIONS), expected == expected.max())


def test_many_actions_give_the_same_scores_as_few() -> None:
    """Whether the eligible rows are gathered before or after the products."""
    many = tuple(Action(f"a{i}") for i in range(12))
    rng = np.random.default_rng(8)
    policy = make_policy("lin_ts")
    policy.learn(
        [
            Feedback({"x": float(rng.normal())}, many, f"a{i % 12}", 0.1, float(rng.normal()))
            for i in range(120)
        ]
    )
    whole = scores(policy, {"x": 0.4}, many)
    few = scores(policy, {"x": 0.4}, [many[7], many[2]])
    np.testing.assert_allclose(few[0], whole[0][[7, 2]], rtol=1e-12)
    np.testing.assert_allclose(few[1], whole[1][[7, 2]], rtol=1e-12)


def columns_of(policy: Policy) -> set[tuple[str, str, str]]:
    return {(c.type, c.attribute, c.value) for c in models(policy)._encoder.columns}


def test_columns_are_an_intercept_numbers_categories_and_missing_indicators() -> None:
    encoder = Encoder(None, max_categories=8)
    first: Context = {"hour": 6, "member": True, "device": "tv", "age": None}
    encoder.grow(first)
    assert encoder.columns == (
        Column("missing", "age", "", 1.0),
        Column("category", "device", "tv", 1.0),
        Column("number", "hour", "", 8.0),
        Column("number", "member", "", 1.0),
    )
    x, unseen = encoder.encode({"hour": 12, "member": False, "device": "tv", "age": None})
    np.testing.assert_array_equal(x, [1.0, 1.0, 1.0, 1.5, 0.0])
    assert unseen == 0.0
    x, unseen = encoder.encode({"member": True, "device": "phone", "age": 64})
    np.testing.assert_array_equal(x, [1.0, 0.0, 0.0, 0.0, 1.0])
    assert unseen == 3.0  # a missing hour, a new device and a first age, each of unit length


def test_declared_features_are_read_and_no_others() -> None:
    policy = make_policy("lin_ucb", features=["x", "age"])
    policy.learn([Feedback({"x": 2.0, "device": "tv"}, ACTIONS, "A", 0.5, 1.0)])
    assert columns_of(policy) == {("number", "x", ""), ("missing", "age", "")}
    wild: Context = {"x": 2.0, "device": float("nan")}
    assert policy.pmf(wild, ACTIONS).shape == (3,)


def test_categories_beyond_the_bound_share_a_column() -> None:
    policy = make_policy("lin_ucb", max_categories=2)
    policy.learn([Feedback({"city": f"c{i}"}, ACTIONS, "A", 0.5, 1.0) for i in range(50)])
    assert columns_of(policy) == {
        ("category", "city", "c0"),
        ("category", "city", "c1"),
        ("other", "city", ""),
    }


def test_an_attribute_that_changes_type_gets_columns_of_its_new_type() -> None:
    policy = make_policy("lin_ucb")
    policy.learn([Feedback({"size": v}, ACTIONS, "A", 0.5, 1.0) for v in (3.0, "large", None)])
    assert columns_of(policy) == {
        ("number", "size", ""),
        ("category", "size", "large"),
        ("missing", "size", ""),
    }
    again = load_policy(policy.dumps())
    assert columns_of(again) == columns_of(policy)


def test_encoding_many_contexts_equals_encoding_each() -> None:
    rng = np.random.default_rng(9)
    values: list[float | str | bool | None] = [1, 2.5, "a", "b", "c", True, False, None, 0, -7]
    names = ["p", "q", "r", "s", "t"]
    drawn = [
        {n: values[rng.integers(len(values))] for n in names if rng.random() < 0.8}
        for _ in range(200)
    ]
    uniform: list[Context] = [{"n": float(i), "k": i, "b": i % 2 == 0} for i in range(50)]
    for features in (None, ("p", "q", "u")):
        encoder = Encoder(features, max_categories=2)
        for context in [*drawn[:20], *uniform[:3]]:
            encoder.grow(context)
        for batch in (drawn, uniform, [*drawn, *uniform]):
            x, unseen = encoder.encode_many(batch)
            each = [encoder.encode(context) for context in batch]
            np.testing.assert_array_equal(x, [row for row, _ in each])
            np.testing.assert_allclose(unseen, [extra for _, extra in each], rtol=1e-12)


@pytest.mark.parametrize(
    "columns",
    [
        [Column("number", "x", "", 1.0), Column("number", "x", "", 2.0)],
        [Column("number", "x", "", 0.0)],
        [Column("number", "x", "", 5e-324)],
        [Column("number", "x", "", 1e101)],
        [Column("category", "x", "a", 1.0), Column("category", "x", "a", 1.0)],
        [Column("category", "x", v, 1.0) for v in "abc"],
        [Column("strange", "x", "", 1.0)],
    ],
)
def test_columns_that_are_no_vocabulary_are_refused(columns: list[Column]) -> None:
    with pytest.raises(PolicyError, match="no column, or one too many"):
        Encoder(None, 2, columns)


@pytest.mark.parametrize("unit", [1.0, 2.0**-40, 3e7])
def test_a_larger_number_grows_the_unit_as_if_it_had_been_so_always(unit: float) -> None:
    """The model of a log whose numbers grow is the direct solution in the units they end with."""
    rng = np.random.default_rng(12)
    rows = []
    for i in range(120):
        spend, age = float(unit * 1.12**i * rng.normal()), float(rng.normal() * (1 + i % 7))
        action = str(rng.choice(["A", "B"]))
        reward = spend / unit / 1e4 + float(rng.normal())
        rows.append(Feedback({"spend": spend, "age": age}, ACTIONS, action, 0.5, reward))
    policy = make_policy("lin_ucb", alpha=1.0)
    policy.learn(rows)
    x, _ = models(policy)._encoder.encode(rows[-1].context)
    solved = [direct_solve(rows, models(policy)._encoder, action.id, 1.0) for action in ACTIONS]
    mean, deviation = scores(policy, rows[-1].context, ACTIONS)
    noise = np.sqrt(sum(objective for _, _, objective in solved) / len(rows))
    np.testing.assert_allclose(mean, [theta @ x for theta, _, _ in solved], rtol=1e-8)
    np.testing.assert_allclose(
        deviation, [noise * np.sqrt(x @ P @ x) for _, P, _ in solved], rtol=1e-8
    )


@pytest.mark.parametrize(
    "values",
    [[1e-90, 1e99], [1e99, 1e-90], [5e-324, 1.0], [5e-324, 9e99], [1e-3, *[1e3] * 50], [-9e99]],
    ids=str,
)
@pytest.mark.parametrize("kind", ["lin_ucb", "lin_ts"])
def test_no_number_spoils_a_model(kind: str, values: list[float]) -> None:
    """A neighbour that was learned beside it still tells the actions apart."""
    policy = make_policy(kind)
    for i, value in enumerate([*values, *[1.0] * 60]):
        side, action = bool(i % 2), "AB"[i // 2 % 2]
        reward = float(side == (action == "A"))
        policy.learn([Feedback({"n": value, "side": side}, ACTIONS, action, 0.5, reward)])
    again = load_policy(policy.dumps())
    for n in (1.0, 5e-324, -9e99, 1e-90):
        pmf = again.pmf({"n": n, "side": True}, ACTIONS[:2])
        assert np.isfinite(pmf).all()
        many = again.pmfs([{"n": n, "side": True}], ACTIONS[:2])
        np.testing.assert_allclose(many[0], pmf, rtol=0, atol=1e-9)
    assert again.pmf({"n": 1.0, "side": True}, ACTIONS[:2])[0] > 0.9
    assert again.pmf({"n": 1.0, "side": False}, ACTIONS[:2])[1] > 0.9


EXTREMES = st.one_of(
    st.sampled_from([0.0, -0.0, 5e-324, -5e-324, 1e-300, 1e-90, 1.0, 3.0, 1e8, 9e99, -9e99]),
    st.floats(-9e99, 9e99),
)


@given(
    kind=st.sampled_from(["lin_ucb", "lin_ts", "thompson_gaussian"]),
    l2=st.sampled_from([1e-9, 1.0, 1e9]),
    lessons=st.lists(
        st.tuples(
            st.dictionaries(st.sampled_from("xyz"), EXTREMES | st.none() | st.booleans()),
            st.sampled_from("ABC"),
            EXTREMES,
            st.integers(1, 6),
        ),
        max_size=8,
    ),
    asked=st.dictionaries(st.sampled_from("xyzw"), EXTREMES),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_what_was_learned_can_always_be_loaded_and_asked(
    kind: str,
    l2: float,
    lessons: list[tuple[dict[str, Value], str, float, int]],
    asked: dict[str, Value],
) -> None:
    policy = make_policy(kind) if kind.startswith("thompson") else make_policy(kind, l2=l2)
    for context, action, reward, times in lessons:
        policy.learn([Feedback(context, ACTIONS, action, 0.5, reward)] * times)
    again = load_policy(policy.dumps())
    assert again.dumps() == policy.dumps()
    pmf = again.pmf(asked, ACTIONS)
    assert (pmf >= 0.0).all()
    assert abs(pmf.sum() - 1.0) <= 1e-9


def test_extreme_scales_leave_the_model_finite() -> None:
    policy = make_policy("lin_ts")
    rng = np.random.default_rng(10)
    policy.learn(
        [
            Feedback(
                {
                    "tiny": float(10.0 ** rng.uniform(-12, -6)),
                    "huge": float(10 ** rng.uniform(6, 14)),
                },
                ACTIONS,
                str(rng.choice(["A", "B", "C"])),
                0.3,
                float(rng.normal() * 1e6),
            )
            for _ in range(500)
        ]
    )
    pmf = policy.pmf({"tiny": 1e-3, "huge": 1e20}, ACTIONS)
    assert np.isfinite(pmf).all()
    assert load_policy(policy.dumps()).dumps() == policy.dumps()
