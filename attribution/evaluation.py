"""Off-policy evaluation: what targets would have earned, from what another policy logged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from attribution.diagnostics import LARGEST_ASYMMETRY, Diagnostics, calibration, diagnose
from attribution.errors import AttributionError, refuse_rows
from attribution.estimators import ESTIMATORS, Estimator, Evidence, Terms, on_policy
from attribution.intervals import (
    Interval,
    Sums,
    asymmetry,
    cressie_read,
    cressie_read_centres,
    guarded_lower,
    jackknife,
    leave_one_out,
    unit_sums,
)
from attribution.log import EvaluationLog, check_pmf, numbers
from attribution.report import Comparison, EvaluationReport, Result
from attribution.reward_models import cross_fit

FloatArray = npt.NDArray[np.float64]
Target = npt.ArrayLike | str
IntervalName = Literal["auto", "jackknife", "cressie_read"]

# The estimate that belongs to a Cressie–Read interval replaces the estimator's own, which may lie
# outside of it.
CRESSIE_READ = "cressie_read, value its centre"

LOGGING = "logging"


def evaluate(
    log: EvaluationLog,
    targets: Mapping[str, Target],
    estimators: Sequence[str] = ("ips", "snips", "dr"),
    *,
    against: str | None = None,
    q_hat: npt.ArrayLike | None = None,
    interval: IntervalName = "auto",
    alpha: float = 0.05,
) -> EvaluationReport:
    """Value of each target by each estimator, with intervals, comparisons and diagnostics.

    Parameters
    ----------
    targets
        By name an (n, k) pmf over ``log.actions``, or the name of a column that holds
        π(a_i|x_i) of the logged action, which suffices for ``ips`` and ``snips``.
    estimators
        Of ``ips``, ``snips``, ``dm``, ``dr``.
    against
        ``"logging"`` or the name of a target: every other target is compared with it on the
        same log, unit by unit.
    q_hat
        (n, k) expected rewards; row i from a model that never saw row i. Without it they are
        cross-fitted by unit where an estimator needs them.
    interval
        ``jackknife``, ``cressie_read``, or ``auto``: the jackknife where the diagnostics allow
        it, else Cressie–Read if the reward's range is declared; if it is not, the jackknife
        with the verdict ``weak``. Where Cressie–Read is used, the value is the centre of its
        interval and not the estimator's own, which may lie outside; ``interval`` says so. Where
        no reward differs from another, there is no jackknife and ``interval`` is ``none``.
    alpha
        One minus the level of the intervals.

    Raises
    ------
    AttributionError
        If an argument or a target is not valid, or Cressie–Read is asked for without a range.
    """
    _check_arguments(targets, estimators, against, alpha)
    _check_interval(interval, log)
    pmfs = {name: _pmf(name, target, log) for name, target in targets.items()}
    weights = {name: _weight(name, targets[name], pmfs[name], log) for name in targets}
    modelled = [name for name in estimators if ESTIMATORS[name].needs_model]
    model = None
    if modelled:
        for name in targets:
            if pmfs[name] is None:
                raise AttributionError(
                    f"`targets.{name}` is a column, which {', '.join(modelled)} cannot use. "
                    "Pass its (n, k) pmf."
                )
        model = cross_fit(log) if q_hat is None else _check_q_hat(q_hat, log)
    setting = _Setting(log, model, interval, alpha)
    trials = {
        name: {each: _Trial(setting, each, weights[name], pmfs[name]) for each in estimators}
        for name in targets
    }
    logged_p = calibration(log)
    diagnostics = {
        name: diagnose(
            log,
            weights[name],
            pmfs[name],
            logged_p,
            max((t.asymmetry for t in trials[name].values() if not t.estimator.biased), default=0),
            guarded=setting.guards,
        )
        for name in targets
    }
    results = [
        trials[name][each].result(name, diagnostics[name])
        for name in targets
        for each in estimators
    ]
    comparisons = _compare(setting, trials, diagnostics, estimators, against)
    return EvaluationReport(tuple(results), tuple(comparisons), diagnostics)


@dataclass(frozen=True, slots=True, eq=False)
class _Setting:
    """What all estimates of one report share."""

    log: EvaluationLog
    q_hat: FloatArray | None
    interval: IntervalName
    alpha: float

    @property
    def guards(self) -> bool:
        """Whether a Cressie–Read interval may stand in for the jackknife."""
        return self.interval != "jackknife" and self.log.reward_range is not None

    def guarded(self, asymmetry_seen: float) -> bool:
        """Whether Cressie–Read is used for targets of this asymmetry.

        One choice for all estimators of a target: under heavy weights the influence values of
        one of them may look tame just because its heavy rows have not come yet.
        """
        if self.interval == "auto":
            return self.guards and not asymmetry_seen <= LARGEST_ASYMMETRY
        return self.interval == "cressie_read"

    @property
    def silent(self) -> bool:
        """Whether all rewards are alike, which says nothing of how others would have spread."""
        return bool(np.ptp(self.log.reward) == 0)

    @property
    def q_range(self) -> tuple[float, float]:
        return (0.0, 0.0) if self.q_hat is None else (self.q_hat.min(), self.q_hat.max())


class _Trial:
    """One estimator on one target; the logging policy itself where ``weight`` is None."""

    def __init__(
        self, setting: _Setting, name: str, weight: FloatArray | None, pmf: FloatArray | None
    ) -> None:
        self.setting = setting
        self.name = name
        self.estimator: Estimator = ESTIMATORS[name]
        self.pmf = pmf
        self.is_logging = weight is None
        self.terms: Terms = self._terms(weight)
        self.value = self.terms.value

    def _terms(self, weight: FloatArray | None) -> Terms:
        log, q_hat = self.setting.log, self.setting.q_hat
        q_target = q_logged = np.zeros(log.n)
        if self.estimator.needs_model and q_hat is not None:
            q_logged = q_hat[np.arange(log.n), log.action]
            if self.pmf is not None:
                q_target = np.einsum("ij,ij->i", self.pmf, q_hat)
        if weight is None:
            return on_policy(Evidence(log.reward, np.ones(log.n), q_target, q_logged))
        return self.estimator.terms(Evidence(log.reward, weight, q_target, q_logged))

    @cached_property
    def without(self) -> FloatArray:
        """The estimate without each unit in turn, (m,)."""
        unit = self.setting.log.unit
        return leave_one_out(
            unit_sums(self.terms.numerator, unit), unit_sums(self.terms.size, unit)
        )

    @cached_property
    def asymmetry(self) -> float:
        return asymmetry(self.without)

    @cached_property
    def gain_range(self) -> tuple[float, float]:
        """Smallest and largest gain that the declared range of the reward allows."""
        low, high = self.setting.log.reward_range or (math.nan, math.nan)
        if not self.estimator.needs_model:
            return low, high
        q_low, q_high = self.setting.q_range
        return low - q_high, high - q_low

    def interval(self, asymmetry_seen: float) -> tuple[str, Interval]:
        """The interval chosen and its name."""
        setting = self.setting
        guarded = setting.guarded(asymmetry_seen)
        if setting.silent and (self.estimator.biased or not guarded):
            return "none", Interval(self.value, math.nan, math.nan, math.nan)
        plain = jackknife(self.value, self.without, setting.alpha)
        if self.estimator.biased:
            return "jackknife, bias not covered", plain
        if not guarded:
            return "jackknife", plain
        log = setting.log
        q_low, q_high = setting.q_range if self.estimator.needs_model else (0.0, 0.0)
        sums = Sums(
            unit_sums(self.terms.numerator, log.unit),
            unit_sums(self.terms.weight, log.unit),
            unit_sums(np.ones(log.n), log.unit),
            *self.gain_range,
            q_low,
            q_high,
        )
        return CRESSIE_READ, Interval.around(
            plain.se,
            cressie_read(sums, log.max_weight, setting.alpha),
            cressie_read_centres(sums, log.max_weight),
            log.reward_range or (-math.inf, math.inf),
        )

    def result(self, target: str, diagnostics: Diagnostics) -> Result:
        log = self.setting.log
        if diagnostics.verdict == "not_estimable":
            return Result.refused(target, self.name, log.n, log.n_units)
        name, found = self.interval(diagnostics.asymmetry)
        return Result(
            target,
            self.name,
            found.value,
            found.se,
            found.low,
            found.high,
            name,
            log.n,
            log.n_units,
        )


def _compare(
    setting: _Setting,
    trials: Mapping[str, Mapping[str, _Trial]],
    diagnostics: Mapping[str, Diagnostics],
    estimators: Sequence[str],
    against: str | None,
) -> list[Comparison]:
    if against is None:
        return []
    rows = []
    for each in estimators:
        if against == LOGGING:
            second = _Trial(setting, each, None, setting.log.pmf)
        else:
            second = trials[against][each]
        for name, mine in trials.items():
            if name == against:
                continue
            pair = [diagnostics[t] for t in (name, against) if t in diagnostics]
            if any(one.verdict == "not_estimable" for one in pair):
                rows.append(Comparison.refused(name, against, each))
            else:
                seen = max(one.asymmetry for one in pair)
                rows.append(_difference(name, against, mine[each], second, seen))
    return rows


def _difference(
    target: str, against: str, first: _Trial, second: _Trial, asymmetry_seen: float
) -> Comparison:
    """Paired difference: what both estimates lose without a unit is lost together."""
    setting = first.setting
    without = first.without - second.without
    found = jackknife(first.value - second.value, without, setting.alpha)
    guarded = setting.guarded(max(asymmetry_seen, asymmetry(without)))
    name = "jackknife"
    if setting.silent and (first.estimator.biased or not guarded):
        name, found = "none", Interval(found.value, math.nan, math.nan, math.nan)
    elif first.estimator.biased:
        name = "jackknife, bias not covered"
    elif guarded:
        name = CRESSIE_READ
        least, most = setting.log.reward_range or (-math.inf, math.inf)
        found = Interval.around(
            found.se,
            _difference_ends(first, second, setting.alpha),
            _difference_ends(first, second, 1.0),
            (least - most, most - least),
        )
    return Comparison(
        target, against, first.name, found.value, found.se, found.low, found.high, name
    )


def _difference_ends(first: _Trial, second: _Trial, alpha: float) -> tuple[float, float]:
    """Both Cressie–Read ends of V₁ − V₂; their centres at an ``alpha`` of one."""
    return _difference_lower(first, second, alpha), -_difference_lower(second, first, alpha)


def _difference_lower(first: _Trial, second: _Trial, alpha: float) -> float:
    """Cressie–Read lower end of V₁ − V₂ with unbounded weights.

    With d = w₁ − w₂, gains g in [l, h] and TV = ½ Σ_a |π₁ − π₂|, E[d⁺] = E[d⁻] = E[TV], so

        V₁ − V₂ = E[ b₁ − b₂ + d⁺ (g − l) + d⁻ (h − g) − (h − l) TV ]

    in which every weighted term is ≥ 0: all long tails point up, and the lower end is safe.
    Where a pmf is not known, w₁ (g − l) + l and h − w₂ (h − g) bound the two values apart.
    """
    log = first.setting.log
    low, high = first.gain_range
    gain = log.reward - (
        first.setting.q_hat[np.arange(log.n), log.action]
        if first.estimator.needs_model and first.setting.q_hat is not None
        else 0
    )
    w1, w2 = first.terms.weight, second.terms.weight
    if first.pmf is not None and second.pmf is not None:
        distance = 0.5 * np.abs(first.pmf - second.pmf).sum(axis=1)
        d = w1 - w2
        weighted = np.where(d > 0, d * (gain - low), -d * (high - gain)) - (high - low) * distance
    else:
        mine = gain if first.is_logging else w1 * (gain - low) + low
        other = gain if second.is_logging else high - w2 * (high - gain)
        weighted = mine - other
    total = first.terms.base - second.terms.base + weighted
    return guarded_lower(unit_sums(total, log.unit), unit_sums(np.ones(log.n), log.unit), alpha)


def _check_arguments(
    targets: Mapping[str, Target], estimators: Sequence[str], against: str | None, alpha: float
) -> None:
    if not targets:
        raise AttributionError("`targets` is empty. Name at least one target.")
    if LOGGING in targets:
        raise AttributionError('`targets` has one called "logging", the log\'s own policy. Rename.')
    if not estimators:
        raise AttributionError("`estimators` is empty. Name at least one.")
    for name in estimators:
        if name not in ESTIMATORS:
            raise AttributionError(f"`estimators` names {name!r}. Known: {', '.join(ESTIMATORS)}.")
    if against is not None and against != LOGGING and against not in targets:
        raise AttributionError(
            f'`against` is {against!r}. It must be "logging" or one of: {", ".join(targets)}.'
        )
    if not 0 < alpha < 1:
        raise AttributionError(f"`alpha` is {alpha}. It must lie in (0, 1).")


def _check_interval(interval: str, log: EvaluationLog) -> None:
    if interval not in ("auto", "jackknife", "cressie_read"):
        raise AttributionError(f"`interval` is {interval!r}. Known: auto, jackknife, cressie_read.")
    if interval == "cressie_read" and log.reward_range is None:
        raise AttributionError(
            '`interval` is "cressie_read" but the log declares no `reward_range`, without which '
            "the worst unseen reward is unknown. Declare it."
        )


def _pmf(name: str, target: Target, log: EvaluationLog) -> FloatArray | None:
    if isinstance(target, str):
        return None
    pmf = np.asarray(target, dtype=np.float64)
    check_pmf(f"targets.{name}", pmf, log)
    return pmf


def _weight(name: str, target: Target, pmf: FloatArray | None, log: EvaluationLog) -> FloatArray:
    if pmf is not None:
        chosen = pmf[np.arange(log.n), log.action]
    elif log.columns is None or not isinstance(target, str):
        raise AttributionError(
            f"`targets.{name}` names a column, but the log was not read from a frame. "
            "Pass an (n, k) pmf."
        )
    else:
        chosen = numbers(log.columns, target, f"targets.{name}")
        refuse_rows(
            ~((chosen >= 0) & (chosen <= 1)),
            f"targets.{name}",
            "is not in [0, 1]",
            "The column must hold the target's probability of the logged action.",
            chosen,
        )
    weight = chosen / log.propensity
    refuse_rows(
        weight > log.max_weight * (1 + 1e-9),
        f"targets.{name}",
        f"has a weight above `max_weight` ({log.max_weight:g})",
        "Declare the largest weight that is possible.",
        weight,
    )
    return weight


def _check_q_hat(q_hat: npt.ArrayLike, log: EvaluationLog) -> FloatArray:
    model = np.asarray(q_hat, dtype=np.float64)
    if model.shape != (log.n, log.k):
        raise AttributionError(
            f"`q_hat` has shape {model.shape}. It must be {(log.n, log.k)}: "
            "a row for each choice, a column for each of `actions`."
        )
    refuse_rows(~np.isfinite(model.sum(axis=1)), "q_hat", "is not finite", "Predict every action.")
    return model
