"""Importing somebody else's log: a table and a mapping become decisions and outcomes like ours.

Ids are a deterministic hash of the source and the row, so that an import which was interrupted,
or is repeated, stores nothing twice. Rows carry ``origin: import``: they are learned from and
evaluated, and cannot be replayed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import numpy as np
import pandas as pd
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from engine.errors import ConfigurationError, EngineError, Fault, RequestError
from engine.ids import Clock, to_microseconds
from engine.log import DecisionEntry, Outcome, OutcomesEntry, Refused, decision_entry
from engine.record import (
    CODE_VERSION,
    RECORD_VERSION,
    AssignmentRecord,
    ChoiceRecord,
    DecisionRecord,
    DrawRecord,
    IdentityRecord,
)
from engine.request import Attributes, check_id, parse_time, read_attributes
from engine.revisions import activate
from engine.store import Store
from engine.store import read as ask
from engine.workspace import Learner, Slot, Surface, Workspace, workspace_from_content
from engine.workspace.schema import Id, Name
from engine.workspace.shape import checked
from engine.workspace.source import read_file, shown

ROWS_PER_WRITE = 2_000
ROW_NUMBER = "row_number"
PROBABILITY_TOLERANCE = 1e-6
Advance = Callable[[int], None]


def _column_widened(value: object) -> object:
    if isinstance(value, str):
        return {"column": value}
    if not isinstance(value, Mapping):
        raise ValueError("must be a column, or {column: …, values: {theirs: ours}}")
    return value


def _type_widened(value: object) -> object:
    if isinstance(value, str):
        return {"type": value}
    if not isinstance(value, Mapping):
        raise ValueError("must be a type, or {type: …, column: …}")
    return value


def _probability(value: object) -> object:
    """Refuses what is no number, column or mapping to numbers, in one sentence."""
    if isinstance(value, Mapping):
        for name, number in value.items():
            if not _is_number(number):
                raise ValueError(f'gives "{name}" no number; give one in (0, 1]')
    elif value is not None and not isinstance(value, str) and not _is_number(value):
        raise ValueError("must be a number, a column, or a mapping to numbers")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


Probability = Annotated[float | str | dict[str, float], BeforeValidator(_probability)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class NamedColumn(_Part):
    """A column, and what its values are called in the workspace where they differ."""

    column: str
    values: dict[str, str] = {}


class ContextColumn(_Part):
    """An attribute's type, and its column if that has another name."""

    type: Literal["integer", "number", "boolean", "string", "timestamp"]
    column: str | None = None


class ExperimentColumn(_Part):
    """The experiment that the rows' units were in; ``probability`` is that of their variant."""

    id: Id
    variant: Annotated[NamedColumn, BeforeValidator(_column_widened)]
    baseline: str | None = None
    probability: Probability | None = None


class ImportMapping(_Part):
    """What the columns of a table mean; every key is described in ``docs/import.md``."""

    surface: Id
    slot: Id
    unit: str
    decided_at: str
    action: Annotated[NamedColumn, BeforeValidator(_column_widened)]
    propensity: Probability
    outcomes: Annotated[dict[Id, str], Field(min_length=1)]
    pmf: dict[str, str] | None = None
    experiment: ExperimentColumn | None = None
    context: dict[Name, Annotated[ContextColumn, BeforeValidator(_type_widened)]] = {}
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Imported:
    """How many rows were read, and how many decisions and outcomes of theirs were new.

    ``revision`` is that of the workspace by which they were read; it serves if anything was new.
    """

    rows: int
    decisions: int
    outcomes: int
    revision: str


def read_mapping(file: Path) -> ImportMapping:
    """The mapping in a YAML file.

    Raises
    ------
    ConfigurationError
        With every fault, each with line, field, value and repair.
    """
    source = read_file(file, "mapping", tuple(ImportMapping.model_fields))
    mapping = None if source.faults else checked(source, ImportMapping)
    if mapping is None:
        raise ConfigurationError(tuple(sorted(source.faults, key=lambda f: (f.line or 0, f.field))))
    return mapping


def read_table(file: Path) -> pd.DataFrame:
    """A CSV (also compressed) or Parquet file as a frame; raises EngineError if it is neither."""
    try:
        return pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file)
    except (OSError, ValueError) as error:
        raise EngineError(f'"{file}" cannot be read as CSV or Parquet: {error}') from error


def import_table(
    store: Store,
    table: pd.DataFrame,
    mapping: ImportMapping,
    *,
    source: str,
    workspace: Workspace | None,
    clock: Clock,
    advance: Advance = lambda _: None,
) -> Imported:
    """Store a table's rows as decisions and outcomes, in the order of their times.

    Without a workspace one is made of the mapping: a surface whose slot has the table's actions.
    Every row is checked, by itself and against what was imported before, until anything is stored
    or the workspace serves; that it does only if there is something new to store. ``advance`` is
    called with numbers of rows that sum to the table's.

    Raises
    ------
    EngineError
        If a column is missing or holds what the workspace does not have, with the count and the
        first such row; if a row was imported before with other content.
    ConfigurationError
        If the workspace lacks the mapping's surface, slot, metrics, attributes or experiment, or
        would move units of an experiment that started.
    """
    rows = _Rows(table, mapping)
    if workspace is None:
        workspace = workspace_from_content(msgspec.json.encode(_derived(rows)))
    _check_workspace(workspace, mapping)
    rows.check(workspace)
    builder = _Builder(rows, workspace, mapping.source or source)
    builder.check()
    stored = builder.stored(store)
    new = [row for row in rows.in_time if builder.is_new(row, stored)]
    advance(len(table) - len(new))
    if new:
        activate(store, workspace, clock)
    decisions = outcomes = 0
    for start in range(0, len(new), ROWS_PER_WRITE):
        part = new[start : start + ROWS_PER_WRITE]
        entries = builder.decisions(part, stored)
        found = OutcomesEntry(tuple(builder.outcomes(part, stored)))
        *_, result = store.write([*entries, found], clock())
        if isinstance(result, Refused):
            # Somebody sent outcomes under the ids of these rows by another way.
            raise EngineError(f"`{result.field}` {result.message}")
        decisions += len(entries)
        outcomes += getattr(result, "accepted", 0)
        advance(len(part))
    return Imported(len(table), decisions, outcomes, workspace.revision)


@dataclass(frozen=True, slots=True)
class _Stored:
    """What the log holds of the rows: their request ids, and their outcomes' ids."""

    requests: frozenset[str]
    outcomes: frozenset[str]


class _Rows:
    """The columns of a table, named and typed as the mapping says."""

    def __init__(self, table: pd.DataFrame, mapping: ImportMapping) -> None:
        self.table = table
        self.mapping = mapping
        if table.empty:
            raise EngineError("the table holds no rows; give at least one")
        self.actions = self._named("action", mapping.action)
        self.units = (
            [str(i) for i in range(1, len(table) + 1)]
            if mapping.unit == ROW_NUMBER
            else self._texts("unit", mapping.unit)
        )
        self.decided_at = self._times(mapping.decided_at)
        self.in_time: list[int] = np.argsort(self.decided_at, kind="stable").tolist()
        self.propensities = self._probabilities("propensity", mapping.propensity, self.actions)
        self.seen = tuple(sorted(set(self.actions)))
        self.pmf = self._pmf()
        self.outcomes = {m: self._numbers(f"outcomes.{m}", c) for m, c in mapping.outcomes.items()}
        self.context = {
            name: self._attribute(name, part.column or name, part.type)
            for name, part in mapping.context.items()
        }
        self.variants: list[str] | None = None
        self.chances: list[float] | None = None
        if mapping.experiment:
            self.variants = self._named("experiment.variant", mapping.experiment.variant)
            self.chances = self._chances(mapping.experiment, self.variants)

    def check(self, workspace: Workspace) -> None:
        """Raises EngineError where a column holds what the workspace does not have or allow."""
        slot = workspace.surfaces[self.mapping.surface].slots[self.mapping.slot]
        self._known("action", self.actions, slot.actions)
        unknown = sorted(set(self.seen) - set(slot.actions))
        if unknown:
            raise EngineError(
                f'`{"pmf" if self.mapping.pmf else "propensity"}` names action "{unknown[0]}", '
                f"which the workspace does not have (known: {', '.join(sorted(slot.actions))}); "
                "add it, or leave it out"
            )
        for metric, values in self.outcomes.items():
            low, high = workspace.value_ranges.get(metric, (-inf, inf))
            array = np.asarray(values)
            _refuse(
                f"outcomes.{metric}",
                (array < low) | (array > high),
                values,
                f"is beyond its declared range [{low:g}, {high:g}]",
                "mend the column, or widen the metric's range",
            )
        if self.mapping.experiment and self.variants is not None:
            experiment = next(
                e for e in workspace.design.experiments if e.id == self.mapping.experiment.id
            )
            variants = {v.id for v in experiment.variants}
            self._known("experiment.variant", self.variants, variants)

    def _known(self, field: str, values: Sequence[str], known: Any) -> None:
        unknown = [row for row, value in enumerate(values) if value not in known]
        if unknown:
            listed = ", ".join(sorted(known))
            raise EngineError(
                f"`{field}` is {shown(values[unknown[0]])} in row {unknown[0] + 1}, the first of "
                f"{_rows(len(unknown))} with an id that the workspace does not have (known: "
                f"{listed}); add it, or translate it with `values`"
            )

    def _column(self, field: str, name: str) -> pd.Series[Any]:
        if name not in self.table.columns:
            known = ", ".join(map(str, self.table.columns))
            raise EngineError(f'`{field}` names column "{name}"; the table has: {known}')
        return self.table[name]

    def _texts(self, field: str, name: str) -> list[str]:
        column = self._column(field, name)
        _refuse(field, column.isna().to_numpy(), column, "is missing", "fill it, or drop the rows")
        return [str(value) for value in column.tolist()]

    def _named(self, field: str, part: NamedColumn) -> list[str]:
        return [part.values.get(text, text) for text in self._texts(field, part.column)]

    def _numbers(self, field: str, name: str) -> list[float]:
        """The column as floats; missing values stay NaN."""
        column = self._column(field, name)
        numbers = pd.to_numeric(column, errors="coerce").astype(float)
        wrong = (numbers.isna() & column.notna()) | np.isinf(numbers)
        _refuse(field, wrong.to_numpy(), column, "is no finite number", "give one, or nothing")
        return list(numbers)

    def _times(self, text: str) -> list[int]:
        if text not in self.table.columns:
            try:
                return [parse_time("decided_at", text)] * len(self.table)
            except RequestError as error:
                raise EngineError(f'`decided_at` is "{text}": no column, no time') from error
        column = self.table[text]
        try:
            moments = pd.to_datetime(column, utc=False, format="ISO8601")
        except ValueError as error:
            raise EngineError(f"`decided_at` column {text}: {error}") from error
        if moments.isna().any() or not isinstance(moments.dtype, pd.DatetimeTZDtype):
            raise EngineError(f"`decided_at` column {text} has times without a zone; add one")
        return [to_microseconds(moment.to_pydatetime()) for moment in moments]

    def _probabilities(
        self, field: str, given: float | str | Mapping[str, float], names: Sequence[str]
    ) -> list[float]:
        if isinstance(given, str):
            values = self._numbers(field, given)
        elif isinstance(given, Mapping):
            absent = sorted(set(names) - set(given))
            if absent:
                raise EngineError(f'`{field}` says nothing of "{absent[0]}"; give it too')
            values = [given[name] for name in names]
        else:
            values = [float(given)] * len(names)
        array = np.asarray(values)
        # Written so that NaN fails it.
        wrong = ~((array > 0) & (array <= 1))
        _refuse(field, wrong, values, "is not in (0, 1]", "give the probability of what was drawn")
        return values

    def _pmf(self) -> list[tuple[float, ...]] | None:
        """Each row's logged probabilities of the actions seen, where the mapping gives them."""
        given = self.mapping.propensity
        n = len(self.table)
        if self.mapping.pmf is not None:
            absent = sorted(set(self.seen) - set(self.mapping.pmf))
            if absent:
                raise EngineError(f'`pmf` says nothing of "{absent[0]}"; give its column')
            self.seen = tuple(sorted(self.mapping.pmf))
            columns = {a: self._numbers(f"pmf.{a}", self.mapping.pmf[a]) for a in self.seen}
            return self._checked_pmf(columns)
        if isinstance(given, Mapping) and abs(sum(given.values()) - 1) <= PROBABILITY_TOLERANCE:
            self.seen = tuple(sorted(given))
            return [tuple(given[a] for a in self.seen)] * n
        if (
            not isinstance(given, str | Mapping)
            and abs(given * len(self.seen) - 1) <= PROBABILITY_TOLERANCE
        ):
            return [(1 / len(self.seen),) * len(self.seen)] * n
        return None

    def _checked_pmf(self, columns: Mapping[str, list[float]]) -> list[tuple[float, ...]]:
        """The rows of the columns of probabilities; they agree with the propensities."""
        for action, values in columns.items():
            array = np.asarray(values)
            wrong = ~(array >= 0)
            _refuse(f"pmf.{action}", wrong, values, "is negative or missing", "give a probability")
        table = np.column_stack(list(columns.values()))
        sums = table.sum(axis=1)
        off = ~(np.abs(sums - 1) <= PROBABILITY_TOLERANCE)
        _refuse("pmf", off, sums.tolist(), "does not sum to 1", "give the column of every action")
        places = {action: place for place, action in enumerate(columns)}
        drawn = table[np.arange(len(table)), [places[action] for action in self.actions]]
        _refuse(
            "pmf",
            ~(np.abs(drawn - self.propensities) <= PROBABILITY_TOLERANCE),
            drawn.tolist(),
            "gives the action another probability than `propensity`",
            "make them agree",
        )
        return [tuple(row) for row in table.tolist()]

    def _chances(self, part: ExperimentColumn, variants: Sequence[str]) -> list[float]:
        if part.probability is not None:
            return self._probabilities("experiment.probability", part.probability, variants)
        if part.variant.column == self.mapping.action.column:
            return self.propensities
        raise EngineError(
            "`experiment.probability` is missing; give the probability of each variant"
        )

    def _attribute(self, name: str, column_name: str, type_: str) -> list[Any]:
        field = f"context.{name}"
        column = self._column(field, column_name)
        match type_:
            case "integer":
                numbers = self._numbers(field, column_name)
                broken = np.array([not np.isnan(v) and not v.is_integer() for v in numbers])
                _refuse(field, broken, column, "is no integer", "round it, or call it a number")
                return [None if np.isnan(v) else int(v) for v in numbers]
            case "number":
                return [None if np.isnan(v) else v for v in self._numbers(field, column_name)]
            case "boolean":
                texts = column.astype("string").str.lower()
                known = texts.map(_BOOLEANS)
                wrong = (known.isna() & column.notna()).to_numpy()
                _refuse(field, wrong, column, "is no boolean", "give true or false, or 1 or 0")
                return [None if absent else bool(v) for v, absent in _with_absence(known)]
            case _:
                return [None if absent else str(v) for v, absent in _with_absence(column)]


def _with_absence(column: pd.Series[Any]) -> Iterator[tuple[Any, bool]]:
    return zip(column.tolist(), column.isna().tolist(), strict=True)


_BOOLEANS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}


def _refuse(
    field: str, wrong: Any, values: Sequence[Any] | pd.Series[Any], what: str, repair: str
) -> None:
    """Raises EngineError if a row is wrong, with their count, the first one and its value."""
    count = int(np.sum(wrong))
    if count:
        first = int(np.flatnonzero(wrong)[0])
        value = values.tolist()[first] if isinstance(values, pd.Series) else values[first]
        raise EngineError(
            f"`{field}` {what} in {_rows(count)}, first in row {first + 1}: {value!r}; {repair}"
        )


def _refuse_first(faults: Iterable[tuple[int, RequestError]]) -> None:
    """Raises EngineError if a row has a fault, with the count of those like the first."""
    found = list(faults)
    if found:
        row, first = found[0]
        count = sum(error.field == first.field for _, error in found)
        raise EngineError(f"{first} (in {_rows(count)}, first in row {row + 1})") from first


def _rows(count: int) -> str:
    return f"{count:,} row{'s' if count != 1 else ''}"


def _derived(rows: _Rows) -> dict[str, Any]:
    """The content of a workspace that has what the mapping names, and no more."""
    mapping = rows.mapping
    baseline = mapping.experiment.baseline if mapping.experiment else None
    default = baseline if baseline in rows.seen else max(rows.seen, key=rows.actions.count)
    content: dict[str, Any] = {
        "surfaces": {
            mapping.surface: {
                "owner": "import",
                "attributes": {name: {"type": p.type} for name, p in mapping.context.items()},
                "metrics": {metric: {"window": "1d"} for metric in mapping.outcomes},
                "reward": {next(iter(mapping.outcomes)): 1.0},
                "slots": {
                    mapping.slot: {
                        "default": default,
                        "actions": {action: {"value": action} for action in rows.seen},
                    }
                },
            }
        }
    }
    if mapping.experiment and rows.variants is not None:
        slot = f"{mapping.surface}.{mapping.slot}"
        variants = sorted(set(rows.variants))
        if not set(variants) <= set(rows.seen):
            raise EngineError(
                "`experiment.variant` is not the action; give a workspace that says what each "
                "variant does"
            )
        content["layers"] = {
            "import": {
                mapping.experiment.id: {
                    "range": [0.0, 1.0],
                    "state": "ended",
                    "baseline": baseline or default,
                    "variants": {v: {"slots": {slot: {"action": v}}} for v in variants},
                }
            }
        }
    return content


def _check_workspace(workspace: Workspace, mapping: ImportMapping) -> None:
    """Raises ConfigurationError with all that the mapping names and the workspace lacks."""
    faults: list[Fault] = []

    def need(field: str, name: str, known: Any) -> None:
        if name not in known:
            listed = ", ".join(known) or "none"
            message = f"is not in the workspace (known: {listed}); fix the name, or add it there"
            faults.append(Fault(field, f'"{name}"', message))

    need("surface", mapping.surface, workspace.surfaces)
    surface = workspace.surfaces.get(mapping.surface)
    if surface:
        need("slot", mapping.slot, surface.slots)
        for name in mapping.context:
            need(f"context.{name}", name, surface.attributes)
        for metric in mapping.outcomes:
            need(f"outcomes.{metric}", metric, surface.metrics)
    if mapping.experiment:
        experiments = {e.id: e for e in workspace.design.experiments}
        need("experiment.id", mapping.experiment.id, experiments)
        declared = experiments.get(mapping.experiment.id)
        baseline = mapping.experiment.baseline
        if declared and baseline not in {None, declared.baseline_variant}:
            message = f'is "{declared.baseline_variant}" in the workspace; agree on one'
            faults.append(Fault("experiment.baseline", f'"{baseline}"', message))
    if faults:
        raise ConfigurationError(tuple(faults))


class _Builder:
    """Makes log entries of rows."""

    def __init__(self, rows: _Rows, workspace: Workspace, source: str) -> None:
        self.rows = rows
        self.workspace = workspace
        self.source = source
        self.surface: Surface = workspace.surfaces[rows.mapping.surface]
        self.slot: Slot = self.surface.slots[rows.mapping.slot]
        self.learners: list[Learner] = [
            learner
            for learner in {each.id: each for each in workspace.pupils}.values()
            if (learner.surface, learner.slot) == (self.surface.id, self.slot.id)
        ]

    def check(self) -> None:
        """Raises EngineError where ids or attributes of rows are such that no record holds them."""
        rows = self.rows
        longest = max((f"{self._request_id(len(rows.units))}/{m}" for m in rows.outcomes), key=len)
        try:
            check_id("source", longest)
        except RequestError as error:
            raise EngineError(f"{error}, as `source` in the mapping") from error
        _refuse_first(self._faults(lambda row: check_id("unit", rows.units[row])))
        _refuse_first(self._faults(self._attributes))

    def _faults(self, check: Callable[[int], object]) -> Iterator[tuple[int, RequestError]]:
        for row in range(len(self.rows.units)):
            try:
                check(row)
            except RequestError as error:
                yield row, error

    def stored(self, store: Store) -> _Stored:
        """What the log holds of the rows.

        Raises
        ------
        EngineError
            If it holds a row with other content.
        """
        ids = [self._request_id(row) for row in range(len(self.rows.units))]
        requests = store.read(lambda c: ask.request_digests(c, ids))
        rows = [row for row, id_ in enumerate(ids) if id_ in requests]
        decision_ids = [_decision_id(ids[row]) for row in rows]
        found = store.read(lambda c: ask.outcomes_of_decisions(c, decision_ids))
        outcomes = {outcome.outcome_id: outcome.digest() for outcome in found}
        changed = [
            row
            for row in rows
            # Of a row whose person was forgotten no digest is left: it stays as it is.
            if requests[ids[row]] not in {None, self._digest(row)} or self._changed(row, outcomes)
        ]
        if changed:
            raise EngineError(
                f"row {changed[0] + 1}, the first of {_rows(len(changed))} such, was imported "
                "before with other content; name another `source` in the mapping, or import into "
                "a new database"
            )
        return _Stored(frozenset(requests), frozenset(outcomes))

    def _changed(self, row: int, stored: Mapping[str, str]) -> bool:
        """Whether an outcome of the row is stored otherwise than the row has it."""
        now = {outcome.outcome_id: outcome.digest() for outcome in self._outcomes(row)}
        ids = [self._outcome_id(row, metric) for metric in self.rows.outcomes]
        return any(id_ in stored and stored[id_] != now.get(id_) for id_ in ids)

    def is_new(self, row: int, stored: _Stored) -> bool:
        """Whether the log lacks the row, or an outcome of it."""
        return self._request_id(row) not in stored.requests or any(
            outcome.outcome_id not in stored.outcomes for outcome in self._outcomes(row)
        )

    def decisions(self, rows: Iterable[int], stored: _Stored) -> list[DecisionEntry]:
        """The decisions of rows, but for those stored."""
        return [self._entry(row) for row in rows if self._request_id(row) not in stored.requests]

    def outcomes(self, rows: Iterable[int], stored: _Stored) -> Iterator[Outcome]:
        """The outcomes of rows, but for those stored."""
        for row in rows:
            for outcome in self._outcomes(row):
                if outcome.outcome_id not in stored.outcomes:
                    yield outcome

    def _entry(self, row: int) -> DecisionEntry:
        entry = decision_entry(self._record(row), also_learns=self.learners)
        return DecisionEntry(
            record=entry.record,
            data=entry.data,
            request_digest=self._digest(row),
            learnables=entry.learnables,
            sticky={},
        )

    def _digest(self, row: int) -> str:
        """Digest of what a repeated row must agree on: its content, by whatever code or revision.

        Outcomes have digests of their own.
        """
        rows, mapping = self.rows, self.rows.mapping
        content = (
            mapping.surface,
            mapping.slot,
            rows.units[row],
            rows.decided_at[row],
            rows.actions[row],
            rows.propensities[row],
            (rows.seen, rows.pmf[row]) if rows.pmf else None,
            {name: values[row] for name, values in rows.context.items()},
            mapping.experiment.id if mapping.experiment else None,
            rows.variants[row] if rows.variants else None,
            rows.chances[row] if rows.chances else None,
        )
        return hashlib.sha256(_DETERMINISTIC.encode(content)).hexdigest()[:32]

    def _request_id(self, row: int) -> str:
        return f"import/{self.source}/{row + 1}"

    def _outcome_id(self, row: int, metric: str) -> str:
        return f"{self._request_id(row)}/{metric}"

    def _record(self, row: int) -> DecisionRecord:
        rows, mapping = self.rows, self.rows.mapping
        decided_at = rows.decided_at[row]
        attributes = self._attributes(row)
        request_id = self._request_id(row)
        decision_id = _decision_id(request_id)
        return DecisionRecord(
            record_version=RECORD_VERSION,
            decision_id=decision_id,
            request_id=request_id,
            origin="import",
            decided_at=decided_at,
            time_zone=self.workspace.time_zone,
            identity=IdentityRecord(rows.units[row], None, f"u:{rows.units[row]}"),
            surface=mapping.surface,
            trigger=None,
            context=dict(attributes.recorded),
            ages_us=dict(attributes.ages_us),
            unknown=dict(attributes.unknown),
            verdicts={},
            revision=self.workspace.revision,
            code_version=CODE_VERSION,
            assignments=self._assignments(row),
            choices=(
                ChoiceRecord(
                    slot=mapping.slot,
                    action=rows.actions[row],
                    propensity=rows.propensities[row],
                    reason="policy",
                    candidates=rows.seen,
                    verdicts={},
                    eligible=rows.seen,
                    path=None,
                    path_factors={},
                    pmf=rows.pmf[row] if rows.pmf else None,
                    draw=DrawRecord(f"{decision_id}/{mapping.slot}", "import", None),
                ),
            ),
        )

    def _attributes(self, row: int) -> Attributes:
        given = {name: values[row] for name, values in self.rows.context.items()}
        return read_attributes(self.surface, given, self.rows.decided_at[row])

    def _assignments(self, row: int) -> tuple[AssignmentRecord, ...]:
        experiment, rows = self.rows.mapping.experiment, self.rows
        if experiment is None or rows.variants is None or rows.chances is None:
            return ()
        chance = rows.chances[row]
        factors = {f"variant.{experiment.id}": chance}
        return (AssignmentRecord("experiment", experiment.id, rows.variants[row], chance, factors),)

    def _outcomes(self, row: int) -> Iterator[Outcome]:
        decided_at = self.rows.decided_at[row]
        decision_id = _decision_id(self._request_id(row))
        for metric, values in self.rows.outcomes.items():
            # A missing value, NaN, is no outcome.
            if values[row] == values[row]:
                yield Outcome(
                    outcome_id=self._outcome_id(row, metric),
                    metric=metric,
                    value=values[row],
                    occurred_at=decided_at,
                    received_at=decided_at,
                    decision_id=decision_id,
                )


_DETERMINISTIC = msgspec.json.Encoder(order="deterministic")


def _decision_id(request_id: str) -> str:
    """A UUID of version 8 (RFC 9562 §5.8): 122 bits of the request id's SHA-256."""
    value = int.from_bytes(hashlib.sha256(request_id.encode()).digest()[:16], "big")
    value = value & ~(0xF << 76) | 0x8 << 76
    return str(UUID(int=value & ~(0b11 << 62) | 0b10 << 62))
