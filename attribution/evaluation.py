"""Off-policy evaluation: what targets would have earned, from what another policy logged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

import numpy as np
import numpy.typing as npt

from attribution.arguments import ALL, LOGGING, check_arguments, check_choices, check_tuning
from attribution.assembly import assembled
from attribution.choices import ChoiceStudy, choice_sample, given_model
from attribution.comparisons import TrialPair
from attribution.continuous import CONTINUOUS_ESTIMATORS, ContinuousLog
from attribution.errors import AttributionError
from attribution.log import EvaluationLog
from attribution.multiplicity import Familywise
from attribution.report import EvaluationReport
from attribution.reward_models import ModelName
from attribution.slates import SlateLog, SlateTarget
from attribution.studies import KernelStudy, SlateStudy, known_estimators, sample_of
from attribution.targets import Mixture, Target
from attribution.trials import ASYMPTOTIC, INTERVALS, Estimate, IntervalName, Setting, resampled

FloatArray = npt.NDArray[np.float64]


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
    known = known_estimators(log)
    check_arguments(targets, estimators, known, against, alpha)
    check_choices(
        {
            "interval": (interval, INTERVALS),
            "mixture": (mixture, get_args(Mixture)),
            "correction": (correction, get_args(Familywise)),
        }
    )
    if isinstance(log, EvaluationLog):
        check_tuning(options)
    elif wrong := [
        name for name in options if isinstance(log, SlateLog) or name not in CONTINUOUS_ESTIMATORS
    ]:
        raise AttributionError(f"`tuning` names {wrong[0]!r}, which has no hyper-parameter here.")
    study: ChoiceStudy | SlateStudy | KernelStudy
    if isinstance(log, SlateLog):
        sample = sample_of(log.reward.sum(axis=1), log.unit, log.reward_range)
        study = SlateStudy(log, Setting(sample, interval, alpha, seed), targets)  # type: ignore[arg-type]  # as its own
    elif isinstance(log, ContinuousLog):
        sample = sample_of(log.reward, log.unit, log.reward_range)
        expected = q_hat if isinstance(q_hat, Mapping) else {}
        setting = Setting(sample, interval, alpha, seed)
        study = KernelStudy(log, setting, targets, expected, options)  # type: ignore[arg-type]  # as its own
    else:
        study = ChoiceStudy(
            log,
            Setting(choice_sample(log), interval, alpha, seed),
            targets,  # type: ignore[arg-type]  # as its own
            tuple(estimators),
            mixture,
            options,
            None if q_hat is None else given_model(q_hat, log),  # type: ignore[arg-type]  # as its own
            reward_model,
            None if history is None else tuple(history),
        )
    if interval not in ("auto", *ASYMPTOTIC):
        study.setting.sample.ranges(interval)
    trials = {name: {each: study.trial(each, name) for each in estimators} for name in targets}
    diagnostics = {name: study.diagnose(name, trials[name]) for name in targets}
    logging = {each: study.logging(each) for each in estimators if against in (LOGGING, ALL)}
    draws: dict[Estimate, FloatArray] = {}
    if interval == "bootstrap":
        every = [*(t for of in trials.values() for t in of.values()), *logging.values()]
        draws = dict(zip(every, resampled(every), strict=True))
    return assembled(
        trials, logging, diagnostics, TrialPair, draws, against=against, correction=correction
    )
