"""Lift over a log: of an experiment, of a holdout, and of learning apart from acting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
import pandas as pd

from attribution import (
    AttributionError,
    JoinedUnits,
    LiftReport,
    Mean,
    MetricSpec,
    join_units,
    lift,
    value_of_learning,
)
from attribution.contrasts import Horizon
from attribution.lift_metrics import Better, Metric
from engine.errors import NotFoundError, ReportError
from engine.ids import to_datetime
from engine.logsource import LogSource, within
from engine.workspace import Workspace
from experiments import Experiment, Holdout, UnitRange

Period = Literal["day", "week", "month"]
# ISO years with their weeks, so that the text's order is time's.
_PERIODS: Mapping[Period, str] = {"day": "%Y-%m-%d", "week": "%G-W%V", "month": "%Y-%m"}
# The variant of units that a holdout keeps on the defaults, as the log names it, and of the others.
HELD, DECIDED = "holdout", "decided"


@dataclass(frozen=True, slots=True)
class Asked:
    """What all reports of lift are asked.

    ``metrics`` are those of the surfaces concerned where none is named; ``units`` a share of the
    units. With ``over``, effects by the period (UTC) of the unit's first assignment too.
    """

    as_of_us: int
    metrics: Sequence[str] = ()
    units: UnitRange | None = None
    alpha: float = 0.05
    horizon: Horizon = "always"
    over: Period | None = None


def lift_report(source: LogSource, experiment: str, asked: Asked) -> dict[str, Any]:
    """Lift of an experiment's variants over its baseline: one row a unit, sample ratio first.

    JSON data: ``srm`` and ``results`` as :meth:`attribution.report.LiftReport.to_json` has them,
    and what was left out.

    Raises
    ------
    NotFoundError
        If the experiment or a metric is not declared.
    ReportError
        If the log cannot support the report.
    """
    workspace = source.workspace()
    design = _experiment(workspace, experiment)
    measured = _Measured.of(workspace, _surfaces_of(design), asked.metrics)
    assigned = source.assignments(experiment).to_pandas()
    if assigned.empty:
        raise ReportError(f'no unit was assigned in "{experiment}" yet; nothing to compare')
    joined = _joined(source, assigned, measured, asked)
    report = _compared(joined, measured, asked, design.baseline_variant)
    return {
        "experiment": experiment,
        "owner": workspace.experiment_owners[experiment],
        **report.to_json(),
        "left_out": _left_out(joined),
        "notes": [*report.notes, *measured.notes],
    }


def holdout_report(source: LogSource, holdout: str, asked: Asked) -> dict[str, Any]:
    """Lift of all that is decided over what a holdout keeps on the defaults.

    A unit enters with its first decision on a surface of the holdout, in either group alike; units
    that another holdout keeps are left out. JSON data as of `lift_report`, with ``holdout``.

    Raises
    ------
    NotFoundError
        If the holdout or a metric is not declared.
    ReportError
        If the log cannot support the report.
    """
    workspace = source.workspace()
    declared = _holdout(workspace, holdout)
    surfaces = [id_ for id_ in sorted(workspace.surfaces) if declared.applies_to(id_)]
    measured = _Measured.of(workspace, surfaces, asked.metrics)
    entered = _entered(source, surfaces, holdout)
    if set(entered["variant"]) != {HELD, DECIDED}:
        raise ReportError(
            f'"{holdout}" holds out {int((entered["variant"] == HELD).sum()):,} of '
            f"{len(entered):,} units decided for so far; both groups are needed"
        )
    joined = _joined(source, entered, measured, asked)
    report = _compared(joined, measured, asked, HELD)
    return {
        "holdout": holdout,
        **report.to_json(),
        "left_out": _left_out(joined),
        "notes": [*report.notes, *measured.notes],
    }


def learning_report(
    source: LogSource,
    experiment: str,
    groups: Mapping[str, str],
    holdout: str | None,
    asked: Asked,
) -> dict[str, Any]:
    """What learning was worth apart from acting at all, from an experiment's variants.

    ``groups`` names the variant that is ``learned``, ``random``, ``usual`` or ``none``; with a
    ``holdout``, none are its units, from their first decision on the experiment's surfaces while it
    ran. JSON data: ``pairs`` of groups, each as `lift_report` has them, and what was left out.

    Raises
    ------
    NotFoundError
        If the experiment, the holdout, a variant or a metric is not declared.
    ReportError
        If the log cannot support the report.
    """
    workspace = source.workspace()
    design = _experiment(workspace, experiment)
    surfaces = _surfaces_of(design)
    measured = _Measured.of(workspace, surfaces, asked.metrics)
    named = dict(groups)
    variants = [variant.id for variant in design.variants]
    for name, variant in named.items():
        if variant not in variants:
            raise NotFoundError(
                "group",
                f'{name} is "{variant}", which is no variant of "{experiment}"; '
                f"known: {', '.join(variants)}",
            )
    assigned = source.assignments(experiment).to_pandas()
    notes = list(measured.notes)
    if holdout is not None:
        _holdout(workspace, holdout)
        if "none" in named:
            raise ReportError(
                "`--group none` and `--holdout` both say who is left alone; give one of them"
            )
        if HELD in variants:
            raise ReportError(f'"{experiment}" has a variant called "{HELD}"; rename it')
        held = _entered(source, surfaces, holdout, running=experiment)
        factors = assigned["factors"]
        assigned = pd.concat([assigned, held[held["variant"] == HELD]], ignore_index=True)
        named["none"] = HELD
        ramps = {msgspec.json.decode(text)[f"ramp.{experiment}"] for text in factors.unique()}
        if len(ramps) > 1:
            notes.append(
                f'the ramp of "{experiment}" was changed while it ran: units that came back after '
                "a raise entered later here than they would have in the holdout"
            )
    assigned = assigned[assigned["variant"].isin(named.values())]
    if assigned.empty:
        raise ReportError(f'no unit was assigned in "{experiment}" yet; nothing to compare')
    joined = _joined(source, assigned.assign(id=experiment), measured, asked)
    try:
        pairs = value_of_learning(
            joined.frame,
            variant="variant",
            groups=named,
            metrics=measured.metrics,
            probability="probability",
            unit="unit",
            alpha=asked.alpha,
            horizon=asked.horizon,
            over=None if asked.over is None else "period",
        )
    except AttributionError as error:
        raise ReportError(str(error)) from error
    return {
        "experiment": experiment,
        "holdout": holdout,
        "owner": workspace.experiment_owners[experiment],
        "groups": named,
        "pairs": {name: report.to_json() for name, report in pairs.items()},
        "left_out": _left_out(joined),
        "notes": [*next(iter(pairs.values())).notes, *notes],
    }


@dataclass(frozen=True, slots=True)
class _Measured:
    """The metrics of some surfaces: how outcomes make them, and how lift compares them.

    A name that two surfaces declare otherwise stands for two numbers, so that no report of both
    surfaces can have it: it is left out, and refused where it is asked for.
    """

    specs: tuple[MetricSpec, ...]
    metrics: tuple[Metric, ...]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, workspace: Workspace, surfaces: Sequence[str], names: Sequence[str]) -> _Measured:
        """Those named, or all of them; guardrails and reward say which direction is better."""
        declared: dict[str, dict[str, MetricSpec]] = {}
        for surface in surfaces:
            for name, spec in workspace.surfaces[surface].metrics.items():
                declared.setdefault(name, {})[surface] = spec
        for name in names:
            if name not in declared:
                known = ", ".join(declared) or "none"
                raise NotFoundError("metric", f'is "{name}", which is not declared; known: {known}')
        if not declared:
            raise ReportError(f"{', '.join(surfaces)} declare no metric; declare one")
        differ = {
            name: f'"{name}" is declared otherwise on {" and on ".join(sorted(of))}; '
            "declare it alike, or under two names"
            for name, of in declared.items()
            if len(set(of.values())) > 1
        }
        for name in names:
            if name in differ:
                raise ReportError(f"metric {differ[name]}")
        asked = [name for name in names or declared if name not in differ]
        if not asked:
            raise ReportError(f"metric {'; '.join(differ.values())}")
        specs = tuple(next(iter(declared[name].values())) for name in asked)
        of = [workspace.surfaces[id_] for id_ in surfaces]
        guards = {guard.metric: guard for surface in of for guard in surface.guardrails}
        weights = {name: weight for surface in of for name, weight in surface.reward.items()}
        metrics = []
        for spec in specs:
            guard, weight = guards.get(spec.name), weights.get(spec.name, 0.0)
            better: Better | None = None
            if guard is not None:
                better = guard.direction
            elif weight:
                better = "up" if weight > 0 else "down"
            margin = None if guard is None else guard.margin
            metrics.append(Mean(spec.name, resting=spec.default, better=better, margin=margin))
        left = () if names else tuple(f"left out: metric {said}" for said in differ.values())
        return cls(specs, tuple(metrics), left)


def _experiment(workspace: Workspace, id_: str) -> Experiment:
    for experiment in workspace.design.experiments:
        if experiment.id == id_:
            return experiment
    known = ", ".join(e.id for e in workspace.design.experiments) or "none"
    raise NotFoundError("experiment", f'is "{id_}", which is not declared; known: {known}')


def _holdout(workspace: Workspace, id_: str) -> Holdout:
    for holdout in workspace.design.holdouts:
        if holdout.id == id_:
            return holdout
    known = ", ".join(h.id for h in workspace.design.holdouts) or "none"
    raise NotFoundError("holdout", f'is "{id_}", which is not declared; known: {known}')


def _surfaces_of(experiment: Experiment) -> list[str]:
    return sorted({slot.partition(".")[0] for slot in experiment.slots})


def _entered(
    source: LogSource, surfaces: Sequence[str], holdout: str, *, running: str | None = None
) -> pd.DataFrame:
    """Each unit's first decision under a holdout: held by it, or by none, with the probability.

    Decisions of revisions in which the holdout did not cover the surface do not count, nor,
    with ``running``, those in which that experiment did not run.
    """
    wanted = ["unit", "decided_at", "revision", "surface", "path", "path_probability"]
    parts = []
    for surface in surfaces:
        choices = source.choices(surface).to_pandas()
        served = choices["fallback"].isna() & (choices["origin"] != "import")
        parts.append(choices.loc[served, wanted])
    rows = pd.concat(parts, ignore_index=True)
    counts = np.zeros(len(rows), dtype=bool)
    passing, held = np.ones(len(rows)), np.zeros(len(rows), dtype=bool)
    for (digest, surface), index in rows.groupby(["revision", "surface"]).indices.items():
        design = source.revision(str(digest)).design
        here = [h for h in design.holdouts if h.applies_to(str(surface))]
        runs = running is None or any(
            e.id == running and e.state == "running" for e in design.experiments
        )
        counts[index] = runs and holdout in {h.id for h in here}
        passing[index] = np.prod([1 - h.share for h in here])
        path = rows["path"].iloc[index]
        held[index] = (path == holdout).to_numpy()
        elsewhere = path.isin([h.id for h in here if h.id != holdout])
        counts[index] &= ~elsewhere.to_numpy()
    rows["variant"] = np.where(held, HELD, DECIDED)
    rows["probability"] = np.where(held, rows["path_probability"], passing)
    first = rows[counts].sort_values("decided_at", kind="stable").drop_duplicates("unit")
    first = first.rename(columns={"decided_at": "assigned_at"}).assign(id=holdout)
    named: pd.DataFrame = first[["id", "unit", "variant", "probability", "assigned_at"]]
    return named


def _joined(
    source: LogSource, assigned: pd.DataFrame, measured: _Measured, asked: Asked
) -> JoinedUnits:
    """One row for each unit selected, with its metrics and, if asked, its period."""
    if asked.units is not None:
        assigned = assigned[within(asked.units, assigned["unit"])]
    if assigned.empty:
        raise ReportError("no unit that was assigned is among those selected; select others")
    try:
        joined = join_units(
            assigned.rename(columns={"id": "experiment"}),
            source.outcomes([spec.name for spec in measured.specs]).to_pandas(),
            measured.specs,
            pd.Timestamp(to_datetime(asked.as_of_us)),
        )
    except AttributionError as error:
        raise ReportError(str(error)) from error
    if asked.over is not None:
        began = joined.frame["assigned_at"].dt.tz_convert("UTC")
        joined.frame["period"] = began.dt.strftime(_PERIODS[asked.over])
    return joined


def _compared(joined: JoinedUnits, measured: _Measured, asked: Asked, baseline: str) -> LiftReport:
    try:
        return lift(
            joined.frame,
            variant="variant",
            baseline=baseline,
            metrics=measured.metrics,
            probability="probability",
            unit="unit",
            alpha=asked.alpha,
            horizon=asked.horizon,
            over=None if asked.over is None else "period",
        )
    except AttributionError as error:
        raise ReportError(str(error)) from error


def _left_out(joined: JoinedUnits) -> dict[str, Any]:
    return {
        "open_windows": dict(joined.open),
        "late_outcomes": dict(joined.late),
        "units_in_several_variants": joined.conflicts,
    }
