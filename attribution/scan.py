"""Roll-ups of Parquet files by DuckDB: one pass, whatever their size.

Sums are taken of values less a number near their mean, so that they keep the variance at any mean
for the price of plain sums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike, fspath

import duckdb
import numpy as np
import numpy.typing as npt
import pandas as pd

from attribution.errors import AttributionError
from attribution.lift_metrics import Count, Metric, Proportion, Retention
from attribution.moments import Moments
from attribution.rollups import (
    LEAST_CHANCE,
    PROBABILITY,
    UNLIKELY,
    VARIANT,
    Probability,
    Rollup,
    declared_shares,
    lost_variants,
    refuse_taken,
)

FloatArray = npt.NDArray[np.float64]

# What DuckDB may hold at once; a group-by of few cells needs far less.
MEMORY = "128MB"
# Rows from which the numbers near the means are taken.
SAMPLE = 10_000
# A shift this many standard deviations off costs the variance four of its sixteen digits.
FARTHEST = 100.0


def scan(
    path: str | PathLike[str],
    variant: str,
    metrics: tuple[Metric, ...],
    probability: Probability,
    by: tuple[str, ...],
    unit: str | None,
) -> Rollup:
    """As `attribution.rollups.roll_up` of a Parquet path, which may be a pattern of files."""
    with duckdb.connect(config={"memory_limit": MEMORY}) as connection:
        try:
            table = _Table(connection, fspath(path))
            table.check(variant, metrics, probability, by, unit)
            # What is a key already is no second one.
            by = tuple(name for name in by if name not in {VARIANT, PROBABILITY})
            return table.rolled_up(variant, metrics, probability, by)
        except (duckdb.IOException, duckdb.InvalidInputException) as error:
            # What follows the first line is our own SQL.
            said = str(error).splitlines()[0]
            raise AttributionError(
                f"`units` is {fspath(path)!r}, which cannot be read: {said}. Name Parquet files."
            ) from error


class _Table:
    """A Parquet relation, asked in SQL that we compose of its own column names."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, path: str) -> None:
        self._connection = connection
        self._source = f"read_parquet({_text(path)}, file_row_number = true)"
        described = connection.execute(f"DESCRIBE SELECT * FROM {self._source}").fetchall()  # noqa: S608
        self._types = {name: kind for name, kind, *_ in described if name != "file_row_number"}

    def check(
        self,
        variant: str,
        metrics: Sequence[Metric],
        probability: Probability,
        by: Sequence[str],
        unit: str | None,
    ) -> None:
        """Refuse what `roll_up` refuses of a frame, but for what the pass itself finds."""
        roles = [("variant", variant), *(("by", name) for name in by)]
        roles += [("metrics", name) for metric in metrics for name in metric.columns]
        if isinstance(probability, str):
            roles.append(("probability", probability))
        if unit is not None:
            roles.append(("unit", unit))
        for role, name in roles:
            if name not in self._types:
                raise AttributionError(
                    f"`{role}` is {name!r}, which is not a column. "
                    f"Columns: {', '.join(self._types)}."
                )
            if role in {"metrics", "probability"} and not _is_numeric(self._types[name]):
                raise AttributionError(
                    f"`{role}` is column {name!r} of type {self._types[name]}. "
                    "It must hold numbers."
                )
        refuse_taken(by, variant, probability)
        if unit is not None:
            self._refuse(f"{_name(unit)} IS NULL", unit, "is missing", "Give every row its unit.")
            self._refuse(
                f"{_name(unit)} IN (SELECT {_name(unit)} FROM {self._source} "  # noqa: S608
                f"GROUP BY 1 HAVING count(*) > 1)",
                unit,
                "has more than one row",
                "Lift's row is the unit: aggregate each unit to one row.",
            )

    def rolled_up(
        self,
        variant: str,
        metrics: tuple[Metric, ...],
        probability: Probability,
        by: tuple[str, ...],
    ) -> Rollup:
        shifts = self._shifts(metrics)
        frame = self._pass(variant, metrics, probability, by, shifts)
        if _holds_nan(frame):
            self._leave_out_nan(metrics)
            shifts = self._shifts(metrics)
            frame = self._pass(variant, metrics, probability, by, shifts)
        again = _far(frame, metrics, shifts)
        if again:
            frame = self._pass(variant, metrics, probability, by, shifts | again)
            shifts = shifts | again
        if frame[VARIANT].isna().any():
            self._refuse(
                f"{_name(variant)} IS NULL",
                variant,
                "is missing",
                "Leave out units that were not assigned.",
            )
        for name in by:
            if frame[name].isna().any():
                repair = "Give every unit its value."
                self._refuse(f"{_name(name)} IS NULL", name, "is missing", repair)
        if isinstance(probability, str) and not frame[PROBABILITY].between(LEAST_CHANCE, 1).all():
            self._refuse(
                f"NOT coalesce({_name(probability)} > 0 AND {_name(probability)} <= 1, false)",
                probability,
                "is not in (0, 1]",
                "Log the probability with which the unit was assigned.",
            )
            self._refuse(
                f"{_name(probability)} < {_number(LEAST_CHANCE)}",
                probability,
                f"is below {LEAST_CHANCE:g}",
                UNLIKELY,
            )
        frame[VARIANT] = frame[VARIANT].astype(object)
        if isinstance(probability, Mapping):
            shares = declared_shares(probability, frame[VARIANT].unique().tolist())
            frame[PROBABILITY] = frame[VARIANT].map(shares).astype(np.float64)
        keys = frame[[VARIANT, PROBABILITY, *by]]
        whole = lost_variants(keys, probability)
        lost = len(whole) - len(keys)
        moments = {}
        for index, metric in enumerate(metrics):
            self._refuse_values(metric, frame, index)
            moments[metric.name] = _moments(frame, metric, index, shifts, lost)
        assigned = np.append(frame["assigned"].to_numpy(np.intp), np.zeros(lost, np.intp))
        return Rollup(whole, metrics, assigned, moments)

    def _leave_out_nan(self, metrics: Sequence[Metric]) -> None:
        """Read NaN as missing from now on; where there is none, asking costs a third of a pass."""
        names = dict.fromkeys(name for metric in metrics for name in metric.columns)
        floats = [name for name in names if self._types[name] in {"FLOAT", "DOUBLE"}]
        cleaned = ", ".join(f"{_not_nan(_name(n))} AS {_name(n)}" for n in floats)
        self._source = f"(SELECT * REPLACE ({cleaned}) FROM {self._source})"  # noqa: S608

    def _shifts(self, metrics: Sequence[Metric]) -> dict[tuple[str, str], float]:
        """A number near the mean of each column of each metric."""
        pairs = [(metric, name) for metric in metrics for name in metric.columns]
        averages = ", ".join(f"avg({_entering(metric, name)})" for metric, name in pairs)
        if not pairs:
            return {}
        row = self._ask(
            f"SELECT {averages} FROM (SELECT * FROM {self._source} LIMIT {SAMPLE})"  # noqa: S608
        ).fetchone()
        found = [0.0] * len(pairs) if row is None else [value or 0.0 for value in row]
        return {
            (metric.name, name): value if np.isfinite(value) else 0.0
            for (metric, name), value in zip(pairs, found, strict=True)
        }

    def _pass(
        self,
        variant: str,
        metrics: Sequence[Metric],
        probability: Probability,
        by: Sequence[str],
        shifts: Mapping[tuple[str, str], float],
    ) -> pd.DataFrame:
        """One row a cell, with the sums of every metric."""
        chance = f"CAST({_name(probability)} AS DOUBLE)" if isinstance(probability, str) else "NULL"
        keys = [f"CAST({_name(variant)} AS VARCHAR) AS {VARIANT}"]
        keys += [f"CAST({chance} AS DOUBLE) AS {PROBABILITY}", *map(_name, by)]
        shifted, sums = [], []
        for index, metric in enumerate(metrics):
            columns = metric.columns
            present = [f"{_entering(metric, name)} IS NOT NULL" for name in columns[1:]]
            for j, name in enumerate(columns):
                value = f"{_entering(metric, name)} - {_number(shifts[metric.name, name])}"
                # Rows with all columns count; the first's own absence needs no test.
                others = [each for k, each in enumerate(present, 1) if k != j]
                others += [f"{_entering(metric, columns[0])} IS NOT NULL"] if j else []
                if others:
                    value = f"CASE WHEN {' AND '.join(others)} THEN {value} END"
                shifted.append(f"{value} AS x{index}_{j}")
            rest = _number(metric.resting - shifts[metric.name, columns[0]])
            sums.append(f"count(x{index}_0) AS n{index}")
            sums.append(f"sum(CAST(x{index}_0 <> {rest} AS INTEGER)) AS away{index}")
            for j in range(len(columns)):
                sums.append(f"sum(x{index}_{j}) AS s{index}_{j}")
                sums += [
                    f"sum(x{index}_{i} * x{index}_{j}) AS q{index}_{i}_{j}" for i in range(j + 1)
                ]
            if columns != metric.outcomes:
                outcome = " AND ".join(
                    f"{_entering(metric, n)} IS NOT NULL" for n in metric.outcomes
                )
                shifted.append(f"({outcome}) AS o{index}")
                sums.append(f"count(*) FILTER (o{index}) AS o{index}")
            if (fault := _fault(metric)) is not None:
                shifted.append(f"({fault[0]}) AS f{index}")
                sums.append(f"count(*) FILTER (f{index}) AS f{index}")
        groups = ", ".join([VARIANT, PROBABILITY, *map(_name, by)])
        asked = ", ".join(["count(*) AS assigned", *sums])
        inner = ", ".join([*keys, *shifted])
        found: pd.DataFrame = self._ask(
            f"SELECT {groups}, {asked} FROM (SELECT {inner} FROM {self._source}) "  # noqa: S608
            f"GROUP BY {groups} ORDER BY {groups}"
        ).df()
        return found

    def _ask(self, query: str) -> duckdb.DuckDBPyConnection:
        return self._connection.execute(query)

    def _refuse_values(self, metric: Metric, frame: pd.DataFrame, index: int) -> None:
        """Refuse infinite values, and those that the kind of metric does not allow."""
        fault = _fault(metric)
        if fault is not None and frame[f"f{index}"].any():
            self._refuse(fault[0], metric.column, fault[1], fault[2])
        for j, name in enumerate(metric.columns):
            if not np.isfinite(frame[f"q{index}_{j}_{j}"].fillna(0)).all():
                self._refuse(
                    f"isinf(CAST({_name(name)} AS DOUBLE))",
                    name,
                    "is infinite",
                    "Give finite numbers; leave out the unknown.",
                )
        if metric.covariates and (frame[f"o{index}"] != frame[f"n{index}"]).any():
            outcome = " AND ".join(f"{_entering(metric, n)} IS NOT NULL" for n in metric.outcomes)
            lacking = " OR ".join(f"{_entering(metric, n)} IS NULL" for n in metric.covariates)
            self._refuse(
                f"{outcome} AND ({lacking})",
                " or ".join(metric.covariates),
                "is missing where the metric is known",
                "Fill covariates with a fixed value, such as their mean before the experiment.",
            )

    def _refuse(self, bad: str, field: str, fault: str, repair: str) -> None:
        """Raise if a row is bad, naming how many and the first."""
        row = self._ask(
            f"SELECT count(*) FILTER ({bad}), count(*), min(file_row_number) FILTER ({bad}) "  # noqa: S608
            f"FROM {self._source}"
        ).fetchone()
        count, total, first = row or (0, 0, None)
        if count:
            raise AttributionError(
                f"`{field}` {fault} in {count:,} of {total:,} rows, first in row {first}. {repair}",
                count=count,
                row=first,
            )


def _entering(metric: Metric, name: str) -> str:
    """A column as it enters a metric, NULL where it is missing."""
    if name != metric.column:
        return f"CAST({_name(name)} AS DOUBLE)"
    value = _known(metric)
    if isinstance(metric, Retention):
        return f"CAST({value} > 0 AS DOUBLE)"
    if np.isfinite(metric.cap):
        value = f"least({value}, {_number(metric.cap)})"
    if np.isfinite(metric.floor):
        value = f"greatest({value}, {_number(metric.floor)})"
    # least and greatest pass over NULL.
    if value.startswith(("least", "greatest")):
        value = f"CASE WHEN {_known(metric)} IS NOT NULL THEN {value} END"
    return value


def _known(metric: Metric) -> str:
    """A metric's column, in which NaN is NULL where anything but a sum is made of it."""
    value = f"CAST({_name(metric.column)} AS DOUBLE)"
    bounded = np.isfinite(metric.cap) or np.isfinite(metric.floor)
    if bounded or isinstance(metric, Proportion | Count | Retention):
        return _not_nan(value)
    return value


def _not_nan(value: str) -> str:
    # isnan and comparisons are answered from the file's statistics, which know of no NaN (DuckDB
    # 2.0.0); isfinite looks.
    return f"CASE WHEN isfinite({value}) OR isinf({value}) THEN {value} END"


def _holds_nan(frame: pd.DataFrame) -> bool:
    """Whether a sum over some values is none: then one of them is NaN."""
    return any(
        bool((frame[f"n{name[1:].partition('_')[0]}"].to_numpy() > 0)[frame[name].isna()].any())
        for name in frame.columns
        if name[0] == "s" and name[1].isdigit()
    )


def _fault(metric: Metric) -> tuple[str, str, str] | None:
    """What a value must not be: a condition, what to say of it, and the repair."""
    name = _known(metric)
    if isinstance(metric, Proportion):
        repair = "A proportion is made of zeros and ones; use Mean for other numbers."
        return f"{name} <> 0 AND {name} <> 1", "is neither 0 nor 1", repair
    if isinstance(metric, Count):
        repair = "Counts are whole numbers from 0; use Mean for other numbers."
        return f"{name} < 0 OR {name} <> round({name})", "is no count", repair
    return None


def _far(
    frame: pd.DataFrame, metrics: Sequence[Metric], shifts: Mapping[tuple[str, str], float]
) -> dict[tuple[str, str], float]:
    """Columns whose shift lay too far from the mean, with a better one."""
    better = {}
    for index, metric in enumerate(metrics):
        n = float(frame[f"n{index}"].sum())
        for j, name in enumerate(metric.columns):
            off = float(frame[f"s{index}_{j}"].sum()) / max(n, 1.0)
            square = float(frame[f"q{index}_{j}_{j}"].sum()) / max(n, 1.0)
            spread = square - off * off
            if np.isfinite(square) and off * off > FARTHEST**2 * max(spread, 0.0) and off:
                better[metric.name, name] = shifts[metric.name, name] + off
    return better


def _moments(
    frame: pd.DataFrame,
    metric: Metric,
    index: int,
    shifts: Mapping[tuple[str, str], float],
    lost: int,
) -> Moments:
    """Centred moments from shifted sums; ``lost`` empty cells follow."""
    d, cells = len(metric.columns), len(frame)
    n = frame[f"n{index}"].to_numpy(np.intp)
    size = np.maximum(n, 1)
    mean, m2 = np.zeros((cells + lost, d)), np.zeros((cells + lost, d, d))
    sums = np.column_stack([frame[f"s{index}_{j}"].fillna(0).to_numpy() for j in range(d)])
    for j, name in enumerate(metric.columns):
        mean[:cells, j] = np.where(n > 0, shifts[metric.name, name] + sums[:, j] / size, 0.0)
        for i in range(j + 1):
            product = (
                frame[f"q{index}_{i}_{j}"].fillna(0).to_numpy() - sums[:, i] * sums[:, j] / size
            )
            m2[:cells, i, j] = m2[:cells, j, i] = product
    more = np.zeros(lost, np.intp)
    away = frame[f"away{index}"].to_numpy(np.intp)
    return Moments(np.append(n, more), mean, m2, np.append(away, more))


def _is_numeric(kind: str) -> bool:
    return kind == "BOOLEAN" or kind.startswith(
        ("TINY", "SMALL", "INT", "BIG", "HUGE", "U", "FLOAT", "DOUBLE", "DECIMAL")
    )


def _name(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _number(value: float) -> str:
    return f"CAST({value!r} AS DOUBLE)"
