"""Evaluation of logs larger than memory: batches become sums, sums merge, sums make the report."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial, reduce
from operator import add
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from attribution.arguments import LOGGING
from attribution.assembly import assembled
from attribution.batches import LogColumns, Matrix, batches_of, chosen
from attribution.comparisons import Pair
from attribution.diagnostics import (
    Checks,
    Diagnostics,
    calibrated,
    judge,
    missing_alike_p,
    tail_shape,
    told_of_weights,
)
from attribution.errors import AttributionError
from attribution.estimators import ESTIMATORS
from attribution.intervals import Spread, Sums
from attribution.moments import Moments
from attribution.multiplicity import Familywise
from attribution.partial import Findings, Survey, settled, surveyed
from attribution.questions import REWARD, Question
from attribution.report import EvaluationReport
from attribution.trials import (
    Estimate,
    IntervalName,
    Sample,
    Setting,
    drawn_together,
    drawn_values,
)

FloatArray = npt.NDArray[np.float64]


def evaluate_batches(
    source: Any,
    columns: LogColumns,
    targets: Mapping[str, Matrix],
    estimators: Sequence[str] = ("ips", "snips", "dr"),
    *,
    against: str | None = None,
    q_hat: Matrix | None = None,
    interval: IntervalName = "auto",
    alpha: float = 0.05,
    tuning: Mapping[str, float] | None = None,
    correction: Familywise = "holm",
    seed: int = 0,
    parts: int = 1,
) -> EvaluationReport:
    """`attribution.evaluate` of a log that does not fit in memory; the same numbers.

    The log is read twice, a batch at a time. Without ``unit`` memory does not grow with the rows;
    with it the sums of a part's units are held, eight bytes for each unit, target and estimator,
    while the rows are not.

    Parameters
    ----------
    source
        The path of a Parquet file or of a folder of them, an Arrow table or dataset, or a function
        that gives record batches, the same whenever it is called.
    columns
        What the source's columns hold.
    targets
        By name the column that holds π(a_i|x_i) of the logged action; or the whole pmf: a column of
        lists, names of a column for each action, or a function of a record batch giving (n, k).
    estimators
        Those whose rows need no other rows: `STREAMED`.
    q_hat
        Expected rewards, given as a target's whole pmf is. Models are not fitted here.
    interval
        ``auto``, ``jackknife``, ``skew_corrected``, ``cressie_read`` or ``bootstrap``. Bernstein's
        and the anytime interval take units in their order.
    tuning
        The hyper-parameter of each estimator that has one; a grid is searched in memory only.
    parts
        Where there is a ``unit``: in how many parts, by a hash of the unit, the log is read, each
        by a reading of its own, so that the unit sums of one part are held at a time.
    against, alpha, correction, seed
        As in `attribution.evaluate`.

    Raises
    ------
    AttributionError
        If an argument or a row is not valid, or asks for what a stream cannot give.
    """
    question = Question(
        columns,
        targets,
        tuple(estimators),
        against=against,
        q_hat=q_hat,
        interval=interval,
        alpha=alpha,
        tuning=tuning or {},
        correction=correction,
        seed=seed,
    )
    if parts < 1:
        raise AttributionError(f"`parts` is {parts}. It must be at least 1.")
    numbers = range(parts if columns.unit is not None else 1)

    def part(number: int) -> Iterator[pa.RecordBatch]:
        return chosen(batches_of(source, question.names), columns.unit, number, len(numbers))

    with _counted_in_parts(len(numbers)):
        survey = reduce(add, (surveyed(question, part(number)) for number in numbers))
    check_survey(question, survey)
    findings = reduce(add, (settled(question, part(number), survey, number) for number in numbers))
    return reported(question, survey, findings)


@contextmanager
def _counted_in_parts(parts: int) -> Iterator[None]:
    """Refusals of rows whose place in the log is not known, since a part holds only some."""
    try:
        yield
    except AttributionError as error:
        if parts == 1 or error.row is None:
            raise
        raise AttributionError(
            f"{error} It is counted among the rows of one of {parts} parts: ask with `parts` = 1 "
            "for its place in the log.",
            count=error.count,
        ) from error


def check_survey(question: Question, survey: Survey) -> None:
    """Raise unless what a first reading told can make a report.

    Raises
    ------
    AttributionError
        If there are fewer than two units, or an interval's range was not declared.
    """
    if survey.count("units") < 2:
        raise AttributionError(
            f"the log holds {survey.count('units')} units with an outcome, from which no spread "
            "can be told. Evaluate at least two."
        )
    if question.interval == "cressie_read":
        _setting(question, survey).sample.ranges(question.interval)


def reported(question: Question, survey: Survey, findings: Findings) -> EvaluationReport:
    """The report that both readings of all parts make."""
    estimates: dict[str, dict[str, Estimate]] = {name: {} for name in question.targets}
    logging: dict[str, Estimate] = {}
    for target, name in question.trials:
        of = logging if target == LOGGING else estimates[target]
        of[name] = _estimate(question, survey, findings, target, name)
    diagnostics = {
        name: _diagnostics(question, survey, findings, name, of) for name, of in estimates.items()
    }
    draws: dict[Estimate, FloatArray] = {}
    if findings.draws is not None:
        every = [*(each for of in estimates.values() for each in of.values()), *logging.values()]
        sizes = [
            (each.value, len(survey.totals(question, *t)))
            for each, t in zip(every, question.trials, strict=True)
        ]
        draws = dict(zip(every, drawn_values(findings.draws, sizes), strict=True))

    return assembled(
        estimates,
        logging,
        diagnostics,
        partial(SummedPair, findings=findings),
        draws,
        against=question.against,
        correction=question.correction,
    )


def _setting(question: Question, survey: Survey) -> Setting:
    silent = survey.least.get(REWARD) == survey.most.get(REWARD)
    n, units = survey.count("n"), survey.count("units")
    sample = Sample(n, units, None, None, survey.reward_range, math.nan, silent)
    return Setting(sample, question.interval, question.alpha, question.seed)


@dataclass(frozen=True, eq=False)
class SummedEstimate(Estimate):
    """An estimate from sums over a log's units."""

    summed: float
    seen: Spread
    moments: Moments
    alone: float

    @property
    def value(self) -> float:
        return self.summed

    @property
    def spread(self) -> Spread:
        return self.seen

    def sums(self) -> Sums:
        return self.sums_of(self.moments)

    def sums_of(self, moments: Moments) -> Sums:
        """What Cressie–Read reads, with these moments of the units' totals, weights and rows."""
        imagined = drawn_together(moments, self.alone, self.setting.sample.n)
        return Sums(moments, *self.gain_range, *self.base_range, imagined=imagined)


@dataclass(frozen=True, eq=False)
class SummedPair(Pair):
    """A comparison from sums over a log's units."""

    first: SummedEstimate
    second: SummedEstimate
    findings: Findings = field(kw_only=True)

    @cached_property
    def spread(self) -> Spread:
        moved = self.findings.moved["pair", self.target, self.against, self.first.name]
        return moved.spread(self.first.value - self.second.value)

    def beside_logging(self) -> Sums:
        key = ("pair", self.target, self.against, self.first.name)
        return self.first.sums_of(self.findings.moments[key]).beside_logging()

    def gaps(self) -> tuple[Moments, Moments]:
        moments, name = self.findings.moments, self.first.name
        return (
            moments["gap", self.target, self.against, name],
            moments["gap", self.against, self.target, name],
        )


def _estimate(
    question: Question, survey: Survey, findings: Findings, target: str, name: str
) -> SummedEstimate:
    value = survey.value(question, target, name)
    base_range, gain_range = survey.ranges(name)
    is_logging = target == LOGGING
    most = question.columns.max_weight
    tuned = question.tuning.get(name, math.nan)
    return SummedEstimate(
        _setting(question, survey),
        name,
        value,
        findings.moved["trial", target, name].spread(value),
        findings.moments["trial", target, name],
        # Where each row is a unit, it is drawn alone.
        0.0 if question.columns.unit is None or is_logging else float(survey.sums["alone", target]),
        biased=ESTIMATORS[name].biased,
        gain_range=gain_range,
        base_range=base_range,
        max_weight=1.0 if is_logging else math.inf if most is None else most,
        is_logging=is_logging,
        note="" if math.isnan(tuned) or is_logging else f"λ = {tuned:g}, given",
        hyperparameter=math.nan if is_logging else tuned,
    )


def _diagnostics(
    question: Question,
    survey: Survey,
    findings: Findings,
    target: str,
    estimates: Mapping[str, Estimate],
) -> Diagnostics:
    of = question.columns
    n, units = survey.count("n"), survey.count("units")
    total = float(survey.sums["weight", target])
    drawn, missing = survey.sums["drawn",], survey.sums["missing",]
    checks = Checks(
        math.nan
        if of.pmf is None
        else calibrated(survey.sums["calibration",], units, by_unit=of.unit is not None),
        of.adaptive,
        math.nan,
        math.nan if of.observed is None else missing_alike_p(drawn, missing),
    )
    weights = told_of_weights(
        n,
        units,
        total,
        float(survey.sums["squares", target]),
        survey.most["heaviest", target],
        (survey.least["weight", target], survey.most["weight", target]),
        findings.moved["weight", target].spread(total / n),
        tail_shape(findings.heaviest["weight", target]),
    )
    unsupported = 0.0
    if ("beyond", target) in survey.sums:
        unsupported = float(survey.sums["beyond", target]) / n
    elif ("wanted", target) in survey.sums:
        unsupported = float(survey.sums["wanted", target][drawn == 0].sum()) / n
    spreads = [each.spread for each in estimates.values() if not each.biased]
    return judge(weights, unsupported, checks, spreads, _setting(question, survey))
