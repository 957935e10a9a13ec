"""Roll-ups: all that lift needs of the units, as moments by cell; stored, merged, asked again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from attribution.errors import AttributionError, refuse_rows
from attribution.lift_metrics import Metric, Quantile, as_metrics
from attribution.log import as_pandas, column, numbers, refuse_repeats
from attribution.moments import Moments

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
BoolArray = npt.NDArray[np.bool_]
Probability = str | Mapping[str, float] | None

VARIANT, PROBABILITY = "variant", "probability"
# Where probabilities vary, a unit stands for 1/p: beyond a billion, squares of it lose the others.
LEAST_CHANCE = 1e-9
UNLIKELY = (
    "Such a unit would stand for more than a billion: check what was logged, or leave it out."
)


@dataclass(frozen=True, slots=True, eq=False)
class Rollup:
    """Moments of metrics by cell: variant, assignment probability, and what else was asked.

    Two roll-ups of different units merge with ``+``, so that a day's is made once, when the day's
    units have matured, and a report over any days reads no row.

    Parameters
    ----------
    keys
        One row for each of c cells: ``variant``, ``probability`` (missing if none was logged),
        and the columns of ``by``.
    metrics
        The metrics of which moments are kept; a quantile has none.
    assigned
        (c,) how many units were assigned, matured or not.
    moments
        By metric's name, moments of its columns over the matured units of each cell.
    """

    keys: pd.DataFrame
    metrics: tuple[Metric, ...]
    assigned: IntArray
    moments: Mapping[str, Moments]

    @property
    def key_names(self) -> list[str]:
        return [str(name) for name in self.keys.columns]

    def __add__(self, other: Rollup) -> Rollup:
        """The roll-up of the units of both."""
        if self.metrics != other.metrics or self.key_names != other.key_names:
            raise AttributionError(
                "The roll-ups differ in metrics or keys. Roll both up with the same arguments."
            )
        return Rollup(
            pd.concat([self.keys, other.keys], ignore_index=True),
            self.metrics,
            np.concatenate([self.assigned, other.assigned]),
            {name: mine.joined(other.moments[name]) for name, mine in self.moments.items()},
        ).merged(self.key_names)

    def merged(self, by: Sequence[str]) -> Rollup:
        """The roll-up by these keys only, its cells in their order."""
        group, first = _grouped(self.keys, by)
        count = len(first)
        assigned = np.zeros(count, np.intp)
        np.add.at(assigned, group, self.assigned)
        return Rollup(
            self.keys[list(by)].iloc[first].reset_index(drop=True),
            self.metrics,
            assigned,
            {name: each.merged(group, count) for name, each in self.moments.items()},
        )

    def only(self, cells: npt.ArrayLike) -> Rollup:
        """Some of the cells: ``cells`` (c,) is true for those."""
        chosen = np.asarray(cells, dtype=bool)
        if chosen.shape != (len(self.keys),):
            raise AttributionError(
                f"`cells` has shape {chosen.shape}. It must hold a truth for each of "
                f"{len(self.keys)} cells."
            )
        return Rollup(
            self.keys[chosen].reset_index(drop=True),
            self.metrics,
            self.assigned[chosen],
            {name: each.only(chosen) for name, each in self.moments.items()},
        )

    def to_frame(self) -> pd.DataFrame:
        """The stored form: a row for each cell and metric, with lists of means and co-moments."""
        parts = []
        for name, each in self.moments.items():
            part = self.keys.assign(metric=name, assigned=self.assigned, n=each.n, away=each.away)
            part["mean"] = pd.Series(each.mean.tolist())
            part["m2"] = pd.Series(each.m2.reshape(len(each.n), -1).tolist())
            parts.append(part)
        return pd.concat(parts, ignore_index=True)

    @classmethod
    def from_frame(cls, frame: Any, metrics: Sequence[str | Metric]) -> Rollup:
        """Read what `to_frame` gave, of these metrics.

        Raises
        ------
        AttributionError
            If a metric is not there, or was stored with other columns.
        """
        table = as_pandas(frame)
        column(table, "metric", "frame")
        # Columns are taken out once: a frame asked for the rows of each metric costs more than
        # the report that is made of them.
        stored = table["metric"].to_numpy(dtype=object)
        n, away, means, squares = (table[name].to_numpy() for name in ("n", "away", "mean", "m2"))
        own = {"metric", "assigned", "n", "away", "mean", "m2"}
        made = as_metrics(metrics, None)
        moments, rows = {}, np.empty(0, np.intp)
        for metric in made:
            rows = np.flatnonzero(stored == metric.name)
            d = len(metric.columns)
            if not len(rows) or {len(mean) for mean in means[rows]} != {d}:
                raise AttributionError(
                    f"`metrics` names {metric.name!r} with {d} columns, which the stored roll-up "
                    f"does not hold. It holds: {', '.join(sorted(set(stored)))}."
                )
            moments[metric.name] = Moments(
                n[rows].astype(np.intp),
                np.array(list(means[rows]), dtype=np.float64),
                np.array(list(squares[rows]), dtype=np.float64).reshape(-1, d, d),
                away[rows].astype(np.intp),
            )
        keys = [name for name in table.columns if name not in own]
        cells = table[keys].iloc[rows].reset_index(drop=True)
        assigned = table["assigned"].to_numpy(np.intp)[rows]
        return cls(cells, made, assigned, moments)


def roll_up(
    units: Any,
    *,
    variant: str,
    metrics: Sequence[str | Metric],
    probability: Probability = None,
    covariates: Sequence[str] | None = None,
    by: Sequence[str] = (),
    unit: str | None = None,
) -> Rollup:
    """Moments of the metrics of one row a unit, by variant, probability and the columns of ``by``.

    Arguments are those of `lift`. A path of Parquet files is read by DuckDB in one pass, in
    memory that does not grow with the number of rows; anything else is taken as a frame.

    Raises
    ------
    AttributionError
        If a column, a value or a probability is not valid, or a unit repeats.
    """
    made = tuple(m for m in as_metrics(metrics, covariates) if not isinstance(m, Quantile))
    if isinstance(units, str | PathLike):
        # DuckDB is loaded where a file is asked about, and by nothing else.
        from attribution.scan import scan  # noqa: PLC0415

        return scan(units, variant, made, probability, tuple(by), unit)
    table = as_pandas(units)
    once(table, unit)
    keys, cell = _cells(table, variant, probability, by)
    values = {name: numbers(table, name, "metrics") for m in made for name in m.columns}
    moments = {
        metric.name: _moments(metric, {name: values[name] for name in metric.columns}, cell, keys)
        for metric in made
    }
    assigned = np.bincount(cell, minlength=len(keys))
    return Rollup(keys, made, assigned, moments)


def once(table: pd.DataFrame, unit: str | None) -> None:
    """Refuse a frame in which a unit has two rows."""
    if unit is None:
        return
    refuse_repeats(table, unit, "unit", "Lift's row is the unit: aggregate each unit to one row.")


def assigned_variants(table: pd.DataFrame, variant: str) -> pd.Series[str]:
    """Each row's variant, as text."""
    assigned = column(table, variant, "variant")
    refuse_rows(
        assigned.isna().to_numpy(), variant, "is missing", "Leave out units that were not assigned."
    )
    return assigned.astype("string").astype(object)


def chances(table: pd.DataFrame, assigned: pd.Series[str], probability: Probability) -> FloatArray:
    """(n,) each unit's probability of the variant it got; NaN where none is known."""
    if probability is None:
        return np.full(len(table), np.nan)
    if isinstance(probability, str):
        chance = numbers(table, probability, "probability")
        refuse_rows(
            ~((chance > 0) & (chance <= 1)),
            probability,
            "is not in (0, 1]",
            "Log the probability with which the unit was assigned.",
            chance,
        )
        said = f"is below {LEAST_CHANCE:g}"
        refuse_rows(chance < LEAST_CHANCE, probability, said, UNLIKELY, chance)
        return chance
    shares = declared_shares(probability, assigned.unique().tolist())
    return np.array([shares[name] for name in assigned], dtype=np.float64)


def refuse_taken(by: Sequence[str], variant: str, probability: Probability) -> None:
    """Refuse a column of ``by`` that would stand in the place of the variant or its probability."""
    for name, own in ((VARIANT, variant), (PROBABILITY, probability)):
        if name in by and name != own:
            raise AttributionError(
                f"{name!r} is a column to report by, but the {name} of a unit is {own!r} and a "
                f"roll-up calls that {name!r}. Rename the column."
            )


def declared_shares(probability: Mapping[str, float], found: Sequence[str]) -> dict[str, float]:
    """The declared share of each variant, declared or found."""
    shares = {}
    for name in sorted({*probability, *found}):
        share = probability.get(name)
        if share is None or not LEAST_CHANCE <= share <= 1:
            raise AttributionError(
                f"`probability` of variant {name!r} is {share}. It must lie in "
                f"[{LEAST_CHANCE:g}, 1]."
            )
        shares[name] = float(share)
    total = sum(shares.values())
    if total > 1 + 1e-6:
        raise AttributionError(
            f"`probability` sums to {total:g} over {', '.join(shares)}. Declare the share of all "
            "units that each variant gets; what they leave is assigned to none."
        )
    return shares


def lost_variants(keys: pd.DataFrame, probability: Probability) -> pd.DataFrame:
    """The cells, with one of no units for each declared variant that nobody got."""
    if not isinstance(probability, Mapping):
        return keys
    lost = sorted(set(probability) - set(keys[VARIANT]))
    if not lost:
        return keys
    more = pd.DataFrame({VARIANT: lost, PROBABILITY: [probability[name] for name in lost]})
    for name in keys.columns[2:]:
        more[name] = keys[name].iloc[0]
    return pd.concat([keys, more], ignore_index=True)


def _cells(
    table: pd.DataFrame, variant: str, probability: Probability, by: Sequence[str]
) -> tuple[pd.DataFrame, IntArray]:
    """The cells, and each row's."""
    assigned = assigned_variants(table, variant)
    keys = pd.DataFrame({VARIANT: assigned, PROBABILITY: chances(table, assigned, probability)})
    refuse_taken(by, variant, probability)
    for name in by:
        values = column(table, name, "by")
        refuse_rows(values.isna().to_numpy(), name, "is missing", "Give every unit its value.")
        keys[name] = values
    cell, first = _grouped(keys, [str(name) for name in keys.columns])
    return lost_variants(keys.iloc[first].reset_index(drop=True), probability), cell


def _grouped(keys: pd.DataFrame, by: Sequence[str]) -> tuple[IntArray, IntArray]:
    """Each row's group by these columns, in their order, and the first row of each group."""
    code: IntArray = np.zeros(len(keys), np.intp)
    for name in by:
        codes, values = pd.factorize(keys[name], sort=True, use_na_sentinel=False)
        code = code * len(values) + codes
    _, first, group = np.unique(code, return_index=True, return_inverse=True)
    return group.astype(np.intp), first.astype(np.intp)


def _moments(
    metric: Metric, values: Mapping[str, FloatArray], cell: IntArray, keys: pd.DataFrame
) -> Moments:
    rows, known = prepared_rows(metric, values)
    return Moments.of(rows[known], cell[known], len(keys), metric.resting)


def prepared_rows(metric: Metric, values: Mapping[str, FloatArray]) -> tuple[FloatArray, BoolArray]:
    """(n, d) values of a metric's columns as they enter, and (n,) which rows have all of them."""
    for name, each in values.items():
        refuse_rows(
            np.isinf(each), name, "is infinite", "Give finite numbers; leave out the unknown."
        )
    first = metric.prepared(values[metric.column])
    rows = np.column_stack([first, *(values[name] for name in metric.columns[1:])])
    known: BoolArray = np.asarray(~np.isnan(rows).any(axis=1))
    lacking = known_outcome(metric, rows) & ~known
    refuse_rows(
        lacking,
        " or ".join(metric.covariates),
        "is missing where the metric is known",
        "Fill covariates with a fixed value, such as their mean before the experiment.",
    )
    return rows, known


def known_outcome(metric: Metric, rows: FloatArray) -> BoolArray:
    """(n,) whether the outcome's own columns are all there."""
    return np.asarray(~np.isnan(rows[:, : len(metric.outcomes)]).any(axis=1))
