"""Joins: outcomes brought to units for lift and to decisions for evaluation.

A row is complete only when its window and lateness have passed; until then it is left out, never
counted as the default. The rules are those of `attribution.metrics`, here over whole frames.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from attribution.errors import AttributionError, refuse_rows
from attribution.log import as_pandas, column, numbers, refuse_repeats
from attribution.metrics import MetricSpec

# Microseconds since the epoch, on every platform.
TimeArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class JoinedUnits:
    """One row for each unit, and what was left out.

    Parameters
    ----------
    frame
        Columns ``unit``, ``variant``, ``probability``, ``assigned_at`` of the first assignment,
        and one for each metric: missing where the unit's window is still open.
    open
        By metric, how many units' windows are open.
    late
        By metric, how many outcomes lay in a window but arrived after its lateness.
    conflicts
        How many units were later assigned another variant; the first stays.
    """

    frame: pd.DataFrame
    open: Mapping[str, int]
    late: Mapping[str, int]
    conflicts: int


@dataclass(frozen=True, slots=True, eq=False)
class JoinedDecisions:
    """Matured decisions with their metrics, and what was left out.

    Parameters
    ----------
    frame
        The decisions that have matured, with a column for each metric and, if weights were
        given, ``reward``.
    open
        How many decisions have not matured.
    late
        By metric, how many outcomes lay in a window but arrived after its lateness.
    """

    frame: pd.DataFrame
    open: int
    late: Mapping[str, int]


def join_units(
    assignments: Any, outcomes: Any, metrics: Sequence[MetricSpec], as_of: pd.Timestamp
) -> JoinedUnits:
    """One row for each unit of one experiment, its outcomes counted from first assignment.

    Parameters
    ----------
    assignments
        Columns ``unit``, ``experiment``, ``variant``, ``probability``, ``assigned_at``, of one
        experiment.
    outcomes
        Columns ``unit``, ``metric``, ``value``, ``occurred_at``, ``received_at``; with
        ``outcome_id`` and ``corrects``, a row that names another replaces its value.
    as_of
        The time of the report, with its zone: units that mature later are open.

    Raises
    ------
    AttributionError
        If a column is missing or not valid, or there is more than one experiment.
    """
    assigned = as_pandas(assignments)
    for name in ("unit", "experiment", "variant", "probability"):
        refuse_rows(
            column(assigned, name, "assignments").isna().to_numpy(),
            name,
            "is missing",
            "Give every assignment its unit, experiment, variant and probability.",
        )
    if (count := assigned["experiment"].nunique()) > 1:
        raise AttributionError(
            f"`experiment` holds {count} experiments. Join the assignments of one at a time."
        )
    started = microseconds(assigned, "assigned_at")
    assigned = assigned.iloc[np.argsort(started, kind="stable")]
    first = assigned.drop_duplicates("unit").reset_index(drop=True)
    differs = assigned["variant"].to_numpy() != (
        assigned["unit"].map(first.set_index("unit")["variant"]).to_numpy()
    )
    conflicts = int(assigned.loc[differs, "unit"].nunique())
    frame = first[["unit", "variant", "probability", "assigned_at"]].copy()
    start = microseconds(frame, "assigned_at")
    events = _events(outcomes, "unit")
    row = pd.Index(frame["unit"]).get_indexer(pd.Index(events["key"]))
    still_open, late = {}, {}
    for spec in metrics:
        mine = (events["metric"] == spec.name).to_numpy() & (row >= 0)
        values, late[spec.name] = _aggregate(spec, events[mine], row[mine], start)
        waiting = start + spec.maturity_us > _instant(as_of)
        frame[spec.name] = np.where(waiting, np.nan, values)
        still_open[spec.name] = int(waiting.sum())
    return JoinedUnits(frame, still_open, late, conflicts)


def join_decisions(
    decisions: Any,
    outcomes: Any,
    metrics: Sequence[MetricSpec],
    as_of: pd.Timestamp,
    reward: Mapping[str, float] | None = None,
) -> JoinedDecisions:
    """Matured decisions with the metrics of their outcomes, for `EvaluationLog.from_frame`.

    Parameters
    ----------
    decisions
        Columns ``decision_id``, ``unit``, ``decided_at``; the others are carried along.
    outcomes
        Columns as for `join_units`, with ``decision_id`` or ``unit`` or both. An outcome that
        names a decision counts for it alone; one that names only a unit counts for every decision
        of the unit whose window holds it.
    as_of
        The time of the report, with its zone. A decision stays out until all metrics mature.
    reward
        Weight of each metric in the column ``reward``, if one is wanted.

    Raises
    ------
    AttributionError
        If a column is missing or not valid, a decision id repeats, or ``reward`` names a metric
        that is not among ``metrics``.
    """
    frame = as_pandas(decisions)
    refuse_repeats(frame, "decision_id", "decisions", "Keep one row for each decision.")
    names = [spec.name for spec in metrics]
    for name in reward or {}:
        if name not in names:
            raise AttributionError(f"`reward` names {name!r}. Known: {', '.join(names)}.")
    start = microseconds(frame, "decided_at")
    longest = max((spec.maturity_us for spec in metrics), default=0)
    mature = start + longest <= _instant(as_of)
    frame, start = frame[mature].reset_index(drop=True), start[mature]
    events, row = _credit(frame, as_pandas(outcomes))
    late = {}
    for spec in metrics:
        mine = (events["metric"] == spec.name).to_numpy()
        frame[spec.name], late[spec.name] = _aggregate(spec, events[mine], row[mine], start)
    if reward is not None:
        frame["reward"] = sum(
            (weight * frame[name] for name, weight in reward.items()), start=np.zeros(len(frame))
        )
    return JoinedDecisions(frame, int((~mature).sum()), late)


def _credit(decisions: pd.DataFrame, outcomes: pd.DataFrame) -> tuple[pd.DataFrame, TimeArray]:
    """Pairs of an outcome and the row of a decision to which it may be credited."""
    has_id, has_unit = "decision_id" in outcomes.columns, "unit" in outcomes.columns
    if not has_id and not has_unit:
        raise AttributionError("`outcomes` has neither `decision_id` nor `unit`. Give one.")
    named = outcomes["decision_id"].notna() if has_id else pd.Series(False, index=outcomes.index)
    parts, rows = [], []
    if named.any():
        direct = _events(outcomes[named], "decision_id")
        row = pd.Index(decisions["decision_id"]).get_indexer(pd.Index(direct["key"]))
        parts.append(direct[row >= 0])
        rows.append(row[row >= 0])
    if has_unit and not named.all():
        by_unit = _events(outcomes[~named], "unit")
        by_unit["root"] += len(outcomes)
        keys = pd.DataFrame(
            {"key": column(decisions, "unit", "decisions"), "row": np.arange(len(decisions))}
        )
        pairs = by_unit.merge(keys, on="key")
        parts.append(pairs.drop(columns="row"))
        rows.append(pairs["row"].to_numpy())
    if not parts:
        return _events(outcomes.iloc[:0], "decision_id" if has_id else "unit"), np.empty(0, int)
    return pd.concat(parts, ignore_index=True), np.concatenate(rows)


def _events(outcomes: Any, key: str) -> pd.DataFrame:
    """Outcomes as columns key, metric, value, occurred, received; times in microseconds."""
    table = as_pandas(outcomes)
    value = numbers(table, "value", "outcomes")
    refuse_rows(~np.isfinite(value), "value", "is not finite", "Give finite numbers.", value)
    events = pd.DataFrame(
        {
            "key": column(table, key, "outcomes").to_numpy(),
            "metric": column(table, "metric", "outcomes").to_numpy(),
            "value": value,
            "occurred": microseconds(table, "occurred_at"),
            "received": microseconds(table, "received_at"),
            "root": np.arange(len(table)),
        }
    )
    if "corrects" in table.columns and table["corrects"].notna().any():
        return _rooted(events, table)
    return events


def _rooted(events: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Events in which a correction is dated as the outcome that it corrects, and shares its root.

    A correction of a correction has the first outcome's root; one of an unknown outcome is left
    out.
    """
    ids = column(table, "outcome_id", "outcomes")
    refuse_rows(
        (ids.duplicated() & ids.notna()).to_numpy(),
        "outcome_id",
        "repeats an earlier row's",
        "Give each outcome an id of its own, so that a correction names one.",
        ids.to_numpy(),
    )
    named = np.flatnonzero(ids.notna())
    found = pd.Index(ids.iloc[named]).get_indexer(pd.Index(table["corrects"]))
    corrects = table["corrects"].notna().to_numpy()
    original = np.where(found >= 0, named[found], -1) if len(named) else found
    root = np.where(corrects, original, np.arange(len(table)))
    # Each pass halves the way to the root, so that no chain is left after these.
    for _ in range(len(table).bit_length()):
        root = np.where(root >= 0, root[root], root)
    refuse_rows(
        (root >= 0) & corrects[root],
        "corrects",
        "leads back to the row itself or to others that do",
        "A correction names an earlier outcome.",
        ids.to_numpy(),
    )
    known = root >= 0
    events["root"] = root
    events["occurred"] = events["occurred"].to_numpy()[root]
    return events[known]


def _aggregate(
    spec: MetricSpec, events: pd.DataFrame, row: npt.NDArray[np.intp], start: TimeArray
) -> tuple[npt.NDArray[np.float64], int]:
    """The metric of each row of ``start``, and how many outcomes came too late for theirs."""
    since, received = events["occurred"].to_numpy() - start[row], events["received"].to_numpy()
    within = (since >= spec.opens_us) & (since <= spec.window_us)
    in_time = within & (received <= start[row] + spec.maturity_us)
    counted = events.assign(row=row)[in_time]
    if counted["root"].duplicated().any():
        # Of an outcome and its corrections the last received in time holds.
        counted = counted.sort_values("received", kind="stable")
        counted = counted.drop_duplicates(["row", "root"], keep="last")
    if spec.aggregate in ("first", "last"):
        counted = counted.sort_values(["occurred", "received", "value"])
    values = np.full(len(start), spec.default, dtype=np.float64)
    groups = counted.groupby("row")["value"]
    if spec.aggregate in ("sum", "mean"):
        found = _exact_sums(counted, groups.agg("sum"), groups.size())
        if spec.aggregate == "mean":
            found = found / groups.size()
    else:
        found = groups.agg(spec.aggregate)
    values[found.index.to_numpy()] = found.to_numpy()
    return values, int((within & ~in_time).sum())


def _exact_sums(
    counted: pd.DataFrame, sums: pd.Series[float], sizes: pd.Series[int]
) -> pd.Series[float]:
    """Sums that are exact before their one rounding, as `metrics.metric_value` makes them."""
    # The sum of two numbers is rounded once as it is.
    many = sizes.index[sizes > 2]
    if len(many):
        some = counted[counted["row"].isin(many)]
        sums.loc[many] = some.groupby("row")["value"].agg(math.fsum).loc[many]
    return sums


def microseconds(table: pd.DataFrame, name: str) -> TimeArray:
    """A column of timestamps as integer microseconds since the epoch, UTC."""
    series = column(table, name, name)
    if not isinstance(series.dtype, pd.DatetimeTZDtype):
        raise AttributionError(
            f"`{name}` has type {series.dtype}. It must hold timestamps with a zone: "
            "convert it with pandas.to_datetime(..., utc=True)."
        )
    refuse_rows(series.isna().to_numpy(), name, "is missing", "Give every row its time.")
    times: TimeArray = series.dt.as_unit("us").astype(np.int64).to_numpy()
    return times


def _instant(as_of: pd.Timestamp) -> int:
    if as_of.tzinfo is None:
        raise AttributionError(f"`as_of` is {as_of}, without a zone. Give it one, such as UTC.")
    return (as_of - pd.Timestamp(0, tz="UTC")) // pd.Timedelta(microseconds=1)
