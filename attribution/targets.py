"""Targets read against a log: checked once, and turned into the weights that estimators ask for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from attribution.errors import AttributionError, refuse_rows
from attribution.intervals import blocks
from attribution.log import EvaluationLog, as_numbers, checked, numbers

FloatArray = npt.NDArray[np.float64]
Target = npt.ArrayLike | str
Mixture = Literal["naive", "balanced", "weighted"]


@dataclass(frozen=True, eq=False)
class Predicted:
    """What a reward model expects of every action in each row of a log, ``q_hat`` (n, k)."""

    q_hat: FloatArray

    @cached_property
    def range(self) -> tuple[float, float]:
        """The smallest and largest prediction."""
        return float(self.q_hat.min()), float(self.q_hat.max())


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """One target as a log sees it.

    ``pmf`` (n, k), or None for a target that is known at the logged actions only; ``weight`` (n,)
    its probability of the logged action over the logged one; ``expected`` for each reward model
    given Σ_a π(a|x_i) q̂(x_i, a), (n,).
    """

    name: str
    pmf: FloatArray | None
    weight: FloatArray
    expected: Mapping[Predicted, FloatArray]

    def whole(self, estimator: str) -> FloatArray:
        """The (n, k) pmf, which ``estimator`` needs.

        Raises
        ------
        AttributionError
            If the target is a column.
        """
        if self.pmf is None:
            raise AttributionError(
                f"`targets.{self.name}` is a column, which {estimator} cannot use. "
                "Pass its (n, k) pmf."
            )
        return self.pmf


@dataclass(frozen=True, slots=True, eq=False)
class Readings:
    """All targets as a log sees them, and r_i − q̂(x_i, a_i) of each reward model, (n,)."""

    of: Mapping[str, Reading]
    residual: Mapping[Predicted, FloatArray]


def read(
    targets: Mapping[str, Target],
    log: EvaluationLog,
    propensity: FloatArray,
    models: Mapping[str, Predicted],
) -> Readings:
    """What each target and reward model says of each row; all their matrices are read but once.

    Parameters
    ----------
    models
        By the name of an estimator that needs it, its reward model.

    Raises
    ------
    AttributionError
        If a target is no pmf over the eligible actions, or a weight is above the log's largest.
    """
    pmfs = {
        name: as_numbers(f"targets.{name}", target)
        for name, target in targets.items()
        if not isinstance(target, str)
    }
    used = dict.fromkeys(models.values())
    # One piece of memory is had again from the last report where several small ones are not.
    columns = iter(np.empty((len(targets) + len(used) * (1 + len(pmfs)), log.n)))
    weight = {name: next(columns) for name in targets}
    residual = {model: next(columns) for model in used}
    expected = {name: {model: next(columns) for model in used} for name in pmfs}
    checks = (checked(f"targets.{name}", pmf, log) for name, pmf in pmfs.items())
    for rows, *_ in zip(*checks, strict=True):
        action = log.action[rows]
        for model, left in residual.items():
            np.subtract(log.reward[rows], drawn(model.q_hat[rows], action), out=left[rows])
        for name, pmf in pmfs.items():
            weight[name][rows] = drawn(pmf[rows], action)
            for model, found in expected[name].items():
                np.einsum("ij,ij->i", pmf[rows], model.q_hat[rows], out=found[rows])
    for name, target in targets.items():
        if isinstance(target, str):
            weight[name][:] = _column_of(name, target, log, models)
        for model, found in expected.get(name, {}).items():
            # Nought times what is not finite is not finite either: no pass of its own is needed.
            if not np.isfinite(found.sum()):
                wrong = ~np.isfinite(model.q_hat.sum(axis=1))
                refuse_rows(wrong, "q_hat", "is not finite", "Predict every action.")
        weight[name] /= propensity
        if weight[name].max() > log.max_weight * (1 + 1e-9):
            refuse_rows(
                weight[name] > log.max_weight * (1 + 1e-9),
                f"targets.{name}",
                f"has a weight above `max_weight` ({log.max_weight:g})",
                "Declare the largest weight that is possible.",
                weight[name],
            )
    return Readings(
        {
            name: Reading(name, pmfs.get(name), weight[name], expected.get(name, {}))
            for name in targets
        },
        residual,
    )


def _column_of(
    name: str, target: str, log: EvaluationLog, models: Mapping[str, Predicted]
) -> FloatArray:
    """π(a_i|x_i) from the log's own columns, (n,)."""
    if log.columns is None:
        raise AttributionError(
            f"`targets.{name}` names a column, but the log was not read from a frame. "
            "Pass an (n, k) pmf."
        )
    if models:
        raise AttributionError(
            f"`targets.{name}` is a column, which {', '.join(models)} cannot use. "
            "Pass its (n, k) pmf."
        )
    chance = numbers(log.columns, target, f"targets.{name}")
    refuse_rows(
        ~((chance >= 0) & (chance <= 1)),
        f"targets.{name}",
        "is not in [0, 1]",
        "The column must hold the target's probability of the logged action.",
        chance,
    )
    return chance


def ranges(
    predicted: tuple[float, float] | None, reward_range: tuple[float, float] | None
) -> tuple[tuple[float, float], tuple[float, float]]:
    """What base and gain of a row can be, given the ranges of predictions and of the reward."""
    low, high = reward_range or (math.nan, math.nan)
    if predicted is None:
        return (0.0, 0.0), (low, high)
    least, most = predicted
    return (least, most), (low - most, high - least)


def drawn(block: FloatArray, action: npt.NDArray[np.intp]) -> FloatArray:
    """Each row's entry of the action that was drawn, (rows,)."""
    if not block.flags.c_contiguous:
        return block[np.arange(len(block)), action]
    # Half the time of the line above.
    at = np.arange(0, block.size, block.shape[1])
    at += action
    found: FloatArray = block.reshape(-1).take(at)
    return found


def propensities(log: EvaluationLog, mixture: Mixture) -> FloatArray:
    """The probability by which each row is weighted, (n,).

    ``balanced`` takes what all loggers together would have drawn, Σ_l (n_l / n) p_l(a_i|x_i).

    References
    ----------
    Agarwal, Basu, Schnabel & Joachims (2017), Effective Evaluation Using Logged Bandit Feedback
    from Multiple Loggers, KDD.

    Raises
    ------
    AttributionError
        If the loggers, or their probabilities of all rows' actions, were not logged.
    """
    if mixture == "naive":
        return log.propensity
    if log.logger is None:
        raise AttributionError(
            f'`mixture` is "{mixture}" but the log names no `logger`. Name who drew each row.'
        )
    if mixture == "weighted":
        return log.propensity
    if log.logger_propensity is None:
        raise AttributionError(
            '`mixture` is "balanced" but the log has no `logger_propensity`: each logger\'s '
            'probability of each row\'s action. Pass it, or use "weighted".'
        )
    share = np.bincount(log.logger, minlength=log.logger_propensity.shape[1]) / log.n
    mixed: FloatArray = log.logger_propensity @ share
    return mixed


def logger_shares(total: FloatArray, logger: npt.NDArray[np.intp]) -> FloatArray:
    """How much each row counts where loggers are weighted by inverse variance, (n,), mean one.

        h_l = (1 / σ_l²) / Σ_j (n_j / n) / σ_j²

    References
    ----------
    Agarwal, Basu, Schnabel & Joachims (2017), section 5.

    Raises
    ------
    AttributionError
        If a logger's rows show no spread, so that its variance is unknown.
    """
    count = np.bincount(logger)
    mean = np.bincount(logger, weights=total) / count
    squares = np.bincount(logger, weights=(total - mean[logger]) ** 2)
    still = (count < 2) | (squares <= 0)
    if still.any():
        raise AttributionError(
            f'`mixture` is "weighted" but logger {int(still.argmax())} (of {len(count)}) shows no '
            'spread in its rows, so its variance is unknown. Use "balanced" or "naive".'
        )
    precision = (count - 1) / squares
    share: FloatArray = (precision / (precision @ count / len(logger)))[logger]
    return share


def matches(reading: Reading, log: EvaluationLog) -> FloatArray:
    """One where the deterministic target would have drawn the logged action, else zero, (n,).

    References
    ----------
    Li, Chu, Langford & Wang (2011), Unbiased Offline Evaluation of Contextual-Bandit-Based News
    Article Recommendation Algorithms, WSDM.

    Raises
    ------
    AttributionError
        If the target is not deterministic, or the logging policy not uniform.
    """
    chosen: FloatArray = np.round(reading.weight * log.propensity, 12)
    refuse_rows(
        (chosen != 0) & (chosen != 1),
        f"targets.{reading.name}",
        "is neither 0 nor 1",
        'replay compares draws with what a deterministic target would do. Use "snips".',
        chosen,
    )
    refuse_rows(
        np.abs(log.propensity - log.propensity[0]) > 1e-9,
        "propensity",
        "differs from that of row 0",
        'replay is right only where all actions were drawn alike. Use "snips".',
        log.propensity,
    )
    return chosen


def embedding_weights(reading: Reading, log: EvaluationLog) -> FloatArray:
    """Weights of the action's embedding in place of the action itself, (n,).

        w(x, e) = Σ_a π(a|x) p(e|a) / Σ_a p(a|x) p(e|a)

    with p(e|a) the share of the action's rows that had this embedding, which is exact where an
    action has but one. Unbiased only if the action moves the reward through its embedding alone.

    References
    ----------
    Saito & Joachims (2022), Off-Policy Evaluation for Large Action Spaces via Embeddings, ICML.

    Raises
    ------
    AttributionError
        If the log has no embedding, or no pmf.
    """
    target = reading.whole("mips")
    if log.embedding is None or log.pmf is None:
        raise AttributionError(
            "`estimators` names 'mips' but the log has no "
            f"`{'embedding' if log.embedding is None else 'pmf'}`. Give it both."
        )
    codes = int(log.embedding.max()) + 1
    count = np.bincount(log.action * codes + log.embedding, minlength=log.k * codes)
    drawn = np.maximum(np.bincount(log.action, minlength=log.k), 1)
    given = count.reshape(log.k, codes) / drawn[:, None]
    weight = np.empty(log.n)
    for rows in blocks(log.n, log.k):
        likelihood = given[:, log.embedding[rows]].T
        weight[rows] = np.einsum("ij,ij->i", target[rows], likelihood) / np.einsum(
            "ij,ij->i", log.pmf[rows], likelihood
        )
    return weight
