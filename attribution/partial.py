"""What a reading of some batches gives of a question: sums that merge, whatever the batches.

A log is read twice. `surveyed` gives what a first reading tells: the sums of every estimate, and
what is found of the log itself. `settled` gives what needs those sums: by how much each estimate
moves without each unit in turn. Both are pure, what they give has a size that does not depend on
the rows, and merges with ``+``; so the same two functions run over a file in
`attribution.streaming` and over the partitions of a cluster in `attribution.spark`. All rows of a
unit must come to one call, since its sums are completed before anything else is made of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from operator import add
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from attribution.arguments import LOGGING
from attribution.batches import LogColumns, Matrix, Rows, is_matrix
from attribution.bootstrap import PoissonSums
from attribution.comparisons import distance, gap
from attribution.diagnostics import tail_size
from attribution.errors import AttributionError
from attribution.estimators import ESTIMATORS, Evidence, Terms
from attribution.intervals import BLOCK, Moved, Part, blocks, deviations, moments_of, ratio
from attribution.log import counted_in_frame
from attribution.moments import Moments
from attribution.questions import REWARD, ROWS, Key, Question
from attribution.targets import Predicted, Readings, ranges, read
from attribution.trials import centred

FloatArray = npt.NDArray[np.float64]
Columns = dict[Key, FloatArray]
_SUMMED = ("rows", "reward", "weight", "top")


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """What a first reading tells.

    Parameters
    ----------
    sums
        By what is summed: over units, numerators, sizes and weights; over rows, what is counted.
    least, most
        The smallest and the largest of what has a range.
    reward_range
        As it was declared, be it by the type of the reward's column.
    """

    sums: Mapping[Key, FloatArray]
    least: Mapping[Key, float]
    most: Mapping[Key, float]
    reward_range: tuple[float, float] | None = None

    def __add__(self, other: Survey) -> Survey:
        return Survey(
            _joined(self.sums, other.sums, add),
            _joined(self.least, other.least, min),
            _joined(self.most, other.most, max),
            self.reward_range or other.reward_range,
        )

    def count(self, *key: str) -> int:
        """A sum that is a number of things."""
        return int(self.sums.get(key, 0))

    def totals(self, question: Question, target: str, name: str) -> list[tuple[float, float]]:
        """Σ numerator and Σ size of each of an estimate's ratios."""
        parts = question.parts(self.sums, target, name)
        return [(float(top), float(size)) for top, size in parts]

    def value(self, question: Question, target: str, name: str) -> float:
        """The estimate."""
        return sum(ratio(*each) for each in self.totals(question, target, name))

    def ranges(self, name: str) -> tuple[tuple[float, float], tuple[float, float]]:
        """What base and gain of a row can be, for one estimator."""
        expected = None
        if ESTIMATORS[name].needs_model:
            expected = self.least["expected",], self.most["expected",]
        return ranges(expected, self.reward_range)

    def guarded(self, question: Question, name: str) -> bool:
        """Whether an estimator's interval may be Cressie–Read's."""
        asked = question.interval in ("auto", "cressie_read") or name == "cressie_read"
        return asked and self.reward_range is not None and not ESTIMATORS[name].biased


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """What a second reading tells.

    Parameters
    ----------
    moved
        By how much each weight's mean, estimate and difference moves without each unit in turn.
    moments
        What Cressie–Read reads of each estimate and difference.
    heaviest
        The ``tail`` largest sums over units of each target's weights.
    draws
        (c, draws) the bootstrap's sums, if it was asked for.
    """

    tail: int
    moved: Mapping[Key, Moved]
    moments: Mapping[Key, Moments]
    heaviest: Mapping[Key, FloatArray]
    draws: FloatArray | None = None

    def __add__(self, other: Findings) -> Findings:
        heaviest = _joined(self.heaviest, other.heaviest, lambda a, b: np.concatenate([a, b]))
        draws = self.draws
        if other.draws is not None:
            draws = other.draws if draws is None else draws + other.draws
        return Findings(
            self.tail,
            _joined(self.moved, other.moved, add),
            _joined(self.moments, other.moments, add),
            {key: _largest(each, self.tail) for key, each in heaviest.items()},
            draws,
        )


def _joined(
    first: Mapping[Key, Any], second: Mapping[Key, Any], merge: Callable[[Any, Any], Any]
) -> dict[Key, Any]:
    """What either has, merged where both have it."""
    found = dict(first)
    for key, each in second.items():
        found[key] = merge(found[key], each) if key in found else each
    return found


def _largest(values: FloatArray, count: int) -> FloatArray:
    if len(values) <= count:
        return values
    return np.partition(values, len(values) - count)[len(values) - count :]


def surveyed(question: Question, batches: Iterable[pa.RecordBatch]) -> Survey:
    """What a first reading of some batches tells."""
    found = Survey({}, {}, {})
    units = _Units()
    for batch, start in _placed(batches):
        with _counted_from(start):
            found += Survey(
                {("missing",): question.columns.missing(batch).astype(np.float64)}, {}, {}
            )
            portion = _portion(question, batch)
            if portion is not None:
                found += _tallied(portion)
                found += _survey_of(
                    question, units.whole(_unit_columns(question, portion), portion)
                )
    for columns in units.rest():
        found += _survey_of(question, columns)
    return found


def settled(
    question: Question, batches: Iterable[pa.RecordBatch], survey: Survey, part: int = 0
) -> Findings:
    """What a second reading of the same batches tells.

    ``survey`` is that of all parts; ``part`` is this one's number, by which the bootstrap draws.
    """
    found = Findings(tail_size(survey.count("units")) + 1, {}, {}, {})
    draws = None
    if question.interval == "bootstrap":
        count = 2 * sum(len(survey.totals(question, *each)) for each in question.trials)
        draws = PoissonSums(count, (question.seed, part) if part else question.seed)
    units = _Units()
    for batch, start in _placed(batches):
        with _counted_from(start):
            portion = _portion(question, batch)
        if portion is not None:
            columns = _unit_columns(question, portion) | _gap_columns(question, portion, survey)
            found += _findings_of(question, units.whole(columns, portion), survey, draws)
    for columns in units.rest():
        found += _findings_of(question, columns, survey, draws)
    return found if draws is None else replace(found, draws=draws.total())


@dataclass(frozen=True, slots=True, eq=False)
class _Portion:
    """A batch as a log of its own, with the targets read against it.

    ``ids`` (n,) are those of the rows' units, or None where each row is one.
    """

    rows: Rows
    readings: Readings
    model: Predicted | None
    ids: pd.Series[Any] | None

    def terms(self, question: Question, target: str, name: str) -> Terms:
        """The columns of one estimate."""
        estimator = ESTIMATORS[name]
        reading, reward = self.readings.of[target], self.rows.reward
        weight = reading.weight
        if estimator.tuning is not None:
            weight = estimator.tuning.transform(weight, question.tuning[name])
        if not estimator.needs_model or self.model is None:
            return estimator.terms(Evidence(reward, weight, 0.0, reward))
        return estimator.terms(
            Evidence(
                reward, weight, reading.expected[self.model], self.readings.residual[self.model]
            )
        )


def _placed(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[pa.RecordBatch, int]]:
    """Each batch with the number of rows before it."""
    start = 0
    for batch in batches:
        yield batch, start
        start += batch.num_rows


@contextmanager
def _counted_from(start: int) -> Iterator[None]:
    """Refusals of rows that tell where the batch begins."""
    try:
        yield
    except AttributionError as error:
        if error.row is None or not start:
            raise
        raise AttributionError(
            f"{error} Rows are counted from row {start:,}, where their batch begins.",
            count=error.count,
            row=start + error.row,
        ) from error


def _portion(question: Question, batch: pa.RecordBatch) -> _Portion | None:
    """The rows of a batch whose outcome is known, if there are any."""
    known = question.columns.known(batch)
    if not known.any():
        return None
    if known.all():
        return _read(question, batch)
    with counted_in_frame(known):
        return _read(question, batch.filter(pa.array(known)))


def _read(question: Question, batch: pa.RecordBatch) -> _Portion:
    """Rows whose outcomes are all known, with the targets read against them."""
    of = question.columns
    rows = of.rows(batch)
    model = None
    models = {}
    if question.q_hat is not None:
        model = Predicted(_fitting(of.matrix(batch, question.q_hat, "q_hat"), rows, "q_hat"))
        models = {name: model for name in question.estimators if ESTIMATORS[name].needs_model}
    targets = {name: _target(of, batch, name, each) for name, each in question.targets.items()}
    readings = read(targets, rows, rows.propensity, models)
    return _Portion(rows, readings, model, of.units(rows))


def _target(of: LogColumns, batch: pa.RecordBatch, name: str, given: Matrix) -> FloatArray | str:
    """A target as a log in memory takes it: its (n, k) pmf, or the name of a column."""
    if isinstance(given, str) and not is_matrix(batch, given):
        return given
    return of.matrix(batch, given, f"targets.{name}")


def _fitting(matrix: FloatArray, rows: Rows, role: str) -> FloatArray:
    if matrix.shape != (rows.n, rows.k):
        raise AttributionError(
            f"`{role}` has shape {matrix.shape} in a batch of {rows.n} rows. "
            f"It must be {(rows.n, rows.k)}."
        )
    return matrix


def _tallied(portion: _Portion) -> Survey:
    """What rows tell, whatever their units."""
    rows = portion.rows
    sums: Columns = {
        ("n",): np.array(rows.n),
        ("drawn",): np.bincount(rows.action, minlength=rows.k).astype(np.float64),
    }
    least: dict[Key, float] = {REWARD: float(rows.reward.min())}
    most: dict[Key, float] = {REWARD: float(rows.reward.max())}
    if portion.model is not None:
        least["expected",], most["expected",] = portion.model.range
    for name, reading in portion.readings.of.items():
        excess = reading.weight - 1
        sums["alone", name] = np.array((excess * excess).sum())
        least["weight", name] = float(reading.weight.min())
        most["weight", name] = float(reading.weight.max())
        if reading.pmf is not None:
            sums["wanted", name] = np.einsum("ij->j", reading.pmf)
            if rows.pmf is not None:
                sums["beyond", name] = np.array(reading.pmf[rows.pmf == 0].sum())
    return Survey(sums, least, most, rows.reward_range)


def _unit_columns(question: Question, portion: _Portion) -> Columns:
    """What is summed over the rows of each unit: a column, (n,), for each key."""
    rows = portion.rows
    found: Columns = {ROWS: np.ones(rows.n), REWARD: rows.reward}
    for name, reading in portion.readings.of.items():
        found["weight", name] = reading.weight
        for each in question.estimators:
            parts = portion.terms(question, name, each).ratios(1.0)
            for place, (top, _) in enumerate(parts):
                found["top", name, each, str(place)] = top
    if rows.pmf is not None:
        for action in range(rows.k):
            p = rows.pmf[:, action]
            found["excess", str(action)] = (rows.action == action) - p
            found["variance", str(action)] = p * (1 - p)
    return found


def _gap_columns(question: Question, portion: _Portion, survey: Survey) -> Columns:
    """What Cressie–Read reads of the differences between targets, row by row."""
    found: Columns = {}
    for first, second, name in question.pairs:
        if second == LOGGING or not survey.guarded(question, name):
            continue
        sides = [portion.readings.of[each].pmf for each in (first, second)]
        apart = None if sides[0] is None or sides[1] is None else distance(sides[0], sides[1])
        terms = [portion.terms(question, each, name) for each in (first, second)]
        reach = survey.ranges(name)[1]
        found["gap", first, second, name] = gap(terms[0], terms[1], apart, reach)
        found["gap", second, first, name] = gap(terms[1], terms[0], apart, reach)
    return found


class _Units:
    """Sums over units whose rows come in any order."""

    def __init__(self) -> None:
        self._keys: list[Key] = []
        self._ids: list[npt.NDArray[Any]] = []
        self._sums: list[FloatArray] = []
        self._least = BLOCK

    def whole(self, columns: Columns, portion: _Portion) -> Columns:
        """The columns of units that are complete: all where each row is one, else none yet."""
        if portion.ids is None:
            return columns
        self._keys = list(columns)
        self._add(portion.ids.to_numpy(), np.stack(list(columns.values())))
        if sum(map(len, self._ids)) > 2 * self._least:
            self._merge()
        return {}

    def rest(self) -> Iterator[Columns]:
        """The columns of the units that came, some at a time."""
        if not self._ids:
            return
        self._merge()
        for units in blocks(self._sums[0].shape[1]):
            yield dict(zip(self._keys, self._sums[0][:, units], strict=True))

    def _merge(self) -> None:
        ids, sums = np.concatenate(self._ids), np.concatenate(self._sums, axis=1)
        self._ids, self._sums = [], []
        self._add(ids, sums)
        self._least = max(len(self._ids[0]), BLOCK)

    def _add(self, ids: npt.NDArray[Any], values: FloatArray) -> None:
        unit, known = pd.factorize(ids)
        self._ids.append(np.asarray(known))
        self._sums.append(np.stack([np.bincount(unit, weights=each) for each in values]))


def _survey_of(question: Question, columns: Columns) -> Survey:
    """What units tell at a first reading."""
    if not columns:
        return Survey({}, {}, {})
    sums = {key: np.array(each.sum()) for key, each in columns.items() if key[0] in _SUMMED}
    sums["units",] = np.array(len(columns[ROWS]))
    most: dict[Key, float] = {}
    for name in question.targets:
        weight = columns["weight", name]
        sums["squares", name] = np.einsum("i,i->", weight, weight)
        most["heaviest", name] = float(weight.max())
    if question.columns.pmf is not None:
        found = np.empty((3, question.columns.k))
        for action in range(question.columns.k):
            each = columns["excess", str(action)] / columns[ROWS]
            variance = columns["variance", str(action)] / columns[ROWS]
            found[:, action] = each.sum(), variance.sum(), (each * each).sum()
        sums["calibration",] = found
    return Survey(sums, {}, most)


def _findings_of(
    question: Question, columns: Columns, survey: Survey, draws: PoissonSums | None
) -> Findings:
    """What units tell at a second reading."""
    tail = tail_size(survey.count("units")) + 1
    if not columns:
        return Findings(tail, {}, {}, {})
    moved: dict[Key, Moved] = {}
    moments = _difference_moments(question, columns, survey)
    rows = columns[ROWS]
    for name in question.targets:
        weight = columns["weight", name]
        whole = (float(survey.sums["weight", name]), float(survey.sums[ROWS]))
        [away] = deviations([[(weight, rows)]], [whole])
        moved["weight", name] = Moved.of(away)
    apart: dict[tuple[str, str], FloatArray] = {}
    drawn: list[FloatArray] = []
    for target, name in question.trials:
        parts, sums = question.parts(columns, target, name), survey.totals(question, target, name)
        [apart[target, name]] = deviations([parts], sums)
        moved["trial", target, name] = Moved.of(apart[target, name])
        if draws is not None:
            drawn += centred(parts, sums)
        weight = rows if target == LOGGING else columns["weight", target]
        moments["trial", target, name] = moments_of(_total(parts), weight, rows)
    for first, second, name in question.pairs:
        moved["pair", first, second, name] = Moved.of(apart[first, name] - apart[second, name])
    if draws is not None:
        draws.add(drawn, len(rows))
    heaviest: dict[Key, FloatArray] = {
        ("weight", name): _largest(columns["weight", name], tail) for name in question.targets
    }
    return Findings(tail, moved, moments, heaviest)


def _difference_moments(question: Question, columns: Columns, survey: Survey) -> dict[Key, Moments]:
    """What Cressie–Read reads of differences: beside the logging policy, and between targets."""
    found: dict[Key, Moments] = {}
    rows = columns[ROWS]
    for first, second, name in question.pairs:
        if not survey.guarded(question, name):
            continue
        if second == LOGGING:
            gained = _total(question.parts(columns, first, name)) - columns[REWARD]
            weight = columns["weight", first]
            found["pair", first, second, name] = moments_of(gained, weight, rows)
        else:
            for key in (("gap", first, second, name), ("gap", second, first, name)):
                found[key] = moments_of(columns[key], rows)
    return found


def _total(parts: Sequence[Part]) -> FloatArray:
    """Σ (b + w g) of each unit: its numerators together."""
    total: FloatArray = np.sum([top for top, _ in parts], axis=0)
    return total
