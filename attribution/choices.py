"""How single choices bring their terms to the intervals that all share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from attribution.adaptive import context_shares, snapshot_shares
from attribution.diagnostics import Checks, Diagnostics, check_log, diagnose
from attribution.errors import AttributionError
from attribution.estimators import ESTIMATORS, Estimator, Evidence, on_policy
from attribution.log import EvaluationLog, as_numbers
from attribution.reward_models import ModelName, cross_fit, fit_earlier
from attribution.targets import (
    Mixture,
    Predicted,
    Reading,
    Readings,
    Target,
    embedding_weights,
    logger_shares,
    matches,
    propensities,
    ranges,
    read,
)
from attribution.trials import Sample, Setting, Trial
from attribution.tuning import slope, told

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ChoiceStudy:
    """Trials of estimators of single choices."""

    log: EvaluationLog
    setting: Setting
    targets: Mapping[str, Target]
    estimators: tuple[str, ...]
    mixture: Mixture
    tuning: Mapping[str, float | Sequence[float]]
    q_given: Predicted | None
    reward_model: ModelName
    history: tuple[npt.ArrayLike, ...] | None

    @cached_property
    def _readings(self) -> Readings:
        propensity = propensities(self.log, self.mixture)
        models = {each: q for each in self.estimators if (q := self._model(each)) is not None}
        return read(self.targets, self.log, propensity, models)

    @cached_property
    def _checks(self) -> Checks:
        return check_log(self.log)

    def diagnose(self, target: str, trials: Mapping[str, Trial]) -> Diagnostics:
        """Diagnostics of a target; its unbiased trials count."""
        reading = self._readings.of[target]
        stabilised = all(
            ESTIMATORS[each].biased or ESTIMATORS[each].shares != "equal" for each in trials
        )
        return diagnose(
            self.log,
            reading.weight,
            reading.pmf,
            self._checks,
            [trial.spread for trial in trials.values() if not trial.biased],
            self.setting,
            stabilised=stabilised or self.setting.interval == "anytime",
        )

    def _earlier(self, estimator: Estimator) -> bool:
        """Whether q̂ must come from earlier rows alone."""
        return estimator.shares != "equal" or self.setting.interval == "anytime"

    @cached_property
    def _crossed(self) -> Predicted:
        return self.q_given or Predicted(cross_fit(self.log, self.reward_model))

    @cached_property
    def _forward(self) -> Predicted:
        return self.q_given or Predicted(fit_earlier(self.log, self.reward_model))

    def _model(self, name: str) -> Predicted | None:
        """The reward model that an estimator reads, if it does."""
        estimator = ESTIMATORS[name]
        if not estimator.needs_model:
            return None
        return self._forward if self._earlier(estimator) else self._crossed

    def _evidence(self, model: Predicted | None, weight: FloatArray, reading: Reading) -> Evidence:
        reward = self.log.reward
        if model is None:
            return Evidence(reward, weight, 0.0, reward)
        return Evidence(reward, weight, reading.expected[model], self._readings.residual[model])

    def trial(self, name: str, target: str) -> Trial:
        """An estimator on a target, its hyper-parameter chosen where it has one."""
        reading = self._readings.of[target]
        estimator = ESTIMATORS[name]
        model = self._model(name)
        weight = reading.weight
        if estimator.weights == "match":
            weight = matches(reading, self.log)
        elif estimator.weights == "embedding":
            weight = embedding_weights(reading, self.log)
        made = self._made(name, self._evidence(model, weight, reading), model, reading)
        if estimator.tuning is None:
            return made
        given = self.tuning.get(name, estimator.tuning.grid)
        grid = [float(given)] if isinstance(given, int | float) else [float(g) for g in given]
        change = estimator.tuning.transform
        tried = [
            replace(
                made,
                terms=replace(made.terms, weight=change(weight, each)),
                hyperparameter=each,
                note=f"λ = {each:g}, given",
            )
            for each in grid
        ]
        if len(tried) == 1:
            return tried[0]
        chosen = slope(tried, self.setting.alpha)
        return replace(tried[chosen], note=told(grid, chosen, estimator.tuning.unbiased))

    def _made(
        self,
        name: str,
        evidence: Evidence,
        model: Predicted | None,
        reading: Reading,
    ) -> Trial:
        estimator = ESTIMATORS[name]
        terms = estimator.terms(evidence)
        log = self.log
        influence = None
        if estimator.shares == "by_snapshot":
            terms = replace(terms, share=snapshot_shares(reading, log))
        elif estimator.shares == "by_context":
            shares = context_shares(reading, log, self.history)
            influence = shares.influence(terms.total, _codes(log))
            terms = replace(terms, share=shares.own * log.n)
        elif self.mixture == "weighted":
            terms = replace(terms, share=logger_shares(terms.total, _codes(log)))
        base_range, gain_range = self._ranges(model)
        return Trial(
            self.setting,
            name,
            terms,
            biased=estimator.biased,
            gain_range=gain_range,
            base_range=base_range,
            max_weight=1.0 if estimator.weights == "match" else log.max_weight,
            pmf=reading.pmf,
            influence=influence,
        )

    def _ranges(self, model: Predicted | None) -> tuple[tuple[float, float], tuple[float, float]]:
        """What base and gain of a row can be; the predictions are not read where none asks."""
        declared = self.log.reward_range
        return ranges(None if model is None or declared is None else model.range, declared)

    def logging(self, name: str) -> Trial:
        """The logging policy itself, in terms that pair with the estimator's."""
        log = self.log
        model = self._model(name)
        residual = log.reward if model is None else self._readings.residual[model]
        base_range, gain_range = self._ranges(model)
        return Trial(
            self.setting,
            name,
            on_policy(Evidence(log.reward, log.reward, 0.0, residual)),
            biased=ESTIMATORS[name].biased,
            gain_range=gain_range,
            base_range=base_range,
            max_weight=1.0,
            pmf=log.pmf,
            is_logging=True,
        )


def choice_sample(log: EvaluationLog) -> Sample:
    """What intervals need to know of a log of single choices."""
    order = None
    most: float = 1
    if log.time is not None:
        at = log.time.astype("datetime64[us]").astype(np.int64)
        if log.unit is not None:
            first = np.full(log.n_units, np.iinfo(np.int64).max)
            np.minimum.at(first, log.unit, at)
            at = first
        order = np.argsort(at, kind="stable")
    if log.unit is not None:
        rows = np.bincount(log.unit)
        most = float(rows[0]) if (rows == rows[0]).all() else math.nan
    if log.max_rows is not None:
        most = log.max_rows
    silent = bool(np.ptp(log.reward) == 0)
    return Sample(log.n, log.n_units, log.unit, order, log.reward_range, most, silent)


def given_model(q_hat: npt.ArrayLike, log: EvaluationLog) -> Predicted:
    """The caller's own predictions.

    Raises
    ------
    AttributionError
        If they are not (n, k).
    """
    model = as_numbers("q_hat", q_hat)
    if model.shape != (log.n, log.k):
        raise AttributionError(
            f"`q_hat` has shape {model.shape}. It must be {(log.n, log.k)}: "
            "a row for each choice, a column for each of `actions`."
        )
    return Predicted(model)


def _codes(log: EvaluationLog) -> npt.NDArray[np.intp]:
    return np.arange(log.n) if log.logger is None else log.logger
