"""Exporting the log as zstd Parquet: what an analyst queries and a report reads elsewhere.

    choices/part-<first>-<last>.parquet     one row for each decision and slot
    slates/part-<first>-<last>.parquet      one row for each item shown, where some were
    traces/part-<first>-<last>.parquet      whole records, with ``full``
    outcomes/part-<first>-<last>.parquet
    assignments/all.parquet, exposures/all.parquet, voids/all.parquet
    revisions/<digest>.json, revisions/latest
    snapshots/<digest>.bin, snapshots/index.json
    source.json                             of which log, and whether with ``full``

Parts are named by the log positions that they hold. Every file is written whole or not at all: an
export that was interrupted goes on where it stopped, and one that is repeated adds what is new.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
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
    slates_table,
    table,
    traces_table,
)
from policies import snapshot_digest

DECISIONS_PER_PART = 20_000
OUTCOMES_PER_PART = 200_000
UNFINISHED = ".unfinished"
Advance = Callable[[int], None]


def export(
    store: Store, folder: Path, *, full: bool = False, advance: Advance = lambda _: None
) -> dict[str, int]:
    """Write what of the log is not yet in the folder; how many rows of each kind were written.

    ``advance`` is called with the number of rows of each part.

    Raises
    ------
    ReportError
        If the folder holds something else, or an export of another log, or one begun with the
        other choice of ``full``.
    """
    _begin(store, folder, full=full)
    decisions = shown = 0
    for rows in _pages(store, ask.decisions_after, folder / "choices", DECISIONS_PER_PART):
        name = _part(rows)
        # Choices come last: their part says that all are there.
        slates = slates_table(rows)
        if slates.num_rows:
            _write(folder / "slates" / name, slates)
            shown += slates.num_rows
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
        "items shown": shown,
        "outcomes": outcomes,
        "revisions": _export_revisions(store, folder / "revisions"),
        "snapshots": _export_snapshots(store, folder / "snapshots"),
    }


class _Begun(msgspec.Struct, frozen=True):
    """Which log a folder holds, by what came first of it, and whether whole records too."""

    full: bool
    first_activation: str | None
    first_decision: str | None


def _begin(store: Store, folder: Path, *, full: bool) -> None:
    """Check that the folder's export, if there is one, can go on, and say in it what it is of."""
    now = _Begun(full, store.read(ask.first_activation), store.read(ask.first_decision))
    before = _begun(folder)
    if before is not None:
        if before.full != full:
            with_ = "with" if before.full else "without"
            raise ReportError(
                f'"{folder}" was begun {with_} --full; go on {with_} it, or name an empty folder'
            )
        # What has no first one yet, when the export began, can be of this log.
        if not (
            before.first_activation in {None, now.first_activation}
            and before.first_decision in {None, now.first_decision}
        ):
            raise ReportError(
                f'"{folder}" holds the export of another database; name an empty folder'
            )
    _write_bytes(folder / "source.json", msgspec.json.encode(now))


def _begun(folder: Path) -> _Begun | None:
    """What a folder's export says of itself; None if nothing is there yet."""
    if not folder.exists() or all(file.suffix == UNFINISHED for file in folder.iterdir()):
        return None
    try:
        return msgspec.json.decode((folder / "source.json").read_bytes(), type=_Begun)
    except (FileNotFoundError, msgspec.MsgspecError) as error:
        raise ReportError(
            f'"{folder}" holds something else than an export; name an empty folder'
        ) from error


def _pages(
    store: Store,
    query: Callable[..., list[Any]],
    folder: Path,
    size: int,
) -> Iterator[list[Any]]:
    """Pages of rows that the folder's parts do not hold yet, each of a read of its own."""
    after = max((int(part.stem.split("-")[2]) for part in folder.glob("part-*.parquet")), default=0)
    while True:
        rows = store.read(partial(query, seq=after, limit=size))
        if not rows:
            return
        yield rows
        after = rows[-1].seq


def _part(rows: Sequence[Any]) -> str:
    return f"part-{rows[0].seq:012d}-{rows[-1].seq:012d}.parquet"


def _write(file: Path, data: pa.Table) -> None:
    _write_whole(file, lambda unfinished: pq.write_table(data, unfinished, compression="zstd"))


def _write_bytes(file: Path, data: bytes) -> None:
    _write_whole(file, lambda unfinished: unfinished.write_bytes(data))


def _write_whole(file: Path, write: Callable[[Path], object]) -> None:
    """Have a file written whole or not at all: under another name, then moved in place."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(UNFINISHED)
    write(unfinished)
    unfinished.replace(file)


def _export_revisions(store: Store, folder: Path) -> int:
    digests = store.read(ask.revision_digests)
    for digest in digests:
        content = store.read(partial(ask.revision, digest=digest))
        _write_bytes(folder / f"{digest}.json", content or b"")
    latest = store.read(ask.latest_revision)
    _write_bytes(folder / "latest", (latest or "").encode())
    return len(digests)


def _export_snapshots(store: Store, folder: Path) -> int:
    rows = store.read(ask.snapshot_rows)
    for digest in {row.digest for row in rows}:
        file = folder / f"{digest}.bin"
        if not file.is_file() or snapshot_digest(file.read_bytes()) != digest:
            data = store.read(partial(ask.snapshot_bytes, digest=digest))
            # Where the database lacks the bytes, a reader is told so by their absence here too.
            if data is not None:
                _write_bytes(file, data)
    _write_bytes(folder / "index.json", msgspec.json.encode(rows))
    return len(rows)
