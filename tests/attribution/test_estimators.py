"""Estimators beyond the first four: against hand-worked sums, limits and known truths."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from attribution import AttributionError, EvaluationLog, evaluate
from attribution.estimators import ESTIMATORS, optimistically_shrunk, sub_gaussian, switched
from tests.attribution.worlds import heavy, mild

FloatArray = npt.NDArray[np.float64]
BIASED = ["dm", "clipped_ips", "switch_dr", "dros", "sg_ips", "sg_dr", "mips"]
TUNED = [name for name, each in ESTIMATORS.items() if each.tuning]


def single(count: int) -> npt.NDArray[np.intp]:
    return np.ones(count, dtype=np.intp)


def with_pmf(log: EvaluationLog, pmf: FloatArray, **more: Any) -> EvaluationLog:
    """The same log with its pmf."""
    return EvaluationLog(
        log.actions,
        log.action,
        log.reward,
        log.propensity,
        pmf=np.broadcast_to(pmf, (log.n, log.k)),
        reward_range=log.reward_range,
        **more,
    )


def test_where_weights_are_not_transformed_the_estimators_are_those_they_come_from() -> None:
    world = mild(0.5)
    log = world.log(np.random.default_rng(0), single(800))
    target = {"t": world.target_for(log)}
    q_hat = np.random.default_rng(1).random((log.n, log.k))
    plain = evaluate(log, target, ["ips", "dr"], q_hat=q_hat, interval="jackknife").results
    neutral = {name: each.tuning.unbiased for name, each in ESTIMATORS.items() if each.tuning}
    found = evaluate(log, target, TUNED, q_hat=q_hat, tuning=neutral).results
    for row in found:
        origin = plain["dr" in row.estimator or row.estimator == "dros"]
        assert row.value == pytest.approx(origin.value, rel=1e-12), row.estimator


def test_sndr_is_the_model_plus_the_self_normalised_correction() -> None:
    world = mild(0.5)
    log = world.log(np.random.default_rng(2), single(500))
    q_hat = np.random.default_rng(3).random((log.n, log.k))
    [row] = evaluate(log, {"t": world.target_for(log)}, ["sndr"], q_hat=q_hat).results
    weight = world.target[log.action] / log.propensity
    residual = log.reward - q_hat[np.arange(log.n), log.action]
    hand = (world.target_for(log) * q_hat).sum(axis=1).mean() + weight @ residual / weight.sum()
    assert row.value == pytest.approx(hand, rel=1e-12)


def test_transformed_weights_are_worked_by_hand() -> None:
    weight = np.array([0.0, 0.5, 2.0, 10.0])
    np.testing.assert_allclose(switched(weight, 2.0), [0, 0.5, 2, 0])
    np.testing.assert_allclose(optimistically_shrunk(weight, 4.0), [0, 8 / 17, 1, 40 / 104])
    np.testing.assert_allclose(sub_gaussian(weight, 0.5), [0, 2 / 3, 4 / 3, 20 / 11])


@pytest.mark.parametrize("interval", ["auto", "cressie_read", "bernstein", "anytime"])
def test_biased_estimators_say_so_whatever_interval_is_asked_for(interval: Any) -> None:
    world = mild(0.5)
    drawn = world.log(np.random.default_rng(4), single(600))
    log = with_pmf(drawn, world.logging, embedding=drawn.action // 2, max_weight=9.0)
    report = evaluate(log, {"t": world.target_for(log)}, BIASED, interval=interval, against="all")
    assert set(report.table()["interval"]) == {"jackknife, bias not covered"}
    assert set(report.comparisons()["interval"]) == {"jackknife, bias not covered"}
    assert report.comparisons()[["p_value", "p_adjusted"]].isna().all(axis=None)


def test_biased_estimators_never_carry_the_verdict() -> None:
    """The verdict is that of the weights, whatever the biased estimators look like."""
    world = heavy(0.5)
    log = world.log(np.random.default_rng(5), single(1000), declared=False)
    target = {"t": world.target_for(log)}
    calm = evaluate(log, target, ["dm", "clipped_ips"], tuning={"clipped_ips": 1.0})
    assert calm.diagnostics["t"].verdict == "weak"


def test_slope_keeps_the_weights_where_clipping_shows_a_bias() -> None:
    """Clipped at two, a target that is logged once in 42 is worth a tenth; SLOPE must see it."""
    world = heavy(0.86)
    log = world.log(np.random.default_rng(6), single(20_000))
    [row] = evaluate(log, {"t": world.target_for(log)}, ["clipped_ips"]).results
    assert row.hyperparameter > world.max_weight / 2
    assert "SLOPE" in row.note
    assert "warning" not in row.note


def test_slope_takes_the_narrowest_where_clipping_changes_nothing_and_warns_of_the_edge() -> None:
    world = mild(0.5)
    log = world.log(np.random.default_rng(7), single(2000))
    [row] = evaluate(log, {"t": world.logging[None].repeat(log.n, 0)}, ["clipped_ips"]).results
    assert row.hyperparameter == np.inf
    grid = [50.0, 20.0, 8.0]
    [row] = evaluate(
        log, {"t": world.target_for(log)}, ["clipped_ips"], tuning={"clipped_ips": grid}
    ).results
    assert row.note.startswith("λ = 50 by SLOPE over 3 values; warning: this is the edge")


def test_replay_is_the_mean_reward_of_the_rows_that_match() -> None:
    rng = np.random.default_rng(8)
    frame = pd.DataFrame({"a": rng.integers(0, 3, 900), "r": rng.random(900)})
    log = EvaluationLog.from_frame(frame, action="a", reward="r", propensity=1 / 3)
    [row] = evaluate(log, {"one": log.always(1)}, ["replay"]).results
    assert row.value == pytest.approx(frame.loc[frame["a"] == 1, "r"].mean(), rel=1e-12)
    with pytest.raises(AttributionError, match="is neither 0 nor 1 in 900 of 900 rows"):
        evaluate(log, {"u": log.uniform()}, ["replay"])
    world = mild(0.5)
    uneven = world.log(rng, single(100), declared=False)
    with pytest.raises(AttributionError, match="`propensity` differs from that of row 0"):
        evaluate(uneven, {"one": uneven.always(1)}, ["replay"])


def test_mips_is_right_where_the_embedding_carries_all_of_the_reward() -> None:
    """Two hundred actions in four categories: its error is less than half of that of IPS."""
    rng = np.random.default_rng(9)
    k, n = 200, 4000
    category = np.arange(k) % 4
    logging, target = rng.dirichlet(np.ones(k)), rng.dirichlet(np.ones(k) * 0.3)
    logging = 0.9 * logging + 0.1 / k
    logging /= logging.sum()
    chance = np.array([0.1, 0.3, 0.5, 0.8])[category]
    truth = float(target @ chance)
    errors = {"ips": 0.0, "mips": 0.0}
    for _ in range(20):
        action = rng.choice(k, p=logging, size=n).astype(np.intp)
        log = EvaluationLog(
            tuple(range(k)),
            action,
            (rng.random(n) < chance[action]).astype(float),
            logging[action],
            pmf=np.broadcast_to(logging, (n, k)),
            embedding=category[action],
        )
        for row in evaluate(log, {"t": np.broadcast_to(target, (n, k))}, list(errors)).results:
            errors[row.estimator] += (row.value - truth) ** 2
    assert errors["mips"] < errors["ips"] / 4
    assert np.sqrt(errors["mips"] / 20) < 0.02


def test_mips_needs_embeddings_and_a_pmf() -> None:
    log = mild(0.5).log(np.random.default_rng(10), single(50))
    with pytest.raises(AttributionError, match="'mips' but the log has no `embedding`"):
        evaluate(log, {"u": log.uniform()}, ["mips"])


def two_loggers(
    rng: np.random.Generator,
) -> tuple[EvaluationLog, FloatArray, float, FloatArray]:
    """A log of two loggers, one far from the target and one near; the target and its value."""
    chance = np.array([0.2, 0.5, 0.9])
    policies = np.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]])
    target = np.array([0.05, 0.15, 0.8])
    logger = np.repeat([0, 1], [600, 400]).astype(np.intp)
    action = np.array([rng.choice(3, p=policies[each]) for each in logger], dtype=np.intp)
    log = EvaluationLog(
        (0, 1, 2),
        action,
        (rng.random(1000) < chance[action]).astype(float),
        policies[logger, action],
        logger=logger,
        logger_propensity=policies[:, action].T.copy(),
        reward_range=(0, 1),
    )
    return log, np.broadcast_to(target, (1000, 3)), float(target @ chance), policies


def test_a_balanced_mixture_of_loggers_is_worked_by_hand() -> None:
    log, target, _, policies = two_loggers(np.random.default_rng(11))
    [row] = evaluate(log, {"t": target}, ["ips"], mixture="balanced", interval="jackknife").results
    mixed = np.array([0.6, 0.4]) @ policies
    hand = (target[0] / mixed)[log.action] @ log.reward / log.n
    assert row.value == pytest.approx(hand, rel=1e-12)


def test_mixtures_are_right_and_those_that_know_their_loggers_less_spread() -> None:
    rng = np.random.default_rng(12)
    found: dict[Any, list[float]] = {"naive": [], "balanced": [], "weighted": []}
    for _ in range(200):
        log, target, truth, _ = two_loggers(rng)
        for mixture, values in found.items():
            report = evaluate(log, {"t": target}, ["ips"], mixture=mixture, interval="jackknife")
            assert report.diagnostics["t"].verdict != "not_estimable", mixture
            values.append(report.results[0].value - truth)
    spread = {name: np.std(values) for name, values in found.items()}
    assert max(spread["balanced"], spread["weighted"]) < spread["naive"] / 1.5
    for name in ("naive", "balanced"):
        assert abs(np.mean(found[name])) < 4 * spread[name] / np.sqrt(200), name


def test_a_mixture_needs_to_know_its_loggers() -> None:
    log, target, _, _ = two_loggers(np.random.default_rng(13))
    bare = EvaluationLog(log.actions, log.action, log.reward, log.propensity)
    with pytest.raises(AttributionError, match='`mixture` is "weighted" but the log names no'):
        evaluate(bare, {"t": target}, ["ips"], mixture="weighted")
    named = EvaluationLog(log.actions, log.action, log.reward, log.propensity, logger=log.logger)
    with pytest.raises(AttributionError, match='"balanced" but the log has no `logger_prop'):
        evaluate(named, {"t": target}, ["ips"], mixture="balanced")
    with pytest.raises(AttributionError, match=r"`mixture` is 'optimal'\. Known: naive"):
        evaluate(log, {"t": target}, ["ips"], mixture="optimal")  # type: ignore[arg-type]  # the fault


def test_a_hyper_parameter_that_is_not_one_is_refused() -> None:
    log = mild(0.5).log(np.random.default_rng(14), single(50))
    for tuning, message in (
        ({"ips": 3.0}, "`tuning` names 'ips', which has no hyper-parameter. Those that have: cl"),
        ({"sg_ips": [0.1, 2.0]}, r"`tuning.sg_ips` is \[0.1, 2.0\]. It must be numbers from 0 to"),
        ({"dros": []}, r"`tuning.dros` is \[\]"),
        ({"dros": float("nan")}, "`tuning.dros` is nan"),
    ):
        with pytest.raises(AttributionError, match=message):
            evaluate(log, {"u": log.uniform()}, ["ips"], tuning=tuning)
