"""Clusters: units that were randomised together count as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from attribution.errors import AttributionError, refuse_rows
from attribution.lift_metrics import Metric, Quantile, Ratio
from attribution.log import column, numbers
from attribution.rollups import Probability, once, prepared_rows


def by_cluster(
    table: pd.DataFrame,
    cluster: str,
    metrics: Sequence[Metric],
    variant: str,
    probability: Probability,
    unit: str | None,
) -> tuple[pd.DataFrame, tuple[Metric, ...]]:
    """One row a cluster, with sums, and the metrics as ratios of those.

    A mean over units is the ratio of two sums over clusters, Σ y / Σ units, whose variance by the
    delta method knows that the units of a cluster are alike. Covariates become their sums.

    Raises
    ------
    AttributionError
        If a cluster has two variants or two probabilities, or a metric is a quantile.

    References
    ----------
    Deng, Lu & Litz (2017), Trustworthy Analysis of Online A/B Tests: Pitfalls, Challenges and
    Solutions, WSDM.
    """
    for metric in metrics:
        if isinstance(metric, Quantile):
            raise AttributionError(
                f"`metrics` has {metric.name!r}: a quantile is not made by cluster. Leave it out."
            )
    once(table, unit)
    ids = column(table, cluster, "cluster")
    refuse_rows(ids.isna().to_numpy(), cluster, "is missing", "Give every unit its cluster.")
    code, _ = pd.factorize(ids)
    shared = [variant, *([probability] if isinstance(probability, str) else [])]
    first = ~ids.duplicated().to_numpy()
    out: dict[str, Any] = {}
    for name in shared:
        values = column(table, name, name)
        repeated = values[first].to_numpy()[code]
        refuse_rows(
            (values.to_numpy() != repeated) & values.notna().to_numpy(),
            name,
            f"differs within a {cluster!r}",
            "What was randomised has one variant: choose the column that was.",
            values.to_numpy(),
        )
        out[name] = values[first].to_numpy()
    made = []
    for metric in metrics:
        numbers_of = {name: numbers(table, name, "metrics") for name in metric.columns}
        rows, known = prepared_rows(metric, numbers_of)
        sums = np.column_stack(
            [np.bincount(code[known], rows[known, j], first.sum()) for j in range(rows.shape[1])]
        )
        count = np.bincount(code[known], minlength=first.sum()).astype(np.float64)
        # A cluster of which no unit has matured is missing, as such a unit would be.
        sums[count == 0], count[count == 0] = np.nan, np.nan
        names = [f"{metric.name}.{name}" for name in (*metric.columns, "units")]
        out |= dict(zip(names, [*sums.T, count], strict=True))
        per = names[1] if isinstance(metric, Ratio) else names[-1]
        made.append(
            Ratio(
                names[0],
                metric.name,
                per=per,
                better=metric.better,
                margin=metric.margin,
                covariates=tuple(names[len(metric.outcomes) : -1]),
            )
        )
    for name in set(table.columns) - set(out):
        if first.sum() == table.groupby(code)[name].nunique(dropna=False).sum():
            out[name] = table[name][first].to_numpy()
    return pd.DataFrame(out), tuple(made)
