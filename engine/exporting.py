"""Exporting the log as zstd Parquet: what an analyst queries and a report reads elsewhere.

    choices/part-<first>-<last>.parquet     one row for each decision and slot
    traces/part-<first>-<last>.parquet      whole records, with ``full``
    outcomes/part-<first>-<last>.parquet
    assignments/all.parquet, exposures/all.parquet, voids/all.parquet
    revisions/<digest>.json, revisions/latest
    snapshots/<digest>.bin, snapshots/index.json

Parts are named by the log positions that they hold, and written whole or not at all: an export
that was interrupted goes on where it stopped, and one that is repeated adds what is new.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import ReportError
from engine.store import Store
from engine.store import read as ask
from engine.tables import (
    ASSIGNMENTS,
    EXPOSURES,
    OUTCOMES,
    VOIDS,
    choices_table,
    table,
    traces_table,
)

DECISIONS_PER_PART = 20_000
OUTCOMES_PER_PART = 200_000
Advance = Callable[[int], None]


def export(
    store: Store, folder: Path, *, full: bool = False, advance: Advance = lambda _: None
) -> dict[str, int]:
    """Write what of the log is not yet in the folder; how many rows of each kind were written.

    ``advance`` is called with the number of rows of each part.

    Raises
    ------
    ReportError
        If the folder holds something else, or ``full`` is asked of an export begun without it.
    """
    _check(folder, full=full)
    decisions = 0
    for rows in _pages(store, ask.decisions_after, folder / "choices", DECISIONS_PER_PART):
        name = _part(rows)
        # The traces come first: the part of the choices says that both are there.
        if full:
            _write(folder / "traces" / name, traces_table(rows))
        _write(folder / "choices" / name, choices_table(rows))
        decisions += len(rows)
        advance(len(rows))
    outcomes = 0
    for rows in _pages(store, ask.outcomes_after, folder / "outcomes", OUTCOMES_PER_PART):
        _write(folder / "outcomes" / _part(rows), table(rows, OUTCOMES))
        outcomes += len(rows)
        advance(len(rows))
    for name, query, schema in (
        ("assignments", ask.assignment_rows, ASSIGNMENTS),
        ("exposures", ask.exposure_rows, EXPOSURES),
        ("voids", ask.void_rows, VOIDS),
    ):
        _write(folder / name / "all.parquet", table(store.read(query), schema))
    return {
        "decisions": decisions,
        "outcomes": outcomes,
        "revisions": _export_revisions(store, folder / "revisions"),
        "snapshots": _export_snapshots(store, folder / "snapshots"),
    }


def _check(folder: Path, *, full: bool) -> None:
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / "choices").is_dir():
        raise ReportError(f'"{folder}" holds something else than an export; name an empty folder')
    begun_full = (folder / "traces").is_dir()
    if full and not begun_full and any((folder / "choices").iterdir()):
        raise ReportError(f'"{folder}" was begun without --full; name an empty folder')


def _pages(
    store: Store,
    query: Callable[[Any, int, int], list[Any]],
    folder: Path,
    size: int,
) -> Iterator[list[Any]]:
    """Pages of rows that the folder's parts do not hold yet, each of a read of its own."""
    after = max((int(part.stem.split("-")[2]) for part in folder.glob("part-*.parquet")), default=0)
    while True:
        start = after
        rows = store.read(lambda c, start=start: query(c, start, size))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        if not rows:
            return
        yield rows
        after = rows[-1].seq


def _part(rows: Sequence[Any]) -> str:
    return f"part-{rows[0].seq:012d}-{rows[-1].seq:012d}.parquet"


def _write(file: Path, data: pa.Table) -> None:
    """Write a file whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".unfinished")
    pq.write_table(data, unfinished, compression="zstd")
    unfinished.replace(file)


def _export_revisions(store: Store, folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    digests = store.read(ask.revision_digests)
    for digest in digests:
        content = store.read(lambda c, digest=digest: ask.revision(c, digest))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        (folder / f"{digest}.json").write_bytes(content or b"")
    latest = store.read(ask.latest_revision)
    (folder / "latest").write_text(latest or "", encoding="utf-8")
    return len(digests)


def _export_snapshots(store: Store, folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    rows = store.read(ask.snapshot_rows)
    for digest in {row.digest for row in rows}:
        file = folder / f"{digest}.bin"
        if not file.exists():
            data = store.read(lambda c, digest=digest: ask.snapshot_bytes(c, digest))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
            file.write_bytes(data or b"")
    (folder / "index.json").write_bytes(msgspec.json.encode(rows))
    return len(rows)
