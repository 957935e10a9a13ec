"""Importing somebody else's log: a table and a mapping become decisions and outcomes like ours.

Ids are a deterministic hash of the source and the row, so that an import which was interrupted,
or is repeated, stores nothing twice. Rows carry ``origin: import``: they are learned from and
evaluated, and cannot be replayed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import msgspec
import numpy as np
import pandas as pd
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from engine.errors import ConfigurationError, EngineError, Fault, RequestError
from engine.ids import Clock, to_microseconds
from engine.log import (
    DecisionEntry,
    Entry,
    Outcome,
    OutcomesEntry,
    Refused,
    Repeated,
    decision_entry,
)
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
from engine.workspace import Learner, Slot, Surface, Workspace, workspace_from_content

ROWS_PER_WRITE = 2_000
ROW_NUMBER = "row_number"
Advance = Callable[[int], None]


def _column_widened(value: object) -> object:
    return {"column": value} if isinstance(value, str) else value


def _time_as_text(value: object) -> object:
    """YAML reads an unquoted time as one; its text says as much."""
    return value.isoformat() if isinstance(value, datetime) else value


def _type_widened(value: object) -> object:
    return {"type": value} if isinstance(value, str) else value


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class NamedColumn(_Part):
    """A column, and what its values are called in the workspace where they differ."""

    column: str
    values: dict[str, str] = {}


class ContextColumn(_Part):
    """An attribute's type, and its column if that has another name."""

    type: str
    column: str | None = None


class ExperimentColumn(_Part):
    """The experiment that the rows' units were in; ``probability`` is that of their variant."""

    id: str
    variant: Annotated[NamedColumn, BeforeValidator(_column_widened)]
    baseline: str | None = None
    probability: float | str | dict[str, float] | None = None


class ImportMapping(_Part):
    """What the columns of a table mean; every key is described in ``docs/import.md``."""

    surface: str
    slot: str
    unit: str
    decided_at: Annotated[str, BeforeValidator(_time_as_text)]
    action: Annotated[NamedColumn, BeforeValidator(_column_widened)]
    propensity: float | str | dict[str, float]
    outcomes: Annotated[dict[str, str], Field(min_length=1)]
    pmf: dict[str, str] | None = None
    experiment: ExperimentColumn | None = None
    context: dict[str, Annotated[ContextColumn, BeforeValidator(_type_widened)]] = {}
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Imported:
    """How many rows were read, and how many decisions and outcomes of theirs were new."""

    rows: int
    decisions: int
    outcomes: int
    revision: str


def read_mapping(file: Path) -> ImportMapping:
    """The mapping in a YAML file.

    Raises
    ------
    ConfigurationError
        With every fault.
    """
    try:
        content = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
    except (OSError, YAMLError, UnicodeDecodeError) as error:
        fault = Fault("mapping", f'"{file}"', f"cannot be read as YAML: {error}")
        raise ConfigurationError((fault,)) from error
    try:
        return ImportMapping.model_validate(content)
    except ValidationError as error:
        faults = tuple(
            Fault(".".join(map(str, e["loc"])), repr(e["input"])[:80], e["msg"], file, 1)
            for e in error.errors(include_url=False)
        )
        raise ConfigurationError(faults) from error


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
    """Store a table's rows as decisions and outcomes; every row is checked before any is stored.

    Without a workspace one is made of the mapping: a surface whose slot has the table's actions.
    ``advance`` is called with the number of rows of each write.

    Raises
    ------
    EngineError
        If a column is missing or holds what the workspace does not have, with the count and the
        first such row; if a row was imported before with other content.
    ConfigurationError
        If the workspace lacks the mapping's surface, slot, metrics, attributes or experiment.
    """
    rows = _Rows(table, mapping)
    if workspace is None:
        workspace = workspace_from_content(msgspec.json.encode(_derived(rows)))
    _check_workspace(workspace, mapping)
    rows.check(workspace)
    builder = _Builder(rows, workspace, mapping.source or source)
    builder.check()
    activate(store, workspace, clock)
    decisions = outcomes = 0
    for start in range(0, len(table), ROWS_PER_WRITE):
        entries = list(builder.entries(start, min(start + ROWS_PER_WRITE, len(table))))
        results = store.write(entries, clock())
        for entry, result in zip(entries, results, strict=True):
            if isinstance(result, Refused):
                raise EngineError(f"`{result.field}` {result.message}")
            if isinstance(result, Repeated) and isinstance(entry, DecisionEntry):
                if result.request_digest != entry.request_digest:
                    raise EngineError(
                        f"{entry.record.request_id} was imported before with other content; "
                        "name another `source` in the mapping, or import into a new database"
                    )
            elif isinstance(entry, DecisionEntry):
                decisions += 1
            else:
                outcomes += getattr(result, "accepted", 0)
        advance(min(ROWS_PER_WRITE, len(table) - start))
    return Imported(len(table), decisions, outcomes, workspace.revision)


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
        """Raises EngineError at the first value that the workspace does not have."""
        slot = workspace.surfaces[self.mapping.surface].slots[self.mapping.slot]
        self._known("action", self.actions, slot.actions)
        if self.mapping.experiment and self.variants is not None:
            experiment = next(
                e for e in workspace.design.experiments if e.id == self.mapping.experiment.id
            )
            variants = {v.id for v in experiment.variants}
            self._known("experiment.variant", self.variants, variants)

    def _known(self, field: str, values: Sequence[str], known: Any) -> None:
        for row, value in enumerate(values, start=1):
            if value not in known:
                listed = ", ".join(sorted(known))
                raise EngineError(
                    f'`{field}` is "{value}" in row {row}, which the workspace does not have '
                    f"(known: {listed}); add it, or translate it with `values`"
                )

    def _column(self, field: str, name: str) -> pd.Series[Any]:
        if name not in self.table.columns:
            known = ", ".join(map(str, self.table.columns))
            raise EngineError(f'`{field}` names column "{name}"; the table has: {known}')
        return self.table[name]

    def _texts(self, field: str, name: str) -> list[str]:
        column = self._column(field, name)
        _refuse(field, column.isna().to_numpy(), column, "is missing")
        return [str(value) for value in column.tolist()]

    def _named(self, field: str, part: NamedColumn) -> list[str]:
        return [part.values.get(text, text) for text in self._texts(field, part.column)]

    def _numbers(self, field: str, name: str) -> list[float]:
        """The column as floats; missing values stay NaN."""
        column = self._column(field, name)
        numbers = pd.to_numeric(column, errors="coerce").astype(float)
        wrong = (numbers.isna() & column.notna()) | np.isinf(numbers)
        _refuse(field, wrong.to_numpy(), column, "is no finite number")
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
        _refuse(field, ~((array > 0) & (array <= 1)), pd.Series(values), "is not in (0, 1]")
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
            columns = [self._numbers(f"pmf.{a}", self.mapping.pmf[a]) for a in self.seen]
            table = np.column_stack(columns)
            off = ~(np.abs(table.sum(axis=1) - 1) <= 1e-6)
            _refuse("pmf", off, pd.Series(table.sum(axis=1)), "does not sum to 1")
            return [tuple(row) for row in table.tolist()]
        if isinstance(given, Mapping) and abs(sum(given.values()) - 1) <= 1e-6:
            self.seen = tuple(sorted(given))
            return [tuple(given[a] for a in self.seen)] * n
        if not isinstance(given, str | Mapping) and abs(given * len(self.seen) - 1) <= 1e-6:
            return [(1 / len(self.seen),) * len(self.seen)] * n
        return None

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
                _refuse(field, broken, column, "is no integer")
                return [None if np.isnan(v) else int(v) for v in numbers]
            case "number":
                return [None if np.isnan(v) else v for v in self._numbers(field, column_name)]
            case "boolean":
                texts = column.astype("string").str.lower()
                known = texts.map(_BOOLEANS)
                _refuse(field, (known.isna() & column.notna()).to_numpy(), column, "is no boolean")
                return [None if absent else bool(v) for v, absent in _with_absence(known)]
            case "string" | "timestamp":
                return [None if absent else str(v) for v, absent in _with_absence(column)]
            case _:
                raise EngineError(
                    f'`{field}` has type "{type_}"; known: integer, number, boolean, string, '
                    "timestamp"
                )


def _with_absence(column: pd.Series[Any]) -> Iterator[tuple[Any, bool]]:
    return zip(column.tolist(), column.isna().tolist(), strict=True)


_BOOLEANS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}


def _refuse(field: str, wrong: Any, values: pd.Series[Any], what: str) -> None:
    count = int(wrong.sum())
    if count:
        first = int(np.flatnonzero(wrong)[0])
        raise EngineError(
            f"`{field}` {what} in {count:,} rows, first in row {first + 1}: {values.iloc[first]!r}"
        )


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
            faults.append(Fault(field, f'"{name}"', f"is not in the workspace; known: {listed}"))

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
            for learner in workspace.learners.values()
            if (learner.surface, learner.slot) == (self.surface.id, self.slot.id)
        ]

    def check(self) -> None:
        """Raises EngineError at the first row whose unit or attributes no record can hold."""
        for row, unit in enumerate(self.rows.units):
            try:
                check_id("unit", unit)
            except RequestError as error:
                raise EngineError(f"row {row + 1}: {error}") from error
            self._attributes(row)

    def entries(self, start: int, end: int) -> Iterator[Entry]:
        """Decisions of the rows [start, end), then their outcomes."""
        outcomes: list[Outcome] = []
        for row in range(start, end):
            record = self._record(row)
            entry = decision_entry(record, also_learns=self.learners)
            yield DecisionEntry(
                record=entry.record,
                data=entry.data,
                request_digest=hashlib.sha256(entry.data).hexdigest()[:32],
                learnables=entry.learnables,
                sticky={},
            )
            outcomes += self._outcomes(row, record)
        yield OutcomesEntry(tuple(outcomes))

    def _record(self, row: int) -> DecisionRecord:
        rows, mapping = self.rows, self.rows.mapping
        decided_at = rows.decided_at[row]
        attributes = self._attributes(row)
        request_id = f"import/{self.source}/{row + 1}"
        decision_id = str(_uuid8(request_id))
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
        try:
            return read_attributes(self.surface, given, self.rows.decided_at[row])
        except RequestError as error:
            raise EngineError(f"row {row + 1}: {error}") from error

    def _assignments(self, row: int) -> tuple[AssignmentRecord, ...]:
        experiment, rows = self.rows.mapping.experiment, self.rows
        if experiment is None or rows.variants is None or rows.chances is None:
            return ()
        chance = rows.chances[row]
        factors = {f"variant.{experiment.id}": chance}
        return (AssignmentRecord("experiment", experiment.id, rows.variants[row], chance, factors),)

    def _outcomes(self, row: int, record: DecisionRecord) -> Iterator[Outcome]:
        for metric, values in self.rows.outcomes.items():
            if not np.isnan(values[row]):
                yield Outcome(
                    outcome_id=f"{record.request_id}/{metric}",
                    metric=metric,
                    value=values[row],
                    occurred_at=record.decided_at,
                    received_at=record.decided_at,
                    decision_id=record.decision_id,
                )


def _uuid8(key: str) -> UUID:
    """A UUID of version 8 (RFC 9562 §5.8): 122 bits of the key's SHA-256."""
    value = int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "big")
    value = value & ~(0xF << 76) | 0x8 << 76
    return UUID(int=value & ~(0b11 << 62) | 0b10 << 62)
