"""Logs whose policy learned: shares, forward-fitted models, coverage and refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from attribution import AttributionError, EvaluationLog, cross_fit, evaluate, fit_earlier
from attribution.adaptive import context_shares, snapshot_shares
from attribution.targets import read
from tests.attribution.worlds import at_least
from tests.study.ope import SIX, learned

FloatArray = npt.NDArray[np.float64]


def contextual(rng: np.random.Generator) -> tuple[EvaluationLog, FloatArray, float, list[Any]]:
    """Eight batches of 150 rows, two contexts, three actions, ε-greedy for each context.

    The log, a target that depends on the context, its value, and every snapshot's pmf at all rows.
    """
    chance = np.array([[0.2, 0.5, 0.4], [0.6, 0.3, 0.35]])
    batches, size, k = 8, 150, 3
    x = rng.integers(0, 2, batches * size)
    count, total = np.ones((2, k)), np.full((2, k), 0.5)
    action, reward = np.empty(len(x), np.intp), np.empty(len(x))
    snapshots = []
    for batch in range(batches):
        rows = np.arange(batch * size, (batch + 1) * size)
        pmf = np.full((2, k), 0.2 / k)
        pmf[[0, 1], (total / count).argmax(axis=1)] += 0.8
        snapshots.append(pmf)
        for i in rows:
            action[i] = rng.choice(k, p=pmf[x[i]])
        reward[rows] = rng.random(size) < chance[x[rows], action[rows]]
        np.add.at(count, (x[rows], action[rows]), 1)
        np.add.at(total, (x[rows], action[rows]), reward[rows])
    logger = np.arange(len(x)) // size
    pmf = np.array(snapshots)[logger, x]
    log = EvaluationLog(
        (0, 1, 2),
        action,
        reward,
        pmf[np.arange(len(x)), action],
        pmf=pmf,
        context=pd.DataFrame({"x": x}),
        time=np.datetime64("2026-01-01", "us") + np.arange(len(x)).astype("timedelta64[m]"),
        logger=logger,
        reward_range=(0, 1),
        max_weight=15.0,
    )
    target = np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]])
    history = [snapshot[x] for snapshot in snapshots]
    return log, target[x], float((target * chance).sum(axis=1).mean()), history


def test_shares_are_one_over_the_deviation_that_weights_give_and_leave_out_the_row_itself() -> None:
    log, target, _, _ = contextual(np.random.default_rng(0))
    share = snapshot_shares(read({"t": target}, log, log.propensity, {}).of["t"], log)
    assert log.pmf is not None
    each = (target**2 / log.pmf).sum(axis=1)
    hand = [1 / np.sqrt(np.delete(each[:150], i).mean()) for i in (0, 77)]
    assert share[[0, 77]] == pytest.approx(hand, rel=1e-12)


def test_an_adaptively_weighted_value_is_worked_by_hand() -> None:
    log, target, _, history = contextual(np.random.default_rng(1))
    q_hat = np.random.default_rng(2).random((log.n, 3))
    report = evaluate(
        log,
        {"t": target},
        ["aw_aipw", "caw_aipw"],
        q_hat=q_hat,
        history=history,
        interval="jackknife",
    )
    rows = np.arange(log.n)
    weight = target[rows, log.action] / log.propensity
    gamma = (target * q_hat).sum(axis=1) + weight * (log.reward - q_hat[rows, log.action])
    h = snapshot_shares(read({"t": target}, log, log.propensity, {}).of["t"], log)
    plain, by_context = report.results
    assert plain.value == pytest.approx(h @ gamma / h.sum(), rel=1e-12)
    variance = (h**2 @ (gamma - plain.value) ** 2) / h.sum() ** 2
    assert plain.se == pytest.approx(np.sqrt(variance), rel=2e-3)
    every = np.array([1 / np.sqrt((target**2 / pmf).sum(axis=1)) for pmf in history])
    assert log.logger is not None
    all_rows = every[log.logger]  # h_t(X_s), (n, n)
    z = all_rows.sum(axis=0)
    b = np.diag(all_rows) / z * gamma
    assert by_context.value == pytest.approx(b.sum(), rel=1e-9)
    own = ((b - (all_rows / z) @ b) ** 2).sum()
    assert by_context.se == pytest.approx(np.sqrt(own), rel=2e-3)


@pytest.mark.parametrize("name", ["aw_aipw", "caw_aipw"])
def test_contextual_adaptive_logs_are_covered(name: str) -> None:
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(60):
        log, target, truth, history = contextual(rng)
        report = evaluate(log, {"t": target}, [name], reward_model="mean", history=history)
        [row] = report.results
        assert report.diagnostics["t"].adaptive
        assert "aw_aipw" not in report.diagnostics["t"].reason
        hits += row.low <= truth <= row.high
    assert at_least(hits, 60, 0.95)


def test_predictions_from_earlier_rows_do_not_see_later_ones() -> None:
    log, _, _, _ = contextual(np.random.default_rng(4))
    changed = EvaluationLog(
        log.actions,
        log.action,
        np.where(np.arange(log.n) < 600, log.reward, 1 - log.reward),
        log.propensity,
        context=log.context,
        time=log.time,
        reward_range=(0, 1),
    )
    models: list[Any] = ["mean", "ridge"]
    for model in models:
        before, after = fit_earlier(log, model, 4), fit_earlier(changed, model, 4)
        # 600 rows are two of four blocks; the third is predicted from those alone.
        np.testing.assert_allclose(before[:900], after[:900])
        assert not np.allclose(before[900:], after[900:])


def test_a_shuffled_log_is_put_in_the_order_of_time() -> None:
    log, _, _, _ = contextual(np.random.default_rng(5))
    order = np.random.default_rng(6).permutation(log.n)
    assert log.time is not None
    shuffled = EvaluationLog(
        log.actions,
        log.action[order],
        log.reward[order],
        log.propensity[order],
        time=log.time[order],
        reward_range=(0, 1),
    )
    plain = EvaluationLog(
        log.actions, log.action, log.reward, log.propensity, time=log.time, reward_range=(0, 1)
    )
    np.testing.assert_allclose(fit_earlier(shuffled, "mean"), fit_earlier(plain, "mean")[order])
    assert fit_earlier(plain, "mean")[0] == pytest.approx([0.5] * 3)


def test_gradient_boosting_learns_what_no_line_does() -> None:
    rng = np.random.default_rng(7)
    x = rng.uniform(-1, 1, 600)
    action = rng.integers(0, 2, 600)
    truth = np.column_stack([np.abs(x), 1 - np.abs(x)])
    frame = pd.DataFrame({"a": action, "r": truth[np.arange(600), action], "x": x})
    log = EvaluationLog.from_frame(frame, action="a", reward="r", propensity=0.5, context=["x"])
    boosted = np.abs(cross_fit(log, "gradient_boosting", folds=2) - truth).mean()
    assert boosted < 0.06
    assert boosted < np.abs(cross_fit(log, "ridge", folds=2) - truth).mean() / 4


def test_plain_estimators_stay_weak_beside_an_adaptive_one() -> None:
    drawn = learned(SIX, np.full(6, 1 / 6), 10, 100, 0.3)(np.random.default_rng(8))
    found = evaluate(drawn.log, {"t": drawn.target}, ["ips", "aw_aipw"]).diagnostics["t"]
    assert found.verdict == "weak"
    assert "see aw_aipw" in found.reason
    assert found.drift > 0


def test_what_an_adaptive_estimate_needs_is_refused_by_name() -> None:
    log, target, _, history = contextual(np.random.default_rng(9))
    bare = EvaluationLog(log.actions, log.action, log.reward, log.propensity)
    reading = read({"t": target}, log, log.propensity, {}).of["t"]
    with pytest.raises(AttributionError, match="'aw_aipw' but the log has no `pmf`"):
        snapshot_shares(reading, bare)
    with pytest.raises(AttributionError, match="needs `history`"):
        evaluate(log, {"t": target}, ["caw_aipw"])
    with pytest.raises(AttributionError, match="`history` holds 7 snapshots and `logger` 8"):
        context_shares(reading, log, history[:7])
    with pytest.raises(AttributionError, match=r"`history.0` does not sum to one"):
        context_shares(reading, log, [history[0] * 2, *history[1:]])
    unnamed = EvaluationLog(
        log.actions, log.action, log.reward, log.propensity, pmf=log.pmf, context=log.context
    )
    with pytest.raises(AttributionError, match="has a context but no `logger`"):
        snapshot_shares(reading, unnamed)
    with pytest.raises(AttributionError, match='"anytime", which aw_aipw has no proof for'):
        evaluate(log, {"t": target}, ["aw_aipw"], interval="anytime", reward_model="mean")
