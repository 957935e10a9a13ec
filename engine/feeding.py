"""Items and interactions from files: what the lines say is stored, bad lines are told."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from engine.errors import RequestError, StoreError
from engine.items import MOST_ITEMS, ItemChange
from engine.log import Entry, InteractionsEntry, ItemsEntry, Stored, UnitInteraction
from engine.store import Store
from engine.workspace import Items
from recsys.catalogue import Catalogue
from recsys.errors import RecsysError
from recsys.interactions import Interactions
from recsys.loading import InteractionColumns, LineFault, load_interactions, load_items

OF_FILE = "f:"
"""What the id of an interaction begins with that a file told of."""

_PER_ENTRY = 5_000
Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Loaded:
    """What became of a file's lines: stored, known before, or faulty."""

    stored: int
    known: int
    faults: tuple[LineFault, ...]


def feed_items(
    store: Store, items: Items, file: Path, now_us: int, advance: Advance = lambda _: None
) -> Loaded:
    """Store the items of a CSV or Parquet file, beside those that are stored.

    Raises
    ------
    RequestError
        If the file cannot be read as a whole.
    """
    try:
        catalogue, faults = load_items(file, items.schema, now_us)
    except RecsysError as error:
        raise RequestError("file", f"cannot be loaded: {error}") from error
    changes = _changes(catalogue)
    entries = (ItemsEntry(tuple(some)) for some in _pieces(changes, MOST_ITEMS))
    return _stored(store, entries, faults, now_us, advance)


def feed_interactions(
    store: Store,
    file: Path,
    columns: InteractionColumns,
    now_us: int,
    advance: Advance = lambda _: None,
) -> Loaded:
    """Store the interactions of a CSV or Parquet file; a line that is stored already is known.

    Raises
    ------
    RequestError
        If the file cannot be read as a whole.
    """
    rows, faults = file_interactions(file, columns, now_us)
    entries = (InteractionsEntry(tuple(some)) for some in _pieces(rows, _PER_ENTRY))
    return _stored(store, entries, faults, now_us, advance)


def file_interactions(
    file: Path, columns: InteractionColumns, now_us: int
) -> tuple[list[UnitInteraction], list[LineFault]]:
    """The interactions of a file, each under an id of its contents, and the lines that are none.

    Raises
    ------
    RequestError
        If the file cannot be read as a whole.
    """
    try:
        table, faults = load_interactions(file, columns)
    except RecsysError as error:
        raise RequestError("file", f"cannot be loaded: {error}") from error
    return list(_interactions(table, now_us)), faults


def _interactions(table: Interactions, now_us: int) -> Iterator[UnitInteraction]:
    for user, item, kind, at, value in zip(
        table.user.tolist(),
        table.item.tolist(),
        table.kind.tolist(),
        table.at.tolist(),
        table.value.tolist(),
        strict=True,
    ):
        told = (table.user_ids[user], table.item_ids[item], table.kinds[kind], at, value)
        digest = hashlib.sha256(msgspec.json.encode(told)).hexdigest()
        yield UnitInteraction(
            interaction_id=f"{OF_FILE}{digest}",
            unit=f"u:{told[0]}",
            item_id=told[1],
            kind=told[2],
            value=value,
            occurred_at=at,
            received_at=now_us,
        )


def _changes(catalogue: Catalogue) -> list[ItemChange]:
    """What tells a store of the items of a catalogue."""
    found = []
    for row, item_id in enumerate(catalogue.ids):
        values: dict[str, Any] = {}
        for name, column in catalogue.columns.items():
            if column.updated_at[row]:
                value = column.at(row)
                values[name] = list(value) if isinstance(value, tuple) else value
        vector = None
        if catalogue.vectors is not None and catalogue.vectors[row].any():
            vector = tuple(catalogue.vectors[row].tolist())
        found.append(ItemChange(item_id, int(catalogue.updated_at[row]), values, vector))
    return found


def _pieces(rows: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _stored(
    store: Store,
    entries: Iterator[Entry],
    faults: Sequence[LineFault],
    now_us: int,
    advance: Advance,
) -> Loaded:
    stored = known = 0
    for entry in entries:
        (result,) = store.write([entry], now_us)
        if not isinstance(result, Stored):
            raise StoreError(f"unexpected result {type(result).__name__}")
        stored += result.accepted
        known += result.duplicates
        advance(result.accepted + result.duplicates)
    return Loaded(stored, known, tuple(faults))
