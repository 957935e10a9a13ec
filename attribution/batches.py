"""A log that comes in Arrow batches: which column holds what, and each batch as checked rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from attribution.errors import AttributionError, refuse_rows
from attribution.log import EvaluationLog, as_numbers, column

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]
BoolArray = npt.NDArray[np.bool_]
# A column of lists, a column for each action, or a function of a batch of n rows giving (n, k).
Matrix = str | Sequence[str] | Callable[[pa.RecordBatch], npt.ArrayLike]

# Rows read at once: a matrix of a hundred actions takes 26 MB.
ROWS = 2**15


@dataclass(frozen=True, slots=True, eq=False)
class LogColumns:
    """Which columns of a batch hold what; each batch is read by itself.

    Parameters
    ----------
    action, reward, propensity, unit, observed
        As in `attribution.EvaluationLog.from_frame`.
    actions
        All k actions, since no batch need hold each of them.
    eligible, pmf
        A column of lists of k, a column for each action, or a function of the batch giving (n, k).
    reward_range
        If not given and the reward's column is boolean, (0, 1).
    max_weight
        As in `attribution.EvaluationLog`.
    adaptive
        Whether the logging policy learned while it logged.
    """

    action: str
    reward: str
    propensity: str | float
    actions: Sequence[Hashable]
    unit: str | None = None
    observed: str | None = None
    eligible: Matrix | None = None
    pmf: Matrix | None = None
    reward_range: tuple[float, float] | None = None
    max_weight: float | None = None
    adaptive: bool = False

    @property
    def k(self) -> int:
        """Actions."""
        return len(self.actions)

    def known(self, batch: pa.RecordBatch) -> BoolArray:
        """(n,) whether each row's outcome is known.

        Raises
        ------
        AttributionError
            If ``observed`` is no column of truths.
        """
        if self.observed is None:
            return np.ones(batch.num_rows, bool)
        known: BoolArray = self._observed(batch).to_numpy(zero_copy_only=False)
        return known

    def missing(self, batch: pa.RecordBatch) -> IntArray:
        """(k,) how many rows of each action lack their outcome."""
        if self.observed is None:
            return np.zeros(self.k, np.intp)
        drawn = _column(batch, self.action, "action").to_pandas()
        codes = pd.Index(list(self.actions)).get_indexer(pd.Index(drawn))
        refuse_rows(
            codes < 0,
            self.action,
            "is not one of `actions`",
            "Add it to `actions`, which lists all that could be drawn.",
            drawn.to_numpy(),
        )
        return np.bincount(codes[~self.known(batch)], minlength=self.k).astype(np.intp)

    def _observed(self, batch: pa.RecordBatch) -> pa.Array:
        name = self.observed or ""
        known = _column(batch, name, "observed")
        if not pa.types.is_boolean(known.type) or known.null_count:
            raise AttributionError(
                f"`observed` is column {name!r} of type {known.type}. It must hold true or false."
            )
        return known

    def rows(self, batch: pa.RecordBatch) -> Rows:
        """A batch, all of whose outcomes are known, as a log of its own.

        Raises
        ------
        AttributionError
            If a column is missing or of the wrong type, or a row is not valid.
        """
        scalar = [
            name
            for name, kind in zip(batch.schema.names, batch.schema.types, strict=True)
            if not pa.types.is_nested(kind)
        ]
        return Rows.from_frame(
            batch.select(scalar).to_pandas(),
            action=self.action,
            reward=self.reward,
            propensity=self.propensity,
            actions=self.actions,
            eligible=None
            if self.eligible is None
            else self.matrix(batch, self.eligible, "eligible"),
            pmf=None if self.pmf is None else self.matrix(batch, self.pmf, "pmf"),
            reward_range=self.reward_range,
            max_weight=self.max_weight,
        )

    def units(self, rows: Rows) -> pd.Series[Any] | None:
        """The ids of the rows' units, (n,), or None where each row is one."""
        if self.unit is None or rows.columns is None:
            return None
        ids = column(rows.columns, self.unit, "unit")
        refuse_rows(ids.isna().to_numpy(), self.unit, "is missing", "Give every row its unit.")
        return ids

    def matrix(self, batch: pa.RecordBatch, where: Matrix, role: str) -> FloatArray:
        """(n, k) of one batch, for the field named ``role``.

        Raises
        ------
        AttributionError
            If there is no such column, or it does not hold k numbers in each row.
        """
        if callable(where):
            return as_numbers(role, where(batch))
        if isinstance(where, str):
            return self._lists(_column(batch, where, role), role)
        if len(where) != self.k:
            raise AttributionError(
                f"`{role}` names {len(where)} columns for {self.k} actions. Name one for each."
            )
        return np.column_stack([_numbers(_column(batch, name, role), role) for name in where])

    def _lists(self, lists: pa.Array, role: str) -> FloatArray:
        kind = lists.type
        if not (
            pa.types.is_list(kind)
            or pa.types.is_large_list(kind)
            or pa.types.is_fixed_size_list(kind)
        ):
            raise AttributionError(
                f"`{role}` is a column of type {kind}. It must hold a list of {self.k} numbers in "
                "each row."
            )
        length = pc.fill_null(pc.list_value_length(lists), -1).to_numpy(zero_copy_only=False)
        refuse_rows(
            length != self.k,
            role,
            f"is no list of {self.k}",
            "Give a number for each of `actions`, in their order.",
            length,
        )
        return _numbers(lists.flatten(), role).reshape(-1, self.k)


@dataclass(frozen=True, slots=True, eq=False)
class Rows(EvaluationLog):
    """Some rows of a log: a part of one may hold a single unit."""

    LEAST_UNITS: ClassVar[int] = 1


def is_matrix(batch: pa.RecordBatch, name: str) -> bool:
    """Whether a column holds lists, and not a number in each row."""
    return bool(pa.types.is_nested(_column(batch, name, "targets").type))


def batches_of(source: Any, names: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
    """The batches of a Parquet file, a folder of them, an Arrow table or dataset, or a function.

    Parameters
    ----------
    source
        A function must give the same batches whenever it is called: a log is read twice.
    names
        Columns to read, or None for all.

    Raises
    ------
    AttributionError
        If it is none of these, or a column is not there.
    """
    if callable(source):
        yield from source()
        return
    if isinstance(source, str | PathLike):
        # Reading ahead would hold the whole file in the end.
        try:
            source = ds.dataset(source, format=ds.ParquetFileFormat(pre_buffer=False))
        # What Arrow says of a file's content are ValueErrors.
        except (OSError, ValueError) as error:
            raise AttributionError(
                f"`source` is {fspath(source)!r}, which cannot be read as Parquet: {error}. "
                "Name files that can."
            ) from error
    elif isinstance(source, pa.Table | pa.RecordBatch):
        source = ds.InMemoryDataset(source)
    if not isinstance(source, ds.Dataset):
        raise AttributionError(
            f"`source` is a {type(source).__name__}. Pass the path of Parquet files, an Arrow "
            "table or dataset, or a function that gives batches anew at each call."
        )
    check_names(names, source.schema.names)
    yield from source.to_batches(
        columns=None if names is None else list(names),
        batch_size=ROWS,
        # Threads run ahead of us, and what they read is held.
        use_threads=False,
        batch_readahead=1,
        fragment_readahead=1,
    )


def check_names(names: Sequence[str] | None, known: Sequence[str]) -> None:
    """Raise unless all columns that are to be read are there."""
    for name in names or ():
        if name not in known:
            raise AttributionError(f"{name!r} is not a column. Columns: {', '.join(known)}.")


def chosen(
    batches: Iterable[pa.RecordBatch], unit: str | None, part: int, parts: int
) -> Iterator[pa.RecordBatch]:
    """The rows whose unit falls to a part, by its hash, so that a part holds whole units."""
    for batch in batches:
        if parts == 1 or unit is None:
            yield batch
            continue
        ids = _column(batch, unit, "unit").to_pandas()
        mine = pd.util.hash_array(ids.to_numpy()) % parts == part
        yield batch.filter(pa.array(mine))


def _column(batch: pa.RecordBatch, name: str, role: str) -> pa.Array:
    if name not in batch.schema.names:
        raise AttributionError(
            f"`{role}` is {name!r}, which is not a column. "
            f"Columns: {', '.join(batch.schema.names)}."
        )
    return batch.column(name)


def _numbers(values: pa.Array, role: str) -> FloatArray:
    kind = values.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise AttributionError(f"`{role}` holds {kind}. It must hold numbers.")
    found: FloatArray = pc.fill_null(values.cast(pa.float64()), math.nan).to_numpy()
    return found
