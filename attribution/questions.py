"""What is asked of a log that comes in batches, and the sums in which the answer is sought."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from typing import get_args

import numpy as np
import numpy.typing as npt

from attribution.arguments import (
    ALL,
    LOGGING,
    asked_pairs,
    check_arguments,
    check_choices,
    check_tuning,
)
from attribution.batches import LogColumns, Matrix
from attribution.errors import AttributionError
from attribution.estimators import ESTIMATORS, Evidence
from attribution.intervals import Part
from attribution.multiplicity import Familywise
from attribution.trials import IntervalName

FloatArray = npt.NDArray[np.float64]
# What is summed, and of which target, estimator or action.
Key = tuple[str, ...]

STREAMED = tuple(
    name for name, each in ESTIMATORS.items() if each.weights == "action" and each.shares == "equal"
)
INTERVALS = ("auto", "jackknife", "skew_corrected", "cressie_read", "bootstrap")
ROWS: Key = ("rows",)
REWARD: Key = ("reward",)


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked of a log, and the columns of unit sums in which the answer is sought.

    The fields are the arguments of `attribution.evaluate_batches`.
    """

    columns: LogColumns
    targets: Mapping[str, Matrix]
    estimators: tuple[str, ...]
    _: KW_ONLY
    against: str | None = None
    q_hat: Matrix | None = None
    interval: IntervalName = "auto"
    alpha: float = 0.05
    tuning: Mapping[str, float] = field(default_factory=dict)
    correction: Familywise = "holm"
    seed: int = 0

    def __post_init__(self) -> None:
        check_arguments(self.targets, self.estimators, STREAMED, self.against, self.alpha)
        check_choices(
            {
                "interval": (self.interval, INTERVALS),
                "correction": (self.correction, get_args(Familywise)),
            }
        )
        check_tuning(self.tuning)
        for name in self.estimators:
            if ESTIMATORS[name].needs_model and self.q_hat is None:
                raise AttributionError(
                    f"`estimators` names {name!r}, which needs `q_hat`. Give a column of lists, "
                    "the names of columns, or a function: models are not fitted on a stream."
                )
            if ESTIMATORS[name].tuning and not isinstance(self.tuning.get(name), int | float):
                raise AttributionError(
                    f"`tuning.{name}` is {self.tuning.get(name)}. Give one number: a grid is "
                    "searched in memory only."
                )

    @cached_property
    def pairs(self) -> list[tuple[str, str, str]]:
        """Target, what it is compared with, and the estimator, for each comparison."""
        asked = asked_pairs(list(self.targets), self.against)
        return [(*pair, name) for pair in asked for name in self.estimators]

    @cached_property
    def trials(self) -> list[tuple[str, str]]:
        """Target and estimator of each estimate, the logging policy's behind the others."""
        targets = [*self.targets, *([LOGGING] if self.against in (LOGGING, ALL) else [])]
        return [(target, name) for target in targets for name in self.estimators]

    @cached_property
    def names(self) -> list[str] | None:
        """The source's columns that are read; None for all, which a function may ask for."""
        found: list[str] = []
        of = self.columns
        every = (
            of.action, of.reward, of.propensity, of.unit, of.observed, of.eligible, of.pmf,
            self.q_hat, *self.targets.values(),
        )  # fmt: skip
        for each in every:
            if callable(each):
                return None
            if isinstance(each, str):
                found.append(each)
            elif each is not None and not isinstance(each, float | int):
                found.extend(each)
        return list(dict.fromkeys(found))

    @cached_property
    def ratios(self) -> dict[str, tuple[str, ...]]:
        """For each estimator, what the sizes of its ratios are: ``rows`` or ``weight``."""
        one = np.ones(1)
        found = {}
        for name in self.estimators:
            base = one if ESTIMATORS[name].needs_model else 0.0
            terms = ESTIMATORS[name].terms(Evidence(one, one, base, one))
            sizes = (size for _, size in terms.ratios(1.0))
            found[name] = tuple("rows" if isinstance(size, float) else "weight" for size in sizes)
        return found

    def parts(self, columns: Mapping[Key, FloatArray], target: str, name: str) -> list[Part]:
        """Numerators and sizes of an estimate's ratios, by unit or in all."""
        if target == LOGGING:
            return [(columns[REWARD], columns[ROWS])]
        sizes = {"rows": columns[ROWS], "weight": columns["weight", target]}
        return [
            (columns["top", target, name, str(place)], sizes[size])
            for place, size in enumerate(self.ratios[name])
        ]
