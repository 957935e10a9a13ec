"""Off-policy evaluation against references, known truths and invariants."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from attribution import AttributionError, EvaluationLog, cross_fit, evaluate
from attribution.diagnostics import calibration, is_adaptive
from attribution.reward_models import MOST_CATEGORIES, encode, unit_folds
from attribution.trials import CRESSIE_READ
from tests.attribution.worlds import World, heavy, mild, shared_data

FloatArray = npt.NDArray[np.float64]
ALL = ["ips", "snips", "dm", "dr"]
# Our names, and those in expected.json.
PEERS = {
    "ips": "ipw",
    "snips": "snipw",
    "dm": "dm",
    "dr": "dr",
    "sndr": "sndr",
    "clipped_ips": "ipw_clip10",
    "switch_dr": "switch-dr_lam10",
    "dros": "dr-os_lam10",
    "sg_ips": "sg-ipw_lam0.01",
    "sg_dr": "sg-dr_lam0.01",
}
ONE = np.ones


def rows(count: int) -> npt.NDArray[np.intp]:
    return np.ones(count, dtype=np.intp)


@pytest.mark.parametrize(
    ("source", "case"), [("random", "all:random->bts"), ("bts", "all:bts->random")]
)
def test_values_on_the_open_bandit_data_are_those_of_open_bandit_pipeline(
    source: str, case: str
) -> None:
    """Reference: Open Bandit Pipeline 0.5.7 with its "tab" reward model, in expected.json."""
    folder = shared_data("obd_all")
    frame = pd.read_csv(folder / f"{source}.csv.gz")
    expected = json.loads((folder / "expected.json").read_text())[case]
    position = frame["position"].to_numpy() - 1
    log = EvaluationLog.from_frame(
        frame,
        action="item_id",
        reward="click",
        propensity="propensity_score",
        actions=range(80),
    )
    target = (
        np.load(folder / "bts_action_dist.npy").T[position] if source == "random" else log.uniform()
    )
    cell = position * 80 + log.action
    drawn = np.bincount(cell, minlength=240)
    clicks = np.bincount(cell, weights=log.reward, minlength=240)
    tab = ((clicks + 100 * log.reward.mean()) / (drawn + 100)).reshape(3, 80)[position]
    report = evaluate(
        log,
        {"target": target},
        list(PEERS),
        q_hat=tab,
        tuning={"clipped_ips": 10, "switch_dr": 10, "dros": 10, "sg_ips": 0.01, "sg_dr": 0.01},
    )
    found = dict(zip(PEERS, report.table()["value"], strict=True))
    for mine, theirs in PEERS.items():
        assert found[mine] == pytest.approx(expected["tab"][theirs], rel=0, abs=1e-9), mine
    grid = [10, 50, 100, 500, 1000, 5000, 10000, np.inf]
    tuned = evaluate(
        log,
        {"target": target},
        ["switch_dr", "dros"],
        q_hat=tab,
        tuning={"switch_dr": grid, "dros": grid},
    )
    for row in tuned.results:
        theirs = PEERS[row.estimator].replace("lam10", "slope")
        assert row.value == pytest.approx(expected["tab"][theirs], rel=0, abs=1e-9)
        assert row.hyperparameter == 10
        assert "warning: this is the edge of the grid" in row.note
    assert report.diagnostics["target"].ess == pytest.approx(expected["weights"]["ess"], rel=1e-9)
    assert report.diagnostics["target"].max_weight == pytest.approx(expected["weights"]["max"])


def test_without_units_the_jackknife_of_ips_is_students_t_on_the_weighted_rewards() -> None:
    """Reference: scipy's t interval of a mean."""
    world = mild(0.5)
    log = world.log(np.random.default_rng(0), rows(400))
    row = evaluate(log, {"t": world.target_for(log)}, ["ips"], interval="jackknife").results[0]
    weighted = log.reward * world.target[log.action] / log.propensity
    low, high = stats.t.interval(0.95, 399, weighted.mean(), stats.sem(weighted))
    assert (row.value, row.se) == pytest.approx((weighted.mean(), stats.sem(weighted)), rel=1e-10)
    assert (row.low, row.high) == pytest.approx((low, high), rel=1e-10)


def test_the_standard_error_of_snips_is_the_delta_methods_up_to_order_one_over_n() -> None:
    """Reference: SE = √Σ w²(r − V)² / Σ w, worked from the log."""
    world = mild(0.5)
    log = world.log(np.random.default_rng(1), rows(20_000))
    row = evaluate(log, {"t": world.target_for(log)}, ["snips"]).results[0]
    weight = world.target[log.action] / log.propensity
    value = float(weight @ log.reward / weight.sum())
    delta = np.sqrt(weight**2 @ (log.reward - value) ** 2) / weight.sum()
    assert row.value == pytest.approx(value, rel=1e-12)
    assert row.se == pytest.approx(delta, rel=1e-3)


def test_a_reward_shifted_by_a_hundred_million_keeps_its_standard_error() -> None:
    world = mild(0.5)
    log = world.log(np.random.default_rng(3), rows(500), declared=False)
    shifted = EvaluationLog(log.actions, log.action, log.reward + 1e8, log.propensity)
    target = {"t": world.target_for(log)}
    plain = evaluate(log, target, ["snips"]).results[0]
    large = evaluate(shifted, target, ["snips"]).results[0]
    assert large.se == pytest.approx(plain.se, rel=1e-6)
    assert large.value - 1e8 == pytest.approx(plain.value, abs=1e-6)


@given(
    seed=st.integers(0, 2**32 - 1), n=st.integers(2, 60), k=st.integers(1, 5), units=st.booleans()
)
@settings(max_examples=60, deadline=None)
def test_ips_under_the_logging_policy_is_the_mean_reward(
    seed: int, n: int, k: int, units: bool
) -> None:
    rng = np.random.default_rng(seed)
    pmf = rng.dirichlet(np.ones(k), size=n) * 0.9 + 0.1 / k
    action = np.array([rng.choice(k, p=each) for each in pmf], dtype=np.intp)
    unit = np.unique(rng.integers(0, n, n), return_inverse=True)[1] if units else None
    if unit is not None and unit.max() == 0:
        unit = None
    reward = rng.normal(size=n)
    log = EvaluationLog(
        tuple(range(k)), action, reward, pmf[np.arange(n), action], unit=unit, pmf=pmf
    )
    q_hat = rng.normal(size=(n, k))
    report = evaluate(
        log, {"same": pmf}, ["ips", "snips"], against="logging", q_hat=q_hat, interval="jackknife"
    )
    if report.diagnostics["same"].verdict == "not_estimable":
        assert report.table()["value"].isna().all()
        return
    np.testing.assert_allclose(report.table()["value"], reward.mean(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(report.comparisons()["difference"], 0, atol=1e-12)
    np.testing.assert_allclose(report.comparisons()["se"], 0, atol=1e-12)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_the_order_of_rows_changes_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "unit": rng.integers(0, 60, 300),
            "action": rng.choice(list("abc"), 300),
            "reward": rng.normal(size=300),
            "p": 1 / 3,
            "x": rng.normal(size=300),
        }
    )
    pmf = rng.dirichlet(np.ones(3), size=300)
    order = rng.permutation(300)
    reports = []
    for each, target in ((frame, pmf), (frame.iloc[order], pmf[order])):
        log = EvaluationLog.from_frame(
            each, action="action", reward="reward", propensity="p", unit="unit", context=["x"]
        )
        reports.append(evaluate(log, {"t": target}, ALL, against="logging"))
    columns = ["value", "se", "low", "high"]
    for first, second in zip(*(r.table()[columns].to_numpy() for r in reports), strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-6)
    first, second = (r.table()[columns].to_numpy()[:2] for r in reports)
    np.testing.assert_allclose(first, second, rtol=1e-9, atol=1e-12)


def test_renaming_the_units_changes_no_interval_of_ips() -> None:
    world = mild(0.4)
    log = world.log(np.random.default_rng(4), np.full(80, 3), taste=0.1)
    assert log.unit is not None
    renamed = EvaluationLog(
        log.actions, log.action, log.reward, log.propensity, unit=log.unit.max() - log.unit
    )
    target = {"t": world.target_for(log)}
    first, second = (
        evaluate(each, target, ["ips"], interval="jackknife").results[0] for each in (log, renamed)
    )
    assert (first.low, first.high) == pytest.approx((second.low, second.high), rel=1e-12)


def test_repeating_every_row_of_each_unit_leaves_the_interval_as_it_was() -> None:
    """Ten copies of a unit's rows are no more evidence than one."""
    world = mild(0.4)
    log = world.log(np.random.default_rng(5), rows(200))
    again = np.repeat(np.arange(200), 10)
    copied = EvaluationLog(
        log.actions, log.action[again], log.reward[again], log.propensity[again], unit=again
    )
    once = evaluate(log, {"t": world.target_for(log)}, ["snips"], interval="jackknife")
    tenfold = evaluate(copied, {"t": world.target_for(copied)}, ["snips"], interval="jackknife")
    assert tenfold.results[0].se == pytest.approx(once.results[0].se, rel=1e-9)
    assert (tenfold.results[0].n, tenfold.results[0].n_units) == (2000, 200)


def test_a_log_with_enormous_weights_is_not_estimable_and_gets_no_value() -> None:
    """Like Open Bandit "women, BTS→random": ESS 2 of 10,000, largest weight 21,739."""
    rng = np.random.default_rng(6)
    n, k = 10_000, 46
    propensity = np.full(n, 0.9)
    propensity[:2] = (1 / k) / 21_739, (1 / k) / 9_000
    log = EvaluationLog(
        actions=tuple(range(k)),
        action=np.concatenate([np.arange(k), rng.integers(0, k, n - k)]).astype(np.intp),
        reward=(rng.random(n) < 0.005).astype(float),
        propensity=propensity,
        reward_range=(0, 1),
    )
    report = evaluate(log, {"random": log.uniform()}, ALL, against="logging")
    found = report.diagnostics["random"]
    assert found.verdict == "not_estimable"
    assert found.ess < 3
    assert "21,739" in found.reason
    assert report.table()[["value", "se", "low", "high"]].isna().all(axis=None)
    assert report.comparisons()["difference"].isna().all()
    assert report.to_json()["results"][0]["value"] is None


def test_a_target_among_actions_never_drawn_is_not_estimable() -> None:
    world = mild(0.5)
    log = world.log(np.random.default_rng(7), rows(300))
    wider = EvaluationLog((*log.actions, "new"), log.action, log.reward, log.propensity)
    target = np.hstack([np.broadcast_to(world.target, (300, 10)) * 0.5, np.full((300, 1), 0.5)])
    found = evaluate(wider, {"t": target}).diagnostics["t"]
    assert found.verdict == "not_estimable"
    assert "50.0%" in found.reason


def test_choices_that_the_log_could_not_have_made_in_their_context_are_not_estimable() -> None:
    """A deterministic logger: every action was drawn, but each only where it was certain."""
    rng = np.random.default_rng(20)
    x = rng.integers(0, 2, 2000)
    frame = pd.DataFrame({"a": x, "r": rng.random(2000), "p": 1.0, "half": 0.5})
    log = EvaluationLog.from_frame(frame, action="a", reward="r", propensity="p")
    report = evaluate(log, {"pmf": log.uniform(), "column": "half"}, ["ips"])
    for found in report.diagnostics.values():
        assert found.verdict == "not_estimable"
        assert found.unsupported == pytest.approx(0.5)
    partly = EvaluationLog.from_frame(
        frame.assign(p=np.where(rng.random(2000) < 0.5, 1.0, 0.6)),
        action="a",
        reward="r",
        propensity="p",
    )
    assert evaluate(partly, {"c": "half"}, ["ips"]).diagnostics["c"].verdict == "not_estimable"


def test_a_rare_action_drawn_twenty_times_too_often_is_found_by_calibration() -> None:
    pmf = np.tile([0.001, 0.999], (5000, 1))
    action = np.where(np.arange(5000) < 106, 0, 1)
    rewards = np.random.default_rng(21).random(5000)
    for unit in (None, np.arange(5000) // 2):
        log = EvaluationLog((0, 1), action, rewards, pmf[0][action], unit, pmf=pmf)
        found = evaluate(log, {"same": pmf}, ["ips"]).diagnostics["same"]
        assert found.calibration_p < 1e-6
        assert found.verdict == "not_estimable"


def test_calibration_of_rare_and_sticky_actions_alarms_seldom() -> None:
    """At α = .001 more than 4 false alarms in 400 logs have probability below 1e-3."""
    rng = np.random.default_rng(22)
    pmf = np.tile([0.001, 0.004, 0.995], (1500, 1))
    unit = np.arange(1500) // 3
    alarms = 0
    for _ in range(200):
        sticky = rng.choice(3, p=pmf[0], size=500).astype(np.intp)[unit]
        single = rng.choice(3, p=pmf[0], size=1500).astype(np.intp)
        for action, units in ((sticky, unit), (single, None)):
            log = EvaluationLog((0, 1, 2), action, np.ones(1500), pmf[0][action], units, pmf=pmf)
            alarms += calibration(log) < 1e-3
    assert alarms <= 4


def test_propensities_with_which_the_actions_were_not_drawn_are_found_by_calibration() -> None:
    rng = np.random.default_rng(8)
    pmf = np.tile([0.5, 0.3, 0.2], (5000, 1))
    action = rng.choice(3, p=[0.4, 0.4, 0.2], size=5000).astype(np.intp)
    log = EvaluationLog((0, 1, 2), action, rng.random(5000), pmf[0][action], pmf=pmf)
    found = evaluate(log, {"u": log.uniform()}).diagnostics["u"]
    assert found.calibration_p < 1e-6
    assert found.verdict == "not_estimable"


def test_calibration_alarms_seldom_when_the_propensities_are_right() -> None:
    """At α = .001 and 400 logs more than 4 false alarms have probability below 1e-3."""
    rng = np.random.default_rng(9)
    pmf = np.tile([0.5, 0.3, 0.15, 0.05], (500, 1))
    alarms = 0
    for _ in range(400):
        action = rng.choice(4, p=pmf[0], size=500).astype(np.intp)
        log = EvaluationLog((0, 1, 2, 3), action, np.ones(500), pmf[0][action], pmf=pmf)
        alarms += evaluate(log, {"u": log.uniform()}, ["ips"]).diagnostics["u"].calibration_p < 1e-3
    assert alarms <= 4


def test_sticky_draws_that_fill_many_rows_are_not_mistaken_for_wrong_propensities() -> None:
    rng = np.random.default_rng(19)
    action = np.repeat(rng.choice(3, p=[0.5, 0.3, 0.2], size=200), 30).astype(np.intp)
    pmf = np.tile([0.5, 0.3, 0.2], (6000, 1))
    log = EvaluationLog(
        (0, 1, 2), action, rng.random(6000), pmf[0][action], np.repeat(np.arange(200), 30), pmf=pmf
    )
    assert evaluate(log, {"u": log.uniform()}).diagnostics["u"].calibration_p > 0.01


def test_ample_mild_evidence_is_ok_and_uses_the_jackknife() -> None:
    world = mild(0.5)
    log = world.log(np.random.default_rng(10), rows(5000))
    report = evaluate(log, {"t": world.target_for(log)})
    assert report.diagnostics["t"].verdict == "ok"
    assert set(report.table()["interval"]) == {"jackknife"}


def test_heavy_weights_get_the_cressie_read_interval_if_the_range_is_declared() -> None:
    world = heavy(0.86)
    rng = np.random.default_rng(11)
    declared, bare = (world.log(rng, rows(1000), declared=each) for each in (True, False))
    report = evaluate(declared, {"t": world.target_for(declared)})
    assert set(report.table()["interval"]) == {CRESSIE_READ}
    weak = evaluate(bare, {"t": world.target_for(bare)}).diagnostics["t"]
    assert weak.verdict == "weak"
    assert "reward_range" in weak.reason


def test_a_log_made_by_one_snapshot_after_another_is_adaptive_and_weak() -> None:
    world = mild(0.5)
    log = world.log(np.random.default_rng(12), rows(5000))
    time = np.datetime64("2026-01-01", "us") + np.arange(5000).astype("timedelta64[m]")
    common: dict[str, Any] = {
        "actions": log.actions,
        "action": log.action,
        "reward": log.reward,
        "propensity": log.propensity,
        "time": time,
    }
    learned = EvaluationLog(**common, logger=np.arange(5000) // 1000)
    split = EvaluationLog(**common, logger=np.arange(5000) % 2)
    target = {"t": world.target_for(log)}
    assert evaluate(learned, target).diagnostics["t"].verdict == "weak"
    assert "learned while it logged" in evaluate(learned, target).diagnostics["t"].reason
    assert evaluate(split, target).diagnostics["t"].verdict == "ok"


def test_snapshots_that_follow_each_other_beside_a_constant_control_are_adaptive() -> None:
    rng = np.random.default_rng(23)
    time = np.datetime64("2026-01-01", "us") + np.arange(2000).astype("timedelta64[m]")
    control = rng.random(2000) < 0.5
    learner = 1 + np.arange(2000) // 400
    common: dict[str, Any] = {
        "actions": (0, 1),
        "action": rng.integers(0, 2, 2000),
        "reward": rng.random(2000),
        "propensity": np.full(2000, 0.5),
        "time": time,
    }
    beside = np.where(control, 0, learner)
    assert is_adaptive(EvaluationLog(**common, logger=beside))
    assert not is_adaptive(EvaluationLog(**common, logger=control.astype(np.intp)))
    assert not is_adaptive(EvaluationLog(**common, logger=beside, adaptive=False))
    assert is_adaptive(EvaluationLog(**common, adaptive=True))


def test_the_rank_test_of_loggers_is_kruskal_and_walliss() -> None:
    """Reference: scipy.stats.kruskal at the edge of the level, with ties, in small logs too."""
    rng = np.random.default_rng(24)
    judged = set()
    logs = [(300, shift) for shift in (0, 6, 9, 12, 15, 30)] + [(24, 35)] * 200
    for n, shift in logs:
        logger = rng.permutation(np.arange(n) % 3)
        minute = rng.integers(0, 60, n) + shift * (logger == 2)
        time = np.datetime64("2026-01-01", "us") + minute.astype("timedelta64[m]")
        log = EvaluationLog(
            ("a",), np.zeros(n, int), rng.random(n), np.ones(n), time=time, logger=logger
        )
        reference = stats.kruskal(*(minute[logger == each] for each in range(3))).pvalue
        assert is_adaptive(log) == (reference < 1e-3)
        judged.add(bool(reference < 1e-3))
    assert judged == {True, False}


def test_a_column_is_target_enough_for_ips_and_equals_the_whole_pmf() -> None:
    world = mild(0.5)
    log = world.log(np.random.default_rng(13), rows(2000))
    frame = pd.DataFrame(
        {
            "a": log.action,
            "r": log.reward,
            "p": log.propensity,
            "pi": world.target[log.action],
        }
    )
    read = EvaluationLog.from_frame(frame, action="a", reward="r", propensity="p")
    report = evaluate(
        read, {"column": "pi", "pmf": world.target_for(log)}, ["ips", "snips"], against="column"
    )
    values = report.table().pivot_table(index="estimator", columns="target", values="value")
    np.testing.assert_allclose(values["column"], values["pmf"], rtol=1e-12)
    with pytest.raises(AttributionError, match="is a column, which dr cannot use"):
        evaluate(read, {"column": "pi"}, ["dr"])


def test_a_paired_difference_is_narrower_than_two_values_apart() -> None:
    world = mild(0.5)
    log = world.log(np.random.default_rng(14), rows(5000))
    near = 0.9 * world.target + 0.1 * world.logging
    report = evaluate(
        log,
        {"a": world.target_for(log), "b": np.broadcast_to(near, (log.n, log.k))},
        ["ips"],
        against="b",
    )
    first, second = report.results
    [pair] = report.comparisons_made
    assert pair.difference == pytest.approx(first.value - second.value, rel=1e-12)
    assert pair.se < 0.2 * (first.se + second.se)


def test_comparisons_come_by_target_and_say_where_a_side_is_weak() -> None:
    world = heavy(0.86)
    log = world.log(np.random.default_rng(26), rows(1000))
    targets = {"b": world.target_for(log), "a": np.broadcast_to(world.logging, (log.n, log.k))}
    report = evaluate(log, targets, ["ips", "snips"], against="all")
    found = [(row.target, row.against, row.estimator) for row in report.comparisons_made]
    assert found == [
        (*pair, name)
        for pair in (("b", "a"), ("b", "logging"), ("a", "logging"))
        for name in ("ips", "snips")
    ]
    weak = {name for name, each in report.diagnostics.items() if each.verdict == "weak"}
    assert weak == {"b"}
    for row in report.comparisons_made:
        assert row.advice.startswith("b is weak, read why first; ") == (
            "b" in (row.target, row.against)
        )


def test_cross_fitted_predictions_never_saw_the_rows_own_unit() -> None:
    """Changing the rewards of one unit leaves the predictions for that unit as they were."""
    rng = np.random.default_rng(15)
    frame = pd.DataFrame(
        {
            "unit": np.repeat(np.arange(60), 5),
            "action": rng.integers(0, 3, 300),
            "reward": rng.integers(0, 2, 300).astype(float),
            "p": 1 / 3,
            "age": rng.normal(size=300),
            "device": pd.Series(rng.choice(["tv", "phone", ""], 300)).replace("", None),
        }
    )

    def log_of(table: pd.DataFrame, context: list[str]) -> EvaluationLog:
        return EvaluationLog.from_frame(
            table, action="action", reward="reward", propensity="p", unit="unit", context=context
        )

    changed = frame.copy()
    mine = (changed["unit"] == 7).to_numpy()
    changed.loc[mine, "reward"] = 1 - changed.loc[mine, "reward"]
    for context in ([], ["age", "device"]):
        before, after = cross_fit(log_of(frame, context)), cross_fit(log_of(changed, context))
        fold = unit_folds(log_of(frame, context), 5)
        same_fold = fold == fold[mine][0]
        np.testing.assert_array_equal(before[same_fold], after[same_fold])
        assert not np.allclose(before[~same_fold], after[~same_fold])


def test_a_logistic_reward_model_learns_what_depends_on_context_and_action() -> None:
    rng = np.random.default_rng(16)
    x = rng.normal(size=4000)
    action = rng.integers(0, 2, 4000)
    chance = 1 / (1 + np.exp(-np.where(action == 1, 2 * x, -2 * x)))
    frame = pd.DataFrame({"a": action, "r": rng.random(4000) < chance, "x": x})
    log = EvaluationLog.from_frame(frame, action="a", reward="r", propensity=0.5, context=["x"])
    truth = 1 / (1 + np.exp(-np.column_stack([-2 * x, 2 * x])))
    assert np.abs(cross_fit(log) - truth).mean() < 0.03
    assert log.reward_range == (0, 1)


def test_doubly_robust_is_tighter_than_ips_where_the_model_explains_the_reward() -> None:
    rng = np.random.default_rng(17)
    x = rng.normal(size=3000)
    action = rng.integers(0, 2, 3000)
    reward = 10 + x * np.where(action == 1, 1.0, -1.0) + 0.1 * rng.normal(size=3000)
    frame = pd.DataFrame({"a": action, "r": reward, "x": x})
    log = EvaluationLog.from_frame(frame, action="a", reward="r", propensity=0.5, context=["x"])
    target = np.column_stack([x < 0, x >= 0]).astype(float)
    ips, robust = evaluate(log, {"t": target}, ["ips", "dr"]).results
    truth = 10 + np.sqrt(2 / np.pi)
    assert robust.se < ips.se / 5
    assert robust.low < truth < robust.high


def test_an_empty_world_of_no_rewards_gets_no_interval_of_zero_width() -> None:
    world = World(np.zeros(10), mild(0.5).logging, mild(0.5).target)
    log = world.log(np.random.default_rng(18), rows(300))
    row = evaluate(log, {"t": world.target_for(log)}, ["ips"]).results[0]
    assert row.interval == CRESSIE_READ
    assert row.low == 0
    assert row.high > 0.005


def test_rewards_that_never_varied_get_no_interval_without_a_declared_range() -> None:
    world = mild(0.5)
    log = world.log(np.random.default_rng(25), rows(300), declared=False)
    target = {"t": world.target_for(log)}
    for constant in (0, 3):
        same = EvaluationLog(log.actions, log.action, np.full(300, constant), log.propensity)
        report = evaluate(same, target, ALL, against="logging")
        assert set(report.table()["interval"]) == {"none"}
        assert report.table()[["se", "low", "high"]].isna().all(axis=None)
        assert report.comparisons()[["se", "low", "high"]].isna().all(axis=None)
        found = report.diagnostics["t"]
        assert found.verdict == "weak"
        assert "the reward never varied, so there is no interval; declare" in found.reason


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(12, 200),
    concentration=st.sampled_from([0.1, 0.5, 5.0]),
    bounded=st.booleans(),
    name=st.sampled_from(["auto", "jackknife", "cressie_read"]),
)
@settings(max_examples=80, deadline=None)
def test_a_value_lies_within_its_own_interval(
    seed: int, n: int, concentration: float, bounded: bool, name: Any
) -> None:
    rng = np.random.default_rng(seed)
    pmf = 0.95 * rng.dirichlet(np.full(4, concentration), size=n) + 0.05 / 4
    action = np.array([rng.choice(4, p=each) for each in pmf], dtype=np.intp)
    log = EvaluationLog(
        (0, 1, 2, 3),
        action,
        (rng.random(n) < rng.choice([0.02, 0.5, 0.98])).astype(float),
        pmf[np.arange(n), action],
        unit=None if rng.random() < 0.5 else np.arange(n) // 2,
        pmf=pmf if rng.random() < 0.5 else None,
        reward_range=(0, 1),
        max_weight=80.0 if bounded else np.inf,
    )
    targets = {"a": log.uniform(), "b": rng.dirichlet(np.full(4, concentration), size=n)}
    report = evaluate(log, targets, ["ips", "snips", "dr"], against="a", interval=name)
    for row in report.results:
        assert row.interval == "none" or row.low <= row.value <= row.high
    for pair in report.comparisons_made:
        assert pair.interval == "none" or pair.low <= pair.difference <= pair.high


def test_rare_categories_share_a_column_and_an_empty_column_says_nothing() -> None:
    common = [f"c{i:02}" for i in range(MOST_CATEGORIES)]
    device = [*(common * 2), "rare", "rarer"]
    context = pd.DataFrame({"device": device, "empty": [np.nan] * len(device)})
    encoded = encode(context)
    assert encoded.shape == (len(device), MOST_CATEGORIES)
    np.testing.assert_array_equal(encoded[:, -1], [0.0] * (2 * MOST_CATEGORIES) + [1.0, 1.0])
    assert encode(context[["empty"]]).shape == (len(device), 0)
