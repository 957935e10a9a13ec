"""Where a report reads the log: a live database beside its server, or an exported folder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from engine.errors import EngineError, ReportError
from engine.models import restore
from engine.revisions import Revisions
from engine.store import SnapshotRow, Store
from engine.store import read as ask
from engine.tables import ASSIGNMENTS, CHOICES, OUTCOMES, choices_table, table
from engine.workspace import Workspace, workspace_from_content
from experiments import UnitRange
from policies import Policy

PAGE = 5_000


class LogSource(Protocol):
    """What reports ask of a log; tables have the schemas of :mod:`engine.tables`."""

    def close(self) -> None:
        """Release what holds the log open."""

    def workspace(self) -> Workspace:
        """The revision that was activated last."""

    def revision(self, digest: str) -> Workspace:
        """The workspace of a revision that a row names."""

    def choices(self, surface: str, slot: str | None = None) -> pa.Table:
        """Every choice of a slot, or of all of a surface's, that was served as logged."""

    def outcomes(self, metrics: Sequence[str]) -> pa.Table:
        """Outcomes of the metrics, each with the unit that it or its decision names."""

    def assignments(self, experiment: str) -> pa.Table:
        """First assignments to the variants of an experiment."""

    def snapshots(self) -> list[SnapshotRow]:
        """Every snapshot's place in its lineage, oldest first."""

    def policy(self, digest: str) -> Policy:
        """The policy of a snapshot, verified."""


class DatabaseLog:
    """The log in a database."""

    def __init__(self, log: str | Store) -> None:
        """Open an address for reading, or read a store that is open; raises StoreError."""
        self._store = Store(log) if isinstance(log, str) else log
        self._revisions = Revisions(self._store)

    def close(self) -> None:
        self._store.close()

    def workspace(self) -> Workspace:
        found = self._revisions.latest()
        if found is None:
            raise ReportError("the database holds no workspace yet; serve or import one first")
        return found

    def revision(self, digest: str) -> Workspace:
        return self._revisions.get(digest)

    def choices(self, surface: str, slot: str | None = None) -> pa.Table:
        parts = [CHOICES.empty_table()]
        after = 0
        while True:
            page = partial(ask.decisions_after, seq=after, limit=PAGE, surface=surface)
            rows = self._store.read(page)
            if not rows:
                return pa.concat_tables(parts)
            served = choices_table(row for row in rows if row.void is None)
            parts.append(served if slot is None else served.filter(pc.field("slot") == slot))
            after = rows[-1].seq

    def outcomes(self, metrics: Sequence[str]) -> pa.Table:
        rows = self._store.read(lambda c: ask.outcomes_with_units(c, metrics))
        return table(rows, OUTCOMES)

    def assignments(self, experiment: str) -> pa.Table:
        rows = self._store.read(lambda c: ask.assignments_of(c, "experiment", experiment))
        return table(rows, ASSIGNMENTS)

    def snapshots(self) -> list[SnapshotRow]:
        return self._store.read(ask.snapshot_rows)

    def policy(self, digest: str) -> Policy:
        return restore(self._store.read(lambda c: ask.snapshot_bytes(c, digest)), digest)


class ExportedLog:
    """The log as ``evenhand export`` wrote it."""

    def __init__(self, folder: Path) -> None:
        """Open an exported folder.

        Raises
        ------
        ReportError
            If it is none.
        """
        self._folder = folder
        if not (folder / "revisions" / "latest").is_file():
            raise ReportError(f'"{folder}" is no exported log; write one with `evenhand export`')

    def close(self) -> None:
        """Nothing: each read opens its files and closes them."""

    def workspace(self) -> Workspace:
        return self.revision((self._folder / "revisions" / "latest").read_text().strip())

    def revision(self, digest: str) -> Workspace:
        file = self._folder / "revisions" / f"{digest}.json"
        if not file.is_file():
            raise EngineError(f"revision {digest} is not in {self._folder}; export again")
        return workspace_from_content(file.read_bytes())

    def choices(self, surface: str, slot: str | None = None) -> pa.Table:
        wanted = pc.field("surface") == surface
        if slot is not None:
            wanted &= pc.field("slot") == slot
        found = self._read("choices", CHOICES, wanted)
        voids = self._read("voids", None, None)
        void = pc.is_in(found["decision_id"], value_set=voids["decision_id"].combine_chunks())
        return found.filter(pc.invert(void))

    def outcomes(self, metrics: Sequence[str]) -> pa.Table:
        wanted = pc.field("metric").isin(list(metrics))
        found = self._read("outcomes", OUTCOMES, wanted)
        named = ["decision_id", "unit"]
        units = self._read("choices", None, None, named)
        if (self._folder / "slates").is_dir():
            # Of calls for a slate alone there are no choices.
            units = pa.concat_tables([units, self._read("slates", None, None, named)])
        units = units.group_by("decision_id").aggregate([("unit", "min")])
        joined = found.join(units, "decision_id", join_type="left outer")
        unit = pc.coalesce(joined["unit"], joined["unit_min"])
        return joined.set_column(joined.schema.get_field_index("unit"), "unit", unit).select(
            OUTCOMES.names
        )

    def assignments(self, experiment: str) -> pa.Table:
        wanted = (pc.field("kind") == "experiment") & (pc.field("id") == experiment)
        return self._read("assignments", ASSIGNMENTS, wanted)

    def snapshots(self) -> list[SnapshotRow]:
        index = (self._folder / "snapshots" / "index.json").read_bytes()
        return msgspec.json.decode(index, type=list[SnapshotRow])

    def policy(self, digest: str) -> Policy:
        file = self._folder / "snapshots" / f"{digest}.bin"
        return restore(file.read_bytes() if file.is_file() else None, digest)

    def _read(
        self,
        name: str,
        schema: pa.Schema | None,
        wanted: pc.Expression | None,
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        found = ds.dataset(sorted((self._folder / name).glob("*.parquet")), schema=schema)
        return found.to_table(filter=wanted, columns=None if columns is None else list(columns))


def open_log(database: str | None, folder: Path | None) -> LogSource:
    """The log of a report: exactly one of a database's address and an exported folder.

    Raises
    ------
    ReportError
        If neither or both are given.
    """
    if folder is not None and database is None:
        return ExportedLog(folder)
    if database is not None and folder is None:
        return DatabaseLog(database)
    raise ReportError("give either `--database` or `--log`")


def within(chosen: UnitRange, units: pd.Series[str]) -> npt.NDArray[np.bool_]:
    """(n,) whether each unit is among those that a report selects."""
    codes, unique = pd.factorize(units)
    held = np.array([chosen.contains(unit) for unit in unique], dtype=bool)
    return held[codes]
