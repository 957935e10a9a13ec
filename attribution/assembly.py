"""From estimates to a report: each one's interval, and the differences that were asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce

import numpy as np
import numpy.typing as npt

from attribution.arguments import LOGGING, asked_pairs
from attribution.comparisons import Pair, compare
from attribution.diagnostics import Diagnostics
from attribution.multiplicity import Familywise
from attribution.report import Comparison, EvaluationReport, Result
from attribution.trials import Estimate, Shape

FloatArray = npt.NDArray[np.float64]


def assembled(
    estimates: Mapping[str, Mapping[str, Estimate]],
    logging: Mapping[str, Estimate],
    diagnostics: Mapping[str, Diagnostics],
    pair: Callable[..., Pair],
    draws: Mapping[Estimate, FloatArray],
    *,
    against: str | None,
    correction: Familywise,
) -> EvaluationReport:
    """The report of these estimates.

    Parameters
    ----------
    estimates
        By target and estimator.
    logging
        By estimator, the logging policy's own, where it is compared with.
    pair
        Makes a `Pair` of its fields.
    draws
        Those of the bootstrap, if it was asked for.
    """
    results = [
        _result(target, each, diagnostics[target], draws)
        for target, by_estimator in estimates.items()
        for each in by_estimator.values()
    ]
    asked = asked_pairs(list(estimates), against)
    sides = {**estimates, LOGGING: logging}
    found: dict[tuple[str, str, str], Comparison] = {}
    names = list(next(iter(estimates.values())))
    for name in names:
        pairs = [
            _pair(each, name, sides, diagnostics, pair, draws)
            for each in asked
            if not any(_refused(side, diagnostics) for side in each)
        ]
        if pairs:
            alpha = pairs[0].first.setting.alpha
            rows = compare(pairs, alpha, correction)
            found |= {(row.target, row.against, name): row for row in rows}
    comparisons = [
        found.get((*each, name)) or Comparison.refused(*each, name)
        for each in asked
        for name in names
    ]
    return EvaluationReport(tuple(results), tuple(comparisons), diagnostics)


def _refused(side: str, diagnostics: Mapping[str, Diagnostics]) -> bool:
    return side in diagnostics and diagnostics[side].verdict == "not_estimable"


def _result(
    target: str,
    estimate: Estimate,
    diagnostics: Diagnostics,
    draws: Mapping[Estimate, FloatArray],
) -> Result:
    setting = estimate.setting
    sample = setting.sample
    if diagnostics.verdict == "not_estimable":
        return Result.refused(target, estimate.name, sample.n, sample.n_units)
    name, found = estimate.interval(diagnostics.shape, draws.get(estimate))
    chosen = "" if estimate.biased or name == "none" else setting.why(diagnostics.shape)
    return Result(
        target,
        estimate.name,
        found.value,
        found.se,
        found.low,
        found.high,
        name,
        sample.n,
        sample.n_units,
        estimate.hyperparameter,
        "; ".join(each for each in (estimate.note, chosen) if each),
    )


def _pair(
    names: tuple[str, str],
    estimator: str,
    sides: Mapping[str, Mapping[str, Estimate]],
    diagnostics: Mapping[str, Diagnostics],
    pair: Callable[..., Pair],
    draws: Mapping[Estimate, FloatArray],
) -> Pair:
    first, second = (sides[name][estimator] for name in names)
    seen = {name: diagnostics[name] for name in names if name in diagnostics}
    return pair(
        *names,
        first,
        second,
        reduce(Shape.joined, [each.shape for each in seen.values()]),
        draws[first] - draws[second] if first in draws and second in draws else None,
        [name for name, each in seen.items() if each.verdict == "weak"],
    )
