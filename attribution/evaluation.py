"""Off-policy evaluation: what targets would have earned, from what another policy logged."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from itertools import combinations
from typing import get_args

import numpy as np
import numpy.typing as npt

from attribution.adaptive import context_shares, snapshot_shares
from attribution.comparisons import Pair, compare
from attribution.continuous import ContinuousLog
from attribution.diagnostics import Checks, Diagnostics, check_log, diagnose
from attribution.errors import AttributionError
from attribution.estimators import ESTIMATORS, Estimator, Evidence, on_policy
from attribution.intervals import blocks
from attribution.log import EvaluationLog
from attribution.multiplicity import Familywise
from attribution.report import Comparison, EvaluationReport, Result
from attribution.reward_models import ModelName, cross_fit, fit_earlier
from attribution.slates import SlateLog, SlateTarget
from attribution.studies import KernelStudy, SlateStudy, known_estimators, sample_of
from attribution.targets import (
    Mixture,
    Reading,
    Target,
    drawn,
    embedding_weights,
    logger_shares,
    matches,
    propensities,
    read,
)
from attribution.trials import (
    ASYMPTOTIC,
    INTERVALS,
    IntervalName,
    Sample,
    Setting,
    Shape,
    Trial,
    resampled,
)
from attribution.tuning import slope, told

FloatArray = npt.NDArray[np.float64]

LOGGING = "logging"
ALL = "all"


def evaluate(
    log: EvaluationLog | SlateLog | ContinuousLog,
    targets: Mapping[str, Target | SlateTarget],
    estimators: Sequence[str] = ("ips", "snips", "dr"),
    *,
    against: str | None = None,
    q_hat: npt.ArrayLike | Mapping[str, npt.ArrayLike] | None = None,
    reward_model: ModelName = "auto",
    interval: IntervalName = "auto",
    alpha: float = 0.05,
    tuning: Mapping[str, float | Sequence[float]] | None = None,
    mixture: Mixture = "naive",
    history: Iterable[npt.ArrayLike] | None = None,
    correction: Familywise = "holm",
    seed: int = 0,
) -> EvaluationReport:
    """Value of each target by each estimator, with intervals, comparisons and diagnostics.

    Parameters
    ----------
    log
        Single choices, `attribution.slates.SlateLog` or `attribution.continuous.ContinuousLog`.
    targets
        By name an (n, k) pmf over ``log.actions``, or the name of a column that holds
        π(a_i|x_i) of the logged action, which suffices for estimators without a reward model. Of
        slates a `SlateTarget`; of continuous actions (n,) what the target does.
    estimators
        Of `attribution.estimators.ESTIMATORS`: ``ips``, ``snips``, ``dm``, ``dr``, ``sndr``,
        ``cressie_read``, ``replay``, ``clipped_ips``, ``switch_dr``, ``dros``, ``sg_ips``,
        ``sg_dr``, ``mips``, ``aw_aipw``, ``caw_aipw``. Of slates ``sips``, ``iips``, ``rips``,
        ``cascade_dr``, ``pi``; of continuous actions ``kernel_ips``, ``kernel_snips``,
        ``kernel_dr``.
    against
        ``"logging"`` or the name of a target: every other target is compared with it on the
        same log, unit by unit. ``"all"``: every target with the logging policy and each other.
    q_hat
        (n, k) expected rewards; row i from a model that never saw row i, nor, for ``aw_aipw``,
        ``caw_aipw`` and the anytime interval, any later row. Without it they are fitted so. Of
        continuous actions, for each target, (n, 2): at its action and at the logged one.
    reward_model
        Which model to fit where ``q_hat`` is not given; see `cross_fit`.
    interval
        ``jackknife``; ``skew_corrected``, the same with its ends moved by the skewness that
        was seen; ``cressie_read``, which needs the log's ``reward_range``; ``bernstein``,
        which needs ``max_weight`` too; ``anytime``, which holds whenever one looks;
        ``bootstrap``; or ``auto``: the jackknife where the diagnostics allow it, skew corrected
        where that suffices, else Cressie–Read if the reward's range is declared; if it is not,
        the skew corrected jackknife with the verdict ``weak``. ``note`` tells which and why.
        Where Cressie–Read is used, the value is the centre of its interval and not the
        estimator's own, which may lie outside; ``interval`` says so. Where no reward differs
        from another, there is no jackknife and ``interval`` is ``none``. Of biased estimators
        there is the jackknife or the bootstrap.
    alpha
        One minus the level of the intervals.
    tuning
        By estimator its hyper-parameter, or the grid from which SLOPE takes it, in place of the
        estimator's own.
    mixture
        How several loggers' rows are weighted: ``naive``, each by its own propensity;
        ``balanced``, by what all of them together would have drawn; ``weighted``, each logger by
        its inverse variance.
    history
        For ``caw_aipw``; see `attribution.adaptive.context_shares`.
    correction
        ``holm`` adjusts the comparisons of an estimator for being several; or ``none``.
    seed
        Of the bootstrap.

    Raises
    ------
    AttributionError
        If an argument or a target is not valid, or an interval is asked for whose range was not
        declared.
    """
    options = tuning or {}
    _check_arguments(log, targets, estimators, against, alpha)
    _check_options(log, interval, mixture, correction, options)
    study: _Study | SlateStudy | KernelStudy
    if isinstance(log, SlateLog):
        sample = sample_of(log.reward.sum(axis=1), log.unit, log.reward_range)
        study = SlateStudy(log, Setting(sample, interval, alpha, seed), targets)  # type: ignore[arg-type]  # as its own
    elif isinstance(log, ContinuousLog):
        sample = sample_of(log.reward, log.unit, log.reward_range)
        expected = q_hat if isinstance(q_hat, Mapping) else {}
        setting = Setting(sample, interval, alpha, seed)
        study = KernelStudy(log, setting, targets, expected, options)  # type: ignore[arg-type]  # as its own
    else:
        study = _Study(
            log,
            Setting(_sample(log), interval, alpha, seed),
            targets,  # type: ignore[arg-type]  # as its own
            tuple(estimators),
            propensities(log, mixture),
            mixture,
            options,
            None if q_hat is None else _check_q_hat(q_hat, log),  # type: ignore[arg-type]  # as its own
            reward_model,
            None if history is None else tuple(history),
        )
    if interval not in ("auto", *ASYMPTOTIC):
        study.setting.sample.ranges(interval)
    trials = {name: {each: study.trial(each, name) for each in estimators} for name in targets}
    diagnostics = {name: study.diagnose(name, trials[name]) for name in targets}
    logging = {each: study.logging(each) for each in estimators if against in (LOGGING, ALL)}
    draws = {}
    if interval == "bootstrap":
        every = [*(t for of in trials.values() for t in of.values()), *logging.values()]
        draws = {id(t): each for t, each in zip(every, resampled(every), strict=True)}
    results = [
        _result(name, trial, diagnostics[name], draws)
        for name in targets
        for trial in trials[name].values()
    ]
    comparisons: list[Comparison] = []
    for each in estimators:
        sides = {name: trials[name][each] for name in targets}
        if each in logging:
            sides[LOGGING] = logging[each]
        comparisons += _compared(each, sides, diagnostics, against, draws, alpha, correction)
    return EvaluationReport(tuple(results), tuple(comparisons), diagnostics)


@dataclass(frozen=True, eq=False)
class _Study:
    """A log with the choices of one report; it makes trials of estimators on targets."""

    log: EvaluationLog
    setting: Setting
    targets: Mapping[str, Target]
    estimators: tuple[str, ...]
    propensity: FloatArray
    mixture: Mixture
    tuning: Mapping[str, float | Sequence[float]]
    q_given: FloatArray | None
    reward_model: ModelName
    history: tuple[npt.ArrayLike, ...] | None

    @cached_property
    def _readings(self) -> dict[str, Reading]:
        models = {each: q for each in self.estimators if (q := self.q_hat(each)) is not None}
        return {
            name: read(name, target, self.log, self.propensity, models)
            for name, target in self.targets.items()
        }

    @cached_property
    def _checks(self) -> Checks:
        return check_log(self.log)

    def diagnose(self, target: str, trials: Mapping[str, Trial]) -> Diagnostics:
        """Diagnostics of a target; its unbiased trials count."""
        reading = self._readings[target]
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
    def _crossed(self) -> FloatArray:
        return cross_fit(self.log, self.reward_model) if self.q_given is None else self.q_given

    @cached_property
    def _forward(self) -> FloatArray:
        return fit_earlier(self.log, self.reward_model) if self.q_given is None else self.q_given

    def q_hat(self, name: str) -> FloatArray | None:
        """The reward model that an estimator reads, (n, k), if it does."""
        estimator = ESTIMATORS[name]
        if not estimator.needs_model:
            return None
        return self._forward if self._earlier(estimator) else self._crossed

    @cached_property
    def _q_ranges(self) -> dict[int, tuple[float, float]]:
        return {}

    @cached_property
    def _residuals(self) -> dict[int, FloatArray]:
        return {}

    def _residual(self, q_hat: FloatArray | None) -> FloatArray:
        """r_i − q̂(x_i, a_i), (n,), made once for each model."""
        log = self.log
        if q_hat is None:
            return log.reward
        if id(q_hat) not in self._residuals:
            residual = np.empty(log.n)
            for rows in blocks(log.n):
                said = drawn(q_hat[rows], log.action[rows])
                np.subtract(log.reward[rows], said, out=residual[rows])
            self._residuals[id(q_hat)] = residual
        return self._residuals[id(q_hat)]

    def trial(self, name: str, target: str) -> Trial:
        """An estimator on a target, its hyper-parameter chosen where it has one."""
        reading = self._readings[target]
        estimator = ESTIMATORS[name]
        q_hat = self.q_hat(name)
        q_target = 0.0 if q_hat is None else reading.expected[id(q_hat)]
        weight = reading.weight
        if estimator.weights == "match":
            weight = matches(reading, self.log)
        elif estimator.weights == "embedding":
            weight = embedding_weights(reading, self.log)
        evidence = Evidence(self.log.reward, weight, q_target, self._residual(q_hat))
        made = self._made(name, estimator, evidence, q_hat, reading)
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
        estimator: Estimator,
        evidence: Evidence,
        q_hat: FloatArray | None,
        reading: Reading,
    ) -> Trial:
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
        base_range, gain_range = self._ranges(q_hat)
        return Trial(
            self.setting,
            name,
            terms,
            estimator.biased,
            gain_range,
            base_range,
            1.0 if estimator.weights == "match" else log.max_weight,
            reading.pmf,
            influence=influence,
        )

    def logging(self, name: str) -> Trial:
        """The logging policy itself, in terms that pair with the estimator's."""
        log = self.log
        q_hat = self.q_hat(name)
        terms = on_policy(Evidence(log.reward, log.reward, 0.0, self._residual(q_hat)))
        base_range, gain_range = self._ranges(q_hat)
        return Trial(
            self.setting,
            name,
            terms,
            ESTIMATORS[name].biased,
            gain_range,
            base_range,
            1.0,
            log.pmf,
            is_logging=True,
        )

    def _ranges(self, q_hat: FloatArray | None) -> tuple[tuple[float, float], tuple[float, float]]:
        """Smallest and largest base and gain that the declared range of the reward allows."""
        low, high = self.log.reward_range or (math.nan, math.nan)
        if q_hat is None:
            return (0.0, 0.0), (low, high)
        if math.isnan(low):
            return (math.nan, math.nan), (math.nan, math.nan)
        if id(q_hat) not in self._q_ranges:
            self._q_ranges[id(q_hat)] = float(q_hat.min()), float(q_hat.max())
        q_low, q_high = self._q_ranges[id(q_hat)]
        return (q_low, q_high), (low - q_high, high - q_low)


def _codes(log: EvaluationLog) -> npt.NDArray[np.intp]:
    return np.arange(log.n) if log.logger is None else log.logger


def _sample(log: EvaluationLog) -> Sample:
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
    return Sample(log.n, log.unit, order, log.reward_range, most, silent)


def _result(
    target: str, trial: Trial, diagnostics: Diagnostics, draws: Mapping[int, FloatArray]
) -> Result:
    sample = trial.setting.sample
    if diagnostics.verdict == "not_estimable":
        return Result.refused(target, trial.name, sample.n, sample.n_units)
    name, found = trial.interval(diagnostics.shape, draws.get(id(trial)))
    told_of_interval = (
        "" if trial.biased or name == "none" else trial.setting.why(diagnostics.shape)
    )
    return Result(
        target,
        trial.name,
        found.value,
        found.se,
        found.low,
        found.high,
        name,
        sample.n,
        sample.n_units,
        trial.hyperparameter,
        "; ".join(each for each in (trial.note, told_of_interval) if each),
    )


def _compared(
    estimator: str,
    sides: Mapping[str, Trial],
    diagnostics: Mapping[str, Diagnostics],
    against: str | None,
    draws: Mapping[int, FloatArray],
    alpha: float,
    correction: Familywise,
) -> list[Comparison]:
    """The differences that ``against`` asks for, by one estimator."""
    if against is None:
        return []
    names = [name for name in sides if name != against]
    asked = list(combinations(sides, 2)) if against == ALL else [(name, against) for name in names]
    pairs = []
    for first, second in asked:
        seen = [diagnostics[name] for name in (first, second) if name in diagnostics]
        if any(one.verdict == "not_estimable" for one in seen):
            continue
        ours = [draws.get(id(sides[name])) for name in (first, second)]
        pairs.append(
            Pair(
                first,
                second,
                sides[first],
                sides[second],
                reduce(Shape.joined, [one.shape for one in seen]),
                None if ours[0] is None or ours[1] is None else ours[0] - ours[1],
            )
        )
    found = {(row.target, row.against): row for row in compare(pairs, alpha, correction)}
    return [found.get(pair) or Comparison.refused(*pair, estimator) for pair in asked]


def _check_arguments(
    log: object,
    targets: Mapping[str, object],
    estimators: Sequence[str],
    against: str | None,
    alpha: float,
) -> None:
    if not targets:
        raise AttributionError("`targets` is empty. Name at least one target.")
    for reserved in (LOGGING, ALL):
        if reserved in targets:
            meant = "the log's own policy" if reserved == LOGGING else "every one of them"
            raise AttributionError(f'`targets` has one called "{reserved}", {meant}. Rename.')
    if not estimators:
        raise AttributionError("`estimators` is empty. Name at least one.")
    known = known_estimators(log) or tuple(ESTIMATORS)
    for name in estimators:
        if name not in known:
            raise AttributionError(f"`estimators` names {name!r}. Known: {', '.join(known)}.")
    if against is not None and against not in (LOGGING, ALL) and against not in targets:
        raise AttributionError(
            f'`against` is {against!r}. It must be "logging", "all" or one of: '
            f"{', '.join(targets)}."
        )
    if not 0 < alpha < 1:
        raise AttributionError(f"`alpha` is {alpha}. It must lie in (0, 1).")


def _check_options(
    log: object,
    interval: str,
    mixture: str,
    correction: str,
    tuning: Mapping[str, float | Sequence[float]],
) -> None:
    known = {
        "interval": (interval, INTERVALS),
        "mixture": (mixture, get_args(Mixture)),
        "correction": (correction, get_args(Familywise)),
    }
    for field, (value, choices) in known.items():
        if value not in choices:
            raise AttributionError(f"`{field}` is {value!r}. Known: {', '.join(choices)}.")
    if known_estimators(log) is not None:
        return
    tunable = {name: each.tuning for name, each in ESTIMATORS.items() if each.tuning}
    for name, given in tuning.items():
        if name not in tunable:
            raise AttributionError(
                f"`tuning` names {name!r}, which has no hyper-parameter. "
                f"Those that have: {', '.join(tunable)}."
            )
        grid = [given] if isinstance(given, int | float) else list(given)
        least, most = (0.0, tunable[name].most)
        if not grid or not all(least <= each <= most for each in grid):
            raise AttributionError(
                f"`tuning.{name}` is {given}. It must be numbers from {least:g} to {most:g}."
            )


def _check_q_hat(q_hat: npt.ArrayLike, log: EvaluationLog) -> FloatArray:
    model = np.asarray(q_hat, dtype=np.float64)
    if model.shape != (log.n, log.k):
        raise AttributionError(
            f"`q_hat` has shape {model.shape}. It must be {(log.n, log.k)}: "
            "a row for each choice, a column for each of `actions`."
        )
    return model
