"""Where lift has its units from: a frame, Parquet files, or a roll-up without their rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from attribution.errors import AttributionError
from attribution.lift_metrics import Metric, Quantile
from attribution.log import as_pandas, numbers
from attribution.rollups import (
    PROBABILITY,
    VARIANT,
    Probability,
    Rollup,
    assigned_variants,
    prepared_rows,
    roll_up,
)

FloatArray = npt.NDArray[np.float64]
Where: TypeAlias = tuple[str, tuple[object, ...]] | None
"""A column and the values to which the units are restricted."""


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """The units as moments by cell and, where there are rows, a way to read columns of them."""

    rollup: Rollup
    read: Callable[[Sequence[str]], pd.DataFrame] | None
    variant: str

    def rows(self, metric: Metric, where: Where) -> tuple[FloatArray, pd.Series[str]]:
        """(n, d) known values of a metric's columns, and each row's variant."""
        if self.read is None:
            raise AttributionError(
                f"`metrics` has {metric.name!r}, which needs the rows of the units: a quantile, or "
                "Lin's adjustment. A roll-up has none; pass the units, or leave it out."
            )
        wanted = [self.variant, *metric.columns, *([] if where is None else [where[0]])]
        table = self.read(list(dict.fromkeys(wanted)))
        if where is not None:
            table = table[table[where[0]].isin(where[1]).to_numpy()].reset_index(drop=True)
        values = {name: numbers(table, name, "metrics") for name in metric.columns}
        rows, known = prepared_rows(metric, values)
        return rows[known], assigned_variants(table, self.variant)[known]


def units_of(
    units: Any,
    variant: str,
    metrics: tuple[Metric, ...],
    probability: Probability,
    by: tuple[str, ...],
    unit: str | None,
) -> Units:
    """The units of a frame, of Parquet files or of a roll-up, with the keys of ``by``."""
    if isinstance(units, Rollup):
        return Units(_of_rollup(units, metrics, by), None, VARIANT)
    if isinstance(units, str | PathLike):
        rollup = roll_up(
            units, variant=variant, metrics=metrics, probability=probability, by=by, unit=unit
        )
        return Units(rollup, lambda names: pd.read_parquet(units, columns=list(names)), variant)
    table = as_pandas(units)
    rollup = roll_up(
        table, variant=variant, metrics=metrics, probability=probability, by=by, unit=unit
    )
    return Units(rollup, lambda names: table[list(names)], variant)


def _of_rollup(units: Rollup, metrics: tuple[Metric, ...], by: tuple[str, ...]) -> Rollup:
    stored = {metric.name: metric for metric in units.metrics}
    for metric in metrics:
        if isinstance(metric, Quantile):
            continue
        held = stored.get(metric.name)
        if held is None or held.columns != metric.columns:
            raise AttributionError(
                f"`metrics` has {metric.name!r} of {', '.join(metric.columns)}, which the roll-up "
                f"does not hold. It holds: {', '.join(stored)}."
            )
    for name in by:
        if name not in units.keys.columns:
            raise AttributionError(
                f"`{name}` is no key of the roll-up. Keys: {', '.join(units.keys.columns)}."
            )
    return units.merged(list(dict.fromkeys([VARIANT, PROBABILITY, *by])))


def variant_names(rollup: Rollup, variant: str, baseline: str) -> list[str]:
    """The variants, baseline first, the others sorted."""
    found = set(rollup.keys[VARIANT])
    if baseline not in found:
        raise AttributionError(
            f"`baseline` is {baseline!r}, which no unit has. "
            f"Variants: {', '.join(sorted(found)) or 'none'}. They are read as text."
        )
    if len(found) < 2:
        raise AttributionError(
            f"`{variant}` holds only {baseline!r}. Lift needs a second variant to compare."
        )
    return [baseline, *sorted(found - {baseline})]
