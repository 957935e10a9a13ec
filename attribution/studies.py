"""How slates and continuous actions bring their terms to the intervals that all share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from attribution.continuous import (
    CONTINUOUS_ESTIMATORS,
    ContinuousLog,
    bandwidths,
    check_expected,
    check_target,
    kernel_weights,
)
from attribution.diagnostics import Checks, Diagnostics, judge, weigh
from attribution.errors import AttributionError
from attribution.estimators import ESTIMATORS, Terms
from attribution.slates import SLATE_ESTIMATORS, Ratios, SlateLog, SlateTarget
from attribution.trials import ASYMPTOTIC, Sample, Setting, Trial
from attribution.tuning import slope, told

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

_UNCHECKED = Checks(math.nan, False, math.nan, math.nan)


def sample_of(
    reward: FloatArray, unit: IntArray | None, reward_range: tuple[float, float] | None
) -> Sample:
    """What intervals need to know of a log whose rows have no order."""
    n_units, most = len(reward), 1.0
    if unit is not None:
        rows = np.bincount(unit)
        n_units, most = len(rows), float(rows[0]) if (rows == rows[0]).all() else math.nan
    return Sample(len(reward), n_units, unit, None, reward_range, most, bool(np.ptp(reward) == 0))


@dataclass(frozen=True, slots=True, eq=False)
class SlateStudy:
    """Trials of slate estimators."""

    log: SlateLog
    setting: Setting
    targets: Mapping[str, SlateTarget]

    def trial(self, name: str, target: str) -> Trial:
        """An estimator on a target."""
        estimator = SLATE_ESTIMATORS[name]
        weighted = name == "sips"
        if not weighted and self.setting.interval not in ("auto", *ASYMPTOTIC):
            raise AttributionError(
                f'`interval` is "{self.setting.interval}", which {name} has no proof for: its '
                'terms have no single weight. Use "skew_corrected" or "bootstrap", or sips.'
            )
        sample = self.setting.sample
        setting = self.setting
        if not weighted:
            # Without a range nothing but what is seen is claimed of the terms.
            setting = replace(setting, sample=replace(sample, reward_range=None))
        return Trial(
            setting,
            name,
            estimator.terms(Ratios(self.log, self.targets[target], target)),
            gain_range=sample.reward_range or (math.nan, math.nan),
            max_weight=self.log.max_weight,
            note=f"supposes that {estimator.supposes}" if estimator.supposes else "",
        )

    def logging(self, name: str) -> Trial:
        """The logging policy's slates as they were."""
        total = self.log.reward.sum(axis=1)
        terms = Terms(0.0, np.ones_like(total), total)
        low, high = self.setting.sample.reward_range or (math.nan, math.nan)
        return Trial(self.setting, name, terms, gain_range=(low, high), is_logging=True)

    def diagnose(self, target: str, trials: Mapping[str, Trial]) -> Diagnostics:
        """Of the weights that vary most among the estimators that were asked for."""
        ratios = Ratios(self.log, self.targets[target], target)
        seen = [
            weigh(SLATE_ESTIMATORS[name].weights(ratios), self.log.unit, trial.spread.m)
            for name, trial in trials.items()
        ]
        worst = min(seen, key=lambda each: float(each["ess"]))
        return judge(worst, 0.0, _UNCHECKED, [t.spread for t in trials.values()], self.setting)


@dataclass(frozen=True, slots=True, eq=False)
class KernelStudy:
    """Trials of kernel estimators, all of which are biased by their bandwidth."""

    log: ContinuousLog
    setting: Setting
    targets: Mapping[str, npt.ArrayLike]
    q_hat: Mapping[str, npt.ArrayLike]
    tuning: Mapping[str, float | Sequence[float]]

    def trial(self, name: str, target: str) -> Trial:
        """An estimator on a target, its bandwidth chosen by SLOPE or given."""
        action = check_target(target, self.targets[target], self.log)
        given = self.tuning.get(name, bandwidths(self.log))
        grid = [float(given)] if isinstance(given, int | float) else [float(g) for g in given]
        if not grid or not all(0 < each < math.inf for each in grid):
            raise AttributionError(
                f"`tuning.{name}` is {given}. It must be bandwidths above 0, in the action's unit."
            )
        tried = [self._at(each, name, target, action) for each in sorted(grid)]
        if len(tried) == 1:
            return tried[0]
        chosen = slope(tried, self.setting.alpha)
        note = told(sorted(grid), chosen, math.nan)
        return replace(tried[chosen], note=note.replace("λ", "bandwidth"))

    def _at(self, bandwidth: float, name: str, target: str, action: FloatArray) -> Trial:
        weight = kernel_weights(self.log, action, bandwidth)
        base: FloatArray | float = 0.0
        gain = self.log.reward
        if name == "kernel_dr":
            expected = check_expected(self.q_hat.get(target), self.log, target)
            base, gain = expected[:, 0], gain - expected[:, 1]
        return Trial(
            self.setting,
            name,
            Terms(base, weight, gain, self_normalised=name == "kernel_snips"),
            biased=True,
            hyperparameter=bandwidth,
            note=f"bandwidth = {bandwidth:g}, given",
        )

    def logging(self, name: str) -> Trial:
        """The logging policy's rewards as they were."""
        terms = Terms(0.0, np.ones(self.log.n), self.log.reward)
        return Trial(self.setting, name, terms, biased=True, is_logging=True)

    def diagnose(self, target: str, trials: Mapping[str, Trial]) -> Diagnostics:  # noqa: ARG002  # as all studies
        """Of the heaviest weights among the bandwidths that were chosen."""
        seen = [weigh(t.terms.weight, self.log.unit, t.spread.m) for t in trials.values()]
        worst = min(seen, key=lambda each: float(each["ess"]))
        return judge(worst, 0.0, _UNCHECKED, [], self.setting)


def known_estimators(log: object) -> Sequence[str]:
    """The estimators that a log of this kind can have."""
    if isinstance(log, SlateLog):
        return tuple(SLATE_ESTIMATORS)
    return CONTINUOUS_ESTIMATORS if isinstance(log, ContinuousLog) else tuple(ESTIMATORS)
